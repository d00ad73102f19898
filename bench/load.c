/* load.c - a load client for the benchmark: opens many event streams on
 * loopback, checks that their ids have no gap, and measures when frames come.
 *
 * A stream is done with its terminal frame, the end of its response, or -f
 * frames.  Without -s the program ends when all are done.  With -s it opens
 * them all, waits for the first frame of each and -w seconds more, says
 * "steady", measures for -s seconds and ends.  The last line of output is
 * key=value, times in microseconds.
 *
 * How late a frame is, is told in two ways:
 *	late	since the stamp in its content: 20 digits, CLOCK_MONOTONIC in
 *		nanoseconds, of the moment when it was written at its source
 *	behind	its plan, with -i: frame n is due n intervals after frame 0;
 *		the frame of the stream that was earliest sets the zero */
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <netinet/in.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)
#define LINE_SIZE 512		/* what is longer is not looked at */
#define STAMP_DIGITS 20
#define EVENTS 256

/* Counts by size: 32 classes for each power of two, so that a percentile is
 * right to 3 %. */
#define HIST_SUB 32
#define HIST_SIZE (64 * HIST_SUB)
struct hist {
	uint64_t count, max;
	uint64_t classes[HIST_SIZE];
};

struct line {
	size_t len;
	char text[LINE_SIZE];
};

enum part { PART_CONNECT, PART_HEAD, PART_SIZE, PART_DATA, PART_CRLF, PART_RAW };

struct stream {
	int fd;			/* -1: not open, or done */
	enum part part;
	bool chunked, has_id, terminal;
	uint64_t chunk_left;
	uint64_t born_ns;
	uint64_t frames, id, expect;
	uint64_t stamp_ns;	/* of the frame that is being read; 0: none */
	uint64_t zero_ns;	/* its plan's */
	/* Two, as a line of text may go on behind the size of a chunk. */
	struct line http, text;
};

static struct {
	uint16_t port;
	const char *path;	/* with one %d: the stream's number */
	uint64_t streams, at_once, per_second, frames, interval_ms;
	uint64_t wait_s, measure_s, limit_s;
} opt = {
	.streams = 1, .at_once = UINT64_MAX, .per_second = 1000,
	.frames = UINT64_MAX, .wait_s = 2, .limit_s = 120,
};

static struct stream *streams;
static uint64_t opened, begun, done, failed, wrong;
static uint64_t events, bytes;
static struct hist first, whole, late, behind;
static int epoll_fd;

static uint64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

__attribute__((format(printf, 1, 2), noreturn))
static void
die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("load: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputs("\n", stderr);
	va_end(ap);
	exit(EXIT_FAILURE);
}

/* ---- percentiles ---- */

static void
hist_add(struct hist *h, uint64_t v)
{
	unsigned shift = 0;

	h->count++;
	if (v > h->max)
		h->max = v;
	while (v >= 2 * HIST_SUB) {
		v >>= 1;
		shift++;
	}
	h->classes[shift * HIST_SUB + v]++;
}

/* The smallest value that at least this share of all does not exceed. */
static uint64_t
hist_at(const struct hist *h, double share)
{
	uint64_t want = (uint64_t)(share * (double)h->count + 0.999), seen = 0;
	unsigned i, shift;

	for (i = 0; i < HIST_SIZE; i++) {
		seen += h->classes[i];
		if (seen >= want && seen > 0) {
			shift = i < 2 * HIST_SUB ? 0 : i / HIST_SUB - 1;
			return (uint64_t)(i - shift * HIST_SUB) << shift;
		}
	}
	return 0;
}

static void
hist_print(const char *name, const struct hist *h)
{
	if (h->count == 0)
		return;
	printf(" %s_p50=%.1f %s_p99=%.1f %s_max=%.1f",
	    name, (double)hist_at(h, 0.50) / 1e3,
	    name, (double)hist_at(h, 0.99) / 1e3, name, (double)h->max / 1e3);
}

