/* wake_client.c - requests to the spooler, and starting one when there is
 * none. */
#include <sys/mman.h>
#include <sys/wait.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "fdio.h"
#include "log.h"
#include "model.h"
#include "wake.h"

#define TRIES 3
#define ANSWER_NS (5 * NS_PER_S)
#define PING_NS (2 * NS_PER_S)
#define READY_NS (1500 * NS_PER_MS)
#define START_LOCK_NS (5 * NS_PER_S)
#define SERVICE_NS (3 * NS_PER_S)
#define RETRY_MS 10 /* between two tries for a lock or a full queue */

struct wake_client {
	const struct conf *conf;
	struct spool *sp;
	struct models_file *models;
	bool send_hash;
	pthread_mutex_t mutex;	/* for what follows */
	uint64_t no_start_before_ns; /* after a failed start */
	unsigned failures;	/* in a row */
	char why[160];		/* of the last one */
	pid_t late;		/* one that was not ready in time, or 0; for
				 * who has start.lock */
};

enum rs_err
wake_client_new(const struct conf *conf, struct spool *sp,
    struct models_file *models, bool send_hash, struct wake_client **ret)
{
	struct wake_client *w = calloc(1, sizeof *w);

	if (w == NULL)
		return RS_ENOMEM;
	w->conf = conf;
	w->sp = sp;
	w->models = models;
	w->send_hash = send_hash;
	pthread_mutex_init(&w->mutex, NULL);
	*ret = w;
	return RS_OK;
}

void
wake_client_free(struct wake_client *w)
{
	if (w == NULL)
		return;
	pthread_mutex_destroy(&w->mutex);
	free(w);
}

static int
ms_until(uint64_t deadline_ns)
{
	return clock_ms_until(deadline_ns, clock_mono_ns());
}

/* Waits for RETRY_MS, or less when the deadline is near; false: it is over. */
static bool
pause_until(uint64_t deadline_ns)
{
	int ms = ms_until(deadline_ns);

	if (ms == 0)
		return false;
	poll(NULL, 0, ms < RETRY_MS ? ms : RETRY_MS);
	return true;
}

/* ---- one request on one connection ---- */

static enum rs_err
connect_until(const char *socket_name, uint64_t deadline_ns, int *ret_fd)
{
	enum rs_err err;

	while ((err = wake_connect(socket_name, ret_fd)) == RS_EBUSY &&
	    pause_until(deadline_ns))
		continue;
	return err == RS_EBUSY ? RS_ETIMEOUT : err;
}

/* Waits for the answer with this tag. */
static enum rs_err
answer_until(int fd, uint32_t tag, uint64_t deadline_ns,
    struct wake_answer *ret)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	union wake_msg msg;
	enum rs_err err;
	size_t len;
	int passed;

	for (;;) {
		err = wake_recv(fd, &msg, &len, &passed);
		if (err == RS_EBUSY) {
			if (ms_until(deadline_ns) == 0)
				return RS_ETIMEOUT;
			poll(&pfd, 1, ms_until(deadline_ns));
			continue;
		}
		if (err != RS_OK)
			return err;
		if (passed >= 0)
			close(passed);
		if (msg.head.op == WAKE_ANSWER && msg.head.tag == tag) {
			*ret = msg.answer;
			return RS_OK;
		}
	}
}

/* HELLO, then the request (NULL: none), on a new connection.  RS_EPROTO: the
 * spooler speaks another version; RS_EBUSY: it drains, and no_drain asked for
 * one that does not. */
static enum rs_err
ask(struct wake_client *w, const char *socket_name, bool no_drain,
    struct wake_head *msg, size_t len, int pass_fd, uint64_t deadline_ns,
    struct wake_answer *ret)
{
	struct wake_hello hello = {
		.head = { .op = WAKE_HELLO, .tag = 1 },
		.version = WAKE_VERSION,
	};
	struct wake_answer answer;
	enum rs_err err;
	int fd;

