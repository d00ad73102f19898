/* check_params.c - query string, form and JSON body */
#include <stdlib.h>
#include <string.h>
#include <check.h>
#include <json-c/json.h>
#include "params.h"

#define JSON "application/json"
#define FORM "application/x-www-form-urlencoded"

static struct params *params;
static bool explained;

static enum errtype
parse(const char *query, const char *type, const char *body, size_t n)
{
	struct buf b, why;
	enum errtype t;

	buf_init(&b, 1 << 20);
	buf_init(&why, 1024);
	if (n > 0)
		buf_add(&b, body, n);
	params_free(params);
	params = NULL;
	t = params_parse(query, type, &b, &params, &why);
	explained = why.len > 0;
	buf_done(&why);
	buf_done(&b);
	return t;
}

static void
teardown(void)
{
	params_free(params);
	params = NULL;
}

/* The text of a name, or "(none)", "(type)". */
static const char *
text(const char *name)
{
	const char *s = NULL;
	size_t n;

	switch (params_str(params, name, &s, &n)) {
	case RS_OK:
		ck_assert_uint_eq(strlen(s), n);
		return s;
	case RS_ENOENT:
		return "(none)";
	default:
		return "(type)";
	}
}

static const struct {
	const char *query, *type, *body, *want; /* of the name a */
} texts[] = {
	{ NULL, NULL, "", "(none)" },
	{ "", "", "", "(none)" },
	{ "b=1", NULL, "", "(none)" },
	{ "a=1", NULL, "", "1" },
	{ "a=", NULL, "", "" },
	{ "a", NULL, "", "" },
	{ "&&a=1&", NULL, "", "1" },
	{ "a=b=c", NULL, "", "b=c" },
	{ "a=x+y%20z%2B", NULL, "", "x y z+" },
	{ "%61=1", NULL, "", "1" },
	{ "a=%c3%A4", NULL, "", "\xc3\xa4" },
	{ "=1&a=2", NULL, "", "2" },
	{ "a=query", JSON, "{\"a\":\"body\"}", "body" },
	{ "a=query", JSON, "{\"b\":\"body\"}", "query" },
	{ "a=query", JSON, "{\"a\":null}", "(none)" },
	{ "a=query", FORM, "a=body", "body" },
	{ "a=query", FORM, "b=body", "query" },
	{ NULL, JSON, "{\"a\":5}", "(type)" },
	{ NULL, JSON, "{\"a\":[\"x\"]}", "(type)" },
	{ NULL, JSON, "{\"a\":true}", "(type)" },
	{ NULL, JSON, " {\"a\":\"\\u00e4\"}\n", "\xc3\xa4" },
	{ NULL, "Application/JSON ; charset=UTF-8", "{\"a\":\"x\"}", "x" },
	{ NULL, "application/json;", "{\"a\":\"x\"}", "x" },
	{ NULL, FORM ";charset=utf-8", "a=x", "x" },
	{ "a=1", "text/plain", "", "1" },
};

START_TEST(a_text_is_the_bodys_else_the_querys)
{
	ck_assert_int_eq(parse(texts[_i].query, texts[_i].type, texts[_i].body,
	    strlen(texts[_i].body)), ERRTYPE_none);
	ck_assert_str_eq(text("a"), texts[_i].want);
}
END_TEST

