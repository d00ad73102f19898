/* fcgi_peer.h - a web server's end of a FastCGI connection, for tests. */
#ifndef RESPOOL_FCGI_PEER_H
#define RESPOOL_FCGI_PEER_H

#include <stdbool.h>
#include "buf.h"

struct fcgi_peer {
	int fd;
	struct buf raw;	/* records that are not whole yet */
	struct buf out;	/* what the response says */
	bool ended;	/* END_REQUEST has come */
	bool closed;	/* and then, or before, the end of the connection */
};

/* A connection; its other end is *ret_fd, the responder's. */
void fcgi_peer_init(struct fcgi_peer *p, int *ret_fd);
void fcgi_peer_done(struct fcgi_peer *p);

/* One record of any type and length. */
void fcgi_peer_record(struct fcgi_peer *p, int type, const void *data,
    size_t len);
/* A request without a body: vars are "NAME", "value", ..., NULL. */
void fcgi_peer_begin(struct fcgi_peer *p, int flags, const char *const *vars);
/* The body and its end, in records of at most piece bytes. */
void fcgi_peer_body(struct fcgi_peer *p, const char *body, size_t len,
    size_t piece);

/* Takes what has come, and waits for more, ms at most (0: not at all).
 * False: nothing came. */
bool fcgi_peer_read(struct fcgi_peer *p, int ms);
/* The same until the connection is closed. */
void fcgi_peer_read_all(struct fcgi_peer *p);

#endif
