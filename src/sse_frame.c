/* sse_frame.c - one frame, recognised. */
#include <string.h>

#include "sse.h"

static const char after_id[] = "\nretry: 10000\ndata: {";

/* Goes over the literal text.  SSE_FRAME: it is there, whole. */
static enum sse_scan
sse_text(const char **p, const char *end, const char *text, size_t len)
{
	size_t have = (size_t)(end - *p);

	if (memcmp(*p, text, have < len ? have : len) != 0)
		return SSE_BAD;
	if (have < len)
		return SSE_PARTIAL;
	*p += len;
	return SSE_FRAME;
}

/* Goes over the event's name. */
static enum sse_scan
sse_event(const char **p, const char *end, struct sse_frame *f)
{
	const char *at = *p;

	while (at < end && ((*at >= 'a' && *at <= 'z') || *at == '_'))
		at++;
	f->event = *p;
	f->event_len = (size_t)(at - *p);
	*p = at;
	if (f->event_len > SSE_EVENT_MAX)
		return SSE_BAD;
	if (at == end)
		return SSE_PARTIAL;
	return f->event_len > 0 ? SSE_FRAME : SSE_BAD;
}

/* Goes over the id's digits. */
static enum sse_scan
sse_id(const char **p, const char *end, struct sse_frame *f)
{
	const char *at = *p;

	f->id = 0;
	for (; at < end && *at >= '0' && *at <= '9'; at++) {
		if (at > *p && f->id == 0)
			return SSE_BAD; /* a leading zero */
		if (__builtin_mul_overflow(f->id, UINT64_C(10), &f->id) ||
		    __builtin_add_overflow(f->id, (uint64_t)(*at - '0'),
		    &f->id))
			return SSE_BAD;
	}
	if (at == end)
		return SSE_PARTIAL;
	if (at == *p)
		return SSE_BAD;
	*p = at;
	return SSE_FRAME;
}

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Bit 7 of a byte is set where it is below 0x20 or is 0x7f, and nowhere else
 * but after such a one. */
static uint64_t
sse_controls(const char *p, size_t n)
{
	uint64_t eight = EACH(' '), del;

	memcpy(&eight, p, n);
	del = eight ^ EACH(0x7f);
	return ((eight - EACH(0x20)) & ~eight) | ((del - EACH(1)) & ~del);
}

/* Eight bytes at a time: this looks at every byte of a replay. */
static bool
sse_has_controls(const char *p, size_t n)
{
	uint64_t found = 0;

	for (; n >= 8; p += 8, n -= 8)
		found |= sse_controls(p, 8);
	found |= sse_controls(p, n);
	return (found & EACH(0x80)) != 0;
}

/* Looks at the data, from its '{' at p on, and at the end of the frame.
 * limit: where the largest frame would end. */
static enum sse_scan
sse_data(const char *p, const char *end, const char *limit,
    struct sse_frame *f)
{
	const char *line_end = memchr(p, '\n', (size_t)(end - p));
	size_t len = (size_t)((line_end != NULL ? line_end : end) - p);
	size_t need; /* bytes that are missing at least */

	if (sse_has_controls(p, len))
		return SSE_BAD;
	if (line_end == NULL) {
		need = len > 1 && p[len - 1] == '}' ? 2 : 3;
		return end + need <= limit ? SSE_PARTIAL : SSE_BAD;
	}
	if (len < 2 || p[len - 1] != '}')
		return SSE_BAD;
	if (line_end + 1 == end)
		return end < limit ? SSE_PARTIAL : SSE_BAD;
	if (line_end[1] != '\n')
		return SSE_BAD;
	f->data = p;
	f->data_len = len;
	return SSE_FRAME;
}

enum sse_scan
sse_frame_scan(const char *p, size_t n, struct sse_frame *ret)
{
	const char *at = p, *end;
	struct sse_frame f;
	enum sse_scan s;

	end = p + (n < SSE_FRAME_MAX ? n : SSE_FRAME_MAX);
	if ((s = sse_text(&at, end, "event: ", 7)) != SSE_FRAME ||
	    (s = sse_event(&at, end, &f)) != SSE_FRAME ||
	    (s = sse_text(&at, end, "\nid: ", 5)) != SSE_FRAME ||
	    (s = sse_id(&at, end, &f)) != SSE_FRAME ||
	    (s = sse_text(&at, end, after_id, sizeof after_id - 1)) !=
	    SSE_FRAME)
		return s;
	s = sse_data(at - 1, end, p + SSE_FRAME_MAX, &f);
	if (s != SSE_FRAME)
		return s;
	f.size = (size_t)(f.data + f.data_len + 2 - p);
	f.terminal = sse_frame_is(&f, "done") || sse_frame_is(&f, "error") ||
	    sse_frame_is(&f, "complete");
	*ret = f;
	return SSE_FRAME;
}

bool
sse_frame_is(const struct sse_frame *f, const char *event)
{
	return strlen(event) == f->event_len &&
	    memcmp(f->event, event, f->event_len) == 0;
}
