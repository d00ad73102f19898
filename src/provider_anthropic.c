/* provider_anthropic.c - the Messages API of Anthropic.
 * Events carry their name in the data's "type" too, and only that one counts:
 * message_start, blocks (content_block_start, _delta, _stop), message_delta
 * with the reason to stop and the usage so far, message_stop.  Names and
 * deltas that are not known here are skipped, as the API asks for. */
#include <json-c/json.h>
#include <string.h>

#include "jx.h"
#include "provider.h"
#include "provider_openai.h"
#include "request.h"

#define VERSION_USUAL "2023-06-01"
#define VERSION_NO_SAMPLING "2026-10-21" /* refuses temperature and others */

/* Versions are dates, so that later ones compare as larger. */
static enum rs_err
anthropic_request(const struct chat *chat, struct http_req *ret)
{
	static const struct request_param rows[] = {
		{ "stop", "stop_sequences", true },
		{ 0 }
	}, rows_no_sampling[] = {
		{ "stop", "stop_sequences", true },
		{ "temperature", NULL, false },
		{ "top_p", NULL, false },
		{ "top_k", NULL, false },
		{ 0 }
	};
	const struct model *m = chat->model;
	const char *version = m->api_version != NULL ? m->api_version :
	    VERSION_USUAL;
	struct json_object *system;
	struct request r;

	request_init(&r, chat);
	request_put_str(&r, r.root, "model", m->upstream_model);
	request_put(&r, r.root, "stream", json_object_new_boolean(true));
	request_put_messages(&r, false);
	if ((system = request_system(&r)) != NULL)
		request_put(&r, r.root, "system", system);
	request_put_parameters(&r, strcmp(version, VERSION_NO_SAMPLING) < 0 ?
	    rows : rows_no_sampling, NULL);
	if (!json_object_object_get_ex(r.root, "max_tokens", NULL))
		request_put(&r, r.root, "max_tokens",
		    json_object_new_int(ANTHROPIC_MAX_TOKENS));
	buf_printf(&ret->url, "%s/v1/messages", m->base_url);
	http_req_header(ret, "anthropic-version", version);
	request_key(chat, "x-api-key", ret);
	return request_finish(&r, "text/event-stream", ret);
}

/* The counts are totals so far; what is left out or null stays as it was. */
static void
anthropic_usage(struct answer *a, struct json_object *usage)
{
	struct json_object *details = json_object_object_get(usage,
	    "output_tokens_details");
	struct usage u = *answer_usage_peek(a);

	if (!json_object_is_type(usage, json_type_object))
		return;
	jx_get_uint(usage, "input_tokens", &u.input);
	jx_get_uint(usage, "cache_read_input_tokens", &u.cache_read);
	jx_get_uint(usage, "cache_creation_input_tokens", &u.cache_write);
	jx_get_uint(usage, "output_tokens", &u.output);
	jx_get_uint(details, "thinking_tokens", &u.reasoning);
	if (u.cache_read == TOKENS_UNKNOWN)
		u.cache_read = 0;
	if (u.cache_write == TOKENS_UNKNOWN)
		u.cache_write = 0;
	if (u.reasoning == TOKENS_UNKNOWN)
		u.reasoning = 0;
	answer_usage(a, &u, NULL);
}

static void
anthropic_reason(struct answer *a, struct json_object *o)
{
	static const struct {
		const char *native;
		enum finish finish;
	} rows[] = {
		{ "end_turn", FINISH_STOP },
		{ "stop_sequence", FINISH_STOP },
		{ "max_tokens", FINISH_LENGTH },
		{ "model_context_window_exceeded", FINISH_LENGTH },
		{ "tool_use", FINISH_TOOL_CALLS },
		{ "refusal", FINISH_CONTENT_FILTER },
		{ "pause_turn", FINISH_PAUSE },
	};
	enum finish finish = FINISH_UNKNOWN;
	const char *native;
	size_t i, len;

	if (jx_get_str(o, "stop_reason", &native, &len) != RS_OK)
		return;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (strcmp(rows[i].native, native) == 0)
			finish = rows[i].finish;
	answer_reason(a, finish, native);
}

