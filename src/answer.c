/* answer.c - an upstream's response, bytes in, deltas out; no I/O. */
#include <assert.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "failure.h"
#include "jx.h"
#include "provider.h"
#include "sse.h"
#include "text.h"

#define DEPTH_MAX 64	/* of an upstream's JSON */
#define TOOLS_MAX 1024	/* more is not an answer */
#define TEXT_KINDS DELTA_TOOL_CALL /* the kinds before it are plain text */

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

/* The end of a text that may be the beginning of a character: UTF-8 without
 * its last bytes, or a high surrogate as three bytes. */
struct half {
	char bytes[3];
	size_t len;
};

struct tool {
	uint64_t key;	/* the provider's number for it */
	bool id_told, name_told;
	size_t len;	/* of its arguments */
	struct half half;
};

struct answer {
	const struct provider *provider;
	void (*fn)(void *arg, const struct delta *d);
	void *arg;
	struct sse_parser sse;
	struct buf line;	/* of framing by lines: what came of it */
	/* Lines of an event stream that are none of its fields, from the
	 * first one on that begins JSON: a whole body, or an error that
	 * somebody wrote behind the events. */
	struct buf body;
	bool events;		/* there has been one */
	bool junk;		/* there were such lines, not JSON */
	bool cut;		/* the event may be a part */
	bool over;
	struct half halves[TEXT_KINDS];
	struct tool *tools;
	size_t tool_count, tool_room;
	struct usage usage;
	bool has_reason;
	enum finish finish;
	char native[FAILURE_WORD_MAX]; /* "": none */
};

enum rs_err
answer_new(const struct provider *p,
    void (*fn)(void *arg, const struct delta *d), void *arg,
    struct answer **ret)
{
	struct answer *a = calloc(1, sizeof *a);

	if (a == NULL)
		return RS_ENOMEM;
	a->provider = p;
	a->fn = fn;
	a->arg = arg;
	sse_parser_init(&a->sse, ANSWER_EVENT_MAX);
	buf_init(&a->line, ANSWER_EVENT_MAX);
	buf_init(&a->body, ANSWER_EVENT_MAX);
	a->usage = (struct usage){ TOKENS_UNKNOWN, TOKENS_UNKNOWN,
		TOKENS_UNKNOWN, TOKENS_UNKNOWN, TOKENS_UNKNOWN };
	a->finish = FINISH_UNKNOWN;
	*ret = a;
	return RS_OK;
}

void
answer_free(struct answer *a)
{
	if (a == NULL)
		return;
	sse_parser_done(&a->sse);
	buf_done(&a->line);
	buf_done(&a->body);
	free(a->tools);
	free(a);
}

bool
answer_over(const struct answer *a)
{
	return a->over;
}

static void
answer_tell(struct answer *a, const struct delta *d)
{
	if (a->over)
		return;
	a->over = d->kind == DELTA_FINISH || d->kind == DELTA_ERROR;
	a->fn(a->arg, d);
}

/* ---- text ---- */

/* The surrogate whose three bytes begin at p, or 0. */
static unsigned
surrogate_at(const char *p, size_t n)
{
	const unsigned char *u = (const unsigned char *)p;

	if (n < 3 || u[0] != 0xed || (u[1] & 0xe0) != 0xa0 ||
	    (u[2] & 0xc0) != 0x80)
		return 0;
	return 0xd000u | (u[1] & 0x3fu) << 6 | (u[2] & 0x3fu);
}

static bool
is_high(unsigned unit)
{
	return unit >= 0xd800 && unit < 0xdc00;
}

static bool
is_low(unsigned unit)
{
	return unit >= 0xdc00 && unit < 0xe000;
}

static void
put_pair(struct buf *b, unsigned high, unsigned low)
{
	unsigned c = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
	const char utf8[4] = {
		(char)(0xf0 | c >> 18),
		(char)(0x80 | (c >> 12 & 0x3f)),
		(char)(0x80 | (c >> 6 & 0x3f)),
		(char)(0x80 | (c & 0x3f)),
	};

	buf_add(b, utf8, sizeof utf8);
}

/* More bytes could make a character, or a pair of surrogates, of these. */
static bool
is_half(const char *p, size_t n)
{
	char least[4], most[4];

	if (n > 3)
		return false;
	memset(least, 0x80, sizeof least);
	memset(most, 0xbf, sizeof most);
	memcpy(least, p, n);
	memcpy(most, p, n);
	return utf8_char(least, 4) > n || utf8_char(most, 4) > n ||
	    is_high(surrogate_at(p, n));
}

