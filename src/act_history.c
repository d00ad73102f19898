/* act_history.c - /convo_history: what was said in a session */
#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "act_start.h"
#include "jx.h"
#include "log.h"
#include "sse.h"

#define TURNS_DEFAULT 100
#define TURNS_MAX 1000
#define DELETE_TRIES 3

static const char no_session[] = "There is no such session.";

/* A turn, as it is told. */
struct row {
	const struct conv_turn *turn;
	const char *state;
};

struct history {
	char session[TURN_ID_MAX + 1];
	struct stream_key key;
	int64_t before, limit, cursor;
	struct conv *conv;
	struct row *rows;	/* by rising number */
	size_t count;
	size_t first;		/* of those that are asked for, */
	size_t end;		/* and behind the last one */
};

/* NULL, or a sentence about what is wrong. */
static const char *
ask_read(const struct request *rq, struct history *h)
{
	enum rs_err err;
	const char *s;
	size_t len;

	if (params_str(rq->params, "sessionId", &s, &len) != RS_OK ||
	    !spool_id_valid(s, len))
		return "sessionId must be 1 to 64 of A-Z, a-z, 0-9, _ and -.";
	memcpy(h->session, s, len);
	stream_key(&h->key, rq->owner, h->session);
	h->limit = TURNS_DEFAULT;
	err = params_int(rq->params, "limit", &h->limit);
	if (err == RS_EINVAL || h->limit < 1 || h->limit > TURNS_MAX)
		return "limit must be an integer from 1 to 1000.";
	h->before = INT64_MAX;
	err = params_int(rq->params, "before", &h->before);
	if (err == RS_EINVAL || h->before < 1)
		return "before must be the number of a turn.";
	return start_cursor(rq, &h->cursor);
}

/* ERRTYPE_none; ERRTYPE_not_found: there is no session. */
static enum errtype
load(const struct request *rq, struct history *h)
{
	struct conv *c;
	enum rs_err err = conv_load(rq->r->spool, &h->key, &c);

	conv_free(h->conv);
	h->conv = NULL;
	if (err == RS_ENOENT)
		return ERRTYPE_not_found;
	if (err == RS_OK) {
		h->conv = c;
		return ERRTYPE_none;
	}
	log_warn("conv", "session=%s not read why=\"%s\"", h->session,
	    rs_strerror(err));
	return ERRTYPE_spool_unavailable;
}

/* Has turns ended whose writer is dead, which writes their answers.  True:
 * some had ended. */
static bool
settle(const struct request *rq, const struct history *h)
{
	const struct conv_turn *t;
	struct stream_tail tail;
	struct spool_reader sr;
	struct stream_key k;
	bool any = false;
	size_t i;

	for (i = 0; i < h->conv->count; i++) {
		t = &h->conv->turns[i];
		if (t->assistant != NULL ||
		    turn_open(rq, h->session, t, &k, &sr) != ERRTYPE_none)
			continue;
		if (stream_settle(rq, &k, &sr, &tail) == ERRTYPE_none &&
		    tail.ended)
			any = true;
		spool_reader_done(&sr);
	}
	return any;
}

/* NULL: it is no turn, as its stream was never made. */
static const char *
turn_state(const struct request *rq, const struct history *h,
    const struct conv_turn *t)
{
	const char *finish = "";
	struct stream_tail tail;
	struct spool_reader sr;
	struct stream_key k;
	bool ended;
	size_t len;

	if (t->assistant != NULL) {
		if (json_object_object_get_ex(t->assistant, "error_type",
		    NULL))
			return "failed";
		jx_get_str(t->assistant, "finish_reason", &finish, &len);
		return strcmp(finish, "stopped") == 0 ? "stopped" : "finished";
	}
	if (turn_open(rq, h->session, t, &k, &sr) != ERRTYPE_none)
		return NULL;
	ended = spool_tail(&sr, &tail) == RS_OK && tail.ended;
	spool_reader_done(&sr);
	/* What has ended without a line could not be written down. */
	return ended ? "failed" : "live";
}

