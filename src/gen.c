/* gen.c - one generation, step by step. */
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "dialect.h"
#include "gen.h"
#include "gen_turn.h"
#include "jx.h"
#include "log.h"
#include "metrics.h"
#include "money.h"
#include "sse.h"
#include "usage.h"

#define BATCH_MAX 32768		/* bytes that are appended at once, about */
#define BYTES_PER_TOKEN 4	/* the usual guess, for estimates */
/* Of a frame, beside its text, each byte of which can become six. */
#define FRAME_EXTRA 512
/* Kept free below max_stream_bytes for the ending. */
#define ENDING_SPACE 4096

#define GEN_STEPS(X)                                                \
	X(STREAM, stream) /* provider's deltas to frames */         \
	X(ENDED, ended)	  /* the terminal frame is in the file */   \
	X(LOST, lost)	  /* it could not be written */

enum gen_step {
#define X(name, text) GEN_##name,
	GEN_STEPS(X)
#undef X
};

static const char *const gen_step_names[] = {
#define X(name, text) #text,
	GEN_STEPS(X)
#undef X
};

struct gen {
	struct gen_env *env;
	enum gen_step step;
	struct stream_key key;
	struct stream_head head;
	struct spool_writer *writer;
	struct models *models;
	const struct model *model;
	struct json_object *prompt;	/* until gen_go */
	struct ask *ask;		/* from then on */
	struct json_object *parameters;	/* the prompt's, until content comes */
	void *owner;
	uint64_t started_ns;
	uint64_t last_append_ns;
	uint64_t first_token_ns;	/* 0: none yet */
	uint64_t last_token_ns;
	struct streamer out;
	struct streamer batch;		/* out before what is in env->frames */
	uint64_t input_guess;		/* tokens */
	uint64_t output_tokens;		/* of the chunks so far */
	uint64_t cut;			/* as many at most */
	uint64_t guessed_bytes;		/* of text whose tokens nobody told */
	struct usage usage;		/* the upstream's word */
	char *upstream_cost;		/* likewise; NULL: none */
	bool settled;			/* its line is written */
};

static void
gen_enter(struct gen *g, enum gen_step to)
{
	log_debug("gen", "stream=%s %s -> %s", g->key.id,
	    gen_step_names[g->step], gen_step_names[to]);
	g->step = to;
}