/* Adds valid UTF-8 to out: what *half held, then p, without what *half holds
 * now. */
static void
half_join(struct half *half, const char *p, size_t n, struct buf *out)
{
	struct buf all;
	size_t i, len;

	buf_init(&all, SIZE_MAX / 2);
	buf_add(&all, half->bytes, half->len);
	buf_add(&all, p, n);
	out->err = all.err;
	half->len = 0;
	for (i = 0; i < all.len; i += len) {
		const char *at = all.data + i;
		size_t rest = all.len - i;
		unsigned unit = surrogate_at(at, rest);
		unsigned next = unit == 0 ? 0 :
		    surrogate_at(at + 3, rest - 3);

		if ((len = utf8_char(at, rest)) > 0) {
			buf_add(out, at, len);
		} else if (is_half(at, rest)) {
			memcpy(half->bytes, at, rest);
			len = half->len = rest;
		} else if (is_high(unit) && is_low(next)) {
			put_pair(out, unit, next);
			len = 6;
		} else {
			buf_puts(out, replacement);
			len = unit != 0 ? 3 : 1;
		}
	}
	buf_done(&all);
}

/* Tells d with this text, made valid UTF-8; without any it is told only when
 * empty_too. */
static void
answer_tell_text(struct answer *a, struct delta *d, struct half *half,
    const char *p, size_t n, bool empty_too)
{
	struct buf joined;

	buf_init(&joined, SIZE_MAX / 2);
	d->text = p;
	d->len = n;
	if (half->len > 0 || !utf8_valid(p, n)) {
		half_join(half, p, n, &joined);
		d->text = joined.len > 0 ? joined.data : "";
		d->len = joined.len;
	}
	if (joined.err != RS_OK)
		answer_fail(a, ERRTYPE_internal);
	else if (d->len > 0 || empty_too)
		answer_tell(a, d);
	buf_done(&joined);
}

void
answer_text(struct answer *a, enum delta_kind kind, const char *p, size_t n)
{
	struct delta d = { .kind = kind };

	assert(kind < TEXT_KINDS);
	answer_tell_text(a, &d, &a->halves[kind], p, n, false);
}

void
answer_member(struct answer *a, enum delta_kind kind, struct json_object *o,
    const char *name)
{
	const char *p;
	size_t n;

	if (jx_get_str(o, name, &p, &n) == RS_OK)
		answer_text(a, kind, p, n);
}

/* What never met its other half. */
static void
answer_tell_halves(struct answer *a)
{
	struct delta d = { .text = replacement,
		.len = sizeof replacement - 1 };
	size_t i;

	for (i = 0; i < TEXT_KINDS; i++) {
		d.kind = (enum delta_kind)i;
		if (a->halves[i].len > 0)
			answer_tell(a, &d);
	}
	d.kind = DELTA_TOOL_CALL;
	for (i = 0; i < a->tool_count; i++) {
		d.tool.index = i;
		if (a->tools[i].half.len > 0)
			answer_tell(a, &d);
	}
}

/* ---- tool calls ---- */

static size_t
tool_find(const struct answer *a, uint64_t key)
{
	size_t i = a->tool_count;

	/* From the end, where the one is that is being told. */
	while (i > 0)
		if (a->tools[--i].key == key)
			return i;
	return a->tool_count;
}

static enum rs_err
tool_add(struct answer *a, uint64_t key)
{
	struct tool *tools;
	size_t room;

	if (a->tool_count == TOOLS_MAX)
		return RS_ETOOBIG;
	if (a->tool_count == a->tool_room) {
		room = a->tool_room == 0 ? 4 : a->tool_room * 2;
		tools = realloc(a->tools, room * sizeof *tools);
		if (tools == NULL)
			return RS_ENOMEM;
		a->tools = tools;
		a->tool_room = room;
	}
	a->tools[a->tool_count++] = (struct tool){ .key = key };
	return RS_OK;
}

/* An error of our own functions. */
static void
answer_fail_err(struct answer *a, enum rs_err err)
{
	answer_fail(a, err == RS_ENOMEM ? ERRTYPE_internal :
	    ERRTYPE_upstream_bad_json);
}

