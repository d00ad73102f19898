/* check_tmpl.c - prompt templates: the mustache specification's cases, and
 * what is ours. */
#include <sys/stat.h>

#include <check.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jx.h"
#include "tmpl.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))
#define MAX 100000

static struct tmpl_set *set;
static struct buf why, out;
static struct json_object *cases; /* of the specification */

static void
setup(void)
{
	buf_init(&why, 4096);
	buf_init(&out, MAX);
	ck_assert_int_eq(tmpl_set_new("DIR", &set), RS_OK);
}

static void
teardown(void)
{
	tmpl_set_free(set);
	buf_done(&why);
	buf_done(&out);
}

static struct json_object *
json(const char *text)
{
	struct json_object *o;
	const char *fault;

	ck_assert_int_eq(jx_parse(text, strlen(text), &o, &fault), RS_OK);
	return o;
}

static enum rs_err
add(const char *name, const char *text)
{
	return tmpl_set_add(set, name, text, strlen(text), &why);
}

/* Renders the template t of the set. */
static enum rs_err
render(struct json_object *vars)
{
	const struct tmpl *t = tmpl_find(set, "t", 1);

	ck_assert_ptr_nonnull(t);
	buf_clear(&out);
	return tmpl_render(t, vars, &out);
}

/* A template, alone, and values in JSON. */
static const char *
rendered(const char *text, const char *vars)
{
	struct json_object *o = json(vars);

	tmpl_set_free(set);
	ck_assert_int_eq(tmpl_set_new("DIR", &set), RS_OK);
	ck_assert_int_eq(add("t", text), RS_OK);
	ck_assert_int_eq(tmpl_set_link(set, &why), RS_OK);
	ck_assert_int_eq(render(o), RS_OK);
	json_object_put(o);
	return out.len > 0 ? out.data : "";
}

/* ---- the specification ---- */

static const char *
case_text(struct json_object *row, size_t i)
{
	return json_object_get_string(json_object_array_get_idx(row, i));
}

START_TEST(a_case_of_the_specification_holds)
{
	struct json_object *row = json_object_array_get_idx(cases,
	    (size_t)_i);

	ck_assert_int_eq(add("t", case_text(row, 1)), RS_OK);
	json_object_object_foreach(json_object_array_get_idx(row, 3), name,
	    partial)
		ck_assert_int_eq(add(name, json_object_get_string(partial)),
		    RS_OK);
	ck_assert_int_eq(tmpl_set_link(set, &why), RS_OK);
	ck_assert_int_eq(render(json_object_array_get_idx(row, 2)), RS_OK);
	ck_assert_msg(strcmp(out.len > 0 ? out.data : "",
	    case_text(row, 4)) == 0, "%s: %s", case_text(row, 0), out.data);
}
END_TEST

/* ---- what is ours ---- */

