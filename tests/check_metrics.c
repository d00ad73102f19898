/* check_metrics.c - counters that many processes share. */
#include <sys/mman.h>
#include <sys/resource.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "metrics.h"
#include "money.h"
#include "spool_fixture.h"

enum {
	COUNT = METRIC_resumes_total, OTHER_COUNT = METRIC_joins_total,
	GAUGE = METRIC_open_streams, HISTOGRAM = METRIC_resume_seconds,
	HEAD = 32,	/* bytes of the file's head */
	THREADS = 4, ADDS = 20000,
	CHILDREN = 100,
	RACERS = 2,
	SLOTS = 319,	/* that processes can have */
};

static struct metrics_sums sums;
static char path[sizeof fx_dir + 16];

static void
setup(void)
{
	fx_setup();
	snprintf(path, sizeof path, "%s/" METRICS_FILE, fx_dir);
}

static void
teardown(void)
{
	metrics_close();
	fx_teardown();
}

static uint64_t
sum(unsigned cell)
{
	metrics_sum(&sums);
	return sums.cells[cell];
}

static void
begin(void)
{
	ck_assert_int_eq(metrics_open(fx_sp, false), RS_OK);
}

/* As another process than before. */
static void
begin_again(bool mutator, enum rs_err want)
{
	metrics_close();
	ck_assert_int_eq(metrics_open(fx_sp, mutator), want);
}

/* A process that counts n and then a gauge of 1. */
static pid_t
child_begin(uint64_t n, int *ret_ready, int *ret_go)
{
	int ready[2], go[2];
	pid_t pid;
	char c;

	ck_assert_int_eq(pipe(ready) | pipe(go), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		metrics_close();
		if (metrics_open(fx_sp, false) != RS_OK)
			_exit(1);
		metrics_add(COUNT, n);
		metrics_gauge(GAUGE, 1);
		close(go[1]);
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		(void)!read(go[0], &c, 1);
		_exit(0);
	}
	close(ready[1]);
	close(go[0]);
	*ret_ready = ready[0];
	*ret_go = go[1];
	return pid;
}

static void
child_wait(int ready)
{
	char c;

	ck_assert_int_eq(read(ready, &c, 1), 1);
	close(ready);
}

static void
child_end(pid_t pid, int go, int signal_number)
{
	int status;

	if (signal_number != 0)
		kill(pid, signal_number);
	close(go);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(signal_number != 0 || status == 0);
}

/* ---- counting ---- */

START_TEST(what_was_counted_before_the_file_was_there_is_in_it)
{
	const struct usage u = { 1, 2, 3, 4, TOKENS_UNKNOWN };

	metrics_add(COUNT, 3);
	metrics_gauge(GAUGE, 2);
	metrics_model("m", &u, 7);
	ck_assert_uint_eq(sum(COUNT), 3);
	ck_assert_uint_eq(sum(GAUGE), 2);
	ck_assert(!sums.shared);
	begin();
	metrics_add(COUNT, 1);
	ck_assert_uint_eq(sum(COUNT), 4);
	ck_assert_uint_eq(sum(GAUGE), 2);
	ck_assert(sums.shared);
	ck_assert_uint_eq(sums.model_count, 2);
	ck_assert_str_eq(sums.models[0].name, "m");
	ck_assert_uint_eq(sums.models[0].tokens[KIND_cache_write], 3);
	ck_assert_uint_eq(sums.models[0].cost, 7);
	begin_again(false, RS_OK);
	ck_assert_uint_eq(sum(COUNT), 4);
	ck_assert_uint_eq(sum(GAUGE), 0);
}
END_TEST

static void *
add_many(void *arg)
{
	int i;

	for (i = 0; i < ADDS; i++) {
		metrics_add(COUNT, 1);
		metrics_gauge(GAUGE, i % 2 == 0 ? 1 : -1);
		metrics_observe(HISTOGRAM, 1);
	}
	return arg;
}

START_TEST(threads_count_every_one)
{
	pthread_t threads[THREADS];
	int i;

	begin();
	for (i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, add_many,
		    NULL), 0);
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(sum(COUNT), THREADS * ADDS);
	ck_assert_uint_eq(sums.cells[GAUGE], 0);
	ck_assert_uint_eq(sums.cells[HISTOGRAM], THREADS * ADDS);
	ck_assert_uint_eq(sums.cells[HISTOGRAM + METRICS_BUCKET_COUNT + 1],
	    THREADS * ADDS);
}
END_TEST

