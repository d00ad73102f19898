/* quota.c - how much: limits per owner, per address, and for all. */
#include <sys/queue.h>

#include <fcntl.h>
#include <search.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "money.h"
#include "quota.h"
#include "usage_impl.h"

#define WINDOW_MS 60000		/* of the starts */
#define BUSY_RETRY_S 5		/* too many streams: nobody knows when */
#define FILES_MAX 4		/* that may still grow */
#define NAME_SIZE (1 + ADDRESS_KEY_SIZE)

/* What limits count by: an owner, an address, and all. */
enum { BY_OWNER, BY_ADDRESS, BY_ALL, BYS };
/* What they count. */
enum what { STREAMS, STARTS, TOKENS, COST };

/* Two words, as amounts are subtracted again, which must be exact. */
struct sum {
	uint64_t high, low;
};

struct account {
	char name[NAME_SIZE];	/* first: what the table compares; "o" or "a"
				 * and the hash */
	uint64_t streams, starts;
	struct sum tokens, cost; /* of today */
	LIST_ENTRY(account) all;
};

/* A reserve without a settle. */
struct open {
	struct usage_generation g; /* first: what the table compares */
	struct account *by[BYS];
	bool today;		/* is in the sums */
	bool sure;		/* it is open, and not only not settled in what
				 * was read so far */
	LIST_ENTRY(open) all;
};

struct start {
	int64_t ms;
	struct account *by[BYS];
	STAILQ_ENTRY(start) later;
};

struct file {
	char name[USAGE_DAY_SIZE];
	uint64_t off;		/* up to where it was read */
};

struct quota {
	const struct conf *conf;
	struct spool *sp;
	void *accounts, *opens;	/* tsearch(3) */
	LIST_HEAD(, account) account_list;
	LIST_HEAD(, open) open_list;
	STAILQ_HEAD(, start) starts; /* of the last minute, oldest first */
	struct account all;
	bool recovered;		/* what is open is known to be */
	/* Today's day file last; the ones before it may get a line of
	 * somebody who has looked at the clock before us. */
	struct file files[FILES_MAX];
	size_t file_count;
	int64_t day_ms, day_end_ms; /* today; both 0: nothing was read yet */
	int64_t since_ms;	/* older starts do not matter, unless they are
				 * known to be open */
	int64_t now_ms;		/* of the last decision */
};

/* ---- sums ---- */

static void
sum_add(struct sum *s, uint64_t n)
{
	s->low += n;
	s->high += s->low < n;
}

static void
sum_sub(struct sum *s, uint64_t n)
{
	s->high -= s->low < n;
	s->low -= n;
}

static bool
sum_over(const struct sum *s, uint64_t more, uint64_t limit)
{
	return s->high > 0 || s->low > limit || more > limit - s->low;
}

/* ---- accounts ---- */

static int
account_cmp(const void *a, const void *b)
{
	return strcmp(a, b);
}

static void
account_name(char ret[NAME_SIZE], char kind, const char *hash)
{
	snprintf(ret, NAME_SIZE, "%c%s", kind, hash);
}

/* NULL: no memory. */
static struct account *
account_get(struct quota *q, char kind, const char *hash)
{
	struct account *a = calloc(1, sizeof *a), **node;

	if (a == NULL)
		return NULL;
	account_name(a->name, kind, hash);
	node = tsearch(a, &q->accounts, account_cmp);
	if (node == NULL || *node != a) {
		free(a);
		return node == NULL ? NULL : *node;
	}
	LIST_INSERT_HEAD(&q->account_list, a, all);
	return a;
}

/* Of whom a generation is.  An address that is not known is one like any
 * other, so that nobody gains by hiding it.  False: no memory. */
static bool
accounts_of(struct quota *q, const struct usage_generation *g,
    struct account *ret[BYS])
{
	ret[BY_OWNER] = account_get(q, 'o', g->key.owner_hash);
	ret[BY_ADDRESS] = account_get(q, 'a', g->worst.address);
	ret[BY_ALL] = &q->all;
	return ret[BY_OWNER] != NULL && ret[BY_ADDRESS] != NULL;
}

/* ---- generations ---- */

static bool
is_today(const struct quota *q, int64_t ms)
{
	return ms >= q->day_ms && ms < q->day_end_ms;
}

static uint64_t
known_cost(uint64_t cost)
{
	return cost == MONEY_UNKNOWN ? 0 : cost;
}

