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
	[DIALECT_CONVERSATION] = "conversation",
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

/* ,"stream_id": in the first chunk, as an EventSource sees no headers. */
static void
put_id_once(struct buf *b, struct streamer *s)
{
	if (!s->told_id)
		put_str(b, ",\"stream_id\":", s->stream_id, WORD_MAX);
	s->told_id = true;
}

void
dialect_begin(struct buf *b, struct streamer *s, const char *model)
{
	if (s->dialect != DIALECT_CONVERSATION)
		return;
	if (s->next_id == 0) {
		sse_frame_begin(b, "metadata", s->next_id++);
		put_str(b, "{\"sessionId\":", s->turn->session, WORD_MAX);
		put_str(b, ",\"animalId\":", s->turn->animal, WORD_MAX);
		put_str(b, ",\"name\":", s->turn->name, WORD_MAX);
		put_str(b, ",\"model\":", model, WORD_MAX);
		put_id_once(b, s);
		put_count(b, ",\"turn\":", s->turn->number);
		buf_puts(b, "}");
		sse_frame_end(b);
	}
	if (s->next_id == 1) {
		sse_frame_begin(b, "typing", s->next_id++);
		buf_puts(b, "{\"status\":\"start\"}");
		sse_frame_end(b);
	}
}

/* As many as jx_put_str writes: each bad byte is one. */
static uint64_t
count_characters(const char *p, size_t n)
{
	uint64_t count = 0;
	size_t i = 0, len;

	for (; i < n; count++) {
		len = utf8_char(p + i, n - i);
		i += len > 0 ? len : 1;
	}
	return count;
}

static void
put_tool_call(struct buf *b, struct streamer *s, const struct delta *d)
{
	sse_frame_begin(b, "tool_call_chunk", s->next_id++);
	put_count(b, "{\"index\":", d->tool.index);
	if (d->tool.id != NULL)
		put_str(b, ",\"id\":", d->tool.id, WORD_MAX);
	if (d->tool.name != NULL)
		put_str(b, ",\"name\":", d->tool.name, WORD_MAX);
	buf_puts(b, ",\"arguments\":");
	jx_put_str(b, d->text, d->len);
}

static void
put_message(struct buf *b, struct streamer *s, const struct delta *d,
    uint64_t cost)
{
	bool conversation = s->dialect == DIALECT_CONVERSATION;

	sse_frame_begin(b, conversation ? "message" : "message_chunk",
	    s->next_id++);
	buf_puts(b, "{\"content\":");
	jx_put_str(b, d->text, d->len);
	if (conversation)
		put_count(b, ",\"index\":", s->messages);
	put_count(b, ",\"tokens\":", d->tokens);
	buf_puts(b, ",\"cost_usd\":");
	money_put(b, cost);
	s->messages++;
	s->length += count_characters(d->text, d->len);
}

void
dialect_chunk(struct buf *b, struct streamer *s, const struct delta *d,
    uint64_t cost)
{
	if (d->kind == DELTA_TOOL_CALL) {
		put_tool_call(b, s, d);
	} else if (d->kind == DELTA_CONTENT) {
		put_message(b, s, d, cost);
	} else {
		sse_frame_begin(b, d->kind == DELTA_REASONING ?
		    "reasoning_chunk" : "refusal_chunk", s->next_id++);
		buf_puts(b, "{\"content\":");
		jx_put_str(b, d->text, d->len);
		put_count(b, ",\"tokens\":", d->tokens);
	}
	put_id_once(b, s);
	buf_puts(b, "}");
	sse_frame_end(b);
}

void
dialect_heartbeat(struct buf *b, struct streamer *s)
{
	sse_frame_write(b, "heartbeat", s->next_id++, "{}", 2);
}

static void
put_done(struct buf *b, const struct streamer *s, const struct ending *e)
{
	buf_puts(b, "{");
	if (s->dialect == DIALECT_CONVERSATION)
		put_count(b, "\"length\":", s->length);
	put_count(b, s->dialect == DIALECT_CONVERSATION ?
	    ",\"total_tokens\":" : "\"total_tokens\":",
	    usage_total(&e->usage));
	buf_puts(b, ",\"total_cost\":");
	money_put(b, e->cost);
	put_count(b, ",\"latency_ms\":", e->latency_ms);
	put_count(b, ",\"first_token_ms\":", e->first_token_ms);
	buf_printf(b, ",\"finish_reason\":\"%s\"", finish_name(e->finish));
	if (e->native_finish != NULL)
		put_str(b, ",\"upstream_finish_reason\":", e->native_finish,
		    WORD_MAX);
	if (e->model != NULL)
		put_str(b, ",\"model\":", e->model, WORD_MAX);
	else
		buf_puts(b, ",\"model\":null");
	buf_puts(b, ",\"usage\":");
	usage_put(b, &e->usage);
	buf_printf(b, ",\"estimated\":%s", e->estimated ? "true" : "false");
	if (e->upstream_cost != NULL)
		put_str(b, ",\"upstream_cost\":", e->upstream_cost, WORD_MAX);
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
		if (e->estimated)
			buf_puts(b, ",\"estimated\":true");
	}
	if (e->upstream_cost != NULL)
		put_str(b, ",\"upstream_cost\":", e->upstream_cost, WORD_MAX);
	if (e->latency_ms != TOKENS_UNKNOWN)
		put_count(b, ",\"latency_ms\":", e->latency_ms);
}

void
dialect_end(struct buf *b, struct streamer *s, const struct ending *e)
{
	bool conversation = s->dialect == DIALECT_CONVERSATION;

	if (conversation && !s->typing_over) {
		sse_frame_begin(b, "typing", s->next_id++);
		put_count(b, "{\"status\":\"stop\",\"duration_ms\":",
		    e->typing_ms);
		buf_puts(b, "}");
		sse_frame_end(b);
	}
	sse_frame_begin(b, e->error != ERRTYPE_none ? "error" :
	    conversation ? "complete" : "done", s->next_id++);
	if (e->error == ERRTYPE_none)
		put_done(b, s, e);
	else
		put_error(b, e);
	put_str(b, ",\"stream_id\":", s->stream_id, WORD_MAX);
	if (conversation) {
		put_str(b, ",\"sessionId\":", s->turn->session, WORD_MAX);
		put_count(b, ",\"turn\":", s->turn->number);
	}
	buf_puts(b, e->error != ERRTYPE_none ? ",\"partial\":true}" : "}");
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
