/* follow_wake.c - connections to spoolers, which tell when there is more. */
#include <sys/epoll.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "follow_int.h"
#include "log.h"

#define MSGS_PER_TURN 64

enum { TAG_HELLO = 1, TAG_PING };

static struct follow_conn *
conn_find(struct follow_loop *l, const char *socket)
{
	struct follow_conn *c;

	TAILQ_FOREACH(c, &l->conns, all)
		if (strcmp(c->socket, socket) == 0)
			return c;
	return NULL;
}

static void
conn_free(struct follow_loop *l, struct follow_conn *c)
{
	TAILQ_REMOVE(&l->conns, c, all);
	if (c->fd >= 0)
		close(c->fd);
	free(c);
}

/* From list to: no wake-up will come for these. */
static void
orphan(struct follow_loop *l, struct follower_list *list)
{
	struct follower *f;

	while ((f = TAILQ_FIRST(list)) != NULL) {
		TAILQ_REMOVE(list, f, peer);
		f->peers = NULL;
		f->conn = NULL;
		f->asked_ns = 0;
		f->stage = FOLLOW_CHECK;
		follow_ready(l, f);
	}
}

/* The spooler is dead, stopped, or not one that we understand. */
static void
conn_lost(struct follow_loop *l, struct follow_conn *c, const char *why)
{
	if (!TAILQ_EMPTY(&c->waiting) || !TAILQ_EMPTY(&c->subscribed))
		log_debug("follow", "spooler=%s lost why=%s", c->socket, why);
	orphan(l, &c->waiting);
	orphan(l, &c->subscribed);
	conn_free(l, c);
}

/* Keeps fd -1 where the spooler's queue is full. */
static enum rs_err
conn_open(struct follow_loop *l, struct follow_conn *c)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = c->id };
	struct wake_hello hello = {
		.head = { .op = WAKE_HELLO, .tag = TAG_HELLO },
		.version = WAKE_VERSION,
	};
	enum rs_err err;

	if ((err = wake_connect(c->socket, &c->fd)) != RS_OK)
		return err == RS_EBUSY ? RS_OK : err;
	memcpy(hello.conf_hash, l->conf->hash, sizeof hello.conf_hash);
	c->asked_ns = l->now_ns;
	if ((err = wake_send(c->fd, &hello, sizeof hello, -1)) != RS_OK)
		return err;
	return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) < 0 ?
	    RS_EIO : RS_OK;
}

static enum rs_err
conn_send(struct follow_conn *c, enum wake_op op, const struct follower *f,
    uint64_t sub)
{
	struct wake_sub msg = { .head.op = op, .sub = sub };

	if (f != NULL) {
		msg.key = f->key;
		msg.stays = f->whole != NULL;
	}
	return wake_send(c->fd, &msg, sizeof msg, -1);
}

/* Sends the subscriptions that have not been.  RS_OK also when some do not
 * fit: EPOLLOUT will tell. */
static enum rs_err
conn_flush(struct follow_loop *l, struct follow_conn *c)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = c->id };
	struct follower *f;
	enum rs_err err = RS_OK;

	if (c->fd < 0 && (err = conn_open(l, c)) != RS_OK)
		return err;
	if (c->fd < 0)
		return RS_OK;
	while ((f = TAILQ_FIRST(&c->waiting)) != NULL) {
		err = conn_send(c, WAKE_SUBSCRIBE, f, f->sub);
		if (err != RS_OK)
			break;
		TAILQ_REMOVE(&c->waiting, f, peer);
		TAILQ_INSERT_TAIL(&c->subscribed, f, peer);
		f->peers = &c->subscribed;
	}
	if (err != RS_OK && err != RS_EBUSY)
		return err;
	if (c->armed != (err == RS_EBUSY)) {
		c->armed = err == RS_EBUSY;
		ev.events |= c->armed ? EPOLLOUT : 0;
		epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
	}
	return RS_OK;
}

void
follow_subscribe(struct follow_loop *l, struct follower *f)
{
	struct follow_conn *c = conn_find(l, f->socket);
	enum rs_err err;

	if (c == NULL) {
		if ((c = calloc(1, sizeof *c)) == NULL) {
			follow_leave(l, f, "failed");
			return;
		}
		memcpy(c->socket, f->socket, sizeof c->socket);
		c->id = FOLLOW_CONN_BIT | ++l->conn_serial;
		c->fd = -1;
		c->heard_ns = l->now_ns;
		TAILQ_INIT(&c->waiting);
		TAILQ_INIT(&c->subscribed);
		TAILQ_INSERT_TAIL(&l->conns, c, all);
	}
	f->stage = FOLLOW_TOLD;
	f->conn = c;
	f->asked_ns = l->now_ns;
	f->peers = &c->waiting;
	TAILQ_INSERT_TAIL(&c->waiting, f, peer);
	if ((err = conn_flush(l, c)) != RS_OK)
		conn_lost(l, c, rs_strerror(err));
}

