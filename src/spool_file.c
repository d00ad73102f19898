/* spool_file.c - making a stream's file and appending to it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "fdio.h"
#include "spool.h"
#include "spool_impl.h"

/* When several frames come at once and the space ends among them, a reader may
 * have seen the first before it could be cut off again; so the space is taken
 * first.  Not when it is there already, and where the file system
 * cannot, that reader's luck must do. */
static enum rs_err
spool_reserve(const struct spool_writer *w, const char *frames, size_t len)
{
	const char *first = memmem(frames, len, "\n\n", 2);

	if (first == NULL || first + 2 == frames + len)
		return RS_OK;
	if (w->end > 0 && (w->end - 1) / w->block ==
	    (w->end + len - 1) / w->block)
		return RS_OK;
	if (fallocate(w->fd, FALLOC_FL_KEEP_SIZE, (off_t)w->end,
	    (off_t)len) < 0 && (errno == ENOSPC || errno == EDQUOT))
		return RS_ENOSPC;
	return RS_OK;
}

enum rs_err
spool_append(struct spool_writer *w, const void *frames, size_t len)
{
	enum rs_err err;

	if (w->broken)
		return RS_EIO;
	if ((err = spool_reserve(w, frames, len)) != RS_OK)
		return err;
	err = fd_pwrite_full(w->fd, frames, len, (off_t)w->end);
	if (err != RS_OK) {
		if (ftruncate(w->fd, (off_t)w->end) < 0)
			w->broken = true;
		return err;
	}
	w->end += len;
	return RS_OK;
}

uint64_t
spool_writer_end(const struct spool_writer *w)
{
	return w->end;
}

void
spool_writer_free(struct spool_writer *w)
{
	if (w == NULL)
		return;
	close(w->fd);
	free(w);
}

/* The lock and the head must be there before the name is: whoever finds the
 * name finds a writer, or the certainty that it is dead. */
static enum rs_err
spool_fill(struct spool_writer *w, const struct buf *head)
{
	struct stat st;
	enum rs_err err;

	if ((err = fd_lock(w->fd)) != RS_OK)
		return err;
	if (fstat(w->fd, &st) < 0)
		return RS_EIO;
	w->block = (size_t)st.st_blksize;
	return spool_append(w, head->data, head->len);
}

/* RS_ENOENT: there are no unnamed files here, or none can be given a name. */
static enum rs_err
spool_create_unnamed(const struct spool *sp, int dir, const char *name,
    const struct buf *head, struct spool_writer *w)
{
	char self[32];
	enum rs_err err;

	w->fd = openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC,
	    spool_file_mode(sp));
	if (w->fd < 0)
		return errno == EOPNOTSUPP || errno == EISDIR ||
		    errno == EINVAL ? RS_ENOENT : rs_from_errno(errno);
	if ((err = spool_file_own(sp, w->fd)) != RS_OK ||
	    (err = spool_fill(w, head)) != RS_OK)
		goto out;
	snprintf(self, sizeof self, "/proc/self/fd/%d", w->fd);
	if (linkat(AT_FDCWD, self, dir, name, AT_SYMLINK_FOLLOW) == 0)
		return RS_OK;
	/* Without /proc, for one. */
	err = errno == EEXIST || errno == ENOSPC || errno == EDQUOT ?
	    rs_from_errno(errno) : RS_ENOENT;
out:
	close(w->fd);
	return err;
}

static enum rs_err
spool_create_named(const struct spool *sp, int dir, const char *name,
    const struct buf *head, struct spool_writer *w)
{
	char tmp[SPOOL_TMP_SIZE];
	enum rs_err err;

	if ((err = spool_file_tmp(sp, dir, tmp, &w->fd)) != RS_OK)
		return err;
	err = spool_fill(w, head);
	if (err == RS_OK && linkat(dir, tmp, dir, name, 0) < 0)
		err = rs_from_errno(errno);
	unlinkat(dir, tmp, 0);
	if (err != RS_OK)
		close(w->fd);
	return err;
}

static enum rs_err
spool_create_once(const struct spool *sp, int dir, const char *name,
    const struct buf *head, struct spool_writer *ret)
{
	struct spool_writer w = { .fd = -1 };
	enum rs_err err;

	err = spool_create_unnamed(sp, dir, name, head, &w);
	if (err == RS_ENOENT) {
		w = (struct spool_writer){ .fd = -1 };
		err = spool_create_named(sp, dir, name, head, &w);
	}
	if (err == RS_OK)
		*ret = w;
	return err;
}

enum rs_err
spool_create(struct spool *sp, const struct stream_key *k,
    struct stream_head *h, struct spool_writer **ret)
{
	struct spool_writer *w;
	char name[SPOOL_NAME_SIZE];
	struct buf head;
	enum rs_err err;
	int dir = -1;

	buf_init(&head, SPOOL_HEAD_MAX);
	if ((w = calloc(1, sizeof *w)) == NULL)
		return RS_ENOMEM;
	memcpy(h->host, sp->host, sizeof h->host);
	memcpy(h->boot, sp->boot, sizeof h->boot);
	stream_head_encode(&head, h);
	if ((err = head.err) != RS_OK)
		goto out;
	stream_file_name(k, name);
	if ((err = spool_shard_open(sp, name, true, &dir)) != RS_OK)
		goto out;
	err = spool_create_once(sp, dir, name, &head, w);
	if (err == RS_EEXIST &&
	    spool_reap(sp, dir, name, clock_wall_ms()) == RS_OK)
		err = spool_create_once(sp, dir, name, &head, w);
	if (err != RS_OK)
		goto out;
	*ret = w;
	w = NULL;
out:
	if (dir >= 0)
		close(dir);
	buf_done(&head);
	free(w);
	return err;
}
