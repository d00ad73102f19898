/* check_spool_damage.c - a file cut, zeroed or flipped at every byte of its
 * last 4 KB: what the responder's loop sends of it, and what is left of it
 * when it was sealed.  The test plays client.h and the spooler's answer. */
#include <sys/epoll.h>
#include <sys/socket.h>

#include <json-c/json.h>

#include "client.h"
#include "follow.h"
#include "jx.h"
#include "log.h"
#include "spool_fixture.h"
#include "wake.h"

#define LAST 4096 /* bytes that are damaged one by one */

struct client {
	int fd, peer;
	struct buf out;
	bool aborted;
};

static struct follow_loop *loop;
static struct client client;

/* ---- client.h ---- */

enum rs_err
client_write(struct client *c, const void *p, size_t n)
{
	buf_add(&c->out, p, n);
	return RS_OK;
}

bool
client_writable(const struct client *c)
{
	(void)c;
	return true;
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
	(void)c;
}

void
client_abort(struct client *c)
{
	c->aborted = true;
}

/* What the current spooler does, in the loop's own thread for it. */
enum rs_err
wake_seal(struct wake_client *w, const struct stream_key *k,
    struct wake_reply *ret)
{
	(void)w;
	ret->err = spool_seal(fx_sp, k);
	return RS_OK;
}

/* ---- files ---- */

struct file {
	struct buf b;
	size_t head;
	size_t ends[200];	/* behind each frame */
	size_t count;
};

static void
file_frame(struct file *f, size_t size)
{
	fx_frame(&f->b, f->count, size);
	f->ends[f->count++] = f->b.len;
}

/* A text with what JSON has to escape, and characters of all lengths. */
static void
file_strange_frame(struct file *f)
{
	static const char text[] =
	    "\"\\\n\t\x01\x7f \xc3\xa4 \xe2\x82\xac \xf0\x9f\x8c\x8d {}[],:";

	sse_frame_begin(&f->b, "message_chunk", f->count);
	buf_puts(&f->b, "{\"content\":");
	jx_put_str(&f->b, text, sizeof text - 1);
	buf_puts(&f->b, ",\"tokens\":12,\"cost_usd\":0.0000072,"
	    "\"more\":[true,false,null,-1.5e3,{}]}");
	sse_frame_end(&f->b);
	f->ends[f->count++] = f->b.len;
}

static void
file_done(struct file *f)
{
	fx_done(&f->b, f->count);
	f->ends[f->count++] = f->b.len;
}

static const struct {
	const char *what;
	size_t before;	/* bytes in front of the last 4 KB, about */
	size_t size;	/* of the frames there; 0: as short as can be */
	bool ended, torn;
} files[] = {
	{ "ended, many frames", 1500, 250, true, false },
	{ "orphaned, many frames", 1500, 250, false, false },
	{ "orphaned, torn", 1500, 700, false, true },
	{ "ended, one long frame", 2500, 6000, true, false },
	{ "ended, the whole file", 0, 0, true, false },
	{ "orphaned, the whole file", 0, 900, false, false },
};

static void
file_make(struct file *f, int i)
{
	size_t target = files[i].before + (files[i].before > 0 ? LAST : 2500);

	f->count = 0;
	fx_stream(&f->b, NULL, 0, &f->head);
	while (f->b.len + files[i].size < target) {
		if (f->count % 5 == 3)
			file_strange_frame(f);
		else
			file_frame(f, files[i].size);
	}
	if (files[i].ended)
		file_done(f);
	if (files[i].torn)
		buf_puts(&f->b, "event: message_chunk\nid: ");
}

/* ---- readers ---- */

