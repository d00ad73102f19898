/* tmpl_render.c - a template and values, as text. */
#include <json-c/json.h>
#include <string.h>

#include "jx.h"
#include "tmpl_int.h"

#define CONTEXTS_MAX (1 + TMPL_SECTIONS_MAX * TMPL_PARTIALS_MAX)

struct render {
	struct buf *out;
	struct json_object *contexts[CONTEXTS_MAX]; /* the innermost last */
	size_t depth;
	size_t steps;
	struct buf indents;	/* of the partials that are open */
	size_t indent;		/* where in it those begin that count */
	bool line_begins;	/* the template's line, whatever values hold */
	enum rs_err err;
};

/* One member of o, by the first len bytes at p; false: o has none. */
static bool
member(struct json_object *o, const char *p, size_t len,
    struct json_object **ret)
{
	char name[TMPL_VAR_MAX + 1];

	if (!json_object_is_type(o, json_type_object))
		return false;
	memcpy(name, p, len);
	name[len] = '\0';
	return json_object_object_get_ex(o, name, ret);
}

static size_t
part_len(struct slice name)
{
	const char *dot = memchr(name.p, '.', name.len);

	return dot != NULL ? (size_t)(dot - name.p) : name.len;
}

struct json_object *
tmpl_value(struct json_object *o, struct slice name)
{
	size_t len = part_len(name);

	while (member(o, name.p, len, &o)) {
		if (len == name.len)
			return o;
		name.p += len + 1;
		name.len -= len + 1;
		len = part_len(name);
	}
	return NULL;
}

/* The innermost context that has the first part decides. */
static struct json_object *
lookup(const struct render *r, struct slice name)
{
	struct json_object *o;
	size_t i;

	if (name.p[0] == '.')
		return r->contexts[r->depth - 1];
	for (i = r->depth; i-- > 0;)
		if (member(r->contexts[i], name.p, part_len(name), &o))
			return tmpl_value(r->contexts[i], name);
	return NULL;
}

static bool
is_true(struct json_object *o)
{
	switch (json_object_get_type(o)) {
	case json_type_null:
		return false;
	case json_type_array:
		return json_object_array_length(o) > 0;
	case json_type_string:
		return json_object_get_string_len(o) > 0;
	case json_type_object:
		return true;
	default:
		return json_object_get_boolean(o);
	}
}

static void
indent_put(struct render *r)
{
	if (r->line_begins && r->indents.len > r->indent)
		buf_add(r->out, r->indents.data + r->indent,
		    r->indents.len - r->indent);
	r->line_begins = false;
}

static void
text_put(struct render *r, struct slice s)
{
	const char *end;
	size_t n;

	for (; s.len > 0; s.p += n, s.len -= n) {
		end = memchr(s.p, '\n', s.len);
		n = end != NULL ? (size_t)(end + 1 - s.p) : s.len;
		indent_put(r);
		buf_add(r->out, s.p, n);
		r->line_begins = end != NULL;
	}
}

static void
value_put(struct render *r, struct json_object *o)
{
	indent_put(r);
	if (json_object_is_type(o, json_type_string))
		buf_add(r->out, json_object_get_string(o),
		    (size_t)json_object_get_string_len(o));
	else if (o != NULL)
		jx_put(r->out, o);
}

static void nodes_put(struct render *r, const struct tmpl *t, size_t from,
    size_t to);

static void
section_put(struct render *r, const struct tmpl *t, size_t at)
{
	struct json_object *o = lookup(r, t->nodes[at].s);
	bool list = json_object_is_type(o, json_type_array), yes = is_true(o);
	size_t i, n = list ? json_object_array_length(o) : 1;

	if (t->nodes[at].kind == TMPL_INVERTED) {
		if (!yes)
			nodes_put(r, t, at + 1, t->nodes[at].end);
		return;
	}
	if (!yes)
		return;
	for (i = 0; i < n && r->err == RS_OK; i++) {
		r->contexts[r->depth++] = list ?
		    json_object_array_get_idx(o, i) : o;
		nodes_put(r, t, at + 1, t->nodes[at].end);
		r->depth--;
	}
}

/* On a line of its own, each of its lines has the indentation of the tag;
 * elsewhere it goes on where the tag stands. */
static void
partial_put(struct render *r, const struct tmpl_node *node)
{
	size_t indent = r->indent, len = r->indents.len;

	if (node->partial == NULL)
		return;
	if (node->alone) {
		buf_add(&r->indents, node->indent.p, node->indent.len);
		if (r->indents.err != RS_OK)
			r->err = r->indents.err;
		r->line_begins = true;
	} else {
		indent_put(r);
		r->indent = len;
	}
	nodes_put(r, node->partial, 0, node->partial->node_count);
	r->line_begins = node->alone;
	r->indents.len = len;
	r->indent = indent;
}

static void
nodes_put(struct render *r, const struct tmpl *t, size_t from, size_t to)
{
	const struct tmpl_node *node;
	size_t i, next;

	if (++r->steps > TMPL_STEPS_MAX)
		r->err = RS_ETOOBIG;
	for (i = from; i < to && r->err == RS_OK; i = next) {
		node = &t->nodes[i];
		next = i + 1;
		if (++r->steps > TMPL_STEPS_MAX) {
			r->err = RS_ETOOBIG;
			break;
		}
		switch (node->kind) {
		case TMPL_TEXT:
			text_put(r, node->s);
			break;
		case TMPL_VAR:
			value_put(r, lookup(r, node->s));
			break;
		case TMPL_SECTION:
		case TMPL_INVERTED:
			section_put(r, t, i);
			next = node->end;
			break;
		case TMPL_PARTIAL:
			partial_put(r, node);
			break;
		}
		if (r->err == RS_OK)
			r->err = r->out->err;
	}
}

enum rs_err
tmpl_render(const struct tmpl *t, struct json_object *vars, struct buf *ret)
{
	struct render r = { .out = ret, .line_begins = true, .depth = 1 };

	r.contexts[0] = vars;
	buf_init(&r.indents, TMPL_FILE_MAX);
	nodes_put(&r, t, 0, t->node_count);
	buf_done(&r.indents);
	return r.err;
}
