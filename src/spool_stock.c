/* spool_stock.c - how much there is, and what goes first if it is too much. */
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "spool.h"
#include "spool_impl.h"

#define OLD_MIN 64	/* files that there is room for at first */
#define SLACK 64	/* a cap is kept by this part of it */
#define TICK_MS 20	/* files are dated by a clock that is late by less */

void
stock_done(struct stock *st)
{
	free(st->old);
	st->old = NULL;
	st->old_count = st->old_cap = st->old_next = 0;
}

void
stock_pass(struct stock *st, struct sweep *s)
{
	spool_sweep_done(s);
	st->uncounted = SPOOL_SHARDS;
	st->old_count = st->old_next = 0;
	/* What is appended to while the pass goes on may be seen by it or not,
	 * so that of two such files the older one may be missing. */
	st->old_before_ns = st->quiet ? INT64_MAX :
	    (clock_wall_ms() - TICK_MS) * (int64_t)NS_PER_MS;
	st->evicted = st->evicted_bytes = 0;
}

/* ---- the sums ---- */

/* Of two sums, as much as the one that is part of the other has. */
static void
take(uint64_t *part, uint64_t *sum, uint64_t n)
{
	if (n > *part)
		n = *part; /* it was counted when it was smaller */
	*part -= n;
	*sum -= n;
}

static void
set(uint64_t *part, uint64_t *sum, uint64_t n)
{
	*sum += n - *part;
	*part = n;
}

void
stock_grow(struct stock *st, unsigned files, uint64_t bytes)
{
	st->files += files;
	st->bytes += bytes;
}

/* A change in the shard that is being counted: what has been seen of it may
 * have it in it, or not. */
static unsigned
changed_shard(struct sweep *s, const struct stream_key *k)
{
	char name[SPOOL_NAME_SIZE];
	unsigned shard;

	stream_file_name(k, name);
	shard = spool_shard(name);
	if (s->shard == shard)
		spool_sweep_done(s);
	return shard;
}

void
stock_end(struct stock *st, struct sweep *s, const struct stream_key *k,
    uint64_t bytes)
{
	unsigned shard = changed_shard(s, k);

	st->shards[shard].files++;
	st->shards[shard].bytes += bytes;
}

void
stock_drop(struct stock *st, struct sweep *s, const struct stream_key *k,
    uint64_t bytes)
{
	unsigned shard = changed_shard(s, k);

	take(&st->shards[shard].files, &st->files, 1);
	take(&st->shards[shard].bytes, &st->bytes, bytes);
}

static bool
above(uint64_t n, uint64_t max, bool below)
{
	return max > 0 && n > (below ? max - max / SLACK : max);
}

bool
stock_over(struct stock *st)
{
	uint64_t conv = st->conv_bytes;

	if (conv > st->max_bytes / 2)
		conv = st->max_bytes / 2;
	st->over = above(st->files, st->max_files, st->over) ||
	    above(st->bytes + conv, st->max_bytes, st->over);
	return st->over;
}

/* ---- a pass ---- */

static int
old_cmp(const void *a, const void *b)
{
	const struct stock_file *x = a, *y = b;

	if (x->mtime_ns != y->mtime_ns)
		return x->mtime_ns < y->mtime_ns ? -1 : 1;
	return strcmp(x->name, y->name);
}

static void
old_sort(struct stock *st)
{
	if (st->old_count > 0)
		qsort(st->old, st->old_count, sizeof *st->old, old_cmp);
}

/* Room for one more: by more memory, while there is some to be had, then by
 * leaving out the newer half. */
static bool
old_room(struct stock *st)
{
	size_t cap = st->old_cap > 0 ? 2 * st->old_cap : OLD_MIN;
	struct stock_file *all = NULL;

	if (st->old_count < st->old_cap)
		return true;
	if (cap <= st->max_old)
		all = reallocarray(st->old, cap, sizeof *all);
	if (all != NULL) {
		st->old = all;
		st->old_cap = cap;
		return true;
	}
	if (st->old_count < 2)
		return false;
	old_sort(st);
	st->old_count /= 2;
	st->old_before_ns = st->old[st->old_count].mtime_ns;
	return true;
}

void
stock_note(struct stock *st, const struct stock_file *f)
{
	if (st->uncounted == 0 || (st->max_bytes == 0 && st->max_files == 0) ||
	    f->mtime_ns >= st->old_before_ns || !old_room(st) ||
	    f->mtime_ns >= st->old_before_ns)
		return;
	st->old[st->old_count++] = *f;
}

void
stock_skip(struct stock *st)
{
	if (st->uncounted > 0 && --st->uncounted == 0)
		old_sort(st);
}

void
stock_shard(struct stock *st, unsigned shard, uint64_t files, uint64_t bytes)
{
	set(&st->shards[shard].files, &st->files, files);
	set(&st->shards[shard].bytes, &st->bytes, bytes);
	stock_skip(st);
}

void
stock_conv(struct stock *st, unsigned shard, uint64_t bytes)
{
	set(&st->shards[shard].conv_bytes, &st->conv_bytes, bytes);
}
