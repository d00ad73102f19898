/* route.c - which handler answers a request */
#include <stdio.h>
#include <string.h>

#include "auth.h"
#include "clock.h"
#include "link.h"
#include "log.h"
#include "route.h"

#define PATH_LEN_MAX 8192
#define ALLOW_SIZE 64
#define WHY_MAX 512

enum {
	M_GET = 1, M_POST = 2, M_DELETE = 4,
	R_PARAMS = 8,	/* reads query and body */
	R_USER = 16,	/* is for those whom auth knows */
	R_LINK = 32,	/* and for who has a link to the stream */
	R_ACTS = 64,	/* does what no foreign page may do in a user's name */
};

/* A '*' stands for one segment, which must not be empty. */
static const struct route {
	unsigned what;
	const char *pattern;
	void (*act)(struct request *rq);
} routes[] = {
	{ M_GET | R_PARAMS | R_USER | R_LINK, "/api/v1/stream", act_stream },
	{ M_POST | R_PARAMS | R_USER, "/api/v1/stream", act_stream },
	{ M_GET | R_PARAMS | R_USER, "/api/v1/streams", act_streams_list },
	{ M_GET | R_PARAMS | R_USER | R_LINK, "/api/v1/streams/*",
	    act_streams_snapshot },
	{ M_DELETE | R_PARAMS | R_USER | R_ACTS, "/api/v1/streams/*",
	    act_streams_delete },
	{ M_POST | R_PARAMS | R_USER | R_ACTS, "/api/v1/streams/*/stop",
	    act_streams_stop },
	{ M_POST | R_PARAMS | R_USER | R_ACTS, "/api/v1/streams/*/link",
	    act_streams_link },
	{ M_GET | R_USER, "/api/v1/models", act_models },
	{ M_GET | M_POST | R_PARAMS | R_USER, "/convo_turn_stream", act_turn },
	{ M_GET | R_PARAMS | R_USER, "/convo_history", act_history },
	{ M_DELETE | R_PARAMS | R_USER | R_ACTS, "/convo_history",
	    act_history_delete },
	{ M_GET | R_USER, "/api/personas", act_personas },
	{ M_GET | R_USER, "/api/templates", act_templates },
	{ M_POST | R_PARAMS | R_USER, "/api/render", act_render },
	{ M_POST | R_PARAMS | R_USER, "/api/triage", act_triage },
	{ M_GET, "/magic", act_page },
	{ M_GET, "/magic/", act_page_slash },
	{ M_GET, "/magic/*", act_page_file },
	{ M_GET, "/health", act_health },
	{ M_GET, "/ready", act_ready },
	{ M_GET, "/version", act_version },
	{ M_GET, "/metrics", act_metrics },
};
#define ROUTES (sizeof routes / sizeof routes[0])

/* *ret_arg, *ret_len: what stands for the '*'; len 0 without one. */
static bool
route_match(const struct route *row, char *path, char **ret_arg,
    size_t *ret_len)
{
	const char *star = strchr(row->pattern, '*');
	size_t before, len;

	*ret_len = 0;
	if (star == NULL)
		return strcmp(path, row->pattern) == 0;
	before = (size_t)(star - row->pattern);
	if (strncmp(path, row->pattern, before) != 0)
		return false;
	len = strcspn(path + before, "/");
	if (len == 0 || strcmp(path + before + len, star + 1) != 0)
		return false;
	*ret_arg = path + before;
	*ret_len = len;
	return true;
}

static bool
route_known(char *path)
{
	char *arg;
	size_t i, len;

	for (i = 0; i < ROUTES; i++) {
		if (route_match(&routes[i], path, &arg, &len))
			return true;
	}
	return false;
}

static void
base_cut(struct buf *path, const char *base)
{
	size_t n = strlen(base);

	if (n > 0 && path->len > n && path->data[n] == '/' &&
	    memcmp(path->data, base, n) == 0)
		buf_drop(path, n);
}

/* Leaves in *path the first of the places where web servers put the path
 * that is a route; false: none is. */
