/* check_demo.c - the demo provider. */
#include <check.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "provider.h"
#include "sse.h"
#include "text.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))
#define SCRIPT .fail_after = DEMO_NEVER, .hang_after = DEMO_NEVER, \
	.error_type = ERRTYPE_upstream_error

static struct demo *
demo_of(const struct demo_script *script, const char *json)
{
	struct json_object *messages = json_tokener_parse(json);
	struct demo *d = NULL;

	ck_assert_int_eq(demo_new(script, messages, &d), RS_OK);
	json_object_put(messages); /* it was only lent */
	return d;
}

/* What it does, as a line: "DUE:text" per chunk, then "DUE:usage IN/OUT",
 * "DUE:stop", "DUE:error TYPE" or "hang", with spaces between. */
static const char *
play(const struct demo_script *script, const char *json)
{
	static char line[4096];
	struct demo *d = demo_of(script, json);
	struct delta t = { .kind = DELTA_CONTENT };
	size_t n = 0;

	line[0] = '\0';
	while (t.kind != DELTA_FINISH && t.kind != DELTA_ERROR) {
		uint64_t due = demo_due_ms(d);

		ck_assert_uint_eq(due, demo_due_ms(d));
		if (due == DEMO_NEVER) {
			snprintf(line + n, sizeof line - n, "hang ");
			break;
		}
		demo_next(d, &t);
		n += (size_t)snprintf(line + n, sizeof line - n, "%llu:",
		    (unsigned long long)due);
		switch (t.kind) {
		case DELTA_CONTENT:
			ck_assert_uint_eq(t.tokens, 1);
			n += (size_t)snprintf(line + n, sizeof line - n,
			    "%.*s|", (int)t.len, t.text);
			break;
		case DELTA_USAGE:
			ck_assert_uint_eq(t.usage.cache_read, 0);
			ck_assert_uint_eq(t.usage.cache_write, 0);
			ck_assert_uint_eq(t.usage.reasoning, 0);
			n += (size_t)snprintf(line + n, sizeof line - n,
			    "usage %llu/%llu ",
			    (unsigned long long)t.usage.input,
			    (unsigned long long)t.usage.output);
			break;
		case DELTA_FINISH:
			ck_assert_int_eq(t.finish, FINISH_STOP);
			snprintf(line + n, sizeof line - n, "stop");
			break;
		case DELTA_ERROR:
			snprintf(line + n, sizeof line - n, "error %s",
			    errtype_info(t.error.type)->name);
			break;
		default:
			ck_abort_msg("kind %d", t.kind);
		}
	}
	demo_free(d);
	return line;
}

#define ASK(text) "[{\"role\":\"user\",\"content\":\"" text "\"}]"

