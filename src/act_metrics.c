/* act_metrics.c - the counters, for those who collect them */
#include <sys/statvfs.h>

#include <string.h>

#include "metrics.h"
#include "route.h"

#define METRICS_BYTES_MAX (1 << 20)

/* By a proxy that nobody has named, so that the address is the proxy's: one of
 * this host would let in the whole world. */
static bool
is_forwarded(const struct request *rq)
{
	const char *chain = client_env(rq->c, "HTTP_X_FORWARDED_FOR");
	const char *peer = client_env(rq->c, "REMOTE_ADDR");
	struct address a;

	return chain != NULL && chain[0] != '\0' &&
	    (!address_parse(peer, strlen(peer), &a) ||
	    !address_in(&a, rq->r->conf->trusted_proxies));
}

bool
metrics_may_read(const struct request *rq)
{
	return rq->address_known && !is_forwarded(rq) &&
	    address_in(&rq->address, rq->r->conf->metrics_from);
}

void
act_metrics(struct request *rq)
{
	struct metrics_sums sums;
	struct statvfs fs;
	struct buf b;

	metrics_again();
	metrics_sum(&sums);
	if (fstatvfs(rq->r->spool->fd, &fs) == 0)
		sums.spool_free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	buf_init(&b, METRICS_BYTES_MAX);
	metrics_put(&b, &sums);
	if (b.err != RS_OK)
		reply_error(rq, ERRTYPE_internal, NULL);
	else
		reply_send(rq, 200, "Content-Type: text/plain; "
		    "version=0.0.4; charset=utf-8\r\n"
		    "Cache-Control: no-store\r\n", b.data, b.len);
	buf_done(&b);
}
