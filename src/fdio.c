/* fdio.c - whole reads and writes, directories, locks. */
#include <sys/resource.h>
#include <sys/syscall.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

#include "fdio.h"

enum rs_err
fd_write_full(int fd, const void *p, size_t n)
{
	const char *at = p;
	ssize_t done;

	while (n > 0) {
		done = write(fd, at, n);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return rs_from_errno(errno);
		at += done;
		n -= (size_t)done;
	}
	return RS_OK;
}

enum rs_err
fd_pwrite_full(int fd, const void *p, size_t n, off_t off)
{
	const char *at = p;
	ssize_t done;

	while (n > 0) {
		done = pwrite(fd, at, n, off);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return rs_from_errno(errno);
		at += done;
		n -= (size_t)done;
		off += done;
	}
	return RS_OK;
}

enum rs_err
fd_pread_full(int fd, void *p, size_t n, off_t off, size_t *ret_n)
{
	size_t have = 0;
	ssize_t got;

	while (have < n) {
		got = pread(fd, (char *)p + have, n - have, off + (off_t)have);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return rs_from_errno(errno);
		if (got == 0)
			break;
		have += (size_t)got;
	}
	*ret_n = have;
	return RS_OK;
}

enum rs_err
fd_read_all(int fd, struct buf *b)
{
	enum rs_err err = RS_OK;
	size_t n, before = b->len;
	char part[8192];
	off_t off = 0;

	do {
		err = fd_pread_full(fd, part, sizeof part, off, &n);
		if (err == RS_OK) {
			buf_add(b, part, n);
			err = b->err;
			off += (off_t)n;
		}
	} while (err == RS_OK && n == sizeof part);
	if (err != RS_OK && b->len > before) {
		b->len = before;
		b->data[before] = '\0';
	}
	return err;
}

enum rs_err
fd_read_file(int dirfd, const char *path, struct buf *b)
{
	int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	enum rs_err err;

	if (fd < 0)
		return rs_from_errno(errno);
	err = fd_read_all(fd, b);
	close(fd);
	return err;
}

enum rs_err
fd_dir_open(int dirfd, const char *path, DIR **ret)
{
	int fd = openat(dirfd, path,
	    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir;

	if (fd < 0)
		return rs_from_errno(errno);
	if ((dir = fdopendir(fd)) == NULL) {
		close(fd);
		return RS_ENOMEM;
	}
	*ret = dir;
	return RS_OK;
}

enum rs_err
fd_lock(int fd)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return RS_OK;
	return errno == EAGAIN || errno == EACCES ? RS_EBUSY : RS_EIO;
}

void
fd_close_from(int first)
{
	long fd, end;

	/* By number: the C library's wrapper is not everywhere. */
	if (syscall(SYS_close_range, (unsigned)first, UINT32_MAX, 0) == 0)
		return;
	/* Kernels before 5.9, and sandboxes that do not know the call. */
	end = sysconf(_SC_OPEN_MAX);
	for (fd = first; fd < end; fd++)
		close((int)fd);
}

void
fd_nonblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags >= 0)
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

void
fd_raise_limit(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
}
