/* check_triage.c - what a message is about, by rules. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "triage.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

static struct triage *triage;
static struct buf why;

static void
setup(void)
{
	buf_init(&why, 8192);
}

static void
teardown(void)
{
	triage_free(triage);
	triage = NULL;
	buf_done(&why);
}

static enum rs_err
parse(const char *text)
{
	return triage_parse("FILE", text, strlen(text), &triage, &why);
}

/* "category template model confidence rule", '-' for NULL. */
static const char *
found(const char *message, size_t len)
{
	static char text[1024];
	struct triage_found f;

	ck_assert_int_eq(triage_find(triage, message, len, &f), RS_OK);
	snprintf(text, sizeof text, "%s %s %s %.3g %s", f.category,
	    f.template_name != NULL ? f.template_name : "-",
	    f.model != NULL ? f.model : "-", f.confidence,
	    f.rule != NULL ? f.rule : "-");
	return text;
}

static const char rules[] = "{ \"rules\": ["
    "{ \"name\": \"refunds\", \"category\": \"billing\", \"weight\": 3,"
    "  \"words\": [\"Refund\", \"money back\"], \"template\": \"support\","
    "  \"model\": \"gpt\" },"
    "{ \"name\": \"orders\", \"category\": \"billing\", \"weight\": 2,"
    "  \"patterns\": [\"order +#?[0-9]+\", \"^invoice\"] },"
    "{ \"name\": \"code\", \"category\": \"programming\", \"weight\": 5,"
    "  \"words\": [\"c++\", \"main()\"], \"patterns\": [\"\\\\bint +main\"] },"
    "{ \"name\": \"pies\", \"category\": \"cooking\","
    "  \"words\": [\"pie\", \"\xc5\xbcurek\"] },"
    "{ \"name\": \"short\", \"category\": \"chat\", \"max_length\": 3 },"
    "{ \"name\": \"long\", \"category\": \"essay\", \"min_length\": 100 },"
    "{ \"name\": \"hi\", \"category\": \"chat\", \"words\": [\"hello\"],"
    "  \"max_length\": 10, \"template\": \"chat\" } ] }";

static const struct {
	const char *message, *want;
} messages[] = {
	{ "Can I have a refund?", "billing support gpt 1 refunds" },
	{ "REFUND", "billing support gpt 1 refunds" },
	{ "I want my Money Back now", "billing support gpt 1 refunds" },
	{ "refunds are not a word here", "general - - 0 -" },
	{ "prerefund", "general - - 0 -" },
	{ "refund_it", "general - - 0 -" },
	{ "refund2", "general - - 0 -" },
	{ "refunds, refund.", "billing support gpt 1 refunds" },
	{ "money  back", "general - - 0 -" },
	/* Both rules of one category: the heavier one is named. */
	{ "refund ORDER #77", "billing support gpt 1 refunds" },
	{ "order 5", "billing - - 1 orders" },
	{ "order five", "general - - 0 -" },
	{ "Invoice!", "billing - - 1 orders" },
	{ "my invoice", "general - - 0 -" },
	/* Two categories of equal weight: the first in the file. */
	{ "refund order #5 for c++", "billing support gpt 0.5 refunds" },
	{ "refund for c++", "programming - - 0.625 code" },
	{ "order 5 for a pie", "billing - - 0.667 orders" },
	/* Words that do not begin or end as a word. */
	{ "c++11", "programming - - 1 code" },
	{ "objc++", "general - - 0 -" },
	{ "int main", "programming - - 1 code" },
	{ "print main", "general - - 0 -" },
	/* Letters that are not ASCII are letters. */
	{ "pie\xc5\x84", "general - - 0 -" },
	{ "a pie \xe2\x80\x94 now", "cooking - - 1 pies" },
	{ "\xc5\xbcurek", "cooking - - 1 pies" },
	{ "a\xc5\xbcurek", "general - - 0 -" },
	/* Lengths are characters. */
	{ "abc", "chat - - 1 short" },
	{ "\xc3\xa4\xc3\xb6\xc3\xbc", "chat - - 1 short" },
	{ "abcd", "general - - 0 -" },
	{ "", "chat - - 1 short" },
	{ "hello!", "chat chat - 1 hi" },
	{ "hello everybody", "general - - 0 -" },
};

START_TEST(a_message_has_a_category)
{
	ck_assert_int_eq(parse(rules), RS_OK);
	ck_assert_str_eq(found(messages[_i].message,
	    strlen(messages[_i].message)), messages[_i].want);
}
END_TEST

