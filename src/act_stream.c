/* act_stream.c - /api/v1/stream: starts, joins or resumes a stream */
#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>
#include <unistd.h>

#include "jx.h"
#include "log.h"
#include "route.h"

/* What a request asks for. */
struct ask {
	char id[SPOOL_ID_MAX + 1];	/* "": none given */
	int64_t cursor;			/* -1: nothing seen */
	const char *model;		/* lent; NULL: not stated */
	size_t model_len;
	struct buf prompt;		/* {"messages":[...]}; empty: none */
	char request[SHA256_HEX_SIZE];	/* its hash */
};

static bool
is_nothing(const char *s, size_t len)
{
	return len == 0 || (len == 4 && memcmp(s, "null", 4) == 0);
}

/* Each ask_ function: NULL, or a sentence about what is wrong. */
static const char *
ask_cursor(const struct request *rq, struct ask *a)
{
	static const char why[] =
	    "The last event id must be an integer, -1 or more.";
	const char *s = client_env(rq->c, "HTTP_LAST_EVENT_ID");
	size_t len;
	enum rs_err err;

	a->cursor = -1;
	if (s != NULL && s[0] != '\0') {
		len = strlen(s);
		err = params_int_parse(s, len, &a->cursor);
	} else {
		err = params_int(rq->params, "last_event_id", &a->cursor);
		if (err == RS_ENOENT)
			return NULL;
		if (err != RS_OK && params_str(rq->params, "last_event_id",
		    &s, &len) != RS_OK)
			return why;
	}
	if (err != RS_OK)
		return is_nothing(s, len) ? NULL : why;
	return a->cursor < -1 ? why : NULL;
}

static const char *
ask_id(const struct request *rq, struct ask *a)
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

static const char *
ask_model(const struct request *rq, struct ask *a)
{
	enum rs_err err = params_str(rq->params, "model", &a->model,
	    &a->model_len);

	return err == RS_EINVAL ? "model must be a text." : NULL;
}

/* Nothing that can be seen: controls, spaces and marks of Unicode. */
static bool
is_blank(const char *s, size_t len)
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

static void
prompt_put(struct buf *b, const char *role, const char *content, size_t len)
{
	buf_printf(b, "{\"role\":\"%s\",\"content\":", role);
	jx_put_str(b, content, len);
	buf_puts(b, "}");
}

static const char *
prompt_messages(struct json_object *messages, struct buf *b)
{
	static const char *const roles[] = { "user", "assistant", "system" };
	size_t i, r = 0, n = json_object_array_length(messages);

	if (n == 0)
		return "messages must not be empty.";
	buf_puts(b, "{\"messages\":[");
	for (i = 0; i < n; i++) {
		struct json_object *m = json_object_array_get_idx(messages, i);
		const char *role, *content;
		size_t role_len, len;

		if (!json_object_is_type(m, json_type_object) ||
		    jx_get_str(m, "role", &role, &role_len) != RS_OK ||
		    jx_get_str(m, "content", &content, &len) != RS_OK)
			return "Each message must be an object with the "
			    "texts role and content.";
		for (r = 0; r < 3; r++) {
			if (role_len == strlen(roles[r]) &&
			    memcmp(role, roles[r], role_len) == 0)
				break;
		}
		if (r == 3)
			return "A role must be system, user or assistant.";
		if (is_blank(content, len))
			return "A message's content must not be blank.";
		buf_puts(b, i > 0 ? "," : "");
		prompt_put(b, roles[r], content, len);
	}
	buf_puts(b, "]}");
	return r == 0 ? NULL : "The last message must be the user's.";
}

static const char *
ask_prompt(const struct request *rq, struct ask *a)
{
	struct json_object *messages = NULL;
	const char *message, *why = NULL;
	size_t len;
	enum rs_err one = params_str(rq->params, "message", &message, &len);
	enum rs_err many = params_array(rq->params, "messages", &messages);

	if (one == RS_ENOENT && many == RS_ENOENT)
		return NULL;
	if (one == RS_EINVAL)
		why = "message must be a text.";
	else if (many != RS_OK && many != RS_ENOENT)
		why = "messages must be an array.";
	else if (one == RS_OK && many == RS_OK)
		why = "Give message or messages, not both.";
	else if (many == RS_OK)
		why = prompt_messages(messages, &a->prompt);
	else if (is_blank(message, len))
		why = "message must not be blank.";
	else {
		buf_puts(&a->prompt, "{\"messages\":[");
		prompt_put(&a->prompt, "user", message, len);
		buf_puts(&a->prompt, "]}");
	}
	json_object_put(messages);
	if (why == NULL && a->prompt.err == RS_OK)
		sha256_hex(a->prompt.data, a->prompt.len, a->request);
	return why;
}

/* False: the request is answered. */
static bool
ask_read(struct request *rq, struct ask *a)
{
	const char *why;

	if ((why = ask_cursor(rq, a)) != NULL ||
	    (why = ask_id(rq, a)) != NULL ||
	    (why = ask_model(rq, a)) != NULL ||
	    (why = ask_prompt(rq, a)) != NULL)
		reply_error(rq, ERRTYPE_invalid_request, why);
	else if (a->prompt.err == RS_ETOOBIG)
		reply_error(rq, ERRTYPE_body_too_large, NULL);
	else if (a->prompt.err != RS_OK)
		reply_error(rq, ERRTYPE_internal, NULL);
	else if (a->cursor >= 0 && a->id[0] == '\0')
		reply_error(rq, ERRTYPE_stream_id_required, NULL);
	else if (a->id[0] == '\0' && a->prompt.len == 0)
		reply_error(rq, ERRTYPE_invalid_request,
		    "A message or a stream_id is needed.");
	else
		return true;
	return false;
}

