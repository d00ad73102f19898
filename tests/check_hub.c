/* check_hub.c - the spooler's side of the protocol: a hub in a child process,
 * asked by its parent. */
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <check.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "conv.h"
#include "fdio.h"
#include "hub.h"
#include "log.h"
#include "wake.h"

#define SOCKET "s-00000000000000aa.sock"
#define PROMPT \
	"{\"messages\":[{\"role\":\"user\",\"content\":\"one two%*s\"}]}"

static char dir[] = "/tmp/respool-check-hub-XXXXXX";
static struct conf *conf;
static struct spool *sp;
static pid_t hub_pid;
static int conn = -1;
static int blanks; /* at the end of a prompt */

/* A model that answers at once, and one that never ends. */
static const char models_json[] =
    "{\"default\":\"echo\",\"models\":{\"echo\":{\"provider\":\"demo\"},"
    "\"hangs\":{\"provider\":\"demo\",\"chunks\":9,\"hang_after\":1}}}";

static void
hub_child(int listen_fd, int lock_fd)
{
	struct models_file *models;
	struct hub *hub;
	struct buf why;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	log_open(LOGL_ERROR, "/dev/null");
	buf_init(&why, 4096);
	if (models_file_open(conf->models_file, &models, &why) != RS_OK ||
	    hub_new(conf, sp, models, SOCKET, listen_fd, lock_fd, &hub) !=
	    RS_OK)
		_exit(3);
	hub_run(hub, false);
	hub_free(hub);
	models_file_free(models);
	buf_done(&why);
	_exit(0);
}

static int
listen_here(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX, .sun_path = SOCKET };
	int fd = socket(AF_UNIX,
	    SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sun, sizeof sun), 0);
	ck_assert_int_eq(listen(fd, 100), 0);
	return fd;
}

static int
hello(uint32_t version)
{
	struct wake_hello m = {
		.head = { .op = WAKE_HELLO, .tag = 1 }, .version = version,
	};
	int fd;

	ck_assert_int_eq(wake_connect(SOCKET, &fd), RS_OK);
	ck_assert_int_eq(wake_send(fd, &m, sizeof m, -1), RS_OK);
	return fd;
}

/* The next message of that kind, within 10 s. */
static union wake_msg
expect(int fd, enum wake_op op)
{
	static union wake_msg m;
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	enum rs_err err;
	size_t len;
	int passed;

	memset(&m, 0, sizeof m);
	for (;;) {
		err = wake_recv(fd, &m, &len, &passed);
		if (err == RS_EBUSY) {
			ck_assert_int_eq(poll(&pfd, 1, 10000), 1);
			continue;
		}
		ck_assert_int_eq(err, RS_OK);
		if (m.head.op == op)
			return m;
	}
}

