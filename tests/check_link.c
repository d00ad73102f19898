/* check_link.c - read links, and the HMAC that they are made with */
#include "spool_fixture.h"
#include "link.h"

/* ---- HMAC ---- */

#define X20(s) s s s s s s s s s s s s s s s s s s s s
#define X50(s) X20(s) X20(s) s s s s s s s s s s
#define X131(s) X50(s) X50(s) X20(s) s s s s s s s s s s s

/* RFC 4231, 4.2 to 4.8. */
static const struct {
	const char *key, *data, *want;
	size_t len;	/* of want, in the RFC that cuts it */
} hmacs[] = {
	{ X20("\x0b"), "Hi There",
	    "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
	    64 },
	{ "Jefe", "what do ya want for nothing?",
	    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
	    64 },
	{ X20("\xaa"), X50("\xdd"),
	    "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
	    64 },
	{ "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10"
	    "\x11\x12\x13\x14\x15\x16\x17\x18\x19", X50("\xcd"),
	    "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
	    64 },
	{ X20("\x0c"), "Test With Truncation",
	    "a3b6167473100ee06e0c796c2955552b", 32 },
	{ X131("\xaa"), "Test Using Larger Than Block-Size Key - "
	    "Hash Key First",
	    "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
	    64 },
	{ X131("\xaa"), "This is a test using a larger than block-size key "
	    "and a larger than block-size data. The key needs to be hashed "
	    "before being used by the HMAC algorithm.",
	    "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
	    64 },
};

START_TEST(the_hmac_is_that_of_the_rfc)
{
	char got[SHA256_HEX_SIZE];

	hmac_sha256_hex(hmacs[_i].key, strlen(hmacs[_i].key), hmacs[_i].data,
	    strlen(hmacs[_i].data), got);
	ck_assert_uint_eq(strlen(got), 64);
	got[hmacs[_i].len] = '\0';
	ck_assert_str_eq(got, hmacs[_i].want);
}
END_TEST

/* ---- links ---- */

#define EXPIRES_S 2000000000
static char good[LINK_SIZE];	/* to fx_key's stream, until EXPIRES_S */

static void
setup(void)
{
	fx_setup();
	spool_writer_free(fx_create(&fx_key));
	ck_assert_int_eq(link_secret_make(fx_sp), RS_OK);
	ck_assert_int_eq(link_make(fx_sp, &fx_key, fx_head().created_ms,
	    EXPIRES_S, good), RS_OK);
}

static enum rs_err
open_at(const char *link, size_t len, const char *id, int64_t now_s)
{
	struct spool_reader r;
	enum rs_err err = link_open(fx_sp, link, len, id, now_s, &r);

	if (err == RS_OK) {
		ck_assert_str_eq(r.head.owner, "alice");
		spool_reader_done(&r);
	}
	return err;
}

static enum rs_err
open_now(const char *link)
{
	return open_at(link, strlen(link), fx_key.id, 1900000000);
}

START_TEST(a_link_opens_its_stream_until_it_expires)
{
	ck_assert_uint_eq(strspn(good, "0123456789abcdef."), strlen(good));
	ck_assert_int_eq(open_now(good), RS_OK);
	ck_assert_int_eq(open_at(good, strlen(good), "s1", EXPIRES_S - 1),
	    RS_OK);
	ck_assert_int_eq(open_at(good, strlen(good), "s1", EXPIRES_S),
	    RS_ENOENT);
	ck_assert_int_eq(open_at(good, strlen(good), "s1", INT64_MAX),
	    RS_ENOENT);
}
END_TEST

START_TEST(a_link_does_not_show_whose_the_stream_is)
{
	char other[LINK_SIZE];

	ck_assert_ptr_null(strstr(good, fx_key.owner_hash));
	/* Nor that two are of one owner. */
	ck_assert_int_eq(link_make(fx_sp, &fx_key, fx_head().created_ms,
	    EXPIRES_S + 1, other), RS_OK);
	ck_assert_int_ne(strncmp(strchr(good, '.'), strchr(other, '.'), 17),
	    0);
}
END_TEST

