/* check_sse.c - frames, written and recognised. */
#include <check.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sse.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))
#define LEN(s) (sizeof(s) - 1)

#define HELLO                                      \
	"event: message_chunk\nid: 10\n"           \
	"retry: 10000\ndata: {\"content\":\"hi\"}\n\n"

/* Scans a copy of exactly that size, so that reading beyond it is noticed.
 * What *ret lends is gone then: its pointers become offsets. */
static enum sse_scan
scan(const char *p, size_t n, struct sse_frame *ret)
{
	struct sse_frame untouched = *ret;
	char *copy = malloc(n + (n == 0));
	enum sse_scan s;

	memcpy(copy, p, n);
	s = sse_frame_scan(copy, n, ret);
	if (s == SSE_FRAME) {
		ck_assert_uint_le(ret->size, n);
		ret->event = p + (ret->event - copy);
		ret->data = p + (ret->data - copy);
	} else
		ck_assert_mem_eq(ret, &untouched, sizeof untouched);
	free(copy);
	return s;
}

START_TEST(a_frame_has_its_fields_in_order)
{
	struct buf b;

	buf_init(&b, 1000);
	sse_frame_write(&b, "message_chunk", 10, "{\"content\":\"hi\"}", 16);
	ck_assert_str_eq(b.data, HELLO);
	sse_frame_begin(&b, "heartbeat", UINT64_MAX);
	buf_puts(&b, "{}");
	sse_frame_end(&b);
	ck_assert_str_eq(b.data, HELLO "event: heartbeat\n"
	    "id: 18446744073709551615\nretry: 10000\ndata: {}\n\n");
	buf_done(&b);
}
END_TEST

static const struct {
	const char *event;
	uint64_t id;
	const char *json;
	bool terminal;
} frames[] = {
	{ "message_chunk", 0, "{\"content\":\"a\"}", false },
	{ "heartbeat", 1, "{}", false },
	{ "reasoning_chunk", 99, "{\"content\":\"\\n\\n\"}", false },
	{ "x", UINT64_MAX, "{\"a\":{}}", false },
	{ "done", 7, "{\"total_tokens\":1}", true },
	{ "error", 8, "{\"error\":\"\xc3\xa4\"}", true },
	{ "complete", 9, "{}", true },
	{ "don", 7, "{}", false },
	{ "done_", 7, "{}", false },
	{ "errors", 7, "{}", false },
};

/* Each frame, alone and followed by the next one's beginning, at every cut. */
START_TEST(what_is_written_is_recognised_at_every_cut)
{
	struct sse_frame f = { 0 };
	enum sse_scan s;
	size_t size, n;
	struct buf b;

	buf_init(&b, 2000);
	sse_frame_write(&b, frames[_i].event, frames[_i].id, frames[_i].json,
	    strlen(frames[_i].json));
	size = b.len;
	buf_puts(&b, HELLO);
	for (n = 0; n <= b.len; n++) {
		memset(&f, 0, sizeof f);
		s = scan(b.data, n, &f);
		ck_assert_int_eq(s, n < size ? SSE_PARTIAL : SSE_FRAME);
		if (n < size)
			continue;
		ck_assert_uint_eq(f.size, size);
		ck_assert_uint_eq(f.id, frames[_i].id);
		ck_assert_int_eq(f.terminal, frames[_i].terminal);
		ck_assert_uint_eq(f.data_len, strlen(frames[_i].json));
		ck_assert_mem_eq(f.data, frames[_i].json, f.data_len);
		ck_assert(sse_frame_is(&f, frames[_i].event));
		ck_assert(!sse_frame_is(&f, "mess"));
		ck_assert(!sse_frame_is(&f, ""));
	}
	buf_done(&b);
}
END_TEST

/* Writes what was recognised once more: the same bytes, or the scan has let
 * something by.  A change may leave a good frame, but another one. */
START_TEST(a_changed_byte_is_noticed_or_makes_another_frame)
{
	struct sse_frame f = { 0 };
	char text[sizeof HELLO], event[SSE_EVENT_MAX + 1];
	struct buf b;
	int c;

	buf_init(&b, 1000);
	for (c = 0; c < 256; c++) {
		memcpy(text, HELLO, sizeof HELLO);
		if (text[_i] == (char)c)
			continue;
		text[_i] = (char)c;
		if (scan(text, LEN(HELLO), &f) != SSE_FRAME)
			continue;
		memcpy(event, f.event, f.event_len);
		event[f.event_len] = '\0';
		buf_clear(&b);
		sse_frame_write(&b, event, f.id, f.data, f.data_len);
		ck_assert_uint_eq(b.len, f.size);
		ck_assert_mem_eq(b.data, text, b.len);
		/* In the name, the id or between the data's braces. */
		ck_assert(_i >= 7);
		ck_assert_ptr_null(memchr(f.data, '\n', f.data_len));
	}
	buf_done(&b);
}
END_TEST

