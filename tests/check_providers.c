/* check_providers.c - what the providers that are not OpenAI's make of what
 * the recorded transcripts do not have. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "provider.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))
#define TOLD_MAX 65536

#define EV(json) "data: " json "\n\n"
#define ANT_TEXT EV("{\"type\":\"content_block_delta\",\"index\":0," \
	"\"delta\":{\"type\":\"text_delta\",\"text\":\"hi\"}}")
#define ANT_START(block) EV("{\"type\":\"content_block_start\"," \
	"\"index\":3,\"content_block\":" block "}")
#define ANT_ARGS(json) EV("{\"type\":\"content_block_delta\",\"index\":3," \
	"\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":" json "}}")
#define ANT_STOP EV("{\"type\":\"content_block_stop\",\"index\":3}")
#define ANT_USAGE(counts) EV("{\"type\":\"message_delta\",\"delta\":{}," \
	"\"usage\":{" counts "}}")
#define ANT_END(reason) EV("{\"type\":\"message_delta\"," \
	"\"delta\":{\"stop_reason\":\"" reason "\"}}") \
	EV("{\"type\":\"message_stop\"}")
#define GEM(parts, reason) "{\"candidates\":[{\"content\":{\"parts\":[" \
	parts "]}" reason "}]}"
#define GEM_USAGE(counts) EV("{\"usageMetadata\":{" counts "}}")
#define STOP ",\"finishReason\":\"STOP\""
#define A "{\"text\":\"a\"}"

/* want: each delta's kind and what it says, pieces of one kind joined; of
 * usage only the last. */
