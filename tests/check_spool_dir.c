/* check_spool_dir.c - what a spool may be, names, and heads. */
#include "spool_fixture.h"
#include "../src/spool_impl.h"

static char long_id[66], long_owner[200];

static const struct {
	const char *id;
	size_t len;
	bool want;
} ids[] = {
	{ "a", 1, true }, { "Z", 1, true }, { "0", 1, true },
	{ "_", 1, true }, { "-", 1, true }, { "a-b_C9", 6, true },
	{ "", 0, false }, { ".", 1, false }, { "..", 2, false },
	{ "../../etc/passwd", 16, false }, { "a/b", 3, false },
	{ "a\0b", 3, false }, { "a\n", 2, false }, { "a b", 3, false },
	{ "\xc3\xa4", 2, false }, { "a%2e", 4, false }, { "\x7f", 1, false },
	{ long_id, 64, true }, { long_id, 65, false },
};

START_TEST(an_id_is_1_to_64_harmless_bytes)
{
	ck_assert_int_eq(spool_id_valid(ids[_i].id, ids[_i].len),
	    ids[_i].want);
}
END_TEST

static const struct {
	const char *owner;
	size_t len;
	bool want;
} owners[] = {
	{ "a", 1, true }, { "../x", 4, true }, { "J\xc3\xb6rg", 5, true },
	{ "\xf0\x9f\x98\x80", 4, true }, { " ", 1, true },
	{ "", 0, false }, { "a\0", 2, false }, { "a\n", 2, false },
	{ "\x1f", 1, false }, { "\x7f", 1, false },
	{ "\xc2\x80", 2, false }, { "\xc2\x9f", 2, false },
	{ "\xc2\xa0", 2, true }, { "\xc2", 1, false }, { "\xff", 1, false },
	{ "\xed\xa0\x80", 3, false },
	{ long_owner, 128, true }, { long_owner, 129, false },
};

START_TEST(an_owner_is_1_to_128_bytes_of_text)
{
	ck_assert_int_eq(spool_owner_valid(owners[_i].owner, owners[_i].len),
	    owners[_i].want);
}
END_TEST

START_TEST(a_key_survives_its_file_name)
{
	struct stream_key k, back;
	char name[SPOOL_NAME_SIZE];

	long_id[64] = '\0';
	stream_key(&k, "alice", long_id);
	long_id[64] = 'x';
	stream_file_name(&k, name);
	ck_assert_uint_eq(strlen(name), SPOOL_NAME_SIZE - 1);
	ck_assert_int_eq(stream_key_parse(name, &back), RS_OK);
	ck_assert_mem_eq(&k, &back, sizeof k);
}
END_TEST

START_TEST(equal_ids_of_two_owners_have_two_names)
{
	struct stream_key a, b;

	stream_key(&a, "alice", "s");
	stream_key(&b, "bob", "s");
	ck_assert_str_ne(a.owner_hash, b.owner_hash);
}
END_TEST

