/* quota.h - how much: limits per owner, per address, and for all.
 *
 * The usage files are the truth.  A quota is a fold of them, kept up to date
 * by reading what was appended since the last decision, by whatever spooler:
 * it has no state of its own that a kill could lose.
 *
 *	streams	reserves without a settle
 *	starts	reserves of the last minute
 *	tokens	of the generations that were started today: what they used,
 *	cost	or their worst case while they are open, and for good when
 *		nobody knows what they used
 * Today is a day of the process's time zone. */
#ifndef RESPOOL_QUOTA_H
#define RESPOOL_QUOTA_H

#include <stdbool.h>
#include <stdint.h>
#include "conf.h"
#include "model.h"
#include "spool.h"
#include "usage.h"

struct json_object;
struct quota;

/* One of the limits is set; one of those by tokens or cost is. */
bool quota_wanted(const struct conf *c);
bool quota_reserves(const struct conf *c);

/* Reads nothing yet.  conf and sp are lent.  RS_OK, RS_ENOMEM. */
enum rs_err quota_new(const struct conf *c, struct spool *sp,
    struct quota **ret);
void quota_free(struct quota *q);

/* What usage_recover has found open: from now on nothing else is that was
 * reserved before.  RS_OK, RS_ENOMEM (it is as if it had not been called). */
enum rs_err quota_recovered(struct quota *q,
    const struct usage_generation *open);

struct quota_refusal {
	const char *limit;	/* the setting's name */
	const char *text;	/* a sentence */
	uint32_t retry_s;	/* until it may be otherwise; 1 or more */
};

/* May one more generation of that owner begin?  What it reserves must be in
 * the usage file before the next call.
 * RS_OK; RS_EBUSY: not now, *ret says why; RS_EIO, RS_ENOMEM ...: the usage
 * files cannot be read, and nobody knows. */
enum rs_err quota_check(struct quota *q, const char *owner_hash,
    const struct usage_worst *w, struct quota_refusal *ret);

/* ---- the worst case: quota_need.c ---- */

/* Fills in tokens and cost of what a prompt ({"messages":[...]}, "system" and
 * "parameters" as of a persona) can come to: a token for each byte that goes
 * in, and the maximum of the model's parameters, or reserve_tokens, out; the
 * most of the model and its fallbacks.  turn: it brings a history along. */
void quota_need(const struct conf *c, const struct model *m,
    struct json_object *prompt, bool turn, struct usage_worst *ret);

/* Output tokens at which an answer of m must be ended here, so that it stays
 * within what was reserved; UINT64_MAX: m's upstream sees to it, or nothing
 * is reserved.  parameters: of a persona, or NULL. */
uint64_t quota_cut(const struct conf *c, const struct model *m,
    struct json_object *parameters);

/* One line for each setting that does not guard what it seems to, or more. */
void quota_warn(const struct conf *c, const struct models *m,
    struct buf *ret);

#endif