static const struct row {
	const struct provider *p;
	const char *in, *want;
} rows[] = {
	/* ---- anthropic ---- */
	{ &provider_anthropic, /* what comes twice, and an end mark */
	    EV("{\"type\":\"message_start\",\"message\":{\"usage\":"
	    "{\"input_tokens\":5,\"output_tokens\":1}}}")
	    EV("{\"type\":\"message_start\",\"message\":{\"usage\":"
	    "{\"input_tokens\":5,\"output_tokens\":1}}}")
	    ANT_TEXT ANT_USAGE("\"output_tokens\":9") EV("[DONE]")
	    ANT_END("end_turn") EV("[DONE]"),
	    "text=hi finish=stop/end_turn usage=5,0,0,9,0" },
	{ &provider_anthropic, ANT_TEXT EV("[DONE]"),
	    "text=hi error=upstream_truncated" },
	{ &provider_anthropic, /* a reason is not the end */
	    ANT_TEXT EV("{\"type\":\"message_delta\","
	    "\"delta\":{\"stop_reason\":\"end_turn\"}}"),
	    "text=hi error=upstream_truncated" },
	{ &provider_anthropic, ANT_END("model_context_window_exceeded"),
	    "finish=length/model_context_window_exceeded" },
	{ &provider_anthropic, ANT_END("something_new"),
	    "finish=unknown/something_new" },
	{ &provider_anthropic, ANT_USAGE("\"output_tokens\":9")
	    ANT_END("end_turn"), "finish=stop/end_turn usage=?,0,0,9,0" },
	{ &provider_anthropic, /* text where a block begins */
	    ANT_START("{\"type\":\"text\",\"text\":\"a\"}")
	    ANT_START("{\"type\":\"thinking\",\"thinking\":\"b\"}")
	    ANT_END("end_turn"), "text=a reasoning=b finish=stop/end_turn" },
	{ &provider_anthropic, /* and arguments */
	    ANT_START("{\"type\":\"tool_use\",\"id\":\"i\",\"name\":\"n\","
	    "\"input\":{\"a\":\"/\"}}") ANT_STOP ANT_END("tool_use"),
	    "tool0=i,n,{\"a\":\"/\"} finish=tool_calls/tool_use" },
	{ &provider_anthropic, /* a piece after the block, and none before */
	    ANT_ARGS("\"1\"") ANT_START("{\"type\":\"tool_use\","
	    "\"id\":\"i\",\"name\":\"n\",\"input\":{}}") ANT_ARGS("\"{\"")
	    ANT_ARGS("\"}\"") ANT_STOP ANT_END("tool_use"),
	    "tool0=i,n,{} finish=tool_calls/tool_use" },
	{ &provider_anthropic,
	    "{\"type\":\"message\",\"content\":["
	    "{\"type\":\"thinking\",\"thinking\":\"hm\"},"
	    "{\"type\":\"text\",\"text\":\"hi\"},"
	    "{\"type\":\"tool_use\",\"id\":\"i\",\"name\":\"n\","
	    "\"input\":{}}],\"stop_reason\":\"tool_use\","
	    "\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}",
	    "reasoning=hm text=hi tool0=i,n,{} finish=tool_calls/tool_use "
	    "usage=5,0,0,1,0" },
	{ &provider_anthropic, /* no type, yet plain enough */
	    "event: error\n" EV("{\"error\":{\"type\":\"overloaded_error\","
	    "\"message\":\"m\"}}"), "error=overloaded" },
	{ &provider_anthropic, EV("{\"type\":\"error\"}"),
	    "error=upstream_error" },
	{ &provider_anthropic, /* nothing is of the type it should be */
	    EV("{\"type\":7,\"index\":-3,\"delta\":[],\"usage\":3}")
	    EV("{\"type\":\"content_block_start\",\"content_block\":[]}")
	    EV("{\"type\":\"content_block_start\",\"content_block\":"
	    "{\"type\":\"text\",\"text\":4}}")
	    EV("{\"type\":\"content_block_delta\",\"delta\":\"x\"}")
	    EV("{\"type\":\"message_delta\",\"delta\":3,\"usage\":[]}")
	    EV("{\"type\":\"message_start\"}") EV("[]")
	    EV("{\"type\":\"message_start\",\"message\":{\"content\":[4]}}")
	    ANT_TEXT ANT_END("end_turn"), "text=hi finish=stop/end_turn" },
	/* ---- gemini ---- */
	{ &provider_gemini,
	    EV("{\"candidates\":[{\"content\":{\"parts\":[" A "]},"
	    "\"finishReason\":\"MALFORMED_FUNCTION_CALL\"}],"
	    "\"usageMetadata\":{\"promptTokenCount\":6,"
	    "\"candidatesTokenCount\":3}}"),
	    "text=a error=model_output_invalid/MALFORMED_FUNCTION_CALL "
	    "usage=6,0,0,3,0" },
	{ &provider_gemini, EV(GEM("",
	    ",\"finishReason\":\"UNEXPECTED_TOOL_CALL\"")),
	    "error=model_output_invalid/UNEXPECTED_TOOL_CALL" },
	{ &provider_gemini, EV(GEM(A, ",\"finishReason\":\"IMAGE_SAFETY\"")),
	    "text=a finish=content_filter/IMAGE_SAFETY" },
	{ &provider_gemini, EV(GEM(A, ",\"finishReason\":\"OTHER\"")),
	    "text=a finish=unknown/OTHER" },
	{ &provider_gemini, /* an error among responses */
	    "[" GEM(A, "") ",{\"error\":{\"code\":503,\"message\":\"m\","
	    "\"status\":\"UNAVAILABLE\"}}]", "text=a error=overloaded/503" },
	{ &provider_gemini, "[" GEM(A, "") ",{\"candi",
	    "error=upstream_truncated" },
	{ &provider_gemini, "{\"error\":{\"code\":400,\"message\":\"m\","
	    "\"status\":\"INVALID_ARGUMENT\",\"details\":["
	    "{\"reason\":\"API_KEY_INVALID\"}]}}", "error=auth/400" },
	{ &provider_gemini, /* not array, one response */
	    GEM(A, STOP), "text=a finish=stop/STOP" },
	{ &provider_gemini, /* the second candidate is not ours */
	    EV("{\"candidates\":[{\"index\":1,\"content\":{\"parts\":[" A
	    "]},\"finishReason\":\"STOP\"},{\"index\":0,\"content\":"
	    "{\"parts\":[{\"text\":\"b\"}]},\"finishReason\":"
	    "\"MAX_TOKENS\"}]}"), "text=b finish=length/MAX_TOKENS" },
	{ &provider_gemini, /* two calls, one with an id, one without args */
	    EV(GEM("{\"functionCall\":{\"name\":\"n\",\"args\":{\"a\":1}}},"
	    "{\"functionCall\":{\"id\":\"i\",\"name\":\"n\"}}", STOP)),
	    "tool0=-,n,{\"a\":1} tool1=i,n,{} finish=tool_calls/STOP" },
	{ &provider_gemini, /* what tools fetched is input, and no counts */
	    GEM_USAGE("\"promptTokenCount\":6,\"toolUsePromptTokenCount\":10,"
	    "\"cachedContentTokenCount\":3,\"thoughtsTokenCount\":2")
	    GEM_USAGE("\"trafficType\":\"ON_DEMAND\"")
	    EV(GEM(A, STOP)), "text=a finish=stop/STOP usage=13,3,0,2,2" },
	{ &provider_gemini, /* more was cached than there was */
	    GEM_USAGE("\"promptTokenCount\":6,\"cachedContentTokenCount\":7")
	    EV(GEM(A, STOP)), "text=a finish=stop/STOP usage=0,7,0,0,0" },
	{ &provider_gemini,
	    GEM_USAGE("\"promptTokenCount\":18446744073709551614,"
	    "\"toolUsePromptTokenCount\":18446744073709551614")
	    EV(GEM(A, STOP)), "text=a finish=stop/STOP "
	    "usage=18446744073709551614,0,0,0,0" },
	{ &provider_gemini, EV(GEM(A, STOP)) EV("[DONE]"),
	    "text=a finish=stop/STOP" },
	{ &provider_gemini, EV("[DONE]"), "error=upstream_truncated" },
	{ &provider_gemini, /* nothing is of the type it should be */
	    EV("{\"candidates\":{\"a\":1},\"usageMetadata\":[],"
	    "\"promptFeedback\":4}") EV("{\"candidates\":[7,null,{\"content\":"
	    "[],\"finishReason\":8},{\"content\":{\"parts\":{}}}]}")
	    EV(GEM("7,null,{\"text\":1,\"thought\":2,\"functionCall\":3}", ""))
	    EV("[[7]]") EV(GEM(A, STOP)), "text=a finish=stop/STOP" },
	/* ---- ollama ---- */
	{ &provider_ollama, "{\"message\":{\"content\":\"\"},\"done\":true,"
	    "\"done_reason\":\"load\"}\n",
	    "finish=unknown/load usage=0,0,0,0,0" },
	{ &provider_ollama, /* no line end */
	    "{\"message\":{\"content\":\"x\"},\"done\":true,"
	    "\"done_reason\":\"stop\",\"eval_count\":3}",
	    "text=x finish=stop/stop usage=0,0,0,3,0" },
	{ &provider_ollama, /* blank lines, CR LF, no reason */
	    "\n\r\n{\"message\":{\"content\":\"x\"}}\r\n\n"
	    "{\"message\":{\"tool_calls\":[{\"id\":\"i\",\"function\":"
	    "{\"name\":\"n\"}},4,{}]},\"done\":true}\n",
	    "text=x tool0=i,n,{} finish=unknown usage=0,0,0,0,0" },
	{ &provider_ollama, "{\"message\":3,\"done\":\"true\"}\n7\n",
	    "error=upstream_bad_json" },
	{ &provider_ollama, "{\"error\":\"no\"}\n", "error=upstream_error" },
	/* ---- exec ---- */
	{ &provider_exec_text, " \n\n ", "text= \n\n  finish=stop" },
	{ &provider_exec_text, "za\xc5\xbc\xff\xc5",
	    "text=za\xc5\xbc\xef\xbf\xbd\xef\xbf\xbd finish=stop" },
	{ &provider_exec_text, "", "finish=stop" },
	{ &provider_exec_lines, "a\n\n b\r\nc", "text=a\n\n b\r\nc finish=stop" },
	{ &provider_exec_jsonl,
	    "{\"content\":\"a\\ud83e\"}\n\n{\"content\":\"\\udeb6\","
	    "\"reasoning\":\"r\"}\n{\"usage\":{\"input\":3,\"output\":4}}\n"
	    "{\"finish_reason\":\"length\"}\n{\"more\":[1]}",
	    "text=a reasoning=r text=\xf0\x9f\xaa\xb6 finish=length/length "
	    "usage=3,0,0,4,0" },
	{ &provider_exec_jsonl, "{\"usage\":{\"cache_read\":1,"
	    "\"cache_write\":2,\"reasoning\":3}}\n{\"usage\":7}\n",
	    "finish=stop usage=?,1,2,?,3" },
	{ &provider_exec_jsonl, /* not a command's to say */
	    "{\"finish_reason\":\"stopped\"}\n", "finish=unknown/stopped" },
	{ &provider_exec_jsonl, "{\"content\":\"a\"}\n{\"error\":\"no\"}\n"
	    "{\"content\":\"b\"}\n", "text=a error=upstream_error" },
	{ &provider_exec_jsonl, "{\"error\":{\"type\":\"overloaded_error\","
	    "\"code\":9,\"message\":\"x\"}}", "error=overloaded/9" },
	{ &provider_exec_jsonl, "{\"content\":\"a\"}\nhello\n",
	    "text=a error=upstream_bad_json" },
	{ &provider_exec_jsonl, "{\"content\":\"a\"}\n{\"cont",
	    "text=a error=upstream_truncated" },
};

