/* gen.c - one generation, step by step. */
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "dialect.h"
#include "gen.h"
#include "jx.h"
#include "log.h"
#include "money.h"
#include "provider.h"
#include "sse.h"
#include "usage.h"

#define RUN_MAX 32768		/* bytes that one gen_run appends, about */
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
	struct demo *demo;
	uint64_t started_ns;
	uint64_t last_append_ns;
	uint64_t first_token_ns;	/* 0: none yet */
	uint64_t next_id;
	uint64_t input_guess;		/* tokens */
	uint64_t output_tokens;		/* of the chunks so far */
	uint64_t guessed_bytes;		/* of text whose tokens nobody told */
	struct usage usage;		/* the upstream's word */
	bool has_usage;
	bool has_chunks;
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

/* The messages of a prompt, or NULL.  *ret_bytes: of their contents. */
static struct json_object *
prompt_messages(struct json_object *prompt, uint64_t *ret_bytes)
{
	struct json_object *all;
	const char *text;
	size_t i, len;

	if (!json_object_object_get_ex(prompt, "messages", &all) ||
	    !json_object_is_type(all, json_type_array))
		return NULL;
	*ret_bytes = 0;
	for (i = 0; i < json_object_array_length(all); i++) {
		if (jx_get_str(json_object_array_get_idx(all, i), "content",
		    &text, &len) != RS_OK)
			return NULL;
		*ret_bytes += len;
	}
	return all;
}

static enum rs_err
gen_prepare(struct gen *g, const char *prompt, size_t len)
{
	struct json_object *root = NULL, *messages;
	const char *why;
	enum rs_err err;
	uint64_t bytes;

	if ((err = jx_parse(prompt, len, &root, &why)) != RS_OK)
		return err;
	messages = prompt_messages(root, &bytes);
	if (messages == NULL) {
		err = RS_EINVAL;
	} else {
		g->input_guess = guess_tokens(bytes);
		err = demo_new(&g->model->demo, messages, &g->demo);
	}
	json_object_put(root);
	return err;
}

enum rs_err
gen_start(struct gen_env *env, const struct wake_start *start,
    const char *prompt, size_t len, struct models *models, struct gen **ret,
    enum errtype *ret_type)
{
	struct gen *g;
	enum rs_err err = RS_ENOMEM;

	*ret_type = ERRTYPE_internal;
	if ((g = calloc(1, sizeof *g)) == NULL)
		return RS_ENOMEM;
	g->env = env;
	g->key = start->key;
	g->started_ns = g->last_append_ns = clock_mono_ns();
	g->model = models_find(models, start->model, strlen(start->model));
	if (g->model == NULL) {
		*ret_type = ERRTYPE_model_not_found;
		err = RS_ENOENT;
		goto fail;
	}
	if ((err = gen_prepare(g, prompt, len)) != RS_OK)
		goto fail;
	memcpy(g->head.owner, start->owner, sizeof g->head.owner);
	memcpy(g->head.model, start->model, sizeof g->head.model);
	memcpy(g->head.request, start->request, sizeof g->head.request);
	memcpy(g->head.socket, env->socket, strlen(env->socket) + 1);
	g->head.dialect = (enum dialect)start->dialect;
	g->head.created_ms = clock_wall_ms();
	*ret_type = ERRTYPE_spool_unavailable;
	if ((err = spool_create(env->sp, &g->key, &g->head, &g->writer)) !=
	    RS_OK)
		goto fail;
	g->models = models_ref(models);
	log_info("gen", "stream=%s started owner=%s model=%s", g->key.id,
	    g->key.owner_hash, g->model->name);
	/* The upstream is not asked before the reserve is written; when that
	 * fails the stream exists, and ends with the reason. */
	if (usage_reserve(env->sp, &g->key, &g->head) != RS_OK)
		gen_fail(g, ERRTYPE_not_resumable);
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
	demo_free(g->demo);
	models_unref(g->models);
	free(g);
}

uint64_t
gen_due_ns(const struct gen *g)
{
	uint64_t heartbeat, demo_ms;

	heartbeat = g->last_append_ns + g->env->conf->heartbeat * NS_PER_S;
	demo_ms = demo_due_ms(g->demo);
	if (demo_ms == DEMO_NEVER)
		return heartbeat;
	demo_ms = g->started_ns + demo_ms * NS_PER_MS;
	return demo_ms < heartbeat ? demo_ms : heartbeat;
}

/* ---- the end ---- */

static uint64_t
ms_since(const struct gen *g, uint64_t ns)
{
	return (ns - g->started_ns) / NS_PER_MS;
}

static void
ending_fill(const struct gen *g, struct ending *e)
{
	e->stream_id = g->key.id;
	e->model = g->model->name;
	e->estimated = !g->has_usage;
	e->usage = g->has_usage ? g->usage : (struct usage){
		.input = g->input_guess, .output = g->output_tokens,
	};
	e->cost = prices_cost(&g->model->prices, &e->usage);
	e->latency_ms = ms_since(g, clock_mono_ns());
	e->first_token_ms = g->first_token_ns == 0 ? TOKENS_UNKNOWN :
	    ms_since(g, g->first_token_ns);
}

