/* fuzz_spool.c - any bytes as a stream's file: all ways to look at it agree,
 * and sealing mends it. */
#include <string.h>

#include "fuzz.h"
#include "spool_fixture.h"

#define FRAMES_MAX 4096
#define SEEKS 16 /* of ids, beside all of the first ones */

/* What the bytes hold, frame after frame: what spool_scan must find. */
struct truth {
	struct stream_tail tail;
	bool clean;	/* only a frame cut short follows */
	uint64_t at[FRAMES_MAX];
};

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	fx_setup();
	atexit(fx_teardown);
	return 0;
}

/* 0xff N stands for 64 * N letters, so that little input makes large frames;
 * input without a head gets one. */
static void
expand(const uint8_t *p, size_t n, struct buf *b)
{
	static const char letters[] = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
	    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
	const struct stream_head h = fx_head();
	size_t i;

	buf_init(b, 1 << 26);
	if (n > 0 && p[0] == 'e')
		stream_head_encode(b, &h);
	for (i = 0; i < n; i++) {
		if (p[i] != 0xff || i + 1 == n)
			buf_add(b, &p[i], 1);
		else
			for (int left = p[++i]; left > 0; left--)
				buf_add(b, letters, 64);
	}
	ck_assert_int_eq(b->err, RS_OK);
}

static void
find_truth(const struct buf *b, size_t head, struct truth *t)
{
	enum sse_scan what = SSE_PARTIAL;
	struct sse_frame f;

	t->tail = (struct stream_tail){ .end = head };
	while (!t->tail.ended && t->tail.end < b->len &&
	    t->tail.count < FRAMES_MAX) {
		what = sse_frame_scan(b->data + t->tail.end,
		    b->len - t->tail.end, &f);
		if (what != SSE_FRAME || f.id != t->tail.count)
			break;
		t->at[t->tail.count++] = t->tail.end;
		t->tail.end += f.size;
		t->tail.ended = f.terminal;
	}
	t->tail.torn = t->tail.end < b->len;
	t->clean = !t->tail.torn || (!t->tail.ended && what == SSE_PARTIAL);
}

static void
check_equal(const struct stream_tail *a, const struct stream_tail *b)
{
	assert(a->count == b->count && a->end == b->end);
	assert(a->ended == b->ended && a->torn == b->torn);
}

static void
check_head(const struct stream_head *h)
{
	struct stream_head again;
	struct buf a, b;
	size_t size;

	buf_init(&a, SPOOL_HEAD_MAX);
	buf_init(&b, SPOOL_HEAD_MAX);
	stream_head_encode(&a, h);
	assert(a.err == RS_OK);
	assert(stream_head_decode(a.data, a.len, &again, &size) == RS_OK);
	stream_head_encode(&b, &again);
	assert(size == a.len && b.len == a.len &&
	    memcmp(a.data, b.data, a.len) == 0);
	buf_done(&a);
	buf_done(&b);
}

/* What is found has that id, whatever the file is like. */
static void
check_seek(const struct spool_reader *r, const struct buf *b,
    const struct truth *t, uint64_t end, uint64_t id)
{
	struct sse_frame f;
	uint64_t off = 0;
	enum rs_err err = spool_seek(r, end, id, &off);

	if (err == RS_OK) {
		assert(off >= r->head_size && off < end);
		assert(sse_frame_scan(b->data + off, b->len - off, &f) ==
		    SSE_FRAME && f.id == id);
	}
	if (t->clean)
		assert(id < t->tail.count ? err == RS_OK && off == t->at[id] :
		    err == RS_ERANGE);
	else
		assert(err == RS_OK || err == RS_ERANGE ||
		    err == RS_ECORRUPT);
}

static void
check_reading(const struct spool_reader *r, const struct buf *b,
    const struct truth *t)
{
	struct stream_tail tail;
	enum rs_err err;
	uint64_t id, step;

	check_head(&r->head);
	assert(spool_scan(r, NULL, &tail) == RS_OK);
	check_equal(&tail, &t->tail);
	err = spool_tail(r, &tail);
	assert(err == RS_OK || (err == RS_ECORRUPT && !t->clean));
	if (err != RS_OK)
		return;
	if (t->clean)
		check_equal(&tail, &t->tail);
	step = tail.count / SEEKS + 1;
	for (id = 0; id < tail.count; id += id < SEEKS ? 1 : step)
		check_seek(r, b, t, tail.end, id);
	check_seek(r, b, t, tail.end, tail.count);
	check_seek(r, b, t, tail.end, UINT64_MAX);
}

/* The frames that were right are still there, and an ending. */
static void
check_sealed(const struct spool_reader *r, const struct buf *before,
    const struct stream_tail *good)
{
	struct stream_tail tail;
	struct fold *fold;
	struct buf b, again;

	assert(spool_seal(fx_sp, &fx_key) == RS_OK);
	fx_read(&fx_key, &b);
	assert(b.len >= good->end &&
	    memcmp(b.data, before->data, good->end) == 0);
	ck_assert_int_eq(fold_new(b.len, &fold), RS_OK);
	assert(spool_scan(r, fold, &tail) == RS_OK);
	assert(tail.ended && !tail.torn && tail.end == b.len);
	assert(tail.count == good->count + (good->ended ? 0 : 1));
	fold_free(fold);
	assert(spool_seal(fx_sp, &fx_key) == RS_OK);
	fx_read(&fx_key, &again);
	assert(again.len == b.len && memcmp(again.data, b.data, b.len) == 0);
	buf_done(&again);
	buf_done(&b);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct truth truth;
	int next_fd = fuzz_next_fd();
	struct spool_reader r;
	struct stream_tail good;
	struct fold *fold;
	enum rs_err err;
	struct buf b;

	expand(data, size, &b);
	fx_write(&fx_key, b.data, b.len);
	if ((err = spool_find(fx_sp, &fx_key, &r)) == RS_OK) {
		find_truth(&b, r.head_size, &truth);
		check_reading(&r, &b, &truth);
		ck_assert_int_eq(fold_new(b.len, &fold), RS_OK);
		assert(spool_scan(&r, fold, &good) == RS_OK);
		fold_free(fold);
		assert(good.count <= truth.tail.count);
		check_sealed(&r, &b, &good);
		spool_reader_done(&r);
	} else {
		assert(err == (b.len == 0 ? RS_ENOENT : RS_ECORRUPT));
		assert(spool_seal(fx_sp, &fx_key) == err);
	}
	fuzz_forget_usage(fx_sp);
	assert(fuzz_next_fd() == next_fd);
	buf_done(&b);
	return 0;
}
