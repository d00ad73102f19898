/* follow.h - spool to client: the responder's one loop.
 * Each follower reads its stream's file from a frame boundary on, sends whole
 * valid frames, and waits for its spooler to tell that there is more. */
#ifndef RESPOOL_FOLLOW_H
#define RESPOOL_FOLLOW_H

#include <stdint.h>
#include "client.h"
#include "conf.h"
#include "err.h"
#include "spool.h"
#include "wake.h"

struct follow_loop;

/* Lent: conf and wake must outlive it.  The process has its working directory
 * in the spool (wake.h). */
enum rs_err follow_loop_new(const struct conf *conf,
    struct wake_client *wake, struct follow_loop **ret);
/* Not while it runs.  Waits for a SEAL that is under way (10 s at most). */
void follow_loop_free(struct follow_loop *l);

/* Hands over a client whose response head and first comment are written, and
 * a reader; both are the loop's from here on, also when it fails (the client
 * is then aborted).  off is the offset of frame next_id, or the end.  Any
 * thread. */
void follow_add(struct follow_loop *l, struct client *c,
    const struct spool_reader *r, const struct stream_key *k, uint64_t off,
    uint64_t next_id);

/* The same from the first frame on, at off, for a client that wants one JSON
 * answer: the stream's text as "content" and its terminal frame's fields, once
 * it has ended; 502 for an error, 503 when follow_stop comes first.  Nothing is
 * written yet: head has the lines of the response's head but for the status,
 * the empty one included; it is copied.  While it waits a space every
 * keepalive seconds goes out, from when on the status is 200. */
void follow_add_whole(struct follow_loop *l, struct client *c,
    const struct spool_reader *r, const struct stream_key *k, uint64_t off,
    const struct buf *head);

/* Runs until follow_stop, and then until each follower has ended on a frame
 * boundary; those that have not after 1 s are cut.  single: returns also when
 * there is no follower (any more), for plain CGI. */
void follow_loop_run(struct follow_loop *l, bool single);

/* No more followers; those there are end on a frame boundary, after a block
 * "retry: 200" to "retry: 1000" (milliseconds) so that their clients come back
 * soon.  Any thread, also a signal handler. */
void follow_stop(struct follow_loop *l);

#endif
