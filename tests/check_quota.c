/* check_quota.c - limits: what is counted, from whom, and since when. */
#include <json-c/json.h>
#include <sys/resource.h>
#include "jx.h"
#include "money.h"
#include "quota.h"
#include "spool_fixture.h"

#define MINUTE_MS INT64_C(60000)
#define HOUR_MS (60 * MINUTE_MS)
#define DAY_MS (24 * HOUR_MS)
#define NOON INT64_C(1935662400000) /* 2031-05-04 12:00:00 UTC */
#define HOME "0123456789abcdef"
#define CAFE "fedcba9876543210"

static struct quota *quota;
static struct quota_refusal why;
static struct usage_worst worst; /* of the next generation */

static void
at(int64_t ms)
{
	clock_freeze(NS_PER_S, ms);
}

static void
zone(const char *name)
{
	setenv("TZ", name, 1);
	tzset();
}

/* A new spooler's, as if recovery had found that open. */
static void
renew(const struct usage_generation *open)
{
	quota_free(quota);
	ck_assert_int_eq(quota_new(&fx_conf, fx_sp, &quota), RS_OK);
	ck_assert_int_eq(quota_recovered(quota, open), RS_OK);
}

static enum rs_err
check(const char *owner)
{
	struct stream_key k;

	stream_key(&k, owner, "x");
	why = (struct quota_refusal){ NULL, NULL, 0 };
	return quota_check(quota, k.owner_hash, &worst, &why);
}

static void
setup(void)
{
	fx_setup();
	zone("UTC");
	at(NOON);
	worst = (struct usage_worst){ .address = HOME, .tokens = 100,
	    .cost = 1000 };
	quota = NULL;
	renew(NULL);
	/* As in a spooler, a decision comes before what it starts. */
	ck_assert_int_eq(check("nobody"), RS_OK);
}

static void
teardown(void)
{
	quota_free(quota);
	fx_teardown();
}

static void
check_refused(const char *owner, const char *limit, uint32_t retry_s)
{
	ck_assert_int_eq(check(owner), RS_EBUSY);
	ck_assert_str_eq(why.limit, limit);
	ck_assert_uint_eq(why.retry_s, retry_s);
	ck_assert_uint_gt(strlen(why.text), 20);
	ck_assert_uint_lt(strlen(why.text), 160);
}

/* Writes its line; no decision is made. */
static struct usage_generation
reserve(const char *owner, const char *id)
{
	struct stream_head h = { .model = "m", .created_ms = clock_wall_ms() };
	struct usage_generation g = { .created_ms = h.created_ms,
	    .model = "m", .worst = worst };

	stream_key(&g.key, owner, id);
	ck_assert_int_eq(usage_reserve(fx_sp, &g.key, &h, &worst), RS_OK);
	return g;
}

static void
settle_as(const struct usage_generation *g, const struct ending *e)
{
	struct stream_head h = { .model = "m", .created_ms = g->created_ms };

	ck_assert_int_eq(usage_settle(fx_sp, &g->key, &h, e), RS_OK);
}

static void
settle(const struct usage_generation *g, uint64_t tokens, uint64_t cost)
{
	struct ending e = { .usage = { .output = tokens }, .cost = cost };

	settle_as(g, &e);
}

/* It failed, and nobody knows what it used. */
static void
settle_unknown(const struct usage_generation *g, enum errtype type,
    uint64_t first_token_ms)
{
	const uint64_t x = TOKENS_UNKNOWN;
	struct ending e = { .error = type, .usage = { x, x, x, x, x },
	    .cost = MONEY_UNKNOWN, .first_token_ms = first_token_ms };

	settle_as(g, &e);
}

/* ---- each limit ---- */

START_TEST(without_a_limit_none_is_wanted)
{
	ck_assert(!quota_wanted(&fx_conf) && !quota_reserves(&fx_conf));
	fx_conf.address_max_starts = 1;
	ck_assert(quota_wanted(&fx_conf) && !quota_reserves(&fx_conf));
	fx_conf.max_cost_per_day = 1;
	ck_assert(quota_reserves(&fx_conf));
}
END_TEST

START_TEST(streams_at_once_are_reserves_without_a_settle)
{
	struct usage_generation a, b;

	fx_conf.owner_max_streams = 2;
	ck_assert_int_eq(check("ann"), RS_OK);
	a = reserve("ann", "a");
	ck_assert_int_eq(check("ann"), RS_OK);
	b = reserve("ann", "b");
	check_refused("ann", "owner_max_streams", 5);
	ck_assert_int_eq(check("bob"), RS_OK);
	settle(&a, 1, 1);
	ck_assert_int_eq(check("ann"), RS_OK);
	settle(&a, 1, 1); /* again: no more than once */
	reserve("ann", "c");
	check_refused("ann", "owner_max_streams", 5);
	settle_unknown(&b, ERRTYPE_generation_lost, TOKENS_UNKNOWN);
	ck_assert_int_eq(check("ann"), RS_OK);
}
END_TEST

