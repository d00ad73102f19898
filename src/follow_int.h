/* follow_int.h - what the files of the responder's loop share. */
#ifndef RESPOOL_FOLLOW_INT_H
#define RESPOOL_FOLLOW_INT_H

#include <sys/queue.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include "follow.h"
#include "sse.h"

#define FOLLOW_TICK_NS NS_PER_S
#define FOLLOW_ANSWER_NS (2 * NS_PER_S)	/* for a spooler's answer */
#define FOLLOW_STOP_NS NS_PER_S		/* for what is left after follow_stop */
#define FOLLOW_SLOW_NS (2 * NS_PER_S)	/* a client that takes nothing is */
#define FOLLOW_SEAL_LISTS 256

/* What a follower knows of its stream's writer. */
enum follow_stage {
	FOLLOW_ALONE,	/* nothing: so far there was always more to read */
	FOLLOW_TOLD,	/* it is subscribed, or about to be */
	FOLLOW_CHECK,	/* it is gone: one more look, then SEAL */
	FOLLOW_SEALING,	/* a SEAL is under way */
	FOLLOW_LAST,	/* SEAL was answered: one more look, then leave */
};

/* Of a follower whose client wants one JSON answer rather than frames. */
struct follow_whole {
	struct fold *fold;
	struct buf head;	/* of the response, but for the status */
	bool begun;		/* it is in out, or has gone */
	bool done;		/* the answer, or why there is none, likewise */
	struct buf out;		/* what is to go out, */
	size_t sent;		/* and how much of it has */
};

TAILQ_HEAD(follower_list, follower);

/* There are thousands: keep it small. */
struct follower {
	TAILQ_ENTRY(follower) all;
	TAILQ_ENTRY(follower) ready;	/* loop's ready list, or its inbox */
	TAILQ_ENTRY(follower) peer;	/* peers, a connection's or a seal's */
	struct follower_list *peers;	/* NULL: on none */
	struct follow_conn *conn;	/* NULL: not subscribed */
	struct client *client;
	struct follow_whole *whole; /* NULL: it gets frames */
	uint64_t sub;		/* its number; never used twice */
	uint64_t pos;		/* offset of the next byte to send */
	uint64_t valid_end;	/* a frame boundary: checked up to here */
	uint64_t next_id;	/* of the frame at valid_end */
	uint64_t told;		/* end of the file, as its spooler said */
	uint64_t first_id;
	uint64_t sent_id;	/* all before it are sent */
	uint64_t bytes;		/* sent */
	uint64_t born_ns, wrote_ns;
	uint64_t asked_ns;	/* since when an answer is due; 0: none is */
	uint64_t armed_ns;	/* since when it polls for EPOLLOUT, if so */
	const char *reason;	/* why it will end, for the log */
	int fd;			/* the stream's file */
	uint8_t stage;		/* enum follow_stage */
	bool is_ready, armed;	/* on the ready list; polls for EPOLLOUT */
	bool more;		/* the last look did not see the end of file */
	bool ended;		/* the terminal frame lies before valid_end */
	bool leaving;		/* ends at valid_end */
	bool begun;		/* its first frame is on the way */
	bool slow;		/* has been counted as such */
	struct stream_key key;
	char socket[SPOOL_SOCKET_SIZE];	/* its writer's */
};

/* A connection to one spooler. */
struct follow_conn {
	TAILQ_ENTRY(follow_conn) all;
	uint64_t id;		/* never used twice */
	int fd;			/* -1: its queue was full, try again */
	bool armed;
	uint64_t heard_ns, asked_ns; /* as in struct follower */
	struct follower_list waiting, subscribed;
	char socket[SPOOL_SOCKET_SIZE];
};

/* A request to end a stream, for all its followers here. */
struct follow_seal {
	STAILQ_ENTRY(follow_seal) queue;
	LIST_ENTRY(follow_seal) same_hash;
	struct follower_list waiting;
	struct stream_key key;
	enum rs_err err;
};
STAILQ_HEAD(follow_seal_queue, follow_seal);

struct follow_loop {
	const struct conf *conf;
	struct wake_client *wake;
	int epoll_fd;
	int event_fd;		/* inbox, stop or done have something */
	uint64_t now_ns;	/* of this turn */
	uint64_t tick_ns;	/* the next one */
	uint64_t stop_ns;	/* who is there then is cut; 0: not told */
	struct follower_list all, ready;
	struct follower **slots; /* by the low bits of their numbers */
	uint32_t *free_slots;
	size_t slot_count, free_count;
	uint64_t serial;
	TAILQ_HEAD(, follow_conn) conns;
	uint64_t conn_serial;
	LIST_HEAD(, follow_seal) seals[FOLLOW_SEAL_LISTS];
	char scratch[2 * SSE_FRAME_MAX];
	union wake_msg msg;

	atomic_bool stop;
	pthread_mutex_t mutex;	/* for what follows */
	struct follower_list inbox;
	struct follow_seal_queue todo, done;
	pthread_cond_t todo_cond;
	bool helper_runs, helper_quit;
	pthread_t helper;
};

/* ---- follow.c ---- */

/* The low bits of a follower's number, above which it is counted. */
#define FOLLOW_SLOT_BITS 24
/* Set in what epoll says of a connection to a spooler. */
#define FOLLOW_CONN_BIT (1ull << 63)

/* NULL when there is none (any more) with this number. */
struct follower *follow_find(const struct follow_loop *l, uint64_t sub);
/* Has its file read and its client written to in the next turn. */
void follow_ready(struct follow_loop *l, struct follower *f);
/* Ends it at the next frame boundary. */
void follow_leave(struct follow_loop *l, struct follower *f,
    const char *reason);

/* ---- follow_whole.c: one answer for all frames ---- */

/* head is copied.  NULL: no memory. */
struct follow_whole *follow_whole_new(const struct buf *head);
void follow_whole_free(struct follow_whole *w); /* takes NULL */

/* Each adds to out, as its w->out.err says: white space, which keeps the
 * connection from timing out; what the next frame makes of it; an error. */
void follow_whole_space(struct follow_whole *w);
void follow_whole_take(struct follow_whole *w, const struct sse_frame *frame);
void follow_whole_fail(struct follow_whole *w, enum errtype type);

/* ---- follow_wake.c: told by spoolers ---- */

/* Subscribes f, of which there is nothing more to read. */
void follow_subscribe(struct follow_loop *l, struct follower *f);
/* Its spooler, or the SEAL that it waits for, forgets f. */
void follow_forget(struct follower *f);
void follow_conn_event(struct follow_loop *l, uint64_t id);
/* Once a tick: asks spoolers that were silent, gives up those that are. */
void follow_conn_tick(struct follow_loop *l);
void follow_conn_done(struct follow_loop *l);

/* ---- follow_seal.c: streams whose writer is gone ---- */

void follow_seal_init(struct follow_loop *l);
/* Asks for f's stream to be ended; blocks nobody. */
void follow_seal(struct follow_loop *l, struct follower *f);
/* Hands the answers out. */
void follow_seal_take(struct follow_loop *l);
void follow_seal_done(struct follow_loop *l);

#endif
