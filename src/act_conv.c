/* act_conv.c - /convo_turn_stream: a turn of a conversation; the personas */
#include <json-c/json.h>
#include <string.h>

#include "act_start.h"
#include "jx.h"
#include "log.h"
#include "persona.h"

#define PERSONAS_BYTES_MAX (1 << 24)

static enum rs_err
personas_kind_load(const char *path, void **ret, struct buf *why)
{
	struct personas *p;
	enum rs_err err = personas_load(path, &p, why);

	if (err == RS_OK)
		*ret = p;
	return err;
}

static void
personas_kind_free(void *value)
{
	personas_free(value);
}

const struct reload_kind personas_kind = {
	.what = "personas", .load = personas_kind_load,
	.free = personas_kind_free,
};

static void
persona_put(struct buf *b, const struct persona *p)
{
	buf_puts(b, "{\"id\":");
	jx_put_str(b, p->id, strlen(p->id));
	buf_puts(b, ",\"name\":");
	jx_put_str(b, p->name, strlen(p->name));
	buf_puts(b, ",\"greeting\":");
	if (p->greeting != NULL)
		jx_put_str(b, p->greeting, strlen(p->greeting));
	else
		buf_puts(b, "null");
	buf_puts(b, "}");
}

void
act_personas(struct request *rq)
{
	const char *def = rq->r->conf->default_persona;
	const struct personas *all;
	struct buf b;
	size_t i;

	buf_init(&b, PERSONAS_BYTES_MAX);
	buf_puts(&b, "{\"personas\":[");
	all = reload_use(rq->r->personas);
	for (i = 0; all != NULL && i < all->count; i++) {
		buf_puts(&b, i > 0 ? "," : "");
		persona_put(&b, &all->all[i]);
	}
	buf_puts(&b, "],\"default\":");
	if (personas_find(all, def) != NULL)
		jx_put_str(&b, def, strlen(def));
	else
		buf_puts(&b, "null");
	reload_done(rq->r->personas);
	buf_puts(&b, "}");
	reply_json(rq, &b);
	buf_done(&b);
}

/* ---- a turn ---- */

/* What the user says. */
struct turn_ask {
	const char *message; /* lent; NULL: nothing */
	size_t len;
};

/* Each: NULL, or a sentence about what is wrong. */
static const char *
ask_message(const struct request *rq, struct start_ask *a)
{
	struct turn_ask *t = a->arg;
	enum rs_err err = params_str(rq->params, "message", &t->message,
	    &t->len);

	if (err == RS_ENOENT)
		return NULL;
	if (err != RS_OK)
		return "message must be a text.";
	if (start_is_blank(t->message, t->len))
		return "message must not be blank.";
	start_put(&a->prompt, "user", t->message, t->len);
	start_ask_hash(a);
	return NULL;
}

static const char *
ask_turn(const struct request *rq, struct start_ask *a, bool *ret_unknown)
{
	bool stream = true;
	const char *s;
	enum rs_err err;
	size_t len;

	err = params_str(rq->params, "sessionId", &s, &len);
	if (err == RS_EINVAL || (err == RS_OK && !spool_id_valid(s, len)))
		return "sessionId must be 1 to 64 of A-Z, a-z, 0-9, _ and -.";
	if (err == RS_OK)
		memcpy(a->turn.session, s, len);
	err = params_str(rq->params, "animalId", &s, &len);
	if (err == RS_EINVAL)
		return "animalId must be a text.";
	*ret_unknown = err == RS_OK && !spool_id_valid(s, len);
	if (err == RS_OK && !*ret_unknown)
		memcpy(a->turn.animal, s, len);
	if (params_bool(rq->params, "stream", &stream) == RS_EINVAL)
		return "stream must be true or false.";
	a->whole = !stream;
	return NULL;
}

/* False: the request is answered. */
static bool
ask_read(struct request *rq, struct start_ask *a)
{
	bool unknown = false;
	const char *why;

	if ((why = start_cursor(rq, &a->cursor)) == NULL &&
	    (why = start_ask_id(rq, a)) == NULL &&
	    (why = ask_turn(rq, a, &unknown)) == NULL)
		why = ask_message(rq, a);
	if (!start_ask_check(rq, a, why))
		return false;
	if (unknown)
		reply_error(rq, ERRTYPE_not_found, "There is no such persona.");
	return !unknown;
}

static void
prompt_put(struct buf *b, const struct turn_ask *t, const struct persona *p)
{
	buf_clear(b);
	buf_puts(b, "{\"messages\":[");
	start_put(b, "user", t->message, t->len);
	buf_puts(b, "],\"system\":");
	jx_put_str(b, p->system, strlen(p->system));
	if (p->parameters != NULL) {
		buf_puts(b, ",\"parameters\":");
		jx_put(b, p->parameters);
	}
	buf_puts(b, "}");
}

