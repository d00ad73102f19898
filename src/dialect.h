/* dialect.h - the names and fields of the frames of each interface. */
#ifndef RESPOOL_DIALECT_H
#define RESPOOL_DIALECT_H

#include <stdbool.h>
#include <stdint.h>
#include "buf.h"
#include "delta.h"
#include "errtype.h"

enum dialect { DIALECT_STREAM };
const char *dialect_name(enum dialect d);
/* RS_OK or RS_ENOENT. */
enum rs_err dialect_find(const char *name, enum dialect *ret);

/* One chunk's frame(s) from d, whose kind is DELTA_CONTENT, _REASONING or
 * _TOOL_CALL and whose text is at most SSE_TEXT_MAX bytes.  cost is the
 * estimate of this chunk, in picodollars.  stream_id: in the first chunk of a
 * stream, else NULL.  *id is the next id, and is moved on. */
void dialect_chunk(struct buf *b, enum dialect dialect, uint64_t *id,
    const struct delta *d, uint64_t cost, const char *stream_id);

void dialect_heartbeat(struct buf *b, enum dialect dialect, uint64_t *id);

/* What the end of a stream tells, as far as known. */
struct ending {
	enum errtype error;	/* ERRTYPE_none: done, with finish */
	const char *error_text;	/* NULL: the type's own sentence */
	const char *upstream_type, *upstream_code; /* NULL: not known */
	enum finish finish;
	const char *stream_id;
	const char *model;	/* that answered; NULL: not known */
	struct usage usage;	/* input and output TOKENS_UNKNOWN: null */
	uint64_t cost;		/* picodollars or MONEY_UNKNOWN */
	bool estimated;		/* usage and cost are our own guess */
	uint64_t latency_ms;
	uint64_t first_token_ms; /* TOKENS_UNKNOWN: there was none */
};

/* The terminal frame, with what the dialect puts before it. */
void dialect_end(struct buf *b, enum dialect dialect, uint64_t *id,
    const struct ending *e);

/* {"input":...,"cache_read":...,...,"total":...}, or null when unknown. */
void usage_put(struct buf *b, const struct usage *u);
/* Sum of the four counts; TOKENS_UNKNOWN when input and output both are. */
uint64_t usage_total(const struct usage *u);

#endif
