/* check_sse_parse.c - any event stream, read; any event, written. */
#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sse.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))
#define LEN(s) (sizeof(s) - 1)
#define MAX 1000

/* What was read, one line each: [name|data|id], "<line>" for a stray one,
 * '~' behind what was cut. */
static enum rs_err
note(void *arg, const struct sse_event *ev)
{
	struct buf *b = arg;

	ck_assert_int_eq(ev->data[ev->data_len], '\0');
	ck_assert_int_eq(ev->id[ev->id_len], '\0');
	ck_assert_int_eq(ev->name[ev->name_len], '\0');
	buf_puts(b, ev->kind == SSE_STRAY ? "<" : "[");
	if (ev->kind == SSE_EVENT) {
		buf_add(b, ev->name, ev->name_len);
		buf_puts(b, "|");
	}
	buf_add(b, ev->data, ev->data_len);
	if (ev->kind == SSE_EVENT) {
		buf_puts(b, "|");
		buf_add(b, ev->id, ev->id_len);
	}
	buf_puts(b, ev->kind == SSE_STRAY ? ">" : "]");
	buf_puts(b, ev->cut ? "~" : "");
	return b->err;
}

/* From a copy of exactly that size, so that reading beyond it is noticed. */
static enum rs_err
feed(struct sse_parser *p, const char *text, size_t len, struct buf *out)
{
	char *copy = malloc(len + (len == 0));
	enum rs_err err;

	memcpy(copy, text, len);
	err = sse_parser_feed(p, copy, len, note, out);
	free(copy);
	return err;
}

#define ROW(text, want) { text, LEN(text), want, LEN(want) }
static const struct {
	const char *text;
	size_t len;
	const char *want;
	size_t want_len;
} rows[] = {
	/* Line ends. */
	ROW("data: a\n\n", "[message|a|]"),
	ROW("data: a\r\n\r\n", "[message|a|]"),
	ROW("data: a\r\r", "[message|a|]"),
	ROW("data: a\r\n\n", "[message|a|]"),
	ROW("data: a\n\r\ndata: b\r\rdata: c\n\r",
	    "[message|a|][message|b|][message|c|]"),
	ROW("data: a\r\ndata: b\r\n\r\n", "[message|a\nb|]"),
	ROW("data: a\rdata: b\n\n", "[message|a\nb|]"),
	ROW("data: a\n\rdata: b\n\n", "[message|a|][message|b|]"),
	ROW("\n\r\r\n\r\n\ndata: a\n\n\n\n", "[message|a|]"),
	ROW("data: a\xe2\x80\xa8" "b\xe2\x80\xa9" "c\xc2\x85" "d\x0b\x0c\n\n",
	    "[message|a\xe2\x80\xa8" "b\xe2\x80\xa9" "c\xc2\x85" "d\x0b\x0c|]"),
	/* Values. */
	ROW("data:a\n\n", "[message|a|]"),
	ROW("data:  a \n\n", "[message| a |]"),
	ROW("data:\ta\n\n", "[message|\ta|]"),
	ROW("data: a: b:c\n\n", "[message|a: b:c|]"),
	ROW("data: :\n\n", "[message|:|]"),
	ROW("data: one\ndata: two\ndata:three\n\n",
	    "[message|one\ntwo\nthree|]"),
	ROW("data: a\ndata:\ndata: \n\n", "[message|a\n\n|]"),
	ROW("data: a\0b\n\n", "[message|a\0b|]"),
	ROW("data: \xff\xfe\n\n", "[message|\xff\xfe|]"),
	/* No data line, no event; empty ones make an empty event. */
	ROW("\n\n", ""),
	ROW("event: x\n\nid: 1\n\nretry: 5\n\n", ""),
	ROW("data\n\n", "[message||]"),
	ROW("data:\n\n", "[message||]"),
	ROW("data: \n\n", "[message||]"),
	ROW("data\ndata\n\n", "[message|\n|]"),
	/* Names. */
	ROW("event: ping\ndata: {}\n\ndata: a\n\n",
	    "[ping|{}|][message|a|]"),
	ROW("data: a\nevent:x\n\n", "[x|a|]"),
	ROW("event: x\nevent: y\ndata: a\n\n", "[y|a|]"),
	ROW("event: x\nevent\ndata: a\n\n", "[message|a|]"),
	ROW("event: x\n\ndata: a\n\n", "[message|a|]"),
	ROW("event: x\0y\ndata: a\n\n", "[x\0y|a|]"),
	/* Ids stay until another one comes. */
	ROW("id: 1\ndata: a\n\ndata: b\n\nid: 2\n\ndata: c\n\nid\ndata: d\n\n",
	    "[message|a|1][message|b|1][message|c|2][message|d|]"),
	ROW("id: 1\nid: 2\0\ndata: a\n\n", "[message|a|1]"),
	ROW("id: \xc3\xa4 b\ndata: a\n\n", "[message|a|\xc3\xa4 b]"),
	/* A BOM, at the very beginning only. */
	ROW("\xef\xbb\xbf" "data: a\n\n", "[message|a|]"),
	ROW("\xef\xbb\xbf\n\xef\xbb\xbf" "data: a\n\n",
	    "<\xef\xbb\xbf" "data: a>"),
	ROW("\xef\xbb\xbf\xef\xbb\xbf" "data: a\n\n",
	    "<\xef\xbb\xbf" "data: a>"),
	ROW("\xef\xbb\xbf: a\ndata: b\n\n", "[message|b|]"),
	ROW("\xef\xbb" "data: a\n\n", "<\xef\xbb" "data: a>"),
	ROW("\xef\xbb\xbf{\n", "<{>"),
	/* Comments. */
	ROW(":\n: x\n:data: x\ndata: a\n: y\ndata: b\n\n:\n\n",
	    "[message|a\nb|]"),
	/* Lines that are no field. */
	ROW("error: {\"code\":400}\n\ndata: [DONE]\n\n",
	    "<error: {\"code\":400}>[message|[DONE]|]"),
	ROW("data: a\n\n{\r\n  \"error\": 1\r\n}\r\n",
	    "[message|a|]<{><  \"error\": 1><}>"),
	ROW("data: a\nx\ndata: b\n\n", "<x>[message|a\nb|]"),
	ROW("Data: a\n data: b\ndata : c\ndat\ndataa: d\nevents: e\n\n",
	    "<Data: a>< data: b><data : c><dat><dataa: d><events: e>"),
	ROW("x: \0y\nids: 1\ni: 2\n", "<x: \0y><ids: 1><i: 2>"),
	/* The end. */
	ROW("", ""),
	ROW("\xef\xbb\xbf", ""),
	ROW("data: [DONE]", "[message|[DONE]|]~"),
	ROW("data: [DONE]\n", "[message|[DONE]|]~"),
	ROW("data: [DONE]\r", "[message|[DONE]|]~"),
	ROW("data: a\n\ndata: {\"b", "[message|a|][message|{\"b|]~"),
	ROW("id: 7\nevent: x\ndata: a", "[x|a|7]~"),
	ROW("data: a\n\nevent: x\nid: 1", "[message|a|]"),
	ROW("data: a\nda", "<da>~[message|a|]~"),
	ROW("data: a\n\n{\"error\": 1}", "[message|a|]<{\"error\": 1}>~"),
	ROW(": comment", ""),
};

