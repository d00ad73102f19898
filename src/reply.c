/* reply.c - response heads, CORS, JSON answers and errors */
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "jx.h"
#include "log.h"
#include "metrics.h"
#include "reply.h"

#define HEAD_MAX 8192 /* an origin of a page may have 4,000 */
#define JSON_HEADERS \
	"Content-Type: application/json\r\n" \
	"Cache-Control: no-store\r\n" \
	"X-Content-Type-Options: nosniff\r\n"

static const char *
reason_phrase(int status)
{
	static const struct {
		int status;
		const char *phrase;
	} rows[] = {
		{ 200, "OK" },
		{ 204, "No Content" },
		{ 301, "Moved Permanently" },
		{ 304, "Not Modified" },
		{ 400, "Bad Request" },
		{ 401, "Unauthorized" },
		{ 403, "Forbidden" },
		{ 404, "Not Found" },
		{ 405, "Method Not Allowed" },
		{ 409, "Conflict" },
		{ 413, "Content Too Large" },
		{ 415, "Unsupported Media Type" },
		{ 429, "Too Many Requests" },
		{ 503, "Service Unavailable" },
	};
	size_t i;

	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		if (rows[i].status == status)
			return rows[i].phrase;
	}
	return "Internal Server Error";
}

/* Says who may read the answer.  True: the page that asks may. */
static bool
cors_put(const struct request *rq, struct buf *b)
{
	const char *origins = rq->r->conf->cors_origins;
	const char *origin = client_env(rq->c, "HTTP_ORIGIN");

	if (conf_has_word(origins, "*"))
		buf_puts(b, "Access-Control-Allow-Origin: *\r\n");
	else {
		buf_puts(b, "Vary: Origin\r\n");
		if (origin == NULL || !conf_has_word(origins, origin))
			return false;
		buf_printf(b, "Access-Control-Allow-Origin: %s\r\n"
		    "Access-Control-Allow-Credentials: true\r\n", origin);
	}
	buf_puts(b,
	    "Access-Control-Expose-Headers: X-Stream-ID, Retry-After\r\n");
	return true;
}

static void
client_end(struct request *rq, const struct buf *b)
{
	if (b->err != RS_OK)
		log_error("reply", "not answered why=\"%s\"",
		    rs_strerror(b->err));
	if (b->err == RS_OK &&
	    client_write(rq->c, b->data, b->len) == RS_OK)
		client_finish(rq->c);
	else
		client_abort(rq->c);
	rq->c = NULL;
}

void
reply_send(struct request *rq, int status, const char *headers,
    const void *body, size_t len)
{
	struct buf b;

	metrics_add(metrics_code(status), 1);
	buf_init(&b, HEAD_MAX + len);
	buf_printf(&b, "Status: %d %s\r\n", status, reason_phrase(status));
	cors_put(rq, &b);
	buf_puts(&b, headers);
	if (status != 204 && status != 304)
		buf_printf(&b, "Content-Length: %zu\r\n", len);
	buf_puts(&b, "\r\n");
	if (!rq->head && len > 0)
		buf_add(&b, body, len);
	client_end(rq, &b);
	buf_done(&b);
}

void
reply_json(struct request *rq, const struct buf *json)
{
	if (json->err != RS_OK)
		reply_error(rq, ERRTYPE_internal, NULL);
	else
		reply_send(rq, 200, JSON_HEADERS, json->data, json->len);
}

void
reply_no_content(struct request *rq)
{
	reply_send(rq, 204, "Cache-Control: no-store\r\n", NULL, 0);
}

/* What the request itself is refused for; other failures have been logged by
 * those who know the reason. */
static void
refusal_log(const struct request *rq, const struct errtype_info *info)
{
	bool about = rq->stream != NULL && rq->stream[0] != '\0';

	if (info->status < 500 && info->status != 429)
		log_info("reply", "%s%s%srefused pid=%d status=%d type=%s",
		    about ? "stream=" : "", about ? rq->stream : "",
		    about ? " " : "", (int)getpid(), info->status, info->name);
}

static void
error_send(struct request *rq, enum errtype type, const char *text,
    const char *headers)
{
	const struct errtype_info *info = errtype_info(type);
	struct buf head, body;

	/* A spooler may say what belongs into frames only. */
	if (info->status == 0)
		info = errtype_info(ERRTYPE_internal);
	refusal_log(rq, info);
	if (rq->starting)
		metrics_add(METRIC_starts_refused_total + type, 1);
	if (text == NULL || text[0] == '\0')
		text = info->text;
	buf_init(&head, HEAD_MAX);
	buf_init(&body, HEAD_MAX);
	buf_puts(&head, JSON_HEADERS);
	buf_puts(&head, headers);
	if (info->status == 503 || info->status == 429)
		buf_printf(&head, "Retry-After: %u\r\n", rq->retry_s > 0 ?
		    (unsigned)rq->retry_s : REPLY_RETRY_AFTER);
	buf_puts(&body, "{\"error\":");
	jx_put_str(&body, text, strlen(text));
	buf_printf(&body, ",\"error_type\":\"%s\"", info->name);
	if (rq->limit != NULL && rq->limit[0] != '\0')
		buf_printf(&body, ",\"limit\":\"%s\"", rq->limit);
	buf_puts(&body, "}");
	if (head.err == RS_OK && body.err == RS_OK)
		reply_send(rq, info->status, head.data, body.data, body.len);
	else {
		log_error("reply", "not answered why=\"%s\"",
		    rs_strerror(head.err != RS_OK ? head.err : body.err));
		client_abort(rq->c);
		rq->c = NULL;
	}
	buf_done(&head);
	buf_done(&body);
}