START_TEST(a_value_on_a_bound_is_within_it)
{
	metrics_observe(HISTOGRAM, 0);
	metrics_observe(HISTOGRAM, 1000000);
	metrics_observe(HISTOGRAM, 1000001);
	metrics_observe(HISTOGRAM, 60000000000);
	metrics_observe(HISTOGRAM, 60000000001);
	metrics_sum(&sums);
	ck_assert_uint_eq(sums.cells[HISTOGRAM], 2);
	ck_assert_uint_eq(sums.cells[HISTOGRAM + 1], 1);
	ck_assert_uint_eq(sums.cells[HISTOGRAM + METRICS_BUCKET_COUNT - 1], 1);
	ck_assert_uint_eq(sums.cells[HISTOGRAM + METRICS_BUCKET_COUNT], 1);
	ck_assert_uint_eq(sums.cells[HISTOGRAM + METRICS_BUCKET_COUNT + 1],
	    120002000002);
}
END_TEST

START_TEST(a_status_has_its_cell_or_shares_the_last_one)
{
	ck_assert_uint_eq(metrics_code(200), METRIC_http_responses_total);
	ck_assert_uint_eq(metrics_code(503),
	    METRIC_http_responses_total_last - 1);
	ck_assert_uint_eq(metrics_code(418), METRIC_http_responses_total_last);
	ck_assert_uint_eq(metrics_code(-1), METRIC_http_responses_total_last);
}
END_TEST

/* ---- processes ---- */

START_TEST(a_sum_has_counters_of_all_and_gauges_of_the_living)
{
	int ready, go;
	pid_t pid;

	begin();
	metrics_add(COUNT, 1);
	metrics_gauge(GAUGE, 1);
	pid = child_begin(10, &ready, &go);
	child_wait(ready);
	ck_assert_uint_eq(sum(COUNT), 11);
	ck_assert_uint_eq(sum(GAUGE), 2);
	child_end(pid, go, _i == 0 ? 0 : SIGKILL);
	ck_assert_uint_eq(sum(COUNT), 11);
	ck_assert_uint_eq(sum(GAUGE), 1);
}
END_TEST

/* More of them than there are slots: each takes over a dead one's. */
START_TEST(who_takes_over_a_slot_goes_on_with_its_counters)
{
	int i, ready, go, count = SLOTS + 40;
	pid_t pid;

	for (i = 0; i < count; i++) {
		pid = child_begin(1, &ready, &go);
		child_wait(ready);
		child_end(pid, go, i % 2 == 0 ? 0 : SIGKILL);
	}
	begin();
	ck_assert_uint_eq(sum(COUNT), (uint64_t)count);
	ck_assert_uint_eq(sum(GAUGE), 0);
	metrics_gauge(GAUGE, 1);
	ck_assert_uint_eq(sum(GAUGE), 1);
}
END_TEST

START_TEST(processes_that_race_for_slots_get_one_each)
{
	int ready[CHILDREN], go[CHILDREN], i;
	pid_t pids[CHILDREN];

	for (i = 0; i < CHILDREN; i++)
		pids[i] = child_begin(1, &ready[i], &go[i]);
	for (i = 0; i < CHILDREN; i++)
		child_wait(ready[i]);
	begin();
	ck_assert_uint_eq(sum(COUNT), CHILDREN);
	ck_assert_uint_eq(sum(GAUGE), CHILDREN);
	for (i = 0; i < CHILDREN; i++)
		child_end(pids[i], go[i], SIGKILL);
	ck_assert_uint_eq(sum(COUNT), CHILDREN);
	ck_assert_uint_eq(sum(GAUGE), 0);
}
END_TEST

START_TEST(without_a_free_slot_a_process_counts_but_for_gauges)
{
	struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd;

	begin();
	metrics_add(COUNT, 1);
	metrics_close();
	fd = open(path, O_RDWR);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fcntl(fd, F_OFD_SETLK, &all), 0);
	begin();
	metrics_add(COUNT, 1);
	metrics_gauge(GAUGE, 1);
	ck_assert_uint_eq(sum(COUNT), 2);
	ck_assert_uint_eq(sum(GAUGE), 0);
	close(fd);
	begin_again(false, RS_OK);
	ck_assert_uint_eq(sum(COUNT), 2);
}
END_TEST