/* The first cut at a, the others every step bytes behind it. */
static void
check_cuts(int row, size_t a, size_t step)
{
	const char *text = rows[row].text;
	size_t len = rows[row].len, at = 0, to;
	struct sse_parser p;
	struct buf out;

	sse_parser_init(&p, MAX);
	buf_init(&out, MAX);
	for (to = a; at < len; at = to, to += step) {
		to = to < len ? to : len;
		ck_assert_int_eq(feed(&p, text + at, to - at, &out), RS_OK);
	}
	ck_assert_int_eq(sse_parser_eof(&p, note, &out), RS_OK);
	ck_assert_uint_eq(out.len, rows[row].want_len);
	if (out.len > 0)
		ck_assert_mem_eq(out.data, rows[row].want, out.len);
	buf_done(&out);
	sse_parser_done(&p);
}

START_TEST(events_are_the_same_wherever_the_bytes_are_cut)
{
	size_t len = rows[_i].len, n;

	for (n = 0; n <= len; n++)
		check_cuts(_i, n, len + 1);
	for (n = 1; n <= len; n++)
		check_cuts(_i, n, n);
}
END_TEST

static const struct {
	const char *line;
	int64_t want;
} retries[] = {
	{ "retry: 3000", 3000 }, { "retry:0", 0 }, { "retry: 007", 7 },
	{ "retry", 1 }, { "retry:", 1 }, { "retry: ", 1 },
	{ "retry: -1", 1 }, { "retry: +2", 1 }, { "retry: 3s", 1 },
	{ "retry: 1.5", 1 }, { "retry:  3", 1 },
	{ "retry: 9223372036854775807", INT64_MAX },
	{ "retry: 9223372036854775808", 1 },
	{ "retry: 99999999999999999999999", 1 },
};

