/* ctl_doctor_spooler.c - the spooler that runs, or did. */
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "ctl_doctor.h"
#include "fdio.h"

#define ANSWER_MS 5000
#define DESCRIPTORS_OWN 64 /* the spooler's, streams apart */
#define CPU_LIMIT_MIN 86400 /* seconds */

/* RS_OK: it answered; RS_ETIMEOUT; RS_ECLOSED, RS_EPROTO ... */
static enum rs_err
hello(int fd, struct wake_answer *ret)
{
	/* No hash of our configuration: it would have to make way for it. */
	struct wake_hello msg = {
		.head = { .op = WAKE_HELLO, .tag = 1 },
		.version = WAKE_VERSION,
	};
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	union wake_msg answer;
	enum rs_err err;
	size_t len;
	int passed;

	if ((err = wake_send(fd, &msg, sizeof msg, -1)) != RS_OK)
		return err;
	if (poll(&pfd, 1, ANSWER_MS) == 0)
		return RS_ETIMEOUT;
	if ((err = wake_recv(fd, &answer, &len, &passed)) != RS_OK)
		return err;
	if (passed >= 0)
		close(passed);
	if (answer.head.op != WAKE_ANSWER)
		return RS_EPROTO;
	*ret = answer.answer;
	return RS_OK;
}

/* The first line of a file in /proc/PID that has one of the words; false:
 * none has. */
static bool
proc_has(pid_t pid, const char *file, const char *const *words)
{
	char path[64];
	bool has = false;
	struct buf b;

	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
	buf_init(&b, 65536);
	if (fd_read_file(AT_FDCWD, path, &b) == RS_OK && b.len > 0)
		for (; *words != NULL; words++)
			has = has || strstr(b.data, *words) != NULL;
	buf_done(&b);
	return has;
}

/* Who may kill it. */
static void
check_background(struct doctor *d)
{
	static const char *const units[] = {
		"/apache2.service", "/httpd.service", "/lighttpd.service",
		"/nginx.service", NULL
	};
	struct rlimit cpu;

	if (proc_has(d->spooler, "cgroup", units))
		doctor_say(d, DOCTOR_WARN, "background", "the spooler runs "
		    "inside the web server's systemd unit, and dies with it "
		    "at a restart; give it its own: systemctl enable --now "
		    "respool-spooler");
	else if (prlimit(d->spooler, RLIMIT_CPU, NULL, &cpu) == 0 &&
	    cpu.rlim_cur != RLIM_INFINITY && cpu.rlim_cur < CPU_LIMIT_MIN)
		doctor_say(d, DOCTOR_WARN, "background", "this host kills "
		    "processes after %llu s of processor time, the spooler "
		    "too; ask for a higher limit (ulimit -t), or set "
		    "idle_exit low so that a fresh one runs often",
		    (unsigned long long)cpu.rlim_cur);
	else
		doctor_say(d, DOCTOR_OK, "background", "nothing is seen that "
		    "would kill the spooler");
}

static void
check_process(struct doctor *d)
{
	struct rlimit fds;

	if (prlimit(d->spooler, RLIMIT_NOFILE, NULL, &fds) == 0)
		doctor_descriptors(d, "the spooler", fds.rlim_cur,
		    2 * d->conf->max_streams + DESCRIPTORS_OWN);
	check_background(d);
}

static void
check_running(struct doctor *d, int fd)
{
	struct wake_answer answer;
	struct ucred peer = { 0 };
	socklen_t len = sizeof peer;
	enum rs_err err;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0)
		d->spooler = peer.pid;
	err = hello(fd, &answer);
	if (err != RS_OK)
		doctor_say(d, DOCTOR_FAIL, "spooler", "process %d does not "
		    "answer: %s; if it stays so, kill -9 it: the next request "
		    "starts another", (int)d->spooler,
		    rs_strerror(err));
	else if (answer.version != WAKE_VERSION)
		doctor_say(d, DOCTOR_FAIL, "spooler", "process %d is of "
		    "another version of respool (protocol %u, this is %u); "
		    "install all programs of one version, and kill %d",
		    (int)d->spooler, answer.version, WAKE_VERSION,
		    (int)d->spooler);
	else
		doctor_say(d, DOCTOR_OK, "spooler", "process %d %s",
		    (int)d->spooler, answer.draining ?
		    "ends its last streams and makes way" : "answers");
	if (d->spooler > 0)
		check_process(d);
}

/* Why nobody answers. */
static void
check_absent(struct doctor *d, const char *socket_name)
{
	struct stat st;

	if (socket_name[0] == '\0')
		doctor_say(d, DOCTOR_OK, "spooler",
		    "none was started yet: the first request does");
	else if (fstatat(d->sp->fd, socket_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		doctor_say(d, DOCTOR_OK, "spooler",
		    "none runs: the next request starts one");
	else
		doctor_say(d, DOCTOR_WARN, "spooler", "%s/%s is a stale "
		    "socket: its spooler was killed, and left streams open "
		    "perhaps; the next request starts another, and respoolctl "
		    "check --fix ends those streams now.  If it comes again: "
		    "the host kills background processes, or memory ran out; "
		    "run the spooler as a service of its own",
		    d->conf->spool_dir, socket_name);
}

static void
check_program(struct doctor *d)
{
	const char *program = d->conf->spooler_program;

	if (program[0] != '\0' && access(program, X_OK) != 0)
		doctor_say(d, DOCTOR_FAIL, "spooler", "%s cannot be run: %s; "
		    "set spooler_program to where respool-spooler is", program,
		    strerror(errno));
}

void
doctor_spooler(struct doctor *d)
{
	char name[64];
	enum rs_err err;
	int fd = -1;
	ssize_t n;

	check_program(d);
	if (d->sp == NULL) {
		doctor_say(d, DOCTOR_SKIP, "spooler",
		    "it cannot run without a spool");
		return;
	}
	n = readlinkat(d->sp->fd, "current", name, sizeof name - 1);
	name[n > 0 ? n : 0] = '\0';
	/* Sockets are found by their short names. */
	if (fchdir(d->sp->fd) < 0)
		err = rs_from_errno(errno);
	else
		err = wake_connect("current", &fd);
	if (err == RS_OK) {
		check_running(d, fd);
		close(fd);
	} else if (err == RS_ECLOSED) {
		check_absent(d, name);
	} else {
		doctor_say(d, DOCTOR_FAIL, "spooler", "%s/%s: %s; run this as "
		    "root or as the spool's owner", d->conf->spool_dir, name,
		    rs_strerror(err));
	}
}
