/* hub.c - connections of responders to the spooler, and its loop. */
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <errno.h>
#include <search.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "conv.h"
#include "gen_loop.h"
#include "hub.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "sweeper.h"
#include "text.h"
#include "usage.h"
#include "wake.h"

#define MSGS_PER_TURN 64 /* of one connection, so that others get their turn */
#define LOCK_TRY_NS (20 * NS_PER_MS)
#define LOCK_WAIT_NS (900 * NS_PER_MS)
#define SWEEP_EVERY_NS (250 * NS_PER_MS)
#define SWEEP_BUDGET_NS (2 * NS_PER_MS)
/* While streams are written: a scheduler lets who works all the time wait. */
#define SWEEP_REST_NS (4 * NS_PER_MS)
#define SWEEP_OLD 2048 /* files that it remembers for removal: 230 KB */
#define RECOVERIES 3
#define RECOVER_AGAIN_NS NS_PER_S
#define RECOVER_LATER_NS (30 * NS_PER_S)
#define ACCEPT_AGAIN_NS (100 * NS_PER_MS)

struct conn;

/* A reader somewhere that wants to know where a stream ends. */
struct sub {
	uint64_t number;	/* first: what its connection's table sees */
	struct conn *conn;
	struct flight *flight;	/* NULL: it has ended, or is not ours */
	struct sub *prev, *next; /* of the flight */
	struct sub *due_next;	/* of the connection's due list */
	bool due;		/* is on that list */
	bool may_leave;		/* is on the hub's list of those that may */
	TAILQ_ENTRY(sub) by_age;
	enum wake_state state;	/* what to tell, or was told last */
	uint64_t end;
};

struct conn {
	struct hub *hub;
	struct conn *prev, *next;
	struct watch watch;
	bool closing;		/* freed at the end of the turn */
	void *subs;		/* tsearch(3), by number */
	struct sub *due, **due_tail; /* to be told, the longest waiting first */
	struct wake_answer *answers; /* that did not fit yet, in order */
	size_t answer_count;
	struct conn *dirty_next;
	bool dirty;		/* on the hub's list of this turn */
};

/* A request that takes several turns. */
struct job {
	struct hub *hub;
	struct job *next;
	struct conn *conn;	/* NULL: it is gone, the work goes on */
	struct wake_key msg;
	struct timer timer;
	uint64_t deadline_ns;
	uint64_t removed;	/* GC: how many files had gone before */
};

struct hub {
	const struct conf *conf;
	struct spool *sp;
	struct gen_loop gens;
	struct loop loop;
	struct watch listener, signals;
	int lock_fd;
	struct conn *conns, *dirty;
	TAILQ_HEAD(, sub) readers; /* that may be told to leave, oldest first */
	size_t reader_count;	/* these, and those that may not */
	struct job *jobs;
	struct timer sweep_timer, recover_timer, drain_timer, accept_timer;
	struct sweeper sweeper;
	unsigned recoveries;
	bool draining;
	uint64_t busy_ns;	/* the last request, or the last live stream */
	uint64_t conf_checked_ns;
	struct stat program;	/* our file; st_ino 0: not known */
	uint64_t program_checked_ns;
};

/* ---- telling ---- */

static void
conn_dirty(struct conn *c)
{
	if (c->dirty)
		return;
	c->dirty = true;
	c->dirty_next = c->hub->dirty;
	c->hub->dirty = c;
}

static void
sub_tell(struct sub *s, enum wake_state state, uint64_t end)
{
	s->state = state;
	s->end = end;
	if (!s->due) {
		s->due = true;
		s->due_next = NULL;
		*s->conn->due_tail = s;
		s->conn->due_tail = &s->due_next;
	}
	conn_dirty(s->conn);
}

/* Takes s, which link points to, from its connection's due list. */
static void
sub_not_due(struct sub *s, struct sub **link)
{
	*link = s->due_next;
	if (s->conn->due_tail == &s->due_next)
		s->conn->due_tail = link;
	s->due = false;
}