static bool
route_path(const struct responder *r, const struct client *c,
    struct buf *path)
{
	const char *info = client_env(c, "PATH_INFO");
	const char *script = client_env(c, "SCRIPT_NAME");
	const char *uri = client_env(c, "REQUEST_URI");
	int i;

	for (i = 0; i < 3; i++) {
		buf_clear(path);
		if (i == 1 && script != NULL)
			buf_puts(path, script);
		if (i <= 1 && info != NULL)
			buf_puts(path, info);
		if (i == 2 && uri != NULL &&
		    params_decode(uri, strcspn(uri, "?"), false, path) !=
		    RS_OK)
			continue;
		if (path->err != RS_OK || path->len == 0 ||
		    strlen(path->data) != path->len)
			continue;
		base_cut(path, r->conf->base_path);
		if (route_known(path->data))
			return true;
	}
	return false;
}

static unsigned
method_bit(const char *method)
{
	if (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0)
		return M_GET;
	if (strcmp(method, "POST") == 0)
		return M_POST;
	if (strcmp(method, "DELETE") == 0)
		return M_DELETE;
	return 0;
}

/* The row for a path that is a route, and the methods that the path takes;
 * NULL: not this one. */
static const struct route *
route_find(char *path, unsigned method, char ret_allow[ALLOW_SIZE],
    char **ret_arg)
{
	const struct route *found = NULL;
	unsigned methods = 0;
	char *arg = NULL;
	size_t i, len, arg_len = 0;

	for (i = 0; i < ROUTES; i++) {
		if (!route_match(&routes[i], path, &arg, &len))
			continue;
		methods |= routes[i].what;
		arg_len = len;
		*ret_arg = arg;
		if ((routes[i].what & method) != 0)
			found = &routes[i];
	}
	if (arg_len > 0)
		(*ret_arg)[arg_len] = '\0';
	snprintf(ret_allow, ALLOW_SIZE, "%s%s%sOPTIONS",
	    methods & M_GET ? "GET, HEAD, " : "",
	    methods & M_POST ? "POST, " : "",
	    methods & M_DELETE ? "DELETE, " : "");
	return found;
}

/* Reads the body where the request can have one.  False: it is answered. */
static bool
body_read(struct request *rq, unsigned method, struct buf *body)
{
	const char *length = client_env(rq->c, "CONTENT_LENGTH");
	bool some = length != NULL && length[0] != '\0' &&
	    strcmp(length, "0") != 0;

	/* A chunked body may come without a length, but not with a GET. */
	if (rq->head || (method != M_POST && !some))
		return true;
	switch (client_read_body(rq->c, body)) {
	case RS_OK:
		return true;
	case RS_ETOOBIG:
		reply_error(rq, ERRTYPE_body_too_large, NULL);
		break;
	case RS_ETIMEOUT:
		reply_error(rq, ERRTYPE_invalid_request,
		    "The request body did not arrive in time.");
		break;
	case RS_ECLOSED:
		reply_error(rq, ERRTYPE_invalid_request,
		    "The request body is cut short.");
		break;
	default:
		reply_error(rq, ERRTYPE_internal, NULL);
		break;
	}
	return false;
}

/* False: the request is answered. */
static bool
params_read(struct request *rq, unsigned method)
{
	struct buf body, why;
	enum errtype t;
	bool ok = false;

	buf_init(&body, rq->r->conf->max_body_bytes);
	buf_init(&why, WHY_MAX);
	if (!body_read(rq, method, &body))
		goto out;
	t = params_parse(client_env(rq->c, "QUERY_STRING"),
	    client_env(rq->c, "CONTENT_TYPE"), &body, &rq->params, &why);
	if (t != ERRTYPE_none)
		reply_error(rq, t, why.data);
	else
		ok = true;
out:
	buf_done(&why);
	buf_done(&body);
	return ok;
}

