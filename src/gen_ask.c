/* gen_ask.c - a model asked for an answer.
 *
 * An attempt begins (NEXT), and its steps are those of HTTP: CONNECT, HEADERS,
 * FIRST (no content yet), CONTENT; a command has FIRST and CONTENT only, and
 * the demo its own.  When it fails before any content, the same model is asked
 * again after a pause (PAUSE), as often as its entry allows; then the models of
 * its fallback list; a model whose circuit is open is passed over. */
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "buf.h"
#include "clock.h"
#include "exec.h"
#include "gen_ask.h"
#include "http.h"
#include "jx.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "provider.h"
#include "text.h"

#define DEMO_RUN_MAX 256	/* deltas that one ask_run tells */
#define PAUSE_FIRST_MS 500	/* doubles with each retry, up to ... */
#define PAUSE_MAX_MS 8000	/* less up to a quarter, by chance */
#define WAIT_MAX_MS 60000	/* an upstream that wants more is given up */
#define EXEC_INPUT_MAX (64 << 20)
#define KEY_PART 16		/* bytes: who has them has seen the key, whose
				 * rest may have been cut off */

#define ASK_STEPS(X)                                                   \
	X(NEXT, next)		/* begins an attempt when due */       \
	X(PAUSE, pause)		/* before a retry */                   \
	X(DEMO, demo)                                                  \
	X(CONNECT, connect)	/* libcurl watches the time */         \
	X(HEADERS, headers)                                            \
	X(FIRST, first)		/* nothing but the first content... */ \
	X(CONTENT, content)	/* ... and each one after it counts */ \
	X(FAILED, failed)	/* env->failure says why */            \
	X(OVER, over)		/* the last delta was told */

enum ask_step {
#define X(name, text) ASK_##name,
	ASK_STEPS(X)
#undef X
};

static const char *const ask_step_names[] = {
#define X(name, text) #text,
	ASK_STEPS(X)
#undef X
};

struct ask {
	struct ask_env *env;
	const struct ask_events *ev;
	void *arg;
	const char *stream_id;		/* the owner's */
	struct json_object *messages;	/* NULL once content has come */
	struct json_object *parameters;
	const struct model *asked;	/* that the client wants */
	const struct model *model;	/* that is tried */
	size_t fallback;		/* of asked's list, the next one */
	unsigned attempts;		/* of model, begun */
	enum ask_step step;
	bool trial;			/* of the model's circuit */
	bool held;			/* breaker_allows wants its answer */
	bool has_usage;			/* an attempt has told some */
	uint64_t due_ns;		/* of the step */
	uint64_t total_ns;		/* of the attempt */
	uint64_t began_ns;		/* the attempt */
	struct demo *demo;
	struct http_call *call;
	struct exec *exec;
	struct answer *answer;
	struct http_head *head;		/* NULL: it has not come */
	struct buf body;		/* of a response that is no answer */
	char request_id[FAILURE_WORD_MAX];
	const char *why;		/* libcurl's word for a failure, or "" */
};

static void
ask_enter(struct ask *k, enum ask_step to)
{
	char model[LOG_QUOTE_SIZE];

	log_debug("gen", "stream=%s model=%s %s -> %s", k->stream_id,
	    log_quote(model, k->model->name, strlen(k->model->name)),
	    ask_step_names[k->step], ask_step_names[to]);
	k->step = to;
}

/* The step must not last longer than ms; 0: it may. */
static void
ask_limit(struct ask *k, uint64_t ms)
{
	k->due_ns = ms == 0 ? UINT64_MAX : clock_mono_ns() + ms * NS_PER_MS;
}

enum rs_err
ask_new(struct ask_env *env, const struct model *model,
    struct json_object *messages, struct json_object *parameters,
    const char *stream_id, const struct ask_events *ev, void *arg,
    struct ask **ret)
{
	struct ask *k = calloc(1, sizeof *k);

	if (k == NULL)
		return RS_ENOMEM;
	k->env = env;
	k->ev = ev;
	k->arg = arg;
	k->stream_id = stream_id;
	k->messages = json_object_get(messages);
	k->parameters = json_object_get(parameters);
	k->asked = k->model = model;
	k->due_ns = clock_mono_ns();
	k->total_ns = UINT64_MAX;
	buf_init(&k->body, FAILURE_BODY_MAX);
	*ret = k;
	return RS_OK;
}

