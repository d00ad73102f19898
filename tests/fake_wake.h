/* fake_wake.h - a spooler and a loop that do what a test says. */
#ifndef RESPOOL_FAKE_WAKE_H
#define RESPOOL_FAKE_WAKE_H

#include <stdbool.h>
#include <stdint.h>
#include "buf.h"
#include "spool.h"
#include "wake.h"

struct fake_wake {
	struct spool *spool;
	/* What requests are answered; by default the spool's mutator does what
	 * they ask for. */
	enum rs_err err;
	struct wake_reply reply;
	bool alive;		/* the writers of all streams */
	/* Just before the next start, a stream with its key is made by
	 * another request, with this hash. */
	const char *first_request;
	/* What was asked. */
	unsigned starts, seals, stops, deletes;
	struct wake_start start;
	struct buf prompt;
	/* The last client handed to the loop, which ends it. */
	unsigned follows, wholes; /* all; of one answer */
	struct stream_key followed;
	uint64_t off, next_id;
};
extern struct fake_wake fake_wake;

void fake_wake_init(struct spool *sp);
void fake_wake_done(void);

#endif