/* ---- one stream ---- */

static void
stream_done(struct stream *s, bool well)
{
	if (s->fd < 0)
		return;
	close(s->fd);
	s->fd = -1;
	done++;
	if (!well || s->frames == 0)
		failed++;
	else
		hist_add(&whole, now_ns() - s->born_ns);
}

static void
frame_end(struct stream *s, uint64_t now)
{
	uint64_t plan;

	if (s->id != s->expect)
		wrong++;
	s->expect = s->id + 1;
	if (s->frames++ == 0) {
		begun++;
		hist_add(&first, now - s->born_ns);
	}
	events++;
	if (s->stamp_ns != 0 && now >= s->stamp_ns)
		hist_add(&late, now - s->stamp_ns);
	if (opt.interval_ms > 0) {
		plan = now - s->id * opt.interval_ms * NS_PER_MS;
		if (s->zero_ns == 0 || plan < s->zero_ns)
			s->zero_ns = plan;
		hist_add(&behind, plan - s->zero_ns);
	}
	if (s->terminal || s->frames >= opt.frames)
		stream_done(s, true);
}

static uint64_t
line_stamp(const struct line *l)
{
	static const char begin[] = "\"content\":\"";
	const char *p = strstr(l->text, begin);
	uint64_t v = 0;
	int i;

	if (p == NULL)
		return 0;
	p += sizeof begin - 1;
	for (i = 0; i < STAMP_DIGITS; i++) {
		if (p[i] < '0' || p[i] > '9')
			return 0;
		v = v * 10 + (uint64_t)(p[i] - '0');
	}
	return v;
}

/* Adds bytes to a line.  Returns how many it took; *ret_end: the line is
 * complete, and has no line end. */
static size_t
line_add(struct line *l, const char *p, size_t n, bool *ret_end)
{
	const char *nl = memchr(p, '\n', n);
	size_t take = nl != NULL ? (size_t)(nl - p) : n;
	size_t room = LINE_SIZE - 1 - l->len;

	memcpy(l->text + l->len, p, take < room ? take : room);
	l->len += take < room ? take : room;
	*ret_end = nl != NULL;
	if (nl == NULL)
		return n;
	if (l->len > 0 && l->text[l->len - 1] == '\r')
		l->len--;
	l->text[l->len] = '\0';
	return take + 1;
}

static void
stream_line(struct stream *s, uint64_t now)
{
	const struct line *l = &s->text;

	if (l->len == 0) {
		if (s->has_id)
			frame_end(s, now);
		s->has_id = s->terminal = false;
		s->stamp_ns = 0;
	} else if (strncmp(l->text, "id: ", 4) == 0) {
		s->id = strtoull(l->text + 4, NULL, 10);
		s->has_id = true;
	} else if (strncmp(l->text, "data: ", 6) == 0) {
		s->stamp_ns = line_stamp(l);
		/* A model's own chunks have no id. */
		if (!s->has_id && s->stamp_ns != 0) {
			s->has_id = true;
			s->id = s->expect;
		}
	} else if (strcmp(l->text, "event: done") == 0 ||
	    strcmp(l->text, "event: error") == 0) {
		s->terminal = true;
	}
}

static void
stream_text(struct stream *s, const char *p, size_t n, uint64_t now)
{
	bool end;
	size_t part;

	for (; n > 0 && s->fd >= 0; p += part, n -= part) {
		part = line_add(&s->text, p, n, &end);
		if (end) {
			stream_line(s, now);
			s->text.len = 0;
		}
	}
}