/* Finds out whose request it is.  False: it is answered. */
static bool
caller_read(struct request *rq, unsigned method)
{
	enum auth_result got = auth_owner(rq);

	/* A body is read for the token that may be in it, and only then. */
	if (got == AUTH_NOBODY && rq->params == NULL &&
	    auth_by_parameter(rq->r->conf)) {
		if (!params_read(rq, method))
			return false;
		got = auth_owner(rq);
	}
	switch (got) {
	case AUTH_OK:
		return true;
	case AUTH_INVALID:
		reply_error(rq, ERRTYPE_invalid_request,
		    "user_id must be one text of 1 to 128 bytes without "
		    "control characters, and equal userId if both are given.");
		break;
	case AUTH_UNABLE:
		reply_error(rq, ERRTYPE_internal, NULL);
		break;
	default:
		reply_unauthorized(rq, got == AUTH_REFUSED);
		break;
	}
	return false;
}

/* Lets a reader in as the owner of the one stream that the link is for.  A bad
 * link is nobody's, who finds no stream. */
static void
link_read(struct request *rq, const char *link, size_t len)
{
	const char *id = rq->arg;
	struct spool_reader sr;
	size_t id_len = id != NULL ? strlen(id) : 0;
	enum rs_err err;

	rq->by_link = true;
	if (id == NULL && params_str(rq->params, "stream_id", &id, &id_len) !=
	    RS_OK)
		return;
	if (!spool_id_valid(id, id_len))
		return;
	err = link_open(rq->r->spool, link, len, id, clock_wall_ms() / 1000,
	    &sr);
	if (err == RS_OK) {
		strcpy(rq->owner, sr.head.owner);
		rq->link_created = sr.head.created_ms;
		spool_reader_done(&sr);
	} else if (err != RS_ENOENT) {
		log_warn("link", "stream=%s not read why=\"%s\"", id,
		    rs_strerror(err));
	}
}

/* What a handler wants to know before it begins.  False: the request is
 * answered. */
static bool
request_read(struct request *rq, const struct route *row, unsigned method)
{
	bool user = (row->what & R_USER) != 0;
	/* Strangers are turned away before their body is read, where the body
	 * does not say who they are. */
	bool user_first = rq->r->conf->owner_by != OWNER_BY_REQUEST &&
	    (row->what & R_LINK) == 0;
	const char *link;
	size_t len;

	if (user && user_first && !caller_read(rq, method))
		return false;
	if ((row->what & R_PARAMS) != 0 && rq->params == NULL &&
	    !params_read(rq, method))
		return false;
	if ((row->what & R_LINK) != 0 &&
	    params_str(rq->params, "link", &link, &len) == RS_OK)
		link_read(rq, link, len);
	else if (user && !user_first && !caller_read(rq, method))
		return false;
	if ((row->what & R_ACTS) != 0 && !reply_origin_ok(rq)) {
		reply_error(rq, ERRTYPE_origin_refused, NULL);
		return false;
	}
	return true;
}

void
route_serve(struct responder *r, struct client *c)
{
	const char *name = client_env(c, "REQUEST_METHOD");
	struct request rq = { .r = r, .c = c };
	const struct route *row;
	char allow[ALLOW_SIZE], *arg = NULL;
	struct buf path;
	unsigned method;

	if (name == NULL)
		name = "";
	rq.head = strcmp(name, "HEAD") == 0;
	rq.address_known = address_client(client_env(c, "REMOTE_ADDR"),
	    client_env(c, "HTTP_X_FORWARDED_FOR"), r->conf->trusted_proxies,
	    &rq.address);
	method = method_bit(name);
	buf_init(&path, PATH_LEN_MAX);
	/* Of what is not for everybody's eyes nothing is seen. */
	if (!route_path(r, c, &path) ||
	    (strcmp(path.data, "/metrics") == 0 && !metrics_may_read(&rq))) {
		reply_error(&rq, ERRTYPE_not_found, NULL);
		goto out;
	}
	row = route_find(path.data, method, allow, &arg);
	rq.arg = arg;
	if (strcmp(name, "OPTIONS") == 0)
		reply_preflight(&rq, allow);
	else if (row == NULL)
		reply_not_allowed(&rq, allow);
	else if (request_read(&rq, row, method))
		row->act(&rq);
out:
	params_free(rq.params);
	buf_done(&path);
}