static const struct {
	const char *query, *type, *body;
	enum errtype want;
} refused[] = {
	{ "a=1&a=1", NULL, "", ERRTYPE_invalid_request },
	{ "a=1&%61=2", NULL, "", ERRTYPE_invalid_request },
	{ "a=%", NULL, "", ERRTYPE_invalid_request },
	{ "a=%4", NULL, "", ERRTYPE_invalid_request },
	{ "a=%4&b=1", NULL, "", ERRTYPE_invalid_request },
	{ "a=%zz", NULL, "", ERRTYPE_invalid_request },
	{ "a=%ff", NULL, "", ERRTYPE_invalid_request },
	{ "a=\xff", NULL, "", ERRTYPE_invalid_request },
	{ "%ff=1", NULL, "", ERRTYPE_invalid_request },
	{ "a=%ed%a0%80", NULL, "", ERRTYPE_invalid_request },
	{ "a=%c0%af", NULL, "", ERRTYPE_invalid_request },
	{ "a%00b=1", NULL, "", ERRTYPE_invalid_request },
	{ NULL, FORM, "a=1&a=2", ERRTYPE_invalid_request },
	{ NULL, FORM, "a=%GG", ERRTYPE_invalid_request },
	{ NULL, JSON, "{\"a\":1,\"a\":1}", ERRTYPE_invalid_request },
	{ NULL, JSON, "[]", ERRTYPE_invalid_request },
	{ NULL, JSON, "\"a\"", ERRTYPE_invalid_request },
	{ NULL, JSON, "null", ERRTYPE_invalid_request },
	{ NULL, JSON, "5", ERRTYPE_invalid_request },
	{ NULL, JSON, " ", ERRTYPE_invalid_request },
	{ NULL, JSON, "{\"a\":1", ERRTYPE_invalid_request },
	{ NULL, JSON, "{\"a\":1}x", ERRTYPE_invalid_request },
	{ NULL, JSON, "{\"a\":1}{}", ERRTYPE_invalid_request },
	{ NULL, JSON, "{'a':1}", ERRTYPE_invalid_request },
	{ NULL, JSON, "{\"a\":1,}", ERRTYPE_invalid_request },
	{ NULL, JSON, "{\"a\":NaN}", ERRTYPE_invalid_request },
	{ NULL, JSON, "{\"a\":\"\xff\"}", ERRTYPE_invalid_request },
	{ NULL, JSON, "a=1", ERRTYPE_invalid_request },
	{ NULL, NULL, "{}", ERRTYPE_unsupported_media_type },
	{ NULL, "", "{}", ERRTYPE_unsupported_media_type },
	{ NULL, "text/plain", "{}", ERRTYPE_unsupported_media_type },
	{ NULL, "application/jsonx", "{}", ERRTYPE_unsupported_media_type },
	{ NULL, "application", "{}", ERRTYPE_unsupported_media_type },
	{ NULL, "multipart/form-data; boundary=x", "--x",
	    ERRTYPE_unsupported_media_type },
};

START_TEST(what_is_not_valid_is_refused_with_a_reason)
{
	ck_assert_int_eq(parse(refused[_i].query, refused[_i].type,
	    refused[_i].body, strlen(refused[_i].body)), refused[_i].want);
	ck_assert_ptr_null(params);
	ck_assert_int_eq(explained,
	    refused[_i].want == ERRTYPE_invalid_request);
}
END_TEST

START_TEST(a_nul_in_a_value_is_kept)
{
	const char *s;
	size_t n;

	ck_assert_int_eq(parse("a=x%00y", NULL, NULL, 0), ERRTYPE_none);
	ck_assert_int_eq(params_str(params, "a", &s, &n), RS_OK);
	ck_assert_uint_eq(n, 3);
	ck_assert_mem_eq(s, "x\0y", 4);
	ck_assert_int_eq(parse(NULL, JSON, "{\"a\":\"x\\u0000y\"}", 16),
	    ERRTYPE_none);
	ck_assert_int_eq(params_str(params, "a", &s, &n), RS_OK);
	ck_assert_mem_eq(s, "x\0y", 4);
}
END_TEST

START_TEST(a_raw_nul_in_json_is_refused)
{
	ck_assert_int_eq(parse(NULL, JSON, "{\"a\":\"x\0\"}", 10),
	    ERRTYPE_invalid_request);
	ck_assert_int_eq(parse(NULL, JSON, "{}\0", 3),
	    ERRTYPE_invalid_request);
}
END_TEST

START_TEST(json_a_thousand_deep_is_refused)
{
	struct buf b;
	int i;

	buf_init(&b, 1 << 20);
	buf_puts(&b, "{\"a\":");
	for (i = 0; i < 1000; i++)
		buf_puts(&b, "[");
	for (i = 0; i < 1000; i++)
		buf_puts(&b, "]");
	buf_puts(&b, "}");
	ck_assert_int_eq(parse(NULL, JSON, b.data, b.len),
	    ERRTYPE_invalid_request);
	buf_done(&b);
}
END_TEST

