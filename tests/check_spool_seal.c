/* check_spool_seal.c - ending, sweeping, deleting; locks and the ballast. */
#include <sched.h>
#include <sys/resource.h>
#include "spool_fixture.h"

/* A stream of three frames of which the last is terminal when ended.
 * ends[0] is the end of the head. */
static void
make_stream(struct buf *b, bool ended, size_t ends[4])
{
	fx_stream(b, NULL, 0, &ends[0]);
	fx_frame(b, 0, 0);
	ends[1] = b->len;
	fx_frame(b, 1, 200);
	ends[2] = b->len;
	if (ended)
		fx_done(b, 2);
	else
		fx_frame(b, 2, 0);
	ends[3] = b->len;
}

/* Ended, clean, and the first kept bytes are what they were; then comes one
 * frame, the ending. */
static void
check_sealed(const struct buf *before, size_t kept, uint64_t count)
{
	struct sse_frame f;
	struct spool_reader r = fx_find(&fx_key);
	struct stream_tail t;
	struct buf b;

	fx_read(&fx_key, &b);
	ck_assert_int_eq(spool_scan(&r, NULL, &t), RS_OK);
	ck_assert(t.ended && !t.torn);
	ck_assert_uint_eq(t.count, count);
	ck_assert_uint_ge(b.len, kept);
	ck_assert_mem_eq(b.data, before->data, kept);
	if (b.len > kept) {
		ck_assert_int_eq(sse_frame_scan(b.data + kept, b.len - kept,
		    &f), SSE_FRAME);
		ck_assert_uint_eq(f.size, b.len - kept);
		ck_assert(sse_frame_is(&f, "error"));
		ck_assert_ptr_nonnull(strstr(f.data, "\"generation_lost\""));
		ck_assert_ptr_nonnull(strstr(f.data, "\"partial\":true"));
	}
	buf_done(&b);
	spool_reader_done(&r);
}

/* Lines in today's usage file that hold text. */
static size_t
count_usage(const char *text)
{
	char path[sizeof fx_dir + 64], day[CLOCK_ISO_SIZE];
	struct buf b;
	size_t n = 0;

	clock_iso(fx_now_ms, day);
	snprintf(path, sizeof path, "%s/usage/%.10s.jsonl", fx_dir, day);
	buf_init(&b, 1 << 20);
	if (fd_read_file(AT_FDCWD, path, &b) == RS_OK && b.len > 0)
		for (char *p = b.data; (p = strstr(p, text)) != NULL; p++)
			n++;
	buf_done(&b);
	return n;
}

START_TEST(a_file_cut_anywhere_is_mended)
{
	size_t ends[4];
	struct buf b;

	make_stream(&b, _i == 1, ends);
	for (size_t n = ends[0]; n <= b.len; n++) {
		size_t whole = 0;

		while (whole < 3 && ends[whole + 1] <= n)
			whole++;
		fx_write(&fx_key, b.data, n);
		ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_OK);
		check_sealed(&b, ends[whole],
		    _i == 1 && whole == 3 ? 3 : whole + 1);
		/* Again: nothing changes. */
		ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_OK);
		check_sealed(&b, ends[whole],
		    _i == 1 && whole == 3 ? 3 : whole + 1);
	}
	buf_done(&b);
}
END_TEST

START_TEST(a_wrong_byte_is_cut_off_with_all_behind_it)
{
	static const unsigned char flips[] = { 0x01, 0x80, 0xff };
	size_t ends[4];
	struct buf b, now;

	make_stream(&b, true, ends);
	for (size_t at = ends[0]; at < b.len; at++)
		for (size_t j = 0; j <= sizeof flips; j++) {
			char was = b.data[at];
			struct spool_reader r;
			struct stream_tail t;

			b.data[at] = j < sizeof flips ?
			    (char)(was ^ flips[j]) : '\0';
			fx_write(&fx_key, b.data, b.len);
			ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_OK);
			r = fx_find(&fx_key);
			ck_assert_int_eq(spool_scan(&r, NULL, &t), RS_OK);
			ck_assert(t.ended && !t.torn);
			spool_reader_done(&r);
			fx_read(&fx_key, &now);
			for (size_t i = 0; i < 4 && ends[i] <= at; i++)
				ck_assert_mem_eq(now.data, b.data, ends[i]);
			buf_done(&now);
			b.data[at] = was;
		}
	buf_done(&b);
}
END_TEST

