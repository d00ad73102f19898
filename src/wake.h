/* wake.h - what responders, respoolctl and the spooler say to each other.
 *
 * A Unix socket of type SOCK_SEQPACKET, one struct a message, at most
 * WAKE_MSG_MAX bytes, in host order: both ends run on one host, and HELLO,
 * the first message of a connection, carries the version of all this.  Text
 * of answers never travels here: readers read the stream's file.
 *
 * Requests on a connection are answered in any order; an answer bears its
 * request's tag.  SUBSCRIBE and UNSUBSCRIBE have no answer of their own: the
 * spooler tells each subscription where its stream is with NOTIFY, at once
 * and then whenever it has moved, several in one message. */
#ifndef RESPOOL_WAKE_H
#define RESPOOL_WAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "address.h"
#include "conf.h"
#include "err.h"
#include "errtype.h"
#include "persona.h"
#include "spool.h"

#define WAKE_VERSION 3
#define WAKE_MSG_MAX 16384 /* bytes */

enum wake_op {
	WAKE_HELLO = 1,	/* struct wake_hello; answered */
	WAKE_PING,	/* struct wake_head; answered */
	WAKE_START,	/* struct wake_start and a memfd; answered */
	WAKE_SEAL,	/* struct wake_key; answered */
	WAKE_STOP,	/* struct wake_key; answered after the terminal frame */
	WAKE_DELETE,	/* struct wake_key; answered */
	WAKE_ALIVE,	/* struct wake_key; answered: is it written here? */
	WAKE_GC,	/* struct wake_head; answered after a whole sweep */
	WAKE_SUBSCRIBE,	/* struct wake_sub */
	WAKE_UNSUBSCRIBE, /* struct wake_sub; its key is not looked at */
	WAKE_FORGET,	/* struct wake_key, of a session; answered */
	WAKE_READY,	/* struct wake_head; answered: err is why starts would
			 * be refused */
	WAKE_ANSWER,	/* spooler to client: struct wake_answer */
	WAKE_NOTIFY,	/* spooler to client: struct wake_notify */
};

struct wake_head {
	uint32_t op;
	uint32_t tag;	/* the client's; repeated in the answer */
};

struct wake_hello {
	struct wake_head head;
	uint32_t version;
	/* The client's configuration, or "": it has no opinion (respoolctl). */
	char conf_hash[SHA256_HEX_SIZE];
};

struct wake_key {
	struct wake_head head;
	struct stream_key key;
};

struct wake_start {
	struct wake_head head;
	uint64_t deadline_ns;	/* CLOCK_MONOTONIC: too late after it */
	struct stream_key key;
	char owner[SPOOL_OWNER_MAX + 1];
	char model[MODEL_NAME_MAX + 1];
	char request[SHA256_HEX_SIZE];
	char address[ADDRESS_KEY_SIZE]; /* the client's; "": not known */
	uint32_t dialect;
	struct turn turn;	/* of the conversation dialect; its number is
				 * the spooler's to give */
	/* The prompt, {"messages":[...]}, travels as a sealed memfd. */
};
/* Bytes of the longest prompt: a byte of the body can become six, as in
 * \u0001, and some may come in the query instead.  A persona's texts have no
 * more than their file. */
#define WAKE_PROMPT_MAX(max_body) \
	(6 * (max_body) + 65536 + PERSONA_FILE_MAX)

struct wake_sub {
	struct wake_head head;
	uint64_t sub;	/* the client's number, never used twice */
	uint64_t stays;	/* not 0: it cannot be made to leave */
	struct stream_key key;
};

struct wake_answer {
	struct wake_head head;
	uint32_t err;	/* enum rs_err */
	uint32_t type;	/* enum errtype, for the client's client */
	uint32_t version; /* HELLO: the spooler's */
	uint32_t draining; /* HELLO: it takes no starts; its successor may run */
	uint64_t count;	/* GC: files removed */
	uint32_t retry_s; /* START, ERRTYPE_rate_limited: when to try again */
	char limit[32];	/* likewise: the setting that is in the way */
	char text[160];	/* a sentence, or "" */
};

enum wake_state {
	WAKE_LIVE,	/* end is the length of its file */
	WAKE_ENDED,	/* the same, and its last frame is the terminal one */
	WAKE_UNKNOWN,	/* this spooler does not write it (any more) */
	WAKE_LEAVE,	/* there are max_readers without this one */
};
struct wake_moved {
	uint64_t sub;
	uint64_t end;
	uint64_t state;	/* enum wake_state */
};
#define WAKE_MOVED_MAX \
	((WAKE_MSG_MAX - sizeof(struct wake_head)) / sizeof(struct wake_moved))
struct wake_notify {
	struct wake_head head;
	struct wake_moved moved[WAKE_MOVED_MAX]; /* as many as the message has */
};

