/* fuzz_sse.c - frames: what is read is written back to the same bytes, what
 * is written is read, and all of it can be folded. */
#include <string.h>
#include <json-c/json.h>

#include "dialect.h"
#include "fold.h"
#include "fuzz.h"
#include "jx.h"
#include "text.h"

/* Its bytes come from a frame, and all but the last of them are a part. */
static void
check_frame(const char *p, const struct sse_frame *f)
{
	char event[SSE_EVENT_MAX + 1];
	struct sse_frame g;
	struct buf b;
	char *part;

	assert(f->size <= SSE_FRAME_MAX && f->event_len <= SSE_EVENT_MAX);
	memcpy(event, f->event, f->event_len);
	event[f->event_len] = '\0';
	buf_init(&b, SSE_FRAME_MAX);
	sse_frame_write(&b, event, f->id, f->data, f->data_len);
	assert(b.err == RS_OK && b.len == f->size &&
	    memcmp(b.data, p, b.len) == 0);
	for (size_t n = 0; n < f->size; n += n < 128 ? 1 : 61) {
		part = malloc(n + 1); /* so that no byte behind it is read */
		memcpy(part + 1, p, n);
		assert(sse_frame_scan(part + 1, n, &g) == SSE_PARTIAL);
		free(part);
	}
	buf_done(&b);
}

static struct json_object *
snapshot(const struct fold *fold)
{
	struct json_object *o = NULL;
	const char *why;
	struct buf b;

	buf_init(&b, SIZE_MAX / 2);
	fold_put(fold, "id", "model", &b);
	assert(b.err == RS_OK);
	assert(jx_parse(b.data, b.len, &o, &why) == RS_OK);
	buf_done(&b);
	return o;
}

/* Any text can be sent, and valid text comes back as it was. */
static void
check_text(const char *p, size_t n)
{
	const struct delta d = { .kind = DELTA_CONTENT, .text = p, .len = n };
	struct json_object *o;
	struct sse_frame f;
	struct fold *fold;
	const char *text;
	struct streamer s = { .stream_id = "s" };
	struct buf b;
	size_t len;

	buf_init(&b, SIZE_MAX / 2);
	dialect_chunk(&b, &s, &d, 1);
	assert(s.next_id == 1 && sse_frame_scan(b.data, b.len, &f) == SSE_FRAME);
	assert(f.size == b.len && fold_new(3 * n, &fold) == RS_OK);
	assert(fold_add(fold, &f) == RS_OK);
	o = snapshot(fold);
	assert(jx_get_str(o, "text", &text, &len) == RS_OK);
	assert(!utf8_valid(p, n) || (len == n && memcmp(p, text, n) == 0));
	json_object_put(o);
	fold_free(fold);
	buf_done(&b);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *p = (const char *)data;
	enum rs_err err = RS_OK;
	struct sse_frame f;
	struct fold *fold;
	uint64_t id = 0;

	check_text(p, size < SSE_TEXT_MAX ? size : SSE_TEXT_MAX);
	assert(fold_new(size, &fold) == RS_OK);
	for (; sse_frame_scan(p, size, &f) == SSE_FRAME;
	    p += f.size, size -= f.size) {
		check_frame(p, &f);
		f.id = id; /* the order is not what we look for here */
		if (err == RS_OK && (err = fold_add(fold, &f)) == RS_OK)
			id++;
		assert(err == RS_OK || err == RS_ECORRUPT);
	}
	json_object_put(snapshot(fold));
	fold_free(fold);
	return 0;
}