START_TEST(garbage_behind_the_end_is_cut_off)
{
	size_t ends[4];
	struct buf b;

	make_stream(&b, true, ends);
	if (_i == 0)
		buf_puts(&b, "event: mess");
	else
		buf_add(&b, "\0\0\0\0", 4);
	fx_write(&fx_key, b.data, b.len);
	ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_OK);
	check_sealed(&b, ends[3], 3);
	ck_assert_uint_eq(count_usage("\"settle\""), 0);
	buf_done(&b);
}
END_TEST

START_TEST(the_ending_tells_what_the_frames_knew)
{
	size_t ends[4];
	struct buf b, now;
	const char *end;

	make_stream(&b, false, ends);
	fx_write(&fx_key, b.data, ends[_i == 0 ? 3 : 0]);
	fx_age(fx_path(&fx_key), 2); /* created 5 s ago */
	ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_OK);
	fx_read(&fx_key, &now);
	end = now.data + ends[_i == 0 ? 3 : 0];
	ck_assert_ptr_nonnull(strstr(end, "\"latency_ms\":3000"));
	ck_assert_uint_eq(count_usage("\"settle\""), 1);
	ck_assert_uint_eq(count_usage("\"generation_lost\""), 1);
	if (_i == 0) {
		ck_assert_ptr_nonnull(strstr(end, "\"total_tokens\":6"));
		ck_assert_ptr_nonnull(strstr(end,
		    "\"total_cost\":0.0000018"));
		ck_assert_uint_eq(count_usage("\"estimated\":true"), 1);
		ck_assert_uint_eq(count_usage("\"total_cost\":0.0000018"), 1);
	} else {
		ck_assert_uint_eq(count_usage("\"estimated\":false"), 1);
		ck_assert_uint_eq(count_usage("\"total_cost\":null"), 1);
	}
	buf_done(&now);
	buf_done(&b);
}
END_TEST

START_TEST(a_stream_is_sealed_when_its_writer_is_dead_and_not_before)
{
	pid_t pid = fx_child_writer(&fx_key);
	struct stream_tail t;

	ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_EBUSY);
	ck_assert_int_eq(spool_delete(fx_sp, &fx_key), RS_EBUSY);
	kill(pid, SIGSTOP); /* stopped is not dead */
	ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_EBUSY);
	ck_assert(!fx_tail(&fx_key).ended);
	fx_kill(pid);
	ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_OK);
	t = fx_tail(&fx_key);
	ck_assert(t.ended);
	ck_assert_uint_eq(t.count, 2);
}
END_TEST

START_TEST(an_ended_stream_counts_as_sealed_while_its_writer_closes_it)
{
	struct spool_writer *w = fx_create(&fx_key);
	struct buf b;

	buf_init(&b, 4096);
	fx_done(&b, 0);
	ck_assert_int_eq(spool_append(w, b.data, b.len), RS_OK);
	ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_OK);
	spool_writer_free(w);
	buf_done(&b);
}
END_TEST

START_TEST(what_is_not_there_cannot_be_sealed)
{
	ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_ENOENT);
	fx_write(&fx_key, "", 0);
	ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_ENOENT);
	fx_write(&fx_key, "garbage", 7);
	ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_ECORRUPT);
}
END_TEST

START_TEST(another_hosts_stream_is_left_alone)
{
	size_t ends[4];
	struct buf b, now;

	make_stream(&b, _i == 1, ends); /* its head says host h */
	fx_write(&fx_key, b.data, b.len);
	fx_sp->shared_fs = true;
	ck_assert_int_eq(spool_seal(fx_sp, &fx_key),
	    _i == 1 ? RS_OK : RS_EFOREIGN);
	fx_read(&fx_key, &now);
	ck_assert_uint_eq(now.len, b.len);
	ck_assert_mem_eq(now.data, b.data, b.len);
	buf_done(&now);
	fx_sp->shared_fs = false;
	ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_OK);
	buf_done(&b);
}
END_TEST

