/* tmpl_parse.c - a template's text, as nodes. */
#include <stdlib.h>
#include <string.h>

#include "tmpl_int.h"

#define DELIMITER_MAX 16 /* bytes */

/* What tells tags apart; it must follow the delimiter at once. */
static const char sigils[] = "#^/>!=&{$<";

struct parser {
	struct tmpl *t;
	const char *dir;
	struct buf *why;
	const char *at, *end;
	struct slice open, close;
	size_t sections[TMPL_SECTIONS_MAX]; /* nodes of the open ones */
	size_t depth;
};

/* A tag, and what of its line goes away with it. */
struct tag {
	char sigil;		/* 0: none */
	struct slice body;	/* between the delimiters, trimmed */
	const char *from, *to;	/* all that the tag takes up */
	struct slice indent;	/* the white space before it, when alone */
	bool alone;		/* on a line of its own */
};

void
tmpl_fault(const struct tmpl *t, const char *dir, const char *at,
    const char *what, const char *name, size_t name_len, struct buf *why)
{
	size_t line = 1;
	const char *p;

	for (p = t->text; p < at; p++)
		line += *p == '\n';
	buf_printf(why, "%s/%s.mustache:%zu: %s", dir, t->name, line, what);
	if (name_len > TMPL_VAR_MAX)
		name_len = TMPL_VAR_MAX;
	for (; name_len > 0; name++, name_len--)
		buf_add(why, (unsigned char)*name < ' ' ? "?" : name, 1);
	buf_puts(why, "\n");
}

static enum rs_err
fault(struct parser *p, const struct tag *tag, const char *what)
{
	tmpl_fault(p->t, p->dir, tag->from, what, tag->body.p, tag->body.len,
	    p->why);
	return RS_EINVAL;
}

static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static struct slice
trim(const char *p, const char *end)
{
	while (p < end && is_space(*p))
		p++;
	while (end > p && is_space(end[-1]))
		end--;
	return (struct slice){ p, (size_t)(end - p) };
}

static bool
same(struct slice a, struct slice b)
{
	return a.len == b.len && memcmp(a.p, b.p, a.len) == 0;
}

/* Visible characters, parts of at least one between dots; or the dot alone. */
static bool
name_ok(struct slice s)
{
	size_t i;

	if (s.len == 0 || s.len > TMPL_VAR_MAX)
		return false;
	if (s.len == 1 && s.p[0] == '.')
		return true;
	if (s.p[0] == '.' || s.p[s.len - 1] == '.' ||
	    strchr(sigils, s.p[0]) != NULL)
		return false;
	for (i = 0; i < s.len; i++)
		if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f ||
		    (s.p[i] == '.' && s.p[i + 1] == '.'))
			return false;
	return true;
}

enum rs_err
tmpl_add_var(struct tmpl *t, struct slice name, bool plain, bool tested)
{
	struct tmpl_var *v;
	size_t i;

	for (i = 0; i < t->var_count && !same(t->vars[i].name, name); i++)
		;
	if (i == TMPL_VARS_MAX)
		return RS_ETOOBIG;
	if (i == t->var_count) {
		v = realloc(t->vars, (i + 1) * sizeof *v);
		if (v == NULL)
			return RS_ENOMEM;
		t->vars = v;
		v[i] = (struct tmpl_var){ .name = name };
		t->var_count++;
	}
	t->vars[i].plain |= plain;
	t->vars[i].tested |= tested;
	return RS_OK;
}

static enum rs_err
node_add(struct parser *p, struct tmpl_node node)
{
	struct tmpl *t = p->t;
	struct tmpl_node *nodes = t->nodes;

	/* At each power of two the room is used up. */
	if ((t->node_count & (t->node_count - 1)) == 0) {
		nodes = reallocarray(nodes, t->node_count == 0 ? 1 :
		    2 * t->node_count, sizeof *nodes);
		if (nodes == NULL)
			return RS_ENOMEM;
		t->nodes = nodes;
	}
	nodes[t->node_count++] = node;
	return RS_OK;
}

static enum rs_err
text_add(struct parser *p, const char *to)
{
	if (to == p->at)
		return RS_OK;
	return node_add(p, (struct tmpl_node){ .kind = TMPL_TEXT,
	    .s = { p->at, (size_t)(to - p->at) } });
}

/* ---- one tag ---- */

/* Widens a tag that is alone on its line to the whole line. */
static void
tag_widen(const struct parser *p, struct tag *tag)
{
	const char *from = tag->from, *to = tag->to;

	while (from > p->at && (from[-1] == ' ' || from[-1] == '\t'))
		from--;
	if (from > p->t->text && from[-1] != '\n')
		return;
	while (to < p->end && (*to == ' ' || *to == '\t'))
		to++;
	if (p->end - to >= 2 && to[0] == '\r' && to[1] == '\n')
		to++;
	if (to < p->end && *to != '\n')
		return;
	tag->alone = true;
	tag->indent = (struct slice){ from, (size_t)(tag->from - from) };
	tag->from = from;
	tag->to = to < p->end ? to + 1 : to;
}

/* Reads the tag that begins at from. */
static enum rs_err
tag_read(struct parser *p, const char *from, struct tag *ret)
{
	struct tag tag = { .from = from };
	char close[DELIMITER_MAX + 1];
	const char *body = from + p->open.len, *end;
	size_t extra = 0;

	if (body < p->end && *body != '\0' &&
	    strchr(sigils, *body) != NULL)
		tag.sigil = *body++;
	if (tag.sigil == '{' || tag.sigil == '=')
		close[extra++] = tag.sigil == '{' ? '}' : '=';
	memcpy(close + extra, p->close.p, p->close.len);
	end = memmem(body, (size_t)(p->end - body), close,
	    extra + p->close.len);
	if (end == NULL) {
		tag.body = p->open;
		return fault(p, &tag, "a tag without an end: ");
	}
	tag.body = trim(body, end);
	tag.to = end + extra + p->close.len;
	if (tag.sigil != 0 && strchr("#^/>!=", tag.sigil) != NULL)
		tag_widen(p, &tag);
	*ret = tag;
	return RS_OK;
}

