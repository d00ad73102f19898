/* check_spool_find.c - reading files that are whole, cut and broken. */
#include "spool_fixture.h"

static const unsigned char flips[] = { 0x01, 0x20, 0x80, 0xff };

/* The same bytes, with a reader on them. */
static struct spool_reader
reader_on(const void *p, size_t n)
{
	fx_write(&fx_key, p, n);
	return fx_find(&fx_key);
}

/* Where each frame ends: a stream of _i frames cut at every byte. */
START_TEST(a_cut_file_has_its_whole_frames_and_no_torn_one)
{
	static const size_t sizes[] = { 0, 300, 0, 700, SSE_FRAME_MAX, 0 };
	const size_t count = sizeof sizes / sizeof *sizes;
	size_t head, ends[8];
	struct stream_tail t, s;
	struct spool_reader r;
	struct buf b;

	fx_stream(&b, sizes, 0, &head);
	for (size_t i = 0; i < count; i++) {
		fx_frame(&b, i, sizes[i]);
		ends[i] = b.len;
	}
	fx_done(&b, count);
	ends[count] = b.len;
	r = reader_on(b.data, b.len);
	for (size_t n = b.len; n >= head; n--) {
		uint64_t whole = 0;

		ck_assert_int_eq(truncate(fx_path(&fx_key), (off_t)n), 0);
		while (whole <= count && ends[whole] <= n)
			whole++;
		ck_assert_int_eq(spool_tail(&r, &t), RS_OK);
		ck_assert_uint_eq(t.count, whole);
		ck_assert_uint_eq(t.end, whole == 0 ? head : ends[whole - 1]);
		ck_assert_int_eq(t.torn, n > t.end);
		ck_assert_int_eq(t.ended, whole == count + 1);
		if (n % 13 == 0 || n > ends[count - 1] || n < ends[3]) {
			ck_assert_int_eq(spool_scan(&r, NULL, &s), RS_OK);
			ck_assert_uint_eq(t.count, s.count);
			ck_assert_uint_eq(t.end, s.end);
			ck_assert_int_eq(t.torn, s.torn);
			ck_assert_int_eq(t.ended, s.ended);
		}
	}
	spool_reader_done(&r);
	buf_done(&b);
}
END_TEST

START_TEST(a_file_cut_in_its_head_is_corrupt)
{
	struct spool_reader r;
	size_t head;
	struct buf b;

	fx_stream(&b, NULL, 0, &head);
	for (size_t n = 1; n < head; n++) {
		fx_write(&fx_key, b.data, n);
		ck_assert_int_eq(spool_find(fx_sp, &fx_key, &r), RS_ECORRUPT);
	}
	fx_write(&fx_key, b.data, 0);
	ck_assert_int_eq(spool_find(fx_sp, &fx_key, &r), RS_ENOENT);
	buf_done(&b);
}
END_TEST

/* What readers do with one wrong byte: they may not see it (in a text), but
 * they stay within the file and on what looks like frames. */
static void
check_broken(const struct spool_reader *r, size_t at, size_t head,
    const size_t *ends, size_t count)
{
	struct stream_tail t, s;
	enum rs_err err;
	uint64_t off;

	ck_assert_int_eq(spool_scan(r, NULL, &s), RS_OK);
	/* Frames before the wrong byte are all there. */
	for (size_t i = 0; i < count && ends[i] <= at; i++)
		ck_assert_uint_gt(s.count, i);
	ck_assert_uint_le(s.count, count);
	ck_assert_uint_eq(s.end, s.count == 0 ? head : ends[s.count - 1]);
	err = spool_tail(r, &t);
	ck_assert(err == RS_OK || err == RS_ECORRUPT);
	if (err == RS_OK)
		ck_assert_uint_le(t.end, ends[count - 1]);
	if (err == RS_OK && s.count == count) {
		ck_assert_uint_eq(t.count, count);
		ck_assert_uint_eq(t.end, s.end);
		ck_assert_int_eq(t.ended, s.ended);
	}
	for (uint64_t id = 0; id <= count; id++) {
		err = spool_seek(r, ends[count - 1], id, &off);
		ck_assert(err == RS_OK || err == RS_ECORRUPT ||
		    err == RS_ERANGE);
		if (err == RS_OK)
			ck_assert_uint_lt(off, ends[count - 1]);
	}
}