static void
limit_files(rlim_t size)
{
	struct rlimit lim;

	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &lim);
	lim.rlim_cur = size == RLIM_INFINITY ? lim.rlim_max : size;
	setrlimit(RLIMIT_FSIZE, &lim);
}

START_TEST(on_a_full_disk_a_stream_is_cut_and_not_half_ended)
{
	size_t ends[4];
	struct stream_tail t;
	struct buf b, now;
	enum rs_err err;

	make_stream(&b, false, ends);
	fx_frame(&b, 3, 9000); /* so that the usage line fits */
	fx_write(&fx_key, b.data, b.len - 1);
	limit_files(ends[3] + (rlim_t)_i);
	err = spool_seal(fx_sp, &fx_key);
	limit_files(RLIM_INFINITY);
	ck_assert_int_eq(err, RS_ENOSPC);
	t = fx_tail(&fx_key);
	ck_assert_uint_eq(t.count, 3);
	ck_assert(!t.ended);
	/* Cut, or not even that; never more. */
	fx_read(&fx_key, &now);
	ck_assert(now.len == ends[3] || now.len == b.len - 1);
	ck_assert_mem_eq(now.data, b.data, now.len);
	buf_done(&now);
	ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_OK);
	check_sealed(&b, ends[3], 4);
	buf_done(&b);
}
END_TEST

/* A writer that appends two frames at a time until it is killed, which is
 * as soon as _i * 7 frames have been seen. */
START_TEST(what_a_reader_saw_survives_the_writers_death)
{
	struct spool_reader r;
	struct stream_tail t, end;
	struct buf b, seen;
	enum rs_err err;
	pid_t pid;

	if ((pid = fork()) == 0) {
		struct stream_head h = fx_head();
		struct spool_writer *w;

		buf_init(&b, 1 << 16);
		if (spool_create(fx_sp, &fx_key, &h, &w) != RS_OK)
			_exit(1);
		for (uint64_t id = 0;; id += 2) {
			buf_clear(&b);
			fx_frame(&b, id, id * 37 % 9000);
			fx_frame(&b, id + 1, 0);
			if (spool_append(w, b.data, b.len) != RS_OK)
				_exit(1);
		}
	}
	while (spool_find(fx_sp, &fx_key, &r) != RS_OK)
		sched_yield();
	/* Check notes each assertion in a file, and this goes round often. */
	do
		err = spool_tail(&r, &t);
	while (err == RS_OK && t.count < (uint64_t)_i * 7);
	ck_assert_int_eq(err, RS_OK);
	buf_init(&seen, 1 << 26);
	buf_init(&b, 1 << 26);
	ck_assert_int_eq(fd_read_file(AT_FDCWD, fx_path(&fx_key), &seen),
	    RS_OK);
	fx_kill(pid);
	ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_OK);
	ck_assert_int_eq(spool_scan(&r, NULL, &end), RS_OK);
	ck_assert(end.ended && !end.torn);
	ck_assert_uint_gt(end.count, t.count);
	ck_assert_int_eq(fd_read_file(AT_FDCWD, fx_path(&fx_key), &b), RS_OK);
	ck_assert_uint_ge(b.len, t.end);
	ck_assert_mem_eq(b.data, seen.data, t.end);
	spool_reader_done(&r);
	buf_done(&seen);
	buf_done(&b);
}
END_TEST

/* ---- sweeping ---- */

/* All 256 shards once. */
static uint64_t
sweep_all(uint64_t budget_ns)
{
	struct sweep s = { .shard = 0 };
	unsigned shards = 0, calls = 0;
	bool done;

	while (shards < SPOOL_SHARDS) {
		ck_assert_int_eq(spool_sweep(fx_sp, &s, fx_now_ms, budget_ns,
		    &done), RS_OK);
		shards += done;
		ck_assert_uint_lt(calls++, 5000);
	}
	ck_assert_uint_eq(s.shard, 0);
	spool_sweep_done(&s);
	return s.removed;
}

