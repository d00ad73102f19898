/* route.h - the handlers, one row each in route.c's table, and the steps that
 * they share.  A handler answers its request or hands its client over. */
#ifndef RESPOOL_ROUTE_H
#define RESPOOL_ROUTE_H

#include "conv.h"
#include "reply.h"
#include "spool.h"

struct json_object;

void act_stream(struct request *rq);

void act_streams_list(struct request *rq);
void act_streams_snapshot(struct request *rq);
void act_streams_stop(struct request *rq);
void act_streams_delete(struct request *rq);
void act_streams_link(struct request *rq);

void act_turn(struct request *rq);
void act_personas(struct request *rq);

void act_history(struct request *rq);
void act_history_delete(struct request *rq);

void act_templates(struct request *rq);
void act_render(struct request *rq);
void act_triage(struct request *rq);

void act_models(struct request *rq);
void act_health(struct request *rq);
void act_ready(struct request *rq);
void act_version(struct request *rq);

void act_metrics(struct request *rq);
/* False: to who asks there is no such thing. */
bool metrics_may_read(const struct request *rq);

void act_page(struct request *rq);
void act_page_slash(struct request *rq);
void act_page_file(struct request *rq);

/* Opens a stream of the caller's (with a link, that one); id is valid.  ERRTYPE_none: *ret is filled,
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

/* Has a stream ended that nobody writes any more: at its first bad byte, if it
 * has one.  As stream_settle, but that *ret has ended. */
enum errtype stream_seal(const struct request *rq, const struct stream_key *k,
    const struct spool_reader *sr, struct stream_tail *ret);

/* Stops a stream that is not ended yet, and removes it.  As stream_settle; ret
 * has the spooler's words. */
enum errtype stream_remove(const struct request *rq,
    const struct stream_key *k, const struct spool_reader *sr,
    struct wake_reply *ret);

/* Opens the stream of a turn of that session of the caller's, as stream_open:
 * not found also when the turn's stream was never made. */
enum errtype turn_open(const struct request *rq, const char *session,
    const struct conv_turn *turn, struct stream_key *ret_key,
    struct spool_reader *ret);

/* Renders a template into *ret_text, which may be empty then; the model that
 * it names goes to *ret_model, when ret_model is not NULL and it names one.
 * vars may be NULL.  False: the request is answered. */
bool template_render(struct request *rq, const char *name, size_t len,
    struct json_object *vars, struct buf *ret_text, struct buf *ret_model);

#endif
