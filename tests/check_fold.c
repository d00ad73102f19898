/* check_fold.c - what a stream says when all its frames are put together. */
#include <json-c/json.h>

#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dialect.h"
#include "fold.h"
#include "jx.h"
#include "money.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))
#define MAX 1000

struct row {
	const char *event, *data;
};

/* Takes rows as frames 0, 1, ...; the first error, or RS_OK. */
static enum rs_err
take(struct fold *f, const struct row *rows, size_t count)
{
	enum rs_err err = RS_OK;
	struct sse_frame frame;
	struct buf b;
	size_t i;

	buf_init(&b, SSE_FRAME_MAX);
	for (i = 0; i < count && rows[i].event != NULL; i++) {
		buf_clear(&b);
		sse_frame_write(&b, rows[i].event, i, rows[i].data,
		    strlen(rows[i].data));
		ck_assert_int_eq(sse_frame_scan(b.data, b.len, &frame),
		    SSE_FRAME);
		if ((err = fold_add(f, &frame)) != RS_OK)
			break;
	}
	buf_done(&b);
	return err;
}

static void
check_snapshot(const struct fold *f, const char *want)
{
	struct json_object *o;
	const char *why;
	struct buf b;

	buf_init(&b, 100000);
	fold_put(f, "s1", "demo", &b);
	ck_assert_str_eq(b.data, want);
	ck_assert_int_eq(jx_parse(b.data, b.len, &o, &why), RS_OK);
	json_object_put(o);
	buf_done(&b);
}

static struct fold *
new_fold(void)
{
	struct fold *f;

	ck_assert_int_eq(fold_new(MAX, &f), RS_OK);
	return f;
}

#define CHUNK(text, cost) \
	{ "message_chunk", "{\"content\":\"" text "\",\"tokens\":1," \
	    "\"cost_usd\":" cost "}" }
#define HEART { "heartbeat", "{}" }

