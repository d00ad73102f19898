/* check_follow.c - the responder's loop, between a web server and a spooler
 * that the test plays both.  The clock stands still unless a test moves it. */
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <fcgiapp.h>
#include <poll.h>
#include <pthread.h>

#include "fcgi_peer.h"
#include "follow.h"
#include "log.h"
#include "spool_fixture.h"
#include "wake.h"

#define WRITER "s-0123456789abcdef.sock" /* as in fx_head */
#define SUCCESSOR "s-00000000000000bb.sock"
#define WAIT_MS 20000 /* much more than anything here takes */
#define KEEPALIVE_S 15

static struct models_file *models;
static struct wake_client *wake;
static struct follow_loop *loop;
static pthread_t loop_thread;
static bool loop_runs;
static uint64_t mono_ns;
static int writer_fd, conn;	/* the playing spooler's */
static struct spool_writer *writer;
static struct buf sent;		/* frames appended so far */
static uint64_t next_id, told_sub;

/* ---- the spooler's part ---- */

static int
listen_at(const char *name)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(sun.sun_path, name);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sun, sizeof sun), 0);
	ck_assert_int_eq(listen(fd, 5), 0);
	return fd;
}

static int
accept_at(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	int got;

	ck_assert_int_eq(poll(&pfd, 1, WAIT_MS), 1);
	got = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(got, 0);
	return got;
}

/* The next message, which is of that kind. */
static union wake_msg
expect(int fd, enum wake_op op)
{
	static union wake_msg m;
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	size_t len;
	int passed;

	ck_assert_int_eq(poll(&pfd, 1, WAIT_MS), 1);
	ck_assert_int_eq(wake_recv(fd, &m, &len, &passed), RS_OK);
	ck_assert_int_eq(m.head.op, op);
	return m;
}

static void
answer(int fd, const union wake_msg *to, enum rs_err err)
{
	struct wake_answer a = {
		.head = { .op = WAKE_ANSWER, .tag = to->head.tag },
		.err = err, .version = WAKE_VERSION,
	};

	ck_assert_int_eq(wake_send(fd, &a, sizeof a, -1), RS_OK);
}

static void
tell(int fd, uint64_t sub, uint64_t end, enum wake_state state)
{
	struct {
		struct wake_head head;
		struct wake_moved moved;
	} m = {
		{ .op = WAKE_NOTIFY },
		{ .sub = sub, .end = end, .state = state },
	};
	struct pollfd pfd = { .fd = fd, .events = POLLOUT };
	enum rs_err err;

	while ((err = wake_send(fd, &m, sizeof m, -1)) == RS_EBUSY)
		ck_assert_int_eq(poll(&pfd, 1, WAIT_MS), 1);
	ck_assert_int_eq(err, RS_OK);
}

/* A follower of key has nothing more to read and asks its spooler. */
static void
expect_subscriber(const struct stream_key *key)
{
	union wake_msg m;

	if (conn < 0) {
		conn = accept_at(writer_fd);
		m = expect(conn, WAKE_HELLO);
		ck_assert_uint_eq(m.hello.version, WAKE_VERSION);
		answer(conn, &m, RS_OK);
	}
	m = expect(conn, WAKE_SUBSCRIBE);
	ck_assert_str_eq(m.sub.key.id, key->id);
	ck_assert_str_eq(m.sub.key.owner_hash, key->owner_hash);
	ck_assert_uint_ne(m.sub.sub, told_sub);
	told_sub = m.sub.sub;
}

static void
tell_end(void)
{
	tell(conn, told_sub, spool_writer_end(writer), WAKE_LIVE);
}

static int
listen_as_successor(void)
{
	ck_assert_int_eq(symlinkat(SUCCESSOR, fx_sp->fd, "current"), 0);
	return listen_at(SUCCESSOR);
}

static void
die(void)
{
	close(conn);
	close(writer_fd);
	conn = writer_fd = -1;
}

/* ---- the writer's part ---- */

static void
append_bytes(size_t from)
{
	ck_assert_int_eq(sent.err, RS_OK);
	ck_assert_int_eq(spool_append(writer, sent.data + from,
	    sent.len - from), RS_OK);
}

static void
append(size_t size)
{
	size_t from = sent.len;

	fx_frame(&sent, next_id++, size);
	append_bytes(from);
}

static void
append_done(void)
{
	size_t from = sent.len;

	fx_done(&sent, next_id++);
	append_bytes(from);
}

/* What a dead writer leaves, or worse. */
static void
append_raw(const char *p, size_t n)
{
	int fd = open(fx_path(&fx_key), O_WRONLY | O_APPEND);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fd_write_full(fd, p, n), RS_OK);
	close(fd);
}

