/* preload_fault.c - an LD_PRELOAD library: the n-th call of one function of
 * the C library fails, or comes up short.  Told by the environment:
 *
 *	RESPOOL_TEST_FAULT	PROGRAM:CALL:N:ERRNO[,ERRNO]: the N-th CALL (from
 *				1) of a process of PROGRAM fails with ERRNO, a
 *				number, and the one after it with the second;
 *				0 stands for half of the bytes
 *	RESPOOL_TEST_FAULT_MARK	a file that is made when that happens, and says
 *				where; while it is there nothing happens, so
 *				that only one process is hit
 *	RESPOOL_TEST_FAULT_LOG	a file that gets a line PROGRAM CALL for each
 *				call; without RESPOOL_TEST_FAULT only
 *
 * Memory is refused to our programs, to json-c and inih, and to the C library
 * on behalf of them all; not to libfcgi and not where json-c copies a name, as
 * these do not look at what they get. */
#define _GNU_SOURCE
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHORT 0
#define NO_FAULT -1

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);

static bool ready;		/* set up, and this process is meant */
static char call_name[32];	/* "": count only */
static const char *mark, *log_file;
static unsigned long nth;
static int faults[2] = { NO_FAULT, NO_FAULT };
static atomic_ulong calls;	/* of call_name */
static atomic_bool fired;	/* here */

/* Written without the functions that are wrapped. */
static void
note(const char *path, int flags, const char *text)
{
	int fd = (int)syscall(SYS_openat, AT_FDCWD, path,
	    O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | flags, 0666);

	if (fd >= 0) {
		syscall(SYS_write, fd, text, strlen(text));
		syscall(SYS_close, fd);
	}
}

__attribute__((constructor)) static void
set_up(void)
{
	const char *what = getenv("RESPOOL_TEST_FAULT");
	char program[32];

	mark = getenv("RESPOOL_TEST_FAULT_MARK");
	log_file = getenv("RESPOOL_TEST_FAULT_LOG");
	if (what == NULL)
		ready = log_file != NULL;
	else
		ready = mark != NULL && sscanf(what,
		    "%31[^:]:%31[^:]:%lu:%d,%d", program, call_name, &nth,
		    &faults[0], &faults[1]) >= 4 &&
		    strcmp(program, program_invocation_short_name) == 0;
}

/* Where the call came from, for who reads the mark. */
static void
fire(const char *call, const void *from)
{
	char text[512];
	Dl_info info;
	bool known = dladdr(from, &info) != 0;

	snprintf(text, sizeof text, "%s %lu %s 0x%lx\n", call, nth,
	    known ? info.dli_fname : "?", known ? (unsigned long)
	    ((const char *)from - (const char *)info.dli_fbase) - 1 : 0);
	note(mark, 0, text);
}

/* What is to become of this call: an errno, SHORT or NO_FAULT. */
static int
fault(const char *call, const void *from)
{
	char line[96];
	unsigned long n;
	int saved = errno, f = NO_FAULT;

	if (!ready)
		return NO_FAULT;
	if (call_name[0] == '\0') {
		snprintf(line, sizeof line, "%s %s\n",
		    program_invocation_short_name, call);
		note(log_file, 0, line);
	} else if (strcmp(call, call_name) == 0) {
		n = atomic_fetch_add(&calls, 1) + 1;
		if (n == nth && syscall(SYS_faccessat, AT_FDCWD, mark,
		    F_OK) < 0) {
			fire(call, from);
			atomic_store(&fired, true);
			f = faults[0];
		} else if (n == nth + 1 && atomic_load(&fired))
			f = faults[1];
	}
	errno = f > 0 ? f : saved;
	return f;
}

/* An event or signal descriptor: in what we do with it, nothing can fail. */
static bool
is_event(int fd)
{
	struct stat st;

	return syscall(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH) == 0 &&
	    (st.st_mode & S_IFMT) == 0;
}

#define FAULT(call) fault(#call, __builtin_return_address(0))
/* The C library's own. */
#define NEXT(call) ((__typeof__(&call))dlsym(RTLD_NEXT, #call))

/* TYPE CALL(PARAMETERS): fails with BAD. */
#define WRAP(type, bad, call, parameters, arguments) \
	type \
	call parameters \
	{ \
		return FAULT(call) > 0 ? (bad) : NEXT(call) arguments; \
	}

/* The same where the error is what comes back. */
#define WRAP_ERROR(call, parameters, arguments) \
	int \
	call parameters \
	{ \
		int f = FAULT(call); \
\
		return f > 0 ? f : NEXT(call) arguments; \
	}

/* The same for n bytes of fd. */
#define WRAP_BYTES(call, parameters, arguments) \
	ssize_t \
	call parameters \
	{ \
		int f = is_event(fd) ? NO_FAULT : FAULT(call); \
\
		if (f > 0) \
			return -1; \
		if (f == SHORT && n > 1) \
			n /= 2; \
		return NEXT(call) arguments; \
	}

WRAP_BYTES(read, (int fd, void *p, size_t n), (fd, p, n))
WRAP_BYTES(write, (int fd, const void *p, size_t n), (fd, p, n))
WRAP_BYTES(pread, (int fd, void *p, size_t n, off_t off), (fd, p, n, off))
WRAP_BYTES(pwrite, (int fd, const void *p, size_t n, off_t off),
    (fd, p, n, off))
