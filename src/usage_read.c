/* usage_read.c - the usage files: their lines, and what these are about. */
#include <dirent.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fdio.h"
#include "jx.h"
#include "usage_impl.h"

/* ---- lines ---- */

void
usage_lines_init(struct usage_lines *l, int fd, uint64_t off)
{
	l->fd = fd;
	l->off = l->read = off;
	l->pos = l->n = 0;
	buf_init(&l->line, USAGE_LINE_MAX);
}

void
usage_lines_done(struct usage_lines *l)
{
	buf_done(&l->line);
}

enum rs_err
usage_lines_next(struct usage_lines *l, uint64_t *ret_off)
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

struct json_object *
usage_line_parse(const struct buf *line, const char **ret_type)
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

int
usage_generation_cmp(const void *pa, const void *pb)
{
	const struct usage_generation *a = pa, *b = pb;

	if (a->created_ms != b->created_ms)
		return a->created_ms < b->created_ms ? -1 : 1;
	return stream_key_cmp(&a->key, &b->key);
}

bool
usage_generation_parse(struct json_object *o, struct usage_generation *ret)
{
	struct usage_generation g = { .next = NULL };
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

/* ---- days ---- */

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

enum rs_err
usage_days_list(const struct spool *sp, struct usage_days *ret)
{
	enum rs_err err;
	struct dirent *e;
	DIR *stream;

	*ret = (struct usage_days){ .dir = -1 };
	err = spool_dir_open(sp, sp->fd, "usage", true, &ret->dir);
	if (err != RS_OK)
		return err;
	if ((err = fd_dir_open(ret->dir, ".", &stream)) != RS_OK)
		return err;
	while ((e = readdir(stream)) != NULL) {
		char (*more)[USAGE_DAY_SIZE];

		if (!day_valid(e->d_name))
			continue;
		more = realloc(ret->names, (ret->count + 1) * sizeof *more);
		if (more == NULL) {
			err = RS_ENOMEM;
			break;
		}
		ret->names = more;
		memcpy(more[ret->count++], e->d_name, USAGE_DAY_SIZE);
	}
	closedir(stream);
	if (err == RS_OK && ret->count > 0)
		qsort(ret->names, ret->count, sizeof *ret->names, day_cmp);
	return err;
}

void
usage_days_done(struct usage_days *d)
{
	if (d->dir >= 0)
		close(d->dir);
	free(d->names);
}