static const struct {
	struct row rows[8];
	enum fold_state state;
	const char *want;
} streams[] = {
	{ { { NULL, NULL } }, FOLD_LIVE,
	    "{\"stream_id\":\"s1\",\"state\":\"live\",\"text\":\"\","
	    "\"reasoning\":\"\",\"tool_calls\":[],\"model\":\"demo\","
	    "\"usage\":null,\"total_tokens\":0,\"total_cost\":null,"
	    "\"estimated\":true,\"latency_ms\":null,\"finish_reason\":null,"
	    "\"error_type\":null,\"partial\":true,\"last_event_id\":-1}" },
	{ { CHUNK("Hel", "0.0000006"), HEART, CHUNK("lo\\n", "0.0000006"),
	    { "reasoning_chunk", "{\"content\":\"hm\",\"tokens\":3}" },
	    { "something_new", "{\"a\":1}" } }, FOLD_LIVE,
	    "{\"stream_id\":\"s1\",\"state\":\"live\",\"text\":\"Hello\\n\","
	    "\"reasoning\":\"hm\",\"tool_calls\":[],\"model\":\"demo\","
	    "\"usage\":null,\"total_tokens\":5,\"total_cost\":0.0000012,"
	    "\"estimated\":true,\"latency_ms\":null,\"finish_reason\":null,"
	    "\"error_type\":null,\"partial\":true,\"last_event_id\":4}" },
	{ { CHUNK("a\\u0000b", "0.0000006"), CHUNK("c", "null") }, FOLD_LIVE,
	    "{\"stream_id\":\"s1\",\"state\":\"live\","
	    "\"text\":\"a\\u0000bc\",\"reasoning\":\"\",\"tool_calls\":[],"
	    "\"model\":\"demo\",\"usage\":null,\"total_tokens\":2,"
	    "\"total_cost\":null,\"estimated\":true,\"latency_ms\":null,"
	    "\"finish_reason\":null,\"error_type\":null,\"partial\":true,"
	    "\"last_event_id\":1}" },
	{ { CHUNK("a", "0"),
	    { "done", "{\"total_tokens\":115,\"total_cost\":0.00006150,"
	      "\"latency_ms\":5012,\"first_token_ms\":3,"
	      "\"finish_reason\":\"stop\",\"model\":\"m/x\","
	      "\"usage\":{\"input\":15,\"output\":100,\"cache_read\":null},"
	      "\"estimated\":false,\"stream_id\":\"other\",\"new\":1}" } },
	    FOLD_FINISHED,
	    "{\"stream_id\":\"s1\",\"state\":\"finished\",\"text\":\"a\","
	    "\"reasoning\":\"\",\"tool_calls\":[],\"model\":\"m/x\","
	    "\"usage\":{\"input\":15,\"output\":100,\"cache_read\":null},"
	    "\"total_tokens\":115,\"total_cost\":0.00006150,"
	    "\"estimated\":false,\"latency_ms\":5012,"
	    "\"finish_reason\":\"stop\",\"error_type\":null,"
	    "\"partial\":false,\"last_event_id\":1}" },
	{ { { "done", "{\"total_tokens\":0,\"total_cost\":0,"
	      "\"latency_ms\":1,\"finish_reason\":\"stopped\","
	      "\"model\":null,\"usage\":null,\"estimated\":true}" } },
	    FOLD_STOPPED,
	    "{\"stream_id\":\"s1\",\"state\":\"stopped\",\"text\":\"\","
	    "\"reasoning\":\"\",\"tool_calls\":[],\"model\":\"demo\","
	    "\"usage\":null,\"total_tokens\":0,\"total_cost\":0,"
	    "\"estimated\":true,\"latency_ms\":1,"
	    "\"finish_reason\":\"stopped\",\"error_type\":null,"
	    "\"partial\":true,\"last_event_id\":0}" },
	{ { CHUNK("a", "0"), { "error", "{\"error\":\"Lost.\","
	      "\"error_type\":\"generation_lost\",\"retryable\":true,"
	      "\"total_tokens\":3,\"partial\":true}" } }, FOLD_FAILED,
	    "{\"stream_id\":\"s1\",\"state\":\"failed\",\"text\":\"a\","
	    "\"reasoning\":\"\",\"tool_calls\":[],\"model\":\"demo\","
	    "\"usage\":null,\"total_tokens\":3,\"total_cost\":null,"
	    "\"estimated\":null,\"latency_ms\":null,\"finish_reason\":null,"
	    "\"error_type\":\"generation_lost\",\"partial\":true,"
	    "\"last_event_id\":1}" },
	{ { { "tool_call_chunk", "{\"index\":1,\"id\":\"b\",\"name\":\"g\","
	      "\"arguments\":\"\"}" },
	    { "tool_call_chunk", "{\"index\":0,\"id\":\"a\",\"name\":\"f\","
	      "\"arguments\":\"{\\\"x\"}" },
	    { "tool_call_chunk", "{\"index\":1,\"arguments\":\"[\"}" },
	    { "tool_call_chunk", "{\"index\":0,\"id\":\"z\",\"name\":null,"
	      "\"arguments\":\"\\\":1}\"}" },
	    { "tool_call_chunk", "{\"index\":1,\"arguments\":\"]\"}" },
	    { "tool_call_chunk", "{\"index\":18446744073709551614,"
	      "\"arguments\":\"\"}" } }, FOLD_LIVE,
	    "{\"stream_id\":\"s1\",\"state\":\"live\",\"text\":\"\","
	    "\"reasoning\":\"\",\"tool_calls\":[{\"index\":0,\"id\":\"a\","
	    "\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"},"
	    "{\"index\":1,\"id\":\"b\",\"name\":\"g\",\"arguments\":\"[]\"},"
	    "{\"index\":18446744073709551614,\"id\":null,\"name\":null,"
	    "\"arguments\":\"\"}],\"model\":\"demo\",\"usage\":null,"
	    "\"total_tokens\":0,\"total_cost\":null,\"estimated\":true,"
	    "\"latency_ms\":null,\"finish_reason\":null,\"error_type\":null,"
	    "\"partial\":true,\"last_event_id\":5}" },
};

START_TEST(a_snapshot_is_the_fold_of_all_frames)
{
	struct fold *f = new_fold();

	ck_assert_int_eq(take(f, streams[_i].rows, 8), RS_OK);
	ck_assert_int_eq(fold_state(f), streams[_i].state);
	check_snapshot(f, streams[_i].want);
	fold_free(f);
}
END_TEST

START_TEST(sums_are_exact)
{
	static const struct row chunk = CHUNK("x", "0.0000001");
	struct fold *f = new_fold();
	struct sse_frame frame;
	struct buf b;
	uint64_t i;

	ck_assert(!fold_has_chunks(f));
	ck_assert_uint_eq(fold_cost(f), MONEY_UNKNOWN);
	buf_init(&b, SSE_FRAME_MAX);
	for (i = 0; i < 1000; i++) {
		buf_clear(&b);
		sse_frame_write(&b, chunk.event, i, chunk.data,
		    strlen(chunk.data));
		sse_frame_scan(b.data, b.len, &frame);
		ck_assert_int_eq(fold_add(f, &frame), RS_OK);
	}
	ck_assert(fold_has_chunks(f));
	ck_assert_uint_eq(fold_tokens(f), 1000);
	ck_assert_uint_eq(fold_cost(f), 100000000);
	buf_done(&b);
	fold_free(f);
}
END_TEST

