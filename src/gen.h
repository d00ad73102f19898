/* gen.h - one generation: what a provider says, made frames and appended to
 * its stream.  Knows nothing of readers; gen_loop.h drives many of them. */
#ifndef RESPOOL_GEN_H
#define RESPOOL_GEN_H

#include <stdbool.h>
#include <stdint.h>
#include "buf.h"
#include "conf.h"
#include "err.h"
#include "gen_ask.h"
#include "model.h"
#include "quota.h"
#include "spool.h"
#include "wake.h"

struct gen;

/* What all generations of a spooler share. */
struct gen_env {
	const struct conf *conf;
	struct spool *sp;
	const char *socket;	/* this spooler's, for the heads */
	/* Called when the disk has no space for an ending: gives up some of
	 * the ballast.  False: there is none left. */
	bool (*make_room)(void *arg);
	void *arg;
	/* A generation has moved of itself: its file has grown, it has ended,
	 * or gen_due_ns has changed.  May free it. */
	void (*moved)(void *owner);
	struct ask_env ask;
	struct quota *quota;	/* NULL: no limits are set */
	struct quota_refusal refusal; /* scratch: gen_start's */
	struct buf frames;	/* scratch: of one generation at a time, empty
				 * between calls */
};

/* Creates the stream and writes its reserve; nothing is asked before gen_go.
 * prompt is JSON: {"messages":[...]}, and for a turn of a conversation the
 * persona's "system" and "parameters".  models: a reference of its own is
 * taken.  owner: for env->moved.  *ret_type, on failure, is what to tell the client.
 * RS_OK; RS_EEXIST: the stream is there already; RS_EBUSY with
 * ERRTYPE_rate_limited: env->refusal says why; RS_ENOENT: no such model;
 * RS_EINVAL: the prompt; RS_ENOSPC, RS_EIO, RS_ENOMEM. */
enum rs_err gen_start(struct gen_env *env, const struct wake_start *start,
    const char *prompt, size_t len, struct models *models, void *owner,
    struct gen **ret, enum errtype *ret_type);

/* Its turn has come: what gen_run asks is settled now. */
void gen_go(struct gen *g);

/* When gen_run wants to be called (CLOCK_MONOTONIC ns). */
uint64_t gen_due_ns(const struct gen *g);

/* Appends what is due, a bounded amount in one write. */
void gen_run(struct gen *g);

/* Ends it now: done with finish_reason stopped, or that error.  Does nothing
 * when it has ended. */
void gen_stop(struct gen *g);
void gen_fail(struct gen *g, enum errtype type);

/* Its terminal frame is in the file, or it could not be written. */
bool gen_ended(const struct gen *g);
bool gen_lost(const struct gen *g); /* the latter */
/* Bytes of its file. */
uint64_t gen_end(const struct gen *g);
/* Output so far: tokens, and picodollars (MONEY_UNKNOWN), as told or
 * guessed. */
uint64_t gen_tokens(const struct gen *g);
uint64_t gen_cost(const struct gen *g);

/* Closes the stream's file, which frees its lock. */
void gen_free(struct gen *g);

#endif
