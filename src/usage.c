/* usage.c - what was bought: written line by line, and made up for after a
 * crash. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "fdio.h"
#include "jx.h"
#include "money.h"
#include "spool_impl.h"
#include "usage.h"

/* Longer lines are neither written nor believed. */
#define LINE_MAX_BYTES (1 << 20)
#define DAY_SIZE sizeof "YYYY-MM-DD.jsonl"

/* ---- writing ---- */

/* Appends to today's file with one write.  What a full disk lets in of it
 * stays: it may be followed by another process's line already. */
static enum rs_err
usage_append(const struct spool *sp, struct buf *line)
{
	char day[CLOCK_ISO_SIZE + sizeof ".jsonl"], last = '\n';
	struct stat st;
	enum rs_err err;
	const char *p = line->data;
	size_t len = line->len;
	ssize_t n;
	int dir, fd;

	if (line->err != RS_OK)
		return line->err;
	clock_iso(clock_wall_ms(), day);
	strcpy(day + strlen("YYYY-MM-DD"), ".jsonl");
	err = spool_dir_open(sp, sp->fd, "usage", true, &dir);
	if (err != RS_OK)
		return err;
	err = spool_file_open(sp, dir, day, O_RDWR | O_CREAT | O_APPEND, &fd,
	    &st);
	close(dir);
	if (err != RS_OK)
		return err;
	/* The line begins with a line end, for one that was cut short. */
	if (st.st_size == 0 || (pread(fd, &last, 1, st.st_size - 1) == 1 &&
	    last == '\n')) {
		p++;
		len--;
	}
	do
		n = write(fd, p, len);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		err = rs_from_errno(errno);
	else if ((size_t)n < len)
		err = RS_ENOSPC;
	close(fd);
	return err;
}

static void
usage_begin(struct buf *b, const char *type)
{
	char now[CLOCK_ISO_SIZE];

	buf_init(b, LINE_MAX_BYTES);
	clock_iso(clock_wall_ms(), now);
	buf_printf(b, "\n{\"type\":\"%s\",\"time\":\"%s\"", type, now);
}

/* The members that name a generation. */
static void
usage_put_generation(struct buf *b, const char *owner_hash, const char *id,
    int64_t created_ms, const char *model)
{
	buf_printf(b, "\"owner\":\"%s\",\"stream_id\":\"%s\",\"created\":%"
	    PRId64 ",\"model\":", owner_hash, id, created_ms);
	jx_put_str(b, model, strlen(model));
}

enum rs_err
usage_reserve(struct spool *sp, const struct stream_key *k,
    const struct stream_head *h)
{
	struct buf b;
	enum rs_err err;

	usage_begin(&b, "reserve");
	buf_puts(&b, ",");
	usage_put_generation(&b, k->owner_hash, k->id, h->created_ms,
	    h->model);
	buf_puts(&b, "}\n");
	err = usage_append(sp, &b);
	buf_done(&b);
	return err;
}

enum rs_err
usage_settle(struct spool *sp, const struct stream_key *k,
    const struct stream_head *h, const struct ending *e)
{
	bool failed = e->error != ERRTYPE_none;
	struct buf b;
	enum rs_err err;

	usage_begin(&b, "settle");
	buf_puts(&b, ",");
	usage_put_generation(&b, k->owner_hash, k->id, h->created_ms,
	    e->model != NULL ? e->model : h->model);
	buf_puts(&b, ",\"usage\":");
	usage_put(&b, &e->usage);
	buf_puts(&b, ",\"total_cost\":");
	money_put(&b, e->cost);
	buf_printf(&b, ",\"estimated\":%s", e->estimated ? "true" : "false");
	if (failed)
		buf_printf(&b, ",\"error_type\":\"%s\"",
		    errtype_info(e->error)->name);
	else
		buf_printf(&b, ",\"finish_reason\":\"%s\"",
		    finish_name(e->finish));
	if (failed || e->finish == FINISH_STOPPED)
		buf_puts(&b, ",\"partial\":true");
	buf_puts(&b, "}\n");
	err = usage_append(sp, &b);
	buf_done(&b);
	return err;
}

/* ---- reading, line by line ---- */

struct lines {
	int fd;
	uint64_t off;		/* of the line that comes next */
	uint64_t read;		/* bytes of the file that chunk went up to */
	size_t pos, n;		/* what is left of chunk */
	struct buf line;
	char chunk[16384];
};

