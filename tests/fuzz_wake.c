/* fuzz_wake.c - the spooler's side of the wake protocol: a hub, its loop
 * turned by hand, and three connections that say what the input tells.
 *
 * A step is one byte, (what << 2) | connection, and its operands:
 *	0 to 11	the valid message of op what + 1; one byte: (sub << 4) |
 *		(model << 2) | stream
 *	12	the same with bytes changed: op, operand as above, then a
 *		count and so often offset / 4 and the byte there
 *	13	any packet: length / 4 and that many bytes
 *	14	closes the connection; the next message opens it again
 *	15	reads all that the hub said
 * A START brings its prompt, unless sub is 8 or more; then all others do.
 * Connection 3 does not exist: 15 drains the hub, all else is a turn of its
 * loop, with one byte, the clock's step, as a power of two. */
#include "hub.c"

#include <sys/mman.h>
#include <sys/un.h>

#include "fuzz.h"
#include "spool_fixture.h"

#define SOCKET "s-0123456789abcdef.sock"
#define CONNS 3
#define STREAMS 4
#define MSGS_MAX 512 /* of one input */

static const char models_json[] = "{\"default\":\"echo\",\"models\":{"
    "\"echo\":{\"provider\":\"demo\"},"
    "\"slow\":{\"provider\":\"demo\",\"chunks\":200,\"interval_ms\":9},"
    "\"hang\":{\"provider\":\"demo\",\"chunks\":9,\"hang_after\":1},"
    "\"fail\":{\"provider\":\"demo\",\"fail_after\":1,"
    "\"error_type\":\"overloaded\"}}}";
static const char *const model_names[] = { "echo", "slow", "hang", "fail" };
static const char prompt[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"one two\"}]}";

static struct models_file *models;
static struct stream_key keys[STREAMS];
static int listener, prompt_fd;

/* One input. */
static struct hub *hub;
static int fds[CONNS];
static unsigned sent;
static uint64_t mono_ns;

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX, .sun_path = SOCKET };
	struct buf why;

	(void)argc, (void)argv;
	fx_setup();
	atexit(fx_teardown);
	log_open(LOGL_ERROR, "/dev/null");
	ck_assert_int_eq(chdir(fx_dir), 0);
	fx_conf.max_streams = 3;
	fx_conf.address_max_streams = 2;
	fx_conf.owner_max_tokens = 100000;
	fx_conf.reserve_tokens = 10;
	fx_conf.max_stream_bytes = fx_conf.max_body_bytes = 65536;
	fx_conf.heartbeat = fx_conf.idle_exit = 1;
	fx_conf.turns_at_once = (char *)"wait";
	fx_conf.history_tokens = 100;
	fx_conf.session_ttl = 3600;
	buf_init(&why, 4096);
	ck_assert_int_eq(models_file_open(fuzz_file(models_json,
	    sizeof models_json - 1), &models, &why), RS_OK);
	for (char *id = (char[]){ "a" }; *id < 'a' + STREAMS; ++*id)
		stream_key(&keys[*id - 'a'], "alice", id);
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&sun, sizeof sun),
	    0);
	ck_assert_int_eq(listen(listener, CONNS), 0);
	prompt_fd = memfd_create("prompt", MFD_ALLOW_SEALING);
	ck_assert_int_eq(fd_write_full(prompt_fd, prompt, strlen(prompt)),
	    RS_OK);
	fcntl(prompt_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW |
	    F_SEAL_WRITE);
	return 0;
}

/* ---- what is said ---- */

static size_t
fill(union wake_msg *m, unsigned op, unsigned operand)
{
	const struct stream_key *k = &keys[operand % STREAMS];
	const char *model = model_names[operand >> 2 & 3];

	memset(m, 0, sizeof *m);
	m->head = (struct wake_head){ .op = op, .tag = operand };
	switch ((enum wake_op)op) {
	case WAKE_HELLO:
		m->hello.version = WAKE_VERSION;
		return sizeof m->hello;
	case WAKE_START:
		m->start.deadline_ns = mono_ns + NS_PER_S;
		m->start.key = *k;
		strcpy(m->start.owner, "alice");
		strcpy(m->start.model, model);
		if (operand & 1)
			strcpy(m->start.address, "0123456789abcdef");
		memset(m->start.request, 'a', SHA256_HEX_SIZE - 1);
		/* Half of them are turns, of two sessions. */
		m->start.dialect = operand >> 6 & 1;
		strcpy(m->start.turn.session, keys[operand >> 5 & 1].id);
		strcpy(m->start.turn.animal, "lion_001");
		return sizeof m->start;
	case WAKE_SEAL:
	case WAKE_STOP:
	case WAKE_DELETE:
	case WAKE_FORGET:
	case WAKE_ALIVE:
		m->key.key = *k;
		return sizeof m->key;
	case WAKE_SUBSCRIBE:
	case WAKE_UNSUBSCRIBE:
		m->sub.sub = operand >> 4;
		m->sub.key = *k;
		return sizeof m->sub;
	case WAKE_ANSWER:
		return sizeof m->answer;
	case WAKE_NOTIFY:
		return sizeof m->head + sizeof m->notify.moved[0];
	case WAKE_PING:
	case WAKE_READY:
	case WAKE_GC:
		break;
	}
	return sizeof m->head;
}

