/* check_money.c - cost, to the last picodollar. */
#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "money.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

static const struct {
	uint64_t picodollars;
	const char *text;
} amounts[] = {
	{ 0, "0" },
	{ 1, "0.000000000001" },
	{ 10, "0.00000000001" },
	{ 600000, "0.0000006" },
	{ 999999999999, "0.999999999999" },
	{ 1000000000000, "1" },
	{ 10000000000000, "10" },
	{ 1500000000000, "1.5" },
	{ 1000000000001, "1.000000000001" },
	{ 100100000000000, "100.1" },
	{ MONEY_UNKNOWN - 1, "18446744.073709551614" },
	{ MONEY_UNKNOWN, "null" },
};

START_TEST(an_amount_is_written_exactly_and_read_back)
{
	uint64_t back = 4711;
	struct buf b;

	buf_init(&b, 100);
	money_put(&b, amounts[_i].picodollars);
	ck_assert_str_eq(b.data, amounts[_i].text);
	ck_assert_int_eq(money_parse(b.data, b.len, &back), RS_OK);
	ck_assert_uint_eq(back, amounts[_i].picodollars);
	buf_done(&b);
}
END_TEST

START_TEST(each_power_of_two_comes_back)
{
	uint64_t amount, back;
	struct buf b;
	int d;

	for (d = -1; d <= 1; d++) {
		amount = (UINT64_C(1) << _i) + (uint64_t)(int64_t)d;
		buf_init(&b, 100);
		money_put(&b, amount);
		ck_assert_int_eq(money_parse(b.data, b.len, &back), RS_OK);
		ck_assert_uint_eq(back, amount);
		buf_done(&b);
	}
}
END_TEST

static const char *const nonsense[] = {
	"", " ", " 1", "1 ", "-1", "+1", "1.", ".5", ".", "00", "01",
	"0.0000000000001", "1e3", "1E3", "0x1", "1,5", "1.2.3",
	"..", "nul", "nulll", "NULL", "NaN", "18446744.073709551615",
	"18446744.073709551616", "18446745", "18446744073709551616",
	"99999999999999999999999999", "0.99999999999999999999999999", "\"1\"",
	"1\n", "$1",
};

START_TEST(what_money_put_never_writes_is_refused)
{
	uint64_t untouched = 4711;

	ck_assert_int_eq(money_parse(nonsense[_i], strlen(nonsense[_i]),
	    &untouched), RS_EINVAL);
	ck_assert_uint_eq(untouched, 4711);
}
END_TEST

START_TEST(a_nul_is_no_digit)
{
	uint64_t untouched = 4711;

	ck_assert_int_eq(money_parse("1\0", 2, &untouched), RS_EINVAL);
	ck_assert_int_eq(money_parse(NULL, 0, &untouched), RS_EINVAL);
}
END_TEST

static const struct {
	uint64_t a, b, sum, product;
} pairs[] = {
	{ 0, 0, 0, 0 },
	{ 2, 3, 5, 6 },
	{ 1, 150000, 150001, 150000 },
	{ MONEY_UNKNOWN - 1, 0, MONEY_UNKNOWN - 1, 0 },
	{ MONEY_UNKNOWN - 1, 1, MONEY_UNKNOWN - 1, MONEY_UNKNOWN - 1 },
	{ MONEY_UNKNOWN - 1, 2, MONEY_UNKNOWN - 1, MONEY_UNKNOWN - 1 },
	{ MONEY_UNKNOWN - 2, 1, MONEY_UNKNOWN - 1, MONEY_UNKNOWN - 2 },
	{ MONEY_UNKNOWN, 0, MONEY_UNKNOWN, MONEY_UNKNOWN },
	{ MONEY_UNKNOWN, 7, MONEY_UNKNOWN, MONEY_UNKNOWN },
	{ MONEY_UNKNOWN, MONEY_UNKNOWN, MONEY_UNKNOWN, MONEY_UNKNOWN },
	/* 5 * ... is exactly MONEY_UNKNOWN */
	{ 5, MONEY_UNKNOWN / 5, MONEY_UNKNOWN / 5 + 5, MONEY_UNKNOWN - 1 },
	{ UINT64_C(1) << 32, UINT64_C(1) << 32, UINT64_C(1) << 33,
	    MONEY_UNKNOWN - 1 },
};

START_TEST(sums_and_products_saturate_and_unknown_stays_unknown)
{
	ck_assert_uint_eq(money_add(pairs[_i].a, pairs[_i].b), pairs[_i].sum);
	ck_assert_uint_eq(money_add(pairs[_i].b, pairs[_i].a), pairs[_i].sum);
	ck_assert_uint_eq(money_mul(pairs[_i].a, pairs[_i].b),
	    pairs[_i].product);
	ck_assert_uint_eq(money_mul(pairs[_i].b, pairs[_i].a),
	    pairs[_i].product);
}
END_TEST

static Suite *
money_suite(void)
{
	Suite *s = suite_create("money");
	TCase *tc = tcase_create("money");

	tcase_add_loop_test(tc, an_amount_is_written_exactly_and_read_back, 0,
	    COUNT(amounts));
	tcase_add_loop_test(tc, each_power_of_two_comes_back, 0, 64);
	tcase_add_loop_test(tc, what_money_put_never_writes_is_refused, 0,
	    COUNT(nonsense));
	tcase_add_test(tc, a_nul_is_no_digit);
	tcase_add_loop_test(tc,
	    sums_and_products_saturate_and_unknown_stays_unknown, 0,
	    COUNT(pairs));
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	SRunner *sr = srunner_create(money_suite());
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