/* What an attempt holds; its outcome is known, or of no interest. */
static void
attempt_close(struct ask *k)
{
	if (k->held)
		breaker_forget(&k->env->breakers, k->model->name, k->trial);
	k->held = false;
	if (k->call != NULL && k->step == ASK_OVER &&
	    answer_over(k->answer))
		http_let_go(k->call);
	else
		http_cancel(k->call);
	k->call = NULL;
	exec_kill(k->exec);
	k->exec = NULL;
	answer_free(k->answer);
	k->answer = NULL;
	demo_free(k->demo);
	k->demo = NULL;
	free(k->head);
	k->head = NULL;
	buf_done(&k->body);
	buf_init(&k->body, FAILURE_BODY_MAX);
	k->total_ns = UINT64_MAX;
}

void
ask_free(struct ask *k)
{
	if (k == NULL)
		return;
	attempt_close(k);
	json_object_put(k->messages);
	json_object_put(k->parameters);
	free(k);
}

const struct model *
ask_model(const struct ask *k)
{
	return k->model;
}

/* ---- how an attempt ends ---- */

/* Of the attempt, for a reason of our own. */
static void
attempt_fail(struct ask *k, enum errtype type)
{
	k->env->failure = (struct failure){
		.type = type, .retryable = errtype_info(type)->retryable &&
		    type != ERRTYPE_total_timeout && type != ERRTYPE_exec_failed,
		.wait_ms = FAILURE_NO_WAIT,
	};
	ask_enter(k, ASK_FAILED);
}

static void
word_copy(char to[FAILURE_WORD_MAX], const char *from)
{
	size_t len = from == NULL ? 0 : strlen(from);

	if (len >= FAILURE_WORD_MAX)
		len = utf8_cut(from, len, FAILURE_WORD_MAX - 1);
	memcpy(to, from == NULL ? "" : from, len);
	to[len] = '\0';
}

/* The deltas of an answer, on their way to our owner. */
static void
on_delta(void *arg, const struct delta *d)
{
	struct ask *k = arg;
	struct failure *f = &k->env->failure;

	if (k->step == ASK_OVER || k->step == ASK_FAILED)
		return;
	switch (d->kind) {
	case DELTA_ERROR:
		attempt_fail(k, d->error.type);
		word_copy(f->upstream_type, d->error.upstream_type);
		word_copy(f->upstream_code, d->error.upstream_code);
		return;
	case DELTA_FINISH:
		breaker_worked(&k->env->breakers, k->model->name, k->trial);
		k->held = false;
		ask_enter(k, ASK_OVER);
		break;
	case DELTA_USAGE:
		k->has_usage = true;
		break;
	default:
		if (d->len == 0 && d->kind != DELTA_TOOL_CALL)
			return;
		json_object_put(k->messages);
		json_object_put(k->parameters);
		k->messages = k->parameters = NULL;
		if (k->step == ASK_FIRST)
			ask_enter(k, ASK_CONTENT);
		if (k->step == ASK_CONTENT && k->call != NULL)
			ask_limit(k, k->model->timeouts.idle);
		break;
	}
	k->ev->delta(k->arg, d);
}

/* How long before the next attempt of this model; false: there is none. */
static bool
retry_pause(const struct ask *k, uint64_t *ret_ms)
{
	const struct failure *f = &k->env->failure;
	uint64_t ms = PAUSE_MAX_MS;

	if (!f->retryable || k->attempts > k->model->retries)
		return false;
	if (f->wait_ms != FAILURE_NO_WAIT) {
		*ret_ms = f->wait_ms;
		return f->wait_ms <= WAIT_MAX_MS;
	}
	if (k->attempts < 5)
		ms = (uint64_t)PAUSE_FIRST_MS << (k->attempts - 1);
	*ret_ms = ms - clock_mono_ns() % (ms / 4);
	return true;
}

static void
usage_take_back(struct ask *k)
{
	struct delta d = { .kind = DELTA_USAGE, .usage = {
		TOKENS_UNKNOWN, TOKENS_UNKNOWN, TOKENS_UNKNOWN, TOKENS_UNKNOWN,
		TOKENS_UNKNOWN,
	} };

	if (k->has_usage)
		k->ev->delta(k->arg, &d);
	k->has_usage = false;
}

static void
tell_failure(struct ask *k)
{
	const struct failure *f = &k->env->failure;
	struct delta d = { .kind = DELTA_ERROR, .error = {
		.type = f->type,
		.upstream_type = f->upstream_type[0] != '\0' ?
		    f->upstream_type : NULL,
		.upstream_code = f->upstream_code[0] != '\0' ?
		    f->upstream_code : NULL,
	} };

	ask_enter(k, ASK_OVER);
	k->ev->delta(k->arg, &d);
}

