/* ctl_models.c - respoolctl models: what there is, what is wrong with it, and
 * whether it answers. */
#include <json-c/json.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "ctl.h"
#include "exec.h"
#include "gen_ask.h"
#include "http.h"
#include "log.h"
#include "loop.h"
#include "model.h"
#include "money.h"

#define CELL_SIZE_MAX 4096
#define FAULTS_SIZE_MAX (1 << 20)
#define PER_MILLION 1000000

static enum rs_err
load(const struct ctl *ctl, struct models **ret)
{
	struct buf why;
	enum rs_err err;

	buf_init(&why, FAULTS_SIZE_MAX);
	err = models_load(ctl->conf->models_file, ret, &why);
	if (why.len > 0)
		fputs(why.data, stderr);
	else if (err != RS_OK)
		ctl_fail(ctl->conf->models_file, rs_strerror(err));
	buf_done(&why);
	return err;
}

static bool
has_key(const struct model *m)
{
	return m->api_key_env != NULL || m->api_key_file != NULL;
}

/* What model_key says, without the key. */
static enum rs_err
key_state(const struct model *m)
{
	char *key = NULL;
	enum rs_err err = model_key(m, &key);

	if (key != NULL)
		explicit_bzero(key, strlen(key));
	free(key);
	return err;
}

/* ---- list ---- */

static void
put_price(struct buf *b, uint64_t price)
{
	if (price == MONEY_UNKNOWN)
		buf_puts(b, "-");
	else
		money_put(b, money_mul(PER_MILLION, price));
}

static void
put_name(struct buf *b, const struct models *all, const struct model *m)
{
	(void)all;
	buf_puts(b, m->name);
}

static void
put_provider(struct buf *b, const struct models *all, const struct model *m)
{
	(void)all;
	buf_puts(b, provider_name(m->provider));
}

static void
put_upstream(struct buf *b, const struct models *all, const struct model *m)
{
	(void)all;
	buf_puts(b, m->base_url == NULL ? "-" : m->upstream_model);
}

static void
put_key(struct buf *b, const struct models *all, const struct model *m)
{
	enum rs_err err = key_state(m);

	(void)all;
	buf_puts(b, !has_key(m) ? "-" : err == RS_OK ? "present" :
	    err == RS_ENOENT ? "missing" : "unusable");
}

static void
put_input(struct buf *b, const struct models *all, const struct model *m)
{
	(void)all;
	put_price(b, m->prices.input);
}

static void
put_cache_read(struct buf *b, const struct models *all, const struct model *m)
{
	(void)all;
	put_price(b, m->prices.cache_read);
}

static void
put_cache_write(struct buf *b, const struct models *all, const struct model *m)
{
	(void)all;
	put_price(b, m->prices.cache_write);
}

static void
put_output(struct buf *b, const struct models *all, const struct model *m)
{
	(void)all;
	put_price(b, m->prices.output);
}

static void
put_notes(struct buf *b, const struct models *all, const struct model *m)
{
	size_t i;

	if (m == all->def)
		buf_puts(b, "default");
	if (m->hidden)
		buf_puts(b, b->len > 0 ? " hidden" : "hidden");
	for (i = 0; i < m->fallback_count; i++)
		buf_printf(b, "%s%s", i > 0 ? "," : b->len > 0 ? " fallback=" :
		    "fallback=", m->fallback[i]->name);
}

static const struct column {
	const char *head;
	void (*put)(struct buf *b, const struct models *all,
	    const struct model *m);
} columns[] = {
	{ "NAME", put_name }, { "PROVIDER", put_provider },
	{ "UPSTREAM", put_upstream }, { "KEY", put_key },
	{ "INPUT", put_input }, { "CACHE_READ", put_cache_read },
	{ "CACHE_WRITE", put_cache_write }, { "OUTPUT", put_output },
	{ "NOTES", put_notes },
};
#define COLUMN_COUNT (sizeof columns / sizeof columns[0])

/* m NULL: the head. */
static void
cell_put(struct buf *b, size_t column, const struct models *all,
    const struct model *m)
{
	buf_clear(b);
	if (m == NULL)
		buf_puts(b, columns[column].head);
	else
		columns[column].put(b, all, m);
}

static void
line_print(const struct models *all, const struct model *m,
    const size_t widths[COLUMN_COUNT])
{
	struct buf b;
	int pad = 0;
	size_t i;

	buf_init(&b, CELL_SIZE_MAX);
	for (i = 0; i < COLUMN_COUNT; i++) {
		cell_put(&b, i, all, m);
		if (b.len > 0)
			printf("%s%*s%s", i > 0 ? " " : "", pad, "", b.data);
		pad = (int)(widths[i] - b.len);
	}
	putchar('\n');
	buf_done(&b);
}