void
answer_tool(struct answer *a, uint64_t index, const char *id,
    const char *name, const char *arguments, size_t len)
{
	struct delta d = { .kind = DELTA_TOOL_CALL };
	size_t i = tool_find(a, index);
	bool is_new = i == a->tool_count;
	struct tool *t;
	enum rs_err err;

	if (is_new && (err = tool_add(a, index)) != RS_OK) {
		answer_fail_err(a, err);
		return;
	}
	t = &a->tools[i];
	d.tool.index = i;
	/* Some servers repeat them with each piece, or send empty ones. */
	if (!t->id_told && id != NULL && id[0] != '\0')
		d.tool.id = id;
	if (!t->name_told && name != NULL && name[0] != '\0')
		d.tool.name = name;
	t->id_told |= d.tool.id != NULL;
	t->name_told |= d.tool.name != NULL;
	t->len += len;
	answer_tell_text(a, &d, &t->half, arguments, len,
	    is_new || d.tool.id != NULL || d.tool.name != NULL);
}

size_t
answer_tools(const struct answer *a)
{
	return a->tool_count;
}

void
answer_tool_json(struct answer *a, uint64_t index, const char *id,
    const char *name, struct json_object *arguments)
{
	struct buf text;

	buf_init(&text, SIZE_MAX / 2);
	if (json_object_is_type(arguments, json_type_object))
		jx_put(&text, arguments);
	else
		buf_puts(&text, "{}");
	if (text.err != RS_OK)
		answer_fail_err(a, text.err);
	else
		answer_tool(a, index, id, name, text.data, text.len);
	buf_done(&text);
}

size_t
answer_tool_len(const struct answer *a, uint64_t index)
{
	size_t i = tool_find(a, index);

	return i < a->tool_count ? a->tools[i].len : SIZE_MAX;
}

/* ---- usage, and the end ---- */

void
answer_usage(struct answer *a, const struct usage *u, const char *cost)
{
	const struct delta d = { .kind = DELTA_USAGE, .usage = *u,
		.upstream_cost = cost };

	a->usage = *u;
	answer_tell(a, &d);
}

const struct usage *
answer_usage_peek(const struct answer *a)
{
	return &a->usage;
}

void
answer_reason(struct answer *a, enum finish finish, const char *native)
{
	a->has_reason = true;
	a->finish = finish;
	if (native == NULL)
		native = "";
	snprintf(a->native, sizeof a->native, "%.*s",
	    (int)utf8_cut(native, strlen(native), sizeof a->native - 1),
	    native);
}

bool
answer_has_reason(const struct answer *a)
{
	return a->has_reason;
}

void
answer_fail_words(struct answer *a, enum errtype type,
    const char *upstream_type, const char *upstream_code, const char *message)
{
	struct delta d = { .kind = DELTA_ERROR };

	d.error.type = type;
	d.error.upstream_type = upstream_type;
	d.error.upstream_code = upstream_code;
	d.error.message = message;
	answer_tell_halves(a);
	answer_tell(a, &d);
}

void
answer_fail(struct answer *a, enum errtype type)
{
	answer_fail_words(a, type, NULL, NULL, NULL);
}

static const char *
word_or_null(const char *s)
{
	return s[0] != '\0' ? s : NULL;
}

bool
answer_fail_json(struct answer *a, struct json_object *o)
{
	struct failure f;

	if (!failure_read_json(o, &f))
		return false;
	answer_fail_words(a, f.type, word_or_null(f.upstream_type),
	    word_or_null(f.upstream_code), word_or_null(f.message));
	return true;
}

/* ---- JSON ---- */

