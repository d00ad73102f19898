/* check_http.c - requests to upstreams: a server in a thread of the test,
 * which says what each row wants said and notes what it saw. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "fdio.h"
#include "http.h"
#include "loop.h"

#define WAIT_MS 60000 /* for what must come */

static struct loop loop;
static struct http *http;

/* ---- the server ---- */

static int listen_fd = -1;
static char url[64];
static pthread_t server;
static bool serving;
static char request[4 << 20]; /* the last one */
static size_t request_len;
static _Atomic unsigned accepted, requests;
static sem_t go;	/* the test tells the server to go on */
static sem_t gone;	/* the server saw its client go */

static int
take(void)
{
	struct pollfd pfd = { .fd = listen_fd, .events = POLLIN };
	int fd, on = 1;

	if (poll(&pfd, 1, WAIT_MS) != 1)
		return -1;
	fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	accepted++;
	return fd;
}

/* A whole request; false: the client has closed. */
static bool
hear(int fd)
{
	char *end = NULL, *length;
	size_t want = 0;
	ssize_t n;

	request_len = 0;
	while (end == NULL || request_len < want) {
		n = read(fd, request + request_len,
		    sizeof request - 1 - request_len);
		if (n <= 0)
			return false;
		request_len += (size_t)n;
		request[request_len] = '\0';
		if (end == NULL && (end = strstr(request, "\r\n\r\n"))) {
			length = strstr(request, "Content-Length: ");
			want = (size_t)(end - request) + 4 +
			    (length == NULL ? 0 : (size_t)atol(length + 16));
		}
	}
	requests++;
	return true;
}

static void
say(int fd, const char *text)
{
	(void)fd_write_full(fd, text, strlen(text));
}

/* With a reset where a close would be. */
static void
reset(int fd)
{
	struct linger now = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	close(fd);
}

static void
wait_for(sem_t *s)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_sec += WAIT_MS / 1000;
	while (sem_timedwait(s, &t) < 0 && errno == EINTR)
		continue;
}

static void
serve(void *(*fn)(void *), void *arg)
{
	ck_assert_int_eq(pthread_create(&server, NULL, fn, arg), 0);
	serving = true;
}

static void
listen_here(void)
{
	struct sockaddr_in sin = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof sin;

	listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(listen_fd, (struct sockaddr *)&sin, len), 0);
	ck_assert_int_eq(listen(listen_fd, 1024), 0);
	getsockname(listen_fd, (struct sockaddr *)&sin, &len);
	snprintf(url, sizeof url, "http://127.0.0.1:%d/v1/x?y=1",
	    ntohs(sin.sin_port));
}

/* ---- the client ---- */

enum event { NO_EVENT, CONNECTED, HEAD, DATA, OVER };

/* What came of a call. */
struct seen {
	struct http_call *call;
	unsigned connected, heads, overs;
	struct http_head head;
	struct buf data;
	enum errtype why;
	enum event cancel_at;	/* cancels itself there */
	struct seen *start_at_over, *start_at_data; /* starts another one */
	struct seen *cancel_at_data; /* cancels another one */
	bool let_go_at_data;
};

static void start(struct seen *s, const char *to, const char *body);

static void
came(struct seen *s, enum event e)
{
	ck_assert_ptr_nonnull(s->call);
	if (s->cancel_at == e) {
		http_cancel(s->call);
		s->call = NULL;
	}
}

static void
on_connected(void *arg)
{
	struct seen *s = arg;

	ck_assert_uint_eq(s->heads, 0);
	s->connected++;
	came(s, CONNECTED);
}

static void
on_head(void *arg, const struct http_head *head)
{
	struct seen *s = arg;

	ck_assert_uint_eq(s->data.len, 0);
	s->heads++;
	s->head = *head;
	came(s, HEAD);
}

static void
on_data(void *arg, const char *p, size_t n)
{
	struct seen *s = arg;

	ck_assert_uint_eq(s->heads, 1);
	buf_add(&s->data, p, n);
	came(s, DATA);
	if (s->let_go_at_data) {
		http_let_go(s->call);
		s->call = NULL; /* came() would mind */
	}
	if (s->start_at_data != NULL)
		start(s->start_at_data, url, "second");
	s->start_at_data = NULL;
	if (s->cancel_at_data != NULL) {
		http_cancel(s->cancel_at_data->call);
		s->cancel_at_data->call = NULL;
	}
	s->cancel_at_data = NULL;
}

static void
on_over(void *arg, enum errtype why)
{
	struct seen *s = arg;

	came(s, OVER);
	s->call = NULL;
	s->overs++;
	s->why = why;
	ck_assert_int_eq(http_why(http)[0] == '\0', why == ERRTYPE_none);
	if (s->start_at_over != NULL)
		start(s->start_at_over, url, "second");
}

static const struct http_events events = {
	.connected = on_connected, .head = on_head, .data = on_data,
	.over = on_over,
};

static enum rs_err
try_start(struct seen *s, const char *to, const char *body, const char *value,
    uint64_t connect_ms)
{
	struct http_req r;
	enum rs_err err;

	buf_init(&s->data, 64 << 20);
	http_req_init(&r);
	buf_puts(&r.url, to);
	http_req_header(&r, "Content-Type", "application/json");
	http_req_header(&r, "Authorization", value);
	buf_puts(&r.body, body);
	err = http_start(http, &r, connect_ms, &events, s, &s->call);
	http_req_done(&r);
	return err;
}

static void
start(struct seen *s, const char *to, const char *body)
{
	*s = (struct seen){
		.cancel_at = s->cancel_at, .start_at_over = s->start_at_over,
		.start_at_data = s->start_at_data,
		.cancel_at_data = s->cancel_at_data,
		.let_go_at_data = s->let_go_at_data,
	};
	ck_assert_int_eq(try_start(s, to, body, "Bearer key", WAIT_MS), RS_OK);
	ck_assert_uint_eq(s->connected, 0);
}