	if (w->send_hash)
		memcpy(hello.conf_hash, w->conf->hash, sizeof hello.conf_hash);
	if ((err = connect_until(socket_name, deadline_ns, &fd)) != RS_OK)
		return err;
	/* A new connection has room for both, so that one round trip does. */
	if ((err = wake_send(fd, &hello, sizeof hello, -1)) != RS_OK)
		goto out;
	if (msg != NULL) {
		msg->tag = 2;
		if ((err = wake_send(fd, msg, len, pass_fd)) != RS_OK)
			goto out;
	}
	if ((err = answer_until(fd, 1, deadline_ns, &answer)) != RS_OK)
		goto out;
	if (answer.version != WAKE_VERSION)
		err = RS_EPROTO;
	else if (no_drain && answer.draining)
		err = RS_EBUSY;
	else if (msg != NULL)
		err = answer_until(fd, 2, deadline_ns, ret);
out:
	close(fd);
	return err;
}

/* ---- starting a spooler ---- */

/* What a spooler may inherit.  Under CGI the environment holds the visitor's
 * headers, HTTP_PROXY among them, which is why that one is missing. */
static const char *const env_names[] = {
	"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR",
	"http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
};

/* True when var is NAME=value with that name. */
static bool
env_is(const char *var, const char *name)
{
	size_t n = strlen(name);

	return strncmp(var, name, n) == 0 && var[n] == '=';
}

static bool
env_allowed(const char *var, const struct models *models)
{
	size_t i;

	if (strncmp(var, "RESPOOL_", 8) == 0)
		return true;
	for (i = 0; i < sizeof env_names / sizeof env_names[0]; i++)
		if (env_is(var, env_names[i]))
			return true;
	for (i = 0; i < models->count; i++)
		if (models->all[i].api_key_env != NULL &&
		    env_is(var, models->all[i].api_key_env))
			return true;
	return false;
}

/* A new array of lent strings. */
static char **
env_for_spooler(struct models_file *models_file)
{
	struct models *models = models_file_get(models_file);
	char **env, **p;
	size_t n = 0;

	for (p = environ; p != NULL && *p != NULL; p++)
		n++;
	if ((env = calloc(n + 1, sizeof *env)) != NULL) {
		n = 0;
		for (p = environ; p != NULL && *p != NULL; p++)
			if (env_allowed(*p, models))
				env[n++] = *p;
	}
	models_unref(models);
	return env;
}

/* Where the program is: as configured, else beside this one, else where it
 * was installed. */
static const char *
spooler_program(const struct conf *conf, char *space, size_t size)
{
	ssize_t n;
	char *slash;

	if (conf->spooler_program[0] != '\0')
		return conf->spooler_program;
	n = readlink("/proc/self/exe", space, size);
	if (n > 0 && (size_t)n < size) {
		space[n] = '\0';
		slash = strrchr(space, '/');
		if (slash != NULL && (size_t)(slash - space) +
		    sizeof "/respool-spooler" <= size) {
			memcpy(slash, "/respool-spooler",
			    sizeof "/respool-spooler");
			if (access(space, X_OK) == 0)
				return space;
		}
	}
	return SBINDIR "/respool-spooler";
}

static int
spawn(const struct wake_client *w, int ready_fd, pid_t *ret_pid)
{
	char space[4096];
	const char *program = spooler_program(w->conf, space, sizeof space);
	char *argv[6] = { (char *)"respool-spooler", (char *)"--ready-fd=3" };
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	sigset_t mask, all;
	char **env = env_for_spooler(w->models);
	int fd, error;

	if (env == NULL)
		return ENOMEM;
	if (w->conf->file != NULL) {
		argv[2] = (char *)"-c";
		argv[3] = w->conf->file;
	}
	/* A HUP waits until there is a log to be opened again. */
	sigemptyset(&mask);
	sigaddset(&mask, SIGHUP);
	sigfillset(&all);
	posix_spawn_file_actions_init(&fa);
	/* The pipe first: it may lie on 0 to 2.  The rest is closed by the
	 * spooler, as soon as it runs. */
	error = posix_spawn_file_actions_adddup2(&fa, ready_fd, 3);
	for (fd = 0; fd <= 2 && error == 0; fd++)
		error = posix_spawn_file_actions_addopen(&fa, fd, "/dev/null",
		    O_RDWR, 0);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &mask);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setflags(&attr,
	    POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	if (error == 0)
		error = posix_spawn(ret_pid, program, &fa, &attr, argv, env);
	posix_spawn_file_actions_destroy(&fa);
	posix_spawnattr_destroy(&attr);
	free(env);
	return error;
}

