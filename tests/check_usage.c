/* check_usage.c - what was bought is counted once. */
#include <sys/resource.h>
#include <json-c/json.h>
#include "spool_fixture.h"
#include "../src/jx.h"
#include "../src/money.h"
#include "../src/usage.h"
#include "../src/usage_impl.h"

static const char *
day_path(int64_t ms)
{
	static char path[sizeof fx_dir + 64];
	char day[CLOCK_ISO_SIZE];

	clock_iso(ms, day);
	snprintf(path, sizeof path, "%s/usage/%.10s.jsonl", fx_dir, day);
	return path;
}

static void
add_to(const char *path, const void *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fd_write_full(fd, p, n), RS_OK);
	close(fd);
}

/* What all of a file's lines come to. */
struct sums {
	size_t lines, bad, reserve, settle, recovered;
	size_t settled[10];	/* settle lines of stream u0 to u9 */
	bool open;		/* the last recovered line lists something */
};

static struct sums
sum_up(const char *path)
{
	struct sums s = { .lines = 0 };
	struct buf b;
	char *p, *nl;

	buf_init(&b, 1 << 26);
	if (fd_read_file(AT_FDCWD, path, &b) != RS_OK || b.len == 0) {
		buf_done(&b);
		return s;
	}
	for (p = b.data; p < b.data + b.len; p = nl + 1) {
		struct json_object *o = NULL;
		const char *why, *type, *id;
		size_t len;

		if ((nl = memchr(p, '\n', (size_t)(b.data + b.len - p))) ==
		    NULL)
			nl = b.data + b.len;
		s.lines++;
		if (jx_parse(p, (size_t)(nl - p), &o, &why) != RS_OK ||
		    jx_get_str(o, "type", &type, &len) != RS_OK) {
			json_object_put(o);
			s.bad++;
			continue;
		}
		s.reserve += strcmp(type, "reserve") == 0;
		if (strcmp(type, "settle") == 0) {
			s.settle++;
			ck_assert_int_eq(jx_get_str(o, "stream_id", &id,
			    &len), RS_OK);
			if (id[0] == 'u')
				s.settled[id[1] - '0']++;
		}
		if (strcmp(type, "recovered") == 0) {
			s.recovered++;
			s.open = strstr(json_object_to_json_string(o),
			    "stream_id") != NULL;
		}
		json_object_put(o);
	}
	buf_done(&b);
	return s;
}

static const struct usage_worst worst = {
	.address = "0123456789abcdef", .tokens = 4121, .cost = 2500000000,
};

static struct stream_key
key(int i)
{
	struct stream_key k;
	char id[8];

	snprintf(id, sizeof id, "u%d", i);
	stream_key(&k, "alice", id);
	return k;
}

/* A generation up to the state that its crash left. */
enum crash { RESERVED, WROTE, SETTLED, ENDED, ENDED_UNSETTLED, GONE, LIVE };

static struct spool_writer *
generation(int i, enum crash state)
{
	struct stream_key k = key(i);
	struct spool_writer *w = fx_create(&k);
	struct stream_head h = fx_head();
	struct ending e = { .finish = FINISH_STOP,
	    .usage = { .output = 7 }, .cost = 700000 };
	struct buf b;

	buf_init(&b, 4096);
	ck_assert_int_eq(usage_reserve(fx_sp, &k, &h, &worst), RS_OK);
	fx_frame(&b, 0, 0);
	if (state != RESERVED)
		ck_assert_int_eq(spool_append(w, b.data, b.len), RS_OK);
	if (state == SETTLED || state == ENDED)
		ck_assert_int_eq(usage_settle(fx_sp, &k, &h, &e), RS_OK);
	buf_clear(&b);
	fx_done(&b, 1);
	if (state == ENDED || state == ENDED_UNSETTLED)
		ck_assert_int_eq(spool_append(w, b.data, b.len), RS_OK);
	buf_done(&b);
	if (state == LIVE)
		return w;
	spool_writer_free(w);
	if (state == GONE)
		ck_assert_int_eq(spool_delete(fx_sp, &k), RS_OK);
	return NULL;
}