static uint64_t
guess_tokens(uint64_t bytes)
{
	return (bytes + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN;
}

/* RS_EINVAL: not a prompt. */
static enum rs_err
prompt_parse(const char *p, size_t len, struct json_object **ret)
{
	struct json_object *root, *all;
	const char *why, *text;
	enum rs_err err;
	size_t i, n;

	if ((err = jx_parse(p, len, &root, &why)) != RS_OK)
		return err;
	if (!json_object_object_get_ex(root, "messages", &all) ||
	    !json_object_is_type(all, json_type_array))
		err = RS_EINVAL;
	for (i = 0; err == RS_OK && i < json_object_array_length(all); i++)
		err = jx_get_str(json_object_array_get_idx(all, i), "content",
		    &text, &n);
	if (err == RS_OK)
		*ret = root;
	else
		json_object_put(root);
	return err == RS_ENOENT ? RS_EINVAL : err;
}

static uint64_t
messages_bytes(struct json_object *all)
{
	const char *text;
	uint64_t sum = 0;
	size_t i, len;

	for (i = 0; i < json_object_array_length(all); i++)
		if (jx_get_str(json_object_array_get_idx(all, i), "content",
		    &text, &len) == RS_OK)
			sum += len;
	return sum;
}

static struct buf *gen_frames(struct gen *g);
static void gen_flush(struct gen *g);
static void on_delta(void *arg, const struct delta *d);
static void on_told(void *arg);

static const struct ask_events ask_events = {
	.delta = on_delta, .told = on_told,
};

void
gen_go(struct gen *g)
{
	struct json_object *messages = NULL, *parameters = NULL;
	enum rs_err err = RS_OK;

	if (gen_ended(g))
		return;
	json_object_object_get_ex(g->prompt, "parameters", &parameters);
	g->parameters = json_object_get(parameters);
	if (g->head.dialect == DIALECT_CONVERSATION)
		err = gen_turn_messages(g->env->conf, g->env->sp, &g->head,
		    g->prompt, &messages);
	else
		messages = json_object_get(json_object_object_get(g->prompt,
		    "messages"));
	if (err == RS_OK) {
		g->input_guess = guess_tokens(messages_bytes(messages));
		err = ask_new(&g->env->ask, g->model, messages, parameters,
		    g->key.id, &ask_events, g, &g->ask);
	}
	json_object_put(messages);
	json_object_put(g->prompt);
	g->prompt = NULL;
	if (err != RS_OK) {
		log_error("gen", "stream=%s not asked why=\"%s\"", g->key.id,
		    rs_strerror(err));
		gen_fail(g, ERRTYPE_internal);
	}
}

/* Who answers, or will. */
static const struct model *
gen_model(const struct gen *g)
{
	return g->ask != NULL ? ask_model(g->ask) : g->model;
}

/* Nothing keeps it from being one more.  Who comes to a stream that exists is
 * not refused: he joins it. */
static enum rs_err
within_limits(struct gen *g, const struct usage_worst *w,
    enum errtype *ret_type)
{
	struct gen_env *env = g->env;
	struct spool_reader r;
	enum rs_err err;

	if (env->quota == NULL)
		return RS_OK;
	err = quota_check(env->quota, g->key.owner_hash, w, &env->refusal);
	if (err == RS_EBUSY)
		*ret_type = ERRTYPE_rate_limited;
	else if (err != RS_OK)
		*ret_type = ERRTYPE_spool_unavailable;
	if (err == RS_EBUSY && spool_find(env->sp, &g->key, &r) == RS_OK) {
		spool_reader_done(&r);
		err = RS_EEXIST;
	}
	return err;
}

enum rs_err
gen_start(struct gen_env *env, const struct wake_start *start,
    const char *prompt, size_t len, struct models *models, void *owner,
    struct gen **ret, enum errtype *ret_type)
{
	char quoted[LOG_QUOTE_SIZE];
	struct usage_worst worst;
	struct gen *g;
	enum rs_err err = RS_ENOMEM;

	*ret_type = ERRTYPE_internal;
	if ((g = calloc(1, sizeof *g)) == NULL)
		return RS_ENOMEM;
	g->env = env;
	g->owner = owner;
	g->key = start->key;
	g->usage = (struct usage){ TOKENS_UNKNOWN, TOKENS_UNKNOWN,
		TOKENS_UNKNOWN, TOKENS_UNKNOWN, TOKENS_UNKNOWN };
	g->started_ns = g->last_append_ns = clock_mono_ns();
	g->model = models_find(models, start->model, strlen(start->model));
	if (g->model == NULL) {
		*ret_type = ERRTYPE_model_not_found;
		err = RS_ENOENT;
		goto fail;
	}
	if ((err = prompt_parse(prompt, len, &g->prompt)) != RS_OK)
		goto fail;
	memcpy(worst.address, start->address, sizeof worst.address);
	quota_need(env->conf, g->model, g->prompt,
	    start->dialect == DIALECT_CONVERSATION, &worst);
	if ((err = within_limits(g, &worst, ret_type)) != RS_OK)
		goto fail;
	memcpy(g->head.owner, start->owner, sizeof g->head.owner);
	memcpy(g->head.model, start->model, sizeof g->head.model);
	memcpy(g->head.request, start->request, sizeof g->head.request);
	memcpy(g->head.socket, env->socket, strlen(env->socket) + 1);
	g->head.dialect = (enum dialect)start->dialect;
	g->head.turn = start->turn;
	g->out = (struct streamer){
		.dialect = g->head.dialect, .stream_id = g->key.id,
		.turn = &g->head.turn,
	};
	g->head.created_ms = clock_wall_ms();
	*ret_type = ERRTYPE_spool_unavailable;
	if (g->head.dialect == DIALECT_CONVERSATION &&
	    (err = gen_turn_begin(env->sp, &g->key, &g->head, g->prompt)) !=
	    RS_OK)
		goto fail;
	if ((err = spool_create(env->sp, &g->key, &g->head, &g->writer)) !=
	    RS_OK)
		goto fail;
	g->models = models_ref(models);
	metrics_add(METRIC_streams_started_total, 1);
	log_info("gen", "stream=%s started pid=%d owner=%s model=%s",
	    g->key.id, (int)getpid(), g->key.owner_hash,
	    log_quote(quoted, g->model->name, strlen(g->model->name)));
	/* The upstream is not asked before the reserve is written; when that
	 * fails the stream exists, and ends with the reason. */
	if (usage_reserve(env->sp, &g->key, &g->head, &worst) != RS_OK)
		gen_fail(g, ERRTYPE_not_resumable);
	else if (g->head.dialect == DIALECT_CONVERSATION) {
		dialect_begin(gen_frames(g), &g->out, g->model->name);
		gen_flush(g);
	}
	*ret = g;
	return RS_OK;
fail:
	gen_free(g);
	return err;
}

void
gen_free(struct gen *g)
{
	if (g == NULL)
		return;
	spool_writer_free(g->writer);
	ask_free(g->ask);
	json_object_put(g->prompt);
	json_object_put(g->parameters);
	models_unref(g->models);
	free(g->upstream_cost);
	free(g);
}

uint64_t
gen_due_ns(const struct gen *g)
{
	uint64_t heartbeat, ask;

	ask = g->ask != NULL ? ask_due_ns(g->ask) : UINT64_MAX;
	heartbeat = g->last_append_ns + g->env->conf->heartbeat * NS_PER_S;
	return ask < heartbeat ? ask : heartbeat;
}

/* ---- the end ---- */

static uint64_t
ms_since(const struct gen *g, uint64_t ns)
{
	return (ns - g->started_ns) / NS_PER_MS;
}

/* We have ended it, so the upstream did not come to tell what it cost. */
static bool
cut_by_us(const struct ending *e)
{
	switch (e->error) {
	case ERRTYPE_none:
		return e->finish == FINISH_STOPPED;
	case ERRTYPE_too_long:
	case ERRTYPE_not_resumable:
	case ERRTYPE_generation_lost:
	case ERRTYPE_idle_timeout:
	case ERRTYPE_total_timeout:
		return true;
	default:
		return false;
	}
}

static void
usage_fill(const struct gen *g, struct ending *e)
{
	struct usage *u = &e->usage;

	*u = g->usage;
	e->upstream_cost = g->upstream_cost;
	e->estimated = cut_by_us(e);
	if (!e->estimated)
		return;
	if (u->input == TOKENS_UNKNOWN)
		*u = (struct usage){ .input = g->input_guess };
	if (u->output == TOKENS_UNKNOWN || u->output < g->output_tokens)
		u->output = g->output_tokens;
}

static void
ending_fill(const struct gen *g, struct ending *e)
{
	const struct model *m = gen_model(g);

	e->model = m->name;
	usage_fill(g, e);
	e->cost = usage_total(&e->usage) == TOKENS_UNKNOWN ? MONEY_UNKNOWN :
	    prices_cost(&m->prices, &e->usage);
	e->latency_ms = ms_since(g, clock_mono_ns());
	e->typing_ms = e->latency_ms;
	e->first_token_ms = g->first_token_ns == 0 ? TOKENS_UNKNOWN :
	    ms_since(g, g->first_token_ns);
}

/* Settles the usage, then appends the terminal frame. */
static enum rs_err
append_ending(struct gen *g, const struct ending *e)
{
	struct buf *b = &g->env->frames;
	struct streamer out = g->out;
	enum rs_err err;

	buf_clear(b);
	dialect_begin(b, &out, g->model->name);
	dialect_end(b, &out, e);
	if ((err = b->err) != RS_OK) {
		buf_clear(b);
		return err;
	}
	/* Once: it may be the frame that finds the disk full. */
	err = g->settled ? RS_OK :
	    usage_settle(g->env->sp, &g->key, &g->head, e);
	g->settled = err == RS_OK;
	if (err == RS_OK && g->head.dialect == DIALECT_CONVERSATION)
		err = gen_turn_answer(g->env->sp, &g->key, &g->head, e);
	if (err == RS_OK)
		err = spool_append(g->writer, b->data, b->len);
	if (err == RS_OK)
		g->out = out;
	buf_clear(b);
	return err;
}

/* One that is lost will be counted by who seals it. */
static void
count_end(const struct ending *e)
{
	enum metrics_result result = RESULT_finished;

	if (e->error == ERRTYPE_generation_lost)
		result = RESULT_lost;
	else if (e->error != ERRTYPE_none)
		result = RESULT_failed;
	else if (e->finish == FINISH_STOPPED)
		result = RESULT_stopped;
	metrics_add(METRIC_streams_total + result, 1);
	if (e->error != ERRTYPE_none)
		metrics_add(METRIC_errors_total + e->error, 1);
}

static void
gen_close(struct gen *g, struct ending *e)
{
	enum rs_err err;

	ending_fill(g, e);
	err = append_ending(g, e);
	if (err != RS_OK)
		log_error("gen", "stream=%s not ended why=\"%s\"", g->key.id,
		    rs_strerror(err));
	while (err == RS_ENOSPC && g->env->make_room(g->env->arg)) {
		e->error = ERRTYPE_not_resumable;
		err = append_ending(g, e);
	}
	gen_enter(g, err == RS_OK ? GEN_ENDED : GEN_LOST);
	if (err == RS_OK)
		count_end(e);
	log_info("gen", "stream=%s %s reason=%s frames=%llu bytes=%llu "
	    "total_ms=%llu", g->key.id,
	    err == RS_OK ? "finished" : "lost",
	    e->error != ERRTYPE_none ? errtype_info(e->error)->name :
	    finish_name(e->finish), (unsigned long long)g->out.next_id,
	    (unsigned long long)gen_end(g), (unsigned long long)e->latency_ms);
}

void
gen_fail(struct gen *g, enum errtype type)
{
	struct ending e = { .error = type };

	if (!gen_ended(g))
		gen_close(g, &e);
}

void
gen_stop(struct gen *g)
{
	struct ending e = { .finish = FINISH_STOPPED };

	if (!gen_ended(g))
		gen_close(g, &e);
}

/* ---- the stream ---- */

/* Appends the frames that were put together. */
static void
gen_flush(struct gen *g)
{
	struct buf *b = &g->env->frames;
	enum rs_err err = b->err;

	if (b->len == 0 && err == RS_OK)
		return;
	if (err == RS_OK)
		err = spool_append(g->writer, b->data, b->len);
	buf_clear(b);
	if (err == RS_OK) {
		g->last_append_ns = clock_mono_ns();
		return;
	}
	log_error("gen", "stream=%s not appended why=\"%s\"", g->key.id,
	    rs_strerror(err));
	g->out = g->batch;
	gen_fail(g, ERRTYPE_not_resumable);
}

/* The buffer for the next frame. */
static struct buf *
gen_frames(struct gen *g)
{
	struct buf *b = &g->env->frames;

	if (b->len >= BATCH_MAX)
		gen_flush(g);
	if (b->len == 0)
		g->batch = g->out;
	return b;
}

/* Tokens of a piece of a delta. */
static uint64_t
piece_tokens(struct gen *g, const struct delta *d, size_t done, size_t len)
{
	uint64_t before = g->guessed_bytes;

	if (d->tokens > 0)
		return done == 0 ? d->tokens : 0;
	g->guessed_bytes += len;
	return guess_tokens(g->guessed_bytes) - guess_tokens(before);
}

/* The file is as long as it may get, or would be with that many bytes more. */
static bool
gen_is_full(const struct gen *g, size_t more)
{
	return gen_end(g) + g->env->frames.len + more + FRAME_EXTRA +
	    ENDING_SPACE > g->env->conf->max_stream_bytes;
}

/* A delta of any length, as frames of at most SSE_TEXT_MAX bytes of text. */
static void
add_chunks(struct gen *g, const struct delta *d)
{
	const struct model *m = gen_model(g);
	struct delta piece = *d;
	uint64_t last_ns = g->last_token_ns;
	char quoted[LOG_QUOTE_SIZE];
	size_t done = 0;
	struct buf *b;

	g->last_token_ns = clock_mono_ns();
	if (g->first_token_ns == 0) {
		g->first_token_ns = g->last_token_ns;
		g->cut = quota_cut(g->env->conf, m, g->parameters);
		json_object_put(g->parameters);
		g->parameters = NULL;
		metrics_observe(METRIC_first_token_seconds,
		    g->first_token_ns - g->started_ns);
		log_info("gen", "stream=%s began to answer model=%s "
		    "first_token_ms=%llu", g->key.id,
		    log_quote(quoted, m->name, strlen(m->name)),
		    (unsigned long long)ms_since(g, g->first_token_ns));
	} else {
		metrics_observe(METRIC_chunk_gap_seconds,
		    g->last_token_ns - last_ns);
	}
	do {
		piece.text = d->text + done;
		piece.len = d->len - done <= SSE_TEXT_MAX ? d->len - done :
		    utf8_cut(piece.text, d->len - done, SSE_TEXT_MAX);
		b = gen_frames(g);
		if (gen_ended(g))
			return;
		if (gen_is_full(g, 6 * piece.len)) {
			gen_flush(g);
			gen_fail(g, ERRTYPE_too_long);
			return;
		}
		piece.tokens = piece_tokens(g, d, done, piece.len);
		if (piece.tokens > g->cut - g->output_tokens) {
			gen_flush(g);
			gen_fail(g, ERRTYPE_too_long);
			return;
		}
		done += piece.len;
		dialect_chunk(b, &g->out, &piece,
		    money_mul(piece.tokens, m->prices.output));
		g->output_tokens += piece.tokens;
		piece.tool.id = piece.tool.name = NULL;
	} while (done < d->len);
}

/* What the model says. */
static void
on_delta(void *arg, const struct delta *d)
{
	struct ending e = { .error = ERRTYPE_none };
	struct gen *g = arg;

	if (gen_ended(g))
		return;
	switch (d->kind) {
	case DELTA_CONTENT:
	case DELTA_REASONING:
	case DELTA_REFUSAL:
	case DELTA_TOOL_CALL:
		add_chunks(g, d);
		return;
	case DELTA_USAGE:
		g->usage = d->usage;
		free(g->upstream_cost);
		g->upstream_cost = d->upstream_cost == NULL ? NULL :
		    strdup(d->upstream_cost);
		return;
	case DELTA_FINISH:
		e.finish = d->finish;
		e.native_finish = d->native_finish;
		break;
	case DELTA_ERROR:
		e.error = d->error.type;
		e.upstream_type = d->error.upstream_type;
		e.upstream_code = d->error.upstream_code;
		break;
	}
	gen_flush(g);
	if (!gen_ended(g))
		gen_close(g, &e);
}

static void
on_told(void *arg)
{
	struct gen *g = arg;

	gen_flush(g);
	g->env->moved(g->owner);
}

void
gen_run(struct gen *g)
{
	if (gen_ended(g))
		return;
	if (g->ask != NULL)
		ask_run(g->ask);
	gen_flush(g);
	if (gen_ended(g) || clock_mono_ns() - g->last_append_ns <
	    g->env->conf->heartbeat * NS_PER_S)
		return;
	if (gen_is_full(g, 0)) {
		gen_fail(g, ERRTYPE_too_long);
		return;
	}
	dialect_heartbeat(gen_frames(g), &g->out);
	gen_flush(g);
}

bool
gen_ended(const struct gen *g)
{
	return g->step != GEN_STREAM;
}

bool
gen_lost(const struct gen *g)
{
	return g->step == GEN_LOST;
}

uint64_t
gen_end(const struct gen *g)
{
	return spool_writer_end(g->writer);
}

uint64_t
gen_tokens(const struct gen *g)
{
	return g->output_tokens;
}

uint64_t
gen_cost(const struct gen *g)
{
	return money_mul(g->output_tokens, gen_model(g)->prices.output);
}
