/* fuzz_follow.c - the responder's side of the wake protocol: the loop with
 * followers of one stream, whose spooler says and whose file holds what the
 * input tells.  Whatever that is, clients get whole frames, in order.
 *
 * A step is one byte, (what << 4) | operand, and bytes of its own:
 *	0	a turn without anything
 *	1	accepts a connection, and answers its HELLO
 *	2	NOTIFY: subscription, state, end / 16
 *	3	any packet: length and that many bytes
 *	4	appends a frame of 512 * operand bytes, or as short as can be
 *	5	appends a terminal frame
 *	6	appends any bytes: length and that many
 *	7	cuts the file back to its last whole frame
 *	8	client operand / 4: can take no more, can again, leaves
 *	9	the clock's step, as a power of two
 *	10	hangs up
 *	11	what SEAL will be answered; operand 0 to 3: with an ending */
#include <sys/epoll.h>

static int fuzz_epoll_wait(int fd, struct epoll_event *ev, int n, int ms);
#define epoll_wait fuzz_epoll_wait
#include "follow.c"
#undef epoll_wait

#include <sys/socket.h>
#include <sys/un.h>

#include "fuzz.h"
#include "spool_fixture.h"

#define WRITER "s-0123456789abcdef.sock" /* as in fx_head */
#define CLIENTS 3
#define SUBS 16
#define SEAL_MS 1000 /* for the helper to answer; it does so at once */

struct client {
	int fd, peer;		/* what is polled; -1: it has left */
	struct buf out;
	bool full, ended, aborted;
};

static int listener;

/* One input. */
static struct client clients[CLIENTS];
static struct follow_loop *loop;
static const uint8_t *script;
static size_t left;
static struct buf good, rest;	/* the file's frames, what follows them */
static uint64_t next_id, mono_ns;
static size_t head_size;
static bool over;		/* its terminal frame is there */
static int file_fd, peer;
static uint64_t subs[SUBS];
static unsigned sub_count;
static unsigned seal_answer;

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX, .sun_path = WRITER };

	(void)argc, (void)argv;
	fx_setup();
	atexit(fx_teardown);
	log_open(LOGL_ERROR, "/dev/null");
	ck_assert_int_eq(chdir(fx_dir), 0);
	fx_conf.keepalive = 3;
	fx_conf.max_connection = 600;
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&sun, sizeof sun),
	    0);
	ck_assert_int_eq(listen(listener, CLIENTS), 0);
	return 0;
}

/* ---- client.h ---- */

enum rs_err
client_write(struct client *c, const void *p, size_t n)
{
	assert(!c->ended && !c->full);
	buf_add(&c->out, p, n);
	return c->peer < 0 ? RS_ECLOSED : RS_OK;
}

bool
client_writable(const struct client *c)
{
	return !c->full;
}

size_t
client_write_max(const struct client *c)
{
	(void)c;
	return 8192;
}

int
client_fd(const struct client *c)
{
	return c->fd;
}

uint64_t
client_born_ns(const struct client *c)
{
	(void)c;
	return 0;
}

uint32_t
client_gone_events(const struct client *c)
{
	(void)c;
	return EPOLLERR | EPOLLHUP;
}

void
client_finish(struct client *c)
{
	assert(!c->ended);
	c->ended = true;
}

void
client_abort(struct client *c)
{
	client_finish(c);
	c->aborted = true;
}

/* ---- the spooler and its file ---- */

/* Any bytes; they may happen to be a frame. */
static void
append(const void *p, size_t n)
{
	struct sse_frame f;

	ck_assert_int_eq(fd_write_full(file_fd, p, n), RS_OK);
	buf_add(&rest, p, n);
	while (!over && rest.len > 0 &&
	    sse_frame_scan(rest.data, rest.len, &f) == SSE_FRAME &&
	    f.id == next_id) {
		buf_add(&good, rest.data, f.size);
		next_id++;
		over = f.terminal;
		buf_drop(&rest, f.size);
	}
}

/* What the writer does before it goes on. */
static void
cut_back(void)
{
	ck_assert_int_eq(ftruncate(file_fd, (off_t)(head_size + good.len)), 0);
	buf_clear(&rest);
}

static void
append_frame(size_t size)
{
	struct buf b;

	if (over)
		return;
	buf_init(&b, SSE_FRAME_MAX);
	cut_back();
	if (size == 0)
		fx_done(&b, next_id);
	else
		fx_frame(&b, next_id, size);
	append(b.data, b.len);
	buf_done(&b);
}

/* In the helper's thread; the input's thread waits for it. */
enum rs_err
wake_seal(struct wake_client *w, const struct stream_key *k,
    struct wake_reply *ret)
{
	(void)w, (void)k;
	ret->err = seal_answer < 4 ? RS_OK : (enum rs_err)(seal_answer & 7);
	return seal_answer < 8 ? RS_OK : RS_ECLOSED;
}

static void
hang_up(void)
{
	if (peer >= 0)
		close(peer);
	peer = -1;
}

static void
take_connection(void)
{
	const struct wake_answer a = {
		.head = { .op = WAKE_ANSWER, .tag = 1 },
		.version = WAKE_VERSION,
	};
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);

	if (fd < 0)
		return;
	hang_up();
	peer = fd;
	wake_send(peer, &a, sizeof a, -1);
}

static void
hear(void)
{
	union wake_msg m;
	size_t len;
	int fd;

	while (peer >= 0 && wake_recv(peer, &m, &len, &fd) == RS_OK) {
		assert(m.head.op == WAKE_HELLO || m.head.op == WAKE_PING ||
		    m.head.op == WAKE_SUBSCRIBE ||
		    m.head.op == WAKE_UNSUBSCRIBE);
		if (m.head.op == WAKE_SUBSCRIBE)
			subs[sub_count++ % SUBS] = m.sub.sub;
	}
}