START_TEST(a_wrong_byte_is_found_or_does_no_harm)
{
	enum { COUNT = 5 };
	size_t head, ends[COUNT];
	struct spool_reader r;
	struct buf b;
	int fd;

	fx_stream(&b, NULL, 0, &head);
	for (size_t i = 0; i + 1 < COUNT; i++) {
		fx_frame(&b, i, 0);
		ends[i] = b.len;
	}
	fx_done(&b, COUNT - 1);
	ends[COUNT - 1] = b.len;
	r = reader_on(b.data, b.len);
	fd = open(fx_path(&fx_key), O_WRONLY);
	for (size_t at = head; at < b.len; at++) {
		for (size_t j = 0; j <= sizeof flips; j++) {
			char c = j < sizeof flips ?
			    (char)(b.data[at] ^ flips[j]) : '\0';

			ck_assert_int_eq(pwrite(fd, &c, 1, (off_t)at), 1);
			check_broken(&r, at, head, ends, COUNT);
		}
		ck_assert_int_eq(pwrite(fd, b.data + at, 1, (off_t)at), 1);
	}
	close(fd);
	spool_reader_done(&r);
	buf_done(&b);
}
END_TEST

static const struct {
	const char *what;
	char fill;
	size_t frames, len;
} garbage[] = {
	{ "zeros", '\0', 3, 10 }, { "zeros", '\0', 0, 10 },
	{ "one zero", '\0', 3, 1 },
	{ "many zeros", '\0', 3, 3 * SSE_FRAME_MAX },
	{ "line ends", '\n', 3, 1 }, { "line ends", '\n', 3, 2 },
	{ "line ends", '\n', 0, 3 },
	{ "many line ends", '\n', 3, 3 * SSE_FRAME_MAX },
	{ "letters", 'x', 3, 1 }, { "letters", 'e', 3, 2 },
	{ "many letters", 'x', 3, 3 * SSE_FRAME_MAX },
	{ "ones", '\xff', 3, 100 },
};

START_TEST(a_tail_of_garbage_is_corrupt)
{
	static const size_t sizes[3] = { 0, 0, 0 };
	struct spool_reader r;
	struct stream_tail t;
	size_t head, end;
	struct buf b;

	fx_stream(&b, sizes, garbage[_i].frames, &head);
	end = b.len;
	for (size_t i = 0; i < garbage[_i].len; i++)
		buf_add(&b, &garbage[_i].fill, 1);
	r = reader_on(b.data, b.len);
	ck_assert_int_eq(spool_tail(&r, &t), RS_ECORRUPT);
	ck_assert_int_eq(spool_scan(&r, NULL, &t), RS_OK);
	ck_assert_uint_eq(t.count, garbage[_i].frames);
	ck_assert_uint_eq(t.end, end);
	ck_assert(t.torn);
	spool_reader_done(&r);
	buf_done(&b);
}
END_TEST

START_TEST(nothing_may_follow_a_terminal_frame)
{
	struct spool_reader r;
	struct stream_tail t;
	size_t head, end, one = 0;
	struct buf b;

	fx_stream(&b, &one, 1, &head);
	fx_done(&b, 1);
	end = b.len;
	if (_i == 0)
		buf_puts(&b, "event: mess");
	else
		fx_frame(&b, 2, 0);
	r = reader_on(b.data, b.len);
	if (_i == 0)
		ck_assert_int_eq(spool_tail(&r, &t), RS_ECORRUPT);
	ck_assert_int_eq(spool_scan(&r, NULL, &t), RS_OK);
	ck_assert(t.ended && t.torn);
	ck_assert_uint_eq(t.end, end);
	spool_reader_done(&r);
	buf_done(&b);
}
END_TEST

/* A byte of the file's end costs no more than one of its beginning. */
START_TEST(the_scan_goes_through_frames_of_every_size)
{
	struct spool_reader r;
	struct stream_tail t;
	size_t head, sizes[40];
	struct buf b;

	for (size_t i = 0; i < 40; i++)
		sizes[i] = i % 3 == 0 ? SSE_FRAME_MAX - i / 3 : i * 100;
	fx_stream(&b, sizes, 40, &head);
	r = reader_on(b.data, b.len);
	ck_assert_int_eq(spool_scan(&r, NULL, &t), RS_OK);
	ck_assert_uint_eq(t.count, 40);
	ck_assert_uint_eq(t.end, b.len);
	ck_assert(!t.torn);
	/* A frame that is one byte too large is none. */
	fx_frame(&b, 40, SSE_FRAME_MAX + 1);
	fx_frame(&b, 41, 0);
	spool_reader_done(&r);
	r = reader_on(b.data, b.len);
	ck_assert_int_eq(spool_scan(&r, NULL, &t), RS_OK);
	ck_assert_uint_eq(t.count, 40);
	ck_assert(t.torn);
	spool_reader_done(&r);
	buf_done(&b);
}
END_TEST