static const struct {
	const char *text, *vars, *want;
} ours[] = {
	/* What is no value. */
	{ "{{#x}}y{{/x}}{{^x}}n{{/x}}", "{\"x\":\"\"}", "n" },
	{ "{{#x}}y{{/x}}{{^x}}n{{/x}}", "{\"x\":0}", "n" },
	{ "{{#x}}y{{/x}}{{^x}}n{{/x}}", "{\"x\":0.0}", "n" },
	{ "{{#x}}y{{/x}}{{^x}}n{{/x}}", "{\"x\":\"0\"}", "y" },
	{ "{{#x}}y{{/x}}{{^x}}n{{/x}}", "{\"x\":-1}", "y" },
	{ "{{#x}}y{{/x}}{{^x}}n{{/x}}", "{\"x\":{}}", "y" },
	{ "{{#x}}y{{/x}}{{^x}}n{{/x}}", "{\"x\":[null,false]}", "yy" },
	/* A null hides what is further out. */
	{ "{{#o}}[{{x}}]{{/o}}", "{\"x\":1,\"o\":{\"x\":null}}", "[]" },
	/* Other values. */
	{ "{{x}}", "{\"x\":true}", "true" },
	{ "{{x}}", "{\"x\":1e3}", "1e3" },
	{ "{{x}}", "{\"x\":{\"a\":[1,\"/\"]}}", "{\"a\":[1,\"/\"]}" },
	{ "{{x}}", "{\"x\":\"\\u00e4\\n\"}", "\xc3\xa4\n" },
	{ "{{x.y}}", "{\"x\":\"text\"}", "" },
	{ "{{x.y}}", "{\"x\":[1]}", "" },
	/* Values are no templates. */
	{ "{{x}}{{y}}", "{\"x\":\"{{y}}{{#y}}\",\"y\":\"{{x}}\"}",
	    "{{y}}{{#y}}{{x}}" },
	{ "{{x}}{{y}}", "{\"x\":\"{{=<% %>=}}\",\"y\":\"{{! c\"}",
	    "{{=<% %>=}}{{! c" },
	{ "{{x}}t}}", "{\"x\":\"{{>\"}", "{{>t}}" },
	{ "{{#x}}{{.}},{{/x}}", "{\"x\":[\"{{/x}}\",\"{{.}}\"]}",
	    "{{/x}},{{.}}," },
	/* Names. */
	{ "{{a-b}}{{a_b}}{{\xc3\xa4}}{{1}}",
	    "{\"a-b\":1,\"a_b\":2,\"\xc3\xa4\":3,\"1\":4}", "1234" },
	/* No tags. */
	{ "", "{}", "" },
	{ "}} } { {x} %>", "{}", "}} } { {x} %>" },
	{ "{{!}}{{! {{ }}", "{}", "" },
	{ "a {{=<< >>=}}{{x}} << x >> <<={{ }}=>>{{x}}", "{\"x\":1}",
	    "a {{x}} 1 1" },
	{ "{{=<% %>=}}<%{x}%><%&x%>", "{\"x\":1}", "11" },
	/* White space of one line only goes with a tag. */
	{ "\n\n  {{#x}}  \n  a\n  {{/x}}\n\n", "{\"x\":1}", "\n\n  a\n\n" },
	{ "{{#x}} {{/x}}\n", "{\"x\":1}", " \n" },
	{ "{{#x}}\r{{/x}}", "{\"x\":1}", "\r" },
};

START_TEST(a_template_and_values_make_a_text)
{
	ck_assert_str_eq(rendered(ours[_i].text, ours[_i].vars),
	    ours[_i].want);
}
END_TEST

START_TEST(a_nul_in_a_value_is_kept)
{
	rendered("[{{x}}]", "{\"x\":\"a\\u0000b\"}");
	ck_assert_uint_eq(out.len, 5);
	ck_assert_mem_eq(out.data, "[a\0b]", 5);
}
END_TEST

START_TEST(lines_of_partials_are_indented_as_their_tags)
{
	struct json_object *o = json("{\"x\":\"1\\n2\",\"l\":[1,2]}");

	add("t", "a\n  {{>p}}\nb {{>p}}\n  {{#l}}\n  {{>r}}\n  {{/l}}\n");
	add("p", "p\n {{>q}}\n{{x}} {{>q}}\n");
	add("q", "q\n{{#x}}\nq\n{{/x}}\n");
	add("r", "r{{.}}\n");
	ck_assert_int_eq(tmpl_set_link(set, &why), RS_OK);
	ck_assert_int_eq(render(o), RS_OK);
	ck_assert_str_eq(out.data, "a\n  p\n   q\n   q\n  1\n2 q\nq\n\n"
	    "b p\n q\n q\n1\n2 q\nq\n\n\n  r1\n  r2\n");
	json_object_put(o);
}
END_TEST