/* Answers the one SEAL that the loop asks the current spooler for. */
static void
answer_seal(int fd, bool seal, enum rs_err err)
{
	int c = accept_at(fd);
	union wake_msg m = expect(c, WAKE_HELLO);

	answer(c, &m, RS_OK);
	m = expect(c, WAKE_SEAL);
	ck_assert_str_eq(m.key.key.id, fx_key.id);
	if (seal)
		append_done();
	answer(c, &m, err);
	close(c);
}

/* ---- the web server's part ---- */

static struct client *
request(struct fcgi_peer *p)
{
	static const char *const vars[] = { "REQUEST_METHOD", "GET", NULL };
	struct client *c;
	int fd;

	fcgi_peer_init(p, &fd);
	fcgi_peer_begin(p, 0, vars);
	fcgi_peer_body(p, "", 0, 1);
	ck_assert_int_eq(client_fcgi(fd, &c), RS_OK);
	return c;
}

static void
follow_from(struct fcgi_peer *p, const struct stream_key *key, uint64_t off,
    uint64_t id)
{
	struct client *c = request(p);
	struct spool_reader r;

	ck_assert_int_eq(spool_find(fx_sp, key, &r), RS_OK);
	follow_add(loop, c, &r, key, r.head_size + off, id);
}

static void
follow(struct fcgi_peer *p)
{
	follow_from(p, &fx_key, 0, 0);
}

/* The same for one that wants one answer, with "H: x" in its head. */
static void
follow_whole(struct fcgi_peer *p)
{
	struct client *c = request(p);
	struct spool_reader r;
	struct buf head;

	buf_init(&head, 100);
	buf_puts(&head, "H: x\r\n\r\n");
	ck_assert_int_eq(spool_find(fx_sp, &fx_key, &r), RS_OK);
	follow_add_whole(loop, c, &r, &fx_key, r.head_size, &head);
	buf_done(&head);
}

/* The response so far, however it comes. */
static void
expect_text(struct fcgi_peer *p, const char *want)
{
	while (p->out.len < strlen(want))
		ck_assert(fcgi_peer_read(p, WAIT_MS));
	ck_assert_str_eq(p->out.data, want);
}

/* All that was appended from there on has arrived, and nothing else. */
static void
expect_from(struct fcgi_peer *p, size_t from)
{
	while (p->out.len < sent.len - from)
		ck_assert(fcgi_peer_read(p, WAIT_MS));
	ck_assert_uint_eq(p->out.len, sent.len - from);
	ck_assert(p->out.len == 0 ||
	    memcmp(p->out.data, sent.data + from, p->out.len) == 0);
}

static void
expect_sent(struct fcgi_peer *p)
{
	expect_from(p, 0);
}

/* That, and the end of the response. */
static void
expect_ended(struct fcgi_peer *p)
{
	fcgi_peer_read_all(p);
	ck_assert(p->ended);
	expect_sent(p);
}

/* That, and the end that tells the client to come back. */
static void
expect_left(struct fcgi_peer *p)
{
	unsigned ms;
	int n = 0;

	fcgi_peer_read_all(p);
	ck_assert(p->ended);
	ck_assert_uint_gt(p->out.len, sent.len);
	ck_assert(sent.len == 0 ||
	    memcmp(p->out.data, sent.data, sent.len) == 0);
	ck_assert_int_eq(sscanf(p->out.data + sent.len, "retry: %u\n\n%n",
	    &ms, &n), 1);
	ck_assert_uint_eq(p->out.len, sent.len + (size_t)n);
	ck_assert(ms >= 200 && ms <= 1000);
}

/* Returns after the loop has done all that it had reason to do before: it
 * serves a new follower from the first to the last, twice. */
static void
barrier(void)
{
	static unsigned count;
	struct spool_writer *w;
	struct stream_key key;
	struct fcgi_peer p;
	struct buf b;
	char id[32];
	int i;

	snprintf(id, sizeof id, "barrier%u", count++);
	stream_key(&key, "alice", id);
	buf_init(&b, 4096);
	fx_done(&b, 0);
	w = fx_create(&key);
	ck_assert_int_eq(spool_append(w, b.data, b.len), RS_OK);
	spool_writer_free(w);
	for (i = 0; i < 2; i++) {
		follow_from(&p, &key, 0, 0);
		fcgi_peer_read_all(&p);
		ck_assert_uint_eq(p.out.len, b.len);
		fcgi_peer_done(&p);
	}
	buf_done(&b);
}

