/* check_spool_sweep.c - the caps of a spool: what goes when there is too much,
 * and what never does. */
#include "spool_fixture.h"

#include "log.h"
#include "sweeper.h"

#define ROWS(a) (int)(sizeof(a) / sizeof *(a))
#define NUMBER 200
#define OLD 64 /* fewer than there are: several passes */

static struct sweeper sw;
static bool here[NUMBER];	/* what files() has found */

static void
setup(void)
{
	fx_setup();
	fx_conf.session_ttl = 100 * TTL_S;
	log_open(LOGL_ERROR, "");
}

static struct stream_key
key(int i)
{
	struct stream_key k;
	char id[16];

	snprintf(id, sizeof id, "n%d", i);
	stream_key(&k, i % 3 == 0 ? "bob" : "alice", id);
	return k;
}

/* An ended stream of about that many bytes, or one cut short. */
static size_t
put(int i, size_t size, bool ended, int64_t age_s)
{
	struct stream_key k = key(i);
	struct buf b;
	size_t head, n;

	fx_stream(&b, &size, 1, &head);
	if (ended)
		fx_done(&b, 1);
	fx_write(&k, b.data, b.len);
	fx_age(fx_path(&k), age_s);
	n = b.len;
	buf_done(&b);
	return n;
}

static void
put_ended(int i, int64_t age_s)
{
	put(i, 300, true, age_s);
}

static bool
exists(int i)
{
	struct stream_key k = key(i);

	return access(fx_path(&k), F_OK) == 0;
}

static int
files(void)
{
	int n = 0;

	for (int i = 0; i < NUMBER; i++) {
		here[i] = exists(i);
		n += here[i];
	}
	return n;
}

static void
begin(uint64_t max_files, uint64_t max_bytes)
{
	fx_conf.max_spool_files = max_files;
	fx_conf.max_spool_bytes = max_bytes;
	sweeper_init(&sw, &fx_conf, fx_sp, OLD);
	sweeper_pass(&sw);
}

static unsigned
go_on(uint64_t budget_ns)
{
	unsigned slices = 0;

	while (sweeper_busy(&sw)) {
		sweeper_slice(&sw, budget_ns);
		ck_assert_uint_lt(slices++, 20000);
	}
	ck_assert_int_eq(sw.err, RS_OK);
	return slices;
}

/* A sweep of all, with those caps; how many files went. */
static uint64_t
sweep(uint64_t max_files, uint64_t max_bytes)
{
	uint64_t removed;

	begin(max_files, max_bytes);
	go_on(NS_PER_S);
	removed = sweeper_removed(&sw);
	sweeper_done(&sw);
	return removed;
}

/* ---- which go ---- */

/* Ages in an order that has nothing to do with names or shards. */
static int64_t
age_of(int i)
{
	return 10 + i * 77 % NUMBER; /* 77 and 200 have no common factor */
}

START_TEST(the_oldest_of_all_shards_go_and_the_newest_stay)
{
	const int max = _i;

	for (int i = 0; i < NUMBER; i++)
		put_ended(i, age_of(i));
	ck_assert_uint_eq(sweep((uint64_t)max, 0), NUMBER - max + max / 64);
	files();
	for (int i = 0; i < NUMBER; i++)
		ck_assert_int_eq(here[i], age_of(i) < 10 + max - max / 64);
}
END_TEST

START_TEST(what_is_equally_old_goes_only_as_far_as_needed)
{
	for (int i = 0; i < NUMBER; i++)
		put_ended(i, i % 2 == 0 ? 100 : 50);
	ck_assert_uint_eq(sweep(130, 0), 72);
	ck_assert_int_eq(files(), 128);
	for (int i = 1; i < NUMBER; i += 2)
		ck_assert(here[i]);
}
END_TEST

START_TEST(below_its_caps_nothing_goes)
{
	size_t sum = 0;

	for (int i = 0; i < 50; i++)
		sum += put(i, 500, true, 100 + i);
	ck_assert_uint_eq(sweep(50, sum), 0);
	ck_assert_uint_eq(sweep(0, 0), 0);
	ck_assert_uint_eq(sweep(50, sum - 1), 1);
	ck_assert(!exists(49));
}
END_TEST

