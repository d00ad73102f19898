/* check_gen.c - a generation from START to its terminal frame. */
#include <sys/resource.h>
#include <sys/stat.h>

#include <check.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "fdio.h"
#include "fold.h"
#include "gen.h"
#include "sse.h"

#define PROMPT \
	"{\"messages\":[{\"role\":\"user\",\"content\":\"hello there you\"}]}"
enum { T0 = 1000 }; /* seconds; where the frozen clock starts */

static char dir[] = "/tmp/respool-check-gen-XXXXXX";
static struct conf *conf;
static struct spool *sp;
static struct models *models;
static struct gen_env env;
static struct gen *gen;
static unsigned room_made;
static int64_t wall_ms; /* the real one: files bear it */

static bool
make_room(void *arg)
{
	struct rlimit rl;

	(void)arg;
	room_made++;
	getrlimit(RLIMIT_FSIZE, &rl);
	rl.rlim_cur = rl.rlim_max;
	setrlimit(RLIMIT_FSIZE, &rl);
	return room_made < 4; /* and then there is none left */
}

static void
at_ms(uint64_t ms)
{
	clock_freeze(T0 * NS_PER_S + ms * NS_PER_MS, wall_ms);
}

static void
write_models(const char *json)
{
	char path[128];
	struct buf why;
	FILE *f;

	snprintf(path, sizeof path, "%s/models.json", dir);
	f = fopen(path, "w");
	fputs(json, f);
	fclose(f);
	buf_init(&why, 4096);
	models_unref(models);
	models = NULL;
	ck_assert_msg(models_load(path, &models, &why) == RS_OK, "%s",
	    why.data);
	buf_done(&why);
}

