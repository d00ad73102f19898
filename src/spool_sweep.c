/* spool_sweep.c - removing streams: when they are old, or on demand. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "fdio.h"
#include "spool.h"
#include "spool_impl.h"

#define AHEAD_MS 60000 /* clocks that are set by a little do not count */

/* RS_OK: nobody misses the file; else as of spool_reap.  What has no head
 * can neither be read nor ended: only time can help. */
static enum rs_err
reap_check(int fd, const struct stat *st)
{
	struct spool_reader r;
	struct stream_tail tail;
	enum rs_err err;

	if (st->st_size == 0)
		return RS_OK;
	err = spool_reader_init(fd, &r);
	if (err == RS_OK)
		err = spool_tail(&r, &tail);
	else if (err == RS_ECORRUPT)
		return RS_OK;
	if (err == RS_ECORRUPT || (err == RS_OK && !tail.ended))
		return RS_EEXIST;
	return err;
}

/* The clock was set back since. */
static bool
is_ahead(const struct stat *st, int64_t now_ms)
{
	return spool_mtime_ms(st) - now_ms > AHEAD_MS;
}

/* Its ttl begins now, or it would stay until the clock is there again. */
static void
reap_date(int fd, int64_t now_ms)
{
	const struct timespec t[2] = { { .tv_nsec = UTIME_OMIT },
		{ .tv_sec = now_ms / 1000 } };

	futimens(fd, t); /* if not now, the next time round */
}

/* spool_reap of one that seems old enough; dry: but for the lock and what would
 * be changed. */
static enum rs_err
reap(const struct spool *sp, int dir, const char *name, int64_t now_ms,
    bool dry)
{
	struct stat st;
	enum rs_err err;
	int fd;

	err = dry ? spool_file_open(sp, dir, name, O_RDONLY, &fd, &st) :
	    spool_file_lock(sp, dir, name, &fd, &st);
	if (err != RS_OK)
		return err;
	if (!dry && is_ahead(&st, now_ms))
		reap_date(fd, now_ms);
	if (!spool_expired(sp, &st, now_ms))
		err = RS_EBUSY;
	else
		err = reap_check(fd, &st);
	if (err == RS_OK && !dry && unlinkat(dir, name, 0) < 0)
		err = rs_from_errno(errno);
	close(fd);
	return err;
}

enum rs_err
spool_reap(const struct spool *sp, int dir, const char *name, int64_t now_ms)
{
	return reap(sp, dir, name, now_ms, false);
}

static void
sweep_gone(struct sweep *s, const char *name, enum sweep_why why,
    uint64_t bytes)
{
	s->removed++;
	if (s->gone != NULL)
		s->gone(name, why, bytes, s->arg);
}

/* What stays. */
static void
sweep_count(struct sweep *s, const char *name, const struct stream_key *k,
    const struct stat *st)
{
	struct stock_file f = {
		.mtime_ns = spool_mtime_ns(st), .shard = s->shard,
	};

	if (st->st_size == 0 || (s->live != NULL && s->live(k, s->arg)))
		return;
	s->files++;
	s->bytes += (uint64_t)st->st_size;
	if (s->stock == NULL)
		return;
	strcpy(f.name, name);
	stock_note(s->stock, &f);
}

static void
sweep_file(struct spool *sp, struct sweep *s, const char *name,
    int64_t now_ms)
{
	enum rs_err err = RS_EBUSY;
	int dir = dirfd(s->dir);
	struct stream_key k;
	struct stat st;

	if (stream_key_parse(name, &k) != RS_OK ||
	    fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    !S_ISREG(st.st_mode))
		return;
	/* Most are young, and need not be opened. */
	if (spool_expired(sp, &st, now_ms) || is_ahead(&st, now_ms))
		err = reap(sp, dir, name, now_ms, s->dry);
	if (err == RS_OK)
		sweep_gone(s, name, SWEEP_TTL, (uint64_t)st.st_size);
	else
		sweep_count(s, name, &k, &st);
	if (err == RS_EEXIST && !s->dry)
		spool_seal(sp, &k); /* if not now, the next time round */
}

/* Only the mutator makes temporary files, one at a time, and that is who
 * sweeps: any that is here was left by a dead one. */
