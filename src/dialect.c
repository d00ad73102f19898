/* dialect.c - the frames of each interface, field by field. */
#include <inttypes.h>
#include <string.h>

#include "dialect.h"
#include "jx.h"
#include "money.h"
#include "sse.h"
#include "text.h"

/* Outside words in a frame are cut, so that it stays below SSE_FRAME_MAX
 * when each of their bytes becomes six ("\u0000"): bytes. */
#define WORD_MAX 256
#define SENTENCE_MAX 1024

static const char *const names[] = {
	[DIALECT_STREAM] = "stream",
};

static const char *const finish_names[] = {
	[FINISH_STOP] = "stop",
	[FINISH_LENGTH] = "length",
	[FINISH_CONTENT_FILTER] = "content_filter",
	[FINISH_TOOL_CALLS] = "tool_calls",
	[FINISH_PAUSE] = "pause",
	[FINISH_STOPPED] = "stopped",
	[FINISH_UNKNOWN] = "unknown",
};

const char *
finish_name(enum finish f)
{
	return finish_names[f];
}

const char *
dialect_name(enum dialect d)
{
	return names[d];
}

enum rs_err
dialect_find(const char *name, enum dialect *ret)
{
	size_t i;

	for (i = 0; i < sizeof names / sizeof names[0]; i++) {
		if (strcmp(names[i], name) == 0) {
			*ret = (enum dialect)i;
			return RS_OK;
		}
	}
	return RS_ENOENT;
}

/* "name":"text", with what must stand before it. */
static void
put_str(struct buf *b, const char *name, const char *text, size_t max)
{
	buf_puts(b, name);
	jx_put_str(b, text, utf8_cut(text, strlen(text), max));
}

/* "name":count, or null. */
static void
put_count(struct buf *b, const char *name, uint64_t count)
{
	if (count == TOKENS_UNKNOWN)
		buf_printf(b, "%snull", name);
	else
		buf_printf(b, "%s%" PRIu64, name, count);
}

void
dialect_chunk(struct buf *b, enum dialect dialect, uint64_t *id,
    const struct delta *d, uint64_t cost, const char *stream_id)
{
	(void)dialect;
	if (d->kind == DELTA_TOOL_CALL) {
		sse_frame_begin(b, "tool_call_chunk", (*id)++);
		put_count(b, "{\"index\":", d->tool.index);
		if (d->tool.id != NULL)
			put_str(b, ",\"id\":", d->tool.id, WORD_MAX);
		if (d->tool.name != NULL)
			put_str(b, ",\"name\":", d->tool.name, WORD_MAX);
		buf_puts(b, ",\"arguments\":");
		jx_put_str(b, d->text, d->len);
	} else {
		sse_frame_begin(b, d->kind == DELTA_CONTENT ?
		    "message_chunk" : "reasoning_chunk", (*id)++);
		buf_puts(b, "{\"content\":");
		jx_put_str(b, d->text, d->len);
		put_count(b, ",\"tokens\":", d->tokens);
	}
	if (d->kind == DELTA_CONTENT) {
		buf_puts(b, ",\"cost_usd\":");
		money_put(b, cost);
	}
	if (stream_id != NULL)
		put_str(b, ",\"stream_id\":", stream_id, WORD_MAX);
	buf_puts(b, "}");
	sse_frame_end(b);
}

void
dialect_heartbeat(struct buf *b, enum dialect dialect, uint64_t *id)
{
	(void)dialect;
	sse_frame_write(b, "heartbeat", (*id)++, "{}", 2);
}

static void
put_done(struct buf *b, const struct ending *e)
{
	put_count(b, "{\"total_tokens\":", usage_total(&e->usage));
	buf_puts(b, ",\"total_cost\":");
	money_put(b, e->cost);
	put_count(b, ",\"latency_ms\":", e->latency_ms);
	put_count(b, ",\"first_token_ms\":", e->first_token_ms);
	buf_printf(b, ",\"finish_reason\":\"%s\"", finish_name(e->finish));
	if (e->model != NULL)
		put_str(b, ",\"model\":", e->model, WORD_MAX);
	else
		buf_puts(b, ",\"model\":null");
	buf_puts(b, ",\"usage\":");
	usage_put(b, &e->usage);
	buf_printf(b, ",\"estimated\":%s", e->estimated ? "true" : "false");
	put_str(b, ",\"stream_id\":", e->stream_id, WORD_MAX);
	buf_puts(b, "}");
}

/* What is not known is left out here. */
static void
put_error(struct buf *b, const struct ending *e)
{
	const struct errtype_info *type = errtype_info(e->error);
	uint64_t total = usage_total(&e->usage);

	put_str(b, "{\"error\":", e->error_text != NULL ? e->error_text :
	    type->text, SENTENCE_MAX);
	buf_printf(b, ",\"error_type\":\"%s\",\"retryable\":%s", type->name,
	    type->retryable ? "true" : "false");
	if (e->upstream_type != NULL)
		put_str(b, ",\"upstream_type\":", e->upstream_type, WORD_MAX);
	if (e->upstream_code != NULL)
		put_str(b, ",\"upstream_code\":", e->upstream_code, WORD_MAX);
	if (total != TOKENS_UNKNOWN)
		put_count(b, ",\"total_tokens\":", total);
	if (e->cost != MONEY_UNKNOWN) {
		buf_puts(b, ",\"total_cost\":");
		money_put(b, e->cost);
	}
	if (total != TOKENS_UNKNOWN) {
		buf_puts(b, ",\"usage\":");
		usage_put(b, &e->usage);
	}
	if (e->latency_ms != TOKENS_UNKNOWN)
		put_count(b, ",\"latency_ms\":", e->latency_ms);
	put_str(b, ",\"stream_id\":", e->stream_id, WORD_MAX);
	buf_puts(b, ",\"partial\":true}");
}

void
dialect_end(struct buf *b, enum dialect dialect, uint64_t *id,
    const struct ending *e)
{
	(void)dialect;
	sse_frame_begin(b, e->error == ERRTYPE_none ? "done" : "error",
	    (*id)++);
	if (e->error == ERRTYPE_none)
		put_done(b, e);
	else
		put_error(b, e);
	sse_frame_end(b);
}

void
usage_put(struct buf *b, const struct usage *u)
{
	uint64_t total = usage_total(u);

	if (total == TOKENS_UNKNOWN) {
		buf_puts(b, "null");
		return;
	}
	put_count(b, "{\"input\":", u->input);
	put_count(b, ",\"cache_read\":", u->cache_read);
	put_count(b, ",\"cache_write\":", u->cache_write);
	put_count(b, ",\"output\":", u->output);
	put_count(b, ",\"reasoning\":", u->reasoning);
	put_count(b, ",\"total\":", total);
	buf_puts(b, "}");
}

uint64_t
usage_total(const struct usage *u)
{
	const uint64_t counts[] = { u->input, u->cache_read, u->cache_write,
		u->output };
	uint64_t sum = 0;
	size_t i;

	if (u->input == TOKENS_UNKNOWN && u->output == TOKENS_UNKNOWN)
		return TOKENS_UNKNOWN;
	for (i = 0; i < sizeof counts / sizeof counts[0]; i++) {
		if (counts[i] == TOKENS_UNKNOWN)
			continue;
		if (__builtin_add_overflow(sum, counts[i], &sum) ||
		    sum == TOKENS_UNKNOWN)
			return TOKENS_UNKNOWN - 1;
	}
	return sum;
}
