/* check_loop.c - descriptors and timers of a loop. */
#include <sys/epoll.h>
#include <sys/socket.h>

#include <check.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "clock.h"
#include "loop.h"

enum { PAIRS = 100 };

static struct loop loop;
static struct watch watches[PAIRS];
static int peers[PAIRS];
static unsigned calls;
static uint32_t seen;

static void
note(void *arg, uint32_t events)
{
	(void)arg;
	calls++;
	seen = events;
}

static void
setup(void)
{
	int fds[2], i;

	ck_assert_int_eq(loop_init(&loop), RS_OK);
	ck_assert_int_eq(timers_reserve(&loop.timers, 8), RS_OK);
	for (i = 0; i < PAIRS; i++) {
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC,
		    0, fds), 0);
		watches[i] = (struct watch){ .fd = fds[0], .fn = note };
		peers[i] = fds[1];
	}
	calls = 0;
}

static void
teardown(void)
{
	int i;

	for (i = 0; i < PAIRS; i++) {
		close(watches[i].fd);
		close(peers[i]);
	}
	loop_done(&loop);
}

static void
watch_all(uint32_t events)
{
	int i;

	for (i = 0; i < PAIRS; i++)
		ck_assert_int_eq(loop_watch(&loop, &watches[i], events), RS_OK);
}

START_TEST(who_is_ready_is_called_until_it_is_not)
{
	char c;

	ck_assert_int_eq(loop_watch(&loop, &watches[0], EPOLLIN), RS_OK);
	ck_assert_int_eq(loop_turn(&loop, 0), 0);
	ck_assert_int_eq(write(peers[0], "x", 1), 1);
	ck_assert_int_eq(loop_turn(&loop, -1), 1);
	ck_assert_int_eq(loop_turn(&loop, -1), 1);
	ck_assert_uint_eq(calls, 2);
	ck_assert_uint_eq(seen, EPOLLIN);
	ck_assert_int_eq(read(watches[0].fd, &c, 1), 1);
	ck_assert_int_eq(loop_turn(&loop, 0), 0);
}
END_TEST

START_TEST(events_can_be_changed_and_taken_away)
{
	ck_assert_int_eq(loop_watch(&loop, &watches[0], EPOLLIN), RS_OK);
	ck_assert_int_eq(loop_watch(&loop, &watches[0], EPOLLOUT), RS_OK);
	ck_assert_int_eq(loop_turn(&loop, -1), 1);
	ck_assert_uint_eq(seen, EPOLLOUT);
	ck_assert_int_eq(loop_watch(&loop, &watches[0], 0), RS_OK);
	ck_assert_int_eq(loop_turn(&loop, 0), 0);
	ck_assert_int_eq(loop_watch(&loop, &watches[0], 0), RS_OK);
	ck_assert_int_eq(loop_watch(&loop, &watches[0], EPOLLOUT), RS_OK);
	ck_assert_int_eq(loop_turn(&loop, -1), 1);
}
END_TEST

START_TEST(what_cannot_be_watched_is_said_and_stays_unwatched)
{
	struct watch w = { .fd = -1, .fn = note };

	ck_assert_int_eq(loop_watch(&loop, &w, EPOLLIN), RS_EIO);
	ck_assert_uint_eq(w.events, 0);
}
END_TEST

/* Whoever is called first takes away all the others. */
static void
leave_alone(void *arg, uint32_t events)
{
	struct watch *me = arg;
	int i;

	note(arg, events);
	for (i = 0; i < PAIRS; i++) {
		if (&watches[i] == me)
			continue;
		loop_watch(&loop, &watches[i], 0);
		watches[i].fn = NULL; /* as freed */
	}
}

START_TEST(a_watch_taken_away_in_a_turn_is_not_called_in_it)
{
	int i;

	for (i = 0; i < PAIRS; i++) {
		watches[i].fn = leave_alone;
		watches[i].arg = &watches[i];
	}
	watch_all(EPOLLOUT);
	ck_assert_int_gt(loop_turn(&loop, -1), 1);
	ck_assert_uint_eq(calls, 1);
}
END_TEST

static void
leave(void *arg, uint32_t events)
{
	struct watch *me = arg;

	note(arg, events);
	loop_watch(&loop, me, 0);
	me->fn = NULL;
}

START_TEST(more_than_a_turn_takes_are_served_by_the_next_ones)
{
	int i;

	for (i = 0; i < PAIRS; i++) {
		watches[i].fn = leave;
		watches[i].arg = &watches[i];
	}
	watch_all(EPOLLOUT);
	while (loop_turn(&loop, 0) > 0)
		continue;
	ck_assert_uint_eq(calls, PAIRS);
}
END_TEST

static void
timer_note(void *arg)
{
	*(bool *)arg = true;
}

START_TEST(a_turn_waits_for_the_first_timer_or_the_time_given)
{
	bool fired = false;
	struct timer t = { .fn = timer_note, .arg = &fired };

	timer_set(&loop.timers, &t, clock_mono_ns() + 3600 * NS_PER_S);
	ck_assert_int_eq(loop_turn(&loop, 1), 0);
	ck_assert(!fired);
	timer_set(&loop.timers, &t, clock_mono_ns() + NS_PER_MS);
	while (!fired)
		ck_assert_int_eq(loop_turn(&loop, -1), 0);
	ck_assert_int_eq(loop_turn(&loop, 0), 0);
}
END_TEST

/* A timer may be due while descriptors are ready all the time. */
START_TEST(ready_descriptors_do_not_keep_timers_waiting)
{
	bool fired = false;
	struct timer t = { .fn = timer_note, .arg = &fired };

	watch_all(EPOLLOUT);
	timer_set(&loop.timers, &t, clock_mono_ns());
	ck_assert_int_gt(loop_turn(&loop, -1), 0);
	ck_assert(fired);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("loop");
	TCase *tc = tcase_create("loop");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, who_is_ready_is_called_until_it_is_not);
	tcase_add_test(tc, events_can_be_changed_and_taken_away);
	tcase_add_test(tc,
	    what_cannot_be_watched_is_said_and_stays_unwatched);
	tcase_add_test(tc, a_watch_taken_away_in_a_turn_is_not_called_in_it);
	tcase_add_test(tc, more_than_a_turn_takes_are_served_by_the_next_ones);
	tcase_add_test(tc,
	    a_turn_waits_for_the_first_timer_or_the_time_given);
	tcase_add_test(tc, ready_descriptors_do_not_keep_timers_waiting);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
