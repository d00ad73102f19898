/* check_jx.c - JSON in and out. */
#include <json-c/json.h>

#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jx.h"
#include "text.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))
#define LEN(s) (sizeof(s) - 1)

/* Parses a copy of exactly that size, so that reading beyond it is noticed. */
static enum rs_err
parse(const char *text, size_t n, struct json_object **ret)
{
	char *copy = malloc(n + (n == 0));
	const char *why = NULL;
	enum rs_err err;

	memcpy(copy, text, n);
	*ret = NULL;
	err = jx_parse(copy, n, ret, &why);
	/* What is cheaper to ask knows the same, two things apart. */
	if (err == RS_OK)
		ck_assert(jx_valid(copy, n));
	else if (strcmp(why, "a name twice") != 0 &&
	    strcmp(why, "a NUL in a name") != 0)
		ck_assert_msg(!jx_valid(copy, n), "%.*s", (int)n, copy);
	free(copy);
	if (err == RS_OK)
		ck_assert_ptr_null(why);
	else {
		ck_assert_int_eq(err, RS_EINVAL);
		ck_assert_ptr_null(*ret);
		ck_assert_uint_gt(strlen(why), 0);
	}
	return err;
}

static const struct {
	const char *text, *want; /* as written again by json-c */
} good[] = {
	{ "{}", "{}" },
	{ " \t\r\n{ \"a\" : [ 1 , 2 ] } \n", "{\"a\":[1,2]}" },
	{ "[]", "[]" },
	{ "1", "1" },
	{ "-12", "-12" },
	{ "0", "0" },
	{ "-0", "0" },
	{ "[0.5,-0.25,1e3,1E+2,2e-7]", "[0.5,-0.25,1e3,1E+2,2e-7]" },
	{ "0.0000006", "0.0000006" },
	{ "12.340", "12.340" },
	{ "true", "true" },
	{ "[false,null]", "[false,null]" },
	{ "null", "null" },
	{ "\"\"", "\"\"" },
	{ "\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"a\\\"\\\\/\\b\\f\\n\\r\\t\"" },
	{ "\"\\u00e4\xc3\xa4\"", "\"\xc3\xa4\xc3\xa4\"" },
	{ "\"\\ud83d\\ude00\"", "\"\xf0\x9f\x98\x80\"" },
	{ "\"\\ud800\"", "\"\xef\xbf\xbd\"" },
	{ "\"\\ud800x\"", "\"\xef\xbf\xbdx\"" },
	{ "\"\\ud800\\n\"", "\"\xef\xbf\xbd\\n\"" },
	{ "\"\\udc00\\udc00\"", "\"\xef\xbf\xbd\xef\xbf\xbd\"" },
	{ "\"\\u0000\"", "\"\\u0000\"" },
	{ "\"\x7f\"", "\"\x7f\"" },
	{ "{\"a\":{\"b\":1},\"c\":{\"b\":2}}",
	    "{\"a\":{\"b\":1},\"c\":{\"b\":2}}" },
	{ "[\"NaN\",\"Infinity\",\"01\",\"{[:\"]",
	    "[\"NaN\",\"Infinity\",\"01\",\"{[:\"]" },
	{ "{\"a\":\":\",\"b\":\"\\\\\"}", "{\"a\":\":\",\"b\":\"\\\\\"}" },
};

START_TEST(what_is_json_is_taken)
{
	struct json_object *o;

	ck_assert_int_eq(parse(good[_i].text, strlen(good[_i].text), &o),
	    RS_OK);
	ck_assert_str_eq(json_object_to_json_string_ext(o,
	    JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE),
	    good[_i].want);
	json_object_put(o);
}
END_TEST

