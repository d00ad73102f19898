/* exec.c - child processes in the loop.
 *
 * A command is over when it has exited and its output has ended.  A process
 * that it leaves behind may hold the output open: after GRACE_NS that counts
 * as its end.  The command stays a zombie for as long as we may kill its
 * group, so that nobody else gets that number. */
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "clock.h"
#include "exec.h"
#include "fdio.h"
#include "log.h"
#include "loop.h"

#define READ_MAX 16384
#define REST_READS 64		/* of what a full pipe may hold, and more */
#define GRACE_NS (200 * NS_PER_MS)
#define KILL_NS NS_PER_S
#define ENV_MAX 65536		/* bytes */
#define ENV_COUNT 6
#define LINES_AT_ONCE 20	/* of standard error, and one a second more */

struct exec {
	TAILQ_ENTRY(exec) entry;
	struct loop *loop;
	const struct exec_events *ev; /* NULL: killed */
	void *arg;
	pid_t pid;
	struct watch exit;	/* a pidfd */
	struct watch in, out, err; /* fd is -1 when closed */
	struct timer timer;	/* of GRACE_NS or KILL_NS; else far away, which
				 * keeps its room */
	bool exited;
	bool sigkilled;
	struct buf input;
	size_t sent;
	char *stream_id;
	uint64_t began_ns;
	uint64_t lines;		/* of standard error, logged */
	uint64_t lines_lost;
	size_t line_len;
	char line[LOG_QUOTE_SIZE]; /* the one that is not whole yet */
};

static TAILQ_HEAD(, exec) running = TAILQ_HEAD_INITIALIZER(running);

static void
watch_close(struct exec *x, struct watch *w)
{
	if (w->fd < 0)
		return;
	loop_watch(x->loop, w, 0);
	close(w->fd);
	w->fd = -1;
}

/* ---- standard error ---- */

static void
log_stderr_line(struct exec *x)
{
	char quoted[LOG_QUOTE_SIZE];

	if (x->line_len == 0)
		return;
	if (x->lines < LINES_AT_ONCE + (clock_mono_ns() - x->began_ns) /
	    NS_PER_S) {
		x->lines++;
		log_info("exec", "stream=%s stderr=%s", x->stream_id,
		    log_quote(quoted, x->line, x->line_len));
	} else {
		x->lines_lost++;
	}
	x->line_len = 0;
}

/* False: there is nothing more for now. */
static bool
read_stderr(struct exec *x)
{
	char data[4096];
	ssize_t i, n = read(x->err.fd, data, sizeof data);

	for (i = 0; i < n; i++) {
		if (data[i] == '\n')
			log_stderr_line(x);
		else if (x->line_len < sizeof x->line)
			x->line[x->line_len++] = data[i];
	}
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		watch_close(x, &x->err);
	return n > 0;
}

static void
on_stderr(void *arg, uint32_t events)
{
	(void)events;
	read_stderr(arg);
}

/* ---- the end ---- */

static void
exec_free(struct exec *x)
{
	int i;

	for (i = 0; i < REST_READS && x->err.fd >= 0 && read_stderr(x); i++)
		continue;
	log_stderr_line(x);
	if (x->lines_lost > 0)
		log_info("exec", "stream=%s stderr lines not logged lines=%llu",
		    x->stream_id, (unsigned long long)x->lines_lost);
	watch_close(x, &x->in);
	watch_close(x, &x->out);
	watch_close(x, &x->err);
	watch_close(x, &x->exit);
	timer_cancel(&x->loop->timers, &x->timer);
	if (x->pid > 0)
		waitpid(x->pid, NULL, WNOHANG);
	TAILQ_REMOVE(&running, x, entry);
	buf_done(&x->input);
	free(x->stream_id);
	free(x);
}

static void
exec_over(struct exec *x)
{
	const struct exec_events *ev = x->ev;
	void *arg = x->arg;
	int status = -1;
	bool ok;

	waitpid(x->pid, &status, WNOHANG);
	x->pid = 0;
	ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	if (!ok && WIFSIGNALED(status))
		log_warn("exec", "stream=%s command was killed signal=%d",
		    x->stream_id, WTERMSIG(status));
	else if (!ok)
		log_warn("exec", "stream=%s command failed status=%d",
		    x->stream_id, WEXITSTATUS(status));
	exec_free(x);
	ev->over(arg, ok);
}