/* The UTF-16 unit whose escape begins at p, or 0. */
static unsigned
escaped_unit(const char *p, size_t n)
{
	unsigned unit = 0;
	size_t i;

	if (n < 6 || p[0] != '\\' || p[1] != 'u')
		return 0;
	for (i = 2; i < 6; i++) {
		char c = p[i];

		unit <<= 4;
		if (c >= '0' && c <= '9')
			unit |= (unsigned)(c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			unit |= (unsigned)((c | 0x20) - 'a' + 10);
		else
			return 0;
	}
	return unit;
}

/* json-c makes U+FFFD of each escaped surrogate that stands alone; its bytes
 * it would pass on.  So they take the escape's place: all of the text is then
 * in *copy, which stays empty where there is none. */
static void
surrogates_unescape(const char *p, size_t n, struct buf *copy)
{
	const char *end = p + n, *plain = p, *at = p;

	while (end - at > 1 &&
	    (at = memchr(at, '\\', (size_t)(end - at))) != NULL) {
		unsigned unit = escaped_unit(at, (size_t)(end - at));
		const char utf8[3] = {
			(char)0xed,
			(char)(0x80 | (unit >> 6 & 0x3f)),
			(char)(0x80 | (unit & 0x3f)),
		};

		if (!is_high(unit) && !is_low(unit)) {
			at += 2;
			continue;
		}
		if (is_high(unit) &&
		    is_low(escaped_unit(at + 6, (size_t)(end - at - 6)))) {
			at += 12;
			continue;
		}
		buf_add(copy, plain, (size_t)(at - plain));
		buf_add(copy, utf8, sizeof utf8);
		plain = at += 6;
	}
	if (plain != p)
		buf_add(copy, plain, (size_t)(end - plain));
}

/* RS_OK; RS_ERANGE: it is cut short; RS_EINVAL, RS_ENOMEM. */
static enum rs_err
answer_tokens(const char *p, size_t n, struct json_object **ret)
{
	struct json_tokener *tok = json_tokener_new_ex(DEPTH_MAX + 1);
	enum rs_err err = RS_EINVAL;
	struct json_object *o;

	if (tok == NULL)
		return RS_ENOMEM;
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT);
	/* It does not notice when its buffer cannot grow. */
	if (printbuf_memset(tok->pb, 0, 0, (int)n) < 0) {
		json_tokener_free(tok);
		return RS_ENOMEM;
	}
	printbuf_reset(tok->pb);
	o = json_tokener_parse_ex(tok, p, (int)n);
	if (json_tokener_get_error(tok) == json_tokener_continue)
		err = RS_ERANGE;
	else if (json_tokener_get_error(tok) == json_tokener_success)
		err = RS_OK;
	json_tokener_free(tok);
	/* Providers look for members only. */
	if (err == RS_OK && !json_object_is_type(o, json_type_object) &&
	    !json_object_is_type(o, json_type_array)) {
		json_object_put(o);
		err = RS_EINVAL;
	}
	if (err == RS_OK)
		*ret = o;
	return err;
}

static enum rs_err
answer_json(const char *p, size_t n, struct json_object **ret)
{
	enum rs_err err;
	struct buf copy;

	buf_init(&copy, ANSWER_EVENT_MAX);
	surrogates_unescape(p, n, &copy);
	err = copy.err;
	if (err == RS_OK && copy.len > 0)
		err = answer_tokens(copy.data, copy.len, ret);
	else if (err == RS_OK)
		err = answer_tokens(p, n, ret);
	buf_done(&copy);
	return err;
}

struct json_object *
answer_parse(struct answer *a, const char *p, size_t n)
{
	struct json_object *o;
	enum rs_err err;

	if ((err = answer_json(p, n, &o)) == RS_OK)
		return o;
	if (err == RS_ERANGE && a->cut)
		answer_fail(a, ERRTYPE_upstream_truncated);
	else
		answer_fail_err(a, err);
	return NULL;
}

/* ---- bytes ---- */

static bool
is_blank(const char *p, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (p[i] != ' ' && p[i] != '\t' && p[i] != '\n' &&
		    p[i] != '\r')
			return false;
	return true;
}

/* "error: {...}", as some servers write what they should have written behind
 * "data:". */
static void
answer_stray_error(struct answer *a, const char *p, size_t n)
{
	struct json_object *outer, *inner;
	size_t skip = n > 0 && *p == ' '; /* as behind "data:" */

	p += skip;
	n -= skip;
	if (answer_json(p, n, &inner) != RS_OK &&
	    (inner = json_object_new_string_len(p, (int)n)) == NULL) {
		answer_fail(a, ERRTYPE_internal);
		return;
	}
	outer = json_object_new_object();
	if (outer == NULL || json_object_object_add(outer, "error", inner) < 0)
		json_object_put(inner);
	if (outer == NULL || !answer_fail_json(a, outer))
		answer_fail(a, ERRTYPE_upstream_error);
	json_object_put(outer);
}