static void
sub_leave_flight(struct sub *s)
{
	if (s->flight == NULL)
		return;
	if (s->prev != NULL)
		s->prev->next = s->next;
	else
		s->flight->subs = s->next;
	if (s->next != NULL)
		s->next->prev = s->prev;
	if (s->flight->subs == NULL)
		gen_loop_readers(s->flight);
	if (s->may_leave)
		TAILQ_REMOVE(&s->conn->hub->readers, s, by_age);
	s->may_leave = false;
	s->conn->hub->reader_count--;
	s->flight = NULL;
	s->prev = s->next = NULL;
}

static void
sub_join_flight(struct sub *s, struct flight *f)
{
	s->flight = f;
	s->next = f->subs;
	if (s->next != NULL)
		s->next->prev = s;
	f->subs = s;
	s->conn->hub->reader_count++;
	if (s->next == NULL)
		gen_loop_readers(f);
}

/* One reader more than there may be, s being the latest: the one that has been
 * read to for longest comes back later. */
static void
sub_make_room(struct sub *s)
{
	struct hub *h = s->conn->hub;

	if (s->may_leave)
		TAILQ_INSERT_TAIL(&h->readers, s, by_age);
	if (h->conf->max_readers == 0 ||
	    h->reader_count <= h->conf->max_readers ||
	    (s = TAILQ_FIRST(&h->readers)) == NULL)
		return;
	sub_tell(s, WAKE_LEAVE, gen_end(s->flight->gen));
	sub_leave_flight(s);
}

/* gen_loop's word that a stream has grown or ended. */
static void
flight_moved(struct flight *f, void *arg)
{
	struct hub *h = arg;
	enum wake_state state = WAKE_LIVE;
	struct sub *s, *next;

	h->busy_ns = clock_mono_ns();
	if (gen_ended(f->gen))
		state = gen_lost(f->gen) ? WAKE_UNKNOWN : WAKE_ENDED;
	for (s = f->subs; s != NULL; s = next) {
		next = s->next;
		sub_tell(s, state, gen_end(f->gen));
		if (state != WAKE_LIVE)
			sub_leave_flight(s);
	}
	if (sweeper_moved(&h->sweeper, &f->key, &f->counted, gen_end(f->gen),
	    gen_ended(f->gen)) && !h->draining)
		timer_set(&h->loop.timers, &h->sweep_timer, h->busy_ns);
}

/* The sweeper's question. */
static bool
flight_live(const struct stream_key *k, void *arg)
{
	struct hub *h = arg;

	return gen_loop_find(&h->gens, k) != NULL;
}

static int
sub_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void
sub_free(void *arg)
{
	struct sub *s = arg;

	sub_leave_flight(s);
	free(s);
}

/* What a closed connection leaves is taken away at the end of the turn, when
 * nothing on the stack or in the list of events points to it. */
static void
conn_close(struct conn *c)
{
	c->closing = true;
	conn_dirty(c);
}

static void
conn_free(struct conn *c)
{
	struct job *j;

	for (j = c->hub->jobs; j != NULL; j = j->next)
		if (j->conn == c)
			j->conn = NULL;
	if (c->prev != NULL)
		c->prev->next = c->next;
	else
		c->hub->conns = c->next;
	if (c->next != NULL)
		c->next->prev = c->prev;
	tdestroy(c->subs, sub_free);
	free(c->answers);
	loop_watch(&c->hub->loop, &c->watch, 0);
	close(c->watch.fd);
	free(c);
}

/* Takes due subscriptions into one message. */
static size_t
notify_fill(struct conn *c, struct wake_notify *n)
{
	struct sub *s;
	size_t i = 0;

	n->head = (struct wake_head){ .op = WAKE_NOTIFY };
	for (s = c->due; s != NULL && i < WAKE_MOVED_MAX; s = s->due_next)
		n->moved[i++] = (struct wake_moved){
			.sub = s->number, .end = s->end, .state = s->state,
		};
	return i;
}

