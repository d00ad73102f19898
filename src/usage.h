/* usage.h - what was bought, counted once per generation.
 *
 *	SPOOL/usage/YYYY-MM-DD.jsonl, UTC, one JSON object a line, appended
 *	with one write:
 *	{"type":"reserve","time":"2031-05-04T10:22:07.113Z","owner":"HASH",
 *	 "stream_id":"ID","created":MS,"model":"M","address":"KEY",
 *	 "tokens":4121,"cost":0.0025}
 *	{"type":"settle", ... up to the model, "usage":{...},
 *	 "total_cost":0.0006,"estimated":false,"finish_reason":"stop" or
 *	 "error_type":"...","partial":true with error_type and when stopped,
 *	 "unused":true when nothing can have been used,
 *	 "upstream_cost":"0.00061" when the upstream told one (USD, its text)}
 *	{"type":"recovered","time":...,"open":[{as in a reserve}]}
 * The model is the one that was asked for in a reserve, and the one that
 * answered in a settle.  address, where it is known, is address_key's; tokens
 * and cost are the worst case, cost null for a model without prices.
 * A reserve is written before the upstream is called, a settle before the
 * terminal frame; a generation is owner, stream_id and created together, and
 * its first settle counts: repeats do no harm.  A recovered line says that of
 * all the reserves before it only those in its list had no settle. */
#ifndef RESPOOL_USAGE_H
#define RESPOOL_USAGE_H

#include "address.h"
#include "dialect.h"
#include "err.h"
#include "spool.h"

/* What a generation may come to. */
struct usage_worst {
	char address[ADDRESS_KEY_SIZE];	/* whose it is counted as; "": not
					 * known */
	uint64_t tokens;	/* input and output */
	uint64_t cost;		/* picodollars, or MONEY_UNKNOWN */
};

struct usage_generation {
	struct stream_key key;
	int64_t created_ms;
	char model[MODEL_NAME_MAX + 1];
	struct usage_worst worst;
	struct usage_generation *next; /* for lists; else NULL */
};
void usage_generations_free(struct usage_generation *list);

/* RS_OK, RS_ENOSPC, RS_EIO.  A line that was cut short stays, and the next one
 * begins on a line of its own. */
enum rs_err usage_reserve(struct spool *sp, const struct stream_key *k,
    const struct stream_head *h, const struct usage_worst *w);
enum rs_err usage_settle(struct spool *sp, const struct stream_key *k,
    const struct stream_head *h, const struct ending *e);

/* At a spooler's start: seals each reserved generation without a settle whose
 * lock is free (spool_seal settles it), settles those that have ended, or
 * whose stream is gone, and writes the recovered line if there was anything
 * new.  Lines that are not JSON are passed over.
 * RS_OK also when some could not be sealed: *ret_sealed counts what is settled
 * now, *ret_open is a list of what is left (usage_generations_free).  RS_EIO,
 * RS_ENOSPC, RS_ENOMEM: not all was looked at, or the line is not written; a
 * later call makes up for it. */
enum rs_err usage_recover(struct spool *sp, size_t *ret_sealed,
    struct usage_generation **ret_open);

/* Whether a generation has its settle line: false also when that cannot be
 * read.  Reads all files since it was created: for rare cases. */
bool usage_settled(struct spool *sp, const struct stream_key *k,
    int64_t created_ms);

/* ---- sums ---- */

/* Which generations; NULL: all. */
struct usage_query {
	const char *day;	/* "YYYY-MM-DD", UTC: settled (or, open ones,
				 * reserved) on that day */
	const char *owner_hash;
	const char *model;
};

struct usage_row {
	char model[MODEL_NAME_MAX + 1];
	uint64_t generations;	/* settled; of them: */
	uint64_t failed;	/* ended with an error */
	uint64_t partial;	/* failed or stopped */
	uint64_t estimated;	/* with tokens that we guessed */
	uint64_t unpriced;	/* whose cost is unknown */
	uint64_t open;		/* reserved, and not settled yet */
	struct usage usage;	/* as far as it is known */
	uint64_t cost;		/* of all but the unpriced ones, picodollars */
};

struct usage_sums {
	struct usage_row *rows;	/* by model, sorted by name */
	size_t count;
};

/* Sums the settle lines, of each generation the first one.  Memory: about 30
 * bytes for each generation in the files that are read.
 * RS_OK, also when there is nothing; RS_EIO, RS_ENOMEM, as spool_dir_open. */
enum rs_err usage_sum(struct spool *sp, const struct usage_query *q,
    struct usage_sums *ret);
void usage_sums_done(struct usage_sums *s);

/* Adds a row's numbers to another one's. */
void usage_row_add(struct usage_row *to, const struct usage_row *row);

#endif
