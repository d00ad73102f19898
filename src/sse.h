/* sse.h - our frames, both ways; bytes in, bytes out, no I/O.
 * A frame is one Server-Sent Event in exactly this form:
 *	event: NAME\n
 *	id: N\n
 *	retry: 10000\n
 *	data: {...}\n
 *	\n
 * NAME is 1 to 64 of a-z and _; N is decimal without leading zeros; the data
 * is one JSON object on one line, so a frame has no empty line but its end,
 * no CR and no NUL, and "\n\n" is always a boundary. */
#ifndef RESPOOL_SSE_H
#define RESPOOL_SSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "buf.h"

#define SSE_FRAME_MAX 16384	/* bytes of a whole frame */
#define SSE_EVENT_MAX 64	/* bytes of an event's name */
/* What is left for the data when everything else is at its longest. */
#define SSE_DATA_MAX (SSE_FRAME_MAX - 128)
/* The longest text of one delta: each of its bytes can become six, "\u0000",
 * and other fields stand beside it. */
#define SSE_TEXT_MAX 2048

/* What stands before and after the data, for who writes that into b itself. */
void sse_frame_begin(struct buf *b, const char *event, uint64_t id);
void sse_frame_end(struct buf *b);
/* Adds one frame.  json is one line, an object. */
void sse_frame_write(struct buf *b, const char *event, uint64_t id,
    const char *json, size_t len);

struct sse_frame {
	const char *event; /* lent from the bytes scanned, not terminated */
	size_t event_len;
	uint64_t id;
	const char *data;
	size_t data_len;
	size_t size;	/* bytes of the whole frame */
	bool terminal;	/* done, complete or error: the last of its stream */
};

enum sse_scan {
	SSE_FRAME,	/* *ret is the frame at p */
	SSE_PARTIAL,	/* n bytes may be the beginning of a frame */
	SSE_BAD,	/* no bytes after these can make it one */
};

/* Looks at the n bytes at p, which begin where a frame should. */
enum sse_scan sse_frame_scan(const char *p, size_t n, struct sse_frame *ret);

/* True when the frame's event is that name. */
bool sse_frame_is(const struct sse_frame *f, const char *event);

#endif
