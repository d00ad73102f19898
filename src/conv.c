/* conv.c - conversations, one file of lines per session. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "conv.h"
#include "fdio.h"
#include "jx.h"
#include "money.h"
#include "spool_impl.h"
#include "text.h"

#define DIR_NAME "conversations"
#define SUFFIX ".jsonl"
#define NAME_SIZE (16 + 1 + SPOOL_ID_MAX + sizeof SUFFIX)
#define BYTES_PER_TOKEN 4
#define FULL_DISK_MAX 1024 /* bytes of an answer, when there is no space */

static void
file_name(const struct stream_key *session, char ret[NAME_SIZE])
{
	snprintf(ret, NAME_SIZE, "%s-%s" SUFFIX, session->owner_hash,
	    session->id);
}

/* The directory that the file is in. */
static enum rs_err
dir_open(const struct spool *sp, const char *name, bool make, int *ret_fd)
{
	char hex[SHA256_HEX_SIZE];
	enum rs_err err;
	int all;

	err = spool_dir_open(sp, sp->fd, DIR_NAME, make, &all);
	if (err != RS_OK)
		return err;
	sha256_hex(name, strlen(name), hex);
	hex[SPOOL_SHARD_SIZE - 1] = '\0';
	err = spool_dir_open(sp, all, hex, make, ret_fd);
	close(all);
	return err;
}

/* ---- reading ---- */

void
conv_free(struct conv *c)
{
	size_t i;

	if (c == NULL)
		return;
	for (i = 0; i < c->count; i++) {
		json_object_put(c->turns[i].user);
		json_object_put(c->turns[i].assistant);
	}
	free(c->turns);
	free(c);
}

static struct conv_turn *
find_turn(const struct conv *c, const char *stream_id)
{
	size_t i;

	/* What is looked for is nearly always the last one. */
	for (i = c->count; i-- > 0;)
		if (strcmp(c->turns[i].stream_id, stream_id) == 0)
			return &c->turns[i];
	return NULL;
}

const struct conv_turn *
conv_find(const struct conv *c, const char *stream_id)
{
	return find_turn(c, stream_id);
}

static enum rs_err
add_turn(struct conv *c, uint64_t number, const char *stream_id,
    struct json_object *line)
{
	struct conv_turn *all, *t;

	if (find_turn(c, stream_id) != NULL ||
	    (c->count > 0 && number <= c->turns[c->count - 1].number))
		return RS_OK;
	if ((c->count & (c->count - 1)) == 0) {
		all = reallocarray(c->turns, c->count == 0 ? 1 : 2 * c->count,
		    sizeof *all);
		if (all == NULL)
			return RS_ENOMEM;
		c->turns = all;
	}
	t = &c->turns[c->count++];
	*t = (struct conv_turn){ .number = number };
	memcpy(t->stream_id, stream_id, strlen(stream_id));
	t->user = json_object_get(line);
	return RS_OK;
}

/* RS_OK also for a line that is none of ours. */
static enum rs_err
take_line(struct conv *c, const char *p, size_t len)
{
	struct json_object *line;
	const char *role, *id, *why, *content;
	struct conv_turn *t;
	enum rs_err err;
	uint64_t number;
	size_t n;

	err = jx_parse(p, len, &line, &why);
	if (err != RS_OK)
		return err == RS_ENOMEM ? err : RS_OK;
	if (jx_get_uint(line, "turn", &number) != RS_OK ||
	    jx_get_str(line, "role", &role, &n) != RS_OK ||
	    jx_get_str(line, "content", &content, &n) != RS_OK ||
	    jx_get_str(line, "stream_id", &id, &n) != RS_OK ||
	    !spool_id_valid(id, n))
		goto out;
	if (strcmp(role, "user") == 0) {
		err = add_turn(c, number, id, line);
	} else if (strcmp(role, "assistant") == 0 &&
	    (t = find_turn(c, id)) != NULL && t->assistant == NULL) {
		t->assistant = json_object_get(line);
	}
out:
	json_object_put(line);
	return err;
}

/* The last line counts also without its end, which the next append gives it:
 * part of an object is none. */