START_TEST(another_character_anywhere_and_it_is_no_link)
{
	static const char characters[] = "0123456789abcdefABCDEFgz.-_+ %\n";
	char bad[LINK_SIZE];
	size_t i, k;

	for (i = 0; i < strlen(good); i++) {
		for (k = 0; k < sizeof characters; k++) {
			memcpy(bad, good, sizeof bad);
			if (bad[i] == characters[k])
				continue;
			bad[i] = characters[k];
			ck_assert_int_eq(open_at(bad, strlen(good), "s1",
			    1900000000), RS_ENOENT);
		}
	}
}
END_TEST

START_TEST(a_link_that_is_cut_or_longer_is_none)
{
	char longer[LINK_SIZE + 2];
	size_t i;

	for (i = 0; i < strlen(good); i++) {
		ck_assert_int_eq(open_at(good, i, "s1", 1900000000),
		    RS_ENOENT);
		ck_assert_int_eq(open_now(good + i), i == 0 ? RS_OK :
		    RS_ENOENT);
	}
	snprintf(longer, sizeof longer, "%s0", good);
	ck_assert_int_eq(open_now(longer), RS_ENOENT);
	snprintf(longer, sizeof longer, "0%s", good);
	ck_assert_int_eq(open_now(longer), RS_ENOENT);
	ck_assert_int_eq(open_at(good, strlen(good) + 1, "s1", 1900000000),
	    RS_ENOENT);
}
END_TEST

static const char *const nonsense[] = { "", ".", "..", "...", "a.b.c",
    "ffffffffffffffffff.0.0",
    "1.0123456789abcdef.0123456789abcdef0123456789abcdef",
    "ffffffffffffffff.0123456789abcdef.0123456789abcdef0123456789abcdef" };

START_TEST(nonsense_is_no_link)
{
	ck_assert_int_eq(open_now(nonsense[_i]), RS_ENOENT);
}
END_TEST

START_TEST(a_link_opens_no_other_stream)
{
	struct stream_key k;

	/* Of the same owner, and of the same moment. */
	stream_key(&k, "alice", "s2");
	spool_writer_free(fx_create(&k));
	ck_assert_int_eq(open_at(good, strlen(good), "s2", 1900000000),
	    RS_ENOENT);
}
END_TEST

START_TEST(a_link_dies_with_its_stream)
{
	struct stream_head later = fx_head();
	struct spool_writer *w;

	ck_assert_int_eq(spool_delete(fx_sp, &fx_key), RS_OK);
	ck_assert_int_eq(open_now(good), RS_ENOENT);
	ck_assert_int_eq(unlink(fx_path(&fx_key)), 0);
	later.created_ms++;
	ck_assert_int_eq(spool_create(fx_sp, &fx_key, &later, &w), RS_OK);
	spool_writer_free(w);
	ck_assert_int_eq(open_now(good), RS_ENOENT);
}
END_TEST

START_TEST(a_link_of_another_spool_is_none)
{
	char path[sizeof fx_dir + 32];

	snprintf(path, sizeof path, "%s/link.secret", fx_dir);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(link_secret_make(fx_sp), RS_OK);
	ck_assert_int_eq(open_now(good), RS_ENOENT);
}
END_TEST

/* ---- the secret ---- */

static void
secret_stat(struct stat *ret)
{
	char path[sizeof fx_dir + 32];

	snprintf(path, sizeof path, "%s/link.secret", fx_dir);
	ck_assert_int_eq(lstat(path, ret), 0);
}

START_TEST(the_secret_is_made_once_and_for_us_alone)
{
	struct stat before, after;

	secret_stat(&before);
	ck_assert_uint_eq(before.st_mode & 07777, 0600);
	ck_assert_int_eq(before.st_size, 32);
	ck_assert_int_eq(link_secret_make(fx_sp), RS_OK);
	secret_stat(&after);
	ck_assert_uint_eq(before.st_ino, after.st_ino);
	ck_assert_int_eq(open_now(good), RS_OK);
}
END_TEST