/* ---- models ---- */

START_TEST(models_that_no_row_is_left_for_share_one)
{
	const struct usage u = { 1, TOKENS_UNKNOWN, 0, 2, 9 };
	char name[MODEL_NAME_MAX + 1];
	int i;

	begin();
	for (i = 0; i < 2 * METRICS_MODELS; i++) {
		snprintf(name, sizeof name, "%0*d", MODEL_NAME_MAX, i);
		metrics_model(name, &u, i == 0 ? MONEY_UNKNOWN : 5);
	}
	metrics_sum(&sums);
	ck_assert_uint_eq(sums.model_count, METRICS_MODELS);
	ck_assert_uint_eq(strlen(sums.models[0].name), MODEL_NAME_MAX);
	ck_assert_uint_eq(sums.models[0].tokens[KIND_output], 2);
	ck_assert_uint_eq(sums.models[0].cost, 0);
	ck_assert_uint_eq(sums.models[1].cost, 5);
	i = METRICS_MODELS - 1;
	ck_assert_str_eq(sums.models[i].name, METRICS_OTHER);
	ck_assert_uint_eq(sums.models[i].tokens[KIND_input],
	    METRICS_MODELS + 1);
	ck_assert_uint_eq(sums.models[i].cost, 5 * (METRICS_MODELS + 1));
}
END_TEST

/* Each has models of its own, and all want the same free rows. */
START_TEST(processes_that_count_for_new_models_at_once_lose_nothing)
{
	const struct usage u = { 1, 0, 0, 1, 0 };
	int k, i, status, count = (METRICS_MODELS - 1) / RACERS;
	atomic_int *there = mmap(NULL, sizeof *there, PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pids[RACERS];
	char name[16];

	begin();
	ck_assert(there != MAP_FAILED);
	for (k = 0; k < RACERS; k++) {
		if ((pids[k] = fork()) != 0)
			continue;
		begin_again(false, RS_OK);
		atomic_fetch_add(there, 1);
		while (atomic_load(there) < RACERS)
			sched_yield();
		for (i = 0; i < 100 * count; i++) {
			snprintf(name, sizeof name, "m%d.%d", k, i % count);
			metrics_model(name, &u, 1);
		}
		_exit(0);
	}
	for (k = 0; k < RACERS; k++) {
		ck_assert_int_eq(waitpid(pids[k], &status, 0), pids[k]);
		ck_assert_int_eq(status, 0);
	}
	metrics_sum(&sums);
	ck_assert_uint_eq(sums.model_count, (size_t)(RACERS * count + 1));
	for (i = 0; i < RACERS * count; i++)
		ck_assert_uint_eq(sums.models[i].cost, 100);
	munmap(there, sizeof *there);
}
END_TEST

START_TEST(a_models_name_is_what_it_is_also_in_the_text)
{
	static const struct {
		const char *name, *want;
	} rows[] = {
		{ "gpt-4o", "{model=\"gpt-4o\"} 0.000000000007\n" },
		{ "a\"b\\c\nd",
		    "{model=\"a\\\"b\\\\c\\nd\"} 0.000000000007\n" },
		{ "tr\xc3\xa8s", "{model=\"tr\xc3\xa8s\"} 0.000000000007\n" },
		{ "\xff\xc3", "{model=\"??\"} 0.000000000007\n" },
		{ "other", "{model=\"other\"} 0.000000000007\n" },
	};
	const struct usage u = { 1, 2, 3, 4, 5 };
	struct buf b;
	size_t i;

	for (i = 0; i < sizeof rows / sizeof rows[0]; i++)
		metrics_model(rows[i].name, &u, 7);
	metrics_sum(&sums);
	buf_init(&b, 1 << 20);
	metrics_put(&b, &sums);
	ck_assert_int_eq(b.err, RS_OK);
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++)
		ck_assert_msg(strstr(b.data, rows[i].want) != NULL, "%s",
		    rows[i].name);
	buf_done(&b);
}
END_TEST

/* ---- the file ---- */

/* What a process without the file does. */
static void
check_alone(void)
{
	ck_assert_uint_eq(sum(COUNT), 0);
	metrics_add(COUNT, 1);
	metrics_gauge(GAUGE, 1);
	ck_assert_uint_eq(sum(COUNT), 1);
	ck_assert_uint_eq(sum(GAUGE), 1);
	ck_assert(!sums.shared);
}

