/* gen_turn.h - what a generation that is a turn of a conversation has to do
 * with it. */
#ifndef RESPOOL_GEN_TURN_H
#define RESPOOL_GEN_TURN_H

#include "conf.h"
#include "conv.h"
#include "spool.h"

struct json_object;

/* Ends the session's last turn if its writer has died; for sessions without a
 * turn that is live in this spooler.
 * RS_OK; RS_EBUSY: another spooler still writes it; else as conv_load and
 * spool_seal. */
enum rs_err gen_turn_settle(struct spool *sp, const struct stream_key *session);

/* Writes the user's line, of the last message of prompt, and fills in the
 * turn's number.  As conv_ask. */
enum rs_err gen_turn_begin(struct spool *sp, const struct stream_key *key,
    struct stream_head *h, struct json_object *prompt);

/* What to ask: the prompt's system text, as much of the session as the
 * settings allow, the prompt's messages.  *ret is the caller's.  As
 * conv_load, but a session that is gone is an empty one. */
enum rs_err gen_turn_messages(const struct conf *conf, struct spool *sp,
    const struct stream_head *h, struct json_object *prompt,
    struct json_object **ret);

/* Writes the assistant's line: what the stream's frames say.  As spool_scan
 * and conv_answer. */
enum rs_err gen_turn_answer(struct spool *sp, const struct stream_key *key,
    const struct stream_head *h, const struct ending *e);

#endif
