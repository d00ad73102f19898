/* route.c - which handler answers a request */
#include <stdio.h>
#include <string.h>

#include "route.h"

#define PATH_LEN_MAX 8192
#define ALLOW_SIZE 64
#define WHY_MAX 512

enum { M_GET = 1, M_POST = 2, M_DELETE = 4 };

/* A '*' stands for one segment, which must not be empty. */
static const struct route {
	unsigned methods;
	const char *pattern;
	bool params;	/* reads query and body */
	void (*act)(struct request *rq);
} routes[] = {
	{ M_GET | M_POST, "/api/v1/stream", true, act_stream },
	{ M_GET, "/api/v1/streams", true, act_streams_list },
	{ M_GET, "/api/v1/streams/*", true, act_streams_snapshot },
	{ M_DELETE, "/api/v1/streams/*", true, act_streams_delete },
	{ M_POST, "/api/v1/streams/*/stop", true, act_streams_stop },
	{ M_GET, "/api/v1/models", false, act_models },
	{ M_GET | M_POST, "/convo_turn_stream", true, act_turn },
	{ M_GET, "/convo_history", true, act_history },
	{ M_DELETE, "/convo_history", true, act_history_delete },
	{ M_GET, "/api/personas", false, act_personas },
	{ M_GET, "/api/templates", false, act_templates },
	{ M_POST, "/api/render", true, act_render },
	{ M_POST, "/api/triage", true, act_triage },
	{ M_GET, "/magic", false, act_page },
	{ M_GET, "/magic/", false, act_page_slash },
	{ M_GET, "/magic/*", false, act_page_file },
	{ M_GET, "/health", false, act_health },
	{ M_GET, "/version", false, act_version },
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
		methods |= routes[i].methods;
		arg_len = len;
		*ret_arg = arg;
		if ((routes[i].methods & method) != 0)
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

/* RS_OK or RS_EINVAL. */
static enum rs_err
owner_read(struct request *rq)
{
	static const char *const names[] = { "user_id", "userId" };
	const char *owner = NULL, *s;
	size_t i, owner_len = 0, len;
	enum rs_err err;

	for (i = 0; i < 2; i++) {
		err = params_str(rq->params, names[i], &s, &len);
		if (err == RS_ENOENT)
			continue;
		if (err != RS_OK || !spool_owner_valid(s, len))
			return RS_EINVAL;
		if (owner != NULL && (len != owner_len ||
		    memcmp(s, owner, len) != 0))
			return RS_EINVAL;
		owner = s;
		owner_len = len;
	}
	if (owner == NULL) {
		owner = OWNER_ANONYMOUS;
		owner_len = strlen(owner);
	}
	memcpy(rq->owner, owner, owner_len);
	rq->owner[owner_len] = '\0';
	return RS_OK;
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
	if (t != ERRTYPE_none) {
		reply_error(rq, t, why.data);
		goto out;
	}
	if (owner_read(rq) != RS_OK) {
		reply_error(rq, ERRTYPE_invalid_request,
		    "user_id must be one text of 1 to 128 bytes without "
		    "control characters, and equal userId if both are given.");
		goto out;
	}
	ok = true;
out:
	buf_done(&why);
	buf_done(&body);
	return ok;
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
	method = method_bit(name);
	buf_init(&path, PATH_LEN_MAX);
	if (!route_path(r, c, &path)) {
		reply_error(&rq, ERRTYPE_not_found, NULL);
		goto out;
	}
	row = route_find(path.data, method, allow, &arg);
	rq.arg = arg;
	if (strcmp(name, "OPTIONS") == 0)
		reply_preflight(&rq, allow);
	else if (row == NULL)
		reply_not_allowed(&rq, allow);
	else if (!row->params || params_read(&rq, method))
		row->act(&rq);
out:
	params_free(rq.params);
	buf_done(&path);
}
