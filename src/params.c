/* params.c - query string, form and JSON body as one set of parameters */
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "jx.h"
#include "params.h"
#include "text.h"

struct source {
	struct json_object *o;	/* NULL: the source has nothing */
	bool text;	/* its values are texts, whatever they mean */
};

struct params {
	struct source body, query;
};

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

enum rs_err
params_decode(const char *p, size_t n, bool form, struct buf *ret)
{
	size_t i, begin = ret->len;

	for (i = 0; i < n; i++) {
		char c = p[i];

		if (c == '%') {
			int hi = i + 1 < n ? hex_digit(p[i + 1]) : -1;
			int lo = i + 2 < n ? hex_digit(p[i + 2]) : -1;

			if (hi < 0 || lo < 0)
				return RS_EINVAL;
			c = (char)(hi << 4 | lo);
			i += 2;
		} else if (form && c == '+')
			c = ' ';
		buf_add(ret, &c, 1);
	}
	if (ret->err != RS_OK)
		return ret->err;
	if (ret->len > begin &&
	    !utf8_valid(ret->data + begin, ret->len - begin))
		return RS_EINVAL;
	return RS_OK;
}

/* Adds one "name=value" to o.  *ret_why is set with RS_EINVAL. */
static enum rs_err
pair_add(struct json_object *o, const char *p, size_t n, const char **ret_why)
{
	const char *eq = memchr(p, '=', n);
	size_t name_len = eq != NULL ? (size_t)(eq - p) : n;
	size_t skip = eq != NULL ? name_len + 1 : n;
	struct buf name, value;
	struct json_object *text = NULL;
	const char *key;
	enum rs_err err;

	*ret_why = "A percent escape is not valid, or the text is not UTF-8.";
	buf_init(&name, n);
	buf_init(&value, n);
	if ((err = params_decode(p, name_len, true, &name)) != RS_OK ||
	    (err = params_decode(p + skip, n - skip, true, &value)) != RS_OK)
		goto out;
	key = name.data != NULL ? name.data : "";
	err = RS_EINVAL;
	*ret_why = "A parameter's name holds a NUL.";
	if (strlen(key) != name.len)
		goto out;
	*ret_why = "A parameter is given twice.";
	if (json_object_object_get_ex(o, key, NULL))
		goto out;
	*ret_why = "There are too many parameters.";
	if (json_object_object_length(o) >= PARAMS_MAX)
		goto out;
	err = RS_ENOMEM;
	text = json_object_new_string_len(
	    value.data != NULL ? value.data : "", (int)value.len);
	if (text == NULL || json_object_object_add(o, key, text) != 0)
		goto out;
	text = NULL; /* o's now */
	err = RS_OK;
out:
	json_object_put(text);
	buf_done(&name);
	buf_done(&value);
	return err;
}

static enum rs_err
form_parse(const char *p, size_t n, struct json_object **ret,
    struct buf *ret_why)
{
	struct json_object *o = json_object_new_object();
	const char *end = p + n, *why = NULL;
	enum rs_err err = o != NULL ? RS_OK : RS_ENOMEM;

	while (err == RS_OK && p < end) {
		const char *amp = memchr(p, '&', (size_t)(end - p));
		size_t len = (size_t)((amp != NULL ? amp : end) - p);

		if (len > 0)
			err = pair_add(o, p, len, &why);
		p += len + (amp != NULL ? 1 : 0);
	}
	if (err == RS_OK)
		*ret = o;
	else
		json_object_put(o);
	if (err == RS_EINVAL)
		buf_puts(ret_why, why);
	return err;
}

/* True when a Content-Type, without its parameters, is that one. */
static bool
type_is(const char *type, const char *want)
{
	size_t n = strcspn(type, ";");

	while (n > 0 && (type[n - 1] == ' ' || type[n - 1] == '\t'))
		n--;
	return n == strlen(want) && strncasecmp(type, want, n) == 0;
}

static enum errtype
errtype_of(enum rs_err err)
{
	return err == RS_OK ? ERRTYPE_none : err == RS_EINVAL ?
	    ERRTYPE_invalid_request : ERRTYPE_internal;
}

static enum errtype
body_parse(const char *type, const struct buf *body, struct source *ret,
    struct buf *ret_why)
{
	const char *why = "it is not an object";
	enum rs_err err;

	if (body->len == 0)
		return ERRTYPE_none;
	if (type_is(type, "application/json")) {
		err = jx_parse(body->data, body->len, &ret->o, &why);
		if (err == RS_OK &&
		    !json_object_is_type(ret->o, json_type_object))
			err = RS_EINVAL;
		if (err == RS_EINVAL)
			buf_printf(ret_why, "The JSON body is not valid: %s.",
			    why);
	} else if (type_is(type, "application/x-www-form-urlencoded")) {
		ret->text = true;
		err = form_parse(body->data, body->len, &ret->o, ret_why);
	} else
		return ERRTYPE_unsupported_media_type;
	return errtype_of(err);
}