static void
on_exited(void *arg, uint32_t events)
{
	struct exec *x = arg;

	(void)events;
	x->exited = true;
	loop_watch(x->loop, &x->exit, 0);
	if (x->sigkilled)
		exec_free(x);
	else if (x->ev != NULL && x->out.fd < 0)
		exec_over(x);
	else if (x->ev != NULL)
		timer_set(&x->loop->timers, &x->timer,
		    clock_mono_ns() + GRACE_NS);
}

/* ---- input and output ---- */

static void
on_input(void *arg, uint32_t events)
{
	struct exec *x = arg;
	ssize_t n;

	(void)events;
	n = write(x->in.fd, x->input.data + x->sent, x->input.len - x->sent);
	if (n > 0)
		x->sent += (size_t)n;
	/* It need not read: a closed pipe is no failure. */
	if (x->sent == x->input.len ||
	    (n < 0 && errno != EAGAIN && errno != EINTR)) {
		watch_close(x, &x->in);
		buf_done(&x->input);
	}
}

/* False: there is nothing more for now. */
static bool
read_output(struct exec *x)
{
	char data[READ_MAX];
	ssize_t n = read(x->out.fd, data, sizeof data);

	if (n > 0)
		x->ev->data(x->arg, data, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		watch_close(x, &x->out);
	return n > 0;
}

static void
on_output(void *arg, uint32_t events)
{
	struct exec *x = arg;

	(void)events;
	read_output(x);
	if (x->ev != NULL && x->exited && x->out.fd < 0)
		exec_over(x);
}

static void
on_timer(void *arg)
{
	struct exec *x = arg;
	int i;

	if (x->ev == NULL) {
		kill(-x->pid, SIGKILL);
		x->sigkilled = true;
		if (x->exited)
			exec_free(x);
		return;
	}
	/* The loop may have been late: what is in the pipe belongs to it. */
	for (i = 0; i < REST_READS && x->ev != NULL && read_output(x); i++)
		continue;
	if (x->ev != NULL)
		exec_over(x);
}

/* ---- beginning ---- */

static char *tz_kept;	/* "": there was none */

enum rs_err
exec_keep_tz(void)
{
	const char *tz = getenv("TZ");

	free(tz_kept);
	tz_kept = strdup(tz != NULL ? tz : "");
	return tz_kept == NULL ? RS_ENOMEM : RS_OK;
}

static const char *
env_value(const char *name)
{
	if (tz_kept == NULL || strcmp(name, "TZ") != 0)
		return getenv(name);
	return tz_kept[0] != '\0' ? tz_kept : NULL;
}

/* NAME=value texts, each with a NUL, and an array of them that is lent the
 * texts. */
static enum rs_err
make_env(struct buf *texts, char *ret[ENV_COUNT + 1], const char *model,
    const char *stream_id)
{
	static const char *const names[] = { "PATH", "HOME", "LANG", "TZ" };
	const char *value;
	size_t i, at;

	for (i = 0; i < sizeof names / sizeof *names; i++) {
		if ((value = env_value(names[i])) == NULL)
			continue;
		buf_printf(texts, "%s=%s", names[i], value);
		buf_add(texts, "", 1);
	}
	buf_printf(texts, "RESPOOL_MODEL=%s", model);
	buf_add(texts, "", 1);
	buf_printf(texts, "RESPOOL_STREAM_ID=%s", stream_id);
	buf_add(texts, "", 1);
	if (texts->err != RS_OK)
		return texts->err;
	for (i = 0, at = 0; at < texts->len; i++) {
		ret[i] = texts->data + at;
		at += strlen(ret[i]) + 1;
	}
	ret[i] = NULL;
	return RS_OK;
}

/* fds: what the command gets as its first three.  Returns an errno. */
static int
spawn(const struct exec_spec *spec, const int fds[3], char **env,
    pid_t *ret_pid)
{
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	sigset_t none, every;
	int fd, error = 0;

	sigemptyset(&none);
	sigfillset(&every);
	posix_spawn_file_actions_init(&fa);
	for (fd = 0; fd < 3 && error == 0; fd++)
		error = posix_spawn_file_actions_adddup2(&fa, fds[fd], fd);
	/* Ours close on exec; those of libraries might not. */
	if (error == 0)
		error = posix_spawn_file_actions_addclosefrom_np(&fa, 3);
	if (error == 0 && spec->cwd != NULL)
		error = posix_spawn_file_actions_addchdir_np(&fa, spec->cwd);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &every);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP |
	    POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	if (error == 0)
		error = posix_spawnp(ret_pid, spec->command[0], &fa, &attr,
		    spec->command, env);
	posix_spawn_file_actions_destroy(&fa);
	posix_spawnattr_destroy(&attr);
	return error;
}

