/* usage_read.c - the usage files: their lines, and what these are about. */
#include <dirent.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fdio.h"
#include "jx.h"
#include "money.h"
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
	l->whole = false;
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
	l->whole = nl != NULL;
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

uint64_t
usage_cost_parse(struct json_object *o, const char *name)
{
	struct json_object *v;
	const char *digits;
	uint64_t cost;

	/* json-c keeps the digits of a number that it reads. */
	if (!json_object_object_get_ex(o, name, &v) || v == NULL ||
	    json_object_is_type(v, json_type_string) ||
	    (digits = json_object_get_string(v)) == NULL ||
	    money_parse(digits, strlen(digits), &cost) != RS_OK)
		return MONEY_UNKNOWN;
	return cost;
}

static void
worst_parse(struct json_object *o, struct usage_worst *ret)
{
	const char *address;
	size_t len;

	jx_get_uint(o, "tokens", &ret->tokens);
	ret->cost = usage_cost_parse(o, "cost");
	if (jx_get_str(o, "address", &address, &len) == RS_OK &&
	    len == sizeof ret->address - 1 &&
	    strspn(address, "0123456789abcdef") == len)
		memcpy(ret->address, address, len);
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
	worst_parse(o, &g.worst);
	*ret = g;
	return true;
}

void
usage_generations_free(struct usage_generation *list)
{
	struct usage_generation *g;

	while ((g = list) != NULL) {
		list = g->next;
		free(g);
	}
}

/* ---- lines that we wrote ---- */

/* Each takes something from *p, or leaves it where it is and returns false. */

static bool
take(const char **p, const char *text)
{
	size_t len = strlen(text);

	if (strncmp(*p, text, len) != 0)
		return false;
	*p += len;
	return true;
}

/* As many of these characters as there are, min to max. */
static bool
take_text(const char **p, const char *of, size_t min, size_t max, char *ret)
{
	size_t len = strspn(*p, of);

	if (len < min || len > max)
		return false;
	memcpy(ret, *p, len);
	ret[len] = '\0';
	*p += len;
	return true;
}

static bool
take_count(const char **p, uint64_t *ret)
{
	char digits[20];

	if (!take_text(p, "0123456789", 1, sizeof digits - 2, digits))
		return false;
	*ret = strtoull(digits, NULL, 10);
	return true;
}

static bool
take_cost(const char **p, uint64_t *ret)
{
	char digits[40];

	*ret = MONEY_UNKNOWN;
	return take(p, "null") ||
	    (take_text(p, "0123456789.", 1, sizeof digits - 1, digits) &&
	    money_parse(digits, strlen(digits), ret) == RS_OK);
}

static bool
take_generation(const char **p, struct usage_generation *ret)
{
	static const char hex[] = "0123456789abcdef", id[] = "-_"
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	uint64_t created;
	size_t len;

	if (!take(p, "\"owner\":\"") ||
	    !take_text(p, hex, 16, 16, ret->key.owner_hash) ||
	    !take(p, "\",\"stream_id\":\"") ||
	    !take_text(p, id, 1, SPOOL_ID_MAX, ret->key.id) ||
	    !take(p, "\",\"created\":") || !take_count(p, &created) ||
	    !take(p, ",\"model\":\""))
		return false;
	ret->created_ms = (int64_t)created;
	len = strcspn(*p, "\"\\");
	if ((*p)[len] != '"' || len > MODEL_NAME_MAX)
		return false;
	memcpy(ret->model, *p, len);
	ret->model[len] = '\0';
	*p += len + 1;
	return true;
}

static bool
take_worst(const char **p, struct usage_worst *ret)
{
	if (take(p, ",\"address\":\"") &&
	    (!take_text(p, "0123456789abcdef", 16, 16, ret->address) ||
	    !take(p, "\"")))
		return false;
	return take(p, ",\"tokens\":") && take_count(p, &ret->tokens) &&
	    take(p, ",\"cost\":") && take_cost(p, &ret->cost);
}

/* What a settle line tells, up to what nobody asks for here. */
static bool
take_used(const char **p, struct usage_line *ret)
{
	static const char *const names[] = {
		",\"usage\":{\"input\":", ",\"cache_read\":",
		",\"cache_write\":", ",\"output\":", ",\"reasoning\":",
		",\"total\":",
	};
	size_t i;

	for (i = 0; i < sizeof names / sizeof names[0]; i++)
		if (!take(p, names[i]) || !take_count(p, &ret->tokens))
			return false;
	ret->known = true;
	return take(p, "},\"total_cost\":") && take_cost(p, &ret->cost) &&
	    take(p, ",\"estimated\":");
}

/* False: it has another form, and may be one all the same. */
static bool
line_scan(const struct buf *line, struct usage_line *ret)
{
	const char *p = line->data;

	ret->settles = take(&p, "{\"type\":\"settle\",\"time\":\"");
	if (!ret->settles && !take(&p, "{\"type\":\"reserve\",\"time\":\""))
		return false;
	p += strcspn(p, "\"\\");
	if (!take(&p, "\",") || !take_generation(&p, &ret->g))
		return false;
	if (ret->settles)
		return take_used(&p, ret) && line->data[line->len - 1] == '}';
	return take_worst(&p, &ret->g.worst) && strcmp(p, "}") == 0;
}

/* What a settle's object says that was used. */
static void
used_parse(struct json_object *o, struct usage_line *ret)
{
	struct json_object *usage = json_object_object_get(o, "usage");
	uint64_t in, out;

	if (jx_get_bool(o, "unused", &ret->known) == RS_OK && ret->known) {
		ret->tokens = ret->cost = 0;
		return;
	}
	ret->known = json_object_is_type(usage, json_type_object) &&
	    jx_get_uint(usage, "input", &in) == RS_OK &&
	    jx_get_uint(usage, "output", &out) == RS_OK &&
	    jx_get_uint(usage, "total", &ret->tokens) == RS_OK;
	ret->cost = usage_cost_parse(o, "total_cost");
}

bool
usage_line_read(const struct buf *line, struct usage_line *ret)
{
	struct json_object *o;
	const char *type;
	bool good;

	if (line->len == 0)
		return false;
	*ret = (struct usage_line){ .settles = false };
	if (line_scan(line, ret))
		return true;
	*ret = (struct usage_line){ .settles = false };
	if ((o = usage_line_parse(line, &type)) == NULL)
		return false;
	ret->settles = strcmp(type, "settle") == 0;
	good = (ret->settles || strcmp(type, "reserve") == 0) &&
	    usage_generation_parse(o, &ret->g);
	if (good && ret->settles)
		used_parse(o, ret);
	json_object_put(o);
	return good;
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
