/* loop.h - what a loop waits for: descriptors and timers. */
#ifndef RESPOOL_LOOP_H
#define RESPOOL_LOOP_H

#include <stdint.h>
#include "err.h"
#include "timer.h"

/* Lives in its owner; fd, fn and arg are set before loop_watch.  It stays
 * watched until loop_watch(.., 0), which comes before close(fd). */
struct watch {
	int fd;
	uint32_t events;	/* that are watched; 0: none */
	/* May free its own watch or others', after loop_watch(.., 0). */
	void (*fn)(void *arg, uint32_t events);
	void *arg;
};

struct loop {
	int epoll_fd;
	struct timers timers;
	struct epoll_event *ready; /* of this turn; those not called yet */
	int ready_count;
};

/* RS_OK; RS_EIO, and loop_done may be called all the same. */
enum rs_err loop_init(struct loop *l);
void loop_done(struct loop *l);

/* Watches w for these events of epoll(7), level-triggered, or no more (0,
 * which cannot fail).  RS_OK; else as epoll_ctl says, and it stays as it
 * was. */
enum rs_err loop_watch(struct loop *l, struct watch *w, uint32_t events);

/* One turn: waits at most wait_ms (-1: for ever) and for the first timer,
 * calls who is ready, then the timers that are due.  How many were ready; -1:
 * a signal came.  Not from within a turn. */
int loop_turn(struct loop *l, int wait_ms);

#endif
