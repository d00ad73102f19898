/* act_start.c - starting, joining and resuming streams */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "act_start.h"
#include "jx.h"
#include "log.h"
#include "metrics.h"

#define HEAD_MAX 8192

void
start_ask_init(struct start_ask *a, const struct request *rq,
    enum dialect dialect)
{
	*a = (struct start_ask){ .dialect = dialect, .cursor = -1 };
	buf_init(&a->prompt, WAKE_PROMPT_MAX(rq->r->conf->max_body_bytes));
}

void
start_ask_done(struct start_ask *a)
{
	buf_done(&a->prompt);
}

static bool
is_nothing(const char *s, size_t len)
{
	return len == 0 || (len == 4 && memcmp(s, "null", 4) == 0);
}

const char *
start_cursor(const struct request *rq, int64_t *ret)
{
	static const char why[] =
	    "The last event id must be an integer, -1 or more.";
	const char *s = client_env(rq->c, "HTTP_LAST_EVENT_ID");
	size_t len;
	enum rs_err err;

	*ret = -1;
	if (s != NULL && s[0] != '\0') {
		len = strlen(s);
		err = params_int_parse(s, len, ret);
	} else {
		err = params_int(rq->params, "last_event_id", ret);
		if (err == RS_ENOENT)
			return NULL;
		if (err != RS_OK && params_str(rq->params, "last_event_id",
		    &s, &len) != RS_OK)
			return why;
	}
	if (err != RS_OK)
		return is_nothing(s, len) ? NULL : why;
	return *ret < -1 ? why : NULL;
}

const char *
start_ask_id(const struct request *rq, struct start_ask *a)
{
	const char *s;
	size_t len;
	enum rs_err err = params_str(rq->params, "stream_id", &s, &len);

	if (err == RS_ENOENT)
		return NULL;
	if (err != RS_OK || !spool_id_valid(s, len))
		return "stream_id must be 1 to 64 of A-Z, a-z, 0-9, _ and -.";
	memcpy(a->id, s, len);
	return NULL;
}

/* Nothing that can be seen: controls, spaces and marks of Unicode. */
bool
start_is_blank(const char *s, size_t len)
{
	static const char *const blanks[] = {
		"\xc2\x85", "\xc2\xa0", "\xe1\x9a\x80", "\xe2\x80\x80",
		"\xe2\x80\x81", "\xe2\x80\x82", "\xe2\x80\x83",
		"\xe2\x80\x84", "\xe2\x80\x85", "\xe2\x80\x86",
		"\xe2\x80\x87", "\xe2\x80\x88", "\xe2\x80\x89",
		"\xe2\x80\x8a", "\xe2\x80\x8b", "\xe2\x80\xa8",
		"\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f",
		"\xe3\x80\x80", "\xef\xbb\xbf",
	};
	size_t i = 0, k, n;

	while (i < len) {
		n = (unsigned char)s[i] <= ' ' || s[i] == 0x7f;
		for (k = 0; n == 0 && k < sizeof blanks / sizeof blanks[0];
		    k++)
			if (len - i >= strlen(blanks[k]) && memcmp(s + i,
			    blanks[k], strlen(blanks[k])) == 0)
				n = strlen(blanks[k]);
		if (n == 0)
			return false;
		i += n;
	}
	return true;
}

void
start_put(struct buf *b, const char *role, const char *content, size_t len)
{
	buf_printf(b, "{\"role\":\"%s\",\"content\":", role);
	jx_put_str(b, content, len);
	buf_puts(b, "}");
}

void
start_ask_hash(struct start_ask *a)
{
	if (a->prompt.err == RS_OK)
		sha256_hex(a->prompt.data, a->prompt.len, a->request);
}

bool
start_ask_check(struct request *rq, const struct start_ask *a,
    const char *why)
{
	if (why != NULL)
		reply_error(rq, ERRTYPE_invalid_request, why);
	else if (a->prompt.err == RS_ETOOBIG)
		reply_error(rq, ERRTYPE_body_too_large, NULL);
	else if (a->prompt.err != RS_OK)
		reply_error(rq, ERRTYPE_internal, NULL);
	else if (a->cursor >= 0 && a->id[0] == '\0')
		reply_error(rq, ERRTYPE_stream_id_required, NULL);
	else
		return true;
	return false;
}

/* Hands the client and sr over to the loop, from frame next_id at off on. */
static void
follow_from(struct request *rq, const struct stream_key *k,
    struct spool_reader *sr, uint64_t off, uint64_t next_id)
{
	if (!reply_stream(rq, k->id)) {
		spool_reader_done(sr);
		return;
	}
	log_info("follow", "stream=%s started pid=%d from=%" PRIu64, k->id,
	    (int)getpid(), next_id);
	follow_add(rq->r->loop, rq->c, sr, k, off, next_id);
	rq->c = NULL;
}