static const struct row corrupt[] = {
	{ "message_chunk", "{}" },
	{ "message_chunk", "{\"content\":1,\"tokens\":1,\"cost_usd\":0}" },
	{ "message_chunk", "{\"content\":null,\"tokens\":1,\"cost_usd\":0}" },
	{ "message_chunk", "{\"content\":\"\",\"tokens\":-1}" },
	{ "message_chunk", "{\"content\":\"\",\"tokens\":\"1\"}" },
	{ "message_chunk", "{\"content\":\"\",\"cost_usd\":\"0\"}" },
	{ "message_chunk", "{\"content\":\"\",\"cost_usd\":\"null\"}" },
	{ "message_chunk", "{\"content\":\"\",\"cost_usd\":-1}" },
	{ "message_chunk", "{\"content\":\"\",\"cost_usd\":1e3}" },
	{ "message_chunk", "{\"content\":\"\",\"cost_usd\":{}}" },
	{ "message_chunk", "{\"content\":\"\",\"cost_usd\":true}" },
	{ "message_chunk", "{\"content\":\"\"" "}}" },
	{ "message_chunk", "{\"content\":\"\",\"content\":\"\"}" },
	{ "reasoning_chunk", "{\"content\":[]}" },
	{ "tool_call_chunk", "{}" },
	{ "tool_call_chunk", "{\"index\":0}" },
	{ "tool_call_chunk", "{\"index\":-1,\"arguments\":\"\"}" },
	{ "tool_call_chunk", "{\"index\":0,\"arguments\":{}}" },
	{ "tool_call_chunk", "{\"index\":0,\"id\":1,\"arguments\":\"x\"}" },
	{ "tool_call_chunk", "{\"index\":0,\"name\":[],\"arguments\":\"x\"}" },
	{ "done", "{}" },
	{ "done", "{\"finish_reason\":1}" },
	{ "complete", "{}" },
	{ "error", "{\"error\":\"x\"}" },
	{ "heartbeat", "{x}" },
	{ "something_new", "{\"a\":\"\xff\"}" },
};

START_TEST(a_frame_that_breaks_its_events_promise_changes_nothing)
{
	struct fold *f = new_fold();

	ck_assert_int_eq(take(f, &corrupt[_i], 1), RS_ECORRUPT);
	ck_assert_int_eq(fold_state(f), FOLD_LIVE);
	check_snapshot(f, streams[0].want);
	fold_free(f);
}
END_TEST

START_TEST(ids_are_contiguous_from_0)
{
	static const uint64_t bad_first[] = { 1, 2, UINT64_MAX };
	struct fold *f = new_fold();
	struct sse_frame frame = { .event = "heartbeat", .event_len = 9,
		.data = "{}", .data_len = 2 };
	int i;

	for (i = 0; i < 3; i++) {
		frame.id = bad_first[i];
		ck_assert_int_eq(fold_add(f, &frame), RS_ECORRUPT);
	}
	frame.id = 0;
	ck_assert_int_eq(fold_add(f, &frame), RS_OK);
	ck_assert_int_eq(fold_add(f, &frame), RS_ECORRUPT);
	frame.id = 2;
	ck_assert_int_eq(fold_add(f, &frame), RS_ECORRUPT);
	frame.id = 1;
	ck_assert_int_eq(fold_add(f, &frame), RS_OK);
	fold_free(f);
}
END_TEST

START_TEST(nothing_comes_after_a_terminal_frame)
{
	static const struct row terminal[] = {
		{ "done", "{\"finish_reason\":\"stop\"}" },
		{ "done", "{\"finish_reason\":\"stopped\"}" },
		{ "error", "{\"error_type\":\"internal\"}" },
		{ "complete", "{\"finish_reason\":\"length\"}" },
	};
	static const struct row after[] = { HEART, CHUNK("a", "0"),
		{ "done", "{\"finish_reason\":\"stop\"}" },
		{ "error", "{\"error_type\":\"internal\"}" } };
	struct row rows[2];
	struct fold *f;
	int i;

	rows[0] = terminal[_i];
	for (i = 0; i < COUNT(after); i++) {
		f = new_fold();
		ck_assert_int_eq(take(f, rows, 1), RS_OK);
		fold_free(f);
		f = new_fold();
		rows[1] = after[i];
		ck_assert_int_eq(take(f, rows, 2), RS_ECORRUPT);
		ck_assert_int_ne(fold_state(f), FOLD_LIVE);
		fold_free(f);
	}
}
END_TEST

