/* check_dialect.c - the frames of each interface, to the byte. */
#include <json-c/json.h>

#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dialect.h"
#include "jx.h"
#include "money.h"
#include "sse.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))
#define UNKNOWN TOKENS_UNKNOWN
#define FRAME(event, id, data) \
	"event: " event "\nid: " id "\nretry: 10000\ndata: " data "\n\n"

/* What b holds are count frames, whole, and JSON. */
static void
check_frames(const struct buf *b, int count)
{
	struct json_object *o;
	struct sse_frame f;
	const char *why;
	size_t at = 0;

	ck_assert_int_eq(b->err, RS_OK);
	for (; count > 0; count--) {
		ck_assert_int_eq(sse_frame_scan(b->data + at, b->len - at, &f),
		    SSE_FRAME);
		ck_assert_int_eq(jx_parse(f.data, f.data_len, &o, &why),
		    RS_OK);
		json_object_put(o);
		at += f.size;
	}
	ck_assert_uint_eq(at, b->len);
}

static void
check_frame(const struct buf *b)
{
	check_frames(b, 1);
}

static const struct {
	struct delta d;
	uint64_t cost;
	const char *stream_id, *want;
} chunks[] = {
	{ { .kind = DELTA_CONTENT, .text = "Hello ", .len = 6, .tokens = 1 },
	    600000, "stream_1",
	    FRAME("message_chunk", "41", "{\"content\":\"Hello \",\"tokens\":1,"
	    "\"cost_usd\":0.0000006,\"stream_id\":\"stream_1\"}") },
	{ { .kind = DELTA_CONTENT, .text = "a\"\n\0\xff", .len = 5,
	    .tokens = 2 }, MONEY_UNKNOWN, NULL,
	    FRAME("message_chunk", "41", "{\"content\":\"a\\\"\\n\\u0000"
	    "\xef\xbf\xbd\",\"tokens\":2,\"cost_usd\":null}") },
	{ { .kind = DELTA_CONTENT, .text = NULL, .len = 0, .tokens = 0 }, 0,
	    NULL,
	    FRAME("message_chunk", "41",
	    "{\"content\":\"\",\"tokens\":0,\"cost_usd\":0}") },
	{ { .kind = DELTA_REASONING, .text = "hm", .len = 2, .tokens = 1 },
	    600000, NULL,
	    FRAME("reasoning_chunk", "41",
	    "{\"content\":\"hm\",\"tokens\":1}") },
	{ { .kind = DELTA_REFUSAL, .text = "no", .len = 2, .tokens = 1 },
	    600000, NULL,
	    FRAME("refusal_chunk", "41",
	    "{\"content\":\"no\",\"tokens\":1}") },
	{ { .kind = DELTA_REASONING, .text = "hm", .len = 2, .tokens = 1 },
	    600000, "s",
	    FRAME("reasoning_chunk", "41",
	    "{\"content\":\"hm\",\"tokens\":1,\"stream_id\":\"s\"}") },
	{ { .kind = DELTA_TOOL_CALL, .text = "{\"a", .len = 3, .tokens = 1,
	    .tool = { .index = 3, .id = "call_1", .name = "find" } }, 0, NULL,
	    FRAME("tool_call_chunk", "41", "{\"index\":3,\"id\":\"call_1\","
	    "\"name\":\"find\",\"arguments\":\"{\\\"a\"}") },
	{ { .kind = DELTA_TOOL_CALL, .text = "\":1}", .len = 4, .tokens = 1,
	    .tool = { .index = 3 } }, 0, "s",
	    FRAME("tool_call_chunk", "41", "{\"index\":3,"
	    "\"arguments\":\"\\\":1}\",\"stream_id\":\"s\"}") },
};

START_TEST(a_chunk_has_its_fields_in_order)
{
	struct streamer s = { .stream_id = chunks[_i].stream_id,
		.next_id = 41, .told_id = chunks[_i].stream_id == NULL };
	struct buf b;

	buf_init(&b, SSE_FRAME_MAX);
	dialect_chunk(&b, &s, &chunks[_i].d, chunks[_i].cost);
	ck_assert_str_eq(b.data, chunks[_i].want);
	ck_assert_uint_eq(s.next_id, 42);
	check_frame(&b);
	buf_done(&b);
}
END_TEST

START_TEST(a_heartbeat_is_an_empty_object)
{
	struct streamer s = { .next_id = 7 };
	struct buf b;

	buf_init(&b, SSE_FRAME_MAX);
	dialect_heartbeat(&b, &s);
	ck_assert_str_eq(b.data, FRAME("heartbeat", "7", "{}"));
	ck_assert_uint_eq(s.next_id, 8);
	buf_done(&b);
}
END_TEST