/* An upstream may repeat the prompt where its word for an error belongs. */
static const char *
word_for_log(const char *word)
{
	return word[0] == '\0' || failure_word_known(word) ? word : "other";
}

static void
log_failure(const struct ask *k, const char *next, uint64_t wait_ms)
{
	const struct failure *f = &k->env->failure;
	char model[LOG_QUOTE_SIZE], why[LOG_QUOTE_SIZE], id[LOG_QUOTE_SIZE];

	log_warn("gen", "stream=%s attempt failed model=%s attempt=%u "
	    "reason=%s why=%s status=%u upstream_type=\"%s\" "
	    "upstream_code=\"%s\" request_id=%s next=%s wait_ms=%llu "
	    "total_ms=%llu", k->stream_id,
	    log_quote(model, k->model->name, strlen(k->model->name)),
	    k->attempts, errtype_info(f->type)->name,
	    log_quote(why, k->why, strlen(k->why)),
	    k->head != NULL ? k->head->status : 0,
	    word_for_log(f->upstream_type), word_for_log(f->upstream_code),
	    log_quote(id, k->request_id, strlen(k->request_id)), next,
	    (unsigned long long)wait_ms,
	    (unsigned long long)((clock_mono_ns() - k->began_ns) / NS_PER_MS));
}

/* An upstream's word is for clients, unless it has the key in it, or is a
 * page. */
static void
word_redact(const struct ask *k, char word[FAILURE_WORD_MAX])
{
	char *key = NULL;
	size_t len;

	if (strpbrk(word, "<>") != NULL)
		word[0] = '\0';
	if (word[0] == '\0' || model_key(k->model, &key) != RS_OK ||
	    key == NULL)
		return;
	len = strlen(key);
	if (memmem(word, strlen(word), key, len < KEY_PART ? len : KEY_PART))
		word[0] = '\0';
	explicit_bzero(key, len);
	free(key);
}

/* An attempt has failed: what now? */
static void
attempt_failed(struct ask *k)
{
	struct failure *f = &k->env->failure;
	bool may_try = k->messages != NULL;
	char model[LOG_QUOTE_SIZE];
	uint64_t ms;

	word_redact(k, f->upstream_type);
	word_redact(k, f->upstream_code);
	if (k->held && f->retryable && breaker_failed(&k->env->breakers,
	    k->model->name, k->trial, clock_mono_ns()))
		log_error("gen", "stream=%s opened the circuit model=%s",
		    k->stream_id, log_quote(model, k->model->name,
		    strlen(k->model->name)));
	else if (k->held)
		breaker_forget(&k->env->breakers, k->model->name, k->trial);
	k->held = false;
	if (may_try && retry_pause(k, &ms)) {
		log_failure(k, "retry", ms);
		metrics_add(METRIC_upstream_retries_total, 1);
		usage_take_back(k);
		ask_enter(k, ASK_PAUSE);
		ask_limit(k, ms + 1);
	} else if (may_try && k->fallback < k->asked->fallback_count) {
		log_failure(k, "fallback", 0);
		metrics_add(METRIC_upstream_fallbacks_total, 1);
		usage_take_back(k);
		attempt_close(k);
		k->model = k->asked->fallback[k->fallback++];
		k->attempts = 0;
		ask_enter(k, ASK_NEXT);
		k->due_ns = clock_mono_ns();
		return;
	} else {
		log_failure(k, "none", 0);
		tell_failure(k);
	}
	attempt_close(k);
}

/* After everything that can end an attempt. */
static void
ask_settle(struct ask *k)
{
	if (k->step == ASK_FAILED)
		attempt_failed(k);
	else if (k->step == ASK_OVER)
		attempt_close(k);
}

/* ---- HTTP ---- */

static void
on_connected(void *arg)
{
	struct ask *k = arg;

	ask_enter(k, ASK_HEADERS);
	ask_limit(k, k->model->timeouts.headers);
	k->ev->told(k->arg);
}

static void
on_head(void *arg, const struct http_head *head)
{
	struct ask *k = arg;
	char model[LOG_QUOTE_SIZE], id[LOG_QUOTE_SIZE];

	word_copy(k->request_id, head->request_id);
	word_redact(k, k->request_id);
	log_info("gen", "stream=%s was answered model=%s status=%u "
	    "request_id=%s", k->stream_id,
	    log_quote(model, k->model->name, strlen(k->model->name)),
	    head->status,
	    log_quote(id, k->request_id, strlen(k->request_id)));
	k->head = malloc(sizeof *k->head);
	if (k->head == NULL)
		attempt_fail(k, ERRTYPE_internal);
	else
		*k->head = *head;
	if (k->step != ASK_FAILED && head->status == 200) {
		ask_enter(k, ASK_FIRST);
		ask_limit(k, k->model->timeouts.first_content);
	}
	ask_settle(k);
	k->ev->told(k->arg);
}