static bool
exists(const struct stream_key *k)
{
	return access(fx_path(k), F_OK) == 0;
}

static const struct {
	const char *what;
	bool ended, tombstone, headless;
	int64_t age_s;
	bool removed;
} old[] = {
	{ "ended, old", true, false, false, TTL_S + 2, true },
	{ "ended, young", true, false, false, TTL_S - 2, false },
	{ "ended, of the future", true, false, false, -1000, false },
	{ "tombstone, old", false, true, false, TTL_S + 2, true },
	{ "tombstone, young", false, true, false, TTL_S - 2, false },
	{ "no head, old", false, false, true, TTL_S + 2, true },
	{ "no head, young", false, false, true, TTL_S - 2, false },
};

static void
write_old(int i)
{
	size_t ends[4];
	struct buf b;

	make_stream(&b, old[i].ended, ends);
	if (old[i].headless)
		memset(b.data, 0, b.len);
	fx_write(&fx_key, b.data, old[i].tombstone ? 0 : b.len);
	fx_age(fx_path(&fx_key), old[i].age_s);
	buf_done(&b);
}

START_TEST(a_sweep_removes_what_is_older_than_ttl)
{
	write_old(_i);
	ck_assert_uint_eq(sweep_all(NS_PER_S), old[_i].removed);
	ck_assert_msg(exists(&fx_key) != old[_i].removed, "%s", old[_i].what);
}
END_TEST

/* The clock was a year ahead once. */
START_TEST(what_is_of_the_future_goes_a_ttl_after_a_sweep_saw_it)
{
	const int64_t year_s = 366 * 86400;
	struct stat st;
	int fd;

	write_old(_i == 0 ? 0 : 3); /* ended; a tombstone */
	fx_age(fx_path(&fx_key), -year_s);
	fd = open(fx_path(&fx_key), O_RDWR);
	ck_assert_int_eq(fd_lock(fd), RS_OK);
	ck_assert_uint_eq(sweep_all(NS_PER_S), 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_mtim.tv_sec, fx_now_ms / 1000 + year_s);
	close(fd);
	ck_assert_uint_eq(sweep_all(NS_PER_S), 0);
	ck_assert_int_eq(stat(fx_path(&fx_key), &st), 0);
	ck_assert_int_eq(st.st_mtim.tv_sec, fx_now_ms / 1000);
	fx_now_ms += (TTL_S - 2) * 1000;
	ck_assert_uint_eq(sweep_all(NS_PER_S), 0);
	fx_now_ms += 4 * 1000;
	ck_assert_uint_eq(sweep_all(NS_PER_S), 1);
}
END_TEST

START_TEST(a_sweep_leaves_what_is_locked)
{
	int fd;

	write_old(_i);
	fd = open(fx_path(&fx_key), O_RDWR);
	ck_assert_int_eq(fd_lock(fd), RS_OK);
	ck_assert_uint_eq(sweep_all(NS_PER_S), 0);
	ck_assert(exists(&fx_key));
	close(fd);
}
END_TEST

START_TEST(a_sweep_seals_an_old_orphan_and_removes_it_a_ttl_later)
{
	size_t ends[4];
	struct buf b;

	make_stream(&b, false, ends);
	fx_write(&fx_key, b.data, b.len - 3);
	fx_age(fx_path(&fx_key), TTL_S + 2);
	ck_assert_uint_eq(sweep_all(NS_PER_S), 0);
	check_sealed(&b, ends[2], 3);
	ck_assert_uint_eq(sweep_all(NS_PER_S), 0);
	fx_age(fx_path(&fx_key), TTL_S + 2);
	ck_assert_uint_eq(sweep_all(NS_PER_S), 1);
	ck_assert(!exists(&fx_key));
	buf_done(&b);
}
END_TEST

