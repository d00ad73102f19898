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
	DELTA_REFUSAL,		/* text: why the model will not answer */
	DELTA_TOOL_CALL,	/* tool; text is a piece of the arguments */
	DELTA_USAGE,		/* usage, upstream_cost: replace what was
				 * known */
	DELTA_FINISH,		/* finish, native_finish: the answer is
				 * whole */
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
	const char *upstream_cost; /* lent: decimal USD, as the upstream
				    * reckons it; NULL: it does not */
	enum finish finish;
	const char *native_finish; /* lent: the upstream's word, or NULL */
	struct {
		enum errtype type;
		/* The upstream's words; lent, or NULL.  The message is for an
		 * admin's terminal: it may quote prompts and parts of keys, so
		 * no client and no log ever sees it. */
		const char *upstream_type, *upstream_code, *message;
	} error;
};

#endif