/* A response that is no answer, as far as it came. */
static void
refused(struct ask *k)
{
	failure_read(k->head, k->body.data, k->body.len, &k->env->failure);
	ask_enter(k, ASK_FAILED);
}

static void
on_data(void *arg, const char *p, size_t n)
{
	size_t room;
	struct ask *k = arg;

	if (k->head->status == 200) {
		answer_feed(k->answer, p, n);
	} else {
		room = FAILURE_BODY_MAX - k->body.len;
		buf_add(&k->body, p, n < room ? n : room);
		if (n >= room)
			refused(k);
	}
	ask_settle(k);
	k->ev->told(k->arg);
}

static void
on_over(void *arg, enum errtype why)
{
	struct ask *k = arg;

	k->call = NULL;
	k->why = http_why(k->env->http);
	if (k->head == NULL) {
		attempt_fail(k, why == ERRTYPE_none ?
		    ERRTYPE_upstream_truncated : why);
	} else if (k->head->status != 200) {
		refused(k);
	} else {
		answer_end(k->answer, why == ERRTYPE_none);
	}
	ask_settle(k);
	k->ev->told(k->arg);
}

static const struct http_events http_events = {
	.connected = on_connected, .head = on_head, .data = on_data,
	.over = on_over,
};

static enum rs_err
http_begin(struct ask *k, const char *key)
{
	const struct provider *p = provider_get(k->model);
	struct chat chat = {
		.model = k->model, .messages = k->messages,
		.parameters = k->parameters, .key = key,
	};
	struct http_req req;
	enum rs_err err;

	if (k->env->http == NULL && (err = http_new(k->env->loop,
	    k->env->ca_file, &k->env->http)) != RS_OK)
		return err;
	http_req_init(&req);
	if ((err = p->request(&chat, &req)) == RS_OK)
		err = http_start(k->env->http, &req,
		    k->model->timeouts.connect, &http_events, k, &k->call);
	http_req_done(&req);
	return err;
}

static void
http_attempt(struct ask *k)
{
	char *key = NULL, model[LOG_QUOTE_SIZE];
	enum rs_err err;

	if ((err = model_key(k->model, &key)) != RS_OK) {
		log_error("gen", "stream=%s found no key model=%s why=\"%s\"",
		    k->stream_id, log_quote(model, k->model->name,
		    strlen(k->model->name)), rs_strerror(err));
		attempt_fail(k, ERRTYPE_auth);
		return;
	}
	err = http_begin(k, key);
	if (key != NULL)
		explicit_bzero(key, strlen(key));
	free(key);
	if (err == RS_OK)
		ask_enter(k, ASK_CONNECT);
	else
		attempt_fail(k, err == RS_EINVAL ? ERRTYPE_bad_request :
		    ERRTYPE_internal);
}

/* ---- a command ---- */

static void
on_output(void *arg, const char *p, size_t n)
{
	struct ask *k = arg;

	answer_feed(k->answer, p, n);
	ask_settle(k);
	k->ev->told(k->arg);
}

static void
on_exit_of(void *arg, bool ok)
{
	struct ask *k = arg;

	k->exec = NULL;
	if (ok)
		answer_end(k->answer, true);
	else
		attempt_fail(k, ERRTYPE_exec_failed);
	ask_settle(k);
	k->ev->told(k->arg);
}

static const struct exec_events exec_events = {
	.data = on_output, .over = on_exit_of,
};

/* What a command reads: the last message of the user, or for JSON lines one
 * object with them all. */
static void
exec_input(const struct ask *k, struct buf *b)
{
	const char *role, *text;
	size_t i, len;

	if (k->model->exec.format == EXEC_JSONL) {
		buf_puts(b, "{\"messages\":");
		jx_put(b, k->messages);
		buf_puts(b, "}\n");
		return;
	}
	for (i = json_object_array_length(k->messages); i-- > 0;) {
		struct json_object *o =
		    json_object_array_get_idx(k->messages, i);

		if (jx_get_str(o, "role", &role, &len) != RS_OK ||
		    strcmp(role, "user") != 0 ||
		    jx_get_str(o, "content", &text, &len) != RS_OK)
			continue;
		buf_add(b, text, len);
		return;
	}
}