void
reply_error(struct request *rq, enum errtype type, const char *text)
{
	error_send(rq, type, text, "");
}

void
reply_not_allowed(struct request *rq, const char *allow)
{
	char line[128];

	snprintf(line, sizeof line, "Allow: %s\r\n", allow);
	error_send(rq, ERRTYPE_method_not_allowed, NULL, line);
}

void
reply_unauthorized(struct request *rq, bool token)
{
	error_send(rq, ERRTYPE_unauthorized, NULL,
	    rq->r->conf->owner_by != OWNER_BY_JWT ? "" :
	    token ? "WWW-Authenticate: Bearer error=\"invalid_token\"\r\n" :
	    "WWW-Authenticate: Bearer\r\n");
}

void
reply_preflight(struct request *rq, const char *allow)
{
	struct buf b;

	buf_init(&b, HEAD_MAX);
	metrics_add(metrics_code(204), 1);
	buf_puts(&b, "Status: 204 No Content\r\n");
	if (cors_put(rq, &b))
		buf_puts(&b, "Access-Control-Allow-Methods: "
		    "GET, POST, DELETE\r\n"
		    "Access-Control-Allow-Headers: Content-Type, "
		    "Authorization, Cache-Control, Last-Event-ID\r\n"
		    "Access-Control-Max-Age: 86400\r\n");
	buf_printf(&b, "Allow: %s\r\n\r\n", allow);
	client_end(rq, &b);
	buf_done(&b);
}

bool
reply_stream(struct request *rq, const char *stream_id)
{
	struct buf b;
	bool ok;

	buf_init(&b, HEAD_MAX);
	metrics_add(metrics_code(200), 1);
	buf_puts(&b, "Status: 200 OK\r\n"
	    "Content-Type: text/event-stream\r\n"
	    "Cache-Control: no-cache, no-store, no-transform\r\n"
	    "Connection: keep-alive\r\n"
	    "X-Accel-Buffering: no\r\n");
	if (stream_id != NULL)
		buf_printf(&b, "X-Stream-ID: %s\r\n", stream_id);
	cors_put(rq, &b);
	/* Several servers hold a head back until the first byte of the body. */
	buf_puts(&b, rq->head ? "\r\n" : "\r\n: ok\n\n");
	if (rq->head) {
		client_end(rq, &b);
		ok = false;
	} else {
		ok = b.err == RS_OK &&
		    client_write(rq->c, b.data, b.len) == RS_OK;
		if (b.err != RS_OK)
			log_error("reply", "not answered why=\"%s\"",
			    rs_strerror(b.err));
		if (!ok) {
			client_abort(rq->c);
			rq->c = NULL;
		}
	}
	buf_done(&b);
	return ok;
}

bool
reply_later(struct request *rq, const char *stream_id, struct buf *head)
{
	if (rq->head) {
		reply_send(rq, 200, JSON_HEADERS, NULL, 0);
		return false;
	}
	buf_printf(head, JSON_HEADERS "X-Accel-Buffering: no\r\n"
	    "X-Stream-ID: %s\r\n", stream_id);
	cors_put(rq, head);
	buf_puts(head, "\r\n");
	return true;
}

/* True when the origin is this server's own, as the request names it. */
static bool
origin_own(const char *origin, const char *host)
{
	const char *at = strstr(origin, "://");
	const char *bracket, *port;
	size_t n;

	if (at == NULL || host == NULL || host[0] == '\0')
		return false;
	at += 3;
	if (strcasecmp(at, host) == 0)
		return true;
	/* Some front ends leave the port out of the host. */
	bracket = strrchr(host, ']');
	if (strchr(bracket != NULL ? bracket : host, ':') != NULL)
		return false;
	n = strlen(host);
	port = at + n;
	return strncasecmp(at, host, n) == 0 && *port == ':';
}

static bool
origin_ok(const struct request *rq, const char *origin)
{
	return conf_has_word(rq->r->conf->cors_origins, origin) ||
	    origin_own(origin, client_env(rq->c, "HTTP_HOST"));
}

/* What is neither Origin nor Sec-Fetch-Site may still be there: over plain HTTP
 * browsers send neither with what a page shows, as <img> does. */
static bool
referer_ok(const struct request *rq)
{
	const char *referer = client_env(rq->c, "HTTP_REFERER");
	const char *at = referer != NULL ? strstr(referer, "://") : NULL;
	char origin[HEAD_MAX];
	size_t n;

	if (at == NULL)
		return true;
	n = (size_t)(at + 3 - referer) + strcspn(at + 3, "/?#");
	if (n >= sizeof origin)
		return false;
	memcpy(origin, referer, n);
	origin[n] = '\0';
	return origin_ok(rq, origin);
}

bool
reply_origin_ok(const struct request *rq)
{
	const char *origins = rq->r->conf->cors_origins;
	const char *origin = client_env(rq->c, "HTTP_ORIGIN");
	const char *site = client_env(rq->c, "HTTP_SEC_FETCH_SITE");

	if (!rq->ambient && conf_has_word(origins, "*"))
		return true;
	if (site != NULL && strcmp(site, "same-origin") == 0)
		return true;
	if (origin != NULL && origin[0] != '\0')
		return origin_ok(rq, origin);
	/* "none" is the user himself; a page of another host of our site, as
	 * all others, says its origin when it may ask. */
	return site != NULL ? strcmp(site, "none") == 0 : referer_ok(rq);
}
