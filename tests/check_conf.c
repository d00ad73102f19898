/* check_conf.c - respool.conf and the environment. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

static char dir[512];	/* of each test; the working directory too */
static char file[600];
static struct buf why;

static void
put_file(const char *path, const void *p, size_t n)
{
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(p, 1, n, f), n);
	ck_assert_int_eq(fclose(f), 0);
	ck_assert_int_eq(chmod(path, 0644), 0);
}

static void
set_up(void)
{
	const char *tmp = getenv("TMPDIR");
	extern char **environ;
	char **e, name[64];

	/* None of the caller's. */
	for (e = environ; *e != NULL;) {
		if (strncmp(*e, "RESPOOL_", 8) != 0 ||
		    strcspn(*e, "=") >= sizeof name) {
			e++;
			continue;
		}
		snprintf(name, sizeof name, "%.*s", (int)strcspn(*e, "="), *e);
		unsetenv(name);
		e = environ;
	}
	snprintf(dir, sizeof dir, "%s/conf.XXXXXX", tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(chdir(dir), 0);
	ck_assert_ptr_nonnull(getcwd(dir, sizeof dir));
	snprintf(file, sizeof file, "%s/t.conf", dir);
	buf_init(&why, 65536);
}

static void
tear_down(void)
{
	buf_done(&why);
	unlink(file);
	ck_assert_int_eq(chdir("/"), 0);
	ck_assert_int_eq(rmdir(dir), 0);
}

static enum rs_err
load(const char *text, struct conf **ret)
{
	put_file(file, text, strlen(text));
	return conf_load(file, ret, &why);
}

static const char *
printed(const struct conf *c)
{
	static char text[65536];
	struct buf b;

	buf_init(&b, sizeof text - 1);
	conf_print(c, &b);
	ck_assert_int_eq(b.err, RS_OK);
	memcpy(text, b.data, b.len + 1);
	buf_done(&b);
	return text;
}

/* The file's text and a line that is printed then. */
static const struct { const char *text, *want; } goods[] = {
	{ "", "heartbeat = 15\n" },
	{ "heartbeat = 20\n", "heartbeat = 20\n" },
	{ "heartbeat=20", "heartbeat = 20\n" },
	{ "  heartbeat\t=   20  \n", "heartbeat = 20\n" },
	{ "heartbeat = 20\r\nttl = 60\r\n", "ttl = 60\n" },
	{ "# heartbeat = 2\n\n   # [x]\nheartbeat = 20 # two = 2\n#",
	    "heartbeat = 20\n" },
	{ "ttl = 60\n  heartbeat = 20\n", "heartbeat = 20\n" },
	{ "max_body_bytes = 2M\n", "max_body_bytes = 2097152\n" },
	{ "max_body_bytes = 16K\n", "max_body_bytes = 16384\n" },
	{ "max_stream_bytes = 1G\n", "max_stream_bytes = 1073741824\n" },
	{ "base_path = /a;b ;c\n", "base_path = /a;b ;c\n" },
	{ "base_path = /a=b:c\n", "base_path = /a=b:c\n" },
	{ "base_path = /a#b\n", "base_path = /a#b\n" },
	{ "base_path = /\xc3\xa4\n", "base_path = /\xc3\xa4\n" },
	{ "base_path =\n", "base_path =\n" },
	{ "base_path = # nothing\n", "base_path =\n" },
	{ "cors_origins = https://a.example  http://b.example:8080\n",
	    "cors_origins = https://a.example  http://b.example:8080\n" },
	{ "trusted_proxies = 10.0.0.1 fd00::/8\n",
	    "trusted_proxies = 10.0.0.1 fd00::/8\n" },
	{ "day_zone = UTC\n", "day_zone = UTC\n" },
	{ "owner_max_cost = 0.5\n", "owner_max_cost = 0.5\n" },
	{ "log_level = debug\n", "log_level = debug\n" },
	{ "spool_shared_fs = one-host\n", "spool_shared_fs = one-host\n" },
	{ "models_file = \n", "models_file =\n" },
	{ "spool_dir = /srv/spool\n", "spool_dir = /srv/spool\n" },
	{ "max_connection = 0\n", "max_connection = 0\n" },
	{ "max_connection = auto\n", "max_connection = auto\n" },
	{ "max_connection = 86400\n", "max_connection = 86400\n" },
	{ "flush_by_close = yes\n", "flush_by_close = yes\n" },
	{ "heartbeat = 0020\n", "heartbeat = 20\n" },
};

START_TEST(a_good_file_is_read)
{
	struct conf *c = NULL;

	ck_assert_msg(load(goods[_i].text, &c) == RS_OK, "%s", why.data);
	ck_assert_uint_eq(why.len, 0);
	ck_assert_ptr_nonnull(strstr(printed(c), goods[_i].want));
	conf_free(c);
}
END_TEST

#define X10 "xxxxxxxxxx"
#define X100 X10 X10 X10 X10 X10 X10 X10 X10 X10 X10

/* The file's text and all faults, each without "FILE:". */
static const struct { const char *text, *want; } bads[] = {
	{ "heartbeat = 0\n",
	    "1: heartbeat must be a number of seconds from 1 to 300\n" },
	{ "\n#\nheartbeat = 301\n",
	    "3: heartbeat must be a number of seconds from 1 to 300\n" },
	{ "heartbeat =\n",
	    "1: heartbeat must be a number of seconds from 1 to 300\n" },
	{ "heartbeat = -5\n",
	    "1: heartbeat must be a number of seconds from 1 to 300\n" },
	{ "heartbeat = 5s\n",
	    "1: heartbeat must be a number of seconds from 1 to 300\n" },
	{ "heartbeat = 1K\n",
	    "1: heartbeat must be a number of seconds from 1 to 300\n" },
	{ "heartbeat = 18446744073709551617\n",
	    "1: heartbeat must be a number of seconds from 1 to 300\n" },
	{ "heartbeat = 5 ; old\n",
	    "1: heartbeat must be a number of seconds from 1 to 300\n" },
	{ "max_connection = soon\n", "1: max_connection must be auto or "
	    "a number of seconds from 0 to 86400\n" },
	{ "max_connection = 18446744073709551615\n", "1: max_connection must "
	    "be auto or a number of seconds from 0 to 86400\n" },
	{ "flush_by_close = on\n", "1: flush_by_close must be yes or no\n" },
	{ "max_streams = 10 20\n",
	    "1: max_streams must be a number from 1 to 100000\n" },
	{ "max_body_bytes = 17179869184G\n",
	    "1: max_body_bytes must be a number of bytes (K, M, G) from 1024 "
	    "to 16777216\n" },
	{ "max_body_bytes = 2MB\n",
	    "1: max_body_bytes must be a number of bytes (K, M, G) from 1024 "
	    "to 16777216\n" },
	{ "max_body_bytes = K\n",
	    "1: max_body_bytes must be a number of bytes (K, M, G) from 1024 "
	    "to 16777216\n" },
	{ "spool_dir =\n", "1: spool_dir must have 1 to 4000 bytes\n" },
	{ "auth =\n", "1: auth must be none, remote_user or jwt\n" },
	{ "syslog = true\n", "1: syslog must be yes or no\n" },
	{ "jwt_cookie = a b\n",
	    "1: jwt_cookie must be a name, without spaces and ; or =\n" },
	{ "jwt_parameter = a=b\n",
	    "1: jwt_parameter must be a name, without spaces and ; or =\n" },
	{ "\nauth = jwt\n", "2: auth = jwt needs a jwt_key_file\n" },
	{ "base_path = /" X100 X100 X10 X10 X10 X10 X10 "xxxxx\n",
	    "1: base_path must have 0 to 255 bytes\n" },
	{ "cors_origins = https://a.example/\n",
	    "1: cors_origins must hold origins with a host and a port at "
	    "most, in lower case, with spaces between them\n" },
	{ "cors_origins = https://a.example,https://b.example\n",
	    "1: cors_origins must hold origins with a host and a port at "
	    "most, in lower case, with spaces between them\n" },
	{ "cors_origins = a.example\n",
	    "1: cors_origins must hold origins as https://host or "
	    "http://host:port, or *\n" },
	{ "trusted_proxies = 10.0.0.0/33\n",
	    "1: trusted_proxies: 10.0.0.0/33 is no address and no network as "
	    "10.0.0.0/8\n" },
	{ "metrics_from = ::1 localhost\n",
	    "1: metrics_from: localhost is no address and no network as "
	    "10.0.0.0/8\n" },
	{ "auth = basic\n", "1: auth must be none, remote_user or jwt\n" },
	{ "day_zone = Europe/Atlantis\n",
	    "1: day_zone must be a file below /usr/share/zoneinfo, as in "
	    "Europe/Berlin\n" },
	{ "day_zone = ../../../etc/localtime\n",
	    "1: day_zone must be a file below /usr/share/zoneinfo, as in "
	    "Europe/Berlin\n" },
	{ "day_zone = tzdata.zi\n",
	    "1: day_zone must be a file below /usr/share/zoneinfo, as in "
	    "Europe/Berlin\n" },
	{ "jwt_algorithm = HS512\n",
	    "1: jwt_algorithm must be HS256, RS256 or ES256\n" },
	{ "cors_origins = * https://a.example\n",
	    "1: cors_origins must be * alone, or a list without it\n" },
	{ "base_path = chat\n",
	    "1: base_path must begin with / and not end with one\n" },
	{ "base_path = /chat/\n",
	    "1: base_path must begin with / and not end with one\n" },
	{ "log_level = loud\n",
	    "1: log_level must be error, warn, info or debug\n" },
	{ "spool_shared_fs = yes\n",
	    "1: spool_shared_fs must be no or one-host\n" },
	{ "ttl = 60\nttl = 60\n", "2: ttl is set in line 1 already\n" },
	{ "Ttl = 60\n", "1: there is no setting Ttl\n" },
	{ "tt l = 60\n", "1: there is no setting tt l\n" },
	{ "; ttl = 60\n", "1: there is no setting ; ttl\n" },
	{ "[spool]\nttl = 60\n", "1: there are no sections in this file\n" },
	{ "ttl = 60\n[spool\n", "2: there are no sections in this file\n" },
	{ "ttl\n", "1: expected name = value\n" },
	{ "ttl # = 60\n", "1: expected name = value\n" },
	{ "ttl: 60\n", "1: expected name = value\n" },
	{ "base_path: a=b\n", "1: expected name = value\n" },
	{ "= 60\n", "1: expected name = value\n" },
	{ "ttl = 60\n  more\n", "2: expected name = value\n" },
	{ "base_path = /a\001b\n", "1: the line has a control character\n" },
	{ "base_path = /a\rb\n", "1: the line has a control character\n" },
	{ "nope = 1\nttl = x\nheartbeat = 5\n[]\nttl = 60\n",
	    "1: there is no setting nope\n"
	    "2: ttl must be a number of seconds from 1 to 31536000\n"
	    "4: there are no sections in this file\n"
	    "5: ttl is set in line 2 already\n" },
};

START_TEST(each_fault_is_told_with_its_line)
{
	struct conf *c = NULL;
	const char *want = bads[_i].want, *got;
	size_t n;

	ck_assert_int_eq(load(bads[_i].text, &c), RS_EINVAL);
	ck_assert_ptr_null(c);
	for (got = why.data; *want != '\0'; want += n, got += n) {
		ck_assert(strncmp(got, file, strlen(file)) == 0);
		got += strlen(file) + 1;
		n = strcspn(want, "\n") + 1;
		ck_assert_msg(strncmp(got, want, n) == 0, "%s", why.data);
	}
	ck_assert_str_eq(got, "");
}
END_TEST

START_TEST(a_nul_is_a_fault)
{
	static const char text[] = "ttl = 6\0" "0\n";
	struct conf *c = NULL;

	put_file(file, text, sizeof text - 1);
	ck_assert_int_eq(conf_load(file, &c, &why), RS_EINVAL);
	ck_assert_ptr_nonnull(strstr(why.data, ":1: the line has a control"));
}
END_TEST

/* Lines around every limit: no length makes two lines of one. */
static const size_t lengths[] = { 190, 197, 198, 199, 200, 201, 3990, 4000,
    4001, 8176, 8177, 8178, 8188, 8189, 8190, 8191, 8192, 8193, 100000 };

START_TEST(a_long_line_is_whole_or_a_fault)
{
	size_t n = lengths[_i];
	char *text = malloc(n + 64);
	struct conf *c = NULL;
	enum rs_err err;

	strcpy(text, "spool_dir = /");
	memset(text + 13, 'x', n - 1);
	strcpy(text + 12 + n, "\nttl = 60\n");
	err = load(text, &c);
	if (n <= 4000) {
		ck_assert_int_eq(err, RS_OK);
		ck_assert_uint_eq(strlen(c->spool_dir), n);
		ck_assert_uint_eq(c->ttl, 60);
	} else {
		ck_assert_int_eq(err, RS_EINVAL);
		ck_assert_ptr_nonnull(strstr(why.data, n + 12 <= 8189 ?
		    ":1: spool_dir must have 1 to 4000 bytes\n" :
		    ":1: the line is too long\n"));
		ck_assert_ptr_eq(strchr(why.data, '\n'),
		    why.data + why.len - 1);
	}
	conf_free(c);
	free(text);
}
END_TEST

START_TEST(a_long_comment_is_no_fault)
{
	char text[20000];
	struct conf *c = NULL;

	memset(text, 'x', sizeof text);
	text[0] = '#';
	strcpy(text + sizeof text - 20, "\nttl = 60\n");
	ck_assert_int_eq(load(text, &c), RS_OK);
	ck_assert_uint_eq(c->ttl, 60);
	conf_free(c);
}
END_TEST

START_TEST(the_defaults_are_those_of_the_table)
{
	struct conf *c = NULL;

	ck_assert_int_eq(load("", &c), RS_OK);
	ck_assert_str_eq(c->spool_dir, SPOOL_DIR);
	ck_assert_str_eq(c->static_dir, STATIC_DIR);
	ck_assert_str_eq(c->models_file, "");
	ck_assert_str_eq(c->cors_origins, "*");
	ck_assert_uint_eq(c->ttl, 86400);
	ck_assert_int_eq(c->level, LOGL_INFO);
	ck_assert_str_eq(c->file, file);
	ck_assert_uint_eq(strlen(c->hash), 64);
	conf_free(c);
}
END_TEST

START_TEST(the_environment_wins_over_the_file)
{
	struct conf *c = NULL;

	setenv("RESPOOL_TTL", " 90 ", 1);
	setenv("RESPOOL_LOG_LEVEL", "warn", 1);
	ck_assert_int_eq(load("ttl = 60\nheartbeat = 7\n", &c), RS_OK);
	ck_assert_uint_eq(c->ttl, 90);
	ck_assert_uint_eq(c->heartbeat, 7);
	ck_assert_int_eq(c->level, LOGL_WARN);
	conf_free(c);
}
END_TEST

static const struct { const char *name, *value, *want; } envs[] = {
	{ "RESPOOL_TTL", "", "RESPOOL_TTL: ttl must be a number of seconds "
	    "from 1 to 31536000\n" },
	{ "RESPOOL_LOG_LEVEL", "LOUD", "RESPOOL_LOG_LEVEL: log_level must be "
	    "error, warn, info or debug\n" },
	{ "RESPOOL_BASE_PATH", "/a\n/b", "RESPOOL_BASE_PATH: must have no "
	    "control character and no # that would begin a comment\n" },
	{ "RESPOOL_SPOOL_DIR", "/a #1", "RESPOOL_SPOOL_DIR: must have no "
	    "control character and no # that would begin a comment\n" },
	{ "RESPOOL_SPOOL_DIR", "#1", "RESPOOL_SPOOL_DIR: must have no "
	    "control character and no # that would begin a comment\n" },
	{ "RESPOOL_SPOOL_DIR", " ", "RESPOOL_SPOOL_DIR: spool_dir must have 1 "
	    "to 4000 bytes\n" },
};

START_TEST(a_fault_in_the_environment_is_told_with_the_variable)
{
	struct conf *c = NULL;

	setenv(envs[_i].name, envs[_i].value, 1);
	ck_assert_int_eq(load("", &c), RS_EINVAL);
	ck_assert_str_eq(why.data, envs[_i].want);
}
END_TEST

START_TEST(an_unknown_variable_is_a_warning)
{
	struct conf *c = NULL;

	setenv("RESPOOL_TTTL", "5", 1);
	setenv("RESPOOL_ttl", "5", 1);
	setenv("RESPOOL_TTL", "5", 1);
	setenv("RESPOOL_CONFIG", "/nowhere", 1);
	ck_assert_int_eq(load("", &c), RS_OK);
	ck_assert_ptr_nonnull(strstr(why.data,
	    "RESPOOL_TTTL: there is no such setting\n"));
	ck_assert_ptr_nonnull(strstr(why.data,
	    "RESPOOL_ttl: there is no such setting\n"));
	ck_assert_ptr_null(strstr(why.data, "TTL: there is no such setting\n"
	    "RESPOOL_TTL"));
	ck_assert_ptr_null(strstr(why.data, "CONFIG"));
	conf_free(c);
}
END_TEST

START_TEST(relative_paths_begin_at_the_file_or_the_working_directory)
{
	static const char text[] = "models_file = m.json\nspool_dir = ../s\n"
	    "log_file =\nbase_path = /b\n";
	struct conf *c = NULL;
	char want[700];

	ck_assert_int_eq(mkdir("etc", 0755), 0);
	put_file("etc/t.conf", text, strlen(text));
	setenv("RESPOOL_STATIC_DIR", "www", 1);
	setenv("RESPOOL_CONFIG", "etc/t.conf", 1);
	ck_assert_msg(conf_load(NULL, &c, &why) == RS_OK, "%s", why.data);
	snprintf(want, sizeof want, "%s/etc/t.conf", dir);
	ck_assert_str_eq(c->file, want);
	snprintf(want, sizeof want, "%s/etc/m.json", dir);
	ck_assert_str_eq(c->models_file, want);
	snprintf(want, sizeof want, "%s/etc/../s", dir);
	ck_assert_str_eq(c->spool_dir, want);
	snprintf(want, sizeof want, "%s/www", dir);
	ck_assert_str_eq(c->static_dir, want);
	ck_assert_str_eq(c->log_file, "");
	ck_assert_str_eq(c->base_path, "/b");
	conf_free(c);
	unlink("etc/t.conf");
	rmdir("etc");
}
END_TEST

START_TEST(a_path_that_becomes_too_long_is_a_fault)
{
	char text[4100];
	struct conf *c = NULL;

	strcpy(text, "log_file = ");
	memset(text + 11, 'x', 3999);
	text[11 + 3999] = '\0';
	ck_assert_int_eq(load(text, &c), RS_EINVAL);
	ck_assert_ptr_nonnull(strstr(why.data, ":1: log_file must have 0 to"));
}
END_TEST

static const mode_t modes[] = { 0664, 0646, 0620, 0602, 0666, 0777 };

START_TEST(a_file_that_others_can_write_is_refused)
{
	struct conf *c = NULL;

	put_file(file, "ttl = 60\n", 9);
	ck_assert_int_eq(chmod(file, modes[_i]), 0);
	ck_assert_int_eq(conf_load(file, &c, &why), RS_EPERM);
	ck_assert_ptr_null(c);
	ck_assert_ptr_nonnull(strstr(why.data,
	    "group or others can write it"));
}
END_TEST

START_TEST(a_named_file_must_exist_and_be_a_file)
{
	struct conf *c = NULL;

	ck_assert_int_eq(conf_load("nowhere.conf", &c, &why), RS_ENOENT);
	ck_assert_ptr_nonnull(strstr(why.data, "/nowhere.conf: No such file"));
	buf_clear(&why);
	setenv("RESPOOL_CONFIG", dir, 1);
	ck_assert_int_eq(conf_load(NULL, &c, &why), RS_EINVAL);
	ck_assert_ptr_nonnull(strstr(why.data, ": not a regular file\n"));
	buf_clear(&why);
	ck_assert_int_eq(mkfifo(file, 0600), 0);
	ck_assert_int_eq(conf_load(file, &c, &why), RS_EINVAL);
	ck_assert_ptr_nonnull(strstr(why.data, ": not a regular file\n"));
	ck_assert_ptr_null(c);
}
END_TEST

START_TEST(a_file_over_a_mebibyte_is_refused)
{
	struct conf *c = NULL;

	put_file(file, "#\n", 2);
	ck_assert_int_eq(truncate(file, (1 << 20) + 1), 0);
	ck_assert_int_eq(conf_load(file, &c, &why), RS_ETOOBIG);
	ck_assert_uint_gt(why.len, strlen(file));
}
END_TEST

START_TEST(what_is_printed_can_be_read_and_has_the_same_hash)
{
	struct conf *a = NULL, *b = NULL, *other = NULL;
	char text[65536];

	setenv("RESPOOL_SPOOL_DIR", "here", 1);
	ck_assert_int_eq(load("max_body_bytes = 64K\nmodels_file = m\n"
	    "base_path = /a ;b=[c]#d\nlog_level = error\n", &a), RS_OK);
	strcpy(text, printed(a));
	unsetenv("RESPOOL_SPOOL_DIR");
	ck_assert_int_eq(load(text, &b), RS_OK);
	ck_assert_str_eq(printed(b), text);
	ck_assert_str_eq(a->hash, b->hash);
	ck_assert_int_eq(load("max_body_bytes = 65537\n", &other), RS_OK);
	ck_assert_str_ne(a->hash, other->hash);
	conf_free(a);
	conf_free(b);
	conf_free(other);
}
END_TEST

/* Every prefix of a file is read or refused, and read no further. */
static const char torn[] = "\xef\xbb\xbfttl = 60 # x\n[s]\r\n a: b\n"
    "heartbeat = 20\n\t= #\n\0\n\xff = \xfe\n log_level=debug";

START_TEST(a_file_may_be_cut_anywhere)
{
	struct conf *c = NULL;

	put_file(file, torn, (size_t)_i);
	if (conf_load(file, &c, &why) == RS_OK)
		ck_assert_uint_eq(why.len, 0);
	conf_free(c);
}
END_TEST

static const struct { const char *words, *word; bool want; } words[] = {
	{ "a b c", "a", true }, { "a b c", "b", true },
	{ "a b c", "c", true }, { "  a\t b  ", "b", true },
	{ "abc", "ab", false }, { "ab", "abc", false }, { "a b", "", false },
	{ "", "", false }, { "", "a", false }, { "a b", "a b", false },
	{ "*", "*", true },
};

START_TEST(a_word_is_found_whole)
{
	ck_assert(conf_has_word(words[_i].words, words[_i].word) ==
	    words[_i].want);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("conf");
	TCase *tc = tcase_create("conf");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_loop_test(tc, a_good_file_is_read, 0, COUNT(goods));
	tcase_add_loop_test(tc, each_fault_is_told_with_its_line, 0,
	    COUNT(bads));
	tcase_add_test(tc, a_nul_is_a_fault);
	tcase_add_loop_test(tc, a_long_line_is_whole_or_a_fault, 0,
	    COUNT(lengths));
	tcase_add_test(tc, a_long_comment_is_no_fault);
	tcase_add_test(tc, the_defaults_are_those_of_the_table);
	tcase_add_test(tc, the_environment_wins_over_the_file);
	tcase_add_loop_test(tc,
	    a_fault_in_the_environment_is_told_with_the_variable, 0,
	    COUNT(envs));
	tcase_add_test(tc, an_unknown_variable_is_a_warning);
	tcase_add_test(tc,
	    relative_paths_begin_at_the_file_or_the_working_directory);
	tcase_add_test(tc, a_path_that_becomes_too_long_is_a_fault);
	tcase_add_loop_test(tc, a_file_that_others_can_write_is_refused, 0,
	    COUNT(modes));
	tcase_add_test(tc, a_named_file_must_exist_and_be_a_file);
	tcase_add_test(tc, a_file_over_a_mebibyte_is_refused);
	tcase_add_test(tc, what_is_printed_can_be_read_and_has_the_same_hash);
	tcase_add_loop_test(tc, a_file_may_be_cut_anywhere, 0, COUNT(torn));
	tcase_add_loop_test(tc, a_word_is_found_whole, 0, COUNT(words));
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