static void
exec_attempt(struct ask *k)
{
	char model[LOG_QUOTE_SIZE];
	enum rs_err err;
	struct buf b;

	buf_init(&b, EXEC_INPUT_MAX);
	exec_input(k, &b);
	err = b.err;
	if (err == RS_OK)
		err = exec_start(k->env->loop, &k->model->exec,
		    k->model->name, k->stream_id, b.data, b.len, &exec_events,
		    k, &k->exec);
	buf_done(&b);
	if (err == RS_OK) {
		ask_enter(k, ASK_FIRST);
		k->due_ns = UINT64_MAX;
		return;
	}
	log_error("gen", "stream=%s started no command model=%s why=\"%s\"",
	    k->stream_id, log_quote(model, k->model->name,
	    strlen(k->model->name)), rs_strerror(err));
	attempt_fail(k, ERRTYPE_exec_failed);
}

/* ---- the demo ---- */

static void
demo_attempt(struct ask *k)
{
	if (demo_new(&k->model->demo, k->messages, &k->demo) != RS_OK) {
		attempt_fail(k, ERRTYPE_internal);
		return;
	}
	ask_enter(k, ASK_DEMO);
}

static void
demo_run(struct ask *k)
{
	uint64_t ms = (clock_mono_ns() - k->began_ns) / NS_PER_MS;
	struct delta d;
	int n;

	for (n = 0; n < DEMO_RUN_MAX && k->step == ASK_DEMO &&
	    demo_due_ms(k->demo) <= ms; n++) {
		demo_next(k->demo, &d);
		on_delta(k, &d);
	}
}

/* ---- attempts ---- */

static void
attempt_begin(struct ask *k)
{
	const struct model *m = k->model;
	char name[LOG_QUOTE_SIZE];

	k->began_ns = clock_mono_ns();
	k->due_ns = UINT64_MAX;
	k->request_id[0] = '\0';
	k->why = "";
	k->attempts++;
	k->held = m->provider != PROVIDER_DEMO && breaker_allows(
	    &k->env->breakers, m->name, k->began_ns, &k->trial);
	if (!k->held && m->provider != PROVIDER_DEMO) {
		attempt_fail(k, ERRTYPE_overloaded);
		k->env->failure.retryable = false;
		return;
	}
	log_info("gen", "stream=%s asked model=%s provider=%s attempt=%u",
	    k->stream_id, log_quote(name, m->name, strlen(m->name)),
	    provider_name(m->provider), k->attempts);
	if (m->provider == PROVIDER_DEMO) {
		demo_attempt(k);
		return;
	}
	if (m->timeouts.total != 0)
		k->total_ns = k->began_ns + m->timeouts.total * NS_PER_MS;
	if (answer_new(provider_get(m), on_delta, k, &k->answer) !=
	    RS_OK)
		attempt_fail(k, ERRTYPE_internal);
	else if (m->provider == PROVIDER_EXEC)
		exec_attempt(k);
	else
		http_attempt(k);
}

uint64_t
ask_due_ns(const struct ask *k)
{
	uint64_t ms;

	if (k->step == ASK_DEMO) {
		ms = demo_due_ms(k->demo);
		return ms == DEMO_NEVER ? UINT64_MAX :
		    k->began_ns + ms * NS_PER_MS;
	}
	if (k->step == ASK_OVER)
		return UINT64_MAX;
	return k->due_ns < k->total_ns ? k->due_ns : k->total_ns;
}

void
ask_run(struct ask *k)
{
	uint64_t now = clock_mono_ns();

	if (ask_due_ns(k) > now)
		return;
	switch (k->step) {
	case ASK_NEXT:
	case ASK_PAUSE:
		attempt_begin(k);
		if (k->step == ASK_DEMO)
			demo_run(k);
		break;
	case ASK_DEMO:
		demo_run(k);
		break;
	case ASK_CONNECT:
	case ASK_HEADERS:
	case ASK_FIRST:
	case ASK_CONTENT:
		if (k->head != NULL && k->head->status != 200) {
			refused(k);
			break;
		}
		attempt_fail(k, k->total_ns <= now ? ERRTYPE_total_timeout :
		    k->step == ASK_HEADERS ? ERRTYPE_headers_timeout :
		    k->step == ASK_FIRST ? ERRTYPE_first_content_timeout :
		    ERRTYPE_idle_timeout);
		break;
	case ASK_FAILED:
	case ASK_OVER:
		break;
	}
	ask_settle(k);
}