static void
pass_seconds(uint64_t s)
{
	mono_ns += s * NS_PER_S;
	clock_freeze(mono_ns, fx_now_ms);
	barrier();
}

/* ---- the fixture ---- */

static void *
loop_main(void *arg)
{
	follow_loop_run(arg, false);
	return NULL;
}

static void
loop_join(void)
{
	if (loop_runs)
		pthread_join(loop_thread, NULL);
	loop_runs = false;
}

static void
setup(void)
{
	struct buf why;

	setenv("LIBFCGI_OS_CLOSE_POLL_TIMEOUT", "0", 1);
	ck_assert_int_eq(FCGX_Init(), 0);
	signal(SIGPIPE, SIG_IGN);
	log_open(LOGL_ERROR, "/dev/null");
	fx_setup();
	mono_ns = 1000 * NS_PER_S;
	clock_freeze(mono_ns, fx_now_ms);
	fx_conf.keepalive = KEEPALIVE_S;
	fx_conf.max_connection = 0;
	fx_conf.spooler_program = (char *)"/nonexistent";
	ck_assert_int_eq(fchdir(fx_sp->fd), 0);
	buf_init(&why, 4096);
	ck_assert_int_eq(models_file_open("", &models, &why), RS_OK);
	buf_done(&why);
	ck_assert_int_eq(wake_client_new(&fx_conf, fx_sp, models, true, &wake),
	    RS_OK);
	ck_assert_int_eq(follow_loop_new(&fx_conf, wake, &loop), RS_OK);
	ck_assert_int_eq(pthread_create(&loop_thread, NULL, loop_main, loop),
	    0);
	loop_runs = true;
	writer_fd = listen_at(WRITER);
	conn = -1;
	writer = fx_create(&fx_key);
	buf_init(&sent, 1 << 26);
	next_id = told_sub = 0;
}

static void
teardown(void)
{
	follow_stop(loop);
	loop_join();
	follow_loop_free(loop);
	wake_client_free(wake);
	models_file_free(models);
	spool_writer_free(writer);
	buf_done(&sent);
	if (conn >= 0)
		close(conn);
	if (writer_fd >= 0)
		close(writer_fd);
	ck_assert_int_eq(chdir("/"), 0);
	fx_teardown();
}

/* ---- frames ---- */

START_TEST(each_frame_arrives_when_it_is_told_of)
{
	struct fcgi_peer p;
	int i;

	follow(&p);
	expect_subscriber(&fx_key);
	tell_end();
	for (i = 0; i < 20; i++) {
		append(100 + (size_t)i * 800);
		tell_end();
		expect_sent(&p);
	}
	append_done();
	tell(conn, told_sub, spool_writer_end(writer), WAKE_ENDED);
	expect_ended(&p);
	fcgi_peer_done(&p);
}
END_TEST

START_TEST(what_grew_before_the_subscription_was_answered_arrives)
{
	struct fcgi_peer p;

	follow(&p);
	expect_subscriber(&fx_key);
	append(100);
	tell_end();
	expect_sent(&p);
	fcgi_peer_done(&p);
}
END_TEST

START_TEST(an_ended_stream_is_replayed_without_a_spooler)
{
	struct fcgi_peer p;
	int i;

	close(writer_fd);
	writer_fd = -1;
	for (i = 0; i < 3000; i++)
		append(100 + (size_t)i % 300);
	append_done();
	follow(&p);
	expect_ended(&p);
	fcgi_peer_done(&p);
}
END_TEST

/* _i is how many frames the reader has seen. */
START_TEST(a_reader_goes_on_after_each_frame)
{
	struct fcgi_peer p;
	size_t off = 0;
	int i;

	for (i = 0; i < 5; i++) {
		if (i == _i)
			off = sent.len;
		append(200);
	}
	follow_from(&p, &fx_key, off, (uint64_t)_i);
	expect_from(&p, off);
	expect_subscriber(&fx_key);
	append_done();
	tell(conn, told_sub, spool_writer_end(writer), WAKE_ENDED);
	fcgi_peer_read_all(&p);
	ck_assert(p.ended);
	expect_from(&p, off);
	fcgi_peer_done(&p);
}
END_TEST