/* Waits for the ready pipe: "+", "=" or a reason.  RS_EBUSY: somebody else
 * is the mutator, for how long nobody knows. */
static enum rs_err
ready_until(int fd, uint64_t deadline_ns, char *why, size_t size)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	size_t len = 0;
	ssize_t n;

	while (len + 1 < size) {
		if (poll(&pfd, 1, ms_until(deadline_ns)) == 0) {
			snprintf(why, size, "the spooler did not get ready");
			return RS_ETIMEOUT;
		}
		n = read(fd, why + len, size - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
		if (why[0] == '+')
			return RS_OK;
	}
	why[len] = '\0';
	if (why[0] == '=') {
		memmove(why, why + 1, len);
		return RS_EBUSY;
	}
	if (len > 0 && why[len - 1] == '\n')
		why[len - 1] = '\0';
	if (len == 0)
		snprintf(why, size, "the spooler ended before it was ready");
	return RS_ECLOSED;
}

static enum rs_err
spawn_and_wait(struct wake_client *w, uint64_t deadline_ns, char *why,
    size_t size)
{
	enum rs_err err;
	int pipe_fd[2], high, error;
	pid_t pid = 0;

	/* On a disk that hangs one is enough. */
	if (w->late > 0 && waitpid(w->late, NULL, WNOHANG) == 0) {
		snprintf(why, size, "the spooler did not get ready");
		return RS_ETIMEOUT;
	}
	w->late = 0;
	if (pipe2(pipe_fd, O_CLOEXEC) < 0) {
		snprintf(why, size, "pipe: %s", strerror(errno));
		return rs_from_errno(errno);
	}
	/* dup2 onto itself would leave O_CLOEXEC set. */
	high = fcntl(pipe_fd[1], F_DUPFD_CLOEXEC, 10);
	close(pipe_fd[1]);
	error = high < 0 ? errno : spawn(w, high, &pid);
	if (high >= 0)
		close(high);
	if (error != 0) {
		snprintf(why, size, "respool-spooler cannot be started: %s",
		    strerror(error));
		err = rs_from_errno(error);
	} else {
		err = ready_until(pipe_fd[0], deadline_ns, why, size);
		/* It has forked twice: this child is gone at once. */
		if (err == RS_ETIMEOUT)
			w->late = pid;
		else
			while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
				continue;
	}
	close(pipe_fd[0]);
	return err;
}

/* Is there one that takes starts? */
static bool
current_serves(struct wake_client *w, uint64_t deadline_ns)
{
	return ask(w, "current", true, NULL, 0, -1, deadline_ns, NULL) ==
	    RS_OK;
}

/* Nobody but the spool's owner may start a spooler.  His service is back in a
 * moment when it has just made way. */
static enum rs_err
await_service(struct wake_client *w, char *why, size_t size)
{
	uint64_t deadline = clock_mono_ns() + SERVICE_NS;

	while (!current_serves(w, deadline)) {
		if (!pause_until(deadline)) {
			snprintf(why, size, "respool-spooler does not run, and "
			    "only user %u can start it",
			    (unsigned)w->sp->uid);
			return RS_EPERM;
		}
	}
	return RS_OK;
}

static enum rs_err
start_locked(struct wake_client *w, char *why, size_t size)
{
	uint64_t deadline = clock_mono_ns() + START_LOCK_NS;
	enum rs_err err;
	int fd;

	if (w->sp->uid != geteuid())
		return await_service(w, why, size);
	fd = openat(w->sp->fd, "start.lock",
	    O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0) {
		snprintf(why, size, "start.lock: %s", strerror(errno));
		return rs_from_errno(errno);
	}
	while ((err = fd_lock(fd)) == RS_EBUSY && pause_until(deadline))
		continue;
	if (err != RS_OK)
		snprintf(why, size, "start.lock: %s", rs_strerror(err));
	else if (!current_serves(w, deadline))
		err = spawn_and_wait(w, deadline, why, size);
	close(fd);
	return err;
}

/* Starts a spooler unless one serves meanwhile.  After a failure nothing is
 * tried for 2, 4, 8, 16, 30 s: the answer is the last reason.  That another
 * process is the mutator is none: it may be a spooler that is about to serve,
 * or an admin's tool. */