START_TEST(each_kind_of_text_has_a_maximum)
{
	static const char *const kinds[] = { "message_chunk",
		"reasoning_chunk", "tool_call_chunk" };
	struct fold *f = new_fold();
	struct sse_frame frame;
	char text[101];
	uint64_t i;
	struct buf b;

	memset(text, 'x', 100);
	text[100] = '\0';
	buf_init(&b, SSE_FRAME_MAX);
	for (i = 0; i <= 10; i++) {
		buf_clear(&b);
		sse_frame_begin(&b, kinds[_i], i);
		if (_i == 2)
			buf_printf(&b, "{\"index\":%d,\"arguments\":\"",
			    (int)(i % 3));
		else
			buf_puts(&b, "{\"content\":\"");
		buf_puts(&b, text);
		buf_puts(&b, "\"}");
		sse_frame_end(&b);
		ck_assert_int_eq(sse_frame_scan(b.data, b.len, &frame),
		    SSE_FRAME);
		ck_assert_int_eq(fold_add(f, &frame), i < MAX / 100 ? RS_OK :
		    RS_ETOOBIG);
	}
	buf_done(&b);
	fold_free(f);
}
END_TEST

/* What dialect.c writes, fold.c takes. */
START_TEST(a_stream_as_it_is_written_is_understood)
{
	static const struct delta deltas[] = {
		{ .kind = DELTA_REASONING, .text = "why", .len = 3,
		    .tokens = 1 },
		{ .kind = DELTA_TOOL_CALL, .text = "{}", .len = 2,
		    .tool = { 0, "c", "f" } },
		{ .kind = DELTA_CONTENT, .text = "\x01\"\xff", .len = 3,
		    .tokens = 2 },
		{ .kind = DELTA_CONTENT, .text = "", .len = 0,
		    .tokens = TOKENS_UNKNOWN },
	};
	struct ending e = { .error = _i == 0 ? ERRTYPE_none : ERRTYPE_internal,
		.finish = FINISH_STOP, .model = "m",
		.usage = { 1, 0, 0, 3, 1 }, .cost = 600000, .latency_ms = 8,
		.first_token_ms = 2 };
	struct fold *f = new_fold();
	struct sse_frame frame;
	size_t i, at = 0;
	struct streamer s = { .stream_id = "s1" };
	struct buf b;

	buf_init(&b, 100000);
	for (i = 0; i < sizeof deltas / sizeof deltas[0]; i++) {
		dialect_chunk(&b, &s, &deltas[i], 600000);
		dialect_heartbeat(&b, &s);
	}
	dialect_end(&b, &s, &e);
	for (; at < b.len; at += frame.size) {
		ck_assert_int_eq(sse_frame_scan(b.data + at, b.len - at,
		    &frame), SSE_FRAME);
		ck_assert_int_eq(fold_add(f, &frame), RS_OK);
	}
	ck_assert_uint_eq(s.next_id, 9);
	ck_assert_uint_eq(fold_tokens(f), 3);
	ck_assert_uint_eq(fold_cost(f), 1200000);
	buf_clear(&b);
	fold_put(f, "s1", "demo", &b);
	ck_assert_ptr_nonnull(strstr(b.data, "\"text\":\"\\u0001\\\""
	    "\xef\xbf\xbd\",\"reasoning\":\"why\",\"tool_calls\":[{\"index\":0,"
	    "\"id\":\"c\",\"name\":\"f\",\"arguments\":\"{}\"}],"));
	ck_assert_ptr_nonnull(strstr(b.data, "\"usage\":{\"input\":1,"
	    "\"cache_read\":0,\"cache_write\":0,\"output\":3,"
	    "\"reasoning\":1,\"total\":4},\"total_tokens\":4,"
	    "\"total_cost\":0.0000006,"));
	ck_assert_ptr_nonnull(strstr(b.data, "\"last_event_id\":8}"));
	buf_done(&b);
	fold_free(f);
}
END_TEST

START_TEST(states_have_names)
{
	ck_assert_str_eq(fold_state_name(FOLD_LIVE), "live");
	ck_assert_str_eq(fold_state_name(FOLD_FINISHED), "finished");
	ck_assert_str_eq(fold_state_name(FOLD_FAILED), "failed");
	ck_assert_str_eq(fold_state_name(FOLD_STOPPED), "stopped");
	fold_free(NULL);
}
END_TEST

static Suite *
fold_suite(void)
{
	Suite *s = suite_create("fold");
	TCase *tc = tcase_create("fold");

	tcase_add_loop_test(tc, a_snapshot_is_the_fold_of_all_frames, 0,
	    COUNT(streams));
	tcase_add_test(tc, sums_are_exact);
	tcase_add_loop_test(tc,
	    a_frame_that_breaks_its_events_promise_changes_nothing, 0,
	    COUNT(corrupt));
	tcase_add_test(tc, ids_are_contiguous_from_0);
	tcase_add_loop_test(tc, nothing_comes_after_a_terminal_frame, 0, 4);
	tcase_add_loop_test(tc, each_kind_of_text_has_a_maximum, 0, 3);
	tcase_add_loop_test(tc, a_stream_as_it_is_written_is_understood, 0, 2);
	tcase_add_test(tc, states_have_names);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	SRunner *sr = srunner_create(fold_suite());
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