/* Every cut of a frame. */
START_TEST(a_torn_frame_is_not_sent)
{
	struct fcgi_peer p;
	struct buf b;
	size_t i;

	append(100);
	follow(&p);
	expect_subscriber(&fx_key);
	tell_end();
	expect_sent(&p);
	buf_init(&b, 4096);
	fx_frame(&b, next_id, 130);
	for (i = 0; i + 1 < b.len; i++) {
		append_raw(b.data + i, 1);
		tell(conn, told_sub, spool_writer_end(writer) + i + 1,
		    WAKE_LIVE);
		/* A barrier for each would take its time. */
		if (i % 10 == 0 || i + 2 == b.len) {
			barrier();
			while (fcgi_peer_read(&p, 0))
				continue;
			expect_sent(&p);
		}
	}
	append_raw(b.data + i, 1);
	buf_add(&sent, b.data, b.len);
	tell(conn, told_sub, spool_writer_end(writer) + b.len, WAKE_LIVE);
	expect_sent(&p);
	buf_done(&b);
	fcgi_peer_done(&p);
}
END_TEST

START_TEST(a_reader_that_stops_reading_delays_nobody_and_gets_every_byte)
{
	struct fcgi_peer slow, p;
	uint64_t slow_sub;
	int i;

	follow(&slow);
	expect_subscriber(&fx_key);
	slow_sub = told_sub;
	tell_end();
	follow(&p);
	expect_subscriber(&fx_key);
	tell_end();
	for (i = 0; i < 300; i++) {
		append(10000);
		tell(conn, slow_sub, spool_writer_end(writer), WAKE_LIVE);
		tell_end();
		expect_sent(&p);
	}
	append_done();
	tell(conn, slow_sub, spool_writer_end(writer), WAKE_ENDED);
	tell(conn, told_sub, spool_writer_end(writer), WAKE_ENDED);
	expect_ended(&p);
	expect_ended(&slow);
	fcgi_peer_done(&p);
	fcgi_peer_done(&slow);
}
END_TEST

START_TEST(a_client_that_left_is_unsubscribed)
{
	struct fcgi_peer p;

	follow(&p);
	expect_subscriber(&fx_key);
	tell_end();
	fcgi_peer_done(&p);
	ck_assert_uint_eq(expect(conn, WAKE_UNSUBSCRIBE).sub.sub, told_sub);
}
END_TEST

START_TEST(a_word_about_nobody_is_answered_with_unsubscribe)
{
	struct fcgi_peer p;

	follow(&p);
	expect_subscriber(&fx_key);
	tell(conn, told_sub + 1, 5000, WAKE_LIVE);
	ck_assert_uint_eq(expect(conn, WAKE_UNSUBSCRIBE).sub.sub,
	    told_sub + 1);
	tell(conn, told_sub + 1, 5000, WAKE_ENDED);
	tell(conn, 0, 5000, WAKE_LIVE);
	ck_assert_uint_eq(expect(conn, WAKE_UNSUBSCRIBE).sub.sub, 0);
	fcgi_peer_done(&p);
}
END_TEST

/* More subscriptions than the connection holds while the spooler is busy. */
START_TEST(subscriptions_that_do_not_fit_are_sent_later)
{
	enum { N = 600 };
	static struct fcgi_peer p[N];
	static uint64_t subs[N];
	struct rlimit rl;
	int i;

	getrlimit(RLIMIT_NOFILE, &rl);
	rl.rlim_cur = rl.rlim_max;
	setrlimit(RLIMIT_NOFILE, &rl);
	if (rl.rlim_cur < 4 * N)
		return;
	for (i = 0; i < N; i++)
		follow(&p[i]);
	barrier();
	for (i = 0; i < N; i++) {
		expect_subscriber(&fx_key);
		subs[i] = told_sub;
	}
	append_done();
	for (i = 0; i < N; i++)
		tell(conn, subs[i], spool_writer_end(writer), WAKE_ENDED);
	for (i = 0; i < N; i++) {
		expect_ended(&p[i]);
		fcgi_peer_done(&p[i]);
	}
}
END_TEST

/* ---- the writer's end ---- */

START_TEST(a_dead_writers_stream_is_sealed_once_for_all_its_readers)
{
	struct pollfd pfd = { .events = POLLIN };
	struct fcgi_peer p[3];
	int i;

	append(100);
	for (i = 0; i < 3; i++) {
		follow(&p[i]);
		expect_subscriber(&fx_key);
		tell_end();
		expect_sent(&p[i]);
	}
	pfd.fd = listen_as_successor();
	die();
	/* So that all three wait for the first one's answer. */
	ck_assert_int_eq(poll(&pfd, 1, WAIT_MS), 1);
	barrier();
	answer_seal(pfd.fd, true, RS_OK);
	for (i = 0; i < 3; i++) {
		expect_ended(&p[i]);
		fcgi_peer_done(&p[i]);
	}
	ck_assert_int_eq(poll(&pfd, 1, 0), 0);
	close(pfd.fd);
}
END_TEST