static const char *const not_names[] = {
	"", ".", "..", ".tmp-0123456789abcdef", "0123456789abcdef-.sse",
	"0123456789abcdef-a.sse ", "0123456789abcdef-a.ssx",
	"0123456789ABCDEF-a.sse", "0123456789abcde-a.sse",
	"0123456789abcdef0-a.sse", "0123456789abcdef_a.sse",
	"0123456789abcdef-a/b.sse", "0123456789abcdef-a.b.sse",
	("0123456789abcdef-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	"aaaaaaaaaaaaa.sse"),
};

START_TEST(what_is_no_streams_name_has_no_key)
{
	struct stream_key k;

	ck_assert_int_eq(stream_key_parse(not_names[_i], &k), RS_EINVAL);
}
END_TEST

START_TEST(a_head_survives_and_is_one_line)
{
	struct stream_head h = fx_head(), back;
	struct buf b;
	size_t size = 0;

	h.created_ms = INT64_MAX;
	memset(h.owner, '"', SPOOL_OWNER_MAX);
	memset(h.model, '\\', MODEL_NAME_MAX);
	buf_init(&b, SPOOL_HEAD_MAX);
	stream_head_encode(&b, &h);
	ck_assert_int_eq(b.err, RS_OK);
	ck_assert_int_eq(strncmp(b.data, ": respool1 {", 12), 0);
	ck_assert_ptr_eq(strchr(b.data, '\n'), b.data + b.len - 2);
	buf_puts(&b, "event: x");
	ck_assert_int_eq(stream_head_decode(b.data, b.len, &back, &size),
	    RS_OK);
	ck_assert_uint_eq(size, b.len - 8);
	ck_assert_str_eq(back.owner, h.owner);
	ck_assert_str_eq(back.model, h.model);
	ck_assert_int_eq(back.created_ms, h.created_ms);
	ck_assert_str_eq(back.request, h.request);
	ck_assert_str_eq(back.host, h.host);
	ck_assert_str_eq(back.boot, h.boot);
	ck_assert_str_eq(back.socket, h.socket);
	buf_done(&b);
}
END_TEST

START_TEST(a_head_cut_or_broken_anywhere_is_corrupt_or_valid_never_more)
{
	static const unsigned char flips[] = { 0x01, 0x80, 0xff };
	struct stream_head h = fx_head(), back;
	struct buf b;
	size_t size = 12345;

	h.created_ms = 1;
	buf_init(&b, SPOOL_HEAD_MAX);
	stream_head_encode(&b, &h);
	for (size_t n = 0; n < b.len; n++) {
		char *cut = malloc(n + 1); /* for the sanitizers */

		memcpy(cut, b.data, n);
		ck_assert_int_eq(stream_head_decode(cut, n, &back, &size),
		    RS_ECORRUPT);
		free(cut);
	}
	ck_assert_uint_eq(size, 12345);
	for (size_t i = 0; i < b.len; i++)
		for (size_t j = 0; j < sizeof flips; j++) {
			b.data[i] = (char)(b.data[i] ^ flips[j]);
			if (stream_head_decode(b.data, b.len, &back, &size) ==
			    RS_OK) {
				ck_assert_uint_eq(size, b.len);
				ck_assert(spool_owner_valid(back.owner,
				    strlen(back.owner)));
			}
			b.data[i] = (char)(b.data[i] ^ flips[j]);
		}
	buf_done(&b);
}
END_TEST

#define REST "\"request\":\"\",\"host\":\"\",\"boot\":\"\",\"socket\":\"\""
static const struct {
	const char *json;
	enum rs_err want;
} heads[] = {
	{ "{\"owner\":\"a\",\"model\":\"m\",\"dialect\":\"stream\","
	    "\"created\":1," REST "}", RS_OK },
	{ "{\"owner\":\"a\",\"model\":\"m\",\"dialect\":\"stream\","
	    "\"created\":1,\"later\":[1]," REST "}", RS_OK },
	{ "{\"owner\":\"a\",\"model\":\"m\",\"dialect\":\"nonsense\","
	    "\"created\":1," REST "}", RS_ECORRUPT },
	{ "{\"owner\":\"a\",\"model\":\"m\",\"dialect\":\"stream\","
	    "\"created\":-1," REST "}", RS_ECORRUPT },
	{ "{\"owner\":\"a\",\"model\":\"m\",\"dialect\":\"stream\","
	    "\"created\":9223372036854775808," REST "}", RS_ECORRUPT },
	{ "{\"owner\":\"a\",\"model\":\"m\",\"dialect\":\"stream\","
	    "\"created\":\"1\"," REST "}", RS_ECORRUPT },
	{ "{\"owner\":\"a\\u0000b\",\"model\":\"m\",\"dialect\":\"stream\","
	    "\"created\":1," REST "}", RS_ECORRUPT },
	{ "{\"owner\":\"\",\"model\":\"m\",\"dialect\":\"stream\","
	    "\"created\":1," REST "}", RS_ECORRUPT },
	{ "{\"owner\":\"a\",\"dialect\":\"stream\","
	    "\"created\":1," REST "}", RS_ECORRUPT },
	{ "{\"owner\":\"a\",\"model\":\"m\",\"dialect\":\"stream\","
	    "\"created\":1,\"request\":\"\",\"host\":\"\",\"boot\":\"\","
	    "\"socket\":\"123456789012345678901234\"}", RS_ECORRUPT },
	{ "[]", RS_ECORRUPT }, { "1", RS_ECORRUPT }, { "", RS_ECORRUPT },
	{ "{}", RS_ECORRUPT }, { "{}{}", RS_ECORRUPT },
};

START_TEST(a_head_must_say_all_of_it)
{
	struct stream_head back;
	char p[1000];
	size_t size;
	int n;

	n = snprintf(p, sizeof p, ": respool1 %s\n\n", heads[_i].json);
	ck_assert_int_eq(stream_head_decode(p, (size_t)n, &back, &size),
	    heads[_i].want);
}
END_TEST

/* ---- opening ---- */

static enum rs_err
open_why(struct spool **ret)
{
	struct buf why;
	enum rs_err err;

	buf_init(&why, 4096);
	err = spool_open(&fx_conf, ret, &why);
	if (err == RS_OK)
		ck_assert_uint_eq(why.len, 0);
	else
		ck_assert_uint_gt(why.len, 10);
	buf_done(&why);
	return err;
}

static const struct {
	mode_t mode;
	enum rs_err want;
} modes[] = {
	{ 0700, RS_OK }, { 0750, RS_OK }, { 0755, RS_OK },
	{ 0770, RS_EPERM }, { 0707, RS_EPERM }, { 0702, RS_EPERM },
	{ 0720, RS_EPERM }, { 0777, RS_EPERM }, { 01777, RS_EPERM },
};

START_TEST(a_spool_that_others_can_write_to_is_refused)
{
	struct spool *sp = NULL;

	ck_assert_int_eq(chmod(fx_dir, modes[_i].mode), 0);
	ck_assert_int_eq(open_why(&sp), modes[_i].want);
	spool_close(sp);
}
END_TEST

START_TEST(streams_that_others_can_write_to_are_refused)
{
	struct spool *sp = NULL;
	char path[sizeof fx_dir + 16];

	snprintf(path, sizeof path, "%s/streams", fx_dir);
	ck_assert_int_eq(chmod(path, 0722), 0);
	ck_assert_int_eq(open_why(&sp), RS_EPERM);
}
END_TEST

START_TEST(a_link_in_the_place_of_streams_is_refused)
{
	struct spool *sp = NULL;
	char path[sizeof fx_dir + 16];

	snprintf(path, sizeof path, "%s/streams", fx_dir);
	ck_assert_int_eq(rmdir(path), 0);
	ck_assert_int_eq(symlink("/tmp", path), 0);
	ck_assert_int_eq(open_why(&sp), RS_ECORRUPT);
}
END_TEST

START_TEST(a_missing_spool_is_made_for_its_user_alone)
{
	char path[sizeof fx_dir + 16];
	struct spool *sp;
	struct stat st;

	snprintf(path, sizeof path, "%s/new", fx_dir);
	fx_conf.spool_dir = path;
	ck_assert_int_eq(open_why(&sp), RS_OK);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0700);
	ck_assert_uint_eq(sp->uid, geteuid());
	ck_assert_uint_eq(sp->ttl_ms, TTL_S * 1000);
	ck_assert_uint_gt(strlen(sp->host), 0);
	spool_close(sp);
	snprintf(path, sizeof path, "%s/no/such", fx_dir);
	ck_assert_int_eq(open_why(&sp), RS_ENOENT);
	snprintf(path, sizeof path, "/dev/null");
	ck_assert_int_ne(open_why(&sp), RS_OK);
}
END_TEST