START_TEST(a_generation_is_a_reserve_and_a_settle)
{
	struct stream_key k = key(0);
	struct stream_head h = fx_head();
	struct ending e = { .finish = FINISH_STOP,
	    .model = "other", .usage = { .input = 3, .output = 7 },
	    .cost = 700000 };
	char want[2000], now[CLOCK_ISO_SIZE];
	struct buf b;

	clock_iso(fx_now_ms, now);
	ck_assert_int_eq(usage_reserve(fx_sp, &k, &h, &worst), RS_OK);
	ck_assert_int_eq(usage_settle(fx_sp, &k, &h, &e), RS_OK);
	e.finish = FINISH_STOPPED;
	e.upstream_cost = "0.0000071";
	e.cost = MONEY_UNKNOWN;
	e.model = NULL;
	e.estimated = true;
	ck_assert_int_eq(usage_settle(fx_sp, &k, &h, &e), RS_OK);
	e.error = ERRTYPE_idle_timeout;
	ck_assert_int_eq(usage_settle(fx_sp, &k, &h, &e), RS_OK);
	buf_init(&b, 1 << 16);
	ck_assert_int_eq(fd_read_file(AT_FDCWD, day_path(fx_now_ms), &b),
	    RS_OK);
#define GENERATION "\"owner\":\"%s\",\"stream_id\":\"u0\",\"created\":%lld," \
	"\"model\":"
#define USAGE "\"usage\":{\"input\":3,\"cache_read\":0,\"cache_write\":0," \
	"\"output\":7,\"reasoning\":0,\"total\":10}"
	snprintf(want, sizeof want,
	    "{\"type\":\"reserve\",\"time\":\"%s\"," GENERATION
	    "\"demo \\\"m\\\"\",\"address\":\"0123456789abcdef\","
	    "\"tokens\":4121,\"cost\":0.0025}\n"
	    "{\"type\":\"settle\",\"time\":\"%s\"," GENERATION "\"other\","
	    USAGE ",\"total_cost\":0.0000007,\"estimated\":false,"
	    "\"finish_reason\":\"stop\"}\n"
	    "{\"type\":\"settle\",\"time\":\"%s\"," GENERATION
	    "\"demo \\\"m\\\"\"," USAGE ",\"total_cost\":null,"
	    "\"estimated\":true,\"finish_reason\":\"stopped\","
	    "\"partial\":true,\"upstream_cost\":\"0.0000071\"}\n"
	    "{\"type\":\"settle\",\"time\":\"%s\"," GENERATION
	    "\"demo \\\"m\\\"\"," USAGE ",\"total_cost\":null,"
	    "\"estimated\":true,\"error_type\":\"idle_timeout\","
	    "\"partial\":true,\"upstream_cost\":\"0.0000071\"}\n",
	    now, k.owner_hash, (long long)h.created_ms,
	    now, k.owner_hash, (long long)h.created_ms,
	    now, k.owner_hash, (long long)h.created_ms,
	    now, k.owner_hash, (long long)h.created_ms);
	ck_assert_str_eq(b.data, want);
	buf_done(&b);
}
END_TEST

START_TEST(a_line_after_a_torn_one_begins_anew)
{
	struct stream_key k = key(0);
	struct stream_head h = fx_head();
	struct sums s;

	ck_assert_int_eq(usage_reserve(fx_sp, &k, &h, &worst), RS_OK);
	add_to(day_path(fx_now_ms), "{\"type\":\"sett", 13);
	ck_assert_int_eq(usage_reserve(fx_sp, &k, &h, &worst), RS_OK);
	s = sum_up(day_path(fx_now_ms));
	ck_assert_uint_eq(s.lines, 3);
	ck_assert_uint_eq(s.bad, 1);
	ck_assert_uint_eq(s.reserve, 2);
}
END_TEST

START_TEST(a_full_disk_is_told_and_tears_one_line)
{
	struct stream_key k = key(0);
	struct stream_head h = fx_head();
	struct rlimit lim;
	enum rs_err err;
	struct sums s;

	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &lim), 0);
	lim.rlim_cur = (rlim_t)_i;
	setrlimit(RLIMIT_FSIZE, &lim);
	err = usage_reserve(fx_sp, &k, &h, &worst);
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_FSIZE, &lim);
	ck_assert_int_eq(err, RS_ENOSPC);
	ck_assert_int_eq(usage_reserve(fx_sp, &k, &h, &worst), RS_OK);
	s = sum_up(day_path(fx_now_ms));
	ck_assert_uint_eq(s.reserve, 1);
	ck_assert_uint_eq(s.lines, _i == 0 ? 1 : 2);
}
END_TEST