/* What was told, as text. */
struct told {
	struct buf text;
	enum delta_kind kind;	/* of the piece at its end */
	uint64_t tool;
	struct usage usage;
	bool has_usage;
};

/* "NAME=", unless it goes on. */
static void
put_name(struct told *t, const char *name, const struct delta *d)
{
	bool tool = d->kind == DELTA_TOOL_CALL;

	if (t->text.len > 0 && t->kind == d->kind &&
	    (!tool || t->tool == d->tool.index))
		return;
	t->kind = d->kind;
	t->tool = d->tool.index;
	buf_puts(&t->text, t->text.len > 0 ? " " : "");
	buf_puts(&t->text, name);
	if (tool)
		buf_printf(&t->text, "%llu",
		    (unsigned long long)d->tool.index);
	buf_puts(&t->text, "=");
}

static void
on_delta(void *arg, const struct delta *d)
{
	struct told *t = arg;

	switch (d->kind) {
	case DELTA_CONTENT:
		put_name(t, "text", d);
		buf_add(&t->text, d->text, d->len);
		break;
	case DELTA_REASONING:
		put_name(t, "reasoning", d);
		buf_add(&t->text, d->text, d->len);
		break;
	case DELTA_TOOL_CALL:
		put_name(t, "tool", d);
		if (d->tool.name != NULL)
			buf_printf(&t->text, "%s,%s,",
			    d->tool.id != NULL ? d->tool.id : "-",
			    d->tool.name);
		buf_add(&t->text, d->text, d->len);
		break;
	case DELTA_USAGE:
		t->usage = d->usage;
		t->has_usage = true;
		break;
	case DELTA_FINISH:
		put_name(t, "finish", d);
		buf_puts(&t->text, finish_name(d->finish));
		if (d->native_finish != NULL)
			buf_printf(&t->text, "/%s", d->native_finish);
		break;
	case DELTA_ERROR:
		put_name(t, "error", d);
		buf_puts(&t->text, errtype_info(d->error.type)->name);
		if (d->error.upstream_code != NULL &&
		    (d->error.upstream_type == NULL ||
		    strcmp(d->error.upstream_type, d->error.upstream_code)))
			buf_printf(&t->text, "/%s", d->error.upstream_code);
		break;
	default:
		ck_abort();
	}
}