/* A line of the response's head, or the size of a chunk. */
static void
stream_http(struct stream *s)
{
	const struct line *l = &s->http;

	if (s->part == PART_SIZE) {
		s->chunk_left = strtoull(l->text, NULL, 16);
		s->part = PART_DATA;
		if (s->chunk_left == 0)
			stream_done(s, opt.measure_s == 0);
	} else if (l->len == 0) {
		s->part = s->chunked ? PART_SIZE : PART_RAW;
	} else if (strncmp(l->text, "HTTP/1.1 ", 9) == 0) {
		if (strncmp(l->text + 9, "200", 3) != 0)
			stream_done(s, false);
	} else if (strcasecmp(l->text, "Transfer-Encoding: chunked") == 0) {
		s->chunked = true;
	}
}

static void
stream_take(struct stream *s, const char *p, size_t n, uint64_t now)
{
	bool end = false;
	size_t part = 0;

	for (; n > 0 && s->fd >= 0; p += part, n -= part) {
		switch (s->part) {
		case PART_RAW:
			part = n;
			stream_text(s, p, part, now);
			break;
		case PART_DATA:
			part = n < s->chunk_left ? n : s->chunk_left;
			stream_text(s, p, part, now);
			s->chunk_left -= part;
			if (s->chunk_left == 0)
				s->part = PART_CRLF;
			break;
		case PART_CRLF:
			part = 1;
			if (*p == '\n')
				s->part = PART_SIZE;
			break;
		case PART_CONNECT:
		case PART_HEAD:
		case PART_SIZE:
			part = line_add(&s->http, p, n, &end);
			if (end) {
				stream_http(s);
				s->http.len = 0;
			}
			break;
		}
	}
}

static void
stream_read(struct stream *s)
{
	static char chunk[65536];
	ssize_t n = recv(s->fd, chunk, sizeof chunk, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		stream_done(s, n == 0 && s->part == PART_RAW);
		return;
	}
	bytes += (uint64_t)n;
	stream_take(s, chunk, (size_t)n, now_ns());
}

/* Does not wait: a server that accepts nobody must not stop the others. */
static void
stream_open(struct stream *s)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
		.sin_port = htons(opt.port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct epoll_event ev = { .events = EPOLLOUT, .data.ptr = s };

	s->born_ns = now_ns();
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
	    0);
	if (s->fd < 0)
		die("socket: %s", strerror(errno));
	opened++;
	if ((connect(s->fd, (struct sockaddr *)&sin, sizeof sin) < 0 &&
	    errno != EINPROGRESS) ||
	    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, s->fd, &ev) < 0)
		stream_done(s, false);
}

/* It is connected, or never will be. */
static void
stream_ask(struct stream *s)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = s };
	const char *mark = strstr(opt.path, "%d");
	char request[1024];
	int n;

	if (mark != NULL)
		n = snprintf(request, sizeof request, "GET %.*s%td%s",
		    (int)(mark - opt.path), opt.path, s - streams, mark + 2);
	else
		n = snprintf(request, sizeof request, "GET %s", opt.path);
	n += snprintf(request + n, sizeof request - (size_t)n,
	    " HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
	    "\r\n");
	s->part = PART_HEAD;
	if (send(s->fd, request, (size_t)n, MSG_NOSIGNAL) != n ||
	    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, s->fd, &ev) < 0)
		stream_done(s, false);
}

/* ---- the run ---- */

static void
measure_from_now(void)
{
	events = bytes = 0;
	memset(&late, 0, sizeof late);
	memset(&behind, 0, sizeof behind);
}

