/* http.c - requests to upstreams: libcurl's multi interface in the loop.
 *
 * libcurl calls back from within curl_multi_socket_action, where a call can be
 * neither added nor removed.  What an event asks for then waits in a list
 * until libcurl has returned, in the same turn of the loop.
 *
 * Of the calls to a HTTP/2 server libcurl gets only one at a time that has no
 * connection yet: it finds room on one, or makes the next.  Left alone, and
 * with CURLOPT_PIPEWAIT too, libcurl (7.88) makes a connection for each call
 * that comes while all it has are full. */
#include <sys/epoll.h>
#include <sys/queue.h>

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "clock.h"
#include "http.h"
#include "loop.h"

#define HEAD_MAX 65536		/* of a response, interim ones included */
#define STREAMS_MAX 128L	/* of an HTTP/2 connection */
#define KEPT_MAX 256L		/* connections, before one is closed after use */
#define CONNECT_MS 300000	/* where nobody says */
#define REST_MS 1000		/* of a response that was let go */
#define REST_MAX 65536		/* bytes */

/* A descriptor of libcurl's. */
struct sock {
	struct watch watch;
	struct http *http;
};

TAILQ_HEAD(calls, http_call);

/* A server that calls go to. */
struct origin {
	struct origin *next;
	bool shares;		/* connections, as far as we know: HTTP/2 */
	struct http_call *connecting; /* while it shares: libcurl has it */
	struct calls queue;	/* libcurl has not */
	char name[];		/* scheme, host and port */
};

struct http {
	struct loop *loop;
	CURLM *multi;
	struct timer timer;	/* libcurl's */
	struct origin *origins;
	struct calls cancelled;	/* to be freed */
	struct calls let_go;
	bool inside;		/* of libcurl */
	char *ca_file;		/* NULL: the system's */
	char why[CURL_ERROR_SIZE];
};

struct http_call {
	struct http *http;
	struct origin *origin;
	struct calls *list;	/* that it is on, or NULL */
	TAILQ_ENTRY(http_call) entry;
	const struct http_events *ev;
	void *arg;
	CURL *easy;
	struct curl_slist *headers;
	struct buf body;
	struct timer timer;	/* until it is connected, or let go for good */
	size_t rest;		/* bytes since it was let go */
	bool cancelled;
	bool connected, head_told;
	bool fresh;		/* has a connection made for it alone */
	size_t head_bytes;
	struct http_head head;
	char why[CURL_ERROR_SIZE];
};

/* ---- calls ---- */

/* NULL: to none. */
static void
call_move(struct http_call *c, struct calls *list)
{
	if (c->list != NULL)
		TAILQ_REMOVE(c->list, c, entry);
	if (list != NULL)
		TAILQ_INSERT_TAIL(list, c, entry);
	c->list = list;
}

/* Gives libcurl who may go on.  Not from within libcurl. */
static void
origin_run(struct origin *o)
{
	struct http_call *c;

	while ((c = TAILQ_FIRST(&o->queue)) != NULL &&
	    (!o->shares || o->connecting == NULL)) {
		call_move(c, NULL);
		o->connecting = c;
		if (curl_multi_add_handle(c->http->multi, c->easy) != CURLM_OK)
			timer_set(&c->http->loop->timers, &c->timer, 0);
	}
}

/* Not from within libcurl. */
static void
call_free(struct http_call *c)
{
	struct origin *o = c->origin;
	struct curl_slist *line;

	call_move(c, NULL);
	if (o->connecting == c)
		o->connecting = NULL;
	if (c->easy != NULL) {
		curl_multi_remove_handle(c->http->multi, c->easy);
		curl_easy_cleanup(c->easy);
	}
	timer_cancel(&c->http->loop->timers, &c->timer);
	for (line = c->headers; line != NULL; line = line->next)
		explicit_bzero(line->data, strlen(line->data));
	curl_slist_free_all(c->headers);
	buf_done(&c->body);
	free(c);
	origin_run(o);
}

/* What a failure is to us.  A connection that was made stands for the
 * upstream; one that was not tells why. */
