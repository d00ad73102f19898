/* reload.h - what was read from a file or a directory, and is read again when
 * that changed.  Any thread. */
#ifndef RESPOOL_RELOAD_H
#define RESPOOL_RELOAD_H

#include "buf.h"
#include "err.h"

struct reload_kind {
	const char *what; /* for the log: "templates" */
	/* Makes the value.  RS_OK, with warnings in why, or why not there. */
	enum rs_err (*load)(const char *path, void **ret, struct buf *why);
	void (*free)(void *value); /* takes NULL */
};

struct reload;

/* Reads nothing yet.  kind stays the caller's.  RS_OK or RS_ENOMEM. */
enum rs_err reload_new(const struct reload_kind *kind, const char *path,
    struct reload **ret);
void reload_free(struct reload *r); /* takes NULL */

/* The value as it is now: looks at inode, size and times of the file, and of
 * the files of a directory, and reads them when one is another than the last
 * time.  What is wrong is logged once per change, and the former value stays;
 * NULL: there is none yet, or path is "".
 * Lent until reload_done, which must come soon, as it holds up a change. */
const void *reload_use(struct reload *r);
void reload_done(struct reload *r);

#endif