#define BAD(s) { s, LEN(s) }
static const struct {
	const char *text;
	size_t len;
} bad[] = {
	BAD(""), BAD(" "), BAD("\n\n"), BAD("\0"), BAD("\xef\xbb\xbf{}"),
	/* controls and NULs */
	BAD("\"\x01\""), BAD("\"a\nb\""), BAD("\"a\tb\""), BAD("\"\x1f\""),
	BAD("\"a\0b\""), BAD("{\"a\0\":1}"), BAD("{}\0"), BAD("{}\0{}"),
	BAD("1\0"), BAD("[1,\0" "2]"), BAD("{\"a\n\":1}"), BAD("[\v]"),
	BAD("[\f]"), BAD("{\"a\\u0000b\":1}"), BAD("{\"a\\u0000\" :1}"),
	BAD("[{\"\\u0000\":1}]"),
	/* words */
	BAD("NaN"), BAD("nan"), BAD("[NaN]"), BAD("Infinity"),
	BAD("-Infinity"), BAD("[-Infinity]"), BAD("infinity"), BAD("inf"),
	BAD("TRUE"), BAD("True"), BAD("[tRue]"), BAD("nul"), BAD("nullx"),
	BAD("[nulll]"), BAD("[truefalse]"), BAD("[true false]"), BAD("x"),
	BAD("undefined"), BAD("NULL"), BAD("False"),
	/* numbers */
	BAD("01"), BAD("-01"), BAD("00"), BAD("[00]"), BAD("[-00.5]"),
	BAD("+1"), BAD("1."), BAD("[1.]"), BAD("[1.,2]"), BAD(".5"),
	BAD("-.5"), BAD("-"), BAD("[-]"), BAD("1e"), BAD("1e+"), BAD("1E-"),
	BAD("[1e]"), BAD("1..2"), BAD("1.2.3"), BAD("1e5e5"), BAD("1-2"),
	BAD("--1"), BAD("0x10"), BAD("1_000"), BAD("1e5.5"), BAD("1a"),
	/* strings */
	BAD("'a'"), BAD("{'a':1}"), BAD("{a:1}"), BAD("\""), BAD("\"a"),
	BAD("\"a\\"), BAD("\"\\x41\""), BAD("\"\\q\""), BAD("\"\\u12g4\""),
	BAD("\"\\u123\""), BAD("\"\\u\""), BAD("\"\\ud800\\q\""),
	BAD("\"\\ud800\\u12\""), BAD("\"\\U0041\""),
	/* UTF-8 */
	BAD("\"\xff\""), BAD("\"\xc3\""), BAD("\"\xc0\x80\""),
	BAD("\"\xed\xa0\x80\""), BAD("\"\xf4\x90\x80\x80\""),
	BAD("{\"\xe2\x82\":1}"), BAD("\xff"),
	/* form */
	BAD("{"), BAD("}"), BAD("["), BAD("]"), BAD("[1"), BAD("[1,"),
	BAD("[1,]"), BAD("[,1]"), BAD("[,]"), BAD("{,}"), BAD("{\"a\"}"),
	BAD("{\"a\":}"), BAD("{\"a\":1,}"), BAD("{\"a\":1"), BAD("{\"a\" 1}"),
	BAD("{\"a\":1 \"b\":2}"), BAD("{1:2}"), BAD("[1:2]"), BAD("{:1}"),
	BAD("[}"), BAD("{]"), BAD("[1}"), BAD("{\"a\":1]"), BAD("]["),
	BAD(":"), BAD(","), BAD("{null:1}"), BAD("{\"a\"::1}"),
	BAD("[1 2]"), BAD("[[]"), BAD("[]]"),
	/* comments, and what follows the text */
	BAD("/* */{}"), BAD("{/**/}"), BAD("//\n{}"), BAD("# c\n{}"),
	BAD("{}x"), BAD("{} {}"), BAD("{}{}"), BAD("1 2"), BAD("\"a\"\"b\""),
	BAD("{},"), BAD("[],[]"), BAD("null null"), BAD("{} // c"),
	/* a name twice in an object */
	BAD("{\"m\":[{\"a\":1,\"a\":2}]}"), BAD("[{\"a\":1,\"a\":2}]"),
	BAD("{\"m\":{\"b\":{\"a\":1,\"a\":2}},\"n\":{\"a\":1}}"),
	BAD("{\"a\":1,\"a\":2}"), BAD("{\"a\":1,\"b\":2,\"a\":1}"),
	BAD("{\"a\":1,\"\\u0061\":2}"), BAD("{\"\":1,\"\":2}"),
	BAD("{\"a\":null,\"a\":null}"),
};

