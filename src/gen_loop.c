/* gen_loop.c - the table of live generations, and their timers. */
#include <sys/mman.h>
#include <sys/stat.h>

#include <fcntl.h>
#include <search.h>
#include <stdlib.h>

#include "clock.h"
#include "gen_loop.h"
#include "log.h"
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

/* The disk is full: who ends gets space from the ballast, and nothing new
 * begins until that is back. */
bool
gen_loop_make_room(void *loop)
{
	struct gen_loop *l = loop;

	if (spool_ballast_give(l->env.sp) != RS_OK)
		return false;
	if (!l->no_room)
		log_error("spool", "ballast touched streams=%zu", l->count);
	l->no_room = true;
	return true;
}

void
gen_loop_init(struct gen_loop *l, const struct conf *conf, struct spool *sp,
    struct models_file *models, struct timers *timers, const char *socket)
{
	*l = (struct gen_loop){
		.conf = conf, .models = models, .timers = timers,
		.env = {
			.conf = conf, .sp = sp, .socket = socket,
			.make_room = gen_loop_make_room, .arg = l,
		},
	};
	buf_init(&l->env.frames, FRAMES_MAX);
}

void
gen_loop_done(struct gen_loop *l)
{
	buf_done(&l->env.frames);
}

struct flight *
gen_loop_find(struct gen_loop *l, const struct stream_key *k)
{
	struct flight **node = tfind(k, &l->table, key_cmp);

	return node == NULL ? NULL : *node;
}

/* Tells what happened, and sets the timer or lets the generation go. */
static void
flight_moved(struct flight *f)
{
	struct gen_loop *l = f->loop;
	bool ended = gen_ended(f->gen);

	l->moved(f, l->arg);
	if (!ended) {
		timer_set(l->timers, &f->timer, gen_due_ns(f->gen));
		return;
	}
	timer_cancel(l->timers, &f->timer);
	tdelete(f, &l->table, key_cmp);
	l->count--;
	gen_free(f->gen);
	free(f);
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

/* Room for one more: below the limit, and with ballast for its end. */
static bool
may_start(struct gen_loop *l, struct wake_answer *ret)
{
	uint64_t want = l->count / BALLAST_STEP * BALLAST_STEP + BALLAST_STEP;
	enum rs_err err;

	if (l->count >= l->conf->max_streams) {
		wake_answer_set(ret, RS_EBUSY, ERRTYPE_too_many_streams, NULL);
		return false;
	}
	if (timers_reserve(l->timers, l->timers->count + 64) != RS_OK) {
		wake_answer_set(ret, RS_ENOMEM, ERRTYPE_spool_unavailable, NULL);
		return false;
	}
	if ((err = spool_ballast(l->env.sp, want)) != RS_OK) {
		if (!l->no_room)
			log_error("spool", "ballast not grown why=\"%s\"",
			    rs_strerror(err));
		l->no_room = true;
		wake_answer_set(ret, err, ERRTYPE_spool_unavailable,
		    err == RS_ENOSPC ?
		    "The server's disk is full. Try again later." : NULL);
		return false;
	}
	if (l->no_room)
		log_info("spool", "ballast restored");
	l->no_room = false;
	return true;
}

static struct flight *
flight_new(struct gen_loop *l, const struct stream_key *k)
{
	struct flight *f = calloc(1, sizeof *f);

	if (f == NULL)
		return NULL;
	f->key = *k;
	f->loop = l;
	f->timer.fn = flight_due;
	f->timer.arg = f;
	if (tsearch(f, &l->table, key_cmp) == NULL) {
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
	struct flight *f = flight_new(l, &start->key);
	enum errtype type = ERRTYPE_internal;
	enum rs_err err = RS_ENOMEM;

	if (f != NULL)
		err = gen_start(&l->env, start, prompt, len, models, &f->gen,
		    &type);
	models_unref(models);
	if (err == RS_OK)
		return f;
	if (f != NULL) {
		tdelete(f, &l->table, key_cmp);
		free(f);
	}
	wake_answer_set(ret, err, err == RS_EEXIST ? ERRTYPE_none : type, NULL);
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
	if (!may_start(l, ret))
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
		flight_moved(f);
	}
}