START_TEST(a_writer_that_ended_the_stream_before_it_died_needs_no_seal)
{
	struct fcgi_peer p;

	append(100);
	follow(&p);
	expect_subscriber(&fx_key);
	tell_end();
	expect_sent(&p);
	append_done();
	die();
	expect_ended(&p);
	fcgi_peer_done(&p);
}
END_TEST

START_TEST(a_writer_that_is_gone_already_is_sealed)
{
	int fd = listen_as_successor();
	struct fcgi_peer p;

	append(100);
	die();
	follow(&p);
	expect_sent(&p);
	answer_seal(fd, true, RS_OK);
	expect_ended(&p);
	fcgi_peer_done(&p);
	close(fd);
}
END_TEST

START_TEST(a_stream_that_its_spooler_does_not_write_is_sealed)
{
	int fd = listen_as_successor();
	struct fcgi_peer p;

	append(100);
	follow(&p);
	expect_subscriber(&fx_key);
	append(100);
	tell(conn, told_sub, 0, WAKE_UNKNOWN);
	expect_sent(&p);
	answer_seal(fd, true, RS_OK);
	expect_ended(&p);
	fcgi_peer_done(&p);
	close(fd);
}
END_TEST

START_TEST(a_spooler_of_another_version_is_as_good_as_dead)
{
	int fd = listen_as_successor();
	struct fcgi_peer p;
	union wake_msg m;

	follow(&p);
	conn = accept_at(writer_fd);
	m = expect(conn, WAKE_HELLO);
	answer(conn, &m, RS_EPROTO);
	answer_seal(fd, true, RS_OK);
	expect_ended(&p);
	fcgi_peer_done(&p);
	close(fd);
}
END_TEST

static const struct {
	const char *what, *bytes;
} bad_bytes[] = {
	{ "a gap", "event: message_chunk\nid: 7\nretry: 10000\ndata: {}\n\n" },
	{ "a repeat", "event: message_chunk\nid: 0\nretry: 10000\n"
	    "data: {}\n\n" },
	{ "no frame", "hello\n\n" },
	{ "a CR", "event: message_chunk\r\nid: 1\n" },
};

START_TEST(bytes_that_are_no_frame_are_not_sent_but_sealed)
{
	int fd = listen_as_successor();
	struct fcgi_peer p;
	uint64_t end;
	size_t from;

	append(100);
	end = spool_writer_end(writer);
	follow(&p);
	expect_subscriber(&fx_key);
	append_raw(bad_bytes[_i].bytes, strlen(bad_bytes[_i].bytes));
	tell(conn, told_sub, end + 10, WAKE_LIVE);
	ck_assert_uint_eq(expect(conn, WAKE_UNSUBSCRIBE).sub.sub, told_sub);
	ck_assert_int_eq(truncate(fx_path(&fx_key), (off_t)end), 0);
	from = sent.len;
	fx_done(&sent, next_id);
	append_raw(sent.data + from, sent.len - from);
	answer_seal(fd, false, RS_OK);
	expect_ended(&p);
	fcgi_peer_done(&p);
	close(fd);
}
END_TEST

static const enum rs_err refusals[] = {
	RS_EBUSY, RS_EFOREIGN, RS_ENOENT, RS_ENOSPC, RS_OK,
};

/* The last one said that it did, but did not. */
START_TEST(a_client_is_sent_away_on_a_boundary_when_seal_is_refused)
{
	int fd = listen_as_successor();
	struct fcgi_peer p;

	append(100);
	append_raw("event: message_chunk\nid: 1\nret", 30);
	die();
	follow(&p);
	answer_seal(fd, false, refusals[_i]);
	expect_left(&p);
	fcgi_peer_done(&p);
	close(fd);
}
END_TEST

START_TEST(a_client_is_sent_away_when_no_spooler_can_be_started)
{
	struct fcgi_peer p;

	append(100);
	die();
	follow(&p);
	expect_left(&p);
	fcgi_peer_done(&p);
}
END_TEST

START_TEST(a_spooler_that_does_not_answer_a_subscription_is_given_up)
{
	int fd = listen_as_successor();
	struct fcgi_peer p;

	append(100);
	follow(&p);
	expect_sent(&p);
	expect_subscriber(&fx_key);
	pass_seconds(1);
	tell(conn, told_sub + 1, 1, WAKE_LIVE); /* still connected */
	expect(conn, WAKE_UNSUBSCRIBE);
	pass_seconds(1);
	answer_seal(fd, false, RS_EBUSY);
	expect_left(&p);
	fcgi_peer_done(&p);
	close(fd);
}
END_TEST

