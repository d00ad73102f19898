/* client.c - requests and their responses, through libfcgi or plain CGI. */
#include <sys/socket.h>
#include <sys/time.h>

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <errno.h>
#include <fcgiapp.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "clock.h"

#define IO_TIMEOUT_S 10		/* for one read or write */
#define BODY_TIMEOUT_S 60	/* for a whole body */
#define LINGER_S 2		/* for what a refused body still brings */
#define FCGI_WRITE_MAX (8192 - 8) /* one record, in libfcgi's buffer */
#define CGI_WRITE_MAX 4096

struct client {
	bool cgi;
	bool unread;	/* there is a body, or more of it */
	uint64_t born_ns;
	FCGX_Request r;	/* FastCGI only */
};

uint64_t
client_born_ns(const struct client *c)
{
	return c->born_ns;
}

const char *
client_env(const struct client *c, const char *name)
{
	return c->cgi ? getenv(name) : FCGX_GetParam(name, c->r.envp);
}

/* CONTENT_LENGTH; UINT64_MAX when there is none that is a number. */
static uint64_t
body_length(const struct client *c)
{
	const char *s = client_env(c, "CONTENT_LENGTH");
	unsigned long long n;

	if (s == NULL || *s == '\0' || s[strspn(s, "0123456789")] != '\0')
		return UINT64_MAX;
	errno = 0;
	n = strtoull(s, NULL, 10);
	return errno == 0 ? n : UINT64_MAX - 1;
}

/* A body of known length, that is: of others we learn by reading. */
static bool
has_body(const struct client *c)
{
	uint64_t length = body_length(c);

	return length > 0 && length != UINT64_MAX;
}

/* Apache sends the end of no body apart, and takes it for a failure of ours
 * when we have answered and closed before: wait for it. */
static void
fcgi_end_of_no_body(struct client *c)
{
	const char *method = client_env(c, "REQUEST_METHOD");
	int ch;

	if (c->unread || (method != NULL && strcmp(method, "POST") == 0 &&
	    body_length(c) != 0))
		return;
	if ((ch = FCGX_GetChar(c->r.in)) != EOF)
		FCGX_UnGetChar(ch, c->r.in);
}

static void
fcgi_set_options(int fd)
{
	const struct timeval tv = { .tv_sec = IO_TIMEOUT_S };
	const int on = 1;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
	/* Fails on a unix socket, which does not need it. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

enum rs_err
client_fcgi(int fd, struct client **ret)
{
	struct client *c = calloc(1, sizeof *c);

	if (c == NULL) {
		close(fd);
		return RS_ENOMEM;
	}
	/* We accept ourselves, so that the time-outs hold from the first byte,
	 * and give libfcgi the connection as if it were one kept from an
	 * earlier request.  When it closes a bad one it asks its listening
	 * socket for the next, and must not find any. */
	c->born_ns = clock_mono_ns();
	fcgi_set_options(fd);
	FCGX_InitRequest(&c->r, -1, 0);
	c->r.ipcFd = fd;
	c->r.keepConnection = 1;
	if (FCGX_Accept_r(&c->r) < 0) {
		free(c);
		return RS_EPROTO;
	}
	/* It takes parameters that break off for all of them. */
	if (FCGX_GetError(c->r.in) != 0) {
		client_abort(c);
		return RS_EPROTO;
	}
	/* One request a connection, whatever the web server offers: a thread
	 * would wait for the next. */
	c->r.keepConnection = 0;
	c->unread = has_body(c);
	fcgi_end_of_no_body(c);
	*ret = c;
	return RS_OK;
}

enum rs_err
client_cgi(struct client **ret)
{
	struct client *c = calloc(1, sizeof *c);

	if (c == NULL)
		return RS_ENOMEM;
	c->cgi = true;
	c->unread = has_body(c);
	*ret = c;
	return RS_OK;
}

/* ---- the body ---- */

static enum rs_err
fcgi_read_body(struct client *c, struct buf *b, uint64_t deadline_ns)
{
	FCGX_Stream *in = c->r.in;
	char chunk[8192];
	int ch, n;

	while ((ch = FCGX_GetChar(in)) != EOF) {
		/* GetStr waits for as many bytes as it is asked for: ask for
		 * those that have come. */
		FCGX_UnGetChar(ch, in);
		n = (int)(in->stop - in->rdNext);
		n = FCGX_GetStr(chunk, n < (int)sizeof chunk ? n :
		    (int)sizeof chunk, in);
		buf_add(b, chunk, (size_t)n);
		if (b->err != RS_OK)
			return b->err;
		if (clock_mono_ns() >= deadline_ns)
			return RS_ETIMEOUT;
	}
	switch (FCGX_GetError(in)) {
	case 0:
		return RS_OK;
	case EAGAIN:
		return RS_ETIMEOUT;
	default:
		return RS_ECLOSED;
	}
}

