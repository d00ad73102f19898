/* gen_loop.c - the table of live generations, and their timers. */
#include <sys/mman.h>
#include <sys/stat.h>

#include <fcntl.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "exec.h"
#include "gen_loop.h"
#include "gen_turn.h"
#include "http.h"
#include "log.h"
#include "metrics.h"
#include "money.h"
#include "sse.h"

/* Frames that one gen_run puts together, before they are appended. */
#define FRAMES_MAX (16 * SSE_FRAME_MAX)
/* The ballast grows in steps, so that a start seldom has to allocate. */
#define BALLAST_STEP 16

static int
key_cmp(const void *a, const void *b)
{
	return stream_key_cmp(a, b);
}

static void flight_told(void *arg);

/* The disk is full: who ends gets space from the ballast, and nothing new
 * begins until that is back. */
bool
gen_loop_make_room(void *loop)
{
	struct gen_loop *l = loop;

	if (spool_ballast_give(l->env.sp) != RS_OK)
		return false;
	if (!l->no_room)
		log_error("spool", "ballast touched pid=%d streams=%zu",
		    (int)getpid(), l->count);
	l->no_room = true;
	return true;
}

void
gen_loop_init(struct gen_loop *l, const struct conf *conf, struct spool *sp,
    struct models_file *models, struct loop *loop, const char *socket)
{
	*l = (struct gen_loop){
		.conf = conf, .models = models, .loop = loop,
		.timers = &loop->timers,
		.env = {
			.conf = conf, .sp = sp, .socket = socket,
			.make_room = gen_loop_make_room, .arg = l,
			.moved = flight_told,
			.ask = { .loop = loop, .ca_file = conf->ca_file },
		},
	};
	buf_init(&l->env.frames, FRAMES_MAX);
}

void
gen_loop_done(struct gen_loop *l)
{
	buf_done(&l->env.frames);
	breakers_done(&l->env.ask.breakers);
	exec_end_all();
	http_free(l->env.ask.http);
	quota_free(l->env.quota);
}

struct flight *
gen_loop_find(struct gen_loop *l, const struct stream_key *k)
{
	struct flight **node = tfind(k, &l->table, key_cmp);

	return node == NULL ? NULL : *node;
}

/* ---- turns of one session, one after the other ---- */

static int
session_cmp(const void *a, const void *b)
{
	const struct flight *x = a, *y = b;

	return stream_key_cmp(&x->session, &y->session);
}

bool
gen_loop_has_session(const struct gen_loop *l,
    const struct stream_key *session)
{
	struct flight f = { .session = *session };

	return tfind(&f, &l->sessions, session_cmp) != NULL;
}

/* False: no memory.  f waits when another turn is being answered. */
static bool
session_join(struct flight *f)
{
	struct flight **node, *last;

	if (f->session.id[0] == '\0')
		return true;
	node = tsearch(f, &f->loop->sessions, session_cmp);
	if (node == NULL)
		return false;
	f->waits = *node != f;
	if (f->waits) {
		for (last = *node; last->behind != NULL; last = last->behind)
			continue;
		last->behind = f;
	}
	return true;
}

/* Returns whose turn it is then; NULL: nobody's who has waited. */
static struct flight *
session_leave(struct flight *f)
{
	struct flight **node, **p;

	if (f->session.id[0] == '\0')
		return NULL;
	node = tfind(f, &f->loop->sessions, session_cmp);
	if (*node != f) {
		for (p = &(*node)->behind; *p != f; p = &(*p)->behind)
			continue;
		*p = f->behind;
		return NULL;
	}
	if (f->behind == NULL) {
		tdelete(f, &f->loop->sessions, session_cmp);
		return NULL;
	}
	*node = f->behind;
	f->behind->waits = false;
	return f->behind;
}

/* When a flight that nobody reads counts as abandoned; UINT64_MAX: never. */
static uint64_t
abandon_ns(const struct flight *f)
{
	const struct conf *conf = f->loop->conf;

	if (f->subs != NULL || conf->abandon_how == ABANDON_CONTINUE)
		return UINT64_MAX;
	return f->unread_ns + conf->abandon_after * NS_PER_S;
}

/* Ends what nobody reads, when the settings say so. */
static void
flight_abandon(struct flight *f)
{
	const struct conf *conf = f->loop->conf;
	uint64_t tokens = gen_tokens(f->gen), cost = gen_cost(f->gen);
	bool over_cap;

	over_cap = (conf->abandon_tokens > 0 &&
	    tokens >= conf->abandon_tokens) || (conf->abandon_cost > 0 &&
	    cost != MONEY_UNKNOWN && cost >= conf->abandon_cost);
	if (!f->abandoned || over_cap)
		log_info("gen", "stream=%s abandoned by its readers "
		    "tokens=%llu", f->key.id, (unsigned long long)tokens);
	if (!f->abandoned)
		metrics_add(METRIC_streams_abandoned_total, 1);
	f->abandoned = true;
	if (conf->abandon_how == ABANDON_STOP || over_cap)
		gen_stop(f->gen);
}