static off_t
file_size(void)
{
	struct stat st;

	ck_assert_int_eq(stat(path, &st), 0);
	return st.st_size;
}

/* Sizes from all to nothing. */
START_TEST(a_file_that_was_cut_is_replaced_by_the_mutator_only)
{
	off_t size;

	begin();
	metrics_close();
	size = file_size();
	ck_assert_int_eq(truncate(path, _i == 50 ? size + 1 :
	    _i < HEAD + 2 ? _i : size * (_i - HEAD) / 20 - 1), 0);
	begin_again(false, RS_ECORRUPT);
	check_alone();
	begin_again(true, RS_OK);
	metrics_add(COUNT, 1);
	ck_assert_uint_eq(sum(COUNT), 2);
	ck_assert_int_eq(file_size(), size);
	begin_again(false, RS_OK);
	ck_assert_uint_eq(sum(COUNT), 2);
}
END_TEST

START_TEST(a_file_of_another_layout_is_replaced_by_the_mutator_only)
{
	char c;
	int fd;

	begin();
	metrics_close();
	fd = open(path, O_RDWR);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, &c, 1, _i), 1);
	c ^= 1;
	ck_assert_int_eq(pwrite(fd, &c, 1, _i), 1);
	close(fd);
	begin_again(false, RS_ECORRUPT);
	check_alone();
	begin_again(true, RS_OK);
	metrics_add(COUNT, 1);
	begin_again(false, RS_OK);
	ck_assert_uint_eq(sum(COUNT), 2);
}
END_TEST

/* Behind a good head. */
START_TEST(garbage_in_the_file_is_counted_and_does_no_harm)
{
	const struct usage u = { 1, 2, 3, 4, 5 };
	struct buf b;
	off_t size;
	char *p;
	int fd;

	begin();
	size = file_size();
	fd = open(path, O_RDWR);
	p = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert(p != MAP_FAILED);
	srand((unsigned)_i);
	for (off_t i = HEAD; i < size; i++)
		p[i] = (char)(_i == 0 ? 0xff : _i == 1 ? 2 : rand() >> 7);
	munmap(p, (size_t)size);
	close(fd);
	metrics_add(COUNT, 1);
	metrics_gauge(GAUGE, 1);
	metrics_model("m", &u, 1);
	metrics_sum(&sums);
	buf_init(&b, 1 << 20);
	metrics_put(&b, &sums);
	ck_assert_int_eq(b.err, RS_OK);
	buf_done(&b);
	begin_again(false, RS_OK);
}
END_TEST

/* Each makes and fills the name with something that is not the file. */
START_TEST(what_is_no_file_of_ours_is_not_written_to)
{
	char other[sizeof path + 8];
	struct stat st;
	int rc = -1;

	snprintf(other, sizeof other, "%s-other", path);
	if (_i == 3) {
		begin(); /* even of another spool */
		ck_assert_int_eq(rename(path, other), 0);
		rc = symlink(other, path);
	} else {
		ck_assert_int_eq(close(open(other, O_CREAT | O_WRONLY, 0600)),
		    0);
	}
	switch (_i) {
	case 0:
		rc = symlink(other, path);
		break;
	case 1:
		rc = mkfifo(path, 0600);
		break;
	case 2:
		rc = mkdir(path, 0700);
		break;
	}
	ck_assert_int_eq(rc, 0);
	metrics_close();
	ck_assert_int_ne(metrics_open(fx_sp, false), RS_OK);
	check_alone();
	metrics_close();
	ck_assert_int_eq(metrics_open(fx_sp, true) == RS_OK, _i != 2);
	ck_assert_int_eq(stat(other, &st), 0);
	ck_assert_int_eq(st.st_size == 0, _i != 3);
}
END_TEST

START_TEST(a_file_with_holes_gets_its_space)
{
	char head[HEAD];
	struct stat st;
	off_t size;
	int fd;

	begin();
	metrics_close();
	fd = open(path, O_RDWR);
	ck_assert_int_eq(pread(fd, head, HEAD, 0), HEAD);
	size = file_size();
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	ck_assert_int_eq(pwrite(fd, head, HEAD, 0), HEAD);
	ck_assert_int_eq(ftruncate(fd, size), 0);
	close(fd);
	begin();
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_ge(st.st_blocks * 512, size);
}
END_TEST