/* The value behind "word:" in a comment; false: it says something else. */
static bool
comment_says(struct slice body, const char *word, struct slice *ret)
{
	size_t n = strlen(word);

	if (body.len <= n || memcmp(body.p, word, n) != 0 || body.p[n] != ':')
		return false;
	*ret = trim(body.p + n + 1, body.p + body.len);
	return ret->len > 0;
}

static enum rs_err
comment(struct parser *p, const struct tag *tag)
{
	struct slice value;

	if (p->t->node_count > 0)
		return RS_OK;
	if (comment_says(tag->body, "description", &value))
		p->t->description = value;
	if (!comment_says(tag->body, "model", &value))
		return RS_OK;
	if (value.len > TMPL_MODEL_MAX)
		return fault(p, tag, "too long for a model's name: ");
	free(p->t->model);
	p->t->model = strndup(value.p, value.len);
	return p->t->model != NULL ? RS_OK : RS_ENOMEM;
}

static enum rs_err
set_delimiters(struct parser *p, const struct tag *tag)
{
	const char *at = tag->body.p, *end = at + tag->body.len;
	struct slice open, close;

	while (at < end && !is_space(*at))
		at++;
	open = trim(tag->body.p, at);
	close = trim(at, end);
	for (at = close.p; at < end && !is_space(*at);)
		at++;
	if (open.len == 0 || close.len == 0 || at < end ||
	    open.len >= DELIMITER_MAX || close.len >= DELIMITER_MAX ||
	    memchr(tag->body.p, '=', tag->body.len) != NULL)
		return fault(p, tag, "not two delimiters: ");
	p->open = open;
	p->close = close;
	return RS_OK;
}

static enum rs_err
section_open(struct parser *p, const struct tag *tag)
{
	if (p->depth == TMPL_SECTIONS_MAX)
		return fault(p, tag, "too many sections in one another: ");
	p->sections[p->depth++] = p->t->node_count;
	return node_add(p, (struct tmpl_node){
	    .kind = tag->sigil == '#' ? TMPL_SECTION : TMPL_INVERTED,
	    .s = tag->body });
}

static enum rs_err
section_close(struct parser *p, const struct tag *tag)
{
	struct tmpl_node *node;

	if (p->depth == 0)
		return fault(p, tag, "the end of a section that was not "
		    "begun: ");
	node = &p->t->nodes[p->sections[p->depth - 1]];
	if (!same(node->s, tag->body))
		return fault(p, tag, "the end of a section within another "
		    "one: ");
	node->end = p->t->node_count;
	p->depth--;
	return RS_OK;
}

static enum rs_err
named(struct parser *p, const struct tag *tag)
{
	bool tested = tag->sigil == '#' || tag->sigil == '^';
	enum rs_err err = RS_OK;

	if (!name_ok(tag->body))
		return fault(p, tag, "not a name: ");
	if (tag->sigil == '/')
		return section_close(p, tag);
	if (tag->sigil == '>')
		return tag->body.p[0] == '*' ?
		    fault(p, tag, "dynamic names are not supported: ") :
		    node_add(p, (struct tmpl_node){ .kind = TMPL_PARTIAL,
		    .s = tag->body, .alone = tag->alone,
		    .indent = tag->indent });
	if (tag->body.len > 1 || tag->body.p[0] != '.')
		err = tmpl_add_var(p->t, tag->body,
		    !tested && p->depth == 0, tested);
	if (err == RS_ETOOBIG)
		return fault(p, tag, "too many variables: ");
	if (err != RS_OK)
		return err;
	if (tested)
		return section_open(p, tag);
	return node_add(p, (struct tmpl_node){ .kind = TMPL_VAR,
	    .s = tag->body });
}

static enum rs_err
tag_take(struct parser *p, const struct tag *tag)
{
	switch (tag->sigil) {
	case '!':
		return comment(p, tag);
	case '=':
		return set_delimiters(p, tag);
	case '$':
	case '<':
		return fault(p, tag, "inheritance is not supported: ");
	default:
		return named(p, tag);
	}
}

enum rs_err
tmpl_parse(struct tmpl *t, const char *dir, struct buf *why)
{
	struct parser p = {
		.t = t, .dir = dir, .why = why,
		.at = t->text, .end = t->text + t->len,
		.open = { "{{", 2 }, .close = { "}}", 2 },
	};
	struct tmpl_node *node;
	const char *from;
	struct tag tag;
	enum rs_err err;

	while ((from = memmem(p.at, (size_t)(p.end - p.at), p.open.p,
	    p.open.len)) != NULL) {
		if ((err = tag_read(&p, from, &tag)) != RS_OK ||
		    (err = text_add(&p, tag.from)) != RS_OK ||
		    (err = tag_take(&p, &tag)) != RS_OK)
			return err;
		p.at = tag.to;
	}
	if ((err = text_add(&p, p.end)) != RS_OK)
		return err;
	if (p.depth > 0) {
		node = &t->nodes[p.sections[p.depth - 1]];
		tmpl_fault(t, dir, node->s.p, "a section without an end: ",
		    node->s.p, node->s.len, why);
		return RS_EINVAL;
	}
	return RS_OK;
}
