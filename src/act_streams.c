/* act_streams.c - /api/v1/streams: list, snapshot, stop, delete */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "fdio.h"
#include "jx.h"
#include "link.h"
#include "log.h"
#include "route.h"

#define LIST_DEFAULT 100
#define LIST_MAX 1000
#define LIST_BYTES_MAX (LIST_MAX * 2048)
#define LINK_S_DEFAULT 86400
#define LINK_S_MIN 60
#define LINK_S_MAX 31536000
#define LINK_BYTES_MAX 1024
#define CLOCK_SLACK_MS 1000 /* by more nothing is younger than its file */
/* What a snapshot has beside the texts of the frames. */
#define SNAPSHOT_EXTRA 65536

enum errtype
stream_open(const struct request *rq, const char *id,
    struct stream_key *ret_key, struct spool_reader *ret)
{
	struct stream_key k;
	struct spool_reader sr;
	enum rs_err err;

	stream_key(&k, rq->owner, id);
	err = spool_find(rq->r->spool, &k, &sr);
	/* The name has 64 bits of the owner's hash, the head the owner. */
	if (err == RS_OK && (strcmp(sr.head.owner, rq->owner) != 0 ||
	    (rq->by_link && sr.head.created_ms != rq->link_created))) {
		spool_reader_done(&sr);
		err = RS_ENOENT;
	}
	if (err == RS_ENOENT)
		return ERRTYPE_stream_not_found;
	if (err != RS_OK) {
		log_warn("stream", "stream=%s not read pid=%d why=\"%s\"", id,
		    (int)getpid(), rs_strerror(err));
		return ERRTYPE_spool_unavailable;
	}
	*ret_key = k;
	*ret = sr;
	return ERRTYPE_none;
}

enum errtype
stream_seal(const struct request *rq, const struct stream_key *k,
    const struct spool_reader *sr, struct stream_tail *ret)
{
	struct wake_reply reply = { .err = RS_OK };
	struct stream_tail tail;
	char quoted[LOG_QUOTE_SIZE];
	enum rs_err err = wake_seal(rq->r->wake, k, &reply);

	if (err == RS_OK)
		err = reply.err;
	if (err == RS_ENOENT)
		return ERRTYPE_stream_not_found;
	if (err == RS_OK && (err = spool_tail(sr, &tail)) == RS_OK) {
		if (tail.ended) {
			*ret = tail;
			return ERRTYPE_none;
		}
		err = RS_ECORRUPT;
	}
	log_warn("stream", "stream=%s not sealed pid=%d why=\"%s\" text=%s",
	    k->id, (int)getpid(), rs_strerror(err),
	    log_quote(quoted, reply.text, strlen(reply.text)));
	return ERRTYPE_spool_unavailable;
}

enum errtype
stream_settle(const struct request *rq, const struct stream_key *k,
    const struct spool_reader *sr, struct stream_tail *ret)
{
	struct stream_tail tail;

	if (spool_tail(sr, &tail) == RS_OK && (tail.ended ||
	    wake_alive(rq->r->wake, k, &sr->head) == RS_OK)) {
		*ret = tail;
		return ERRTYPE_none;
	}
	return stream_seal(rq, k, sr, ret);
}

/* Stops a stream that is not ended yet. */
static enum errtype
stream_end(const struct request *rq, const struct stream_key *k,
    const struct spool_reader *sr, struct stream_tail *ret)
{
	struct wake_reply reply;
	struct stream_tail tail;
	enum rs_err err = spool_tail(sr, &tail);

	if (err != RS_OK || !tail.ended) {
		log_info("stream", "stream=%s was to stop pid=%d", k->id,
		    (int)getpid());
		/* Whatever it answers, the file says whether it has ended. */
		(void)wake_stop(rq->r->wake, k, &sr->head, &reply);
		err = spool_tail(sr, &tail);
	}
	if (err != RS_OK || !tail.ended)
		return stream_seal(rq, k, sr, ret);
	*ret = tail;
	return ERRTYPE_none;
}