static void
lines_init(struct lines *l, int fd, uint64_t off)
{
	l->fd = fd;
	l->off = l->read = off;
	l->pos = l->n = 0;
	buf_init(&l->line, LINE_MAX_BYTES);
}

/* The next line, in l->line, and where it begins; the last one may lack its
 * end.  One that is too long comes as an empty one.  RS_ENOENT: no more. */
static enum rs_err
lines_next(struct lines *l, uint64_t *ret_off)
{
	const char *nl = NULL;
	uint64_t begin = l->off;
	enum rs_err err;

	buf_clear(&l->line);
	while (nl == NULL) {
		const char *p;
		size_t len;

		if (l->pos == l->n) {
			err = fd_pread_full(l->fd, l->chunk, sizeof l->chunk,
			    (off_t)l->read, &l->n);
			if (err != RS_OK)
				return err;
			l->read += l->n;
			l->pos = 0;
			if (l->n == 0)
				break;
		}
		p = l->chunk + l->pos;
		nl = memchr(p, '\n', l->n - l->pos);
		len = nl != NULL ? (size_t)(nl - p) : l->n - l->pos;
		buf_add(&l->line, p, len);
		l->pos += len + (nl != NULL);
		l->off += len + (nl != NULL);
	}
	if (l->off == begin)
		return RS_ENOENT;
	if (l->line.err == RS_ENOMEM)
		return RS_ENOMEM;
	if (l->line.err == RS_ETOOBIG)
		buf_clear(&l->line);
	*ret_off = begin;
	return RS_OK;
}

/* ---- which generations are not settled ---- */

struct generation {
	struct stream_key key;
	int64_t created_ms;
	char model[MODEL_NAME_MAX + 1];
	struct generation *next; /* of those that stay open */
};

struct recovery {
	struct spool *sp;
	void *unsettled;	/* tsearch(3): struct generation */
	struct generation *open;
	size_t open_count, sealed_count;
	bool news;		/* there is more than a recovered line */
};

static int
generation_cmp(const void *pa, const void *pb)
{
	const struct generation *a = pa, *b = pb;

	if (a->created_ms != b->created_ms)
		return a->created_ms < b->created_ms ? -1 : 1;
	return stream_key_cmp(&a->key, &b->key);
}

static bool
generation_parse(struct json_object *o, struct generation *ret)
{
	struct generation g = { .next = NULL };
	const char *owner, *id, *model;
	size_t owner_len, id_len, model_len;
	uint64_t created;
	char name[SPOOL_NAME_SIZE];

	if (!json_object_is_type(o, json_type_object) ||
	    jx_get_str(o, "owner", &owner, &owner_len) != RS_OK ||
	    jx_get_str(o, "stream_id", &id, &id_len) != RS_OK ||
	    jx_get_uint(o, "created", &created) != RS_OK ||
	    jx_get_str(o, "model", &model, &model_len) != RS_OK ||
	    created > INT64_MAX || model_len >= sizeof g.model ||
	    owner_len != sizeof g.key.owner_hash - 1 ||
	    !spool_id_valid(id, id_len))
		return false;
	snprintf(name, sizeof name, "%s-%s.sse", owner, id);
	if (stream_key_parse(name, &g.key) != RS_OK)
		return false;
	g.created_ms = (int64_t)created;
	memcpy(g.model, model, model_len);
	*ret = g;
	return true;
}

static enum rs_err
recovery_add(struct recovery *rc, const struct generation *g)
{
	struct generation *copy = malloc(sizeof *copy);
	struct generation **in;

	if (copy == NULL)
		return RS_ENOMEM;
	*copy = *g;
	in = tsearch(copy, &rc->unsettled, generation_cmp);
	if (in == NULL || *in != copy)
		free(copy);
	return in == NULL ? RS_ENOMEM : RS_OK;
}

/* The first of those that are left, no longer in the tree, or NULL. */
static struct generation *
recovery_take(struct recovery *rc)
{
	struct generation *g;

	if (rc->unsettled == NULL)
		return NULL;
	g = *(struct generation **)rc->unsettled;
	tdelete(g, &rc->unsettled, generation_cmp);
	return g;
}

static void
recovery_done(struct recovery *rc)
{
	struct generation *g;

	while ((g = recovery_take(rc)) != NULL)
		free(g);
	while ((g = rc->open) != NULL) {
		rc->open = g->next;
		free(g);
	}
}

