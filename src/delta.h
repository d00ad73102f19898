/* delta.h - what a provider says next, whatever its wire format was. */
#ifndef RESPOOL_DELTA_H
#define RESPOOL_DELTA_H

#include <stddef.h>
#include <stdint.h>
#include "errtype.h"

#define TOKENS_UNKNOWN UINT64_MAX

/* Token counts; TOKENS_UNKNOWN where the upstream never said. */
struct usage {
	uint64_t input;		/* without what came from or went to a cache */
	uint64_t cache_read;
	uint64_t cache_write;
	uint64_t output;	/* reasoning included */
	uint64_t reasoning;	/* a part of output */
};

enum finish {
	FINISH_STOP, FINISH_LENGTH, FINISH_CONTENT_FILTER, FINISH_TOOL_CALLS,
	FINISH_PAUSE, FINISH_STOPPED, FINISH_UNKNOWN,
};
const char *finish_name(enum finish f);

enum delta_kind {
	DELTA_CONTENT,		/* text */
	DELTA_REASONING,	/* text */
	DELTA_TOOL_CALL,	/* tool; text is a piece of the arguments */
	DELTA_USAGE,		/* usage: replaces what was known */
	DELTA_FINISH,		/* finish: the answer is whole */
	DELTA_ERROR,		/* error: the answer ends here */
};

struct delta {
	enum delta_kind kind;
	const char *text;	/* lent; any bytes */
	size_t len;
	uint64_t tokens;	/* of this text; 0: to be estimated */
	struct {
		uint64_t index;
		const char *id, *name; /* lent; NULL after the first piece */
	} tool;
	struct usage usage;
	enum finish finish;
	struct {
		enum errtype type;
		const char *upstream_type, *upstream_code; /* lent, or NULL */
	} error;
};

#endif