/* The first n due ones were told; those that have ended are done with. */
static void
notify_told(struct conn *c, size_t n)
{
	struct sub *s;

	while (n-- > 0) {
		s = c->due;
		sub_not_due(s, &c->due);
		if (s->state != WAKE_LIVE) {
			tdelete(s, &c->subs, sub_cmp);
			sub_free(s);
		}
	}
}

static enum rs_err
conn_send_due(struct conn *c)
{
	struct wake_notify msg;
	enum rs_err err = RS_OK;
	size_t n, sent;

	for (sent = 0; sent < c->answer_count; sent++)
		if ((err = wake_send(c->watch.fd, &c->answers[sent],
		    sizeof c->answers[sent], -1)) != RS_OK)
			break;
	c->answer_count -= sent;
	if (sent > 0)
		memmove(c->answers, c->answers + sent,
		    c->answer_count * sizeof *c->answers);
	if (c->answer_count > 0)
		return err;
	while (c->due != NULL) {
		n = notify_fill(c, &msg);
		err = wake_send(c->watch.fd, &msg,
		    sizeof msg.head + n * sizeof msg.moved[0], -1);
		if (err != RS_OK)
			return err;
		notify_told(c, n);
	}
	return RS_OK;
}

/* Says all that is due; what does not fit waits for EPOLLOUT. */
static void
conn_flush(struct conn *c)
{
	enum rs_err err = c->closing ? RS_ECLOSED : conn_send_due(c);

	if (err == RS_OK || err == RS_EBUSY)
		loop_watch(&c->hub->loop, &c->watch,
		    err == RS_OK ? EPOLLIN : EPOLLIN | EPOLLOUT);
	else
		conn_free(c);
}

static void
answer(struct conn *c, const struct wake_answer *a)
{
	struct wake_answer *more;

	more = realloc(c->answers, (c->answer_count + 1) * sizeof *more);
	if (more == NULL) {
		conn_close(c); /* it will ask again */
		return;
	}
	c->answers = more;
	c->answers[c->answer_count] = *a;
	c->answers[c->answer_count].head.op = WAKE_ANSWER;
	c->answer_count++;
	conn_dirty(c);
}

/* ---- requests that take several turns ---- */

static void
job_end(struct job *j, enum rs_err err, enum errtype type)
{
	struct wake_answer a = {
		.head.tag = j->msg.head.tag,
	};
	struct job **p = &j->hub->jobs;

	wake_answer_set(&a, err, type, NULL);
	if (j->msg.head.op == WAKE_GC)
		a.count = sweeper_removed(&j->hub->sweeper) - j->removed;
	if (j->conn != NULL)
		answer(j->conn, &a);
	while (*p != j)
		p = &(*p)->next;
	*p = j->next;
	timer_cancel(&j->hub->loop.timers, &j->timer);
	free(j);
}

/* A dead writer's lock may take a moment to become free: the kernel closes
 * its descriptors one by one. */
static void
job_lock(struct job *j)
{
	uint64_t now = clock_mono_ns(), bytes;
	struct hub *h = j->hub;
	enum rs_err err;

	if (h->draining) {
		job_end(j, RS_EBUSY, ERRTYPE_draining);
		return;
	}
	bytes = spool_bytes(h->sp, &j->msg.key);
	err = j->msg.head.op == WAKE_SEAL ? spool_seal(h->sp, &j->msg.key) :
	    spool_delete(h->sp, &j->msg.key);
	if (err == RS_OK && j->msg.head.op == WAKE_DELETE && bytes > 0)
		sweeper_dropped(&h->sweeper, &j->msg.key, bytes);
	if (err == RS_EBUSY && now < j->deadline_ns) {
		timer_set(&h->loop.timers, &j->timer, now + LOCK_TRY_NS);
		return;
	}
	if (err == RS_ENOSPC && gen_loop_make_room(&h->gens)) {
		timer_set(&h->loop.timers, &j->timer, now);
		return;
	}
	if (err == RS_OK && j->msg.head.op == WAKE_DELETE)
		log_info("spool", "stream=%s deleted pid=%d", j->msg.key.id,
		    (int)getpid());
	else if (err != RS_OK && err != RS_ENOENT)
		log_warn("spool", "stream=%s not %s pid=%d why=\"%s\"",
		    j->msg.key.id, j->msg.head.op == WAKE_SEAL ? "sealed" :
		    "deleted", (int)getpid(), rs_strerror(err));
	job_end(j, err, err == RS_OK ? ERRTYPE_none : err == RS_ENOENT ?
	    ERRTYPE_stream_not_found : ERRTYPE_spool_unavailable);
}

