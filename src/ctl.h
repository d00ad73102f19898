/* ctl.h - respoolctl: what its commands share. */
#ifndef RESPOOL_CTL_H
#define RESPOOL_CTL_H

#include "conf.h"
#include "spool.h"
#include "wake.h"

#define CTL_FAULT 1	/* exit status: it failed, or a fault was found */
#define CTL_USAGE 2

struct ctl {
	const struct conf *conf;
	struct spool *sp;
	struct wake_client *wake;
	const char *owner;	/* -u, or NULL: any */
	const char *conf_why;	/* what conf_load said, or NULL */
};

/* Each prints its result, or what is wrong to standard error, and returns the
 * exit status.  argv[0] is the command's first argument. */
int ctl_list(struct ctl *ctl, int argc, char **argv);
int ctl_show(struct ctl *ctl, int argc, char **argv);
int ctl_tail(struct ctl *ctl, int argc, char **argv);
int ctl_stop(struct ctl *ctl, int argc, char **argv);
int ctl_gc(struct ctl *ctl, int argc, char **argv);
int ctl_check(struct ctl *ctl, int argc, char **argv);
int ctl_usage(struct ctl *ctl, int argc, char **argv);
int ctl_models(struct ctl *ctl, int argc, char **argv); /* without sp, wake */
int ctl_personas(struct ctl *ctl, int argc, char **argv); /* likewise */
/* Likewise, and conf may be NULL. */
int ctl_doctor(struct ctl *ctl, int argc, char **argv);

/* Ends a stream whose writer is dead: in the spooler's place when there is
 * none, else by asking it. */
enum rs_err ctl_seal(struct ctl *ctl, const struct stream_key *k);

/* "respoolctl: what: why" */
int ctl_fail(const char *what, const char *why);

#endif
