/* metrics_text.c - the sums as Prometheus reads them. */
#include <inttypes.h>
#include <string.h>

#include "clock.h"
#include "metrics.h"
#include "money.h"
#include "text.h"

static void
put_label(struct buf *b, const char *name, const char *label,
    const char *value, uint64_t n)
{
	buf_printf(b, "respool_%s{%s=\"%s\"} %" PRIu64 "\n", name, label,
	    value, n);
}

static void
put_counter_NONE(struct buf *b, const char *name, const uint64_t *cells)
{
	buf_printf(b, "respool_%s %" PRIu64 "\n", name, cells[0]);
}

#define put_gauge_NONE put_counter_NONE

static void
put_counter_RESULT(struct buf *b, const char *name, const uint64_t *cells)
{
	static const char *const results[RESULTS] = {
		[RESULT_finished] = "finished", [RESULT_failed] = "failed",
		[RESULT_stopped] = "stopped", [RESULT_lost] = "lost",
	};
	int i;

	for (i = 0; i < RESULTS; i++)
		put_label(b, name, "result", results[i], cells[i]);
}

/* Those that may be expected are there from the beginning. */
static void
put_types(struct buf *b, const char *name, const uint64_t *cells,
    bool of_frames)
{
	const struct errtype_info *t;
	int i;

	for (i = ERRTYPE_none + 1; i < ERRTYPE_COUNT; i++) {
		t = errtype_info((enum errtype)i);
		if ((t->status == 0) == of_frames || cells[i] > 0)
			put_label(b, name, "type", t->name, cells[i]);
	}
}

static void
put_counter_FRAME_TYPE(struct buf *b, const char *name, const uint64_t *cells)
{
	put_types(b, name, cells, true);
}

static void
put_counter_REPLY_TYPE(struct buf *b, const char *name, const uint64_t *cells)
{
	put_types(b, name, cells, false);
}

static void
put_counter_CODE(struct buf *b, const char *name, const uint64_t *cells)
{
	static const char *const codes[] = {
#define X(code) #code,
		METRICS_CODES(X)
#undef X
		"other"
	};
	size_t i;

	for (i = 0; i < sizeof codes / sizeof codes[0]; i++)
		put_label(b, name, "code", codes[i], cells[i]);
}

static void
put_histogram_NONE(struct buf *b, const char *name, const uint64_t *cells)
{
	static const char *const bounds[] = {
#define X(ns, text) text,
		METRICS_BUCKETS(X)
#undef X
		"+Inf"
	};
	uint64_t count = 0, sum = cells[METRICS_BUCKET_COUNT + 1];
	size_t i;

	for (i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
		count += cells[i];
		buf_printf(b, "respool_%s_bucket{le=\"%s\"} %" PRIu64 "\n",
		    name, bounds[i], count);
	}
	buf_printf(b, "respool_%s_sum %" PRIu64 ".%09" PRIu64 "\n"
	    "respool_%s_count %" PRIu64 "\n", name,
	    (uint64_t)(sum / NS_PER_S), (uint64_t)(sum % NS_PER_S), name,
	    count);
}

/* A label's value from outside. */
static void
put_value(struct buf *b, const char *s)
{
	size_t n = strlen(s), i, len;

	for (i = 0; i < n; i += len) {
		len = utf8_char(s + i, n - i);
		if (len == 0) {
			buf_puts(b, "?");
			len = 1;
		} else if (s[i] == '\n') {
			buf_puts(b, "\\n");
		} else {
			if (s[i] == '"' || s[i] == '\\')
				buf_puts(b, "\\");
			buf_add(b, s + i, len);
		}
	}
}

static void
put_tokens_total(struct buf *b, const struct metrics_sums *s)
{
	static const char *const kinds[KINDS] = {
		[KIND_input] = "input", [KIND_output] = "output",
		[KIND_cache_read] = "cache_read",
		[KIND_cache_write] = "cache_write",
	};
	const struct metrics_model *m;
	int k;

	for (m = s->models; m < &s->models[s->model_count]; m++)
		for (k = 0; k < KINDS; k++) {
			buf_puts(b, "respool_tokens_total{model=\"");
			put_value(b, m->name);
			buf_printf(b, "\",kind=\"%s\"} %" PRIu64 "\n",
			    kinds[k], m->tokens[k]);
		}
}

static void
put_cost_usd_total(struct buf *b, const struct metrics_sums *s)
{
	const struct metrics_model *m;

	for (m = s->models; m < &s->models[s->model_count]; m++) {
		buf_puts(b, "respool_cost_usd_total{model=\"");
		put_value(b, m->name);
		buf_puts(b, "\"} ");
		money_put(b, m->cost);
		buf_puts(b, "\n");
	}
}

static void
put_spool_free_bytes(struct buf *b, const struct metrics_sums *s)
{
	put_counter_NONE(b, "spool_free_bytes", &s->spool_free_bytes);
}

static void
put_metrics_shared(struct buf *b, const struct metrics_sums *s)
{
	buf_printf(b, "respool_metrics_shared %d\n", s->shared);
}

static void
put_build_info(struct buf *b, const struct metrics_sums *s)
{
	(void)s;
	buf_puts(b, "respool_build_info{version=\"" PACKAGE_VERSION "\"} 1\n");
}

static void
put_family(struct buf *b, const char *name, const char *kind, const char *text)
{
	buf_printf(b, "# HELP respool_%s %s\n# TYPE respool_%s %s\n", name,
	    text, name, kind);
}

void
metrics_put(struct buf *b, const struct metrics_sums *s)
{
#define METRIC(name, kind, label, text)           \
	put_family(b, #name, #kind, text);        \
	put_##kind##_##label(b, #name, &s->cells[METRIC_##name]);
#define FACT(name, text)                          \
	put_family(b, #name, "gauge", text);      \
	put_counter_NONE(b, #name, &s->facts[FACT_##name]);
#define OTHER(name, kind, text)                   \
	put_family(b, #name, #kind, text);        \
	put_##name(b, s);
#include "metrics_table.h"
#undef METRIC
#undef FACT
#undef OTHER
}
