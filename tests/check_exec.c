/* check_exec.c - commands: what they get, what they say, how they end. */
#include <sys/stat.h>
#include <sys/wait.h>

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "clock.h"
#include "exec.h"
#include "log.h"
#include "loop.h"

#define WAIT_MS 60000 /* for what must come */
#define LOG "log"

static char dir[] = "/tmp/respool-check-exec-XXXXXX";
static struct loop loop;
static struct buf output, text;
static unsigned overs, last_ok;
static struct exec *running;
static bool kill_at_data;
static bool many;	/* run at once, so that one may be over early */
static unsigned fds_before;

static void
on_data(void *arg, const char *p, size_t n)
{
	ck_assert_ptr_eq(arg, &loop);
	ck_assert(many || overs == 0);
	buf_add(&output, p, n);
	if (kill_at_data)
		exec_kill(running);
	kill_at_data = false;
}

static void
on_over(void *arg, bool ok)
{
	ck_assert_ptr_eq(arg, &loop);
	overs++;
	last_ok = ok;
}

static const struct exec_events events = { .data = on_data, .over = on_over };

#define LOOP_UNTIL(condition)                                                \
	do {                                                                 \
		uint64_t end_ns = clock_mono_ns() + WAIT_MS * NS_PER_MS;     \
		while (!(condition)) {                                       \
			ck_assert_msg(clock_mono_ns() < end_ns, #condition); \
			loop_turn(&loop, 20);                                \
		}                                                            \
	} while (0)

static enum rs_err
start_spec(const struct exec_spec *spec, const char *input, size_t len)
{
	buf_clear(&output);
	overs = 0;
	return exec_start(&loop, spec, "a model", "stream_1", input, len,
	    &events, &loop, &running);
}

/* script is for sh; $1 is one argument. */
static void
start(const char *script, const char *input)
{
	const char *argv[] = {
		"sh", "-c", script, "sh", "$(echo x) > y", NULL,
	};
	struct exec_spec spec = { .command = (char **)argv };

	ck_assert_int_eq(start_spec(&spec, input, strlen(input)), RS_OK);
	ck_assert_uint_eq(overs, 0);
}

static const char *
run(const char *script, const char *input)
{
	start(script, input);
	LOOP_UNTIL(overs == 1);
	return output.len == 0 ? "" : output.data;
}

static const char *
log_text(void)
{
	int fd = open(LOG, O_RDONLY | O_CLOEXEC);
	ssize_t n;
	char part[4096];

	buf_clear(&text);
	while ((n = read(fd, part, sizeof part)) > 0)
		buf_add(&text, part, (size_t)n);
	close(fd);
	return text.len == 0 ? "" : text.data;
}

static unsigned
count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

static void
setup(void)
{
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(chdir(dir), 0);
	log_open(LOGL_INFO, LOG);
	buf_init(&output, 64 << 20);
	buf_init(&text, 64 << 20);
	ck_assert_int_eq(loop_init(&loop), RS_OK);
	fds_before = count_fds();
}

/* Whatever happened: no descriptor, no timer and no child is left. */
static void
teardown(void)
{
	ck_assert_uint_eq(loop.timers.count, 0);
	ck_assert_uint_eq(count_fds(), fds_before);
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
	ck_assert_int_eq(errno, ECHILD);
	loop_done(&loop);
	buf_done(&output);
	buf_done(&text);
	log_open(LOGL_ERROR, "");
	unlink(LOG);
	unlink("file");
	ck_assert_int_eq(chdir("/"), 0);
	ck_assert_int_eq(rmdir(dir), 0);
}

/* ---- what a command gets ---- */

START_TEST(its_output_arrives_and_its_success)
{
	ck_assert_str_eq(run("echo one; echo two", ""), "one\ntwo\n");
	ck_assert_uint_eq(last_ok, 1);
	ck_assert_str_eq(log_text(), "");
}
END_TEST

START_TEST(it_reads_its_input_to_the_end)
{
	size_t len = 3 << 20;
	char *input = malloc(len + 1);

	memset(input, 'x', len);
	input[len] = '\0';
	ck_assert_str_eq(run("cat", input), input);
	ck_assert_str_eq(run("wc -c", input), "3145728\n");
	/* Nor need it read any of it. */
	ck_assert_str_eq(run("exec <&-; echo done", input), "done\n");
	ck_assert_uint_eq(last_ok, 1);
	ck_assert_str_eq(run("echo done", input), "done\n");
	ck_assert_str_eq(run("cat; echo end", ""), "end\n");
	free(input);
}
END_TEST

START_TEST(no_shell_touches_its_arguments)
{
	ck_assert_str_eq(run("printf %s \"$1\"", ""), "$(echo x) > y");
}
END_TEST

START_TEST(its_environment_is_clean)
{
	setenv("OPENAI_API_KEY", "secret", 1);
	setenv("PATH", "/usr/bin:/bin", 1);
	setenv("HOME", "/home/x", 1);
	setenv("TZ", "UTC", 1);
	unsetenv("LANG");
	ck_assert_str_eq(run("env | grep -v '^_=\\|^PWD=\\|^SHLVL=\\|^OLDPWD=' | "
	    "sort", ""), "HOME=/home/x\nPATH=/usr/bin:/bin\n"
	    "RESPOOL_MODEL=a model\nRESPOOL_STREAM_ID=stream_1\nTZ=UTC\n");
}
END_TEST

START_TEST(it_inherits_no_descriptor_and_no_signal_setting)
{
	int fd = dup(0); /* not closed on exec */
	sigset_t set, old;

	ck_assert_int_ge(fd, 3);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, &old);
	signal(SIGHUP, SIG_IGN);
	/* ls has one more, for the directory. */
	ck_assert_str_eq(run("exec ls /proc/self/fd", ""), "0\n1\n2\n3\n");
	ck_assert_str_eq(run("kill -TERM $$; echo blocked", ""), "");
	ck_assert_str_eq(run("kill -HUP $$; echo ignored", ""), "");
	ck_assert_str_eq(run("kill -PIPE $$; echo ignored", ""), "");
	signal(SIGHUP, SIG_DFL);
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(fd);
}
END_TEST

