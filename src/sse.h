/* sse.h - Server-Sent Events, both ways; bytes in, bytes out, no I/O: first
 * our own frames, which are strict, then any event, as the WHATWG's standard
 * has it.
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

/* Adds one event of any text.  event and id: NULL for none; retry_ms: -1 for
 * none; data: NULL for none.  Each line of the data, and what is behind its
 * last line end, becomes one data line: a reader sees the same text with LF
 * for CR LF and for CR.  Other bytes go out as they are.
 * RS_EINVAL, with nothing added: event or id holds CR or LF.  Else b->err. */
enum rs_err sse_event_write(struct buf *b, const char *event, const char *id,
    int64_t retry_ms, const char *data, size_t len);

enum sse_kind {
	SSE_EVENT,
	/* A line that is no field of the format, whole, as its data: the
	 * standard ignores it, but upstreams report errors in such lines.
	 * It comes at once, before the event in whose lines it stands. */
	SSE_STRAY,
};

/* What a callback is lent until it returns.  The texts are terminated, and
 * may hold NULs too. */
struct sse_event {
	enum sse_kind kind;
	const char *name; /* "message" when the event does not say */
	size_t name_len;
	const char *data; /* its lines, joined with LF; may be empty */
	size_t data_len;
	const char *id; /* the last one seen, of this event or before */
	size_t id_len;
	bool cut; /* the bytes ended within it: it may be a part */
};

/* Anything but RS_OK stops the parser. */
typedef enum rs_err sse_event_fn(void *arg, const struct sse_event *ev);

/* Takes any bytes, cut anywhere.  An event without a data line is none; one
 * whose data lines are empty is one with empty data. */
struct sse_parser {
	uint64_t comments;	/* lines seen, to be read by the caller */
	int64_t retry_ms;	/* the last one seen, or -1; likewise */
	struct buf line;	/* what came of the line so far */
	struct buf data, name, id;
	bool has_data;
	bool started;		/* the first line is behind */
	bool after_cr;		/* a LF now belongs to the CR before it */
	enum rs_err err;	/* once not RS_OK, it stays */
};

/* max: bytes of the longest line, and of the data of the largest event.
 * Allocates nothing. */
void sse_parser_init(struct sse_parser *p, size_t max);
void sse_parser_done(struct sse_parser *p);

/* Calls event for each event that ends in these bytes.  Takes time in
 * proportion to len, however the bytes are cut.
 * RS_ETOOBIG, RS_ENOMEM, or what event returned: the rest is not looked at,
 * and all later calls return the same at once. */
enum rs_err sse_parser_feed(struct sse_parser *p, const char *data,
    size_t len, sse_event_fn *event, void *arg);

/* No more bytes come: the last line counts though no line end is there, and
 * an event though no empty line is; its cut is true.  (The standard drops
 * both.)  Errors as above. */
enum rs_err sse_parser_eof(struct sse_parser *p, sse_event_fn *event,
    void *arg);

#endif
