/* http_req.c - what is sent to an upstream. */
#include <string.h>

#include "http.h"

#define HEADERS_MAX 65536
#define BODY_MAX (256u << 20)	/* what is asked has its limit elsewhere */

void
http_req_init(struct http_req *r)
{
	buf_init(&r->url, HTTP_URL_MAX);
	buf_init(&r->headers, HEADERS_MAX);
	buf_init(&r->body, BODY_MAX);
}

void
http_req_done(struct http_req *r)
{
	/* Here the key is. */
	if (r->headers.data != NULL)
		explicit_bzero(r->headers.data, r->headers.cap);
	buf_done(&r->url);
	buf_done(&r->headers);
	buf_done(&r->body);
}

void
http_req_header(struct http_req *r, const char *name, const char *value)
{
	if (strpbrk(name, "\r\n:") != NULL || strpbrk(value, "\r\n") != NULL)
		r->headers.err = RS_EINVAL;
	buf_printf(&r->headers, "%s: %s", name, value);
	buf_add(&r->headers, "", 1);
}
