/* provider_responses.c - OpenAI's Responses API.
 * Events carry their name in the data's "type" too, and only that one counts.
 * What has a delta is told by its deltas; the events that repeat it when it is
 * done matter only to tools, whose arguments some servers send at once.  One
 * of response.completed, .incomplete and .failed ends it, or an error. */
#include <json-c/json.h>
#include <string.h>

#include "jx.h"
#include "provider.h"
#include "provider_openai.h"
#include "request.h"

static enum rs_err
responses_request(const struct chat *chat, struct http_req *ret)
{
	static const struct request_param rows[] = {
		{ "max_tokens", "max_output_tokens", false },
		{ 0 }
	};
	const struct model *m = chat->model;
	struct json_object *input = json_object_new_array(), *o, *system;
	struct request r;
	size_t i;

	request_init(&r, chat);
	request_put_str(&r, r.root, "model", m->upstream_model);
	request_put(&r, r.root, "stream", json_object_new_boolean(true));
	/* Who streams from here need not be able to come back there. */
	request_put(&r, r.root, "store", json_object_new_boolean(false));
	if ((system = request_system(&r)) != NULL)
		request_put(&r, r.root, "instructions", system);
	for (i = 0; i < json_object_array_length(chat->messages); i++) {
		o = json_object_array_get_idx(chat->messages, i);
		if (!request_is_role(o, "system"))
			request_append(&r, input, json_object_get(o));
	}
	request_put(&r, r.root, "input", input);
	request_put_parameters(&r, rows, NULL);
	buf_printf(&ret->url, "%s/responses", m->base_url);
	request_key(chat, "Authorization", ret);
	return request_finish(&r, "text/event-stream", ret);
}

static bool
is_type(struct json_object *o, const char *type)
{
	const char *s;
	size_t len;

	return jx_get_str(o, "type", &s, &len) == RS_OK &&
	    strcmp(s, type) == 0;
}

/* A function call as an item has it; with its arguments, if they were not
 * told yet. */
static void
responses_call(struct answer *a, uint64_t index, struct json_object *item,
    bool arguments_too)
{
	const char *id = NULL, *name = NULL, *arguments = "";
	size_t told = answer_tool_len(a, index), len = 0;

	if (!is_type(item, "function_call"))
		return;
	jx_get_str(item, "call_id", &id, &len);
	jx_get_str(item, "name", &name, &len);
	len = 0;
	if (arguments_too && (told == 0 || told == SIZE_MAX))
		jx_get_str(item, "arguments", &arguments, &len);
	answer_tool(a, index, id, name, arguments, len);
}

/* The texts in an array of parts. */
static void
responses_parts(struct answer *a, enum delta_kind kind,
    struct json_object *parts, const char *name)
{
	size_t i;

	if (!json_object_is_type(parts, json_type_array))
		return;
	for (i = 0; i < json_object_array_length(parts); i++)
		answer_member(a, kind, json_object_array_get_idx(parts, i),
		    name);
}

/* The response object of the last event, or the whole body. */
static void
responses_ended(struct answer *a, struct json_object *response)
{
	static const struct {
		const char *reason;
		enum finish finish;
	} rows[] = {
		{ "max_output_tokens", FINISH_LENGTH },
		{ "content_filter", FINISH_CONTENT_FILTER },
	};
	enum finish finish = FINISH_UNKNOWN;
	const char *status = "", *reason = "incomplete";
	size_t i, len;

	openai_usage(a, json_object_object_get(response, "usage"));
	if (answer_fail_json(a, response))
		return;
	jx_get_str(response, "status", &status, &len);
	if (strcmp(status, "completed") == 0) {
		answer_reason(a, answer_tools(a) > 0 ? FINISH_TOOL_CALLS :
		    FINISH_STOP, status);
		answer_finish(a);
		return;
	}
	if (strcmp(status, "incomplete") != 0) {
		answer_fail(a, ERRTYPE_upstream_error);
		return;
	}
	jx_get_str(json_object_object_get(response, "incomplete_details"),
	    "reason", &reason, &len);
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (strcmp(rows[i].reason, reason) == 0)
			finish = rows[i].finish;
	answer_reason(a, finish, reason);
	answer_finish(a);
}

static void
responses_told(struct answer *a, struct json_object *root)
{
	static const struct {
		const char *type;
		enum delta_kind kind;
	} deltas[] = {
		{ "response.output_text.delta", DELTA_CONTENT },
		{ "response.reasoning_summary_text.delta", DELTA_REASONING },
		{ "response.reasoning_text.delta", DELTA_REASONING },
		{ "response.refusal.delta", DELTA_REFUSAL },
	};
	struct json_object *item = json_object_object_get(root, "item");
	const char *piece;
	uint64_t index = 0;
	size_t i, len;

	for (i = 0; i < sizeof deltas / sizeof deltas[0]; i++)
		if (is_type(root, deltas[i].type))
			answer_member(a, deltas[i].kind, root, "delta");
	/* The item's id may change on the way. */
	jx_get_uint(root, "output_index", &index);
	if (is_type(root, "response.output_item.added"))
		responses_call(a, index, item, false);
	else if (is_type(root, "response.output_item.done"))
		responses_call(a, index, item, true);
	else if (is_type(root, "response.function_call_arguments.delta") &&
	    jx_get_str(root, "delta", &piece, &len) == RS_OK)
		answer_tool(a, index, NULL, NULL, piece, len);
}

static void
responses_event(struct answer *a, const struct sse_event *ev)
{
	struct json_object *root;

	if (openai_is_done(ev) ||
	    (root = answer_parse(a, ev->data, ev->data_len)) == NULL)
		return;
	if (is_type(root, "response.completed") ||
	    is_type(root, "response.incomplete") ||
	    is_type(root, "response.failed"))
		responses_ended(a, json_object_object_get(root, "response"));
	else if (!answer_fail_json(a, root))
		responses_told(a, root);
	json_object_put(root);
}

/* Only one of its own events ends it well. */
static void
responses_end(struct answer *a)
{
	(void)a;
}

static void
responses_whole(struct answer *a, struct json_object *root)
{
	struct json_object *output = json_object_object_get(root, "output");
	struct json_object *item, *content;
	size_t i;

	if (!json_object_is_type(output, json_type_array)) {
		answer_fail(a, ERRTYPE_upstream_bad_json);
		return;
	}
	for (i = 0; i < json_object_array_length(output); i++) {
		item = json_object_array_get_idx(output, i);
		content = json_object_object_get(item, "content");
		responses_parts(a, DELTA_REASONING,
		    json_object_object_get(item, "summary"), "text");
		responses_parts(a, DELTA_CONTENT, content, "text");
		responses_parts(a, DELTA_REFUSAL, content, "refusal");
		responses_call(a, i, item, true);
	}
	responses_ended(a, root);
}

const struct provider provider_responses = {
	.framing = FRAMING_SSE,
	.request = responses_request,
	.event = responses_event,
	.end = responses_end,
	.whole = responses_whole,
};