START_TEST(a_missing_or_doubled_byte_is_noticed_outside_of_the_words)
{
	static const char words[] = "message_chunk 10 \"content\":\"hi\"";
	struct sse_frame f = { 0 };
	char text[sizeof HELLO + 1];
	size_t at = (size_t)_i;
	enum sse_scan s;

	memcpy(text, HELLO, at);
	memcpy(text + at, &HELLO[at + 1], LEN(HELLO) - at);
	s = scan(text, LEN(HELLO) - 1, &f);
	if (s == SSE_FRAME)
		ck_assert_ptr_nonnull(strchr(words, HELLO[at]));
	memcpy(text + at + 1, &HELLO[at], LEN(HELLO) - at);
	text[at] = HELLO[at];
	s = scan(text, LEN(HELLO) + 1, &f);
	if (s == SSE_FRAME)
		ck_assert(strchr(words, HELLO[at]) != NULL ||
		    HELLO[at] == '{' || HELLO[at] == '}' ||
		    at == LEN(HELLO) - 2 || at == LEN(HELLO) - 1);
}
END_TEST

#define BAD(s) { s, LEN(s), SSE_BAD }
#define PARTIAL(s) { s, LEN(s), SSE_PARTIAL }
static const struct {
	const char *text;
	size_t len;
	enum sse_scan want;
} heads[] = {
	PARTIAL(""), PARTIAL("e"), PARTIAL("event: "), PARTIAL("event: a"),
	PARTIAL("event: a\nid: "), PARTIAL("event: a\nid: 0"),
	PARTIAL("event: a\nid: 18446744073709551615"),
	PARTIAL("event: a\nid: 0\nretry: 10000\ndata: "),
	PARTIAL("event: a\nid: 0\nretry: 10000\ndata: {"),
	PARTIAL("event: a\nid: 0\nretry: 10000\ndata: {}"),
	PARTIAL("event: a\nid: 0\nretry: 10000\ndata: {}\n"),
	PARTIAL("event: a\nid: 0\nretry: 10000\ndata: {}}"),
	BAD("x"), BAD(" event: a"), BAD("\n"), BAD(":"), BAD("\0"),
	BAD("data: {}"), BAD("id: 0"), BAD("Event: a"), BAD("event:a"),
	BAD("event:  a"), BAD("event: \n"), BAD("event: A"),
	BAD("event: a1"), BAD("event: a-b"), BAD("event: a b"),
	BAD("event: a\r"), BAD("event: a\0"), BAD("event: a\n\n"),
	BAD("event: a\nretry"), BAD("event: a\nid:0"),
	BAD("event: a\nid: \n"), BAD("event: a\nid: -"),
	BAD("event: a\nid: +1"), BAD("event: a\nid: 00"),
	BAD("event: a\nid: 01"), BAD("event: a\nid: 1x"),
	BAD("event: a\nid: 1 "), BAD("event: a\nid: a"),
	BAD("event: a\nid: 18446744073709551616"),
	BAD("event: a\nid: 99999999999999999999"),
	BAD("event: a\nid: 184467440737095516150"),
	BAD("event: a\nid: 0\ndata"), BAD("event: a\nid: 0\nretry: 200"),
	BAD("event: a\nid: 0\nretry: 100000"),
	BAD("event: a\nid: 0\nretry: 10000\n\n"),
	BAD("event: a\nid: 0\nretry: 10000\ndata: x"),
	BAD("event: a\nid: 0\nretry: 10000\ndata: []"),
	BAD("event: a\nid: 0\nretry: 10000\ndata:{}"),
	BAD("event: a\nid: 0\nretry: 10000\ndata: {\n"),
	BAD("event: a\nid: 0\nretry: 10000\ndata: {}x\n"),
	BAD("event: a\nid: 0\nretry: 10000\ndata: {} \n"),
	BAD("event: a\nid: 0\nretry: 10000\ndata: {}\r\n"),
	BAD("event: a\nid: 0\nretry: 10000\ndata: {}\nd"),
	BAD("event: a\nid: 0\nretry: 10000\ndata: {}\n\r\n"),
	BAD("event: a\nid: 0\nretry: 10000\ndata: {\0"),
	BAD("event: a\nid: 0\nretry: 10000\ndata: {\t"),
	BAD("event: a\nid: 0\nretry: 10000\ndata: {\x1f"),
	BAD("event: a\nid: 0\nretry: 10000\ndata: {\x7f"),
	BAD("event: a\nid: 0\nretry: 10000\ndata: {\"\0\"}\n\n"),
};

START_TEST(bad_bytes_are_told_from_missing_ones)
{
	struct sse_frame f = { 0 };

	ck_assert_int_eq(scan(heads[_i].text, heads[_i].len, &f),
	    heads[_i].want);
}
END_TEST