static enum errtype
call_errtype(const struct http_call *c, CURLcode code)
{
	if (c->head_told)
		return code == CURLE_OK ? ERRTYPE_none :
		    ERRTYPE_upstream_truncated;
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_CONNECT:
		return ERRTYPE_connect_failed;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CRL_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_INVALIDCERTSTATUS:
		return ERRTYPE_tls;
	case CURLE_OPERATION_TIMEDOUT:
		return c->connected ? ERRTYPE_upstream_truncated :
		    ERRTYPE_connect_timeout;
	default:
		return c->connected ? ERRTYPE_upstream_truncated :
		    ERRTYPE_connect_failed;
	}
}

/* Not from within libcurl. */
static void
call_over(struct http_call *c, CURLcode code)
{
	const struct http_events *ev = c->ev;
	enum errtype why = call_errtype(c, code);
	void *arg = c->arg;

	strcpy(c->http->why, why == ERRTYPE_none ? "" :
	    c->why[0] != '\0' ? c->why : code == CURLE_OK ?
	    "The response has no whole head" : curl_easy_strerror(code));
	call_free(c);
	ev->over(arg, why);
}

/* libcurl gives up after five kept connections that were dead.  Once more then,
 * on one that is made for it; false: there is nothing to hope for. */
static bool
call_again(struct http_call *c, CURLcode code)
{
	long made = 1;

	curl_easy_getinfo(c->easy, CURLINFO_NUM_CONNECTS, &made);
	if (code != CURLE_SEND_ERROR || made > 0 || c->head_bytes > 0 ||
	    c->fresh)
		return false;
	c->fresh = true;
	curl_multi_remove_handle(c->http->multi, c->easy);
	return curl_easy_setopt(c->easy, CURLOPT_FRESH_CONNECT, 1L) ==
	    CURLE_OK &&
	    curl_multi_add_handle(c->http->multi, c->easy) == CURLM_OK;
}

static void
connect_due(void *arg)
{
	call_over(arg, CURLE_OPERATION_TIMEDOUT);
}

/* Lets libcurl work, and then does what its callbacks could not. */
static void
http_work(struct http *h, curl_socket_t fd, int events)
{
	struct http_call *c;
	struct origin *o;
	CURLMsg *msg;
	CURLcode code;
	int n;

	h->inside = true;
	curl_multi_socket_action(h->multi, fd, events, &n);
	h->inside = false;
	while ((c = TAILQ_FIRST(&h->cancelled)) != NULL)
		call_free(c);
	for (o = h->origins; o != NULL; o = o->next)
		origin_run(o);
	while ((msg = curl_multi_info_read(h->multi, &n)) != NULL) {
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &c);
		code = msg->data.result; /* msg goes with the handle */
		if (!call_again(c, code))
			call_over(c, code);
	}
}

void
http_cancel(struct http_call *c)
{
	if (c == NULL)
		return;
	c->cancelled = true;
	if (c->http->inside)
		call_move(c, &c->http->cancelled);
	else
		call_free(c);
}

static void
rest_data(void *arg, const char *p, size_t n)
{
	struct http_call *c = arg;

	(void)p;
	c->rest += n;
	if (c->rest > REST_MAX)
		http_cancel(c);
}

static void
rest_over(void *arg, enum errtype why)
{
	(void)arg;
	(void)why;
}

static void
rest_due(void *arg)
{
	http_cancel(arg);
}

void
http_let_go(struct http_call *c)
{
	static const struct http_events rest_events = {
		.data = rest_data, .over = rest_over,
	};
	struct http *h = c->http;

	if (c->cancelled)
		return;
	c->ev = &rest_events;
	c->arg = c;
	call_move(c, &h->let_go);
	c->timer.fn = rest_due;
	timer_set(&h->loop->timers, &c->timer,
	    clock_mono_ns() + REST_MS * NS_PER_MS);
}

/* ---- what libcurl says of a call ---- */

