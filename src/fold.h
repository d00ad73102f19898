/* fold.h - what a stream says when all its frames are put together. */
#ifndef RESPOOL_FOLD_H
#define RESPOOL_FOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "buf.h"
#include "err.h"
#include "sse.h"

enum fold_state { FOLD_LIVE, FOLD_FINISHED, FOLD_FAILED, FOLD_STOPPED };
const char *fold_state_name(enum fold_state s);

struct fold;

/* max: most bytes that text, reasoning, refusal and tool calls may come to,
 * each. */
enum rs_err fold_new(size_t max, struct fold **ret);
void fold_free(struct fold *f);

/* Takes the next frame.  RS_OK; RS_ECORRUPT when its data is not what its
 * event promises; RS_ENOMEM, RS_ETOOBIG. */
enum rs_err fold_add(struct fold *f, const struct sse_frame *frame);

enum fold_state fold_state(const struct fold *f);
/* Sums of the chunks' estimates so far (picodollars).  MONEY_UNKNOWN when one
 * did not know its cost, or no message chunk came: no others tell theirs. */
uint64_t fold_tokens(const struct fold *f);
uint64_t fold_cost(const struct fold *f);
bool fold_has_chunks(const struct fold *f);
/* The text of the chunks of content; lent. */
const struct buf *fold_content(const struct fold *f);
/* The persona was told to have stopped typing. */
bool fold_typing_over(const struct fold *f);

/* The snapshot of docs/API.md as one JSON object: stream_id and model as
 * given, the rest from the frames: state, text, reasoning, refusal (if any),
 * tool_calls, usage, total_tokens, total_cost, estimated, latency_ms,
 * finish_reason, error_type, partial (true in all states but finished), last_event_id (-1: none yet);
 * what is not known is null.  While live, total_tokens and total_cost are the
 * sums of the estimates, and estimated is true.
 * The terminal frame's model wins over the given one. */
void fold_put(const struct fold *f, const char *stream_id, const char *model,
    struct buf *b);

#endif