/* Opens the stream of the path.  False: the request is answered. */
static bool
path_open(struct request *rq, struct stream_key *ret_key,
    struct spool_reader *ret)
{
	enum errtype t = ERRTYPE_stream_not_found;

	if (spool_id_valid(rq->arg, strlen(rq->arg))) {
		rq->stream = rq->arg;
		t = stream_open(rq, rq->arg, ret_key, ret);
	}
	if (t != ERRTYPE_none)
		reply_error(rq, t, NULL);
	return t == ERRTYPE_none;
}

/* Folds the frames into b. */
static enum rs_err
snapshot_put(const struct request *rq, const struct stream_key *k,
    const struct spool_reader *sr, struct stream_tail *ret, struct buf *b)
{
	/* A live stream may have grown since it was looked at. */
	size_t max = ret->end + rq->r->conf->max_stream_bytes;
	struct fold *fold = NULL;
	enum rs_err err;

	buf_init(b, max + SNAPSHOT_EXTRA);
	if ((err = fold_new(max, &fold)) == RS_OK &&
	    (err = spool_scan(sr, fold, ret)) == RS_OK) {
		fold_put(fold, k->id, sr->head.model, b);
		err = b->err;
	}
	fold_free(fold);
	return err;
}

static void
snapshot_reply(struct request *rq, const struct stream_key *k,
    const struct spool_reader *sr, const struct stream_tail *tail)
{
	struct stream_tail seen = *tail;
	enum errtype t = ERRTYPE_none;
	enum rs_err err;
	struct buf b;

	err = snapshot_put(rq, k, sr, &seen, &b);
	if (err == RS_OK && tail->ended && !seen.ended &&
	    (t = stream_seal(rq, k, sr, &seen)) == ERRTYPE_none) {
		/* Damage in the middle: it ends there now. */
		buf_done(&b);
		err = snapshot_put(rq, k, sr, &seen, &b);
	}
	if (t == ERRTYPE_none && err != RS_OK)
		t = err == RS_EIO ? ERRTYPE_spool_unavailable :
		    ERRTYPE_internal;
	if (t == ERRTYPE_none)
		reply_json(rq, &b);
	else
		reply_error(rq, t, NULL);
	buf_done(&b);
}

/* Answers with the stream of the path, once look has found where it stands. */
static void
look_and_reply(struct request *rq, enum errtype (*look)(
    const struct request *rq, const struct stream_key *k,
    const struct spool_reader *sr, struct stream_tail *ret))
{
	struct spool_reader sr;
	struct stream_tail tail;
	struct stream_key k;
	enum errtype t;

	if (!path_open(rq, &k, &sr))
		return;
	if ((t = look(rq, &k, &sr, &tail)) == ERRTYPE_none)
		snapshot_reply(rq, &k, &sr, &tail);
	else
		reply_error(rq, t, NULL);
	spool_reader_done(&sr);
}

void
act_streams_snapshot(struct request *rq)
{
	look_and_reply(rq, stream_settle);
}

void
act_streams_stop(struct request *rq)
{
	look_and_reply(rq, stream_end);
}

enum errtype
stream_remove(const struct request *rq, const struct stream_key *k,
    const struct spool_reader *sr, struct wake_reply *ret)
{
	struct stream_tail tail;
	enum errtype t = stream_end(rq, k, sr, &tail);
	enum rs_err err;

	memset(ret, 0, sizeof *ret);
	if (t != ERRTYPE_none)
		return t;
	log_info("stream", "stream=%s was to be deleted pid=%d", k->id,
	    (int)getpid());
	err = wake_delete(rq->r->wake, k, ret);
	return err == RS_OK && ret->err == RS_OK ? ERRTYPE_none :
	    ERRTYPE_spool_unavailable;
}