static void
say(unsigned c, const union wake_msg *m, size_t len)
{
	if (fds[c] < 0 && wake_connect(SOCKET, &fds[c]) != RS_OK)
		return; /* its queue is full */
	if (sent++ < MSGS_MAX)
		wake_send(fds[c], m, len, (m->head.op == WAKE_START) !=
		    (m->head.tag >> 7 & 1) ? prompt_fd : -1);
}

static void
hang_up(unsigned c)
{
	if (fds[c] >= 0)
		close(fds[c]);
	fds[c] = -1;
}

/* What the hub says is right, and no more than was in the files. */
static void
hear(unsigned c)
{
	union wake_msg m;
	enum rs_err err;
	size_t len;
	int fd;

	while (fds[c] >= 0 && (err = wake_recv(fds[c], &m, &len, &fd)) !=
	    RS_EBUSY) {
		if (err == RS_ECLOSED) {
			hang_up(c);
			return;
		}
		assert(err == RS_OK && fd < 0);
		assert(m.head.op == WAKE_ANSWER || m.head.op == WAKE_NOTIFY);
		for (size_t i = 0; m.head.op == WAKE_NOTIFY &&
		    i < wake_moved_count(len); i++)
			assert(m.notify.moved[i].state <= WAKE_UNKNOWN);
	}
}

static size_t
step(const uint8_t *p, size_t n)
{
	union wake_msg m;
	unsigned what = p[0] >> 2 & 15, c = p[0] & 3;
	size_t used = n < 2 ? n : 2, len, i;

	if (c == CONNS && what == 15) {
		drain(hub, "signal");
		used = 1;
	} else if (c == CONNS) {
		mono_ns += (uint64_t)1 << (n > 1 ? p[1] % 36 : 0);
		clock_freeze(mono_ns, fx_now_ms);
		hub_turn(hub, 0);
	} else if (what <= 11) {
		say(c, &m, fill(&m, what + 1, n > 1 ? p[1] : 0));
	} else if (what == 12 && n >= 4) {
		len = fill(&m, p[1], p[2]);
		used = 4;
		for (i = p[3] % 8; i > 0 && n - used >= 2; i--, used += 2)
			((uint8_t *)&m)[4 * p[used] % len] = p[used + 1];
		say(c, &m, len);
	} else if (what == 13 && n > 1) {
		len = 4u * p[1] < n - 2 ? 4u * p[1] : n - 2;
		memcpy(&m, p + 2, len);
		used = 2 + len;
		say(c, &m, len);
	} else if (what == 14) {
		hang_up(c);
		used = 1;
	} else if (what == 15) {
		hear(c);
		used = 1;
	}
	return used;
}

/* ---- what is left ---- */

/* Every stream that was begun has ended, and was reserved once. */
static void
check_streams(void)
{
	struct spool_reader r;
	struct stream_tail t;

	for (int i = 0; i < STREAMS; i++) {
		enum rs_err err = spool_find(fx_sp, &keys[i], &r);

		assert(err == RS_OK || err == RS_ENOENT);
		if (err == RS_OK) {
			assert(spool_scan(&r, NULL, &t) == RS_OK);
			assert(t.ended && !t.torn);
			spool_reader_done(&r);
		}
		unlink(fx_path(&keys[i]));
		conv_delete(fx_sp, &keys[i]);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int lock_fd, next_fd = fuzz_next_fd();
	size_t used;

	mono_ns = NS_PER_S;
	clock_freeze(mono_ns, fx_now_ms);
	sent = 0;
	for (int c = 0; c < CONNS; c++)
		fds[c] = -1;
	ck_assert_int_eq(spool_lock_mutator(fx_sp, &lock_fd), RS_OK);
	ck_assert_int_eq(hub_new(&fx_conf, fx_sp, models, SOCKET,
	    dup(listener), lock_fd, &hub), RS_OK);
	for (; size > 0; data += used, size -= used)
		used = step(data, size);
	drain(hub, "signal");
	end_all(hub);
	hub_turn(hub, 0);
	for (unsigned c = 0; c < CONNS; c++) {
		hear(c);
		hang_up(c);
	}
	while (hub_turn(hub, 0) > 0)
		continue;
	assert(hub->gens.count == 0 && hub->conns == NULL);
	hub_free(hub);
	check_streams();
	fuzz_forget_usage(fx_sp);
	assert(fuzz_next_fd() == next_fd);
	return 0;
}
