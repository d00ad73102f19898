/* check_conv.c - conversations: lines in a file, turns in memory. */
#include <sys/resource.h>

#include <json-c/json.h>

#include "conv.h"
#include "jx.h"
#include "spool_fixture.h"

#define ROWS(a) (int)(sizeof(a) / sizeof((a)[0]))

static struct stream_key session;

static void
setup(void)
{
	fx_setup();
	stream_key(&session, "alice", "talk");
}

static const char *
path_of(const struct stream_key *k)
{
	static char path[sizeof fx_dir + 160];
	char name[128], hex[SHA256_HEX_SIZE];

	snprintf(name, sizeof name, "%s-%s.jsonl", k->owner_hash, k->id);
	sha256_hex(name, strlen(name), hex);
	snprintf(path, sizeof path, "%s/conversations/%.2s/%s", fx_dir, hex,
	    name);
	return path;
}

static uint64_t
ask(const char *stream_id, const char *message)
{
	uint64_t number = 0;

	ck_assert_int_eq(conv_ask(fx_sp, &session, stream_id, "lion_001",
	    message, strlen(message), &number), RS_OK);
	return number;
}

static struct stream_head
head_of(uint64_t number)
{
	struct stream_head h = fx_head();

	h.dialect = DIALECT_CONVERSATION;
	h.turn = (struct turn){ .session = "talk", .animal = "lion_001",
		.name = "Leo", .number = number };
	return h;
}

static const struct usage three = { .input = 1, .output = 2,
	.reasoning = TOKENS_UNKNOWN };

static enum rs_err
answer_with(const char *stream_id, uint64_t number, const char *text,
    const struct ending *e, bool missing)
{
	struct stream_head h = head_of(number);
	struct stream_key k;

	stream_key(&k, "alice", stream_id);
	return conv_answer(fx_sp, &k, &h, text, strlen(text), e, missing);
}

static void
answer(const char *stream_id, uint64_t number, const char *text)
{
	const struct ending e = { .finish = FINISH_STOP, .model = "m",
		.usage = three, .cost = 600000, .latency_ms = 7 };

	ck_assert_int_eq(answer_with(stream_id, number, text, &e, false),
	    RS_OK);
}

static struct conv *
load(void)
{
	struct conv *c = NULL;

	ck_assert_int_eq(conv_load(fx_sp, &session, &c), RS_OK);
	return c;
}

static const char *
text_of(struct json_object *line, const char *name)
{
	const char *s = "";
	size_t len;

	jx_get_str(line, name, &s, &len);
	return s;
}

/* Bytes of the session's file. */
static size_t
file_size(void)
{
	struct stat st;

	return stat(path_of(&session), &st) < 0 ? 0 : (size_t)st.st_size;
}

static void
file_append(const char *text)
{
	FILE *f = fopen(path_of(&session), "a");

	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
}

START_TEST(a_turn_is_what_was_asked_and_what_was_answered)
{
	struct conv *c;

	ck_assert_uint_eq(ask("a", "Hello \"you\"\n"), 1);
	answer("a", 1, "Roar");
	c = load();
	ck_assert_uint_eq(c->count, 1);
	ck_assert_uint_eq(c->turns[0].number, 1);
	ck_assert_str_eq(c->turns[0].stream_id, "a");
	ck_assert_str_eq(text_of(c->turns[0].user, "content"),
	    "Hello \"you\"\n");
	ck_assert_str_eq(text_of(c->turns[0].user, "animal"), "lion_001");
	ck_assert_str_eq(text_of(c->turns[0].assistant, "content"), "Roar");
	ck_assert_str_eq(text_of(c->turns[0].assistant, "model"), "m");
	ck_assert_str_eq(text_of(c->turns[0].assistant, "finish_reason"),
	    "stop");
	ck_assert_ptr_eq(conv_find(c, "a"), &c->turns[0]);
	ck_assert_ptr_null(conv_find(c, "b"));
	conv_free(c);
}
END_TEST