START_TEST(a_sweep_stops_after_its_budget_and_goes_on_there)
{
	struct sweep s = { .shard = 0 };
	struct stream_key keys[20];
	size_t calls = 0, shards = 0;
	bool done;

	for (int i = 0; i < 20; i++) {
		char id[16];

		snprintf(id, sizeof id, "o%d", i);
		stream_key(&keys[i], "alice", id);
		fx_write(&keys[i], "", 0);
		fx_age(fx_path(&keys[i]), TTL_S + 2);
	}
	/* The clock stands still: no time at all is one file a call. */
	for (; shards < SPOOL_SHARDS; calls++) {
		uint64_t before = s.removed;

		ck_assert_int_eq(spool_sweep(fx_sp, &s, fx_now_ms, 0, &done),
		    RS_OK);
		ck_assert_uint_le(s.removed - before, 1);
		shards += done;
	}
	ck_assert_uint_eq(s.removed, 20);
	ck_assert_uint_ge(calls, SPOOL_SHARDS + 20);
	spool_sweep_done(&s);
}
END_TEST

START_TEST(a_sweep_removes_temporary_files_and_nothing_strange)
{
	char path[4200], *name;

	fx_write(&fx_key, "", 0);
	snprintf(path, sizeof path, "%s", fx_path(&fx_key));
	name = strrchr(path, '/') + 1;
	strcpy(name, ".tmp-0123456789abcdef");
	close(open(path, O_WRONLY | O_CREAT, 0600));
	strcpy(name, "README");
	close(open(path, O_WRONLY | O_CREAT, 0600));
	fx_age(path, TTL_S + 100);
	ck_assert_uint_eq(sweep_all(NS_PER_S), 1);
	ck_assert_int_eq(access(path, F_OK), 0);
	strcpy(name, ".tmp-0123456789abcdef");
	ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

START_TEST(a_shard_that_cannot_be_read_does_not_stop_the_sweep)
{
	struct sweep s = { .shard = 0 };
	char path[sizeof fx_dir + 16];
	bool done = false;

	snprintf(path, sizeof path, "%s/streams/00", fx_dir);
	ck_assert_int_eq(symlink("/tmp", path), 0);
	ck_assert_int_ne(spool_sweep(fx_sp, &s, fx_now_ms, NS_PER_S, &done),
	    RS_OK);
	ck_assert_int_eq(spool_sweep(fx_sp, &s, fx_now_ms, NS_PER_S, &done),
	    RS_OK);
	ck_assert(done);
	ck_assert_uint_eq(s.shard, 2);
}
END_TEST

/* ---- deleting ---- */

START_TEST(a_deleted_stream_is_gone_for_its_ttl)
{
	struct stream_head h = fx_head();
	struct spool_writer *w = NULL;
	struct spool_reader open_before, r;
	struct stream_tail t;
	size_t ends[4];
	struct stat st;
	struct buf b;

	make_stream(&b, true, ends);
	fx_write(&fx_key, b.data, b.len);
	open_before = fx_find(&fx_key);
	ck_assert_int_eq(spool_delete(fx_sp, &fx_key), RS_OK);
	ck_assert_int_eq(spool_find(fx_sp, &fx_key, &r), RS_ENOENT);
	ck_assert_int_eq(spool_create(fx_sp, &fx_key, &h, &w), RS_EEXIST);
	ck_assert_int_eq(stat(fx_path(&fx_key), &st), 0);
	ck_assert_int_eq(spool_delete(fx_sp, &fx_key), RS_OK);
	ck_assert_int_eq(st.st_size, 0);
	/* Who has it open replays to the end. */
	ck_assert_int_eq(spool_tail(&open_before, &t), RS_OK);
	ck_assert(t.ended);
	spool_reader_done(&open_before);
	fx_age(fx_path(&fx_key), TTL_S + 2);
	spool_writer_free(fx_create(&fx_key));
	buf_done(&b);
}
END_TEST

START_TEST(deleting_what_is_not_there_makes_nothing)
{
	char dir[4200];

	ck_assert_int_eq(spool_delete(fx_sp, &fx_key), RS_OK);
	snprintf(dir, sizeof dir, "%s", fx_path(&fx_key));
	*strrchr(dir, '/') = '\0';
	ck_assert_int_ne(access(dir, F_OK), 0);
	mkdir(dir, 0700);
	ck_assert_int_eq(spool_delete(fx_sp, &fx_key), RS_OK);
	ck_assert(!exists(&fx_key));
}
END_TEST

/* ---- the mutator, the ballast ---- */

START_TEST(there_is_one_mutator)
{
	char path[sizeof fx_dir + 32], want[200], line[200] = "";
	int fd, other = -7, ready[2];
	pid_t pid;
	char c;

	ck_assert_int_eq(pipe(ready), 0);
	if ((pid = fork()) == 0) {
		if (spool_lock_mutator(fx_sp, &fd) != RS_OK ||
		    write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	ck_assert_int_eq(spool_lock_mutator(fx_sp, &other), RS_EBUSY);
	ck_assert_int_eq(other, -7);
	snprintf(path, sizeof path, "%s/spooler.lock", fx_dir);
	snprintf(want, sizeof want, "%s %s %ld\n", fx_sp->host, fx_sp->boot,
	    (long)pid);
	fd = open(path, O_RDONLY);
	ck_assert_int_gt(read(fd, line, sizeof line - 1), 0);
	close(fd);
	ck_assert_str_eq(line, want);
	fx_kill(pid);
	ck_assert_int_eq(spool_lock_mutator(fx_sp, &fd), RS_OK);
	ck_assert_int_eq(spool_lock_mutator(fx_sp, &other), RS_EBUSY);
	close(fd);
	ck_assert_int_eq(spool_lock_mutator(fx_sp, &fd), RS_OK);
	close(fd);
}
END_TEST

static const struct {
	const char *line;
	bool shared;
	enum rs_err want;
} locks[] = {
	{ "", true, RS_OK },
	{ "elsewhere 11111111-2222-3333-4444-555555555555 12\n", true,
	    RS_EFOREIGN },
	{ "elsewhere 11111111-2222-3333-4444-555555555555 12\n", false,
	    RS_OK },
	{ "\n", true, RS_OK },
};

START_TEST(on_a_shared_file_system_the_lock_is_one_hosts)
{
	char path[sizeof fx_dir + 32], line[200] = "";
	int fd;

	snprintf(path, sizeof path, "%s/spooler.lock", fx_dir);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	ck_assert_int_eq(fd_write_full(fd, locks[_i].line,
	    strlen(locks[_i].line)), RS_OK);
	fx_sp->shared_fs = locks[_i].shared;
	if (_i == 1) { /* also when the lock works across hosts */
		int held = open(path, O_RDWR);

		ck_assert_int_eq(fd_lock(held), RS_OK);
		ck_assert_int_eq(spool_lock_mutator(fx_sp, &fd), RS_EFOREIGN);
		close(held);
	}
	close(fd);
	ck_assert_int_eq(spool_lock_mutator(fx_sp, &fd), locks[_i].want);
	if (locks[_i].want == RS_OK) {
		ck_assert_int_gt(pread(fd, line, sizeof line - 1, 0), 0);
		ck_assert_int_eq(strncmp(line, fx_sp->host,
		    strlen(fx_sp->host)), 0);
		ck_assert_ptr_eq(strchr(line, '\n'),
		    line + strlen(line) - 1);
		close(fd);
	}
}
END_TEST

static struct stat
ballast_stat(void)
{
	char path[sizeof fx_dir + 32];
	struct stat st;

	snprintf(path, sizeof path, "%s/ballast", fx_dir);
	ck_assert_int_eq(stat(path, &st), 0);
	return st;
}

START_TEST(the_ballast_is_space_that_is_really_taken)
{
	const int share = SPOOL_BALLAST_PER_STREAM;
	struct stat st;
	enum rs_err err;
	off_t size;

	ck_assert_int_eq(spool_ballast_give(fx_sp), RS_ENOENT);
	ck_assert_int_eq(spool_ballast(fx_sp, 100), RS_OK);
	st = ballast_stat();
	size = st.st_size;
	ck_assert_int_gt(size, 100 * share);
	ck_assert_int_ge(st.st_blocks * 512, size);
	ck_assert_int_eq(spool_ballast(fx_sp, 50), RS_OK);
	ck_assert_int_eq(ballast_stat().st_size, size);
	limit_files((rlim_t)size + 8 * (rlim_t)share);
	err = spool_ballast(fx_sp, 200);
	limit_files(RLIM_INFINITY);
	ck_assert_int_eq(err, RS_ENOSPC);
	ck_assert_int_eq(ballast_stat().st_size, size);
	/* Share by share, until there is none left. */
	for (; size > 0; size -= share) {
		ck_assert_int_eq(spool_ballast_give(fx_sp), RS_OK);
		ck_assert_int_eq(ballast_stat().st_size, size - share);
	}
	ck_assert_int_eq(ballast_stat().st_blocks, 0);
	ck_assert_int_eq(spool_ballast_give(fx_sp), RS_ENOENT);
	ck_assert_int_eq(spool_ballast(fx_sp, 1), RS_OK);
}
END_TEST

#define ROWS(a) (int)(sizeof(a) / sizeof *(a))

static TCase *
add_case(Suite *s, const char *name)
{
	TCase *tc = tcase_create(name);

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, fx_setup, fx_teardown);
	suite_add_tcase(s, tc);
	return tc;
}

int
main(void)
{
	Suite *s = suite_create("spool_seal");
	TCase *tc = add_case(s, "seal");

	tcase_add_loop_test(tc, a_file_cut_anywhere_is_mended, 0, 2);
	tcase_add_test(tc, a_wrong_byte_is_cut_off_with_all_behind_it);
	tcase_add_loop_test(tc, garbage_behind_the_end_is_cut_off, 0, 2);
	tcase_add_loop_test(tc, the_ending_tells_what_the_frames_knew, 0, 2);
	tcase_add_test(tc,
	    a_stream_is_sealed_when_its_writer_is_dead_and_not_before);
	tcase_add_test(tc,
	    an_ended_stream_counts_as_sealed_while_its_writer_closes_it);
	tcase_add_test(tc, what_is_not_there_cannot_be_sealed);
	tcase_add_loop_test(tc, another_hosts_stream_is_left_alone, 0, 2);
	tcase_add_loop_test(tc,
	    on_a_full_disk_a_stream_is_cut_and_not_half_ended, 0, 250);

	tcase_add_loop_test(tc, what_a_reader_saw_survives_the_writers_death,
	    0, 40);

	tc = add_case(s, "sweep");
	tcase_add_loop_test(tc, a_sweep_removes_what_is_older_than_ttl, 0,
	    ROWS(old));
	tcase_add_loop_test(tc,
	    what_is_of_the_future_goes_a_ttl_after_a_sweep_saw_it, 0, 2);
	tcase_add_loop_test(tc, a_sweep_leaves_what_is_locked, 0, ROWS(old));
	tcase_add_test(tc,
	    a_sweep_seals_an_old_orphan_and_removes_it_a_ttl_later);
	tcase_add_test(tc, a_sweep_stops_after_its_budget_and_goes_on_there);
	tcase_add_test(tc,
	    a_sweep_removes_temporary_files_and_nothing_strange);
	tcase_add_test(tc,
	    a_shard_that_cannot_be_read_does_not_stop_the_sweep);

	tc = add_case(s, "delete");
	tcase_add_test(tc, a_deleted_stream_is_gone_for_its_ttl);
	tcase_add_test(tc, deleting_what_is_not_there_makes_nothing);

	tc = add_case(s, "lock");
	tcase_add_test(tc, there_is_one_mutator);
	tcase_add_loop_test(tc,
	    on_a_shared_file_system_the_lock_is_one_hosts, 0, ROWS(locks));
	tcase_add_test(tc, the_ballast_is_space_that_is_really_taken);
	return fx_run(s);
}