static enum rs_err
ensure(struct wake_client *w, struct wake_reply *ret)
{
	char why[sizeof w->why] = "";
	char quoted[LOG_QUOTE_SIZE];
	uint64_t wait_s;
	enum rs_err err;
	bool held;

	pthread_mutex_lock(&w->mutex);
	held = clock_mono_ns() < w->no_start_before_ns;
	if (held)
		memcpy(why, w->why, sizeof why);
	pthread_mutex_unlock(&w->mutex);
	if (held) {
		/* Somebody else may have brought it up. */
		if (current_serves(w, clock_mono_ns() + PING_NS))
			return RS_OK;
		err = RS_ECLOSED;
	} else {
		err = start_locked(w, why, sizeof why);
		pthread_mutex_lock(&w->mutex);
		if (err == RS_OK) {
			w->failures = 0;
		} else if (err != RS_EBUSY) {
			wait_s = 2ull << (w->failures < 4 ? w->failures : 4);
			/* Another user's service may be back any time. */
			if (err != RS_EPERM)
				w->failures++;
			w->no_start_before_ns = clock_mono_ns() +
			    (wait_s < 30 ? wait_s : 30) * NS_PER_S;
			memcpy(w->why, why, sizeof why);
		}
		pthread_mutex_unlock(&w->mutex);
		if (err != RS_OK)
			log_error("wake", "spooler not started pid=%d why=%s",
			    (int)getpid(),
			    log_quote(quoted, why, strlen(why)));
	}
	if (err != RS_OK) {
		ret->err = err;
		ret->type = ERRTYPE_spool_unavailable;
		memcpy(ret->text, why, sizeof ret->text);
	}
	return err;
}

/* ---- the requests ---- */

static void
reply_from(const struct wake_answer *a, struct wake_reply *ret)
{
	ret->err = (enum rs_err)a->err;
	ret->type = (enum errtype)a->type;
	ret->count = a->count;
	ret->retry_s = a->retry_s;
	memcpy(ret->text, a->text, sizeof ret->text);
	memcpy(ret->limit, a->limit, sizeof ret->limit);
}

static void
reply_failed(enum rs_err err, struct wake_reply *ret)
{
	memset(ret, 0, sizeof *ret);
	ret->err = err;
	ret->type = ERRTYPE_spool_unavailable;
	snprintf(ret->text, sizeof ret->text,
	    err == RS_ETIMEOUT ? "The spooler does not answer." :
	    "There is no spooler that answers.");
}

/* To the current spooler, which is started when there is none.  Sending again
 * is harmless: each request names its stream. */
static enum rs_err
ask_current(struct wake_client *w, bool no_drain, struct wake_head *msg,
    size_t len, int pass_fd, uint64_t deadline_ns, struct wake_reply *ret)
{
	struct wake_answer answer;
	enum rs_err err = RS_ECLOSED;
	int i;

	reply_failed(RS_ECLOSED, ret);
	for (i = 0; i < TRIES; i++) {
		err = ask(w, "current", no_drain, msg, len, pass_fd,
		    deadline_ns, &answer);
		if (err == RS_OK) {
			reply_from(&answer, ret);
			return RS_OK;
		}
		reply_failed(err, ret);
		if (err == RS_ETIMEOUT)
			return err;
		err = ensure(w, ret);
		if (err != RS_OK && err != RS_EBUSY)
			return RS_ECLOSED;
	}
	return RS_ECLOSED;
}