START_TEST(a_silent_spooler_is_pinged_and_given_up_when_it_is_silent_still)
{
	int fd = listen_as_successor();
	struct fcgi_peer p;
	union wake_msg m;

	follow(&p);
	expect_subscriber(&fx_key);
	tell_end();
	barrier();
	pass_seconds(KEEPALIVE_S);
	m = expect(conn, WAKE_PING);
	answer(conn, &m, RS_OK);
	barrier();
	pass_seconds(KEEPALIVE_S);
	expect(conn, WAKE_PING);
	pass_seconds(2);
	answer_seal(fd, false, RS_EBUSY);
	buf_puts(&sent, ": keep-alive\n\n: keep-alive\n\n");
	expect_left(&p);
	fcgi_peer_done(&p);
	close(fd);
}
END_TEST

/* ---- time ---- */

START_TEST(a_silent_response_gets_a_comment)
{
	struct fcgi_peer p;
	union wake_msg m;

	append(100);
	follow(&p);
	expect_subscriber(&fx_key);
	tell_end();
	expect_sent(&p);
	barrier();
	pass_seconds(KEEPALIVE_S - 1);
	ck_assert(!fcgi_peer_read(&p, 0));
	pass_seconds(1);
	buf_puts(&sent, ": keep-alive\n\n");
	expect_sent(&p);
	m = expect(conn, WAKE_PING);
	answer(conn, &m, RS_OK);
	pass_seconds(KEEPALIVE_S - 1);
	ck_assert(!fcgi_peer_read(&p, 0));
	fcgi_peer_done(&p);
}
END_TEST

START_TEST(a_lost_wake_up_is_made_good_at_the_keep_alive)
{
	struct fcgi_peer p;

	append(100);
	follow(&p);
	expect_subscriber(&fx_key);
	tell_end();
	expect_sent(&p);
	append(100);
	pass_seconds(KEEPALIVE_S);
	expect_sent(&p);
	fcgi_peer_done(&p);
}
END_TEST

START_TEST(a_response_ends_on_a_boundary_after_max_connection)
{
	struct fcgi_peer p;

	fx_conf.max_connection = 10;
	append(100);
	follow(&p);
	expect_subscriber(&fx_key);
	tell_end();
	pass_seconds(9);
	append(100);
	tell_end();
	expect_sent(&p);
	append_raw("event: mess", 11);
	pass_seconds(1);
	expect_left(&p);
	fcgi_peer_done(&p);
}
END_TEST

START_TEST(who_is_told_to_make_room_leaves_on_a_boundary)
{
	struct fcgi_peer p;

	append(100);
	follow(&p);
	expect_subscriber(&fx_key);
	tell_end();
	expect_sent(&p);
	append_raw("event: mess", 11);
	tell(conn, told_sub, spool_writer_end(writer), WAKE_LEAVE);
	expect_left(&p);
	fcgi_peer_done(&p);
}
END_TEST

START_TEST(with_flush_by_close_a_response_ends_at_the_first_pause)
{
	struct fcgi_peer p;

	fx_conf.flush = true;
	append(100);
	append_raw("event: mess", 11);
	follow(&p);
	expect_left(&p); /* it has not even asked */
	fcgi_peer_done(&p);
}
END_TEST

START_TEST(with_flush_by_close_a_response_waits_for_its_first_frame)
{
	struct fcgi_peer p;

	fx_conf.flush = true;
	follow(&p);
	expect_subscriber(&fx_key);
	tell_end();
	pass_seconds(KEEPALIVE_S - 1);
	ck_assert(!fcgi_peer_read(&p, 0));
	append(100);
	tell_end();
	expect_left(&p);
	fcgi_peer_done(&p);
}
END_TEST

START_TEST(a_stopped_loop_ends_its_responses_on_a_boundary)
{
	struct fcgi_peer p, late;

	append(100);
	append_raw("event: mess", 11);
	follow(&p);
	expect_subscriber(&fx_key);
	tell_end();
	expect_sent(&p);
	follow_stop(loop);
	loop_join();
	expect_left(&p);
	fcgi_peer_done(&p);
	/* One that comes too late is cut, and nothing is left of it. */
	follow(&late);
	follow_loop_free(loop);
	loop = NULL;
	fcgi_peer_read_all(&late);
	ck_assert(!late.ended);
	fcgi_peer_done(&late);
	ck_assert_int_eq(follow_loop_new(&fx_conf, wake, &loop), RS_OK);
}
END_TEST

