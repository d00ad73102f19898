/* check_persona.c - personas: a directory of files. */
#include <sys/stat.h>

#include <check.h>
#include <ftw.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "persona.h"

#define ROWS(a) (int)(sizeof(a) / sizeof((a)[0]))
#define GOOD "{\"name\":\"Leo\",\"system\":\"You are Leo.\"}"

static char dir[64];
static struct personas *all;
static struct buf why;

static void
setup(void)
{
	strcpy(dir, "/tmp/respool-check-persona-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	buf_init(&why, 65536);
	all = NULL;
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static void
teardown(void)
{
	personas_free(all);
	buf_done(&why);
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void
put(const char *name, const char *text)
{
	char path[200];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	ck_assert_ptr_nonnull(f = fopen(path, "w"));
	fputs(text, f);
	fclose(f);
	chmod(path, 0644);
}

START_TEST(a_file_is_a_persona)
{
	const struct persona *p;

	put("lion_001.json", "{\"id\":\"lion_001\",\"name\":\"Leo\","
	    "\"greeting\":\"Roar!\",\"system\":\"You are Leo.\","
	    "\"model\":\"echo\",\"parameters\":{\"temperature\":0.5}}");
	put("ant.json", GOOD);
	put("README", "not one of them");
	put(".json", "nor is this");
	put("two words.json", "nor this");
	ck_assert_msg(personas_load(dir, &all, &why) == RS_OK, "%s",
	    why.data);
	ck_assert_uint_eq(all->count, 2);
	ck_assert_str_eq(all->all[0].id, "ant");
	p = personas_find(all, "lion_001");
	ck_assert_ptr_eq(p, &all->all[1]);
	ck_assert_str_eq(p->name, "Leo");
	ck_assert_str_eq(p->greeting, "Roar!");
	ck_assert_str_eq(p->system, "You are Leo.");
	ck_assert_str_eq(p->model, "echo");
	ck_assert_int_eq(json_object_object_length(p->parameters), 1);
	p = personas_find(all, "ant");
	ck_assert_ptr_null(p->greeting);
	ck_assert_ptr_null(p->model);
	ck_assert_ptr_null(p->parameters);
	ck_assert_ptr_null(personas_find(all, "lion_002"));
	ck_assert_ptr_null(personas_find(all, ""));
}
END_TEST

static const struct {
	const char *text, *want;
} bad[] = {
	{ "", "" },
	{ "nonsense", "" },
	{ "[]", "must be a JSON object" },
	{ "{\"system\":\"s\"}", "name: is missing" },
	{ "{\"name\":\"n\"}", "system: is missing" },
	{ "{\"name\":\"\",\"system\":\"s\"}", "name: must be a text" },
	{ "{\"name\":7,\"system\":\"s\"}", "name: must be a text" },
	{ "{\"name\":\"n\",\"system\":[]}", "system: must be a text" },
	{ "{\"name\":\"n\",\"system\":\"a\\u0000b\"}",
	    "system: must be a text" },
	{ "{\"id\":\"tiger\",\"name\":\"n\",\"system\":\"s\"}",
	    "id: must be the file's name" },
	{ "{\"name\":\"n\",\"system\":\"s\",\"parameters\":[]}",
	    "parameters: must be an object" },
	{ "{\"name\":\"n\",\"system\":\"s\",\"parameters\":null}",
	    "parameters: must be an object" },
	{ "{\"name\":\"n\",\"system\":\"s\",\"voice\":1}",
	    "voice: there is no such field" },
	{ "{\"name\":\"n\",\"name\":\"m\",\"system\":\"s\"}", "" },
	{ "{\"name\":\"01234567890123456789012345678901234567890123456789"
	    "0123456789012345678901234567890123456789012345678901234567890"
	    "12345678901234567890\",\"system\":\"s\"}",
	    "name: must have at most 128 bytes" },
};

START_TEST(a_wrong_file_is_named_with_its_fault)
{
	put("ant.json", GOOD);
	put("lion.json", bad[_i].text);
	ck_assert_int_eq(personas_load(dir, &all, &why), RS_EINVAL);
	ck_assert_ptr_null(all);
	ck_assert_ptr_nonnull(why.data);
	ck_assert_ptr_nonnull(strstr(why.data, "/lion.json: "));
	ck_assert_ptr_nonnull(strstr(why.data, bad[_i].want));
	ck_assert_ptr_null(strstr(why.data, "/ant.json"));
}
END_TEST

START_TEST(each_fault_is_told)
{
	put("a.json", "{\"name\":7}");
	put("b.json", "x");
	ck_assert_int_eq(personas_load(dir, &all, &why), RS_EINVAL);
	ck_assert_ptr_nonnull(strstr(why.data, "/a.json: name: "));
	ck_assert_ptr_nonnull(strstr(why.data, "/a.json: system: "));
	ck_assert_ptr_nonnull(strstr(why.data, "/b.json: "));
}
END_TEST

START_TEST(a_file_that_others_can_write_is_refused)
{
	char path[200];

	put("lion.json", GOOD);
	snprintf(path, sizeof path, "%s/lion.json", dir);
	ck_assert_int_eq(chmod(path, 0666), 0);
	ck_assert_int_ne(personas_load(dir, &all, &why), RS_OK);
	ck_assert_ptr_nonnull(strstr(why.data, "lion.json"));
}
END_TEST

START_TEST(no_directory_has_no_personas_and_a_missing_one_is_a_fault)
{
	ck_assert_int_eq(personas_load("", &all, &why), RS_OK);
	ck_assert_uint_eq(all->count, 0);
	ck_assert_ptr_null(personas_find(all, "lion"));
	ck_assert_ptr_null(personas_find(NULL, "lion"));
	personas_free(all);
	all = NULL;
	ck_assert_int_eq(personas_load("/nowhere/at/all", &all, &why),
	    RS_ENOENT);
	ck_assert_ptr_nonnull(strstr(why.data, "/nowhere/at/all"));
}
END_TEST

START_TEST(models_and_the_default_must_be_there)
{
	struct models *models = NULL;

	put("ant.json", "{\"name\":\"n\",\"system\":\"s\",\"model\":\"echo\"}");
	put("bee.json", "{\"name\":\"n\",\"system\":\"s\",\"model\":\"gone\"}");
	ck_assert_int_eq(personas_load(dir, &all, &why), RS_OK);
	ck_assert_int_eq(models_load("", &models, &why), RS_OK);
	ck_assert_uint_eq(personas_check(all, models, "", &why), 1);
	ck_assert_str_eq(why.data, "persona bee: there is no model gone\n");
	buf_clear(&why);
	ck_assert_uint_eq(personas_check(all, models, "ant", &why), 1);
	buf_clear(&why);
	ck_assert_uint_eq(personas_check(all, models, "cat", &why), 2);
	ck_assert_ptr_nonnull(strstr(why.data,
	    "default_persona: there is no persona cat\n"));
	models_unref(models);
}
END_TEST

/* The ones that are shipped. */
START_TEST(the_zoo_is_good)
{
	const char *source = getenv("RESPOOL_SOURCE");
	struct models *models = NULL;
	char path[4096], lion[4128];
	struct stat st;

	snprintf(path, sizeof path, "%s/share/personas",
	    source != NULL ? source : "..");
	snprintf(lion, sizeof lion, "%s/lion_001.json", path);
	/* A checkout may be one that a group can write to: refused. */
	if (stat(lion, &st) < 0 || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
		return;
	ck_assert_msg(personas_load(path, &all, &why) == RS_OK, "%s",
	    why.data);
	ck_assert_uint_ge(all->count, 5);
	ck_assert_int_eq(models_load("", &models, &why), RS_OK);
	ck_assert_uint_eq(personas_check(all, models, "lion_001", &why), 0);
	models_unref(models);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("persona");
	TCase *tc = tcase_create("persona");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_file_is_a_persona);
	tcase_add_loop_test(tc, a_wrong_file_is_named_with_its_fault, 0,
	    ROWS(bad));
	tcase_add_test(tc, each_fault_is_told);
	tcase_add_test(tc, a_file_that_others_can_write_is_refused);
	tcase_add_test(tc,
	    no_directory_has_no_personas_and_a_missing_one_is_a_fault);
	tcase_add_test(tc, models_and_the_default_must_be_there);
	tcase_add_test(tc, the_zoo_is_good);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
