/* preload_pause.c - for LD_PRELOAD: kills or stops a process at a chosen call.
 *
 * PAUSE_PAGE names a file that is mapped by all processes that may be hit and
 * by the test, which writes an order into it at any time: the signal to raise
 * at the n-th call of a function from then on, before it, after it, or within
 * it (then a write writes half of its bytes).  An order is obeyed once, by
 * whichever process comes to the n-th call.  Until it is, it may be withdrawn,
 * also while that call lasts.
 *
 * "any" is a call of any of the functions below.  Two calls have names of their
 * own: "lock" is the fcntl that takes an OFD lock, "usage" the write of a line
 * of JSON, whose other writes are "write".
 * tests/direct.py packs struct pause_page. */
#define _GNU_SOURCE
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h> /* renameat */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum pause_when { PAUSE_BEFORE, PAUSE_WITHIN, PAUSE_AFTER };

static struct pause_page {
	_Atomic uint32_t armed;	/* the order's number, written last; 0: none */
	_Atomic uint32_t left;	/* calls: the one that finds 1 is hit */
	uint32_t when;		/* enum pause_when */
	uint32_t signal;
	/* With SIGKILL: a child keeps the files, and so their locks, but no
	 * socket, for as long, as a kernel that is slow to clean up. */
	uint32_t hold_ms;
	_Atomic uint32_t hit;	/* the pid of who was */
	_Atomic uint32_t no_tmpfile; /* O_TMPFILE is not known here */
	char call[32];
} *page;

__attribute__((constructor))
static void
page_map(void)
{
	const char *path = getenv("PAUSE_PAGE");
	void *p;
	int fd;

	if (path == NULL || (fd = open(path, O_RDWR | O_CLOEXEC)) < 0)
		return;
	p = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
	    0);
	close(fd);
	if (p != MAP_FAILED)
		page = p;
}

static void *
find_next(const char *name)
{
	void *p = dlsym(RTLD_NEXT, name);

	if (p == NULL)
		abort();
	return p;
}

/* The function that ours of the same name hides. */
#define NEXT(ret, name, params) \
	static ret (*next) params; \
	if (next == NULL) \
		*(void **)&next = find_next(#name)

/* A call's part of an order: the page may hold another one when the call
 * returns, or when a process that was stopped goes on. */
struct shot {
	uint32_t order; /* 0: none */
	enum pause_when when;
	int signal;
	uint32_t hold_ms;
};

static struct shot
aim(const char *call)
{
	uint32_t order = page != NULL ? atomic_load(&page->armed) : 0;

	if (order == 0 || (strcmp(page->call, call) != 0 &&
	    strcmp(page->call, "any") != 0) ||
	    atomic_fetch_sub(&page->left, 1) != 1)
		return (struct shot){ .order = 0 };
	return (struct shot){ .order = order, .when = page->when,
	    .signal = (int)page->signal, .hold_ms = page->hold_ms };
}

/* Takes the order, if now is its moment and it was not withdrawn. */
static bool
take(struct shot *s, enum pause_when now)
{
	uint32_t order = s->order;

	if (order == 0 || s->when != now)
		return false;
	s->order = 0;
	if (!atomic_compare_exchange_strong(&page->armed, &order, 0))
		return false;
	atomic_store(&page->hit, (uint32_t)getpid());
	return true;
}

static void
hold_files(uint32_t ms)
{
	const struct timespec ts = {
		.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L,
	};
	struct stat st;
	int fd;

	if (fork() != 0)
		return;
	for (fd = 0; fd < 1024; fd++)
		if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode))
			close(fd);
	nanosleep(&ts, NULL);
	_exit(EXIT_SUCCESS);
}

static void
fire(const struct shot *s)
{
	int saved = errno;

	if (s->hold_ms > 0)
		hold_files(s->hold_ms);
	kill(getpid(), s->signal);
	errno = saved;
}

static void
meet(struct shot *s, enum pause_when now)
{
	if (take(s, now))
		fire(s);
}

