/* check_address.c - addresses, networks, and whose request it is. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "address.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

static const char *
hex(const struct address *a)
{
	static char text[33];
	size_t i;

	for (i = 0; i < sizeof a->bytes; i++)
		snprintf(text + 2 * i, 3, "%02x", a->bytes[i]);
	return text;
}

#define V4 "00000000000000000000ffff"

/* want NULL: it is none. */
static const struct {
	const char *text, *want;
} addresses[] = {
	{ "192.0.2.1", V4 "c0000201" },
	{ "0.0.0.0", V4 "00000000" },
	{ "255.255.255.255", V4 "ffffffff" },
	{ "192.0.2.1:8080", V4 "c0000201" },
	{ "192.0.2.1:", V4 "c0000201" },
	{ "::ffff:192.0.2.1", V4 "c0000201" },
	{ "::FFFF:192.0.2.1", V4 "c0000201" },
	{ "::ffff:c000:201", V4 "c0000201" },
	{ "[::ffff:192.0.2.1]:443", V4 "c0000201" },
	{ "[192.0.2.1]:443", V4 "c0000201" },
	{ "2001:db8::1", "20010db8000000000000000000000001" },
	{ "2001:DB8::1", "20010db8000000000000000000000001" },
	{ "[2001:db8::1]", "20010db8000000000000000000000001" },
	{ "[2001:db8::1]:443", "20010db8000000000000000000000001" },
	{ "::", "00000000000000000000000000000000" },
	{ "::1", "00000000000000000000000000000001" },
	{ "::192.0.2.1", "000000000000000000000000c0000201" },
	{ "1:2:3:4:5:6:7:8", "00010002000300040005000600070008" },
	{ "", NULL },
	{ " ", NULL },
	{ ":", NULL },
	{ ":80", NULL },
	{ "[", NULL },
	{ "]", NULL },
	{ "[]", NULL },
	{ "[]:80", NULL },
	{ "[::1", NULL },
	{ "::1]", NULL },
	{ "unknown", NULL },
	{ "_hidden", NULL },
	{ "localhost", NULL },
	{ "192.0.2", NULL },
	{ "192.0.2.256", NULL },
	{ "192.0.2.1.5", NULL },
	{ "192.0.2.01", NULL },
	{ "0xc0000201", NULL },
	{ "3221225985", NULL },
	{ " 192.0.2.1", NULL },
	{ "192.0.2.1 ", NULL },
	{ "192.0.2.1/32", NULL },
	{ "192.0.2.1,192.0.2.2", NULL },
	{ "-1.0.0.1", NULL },
	{ "2001:db8::1::2", NULL },
	{ "1:2:3:4:5:6:7", NULL },
	{ "1:2:3:4:5:6:7:8:9", NULL },
	{ "2001:db8::g", NULL },
	{ "fe80::1%eth0", NULL },
	{ "::ffff:192.0.2.256", NULL },
	{ "192.0.2.1\n", NULL },
	{ "\xff\xfe", NULL },
	{ "0000:0000:0000:0000:0000:ffff:192.000.002.001 and so on and so on "
	    "and so on", NULL },
};

START_TEST(an_address_is_told_from_what_is_none)
{
	const char *text = addresses[_i].text, *want = addresses[_i].want;
	struct address a, before;
	char *exact;

	memset(&a, 0xa5, sizeof a);
	before = a;
	exact = malloc(strlen(text) + 1); /* so that no byte behind is read */
	memcpy(exact + 1, text, strlen(text));
	ck_assert_int_eq(address_parse(exact + 1, strlen(text), &a),
	    want != NULL);
	if (want != NULL)
		ck_assert_str_eq(hex(&a), want);
	else
		ck_assert_mem_eq(&a, &before, sizeof a);
	free(exact);
}
END_TEST

