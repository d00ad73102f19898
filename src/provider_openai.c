/* provider_openai.c - OpenAI's chat completions, and whoever speaks them:
 * vLLM, llama.cpp, OpenRouter, DeepSeek, Groq, Mistral, xAI, LM Studio ...
 * Chunks without a name; the first choice counts, the others are not ours.
 * The reason to finish comes before the usage, so that only "[DONE]" or the
 * end of the body finishes the answer. */
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "jx.h"
#include "log.h"
#include "money.h"
#include "provider.h"
#include "provider_openai.h"
#include "request.h"

#define COUNT_MAX (UINT64_C(1) << 53)	/* of tokens; more is a mistake */
#define PICO_PER_TICK 100		/* xAI's ticks are 1e-10 USD */
#define DIGITS_MAX 64			/* of a cost, and its exponent */

bool
openai_is_done(const struct sse_event *ev)
{
	return strspn(ev->data, " ") + 6 <= ev->data_len &&
	    strncmp(ev->data + strspn(ev->data, " "), "[DONE]", 6) == 0;
}

/* OpenAI itself has given max_tokens another name, and refuses the old one
 * with its newer models; the others know the old one only. */
static bool
is_openai_itself(const char *base_url)
{
	static const char host[] = "https://api.openai.com";
	size_t len = sizeof host - 1;

	return strncasecmp(base_url, host, len) == 0 &&
	    (base_url[len] == '\0' || base_url[len] == '/' ||
	    base_url[len] == ':');
}

static enum rs_err
openai_request(const struct chat *chat, struct http_req *ret)
{
	static const struct request_param theirs[] = {
		{ "max_tokens", "max_completion_tokens", false },
		{ 0 }
	}, none[] = { { 0 } };
	const struct model *m = chat->model;
	struct json_object *options;
	struct request r;

	request_init(&r, chat);
	request_put_str(&r, r.root, "model", m->upstream_model);
	request_put(&r, r.root, "stream", json_object_new_boolean(true));
	if (!m->no_stream_usage) {
		options = json_object_new_object();
		request_put(&r, options, "include_usage",
		    json_object_new_boolean(true));
		request_put(&r, r.root, "stream_options", options);
	}
	request_put_messages(&r, true);
	request_put_parameters(&r, is_openai_itself(m->base_url) ? theirs :
	    none, NULL);
	buf_printf(&ret->url, "%s/chat/completions", m->base_url);
	request_key(chat, "Authorization", ret);
	return request_finish(&r, "text/event-stream", ret);
}

/* ---- usage ---- */

/* The first of these that is a count, else what it is otherwise. */
static uint64_t
count_of(struct json_object *o, const char *name, struct json_object *or_o,
    const char *or_name, uint64_t otherwise)
{
	uint64_t n;

	if (jx_get_uint(o, name, &n) == RS_OK && n <= COUNT_MAX)
		return n;
	if (jx_get_uint(or_o, or_name, &n) == RS_OK && n <= COUNT_MAX)
		return n;
	return otherwise;
}

/* Adds a JSON number without its exponent: 7.12e-05 is 0.0000712, exactly.
 * Nothing when it is negative or absurd. */
static void
put_decimal(struct buf *b, const char *s)
{
	char digits[DIGITS_MAX];
	long n = 0, scale = 0, exponent = 0, at;
	bool fraction = false;

	for (; (*s >= '0' && *s <= '9') || (*s == '.' && !fraction); s++) {
		if (*s == '.') {
			fraction = true;
			continue;
		}
		if (n == DIGITS_MAX)
			return;
		if (n > 0 || *s != '0')
			digits[n++] = *s;
		scale += fraction;
	}
	if (*s == 'e' || *s == 'E')
		exponent = strtol(s + 1, NULL, 10);
	else if (*s != '\0')
		return;
	if (exponent < -DIGITS_MAX || exponent > DIGITS_MAX ||
	    scale > DIGITS_MAX)
		return;
	scale -= exponent;
	for (; n > 0 && scale > 0 && digits[n - 1] == '0'; scale--)
		n--;
	if (n == 0)
		scale = 0;
	for (at = scale >= n ? scale + 1 : n; at > 0; at--) {
		if (at == scale)
			buf_puts(b, ".");
		buf_add(b, at > n ? "0" : &digits[n - at], 1);
	}
	for (; n > 0 && scale < 0; scale++)
		buf_puts(b, "0");
}