START_TEST(retry_is_digits_or_nothing)
{
	struct sse_parser p;
	struct buf out;

	buf_init(&out, MAX);
	sse_parser_init(&p, MAX);
	ck_assert_int_eq(p.retry_ms, -1);
	ck_assert_int_eq(feed(&p, "retry: 1\n", 9, &out), RS_OK);
	feed(&p, retries[_i].line, strlen(retries[_i].line), &out);
	ck_assert_int_eq(feed(&p, "\n", 1, &out), RS_OK);
	ck_assert_int_eq(p.retry_ms, retries[_i].want);
	ck_assert_uint_eq(out.len, 0);
	sse_parser_done(&p);
	buf_done(&out);
}
END_TEST

START_TEST(comments_are_counted)
{
	static const char text[] = ": a\n:\ndata: :\n\n:b\r\n: c";
	struct sse_parser p;
	struct buf out;

	buf_init(&out, MAX);
	sse_parser_init(&p, MAX);
	ck_assert_int_eq(feed(&p, text, LEN(text), &out), RS_OK);
	ck_assert_uint_eq(p.comments, 3);
	ck_assert_int_eq(sse_parser_eof(&p, note, &out), RS_OK);
	ck_assert_uint_eq(p.comments, 4);
	ck_assert_str_eq(out.data, "[message|:|]");
	sse_parser_done(&p);
	buf_done(&out);
}
END_TEST

#define TEN "0123456789"
static const struct {
	const char *text;
	enum rs_err want;
} sizes[] = { /* with a maximum of 16 */
	{ "data: " TEN "\n\n", RS_OK },
	{ "data: " TEN "1\n\n", RS_ETOOBIG },
	{ "data: " TEN "1", RS_ETOOBIG },
	{ "data: 01234567\ndata: 0123456\n\n", RS_OK },
	{ "data: 01234567\ndata: 01234567\n", RS_ETOOBIG },
	{ "data: 01234567\n\ndata: 01234567\n\n", RS_OK },
	{ ":" TEN "12345\n\n", RS_OK },
	{ ":" TEN "123456\n\n", RS_ETOOBIG },
	{ TEN "123456\n\n", RS_OK },
	{ TEN "1234567\n\n", RS_ETOOBIG },
	{ "id: " TEN "123\n\n", RS_ETOOBIG },
	{ "event: " TEN "123\n\n", RS_ETOOBIG },
};

START_TEST(an_event_or_line_beyond_the_maximum_is_refused_for_good)
{
	const char *text = sizes[_i].text;
	enum rs_err err = RS_OK;
	struct sse_parser p;
	struct buf out;
	size_t i, step;

	for (step = 1; step <= strlen(text); step++) {
		buf_init(&out, MAX);
		sse_parser_init(&p, 16);
		for (i = 0, err = RS_OK; i < strlen(text); i += step)
			err = feed(&p, text + i, strnlen(text + i, step),
			    &out);
		ck_assert_int_eq(err, sizes[_i].want);
		ck_assert_int_eq(feed(&p, "\n", 1, &out), sizes[_i].want);
		ck_assert_int_eq(sse_parser_eof(&p, note, &out),
		    sizes[_i].want);
		sse_parser_done(&p);
		buf_done(&out);
	}
}
END_TEST

static enum rs_err
stop(void *arg, const struct sse_event *ev)
{
	note(arg, ev);
	return strcmp(ev->data, "[DONE]") == 0 ? RS_ECLOSED : RS_OK;
}

START_TEST(a_callback_stops_the_parser_for_good)
{
	static const char text[] = "data: a\n\ndata: [DONE]\n\ndata: b\n\n";
	struct sse_parser p;
	struct buf out;

	buf_init(&out, MAX);
	sse_parser_init(&p, MAX);
	ck_assert_int_eq(sse_parser_feed(&p, text, LEN(text), stop, &out),
	    RS_ECLOSED);
	ck_assert_int_eq(sse_parser_feed(&p, text, LEN(text), stop, &out),
	    RS_ECLOSED);
	ck_assert_int_eq(sse_parser_eof(&p, stop, &out), RS_ECLOSED);
	ck_assert_str_eq(out.data, "[message|a|][message|[DONE]|]");
	sse_parser_done(&p);
	buf_done(&out);
}
END_TEST