START_TEST(of_bytes_as_many_go_as_a_64th_below_the_cap_takes)
{
	size_t sizes[NUMBER], sum = 0, max, left;
	int i;

	for (i = 0; i < NUMBER; i++)
		sum += sizes[i] = put(i, 300 + (size_t)(i * 37 % 1000), true,
		    1000 - i);
	max = sum * (size_t)_i / 10;
	sweep(0, max);
	for (i = 0, left = sum; left > max - max / 64; i++)
		left -= sizes[i];
	ck_assert_int_eq(files(), NUMBER - i);
	ck_assert(!here[i - 1] && here[i]);
}
END_TEST

START_TEST(once_below_one_more_removes_none_until_the_cap)
{
	const int max = 128;

	for (int i = 0; i < 129; i++)
		put_ended(i, 1000 - i);
	ck_assert_uint_eq(sweep((uint64_t)max, 0), 3);
	for (int i = 129; i < 131; i++) {
		put_ended(i, 1000 - i);
		ck_assert_uint_eq(sweep((uint64_t)max, 0), 0);
	}
	put_ended(131, 1);
	ck_assert_uint_eq(sweep((uint64_t)max, 0), 3);
	ck_assert(!exists(5) && exists(6));
}
END_TEST

/* ---- what stays ---- */

START_TEST(what_is_being_written_is_never_touched)
{
	struct stream_key k[3] = { key(0), key(1), key(2) };
	struct spool_writer *w = fx_create(&k[0]);
	pid_t pid = fx_child_writer(&k[1]);
	struct stat before[2], after;
	int i;

	for (i = 0; i < 2; i++) {
		fx_age(fx_path(&k[i]), 1000 + TTL_S * _i);
		ck_assert_int_eq(stat(fx_path(&k[i]), &before[i]), 0);
	}
	put_ended(2, 500);
	put_ended(3, 400);
	ck_assert_uint_eq(sweep(1, 0), 2);
	for (i = 0; i < 2; i++) {
		ck_assert_int_eq(stat(fx_path(&k[i]), &after), 0);
		ck_assert_int_eq(after.st_size, before[i].st_size);
		ck_assert_int_eq(after.st_ino, before[i].st_ino);
		ck_assert_int_eq(after.st_mtim.tv_sec,
		    before[i].st_mtim.tv_sec);
	}
	fx_kill(pid);
	spool_writer_free(w);
}
END_TEST

/* Its writer has ended it, and not closed it yet. */
START_TEST(what_is_locked_stays_though_it_has_ended)
{
	int fd;

	put_ended(0, 1000);
	put_ended(1, 900);
	put_ended(2, 800);
	fx_key = key(0);
	fd = open(fx_path(&fx_key), O_RDWR);
	ck_assert_int_eq(fd_lock(fd), RS_OK);
	ck_assert_uint_eq(sweep(2, 0), 1);
	ck_assert(exists(0) && !exists(1) && exists(2));
	close(fd);
	ck_assert_uint_eq(sweep(1, 0), 1);
	ck_assert(!exists(0) && exists(2));
}
END_TEST

START_TEST(when_nothing_can_go_it_is_tried_again_only_after_a_while)
{
	struct stream_key k[2] = { key(0), key(1) };
	struct spool_writer *w[2] = { fx_create(&k[0]), fx_create(&k[1]) };
	uint64_t now = clock_mono_ns();
	int i;

	begin(1, 0);
	go_on(NS_PER_S);
	ck_assert(stock_over(&sw.stock));
	for (i = 0; i < 3 * SPOOL_SHARDS; i++) {
		sweeper_slice(&sw, 0);
		ck_assert_uint_eq(sw.stock.uncounted, 0);
	}
	clock_freeze(now + 2 * NS_PER_S, fx_now_ms);
	sweeper_slice(&sw, 0);
	ck_assert_uint_gt(sw.stock.uncounted, 0);
	go_on(NS_PER_S);
	ck_assert_uint_eq(sweeper_removed(&sw), 0);
	sweeper_done(&sw);
	for (i = 0; i < 2; i++)
		spool_writer_free(w[i]);
}
END_TEST

START_TEST(deleted_ones_stay_deleted_and_do_not_count)
{
	struct stream_key k;

	for (int i = 0; i < 20; i++) {
		put_ended(i, 1000 - i);
		if (i >= 10)
			continue;
		k = key(i);
		ck_assert_int_eq(spool_delete(fx_sp, &k), RS_OK);
		fx_age(fx_path(&k), 2000);
	}
	ck_assert_uint_eq(sweep(10, 0), 0);
	ck_assert_uint_eq(sweep(4, 0), 6);
	ck_assert_int_eq(files(), 14);
	for (int i = 0; i < 10; i++)
		ck_assert(here[i] && !here[i + 10 > 15 ? 10 : 15]);
}
END_TEST

