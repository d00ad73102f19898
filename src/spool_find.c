/* spool_find.c - reading: which streams there are, and where their frames. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "fdio.h"
#include "spool.h"
#include "spool_impl.h"
#include "sse.h"

/* Two frames and the empty line before them: wherever such a window lies, it
 * holds a whole frame and where that begins. */
#define WINDOW (2 * SSE_FRAME_MAX + 2)

enum rs_err
spool_reader_init(int fd, struct spool_reader *ret)
{
	char p[SPOOL_HEAD_MAX];
	struct spool_reader r = { .fd = fd };
	enum rs_err err;
	size_t n;

	if ((err = fd_pread_full(fd, p, sizeof p, 0, &n)) != RS_OK)
		return err;
	err = stream_head_decode(p, n, &r.head, &r.head_size);
	if (err == RS_OK)
		*ret = r;
	return err;
}

void
spool_reader_done(struct spool_reader *r)
{
	close(r->fd);
	r->fd = -1;
}

enum rs_err
spool_find(struct spool *sp, const struct stream_key *k,
    struct spool_reader *ret)
{
	char name[SPOOL_NAME_SIZE];
	struct spool_reader r;
	struct stream_tail tail;
	struct stat st;
	enum rs_err err;
	int dir, fd;

	stream_file_name(k, name);
	if ((err = spool_shard_open(sp, name, false, &dir)) != RS_OK)
		return err;
	err = spool_file_open(sp, dir, name, O_RDONLY, &fd, &st);
	close(dir);
	if (err != RS_OK)
		return err;
	/* Or each look at a live stream would write its inode.  A reader that
	 * does not own it may not ask for this, and can do without. */
	fcntl(fd, F_SETFL, O_NONBLOCK | O_NOATIME);
	if (st.st_size == 0)
		err = RS_ENOENT; /* a tombstone */
	else
		err = spool_reader_init(fd, &r);
	if (err == RS_OK && spool_expired(sp, &st, clock_wall_ms()) &&
	    spool_tail(&r, &tail) == RS_OK && tail.ended)
		err = RS_ENOENT;
	if (err != RS_OK) {
		close(fd);
		return err;
	}
	*ret = r;
	return RS_OK;
}

/* The offset after the last empty line of p, or 0 when there is none. */
static size_t
spool_last_end(const char *p, size_t n)
{
	for (; n >= 2; n--)
		if (p[n - 1] == '\n' && p[n - 2] == '\n')
			return n;
	return 0;
}

enum rs_err
spool_tail(const struct spool_reader *r, struct stream_tail *ret)
{
	char win[WINDOW];
	uint64_t size, off = r->head_size;
	size_t n, begin, end;
	struct stat st;
	struct sse_frame f;
	enum rs_err err;

	if (fstat(r->fd, &st) < 0)
		return RS_EIO;
	size = (uint64_t)st.st_size;
	if (size < r->head_size)
		return RS_ECORRUPT;
	if (size - off > sizeof win)
		off = size - sizeof win;
	/* Fewer bytes come when the writer just cut its file back. */
	err = fd_pread_full(r->fd, win, (size_t)(size - off), (off_t)off, &n);
	if (err != RS_OK)
		return err;

	end = spool_last_end(win, n);
	if (end < n && sse_frame_scan(win + end, n - end, &f) != SSE_PARTIAL)
		return RS_ECORRUPT;
	if (end == 0) {
		if (off > r->head_size)
			return RS_ECORRUPT;
		*ret = (struct stream_tail){ .end = off, .torn = n > 0 };
		return RS_OK;
	}
	begin = spool_last_end(win, end - 1);
	if ((begin == 0 && off > r->head_size) ||
	    sse_frame_scan(win + begin, end - begin, &f) != SSE_FRAME ||
	    f.size != end - begin || f.id >= size ||
	    (f.terminal && end < n))
		return RS_ECORRUPT;
	*ret = (struct stream_tail){ .count = f.id + 1, .end = off + end,
	    .ended = f.terminal, .torn = end < n };
	return RS_OK;
}

/* The first frame that begins at off or later, and before end.  RS_ENOENT:
 * there is none. */
static enum rs_err
spool_probe(const struct spool_reader *r, uint64_t end, uint64_t off,
    uint64_t *ret_off, uint64_t *ret_id)
{
	char win[WINDOW];
	const char *p;
	uint64_t from = off - 2; /* the empty line before it */
	struct sse_frame f;
	enum rs_err err;
	size_t n;

	n = end - from < sizeof win ? (size_t)(end - from) : sizeof win;
	err = fd_pread_full(r->fd, win, n, (off_t)from, &n);
	if (err != RS_OK)
		return err;
	if ((p = memmem(win, n, "\n\n", 2)) == NULL)
		return RS_ECORRUPT;
	p += 2;
	if (from + (uint64_t)(p - win) == end)
		return RS_ENOENT;
	if (sse_frame_scan(p, n - (size_t)(p - win), &f) != SSE_FRAME)
		return RS_ECORRUPT;
	*ret_off = from + (uint64_t)(p - win);
	*ret_id = f.id;
	return RS_OK;
}

