/* request.h - what the providers' requests have in common: a JSON body, the
 * model's parameters in it, the key.  No I/O. */
#ifndef RESPOOL_REQUEST_H
#define RESPOOL_REQUEST_H

#include <stdbool.h>
#include "err.h"
#include "http.h"
#include "provider.h"

struct json_object;

/* A body in the making.  Errors stick: request_finish tells the first one. */
struct request {
	const struct chat *chat;
	struct json_object *root;
	enum rs_err err;
};

/* Where a parameter of the models file goes.  Those without a row go into the
 * root as they are. */
struct request_param {
	const char *ours;
	const char *theirs;	/* NULL: left out */
	bool list;		/* it must be an array: others are put in one */
};

void request_init(struct request *r, const struct chat *chat);

/* Adds a member to an object of the body.  value is taken; NULL is
 * RS_ENOMEM.  A name that is there already is RS_EINVAL: so a parameter of the
 * model cannot take the place of what was put before it. */
void request_put(struct request *r, struct json_object *into,
    const char *name, struct json_object *value);
void request_put_str(struct request *r, struct json_object *into,
    const char *name, const char *value);
/* Adds to an array; value as above. */
void request_append(struct request *r, struct json_object *array,
    struct json_object *value);

/* Whether a message of a chat has that role. */
bool request_is_role(struct json_object *message, const char *role);

/* "messages": [{role, content}, ...].  system: with what system messages
 * there are, the model's own prompt first; else none of them. */
void request_put_messages(struct request *r, bool system);

/* The system prompt as one string: the model's, then the chat's, with empty
 * lines between.  The caller's; NULL: there is none, or an error. */
struct json_object *request_system(struct request *r);

/* The model's parameters, of which the chat's take the place.  rows end with an empty one; what they name goes
 * into the object named inner of the root, NULL being the root itself.  A
 * parameter of the name inner is an object whose members join the others. */
void request_put_parameters(struct request *r,
    const struct request_param *rows, const char *inner);

/* Adds the header that shows the key, in the usual way when the model does
 * not say which: "Authorization" (Bearer) or the name of another header. */
void request_key(const struct chat *chat, const char *usual,
    struct http_req *ret);

/* Writes the body and the headers that say what is sent and wanted.
 * RS_OK, RS_EINVAL, RS_ENOMEM; r is done with. */
enum rs_err request_finish(struct request *r, const char *accept,
    struct http_req *ret);

#endif
