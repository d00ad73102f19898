/* responder_main.c - respool.fcgi: options, set-up, acceptor threads, loop. */
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <errno.h>
#include <fcgiapp.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "auth.h"
#include "fdio.h"
#include "jx.h"
#include "log.h"
#include "metrics.h"
#include "quota.h"
#include "responder.h"
#include "tmpl.h"
#include "triage.h"

#define ACCEPTORS_MIN 2
#define ACCEPTORS_MAX 64
#define STACK_SIZE (256 * 1024)
#define STOP_S 2		/* then the process ends whatever hangs */
#define LISTEN_FD 0		/* as FastCGI has it */
#define WHY_MAX 8192
#define AGE_MAX_S 240		/* below mod_fcgid's FcgidBusyTimeout of 300 */

/* ---- set-up ---- */

/* What a request needs and what must be freed; r first. */
struct set_up {
	struct responder r;
	struct conf *conf;
};

static void
tear_down(struct set_up *s)
{
	follow_loop_free(s->r.loop);
	wake_client_free(s->r.wake);
	metrics_close();
	spool_close(s->r.spool);
	reload_free(s->r.jwt_key);
	reload_free(s->r.triage);
	reload_free(s->r.templates);
	reload_free(s->r.personas);
	models_file_free(s->r.models);
	conf_free(s->conf);
	memset(s, 0, sizeof *s);
}

/* For the log: an event is a line. */
static const char *
one_line(struct buf *why)
{
	char *p;

	for (p = why->data; p != NULL && (p = strchr(p, '\n')) != NULL; p++)
		*p = p[1] == '\0' ? '\0' : ' ';
	return why->len > 0 ? why->data : "";
}

/* Whether a web server ends us by our age: one that runs us as CGI, or
 * mod_fcgid, whose sockets are named PID.NUMBER. */
static bool
ends_by_age(void)
{
	static const char digits[] = "0123456789";
	struct sockaddr_un sun = { 0 };
	socklen_t len = sizeof sun - 1;
	const char *name;
	size_t n;

	if (FCGX_IsCGI())
		return true;
	if (getsockname(LISTEN_FD, (struct sockaddr *)&sun, &len) < 0 ||
	    sun.sun_family != AF_UNIX ||
	    (name = strrchr(sun.sun_path, '/')) == NULL)
		return false;
	n = strspn(++name, digits);
	return n > 0 && name[n] == '.' && name[n + 1] != '\0' &&
	    name[n + 1 + strspn(name + n + 1, digits)] == '\0';
}

/* On failure why says what to mend. */
static enum rs_err
set_up(const char *conf_file, struct set_up *ret, struct buf *why)
{
	struct set_up s = { 0 };
	enum rs_err err;

	if ((err = conf_load(conf_file, &s.conf, why)) != RS_OK)
		goto out;
	s.r.conf = s.conf;
	if (s.conf->max_connection == CONF_IS_AUTO)
		s.conf->max_connection = ends_by_age() ? AGE_MAX_S : 0;
	if (s.conf->to_syslog)
		log_open_syslog(s.conf->level, _PATH_LOG, "respool.fcgi");
	else
		log_open(s.conf->level, s.conf->log_file);
	log_debug("main", "pid=%d max_connection_s=%llu", (int)getpid(),
	    (unsigned long long)s.conf->max_connection);
	if (why->len > 0)
		log_warn("conf", "%s", one_line(why));
	buf_clear(why);
	if ((err = models_file_open(s.conf->models_file, &s.r.models, why)) !=
	    RS_OK ||
	    (err = reload_new(&templates_kind, s.conf->templates_dir,
	    &s.r.templates)) != RS_OK ||
	    (err = reload_new(&personas_kind, s.conf->personas_dir,
	    &s.r.personas)) != RS_OK ||
	    (err = reload_new(&triage_kind, s.conf->triage_file,
	    &s.r.triage)) != RS_OK ||
	    (err = reload_new(auth_key_kind(s.conf), s.conf->jwt_key_file,
	    &s.r.jwt_key)) != RS_OK ||
	    (err = spool_open(s.conf, &s.r.spool, why)) != RS_OK ||
	    (err = wake_client_new(s.conf, s.r.spool, s.r.models, true,
	    &s.r.wake)) != RS_OK ||
	    (err = follow_loop_new(s.conf, s.r.wake, &s.r.loop)) != RS_OK)
		goto out;
	if (fchdir(s.r.spool->fd) < 0) {
		err = rs_from_errno(errno);
		buf_printf(why, "%s: %s", s.conf->spool_dir, strerror(errno));
		goto out;
	}
	if ((err = metrics_open(s.r.spool, false)) != RS_OK)
		log_debug("metrics", "counting alone pid=%d why=\"%s\"",
		    (int)getpid(), rs_strerror(err));
	*ret = s;
	return RS_OK;
out:
	if (why->len == 0)
		buf_puts(why, rs_strerror(err));
	tear_down(&s);
	return err;
}