void
act_streams_delete(struct request *rq)
{
	struct wake_reply reply;
	struct spool_reader sr;
	struct stream_key k;
	enum errtype t;

	if (!path_open(rq, &k, &sr))
		return;
	t = stream_remove(rq, &k, &sr, &reply);
	spool_reader_done(&sr);
	if (t == ERRTYPE_none)
		reply_no_content(rq);
	else
		reply_error(rq, t, reply.text);
}

/* A spool of an older version has no secret yet: a spooler makes one at its
 * start, and to seal needs one. */
static enum rs_err
link_get(const struct request *rq, const struct stream_key *k,
    const struct spool_reader *sr, int64_t expires_s, char ret[LINK_SIZE])
{
	const struct spool *sp = rq->r->spool;
	struct wake_reply reply;
	enum rs_err err;

	err = link_make(sp, k, sr->head.created_ms, expires_s, ret);
	if (err == RS_ENOENT &&
	    wake_seal(rq->r->wake, k, &reply) == RS_OK)
		err = link_make(sp, k, sr->head.created_ms, expires_s, ret);
	return err;
}

static void
link_reply(struct request *rq, const struct stream_key *k,
    const struct spool_reader *sr, int64_t expires_s)
{
	char link[LINK_SIZE], iso[CLOCK_ISO_SIZE];
	enum rs_err err = link_get(rq, k, sr, expires_s, link);
	struct buf b;

	if (err != RS_OK) {
		log_warn("link", "stream=%s not shared pid=%d why=\"%s\"",
		    k->id, (int)getpid(), rs_strerror(err));
		reply_error(rq, ERRTYPE_spool_unavailable, NULL);
		return;
	}
	clock_iso(expires_s * 1000, iso);
	log_info("link", "stream=%s shared pid=%d expires=%s", k->id,
	    (int)getpid(), iso);
	buf_init(&b, LINK_BYTES_MAX);
	buf_printf(&b, "{\"stream_id\":\"%s\",\"link\":\"%s\","
	    "\"expires\":\"%s\"}", k->id, link, iso);
	reply_json(rq, &b);
	buf_done(&b);
}

void
act_streams_link(struct request *rq)
{
	int64_t seconds = LINK_S_DEFAULT;
	struct spool_reader sr;
	struct stream_key k;

	if (params_int(rq->params, "expires_in", &seconds) == RS_EINVAL ||
	    seconds < LINK_S_MIN || seconds > LINK_S_MAX) {
		reply_error(rq, ERRTYPE_invalid_request, "expires_in must be "
		    "an integer from 60 to 31536000.");
		return;
	}
	if (!path_open(rq, &k, &sr))
		return;
	link_reply(rq, &k, &sr, clock_wall_ms() / 1000 + seconds);
	spool_reader_done(&sr);
}

struct list_row {
	int64_t time_ms;	/* its last append; of a page: when it began */
	char id[SPOOL_ID_MAX + 1];
};

struct list {
	const struct request *rq;
	struct list_row *rows;
	size_t count, cap;
	bool failed;
	bool deaf;	/* a spooler did not answer: do not wait for more */
};

static bool
list_add(const struct stream_key *k, int64_t mtime_ms, void *arg)
{
	struct list *l = arg;

	if (l->count == l->cap) {
		size_t cap = l->cap > 0 ? l->cap * 2 : 64;
		struct list_row *rows = reallocarray(l->rows, cap,
		    sizeof *rows);

		if (rows == NULL) {
			l->failed = true;
			return false;
		}
		l->rows = rows;
		l->cap = cap;
	}
	l->rows[l->count].time_ms = mtime_ms;
	memcpy(l->rows[l->count].id, k->id, sizeof k->id);
	l->count++;
	return true;
}

/* Newest first. */
static int
list_compare(const void *a, const void *b)
{
	const struct list_row *x = a, *y = b;

	if (x->time_ms != y->time_ms)
		return x->time_ms < y->time_ms ? 1 : -1;
	return strcmp(y->id, x->id);
}

