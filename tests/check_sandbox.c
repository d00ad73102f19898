/* check_sandbox.c - what can be done in the sandbox, and what cannot. */
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sandbox.h"

#define PATH_SIZE 256

static char top[PATH_SIZE];
static long abi;

static const char *
at(const char *name)
{
	static char paths[4][PATH_SIZE + 64];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof paths[0], "%s/%s", top, name);
	return path;
}

/* What is tried, with a path; 0 or an errno. */
typedef int attempt(const char *path);

static int
error_of(long rc)
{
	return rc < 0 ? errno : 0;
}

static int
try_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0700);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static int
try_read(const char *path)
{
	return try_open(path, O_RDONLY);
}

static int
try_write(const char *path)
{
	return try_open(path, O_WRONLY);
}

static int
try_make(const char *path)
{
	return try_open(path, O_WRONLY | O_CREAT | O_EXCL);
}

static int
try_cut(const char *path)
{
	return abi < 3 ? EACCES : error_of(truncate(path, 0));
}

static int
try_unlink(const char *path)
{
	return error_of(unlink(path));
}

/* Linux 5.19: before, no name moves from one directory to another. */
static int
try_link_to_usage(const char *path)
{
	return abi < 2 ? 0 : error_of(link(path, at("spool/usage/other")));
}

static int
try_run(const char *path)
{
	return error_of(execl(path, "program", NULL));
}

static int
try_shell(const char *path)
{
	char command[PATH_SIZE + 64];

	snprintf(command, sizeof command, "cat '%s' >/dev/null 2>&1 || exit %d",
	    path, EACCES);
	return error_of(execl("/bin/sh", "sh", "-c", command, NULL));
}

static int
try_kill_parent(const char *path)
{
	(void)path;
	return abi < 6 ? EPERM : error_of(kill(getppid(), 0));
}

static int
try_kill_child(const char *path)
{
	pid_t pid = fork();

	(void)path;
	if (pid == 0) {
		pause();
		_exit(0);
	}
	return error_of(kill(pid, SIGKILL));
}

static int
try_trace_parent(const char *path)
{
	(void)path;
	return error_of(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL));
}

static int
try_listen(const char *path)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), error;

	(void)path;
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	error = abi < 4 ? EACCES :
	    error_of(bind(fd, (struct sockaddr *)&in, sizeof in));
	close(fd);
	return error;
}

static const char *const dirs[] = {
	"spool", "spool/streams", "spool/usage", "log", "conf", "keys",
	"keys/deep", "certs", "tools", "work", "home",
};
static const char *const files[] = {
	"spool/old", "log/log", "conf/respool.conf", "conf/models.json",
	"keys/key", "keys/deep/key", "certs/ca.pem", "tools/tool", "work/data",
	"home/secret",
};
enum { DIRS = sizeof dirs / sizeof *dirs,
	FILES = sizeof files / sizeof *files };

static void
setup(void)
{
	const char *tmp = getenv("TMPDIR");
	int i;

	snprintf(top, sizeof top, "%s/sandbox.XXXXXX", tmp ? tmp : "/tmp");
	if (mkdtemp(top) == NULL)
		abort();
	for (i = 0; i < DIRS; i++)
		if (mkdir(at(dirs[i]), 0700) < 0)
			abort();
	for (i = 0; i < FILES; i++)
		if (try_make(at(files[i])) != 0)
			abort();
}

static void
teardown(void)
{
	char command[PATH_SIZE + 16];

	snprintf(command, sizeof command, "rm -rf '%s'", top);
	if (system(command) != 0)
		abort();
}

/* In a process of its own, as there is no way back: what
 * the attempt returns. */