static void
setup(void)
{
	struct buf why;
	FILE *f;
	int lock_fd, listen_fd;

	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(chdir(dir), 0);
	f = fopen("models.json", "w");
	fputs(models_json, f);
	fclose(f);
	fclose(fopen("respool.conf", "w"));
	setenv("RESPOOL_SPOOL_DIR", dir, 1);
	setenv("RESPOOL_MODELS_FILE", "models.json", 1);
	setenv("RESPOOL_MAX_STREAMS", "3", 1);
	setenv("RESPOOL_IDLE_EXIT", "1", 1);
	setenv("RESPOOL_MAX_BODY_BYTES", "1024", 1);
	buf_init(&why, 4096);
	ck_assert_msg(conf_load("respool.conf", &conf, &why) == RS_OK, "%s",
	    why.data);
	ck_assert_msg(spool_open(conf, &sp, &why) == RS_OK, "%s", why.data);
	buf_done(&why);
	ck_assert_int_eq(spool_lock_mutator(sp, &lock_fd), RS_OK);
	listen_fd = listen_here();
	if ((hub_pid = fork()) == 0)
		hub_child(listen_fd, lock_fd);
	close(listen_fd);
	close(lock_fd);
	conn = hello(WAKE_VERSION);
	ck_assert_uint_eq(expect(conn, WAKE_ANSWER).answer.version,
	    WAKE_VERSION);
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
hub_wait(void)
{
	int status;

	ck_assert_int_eq(waitpid(hub_pid, &status, 0), hub_pid);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	hub_pid = 0;
}

static void
teardown(void)
{
	if (hub_pid > 0) {
		kill(hub_pid, SIGKILL);
		waitpid(hub_pid, NULL, 0);
	}
	close(conn);
	spool_close(sp);
	conf_free(conf);
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* session NULL: it is no turn of a conversation. */
static struct wake_answer
ask_turn(int fd, const char *id, const char *model, uint64_t deadline_ns,
    const char *session)
{
	struct wake_start m = {
		.head = { .op = WAKE_START, .tag = 2 },
		.deadline_ns = deadline_ns,
		.dialect = session != NULL ? DIALECT_CONVERSATION :
		    DIALECT_STREAM,
		.turn = { .animal = "leo", .name = "Leo" },
	};
	int memfd = memfd_create("prompt", MFD_ALLOW_SEALING | MFD_CLOEXEC);

	stream_key(&m.key, "alice", id);
	strcpy(m.owner, "alice");
	strcpy(m.model, model);
	strcpy(m.turn.session, session != NULL ? session : "");
	memset(m.request, 'a', sizeof m.request - 1);
	ck_assert_int_gt(dprintf(memfd, PROMPT, blanks, ""), 0);
	fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
	ck_assert_int_eq(wake_send(fd, &m, sizeof m, memfd), RS_OK);
	close(memfd);
	return expect(fd, WAKE_ANSWER).answer;
}

static struct wake_answer
ask_start(int fd, const char *id, const char *model, uint64_t deadline_ns)
{
	return ask_turn(fd, id, model, deadline_ns, NULL);
}

static enum rs_err
begin(const char *id, const char *model)
{
	return (enum rs_err)ask_start(conn, id, model,
	    clock_mono_ns() + 10 * NS_PER_S).err;
}

static struct wake_answer
ask_key(enum wake_op op, const char *id)
{
	struct wake_key m = { .head = { .op = op, .tag = 3 } };

	stream_key(&m.key, "alice", id);
	ck_assert_int_eq(wake_send(conn, &m, sizeof m, -1), RS_OK);
	return expect(conn, WAKE_ANSWER).answer;
}

static void
subscribe(int fd, const char *id, uint64_t number)
{
	struct wake_sub m = {
		.head.op = WAKE_SUBSCRIBE, .sub = number,
	};

	stream_key(&m.key, "alice", id);
	ck_assert_int_eq(wake_send(fd, &m, sizeof m, -1), RS_OK);
}

static struct stream_tail
tail_of(const char *id)
{
	struct stream_tail tail = { 0 };
	struct stream_key k;
	struct spool_reader r;

	stream_key(&k, "alice", id);
	ck_assert_int_eq(spool_find(sp, &k, &r), RS_OK);
	ck_assert_int_eq(spool_tail(&r, &tail), RS_OK);
	spool_reader_done(&r);
	return tail;
}

START_TEST(a_subscriber_is_told_the_state_at_once_and_the_end)
{
	union wake_msg m;

	ck_assert_int_eq(begin("a", "hangs"), RS_OK);
	subscribe(conn, "a", 77);
	m = expect(conn, WAKE_NOTIFY);
	ck_assert_uint_eq(m.notify.moved[0].sub, 77);
	ck_assert_uint_eq(m.notify.moved[0].state, WAKE_LIVE);
	ck_assert_int_eq((int)ask_key(WAKE_STOP, "a").err, RS_OK);
	ck_assert(tail_of("a").ended);
	do
		m = expect(conn, WAKE_NOTIFY);
	while (m.notify.moved[0].state == WAKE_LIVE);
	ck_assert_uint_eq(m.notify.moved[0].state, WAKE_ENDED);
	ck_assert_uint_eq(m.notify.moved[0].end, tail_of("a").end);
}
END_TEST

/* With max_readers = 2: who of them is told what next. */
static void
setup_two_readers(void)
{
	setenv("RESPOOL_MAX_READERS", "2", 1);
	setup();
}

static void
expect_state(uint64_t number, enum wake_state state)
{
	static union wake_msg m;
	static size_t at, count;

	if (at == count) {
		m = expect(conn, WAKE_NOTIFY);
		at = 0;
		for (count = 0; count < 2 && m.notify.moved[count].sub != 0;)
			count++;
	}
	ck_assert_uint_eq(m.notify.moved[at].sub, number);
	ck_assert_uint_eq(m.notify.moved[at].state, state);
	at++;
}

START_TEST(one_reader_too_many_makes_the_oldest_leave)
{
	const struct wake_sub gone = {
		.head.op = WAKE_UNSUBSCRIBE, .sub = 2,
	};

	ck_assert_int_eq(begin("a", "hangs"), RS_OK);
	ck_assert_int_eq(begin("b", "hangs"), RS_OK);
	subscribe(conn, "a", 1);
	expect_state(1, WAKE_LIVE);
	subscribe(conn, "b", 2);
	expect_state(2, WAKE_LIVE);
	subscribe(conn, "b", 3);
	expect_state(3, WAKE_LIVE);
	expect_state(1, WAKE_LEAVE);
	/* Who leaves by himself makes room, too. */
	ck_assert_int_eq(wake_send(conn, &gone, sizeof gone, -1), RS_OK);
	subscribe(conn, "a", 4);
	expect_state(4, WAKE_LIVE);
	subscribe(conn, "a", 5);
	expect_state(5, WAKE_LIVE);
	expect_state(3, WAKE_LEAVE);
}
END_TEST

START_TEST(who_cannot_leave_is_not_told_to)
{
	struct wake_sub m = {
		.head.op = WAKE_SUBSCRIBE, .sub = 1, .stays = 1,
	};

	ck_assert_int_eq(begin("a", "hangs"), RS_OK);
	stream_key(&m.key, "alice", "a");
	for (; m.sub <= 2; m.sub++) {
		ck_assert_int_eq(wake_send(conn, &m, sizeof m, -1), RS_OK);
		expect_state(m.sub, WAKE_LIVE);
	}
	subscribe(conn, "a", 3);
	expect_state(3, WAKE_LEAVE);
}
END_TEST

START_TEST(a_stream_that_is_not_written_here_is_unknown)
{
	union wake_msg m;

	subscribe(conn, "nothing", 5);
	m = expect(conn, WAKE_NOTIFY);
	ck_assert_uint_eq(m.notify.moved[0].sub, 5);
	ck_assert_uint_eq(m.notify.moved[0].state, WAKE_UNKNOWN);
}
END_TEST

START_TEST(it_knows_which_streams_it_writes)
{
	ck_assert_int_eq(begin("a", "hangs"), RS_OK);
	ck_assert_uint_eq(ask_key(WAKE_ALIVE, "a").err, RS_OK);
	ck_assert_uint_eq(ask_key(WAKE_ALIVE, "b").err, RS_ENOENT);
	ck_assert_int_eq((int)ask_key(WAKE_STOP, "a").err, RS_OK);
	ck_assert_uint_eq(ask_key(WAKE_ALIVE, "a").err, RS_ENOENT);
}
END_TEST

static enum rs_err
ask_ready(int fd)
{
	const struct wake_head ready = { .op = WAKE_READY, .tag = 4 };

	ck_assert_int_eq(wake_send(fd, &ready, sizeof ready, -1), RS_OK);
	return (enum rs_err)expect(fd, WAKE_ANSWER).answer.err;
}

START_TEST(it_says_whether_it_would_take_a_start)
{
	ck_assert_int_eq(ask_ready(conn), RS_OK);
	ck_assert_int_eq(begin("a", "echo"), RS_OK);
	ck_assert_int_eq(nftw("streams", remove_one, 16,
	    FTW_DEPTH | FTW_PHYS), 0);
	ck_assert_int_eq(ask_ready(conn), RS_ENOENT);
}
END_TEST

static enum rs_err
begin_turn(const char *id, const char *model)
{
	return (enum rs_err)ask_turn(conn, id, model,
	    clock_mono_ns() + 10 * NS_PER_S, "talk").err;
}

START_TEST(a_session_is_forgotten_when_no_turn_of_it_is_live)
{
	struct stream_key session;
	struct conv *c = NULL;

	stream_key(&session, "alice", "talk");
	ck_assert_int_eq(begin_turn("a", "hangs"), RS_OK);
	ck_assert_int_eq(begin_turn("b", "hangs"), RS_OK); /* it waits */
	ck_assert_int_eq((int)ask_key(WAKE_FORGET, "talk").err, RS_EBUSY);
	ck_assert_int_eq((int)ask_key(WAKE_STOP, "a").err, RS_OK);
	ck_assert_int_eq((int)ask_key(WAKE_FORGET, "talk").err, RS_EBUSY);
	ck_assert_int_eq((int)ask_key(WAKE_STOP, "b").err, RS_OK);
	ck_assert_int_eq(conv_load(sp, &session, &c), RS_OK);
	ck_assert_uint_eq(c->count, 2);
	ck_assert_ptr_nonnull(c->turns[0].assistant);
	ck_assert_ptr_nonnull(c->turns[1].assistant);
	conv_free(c);
	ck_assert_int_eq((int)ask_key(WAKE_FORGET, "talk").err, RS_OK);
	ck_assert_int_eq(conv_load(sp, &session, &c), RS_ENOENT);
	ck_assert_int_eq((int)ask_key(WAKE_FORGET, "talk").err, RS_OK);
}
END_TEST

START_TEST(one_id_has_one_generation)
{
	ck_assert_int_eq(begin("a", "hangs"), RS_OK);
	ck_assert_int_eq(begin("a", "hangs"), RS_EEXIST);
	ck_assert_int_eq((int)ask_key(WAKE_STOP, "a").err, RS_OK);
	ck_assert_int_eq(begin("a", "hangs"), RS_EEXIST);
	ck_assert_int_eq((int)ask_key(WAKE_DELETE, "a").err, RS_OK);
	ck_assert_int_eq(begin("a", "hangs"), RS_EEXIST); /* the tombstone */
}
END_TEST

START_TEST(starts_over_the_limit_are_refused_and_go_on_after_an_end)
{
	struct wake_answer a;

	ck_assert_int_eq(begin("a", "hangs"), RS_OK);
	ck_assert_int_eq(begin("b", "hangs"), RS_OK);
	ck_assert_int_eq(begin("c", "hangs"), RS_OK);
	a = ask_start(conn, "d", "hangs", clock_mono_ns() + NS_PER_S);
	ck_assert_uint_eq(a.type, ERRTYPE_too_many_streams);
	ck_assert_int_eq(begin("a", "hangs"), RS_EEXIST);
	ck_assert_int_eq((int)ask_key(WAKE_STOP, "b").err, RS_OK);
	ck_assert_int_eq(begin("d", "hangs"), RS_OK);
}
END_TEST

START_TEST(a_start_after_its_deadline_starts_nothing)
{
	struct stream_key k;
	struct spool_reader r;

	ck_assert_uint_eq(ask_start(conn, "a", "echo",
	    clock_mono_ns() - 1).err, RS_ETIMEOUT);
	stream_key(&k, "alice", "a");
	ck_assert_int_eq(spool_find(sp, &k, &r), RS_ENOENT);
}
END_TEST

/* One that its sender cut short later would end the spooler: SIGBUS. */
START_TEST(a_prompt_that_can_change_is_refused)
{
	struct wake_start m = {
		.head = { .op = WAKE_START, .tag = 2 },
		.deadline_ns = clock_mono_ns() + 10 * NS_PER_S,
	};
	int fd = open("prompt", O_RDWR | O_CREAT, 0600);

	stream_key(&m.key, "alice", "a");
	strcpy(m.owner, "alice");
	strcpy(m.model, "echo");
	memset(m.request, 'a', sizeof m.request - 1);
	ck_assert_int_gt(dprintf(fd, PROMPT, 0, ""), 0);
	ck_assert_int_eq(wake_send(conn, &m, sizeof m, fd), RS_OK);
	close(fd);
	ck_assert_uint_eq(expect(conn, WAKE_ANSWER).answer.err, RS_EINVAL);
}
END_TEST

/* The query of a GET, and a persona's texts, are not counted into
 * max_body_bytes. */
START_TEST(a_prompt_may_be_longer_than_any_body)
{
	blanks = 300000;
	ck_assert_int_eq(begin("a", "echo"), RS_OK);
	blanks = 350000;
	ck_assert_int_eq(begin("b", "echo"), RS_EINVAL);
}
END_TEST

START_TEST(an_unknown_model_starts_nothing)
{
	ck_assert_uint_eq(ask_start(conn, "a", "none",
	    clock_mono_ns() + NS_PER_S).type, ERRTYPE_model_not_found);
}
END_TEST

START_TEST(a_live_stream_is_not_sealed)
{
	ck_assert_int_eq(begin("a", "hangs"), RS_OK);
	ck_assert_uint_eq(ask_key(WAKE_SEAL, "a").err, RS_EBUSY);
	ck_assert(!tail_of("a").ended);
	ck_assert_uint_eq(ask_key(WAKE_SEAL, "nothing").err, RS_ENOENT);
}
END_TEST

START_TEST(a_lock_that_stays_held_is_not_waited_for_for_ever)
{
	struct stream_head h = { .owner = "alice", .model = "echo",
	    .request = "aa", .socket = "s-00000000000000bb.sock" };
	struct stream_key k;
	struct spool_writer *w;

	stream_key(&k, "alice", "a");
	ck_assert_int_eq(spool_create(sp, &k, &h, &w), RS_OK);
	ck_assert_uint_eq(ask_key(WAKE_SEAL, "a").err, RS_EBUSY);
	spool_writer_free(w);
	ck_assert_uint_eq(ask_key(WAKE_SEAL, "a").err, RS_OK);
	ck_assert(tail_of("a").ended);
}
END_TEST

START_TEST(a_draining_spooler_lets_a_successor_start_and_takes_no_starts)
{
	const struct wake_head gc = { .op = WAKE_GC, .tag = 4 };
	int lock_fd, other;

	ck_assert_int_eq(begin("a", "hangs"), RS_OK);
	kill(hub_pid, SIGTERM);
	/* Whoever connects from now on is told. */
	do {
		other = hello(WAKE_VERSION);
		if (expect(other, WAKE_ANSWER).answer.draining)
			break;
		close(other);
	} while (true);
	ck_assert_int_eq(spool_lock_mutator(sp, &lock_fd), RS_OK);
	close(lock_fd);
	ck_assert_uint_eq(ask_start(other, "b", "echo",
	    clock_mono_ns() + NS_PER_S).type, ERRTYPE_draining);
	ck_assert_uint_eq(ask_key(WAKE_SEAL, "b").type, ERRTYPE_draining);
	ck_assert_int_eq(ask_ready(other), RS_EBUSY);
	ck_assert_int_eq(wake_send(other, &gc, sizeof gc, -1), RS_OK);
	ck_assert_uint_eq(expect(other, WAKE_ANSWER).answer.type,
	    ERRTYPE_draining);
	ck_assert(!tail_of("a").ended);
	ck_assert_int_eq((int)ask_key(WAKE_STOP, "a").err, RS_OK);
	close(other);
	hub_wait();
}
END_TEST

START_TEST(a_second_signal_ends_every_stream_at_once)
{
	int other;

	ck_assert_int_eq(begin("a", "hangs"), RS_OK);
	ck_assert_int_eq(begin("b", "hangs"), RS_OK);
	kill(hub_pid, SIGTERM);
	do {
		other = hello(WAKE_VERSION);
		if (expect(other, WAKE_ANSWER).answer.draining)
			break;
		close(other);
	} while (true);
	kill(hub_pid, SIGTERM);
	hub_wait();
	close(other);
	ck_assert(tail_of("a").ended);
	ck_assert(tail_of("b").ended);
}
END_TEST

START_TEST(a_newer_program_drains_it_and_an_older_one_does_not)
{
	int older = hello(WAKE_VERSION - 1), newer;
	struct wake_answer a = expect(older, WAKE_ANSWER).answer;

	ck_assert_uint_eq(a.err, RS_EPROTO);
	ck_assert_uint_eq(a.draining, 0);
	newer = hello(WAKE_VERSION + 1);
	a = expect(newer, WAKE_ANSWER).answer;
	ck_assert_uint_eq(a.err, RS_EPROTO);
	ck_assert_uint_eq(a.draining, 1);
	hub_wait();
	close(older);
	close(newer);
}
END_TEST

START_TEST(nonsense_ends_its_own_connection_only)
{
	int other = hello(WAKE_VERSION);
	char junk[100] = { 99 };
	union wake_msg m;
	struct pollfd pfd = { .fd = other, .events = POLLIN };
	size_t len;
	int fd;
	enum rs_err err;

	expect(other, WAKE_ANSWER);
	ck_assert_int_eq(wake_send(other, junk, sizeof junk, -1), RS_OK);
	while ((err = wake_recv(other, &m, &len, &fd)) == RS_EBUSY)
		poll(&pfd, 1, 10000);
	ck_assert_int_eq(err, RS_ECLOSED);
	close(other);
	ck_assert_int_eq(begin("a", "echo"), RS_OK);
}
END_TEST

/* More than the socket holds: the rest is told when the reader reads. */
START_TEST(a_reader_that_is_slow_to_read_is_told_everything_later)
{
	enum { SUBS = 20000 };
	static bool ended[SUBS];
	size_t i, n, len, told = 0;
	struct pollfd pfd;
	union wake_msg m;
	enum rs_err err;
	int slow, fd;

	ck_assert_int_eq(begin("a", "hangs"), RS_OK);
	slow = hello(WAKE_VERSION);
	expect(slow, WAKE_ANSWER);
	for (i = 0; i < SUBS; i++) {
		struct wake_sub sub = {
			.head.op = WAKE_SUBSCRIBE, .sub = i,
		};
		stream_key(&sub.key, "alice", "a");
		pfd = (struct pollfd){ .fd = slow, .events = POLLOUT };
		while ((err = wake_send(slow, &sub, sizeof sub, -1)) ==
		    RS_EBUSY)
			poll(&pfd, 1, 10000);
		ck_assert_int_eq(err, RS_OK);
	}
	ck_assert_int_eq((int)ask_key(WAKE_STOP, "a").err, RS_OK);
	pfd = (struct pollfd){ .fd = slow, .events = POLLIN };
	while (told < SUBS) {
		err = wake_recv(slow, &m, &len, &fd);
		if (err == RS_EBUSY) {
			ck_assert_int_eq(poll(&pfd, 1, 10000), 1);
			continue;
		}
		ck_assert_int_eq(err, RS_OK);
		n = wake_moved_count(len);
		for (i = 0; i < n; i++) {
			struct wake_moved *mv = &m.notify.moved[i];

			if (mv->state == WAKE_LIVE)
				continue;
			ck_assert_uint_lt(mv->sub, SUBS);
			ck_assert(!ended[mv->sub]);
			ended[mv->sub] = true;
			told++;
		}
	}
	close(slow);
}
END_TEST

START_TEST(it_leaves_when_nobody_wants_anything)
{
	ck_assert_int_eq(begin("a", "echo"), RS_OK);
	hub_wait(); /* though a connection is open */
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("hub");
	TCase *tc = tcase_create("hub"), *few = tcase_create("few readers");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_subscriber_is_told_the_state_at_once_and_the_end);
	tcase_add_test(tc, a_stream_that_is_not_written_here_is_unknown);
	tcase_add_test(tc, it_knows_which_streams_it_writes);
	tcase_add_test(tc, it_says_whether_it_would_take_a_start);
	tcase_add_test(tc, a_session_is_forgotten_when_no_turn_of_it_is_live);
	tcase_add_test(tc, one_id_has_one_generation);
	tcase_add_test(tc,
	    starts_over_the_limit_are_refused_and_go_on_after_an_end);
	tcase_add_test(tc, a_start_after_its_deadline_starts_nothing);
	tcase_add_test(tc, a_prompt_that_can_change_is_refused);
	tcase_add_test(tc, a_prompt_may_be_longer_than_any_body);
	tcase_add_test(tc, an_unknown_model_starts_nothing);
	tcase_add_test(tc, a_live_stream_is_not_sealed);
	tcase_add_test(tc, a_lock_that_stays_held_is_not_waited_for_for_ever);
	tcase_add_test(tc,
	    a_draining_spooler_lets_a_successor_start_and_takes_no_starts);
	tcase_add_test(tc, a_second_signal_ends_every_stream_at_once);
	tcase_add_test(tc,
	    a_newer_program_drains_it_and_an_older_one_does_not);
	tcase_add_test(tc, nonsense_ends_its_own_connection_only);
	tcase_add_test(tc,
	    a_reader_that_is_slow_to_read_is_told_everything_later);
	tcase_add_test(tc, it_leaves_when_nobody_wants_anything);
	suite_add_tcase(s, tc);
	tcase_add_checked_fixture(few, setup_two_readers, teardown);
	tcase_set_timeout(few, 60);
	tcase_add_test(few, one_reader_too_many_makes_the_oldest_leave);
	tcase_add_test(few, who_cannot_leave_is_not_told_to);
	suite_add_tcase(s, few);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
