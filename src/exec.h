/* exec.h - a configured command as a source of an answer: its standard
 * output, read in the spooler's loop. */
#ifndef RESPOOL_EXEC_H
#define RESPOOL_EXEC_H

#include <stdbool.h>
#include <stddef.h>
#include "err.h"
#include "model.h"

struct loop;
struct exec;

/* Called from the loop, never from within exec_start. */
struct exec_events {
	void (*data)(void *arg, const char *p, size_t n);
	/* The last one, when the exec is gone: it has exited and its output
	 * has ended, or is held open by processes that it left behind.  ok:
	 * with status 0; else the log says how it ended. */
	void (*over)(void *arg, bool ok);
};

/* What TZ is now, commands get, whatever it is then.  RS_OK, RS_ENOMEM. */
enum rs_err exec_keep_tz(void);

/* Runs spec->command, never through a shell: a process group of its own, a
 * clean environment (PATH, HOME, LANG, TZ, and RESPOOL_STREAM_ID,
 * RESPOOL_MODEL), no other descriptors than 0 to 2, input on its standard input
 * (which it need not read), its standard error line by line in the log as
 * "stream=ID", as far as that is not a flood.  input is copied.  The caller's
 * process ignores SIGPIPE.
 * RS_OK; RS_ENOENT, RS_EPERM: there is no such command or cwd, or it may not
 * be run; RS_ENOMEM, RS_EIO; then no event comes. */
enum rs_err exec_start(struct loop *l, const struct exec_spec *spec,
    const char *model, const char *stream_id, const char *input, size_t len,
    const struct exec_events *ev, void *arg, struct exec **ret);

/* Kills its process group: SIGTERM, and SIGKILL after a second to what is
 * left.  No event comes any more; the rest goes on by itself in the loop.
 * May be called from an event, not from over.  NULL is taken. */
void exec_kill(struct exec *x);

/* Before the loop ends: SIGKILL to all that are left, killed or not.  No event
 * comes. */
void exec_end_all(void);

#endif
