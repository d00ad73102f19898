/* check_reload.c - what follows its file. */
#include <sys/stat.h>

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf.h"
#include "log.h"
#include "reload.h"

static char dir[64], file[80];
static unsigned loads, frees;

/* The value is the file's text, or the directory's path; "bad" is wrong. */
static enum rs_err
load(const char *path, void **ret, struct buf *why)
{
	struct stat st;
	struct buf b;
	enum rs_err err = RS_OK;

	loads++;
	buf_init(&b, 100);
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		buf_puts(&b, path);
	else
		err = conf_read_file(path, &b, why);
	if (err == RS_OK && strcmp(b.data, "bad") == 0) {
		buf_puts(why, "it is bad\nand more\n");
		err = RS_EINVAL;
	}
	if (err == RS_OK)
		*ret = b.data;
	else
		buf_done(&b);
	return err;
}

static void
unload(void *value)
{
	frees += value != NULL;
	free(value);
}

static const struct reload_kind kind = { "things", load, unload };

/* Another file in its place. */
static void
file_write(const char *path, const char *text)
{
	char other[100];
	FILE *f;

	snprintf(other, sizeof other, "%s/other", dir);
	ck_assert_ptr_nonnull(f = fopen(other, "w"));
	fputs(text, f);
	ck_assert_int_eq(fclose(f), 0);
	ck_assert_int_eq(chmod(other, 0644), 0);
	ck_assert_int_eq(rename(other, path), 0);
}

static void
setup(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof dir, "%s/respool-XXXXXX",
	    tmp != NULL && strlen(tmp) < 40 ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(file, sizeof file, "%s/file", dir);
	loads = frees = 0;
}

static void
teardown(void)
{
	char log[80];

	snprintf(log, sizeof log, "%s/log", dir);
	unlink(log);
	unlink(file);
	ck_assert_int_eq(rmdir(dir), 0);
}

static void
assert_value(struct reload *r, const char *want)
{
	const char *now = reload_use(r);

	if (want == NULL)
		ck_assert_ptr_null(now);
	else
		ck_assert_str_eq(now, want);
	reload_done(r);
}

START_TEST(a_file_is_read_again_when_it_changed)
{
	struct reload *r;

	file_write(file, "one");
	ck_assert_int_eq(reload_new(&kind, file, &r), RS_OK);
	ck_assert_uint_eq(loads, 0);
	assert_value(r, "one");
	assert_value(r, "one");
	ck_assert_uint_eq(loads, 1);
	file_write(file, "two");
	assert_value(r, "two");
	assert_value(r, "two");
	ck_assert_uint_eq(loads, 2);
	ck_assert_uint_eq(frees, 1);
	reload_free(r);
	ck_assert_uint_eq(frees, 2);
}
END_TEST

/* How often a text stands in the log. */
static unsigned
logged(const char *text)
{
	char path[80], line[512];
	unsigned n = 0;
	FILE *f;

	snprintf(path, sizeof path, "%s/log", dir);
	ck_assert_ptr_nonnull(f = fopen(path, "r"));
	while (fgets(line, sizeof line, f) != NULL)
		n += strstr(line, text) != NULL;
	fclose(f);
	return n;
}

START_TEST(a_fault_is_logged_once_and_the_former_value_stays)
{
	char log[80];
	struct reload *r;

	snprintf(log, sizeof log, "%s/log", dir);
	log_open(LOGL_INFO, log);
	file_write(file, "one");
	ck_assert_int_eq(reload_new(&kind, file, &r), RS_OK);
	assert_value(r, "one");
	file_write(file, "bad");
	assert_value(r, "one");
	assert_value(r, "one");
	ck_assert_uint_eq(loads, 2);
	ck_assert_uint_eq(logged("kept the former ones what=things "
	    "reason=\"it is bad\""), 1);
	ck_assert_uint_eq(logged("reason=\"and more\""), 1);
	ck_assert_int_eq(unlink(file), 0);
	assert_value(r, "one");
	assert_value(r, "one");
	ck_assert_uint_eq(loads, 3);
	file_write(file, "two");
	assert_value(r, "two");
	ck_assert_uint_eq(logged("read again what=things"), 1);
	reload_free(r);
}
END_TEST

START_TEST(what_was_wrong_at_first_can_be_mended)
{
	struct reload *r;

	log_open(LOGL_ERROR, "/dev/null");
	ck_assert_int_eq(reload_new(&kind, file, &r), RS_OK);
	assert_value(r, NULL);
	assert_value(r, NULL);
	ck_assert_uint_eq(loads, 1);
	file_write(file, "bad");
	assert_value(r, NULL);
	file_write(file, "one");
	assert_value(r, "one");
	reload_free(r);
}
END_TEST

/* Each is a change: a file comes, is replaced, written in place, goes. */
START_TEST(a_directory_changes_with_its_files)
{
	struct reload *r;
	FILE *f;

	ck_assert_int_eq(reload_new(&kind, dir, &r), RS_OK);
	assert_value(r, dir);
	assert_value(r, dir);
	ck_assert_uint_eq(loads, 1);
	file_write(file, "one");
	assert_value(r, dir);
	ck_assert_uint_eq(loads, 2);
	file_write(file, "two");
	assert_value(r, dir);
	ck_assert_uint_eq(loads, 3);
	ck_assert_ptr_nonnull(f = fopen(file, "a"));
	fputs("more", f);
	ck_assert_int_eq(fclose(f), 0);
	assert_value(r, dir);
	ck_assert_uint_eq(loads, 4);
	ck_assert_int_eq(unlink(file), 0);
	assert_value(r, dir);
	ck_assert_uint_eq(loads, 5);
	assert_value(r, dir);
	ck_assert_uint_eq(loads, 5);
	reload_free(r);
}
END_TEST

START_TEST(no_path_is_no_value)
{
	struct reload *r;

	ck_assert_int_eq(reload_new(&kind, "", &r), RS_OK);
	assert_value(r, NULL);
	ck_assert_uint_eq(loads, 0);
	reload_free(r);
	reload_free(NULL);
}
END_TEST

static Suite *
reload_suite(void)
{
	Suite *s = suite_create("reload");
	TCase *tc = tcase_create("reload");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_file_is_read_again_when_it_changed);
	tcase_add_test(tc,
	    a_fault_is_logged_once_and_the_former_value_stays);
	tcase_add_test(tc, what_was_wrong_at_first_can_be_mended);
	tcase_add_test(tc, a_directory_changes_with_its_files);
	tcase_add_test(tc, no_path_is_no_value);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	SRunner *sr = srunner_create(reload_suite());
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