/* Has the loop answer in one piece, once the stream has ended. */
static void
follow_whole(struct request *rq, const struct stream_key *k,
    struct spool_reader *sr)
{
	struct buf head;

	buf_init(&head, HEAD_MAX);
	if (!reply_later(rq, k->id, &head)) {
		spool_reader_done(sr);
	} else {
		log_info("follow", "stream=%s started pid=%d from=0 whole=1",
		    k->id, (int)getpid());
		follow_add_whole(rq->r->loop, rq->c, sr, k, sr->head_size,
		    &head);
		rq->c = NULL;
	}
	buf_done(&head);
}

/* True: a stream is not the one that the request would have started. */
static bool
conflicts(const struct request *rq, const struct start_ask *a,
    const struct stream_head *head)
{
	/* Who has a link does not know which interface the stream is of. */
	return (head->dialect != a->dialect && !rq->by_link) ||
	    (a->request[0] != '\0' &&
	    strcmp(a->request, head->request) != 0) ||
	    (a->model != NULL && (strlen(head->model) != a->model_len ||
	    memcmp(a->model, head->model, a->model_len) != 0)) ||
	    (a->turn.session[0] != '\0' &&
	    strcmp(a->turn.session, head->turn.session) != 0) ||
	    (a->turn.animal[0] != '\0' &&
	    strcmp(a->turn.animal, head->turn.animal) != 0);
}

static void
follow_all(struct request *rq, const struct start_ask *a,
    const struct stream_key *k, struct spool_reader *sr)
{
	if (a->whole)
		follow_whole(rq, k, sr);
	else
		follow_from(rq, k, sr, sr->head_size, 0);
}

void
start_join(struct request *rq, const struct start_ask *a,
    const struct stream_key *k, struct spool_reader *sr)
{
	struct stream_tail tail;

	if (conflicts(rq, a, &sr->head)) {
		spool_reader_done(sr);
		reply_error(rq, ERRTYPE_conflict, NULL);
		return;
	}
	metrics_add(METRIC_joins_total, 1);
	if (spool_tail(sr, &tail) == RS_OK && tail.ended)
		metrics_add(METRIC_replays_total, 1);
	follow_all(rq, a, k, sr);
}

/* The frame after the cursor, and where it is.  ERRTYPE_none;
 * ERRTYPE_invalid_request: beyond the end; else what is wrong with the
 * stream. */
static enum errtype
cursor_seek(const struct request *rq, int64_t cursor,
    const struct stream_key *k, const struct spool_reader *sr,
    struct stream_tail *ret_tail, uint64_t *ret_next, uint64_t *ret_off)
{
	bool rebooted = strcmp(sr->head.boot, rq->r->spool->boot) != 0;
	uint64_t next = (uint64_t)cursor + 1;
	enum errtype t;
	enum rs_err err;

	if (spool_tail(sr, ret_tail) != RS_OK ||
	    (next > ret_tail->count && !ret_tail->ended && rebooted)) {
		t = stream_settle(rq, k, sr, ret_tail);
		if (t != ERRTYPE_none)
			return t;
	}
	/* A power loss takes frames back that were not on the disk yet. */
	if (next > ret_tail->count && ret_tail->ended && rebooted)
		next = ret_tail->count - 1;
	*ret_next = next;
	if (next >= ret_tail->count) {
		*ret_off = ret_tail->end;
		return next == ret_tail->count ? ERRTYPE_none :
		    ERRTYPE_invalid_request;
	}
	err = spool_seek(sr, ret_tail->end, next, ret_off);
	if (err == RS_ECORRUPT) {
		/* Damage on the way there: the stream ends where that begins,
		 * and who has seen more has not seen the end. */
		if ((t = stream_seal(rq, k, sr, ret_tail)) != ERRTYPE_none)
			return t;
		if (next >= ret_tail->count)
			*ret_next = next = ret_tail->count - 1;
		err = spool_seek(sr, ret_tail->end, next, ret_off);
	}
	if (err == RS_OK)
		return ERRTYPE_none;
	log_warn("stream", "stream=%s not read pid=%d why=\"%s\"", k->id,
	    (int)getpid(), rs_strerror(err));
	return ERRTYPE_spool_unavailable;
}