START_TEST(an_address_is_counted_whoever_its_owners_are)
{
	fx_conf.address_max_streams = 2;
	reserve("ann", "a");
	reserve("bob", "a");
	check_refused("cid", "address_max_streams", 5);
	strcpy(worst.address, CAFE);
	ck_assert_int_eq(check("ann"), RS_OK);
	/* Those that nobody knows are one. */
	worst.address[0] = '\0';
	reserve("ann", "b");
	reserve("bob", "b");
	check_refused("cid", "address_max_streams", 5);
}
END_TEST

START_TEST(starts_are_those_of_the_last_minute)
{
	struct usage_generation g;

	fx_conf.owner_max_starts = 3;
	for (int i = 0; i < 3; i++) {
		at(NOON + 10000 * i);
		ck_assert_int_eq(check("ann"), RS_OK);
		g = reserve("ann", i == 0 ? "a" : i == 1 ? "b" : "c");
		settle(&g, 1, 1);
	}
	check_refused("ann", "owner_max_starts", 40);
	ck_assert_int_eq(check("bob"), RS_OK);
	at(NOON + 59999);
	check_refused("ann", "owner_max_starts", 1);
	at(NOON + 60000);
	ck_assert_int_eq(check("ann"), RS_OK);
	reserve("ann", "d");
	check_refused("ann", "owner_max_starts", 10);
	/* A lower limit needs more of them to leave. */
	fx_conf.owner_max_starts = 1;
	check_refused("ann", "owner_max_starts", 60);
	fx_conf.owner_max_starts = 0;
	fx_conf.address_max_starts = 2;
	check_refused("bob", "address_max_starts", 20);
}
END_TEST

START_TEST(tokens_of_a_day_are_the_used_and_the_reserved_ones)
{
	struct usage_generation g;

	fx_conf.owner_max_tokens = 250;
	g = reserve("ann", "a");
	reserve("ann", "b");
	check_refused("ann", "owner_max_tokens", 12 * 3600);
	worst.tokens = 51;
	check_refused("ann", "owner_max_tokens", 12 * 3600);
	worst.tokens = 50;
	ck_assert_int_eq(check("ann"), RS_OK);
	settle(&g, 30, 1);
	worst.tokens = 120;
	ck_assert_int_eq(check("ann"), RS_OK);
	worst.tokens = 121;
	check_refused("ann", "owner_max_tokens", 12 * 3600);
	ck_assert_int_eq(check("bob"), RS_OK);
	at(NOON + 12 * HOUR_MS - 1);
	check_refused("ann", "owner_max_tokens", 1);
	/* What is open belongs to the day on which it began. */
	at(NOON + 12 * HOUR_MS);
	worst.tokens = 250;
	ck_assert_int_eq(check("ann"), RS_OK);
}
END_TEST

START_TEST(costs_of_a_day_are_counted_likewise)
{
	struct usage_generation g;

	fx_conf.owner_max_cost = 2500;
	fx_conf.address_max_cost = 4000;
	fx_conf.max_cost_per_day = 5000;
	reserve("ann", "a");
	g = reserve("ann", "b");
	check_refused("ann", "owner_max_cost", 12 * 3600);
	reserve("bob", "a");
	reserve("bob", "b");
	check_refused("cid", "address_max_cost", 12 * 3600);
	strcpy(worst.address, CAFE);
	reserve("cid", "a");
	check_refused("dan", "max_cost_per_day", 12 * 3600);
	/* Without prices it counts as nothing. */
	worst.cost = MONEY_UNKNOWN;
	ck_assert_int_eq(check("dan"), RS_OK);
	settle(&g, 1, 0);
	worst.cost = 1000;
	ck_assert_int_eq(check("dan"), RS_OK);
	worst.cost = 1001;
	check_refused("dan", "max_cost_per_day", 12 * 3600);
}
END_TEST

START_TEST(of_several_limits_the_one_that_lasts_longest_is_told)
{
	fx_conf.owner_max_streams = fx_conf.address_max_starts = 1;
	fx_conf.max_cost_per_day = 100000;
	reserve("ann", "a");
	check_refused("ann", "address_max_starts", 60);
	worst.cost = 100000;
	check_refused("ann", "max_cost_per_day", 12 * 3600);
}
END_TEST

/* ---- what a settle line says ---- */

static const struct {
	enum errtype type;
	uint64_t first_token_ms;
	uint64_t want;		/* tokens that count, of 100 reserved */
} endings[] = {
	{ ERRTYPE_generation_lost, TOKENS_UNKNOWN, 100 },
	{ ERRTYPE_upstream_truncated, 7, 100 },
	{ ERRTYPE_headers_timeout, TOKENS_UNKNOWN, 100 },
	{ ERRTYPE_upstream_error, TOKENS_UNKNOWN, 100 },
	{ ERRTYPE_exec_failed, TOKENS_UNKNOWN, 100 },
	{ ERRTYPE_overloaded, 7, 100 },
	{ ERRTYPE_overloaded, TOKENS_UNKNOWN, 0 },
	{ ERRTYPE_connect_failed, TOKENS_UNKNOWN, 0 },
	{ ERRTYPE_auth, TOKENS_UNKNOWN, 0 },
	{ ERRTYPE_rate_limit, TOKENS_UNKNOWN, 0 },
};

