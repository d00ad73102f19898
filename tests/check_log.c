/* check_log.c - lines in files, to syslog, and outside text in them. */
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "clock.h"
#include "fdio.h"
#include "log.h"
#include "text.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))
#define PROGRAM "respool.fcgi"

static char dir[PATH_MAX];

static void
make_dir(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof dir, "%s/check_log.XXXXXX",
	    tmp != NULL ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(chdir(dir), 0);
	setenv("TZ", "UTC", 1);
}

static void
remove_dir(void)
{
	log_open(LOGL_INFO, "");
	clock_run();
	unlink("a");
	unlink("b");
	unlink("s");
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

/* ---- lines in a file ---- */

static void
read_log(const char *path, struct buf *b)
{
	buf_init(b, 1 << 24);
	ck_assert_int_eq(fd_read_file(AT_FDCWD, path, b), RS_OK);
}

START_TEST(a_line_has_time_level_part_and_text)
{
	struct buf b;

	clock_freeze(0, 1935656527113);
	log_open(LOGL_INFO, "a");
	log_debug("gen", "not wanted");
	log_info("gen", "stream=%s finished pid=%d", "7f3a", 812);
	errno = ENOENT;
	log_error("main", "%m");
	ck_assert_int_eq(errno, ENOENT);
	log_open(LOGL_WARN, "b");
	log_info("gen", "not wanted");
	log_warn("gen", "moved");
	log_open(LOGL_DEBUG, "a");
	log_debug("gen", "back");
	read_log("a", &b);
	ck_assert_str_eq(b.data,
	    "2031-05-04T10:22:07.113Z info gen stream=7f3a finished pid=812\n"
	    "2031-05-04T10:22:07.113Z error main No such file or directory\n"
	    "2031-05-04T10:22:07.113Z debug gen back\n");
	buf_done(&b);
	read_log("b", &b);
	ck_assert_str_eq(b.data,
	    "2031-05-04T10:22:07.113Z warn gen moved\n");
	buf_done(&b);
	log_open(LOGL_INFO, "");
	clock_run();
}
END_TEST

START_TEST(a_log_that_cannot_be_opened_is_told_on_stderr)
{
	struct buf b;
	int fd = open_new("b"), saved = dup(2);

	dup2(fd, 2);
	log_open(LOGL_INFO, "none/log");
	log_info("gen", "still said");
	dup2(saved, 2);
	close(saved);
	close(fd);
	read_log("b", &b);
	ck_assert_ptr_nonnull(strstr(b.data, "Z error log log_file none/log "
	    "cannot be opened: No such file or directory\n"));
	ck_assert_ptr_nonnull(strstr(b.data, "Z info gen still said\n"));
	buf_done(&b);
}
END_TEST

START_TEST(a_long_line_is_cut_and_still_one_line)
{
	static char text[5000];
	struct buf b;

	memset(text, 'x', sizeof text - 1);
	log_open(LOGL_INFO, "a");
	log_info("gen", "%s", text);
	log_info(text, "%s", text);
	log_open(LOGL_INFO, "");
	read_log("a", &b);
	ck_assert_uint_eq(b.len, 2 * 2048);
	ck_assert_ptr_eq(strchr(b.data, '\n'), b.data + 2047);
	ck_assert_int_eq(b.data[4095], '\n');
	buf_done(&b);
}
END_TEST

static void *
log_many(void *arg)
{
	int i;

	for (i = 0; i < 500; i++) {
		log_info("thread", "%s", (const char *)arg);
		if (i % 50 == 0)
			log_open(LOGL_INFO, "a");
	}
	return NULL;
}

START_TEST(threads_do_not_mix_their_lines)
{
	static char names[4][200];
	pthread_t threads[4];
	char *at, *line;
	struct buf b;
	int i, lines = 0;

	log_open(LOGL_INFO, "a");
	for (i = 0; i < 4; i++) {
		memset(names[i], 'a' + i, sizeof names[i] - 1);
		ck_assert_int_eq(pthread_create(&threads[i], NULL, log_many,
		    names[i]), 0);
	}
	for (i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	log_open(LOGL_INFO, "");
	read_log("a", &b);
	for (line = strtok_r(b.data, "\n", &at); line != NULL;
	    line = strtok_r(NULL, "\n", &at)) {
		char *text = strrchr(line, ' ') + 1;

		ck_assert_uint_eq(strlen(line), 24 + 13 + 199);
		ck_assert_str_eq(text, names[text[0] - 'a']);
		lines++;
	}
	ck_assert_int_eq(lines, 2000);
	buf_done(&b);
}
END_TEST

/* ---- opened again ---- */

START_TEST(a_file_that_was_renamed_is_made_anew)
{
	struct buf b;

	log_open(LOGL_INFO, "a");
	log_info("gen", "first");
	ck_assert_int_eq(rename("a", "b"), 0);
	log_info("gen", "second");
	log_reopen();
	log_info("gen", "third");
	read_log("b", &b);
	ck_assert_ptr_nonnull(strstr(b.data, " gen first\n"));
	ck_assert_ptr_nonnull(strstr(b.data, " gen second\n"));
	ck_assert_ptr_null(strstr(b.data, " third\n"));
	buf_done(&b);
	read_log("a", &b);
	ck_assert_ptr_nonnull(strstr(b.data, " info log opened again pid="));
	ck_assert_ptr_nonnull(strstr(b.data, " gen third\n"));
	buf_done(&b);
}
END_TEST

START_TEST(a_file_that_cannot_be_made_anew_is_kept)
{
	struct buf b;

	ck_assert_int_eq(mkdir("d", 0700), 0);
	log_open(LOGL_INFO, "d/a");
	ck_assert_int_eq(rename("d/a", "b"), 0);
	ck_assert_int_eq(rmdir("d"), 0);
	log_reopen();
	log_info("gen", "still said");
	read_log("b", &b);
	ck_assert_ptr_nonnull(strstr(b.data, " error log not opened again, "
	    "the former file is kept pid="));
	ck_assert_ptr_nonnull(strstr(b.data, "why=\"No such file or directory"
	    "\"\n"));
	ck_assert_ptr_nonnull(strstr(b.data, " gen still said\n"));
	buf_done(&b);
}
END_TEST

START_TEST(standard_error_is_not_opened_again)
{
	struct buf b;
	int fd = open_new("b"), saved = dup(2);

	dup2(fd, 2);
	log_open(LOGL_INFO, "");
	log_reopen();
	log_info("gen", "said");
	dup2(saved, 2);
	close(saved);
	close(fd);
	read_log("b", &b);
	ck_assert_ptr_nonnull(strstr(b.data, " gen said\n"));
	ck_assert_ptr_eq(strchr(b.data, '\n'), b.data + b.len - 1);
	buf_done(&b);
}
END_TEST

static atomic_bool writing;

static void *
log_some(void *arg)
{
	int i;

	for (i = 0; i < 2000; i++)
		log_info("thread", "%s %d", (const char *)arg, i);
	return NULL;
}

static void *
rotate_often(void *arg)
{
	int *rotations = arg;
	char name[16];

	while (atomic_load(&writing)) {
		snprintf(name, sizeof name, "a.%d", (*rotations)++);
		ck_assert_int_eq(rename("a", name), 0);
		log_reopen();
	}
	return NULL;
}

static int
count_lines(const char *path, unsigned char seen[4][2000])
{
	char *at, *line, name;
	int lines = 0, number;
	struct buf b;

	read_log(path, &b);
	buf_puts(&b, "\n"); /* it may be empty */
	for (line = strtok_r(b.data, "\n", &at); line != NULL;
	    line = strtok_r(NULL, "\n", &at)) {
		if (strstr(line, " info log opened again pid=") != NULL)
			continue;
		ck_assert_int_eq(sscanf(line, "%*s info thread %c %d", &name,
		    &number), 2);
		ck_assert_int_eq(seen[name - 'a'][number]++, 0);
		lines++;
	}
	buf_done(&b);
	unlink(path);
	return lines;
}

START_TEST(each_line_of_each_thread_is_whole_in_one_file)
{
	static char names[4][2] = { "a", "b", "c", "d" };
	static unsigned char seen[4][2000];
	int i, lines, rotations = 0;
	pthread_t threads[4], rotator;
	char name[16];

	log_open(LOGL_INFO, "a");
	atomic_store(&writing, true);
	ck_assert_int_eq(pthread_create(&rotator, NULL, rotate_often,
	    &rotations), 0);
	for (i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, log_some,
		    names[i]), 0);
	for (i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	atomic_store(&writing, false);
	pthread_join(rotator, NULL);
	lines = count_lines("a", seen);
	for (i = 0; i < rotations; i++) {
		snprintf(name, sizeof name, "a.%d", i);
		lines += count_lines(name, seen);
	}
	ck_assert_int_eq(lines, 4 * 2000);
	ck_assert_int_gt(rotations, 1);
}
END_TEST

/* ---- syslog ---- */

/* A daemon's socket. */
static int
daemon_new(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX, .sun_path = "s" };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	unlink("s");
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sun, sizeof sun), 0);
	return fd;
}