static void
resume(struct request *rq, const struct start_ask *a)
{
	struct spool_reader sr;
	struct stream_tail tail;
	struct stream_key k;
	uint64_t next, off;
	enum errtype t;

	t = stream_open(rq, a->id, &k, &sr);
	if (t != ERRTYPE_none) {
		reply_error(rq, t, NULL);
		return;
	}
	t = cursor_seek(rq, a->cursor, &k, &sr, &tail, &next, &off);
	if (t == ERRTYPE_none && !(tail.ended && next == tail.count)) {
		metrics_add(METRIC_resumes_total, 1);
		metrics_add(METRIC_replays_total, tail.ended);
		follow_from(rq, &k, &sr, off, next);
		return;
	}
	spool_reader_done(&sr);
	if (t == ERRTYPE_none) {
		log_info("follow", "stream=%s had nothing more pid=%d "
		    "from=%" PRIu64, k.id, (int)getpid(), next);
		reply_no_content(rq);
	} else
		reply_error(rq, t, t == ERRTYPE_invalid_request ?
		    "The last event id is beyond the end of the stream." :
		    NULL);
}

bool
start_model(const struct request *rq, const char *name, size_t len,
    struct wake_start *ret)
{
	struct models *models = models_file_get(rq->r->models);
	const struct model *m = name == NULL ? models->def :
	    models_find(models, name, len);

	if (m != NULL)
		memcpy(ret->model, m->name, strlen(m->name) + 1);
	models_unref(models);
	return m != NULL;
}

static void
start_fill(const struct request *rq, const struct start_ask *a,
    struct wake_start *ret)
{
	char id[SPOOL_ID_MAX + 1] = "stream_";

	memset(ret, 0, sizeof *ret);
	if (a->id[0] == '\0')
		random_hex(id + strlen(id), 16);
	stream_key(&ret->key, rq->owner, a->id[0] != '\0' ? a->id : id);
	memcpy(ret->owner, rq->owner, strlen(rq->owner));
	memcpy(ret->request, a->request, sizeof ret->request);
	ret->dialect = a->dialect;
	if (rq->address_known)
		address_key(&rq->address, ret->address);
}

/* Has the stream started, or finds out that another request with its id was
 * first, and follows it. */
static void
start(struct request *rq, struct start_ask *a)
{
	struct wake_start msg;
	struct wake_reply reply = { .err = RS_OK };
	struct spool_reader sr;
	struct stream_key k;
	char quoted[LOG_QUOTE_SIZE];
	enum errtype t;
	enum rs_err err;

	rq->starting = true;
	if (!reply_origin_ok(rq)) {
		reply_error(rq, ERRTYPE_origin_refused, NULL);
		return;
	}
	start_fill(rq, a, &msg);
	memcpy(a->id, msg.key.id, sizeof a->id); /* the log names it */
	if (!a->prepare(rq, a, &msg))
		return;
	if (rq->head) {
		(void)reply_stream(rq, NULL);
		return;
	}
	log_info("start", "stream=%s requested pid=%d model=%s", msg.key.id,
	    (int)getpid(), log_quote(quoted, msg.model, strlen(msg.model)));
	err = wake_start(rq->r->wake, &msg, a->prompt.data, a->prompt.len,
	    &reply);
	if (err != RS_OK || (reply.err != RS_OK && reply.err != RS_EEXIST)) {
		/* Whoever is over a limit is nobody else's concern. */
		(reply.type == ERRTYPE_rate_limited ? log_info : log_warn)(
		    "start", "stream=%s refused pid=%d type=%s why=%s",
		    msg.key.id, (int)getpid(), errtype_info(reply.type)->name,
		    log_quote(quoted, reply.text, strlen(reply.text)));
		rq->retry_s = reply.retry_s;
		rq->limit = reply.limit;
		/* Why no spooler can be started may name paths. */
		reply_error(rq, reply.type, err != RS_OK ? NULL : reply.text);
		return;
	}
	rq->starting = false;
	t = stream_open(rq, msg.key.id, &k, &sr);
	if (t != ERRTYPE_none)
		reply_error(rq, t, NULL);
	else if (reply.err == RS_EEXIST)
		start_join(rq, a, &k, &sr);
	else
		follow_all(rq, a, &k, &sr);
}

void
start_serve(struct request *rq, struct start_ask *a)
{
	struct spool_reader sr;
	struct stream_key k;
	enum errtype t = ERRTYPE_stream_not_found;

	rq->stream = a->id;
	/* What comes in one piece has no middle to begin at. */
	if (a->cursor >= 0 && !a->whole) {
		resume(rq, a);
		return;
	}
	if (a->id[0] != '\0')
		t = stream_open(rq, a->id, &k, &sr);
	if (t == ERRTYPE_none)
		start_join(rq, a, &k, &sr);
	else if (t == ERRTYPE_stream_not_found && a->prompt.len > 0 &&
	    a->cursor < 0)
		start(rq, a);
	else
		reply_error(rq, t, NULL);
}
