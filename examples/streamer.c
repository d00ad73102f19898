/* streamer.c - respool's C library alone: lines in, frames out, and back.
 *	streamer stream <text		the frames of /api/v1/stream
 *	streamer conversation <text	those of /convo_turn_stream
 *	streamer read <frames		the text again; to standard error
 *					what the other events say
 * Each line goes out when it has come in, so a slow source is seen live. */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dialect.h"
#include "jx.h"
#include "money.h"
#include "sse.h"
#include "text.h"

static uint64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* What b holds goes out at once; b is empty then. */
static int
put_out(struct buf *b)
{
	if (b->err != RS_OK) {
		fprintf(stderr, "streamer: %s\n", rs_strerror(b->err));
		return -1;
	}
	if (b->len > 0 && (fwrite(b->data, 1, b->len, stdout) != b->len ||
	    fflush(stdout) != 0)) {
		perror("streamer: standard output");
		return -1;
	}
	buf_clear(b);
	return 0;
}

/* One line as chunks, which are cut between characters where it is long; the
 * sum of their estimated tokens goes to *sum. */
static int
write_line(struct buf *b, struct streamer *s, const char *line, size_t len,
    uint64_t *sum)
{
	struct delta d = { .kind = DELTA_CONTENT };

	for (; len > 0; line += d.len, len -= d.len) {
		d.text = line;
		d.len = utf8_cut(line, len, SSE_TEXT_MAX);
		d.tokens = (d.len + 3) / 4;
		*sum += d.tokens;
		dialect_chunk(b, s, &d, MONEY_UNKNOWN);
		if (put_out(b) < 0)
			return -1;
	}
	return 0;
}

static int
write_frames(enum dialect dialect)
{
	const struct turn turn = { .session = "session_1",
		.animal = "lion_001", .name = "Leo", .number = 1 };
	struct streamer s = { .dialect = dialect, .stream_id = "stream_1",
		.turn = dialect == DIALECT_CONVERSATION ? &turn : NULL };
	struct ending end = { .model = "lines", .finish = FINISH_STOP,
		.usage = { TOKENS_UNKNOWN, TOKENS_UNKNOWN, TOKENS_UNKNOWN, 0,
		    TOKENS_UNKNOWN },
		.cost = MONEY_UNKNOWN, .estimated = true,
		.first_token_ms = TOKENS_UNKNOWN };
	uint64_t began = now_ms();
	char *line = NULL;
	size_t size = 0;
	struct buf b;
	ssize_t len;
	int status;

	/* As much as is put in before put_out empties it: two frames. */
	buf_init(&b, 2 * SSE_FRAME_MAX);
	dialect_begin(&b, &s, end.model);
	status = put_out(&b);
	while (status == 0 && (len = getline(&line, &size, stdin)) > 0) {
		if (s.messages == 0)
			end.first_token_ms = now_ms() - began;
		status = write_line(&b, &s, line, (size_t)len,
		    &end.usage.output);
	}
	if (status == 0) {
		if (ferror(stdin))
			end.error = ERRTYPE_upstream_truncated;
		end.latency_ms = end.typing_ms = now_ms() - began;
		dialect_end(&b, &s, &end);
		status = put_out(&b);
	}
	free(line);
	buf_done(&b);
	return status == 0 && end.error == ERRTYPE_none ? 0 : 1;
}

/* Whether the last frame was seen, and whether it says that all is well. */
struct outcome {
	int ended, good;
};

static enum rs_err
read_event(void *arg, const struct sse_event *ev)
{
	struct outcome *outcome = arg;
	enum rs_err err = RS_OK;
	struct json_object *o;
	const char *text, *why;
	size_t len;

	/* What the bytes ended within comes again after a reconnect. */
	if (ev->kind != SSE_EVENT || ev->cut)
		return RS_OK;
	if (strcmp(ev->name, "message_chunk") != 0 &&
	    strcmp(ev->name, "message") != 0) {
		outcome->good = strcmp(ev->name, "done") == 0 ||
		    strcmp(ev->name, "complete") == 0;
		outcome->ended = outcome->good ||
		    strcmp(ev->name, "error") == 0;
		fprintf(stderr, "%s %s %s\n", ev->id, ev->name, ev->data);
		return RS_OK;
	}
	if (jx_parse(ev->data, ev->data_len, &o, &why) != RS_OK)
		return RS_EPROTO;
	if (jx_get_str(o, "content", &text, &len) == RS_OK &&
	    (fwrite(text, 1, len, stdout) != len || fflush(stdout) != 0))
		err = RS_EIO;
	json_object_put(o);
	return err;
}

static int
read_frames(void)
{
	struct outcome outcome = { 0, 0 };
	struct sse_parser parser;
	enum rs_err err = RS_OK;
	char bytes[4096];
	ssize_t n = 0;

	sse_parser_init(&parser, SSE_FRAME_MAX);
	while (err == RS_OK && (n = read(0, bytes, sizeof bytes)) > 0)
		err = sse_parser_feed(&parser, bytes, (size_t)n, read_event,
		    &outcome);
	if (err == RS_OK && n < 0)
		err = rs_from_errno(errno);
	if (err == RS_OK)
		err = sse_parser_eof(&parser, read_event, &outcome);
	sse_parser_done(&parser);
	if (err != RS_OK)
		fprintf(stderr, "streamer: %s\n", rs_strerror(err));
	else if (!outcome.ended)
		fprintf(stderr, "streamer: the stream broke off\n");
	return err == RS_OK && outcome.good ? 0 : 1;
}

int
main(int argc, char **argv)
{
	enum dialect dialect;

	if (argc == 2 && strcmp(argv[1], "read") == 0)
		return read_frames();
	if (argc == 2 && dialect_find(argv[1], &dialect) == RS_OK)
		return write_frames(dialect);
	fprintf(stderr, "usage: streamer stream|conversation|read\n");
	return 2;
}
