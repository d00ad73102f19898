/* timer.h - what is due next: a heap of timers that live in their owners. */
#ifndef RESPOOL_TIMER_H
#define RESPOOL_TIMER_H

#include <stddef.h>
#include <stdint.h>
#include "err.h"

struct timer {
	uint64_t due_ns;	/* CLOCK_MONOTONIC */
	size_t pos;		/* in the heap + 1; 0: not armed */
	void (*fn)(void *arg);
	void *arg;
};

struct timers {
	struct timer **heap;
	size_t count, cap;
};

void timers_init(struct timers *ts);
void timers_done(struct timers *ts);

/* Room for n timers, so that timer_set cannot fail for want of memory. */
enum rs_err timers_reserve(struct timers *ts, size_t n);

/* Arms t, or moves it.  There must be room (timers_reserve). */
void timer_set(struct timers *ts, struct timer *t, uint64_t due_ns);
void timer_cancel(struct timers *ts, struct timer *t);

/* Milliseconds for poll until the next one (clock_ms_until); -1: there is
 * none. */
int timers_wait_ms(const struct timers *ts, uint64_t now_ns);

/* Disarms and calls timers that are due at now_ns, at most as many as there
 * were, so that one that sets itself again for now cannot hold the loop. */
void timers_run(struct timers *ts, uint64_t now_ns);

#endif
