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

enum rs_err
spool_reap(const struct spool *sp, int dir, const char *name, int64_t now_ms)
{
	struct stat st;
	enum rs_err err;
	int fd;

	/* Most are young, and need not be opened. */
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return rs_from_errno(errno);
	if (!spool_expired(sp, &st, now_ms) && !is_ahead(&st, now_ms))
		return RS_EBUSY;
	if ((err = spool_file_lock(sp, dir, name, &fd, &st)) != RS_OK)
		return err;
	if (is_ahead(&st, now_ms))
		reap_date(fd, now_ms);
	if (!spool_expired(sp, &st, now_ms))
		err = RS_EBUSY;
	else
		err = reap_check(fd, &st);
	if (err == RS_OK && unlinkat(dir, name, 0) < 0)
		err = rs_from_errno(errno);
	close(fd);
	return err;
}

static void
sweep_file(struct spool *sp, struct sweep *s, const char *name,
    int64_t now_ms)
{
	int dir = dirfd(s->dir);
	struct stream_key k;
	enum rs_err err;

	/* Only the mutator makes temporary files, one at a time, and that is
	 * who runs this: any that is here was left by a dead one. */
	if (strncmp(name, SPOOL_TMP_PREFIX, strlen(SPOOL_TMP_PREFIX)) == 0) {
		if (unlinkat(dir, name, 0) == 0)
			s->removed++;
		return;
	}
	if (stream_key_parse(name, &k) != RS_OK)
		return;
	err = spool_reap(sp, dir, name, now_ms);
	if (err == RS_OK)
		s->removed++;
	else if (err == RS_EEXIST)
		spool_seal(sp, &k); /* if not now, the next time round */
}

static enum rs_err
sweep_open(struct spool *sp, struct sweep *s)
{
	char name[SPOOL_SHARD_SIZE];

	snprintf(name, sizeof name, "%02x", (unsigned char)s->shard);
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
		sweep_file(sp, s, e->d_name, now_ms);
		if (clock_mono_ns() - start >= budget_ns) {
			*ret_done = false;
			return RS_OK;
		}
	}
	spool_sweep_done(s);
	s->shard = (s->shard + 1) % SPOOL_SHARDS;
	if (err != RS_OK && err != RS_ENOENT)
		return err;
	*ret_done = true;
	return RS_OK;
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