#define NO_USAGE { UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN }
static const struct {
	struct ending e;
	const char *want;
} ends[] = {
	{ { .finish = FINISH_STOP, .model = "demo",
	    .usage = { 10, 2, 3, 100, 40 }, .cost = 61500000,
	    .latency_ms = 5012, .first_token_ms = 3 },
	    FRAME("done", "9", "{\"total_tokens\":115,"
	    "\"total_cost\":0.0000615,\"latency_ms\":5012,"
	    "\"first_token_ms\":3,\"finish_reason\":\"stop\","
	    "\"model\":\"demo\",\"usage\":{\"input\":10,\"cache_read\":2,"
	    "\"cache_write\":3,\"output\":100,\"reasoning\":40,"
	    "\"total\":115},\"estimated\":false,\"stream_id\":\"s\"}") },
	{ { .finish = FINISH_STOPPED, .usage = NO_USAGE,
	    .cost = MONEY_UNKNOWN, .estimated = true,
	    .first_token_ms = UNKNOWN },
	    FRAME("done", "9", "{\"total_tokens\":null,\"total_cost\":null,"
	    "\"latency_ms\":0,\"first_token_ms\":null,"
	    "\"finish_reason\":\"stopped\",\"model\":null,\"usage\":null,"
	    "\"estimated\":true,\"stream_id\":\"s\"}") },
	{ { .finish = FINISH_LENGTH, .model = "m",
	    .usage = { UNKNOWN, UNKNOWN, UNKNOWN, 5, UNKNOWN },
	    .cost = MONEY_UNKNOWN, .first_token_ms = 1 },
	    FRAME("done", "9", "{\"total_tokens\":5,\"total_cost\":null,"
	    "\"latency_ms\":0,\"first_token_ms\":1,"
	    "\"finish_reason\":\"length\",\"model\":\"m\","
	    "\"usage\":{\"input\":null,\"cache_read\":null,"
	    "\"cache_write\":null,\"output\":5,\"reasoning\":null,"
	    "\"total\":5},\"estimated\":false,\"stream_id\":\"s\"}") },
	{ { .error = ERRTYPE_upstream_error, .error_text = "No \"luck\".",
	    .upstream_type = "server_error", .upstream_code = "e42",
	    .model = "m", .usage = { 1, 0, 0, 2, 0 },
	    .cost = 2000000000000, .latency_ms = 12 },
	    FRAME("error", "9", "{\"error\":\"No \\\"luck\\\".\","
	    "\"error_type\":\"upstream_error\",\"retryable\":true,"
	    "\"upstream_type\":\"server_error\",\"upstream_code\":\"e42\","
	    "\"total_tokens\":3,\"total_cost\":2,\"usage\":{\"input\":1,"
	    "\"cache_read\":0,\"cache_write\":0,\"output\":2,"
	    "\"reasoning\":0,\"total\":3},\"latency_ms\":12,"
	    "\"stream_id\":\"s\",\"partial\":true}") },
	{ { .error = ERRTYPE_too_long, .usage = NO_USAGE,
	    .cost = MONEY_UNKNOWN, .latency_ms = UNKNOWN },
	    FRAME("error", "9", "{\"error\":\"The answer grew over the "
	    "largest size allowed here.\",\"error_type\":\"too_long\","
	    "\"retryable\":false,\"stream_id\":\"s\",\"partial\":true}") },
};

START_TEST(an_ending_has_its_fields_in_order)
{
	struct streamer s = { .stream_id = "s", .next_id = 9 };
	struct buf b;

	buf_init(&b, SSE_FRAME_MAX);
	dialect_end(&b, &s, &ends[_i].e);
	ck_assert_str_eq(b.data, ends[_i].want);
	ck_assert_uint_eq(s.next_id, 10);
	check_frame(&b);
	buf_done(&b);
}
END_TEST

START_TEST(every_error_type_makes_an_ending)
{
	struct ending e = { .error = (enum errtype)_i, .usage = NO_USAGE,
		.cost = MONEY_UNKNOWN };
	struct streamer s = { .stream_id = "s" };
	struct buf b;

	buf_init(&b, SSE_FRAME_MAX);
	dialect_end(&b, &s, &e);
	ck_assert_ptr_nonnull(strstr(b.data, errtype_info(e.error)->text));
	check_frame(&b);
	buf_done(&b);
}
END_TEST