static void
flight_arm(struct flight *f)
{
	uint64_t due = gen_due_ns(f->gen), abandon = abandon_ns(f);

	/* After it only what the model says can reach a cap. */
	if (abandon < due && !f->abandoned)
		due = abandon;
	timer_set(f->loop->timers, &f->timer, due);
}

void
gen_loop_readers(struct flight *f)
{
	if (f->subs == NULL)
		f->unread_ns = clock_mono_ns();
	f->abandoned = false;
	flight_arm(f);
}

/* Tells what happened, and sets the timer or lets the generation go. */
static void
flight_moved(struct flight *f)
{
	struct gen_loop *l = f->loop;
	struct flight *next;
	bool ended;

	if (!gen_ended(f->gen) && abandon_ns(f) <= clock_mono_ns())
		flight_abandon(f);
	ended = gen_ended(f->gen);
	l->moved(f, l->arg);
	if (!ended) {
		flight_arm(f);
		return;
	}
	timer_cancel(l->timers, &f->timer);
	next = session_leave(f);
	tdelete(f, &l->table, key_cmp);
	l->count--;
	metrics_gauge(METRIC_generations_live, -1);
	l->turns -= f->session.id[0] != '\0';
	gen_free(f->gen);
	free(f);
	if (next != NULL) {
		gen_go(next->gen);
		flight_moved(next);
	}
}

/* gen's word that it has moved of itself. */
static void
flight_told(void *arg)
{
	flight_moved(arg);
}

static void
flight_due(void *arg)
{
	struct flight *f = arg;

	gen_run(f->gen);
	flight_moved(f);
}

void
gen_loop_stop(struct flight *f)
{
	gen_stop(f->gen);
	flight_moved(f);
}

void
gen_loop_end_all(struct gen_loop *l)
{
	struct flight *f;

	while (l->table != NULL) {
		f = *(struct flight **)l->table; /* the root's key */
		gen_fail(f->gen, ERRTYPE_generation_lost);
		flight_moved(f);
	}
}

/* Maps a prompt that its sender cannot change any more.  NULL: it is not
 * one. */
static const char *
prompt_map(int fd, uint64_t max, size_t *ret_len)
{
	const int sealed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	int seals = fcntl(fd, F_GET_SEALS); /* -1: not a memfd */
	struct stat st;
	void *p;

	if (seals < 0 || (seals & sealed) != sealed ||
	    fstat(fd, &st) < 0 || st.st_size <= 0 ||
	    (uint64_t)st.st_size > max)
		return NULL;
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return NULL;
	*ret_len = (size_t)st.st_size;
	return p;
}

/* Ballast for the end of one more. */
static enum rs_err
grow_ballast(struct gen_loop *l)
{
	/* A turn ends in two files. */
	uint64_t want = l->count + l->turns;
	enum rs_err err;

	want = want / BALLAST_STEP * BALLAST_STEP + BALLAST_STEP;
	err = spool_ballast(l->env.sp, want);
	if (err != RS_OK && !l->no_room)
		log_error("spool", "ballast not grown pid=%d why=\"%s\"",
		    (int)getpid(), rs_strerror(err));
	else if (err == RS_OK && l->no_room)
		log_info("spool", "ballast restored pid=%d", (int)getpid());
	l->no_room = err != RS_OK;
	return err;
}

enum rs_err
gen_loop_ready(struct gen_loop *l)
{
	enum rs_err err = spool_ready(l->env.sp, l->conf->max_stream_bytes);

	return err == RS_OK ? grow_ballast(l) : err;
}

/* Room for one more: below the limit, and with ballast for its end. */
static bool
may_start(struct gen_loop *l, struct wake_answer *ret)
{
	enum rs_err err;

	if (l->count >= l->conf->max_streams) {
		wake_answer_set(ret, RS_EBUSY, ERRTYPE_too_many_streams, NULL);
		return false;
	}
	if (timers_reserve(l->timers, l->timers->count + 64) != RS_OK) {
		wake_answer_set(ret, RS_ENOMEM, ERRTYPE_spool_unavailable, NULL);
		return false;
	}
	if ((err = grow_ballast(l)) != RS_OK) {
		wake_answer_set(ret, err, ERRTYPE_spool_unavailable,
		    err == RS_ENOSPC ?
		    "The server's disk is full. Try again later." : NULL);
		return false;
	}
	return true;
}

