/* usage.h - what was bought, counted once per generation.
 *
 *	SPOOL/usage/YYYY-MM-DD.jsonl, UTC, one JSON object a line, appended
 *	with one write:
 *	{"type":"reserve","time":"2031-05-04T10:22:07.113Z","owner":"HASH",
 *	 "stream_id":"ID","created":MS,"model":"M"}
 *	{"type":"settle", ... the same, "usage":{...},"total_cost":0.0006,
 *	 "estimated":false,"finish_reason":"stop" or "error_type":"...",
 *	 "partial":true with error_type and when stopped}
 *	{"type":"recovered","time":...,
 *	 "open":[{"owner","stream_id","created","model"}]}
 * A reserve is written before the upstream is called, a settle before the
 * terminal frame; a generation is owner, stream_id and created together, and
 * its first settle counts: repeats do no harm.  A recovered line says that of
 * all the reserves before it only those in its list had no settle. */
#ifndef RESPOOL_USAGE_H
#define RESPOOL_USAGE_H

#include "dialect.h"
#include "err.h"
#include "spool.h"

/* RS_OK, RS_ENOSPC, RS_EIO.  A line that was cut short stays, and the next one
 * begins on a line of its own. */
enum rs_err usage_reserve(struct spool *sp, const struct stream_key *k,
    const struct stream_head *h);
enum rs_err usage_settle(struct spool *sp, const struct stream_key *k,
    const struct stream_head *h, const struct ending *e);

/* At a spooler's start: seals each reserved generation without a settle whose
 * lock is free (spool_seal settles it), settles those that have ended, or
 * whose stream is gone, and writes the recovered line if there was anything
 * new.  Lines that are not JSON are passed over.
 * RS_OK also when some could not be sealed: *ret_sealed counts what is settled
 * now, *ret_open what is left.  RS_EIO, RS_ENOSPC, RS_ENOMEM: not all was
 * looked at, or the line is not written; a later call makes up for it. */
enum rs_err usage_recover(struct spool *sp, size_t *ret_sealed,
    size_t *ret_open);

#endif