/* What it cost as the upstream reckons: OpenRouter, Perplexity, xAI. */
static void
put_cost(struct buf *b, struct json_object *usage)
{
	struct json_object *cost = json_object_object_get(usage, "cost");
	uint64_t ticks;

	if (json_object_is_type(cost, json_type_object))
		cost = json_object_object_get(cost, "total_cost");
	if (json_object_is_type(cost, json_type_double) ||
	    json_object_is_type(cost, json_type_int))
		/* json-c keeps a parsed number's own text. */
		put_decimal(b, json_object_get_string(cost));
	else if (jx_get_uint(usage, "cost_in_usd_ticks", &ticks) == RS_OK &&
	    ticks <= COUNT_MAX)
		money_put(b, ticks * PICO_PER_TICK);
}

void
openai_usage(struct answer *a, struct json_object *usage)
{
	const uint64_t none = TOKENS_UNKNOWN;
	uint64_t in = count_of(usage, "prompt_tokens", usage, "input_tokens",
	    none);
	uint64_t out = count_of(usage, "completion_tokens", usage,
	    "output_tokens", none);
	struct json_object *in_details, *out_details;
	struct usage u = { 0 };
	struct buf cost;

	if (in == none && out == none)
		return;
	in_details = json_object_object_get(usage, "prompt_tokens_details");
	if (in_details == NULL)
		in_details = json_object_object_get(usage,
		    "input_tokens_details");
	out_details = json_object_object_get(usage,
	    "completion_tokens_details");
	if (out_details == NULL)
		out_details = json_object_object_get(usage,
		    "output_tokens_details");
	u.cache_read = count_of(usage, "cached_tokens", usage,
	    "prompt_cache_hit_tokens", 0);
	u.cache_read = count_of(in_details, "cached_tokens", NULL, "",
	    u.cache_read);
	u.cache_write = count_of(in_details, "cache_write_tokens", NULL, "",
	    0);
	u.reasoning = count_of(out_details, "reasoning_tokens", usage,
	    "reasoning_tokens", 0);
	/* xAI's completion is without the reasoning; the total tells. */
	if (in != none && out != none && u.reasoning > 0 &&
	    count_of(usage, "total_tokens", NULL, "", 0) ==
	    in + out + u.reasoning)
		out += u.reasoning;
	if (in != none && in < u.cache_read + u.cache_write) {
		log_debug("provider", "input below its cached part");
		in = u.cache_read + u.cache_write;
	}
	u.input = in == none ? none : in - u.cache_read - u.cache_write;
	u.output = out;
	buf_init(&cost, 4 * DIGITS_MAX);
	put_cost(&cost, usage);
	answer_usage(a, &u, cost.len > 0 ? cost.data : NULL);
	buf_done(&cost);
}

/* ---- what it says ---- */

/* Typed parts in place of a text, as Mistral has them. */
static void
openai_parts(struct answer *a, enum delta_kind kind,
    struct json_object *parts)
{
	struct json_object *o, *thinking;
	size_t i;

	for (i = 0; i < json_object_array_length(parts); i++) {
		o = json_object_array_get_idx(parts, i);
		answer_member(a, kind, o, "text");
		thinking = json_object_object_get(o, "thinking");
		if (json_object_is_type(thinking, json_type_array) &&
		    kind == DELTA_CONTENT)
			openai_parts(a, DELTA_REASONING, thinking);
		else
			answer_member(a, DELTA_REASONING, o, "thinking");
	}
}

/* Calls have an index; where they do not, each begins with its id. */
static void
openai_tool(struct answer *a, struct json_object *call)
{
	struct json_object *function = json_object_object_get(call,
	    "function");
	struct json_object *object = json_object_object_get(function,
	    "arguments");
	const char *id = NULL, *name = NULL, *arguments = "";
	uint64_t index = answer_tools(a);
	size_t len;

	if (jx_get_str(call, "id", &id, &len) != RS_OK || len == 0)
		index -= index > 0;
	jx_get_uint(call, "index", &index);
	jx_get_str(function, "name", &name, &len);
	len = 0;
	jx_get_str(function, "arguments", &arguments, &len);
	if (json_object_is_type(object, json_type_object))
		answer_tool_json(a, index, id, name, object);
	else
		answer_tool(a, index, id, name, arguments, len);
}

