/* preload_clock.c - for LD_PRELOAD: a machine whose wall clock is set.
 *
 * CLOCK_PAGE names a file that holds two numbers of seconds (64 bits each),
 * mapped by all processes and by the test, which changes them at any time.
 * CLOCK_REALTIME is the first one ahead, and so is the time that an append or
 * a creation leaves in its file; CLOCK_MONOTONIC is ahead by the second, which
 * must not shrink. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/stat.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static _Atomic int64_t *ahead_s;	/* two */

__attribute__((constructor))
static void
page_map(void)
{
	const char *path = getenv("CLOCK_PAGE");
	void *p;
	int fd;

	if (path == NULL || (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		return;
	p = mmap(NULL, 2 * sizeof *ahead_s, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (p != MAP_FAILED)
		ahead_s = p;
}

/* The function that ours of the same name hides. */
#define NEXT(ret, name, params) \
	static ret (*next) params; \
	if (next == NULL && \
	    (*(void **)&next = dlsym(RTLD_NEXT, #name)) == NULL) \
		abort()

int
clock_gettime(clockid_t id, struct timespec *t)
{
	int result;
	NEXT(int, clock_gettime, (clockid_t, struct timespec *));

	result = next(id, t);
	if (result == 0 && ahead_s != NULL)
		t->tv_sec += id == CLOCK_REALTIME ? atomic_load(&ahead_s[0]) :
		    id == CLOCK_MONOTONIC ? atomic_load(&ahead_s[1]) : 0;
	return result;
}

/* What the kernel would have noted, had its own clock been set. */
static void
touch(int fd)
{
	struct timespec t[2] = { { .tv_nsec = UTIME_OMIT } };
	int saved = errno;

	if (ahead_s != NULL && atomic_load(ahead_s) != 0) {
		clock_gettime(CLOCK_REALTIME, &t[1]);
		futimens(fd, t);
	}
	errno = saved;
}

ssize_t
pwrite(int fd, const void *p, size_t len, off_t off)
{
	ssize_t n;
	NEXT(ssize_t, pwrite, (int, const void *, size_t, off_t));

	n = next(fd, p, len, off);
	if (n > 0)
		touch(fd);
	return n;
}

int
openat(int dir, const char *name, int flags, ...)
{
	va_list ap;
	mode_t mode;
	int fd;
	NEXT(int, openat, (int, const char *, int, ...));

	va_start(ap, flags);
	mode = va_arg(ap, mode_t); /* whatever it is when none was given */
	va_end(ap);
	fd = next(dir, name, flags, mode);
	if (fd >= 0 && (flags & O_EXCL) != 0)
		touch(fd);
	return fd;
}
