/* provider_gemini.c - streamGenerateContent of Google's Gemini.
 * Each event is a whole response with what is new in it.  Nothing marks the
 * last one: some models give a reason to finish with each, so that only the
 * body's end tells.  Where alt=sse was overlooked the body is an array of the
 * same responses. */
#include <json-c/json.h>
#include <string.h>

#include "jx.h"
#include "provider.h"
#include "provider_openai.h"
#include "request.h"

#define VERSION_USUAL "v1beta"

static struct json_object *
gemini_text_parts(struct request *r, struct json_object *text)
{
	struct json_object *parts = json_object_new_array();
	struct json_object *part = json_object_new_object();

	request_put(r, part, "text", text);
	request_append(r, parts, part);
	return parts;
}

static void
gemini_put_messages(struct request *r)
{
	struct json_object *all = json_object_new_array(), *from, *to, *text;
	const struct chat *chat = r->chat;
	size_t i;

	for (i = 0; i < json_object_array_length(chat->messages); i++) {
		from = json_object_array_get_idx(chat->messages, i);
		if (request_is_role(from, "system"))
			continue;
		text = json_object_get(json_object_object_get(from,
		    "content"));
		to = json_object_new_object();
		request_put_str(r, to, "role",
		    request_is_role(from, "assistant") ? "model" : "user");
		request_put(r, to, "parts", gemini_text_parts(r, text));
		request_append(r, all, to);
	}
	request_put(r, r->root, "contents", all);
}

/* What a path's segment can hold stands for itself. */
static void
gemini_put_escaped(struct buf *b, const char *s)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	    "abcdefghijklmnopqrstuvwxyz0123456789-._~";

	for (; *s != '\0'; s++)
		if (strchr(plain, *s) != NULL)
			buf_add(b, s, 1);
		else
			buf_printf(b, "%%%02X", (unsigned char)*s);
}

static enum rs_err
gemini_request(const struct chat *chat, struct http_req *ret)
{
	static const struct request_param rows[] = {
		{ "max_tokens", "maxOutputTokens", false },
		{ "temperature", "temperature", false },
		{ "top_p", "topP", false },
		{ "top_k", "topK", false },
		{ "stop", "stopSequences", true },
		{ 0 }
	};
	const struct model *m = chat->model;
	struct json_object *system, *instruction;
	struct request r;

	request_init(&r, chat);
	gemini_put_messages(&r);
	if ((system = request_system(&r)) != NULL) {
		instruction = json_object_new_object();
		request_put(&r, instruction, "parts",
		    gemini_text_parts(&r, system));
		request_put(&r, r.root, "systemInstruction", instruction);
	}
	request_put_parameters(&r, rows, "generationConfig");
	buf_printf(&ret->url, "%s/%s/models/", m->base_url,
	    m->api_version != NULL ? m->api_version : VERSION_USUAL);
	gemini_put_escaped(&ret->url, m->upstream_model);
	buf_puts(&ret->url, ":streamGenerateContent?alt=sse");
	request_key(chat, "x-goog-api-key", ret);
	return request_finish(&r, "text/event-stream", ret);
}

static uint64_t
gemini_add(uint64_t a, uint64_t b)
{
	uint64_t sum;

	if (__builtin_add_overflow(a, b, &sum) || sum == TOKENS_UNKNOWN)
		return TOKENS_UNKNOWN - 1;
	return sum;
}

/* Running totals, each time all of them.  Some servers send objects without
 * any in between. */
static void
gemini_usage(struct answer *a, struct json_object *o)
{
	uint64_t prompt, tools = 0, cached = 0, candidates = 0, thoughts = 0;
	struct usage u = { 0 };

	if (jx_get_uint(o, "promptTokenCount", &prompt) != RS_OK)
		return;
	jx_get_uint(o, "toolUsePromptTokenCount", &tools);
	jx_get_uint(o, "cachedContentTokenCount", &cached);
	jx_get_uint(o, "candidatesTokenCount", &candidates);
	jx_get_uint(o, "thoughtsTokenCount", &thoughts);
	u.cache_read = cached;
	u.input = gemini_add(prompt, tools);
	u.input = u.input > cached ? u.input - cached : 0;
	u.output = gemini_add(candidates, thoughts);
	u.reasoning = thoughts;
	answer_usage(a, &u, NULL);
}