/* Hands the client and sr over to the loop, from frame next_id at off on. */
static void
stream_follow(struct request *rq, const struct stream_key *k,
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

/* True: a stream is not the one that the request would have started. */
static bool
ask_conflicts(const struct ask *a, const struct stream_head *head)
{
	return head->dialect != DIALECT_STREAM ||
	    (a->prompt.len > 0 && strcmp(a->request, head->request) != 0) ||
	    (a->model != NULL && (strlen(head->model) != a->model_len ||
	    memcmp(a->model, head->model, a->model_len) != 0));
}

/* Joins from the first frame.  Takes sr. */
static void
stream_join(struct request *rq, const struct ask *a,
    const struct stream_key *k, struct spool_reader *sr)
{
	if (ask_conflicts(a, &sr->head)) {
		spool_reader_done(sr);
		reply_error(rq, ERRTYPE_conflict, NULL);
	} else
		stream_follow(rq, k, sr, sr->head_size, 0);
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
	if (err == RS_OK)
		return ERRTYPE_none;
	log_warn("stream", "stream=%s not read reason=%s", k->id,
	    rs_strerror(err));
	return ERRTYPE_spool_unavailable;
}

static void
stream_resume(struct request *rq, const struct ask *a)
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
		stream_follow(rq, &k, &sr, off, next);
		return;
	}
	spool_reader_done(&sr);
	if (t == ERRTYPE_none)
		reply_no_content(rq);
	else
		reply_error(rq, t, t == ERRTYPE_invalid_request ?
		    "The last event id is beyond the end of the stream." :
		    NULL);
}

/* What the spooler needs to know; ERRTYPE_none or why there is no start. */
static enum errtype
start_fill(const struct request *rq, const struct ask *a,
    struct wake_start *ret)
{
	struct models *models = models_file_get(rq->r->models);
	const struct model *m = a->model == NULL ? models->def :
	    models_find(models, a->model, a->model_len);
	char id[SPOOL_ID_MAX + 1] = "stream_";

	if (m == NULL) {
		models_unref(models);
		return ERRTYPE_model_not_found;
	}
	memset(ret, 0, sizeof *ret);
	if (a->id[0] == '\0')
		random_hex(id + strlen(id), 16);
	stream_key(&ret->key, rq->owner, a->id[0] != '\0' ? a->id : id);
	memcpy(ret->owner, rq->owner, strlen(rq->owner));
	memcpy(ret->model, m->name, strlen(m->name));
	memcpy(ret->request, a->request, sizeof ret->request);
	ret->dialect = DIALECT_STREAM;
	models_unref(models);
	return ERRTYPE_none;
}

/* Has the stream started, or finds out that another request with its id was
 * first, and follows it. */
static void
stream_start(struct request *rq, const struct ask *a)
{
	struct wake_start start;
	struct wake_reply reply = { .err = RS_OK };
	struct spool_reader sr;
	struct stream_key k;
	char quoted[LOG_QUOTE_SIZE];
	enum errtype t = ERRTYPE_origin_refused;
	enum rs_err err;

	if (!reply_origin_ok(rq) ||
	    (t = start_fill(rq, a, &start)) != ERRTYPE_none) {
		reply_error(rq, t, NULL);
		return;
	}
	if (rq->head) {
		(void)reply_stream(rq, NULL);
		return;
	}
	err = wake_start(rq->r->wake, &start, a->prompt.data, a->prompt.len,
	    &reply);
	if (err != RS_OK || (reply.err != RS_OK && reply.err != RS_EEXIST)) {
		log_warn("start", "stream=%s refused type=%s reason=%s",
		    start.key.id, errtype_info(reply.type)->name,
		    log_quote(quoted, reply.text, strlen(reply.text)));
		reply_error(rq, reply.type, reply.text);
		return;
	}
	t = stream_open(rq, start.key.id, &k, &sr);
	if (t == ERRTYPE_none)
		stream_join(rq, a, &k, &sr);
	else
		reply_error(rq, t, NULL);
}

void
act_stream(struct request *rq)
{
	struct ask a = { .cursor = -1 };
	struct spool_reader sr;
	struct stream_key k;
	enum errtype t = ERRTYPE_stream_not_found;

	buf_init(&a.prompt, WAKE_PROMPT_MAX(rq->r->conf->max_body_bytes));
	if (!ask_read(rq, &a))
		goto out;
	if (a.cursor >= 0) {
		stream_resume(rq, &a);
		goto out;
	}
	if (a.id[0] != '\0')
		t = stream_open(rq, a.id, &k, &sr);
	if (t == ERRTYPE_none)
		stream_join(rq, &a, &k, &sr);
	else if (t == ERRTYPE_stream_not_found && a.prompt.len > 0)
		stream_start(rq, &a);
	else
		reply_error(rq, t, NULL);
out:
	buf_done(&a.prompt);
}
