/* usage_recover.c - what a crash left unsettled, made up for. */
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "jx.h"
#include "money.h"
#include "usage_impl.h"

#define ALL UINT64_MAX		/* of a file: it is not read again */
#define NAMED_MAX 31		/* files that a recovered line names */

/* ---- which generations are not settled ---- */

struct recovery {
	struct spool *sp;
	struct usage_days days;
	uint64_t *read;		/* bytes of each that are done with */
	/* tsearch(3): struct usage_generation.  Where the clock was set back
	 * a settle may be read before its reserve. */
	void *unsettled, *settled;
	struct usage_generation *open;
	size_t sealed_count;
	bool news;		/* there is more than a recovered line */
};

static enum rs_err
tree_add(void **tree, const struct usage_generation *g)
{
	struct usage_generation *copy = malloc(sizeof *copy);
	struct usage_generation **in;

	if (copy == NULL)
		return RS_ENOMEM;
	*copy = *g;
	in = tsearch(copy, tree, usage_generation_cmp);
	if (in == NULL || *in != copy)
		free(copy);
	return in == NULL ? RS_ENOMEM : RS_OK;
}

/* The first of those that are left, no longer in the tree, or NULL. */
static struct usage_generation *
tree_take(void **tree)
{
	struct usage_generation *g;

	if (*tree == NULL)
		return NULL;
	g = *(struct usage_generation **)*tree;
	tdelete(g, tree, usage_generation_cmp);
	return g;
}

static void
recovery_done(struct recovery *rc)
{
	struct usage_generation *g;

	while ((g = tree_take(&rc->unsettled)) != NULL)
		free(g);
	while ((g = tree_take(&rc->settled)) != NULL)
		free(g);
	usage_generations_free(rc->open);
	free(rc->read);
	usage_days_done(&rc->days);
}

static enum rs_err
recovery_reserve(struct recovery *rc, const struct usage_generation *g)
{
	if (tfind(g, &rc->settled, usage_generation_cmp) != NULL)
		return RS_OK;
	return tree_add(&rc->unsettled, g);
}

static enum rs_err
recovery_settled(struct recovery *rc, const struct usage_generation *g)
{
	struct usage_generation **in, *old;

	in = tfind(g, &rc->unsettled, usage_generation_cmp);
	if (in == NULL)
		return tree_add(&rc->settled, g);
	old = *in;
	tdelete(old, &rc->unsettled, usage_generation_cmp);
	free(old);
	return RS_OK;
}

static enum rs_err
recovery_add_open(struct recovery *rc, struct json_object *o)
{
	struct json_object *list;
	struct usage_generation g;
	enum rs_err err = RS_OK;

	if (!json_object_object_get_ex(o, "open", &list) ||
	    !json_object_is_type(list, json_type_array))
		return RS_OK;
	for (size_t i = 0; i < json_object_array_length(list) &&
	    err == RS_OK; i++)
		if (usage_generation_parse(json_object_array_get_idx(list, i),
		    &g))
			err = recovery_reserve(rc, &g);
	return err;
}

static enum rs_err
recovery_line(struct recovery *rc, const struct buf *line)
{
	enum rs_err err = RS_OK;
	struct json_object *o;
	struct usage_line l;
	const char *type;

	if (usage_line_read(line, &l)) {
		rc->news = true;
		return l.settles ? recovery_settled(rc, &l.g) :
		    recovery_reserve(rc, &l.g);
	}
	if ((o = usage_line_parse(line, &type)) == NULL)
		return RS_OK;
	if (strcmp(type, "recovered") == 0)
		err = recovery_add_open(rc, o);
	json_object_put(o);
	return err;
}

/* Takes the lines of one file, from where it was read to. */
static enum rs_err
recovery_read(struct recovery *rc, int fd, uint64_t *read)
{
	struct usage_lines l;
	enum rs_err err;
	uint64_t off;

	usage_lines_init(&l, fd, *read);
	while ((err = usage_lines_next(&l, &off)) == RS_OK)
		if ((err = recovery_line(rc, &l.line)) != RS_OK)
			break;
	*read = l.off;
	usage_lines_done(&l);
	return err == RS_ENOENT ? RS_OK : err;
}

/* What a recovered line of that day had read of each file; of those that it
 * does not name, all of earlier days and nothing of later ones. */
static void
recovery_position(struct recovery *rc, size_t day, uint64_t off,
    struct json_object *line)
{
	struct json_object *seen;
	bool told = json_object_object_get_ex(line, "read", &seen) &&
	    json_object_is_type(seen, json_type_object);

	for (size_t i = 0; i < rc->days.count; i++) {
		rc->read[i] = i < day ? ALL : i == day ? off : 0;
		if (told && i != day)
			jx_get_uint(seen, rc->days.names[i], &rc->read[i]);
	}
}

/* Takes the position of that day's last recovered line.  RS_ENOENT: it has
 * none. */