#define LOOP_UNTIL(condition)                                                \
	do {                                                                 \
		uint64_t end_ns = clock_mono_ns() + WAIT_MS * NS_PER_MS;     \
		while (!(condition)) {                                       \
			ck_assert_msg(clock_mono_ns() < end_ns, #condition); \
			loop_turn(&loop, 100);                               \
		}                                                            \
	} while (0)

/* Asks for url and waits for the end. */
static void
ask(struct seen *s, const char *body)
{
	start(s, url, body);
	LOOP_UNTIL(s->overs == 1);
}

static void
setup(void)
{
	sem_init(&go, 0, 0);
	sem_init(&gone, 0, 0);
	ck_assert_int_eq(loop_init(&loop), RS_OK);
	ck_assert_int_eq(http_new(&loop, "", &http), RS_OK);
	listen_here();
}

static void
teardown(void)
{
	if (serving) {
		sem_post(&go);
		pthread_join(server, NULL);
	}
	http_free(http);
	loop_done(&loop);
	if (listen_fd >= 0)
		close(listen_fd);
}

/* ---- requests ---- */

static void *
answer_once(void *arg)
{
	int fd = take();

	if (hear(fd))
		say(fd, arg);
	wait_for(&go); /* the connection stays */
	close(fd);
	return NULL;
}

#define OK_EMPTY "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

START_TEST(a_request_says_what_it_was_given_and_nothing_of_us)
{
	static const char want[] =
	    "POST /v1/x?y=1 HTTP/1.1\r\n"
	    "Host: 127.0.0.1:%s\r\n"
	    "User-Agent: respool/" PACKAGE_VERSION "\r\n"
	    "Accept: */*\r\n"
	    "Content-Type: application/json\r\n"
	    "Authorization: Bearer key\r\n"
	    "Content-Length: 7\r\n\r\n{\"a\":1}";
	char text[512], port[8];
	struct seen s = { 0 };

	sscanf(url, "http://127.0.0.1:%7[0-9]", port);
	serve(answer_once, (void *)OK_EMPTY);
	ask(&s, "{\"a\":1}");
	snprintf(text, sizeof text, want, port);
	ck_assert_str_eq(request, text);
	ck_assert_uint_eq(s.connected, 1);
	ck_assert_int_eq(s.why, ERRTYPE_none);
	buf_done(&s.data);
}
END_TEST

START_TEST(a_large_body_arrives_whole)
{
	static char body[3 << 20];
	struct seen s = { 0 };

	memset(body, 'x', sizeof body - 1);
	serve(answer_once, (void *)OK_EMPTY);
	ask(&s, body);
	ck_assert_ptr_nonnull(strstr(request, "Content-Length: 3145727\r\n"));
	ck_assert_ptr_null(strstr(request, "Expect:"));
	ck_assert_str_eq(strstr(request, "\r\n\r\n") + 4, body);
	ck_assert_int_eq(s.why, ERRTYPE_none);
	buf_done(&s.data);
}
END_TEST

static const struct {
	const char *url, *value;
	enum rs_err err;
} refused[] = {
	{ "http://127.0.0.1:1/", "ok", RS_OK },
	{ "https://127.0.0.1:1/", "ok", RS_OK },
	{ "", "ok", RS_EINVAL },
	{ "127.0.0.1:1/", "ok", RS_EINVAL },
	{ "file:///etc/passwd", "ok", RS_EINVAL },
	{ "ftp://127.0.0.1/", "ok", RS_EINVAL },
	{ "http://", "ok", RS_EINVAL },
	{ "http://127.0.0.1:99999/", "ok", RS_EINVAL },
	{ "http://127.0.0.1:1/\r\nX: y", "ok", RS_EINVAL },
	{ "http://127.0.0.1:1/", "key\nX: y", RS_EINVAL },
	{ "http://127.0.0.1:1/", "key\r", RS_EINVAL },
};

START_TEST(an_url_or_a_header_that_could_mean_something_else_is_refused)
{
	struct seen s = { 0 };

	ck_assert_int_eq(try_start(&s, refused[_i].url, "", refused[_i].value,
	    0), refused[_i].err);
	http_cancel(s.call);
	ck_assert_uint_eq(s.overs, 0);
}
END_TEST

/* ---- responses ---- */

#define OK_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
#define CHUNKED OK_HEAD "Transfer-Encoding: chunked\r\n\r\n"

static const struct response {
	const char *what, *text;
	size_t len;	/* 0: strlen(text) */
	bool reset;	/* in place of a close, which follows the text */
	unsigned status;	/* 0: no head comes */
	const char *data;
	enum errtype why;
} responses[] = {
	{ "length", OK_HEAD "Content-Length: 5\r\n\r\nhello", 0, false, 200,
	    "hello", ERRTYPE_none },
	{ "chunks", CHUNKED "2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", 0, false,
	    200, "hello", ERRTYPE_none },
	{ "until the close", OK_HEAD "\r\nhello", 0, false, 200, "hello",
	    ERRTYPE_none },
	{ "trailers", CHUNKED "5\r\nhello\r\n0\r\nX-Request-Id: late\r\n\r\n",
	    0, false, 200, "hello", ERRTYPE_none },
	{ "interim heads", "HTTP/1.1 103 Early Hints\r\nX-Request-Id: no\r\n"
	    "Link: <x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
	    OK_HEAD "Content-Length: 5\r\n\r\nhello", 0, false, 200, "hello",
	    ERRTYPE_none },
	{ "no content", "HTTP/1.1 204 No Content\r\n\r\n", 0, false, 204, "",
	    ERRTYPE_none },
	{ "an error", "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", 0,
	    false, 503, "busy", ERRTYPE_none },
	{ "a redirect", "HTTP/1.1 307 There\r\nLocation: /\r\n"
	    "Content-Length: 0\r\n\r\n", 0, false, 307, "", ERRTYPE_none },
	{ "credentials asked for", "HTTP/1.1 401 No\r\nContent-Length: 2\r\n"
	    "WWW-Authenticate: Basic realm=\"x\"\r\n\r\nno", 0, false, 401,
	    "no", ERRTYPE_none },
	{ "bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", 0,
	    false, 200, "hello", ERRTYPE_none },
	{ "short body", OK_HEAD "Content-Length: 6\r\n\r\nhello", 0, false,
	    200, "hello", ERRTYPE_upstream_truncated },
	{ "no last chunk", CHUNKED "5\r\nhello\r\n", 0, false, 200, "hello",
	    ERRTYPE_upstream_truncated },
	{ "half a chunk", CHUNKED "6\r\nhello", 0, false, 200, "hello",
	    ERRTYPE_upstream_truncated },
	{ "no chunk at all", CHUNKED, 0, false, 200, "",
	    ERRTYPE_upstream_truncated },
	{ "a bad chunk", CHUNKED "zz\r\nhello", 0, false, 200, "",
	    ERRTYPE_upstream_truncated },
	{ "nothing", "", 0, false, 0, "", ERRTYPE_upstream_truncated },
	{ "a reset at once", "", 0, true, 0, "", ERRTYPE_upstream_truncated },
	{ "an interim head only", "HTTP/1.1 100 Continue\r\n\r\n", 0, false, 0,
	    "", ERRTYPE_upstream_truncated },
	{ "half a head", "HTTP/1.1 200 OK\r\nContent-", 0, false, 0, "",
	    ERRTYPE_upstream_truncated },
	{ "not HTTP", "SSH-2.0-OpenSSH_9.2\r\nhello\r\n", 0, false, 0, "",
	    ERRTYPE_upstream_truncated },
	{ "an event stream without a head", "data: hello\n\n", 0, false, 0, "",
	    ERRTYPE_upstream_truncated },
#define GZIP_ONE "\x1f\x8b\x08\0\0\0\0\0\x02\x03\x4a\x49\x2c\x49\xb4\x52" \
	    "\xc8\xcf\x4b\xe5\xe2\x02\0\0\0\xff\xff"
#define GZIP_TWO "\x4b\x01\x33\x4b\xca\xf3\xb9\xb8\0\xa2\x0d\x4a\x3f\x16" \
	    "\0\0\0"
#define GZIP_HEAD OK_HEAD "Content-Encoding: gzip\r\n\r\n"
	{ "gzip", GZIP_HEAD GZIP_ONE GZIP_TWO,
	    sizeof GZIP_HEAD GZIP_ONE GZIP_TWO - 1, false, 200,
	    "data: one\n\ndata: two\n\n", ERRTYPE_none },
	{ "not gzip", GZIP_HEAD "hello hello hello", 0, false, 200, "",
	    ERRTYPE_upstream_truncated },
	{ "an encoding that nobody knows", OK_HEAD
	    "Content-Encoding: rot13\r\n\r\nuryyb", 0, false, 200, "",
	    ERRTYPE_upstream_truncated },
};

static size_t step; /* bytes that the server sends at once */

static void *
answer_row(void *arg)
{
	const struct response *r = arg;
	size_t len = r->len > 0 ? r->len : strlen(r->text), at, n;
	int fd = take();

	if (hear(fd))
		for (at = 0; at < len; at += n) {
			n = len - at < step ? len - at : step;
			if (send(fd, r->text + at, n, MSG_NOSIGNAL) < 0)
				break;
		}
	if (r->reset)
		reset(fd);
	else
		close(fd);
	return NULL;
}

static void
check_response(const struct response *r)
{
	struct seen s = { 0 };

	serve(answer_row, (void *)r);
	ask(&s, "body");
	pthread_join(server, NULL);
	serving = false;
	ck_assert_msg(s.why == r->why, "%s: %s", r->what,
	    errtype_info(s.why)->name);
	ck_assert_msg(s.head.status == r->status, "%s: %u", r->what,
	    s.head.status);
	ck_assert_uint_eq(s.heads, r->status == 0 ? 0 : 1);
	ck_assert_msg(strcmp(s.data.data == NULL ? "" : s.data.data,
	    r->data) == 0, "%s: %s", r->what, s.data.data);
	if (r->status == 200 && strstr(r->text, OK_HEAD) != NULL)
		ck_assert_str_eq(s.head.content_type, "text/event-stream");
	ck_assert_str_eq(s.head.request_id, "");
	ck_assert_uint_eq(requests, 1);
	ck_assert_uint_eq(accepted, 1);
	buf_done(&s.data);
}

START_TEST(a_response_is_whole_or_said_not_to_be)
{
	step = 1 << 20;
	check_response(&responses[_i]);
}
END_TEST

START_TEST(so_it_is_when_it_comes_byte_by_byte)
{
	step = 1;
	check_response(&responses[_i]);
}
END_TEST

static void *
answer_and_reset(void *arg)
{
	int fd = take();

	(void)arg;
	if (hear(fd))
		say(fd, CHUNKED "5\r\nhello\r\n");
	wait_for(&go);
	reset(fd);
	return NULL;
}

START_TEST(a_reset_in_the_middle_is_upstream_truncated)
{
	struct seen s = { 0 };

	serve(answer_and_reset, NULL);
	start(&s, url, "");
	LOOP_UNTIL(s.data.len == 5);
	sem_post(&go);
	LOOP_UNTIL(s.overs == 1);
	ck_assert_int_eq(s.why, ERRTYPE_upstream_truncated);
	buf_done(&s.data);
}
END_TEST

START_TEST(a_head_is_read_whatever_the_case_of_its_names)
{
	struct seen s = { 0 };

	serve(answer_once, (void *)"HTTP/1.1 429 Slow\r\n"
	    "CONTENT-TYPE:application/json; charset=utf-8 \r\n"
	    "x-Request-ID: \t req_1 \r\nRETRY-after: 7\r\n"
	    "retry-AFTER-ms: 1500\r\nX-Should-Retry: true\r\n"
	    "date: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
	    "Retry-After-Not: 9\r\nRetry: 8\r\nX:\r\n"
	    "Content-Length: 0\r\n\r\n");
	ask(&s, "");
	ck_assert_uint_eq(s.head.status, 429);
	ck_assert_str_eq(s.head.content_type,
	    "application/json; charset=utf-8");
	ck_assert_str_eq(s.head.request_id, "req_1");
	ck_assert_str_eq(s.head.retry_after, "7");
	ck_assert_str_eq(s.head.retry_after_ms, "1500");
	ck_assert_str_eq(s.head.should_retry, "true");
	ck_assert_str_eq(s.head.date, "Thu, 01 Jan 2026 00:00:00 GMT");
}
END_TEST

static void *
answer_long_fields(void *arg)
{
	static char line[2000];
	int fd = take();

	(void)arg;
	memset(line, 'x', sizeof line - 1);
	if (hear(fd)) {
		say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nRequest-Id: ");
		say(fd, line);
		say(fd, "\r\nX-Should-Retry: ");
		say(fd, line);
		say(fd, "\r\n\r\n");
	}
	close(fd);
	return NULL;
}

START_TEST(long_fields_are_cut)
{
	struct seen s = { 0 };

	serve(answer_long_fields, NULL);
	ask(&s, "");
	ck_assert_uint_eq(strlen(s.head.request_id),
	    sizeof s.head.request_id - 1);
	ck_assert_str_eq(s.head.should_retry, "xxxxxxx");
	ck_assert_int_eq(s.why, ERRTYPE_none);
}
END_TEST

static void *
answer_for_ever(void *arg)
{
	int fd = take();

	if (hear(fd)) {
		say(fd, "HTTP/1.1 100 Continue\r\n");
		while (fd_write_full(fd, arg, strlen(arg)) == RS_OK)
			continue;
	}
	close(fd);
	return NULL;
}

static const char *const endless[] = {
	"X-Y: zzzzzzzzzzzzzzzzzzzzzzzz\r\n",
	"\r\nHTTP/1.1 103 Early\r\n",
};

START_TEST(a_head_without_end_is_given_up)
{
	struct seen s = { 0 };

	serve(answer_for_ever, (void *)endless[_i]);
	ask(&s, "");
	ck_assert_uint_eq(s.heads, 0);
	ck_assert_int_eq(s.why, ERRTYPE_upstream_truncated);
}
END_TEST

/* Some 100 KB of it. */
static void *
answer_large_head(void *arg)
{
	int fd = take(), i;

	if (hear(fd)) {
		say(fd, "HTTP/1.1 200 OK\r\n");
		for (i = 0; i < 3500; i++)
			say(fd, arg);
		say(fd, "Content-Length: 0\r\n\r\n");
	}
	close(fd);
	return NULL;
}

START_TEST(so_is_one_that_is_too_large)
{
	struct seen s = { 0 };

	serve(answer_large_head, (void *)endless[0]);
	ask(&s, "");
	ck_assert_uint_eq(s.heads, 0);
	ck_assert_int_eq(s.why, ERRTYPE_upstream_truncated);
}
END_TEST

static void *
answer_in_two(void *arg)
{
	int fd = take();

	(void)arg;
	if (hear(fd)) {
		(void)fd_write_full(fd, GZIP_HEAD GZIP_ONE,
		    sizeof GZIP_HEAD GZIP_ONE - 1);
		wait_for(&go);
		(void)fd_write_full(fd, GZIP_TWO, sizeof GZIP_TWO - 1);
	}
	close(fd);
	return NULL;
}

START_TEST(compression_that_nobody_asked_for_is_undone_as_it_comes)
{
	struct seen s = { 0 };

	serve(answer_in_two, NULL);
	start(&s, url, "");
	LOOP_UNTIL(s.data.len == 11);
	ck_assert_str_eq(s.data.data, "data: one\n\n");
	sem_post(&go);
	LOOP_UNTIL(s.overs == 1);
	ck_assert_str_eq(s.data.data, "data: one\n\ndata: two\n\n");
	ck_assert_int_eq(s.why, ERRTYPE_none);
	buf_done(&s.data);
}
END_TEST

/* ---- kept connections ---- */

#define OK_BODY "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

/* Answers all requests of one connection. */
static void *
answer_all(void *arg)
{
	int fd = take();

	while (hear(fd))
		say(fd, arg);
	close(fd);
	return NULL;
}

START_TEST(a_connection_is_kept_for_the_next_call)
{
	struct seen s = { 0 };
	int i;

	serve(answer_all, (void *)OK_BODY);
	for (i = 0; i < 5; i++) {
		ask(&s, "again");
		ck_assert_int_eq(s.why, ERRTYPE_none);
		ck_assert_uint_eq(s.connected, 1);
		ck_assert_str_eq(s.data.data, "hello");
		buf_done(&s.data);
	}
	ck_assert_uint_eq(accepted, 1);
	ck_assert_uint_eq(requests, 5);
	http_free(http); /* closes it */
	pthread_join(server, NULL);
	serving = false;
	ck_assert_int_eq(http_new(&loop, "", &http), RS_OK);
}
END_TEST

enum dying { AFTER_ANSWER, AT_REQUEST, AT_REQUEST_RESET, HALF_ANSWERED };

/* A connection that answers one request and then dies, and one that lives. */
static void *
answer_and_die(void *arg)
{
	enum dying when = *(enum dying *)arg;
	int fd = take();

	if (hear(fd))
		say(fd, OK_BODY);
	if (when == AFTER_ANSWER) {
		close(fd);
		sem_post(&gone);
	} else {
		hear(fd);
		if (when == HALF_ANSWERED)
			say(fd, "HTTP/1.1 200 OK\r\nContent-");
		if (when == AT_REQUEST_RESET)
			reset(fd);
		else
			close(fd);
	}
	return answer_all((void *)OK_BODY);
}

START_TEST(a_kept_connection_that_died_is_replaced_unseen)
{
	enum dying when = (enum dying)_i;
	struct seen s = { 0 };

	serve(answer_and_die, &when);
	ask(&s, "first");
	buf_done(&s.data);
	if (when == AFTER_ANSWER)
		wait_for(&gone);
	ask(&s, "the second body");
	ck_assert_uint_eq(s.connected, 1);
	if (when == HALF_ANSWERED) {
		/* It may have been worked on, and be paid for. */
		ck_assert_int_eq(s.why, ERRTYPE_upstream_truncated);
		ck_assert_uint_eq(requests, 2);
		shutdown(listen_fd, SHUT_RDWR);
		return;
	}
	ck_assert_int_eq(s.why, ERRTYPE_none);
	ck_assert_str_eq(s.data.data, "hello");
	ck_assert_str_eq(strstr(request, "\r\n\r\n") + 4, "the second body");
	ck_assert_uint_eq(requests, when == AFTER_ANSWER ? 2 : 3);
	ck_assert_uint_eq(accepted, 2);
	buf_done(&s.data);
	http_free(http);
	ck_assert_int_eq(http_new(&loop, "", &http), RS_OK);
}
END_TEST

/* ---- cancelling and starting ---- */

/* Sends a stream without end and says when its client has gone. */
static void *
answer_until_gone(void *arg)
{
	struct pollfd pfd = { .events = POLLIN };
	int fd = take();

	(void)arg;
	if (hear(fd)) {
		say(fd, CHUNKED "5\r\nhello\r\n");
		pfd.fd = fd;
		while (poll(&pfd, 1, 10) == 0)
			if (send(fd, "1\r\nx\r\n", 6, MSG_NOSIGNAL) < 0)
				break;
	}
	close(fd);
	sem_post(&gone);
	return NULL;
}

START_TEST(a_call_cancelled_in_an_event_is_gone_in_that_turn)
{
	struct seen s = { .cancel_at = (enum event)_i };

	serve(answer_until_gone, NULL);
	start(&s, url, "");
	LOOP_UNTIL(s.call == NULL);
	/* No further turn: the server sees it at once. */
	wait_for(&gone);
	pthread_join(server, NULL);
	serving = false;
	while (loop_turn(&loop, 0) > 0)
		continue;
	ck_assert_uint_eq(s.overs, 0);
	ck_assert_uint_eq(s.heads, s.cancel_at >= HEAD);
	ck_assert_uint_eq(loop.timers.count, 0);
	buf_done(&s.data);
}
END_TEST

START_TEST(a_call_cancelled_between_turns_is_closed_at_once)
{
	struct seen s = { 0 };

	serve(answer_until_gone, NULL);
	start(&s, url, "");
	LOOP_UNTIL(s.data.len >= 5);
	http_cancel(s.call);
	wait_for(&gone);
	buf_done(&s.data);
}
END_TEST

START_TEST(a_call_can_be_cancelled_before_anything_happened)
{
	struct seen s = { 0 };

	start(&s, url, "");
	http_cancel(s.call);
	while (loop_turn(&loop, 0) > 0)
		continue;
	ck_assert_uint_eq(s.connected + s.overs, 0);
	http_cancel(NULL);
}
END_TEST

START_TEST(a_call_can_begin_in_the_over_of_another)
{
	struct seen second = { 0 }, s = { .start_at_over = &second };

	serve(answer_all, (void *)OK_BODY);
	ask(&s, "first");
	LOOP_UNTIL(second.overs == 1);
	ck_assert_str_eq(strstr(request, "\r\n\r\n") + 4, "second");
	ck_assert_int_eq(second.why, ERRTYPE_none);
	buf_done(&s.data);
	buf_done(&second.data);
	http_free(http);
	ck_assert_int_eq(http_new(&loop, "", &http), RS_OK);
}
END_TEST

START_TEST(a_call_can_begin_in_the_data_of_another_that_is_cancelled)
{
	struct seen second = { 0 };
	struct seen s = { .cancel_at = DATA, .start_at_data = &second };

	serve(answer_all, (void *)CHUNKED "5\r\nhello\r\n");
	start(&s, url, "first");
	LOOP_UNTIL(second.call != NULL);
	ck_assert_ptr_null(s.call);
	/* The server takes no second connection. */
	LOOP_UNTIL(second.connected == 1);
	http_cancel(second.call);
	ck_assert_uint_eq(second.overs + s.overs, 0);
	buf_done(&s.data);
}
END_TEST

START_TEST(a_call_may_cancel_another_even_one_begun_in_the_same_event)
{
	struct seen second = { 0 }, s = {
		.start_at_data = &second, .cancel_at_data = &second,
	};

	serve(answer_all, (void *)OK_BODY);
	ask(&s, "first");
	ck_assert_int_eq(s.why, ERRTYPE_none);
	ck_assert_ptr_null(second.call);
	while (loop_turn(&loop, 0) > 0)
		continue;
	ck_assert_uint_eq(second.connected + second.overs, 0);
	ck_assert_uint_eq(requests, 1);
	buf_done(&s.data);
	http_free(http);
	ck_assert_int_eq(http_new(&loop, "", &http), RS_OK);
}
END_TEST

/* Ends a response after the client has lost interest, and answers the next
 * request on the same connection. */
static void *
answer_late(void *arg)
{
	int fd = take();

	(void)arg;
	if (hear(fd))
		say(fd, CHUNKED "5\r\nhello\r\n");
	wait_for(&go);
	say(fd, "3\r\nyou\r\n0\r\n\r\n");
	if (hear(fd))
		say(fd, OK_BODY);
	hear(fd);
	close(fd);
	return NULL;
}

START_TEST(the_connection_of_one_let_go_is_kept_when_it_ends_soon)
{
	struct seen s = { .let_go_at_data = true }, second = { 0 };

	serve(answer_late, NULL);
	start(&s, url, "");
	LOOP_UNTIL(s.data.len == 5);
	sem_post(&go);
	LOOP_UNTIL(loop.timers.count == 0);
	ck_assert_uint_eq(s.overs, 0);
	ck_assert_uint_eq(s.data.len, 5);
	ask(&second, "");
	ck_assert_int_eq(second.why, ERRTYPE_none);
	ck_assert_uint_eq(accepted, 1);
	buf_done(&s.data);
	buf_done(&second.data);
	http_free(http);
	ck_assert_int_eq(http_new(&loop, "", &http), RS_OK);
}
END_TEST

START_TEST(the_connection_of_one_let_go_is_closed_when_it_goes_on)
{
	struct seen s = { .let_go_at_data = true };

	serve(answer_until_gone, NULL);
	start(&s, url, "");
	LOOP_UNTIL(loop.timers.count == 0);
	wait_for(&gone);
	ck_assert_uint_eq(s.overs, 0);
	buf_done(&s.data);
}
END_TEST

START_TEST(one_let_go_may_be_left_when_all_ends)
{
	struct seen s = { .let_go_at_data = true };

	serve(answer_until_gone, NULL);
	start(&s, url, "");
	LOOP_UNTIL(s.data.len >= 5);
	http_free(http);
	wait_for(&gone);
	ck_assert_int_eq(http_new(&loop, "", &http), RS_OK);
	buf_done(&s.data);
}
END_TEST

/* ---- connections that do not come ---- */

static _Atomic bool resolver_hangs;
static sem_t resolver_called;

/* In place of the C library's, for libcurl's thread. */
int
getaddrinfo(const char *node, const char *service,
    const struct addrinfo *hints, struct addrinfo **ret)
{
	(void)node, (void)service, (void)hints, (void)ret;
	sem_post(&resolver_called);
	while (resolver_hangs)
		poll(NULL, 0, 10);
	return EAI_NONAME;
}

START_TEST(a_name_that_does_not_exist_is_connect_failed)
{
	struct seen s = { 0 };

	sem_init(&resolver_called, 0, 0);
	start(&s, "https://api.example.invalid/v1", "");
	LOOP_UNTIL(s.overs == 1);
	ck_assert_int_eq(s.why, ERRTYPE_connect_failed);
	ck_assert_ptr_nonnull(strstr(http_why(http), "example.invalid"));
	ck_assert_uint_eq(s.connected, 0);
}
END_TEST

/* libcurl asks in a thread, and by default waits for it. */
START_TEST(a_resolver_that_hangs_holds_nobody)
{
	struct seen s = { 0 };

	sem_init(&resolver_called, 0, 0);
	resolver_hangs = true;
	ck_assert_int_eq(try_start(&s, "https://api.example.invalid/v1", "",
	    "x", _i == 0 ? WAIT_MS : 100), RS_OK);
	loop_turn(&loop, 0);
	wait_for(&resolver_called);
	/* Here the test would hang. */
	if (_i == 0) {
		http_cancel(s.call);
	} else {
		LOOP_UNTIL(s.overs == 1);
		ck_assert_int_eq(s.why, ERRTYPE_connect_timeout);
	}
	http_free(http);
	ck_assert_int_eq(http_new(&loop, "", &http), RS_OK);
	resolver_hangs = false;
}
END_TEST

START_TEST(a_closed_port_is_connect_failed)
{
	struct seen s = { 0 };

	close(listen_fd);
	listen_fd = -1;
	ask(&s, "");
	ck_assert_int_eq(s.why, ERRTYPE_connect_failed);
	ck_assert_uint_eq(s.connected, 0);
}
END_TEST

START_TEST(a_tls_handshake_without_answer_is_connect_timeout)
{
	struct seen s = { 0 };
	char secure[80];

	/* The kernel accepts, nobody answers. */
	snprintf(secure, sizeof secure, "https%s", url + 4);
	ck_assert_int_eq(try_start(&s, secure, "", "key", 50), RS_OK);
	LOOP_UNTIL(s.overs == 1);
	ck_assert_int_eq(s.why, ERRTYPE_connect_timeout);
	ck_assert_uint_eq(s.connected, 0);
	ck_assert_uint_eq(loop.timers.count, 0);
}
END_TEST

/* Each waits for the first one's connection, to share it. */
START_TEST(those_that_wait_for_a_shared_connection_time_out_too)
{
	static struct seen s[20];
	char secure[80];
	unsigned i, over = 0;

	snprintf(secure, sizeof secure, "https%s", url + 4);
	for (i = 0; i < 20; i++)
		ck_assert_int_eq(try_start(&s[i], secure, "", "key",
		    i == 0 ? WAIT_MS : 50), RS_OK);
	LOOP_UNTIL(loop.timers.count <= 2);
	for (i = 0; i < 20; i++)
		over += s[i].overs == 1 && s[i].why == ERRTYPE_connect_timeout;
	ck_assert_uint_eq(over, 19);
	http_cancel(s[0].call);
}
END_TEST

static void *
answer_plainly(void *arg)
{
	int fd = take();

	(void)arg;
	say(fd, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
	wait_for(&go);
	close(fd);
	return NULL;
}

START_TEST(a_server_without_tls_is_tls)
{
	struct seen s = { 0 };
	char secure[80];

	snprintf(secure, sizeof secure, "https%s", url + 4);
	serve(answer_plainly, NULL);
	start(&s, secure, "");
	LOOP_UNTIL(s.overs == 1);
	ck_assert_int_eq(s.why, ERRTYPE_tls);
	ck_assert_uint_eq(s.connected, 0);
}
END_TEST

/* ---- many ---- */

enum { MANY = 1000 };

struct peer {
	int fd;
	char body[32];
};

/* Takes MANY connections; when all have asked, answers each with its own body,
 * a byte a round. */
static void *
answer_many(void *arg)
{
	static struct peer peers[MANY];
	char text[64];
	int i, k;

	(void)arg;
	for (i = 0; i < MANY; i++) {
		peers[i].fd = take();
		if (peers[i].fd < 0 || !hear(peers[i].fd))
			return NULL;
		snprintf(peers[i].body, sizeof peers[i].body, "%s",
		    strstr(request, "\r\n\r\n") + 4);
		say(peers[i].fd, CHUNKED);
	}
	for (k = 0; k < 7; k++)
		for (i = 0; i < MANY; i++) {
			snprintf(text, sizeof text, "1\r\n%c\r\n%s",
			    peers[i].body[k], k == 6 ? "0\r\n\r\n" : "");
			say(peers[i].fd, text);
		}
	for (i = 0; i < MANY; i++)
		close(peers[i].fd);
	return NULL;
}

static unsigned
count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

START_TEST(a_thousand_streams_do_not_get_mixed_up)
{
	static struct seen s[MANY];
	unsigned fds = count_fds(), i;
	char body[32];

	fd_raise_limit();
	serve(answer_many, NULL);
	for (i = 0; i < MANY; i++) {
		snprintf(body, sizeof body, "<%05u>", i);
		start(&s[i], url, body);
	}
	for (i = 0; i < MANY; i++)
		LOOP_UNTIL(s[i].overs == 1);
	for (i = 0; i < MANY; i++) {
		snprintf(body, sizeof body, "<%05u>", i);
		ck_assert_int_eq(s[i].why, ERRTYPE_none);
		ck_assert_str_eq(s[i].data.data, body);
		buf_done(&s[i].data);
	}
	ck_assert_uint_eq(accepted, MANY);
	pthread_join(server, NULL);
	serving = false;
	http_free(http);
	ck_assert_int_eq(http_new(&loop, "", &http), RS_OK);
	ck_assert_uint_eq(count_fds(), fds);
}
END_TEST

/* ---- TLS and HTTP/2: upstream_tls.mjs, where there is a node ---- */

static char tls_dir[] = "/tmp/respool-check-http-XXXXXX";
static char tls_cert[64], tls_key[64], other_cert[64], other_key[64];
static unsigned tls_port;
static pid_t tls_pid;

static bool
make_cert(const char *cert, const char *key)
{
	char cmd[512];

	snprintf(cmd, sizeof cmd, "openssl req -x509 -newkey rsa:2048 -nodes "
	    "-days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1 "
	    "-out %s -keyout %s >/dev/null 2>&1", cert, key);
	return system(cmd) == 0;
}

/* False: there is no node or no openssl. */
static bool
tls_begin(void)
{
	const char *source = getenv("RESPOOL_SOURCE");
	char script[4096], line[32] = "";
	int fds[2];
	FILE *f;

	if (mkdtemp(tls_dir) == NULL || pipe2(fds, O_CLOEXEC) < 0)
		return false;
	snprintf(tls_cert, sizeof tls_cert, "%s/cert.pem", tls_dir);
	snprintf(tls_key, sizeof tls_key, "%s/key.pem", tls_dir);
	snprintf(other_cert, sizeof other_cert, "%s/other.pem", tls_dir);
	snprintf(other_key, sizeof other_key, "%s/other.key", tls_dir);
	snprintf(script, sizeof script, "%s/tests/upstream_tls.mjs",
	    source == NULL ? "." : source);
	if (!make_cert(tls_cert, tls_key) || !make_cert(other_cert, other_key))
		return false;
	if ((tls_pid = fork()) == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(fds[1], STDOUT_FILENO);
		execlp("node", "node", script, tls_cert, tls_key, NULL);
		_exit(127);
	}
	close(fds[1]);
	f = fdopen(fds[0], "r");
	if (fgets(line, sizeof line, f) != NULL)
		tls_port = (unsigned)strtoul(line, NULL, 10);
	fclose(f);
	return tls_port != 0;
}

static void
tls_end(void)
{
	if (tls_pid > 0) {
		kill(tls_pid, SIGKILL);
		waitpid(tls_pid, NULL, 0);
	}
	unlink(tls_cert);
	unlink(tls_key);
	unlink(other_cert);
	unlink(other_key);
	rmdir(tls_dir);
}

static void
tls_setup(void)
{
	setup();
	http_free(http);
	ck_assert_int_eq(http_new(&loop, tls_cert, &http), RS_OK);
}

static void
tls_start(struct seen *s, const char *path, const char *body)
{
	char to[80];

	snprintf(to, sizeof to, "https://127.0.0.1:%u%s", tls_port, path);
	start(s, to, body);
}

/* Of the server's numbers since its start. */
static unsigned
tls_stat(const char *name)
{
	struct seen s = { 0 };
	char key[32];
	unsigned n;

	tls_start(&s, "/stats", "");
	LOOP_UNTIL(s.overs == 1);
	snprintf(key, sizeof key, "\"%s\":", name);
	n = (unsigned)strtoul(strstr(s.data.data, key) + strlen(key), NULL, 10);
	buf_done(&s.data);
	return n;
}

static void
tls_ask(struct seen *s, const char *path, enum errtype why, const char *data)
{
	tls_start(s, path, "body");
	LOOP_UNTIL(s->overs == 1);
	ck_assert_msg(s->why == why, "%s %s", errtype_info(s->why)->name,
	    http_why(http));
	ck_assert_str_eq(s->data.data == NULL ? "" : s->data.data, data);
	buf_done(&s->data);
}

START_TEST(a_certificate_that_nobody_trusts_is_tls)
{
	static const char *const ca_files[] = {
		"", other_cert, "/nonexistent", tls_key,
	};
	struct seen s = { 0 };

	http_free(http);
	ck_assert_int_eq(http_new(&loop, ca_files[_i], &http), RS_OK);
	tls_ask(&s, "/echo", ERRTYPE_tls, "");
	ck_assert_uint_eq(s.connected, 0);
}
END_TEST

/* The certificate is one for 127.0.0.1. */
START_TEST(a_certificate_of_another_host_is_tls)
{
	struct seen s = { 0 };
	char to[80];

	snprintf(to, sizeof to, "https://127.0.0.2:%u/echo", tls_port);
	start(&s, to, "");
	LOOP_UNTIL(s.overs == 1);
	/* The server is on 127.0.0.1 only. */
	ck_assert_int_eq(s.why, ERRTYPE_connect_failed);
}
END_TEST

START_TEST(a_configured_authority_is_trusted_and_http_2_spoken)
{
	unsigned before = tls_stat("http2");
	struct seen s = { 0 };

	tls_ask(&s, "/echo", ERRTYPE_none, "body");
	ck_assert_uint_eq(s.head.status, 200);
	ck_assert_str_eq(s.head.content_type, "text/plain");
	ck_assert_uint_eq(tls_stat("http2"), before + 1);
}
END_TEST

static const struct {
	const char *path;
	enum errtype why;
	const char *data;
} h2_ends[] = {
	{ "/die", ERRTYPE_upstream_truncated, "hello" },
	{ "/cut", ERRTYPE_upstream_truncated, "hello" },
	{ "/refuse", ERRTYPE_none, "body" }, /* asked again */
	{ "/last", ERRTYPE_none, "body" },
};

START_TEST(an_http_2_stream_is_whole_or_said_not_to_be)
{
	struct seen s = { 0 };

	tls_ask(&s, h2_ends[_i].path, h2_ends[_i].why, h2_ends[_i].data);
	/* The next one comes through, whatever became of the connection. */
	tls_ask(&s, "/echo", ERRTYPE_none, "body");
	tls_ask(&s, "/echo", ERRTYPE_none, "body");
}
END_TEST

START_TEST(a_cancelled_http_2_stream_is_given_up_and_the_others_go_on)
{
	unsigned before = tls_stat("gone"), connections;
	struct seen s[3] = { { .cancel_at = _i == 0 ? DATA : NO_EVENT } };
	int i;

	connections = tls_stat("connections");
	for (i = 0; i < 3; i++)
		tls_start(&s[i], "/hold", "");
	LOOP_UNTIL((s[0].call == NULL || s[0].data.len == 5) &&
	    s[1].data.len == 5 && s[2].data.len == 5);
	if (_i == 1)
		http_cancel(s[0].call);
	while (tls_stat("gone") == before)
		continue;
	ck_assert_uint_eq(tls_stat("gone"), before + 1);
	ck_assert_uint_eq(s[0].overs + s[1].overs + s[2].overs, 0);
	http_cancel(s[1].call);
	http_cancel(s[2].call);
	while (tls_stat("gone") < before + 3)
		continue;
	ck_assert_uint_eq(tls_stat("connections"), connections);
	for (i = 0; i < 3; i++)
		buf_done(&s[i].data);
}
END_TEST

START_TEST(a_thousand_streams_share_eight_connections)
{
	static struct seen s[MANY];
	unsigned before = tls_stat("connections"), i;
	char body[32];

	for (i = 0; i < MANY; i++) {
		snprintf(body, sizeof body, "<%05u>", i);
		tls_start(&s[i], "/echo", body);
	}
	for (i = 0; i < MANY; i++) {
		LOOP_UNTIL(s[i].overs == 1);
		snprintf(body, sizeof body, "<%05u>", i);
		ck_assert_int_eq(s[i].why, ERRTYPE_none);
		ck_assert_str_eq(s[i].data.data, body);
		buf_done(&s[i].data);
	}
	ck_assert_uint_le(tls_stat("connections") - before, 8);
}
END_TEST

static TCase *
tls_tests(void)
{
	TCase *tc = tcase_create("tls");

	tcase_set_timeout(tc, 300);
	tcase_add_checked_fixture(tc, tls_setup, teardown);
	tcase_add_loop_test(tc, a_certificate_that_nobody_trusts_is_tls, 0, 4);
	tcase_add_test(tc, a_certificate_of_another_host_is_tls);
	tcase_add_test(tc,
	    a_configured_authority_is_trusted_and_http_2_spoken);
	tcase_add_loop_test(tc, an_http_2_stream_is_whole_or_said_not_to_be, 0,
	    sizeof h2_ends / sizeof *h2_ends);
	tcase_add_loop_test(tc,
	    a_cancelled_http_2_stream_is_given_up_and_the_others_go_on, 0, 2);
	tcase_add_test(tc, a_thousand_streams_share_eight_connections);
	return tc;
}

int
main(void)
{
	enum { RESPONSES = sizeof responses / sizeof *responses };
	Suite *s = suite_create("http");
	TCase *tc = tcase_create("http");
	SRunner *sr;
	int failed;

	signal(SIGPIPE, SIG_IGN);
	setenv("no_proxy", "*", 1);
	tcase_set_timeout(tc, 300);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc,
	    a_request_says_what_it_was_given_and_nothing_of_us);
	tcase_add_test(tc, a_large_body_arrives_whole);
	tcase_add_loop_test(tc,
	    an_url_or_a_header_that_could_mean_something_else_is_refused, 0,
	    sizeof refused / sizeof *refused);
	tcase_add_loop_test(tc, a_response_is_whole_or_said_not_to_be, 0,
	    RESPONSES);
	tcase_add_loop_test(tc, so_it_is_when_it_comes_byte_by_byte, 0,
	    RESPONSES);
	tcase_add_test(tc, a_reset_in_the_middle_is_upstream_truncated);
	tcase_add_test(tc, a_head_is_read_whatever_the_case_of_its_names);
	tcase_add_test(tc, long_fields_are_cut);
	tcase_add_loop_test(tc, a_head_without_end_is_given_up, 0,
	    sizeof endless / sizeof *endless);
	tcase_add_test(tc, so_is_one_that_is_too_large);
	tcase_add_test(tc,
	    compression_that_nobody_asked_for_is_undone_as_it_comes);
	tcase_add_test(tc, a_connection_is_kept_for_the_next_call);
	tcase_add_loop_test(tc, a_kept_connection_that_died_is_replaced_unseen,
	    AFTER_ANSWER, HALF_ANSWERED + 1);
	tcase_add_loop_test(tc,
	    a_call_cancelled_in_an_event_is_gone_in_that_turn, CONNECTED,
	    DATA + 1);
	tcase_add_test(tc, a_call_cancelled_between_turns_is_closed_at_once);
	tcase_add_test(tc,
	    a_call_can_be_cancelled_before_anything_happened);
	tcase_add_test(tc, a_call_can_begin_in_the_over_of_another);
	tcase_add_test(tc,
	    a_call_can_begin_in_the_data_of_another_that_is_cancelled);
	tcase_add_test(tc,
	    a_call_may_cancel_another_even_one_begun_in_the_same_event);
	tcase_add_test(tc,
	    the_connection_of_one_let_go_is_kept_when_it_ends_soon);
	tcase_add_test(tc,
	    the_connection_of_one_let_go_is_closed_when_it_goes_on);
	tcase_add_test(tc, one_let_go_may_be_left_when_all_ends);
	tcase_add_test(tc, a_name_that_does_not_exist_is_connect_failed);
	tcase_add_loop_test(tc, a_resolver_that_hangs_holds_nobody, 0, 2);
	tcase_add_test(tc, a_closed_port_is_connect_failed);
	tcase_add_test(tc, a_tls_handshake_without_answer_is_connect_timeout);
	tcase_add_test(tc,
	    those_that_wait_for_a_shared_connection_time_out_too);
	tcase_add_test(tc, a_server_without_tls_is_tls);
	tcase_add_test(tc, a_thousand_streams_do_not_get_mixed_up);
	suite_add_tcase(s, tc);
	if (tls_begin())
		suite_add_tcase(s, tls_tests());
	else
		fprintf(stderr, "no node or no openssl: TLS not tested\n");
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	tls_end();
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