static void
setup(void)
{
	char empty[128];
	struct buf why;

	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(empty, sizeof empty, "%s/respool.conf", dir);
	fclose(fopen(empty, "w"));
	setenv("RESPOOL_SPOOL_DIR", dir, 1);
	setenv("RESPOOL_MAX_STREAM_BYTES", "65536", 1);
	buf_init(&why, 4096);
	ck_assert_int_eq(conf_load(empty, &conf, &why), RS_OK);
	ck_assert_msg(spool_open(conf, &sp, &why) == RS_OK, "%s", why.data);
	buf_done(&why);
	env = (struct gen_env){
		.conf = conf, .sp = sp, .socket = "s-0123456789abcdef.sock",
		.make_room = make_room,
	};
	buf_init(&env.frames, 1 << 20);
	models = NULL;
	gen = NULL;
	room_made = 0;
	wall_ms = clock_wall_ms();
	at_ms(0);
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void
teardown(void)
{
	gen_free(gen);
	models_unref(models);
	buf_done(&env.frames);
	quota_free(env.quota);
	spool_close(sp);
	conf_free(conf);
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	clock_run();
}

static enum rs_err
start(const char *model)
{
	struct wake_start m = { .head.op = WAKE_START };
	enum errtype type;
	enum rs_err err;

	stream_key(&m.key, "alice", "a-1");
	strcpy(m.owner, "alice");
	strcpy(m.model, model);
	memset(m.request, 'a', sizeof m.request - 1);
	err = gen_start(&env, &m, PROMPT, strlen(PROMPT), models, NULL, &gen,
	    &type);
	if (err == RS_OK)
		gen_go(gen);
	return err;
}

/* The stream's file; the caller's: buf_done. */
static void
read_stream(struct buf *b)
{
	struct stream_key k;
	struct spool_reader r;
	char bytes[4096];
	uint64_t off;
	size_t n;

	buf_init(b, 1 << 20);
	stream_key(&k, "alice", "a-1");
	ck_assert_int_eq(spool_find(sp, &k, &r), RS_OK);
	off = r.head_size;
	while (fd_pread_full(r.fd, bytes, sizeof bytes, (off_t)off, &n) ==
	    RS_OK && n > 0) {
		buf_add(b, bytes, n);
		off += n;
	}
	spool_reader_done(&r);
}

static size_t
count(const char *needle)
{
	struct buf b;
	const char *p;
	size_t n = 0;

	read_stream(&b);
	for (p = b.data; p != NULL && (p = strstr(p, needle)) != NULL; p++)
		n++;
	buf_done(&b);
	return n;
}

static void
run_to_end(void)
{
	uint64_t due;

	while (!gen_ended(gen)) {
		due = gen_due_ns(gen);
		clock_freeze(due, wall_ms);
		gen_run(gen);
	}
}

START_TEST(chunks_come_one_by_one_at_the_models_pace)
{
	uint64_t n;

	write_models("{\"models\":{\"m\":{\"provider\":\"demo\","
	    "\"chunks\":10,\"interval_ms\":50,\"first_ms\":20}}}");
	ck_assert_int_eq(start("m"), RS_OK);
	gen_run(gen);
	ck_assert_uint_eq(count("event: "), 0);
	for (n = 0; n < 10; n++) {
		at_ms(20 + 50 * n - 1);
		gen_run(gen);
		ck_assert_uint_eq(count("event: message_chunk"), n);
		at_ms(20 + 50 * n);
		gen_run(gen);
		ck_assert_uint_eq(count("event: message_chunk"), n + 1);
	}
	ck_assert(gen_ended(gen));
	ck_assert_uint_eq(count("event: done\nid: 10\n"), 1);
	ck_assert_uint_eq(count("\"latency_ms\":470"), 1);
	ck_assert_uint_eq(count("\"first_token_ms\":20"), 1);
}
END_TEST

START_TEST(the_first_chunk_names_the_stream_and_no_other_does)
{
	struct buf b;

	write_models("{\"models\":{\"m\":{\"provider\":\"demo\"}}}");
	ck_assert_int_eq(start("m"), RS_OK);
	run_to_end();
	read_stream(&b);
	ck_assert_ptr_nonnull(strstr(b.data, "event: message_chunk\nid: 0\n"
	    "retry: 10000\ndata: {\"content\":\"hello \",\"tokens\":1,"
	    "\"cost_usd\":null,\"stream_id\":\"a-1\"}\n\n"
	    "event: message_chunk\nid: 1\nretry: 10000\n"
	    "data: {\"content\":\"there \",\"tokens\":1,\"cost_usd\":null}\n"));
	buf_done(&b);
}
END_TEST

START_TEST(a_silent_model_gets_heartbeats_with_ids)
{
	int i;

	write_models("{\"models\":{\"m\":{\"provider\":\"demo\","
	    "\"chunks\":5,\"hang_after\":2}}}");
	ck_assert_int_eq(start("m"), RS_OK);
	for (i = 0; i < 3; i++) {
		clock_freeze(gen_due_ns(gen), wall_ms);
		gen_run(gen);
	}
	ck_assert_uint_eq(count("event: heartbeat\nid: 2\nretry: 10000\n"
	    "data: {}\n\nevent: heartbeat\nid: 3\n"), 1);
	ck_assert_uint_eq(gen_due_ns(gen), (T0 + 45) * NS_PER_S);
}
END_TEST

START_TEST(a_stop_ends_it_with_what_there_is)
{
	write_models("{\"models\":{\"m\":{\"provider\":\"demo\","
	    "\"chunks\":5,\"hang_after\":2,\"prices\":{\"input\":1,"
	    "\"cache_read\":1,\"cache_write\":1,\"output\":600000}}}}");
	ck_assert_int_eq(start("m"), RS_OK);
	gen_run(gen);
	gen_stop(gen);
	gen_stop(gen);
	gen_fail(gen, ERRTYPE_internal);
	gen_run(gen);
	ck_assert_uint_eq(count("event: done"), 1);
	ck_assert_uint_eq(count("event: error"), 0);
	ck_assert_uint_eq(count("\"finish_reason\":\"stopped\""), 1);
	ck_assert_uint_eq(count("\"estimated\":true"), 1);
}
END_TEST

START_TEST(a_fault_of_the_model_ends_it_with_its_type)
{
	write_models("{\"models\":{\"m\":{\"provider\":\"demo\","
	    "\"chunks\":5,\"fail_after\":2,\"error_type\":\"overloaded\"}}}");
	ck_assert_int_eq(start("m"), RS_OK);
	run_to_end();
	ck_assert_uint_eq(count("event: message_chunk"), 2);
	ck_assert_uint_eq(count("event: error\nid: 2\n"), 1);
	ck_assert_uint_eq(count("\"error_type\":\"overloaded\""), 1);
}
END_TEST

START_TEST(a_word_longer_than_a_frame_is_cut_between_characters)
{
	enum { CHARS = 4000 };
	static char json[64 + 3 * CHARS];
	char *p = json;
	struct fold *fold;
	struct spool_reader r;
	struct stream_tail tail;
	struct stream_key k;
	struct buf snapshot;
	int i;

	p += sprintf(p, "{\"models\":{\"m\":{\"provider\":\"demo\","
	    "\"text\":\"");
	for (i = 0; i < CHARS; i++)
		p += sprintf(p, "\xe2\x82\xac");
	sprintf(p, "\"}}}");
	write_models(json);
	ck_assert_int_eq(start("m"), RS_OK);
	run_to_end();
	stream_key(&k, "alice", "a-1");
	ck_assert_int_eq(spool_find(sp, &k, &r), RS_OK);
	ck_assert_int_eq(fold_new(1 << 20, &fold), RS_OK);
	ck_assert_int_eq(spool_scan(&r, fold, &tail), RS_OK);
	ck_assert(tail.ended && !tail.torn);
	buf_init(&snapshot, 1 << 20);
	fold_put(fold, "a-1", "m", &snapshot);
	p = strchr(strstr(json, "\"text\"") + 6, '"');
	*strchr(p + 1, '"') = '\0';
	ck_assert_ptr_nonnull(strstr(snapshot.data, p));
	ck_assert_ptr_null(strstr(snapshot.data, "\xef\xbf\xbd"));
	buf_done(&snapshot);
	fold_free(fold);
	spool_reader_done(&r);
}
END_TEST

START_TEST(an_answer_over_the_largest_size_ends_with_too_long)
{
	struct buf b;

	write_models("{\"models\":{\"m\":{\"provider\":\"demo\","
	    "\"chunks\":100000}}}");
	ck_assert_int_eq(start("m"), RS_OK);
	run_to_end();
	ck_assert_uint_eq(count("\"error_type\":\"too_long\""), 1);
	read_stream(&b);
	ck_assert_uint_le(gen_end(gen), conf->max_stream_bytes);
	ck_assert_uint_gt(gen_end(gen), conf->max_stream_bytes - 5120);
	buf_done(&b);
}
END_TEST

START_TEST(heartbeats_alone_do_not_make_a_file_too_large)
{
	write_models("{\"models\":{\"m\":{\"provider\":\"demo\","
	    "\"chunks\":10,\"hang_after\":5}}}");
	ck_assert_int_eq(start("m"), RS_OK);
	run_to_end();
	ck_assert_uint_eq(count("\"error_type\":\"too_long\""), 1);
	ck_assert_uint_le(gen_end(gen), conf->max_stream_bytes);
	ck_assert_uint_gt(gen_end(gen), conf->max_stream_bytes - 5120);
}
END_TEST

/* The file may grow to _i bytes: a disk that fills up anywhere. */
START_TEST(a_full_disk_ends_it_with_what_it_had)
{
	struct rlimit rl;
	struct fold *fold;
	struct spool_reader r;
	struct stream_tail tail;
	struct stream_key k;

	write_models("{\"models\":{\"m\":{\"provider\":\"demo\","
	    "\"chunks\":20,\"interval_ms\":10}}}");
	ck_assert_int_eq(start("m"), RS_OK);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &rl);
	rl.rlim_cur = (rlim_t)gen_end(gen) + (rlim_t)_i * 37;
	setrlimit(RLIMIT_FSIZE, &rl);
	run_to_end();
	make_room(NULL);
	ck_assert(!gen_lost(gen));
	stream_key(&k, "alice", "a-1");
	ck_assert_int_eq(spool_find(sp, &k, &r), RS_OK);
	ck_assert_int_eq(fold_new(1 << 20, &fold), RS_OK);
	ck_assert_int_eq(spool_scan(&r, fold, &tail), RS_OK);
	ck_assert(tail.ended);
	ck_assert(!tail.torn);
	if (room_made > 1)
		ck_assert_int_eq(fold_state(fold), FOLD_FAILED);
	fold_free(fold);
	spool_reader_done(&r);
}
END_TEST