static const char *
daemon_hears(int fd)
{
	static char line[4096];
	ssize_t n = recv(fd, line, sizeof line - 1, 0);

	ck_assert_int_gt(n, 0);
	line[n] = '\0';
	return line;
}

static const char *
expected(int priority, const char *text)
{
	static char line[4096];

	snprintf(line, sizeof line, "<%d>May  4 10:22:07 " PROGRAM "[%d]: %s",
	    priority, (int)getpid(), text);
	return line;
}

START_TEST(syslog_gets_the_line_with_its_level_and_no_time_of_ours)
{
	int fd = daemon_new();

	clock_freeze(0, 1935656527113);
	log_open_syslog(LOGL_DEBUG, "s", PROGRAM);
	log_error("gen", "stream=%s lost", "7f3a");
	errno = ENOENT;
	log_warn("gen", "%m");
	ck_assert_int_eq(errno, ENOENT);
	log_info("gen", "stream=%s finished", "7f3a");
	log_debug("gen", "seen");
	ck_assert_str_eq(daemon_hears(fd), expected(27,
	    "gen stream=7f3a lost"));
	ck_assert_str_eq(daemon_hears(fd), expected(28,
	    "gen No such file or directory"));
	ck_assert_str_eq(daemon_hears(fd), expected(30,
	    "gen stream=7f3a finished"));
	ck_assert_str_eq(daemon_hears(fd), expected(31, "gen seen"));
	log_open_syslog(LOGL_WARN, "s", PROGRAM);
	log_info("gen", "not wanted");
	log_reopen();
	ck_assert_int_lt(recv(fd, dir, 1, 0), 0);
	close(fd);
}
END_TEST