START_TEST(more_names_than_the_maximum_are_refused)
{
	struct buf b;
	int i;

	buf_init(&b, 1 << 20);
	for (i = 0; i < PARAMS_MAX; i++)
		buf_printf(&b, "a%d=&", i);
	ck_assert_int_eq(parse(b.data, NULL, NULL, 0), ERRTYPE_none);
	buf_puts(&b, "b=1");
	ck_assert_int_eq(parse(b.data, NULL, NULL, 0),
	    ERRTYPE_invalid_request);
	buf_done(&b);
}
END_TEST

static const struct {
	const char *query, *type, *body;
	enum rs_err err;
	int64_t want;
} ints[] = {
	{ NULL, NULL, "", RS_ENOENT, 0 },
	{ "n=5", NULL, "", RS_OK, 5 },
	{ "n=-1", NULL, "", RS_OK, -1 },
	{ "n=007", NULL, "", RS_OK, 7 },
	{ "n=-0", NULL, "", RS_OK, 0 },
	{ "n=9223372036854775807", NULL, "", RS_OK, INT64_MAX },
	{ "n=9223372036854775808", NULL, "", RS_EINVAL, 0 },
	{ "n=99999999999999999999999", NULL, "", RS_EINVAL, 0 },
	{ "n=", NULL, "", RS_EINVAL, 0 },
	{ "n=-", NULL, "", RS_EINVAL, 0 },
	{ "n=%2B5", NULL, "", RS_EINVAL, 0 },
	{ "n=+5", NULL, "", RS_EINVAL, 0 },
	{ "n=5.0", NULL, "", RS_EINVAL, 0 },
	{ "n=1e3", NULL, "", RS_EINVAL, 0 },
	{ "n=0x5", NULL, "", RS_EINVAL, 0 },
	{ "n=5%00", NULL, "", RS_EINVAL, 0 },
	{ NULL, FORM, "n=5", RS_OK, 5 },
	{ NULL, JSON, "{\"n\":5}", RS_OK, 5 },
	{ NULL, JSON, "{\"n\":-1}", RS_OK, -1 },
	{ NULL, JSON, "{\"n\":null}", RS_ENOENT, 0 },
	{ NULL, JSON, "{\"n\":\"5\"}", RS_EINVAL, 0 },
	{ NULL, JSON, "{\"n\":5.0}", RS_EINVAL, 0 },
	{ NULL, JSON, "{\"n\":5.5}", RS_EINVAL, 0 },
	{ NULL, JSON, "{\"n\":1e3}", RS_EINVAL, 0 },
	{ NULL, JSON, "{\"n\":true}", RS_EINVAL, 0 },
	{ NULL, JSON, "{\"n\":9223372036854775808}", RS_EINVAL, 0 },
	{ NULL, JSON, "{\"n\":99999999999999999999999}", RS_EINVAL, 0 },
	{ NULL, JSON, "{\"n\":-99999999999999999999999}", RS_EINVAL, 0 },
	{ "n=5", JSON, "{\"n\":6}", RS_OK, 6 },
};

START_TEST(an_integer_may_be_digits_except_in_json)
{
	int64_t v = 0;

	ck_assert_int_eq(parse(ints[_i].query, ints[_i].type, ints[_i].body,
	    strlen(ints[_i].body)), ERRTYPE_none);
	ck_assert_int_eq(params_int(params, "n", &v), ints[_i].err);
	ck_assert_int_eq(v, ints[_i].want);
}
END_TEST

static const struct {
	const char *query, *type, *body;
	enum rs_err err;
	bool want;
} bools[] = {
	{ NULL, NULL, "", RS_ENOENT, false },
	{ "b=true", NULL, "", RS_OK, true },
	{ "b=false", NULL, "", RS_OK, false },
	{ "b=", NULL, "", RS_EINVAL, false },
	{ "b=1", NULL, "", RS_EINVAL, false },
	{ "b=True", NULL, "", RS_EINVAL, false },
	{ "b=true%00", NULL, "", RS_EINVAL, false },
	{ "b=truely", NULL, "", RS_EINVAL, false },
	{ NULL, FORM, "b=true", RS_OK, true },
	{ NULL, JSON, "{\"b\":true}", RS_OK, true },
	{ NULL, JSON, "{\"b\":false}", RS_OK, false },
	{ NULL, JSON, "{\"b\":null}", RS_ENOENT, false },
	{ NULL, JSON, "{\"b\":\"true\"}", RS_EINVAL, false },
	{ NULL, JSON, "{\"b\":1}", RS_EINVAL, false },
	{ "b=true", JSON, "{\"b\":false}", RS_OK, false },
};