static const struct {
	const char *text, *want;
} faults[] = {
	{ "{{", ":1: a tag without an end: {{\n" },
	{ "a\nb{{x", ":2: a tag without an end: {{\n" },
	{ "{{x}", ":1: a tag without an end: {{\n" },
	{ "{{{x}}", ":1: a tag without an end: {{\n" },
	{ "{{=<% %>}}", ":1: a tag without an end: {{\n" },
	{ "{{! x", ":1: a tag without an end: {{\n" },
	{ "{{}}", ":1: not a name: \n" },
	{ "{{ }}", ":1: not a name: \n" },
	{ "{{#}}{{/}}", ":1: not a name: \n" },
	{ "{{a b}}", ":1: not a name: a b\n" },
	{ "{{a\nb}}", ":1: not a name: a?b\n" },
	{ "{{.a}}", ":1: not a name: .a\n" },
	{ "{{a.}}", ":1: not a name: a.\n" },
	{ "{{a..b}}", ":1: not a name: a..b\n" },
	{ "{{ #a}}{{/a}}", ":1: not a name: #a\n" },
	{ "{{&{a}}", ":1: not a name: {a\n" },
	{ "{{#a}}", ":1: a section without an end: a\n" },
	{ "{{#a}}\n{{#b}}\n{{/b}}", ":1: a section without an end: a\n" },
	{ "{{/a}}", ":1: the end of a section that was not begun: a\n" },
	{ "{{#a}}\n{{/b}}",
	    ":2: the end of a section within another one: b\n" },
	{ "\n{{#a}}{{#b}}{{/a}}{{/b}}",
	    ":2: the end of a section within another one: a\n" },
	{ "{{=<%=}}", ":1: not two delimiters: <%\n" },
	{ "{{= =}}", ":1: not two delimiters: \n" },
	{ "{{=a b c=}}", ":1: not two delimiters: a b c\n" },
	{ "{{=== =}}", ":1: not two delimiters: ==\n" },
	{ "{{=aaaaaaaaaaaaaaaa b=}}",
	    ":1: not two delimiters: aaaaaaaaaaaaaaaa b\n" },
	{ "{{<a}}{{/a}}", ":1: inheritance is not supported: a\n" },
	{ "{{$a}}{{/a}}", ":1: inheritance is not supported: a\n" },
	{ "{{>*a}}", ":1: dynamic names are not supported: *a\n" },
	{ "\xff", ": not UTF-8\n" },
};

START_TEST(a_fault_is_told_with_its_line)
{
	struct buf want;

	buf_init(&want, 4096);
	buf_printf(&want, "DIR/t.mustache%s", faults[_i].want);
	ck_assert_int_eq(add("t", faults[_i].text), RS_EINVAL);
	ck_assert_str_eq(why.data, want.data);
	ck_assert_int_eq(add("u", "x"), RS_OK);
	buf_done(&want);
}
END_TEST

static const struct {
	const char *a, *b, *c, *want;
} circles[] = {
	{ "{{>a}}", "", "", "a.mustache:1: a template must not include "
	    "itself, also not by others: a\n" },
	{ "\n{{>b}}", "{{#x}}{{>a}}{{/x}}", "", "b.mustache:1: a template "
	    "must not include itself, also not by others: a\n" },
	{ "{{>b}}", "{{>c}}", "{{^x}}\n  {{>a}}\n{{/x}}", "c.mustache:2: "
	    "a template must not include itself, also not by others: a\n" },
	{ "", "{{>c}}", "{{>c}}", "c.mustache:1: a template must not "
	    "include itself, also not by others: c\n" },
	{ "{{>b}}{{>b}}{{>c}}", "{{>c}}{{>c}}", "", NULL },
};

START_TEST(a_template_that_includes_itself_is_refused)
{
	ck_assert_int_eq(add("c", circles[_i].c), RS_OK);
	ck_assert_int_eq(add("a", circles[_i].a), RS_OK);
	ck_assert_int_eq(add("b", circles[_i].b), RS_OK);
	if (circles[_i].want == NULL) {
		ck_assert_int_eq(tmpl_set_link(set, &why), RS_OK);
		ck_assert_uint_eq(why.len, 0);
		return;
	}
	ck_assert_int_eq(tmpl_set_link(set, &why), RS_EINVAL);
	ck_assert_ptr_nonnull(strstr(why.data, circles[_i].want));
}
END_TEST

/* t00 includes t01, and so on: _i of them. */
START_TEST(files_within_one_another_have_a_limit)
{
	char name[24], text[24];
	int i;

	for (i = 0; i < _i; i++) {
		snprintf(name, sizeof name, "t%02d", i);
		snprintf(text, sizeof text, "{{>t%02d}}", i + 1);
		ck_assert_int_eq(add(name, i + 1 < _i ? text : "x"), RS_OK);
	}
	ck_assert_int_eq(tmpl_set_link(set, &why),
	    _i <= TMPL_PARTIALS_MAX ? RS_OK : RS_EINVAL);
	ck_assert_uint_eq(why.len > 0, _i > TMPL_PARTIALS_MAX);
}
END_TEST