START_TEST(turns_are_counted_and_known_by_their_streams)
{
	struct conv *c;
	size_t size;

	ck_assert_uint_eq(ask("a", "one"), 1);
	ck_assert_uint_eq(ask("b", "two"), 2);
	size = file_size();
	ck_assert_uint_eq(ask("a", "one, asked again"), 1);
	ck_assert_uint_eq(ask("b", "two, asked again"), 2);
	ck_assert_uint_eq(file_size(), size);
	ck_assert_uint_eq(ask("c", "three"), 3);
	c = load();
	ck_assert_uint_eq(c->count, 3);
	ck_assert_str_eq(text_of(c->turns[0].user, "content"), "one");
	conv_free(c);
}
END_TEST

START_TEST(the_first_answer_of_a_turn_counts)
{
	struct conv *c;

	ask("a", "one");
	answer("a", 1, "first");
	answer("a", 1, "second");
	c = load();
	ck_assert_str_eq(text_of(c->turns[0].assistant, "content"), "first");
	conv_free(c);
}
END_TEST

START_TEST(an_answer_that_is_there_is_not_missing)
{
	const struct ending e = { .error = ERRTYPE_generation_lost };
	size_t size;

	ask("a", "one");
	ck_assert_int_eq(answer_with("a", 1, "part", &e, true), RS_OK);
	size = file_size();
	ck_assert_int_eq(answer_with("a", 1, "part", &e, true), RS_OK);
	ck_assert_uint_eq(file_size(), size);
	ck_assert_int_eq(conv_delete(fx_sp, &session), RS_OK);
	ck_assert_int_eq(answer_with("a", 1, "part", &e, true), RS_ENOENT);
	ck_assert_uint_eq(file_size(), 0);
}
END_TEST

/* The file is cut behind each of its bytes. */
START_TEST(a_torn_line_is_passed_over_and_the_next_one_stands_alone)
{
	size_t ends[4], i, whole = 0;
	struct conv *c = NULL;
	enum rs_err err;

	ask("a", "one");
	ends[0] = file_size();
	answer("a", 1, "first");
	ends[1] = file_size();
	ask("b", "two");
	ends[2] = file_size();
	answer("b", 2, "second");
	ends[3] = file_size();
	if ((size_t)_i > ends[3])
		return;
	ck_assert_int_eq(truncate(path_of(&session), _i), 0);
	err = conv_load(fx_sp, &session, &c);
	ck_assert_int_eq(err, RS_OK);
	for (i = 0; i < 4; i++)
		whole += ends[i] <= (size_t)_i + 1; /* all but its end */
	ck_assert_uint_eq(c->count, (whole + 1) / 2);
	if (whole > 0)
		ck_assert_int_eq(c->turns[c->count - 1].assistant != NULL,
		    whole % 2 == 0);
	conv_free(c);
	ask("z", "after");
	answer("z", 9, "crash");
	c = load();
	ck_assert_uint_eq(c->count, (whole + 1) / 2 + 1);
	ck_assert_str_eq(text_of(c->turns[c->count - 1].assistant,
	    "content"), "crash");
	conv_free(c);
}
END_TEST

static const char *const strange[] = {
	"", "\n", "null\n", "[]\n", "{}\n", "{\"turn\":7}\n", "garbage\n",
	"{\"turn\":7,\"role\":\"user\",\"content\":\"x\"}\n",
	"{\"turn\":-1,\"role\":\"user\",\"content\":\"x\","
	    "\"stream_id\":\"q\"}\n",
	"{\"turn\":\"7\",\"role\":\"user\",\"content\":\"x\","
	    "\"stream_id\":\"q\"}\n",
	"{\"turn\":7,\"role\":\"user\",\"content\":7,\"stream_id\":\"q\"}\n",
	"{\"turn\":7,\"role\":\"user\",\"content\":\"x\","
	    "\"stream_id\":\"../q\"}\n",
	"{\"turn\":7,\"role\":\"king\",\"content\":\"x\","
	    "\"stream_id\":\"q\"}\n",
	"{\"turn\":7,\"role\":\"assistant\",\"content\":\"x\","
	    "\"stream_id\":\"q\"}\n",
	"{\"turn\":1,\"role\":\"user\",\"content\":\"an old number\","
	    "\"stream_id\":\"q\"}\n",
	"{\"turn\":7,\"role\":\"user\",\"content\":\"\xff\","
	    "\"stream_id\":\"q\"}\n",
};

