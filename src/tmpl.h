/* tmpl.h - prompt templates: a directory of files NAME.mustache.
 * Of the mustache language they have variables, sections, inverted sections,
 * comments, partials ({{>NAME}}, another file of the directory) and set
 * delimiters, as its specification has them, with these differences:
 * - nothing is escaped: prompts are text, {{x}}, {{{x}}} and {{&x}} the same;
 * - a template that includes itself, also by others, is refused;
 * - inheritance, dynamic names and lambdas are refused or do not exist.
 * Values are JSON.  Objects and lists that stand for a variable are put as
 * JSON; null is as if not there.  A section is not rendered for null, false,
 * 0, "" and [].  A value is never looked at as a template.
 *
 * Comments before anything else in a file that say
 *	{{! description: Shortens a text. }}
 *	{{! model: gpt }}
 * describe it, and name the model it is for. */
#ifndef RESPOOL_TMPL_H
#define RESPOOL_TMPL_H

#include <stdbool.h>
#include <stddef.h>
#include "buf.h"
#include "err.h"

#define TMPL_NAME_MAX 64	/* bytes of a template's name: A-Za-z0-9_.-,
				 * no dot first */
#define TMPL_FILE_MAX 65536	/* bytes */
#define TMPL_COUNT_MAX 1000	/* templates */
#define TMPL_VAR_MAX 128	/* bytes of a variable's name */
#define TMPL_VARS_MAX 256	/* variables of a template */
#define TMPL_MODEL_MAX 128	/* bytes of a model's name */
#define TMPL_SECTIONS_MAX 32	/* open at once in one file */
#define TMPL_PARTIALS_MAX 16	/* files within one another */
/* What one rendering may go through, elements of lists and tags: lists within
 * lists could keep it busy for ever without a byte of output. */
#define TMPL_STEPS_MAX 1000000

struct json_object;
struct tmpl_set;
struct tmpl;

/* All templates of a directory; "": none.
 * RS_OK, with warnings in *ret_why; RS_EINVAL: a file is wrong; else as
 * conf_read_file.  Of RS_EINVAL *ret_why has one line per fault,
 * "PATH:LINE: what is wrong".  *ret: tmpl_set_free. */
enum rs_err tmpl_load(const char *dir, struct tmpl_set **ret,
    struct buf *ret_why);
void tmpl_set_free(struct tmpl_set *s); /* takes NULL */

/* A set without a directory: what tmpl_load does.  dir is for messages only.
 * _add copies text, and returns RS_EINVAL when a template is wrong; _link
 * comes after the last _add, before anything else. */
enum rs_err tmpl_set_new(const char *dir, struct tmpl_set **ret);
enum rs_err tmpl_set_add(struct tmpl_set *s, const char *name,
    const char *text, size_t len, struct buf *ret_why);
enum rs_err tmpl_set_link(struct tmpl_set *s, struct buf *ret_why);

/* NULL when there is none, or s is NULL.  name is len bytes. */
const struct tmpl *tmpl_find(const struct tmpl_set *s, const char *name,
    size_t len);

const char *tmpl_model(const struct tmpl *t); /* NULL: none named */

/* Name and model (or NULL) of the i-th one; false: there are fewer. */
bool tmpl_names(const struct tmpl_set *s, size_t i, const char **ret_name,
    const char **ret_model);

/* Adds {"templates":[{"name","description","variables","required"}]}; s may
 * be NULL.  variables are all names in a template and its partials, in
 * order; required are those that stand outside of all sections and are the
 * condition of none. */
void tmpl_set_put(const struct tmpl_set *s, struct buf *b);

/* True when some that are required have no value; adds their names, with
 * ", " between them, as far as ret has room.  vars is an object, or NULL. */
bool tmpl_missing(const struct tmpl *t, struct json_object *vars,
    struct buf *ret);

/* Adds the text.  Variables that have no value are empty.
 * RS_OK; RS_ETOOBIG: over ret's maximum or TMPL_STEPS_MAX; RS_ENOMEM. */
enum rs_err tmpl_render(const struct tmpl *t, struct json_object *vars,
    struct buf *ret);

#endif
