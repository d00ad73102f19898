/* ctl_spool.c - respoolctl gc, check. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "ctl.h"
#include "fold.h"
#include "sweeper.h"

#define GC_SLICE_NS (100 * NS_PER_MS)
#define WHYS (SWEEP_LEFTOVER + 1)

/* A slice in the spooler's place.  The lock is not kept for longer: who wants
 * to start a spooler waits for it. */
static enum rs_err
gc_slice(struct ctl *ctl, struct sweeper *sw)
{
	enum rs_err err;
	int lock_fd;

	if ((err = spool_lock_mutator(ctl->sp, &lock_fd)) != RS_OK)
		return err;
	sweeper_slice(sw, GC_SLICE_NS);
	close(lock_fd);
	return sw->err;
}

struct gc_sums {
	unsigned long long files[WHYS], bytes[WHYS];
};

static void
gc_print(const char *name, enum sweep_why why, uint64_t bytes, void *arg)
{
	static const char *const whys[WHYS] = {
		[SWEEP_TTL] = "ttl", [SWEEP_CAP] = "cap",
		[SWEEP_LEFTOVER] = "left-over",
	};
	struct gc_sums *sums = arg;

	sums->files[why]++;
	sums->bytes[why] += bytes;
	printf("%-9s %12llu %s\n", whys[why], (unsigned long long)bytes, name);
}

/* Only looks, which a user of the spool's group may do too. */
static enum rs_err
gc_dry(struct sweeper *sw, struct gc_sums *sums)
{
	const unsigned long long *f = sums->files, *b = sums->bytes;

	sw->streams.dry = sw->convs.dry = true;
	sw->streams.gone = sw->convs.gone = gc_print;
	sw->streams.arg = sw->convs.arg = sums;
	while (sw->err == RS_OK && sweeper_busy(sw))
		sweeper_slice(sw, NS_PER_S);
	printf("would remove %llu files of %llu bytes: ttl %llu of %llu, "
	    "cap %llu of %llu, left-over %llu of %llu\n",
	    f[0] + f[1] + f[2], b[0] + b[1] + b[2], f[SWEEP_TTL], b[SWEEP_TTL],
	    f[SWEEP_CAP], b[SWEEP_CAP], f[SWEEP_LEFTOVER], b[SWEEP_LEFTOVER]);
	printf("would keep %llu streams of %llu bytes, conversations of %llu "
	    "bytes\n", (unsigned long long)sw->stock.files,
	    (unsigned long long)sw->stock.bytes,
	    (unsigned long long)sw->stock.conv_bytes);
	return sw->err;
}

static enum rs_err
gc(struct ctl *ctl, struct sweeper *sw)
{
	struct wake_reply reply = { 0 };
	enum rs_err err = RS_OK;

	while (err == RS_OK && sweeper_busy(sw))
		err = gc_slice(ctl, sw);
	if (err == RS_EBUSY) {
		err = wake_gc(ctl->wake, &reply);
		if (err == RS_OK)
			err = reply.err;
	}
	if (err == RS_OK)
		printf("removed %llu\n", (unsigned long long)
		    (sweeper_removed(sw) + reply.count));
	return err;
}

int
ctl_gc(struct ctl *ctl, int argc, char **argv)
{
	struct gc_sums sums = { { 0 }, { 0 } };
	struct sweeper sweeper;
	enum rs_err err;

	if (argc == 1 && strcmp(argv[0], "--dry-run") != 0) {
		ctl_fail("gc", "unknown argument");
		return CTL_USAGE;
	}
	sweeper_init(&sweeper, ctl->conf, ctl->sp, SIZE_MAX);
	sweeper.stock.quiet = true;
	sweeper_pass(&sweeper);
	err = argc == 1 ? gc_dry(&sweeper, &sums) : gc(ctl, &sweeper);
	sweeper_done(&sweeper);
	return err == RS_OK ? EXIT_SUCCESS :
	    ctl_fail("gc", rs_strerror(err));
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
check_fn(const struct stream_key *k, int64_t mtime_ms, void *arg)
{
	struct check *c = arg;
	struct stream_tail tail = { 0 };
	const char *fault = fault_of(c->ctl, k, &tail);

	(void)mtime_ms;
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
