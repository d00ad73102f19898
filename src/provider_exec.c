/* provider_exec.c - what a configured command says on its standard output.
 * It is the answer as it stands (text, lines), or JSON lines: each an object
 * with any of these members, told in this order; others are ignored.
 *	error		a text, or an object {message, type, code}: the answer
 *			ends here
 *	reasoning	text
 *	content		text
 *	usage		{input, cache_read, cache_write, output, reasoning},
 *			tokens as in the done frame: in place of what was said
 *			before; input and output are unknown when left out, the
 *			others 0
 *	finish_reason	stop, length, content_filter, tool_calls, pause, or
 *			unknown: takes effect at the end of the output
 * The end of the output, with status 0, ends the answer: stop, unless a line
 * said something else. */
#include <json-c/json.h>
#include <string.h>

#include "jx.h"
#include "provider.h"

static void
exec_text(struct answer *a, const struct sse_event *ev)
{
	answer_text(a, DELTA_CONTENT, ev->data, ev->data_len);
}

static void
exec_usage(struct answer *a, struct json_object *o)
{
	struct usage u = { .input = TOKENS_UNKNOWN, .output = TOKENS_UNKNOWN };

	if (!json_object_is_type(o, json_type_object))
		return;
	jx_get_uint(o, "input", &u.input);
	jx_get_uint(o, "cache_read", &u.cache_read);
	jx_get_uint(o, "cache_write", &u.cache_write);
	jx_get_uint(o, "output", &u.output);
	jx_get_uint(o, "reasoning", &u.reasoning);
	answer_usage(a, &u, NULL);
}

static void
exec_reason(struct answer *a, struct json_object *o)
{
	enum finish f = FINISH_STOP;
	const char *name;
	size_t len;

	if (jx_get_str(o, "finish_reason", &name, &len) != RS_OK)
		return;
	while (f < FINISH_STOPPED && strcmp(finish_name(f), name) != 0)
		f++;
	answer_reason(a, f < FINISH_STOPPED ? f : FINISH_UNKNOWN, name);
}

static void
exec_json(struct answer *a, const struct sse_event *ev)
{
	struct json_object *o;

	if ((o = answer_parse(a, ev->data, ev->data_len)) == NULL)
		return;
	if (!answer_fail_json(a, o)) {
		answer_member(a, DELTA_REASONING, o, "reasoning");
		answer_member(a, DELTA_CONTENT, o, "content");
		exec_usage(a, json_object_object_get(o, "usage"));
		exec_reason(a, o);
	}
	json_object_put(o);
}

static void
exec_end(struct answer *a)
{
	if (!answer_has_reason(a))
		answer_reason(a, FINISH_STOP, NULL);
	answer_finish(a);
}

const struct provider provider_exec_text = {
	.framing = FRAMING_BYTES, .event = exec_text, .end = exec_end,
}, provider_exec_lines = {
	.framing = FRAMING_TEXT_LINES, .event = exec_text, .end = exec_end,
}, provider_exec_jsonl = {
	.framing = FRAMING_LINES, .event = exec_json, .end = exec_end,
};
