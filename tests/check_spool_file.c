/* check_spool_file.c - creating streams and appending to them. */
#include <errno.h>
#include <stdarg.h>
#include <dirent.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include "spool_fixture.h"

/* File systems without unnamed files or without space, and systems without
 * /proc, played by our own openat, fallocate and linkat. */
static bool no_tmpfile, no_proc, no_space;

int
fallocate(int fd, int mode, off_t off, off_t len)
{
	if (no_space) {
		errno = ENOSPC;
		return -1;
	}
	return (int)syscall(SYS_fallocate, fd, mode, off, len);
}

int
openat(int dir, const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list ap;

	if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) {
		va_start(ap, flags);
		mode = va_arg(ap, mode_t);
		va_end(ap);
	}
	if (no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return (int)syscall(SYS_openat, dir, path, flags, mode);
}

int
linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	if (no_proc && strncmp(from, "/proc/", 6) == 0) {
		errno = ENOENT;
		return -1;
	}
	return (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
}

/* Files in the stream's directory. */
static size_t
count_files(const struct stream_key *k)
{
	char dir[4200];
	struct dirent *e;
	size_t n = 0;
	DIR *d;

	snprintf(dir, sizeof dir, "%s", fx_path(k));
	*strrchr(dir, '/') = '\0';
	if ((d = opendir(dir)) == NULL)
		return 0;
	while ((e = readdir(d)) != NULL)
		n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..");
	closedir(d);
	return n;
}

START_TEST(a_stream_has_its_whole_head_and_its_lock_from_the_first)
{
	struct stream_head h = fx_head();
	struct spool_writer *w;
	struct spool_reader r;
	struct stream_tail t;
	int fd;

	no_tmpfile = _i == 1;
	no_proc = _i == 2;
	ck_assert_int_eq(spool_create(fx_sp, &fx_key, &h, &w), RS_OK);
	ck_assert_str_eq(h.host, fx_sp->host);
	ck_assert_str_eq(h.boot, fx_sp->boot);
	ck_assert_uint_eq(count_files(&fx_key), 1);
	r = fx_find(&fx_key);
	ck_assert_str_eq(r.head.owner, "alice");
	ck_assert_str_eq(r.head.host, fx_sp->host);
	ck_assert_str_eq(r.head.socket, h.socket);
	ck_assert_uint_eq(r.head_size, spool_writer_end(w));
	ck_assert_int_eq(spool_tail(&r, &t), RS_OK);
	ck_assert_uint_eq(t.count, 0);
	ck_assert_uint_eq(t.end, r.head_size);
	ck_assert(!t.ended && !t.torn);
	fd = open(fx_path(&fx_key), O_RDWR);
	ck_assert_int_eq(fd_lock(fd), RS_EBUSY);
	spool_writer_free(w);
	ck_assert_int_eq(fd_lock(fd), RS_OK);
	close(fd);
	spool_reader_done(&r);
}
END_TEST

START_TEST(a_name_is_given_once)
{
	struct stream_head h = fx_head();
	struct spool_writer *w = fx_create(&fx_key), *again = NULL;

	no_tmpfile = _i == 1;
	no_proc = _i == 2;
	ck_assert_int_eq(spool_create(fx_sp, &fx_key, &h, &again), RS_EEXIST);
	spool_writer_free(w);
	ck_assert_int_eq(spool_create(fx_sp, &fx_key, &h, &again), RS_EEXIST);
	ck_assert_ptr_null(again);
	ck_assert_uint_eq(count_files(&fx_key), 1);
}
END_TEST

START_TEST(readers_see_what_was_appended)
{
	struct spool_writer *w = fx_create(&fx_key);
	struct spool_reader r = fx_find(&fx_key);
	struct stream_tail t;
	struct buf b;

	buf_init(&b, 1 << 20);
	for (uint64_t i = 0; i < 50; i++) {
		buf_clear(&b);
		fx_frame(&b, 2 * i, i * 300);
		fx_frame(&b, 2 * i + 1, 0);
		ck_assert_int_eq(spool_append(w, b.data, b.len), RS_OK);
		ck_assert_int_eq(spool_tail(&r, &t), RS_OK);
		ck_assert_uint_eq(t.count, 2 * i + 2);
		ck_assert_uint_eq(t.end, spool_writer_end(w));
	}
	buf_clear(&b);
	fx_done(&b, 100);
	ck_assert_int_eq(spool_append(w, b.data, b.len), RS_OK);
	ck_assert_int_eq(spool_tail(&r, &t), RS_OK);
	ck_assert(t.ended);
	spool_writer_free(w);
	spool_reader_done(&r);
	buf_done(&b);
}
END_TEST