START_TEST(the_group_reads_the_secret_where_it_reads_the_spool)
{
	char path[sizeof fx_dir + 32];
	struct stat st;

	snprintf(path, sizeof path, "%s/link.secret", fx_dir);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(chmod(fx_dir, 0750), 0);
	spool_close(fx_sp);
	fx_sp = fx_open();
	umask(077);
	ck_assert_int_eq(link_secret_make(fx_sp), RS_OK);
	secret_stat(&st);
	ck_assert_uint_eq(st.st_mode & 07777, 0640);
}
END_TEST

START_TEST(what_a_spooler_left_that_died_is_in_nobodys_way)
{
	char path[sizeof fx_dir + 32], tmp[sizeof fx_dir + 32];

	snprintf(path, sizeof path, "%s/link.secret", fx_dir);
	snprintf(tmp, sizeof tmp, "%s/.link.secret", fx_dir);
	ck_assert_int_eq(rename(path, tmp), 0);
	ck_assert_int_eq(link_make(fx_sp, &fx_key, 0, EXPIRES_S, good),
	    RS_ENOENT);
	ck_assert_int_eq(open_now(good), RS_ENOENT);
	ck_assert_int_eq(link_secret_make(fx_sp), RS_OK);
	ck_assert_int_eq(access(tmp, F_OK), -1);
}
END_TEST

/* A short file, a long one, a link, a directory. */
START_TEST(what_is_no_secret_is_not_replaced)
{
	char path[sizeof fx_dir + 32];
	int fd;

	snprintf(path, sizeof path, "%s/link.secret", fx_dir);
	if (_i < 2) {
		fd = open(path, O_WRONLY | O_APPEND);
		ck_assert_int_ge(fd, 0);
		ck_assert_int_eq(_i == 0 ? ftruncate(fd, 31) :
		    (int)write(fd, "x", 1) - 1, 0);
		close(fd);
	} else {
		ck_assert_int_eq(unlink(path), 0);
		ck_assert_int_eq(_i == 2 ? symlink("/dev/zero", path) :
		    mkdir(path, 0700), 0);
	}
	ck_assert_int_eq(link_secret_make(fx_sp), RS_ECORRUPT);
	ck_assert_int_eq(link_make(fx_sp, &fx_key, 0, EXPIRES_S, good),
	    RS_ECORRUPT);
	ck_assert_int_eq(open_now(good), RS_ECORRUPT);
}
END_TEST

#define ROWS(a) (int)(sizeof(a) / sizeof(a)[0])

int
main(void)
{
	Suite *s = suite_create("link");
	TCase *tc = tcase_create("hmac");

	tcase_add_loop_test(tc, the_hmac_is_that_of_the_rfc, 0, ROWS(hmacs));
	suite_add_tcase(s, tc);
	tc = tcase_create("link");
	tcase_add_checked_fixture(tc, setup, fx_teardown);
	tcase_add_test(tc, a_link_opens_its_stream_until_it_expires);
	tcase_add_test(tc, a_link_does_not_show_whose_the_stream_is);
	tcase_add_test(tc, another_character_anywhere_and_it_is_no_link);
	tcase_add_test(tc, a_link_that_is_cut_or_longer_is_none);
	tcase_add_loop_test(tc, nonsense_is_no_link, 0, ROWS(nonsense));
	tcase_add_test(tc, a_link_opens_no_other_stream);
	tcase_add_test(tc, a_link_dies_with_its_stream);
	tcase_add_test(tc, a_link_of_another_spool_is_none);
	tcase_add_test(tc, the_secret_is_made_once_and_for_us_alone);
	tcase_add_test(tc,
	    the_group_reads_the_secret_where_it_reads_the_spool);
	tcase_add_test(tc, what_a_spooler_left_that_died_is_in_nobodys_way);
	tcase_add_loop_test(tc, what_is_no_secret_is_not_replaced, 0, 4);
	suite_add_tcase(s, tc);
	return fx_run(s);
}