static enum rs_err
recovery_find(struct recovery *rc, size_t day, int fd)
{
	static const char recovered[] = "{\"type\":\"recovered\"";
	const size_t len = sizeof recovered - 1;
	bool found = false;
	uint64_t off;
	struct usage_lines l;
	enum rs_err err;

	usage_lines_init(&l, fd, 0);
	while ((err = usage_lines_next(&l, &off)) == RS_OK) {
		struct json_object *o;
		const char *type;

		if (l.line.len < len ||
		    memcmp(l.line.data, recovered, len) != 0 ||
		    (o = usage_line_parse(&l.line, &type)) == NULL)
			continue;
		recovery_position(rc, day, off, o);
		json_object_put(o);
		found = true;
	}
	usage_lines_done(&l);
	return err == RS_ENOENT && found ? RS_OK : err;
}

/* Where the last recovery has left off: today's file, or the one before it
 * that has a recovered line, tells.  Nowhere: at the beginning. */
static enum rs_err
recovery_begin(struct recovery *rc)
{
	const struct usage_days *d = &rc->days;
	char now[CLOCK_ISO_SIZE];
	enum rs_err err = RS_ENOENT;
	struct stat st;
	int fd;

	clock_iso(clock_wall_ms(), now);
	strcpy(now + strlen("YYYY-MM-DD"), "~"); /* behind that day's */
	for (size_t i = d->count; i > 0 && err == RS_ENOENT; i--) {
		/* A clock that was set back leaves files of the future. */
		if (strcmp(d->names[i - 1], now) > 0)
			continue;
		err = spool_file_open(rc->sp, d->dir, d->names[i - 1],
		    O_RDONLY, &fd, &st);
		if (err != RS_OK)
			return err;
		err = recovery_find(rc, i - 1, fd);
		close(fd);
	}
	return err == RS_ENOENT ? RS_OK : err;
}

static enum rs_err
recovery_read_days(struct recovery *rc)
{
	const struct usage_days *d = &rc->days;
	struct stat st;
	enum rs_err err;
	int fd;

	if ((err = usage_days_list(rc->sp, &rc->days)) != RS_OK)
		return err;
	rc->read = calloc(d->count + 1, sizeof *rc->read);
	if (rc->read == NULL)
		return RS_ENOMEM;
	err = recovery_begin(rc);
	for (size_t i = 0; i < d->count && err == RS_OK; i++) {
		if (rc->read[i] == ALL)
			continue;
		err = spool_file_open(rc->sp, d->dir, d->names[i], O_RDONLY,
		    &fd, &st);
		if (err != RS_OK)
			break;
		err = recovery_read(rc, fd, &rc->read[i]);
		close(fd);
	}
	return err;
}

/* ---- settling them ---- */

/* Nothing is left of it to count. */
static enum rs_err
recovery_settle_gone(struct recovery *rc, const struct usage_generation *g)
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
	struct usage_generation *g;

	while ((g = tree_take(&rc->unsettled)) != NULL) {
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
		}
	}
}

static enum rs_err
recovery_write(const struct recovery *rc)
{
	const char *comma = "";
	struct buf b;
	enum rs_err err;
	size_t i;

	usage_begin(&b, "recovered");
	buf_puts(&b, ",\"open\":[");
	for (struct usage_generation *g = rc->open; g != NULL; g = g->next) {
		buf_printf(&b, "%s{", comma);
		usage_put_generation(&b, &g->key, g->created_ms, g->model);
		usage_put_worst(&b, &g->worst);
		buf_puts(&b, "}");
		comma = ",";
	}
	buf_puts(&b, "],\"read\":{");
	comma = "";
	i = rc->days.count > NAMED_MAX ? rc->days.count - NAMED_MAX : 0;
	for (; i < rc->days.count; i++) {
		if (rc->read[i] == ALL)
			continue;
		buf_printf(&b, "%s\"%s\":%" PRIu64, comma,
		    rc->days.names[i], rc->read[i]);
		comma = ",";
	}
	buf_puts(&b, "}}\n");
	/* Too many for a line: then the next recovery reads from further
	 * back, and nothing is lost. */
	err = b.err == RS_ETOOBIG ? RS_OK : usage_append(rc->sp, &b);
	buf_done(&b);
	return err;
}

enum rs_err
usage_recover(struct spool *sp, size_t *ret_sealed,
    struct usage_generation **ret_open)
{
	struct recovery rc = { .sp = sp, .days = { .dir = -1 } };
	enum rs_err err;

	if ((err = recovery_read_days(&rc)) != RS_OK)
		goto out;
	recovery_settle(&rc);
	if (rc.news || rc.sealed_count > 0)
		err = recovery_write(&rc);
	if (err != RS_OK)
		goto out;
	*ret_sealed = rc.sealed_count;
	*ret_open = rc.open;
	rc.open = NULL;
out:
	recovery_done(&rc);
	return err;
}
