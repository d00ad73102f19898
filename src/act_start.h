/* act_start.h - what the handlers share that start, join and resume streams,
 * /api/v1/stream and /convo_turn_stream. */
#ifndef RESPOOL_ACT_START_H
#define RESPOOL_ACT_START_H

#include "route.h"

/* What a request asks for. */
struct start_ask {
	enum dialect dialect;
	char id[SPOOL_ID_MAX + 1];	/* "": none given */
	int64_t cursor;			/* -1: nothing seen */
	const char *model;		/* lent; NULL: not stated */
	size_t model_len;
	struct turn turn;		/* its session and animal; "": not
					 * stated */
	bool whole;			/* one JSON answer, no frames */
	struct buf prompt;		/* JSON; empty: none */
	char request[SHA256_HEX_SIZE];	/* its hash; "": none */
	/* Has the prompt become what the spooler gets, and fills in the model
	 * and the turn; the rest of ret is filled.  False: the request is
	 * answered. */
	bool (*prepare)(struct request *rq, struct start_ask *a,
	    struct wake_start *ret);
	void *arg;			/* prepare's own */
};

void start_ask_init(struct start_ask *a, const struct request *rq,
    enum dialect dialect);
void start_ask_done(struct start_ask *a);

/* Each: NULL, or a sentence about what is wrong.  *ret, of the first: the last
 * event id that was seen, -1: none. */
const char *start_cursor(const struct request *rq, int64_t *ret);
const char *start_ask_id(const struct request *rq, struct start_ask *a);

/* True: there is nothing that can be seen. */
bool start_is_blank(const char *s, size_t len);

/* Adds a message to the prompt. */
void start_put(struct buf *prompt, const char *role, const char *content,
    size_t len);

/* Hashes what the prompt is now: what the request said, not what becomes of
 * it, so that the same one joins its stream also when a template or a persona
 * has changed meanwhile. */
void start_ask_hash(struct start_ask *a);

/* False: the request is answered, with why or with what is missing. */
bool start_ask_check(struct request *rq, const struct start_ask *a,
    const char *why);

/* Starts, joins or resumes. */
void start_serve(struct request *rq, struct start_ask *a);

/* Joins a stream of the caller's from the first frame.  Takes sr. */
void start_join(struct request *rq, const struct start_ask *a,
    const struct stream_key *k, struct spool_reader *sr);

/* Fills in the name of a model; NULL: of the default one.  False: there is
 * none of that name. */
bool start_model(const struct request *rq, const char *name, size_t len,
    struct wake_start *ret);

#endif
