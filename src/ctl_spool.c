/* ctl_spool.c - respoolctl gc, check. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "ctl.h"

int
ctl_gc(struct ctl *ctl, int argc, char **argv)
{
	struct wake_reply reply = { 0 };
	struct sweep sweep = { 0 };
	unsigned shards = 0;
	enum rs_err err;
	int lock_fd;
	bool done;

	(void)argc;
	(void)argv;
	err = ctl_take_place(ctl, &lock_fd);
	if (err == RS_EBUSY) {
		err = wake_gc(ctl->wake, &reply);
		if (err == RS_OK)
			err = reply.err;
	} else if (err == RS_OK) {
		while (err == RS_OK && shards < SPOOL_SHARDS) {
			err = spool_sweep(ctl->sp, &sweep, clock_wall_ms(),
			    NS_PER_S, &done);
			shards += done;
		}
		reply.count = sweep.removed;
		spool_sweep_done(&sweep);
		close(lock_fd);
	} else {
		return CTL_FAULT;
	}
	if (err != RS_OK)
		return ctl_fail("gc", rs_strerror(err));
	printf("removed %llu\n", (unsigned long long)reply.count);
	return EXIT_SUCCESS;
}

struct check {
	struct ctl *ctl;
	bool fix;
	int lock_fd;	/* -1: the spooler is asked */
	uint64_t streams, faults, mended;
};

/* What is wrong with a stream; NULL: nothing, or it is being written. */
static const char *
fault_of(struct ctl *ctl, const struct stream_key *k, struct stream_tail *tail)
{
	struct spool_reader r;
	const char *fault = NULL;
	enum rs_err err;

	if ((err = spool_find(ctl->sp, k, &r)) != RS_OK)
		return err == RS_ENOENT ? NULL : err == RS_ECORRUPT ?
		    "no head" : rs_strerror(err);
	if ((err = spool_scan(&r, NULL, tail)) != RS_OK)
		fault = rs_strerror(err);
	else if (tail->ended && tail->torn)
		fault = "bytes behind the end";
	else if (!tail->ended && !wake_alive(ctl->wake, &r.head))
		fault = tail->torn ? "damaged" : "its writer is dead";
	spool_reader_done(&r);
	return fault;
}

static bool
check_fn(const struct stream_key *k, void *arg)
{
	struct check *c = arg;
	struct stream_tail tail = { 0 };
	const char *fault = fault_of(c->ctl, k, &tail);

	c->streams++;
	if (fault == NULL)
		return true;
	c->faults++;
	printf("%s-%s: %s behind %llu frames, byte %llu", k->owner_hash, k->id,
	    fault, (unsigned long long)tail.count,
	    (unsigned long long)tail.end);
	if (c->fix) {
		ctl_seal(c->ctl, c->lock_fd, k);
		fault = fault_of(c->ctl, k, &tail);
		c->mended += fault == NULL;
		printf(fault == NULL ? ": mended, %llu frames" :
		    ": cannot be mended", (unsigned long long)tail.count);
	}
	putchar('\n');
	return true;
}

int
ctl_check(struct ctl *ctl, int argc, char **argv)
{
	struct check c = { .ctl = ctl, .lock_fd = -1 };
	enum rs_err err;

	if (argc == 1) {
		if (strcmp(argv[0], "--fix") != 0)
			return ctl_fail("check", "unknown argument");
		c.fix = true;
		err = ctl_take_place(ctl, &c.lock_fd);
		if (err != RS_OK && err != RS_EBUSY)
			return CTL_FAULT;
	}
	err = spool_each(ctl->sp, NULL, check_fn, &c);
	if (c.lock_fd >= 0)
		close(c.lock_fd);
	if (err != RS_OK)
		return ctl_fail("check", rs_strerror(err));
	printf("streams %llu, faults %llu, mended %llu\n",
	    (unsigned long long)c.streams, (unsigned long long)c.faults,
	    (unsigned long long)c.mended);
	return c.faults == c.mended ? EXIT_SUCCESS : CTL_FAULT;
}
