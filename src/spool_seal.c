/* spool_seal.c - ending the streams whose writers died. */
#include <unistd.h>

#include "clock.h"
#include "conv.h"
#include "log.h"
#include "metrics.h"
#include "money.h"
#include "spool.h"
#include "spool_impl.h"
#include "sse.h"
#include "usage.h"

/* What is known when the writer can no longer say it. */
static void
seal_ending(const struct spool_reader *r,
    const struct fold *fold, const struct stat *st, struct ending *ret)
{
	bool chunks = fold_has_chunks(fold);
	int64_t last_ms = spool_mtime_ms(st), now_ms = clock_wall_ms();

	*ret = (struct ending){
		.error = ERRTYPE_generation_lost,
		.finish = FINISH_UNKNOWN,
		.model = r->head.model,
		.usage = {
			.input = TOKENS_UNKNOWN,
			.cache_read = TOKENS_UNKNOWN,
			.cache_write = TOKENS_UNKNOWN,
			.output = chunks ? fold_tokens(fold) : TOKENS_UNKNOWN,
			.reasoning = TOKENS_UNKNOWN,
		},
		.cost = chunks ? fold_cost(fold) : MONEY_UNKNOWN,
		.estimated = chunks,
		.latency_ms = last_ms > r->head.created_ms ?
		    (uint64_t)(last_ms - r->head.created_ms) : 0,
		.first_token_ms = TOKENS_UNKNOWN,
		/* To whoever reads it live, it ends now. */
		.typing_ms = now_ms > r->head.created_ms ?
		    (uint64_t)(now_ms - r->head.created_ms) : 0,
	};
}

/* Cuts off what is not right and appends the ending, if there is none yet. */
static enum rs_err
seal_write(const struct stream_key *k, const struct spool_reader *r,
    const struct stream_tail *tail, const struct fold *fold,
    const struct stat *st, const struct ending *e)
{
	struct spool_writer w = { .fd = r->fd, .end = tail->end,
	    .block = (size_t)st->st_blksize };
	struct streamer s = {
		.dialect = r->head.dialect, .stream_id = k->id,
		.turn = &r->head.turn, .next_id = tail->count,
		.typing_over = fold_typing_over(fold),
	};
	struct buf b;
	enum rs_err err;

	if (tail->torn && ftruncate(r->fd, (off_t)tail->end) < 0)
		return RS_EIO;
	if (tail->ended)
		return RS_OK;
	buf_init(&b, 4 * SSE_FRAME_MAX);
	dialect_begin(&b, &s, r->head.model);
	dialect_end(&b, &s, e);
	err = b.err;
	if (err == RS_OK)
		err = spool_append(&w, b.data, b.len);
	buf_done(&b);
	return err;
}

/* The line of a conversation's turn, where there is one. */
static enum rs_err
seal_turn(struct spool *sp, const struct stream_key *k,
    const struct spool_reader *r, const struct fold *fold,
    const struct ending *e)
{
	const struct buf *text = fold_content(fold);
	enum rs_err err;

	if (r->head.dialect != DIALECT_CONVERSATION)
		return RS_OK;
	err = conv_answer(sp, k, &r->head, text->data, text->len, e, true);
	/* A session that is gone, or no file of ours, must not keep a stream
	 * from ending. */
	return err == RS_ENOENT || err == RS_ECORRUPT ? RS_OK : err;
}

/* The caller has its lock.  settle: even if it has ended. */
static enum rs_err
seal_locked(struct spool *sp, const struct stream_key *k,
    const struct spool_reader *r, const struct stat *st, bool settle)
{
	struct fold *fold;
	struct stream_tail tail;
	struct ending e;
	enum rs_err err;

	if ((err = fold_new((size_t)st->st_size, &fold)) != RS_OK)
		return err;
	if ((err = spool_scan(r, fold, &tail)) != RS_OK)
		goto out;
	seal_ending(r, fold, st, &e);
	if (tail.ended)
		e.error = ERRTYPE_none;
	else if (spool_foreign(sp, r->head.host, r->head.boot)) {
		err = RS_EFOREIGN;
		goto out;
	}
	/* A writer may die between its settle line and the terminal frame. */
	if (settle || (!tail.ended &&
	    !usage_settled(sp, k, r->head.created_ms)))
		err = usage_settle(sp, k, &r->head, &e);
	if (err == RS_OK && !tail.ended)
		err = seal_turn(sp, k, r, fold, &e);
	if (err == RS_OK)
		err = seal_write(k, r, &tail, fold, st, &e);
	/* Here, as several roads lead here, and it is the end of its story. */
	if (err == RS_OK && !tail.ended) {
		metrics_add(METRIC_streams_total + RESULT_lost, 1);
		metrics_add(METRIC_errors_total + e.error, 1);
		log_info("spool", "stream=%s sealed pid=%d reason=%s "
		    "frames=%llu", k->id, (int)getpid(),
		    errtype_info(e.error)->name,
		    (unsigned long long)tail.count);
	}
out:
	fold_free(fold);
	return err;
}

/* created_ms: of the only generation that is meant; -1: any. */
static enum rs_err
seal_stream(struct spool *sp, const struct stream_key *k, int64_t created_ms,
    bool settle)
{
	char name[SPOOL_NAME_SIZE];
	struct spool_reader r;
	struct stat st;
	enum rs_err err;
	int dir, fd;

	stream_file_name(k, name);
	if ((err = spool_shard_open(sp, name, false, &dir)) != RS_OK)
		return err;
	err = spool_file_lock(sp, dir, name, &fd, &st);
	close(dir);
	if (err != RS_OK)
		return err;
	err = st.st_size == 0 ? RS_ENOENT : spool_reader_init(fd, &r);
	if (err == RS_OK && created_ms >= 0 && r.head.created_ms != created_ms)
		err = RS_ENOENT;
	if (err == RS_OK)
		err = seal_locked(sp, k, &r, &st, settle);
	close(fd);
	return err;
}

enum rs_err
spool_seal(struct spool *sp, const struct stream_key *k)
{
	struct spool_reader r;
	struct stream_tail tail;
	enum rs_err err;

	err = seal_stream(sp, k, -1, false);
	if (err != RS_EBUSY || spool_find(sp, k, &r) != RS_OK)
		return err;
	/* A writer closes its file a moment after it has ended the stream. */
	if (spool_tail(&r, &tail) == RS_OK && tail.ended)
		err = RS_OK;
	else if (spool_foreign(sp, r.head.host, r.head.boot))
		err = RS_EFOREIGN;
	spool_reader_done(&r);
	return err;
}

enum rs_err
spool_recover(struct spool *sp, const struct stream_key *k,
    int64_t created_ms)
{
	return seal_stream(sp, k, created_ms, true);
}
