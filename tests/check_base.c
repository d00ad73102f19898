/* check_base.c - err, errtype, buf, fdio, clock, text. */
#include <sys/resource.h>
#include <sys/wait.h>

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "clock.h"
#include "err.h"
#include "errtype.h"
#include "fdio.h"
#include "text.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

static char dir[PATH_MAX];

static void
make_dir(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof dir, "%s/check_base.XXXXXX",
	    tmp != NULL ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(chdir(dir), 0);
}

static void
remove_dir(void)
{
	unlink("a");
	unlink("b");
	ck_assert_int_eq(chdir("/"), 0);
	ck_assert_int_eq(rmdir(dir), 0);
}

static int
open_new(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	return fd;
}

/* ---- err, errtype ---- */

START_TEST(every_error_has_a_text_of_its_own)
{
	int a, b;

	for (a = RS_OK; a <= RS_ERANGE; a++) {
		ck_assert_uint_gt(strlen(rs_strerror((enum rs_err)a)), 0);
		for (b = RS_OK; b < a; b++)
			ck_assert_str_ne(rs_strerror((enum rs_err)a),
			    rs_strerror((enum rs_err)b));
	}
	ck_assert_str_eq(rs_strerror((enum rs_err)4711), "unknown error");
	ck_assert_str_eq(rs_strerror((enum rs_err)-1), "unknown error");
}
END_TEST

static const struct {
	int number;
	enum rs_err want;
} errnos[] = {
	{ ENOSPC, RS_ENOSPC },
	{ EDQUOT, RS_ENOSPC },
	{ EFBIG, RS_ENOSPC },
	{ ENOMEM, RS_ENOMEM },
	{ ENOENT, RS_ENOENT },
	{ EEXIST, RS_EEXIST },
	{ EAGAIN, RS_EBUSY },
	{ EACCES, RS_EPERM },
	{ EPERM, RS_EPERM },
	{ EPIPE, RS_ECLOSED },
	{ ECONNREFUSED, RS_ECLOSED },
	{ ETIMEDOUT, RS_ETIMEOUT },
	{ EIO, RS_EIO },
	{ EBADF, RS_EIO },
	{ 0, RS_EIO },
};

START_TEST(an_errno_becomes_an_error)
{
	ck_assert_int_eq(rs_from_errno(errnos[_i].number), errnos[_i].want);
}
END_TEST

START_TEST(every_error_type_is_found_by_its_name)
{
	const struct errtype_info *info;
	int t;

	for (t = ERRTYPE_none + 1; t < ERRTYPE_COUNT; t++) {
		info = errtype_info((enum errtype)t);
		ck_assert_int_eq(errtype_find(info->name), t);
		ck_assert_uint_gt(strlen(info->text), 0);
		ck_assert(info->status == 0 ||
		    (info->status >= 400 && info->status < 600));
	}
	ck_assert_str_eq(errtype_info(ERRTYPE_none)->name, "");
	ck_assert_int_eq(errtype_find("nonsense"), ERRTYPE_none);
	ck_assert_int_eq(errtype_find(""), ERRTYPE_none);
	ck_assert_int_eq(errtype_find("none"), ERRTYPE_none);
}
END_TEST

/* ---- buf ---- */

START_TEST(a_buffer_holds_exactly_its_maximum)
{
	struct buf b;
	int i;

	buf_init(&b, 300);
	for (i = 0; i < 300; i++)
		buf_add(&b, "x", 1);
	ck_assert_int_eq(b.err, RS_OK);
	ck_assert_uint_eq(b.len, 300);
	buf_add(&b, "", 0);
	ck_assert_int_eq(b.err, RS_OK);
	buf_add(&b, "y", 1);
	ck_assert_int_eq(b.err, RS_ETOOBIG);
	ck_assert_uint_eq(b.len, 300);
	ck_assert_uint_eq(strlen(b.data), 300);
	buf_done(&b);
}
END_TEST