union wake_msg {
	struct wake_head head;
	struct wake_hello hello;
	struct wake_key key;
	struct wake_start start;
	struct wake_sub sub;
	struct wake_answer answer;
	struct wake_notify notify;
};

/* ---- messages: wake.c ---- */

/* A name of a socket in a spool: "current" or "s-" 16 hex digits ".sock". */
bool wake_socket_valid(const char *name);

/* Connects to a socket of the spool (O_NONBLOCK, O_CLOEXEC).  The process
 * must have its working directory in the spool, so that the names are short.
 * RS_OK; RS_ECLOSED: nobody listens; RS_EBUSY: its queue is full; RS_EINVAL:
 * not such a name; RS_EIO ... */
enum rs_err wake_connect(const char *socket_name, int *ret_fd);

/* Sends one message of len bytes, with pass_fd (-1: none).  RS_OK; RS_EBUSY:
 * it does not fit now, poll for POLLOUT; RS_ECLOSED; RS_EIO. */
enum rs_err wake_send(int fd, const void *msg, size_t len, int pass_fd);

/* Takes one message.  *ret_fd: the descriptor that came with it, or -1.
 * RS_OK: it is whole, of a known op and the size that its op needs, its
 * strings end, its keys and names are valid; RS_EBUSY: none there;
 * RS_ECLOSED; RS_EPROTO; RS_EIO. */
enum rs_err wake_recv(int fd, union wake_msg *ret, size_t *ret_len,
    int *ret_fd);

/* Fills err, type and text of an answer.  text NULL: the type's own sentence;
 * ERRTYPE_none has none. */
void wake_answer_set(struct wake_answer *a, enum rs_err err, enum errtype type,
    const char *text);

/* How many entries a NOTIFY of len bytes has. */
size_t wake_moved_count(size_t len);

/* ---- requests: wake_client.c; each blocks, any thread ---- */

/* Finds the spooler, starts one when there is none, and asks. */
struct wake_client;

/* Lent: conf, sp and models must outlive it.  send_hash: send the
 * configuration's hash (responders do, respoolctl does not). */
enum rs_err wake_client_new(const struct conf *conf, struct spool *sp,
    struct models_file *models, bool send_hash, struct wake_client **ret);
void wake_client_free(struct wake_client *w);

struct wake_reply {
	enum rs_err err;	/* what the spooler said */
	enum errtype type;	/* for our client, when err is not RS_OK */
	char text[160];		/* why, or "" */
	uint64_t count;
	uint32_t retry_s;	/* as of the answer, */
	char limit[32];		/* or 0 and "" */
};

/* Each returns RS_OK when a spooler answered (*ret says what), RS_ETIMEOUT
 * when none did in time, RS_ECLOSED when none could be started: *ret then has
 * type ERRTYPE_spool_unavailable and the reason.  They take at most 5 s (10 s
 * when a spooler must be started), and at most three tries. */

/* prompt: len bytes of JSON.  reply: RS_OK, the stream exists now and is
 * being written; RS_EEXIST, it was there before (or its tombstone). */
enum rs_err wake_start(struct wake_client *w, const struct wake_start *start,
    const char *prompt, size_t len, struct wake_reply *ret);
/* Asks the current spooler to end a stream whose writer is dead, as
 * spool_seal does. */
enum rs_err wake_seal(struct wake_client *w, const struct stream_key *k,
    struct wake_reply *ret);
enum rs_err wake_delete(struct wake_client *w, const struct stream_key *k,
    struct wake_reply *ret);
/* Removes a session's file.  reply: RS_EBUSY: one of its turns is live. */
enum rs_err wake_forget(struct wake_client *w,
    const struct stream_key *session, struct wake_reply *ret);
/* Asks the stream's own writer, head->socket; RS_ECLOSED: it is dead. */
enum rs_err wake_stop(struct wake_client *w, const struct stream_key *k,
    const struct stream_head *head, struct wake_reply *ret);
/* Asks the stream's own writer whether it is.  RS_OK: it is being written;
 * RS_ENOENT: not by that spooler (any more); RS_ECLOSED: the writer is dead;
 * RS_ETIMEOUT: it did not answer within 2 s. */
enum rs_err wake_alive(struct wake_client *w, const struct stream_key *k,
    const struct stream_head *head);
/* Whether a start would find a spooler; starts none, and takes at most 2 s.
 * RS_OK: one runs, and *ret_spool is what it says of the spool: as spool_ready,
 * RS_ENOSPC also when it keeps no space for endings; RS_ENOENT: none runs, and
 * one can be started; RS_ECLOSED: none runs, and none can be started now;
 * RS_ETIMEOUT: it does not answer. */
enum rs_err wake_ready(struct wake_client *w, enum rs_err *ret_spool);
/* Asks a running spooler only; RS_ECLOSED: there is none. */
enum rs_err wake_gc(struct wake_client *w, struct wake_reply *ret);

#endif
