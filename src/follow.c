/* follow.c - the responder's loop: from the streams' files to the clients. */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "fdio.h"
#include "follow_int.h"
#include "jx.h"
#include "log.h"
#include "metrics.h"

#define EVENTS 64

/* ---- numbers ---- */

struct follower *
follow_find(const struct follow_loop *l, uint64_t sub)
{
	uint64_t slot = sub & ((1u << FOLLOW_SLOT_BITS) - 1);
	struct follower *f = slot < l->slot_count ? l->slots[slot] : NULL;

	return f != NULL && f->sub == sub ? f : NULL;
}

static bool
slots_grow(struct follow_loop *l)
{
	size_t i, n = l->slot_count == 0 ? 16 : l->slot_count * 2;
	struct follower **slots;
	uint32_t *free_slots;

	if (n > 1u << FOLLOW_SLOT_BITS)
		return false;
	if ((slots = realloc(l->slots, n * sizeof *slots)) == NULL)
		return false;
	l->slots = slots;
	if ((free_slots = realloc(l->free_slots, n * sizeof *free_slots)) ==
	    NULL)
		return false;
	l->free_slots = free_slots;
	for (i = n; i-- > l->slot_count;) {
		slots[i] = NULL;
		free_slots[l->free_count++] = (uint32_t)i;
	}
	l->slot_count = n;
	return true;
}

/* A late event or message that names f finds nobody, rather than another
 * follower in the same place: the upper bits count. */
static bool
number_take(struct follow_loop *l, struct follower *f)
{
	uint32_t slot;

	if (l->free_count == 0 && !slots_grow(l))
		return false;
	slot = l->free_slots[--l->free_count];
	l->slots[slot] = f;
	f->sub = ++l->serial << FOLLOW_SLOT_BITS | slot;
	return true;
}

static void
number_give(struct follow_loop *l, struct follower *f)
{
	uint32_t slot = f->sub & ((1u << FOLLOW_SLOT_BITS) - 1);

	l->slots[slot] = NULL;
	l->free_slots[l->free_count++] = slot;
}

/* ---- one follower ---- */

void
follow_ready(struct follow_loop *l, struct follower *f)
{
	if (f->is_ready)
		return;
	f->is_ready = true;
	TAILQ_INSERT_TAIL(&l->ready, f, ready);
}

void
follow_leave(struct follow_loop *l, struct follower *f, const char *reason)
{
	if (f->leaving || f->ended)
		return;
	f->leaving = true;
	f->reason = reason;
	follow_ready(l, f);
}

static void
follower_free(struct follower *f, bool orderly)
{
	if (orderly)
		client_finish(f->client);
	else
		client_abort(f->client);
	follow_whole_free(f->whole);
	close(f->fd);
	free(f);
}

static void
follower_end(struct follow_loop *l, struct follower *f, const char *reason,
    bool orderly)
{
	log_info("follow", "stream=%s ended pid=%d reason=%s frames=%llu "
	    "bytes=%llu ms=%llu", f->key.id, (int)getpid(), reason,
	    (unsigned long long)(f->next_id - f->first_id),
	    (unsigned long long)f->bytes,
	    (unsigned long long)((l->now_ns - f->born_ns) / NS_PER_MS));
	metrics_gauge(METRIC_open_streams, -1);
	follow_forget(f);
	if (f->is_ready)
		TAILQ_REMOVE(&l->ready, f, ready);
	TAILQ_REMOVE(&l->all, f, all);
	number_give(l, f);
	epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, client_fd(f->client), NULL);
	follower_free(f, orderly);
}

/* Asks to be woken when the client can take more, or no longer. */
static void
follower_arm(struct follow_loop *l, struct follower *f, bool on)
{
	struct epoll_event ev = {
		.events = client_gone_events(f->client) | (on ? EPOLLOUT : 0),
		.data.u64 = f->sub,
	};

	if (f->armed == on)
		return;
	f->armed = on;
	f->armed_ns = l->now_ns;
	epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, client_fd(f->client), &ev);
}