START_TEST(a_partial_that_is_not_there_is_warned_of)
{
	add("t", "a\n{{>missing}}\nb");
	ck_assert_int_eq(tmpl_set_link(set, &why), RS_OK);
	ck_assert_str_eq(why.data, "DIR/t.mustache:2: warning: nothing is "
	    "included, as there is no template missing\n");
	ck_assert_int_eq(render(NULL), RS_OK);
	ck_assert_str_eq(out.data, "a\nb");
}
END_TEST

START_TEST(sections_within_one_another_have_a_limit)
{
	struct json_object *o = json("{\"x\":1}");
	struct buf b;
	int i;

	buf_init(&b, 4096);
	for (i = 0; i < _i; i++)
		buf_puts(&b, "{{#x}}");
	buf_puts(&b, "y");
	for (i = 0; i < _i; i++)
		buf_puts(&b, "{{/x}}");
	ck_assert_int_eq(add("t", b.data),
	    _i <= TMPL_SECTIONS_MAX ? RS_OK : RS_EINVAL);
	if (_i <= TMPL_SECTIONS_MAX) {
		ck_assert_int_eq(tmpl_set_link(set, &why), RS_OK);
		ck_assert_int_eq(render(o), RS_OK);
		ck_assert_str_eq(out.data, "y");
	}
	buf_done(&b);
	json_object_put(o);
}
END_TEST

START_TEST(the_deepest_contexts_that_are_possible_are_rendered)
{
	struct json_object *o = json("{\"x\":1}");
	char name[24];
	struct buf b;
	int i, k;

	buf_init(&b, 4096);
	for (i = 0; i < TMPL_PARTIALS_MAX; i++) {
		buf_clear(&b);
		for (k = 0; k < TMPL_SECTIONS_MAX; k++)
			buf_puts(&b, "{{#x}}");
		buf_printf(&b, "{{>t%d}}.", i + 1);
		for (k = 0; k < TMPL_SECTIONS_MAX; k++)
			buf_puts(&b, "{{/x}}");
		snprintf(name, sizeof name, "t%d", i);
		ck_assert_int_eq(add(i == 0 ? "t" : name, b.data), RS_OK);
	}
	ck_assert_int_eq(tmpl_set_link(set, &why), RS_OK);
	ck_assert_int_eq(render(o), RS_OK);
	ck_assert_str_eq(out.data, "................");
	buf_done(&b);
	json_object_put(o);
}
END_TEST

START_TEST(variables_have_a_limit)
{
	struct buf b;
	int i;

	buf_init(&b, MAX);
	for (i = 0; i < _i; i++)
		buf_printf(&b, "{{v%d}}", i);
	ck_assert_int_eq(add("t", b.data),
	    _i <= TMPL_VARS_MAX ? RS_OK : RS_EINVAL);
	buf_done(&b);
}
END_TEST

START_TEST(lists_within_lists_do_not_keep_it_busy)
{
	struct json_object *o = json_object_new_object();
	struct json_object *list = json_object_new_array();
	int i;

	for (i = 0; i < 5000; i++)
		json_object_array_add(list, json_object_new_int(i));
	json_object_object_add(o, "x", list);
	add("t", "{{#x}}{{#x}}{{#x}}{{#x}}{{/x}}{{/x}}{{/x}}{{/x}}");
	ck_assert_int_eq(tmpl_set_link(set, &why), RS_OK);
	ck_assert_int_eq(render(o), RS_ETOOBIG);
	ck_assert_uint_eq(out.len, 0);
	json_object_put(o);
}
END_TEST

START_TEST(a_text_over_the_maximum_is_refused)
{
	struct json_object *o = json("{\"x\":\"1234567890\"}");

	buf_done(&out);
	buf_init(&out, (size_t)_i);
	add("t", "{{x}}{{x}}");
	ck_assert_int_eq(tmpl_set_link(set, &why), RS_OK);
	ck_assert_int_eq(render(o), _i < 20 ? RS_ETOOBIG : RS_OK);
	json_object_put(o);
}
END_TEST

/* ---- what a template says of itself ---- */

