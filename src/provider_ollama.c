/* provider_ollama.c - the native API of Ollama: one JSON object a line, of
 * which the last says that it is done and counts the tokens. */
#include <json-c/json.h>
#include <string.h>

#include "jx.h"
#include "provider.h"
#include "request.h"

static enum rs_err
ollama_request(const struct chat *chat, struct http_req *ret)
{
	static const struct request_param rows[] = {
		{ "max_tokens", "num_predict", false },
		{ "temperature", "temperature", false },
		{ "top_p", "top_p", false },
		{ "top_k", "top_k", false },
		{ "stop", "stop", true },
		{ 0 }
	};
	struct request r;

	request_init(&r, chat);
	request_put_str(&r, r.root, "model", chat->model->upstream_model);
	request_put(&r, r.root, "stream", json_object_new_boolean(true));
	request_put_messages(&r, true);
	request_put_parameters(&r, rows, "options");
	buf_printf(&ret->url, "%s/api/chat", chat->model->base_url);
	request_key(chat, "Authorization", ret);
	return request_finish(&r, "application/x-ndjson", ret);
}

/* Each call is whole. */
static void
ollama_tools(struct answer *a, struct json_object *calls)
{
	struct json_object *call, *function;
	const char *id, *name;
	size_t i, len;

	if (!json_object_is_type(calls, json_type_array))
		return;
	for (i = 0; i < json_object_array_length(calls); i++) {
		id = name = NULL;
		call = json_object_array_get_idx(calls, i);
		function = json_object_object_get(call, "function");
		if (!json_object_is_type(function, json_type_object))
			continue;
		jx_get_str(call, "id", &id, &len);
		jx_get_str(function, "name", &name, &len);
		answer_tool_json(a, answer_tools(a), id, name,
		    json_object_object_get(function, "arguments"));
	}
}

/* Counts that are 0 are left out.  So is the prompt's when it was in a cache:
 * nothing tells the two apart. */
static void
ollama_usage(struct answer *a, struct json_object *o)
{
	struct usage u = { 0 };

	jx_get_uint(o, "prompt_eval_count", &u.input);
	jx_get_uint(o, "eval_count", &u.output);
	answer_usage(a, &u, NULL);
}

static void
ollama_done(struct answer *a, struct json_object *o)
{
	enum finish finish = FINISH_UNKNOWN; /* "load": nothing was asked */
	const char *native = NULL;
	size_t len;

	if (jx_get_str(o, "done_reason", &native, &len) != RS_OK)
		native = NULL;
	else if (strcmp(native, "stop") == 0)
		finish = answer_tools(a) > 0 ? FINISH_TOOL_CALLS : FINISH_STOP;
	else if (strcmp(native, "length") == 0)
		finish = FINISH_LENGTH;
	ollama_usage(a, o);
	answer_reason(a, finish, native);
	answer_finish(a);
}

static void
ollama_event(struct answer *a, const struct sse_event *ev)
{
	struct json_object *root, *message;
	bool done = false;

	if ((root = answer_parse(a, ev->data, ev->data_len)) == NULL)
		return;
	message = json_object_object_get(root, "message");
	if (!answer_fail_json(a, root)) {
		answer_member(a, DELTA_REASONING, message, "thinking");
		answer_member(a, DELTA_CONTENT, message, "content");
		ollama_tools(a, json_object_object_get(message, "tool_calls"));
		jx_get_bool(root, "done", &done);
		if (done)
			ollama_done(a, root);
	}
	json_object_put(root);
}

/* Only the line that is done ends it well. */
static void
ollama_end(struct answer *a)
{
	(void)a;
}

/* A whole answer is a line as well, so that there is nothing else to read. */
const struct provider provider_ollama = {
	.framing = FRAMING_LINES,
	.request = ollama_request,
	.event = ollama_event,
	.end = ollama_end,
};
