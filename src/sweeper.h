/* sweeper.h - keeps a spool small, slice by slice: what is old goes, and the
 * oldest when there is more than there may be.  What it knows is counted anew
 * by each pass over all shards, so that nothing is kept between processes. */
#ifndef RESPOOL_SWEEPER_H
#define RESPOOL_SWEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "conf.h"
#include "spool.h"

struct sweeper {
	struct spool *sp;
	const struct conf *conf;
	struct stock stock;
	struct sweep streams, convs;
	bool known;		/* a pass has been made: stock is right */
	enum rs_err err;	/* of this pass, the first */
	uint64_t pass_ns;	/* when it began */
	uint64_t again_ns;	/* no other one for want of room before */
	uint64_t ended_ns;	/* or before that, if a stream has ended since */
	uint64_t stuck_ns;	/* since when nothing can be removed; 0: not so */
	uint64_t told_ns;	/* when that was logged last; 0: never */
};

/* Lent: conf and sp.  max_old: how many files it remembers for removal. */
void sweeper_init(struct sweeper *sw, const struct conf *conf,
    struct spool *sp, size_t max_old);
void sweeper_done(struct sweeper *sw);

/* Begins a pass: a look at every shard, and then at the caps. */
void sweeper_pass(struct sweeper *sw);
/* That is not done with yet. */
bool sweeper_busy(struct sweeper *sw);

/* Works for budget_ns at most (one file more, to be exact).  True: the next
 * slice is due soon; false: a shard is done, and there is no hurry. */
bool sweeper_slice(struct sweeper *sw, uint64_t budget_ns);

/* How many files have gone so far. */
uint64_t sweeper_removed(const struct sweeper *sw);

/* For who writes streams: one has come, grown or ended.  *counted: zeroed at
 * first, then the sweeper's.  True: it is time for a slice. */
bool sweeper_moved(struct sweeper *sw, const struct stream_key *k,
    uint64_t *counted, uint64_t bytes, bool ended);
/* One that had ended, with that many bytes, was removed. */
void sweeper_dropped(struct sweeper *sw, const struct stream_key *k,
    uint64_t bytes);

#endif
