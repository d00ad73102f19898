/* sse_write.c - one frame, or any event, written. */
#include <inttypes.h>
#include <string.h>

#include "sse.h"

void
sse_frame_begin(struct buf *b, const char *event, uint64_t id)
{
	buf_printf(b, "event: %s\nid: %" PRIu64 "\nretry: 10000\ndata: ",
	    event, id);
}

void
sse_frame_end(struct buf *b)
{
	buf_add(b, "\n\n", 2);
}

void
sse_frame_write(struct buf *b, const char *event, uint64_t id,
    const char *json, size_t len)
{
	sse_frame_begin(b, event, id);
	buf_add(b, json, len);
	sse_frame_end(b);
}

/* The first line end from p on, or end. */
static const char *
sse_line_end(const char *p, const char *end)
{
	while (p < end && *p != '\n' && *p != '\r')
		p++;
	return p;
}

static bool
sse_is_line(const char *s)
{
	return s == NULL || strpbrk(s, "\r\n") == NULL;
}

enum rs_err
sse_event_write(struct buf *b, const char *event, const char *id,
    int64_t retry_ms, const char *data, size_t len)
{
	const char *end = data != NULL ? data + len : NULL, *eol;

	if (!sse_is_line(event) || !sse_is_line(id))
		return RS_EINVAL;
	if (event != NULL)
		buf_printf(b, "event: %s\n", event);
	if (id != NULL)
		buf_printf(b, "id: %s\n", id);
	if (retry_ms >= 0)
		buf_printf(b, "retry: %" PRId64 "\n", retry_ms);
	while (data != NULL) {
		eol = sse_line_end(data, end);
		buf_puts(b, "data: ");
		buf_add(b, data, (size_t)(eol - data));
		buf_puts(b, "\n");
		if (eol == end)
			break;
		data = eol + (*eol == '\r' && eol + 1 < end &&
		    eol[1] == '\n' ? 2 : 1);
	}
	buf_puts(b, "\n");
	return b->err;
}