static int
names_in_spool(void)
{
	struct dirent *de;
	DIR *dir;
	int n = 0;

	ck_assert_int_eq(fd_dir_open(fx_sp->fd, ".", &dir), RS_OK);
	while ((de = readdir(dir)) != NULL)
		n += de->d_name[0] != '.' || de->d_name[1] == 'm';
	closedir(dir);
	return n;
}

START_TEST(without_space_for_the_file_a_process_counts_alone)
{
	struct rlimit limit, before;
	int names = names_in_spool();
	enum rs_err err;

	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
	limit = before;
	limit.rlim_cur = 4096 * (rlim_t)_i;
	(void)setrlimit(RLIMIT_FSIZE, &limit); /* an assertion writes */
	err = metrics_open(fx_sp, _i % 2 == 0);
	(void)setrlimit(RLIMIT_FSIZE, &before);
	ck_assert_int_eq(err, RS_ENOSPC);
	check_alone();
	ck_assert_int_eq(names_in_spool(), names);
	/* It takes what it has along when there is space. */
	clock_freeze(clock_mono_ns() + 11 * NS_PER_S, fx_now_ms);
	metrics_again();
	ck_assert_uint_eq(sum(COUNT), 1);
	ck_assert_uint_eq(sum(GAUGE), 1);
	ck_assert(sums.shared);
	begin_again(false, RS_OK);
	ck_assert_uint_eq(sum(COUNT), 1);
}
END_TEST

START_TEST(a_page_that_goes_away_costs_no_life)
{
	begin();
	metrics_add(COUNT, 1);
	metrics_gauge(GAUGE, 3);
	ck_assert_int_eq(truncate(path, 0), 0);
	metrics_add(COUNT, 1);
	metrics_add(OTHER_COUNT, 1);
	ck_assert_uint_eq(sum(OTHER_COUNT), 1);
	ck_assert(!sums.shared);
	clock_freeze(clock_mono_ns() + 11 * NS_PER_S, fx_now_ms);
	metrics_again();
	ck_assert_uint_eq(sum(OTHER_COUNT), 1);
	ck_assert(!sums.shared);
}
END_TEST

static atomic_bool cutting;

/* Somebody who may write the file, and means no good. */
static void *
cut(void *arg)
{
	int fd = open(path, O_RDWR);
	off_t size = file_size();
	char head[HEAD];

	(void)!pread(fd, head, HEAD, 0);
	while (cutting) {
		(void)!ftruncate(fd, 0);
		(void)!pwrite(fd, head, HEAD, 0);
		(void)!ftruncate(fd, size);
	}
	close(fd);
	return arg;
}

START_TEST(a_file_that_is_cut_while_it_is_mapped_costs_no_life)
{
	pthread_t thread;
	int i, had = 0;

	begin();
	metrics_close();
	cutting = true;
	ck_assert_int_eq(pthread_create(&thread, NULL, cut, NULL), 0);
	for (i = 0; i < 3000; i++) {
		had += metrics_open(fx_sp, false) == RS_OK;
		metrics_add(COUNT, 1);
		metrics_gauge(GAUGE, 1);
		metrics_sum(&sums);
		if (i % 3 == 0)
			metrics_close();
	}
	cutting = false;
	pthread_join(thread, NULL);
	ck_assert_int_gt(had, 0);
}
END_TEST

START_TEST(a_bus_error_of_another_cause_still_kills)
{
	pid_t pid = fork();
	int fd, status;
	char *p;

	if (pid == 0) {
		begin();
		if (_i == 0)
			raise(SIGBUS);
		fd = open(".", O_TMPFILE | O_RDWR, 0600);
		p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED,
		    fd >= 0 ? fd : fileno(tmpfile()), 0);
		p[0] = 1;
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}
END_TEST

START_TEST(a_process_finds_the_file_that_took_the_old_ones_place)
{
	begin();
	metrics_add(COUNT, 5);
	metrics_gauge(GAUGE, 3);
	ck_assert_int_eq(unlink(path), 0);
	metrics_again(); /* too early */
	ck_assert_int_lt(access(path, F_OK), 0);
	metrics_add(COUNT, 1);
	clock_freeze(clock_mono_ns() + 11 * NS_PER_S, fx_now_ms);
	metrics_again();
	ck_assert_int_eq(access(path, F_OK), 0);
	metrics_add(OTHER_COUNT, 1);
	ck_assert_uint_eq(sum(COUNT), 0);
	ck_assert_uint_eq(sum(OTHER_COUNT), 1);
	/* It is still open. */
	ck_assert_uint_eq(sum(GAUGE), 3);
}
END_TEST