START_TEST(a_client_that_reads_nothing_does_not_hold_a_stopped_loop)
{
	struct fcgi_peer p;
	struct timespec soon;
	int i;

	for (i = 0; i < 100; i++)
		append(16000);
	follow(&p);
	barrier();
	follow_stop(loop);
	/* Time passes, whenever it is that the loop learns that it should
	 * stop. */
	do {
		mono_ns += NS_PER_S / 2;
		clock_freeze(mono_ns, fx_now_ms);
		clock_gettime(CLOCK_REALTIME, &soon);
		soon.tv_nsec = (soon.tv_nsec + 50000000) % 1000000000;
	} while (pthread_timedjoin_np(loop_thread, NULL, &soon) != 0);
	loop_runs = false;
	fcgi_peer_read_all(&p);
	ck_assert(!p.ended);
	fcgi_peer_done(&p);
}
END_TEST

/* ---- one answer ---- */

START_TEST(one_answer_comes_when_the_stream_has_ended)
{
	struct fcgi_peer p;

	append(100);
	follow_whole(&p);
	expect_subscriber(&fx_key);
	tell_end();
	append(0);
	tell_end();
	barrier();
	ck_assert(!fcgi_peer_read(&p, 0));
	append_done();
	tell(conn, told_sub, spool_writer_end(writer), WAKE_ENDED);
	fcgi_peer_read_all(&p);
	ck_assert(p.ended);
	ck_assert_ptr_nonnull(strstr(p.out.data, "\r\n\r\n{\"content\":\"xx"));
	ck_assert_int_eq(strncmp(p.out.data, "Status: 200 OK\r\nH: x\r\n", 22),
	    0);
	ck_assert_ptr_nonnull(strstr(p.out.data,
	    "x\",\"finish_reason\":\"stop\"}"));
	fcgi_peer_done(&p);
}
END_TEST

/* More than a client takes at once, from a stream that has ended. */
START_TEST(a_long_answer_comes_whole)
{
	struct fcgi_peer p;
	size_t i, x = 0;

	for (i = 0; i < 200; i++)
		append(16000);
	append_done();
	follow_whole(&p);
	fcgi_peer_read_all(&p);
	ck_assert(p.ended);
	for (i = 0; i < p.out.len; i++)
		x += p.out.data[i] == 'x';
	for (i = 0; i < sent.len; i++)
		x -= sent.data[i] == 'x';
	ck_assert_uint_eq(x, 1); /* the head's */
	fcgi_peer_done(&p);
}
END_TEST

START_TEST(a_failure_is_a_502_unless_white_space_has_gone_out)
{
	static const char error[] = "event: error\nid: 0\nretry: 10000\n"
	    "data: {\"error\":\"E\",\"error_type\":\"overloaded\","
	    "\"retryable\":true,\"partial\":true}\n\n";
	struct fcgi_peer p;
	union wake_msg m;

	follow_whole(&p);
	expect_subscriber(&fx_key);
	tell_end();
	barrier();
	if (_i == 1) {
		pass_seconds(KEEPALIVE_S);
		m = expect(conn, WAKE_PING);
		answer(conn, &m, RS_OK);
		expect_text(&p, "Status: 200 OK\r\nH: x\r\n\r\n ");
	}
	ck_assert_int_eq(spool_append(writer, error, sizeof error - 1),
	    RS_OK);
	tell(conn, told_sub, spool_writer_end(writer), WAKE_ENDED);
	fcgi_peer_read_all(&p);
	ck_assert(p.ended);
	ck_assert_int_eq(strncmp(p.out.data, _i == 0 ?
	    "Status: 502 Bad Gateway\r\nH: x\r\n\r\n{" :
	    "Status: 200 OK\r\nH: x\r\n\r\n {", _i == 0 ? 34 : 26), 0);
	ck_assert_ptr_nonnull(strstr(p.out.data, "{\"content\":\"\","
	    "\"error\":\"E\",\"error_type\":\"overloaded\""));
	fcgi_peer_done(&p);
}
END_TEST

START_TEST(white_space_goes_out_also_while_frames_come)
{
	struct fcgi_peer p;

	follow_whole(&p);
	expect_subscriber(&fx_key);
	tell_end();
	barrier();
	append(100); /* and nobody has told of it yet */
	pass_seconds(KEEPALIVE_S);
	expect_text(&p, "Status: 200 OK\r\nH: x\r\n\r\n ");
	fcgi_peer_done(&p);
}
END_TEST

