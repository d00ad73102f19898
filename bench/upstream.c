/* upstream.c - a model's server for the benchmark: HTTP/1.1 on loopback.
 *
 *	.../chat/completions	OpenAI's chunks; after "/N" at the path's
 *				beginning N of them, else without end
 *	/N			N frames at once, as respool writes them, so
 *				that a proxy replays the same bytes, and then
 *				more without end
 *
 * One of them each interval, the first at once, as one HTTP chunk in one
 * write.  Its content is the time of that write, as stamp.c has it.  Ends on
 * SIGTERM. */
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S UINT64_C(1000000000)
#define EVENTS 256
#define BURST_MAX 65536 /* bytes that one write sends */
#define PIECE_MAX 1024	/* more than an event has */

/* All have the same interval, so the list is in the order in which they are
 * due. */
struct stream {
	TAILQ_ENTRY(stream) due;
	int fd;
	bool asked;		/* is on the list */
	uint64_t due_ns;
	bool chat;		/* OpenAI's chunks */
	uint64_t next_id;
	uint64_t end_id;	/* UINT64_MAX: never */
};

static TAILQ_HEAD(, stream) due = TAILQ_HEAD_INITIALIZER(due);
static uint64_t interval_ns;
static int epoll_fd;

static uint64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void
stream_free(struct stream *s)
{
	if (s->asked)
		TAILQ_REMOVE(&due, s, due);
	close(s->fd);
	free(s);
}

/* Both return their bytes. */
static size_t
frame_write(char *p, size_t size, uint64_t id)
{
	return (size_t)snprintf(p, size, "event: message_chunk\nid: %" PRIu64
	    "\nretry: 10000\ndata: {\"content\":\"%020" PRIu64 " \","
	    "\"tokens\":1,\"cost_usd\":0.0000006%s}\n\n", id, now_ns(),
	    id == 0 ? ",\"stream_id\":\"bench-0\"" : "");
}

static size_t
chat_write(char *p, size_t size, const struct stream *s)
{
	static const char begin[] = "data: {\"id\":\"chatcmpl-"
	    "B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\""
	    "chat.completion.chunk\",\"created\":1741569952,\"model\":"
	    "\"bench-1\",\"service_tier\":\"default\","
	    "\"system_fingerprint\":\"fp_44709d6fcb\",";

	if (s->next_id < s->end_id)
		return (size_t)snprintf(p, size, "%s\"choices\":[{\"index\":"
		    "0,\"delta\":{%s\"content\":\"%020" PRIu64 " \"},"
		    "\"logprobs\":null,\"finish_reason\":null}]}\n\n",
		    begin, s->next_id == 0 ? "\"role\":\"assistant\"," : "",
		    now_ns());
	return (size_t)snprintf(p, size, "%s\"choices\":[{\"index\":0,"
	    "\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}"
	    "\n\ndata: [DONE]\n\n", begin);
}

/* The next piece as one HTTP chunk, and the end after the last one; returns
 * its bytes. */
static size_t
chunk_write(char *p, size_t size, const struct stream *s)
{
	char piece[PIECE_MAX];
	size_t n = s->chat ? chat_write(piece, sizeof piece, s) :
	    frame_write(piece, sizeof piece, s->next_id);

	return (size_t)snprintf(p, size, "%zx\r\n%s\r\n%s", n, piece,
	    s->next_id == s->end_id ? "0\r\n\r\n" : "");
}

/* False: it is gone. */
static bool
send_all(int fd, const char *p, size_t n)
{
	ssize_t done;

	for (; n > 0; p += done, n -= (size_t)done)
		if ((done = send(fd, p, n, MSG_NOSIGNAL)) <= 0)
			return false;
	return true;
}

static bool
stream_send(struct stream *s, uint64_t pieces)
{
	static char out[BURST_MAX];
	uint64_t end = s->next_id + pieces;
	size_t len = 0;

	for (; s->next_id < end; s->next_id++) {
		len += chunk_write(out + len, sizeof out - len, s);
		if (len > sizeof out - PIECE_MAX || s->next_id + 1 == end) {
			if (!send_all(s->fd, out, len))
				return false;
			len = 0;
		}
	}
	return true;
}

