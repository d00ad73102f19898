/* sweeper.c - which slice of sweeping is next. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "conv.h"
#include "log.h"
#include "metrics.h"
#include "sweeper.h"

/* When a pass has found nothing to remove: this many times as long as it took
 * until the next one for that reason, and so long if no stream ends. */
#define AGAIN_TIMES 10
#define AGAIN_NS NS_PER_S
#define TELL_AFTER_NS (5 * NS_PER_S)
#define TELL_EVERY_NS (60 * NS_PER_S)

static void
on_gone(const char *name, enum sweep_why why, uint64_t bytes, void *arg)
{
	struct stream_key k;

	(void)arg;
	if (stream_key_parse(name, &k) == RS_OK)
		log_info("spool", "stream=%s removed pid=%d why=%s bytes=%llu",
		    k.id, (int)getpid(), why == SWEEP_TTL ? "ttl" : "cap",
		    (unsigned long long)bytes);
}

void
sweeper_init(struct sweeper *sw, const struct conf *conf, struct spool *sp,
    size_t max_old)
{
	*sw = (struct sweeper){
		.sp = sp, .conf = conf,
		.stock = {
			.max_bytes = conf->max_spool_bytes,
			.max_files = conf->max_spool_files,
			.max_old = max_old,
		},
		.streams = { .stock = &sw->stock, .gone = on_gone },
		.convs = { .stock = &sw->stock },
	};
}

void
sweeper_done(struct sweeper *sw)
{
	spool_sweep_done(&sw->streams);
	spool_sweep_done(&sw->convs);
	stock_done(&sw->stock);
}

uint64_t
sweeper_removed(const struct sweeper *sw)
{
	return sw->streams.removed + sw->convs.removed;
}

void
sweeper_pass(struct sweeper *sw)
{
	stock_pass(&sw->stock, &sw->streams);
	sw->err = RS_OK;
	sw->pass_ns = clock_mono_ns();
}

bool
sweeper_busy(struct sweeper *sw)
{
	struct stock *st = &sw->stock;

	return st->uncounted > 0 || (stock_over(st) &&
	    (st->old_next < st->old_count ||
	    (st->evicted > 0 && !sw->streams.dry)));
}

static void
tell_facts(const struct sweeper *sw)
{
	if (!sw->known || sw->streams.dry)
		return;
	metrics_fact(FACT_spool_bytes, sw->stock.bytes +
	    sw->stock.conv_bytes);
	metrics_fact(FACT_spool_files, sw->stock.files);
}

static void
tell_stuck(struct sweeper *sw, uint64_t now)
{
	const struct stock *st = &sw->stock;

	if (sw->stuck_ns == 0)
		sw->stuck_ns = now;
	if (now - sw->stuck_ns < TELL_AFTER_NS ||
	    (sw->told_ns != 0 && now - sw->told_ns < TELL_EVERY_NS))
		return;
	sw->told_ns = now;
	log_warn("spool", "above its cap, and nothing can be removed pid=%d "
	    "files=%llu bytes=%llu conversation_bytes=%llu", (int)getpid(),
	    (unsigned long long)st->files, (unsigned long long)st->bytes,
	    (unsigned long long)st->conv_bytes);
}

/* Too much is there, and all that the last pass has noted is gone or cannot
 * go: another pass is made at once when that one has removed something. */
static void
look_again(struct sweeper *sw)
{
	uint64_t now = clock_mono_ns();

	if (sw->stock.uncounted > 0 || sw->streams.dry)
		return;
	if (!stock_over(&sw->stock) || sw->stock.evicted > 0)
		sw->stuck_ns = 0;
	else
		tell_stuck(sw, now);
	if (sw->stock.over && (sw->stock.evicted > 0 || now >= sw->again_ns))
		sweeper_pass(sw);
}

/* Of a shard the conversations, then the streams. */
static void
sweep_shard(struct sweeper *sw, uint64_t budget_ns)
{
	int64_t wall_ms = clock_wall_ms();
	enum rs_err err;
	bool done;

	if (sw->convs.shard == sw->streams.shard)
		err = conv_sweep(sw->sp, &sw->convs, wall_ms,
		    sw->conf->session_ttl * 1000, budget_ns, &done);
	else
		err = spool_sweep(sw->sp, &sw->streams, wall_ms, budget_ns,
		    &done);
	if (sw->err == RS_OK)
		sw->err = err;
}

static void
pass_done(struct sweeper *sw, uint64_t now)
{
	sw->known = true;
	sw->ended_ns = now + AGAIN_TIMES * (now - sw->pass_ns);
	sw->again_ns = sw->ended_ns + AGAIN_NS;
}

bool
sweeper_slice(struct sweeper *sw, uint64_t budget_ns)
{
	uint64_t start = clock_mono_ns(), now = start;

	if (spool_evict(sw->sp, &sw->streams, budget_ns)) {
		tell_facts(sw);
		return true;
	}
	look_again(sw);
	if (sw->stock.uncounted == 0) {
		sweep_shard(sw, budget_ns);
	} else {
		do {
			sweep_shard(sw, budget_ns - (now - start));
			now = clock_mono_ns();
		} while (sw->stock.uncounted > 0 && now - start < budget_ns);
		if (sw->stock.uncounted == 0)
			pass_done(sw, now);
	}
	tell_facts(sw);
	return sweeper_busy(sw) || sw->streams.dir != NULL ||
	    sw->convs.shard != sw->streams.shard;
}

bool
sweeper_moved(struct sweeper *sw, const struct stream_key *k,
    uint64_t *counted, uint64_t bytes, bool ended)
{
	stock_grow(&sw->stock, *counted == 0, bytes - *counted);
	*counted = bytes;
	if (!ended)
		return false;
	stock_end(&sw->stock, &sw->streams, k, bytes);
	sw->again_ns = sw->ended_ns;
	tell_facts(sw);
	return stock_over(&sw->stock);
}

void
sweeper_dropped(struct sweeper *sw, const struct stream_key *k,
    uint64_t bytes)
{
	stock_drop(&sw->stock, &sw->streams, k, bytes);
	tell_facts(sw);
}