START_TEST(an_add_that_does_not_fit_adds_nothing_and_the_error_sticks)
{
	struct buf b;

	buf_init(&b, 8);
	buf_puts(&b, "12345");
	buf_puts(&b, "6789");
	ck_assert_int_eq(b.err, RS_ETOOBIG);
	ck_assert_str_eq(b.data, "12345");
	buf_puts(&b, "6");
	buf_printf(&b, "%d", 6);
	ck_assert_str_eq(b.data, "12345");
	buf_clear(&b);
	ck_assert_int_eq(b.err, RS_OK);
	buf_puts(&b, "abc");
	ck_assert_str_eq(b.data, "abc");
	buf_done(&b);
}
END_TEST

/* Around the ends of printf's scratch space and of the maximum. */
START_TEST(printf_adds_all_or_nothing)
{
	struct buf b;

	buf_init(&b, 300);
	buf_puts(&b, "0123456789");
	buf_printf(&b, "%0*d", _i, 7);
	if (_i <= 290) {
		ck_assert_int_eq(b.err, RS_OK);
		ck_assert_uint_eq(b.len, 10 + (size_t)_i);
		ck_assert_int_eq(b.data[b.len - 1], '7');
	} else {
		ck_assert_int_eq(b.err, RS_ETOOBIG);
		ck_assert_uint_eq(b.len, 10);
	}
	ck_assert_uint_eq(strlen(b.data), b.len);
	buf_done(&b);
}
END_TEST

START_TEST(dropping_keeps_the_rest)
{
	struct buf b;

	buf_init(&b, SIZE_MAX);
	buf_drop(&b, 0);
	buf_clear(&b);
	buf_add(&b, "ab\0cd", 5);
	buf_drop(&b, 2);
	ck_assert_uint_eq(b.len, 3);
	ck_assert_mem_eq(b.data, "\0cd", 4);
	buf_drop(&b, 3);
	ck_assert_uint_eq(b.len, 0);
	ck_assert_str_eq(b.data, "");
	buf_done(&b);
	ck_assert_ptr_null(b.data);
	ck_assert_uint_eq(b.max, SIZE_MAX);
	buf_done(&b);
}
END_TEST

/* ---- fdio ---- */

START_TEST(what_is_written_whole_is_read_whole)
{
	static char out[100000], in[100001];
	int fd = open_new("a");
	size_t n;

	memset(out, 'o', sizeof out);
	ck_assert_int_eq(fd_write_full(fd, out, sizeof out), RS_OK);
	ck_assert_int_eq(fd_pread_full(fd, in, sizeof in, 0, &n), RS_OK);
	ck_assert_uint_eq(n, sizeof out);
	ck_assert_mem_eq(in, out, n);
	ck_assert_int_eq(fd_pread_full(fd, in, 10, 99995, &n), RS_OK);
	ck_assert_uint_eq(n, 5);
	ck_assert_int_eq(fd_pread_full(fd, in, 10, 100000, &n), RS_OK);
	ck_assert_uint_eq(n, 0);
	close(fd);
	n = 77;
	ck_assert_int_eq(fd_pread_full(fd, in, 10, 0, &n), RS_EIO);
	ck_assert_uint_eq(n, 77);
}
END_TEST

/* A pipe holds less than this: the writer must go on after short writes. */
START_TEST(a_pipe_takes_all_of_a_large_write)
{
	static char text[1 << 20];
	size_t got = 0;
	ssize_t n;
	int p[2], status;
	pid_t pid;

	ck_assert_int_eq(pipe(p), 0);
	pid = fork();
	if (pid == 0) {
		close(p[0]);
		_exit(fd_write_full(p[1], text, sizeof text) != RS_OK);
	}
	close(p[1]);
	while ((n = read(p[0], text, 5000)) > 0)
		got += (size_t)n;
	ck_assert_uint_eq(got, sizeof text);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	close(p[0]);
}
END_TEST