START_TEST(it_leads_a_group_of_its_own)
{
	pid_t pid, group;

	run("echo $$ $(cut -d' ' -f5 /proc/$$/stat)", "");
	ck_assert_int_eq(sscanf(output.data, "%d %d", &pid, &group), 2);
	ck_assert_int_eq(pid, group);
	ck_assert_int_ne(group, getpgrp());
}
END_TEST

START_TEST(it_runs_where_it_is_told_to)
{
	const char *argv[] = { "./file", NULL };
	struct exec_spec spec = { .command = (char **)argv, .cwd = dir };
	FILE *f = fopen("file", "w");
	char want[64];

	fputs("#!/bin/sh\npwd\n", f);
	fclose(f);
	chmod("file", 0700);
	ck_assert_int_eq(chdir("/"), 0);
	ck_assert_int_eq(start_spec(&spec, "", 0), RS_OK);
	LOOP_UNTIL(overs == 1);
	snprintf(want, sizeof want, "%s\n", dir);
	ck_assert_str_eq(output.data, want);
	ck_assert_int_eq(chdir(dir), 0);
}
END_TEST

static const struct {
	const char *command, *cwd;
	mode_t mode; /* of the file "file" */
	enum rs_err err;
} refused[] = {
	{ "/nonexistent/command", NULL, 0700, RS_ENOENT },
	{ "respool-no-such-command", NULL, 0700, RS_ENOENT },
	{ "true", "/nonexistent", 0700, RS_ENOENT },
	{ "./file", NULL, 0600, RS_EPERM },
	{ "/", NULL, 0700, RS_EPERM },
	/* Without #! only a shell would run it. */
	{ "./file", NULL, 0700, RS_EIO },
};

START_TEST(a_command_that_cannot_run_is_said_at_once)
{
	const char *argv[] = { refused[_i].command, NULL };
	struct exec_spec spec = {
		.command = (char **)argv, .cwd = (char *)refused[_i].cwd,
	};
	FILE *f = fopen("file", "w");

	fputs("echo hello\n", f);
	fclose(f);
	chmod("file", refused[_i].mode);
	ck_assert_int_eq(start_spec(&spec, NULL, 0), refused[_i].err);
	while (loop_turn(&loop, 0) > 0)
		continue;
	ck_assert_uint_eq(overs, 0);
}
END_TEST

/* ---- how it ends ---- */

