/* fuzz.c - what the fuzz targets share */
#include <sys/mman.h>
#include <sys/stat.h>

#include <check.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "fdio.h"
#include "fuzz.h"

void
_mark_point(const char *file, int line)
{
	(void)file;
	(void)line;
}

void
_ck_assert_failed(const char *file, int line, const char *expr,
    const char *msg, ...)
{
	(void)msg;
	fprintf(stderr, "%s:%d: %s\n", file, line, expr);
	abort();
}

const char *
fuzz_file(const void *p, size_t n)
{
	static char path[32];
	static int fd = -1;

	if (fd < 0) {
		fd = memfd_create("fuzz", MFD_CLOEXEC);
		ck_assert_int_eq(fchmod(fd, 0600), 0);
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	}
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
	ck_assert_int_eq(fd_write_full(fd, p, n), RS_OK);
	return path;
}

void
fuzz_forget_usage(const struct spool *sp)
{
	char name[64] = "usage/";
	size_t dir = strlen(name);

	clock_iso(clock_wall_ms(), name + dir);
	strcpy(name + dir + strlen("YYYY-MM-DD"), ".jsonl");
	unlinkat(sp->fd, name, 0);
}

int
fuzz_next_fd(void)
{
	int fd = dup(STDERR_FILENO);

	close(fd);
	return fd;
}