/* What the path asks for.  Returns how many pieces are sent at once. */
static uint64_t
stream_asked(struct stream *s, const char *request)
{
	const char *path = strchr(request, ' ');
	uint64_t n = path == NULL ? 0 : strtoull(path + 2, NULL, 10);

	s->chat = strstr(request, "/chat/completions ") != NULL;
	s->next_id = 0;
	s->end_id = s->chat && n > 0 ? n : UINT64_MAX;
	return s->chat ? 1 : n + 1;
}

/* A request's head comes in one piece; what else comes is its body. */
static void
stream_read(struct stream *s)
{
	static const char head[] = "HTTP/1.1 200 OK\r\n"
	    "Content-Type: text/event-stream\r\n"
	    "Cache-Control: no-cache\r\n"
	    "Transfer-Encoding: chunked\r\n\r\n";
	char request[4096];
	ssize_t n = recv(s->fd, request, sizeof request - 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		stream_free(s);
		return;
	}
	request[n] = '\0';
	if (s->asked || strstr(request, " HTTP/1.1\r\n") == NULL)
		return;
	if (!send_all(s->fd, head, sizeof head - 1) ||
	    !stream_send(s, stream_asked(s, request))) {
		stream_free(s);
		return;
	}
	s->asked = true;
	s->due_ns = now_ns() + interval_ns;
	TAILQ_INSERT_TAIL(&due, s, due);
}

static void
accept_all(int listen_fd)
{
	const int on = 1;
	struct epoll_event ev = { .events = EPOLLIN };
	struct stream *s;
	int fd;

	while ((fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		if ((s = calloc(1, sizeof *s)) == NULL)
			exit(EXIT_FAILURE);
		s->fd = fd;
		ev.data.ptr = s;
		if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
			stream_free(s);
	}
}

static void
send_due(void)
{
	uint64_t now = now_ns();
	struct stream *s;

	while ((s = TAILQ_FIRST(&due)) != NULL && s->due_ns <= now) {
		if (!stream_send(s, 1)) {
			stream_free(s);
			continue;
		}
		TAILQ_REMOVE(&due, s, due);
		s->asked = s->next_id <= s->end_id;
		if (!s->asked)
			continue; /* the connection may ask again */
		s->due_ns += interval_ns;
		TAILQ_INSERT_TAIL(&due, s, due);
	}
}

static int
listen_on(uint16_t port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const int on = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
	    0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sin, sizeof sin) < 0 ||
	    listen(fd, 4096) < 0) {
		fprintf(stderr, "upstream: port %u: %s\n", (unsigned)port,
		    strerror(errno));
		exit(EXIT_FAILURE);
	}
	return fd;
}

/* Until the next frame is due. */
static struct timespec
wait_time(void)
{
	uint64_t now = now_ns(), until = now + 3600 * NS_PER_S;

	if (!TAILQ_EMPTY(&due))
		until = TAILQ_FIRST(&due)->due_ns;
	until = until > now ? until - now : 0;
	return (struct timespec){ .tv_sec = (time_t)(until / NS_PER_S),
		.tv_nsec = (long)(until % NS_PER_S) };
}

int
main(int argc, char **argv)
{
	struct epoll_event ev[EVENTS], listen_ev = { .events = EPOLLIN };
	struct timespec ts;
	struct rlimit rl;
	int i, n, listen_fd;

	if (argc != 3 || (interval_ns = strtoull(argv[2], NULL, 10)) == 0) {
		fputs("usage: upstream port interval-ms\n", stderr);
		return EXIT_FAILURE;
	}
	interval_ns *= NS_PER_S / 1000;
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
	listen_fd = listen_on((uint16_t)atoi(argv[1]));
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &listen_ev) < 0)
		return EXIT_FAILURE;
	for (;;) {
		ts = wait_time();
		n = epoll_pwait2(epoll_fd, ev, EVENTS, &ts, NULL);
		for (i = 0; i < n; i++) {
			if (ev[i].data.ptr == NULL)
				accept_all(listen_fd);
			else
				stream_read(ev[i].data.ptr);
		}
		send_due();
	}
}