START_TEST(a_boolean_may_be_a_word_except_in_json)
{
	bool v = !bools[_i].want;

	ck_assert_int_eq(parse(bools[_i].query, bools[_i].type,
	    bools[_i].body, strlen(bools[_i].body)), ERRTYPE_none);
	ck_assert_int_eq(params_bool(params, "b", &v), bools[_i].err);
	ck_assert_int_eq(v, bools[_i].err == RS_OK ? bools[_i].want :
	    !bools[_i].want);
}
END_TEST

static const struct {
	const char *query, *type, *body;
	enum rs_err err;
} arrays[] = {
	{ NULL, NULL, "", RS_ENOENT },
	{ "a=[1,2]", NULL, "", RS_OK },
	{ "a=%5B1%2C2%5D", NULL, "", RS_OK },
	{ "a={}", NULL, "", RS_EINVAL },
	{ "a=[1", NULL, "", RS_EINVAL },
	{ "a=", NULL, "", RS_EINVAL },
	{ NULL, FORM, "a=[1,2]", RS_OK },
	{ NULL, JSON, "{\"a\":[1,2]}", RS_OK },
	{ NULL, JSON, "{\"a\":\"[1,2]\"}", RS_EINVAL },
	{ NULL, JSON, "{\"a\":{}}", RS_EINVAL },
};

START_TEST(an_array_may_be_json_text_except_in_json)
{
	struct json_object *o = NULL;

	ck_assert_int_eq(parse(arrays[_i].query, arrays[_i].type,
	    arrays[_i].body, strlen(arrays[_i].body)), ERRTYPE_none);
	ck_assert_int_eq(params_array(params, "a", &o), arrays[_i].err);
	if (arrays[_i].err == RS_OK)
		ck_assert_uint_eq(json_object_array_length(o), 2);
	json_object_put(o);
}
END_TEST

START_TEST(an_object_is_none_of_another_type)
{
	static const char body[] =
	    "{\"b\":[],\"c\":{},\"d\":\"{}\",\"e\":null}";
	struct json_object *o = NULL;

	ck_assert_int_eq(parse("a={\"x\":1}", JSON, body, sizeof body - 1),
	    ERRTYPE_none);
	ck_assert_int_eq(params_object(params, "a", &o), RS_OK);
	ck_assert_int_eq(json_object_object_length(o), 1);
	json_object_put(o);
	ck_assert_int_eq(params_object(params, "b", &o), RS_EINVAL);
	ck_assert_int_eq(params_object(params, "c", &o), RS_OK);
	json_object_put(o);
	ck_assert_int_eq(params_object(params, "d", &o), RS_EINVAL);
	ck_assert_int_eq(params_object(params, "e", &o), RS_ENOENT);
	ck_assert_int_eq(params_object(params, "f", &o), RS_ENOENT);
}
END_TEST

#define ROWS(a) (int)(sizeof(a) / sizeof(a)[0])

int
main(void)
{
	Suite *s = suite_create("params");
	TCase *tc = tcase_create("params");
	SRunner *sr = srunner_create(s);
	int failed;

	suite_add_tcase(s, tc);
	tcase_add_checked_fixture(tc, NULL, teardown);
	tcase_add_loop_test(tc, a_text_is_the_bodys_else_the_querys,
	    0, ROWS(texts));
	tcase_add_loop_test(tc, what_is_not_valid_is_refused_with_a_reason,
	    0, ROWS(refused));
	tcase_add_test(tc, a_nul_in_a_value_is_kept);
	tcase_add_test(tc, a_raw_nul_in_json_is_refused);
	tcase_add_test(tc, json_a_thousand_deep_is_refused);
	tcase_add_test(tc, more_names_than_the_maximum_are_refused);
	tcase_add_loop_test(tc, an_integer_may_be_digits_except_in_json,
	    0, ROWS(ints));
	tcase_add_loop_test(tc, a_boolean_may_be_a_word_except_in_json,
	    0, ROWS(bools));
	tcase_add_loop_test(tc, an_array_may_be_json_text_except_in_json,
	    0, ROWS(arrays));
	tcase_add_test(tc, an_object_is_none_of_another_type);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
