/* act_stream.c - /api/v1/stream: starts, joins or resumes a stream */
#include <json-c/json.h>
#include <string.h>

#include "act_start.h"
#include "jx.h"

/* The template that a request names in place of a message. */
struct template_ask {
	const char *name;		/* lent; NULL: none */
	size_t len;
	struct json_object *vars;	/* NULL: none */
};

static const char *
ask_model(const struct request *rq, struct start_ask *a)
{
	enum rs_err err = params_str(rq->params, "model", &a->model,
	    &a->model_len);

	return err == RS_EINVAL ? "model must be a text." : NULL;
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
		if (start_is_blank(content, len))
			return "A message's content must not be blank.";
		buf_puts(b, i > 0 ? "," : "");
		start_put(b, roles[r], content, len);
	}
	buf_puts(b, "]}");
	return r == 0 ? NULL : "The last message must be the user's.";
}

static void
prompt_message(const char *message, size_t len, struct buf *b)
{
	buf_puts(b, "{\"messages\":[");
	start_put(b, "user", message, len);
	buf_puts(b, "]}");
}

static const char *
ask_template(const struct request *rq, struct start_ask *a)
{
	struct template_ask *t = a->arg;
	enum rs_err err = params_object(rq->params, "variables", &t->vars);

	if (err != RS_OK && err != RS_ENOENT)
		return "variables must be an object.";
	buf_puts(&a->prompt, "{\"template\":");
	jx_put_str(&a->prompt, t->name, t->len);
	buf_puts(&a->prompt, ",\"variables\":");
	if (t->vars != NULL)
		jx_put(&a->prompt, t->vars);
	else
		buf_puts(&a->prompt, "{}");
	buf_puts(&a->prompt, "}");
	return NULL;
}

static const char *
ask_prompt(const struct request *rq, struct start_ask *a)
{
	struct json_object *messages = NULL;
	struct template_ask *t = a->arg;
	const char *message, *why = NULL;
	size_t len;
	enum rs_err one = params_str(rq->params, "message", &message, &len);
	enum rs_err many = params_array(rq->params, "messages", &messages);
	enum rs_err named = params_str(rq->params, "template", &t->name,
	    &t->len);

	if (one == RS_ENOENT && many == RS_ENOENT && named == RS_ENOENT)
		return NULL;
	if (rq->by_link)
		why = "With a link a stream is read; it takes no message.";
	else if (named == RS_EINVAL)
		why = "template must be the name of a template.";
	else if (named == RS_OK && (one == RS_OK || many == RS_OK))
		why = "Give message, messages or template, one of them.";
	else if (one == RS_EINVAL)
		why = "message must be a text.";
	else if (many != RS_OK && many != RS_ENOENT)
		why = "messages must be an array.";
	else if (one == RS_OK && many == RS_OK)
		why = "Give message or messages, not both.";
	else if (many == RS_OK)
		why = prompt_messages(messages, &a->prompt);
	else if (named == RS_OK)
		why = ask_template(rq, a);
	else if (start_is_blank(message, len))
		why = "message must not be blank.";
	else
		prompt_message(message, len, &a->prompt);
	json_object_put(messages);
	if (why == NULL)
		start_ask_hash(a);
	return why;
}

/* False: the request is answered. */
static bool
ask_read(struct request *rq, struct start_ask *a)
{
	const char *why;

	if ((why = start_cursor(rq, &a->cursor)) == NULL &&
	    (why = start_ask_id(rq, a)) == NULL &&
	    (why = ask_model(rq, a)) == NULL)
		why = ask_prompt(rq, a);
	if (!start_ask_check(rq, a, why))
		return false;
	if (a->id[0] != '\0' || a->prompt.len > 0)
		return true;
	reply_error(rq, ERRTYPE_invalid_request,
	    "A message, a template or a stream_id is needed.");
	return false;
}

/* Puts what the template says in place of the prompt, and the model that it
 * names into *ret_model.  False: the request is answered. */
static bool
render(struct request *rq, struct start_ask *a, struct buf *ret_model)
{
	const struct template_ask *t = a->arg;
	enum rs_err err = RS_OK;
	struct buf text;
	bool ok;

	if (t->name == NULL)
		return true;
	buf_init(&text, rq->r->conf->max_body_bytes);
	ok = template_render(rq, t->name, t->len, t->vars, &text, ret_model);
	if (ok && start_is_blank(text.data, text.len)) {
		reply_error(rq, ERRTYPE_invalid_request,
		    "The text of the template is blank.");
		ok = false;
	} else if (ok) {
		buf_clear(&a->prompt);
		prompt_message(text.data, text.len, &a->prompt);
		err = a->prompt.err != RS_OK ? a->prompt.err : ret_model->err;
	}
	if (err != RS_OK) {
		reply_error(rq, err == RS_ETOOBIG ? ERRTYPE_body_too_large :
		    ERRTYPE_internal, NULL);
		ok = false;
	}
	buf_done(&text);
	return ok;
}

static bool
prepare(struct request *rq, struct start_ask *a, struct wake_start *ret)
{
	struct buf model;
	bool ok;

	buf_init(&model, MODEL_NAME_MAX);
	ok = render(rq, a, &model);
	if (ok && !(a->model != NULL ?
	    start_model(rq, a->model, a->model_len, ret) :
	    start_model(rq, model.data, model.len, ret))) {
		reply_error(rq, ERRTYPE_model_not_found, NULL);
		ok = false;
	}
	buf_done(&model);
	return ok;
}

void
act_stream(struct request *rq)
{
	struct template_ask t = { .name = NULL };
	struct start_ask a;

	start_ask_init(&a, rq, DIALECT_STREAM);
	a.prepare = prepare;
	a.arg = &t;
	if (ask_read(rq, &a))
		start_serve(rq, &a);
	json_object_put(t.vars);
	start_ask_done(&a);
}
