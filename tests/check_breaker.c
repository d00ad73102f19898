/* check_breaker.c - circuits of models. */
#include <check.h>
#include <stdlib.h>

#include "breaker.h"

static struct breakers all;

static void
teardown(void)
{
	breakers_done(&all);
}

/* Fails once at that second; true: it opened. */
static bool
fail_at(const char *model, uint64_t s)
{
	bool trial;

	ck_assert(breaker_allows(&all, model, s * NS_PER_S, &trial));
	return breaker_failed(&all, model, trial, s * NS_PER_S);
}

static void
open_at(uint64_t s)
{
	int i;

	for (i = 1; i < BREAKER_FAILURES; i++)
		ck_assert(!fail_at("m", s));
	ck_assert(fail_at("m", s));
}

static bool
allowed(const char *model, uint64_t s, bool *ret_trial)
{
	return breaker_allows(&all, model, s * NS_PER_S, ret_trial);
}

START_TEST(the_fifth_failure_within_a_minute_opens_it)
{
	bool trial;

	open_at(100);
	ck_assert(!allowed("m", 100, &trial));
	ck_assert(!allowed("m", 129, &trial));
	ck_assert(allowed("other", 100, &trial));
	ck_assert(!trial);
}
END_TEST

START_TEST(failures_further_apart_do_not)
{
	uint64_t s;

	for (s = 0; s < 1600; s += 16)
		ck_assert(!fail_at("m", s));
}
END_TEST

START_TEST(a_success_in_between_counts_as_new)
{
	bool trial;
	int i;

	for (i = 1; i < BREAKER_FAILURES; i++)
		fail_at("m", 1);
	ck_assert(allowed("m", 1, &trial));
	breaker_worked(&all, "m", trial);
	for (i = 1; i < BREAKER_FAILURES; i++)
		ck_assert(!fail_at("m", 1));
	ck_assert(fail_at("m", 1));
}
END_TEST

START_TEST(after_thirty_seconds_one_trial_decides)
{
	bool trial, other;

	open_at(100);
	ck_assert(allowed("m", 130, &trial));
	ck_assert(trial);
	ck_assert(!allowed("m", 131, &other));
	ck_assert(breaker_failed(&all, "m", trial, 140 * NS_PER_S));
	ck_assert(!allowed("m", 169, &other));
	ck_assert(allowed("m", 170, &trial));
	breaker_worked(&all, "m", trial);
	ck_assert(allowed("m", 170, &trial));
	ck_assert(!trial);
}
END_TEST

START_TEST(a_trial_that_nobody_waited_for_leaves_room_for_the_next)
{
	bool trial, other;

	open_at(100);
	ck_assert(allowed("m", 130, &trial));
	breaker_forget(&all, "m", trial);
	ck_assert(allowed("m", 130, &other));
	ck_assert(other);
}
END_TEST

START_TEST(what_was_asked_before_it_opened_does_not_count)
{
	bool early, trial, other;

	ck_assert(allowed("m", 100, &early));
	open_at(100);
	breaker_worked(&all, "m", early);
	ck_assert(!allowed("m", 101, &other));
	ck_assert(!breaker_failed(&all, "m", early, 120 * NS_PER_S));
	ck_assert(allowed("m", 130, &trial));
	breaker_forget(&all, "m", early);
	ck_assert(!allowed("m", 130, &other));
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("breaker");
	TCase *tc = tcase_create("breaker");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, NULL, teardown);
	tcase_add_test(tc, the_fifth_failure_within_a_minute_opens_it);
	tcase_add_test(tc, failures_further_apart_do_not);
	tcase_add_test(tc, a_success_in_between_counts_as_new);
	tcase_add_test(tc, after_thirty_seconds_one_trial_decides);
	tcase_add_test(tc,
	    a_trial_that_nobody_waited_for_leaves_room_for_the_next);
	tcase_add_test(tc, what_was_asked_before_it_opened_does_not_count);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
