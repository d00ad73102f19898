/* tmpl_int.h - a template, as tmpl_parse.c makes it and tmpl_render.c walks
 * it. */
#ifndef RESPOOL_TMPL_INT_H
#define RESPOOL_TMPL_INT_H

#include "tmpl.h"

/* A part of a template's text. */
struct slice {
	const char *p;
	size_t len;
};

enum tmpl_kind {
	TMPL_TEXT, TMPL_VAR, TMPL_SECTION, TMPL_INVERTED, TMPL_PARTIAL
};

struct tmpl_node {
	enum tmpl_kind kind;
	struct slice s;		/* the text, or the name */
	size_t end;		/* of a section: the first node behind it */
	bool alone;		/* of a partial: on a line of its own, ... */
	struct slice indent;	/* ... behind this */
	const struct tmpl *partial; /* NULL: there is none of that name */
};

struct tmpl_var {
	struct slice name;
	bool plain;	/* stands for its value outside of all sections */
	bool tested;	/* is the condition of a section */
};

struct tmpl {
	char *name;
	char *text;
	size_t len;
	struct slice description; /* p is NULL: none */
	char *model;
	struct tmpl_node *nodes;
	size_t node_count;
	struct tmpl_var *vars;	/* of its partials too, once linked */
	size_t var_count;
	enum { TMPL_NEW, TMPL_OPEN, TMPL_LINKED } state;
	unsigned height;	/* files within one another, itself included */
};

/* Adds one line to why, about the place at in t's text. */
void tmpl_fault(const struct tmpl *t, const char *dir, const char *at,
    const char *what, const char *name, size_t name_len, struct buf *why);

/* Fills nodes, vars, description and model from the text.  RS_OK; RS_EINVAL,
 * with a line in *why; RS_ENOMEM. */
enum rs_err tmpl_parse(struct tmpl *t, const char *dir, struct buf *why);

/* RS_ETOOBIG: TMPL_VARS_MAX. */
enum rs_err tmpl_add_var(struct tmpl *t, struct slice name, bool plain,
    bool tested);

/* What a dotted name stands for in one object; NULL: nothing. */
struct json_object *tmpl_value(struct json_object *o, struct slice name);

#endif