/* The session of a turn; an empty id where there is none. */
static struct stream_key
start_session(const struct wake_start *start)
{
	struct stream_key k = { .id = "" };

	if (start->dialect == DIALECT_CONVERSATION)
		stream_key(&k, start->owner, start->turn.session);
	return k;
}

/* False: the session's last turn is in the way, and *ret says so. */
static bool
turn_may_start(struct gen_loop *l, const struct wake_start *start,
    struct wake_answer *ret)
{
	struct stream_key session = start_session(start);
	enum rs_err err;

	if (session.id[0] == '\0')
		return true;
	if (gen_loop_has_session(l, &session)) {
		if (strcmp(l->conf->turns_at_once, "wait") == 0)
			return true;
		wake_answer_set(ret, RS_EBUSY, ERRTYPE_conflict,
		    "The session's last turn is still being answered.");
		return false;
	}
	if ((err = gen_turn_settle(l->env.sp, &session)) == RS_OK)
		return true;
	log_warn("gen", "stream=%s not started, the turn before it has not "
	    "ended why=\"%s\"", start->key.id, rs_strerror(err));
	wake_answer_set(ret, err, err == RS_EBUSY ? ERRTYPE_draining :
	    ERRTYPE_spool_unavailable, NULL);
	return false;
}

static struct flight *
flight_new(struct gen_loop *l, const struct wake_start *start)
{
	struct flight *f = calloc(1, sizeof *f);

	if (f == NULL)
		return NULL;
	f->key = start->key;
	f->session = start_session(start);
	f->loop = l;
	f->unread_ns = clock_mono_ns();
	f->timer.fn = flight_due;
	f->timer.arg = f;
	if (tsearch(f, &l->table, key_cmp) == NULL) {
		free(f);
		return NULL;
	}
	if (!session_join(f)) {
		tdelete(f, &l->table, key_cmp);
		free(f);
		return NULL;
	}
	return f;
}

/* A flight in the table whose stream exists, or NULL with *ret filled. */
static struct flight *
launch(struct gen_loop *l, const struct wake_start *start, const char *prompt,
    size_t len, struct wake_answer *ret)
{
	struct models *models = models_file_get(l->models);
	struct flight *f = flight_new(l, start);
	enum errtype type = ERRTYPE_internal;
	enum rs_err err = RS_ENOMEM;

	if (f != NULL)
		err = gen_start(&l->env, start, prompt, len, models, f,
		    &f->gen, &type);
	models_unref(models);
	if (err == RS_OK)
		return f;
	if (f != NULL) {
		(void)session_leave(f); /* nobody has come to wait for it */
		tdelete(f, &l->table, key_cmp);
		free(f);
	}
	if (type == ERRTYPE_rate_limited && err == RS_EBUSY) {
		wake_answer_set(ret, err, type, l->env.refusal.text);
		ret->retry_s = l->env.refusal.retry_s;
		snprintf(ret->limit, sizeof ret->limit, "%s",
		    l->env.refusal.limit);
	} else if (err == RS_ETOOBIG)
		wake_answer_set(ret, err, ERRTYPE_conflict,
		    "This session is full: begin another one.");
	else
		wake_answer_set(ret, err, err == RS_EEXIST ? ERRTYPE_none :
		    type, NULL);
	if (err == RS_ENOSPC || err == RS_EIO)
		log_error("gen", "stream=%s not started why=\"%s\"",
		    start->key.id, rs_strerror(err));
	return NULL;
}

void
gen_loop_start(struct gen_loop *l, const struct wake_start *start,
    int prompt_fd, struct wake_answer *ret)
{
	struct flight *f;
	const char *prompt;
	size_t len;

	if (gen_loop_find(l, &start->key) != NULL) {
		ret->err = RS_EEXIST;
		return;
	}
	if (start->deadline_ns < clock_mono_ns()) {
		wake_answer_set(ret, RS_ETIMEOUT, ERRTYPE_spool_unavailable, NULL);
		return;
	}
	if (!may_start(l, ret) || !turn_may_start(l, start, ret))
		return;
	prompt = prompt_map(prompt_fd,
	    WAKE_PROMPT_MAX(l->conf->max_body_bytes), &len);
	if (prompt == NULL) {
		wake_answer_set(ret, RS_EINVAL, ERRTYPE_internal, NULL);
		return;
	}
	f = launch(l, start, prompt, len, ret);
	munmap((void *)prompt, len);
	if (f != NULL) {
		l->count++;
		metrics_gauge(METRIC_generations_live, 1);
		l->turns += f->session.id[0] != '\0';
		if (f->waits)
			log_info("gen", "stream=%s queued session=%s",
			    f->key.id, f->session.id);
		else
			gen_go(f->gen);
		flight_moved(f);
	}
}