START_TEST(a_link_is_not_written_through)
{
	char victim[sizeof fx_dir + 16];
	struct stream_key k = key(0);
	struct stream_head h = fx_head();

	snprintf(victim, sizeof victim, "%s/victim", fx_dir);
	ck_assert_int_eq(symlink(victim, day_path(fx_now_ms)), 0);
	ck_assert_int_ne(usage_reserve(fx_sp, &k, &h, &worst), RS_OK);
	ck_assert_int_ne(access(victim, F_OK), 0);
}
END_TEST

/* Each has the worst case of its reserve. */
static size_t
count_open(struct usage_generation *list)
{
	size_t n = 0;

	for (struct usage_generation *g = list; g != NULL; g = g->next, n++) {
		ck_assert_str_eq(g->worst.address, worst.address);
		ck_assert_uint_eq(g->worst.tokens, worst.tokens);
		ck_assert_uint_eq(g->worst.cost, worst.cost);
	}
	usage_generations_free(list);
	return n;
}

static void
recover(size_t want_sealed, size_t want_open)
{
	struct usage_generation *open = NULL;
	size_t sealed = 99;

	ck_assert_int_eq(usage_recover(fx_sp, &sealed, &open), RS_OK);
	ck_assert_uint_eq(sealed, want_sealed);
	ck_assert_uint_eq(count_open(open), want_open);
}

static void
check_ended(int i)
{
	struct stream_key k = key(i);

	ck_assert(fx_tail(&k).ended);
}

START_TEST(a_recovery_settles_every_generation_once_however_often_it_runs)
{
	struct spool_writer *w;
	struct sums s;

	generation(0, RESERVED);
	generation(1, WROTE);
	generation(2, SETTLED); /* ended when somebody asks for it */
	generation(3, ENDED);
	generation(4, GONE);
	w = generation(5, LIVE);
	generation(6, ENDED_UNSETTLED);
	for (int run = 0; run < 5; run++) {
		recover(run == 0 ? 4 : 0, 1);
		s = sum_up(day_path(fx_now_ms));
		ck_assert_uint_eq(s.reserve, 7);
		ck_assert_uint_eq(s.bad, 0);
		ck_assert_uint_eq(s.settle, 6);
		for (int i = 0; i < 7; i++)
			ck_assert_uint_eq(s.settled[i], i != 5);
		ck_assert_uint_eq(s.recovered, 1);
		ck_assert(s.open);
		check_ended(0);
		check_ended(1);
	}
	spool_writer_free(w);
	recover(1, 0);
	check_ended(5);
	recover(0, 0);
	s = sum_up(day_path(fx_now_ms));
	ck_assert_uint_eq(s.settled[5], 1);
	ck_assert_uint_eq(s.recovered, 2);
	ck_assert(!s.open);
}
END_TEST

START_TEST(nothing_bought_is_nothing_to_recover)
{
	recover(0, 0);
	ck_assert_int_ne(access(day_path(fx_now_ms), F_OK), 0);
}
END_TEST

/* The stream of that name is a later one, and lives. */
START_TEST(another_generation_of_the_same_name_is_left_alone)
{
	struct stream_head h = fx_head();
	struct stream_key k = key(0);
	struct spool_writer *w;
	struct spool_reader r;
	struct sums s;

	h.created_ms -= 1000000;
	ck_assert_int_eq(usage_reserve(fx_sp, &k, &h, &worst), RS_OK);
	w = generation(0, WROTE);
	ck_assert_ptr_null(w);
	k = key(0);
	r = fx_find(&k);
	recover(2, 0);
	s = sum_up(day_path(fx_now_ms));
	ck_assert_uint_eq(s.settled[0], 2); /* one for each created */
	spool_reader_done(&r);
}
END_TEST

