/* spool_lock.c - who may change the spool, and the space kept for endings. */
#include <sys/statvfs.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "fdio.h"
#include "spool.h"
#include "spool_impl.h"

#define FILES_MIN 64 /* that can still be made; less is a full disk */

/* A file of the spool's own, made when it is missing. */
static enum rs_err
spool_own_open(const struct spool *sp, const char *name, int *ret_fd,
    struct stat *ret_st)
{
	return spool_file_open(sp, sp->fd, name, O_RDWR | O_CREAT, ret_fd,
	    ret_st);
}

/* Whether spooler.lock names a process of another host. */
static bool
lock_is_foreign(const struct spool *sp, int fd)
{
	char line[128], host[65], boot[37];
	size_t n;

	if (fd_pread_full(fd, line, sizeof line - 1, 0, &n) != RS_OK)
		return true; /* who knows */
	line[n] = '\0';
	return sscanf(line, "%64s %36s", host, boot) == 2 &&
	    spool_foreign(sp, host, boot);
}

static enum rs_err
lock_sign(const struct spool *sp, int fd)
{
	char line[128];
	enum rs_err err;
	int len;

	len = snprintf(line, sizeof line, "%s %s %ld\n", sp->host, sp->boot,
	    (long)getpid());
	err = fd_pwrite_full(fd, line, (size_t)len, 0);
	if (err == RS_OK && ftruncate(fd, len) < 0)
		err = RS_EIO;
	return err;
}

enum rs_err
spool_lock_mutator(struct spool *sp, int *ret_fd)
{
	struct stat st;
	enum rs_err err;
	int fd;

	if ((err = spool_own_open(sp, "spooler.lock", &fd, &st)) != RS_OK)
		return err;
	err = fd_lock(fd);
	/* The name counts, not the lock: another host's may not reach here. */
	if (sp->shared_fs && lock_is_foreign(sp, fd))
		err = RS_EFOREIGN;
	/* On a local file system the line is for people: a full disk must not
	 * keep a spooler from ending streams. */
	if (err == RS_OK && lock_sign(sp, fd) != RS_OK && sp->shared_fs)
		err = RS_EIO;
	if (err != RS_OK) {
		close(fd);
		return err;
	}
	*ret_fd = fd;
	return RS_OK;
}

/* What the kernel says to cmd of the lock, on a descriptor that does not stay.
 * F_UNLCK also on an error: who takes it will say why. */
static short
lock_fcntl(const struct spool *sp, int cmd)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct stat st;
	int fd, rc;

	if (spool_own_open(sp, "spooler.lock", &fd, &st) != RS_OK)
		return F_UNLCK;
	do
		rc = fcntl(fd, cmd, &lock);
	while (rc < 0 && errno == EINTR);
	close(fd);
	return rc < 0 ? F_UNLCK : lock.l_type;
}

bool
spool_lock_busy(const struct spool *sp)
{
	return lock_fcntl(sp, F_OFD_GETLK) != F_UNLCK;
}

void
spool_lock_wait(const struct spool *sp)
{
	lock_fcntl(sp, F_OFD_SETLKW);
}

enum rs_err
spool_ready(const struct spool *sp, uint64_t bytes)
{
	struct statvfs fs;
	struct stat st;

	if (fstat(sp->streams_fd, &st) < 0 ||
	    fstatvfs(sp->streams_fd, &fs) < 0)
		return RS_EIO;
	if (st.st_nlink == 0)
		return RS_ENOENT;
	if (faccessat(sp->streams_fd, ".", W_OK | X_OK, 0) < 0)
		return RS_EPERM;
	/* Some file systems do not count their files. */
	if (fs.f_bavail < bytes / fs.f_frsize ||
	    (fs.f_files > 0 && fs.f_favail < FILES_MIN))
		return RS_ENOSPC;
	return RS_OK;
}

/* Where fallocate is not to be had. */
static enum rs_err
ballast_fill(int fd, uint64_t off, uint64_t end)
{
	static const char zeros[16384];
	enum rs_err err = RS_OK;
	size_t len;

	for (; off < end && err == RS_OK; off += len) {
		len = end - off < sizeof zeros ? (size_t)(end - off) :
		    sizeof zeros;
		err = fd_pwrite_full(fd, zeros, len, (off_t)off);
	}
	return err;
}

static enum rs_err
ballast_grow(int fd, uint64_t size, uint64_t want)
{
	enum rs_err err = RS_OK;
	int rc;

	do
		rc = fallocate(fd, 0, (off_t)size, (off_t)(want - size));
	while (rc < 0 && errno == EINTR);
	if (rc < 0)
		err = errno == EOPNOTSUPP || errno == ENOSYS ?
		    ballast_fill(fd, size, want) : rs_from_errno(errno);
	if (err != RS_OK && ftruncate(fd, (off_t)size) < 0)
		err = RS_EIO;
	return err;
}

enum rs_err
spool_ballast(struct spool *sp, uint64_t streams)
{
	/* An ending takes a block; eight usage lines, about, another one. */
	uint64_t want = (streams + streams / 8 + 1) * SPOOL_BALLAST_PER_STREAM;
	struct stat st;
	enum rs_err err;
	int fd;

	if ((err = spool_own_open(sp, "ballast", &fd, &st)) != RS_OK)
		return err;
	if (want > (uint64_t)st.st_size)
		err = ballast_grow(fd, (uint64_t)st.st_size, want);
	close(fd);
	return err;
}

enum rs_err
spool_ballast_give(struct spool *sp)
{
	struct stat st;
	enum rs_err err;
	off_t size;
	int fd;

	err = spool_file_open(sp, sp->fd, "ballast", O_RDWR, &fd, &st);
	if (err != RS_OK)
		return err;
	size = st.st_size > SPOOL_BALLAST_PER_STREAM ?
	    st.st_size - SPOOL_BALLAST_PER_STREAM : 0;
	if (st.st_size == 0)
		err = RS_ENOENT;
	else if (ftruncate(fd, size) < 0)
		err = RS_EIO;
	close(fd);
	return err;
}