START_TEST(a_nul_makes_it_none)
{
	struct address a;

	ck_assert(!address_parse("192.0.2.1\0", 10, &a));
	ck_assert(!address_parse("\0", 1, &a));
	ck_assert(!address_parse("::1\0::2", 7, &a));
}
END_TEST

static const struct {
	const char *address, *networks;
	bool want;
} memberships[] = {
	{ "10.1.2.3", "10.1.2.3", true },
	{ "10.1.2.3", "10.1.2.4", false },
	{ "10.1.2.3", "10.0.0.0/8", true },
	{ "11.1.2.3", "10.0.0.0/8", false },
	{ "10.1.2.3", "10.255.255.255/8", true },
	{ "10.1.2.3", "0.0.0.0/0", true },
	{ "::1", "0.0.0.0/0", false },
	{ "10.1.2.3", "::/0", true },
	{ "10.1.2.3", "::ffff:0:0/96", true },
	{ "10.1.2.3", "::ffff:10.0.0.0/104", true },
	{ "11.1.2.3", "::ffff:10.0.0.0/104", false },
	{ "::ffff:10.1.2.3", "10.0.0.0/8", true },
	{ "::10.1.2.3", "10.0.0.0/8", false },
	/* Bits that do not end with a byte. */
	{ "10.1.2.127", "10.1.2.0/25", true },
	{ "10.1.2.128", "10.1.2.0/25", false },
	{ "10.1.2.2", "10.1.2.3/31", true },
	{ "10.1.2.4", "10.1.2.3/31", false },
	{ "10.1.2.3", "10.1.2.3/32", true },
	{ "172.31.255.255", "172.16.0.0/12", true },
	{ "172.32.0.0", "172.16.0.0/12", false },
	{ "127.255.255.255", "0.0.0.0/1", true },
	{ "128.0.0.0", "0.0.0.0/1", false },
	{ "fd12::1", "fd00::/8", true },
	{ "fdff::1", "fc00::/7", true },
	{ "fe00::1", "fc00::/7", false },
	{ "2001:db8::1", "2001:db8::/127", true },
	{ "2001:db8::2", "2001:db8::/127", false },
	{ "2001:db8::1", "2001:db8::1/128", true },
	/* Words. */
	{ "10.1.2.3", "", false },
	{ "10.1.2.3", "  ", false },
	{ "10.1.2.3", "192.0.2.1 10.0.0.0/8", true },
	{ "10.1.2.3", " \t 192.0.2.1\t10.0.0.0/8 ", true },
	{ "10.1.2.3", "10.1.2.3,", false },
	/* What is none matches nothing, and does not hide the next. */
	{ "10.1.2.3", "10.0.0.0/", false },
	{ "10.1.2.3", "10.0.0.0/33", false },
	{ "10.1.2.3", "10.0.0.0/-1", false },
	{ "10.1.2.3", "10.0.0.0/+8", false },
	{ "10.1.2.3", "10.0.0.0/8x", false },
	{ "10.1.2.3", "10.0.0.0/8/8", false },
	{ "10.1.2.3", "10.0.0.0/4294967304", false },
	{ "10.1.2.3", "/8", false },
	{ "::1", "::/129", false },
	{ "10.1.2.3", "garbage 10.1.2.3", true },
};

START_TEST(an_address_is_in_a_network_or_not)
{
	const char *text = memberships[_i].address;
	struct address a;

	ck_assert(address_parse(text, strlen(text), &a));
	ck_assert_int_eq(address_in(&a, memberships[_i].networks),
	    memberships[_i].want);
}
END_TEST

/* want NULL: all of them are right. */
static const struct {
	const char *networks, *want;
} words[] = {
	{ "", NULL },
	{ " \t", NULL },
	{ "127.0.0.1 ::1 10.0.0.0/8 fd00::/8", NULL },
	{ "10.0.0.0/0 ::/0", NULL },
	{ "10.0.0.0/32 ::/128", NULL },
	{ "10.0.0.0/33", "10.0.0.0/33" },
	{ "::/129", "::/129" },
	{ "127.0.0.1, ::1", "127.0.0.1," },
	{ "127.0.0.1 proxy.example ::1 other", "proxy.example" },
	{ "10.0.0.0/255.0.0.0", "10.0.0.0/255.0.0.0" },
	{ "10.0.0.0/", "10.0.0.0/" },
	{ "/", "/" },
	{ "unix:", "unix:" },
};