START_TEST(a_recovery_reads_back_over_days_to_the_last_recovered_line)
{
	const int64_t day_ms = 86400000;
	char notes[sizeof fx_dir + 32];
	struct sums s;

	clock_freeze(NS_PER_S, fx_now_ms - 3 * day_ms);
	generation(0, RESERVED); /* before the recovered line: never read */
	add_to(day_path(fx_now_ms - 3 * day_ms),
	    "{\"type\":\"recovered\",\"time\":\"x\",\"open\":[]}\n", 43);
	generation(1, WROTE);
	clock_freeze(NS_PER_S, fx_now_ms - 2 * day_ms);
	generation(2, ENDED);
	generation(3, WROTE);
	/* A torn recovered line is none. */
	add_to(day_path(fx_now_ms - 2 * day_ms),
	    "{\"type\":\"recovered\",\"time\":\"x\",\"op", 35);
	clock_freeze(NS_PER_S, fx_now_ms);
	add_to(day_path(fx_now_ms), "", 0);
	snprintf(notes, sizeof notes, "%s/usage/notes.txt", fx_dir);
	add_to(notes, "x", 1);
	recover(2, 0);
	s = sum_up(day_path(fx_now_ms));
	ck_assert_uint_eq(s.settle, 2);
	ck_assert_uint_eq(s.settled[1], 1);
	ck_assert_uint_eq(s.settled[3], 1);
	ck_assert_uint_eq(s.recovered, 1);
}
END_TEST

/* What all files hold of generation i. */
static void
check_settled_once(int i, const int64_t *days, size_t count)
{
	size_t settled = 0;

	for (size_t d = 0; d < count; d++) {
		struct sums s = sum_up(day_path(days[d]));

		ck_assert_uint_eq(s.bad, 0);
		settled += s.settled[i];
	}
	ck_assert_msg(settled == 1, "u%d has %zu settle lines", i, settled);
}

/* The clock is ahead for a while, by a day or years, and goes there again. */
START_TEST(a_clock_that_was_set_back_changes_no_recovery)
{
	const int64_t ahead = fx_now_ms + (_i == 0 ? 1 : 800) * INT64_C(86400000);
	const int64_t days[] = { fx_now_ms, ahead };
	struct stream_key k = key(2);
	struct stream_head h = fx_head();
	struct ending e = { .finish = FINISH_STOP };

	generation(0, WROTE);
	clock_freeze(NS_PER_S, ahead);
	recover(1, 0); /* u0, and a recovered line in that file */
	generation(1, WROTE);
	ck_assert_int_eq(usage_reserve(fx_sp, &k, &h, &worst), RS_OK);
	clock_freeze(NS_PER_S, fx_now_ms);
	ck_assert_int_eq(usage_settle(fx_sp, &k, &h, &e), RS_OK);
	generation(3, WROTE);
	recover(2, 0); /* u1, u3 */
	generation(4, WROTE);
	recover(1, 0);
	clock_freeze(NS_PER_S, ahead);
	recover(0, 0);
	generation(5, WROTE);
	recover(1, 0);
	clock_freeze(NS_PER_S, fx_now_ms);
	recover(0, 0);
	for (int i = 0; i <= 5; i++)
		check_settled_once(i, days, 2);
}
END_TEST

START_TEST(strange_lines_are_passed_over)
{
	static const char *const lines[] = {
		"\n", "\n\n", "null\n", "[]\n", "{}\n", "{\"type\":1}\n",
		"{\"type\":\"reserve\"}\n",
		"{\"type\":\"reserve\",\"owner\":\"../../../../etc/\","
		"\"stream_id\":\"a\",\"created\":1,\"model\":\"m\"}\n",
		"{\"type\":\"reserve\",\"owner\":\"0123456789abcdef\","
		"\"stream_id\":\"../a\",\"created\":1,\"model\":\"m\"}\n",
		"{\"type\":\"reserve\",\"owner\":\"0123456789abcdef\","
		"\"stream_id\":\"a\",\"created\":-1,\"model\":\"m\"}\n",
		"{\"type\":\"reserve\",\"owner\":\"0123456789abcdef\","
		"\"stream_id\":\"a\",\"created\":18446744073709551615,"
		"\"model\":\"m\"}\n",
		"{\"type\":\"recovered\",\"open\":3}\n",
		"{\"type\":\"recovered\",\"open\":[3,null,{}]}\n",
		"{\"type\":\"unheard of\"}\n", "\xff\xfe\n",
	};
	const char *path = day_path(fx_now_ms);
	char zeros[100] = "", *big;
	struct sums s;

	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		add_to(path, lines[i], strlen(lines[i]));
	generation(0, WROTE);
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		if (i < 11)
			add_to(path, lines[i], strlen(lines[i]));
	add_to(path, zeros, sizeof zeros);
	add_to(path, "\n", 1);
	big = malloc(3 << 20);
	memset(big, 'x', 3 << 20);
	memcpy(big, "{\"type\":\"recovered\"", 19);
	add_to(path, big, 3 << 20);
	free(big);
	generation(1, WROTE);
	recover(2, 0);
	s = sum_up(path);
	ck_assert_uint_eq(s.settled[0], 1);
	ck_assert_uint_eq(s.settled[1], 1);
	recover(0, 0);
}
END_TEST

