/* metrics.c - the counters' file, its slots, and counting. */
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "fdio.h"
#include "log.h"
#include "metrics.h"
#include "money.h"
#include "text.h"

#define SLOTS 320		/* processes at once, and the common one */
#define TRIES 16		/* to find a free one */
#define STRIDE 61		/* no divisor of SLOTS - 1 */
#define OPEN_TRIES 3
#define SPARE 4			/* times the file's size must be free */
#define AGAIN_NS (10 * NS_PER_S)
#define MAGIC "respool metrics"

typedef _Atomic uint64_t cell;

enum { ROW_FREE, ROW_TAKEN, ROW_NAMED };

struct row {
	_Atomic uint32_t state;
	char name[MODEL_NAME_MAX + 1];
	cell tokens[KINDS], cost;
};

struct slot {
	_Alignas(64) cell cells[METRIC_COUNT];
};

struct head {
	char magic[sizeof MAGIC];
	uint64_t layout, size;
};

struct map {
	struct head head;
	cell facts[FACT_COUNT];
	struct row models[METRICS_MODELS]; /* the first: METRICS_OTHER */
	struct slot slots[SLOTS];
};

/* Whatever a change of changes what a cell means. */
static const char layout_text[] =
#define METRIC(name, kind, label, text) #name " " #kind " " #label "\n"
#define FACT(name, text) #name "\n"
#define OTHER(name, kind, text)
#include "metrics_table.h"
#undef METRIC
#undef FACT
#undef OTHER
#define ERRTYPE(name, status, retryable, text) #name "\n"
#include "errtype_table.h"
#undef ERRTYPE
#define X(ns, text) text " "
	METRICS_BUCKETS(X)
#undef X
#define X(code) #code " "
	METRICS_CODES(X)
#undef X
	;

static const bool is_gauge[METRIC_COUNT] = {
#define GAUGE_counter false
#define GAUGE_gauge true
#define GAUGE_histogram false
#define METRIC(name, kind, label, text) [METRIC_##name] = GAUGE_##kind,
#define FACT(name, text)
#define OTHER(name, kind, text)
#include "metrics_table.h"
#undef METRIC
#undef FACT
#undef OTHER
};

/* Where this process counts.  The file, once it was mapped, or what took its
 * place then, stays at one address: any thread may be about to count there. */
static struct map own;
static _Atomic(struct map *) map = &own;
static _Atomic(struct slot *) mine = &own.slots[0];
static atomic_bool shared;	/* *map is the file */
static _Atomic(struct map *) coming; /* NULL, or what is to be *map */
static atomic_uint losses;	/* of pages of either */

static const struct spool *spool;
static bool may_replace;
static _Atomic int file = -1;	/* holds the slot's lock */
static struct stat file_st;
static uint64_t looked_ns;
static pthread_mutex_t again_mutex = PTHREAD_MUTEX_INITIALIZER;

/* ---- counting ---- */