/* Not beyond want bytes: CGI promises no end after them. */
static enum rs_err
cgi_read_body(uint64_t want, struct buf *b, uint64_t deadline_ns)
{
	struct pollfd pfd = { .fd = STDIN_FILENO, .events = POLLIN };
	char chunk[8192];
	uint64_t left;
	ssize_t n;

	while ((left = want - b->len) > 0) {
		n = poll(&pfd, 1, IO_TIMEOUT_S * 1000);
		if (n == 0 || clock_mono_ns() >= deadline_ns)
			return RS_ETIMEOUT;
		n = read(STDIN_FILENO, chunk,
		    left < sizeof chunk ? left : sizeof chunk);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return RS_ECLOSED;
		if (n == 0)
			break;
		buf_add(b, chunk, (size_t)n);
		if (b->err != RS_OK)
			return b->err;
	}
	return RS_OK;
}

enum rs_err
client_read_body(struct client *c, struct buf *b)
{
	uint64_t deadline_ns = clock_mono_ns() + BODY_TIMEOUT_S * NS_PER_S;
	uint64_t want = body_length(c);
	enum rs_err err;

	buf_clear(b);
	if (want != UINT64_MAX && want > b->max)
		err = RS_ETOOBIG;
	else if (c->cgi)
		err = cgi_read_body(want, b, deadline_ns);
	else
		err = fcgi_read_body(c, b, deadline_ns);
	if (err == RS_OK && want != UINT64_MAX && b->len < want)
		err = RS_ECLOSED;
	c->unread = err != RS_OK;
	return err;
}

/* ---- the response ---- */

static enum rs_err
fcgi_write(struct client *c, const char *p, size_t n)
{
	size_t part;

	for (; n > 0; p += part, n -= part) {
		part = n < INT_MAX ? n : INT_MAX;
		FCGX_PutStr(p, (int)part, c->r.out);
	}
	FCGX_FFlush(c->r.out);
	/* After an error both calls report success again. */
	return FCGX_GetError(c->r.out) == 0 ? RS_OK : RS_ECLOSED;
}

static enum rs_err
cgi_write(const char *p, size_t n)
{
	struct pollfd pfd = { .fd = STDOUT_FILENO, .events = POLLOUT };
	ssize_t done;

	while (n > 0) {
		if (poll(&pfd, 1, IO_TIMEOUT_S * 1000) == 0)
			return RS_ECLOSED;
		done = write(STDOUT_FILENO, p,
		    n < CGI_WRITE_MAX ? n : CGI_WRITE_MAX);
		if (done < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (done < 0)
			return RS_ECLOSED;
		p += done;
		n -= (size_t)done;
	}
	return RS_OK;
}

enum rs_err
client_write(struct client *c, const void *p, size_t n)
{
	return c->cgi ? cgi_write(p, n) : fcgi_write(c, p, n);
}

bool
client_writable(const struct client *c)
{
	struct pollfd pfd = { .fd = client_fd(c), .events = POLLOUT };

	/* Also when the peer is gone: the write will tell. */
	return poll(&pfd, 1, 0) > 0;
}

size_t
client_write_max(const struct client *c)
{
	return c->cgi ? CGI_WRITE_MAX : FCGI_WRITE_MAX;
}

int
client_fd(const struct client *c)
{
	return c->cgi ? STDOUT_FILENO : c->r.ipcFd;
}

uint32_t
client_gone_events(const struct client *c)
{
	return c->cgi ? POLLERR | POLLHUP : POLLERR | POLLHUP | POLLRDHUP;
}

/* Takes what the web server still sends of a body, until it closes: to close
 * first would reset the connection, and with it the answer. */
static void
linger(int fd)
{
	uint64_t deadline_ns = clock_mono_ns() + LINGER_S * NS_PER_S;
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	char chunk[8192];

	while (clock_mono_ns() < deadline_ns &&
	    poll(&pfd, 1, LINGER_S * 1000) > 0 &&
	    read(fd, chunk, sizeof chunk) > 0)
		continue;
}

void
client_finish(struct client *c)
{
	if (c == NULL)
		return;
	if (c->unread && !c->cgi) {
		FCGX_FClose(c->r.err);
		FCGX_FClose(c->r.out);
	}
	if (c->unread)
		linger(c->cgi ? STDIN_FILENO : c->r.ipcFd);
	if (!c->cgi)
		FCGX_Finish_r(&c->r);
	free(c);
}

void
client_abort(struct client *c)
{
	if (c == NULL)
		return;
	if (!c->cgi)
		FCGX_Free(&c->r, 1);
	free(c);
}
