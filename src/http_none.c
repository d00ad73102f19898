/* http_none.c - http.c where there is no libcurl.  The models file may have no
 * model then that is asked over HTTP (see model_read.c), so nobody gets here. */
#include <stdlib.h>

#include "http.h"

enum rs_err
http_new(struct loop *l, const char *ca_file, struct http **ret)
{
	(void)l;
	(void)ca_file;
	(void)ret;
	return RS_EINVAL;
}

void
http_free(struct http *h)
{
	(void)h;
}

enum rs_err
http_start(struct http *h, struct http_req *r, uint64_t connect_ms,
    const struct http_events *ev, void *arg, struct http_call **ret)
{
	(void)h;
	(void)r;
	(void)connect_ms;
	(void)ev;
	(void)arg;
	(void)ret;
	return RS_EINVAL;
}

void
http_let_go(struct http_call *c)
{
	(void)c;
}

void
http_cancel(struct http_call *c)
{
	(void)c;
}

const char *
http_why(const struct http *h)
{
	(void)h;
	return "";
}
