/* timer.c - a binary heap of timers. */
#include <stdlib.h>

#include "clock.h"
#include "timer.h"

void
timers_init(struct timers *ts)
{
	*ts = (struct timers){ 0 };
}

void
timers_done(struct timers *ts)
{
	free(ts->heap);
	timers_init(ts);
}

enum rs_err
timers_reserve(struct timers *ts, size_t n)
{
	struct timer **heap;
	size_t cap = ts->cap == 0 ? 64 : ts->cap;

	while (cap < n)
		cap *= 2;
	if (cap == ts->cap)
		return RS_OK;
	heap = realloc(ts->heap, cap * sizeof *heap);
	if (heap == NULL)
		return RS_ENOMEM;
	ts->heap = heap;
	ts->cap = cap;
	return RS_OK;
}

static void
put(struct timers *ts, size_t i, struct timer *t)
{
	ts->heap[i] = t;
	t->pos = i + 1;
}

static void
sift_up(struct timers *ts, size_t i, struct timer *t)
{
	size_t parent;

	for (; i > 0; i = parent) {
		parent = (i - 1) / 2;
		if (ts->heap[parent]->due_ns <= t->due_ns)
			break;
		put(ts, i, ts->heap[parent]);
	}
	put(ts, i, t);
}

static void
sift_down(struct timers *ts, size_t i, struct timer *t)
{
	size_t child;

	while ((child = 2 * i + 1) < ts->count) {
		if (child + 1 < ts->count && ts->heap[child + 1]->due_ns <
		    ts->heap[child]->due_ns)
			child++;
		if (t->due_ns <= ts->heap[child]->due_ns)
			break;
		put(ts, i, ts->heap[child]);
		i = child;
	}
	put(ts, i, t);
}

void
timer_cancel(struct timers *ts, struct timer *t)
{
	struct timer *last;
	size_t i;

	if (t->pos == 0)
		return;
	i = t->pos - 1;
	t->pos = 0;
	last = ts->heap[--ts->count];
	if (last == t)
		return;
	if (last->due_ns < t->due_ns)
		sift_up(ts, i, last);
	else
		sift_down(ts, i, last);
}

void
timer_set(struct timers *ts, struct timer *t, uint64_t due_ns)
{
	timer_cancel(ts, t);
	t->due_ns = due_ns;
	ts->count++;
	sift_up(ts, ts->count - 1, t);
}

int
timers_wait_ms(const struct timers *ts, uint64_t now_ns)
{
	return ts->count == 0 ? -1 :
	    clock_ms_until(ts->heap[0]->due_ns, now_ns);
}

void
timers_run(struct timers *ts, uint64_t now_ns)
{
	struct timer *t;
	size_t n;

	/* One that is set for now by its own call goes behind the others that
	 * are due, and n bounds the round, so nobody starves the loop. */
	for (n = ts->count; n > 0 && ts->count > 0; n--) {
		t = ts->heap[0];
		if (t->due_ns > now_ns)
			break;
		timer_cancel(ts, t);
		t->fn(t->arg);
	}
}
