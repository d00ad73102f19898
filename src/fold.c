/* fold.c - what a stream says when all its frames are put together. */
#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "delta.h"
#include "fold.h"
#include "jx.h"
#include "money.h"

struct fold_tool {
	uint64_t index;
	struct buf id, name, arguments;
};

struct fold {
	size_t max;
	enum fold_state state;
	uint64_t next_id;
	struct buf text, reasoning, refusal;
	struct fold_tool *tools; /* by rising index */
	size_t tool_count;
	size_t tool_bytes;
	uint64_t tokens;
	uint64_t cost;
	bool has_cost; /* message chunks alone tell theirs */
	bool has_chunks;
	bool typing_over;
	struct json_object *end; /* the terminal frame's data */
};

static const char *const state_names[] = {
	[FOLD_LIVE] = "live",
	[FOLD_FINISHED] = "finished",
	[FOLD_FAILED] = "failed",
	[FOLD_STOPPED] = "stopped",
};

const char *
fold_state_name(enum fold_state s)
{
	return state_names[s];
}

enum rs_err
fold_new(size_t max, struct fold **ret)
{
	struct fold *f;

	if ((f = calloc(1, sizeof *f)) == NULL)
		return RS_ENOMEM;
	f->max = max;
	buf_init(&f->text, max);
	buf_init(&f->reasoning, max);
	buf_init(&f->refusal, max);
	*ret = f;
	return RS_OK;
}

static void
fold_tool_done(struct fold_tool *t)
{
	buf_done(&t->id);
	buf_done(&t->name);
	buf_done(&t->arguments);
}

void
fold_free(struct fold *f)
{
	size_t i;

	if (f == NULL)
		return;
	for (i = 0; i < f->tool_count; i++)
		fold_tool_done(&f->tools[i]);
	free(f->tools);
	buf_done(&f->text);
	buf_done(&f->reasoning);
	buf_done(&f->refusal);
	json_object_put(f->end);
	free(f);
}

/* A chunk's estimate of its cost; absent is unknown. */
static enum rs_err
fold_chunk_cost(struct json_object *data, uint64_t *ret)
{
	struct json_object *member = NULL;
	const char *digits;

	json_object_object_get_ex(data, "cost_usd", &member);
	/* json-c keeps the digits of the text; a double would not be exact. */
	digits = json_object_to_json_string_ext(member, JSON_C_TO_STRING_PLAIN);
	if (digits == NULL)
		return RS_ENOMEM;
	return money_parse(digits, strlen(digits), ret);
}

static enum rs_err
fold_text(struct fold *f, struct json_object *data, struct buf *to)
{
	uint64_t tokens = 0;
	const char *text;
	enum rs_err err;
	size_t len;

	if (jx_get_str(data, "content", &text, &len) != RS_OK)
		return RS_ECORRUPT;
	err = jx_get_uint(data, "tokens", &tokens);
	if (err != RS_OK && err != RS_ENOENT)
		return RS_ECORRUPT;
	buf_add(to, text, len);
	if (to->err != RS_OK)
		return to->err;
	f->tokens += tokens;
	f->has_chunks = true;
	return RS_OK;
}

static enum rs_err
fold_message(struct fold *f, struct json_object *data)
{
	enum rs_err err;
	uint64_t cost;

	if ((err = fold_chunk_cost(data, &cost)) != RS_OK)
		return err == RS_ENOMEM ? err : RS_ECORRUPT;
	if ((err = fold_text(f, data, &f->text)) != RS_OK)
		return err;
	f->cost = money_add(f->cost, cost);
	f->has_cost = true;
	return RS_OK;
}

static enum rs_err
fold_reasoning(struct fold *f, struct json_object *data)
{
	return fold_text(f, data, &f->reasoning);
}

static enum rs_err
fold_refusal(struct fold *f, struct json_object *data)
{
	return fold_text(f, data, &f->refusal);
}