/* Its worst case joins the sums of today, if it is of today. */
static void
open_count(const struct quota *q, struct open *o)
{
	o->today = is_today(q, o->g.created_ms);
	for (int i = 0; i < BYS && o->today; i++) {
		sum_add(&o->by[i]->tokens, o->g.worst.tokens);
		sum_add(&o->by[i]->cost, known_cost(o->g.worst.cost));
	}
}

static enum rs_err
open_new(struct quota *q, const struct usage_generation *g, bool sure)
{
	struct open *o = calloc(1, sizeof *o), **node;

	if (o == NULL)
		return RS_ENOMEM;
	o->g = *g;
	o->g.next = NULL;
	o->sure = sure;
	node = accounts_of(q, g, o->by) ?
	    tsearch(o, &q->opens, usage_generation_cmp) : NULL;
	if (node == NULL || *node != o) {
		free(o);
		return node == NULL ? RS_ENOMEM : RS_OK;
	}
	LIST_INSERT_HEAD(&q->open_list, o, all);
	for (int i = 0; i < BYS; i++)
		o->by[i]->streams++;
	open_count(q, o);
	return RS_OK;
}

/* It is open no longer; what it has in the sums stays there. */
static void
open_free(struct quota *q, struct open *o)
{
	tdelete(o, &q->opens, usage_generation_cmp);
	LIST_REMOVE(o, all);
	for (int i = 0; i < BYS; i++)
		o->by[i]->streams--;
	free(o);
}

/* ---- lines ---- */

static enum rs_err
fold_reserve(struct quota *q, const struct usage_generation *g, bool anew)
{
	struct start *s;

	if (g->created_ms < q->since_ms)
		return RS_OK;
	/* A clock that was set back makes a start one of the future: of a
	 * moment, it is one of now; else it is as if it had been long ago. */
	if (g->created_ms > q->now_ms - WINDOW_MS &&
	    g->created_ms < q->now_ms + WINDOW_MS) {
		if ((s = calloc(1, sizeof *s)) == NULL)
			return RS_ENOMEM;
		s->ms = g->created_ms < q->now_ms ? g->created_ms : q->now_ms;
		if (!accounts_of(q, g, s->by)) {
			free(s);
			return RS_ENOMEM;
		}
		STAILQ_INSERT_TAIL(&q->starts, s, later);
		for (int i = 0; i < BYS; i++)
			s->by[i]->starts++;
	}
	return open_new(q, g, !anew);
}

static void
fold_settle(struct quota *q, const struct usage_line *l)
{
	struct open **node = tfind(&l->g, &q->opens, usage_generation_cmp), *o;
	uint64_t cost;

	if (node == NULL)
		return; /* settled before, or of no interest */
	o = *node;
	cost = l->cost != MONEY_UNKNOWN ? l->cost : known_cost(o->g.worst.cost);
	for (int i = 0; i < BYS && o->today && l->known; i++) {
		sum_sub(&o->by[i]->tokens, o->g.worst.tokens);
		sum_sub(&o->by[i]->cost, known_cost(o->g.worst.cost));
		sum_add(&o->by[i]->tokens, l->tokens);
		sum_add(&o->by[i]->cost, cost);
	}
	open_free(q, o);
}

/* anew: the line was there before this day was begun to be counted. */
static enum rs_err
fold_line(struct quota *q, const struct buf *line, bool anew)
{
	struct usage_line l;

	if (!usage_line_read(line, &l))
		return RS_OK;
	if (!l.settles)
		return fold_reserve(q, &l.g, anew);
	fold_settle(q, &l);
	return RS_OK;
}

/* ---- files ---- */

/* Reads on where f was read to.  RS_ERANGE: the file is not the one that it
 * was, and will be read from its beginning. */