/* Every text as long and as hard to write as can be: each byte becomes six. */
START_TEST(no_frame_grows_over_the_largest_size)
{
	static char text[SSE_TEXT_MAX], word[5000];
	struct delta d = { .text = text, .len = sizeof text,
		.kind = (enum delta_kind)_i, .tokens = UNKNOWN - 1,
		.tool = { UNKNOWN - 1, word, word } };
	struct ending e = { .error_text = word, .upstream_type = word,
		.upstream_code = word, .model = word,
		.native_finish = word, .upstream_cost = word,
		.usage = { UNKNOWN - 1, UNKNOWN - 1, UNKNOWN - 1, UNKNOWN - 1,
		    UNKNOWN - 1 },
		.cost = MONEY_UNKNOWN - 1, .latency_ms = UNKNOWN - 1,
		.first_token_ms = UNKNOWN - 1 };
	static struct turn turn = { .number = UNKNOWN - 1 };
	struct streamer s = { .dialect = DIALECT_CONVERSATION,
		.stream_id = "stream_01234567890123456789012345678"
		    "901234567890123456789012345", .turn = &turn };
	struct buf b;

	memset(text, 1, sizeof text);
	memset(word, 1, sizeof word - 1);
	memset(turn.session, 1, sizeof turn.session - 1);
	memset(turn.animal, 1, sizeof turn.animal - 1);
	memset(turn.name, 1, sizeof turn.name - 1);
	buf_init(&b, 10 * SSE_FRAME_MAX);
	dialect_begin(&b, &s, word);
	check_frames(&b, 2);
	buf_clear(&b);
	s.next_id = UINT64_MAX - 10;
	s.told_id = false;
	dialect_chunk(&b, &s, &d, MONEY_UNKNOWN - 1);
	check_frame(&b);
	buf_clear(&b);
	dialect_end(&b, &s, &e);
	check_frames(&b, 2);
	buf_clear(&b);
	e.error = ERRTYPE_generation_lost;
	dialect_end(&b, &s, &e);
	check_frames(&b, 2);
	buf_done(&b);
}
END_TEST

START_TEST(a_long_word_is_cut_between_characters)
{
	struct delta d = { .kind = DELTA_TOOL_CALL, .text = "", .len = 0 };
	struct streamer s = { .told_id = true };
	struct buf b, name;
	int i;

	buf_init(&b, SSE_FRAME_MAX);
	buf_init(&name, 1000);
	for (i = 0; i < 100; i++)
		buf_puts(&name, "\xe2\x82\xac");
	d.tool.name = name.data;
	dialect_chunk(&b, &s, &d, 0);
	check_frame(&b);
	ck_assert_ptr_null(strstr(b.data, "\xef\xbf\xbd"));
	ck_assert_ptr_nonnull(strstr(b.data, "\xe2\x82\xac\",\"arguments"));
	buf_done(&name);
	buf_done(&b);
}
END_TEST

START_TEST(a_conversation_has_its_own_names)
{
	static const char hello[] = "h\xc3\xa9\xff\xf0\x9f\xa6\x81";
	const struct turn turn = { "sess-1", "lion_001", "Leo \"the\" lion", 3 };
	struct streamer s = { .dialect = DIALECT_CONVERSATION,
		.stream_id = "s-1", .turn = &turn };
	struct delta d = { .kind = DELTA_CONTENT, .text = hello,
		.len = sizeof hello - 1, .tokens = 2 };
	struct ending e = { .finish = FINISH_STOP, .model = "demo",
		.usage = { 1, 0, 0, 4, 0 }, .cost = 5, .latency_ms = 70,
		.first_token_ms = 9, .typing_ms = 60 };
	struct buf b;

	buf_init(&b, 10 * SSE_FRAME_MAX);
	dialect_begin(&b, &s, "demo");
	dialect_chunk(&b, &s, &d, 2);
	dialect_heartbeat(&b, &s);
	dialect_chunk(&b, &s, &d, 2);
	dialect_end(&b, &s, &e);
	ck_assert_str_eq(b.data,
	    FRAME("metadata", "0", "{\"sessionId\":\"sess-1\","
	    "\"animalId\":\"lion_001\",\"name\":\"Leo \\\"the\\\" lion\","
	    "\"model\":\"demo\",\"stream_id\":\"s-1\",\"turn\":3}")
	    FRAME("typing", "1", "{\"status\":\"start\"}")
	    FRAME("message", "2", "{\"content\":\"h\xc3\xa9\xef\xbf\xbd"
	    "\xf0\x9f\xa6\x81\",\"index\":0,\"tokens\":2,"
	    "\"cost_usd\":0.000000000002}")
	    FRAME("heartbeat", "3", "{}")
	    FRAME("message", "4", "{\"content\":\"h\xc3\xa9\xef\xbf\xbd"
	    "\xf0\x9f\xa6\x81\",\"index\":1,\"tokens\":2,"
	    "\"cost_usd\":0.000000000002}")
	    FRAME("typing", "5", "{\"status\":\"stop\",\"duration_ms\":60}")
	    FRAME("complete", "6", "{\"length\":8,\"total_tokens\":5,"
	    "\"total_cost\":0.000000000005,\"latency_ms\":70,"
	    "\"first_token_ms\":9,\"finish_reason\":\"stop\","
	    "\"model\":\"demo\",\"usage\":{\"input\":1,\"cache_read\":0,"
	    "\"cache_write\":0,\"output\":4,\"reasoning\":0,\"total\":5},"
	    "\"estimated\":false,\"stream_id\":\"s-1\","
	    "\"sessionId\":\"sess-1\",\"turn\":3}"));
	check_frames(&b, 7);
	buf_done(&b);
}
END_TEST