START_TEST(an_orphan_is_sealed_first_and_is_the_newest_then)
{
	put(0, 300, false, 1000);
	put_ended(1, 900);
	put_ended(2, 800);
	ck_assert_uint_eq(sweep(2, 0), 1);
	ck_assert(exists(0) && !exists(1) && exists(2));
	fx_key = key(0);
	ck_assert(fx_tail(&fx_key).ended);
	ck_assert_uint_eq(sweep(1, 0), 1);
	ck_assert(exists(0) && !exists(2));
	ck_assert_uint_eq(sweep(1, 0), 0);
	/* Its seal has dated it; and so it is old again one day. */
	fx_age(fx_path(&fx_key), 700);
	put_ended(3, 600);
	ck_assert_uint_eq(sweep(1, 0), 1);
	ck_assert(!exists(0) && exists(3));
}
END_TEST

START_TEST(one_without_a_head_goes_when_it_is_its_turn)
{
	struct stream_key k = key(1);

	put_ended(0, 1000);
	fx_write(&k, "\0\0\0 not a stream", 16);
	fx_age(fx_path(&k), 900);
	put_ended(2, 800);
	ck_assert_uint_eq(sweep(2, 0), 1);
	ck_assert(exists(1));
	ck_assert_uint_eq(sweep(1, 0), 1);
	ck_assert(!exists(1) && exists(2));
}
END_TEST

START_TEST(a_reader_replays_what_is_removed_to_its_end)
{
	struct spool_reader r;
	struct stream_tail t;

	put_ended(0, 1000);
	put_ended(1, 900);
	fx_key = key(0);
	r = fx_find(&fx_key);
	ck_assert_uint_eq(sweep(1, 0), 1);
	ck_assert(!exists(0));
	ck_assert_int_eq(spool_scan(&r, NULL, &t), RS_OK);
	ck_assert(t.ended && !t.torn);
	ck_assert_uint_eq(t.count, 2);
	spool_reader_done(&r);
}
END_TEST

/* ---- what happens meanwhile ---- */

/* The pass has been made, and nothing removed yet. */
static void
only_count(uint64_t max_files)
{
	begin(max_files, 0);
	while (sw.stock.uncounted > 0)
		sweeper_slice(&sw, NS_PER_S);
	ck_assert_uint_eq(sweeper_removed(&sw), 0);
}

START_TEST(what_has_changed_since_the_pass_is_left_alone)
{
	struct stream_key k[4] = { key(0), key(1), key(2), key(3) };
	struct stat st;

	for (int i = 0; i < 6; i++)
		put_ended(i, 1000 - i);
	only_count(1);
	ck_assert_int_eq(unlink(fx_path(&k[0])), 0);	  /* gone */
	ck_assert_int_eq(spool_delete(fx_sp, &k[1]), RS_OK); /* deleted */
	fx_age(fx_path(&k[2]), 1);			  /* appended to */
	put(3, 300, false, 0);				  /* made again */
	/* The rest of that pass; then others, which find the new state. */
	while (spool_evict(fx_sp, &sw.streams, NS_PER_S))
		continue;
	ck_assert(!exists(0) && exists(1) && exists(2) && exists(3));
	ck_assert(!exists(4) && !exists(5));
	go_on(NS_PER_S);
	ck_assert_int_eq(stat(fx_path(&k[1]), &st), 0);
	ck_assert_int_eq(st.st_size, 0);
	ck_assert(!exists(2) && exists(3));
	fx_key = k[3];
	ck_assert(!fx_tail(&fx_key).ended); /* its turn has not come */
	sweeper_done(&sw);
}
END_TEST

/* Of two that end while a pass goes on one may have been seen, and be the
 * younger one. */
START_TEST(what_ended_during_the_pass_is_for_the_next_one)
{
	struct stream_key k;

	for (int i = 0; i < 40; i++)
		put_ended(i, 100);
	begin(30, 0);
	while (sw.stock.uncounted > SPOOL_SHARDS / 2)
		sweeper_slice(&sw, 0);
	for (int i = 0; i < 40; i++) {
		k = key(i);
		fx_age(fx_path(&k), i % 2 == 0 ? -2 : -1);
	}
	while (sw.stock.uncounted > 0)
		sweeper_slice(&sw, 0);
	while (spool_evict(fx_sp, &sw.streams, NS_PER_S))
		continue;
	ck_assert_int_eq(files(), 40);
	sweeper_done(&sw);
	clock_freeze(NS_PER_S, fx_now_ms + 5000);
	ck_assert_uint_eq(sweep(30, 0), 10);
	files();
	for (int i = 0; i < 40; i += 2)
		ck_assert(here[i]);
}
END_TEST

