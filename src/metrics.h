/* metrics.h - counters in SPOOL/metrics, a file that all processes of a spool
 * map: one row of metrics_table.h each.
 *
 * The file has a head (magic, a hash of the layout, its size), the facts, a
 * table of models, and slots.  A process has one slot, which it holds by an
 * OFD lock on the slot's bytes for as long as it lives; whoever comes to hold
 * the slot of a dead one goes on with its counters and zeroes its gauges.  In
 * a sum counters of all slots count, gauges only of slots that are held.  The
 * first slot is nobody's: who finds no free one counts there, but for gauges.
 *
 * A process that cannot have the file (no space, no right, another layout)
 * counts for itself, as all do before metrics_open; so does one under which a
 * page of the file goes away.  Nothing fails for want of a counter.
 *
 * Process-global, any thread. */
#ifndef RESPOOL_METRICS_H
#define RESPOOL_METRICS_H

#include <stdbool.h>
#include <stdint.h>
#include "buf.h"
#include "delta.h"
#include "errtype.h"
#include "model.h"
#include "spool.h"

#define METRICS_FILE "metrics"
#define METRICS_TMP ".metrics-"	/* what a crash may leave begins so */

enum metrics_result {
	RESULT_finished, RESULT_failed, RESULT_stopped, RESULT_lost,
	RESULTS
};

/* Upper bounds of the histograms' buckets, in ns; one more has the rest. */
#define METRICS_BUCKETS(X)                                              \
	X(1000000, "0.001") X(2500000, "0.0025") X(5000000, "0.005")    \
	X(10000000, "0.01") X(25000000, "0.025") X(50000000, "0.05")    \
	X(100000000, "0.1") X(250000000, "0.25") X(500000000, "0.5")    \
	X(1000000000, "1") X(2500000000, "2.5") X(5000000000, "5")      \
	X(10000000000, "10") X(30000000000, "30") X(60000000000, "60")
/* HTTP statuses with a cell of their own; the rest shares one. */
#define METRICS_CODES(X)                                                \
	X(200) X(204) X(301) X(304) X(400) X(401) X(403) X(404) X(405)  \
	X(409) X(413) X(415) X(429) X(500) X(502) X(503)

/* Cells of a row: enum metrics_cells. */
#define X(...) + 1
enum {
	METRICS_BUCKET_COUNT = 0 METRICS_BUCKETS(X),
	METRICS_CODE_COUNT = 0 METRICS_CODES(X),
};
#undef X
enum metrics_cells {
	CELLS_counter_NONE = 1,
	CELLS_counter_RESULT = RESULTS,
	CELLS_counter_FRAME_TYPE = ERRTYPE_COUNT,
	CELLS_counter_REPLY_TYPE = ERRTYPE_COUNT,
	CELLS_counter_CODE = METRICS_CODE_COUNT + 1,
	CELLS_gauge_NONE = 1,
	/* the buckets, the last one without a bound, and the sum */
	CELLS_histogram_NONE = METRICS_BUCKET_COUNT + 2,
};

/* METRIC_name is the first cell of a row.  Of a row with a label add the
 * value: METRIC_streams_total + RESULT_failed, METRIC_errors_total +
 * ERRTYPE_auth; of CODE: metrics_code. */
enum metric {
#define METRIC(name, kind, label, text) METRIC_##name, \
	METRIC_##name##_last = METRIC_##name + CELLS_##kind##_##label - 1,
#define FACT(name, text)
#define OTHER(name, kind, text)
#include "metrics_table.h"
#undef METRIC
#undef FACT
#undef OTHER
	METRIC_COUNT
};

enum metrics_fact {
#define METRIC(name, kind, label, text)
#define FACT(name, text) FACT_##name,
#define OTHER(name, kind, text)
#include "metrics_table.h"
#undef METRIC
#undef FACT
#undef OTHER
	FACT_COUNT
};

void metrics_add(unsigned cell, uint64_t n);		/* of a counter */
void metrics_gauge(unsigned cell, int64_t change);	/* of a gauge */
void metrics_observe(unsigned histogram, uint64_t ns);
/* The cell of a status. */
unsigned metrics_code(int status);

/* What is so now; for the mutator only. */
void metrics_fact(enum metrics_fact fact, uint64_t value);

/* A settled generation: adds what is known of usage and cost (picodollars) to
 * the model's sums.  Those that come when the table is full share the sums of
 * METRICS_OTHER. */
#define METRICS_OTHER "other"
void metrics_model(const char *model, const struct usage *u, uint64_t cost);

/* Maps the spool's file, makes it when it is missing, claims a slot, and adds
 * there what was counted so far.  sp is lent until metrics_close; mutator: we
 * are, and replace a file of another layout.  Sets a handler for SIGBUS, and
 * ignores SIGXFSZ.
 * On failure it counts for itself: RS_ENOSPC, RS_EPERM; RS_ECORRUPT: of another
 * layout, or no file of the spool's owner; RS_ENOENT: only the owner makes it;
 * RS_EIO, RS_ENOMEM. */
enum rs_err metrics_open(const struct spool *sp, bool mutator);
/* Once in a while, in processes that live long: tries again when there was no
 * file to be had, or the name is another file's now.  Looks at most once in
 * 10 s. */
void metrics_again(void);
/* Gives up the slot, and being the mutator. */
void metrics_close(void);

/* ---- reading ---- */

#define METRICS_MODELS 64
enum metrics_kind {
	KIND_input, KIND_output, KIND_cache_read, KIND_cache_write,
	KINDS
};
struct metrics_model {
	char name[MODEL_NAME_MAX + 1];
	uint64_t tokens[KINDS];
	uint64_t cost;
};
struct metrics_sums {
	bool shared;		/* over all processes */
	uint64_t cells[METRIC_COUNT];
	uint64_t facts[FACT_COUNT];
	uint64_t spool_free_bytes; /* for the caller to fill in */
	size_t model_count;
	struct metrics_model models[METRICS_MODELS]; /* names differ */
};
void metrics_sum(struct metrics_sums *ret);

/* ---- metrics_text.c ---- */

/* Adds them as Prometheus reads them (text format 0.0.4). */
void metrics_put(struct buf *b, const struct metrics_sums *s);

#endif
