/* usage.c - what was bought, written line by line. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "jx.h"
#include "metrics.h"
#include "money.h"
#include "usage_impl.h"

enum rs_err
usage_append(const struct spool *sp, struct buf *line)
{
	char day[CLOCK_ISO_SIZE + sizeof ".jsonl"];
	enum rs_err err;
	int dir;

	clock_iso(clock_wall_ms(), day);
	strcpy(day + strlen("YYYY-MM-DD"), ".jsonl");
	err = spool_dir_open(sp, sp->fd, "usage", true, &dir);
	if (err != RS_OK)
		return err;
	err = spool_line_append(sp, dir, day, line, false);
	close(dir);
	return err;
}

void
usage_begin(struct buf *b, const char *type)
{
	char now[CLOCK_ISO_SIZE];

	buf_init(b, USAGE_LINE_MAX);
	clock_iso(clock_wall_ms(), now);
	buf_printf(b, "\n{\"type\":\"%s\",\"time\":\"%s\"", type, now);
}

void
usage_put_generation(struct buf *b, const struct stream_key *k,
    int64_t created_ms, const char *model)
{
	buf_printf(b, "\"owner\":\"%s\",\"stream_id\":\"%s\",\"created\":%"
	    PRId64 ",\"model\":", k->owner_hash, k->id, created_ms);
	jx_put_str(b, model, strlen(model));
}

void
usage_put_worst(struct buf *b, const struct usage_worst *w)
{
	if (w->address[0] != '\0')
		buf_printf(b, ",\"address\":\"%s\"", w->address);
	buf_printf(b, ",\"tokens\":%" PRIu64 ",\"cost\":", w->tokens);
	money_put(b, w->cost);
}

enum rs_err
usage_reserve(struct spool *sp, const struct stream_key *k,
    const struct stream_head *h, const struct usage_worst *w)
{
	struct buf b;
	enum rs_err err;

	usage_begin(&b, "reserve");
	buf_puts(&b, ",");
	usage_put_generation(&b, k, h->created_ms, h->model);
	usage_put_worst(&b, w);
	buf_puts(&b, "}\n");
	err = usage_append(sp, &b);
	buf_done(&b);
	return err;
}

/* Whoever was asked refused, or was not even reached: it will not be on any
 * bill, although nobody has told so. */
static bool
was_refused(const struct ending *e)
{
	if (e->first_token_ms != TOKENS_UNKNOWN ||
	    usage_total(&e->usage) != TOKENS_UNKNOWN)
		return false;
	switch (e->error) {
	case ERRTYPE_auth:
	case ERRTYPE_quota:
	case ERRTYPE_rate_limit:
	case ERRTYPE_overloaded:
	case ERRTYPE_upstream_5xx:
	case ERRTYPE_context_length:
	case ERRTYPE_model_not_found:
	case ERRTYPE_bad_request:
	case ERRTYPE_redirect_refused:
	case ERRTYPE_tls:
	case ERRTYPE_connect_failed:
	case ERRTYPE_connect_timeout:
		return true;
	default:
		return false;
	}
}

enum rs_err
usage_settle(struct spool *sp, const struct stream_key *k,
    const struct stream_head *h, const struct ending *e)
{
	bool failed = e->error != ERRTYPE_none;
	struct buf b;
	enum rs_err err;

	usage_begin(&b, "settle");
	buf_puts(&b, ",");
	usage_put_generation(&b, k, h->created_ms,
	    e->model != NULL ? e->model : h->model);
	buf_puts(&b, ",\"usage\":");
	usage_put(&b, &e->usage);
	buf_puts(&b, ",\"total_cost\":");
	money_put(&b, e->cost);
	buf_printf(&b, ",\"estimated\":%s", e->estimated ? "true" : "false");
	if (failed)
		buf_printf(&b, ",\"error_type\":\"%s\"",
		    errtype_info(e->error)->name);
	else
		buf_printf(&b, ",\"finish_reason\":\"%s\"",
		    finish_name(e->finish));
	if (failed || e->finish == FINISH_STOPPED)
		buf_puts(&b, ",\"partial\":true");
	if (was_refused(e))
		buf_puts(&b, ",\"unused\":true");
	if (e->upstream_cost != NULL) {
		buf_puts(&b, ",\"upstream_cost\":");
		jx_put_str(&b, e->upstream_cost, strlen(e->upstream_cost));
	}
	buf_puts(&b, "}\n");
	err = usage_append(sp, &b);
	if (err == RS_OK)
		metrics_model(e->model != NULL ? e->model : h->model,
		    &e->usage, e->cost);
	buf_done(&b);
	return err;
}