/* Settles the usage, then appends the terminal frame. */
static enum rs_err
append_ending(struct gen *g, const struct ending *e)
{
	struct buf *b = &g->env->frames;
	uint64_t id = g->next_id;
	enum rs_err err;

	buf_clear(b);
	dialect_end(b, g->head.dialect, &id, e);
	if ((err = b->err) != RS_OK)
		return err;
	if ((err = usage_settle(g->env->sp, &g->key, &g->head, e)) != RS_OK)
		return err;
	if ((err = spool_append(g->writer, b->data, b->len)) == RS_OK)
		g->next_id = id;
	return err;
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
	log_info("gen", "stream=%s %s reason=%s frames=%llu bytes=%llu "
	    "total_ms=%llu", g->key.id,
	    err == RS_OK ? "finished" : "lost",
	    e->error != ERRTYPE_none ? errtype_info(e->error)->name :
	    finish_name(e->finish), (unsigned long long)g->next_id,
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

/* Frames of one gen_run that are not in the file yet. */
struct batch {
	struct buf *b;
	uint64_t next_id;
	bool over;		/* the answer ends behind these frames */
	struct ending ending;
};

/* A delta of any length, as frames of at most SSE_TEXT_MAX bytes of text. */
static void
add_chunks(struct gen *g, struct batch *batch, const struct delta *d)
{
	struct delta piece = *d;
	size_t done = 0;
	uint64_t cost;

	do {
		piece.text = d->text + done;
		piece.len = d->len - done <= SSE_TEXT_MAX ? d->len - done :
		    utf8_cut(piece.text, d->len - done, SSE_TEXT_MAX);
		if (gen_end(g) + batch->b->len + 6 * piece.len + FRAME_EXTRA +
		    ENDING_SPACE > g->env->conf->max_stream_bytes) {
			batch->over = true;
			batch->ending.error = ERRTYPE_too_long;
			return;
		}
		done += piece.len;
		if (d->tokens == 0) {
			piece.tokens = guess_tokens(g->guessed_bytes +
			    piece.len) - guess_tokens(g->guessed_bytes);
			g->guessed_bytes += piece.len;
		}
		cost = money_mul(piece.tokens, g->model->prices.output);
		dialect_chunk(batch->b, g->head.dialect, &batch->next_id,
		    &piece, cost, g->has_chunks ? NULL : g->key.id);
		g->has_chunks = true;
		g->output_tokens += piece.tokens;
		piece.tokens = 0;
		piece.tool.id = piece.tool.name = NULL;
	} while (done < d->len);
	if (g->first_token_ns == 0)
		g->first_token_ns = clock_mono_ns();
}

static void
add_delta(struct gen *g, struct batch *batch, const struct delta *d)
{
	switch (d->kind) {
	case DELTA_CONTENT:
	case DELTA_REASONING:
	case DELTA_TOOL_CALL:
		add_chunks(g, batch, d);
		break;
	case DELTA_USAGE:
		g->usage = d->usage;
		g->has_usage = true;
		break;
	case DELTA_FINISH:
		batch->over = true;
		batch->ending.finish = d->finish;
		break;
	case DELTA_ERROR:
		batch->over = true;
		batch->ending.error = d->error.type;
		batch->ending.upstream_type = d->error.upstream_type;
		batch->ending.upstream_code = d->error.upstream_code;
		break;
	}
}

static enum rs_err
append_batch(struct gen *g, const struct batch *batch, uint64_t now)
{
	enum rs_err err = batch->b->err;

	if (err == RS_OK)
		err = spool_append(g->writer, batch->b->data, batch->b->len);
	if (err == RS_OK) {
		g->next_id = batch->next_id;
		g->last_append_ns = now;
	}
	return err;
}

void
gen_run(struct gen *g)
{
	uint64_t now = clock_mono_ns();
	struct batch batch = { .b = &g->env->frames, .next_id = g->next_id };
	struct delta d;
	enum rs_err err;

	if (gen_ended(g))
		return;
	buf_clear(batch.b);
	while (!batch.over && batch.b->len < RUN_MAX &&
	    demo_due_ms(g->demo) <= ms_since(g, now)) {
		demo_next(g->demo, &d);
		add_delta(g, &batch, &d);
	}
	if (!batch.over && batch.b->len == 0 && now - g->last_append_ns >=
	    g->env->conf->heartbeat * NS_PER_S)
		dialect_heartbeat(batch.b, g->head.dialect, &batch.next_id);
	if ((batch.b->len > 0 || batch.b->err != RS_OK) &&
	    (err = append_batch(g, &batch, now)) != RS_OK) {
		log_error("gen", "stream=%s not appended why=\"%s\"",
		    g->key.id, rs_strerror(err));
		gen_fail(g, ERRTYPE_not_resumable);
	} else if (batch.over) {
		gen_close(g, &batch.ending);
	}
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