static size_t
seek_size(int kind, size_t i)
{
	switch (kind) {
	case 0: return 0;
	case 1: return SSE_FRAME_MAX;
	case 2: return i % 7 == 3 ? SSE_FRAME_MAX : 0;
	case 3: return i % 2 == 0 ? SSE_FRAME_MAX : SSE_FRAME_MAX - 1;
	default: return (i * 7919) % (SSE_FRAME_MAX - 200) + 150;
	}
}

/* _i: number of frames; every kind of sizes, every id. */
START_TEST(every_id_is_found_where_it_is)
{
	for (int kind = 0; kind < 5; kind++) {
		size_t head, count = (size_t)_i;
		uint64_t offs[301], off = 4711;
		struct spool_reader r;
		struct buf b;

		fx_stream(&b, NULL, 0, &head);
		for (size_t i = 0; i < count; i++) {
			offs[i] = b.len;
			fx_frame(&b, i, seek_size(kind, i));
		}
		r = reader_on(b.data, b.len);
		for (size_t i = 0; i < count; i++) {
			ck_assert_int_eq(spool_seek(&r, b.len, i, &off),
			    RS_OK);
			ck_assert_uint_eq(off, offs[i]);
		}
		off = 4711;
		ck_assert_int_eq(spool_seek(&r, b.len, count, &off),
		    RS_ERANGE);
		ck_assert_int_eq(spool_seek(&r, b.len, UINT64_MAX, &off),
		    RS_ERANGE);
		/* Up to an earlier end. */
		if (count > 1) {
			ck_assert_int_eq(spool_seek(&r, offs[count - 1],
			    count - 1, &off), RS_ERANGE);
			ck_assert_uint_eq(off, 4711);
			ck_assert_int_eq(spool_seek(&r, offs[count - 1],
			    count - 2, &off), RS_OK);
			ck_assert_uint_eq(off, offs[count - 2]);
		}
		spool_reader_done(&r);
		buf_done(&b);
	}
}
END_TEST

START_TEST(a_search_among_garbage_ends)
{
	struct spool_reader r;
	size_t head, sizes[60] = { 0 };
	uint64_t off;
	struct buf b;

	for (size_t i = 0; i < 60; i++)
		sizes[i] = i * 100;
	fx_stream(&b, sizes, 60, &head);
	memset(b.data + b.len / 4, _i == 0 ? '\0' : '\n', b.len / 2);
	r = reader_on(b.data, b.len);
	for (uint64_t id = 0; id < 70; id++) {
		enum rs_err err = spool_seek(&r, b.len, id, &off);

		ck_assert(err == RS_OK || err == RS_ECORRUPT ||
		    err == RS_ERANGE);
	}
	ck_assert_int_eq(spool_seek(&r, head, 0, &off), RS_ERANGE);
	ck_assert_int_eq(spool_seek(&r, b.len + 100000, 59, &off),
	    RS_ECORRUPT);
	spool_reader_done(&r);
	buf_done(&b);
}
END_TEST

/* ---- finding ---- */

static const struct {
	bool ended;
	int64_t age_s;
	enum rs_err want;
} ages[] = {
	{ true, TTL_S - 2, RS_OK }, { true, TTL_S + 2, RS_ENOENT },
	{ false, TTL_S + 2, RS_OK }, { true, -100, RS_OK },
};

START_TEST(an_ended_stream_is_found_for_its_ttl)
{
	struct spool_reader r;
	size_t head, one = 0;
	struct buf b;
	enum rs_err err;

	fx_stream(&b, &one, 1, &head);
	if (ages[_i].ended)
		fx_done(&b, 1);
	fx_write(&fx_key, b.data, b.len);
	fx_age(fx_path(&fx_key), ages[_i].age_s);
	err = spool_find(fx_sp, &fx_key, &r);
	ck_assert_int_eq(err, ages[_i].want);
	if (err == RS_OK)
		spool_reader_done(&r);
	buf_done(&b);
}
END_TEST