static enum rs_err
recovery_add_open(struct recovery *rc, struct json_object *o)
{
	struct json_object *list;
	struct generation g;
	enum rs_err err = RS_OK;

	if (!json_object_object_get_ex(o, "open", &list) ||
	    !json_object_is_type(list, json_type_array))
		return RS_OK;
	for (size_t i = 0; i < json_object_array_length(list) &&
	    err == RS_OK; i++)
		if (generation_parse(json_object_array_get_idx(list, i), &g))
			err = recovery_add(rc, &g);
	return err;
}

/* The line's object and its type, or NULL when it is none of ours. */
static struct json_object *
line_parse(const struct buf *line, const char **ret_type)
{
	struct json_object *o;
	const char *why;
	size_t len;

	if (line->len == 0 ||
	    jx_parse(line->data, line->len, &o, &why) != RS_OK)
		return NULL;
	if (json_object_is_type(o, json_type_object) &&
	    jx_get_str(o, "type", ret_type, &len) == RS_OK)
		return o;
	json_object_put(o);
	return NULL;
}

static enum rs_err
recovery_line(struct recovery *rc, const struct buf *line)
{
	struct generation g, **in;
	enum rs_err err = RS_OK;
	const char *type;
	struct json_object *o = line_parse(line, &type);

	if (o == NULL)
		return RS_OK;
	if (strcmp(type, "recovered") == 0) {
		err = recovery_add_open(rc, o);
	} else if (generation_parse(o, &g)) {
		rc->news = true;
		if (strcmp(type, "reserve") == 0)
			err = recovery_add(rc, &g);
		else if (strcmp(type, "settle") == 0 && (in = tfind(&g,
		    &rc->unsettled, generation_cmp)) != NULL) {
			struct generation *old = *in;

			tdelete(old, &rc->unsettled, generation_cmp);
			free(old);
		}
	}
	json_object_put(o);
	return err;
}

/* Takes the lines of one file from off on. */
static enum rs_err
recovery_read(struct recovery *rc, int fd, uint64_t off)
{
	struct lines l;
	enum rs_err err;

	lines_init(&l, fd, off);
	while ((err = lines_next(&l, &off)) == RS_OK)
		if ((err = recovery_line(rc, &l.line)) != RS_OK)
			break;
	buf_done(&l.line);
	return err == RS_ENOENT ? RS_OK : err;
}

/* Where the file's last recovered line begins.  RS_ENOENT: it has none. */
static enum rs_err
recovery_find(int fd, uint64_t *ret_off)
{
	static const char recovered[] = "{\"type\":\"recovered\"";
	const size_t len = sizeof recovered - 1;
	uint64_t off, found = 0;
	bool any = false;
	struct lines l;
	enum rs_err err;

	lines_init(&l, fd, 0);
	while ((err = lines_next(&l, &off)) == RS_OK) {
		struct json_object *o;
		const char *type;

		if (l.line.len < len ||
		    memcmp(l.line.data, recovered, len) != 0 ||
		    (o = line_parse(&l.line, &type)) == NULL)
			continue;
		json_object_put(o);
		found = off;
		any = true;
	}
	buf_done(&l.line);
	if (err == RS_ENOENT && any) {
		*ret_off = found;
		err = RS_OK;
	}
	return err;
}

/* ---- the day files ---- */

struct days {
	char (*names)[DAY_SIZE];
	size_t count;
};

static bool
day_valid(const char *name)
{
	const char *form = "dddd-dd-dd.jsonl";

	if (strlen(name) != strlen(form))
		return false;
	for (size_t i = 0; form[i] != '\0'; i++)
		if (form[i] == 'd' ? name[i] < '0' || name[i] > '9' :
		    name[i] != form[i])
			return false;
	return true;
}

