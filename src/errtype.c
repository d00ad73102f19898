/* errtype.c - the rows of errtype_table.h, by value and by name. */
#include <assert.h>
#include <string.h>

#include "errtype.h"

static const struct errtype_info infos[ERRTYPE_COUNT] = {
	[ERRTYPE_none] = { "", 0, false, "" },
#define ERRTYPE(name, status, retryable, text) \
	[ERRTYPE_##name] = { #name, status, retryable, text },
#include "errtype_table.h"
#undef ERRTYPE
};

const struct errtype_info *
errtype_info(enum errtype t)
{
	assert((size_t)t < ERRTYPE_COUNT);
	return &infos[t];
}

enum errtype
errtype_find(const char *name)
{
	size_t t;

	for (t = ERRTYPE_none + 1; t < ERRTYPE_COUNT; t++)
		if (strcmp(infos[t].name, name) == 0)
			return (enum errtype)t;
	return ERRTYPE_none;
}
