/* loop.c - what a loop waits for: epoll, and a heap of timers. */
#include <sys/epoll.h>

#include <errno.h>
#include <stddef.h>
#include <unistd.h>

#include "clock.h"
#include "loop.h"

#define EVENTS 64 /* of a turn, so that timers are not kept waiting */

enum rs_err
loop_init(struct loop *l)
{
	*l = (struct loop){ .epoll_fd = epoll_create1(EPOLL_CLOEXEC) };
	timers_init(&l->timers);
	return l->epoll_fd < 0 ? RS_EIO : RS_OK;
}

void
loop_done(struct loop *l)
{
	timers_done(&l->timers);
	if (l->epoll_fd >= 0)
		close(l->epoll_fd);
	l->epoll_fd = -1;
}

enum rs_err
loop_watch(struct loop *l, struct watch *w, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = w };
	int i, op = events == 0 ? EPOLL_CTL_DEL :
	    w->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

	if (events == w->events)
		return RS_OK;
	if (epoll_ctl(l->epoll_fd, op, w->fd, &ev) < 0 && events != 0)
		return rs_from_errno(errno);
	w->events = events;
	/* It may be gone before its event of this turn is looked at. */
	for (i = 0; events == 0 && i < l->ready_count; i++)
		if (l->ready[i].data.ptr == w)
			l->ready[i].data.ptr = NULL;
	return RS_OK;
}

int
loop_turn(struct loop *l, int wait_ms)
{
	int ms = timers_wait_ms(&l->timers, clock_mono_ns()), n;
	struct epoll_event ready[EVENTS], *ev;
	struct watch *w;

	if (ms < 0 || (wait_ms >= 0 && wait_ms < ms))
		ms = wait_ms;
	n = epoll_wait(l->epoll_fd, ready, EVENTS, ms);
	l->ready = ready;
	l->ready_count = n > 0 ? n : 0;
	while (l->ready_count > 0) {
		l->ready_count--;
		ev = l->ready++;
		w = ev->data.ptr;
		if (w != NULL)
			w->fn(w->arg, ev->events);
	}
	l->ready = NULL;
	timers_run(&l->timers, clock_mono_ns());
	return n;
}