START_TEST(without_any_time_it_is_one_file_a_slice)
{
	uint64_t before;
	int i;

	for (i = 0; i < 100; i++)
		put_ended(i, 1000 - i);
	begin(30, 0);
	for (i = 0; sweeper_busy(&sw); i++) {
		before = sweeper_removed(&sw);
		sweeper_slice(&sw, 0);
		ck_assert_uint_le(sweeper_removed(&sw) - before, 1);
	}
	ck_assert_int_gt(i, 100 + SPOOL_SHARDS);
	ck_assert_uint_eq(sweeper_removed(&sw), 70);
	sweeper_done(&sw);
	files();
	for (i = 0; i < 100; i++)
		ck_assert_int_eq(here[i], i >= 70);
}
END_TEST

START_TEST(after_the_clock_was_set_back_the_cap_holds)
{
	struct stat st;

	/* Ten were written an hour from now, as the clock was; ten since. */
	for (int i = 0; i < 10; i++) {
		put_ended(i, -3600 - i);
		put_ended(i + 10, 100 - i);
	}
	sweep(15, 0);
	ck_assert_int_eq(files(), 15);
	for (int i = 0; i < 10; i++)
		ck_assert(here[i] && here[i + 10] == (i >= 5));
	for (int i = 0; i < 10; i++) {
		fx_key = key(i);
		ck_assert_int_eq(stat(fx_path(&fx_key), &st), 0);
		ck_assert_int_le(st.st_mtim.tv_sec, fx_now_ms / 1000);
	}
	ck_assert_uint_eq(sweep(3, 0), 5);
	for (int i = 0; i < 10; i++)
		ck_assert(exists(i) && !exists(i + 10));
	clock_freeze(NS_PER_S, fx_now_ms + 1000);
	sweep(3, 0);
	ck_assert_int_eq(files(), 3);
}
END_TEST

/* As far away as its file system can say. */
START_TEST(a_time_that_no_clock_says_is_only_far_away)
{
	static const int64_t far[] = {
		INT64_MAX, INT64_MAX / 1000, INT64_C(9300000000), INT64_MIN,
	};
	struct stream_key k = key(0);

	put_ended(0, 0);
	put_ended(1, 10);
	fx_age(fx_path(&k), far[_i] == INT64_MIN ? INT64_MAX :
	    fx_now_ms / 1000 - far[_i]);
	sweep(1, 0);
	ck_assert_int_eq(exists(0), far[_i] > 0);
	ck_assert_int_eq(exists(1), far[_i] < 0);
}
END_TEST

START_TEST(a_shard_that_cannot_be_read_keeps_no_other_from_the_cap)
{
	char path[sizeof fx_dir + 16];

	for (int i = 0; i < 20; i++)
		put_ended(i, 1000 - i);
	for (unsigned i = 0; i < SPOOL_SHARDS; i++) {
		snprintf(path, sizeof path, "%s/streams/%02x", fx_dir, i);
		if (symlink("/tmp", path) == 0)
			break; /* one that has no streams */
	}
	begin(5, 0);
	while (sweeper_busy(&sw))
		sweeper_slice(&sw, NS_PER_S);
	ck_assert_int_ne(sw.err, RS_OK);
	ck_assert_uint_eq(sweeper_removed(&sw), 15);
	sweeper_done(&sw);
	ck_assert_int_eq(files(), 5);
	unlink(path);
}
END_TEST

/* ---- the sums ---- */

static unsigned asked; /* how often about a live one */

static bool
is_live(const struct stream_key *k, void *arg)
{
	asked += stream_key_cmp(k, arg) == 0;
	return stream_key_cmp(k, arg) == 0;
}

static void
check_sums(uint64_t want_files, uint64_t want_bytes)
{
	ck_assert_uint_eq(sw.stock.files, want_files);
	ck_assert_uint_eq(sw.stock.bytes, want_bytes);
}

