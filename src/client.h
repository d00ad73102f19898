/* client.h - one request and the way back to who asked: FastCGI through
 * libfcgi, or plain CGI.  A client belongs to one thread at a time. */
#ifndef RESPOOL_CLIENT_H
#define RESPOOL_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "buf.h"
#include "err.h"

struct client;

/* The request on fd, a FastCGI connection just accepted, which is the
 * client's from here on, also on failure.  Sets time-outs of 10 s on it and
 * reads the parameters, and the end of the request where it has no body:
 * blocks while the web server sends them.  FCGX_Init must have been called.
 * RS_OK; RS_EPROTO: no request came of it; RS_ENOMEM. */
enum rs_err client_fcgi(int fd, struct client **ret);
/* The one request of a CGI process: environ, stdin, stdout. */
enum rs_err client_cgi(struct client **ret);

/* When its connection was accepted or its process began (CLOCK_MONOTONIC
 * ns). */
uint64_t client_born_ns(const struct client *c);

/* A CGI variable, NULL when there is none. */
const char *client_env(const struct client *c, const char *name);

/* Reads the body to its end; blocks.  What was in b is dropped.
 * CONTENT_LENGTH, when there is one, must not be more than what comes.
 * RS_OK; RS_ETOOBIG: longer than b's maximum (client_finish then takes up to
 * 2 s to pass over the rest); RS_ETIMEOUT: nothing came for 10 s, or not all
 * within 60 s; RS_ECLOSED: it is cut short. */
enum rs_err client_read_body(struct client *c, struct buf *b);

/* Writes and flushes.  Up to client_write_max bytes do not block when
 * client_writable said true just before; more may block up to 10 s.
 * RS_OK; RS_ECLOSED: the client or the web server is gone. */
enum rs_err client_write(struct client *c, const void *p, size_t n);
bool client_writable(const struct client *c);
/* 8184 (with its head what libfcgi sends at once), for plain CGI 4096 (a
 * pipe's PIPE_BUF). */
size_t client_write_max(const struct client *c);

/* What to poll to learn that the client can take more or has left. */
int client_fd(const struct client *c);
/* The bits of poll or epoll that mean it has left: not POLLIN|POLLRDHUP for
 * CGI, where a socket as stdout shows them from the start. */
uint32_t client_gone_events(const struct client *c);

/* Both end the response and free c, and take NULL.  Finish: orderly; it does
 * not block when nothing is pending and c is writable.  Abort: closes the
 * connection in the middle. */
void client_finish(struct client *c);
void client_abort(struct client *c);

#endif