/* A whole sweep was asked for. */
static void
job_gc(struct job *j)
{
	struct hub *h = j->hub;

	if (h->draining)
		job_end(j, RS_EBUSY, ERRTYPE_draining);
	else if (sweeper_busy(&h->sweeper))
		timer_set(&h->loop.timers, &j->timer,
		    clock_mono_ns() + SWEEP_REST_NS);
	else
		job_end(j, h->sweeper.err, ERRTYPE_none);
}

static void
job_due(void *arg)
{
	struct job *j = arg;

	j->hub->busy_ns = clock_mono_ns();
	if (j->msg.head.op == WAKE_GC)
		job_gc(j);
	else
		job_lock(j);
}

static void
job_new(struct conn *c, const union wake_msg *msg)
{
	struct hub *h = c->hub;
	struct job *j = calloc(1, sizeof *j);

	if (j == NULL || timers_reserve(&h->loop.timers, h->loop.timers.count + 64) !=
	    RS_OK) {
		free(j);
		conn_close(c);
		return;
	}
	j->hub = h;
	j->conn = c;
	if (msg->head.op == WAKE_GC) {
		j->msg.head = msg->head;
		j->removed = sweeper_removed(&h->sweeper);
		if (!h->draining) {
			sweeper_pass(&h->sweeper);
			timer_set(&h->loop.timers, &h->sweep_timer,
			    clock_mono_ns());
		}
	} else
		j->msg = msg->key;
	j->timer.fn = job_due;
	j->timer.arg = j;
	j->deadline_ns = clock_mono_ns() + LOCK_WAIT_NS;
	j->next = h->jobs;
	h->jobs = j;
	job_due(j);
}

/* ---- draining ---- */

static void
end_all(void *arg)
{
	struct hub *h = arg;

	log_warn("spooler", "ended all that was live pid=%d streams=%zu",
	    (int)getpid(), h->gens.count);
	gen_loop_end_all(&h->gens);
}

/* Gives up being the mutator, so that a successor can start, and goes when
 * the last stream has ended. */
static void
drain(struct hub *h, const char *why)
{
	if (h->draining)
		return;
	log_info("spooler", "draining pid=%d streams=%zu why=%s",
	    (int)getpid(), h->gens.count, why);
	h->draining = true;
	h->sweeper.known = false; /* what there is, its successor tells */
	timer_cancel(&h->loop.timers, &h->sweep_timer);
	timer_cancel(&h->loop.timers, &h->recover_timer);
	timer_set(&h->loop.timers, &h->drain_timer,
	    clock_mono_ns() + h->conf->drain_timeout * NS_PER_S);
	close(h->lock_fd);
	h->lock_fd = -1;
}

/* A responder runs with another configuration.  Only when ours has changed on
 * disk do we make way for a spooler that reads it anew: two sets of responders
 * with different ones must not chase each other's spoolers away. */
static void
check_conf(struct hub *h)
{
	uint64_t now = clock_mono_ns();
	struct conf *fresh = NULL;
	struct buf why;

	if (h->draining || (h->conf_checked_ns != 0 &&
	    now - h->conf_checked_ns < NS_PER_S))
		return;
	h->conf_checked_ns = now;
	buf_init(&why, 4096);
	if (conf_load(h->conf->file, &fresh, &why) == RS_OK &&
	    strcmp(fresh->hash, h->conf->hash) != 0)
		drain(h, "configuration");
	conf_free(fresh);
	buf_done(&why);
}