static enum rs_err
take_lines(struct conv *c, const char *p, size_t n)
{
	enum rs_err err = RS_OK;
	const char *nl;
	size_t len;

	for (; err == RS_OK && n > 0; p += len, n -= len) {
		nl = memchr(p, '\n', n);
		len = nl != NULL ? (size_t)(nl - p) + 1 : n;
		if (len > 1)
			err = take_line(c, p, len);
	}
	return err;
}

/* Of the file's last bytes the whole lines. */
static enum rs_err
load_window(int fd, off_t size, size_t window, struct conv *c)
{
	off_t off = (uint64_t)size > window ? size - (off_t)window : 0;
	size_t n = (size_t)(size - off), got, cut = 0;
	char *p = malloc(n + 1), *nl;
	enum rs_err err;

	if (p == NULL)
		return RS_ENOMEM;
	err = fd_pread_full(fd, p, n, off, &got);
	if (err == RS_OK && off > 0) {
		nl = memchr(p, '\n', got);
		cut = nl != NULL ? (size_t)(nl - p) + 1 : got;
	}
	if (err == RS_OK)
		err = take_lines(c, p + cut, got - cut);
	free(p);
	return err;
}

static enum rs_err
load_name(const struct spool *sp, int dir, const char *name, size_t window,
    struct conv **ret)
{
	struct conv *c = calloc(1, sizeof *c);
	struct stat st;
	enum rs_err err;
	int fd;

	if (c == NULL)
		return RS_ENOMEM;
	err = spool_file_open(sp, dir, name, O_RDONLY, &fd, &st);
	if (err != RS_OK) {
		conv_free(c);
		return err;
	}
	/* A turn can be longer than what is looked at first. */
	while ((err = load_window(fd, st.st_size, window, c)) == RS_OK &&
	    c->count == 0 && window < (uint64_t)st.st_size)
		window *= 4;
	close(fd);
	if (err == RS_OK)
		*ret = c;
	else
		conv_free(c);
	return err;
}

enum rs_err
conv_load_tail(const struct spool *sp, const struct stream_key *session,
    size_t window, struct conv **ret)
{
	char name[NAME_SIZE];
	enum rs_err err;
	int dir;

	file_name(session, name);
	if ((err = dir_open(sp, name, false, &dir)) != RS_OK)
		return err;
	err = load_name(sp, dir, name, window, ret);
	close(dir);
	return err;
}

enum rs_err
conv_load(const struct spool *sp, const struct stream_key *session,
    struct conv **ret)
{
	return conv_load_tail(sp, session, SIZE_MAX, ret);
}

/* ---- history ---- */

static size_t
content_bytes(struct json_object *line)
{
	const char *text;
	size_t len = 0;

	jx_get_str(line, "content", &text, &len);
	return len;
}

static enum rs_err
add_message(struct json_object *messages, struct json_object *line)
{
	static const char *const names[] = { "role", "content" };
	struct json_object *m = json_object_new_object(), *value;
	size_t i;

	for (i = 0; i < 2 && m != NULL; i++) {
		json_object_object_get_ex(line, names[i], &value);
		if (json_object_object_add(m, names[i],
		    json_object_get(value)) < 0) {
			json_object_put(value);
			json_object_put(m);
			m = NULL;
		}
	}
	if (m != NULL && json_object_array_add(messages, m) == 0)
		return RS_OK;
	json_object_put(m);
	return RS_ENOMEM;
}

static bool
has_answer(const struct conv_turn *t)
{
	return t->assistant != NULL && content_bytes(t->assistant) > 0;
}

enum rs_err
conv_history(const struct conv *c, uint64_t number, uint64_t budget,
    struct json_object *messages)
{
	const struct conv_turn *t;
	enum rs_err err = RS_OK;
	uint64_t bytes;
	size_t first, i;

	for (i = first = c->count; i-- > 0;) {
		t = &c->turns[i];
		if (t->number >= number) {
			first = i;
			continue;
		}
		if (!has_answer(t))
			continue;
		bytes = content_bytes(t->user) + content_bytes(t->assistant);
		if (bytes / BYTES_PER_TOKEN > budget)
			break;
		budget -= bytes / BYTES_PER_TOKEN;
		first = i;
	}
	for (i = first; i < c->count && err == RS_OK; i++) {
		t = &c->turns[i];
		if (t->number >= number || !has_answer(t))
			continue;
		if ((err = add_message(messages, t->user)) == RS_OK)
			err = add_message(messages, t->assistant);
	}
	return err;
}