/* Whatever the file was cut to, recovery brings about the same. */
START_TEST(a_cut_usage_file_recovers)
{
	struct stat st;
	struct sums s;
	off_t size;

	generation(0, WROTE);
	ck_assert_int_eq(stat(day_path(fx_now_ms), &st), 0);
	size = st.st_size;
	for (off_t n = size - 1; n >= 0; n -= 7) {
		struct usage_generation *open;
		size_t sealed;

		ck_assert_int_eq(truncate(day_path(fx_now_ms), n), 0);
		ck_assert_int_eq(usage_recover(fx_sp, &sealed, &open), RS_OK);
		/* The line is whole without its line end. */
		ck_assert_uint_eq(sealed, n == size - 1);
		ck_assert_ptr_null(open);
		s = sum_up(day_path(fx_now_ms));
		ck_assert_uint_eq(s.settle, n == size - 1);
		ck_assert_int_eq(truncate(day_path(fx_now_ms), n), 0);
	}
}
END_TEST

START_TEST(many_generations_recover)
{
	struct stream_head h = fx_head();
	struct stream_key k;
	struct ending e = { .finish = FINISH_STOP };

	for (int i = 0; i < 3000; i++) {
		char id[16];

		snprintf(id, sizeof id, "m%d", i);
		stream_key(&k, "alice", id);
		ck_assert_int_eq(usage_reserve(fx_sp, &k, &h, &worst), RS_OK);
		if (i % 10 != 0)
			ck_assert_int_eq(usage_settle(fx_sp, &k, &h, &e),
			    RS_OK);
	}
	recover(300, 0);
	recover(0, 0);
}
END_TEST

/* ---- lines ---- */

/* The same read in the general way: the quick one knows no spaces. */
static bool
read_slowly(const struct buf *line, size_t len, struct usage_line *ret)
{
	struct buf spaced;
	bool good;

	buf_init(&spaced, 1 << 16);
	buf_add(&spaced, line->data, len > 0);
	buf_puts(&spaced, " ");
	buf_add(&spaced, line->data + (len > 0), len - (len > 0));
	good = usage_line_read(&spaced, ret);
	buf_done(&spaced);
	return good;
}

static void
check_same(const struct usage_line *a, const struct usage_line *b)
{
	ck_assert_int_eq(a->settles, b->settles);
	ck_assert_int_eq(usage_generation_cmp(&a->g, &b->g), 0);
	ck_assert_str_eq(a->g.model, b->g.model);
	ck_assert_int_eq(a->known, b->known);
	if (a->settles) {
		ck_assert(!a->known || a->tokens == b->tokens);
		ck_assert(!a->known || a->cost == b->cost);
	} else {
		ck_assert_str_eq(a->g.worst.address, b->g.worst.address);
		ck_assert_uint_eq(a->g.worst.tokens, b->g.worst.tokens);
		ck_assert_uint_eq(a->g.worst.cost, b->g.worst.cost);
	}
}