START_TEST(a_line_that_is_none_of_ours_is_passed_over)
{
	struct conv *c;

	ask("a", "one");
	file_append(strange[_i]);
	answer("a", 1, "first");
	ck_assert_uint_eq(ask("b", "two"), 2);
	c = load();
	ck_assert_uint_eq(c->count, 2);
	ck_assert_ptr_nonnull(c->turns[0].assistant);
	ck_assert_str_eq(text_of(c->turns[1].user, "content"), "two");
	conv_free(c);
}
END_TEST

START_TEST(a_session_belongs_to_its_owner)
{
	struct stream_key other;
	struct conv *c = NULL;

	ask("a", "one");
	stream_key(&other, "bob", "talk");
	ck_assert_int_eq(conv_load(fx_sp, &other, &c), RS_ENOENT);
	ck_assert_int_eq(conv_delete(fx_sp, &other), RS_OK);
	ck_assert_uint_gt(file_size(), 0);
	stream_key(&other, "alice", "walk");
	ck_assert_int_eq(conv_load(fx_sp, &other, &c), RS_ENOENT);
}
END_TEST

START_TEST(a_link_is_not_followed)
{
	char elsewhere[sizeof fx_dir + 16];
	struct stat st;
	struct conv *c = NULL;
	uint64_t number;

	ask("a", "one");
	snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", fx_dir);
	ck_assert_int_eq(rename(path_of(&session), elsewhere), 0);
	ck_assert_int_eq(symlink(elsewhere, path_of(&session)), 0);
	ck_assert_int_eq(stat(elsewhere, &st), 0);
	ck_assert_int_eq(conv_load(fx_sp, &session, &c), RS_ECORRUPT);
	ck_assert_int_eq(conv_ask(fx_sp, &session, "b", "lion_001", "x", 1,
	    &number), RS_ECORRUPT);
	ck_assert_uint_eq(file_size(), (size_t)st.st_size);
}
END_TEST

START_TEST(no_turn_begins_in_a_full_session)
{
	uint64_t number;

	ask("a", "one");
	ck_assert_int_eq(truncate(path_of(&session), CONV_FILE_MAX), 0);
	answer("a", 1, "an answer is written all the same");
	ck_assert_int_eq(conv_ask(fx_sp, &session, "b", "lion_001", "x", 1,
	    &number), RS_ETOOBIG);
	ck_assert_uint_eq(ask("a", "the same again"), 1);
}
END_TEST

/* The window has _i * 50 bytes. */
START_TEST(the_newest_turns_are_found_from_the_end)
{
	static const char *const ids[] = { "a", "b", "c", "d" };
	struct conv *all, *tail = NULL;
	char text[2000];
	size_t i, skipped;

	memset(text, 'x', sizeof text);
	for (i = 0; i < 4; i++) {
		text[i == 2 ? sizeof text - 1 : 10] = '\0';
		ask(ids[i], text);
		if (i != 1)
			answer(ids[i], i + 1, text);
		text[10] = 'x';
	}
	all = load();
	ck_assert_int_eq(conv_load_tail(fx_sp, &session, 50 * (size_t)_i + 1,
	    &tail), RS_OK);
	ck_assert_uint_ge(tail->count, 1);
	skipped = all->count - tail->count;
	for (i = 0; i < tail->count; i++) {
		ck_assert_uint_eq(tail->turns[i].number,
		    all->turns[i + skipped].number);
		ck_assert(json_object_equal(tail->turns[i].user,
		    all->turns[i + skipped].user));
		ck_assert(json_object_equal(tail->turns[i].assistant,
		    all->turns[i + skipped].assistant));
	}
	if (50 * (size_t)_i >= file_size())
		ck_assert_uint_eq(tail->count, 4);
	conv_free(tail);
	conv_free(all);
}
END_TEST

START_TEST(a_long_session_goes_on_counting)
{
	const size_t size = 3 * CONV_LAST;
	char *text = malloc(size + 1);

	memset(text, 'x', size);
	text[size] = '\0';
	ask("a", "one");
	ck_assert_uint_eq(ask("b", text), 2);
	answer("b", 2, text);
	ck_assert_uint_eq(ask("c", "three"), 3);
	answer("c", 3, text);
	ck_assert_uint_eq(ask("c", "again"), 3);
	ck_assert_uint_eq(ask("d", "four"), 4);
	free(text);
}
END_TEST