START_TEST(a_full_disk_is_told_from_other_failures)
{
	struct rlimit limit = { 100, RLIM_INFINITY };
	static char text[200];
	int fd = open_new("a"), p[2];

	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	ck_assert_int_eq(fd_write_full(fd, text, sizeof text), RS_ENOSPC);
	limit.rlim_cur = RLIM_INFINITY;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	close(fd);
	ck_assert_int_eq(pipe(p), 0);
	close(p[0]);
	ck_assert_int_eq(fd_write_full(p[1], "x", 1), RS_ECLOSED);
	close(p[1]);
}
END_TEST

START_TEST(a_file_is_read_up_to_the_maximum)
{
	static char text[20000];
	int fd = open_new("a");
	struct buf b;

	ck_assert_int_eq(fd_write_full(fd, text, sizeof text), RS_OK);
	close(fd);
	buf_init(&b, sizeof text + 1);
	buf_puts(&b, "+");
	ck_assert_int_eq(fd_read_file(AT_FDCWD, "a", &b), RS_OK);
	ck_assert_uint_eq(b.len, sizeof text + 1);
	buf_clear(&b);
	buf_puts(&b, "++");
	ck_assert_int_eq(fd_read_file(AT_FDCWD, "a", &b), RS_ETOOBIG);
	ck_assert_str_eq(b.data, "++");
	buf_clear(&b);
	ck_assert_int_eq(fd_read_file(AT_FDCWD, "none", &b), RS_ENOENT);
	ck_assert_int_eq(fd_read_file(AT_FDCWD, ".", &b), RS_EIO);
	ck_assert_int_eq(b.err, RS_OK);
	buf_done(&b);
}
END_TEST

START_TEST(a_lock_belongs_to_the_open_file)
{
	int a = open_new("a"), b = open_new("a"), again = dup(a);

	ck_assert_int_eq(fd_lock(a), RS_OK);
	ck_assert_int_eq(fd_lock(a), RS_OK);
	ck_assert_int_eq(fd_lock(b), RS_EBUSY);
	close(a);
	ck_assert_int_eq(fd_lock(b), RS_EBUSY);
	close(again);
	ck_assert_int_eq(fd_lock(b), RS_OK);
	close(b);
	ck_assert_int_eq(fd_lock(b), RS_EIO);
}
END_TEST

START_TEST(a_lock_dies_with_its_process)
{
	int fd = open_new("a"), p[2], status;
	char byte;
	pid_t pid;

	ck_assert_int_eq(pipe(p), 0);
	pid = fork();
	if (pid == 0) {
		int own = open("a", O_RDWR);

		if (fd_lock(own) == RS_OK)
			fd_write_full(p[1], "x", 1);
		for (;;)
			pause();
	}
	ck_assert_int_eq(read(p[0], &byte, 1), 1);
	ck_assert_int_eq(fd_lock(fd), RS_EBUSY);
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(fd_lock(fd), RS_OK);
	close(fd);
	close(p[0]);
	close(p[1]);
}
END_TEST