static void
gemini_part(struct answer *a, struct json_object *part)
{
	struct json_object *call = json_object_object_get(part,
	    "functionCall");
	const char *id = NULL, *name = NULL;
	bool thought = false;
	size_t len;

	jx_get_bool(part, "thought", &thought);
	answer_member(a, thought ? DELTA_REASONING : DELTA_CONTENT, part,
	    "text");
	if (!json_object_is_type(call, json_type_object))
		return;
	jx_get_str(call, "id", &id, &len);
	jx_get_str(call, "name", &name, &len);
	answer_tool_json(a, answer_tools(a), id, name,
	    json_object_object_get(call, "args"));
}

static bool
begins(const char *s, const char *with)
{
	return strncmp(s, with, strlen(with)) == 0;
}

/* A row ends with what the reason begins with. */
static void
gemini_reason(struct answer *a, struct json_object *candidate)
{
	static const struct {
		const char *native;
		enum finish finish;
	} rows[] = {
		{ "STOP", FINISH_STOP },
		{ "MAX_TOKENS", FINISH_LENGTH },
		{ "SAFETY", FINISH_CONTENT_FILTER },
		{ "RECITATION", FINISH_CONTENT_FILTER },
		{ "LANGUAGE", FINISH_CONTENT_FILTER },
		{ "BLOCKLIST", FINISH_CONTENT_FILTER },
		{ "PROHIBITED_CONTENT", FINISH_CONTENT_FILTER },
		{ "SPII", FINISH_CONTENT_FILTER },
		{ "IMAGE_", FINISH_CONTENT_FILTER },
	};
	enum finish finish = FINISH_UNKNOWN;
	const char *native, *message = NULL;
	size_t i, len;

	if (jx_get_str(candidate, "finishReason", &native, &len) != RS_OK)
		return;
	if (begins(native, "MALFORMED_") ||
	    strcmp(native, "UNEXPECTED_TOOL_CALL") == 0 ||
	    strcmp(native, "TOO_MANY_TOOL_CALLS") == 0) {
		jx_get_str(candidate, "finishMessage", &message, &len);
		answer_fail_words(a, ERRTYPE_model_output_invalid, NULL,
		    native, message);
		return;
	}
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (begins(native, rows[i].native))
			finish = rows[i].finish;
	if (finish == FINISH_STOP && answer_tools(a) > 0)
		finish = FINISH_TOOL_CALLS;
	answer_reason(a, finish, native);
}

static void
gemini_candidate(struct answer *a, struct json_object *candidate)
{
	struct json_object *parts = json_object_object_get(
	    json_object_object_get(candidate, "content"), "parts");
	uint64_t index = 0;
	size_t i;

	jx_get_uint(candidate, "index", &index);
	if (index != 0)
		return;
	if (json_object_is_type(parts, json_type_array))
		for (i = 0; i < json_object_array_length(parts); i++)
			gemini_part(a, json_object_array_get_idx(parts, i));
	gemini_reason(a, candidate);
}

static void
gemini_response(struct answer *a, struct json_object *o)
{
	struct json_object *candidates = json_object_object_get(o,
	    "candidates");
	const char *blocked;
	size_t i, len;

	if (answer_fail_json(a, o))
		return;
	gemini_usage(a, json_object_object_get(o, "usageMetadata"));
	if (jx_get_str(json_object_object_get(o, "promptFeedback"),
	    "blockReason", &blocked, &len) == RS_OK)
		answer_reason(a, FINISH_CONTENT_FILTER, blocked);
	if (json_object_is_type(candidates, json_type_array))
		for (i = 0; i < json_object_array_length(candidates); i++)
			gemini_candidate(a,
			    json_object_array_get_idx(candidates, i));
}

static void
gemini_responses(struct answer *a, struct json_object *root)
{
	size_t i;

	if (!json_object_is_type(root, json_type_array)) {
		gemini_response(a, root);
		return;
	}
	for (i = 0; i < json_object_array_length(root) && !answer_over(a); i++)
		gemini_response(a, json_object_array_get_idx(root, i));
}

static void
gemini_event(struct answer *a, const struct sse_event *ev)
{
	struct json_object *root;

	if (openai_is_done(ev)) /* some gateways add it */
		return;
	if ((root = answer_parse(a, ev->data, ev->data_len)) == NULL)
		return;
	gemini_responses(a, root);
	json_object_put(root);
}

static void
gemini_end(struct answer *a)
{
	if (answer_has_reason(a))
		answer_finish(a);
}

static void
gemini_whole(struct answer *a, struct json_object *root)
{
	gemini_responses(a, root);
	gemini_end(a);
}

const struct provider provider_gemini = {
	.framing = FRAMING_SSE,
	.request = gemini_request,
	.event = gemini_event,
	.end = gemini_end,
	.whole = gemini_whole,
};