static int
on_connected(void *arg, char *to_ip, char *from_ip, int to_port, int from_port)
{
	struct http_call *c = arg;

	(void)to_ip, (void)from_ip, (void)to_port, (void)from_port;
	/* It comes again when a kept connection turned out to be dead. */
	if (!c->cancelled && !c->connected) {
		c->connected = true;
		if (c->origin->connecting == c)
			c->origin->connecting = NULL;
		/* Not cancelled: that keeps its room. */
		timer_set(&c->http->loop->timers, &c->timer, UINT64_MAX);
		c->ev->connected(c->arg);
	}
	return c->cancelled ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

#define FIELD(name, member) \
	{ name, offsetof(struct http_head, member), \
	    sizeof ((struct http_head *)0)->member }
static const struct {
	const char *name;
	size_t at, size;
} fields[] = {
	FIELD("content-type", content_type),
	FIELD("date", date),
	FIELD("request-id", request_id),
	FIELD("retry-after", retry_after),
	FIELD("retry-after-ms", retry_after_ms),
	FIELD("x-request-id", request_id),
	FIELD("x-should-retry", should_retry),
};

/* One header line, its end cut off. */
static void
head_field(struct http_head *head, const char *p, size_t n)
{
	const char *colon = memchr(p, ':', n);
	size_t i, len;
	char *to;

	for (i = 0; colon != NULL && i < sizeof fields / sizeof *fields; i++) {
		len = strlen(fields[i].name);
		if (len != (size_t)(colon - p) ||
		    strncasecmp(p, fields[i].name, len) != 0)
			continue;
		p += len + 1;
		n -= len + 1;
		for (; n > 0 && (*p == ' ' || *p == '\t'); p++)
			n--;
		while (n > 0 && (p[n - 1] == ' ' || p[n - 1] == '\t'))
			n--;
		if (n >= fields[i].size)
			n = fields[i].size - 1;
		to = (char *)head + fields[i].at;
		memcpy(to, p, n);
		to[n] = '\0';
		return;
	}
}

/* Called for each line of each head: interim ones, the final one, and then
 * trailers. */
static size_t
on_header(char *p, size_t one, size_t size, void *arg)
{
	struct http_call *c = arg;
	size_t n = size;
	long status = 0;

	(void)one;
	c->head_bytes += size;
	if (c->cancelled || c->head_bytes > HEAD_MAX)
		return 0;
	if (c->head_told)
		return size;
	while (n > 0 && (p[n - 1] == '\r' || p[n - 1] == '\n'))
		n--;
	if (n > 5 && memcmp(p, "HTTP/", 5) == 0) {
		memset(&c->head, 0, sizeof c->head);
		c->origin->shares = p[5] != '1';
	} else if (n > 0) {
		head_field(&c->head, p, n);
	} else {
		curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
		if (status >= 200) {
			c->head.status = (unsigned)status;
			c->head_told = true;
			c->ev->head(c->arg, &c->head);
		}
	}
	return size;
}

static size_t
on_data(char *p, size_t one, size_t size, void *arg)
{
	struct http_call *c = arg;
	curl_off_t sent = 0;

	(void)one;
	if (c->cancelled)
		return 0;
	/* Once an answer comes, nothing sends the request again. */
	curl_easy_getinfo(c->easy, CURLINFO_SIZE_UPLOAD_T, &sent);
	if (c->body.data != NULL && (size_t)sent >= c->body.len)
		buf_done(&c->body);
	c->ev->data(c->arg, p, size);
	return size;
}

/* ---- what libcurl says of the loop ---- */

static void
on_ready(void *arg, uint32_t events)
{
	struct sock *s = arg;
	int what = 0;

	if (events & (EPOLLIN | EPOLLHUP))
		what |= CURL_CSELECT_IN;
	if (events & EPOLLOUT)
		what |= CURL_CSELECT_OUT;
	if (events & EPOLLERR)
		what |= CURL_CSELECT_ERR;
	http_work(s->http, s->watch.fd, what);
}

static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *sock)
{
	struct http *h = arg;
	struct sock *s = sock;
	uint32_t events = 0;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (s != NULL)
			loop_watch(h->loop, &s->watch, 0);
		free(s);
		return 0;
	}
	if (s == NULL) {
		/* A call that cannot be watched runs into its time-outs; an
		 * error from here would end all of them. */
		if ((s = calloc(1, sizeof *s)) == NULL)
			return 0;
		s->http = h;
		s->watch = (struct watch){
			.fd = fd, .fn = on_ready, .arg = s,
		};
		curl_multi_assign(h->multi, fd, s);
	}
	if (what & CURL_POLL_IN)
		events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		events |= EPOLLOUT;
	loop_watch(h->loop, &s->watch, events);
	return 0;
}

static int
on_timer(CURLM *multi, long ms, void *arg)
{
	struct http *h = arg;

	(void)multi;
	if (ms < 0)
		timer_cancel(&h->loop->timers, &h->timer);
	else
		timer_set(&h->loop->timers, &h->timer,
		    clock_mono_ns() + (uint64_t)ms * NS_PER_MS);
	return 0;
}