/* Children that wait for one word to go, then all create the same stream. */
START_TEST(of_creators_at_once_exactly_one_wins)
{
	enum { CHILDREN = 6, STREAMS = 40 };
	int go[2], won = 0, status;
	struct stream_head h = fx_head();
	pid_t pids[CHILDREN];

	if (_i == 1)
		/* All of them expired, so that everyone tries to remove. */
		for (int n = 0; n < STREAMS; n++) {
			char id[16];

			snprintf(id, sizeof id, "r%d", n);
			stream_key(&fx_key, "alice", id);
			fx_write(&fx_key, "", 0);
			fx_age(fx_path(&fx_key), TTL_S + 10);
		}
	ck_assert_int_eq(pipe(go), 0);
	for (int i = 0; i < CHILDREN; i++) {
		if ((pids[i] = fork()) != 0)
			continue;
		struct spool *sp = fx_open();
		struct spool_writer *live[STREAMS];
		int wins = 0;
		char c;

		close(go[1]);
		if (read(go[0], &c, 1) != 0)
			_exit(255);
		for (int n = 0; n < STREAMS; n++) {
			enum rs_err err;
			char id[16];

			snprintf(id, sizeof id, "r%d", n);
			stream_key(&fx_key, "alice", id);
			err = spool_create(sp, &fx_key, &h, &live[wins]);
			if (err == RS_OK)
				wins++; /* and it stays open */
			else if (err != RS_EEXIST)
				_exit(255);
		}
		for (int n = 0; n < wins; n++)
			spool_writer_free(live[n]);
		spool_close(sp);
		_exit(wins);
	}
	close(go[1]);
	for (int i = 0; i < CHILDREN; i++) {
		ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
		ck_assert(WIFEXITED(status) && WEXITSTATUS(status) <= STREAMS);
		won += WEXITSTATUS(status);
	}
	close(go[0]);
	ck_assert_int_eq(won, STREAMS);
}
END_TEST

/* ---- the full disk ---- */

/* Nothing may be asserted while it is in force: check writes files too. */
static void
limit_files(rlim_t size)
{
	struct rlimit lim;

	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &lim);
	lim.rlim_cur = size == RLIM_INFINITY ? lim.rlim_max : size;
	setrlimit(RLIMIT_FSIZE, &lim);
}

/* _i bytes of the frame get in. */
START_TEST(an_append_that_does_not_fit_is_cut_back)
{
	struct spool_writer *w = fx_create(&fx_key);
	struct stream_tail t;
	struct stat st;
	enum rs_err err;
	uint64_t end;
	struct buf b;

	buf_init(&b, 1 << 16);
	fx_frame(&b, 0, 0);
	ck_assert_int_eq(spool_append(w, b.data, b.len), RS_OK);
	end = spool_writer_end(w);
	buf_clear(&b);
	fx_frame(&b, 1, 200);
	limit_files(end + (rlim_t)_i);
	err = spool_append(w, b.data, b.len);
	limit_files(RLIM_INFINITY);
	ck_assert_int_eq(err, RS_ENOSPC);
	ck_assert_int_eq(stat(fx_path(&fx_key), &st), 0);
	ck_assert_uint_eq((uint64_t)st.st_size, end);
	ck_assert_uint_eq(spool_writer_end(w), end);
	ck_assert_int_eq(spool_append(w, b.data, b.len), RS_OK);
	t = fx_tail(&fx_key);
	ck_assert_uint_eq(t.count, 2);
	ck_assert(!t.torn);
	spool_writer_free(w);
	buf_done(&b);
}
END_TEST

START_TEST(of_several_frames_no_reader_sees_some_that_are_cut_off_again)
{
	struct spool_writer *w = fx_create(&fx_key);
	uint64_t end = spool_writer_end(w);
	struct stat st;
	struct buf b;

	buf_init(&b, 1 << 16);
	fx_frame(&b, 0, 3000);
	fx_frame(&b, 1, 3000);
	no_space = true;
	ck_assert_int_eq(spool_append(w, b.data, b.len), RS_ENOSPC);
	ck_assert_int_eq(stat(fx_path(&fx_key), &st), 0);
	ck_assert_uint_eq((uint64_t)st.st_size, end);
	no_space = false;
	ck_assert_int_eq(spool_append(w, b.data, b.len), RS_OK);
	ck_assert_int_eq(stat(fx_path(&fx_key), &st), 0);
	ck_assert_uint_eq((uint64_t)st.st_size, end + b.len);
	spool_writer_free(w);
	buf_done(&b);
}
END_TEST