static const struct {
	const char *script, *output;
	bool ok;
	const char *log; /* a part of it */
} ends[] = {
	{ "exit 0", "", true, "" },
	{ "echo x; exit 3", "x\n", false,
	    "stream=stream_1 command failed status=3\n" },
	{ "echo x; kill -9 $$", "x\n", false,
	    "stream=stream_1 command was killed signal=9\n" },
	{ "exec >&-; exit 0", "", true, "" },
	{ "exec >&-; cat >/dev/null; exit 1", "", false, "status=1" },
};

START_TEST(its_status_is_told_after_its_output)
{
	ck_assert_str_eq(run(ends[_i].script, "input"), ends[_i].output);
	ck_assert_uint_eq(last_ok, ends[_i].ok);
	ck_assert_ptr_nonnull(strstr(log_text(), ends[_i].log));
}
END_TEST

START_TEST(a_large_output_is_whole_before_it_is_over)
{
	run("head -c 3000000 /dev/zero", "");
	ck_assert_uint_eq(output.len, 3000000);
}
END_TEST

/* What is left behind prints its number, and holds the output. */
START_TEST(a_process_left_behind_does_not_keep_it)
{
	pid_t left;

	run("sleep 1000 & echo $!", "");
	ck_assert_uint_eq(last_ok, 1);
	ck_assert_int_eq(sscanf(output.data, "%d", &left), 1);
	ck_assert_int_eq(kill(left, SIGKILL), 0);
}
END_TEST

/* A command left behind may write for ever, too. */
START_TEST(nor_does_one_that_goes_on_writing)
{
	pid_t left;

	run("(while :; do echo; done) & echo $!", "");
	ck_assert_uint_eq(last_ok, 1);
	ck_assert_int_eq(sscanf(output.data, "%d", &left), 1);
	/* It dies of the closed pipe. */
	while (kill(left, 0) == 0)
		usleep(1000);
}
END_TEST

/* ---- killing ---- */

/* Waits until nothing is left of it in the loop. */
static void
loop_out(void)
{
	LOOP_UNTIL(loop.timers.count == 0);
	ck_assert_uint_eq(overs, 0);
}

static bool
group_lives(pid_t group)
{
	return kill(-group, 0) == 0;
}

static pid_t
number_said(void)
{
	LOOP_UNTIL(output.len > 0 && strchr(output.data, '\n') != NULL);
	return (pid_t)atoi(output.data);
}

static const char *const killed[] = {
	"echo $$; exec sleep 1000",
	"echo $$; exec cat", /* whose input is not read to its end */
	"sleep 1000 & echo $$; wait", /* a process of its group */
	"trap '' TERM; echo $$; while :; do sleep 1; done",
	"(trap '' TERM; sleep 1000) & echo $$; wait",
	"echo $$; while :; do echo; done",
	"sleep 1000 & echo $$", /* has exited, its child holds the output */
	"exec 2>&-; echo $$; exec >&-; exec sleep 1000",
};

START_TEST(a_killed_one_is_gone_with_its_group)
{
	pid_t pid;

	start(killed[_i], "");
	pid = number_said();
	exec_kill(running);
	loop_out();
	/* Who was killed with SIGKILL may take a moment to die. */
	LOOP_UNTIL(!group_lives(pid));
}
END_TEST

START_TEST(it_has_a_second_to_clean_up)
{
	start("trap 'echo bye >file; exit' TERM; echo $$; "
	    "while :; do sleep 0.01; done", "");
	number_said();
	exec_kill(running);
	loop_out();
	ck_assert_int_eq(access("file", F_OK), 0);
}
END_TEST

START_TEST(it_can_be_killed_in_its_own_event)
{
	kill_at_data = true;
	start("echo $$; while :; do echo x; done", "");
	LOOP_UNTIL(!kill_at_data);
	loop_out();
}
END_TEST

START_TEST(it_can_be_killed_at_once)
{
	start("cat; cat", "input");
	exec_kill(running);
	loop_out();
	ck_assert_uint_eq(output.len, 0);
	exec_kill(NULL);
}
END_TEST