static const struct {
	const char *text, *p, *want, *model;
} listed[] = {
	{ "{{! description: Says it. }}\n{{!model:gpt}}\n{{a}} {{b.c}}", "",
	    "{\"name\":\"t\",\"description\":\"Says it.\","
	    "\"variables\":[\"a\",\"b.c\"],\"required\":[\"a\",\"b.c\"]}",
	    "gpt" },
	{ "x{{! description: late }}{{!model: late}}{{a}}{{a}}", "",
	    "{\"name\":\"t\",\"description\":\"\","
	    "\"variables\":[\"a\"],\"required\":[\"a\"]}", NULL },
	{ "{{! descriptions: x }}{{! model }}{{!model: }}{{^a}}{{b}}{{/a}}"
	    "{{a}}{{.}}{{&c}}{{{d}}}", "",
	    "{\"name\":\"t\",\"description\":\"\","
	    "\"variables\":[\"a\",\"b\",\"c\",\"d\"],"
	    "\"required\":[\"c\",\"d\"]}", NULL },
	{ "{{#s}}{{x}}{{/s}}{{x}}", "",
	    "{\"name\":\"t\",\"description\":\"\","
	    "\"variables\":[\"s\",\"x\"],\"required\":[\"x\"]}", NULL },
	{ "{{a}}{{>p}}{{#c}}{{>p}}{{/c}}", "{{b}}{{#a}}{{/a}}",
	    "{\"name\":\"t\",\"description\":\"\","
	    "\"variables\":[\"a\",\"c\",\"b\"],\"required\":[\"b\"]}", NULL },
	{ "{{#c}}{{>p}}{{/c}}", "{{b}}",
	    "{\"name\":\"t\",\"description\":\"\","
	    "\"variables\":[\"c\",\"b\"],\"required\":[]}", NULL },
};

START_TEST(a_template_lists_its_variables)
{
	const struct tmpl *t;

	add("p", listed[_i].p);
	add("t", listed[_i].text);
	ck_assert_int_eq(tmpl_set_link(set, &why), RS_OK);
	tmpl_set_put(set, &out);
	ck_assert_ptr_nonnull(strstr(out.data, listed[_i].want));
	t = tmpl_find(set, "t", 1);
	if (listed[_i].model != NULL)
		ck_assert_str_eq(tmpl_model(t), listed[_i].model);
	else
		ck_assert_ptr_null(tmpl_model(t));
}
END_TEST

START_TEST(no_set_has_no_templates)
{
	tmpl_set_put(NULL, &out);
	ck_assert_str_eq(out.data, "{\"templates\":[]}");
	ck_assert_ptr_null(tmpl_find(NULL, "t", 1));
	ck_assert_ptr_null(tmpl_find(set, "t", 1));
}
END_TEST

static const struct {
	const char *vars, *want; /* NULL: none is missing */
} missing[] = {
	{ "{\"a\":1,\"b\":{\"c\":\"\"},\"d\":false}", NULL },
	{ "{\"a\":1,\"b\":{\"c\":2},\"d\":[]}", NULL },
	{ "{\"a\":1,\"b\":{\"c\":null},\"d\":0}", "b.c" },
	{ "{\"a\":1,\"b\":2,\"d\":0}", "b.c" },
	{ "{\"a\":null,\"b\":{\"c\":2}}", "a, d" },
	{ "{\"s\":{\"a\":1}}", "a, b.c, d" },
	{ "{}", "a, b.c, d" },
};

START_TEST(missing_variables_are_named)
{
	struct json_object *o = json(missing[_i].vars);

	add("t", "{{a}}{{b.c}}{{#s}}{{e}}{{/s}}{{d}}");
	ck_assert_int_eq(tmpl_set_link(set, &why), RS_OK);
	ck_assert_int_eq(tmpl_missing(tmpl_find(set, "t", 1), o, &out),
	    missing[_i].want != NULL);
	if (missing[_i].want != NULL)
		ck_assert_str_eq(out.data, missing[_i].want);
	json_object_put(o);
}
END_TEST

/* ---- a directory ---- */

static char dir[64];

static void
file_write(const char *name, const char *text, mode_t mode)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	ck_assert_ptr_nonnull(f = fopen(path, "w"));
	fputs(text, f);
	ck_assert_int_eq(fclose(f), 0);
	ck_assert_int_eq(chmod(path, mode), 0);
}