START_TEST(a_failed_turn_stops_typing_first)
{
	const struct turn turn = { "sess-1", "lion_001", "Leo", 3 };
	struct streamer s = { .dialect = DIALECT_CONVERSATION,
		.stream_id = "s-1", .turn = &turn, .next_id = 7 };
	struct ending e = { .error = ERRTYPE_generation_lost,
		.usage = NO_USAGE, .cost = MONEY_UNKNOWN, .latency_ms = 70,
		.typing_ms = 60 };
	struct buf b;

	buf_init(&b, 10 * SSE_FRAME_MAX);
	dialect_end(&b, &s, &e);
	ck_assert_ptr_nonnull(strstr(b.data,
	    FRAME("typing", "7", "{\"status\":\"stop\",\"duration_ms\":60}")
	    "event: error\nid: 8\n"));
	ck_assert_ptr_nonnull(strstr(b.data, "\"sessionId\":\"sess-1\","
	    "\"turn\":3,\"partial\":true}\n\n"));
	check_frames(&b, 2);
	buf_done(&b);
}
END_TEST

static const struct {
	struct usage u;
	uint64_t want;
} totals[] = {
	{ { 0, 0, 0, 0, 0 }, 0 },
	{ { 1, 2, 4, 8, 16 }, 15 },
	{ { 1, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN }, 1 },
	{ { UNKNOWN, 2, 4, 8, 16 }, 14 },
	{ { UNKNOWN, 2, 4, UNKNOWN, 16 }, UNKNOWN },
	{ NO_USAGE, UNKNOWN },
	{ { UNKNOWN - 1, 1, 0, 0, 0 }, UNKNOWN - 1 },
	{ { UNKNOWN - 1, 5, 7, 9, 0 }, UNKNOWN - 1 },
};

START_TEST(a_total_is_the_sum_of_what_is_known)
{
	ck_assert_uint_eq(usage_total(&totals[_i].u), totals[_i].want);
}
END_TEST

START_TEST(names_are_those_of_the_interface)
{
	static const char *const finishes[] = { "stop", "length",
		"content_filter", "tool_calls", "pause", "stopped",
		"unknown" };
	enum dialect d = DIALECT_STREAM;
	int f;

	for (f = FINISH_STOP; f <= FINISH_UNKNOWN; f++)
		ck_assert_str_eq(finish_name((enum finish)f), finishes[f]);
	ck_assert_str_eq(dialect_name(DIALECT_STREAM), "stream");
	ck_assert_int_eq(dialect_find("stream", &d), RS_OK);
	ck_assert_int_eq(d, DIALECT_STREAM);
	ck_assert_int_eq(dialect_find("Stream", &d), RS_ENOENT);
	ck_assert_int_eq(dialect_find("", &d), RS_ENOENT);
}
END_TEST

static Suite *
dialect_suite(void)
{
	Suite *s = suite_create("dialect");
	TCase *tc = tcase_create("dialect");

	tcase_add_loop_test(tc, a_chunk_has_its_fields_in_order, 0,
	    COUNT(chunks));
	tcase_add_test(tc, a_heartbeat_is_an_empty_object);
	tcase_add_loop_test(tc, an_ending_has_its_fields_in_order, 0,
	    COUNT(ends));
	tcase_add_loop_test(tc, every_error_type_makes_an_ending,
	    ERRTYPE_none + 1, ERRTYPE_COUNT);
	tcase_add_loop_test(tc, no_frame_grows_over_the_largest_size,
	    DELTA_CONTENT, DELTA_TOOL_CALL + 1);
	tcase_add_test(tc, a_long_word_is_cut_between_characters);
	tcase_add_test(tc, a_conversation_has_its_own_names);
	tcase_add_test(tc, a_failed_turn_stops_typing_first);
	tcase_add_loop_test(tc, a_total_is_the_sum_of_what_is_known, 0,
	    COUNT(totals));
	tcase_add_test(tc, names_are_those_of_the_interface);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	SRunner *sr = srunner_create(dialect_suite());
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