static const struct {
	const char *what;
	struct demo_script script;
	const char *messages;
	const char *want;
} plays[] = {
	{ "echo", { SCRIPT }, ASK("one two  three"),
	    "0:one |0:two  |0:three|0:usage 3/3 0:stop" },
	{ "white space around", { SCRIPT }, ASK("  one\\n\\ttwo "),
	    "0:  one\n\t|0:two |0:usage 2/2 0:stop" },
	{ "white space only", { SCRIPT }, ASK("   "),
	    "0:   |0:usage 0/1 0:stop" },
	{ "nothing", { SCRIPT, .first_ms = 7, .interval_ms = 9 }, ASK(""),
	    "7:usage 0/0 7:stop" },
	{ "no messages", { SCRIPT }, "[]", "0:usage 0/0 0:stop" },
	{ "a no-break space", { SCRIPT },
	    ASK("\u00e4\u00a0b \u20ac"),
	    "0:\u00e4\u00a0b |0:\u20ac|0:usage 2/2 0:stop" },
	{ "the last of the user", { SCRIPT },
	    "[{\"role\":\"system\",\"content\":\"be brief now\"},"
	    "{\"role\":\"user\",\"content\":\"first\"},"
	    "{\"role\":\"assistant\",\"content\":\"so so\"},"
	    "{\"role\":\"user\",\"content\":\"last one\"},"
	    "{\"role\":\"assistant\",\"content\":\"hm\"}]",
	    "0:last |0:one|0:usage 9/2 0:stop" },
	{ "nonsense in messages", { SCRIPT },
	    "[{\"role\":5,\"content\":\"a b\"},{\"role\":\"user\"},"
	    "{\"role\":\"user\",\"content\":[]},{}]",
	    "0:usage 2/0 0:stop" },
	{ "text", { SCRIPT, .text = (char *)"so be it" }, ASK("q"),
	    "0:so |0:be |0:it|0:usage 1/3 0:stop" },
	{ "text wins over chunks", { SCRIPT, .text = (char *)"x", .chunks = 3 },
	    ASK("q"), "0:x|0:usage 1/1 0:stop" },
	{ "empty text", { SCRIPT, .text = (char *)"" }, ASK("q"),
	    "0:usage 1/0 0:stop" },
	{ "chunks", { SCRIPT, .chunks = 3 }, ASK("q"),
	    "0:tok0 |0:tok1 |0:tok2 |0:usage 1/3 0:stop" },
	{ "pace", { SCRIPT, .chunks = 3, .first_ms = 100, .interval_ms = 50 },
	    ASK("q"), "100:tok0 |150:tok1 |200:tok2 |200:usage 1/3 200:stop" },
	{ "one chunk", { SCRIPT, .chunks = 1, .interval_ms = 50 },
	    ASK("q"), "0:tok0 |0:usage 1/1 0:stop" },
	{ "fails", { .chunks = 3, .interval_ms = 5, .fail_after = 1,
	    .hang_after = DEMO_NEVER, .error_type = ERRTYPE_overloaded },
	    ASK("q"), "0:tok0 |5:usage 1/1 5:error overloaded" },
	{ "fails at once", { .chunks = 3, .first_ms = 4, .fail_after = 0,
	    .hang_after = DEMO_NEVER, .error_type = ERRTYPE_auth },
	    ASK("q"), "4:usage 1/0 4:error auth" },
	{ "fails at the end", { .chunks = 2, .interval_ms = 5, .fail_after = 2,
	    .hang_after = DEMO_NEVER, .error_type = ERRTYPE_tls },
	    ASK("q"), "0:tok0 |5:tok1 |10:usage 1/2 10:error tls" },
	{ "would fail later", { .chunks = 2, .fail_after = 3,
	    .hang_after = DEMO_NEVER, .error_type = ERRTYPE_tls },
	    ASK("q"), "0:tok0 |0:tok1 |0:usage 1/2 0:stop" },
	{ "hangs", { .chunks = 3, .fail_after = DEMO_NEVER, .hang_after = 1 },
	    ASK("q"), "0:tok0 |hang " },
	{ "hangs at once", { .fail_after = DEMO_NEVER, .hang_after = 0 },
	    ASK("q"), "hang " },
	{ "hangs at the end", { .chunks = 1, .fail_after = DEMO_NEVER,
	    .hang_after = 1 }, ASK("q"), "0:tok0 |hang " },
	{ "fails before it hangs", { .chunks = 3, .fail_after = 1,
	    .hang_after = 1, .error_type = ERRTYPE_quota },
	    ASK("q"), "0:tok0 |0:usage 1/1 0:error quota" },
	{ "hangs before it fails", { .chunks = 3, .fail_after = 2,
	    .hang_after = 1, .error_type = ERRTYPE_quota },
	    ASK("q"), "0:tok0 |hang " },
};

START_TEST(a_script_is_played_as_written)
{
	ck_assert_msg(strcmp(play(&plays[_i].script, plays[_i].messages),
	    plays[_i].want) == 0, "%s: got %s, want %s", plays[_i].what,
	    play(&plays[_i].script, plays[_i].messages), plays[_i].want);
}
END_TEST