/* ---- the history that a model is told ---- */

static const char *
history(uint64_t before, uint64_t budget)
{
	static char text[512];
	struct json_object *all = json_object_new_array(), *m;
	struct conv *c = load();
	size_t i;

	ck_assert_int_eq(conv_history(c, before, budget, all), RS_OK);
	conv_free(c);
	text[0] = '\0';
	for (i = 0; i < json_object_array_length(all); i++) {
		m = json_object_array_get_idx(all, i);
		ck_assert_int_eq(json_object_object_length(m), 2);
		ck_assert_str_eq(text_of(m, "role"),
		    i % 2 == 0 ? "user" : "assistant");
		snprintf(text + strlen(text), sizeof text - strlen(text),
		    "%s%s", i > 0 ? " " : "", text_of(m, "content"));
	}
	json_object_put(all);
	return text;
}

/* Turns of 16 bytes, 4 tokens, each. */
static const struct {
	uint64_t before, budget;
	const char *want;
} budgets[] = {
	{ 4, 100, "questions answer1 questions answer2 questions answer3" },
	{ 4, 12, "questions answer1 questions answer2 questions answer3" },
	{ 4, 11, "questions answer2 questions answer3" },
	{ 4, 8, "questions answer2 questions answer3" },
	{ 4, 7, "questions answer3" },
	{ 4, 4, "questions answer3" },
	{ 4, 3, "" },
	{ 4, 0, "" },
	{ 3, 4, "questions answer2" },
	{ 1, 100, "" },
};

START_TEST(the_model_is_told_the_newest_whole_turns_that_fit)
{
	static const char *const ids[] = { "a", "b", "c", "d" };
	char text[16];
	int i;

	for (i = 0; i < 3; i++) {
		ask(ids[i], "questions");
		snprintf(text, sizeof text, "answer%d", i + 1);
		answer(ids[i], (uint64_t)i + 1, text);
	}
	ask("d", "the one that is asked now");
	ck_assert_str_eq(history(budgets[_i].before, budgets[_i].budget),
	    budgets[_i].want);
}
END_TEST

START_TEST(a_turn_without_an_answer_is_left_out_and_a_part_is_not)
{
	const struct ending lost = { .error = ERRTYPE_generation_lost };
	const struct ending stopped = { .finish = FINISH_STOPPED };
	struct conv *c;
	bool partial = false;

	ask("a", "q1");
	ck_assert_int_eq(answer_with("a", 1, "", &lost, false), RS_OK);
	ask("b", "q2");
	ck_assert_int_eq(answer_with("b", 2, "part", &lost, false), RS_OK);
	ask("c", "q3");
	ask("d", "q4");
	ck_assert_int_eq(answer_with("d", 4, "stop", &stopped, false), RS_OK);
	ask("e", "q5");
	ck_assert_str_eq(history(5, 1000), "q2 part q4 stop");
	c = load();
	ck_assert_str_eq(text_of(c->turns[1].assistant, "error_type"),
	    "generation_lost");
	ck_assert_int_eq(jx_get_bool(c->turns[3].assistant, "partial",
	    &partial), RS_OK);
	ck_assert(partial);
	conv_free(c);
}
END_TEST

/* ---- what crashes and full disks leave ---- */

/* A stream of the turn with that many frames, the third one a message, the
 * fourth the ending's first, whose writer has died. */
static struct stream_key
orphan_with(const char *id, uint64_t number, int frames)
{
	struct stream_head h = head_of(number);
	struct streamer s = { .dialect = DIALECT_CONVERSATION,
		.stream_id = id, .turn = &h.turn };
	const struct delta d = { .kind = DELTA_CONTENT, .text = "half",
		.len = 4, .tokens = 1 };
	const struct ending e = { .finish = FINISH_STOP };
	struct spool_writer *w;
	struct stream_key k;
	const char *p;
	struct buf b;

	stream_key(&k, "alice", id);
	ck_assert_int_eq(spool_create(fx_sp, &k, &h, &w), RS_OK);
	buf_init(&b, 1 << 16);
	dialect_begin(&b, &s, h.model);
	dialect_chunk(&b, &s, &d, 0);
	dialect_end(&b, &s, &e);
	for (p = b.data; frames > 0; frames--)
		p = strstr(p, "\n\n") + 2;
	if (p > b.data)
		ck_assert_int_eq(spool_append(w, b.data, (size_t)(p - b.data)),
		    RS_OK);
	buf_done(&b);
	spool_writer_free(w);
	return k;
}