static const struct {
	const char *name, *text;
	mode_t mode;
	const char *want; /* in the fault; NULL: it loads */
} files[] = {
	{ "b.mustache", "{{x}}", 0644, NULL },
	{ "a.mustache~", "{{", 0644, NULL },
	{ "README", "{{", 0644, NULL },
	{ "a-b_C.9.mustache", "x", 0644, NULL },
	{ "b.mustache", "\n{{", 0644, "b.mustache:2: a tag without an end" },
	{ "b.mustache", "{{>a}}{{>b}}", 0644, "b.mustache:1: a template must "
	    "not include itself" },
	{ "b.mustache", "x", 0664, "group or others can write it" },
	{ ".mustache", "x", 0644, "a template's name has" },
	{ "a b.mustache", "x", 0644, "a template's name has" },
	{ "\xc3\xa4.mustache", "x", 0644, "a template's name has" },
};

START_TEST(a_directory_is_loaded_whole_or_not)
{
	const char *tmp = getenv("TMPDIR");
	struct tmpl_set *s = NULL;
	char path[256];
	enum rs_err err;

	snprintf(dir, sizeof dir, "%s/respool-XXXXXX",
	    tmp != NULL && strlen(tmp) < 40 ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	file_write("a.mustache", "hello", 0644);
	file_write(files[_i].name, files[_i].text, files[_i].mode);
	err = tmpl_load(dir, &s, &why);
	if (files[_i].want != NULL) {
		ck_assert(err == RS_EINVAL || err == RS_EPERM);
		ck_assert_ptr_null(s);
		ck_assert_ptr_nonnull(strstr(why.data, files[_i].want));
	} else {
		ck_assert_int_eq(err, RS_OK);
		ck_assert_ptr_nonnull(tmpl_find(s, "a", 1));
	}
	tmpl_set_free(s);
	snprintf(path, sizeof path, "%s/%s", dir, files[_i].name);
	unlink(path);
	snprintf(path, sizeof path, "%s/a.mustache", dir);
	unlink(path);
	ck_assert_int_eq(rmdir(dir), 0);
	err = tmpl_load(dir, &s, &why);
	ck_assert_int_eq(err, RS_ENOENT);
}
END_TEST

static Suite *
tmpl_suite(void)
{
	Suite *s = suite_create("tmpl");
	TCase *tc = tcase_create("tmpl");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, a_case_of_the_specification_holds, 0,
	    (int)json_object_array_length(cases));
	tcase_add_loop_test(tc, a_template_and_values_make_a_text, 0,
	    COUNT(ours));
	tcase_add_test(tc, a_nul_in_a_value_is_kept);
	tcase_add_test(tc, lines_of_partials_are_indented_as_their_tags);
	tcase_add_loop_test(tc, a_fault_is_told_with_its_line, 0,
	    COUNT(faults));
	tcase_add_loop_test(tc, a_template_that_includes_itself_is_refused, 0,
	    COUNT(circles));
	tcase_add_loop_test(tc, files_within_one_another_have_a_limit,
	    TMPL_PARTIALS_MAX - 1, TMPL_PARTIALS_MAX + 2);
	tcase_add_test(tc, a_partial_that_is_not_there_is_warned_of);
	tcase_add_loop_test(tc, sections_within_one_another_have_a_limit,
	    TMPL_SECTIONS_MAX, TMPL_SECTIONS_MAX + 2);
	tcase_add_test(tc,
	    the_deepest_contexts_that_are_possible_are_rendered);
	tcase_add_loop_test(tc, variables_have_a_limit, TMPL_VARS_MAX,
	    TMPL_VARS_MAX + 2);
	tcase_add_test(tc, lists_within_lists_do_not_keep_it_busy);
	tcase_add_loop_test(tc, a_text_over_the_maximum_is_refused, 18, 22);
	tcase_add_loop_test(tc, a_template_lists_its_variables, 0,
	    COUNT(listed));
	tcase_add_test(tc, no_set_has_no_templates);
	tcase_add_loop_test(tc, missing_variables_are_named, 0,
	    COUNT(missing));
	tcase_add_loop_test(tc, a_directory_is_loaded_whole_or_not, 0,
	    COUNT(files));
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	const char *source = getenv("RESPOOL_SOURCE");
	struct json_object *root;
	char path[4096];
	SRunner *sr;
	int failed;

	snprintf(path, sizeof path, "%s/tests/data/mustache.json",
	    source != NULL ? source : ".");
	root = json_object_from_file(path);
	if (!json_object_object_get_ex(root, "cases", &cases)) {
		fprintf(stderr, "%s: %s\n", path, json_util_get_last_err());
		return EXIT_FAILURE;
	}
	sr = srunner_create(tmpl_suite());
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	json_object_put(root);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