/* ---- the end ---- */

static struct {
	int event_fd;	/* readable for good when we are to stop */
	pthread_mutex_t mutex;
	bool stopped;
	struct follow_loop *loop;
} stopper = { .event_fd = -1, .mutex = PTHREAD_MUTEX_INITIALIZER };

/* Signals are waited for in a thread of their own and interrupt no other: a
 * write that a signal interrupts is one that libfcgi takes for failed. */
static void *
signal_main(void *arg)
{
	const uint64_t one = 1;
	int sig;

	while (sigwait(arg, &sig) == 0 && sig == SIGHUP)
		log_reopen();
	log_debug("main", "stopping pid=%d signal=%d", (int)getpid(), sig);
	pthread_mutex_lock(&stopper.mutex);
	stopper.stopped = true;
	if (stopper.loop != NULL)
		follow_stop(stopper.loop);
	pthread_mutex_unlock(&stopper.mutex);
	(void)fd_write_full(stopper.event_fd, &one, sizeof one);
	sleep(STOP_S);
	log_warn("main", "ended while requests hung pid=%d", (int)getpid());
	_exit(EXIT_SUCCESS);
}

/* To be stopped by a signal from now on; NULL: not any more. */
static void
stopper_set(struct follow_loop *loop)
{
	pthread_mutex_lock(&stopper.mutex);
	stopper.loop = loop;
	if (stopper.stopped && loop != NULL)
		follow_stop(loop);
	pthread_mutex_unlock(&stopper.mutex);
}

static bool
thread_start(void *(*fn)(void *), void *arg, pthread_t *ret)
{
	pthread_attr_t attr;
	bool ok;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	ok = pthread_create(ret, &attr, fn, arg) == 0;
	pthread_attr_destroy(&attr);
	return ok;
}

static bool
stopper_start(void)
{
	static sigset_t set;
	pthread_t thread;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1); /* how a web server asks for a clean end */
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	stopper.event_fd = eventfd(0, EFD_CLOEXEC);
	if (stopper.event_fd < 0 || !thread_start(signal_main, &set, &thread))
		return false;
	pthread_detach(thread);
	return true;
}

/* ---- accepting ---- */

/* Threads take turns in accepting: who has a connection lets the next one
 * wait, and starts one when all are at work. */
static struct {
	pthread_mutex_t turn;	/* held while waiting for a connection */
	pthread_mutex_t mutex;	/* for what follows */
	unsigned count, busy;
	pthread_t threads[ACCEPTORS_MAX];
} acceptors = {
	.turn = PTHREAD_MUTEX_INITIALIZER,
	.mutex = PTHREAD_MUTEX_INITIALIZER,
};