WRAP(ssize_t, -1, sendmsg, (int fd, const struct msghdr *m, int flags),
    (fd, m, flags))
WRAP(ssize_t, -1, recvmsg, (int fd, struct msghdr *m, int flags),
    (fd, m, flags))

WRAP(int, -1, fstat, (int fd, struct stat *st), (fd, st))
WRAP(int, -1, fstatat, (int dir, const char *name, struct stat *st, int flags),
    (dir, name, st, flags))
WRAP(int, -1, ftruncate, (int fd, off_t len), (fd, len))
WRAP(int, -1, fallocate, (int fd, int mode, off_t off, off_t len),
    (fd, mode, off, len))
WRAP(int, -1, linkat, (int a, const char *from, int b, const char *to,
    int flags), (a, from, b, to, flags))
WRAP(int, -1, renameat, (int a, const char *from, int b, const char *to),
    (a, from, b, to))
WRAP(int, -1, symlinkat, (const char *to, int dir, const char *name),
    (to, dir, name))
WRAP(int, -1, unlinkat, (int dir, const char *name, int flags),
    (dir, name, flags))
WRAP(int, -1, mkdirat, (int dir, const char *name, mode_t mode),
    (dir, name, mode))
WRAP(DIR *, NULL, fdopendir, (int fd), (fd))

WRAP(int, -1, socket, (int domain, int type, int protocol),
    (domain, type, protocol))
WRAP(int, -1, bind, (int fd, const struct sockaddr *sa, socklen_t len),
    (fd, sa, len))
WRAP(int, -1, listen, (int fd, int n), (fd, n))
WRAP(int, -1, connect, (int fd, const struct sockaddr *sa, socklen_t len),
    (fd, sa, len))
WRAP(int, -1, accept4, (int fd, struct sockaddr *sa, socklen_t *len,
    int flags), (fd, sa, len, flags))
WRAP(int, -1, epoll_create1, (int flags), (flags))
WRAP(int, -1, epoll_ctl, (int e, int op, int fd, struct epoll_event *ev),
    (e, op, fd, ev))
WRAP(int, -1, epoll_wait, (int e, struct epoll_event *ev, int n, int ms),
    (e, ev, n, ms))
WRAP(int, -1, poll, (struct pollfd *p, nfds_t n, int ms), (p, n, ms))
WRAP(int, -1, eventfd, (unsigned n, int flags), (n, flags))
WRAP(int, -1, memfd_create, (const char *name, unsigned flags), (name, flags))
WRAP(int, -1, pipe2, (int fd[2], int flags), (fd, flags))
WRAP(int, -1, signalfd, (int fd, const sigset_t *set, int flags),
    (fd, set, flags))
WRAP(void *, MAP_FAILED, mmap, (void *at, size_t len, int prot, int flags,
    int fd, off_t off), (at, len, prot, flags, fd, off))

WRAP(pid_t, -1, fork, (void), ())
WRAP_ERROR(posix_spawn, (pid_t *pid, const char *path,
    const posix_spawn_file_actions_t *fa, const posix_spawnattr_t *attr,
    char *const argv[], char *const env[]), (pid, path, fa, attr, argv, env))
WRAP_ERROR(pthread_create, (pthread_t *t, const pthread_attr_t *attr,
    void *(*fn)(void *), void *arg), (t, attr, fn, arg))

int
open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = va_arg(ap, mode_t);
	va_end(ap);
	return FAULT(open) > 0 ? -1 : NEXT(open)(path, flags, mode);
}

int
openat(int dir, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = va_arg(ap, mode_t);
	va_end(ap);
	return FAULT(openat) > 0 ? -1 :
	    NEXT(openat)(dir, path, flags, mode);
}

int
fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return FAULT(fcntl) > 0 ? -1 : NEXT(fcntl)(fd, cmd, arg);
}

/* ---- memory ---- */

/* True: none for who calls from there, unless it is a library with that
 * name. */
static bool
no_memory(const char *call, const void *from, const char *but)
{
	static const char *const others[] = { "libfcgi", "ld-linux",
	    "preload_fault", "libcurl", "libssl", "libcrypto" };
	Dl_info info;
	size_t i;

	if (!ready || (call_name[0] != '\0' && strcmp(call, call_name) != 0))
		return false;
	if (dladdr(from, &info) == 0)
		return false;
	for (i = 0; i < sizeof others / sizeof others[0]; i++)
		if (strstr(info.dli_fname, others[i]) != NULL)
			return false;
	if (but != NULL && strstr(info.dli_fname, but) != NULL)
		return false;
	return fault(call, from) > 0;
}
#define NO_MEMORY(call) no_memory(#call, __builtin_return_address(0), NULL)

void *
malloc(size_t n)
{
	return NO_MEMORY(malloc) ? NULL : __libc_malloc(n);
}

void *
calloc(size_t n, size_t size)
{
	return NO_MEMORY(calloc) ? NULL : __libc_calloc(n, size);
}

void *
realloc(void *p, size_t n)
{
	return NO_MEMORY(realloc) ? NULL : __libc_realloc(p, n);
}

char *
strdup(const char *s)
{
	size_t n = strlen(s) + 1;
	char *p = NULL;

	if (!no_memory("strdup", __builtin_return_address(0), "libjson-c"))
		p = __libc_malloc(n);
	return p == NULL ? NULL : memcpy(p, s, n);
}