START_TEST(a_stream_that_cannot_be_made_leaves_nothing)
{
	struct stream_head h = fx_head();
	struct spool_writer *w = NULL;
	enum rs_err err;

	no_tmpfile = _i % 2;
	limit_files(_i / 2 * 10);
	err = spool_create(fx_sp, &fx_key, &h, &w);
	limit_files(RLIM_INFINITY);
	ck_assert_int_eq(err, RS_ENOSPC);
	ck_assert_ptr_null(w);
	ck_assert_uint_eq(count_files(&fx_key), 0);
	spool_writer_free(fx_create(&fx_key));
}
END_TEST

START_TEST(after_a_failed_cut_nothing_is_appended)
{
	/* The file is a device that is always full and cannot be cut. */
	struct spool_writer *w = fx_create(&fx_key);
	struct buf b;
	int full, fd;

	if ((full = open("/dev/full", O_RDWR)) < 0)
		return;
	for (fd = 3; fd < 64; fd++) {
		struct stat st, own;

		ck_assert_int_eq(stat(fx_path(&fx_key), &own), 0);
		if (fstat(fd, &st) == 0 && st.st_ino == own.st_ino &&
		    st.st_dev == own.st_dev)
			break;
	}
	ck_assert_int_eq(dup2(full, fd), fd);
	buf_init(&b, 4096);
	fx_frame(&b, 0, 0);
	ck_assert_int_eq(spool_append(w, b.data, b.len), RS_ENOSPC);
	ck_assert_int_eq(spool_append(w, b.data, b.len), RS_EIO);
	spool_writer_free(w);
	close(full);
	buf_done(&b);
}
END_TEST

/* ---- expired names ---- */

static const struct {
	const char *what;
	bool ended, tombstone, headless;
	int64_t age_s;
	enum rs_err want;
} old[] = {
	{ "ended, old", true, false, false, TTL_S + 2, RS_OK },
	{ "ended, young", true, false, false, TTL_S - 2, RS_EEXIST },
	{ "live, old", false, false, false, TTL_S + 2, RS_EEXIST },
	{ "tombstone, old", false, true, false, TTL_S + 2, RS_OK },
	{ "tombstone, young", false, true, false, TTL_S - 2, RS_EEXIST },
	{ "no head, old", false, false, true, TTL_S + 2, RS_OK },
	{ "no head, young", false, false, true, 0, RS_EEXIST },
};

static void
write_old(int i)
{
	struct buf b;
	size_t head, one = 0;

	fx_stream(&b, &one, 1, &head);
	if (old[i].ended)
		fx_done(&b, 1);
	if (old[i].headless)
		memset(b.data, 0, b.len);
	fx_write(&fx_key, b.data, old[i].tombstone ? 0 : b.len);
	fx_age(fx_path(&fx_key), old[i].age_s);
	buf_done(&b);
}

START_TEST(only_what_is_expired_makes_room)
{
	struct stream_head h = fx_head();
	struct spool_writer *w = NULL;

	write_old(_i);
	ck_assert_msg(spool_create(fx_sp, &fx_key, &h, &w) == old[_i].want,
	    "%s", old[_i].what);
	spool_writer_free(w);
	ck_assert_uint_eq(count_files(&fx_key), 1);
}
END_TEST

START_TEST(what_is_locked_makes_no_room)
{
	struct stream_head h = fx_head();
	struct spool_writer *w = NULL;
	int fd;

	write_old(_i);
	fd = open(fx_path(&fx_key), O_RDWR);
	ck_assert_int_eq(fd_lock(fd), RS_OK);
	ck_assert_int_eq(spool_create(fx_sp, &fx_key, &h, &w), RS_EEXIST);
	close(fd);
}
END_TEST

/* ---- links and other things ---- */