static bool
follower_write(struct follow_loop *l, struct follower *f, const char *p,
    size_t n)
{
	if (client_write(f->client, p, n) != RS_OK) {
		follower_end(l, f, "client_left", false);
		return false;
	}
	metrics_add(METRIC_sent_bytes_total, n);
	f->bytes += n;
	f->wrote_ns = l->now_ns;
	return true;
}

/* Reads from valid_end on, into scratch, and moves it over the whole frames
 * that are there.  False: the next bytes are none. */
static bool
follower_look(struct follow_loop *l, struct follower *f)
{
	enum sse_scan scan = SSE_FRAME;
	struct sse_frame frame;
	size_t off = 0, n, want = sizeof l->scratch;
	ssize_t got;

	/* Whole writes, so that no small one comes behind them.  Not to the
	 * end of the file by all means: what comes meanwhile is told. */
	want -= want % client_write_max(f->client);
	got = pread(f->fd, l->scratch, want, (off_t)f->valid_end);
	if (got < 0)
		return false;
	n = (size_t)got;
	while (off < n && !f->ended) {
		scan = sse_frame_scan(l->scratch + off, n - off, &frame);
		if (scan == SSE_FRAME && (frame.id != f->next_id ||
		    !jx_valid(frame.data, frame.data_len)))
			scan = SSE_BAD;
		if (scan != SSE_FRAME)
			break;
		if (f->whole != NULL)
			follow_whole_take(f->whole, &frame);
		off += frame.size;
		f->next_id++;
		f->ended = frame.terminal;
	}
	f->valid_end += off;
	f->more = n == want;
	return scan != SSE_BAD;
}

/* Sends what is checked, as much as the client takes; fresh: it is in
 * scratch, else a piece of it is read again. */
static void
follower_send(struct follow_loop *l, struct follower *f, bool fresh)
{
	size_t max = client_write_max(f->client), at = 0, n, got;

	if (!client_writable(f->client)) {
		follower_arm(l, f, true);
		return;
	}
	do {
		n = f->valid_end - f->pos;
		if (n > max)
			n = max;
		if (!fresh && (fd_pread_full(f->fd, l->scratch, n,
		    (off_t)f->pos, &got) != RS_OK || got < n)) {
			follower_end(l, f, "file_cut", false);
			return;
		}
		if (!follower_write(l, f, l->scratch + at, n))
			return;
		if (!f->begun && f->first_id > 0)
			metrics_observe(METRIC_resume_seconds,
			    clock_mono_ns() - client_born_ns(f->client));
		f->begun = true;
		f->pos += n;
		at += n;
	} while (fresh && f->pos < f->valid_end && client_writable(f->client));
	if (f->pos == f->valid_end) {
		metrics_add(METRIC_events_sent_total, f->next_id - f->sent_id);
		f->sent_id = f->next_id;
	}
	/* Others come first; and a look at the file is spared where its
	 * spooler has told that there is no more. */
	if (f->pos < f->valid_end || f->ended || f->leaving || f->more ||
	    f->valid_end < f->told || f->stage != FOLLOW_TOLD ||
	    l->conf->flush)
		follow_ready(l, f);
}

/* Everything is sent. */
static void
follower_finish(struct follow_loop *l, struct follower *f)
{
	uint16_t random = 0;
	char retry[32];
	int n;

	if (!client_writable(f->client)) {
		follower_arm(l, f, true);
		return;
	}
	if (!f->ended) {
		/* Soon, but not all clients at once. */
		if (getrandom(&random, sizeof random, GRND_NONBLOCK) < 0)
			random = (uint16_t)l->now_ns;
		n = snprintf(retry, sizeof retry, "retry: %d\n\n",
		    200 + random % 801);
		if (!follower_write(l, f, retry, (size_t)n))
			return;
	}
	follower_end(l, f, f->reason, true);
}

/* There is nothing more to read, or nothing that is a frame, and the stream
 * has not ended. */
static void
follower_wait(struct follow_loop *l, struct follower *f, bool bad)
{
	switch ((enum follow_stage)f->stage) {
	case FOLLOW_ALONE:
		if (bad)
			follow_seal(l, f);
		else
			follow_subscribe(l, f);
		break;
	case FOLLOW_TOLD:
		if (bad)
			follow_seal(l, f);
		break;
	case FOLLOW_CHECK:
		follow_seal(l, f);
		break;
	case FOLLOW_SEALING:
		break;
	case FOLLOW_LAST:
		follow_leave(l, f, "no_writer");
		break;
	}
}