static void
timer_due(void *arg)
{
	http_work(arg, CURL_SOCKET_TIMEOUT, 0);
}

/* ---- beginning ---- */

/* "https://host:port" of an URL.  RS_OK, RS_EINVAL, RS_ENOMEM. */
static enum rs_err
origin_name(const char *url, struct buf *name, bool *ret_tls)
{
	char *scheme = NULL, *host = NULL, *port = NULL;
	CURLU *u = curl_url();
	enum rs_err err = RS_EINVAL;

	if (u == NULL)
		return RS_ENOMEM;
	if (curl_url_set(u, CURLUPART_URL, url, 0) != CURLUE_OK ||
	    curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
	    curl_url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
	    curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) !=
	    CURLUE_OK)
		goto out;
	*ret_tls = strcmp(scheme, "https") == 0;
	if (!*ret_tls && strcmp(scheme, "http") != 0)
		goto out;
	buf_printf(name, "%s://%s:%s", scheme, host, port);
	err = name->err;
out:
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_url_cleanup(u);
	return err;
}

/* The origin of an URL, as new when there was none. */
static enum rs_err
origin_get(struct http *h, const char *url, struct origin **ret)
{
	struct buf name;
	struct origin *o;
	enum rs_err err;
	bool tls;

	buf_init(&name, HTTP_URL_MAX);
	if ((err = origin_name(url, &name, &tls)) != RS_OK)
		goto out;
	for (o = h->origins; o != NULL && strcmp(o->name, name.data) != 0;)
		o = o->next;
	if (o == NULL) {
		if ((o = calloc(1, sizeof *o + name.len + 1)) == NULL) {
			err = RS_ENOMEM;
			goto out;
		}
		memcpy(o->name, name.data, name.len);
		TAILQ_INIT(&o->queue);
		o->shares = tls; /* only TLS can tell that it does not */
		o->next = h->origins;
		h->origins = o;
	}
	*ret = o;
out:
	buf_done(&name);
	return err;
}

/* Copies the headers, and says what libcurl would send of itself and must
 * not. */
static enum rs_err
call_headers(struct http_call *c, const struct buf *headers)
{
	static const char *const no[] = { "Expect:", "Accept-Encoding:" };
	struct curl_slist *list;
	size_t at, i;

	for (i = 0; i < sizeof no / sizeof *no; i++) {
		if ((list = curl_slist_append(c->headers, no[i])) == NULL)
			return RS_ENOMEM;
		c->headers = list;
	}
	for (at = 0; at < headers->len; at += strlen(headers->data + at) + 1) {
		list = curl_slist_append(c->headers, headers->data + at);
		if (list == NULL)
			return RS_ENOMEM;
		c->headers = list;
	}
	return RS_OK;
}

static enum rs_err
call_options(struct http_call *c, const char *url, uint64_t connect_ms)
{
	const char *ca_file = c->http->ca_file;
	CURL *e = c->easy;
	int bad = 0;

	bad |= (int)curl_easy_setopt(e, CURLOPT_PRIVATE, c);
	bad |= (int)curl_easy_setopt(e, CURLOPT_ERRORBUFFER, c->why);
	bad |= (int)curl_easy_setopt(e, CURLOPT_URL, url);
	bad |= (int)curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	bad |= (int)curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	bad |= (int)curl_easy_setopt(e, CURLOPT_HTTP_VERSION,
	    (long)CURL_HTTP_VERSION_2TLS);
	bad |= (int)curl_easy_setopt(e, CURLOPT_USERAGENT,
	    "respool/" PACKAGE_VERSION);
	bad |= (int)curl_easy_setopt(e, CURLOPT_HTTPHEADER, c->headers);
	bad |= (int)curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE,
	    (curl_off_t)c->body.len);
	bad |= (int)curl_easy_setopt(e, CURLOPT_POSTFIELDS,
	    c->body.data != NULL ? c->body.data : "");
	/* Not asked for (call_headers), but understood when it comes. */
	bad |= (int)curl_easy_setopt(e, CURLOPT_ACCEPT_ENCODING, "gzip");
	if (ca_file != NULL) {
		bad |= (int)curl_easy_setopt(e, CURLOPT_CAINFO, ca_file);
		bad |= (int)curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
	}
	bad |= (int)curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS,
	    (long)connect_ms);
	bad |= (int)curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	/* Or a cancelled call would wait for the resolver's thread. */
	bad |= (int)curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
	/* Routers forget connections that are silent for minutes. */
	bad |= (int)curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	bad |= (int)curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 4096L);
	bad |= (int)curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, 16384L);
	bad |= (int)curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	bad |= (int)curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, on_connected);
	bad |= (int)curl_easy_setopt(e, CURLOPT_PREREQDATA, c);
	bad |= (int)curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	bad |= (int)curl_easy_setopt(e, CURLOPT_HEADERDATA, c);
	bad |= (int)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_data);
	bad |= (int)curl_easy_setopt(e, CURLOPT_WRITEDATA, c);
	return bad != 0 ? RS_ENOMEM : RS_OK;
}