static void
answer_stray(struct answer *a, const struct sse_event *ev)
{
	size_t skip = strspn(ev->data, " \t");

	if (ev->data_len > 6 && memcmp(ev->data, "error:", 6) == 0) {
		answer_stray_error(a, ev->data + 6, ev->data_len - 6);
		return;
	}
	if (a->body.len == 0 && ev->data[skip] != '{' &&
	    ev->data[skip] != '[') {
		a->junk = true;
		return;
	}
	buf_add(&a->body, ev->data, ev->data_len);
	buf_add(&a->body, "\n", 1);
	if (a->body.err != RS_OK)
		answer_fail_err(a, a->body.err);
}

static enum rs_err
answer_event(void *arg, const struct sse_event *ev)
{
	struct answer *a = arg;

	if (ev->kind == SSE_STRAY) {
		answer_stray(a, ev);
	} else if (a->provider->framing == FRAMING_TEXT_LINES ||
	    a->provider->framing == FRAMING_BYTES ||
	    !is_blank(ev->data, ev->data_len)) {
		a->events = true;
		a->cut = ev->cut;
		a->provider->event(a, ev);
	}
	return a->over ? RS_ECLOSED : RS_OK;
}

/* One piece of what is no event stream. */
static void
answer_piece(struct answer *a, const char *p, size_t n, bool cut)
{
	const struct sse_event ev = { .kind = SSE_EVENT, .name = "message",
		.name_len = 7, .data = p, .data_len = n, .id = "",
		.cut = cut };

	answer_event(a, &ev);
}

static void
answer_lines(struct answer *a, const char *p, size_t n)
{
	const char *end = p + n, *eol;

	while (!a->over && p < end) {
		eol = memchr(p, '\n', (size_t)(end - p));
		buf_add(&a->line, p, (size_t)((eol ? eol + 1 : end) - p));
		if (a->line.err != RS_OK)
			answer_fail_err(a, a->line.err);
		if (eol == NULL)
			break;
		if (!a->over)
			answer_piece(a, a->line.data, a->line.len, false);
		buf_clear(&a->line);
		p = eol + 1;
	}
}

void
answer_feed(struct answer *a, const char *p, size_t n)
{
	enum rs_err err;

	if (a->over || n == 0)
		return;
	switch (a->provider->framing) {
	case FRAMING_SSE:
		err = sse_parser_feed(&a->sse, p, n, answer_event, a);
		if (err != RS_OK && !a->over)
			answer_fail_err(a, err);
		break;
	case FRAMING_LINES:
	case FRAMING_TEXT_LINES:
		answer_lines(a, p, n);
		break;
	case FRAMING_BYTES:
		answer_piece(a, p, n, false);
		break;
	}
}

/* The JSON that was found outside of events, once: an error, or a whole
 * answer when nothing else was there.  True: the answer is over. */
static bool
answer_read_body(struct answer *a)
{
	struct json_object *o;
	struct buf body = a->body;
	enum rs_err err;

	buf_init(&a->body, ANSWER_EVENT_MAX);
	if (body.len == 0)
		return false;
	if ((err = answer_json(body.data, body.len, &o)) == RS_OK) {
		if (!answer_fail_json(a, o) && !a->events &&
		    a->provider->whole != NULL)
			a->provider->whole(a, o);
		json_object_put(o);
	} else if (!a->events && err != RS_ERANGE) {
		answer_fail_err(a, err);
	}
	buf_done(&body);
	return a->over;
}

void
answer_finish(struct answer *a)
{
	struct delta d = { .kind = DELTA_FINISH, .finish = a->finish,
		.native_finish = word_or_null(a->native) };

	if (answer_read_body(a))
		return;
	answer_tell_halves(a);
	answer_tell(a, &d);
}

void
answer_end(struct answer *a, bool whole)
{
	enum rs_err err = RS_OK;

	if (!a->over && whole && a->provider->framing == FRAMING_SSE)
		err = sse_parser_eof(&a->sse, answer_event, a);
	if (err != RS_OK && !a->over)
		answer_fail_err(a, err);
	if (!a->over && whole && a->line.len > 0)
		answer_piece(a, a->line.data, a->line.len, true);
	if (a->over || answer_read_body(a))
		return;
	if (whole)
		a->provider->end(a);
	/* Nothing but a page of HTML, for instance. */
	if (whole && a->junk && !a->events)
		answer_fail(a, ERRTYPE_upstream_bad_json);
	answer_fail(a, ERRTYPE_upstream_truncated);
}