START_TEST(what_is_not_json_is_refused)
{
	struct json_object *o;

	ck_assert_int_eq(parse(bad[_i].text, bad[_i].len, &o), RS_EINVAL);
}
END_TEST

START_TEST(no_bytes_at_all_are_refused)
{
	struct json_object *o;
	const char *why;

	ck_assert_int_eq(jx_parse(NULL, 0, &o, &why), RS_EINVAL);
}
END_TEST

static const char whole[] = "{\"a\":[1,-2.5e+3,\"\\u00e4\\n\xc3\xa4\",true],"
    "\"b\":{\"c\":null,\"d\":\"\\ud83d\\ude00\"}}";

START_TEST(a_text_cut_short_is_refused)
{
	struct json_object *o;

	ck_assert_int_eq(parse(whole, (size_t)_i, &o), RS_EINVAL);
}
END_TEST

/* Never a crash, and what is taken can be written and taken again. */
START_TEST(any_changed_byte_is_taken_or_refused)
{
	struct json_object *o, *again;
	char text[sizeof whole];
	const char *written;
	int c;

	for (c = 0; c < 256; c++) {
		memcpy(text, whole, sizeof whole);
		text[_i] = (char)c;
		if (parse(text, LEN(whole), &o) != RS_OK)
			continue;
		written = json_object_to_json_string(o);
		ck_assert_int_eq(parse(written, strlen(written), &again),
		    RS_OK);
		ck_assert(json_object_equal(o, again));
		json_object_put(again);
		json_object_put(o);
	}
}
END_TEST

/* _i deep, of arrays, of objects, of both. */
START_TEST(nesting_has_a_limit)
{
	static const char *const open[] = { "[", "{\"a\":", "[{\"a\":" };
	static const char *const close[] = { "]", "}", "}]" };
	struct json_object *o;
	struct buf b;
	int i, kind, want;

	want = _i <= JX_DEPTH_MAX ? RS_OK : RS_EINVAL;
	for (kind = 0; kind < 3; kind++) {
		buf_init(&b, 1 << 20);
		for (i = 0; i < _i; i += 1 + (kind == 2))
			buf_puts(&b, open[kind]);
		buf_puts(&b, "1");
		for (i = 0; i < _i; i += 1 + (kind == 2))
			buf_puts(&b, close[kind]);
		if (kind < 2 || _i % 2 == 0)
			ck_assert_int_eq(parse(b.data, b.len, &o), want);
		json_object_put(kind < 2 || _i % 2 == 0 ? o : NULL);
		buf_done(&b);
	}
}
END_TEST

START_TEST(a_thousand_brackets_do_no_harm)
{
	struct json_object *o;
	char text[1000];

	memset(text, "[]{}\":"[_i], sizeof text);
	ck_assert_int_eq(parse(text, sizeof text, &o), RS_EINVAL);
}
END_TEST