/* By the path that it was started from: a link in it may lead to another
 * version's directory later. */
static bool
look_at_program(struct stat *ret)
{
	const char *path = (const char *)getauxval(AT_EXECFN);

	return path != NULL && path[0] == '/' && stat(path, ret) == 0;
}

/* An upgrade put another program in the place of ours: who asks gets that one,
 * while this one ends its streams.  A file that cannot be run yet is about to
 * be one that can. */
static void
check_program(struct hub *h)
{
	uint64_t now = clock_mono_ns();
	struct stat st;

	if (h->draining || h->program.st_ino == 0 ||
	    now - h->program_checked_ns < NS_PER_S)
		return;
	h->program_checked_ns = now;
	if (look_at_program(&st) && (st.st_mode & S_IXUSR) != 0 &&
	    (st.st_ino != h->program.st_ino || st.st_dev != h->program.st_dev))
		drain(h, "upgrade");
}

/* ---- requests ---- */

static void
on_hello(struct conn *c, const struct wake_hello *m)
{
	struct hub *h = c->hub;
	struct wake_answer a = {
		.head.tag = m->head.tag, .version = WAKE_VERSION,
	};

	if (m->version > WAKE_VERSION)
		drain(h, "version"); /* programs newer than this one */
	else if (m->version == WAKE_VERSION && m->conf_hash[0] != '\0' &&
	    strcmp(m->conf_hash, h->conf->hash) != 0)
		check_conf(h);
	check_program(h);
	a.draining = h->draining;
	if (m->version != WAKE_VERSION)
		a.err = RS_EPROTO;
	answer(c, &a);
}

static void
on_start(struct conn *c, const struct wake_start *m, int fd)
{
	struct wake_answer a = { .head.tag = m->head.tag };

	if (c->hub->draining)
		wake_answer_set(&a, RS_EBUSY, ERRTYPE_draining, NULL);
	else
		gen_loop_start(&c->hub->gens, m, fd, &a);
	answer(c, &a);
}

static void
on_stop(struct conn *c, const struct wake_key *m)
{
	struct flight *f = gen_loop_find(&c->hub->gens, &m->key);
	struct wake_answer a = { .head.tag = m->head.tag };

	if (f == NULL)
		a.err = RS_ENOENT;
	else
		gen_loop_stop(f);
	answer(c, &a);
}

/* SEAL and DELETE.  A stream that is live here has no dead writer, and only
 * its stop makes it one that can be deleted. */
static void
on_key(struct conn *c, const union wake_msg *m)
{
	struct flight *f = gen_loop_find(&c->hub->gens, &m->key.key);
	struct wake_answer a = { .head.tag = m->head.tag };

	if (f != NULL && m->head.op == WAKE_DELETE)
		gen_loop_stop(f);
	else if (f != NULL) {
		wake_answer_set(&a, RS_EBUSY, ERRTYPE_spool_unavailable, NULL);
		answer(c, &a);
		return;
	}
	job_new(c, m);
}

/* Its streams were removed before: a turn that is live has come since. */
static void
on_forget(struct conn *c, const struct wake_key *m)
{
	struct wake_answer a = { .head.tag = m->head.tag };
	struct hub *h = c->hub;
	enum rs_err err = RS_EBUSY;

	if (h->draining)
		wake_answer_set(&a, err, ERRTYPE_draining, NULL);
	else if (gen_loop_has_session(&h->gens, &m->key))
		wake_answer_set(&a, err, ERRTYPE_spool_unavailable, NULL);
	else if ((err = conv_delete(h->sp, &m->key)) != RS_OK)
		wake_answer_set(&a, err, ERRTYPE_spool_unavailable, NULL);
	if (err == RS_OK)
		log_info("spool", "session=%s deleted pid=%d", m->key.id,
		    (int)getpid());
	else
		log_warn("spool", "session=%s not deleted pid=%d why=\"%s\"",
		    m->key.id, (int)getpid(), rs_strerror(err));
	answer(c, &a);
}