static void
put_usage(struct told *t)
{
	const struct usage *u = &t->usage;
	const uint64_t counts[] = { u->input, u->cache_read, u->cache_write,
		u->output, u->reasoning };
	int i;

	for (i = 0; t->has_usage && i < COUNT(counts); i++) {
		buf_puts(&t->text, i == 0 ? " usage=" : ",");
		if (counts[i] == TOKENS_UNKNOWN)
			buf_puts(&t->text, "?");
		else
			buf_printf(&t->text, "%llu",
			    (unsigned long long)counts[i]);
	}
}

/* Each piece in memory of its own size, so that a step beyond it shows. */
static void
feed(const struct row *row, size_t step)
{
	size_t i, n = strlen(row->in), len;
	struct told t = { 0 };
	struct answer *a;
	char *piece;

	buf_init(&t.text, TOLD_MAX);
	ck_assert_int_eq(answer_new(row->p, on_delta, &t, &a), RS_OK);
	for (i = 0; i < n; i += len) {
		len = n - i < step ? n - i : step;
		piece = malloc(len);
		ck_assert_ptr_nonnull(piece);
		memcpy(piece, row->in + i, len);
		answer_feed(a, piece, len);
		free(piece);
	}
	answer_end(a, true);
	ck_assert(answer_over(a));
	answer_free(a);
	put_usage(&t);
	ck_assert_str_eq(t.text.data, row->want);
	buf_done(&t.text);
}

START_TEST(what_comes_is_understood_however_it_is_cut)
{
	feed(&rows[_i], SIZE_MAX);
	feed(&rows[_i], 1);
	feed(&rows[_i], 7);
}
END_TEST

static void
count_content(void *arg, const struct delta *d)
{
	size_t *n = arg;

	*n += d->kind == DELTA_CONTENT;
}

START_TEST(a_line_is_one_chunk)
{
	static const char lines[] = "one\ntwo\n\nfour\nfive";
	struct answer *a;
	size_t i, n = 0;

	ck_assert_int_eq(answer_new(&provider_exec_lines, count_content, &n,
	    &a), RS_OK);
	for (i = 0; i < sizeof lines - 1; i++)
		answer_feed(a, &lines[i], 1);
	ck_assert_uint_eq(n, 4);
	answer_end(a, true);
	ck_assert_uint_eq(n, 5);
	answer_free(a);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("providers");
	TCase *tc = tcase_create("providers");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(tc, what_comes_is_understood_however_it_is_cut, 0,
	    COUNT(rows));
	tcase_add_test(tc, a_line_is_one_chunk);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
