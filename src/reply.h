/* reply.h - one request on its way through its handler, and the answers.
 * Each reply_ function writes a whole response, CORS headers included, and
 * finishes the client, so that rq->c is NULL afterwards; where the method is
 * HEAD, no body goes out. */
#ifndef RESPOOL_REPLY_H
#define RESPOOL_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include "address.h"
#include "buf.h"
#include "client.h"
#include "errtype.h"
#include "params.h"
#include "responder.h"

/* The owner of requests that name none; open to whoever knows a stream's id. */
#define OWNER_ANONYMOUS "anonymous"
#define REPLY_RETRY_AFTER 5 /* seconds, with 429 and 503 */

struct request {
	struct responder *r;
	struct client *c;	/* NULL once answered or handed over */
	bool head;		/* HEAD: start and stream nothing */
	struct params *params;	/* NULL where the route takes none */
	char owner[SPOOL_OWNER_MAX + 1];
	struct address address;	/* whose request it is, where known */
	bool address_known;
	const char *arg;	/* what the path has for the route's '*' */
};

/* headers: further lines, each with its CR LF, or "". */
void reply_send(struct request *rq, int status, const char *headers,
    const void *body, size_t len);

/* 200 with a JSON text; 500 when json->err is set. */
void reply_json(struct request *rq, const struct buf *json);
void reply_no_content(struct request *rq);

/* The type's status, and {"error","error_type"}; text NULL or "": the type's
 * own sentence. */
void reply_error(struct request *rq, enum errtype type, const char *text);

/* allow: the methods of the path, "GET, HEAD". */
void reply_not_allowed(struct request *rq, const char *allow);
void reply_preflight(struct request *rq, const char *allow);

/* Writes the head of an event stream and the first comment.  True: the client
 * is still the request's, and takes frames; false: that was all, as it is a
 * HEAD or the client has gone.  stream_id NULL: there is none yet. */
bool reply_stream(struct request *rq, const char *stream_id);

/* The head of a JSON answer that comes later, but for its status: adds its
 * lines to head, the empty one included.  False: that was all, as it is a
 * HEAD. */
bool reply_later(struct request *rq, const char *stream_id, struct buf *head);

/* False: the page that asks may not start streams here. */
bool reply_origin_ok(const struct request *rq);

#endif