static void
cell_add(cell *c, uint64_t n)
{
	atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

static uint64_t
cell_get(const cell *c)
{
	return atomic_load_explicit(c, memory_order_relaxed);
}

static void
cell_set(cell *c, uint64_t n)
{
	atomic_store_explicit(c, n, memory_order_relaxed);
}

void
metrics_add(unsigned c, uint64_t n)
{
	cell_add(&atomic_load_explicit(&mine, memory_order_relaxed)->cells[c],
	    n);
}

void
metrics_gauge(unsigned c, int64_t change)
{
	metrics_add(c, (uint64_t)change);
}

void
metrics_observe(unsigned histogram, uint64_t ns)
{
	static const uint64_t bounds[] = {
#define X(bound, text) bound,
		METRICS_BUCKETS(X)
#undef X
	};
	unsigned i;

	for (i = 0; i < METRICS_BUCKET_COUNT && ns > bounds[i]; i++)
		continue;
	metrics_add(histogram + i, 1);
	metrics_add(histogram + METRICS_BUCKET_COUNT + 1, ns);
}

unsigned
metrics_code(int status)
{
	static const int codes[] = {
#define X(code) code,
		METRICS_CODES(X)
#undef X
	};
	unsigned i;

	for (i = 0; i < METRICS_CODE_COUNT && codes[i] != status; i++)
		continue;
	return METRIC_http_responses_total + i;
}

void
metrics_fact(enum metrics_fact fact, uint64_t value)
{
	cell_set(&atomic_load(&map)->facts[fact], value);
}

/* The model's row.  Two that look for a new one at once may come to have a
 * row each; who reads adds them up. */
static struct row *
row_find(struct map *m, const char *name)
{
	uint32_t state;
	struct row *r;

	for (r = &m->models[1]; r < &m->models[METRICS_MODELS]; r++) {
		state = ROW_FREE;
		if (atomic_compare_exchange_strong(&r->state, &state,
		    ROW_TAKEN)) {
			snprintf(r->name, sizeof r->name, "%s", name);
			atomic_store(&r->state, ROW_NAMED);
			return r;
		}
		if (state == ROW_NAMED &&
		    strncmp(r->name, name, sizeof r->name) == 0)
			return r;
	}
	return &m->models[0];
}

void
metrics_model(const char *model, const struct usage *u, uint64_t cost)
{
	const uint64_t tokens[KINDS] = {
		[KIND_input] = u->input, [KIND_output] = u->output,
		[KIND_cache_read] = u->cache_read,
		[KIND_cache_write] = u->cache_write,
	};
	struct row *r = row_find(atomic_load(&map), model);
	int i;

	for (i = 0; i < KINDS; i++)
		if (tokens[i] != TOKENS_UNKNOWN)
			cell_add(&r->tokens[i], tokens[i]);
	if (cost != MONEY_UNKNOWN)
		cell_add(&r->cost, cost);
}

/* ---- the file ---- */

static uint64_t
layout(void)
{
	uint64_t h = UINT64_C(14695981039346656037);
	const char *p;

	for (p = layout_text; *p != '\0'; p++)
		h = (h ^ (unsigned char)*p) * UINT64_C(1099511628211);
	return h;
}

static struct head
file_head(void)
{
	struct head h = { .layout = layout(), .size = sizeof(struct map) };

	memcpy(h.magic, MAGIC, sizeof h.magic);
	return h;
}

/* A page that cannot be had is a signal, and not an error that could be
 * handled where it happens: so all of its space is taken beforehand. */
static enum rs_err
file_fill(const struct spool *sp, int fd)
{
	struct head head = file_head();
	int err;

	if (sp->group && (fchmod(fd, 0660) < 0 ||
	    (getegid() != sp->gid && fchown(fd, (uid_t)-1, sp->gid) < 0)))
		return rs_from_errno(errno);
	do
		err = posix_fallocate(fd, 0, sizeof(struct map));
	while (err == EINTR);
	return err != 0 ? rs_from_errno(err) :
	    fd_pwrite_full(fd, &head, sizeof head, 0);
}

/* Makes a whole one and gives it its name; over: also where there is one. */
static enum rs_err
file_create(const struct spool *sp, bool over)
{
	char tmp[sizeof METRICS_TMP + 16] = METRICS_TMP;
	struct statvfs fs;
	enum rs_err err;
	int fd, rc;

	/* Not the last space that there is: answers have more need of it, and
	 * would be cut short while we find out that it is not enough. */
	if (fstatvfs(sp->fd, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize <
	    SPARE * sizeof(struct map))
		return RS_ENOSPC;
	random_hex(tmp + sizeof METRICS_TMP - 1, 8);
	fd = openat(sp->fd, tmp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW |
	    O_CLOEXEC, 0600);
	if (fd < 0)
		return rs_from_errno(errno);
	err = file_fill(sp, fd);
	close(fd);
	if (err == RS_OK) {
		rc = over ? renameat(sp->fd, tmp, sp->fd, METRICS_FILE) :
		    linkat(sp->fd, tmp, sp->fd, METRICS_FILE, 0);
		if (rc < 0)
			err = rs_from_errno(errno);
	}
	unlinkat(sp->fd, tmp, 0);
	return err;
}

/* RS_OK: it is of this layout, and all of its space is there; RS_ECORRUPT,
 * RS_ENOSPC, RS_EIO. */
static enum rs_err
file_check(const struct spool *sp, int fd, struct stat *st)
{
	struct head head, want = file_head();
	size_t n;

	if (fstat(fd, st) < 0)
		return RS_EIO;
	if (st->st_uid != sp->uid || st->st_size != (off_t)sizeof(struct map) ||
	    fd_pread_full(fd, &head, sizeof head, 0, &n) != RS_OK ||
	    n != sizeof head || memcmp(&head, &want, sizeof head) != 0)
		return RS_ECORRUPT;
	/* One that was copied may have holes. */
	if (st->st_blocks * 512 < st->st_size &&
	    fallocate(fd, 0, 0, st->st_size) < 0 &&
	    (errno == ENOSPC || errno == EDQUOT))
		return RS_ENOSPC;
	return RS_OK;
}

static enum rs_err
file_open(const struct spool *sp, int *ret_fd, struct stat *ret_st)
{
	enum rs_err err;
	int fd, i;

	for (i = 0; i < OPEN_TRIES; i++) {
		fd = openat(sp->fd, METRICS_FILE, O_RDWR | O_NOFOLLOW |
		    O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			err = errno == ELOOP ? RS_ECORRUPT :
			    rs_from_errno(errno);
		else
			err = file_check(sp, fd, ret_st);
		if (err == RS_OK) {
			*ret_fd = fd;
			return RS_OK;
		}
		if (fd >= 0)
			close(fd);
		if (geteuid() != sp->uid || (err != RS_ENOENT &&
		    (err != RS_ECORRUPT || !may_replace)))
			return err;
		err = file_create(sp, err == RS_ECORRUPT);
		/* Another one was first, or took our half for what a crash
		 * has left. */
		if (err != RS_OK && err != RS_EEXIST && err != RS_ENOENT)
			return err;
	}
	return RS_EBUSY;
}

/* ---- slots ---- */

static struct flock
slot_range(size_t i)
{
	return (struct flock){
		.l_type = F_WRLCK, .l_whence = SEEK_SET,
		.l_start = (off_t)(offsetof(struct map, slots) +
		    i * sizeof(struct slot)),
		.l_len = sizeof(struct slot),
	};
}

/* By another process than this one. */
static bool
slot_held(size_t i)
{
	struct flock l = slot_range(i);

	return fcntl(file, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

/* Begins where no other process of now does, so that the first try is good:
 * a CGI program has no time for more. */
static struct slot *
slot_claim(struct map *m, int fd)
{
	unsigned begin = (unsigned)getpid(), i, c, n;
	struct flock l;

	for (i = 0; i < TRIES; i++) {
		n = 1 + (begin + i * STRIDE) % (SLOTS - 1);
		l = slot_range(n);
		if (fcntl(fd, F_OFD_SETLK, &l) < 0)
			continue;
		for (c = 0; c < METRIC_COUNT; c++)
			if (is_gauge[c])
				cell_set(&m->slots[n].cells[c], 0);
		return &m->slots[n];
	}
	return &m->slots[0];
}

/* ---- from one place to another ---- */

static void
cell_move(cell *from, cell *to)
{
	uint64_t n = cell_get(from);

	if (n == 0)
		return; /* and no page is written to */
	cell_set(from, 0);
	cell_add(to, n);
}

/* What a file has is its own, but for gauges. */
static void
move_to(struct map *m, struct slot *s)
{
	bool alone = !shared;
	struct map *from = map;
	struct row *to;
	int i, k;

	for (i = 0; i < METRIC_COUNT; i++)
		if (is_gauge[i] || alone)
			cell_move(&mine->cells[i], &s->cells[i]);
	for (i = 0; i < METRICS_MODELS && alone; i++) {
		if (i > 0 && from->models[i].state != ROW_NAMED)
			continue;
		to = i == 0 ? &m->models[0] :
		    row_find(m, from->models[i].name);
		for (k = 0; k < KINDS; k++)
			cell_move(&from->models[i].tokens[k], &to->tokens[k]);
		cell_move(&from->models[i].cost, &to->cost);
	}
}

/* Puts m, with the slot s of its own, in the place of what was mapped before.
 * RS_OK, RS_ENOMEM. */
static enum rs_err
map_enter(struct map *m, struct slot *s)
{
	struct map *there = map;

	if (there != &own) {
		if (mremap(m, sizeof *m, sizeof *m,
		    MREMAP_MAYMOVE | MREMAP_FIXED, there) == MAP_FAILED)
			return RS_ENOMEM;
		s = &there->slots[s - m->slots];
		m = there;
	}
	mine = s;
	map = m;
	return RS_OK;
}

static enum rs_err
file_enter(const struct spool *sp)
{
	unsigned before = losses;
	struct slot *s;
	struct stat st = { 0 };
	struct map *m;
	enum rs_err err;
	int fd = -1;

	if ((err = file_open(sp, &fd, &st)) != RS_OK)
		return err;
	m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED) {
		close(fd);
		return RS_ENOMEM;
	}
	coming = m;
	s = slot_claim(m, fd);
	move_to(m, s);
	if ((err = map_enter(m, s)) == RS_OK) {
		shared = true;
		if (losses != before)
			shared = false;
		fd = atomic_exchange(&file, fd);
		file_st = st;
	} else {
		munmap(m, sizeof *m);
	}
	coming = NULL;
	if (fd >= 0)
		close(fd);
	return err;
}

static bool
map_lose(struct map *m, const char *at)
{
	return m != NULL && m != &own && at >= (const char *)m &&
	    at < (const char *)(m + 1) &&
	    mmap(m, sizeof *m, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
}

/* A page of the file is not to be had: cut by somebody, a bad disk, or a file
 * system that wants new space for each write.  Memory of our own takes its
 * place. */
static void
on_bus_error(int sig, siginfo_t *si, void *context)
{
	int saved = errno;

	(void)context;
	losses++;
	if (map_lose(map, si->si_addr) || map_lose(coming, si->si_addr)) {
		shared = false;
		errno = saved;
		return;
	}
	signal(sig, SIG_DFL);
	raise(sig);
}

enum rs_err
metrics_open(const struct spool *sp, bool mutator)
{
	struct sigaction sa = {
		.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO,
	};

	sigemptyset(&sa.sa_mask);
	sigaction(SIGBUS, &sa, NULL);
	signal(SIGXFSZ, SIG_IGN); /* a file size limit is a full disk */
	spool = sp;
	may_replace = mutator;
	looked_ns = clock_mono_ns();
	return file_enter(sp);
}

/* The name is still this file's. */
static bool
file_named(void)
{
	struct stat st;

	return fstatat(spool->fd, METRICS_FILE, &st, AT_SYMLINK_NOFOLLOW) ==
	    0 && st.st_dev == file_st.st_dev && st.st_ino == file_st.st_ino;
}

void
metrics_again(void)
{
	uint64_t now = clock_mono_ns();

	if (pthread_mutex_trylock(&again_mutex) != 0)
		return; /* another one is at it */
	if (spool != NULL && now - looked_ns >= AGAIN_NS) {
		looked_ns = now;
		if (!shared || !file_named())
			(void)file_enter(spool);
	}
	pthread_mutex_unlock(&again_mutex);
}

void
metrics_close(void)
{
	struct map *m = map;

	spool = NULL;
	shared = false;
	mine = &own.slots[0];
	map = &own;
	if (m != &own)
		munmap(m, sizeof *m);
	if (file >= 0)
		close(file);
	file = -1;
}

/* ---- reading ---- */

static void
slot_sum(const struct map *m, size_t i, struct metrics_sums *ret)
{
	const struct slot *s = &m->slots[i];
	bool live = s == mine && (i > 0 || !ret->shared);
	bool known = live || i == 0 || !ret->shared;
	uint64_t n;
	unsigned c;

	for (c = 0; c < METRIC_COUNT; c++) {
		if ((n = cell_get(&s->cells[c])) == 0)
			continue;
		if (is_gauge[c] && !known) {
			live = slot_held(i);
			known = true;
		}
		if (!is_gauge[c] || live)
			ret->cells[c] += n;
	}
}

static void
row_sum(const struct row *r, const char *name, struct metrics_sums *ret)
{
	struct metrics_model *to = ret->models;
	int k;

	while (to < &ret->models[ret->model_count] &&
	    strcmp(to->name, name) != 0)
		to++;
	if (to == &ret->models[ret->model_count]) {
		snprintf(to->name, sizeof to->name, "%s", name);
		ret->model_count++;
	}
	for (k = 0; k < KINDS; k++)
		to->tokens[k] += cell_get(&r->tokens[k]);
	to->cost += cell_get(&r->cost);
}

void
metrics_sum(struct metrics_sums *ret)
{
	const struct map *m = map;
	char name[MODEL_NAME_MAX + 1];
	size_t i;

	memset(ret, 0, sizeof *ret);
	ret->shared = shared;
	for (i = 0; i < SLOTS; i++)
		slot_sum(m, i, ret);
	for (i = 0; i < METRIC_COUNT; i++)
		if (is_gauge[i] && (int64_t)ret->cells[i] < 0)
			ret->cells[i] = 0;
	for (i = 0; i < FACT_COUNT; i++)
		ret->facts[i] = cell_get(&m->facts[i]);
	for (i = 1; i < METRICS_MODELS; i++) {
		if (atomic_load(&m->models[i].state) != ROW_NAMED)
			continue;
		snprintf(name, sizeof name, "%.*s", MODEL_NAME_MAX,
		    m->models[i].name);
		row_sum(&m->models[i], name, ret);
	}
	row_sum(&m->models[0], METRICS_OTHER, ret);
}