/* Which turns there are, and which of them are asked for. */
static enum errtype
look(const struct request *rq, struct history *h)
{
	enum errtype t = load(rq, h);
	size_t i;

	if (t == ERRTYPE_none && settle(rq, h))
		t = load(rq, h);
	if (t != ERRTYPE_none)
		return t;
	h->rows = calloc(h->conv->count + 1, sizeof *h->rows);
	if (h->rows == NULL)
		return ERRTYPE_internal;
	for (i = 0; i < h->conv->count; i++) {
		h->rows[h->count].turn = &h->conv->turns[i];
		h->rows[h->count].state = turn_state(rq, h,
		    &h->conv->turns[i]);
		h->count += h->rows[h->count].state != NULL;
	}
	for (h->end = h->count; h->end > 0 &&
	    h->rows[h->end - 1].turn->number >= (uint64_t)h->before; h->end--)
		continue;
	h->first = h->end > (size_t)h->limit ? h->end - (size_t)h->limit : 0;
	return h->count > 0 ? ERRTYPE_none : ERRTYPE_not_found;
}

/* What its line has that the turn does not say itself; or null. */
static void
line_put(struct buf *b, struct json_object *line)
{
	static const char *const left_out[] = { "turn", "role", "stream_id",
		"animal" };
	const size_t n = sizeof left_out / sizeof left_out[0];
	bool first = true;
	size_t i;

	if (line == NULL) {
		buf_puts(b, "null");
		return;
	}
	buf_puts(b, "{");
	json_object_object_foreach(line, name, value) {
		for (i = 0; i < n && strcmp(left_out[i], name) != 0; i++)
			continue;
		if (i < n)
			continue;
		buf_puts(b, first ? "" : ",");
		jx_put_str(b, name, strlen(name));
		buf_puts(b, ":");
		jx_put(b, value);
		first = false;
	}
	buf_puts(b, "}");
}

static void
row_put(struct buf *b, const struct row *r)
{
	const char *animal = "";
	size_t len = 0;

	jx_get_str(r->turn->user, "animal", &animal, &len);
	buf_printf(b, "{\"turn\":%" PRIu64 ",\"state\":\"%s\","
	    "\"stream_id\":\"%s\",\"animalId\":", r->turn->number, r->state,
	    r->turn->stream_id);
	jx_put_str(b, animal, len);
	buf_puts(b, ",\"user\":");
	line_put(b, r->turn->user);
	buf_puts(b, ",\"assistant\":");
	line_put(b, r->turn->assistant);
	buf_puts(b, "}");
}

static void
reply_turns(struct request *rq, const struct history *h)
{
	struct buf b;
	size_t i;

	buf_init(&b, SIZE_MAX / 2);
	buf_printf(&b, "{\"sessionId\":\"%s\",\"turns\":[", h->session);
	for (i = h->first; i < h->end; i++) {
		buf_puts(&b, i > h->first ? "," : "");
		row_put(&b, &h->rows[i]);
	}
	buf_printf(&b, "],\"has_more\":%s}", h->first > 0 ? "true" : "false");
	reply_json(rq, &b);
	buf_done(&b);
}

/* An id is its turn's number, so that it means the same also when turns have
 * come; the last frame's is one more. */
static void
frames_put(struct buf *b, const struct history *h)
{
	uint64_t number = 0;
	size_t i;

	for (i = h->first; i < h->end; i++) {
		number = h->rows[i].turn->number;
		if ((int64_t)number <= h->cursor)
			continue;
		sse_frame_begin(b, "history", number);
		row_put(b, &h->rows[i]);
		sse_frame_end(b);
	}
	sse_frame_begin(b, "complete", number + 1);
	buf_printf(b, "{\"sessionId\":\"%s\",\"turns\":%zu,\"has_more\":%s}",
	    h->session, h->end - h->first, h->first > 0 ? "true" : "false");
	sse_frame_end(b);
}