START_TEST(close_from_closes_all_from_there_on)
{
	int status, fd = open_new("a");
	pid_t pid = fork();

	if (pid == 0) {
		dup2(fd, 100);
		dup2(fd, 200);
		dup2(fd, 99);
		fd_close_from(100);
		_exit(fcntl(99, F_GETFD) < 0 || fcntl(100, F_GETFD) >= 0 ||
		    fcntl(200, F_GETFD) >= 0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	close(fd);
}
END_TEST

START_TEST(nonblock_makes_a_read_return)
{
	char byte;
	int p[2];

	ck_assert_int_eq(pipe(p), 0);
	fd_nonblock(p[0]);
	ck_assert_int_eq(read(p[0], &byte, 1), -1);
	ck_assert_int_eq(errno, EAGAIN);
	close(p[0]);
	close(p[1]);
}
END_TEST

/* ---- clock ---- */

START_TEST(the_clocks_stand_where_they_are_frozen)
{
	uint64_t before = clock_mono_ns();
	int64_t wall = clock_wall_ms();

	clock_freeze(5, -6);
	ck_assert_uint_eq(clock_mono_ns(), 5);
	ck_assert_int_eq(clock_wall_ms(), -6);
	clock_run();
	ck_assert_uint_ge(clock_mono_ns(), before);
	ck_assert_int_ge(clock_wall_ms(), wall - 60000);
	ck_assert_int_gt(wall, INT64_C(1577836800000)); /* 2020 */
}
END_TEST

static const struct {
	int64_t ms;
	const char *want;
} times[] = {
	{ 0, "1970-01-01T00:00:00.000Z" },
	{ 1935656527113, "2031-05-04T10:22:07.113Z" },
	{ 951782399999, "2000-02-28T23:59:59.999Z" },
	{ 951782400000, "2000-02-29T00:00:00.000Z" },
	{ -1, "1970-01-01T00:00:00.000Z" },
	{ INT64_MIN, "1970-01-01T00:00:00.000Z" },
	{ 253402300799999, "9999-12-31T23:59:59.999Z" },
	{ INT64_MAX, "9999-12-31T23:59:59.999Z" },
};

START_TEST(a_time_is_written_in_utc)
{
	char text[CLOCK_ISO_SIZE];

	setenv("TZ", "America/New_York", 1);
	clock_iso(times[_i].ms, text);
	ck_assert_str_eq(text, times[_i].want);
}
END_TEST

/* ---- text ---- */

static const struct {
	const char *text;
	size_t len, want; /* utf8_char */
} chars[] = {
	{ "", 0, 0 },
	{ "a", 1, 1 },
	{ "\0", 1, 1 },
	{ "\x7f", 1, 1 },
	{ "\x80", 1, 0 },
	{ "\xbf\x80", 2, 0 },
	{ "\xc0\x80", 2, 0 },		/* overlong NUL */
	{ "\xc1\xbf", 2, 0 },
	{ "\xc2\x80", 2, 2 },
	{ "\xc3", 1, 0 },
	{ "\xc3\xc3", 2, 0 },
	{ "\xdf\xbf!", 3, 2 },
	{ "\xe0\x9f\xbf", 3, 0 },	/* overlong */
	{ "\xe0\xa0\x80", 3, 3 },
	{ "\xe2\x82", 2, 0 },
	{ "\xe2\x82\xac", 3, 3 },
	{ "\xe2\x82\x2c", 3, 0 },
	{ "\xed\x9f\xbf", 3, 3 },
	{ "\xed\xa0\x80", 3, 0 },	/* U+D800 */
	{ "\xed\xbf\xbf", 3, 0 },
	{ "\xee\x80\x80", 3, 3 },
	{ "\xef\xbf\xbf", 3, 3 },
	{ "\xf0\x8f\xbf\xbf", 4, 0 },	/* overlong */
	{ "\xf0\x90\x80\x80", 4, 4 },
	{ "\xf0\x9f\x98", 3, 0 },
	{ "\xf0\x9f\x98\x80", 4, 4 },
	{ "\xf4\x8f\xbf\xbf", 4, 4 },
	{ "\xf4\x90\x80\x80", 4, 0 },	/* U+110000 */
	{ "\xf5\x80\x80\x80", 4, 0 },
	{ "\xff", 1, 0 },
};

START_TEST(a_character_is_measured)
{
	/* A copy of that size, so that reading beyond it is noticed. */
	size_t n = chars[_i].len;
	char *copy = malloc(n + (n == 0));

	memcpy(copy, chars[_i].text, n);
	ck_assert_uint_eq(utf8_char(copy, n), chars[_i].want);
	ck_assert_int_eq(utf8_valid(copy, n),
	    n == 0 || chars[_i].want == n ||
	    (chars[_i].want == 2 && n == 3 /* and one more */));
	free(copy);
}
END_TEST

START_TEST(text_is_cut_between_characters)
{
	/* 1, 2, 3, 4 bytes: ends at 1, 3, 6, 10; then one more */
	static const char text[] = "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80z";
	static const size_t want[] = { 0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11,
		11 };

	ck_assert_uint_eq(utf8_cut(text, 11, (size_t)_i), want[_i]);
}
END_TEST

START_TEST(text_that_is_not_utf8_is_cut_anywhere)
{
	ck_assert_uint_eq(utf8_cut("\x80\x80\x80\x80\x80\x80", 6, 4), 4);
	ck_assert_uint_eq(utf8_cut("abc\xff\xff\xff", 6, 5), 5);
	/* The character is cut short by the text's own end. */
	ck_assert_uint_eq(utf8_cut("abc\xe2\x82", 5, 4), 4);
}
END_TEST

START_TEST(digests_are_lower_case_sha256)
{
	char hex[SHA256_HEX_SIZE];

	sha256_hex("", 0, hex);
	ck_assert_str_eq(hex, "e3b0c44298fc1c149afbf4c8996fb924"
	    "27ae41e4649b934ca495991b7852b855");
	sha256_hex("abc", 3, hex);
	ck_assert_str_eq(hex, "ba7816bf8f01cfea414140de5dae2223"
	    "b00361a396177a9cb410ff61f20015ad");
}
END_TEST

START_TEST(random_names_have_their_length_and_differ)
{
	char a[201], b[201];

	random_hex(a, (size_t)_i);
	random_hex(b, (size_t)_i);
	ck_assert_uint_eq(strlen(a), 2 * (size_t)_i);
	ck_assert_uint_eq(strspn(a, "0123456789abcdef"), strlen(a));
	if (_i >= 8)
		ck_assert_str_ne(a, b);
}
END_TEST

static Suite *
base_suite(void)
{
	Suite *s = suite_create("base");
	TCase *tc;

	tc = tcase_create("err");
	tcase_add_test(tc, every_error_has_a_text_of_its_own);
	tcase_add_loop_test(tc, an_errno_becomes_an_error, 0, COUNT(errnos));
	tcase_add_test(tc, every_error_type_is_found_by_its_name);
	suite_add_tcase(s, tc);

	tc = tcase_create("buf");
	tcase_add_test(tc, a_buffer_holds_exactly_its_maximum);
	tcase_add_test(tc,
	    an_add_that_does_not_fit_adds_nothing_and_the_error_sticks);
	tcase_add_loop_test(tc, printf_adds_all_or_nothing, 126, 131);
	tcase_add_loop_test(tc, printf_adds_all_or_nothing, 288, 294);
	tcase_add_test(tc, dropping_keeps_the_rest);
	suite_add_tcase(s, tc);

	tc = tcase_create("fdio");
	tcase_add_checked_fixture(tc, make_dir, remove_dir);
	tcase_add_test(tc, what_is_written_whole_is_read_whole);
	tcase_add_test(tc, a_pipe_takes_all_of_a_large_write);
	tcase_add_test(tc, a_full_disk_is_told_from_other_failures);
	tcase_add_test(tc, a_file_is_read_up_to_the_maximum);
	tcase_add_test(tc, a_lock_belongs_to_the_open_file);
	tcase_add_test(tc, a_lock_dies_with_its_process);
	tcase_add_test(tc, close_from_closes_all_from_there_on);
	tcase_add_test(tc, nonblock_makes_a_read_return);
	suite_add_tcase(s, tc);

	tc = tcase_create("clock");
	tcase_add_test(tc, the_clocks_stand_where_they_are_frozen);
	tcase_add_loop_test(tc, a_time_is_written_in_utc, 0, COUNT(times));
	suite_add_tcase(s, tc);

	tc = tcase_create("text");
	tcase_add_loop_test(tc, a_character_is_measured, 0, COUNT(chars));
	tcase_add_loop_test(tc, text_is_cut_between_characters, 0, 13);
	tcase_add_test(tc, text_that_is_not_utf8_is_cut_anywhere);
	tcase_add_test(tc, digests_are_lower_case_sha256);
	tcase_add_loop_test(tc, random_names_have_their_length_and_differ, 0,
	    100);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	SRunner *sr = srunner_create(base_suite());
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