/* ---- writing ---- */

/* A line of its own, whatever the file ended with (spool_line_append). */
static void
line_begin(struct buf *b, uint64_t number, const char *role,
    const char *stream_id)
{
	char now[CLOCK_ISO_SIZE];

	buf_init(b, SIZE_MAX / 2);
	clock_iso(clock_wall_ms(), now);
	buf_printf(b, "\n{\"turn\":%" PRIu64 ",\"role\":\"%s\",\"time\":"
	    "\"%s\",\"stream_id\":\"%s\"", number, role, now, stream_id);
}

static void
line_end(struct buf *b, const char *content, size_t len)
{
	buf_puts(b, ",\"content\":");
	jx_put_str(b, content, len);
	buf_puts(b, "}\n");
}

enum rs_err
conv_ask(struct spool *sp, const struct stream_key *session,
    const char *stream_id, const char *animal, const char *message, size_t len,
    uint64_t *ret)
{
	const struct conv_turn *t = NULL;
	struct conv *c = NULL;
	char name[NAME_SIZE];
	uint64_t number = 1;
	struct stat st;
	enum rs_err err;
	struct buf b;
	int dir;

	file_name(session, name);
	if ((err = dir_open(sp, name, true, &dir)) != RS_OK)
		return err;
	err = load_name(sp, dir, name, CONV_LAST, &c);
	if (err != RS_OK && err != RS_ENOENT)
		goto out;
	if (c != NULL && (t = conv_find(c, stream_id)) != NULL)
		number = t->number;
	else if (c != NULL && c->count > 0)
		number = c->turns[c->count - 1].number + 1;
	err = RS_OK;
	if (t == NULL && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    st.st_size >= CONV_FILE_MAX) {
		err = RS_ETOOBIG;
	} else if (t == NULL) {
		line_begin(&b, number, "user", stream_id);
		buf_printf(&b, ",\"animal\":\"%s\"", animal);
		line_end(&b, message, len);
		err = spool_line_append(sp, dir, name, &b, true);
		buf_done(&b);
	}
	if (err == RS_OK)
		*ret = number;
out:
	conv_free(c);
	close(dir);
	return err;
}

static void
answer_line(struct buf *b, const struct stream_key *stream,
    const struct stream_head *h, const char *content, size_t len,
    const struct ending *e)
{
	const char *model = e->model != NULL ? e->model : h->model;

	line_begin(b, h->turn.number, "assistant", stream->id);
	buf_puts(b, ",\"model\":");
	jx_put_str(b, model, strlen(model));
	buf_puts(b, ",\"usage\":");
	usage_put(b, &e->usage);
	buf_puts(b, ",\"total_cost\":");
	money_put(b, e->cost);
	buf_printf(b, ",\"latency_ms\":%" PRIu64, e->latency_ms);
	if (e->error != ERRTYPE_none)
		buf_printf(b, ",\"error_type\":\"%s\"",
		    errtype_info(e->error)->name);
	else
		buf_printf(b, ",\"finish_reason\":\"%s\"",
		    finish_name(e->finish));
	if (e->error != ERRTYPE_none || e->finish == FINISH_STOPPED)
		buf_puts(b, ",\"partial\":true");
	line_end(b, content, len);
}

static enum rs_err
append_answer(struct spool *sp, int dir, const char *name,
    const struct stream_key *stream, const struct stream_head *h,
    const char *content, size_t len, const struct ending *e)
{
	enum rs_err err;
	struct buf b;

	answer_line(&b, stream, h, content, len, e);
	err = spool_line_append(sp, dir, name, &b, true);
	/* The ballast has space for an ending, not for all that was said: the
	 * stream's file has that. */
	if (err == RS_ENOSPC && e->error != ERRTYPE_none &&
	    len > FULL_DISK_MAX) {
		buf_done(&b);
		answer_line(&b, stream, h, content,
		    utf8_cut(content, len, FULL_DISK_MAX), e);
		err = spool_line_append(sp, dir, name, &b, true);
	}
	buf_done(&b);
	return err;
}

