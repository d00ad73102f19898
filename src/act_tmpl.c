/* act_tmpl.c - prompt templates, and what a message is about */
#include <json-c/json.h>
#include <string.h>

#include "jx.h"
#include "route.h"
#include "tmpl.h"
#include "triage.h"

#define TEMPLATES_BYTES_MAX (1 << 24)
#define TRIAGE_BYTES_MAX 8192
#define WHY_MAX 512

static enum rs_err
templates_load(const char *path, void **ret, struct buf *why)
{
	struct tmpl_set *s;
	enum rs_err err = tmpl_load(path, &s, why);

	if (err == RS_OK)
		*ret = s;
	return err;
}

static void
templates_free(void *value)
{
	tmpl_set_free(value);
}

const struct reload_kind templates_kind = {
	.what = "templates", .load = templates_load, .free = templates_free,
};

static enum rs_err
rules_load(const char *path, void **ret, struct buf *why)
{
	struct triage *t;
	enum rs_err err = triage_load(path, &t, why);

	if (err == RS_OK)
		*ret = t;
	return err;
}

static void
rules_free(void *value)
{
	triage_free(value);
}

const struct reload_kind triage_kind = {
	.what = "triage", .load = rules_load, .free = rules_free,
};

void
act_templates(struct request *rq)
{
	struct buf b;

	buf_init(&b, TEMPLATES_BYTES_MAX);
	tmpl_set_put(reload_use(rq->r->templates), &b);
	reload_done(rq->r->templates);
	reply_json(rq, &b);
	buf_done(&b);
}

/* ERRTYPE_none, or why there is no text, with a sentence in *why. */
static enum errtype
template_try(const struct tmpl_set *s, const char *name, size_t len,
    struct json_object *vars, struct buf *ret_text, struct buf *ret_model,
    struct buf *why)
{
	const struct tmpl *t = tmpl_find(s, name, len);

	if (t == NULL) {
		buf_puts(why, "There is no such template.");
		return ERRTYPE_invalid_request;
	}
	buf_puts(why, "These variables are missing: ");
	if (tmpl_missing(t, vars, why))
		return ERRTYPE_invalid_request;
	buf_clear(why);
	if (ret_model != NULL && tmpl_model(t) != NULL)
		buf_puts(ret_model, tmpl_model(t));
	switch (tmpl_render(t, vars, ret_text)) {
	case RS_OK:
		return ERRTYPE_none;
	case RS_ETOOBIG:
		buf_puts(why, "The text of the template and its variables is "
		    "too long.");
		return ERRTYPE_body_too_large;
	default:
		return ERRTYPE_internal;
	}
}

bool
template_render(struct request *rq, const char *name, size_t len,
    struct json_object *vars, struct buf *ret_text, struct buf *ret_model)
{
	struct buf why;
	enum errtype t;

	buf_init(&why, WHY_MAX);
	t = template_try(reload_use(rq->r->templates), name, len, vars,
	    ret_text, ret_model, &why);
	/* Before the answer, as a client can be slow. */
	reload_done(rq->r->templates);
	if (t != ERRTYPE_none)
		reply_error(rq, t, why.data);
	buf_done(&why);
	return t == ERRTYPE_none;
}

void
act_render(struct request *rq)
{
	struct json_object *vars = NULL;
	enum rs_err err = params_object(rq->params, "variables", &vars);
	struct buf text, b;
	const char *name;
	size_t len;

	buf_init(&text, rq->r->conf->max_body_bytes);
	buf_init(&b, 6 * rq->r->conf->max_body_bytes + 64);
	if (params_str(rq->params, "template", &name, &len) != RS_OK)
		reply_error(rq, ERRTYPE_invalid_request,
		    "template must be the name of a template.");
	else if (err != RS_OK && err != RS_ENOENT)
		reply_error(rq, ERRTYPE_invalid_request,
		    "variables must be an object.");
	else if (template_render(rq, name, len, vars, &text, NULL)) {
		buf_puts(&b, "{\"text\":");
		jx_put_str(&b, text.data, text.len);
		buf_puts(&b, "}");
		reply_json(rq, &b);
	}
	json_object_put(vars);
	buf_done(&b);
	buf_done(&text);
}

static void
name_put(struct buf *b, const char *field, const char *name)
{
	buf_printf(b, ",\"%s\":", field);
	if (name != NULL)
		jx_put_str(b, name, strlen(name));
	else
		buf_puts(b, "null");
}

void
act_triage(struct request *rq)
{
	struct triage_found found;
	const char *message;
	enum rs_err err;
	struct buf b;
	size_t len;

	if (params_str(rq->params, "message", &message, &len) != RS_OK) {
		reply_error(rq, ERRTYPE_invalid_request,
		    "message must be a text.");
		return;
	}
	buf_init(&b, TRIAGE_BYTES_MAX);
	err = triage_find(reload_use(rq->r->triage), message, len, &found);
	if (err == RS_OK) {
		buf_puts(&b, "{\"category\":");
		jx_put_str(&b, found.category, strlen(found.category));
		name_put(&b, "template", found.template_name);
		name_put(&b, "model", found.model);
		buf_printf(&b, ",\"confidence\":%.4g", found.confidence);
		name_put(&b, "rule", found.rule);
		buf_puts(&b, "}");
	}
	reload_done(rq->r->triage);
	if (err == RS_OK)
		reply_json(rq, &b);
	else
		reply_error(rq, ERRTYPE_internal, NULL);
	buf_done(&b);
}