/* Puts what cannot be written to in place of the stream's file. */
static void
spoil_stream(void)
{
	struct stream_key k;
	struct spool_reader r;
	struct stat want, st;
	int fd, null = open("/dev/null", O_RDONLY);

	stream_key(&k, "alice", "a-1");
	ck_assert_int_eq(spool_find(sp, &k, &r), RS_OK);
	ck_assert_int_eq(fstat(r.fd, &want), 0);
	spool_reader_done(&r);
	for (fd = 3; fd < 64; fd++)
		if (fstat(fd, &st) == 0 && st.st_ino == want.st_ino &&
		    st.st_dev == want.st_dev)
			dup2(null, fd);
	close(null);
}

START_TEST(the_ballast_is_for_full_disks_only)
{
	write_models("{\"models\":{\"m\":{\"provider\":\"demo\"}}}");
	ck_assert_int_eq(start("m"), RS_OK);
	spoil_stream();
	gen_stop(gen);
	ck_assert(gen_lost(gen));
	ck_assert_uint_eq(room_made, 0);
}
END_TEST

START_TEST(usage_is_reserved_first_and_settled_once)
{
	char path[128], day[CLOCK_ISO_SIZE];
	struct buf b;
	const char *p;
	int reserves = 0, settles = 0;

	write_models("{\"models\":{\"m\":{\"provider\":\"demo\"}}}");
	ck_assert_int_eq(start("m"), RS_OK);
	run_to_end();
	clock_iso(wall_ms, day);
	snprintf(path, sizeof path, "%s/usage/%.10s.jsonl", dir, day);
	buf_init(&b, 1 << 20);
	ck_assert_int_eq(fd_read_file(AT_FDCWD, path, &b), RS_OK);
	for (p = b.data; (p = strstr(p, "\"type\":\"")) != NULL; p++) {
		reserves += strncmp(p + 8, "reserve", 7) == 0;
		if (strncmp(p + 8, "settle", 6) == 0) {
			settles++;
			ck_assert_int_eq(reserves, 1);
		}
	}
	ck_assert_int_eq(reserves, 1);
	ck_assert_int_eq(settles, 1);
	buf_done(&b);
}
END_TEST