/* Sends a piece of the one answer, or ends when all of it has gone. */
static void
follower_send_whole(struct follow_loop *l, struct follower *f)
{
	struct follow_whole *w = f->whole;
	size_t n = client_write_max(f->client), left = w->out.len - w->sent;

	if (w->out.err != RS_OK) {
		follower_end(l, f, "failed", false);
	} else if (!client_writable(f->client)) {
		follower_arm(l, f, true);
	} else if (left == 0) {
		follower_end(l, f, f->reason, true);
	} else if (follower_write(l, f, w->out.data + w->sent,
	    left < n ? left : n)) {
		w->sent += left < n ? left : n;
		follow_ready(l, f);
	}
}

/* The step of a follower whose client wants one answer. */
static void
follower_step_whole(struct follow_loop *l, struct follower *f)
{
	struct follow_whole *w = f->whole;
	uint64_t before = f->valid_end;
	bool good;

	if (w->done || w->sent < w->out.len) {
		follower_send_whole(l, f);
		return;
	}
	good = follower_look(l, f);
	f->pos = f->valid_end;
	if (!w->done && f->valid_end == before && f->leaving)
		follow_whole_fail(w, ERRTYPE_draining);
	if (w->done || f->valid_end > before)
		follow_ready(l, f);
	else
		follower_wait(l, f, !good);
}

/* At most one look at the file, so that all get their turn. */
static void
follower_step(struct follow_loop *l, struct follower *f)
{
	bool look = f->pos == f->valid_end && !f->ended && !f->leaving;
	bool good;

	if (f->whole != NULL) {
		follower_step_whole(l, f);
		return;
	}
	good = !look || follower_look(l, f);
	if (f->pos < f->valid_end)
		follower_send(l, f, look);
	else if (f->ended || f->leaving)
		follower_finish(l, f);
	else if (good && l->conf->flush && f->next_id > f->first_id)
		follow_leave(l, f, "flush");
	else
		follower_wait(l, f, !good);
}

/* A silent response: perhaps a wake-up was lost; else a comment keeps the web
 * server from giving up, and shows whether the client is there. */
static void
follower_keepalive(struct follow_loop *l, struct follower *f)
{
	static const char comment[] = ": keep-alive\n\n";

	if (f->whole != NULL) {
		/* It is silent also while frames come. */
		if (!f->whole->done && f->whole->sent == f->whole->out.len)
			follow_whole_space(f->whole);
		follow_ready(l, f);
	} else if (!follower_look(l, f) || f->pos < f->valid_end || f->ended)
		follow_ready(l, f);
	else if (client_writable(f->client))
		follower_write(l, f, comment, sizeof comment - 1);
}

/* ---- the loop ---- */

static void
loop_tick(struct follow_loop *l)
{
	uint64_t keepalive = l->conf->keepalive * NS_PER_S;
	uint64_t max = l->conf->max_connection * NS_PER_S;
	struct follower *f, *next;

	metrics_again();
	follow_conn_tick(l);
	for (f = TAILQ_FIRST(&l->all); f != NULL; f = next) {
		next = TAILQ_NEXT(f, all);
		if (f->armed && !f->slow &&
		    l->now_ns - f->armed_ns >= FOLLOW_SLOW_NS) {
			f->slow = true;
			metrics_add(METRIC_slow_readers_total, 1);
		}
		if (max > 0 && l->now_ns - f->born_ns >= max)
			follow_leave(l, f, "max_connection");
		else if (f->pos == f->valid_end && !f->ended && !f->leaving &&
		    l->now_ns - f->wrote_ns >= keepalive)
			follower_keepalive(l, f);
	}
}

