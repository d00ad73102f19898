/* route.h - the handlers, one row each in route.c's table, and the steps that
 * they share.  A handler answers its request or hands its client over. */
#ifndef RESPOOL_ROUTE_H
#define RESPOOL_ROUTE_H

#include "reply.h"
#include "spool.h"

void act_stream(struct request *rq);

void act_streams_list(struct request *rq);
void act_streams_snapshot(struct request *rq);
void act_streams_stop(struct request *rq);
void act_streams_delete(struct request *rq);

void act_models(struct request *rq);
void act_health(struct request *rq);
void act_version(struct request *rq);

void act_page(struct request *rq);
void act_page_slash(struct request *rq);
void act_page_file(struct request *rq);

/* Opens a stream of the caller's; id is valid.  ERRTYPE_none: *ret is filled,
 * spool_reader_done; ERRTYPE_stream_not_found: missing, or another's;
 * ERRTYPE_spool_unavailable. */
enum errtype stream_open(const struct request *rq, const char *id,
    struct stream_key *ret_key, struct spool_reader *ret);

/* Has a stream ended whose writer is dead.  *ret: where it stands then; it
 * may still be live.  ERRTYPE_none, ERRTYPE_stream_not_found;
 * ERRTYPE_spool_unavailable: it could not be ended, which was logged. */
enum errtype stream_settle(const struct request *rq,
    const struct stream_key *k, const struct spool_reader *sr,
    struct stream_tail *ret);

#endif
