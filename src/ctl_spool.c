/* ctl_spool.c - respoolctl gc, check. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "conv.h"
#include "ctl.h"
#include "fold.h"

/* One shard in the spooler's place.  The lock is not kept for longer: who
 * wants to start a spooler waits for it. */
static enum rs_err
gc_shard(struct ctl *ctl, struct sweep *sweep)
{
	unsigned shard = sweep->shard;
	enum rs_err err;
	int lock_fd;
	bool done = false;

	if ((err = spool_lock_mutator(ctl->sp, &lock_fd)) != RS_OK)
		return err;
	while (err == RS_OK && !done)
		err = spool_sweep(ctl->sp, sweep, clock_wall_ms(), NS_PER_S,
		    &done);
	if (err == RS_OK)
		err = conv_sweep(ctl->sp, shard, clock_wall_ms(),
		    ctl->conf->session_ttl * 1000, &sweep->removed);
	close(lock_fd);
	return err;
}

int
ctl_gc(struct ctl *ctl, int argc, char **argv)
{
	struct wake_reply reply = { 0 };
	struct sweep sweep = { 0 };
	enum rs_err err = RS_OK;
	unsigned i;

	(void)argc;
	(void)argv;
	for (i = 0; err == RS_OK && i < SPOOL_SHARDS; i++)
		err = gc_shard(ctl, &sweep);
	if (err == RS_EBUSY) {
		err = wake_gc(ctl->wake, &reply);
		if (err == RS_OK)
			err = reply.err;
	}
	spool_sweep_done(&sweep);
	if (err != RS_OK)
		return ctl_fail("gc", rs_strerror(err));
	printf("removed %llu\n",
	    (unsigned long long)(sweep.removed + reply.count));
	return EXIT_SUCCESS;
}

struct check {
	struct ctl *ctl;
	bool fix;
	uint64_t streams, faults, mended;
};

/* The fold looks into the JSON, too. */
static enum rs_err
scan(const struct spool_reader *r, struct stream_tail *tail)
{
	struct fold *fold = NULL;
	enum rs_err err;

	if ((err = fold_new(SIZE_MAX, &fold)) == RS_OK)
		err = spool_scan(r, fold, tail);
	fold_free(fold);
	return err;
}

/* What is wrong with a stream; NULL: nothing, or it is being written. */
static const char *
fault_of(struct ctl *ctl, const struct stream_key *k, struct stream_tail *tail)
{
	enum rs_err alive = RS_OK;
	struct spool_reader r;
	const char *fault = NULL;
	enum rs_err err;

	if ((err = spool_find(ctl->sp, k, &r)) != RS_OK)
		return err == RS_ENOENT ? NULL : err == RS_ECORRUPT ?
		    "no head" : rs_strerror(err);
	err = scan(&r, tail);
	/* Without a writer it may have ended since it was looked at. */
	if (err == RS_OK && !tail->ended &&
	    (alive = wake_alive(ctl->wake, k, &r.head)) != RS_OK)
		err = scan(&r, tail);
	if (err != RS_OK)
		fault = rs_strerror(err);
	else if (tail->ended && tail->torn)
		fault = "bytes behind the end";
	else if (!tail->ended && alive != RS_OK)
		fault = alive == RS_ETIMEOUT ? "its writer does not answer" :
		    tail->torn ? "damaged" : "its writer is dead";
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
		if (ctl_seal(c->ctl, k) == RS_OK)
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
	struct check c = { .ctl = ctl };
	enum rs_err err;

	if (argc == 1 && strcmp(argv[0], "--fix") != 0) {
		ctl_fail("check", "unknown argument");
		return CTL_USAGE;
	}
	c.fix = argc == 1;
	err = spool_each(ctl->sp, NULL, check_fn, &c);
	if (err != RS_OK)
		return ctl_fail("check", rs_strerror(err));
	printf("streams %llu, faults %llu, mended %llu\n",
	    (unsigned long long)c.streams, (unsigned long long)c.faults,
	    (unsigned long long)c.mended);
	return c.faults == c.mended ? EXIT_SUCCESS : CTL_FAULT;
}
