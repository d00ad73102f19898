/* usage_sum.c - what was bought, in sum. */
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "jx.h"
#include "money.h"
#include "text.h"
#include "usage_impl.h"

#define NO_ROW UINT32_MAX
#define SEEN_FIRST 1024		/* places of the first table; a power of 2 */

/* A generation that was seen: a hash of its key, which a client, who chooses
 * the id, cannot make equal to another one's. */
struct seen {
	uint64_t hash[2];	/* both 0: a free place */
	uint32_t open_row;	/* that counts it as open, or NO_ROW */
	bool settled;
};

struct summing {
	const struct usage_query *q;
	struct usage_sums sums;
	struct seen *seen;	/* a hash table, half full at most */
	size_t seen_cap, seen_count;
	uint64_t open;		/* of all rows */
};

/* ---- generations that were seen ---- */

static struct seen *
seen_place(struct seen *table, size_t cap, const uint64_t hash[2])
{
	size_t i = hash[0] & (cap - 1);

	while ((table[i].hash[0] != 0 || table[i].hash[1] != 0) &&
	    (table[i].hash[0] != hash[0] || table[i].hash[1] != hash[1]))
		i = (i + 1) & (cap - 1);
	return &table[i];
}

static bool
seen_grow(struct summing *s)
{
	size_t cap = s->seen_cap == 0 ? SEEN_FIRST : 2 * s->seen_cap, i;
	struct seen *table = calloc(cap, sizeof *table);

	if (table == NULL)
		return false;
	for (i = 0; i < s->seen_cap; i++)
		if (s->seen[i].hash[0] != 0 || s->seen[i].hash[1] != 0)
			*seen_place(table, cap, s->seen[i].hash) = s->seen[i];
	free(s->seen);
	s->seen = table;
	s->seen_cap = cap;
	return true;
}

/* Its place, made when it is new; NULL: no memory. */
static struct seen *
seen_get(struct summing *s, const struct usage_generation *g)
{
	char hex[SHA256_HEX_SIZE], text[SPOOL_NAME_SIZE + 32];
	uint64_t hash[2];
	struct seen *seen;
	int n;

	n = snprintf(text, sizeof text, "%s-%s-%lld", g->key.owner_hash,
	    g->key.id, (long long)g->created_ms);
	sha256_hex(text, (size_t)n, hex);
	hex[32] = '\0';
	hash[1] = strtoull(hex + 16, NULL, 16);
	hex[16] = '\0';
	hash[0] = strtoull(hex, NULL, 16);
	if (2 * s->seen_count >= s->seen_cap && !seen_grow(s))
		return NULL;
	seen = seen_place(s->seen, s->seen_cap, hash);
	if (seen->hash[0] == 0 && seen->hash[1] == 0) {
		memcpy(seen->hash, hash, sizeof hash);
		seen->open_row = NO_ROW;
		s->seen_count++;
	}
	return seen;
}

/* ---- rows ---- */

/* Its number; NO_ROW: no memory. */
static uint32_t
row_get(struct usage_sums *sums, const char *model)
{
	struct usage_row *rows;
	size_t i;

	for (i = 0; i < sums->count; i++)
		if (strcmp(sums->rows[i].model, model) == 0)
			return (uint32_t)i;
	rows = realloc(sums->rows, (i + 1) * sizeof *rows);
	if (rows == NULL)
		return NO_ROW;
	sums->rows = rows;
	memset(&rows[i], 0, sizeof rows[i]);
	strcpy(rows[i].model, model);
	sums->count++;
	return (uint32_t)i;
}

static void
add_tokens(uint64_t *to, struct json_object *usage, const char *name)
{
	uint64_t n;

	if (usage != NULL && jx_get_uint(usage, name, &n) == RS_OK)
		*to += n;
}

static void
row_add_settle(struct usage_row *row, struct json_object *o)
{
	struct json_object *usage = NULL;
	uint64_t cost = usage_cost_parse(o, "total_cost");
	bool flag;

	json_object_object_get_ex(o, "usage", &usage);
	if (!json_object_is_type(usage, json_type_object))
		usage = NULL;
	add_tokens(&row->usage.input, usage, "input");
	add_tokens(&row->usage.cache_read, usage, "cache_read");
	add_tokens(&row->usage.cache_write, usage, "cache_write");
	add_tokens(&row->usage.output, usage, "output");
	add_tokens(&row->usage.reasoning, usage, "reasoning");
	row->generations++;
	row->failed += json_object_object_get_ex(o, "error_type", NULL);
	row->partial += jx_get_bool(o, "partial", &flag) == RS_OK && flag;
	row->estimated += jx_get_bool(o, "estimated", &flag) == RS_OK && flag;
	if (cost == MONEY_UNKNOWN)
		row->unpriced++;
	else
		row->cost = money_add(row->cost, cost);
}