/* Each of our lines, whole and cut at every byte. */
START_TEST(lines_are_read_quickly_as_they_are_read_slowly)
{
	const uint64_t x = TOKENS_UNKNOWN;
	const struct ending endings[] = {
		{ .usage = { 1, 2, 3, 4, 5 }, .cost = 7 },
		{ .usage = { 1, 2, 3, 4, 5 }, .cost = MONEY_UNKNOWN,
		    .finish = FINISH_STOPPED, .estimated = true },
		{ .usage = { x, x, x, 4, x }, .cost = 7,
		    .error = ERRTYPE_generation_lost },
		{ .usage = { x, x, x, x, x }, .cost = MONEY_UNKNOWN,
		    .error = ERRTYPE_auth, .first_token_ms = x },
		{ .usage = { 1, 0, 0, 4, 0 }, .cost = 0, .model = "a\"\\b",
		    .upstream_cost = "0.\"unused\":true}" },
	};
	const struct usage_worst worsts[] = {
		worst, { "", 0, MONEY_UNKNOWN }, { "", UINT64_MAX, 0 },
	};
	struct stream_key k = key(0);
	struct stream_head h = fx_head();
	struct usage_line a, b;
	struct usage_lines l;
	struct stat st;
	enum rs_err err;
	uint64_t off;
	size_t n, settles = 0;
	int fd;

	for (n = 0; n < 2 * 3; n++) {
		strcpy(h.model, n < 3 ? "gpt-4o (\xc3\xbc)" : "a\\b");
		ck_assert_int_eq(usage_reserve(fx_sp, &k, &h, &worsts[n % 3]),
		    RS_OK);
	}
	for (n = 0; n < 5; n++)
		ck_assert_int_eq(usage_settle(fx_sp, &k, &h, &endings[n]),
		    RS_OK);
	fd = open(day_path(fx_now_ms), O_RDONLY);
	ck_assert_int_eq(fstat(fd, &st), 0);
	usage_lines_init(&l, fd, 0);
	for (n = 0; (err = usage_lines_next(&l, &off)) == RS_OK; n++) {
		ck_assert(l.whole && usage_line_read(&l.line, &a));
		ck_assert(read_slowly(&l.line, l.line.len, &b));
		check_same(&a, &b);
		settles += a.settles;
		while (l.line.len > 0) {
			l.line.data[--l.line.len] = '\0';
			ck_assert(!usage_line_read(&l.line, &a));
			ck_assert(!read_slowly(&l.line, l.line.len, &b));
		}
	}
	ck_assert_int_eq(err, RS_ENOENT);
	ck_assert_uint_eq(n, 11);
	ck_assert_uint_eq(settles, 5);
	usage_lines_done(&l);
	close(fd);
}
END_TEST

/* ---- sums ---- */

#define DAY_MS INT64_C(86400000)

/* One line, written on the day that many days before today.  rest: the
 * members behind the generation's. */
static void
add_line(const char *type, int days_ago, const char *owner, const char *id,
    int64_t created_ms, const char *model, const char *rest)
{
	struct stream_key k;
	char line[2000];
	int n;

	stream_key(&k, owner, id);
	n = snprintf(line, sizeof line, "{\"type\":\"%s\",\"time\":\"x\","
	    "\"owner\":\"%s\",\"stream_id\":\"%s\",\"created\":%lld,"
	    "\"model\":\"%s\"%s}\n", type, k.owner_hash, id,
	    (long long)created_ms, model, rest);
	add_to(day_path(fx_now_ms - days_ago * DAY_MS), line, (size_t)n);
}

#define DONE(usage, cost) ",\"usage\":" usage ",\"total_cost\":" cost \
	",\"estimated\":false,\"finish_reason\":\"stop\""
#define TOKENS "{\"input\":3,\"cache_read\":4,\"cache_write\":5," \
	"\"output\":6,\"reasoning\":2,\"total\":18}"
#define COST "0.000000000001"

/* What there is, over three days (today - 2, today - 1, today):
 * ann: a, settled the day after, twice, the second time by another model;
 *      b, settled today at 10^12 + 1 picodollars; c, open since yesterday
 * bob: a, of today, without a price; d, failed; e, stopped, estimated */
static void
put_three_days(void)
{
	int64_t now = fx_now_ms;

	add_line("reserve", 2, "ann", "a", now - 2 * DAY_MS, "m1", "");
	add_line("settle", 1, "ann", "a", now - 2 * DAY_MS, "m2",
	    DONE(TOKENS, COST));
	add_line("reserve", 1, "ann", "b", now - DAY_MS, "m1", "");
	add_line("reserve", 1, "ann", "c", now - DAY_MS + 1, "m1", "");
	add_line("settle", 0, "ann", "a", now - 2 * DAY_MS, "m1",
	    DONE(TOKENS, "5"));
	add_line("settle", 0, "ann", "b", now - DAY_MS, "m1",
	    DONE(TOKENS, "1.000000000001"));
	add_line("reserve", 0, "bob", "a", now, "m1", "");
	add_line("settle", 0, "bob", "a", now, "m1", DONE(TOKENS, "null"));
	add_line("settle", 0, "bob", "a", now, "m1", DONE(TOKENS, COST));
	add_line("settle", 0, "bob", "d", now, "m3",
	    ",\"usage\":null,\"total_cost\":null,\"estimated\":false,"
	    "\"error_type\":\"auth\",\"partial\":true");
	add_line("settle", 0, "bob", "e", now, "m1",
	    ",\"usage\":{\"input\":null,\"output\":7},\"total_cost\":" COST ","
	    "\"estimated\":true,\"finish_reason\":\"stopped\","
	    "\"partial\":true");
}