START_TEST(a_spool_is_ready_while_it_can_be_written_to)
{
	char path[sizeof fx_dir + 16];
	struct spool *sp;
	struct stat st;

	snprintf(path, sizeof path, "%s/new", fx_dir);
	fx_conf.spool_dir = path;
	ck_assert_int_eq(open_why(&sp), RS_OK);
	ck_assert_int_eq(spool_ready(sp, 0), RS_OK);
	ck_assert_int_eq(spool_ready(sp, 65536), RS_OK);
	ck_assert_int_eq(spool_ready(sp, UINT64_MAX), RS_ENOSPC);
	ck_assert_int_eq(fstat(sp->streams_fd, &st), 0);
	ck_assert_int_eq(fchmod(sp->streams_fd, 0500), 0);
	if (geteuid() != 0) /* who may everywhere */
		ck_assert_int_eq(spool_ready(sp, 0), RS_EPERM);
	ck_assert_int_eq(fchmod(sp->streams_fd, st.st_mode & 07777), 0);
	ck_assert_int_eq(spool_ready(sp, 0), RS_OK);
	snprintf(path, sizeof path, "%s/new/streams", fx_dir);
	ck_assert_int_eq(rmdir(path), 0);
	ck_assert_int_eq(spool_ready(sp, 0), RS_ENOENT);
	spool_close(sp);
}
END_TEST