static void
loop_add(struct follow_loop *l, struct follower *f)
{
	struct epoll_event ev = { .events = client_gone_events(f->client) };

	if (!number_take(l, f)) {
		log_error("follow", "stream=%s not followed pid=%d why=\"%s\"",
		    f->key.id, (int)getpid(), rs_strerror(RS_ENOMEM));
		follower_free(f, false);
		return;
	}
	ev.data.u64 = f->sub;
	if (TAILQ_EMPTY(&l->all))
		l->tick_ns = l->now_ns + FOLLOW_TICK_NS;
	TAILQ_INSERT_TAIL(&l->all, f, all);
	metrics_gauge(METRIC_open_streams, 1);
	/* A regular file as a CGI program's output cannot be polled, and need
	 * not be. */
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, client_fd(f->client), &ev) <
	    0 && errno != EPERM) {
		log_error("follow", "stream=%s not followed pid=%d why=\"%s\"",
		    f->key.id, (int)getpid(), strerror(errno));
		follower_end(l, f, "failed", false);
		return;
	}
	f->born_ns = f->wrote_ns = l->now_ns;
	if (l->stop_ns != 0)
		follow_leave(l, f, "stopped");
	else
		follow_ready(l, f);
}

/* What other threads have left for us. */
static void
loop_take(struct follow_loop *l)
{
	struct follower_list inbox = TAILQ_HEAD_INITIALIZER(inbox);
	struct follower *f;

	pthread_mutex_lock(&l->mutex);
	TAILQ_CONCAT(&inbox, &l->inbox, ready);
	pthread_mutex_unlock(&l->mutex);
	while ((f = TAILQ_FIRST(&inbox)) != NULL) {
		TAILQ_REMOVE(&inbox, f, ready);
		loop_add(l, f);
	}
	follow_seal_take(l);
	if (l->stop_ns == 0 && atomic_load(&l->stop)) {
		l->stop_ns = l->now_ns + FOLLOW_STOP_NS;
		TAILQ_FOREACH(f, &l->all, all)
			follow_leave(l, f, "stopped");
	}
}

/* A step for each that is ready; who becomes so meanwhile waits a turn. */
static void
loop_serve(struct follow_loop *l)
{
	struct follower *last = TAILQ_LAST(&l->ready, follower_list);
	struct follower *f;
	bool is_last = last == NULL;

	while (!is_last && (f = TAILQ_FIRST(&l->ready)) != NULL) {
		is_last = f == last;
		TAILQ_REMOVE(&l->ready, f, ready);
		f->is_ready = false;
		follower_step(l, f);
	}
}

static void
on_event(struct follow_loop *l, const struct epoll_event *ev)
{
	struct follower *f;
	uint64_t count;

	if (ev->data.u64 == 0) {
		if (read(l->event_fd, &count, sizeof count) < 0)
			return; /* nothing new: another event told already */
	} else if (ev->data.u64 & FOLLOW_CONN_BIT) {
		follow_conn_event(l, ev->data.u64);
	} else if ((f = follow_find(l, ev->data.u64)) != NULL) {
		if (ev->events & client_gone_events(f->client)) {
			follower_end(l, f, "client_left", false);
			return;
		}
		follower_arm(l, f, false);
		follow_ready(l, f);
	}
}

static int
loop_wait_ms(const struct follow_loop *l)
{
	uint64_t due = l->tick_ns;

	if (!TAILQ_EMPTY(&l->ready))
		return 0;
	if (TAILQ_EMPTY(&l->all))
		return -1;
	if (l->stop_ns != 0 && l->stop_ns < due)
		due = l->stop_ns;
	return clock_ms_until(due, l->now_ns);
}

static bool
loop_is_over(struct follow_loop *l, bool single)
{
	if (TAILQ_EMPTY(&l->all))
		return single || l->stop_ns != 0;
	return l->stop_ns != 0 && l->now_ns >= l->stop_ns;
}

