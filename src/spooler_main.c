/* spooler_main.c - respool-spooler: options, set-up, loop. */
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "clock.h"
#include "conf.h"
#include "exec.h"
#include "fdio.h"
#include "hub.h"
#include "link.h"
#include "log.h"
#include "metrics.h"
#include "model.h"
#include "quota.h"
#include "sandbox.h"
#include "spool.h"
#include "text.h"
#include "wake.h"

#define LOCK_WAIT_NS (900 * NS_PER_MS)
#define LOCK_TRY_MS 10
#define CURRENT_TMP ".current-"

struct options {
	const char *conf_file;
	bool foreground;
	int ready_fd;	/* -1: none */
};

static void
usage(FILE *to)
{
	fprintf(to, "usage: respool-spooler [-Vh] [-c file] [--foreground] "
	    "[--ready-fd n]\n"
	    "Writes the answers of LLMs to the spool; started on demand by "
	    "respool.fcgi.\n"
	    "  -c file        configuration\n"
	    "  --foreground   do not detach and do not leave when idle; "
	    "wait for one\n"
	    "                 that runs to make way\n"
	    "  --ready-fd n   say there \"+\" when ready, or why not\n"
	    "  -V, -h         print the version, this text\n");
}

static bool
options_parse(int argc, char **argv, struct options *o)
{
	static const struct option longopts[] = {
		{ "foreground", no_argument, NULL, 'f' },
		{ "ready-fd", required_argument, NULL, 'r' },
		{ "version", no_argument, NULL, 'V' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	char *end;
	long n;
	int ch;

	*o = (struct options){ .ready_fd = -1 };
	while ((ch = getopt_long(argc, argv, "c:Vh", longopts, NULL)) != -1) {
		switch (ch) {
		case 'c':
			o->conf_file = optarg;
			break;
		case 'f':
			o->foreground = true;
			break;
		case 'r':
			n = strtol(optarg, &end, 10);
			if (*end != '\0' || n < 3 || n > 9)
				return false;
			o->ready_fd = (int)n;
			break;
		case 'V':
			printf("respool-spooler %s\n", PACKAGE_VERSION);
			exit(EXIT_SUCCESS);
		case 'h':
			usage(stdout);
			exit(EXIT_SUCCESS);
		default:
			return false;
		}
	}
	return optind == argc;
}

/* Tells whoever waits: the ready pipe, else standard error.  "+": ready; "="
 * before a reason: only for now. */
static void
say(const struct options *o, const char *text)
{
	if (o->ready_fd >= 0)
		(void)fd_write_full(o->ready_fd, text, strlen(text));
	else if (text[0] != '+')
		fprintf(stderr, "respool-spooler: %s\n",
		    text + (text[0] == '='));
}

/* Leaves nothing of who started it but the ready pipe. */
static void
close_inherited(const struct options *o)
{
	int fd;

	for (fd = 3; fd < o->ready_fd; fd++)
		close(fd);
	fd_close_from(o->ready_fd >= 0 ? o->ready_fd + 1 : 3);
	if (o->ready_fd >= 0)
		fcntl(o->ready_fd, F_SETFD, FD_CLOEXEC);
}

/* Prompts and keys are in our memory: no core file has them and, as a service,
 * no other process of our user may look.  On demand that user is the
 * responders', who can read the keys' files as well, and respoolctl doctor as
 * that user does look. */
static void
drop_powers(bool service)
{
	struct __user_cap_header_struct head = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct none[2] = { 0 };
	struct rlimit no_core = { 0, 0 };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	setrlimit(RLIMIT_CORE, &no_core);
	if (service)
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	/* Those of a unit's AmbientCapabilities, of a container, of the
	 * program's file. */
	if (geteuid() != 0)
		syscall(SYS_capset, &head, none);
}

/* Waits for the one that runs to make way; this program may have been replaced
 * meanwhile, and its configuration changed, so that it begins anew.  Returns
 * when nobody runs, or when that cannot be. */
static void
wait_for_turn(const struct options *o, const struct spool *sp, char **argv)
{
	const char *path = (const char *)getauxval(AT_EXECFN);
	sigset_t set;

	if (!spool_lock_busy(sp))
		return;
	say(o, "=waiting for the spooler that runs to make way");
	/* Nothing is open yet that HUP could mean. */
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	spool_lock_wait(sp);
	execv(path, argv);
}

/* Forks twice: away from the parent, the session and its terminal. */
static bool
detach(void)
{
	int round;
	pid_t pid;

	for (round = 0; round < 2; round++) {
		if ((pid = fork()) < 0)
			return false;
		if (pid > 0)
			_exit(EXIT_SUCCESS);
		if (round == 0)
			setsid();
	}
	return true;
}

/* What spoolers that have died left: their sockets (others are not ours to
 * unlink), and links and files that they did not come to rename. */
static void
remove_stale(const struct spool *sp)
{
	struct dirent *de;
	DIR *dir;
	int fd;

	if (fd_dir_open(sp->fd, ".", &dir) != RS_OK)
		return;
	while ((de = readdir(dir)) != NULL) {
		if (strncmp(de->d_name, CURRENT_TMP,
		    strlen(CURRENT_TMP)) == 0 ||
		    strncmp(de->d_name, METRICS_TMP,
		    strlen(METRICS_TMP)) == 0)
			unlinkat(sp->fd, de->d_name, 0);
		if (de->d_name[0] != 's' || !wake_socket_valid(de->d_name))
			continue;
		switch (wake_connect(de->d_name, &fd)) {
		case RS_OK:
			close(fd);
			break;
		case RS_ECLOSED:
			unlinkat(sp->fd, de->d_name, 0);
			break;
		default:
			break;
		}
	}
	closedir(dir);
}

/* To connect is to write: the spool's group may, where it has one. */
static enum rs_err
bind_socket(const struct spool *sp, char name[SPOOL_SOCKET_SIZE], int *ret_fd)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	char hex[17];
	int fd, saved;

	random_hex(hex, 8);
	snprintf(name, SPOOL_SOCKET_SIZE, "s-%s.sock", hex);
	memcpy(sun.sun_path, name, SPOOL_SOCKET_SIZE);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return rs_from_errno(errno);
	if (bind(fd, (struct sockaddr *)&sun, sizeof sun) < 0 ||
	    (sp->group && (chmod(name, 0660) < 0 || (getegid() != sp->gid &&
	    chown(name, (uid_t)-1, sp->gid) < 0))) ||
	    listen(fd, SOMAXCONN) < 0) {
		saved = errno;
		close(fd);
		unlink(name);
		return rs_from_errno(saved);
	}
	*ret_fd = fd;
	return RS_OK;
}

/* Makes this spooler the one that is found.  A rename, so that there is
 * always one to be found. */
static enum rs_err
become_current(const struct spool *sp, const char *name)
{
	char hex[17], tmp[32];

	random_hex(hex, 8);
	snprintf(tmp, sizeof tmp, CURRENT_TMP "%s", hex);
	if (symlinkat(name, sp->fd, tmp) < 0)
		return rs_from_errno(errno);
	if (renameat(sp->fd, tmp, sp->fd, "current") < 0) {
		unlinkat(sp->fd, tmp, 0);
		return rs_from_errno(errno);
	}
	return RS_OK;
}

/* The kernel lets go of a dying spooler's sockets before its locks: who saw it
 * die may be here before the lock is free. */
static enum rs_err
lock_mutator(struct spool *sp, int *ret_fd)
{
	uint64_t deadline = clock_mono_ns() + LOCK_WAIT_NS;
	enum rs_err err;

	while ((err = spool_lock_mutator(sp, ret_fd)) == RS_EBUSY &&
	    clock_mono_ns() < deadline)
		poll(NULL, 0, LOCK_TRY_MS);
	return err;
}

/* As the sandbox setting says.  False: it has said why not. */
static bool
restrict_self(const struct options *o, const struct conf *conf,
    const struct spool *sp, struct models_file *models)
{
	struct models *now;
	enum rs_err err;
	char why[160];

	if (strcmp(conf->sandbox, "yes") != 0)
		return true;
	now = models_file_get(models);
	err = sandbox_enter(conf, sp, now);
	models_unref(now);
	if (err == RS_OK)
		return true;
	snprintf(why, sizeof why, "sandbox = yes: %s", err == RS_ENOENT ?
	    "this kernel has no Landlock" : rs_strerror(err));
	say(o, why);
	return false;
}

static int
serve(const struct options *o, const struct conf *conf, struct spool *sp,
    struct models_file *models)
{
	char name[SPOOL_SOCKET_SIZE], why[160];
	struct hub *hub = NULL;
	int lock_fd = -1, listen_fd = -1;
	enum rs_err err;

	if ((err = lock_mutator(sp, &lock_fd)) != RS_OK) {
		snprintf(why, sizeof why, "spooler.lock: %s", rs_strerror(err));
		say(o, err == RS_EBUSY ?
		    "=another process holds spooler.lock" : why);
		return EXIT_FAILURE;
	}
	remove_stale(sp);
	/* Before what dead spoolers have left is counted. */
	if ((err = metrics_open(sp, true)) != RS_OK)
		log_warn("metrics", "counting alone pid=%d why=\"%s\"",
		    (int)getpid(), rs_strerror(err));
	/* Without one there are no links, but all the rest. */
	if ((err = link_secret_make(sp)) != RS_OK)
		log_warn("spooler", "no secret for links pid=%d why=\"%s\"",
		    (int)getpid(), rs_strerror(err));
	if ((err = bind_socket(sp, name, &listen_fd)) != RS_OK) {
		snprintf(why, sizeof why, "socket: %s", rs_strerror(err));
		say(o, why);
		close(lock_fd);
		return EXIT_FAILURE;
	}
	err = hub_new(conf, sp, models, name, listen_fd, lock_fd, &hub);
	if (err == RS_OK && (err = become_current(sp, name)) == RS_OK) {
		log_info("spooler", "started pid=%d version=%s socket=%s",
		    (int)getpid(), PACKAGE_VERSION, name);
		say(o, "+");
		if (o->ready_fd >= 0)
			close(o->ready_fd);
		hub_run(hub, o->foreground);
	} else {
		snprintf(why, sizeof why, "set-up: %s", rs_strerror(err));
		say(o, why);
	}
	hub_free(hub);
	unlinkat(sp->fd, name, 0);
	return err == RS_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void
block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a file size limit is a full disk */
}

/* Days are those of day_zone; for us, not for the commands that we run. */
static bool
set_zone(const char *zone)
{
	if (exec_keep_tz() != RS_OK || setenv("TZ", zone, 1) < 0)
		return false;
	tzset();
	return true;
}

int
main(int argc, char **argv)
{
	struct conf *conf = NULL;
	struct models_file *models = NULL;
	struct spool *sp = NULL;
	struct options o;
	struct buf why;
	int status = EXIT_FAILURE;

	if (!options_parse(argc, argv, &o)) {
		usage(stderr);
		return 2;
	}
	close_inherited(&o);
	drop_powers(o.foreground);
	buf_init(&why, 16384);
	umask(077);
	if (conf_load(o.conf_file, &conf, &why) != RS_OK ||
	    models_file_open(conf->models_file, &models, &why) != RS_OK ||
	    spool_open(conf, &sp, &why) != RS_OK) {
		say(&o, why.len > 0 ? why.data : "cannot be set up");
		goto out;
	}
	if (geteuid() != sp->uid) {
		say(&o, "the spool belongs to another user");
		goto out;
	}
	if (o.foreground && o.ready_fd < 0)
		wait_for_turn(&o, sp, argv);
	if (fchdir(sp->fd) < 0 || (!o.foreground && !detach())) {
		say(&o, strerror(errno));
		goto out;
	}
	if (quota_wanted(conf) && !set_zone(conf->day_zone)) {
		say(&o, strerror(errno));
		goto out;
	}
	block_signals();
	fd_raise_limit();
	if (conf->to_syslog)
		log_open_syslog(conf->level, _PATH_LOG, "respool-spooler");
	else
		log_open(conf->level, conf->log_file);
	if (geteuid() == 0)
		log_warn("spooler", "started as root: the spool needs no more "
		    "than a user of its own");
	if (restrict_self(&o, conf, sp, models))
		status = serve(&o, conf, sp, models);
out:
	metrics_close();
	spool_close(sp);
	models_file_free(models);
	conf_free(conf);
	buf_done(&why);
	return status;
}