void
usage_row_add(struct usage_row *to, const struct usage_row *row)
{
	to->generations += row->generations;
	to->failed += row->failed;
	to->partial += row->partial;
	to->estimated += row->estimated;
	to->unpriced += row->unpriced;
	to->open += row->open;
	to->usage.input += row->usage.input;
	to->usage.cache_read += row->usage.cache_read;
	to->usage.cache_write += row->usage.cache_write;
	to->usage.output += row->usage.output;
	to->usage.reasoning += row->usage.reasoning;
	to->cost = money_add(to->cost, row->cost);
}

/* ---- lines ---- */

static enum rs_err
sum_reserve(struct summing *s, struct seen *seen, const char *model)
{
	uint32_t row = row_get(&s->sums, model);

	if (row == NO_ROW)
		return RS_ENOMEM;
	seen->open_row = row;
	s->sums.rows[row].open++;
	s->open++;
	return RS_OK;
}

static enum rs_err
sum_settle(struct summing *s, struct seen *seen, struct json_object *o,
    const char *model)
{
	uint32_t row;

	seen->settled = true;
	if (seen->open_row != NO_ROW) {
		s->sums.rows[seen->open_row].open--;
		s->open--;
	}
	if (model == NULL)
		return RS_OK;
	if ((row = row_get(&s->sums, model)) == NO_ROW)
		return RS_ENOMEM;
	row_add_settle(&s->sums.rows[row], o);
	return RS_OK;
}

/* counted: the line's day is asked for. */
static enum rs_err
sum_line(struct summing *s, const struct buf *line, bool counted)
{
	const struct usage_query *q = s->q;
	struct usage_generation g;
	enum rs_err err = RS_OK;
	struct json_object *o;
	const char *type;
	struct seen *seen;

	if (line->len == 0 || (q->owner_hash != NULL && memmem(line->data,
	    line->len, q->owner_hash, strlen(q->owner_hash)) == NULL) ||
	    (o = usage_line_parse(line, &type)) == NULL)
		return RS_OK;
	if (!usage_generation_parse(o, &g) || (q->owner_hash != NULL &&
	    strcmp(g.key.owner_hash, q->owner_hash) != 0))
		goto out;
	if (q->model != NULL && strcmp(g.model, q->model) != 0)
		counted = false;
	if ((seen = seen_get(s, &g)) == NULL)
		err = RS_ENOMEM;
	else if (seen->settled)
		;
	else if (strcmp(type, "settle") == 0)
		err = sum_settle(s, seen, o, counted ? g.model : NULL);
	else if (strcmp(type, "reserve") == 0 && counted &&
	    seen->open_row == NO_ROW)
		err = sum_reserve(s, seen, g.model);
out:
	json_object_put(o);
	return err;
}

/* Calls fn with each line of a day. */
static enum rs_err
day_read(struct spool *sp, const struct usage_days *d, size_t day,
    enum rs_err (*fn)(void *arg, const struct buf *line), void *arg)
{
	struct usage_lines l;
	struct stat st;
	enum rs_err err;
	uint64_t off;
	int fd;

	err = spool_file_open(sp, d->dir, d->names[day], O_RDONLY, &fd, &st);
	if (err != RS_OK)
		return err;
	usage_lines_init(&l, fd, 0);
	while ((err = usage_lines_next(&l, &off)) == RS_OK)
		if ((err = fn(arg, &l.line)) != RS_OK)
			break;
	usage_lines_done(&l);
	close(fd);
	return err == RS_ENOENT ? RS_OK : err;
}

static enum rs_err
sum_counted(void *arg, const struct buf *line)
{
	return sum_line(arg, line, true);
}

static enum rs_err
sum_uncounted(void *arg, const struct buf *line)
{
	return sum_line(arg, line, false);
}

