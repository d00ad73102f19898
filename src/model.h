/* model.h - the models file: which models there are, what they cost, and who
 * provides them. */
#ifndef RESPOOL_MODEL_H
#define RESPOOL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "buf.h"
#include "delta.h"
#include "err.h"

#define MODEL_NAME_MAX 128 /* bytes */

/* Picodollars per token; MONEY_UNKNOWN where the file does not say. */
struct prices {
	uint64_t input, cache_read, cache_write, output;
};

/* Cost of what was used: MONEY_UNKNOWN when a count that is not 0 or a price
 * that it needs is unknown. */
uint64_t prices_cost(const struct prices *p, const struct usage *u);

#define DEMO_NEVER UINT64_MAX

/* What the demo provider plays; see provider_demo.c. */
struct demo_script {
	char *text;		/* streamed word by word; NULL: see chunks */
	uint64_t chunks;	/* "tok0 " to "tokN-1 "; 0: the message's words */
	uint64_t interval_ms;	/* between two chunks */
	uint64_t first_ms;	/* before the first one */
	uint64_t fail_after;	/* chunks, then error_type; DEMO_NEVER */
	enum errtype error_type;
	uint64_t hang_after;	/* chunks, then silence; DEMO_NEVER */
};

enum provider_kind { PROVIDER_DEMO };

struct model {
	char *name;
	enum provider_kind provider;
	bool hidden;		/* usable, not listed */
	struct prices prices;
	char *api_key_env;	/* environment variable with the key, or NULL;
				 * it reaches the spooler, nobody logs it */
	struct demo_script demo;
};

/* Never changes once loaded; any thread may read it. */
struct models {
	struct model *all;	/* in the order of the file */
	size_t count;
	const struct model *def; /* the default, one of all */
	unsigned refs;		/* atomic: models_ref, models_unref */
};

/* Reads a models file, or the built-in models when path is "".
 * RS_OK; RS_EINVAL: what the file says is wrong; else as conf_read_file.  On
 * failure *ret_why has one line per fault, "PATH: models.gpt.prices: ...", or
 * "PATH:LINE: ..." when the JSON itself is not valid. */
enum rs_err models_load(const char *path, struct models **ret,
    struct buf *ret_why);

/* NULL when there is none.  name is len bytes. */
const struct model *models_find(const struct models *m, const char *name,
    size_t len);

struct models *models_ref(struct models *m); /* any thread; returns m */
void models_unref(struct models *m); /* takes NULL; any thread */

/* A models file that is read again when it changed.  Any thread. */
struct models_file;
enum rs_err models_file_open(const char *path, struct models_file **ret,
    struct buf *ret_why);
/* The models as they are now: looks at the file's inode, size and times.  A
 * changed file with a fault in it is logged once, and the models from before
 * stay.  The caller's: models_unref. */
struct models *models_file_get(struct models_file *f);
void models_file_free(struct models_file *f);

#endif
