/* upstream.c - a model's server for the benchmark: HTTP/1.1 on loopback,
 * answers every GET with an event stream that does not end, in the frames
 * that respool writes, so that a proxy moves the same bytes.
 *
 * One frame each interval, the first at once, as one chunk in one write.
 * "GET /N" sends N frames at once before.  The content of a frame is the time
 * of its write, as stamp.c has it.  It ends on SIGTERM. */
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

/* All have the same interval, so the list is in the order in which they are
 * due. */
struct stream {
	TAILQ_ENTRY(stream) due;
	int fd;
	bool asked;		/* is on the list */
	uint64_t due_ns;
	uint64_t next_id;
	uint64_t burst;		/* frames that are sent at once */
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

/* One frame as one chunk; returns its bytes. */
static size_t
chunk_write(char *p, size_t size, uint64_t id)
{
	char frame[256];
	int n;

	n = snprintf(frame, sizeof frame, "event: message_chunk\nid: %" PRIu64
	    "\nretry: 10000\ndata: {\"content\":\"%020" PRIu64 " \","
	    "\"tokens\":1,\"cost_usd\":0.0000006%s}\n\n", id, now_ns(),
	    id == 0 ? ",\"stream_id\":\"bench-0\"" : "");
	return (size_t)snprintf(p, size, "%x\r\n%s\r\n", (unsigned)n, frame);
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
stream_send(struct stream *s, uint64_t frames)
{
	static char out[BURST_MAX];
	uint64_t end = s->next_id + frames;
	size_t len = 0;

	while (s->next_id < end) {
		len += chunk_write(out + len, sizeof out - len, s->next_id++);
		if (len > sizeof out - 512 || s->next_id == end) {
			if (!send_all(s->fd, out, len))
				return false;
			len = 0;
		}
	}
	return true;
}

/* The request comes in one piece, or is not answered. */
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
	if (s->asked)
		return;
	request[n] = '\0';
	if (strncmp(request, "GET /", 5) == 0)
		s->burst = strtoull(request + 5, NULL, 10);
	if (!send_all(s->fd, head, sizeof head - 1) ||
	    !stream_send(s, s->burst + 1)) {
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
