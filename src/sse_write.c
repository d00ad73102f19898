/* sse_write.c - one frame, written. */
#include <inttypes.h>

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
