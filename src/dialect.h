/* dialect.h - the streamer: chunks from any source in, the frames of one of
 * our interfaces out.  Bytes only, no I/O: it works without the rest of
 * respool (docs/API.md, "The C library").
 *
 * The stream dialect has message_chunk ... done or error; the conversation
 * dialect metadata, typing start, message ..., typing stop, complete or error.
 * Both share heartbeat, reasoning_chunk, refusal_chunk and tool_call_chunk. */
#ifndef RESPOOL_DIALECT_H
#define RESPOOL_DIALECT_H

#include <stdbool.h>
#include <stdint.h>
#include "buf.h"
#include "delta.h"
#include "errtype.h"

enum dialect { DIALECT_STREAM, DIALECT_CONVERSATION };
#define DIALECTS 2
const char *dialect_name(enum dialect d);
/* RS_OK or RS_ENOENT. */
enum rs_err dialect_find(const char *name, enum dialect *ret);

#define TURN_ID_MAX 64		/* bytes of a session's or persona's id */
#define TURN_NAME_MAX 128	/* bytes of a persona's name */

/* Which turn of which conversation a stream is. */
struct turn {
	char session[TURN_ID_MAX + 1];
	char animal[TURN_ID_MAX + 1];	/* the persona's id */
	char name[TURN_NAME_MAX + 1];	/* and its name */
	uint64_t number;		/* 1, 2, ... within the session */
};

/* Where a stream is.  Zeroed but for dialect, stream_id and turn, all of which
 * are lent, it is at its beginning. */
struct streamer {
	enum dialect dialect;
	const char *stream_id;
	const struct turn *turn;	/* DIALECT_CONVERSATION, else NULL */
	uint64_t next_id;
	uint64_t messages;	/* chunks of content, so far */
	uint64_t length;	/* characters of their text */
	bool told_id;		/* a chunk told the stream's id */
	bool typing_over;	/* of an ending that was cut, this much is there */
};

/* Each adds its frames to b, and moves s on. */

/* What comes before anything else, as far as it is not there yet: of a stream
 * that has to be ended early.  Nothing in the stream dialect. */
void dialect_begin(struct buf *b, struct streamer *s, const char *model);

/* One chunk from d, whose kind is DELTA_CONTENT, _REASONING, _REFUSAL or
 * _TOOL_CALL and whose text is at most SSE_TEXT_MAX bytes.  cost is the
 * estimate of this chunk, in picodollars. */
void dialect_chunk(struct buf *b, struct streamer *s, const struct delta *d,
    uint64_t cost);

void dialect_heartbeat(struct buf *b, struct streamer *s);

/* What the end of a stream tells, as far as known. */
struct ending {
	enum errtype error;	/* ERRTYPE_none: done, with finish */
	const char *error_text;	/* NULL: the type's own sentence */
	const char *upstream_type, *upstream_code; /* NULL: not known */
	enum finish finish;
	const char *native_finish; /* the upstream's word; NULL: none */
	const char *model;	/* that answered; NULL: not known */
	struct usage usage;	/* input and output TOKENS_UNKNOWN: null */
	uint64_t cost;		/* picodollars or MONEY_UNKNOWN */
	bool estimated;		/* usage and cost are our own guess */
	const char *upstream_cost; /* decimal USD, as the upstream reckons it;
				    * NULL: it does not */
	uint64_t latency_ms;
	uint64_t first_token_ms; /* TOKENS_UNKNOWN: there was none */
	uint64_t typing_ms;	/* since dialect_begin's frames went out */
};

/* The terminal frame, with what the dialect puts before it. */
void dialect_end(struct buf *b, struct streamer *s, const struct ending *e);

/* {"input":...,"cache_read":...,...,"total":...}, or null when unknown. */
void usage_put(struct buf *b, const struct usage *u);
/* Sum of the four counts; TOKENS_UNKNOWN when input and output both are. */
uint64_t usage_total(const struct usage *u);

#endif