#define CALL(ret, name, params, args) \
ret \
name params \
{ \
	struct shot s = aim(#name); \
	ret result; \
	NEXT(ret, name, params); \
\
	meet(&s, PAUSE_BEFORE); \
	result = next args; \
	meet(&s, PAUSE_AFTER); \
	return result; \
}

CALL(int, linkat, (int from, const char *name, int to, const char *new_name,
    int flags), (from, name, to, new_name, flags))
CALL(int, symlinkat, (const char *target, int dir, const char *name),
    (target, dir, name))
CALL(int, renameat, (int from, const char *name, int to,
    const char *new_name), (from, name, to, new_name))
CALL(int, unlinkat, (int dir, const char *name, int flags),
    (dir, name, flags))
CALL(int, ftruncate, (int fd, off_t size), (fd, size))
CALL(int, fallocate, (int fd, int mode, off_t off, off_t len),
    (fd, mode, off, len))
CALL(int, close, (int fd), (fd))
CALL(int, bind, (int fd, const struct sockaddr *addr, socklen_t len),
    (fd, addr, len))
CALL(int, connect, (int fd, const struct sockaddr *addr, socklen_t len),
    (fd, addr, len))
CALL(int, accept4, (int fd, struct sockaddr *addr, socklen_t *len, int flags),
    (fd, addr, len, flags))
CALL(ssize_t, sendmsg, (int fd, const struct msghdr *msg, int flags),
    (fd, msg, flags))
CALL(ssize_t, recvmsg, (int fd, struct msghdr *msg, int flags),
    (fd, msg, flags))
CALL(int, epoll_wait, (int fd, struct epoll_event *ev, int n, int ms),
    (fd, ev, n, ms))

int
openat(int dir, const char *name, int flags, ...)
{
	struct shot s = aim("openat");
	va_list ap;
	mode_t mode;
	int fd;
	NEXT(int, openat, (int, const char *, int, ...));

	va_start(ap, flags);
	mode = va_arg(ap, mode_t); /* whatever it is when none was given */
	va_end(ap);
	meet(&s, PAUSE_BEFORE);
	if (page != NULL && atomic_load(&page->no_tmpfile) != 0 &&
	    (flags & O_TMPFILE) == O_TMPFILE) {
		errno = EOPNOTSUPP;
		fd = -1;
	} else
		fd = next(dir, name, flags, mode);
	meet(&s, PAUSE_AFTER);
	return fd;
}

/* All commands here take an int, a pointer, or nothing. */
int
fcntl(int fd, int cmd, ...)
{
	struct shot s = aim(cmd == F_OFD_SETLK ? "lock" : "fcntl");
	va_list ap;
	void *arg;
	int result;
	NEXT(int, fcntl, (int, int, ...));

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	meet(&s, PAUSE_BEFORE);
	result = next(fd, cmd, arg);
	meet(&s, PAUSE_AFTER);
	return result;
}

static bool
is_json(const char *p, size_t len)
{
	return len > 1 && (p[0] == '{' || (p[0] == '\n' && p[1] == '{'));
}

ssize_t
write(int fd, const void *p, size_t len)
{
	struct shot s = aim(is_json(p, len) ? "usage" : "write");
	bool half;
	ssize_t n;
	NEXT(ssize_t, write, (int, const void *, size_t));

	meet(&s, PAUSE_BEFORE);
	half = take(&s, PAUSE_WITHIN);
	n = next(fd, p, half ? len / 2 : len);
	if (half)
		fire(&s);
	meet(&s, PAUSE_AFTER);
	return n;
}

ssize_t
pwrite(int fd, const void *p, size_t len, off_t off)
{
	struct shot s = aim("pwrite");
	bool half;
	ssize_t n;
	NEXT(ssize_t, pwrite, (int, const void *, size_t, off_t));

	meet(&s, PAUSE_BEFORE);
	half = take(&s, PAUSE_WITHIN);
	n = next(fd, p, half ? len / 2 : len, off);
	if (half)
		fire(&s);
	meet(&s, PAUSE_AFTER);
	return n;
}