/* Makes the time of the last append that of the beginning.  It cannot have been
 * later, but for a clock that was set back: then it is given a time that is
 * possible, so that who goes by the last append need not read every head.
 * False: the stream is gone, or somebody else's. */
static bool
list_begun(const struct request *rq, struct list_row *row)
{
	struct spool_reader sr;
	struct stream_key k;

	if (stream_open(rq, row->id, &k, &sr) != ERRTYPE_none)
		return false;
	row->time_ms += CLOCK_SLACK_MS;
	if (row->time_ms > sr.head.created_ms)
		row->time_ms = sr.head.created_ms;
	spool_reader_done(&sr);
	return true;
}

/* Puts row into its place among those of the page, of which the last goes when
 * there are more than max. */
static void
page_insert(struct list *page, const struct list_row *row, size_t max)
{
	size_t i = page->count;

	while (i > 0 && list_compare(row, &page->rows[i - 1]) < 0)
		i--;
	if (i == max)
		return;
	if (page->count < max)
		page->count++;
	memmove(&page->rows[i + 1], &page->rows[i],
	    (page->count - 1 - i) * sizeof *row);
	page->rows[i] = *row;
}

/* The first max streams of all in the order of their beginnings, behind the
 * one at before unless that is NULL.  page has room for them. */
static void
page_fill(struct list *all, const struct list_row *before, size_t max,
    struct list *page)
{
	struct list_row row;

	qsort(all->rows, all->count, sizeof *all->rows, list_compare);
	for (size_t i = 0; i < all->count; i++) {
		/* Those that come now began no later than that. */
		if (page->count == max && all->rows[i].time_ms +
		    CLOCK_SLACK_MS < page->rows[max - 1].time_ms)
			break;
		row = all->rows[i];
		if (list_begun(all->rq, &row) &&
		    (before == NULL || list_compare(before, &row) < 0))
			page_insert(page, &row, max);
	}
}

/* What the terminal frame makes of a stream: a fold of that frame alone has
 * the state of the whole. */
static enum fold_state
list_state(const struct spool_reader *sr, const struct stream_tail *tail)
{
	char data[SSE_FRAME_MAX];
	struct fold *fold = NULL;
	struct sse_frame frame;
	enum fold_state state = FOLD_FAILED;
	uint64_t off;
	size_t n;

	if (spool_seek(sr, tail->end, tail->count - 1, &off) != RS_OK ||
	    fd_pread_full(sr->fd, data, sizeof data, (off_t)off, &n) !=
	    RS_OK || sse_frame_scan(data, n, &frame) != SSE_FRAME ||
	    fold_new(sizeof data, &fold) != RS_OK)
		return state;
	frame.id = 0; /* where a fold begins */
	if (fold_add(fold, &frame) == RS_OK)
		state = fold_state(fold);
	fold_free(fold);
	return state;
}

/* The state of a stream as its file says; one whose writer is dead is sealed
 * first. */
static enum fold_state
list_look(struct list *l, const struct stream_key *k,
    const struct spool_reader *sr, struct stream_tail *tail)
{
	enum rs_err err = spool_tail(sr, tail);

	if ((err != RS_OK || !tail->ended) && !l->deaf) {
		err = wake_alive(l->rq->r->wake, k, &sr->head);
		if (err == RS_OK)
			return FOLD_LIVE;
		l->deaf = err == RS_ETIMEOUT || stream_seal(l->rq, k, sr,
		    tail) == ERRTYPE_spool_unavailable;
	}
	return tail->ended ? list_state(sr, tail) : FOLD_LIVE;
}