static const struct {
	const char *json;
	enum rs_err want_str, want_uint, want_bool;
	uint64_t number;
} members[] = {
	{ "{}", RS_ENOENT, RS_ENOENT, RS_ENOENT, 0 },
	{ "[]", RS_ENOENT, RS_ENOENT, RS_ENOENT, 0 },
	{ "1", RS_ENOENT, RS_ENOENT, RS_ENOENT, 0 },
	{ "null", RS_ENOENT, RS_ENOENT, RS_ENOENT, 0 },
	{ "{\"A\":1}", RS_ENOENT, RS_ENOENT, RS_ENOENT, 0 },
	{ "{\"a\":null}", RS_ENOENT, RS_ENOENT, RS_ENOENT, 0 },
	{ "{\"a\":\"x\\u0000y\"}", RS_OK, RS_EINVAL, RS_EINVAL, 0 },
	{ "{\"a\":0}", RS_EINVAL, RS_OK, RS_EINVAL, 0 },
	{ "{\"a\":-0}", RS_EINVAL, RS_OK, RS_EINVAL, 0 },
	{ "{\"a\":9223372036854775808}", RS_EINVAL, RS_OK, RS_EINVAL,
	    UINT64_C(9223372036854775808) },
	{ "{\"a\":18446744073709551614}", RS_EINVAL, RS_OK, RS_EINVAL,
	    UINT64_MAX - 1 },
	{ "{\"a\":18446744073709551615}", RS_EINVAL, RS_EINVAL, RS_EINVAL,
	    0 },
	{ "{\"a\":99999999999999999999}", RS_EINVAL, RS_EINVAL, RS_EINVAL,
	    0 },
	{ "{\"a\":-1}", RS_EINVAL, RS_EINVAL, RS_EINVAL, 0 },
	{ "{\"a\":-99999999999999999999}", RS_EINVAL, RS_EINVAL, RS_EINVAL,
	    0 },
	{ "{\"a\":1.0}", RS_EINVAL, RS_EINVAL, RS_EINVAL, 0 },
	{ "{\"a\":1e3}", RS_EINVAL, RS_EINVAL, RS_EINVAL, 0 },
	{ "{\"a\":\"1\"}", RS_OK, RS_EINVAL, RS_EINVAL, 0 },
	{ "{\"a\":true}", RS_EINVAL, RS_EINVAL, RS_OK, 0 },
	{ "{\"a\":[1]}", RS_EINVAL, RS_EINVAL, RS_EINVAL, 0 },
	{ "{\"a\":{}}", RS_EINVAL, RS_EINVAL, RS_EINVAL, 0 },
};

START_TEST(a_member_is_given_by_its_type)
{
	struct json_object *o;
	const char *s = "untouched";
	uint64_t number = 4711;
	size_t len = 4711;
	bool yes = false;

	ck_assert_int_eq(parse(members[_i].json, strlen(members[_i].json),
	    &o), RS_OK);
	ck_assert_int_eq(jx_get_str(o, "a", &s, &len), members[_i].want_str);
	ck_assert_int_eq(jx_get_uint(o, "a", &number),
	    members[_i].want_uint);
	ck_assert_int_eq(jx_get_bool(o, "a", &yes), members[_i].want_bool);
	if (members[_i].want_str != RS_OK) {
		ck_assert_str_eq(s, "untouched");
		ck_assert_uint_eq(len, 4711);
	} else if (len == 3)
		ck_assert_mem_eq(s, "x\0y", 3);
	ck_assert_uint_eq(number, members[_i].want_uint == RS_OK ?
	    members[_i].number : 4711);
	ck_assert_int_eq(yes, members[_i].want_bool == RS_OK);
	json_object_put(o);
}
END_TEST

