/* gen_loop.h - all generations of a spooler: who is live, what is due. */
#ifndef RESPOOL_GEN_LOOP_H
#define RESPOOL_GEN_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include "conf.h"
#include "gen.h"
#include "model.h"
#include "spool.h"
#include "timer.h"
#include "wake.h"

struct sub; /* hub.c's: who wants to know */

/* One live generation. */
struct flight {
	struct stream_key key;	/* first: what the table compares */
	struct gen *gen;
	struct timer timer;
	struct sub *subs;	/* a list that hub.c keeps */
	struct gen_loop *loop;
};

struct gen_loop {
	const struct conf *conf;
	struct models_file *models;
	struct gen_env env;
	struct timers *timers;	/* lent */
	void *table;		/* of flights, by key; tsearch(3) */
	size_t count;
	bool no_room;		/* the ballast was touched: no starts */
	/* Called when a stream has grown or ended; on the latter the flight
	 * is gone after the call. */
	void (*moved)(struct flight *f, void *arg);
	void *arg;
};

/* Everything lent; the hub sets moved and arg. */
void gen_loop_init(struct gen_loop *l, const struct conf *conf,
    struct spool *sp, struct models_file *models, struct timers *timers,
    const char *socket);
/* No generation may be live. */
void gen_loop_done(struct gen_loop *l);

/* Starts one from a START and its prompt's memfd, which stays the caller's.
 * Fills err, type and text of *ret. */
void gen_loop_start(struct gen_loop *l, const struct wake_start *start,
    int prompt_fd, struct wake_answer *ret);

/* NULL: not live here. */
struct flight *gen_loop_find(struct gen_loop *l, const struct stream_key *k);

/* Ends it with done and finish_reason stopped. */
void gen_loop_stop(struct flight *f);
/* Gives up some of the ballast of a struct gen_loop.  False: there is none
 * left. */
bool gen_loop_make_room(void *loop);
/* Ends all with generation_lost. */
void gen_loop_end_all(struct gen_loop *l);

#endif