START_TEST(what_nobody_knows_counts_as_the_worst_case_unless_it_was_refused)
{
	struct usage_generation g = reserve("ann", "a");

	fx_conf.owner_max_tokens = 1000;
	fx_conf.owner_max_cost = 10000;
	ck_assert_int_eq(check("ann"), RS_OK); /* it is seen open, too */
	settle_unknown(&g, endings[_i].type, endings[_i].first_token_ms);
	for (int fresh = 0; fresh < 2; fresh++) {
		worst.cost = 0;
		worst.tokens = 1000 - endings[_i].want;
		ck_assert_int_eq(check("ann"), RS_OK);
		worst.tokens++;
		check_refused("ann", "owner_max_tokens", 12 * 3600);
		worst.tokens = 0;
		worst.cost = 10000 - 10 * endings[_i].want;
		ck_assert_int_eq(check("ann"), RS_OK);
		worst.cost++;
		check_refused("ann", "owner_max_cost", 12 * 3600);
		renew(NULL);
	}
}
END_TEST

/* ---- over restarts ---- */

START_TEST(a_new_spooler_knows_what_the_one_before_it_did)
{
	struct usage_generation a, b;

	fx_conf.owner_max_streams = 3;
	fx_conf.owner_max_starts = 4;
	fx_conf.owner_max_tokens = 1000;
	a = reserve("ann", "a");
	settle(&a, 60, 1);
	b = reserve("ann", "b");
	a = reserve("ann", "c");
	b.next = &a;
	renew(&b);
	worst.tokens = 740;
	ck_assert_int_eq(check("ann"), RS_OK);
	worst.tokens = 741;
	check_refused("ann", "owner_max_tokens", 12 * 3600);
	worst.tokens = 1;
	reserve("ann", "d");
	check_refused("ann", "owner_max_starts", 60);
	fx_conf.owner_max_starts = 0;
	check_refused("ann", "owner_max_streams", 5);
	/* A draining spooler's settles count in this one. */
	settle(&b, 10, 1);
	ck_assert_int_eq(check("ann"), RS_OK);
	worst.tokens = 1000 - 60 - 10 - 100 - 1;
	ck_assert_int_eq(check("ann"), RS_OK);
	worst.tokens++;
	check_refused("ann", "owner_max_tokens", 12 * 3600);
}
END_TEST

START_TEST(what_was_reserved_days_ago_is_open_until_its_settle)
{
	struct usage_generation old;

	at(NOON - 5 * DAY_MS);
	old = reserve("ann", "old");
	at(NOON);
	fx_conf.owner_max_streams = 1;
	fx_conf.owner_max_tokens = 100;
	renew(&old);
	check_refused("ann", "owner_max_streams", 5);
	settle(&old, 1000, 1);
	ck_assert_int_eq(check("ann"), RS_OK);
}
END_TEST

/* Its settle line is in a file that no day of ours has. */
START_TEST(what_recovery_has_not_found_open_is_not)
{
	reserve("ann", "a");
	fx_conf.owner_max_streams = 1;
	fx_conf.owner_max_tokens = 150;
	renew(NULL);
	worst.tokens = 50;
	ck_assert_int_eq(check("ann"), RS_OK);
	worst.tokens = 51;
	check_refused("ann", "owner_max_tokens", 12 * 3600);
	/* But it is, as long as recovery could not look. */
	quota_free(quota);
	ck_assert_int_eq(quota_new(&fx_conf, fx_sp, &quota), RS_OK);
	worst.tokens = 1;
	check_refused("ann", "owner_max_streams", 5);
}
END_TEST

START_TEST(a_day_file_that_is_gone_is_a_day_without_use)
{
	char path[sizeof fx_dir + 64];
	struct usage_generation g = reserve("ann", "a");

	fx_conf.owner_max_tokens = 100;
	settle(&g, 100, 1);
	check_refused("ann", "owner_max_tokens", 12 * 3600);
	snprintf(path, sizeof path, "%s/usage/2031-05-04.jsonl", fx_dir);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(check("ann"), RS_OK);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_ne(check("ann"), RS_OK);
	ck_assert_ptr_null(why.limit);
}
END_TEST

/* ---- clocks ---- */

START_TEST(a_clock_set_back_neither_opens_nor_locks_the_door)
{
	static const int64_t back[] = { 1000, 59000, 2 * HOUR_MS, DAY_MS,
		900 * DAY_MS };
	struct usage_generation g;

	fx_conf.owner_max_starts = 1;
	fx_conf.owner_max_streams = 1;
	g = reserve("ann", "a");
	check_refused("ann", "owner_max_starts", 60);
	at(NOON - back[_i]);
	check_refused("ann", _i < 3 ? "owner_max_starts" :
	    "owner_max_streams", _i < 3 ? 60 : 5);
	settle(&g, 1, 1); /* in another file, it may be */
	at(NOON - back[_i] + 60000);
	ck_assert_int_eq(check("ann"), RS_OK);
	reserve("ann", "b");
	check_refused("ann", "owner_max_starts", 60);
	/* A spooler that begins now. */
	renew(NULL);
	at(NOON - back[_i] + 120000);
	ck_assert_int_eq(check("ann"), RS_OK);
}
END_TEST

