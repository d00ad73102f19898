/* fcgi_peer.c - a web server's end of a FastCGI connection, for tests. */
#include <sys/socket.h>

#include <check.h>
#include <fastcgi.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "fcgi_peer.h"
#include "fdio.h"

#define WAIT_MS 20000 /* the peer of a working responder never waits long */

void
fcgi_peer_init(struct fcgi_peer *p, int *ret_fd)
{
	int fd[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0,
	    fd), 0);
	memset(p, 0, sizeof *p);
	p->fd = fd[0];
	buf_init(&p->raw, 1 << 20);
	buf_init(&p->out, 1 << 26);
	*ret_fd = fd[1];
}

void
fcgi_peer_done(struct fcgi_peer *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
	buf_done(&p->raw);
	buf_done(&p->out);
}

void
fcgi_peer_record(struct fcgi_peer *p, int type, const void *data, size_t len)
{
	const unsigned char head[FCGI_HEADER_LEN] = {
		FCGI_VERSION_1, (unsigned char)type, 0, 1,
		(unsigned char)(len >> 8), (unsigned char)len, 0, 0,
	};

	ck_assert_uint_le(len, 65535);
	ck_assert_int_eq(fd_write_full(p->fd, head, sizeof head), RS_OK);
	ck_assert_int_eq(fd_write_full(p->fd, data, len), RS_OK);
}

static void
put_len(struct buf *b, size_t len)
{
	const unsigned char be[4] = {
		(unsigned char)(0x80 | len >> 24), (unsigned char)(len >> 16),
		(unsigned char)(len >> 8), (unsigned char)len,
	};

	if (len < 0x80)
		buf_add(b, &be[3], 1);
	else
		buf_add(b, be, 4);
}

void
fcgi_peer_begin(struct fcgi_peer *p, int flags, const char *const *vars)
{
	const unsigned char begin[8] = {
		0, FCGI_RESPONDER, (unsigned char)flags,
	};
	struct buf b;

	fcgi_peer_record(p, FCGI_BEGIN_REQUEST, begin, sizeof begin);
	buf_init(&b, 65535);
	for (; *vars != NULL; vars += 2) {
		put_len(&b, strlen(vars[0]));
		put_len(&b, strlen(vars[1]));
		buf_puts(&b, vars[0]);
		buf_puts(&b, vars[1]);
	}
	if (b.len > 0)
		fcgi_peer_record(p, FCGI_PARAMS, b.data, b.len);
	fcgi_peer_record(p, FCGI_PARAMS, "", 0);
	buf_done(&b);
}

void
fcgi_peer_body(struct fcgi_peer *p, const char *body, size_t len,
    size_t piece)
{
	size_t n;

	for (; len > 0; body += n, len -= n) {
		n = len < piece ? len : piece;
		fcgi_peer_record(p, FCGI_STDIN, body, n);
	}
	fcgi_peer_record(p, FCGI_STDIN, "", 0);
}

/* Takes the whole records out of raw. */
static void
decode(struct fcgi_peer *p)
{
	const unsigned char *h;
	size_t len, size;

	while (p->raw.len >= FCGI_HEADER_LEN) {
		h = (const unsigned char *)p->raw.data;
		len = (size_t)h[4] << 8 | h[5];
		size = FCGI_HEADER_LEN + len + h[6];
		if (p->raw.len < size)
			return;
		ck_assert_int_eq(h[0], FCGI_VERSION_1);
		ck_assert_int_eq(h[2] << 8 | h[3], 1);
		ck_assert(!p->ended);
		if (h[1] == FCGI_STDOUT)
			buf_add(&p->out, h + FCGI_HEADER_LEN, len);
		else if (h[1] == FCGI_END_REQUEST)
			p->ended = true;
		else
			ck_assert_int_eq(h[1], FCGI_STDERR);
		ck_assert_int_eq(p->out.err, RS_OK);
		buf_drop(&p->raw, size);
	}
}

bool
fcgi_peer_read(struct fcgi_peer *p, int ms)
{
	struct pollfd pfd = { .fd = p->fd, .events = POLLIN };
	char chunk[16384];
	ssize_t n;

	if (p->closed || poll(&pfd, 1, ms) <= 0)
		return false;
	n = recv(p->fd, chunk, sizeof chunk, MSG_DONTWAIT);
	if (n <= 0) {
		p->closed = true;
		return true;
	}
	buf_add(&p->raw, chunk, (size_t)n);
	ck_assert_int_eq(p->raw.err, RS_OK);
	decode(p);
	return true;
}

void
fcgi_peer_read_all(struct fcgi_peer *p)
{
	while (!p->closed)
		ck_assert(fcgi_peer_read(p, WAIT_MS));
}
