/* conv.h - conversations: what was said in a session, turn by turn.
 *
 *	SPOOL/conversations/ab/OWNERHASH-SESSION.jsonl
 *		OWNERHASH as of streams; ab: the first 2 hex digits of
 *		SHA-256(the file's name); one JSON object a line, appended
 *		with one write:
 *	{"turn":1,"role":"user","time":"2031-05-04T10:22:07.113Z",
 *	 "stream_id":"ID","animal":"lion_001","content":"Hello!"}
 *	{"turn":1,"role":"assistant","time":...,"stream_id":"ID","model":"M",
 *	 "usage":{...},"total_cost":0.0006,"latency_ms":...,
 *	 "finish_reason":"stop" or "error_type":"...","partial":true with
 *	 error_type and when stopped,"content":"..."}
 * The user's line is written before its stream is made, the assistant's before
 * the stream's terminal frame; whoever seals a lost stream writes it when it is
 * missing.  A turn is known by its stream_id, and its first line of a role
 * counts: repeats do no harm.  A user's line whose stream was never made is no
 * turn; who reads finds that out.  Lines that are torn or no JSON are passed
 * over. */
#ifndef RESPOOL_CONV_H
#define RESPOOL_CONV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "buf.h"
#include "dialect.h"
#include "err.h"
#include "spool.h"

#define CONV_LAST 65536 /* a window for who needs the last turn only */
#define CONV_FILE_MAX (4 << 20) /* bytes, beyond which no turn begins */

struct json_object;

/* Which session: stream_key(&k, owner, session), as both have one alphabet. */

struct conv_turn {
	uint64_t number;
	char stream_id[SPOOL_ID_MAX + 1];
	struct json_object *user;	/* its line */
	struct json_object *assistant;	/* its line; NULL: not yet */
};

struct conv {
	struct conv_turn *turns; /* by rising number */
	size_t count;
};

/* ---- reading; any process ---- */

/* RS_ENOENT: there is no such session; RS_ECORRUPT: not a file of ours;
 * RS_EIO, RS_ENOMEM.  *ret: conv_free. */
enum rs_err conv_load(const struct spool *sp, const struct stream_key *session,
    struct conv **ret);
/* Its newest turns: those in the last bytes of the file, as many as window
 * says, and one at least. */
enum rs_err conv_load_tail(const struct spool *sp,
    const struct stream_key *session, size_t window, struct conv **ret);
void conv_free(struct conv *c);

/* The turn of that stream; NULL when there is none. */
const struct conv_turn *conv_find(const struct conv *c, const char *stream_id);

/* Adds {role, content} to messages, an array: of the turns before number, the
 * newest whole ones whose texts have at most budget tokens (of 4 bytes) in
 * all, oldest first.  Turns without an answer are left out.
 * RS_OK, RS_ENOMEM. */
enum rs_err conv_history(const struct conv *c, uint64_t number,
    uint64_t budget, struct json_object *messages);

/* ---- writing ---- */

/* Begins a turn; mutator only.  *ret is its number: the one that it has when
 * its line is there already (and not long ago), else the next.
 * RS_OK; RS_ETOOBIG: the session is full; RS_ECORRUPT, RS_ENOSPC, RS_EIO,
 * RS_ENOMEM. */
enum rs_err conv_ask(struct spool *sp, const struct stream_key *session,
    const char *stream_id, const char *animal, const char *message, size_t len,
    uint64_t *ret);

/* Writes the assistant's line of the turn that h->turn says.  Its writer, or
 * who seals it: then missing is set, and nothing is written when it is there.
 * On a full disk the content of one that failed may be cut.
 * RS_OK; RS_ENOENT, with missing: the session is gone; else as conv_ask. */
enum rs_err conv_answer(struct spool *sp, const struct stream_key *stream,
    const struct stream_head *h, const char *content, size_t len,
    const struct ending *e, bool missing);

/* Removes a session; mutator only.  RS_OK also when there is none. */
enum rs_err conv_delete(struct spool *sp, const struct stream_key *session);

/* As spool_sweep, of the sessions whose last line is older than ttl_ms at
 * now_ms, but for one with a live turn.  s is one of its own. */
enum rs_err conv_sweep(struct spool *sp, struct sweep *s, int64_t now_ms,
    uint64_t ttl_ms, uint64_t budget_ns, bool *ret_done);

#endif