START_TEST(what_was_used_ahead_counts_when_its_day_comes)
{
	struct usage_generation g;

	fx_conf.owner_max_tokens = 100;
	at(NOON + DAY_MS);
	g = reserve("ann", "a");
	settle(&g, 100, 1);
	check_refused("ann", "owner_max_tokens", 12 * 3600);
	at(NOON);
	ck_assert_int_eq(check("ann"), RS_OK);
	g = reserve("ann", "b");
	settle(&g, 100, 1);
	check_refused("ann", "owner_max_tokens", 12 * 3600);
	at(NOON + DAY_MS);
	check_refused("ann", "owner_max_tokens", 12 * 3600);
	at(NOON);
	check_refused("ann", "owner_max_tokens", 12 * 3600);
	at(NOON + 2 * DAY_MS);
	ck_assert_int_eq(check("ann"), RS_OK);
}
END_TEST

START_TEST(a_line_of_before_midnight_is_read_after_it)
{
	struct usage_generation g;

	fx_conf.owner_max_streams = 1;
	fx_conf.owner_max_starts = 2;
	at(NOON + 12 * HOUR_MS - 20);
	g = reserve("ann", "a");
	check_refused("ann", "owner_max_streams", 5);
	at(NOON + 12 * HOUR_MS + 10);
	check_refused("ann", "owner_max_streams", 5);
	/* Who wrote this had looked at the clock before. */
	at(NOON + 12 * HOUR_MS - 1);
	settle(&g, 1, 1);
	at(NOON + 12 * HOUR_MS + 20);
	ck_assert_int_eq(check("ann"), RS_OK);
	reserve("ann", "b");
	/* Yesterday's starts are of the last minute all the same. */
	check_refused("ann", "owner_max_starts", 60);
}
END_TEST

/* Unix time, in s. */
static const struct {
	const char *zone;
	int64_t begin, end;
} days[] = {
	{ "UTC", 1774742400, 1774828800 },
	{ "Europe/Berlin", 1774738800, 1774821600 },	/* 2026-03-29: 23 h */
	{ "Europe/Berlin", 1792879200, 1792969200 },	/* 2026-10-25: 25 h */
	{ "Pacific/Kiritimati", 1774692000, 1774778400 }, /* +14 */
	{ "Etc/GMT+12", 1774785600, 1774872000 },	/* -12 */
	{ "Asia/Kathmandu", 1774721700, 1774808100 },	/* +5:45 */
	{ "America/Havana", 1772946000, 1773028800 },	/* from 1:00 on */
	{ "America/Havana", 1793505600, 1793595600 },	/* two midnights */
	{ "Australia/Lord_Howe", 1775307600, 1775395800 }, /* 24 h 30 */
	{ "Africa/Casablanca", 1771110000, 1771200000 },
	{ "America/Santiago", 1775271600, 1775361600 },
	{ "America/Santiago", 1788667200, 1788750000 },	/* from 1:00 on */
};

START_TEST(a_day_is_one_of_the_zone)
{
	const int64_t begin = days[_i].begin * 1000, end = days[_i].end * 1000;
	char path[64];
	struct usage_generation g;

	snprintf(path, sizeof path, "/usr/share/zoneinfo/%s", days[_i].zone);
	if (access(path, F_OK) < 0)
		return; /* no tzdata here */
	zone(days[_i].zone);
	fx_conf.owner_max_tokens = 100;
	at(begin - 1);
	g = reserve("ann", "before");
	settle(&g, 100, 1);
	check_refused("ann", "owner_max_tokens", 1);
	at(begin);
	ck_assert_int_eq(check("ann"), RS_OK);
	g = reserve("ann", "a");
	check_refused("ann", "owner_max_tokens", (uint32_t)((end - begin) /
	    1000));
	for (int64_t ms = begin + HOUR_MS / 2; ms < end; ms += HOUR_MS / 2) {
		at(ms);
		if (ms == begin + 12 * HOUR_MS)
			settle(&g, 100, 1);
		if (ms % (4 * HOUR_MS) == 0)
			renew(ms < begin + 12 * HOUR_MS ? &g : NULL);
		check_refused("ann", "owner_max_tokens",
		    (uint32_t)((end - ms) / 1000));
	}
	at(end - 1);
	check_refused("ann", "owner_max_tokens", 1);
	at(end);
	ck_assert_int_eq(check("ann"), RS_OK);
}
END_TEST

/* ---- files as a crash leaves them ---- */

/* What whole lines of the first n bytes say that ann has. */
static void
count_lines(const char *p, size_t n, uint64_t *streams, uint64_t *starts)
{
	const char *nl;

	*streams = *starts = 0;
	for (; (nl = memchr(p, '\n', n)) != NULL; n -= (size_t)(nl + 1 - p),
	    p = nl + 1) {
		if (memmem(p, (size_t)(nl - p), "\"reserve\"", 9) != NULL)
			++*streams, ++*starts;
		if (memmem(p, (size_t)(nl - p), "\"settle\"", 8) != NULL)
			--*streams;
	}
}