START_TEST(who_waits_for_one_answer_is_told_that_the_loop_stops)
{
	struct fcgi_peer p;

	append(100);
	follow_whole(&p);
	expect_subscriber(&fx_key);
	tell_end();
	barrier();
	follow_stop(loop);
	loop_join();
	fcgi_peer_read_all(&p);
	ck_assert(p.ended);
	ck_assert_int_eq(strncmp(p.out.data, "Status: 503 ", 12), 0);
	ck_assert_ptr_nonnull(strstr(p.out.data,
	    "\"error_type\":\"draining\"}"));
	fcgi_peer_done(&p);
}
END_TEST

START_TEST(a_loop_for_one_request_ends_with_it)
{
	struct follow_loop *saved = loop;
	struct fcgi_peer p;

	ck_assert_int_eq(follow_loop_new(&fx_conf, wake, &loop), RS_OK);
	follow_loop_run(loop, true);
	append_done();
	follow(&p);
	follow_loop_run(loop, true);
	expect_ended(&p);
	fcgi_peer_done(&p);
	follow_loop_free(loop);
	loop = saved;
}
END_TEST

static TCase *
new_case(Suite *s, const char *name)
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	return tc;
}

int
main(void)
{
	Suite *s = suite_create("follow");
	TCase *tc = new_case(s, "frames");

	tcase_add_test(tc, each_frame_arrives_when_it_is_told_of);
	tcase_add_test(tc,
	    what_grew_before_the_subscription_was_answered_arrives);
	tcase_add_test(tc, an_ended_stream_is_replayed_without_a_spooler);
	tcase_add_loop_test(tc, a_reader_goes_on_after_each_frame, 0, 5);
	tcase_add_test(tc, a_torn_frame_is_not_sent);
	tcase_add_test(tc,
	    a_reader_that_stops_reading_delays_nobody_and_gets_every_byte);
	tcase_add_test(tc, a_client_that_left_is_unsubscribed);
	tcase_add_test(tc, a_word_about_nobody_is_answered_with_unsubscribe);
	tcase_add_test(tc, subscriptions_that_do_not_fit_are_sent_later);
	tc = new_case(s, "writer");
	tcase_add_test(tc,
	    a_dead_writers_stream_is_sealed_once_for_all_its_readers);
	tcase_add_test(tc,
	    a_writer_that_ended_the_stream_before_it_died_needs_no_seal);
	tcase_add_test(tc, a_writer_that_is_gone_already_is_sealed);
	tcase_add_test(tc, a_stream_that_its_spooler_does_not_write_is_sealed);
	tcase_add_test(tc, a_spooler_of_another_version_is_as_good_as_dead);
	tcase_add_loop_test(tc,
	    bytes_that_are_no_frame_are_not_sent_but_sealed, 0,
	    sizeof bad_bytes / sizeof bad_bytes[0]);
	tcase_add_loop_test(tc,
	    a_client_is_sent_away_on_a_boundary_when_seal_is_refused, 0,
	    sizeof refusals / sizeof refusals[0]);
	tcase_add_test(tc,
	    a_client_is_sent_away_when_no_spooler_can_be_started);
	tcase_add_test(tc,
	    a_spooler_that_does_not_answer_a_subscription_is_given_up);
	tcase_add_test(tc,
	    a_silent_spooler_is_pinged_and_given_up_when_it_is_silent_still);
	tc = new_case(s, "time");
	tcase_add_test(tc, a_silent_response_gets_a_comment);
	tcase_add_test(tc, a_lost_wake_up_is_made_good_at_the_keep_alive);
	tcase_add_test(tc, a_response_ends_on_a_boundary_after_max_connection);
	tcase_add_test(tc, who_is_told_to_make_room_leaves_on_a_boundary);
	tcase_add_test(tc,
	    with_flush_by_close_a_response_ends_at_the_first_pause);
	tcase_add_test(tc,
	    with_flush_by_close_a_response_waits_for_its_first_frame);
	tcase_add_test(tc, a_stopped_loop_ends_its_responses_on_a_boundary);
	tcase_add_test(tc,
	    a_client_that_reads_nothing_does_not_hold_a_stopped_loop);
	tcase_add_test(tc, one_answer_comes_when_the_stream_has_ended);
	tcase_add_test(tc, a_long_answer_comes_whole);
	tcase_add_loop_test(tc,
	    a_failure_is_a_502_unless_white_space_has_gone_out, 0, 2);
	tcase_add_test(tc, white_space_goes_out_also_while_frames_come);
	tcase_add_test(tc,
	    who_waits_for_one_answer_is_told_that_the_loop_stops);
	tcase_add_test(tc, a_loop_for_one_request_ends_with_it);
	return fx_run(s);
}