START_TEST(a_daemon_that_was_away_is_found_again)
{
	int fd;

	clock_freeze(0, 1935656527113);
	log_open_syslog(LOGL_INFO, "s", PROGRAM);
	log_info("gen", "lost");
	fd = daemon_new();
	log_info("gen", "first");
	ck_assert_str_eq(daemon_hears(fd), expected(28,
	    "log lines lost lines=1"));
	ck_assert_str_eq(daemon_hears(fd), expected(30, "gen first"));
	close(fd);
	log_info("gen", "lost");
	log_info("gen", "lost");
	fd = daemon_new();
	log_info("gen", "second");
	ck_assert_str_eq(daemon_hears(fd), expected(28,
	    "log lines lost lines=2"));
	ck_assert_str_eq(daemon_hears(fd), expected(30, "gen second"));
	close(fd);
	fd = daemon_new(); /* at once: nothing is lost */
	log_info("gen", "third");
	ck_assert_str_eq(daemon_hears(fd), expected(30, "gen third"));
	close(fd);
}
END_TEST

/* The test would hang if somebody waited. */
START_TEST(a_slow_daemon_is_not_waited_for)
{
	int fd = daemon_new(), heard = 0, lost;
	const char *line;
	char text[4096];

	clock_freeze(0, 1935656527113);
	log_open_syslog(LOGL_INFO, "s", PROGRAM);
	for (int i = 0; i < 5000; i++)
		log_info("gen", "number=%d", i);
	for (; recv(fd, text, sizeof text, 0) > 0; heard++)
		continue;
	ck_assert_int_gt(heard, 0);
	ck_assert_int_lt(heard, 5000);
	log_info("gen", "last");
	line = strstr(daemon_hears(fd), "log lines lost lines=");
	ck_assert_ptr_nonnull(line);
	ck_assert_int_eq(sscanf(line, "log lines lost lines=%d", &lost), 1);
	ck_assert_int_eq(heard + lost, 5000);
	ck_assert_str_eq(daemon_hears(fd), expected(30, "gen last"));
	close(fd);
}
END_TEST