/* A memfd that nobody can change any more, or -1. */
static int
sealed_memfd(const char *p, size_t len)
{
	int fd = memfd_create("respool-prompt",
	    MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd >= 0 && (fd_write_full(fd, p, len) != RS_OK ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW |
	    F_SEAL_WRITE) < 0)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

enum rs_err
wake_start(struct wake_client *w, const struct wake_start *start,
    const char *prompt, size_t len, struct wake_reply *ret)
{
	struct wake_start msg = *start;
	enum rs_err err;
	int fd;

	if ((fd = sealed_memfd(prompt, len)) < 0) {
		err = rs_from_errno(errno);
		reply_failed(err, ret);
		return RS_ECLOSED;
	}
	/* When a spooler must be started first, that may take as long again. */
	msg.head.op = WAKE_START;
	msg.deadline_ns = clock_mono_ns() + 2 * ANSWER_NS;
	err = ask_current(w, true, &msg.head, sizeof msg, fd, msg.deadline_ns,
	    ret);
	close(fd);
	return err;
}

enum rs_err
wake_seal(struct wake_client *w, const struct stream_key *k,
    struct wake_reply *ret)
{
	struct wake_key msg = { .head.op = WAKE_SEAL, .key = *k };

	return ask_current(w, true, &msg.head, sizeof msg, -1,
	    clock_mono_ns() + ANSWER_NS, ret);
}

enum rs_err
wake_delete(struct wake_client *w, const struct stream_key *k,
    struct wake_reply *ret)
{
	struct wake_key msg = { .head.op = WAKE_DELETE, .key = *k };

	return ask_current(w, true, &msg.head, sizeof msg, -1,
	    clock_mono_ns() + ANSWER_NS, ret);
}

enum rs_err
wake_forget(struct wake_client *w, const struct stream_key *session,
    struct wake_reply *ret)
{
	struct wake_key msg = { .head.op = WAKE_FORGET, .key = *session };

	return ask_current(w, true, &msg.head, sizeof msg, -1,
	    clock_mono_ns() + ANSWER_NS, ret);
}

enum rs_err
wake_stop(struct wake_client *w, const struct stream_key *k,
    const struct stream_head *head, struct wake_reply *ret)
{
	struct wake_key msg = { .head.op = WAKE_STOP, .key = *k };
	struct wake_answer answer;
	enum rs_err err;

	err = ask(w, head->socket, false, &msg.head, sizeof msg, -1,
	    clock_mono_ns() + ANSWER_NS, &answer);
	if (err == RS_OK)
		reply_from(&answer, ret);
	else
		reply_failed(err, ret);
	return err == RS_OK || err == RS_ETIMEOUT ? err : RS_ECLOSED;
}

enum rs_err
wake_alive(struct wake_client *w, const struct stream_key *k,
    const struct stream_head *head)
{
	struct wake_key msg = { .head.op = WAKE_ALIVE, .key = *k };
	struct wake_answer answer;
	enum rs_err err;

	err = ask(w, head->socket, false, &msg.head, sizeof msg, -1,
	    clock_mono_ns() + PING_NS, &answer);
	if (err == RS_OK)
		err = (enum rs_err)answer.err;
	return err == RS_OK || err == RS_ENOENT || err == RS_ETIMEOUT ? err :
	    RS_ECLOSED;
}

/* No try has just failed, and the program is there, for who may run it. */
static bool
startable(struct wake_client *w)
{
	char space[4096];
	bool held;

	pthread_mutex_lock(&w->mutex);
	held = clock_mono_ns() < w->no_start_before_ns;
	pthread_mutex_unlock(&w->mutex);
	return !held && geteuid() == w->sp->uid &&
	    access(spooler_program(w->conf, space, sizeof space), X_OK) == 0;
}

enum rs_err
wake_ready(struct wake_client *w, enum rs_err *ret_spool)
{
	struct wake_head msg = { .op = WAKE_READY };
	struct wake_answer answer;
	enum rs_err err;

	err = ask(w, "current", true, &msg, sizeof msg, -1,
	    clock_mono_ns() + READY_NS, &answer);
	if (err == RS_ETIMEOUT)
		return err;
	if (err == RS_OK && answer.err != RS_EBUSY) {
		*ret_spool = (enum rs_err)answer.err;
		return RS_OK;
	}
	return startable(w) ? RS_ENOENT : RS_ECLOSED;
}

enum rs_err
wake_gc(struct wake_client *w, struct wake_reply *ret)
{
	struct wake_head msg = { .op = WAKE_GC };
	struct wake_answer answer;
	enum rs_err err;

	err = ask(w, "current", true, &msg, sizeof msg, -1,
	    clock_mono_ns() + 60 * NS_PER_S, &answer);
	if (err == RS_OK)
		reply_from(&answer, ret);
	else
		reply_failed(err, ret);
	return err == RS_OK || err == RS_ETIMEOUT ? err : RS_ECLOSED;
}