/* A block begins.  What it holds already is rarely anything. */
static void
anthropic_block(struct answer *a, uint64_t index, struct json_object *block)
{
	struct json_object *input = json_object_object_get(block, "input");
	const char *type, *id = NULL, *name = NULL;
	size_t len;

	if (jx_get_str(block, "type", &type, &len) != RS_OK)
		return;
	if (strcmp(type, "text") == 0) {
		answer_member(a, DELTA_CONTENT, block, "text");
	} else if (strcmp(type, "thinking") == 0) {
		answer_member(a, DELTA_REASONING, block, "thinking");
	} else if (strcmp(type, "tool_use") == 0) {
		jx_get_str(block, "id", &id, &len);
		jx_get_str(block, "name", &name, &len);
		if (json_object_is_type(input, json_type_object) &&
		    json_object_object_length(input) > 0)
			answer_tool_json(a, index, id, name, input);
		else
			answer_tool(a, index, id, name, "", 0);
	}
}

static void
anthropic_block_end(struct answer *a, uint64_t index)
{
	if (answer_tool_len(a, index) == 0)
		answer_tool(a, index, NULL, NULL, "{}", 2);
}

static void
anthropic_delta(struct answer *a, uint64_t index, struct json_object *delta)
{
	const char *type, *piece;
	size_t len;

	if (jx_get_str(delta, "type", &type, &len) != RS_OK)
		return;
	if (strcmp(type, "text_delta") == 0)
		answer_member(a, DELTA_CONTENT, delta, "text");
	else if (strcmp(type, "thinking_delta") == 0)
		answer_member(a, DELTA_REASONING, delta, "thinking");
	/* Tools that the upstream runs itself have such deltas as well. */
	else if (strcmp(type, "input_json_delta") == 0 &&
	    answer_tool_len(a, index) != SIZE_MAX &&
	    jx_get_str(delta, "partial_json", &piece, &len) == RS_OK)
		answer_tool(a, index, NULL, NULL, piece, len);
}

/* A message: whole, or as message_start has it, with nothing in it yet. */
static void
anthropic_message(struct answer *a, struct json_object *message)
{
	struct json_object *content = json_object_object_get(message,
	    "content");
	size_t i, n = 0;

	if (json_object_is_type(content, json_type_array))
		n = json_object_array_length(content);
	for (i = 0; i < n; i++) {
		anthropic_block(a, i, json_object_array_get_idx(content, i));
		anthropic_block_end(a, i);
	}
	anthropic_usage(a, json_object_object_get(message, "usage"));
	anthropic_reason(a, message);
}

static void
anthropic_event(struct answer *a, const struct sse_event *ev)
{
	const char *type = "error"; /* where it does not say, only that */
	struct json_object *root;
	uint64_t index = 0;
	size_t len;

	if (openai_is_done(ev)) /* some gateways add it */
		return;
	if ((root = answer_parse(a, ev->data, ev->data_len)) == NULL)
		return;
	jx_get_str(root, "type", &type, &len);
	jx_get_uint(root, "index", &index);
	if (strcmp(type, "message_start") == 0) {
		anthropic_message(a, json_object_object_get(root, "message"));
	} else if (strcmp(type, "content_block_start") == 0) {
		anthropic_block(a, index,
		    json_object_object_get(root, "content_block"));
	} else if (strcmp(type, "content_block_delta") == 0) {
		anthropic_delta(a, index,
		    json_object_object_get(root, "delta"));
	} else if (strcmp(type, "content_block_stop") == 0) {
		anthropic_block_end(a, index);
	} else if (strcmp(type, "message_delta") == 0) {
		anthropic_usage(a, json_object_object_get(root, "usage"));
		anthropic_reason(a, json_object_object_get(root, "delta"));
	} else if (strcmp(type, "message_stop") == 0) {
		answer_finish(a);
	} else if (strcmp(type, "error") == 0) {
		answer_fail_json(a, root);
	}
	json_object_put(root);
}

/* Only message_stop ends it well. */
static void
anthropic_end(struct answer *a)
{
	(void)a;
}

static void
anthropic_whole(struct answer *a, struct json_object *root)
{
	anthropic_message(a, root);
	if (answer_has_reason(a))
		answer_finish(a);
}

const struct provider provider_anthropic = {
	.framing = FRAMING_SSE,
	.request = anthropic_request,
	.event = anthropic_event,
	.end = anthropic_end,
	.whole = anthropic_whole,
};
