/* sse_parse.c - any event stream, read. */
#include <string.h>

#include "sse.h"

void
sse_parser_init(struct sse_parser *p, size_t max)
{
	memset(p, 0, sizeof *p);
	p->retry_ms = -1;
	buf_init(&p->line, max);
	buf_init(&p->data, max);
	buf_init(&p->name, max);
	buf_init(&p->id, max);
}

void
sse_parser_done(struct sse_parser *p)
{
	buf_done(&p->line);
	buf_done(&p->data);
	buf_done(&p->name);
	buf_done(&p->id);
}

static const char *
sse_text_of(const struct buf *b)
{
	return b->len > 0 ? b->data : "";
}

static enum rs_err
sse_set(struct buf *b, const char *p, size_t n)
{
	buf_clear(b);
	buf_add(b, p, n);
	return b->err;
}

/* An empty line, or the end: what was gathered becomes an event. */
static enum rs_err
sse_dispatch(struct sse_parser *p, bool cut, sse_event_fn *event, void *arg)
{
	bool named = p->name.len > 0;
	const struct sse_event ev = {
		.kind = SSE_EVENT,
		.name = named ? p->name.data : "message",
		.name_len = named ? p->name.len : sizeof "message" - 1,
		.data = sse_text_of(&p->data),
		.data_len = p->data.len,
		.id = sse_text_of(&p->id),
		.id_len = p->id.len,
		.cut = cut,
	};
	enum rs_err err = RS_OK;

	if (p->has_data)
		err = event(arg, &ev);
	buf_clear(&p->data);
	buf_clear(&p->name);
	p->has_data = false;
	return err;
}

/* Copied, so that it is terminated as an event's data is. */
static enum rs_err
sse_stray(struct sse_parser *p, const char *line, size_t len, bool cut,
    sse_event_fn *event, void *arg)
{
	struct sse_event ev = {
		.kind = SSE_STRAY,
		.name = "",
		.data_len = len,
		.id = sse_text_of(&p->id),
		.id_len = p->id.len,
		.cut = cut,
	};

	if (p->line.len == 0)
		buf_add(&p->line, line, len);
	if (p->line.err != RS_OK)
		return p->line.err;
	ev.data = p->line.data + (p->line.len - len);
	return event(arg, &ev);
}

/* Digits only; one beyond the type is not taken. */
static void
sse_set_retry(struct sse_parser *p, const char *value, size_t len)
{
	int64_t ms = 0;

	if (len == 0)
		return;
	for (size_t i = 0; i < len; i++)
		if (value[i] < '0' || value[i] > '9' ||
		    __builtin_mul_overflow(ms, INT64_C(10), &ms) ||
		    __builtin_add_overflow(ms, (int64_t)(value[i] - '0'),
		    &ms))
			return;
	p->retry_ms = ms;
}

static enum rs_err
sse_add_data(struct sse_parser *p, const char *value, size_t len)
{
	if (p->has_data)
		buf_add(&p->data, "\n", 1);
	buf_add(&p->data, value, len);
	p->has_data = true;
	return p->data.err;
}

/* One line, without its end. */
static enum rs_err
sse_line(struct sse_parser *p, const char *line, size_t len, bool cut,
    sse_event_fn *event, void *arg)
{
	const char *colon, *value, *end = line + len;
	size_t name_len;

	if (!p->started && len >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
		line += 3;
		len -= 3;
	}
	p->started = true;
	if (len == 0)
		return sse_dispatch(p, false, event, arg);
	colon = memchr(line, ':', len);
	if (colon == line) {
		p->comments++;
		return RS_OK;
	}
	name_len = colon != NULL ? (size_t)(colon - line) : len;
	value = colon != NULL ? colon + 1 : end;
	if (value < end && *value == ' ')
		value++;
	len = (size_t)(end - value);
	if (name_len == 4 && memcmp(line, "data", 4) == 0)
		return sse_add_data(p, value, len);
	if (name_len == 5 && memcmp(line, "event", 5) == 0)
		return sse_set(&p->name, value, len);
	if (name_len == 2 && memcmp(line, "id", 2) == 0)
		return memchr(value, '\0', len) != NULL ? RS_OK :
		    sse_set(&p->id, value, len);
	if (name_len == 5 && memcmp(line, "retry", 5) == 0) {
		sse_set_retry(p, value, len);
		return RS_OK;
	}
	return sse_stray(p, line, (size_t)(end - line), cut, event, arg);
}

enum rs_err
sse_parser_feed(struct sse_parser *p, const char *data, size_t len,
    sse_event_fn *event, void *arg)
{
	const char *at = data, *end, *eol;

	if (len == 0)
		return p->err;
	end = data + len;
	while (p->err == RS_OK && at < end) {
		if (p->after_cr && *at == '\n')
			at++;
		p->after_cr = false;
		/* Not two memchrs: where only one of them ever comes, the
		 * other's search would go to the end for each line. */
		for (eol = at; eol < end && *eol != '\n' && *eol != '\r';)
			eol++;
		if (eol == end || p->line.len > 0) {
			buf_add(&p->line, at, (size_t)(eol - at));
			p->err = p->line.err;
		} else if ((size_t)(eol - at) > p->line.max)
			p->err = RS_ETOOBIG;
		if (eol == end || p->err != RS_OK)
			break;
		if (p->line.len > 0)
			p->err = sse_line(p, p->line.data, p->line.len, false,
			    event, arg);
		else
			p->err = sse_line(p, at, (size_t)(eol - at), false,
			    event, arg);
		buf_clear(&p->line);
		p->after_cr = *eol == '\r';
		at = eol + 1;
	}
	return p->err;
}

enum rs_err
sse_parser_eof(struct sse_parser *p, sse_event_fn *event, void *arg)
{
	if (p->err == RS_OK && p->line.len > 0) {
		p->err = sse_line(p, p->line.data, p->line.len, true, event,
		    arg);
		buf_clear(&p->line);
	}
	if (p->err == RS_OK)
		p->err = sse_dispatch(p, true, event, arg);
	return p->err;
}
