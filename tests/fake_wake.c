/* fake_wake.c - wake_client.c and follow.c as a test wants them */
#include <stdio.h>
#include <string.h>
#include <check.h>
#include "conv.h"
#include "fake_wake.h"
#include "follow.h"
#include "sse.h"

struct fake_wake fake_wake;

void
fake_wake_init(struct spool *sp)
{
	memset(&fake_wake, 0, sizeof fake_wake);
	fake_wake.spool = sp;
	fake_wake.alive = true;
	buf_init(&fake_wake.prompt, SIZE_MAX / 2);
}

void
fake_wake_done(void)
{
	buf_done(&fake_wake.prompt);
}

/* True: ret has the answer that the test has set. */
static bool
answered(struct wake_reply *ret)
{
	*ret = fake_wake.reply;
	return fake_wake.err != RS_OK || fake_wake.reply.err != RS_OK;
}

static enum rs_err
create(const struct wake_start *start, const char *request)
{
	struct stream_head h = { .dialect = start->dialect };
	struct spool_writer *w = NULL;
	enum rs_err err;

	strcpy(h.owner, start->owner);
	strcpy(h.model, start->model);
	strcpy(h.request, request);
	strcpy(h.socket, "s-0123456789abcdef.sock");
	h.turn = start->turn;
	h.created_ms = 1000;
	err = spool_create(fake_wake.spool, &start->key, &h, &w);
	spool_writer_free(w);
	return err;
}

enum rs_err
wake_start(struct wake_client *w, const struct wake_start *start,
    const char *prompt, size_t len, struct wake_reply *ret)
{
	(void)w;
	fake_wake.starts++;
	fake_wake.start = *start;
	buf_clear(&fake_wake.prompt);
	buf_add(&fake_wake.prompt, prompt, len);
	if (answered(ret))
		return fake_wake.err;
	if (fake_wake.first_request != NULL)
		ck_assert_int_eq(create(start, fake_wake.first_request),
		    RS_OK);
	ret->err = create(start, start->request);
	return RS_OK;
}

enum rs_err
wake_seal(struct wake_client *w, const struct stream_key *k,
    struct wake_reply *ret)
{
	(void)w;
	fake_wake.seals++;
	if (answered(ret))
		return fake_wake.err;
	ret->err = spool_seal(fake_wake.spool, k);
	return RS_OK;
}

enum rs_err
wake_stop(struct wake_client *w, const struct stream_key *k,
    const struct stream_head *head, struct wake_reply *ret)
{
	(void)head;
	fake_wake.stops++;
	if (!fake_wake.alive)
		return RS_ECLOSED;
	return wake_seal(w, k, ret);
}

enum rs_err
wake_delete(struct wake_client *w, const struct stream_key *k,
    struct wake_reply *ret)
{
	(void)w;
	fake_wake.deletes++;
	if (answered(ret))
		return fake_wake.err;
	ret->err = spool_delete(fake_wake.spool, k);
	return RS_OK;
}

enum rs_err
wake_forget(struct wake_client *w, const struct stream_key *session,
    struct wake_reply *ret)
{
	(void)w;
	if (answered(ret))
		return fake_wake.err;
	ret->err = conv_delete(fake_wake.spool, session);
	return RS_OK;
}

enum rs_err
wake_alive(struct wake_client *w, const struct stream_key *k,
    const struct stream_head *head)
{
	(void)w;
	(void)k;
	(void)head;
	return fake_wake.alive ? RS_OK : RS_ECLOSED;
}

enum rs_err
wake_ready(struct wake_client *w, enum rs_err *ret_spool)
{
	(void)w;
	*ret_spool = fake_wake.reply.err;
	return fake_wake.err;
}

void
follow_add(struct follow_loop *l, struct client *c,
    const struct spool_reader *r, const struct stream_key *k, uint64_t off,
    uint64_t next_id)
{
	struct spool_reader mine = *r;

	(void)l;
	fake_wake.follows++;
	fake_wake.followed = *k;
	fake_wake.off = off;
	fake_wake.next_id = next_id;
	spool_reader_done(&mine);
	client_finish(c);
}

void
follow_add_whole(struct follow_loop *l, struct client *c,
    const struct spool_reader *r, const struct stream_key *k, uint64_t off,
    const struct buf *head)
{
	static const char status[] = "Status: 200 OK\r\n";

	fake_wake.wholes++;
	client_write(c, status, sizeof status - 1);
	client_write(c, head->data, head->len);
	client_write(c, "{}", 2);
	follow_add(l, c, r, k, off, 0);
}