START_TEST(the_last_of_many_chunks_is_still_on_time)
{
	struct demo_script script = { SCRIPT, .chunks = 100000,
	    .interval_ms = 600000, .first_ms = 3 };
	struct demo *d = demo_of(&script, ASK("q"));
	struct delta t;
	uint64_t n;

	for (n = 0; n < script.chunks; n++) {
		ck_assert_uint_eq(demo_due_ms(d), 3 + n * 600000);
		demo_next(d, &t);
		ck_assert_int_eq(t.kind, DELTA_CONTENT);
	}
	ck_assert_uint_eq(demo_due_ms(d), 3 + (n - 1) * 600000);
	demo_next(d, &t);
	ck_assert_int_eq(t.kind, DELTA_USAGE);
	demo_free(d);
}
END_TEST

/* Text of `bytes` bytes and what stands before and after it. */
static const struct { const char *before, *unit, *after; size_t bytes; }
longs[] = {
	{ "", "a", "", SSE_TEXT_MAX },
	{ "", "a", "", SSE_TEXT_MAX + 1 },
	{ "", "a", " b", SSE_TEXT_MAX - 1 },
	{ "", "a", " b", SSE_TEXT_MAX },
	{ "", "\u20ac", " b", 30000 },
	{ "x", "\u20ac", " b", 30000 },
	{ "xy", "\u20ac", "", 30000 },
	{ "", "\U0001f600", " b", 1 << 20 },
	{ "x", " ", "y", 9000 },
	{ "", " ", "y", 9000 },
	{ "a\\u0000b ", "a", "\\u0000", SSE_TEXT_MAX },
};

START_TEST(long_words_are_cut_between_characters_and_nothing_is_lost)
{
	struct demo_script script = { SCRIPT };
	struct json_object *messages, *o;
	const char *whole;
	struct delta t;
	struct demo *d;
	char *json;
	size_t n, at = 0, len;

	json = malloc(longs[_i].bytes + 200);
	n = (size_t)sprintf(json, "[{\"role\":\"user\",\"content\":\"%s",
	    longs[_i].before);
	for (len = 0; len < longs[_i].bytes; len += strlen(longs[_i].unit))
		n += (size_t)sprintf(json + n, "%s", longs[_i].unit);
	sprintf(json + n, "%s\"}]", longs[_i].after);
	messages = json_tokener_parse(json);
	ck_assert_ptr_nonnull(messages);
	o = json_object_object_get(json_object_array_get_idx(messages, 0),
	    "content");
	whole = json_object_get_string(o);
	len = (size_t)json_object_get_string_len(o);

	d = demo_of(&script, json);
	for (demo_next(d, &t); t.kind == DELTA_CONTENT; demo_next(d, &t)) {
		ck_assert_uint_gt(t.len, 0);
		ck_assert_uint_le(t.len, SSE_TEXT_MAX);
		ck_assert(utf8_valid(t.text, t.len));
		ck_assert_uint_le(at + t.len, len);
		ck_assert(memcmp(whole + at, t.text, t.len) == 0);
		at += t.len;
	}
	ck_assert_int_eq(t.kind, DELTA_USAGE);
	ck_assert_uint_eq(at, len);
	demo_free(d);
	json_object_put(messages);
	free(json);
}
END_TEST

START_TEST(freeing_takes_null)
{
	demo_free(NULL);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("demo");
	TCase *tc = tcase_create("demo");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(tc, a_script_is_played_as_written, 0,
	    COUNT(plays));
	tcase_add_test(tc, the_last_of_many_chunks_is_still_on_time);
	tcase_add_loop_test(tc,
	    long_words_are_cut_between_characters_and_nothing_is_lost, 0,
	    COUNT(longs));
	tcase_add_test(tc, freeing_takes_null);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