void
follow_loop_run(struct follow_loop *l, bool single)
{
	struct epoll_event ev[EVENTS];
	struct follower *f;
	int i, n;

	for (;;) {
		l->now_ns = clock_mono_ns();
		loop_take(l);
		loop_serve(l);
		if (loop_is_over(l, single))
			break;
		/* The one place to wait: for a spooler's word, a client that
		 * can take more or has left, a new follower, the answer to a
		 * SEAL, follow_stop, or the next tick. */
		n = epoll_wait(l->epoll_fd, ev, EVENTS, loop_wait_ms(l));
		l->now_ns = clock_mono_ns();
		for (i = 0; i < n; i++)
			on_event(l, &ev[i]);
		if (l->now_ns >= l->tick_ns && !TAILQ_EMPTY(&l->all)) {
			l->tick_ns = l->now_ns + FOLLOW_TICK_NS;
			loop_tick(l);
		}
	}
	while ((f = TAILQ_FIRST(&l->all)) != NULL)
		follower_end(l, f, "cut", false);
}

/* ---- from other threads ---- */

static void
loop_wake_up(struct follow_loop *l)
{
	const uint64_t one = 1;

	/* Full means that it is awake. */
	if (write(l->event_fd, &one, sizeof one) < 0)
		return;
}

/* Takes all that it is given. */
static void
loop_hand_over(struct follow_loop *l, struct client *c,
    const struct spool_reader *r, const struct stream_key *k, uint64_t off,
    uint64_t next_id, struct follow_whole *whole)
{
	struct follower *f = calloc(1, sizeof *f);

	if (f == NULL) {
		client_abort(c);
		follow_whole_free(whole);
		close(r->fd);
		return;
	}
	f->client = c;
	f->whole = whole;
	f->fd = r->fd;
	f->key = *k;
	memcpy(f->socket, r->head.socket, sizeof f->socket);
	f->pos = f->valid_end = off;
	f->first_id = f->sent_id = f->next_id = next_id;
	f->reason = "finished";
	pthread_mutex_lock(&l->mutex);
	TAILQ_INSERT_TAIL(&l->inbox, f, ready);
	pthread_mutex_unlock(&l->mutex);
	loop_wake_up(l);
}

void
follow_add(struct follow_loop *l, struct client *c,
    const struct spool_reader *r, const struct stream_key *k, uint64_t off,
    uint64_t next_id)
{
	loop_hand_over(l, c, r, k, off, next_id, NULL);
}

void
follow_add_whole(struct follow_loop *l, struct client *c,
    const struct spool_reader *r, const struct stream_key *k, uint64_t off,
    const struct buf *head)
{
	struct follow_whole *w = follow_whole_new(head);

	if (w != NULL) {
		loop_hand_over(l, c, r, k, off, 0, w);
	} else {
		client_abort(c);
		close(r->fd);
	}
}

void
follow_stop(struct follow_loop *l)
{
	atomic_store(&l->stop, true);
	loop_wake_up(l);
}

enum rs_err
follow_loop_new(const struct conf *conf, struct wake_client *wake,
    struct follow_loop **ret)
{
	struct follow_loop *l = calloc(1, sizeof *l);
	struct epoll_event ev = { .events = EPOLLIN };

	if (l == NULL)
		return RS_ENOMEM;
	l->conf = conf;
	l->wake = wake;
	TAILQ_INIT(&l->all);
	TAILQ_INIT(&l->ready);
	TAILQ_INIT(&l->inbox);
	TAILQ_INIT(&l->conns);
	atomic_init(&l->stop, false);
	pthread_mutex_init(&l->mutex, NULL);
	follow_seal_init(l);
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	l->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (l->epoll_fd < 0 || l->event_fd < 0 || epoll_ctl(l->epoll_fd,
	    EPOLL_CTL_ADD, l->event_fd, &ev) < 0) {
		follow_loop_free(l);
		return RS_EIO;
	}
	*ret = l;
	return RS_OK;
}

void
follow_loop_free(struct follow_loop *l)
{
	struct follower *f;

	if (l == NULL)
		return;
	follow_seal_done(l);
	follow_conn_done(l);
	while ((f = TAILQ_FIRST(&l->inbox)) != NULL) {
		TAILQ_REMOVE(&l->inbox, f, ready);
		follower_free(f, false);
	}
	if (l->event_fd >= 0)
		close(l->event_fd);
	if (l->epoll_fd >= 0)
		close(l->epoll_fd);
	pthread_mutex_destroy(&l->mutex);
	free(l->slots);
	free(l->free_slots);
	free(l);
}