static void
close_all(const int fds[2])
{
	if (fds[0] >= 0)
		close(fds[0]);
	if (fds[1] >= 0)
		close(fds[1]);
}

/* Starts the command with one end of each pipe, and keeps the other. */
static enum rs_err
exec_spawn(struct exec *x, const struct exec_spec *spec, char **env)
{
	int in[2] = { -1, -1 }, out[2] = { -1, -1 }, err[2] = { -1, -1 };
	int error;

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 ||
	    pipe2(err, O_CLOEXEC) < 0)
		error = errno;
	else
		error = spawn(spec, (const int[]){ in[0], out[1], err[1] },
		    env, &x->pid);
	if (error != 0) {
		x->pid = 0;
		close_all(in);
		close_all(out);
		close_all(err);
		return rs_from_errno(error);
	}
	close(in[0]);
	close(out[1]);
	close(err[1]);
	x->in.fd = in[1];
	x->out.fd = out[0];
	x->err.fd = err[0];
	return RS_OK;
}

static enum rs_err
exec_watch(struct exec *x)
{
	struct loop *l = x->loop;
	enum rs_err err;

	/* glibc has had a function for it since 2.36 only. */
	x->exit.fd = (int)syscall(SYS_pidfd_open, x->pid, 0);
	if (x->exit.fd < 0)
		return rs_from_errno(errno);
	fd_nonblock(x->in.fd);
	fd_nonblock(x->out.fd);
	fd_nonblock(x->err.fd);
	if (x->input.len == 0)
		watch_close(x, &x->in);
	else if ((err = loop_watch(l, &x->in, EPOLLOUT)) != RS_OK)
		return err;
	if ((err = loop_watch(l, &x->exit, EPOLLIN)) != RS_OK ||
	    (err = loop_watch(l, &x->out, EPOLLIN)) != RS_OK)
		return err;
	return loop_watch(l, &x->err, EPOLLIN);
}

static struct exec *
exec_new(struct loop *l, const char *stream_id, const char *input, size_t len)
{
	struct exec *x;

	if (timers_reserve(&l->timers, l->timers.count + 64) != RS_OK ||
	    (x = calloc(1, sizeof *x)) == NULL)
		return NULL;
	x->loop = l;
	x->exit = (struct watch){ .fd = -1, .fn = on_exited, .arg = x };
	x->in = (struct watch){ .fd = -1, .fn = on_input, .arg = x };
	x->out = (struct watch){ .fd = -1, .fn = on_output, .arg = x };
	x->err = (struct watch){ .fd = -1, .fn = on_stderr, .arg = x };
	x->timer = (struct timer){ .fn = on_timer, .arg = x };
	timer_set(&l->timers, &x->timer, UINT64_MAX);
	x->began_ns = clock_mono_ns();
	TAILQ_INSERT_TAIL(&running, x, entry);
	buf_init(&x->input, len);
	buf_add(&x->input, input, len);
	x->stream_id = strdup(stream_id);
	if (x->input.err != RS_OK || x->stream_id == NULL) {
		exec_free(x);
		return NULL;
	}
	return x;
}

enum rs_err
exec_start(struct loop *l, const struct exec_spec *spec, const char *model,
    const char *stream_id, const char *input, size_t len,
    const struct exec_events *ev, void *arg, struct exec **ret)
{
	struct exec *x = exec_new(l, stream_id, input, len);
	struct buf texts;
	char *env[ENV_COUNT + 1];
	enum rs_err err;

	if (x == NULL)
		return RS_ENOMEM;
	x->ev = ev;
	x->arg = arg;
	buf_init(&texts, ENV_MAX);
	if ((err = make_env(&texts, env, model, stream_id)) == RS_OK &&
	    (err = exec_spawn(x, spec, env)) == RS_OK)
		err = exec_watch(x);
	buf_done(&texts);
	if (err != RS_OK) {
		if (x->pid > 0) {
			kill(-x->pid, SIGKILL);
			waitpid(x->pid, NULL, 0);
			x->pid = 0;
		}
		exec_free(x);
		return err;
	}
	*ret = x;
	return RS_OK;
}

void
exec_kill(struct exec *x)
{
	if (x == NULL)
		return;
	x->ev = NULL;
	watch_close(x, &x->in);
	watch_close(x, &x->out);
	kill(-x->pid, SIGTERM);
	timer_set(&x->loop->timers, &x->timer, clock_mono_ns() + KILL_NS);
}

void
exec_end_all(void)
{
	struct exec *x;

	while ((x = TAILQ_FIRST(&running)) != NULL) {
		kill(-x->pid, SIGKILL);
		exec_free(x);
	}
}
