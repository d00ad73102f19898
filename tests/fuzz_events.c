/* fuzz_events.c - event streams: the same events wherever the bytes are cut,
 * and an event that is written is read as it was. */
#include <string.h>

#include "fuzz.h"
#include "sse.h"

#define MAX 4096

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	return 0;
}

/* All that an event says, in order. */
static enum rs_err
note(void *arg, const struct sse_event *ev)
{
	struct buf *b = arg;

	buf_printf(b, "%d %d %zu %zu %zu ", ev->kind, ev->cut, ev->name_len,
	    ev->data_len, ev->id_len);
	buf_add(b, ev->name, ev->name_len + 1);
	buf_add(b, ev->data, ev->data_len + 1);
	buf_add(b, ev->id, ev->id_len + 1);
	return b->err;
}

/* In pieces of the given size, or of other sizes with 0. */
static enum rs_err
read_all(const char *p, size_t n, size_t step, struct buf *out)
{
	struct sse_parser parser;
	enum rs_err err = RS_OK;
	size_t part;

	sse_parser_init(&parser, MAX);
	for (; n > 0 && err == RS_OK; p += part, n -= part) {
		part = step > 0 ? step : (unsigned char)*p % 7 + 1u;
		if (part > n)
			part = n;
		err = sse_parser_feed(&parser, p, part, note, out);
	}
	if (err == RS_OK)
		err = sse_parser_eof(&parser, note, out);
	sse_parser_done(&parser);
	return err;
}

/* Any text as data: its line ends become LF, and that is all. */
static void
check_written(const char *p, size_t n)
{
	struct buf written, read, want;
	size_t i;

	buf_init(&written, SIZE_MAX / 2);
	buf_init(&read, SIZE_MAX / 2);
	buf_init(&want, SIZE_MAX / 2);
	assert(sse_event_write(&written, "e", "i", 5, p, n) == RS_OK);
	assert(read_all(written.data, written.len, 0, &read) == RS_OK);
	for (i = 0; i < n; i++)
		if (p[i] != '\r')
			buf_add(&want, p + i, 1);
		else if (i + 1 == n || p[i + 1] != '\n')
			buf_add(&want, "\n", 1);
	buf_add(&want, "\0i", 3);
	assert(read.len >= want.len && memcmp(read.data + read.len - want.len,
	    want.data, want.len) == 0);
	buf_done(&written);
	buf_done(&read);
	buf_done(&want);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const size_t steps[] = { 1, 2, 3, 0 };
	const char *p = (const char *)data;
	struct buf whole, parts;
	enum rs_err err;
	size_t i;

	buf_init(&whole, SIZE_MAX / 2);
	buf_init(&parts, SIZE_MAX / 2);
	err = read_all(p, size, size + 1, &whole);
	assert(err == RS_OK || err == RS_ETOOBIG);
	for (i = 0; i < sizeof steps / sizeof steps[0]; i++) {
		buf_clear(&parts);
		assert(read_all(p, size, steps[i], &parts) == err);
		assert(parts.len == whole.len && (whole.len == 0 ||
		    memcmp(parts.data, whole.data, whole.len) == 0));
	}
	buf_done(&whole);
	buf_done(&parts);
	if (size < MAX - 100)
		check_written(p, size);
	return 0;
}