START_TEST(the_first_word_that_is_no_network_is_named)
{
	size_t len = 99;
	const char *bad = address_bad_word(words[_i].networks, &len);

	if (words[_i].want == NULL) {
		ck_assert_ptr_null(bad);
		ck_assert_uint_eq(len, 99);
	} else {
		ck_assert_ptr_nonnull(bad);
		ck_assert_uint_eq(len, strlen(words[_i].want));
		ck_assert_mem_eq(bad, words[_i].want, len);
	}
}
END_TEST

#define PROXIES "127.0.0.1 ::1 10.0.0.0/8"

/* want NULL: not known. */
static const struct {
	const char *peer, *forwarded, *trusted, *want;
} clients[] = {
	/* Nobody is trusted: the header is anybody's words. */
	{ "192.0.2.1", NULL, "", "192.0.2.1" },
	{ "192.0.2.1", "198.51.100.1", "", "192.0.2.1" },
	{ "192.0.2.1", "198.51.100.1", PROXIES, "192.0.2.1" },
	{ "192.0.2.1", "garbage", PROXIES, "192.0.2.1" },
	{ "2001:db8::1", "198.51.100.1", PROXIES, "2001:db8::1" },
	/* A trusted proxy's word. */
	{ "127.0.0.1", "198.51.100.1", PROXIES, "198.51.100.1" },
	{ "127.0.0.1", "198.51.100.1:5123", PROXIES, "198.51.100.1" },
	{ "127.0.0.1", "[2001:db8::1]:5123", PROXIES, "2001:db8::1" },
	{ "::1", "2001:db8::1", PROXIES, "2001:db8::1" },
	{ "::ffff:127.0.0.1", "198.51.100.1", PROXIES, "198.51.100.1" },
	{ "127.0.0.1", " 198.51.100.1 \t", PROXIES, "198.51.100.1" },
	{ "127.0.0.1", NULL, PROXIES, "127.0.0.1" },
	{ "127.0.0.1", "", PROXIES, "127.0.0.1" },
	/* Who writes the header before the first proxy forges what he likes,
	 * and is not believed. */
	{ "127.0.0.1", "203.0.113.9, 198.51.100.1", PROXIES, "198.51.100.1" },
	{ "127.0.0.1", "203.0.113.9,198.51.100.1", PROXIES, "198.51.100.1" },
	{ "127.0.0.1", "127.0.0.1, 198.51.100.1", PROXIES, "198.51.100.1" },
	{ "127.0.0.1", "garbage, 198.51.100.1", PROXIES, "198.51.100.1" },
	{ "127.0.0.1", ", , 198.51.100.1", PROXIES, "198.51.100.1" },
	/* A chain of trusted ones. */
	{ "127.0.0.1", "198.51.100.1, 10.0.0.7", PROXIES, "198.51.100.1" },
	{ "127.0.0.1", "203.0.113.9, 198.51.100.1, 10.0.0.7, 10.0.0.8",
	    PROXIES, "198.51.100.1" },
	{ "127.0.0.1", "10.0.0.7, 10.0.0.8", PROXIES, "10.0.0.7" },
	{ "127.0.0.1", "10.0.0.7", PROXIES, "10.0.0.7" },
	/* What a trusted proxy says is none. */
	{ "127.0.0.1", "unknown", PROXIES, NULL },
	{ "127.0.0.1", "198.51.100.1, unknown", PROXIES, NULL },
	{ "127.0.0.1", "198.51.100.1, unknown, 10.0.0.7", PROXIES, NULL },
	{ "127.0.0.1", "198.51.100.1,", PROXIES, NULL },
	{ "127.0.0.1", "198.51.100.1, , 10.0.0.7", PROXIES, NULL },
	{ "127.0.0.1", ",10.0.0.7", PROXIES, "10.0.0.7" },
	{ "127.0.0.1", ",", PROXIES, NULL },
	{ "127.0.0.1", " ", PROXIES, NULL },
	{ "127.0.0.1", "_hidden, 10.0.0.7", PROXIES, NULL },
	{ "127.0.0.1", "198.51.100.1 203.0.113.9", PROXIES, NULL },
	{ "127.0.0.1", "198.51.100.1\r\nX: y", PROXIES, NULL },
	/* A web server that does not say who asks. */
	{ NULL, NULL, PROXIES, NULL },
	{ NULL, "198.51.100.1", PROXIES, NULL },
	{ "", "198.51.100.1", PROXIES, NULL },
	{ "unix:", "198.51.100.1", PROXIES, NULL },
	/* Everybody is trusted: the first one it is. */
	{ "192.0.2.1", "203.0.113.9, 198.51.100.1", "0.0.0.0/0",
	    "203.0.113.9" },
};