static void
list_put(struct list *l, const char *id, struct buf *b, bool *first)
{
	const struct request *rq = l->rq;
	struct stream_tail tail = { .count = 0 };
	struct spool_reader sr;
	struct stream_key k;
	enum fold_state state;
	char created[CLOCK_ISO_SIZE];

	if (stream_open(rq, id, &k, &sr) != ERRTYPE_none)
		return; /* swept since */
	state = list_look(l, &k, &sr, &tail);
	clock_iso(sr.head.created_ms, created);
	buf_printf(b, "%s{\"stream_id\":\"%s\",\"state\":\"%s\",\"model\":",
	    *first ? "" : ",", k.id, fold_state_name(state));
	jx_put_str(b, sr.head.model, strlen(sr.head.model));
	buf_printf(b, ",\"created\":\"%s\",\"last_event_id\":%" PRId64 "}",
	    created, (int64_t)tail.count - 1);
	*first = false;
	spool_reader_done(&sr);
}

struct list_ask {
	int64_t limit;
	const char *before;	/* lent; NULL: from the newest on */
};

/* False: the request is answered. */
static bool
list_read(struct request *rq, struct list_ask *ret)
{
	size_t len;
	enum rs_err err;

	ret->limit = LIST_DEFAULT;
	ret->before = NULL;
	err = params_int(rq->params, "limit", &ret->limit);
	if (err == RS_EINVAL || ret->limit < 1 || ret->limit > LIST_MAX) {
		reply_error(rq, ERRTYPE_invalid_request,
		    "limit must be an integer from 1 to 1000.");
		return false;
	}
	err = params_str(rq->params, "before", &ret->before, &len);
	if (err == RS_EINVAL ||
	    (err == RS_OK && !spool_id_valid(ret->before, len))) {
		reply_error(rq, ERRTYPE_invalid_request,
		    "before must be a stream_id.");
		return false;
	}
	return true;
}

static void
list_reply(struct request *rq, struct list *page, size_t limit)
{
	struct buf b;
	size_t i;
	bool first = true;

	buf_init(&b, LIST_BYTES_MAX);
	buf_puts(&b, "{\"streams\":[");
	for (i = 0; i < page->count && i < limit; i++)
		list_put(page, page->rows[i].id, &b, &first);
	buf_printf(&b, "],\"has_more\":%s}",
	    page->count > limit ? "true" : "false");
	reply_json(rq, &b);
	buf_done(&b);
}

/* The row of the stream that the page is to begin behind. */
static enum errtype
list_before(const struct list *all, const char *id, struct list_row *ret)
{
	size_t i;

	for (i = 0; i < all->count; i++) {
		if (strcmp(all->rows[i].id, id) != 0)
			continue;
		*ret = all->rows[i];
		if (list_begun(all->rq, ret))
			return ERRTYPE_none;
	}
	return ERRTYPE_stream_not_found;
}

static enum errtype
list_page(struct list *all, const struct list_ask *ask, struct list *page)
{
	size_t max = (size_t)ask->limit + 1; /* one tells of more */
	struct list_row before;
	enum errtype t;

	if (ask->before != NULL &&
	    (t = list_before(all, ask->before, &before)) != ERRTYPE_none)
		return t;
	if (all->count == 0)
		return ERRTYPE_none;
	if ((page->rows = calloc(max, sizeof *page->rows)) == NULL)
		return ERRTYPE_internal;
	page_fill(all, ask->before != NULL ? &before : NULL, max, page);
	return ERRTYPE_none;
}

void
act_streams_list(struct request *rq)
{
	struct list all = { .rq = rq }, page = { .rq = rq };
	enum errtype t = ERRTYPE_none;
	enum rs_err err = RS_OK;
	struct list_ask ask;
	struct stream_key k;

	if (!list_read(rq, &ask))
		return;
	stream_key(&k, rq->owner, "-");
	if (strcmp(rq->owner, OWNER_ANONYMOUS) != 0)
		err = spool_each(rq->r->spool, k.owner_hash, list_add, &all);
	if (err != RS_OK || all.failed)
		t = err == RS_EIO ? ERRTYPE_spool_unavailable :
		    ERRTYPE_internal;
	else
		t = list_page(&all, &ask, &page);
	if (t == ERRTYPE_none)
		list_reply(rq, &page, (size_t)ask.limit);
	else
		reply_error(rq, t, NULL);
	free(all.rows);
	free(page.rows);
}