static void
reply_frames(struct request *rq, const struct history *h)
{
	struct buf b;

	if (h->cursor > (h->end > 0 ?
	    (int64_t)h->rows[h->end - 1].turn->number : 0)) {
		reply_no_content(rq); /* it has seen all of them */
		return;
	}
	buf_init(&b, SIZE_MAX / 2);
	frames_put(&b, h);
	if (b.err != RS_OK) {
		reply_error(rq, ERRTYPE_internal, NULL);
	} else if (reply_stream(rq, NULL)) {
		if (client_write(rq->c, b.data, b.len) == RS_OK)
			client_finish(rq->c);
		else
			client_abort(rq->c);
		rq->c = NULL;
	}
	buf_done(&b);
}

static bool
wants_json(const struct request *rq)
{
	const char *accept = client_env(rq->c, "HTTP_ACCEPT");

	return accept != NULL && strstr(accept, "application/json") != NULL &&
	    strstr(accept, "text/event-stream") == NULL;
}

/* text NULL: the type's own. */
static void
reply_failed(struct request *rq, enum errtype t, const char *text)
{
	reply_error(rq, t, t == ERRTYPE_not_found ? no_session : text);
}

void
act_history(struct request *rq)
{
	struct history h = { .cursor = -1 };
	const char *why = ask_read(rq, &h);
	enum errtype t;

	if (why != NULL)
		reply_error(rq, ERRTYPE_invalid_request, why);
	else if ((t = look(rq, &h)) != ERRTYPE_none)
		reply_failed(rq, t, NULL);
	else if (wants_json(rq))
		reply_turns(rq, &h);
	else
		reply_frames(rq, &h);
	free(h.rows);
	conv_free(h.conv);
}

/* ---- DELETE ---- */

/* Removes the streams of all turns; live ones are stopped. */
static enum errtype
remove_streams(const struct request *rq, const struct history *h,
    struct wake_reply *reply)
{
	enum errtype t = ERRTYPE_none;
	struct spool_reader sr;
	struct stream_key k;
	size_t i;

	for (i = 0; i < h->conv->count && t == ERRTYPE_none; i++) {
		if (turn_open(rq, h->session, &h->conv->turns[i], &k, &sr) !=
		    ERRTYPE_none)
			continue;
		t = stream_remove(rq, &k, &sr, reply);
		spool_reader_done(&sr);
		if (t == ERRTYPE_stream_not_found)
			t = ERRTYPE_none; /* swept since */
	}
	return t;
}

static enum errtype
remove_session(const struct request *rq, struct history *h,
    struct wake_reply *reply)
{
	enum errtype t;
	int i;

	/* A turn that begins meanwhile makes the spooler refuse. */
	for (i = 0; i < DELETE_TRIES; i++) {
		if ((t = load(rq, h)) != ERRTYPE_none ||
		    (t = remove_streams(rq, h, reply)) != ERRTYPE_none)
			return t;
		if (wake_forget(rq->r->wake, &h->key, reply) == RS_OK &&
		    reply->err == RS_OK)
			return ERRTYPE_none;
		if (reply->err != RS_EBUSY)
			break;
	}
	return ERRTYPE_spool_unavailable;
}

void
act_history_delete(struct request *rq)
{
	struct history h = { .cursor = -1 };
	struct wake_reply reply = { .err = RS_OK };
	const char *why = ask_read(rq, &h);
	enum errtype t;

	if (why != NULL)
		reply_error(rq, ERRTYPE_invalid_request, why);
	else if ((t = look(rq, &h)) != ERRTYPE_none ||
	    (t = remove_session(rq, &h, &reply)) != ERRTYPE_none)
		reply_failed(rq, t, reply.text);
	else
		reply_no_content(rq);
	free(h.rows);
	conv_free(h.conv);
}