START_TEST(a_request_is_its_clients)
{
	const char *want = clients[_i].want;
	struct address a, b;

	memset(&a, 0xa5, sizeof a);
	b = a;
	ck_assert_int_eq(address_client(clients[_i].peer,
	    clients[_i].forwarded, clients[_i].trusted, &a), want != NULL);
	if (want != NULL)
		ck_assert(address_parse(want, strlen(want), &b));
	ck_assert_mem_eq(&a, &b, sizeof a);
}
END_TEST

static const struct {
	const char *one, *other;
	bool same;
} keys[] = {
	{ "192.0.2.1", "192.0.2.1", true },
	{ "192.0.2.1", "::ffff:192.0.2.1", true },
	{ "192.0.2.1", "192.0.2.2", false },
	{ "2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true },
	{ "2001:db8:1:2::1", "2001:db8:1:3::1", false },
	{ "::1", "::2", true },
	{ "::1", "192.0.2.1", false },
	{ "::ffff:0.0.0.0", "::", false },
};

START_TEST(a_key_is_of_an_address_or_of_64_bits_of_one)
{
	char one[ADDRESS_KEY_SIZE], other[ADDRESS_KEY_SIZE];
	struct address a;

	ck_assert(address_parse(keys[_i].one, strlen(keys[_i].one), &a));
	address_key(&a, one);
	ck_assert(address_parse(keys[_i].other, strlen(keys[_i].other), &a));
	address_key(&a, other);
	ck_assert_uint_eq(strspn(one, "0123456789abcdef"), 16);
	ck_assert_uint_eq(strlen(one), 16);
	ck_assert_int_eq(strcmp(one, other) == 0, keys[_i].same);
}
END_TEST

static Suite *
address_suite(void)
{
	Suite *s = suite_create("address");
	TCase *tc;

	tc = tcase_create("parse");
	tcase_add_loop_test(tc, an_address_is_told_from_what_is_none, 0,
	    COUNT(addresses));
	tcase_add_test(tc, a_nul_makes_it_none);
	suite_add_tcase(s, tc);

	tc = tcase_create("networks");
	tcase_add_loop_test(tc, an_address_is_in_a_network_or_not, 0,
	    COUNT(memberships));
	tcase_add_loop_test(tc, the_first_word_that_is_no_network_is_named, 0,
	    COUNT(words));
	suite_add_tcase(s, tc);

	tc = tcase_create("client");
	tcase_add_loop_test(tc, a_request_is_its_clients, 0, COUNT(clients));
	tcase_add_loop_test(tc, a_key_is_of_an_address_or_of_64_bits_of_one, 0,
	    COUNT(keys));
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	SRunner *sr = srunner_create(address_suite());
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