START_TEST(links_are_not_followed)
{
	struct stream_head h = fx_head();
	struct spool_writer *w = NULL;
	struct spool_reader r;
	char dir[4200];

	ck_assert_int_eq(mkdir(strcat(strcpy(dir, fx_dir), "/elsewhere"),
	    0700), 0);
	snprintf(dir, sizeof dir, "%s", fx_path(&fx_key));
	*strrchr(dir, '/') = '\0';
	ck_assert_int_eq(symlink("../elsewhere", dir), 0);
	ck_assert_int_eq(spool_create(fx_sp, &fx_key, &h, &w), RS_ECORRUPT);
	ck_assert_int_eq(spool_find(fx_sp, &fx_key, &r), RS_ECORRUPT);
	ck_assert_int_ne(spool_delete(fx_sp, &fx_key), RS_OK);
	ck_assert_int_eq(unlink(dir), 0);

	spool_writer_free(fx_create(&fx_key));
	ck_assert_int_eq(rename(fx_path(&fx_key), strcat(strcpy(dir, fx_dir),
	    "/real")), 0);
	ck_assert_int_eq(symlink("../../real", fx_path(&fx_key)), 0);
	ck_assert_int_eq(spool_find(fx_sp, &fx_key, &r), RS_ECORRUPT);
	ck_assert_int_eq(spool_create(fx_sp, &fx_key, &h, &w), RS_EEXIST);
	ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_ECORRUPT);
	ck_assert_int_eq(spool_delete(fx_sp, &fx_key), RS_ECORRUPT);
	fx_age(fx_path(&fx_key), TTL_S + 9);
	ck_assert_int_eq(spool_create(fx_sp, &fx_key, &h, &w), RS_EEXIST);
}
END_TEST

START_TEST(a_fifo_in_a_streams_place_stops_nobody)
{
	struct stream_head h = fx_head();
	struct spool_writer *w = NULL;
	struct spool_reader r;

	fx_write(&fx_key, "", 0);
	ck_assert_int_eq(unlink(fx_path(&fx_key)), 0);
	ck_assert_int_eq(mkfifo(fx_path(&fx_key), 0600), 0);
	ck_assert_int_eq(spool_find(fx_sp, &fx_key, &r), RS_ECORRUPT);
	ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_ECORRUPT);
	ck_assert_int_eq(spool_create(fx_sp, &fx_key, &h, &w), RS_EEXIST);
}
END_TEST

START_TEST(a_file_of_somebody_else_is_not_ours)
{
	struct spool_reader r;

	spool_writer_free(fx_create(&fx_key));
	if (geteuid() != 0)
		return;
	ck_assert_int_eq(chown(fx_path(&fx_key), 65534, 65534), 0);
	ck_assert_int_eq(spool_find(fx_sp, &fx_key, &r), RS_ECORRUPT);
	ck_assert_int_eq(spool_seal(fx_sp, &fx_key), RS_ECORRUPT);
}
END_TEST

#define ROWS(a) (int)(sizeof(a) / sizeof *(a))

int
main(void)
{
	Suite *s = suite_create("spool_file");
	TCase *tc = tcase_create("core");

	tcase_add_checked_fixture(tc, fx_setup, fx_teardown);
	tcase_add_loop_test(tc,
	    a_stream_has_its_whole_head_and_its_lock_from_the_first, 0, 3);
	tcase_add_loop_test(tc, a_name_is_given_once, 0, 3);
	tcase_add_test(tc, readers_see_what_was_appended);
	tcase_add_loop_test(tc, of_creators_at_once_exactly_one_wins, 0, 2);
	tcase_add_loop_test(tc, an_append_that_does_not_fit_is_cut_back, 0,
	    200);
	tcase_add_test(tc,
	    of_several_frames_no_reader_sees_some_that_are_cut_off_again);
	tcase_add_loop_test(tc, a_stream_that_cannot_be_made_leaves_nothing,
	    0, 4);
	tcase_add_test(tc, after_a_failed_cut_nothing_is_appended);
	tcase_add_loop_test(tc, only_what_is_expired_makes_room, 0, ROWS(old));
	tcase_add_loop_test(tc, what_is_locked_makes_no_room, 0, ROWS(old));
	tcase_add_test(tc, links_are_not_followed);
	tcase_add_test(tc, a_fifo_in_a_streams_place_stops_nobody);
	tcase_add_test(tc, a_file_of_somebody_else_is_not_ours);
	suite_add_tcase(s, tc);
	return fx_run(s);
}