static enum rs_err
file_read(struct quota *q, struct file *f, bool anew)
{
	struct usage_lines l;
	enum rs_err err;
	struct stat st;
	uint64_t off;
	int dir, fd;

	if ((err = spool_dir_open(q->sp, q->sp->fd, "usage", true, &dir)) !=
	    RS_OK)
		return err;
	if (fstatat(dir, f->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    (uint64_t)st.st_size == f->off) {
		close(dir);
		return RS_OK;
	}
	err = spool_file_open(q->sp, dir, f->name, O_RDONLY, &fd, &st);
	close(dir);
	if (err == RS_ENOENT && f->off == 0)
		return RS_OK; /* nothing was bought yet */
	if (err == RS_OK && (uint64_t)st.st_size < f->off) {
		close(fd);
		err = RS_ENOENT;
	}
	if (err == RS_ENOENT) {
		f->off = 0;
		return RS_ERANGE;
	}
	if (err != RS_OK)
		return err;
	usage_lines_init(&l, fd, f->off);
	/* What lacks its end is being written, or will get one before the
	 * next line. */
	while ((err = usage_lines_next(&l, &off)) == RS_OK && l.whole &&
	    (err = fold_line(q, &l.line, anew)) == RS_OK)
		f->off = l.off;
	usage_lines_done(&l);
	close(fd);
	return err == RS_ENOENT ? RS_OK : err;
}

/* The file of that name, as the last of the list. */
static struct file *
file_last(struct quota *q, const char *name)
{
	struct file f = { .off = 0 };
	size_t i;

	memcpy(f.name, name, sizeof f.name);
	for (i = 0; i < q->file_count && strcmp(q->files[i].name, name) != 0;
	    i++)
		continue;
	if (i < q->file_count)
		f = q->files[i];
	else if (q->file_count == FILES_MAX)
		i = 0;
	else
		q->file_count++;
	memmove(&q->files[i], &q->files[i + 1],
	    (q->file_count - 1 - i) * sizeof f);
	q->files[q->file_count - 1] = f;
	return &q->files[q->file_count - 1];
}

/* The name of the file that a line of that time is in. */
static void
file_name(int64_t ms, char ret[USAGE_DAY_SIZE])
{
	char iso[CLOCK_ISO_SIZE];

	clock_iso(ms, iso);
	snprintf(ret, USAGE_DAY_SIZE, "%.10s.jsonl", iso);
}

/* What was appended since. */
static enum rs_err
files_read_on(struct quota *q)
{
	char name[USAGE_DAY_SIZE];
	enum rs_err err = RS_OK;
	size_t i;

	file_name(q->now_ms, name);
	file_last(q, name);
	for (i = 0; i < q->file_count && err == RS_OK; i++)
		err = file_read(q, &q->files[i], false);
	return err;
}

/* ---- days ---- */

static bool
same_day(int64_t s, int64_t t)
{
	time_t a = (time_t)s, b = (time_t)t;
	struct tm x, y;

	localtime_r(&a, &x);
	localtime_r(&b, &y);
	return x.tm_year == y.tm_year && x.tm_yday == y.tm_yday;
}

/* The last second of the day of s in one direction (1 or -1).  Days have 23 to
 * 25 hours, and there need not be a midnight, hence by search. */
static int64_t
day_edge(int64_t s, int direction)
{
	int64_t in = 0, out = 26 * 3600, middle;

	while (out - in > 1) {
		middle = (in + out) / 2;
		if (same_day(s, s + direction * middle))
			in = middle;
		else
			out = middle;
	}
	return s + direction * in;
}

static void
day_begin(struct quota *q)
{
	struct start *s;
	struct account *a, *next;
	struct open *o;

	q->day_ms = day_edge(q->now_ms / 1000, -1) * 1000;
	q->day_end_ms = (day_edge(q->now_ms / 1000, 1) + 1) * 1000;
	q->since_ms = q->day_ms < q->now_ms - WINDOW_MS ? q->day_ms :
	    q->now_ms - WINDOW_MS;
	while ((s = STAILQ_FIRST(&q->starts)) != NULL) {
		STAILQ_REMOVE_HEAD(&q->starts, later);
		free(s);
	}
	q->all = (struct account){ .streams = q->all.streams };
	for (a = LIST_FIRST(&q->account_list); a != NULL; a = next) {
		next = LIST_NEXT(a, all);
		a->starts = 0;
		a->tokens = a->cost = (struct sum){ 0, 0 };
		if (a->streams == 0) {
			tdelete(a, &q->accounts, account_cmp);
			LIST_REMOVE(a, all);
			free(a);
		}
	}
	LIST_FOREACH(o, &q->open_list, all)
		open_count(q, o);
}

/* Counts today anew, from all files that have lines of it.  What is open stays
 * open: no clock tells more about that. */
static enum rs_err
day_fold(struct quota *q)
{
	char name[USAGE_DAY_SIZE], last[USAGE_DAY_SIZE];
	enum rs_err err = RS_OK;
	struct open *o, *next;
	struct file *f;
	int64_t ms;

	day_begin(q);
	file_name(q->now_ms, last);
	ms = q->since_ms;
	do {
		file_name(ms, name);
		f = file_last(q, name);
		f->off = 0;
		err = file_read(q, f, true);
		ms += 24 * 3600 * 1000;
	} while (err == RS_OK && strcmp(name, last) < 0);
	if (err != RS_OK) {
		q->day_end_ms = 0; /* so that it is done again */
		return err;
	}
	for (o = LIST_FIRST(&q->open_list); o != NULL; o = next) {
		next = LIST_NEXT(o, all);
		/* Its settle is where a clock that was wrong has put it. */
		if (!o->sure && q->recovered)
			open_free(q, o);
		else
			o->sure = true;
	}
	return RS_OK;
}

/* The clock was set back: what it has made starts of the future are ones of
 * now, which leave a minute from now. */
static void
starts_set_back(struct quota *q)
{
	struct start *s;

	STAILQ_FOREACH(s, &q->starts, later)
		if (s->ms > q->now_ms)
			s->ms = q->now_ms;
}

static void
starts_expire(struct quota *q)
{
	struct start *s;

	while ((s = STAILQ_FIRST(&q->starts)) != NULL &&
	    s->ms <= q->now_ms - WINDOW_MS) {
		STAILQ_REMOVE_HEAD(&q->starts, later);
		for (int i = 0; i < BYS; i++)
			s->by[i]->starts--;
		free(s);
	}
}

static enum rs_err
quota_update(struct quota *q)
{
	int64_t last_ms = q->now_ms;
	enum rs_err err = RS_OK;

	q->now_ms = clock_wall_ms();
	if (q->now_ms < last_ms)
		starts_set_back(q);
	if (q->day_end_ms != 0)
		err = files_read_on(q);
	if (err == RS_ERANGE || (err == RS_OK && !is_today(q, q->now_ms)))
		err = day_fold(q);
	if (err == RS_OK)
		starts_expire(q);
	return err;
}

/* ---- decisions ---- */

static const struct limit {
	const char *name;
	size_t off;		/* in struct conf */
	int by;
	enum what what;
	const char *text;
} limits[] = {
#define LIMIT(name, by, what, text) \
	{ #name, offsetof(struct conf, name), by, what, text }
	LIMIT(owner_max_streams, BY_OWNER, STREAMS, "As many of your answers "
	    "as may be are being written. Try again when one has ended."),
	LIMIT(owner_max_starts, BY_OWNER, STARTS, "You have started as many "
	    "answers as you may in a minute. Try again in a moment."),
	LIMIT(owner_max_tokens, BY_OWNER, TOKENS, "Your tokens for today do "
	    "not suffice for this answer. Try again tomorrow."),
	LIMIT(owner_max_cost, BY_OWNER, COST, "Your budget for today does "
	    "not suffice for this answer. Try again tomorrow."),
	LIMIT(address_max_streams, BY_ADDRESS, STREAMS, "As many answers as "
	    "may be are being written for your network. Try again when one "
	    "has ended."),
	LIMIT(address_max_starts, BY_ADDRESS, STARTS, "As many answers as "
	    "may be in a minute were started from your network. Try again in "
	    "a moment."),
	LIMIT(address_max_tokens, BY_ADDRESS, TOKENS, "The tokens of your "
	    "network for today do not suffice for this answer. Try again "
	    "tomorrow."),
	LIMIT(address_max_cost, BY_ADDRESS, COST, "The budget of your "
	    "network for today does not suffice for this answer. Try again "
	    "tomorrow."),
	LIMIT(max_cost_per_day, BY_ALL, COST, "The budget of this service "
	    "for today does not suffice for this answer. Try again "
	    "tomorrow."),
#undef LIMIT
};
#define LIMIT_COUNT (sizeof limits / sizeof limits[0])

static uint64_t
limit_value(const struct conf *c, const struct limit *l)
{
	return *(const uint64_t *)((const char *)c + l->off);
}

bool
quota_wanted(const struct conf *c)
{
	for (size_t i = 0; i < LIMIT_COUNT; i++)
		if (limit_value(c, &limits[i]) > 0)
			return true;
	return false;
}

bool
quota_reserves(const struct conf *c)
{
	for (size_t i = 0; i < LIMIT_COUNT; i++)
		if (limits[i].what >= TOKENS && limit_value(c, &limits[i]) > 0)
			return true;
	return false;
}

static uint32_t
seconds_until(const struct quota *q, int64_t ms)
{
	int64_t s = (ms - q->now_ms + 999) / 1000;

	return s < 1 ? 1 : (uint32_t)s;
}

/* When so many of a's starts have left the window that one more may be. */
static uint32_t
starts_retry_s(const struct quota *q, const struct limit *l,
    const struct account *a, uint64_t limit)
{
	uint64_t leave = a->starts - limit + 1;
	struct start *s;

	STAILQ_FOREACH(s, &q->starts, later)
		if (s->by[l->by] == a && --leave == 0)
			return seconds_until(q, s->ms + WINDOW_MS);
	return 1;
}

/* 0: the limit is not in the way. */
static uint32_t
limit_retry_s(const struct quota *q, const struct limit *l,
    const struct account *a, const struct usage_worst *w)
{
	uint64_t limit = limit_value(q->conf, l);

	if (limit == 0)
		return 0;
	switch (l->what) {
	case STREAMS:
		return a->streams >= limit ? BUSY_RETRY_S : 0;
	case STARTS:
		return a->starts >= limit ?
		    starts_retry_s(q, l, a, limit) : 0;
	case TOKENS:
		return sum_over(&a->tokens, w->tokens, limit) ?
		    seconds_until(q, q->day_end_ms) : 0;
	case COST:
		return sum_over(&a->cost, known_cost(w->cost), limit) ?
		    seconds_until(q, q->day_end_ms) : 0;
	}
	return 0;
}

enum rs_err
quota_check(struct quota *q, const char *owner_hash,
    const struct usage_worst *w, struct quota_refusal *ret)
{
	const struct account none = { .name = "" }, *by[BYS];
	struct quota_refusal why = { .retry_s = 0 };
	struct account **node;
	char name[NAME_SIZE];
	enum rs_err err;
	uint32_t retry_s;

	if ((err = quota_update(q)) != RS_OK)
		return err;
	account_name(name, 'o', owner_hash);
	node = tfind(name, &q->accounts, account_cmp);
	by[BY_OWNER] = node != NULL ? *node : &none;
	account_name(name, 'a', w->address);
	node = tfind(name, &q->accounts, account_cmp);
	by[BY_ADDRESS] = node != NULL ? *node : &none;
	by[BY_ALL] = &q->all;
	/* Of several that are in the way, the one that is so for longest. */
	for (size_t i = 0; i < LIMIT_COUNT; i++) {
		retry_s = limit_retry_s(q, &limits[i], by[limits[i].by], w);
		if (retry_s > why.retry_s)
			why = (struct quota_refusal){
				.limit = limits[i].name,
				.text = limits[i].text, .retry_s = retry_s,
			};
	}
	if (why.retry_s == 0)
		return RS_OK;
	*ret = why;
	return RS_EBUSY;
}

/* ---- coming and going ---- */

enum rs_err
quota_new(const struct conf *c, struct spool *sp, struct quota **ret)
{
	struct quota *q = calloc(1, sizeof *q);

	if (q == NULL)
		return RS_ENOMEM;
	q->conf = c;
	q->sp = sp;
	LIST_INIT(&q->account_list);
	LIST_INIT(&q->open_list);
	STAILQ_INIT(&q->starts);
	*ret = q;
	return RS_OK;
}

enum rs_err
quota_recovered(struct quota *q, const struct usage_generation *open)
{
	enum rs_err err;

	for (; open != NULL; open = open->next)
		if ((err = open_new(q, open, true)) != RS_OK)
			return err;
	q->recovered = true;
	return RS_OK;
}

void
quota_free(struct quota *q)
{
	struct account *a;
	struct start *s;
	struct open *o;

	if (q == NULL)
		return;
	while ((o = LIST_FIRST(&q->open_list)) != NULL)
		open_free(q, o);
	while ((s = STAILQ_FIRST(&q->starts)) != NULL) {
		STAILQ_REMOVE_HEAD(&q->starts, later);
		free(s);
	}
	while ((a = LIST_FIRST(&q->account_list)) != NULL) {
		tdelete(a, &q->accounts, account_cmp);
		LIST_REMOVE(a, all);
		free(a);
	}
	free(q);
}