START_TEST(a_length_of_at_least_100_is_one_of_100)
{
	char text[101];

	ck_assert_int_eq(parse(rules), RS_OK);
	memset(text, 'x', sizeof text);
	ck_assert_str_eq(found(text, 99), "general - - 0 -");
	ck_assert_str_eq(found(text, 100), "essay - - 1 long");
	ck_assert_str_eq(found(text, 101), "essay - - 1 long");
}
END_TEST

START_TEST(without_rules_all_is_general)
{
	ck_assert_str_eq(found("x", 1), "general - - 0 -");
	ck_assert_int_eq(parse("{\"rules\":[]}"), RS_OK);
	ck_assert_str_eq(found("x", 1), "general - - 0 -");
}
END_TEST

START_TEST(nuls_and_bytes_that_are_no_text_do_no_harm)
{
	ck_assert_int_eq(parse(rules), RS_OK);
	ck_assert_str_eq(found("a\0refund", 8), "billing support gpt 1 "
	    "refunds");
	ck_assert_str_eq(found("x y\0order 5", 11), "billing - - 1 orders");
	ck_assert_str_eq(found("\xff\xc3refund", 8), "general - - 0 -");
	ck_assert_str_eq(found("\xc5 \xff", 3), "chat - - 1 short");
}
END_TEST

/* Words are looked for in all of it, patterns at its beginning. */
START_TEST(a_long_message_is_looked_at)
{
	static char text[1 << 20];

	ck_assert_int_eq(parse(rules), RS_OK);
	memset(text, ' ', sizeof text);
	memcpy(text + sizeof text - 6, "refund", 6);
	ck_assert_str_eq(found(text, sizeof text),
	    "billing support gpt 0.75 refunds");
	memcpy(text + sizeof text - 7, "order 5", 7);
	ck_assert_str_eq(found(text, sizeof text), "essay - - 1 long");
	memcpy(text + TRIAGE_LOOK - 7, "order 5", 7);
	ck_assert_str_eq(found(text, sizeof text),
	    "billing - - 0.667 orders");
	memcpy(text + TRIAGE_LOOK - 7, " order 5", 8);
	ck_assert_str_eq(found(text, sizeof text), "essay - - 1 long");
}
END_TEST

/* What takes others exponential time or memory. */
static const char *const patterns[] = {
	"(a+)+b", "(a|a)*b", "(.*a){10}b", ".*a.{16}b", "(a|aa|aaa)+$b",
	"([a-z]+ ?)+!",
};

START_TEST(a_hostile_message_ends_soon)
{
	char text[4096];
	struct buf b;
	int i;

	buf_init(&b, 1000);
	buf_printf(&b, "{\"rules\":[{\"name\":\"n\",\"category\":\"c\","
	    "\"patterns\":[\"%s\"]}]}", patterns[_i]);
	ck_assert_int_eq(parse(b.data), RS_OK);
	memset(text, 'a', sizeof text);
	for (i = 0; i < 10; i++)
		ck_assert_str_eq(found(text, sizeof text),
		    "general - - 0 -");
	buf_done(&b);
}
END_TEST

#define RULE(members) "{\"rules\":[{\"name\":\"n\",\"category\":\"c\"," \
	members "}]}"
