/* http.h - requests to upstreams, many at once: libcurl's multi interface in
 * the spooler's loop.  Connections are kept and shared (HTTP/2 where the
 * upstream speaks it); TLS is verified; redirects are not followed; no
 * compression is asked for, though undone when it comes.  A call on a kept
 * connection that turns out to be dead is made again on a fresh one.  Proxies
 * come from the environment, as libcurl reads it (http_proxy, https_proxy,
 * no_proxy). */
#ifndef RESPOOL_HTTP_H
#define RESPOOL_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "buf.h"
#include "err.h"
#include "errtype.h"

#define HTTP_URL_MAX 8192

struct loop;

/* A POST request. */
struct http_req {
	struct buf url;
	struct buf headers;	/* "Name: value\0" each */
	struct buf body;
};
void http_req_init(struct http_req *r);
void http_req_done(struct http_req *r); /* wipes the headers: the key */
/* Adds a header line; CR, LF and NUL in it make headers.err RS_EINVAL. */
void http_req_header(struct http_req *r, const char *name, const char *value);

/* What a response's head says; "" where it says nothing. */
struct http_head {
	unsigned status;
	char content_type[128];
	char request_id[128];	/* request-id, x-request-id, or the like */
	char retry_after[64];	/* Retry-After */
	char retry_after_ms[32]; /* retry-after-ms */
	char date[64];
	char should_retry[8];	/* x-should-retry */
};

struct http;		/* the connections */
struct http_call;	/* one request under way */

/* Called from the loop, never from within http_start. */
struct http_events {
	/* The connection stands, the request goes out. */
	void (*connected)(void *arg);
	/* Once, before the first data; not for 1xx. */
	void (*head)(void *arg, const struct http_head *head);
	void (*data)(void *arg, const char *p, size_t n);
	/* The last one, when the call is gone.  ERRTYPE_none: the body is
	 * whole.  Else connect_failed, connect_timeout, tls,
	 * upstream_truncated (also when nothing came). */
	void (*over)(void *arg, enum errtype why);
};

/* ca_file: certificates to trust in place of the system's, or "".
 * RS_OK, RS_ENOMEM, RS_EIO. */
enum rs_err http_new(struct loop *l, const char *ca_file, struct http **ret);
/* No call may be under way but those that were let go. */
void http_free(struct http *h);

/* Begins a call.  r is copied or used up: done with it when this returns.
 * connect_ms: 0 is libcurl's own, five minutes.  May be called from an event.
 * RS_OK; RS_EINVAL: the URL, or what errors in r say; RS_ENOMEM; then no event
 * comes. */
enum rs_err http_start(struct http *h, struct http_req *r, uint64_t connect_ms,
    const struct http_events *ev, void *arg, struct http_call **ret);

/* After its head: the rest of the response is of no interest.  No event comes
 * any more, and the connection is kept if that rest is short and comes soon.
 * May be called from an event. */
void http_let_go(struct http_call *c);

/* Ends a call at once and closes what it had to itself; no event comes any
 * more.  May be called from an event.  NULL is taken. */
void http_cancel(struct http_call *c);

/* In an over with a failure: libcurl's words for it, for the log.  They may
 * name hosts and paths, no keys. */
const char *http_why(const struct http *h);

#endif
