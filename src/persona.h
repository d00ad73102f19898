/* persona.h - who speaks in a conversation: a directory of files ID.json,
 *	{ "id": "lion_001", "name": "Leo", "greeting": "Roar!",
 *	  "system": "You are Leo, a lion ...", "model": "demo",
 *	  "parameters": { "temperature": 0.9 } }
 * id repeats the file's name; name and system are required; model is one of
 * the models file, its default when left out; parameters win over the
 * model's. */
#ifndef RESPOOL_PERSONA_H
#define RESPOOL_PERSONA_H

#include <stddef.h>
#include "buf.h"
#include "dialect.h"
#include "err.h"
#include "model.h"

#define PERSONA_FILE_MAX 262144	/* bytes */
#define PERSONAS_MAX 1000

struct json_object;

/* What the file leaves out is NULL. */
struct persona {
	char id[TURN_ID_MAX + 1];
	char name[TURN_NAME_MAX + 1];
	char *greeting, *system;
	char *model;
	struct json_object *parameters;
};

/* Never changes once loaded. */
struct personas {
	struct persona *all;	/* by id */
	size_t count;
};

/* All of a directory; "": none.  RS_OK; RS_EINVAL: a file is wrong; else as
 * conf_read_file.  On RS_EINVAL *ret_why has one line per fault,
 * "PATH: field: what is wrong".  *ret: personas_free. */
enum rs_err personas_load(const char *dir, struct personas **ret,
    struct buf *ret_why);
void personas_free(struct personas *p); /* takes NULL */

/* NULL when there is none, or p is NULL. */
const struct persona *personas_find(const struct personas *p, const char *id);

/* One line of why for each persona whose model m does not have, and for a
 * default ("": none) that is no persona: how many. */
size_t personas_check(const struct personas *p, const struct models *m,
    const char *def, struct buf *why);

#endif