/* A connection, or -1: we are to stop. */
static int
accept_next(void)
{
	struct pollfd pfd[2] = {
		{ .fd = LISTEN_FD, .events = POLLIN },
		{ .fd = stopper.event_fd, .events = POLLIN },
	};
	int fd;

	for (;;) {
		if (poll(pfd, 2, -1) < 0)
			continue;
		if (pfd[1].revents != 0)
			return -1;
		fd = accept4(LISTEN_FD, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			return fd;
		if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
			continue;
		/* Out of descriptors or memory: some come back. */
		log_error("main", "accept failed why=\"%s\"", strerror(errno));
		poll(&pfd[1], 1, 1000);
	}
}

static void *acceptor_main(void *arg);

/* mutex is held. */
static void
acceptor_start(struct responder *r)
{
	if (thread_start(acceptor_main, r,
	    &acceptors.threads[acceptors.count]))
		acceptors.count++;
}

static void *
acceptor_main(void *arg)
{
	struct responder *r = arg;
	struct client *c;
	int fd;

	for (;;) {
		pthread_mutex_lock(&acceptors.turn);
		fd = accept_next();
		pthread_mutex_unlock(&acceptors.turn);
		if (fd < 0)
			return NULL;
		pthread_mutex_lock(&acceptors.mutex);
		if (++acceptors.busy == acceptors.count &&
		    acceptors.count < ACCEPTORS_MAX)
			acceptor_start(r);
		pthread_mutex_unlock(&acceptors.mutex);
		if (client_fcgi(fd, &c) == RS_OK)
			route_serve(r, c);
		pthread_mutex_lock(&acceptors.mutex);
		acceptors.busy--;
		pthread_mutex_unlock(&acceptors.mutex);
	}
}

/* False: not one thread. */
static bool
acceptors_run(struct responder *r)
{
	bool any;
	int i;

	pthread_mutex_lock(&acceptors.mutex);
	for (i = 0; i < ACCEPTORS_MIN; i++)
		acceptor_start(r);
	any = acceptors.count > 0;
	pthread_mutex_unlock(&acceptors.mutex);
	return any;
}

static void
acceptors_join(void)
{
	unsigned i, n;

	/* Late ones may have started more: ask again. */
	for (i = 0;; i++) {
		pthread_mutex_lock(&acceptors.mutex);
		n = acceptors.count;
		pthread_mutex_unlock(&acceptors.mutex);
		if (i == n)
			return;
		pthread_join(acceptors.threads[i], NULL);
	}
}

/* ---- without a configuration or a spool ---- */

/* The reason goes to the log; a visitor learns only that it is not his. */
static void
refuse(struct client *c)
{
	const struct errtype_info *t = errtype_info(ERRTYPE_spool_unavailable);
	struct buf b;

	buf_init(&b, 4096);
	buf_printf(&b, "Status: %d Service Unavailable\r\n"
	    "Content-Type: application/json\r\n"
	    "Cache-Control: no-store\r\n"
	    "Access-Control-Allow-Origin: *\r\n"
	    "Retry-After: 30\r\n\r\n{\"error\":", t->status);
	jx_put_str(&b, t->text, strlen(t->text));
	buf_printf(&b, ",\"error_type\":\"%s\"}\n", t->name);
	client_write(c, b.data, b.len);
	client_finish(c);
	buf_done(&b);
}

/* Logs what is wrong when that is news. */
static bool
try_set_up(const char *conf_file, struct set_up *s, struct buf *last)
{
	struct buf why;
	bool ok, news;

	buf_init(&why, WHY_MAX);
	ok = set_up(conf_file, s, &why) == RS_OK;
	news = !ok && (why.len != last->len ||
	    memcmp(why.data, last->data, why.len) != 0);
	if (news) {
		buf_clear(last);
		buf_add(last, why.data, why.len);
		log_error("main", "cannot serve pid=%d why=\"%s\"",
		    (int)getpid(), one_line(&why));
	}
	buf_done(&why);
	return ok;
}

/* Sets up.  While that fails each request gets an answer and is an occasion
 * to try again: to leave would only have the web server start us over and
 * over.  False: we are to stop. */
static bool
set_up_or_refuse(const char *conf_file, struct set_up *s)
{
	struct client *c = NULL;
	struct buf last;
	int fd;

	buf_init(&last, WHY_MAX);
	while (!try_set_up(conf_file, s, &last)) {
		if (c != NULL)
			refuse(c);
		do
			fd = accept_next();
		while (fd >= 0 && client_fcgi(fd, &c) != RS_OK);
		if (fd < 0) {
			buf_done(&last);
			return false;
		}
	}
	buf_done(&last);
	if (c != NULL)
		route_serve(&s->r, c);
	return true;
}

/* ---- the two ways to run ---- */

static int
run_fastcgi(const char *conf_file)
{
	struct set_up s = { 0 };
	int status = EXIT_SUCCESS;

	if (FCGX_Init() != 0) {
		log_error("main", "libfcgi failed pid=%d", (int)getpid());
		return EXIT_FAILURE;
	}
	signal(SIGPIPE, SIG_IGN); /* FCGX_Init has set its own */
	fd_nonblock(LISTEN_FD);
	if (!set_up_or_refuse(conf_file, &s))
		return EXIT_SUCCESS;
	stopper_set(s.r.loop);
	log_debug("main", "started pid=%d", (int)getpid());
	if (acceptors_run(&s.r)) {
		follow_loop_run(s.r.loop, false);
		acceptors_join();
	} else {
		log_error("main", "no thread started pid=%d", (int)getpid());
		status = EXIT_FAILURE;
	}
	stopper_set(NULL);
	tear_down(&s);
	log_debug("main", "left pid=%d", (int)getpid());
	return status;
}

static int
run_cgi(const char *conf_file)
{
	struct set_up s = { 0 };
	struct client *c;
	struct buf last;
	bool ok;

	signal(SIGPIPE, SIG_IGN);
	if (client_cgi(&c) != RS_OK) {
		log_error("main", "not started why=\"%s\"",
		    rs_strerror(RS_ENOMEM));
		return EXIT_FAILURE;
	}
	buf_init(&last, WHY_MAX);
	ok = try_set_up(conf_file, &s, &last);
	buf_done(&last);
	if (!ok) {
		refuse(c);
		return EXIT_FAILURE;
	}
	stopper_set(s.r.loop);
	route_serve(&s.r, c);
	follow_loop_run(s.r.loop, true);
	stopper_set(NULL);
	tear_down(&s);
	return EXIT_SUCCESS;
}

/* ---- options ---- */

static void
usage(FILE *to)
{
	fputs("usage: respool.fcgi [-htV] [-c file]\n"
	    "Answers requests for LLM streams; a web server starts it, or\n"
	    "spawn-fcgi -s SOCKET -- respool.fcgi\n"
	    "  -c file  configuration\n"
	    "  -t       check the configuration, models, personas, templates, "
	    "triage\n"
	    "           rules and the key for tokens, print the settings\n"
	    "  -V, -h   print the version, this text\n", to);
}

/* Whole lines to stderr. */
static void
complain(struct buf *why)
{
	if (why->len == 0)
		return;
	if (why->data[why->len - 1] != '\n')
		buf_puts(why, "\n");
	fputs(why->data, stderr);
	buf_clear(why);
}

/* What templates and rules name must be there. */
static void
check_names(const struct conf *conf, const struct tmpl_set *templates,
    const struct triage *triage, const struct models *models,
    struct buf *why)
{
	const char *name, *template_name, *model;
	size_t i;

	for (i = 0; tmpl_names(templates, i, &name, &model); i++)
		if (model != NULL &&
		    models_find(models, model, strlen(model)) == NULL)
			buf_printf(why, "%s/%s.mustache: there is no model "
			    "%s\n", conf->templates_dir, name, model);
	for (i = 0; triage != NULL && triage_names(triage, i, &name,
	    &template_name, &model); i++) {
		if (template_name != NULL && tmpl_find(templates,
		    template_name, strlen(template_name)) == NULL)
			buf_printf(why, "%s: rules[%zu] (%s): there is no "
			    "template %s\n", conf->triage_file, i, name,
			    template_name);
		if (model != NULL &&
		    models_find(models, model, strlen(model)) == NULL)
			buf_printf(why, "%s: rules[%zu] (%s): there is no "
			    "model %s\n", conf->triage_file, i, name, model);
	}
}

/* The templates and the rules of triage. */
static enum rs_err
check_prompts(const struct conf *conf, struct models_file *file,
    struct buf *why)
{
	struct models *models = models_file_get(file);
	struct tmpl_set *templates = NULL;
	struct triage *triage = NULL;
	enum rs_err err, other = RS_OK;

	err = tmpl_load(conf->templates_dir, &templates, why);
	if (err == RS_OK)
		complain(why); /* warnings */
	if (conf->triage_file[0] != '\0')
		other = triage_load(conf->triage_file, &triage, why);
	if (err == RS_OK && other == RS_OK) {
		check_names(conf, templates, triage, models, why);
		if (why->len > 0)
			err = RS_EINVAL;
	}
	triage_free(triage);
	tmpl_set_free(templates);
	models_unref(models);
	return err != RS_OK ? err : other;
}

static enum rs_err
check_personas(const struct conf *conf, struct models_file *file,
    struct buf *why)
{
	struct models *models = models_file_get(file);
	struct personas *personas = NULL;
	enum rs_err err = personas_load(conf->personas_dir, &personas, why);

	if (err == RS_OK && personas_check(personas, models,
	    conf->default_persona, why) > 0)
		err = RS_EINVAL;
	personas_free(personas);
	models_unref(models);
	return err;
}

static enum rs_err
check_auth(const struct conf *conf, struct buf *why)
{
	const struct reload_kind *kind = auth_key_kind(conf);
	void *key = NULL;
	enum rs_err err = RS_OK;

	if (conf->owner_by == OWNER_BY_JWT)
		err = kind->load(conf->jwt_key_file, &key, why);
	kind->free(key);
	return err;
}

/* A log that goes elsewhere is no fault: all serves without it. */
static void
check_log_file(const struct conf *conf, struct buf *why)
{
	const char *slash = strrchr(conf->log_file, '/');
	char *dir = NULL;

	if (slash == NULL || conf->to_syslog)
		return;
	if (access(conf->log_file, W_OK) < 0 && (errno != ENOENT ||
	    (dir = strndup(conf->log_file, (size_t)(slash + 1 -
	    conf->log_file))) == NULL || access(dir, W_OK | X_OK) < 0))
		buf_printf(why, "log_file %s cannot be written to (%s): lines "
		    "go to standard error\n", conf->log_file,
		    strerror(errno));
	free(dir);
}

/* Prints what is in force, and says what is wrong. */
static int
check(const char *conf_file)
{
	struct models_file *models = NULL;
	struct conf *conf = NULL;
	struct buf why, out;
	enum rs_err err, other;

	buf_init(&why, WHY_MAX);
	buf_init(&out, 1 << 20);
	if ((err = conf_load(conf_file, &conf, &why)) != RS_OK)
		goto out;
	complain(&why); /* warnings */
	conf_print(conf, &out);
	if (out.len > 0)
		fputs(out.data, stdout);
	err = models_file_open(conf->models_file, &models, &why);
	if (err == RS_OK) {
		struct models *m = models_file_get(models);

		quota_warn(conf, m, &why);
		models_unref(m);
		err = check_prompts(conf, models, &why);
		other = check_personas(conf, models, &why);
		if (err == RS_OK)
			err = other;
	}
	if ((other = check_auth(conf, &why)) != RS_OK)
		err = other;
	check_log_file(conf, &why);
out:
	if (err != RS_OK && why.len == 0)
		buf_puts(&why, rs_strerror(err));
	complain(&why);
	models_file_free(models);
	conf_free(conf);
	buf_done(&out);
	buf_done(&why);
	return err == RS_OK && fflush(stdout) == 0 ? EXIT_SUCCESS :
	    EXIT_FAILURE;
}

/* A file that we open must not become one of these three. */
static void
open_standard_fds(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int
main(int argc, char **argv)
{
	/* A CGI program's arguments come from the query of whoever asks. */
	bool request = getenv("REQUEST_METHOD") != NULL, only_check = false;
	const char *conf_file = NULL;
	int ch;

	open_standard_fds();
	while (!request && (ch = getopt(argc, argv, "c:htV")) != -1) {
		switch (ch) {
		case 'c':
			conf_file = optarg;
			break;
		case 'h':
			usage(stdout);
			return EXIT_SUCCESS;
		case 't':
			only_check = true;
			break;
		case 'V':
			printf("respool.fcgi %s\n", PACKAGE_VERSION);
			return EXIT_SUCCESS;
		default:
			usage(stderr);
			return EXIT_FAILURE;
		}
	}
	if (!request && optind < argc) {
		usage(stderr);
		return EXIT_FAILURE;
	}
	if (only_check)
		return check(conf_file);
	/* Closing a connection must not wait for the web server to do so. */
	setenv("LIBFCGI_OS_CLOSE_POLL_TIMEOUT", "0", 1);
	if (FCGX_IsCGI() && !request) {
		fputs("respool.fcgi: neither a FastCGI socket as standard "
		    "input nor a CGI request\n", stderr);
		usage(stderr);
		return EXIT_FAILURE;
	}
	fd_raise_limit();
	if (!stopper_start()) {
		log_error("main", "not started why=\"%s\"", strerror(errno));
		return EXIT_FAILURE;
	}
	return FCGX_IsCGI() ? run_cgi(conf_file) : run_fastcgi(conf_file);
}