/* The tool call with that index, made when it is new. */
static enum rs_err
fold_tool_get(struct fold *f, uint64_t index, struct fold_tool **ret)
{
	size_t low = 0, high = f->tool_count, mid;
	struct fold_tool *all, *t;

	while (low < high) {
		mid = low + (high - low) / 2;
		if (f->tools[mid].index < index)
			low = mid + 1;
		else
			high = mid;
	}
	if (low == f->tool_count || f->tools[low].index != index) {
		all = realloc(f->tools, (f->tool_count + 1) * sizeof *all);
		if (all == NULL)
			return RS_ENOMEM;
		f->tools = all;
		t = &all[low];
		memmove(t + 1, t, (f->tool_count - low) * sizeof *t);
		f->tool_count++;
		t->index = index;
		buf_init(&t->id, SSE_FRAME_MAX);
		buf_init(&t->name, SSE_FRAME_MAX);
		buf_init(&t->arguments, f->max);
	}
	*ret = &f->tools[low];
	return RS_OK;
}

/* A member that only some pieces have. */
static enum rs_err
fold_word(struct json_object *data, const char *name, const char **ret,
    size_t *ret_len)
{
	enum rs_err err;

	err = jx_get_str(data, name, ret, ret_len);
	if (err == RS_ENOENT) {
		*ret_len = 0;
		return RS_OK;
	}
	return err;
}

static enum rs_err
fold_tool_call(struct fold *f, struct json_object *data)
{
	const char *id, *name, *text;
	size_t id_len, name_len, len;
	struct fold_tool *t;
	enum rs_err err;
	uint64_t index;

	if (jx_get_uint(data, "index", &index) != RS_OK ||
	    jx_get_str(data, "arguments", &text, &len) != RS_OK ||
	    fold_word(data, "id", &id, &id_len) != RS_OK ||
	    fold_word(data, "name", &name, &name_len) != RS_OK)
		return RS_ECORRUPT;
	if (len > f->max - f->tool_bytes)
		return RS_ETOOBIG;
	if ((err = fold_tool_get(f, index, &t)) != RS_OK)
		return err;
	if (t->id.len == 0)
		buf_add(&t->id, id, id_len);
	if (t->name.len == 0)
		buf_add(&t->name, name, name_len);
	buf_add(&t->arguments, text, len);
	if (t->id.err != RS_OK || t->name.err != RS_OK ||
	    t->arguments.err != RS_OK)
		return RS_ENOMEM; /* none of them can be over its maximum */
	f->tool_bytes += len;
	f->has_chunks = true;
	return RS_OK;
}

static enum rs_err
fold_typing(struct fold *f, struct json_object *data)
{
	const char *status;
	size_t len;

	if (jx_get_str(data, "status", &status, &len) != RS_OK)
		return RS_ECORRUPT;
	f->typing_over = strcmp(status, "stop") == 0;
	return RS_OK;
}

/* Keeps the terminal frame's data: fold_put takes its members from there. */
static enum rs_err
fold_end(struct fold *f, struct json_object *data, const char *required,
    enum fold_state state)
{
	const char *reason;
	size_t len;

	if (jx_get_str(data, required, &reason, &len) != RS_OK)
		return RS_ECORRUPT;
	f->state = state;
	if (state == FOLD_FINISHED &&
	    strcmp(reason, finish_name(FINISH_STOPPED)) == 0)
		f->state = FOLD_STOPPED;
	f->end = json_object_get(data);
	return RS_OK;
}

static enum rs_err
fold_done(struct fold *f, struct json_object *data)
{
	return fold_end(f, data, "finish_reason", FOLD_FINISHED);
}

static enum rs_err
fold_error(struct fold *f, struct json_object *data)
{
	return fold_end(f, data, "error_type", FOLD_FAILED);
}

static const struct {
	const char *event;
	enum rs_err (*take)(struct fold *f, struct json_object *data);
} events[] = {
	{ "message_chunk", fold_message },
	{ "message", fold_message },
	{ "reasoning_chunk", fold_reasoning },
	{ "refusal_chunk", fold_refusal },
	{ "tool_call_chunk", fold_tool_call },
	{ "typing", fold_typing },
	{ "done", fold_done },
	{ "complete", fold_done },
	{ "error", fold_error },
};

enum rs_err
fold_add(struct fold *f, const struct sse_frame *frame)
{
	struct json_object *data;
	enum rs_err err;
	const char *why;
	size_t i;

	if (f->state != FOLD_LIVE || frame->id != f->next_id)
		return RS_ECORRUPT;
	err = jx_parse(frame->data, frame->data_len, &data, &why);
	if (err != RS_OK)
		return err == RS_EINVAL ? RS_ECORRUPT : err;
	for (i = 0; i < sizeof events / sizeof events[0]; i++) {
		if (sse_frame_is(frame, events[i].event)) {
			err = events[i].take(f, data);
			break;
		}
	}
	json_object_put(data);
	if (err == RS_OK)
		f->next_id++;
	return err;
}