START_TEST(the_file_is_for_those_whom_the_spool_lets_in)
{
	struct stat st;

	if (_i == 1) {
		ck_assert_int_eq(chmod(fx_dir, 0750), 0);
		spool_close(fx_sp);
		fx_sp = fx_open();
	}
	umask(_i == 1 ? 077 : 0);
	begin();
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, _i == 1 ? 0660 : 0600);
}
END_TEST

START_TEST(only_the_owner_makes_the_file)
{
	if (geteuid() != 0)
		return;
	ck_assert_int_eq(fchownat(fx_sp->fd, "usage", 12345, 12345, 0) |
	    fchownat(fx_sp->fd, "streams", 12345, 12345, 0) |
	    chown(fx_dir, 12345, 12345), 0);
	spool_close(fx_sp);
	fx_sp = fx_open();
	ck_assert_int_eq(metrics_open(fx_sp, _i == 1), RS_ENOENT);
	check_alone();
}
END_TEST

START_TEST(facts_stay)
{
	begin();
	metrics_fact(FACT_spool_bytes, 12);
	metrics_fact(FACT_spool_files, 3);
	begin_again(false, RS_OK);
	metrics_sum(&sums);
	ck_assert_uint_eq(sums.facts[FACT_spool_bytes], 12);
	ck_assert_uint_eq(sums.facts[FACT_spool_files], 3);
}
END_TEST

static Suite *
suite(void)
{
	Suite *s = suite_create("metrics");
	TCase *tc = tcase_create("counting");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc,
	    what_was_counted_before_the_file_was_there_is_in_it);
	tcase_add_test(tc, threads_count_every_one);
	tcase_add_test(tc, a_value_on_a_bound_is_within_it);
	tcase_add_test(tc, a_status_has_its_cell_or_shares_the_last_one);
	tcase_add_test(tc, facts_stay);
	tcase_add_test(tc, models_that_no_row_is_left_for_share_one);
	tcase_add_loop_test(tc,
	    processes_that_count_for_new_models_at_once_lose_nothing, 0, 20);
	tcase_add_test(tc, a_models_name_is_what_it_is_also_in_the_text);
	suite_add_tcase(s, tc);
	tc = tcase_create("processes");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc,
	    a_sum_has_counters_of_all_and_gauges_of_the_living, 0, 2);
	tcase_add_test(tc, who_takes_over_a_slot_goes_on_with_its_counters);
	tcase_add_test(tc, processes_that_race_for_slots_get_one_each);
	tcase_add_test(tc,
	    without_a_free_slot_a_process_counts_but_for_gauges);
	suite_add_tcase(s, tc);
	tc = tcase_create("file");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc,
	    a_file_that_was_cut_is_replaced_by_the_mutator_only, 0, 51);
	tcase_add_loop_test(tc,
	    a_file_of_another_layout_is_replaced_by_the_mutator_only, 0, HEAD);
	tcase_add_loop_test(tc,
	    garbage_in_the_file_is_counted_and_does_no_harm, 0, 6);
	tcase_add_loop_test(tc, what_is_no_file_of_ours_is_not_written_to, 0,
	    4);
	tcase_add_test(tc, a_file_with_holes_gets_its_space);
	tcase_add_loop_test(tc,
	    without_space_for_the_file_a_process_counts_alone, 0, 2);
	tcase_add_test(tc, a_page_that_goes_away_costs_no_life);
	tcase_add_test(tc, a_file_that_is_cut_while_it_is_mapped_costs_no_life);
	tcase_add_loop_test(tc, a_bus_error_of_another_cause_still_kills, 0,
	    2);
	tcase_add_test(tc,
	    a_process_finds_the_file_that_took_the_old_ones_place);
	tcase_add_loop_test(tc,
	    the_file_is_for_those_whom_the_spool_lets_in, 0, 2);
	tcase_add_loop_test(tc, only_the_owner_makes_the_file, 0, 2);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	SRunner *sr = srunner_create(suite());
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