static void
print_result(double seconds)
{
	struct rusage ru;
	double cpu;

	getrusage(RUSAGE_SELF, &ru);
	cpu = (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
	    (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
	printf("streams=%" PRIu64 " begun=%" PRIu64 " done=%" PRIu64
	    " failed=%" PRIu64 " wrong_ids=%" PRIu64 " seconds=%.3f events=%"
	    PRIu64 " events_s=%.1f bytes=%" PRIu64 " cpu_s=%.2f",
	    opened, begun, done, failed, wrong, seconds, events,
	    (double)events / seconds, bytes, cpu);
	hist_print("first", &first);
	hist_print("whole", &whole);
	hist_print("late", &late);
	hist_print("behind", &behind);
	puts("");
}

/* Opens those that are due; returns when to look again. */
static uint64_t
open_due(uint64_t start_ns, uint64_t now)
{
	uint64_t due;

	while (opened < opt.streams && opened - done < opt.at_once) {
		due = start_ns + opened * NS_PER_S / opt.per_second;
		if (due > now)
			return due;
		stream_open(&streams[opened]);
	}
	return UINT64_MAX;
}

static int
wait_ms(uint64_t now, uint64_t until)
{
	if (until <= now)
		return 0;
	until = (until - now) / NS_PER_MS + 1;
	return until < 1000 ? (int)until : 1000;
}

static void
run(void)
{
	struct epoll_event ev[EVENTS];
	uint64_t start = now_ns(), now = start, next, from = start, until = 0;
	bool ready = false, steady = false;
	struct stream *s;
	int i, n;

	for (;;) {
		now = now_ns();
		if (now - start > opt.limit_s * NS_PER_S)
			die("not done after %" PRIu64 " s: opened=%" PRIu64
			    " begun=%" PRIu64 " done=%" PRIu64 " failed=%"
			    PRIu64, opt.limit_s, opened, begun, done, failed);
		next = open_due(start, now);
		if (opt.measure_s == 0 && done == opt.streams)
			break;
		if (opt.measure_s > 0 && !ready &&
		    begun + failed >= opt.streams) {
			ready = true;
			until = now + opt.wait_s * NS_PER_S;
		}
		if (ready && now >= until) {
			if (steady)
				break;
			steady = true;
			puts("steady");
			fflush(stdout);
			measure_from_now();
			from = now;
			until = now + opt.measure_s * NS_PER_S;
		}
		if (ready && until < next)
			next = until;
		n = epoll_wait(epoll_fd, ev, EVENTS, wait_ms(now, next));
		for (i = 0; i < n; i++) {
			s = ev[i].data.ptr;
			if (s->fd >= 0 && s->part == PART_CONNECT)
				stream_ask(s);
			else if (s->fd >= 0)
				stream_read(s);
		}
	}
	print_result((double)(now_ns() - from) / 1e9);
}

static uint64_t
number(const char *arg)
{
	char *end;
	unsigned long long v = strtoull(arg, &end, 10);

	if (end == arg || *end != '\0')
		die("%s: not a number", arg);
	return v;
}

static void
parse_options(int argc, char **argv)
{
	int ch;

	while ((ch = getopt(argc, argv, "n:c:r:f:i:w:s:t:")) != -1) {
		switch (ch) {
		case 'n': opt.streams = number(optarg); break;
		case 'c': opt.at_once = number(optarg); break;
		case 'r': opt.per_second = number(optarg); break;
		case 'f': opt.frames = number(optarg); break;
		case 'i': opt.interval_ms = number(optarg); break;
		case 'w': opt.wait_s = number(optarg); break;
		case 's': opt.measure_s = number(optarg); break;
		case 't': opt.limit_s = number(optarg); break;
		default: optind = argc; break;
		}
	}
	if (argc - optind != 2 || opt.streams == 0 || opt.per_second == 0)
		die("usage: load [-n streams] [-c at-once] [-r opens-per-second]"
		    " [-f frames] [-i interval-ms] [-w settle-s] "
		    "[-s measure-s] [-t limit-s] port path");
	opt.port = (uint16_t)number(argv[optind]);
	opt.path = argv[optind + 1];
}

int
main(int argc, char **argv)
{
	struct rlimit rl;
	uint64_t i;

	parse_options(argc, argv);
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
	streams = calloc(opt.streams, sizeof *streams);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (streams == NULL || epoll_fd < 0)
		die("%s", strerror(errno));
	for (i = 0; i < opt.streams; i++)
		streams[i].fd = -1;
	run();
	return failed > 0 || wrong > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