static void
list_print(const struct models *all)
{
	size_t widths[COLUMN_COUNT] = { 0 }, i, k;
	struct buf b;

	buf_init(&b, CELL_SIZE_MAX);
	for (i = 0; i < COLUMN_COUNT; i++) {
		widths[i] = strlen(columns[i].head);
		for (k = 0; k < all->count; k++) {
			cell_put(&b, i, all, &all->all[k]);
			widths[i] = b.len > widths[i] ? b.len : widths[i];
		}
	}
	buf_done(&b);
	line_print(all, NULL, widths);
	for (k = 0; k < all->count; k++)
		line_print(all, &all->all[k], widths);
	puts("prices in USD per million tokens; -: not known");
}

/* ---- check ---- */

struct check {
	const struct models *all;
	unsigned faults, warnings;
};

static void say(const struct model *m, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void
say(const struct model *m, const char *what, const char *fmt, ...)
{
	va_list ap;

	printf("%s: %s", m->name, what);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

#define FAULT(c, m, ...) ((c)->faults++, say((m), "", __VA_ARGS__))
#define WARN(c, m, ...) ((c)->warnings++, say((m), "warning: ", __VA_ARGS__))

static void
check_key(struct check *c, const struct model *m)
{
	const char *env = m->api_key_env, *file = m->api_key_file;
	enum rs_err err = key_state(m);

	if (err == RS_ENOENT && file == NULL)
		FAULT(c, m, "the environment variable %s is not set here; the "
		    "spooler must have it", env);
	else if (err == RS_ENOENT)
		FAULT(c, m, "the key file %s is not there", file);
	else if (err == RS_EPERM)
		FAULT(c, m, "the key file %s must be readable by its owner, "
		    "who runs the spooler, and by nobody else: chmod 600",
		    file);
	else if (err == RS_EINVAL)
		FAULT(c, m, "the key is not one line of visible ASCII");
	else if (err != RS_OK)
		FAULT(c, m, "the key cannot be read: %s", rs_strerror(err));
	if (has_key(m) && m->auth == AUTH_NONE)
		WARN(c, m, "auth is none, so that its key is not used");
	else if (has_key(m) && model_in_clear(m))
		WARN(c, m, "its key crosses the network in the clear");
	else if (!has_key(m) && m->auth != AUTH_NONE && m->base_url != NULL &&
	    strncmp(m->base_url, "https://", 8) == 0)
		WARN(c, m, "no key is configured; auth none says that it needs "
		    "none");
}

static bool
has_prices(const struct model *m)
{
	return m->prices.input != MONEY_UNKNOWN &&
	    m->prices.output != MONEY_UNKNOWN;
}

static void
check_prices(struct check *c, const struct model *m)
{
	size_t i;

	if (!has_prices(m))
		WARN(c, m, "without prices of input and output its costs are "
		    "not known");
	else if (m->base_url != NULL &&
	    m->prices.cache_read == MONEY_UNKNOWN)
		WARN(c, m, "without a price of cache_read the cost of an "
		    "answer from a cached prompt is not known");
	else if (m->provider == PROVIDER_ANTHROPIC &&
	    m->prices.cache_write == MONEY_UNKNOWN)
		WARN(c, m, "without a price of cache_write the cost of an "
		    "answer that filled a cache is not known");
	for (i = 0; has_prices(m) && i < m->fallback_count; i++)
		if (!has_prices(m->fallback[i]))
			WARN(c, m, "its fallback %s has no prices",
			    m->fallback[i]->name);
}

static void
check_parameters(struct check *c, const struct model *m)
{
	if (m->parameters == NULL)
		return;
	json_object_object_foreach(m->parameters, name, value) {
		(void)value;
		if (!model_param_known(name))
			WARN(c, m, "respool does not know the parameter %s and "
			    "passes it on as it is", name);
	}
}

static void
check_command(struct check *c, const struct model *m)
{
	const char *program;

	if (m->exec.command == NULL)
		return;
	program = m->exec.command[0];
	if (strchr(program, '/') != NULL && access(program, X_OK) != 0)
		FAULT(c, m, "%s cannot be run", program);
	if (m->exec.cwd != NULL && access(m->exec.cwd, X_OK) != 0)
		FAULT(c, m, "%s cannot be its directory", m->exec.cwd);
}

/* ---- ping ---- */

struct ping {
	bool over;
	enum errtype error;
	enum finish finish;
	uint64_t began_ns, first_ns;	/* 0: nothing came */
};

static void
ping_delta(void *arg, const struct delta *d)
{
	struct ping *p = arg;

	if (d->kind == DELTA_ERROR)
		p->error = d->error.type;
	else if (d->kind == DELTA_FINISH)
		p->finish = d->finish;
	else if (p->first_ns == 0 && d->kind != DELTA_USAGE)
		p->first_ns = clock_mono_ns();
	p->over = d->kind == DELTA_ERROR || d->kind == DELTA_FINISH;
}

static void
ping_told(void *arg)
{
	(void)arg;
}

static unsigned long long
ms_since(uint64_t ns)
{
	return (clock_mono_ns() - ns) / NS_PER_MS;
}

/* What the upstream said, on one line and without the key; "" when it said
 * nothing. */
static const char *
redacted(const struct model *m, const char *message,
    char ret[LOG_QUOTE_SIZE])
{
	char *text = strdup(message), *key = NULL, *at;

	ret[0] = '\0';
	if (text == NULL || model_key(m, &key) != RS_OK)
		goto out;
	while (key != NULL && (at = strstr(text, key)) != NULL)
		memset(at, '*', strlen(key));
	if (text[0] != '\0')
		log_quote(ret, text, strlen(text));
out:
	if (key != NULL)
		explicit_bzero(key, strlen(key));
	free(key);
	free(text);
	return ret;
}

static void
ping_print(struct check *c, const struct model *m, const struct ping *p,
    const struct failure *f)
{
	char message[LOG_QUOTE_SIZE];

	if (p->error == ERRTYPE_none)
		say(m, "ok", " first_ms=%llu total_ms=%llu finish=%s",
		    p->first_ns == 0 ? ms_since(p->began_ns) :
		    (unsigned long long)((p->first_ns - p->began_ns) /
		    NS_PER_MS), ms_since(p->began_ns), finish_name(p->finish));
	else
		FAULT(c, m, "%s after %llu ms %s",
		    errtype_info(p->error)->name, ms_since(p->began_ns),
		    redacted(m, f->message, message));
}

/* The model as it is, but for one token and one attempt. */
static enum rs_err
ping_one(struct check *c, const struct model *m, struct ask_env *env)
{
	static const struct ask_events events = { ping_delta, ping_told };
	struct json_object *messages = json_tokener_parse(
	    "[{\"role\":\"user\",\"content\":\"Say hi.\"}]");
	struct json_object *parameters = json_tokener_parse(
	    "{\"max_tokens\":1}");
	struct ping p = { .began_ns = clock_mono_ns() };
	struct model once = *m;
	struct ask *ask = NULL;
	enum rs_err err = RS_ENOMEM;

	once.retries = 0;
	once.fallback_count = 0;
	env->failure.message[0] = '\0';
	if (messages != NULL && parameters != NULL)
		err = ask_new(env, &once, messages, parameters, "ping",
		    &events, &p, &ask);
	while (err == RS_OK && !p.over) {
		uint64_t due = ask_due_ns(ask), now = clock_mono_ns();

		if (due <= now)
			ask_run(ask);
		else
			loop_turn(env->loop, due - now > NS_PER_S ? 1000 :
			    (int)((due - now) / NS_PER_MS) + 1);
	}
	if (err == RS_OK)
		ping_print(c, m, &p, &env->failure);
	ask_free(ask);
	json_object_put(parameters);
	json_object_put(messages);
	return err;
}

static enum rs_err
ping_all(const struct ctl *ctl, struct check *c)
{
	struct ask_env env = { .ca_file = ctl->conf->ca_file };
	struct loop loop;
	enum rs_err err;
	size_t i;

	signal(SIGPIPE, SIG_IGN); /* a command need not read its input */
	/* What goes wrong is printed. */
	log_open(LOGL_ERROR, "");
	err = loop_init(&loop);
	env.loop = &loop;
	for (i = 0; i < c->all->count && err == RS_OK; i++)
		if (key_state(&c->all->all[i]) == RS_OK)
			err = ping_one(c, &c->all->all[i], &env);
	exec_end_all();
	http_free(env.http);
	breakers_done(&env.breakers);
	loop_done(&loop);
	return err;
}

static int
check(struct ctl *ctl, bool ping)
{
	struct check c = { .all = NULL };
	struct models *all;
	enum rs_err err = RS_OK;
	size_t i;

	if (load(ctl, &all) != RS_OK)
		return CTL_FAULT;
	c.all = all;
	for (i = 0; i < all->count; i++) {
		check_key(&c, &all->all[i]);
		check_prices(&c, &all->all[i]);
		check_parameters(&c, &all->all[i]);
		check_command(&c, &all->all[i]);
	}
	if (ping)
		err = ping_all(ctl, &c);
	printf("models %zu, faults %u, warnings %u\n", all->count, c.faults,
	    c.warnings);
	models_unref(all);
	if (err != RS_OK)
		return ctl_fail("ping", rs_strerror(err));
	return c.faults == 0 ? EXIT_SUCCESS : CTL_FAULT;
}

int
ctl_models(struct ctl *ctl, int argc, char **argv)
{
	struct models *all;
	bool ping = argc == 2 && strcmp(argv[1], "--ping") == 0;

	if (argc > 0 && (strcmp(argv[0], "check") != 0 ||
	    argc > 1 + (int)ping)) {
		ctl_fail("models", "unknown argument");
		return CTL_USAGE;
	}
	if (argc > 0)
		return check(ctl, ping);
	if (load(ctl, &all) != RS_OK)
		return CTL_FAULT;
	list_print(all);
	models_unref(all);
	return EXIT_SUCCESS;
}