static void
on_subscribe(struct conn *c, const struct wake_sub *m)
{
	struct flight *f = gen_loop_find(&c->hub->gens, &m->key);
	struct sub *s, **node;

	if ((s = calloc(1, sizeof *s)) == NULL) {
		conn_close(c);
		return;
	}
	s->number = m->sub;
	s->conn = c;
	node = tsearch(s, &c->subs, sub_cmp);
	if (node == NULL || *node != s) {
		/* No memory, or a number used twice: a mistake of theirs. */
		free(s);
		conn_close(c);
		return;
	}
	if (f == NULL) {
		sub_tell(s, WAKE_UNKNOWN, 0);
	} else {
		s->may_leave = m->stays == 0;
		sub_join_flight(s, f);
		sub_tell(s, WAKE_LIVE, gen_end(f->gen));
		sub_make_room(s);
	}
}

static void
on_unsubscribe(struct conn *c, const struct wake_sub *m)
{
	struct sub **node = tfind(&m->sub, &c->subs, sub_cmp), *s, **p;

	if (node == NULL)
		return; /* it has ended meanwhile */
	s = *node;
	for (p = &c->due; s->due && *p != s; p = &(*p)->due_next)
		continue;
	if (s->due)
		sub_not_due(s, p);
	tdelete(s, &c->subs, sub_cmp);
	sub_free(s);
}

static void
on_message(struct conn *c, const union wake_msg *m, int fd)
{
	struct wake_answer a = { .head.tag = m->head.tag };

	switch ((enum wake_op)m->head.op) {
	case WAKE_HELLO:
		on_hello(c, &m->hello);
		return; /* alone it does not keep an idle spooler */
	case WAKE_PING:
		answer(c, &a);
		return;
	case WAKE_ALIVE:
		if (gen_loop_find(&c->hub->gens, &m->key.key) == NULL)
			a.err = RS_ENOENT;
		answer(c, &a);
		return;
	case WAKE_READY:
		a.err = c->hub->draining ? RS_EBUSY :
		    gen_loop_ready(&c->hub->gens);
		answer(c, &a);
		return;
	case WAKE_UNSUBSCRIBE:
		on_unsubscribe(c, &m->sub);
		return;
	case WAKE_START:
		on_start(c, &m->start, fd);
		break;
	case WAKE_SEAL:
	case WAKE_DELETE:
		on_key(c, m);
		break;
	case WAKE_FORGET:
		on_forget(c, &m->key);
		break;
	case WAKE_GC:
		job_new(c, m);
		break;
	case WAKE_STOP:
		on_stop(c, &m->key);
		break;
	case WAKE_SUBSCRIBE:
		on_subscribe(c, &m->sub);
		break;
	case WAKE_ANSWER:
	case WAKE_NOTIFY:
		conn_close(c); /* not for a spooler to hear */
		return;
	}
	c->hub->busy_ns = clock_mono_ns();
}

static void
conn_read(struct conn *c)
{
	union wake_msg msg;
	enum rs_err err;
	size_t len;
	int i, fd;

	for (i = 0; i < MSGS_PER_TURN && !c->closing; i++) {
		err = wake_recv(c->watch.fd, &msg, &len, &fd);
		if (err == RS_EBUSY)
			return;
		if (err != RS_OK) {
			if (err == RS_EPROTO)
				log_warn("spooler", "bad message refused "
				    "pid=%d", (int)getpid());
			conn_close(c);
			return;
		}
		on_message(c, &msg, fd);
		if (fd >= 0)
			close(fd);
	}
}

static void
on_conn(void *arg, uint32_t events)
{
	struct conn *c = arg;

	if (events & EPOLLOUT)
		conn_dirty(c);
	if (events & ~(uint32_t)EPOLLOUT)
		conn_read(c);
}