static int
day_cmp(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* All of them, the oldest first; dir stays open. */
static enum rs_err
days_list(int dir, struct days *ret)
{
	struct days d = { .count = 0 };
	enum rs_err err;
	struct dirent *e;
	DIR *stream;

	if ((err = fd_dir_open(dir, ".", &stream)) != RS_OK)
		return err;
	err = RS_ENOMEM;
	while ((e = readdir(stream)) != NULL) {
		char (*more)[DAY_SIZE];

		if (!day_valid(e->d_name))
			continue;
		more = realloc(d.names, (d.count + 1) * sizeof *more);
		if (more == NULL)
			goto out;
		d.names = more;
		memcpy(d.names[d.count++], e->d_name, DAY_SIZE);
	}
	if (d.count > 0)
		qsort(d.names, d.count, sizeof *d.names, day_cmp);
	*ret = d;
	d.names = NULL;
	err = RS_OK;
out:
	closedir(stream);
	free(d.names);
	return err;
}

/* From the newest file back to the one with the last recovered line, then
 * from there on, as things happened. */
static enum rs_err
recovery_read_days(struct recovery *rc)
{
	struct days d = { .count = 0 };
	uint64_t off = 0;
	struct stat st;
	enum rs_err err;
	size_t i;
	int dir, fd;

	err = spool_dir_open(rc->sp, rc->sp->fd, "usage", true, &dir);
	if (err != RS_OK)
		return err;
	err = days_list(dir, &d);
	for (i = d.count; i > 0 && err == RS_OK; i--) {
		err = spool_file_open(rc->sp, dir, d.names[i - 1], O_RDONLY,
		    &fd, &st);
		if (err != RS_OK)
			break;
		err = recovery_find(fd, &off);
		close(fd);
		if (err == RS_OK) {
			i--;
			break;
		}
		if (err == RS_ENOENT)
			err = RS_OK;
	}
	for (; i < d.count && err == RS_OK; i++, off = 0) {
		err = spool_file_open(rc->sp, dir, d.names[i], O_RDONLY, &fd,
		    &st);
		if (err != RS_OK)
			break;
		err = recovery_read(rc, fd, off);
		close(fd);
	}
	free(d.names);
	close(dir);
	return err;
}

/* ---- settling them ---- */

/* Nothing is left of it to count. */
static enum rs_err
recovery_settle_gone(struct recovery *rc, const struct generation *g)
{
	const struct ending e = {
		.error = ERRTYPE_generation_lost,
		.finish = FINISH_UNKNOWN,
		.usage = { TOKENS_UNKNOWN, TOKENS_UNKNOWN, TOKENS_UNKNOWN,
		    TOKENS_UNKNOWN, TOKENS_UNKNOWN },
		.cost = MONEY_UNKNOWN,
		.first_token_ms = TOKENS_UNKNOWN,
	};
	struct stream_head h = { .created_ms = g->created_ms };

	memcpy(h.model, g->model, sizeof h.model);
	return usage_settle(rc->sp, &g->key, &h, &e);
}

static void
recovery_settle(struct recovery *rc)
{
	struct generation *g;

	while ((g = recovery_take(rc)) != NULL) {
		enum rs_err err;

		err = spool_recover(rc->sp, &g->key, g->created_ms);
		if (err == RS_ENOENT || err == RS_ECORRUPT)
			err = recovery_settle_gone(rc, g);
		if (err == RS_OK) {
			rc->sealed_count++;
			free(g);
		} else {
			g->next = rc->open;
			rc->open = g;
			rc->open_count++;
		}
	}
}

static enum rs_err
recovery_write(const struct recovery *rc)
{
	const char *comma = "";
	struct buf b;
	enum rs_err err;

	usage_begin(&b, "recovered");
	buf_puts(&b, ",\"open\":[");
	for (struct generation *g = rc->open; g != NULL; g = g->next) {
		buf_printf(&b, "%s{", comma);
		usage_put_generation(&b, g->key.owner_hash, g->key.id,
		    g->created_ms, g->model);
		buf_puts(&b, "}");
		comma = ",";
	}
	buf_puts(&b, "]}\n");
	/* Too many for a line: then the next recovery reads from further
	 * back, and nothing is lost. */
	err = b.err == RS_ETOOBIG ? RS_OK : usage_append(rc->sp, &b);
	buf_done(&b);
	return err;
}

enum rs_err
usage_recover(struct spool *sp, size_t *ret_sealed, size_t *ret_open)
{
	struct recovery rc = { .sp = sp };
	enum rs_err err;

	if ((err = recovery_read_days(&rc)) != RS_OK)
		goto out;
	recovery_settle(&rc);
	if (rc.news || rc.sealed_count > 0)
		err = recovery_write(&rc);
	if (err != RS_OK)
		goto out;
	*ret_sealed = rc.sealed_count;
	*ret_open = rc.open_count;
out:
	recovery_done(&rc);
	return err;
}