static const struct {
	int days_ago;		/* -1: all days */
	const char *owner, *model;
	/* Of the sum of all rows: generations, failed, partial, estimated,
	 * unpriced, open, input, output, cost. */
	uint64_t want[9];
	size_t rows;
} sums_of[] = {
	{ -1, NULL, NULL, { 5, 1, 2, 1, 2, 1, 9, 25, 1000000000003 }, 3 },
	{ 0, NULL, NULL, { 4, 1, 2, 1, 2, 0, 6, 19, 1000000000002 }, 2 },
	{ 1, NULL, NULL, { 1, 0, 0, 0, 0, 1, 3, 6, 1 }, 2 },
	{ 2, NULL, NULL, { 0, 0, 0, 0, 0, 0, 0, 0, 0 }, 0 },
	{ 3, NULL, NULL, { 0, 0, 0, 0, 0, 0, 0, 0, 0 }, 0 },
	{ -1, "ann", NULL, { 2, 0, 0, 0, 0, 1, 6, 12, 1000000000002 }, 2 },
	{ -1, "bob", NULL, { 3, 1, 2, 1, 2, 0, 3, 13, 1 }, 2 },
	{ -1, "cid", NULL, { 0, 0, 0, 0, 0, 0, 0, 0, 0 }, 0 },
	{ -1, NULL, "m1", { 3, 0, 1, 1, 1, 1, 6, 19, 1000000000002 }, 1 },
	{ -1, NULL, "m2", { 1, 0, 0, 0, 0, 0, 3, 6, 1 }, 1 },
	{ -1, NULL, "m", { 0, 0, 0, 0, 0, 0, 0, 0, 0 }, 0 },
	{ 0, "ann", "m1", { 1, 0, 0, 0, 0, 0, 3, 6, 1000000000001 }, 1 },
};

START_TEST(each_generation_is_summed_once)
{
	struct usage_row t = { .generations = 0 };
	struct usage_query q = { .model = sums_of[_i].model };
	struct stream_key k;
	struct usage_sums sums;
	char day[CLOCK_ISO_SIZE];

	put_three_days();
	if (sums_of[_i].days_ago >= 0) {
		clock_iso(fx_now_ms - sums_of[_i].days_ago * DAY_MS, day);
		day[10] = '\0';
		q.day = day;
	}
	if (sums_of[_i].owner != NULL) {
		stream_key(&k, sums_of[_i].owner, "x");
		q.owner_hash = k.owner_hash;
	}
	ck_assert_int_eq(usage_sum(fx_sp, &q, &sums), RS_OK);
	ck_assert_uint_eq(sums.count, sums_of[_i].rows);
	for (size_t i = 0; i < sums.count; i++) {
		usage_row_add(&t, &sums.rows[i]);
		ck_assert(i == 0 || strcmp(sums.rows[i - 1].model,
		    sums.rows[i].model) < 0);
	}
	const uint64_t got[] = { t.generations, t.failed, t.partial,
		t.estimated, t.unpriced, t.open, t.usage.input,
		t.usage.output, t.cost };
	for (size_t i = 0; i < sizeof got / sizeof got[0]; i++)
		ck_assert_msg(got[i] == sums_of[_i].want[i],
		    "%zu: %llu", i, (unsigned long long)got[i]);
	usage_sums_done(&sums);
}
END_TEST

START_TEST(nothing_bought_is_an_empty_sum)
{
	struct usage_query q = { NULL, NULL, NULL };
	struct usage_sums sums;

	ck_assert_int_eq(usage_sum(fx_sp, &q, &sums), RS_OK);
	ck_assert_uint_eq(sums.count, 0);
	usage_sums_done(&sums);
}
END_TEST