START_TEST(a_long_line_is_one_message)
{
	static char text[5000];
	int fd = daemon_new();

	memset(text, 'x', sizeof text - 1);
	log_open_syslog(LOGL_INFO, "s", PROGRAM);
	log_info("gen", "%s", text);
	ck_assert_uint_eq(strlen(daemon_hears(fd)), 2047);
	close(fd);
}
END_TEST

/* ---- outside text ---- */

static const struct {
	const char *text, *want;
} quotes[] = {
	{ "", "\"\"" },
	{ "plain", "\"plain\"" },
	{ "a\nb\r\x1b[2J", "\"a\\x0ab\\x0d\\x1b[2J\"" },
	{ "say \"no\\", "\"say \\\"no\\\\\"" },
	{ "\x7f", "\"\\x7f\"" },
	{ "gr\xc3\xbc\xc3\x9f", "\"gr\xc3\xbc\xc3\x9f\"" },
	{ "\xc2\x9b" "2J", "\"\\xc2\\x9b2J\"" },
	{ "\xff\xc3", "\"\\xff\\xc3\"" },
};

START_TEST(outside_text_is_made_harmless)
{
	char dst[LOG_QUOTE_SIZE];

	ck_assert_str_eq(log_quote(dst, quotes[_i].text,
	    strlen(quotes[_i].text)), quotes[_i].want);
}
END_TEST

/* Lengths around the cut, of characters of 1, 2, 3, 4 and, escaped, 4. */
START_TEST(long_outside_text_is_cut_between_characters)
{
	static const char *const units[] = { "a", "\xc3\xa4", "\xe2\x82\xac",
		"\xf0\x9f\x98\x80", "\x01" };
	char dst[LOG_QUOTE_SIZE];
	struct buf b;
	size_t u;
	int i;

	for (u = 0; u < 5; u++) {
		buf_init(&b, 10000);
		for (i = 0; i < _i; i++)
			buf_puts(&b, units[u]);
		log_quote(dst, b.data, b.len);
		ck_assert_uint_lt(strlen(dst), LOG_QUOTE_SIZE);
		ck_assert(utf8_valid(dst, strlen(dst)));
		if (_i > 159)
			ck_assert_str_eq(dst + strlen(dst) - 4, "\"...");
		buf_done(&b);
	}
	ck_assert_str_eq(log_quote(dst, "a\0b", 3), "\"a\\x00b\"");
}
END_TEST

static Suite *
log_suite(void)
{
	Suite *s = suite_create("log");
	TCase *tc;

	tc = tcase_create("file");
	tcase_add_checked_fixture(tc, make_dir, remove_dir);
	tcase_add_test(tc, a_line_has_time_level_part_and_text);
	tcase_add_test(tc, a_log_that_cannot_be_opened_is_told_on_stderr);
	tcase_add_test(tc, a_long_line_is_cut_and_still_one_line);
	tcase_add_test(tc, threads_do_not_mix_their_lines);
	tcase_add_test(tc, a_file_that_was_renamed_is_made_anew);
	tcase_add_test(tc, a_file_that_cannot_be_made_anew_is_kept);
	tcase_add_test(tc, standard_error_is_not_opened_again);
	tcase_add_test(tc, each_line_of_each_thread_is_whole_in_one_file);
	suite_add_tcase(s, tc);

	tc = tcase_create("syslog");
	tcase_add_checked_fixture(tc, make_dir, remove_dir);
	tcase_add_test(tc,
	    syslog_gets_the_line_with_its_level_and_no_time_of_ours);
	tcase_add_test(tc, a_daemon_that_was_away_is_found_again);
	tcase_add_test(tc, a_slow_daemon_is_not_waited_for);
	tcase_add_test(tc, a_long_line_is_one_message);
	suite_add_tcase(s, tc);

	tc = tcase_create("quote");
	tcase_add_loop_test(tc, outside_text_is_made_harmless, 0,
	    COUNT(quotes));
	tcase_add_loop_test(tc, long_outside_text_is_cut_between_characters,
	    30, 170);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	SRunner *sr = srunner_create(log_suite());
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
