/* spool_fixture.h - a spool in a directory of its own, for the tests of it. */
#ifndef RESPOOL_SPOOL_FIXTURE_H
#define RESPOOL_SPOOL_FIXTURE_H

#include <check.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "clock.h"
#include "fdio.h"
#include "spool.h"
#include "sse.h"

#define TTL_S 3600

static char fx_dir[4000];
static struct conf fx_conf;
static struct spool *fx_sp;
static struct stream_key fx_key;
static int64_t fx_now_ms;

static inline struct spool *
fx_open(void)
{
	struct spool *sp;
	struct buf why;

	buf_init(&why, 4096);
	ck_assert_msg(spool_open(&fx_conf, &sp, &why) == RS_OK, "%s",
	    why.data);
	buf_done(&why);
	return sp;
}

static inline void
fx_setup(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(fx_dir, sizeof fx_dir, "%s/spool.XXXXXX",
	    tmp != NULL ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(fx_dir));
	fx_now_ms = (int64_t)time(NULL) * 1000;
	clock_freeze(NS_PER_S, fx_now_ms);
	fx_conf = (struct conf){ .spool_dir = fx_dir, .ttl = TTL_S,
	    .spool_shared_fs = (char *)"no" };
	fx_sp = fx_open();
	stream_key(&fx_key, "alice", "s1");
}

static inline int
fx_remove_one(const char *path, const struct stat *st, int flag,
    struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static inline void
fx_teardown(void)
{
	spool_close(fx_sp);
	nftw(fx_dir, fx_remove_one, 16, FTW_DEPTH | FTW_PHYS);
	clock_run();
}

static inline struct stream_head
fx_head(void)
{
	struct stream_head h = { .owner = "alice", .model = "demo \"m\"",
	    .created_ms = fx_now_ms - 5000, .request = "abcd",
	    .host = "h", .boot = "b", .socket = "s-0123456789abcdef.sock" };

	return h;
}

static inline struct spool_writer *
fx_create(const struct stream_key *k)
{
	struct stream_head h = fx_head();
	struct spool_writer *w;

	ck_assert_int_eq(spool_create(fx_sp, k, &h, &w), RS_OK);
	return w;
}

/* Where the stream's file is, by name. */
static inline const char *
fx_path(const struct stream_key *k)
{
	static char path[sizeof fx_dir + 128];
	char name[SPOOL_NAME_SIZE], hex[SHA256_HEX_SIZE];

	stream_file_name(k, name);
	sha256_hex(name, strlen(name), hex);
	snprintf(path, sizeof path, "%s/streams/%.2s/%s", fx_dir, hex, name);
	return path;
}

/* The same file again: its directory, then its name. */
static inline void
fx_write(const struct stream_key *k, const void *p, size_t n)
{
	char dir[sizeof fx_dir + 128];
	int fd;

	snprintf(dir, sizeof dir, "%s", fx_path(k));
	*strrchr(dir, '/') = '\0';
	mkdir(dir, 0700);
	fd = open(fx_path(k), O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fd_write_full(fd, p, n), RS_OK);
	close(fd);
}

static inline void
fx_read(const struct stream_key *k, struct buf *b)
{
	buf_init(b, 1 << 26);
	ck_assert_int_eq(fd_read_file(AT_FDCWD, fx_path(k), b), RS_OK);
}

/* Makes its last append that much older. */
static inline void
fx_age(const char *path, int64_t seconds)
{
	struct timespec t[2] = { { .tv_nsec = UTIME_OMIT },
	    { .tv_sec = fx_now_ms / 1000 - seconds } };

	ck_assert_int_eq(utimensat(AT_FDCWD, path, t, AT_SYMLINK_NOFOLLOW),
	    0);
}

/* A message_chunk of exactly size bytes, or the shortest when size is less. */
static inline void
fx_frame(struct buf *b, uint64_t id, size_t size)
{
	static const char end[] = "\",\"tokens\":2,\"cost_usd\":0.0000006}\n\n";
	size_t begin = b->len;

	buf_printf(b, "event: message_chunk\nid: %" PRIu64 "\nretry: 10000\n"
	    "data: {\"content\":\"", id);
	while (b->len - begin + sizeof end - 1 < size)
		buf_puts(b, "x");
	buf_puts(b, end);
	ck_assert_int_eq(b->err, RS_OK);
}

static inline void
fx_done(struct buf *b, uint64_t id)
{
	buf_printf(b, "event: done\nid: %" PRIu64 "\nretry: 10000\n"
	    "data: {\"finish_reason\":\"stop\"}\n\n", id);
}

/* A head and frames of the given sizes; *ret_head: bytes of the head. */
static inline void
fx_stream(struct buf *b, const size_t *sizes, size_t count, size_t *ret_head)
{
	struct stream_head h = fx_head();

	buf_init(b, 1 << 26);
	stream_head_encode(b, &h);
	*ret_head = b->len;
	for (size_t i = 0; i < count; i++)
		fx_frame(b, i, sizes[i]);
}

static inline struct spool_reader
fx_find(const struct stream_key *k)
{
	struct spool_reader r;

	ck_assert_int_eq(spool_find(fx_sp, k, &r), RS_OK);
	return r;
}

static inline struct stream_tail
fx_tail(const struct stream_key *k)
{
	struct spool_reader r = fx_find(k);
	struct stream_tail t;

	ck_assert_int_eq(spool_tail(&r, &t), RS_OK);
	spool_reader_done(&r);
	return t;
}

/* A process that creates the stream and then lives, holding its lock. */
static inline pid_t
fx_child_writer(const struct stream_key *k)
{
	int ready[2];
	char c;
	pid_t pid;

	ck_assert_int_eq(pipe(ready), 0);
	if ((pid = fork()) == 0) {
		struct stream_head h = fx_head();
		struct spool_writer *w;
		struct buf b;

		buf_init(&b, 4096);
		fx_frame(&b, 0, 0);
		if (spool_create(fx_sp, k, &h, &w) != RS_OK ||
		    spool_append(w, b.data, b.len) != RS_OK ||
		    write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static inline void
fx_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

static inline int
fx_run(Suite *s)
{
	SRunner *sr = srunner_create(s);
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