START_TEST(a_file_cut_at_any_byte_counts_as_its_whole_lines)
{
	char path[sizeof fx_dir + 64], copy[4096];
	struct usage_generation a, b;
	uint64_t streams, starts;
	struct buf all;

	a = reserve("ann", "a");
	b = reserve("ann", "b");
	settle(&a, 1, 1);
	reserve("ann", "c");
	settle(&b, 1, 1);
	snprintf(path, sizeof path, "%s/usage/2031-05-04.jsonl", fx_dir);
	snprintf(copy, sizeof copy, "%.*s/copy", (int)sizeof fx_dir - 8,
	    fx_dir);
	buf_init(&all, 1 << 20);
	ck_assert_int_eq(fd_read_file(AT_FDCWD, path, &all), RS_OK);
	for (size_t n = 0; n <= all.len; n++) {
		int fd = open(copy, O_WRONLY | O_CREAT | O_TRUNC, 0600);

		ck_assert_int_eq(fd_write_full(fd, all.data, n), RS_OK);
		close(fd);
		ck_assert_int_eq(rename(copy, path), 0);
		count_lines(all.data, n, &streams, &starts);
		quota_free(quota);
		ck_assert_int_eq(quota_new(&fx_conf, fx_sp, &quota), RS_OK);
		fx_conf.owner_max_starts = 0;
		fx_conf.owner_max_streams = streams + 1;
		ck_assert_int_eq(check("ann"), RS_OK);
		if (streams > 0) {
			fx_conf.owner_max_streams = streams;
			check_refused("ann", "owner_max_streams", 5);
		}
		fx_conf.owner_max_streams = 0;
		fx_conf.owner_max_starts = starts + 1;
		ck_assert_int_eq(check("ann"), RS_OK);
		/* The rest comes, and is read on from there. */
		fd = open(path, O_WRONLY | O_APPEND);
		ck_assert_int_eq(fd_write_full(fd, all.data + n, all.len - n),
		    RS_OK);
		close(fd);
		fx_conf.owner_max_starts = 3;
		check_refused("ann", "owner_max_starts", 60);
		fx_conf.owner_max_starts = 4;
		fx_conf.owner_max_streams = 1;
		check_refused("ann", "owner_max_streams", 5);
		fx_conf.owner_max_streams = 2;
		ck_assert_int_eq(check("ann"), RS_OK);
	}
	buf_done(&all);
}
END_TEST

START_TEST(strange_lines_are_passed_over)
{
	static const char *const lines[] = {
		"\n", "null\n", "{}\n", "{\"type\":1}\n", "\xff\n",
		"{\"type\":\"reserve\",\"created\":99999999999999999999}\n",
		"{\"type\":\"reserve\",\"owner\":\"2bd806c97f0e00af\","
		"\"stream_id\":\"a/b\",\"created\":1935662400000,"
		"\"model\":\"m\"}\n",
		"{\"type\":\"settle\",\"owner\":\"2bd806c97f0e00af\","
		"\"stream_id\":\"never\",\"created\":1935662400000,"
		"\"model\":\"m\",\"usage\":[],\"total_cost\":\"x\"}\n",
		"{\"type\":\"recovered\",\"open\":[{}]}\n",
		"{\"type\":\"reserve\",\"created\":",
	};
	char path[sizeof fx_dir + 64];
	int fd;

	fx_conf.owner_max_starts = 1;
	fx_conf.owner_max_tokens = 100;
	ck_assert_int_eq(check("ann"), RS_OK);
	reserve("bob", "b");
	snprintf(path, sizeof path, "%s/usage/2031-05-04.jsonl", fx_dir);
	fd = open(path, O_WRONLY | O_APPEND);
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		ck_assert_int_eq(fd_write_full(fd, lines[i],
		    strlen(lines[i])), RS_OK);
	close(fd);
	ck_assert_int_eq(check("ann"), RS_OK);
	reserve("ann", "a");
	check_refused("ann", "owner_max_tokens", 12 * 3600);
}
END_TEST

/* An amount beyond all limits must not come out small again. */
START_TEST(sums_do_not_overflow)
{
	struct usage_generation g[40];

	fx_conf.max_cost_per_day = 1000;
	fx_conf.owner_max_tokens = 1000;
	worst.tokens = worst.cost = UINT64_MAX / 2;
	for (int i = 0; i < 40; i++) {
		char id[8];

		snprintf(id, sizeof id, "s%d", i);
		g[i] = reserve("ann", id);
	}
	worst.tokens = 1;
	worst.cost = 0;
	check_refused("ann", "owner_max_tokens", 12 * 3600);
	for (int i = 0; i < 40; i++)
		settle(&g[i], 25, 25);
	check_refused("ann", "owner_max_tokens", 12 * 3600);
	worst.tokens = 0;
	ck_assert_int_eq(check("ann"), RS_OK);
	worst.cost = 1;
	check_refused("bob", "max_cost_per_day", 12 * 3600);
}
END_TEST