static void
client_begin(void)
{
	int fd[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	client.fd = fd[0];
	client.peer = fd[1];
}

/* Follows the stream to the end of the response. */
static void
read_from(const struct spool_reader *r, uint64_t off, uint64_t id)
{
	struct spool_reader mine = *r;

	mine.fd = dup(r->fd);
	ck_assert_int_ge(mine.fd, 0);
	buf_clear(&client.out);
	client.aborted = false;
	follow_add(loop, &client, &mine, &fx_key, off, id);
	follow_loop_run(loop, true);
}

/* What was sent is whole frames of good JSON, from id on, of which the
 * first are the file's as it was before the damage at byte at; returns
 * whether a terminal one ends them.  Errors are told once, as libcheck notes
 * each assertion in a file. */
static bool
sent_is_right(const struct file *f, size_t at, uint64_t id,
    const char **ret_why)
{
	const char *p = client.out.data;
	size_t n = client.out.len, begin;
	struct json_object *o;
	struct sse_frame frame = { .terminal = false };
	const char *why;

	*ret_why = NULL;
	for (; n > 0 && strncmp(p, "retry: ", 7) != 0; id++) {
		if (frame.terminal)
			*ret_why = "something behind a terminal frame";
		else if (sse_frame_scan(p, n, &frame) != SSE_FRAME)
			*ret_why = "no frame";
		else if (frame.id != id)
			*ret_why = "an id that is not due";
		else if (jx_parse(frame.data, frame.data_len, &o, &why) !=
		    RS_OK)
			*ret_why = "no JSON";
		if (*ret_why != NULL)
			return false;
		json_object_put(o);
		if (id < f->count && f->ends[id] <= at) {
			begin = id == 0 ? f->head : f->ends[id - 1];
			if (f->ends[id] - begin != frame.size ||
			    memcmp(f->b.data + begin, p, frame.size) != 0)
				*ret_why = "another frame";
		}
		p += frame.size;
		n -= frame.size;
	}
	if (id < f->count && f->ends[id] <= at)
		*ret_why = "a frame before the damage is missing";
	return frame.terminal;
}

enum damage { CUT, ZERO, FLIP, DAMAGES };

/* Writes the file with that damage; false when it is none. */
static bool
file_damage(const struct file *f, enum damage d, size_t at)
{
	char was = f->b.data[at], *p = f->b.data + at;

	if (d != CUT)
		*p = (char)(d == ZERO ? 0 : was ^ (1 << at % 8));
	fx_write(&fx_key, f->b.data, d == CUT ? at : f->b.len);
	if (*p == was && d != CUT)
		return false;
	*p = was;
	return true;
}

/* As a resume does it: what the file's end says comes first. */
static const char *
check_resume(const struct file *f, const struct spool_reader *r, size_t at,
    uint64_t id)
{
	struct stream_tail t;
	const char *why;
	uint64_t off;

	if (spool_tail(r, &t) != RS_OK || id >= t.count ||
	    spool_seek(r, t.end, id, &off) != RS_OK)
		return NULL;
	read_from(r, off, id);
	sent_is_right(f, at, id, &why);
	return why;
}

/* Ended, and nothing but whole frames that a fold takes. */
static bool
is_clean(const struct spool_reader *r, struct stream_tail *t)
{
	struct fold *fold;
	bool clean;

	ck_assert_int_eq(fold_new(1 << 20, &fold), RS_OK);
	clean = spool_scan(r, fold, t) == RS_OK && t->ended && !t->torn;
	fold_free(fold);
	return clean;
}

static const char *
check_damage(const struct file *f, size_t at)
{
	const uint64_t ids[] = { 1, f->count / 2, f->count - 3,
		f->count - 2, f->count - 1 };
	struct spool_reader r;
	struct stream_tail t;
	const char *why;
	enum rs_err err;
	bool ended;

	err = spool_find(fx_sp, &fx_key, &r);
	if (err != RS_OK) {
		/* Nothing is sent, and nothing can be mended. */
		if (at >= f->head || spool_seal(fx_sp, &fx_key) != err)
			return "a head that was not damaged is not read";
		return NULL;
	}
	/* A value may have changed in the head, but not how long it is. */
	if (r.head_size != f->head) {
		spool_reader_done(&r);
		return at < f->head ? NULL : "a head of another length";
	}
	why = check_resume(f, &r, at, ids[at % 5]);
	if (why == NULL) {
		read_from(&r, r.head_size, 0);
		ended = sent_is_right(f, at, 0, &why);
		/* What the loop takes and a fold does not is cut off when the
		 * stream is sealed: then the response just ends. */
		if (why == NULL && !ended && spool_tail(&r, &t) == RS_OK &&
		    t.end >= r.head_size + client.out.len)
			why = "no ending";
	}
	if (why == NULL && spool_seal(fx_sp, &fx_key) != RS_OK)
		why = "not sealed";
	if (why == NULL && !is_clean(&r, &t))
		why = "not mended";
	if (why == NULL) {
		read_from(&r, r.head_size, 0);
		ended = sent_is_right(f, at, 0, &why);
		if (why == NULL && (!ended ||
		    client.out.len != t.end - r.head_size))
			why = "not all of the mended file";
	}
	spool_reader_done(&r);
	return why;
}

START_TEST(nothing_wrong_is_sent_of_a_damaged_file_and_it_is_mended)
{
	enum damage d = (enum damage)(_i % DAMAGES);
	int kind = _i / DAMAGES;
	struct file f;
	size_t at;

	file_make(&f, kind);
	for (at = f.b.len > LAST ? f.b.len - LAST : 0; at < f.b.len; at++) {
		const char *why = NULL;

		if (file_damage(&f, d, at) && (at > 0 || d != CUT))
			why = check_damage(&f, at);
		if (why != NULL)
			ck_abort_msg("%s, damage %d at byte %zu: %s",
			    files[kind].what, d, at, why);
	}
	buf_done(&f.b);
}
END_TEST

static void
setup(void)
{
	fx_setup();
	/* Nobody is at the writer's socket. */
	ck_assert_int_eq(chdir(fx_dir), 0);
	log_open(LOGL_ERROR, "/dev/null");
	fx_conf.keepalive = 15;
	buf_init(&client.out, 1 << 26);
	client_begin();
	ck_assert_int_eq(follow_loop_new(&fx_conf, NULL, &loop), RS_OK);
}

static void
teardown(void)
{
	follow_loop_free(loop);
	buf_done(&client.out);
	close(client.fd);
	close(client.peer);
	fx_teardown();
}

int
main(void)
{
	Suite *s = suite_create("spool_damage");
	TCase *tc = tcase_create("core");

	/* The files are written 60,000 times. */
	if (access("/dev/shm", W_OK) == 0)
		setenv("TMPDIR", "/dev/shm", 0);
	tcase_set_timeout(tc, 600);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc,
	    nothing_wrong_is_sent_of_a_damaged_file_and_it_is_mended, 0,
	    DAMAGES * (int)(sizeof files / sizeof *files));
	suite_add_tcase(s, tc);
	return fx_run(s);
}