START_TEST(a_live_stream_counts_as_it_grows_and_once)
{
	uint64_t counted = 0, n = put(0, 300, true, 10);

	fx_key = key(1);
	begin(2, 0);
	sw.streams.live = is_live;
	sw.streams.arg = &fx_key;
	go_on(NS_PER_S);
	check_sums(1, n);
	ck_assert(!sweeper_moved(&sw, &fx_key, &counted, 100, false));
	ck_assert(!sweeper_moved(&sw, &fx_key, &counted, 250, false));
	check_sums(2, n + 250);
	put(1, 400, true, 0);
	sweeper_pass(&sw);
	go_on(NS_PER_S);
	check_sums(2, n + 250);
	/* It ends right after a sweep has passed it by, and was cut back. */
	sweeper_pass(&sw);
	for (asked = 0; asked == 0;)
		sweeper_slice(&sw, 0);
	ck_assert_ptr_nonnull(sw.streams.dir);
	sweeper_moved(&sw, &fx_key, &counted, 240, true);
	sw.streams.live = NULL;
	check_sums(2, n + 240);
	go_on(0);
	n += spool_bytes(fx_sp, &fx_key);
	check_sums(2, n);
	/* The third is too much. */
	counted = 0;
	fx_key = key(2);
	ck_assert(!sweeper_moved(&sw, &fx_key, &counted, 99, false));
	ck_assert(sweeper_moved(&sw, &fx_key, &counted, 100, true));
	check_sums(3, n + 100);
	sweeper_done(&sw);
}
END_TEST

START_TEST(what_is_deleted_does_not_count_any_more)
{
	uint64_t n = put(0, 300, true, 10), m = put(1, 500, true, 10);

	fx_key = key(1);
	begin(2, 0);
	go_on(NS_PER_S);
	ck_assert_uint_eq(spool_bytes(fx_sp, &fx_key), m);
	ck_assert_int_eq(spool_delete(fx_sp, &fx_key), RS_OK);
	ck_assert_uint_eq(spool_bytes(fx_sp, &fx_key), 0);
	sweeper_dropped(&sw, &fx_key, m);
	check_sums(1, n);
	sweeper_dropped(&sw, &fx_key, m); /* what is not there */
	check_sums(1, n);
	sweeper_pass(&sw);
	go_on(NS_PER_S);
	check_sums(1, n);
	sweeper_done(&sw);
}
END_TEST

/* conversations/00/..., of that many bytes */
static void
put_session(size_t bytes)
{
	char path[sizeof fx_dir + 64];

	snprintf(path, sizeof path, "%s/conversations", fx_dir);
	mkdir(path, 0700);
	strcat(path, "/00");
	mkdir(path, 0700);
	strcat(path, "/0123456789abcdef-s.jsonl");
	close(open(path, O_WRONLY | O_CREAT, 0600));
	ck_assert_int_eq(truncate(path, (off_t)bytes), 0);
}

static const struct {
	const char *what;
	int of_100;	/* bytes of the session, of the cap */
	int stay;	/* streams, of 100 that take it up */
} said[] = {
	{ "nothing said", 0, 100 },
	{ "a fifth of it", 20, 78 },
	{ "all of it", 100, 48 },
	{ "more than all", 500, 48 },
};

START_TEST(conversations_count_for_at_most_half_of_the_bytes)
{
	size_t n = 0;

	for (int i = 0; i < 100; i++)
		n += put(i, 1000 - (i < 10), true, 1000 - i);
	put_session(n / 100 * (size_t)said[_i].of_100);
	sweep(0, n);
	ck_assert_msg(files() == said[_i].stay, "%s: %d", said[_i].what,
	    files());
}
END_TEST

/* ---- only looking ---- */

struct names {
	int count;
	char name[2 * NUMBER][SPOOL_NAME_SIZE + 8];
	int why[2 * NUMBER];
};

static void
note(const char *name, enum sweep_why why, uint64_t bytes, void *arg)
{
	struct names *n = arg;

	ck_assert_int_lt(n->count, 2 * NUMBER);
	ck_assert_uint_ge(bytes, why == SWEEP_CAP);
	n->why[n->count] = (int)why;
	snprintf(n->name[n->count++], sizeof n->name[0], "%s", name);
}

static void
sweep_noting(struct names *n, bool dry)
{
	n->count = 0;
	sweeper_init(&sw, &fx_conf, fx_sp, SIZE_MAX);
	sweeper_pass(&sw);
	sw.streams.dry = sw.convs.dry = dry;
	sw.streams.gone = sw.convs.gone = note;
	sw.streams.arg = sw.convs.arg = n;
	go_on(NS_PER_S);
	ck_assert_uint_eq(sweeper_removed(&sw), (uint64_t)n->count);
	sweeper_done(&sw);
}