static void
on_accept(void *arg, uint32_t events)
{
	struct hub *h = arg;
	struct conn *c;
	int fd;

	(void)events;
	while ((fd = accept4(h->listener.fd, NULL, NULL,
	    SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		if ((c = calloc(1, sizeof *c)) == NULL) {
			close(fd);
			return;
		}
		c->hub = h;
		c->watch = (struct watch){ .fd = fd, .fn = on_conn, .arg = c };
		c->due_tail = &c->due;
		c->next = h->conns;
		if (c->next != NULL)
			c->next->prev = c;
		h->conns = c;
		if (loop_watch(&h->loop, &c->watch, EPOLLIN) != RS_OK)
			conn_close(c);
	}
	if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
		return;
	/* Out of descriptors or memory: who waits is served when some are
	 * back, and the loop does not spin meanwhile. */
	log_error("spooler", "accept failed pid=%d why=\"%s\"",
	    (int)getpid(), strerror(errno));
	loop_watch(&h->loop, &h->listener, 0);
	timer_set(&h->loop.timers, &h->accept_timer,
	    clock_mono_ns() + ACCEPT_AGAIN_NS);
}

static void
accept_due(void *arg)
{
	struct hub *h = arg;

	if (loop_watch(&h->loop, &h->listener, EPOLLIN) != RS_OK)
		timer_set(&h->loop.timers, &h->accept_timer,
		    clock_mono_ns() + ACCEPT_AGAIN_NS);
}

/* ---- the loop ---- */

static void
on_signal(void *arg, uint32_t events)
{
	struct hub *h = arg;
	struct signalfd_siginfo si;

	(void)events;
	while (read(h->signals.fd, &si, sizeof si) == (ssize_t)sizeof si) {
		if (si.ssi_signo == SIGHUP)
			log_reopen();
		else if (h->draining)
			end_all(h);
		else
			drain(h, "signal");
	}
}

static void
sweep_due(void *arg)
{
	struct hub *h = arg;
	uint64_t rest_ns = SWEEP_EVERY_NS;

	if (sweeper_slice(&h->sweeper, SWEEP_BUDGET_NS))
		rest_ns = h->gens.count > 0 ? SWEEP_REST_NS : 0;
	metrics_again();
	timer_set(&h->loop.timers, &h->sweep_timer, clock_mono_ns() + rest_ns);
}

/* Settles and seals what dead spoolers have left.  Their locks may be held a
 * moment longer than their spooler.lock was; what is still held then belongs
 * to one that drains, and may die of it. */
static void
recover(void *arg)
{
	struct hub *h = arg;
	struct usage_generation *list = NULL, *g;
	size_t sealed = 0, open = 0;
	enum rs_err err = usage_recover(h->sp, &sealed, &list);

	for (g = list; g != NULL; g = g->next)
		open++;
	if (err == RS_OK && h->gens.env.quota != NULL)
		err = quota_recovered(h->gens.env.quota, list);
	usage_generations_free(list);
	if (err != RS_OK)
		log_error("spooler", "not recovered pid=%d why=\"%s\"",
		    (int)getpid(), rs_strerror(err));
	else if (sealed > 0 || open > 0)
		log_info("spooler", "recovered pid=%d streams_sealed=%zu "
		    "streams_open=%zu", (int)getpid(), sealed, open);
	if (err != RS_OK || open > 0)
		timer_set(&h->loop.timers, &h->recover_timer,
		    clock_mono_ns() + (++h->recoveries < RECOVERIES ?
		    RECOVER_AGAIN_NS : RECOVER_LATER_NS));
}

static void
flush_dirty(struct hub *h)
{
	struct conn *c;

	while ((c = h->dirty) != NULL) {
		h->dirty = c->dirty_next;
		c->dirty = false;
		conn_flush(c);
	}
}

/* One turn, after which everybody is told what is due. */
static int
hub_turn(struct hub *h, int wait_ms)
{
	int n = loop_turn(&h->loop, wait_ms);

	flush_dirty(h);
	return n;
}

/* Milliseconds that the loop may wait beside its timers; 0 when there is
 * reason to leave. */
static int
hub_wait_ms(const struct hub *h, bool forever)
{
	if (h->gens.count > 0 || h->jobs != NULL)
		return -1;
	if (h->draining)
		return 0;
	if (forever)
		return -1;
	return clock_ms_until(h->busy_ns + h->conf->idle_exit * NS_PER_S,
	    clock_mono_ns());
}

static bool
hub_may_leave(const struct hub *h, bool forever)
{
	return h->gens.count == 0 && h->jobs == NULL && (h->draining ||
	    (!forever && clock_mono_ns() - h->busy_ns >=
	    h->conf->idle_exit * NS_PER_S));
}

void
hub_run(struct hub *h, bool forever)
{
	h->busy_ns = clock_mono_ns();
	/* It leaves only after a turn in which nobody wanted anything: what
	 * was queued has been served, and who comes later finds nobody and
	 * starts the next one. */
	while (hub_turn(h, hub_wait_ms(h, forever)) > 0 ||
	    !hub_may_leave(h, forever))
		continue;
	log_info("spooler", "left pid=%d why=%s", (int)getpid(),
	    h->draining ? "drained" : "idle");
}

enum rs_err
hub_new(const struct conf *conf, struct spool *sp, struct models_file *models,
    const char *socket, int listen_fd, int lock_fd, struct hub **ret)
{
	struct hub *h = calloc(1, sizeof *h);
	enum rs_err err;
	sigset_t set;
	char hex[3];

	if (h == NULL) {
		close(listen_fd);
		close(lock_fd);
		return RS_ENOMEM;
	}
	h->conf = conf;
	h->sp = sp;
	h->lock_fd = lock_fd;
	TAILQ_INIT(&h->readers);
	err = loop_init(&h->loop);
	gen_loop_init(&h->gens, conf, sp, models, &h->loop, socket);
	h->gens.moved = flight_moved;
	h->gens.arg = h;
	sweeper_init(&h->sweeper, conf, sp, SWEEP_OLD);
	h->sweeper.streams.live = flight_live;
	h->sweeper.streams.arg = h;
	sweeper_pass(&h->sweeper);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	h->listener = (struct watch){
		.fd = listen_fd, .fn = on_accept, .arg = h,
	};
	h->signals = (struct watch){
		.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC),
		.fn = on_signal, .arg = h,
	};
	if (err != RS_OK || (err = loop_watch(&h->loop, &h->listener,
	    EPOLLIN)) != RS_OK || (err = loop_watch(&h->loop, &h->signals,
	    EPOLLIN)) != RS_OK || (err = timers_reserve(&h->loop.timers,
	    64)) != RS_OK || (quota_wanted(conf) && (err = quota_new(conf, sp,
	    &h->gens.env.quota)) != RS_OK)) {
		hub_free(h);
		return err;
	}
	h->sweep_timer = (struct timer){ .fn = sweep_due, .arg = h };
	h->recover_timer = (struct timer){ .fn = recover, .arg = h };
	h->drain_timer = (struct timer){ .fn = end_all, .arg = h };
	h->accept_timer = (struct timer){ .fn = accept_due, .arg = h };
	if (!look_at_program(&h->program))
		h->program.st_ino = 0;
	/* Spoolers that leave early would otherwise all sweep the same few. */
	random_hex(hex, 1);
	h->sweeper.streams.shard = (unsigned)strtoul(hex, NULL, 16);
	h->sweeper.convs.shard = h->sweeper.streams.shard;
	timer_set(&h->loop.timers, &h->sweep_timer,
	    clock_mono_ns() + SWEEP_REST_NS);
	recover(h);
	*ret = h;
	return RS_OK;
}

void
hub_free(struct hub *h)
{
	if (h == NULL)
		return;
	while (h->jobs != NULL)
		job_end(h->jobs, RS_ECLOSED, ERRTYPE_none);
	while (h->conns != NULL)
		conn_free(h->conns);
	gen_loop_done(&h->gens);
	sweeper_done(&h->sweeper);
	loop_done(&h->loop);
	close(h->listener.fd);
	if (h->lock_fd >= 0)
		close(h->lock_fd);
	if (h->signals.fd >= 0)
		close(h->signals.fd);
	free(h);
}