enum errtype
params_parse(const char *query, const char *type, const struct buf *body,
    struct params **ret, struct buf *ret_why)
{
	struct params *p = calloc(1, sizeof *p);
	enum errtype t = ERRTYPE_none;

	if (p == NULL)
		return ERRTYPE_internal;
	p->query.text = true;
	if (query != NULL)
		t = errtype_of(form_parse(query, strlen(query), &p->query.o,
		    ret_why));
	if (t == ERRTYPE_none)
		t = body_parse(type != NULL ? type : "", body, &p->body,
		    ret_why);
	if (t == ERRTYPE_none)
		*ret = p;
	else
		params_free(p);
	return t;
}

void
params_free(struct params *p)
{
	if (p == NULL)
		return;
	json_object_put(p->body.o);
	json_object_put(p->query.o);
	free(p);
}

/* RS_ENOENT also for a null. */
static enum rs_err
value_find(const struct params *p, const char *name, struct json_object **ret,
    bool *ret_text)
{
	const struct source *s = &p->body;
	struct json_object *o;

	if (!json_object_object_get_ex(s->o, name, &o)) {
		s = &p->query;
		if (!json_object_object_get_ex(s->o, name, &o))
			return RS_ENOENT;
	}
	if (o == NULL)
		return RS_ENOENT;
	*ret = o;
	*ret_text = s->text;
	return RS_OK;
}

enum rs_err
params_str(const struct params *p, const char *name, const char **ret,
    size_t *ret_len)
{
	struct json_object *o;
	bool text;
	enum rs_err err;

	if ((err = value_find(p, name, &o, &text)) != RS_OK)
		return err;
	if (!json_object_is_type(o, json_type_string))
		return RS_EINVAL;
	*ret = json_object_get_string(o);
	*ret_len = (size_t)json_object_get_string_len(o);
	return RS_OK;
}

enum rs_err
params_int_parse(const char *p, size_t n, int64_t *ret)
{
	bool minus = n > 0 && p[0] == '-';
	int64_t v = 0;
	size_t i = minus ? 1 : 0;

	if (i == n)
		return RS_EINVAL;
	for (; i < n; i++) {
		if (p[i] < '0' || p[i] > '9' ||
		    __builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, p[i] - '0', &v))
			return RS_EINVAL;
	}
	*ret = minus ? -v : v;
	return RS_OK;
}

enum rs_err
params_int(const struct params *p, const char *name, int64_t *ret)
{
	struct json_object *o;
	bool text;
	int64_t v;
	enum rs_err err;

	if ((err = value_find(p, name, &o, &text)) != RS_OK)
		return err;
	if (text)
		return params_int_parse(json_object_get_string(o),
		    (size_t)json_object_get_string_len(o), ret);
	if (!json_object_is_type(o, json_type_int))
		return RS_EINVAL;
	/* json-c makes the outermost values of those that do not fit. */
	v = json_object_get_int64(o);
	if (v == INT64_MAX || v == INT64_MIN)
		return RS_EINVAL;
	*ret = v;
	return RS_OK;
}

enum rs_err
params_bool(const struct params *p, const char *name, bool *ret)
{
	struct json_object *o;
	const char *word;
	size_t len;
	bool text;
	enum rs_err err;

	if ((err = value_find(p, name, &o, &text)) != RS_OK)
		return err;
	if (!text && !json_object_is_type(o, json_type_boolean))
		return RS_EINVAL;
	/* The text of a JSON boolean is the same two words. */
	word = json_object_get_string(o);
	len = text ? (size_t)json_object_get_string_len(o) : strlen(word);
	if (!(len == 4 && memcmp(word, "true", len) == 0) &&
	    !(len == 5 && memcmp(word, "false", len) == 0))
		return RS_EINVAL;
	*ret = len == 4;
	return RS_OK;
}

static enum rs_err
params_json(const struct params *p, const char *name, enum json_type type,
    struct json_object **ret)
{
	struct json_object *o;
	const char *why;
	bool text;
	enum rs_err err;

	if ((err = value_find(p, name, &o, &text)) != RS_OK)
		return err;
	if (text) {
		err = jx_parse(json_object_get_string(o),
		    (size_t)json_object_get_string_len(o), &o, &why);
		if (err != RS_OK)
			return err;
	} else
		json_object_get(o);
	if (!json_object_is_type(o, type)) {
		json_object_put(o);
		return RS_EINVAL;
	}
	*ret = o;
	return RS_OK;
}

enum rs_err
params_array(const struct params *p, const char *name,
    struct json_object **ret)
{
	return params_json(p, name, json_type_array, ret);
}

enum rs_err
params_object(const struct params *p, const char *name,
    struct json_object **ret)
{
	return params_json(p, name, json_type_object, ret);
}