enum rs_err
conv_answer(struct spool *sp, const struct stream_key *stream,
    const struct stream_head *h, const char *content, size_t len,
    const struct ending *e, bool missing)
{
	struct stream_key session;
	const struct conv_turn *t;
	struct conv *c = NULL;
	char name[NAME_SIZE];
	enum rs_err err;
	int dir;

	stream_key(&session, h->owner, h->turn.session);
	file_name(&session, name);
	if ((err = dir_open(sp, name, false, &dir)) != RS_OK)
		return err;
	if (missing) {
		if ((err = load_name(sp, dir, name, SIZE_MAX, &c)) != RS_OK)
			goto out;
		t = conv_find(c, stream->id);
		if (t == NULL || t->assistant != NULL)
			goto out;
	}
	err = append_answer(sp, dir, name, stream, h, content, len, e);
out:
	conv_free(c);
	close(dir);
	return err;
}

enum rs_err
conv_delete(struct spool *sp, const struct stream_key *session)
{
	char name[NAME_SIZE];
	enum rs_err err;
	int dir;

	file_name(session, name);
	err = dir_open(sp, name, false, &dir);
	if (err != RS_OK)
		return err == RS_ENOENT ? RS_OK : err;
	if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
		err = rs_from_errno(errno);
	close(dir);
	return err;
}

/* A turn is being generated, as far as its file tells: its stream is there and
 * its answer is not. */
static bool
is_live(struct spool *sp, int dir, const char *name)
{
	struct conv *c = NULL;
	struct spool_reader r;
	struct stream_key k;
	bool live = true;	/* when in doubt */
	enum rs_err err = load_name(sp, dir, name, CONV_LAST, &c);

	if (err != RS_OK)
		return true;
	if (c->count == 0 || c->turns[c->count - 1].assistant != NULL) {
		live = false;
	} else {
		memcpy(k.owner_hash, name, 16);
		k.owner_hash[16] = '\0';
		strcpy(k.id, c->turns[c->count - 1].stream_id);
		err = spool_find(sp, &k, &r);
		live = err != RS_ENOENT;
		if (err == RS_OK)
			spool_reader_done(&r);
	}
	conv_free(c);
	return live;
}

static void
sweep_file(struct spool *sp, struct sweep *s, const char *name,
    int64_t now_ms, uint64_t ttl_ms)
{
	int dir = dirfd(s->dir);
	struct stat st;

	if (name[0] == '.' ||
	    fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    !S_ISREG(st.st_mode))
		return;
	if (now_ms - spool_mtime_ms(&st) < (int64_t)ttl_ms ||
	    is_live(sp, dir, name) ||
	    (!s->dry && unlinkat(dir, name, 0) < 0)) {
		s->bytes += (uint64_t)st.st_size;
		return;
	}
	s->removed++;
	if (s->gone != NULL)
		s->gone(name, SWEEP_TTL, (uint64_t)st.st_size, s->arg);
}

static enum rs_err
sweep_open(struct spool *sp, struct sweep *s)
{
	char path[sizeof DIR_NAME + SPOOL_SHARD_SIZE] = DIR_NAME "/";

	s->bytes = 0;
	spool_shard_name(s->shard, path + sizeof DIR_NAME);
	return fd_dir_open(sp->fd, path, &s->dir);
}

enum rs_err
conv_sweep(struct spool *sp, struct sweep *s, int64_t now_ms, uint64_t ttl_ms,
    uint64_t budget_ns, bool *ret_done)
{
	uint64_t start = clock_mono_ns();
	enum rs_err err = RS_OK;
	struct dirent *e;

	if (s->dir == NULL)
		err = sweep_open(sp, s);
	while (err == RS_OK && (e = readdir(s->dir)) != NULL) {
		sweep_file(sp, s, e->d_name, now_ms, ttl_ms);
		if (clock_mono_ns() - start >= budget_ns) {
			*ret_done = false;
			return RS_OK;
		}
	}
	spool_sweep_done(s);
	if (err == RS_ENOENT)
		err = RS_OK;
	if (s->stock != NULL && err == RS_OK)
		stock_conv(s->stock, s->shard, s->bytes);
	s->shard = (s->shard + 1) % SPOOL_SHARDS;
	if (err == RS_OK)
		*ret_done = true;
	return err;
}