/* A delta, or the message of a whole completion. */
static void
openai_delta(struct answer *a, struct json_object *delta)
{
	struct json_object *content = json_object_object_get(delta, "content");
	struct json_object *calls = json_object_object_get(delta, "tool_calls");
	const char *s;
	size_t i, len;

	/* Some say it under both names. */
	if (jx_get_str(delta, "reasoning_content", &s, &len) == RS_OK &&
	    len > 0)
		answer_text(a, DELTA_REASONING, s, len);
	else
		answer_member(a, DELTA_REASONING, delta, "reasoning");
	if (json_object_is_type(content, json_type_array))
		openai_parts(a, DELTA_CONTENT, content);
	else
		answer_member(a, DELTA_CONTENT, delta, "content");
	answer_member(a, DELTA_REFUSAL, delta, "refusal");
	if (json_object_is_type(calls, json_type_array))
		for (i = 0; i < json_object_array_length(calls); i++)
			openai_tool(a, json_object_array_get_idx(calls, i));
}

static void
openai_reason(struct answer *a, struct json_object *choice)
{
	static const struct {
		const char *word;
		enum finish finish;
	} rows[] = {
		{ "stop", FINISH_STOP },
		{ "eos_token", FINISH_STOP },
		{ "stop_sequence", FINISH_STOP },
		{ "length", FINISH_LENGTH },
		{ "model_length", FINISH_LENGTH },
		{ "content_filter", FINISH_CONTENT_FILTER },
		{ "tool_calls", FINISH_TOOL_CALLS },
		{ "function_call", FINISH_TOOL_CALLS },
	};
	enum finish finish = FINISH_UNKNOWN;
	const char *word, *native;
	size_t i, len;

	if (jx_get_str(choice, "finish_reason", &word, &len) != RS_OK ||
	    len == 0)
		return;
	if (strcmp(word, "error") == 0) {
		answer_fail_words(a, ERRTYPE_upstream_error, word, word,
		    NULL);
		return;
	}
	if (strcmp(word, "insufficient_system_resource") == 0) {
		answer_fail_words(a, ERRTYPE_overloaded, word, word, NULL);
		return;
	}
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (strcmp(rows[i].word, word) == 0)
			finish = rows[i].finish;
	if (jx_get_str(choice, "native_finish_reason", &native, &len) !=
	    RS_OK)
		native = word;
	answer_reason(a, finish, native);
}

/* The choice that is ours, or NULL. */
static struct json_object *
openai_choice(struct json_object *root)
{
	struct json_object *choices = json_object_object_get(root, "choices");
	struct json_object *o;
	uint64_t index;
	size_t i;

	if (!json_object_is_type(choices, json_type_array))
		return NULL;
	for (i = 0; i < json_object_array_length(choices); i++) {
		o = json_object_array_get_idx(choices, i);
		index = 0;
		jx_get_uint(o, "index", &index);
		if (index == 0)
			return o;
	}
	return NULL;
}

static void
openai_chunk(struct answer *a, struct json_object *root, const char *delta)
{
	struct json_object *choice = openai_choice(root);

	openai_delta(a, json_object_object_get(choice, delta));
	openai_usage(a, json_object_object_get(root, "usage"));
	if (!answer_fail_json(a, root) && !answer_fail_json(a, choice))
		openai_reason(a, choice);
}

static void
openai_event(struct answer *a, const struct sse_event *ev)
{
	struct json_object *root;

	if (openai_is_done(ev)) {
		answer_finish(a);
		return;
	}
	if ((root = answer_parse(a, ev->data, ev->data_len)) == NULL)
		return;
	openai_chunk(a, root, "delta");
	json_object_put(root);
}

static void
openai_end(struct answer *a)
{
	if (answer_has_reason(a))
		answer_finish(a);
}

static void
openai_whole(struct answer *a, struct json_object *root)
{
	if (openai_choice(root) == NULL) {
		answer_fail(a, ERRTYPE_upstream_bad_json);
		return;
	}
	openai_chunk(a, root, "message");
	answer_finish(a);
}

const struct provider provider_openai = {
	.framing = FRAMING_SSE,
	.request = openai_request,
	.event = openai_event,
	.end = openai_end,
	.whole = openai_whole,
};