static enum errtype
prepare_as(const struct request *rq, struct start_ask *a,
    const struct persona *p, struct wake_start *ret)
{
	const char *model;

	if (p == NULL)
		return ERRTYPE_not_found;
	model = p->model;
	if (!start_model(rq, model, model != NULL ? strlen(model) : 0, ret))
		return ERRTYPE_model_not_found;
	memcpy(ret->turn.animal, p->id, sizeof ret->turn.animal);
	memcpy(ret->turn.name, p->name, sizeof ret->turn.name);
	prompt_put(&a->prompt, a->arg, p);
	return a->prompt.err == RS_OK ? ERRTYPE_none : ERRTYPE_internal;
}

static bool
prepare(struct request *rq, struct start_ask *a, struct wake_start *ret)
{
	const char *def = rq->r->conf->default_persona;
	enum errtype t;

	if (a->turn.animal[0] == '\0' && def[0] == '\0') {
		reply_error(rq, ERRTYPE_invalid_request,
		    "animalId is needed: there is no default persona.");
		return false;
	}
	t = prepare_as(rq, a, personas_find(reload_use(rq->r->personas),
	    a->turn.animal[0] != '\0' ? a->turn.animal : def), ret);
	reload_done(rq->r->personas);
	if (t != ERRTYPE_none) {
		reply_error(rq, t, t == ERRTYPE_not_found ?
		    "There is no such persona." : NULL);
		return false;
	}
	if (a->turn.session[0] != '\0') {
		strcpy(ret->turn.session, a->turn.session);
	} else {
		strcpy(ret->turn.session, "session_");
		random_hex(ret->turn.session + strlen("session_"), 16);
	}
	return true;
}

enum errtype
turn_open(const struct request *rq, const char *session,
    const struct conv_turn *turn, struct stream_key *ret_key,
    struct spool_reader *ret)
{
	struct spool_reader sr;
	struct stream_key k;
	enum errtype t = stream_open(rq, turn->stream_id, &k, &sr);

	if (t != ERRTYPE_none)
		return t;
	if (sr.head.dialect != DIALECT_CONVERSATION ||
	    strcmp(sr.head.turn.session, session) != 0) {
		spool_reader_done(&sr);
		return ERRTYPE_stream_not_found;
	}
	*ret_key = k;
	*ret = sr;
	return ERRTYPE_none;
}

/* Joins that turn if it is being answered, or waits for it.  False: it is
 * not. */
static bool
turn_join(struct request *rq, const struct start_ask *a,
    const struct conv_turn *turn)
{
	struct spool_reader sr;
	struct stream_tail tail;
	struct stream_key k;

	if (turn->assistant != NULL ||
	    turn_open(rq, a->turn.session, turn, &k, &sr) != ERRTYPE_none)
		return false;
	if (stream_settle(rq, &k, &sr, &tail) != ERRTYPE_none || tail.ended) {
		spool_reader_done(&sr);
		return false;
	}
	start_join(rq, a, &k, &sr);
	return true;
}

/* Follows the session's live turn, the first one if others wait. */
static void
follow_live(struct request *rq, const struct start_ask *a)
{
	struct conv *c = NULL;
	struct stream_key session;
	enum rs_err err;
	bool found = false;
	size_t i;

	stream_key(&session, rq->owner, a->turn.session);
	err = conv_load(rq->r->spool, &session, &c);
	for (i = 0; c != NULL && !found && i < c->count; i++)
		found = turn_join(rq, a, &c->turns[i]);
	conv_free(c);
	if (err != RS_OK && err != RS_ENOENT) {
		log_warn("conv", "session=%s not read why=\"%s\"",
		    a->turn.session, rs_strerror(err));
		reply_error(rq, ERRTYPE_spool_unavailable, NULL);
	} else if (!found) {
		reply_no_content(rq);
	}
}

void
act_turn(struct request *rq)
{
	const char *method = client_env(rq->c, "REQUEST_METHOD");
	struct turn_ask t = { .message = NULL };
	struct start_ask a;

	start_ask_init(&a, rq, DIALECT_CONVERSATION);
	a.prepare = prepare;
	a.arg = &t;
	if (!ask_read(rq, &a))
		goto out;
	if (a.prompt.len > 0 || a.id[0] != '\0')
		start_serve(rq, &a);
	else if (strcmp(method, "POST") != 0 && a.turn.session[0] != '\0')
		follow_live(rq, &a);
	else
		reply_error(rq, ERRTYPE_invalid_request,
		    "A message is needed.");
out:
	start_ask_done(&a);
}
