/* check_failure.c - responses that are no answer: their class, whether a
 * second attempt may help, and when. */
#include <check.h>
#include <strings.h>

#include "failure.h"
#include "wire_cases.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

static struct json_object *responses;

/* Takes the head off a whole response; what is left is its body. */
static void
read_head(struct buf *b, struct http_head *ret)
{
	const struct {
		const char *name;
		char *to;
		size_t size;
	} rows[] = {
		{ "content-type", ret->content_type,
		    sizeof ret->content_type },
		{ "retry-after", ret->retry_after, sizeof ret->retry_after },
		{ "retry-after-ms", ret->retry_after_ms,
		    sizeof ret->retry_after_ms },
		{ "date", ret->date, sizeof ret->date },
		{ "x-should-retry", ret->should_retry,
		    sizeof ret->should_retry },
	};
	char *line = b->data, *eol, *value;

	memset(ret, 0, sizeof *ret);
	ck_assert_int_eq(sscanf(line, "HTTP/1.1 %u", &ret->status), 1);
	for (;; line = eol + 2) {
		ck_assert_ptr_nonnull(eol = strstr(line, "\r\n"));
		*eol = '\0';
		if (line == eol)
			break;
		if ((value = strstr(line, ": ")) == NULL)
			continue;
		*value = '\0';
		for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
			if (strcasecmp(line, rows[i].name) == 0)
				snprintf(rows[i].to, rows[i].size, "%s",
				    value + 2);
	}
	buf_drop(b, (size_t)(eol + 2 - b->data));
}

static void
keep_error(void *arg, const struct delta *d)
{
	struct failure *f = arg;

	if (d->kind == DELTA_ERROR) {
		f->type = d->error.type;
		f->retryable = errtype_info(f->type)->retryable;
	}
}

/* What a 200 says is found in its body, by who reads the answer. */
static void
read_answer(const char *api, const struct buf *body, struct failure *ret)
{
	struct answer *a;

	memset(ret, 0, sizeof *ret);
	ret->wait_ms = FAILURE_NO_WAIT;
	ck_assert_int_eq(answer_new(wire_provider(api), keep_error, ret, &a),
	    RS_OK);
	answer_feed(a, body->data, body->len);
	answer_end(a, true);
	answer_free(a);
}

static void
check_word(struct json_object *o, const char *name, const char *got)
{
	const char *want = wire_str(o, name);

	if (want != NULL)
		ck_assert_str_eq(got, want);
}

START_TEST(a_recorded_failure_is_classified)
{
	struct json_object *o = json_object_array_get_idx(responses,
	    (size_t)_i);
	const char *type = wire_str(o, "error_type");
	struct buf b = wire_file(wire_str(o, "file"));
	struct json_object *wait = json_object_object_get(o,
	    "retry_after_ms");
	struct http_head head;
	struct failure f;

	read_head(&b, &head);
	ck_assert_uint_eq(head.status, json_object_get_uint64(
	    json_object_object_get(o, "status")));
	if (head.status == 200)
		read_answer(wire_str(o, "api"), &b, &f);
	else
		failure_read(&head, b.data, b.len, &f);
	ck_assert_str_eq(errtype_info(f.type)->name, type ? type : "");
	ck_assert_int_eq(f.retryable, json_object_get_boolean(
	    json_object_object_get(o, "retryable")));
	ck_assert_uint_eq(f.wait_ms, wait ? json_object_get_uint64(wait) :
	    FAILURE_NO_WAIT);
	check_word(o, "upstream_type", f.upstream_type);
	check_word(o, "upstream_code", f.upstream_code);
	check_word(o, "message", f.message);
	buf_done(&b);
}
END_TEST

/* Objects of a stream or a 200, and their type, code, message and class;
 * NULL: none is an error. */
