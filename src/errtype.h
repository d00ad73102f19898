/* errtype.h - the error types of the public interface (errtype_table.h). */
#ifndef RESPOOL_ERRTYPE_H
#define RESPOOL_ERRTYPE_H

#include <stdbool.h>
#include <stddef.h>

enum errtype {
	ERRTYPE_none = 0,
#define ERRTYPE(name, status, retryable, text) ERRTYPE_##name,
#include "errtype_table.h"
#undef ERRTYPE
	ERRTYPE_COUNT
};

struct errtype_info {
	const char *name;
	int status; /* HTTP status; 0: occurs in frames only */
	bool retryable;
	const char *text;
};

/* Never NULL for a value of the enum; ERRTYPE_none has an empty name. */
const struct errtype_info *errtype_info(enum errtype t);

/* ERRTYPE_none when there is no such name. */
enum errtype errtype_find(const char *name);

#endif