START_TEST(strange_amounts_are_unknown)
{
	static const char *const odd[] = {
		DONE(TOKENS, "\"1\""), DONE(TOKENS, "-1"), DONE(TOKENS, "1e3"),
		DONE(TOKENS, "0.0000000000001"), DONE(TOKENS, "[]"),
		DONE("[]", "null"), DONE("{\"input\":-1}", "{}"), "",
	};
	const size_t count = sizeof odd / sizeof odd[0];
	struct usage_query q = { NULL, NULL, NULL };
	struct usage_sums sums;
	char id[8];

	for (size_t i = 0; i < count; i++) {
		snprintf(id, sizeof id, "o%zu", i);
		add_line("settle", 0, "ann", id, fx_now_ms, "m", odd[i]);
	}
	ck_assert_int_eq(usage_sum(fx_sp, &q, &sums), RS_OK);
	ck_assert_uint_eq(sums.count, 1);
	ck_assert_uint_eq(sums.rows[0].generations, count);
	ck_assert_uint_eq(sums.rows[0].unpriced, count);
	ck_assert_uint_eq(sums.rows[0].cost, 0);
	ck_assert_uint_eq(sums.rows[0].usage.input, 15);
	usage_sums_done(&sums);
}
END_TEST

START_TEST(many_generations_are_summed)
{
	struct usage_query q = { NULL, NULL, NULL };
	const int count = 5000;
	struct usage_sums sums;
	char id[16];

	for (int i = 0; i < 2 * count; i++) {
		snprintf(id, sizeof id, "m%d", i % count);
		add_line("settle", 0, "ann", id, fx_now_ms, "m",
		    DONE(TOKENS, "0.5"));
	}
	ck_assert_int_eq(usage_sum(fx_sp, &q, &sums), RS_OK);
	ck_assert_uint_eq(sums.rows[0].generations, count);
	ck_assert_uint_eq(sums.rows[0].cost, 500000000000 * (uint64_t)count);
	usage_sums_done(&sums);
}
END_TEST

/* Its writer died between the settle line and the terminal frame. */
START_TEST(a_seal_does_not_settle_a_second_time)
{
	struct stream_key settled = key(0), lost = key(1);
	struct sums s;

	generation(0, SETTLED);
	generation(1, WROTE);
	for (int run = 0; run < 2; run++) {
		ck_assert_int_eq(spool_seal(fx_sp, &settled), RS_OK);
		ck_assert_int_eq(spool_seal(fx_sp, &lost), RS_OK);
		check_ended(0);
		check_ended(1);
		s = sum_up(day_path(fx_now_ms));
		ck_assert_uint_eq(s.settled[0], 1);
		ck_assert_uint_eq(s.settled[1], 1);
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("usage");
	TCase *tc = tcase_create("core");

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, fx_setup, fx_teardown);
	tcase_add_test(tc, a_generation_is_a_reserve_and_a_settle);
	tcase_add_test(tc, a_line_after_a_torn_one_begins_anew);
	tcase_add_loop_test(tc, a_full_disk_is_told_and_tears_one_line, 0,
	    100);
	tcase_add_test(tc, a_link_is_not_written_through);
	tcase_add_test(tc,
	    a_recovery_settles_every_generation_once_however_often_it_runs);
	tcase_add_test(tc, nothing_bought_is_nothing_to_recover);
	tcase_add_test(tc,
	    another_generation_of_the_same_name_is_left_alone);
	tcase_add_test(tc,
	    a_recovery_reads_back_over_days_to_the_last_recovered_line);
	tcase_add_loop_test(tc, a_clock_that_was_set_back_changes_no_recovery,
	    0, 2);
	tcase_add_test(tc, strange_lines_are_passed_over);
	tcase_add_test(tc, a_cut_usage_file_recovers);
	tcase_add_test(tc, many_generations_recover);
	tcase_add_test(tc, lines_are_read_quickly_as_they_are_read_slowly);
	tcase_add_loop_test(tc, each_generation_is_summed_once, 0,
	    sizeof sums_of / sizeof sums_of[0]);
	tcase_add_test(tc, nothing_bought_is_an_empty_sum);
	tcase_add_test(tc, strange_amounts_are_unknown);
	tcase_add_test(tc, many_generations_are_summed);
	tcase_add_test(tc, a_seal_does_not_settle_a_second_time);
	suite_add_tcase(s, tc);
	return fx_run(s);
}