static enum rs_err
measure(void *arg, const struct sse_event *ev)
{
	*(size_t *)arg += ev->data_len;
	return RS_OK;
}

/* What would be quadratic anywhere would not end: 10 MB of one line, of
 * events, of data lines, of line ends; in one-byte feeds and whole. */
static const char *const shapes[] = { "x", "data:x\n\n", "data:x\n",
	"data:x\r\r", "data\n", "\n", "\r", "id:1\nevent:e\n", ":\n", "x\r" };

START_TEST(time_is_linear)
{
	static char text[10 << 20];
	const char *shape = shapes[_i];
	size_t got[2] = { 0, 0 }, i;
	struct sse_parser p;

	for (i = 0; i < sizeof text; i++)
		text[i] = shape[i % strlen(shape)];
	sse_parser_init(&p, sizeof text);
	ck_assert_int_eq(sse_parser_feed(&p, text, sizeof text, measure,
	    &got[0]), RS_OK);
	ck_assert_int_eq(sse_parser_eof(&p, measure, &got[0]), RS_OK);
	sse_parser_done(&p);
	sse_parser_init(&p, sizeof text);
	for (i = 0; i < sizeof text; i++)
		sse_parser_feed(&p, text + i, 1, measure, &got[1]);
	ck_assert_int_eq(sse_parser_eof(&p, measure, &got[1]), RS_OK);
	sse_parser_done(&p);
	ck_assert_uint_eq(got[0], got[1]);
}
END_TEST

static const struct {
	const char *event, *id;
	int64_t retry_ms;
	const char *data, *want;
} written[] = {
	{ NULL, NULL, -1, "a", "data: a\n\n" },
	{ "x", "1", 5, "a", "event: x\nid: 1\nretry: 5\ndata: a\n\n" },
	{ NULL, "", 0, NULL, "id: \nretry: 0\n\n" },
	{ NULL, NULL, -1, "", "data: \n\n" },
	{ NULL, NULL, -1, " a", "data:  a\n\n" },
	{ NULL, NULL, -1, "a\nb", "data: a\ndata: b\n\n" },
	{ NULL, NULL, -1, "a\r\nb\rc\n\rd",
	    "data: a\ndata: b\ndata: c\ndata: \ndata: d\n\n" },
	{ NULL, NULL, -1, "\n", "data: \ndata: \n\n" },
	{ NULL, NULL, -1, "a\r", "data: a\ndata: \n\n" },
	{ NULL, NULL, -1, "data: a\n\n:b", "data: data: a\ndata: \n"
	    "data: :b\n\n" },
	{ "x\n", NULL, -1, "a", NULL },
	{ "x\ry", NULL, -1, "a", NULL },
	{ NULL, "1\ndata: b", -1, "a", NULL },
};

START_TEST(any_event_is_written)
{
	const char *data = written[_i].data;
	enum rs_err err;
	struct buf b;

	buf_init(&b, MAX);
	err = sse_event_write(&b, written[_i].event, written[_i].id,
	    written[_i].retry_ms, data, data != NULL ? strlen(data) : 0);
	ck_assert_int_eq(err, written[_i].want != NULL ? RS_OK : RS_EINVAL);
	if (written[_i].want != NULL)
		ck_assert_str_eq(b.data, written[_i].want);
	else
		ck_assert_uint_eq(b.len, 0);
	buf_done(&b);
	buf_init(&b, 3);
	if (written[_i].want != NULL)
		ck_assert_int_eq(sse_event_write(&b, written[_i].event,
		    written[_i].id, written[_i].retry_ms, data,
		    data != NULL ? strlen(data) : 0), RS_ETOOBIG);
	buf_done(&b);
}
END_TEST

static Suite *
sse_parse_suite(void)
{
	Suite *s = suite_create("sse_parse");
	TCase *tc = tcase_create("parse");

	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, events_are_the_same_wherever_the_bytes_are_cut,
	    0, COUNT(rows));
	tcase_add_loop_test(tc, retry_is_digits_or_nothing, 0,
	    COUNT(retries));
	tcase_add_test(tc, comments_are_counted);
	tcase_add_loop_test(tc,
	    an_event_or_line_beyond_the_maximum_is_refused_for_good, 0,
	    COUNT(sizes));
	tcase_add_test(tc, a_callback_stops_the_parser_for_good);
	tcase_add_loop_test(tc, time_is_linear, 0, COUNT(shapes));
	tcase_add_loop_test(tc, any_event_is_written, 0, COUNT(written));
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	SRunner *sr = srunner_create(sse_parse_suite());
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