/* Looks for frame id from off on, through at most a window. */
static enum rs_err
spool_seek_near(const struct spool_reader *r, uint64_t end, uint64_t off,
    uint64_t id, uint64_t *ret_off)
{
	char win[WINDOW];
	struct sse_frame f;
	enum rs_err err;
	size_t n, pos;

	n = end - off < sizeof win ? (size_t)(end - off) : sizeof win;
	if ((err = fd_pread_full(r->fd, win, n, (off_t)off, &n)) != RS_OK)
		return err;
	for (pos = 0; pos < n; pos += f.size) {
		if (sse_frame_scan(win + pos, n - pos, &f) != SSE_FRAME ||
		    f.id > id)
			return RS_ECORRUPT;
		if (f.id == id) {
			*ret_off = off + pos;
			return RS_OK;
		}
	}
	return off + pos == end ? RS_ERANGE : RS_ECORRUPT;
}

enum rs_err
spool_seek(const struct spool_reader *r, uint64_t end, uint64_t id,
    uint64_t *ret_off)
{
	/* Frame id, if there is one, begins in [low, high); a frame begins at
	 * low, and its id is not greater. */
	uint64_t low = r->head_size, high = end;

	while (high > low && high - low > SSE_FRAME_MAX) {
		uint64_t mid = low + (high - low) / 2, at, at_id;
		enum rs_err err;

		err = spool_probe(r, end, mid, &at, &at_id);
		if (err != RS_OK && err != RS_ENOENT)
			return err;
		if (err == RS_ENOENT || at_id > id)
			high = mid;
		else if (at >= high)
			return RS_ECORRUPT;
		else
			low = at;
	}
	if (low >= end)
		return RS_ERANGE;
	return spool_seek_near(r, end, low, id, ret_off);
}

/* Takes the frames at p that are right and come next.  *ret_more: they end
 * where more bytes could make another. */
static enum rs_err
spool_scan_frames(const char *p, size_t n, struct fold *fold,
    struct stream_tail *t, bool *ret_more)
{
	enum sse_scan what = SSE_PARTIAL;
	size_t pos = 0;

	while (!t->ended && pos < n) {
		struct sse_frame f;
		enum rs_err err;

		what = sse_frame_scan(p + pos, n - pos, &f);
		if (what != SSE_FRAME || f.id != t->count)
			break;
		err = fold == NULL ? RS_OK : fold_add(fold, &f);
		if (err == RS_ECORRUPT)
			break;
		if (err != RS_OK)
			return err;
		pos += f.size;
		t->count++;
		t->end += f.size;
		t->ended = f.terminal;
	}
	*ret_more = !t->ended && pos > 0 && (pos == n || what == SSE_PARTIAL);
	return RS_OK;
}

enum rs_err
spool_scan(const struct spool_reader *r, struct fold *fold,
    struct stream_tail *ret)
{
	struct stream_tail t = { .end = r->head_size };
	char win[WINDOW];
	struct stat st;
	enum rs_err err;
	bool more;
	size_t n;

	do {
		err = fd_pread_full(r->fd, win, sizeof win, (off_t)t.end, &n);
		if (err == RS_OK)
			err = spool_scan_frames(win, n, fold, &t, &more);
		if (err != RS_OK)
			return err;
	} while (more && n == sizeof win);
	if (fstat(r->fd, &st) < 0)
		return RS_EIO;
	t.torn = (uint64_t)st.st_size > t.end;
	*ret = t;
	return RS_OK;
}

/* Whether spool_find would find it, or call it corrupt.  Most are young, and
 * need not be opened for that. */
static bool
spool_visible(struct spool *sp, int dir, const char *name,
    const struct stream_key *k, int64_t *ret_mtime_ms)
{
	struct spool_reader r;
	struct stat st;
	enum rs_err err;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return false; /* gone since */
	*ret_mtime_ms = spool_mtime_ms(&st);
	if (S_ISREG(st.st_mode) && st.st_size > 0 &&
	    !spool_expired(sp, &st, clock_wall_ms()))
		return true;
	err = spool_find(sp, k, &r);
	if (err == RS_OK)
		spool_reader_done(&r);
	return err != RS_ENOENT;
}

static enum rs_err
spool_each_in(struct spool *sp, unsigned shard, const char *owner_hash,
    bool (*fn)(const struct stream_key *k, int64_t mtime_ms, void *arg),
    void *arg, bool *ret_go_on)
{
	char name[SPOOL_SHARD_SIZE];
	struct dirent *e;
	struct stream_key k;
	int64_t mtime_ms;
	enum rs_err err;
	DIR *d;

	spool_shard_name(shard, name);
	if ((err = fd_dir_open(sp->streams_fd, name, &d)) != RS_OK)
		return err == RS_ENOENT ? RS_OK : RS_EIO;
	while (*ret_go_on && (e = readdir(d)) != NULL) {
		/* Most are somebody else's. */
		if ((owner_hash != NULL && strncmp(e->d_name, owner_hash,
		    sizeof k.owner_hash - 1) != 0) ||
		    stream_key_parse(e->d_name, &k) != RS_OK)
			continue;
		if (spool_visible(sp, dirfd(d), e->d_name, &k, &mtime_ms))
			*ret_go_on = fn(&k, mtime_ms, arg);
	}
	closedir(d);
	return RS_OK;
}

enum rs_err
spool_each(struct spool *sp, const char *owner_hash,
    bool (*fn)(const struct stream_key *k, int64_t mtime_ms, void *arg),
    void *arg)
{
	enum rs_err err = RS_OK;
	bool go_on = true;

	for (unsigned i = 0; i < SPOOL_SHARDS && go_on && err == RS_OK; i++)
		err = spool_each_in(sp, i, owner_hash, fn, arg, &go_on);
	return err;
}