static void
sweep_leftover(struct sweep *s, const char *name)
{
	struct stat st;

	if (strncmp(name, SPOOL_TMP_PREFIX, strlen(SPOOL_TMP_PREFIX)) == 0 &&
	    fstatat(dirfd(s->dir), name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    (s->dry || unlinkat(dirfd(s->dir), name, 0) == 0))
		sweep_gone(s, name, SWEEP_LEFTOVER, (uint64_t)st.st_size);
}

static enum rs_err
sweep_open(struct spool *sp, struct sweep *s)
{
	char name[SPOOL_SHARD_SIZE];

	s->files = s->bytes = 0;
	spool_shard_name(s->shard, name);
	return fd_dir_open(sp->streams_fd, name, &s->dir);
}

void
spool_sweep_done(struct sweep *s)
{
	if (s->dir != NULL)
		closedir(s->dir);
	s->dir = NULL;
}

enum rs_err
spool_sweep(struct spool *sp, struct sweep *s, int64_t now_ms,
    uint64_t budget_ns, bool *ret_done)
{
	uint64_t start = clock_mono_ns();
	enum rs_err err = RS_OK;
	struct dirent *e;

	if (s->dir == NULL)
		err = sweep_open(sp, s);
	while (err == RS_OK && (e = readdir(s->dir)) != NULL) {
		if (e->d_name[0] == '.')
			sweep_leftover(s, e->d_name);
		else
			sweep_file(sp, s, e->d_name, now_ms);
		if (clock_mono_ns() - start >= budget_ns) {
			*ret_done = false;
			return RS_OK;
		}
	}
	spool_sweep_done(s);
	if (err == RS_ENOENT)
		err = RS_OK;
	if (s->stock != NULL && err == RS_OK)
		stock_shard(s->stock, s->shard, s->files, s->bytes);
	else if (s->stock != NULL)
		stock_skip(s->stock);
	s->shard = (s->shard + 1) % SPOOL_SHARDS;
	if (err == RS_OK)
		*ret_done = true;
	return err;
}

/* ---- making room ---- */

/* Removes f under its lock, when nothing was done to it since.  RS_EEXIST: it
 * has not ended. */
static enum rs_err
evict_in(const struct spool *sp, int dir, const struct stock_file *f, bool dry,
    uint64_t *ret_bytes)
{
	struct stat st;
	enum rs_err err;
	int fd;

	err = dry ? spool_file_open(sp, dir, f->name, O_RDONLY, &fd, &st) :
	    spool_file_lock(sp, dir, f->name, &fd, &st);
	if (err != RS_OK)
		return err;
	if (st.st_size == 0 || spool_mtime_ns(&st) != f->mtime_ns)
		err = RS_EBUSY;
	else
		err = reap_check(fd, &st);
	if (err == RS_OK && !dry && unlinkat(dir, f->name, 0) < 0)
		err = rs_from_errno(errno);
	if (err == RS_OK)
		*ret_bytes = (uint64_t)st.st_size;
	close(fd);
	return err;
}

static void
evict(struct spool *sp, struct sweep *s, const struct stock_file *f)
{
	struct stock *stock = s->stock;
	char shard[SPOOL_SHARD_SIZE];
	struct stream_key k;
	uint64_t bytes;
	enum rs_err err;
	int dir;

	spool_shard_name(f->shard, shard);
	if (stream_key_parse(f->name, &k) != RS_OK ||
	    spool_dir_open(sp, sp->streams_fd, shard, false, &dir) != RS_OK)
		return;
	err = evict_in(sp, dir, f, s->dry, &bytes);
	close(dir);
	if (err == RS_OK) {
		sweep_gone(s, f->name, SWEEP_CAP, bytes);
		stock_drop(stock, s, &k, bytes);
		stock->evicted++;
		stock->evicted_bytes += bytes;
	} else if (err == RS_EEXIST && !s->dry) {
		spool_seal(sp, &k);
	}
}

bool
spool_evict(struct spool *sp, struct sweep *s, uint64_t budget_ns)
{
	uint64_t start = clock_mono_ns();
	struct stock *st = s->stock;
	size_t first = st->old_next;

	while (st->uncounted == 0 && st->old_next < st->old_count &&
	    stock_over(st)) {
		evict(sp, s, &st->old[st->old_next++]);
		if (clock_mono_ns() - start >= budget_ns)
			break;
	}
	return st->old_next > first;
}

/* ---- on demand ---- */

uint64_t
spool_bytes(struct spool *sp, const struct stream_key *k)
{
	char name[SPOOL_NAME_SIZE];
	struct stat st = { .st_size = 0 };
	int dir;

	stream_file_name(k, name);
	if (spool_shard_open(sp, name, false, &dir) != RS_OK)
		return 0;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		st.st_size = 0;
	close(dir);
	return (uint64_t)st.st_size;
}

static enum rs_err
delete_locked(const struct spool *sp, int dir, const char *name)
{
	char tmp[SPOOL_TMP_SIZE];
	enum rs_err err;
	int fd;

	if ((err = spool_file_tmp(sp, dir, tmp, &fd)) != RS_OK)
		return err;
	close(fd);
	if (renameat(dir, tmp, dir, name) == 0)
		return RS_OK;
	err = rs_from_errno(errno);
	unlinkat(dir, tmp, 0);
	return err;
}

enum rs_err
spool_delete(struct spool *sp, const struct stream_key *k)
{
	char name[SPOOL_NAME_SIZE];
	struct stat st;
	enum rs_err err;
	int dir, fd;

	stream_file_name(k, name);
	if ((err = spool_shard_open(sp, name, false, &dir)) != RS_OK)
		return err == RS_ENOENT ? RS_OK : err;
	err = spool_file_lock(sp, dir, name, &fd, &st);
	if (err == RS_OK) {
		/* One tombstone is enough; its time goes on. */
		if (st.st_size > 0)
			err = delete_locked(sp, dir, name);
		close(fd);
	} else if (err == RS_ENOENT)
		err = RS_OK;
	close(dir);
	return err;
}