/* ---- the steps ---- */

static uint8_t
next_byte(void)
{
	return left > 0 ? left--, *script++ : 0;
}

static const void *
next_bytes(size_t *ret_n)
{
	const void *p;
	size_t n = next_byte();

	if (n > left)
		n = left;
	p = script;
	script += n;
	left -= n;
	*ret_n = n;
	return p;
}

static void
notify(unsigned which)
{
	struct {
		struct wake_head head;
		struct wake_moved moved;
	} m = { .head = { .op = WAKE_NOTIFY } };

	m.moved.sub = subs[which];
	m.moved.state = next_byte() & 3;
	m.moved.end = 16u * next_byte();
	wake_send(peer, &m, sizeof m, -1);
}

static void
client_changes(struct client *c, unsigned how)
{
	c->full = how == 0;
	if (how == 2 && c->peer >= 0) {
		close(c->peer);
		c->peer = -1;
	}
}

static void
step(void)
{
	uint8_t byte = next_byte();
	unsigned operand = byte & 15;
	const void *p;
	size_t n;

	switch (byte >> 4) {
	case 1:
		take_connection();
		break;
	case 2:
		notify(operand);
		break;
	case 3:
		p = next_bytes(&n);
		if (peer >= 0)
			send(peer, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case 4:
		append_frame(operand == 15 ? SSE_FRAME_MAX :
		    512 * operand + 1);
		break;
	case 5:
		append_frame(0);
		break;
	case 6:
		p = next_bytes(&n);
		append(p, n);
		break;
	case 7:
		cut_back();
		break;
	case 8:
		client_changes(&clients[operand / 4 % CLIENTS], operand & 3);
		break;
	case 9:
		mono_ns += UINT64_C(1) << (20 + operand);
		break;
	case 10:
		hang_up();
		break;
	case 11:
		seal_answer = operand;
		if (operand < 4)
			append_frame(0);
		break;
	}
}

static bool
is_sealing(void)
{
	struct follower *f;

	TAILQ_FOREACH(f, &loop->all, all)
		if (f->stage == FOLLOW_SEALING)
			return true;
	return false;
}

/* Where the loop waits, something happens. */
static int
fuzz_epoll_wait(int fd, struct epoll_event *ev, int n, int ms)
{
	bool idle = ms != 0 && is_sealing();

	if (left > 0) {
		step();
	} else {
		follow_stop(loop);
		mono_ns += NS_PER_S / 4;
	}
	hear();
	clock_freeze(mono_ns, fx_now_ms);
	return epoll_wait(fd, ev, n, idle ? SEAL_MS : 0);
}

/* ---- what came of it ---- */

/* Frames of the file, comments between them, and perhaps a block that tells
 * when to come back. */
static void
check_client(const struct client *c)
{
	const char *p = c->out.len > 0 ? c->out.data : "", *text;
	const char *end = p + c->out.len;
	size_t seen = 0;
	struct sse_frame f;

	for (; p < end; p = text + 2) {
		text = memmem(p, (size_t)(end - p), "\n\n", 2);
		if (text == NULL)
			break; /* cut short */
		if (p[0] == ':' || strncmp(p, "retry: ", 7) == 0) {
			assert(p[0] == ':' || text + 2 == end);
			continue;
		}
		assert(sse_frame_scan(p, (size_t)(end - p), &f) == SSE_FRAME);
		assert(p + f.size == text + 2 && seen + f.size <= good.len);
		assert(memcmp(good.data + seen, p, f.size) == 0);
		seen += f.size;
	}
	assert(c->ended && (p == end || c->aborted));
	if (p < end && p[0] == 'e')
		assert((size_t)(end - p) < good.len - seen &&
		    memcmp(good.data + seen, p, (size_t)(end - p)) == 0);
}

static void
client_begin(struct client *c)
{
	struct spool_reader r = fx_find(&fx_key);
	int fd[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	*c = (struct client){ .fd = fd[0], .peer = fd[1] };
	buf_init(&c->out, 1 << 26);
	follow_add(loop, c, &r, &fx_key, r.head_size, 0);
}

static void
client_done(struct client *c)
{
	buf_done(&c->out);
	close(c->fd);
	if (c->peer >= 0)
		close(c->peer);
}

static void
begin(void)
{
	const struct stream_head h = fx_head();
	struct buf head;

	buf_init(&head, SPOOL_HEAD_MAX);
	stream_head_encode(&head, &h);
	fx_write(&fx_key, head.data, head.len);
	head_size = head.len;
	buf_done(&head);
	file_fd = open(fx_path(&fx_key), O_WRONLY | O_APPEND);
	peer = -1;
	over = false;
	next_id = sub_count = 0;
	memset(subs, 0, sizeof subs);
	buf_init(&good, 1 << 26);
	buf_init(&rest, 1 << 26);
	mono_ns = NS_PER_S;
	clock_freeze(mono_ns, fx_now_ms);
	seal_answer = 8;
	ck_assert_int_eq(follow_loop_new(&fx_conf, NULL, &loop), RS_OK);
	for (int i = 0; i < CLIENTS; i++)
		client_begin(&clients[i]);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int next_fd = fuzz_next_fd();

	script = data;
	left = size;
	begin();
	follow_loop_run(loop, true);
	follow_loop_free(loop);
	for (int i = 0; i < CLIENTS; i++) {
		check_client(&clients[i]);
		client_done(&clients[i]);
	}
	do {
		hang_up();
		take_connection(); /* that nobody took */
	} while (peer >= 0);
	close(file_fd);
	buf_done(&good);
	buf_done(&rest);
	assert(fuzz_next_fd() == next_fd);
	return 0;
}