/* The earliest of the settled generations; *arg: int64_t, ms. */
static enum rs_err
find_earliest(void *arg, const struct buf *line)
{
	static const char settle[] = "{\"type\":\"settle\"";
	struct usage_generation g;
	int64_t *earliest_ms = arg;
	struct json_object *o;
	const char *type;

	if (line->len < sizeof settle - 1 ||
	    memcmp(line->data, settle, sizeof settle - 1) != 0 ||
	    (o = usage_line_parse(line, &type)) == NULL)
		return RS_OK;
	if (strcmp(type, "settle") == 0 && usage_generation_parse(o, &g) &&
	    g.created_ms < *earliest_ms)
		*earliest_ms = g.created_ms;
	json_object_put(o);
	return RS_OK;
}

/* The first file that is not of an earlier day than ms is of. */
static size_t
day_find(const struct usage_days *d, int64_t ms)
{
	char iso[CLOCK_ISO_SIZE];
	size_t i;

	clock_iso(ms, iso);
	for (i = 0; i < d->count && strncmp(d->names[i], iso,
	    strlen("YYYY-MM-DD")) < 0; i++)
		;
	return i;
}

/* One day: what was settled on it may have been settled before, and what was
 * reserved on it may have been settled since. */
static enum rs_err
sum_day(struct summing *s, struct spool *sp, const struct usage_days *d,
    size_t day)
{
	int64_t earliest_ms = INT64_MAX;
	enum rs_err err;
	size_t i;

	err = day_read(sp, d, day, find_earliest, &earliest_ms);
	i = earliest_ms == INT64_MAX ? day : day_find(d, earliest_ms);
	for (i = i < day ? i : day; i < d->count && err == RS_OK &&
	    (i <= day || s->open > 0); i++)
		err = day_read(sp, d, i, i == day ? sum_counted :
		    sum_uncounted, s);
	return err;
}

static int
row_cmp(const void *a, const void *b)
{
	return strcmp(((const struct usage_row *)a)->model,
	    ((const struct usage_row *)b)->model);
}

/* Without those that have nothing left, by name. */
static void
rows_sort(struct usage_sums *sums)
{
	size_t i, n = 0;

	for (i = 0; i < sums->count; i++)
		if (sums->rows[i].generations > 0 || sums->rows[i].open > 0)
			sums->rows[n++] = sums->rows[i];
	sums->count = n;
	if (n > 0)
		qsort(sums->rows, n, sizeof *sums->rows, row_cmp);
}

enum rs_err
usage_sum(struct spool *sp, const struct usage_query *q,
    struct usage_sums *ret)
{
	struct summing s = { .q = q };
	struct usage_days d;
	enum rs_err err;
	size_t i;

	err = usage_days_list(sp, &d);
	for (i = 0; i < d.count && err == RS_OK; i++)
		if (q->day == NULL)
			err = day_read(sp, &d, i, sum_counted, &s);
		else if (strncmp(d.names[i], q->day,
		    strlen("YYYY-MM-DD")) == 0)
			err = sum_day(&s, sp, &d, i);
	usage_days_done(&d);
	free(s.seen);
	if (err != RS_OK) {
		usage_sums_done(&s.sums);
		return err;
	}
	rows_sort(&s.sums);
	*ret = s.sums;
	return RS_OK;
}

void
usage_sums_done(struct usage_sums *s)
{
	free(s->rows);
}

/* ---- one generation ---- */

/* RS_EEXIST: the line settles *arg, a struct usage_generation. */
static enum rs_err
find_settle(void *arg, const struct buf *line)
{
	const struct usage_generation *want = arg;
	struct usage_generation g;
	enum rs_err err = RS_OK;
	struct json_object *o;
	const char *type;

	if (line->len == 0 || memmem(line->data, line->len, want->key.id,
	    strlen(want->key.id)) == NULL ||
	    (o = usage_line_parse(line, &type)) == NULL)
		return RS_OK;
	if (strcmp(type, "settle") == 0 && usage_generation_parse(o, &g) &&
	    usage_generation_cmp(&g, want) == 0)
		err = RS_EEXIST;
	json_object_put(o);
	return err;
}

bool
usage_settled(struct spool *sp, const struct stream_key *k,
    int64_t created_ms)
{
	struct usage_generation want = { .key = *k, .created_ms = created_ms };
	struct usage_days d;
	enum rs_err err;
	size_t i;

	err = usage_days_list(sp, &d);
	/* Made while the clock was ahead: its lines may be in any file. */
	i = created_ms > clock_wall_ms() ? 0 : day_find(&d, created_ms);
	for (; i < d.count && err == RS_OK; i++)
		err = day_read(sp, &d, i, find_settle, &want);
	usage_days_done(&d);
	return err == RS_EEXIST;
}