START_TEST(a_spool_of_somebody_else_is_refused_when_open_to_all)
{
	struct spool *sp;
	pid_t pid;
	int status;

	if (geteuid() != 0)
		return;
	ck_assert_int_eq(chmod(fx_dir, 0755), 0);
	if ((pid = fork()) == 0)
		_exit(setgid(65534) < 0 || setuid(65534) < 0 ||
		    open_why(&sp) != RS_EPERM);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(a_group_that_may_read_the_spool_may_read_what_is_made_in_it)
{
	char path[sizeof fx_dir + 200];
	struct stat st;

	umask(077);
	ck_assert_int_eq(chmod(fx_dir, 0750), 0);
	spool_close(fx_sp);
	fx_sp = fx_open();
	spool_writer_free(fx_create(&fx_key));
	snprintf(path, sizeof path, "%s", fx_path(&fx_key));
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0640);
	*strrchr(path, '/') = '\0';
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0750);
	ck_assert_int_eq(spool_delete(fx_sp, &fx_key), RS_OK);
	ck_assert_int_eq(stat(fx_path(&fx_key), &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0640);
}
END_TEST

static const struct {
	bool shared;
	const char *host, *boot;
	bool want;
} hosts[] = {
	{ true, "here", "b1", false }, { true, "here", "b2", false },
	{ true, "there", "b2", true }, { true, "there", "-", true },
	{ true, "there", "b1", false }, /* a container of this kernel */
	{ false, "there", "b2", false },
};

START_TEST(another_host_is_told_by_name_and_boot)
{
	struct spool sp = { .shared_fs = hosts[_i].shared, .host = "here",
	    .boot = "b1" };

	ck_assert_int_eq(spool_foreign(&sp, hosts[_i].host, hosts[_i].boot),
	    hosts[_i].want);
}
END_TEST

#define ROWS(a) (int)(sizeof(a) / sizeof *(a))

int
main(void)
{
	Suite *s = suite_create("spool_dir");
	TCase *tc = tcase_create("names");

	memset(long_id, 'x', 65);
	memset(long_owner, 'x', sizeof long_owner);
	tcase_add_loop_test(tc, an_id_is_1_to_64_harmless_bytes, 0, ROWS(ids));
	tcase_add_loop_test(tc, an_owner_is_1_to_128_bytes_of_text, 0,
	    ROWS(owners));
	tcase_add_test(tc, a_key_survives_its_file_name);
	tcase_add_test(tc, equal_ids_of_two_owners_have_two_names);
	tcase_add_loop_test(tc, what_is_no_streams_name_has_no_key, 0,
	    ROWS(not_names));
	tcase_add_test(tc, a_head_survives_and_is_one_line);
	tcase_add_test(tc,
	    a_head_cut_or_broken_anywhere_is_corrupt_or_valid_never_more);
	tcase_add_loop_test(tc, a_head_must_say_all_of_it, 0, ROWS(heads));
	tcase_add_loop_test(tc, another_host_is_told_by_name_and_boot, 0,
	    ROWS(hosts));
	suite_add_tcase(s, tc);

	tc = tcase_create("opening");
	tcase_add_checked_fixture(tc, fx_setup, fx_teardown);
	tcase_add_loop_test(tc, a_spool_that_others_can_write_to_is_refused,
	    0, ROWS(modes));
	tcase_add_test(tc, streams_that_others_can_write_to_are_refused);
	tcase_add_test(tc, a_link_in_the_place_of_streams_is_refused);
	tcase_add_test(tc, a_missing_spool_is_made_for_its_user_alone);
	tcase_add_test(tc, a_spool_is_ready_while_it_can_be_written_to);
	tcase_add_test(tc,
	    a_spool_of_somebody_else_is_refused_when_open_to_all);
	tcase_add_test(tc,
	    a_group_that_may_read_the_spool_may_read_what_is_made_in_it);
	suite_add_tcase(s, tc);
	return fx_run(s);
}
