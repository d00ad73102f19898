/* tmpl.c - all templates of a directory. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "fdio.h"
#include "jx.h"
#include "text.h"
#include "tmpl_int.h"

#define SUFFIX ".mustache"

struct tmpl_set {
	char *dir;
	struct tmpl *all;	/* by name, once linked */
	size_t count;
};

enum rs_err
tmpl_set_new(const char *dir, struct tmpl_set **ret)
{
	struct tmpl_set *s = calloc(1, sizeof *s);

	if (s == NULL || (s->dir = strdup(dir)) == NULL) {
		free(s);
		return RS_ENOMEM;
	}
	*ret = s;
	return RS_OK;
}

static void
tmpl_done(struct tmpl *t)
{
	free(t->vars);
	free(t->nodes);
	free(t->model);
	free(t->text);
	free(t->name);
}

void
tmpl_set_free(struct tmpl_set *s)
{
	size_t i;

	if (s == NULL)
		return;
	for (i = 0; i < s->count; i++)
		tmpl_done(&s->all[i]);
	free(s->all);
	free(s->dir);
	free(s);
}

static bool
name_ok(const char *s)
{
	static const char ok[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	    "abcdefghijklmnopqrstuvwxyz0123456789_.-";
	size_t len = strlen(s);

	return len > 0 && len <= TMPL_NAME_MAX && s[0] != '.' &&
	    strspn(s, ok) == len;
}

enum rs_err
tmpl_set_add(struct tmpl_set *s, const char *name, const char *text,
    size_t len, struct buf *ret_why)
{
	struct tmpl t = { .len = len }, *all;
	enum rs_err err = RS_ENOMEM;

	if (s->count == TMPL_COUNT_MAX) {
		buf_printf(ret_why, "%s: more than %d templates\n", s->dir,
		    TMPL_COUNT_MAX);
		return RS_EINVAL;
	}
	all = reallocarray(s->all, s->count + 1, sizeof *all);
	if (all == NULL)
		return RS_ENOMEM;
	s->all = all;
	t.name = strdup(name);
	t.text = malloc(len + 1);
	if (t.name == NULL || t.text == NULL)
		goto out;
	if (len > 0)
		memcpy(t.text, text, len);
	t.text[len] = '\0';
	err = RS_EINVAL;
	if (!utf8_valid(t.text, len))
		buf_printf(ret_why, "%s/%s" SUFFIX ": not UTF-8\n", s->dir,
		    name);
	else
		err = tmpl_parse(&t, s->dir, ret_why);
	if (err == RS_OK) {
		all[s->count++] = t;
		memset(&t, 0, sizeof t);
	}
out:
	tmpl_done(&t);
	return err;
}

/* ---- partials ---- */

static int
by_name(const void *a, const void *b)
{
	return strcmp(((const struct tmpl *)a)->name,
	    ((const struct tmpl *)b)->name);
}

static struct tmpl *
find(const struct tmpl_set *s, const char *name, size_t len)
{
	char key[TMPL_NAME_MAX + 1];
	struct tmpl t = { .name = key };

	if (s == NULL || s->count == 0 || len > TMPL_NAME_MAX ||
	    memchr(name, '\0', len) != NULL)
		return NULL;
	memcpy(key, name, len);
	key[len] = '\0';
	return bsearch(&t, s->all, s->count, sizeof t, by_name);
}

static enum rs_err
fault(const struct tmpl_set *s, const struct tmpl *t,
    const struct tmpl_node *node, const char *what, struct buf *why)
{
	tmpl_fault(t, s->dir, node->s.p, what, node->s.p, node->s.len, why);
	return RS_EINVAL;
}

/* What a partial needs, who includes it needs too. */
static enum rs_err
vars_join(struct tmpl *t, const struct tmpl *partial, bool in_section)
{
	const struct tmpl_var *v;
	enum rs_err err = RS_OK;
	size_t i;

	for (i = 0; i < partial->var_count && err == RS_OK; i++) {
		v = &partial->vars[i];
		err = tmpl_add_var(t, v->name, v->plain && !in_section,
		    v->tested);
	}
	return err;
}

static enum rs_err link_one(struct tmpl_set *s, struct tmpl *t,
    struct buf *why);

static enum rs_err
link_node(struct tmpl_set *s, struct tmpl *t, struct tmpl_node *node,
    bool in_section, struct buf *why)
{
	struct tmpl *partial = find(s, node->s.p, node->s.len);
	enum rs_err err;

	if (partial == NULL) {
		tmpl_fault(t, s->dir, node->s.p, "warning: nothing is "
		    "included, as there is no template ", node->s.p,
		    node->s.len, why);
		return RS_OK;
	}
	if (partial->state == TMPL_OPEN)
		return fault(s, t, node, "a template must not include itself, "
		    "also not by others: ", why);
	if (partial->state == TMPL_NEW &&
	    (err = link_one(s, partial, why)) != RS_OK)
		return err;
	if (partial->height == TMPL_PARTIALS_MAX)
		return fault(s, t, node, "too many files within one another: ",
		    why);
	if (t->height <= partial->height)
		t->height = partial->height + 1;
	node->partial = partial;
	err = vars_join(t, partial, in_section);
	return err != RS_ETOOBIG ? err :
	    fault(s, t, node, "too many variables with those of ", why);
}

static enum rs_err
link_one(struct tmpl_set *s, struct tmpl *t, struct buf *why)
{
	enum rs_err err = RS_OK;
	size_t i, section_end = 0;

	t->state = TMPL_OPEN;
	t->height = 1;
	for (i = 0; i < t->node_count && err == RS_OK; i++) {
		if (t->nodes[i].end > section_end)
			section_end = t->nodes[i].end;
		if (t->nodes[i].kind == TMPL_PARTIAL)
			err = link_node(s, t, &t->nodes[i], i < section_end,
			    why);
	}
	t->state = TMPL_LINKED;
	return err;
}

enum rs_err
tmpl_set_link(struct tmpl_set *s, struct buf *ret_why)
{
	enum rs_err err = RS_OK;
	size_t i;

	if (s->count > 0)
		qsort(s->all, s->count, sizeof s->all[0], by_name);
	for (i = 0; i < s->count && err == RS_OK; i++)
		if (s->all[i].state == TMPL_NEW)
			err = link_one(s, &s->all[i], ret_why);
	return err;
}

/* ---- the directory ---- */

/* Adds one file, when it is a template.  RS_EINVAL: it is wrong. */
static enum rs_err
load_one(struct tmpl_set *s, const char *file, struct buf *why)
{
	size_t len = strlen(file), suffix = strlen(SUFFIX);
	struct buf path, name, text;
	enum rs_err err;

	if (len < suffix || strcmp(file + len - suffix, SUFFIX) != 0)
		return RS_OK;
	buf_init(&path, 8192);
	buf_init(&name, 256);
	buf_init(&text, TMPL_FILE_MAX);
	buf_printf(&path, "%s/%s", s->dir, file);
	buf_add(&name, file, len - suffix);
	err = path.err != RS_OK ? path.err : name.err;
	if (err != RS_OK)
		goto out;
	if (name.len == 0 || !name_ok(name.data)) {
		buf_printf(why, "%s: a template's name has 1 to %d of A-Z, "
		    "a-z, 0-9, _, - and ., no dot first\n", path.data,
		    TMPL_NAME_MAX);
		err = RS_EINVAL;
		goto out;
	}
	err = conf_read_file(path.data, &text, why);
	if (err == RS_OK)
		err = tmpl_set_add(s, name.data, text.data, text.len, why);
out:
	buf_done(&text);
	buf_done(&name);
	buf_done(&path);
	return err;
}

static enum rs_err
load_all(struct tmpl_set *s, struct buf *why)
{
	enum rs_err err, worst = RS_OK;
	const struct dirent *entry;
	DIR *dir;

	if ((dir = opendir(s->dir)) == NULL) {
		err = rs_from_errno(errno);
		buf_printf(why, "%s: %s\n", s->dir, strerror(errno));
		return err;
	}
	while ((entry = readdir(dir)) != NULL)
		if ((err = load_one(s, entry->d_name, why)) != RS_OK)
			worst = err;
	closedir(dir);
	return worst;
}

enum rs_err
tmpl_load(const char *dir, struct tmpl_set **ret, struct buf *ret_why)
{
	struct tmpl_set *s;
	enum rs_err err;

	if ((err = tmpl_set_new(dir, &s)) != RS_OK)
		return err;
	if (dir[0] != '\0')
		err = load_all(s, ret_why);
	if (err == RS_OK)
		err = tmpl_set_link(s, ret_why);
	if (err == RS_OK)
		*ret = s;
	else
		tmpl_set_free(s);
	return err;
}

/* ---- asking ---- */

const struct tmpl *
tmpl_find(const struct tmpl_set *s, const char *name, size_t len)
{
	return find(s, name, len);
}

const char *
tmpl_model(const struct tmpl *t)
{
	return t->model;
}

bool
tmpl_names(const struct tmpl_set *s, size_t i, const char **ret_name,
    const char **ret_model)
{
	if (i >= s->count)
		return false;
	*ret_name = s->all[i].name;
	*ret_model = s->all[i].model;
	return true;
}

static bool
is_required(const struct tmpl_var *v)
{
	return v->plain && !v->tested;
}

static void
vars_put(const struct tmpl *t, bool only_required, struct buf *b)
{
	const char *comma = "";
	size_t i;

	for (i = 0; i < t->var_count; i++) {
		if (only_required && !is_required(&t->vars[i]))
			continue;
		buf_puts(b, comma);
		jx_put_str(b, t->vars[i].name.p, t->vars[i].name.len);
		comma = ",";
	}
}

void
tmpl_set_put(const struct tmpl_set *s, struct buf *b)
{
	const struct tmpl *t;
	size_t i;

	buf_puts(b, "{\"templates\":[");
	for (i = 0; s != NULL && i < s->count; i++) {
		t = &s->all[i];
		buf_puts(b, i > 0 ? ",{\"name\":" : "{\"name\":");
		jx_put_str(b, t->name, strlen(t->name));
		buf_puts(b, ",\"description\":");
		jx_put_str(b, t->description.p, t->description.len);
		buf_puts(b, ",\"variables\":[");
		vars_put(t, false, b);
		buf_puts(b, "],\"required\":[");
		vars_put(t, true, b);
		buf_puts(b, "]}");
	}
	buf_puts(b, "]}");
}

bool
tmpl_missing(const struct tmpl *t, struct json_object *vars, struct buf *ret)
{
	const struct tmpl_var *v;
	bool missing = false;
	size_t i;

	for (i = 0; i < t->var_count; i++) {
		v = &t->vars[i];
		if (!is_required(v) || tmpl_value(vars, v->name) != NULL)
			continue;
		buf_puts(ret, missing ? ", " : "");
		buf_add(ret, v->name.p, v->name.len);
		missing = true;
	}
	return missing;
}
