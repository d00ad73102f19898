/* ctl_stream.c - respoolctl list, show, tail, stop. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "ctl.h"
#include "fdio.h"
#include "fold.h"
#include "sse.h"

/* ---- which stream is meant ---- */

struct search {
	const char *id;
	struct stream_key found;
	unsigned count;
};

static bool
search_fn(const struct stream_key *k, int64_t mtime_ms, void *arg)
{
	struct search *s = arg;

	(void)mtime_ms;
	if (strcmp(k->id, s->id) != 0)
		return true;
	if (++s->count == 2)
		fprintf(stderr, "respoolctl: %s of owner hash %s\n",
		    s->found.id, s->found.owner_hash);
	if (s->count > 1)
		fprintf(stderr, "respoolctl: %s of owner hash %s\n", k->id,
		    k->owner_hash);
	s->found = *k;
	return true;
}

/* Opens the stream that an argument names.  False: said why not. */
static bool
stream_open(struct ctl *ctl, const char *id, struct stream_key *ret_key,
    struct spool_reader *ret)
{
	struct search s = { .id = id };
	enum rs_err err;

	if (!spool_id_valid(id, strlen(id))) {
		ctl_fail(id, "not a stream id");
		return false;
	}
	if (ctl->owner != NULL) {
		stream_key(&s.found, ctl->owner, id);
	} else {
		err = spool_each(ctl->sp, NULL, search_fn, &s);
		if (err == RS_OK && s.count > 1) {
			ctl_fail(id, "several owners have it; say which "
			    "with -u");
			return false;
		}
		if (err == RS_OK && s.count == 0)
			err = RS_ENOENT;
		if (err != RS_OK) {
			ctl_fail(id, rs_strerror(err));
			return false;
		}
	}
	if ((err = spool_find(ctl->sp, &s.found, ret)) != RS_OK) {
		ctl_fail(id, rs_strerror(err));
		return false;
	}
	*ret_key = s.found;
	return true;
}

/* ---- list ---- */

struct row {
	struct stream_key key;
	int64_t created_ms;
	char line[320];
};

struct rows {
	struct ctl *ctl;
	struct row *all;
	size_t count, cap;
	bool failed;
};

static const char *
row_state(const struct spool_reader *r, struct stream_tail *tail)
{
	enum rs_err err = spool_tail(r, tail);

	if (err != RS_OK)
		return "damaged";
	return tail->ended ? "ended" : "open";
}

static bool
row_add(const struct stream_key *k, int64_t mtime_ms, void *arg)
{
	struct rows *rows = arg;
	struct stream_tail tail = { 0 };
	struct spool_reader r;
	char iso[CLOCK_ISO_SIZE];
	const char *state;
	struct row *row;

	(void)mtime_ms;
	if (spool_find(rows->ctl->sp, k, &r) != RS_OK)
		return true; /* gone since, or without a head: see check */
	if (rows->count == rows->cap) {
		rows->cap = rows->cap == 0 ? 64 : 2 * rows->cap;
		row = realloc(rows->all, rows->cap * sizeof *row);
		if (row == NULL) {
			rows->failed = true;
			spool_reader_done(&r);
			return false;
		}
		rows->all = row;
	}
	row = &rows->all[rows->count++];
	row->key = *k;
	row->created_ms = r.head.created_ms;
	state = row_state(&r, &tail);
	clock_iso(row->created_ms, iso);
	snprintf(row->line, sizeof row->line, "%s %s %-7s %7llu %9llu %s %s",
	    iso, k->owner_hash, state, (unsigned long long)tail.count,
	    (unsigned long long)tail.end, k->id, r.head.model);
	spool_reader_done(&r);
	return true;
}

static int
row_cmp(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	return (x->created_ms < y->created_ms) -
	    (x->created_ms > y->created_ms);
}

int
ctl_list(struct ctl *ctl, int argc, char **argv)
{
	struct rows rows = { .ctl = ctl };
	struct stream_key k;
	enum rs_err err;
	size_t i;

	(void)argc;
	(void)argv;
	if (ctl->owner != NULL)
		stream_key(&k, ctl->owner, "any");
	err = spool_each(ctl->sp, ctl->owner != NULL ? k.owner_hash : NULL,
	    row_add, &rows);
	if (rows.failed)
		err = RS_ENOMEM;
	if (rows.count > 0)
		qsort(rows.all, rows.count, sizeof *rows.all, row_cmp);
	printf("%-24s %-16s %-7s %7s %9s %s\n", "CREATED", "OWNER", "STATE",
	    "FRAMES", "BYTES", "ID MODEL");
	for (i = 0; i < rows.count; i++)
		puts(rows.all[i].line);
	free(rows.all);
	return err == RS_OK ? EXIT_SUCCESS :
	    ctl_fail("list", rs_strerror(err));
}

/* ---- show ---- */

int
ctl_show(struct ctl *ctl, int argc, char **argv)
{
	struct stream_key k;
	struct spool_reader r;
	struct stream_tail tail;
	struct fold *fold = NULL;
	struct buf b;
	enum rs_err err;

	(void)argc;
	if (!stream_open(ctl, argv[0], &k, &r))
		return CTL_FAULT;
	buf_init(&b, 8 * ctl->conf->max_stream_bytes);
	if ((err = fold_new(ctl->conf->max_stream_bytes, &fold)) == RS_OK &&
	    (err = spool_scan(&r, fold, &tail)) == RS_OK) {
		fold_put(fold, k.id, r.head.model, &b);
		if ((err = b.err) == RS_OK)
			puts(b.data);
	}
	fold_free(fold);
	buf_done(&b);
	spool_reader_done(&r);
	return err == RS_OK ? EXIT_SUCCESS :
	    ctl_fail(argv[0], rs_strerror(err));
}