/* ---- one that reads on, and one that reads all ---- */

#define RUN 800
#define LIVE_MAX 60

/* Two owners, two addresses, days that pass, clocks that jump, spoolers that
 * come: whoever has followed it all knows the same as who reads it now. */
START_TEST(reading_on_comes_to_the_same_as_reading_anew)
{
	static const char *const owners[] = { "ann", "bob" };
	static const char *const addresses[] = { HOME, CAFE };
	struct usage_generation live[LIVE_MAX], *list;
	int64_t now = NOON + 11 * HOUR_MS;
	size_t count = 0, i;
	char id[16];

	srandom((unsigned)_i + 1);
	zone(_i % 2 ? "Europe/Berlin" : "UTC");
	fx_conf.owner_max_streams = 20;
	fx_conf.owner_max_starts = 10;
	fx_conf.owner_max_tokens = 4000;
	fx_conf.address_max_streams = 25;
	fx_conf.address_max_cost = 40000;
	fx_conf.max_cost_per_day = 70000;
	at(now);
	renew(NULL);
	for (int n = 0; n < RUN; n++) {
		struct quota *followed = quota;
		struct quota_refusal its;
		enum rs_err err;
		const char *owner = owners[random() % 2];

		now += random() % 20 == 0 ? random() % HOUR_MS : random() %
		    9000;
		at(now);
		strcpy(worst.address, addresses[random() % 2]);
		worst.tokens = (uint64_t)random() % 300;
		worst.cost = random() % 9 == 0 ? MONEY_UNKNOWN :
		    (uint64_t)random() % 3000;
		err = check(owner);
		ck_assert(err == RS_OK || err == RS_EBUSY);
		its = why;
		for (i = 0; i < count; i++)
			live[i].next = i + 1 < count ? &live[i + 1] : NULL;
		list = count > 0 ? live : NULL;
		quota = NULL;
		renew(list);
		ck_assert_int_eq(check(owner), err);
		ck_assert(why.limit == its.limit);
		ck_assert_uint_eq(why.retry_s, its.retry_s);
		if (random() % 50 == 0) {
			quota_free(followed); /* a spooler's end */
		} else {
			quota_free(quota);
			quota = followed;
		}
		if (err == RS_OK && count < LIVE_MAX) {
			snprintf(id, sizeof id, "s%d", n);
			live[count++] = reserve(owner, id);
		}
		while (count > 0 && random() % 2 == 0) {
			i = (size_t)random() % count;
			if (random() % 5 == 0)
				settle_unknown(&live[i],
				    ERRTYPE_generation_lost, TOKENS_UNKNOWN);
			else
				settle(&live[i], (uint64_t)random() % 100,
				    random() % 9 == 0 ? MONEY_UNKNOWN :
				    (uint64_t)random() % 1000);
			live[i] = live[--count];
		}
	}
}
END_TEST

/* ---- the worst case ---- */

static const struct {
	const char *model, *prompt;
	bool turn;
	uint64_t tokens, cost;	/* less what stands beside the texts */
	uint64_t cut;
} needs[] = {
#define ASK "{\"messages\":[{\"role\":\"user\",\"content\":\"0123456789\"}]"
	/* 10 bytes in; 1 pico in, 2 out where there are prices. */
	{ "demo", ASK "}", false, 10 + 7, 10 + 2 * 7, UINT64_MAX },
	{ "text", ASK "}", false, 10 + 3, MONEY_UNKNOWN, UINT64_MAX },
	{ "echo", ASK "}", false, 10 + 10, MONEY_UNKNOWN, UINT64_MAX },
	{ "plain", ASK "}", false, 10 + 4096, 10 + 2 * 4096, 4096 },
	{ "dear", ASK "}", false, 10 + 4096, 5 * 10 + 2 * 4096, 4096 },
	{ "system", ASK "}", false, 10 + 100 + 4096, MONEY_UNKNOWN, 4096 },
	{ "max", ASK "}", false, 10 + 50, 10 + 2 * 50, UINT64_MAX },
	{ "maxc", ASK "}", false, 10 + 60, MONEY_UNKNOWN, UINT64_MAX },
	{ "maxr", ASK "}", false, 10 + 70, MONEY_UNKNOWN, UINT64_MAX },
	{ "claude", ASK "}", false, 10 + 4096, MONEY_UNKNOWN, UINT64_MAX },
	{ "claude80", ASK "}", false, 10 + 80, MONEY_UNKNOWN, UINT64_MAX },
	{ "gemini", ASK "}", false, 10 + 90, MONEY_UNKNOWN, UINT64_MAX },
	{ "gemini0", ASK "}", false, 10 + 4096, MONEY_UNKNOWN, 4096 },
	{ "llama", ASK "}", false, 10 + 91, MONEY_UNKNOWN, UINT64_MAX },
	{ "llama0", ASK "}", false, 10 + 4096, MONEY_UNKNOWN, 4096 },
	{ "cmd", ASK "}", false, 10 + 4096, MONEY_UNKNOWN, 4096 },
	{ "both", ASK "}", false, 10 + 4096, 10 + 2 * 4096, UINT64_MAX },
	{ "cheap", ASK "}", false, 10 + 50, 10 + 2 * 50, UINT64_MAX },
	/* A persona's win. */
	{ "max", ASK ",\"parameters\":{\"max_tokens\":40}}", false, 10 + 40,
	    10 + 2 * 40, UINT64_MAX },
	{ "plain", ASK ",\"parameters\":{\"max_tokens\":40}}", false, 10 + 40,
	    10 + 2 * 40, UINT64_MAX },
	{ "plain", ASK ",\"parameters\":{\"max_tokens\":\"x\"}}", false,
	    10 + 4096, 10 + 2 * 4096, 4096 },
	{ "plain", ASK ",\"parameters\":{\"max_tokens\":99999999999999999999}}",
	    false, UINT64_C(1000000000000010), UINT64_C(2000000000000010),
	    UINT64_MAX },
	{ "plain", ASK ",\"system\":\"01234\"}", true, 15 + 1000 + 4096,
	    15 + 1000 + 2 * 4096, 4096 },
};

