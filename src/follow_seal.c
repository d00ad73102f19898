/* follow_seal.c - asks for streams to be ended whose writer is gone: in a
 * thread, as it may take seconds and even start a spooler. */
#include <stdlib.h>
#include <unistd.h>

#include "follow_int.h"
#include "log.h"

#define STACK_SIZE (256 * 1024)

static unsigned
key_hash(const struct stream_key *k)
{
	const char *p;
	unsigned h = 2166136261u;

	for (p = k->owner_hash; *p != '\0'; p++)
		h = (h ^ (unsigned char)*p) * 16777619u;
	for (p = k->id; *p != '\0'; p++)
		h = (h ^ (unsigned char)*p) * 16777619u;
	return h % FOLLOW_SEAL_LISTS;
}

/* *ret_answered: a spooler spoke; the same may not be said of the next. */
static enum rs_err
seal_ask(struct follow_loop *l, const struct stream_key *k, bool *ret_answered)
{
	struct wake_reply reply;
	enum rs_err err = wake_seal(l->wake, k, &reply);

	*ret_answered = err == RS_OK;
	return err == RS_OK ? reply.err : err;
}

static void *
helper_main(void *arg)
{
	struct follow_loop *l = arg;
	struct follow_seal *s, *other;
	const uint64_t one = 1;
	bool answered;

	pthread_mutex_lock(&l->mutex);
	for (;;) {
		while (!l->helper_quit && STAILQ_EMPTY(&l->todo))
			pthread_cond_wait(&l->todo_cond, &l->mutex);
		if (l->helper_quit)
			break;
		s = STAILQ_FIRST(&l->todo);
		STAILQ_REMOVE_HEAD(&l->todo, queue);
		pthread_mutex_unlock(&l->mutex);
		s->err = seal_ask(l, &s->key, &answered);
		pthread_mutex_lock(&l->mutex);
		STAILQ_INSERT_TAIL(&l->done, s, queue);
		if (!answered) {
			/* To let each wait as long would keep the last one
			 * for minutes. */
			STAILQ_FOREACH(other, &l->todo, queue)
				other->err = s->err;
			STAILQ_CONCAT(&l->done, &l->todo);
		}
		if (write(l->event_fd, &one, sizeof one) < 0)
			continue; /* full: it is awake */
	}
	pthread_mutex_unlock(&l->mutex);
	return NULL;
}

static bool
helper_start(struct follow_loop *l)
{
	pthread_attr_t attr;

	if (l->helper_runs)
		return true;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	l->helper_runs = pthread_create(&l->helper, &attr, helper_main, l) == 0;
	pthread_attr_destroy(&attr);
	return l->helper_runs;
}

static struct follow_seal *
seal_new(struct follow_loop *l, const struct stream_key *k)
{
	struct follow_seal *s;

	if (!helper_start(l) || (s = calloc(1, sizeof *s)) == NULL)
		return NULL;
	s->key = *k;
	TAILQ_INIT(&s->waiting);
	LIST_INSERT_HEAD(&l->seals[key_hash(k)], s, same_hash);
	pthread_mutex_lock(&l->mutex);
	STAILQ_INSERT_TAIL(&l->todo, s, queue);
	pthread_cond_signal(&l->todo_cond);
	pthread_mutex_unlock(&l->mutex);
	return s;
}

void
follow_seal(struct follow_loop *l, struct follower *f)
{
	struct follow_seal *s;

	follow_forget(f);
	LIST_FOREACH(s, &l->seals[key_hash(&f->key)], same_hash)
		if (stream_key_cmp(&s->key, &f->key) == 0)
			break;
	if (s == NULL && (s = seal_new(l, &f->key)) == NULL) {
		follow_leave(l, f, "failed");
		return;
	}
	f->stage = FOLLOW_SEALING;
	f->peers = &s->waiting;
	TAILQ_INSERT_TAIL(&s->waiting, f, peer);
}

void
follow_seal_take(struct follow_loop *l)
{
	struct follow_seal_queue done = STAILQ_HEAD_INITIALIZER(done);
	struct follow_seal *s;
	struct follower *f;

	pthread_mutex_lock(&l->mutex);
	STAILQ_CONCAT(&done, &l->done);
	pthread_mutex_unlock(&l->mutex);
	while ((s = STAILQ_FIRST(&done)) != NULL) {
		STAILQ_REMOVE_HEAD(&done, queue);
		if (s->err != RS_OK)
			log_warn("follow", "stream=%s not sealed pid=%d "
			    "why=\"%s\"", s->key.id, (int)getpid(),
			    rs_strerror(s->err));
		while ((f = TAILQ_FIRST(&s->waiting)) != NULL) {
			TAILQ_REMOVE(&s->waiting, f, peer);
			f->peers = NULL;
			f->stage = FOLLOW_LAST;
			if (s->err == RS_OK)
				f->reason = "sealed";
			follow_ready(l, f);
		}
		LIST_REMOVE(s, same_hash);
		free(s);
	}
}

void
follow_seal_init(struct follow_loop *l)
{
	size_t i;

	for (i = 0; i < FOLLOW_SEAL_LISTS; i++)
		LIST_INIT(&l->seals[i]);
	STAILQ_INIT(&l->todo);
	STAILQ_INIT(&l->done);
	pthread_cond_init(&l->todo_cond, NULL);
}

void
follow_seal_done(struct follow_loop *l)
{
	struct follow_seal *s;
	size_t i;

	pthread_mutex_lock(&l->mutex);
	l->helper_quit = true;
	pthread_cond_signal(&l->todo_cond);
	pthread_mutex_unlock(&l->mutex);
	if (l->helper_runs)
		pthread_join(l->helper, NULL);
	pthread_cond_destroy(&l->todo_cond);
	for (i = 0; i < FOLLOW_SEAL_LISTS; i++)
		while ((s = LIST_FIRST(&l->seals[i])) != NULL) {
			LIST_REMOVE(s, same_hash);
			free(s);
		}
}