START_TEST(a_dry_sweep_changes_nothing_and_tells_what_a_sweep_removes)
{
	static struct names dry, wet;
	char path[4200];
	int before, whys[3] = { 0 };

	for (int i = 0; i < NUMBER; i++) {
		if (i % 10 == 0)
			put(i, 300, false, 2000); /* orphaned */
		else
			put_ended(i, i < 50 ? TTL_S + 100 : 1000 - i);
	}
	for (int i = 100; i < 110; i++) {
		fx_key = key(i);
		ck_assert_int_eq(spool_delete(fx_sp, &fx_key), RS_OK);
	}
	put(110, 300, false, TTL_S + 5);
	put_session(100);
	snprintf(path, sizeof path, "%s", fx_path(&fx_key));
	strcpy(strrchr(path, '/') + 1, ".tmp-0123456789abcdef");
	close(open(path, O_WRONLY | O_CREAT, 0600));
	fx_conf.max_spool_files = 60;
	fx_conf.session_ttl = 0; /* all are old */

	before = files();
	sweep_noting(&dry, true);
	ck_assert_int_eq(files(), before);
	fx_key = key(0);
	ck_assert(!fx_tail(&fx_key).ended);
	sweep_noting(&wet, false);
	ck_assert_int_eq(wet.count, dry.count);
	for (int i = 0; i < wet.count; i++) {
		int j = 0;

		while (j < dry.count && strcmp(wet.name[i], dry.name[j]) != 0)
			j++;
		ck_assert_msg(j < dry.count && wet.why[i] == dry.why[j], "%s",
		    wet.name[i]);
		whys[wet.why[i]]++;
	}
	ck_assert_int_gt(whys[SWEEP_TTL], 40);
	ck_assert_int_gt(whys[SWEEP_CAP], 60);
	ck_assert_int_eq(whys[SWEEP_LEFTOVER], 1);
	ck_assert_int_eq(files(), 60 + 10);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("spool_sweep");
	TCase *tc = tcase_create("caps");

	tcase_add_checked_fixture(tc, setup, fx_teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc,
	    the_oldest_of_all_shards_go_and_the_newest_stay, 1, 2);
	tcase_add_loop_test(tc,
	    the_oldest_of_all_shards_go_and_the_newest_stay, 10, 11);
	tcase_add_loop_test(tc,
	    the_oldest_of_all_shards_go_and_the_newest_stay, 150, 151);
	tcase_add_test(tc, what_is_equally_old_goes_only_as_far_as_needed);
	tcase_add_test(tc, below_its_caps_nothing_goes);
	tcase_add_loop_test(tc,
	    of_bytes_as_many_go_as_a_64th_below_the_cap_takes, 1, 10);
	tcase_add_test(tc, once_below_one_more_removes_none_until_the_cap);
	tcase_add_loop_test(tc, what_is_being_written_is_never_touched, 0, 2);
	tcase_add_test(tc, what_is_locked_stays_though_it_has_ended);
	tcase_add_test(tc,
	    when_nothing_can_go_it_is_tried_again_only_after_a_while);
	tcase_add_test(tc, deleted_ones_stay_deleted_and_do_not_count);
	tcase_add_test(tc, an_orphan_is_sealed_first_and_is_the_newest_then);
	tcase_add_test(tc, one_without_a_head_goes_when_it_is_its_turn);
	tcase_add_test(tc, a_reader_replays_what_is_removed_to_its_end);
	tcase_add_test(tc, what_has_changed_since_the_pass_is_left_alone);
	tcase_add_test(tc, what_ended_during_the_pass_is_for_the_next_one);
	tcase_add_test(tc, without_any_time_it_is_one_file_a_slice);
	tcase_add_test(tc, after_the_clock_was_set_back_the_cap_holds);
	tcase_add_loop_test(tc, a_time_that_no_clock_says_is_only_far_away,
	    0, 4);
	tcase_add_test(tc,
	    a_shard_that_cannot_be_read_keeps_no_other_from_the_cap);
	tcase_add_test(tc, a_live_stream_counts_as_it_grows_and_once);
	tcase_add_test(tc, what_is_deleted_does_not_count_any_more);
	tcase_add_loop_test(tc,
	    conversations_count_for_at_most_half_of_the_bytes, 0, ROWS(said));
	tcase_add_test(tc,
	    a_dry_sweep_changes_nothing_and_tells_what_a_sweep_removes);
	suite_add_tcase(s, tc);
	return fx_run(s);
}