/* Each byte at each place of data of _i bytes, among several others. */
START_TEST(a_control_character_in_the_data_is_bad)
{
	static const char head[] = "event: a\nid: 0\nretry: 10000\ndata: {";
	static const char others[] = "x \x80\xff";
	struct sse_frame f;
	char text[100], *data = text + LEN(head);
	int at, c, o, want;

	memcpy(text, head, LEN(head));
	memcpy(data + _i, "}\n\n", 3);
	for (at = 0; at < _i; at++) {
		for (c = 0; c < 256; c++) {
			want = c < 0x20 || c == 0x7f ? SSE_BAD : SSE_FRAME;
			for (o = 0; o < (int)LEN(others); o++) {
				memset(data, others[o], (size_t)_i);
				data[at] = (char)c;
				ck_assert_int_eq(sse_frame_scan(text,
				    LEN(head) + (size_t)_i + 3, &f), want);
			}
		}
	}
}
END_TEST

/* A frame whose whole size is _i, at every cut near its end. */
START_TEST(a_frame_has_a_largest_size)
{
	static const char head[] = "event: a\nid: 0\nretry: 10000\ndata: {\"";
	struct sse_frame f = { 0 };
	size_t size = (size_t)_i, n;
	char *text = malloc(size);
	enum sse_scan want;

	memset(text, 'x', size);
	memcpy(text, head, LEN(head));
	memcpy(text + size - 4, "\"}\n\n", 4);
	want = size <= SSE_FRAME_MAX ? SSE_FRAME : SSE_BAD;
	ck_assert_int_eq(scan(text, size, &f), want);
	if (want == SSE_FRAME)
		ck_assert_uint_eq(f.size, size);
	for (n = size - 1; n > size - 10; n--) {
		/* Too long for sure once not even }\n\n would fit. */
		size_t least = n + (size - n > 3 ? 3 : size - n);

		ck_assert_int_eq(scan(text, n, &f),
		    least <= SSE_FRAME_MAX ? SSE_PARTIAL : SSE_BAD);
	}
	free(text);
}
END_TEST

START_TEST(endless_data_is_bad)
{
	static const char head[] = "event: a\nid: 0\nretry: 10000\ndata: {";
	static char text[3 * SSE_FRAME_MAX];
	struct sse_frame f = { 0 };

	memset(text, 'x', sizeof text);
	memcpy(text, head, LEN(head));
	ck_assert_int_eq(scan(text, sizeof text, &f), SSE_BAD);
	memcpy(text + sizeof text - 3, "}\n\n", 3);
	ck_assert_int_eq(scan(text, sizeof text, &f), SSE_BAD);
	memset(text, '}', sizeof text);
	memcpy(text, head, LEN(head));
	ck_assert_int_eq(scan(text, SSE_FRAME_MAX - 2, &f), SSE_PARTIAL);
	ck_assert_int_eq(scan(text, SSE_FRAME_MAX - 1, &f), SSE_BAD);
}
END_TEST

START_TEST(an_events_name_has_a_longest_length)
{
	struct sse_frame f = { 0 };
	char name[SSE_EVENT_MAX + 2];
	struct buf b;

	memset(name, 'n', sizeof name);
	name[SSE_EVENT_MAX] = '\0';
	buf_init(&b, 1000);
	sse_frame_write(&b, name, UINT64_MAX, "{}", 2);
	ck_assert_int_eq(scan(b.data, b.len, &f), SSE_FRAME);
	ck_assert_uint_le(b.len - 2, SSE_FRAME_MAX - SSE_DATA_MAX);
	buf_clear(&b);
	name[SSE_EVENT_MAX] = 'n';
	name[SSE_EVENT_MAX + 1] = '\0';
	sse_frame_write(&b, name, 0, "{}", 2);
	ck_assert_int_eq(scan(b.data, b.len, &f), SSE_BAD);
	ck_assert_int_eq(scan(b.data, 7 + SSE_EVENT_MAX + 1, &f), SSE_BAD);
	ck_assert_int_eq(scan(b.data, 7 + SSE_EVENT_MAX, &f), SSE_PARTIAL);
	buf_done(&b);
}
END_TEST

static Suite *
sse_suite(void)
{
	Suite *s = suite_create("sse");
	TCase *tc = tcase_create("frame");

	tcase_add_test(tc, a_frame_has_its_fields_in_order);
	tcase_add_loop_test(tc, what_is_written_is_recognised_at_every_cut, 0,
	    COUNT(frames));
	tcase_add_loop_test(tc,
	    a_changed_byte_is_noticed_or_makes_another_frame, 0, LEN(HELLO));
	tcase_add_loop_test(tc,
	    a_missing_or_doubled_byte_is_noticed_outside_of_the_words, 0,
	    LEN(HELLO));
	tcase_add_loop_test(tc, bad_bytes_are_told_from_missing_ones, 0,
	    COUNT(heads));
	tcase_add_loop_test(tc, a_control_character_in_the_data_is_bad, 1,
	    26);
	tcase_add_loop_test(tc, a_frame_has_a_largest_size,
	    SSE_FRAME_MAX - 4, SSE_FRAME_MAX + 6);
	tcase_add_test(tc, endless_data_is_bad);
	tcase_add_test(tc, an_events_name_has_a_longest_length);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	SRunner *sr = srunner_create(sse_suite());
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