static struct stream_key
orphan(const char *id, uint64_t number)
{
	return orphan_with(id, number, 3);
}

/* It has _i frames. */
START_TEST(typing_begins_and_ends_wherever_a_turn_was_lost)
{
	struct stream_key k = orphan_with("a", ask("a", "one"), _i);
	const char *p, *start, *stop;
	struct buf b;

	ck_assert_int_eq(spool_seal(fx_sp, &k), RS_OK);
	ck_assert_uint_eq(fx_tail(&k).count, _i < 3 ? 4 : 5);
	fx_read(&k, &b);
	p = strstr(b.data, "event: metadata\nid: 0\n");
	start = strstr(b.data, "event: typing\nid: 1\n");
	stop = strstr(b.data, "{\"status\":\"stop\"");
	ck_assert(p != NULL && start > p && stop > start);
	start = strstr(b.data, "{\"status\":\"start\"");
	ck_assert_ptr_null(strstr(start + 1, "{\"status\":\"start\""));
	ck_assert_ptr_null(strstr(stop + 1, "{\"status\":\"stop\""));
	buf_done(&b);
}
END_TEST

START_TEST(who_seals_a_lost_turn_writes_what_was_said)
{
	struct stream_key k;
	struct conv *c;
	int i;

	k = orphan("a", ask("a", "one"));
	for (i = 0; i < 2; i++)
		ck_assert_int_eq(spool_seal(fx_sp, &k), RS_OK);
	c = load();
	ck_assert_str_eq(text_of(c->turns[0].assistant, "content"), "half");
	ck_assert_str_eq(text_of(c->turns[0].assistant, "error_type"),
	    "generation_lost");
	conv_free(c);
	ck_assert(fx_tail(&k).ended);
}
END_TEST

/* Its writer died between the line and the terminal frame. */
START_TEST(a_lost_turn_keeps_the_answer_that_it_has)
{
	struct stream_key k = orphan("a", ask("a", "one"));
	struct conv *c;

	answer("a", 1, "half");
	ck_assert_int_eq(spool_seal(fx_sp, &k), RS_OK);
	c = load();
	ck_assert_str_eq(text_of(c->turns[0].assistant, "finish_reason"),
	    "stop");
	conv_free(c);
}
END_TEST

/* 0: it was deleted; 1: a link is in its place. */
START_TEST(a_stream_ends_also_when_its_session_cannot_be_written)
{
	struct stream_key k = orphan("a", ask("a", "one"));

	ck_assert_int_eq(conv_delete(fx_sp, &session), RS_OK);
	if (_i == 1)
		ck_assert_int_eq(symlink("/dev/null", path_of(&session)), 0);
	ck_assert_int_eq(spool_seal(fx_sp, &k), RS_OK);
	ck_assert(fx_tail(&k).ended);
}
END_TEST

static void
limit(rlim_t size)
{
	struct rlimit lim;

	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &lim);
	lim.rlim_cur = size == RLIM_INFINITY ? lim.rlim_max : size;
	setrlimit(RLIMIT_FSIZE, &lim);
}

