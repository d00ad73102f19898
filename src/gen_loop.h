/* gen_loop.h - all generations of a spooler: who is live, what is due. */
#ifndef RESPOOL_GEN_LOOP_H
#define RESPOOL_GEN_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include "conf.h"
#include "gen.h"
#include "loop.h"
#include "model.h"
#include "spool.h"
#include "wake.h"

struct sub; /* hub.c's: who wants to know */

/* One live generation. */
struct flight {
	struct stream_key key;	/* first: what the table compares */
	struct stream_key session; /* of a turn; its id is "" otherwise */
	struct flight *behind;	/* of the same session, asked later: waits */
	bool waits;
	struct gen *gen;
	struct timer timer;
	struct sub *subs;	/* a list that hub.c keeps: its readers */
	uint64_t counted;	/* of its bytes, by hub.c */
	uint64_t unread_ns;	/* since when that is empty */
	bool abandoned;		/* it has been so for long: logged */
	struct gen_loop *loop;
};

struct gen_loop {
	const struct conf *conf;
	struct models_file *models;
	struct gen_env env;
	struct loop *loop;	/* lent */
	struct timers *timers;	/* the loop's */
	void *table;		/* of flights, by key; tsearch(3) */
	void *sessions;		/* of those whose turn it is, by session */
	size_t count;
	size_t turns;		/* of them, of conversations */
	bool no_room;		/* the ballast was touched: no starts */
	/* Called when a stream has grown or ended; on the latter the flight
	 * is gone after the call. */
	void (*moved)(struct flight *f, void *arg);
	void *arg;
};

/* Everything lent; the hub sets moved and arg. */
void gen_loop_init(struct gen_loop *l, const struct conf *conf,
    struct spool *sp, struct models_file *models, struct loop *loop,
    const char *socket);
/* No generation may be live. */
void gen_loop_done(struct gen_loop *l);

/* Starts one from a START and its prompt's memfd, which stays the caller's.
 * Fills err, type and text of *ret. */
void gen_loop_start(struct gen_loop *l, const struct wake_start *start,
    int prompt_fd, struct wake_answer *ret);

/* To be called when f has its first reader or has lost its last one: what
 * nobody reads may be abandoned. */
void gen_loop_readers(struct flight *f);

/* NULL: not live here. */
struct flight *gen_loop_find(struct gen_loop *l, const struct stream_key *k);

/* Why any start would be refused for now: as spool_ready, RS_ENOSPC also when
 * there is no space for its ending. */
enum rs_err gen_loop_ready(struct gen_loop *l);

/* True: a turn of that session is live here, or waits to be. */
bool gen_loop_has_session(const struct gen_loop *l,
    const struct stream_key *session);

/* Ends it with done and finish_reason stopped. */
void gen_loop_stop(struct flight *f);
/* Gives up some of the ballast of a struct gen_loop.  False: there is none
 * left. */
bool gen_loop_make_room(void *loop);
/* Ends all with generation_lost. */
void gen_loop_end_all(struct gen_loop *l);

#endif