static const struct {
	const char *text, *want;
} faults[] = {
	{ "", "FILE: not valid JSON: it is empty\n" },
	{ "{\n\"rules\": [\n{,}]}", "FILE:3: not valid JSON: " },
	{ "{\"rules\":[],\"rules\":[]}", "FILE: not valid JSON: a name twice" },
	{ "[]", "FILE: must be {\"rules\": [...]}" },
	{ "{}", "FILE: must be {\"rules\": [...]}" },
	{ "{\"rules\":{}}", "FILE: must be {\"rules\": [...]}" },
	{ "{\"rules\":[],\"x\":1}", "FILE: must be {\"rules\": [...]}" },
	{ "{\"rules\":[1]}", "FILE: rules[0]: a rule: must be an object\n" },
	{ "{\"rules\":[{\"category\":\"c\",\"words\":[\"x\"]}]}",
	    "FILE: rules[0]: name: must be a text" },
	{ "{\"rules\":[{\"name\":\"n\",\"words\":[\"x\"]}]}",
	    "FILE: rules[0] (n): category: must be a text" },
	{ RULE("\"word\":[\"x\"]"), "FILE: rules[0] (n): a field of that "
	    "name is not known: word\n" },
	{ RULE("\"words\":\"x\""), "words: must be a list of texts\n" },
	{ RULE("\"words\":null"), "words: must be a list of texts\n" },
	{ RULE("\"words\":[1]"), "words: must be texts of 1 to 256" },
	{ RULE("\"words\":[null]"), "words: must be texts of 1 to 256" },
	{ RULE("\"words\":[\"\"]"), "words: must be texts of 1 to 256" },
	{ RULE("\"words\":[\"a\\nb\"]"), "words: must be texts of 1 to 256" },
	{ RULE("\"patterns\":[\"(\"]"), "FILE: rules[0] (n): (: Unmatched" },
	{ RULE("\"patterns\":[\"(a)\\\\1\"]"),
	    "patterns: \\1 to \\9 are not supported\n" },
	{ RULE("\"patterns\":[\"a\\\\\"]"), "a\\: " },
	{ RULE("\"weight\":0,\"words\":[\"x\"]"),
	    "weight: must be an integer from 1 to 1000\n" },
	{ RULE("\"weight\":1001,\"words\":[\"x\"]"),
	    "weight: must be an integer from 1 to 1000\n" },
	{ RULE("\"weight\":1.5,\"words\":[\"x\"]"),
	    "weight: must be an integer from 1 to 1000\n" },
	{ RULE("\"min_length\":-1"),
	    "min_length: must be an integer of 0 or more\n" },
	{ RULE("\"min_length\":2,\"max_length\":1"),
	    "min_length: is more than max_length\n" },
	{ RULE("\"weight\":1"), "it matches everything: " },
	{ RULE("\"words\":[],\"patterns\":[]"), "it matches everything: " },
	{ RULE("\"words\":[\"x\"],\"template\":1"),
	    "template: must be a text" },
	{ RULE("\"words\":[\"x\"],\"model\":\"\""),
	    "model: must be a text" },
	{ "{\"rules\":[{\"name\":\"n\",\"category\":\"c\",\"words\":[\"x\"]},"
	    "{\"name\":\"n\",\"category\":\"c\",\"words\":[\"x\"]}]}",
	    "FILE: rules[1] (n): name: another rule has it too\n" },
};

START_TEST(a_fault_is_told_with_its_place)
{
	ck_assert_int_eq(parse(faults[_i].text), RS_EINVAL);
	ck_assert_msg(strstr(why.data, faults[_i].want) != NULL, "%s",
	    why.data);
	ck_assert_ptr_null(triage);
}
END_TEST

START_TEST(escaped_backslashes_are_no_references)
{
	ck_assert_int_eq(parse(RULE("\"patterns\":[\"a\\\\\\\\1\"]")), RS_OK);
	ck_assert_str_eq(found("xa\\1", 4), "c - - 1 n");
}
END_TEST

START_TEST(patterns_have_a_limit)
{
	struct buf b;
	int i;

	buf_init(&b, 8192);
	buf_puts(&b, "{\"rules\":[{\"name\":\"n\",\"category\":\"c\","
	    "\"patterns\":[\"x\"");
	for (i = 1; i < _i; i++)
		buf_puts(&b, ",\"x\"");
	buf_puts(&b, "]}]}");
	ck_assert_int_eq(parse(b.data),
	    _i <= TRIAGE_PATTERNS_MAX ? RS_OK : RS_EINVAL);
	buf_done(&b);
}
END_TEST

START_TEST(rules_tell_what_they_name)
{
	const char *rule, *template_name, *model;

	ck_assert_int_eq(parse(rules), RS_OK);
	ck_assert(triage_names(triage, 0, &rule, &template_name, &model));
	ck_assert_str_eq(rule, "refunds");
	ck_assert_str_eq(template_name, "support");
	ck_assert_str_eq(model, "gpt");
	ck_assert(triage_names(triage, 1, &rule, &template_name, &model));
	ck_assert_ptr_null(template_name);
	ck_assert_ptr_null(model);
	ck_assert(!triage_names(triage, 7, &rule, &template_name, &model));
}
END_TEST

static Suite *
triage_suite(void)
{
	Suite *s = suite_create("triage");
	TCase *tc = tcase_create("triage");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, a_message_has_a_category, 0,
	    COUNT(messages));
	tcase_add_test(tc, a_length_of_at_least_100_is_one_of_100);
	tcase_add_test(tc, without_rules_all_is_general);
	tcase_add_test(tc, nuls_and_bytes_that_are_no_text_do_no_harm);
	tcase_add_test(tc, a_long_message_is_looked_at);
	tcase_add_loop_test(tc, a_hostile_message_ends_soon, 0,
	    COUNT(patterns));
	tcase_add_loop_test(tc, a_fault_is_told_with_its_place, 0,
	    COUNT(faults));
	tcase_add_test(tc, escaped_backslashes_are_no_references);
	tcase_add_loop_test(tc, patterns_have_a_limit, TRIAGE_PATTERNS_MAX,
	    TRIAGE_PATTERNS_MAX + 2);
	tcase_add_test(tc, rules_tell_what_they_name);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	SRunner *sr = srunner_create(triage_suite());
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