START_TEST(all_can_be_ended_before_the_loop_is)
{
	pid_t pid[3];
	int i;

	for (i = 0; i < 3; i++) {
		start("trap '' TERM; echo $$; while :; do sleep 1; done", "");
		pid[i] = number_said();
	}
	exec_kill(running);
	exec_end_all();
	exec_end_all();
	for (i = 0; i < 3; i++) {
		waitpid(pid[i], NULL, 0);
		while (group_lives(pid[i]))
			usleep(1000);
	}
	ck_assert_uint_eq(overs, 0);
}
END_TEST

/* ---- standard error ---- */

static unsigned
count(const char *in, const char *what)
{
	unsigned n = 0;

	for (; (in = strstr(in, what)) != NULL; in += strlen(what))
		n++;
	return n;
}

START_TEST(its_standard_error_is_logged_line_by_line)
{
	run("echo out; printf 'a \"line\"\\n\\n\\033[31mred\\nno end' >&2", "");
	ck_assert_str_eq(output.data, "out\n");
	log_text();
	ck_assert_uint_eq(count(text.data, "\n"), 3);
	ck_assert_ptr_nonnull(strstr(text.data,
	    " info exec stream=stream_1 stderr=\"a \\\"line\\\"\"\n"));
	ck_assert_ptr_nonnull(strstr(text.data, "stderr=\"\\x1b[31mred\"\n"));
	ck_assert_ptr_nonnull(strstr(text.data, "stderr=\"no end\"\n"));
}
END_TEST

START_TEST(a_flood_on_it_is_bounded)
{
	run("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done >&2; "
	    "head -c 300000 /dev/zero >&2", "");
	log_text();
	ck_assert_uint_ge(count(text.data, "stderr=\"line"), 20);
	ck_assert_uint_lt(count(text.data, "stderr=\"line"), 1500);
	ck_assert_uint_eq(count(text.data, "lines not logged lines="), 1);
	ck_assert_uint_lt(text.len, 200000);
}
END_TEST

/* ---- many ---- */

START_TEST(many_at_once_lose_nothing)
{
	enum { MANY = 100 };
	const char *argv[] = { "sh", "-c", "cat; exit 0", NULL };
	struct exec_spec spec = { .command = (char **)argv };
	struct exec *x;
	int i;

	many = true;
	for (i = 0; i < MANY; i++)
		ck_assert_int_eq(exec_start(&loop, &spec, "m", "s", "12345678",
		    8, &events, &loop, &x), RS_OK);
	LOOP_UNTIL(loop.timers.count == 0);
	ck_assert_uint_eq(overs, MANY);
	ck_assert_uint_eq(output.len, 8 * MANY);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("exec");
	TCase *tc = tcase_create("exec");
	SRunner *sr;
	int failed;

	signal(SIGPIPE, SIG_IGN);
	tcase_set_timeout(tc, 300);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, its_output_arrives_and_its_success);
	tcase_add_test(tc, it_reads_its_input_to_the_end);
	tcase_add_test(tc, no_shell_touches_its_arguments);
	tcase_add_test(tc, its_environment_is_clean);
	tcase_add_test(tc, it_inherits_no_descriptor_and_no_signal_setting);
	tcase_add_test(tc, it_leads_a_group_of_its_own);
	tcase_add_test(tc, it_runs_where_it_is_told_to);
	tcase_add_loop_test(tc, a_command_that_cannot_run_is_said_at_once, 0,
	    sizeof refused / sizeof *refused);
	tcase_add_loop_test(tc, its_status_is_told_after_its_output, 0,
	    sizeof ends / sizeof *ends);
	tcase_add_test(tc, a_large_output_is_whole_before_it_is_over);
	tcase_add_test(tc, a_process_left_behind_does_not_keep_it);
	tcase_add_test(tc, nor_does_one_that_goes_on_writing);
	tcase_add_loop_test(tc, a_killed_one_is_gone_with_its_group, 0,
	    sizeof killed / sizeof *killed);
	tcase_add_test(tc, it_has_a_second_to_clean_up);
	tcase_add_test(tc, it_can_be_killed_in_its_own_event);
	tcase_add_test(tc, it_can_be_killed_at_once);
	tcase_add_test(tc, all_can_be_ended_before_the_loop_is);
	tcase_add_test(tc, its_standard_error_is_logged_line_by_line);
	tcase_add_test(tc, a_flood_on_it_is_bounded);
	tcase_add_test(tc, many_at_once_lose_nothing);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
