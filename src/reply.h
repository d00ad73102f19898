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
	char owner[SPOOL_OWNER_MAX + 1]; /* "": nobody, who has nothing */
	bool ambient;	/* a browser says of itself who the owner is, whatever
			 * page makes it ask */
	bool by_link;	/* the owner's link lets a reader in */
	int64_t link_created; /* of its stream; another one is not let in */
	struct address address;	/* whose request it is, where known */
	bool address_known;
	uint32_t retry_s;	/* of an answer 429; 0: REPLY_RETRY_AFTER */
	const char *limit;	/* likewise: the setting that is in the way,
				 * or NULL */
	const char *arg;	/* what the path has for the route's '*' */
	bool starting;		/* a refusal is one of a start */
	const char *stream;	/* whose id goes to the log; NULL: none yet */
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
/* 401; token: it had one, which is not valid. */
void reply_unauthorized(struct request *rq, bool token);
void reply_preflight(struct request *rq, const char *allow);

/* Writes the head of an event stream and the first comment.  True: the client
 * is still the request's, and takes frames; false: that was all, as it is a
 * HEAD or the client has gone.  stream_id NULL: there is none yet. */
bool reply_stream(struct request *rq, const char *stream_id);

/* The head of a JSON answer that comes later, but for its status: adds its
 * lines to head, the empty one included.  False: that was all, as it is a
 * HEAD. */
bool reply_later(struct request *rq, const char *stream_id, struct buf *head);

/* False: the page that asks may not start or change streams here. */
bool reply_origin_ok(const struct request *rq);

#endif
