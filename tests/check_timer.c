/* check_timer.c - the heap of timers. */
#include <check.h>
#include <stdlib.h>

#include "clock.h"
#include "timer.h"

enum { MANY = 500 };

static struct timers ts;
static uint64_t fired[MANY];
static size_t fired_count;

struct item {
	struct timer t;
	uint64_t due;
};

static void
note(void *arg)
{
	struct item *it = arg;

	fired[fired_count++] = it->due;
}

static void
setup(void)
{
	timers_init(&ts);
	fired_count = 0;
	ck_assert_int_eq(timers_reserve(&ts, MANY), RS_OK);
}

static void
teardown(void)
{
	timers_done(&ts);
}

START_TEST(timers_fire_in_order_whatever_the_order_they_are_set_in)
{
	static struct item items[MANY];
	size_t i;

	srand((unsigned)_i);
	for (i = 0; i < MANY; i++) {
		items[i].t = (struct timer){ .fn = note, .arg = &items[i] };
		items[i].due = (uint64_t)rand() % 1000;
		timer_set(&ts, &items[i].t, items[i].due);
	}
	/* Move some, cancel some. */
	for (i = 0; i < MANY; i += 3) {
		items[i].due = (uint64_t)rand() % 1000;
		timer_set(&ts, &items[i].t, items[i].due);
	}
	for (i = 0; i < MANY; i += 5)
		timer_cancel(&ts, &items[i].t);
	timers_run(&ts, 1000);
	ck_assert_uint_eq(fired_count, MANY - (MANY + 4) / 5);
	for (i = 1; i < fired_count; i++)
		ck_assert_uint_le(fired[i - 1], fired[i]);
	ck_assert_uint_eq(ts.count, 0);
}
END_TEST

START_TEST(a_timer_that_is_not_due_waits)
{
	struct item it = { .due = 2 * NS_PER_MS };

	it.t = (struct timer){ .fn = note, .arg = &it };
	ck_assert_int_eq(timers_wait_ms(&ts, 0), -1);
	timer_set(&ts, &it.t, it.due);
	ck_assert_int_eq(timers_wait_ms(&ts, 0), 2);
	ck_assert_int_eq(timers_wait_ms(&ts, 1), 2);
	timers_run(&ts, it.due - 1);
	ck_assert_uint_eq(fired_count, 0);
	timers_run(&ts, it.due);
	ck_assert_uint_eq(fired_count, 1);
}
END_TEST

static void
again(void *arg)
{
	struct item *it = arg;

	fired_count++;
	timer_set(&ts, &it->t, 0);
}

START_TEST(a_timer_that_sets_itself_for_now_does_not_hold_the_loop)
{
	struct item it = { .due = 0 };

	it.t = (struct timer){ .fn = again, .arg = &it };
	timer_set(&ts, &it.t, 0);
	timers_run(&ts, 5);
	ck_assert_uint_eq(fired_count, 1);
	timer_cancel(&ts, &it.t);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("timer");
	TCase *tc = tcase_create("timer");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc,
	    timers_fire_in_order_whatever_the_order_they_are_set_in, 0, 20);
	tcase_add_test(tc, a_timer_that_is_not_due_waits);
	tcase_add_test(tc,
	    a_timer_that_sets_itself_for_now_does_not_hold_the_loop);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