static int
in_the_box(attempt *fn, const char *path)
{
	char *tool[] = { (char *)at("tools/tool"), NULL };
	struct model all[] = {
		{ .api_key_file = (char *)at("keys/key") },
		{ .exec = { .command = tool, .cwd = (char *)at("work") } },
	};
	struct models models = { .all = all, .count = 2 };
	char log[PATH_SIZE + 64], file[PATH_SIZE + 64], json[PATH_SIZE + 64],
	    ca[PATH_SIZE + 64];
	struct conf conf = { .log_file = log, .file = file,
		.models_file = json, .ca_file = ca };
	struct spool sp = { 0 };
	int status;
	pid_t pid;

	snprintf(log, sizeof log, "%s/log/log", top);
	snprintf(file, sizeof file, "%s/conf/respool.conf", top);
	snprintf(json, sizeof json, "%s/conf/models.json", top);
	snprintf(ca, sizeof ca, "%s/certs/ca.pem", top);
	if ((pid = fork()) == 0) {
		sp.fd = open(at("spool"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (sandbox_enter(&conf, &sp, &models) != RS_OK)
			_exit(254);
		_exit(fn(path));
	}
	ck_assert_int_gt(pid, 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static const struct row {
	attempt *fn;
	const char *path;	/* absolute, or in top */
	int want;
} rows[] = {
	{ try_make, "spool/streams/new", 0 },
	{ try_read, "spool/old", 0 },
	{ try_link_to_usage, "spool/old", 0 },
	{ try_run, "spool/old", EACCES },
	{ try_unlink, "spool/old", 0 },
	{ try_make, "log/log.1", 0 },
	{ try_read, "conf/respool.conf", 0 },
	{ try_read, "conf/models.json", 0 },
	{ try_write, "conf/models.json", EACCES },
	{ try_read, "keys/key", 0 },
	{ try_write, "keys/key", EACCES },
	{ try_read, "certs/ca.pem", 0 },
	{ try_read, "tools/tool", 0 },
	{ try_write, "tools/tool", EACCES },
	{ try_read, "work/data", 0 },
	{ try_write, "work/data", EACCES },
	{ try_read, "home/secret", EACCES },
	{ try_write, "home/secret", EACCES },
	{ try_cut, "home/secret", EACCES },
	{ try_make, "home/new", EACCES },
	{ try_unlink, "home/secret", EACCES },
	{ try_link_to_usage, "home/secret", EACCES },
	{ try_read, ".", EACCES },
	{ try_read, "/etc/passwd", 0 },
	{ try_write, "/dev/null", 0 },
	{ try_shell, "/etc/passwd", 0 },
	{ try_shell, "home/secret", EACCES },
	{ try_kill_parent, "", EPERM },
	{ try_kill_child, "", 0 },
	{ try_trace_parent, "", EPERM },
	{ try_listen, "", EACCES },
};

START_TEST(the_spool_and_what_is_needed_are_open_and_nothing_else)
{
	const struct row *r = &rows[_i];
	char path[PATH_SIZE + 64];
	int got;

	snprintf(path, sizeof path, "%s",
	    r->path[0] == '/' ? r->path : at(r->path));
	got = in_the_box(r->fn, path);
	/* Landlock may call a move that it refuses one between file systems. */
	ck_assert_msg(got == r->want || (got == EXDEV && r->want == EACCES),
	    "%s: %s", path, strerror(got));
}
END_TEST

/* So that what is refused is refused by the sandbox. */
START_TEST(outside_of_it_all_of_that_is_open)
{
	ck_assert_int_eq(try_read(at("home/secret")), 0);
	ck_assert_int_eq(try_write(at("keys/key")), 0);
	ck_assert_int_eq(try_make(at("home/other")), 0);
	ck_assert_int_eq(try_cut(at("home/other")), abi < 3 ? EACCES : 0);
	ck_assert_int_eq(try_unlink(at("home/other")), 0);
	ck_assert_int_eq(try_read(top), 0);
	ck_assert_int_eq(try_kill_parent(""), abi < 6 ? EPERM : 0);
	ck_assert_int_eq(try_listen(""), abi < 4 ? EACCES : 0);
}
END_TEST

int
main(void)
{
	SRunner *sr;
	Suite *s;
	TCase *tc;
	int failed;

	abi = syscall(444 /* landlock_create_ruleset */, NULL, 0, 1);
	if (abi < 1) {
		printf("this kernel has no Landlock: skipped\n");
		return 77;
	}
	s = suite_create("sandbox");
	tc = tcase_create("sandbox");
	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc,
	    the_spool_and_what_is_needed_are_open_and_nothing_else, 0,
	    sizeof rows / sizeof rows[0]);
	tcase_add_test(tc, outside_of_it_all_of_that_is_open);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