#define REPLACED "\xef\xbf\xbd"
static const struct {
	const char *text;
	size_t len;
	const char *want;
} strings[] = {
	{ NULL, 0, "\"\"" },
	{ "plain", 5, "\"plain\"" },
	{ "\"\\/", 3, "\"\\\"\\\\/\"" },
	{ "\n\r\t", 3, "\"\\n\\r\\t\"" },
	{ "a\0b", 3, "\"a\\u0000b\"" },
	{ "\x01\x1f\x7f", 3, "\"\\u0001\\u001f\\u007f\"" },
	{ "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9,
	    "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"" },
	{ "\xe2\x80\xa8\xe2\x80\xa9", 6, "\"\xe2\x80\xa8\xe2\x80\xa9\"" },
	{ "\xff", 1, "\"" REPLACED "\"" },
	{ "a\xff\xfe" "b", 4, "\"a" REPLACED REPLACED "b\"" },
	{ "\xe2\x82", 2, "\"" REPLACED REPLACED "\"" },
	{ "\xed\xa0\x80", 3, "\"" REPLACED REPLACED REPLACED "\"" },
	{ "\xc0\x80x", 3, "\"" REPLACED REPLACED "x\"" },
};

START_TEST(a_string_is_written_as_one_line)
{
	struct buf b;

	buf_init(&b, 1000);
	jx_put_str(&b, strings[_i].text, strings[_i].len);
	ck_assert_str_eq(b.data, strings[_i].want);
	buf_done(&b);
}
END_TEST

/* Every pair of bytes, between two others. */
START_TEST(any_bytes_come_back_from_the_string_written)
{
	struct json_object *o;
	char text[4] = { 'x', (char)_i, 0, 'y' };
	const char *why;
	struct buf b;
	size_t i;
	int c;

	buf_init(&b, 1000);
	for (c = 0; c < 256; c++) {
		text[2] = (char)c;
		buf_clear(&b);
		jx_put_str(&b, text, sizeof text);
		ck_assert_int_eq(b.err, RS_OK);
		for (i = 0; i < b.len; i++)
			ck_assert((unsigned char)b.data[i] >= 0x20 &&
			    b.data[i] != 0x7f);
		ck_assert_int_eq(jx_parse(b.data, b.len, &o, &why), RS_OK);
		if (utf8_valid(text, sizeof text)) {
			ck_assert_int_eq(json_object_get_string_len(o), 4);
			ck_assert_mem_eq(json_object_get_string(o), text, 4);
		}
		json_object_put(o);
	}
	buf_done(&b);
}
END_TEST

static const char *const values[] = {
	"{\"a\":[1,-2,0.10,1e400,true,false,null,\"\\\"\\\\\\u0000/\xc5\xbc\"],"
	    "\"b\\n\":{},\"c\":[],\"\":{\"d\":[[]]},"
	    "\"e\":18446744073709551615}",
	"[]", "{}", "\"\"", "0", "null", "true",
};

START_TEST(a_value_is_written_as_it_was_parsed)
{
	struct json_object *o = NULL;
	struct buf b;

	ck_assert_int_eq(parse(values[_i], strlen(values[_i]), &o), RS_OK);
	buf_init(&b, 1000);
	jx_put(&b, o);
	ck_assert_int_eq(b.err, RS_OK);
	ck_assert_str_eq(b.data, values[_i]);
	buf_done(&b);
	json_object_put(o);
}
END_TEST

static Suite *
jx_suite(void)
{
	Suite *s = suite_create("jx");
	TCase *tc;

	tc = tcase_create("parse");
	tcase_add_loop_test(tc, what_is_json_is_taken, 0, COUNT(good));
	tcase_add_loop_test(tc, what_is_not_json_is_refused, 0, COUNT(bad));
	tcase_add_test(tc, no_bytes_at_all_are_refused);
	tcase_add_loop_test(tc, a_text_cut_short_is_refused, 0, LEN(whole));
	tcase_add_loop_test(tc, any_changed_byte_is_taken_or_refused, 0,
	    LEN(whole));
	tcase_add_loop_test(tc, nesting_has_a_limit, JX_DEPTH_MAX - 2,
	    JX_DEPTH_MAX + 4);
	tcase_add_loop_test(tc, nesting_has_a_limit, 1000, 1001);
	tcase_add_loop_test(tc, a_thousand_brackets_do_no_harm, 0, 6);
	suite_add_tcase(s, tc);

	tc = tcase_create("get");
	tcase_add_loop_test(tc, a_member_is_given_by_its_type, 0,
	    COUNT(members));
	suite_add_tcase(s, tc);

	tc = tcase_create("put");
	tcase_add_loop_test(tc, a_string_is_written_as_one_line, 0,
	    COUNT(strings));
	tcase_add_loop_test(tc, a_value_is_written_as_it_was_parsed, 0,
	    COUNT(values));
	tcase_add_loop_test(tc, any_bytes_come_back_from_the_string_written,
	    0, 256);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	SRunner *sr = srunner_create(jx_suite());
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