START_TEST(on_a_full_disk_a_line_is_written_whole_or_not_at_all)
{
	const struct ending e = { .error = ERRTYPE_not_resumable };
	const struct ending good = { .finish = FINISH_STOP };
	const rlim_t room = 11 * (rlim_t)_i;
	char text[8001];
	struct conv *c;
	uint64_t number;
	enum rs_err whole, err, again;
	size_t size, after;

	ask("a", "one");
	size = file_size();
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	limit(size + room);
	whole = answer_with("a", 1, text, &good, false);
	err = answer_with("a", 1, text, &e, false);
	after = file_size();
	again = conv_ask(fx_sp, &session, "b", "lion_001", text, 4000,
	    &number);
	limit(RLIM_INFINITY);
	ck_assert_int_eq(whole, RS_ENOSPC); /* never cut in silence */
	if (err != RS_OK) {
		ck_assert_int_eq(err, RS_ENOSPC);
		ck_assert_uint_eq(after, size);
		ck_assert_uint_lt(room, 2000);
		ck_assert_int_eq(again, RS_ENOSPC);
		ck_assert_uint_eq(file_size(), size);
	}
	c = load();
	ck_assert_int_eq(c->turns[0].assistant != NULL, err == RS_OK);
	/* Shortened where there is no space for all of it. */
	if (err == RS_OK)
		ck_assert_uint_eq(strlen(text_of(c->turns[0].assistant,
		    "content")), 1024);
	conv_free(c);
}
END_TEST

/* ---- sweeping ---- */

static const struct {
	int64_t age;
	bool answered, stream, stays;
} old[] = {
	{ 0, true, true, true },
	{ 99, true, true, true },
	{ 101, true, true, false },
	{ 101, false, true, true },	/* it is being answered */
	{ 101, false, false, false },	/* its stream was never made */
};

START_TEST(a_session_goes_its_ttl_after_its_last_turn)
{
	struct sweep s = { .shard = 0 };
	uint64_t bytes = 0;
	unsigned i = 0;
	bool done;

	ask("a", "one");
	if (old[_i].stream)
		orphan("a", 1);
	if (old[_i].answered)
		answer("a", 1, "first");
	fx_age(path_of(&session), old[_i].age);
	/* Without any time, one file a call. */
	while (i < SPOOL_SHARDS) {
		ck_assert_int_eq(conv_sweep(fx_sp, &s, fx_now_ms, 100000, 0,
		    &done), RS_OK);
		i += done;
		bytes += done ? s.bytes : 0;
	}
	ck_assert_int_eq(file_size() > 0, old[_i].stays);
	ck_assert_uint_eq(bytes, file_size());
	ck_assert_uint_eq(s.removed, !old[_i].stays);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("conv");
	TCase *tc = tcase_create("conv");

	tcase_add_checked_fixture(tc, setup, fx_teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_turn_is_what_was_asked_and_what_was_answered);
	tcase_add_test(tc, turns_are_counted_and_known_by_their_streams);
	tcase_add_test(tc, the_first_answer_of_a_turn_counts);
	tcase_add_test(tc, an_answer_that_is_there_is_not_missing);
	tcase_add_loop_test(tc,
	    a_torn_line_is_passed_over_and_the_next_one_stands_alone, 0, 800);
	tcase_add_loop_test(tc, a_line_that_is_none_of_ours_is_passed_over, 0,
	    ROWS(strange));
	tcase_add_test(tc, a_session_belongs_to_its_owner);
	tcase_add_test(tc, a_link_is_not_followed);
	tcase_add_test(tc, no_turn_begins_in_a_full_session);
	tcase_add_loop_test(tc, the_newest_turns_are_found_from_the_end, 0,
	    120);
	tcase_add_test(tc, a_long_session_goes_on_counting);
	tcase_add_loop_test(tc,
	    the_model_is_told_the_newest_whole_turns_that_fit, 0,
	    ROWS(budgets));
	tcase_add_test(tc,
	    a_turn_without_an_answer_is_left_out_and_a_part_is_not);
	tcase_add_loop_test(tc,
	    typing_begins_and_ends_wherever_a_turn_was_lost, 0, 5);
	tcase_add_test(tc, who_seals_a_lost_turn_writes_what_was_said);
	tcase_add_test(tc, a_lost_turn_keeps_the_answer_that_it_has);
	tcase_add_loop_test(tc,
	    a_stream_ends_also_when_its_session_cannot_be_written, 0, 2);
	tcase_add_loop_test(tc,
	    on_a_full_disk_a_line_is_written_whole_or_not_at_all, 0, 200);
	tcase_add_loop_test(tc, a_session_goes_its_ttl_after_its_last_turn, 0,
	    ROWS(old));
	suite_add_tcase(s, tc);
	return fx_run(s);
}