enum rs_err
http_start(struct http *h, struct http_req *r, uint64_t connect_ms,
    const struct http_events *ev, void *arg, struct http_call **ret)
{
	struct timers *timers = &h->loop->timers;
	struct http_call *c;
	struct origin *o;
	enum rs_err err;

	if (r->url.err != RS_OK || r->headers.err != RS_OK ||
	    r->body.err != RS_OK)
		return r->url.err == RS_ENOMEM || r->headers.err == RS_ENOMEM ||
		    r->body.err == RS_ENOMEM ? RS_ENOMEM : RS_EINVAL;
	if (r->url.len == 0 || strlen(r->url.data) != r->url.len)
		return RS_EINVAL;
	if ((err = origin_get(h, r->url.data, &o)) != RS_OK)
		return err;
	if (timers_reserve(timers, timers->count + 64) != RS_OK ||
	    (c = calloc(1, sizeof *c)) == NULL)
		return RS_ENOMEM;
	c->http = h;
	c->origin = o;
	c->ev = ev;
	c->arg = arg;
	if (connect_ms == 0)
		connect_ms = CONNECT_MS;
	c->timer = (struct timer){ .fn = connect_due, .arg = c };
	c->body = r->body;
	buf_init(&r->body, r->body.max);
	err = RS_ENOMEM;
	if ((c->easy = curl_easy_init()) == NULL ||
	    (err = call_headers(c, &r->headers)) != RS_OK ||
	    (err = call_options(c, r->url.data, connect_ms)) != RS_OK) {
		call_free(c);
		return err;
	}
	timer_set(timers, &c->timer, clock_mono_ns() + connect_ms * NS_PER_MS);
	call_move(c, &o->queue);
	if (!h->inside)
		origin_run(o);
	*ret = c;
	return RS_OK;
}

const char *
http_why(const struct http *h)
{
	return h->why;
}

enum rs_err
http_new(struct loop *l, const char *ca_file, struct http **ret)
{
	struct http *h = calloc(1, sizeof *h);

	if (h == NULL)
		return RS_ENOMEM;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		free(h);
		return RS_EIO;
	}
	h->loop = l;
	TAILQ_INIT(&h->cancelled);
	TAILQ_INIT(&h->let_go);
	h->timer = (struct timer){ .fn = timer_due, .arg = h };
	h->multi = curl_multi_init();
	if (h->multi == NULL || timers_reserve(&l->timers,
	    l->timers.count + 64) != RS_OK || (ca_file[0] != '\0' &&
	    (h->ca_file = strdup(ca_file)) == NULL)) {
		http_free(h);
		return RS_ENOMEM;
	}
	curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
	curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
	curl_multi_setopt(h->multi, CURLMOPT_MAX_CONCURRENT_STREAMS,
	    STREAMS_MAX);
	curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, KEPT_MAX);
	*ret = h;
	return RS_OK;
}

void
http_free(struct http *h)
{
	struct http_call *c;
	struct origin *o;

	if (h == NULL)
		return;
	while ((c = TAILQ_FIRST(&h->let_go)) != NULL)
		call_free(c);
	while ((o = h->origins) != NULL) {
		h->origins = o->next;
		free(o);
	}
	curl_multi_cleanup(h->multi);
	timer_cancel(&h->loop->timers, &h->timer);
	free(h->ca_file);
	free(h);
	curl_global_cleanup();
}
