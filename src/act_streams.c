/* act_streams.c - /api/v1/streams: list, snapshot, stop, delete */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "fdio.h"
#include "jx.h"
#include "log.h"
#include "route.h"

#define LIST_DEFAULT 100
#define LIST_MAX 1000
#define LIST_BYTES_MAX (LIST_MAX * 2048)
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
	if (err == RS_OK && strcmp(sr.head.owner, rq->owner) != 0) {
		spool_reader_done(&sr);
		err = RS_ENOENT;
	}
	if (err == RS_ENOENT)
		return ERRTYPE_stream_not_found;
	if (err != RS_OK) {
		log_warn("stream", "stream=%s not read reason=%s", id,
		    rs_strerror(err));
		return ERRTYPE_spool_unavailable;
	}
	*ret_key = k;
	*ret = sr;
	return ERRTYPE_none;
}

/* Has the current spooler end a stream that nobody writes any more. */
static enum errtype
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
	log_warn("stream", "stream=%s not sealed reason=%s text=%s", k->id,
	    rs_strerror(err),
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

	if (spool_id_valid(rq->arg, strlen(rq->arg)))
		t = stream_open(rq, rq->arg, ret_key, ret);
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

struct list_row {
	int64_t created;
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
list_add(const struct stream_key *k, void *arg)
{
	struct list *l = arg;
	struct spool_reader sr;
	struct stream_key key;

	if (stream_open(l->rq, k->id, &key, &sr) != ERRTYPE_none)
		return true;
	if (l->count == l->cap) {
		size_t cap = l->cap > 0 ? l->cap * 2 : 64;
		struct list_row *rows = reallocarray(l->rows, cap,
		    sizeof *rows);

		if (rows == NULL) {
			spool_reader_done(&sr);
			l->failed = true;
			return false;
		}
		l->rows = rows;
		l->cap = cap;
	}
	l->rows[l->count].created = sr.head.created_ms;
	memcpy(l->rows[l->count].id, key.id, sizeof key.id);
	l->count++;
	spool_reader_done(&sr);
	return true;
}

/* Newest first. */
static int
list_compare(const void *a, const void *b)
{
	const struct list_row *x = a, *y = b;

	if (x->created != y->created)
		return x->created < y->created ? 1 : -1;
	return strcmp(y->id, x->id);
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
list_reply(struct request *rq, struct list *l, size_t from,
    int64_t limit)
{
	struct buf b;
	size_t i, end = l->count;
	bool first = true;

	if (end - from > (size_t)limit)
		end = from + (size_t)limit;
	buf_init(&b, LIST_BYTES_MAX);
	buf_puts(&b, "{\"streams\":[");
	for (i = from; i < end; i++)
		list_put(l, l->rows[i].id, &b, &first);
	buf_printf(&b, "],\"has_more\":%s}", end < l->count ? "true" : "false");
	reply_json(rq, &b);
	buf_done(&b);
}

void
act_streams_list(struct request *rq)
{
	struct list l = { .rq = rq };
	struct list_ask ask;
	struct stream_key k;
	enum rs_err err = RS_OK;
	size_t from = 0;

	if (!list_read(rq, &ask))
		return;
	stream_key(&k, rq->owner, "-");
	if (strcmp(rq->owner, OWNER_ANONYMOUS) != 0)
		err = spool_each(rq->r->spool, k.owner_hash, list_add, &l);
	if (l.count > 0)
		qsort(l.rows, l.count, sizeof *l.rows, list_compare);
	if (ask.before != NULL) {
		while (from < l.count &&
		    strcmp(l.rows[from].id, ask.before) != 0)
			from++;
	}
	if (err != RS_OK || l.failed)
		reply_error(rq, err == RS_EIO ? ERRTYPE_spool_unavailable :
		    ERRTYPE_internal, NULL);
	else if (ask.before != NULL && from == l.count)
		reply_error(rq, ERRTYPE_stream_not_found, NULL);
	else
		list_reply(rq, &l, ask.before != NULL ? from + 1 : 0,
		    ask.limit);
	free(l.rows);
}