static const char models_json[] = "{\"models\":{"
#define HTTP "\"base_url\":\"http://127.0.0.1:1\""
#define PRICED "\"prices\":{\"input\":1,\"output\":2}"
    "\"demo\":{\"provider\":\"demo\",\"chunks\":7," PRICED "},"
    "\"text\":{\"provider\":\"demo\",\"text\":\"abc\"},"
    "\"echo\":{\"provider\":\"demo\"},"
    "\"plain\":{\"provider\":\"openai\"," HTTP "," PRICED "},"
    "\"dear\":{\"provider\":\"openai\"," HTTP ",\"prices\":{\"input\":1,"
    "\"cache_write\":5,\"cache_read\":1,\"output\":2}},"
    "\"system\":{\"provider\":\"openai\"," HTTP ",\"system\":"
    "\"0123456789012345678901234567890123456789012345678901234567890123456789"
    "012345678901234567890123456789\"},"
    "\"max\":{\"provider\":\"openai\"," HTTP "," PRICED ","
    "\"parameters\":{\"max_tokens\":50}},"
    "\"maxc\":{\"provider\":\"openai\"," HTTP ",\"parameters\":"
    "{\"max_completion_tokens\":60}},"
    "\"maxr\":{\"provider\":\"openai-responses\"," HTTP ",\"parameters\":"
    "{\"max_output_tokens\":70}},"
    "\"claude\":{\"provider\":\"anthropic\"," HTTP "},"
    "\"claude80\":{\"provider\":\"anthropic\"," HTTP ",\"parameters\":"
    "{\"max_tokens\":80}},"
    "\"gemini\":{\"provider\":\"gemini\"," HTTP ",\"parameters\":"
    "{\"generationConfig\":{\"maxOutputTokens\":90}}},"
    "\"gemini0\":{\"provider\":\"gemini\"," HTTP "},"
    "\"llama\":{\"provider\":\"ollama\"," HTTP ",\"parameters\":"
    "{\"options\":{\"num_predict\":91}}},"
    "\"llama0\":{\"provider\":\"ollama\"," HTTP ",\"parameters\":"
    "{\"options\":{\"num_predict\":-1}}},"
    "\"cmd\":{\"provider\":\"exec\",\"command\":[\"true\"]},"
    "\"both\":{\"provider\":\"openai\"," HTTP ",\"parameters\":"
    "{\"max_tokens\":50},\"fallback\":[\"plain\"]},"
    "\"cheap\":{\"provider\":\"openai\"," HTTP ",\"prices\":{\"input\":0,"
    "\"output\":1},\"parameters\":{\"max_tokens\":9},\"fallback\":[\"max\"]}"
    "}}";

static struct models *
load_models(void)
{
	char path[sizeof fx_dir + 32];
	struct models *models;
	struct buf text;
	int fd;

	snprintf(path, sizeof path, "%s/models.json", fx_dir);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	ck_assert_int_eq(fd_write_full(fd, models_json,
	    sizeof models_json - 1), RS_OK);
	close(fd);
	buf_init(&text, 1 << 16);
	ck_assert_msg(models_load(path, &models, &text) == RS_OK, "%s",
	    text.data);
	buf_done(&text);
	return models;
}

START_TEST(the_worst_case_is_all_bytes_in_and_the_maximum_out)
{
	struct models *models = load_models();
	const struct model *m = models_find(models, needs[_i].model,
	    strlen(needs[_i].model));
	struct json_object *prompt;
	struct usage_worst w;
	const char *fault;

	fx_conf.reserve_tokens = 4096;
	fx_conf.history_tokens = 250;
	fx_conf.owner_max_tokens = 1;
	ck_assert_int_eq(jx_parse(needs[_i].prompt, strlen(needs[_i].prompt),
	    &prompt, &fault), RS_OK);
	quota_need(&fx_conf, m, prompt, needs[_i].turn, &w);
	/* Some tokens stand beside the texts: at least one for each message,
	 * and no more than a few hundred. */
	ck_assert_uint_gt(w.tokens, needs[_i].tokens);
	ck_assert_uint_lt(w.tokens, needs[_i].tokens + 300);
	if (needs[_i].cost == MONEY_UNKNOWN)
		ck_assert_uint_eq(w.cost, MONEY_UNKNOWN);
	else {
		ck_assert_uint_gt(w.cost, needs[_i].cost);
		ck_assert_uint_lt(w.cost, needs[_i].cost + 1000);
	}
	ck_assert_uint_eq(quota_cut(&fx_conf, m, json_object_object_get(prompt,
	    "parameters")), needs[_i].cut);
	fx_conf.owner_max_tokens = 0;
	ck_assert_uint_eq(quota_cut(&fx_conf, m, NULL), UINT64_MAX);
	json_object_put(prompt);
	models_unref(models);
}
END_TEST