void
follow_forget(struct follower *f)
{
	struct follow_conn *c = f->conn;

	/* When it does not fit now: the spooler's next word about f will be
	 * answered with it. */
	if (c != NULL && f->peers == &c->subscribed)
		conn_send(c, WAKE_UNSUBSCRIBE, NULL, f->sub);
	if (f->peers != NULL)
		TAILQ_REMOVE(f->peers, f, peer);
	f->peers = NULL;
	f->conn = NULL;
	f->asked_ns = 0;
}

static void
on_moved(struct follow_loop *l, struct follow_conn *c,
    const struct wake_moved *m)
{
	struct follower *f = follow_find(l, m->sub);

	if (f == NULL || f->conn != c) {
		if (m->state == WAKE_LIVE)
			conn_send(c, WAKE_UNSUBSCRIBE, NULL, m->sub);
		return;
	}
	f->asked_ns = 0;
	if (m->state == WAKE_LIVE) {
		f->told = m->end;
		/* Who waits for its client is woken by that. */
		if (f->valid_end < f->told && !f->armed)
			follow_ready(l, f);
		return;
	}
	if (m->state == WAKE_LEAVE) {
		TAILQ_REMOVE(f->peers, f, peer);
		f->peers = NULL;
		f->conn = NULL;
		follow_leave(l, f, "max_readers");
		return;
	}
	/* That was its last word.  The terminal frame should be there, or
	 * somebody else must see to it. */
	TAILQ_REMOVE(f->peers, f, peer);
	f->peers = NULL;
	f->conn = NULL;
	f->stage = FOLLOW_CHECK;
	follow_ready(l, f);
}

static bool
on_message(struct follow_loop *l, struct follow_conn *c,
    const union wake_msg *m, size_t len)
{
	size_t i;

	c->heard_ns = l->now_ns;
	if (m->head.op == WAKE_NOTIFY) {
		for (i = 0; i < wake_moved_count(len); i++)
			on_moved(l, c, &m->notify.moved[i]);
		return true;
	}
	if (m->head.op != WAKE_ANSWER)
		return false;
	c->asked_ns = 0;
	return m->head.tag != TAG_HELLO ||
	    (m->answer.err == RS_OK && m->answer.version == WAKE_VERSION);
}

void
follow_conn_event(struct follow_loop *l, uint64_t id)
{
	enum rs_err err = RS_OK;
	struct follow_conn *c;
	size_t len;
	int i, fd;

	TAILQ_FOREACH(c, &l->conns, all)
		if (c->id == id)
			break;
	if (c == NULL)
		return;
	for (i = 0; i < MSGS_PER_TURN && err == RS_OK; i++) {
		err = wake_recv(c->fd, &l->msg, &len, &fd);
		if (err != RS_OK)
			break;
		if (fd >= 0)
			close(fd);
		if (!on_message(l, c, &l->msg, len))
			err = RS_EPROTO;
	}
	if (err == RS_OK || err == RS_EBUSY)
		err = conn_flush(l, c);
	if (err != RS_OK)
		conn_lost(l, c, rs_strerror(err));
}

/* RS_OK; else c is lost. */
static enum rs_err
conn_tick(struct follow_loop *l, struct follow_conn *c)
{
	const struct wake_head ping = { .op = WAKE_PING, .tag = TAG_PING };
	struct follower *f;
	enum rs_err err;

	if (c->asked_ns != 0 && l->now_ns - c->asked_ns >= FOLLOW_ANSWER_NS)
		return RS_ETIMEOUT;
	TAILQ_FOREACH(f, &c->waiting, peer)
		if (l->now_ns - f->asked_ns >= FOLLOW_ANSWER_NS)
			return RS_ETIMEOUT;
	TAILQ_FOREACH(f, &c->subscribed, peer)
		if (f->asked_ns != 0 &&
		    l->now_ns - f->asked_ns >= FOLLOW_ANSWER_NS)
			return RS_ETIMEOUT;
	if (c->fd < 0)
		return conn_flush(l, c);
	if (c->asked_ns == 0 && !TAILQ_EMPTY(&c->subscribed) &&
	    l->now_ns - c->heard_ns >= l->conf->keepalive * NS_PER_S) {
		err = wake_send(c->fd, &ping, sizeof ping, -1);
		if (err != RS_OK)
			return err == RS_EBUSY ? RS_OK : err;
		c->asked_ns = l->now_ns;
	}
	return RS_OK;
}

void
follow_conn_tick(struct follow_loop *l)
{
	struct follow_conn *c, *next;
	enum rs_err err;

	for (c = TAILQ_FIRST(&l->conns); c != NULL; c = next) {
		next = TAILQ_NEXT(c, all);
		if ((err = conn_tick(l, c)) != RS_OK)
			conn_lost(l, c, rs_strerror(err));
	}
}

void
follow_conn_done(struct follow_loop *l)
{
	struct follow_conn *c;

	while ((c = TAILQ_FIRST(&l->conns)) != NULL)
		conn_free(l, c);
}
