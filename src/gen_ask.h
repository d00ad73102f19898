/* gen_ask.h - a model asked for an answer: attempts, time-outs, retries, and
 * the models that stand in for it. */
#ifndef RESPOOL_GEN_ASK_H
#define RESPOOL_GEN_ASK_H

#include <stdint.h>
#include "breaker.h"
#include "delta.h"
#include "err.h"
#include "failure.h"
#include "model.h"

struct http;
struct json_object;
struct loop;

/* What all asks of a spooler share.  loop may be NULL where only the demo
 * provider is used. */
struct ask_env {
	struct loop *loop;
	const char *ca_file;	/* for http_new */
	struct http *http;	/* made for the first request: libcurl needs 2
				 * MB, the demo does not */
	struct breakers breakers;
	struct failure failure;	/* scratch: why an attempt failed */
};

struct ask_events {
	/* What the model says; the last one is DELTA_FINISH or DELTA_ERROR.
	 * Content comes from one attempt only, and usage that an attempt
	 * without content told is taken back with TOKENS_UNKNOWN. */
	void (*delta)(void *arg, const struct delta *d);
	/* Something came of itself, and all of it has been told.  May free the
	 * ask.  Not called from within ask_run. */
	void (*told)(void *arg);
};

struct ask;

/* model and env must outlive the ask; of messages, and of parameters (which win
 * over the model's, or NULL), references are taken, and given up when content
 * has come.  Nothing is asked before ask_run.
 * RS_OK, RS_ENOMEM. */
enum rs_err ask_new(struct ask_env *env, const struct model *model,
    struct json_object *messages, struct json_object *parameters,
    const char *stream_id, const struct ask_events *ev, void *arg,
    struct ask **ret);

/* Closes the connection, or ends the command, at once. */
void ask_free(struct ask *k);

/* When ask_run wants to be called (CLOCK_MONOTONIC ns); UINT64_MAX: never. */
uint64_t ask_due_ns(const struct ask *k);
/* Does what is due: an attempt, a time-out, what the demo has to say (a
 * bounded number of deltas). */
void ask_run(struct ask *k);

/* Which model answers, or was tried last. */
const struct model *ask_model(const struct ask *k);

#endif