START_TEST(settings_that_guard_nothing_are_told)
{
	static const struct {
		enum owner_by by;
		uint64_t daily, owners, tokens;
		const char *want[2];
	} rows[] = {
		{ OWNER_BY_REQUEST, 0, 0, 0, { "plain costs", NULL } },
		{ OWNER_BY_JWT, 0, 0, 0, { NULL, NULL } },
		{ OWNER_BY_REQUEST, 9999, 0, 0, { "system has no prices",
		    NULL } },
		{ OWNER_BY_REQUEST, 0, 9999, 0, { "plain costs",
		    "system has no prices" } },
		{ OWNER_BY_SERVER, 0, 9999, 0, { "system has no prices",
		    NULL } },
		{ OWNER_BY_SERVER, 8200, 0, 0, { "plain can never",
		    "system has no prices" } },
		{ OWNER_BY_SERVER, 0, 8200, 0, { "plain can never",
		    "system has no prices" } },
		{ OWNER_BY_SERVER, 0, 0, 4096, { "plain can never", NULL } },
		{ OWNER_BY_SERVER, 0, 0, 5000, { NULL, NULL } },
	};
	struct models *models = load_models();
	struct buf text;
	size_t lines = 0;

	buf_init(&text, 4096);
	fx_conf.owner_by = rows[_i].by;
	fx_conf.max_cost_per_day = rows[_i].daily;
	fx_conf.owner_max_cost = rows[_i].owners;
	fx_conf.address_max_tokens = rows[_i].tokens;
	fx_conf.reserve_tokens = 4096;
	quota_warn(&fx_conf, models, &text);
	for (size_t i = 0; i < text.len; i++)
		lines += text.data[i] == '\n';
	for (int i = 0; i < 2; i++) {
		lines -= rows[_i].want[i] != NULL;
		ck_assert(rows[_i].want[i] == NULL ||
		    strstr(text.data, rows[_i].want[i]) != NULL);
	}
	ck_assert_uint_eq(lines, 0);
	buf_done(&text);
	models_unref(models);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("quota");
	TCase *tc = tcase_create("core");

	tcase_set_timeout(tc, 300);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, without_a_limit_none_is_wanted);
	tcase_add_test(tc, streams_at_once_are_reserves_without_a_settle);
	tcase_add_test(tc, an_address_is_counted_whoever_its_owners_are);
	tcase_add_test(tc, starts_are_those_of_the_last_minute);
	tcase_add_test(tc, tokens_of_a_day_are_the_used_and_the_reserved_ones);
	tcase_add_test(tc, costs_of_a_day_are_counted_likewise);
	tcase_add_test(tc,
	    of_several_limits_the_one_that_lasts_longest_is_told);
	tcase_add_loop_test(tc,
	    what_nobody_knows_counts_as_the_worst_case_unless_it_was_refused,
	    0, sizeof endings / sizeof endings[0]);
	tcase_add_test(tc, a_new_spooler_knows_what_the_one_before_it_did);
	tcase_add_test(tc, what_was_reserved_days_ago_is_open_until_its_settle);
	tcase_add_test(tc, what_recovery_has_not_found_open_is_not);
	tcase_add_test(tc, a_day_file_that_is_gone_is_a_day_without_use);
	tcase_add_loop_test(tc,
	    a_clock_set_back_neither_opens_nor_locks_the_door, 0, 5);
	tcase_add_test(tc, what_was_used_ahead_counts_when_its_day_comes);
	tcase_add_test(tc, a_line_of_before_midnight_is_read_after_it);
	tcase_add_loop_test(tc, a_day_is_one_of_the_zone, 0,
	    sizeof days / sizeof days[0]);
	tcase_add_test(tc,
	    a_file_cut_at_any_byte_counts_as_its_whole_lines);
	tcase_add_test(tc, strange_lines_are_passed_over);
	tcase_add_test(tc, sums_do_not_overflow);
	tcase_add_loop_test(tc, reading_on_comes_to_the_same_as_reading_anew,
	    0, 4);
	tcase_add_loop_test(tc,
	    the_worst_case_is_all_bytes_in_and_the_maximum_out, 0,
	    sizeof needs / sizeof needs[0]);
	tcase_add_loop_test(tc, settings_that_guard_nothing_are_told, 0, 9);
	suite_add_tcase(s, tc);
	return fx_run(s);
}
