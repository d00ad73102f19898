/* check_model.c - the models file. */
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "model.h"
#include "money.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

static char dir[512];	/* of each test */
static char file[600], log_path[600];
static struct buf why;

static void
set_up(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof dir, "%s/model.XXXXXX", tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(file, sizeof file, "%s/models.json", dir);
	snprintf(log_path, sizeof log_path, "%s/log", dir);
	buf_init(&why, 65536);
	log_open(LOGL_INFO, log_path);
}

static void
tear_down(void)
{
	buf_done(&why);
	unlink(file);
	unlink(log_path);
	ck_assert_int_eq(rmdir(dir), 0);
}

/* A new inode each time: it differs from the last one at any speed. */
static void
put_file(const char *text)
{
	char fresh[700];
	FILE *f;

	snprintf(fresh, sizeof fresh, "%s.new", file);
	f = fopen(fresh, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_ge(fputs(text, f), 0);
	ck_assert_int_eq(fclose(f), 0);
	ck_assert_int_eq(chmod(fresh, 0644), 0);
	ck_assert_int_eq(rename(fresh, file), 0);
}

static enum rs_err
load(const char *text, struct models **ret)
{
	put_file(text);
	return models_load(file, ret, &why);
}

static const struct model *
find(const struct models *m, const char *name)
{
	return models_find(m, name, strlen(name));
}

static int
log_lines(void)
{
	FILE *f = fopen(log_path, "r");
	int c, n = 0;

	if (f == NULL)
		return 0;
	while ((c = getc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

#define ONE(fields) \
	"{\"models\": {\"m\": {\"provider\": \"demo\"" fields "}}}"
#define FIFTY "01234567890123456789012345678901234567890123456789"
#define NAME128 FIFTY FIFTY "0123456789012345678901234567"

START_TEST(the_built_in_models_are_demo_and_echo)
{
	struct models *m = NULL;

	ck_assert_msg(models_load("", &m, &why) == RS_OK, "%s", why.data);
	ck_assert_uint_eq(m->count, 2);
	ck_assert_str_eq(m->def->name, "demo");
	ck_assert_uint_eq(m->def->demo.chunks, 100);
	ck_assert_uint_eq(m->def->demo.interval_ms, 50);
	ck_assert_uint_eq(m->def->demo.first_ms, 0);
	ck_assert_uint_eq(m->def->prices.input, 150000);
	ck_assert_uint_eq(m->def->prices.cache_read, 75000);
	ck_assert_uint_eq(m->def->prices.cache_write, 150000);
	ck_assert_uint_eq(m->def->prices.output, 600000);
	ck_assert_uint_eq(find(m, "echo")->demo.chunks, 0);
	ck_assert_uint_eq(find(m, "echo")->prices.output, 600000);
	ck_assert_ptr_null(find(m, "demo "));
	ck_assert_ptr_null(find(m, ""));
	ck_assert_ptr_null(models_find(m, "demo\0", 5));
	ck_assert_ptr_nonnull(models_find(m, "demos", 4));
	models_unref(m);
}
END_TEST

START_TEST(the_example_can_be_loaded)
{
	const char *srcdir = getenv("srcdir");
	const struct model *x;
	struct models *m = NULL;
	char path[4096], copy[65536];
	size_t n;
	FILE *f;

	/* A working copy may be group-writable: that is the umask's doing. */
	snprintf(path, sizeof path, "%s/models.json.example",
	    srcdir != NULL ? srcdir : ".");
	f = fopen(path, "r");
	ck_assert_msg(f != NULL, "%s", path);
	n = fread(copy, 1, sizeof copy - 1, f);
	fclose(f);
	copy[n] = '\0';
	ck_assert_msg(load(copy, &m) == RS_OK, "%s", why.data);
	ck_assert_str_eq(m->def->name, "demo");
	ck_assert_ptr_nonnull(find(m, "echo"));
	for (x = m->all; x < m->all + m->count; x++) {
		ck_assert_uint_ne(x->prices.input, MONEY_UNKNOWN);
		ck_assert_uint_ne(x->prices.cache_read, MONEY_UNKNOWN);
		ck_assert_uint_ne(x->prices.cache_write, MONEY_UNKNOWN);
		ck_assert_uint_ne(x->prices.output, MONEY_UNKNOWN);
	}
	models_unref(m);
}
END_TEST

START_TEST(every_field_is_read)
{
	struct models *m = NULL;
	const struct model *x;

	ck_assert_msg(load("{ \"models\": { \"first\": {\"provider\":\"demo\"},"
	    "\"all \\u00e4/\\\"\": { \"provider\": \"demo\", \"text\": \"a b\","
	    "\"chunks\": 1, \"interval_ms\": 2, \"first_ms\": 3,"
	    "\"fail_after\": 4, \"error_type\": \"overloaded\","
	    "\"hang_after\": 0, \"hidden\": true,"
	    "\"api_key_env\": \"DEMO_KEY_2\","
	    "\"prices\": { \"input\": 0, \"output\": 1000000000000000 } } },"
	    "\"default\": \"all \xc3\xa4/\\\"\" }", &m) == RS_OK, "%s",
	    why.data);
	ck_assert_uint_eq(m->count, 2);
	ck_assert_str_eq(m->all[0].name, "first");
	ck_assert_ptr_null(m->all[0].demo.text);
	ck_assert_uint_eq(m->all[0].demo.fail_after, DEMO_NEVER);
	ck_assert_uint_eq(m->all[0].demo.hang_after, DEMO_NEVER);
	ck_assert_int_eq(m->all[0].demo.error_type, ERRTYPE_upstream_error);
	ck_assert_uint_eq(m->all[0].prices.input, MONEY_UNKNOWN);
	ck_assert_uint_eq(m->all[0].prices.output, MONEY_UNKNOWN);
	ck_assert(!m->all[0].hidden);
	x = m->def;
	ck_assert_ptr_eq(x, &m->all[1]);
	ck_assert_int_eq(x->provider, PROVIDER_DEMO);
	ck_assert_str_eq(x->demo.text, "a b");
	ck_assert_str_eq(x->api_key_env, "DEMO_KEY_2");
	ck_assert_ptr_null(m->all[0].api_key_env);
	ck_assert_uint_eq(x->demo.chunks, 1);
	ck_assert_uint_eq(x->demo.interval_ms, 2);
	ck_assert_uint_eq(x->demo.first_ms, 3);
	ck_assert_uint_eq(x->demo.fail_after, 4);
	ck_assert_uint_eq(x->demo.hang_after, 0);
	ck_assert_int_eq(x->demo.error_type, ERRTYPE_overloaded);
	ck_assert(x->hidden);
	ck_assert_uint_eq(x->prices.input, 0);
	ck_assert_uint_eq(x->prices.cache_read, MONEY_UNKNOWN);
	ck_assert_uint_eq(x->prices.output, 1000000000000000);
	models_unref(m);
}
END_TEST

static const char *const goods[] = {
	ONE(""),
	ONE(", \"chunks\": 0"),
	ONE(", \"text\": \"\""),
	ONE(", \"prices\": {}"),
	"{\"models\": {\"" NAME128 "\": {\"provider\": \"demo\"}}}\n\n",
};

START_TEST(without_a_default_the_first_model_is_it)
{
	struct models *m = NULL;

	ck_assert_msg(load(goods[_i], &m) == RS_OK, "%s", why.data);
	ck_assert_ptr_eq(m->def, m->all);
	models_unref(m);
}
END_TEST

/* The file and all faults, each without "PATH". */
static const struct { const char *text, *want; } bads[] = {
	{ ONE(", \"chunks\": -1"),
	    ": models.m.chunks: must be an integer of 0 or more\n" },
	{ ONE(", \"chunks\": 1.5"),
	    ": models.m.chunks: must be an integer of 0 or more\n" },
	{ ONE(", \"chunks\": \"1\""),
	    ": models.m.chunks: must be an integer of 0 or more\n" },
	{ ONE(", \"chunks\": true"),
	    ": models.m.chunks: must be an integer of 0 or more\n" },
	{ ONE(", \"chunks\": null"), ": models.m.chunks: must not be null\n" },
	{ ONE(", \"chunks\": 10000001"),
	    ": models.m.chunks: must be at most 10000000\n" },
	{ ONE(", \"interval_ms\": 600001"),
	    ": models.m.interval_ms: must be at most 600000\n" },
	{ ONE(", \"first_ms\": 86400001"),
	    ": models.m.first_ms: must be at most 86400000\n" },
	{ ONE(", \"fail_after\": []"),
	    ": models.m.fail_after: must be an integer of 0 or more\n" },
	{ ONE(", \"hang_after\": {}"),
	    ": models.m.hang_after: must be an integer of 0 or more\n" },
	{ ONE(", \"api_key_env\": \"HTTP_AUTHORIZATION\""),
	    ": models.m.api_key_env: must name an environment "
	    "variable (A-Z, 0-9 and _), and none that begins with HTTP_\n" },
	{ ONE(", \"api_key_env\": \"\""),
	    ": models.m.api_key_env: must name an environment "
	    "variable (A-Z, 0-9 and _), and none that begins with HTTP_\n" },
	{ ONE(", \"api_key_env\": \"1KEY\""),
	    ": models.m.api_key_env: must name an environment "
	    "variable (A-Z, 0-9 and _), and none that begins with HTTP_\n" },
	{ ONE(", \"api_key_env\": \"A=B\""),
	    ": models.m.api_key_env: must name an environment "
	    "variable (A-Z, 0-9 and _), and none that begins with HTTP_\n" },
	{ ONE(", \"error_type\": \"conflict\""),
	    ": models.m.error_type: is not one of a frame\n" },
	{ ONE(", \"error_type\": \"nope\""),
	    ": models.m.error_type: there is no such error type\n" },
	{ ONE(", \"error_type\": \"\""),
	    ": models.m.error_type: there is no such error type\n" },
	{ ONE(", \"error_type\": 5"),
	    ": models.m.error_type: must be a string\n" },
	{ ONE(", \"text\": 5"), ": models.m.text: must be a string\n" },
	{ ONE(", \"text\": \"a\\u0000b\""),
	    ": models.m.text: must not have a NUL\n" },
	{ ONE(", \"hidden\": 1"),
	    ": models.m.hidden: must be true or false\n" },
	{ ONE(", \"prices\": 5"), ": models.m.prices: must be an object\n" },
	{ ONE(", \"prices\": {\"input\": -1}"),
	    ": models.m.prices.input: must be an integer of 0 or more\n" },
	{ ONE(", \"prices\": {\"input\": 0.1}"),
	    ": models.m.prices.input: must be an integer of 0 or more\n" },
	{ ONE(", \"prices\": {\"output\": 1000000000000001}"),
	    ": models.m.prices.output: must be at most 1000000000000000\n" },
	{ ONE(", \"prices\": {\"in\\nput\": 1}"),
	    ": models.m.prices.in?put: there is no such field\n" },
	{ ONE(", \"chunk\": 5"), ": models.m.chunk: there is no such field\n" },
	{ "{\"models\": {\"m\": {\"provider\": \"dem\"}}}",
	    ": models.m.provider: there is no such provider\n" },
	{ "{\"models\": {\"m\": {\"provider\": 1}}}",
	    ": models.m.provider: must be a string\n" },
	{ "{\"models\": {\"m\": {\"provider\": null}}}",
	    ": models.m.provider: must not be null\n" },
	{ "{\"models\": {\"m\": {}}}", ": models.m: provider is missing\n" },
	{ "{\"models\": {\"m\": []}}", ": models.m: must be an object\n" },
	{ "{\"models\": {\"m\": null}}", ": models.m: must be an object\n" },
	{ "{\"models\": {\"\": {\"provider\": \"demo\"}}}",
	    ": models: a name is empty\n" },
	{ "{\"models\": {\"" NAME128 "x\": {\"provider\": \"demo\"}}}",
	    ": models." NAME128 ": the name has more than 128 bytes\n" },
	{ "{\"models\": {}}",
	    ": models: must be an object with at least one model\n" },
	{ "{}", ": models: must be an object with at least one model\n" },
	{ "{\"models\": [1]}",
	    ": models: must be an object with at least one model\n" },
	{ "{\"models\": null}",
	    ": models: must be an object with at least one model\n" },
	{ "[]", ": must be a JSON object\n" },
	{ "5", ": must be a JSON object\n" },
	{ "null", ": must be a JSON object\n" },
	{ "{\"default\": \"n\", \"models\": {\"m\": {\"provider\": \"demo\"}}}",
	    ": default: models does not have it\n" },
	{ "{\"default\": null, \"models\": {\"m\": {\"provider\": \"demo\"}}}",
	    ": default: must be a string\n" },
	{ "{\"default\": 5, \"models\": {\"m\": {\"provider\": \"demo\"}}}",
	    ": default: must be a string\n" },
	{ "{\"Models\": {}, \"models\": {\"m\": {\"provider\": \"demo\"}}}",
	    ": Models: there is no such field\n" },
	{ "{\"x\": 1, \"models\": {\"a\": {\"chunks\": -1}, \"b\": 2}}",
	    ": x: there is no such field\n"
	    ": models.a: provider is missing\n"
	    ": models.a.chunks: must be an integer of 0 or more\n"
	    ": models.b: must be an object\n" },
};

START_TEST(each_fault_is_told_with_its_place)
{
	const char *want = bads[_i].want, *got;
	struct models *m = NULL;
	size_t n;

	ck_assert_int_eq(load(bads[_i].text, &m), RS_EINVAL);
	ck_assert_ptr_null(m);
	for (got = why.data; *want != '\0'; want += n, got += n) {
		ck_assert(strncmp(got, file, strlen(file)) == 0);
		got += strlen(file);
		n = strcspn(want, "\n") + 1;
		ck_assert_msg(strncmp(got, want, n) == 0, "%s", why.data);
	}
	ck_assert_str_eq(got, "");
}
END_TEST

static const struct { const char *text; int line; } syntax[] = {
	{ "{\n \"models\": {\n  \"m\": }\n}", 3 },
	{ "{\n \"models\": {\n\n", 4 },
	{ "{\nmodels: {} }", 2 },
	{ "{ \"models\": {},\n }", 2 },
	{ "{ \"models\": {} }\n\nx", 3 },
	{ "{ # no comments\n}", 1 },
	{ "\n\n{ \"models\": \"\xff\" }", 3 },
	{ "{ \"models\": 01 }", 1 },
	{ "nonsense", 1 },
};

START_TEST(a_syntax_error_is_told_with_its_line)
{
	struct models *m = NULL;
	char want[700];

	ck_assert_int_eq(load(syntax[_i].text, &m), RS_EINVAL);
	snprintf(want, sizeof want, "%s:%d: ", file, syntax[_i].line);
	ck_assert_msg(strncmp(why.data, want, strlen(want)) == 0, "%s",
	    why.data);
	ck_assert_ptr_eq(strchr(why.data, '\n'), why.data + why.len - 1);
}
END_TEST

START_TEST(a_cut_file_is_refused)
{
	static const char text[] = ONE(", \"text\": \"\\u00e4\", \"chunks\": 5,"
	    "\"prices\": {\"input\": 1}");
	struct models *m = NULL;
	char *cut = strdup(text);
	size_t n;

	for (n = 0; n < sizeof text - 1; n++) {
		strcpy(cut, text);
		cut[n] = '\0';
		buf_clear(&why);
		ck_assert_int_eq(load(cut, &m), RS_EINVAL);
		ck_assert_uint_gt(why.len, strlen(file));
	}
	free(cut);
}
END_TEST

START_TEST(a_file_that_others_can_write_or_that_is_not_there_is_refused)
{
	struct models *m = NULL;

	ck_assert_int_eq(models_load(file, &m, &why), RS_ENOENT);
	ck_assert_ptr_nonnull(strstr(why.data, file));
	buf_clear(&why);
	put_file(ONE(""));
	ck_assert_int_eq(chmod(file, 0664), 0);
	ck_assert_int_eq(models_load(file, &m, &why), RS_EPERM);
	ck_assert_ptr_nonnull(strstr(why.data, "group or others can write it"));
	ck_assert_ptr_null(m);
}
END_TEST

START_TEST(a_changed_file_is_read_again_and_the_old_models_live_on)
{
	struct models_file *f = NULL;
	struct models *a, *b, *c;

	put_file(ONE(", \"chunks\": 1"));
	ck_assert_int_eq(models_file_open(file, &f, &why), RS_OK);
	a = models_file_get(f);
	b = models_file_get(f);
	ck_assert_ptr_eq(a, b);
	put_file(ONE(", \"chunks\": 2"));
	c = models_file_get(f);
	ck_assert_ptr_ne(a, c);
	ck_assert_uint_eq(a->def->demo.chunks, 1);
	ck_assert_uint_eq(c->def->demo.chunks, 2);
	ck_assert_int_eq(log_lines(), 1);
	models_file_free(f);
	ck_assert_uint_eq(c->def->demo.chunks, 2);
	models_unref(a);
	ck_assert_uint_eq(b->def->demo.chunks, 1);
	models_unref(b);
	models_unref(c);
}
END_TEST

START_TEST(a_fault_in_a_changed_file_is_logged_once_and_changes_nothing)
{
	struct models_file *f = NULL;
	struct models *m;
	int i;

	put_file(ONE(", \"chunks\": 1"));
	ck_assert_int_eq(models_file_open(file, &f, &why), RS_OK);
	put_file(ONE(", \"chunks\": -1"));
	for (i = 0; i < 5; i++) {
		m = models_file_get(f);
		ck_assert_uint_eq(m->def->demo.chunks, 1);
		models_unref(m);
	}
	ck_assert_int_eq(log_lines(), 1);
	ck_assert_int_eq(unlink(file), 0);
	for (i = 0; i < 5; i++) {
		m = models_file_get(f);
		ck_assert_uint_eq(m->def->demo.chunks, 1);
		models_unref(m);
	}
	ck_assert_int_eq(log_lines(), 2);
	put_file(ONE(", \"chunks\": 3"));
	m = models_file_get(f);
	ck_assert_uint_eq(m->def->demo.chunks, 3);
	models_unref(m);
	models_file_free(f);
}
END_TEST

START_TEST(a_file_that_cannot_be_used_is_not_opened)
{
	struct models_file *f = NULL;

	ck_assert_int_eq(models_file_open(file, &f, &why), RS_ENOENT);
	put_file("{}");
	ck_assert_int_eq(models_file_open(file, &f, &why), RS_EINVAL);
	ck_assert_ptr_null(f);
	models_file_free(NULL);
	models_unref(NULL);
}
END_TEST

static void *
get_many(void *arg)
{
	int i;

	for (i = 0; i < 2000; i++) {
		struct models *m = models_file_get(arg);

		if (m->def->demo.chunks != m->def->demo.interval_ms)
			return arg;
		models_unref(m);
	}
	return NULL;
}

START_TEST(threads_may_get_the_models_while_they_change)
{
	struct models_file *f = NULL;
	pthread_t threads[4];
	void *bad;
	size_t i;

	put_file(ONE(", \"chunks\": 1, \"interval_ms\": 1"));
	ck_assert_int_eq(models_file_open(file, &f, &why), RS_OK);
	for (i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, get_many,
		    f), 0);
	for (i = 0; i < 100; i++)
		put_file(i % 2 ? ONE(", \"chunks\": 1, \"interval_ms\": 1") :
		    ONE(", \"chunks\": 2, \"interval_ms\": 2"));
	for (i = 0; i < 4; i++) {
		ck_assert_int_eq(pthread_join(threads[i], &bad), 0);
		ck_assert_ptr_null(bad);
	}
	models_file_free(f);
}
END_TEST

#define U MONEY_UNKNOWN
#define T TOKENS_UNKNOWN
static const struct {
	struct prices prices;
	struct usage usage; /* input, cache_read, cache_write, output */
	uint64_t want;
} costs[] = {
	{ { 150000, 75000, 150000, 600000 }, { 0, 0, 0, 0, 0 }, 0 },
	{ { 150000, 75000, 150000, 600000 }, { 1, 0, 0, 1, 0 }, 750000 },
	{ { 1, 10, 100, 1000 }, { 1, 2, 3, 4, 5 }, 4321 },
	{ { 0, 0, 0, 0 }, { 1, 2, 3, 4, 0 }, 0 },
	{ { U, 10, 100, 1000 }, { 0, 2, 3, 4, 0 }, 4320 },
	{ { U, 10, 100, 1000 }, { 1, 2, 3, 4, 0 }, U },
	{ { 1, U, U, 1 }, { 1, 0, 0, 1, 0 }, 2 },
	{ { 1, U, U, 1 }, { 1, 0, 1, 1, 0 }, U },
	{ { 1, 1, 1, 1 }, { T, 0, 0, 1, 0 }, U },
	{ { 1, 1, 1, 1 }, { 1, T, 0, 1, 0 }, U },
	{ { 0, 0, 0, 0 }, { 1, 0, 0, T, 0 }, U },
	{ { 1, 1, 1, 1 }, { 1, 0, 0, 1, T }, 2 },
	{ { 1ull << 40, 0, 0, 1 }, { 1ull << 40, 0, 0, 5, 0 }, U - 1 },
	{ { U, U, U, U }, { 0, 0, 0, 0, 0 }, 0 },
};
#undef U
#undef T

START_TEST(a_cost_is_exact_or_unknown)
{
	ck_assert_uint_eq(prices_cost(&costs[_i].prices, &costs[_i].usage),
	    costs[_i].want);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("model");
	TCase *tc = tcase_create("model");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, the_built_in_models_are_demo_and_echo);
	tcase_add_test(tc, the_example_can_be_loaded);
	tcase_add_test(tc, every_field_is_read);
	tcase_add_loop_test(tc, without_a_default_the_first_model_is_it, 0,
	    COUNT(goods));
	tcase_add_loop_test(tc, each_fault_is_told_with_its_place, 0,
	    COUNT(bads));
	tcase_add_loop_test(tc, a_syntax_error_is_told_with_its_line, 0,
	    COUNT(syntax));
	tcase_add_test(tc, a_cut_file_is_refused);
	tcase_add_test(tc,
	    a_file_that_others_can_write_or_that_is_not_there_is_refused);
	tcase_add_test(tc,
	    a_changed_file_is_read_again_and_the_old_models_live_on);
	tcase_add_test(tc,
	    a_fault_in_a_changed_file_is_logged_once_and_changes_nothing);
	tcase_add_test(tc, a_file_that_cannot_be_used_is_not_opened);
	tcase_add_test(tc, threads_may_get_the_models_while_they_change);
	tcase_add_loop_test(tc, a_cost_is_exact_or_unknown, 0, COUNT(costs));
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