/* What a live stream's readers do 20 times a second must not write. */
START_TEST(a_reader_leaves_the_access_time_alone)
{
	struct spool_reader r;
	struct buf b;
	size_t head;

	fx_stream(&b, NULL, 0, &head);
	fx_write(&fx_key, b.data, b.len);
	ck_assert_int_eq(spool_find(fx_sp, &fx_key, &r), RS_OK);
	ck_assert(fcntl(r.fd, F_GETFL) & O_NOATIME);
	spool_reader_done(&r);
	buf_done(&b);
}
END_TEST

START_TEST(what_was_never_made_is_not_found)
{
	struct spool_reader r;

	ck_assert_int_eq(spool_find(fx_sp, &fx_key, &r), RS_ENOENT);
}
END_TEST

static bool
count_key(const struct stream_key *k, int64_t mtime_ms, void *arg)
{
	ck_assert_int_ge(mtime_ms, fx_now_ms - (TTL_S + 200) * 1000);
	ck_assert(spool_id_valid(k->id, strlen(k->id)));
	return ++*(size_t *)arg < 90;
}

START_TEST(each_stream_is_named_once)
{
	struct stream_key k, other;
	char id[16];
	size_t n;

	for (int i = 0; i < 100; i++) {
		snprintf(id, sizeof id, "e%d", i);
		stream_key(&k, i % 4 == 0 ? "bob" : "alice", id);
		spool_writer_free(fx_create(&k));
		if (i % 10 == 1) /* one of alice's */
			ck_assert_int_eq(spool_delete(fx_sp, &k), RS_OK);
		if (i % 10 == 3)
			fx_age(fx_path(&k), TTL_S + 100); /* orphaned */
	}
	stream_key(&k, "bob", "x");
	n = 0;
	ck_assert_int_eq(spool_each(fx_sp, k.owner_hash, count_key, &n),
	    RS_OK);
	ck_assert_uint_eq(n, 25);
	stream_key(&other, "alice", "x");
	n = 0;
	ck_assert_int_eq(spool_each(fx_sp, other.owner_hash, count_key, &n),
	    RS_OK);
	ck_assert_uint_eq(n, 65);
	n = 0; /* stops at 90 of 90 */
	ck_assert_int_eq(spool_each(fx_sp, NULL, count_key, &n), RS_OK);
	ck_assert_uint_eq(n, 90);
	n = 80;
	ck_assert_int_eq(spool_each(fx_sp, NULL, count_key, &n), RS_OK);
	ck_assert_uint_eq(n, 90);
	stream_key(&k, "carol", "x");
	n = 0;
	ck_assert_int_eq(spool_each(fx_sp, k.owner_hash, count_key, &n),
	    RS_OK);
	ck_assert_uint_eq(n, 0);
}
END_TEST

#define ROWS(a) (int)(sizeof(a) / sizeof *(a))

int
main(void)
{
	Suite *s = suite_create("spool_find");
	TCase *tc = tcase_create("core");

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, fx_setup, fx_teardown);
	tcase_add_test(tc, a_cut_file_has_its_whole_frames_and_no_torn_one);
	tcase_add_test(tc, a_file_cut_in_its_head_is_corrupt);
	tcase_add_test(tc, a_wrong_byte_is_found_or_does_no_harm);
	tcase_add_loop_test(tc, a_tail_of_garbage_is_corrupt, 0,
	    ROWS(garbage));
	tcase_add_loop_test(tc, nothing_may_follow_a_terminal_frame, 0, 2);
	tcase_add_test(tc, the_scan_goes_through_frames_of_every_size);
	for (int i = 0; i <= 300; i += i < 20 ? 1 : 56)
		tcase_add_loop_test(tc, every_id_is_found_where_it_is, i,
		    i + 1);
	tcase_add_loop_test(tc, a_search_among_garbage_ends, 0, 2);
	tcase_add_loop_test(tc, an_ended_stream_is_found_for_its_ttl, 0,
	    ROWS(ages));
	tcase_add_test(tc, a_reader_leaves_the_access_time_alone);
	tcase_add_test(tc, what_was_never_made_is_not_found);
	tcase_add_test(tc, each_stream_is_named_once);
	suite_add_tcase(s, tc);
	return fx_run(s);
}