enum fold_state
fold_state(const struct fold *f)
{
	return f->state;
}

uint64_t
fold_tokens(const struct fold *f)
{
	return f->tokens;
}

uint64_t
fold_cost(const struct fold *f)
{
	return f->has_cost ? f->cost : MONEY_UNKNOWN;
}

const struct buf *
fold_content(const struct fold *f)
{
	return &f->text;
}

bool
fold_typing_over(const struct fold *f)
{
	return f->typing_over;
}

bool
fold_has_chunks(const struct fold *f)
{
	return f->has_chunks;
}

/* ,"name": and the terminal frame's member of that name, as it is written
 * there, or null. */
static void
fold_put_end(const struct fold *f, const char *name, struct buf *b)
{
	struct json_object *member = NULL, *again = NULL;
	const char *text, *why;

	if (f->end != NULL)
		json_object_object_get_ex(f->end, name, &member);
	text = json_object_to_json_string_ext(member, JSON_C_TO_STRING_PLAIN |
	    JSON_C_TO_STRING_NOSLASHESCAPE);
	/* Without memory json-c gives nothing, or a part. */
	if (text != NULL && jx_parse(text, strlen(text), &again, &why) == RS_OK)
		buf_printf(b, ",\"%s\":%s", name, text);
	else if (b->err == RS_OK)
		b->err = RS_ENOMEM;
	json_object_put(again);
}

static void
fold_put_buf(const char *before, const struct buf *from, struct buf *b)
{
	buf_puts(b, before);
	jx_put_str(b, from->data, from->len);
}

static void
fold_put_tools(const struct fold *f, struct buf *b)
{
	const struct fold_tool *t;
	size_t i;

	buf_puts(b, ",\"tool_calls\":[");
	for (i = 0; i < f->tool_count; i++) {
		t = &f->tools[i];
		buf_printf(b, "%s{\"index\":%" PRIu64, i > 0 ? "," : "",
		    t->index);
		if (t->id.len > 0)
			fold_put_buf(",\"id\":", &t->id, b);
		else
			buf_puts(b, ",\"id\":null");
		if (t->name.len > 0)
			fold_put_buf(",\"name\":", &t->name, b);
		else
			buf_puts(b, ",\"name\":null");
		fold_put_buf(",\"arguments\":", &t->arguments, b);
		buf_puts(b, "}");
	}
	buf_puts(b, "]");
}

void
fold_put(const struct fold *f, const char *stream_id, const char *model,
    struct buf *b)
{
	const char *own;
	size_t own_len;

	buf_puts(b, "{\"stream_id\":");
	jx_put_str(b, stream_id, strlen(stream_id));
	buf_printf(b, ",\"state\":\"%s\"", fold_state_name(f->state));
	fold_put_buf(",\"text\":", &f->text, b);
	fold_put_buf(",\"reasoning\":", &f->reasoning, b);
	if (f->refusal.len > 0)
		fold_put_buf(",\"refusal\":", &f->refusal, b);
	fold_put_tools(f, b);
	buf_puts(b, ",\"model\":");
	if (f->end != NULL &&
	    jx_get_str(f->end, "model", &own, &own_len) == RS_OK)
		jx_put_str(b, own, own_len);
	else
		jx_put_str(b, model, strlen(model));
	fold_put_end(f, "usage", b);
	if (f->state == FOLD_LIVE) {
		buf_printf(b, ",\"total_tokens\":%" PRIu64
		    ",\"total_cost\":", f->tokens);
		money_put(b, fold_cost(f));
		buf_puts(b, ",\"estimated\":true");
	} else {
		fold_put_end(f, "total_tokens", b);
		fold_put_end(f, "total_cost", b);
		fold_put_end(f, "estimated", b);
	}
	fold_put_end(f, "latency_ms", b);
	fold_put_end(f, "finish_reason", b);
	fold_put_end(f, "error_type", b);
	buf_printf(b, ",\"partial\":%s,\"last_event_id\":",
	    f->state == FOLD_FINISHED ? "false" : "true");
	if (f->next_id > 0)
		buf_printf(b, "%" PRIu64 "}", f->next_id - 1);
	else
		buf_puts(b, "-1}");
}