/* ---- tail ---- */

/* Prints the whole frames from *off on.  True: the terminal one was among
 * them. */
static bool
print_frames(const struct spool_reader *r, uint64_t *off)
{
	char bytes[2 * SSE_FRAME_MAX];
	struct sse_frame f;
	size_t n, at;
	bool ended = false;

	do {
		if (fd_pread_full(r->fd, bytes, sizeof bytes, (off_t)*off,
		    &n) != RS_OK)
			return false;
		for (at = 0; !ended && sse_frame_scan(bytes + at, n - at,
		    &f) == SSE_FRAME; at += f.size)
			ended = f.terminal;
		fwrite(bytes, 1, at, stdout);
		*off += at;
	} while (at > 0 && !ended);
	fflush(stdout);
	return ended;
}

/* Waits until the spooler says that the stream has moved; false: it does not
 * write it any more. */
static bool
wait_moved(int fd, uint64_t seen)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	union wake_msg msg;
	enum rs_err err;
	size_t len;
	int passed;

	for (;;) {
		err = wake_recv(fd, &msg, &len, &passed);
		if (err == RS_OK && passed >= 0)
			close(passed);
		if (err == RS_EBUSY)
			poll(&pfd, 1, -1);
		else if (err != RS_OK)
			return false;
		else if (msg.head.op == WAKE_NOTIFY &&
		    (msg.notify.moved[0].state != WAKE_LIVE ||
		    msg.notify.moved[0].end > seen))
			return msg.notify.moved[0].state == WAKE_LIVE;
	}
}

static int
subscribe(const struct spool_reader *r, const struct stream_key *k)
{
	struct wake_hello hello = {
		.head.op = WAKE_HELLO, .version = WAKE_VERSION,
	};
	struct wake_sub sub = {
		.head.op = WAKE_SUBSCRIBE, .sub = 1, .key = *k,
	};
	int fd;

	if (wake_connect(r->head.socket, &fd) != RS_OK)
		return -1;
	if (wake_send(fd, &hello, sizeof hello, -1) != RS_OK ||
	    wake_send(fd, &sub, sizeof sub, -1) != RS_OK) {
		close(fd);
		return -1;
	}
	return fd;
}

int
ctl_tail(struct ctl *ctl, int argc, char **argv)
{
	struct stream_key k;
	struct spool_reader r;
	uint64_t off;
	bool live = true, ended;
	int fd, status = EXIT_SUCCESS;

	(void)argc;
	if (!stream_open(ctl, argv[0], &k, &r))
		return CTL_FAULT;
	off = r.head_size;
	fd = subscribe(&r, &k);
	while (!(ended = print_frames(&r, &off)) && live)
		live = fd >= 0 && wait_moved(fd, off);
	if (!ended && wake_alive(ctl->wake, &k, &r.head) != RS_OK)
		ended = ctl_seal(ctl, &k) == RS_OK && print_frames(&r, &off);
	if (!ended)
		status = ctl_fail(argv[0], "its writer does not answer");
	if (fd >= 0)
		close(fd);
	spool_reader_done(&r);
	return status;
}

/* ---- stop ---- */

/* Asks the stream's own writer, which may be a draining one. */
static enum rs_err
stop(struct ctl *ctl, const struct stream_key *k, const struct spool_reader *r)
{
	struct wake_reply reply;
	enum rs_err err = wake_stop(ctl->wake, k, &r->head, &reply);

	if (err == RS_OK)
		err = reply.err;
	if (err == RS_ECLOSED || err == RS_ENOENT)
		err = ctl_seal(ctl, k); /* nothing, when it has ended */
	return err;
}

struct stopping {
	struct ctl *ctl;
	unsigned long stopped, failed;
};

static bool
stop_fn(const struct stream_key *k, int64_t mtime_ms, void *arg)
{
	struct stopping *s = arg;
	struct stream_tail tail;
	struct spool_reader r;
	enum rs_err err;

	(void)mtime_ms;
	if (spool_find(s->ctl->sp, k, &r) != RS_OK)
		return true;
	if (spool_tail(&r, &tail) != RS_OK || !tail.ended) {
		if ((err = stop(s->ctl, k, &r)) == RS_OK) {
			s->stopped++;
		} else {
			s->failed++;
			ctl_fail(k->id, rs_strerror(err));
		}
	}
	spool_reader_done(&r);
	return true;
}

static int
stop_all(struct ctl *ctl)
{
	struct stopping s = { .ctl = ctl };
	struct stream_key k;
	enum rs_err err;

	if (ctl->owner != NULL)
		stream_key(&k, ctl->owner, "any");
	err = spool_each(ctl->sp, ctl->owner != NULL ? k.owner_hash : NULL,
	    stop_fn, &s);
	printf("%lu stopped\n", s.stopped);
	if (err != RS_OK)
		return ctl_fail("stop", rs_strerror(err));
	return s.failed == 0 ? EXIT_SUCCESS : CTL_FAULT;
}

int
ctl_stop(struct ctl *ctl, int argc, char **argv)
{
	struct stream_key k;
	struct spool_reader r;
	enum rs_err err;

	(void)argc;
	if (strcmp(argv[0], "--all") == 0)
		return stop_all(ctl);
	if (!stream_open(ctl, argv[0], &k, &r))
		return CTL_FAULT;
	err = stop(ctl, &k, &r);
	spool_reader_done(&r);
	if (err != RS_OK)
		return ctl_fail(argv[0], rs_strerror(err));
	return ctl_show(ctl, 1, argv);
}