static const struct {
	const char *json, *type, *code, *message, *class;
} objects[] = {
	{ "{\"error\":{\"message\":\"m\",\"type\":\"t\",\"code\":\"c\","
	    "\"param\":null}}", "t", "c", "m", "upstream_error" },
	{ "{\"error\":{\"message\":\"m\",\"type\":\"t\",\"code\":500}}",
	    "t", "500", "m", "upstream_5xx" },
	{ "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\","
	    "\"message\":\"m\"},\"request_id\":\"r\"}", "overloaded_error",
	    "overloaded_error", "m", "overloaded" },
	{ "{\"error\":{\"code\":429,\"message\":\"m\",\"status\":"
	    "\"RESOURCE_EXHAUSTED\"}}", "RESOURCE_EXHAUSTED", "429", "m",
	    "rate_limit" },
	{ "[{\"error\":{\"code\":400,\"message\":\"m\",\"status\":"
	    "\"INVALID_ARGUMENT\",\"details\":[{},{\"reason\":"
	    "\"API_KEY_INVALID\"}]}}]", "INVALID_ARGUMENT", "400", "m",
	    "auth" },
	{ "{\"error\":\"m\"}", "", "", "m", "upstream_error" },
	{ "{\"object\":\"error\",\"message\":\"m\",\"type\":"
	    "\"BadRequestError\",\"code\":400}", "BadRequestError", "400",
	    "m", "bad_request" },
	{ "{\"type\":\"error\",\"code\":\"rate_limit_exceeded\","
	    "\"message\":\"m\"}", "rate_limit_exceeded",
	    "rate_limit_exceeded", "m", "rate_limit" },
	{ "{\"error\":{}}", "", "", "", "upstream_error" },
	{ "{\"error\":{\"code\":\"503\"}}", "503", "503", "", "overloaded" },
	{ "{\"error\":{\"code\":402}}", "402", "402", "", "quota" },
	{ "{\"error\":{\"code\":307}}", "307", "307", "", "upstream_error" },
	{ "{\"error\":{\"type\":\"invalid_request_error\",\"message\":"
	    "\"over the Context Window\"}}", "invalid_request_error",
	    "invalid_request_error", "over the Context Window",
	    "context_length" },
	{ "{\"error\":{\"type\":\"server_error\",\"message\":"
	    "\"context length\"}}", "server_error", "server_error",
	    "context length", "upstream_5xx" },
	{ "{\"error\":{\"type\":[1],\"code\":1.5,\"message\":{}}}", "", "",
	    "", "upstream_error" },
	{ "{\"error\":null}", .type = NULL },
	{ "{\"error\":false}", .type = NULL },
	{ "{\"object\":\"chat.completion.chunk\",\"error\":null}",
	    .type = NULL },
	{ "{\"type\":\"response.created\"}", .type = NULL },
	{ "{\"detail\":\"x\"}", .type = NULL },
	{ "{}", .type = NULL },
	{ "[]", .type = NULL },
	{ "[[{\"error\":\"m\"}]]", .type = NULL },
	{ "[null]", .type = NULL },
};

START_TEST(an_error_object_is_known_by_its_shape)
{
	struct json_object *o = json_tokener_parse(objects[_i].json);
	struct failure f;

	ck_assert_ptr_nonnull(o);
	ck_assert_int_eq(failure_read_json(o, &f), objects[_i].type != NULL);
	if (objects[_i].type != NULL) {
		ck_assert_str_eq(f.upstream_type, objects[_i].type);
		ck_assert_str_eq(f.upstream_code, objects[_i].code);
		ck_assert_str_eq(f.message, objects[_i].message);
		ck_assert_str_eq(errtype_info(f.type)->name,
		    objects[_i].class);
		ck_assert_uint_eq(f.wait_ms, FAILURE_NO_WAIT);
	}
	json_object_put(o);
}
END_TEST

START_TEST(any_body_and_status_are_some_failure)
{
	static const char *const bodies[] = { "", "\0\xff", "{", "null",
		"[1,2]", "\"x\"", "{\"error\":[[]]}", "{\"detail\":[]}",
		"{\"detail\":[7]}",
		"{\"error\":{\"details\":[1,{\"reason\":{}}]}}",
	};
	struct http_head head = { .status = (unsigned)_i };
	struct failure f;

	for (int i = 0; i < COUNT(bodies); i++) {
		failure_read(&head, bodies[i], strlen(bodies[i]), &f);
		ck_assert_int_ne(f.type, ERRTYPE_none);
		ck_assert_int_eq(errtype_info(f.type)->status == 0 ||
		    f.type == ERRTYPE_model_not_found, 1);
	}
}
END_TEST

START_TEST(a_long_message_is_cut_between_characters)
{
	struct buf b;
	struct http_head head = { .status = 500 };
	struct failure f;

	buf_init(&b, 65536);
	buf_puts(&b, "{\"error\":\"");
	for (int i = 0; i < 1000; i++)
		buf_puts(&b, "\xe2\x80\x94");
	buf_puts(&b, "\"}");
	failure_read(&head, b.data, b.len, &f);
	ck_assert_uint_eq(strlen(f.message), sizeof f.message / 3 * 3);
	buf_done(&b);
}
END_TEST

static const struct {
	const char *word;
	bool known;
} known[] = {
	{ "context_length_exceeded", true },
	{ "UNAVAILABLE", true },
	{ "400", true },
	{ "", true },
	{ "unavailable", false },
	{ "context_length_exceeded ", false },
	{ "40o", false },
	{ "-1", false },
	{ "sk-1234", false },
	{ "tell me a story", false },
};

START_TEST(a_word_is_one_of_convention_or_may_be_the_prompt)
{
	ck_assert_int_eq(failure_word_known(known[_i].word), known[_i].known);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("failure");
	TCase *tc;
	SRunner *sr;
	int failed, i;

	responses = wire_list("http_errors");
	/* One for each file, so that a failure names it. */
	for (i = 0; i < (int)json_object_array_length(responses); i++) {
		tc = tcase_create(wire_str(json_object_array_get_idx(
		    responses, (size_t)i), "file"));
		tcase_add_loop_test(tc, a_recorded_failure_is_classified, i,
		    i + 1);
		suite_add_tcase(s, tc);
	}
	tc = tcase_create("failure");
	tcase_add_loop_test(tc, an_error_object_is_known_by_its_shape, 0,
	    COUNT(objects));
	tcase_add_loop_test(tc, any_body_and_status_are_some_failure, 201,
	    600);
	tcase_add_test(tc, a_long_message_is_cut_between_characters);
	tcase_add_loop_test(tc,
	    a_word_is_one_of_convention_or_may_be_the_prompt, 0, COUNT(known));
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	json_object_put(responses);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