/* The same with an id. */
static enum rs_err
start_another(const char *id, enum errtype *ret_type)
{
	struct wake_start m = { .head.op = WAKE_START };

	gen_free(gen);
	gen = NULL;
	stream_key(&m.key, "alice", id);
	strcpy(m.owner, "alice");
	strcpy(m.model, "m");
	memset(m.request, 'a', sizeof m.request - 1);
	return gen_start(&env, &m, PROMPT, strlen(PROMPT), models, NULL, &gen,
	    ret_type);
}

START_TEST(a_reserve_that_cannot_be_written_reserves_nothing)
{
	char path[128], day[CLOCK_ISO_SIZE];
	struct rlimit rl;
	enum errtype type;
	FILE *f;

	signal(SIGXFSZ, SIG_IGN);
	write_models("{\"models\":{\"m\":{\"provider\":\"demo\","
	    "\"chunks\":9,\"interval_ms\":50}}}");
	conf->owner_max_streams = 2;
	ck_assert_int_eq(quota_new(conf, sp, &env.quota), RS_OK);
	ck_assert_int_eq(quota_recovered(env.quota, NULL), RS_OK);
	ck_assert_int_eq(start_another("first", &type), RS_OK);
	gen_stop(gen);
	clock_iso(wall_ms, day);
	snprintf(path, sizeof path, "%s/usage/%.10s.jsonl", dir, day);
	/* Longer than any stream here, so that it alone gets too long. */
	f = fopen(path, "a");
	fprintf(f, "%65536d\n", 0);
	rl.rlim_cur = (rlim_t)(ftell(f) + 16 * _i);
	fclose(f);
	rl.rlim_max = RLIM_INFINITY;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &rl), 0);
	ck_assert_int_eq(start_another("a", &type), RS_OK);
	ck_assert(gen_ended(gen) && !gen_lost(gen));
	ck_assert_uint_gt(room_made, 0);
	ck_assert_int_eq(start_another("b", &type), RS_OK);
	ck_assert(!gen_ended(gen));
	/* Left as it is, as a kill leaves it. */
	ck_assert_int_eq(start_another("c", &type), RS_OK);
	ck_assert_int_eq(start_another("d", &type), RS_EBUSY);
	ck_assert_int_eq(type, ERRTYPE_rate_limited);
	ck_assert_str_eq(env.refusal.limit, "owner_max_streams");
	ck_assert_int_eq(start_another("c", &type), RS_EEXIST);
}
END_TEST

START_TEST(a_start_that_cannot_be_leaves_nothing)
{
	struct stream_key k;
	struct spool_reader r;

	write_models("{\"models\":{\"m\":{\"provider\":\"demo\"}}}");
	ck_assert_int_eq(start("other"), RS_ENOENT);
	stream_key(&k, "alice", "a-1");
	ck_assert_int_eq(spool_find(sp, &k, &r), RS_ENOENT);
	ck_assert_int_eq(start("m"), RS_OK);
	gen_free(gen);
	gen = NULL;
	ck_assert_int_eq(start("m"), RS_EEXIST);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("gen");
	TCase *tc = tcase_create("gen");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, chunks_come_one_by_one_at_the_models_pace);
	tcase_add_test(tc, the_first_chunk_names_the_stream_and_no_other_does);
	tcase_add_test(tc, a_silent_model_gets_heartbeats_with_ids);
	tcase_add_test(tc, a_stop_ends_it_with_what_there_is);
	tcase_add_test(tc, a_fault_of_the_model_ends_it_with_its_type);
	tcase_add_test(tc,
	    a_word_longer_than_a_frame_is_cut_between_characters);
	tcase_add_test(tc, an_answer_over_the_largest_size_ends_with_too_long);
	tcase_add_test(tc, heartbeats_alone_do_not_make_a_file_too_large);
	tcase_add_loop_test(tc, a_full_disk_ends_it_with_what_it_had, 0, 70);
	tcase_add_test(tc, the_ballast_is_for_full_disks_only);
	tcase_add_test(tc, usage_is_reserved_first_and_settled_once);
	tcase_add_loop_test(tc,
	    a_reserve_that_cannot_be_written_reserves_nothing, 0, 9);
	tcase_add_test(tc, a_start_that_cannot_be_leaves_nothing);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
