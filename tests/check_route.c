/* check_route.c - requests in, answers out; no web server, no spooler */
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <check.h>
#include "fake_client.h"
#include "fake_wake.h"
#include "responder.h"
#include "spool_impl.h"

#define JSON "application/json"
#define FORM "application/x-www-form-urlencoded"
#define S "/api/v1/stream"
#define HELLO "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}"

static char dir[64];
static struct conf conf;
static struct responder responder;

static void
file_write(const char *name, const char *content)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_ge(fputs(content, f), 0);
	ck_assert_int_eq(fclose(f), 0);
}

static void
setup(void)
{
	static char spool_dir[80], static_dir[80], templates_dir[80];
	static char triage_file[80], personas_dir[80];
	const char *tmp = getenv("TMPDIR");
	struct buf why;

	snprintf(dir, sizeof dir, "%s/respool-XXXXXX",
	    tmp != NULL && strlen(tmp) < 40 ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(spool_dir, sizeof spool_dir, "%s/spool", dir);
	snprintf(static_dir, sizeof static_dir, "%s/magic", dir);
	ck_assert_int_eq(mkdir(static_dir, 0700), 0);
	file_write("magic/index.html", "<p>page</p>");
	file_write("magic/magic.js", "script");
	file_write("magic/.hidden", "hidden");
	file_write("secret", "secret");
	snprintf(templates_dir, sizeof templates_dir, "%s/templates", dir);
	snprintf(triage_file, sizeof triage_file, "%s/triage", dir);
	ck_assert_int_eq(mkdir(templates_dir, 0700), 0);
	file_write("templates/greet.mustache", "{{! description: Greets. }}\n"
	    "{{what}}{{#who}}, {{who}}{{/who}}");
	file_write("templates/other.mustache", "{{! model: echo }}\nhello");
	file_write("templates/lost.mustache", "{{! model: none }}\nhello");
	file_write("templates/blank.mustache", "{{#x}}{{x}}{{/x}}\n");
	file_write("triage", "{\"rules\":[{\"name\":\"hi\",\"category\":"
	    "\"chat\",\"words\":[\"hi\"],\"template\":\"greet\"}]}");
	snprintf(personas_dir, sizeof personas_dir, "%s/personas", dir);
	ck_assert_int_eq(mkdir(personas_dir, 0700), 0);
	file_write("personas/leo.json", "{\"name\":\"Leo\",\"system\":"
	    "\"You are \\\"Leo\\\".\",\"model\":\"echo\","
	    "\"parameters\":{\"temperature\":0.5}}");
	file_write("personas/ant.json", "{\"name\":\"Ant\",\"system\":"
	    "\"Hush.\"}");
	file_write("personas/lost.json", "{\"name\":\"L\",\"system\":"
	    "\"L\",\"model\":\"none\"}");
	memset(&conf, 0, sizeof conf);
	conf.default_persona = "";
	conf.trusted_proxies = conf.jwt_parameter = "";
	conf.spool_dir = spool_dir;
	conf.static_dir = static_dir;
	conf.models_file = conf.base_path = "";
	conf.spool_shared_fs = "one-host";
	conf.cors_origins = "*";
	conf.ttl = 86400;
	conf.max_streams = 100;
	conf.max_stream_bytes = 1 << 20;
	conf.max_body_bytes = 4096;
	buf_init(&why, 4096);
	log_open(LOGL_ERROR, "/dev/null");
	responder.conf = &conf;
	ck_assert_int_eq(spool_open(&conf, &responder.spool, &why), RS_OK);
	ck_assert_int_eq(models_file_open("", &responder.models, &why),
	    RS_OK);
	buf_done(&why);
	ck_assert_int_eq(reload_new(&templates_kind, templates_dir,
	    &responder.templates), RS_OK);
	ck_assert_int_eq(reload_new(&personas_kind, personas_dir,
	    &responder.personas), RS_OK);
	ck_assert_int_eq(reload_new(&triage_kind, triage_file,
	    &responder.triage), RS_OK);
	fake_wake_init(responder.spool);
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void
teardown(void)
{
	fake_wake_done();
	reload_free(responder.triage);
	reload_free(responder.templates);
	reload_free(responder.personas);
	models_file_free(responder.models);
	spool_close(responder.spool);
	buf_done(&fake_answer.out);
	ck_assert_int_eq(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* ---- asking ---- */

/* A request for path, with its query. */
static struct client *
request(const char *method, const char *path)
{
	struct client *c = fake_client_new(method);
	const char *mark = strchr(path, '?');
	char info[1024];

	snprintf(info, sizeof info, "%.*s", (int)strcspn(path, "?"), path);
	fake_client_env(c, "PATH_INFO", info);
	fake_client_env(c, "QUERY_STRING", mark != NULL ? mark + 1 : "");
	return c;
}

static int
serve(struct client *c)
{
	route_serve(&responder, c);
	ck_assert_int_eq(fake_answer.end, FAKE_FINISHED);
	return fake_status();
}

static int
get(const char *path)
{
	return serve(request("GET", path));
}

static int
post(const char *path, const char *type, const char *body)
{
	struct client *c = request("POST", path);

	fake_client_body(c, type, body, strlen(body), RS_OK);
	return serve(c);
}

static void
assert_error(const char *type)
{
	char want[80];

	snprintf(want, sizeof want, ",\"error_type\":\"%s\"", type);
	ck_assert_str_eq(fake_header("Content-Type"), JSON);
	ck_assert_str_eq(fake_header("Access-Control-Allow-Origin"), "*");
	ck_assert_ptr_nonnull(strstr(fake_content(), want));
}

/* ---- a spool with streams ---- */

static void
head_for(struct stream_head *h, const char *owner, int64_t created)
{
	memset(h, 0, sizeof *h);
	snprintf(h->owner, sizeof h->owner, "%s", owner);
	snprintf(h->model, sizeof h->model, "demo");
	sha256_hex(HELLO, strlen(HELLO), h->request);
	snprintf(h->socket, sizeof h->socket, "s-0123456789abcdef.sock");
	h->created_ms = created;
}

/* A stream of that many chunks; ended: and a done frame. */
static void
stream_make_at(const char *owner, const char *id, uint64_t chunks, bool ended,
    int64_t created)
{
	struct stream_key k;
	struct spool_writer *writer = NULL;
	struct stream_head h;
	struct buf b;
	struct streamer s = { .stream_id = id };
	struct delta d = { .kind = DELTA_CONTENT, .text = "word ", .len = 5,
	    .tokens = 1 };
	struct ending e = { .finish = FINISH_STOP,
	    .model = "demo", .usage = { 1, 0, 0, chunks, 0 },
	    .first_token_ms = 1 };

	stream_key(&k, owner, id);
	head_for(&h, owner, created);
	ck_assert_int_eq(spool_create(responder.spool, &k, &h, &writer),
	    RS_OK);
	buf_init(&b, 1 << 20);
	while (s.next_id < chunks)
		dialect_chunk(&b, &s, &d, 600000);
	if (ended)
		dialect_end(&b, &s, &e);
	if (b.len > 0)
		ck_assert_int_eq(spool_append(writer, b.data, b.len), RS_OK);
	spool_writer_free(writer);
	buf_done(&b);
}

static void
stream_make(const char *owner, const char *id, uint64_t chunks, bool ended)
{
	stream_make_at(owner, id, chunks, ended, 1000);
}

static unsigned
streams_count(const char *owner)
{
	char path[160];
	unsigned n = 0;
	const char *p;

	snprintf(path, sizeof path, "/api/v1/streams?user_id=%s", owner);
	ck_assert_int_eq(get(path), 200);
	for (p = fake_content(); (p = strstr(p, "\"stream_id\"")) != NULL; p++)
		n++;
	return n;
}

/* ---- routing ---- */

static const struct {
	const char *info, *script, *uri, *base;
	int status;
} paths[] = {
	{ "/health", NULL, NULL, "", 200 },
	{ "/health", "/cgi-bin/respool.fcgi", NULL, "", 200 },
	{ "/health", "", "/x/health", "", 200 },
	{ "/health", "/~user/chat/respool.fcgi", "/x", "", 200 },
	{ "/v1/models", "/api", NULL, "", 200 },
	{ NULL, "/health", NULL, "", 200 },
	{ "", "/health", NULL, "", 200 },
	{ NULL, NULL, "/health", "", 200 },
	{ NULL, NULL, "/health?x=1", "", 200 },
	{ NULL, NULL, "/%68ealth", "", 200 },
	{ "/x", "/y", "/health", "", 200 },
	{ "/chat/health", "", NULL, "/chat", 200 },
	{ "/health", "", NULL, "/chat", 200 },
	{ NULL, "/chat/health", NULL, "/chat", 200 },
	{ NULL, NULL, "/chat/health", "/chat", 200 },
	{ "/chathealth", "", NULL, "/chat", 404 },
	{ "/chat/health", "", NULL, "", 404 },
	{ "/chat", "", NULL, "/chat", 404 },
	{ "/health/", NULL, NULL, "", 404 },
	{ "/Health", NULL, NULL, "", 404 },
	{ "//health", NULL, NULL, "", 404 },
	{ "/healthy", NULL, NULL, "", 404 },
	{ "/", NULL, NULL, "", 404 },
	{ "", "", "", "", 404 },
	{ NULL, NULL, NULL, "", 404 },
	{ NULL, NULL, "/health%00", "", 404 },
	{ NULL, NULL, "/health%", "", 404 },
	{ NULL, NULL, "/%ffhealth", "", 404 },
	{ "/api/v1/streams/", NULL, NULL, "", 404 },
	{ "/api/v1/streams//stop", NULL, NULL, "", 404 },
	{ "/api/v1/streams/../../etc/passwd", NULL, NULL, "", 404 },
};

START_TEST(a_path_is_found_wherever_the_server_puts_it)
{
	struct client *c = fake_client_new("GET");

	if (paths[_i].info != NULL)
		fake_client_env(c, "PATH_INFO", paths[_i].info);
	if (paths[_i].script != NULL)
		fake_client_env(c, "SCRIPT_NAME", paths[_i].script);
	if (paths[_i].uri != NULL)
		fake_client_env(c, "REQUEST_URI", paths[_i].uri);
	conf.base_path = (char *)paths[_i].base;
	ck_assert_int_eq(serve(c), paths[_i].status);
	if (paths[_i].status == 404)
		assert_error("not_found");
}
END_TEST

static const struct {
	const char *peer, *chain, *trusted;
	int status;
} collectors[] = {
	{ "127.0.0.1", NULL, "", 200 },
	{ "127.0.0.1", "", "", 200 },
	{ "192.0.2.1", NULL, "", 404 },
	{ "192.0.2.1", "127.0.0.1", "", 404 },
	{ NULL, NULL, "", 404 },
	/* a proxy on this host, not named; named */
	{ "127.0.0.1", "192.0.2.1", "", 404 },
	{ "127.0.0.1", "127.0.0.1", "", 404 },
	{ "127.0.0.1", "192.0.2.1", "127.0.0.1", 404 },
	{ "10.0.0.1", "127.0.0.1", "10.0.0.1", 200 },
	{ "10.0.0.1", "127.0.0.1, 192.0.2.1", "10.0.0.1", 404 },
};

START_TEST(counters_are_for_those_that_may_read_them)
{
	struct client *c = request("GET", "/metrics");

	conf.metrics_from = (char *)"127.0.0.1";
	conf.trusted_proxies = (char *)collectors[_i].trusted;
	if (collectors[_i].peer != NULL)
		fake_client_env(c, "REMOTE_ADDR", collectors[_i].peer);
	if (collectors[_i].chain != NULL)
		fake_client_env(c, "HTTP_X_FORWARDED_FOR",
		    collectors[_i].chain);
	ck_assert_int_eq(serve(c), collectors[_i].status);
}
END_TEST

#define REASON(text) "{\"status\":\"not ready\",\"reasons\":[\"" text "\"]}"

static const struct {
	enum rs_err spooler, spool;
	uint64_t floor;	/* of space */
	const char *body;
} readiness[] = {
	{ RS_OK, RS_OK, 0, "{\"status\":\"ready\"}" },
	{ RS_ENOENT, RS_OK, 0, "{\"status\":\"ready\"}" },
	{ RS_OK, RS_OK, UINT64_MAX, "{\"status\":\"ready\"}" },
	{ RS_OK, RS_ENOSPC, 0,
	    REASON("The spool's disk is full, or nearly.") },
	{ RS_OK, RS_EPERM, 0, REASON("The spool cannot be written to.") },
	{ RS_OK, RS_ENOENT, 0, REASON("The spool's directory is gone.") },
	{ RS_OK, RS_EIO, 0, REASON("The spool cannot be used.") },
	/* Without a spooler's word we look ourselves. */
	{ RS_ENOENT, RS_OK, UINT64_MAX,
	    REASON("The spool's disk is full, or nearly.") },
	{ RS_ETIMEOUT, RS_OK, 0, REASON("The spooler does not answer.") },
	{ RS_ECLOSED, RS_OK, 0,
	    REASON("No spooler runs, and none can be started now.") },
	{ RS_ECLOSED, RS_OK, UINT64_MAX,
	    REASON("No spooler runs, and none can be started now.\","
	    "\"The spool's disk is full, or nearly.") },
};

START_TEST(ready_says_why_a_start_would_be_refused)
{
	size_t len = strlen(readiness[_i].body);
	int status = strstr(readiness[_i].body, "not ") == NULL ? 200 : 503;

	fake_wake.err = readiness[_i].spooler;
	fake_wake.reply.err = readiness[_i].spool;
	conf.max_stream_bytes = readiness[_i].floor;
	ck_assert_int_eq(get("/ready"), status);
	ck_assert_str_eq(fake_header("Content-Type"), JSON);
	ck_assert_mem_eq(fake_content(), readiness[_i].body, len);
	ck_assert_str_eq(fake_header("Retry-After"), status == 503 ? "5" : "");
	ck_assert_int_eq(serve(request("HEAD", "/ready")), status);
	ck_assert_str_eq(fake_content(), "");
	ck_assert_int_eq(get("/health"), 200);
}
END_TEST

START_TEST(a_path_of_any_length_is_answered)
{
	struct client *c = fake_client_new("GET");
	char *path = malloc(100001);

	memset(path, 'a', 100000);
	path[0] = '/';
	path[100000] = '\0';
	fake_client_env(c, "PATH_INFO", path);
	ck_assert_int_eq(serve(c), 404);
	free(path);
}
END_TEST

static const struct {
	const char *method, *path, *allow;
} methods[] = {
	{ "PUT", S, "GET, HEAD, POST, OPTIONS" },
	{ "DELETE", S, "GET, HEAD, POST, OPTIONS" },
	{ "get", S, "GET, HEAD, POST, OPTIONS" },
	{ "", S, "GET, HEAD, POST, OPTIONS" },
	{ "POST", "/api/v1/streams", "GET, HEAD, OPTIONS" },
	{ "POST", "/api/v1/streams/x", "GET, HEAD, DELETE, OPTIONS" },
	{ "GET", "/api/v1/streams/x/stop", "POST, OPTIONS" },
	{ "HEAD", "/api/v1/streams/x/stop", "POST, OPTIONS" },
	{ "DELETE", "/api/v1/streams/x/stop", "POST, OPTIONS" },
	{ "POST", "/api/v1/models", "GET, HEAD, OPTIONS" },
	{ "POST", "/api/templates", "GET, HEAD, OPTIONS" },
	{ "GET", "/api/render", "POST, OPTIONS" },
	{ "HEAD", "/api/triage", "POST, OPTIONS" },
	{ "POST", "/magic", "GET, HEAD, OPTIONS" },
	{ "POST", "/magic/magic.js", "GET, HEAD, OPTIONS" },
	{ "POST", "/health", "GET, HEAD, OPTIONS" },
	{ "TRACE", "/version", "GET, HEAD, OPTIONS" },
};

START_TEST(another_method_gets_405_with_allow)
{
	ck_assert_int_eq(serve(request(methods[_i].method, methods[_i].path)),
	    405);
	ck_assert_str_eq(fake_header("Allow"), methods[_i].allow);
	if (strcmp(methods[_i].method, "HEAD") != 0)
		assert_error("method_not_allowed");
}
END_TEST

/* ---- CORS ---- */

static const struct {
	const char *origins, *origin, *allow;
} cors[] = {
	{ "*", NULL, "*" },
	{ "*", "https://a.example", "*" },
	{ "https://a.example https://b.example", "https://b.example",
	    "https://b.example" },
	{ "https://a.example", "https://b.example", "" },
	{ "https://a.example", "https://a.exampl", "" },
	{ "https://a.example", "null", "" },
	{ "https://a.example", "", "" },
	{ "https://a.example", NULL, "" },
	{ "", "https://a.example", "" },
};

static void
assert_cors(size_t i)
{
	bool echoed = cors[i].allow[0] == 'h';

	ck_assert_str_eq(fake_header("Access-Control-Allow-Origin"),
	    cors[i].allow);
	ck_assert_str_eq(fake_header("Access-Control-Allow-Credentials"),
	    echoed ? "true" : "");
	ck_assert_str_eq(fake_header("Vary"),
	    strcmp(cors[i].origins, "*") == 0 ? "" : "Origin");
}

START_TEST(cors_headers_stand_on_every_status)
{
	static const char *const targets[] = { "/health", "/nowhere", "/magic",
	    "/magic/", "/api/templates", "/api/render", S, S "?stream_id=known", S "?stream_id=unknown",
	    "/api/v1/streams/unknown", S "?stream_id=known&last_event_id=2" };
	size_t i;

	stream_make("anonymous", "known", 2, true);
	conf.cors_origins = (char *)cors[_i].origins;
	for (i = 0; i < sizeof targets / sizeof targets[0]; i++) {
		struct client *c = request("GET", targets[i]);

		if (cors[_i].origin != NULL)
			fake_client_env(c, "HTTP_ORIGIN", cors[_i].origin);
		(void)serve(c);
		assert_cors((size_t)_i);
		if (cors[_i].allow[0] != '\0')
			ck_assert_str_eq(
			    fake_header("Access-Control-Expose-Headers"),
			    "X-Stream-ID, Retry-After");
	}
}
END_TEST

START_TEST(a_preflight_grants_to_whom_it_may)
{
	static const char *const targets[] = { S, "/api/v1/streams/x",
	    "/api/v1/streams/x/stop", "/health", "/magic" };
	bool granted = cors[_i].allow[0] != '\0';
	size_t i;

	conf.cors_origins = (char *)cors[_i].origins;
	for (i = 0; i < sizeof targets / sizeof targets[0]; i++) {
		struct client *c = request("OPTIONS", targets[i]);

		if (cors[_i].origin != NULL)
			fake_client_env(c, "HTTP_ORIGIN", cors[_i].origin);
		ck_assert_int_eq(serve(c), 204);
		assert_cors((size_t)_i);
		ck_assert_str_eq(fake_header("Access-Control-Allow-Methods"),
		    granted ? "GET, POST, DELETE" : "");
		ck_assert_str_eq(fake_header("Access-Control-Allow-Headers"),
		    granted ? "Content-Type, Authorization, Cache-Control, "
		    "Last-Event-ID" : "");
		ck_assert_str_eq(fake_header("Access-Control-Max-Age"),
		    granted ? "86400" : "");
		ck_assert_str_eq(fake_content(), "");
	}
}
END_TEST

static const struct {
	const char *origins, *origin, *site, *host;
	bool ok;
} origins[] = {
	{ "*", "https://evil.example", "cross-site", "me.example", true },
	{ "https://a.example", NULL, NULL, "me.example", true },
	{ "https://a.example", NULL, "none", "me.example", true },
	{ "https://a.example", NULL, "same-origin", "me.example", true },
	{ "https://a.example", NULL, "cross-site", "me.example", false },
	{ "https://a.example", "https://a.example", "cross-site", "me.example",
	    true },
	{ "https://a.example", "https://evil.example", NULL, "me.example",
	    false },
	{ "https://a.example", "https://evil.example", "cross-site",
	    "me.example", false },
	{ "https://a.example", "null", NULL, "me.example", false },
	{ "https://a.example", "https://me.example", NULL, "me.example",
	    true },
	{ "https://a.example", "https://ME.example", NULL, "me.example",
	    true },
	{ "https://a.example", "http://me.example:81", NULL, "me.example:81",
	    true },
	{ "https://a.example", "http://me.example:82", NULL, "me.example:81",
	    false },
	{ "https://a.example", "http://me.example:81", NULL, "me.example",
	    true },
	{ "https://a.example", "http://me.example.evil", NULL, "me.example",
	    false },
	{ "https://a.example", "http://[::1]:81", NULL, "[::1]:81", true },
	{ "https://a.example", "http://[::1]:81", NULL, "[::1]", true },
	{ "https://a.example", "http://[::1]:82", NULL, "[::1]:81", false },
	{ "https://a.example", "http://me.example", NULL, NULL, false },
	{ "https://a.example", "http://", NULL, "", false },
	{ "https://a.example", "http://inner", "same-origin", "outer", true },
	{ "", "http://me.example", NULL, "me.example", true },
	{ "", "http://evil.example", NULL, "me.example", false },
};

START_TEST(with_listed_origins_only_those_may_start)
{
	struct client *c = request("GET", S "?message=hello&stream_id=new");

	conf.cors_origins = (char *)origins[_i].origins;
	if (origins[_i].origin != NULL)
		fake_client_env(c, "HTTP_ORIGIN", origins[_i].origin);
	if (origins[_i].site != NULL)
		fake_client_env(c, "HTTP_SEC_FETCH_SITE", origins[_i].site);
	if (origins[_i].host != NULL)
		fake_client_env(c, "HTTP_HOST", origins[_i].host);
	ck_assert_int_eq(serve(c), origins[_i].ok ? 200 : 403);
	ck_assert_uint_eq(fake_wake.starts, origins[_i].ok);
	if (!origins[_i].ok)
		ck_assert_ptr_nonnull(strstr(fake_content(),
		    "origin_refused"));
}
END_TEST

START_TEST(any_origin_may_join)
{
	struct client *c = request("GET", S "?stream_id=known&message=hello");

	stream_make("anonymous", "known", 2, true);
	conf.cors_origins = "https://a.example";
	fake_client_env(c, "HTTP_ORIGIN", "https://evil.example");
	ck_assert_int_eq(serve(c), 200);
	ck_assert_uint_eq(fake_wake.follows, 1);
}
END_TEST

/* ---- what /api/v1/stream refuses ---- */

#define ID64 "0123456789012345678901234567890123456789012345678901234567890123"

static const struct {
	const char *query, *type, *body;
	int status;
	const char *error;
} refused[] = {
	{ "", NULL, "", 400, "invalid_request" },
	{ "?model=demo", NULL, "", 400, "invalid_request" },
	{ "?message=", NULL, "", 400, "invalid_request" },
	{ "?message=%20+%09%0d%0a%0b%0c", NULL, "", 400, "invalid_request" },
	{ "?message=%00%C2%A0%E2%80%83%EF%BB%BF%E3%80%80", NULL, "", 400,
	    "invalid_request" },
	{ "?message=%C2%A0%E3%80%80", NULL, "", 400, "invalid_request" },
	{ "?message=x&message=x", NULL, "", 400, "invalid_request" },
	{ "?message=%ff", NULL, "", 400, "invalid_request" },
	{ "?message=%zz", NULL, "", 400, "invalid_request" },
	{ "?message=x&model=none", NULL, "", 400, "model_not_found" },
	{ "?message=x&model=", NULL, "", 400, "model_not_found" },
	{ "?message=x&model=demo%00", NULL, "", 400, "model_not_found" },
	{ "?message=x&messages=[]", NULL, "", 400, "invalid_request" },
	{ "?message=x&stream_id=", NULL, "", 400, "invalid_request" },
	{ "?message=x&stream_id=a%00", NULL, "", 400, "invalid_request" },
	{ "?message=x&stream_id=" ID64 "4", NULL, "", 400,
	    "invalid_request" },
	{ "?message=x&stream_id=../../etc/passwd", NULL, "", 400,
	    "invalid_request" },
	{ "?message=x&stream_id=a.b", NULL, "", 400, "invalid_request" },
	{ "?message=x&stream_id=a%0ab", NULL, "", 400, "invalid_request" },
	{ "?message=x&stream_id=%C3%A4", NULL, "", 400, "invalid_request" },
	{ "?message=x&user_id=", NULL, "", 400, "invalid_request" },
	{ "?message=x&user_id=a%00", NULL, "", 400, "invalid_request" },
	{ "?message=x&user_id=a%0a", NULL, "", 400, "invalid_request" },
	{ "?message=x&userId=" ID64 ID64 "4", NULL, "", 400,
	    "invalid_request" },
	{ "?message=x&user_id=a&userId=b", NULL, "", 400,
	    "invalid_request" },
	{ "?message=x&last_event_id=-2", NULL, "", 400, "invalid_request" },
	{ "?message=x&last_event_id=x", NULL, "", 400, "invalid_request" },
	{ "?message=x&last_event_id=1.0", NULL, "", 400, "invalid_request" },
	{ "?message=x&last_event_id=99999999999999999999", NULL, "", 400,
	    "invalid_request" },
	{ "?message=x&last_event_id=0", NULL, "", 400, "stream_id_required" },
	{ "?message=x&last_event_id=5", NULL, "", 400, "stream_id_required" },
	{ "?message=x&last_event_id=0&stream_id=none", NULL, "", 404,
	    "stream_not_found" },
	{ "?stream_id=none", NULL, "", 404, "stream_not_found" },
	{ "?stream_id=none&last_event_id=-1", NULL, "", 404,
	    "stream_not_found" },
	{ "?message=x", "text/plain", "x", 415, "unsupported_media_type" },
	{ "", NULL, "{\"message\":\"x\"}", 415, "unsupported_media_type" },
	{ "", JSON, "[]", 400, "invalid_request" },
	{ "", JSON, "{", 400, "invalid_request" },
	{ "", JSON, "{\"message\":\"\xff\"}", 400, "invalid_request" },
	{ "", JSON, "{\"message\":5}", 400, "invalid_request" },
	{ "", JSON, "{\"message\":[\"x\"]}", 400, "invalid_request" },
	{ "", JSON, "{\"message\":\" \"}", 400, "invalid_request" },
	{ "?message=x", JSON, "{\"message\":\" \"}", 400, "invalid_request" },
	{ "", JSON, "{\"message\":\"x\",\"model\":5}", 400,
	    "invalid_request" },
	{ "", JSON, "{\"message\":\"x\",\"user_id\":5}", 400,
	    "invalid_request" },
	{ "", JSON, "{\"message\":\"x\",\"stream_id\":5}", 400,
	    "invalid_request" },
	{ "", JSON, "{\"message\":\"x\",\"stream_id\":\"a\\u0000\"}", 400,
	    "invalid_request" },
	{ "", JSON, "{\"message\":\"x\",\"last_event_id\":\"5\"}", 400,
	    "invalid_request" },
	{ "", JSON, "{\"message\":\"x\",\"last_event_id\":5.0}", 400,
	    "invalid_request" },
	{ "", JSON, "{\"message\":\"x\",\"last_event_id\":[]}", 400,
	    "invalid_request" },
	{ "", JSON, "{\"message\":\"x\",\"last_event_id\":3}", 400,
	    "stream_id_required" },
	{ "", JSON, "{\"messages\":[]}", 400, "invalid_request" },
	{ "", JSON, "{\"messages\":{}}", 400, "invalid_request" },
	{ "", JSON, "{\"messages\":\"x\"}", 400, "invalid_request" },
	{ "", JSON, "{\"messages\":[null]}", 400, "invalid_request" },
	{ "", JSON, "{\"messages\":[\"x\"]}", 400, "invalid_request" },
	{ "", JSON, "{\"messages\":[{\"role\":\"user\"}]}", 400,
	    "invalid_request" },
	{ "", JSON, "{\"messages\":[{\"content\":\"x\"}]}", 400,
	    "invalid_request" },
	{ "", JSON, "{\"messages\":[{\"role\":\"user\",\"content\":1}]}", 400,
	    "invalid_request" },
	{ "", JSON, "{\"messages\":[{\"role\":\"user\",\"content\":\"\\t\"}]}",
	    400, "invalid_request" },
	{ "", JSON, "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}",
	    400, "invalid_request" },
	{ "", JSON, "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}"
	    "]}", 400, "invalid_request" },
	{ "?template=", NULL, "", 400, "invalid_request" },
	{ "?template=none", NULL, "", 400, "invalid_request" },
	{ "?template=..%2Fsecret", NULL, "", 400, "invalid_request" },
	{ "?template=greet%00", NULL, "", 400, "invalid_request" },
	{ "?template=greet", NULL, "", 400, "invalid_request" },
	{ "?template=greet&variables={}", NULL, "", 400, "invalid_request" },
	{ "?template=greet&variables=[]", NULL, "", 400, "invalid_request" },
	{ "?template=greet&variables={", NULL, "", 400, "invalid_request" },
	{ "?template=blank", NULL, "", 400, "invalid_request" },
	{ "?template=other&message=x", NULL, "", 400, "invalid_request" },
	{ "?template=other&messages=[]", NULL, "", 400, "invalid_request" },
	{ "?template=lost", NULL, "", 400, "model_not_found" },
	{ "?template=other&model=none", NULL, "", 400, "model_not_found" },
	{ "", JSON, "{\"template\":1}", 400, "invalid_request" },
	{ "", JSON, "{\"template\":\"other\",\"variables\":\"{}\"}", 400,
	    "invalid_request" },
	{ "", FORM, "message=x&message=x", 400, "invalid_request" },
	{ "", FORM, "message=%", 400, "invalid_request" },
};

START_TEST(a_bad_request_starts_nothing)
{
	char path[1024];

	snprintf(path, sizeof path, S "%s", refused[_i].query);
	ck_assert_int_eq(post(path, refused[_i].type, refused[_i].body),
	    refused[_i].status);
	assert_error(refused[_i].error);
	ck_assert_uint_eq(fake_wake.starts, 0);
	ck_assert_uint_eq(fake_wake.follows, 0);
}
END_TEST

START_TEST(json_a_thousand_deep_gets_400)
{
	char body[2200] = "{\"message\":";
	size_t n = strlen(body);

	memset(body + n, '[', 1000);
	memset(body + n + 1000, ']', 1000);
	strcpy(body + n + 2000, "}");
	ck_assert_int_eq(post(S, JSON, body), 400);
	assert_error("invalid_request");
}
END_TEST

static const struct {
	enum rs_err err;
	int status;
	const char *error;
} bodies[] = {
	{ RS_ETOOBIG, 413, "body_too_large" },
	{ RS_ETIMEOUT, 400, "invalid_request" },
	{ RS_ECLOSED, 400, "invalid_request" },
	{ RS_ENOMEM, 500, "internal" },
};

START_TEST(a_body_that_does_not_come_is_told)
{
	struct client *c = request("POST", S);

	fake_client_body(c, JSON, "{}", 2, bodies[_i].err);
	ck_assert_int_eq(serve(c), bodies[_i].status);
	assert_error(bodies[_i].error);
}
END_TEST

START_TEST(a_body_over_the_maximum_gets_413)
{
	char body[5000] = "message=";

	memset(body + 8, 'x', 4096 - 8);
	ck_assert_int_eq(post(S, FORM, body), 200);
	body[4096] = 'x';
	ck_assert_int_eq(post(S, FORM, body), 413);
	assert_error("body_too_large");
}
END_TEST

/* ---- starting ---- */

static const struct {
	const char *method, *query, *type, *body;
	const char *owner, *id, *model, *prompt; /* id NULL: made up */
} starts[] = {
	{ "GET", "?message=hello", NULL, "", "anonymous", NULL, "demo",
	    HELLO },
	{ "POST", "?message=hello", NULL, "", "anonymous", NULL, "demo",
	    HELLO },
	{ "POST", "", JSON, "{\"message\":\"hello\"}", "anonymous", NULL,
	    "demo", HELLO },
	{ "POST", "", FORM, "message=hello&user_id=me&stream_id=s_-9", "me",
	    "s_-9", "demo", HELLO },
	{ "GET", "", JSON, "{\"message\":\"hello\"}", "anonymous", NULL,
	    "demo", HELLO },
	{ "POST", "?message=query&userId=me", JSON, "{\"message\":\"hello\"}",
	    "me", NULL, "demo", HELLO },
	{ "POST", "?user_id=me&userId=me&message=hello", NULL, "", "me", NULL,
	    "demo", HELLO },
	{ "POST", "?stream_id=q&unknown=1", JSON, "{\"message\":\"hello\","
	    "\"stream_id\":\"" ID64 "\",\"last_event_id\":-1,"
	    "\"unknown\":[1],\"model\":\"demo\"}", "anonymous", ID64, "demo",
	    HELLO },
	{ "POST", "", JSON, "{\"message\":\"hello\",\"last_event_id\":null}",
	    "anonymous", NULL, "demo", HELLO },
	{ "GET", "?message=hello&last_event_id=", NULL, "", "anonymous", NULL,
	    "demo", HELLO },
	{ "GET", "?message=hello&last_event_id=null", NULL, "", "anonymous",
	    NULL, "demo", HELLO },
	{ "GET", "?message=hello&last_event_id=-1", NULL, "", "anonymous",
	    NULL, "demo", HELLO },
	{ "POST", "", JSON, "{\"messages\":[{\"content\":\"hello\",\"role\":"
	    "\"user\",\"name\":\"x\"}]}", "anonymous", NULL, "demo", HELLO },
	{ "GET", "?messages=[{\"role\":\"user\",\"content\":\"hello\"}]",
	    NULL, "", "anonymous", NULL, "demo", HELLO },
	{ "POST", "", JSON, "{\"messages\":[{\"role\":\"system\",\"content\":"
	    "\"a\"},{\"role\":\"assistant\",\"content\":\"b\\n\"},"
	    "{\"role\":\"user\",\"content\":\"\\\"c\\u0000\"}]}",
	    "anonymous", NULL, "demo",
	    "{\"messages\":[{\"role\":\"system\",\"content\":\"a\"},"
	    "{\"role\":\"assistant\",\"content\":\"b\\n\"},"
	    "{\"role\":\"user\",\"content\":\"\\\"c\\u0000\"}]}" },
};

START_TEST(a_message_starts_a_stream)
{
	char path[512], hash[SHA256_HEX_SIZE];
	struct client *c;
	struct stream_key k;
	const char *id;

	snprintf(path, sizeof path, S "%s", starts[_i].query);
	c = request(starts[_i].method, path);
	if (starts[_i].body[0] != '\0')
		fake_client_body(c, starts[_i].type, starts[_i].body,
		    strlen(starts[_i].body), RS_OK);
	ck_assert_int_eq(serve(c), 200);
	ck_assert_uint_eq(fake_wake.starts, 1);
	id = fake_header("X-Stream-ID");
	ck_assert_str_eq(fake_wake.start.key.id, id);
	if (starts[_i].id != NULL)
		ck_assert_str_eq(id, starts[_i].id);
	else {
		ck_assert_uint_eq(strlen(id), 7 + 32);
		ck_assert_int_eq(strncmp(id, "stream_", 7), 0);
		ck_assert_uint_eq(strspn(id + 7, "0123456789abcdef"), 32);
	}
	stream_key(&k, starts[_i].owner, id);
	ck_assert_str_eq(fake_wake.start.key.owner_hash, k.owner_hash);
	ck_assert_str_eq(fake_wake.start.owner, starts[_i].owner);
	ck_assert_str_eq(fake_wake.start.model, starts[_i].model);
	ck_assert_str_eq(fake_wake.prompt.data, starts[_i].prompt);
	sha256_hex(fake_wake.prompt.data, fake_wake.prompt.len, hash);
	ck_assert_str_eq(fake_wake.start.request, hash);
	ck_assert_uint_eq(fake_wake.follows, 1);
	ck_assert_uint_eq(fake_wake.next_id, 0);
}
END_TEST

static const struct {
	const char *query, *type, *body;
	const char *said, *model, *prompt;
} templated[] = {
	{ "?template=other", NULL, "",
	    "{\"template\":\"other\",\"variables\":{}}", "echo", HELLO },
	{ "?template=other&model=demo", NULL, "",
	    "{\"template\":\"other\",\"variables\":{}}", "demo", HELLO },
	{ "?template=greet&variables={\"what\":\"hello\"}", NULL, "",
	    "{\"template\":\"greet\",\"variables\":{\"what\":\"hello\"}}",
	    "demo", HELLO },
	{ "", FORM, "template=greet&variables=%7B%22what%22:%22hello%22}",
	    "{\"template\":\"greet\",\"variables\":{\"what\":\"hello\"}}",
	    "demo", HELLO },
	{ "", JSON, "{\"template\":\"greet\",\"message\":null,"
	    "\"variables\":{\"what\":\"\\u0068ello\", \"who\":\"\"}}",
	    "{\"template\":\"greet\",\"variables\":"
	    "{\"what\":\"hello\",\"who\":\"\"}}", "demo", HELLO },
	{ "", JSON, "{\"template\":\"greet\","
	    "\"variables\":{\"what\":\"{{who}}\",\"who\":\"\\\"a\\n\"}}",
	    "{\"template\":\"greet\",\"variables\":"
	    "{\"what\":\"{{who}}\",\"who\":\"\\\"a\\n\"}}", "demo",
	    "{\"messages\":[{\"role\":\"user\","
	    "\"content\":\"{{who}}, \\\"a\\n\"}]}" },
};

START_TEST(a_template_takes_the_place_of_a_message)
{
	char path[512], hash[SHA256_HEX_SIZE];

	snprintf(path, sizeof path, S "%s", templated[_i].query);
	ck_assert_int_eq(post(path, templated[_i].type, templated[_i].body),
	    200);
	ck_assert_uint_eq(fake_wake.starts, 1);
	ck_assert_str_eq(fake_wake.start.model, templated[_i].model);
	ck_assert_str_eq(fake_wake.prompt.data, templated[_i].prompt);
	/* Of what was said, not of what became of it. */
	sha256_hex(templated[_i].said, strlen(templated[_i].said), hash);
	ck_assert_str_eq(fake_wake.start.request, hash);
	ck_assert_uint_eq(fake_wake.follows, 1);
}
END_TEST

START_TEST(a_templates_stream_is_joined_whatever_became_of_the_template)
{
	char path[128];

	ck_assert_int_eq(get(S "?template=other&stream_id=x"), 200);
	snprintf(path, sizeof path, "%s/templates/other.mustache", dir);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(get(S "?template=other&stream_id=x"), 200);
	ck_assert_uint_eq(fake_wake.starts, 1);
	ck_assert_int_eq(get(S "?template=other&stream_id=x"
	    "&variables={\"a\":1}"), 409);
	ck_assert_int_eq(get(S "?message=hello&stream_id=x"), 409);
	ck_assert_int_eq(get(S "?template=other&stream_id=y"), 400);
	ck_assert_uint_eq(fake_wake.starts, 1);
}
END_TEST

START_TEST(a_text_of_a_template_over_the_maximum_gets_413)
{
	char body[3000];

	file_write("templates/twice.mustache", "{{x}}{{x}}");
	snprintf(body, sizeof body, "template=twice&variables={\"x\":\"%02500d"
	    "\"}", 0);
	ck_assert_int_eq(post(S, FORM, body), 413);
	assert_error("body_too_large");
	ck_assert_int_eq(post("/api/render", FORM, body), 413);
	assert_error("body_too_large");
	ck_assert_uint_eq(fake_wake.starts, 0);
}
END_TEST

START_TEST(a_stream_begins_with_exactly_this_head)
{
	ck_assert_int_eq(get(S "?message=hello&stream_id=mine"), 200);
	ck_assert_str_eq(fake_answer.out.data, "Status: 200 OK\r\n"
	    "Content-Type: text/event-stream\r\n"
	    "Cache-Control: no-cache, no-store, no-transform\r\n"
	    "Connection: keep-alive\r\n"
	    "X-Accel-Buffering: no\r\n"
	    "X-Stream-ID: mine\r\n"
	    "Access-Control-Allow-Origin: *\r\n"
	    "Access-Control-Expose-Headers: X-Stream-ID, Retry-After\r\n"
	    "\r\n"
	    ": ok\n"
	    "\n");
}
END_TEST

static const struct {
	enum rs_err err;
	struct wake_reply reply;
	int status;
	const char *retry, *error;
} replies[] = {
	{ RS_OK, { RS_EBUSY, ERRTYPE_too_many_streams, "", 0, 0, "" }, 503,
	    "5", "too_many_streams" },
	{ RS_OK, { RS_EBUSY, ERRTYPE_draining, "It ends.", 0, 0, "" }, 503,
	    "5", "draining" },
	{ RS_OK, { RS_ENOSPC, ERRTYPE_spool_unavailable, "", 0, 0, "" },
	    503, "5", "spool_unavailable" },
	{ RS_OK, { RS_ENOENT, ERRTYPE_model_not_found, "", 0, 0, "" }, 400, "",
	    "model_not_found" },
	{ RS_OK, { RS_EINVAL, ERRTYPE_invalid_request, "", 0, 0, "" }, 400, "",
	    "invalid_request" },
	{ RS_ECLOSED, { RS_ECLOSED, ERRTYPE_spool_unavailable, "\"x\"", 0, 0,
	    "" }, 503, "5", "spool_unavailable" },
	{ RS_ETIMEOUT, { RS_ETIMEOUT, ERRTYPE_spool_unavailable, "", 0, 0, "" },
	    503, "5", "spool_unavailable" },
	{ RS_OK, { RS_EBUSY, ERRTYPE_rate_limited, "", 0, 0, "" }, 429, "5",
	    "rate_limited" },
	{ RS_OK, { RS_EBUSY, ERRTYPE_rate_limited, "No.", 0, 4711,
	    "owner_max_starts" }, 429, "4711", "rate_limited" },
	/* Only frames have this one: no status of its own. */
	{ RS_OK, { RS_EIO, ERRTYPE_too_long, "", 0, 0, "" }, 500, "",
	    "internal" },
	{ RS_OK, { RS_EIO, ERRTYPE_none, "", 0, 0, "" }, 500, "", "internal" },
};

START_TEST(a_refused_start_tells_the_spoolers_reason)
{
	fake_wake.err = replies[_i].err;
	fake_wake.reply = replies[_i].reply;
	ck_assert_int_eq(get(S "?message=hello"), replies[_i].status);
	ck_assert_str_eq(fake_header("Retry-After"), replies[_i].retry);
	assert_error(replies[_i].error);
	ck_assert((strstr(fake_content(), "\"limit\":\"owner_max_starts\"") !=
	    NULL) == (replies[_i].reply.limit[0] != '\0'));
	ck_assert_uint_eq(fake_wake.follows, 0);
}
END_TEST

START_TEST(the_spooler_is_told_whose_address_it_is)
{
	struct client *c = request("GET", S "?message=hello");
	char key[ADDRESS_KEY_SIZE];
	struct address a;

	ck_assert_int_eq(serve(c), 200);
	ck_assert_str_eq(fake_wake.start.address, "");
	conf.trusted_proxies = "10.0.0.0/8";
	c = request("GET", S "?message=hello");
	fake_client_env(c, "REMOTE_ADDR", "10.1.2.3");
	fake_client_env(c, "HTTP_X_FORWARDED_FOR", "1.1.1.1, 192.0.2.7");
	ck_assert_int_eq(serve(c), 200);
	ck_assert(address_parse("192.0.2.7", 9, &a));
	address_key(&a, key);
	ck_assert_str_eq(fake_wake.start.address, key);
}
END_TEST

START_TEST(whoever_is_second_joins_the_first)
{
	char hash[SHA256_HEX_SIZE];

	sha256_hex(HELLO, strlen(HELLO), hash);
	fake_wake.first_request = hash;
	ck_assert_int_eq(get(S "?message=hello&stream_id=x"), 200);
	ck_assert_uint_eq(fake_wake.starts, 1);
	ck_assert_uint_eq(fake_wake.follows, 1);
}
END_TEST

START_TEST(whoever_is_second_with_another_message_gets_409)
{
	char hash[SHA256_HEX_SIZE];

	sha256_hex("x", 1, hash);
	fake_wake.first_request = hash;
	ck_assert_int_eq(get(S "?message=hello&stream_id=x"), 409);
	assert_error("conflict");
	ck_assert_uint_eq(fake_wake.follows, 0);
}
END_TEST

START_TEST(a_deleted_id_is_not_started_again)
{
	ck_assert_int_eq(get(S "?message=hello&stream_id=x"), 200);
	ck_assert_int_eq(serve(request("DELETE", "/api/v1/streams/x")), 204);
	ck_assert_int_eq(get(S "?message=hello&stream_id=x"), 404);
	assert_error("stream_not_found");
	ck_assert_uint_eq(fake_wake.follows, 1);
}
END_TEST

START_TEST(a_client_that_left_at_the_head_is_aborted)
{
	struct client *c = request("GET", S "?message=hello");

	fake_client_leave(c);
	route_serve(&responder, c);
	ck_assert_int_eq(fake_answer.end, FAKE_ABORTED);
	ck_assert_uint_eq(fake_wake.starts, 1);
	ck_assert_uint_eq(fake_wake.follows, 0);
}
END_TEST

/* ---- joining and resuming: live has 3 frames, over has 3 and a done ---- */

static const struct {
	const char *query, *header;
	int status;
	const char *error;	/* when status is not 200 or 204 */
	uint64_t next;
} cursors[] = {
	{ "?stream_id=live", NULL, 200, NULL, 0 },
	{ "?stream_id=over", NULL, 200, NULL, 0 },
	{ "?stream_id=over&message=hello", NULL, 200, NULL, 0 },
	{ "?stream_id=over&message=hello&model=demo", NULL, 200, NULL, 0 },
	{ "?stream_id=over&model=demo", NULL, 200, NULL, 0 },
	{ "?stream_id=over&message=other", NULL, 409, "conflict", 0 },
	{ "?stream_id=over&model=other", NULL, 409, "conflict", 0 },
	{ "?stream_id=over&message=hello&model=dem", NULL, 409, "conflict",
	    0 },
	{ "?stream_id=over&message=other&last_event_id=1", NULL, 200, NULL,
	    2 },
	{ "?stream_id=over&model=other&last_event_id=1", NULL, 200, NULL, 2 },
	{ "?stream_id=over&last_event_id=-1", NULL, 200, NULL, 0 },
	{ "?stream_id=over&last_event_id=", NULL, 200, NULL, 0 },
	{ "?stream_id=over&last_event_id=null", NULL, 200, NULL, 0 },
	{ "?stream_id=over&last_event_id=0", NULL, 200, NULL, 1 },
	{ "?stream_id=over&last_event_id=1", NULL, 200, NULL, 2 },
	{ "?stream_id=over&last_event_id=2", NULL, 200, NULL, 3 },
	{ "?stream_id=over&last_event_id=3", NULL, 204, NULL, 0 },
	{ "?stream_id=over&last_event_id=4", NULL, 400, "invalid_request",
	    0 },
	{ "?stream_id=over&last_event_id=9223372036854775807", NULL, 400,
	    "invalid_request", 0 },
	{ "?stream_id=over", "3", 204, NULL, 0 },
	{ "?stream_id=over&last_event_id=3", "1", 200, NULL, 2 },
	{ "?stream_id=over&last_event_id=1", "-1", 200, NULL, 0 },
	{ "?stream_id=over&last_event_id=1", "null", 200, NULL, 0 },
	{ "?stream_id=over&last_event_id=1", "", 200, NULL, 2 },
	{ "?stream_id=over&last_event_id=1", "x", 400, "invalid_request", 0 },
	{ "?stream_id=over", "-2", 400, "invalid_request", 0 },
	{ "?stream_id=over", "1, 2", 400, "invalid_request", 0 },
	{ "?stream_id=over", "9223372036854775808", 400, "invalid_request",
	    0 },
	{ "?stream_id=live&last_event_id=0", NULL, 200, NULL, 1 },
	{ "?stream_id=live&last_event_id=2", NULL, 200, NULL, 3 },
	{ "?stream_id=live&last_event_id=3", NULL, 400, "invalid_request",
	    0 },
	{ "?message=hello", "0", 400, "stream_id_required", 0 },
	{ "?message=hello&stream_id=none", "0", 404, "stream_not_found", 0 },
	{ "?stream_id=over&user_id=other", NULL, 404, "stream_not_found", 0 },
	{ "?stream_id=over&user_id=other", "1", 404, "stream_not_found", 0 },
};

/* The bytes of a stream's file from off on begin with the frame of that id,
 * or are none. */
static void
assert_offset(const char *id, uint64_t off, uint64_t next)
{
	struct stream_key k;
	struct spool_reader r;
	struct stream_tail tail;
	char data[32], want[32] = "";
	ssize_t n;

	stream_key(&k, "anonymous", id);
	ck_assert_int_eq(spool_find(responder.spool, &k, &r), RS_OK);
	ck_assert_int_eq(spool_tail(&r, &tail), RS_OK);
	n = pread(r.fd, data, sizeof data - 1, (off_t)off);
	ck_assert_int_ge(n, 0);
	data[n] = '\0';
	if (next == tail.count)
		ck_assert_uint_eq(off, tail.end);
	else {
		snprintf(want, sizeof want, "id: %d\n", (int)next);
		ck_assert_int_eq(strncmp(data, "event: ", 7), 0);
		ck_assert_ptr_nonnull(strchr(data, '\n'));
		ck_assert_int_eq(strncmp(strchr(data, '\n') + 1, want,
		    strlen(want)), 0);
	}
	spool_reader_done(&r);
}

START_TEST(a_cursor_leads_to_the_frame_after_it)
{
	char path[256];
	struct client *c;

	stream_make("anonymous", "live", 3, false);
	stream_make("anonymous", "over", 3, true);
	snprintf(path, sizeof path, S "%s", cursors[_i].query);
	c = request("GET", path);
	if (cursors[_i].header != NULL)
		fake_client_env(c, "HTTP_LAST_EVENT_ID", cursors[_i].header);
	ck_assert_int_eq(serve(c), cursors[_i].status);
	ck_assert_uint_eq(fake_wake.starts, 0);
	ck_assert_uint_eq(fake_wake.follows, cursors[_i].status == 200);
	if (cursors[_i].status == 200) {
		ck_assert_str_eq(fake_header("X-Stream-ID"),
		    fake_wake.followed.id);
		ck_assert_uint_eq(fake_wake.next_id, cursors[_i].next);
		assert_offset(fake_wake.followed.id, fake_wake.off,
		    cursors[_i].next);
	} else if (cursors[_i].status == 204)
		ck_assert_str_eq(fake_content(), "");
	else
		assert_error(cursors[_i].error);
}
END_TEST

START_TEST(after_a_power_loss_a_lost_cursor_gets_the_last_frame)
{
	stream_make("anonymous", "over", 3, true);
	strcpy(responder.spool->boot, "another");
	ck_assert_int_eq(get(S "?stream_id=over&last_event_id=77"), 200);
	ck_assert_uint_eq(fake_wake.next_id, 3);
	assert_offset("over", fake_wake.off, 3);
	ck_assert_int_eq(get(S "?stream_id=over&last_event_id=3"), 204);
}
END_TEST

START_TEST(head_neither_starts_nor_follows)
{
	stream_make("anonymous", "over", 3, true);
	ck_assert_int_eq(serve(request("HEAD", S "?message=hello")), 200);
	ck_assert_str_eq(fake_header("Content-Type"), "text/event-stream");
	ck_assert_str_eq(fake_content(), "");
	ck_assert_int_eq(serve(request("HEAD", S "?stream_id=over")), 200);
	ck_assert_str_eq(fake_header("X-Stream-ID"), "over");
	ck_assert_str_eq(fake_content(), "");
	ck_assert_int_eq(serve(request("HEAD", S "?stream_id=none")), 404);
	ck_assert_str_eq(fake_content(), "");
	ck_assert_int_eq(serve(request("HEAD", "/nowhere")), 404);
	ck_assert_str_eq(fake_content(), "");
	ck_assert_int_eq(serve(request("HEAD", "/health")), 200);
	ck_assert_str_eq(fake_header("Content-Length"), "15");
	ck_assert_str_eq(fake_content(), "");
	ck_assert_int_eq(serve(request("HEAD", "/magic")), 200);
	ck_assert_str_eq(fake_content(), "");
	ck_assert_uint_eq(fake_wake.starts, 0);
	ck_assert_uint_eq(fake_wake.follows, 0);
}
END_TEST

/* ---- snapshot, stop, delete, list ---- */

START_TEST(a_snapshot_is_the_fold_of_the_frames)
{
	stream_make("me", "over", 3, true);
	ck_assert_int_eq(get("/api/v1/streams/over?user_id=me"), 200);
	ck_assert_str_eq(fake_header("Content-Type"), JSON);
	ck_assert_ptr_nonnull(strstr(fake_content(),
	    "\"text\":\"word word word \""));
	ck_assert_ptr_nonnull(strstr(fake_content(),
	    "\"state\":\"finished\""));
	ck_assert_ptr_nonnull(strstr(fake_content(), "\"last_event_id\":3"));
	ck_assert_uint_eq(fake_wake.seals, 0);
}
END_TEST

START_TEST(a_live_stream_has_a_snapshot)
{
	stream_make("me", "live", 2, false);
	ck_assert_int_eq(get("/api/v1/streams/live?user_id=me"), 200);
	ck_assert_ptr_nonnull(strstr(fake_content(), "\"state\":\"live\""));
	ck_assert_ptr_nonnull(strstr(fake_content(), "\"last_event_id\":1"));
	ck_assert_uint_eq(fake_wake.seals, 0);
}
END_TEST

START_TEST(a_stream_of_a_dead_writer_is_ended_before_its_snapshot)
{
	stream_make("me", "orphan", 2, false);
	fake_wake.alive = false;
	ck_assert_int_eq(get("/api/v1/streams/orphan?user_id=me"), 200);
	ck_assert_ptr_nonnull(strstr(fake_content(), "\"state\":\"failed\""));
	ck_assert_ptr_nonnull(strstr(fake_content(), "\"last_event_id\":2"));
	ck_assert_uint_eq(fake_wake.seals, 1);
}
END_TEST

START_TEST(what_cannot_be_ended_gets_503)
{
	static const char *const ways[][2] = {
		{ "GET", "/api/v1/streams/x" },
		{ "POST", "/api/v1/streams/x/stop" },
		{ "DELETE", "/api/v1/streams/x" },
	};

	stream_make("anonymous", "x", 2, false);
	fake_wake.alive = false;
	fake_wake.reply.err = RS_EBUSY;
	ck_assert_int_eq(serve(request(ways[_i][0], ways[_i][1])), 503);
	ck_assert_str_eq(fake_header("Retry-After"), "5");
	assert_error("spool_unavailable");
}
END_TEST

/* Wherever the cursor is: before the damage, in it or behind it. */
START_TEST(a_resume_that_meets_damage_has_the_stream_end_there)
{
	char path[80], bad[32768], name[SPOOL_NAME_SIZE];
	struct stream_key k;
	struct stat st;
	int dir_fd, fd;

	stream_make("me", "x", 800, true);
	stream_key(&k, "me", "x");
	stream_file_name(&k, name);
	ck_assert_int_eq(spool_shard_open(responder.spool, name, false,
	    &dir_fd), RS_OK);
	fd = openat(dir_fd, name, O_RDWR);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	memset(bad, 'x', sizeof bad);
	ck_assert_int_eq(pwrite(fd, bad, sizeof bad, st.st_size / 2),
	    sizeof bad);
	close(fd);
	close(dir_fd);
	snprintf(path, sizeof path,
	    "/api/v1/stream?user_id=me&stream_id=x&last_event_id=%d",
	    _i * 100);
	ck_assert_int_eq(get(path), 200);
	ck_assert_uint_eq(fake_wake.follows, 1);
	ck_assert_int_eq(get("/api/v1/streams/x?user_id=me"), 200);
	ck_assert_ptr_nonnull(strstr(fake_content(), "generation_lost"));
}
END_TEST

START_TEST(stop_answers_with_the_snapshot_and_again_the_same)
{
	char *first;

	stream_make("me", "x", 2, false);
	ck_assert_int_eq(post("/api/v1/streams/x/stop?user_id=me", NULL, ""),
	    200);
	ck_assert_uint_eq(fake_wake.stops, 1);
	ck_assert_ptr_nonnull(strstr(fake_content(), "\"last_event_id\":2"));
	first = strdup(fake_content());
	ck_assert_int_eq(post("/api/v1/streams/x/stop", FORM, "user_id=me"),
	    200);
	ck_assert_str_eq(fake_content(), first);
	ck_assert_uint_eq(fake_wake.stops, 1);
	free(first);
}
END_TEST

START_TEST(stop_ends_a_stream_whose_writer_is_dead)
{
	stream_make("me", "x", 2, false);
	fake_wake.alive = false;
	ck_assert_int_eq(post("/api/v1/streams/x/stop?user_id=me", NULL, ""),
	    200);
	ck_assert_ptr_nonnull(strstr(fake_content(), "\"state\":\"failed\""));
	ck_assert_uint_eq(fake_wake.seals, 1);
}
END_TEST

START_TEST(delete_removes_for_good)
{
	stream_make("me", "x", 2, _i != 0);
	ck_assert_int_eq(serve(request("DELETE",
	    "/api/v1/streams/x?user_id=me")), 204);
	ck_assert_str_eq(fake_content(), "");
	ck_assert_uint_eq(fake_wake.stops, _i == 0);
	ck_assert_int_eq(serve(request("DELETE",
	    "/api/v1/streams/x?user_id=me")), 404);
	assert_error("stream_not_found");
	ck_assert_int_eq(get("/api/v1/streams/x?user_id=me"), 404);
	ck_assert_int_eq(get(S "?stream_id=x&user_id=me"), 404);
	ck_assert_uint_eq(streams_count("me"), 0);
}
END_TEST

static const struct {
	const char *method, *path, *query;
} verbs[] = {
	{ "GET", "/api/v1/streams/%s", "" },
	{ "POST", "/api/v1/streams/%s/stop", "" },
	{ "DELETE", "/api/v1/streams/%s", "" },
	{ "GET", S, "?stream_id=%s" },
	{ "GET", S, "?stream_id=%s&last_event_id=0" },
	{ "GET", S, "?stream_id=%s&last_event_id=3&message=x" },
	{ "GET", S, "?stream_id=%s&last_event_id=999" },
};

/* With the whole request's id, the answer of a verb. */
static char *
verb_answer(int i, const char *id)
{
	char form[128], path[256];

	snprintf(form, sizeof form, "%s%s", verbs[i].path, verbs[i].query);
	/* The formats are the rows above. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(path, sizeof path, form, id);
#pragma GCC diagnostic pop
	(void)serve(request(verbs[i].method, path));
	return strdup(fake_answer.out.data);
}

START_TEST(anothers_stream_looks_like_a_missing_one)
{
	char *missing, *others;

	stream_make("other", "over", 3, true);
	stream_make("other", "live", 3, false);
	missing = verb_answer(_i, "none");
	ck_assert_int_eq(fake_status(), 404);
	assert_error("stream_not_found");
	others = verb_answer(_i, "over");
	ck_assert_str_eq(others, missing);
	free(others);
	others = verb_answer(_i, "live");
	ck_assert_str_eq(others, missing);
	free(others);
	free(missing);
	ck_assert_uint_eq(streams_count("other"), 2);
	ck_assert_uint_eq(fake_wake.stops + fake_wake.seals +
	    fake_wake.deletes + fake_wake.follows, 0);
}
END_TEST

static const char *const bad_ids[] = { "..", ".", "a.b", "a b", ID64 "4",
    "\xc3\xa4", "a\nb", "%2e%2e", "a;b", "a~" };

START_TEST(an_id_that_cannot_be_looks_like_a_missing_one)
{
	char *missing = verb_answer(0, "none");
	char *bad = verb_answer(0, bad_ids[_i]);

	ck_assert_str_eq(bad, missing);
	free(bad);
	free(missing);
}
END_TEST

START_TEST(owners_with_equal_ids_do_not_meet)
{
	stream_make("one", "x", 3, true);
	ck_assert_int_eq(get(S "?stream_id=x&user_id=two&message=other"),
	    200);
	ck_assert_uint_eq(fake_wake.starts, 1);
	ck_assert_int_eq(get("/api/v1/streams/x?user_id=one"), 200);
	ck_assert_ptr_nonnull(strstr(fake_content(), "word word word "));
	ck_assert_int_eq(get("/api/v1/streams/x?userId=two"), 200);
	ck_assert_ptr_nonnull(strstr(fake_content(), "\"last_event_id\":-1"));
}
END_TEST

START_TEST(the_list_is_the_callers_newest_first)
{
	stream_make_at("me", "a", 1, true, 1000);
	stream_make_at("me", "b", 0, false, 3000);
	stream_make_at("me", "c", 2, false, 2000);
	stream_make_at("other", "d", 2, true, 2500);
	ck_assert_int_eq(get("/api/v1/streams?user_id=me"), 200);
	ck_assert_str_eq(fake_content(), "{\"streams\":["
	    "{\"stream_id\":\"b\",\"state\":\"live\",\"model\":\"demo\","
	    "\"created\":\"1970-01-01T00:00:03.000Z\",\"last_event_id\":-1},"
	    "{\"stream_id\":\"c\",\"state\":\"live\",\"model\":\"demo\","
	    "\"created\":\"1970-01-01T00:00:02.000Z\",\"last_event_id\":1},"
	    "{\"stream_id\":\"a\",\"state\":\"finished\",\"model\":\"demo\","
	    "\"created\":\"1970-01-01T00:00:01.000Z\",\"last_event_id\":1}"
	    "],\"has_more\":false}");
}
END_TEST

START_TEST(the_list_comes_in_pages)
{
	char path[128], want[64], id[8];
	int i;

	for (i = 0; i < 5; i++) {
		snprintf(id, sizeof id, "s%d", i);
		/* Two of equal age, to see the ids break the tie. */
		stream_make_at("me", id, 1, true, i / 2);
	}
	ck_assert_int_eq(get("/api/v1/streams?user_id=me&limit=1"), 200);
	for (i = 4; i > 0; i--) {
		snprintf(want, sizeof want, "\"stream_id\":\"s%d\"", i);
		ck_assert_ptr_nonnull(strstr(fake_content(), want));
		ck_assert_ptr_nonnull(strstr(fake_content(),
		    "\"has_more\":true"));
		snprintf(path, sizeof path,
		    "/api/v1/streams?user_id=me&limit=1&before=s%d", i);
		ck_assert_int_eq(get(path), 200);
	}
	ck_assert_ptr_nonnull(strstr(fake_content(), "\"s0\""));
	ck_assert_ptr_nonnull(strstr(fake_content(), "\"has_more\":false"));
}
END_TEST

START_TEST(the_list_of_anonymous_is_empty)
{
	stream_make("anonymous", "x", 1, true);
	ck_assert_int_eq(get("/api/v1/streams"), 200);
	ck_assert_str_eq(fake_content(), "{\"streams\":[],\"has_more\":false}");
	ck_assert_int_eq(get("/api/v1/streams?user_id=anonymous"), 200);
	ck_assert_str_eq(fake_content(), "{\"streams\":[],\"has_more\":false}");
}
END_TEST

static const struct {
	const char *query;
	int status;
	const char *error;
} lists[] = {
	{ "limit=0", 400, "invalid_request" },
	{ "limit=-1", 400, "invalid_request" },
	{ "limit=1001", 400, "invalid_request" },
	{ "limit=x", 400, "invalid_request" },
	{ "limit=", 400, "invalid_request" },
	{ "limit=1&limit=1", 400, "invalid_request" },
	{ "before=", 400, "invalid_request" },
	{ "before=../x", 400, "invalid_request" },
	{ "before=none", 404, "stream_not_found" },
	{ "before=others", 404, "stream_not_found" },
	{ "userId=other", 400, "invalid_request" },
};

START_TEST(a_bad_list_request_is_refused)
{
	char path[128];

	stream_make("other", "others", 1, true);
	snprintf(path, sizeof path, "/api/v1/streams?user_id=me&%s",
	    lists[_i].query);
	ck_assert_int_eq(get(path), lists[_i].status);
	assert_error(lists[_i].error);
}
END_TEST

/* ---- models, health, version, page ---- */

START_TEST(models_tells_names_and_prices_only)
{
	char path[128];

	snprintf(path, sizeof path, "%s/models.json", dir);
	file_write("models.json", "{\"default\":\"b\",\"models\":{"
	    "\"a\":{\"provider\":\"demo\",\"hidden\":true},"
	    "\"b\":{\"provider\":\"demo\",\"text\":\"x\",\"prices\":"
	    "{\"input\":150000,\"cache_read\":0,\"output\":600000}},"
	    "\"c\\\"\":{\"provider\":\"demo\"}}}");
	ck_assert_int_eq(chmod(path, 0600), 0);
	models_file_free(responder.models);
	ck_assert_int_eq(models_file_open(path, &responder.models, NULL),
	    RS_OK);
	ck_assert_int_eq(get("/api/v1/models"), 200);
	ck_assert_str_eq(fake_content(), "{\"models\":["
	    "{\"name\":\"b\",\"prices\":{\"input\":0.00000015,"
	    "\"cache_read\":0,\"cache_write\":null,\"output\":0.0000006}},"
	    "{\"name\":\"c\\\"\",\"prices\":{\"input\":null,"
	    "\"cache_read\":null,\"cache_write\":null,\"output\":null}}"
	    "],\"default\":\"b\"}");
}
END_TEST

START_TEST(templates_are_listed)
{
	ck_assert_int_eq(get("/api/templates"), 200);
	ck_assert_str_eq(fake_header("Content-Type"), JSON);
	ck_assert_str_eq(fake_header("Cache-Control"), "no-store");
	ck_assert_str_eq(fake_content(), "{\"templates\":["
	    "{\"name\":\"blank\",\"description\":\"\","
	    "\"variables\":[\"x\"],\"required\":[]},"
	    "{\"name\":\"greet\",\"description\":\"Greets.\","
	    "\"variables\":[\"what\",\"who\"],\"required\":[\"what\"]},"
	    "{\"name\":\"lost\",\"description\":\"\","
	    "\"variables\":[],\"required\":[]},"
	    "{\"name\":\"other\",\"description\":\"\","
	    "\"variables\":[],\"required\":[]}]}");
}
END_TEST

/* want begins with the status. */
static const struct {
	const char *path, *type, *body, *want;
} prompts[] = {
	{ "/api/render", JSON, "{\"template\":\"greet\",\"variables\":"
	    "{\"what\":\"{{who}}\\u0000\",\"who\":\"<b>&\"}}",
	    "200 {\"text\":\"{{who}}\\u0000, <b>&\"}" },
	{ "/api/render", JSON, "{\"template\":\"other\"}",
	    "200 {\"text\":\"hello\"}" },
	{ "/api/render", JSON, "{\"template\":\"blank\"}",
	    "200 {\"text\":\"\\n\"}" },
	{ "/api/render?template=other", NULL, "",
	    "200 {\"text\":\"hello\"}" },
	{ "/api/render", JSON, "{\"template\":\"greet\"}",
	    "400 {\"error\":\"These variables are missing: what\"," },
	{ "/api/render", JSON, "{\"template\":\"greet\","
	    "\"variables\":{\"what\":null}}",
	    "400 {\"error\":\"These variables are missing: what\"," },
	{ "/api/render", JSON, "{\"template\":\"none\"}",
	    "400 {\"error\":\"There is no such template.\"," },
	{ "/api/render", JSON, "{}", "400 {\"error\":\"template must be" },
	{ "/api/render", JSON, "{\"template\":\"other\",\"variables\":[]}",
	    "400 {\"error\":\"variables must be an object.\"," },
	{ "/api/triage", JSON, "{\"message\":\"Hi!\"}",
	    "200 {\"category\":\"chat\",\"template\":\"greet\","
	    "\"model\":null,\"confidence\":1,\"rule\":\"hi\"}" },
	{ "/api/triage", FORM, "message=hiho",
	    "200 {\"category\":\"general\",\"template\":null,"
	    "\"model\":null,\"confidence\":0,\"rule\":null}" },
	{ "/api/triage", JSON, "{\"message\":5}",
	    "400 {\"error\":\"message must be a text.\"," },
	{ "/api/triage", NULL, "",
	    "400 {\"error\":\"message must be a text.\"," },
};

START_TEST(prompts_are_rendered_and_messages_sorted)
{
	char got[1024];
	int status = post(prompts[_i].path, prompts[_i].type,
	    prompts[_i].body);

	snprintf(got, sizeof got, "%d %s", status, fake_content());
	ck_assert_uint_ge(strlen(got), strlen(prompts[_i].want));
	if (status != 200)
		got[strlen(prompts[_i].want)] = '\0';
	ck_assert_str_eq(got, prompts[_i].want);
}
END_TEST

START_TEST(without_a_directory_there_are_no_templates)
{
	reload_free(responder.templates);
	ck_assert_int_eq(reload_new(&templates_kind, "",
	    &responder.templates), RS_OK);
	ck_assert_int_eq(get("/api/templates"), 200);
	ck_assert_str_eq(fake_content(), "{\"templates\":[]}");
	ck_assert_int_eq(get(S "?template=greet"), 400);
	ck_assert_int_eq(post("/api/render", FORM, "template=greet"), 400);
}
END_TEST

START_TEST(health_and_version_answer)
{
	ck_assert_int_eq(get("/health"), 200);
	ck_assert_str_eq(fake_content(), "{\"status\":\"ok\"}");
	ck_assert_int_eq(get("/version"), 200);
	ck_assert_str_eq(fake_content(),
	    "{\"name\":\"respool\",\"version\":\"" PACKAGE_VERSION "\"}");
}
END_TEST

static const struct {
	const char *path, *type, *content;
} files[] = {
	{ "/magic", "text/html; charset=utf-8", "<p>page</p>" },
	{ "/magic/index.html", "text/html; charset=utf-8", "<p>page</p>" },
	{ "/magic/magic.js", "text/javascript; charset=utf-8", "script" },
};

START_TEST(the_page_comes_with_its_policy)
{
	ck_assert_int_eq(get(files[_i].path), 200);
	ck_assert_str_eq(fake_header("Content-Type"), files[_i].type);
	ck_assert_str_eq(fake_content(), files[_i].content);
	ck_assert_str_eq(fake_header("Content-Security-Policy"),
	    "default-src 'none'; script-src 'self'; style-src 'self'; "
	    "img-src 'self'; connect-src 'self'; base-uri 'none'; "
	    "frame-ancestors 'none'");
	ck_assert_str_eq(fake_header("X-Content-Type-Options"), "nosniff");
	ck_assert_str_eq(fake_header("Cache-Control"), "no-cache");
}
END_TEST

static int
get_unless(const char *path, const char *etags)
{
	struct client *c = request("GET", path);

	fake_client_env(c, "HTTP_IF_NONE_MATCH", etags);
	return serve(c);
}

START_TEST(a_page_that_is_known_is_not_sent_again)
{
	char etag[32], etags[64];

	ck_assert_int_eq(get("/magic/magic.js"), 200);
	snprintf(etag, sizeof etag, "%s", fake_header("ETag"));
	ck_assert_uint_eq(strlen(etag), 18);
	snprintf(etags, sizeof etags, "\"other\", W/%s", etag);
	ck_assert_int_eq(get_unless("/magic/magic.js", etags), 304);
	ck_assert_str_eq(fake_content(), "");
	ck_assert_str_eq(fake_header("ETag"), etag);
	ck_assert_str_eq(fake_header("Content-Length"), "");
	file_write("magic/magic.js", "another");
	ck_assert_int_eq(get_unless("/magic/magic.js", etags), 200);
	ck_assert_str_eq(fake_content(), "another");
}
END_TEST

START_TEST(the_page_with_a_slash_leads_to_the_one_without)
{
	ck_assert_int_eq(get("/magic/"), 301);
	ck_assert_str_eq(fake_header("Location"), "../magic");
}
END_TEST

static const char *const no_files[] = { "/magic/none", "/magic/.hidden",
    "/magic/..", "/magic/../secret", "/magic/%2e%2e", "/magic/sub",
    "/magic/link", "/magic/fifo", "/magic/a b", "/magic/magic.js/",
    "/magic/magic.js\\", "/magicx" };

START_TEST(nothing_but_plain_files_is_served)
{
	char path[128];

	snprintf(path, sizeof path, "%s/magic/sub", dir);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	snprintf(path, sizeof path, "%s/magic/link", dir);
	ck_assert_int_eq(symlink("../secret", path), 0);
	snprintf(path, sizeof path, "%s/magic/fifo", dir);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_eq(get(no_files[_i]), 404);
	assert_error("not_found");
}
END_TEST

/* ---- /convo_turn_stream, /convo_history ---- */

#define T "/convo_turn_stream"

START_TEST(the_spooler_is_told_who_speaks_and_what_was_said)
{
	ck_assert_int_eq(get(T "?message=Hi&animalId=leo&sessionId=s-1"
	    "&userId=ann"), 200);
	ck_assert_uint_eq(fake_wake.start.dialect, DIALECT_CONVERSATION);
	ck_assert_str_eq(fake_wake.start.owner, "ann");
	ck_assert_str_eq(fake_wake.start.model, "echo");
	ck_assert_str_eq(fake_wake.start.turn.session, "s-1");
	ck_assert_str_eq(fake_wake.start.turn.animal, "leo");
	ck_assert_str_eq(fake_wake.start.turn.name, "Leo");
	ck_assert_str_eq(fake_wake.prompt.data, "{\"messages\":[{\"role\":"
	    "\"user\",\"content\":\"Hi\"}],\"system\":"
	    "\"You are \\\"Leo\\\".\",\"parameters\":"
	    "{\"temperature\":0.5}}");
	ck_assert_uint_eq(fake_wake.follows, 1);
	ck_assert_uint_eq(fake_wake.wholes, 0);
}
END_TEST

START_TEST(what_a_turn_leaves_out_is_made_up)
{
	conf.default_persona = "ant";
	ck_assert_int_eq(get(T "?message=Hi&stream=false"), 200);
	ck_assert_str_eq(fake_wake.start.turn.animal, "ant");
	ck_assert_str_eq(fake_wake.start.model, "demo");
	ck_assert_int_eq(strncmp(fake_wake.start.turn.session, "session_", 8),
	    0);
	ck_assert_uint_eq(strlen(fake_wake.start.turn.session), 40);
	ck_assert_str_eq(fake_wake.start.key.owner_hash, "2f183a4e64493af3");
	ck_assert_ptr_null(strstr(fake_wake.prompt.data, "parameters"));
	ck_assert_uint_eq(fake_wake.wholes, 1);
}
END_TEST

static const struct {
	const char *query;
	int status;
	const char *type;
} turns[] = {
	{ "?message=Hi", 400, "invalid_request" }, /* there is no default */
	{ "?message=Hi&animalId=fox", 404, "not_found" },
	{ "?message=Hi&animalId=..%2Fleo", 404, "not_found" },
	{ "?message=Hi&animalId=lost", 400, "model_not_found" },
	{ "?message=Hi&animalId=leo&sessionId=", 400, "invalid_request" },
	{ "?message=Hi&animalId=leo&sessionId=a.b", 400, "invalid_request" },
	{ "?message=Hi&animalId=leo&stream=no", 400, "invalid_request" },
	{ "?message=%20&animalId=leo", 400, "invalid_request" },
	{ "?animalId=leo", 400, "invalid_request" },
	{ "?message=Hi&animalId=leo&last_event_id=0", 400,
	    "stream_id_required" },
	{ "?message=Hi&animalId=leo&stream_id=x&last_event_id=0", 404,
	    "stream_not_found" },
	{ "?message=Hi&animalId=leo&stream_id=plain", 409, "conflict" },
};

START_TEST(a_turn_that_cannot_be_is_not_started)
{
	char path[200];

	stream_make("anonymous", "plain", 2, true);
	snprintf(path, sizeof path, T "%s", turns[_i].query);
	ck_assert_int_eq(get(path), turns[_i].status);
	assert_error(turns[_i].type);
	ck_assert_uint_eq(fake_wake.starts, 0);
	ck_assert_uint_eq(fake_wake.follows, 0);
}
END_TEST

START_TEST(a_turn_from_another_origin_is_refused)
{
	struct client *c = request("GET", T "?message=Hi&animalId=leo");

	conf.cors_origins = "https://a.example";
	fake_client_env(c, "HTTP_ORIGIN", "https://b.example");
	ck_assert_int_eq(serve(c), 403);
	ck_assert_uint_eq(fake_wake.starts, 0);
}
END_TEST

START_TEST(a_turn_of_the_wrong_session_or_persona_is_a_conflict)
{
	static const char *const others[] = { "&sessionId=s-2&animalId=leo",
		"&sessionId=s-1&animalId=ant" };
	char path[200];

	ck_assert_int_eq(get(T "?message=Hi&stream_id=x&sessionId=s-1"
	    "&animalId=leo"), 200);
	ck_assert_int_eq(get(T "?message=Hi&stream_id=x"), 200);
	snprintf(path, sizeof path, T "?message=Hi&stream_id=x%s",
	    others[_i]);
	ck_assert_int_eq(get(path), 409);
	ck_assert_int_eq(get(S "?message=Hi&stream_id=x"), 409);
	ck_assert_uint_eq(fake_wake.starts, 1);
}
END_TEST

START_TEST(a_file_that_is_no_session_is_not_told)
{
	struct stream_key k;
	char path[300], name[120], hex[SHA256_HEX_SIZE];

	stream_key(&k, "anonymous", "s-1");
	snprintf(name, sizeof name, "%s-%s.jsonl", k.owner_hash, k.id);
	sha256_hex(name, strlen(name), hex);
	snprintf(path, sizeof path, "%s/spool/conversations", dir);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	snprintf(path, sizeof path, "%s/spool/conversations/%.2s", dir, hex);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	snprintf(path, sizeof path, "%s/spool/conversations/%.2s/%s", dir, hex,
	    name);
	ck_assert_int_eq(symlink("/etc/passwd", path), 0);
	ck_assert_int_eq(get("/convo_history?sessionId=s-1"), 503);
	assert_error("spool_unavailable");
	ck_assert_int_eq(get(T "?sessionId=s-1"), 503);
	ck_assert_int_eq(get("/convo_history?sessionId=s-2"), 404);
	assert_error("not_found");
	ck_assert_int_eq(get("/convo_history"), 400);
}
END_TEST

#define ROWS(a) (int)(sizeof(a) / sizeof(a)[0])

static TCase *
tests_add(Suite *s, const char *name)
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, setup, teardown);
	suite_add_tcase(s, tc);
	return tc;
}

static void
suite_http(Suite *s)
{
	TCase *tc = tests_add(s, "http");

	tcase_add_loop_test(tc, a_path_is_found_wherever_the_server_puts_it,
	    0, ROWS(paths));
	tcase_add_loop_test(tc, counters_are_for_those_that_may_read_them, 0,
	    ROWS(collectors));
	tcase_add_test(tc, a_path_of_any_length_is_answered);
	tcase_add_loop_test(tc, ready_says_why_a_start_would_be_refused, 0,
	    ROWS(readiness));
	tcase_add_loop_test(tc, another_method_gets_405_with_allow, 0,
	    ROWS(methods));
	tcase_add_loop_test(tc, cors_headers_stand_on_every_status, 0,
	    ROWS(cors));
	tcase_add_loop_test(tc, a_preflight_grants_to_whom_it_may, 0,
	    ROWS(cors));
	tcase_add_loop_test(tc, with_listed_origins_only_those_may_start, 0,
	    ROWS(origins));
	tcase_add_test(tc, any_origin_may_join);
	tcase_add_test(tc, models_tells_names_and_prices_only);
	tcase_add_test(tc, templates_are_listed);
	tcase_add_loop_test(tc, prompts_are_rendered_and_messages_sorted, 0,
	    ROWS(prompts));
	tcase_add_test(tc, without_a_directory_there_are_no_templates);
	tcase_add_test(tc, health_and_version_answer);
	tcase_add_loop_test(tc, the_page_comes_with_its_policy, 0,
	    ROWS(files));
	tcase_add_test(tc, a_page_that_is_known_is_not_sent_again);
	tcase_add_test(tc, the_page_with_a_slash_leads_to_the_one_without);
	tcase_add_loop_test(tc, nothing_but_plain_files_is_served, 0,
	    ROWS(no_files));
}

static void
suite_stream(Suite *s)
{
	TCase *tc = tests_add(s, "stream");

	tcase_add_loop_test(tc, a_bad_request_starts_nothing, 0,
	    ROWS(refused));
	tcase_add_test(tc, json_a_thousand_deep_gets_400);
	tcase_add_loop_test(tc, a_body_that_does_not_come_is_told, 0,
	    ROWS(bodies));
	tcase_add_test(tc, a_body_over_the_maximum_gets_413);
	tcase_add_loop_test(tc, a_message_starts_a_stream, 0, ROWS(starts));
	tcase_add_loop_test(tc, a_template_takes_the_place_of_a_message, 0,
	    ROWS(templated));
	tcase_add_test(tc,
	    a_templates_stream_is_joined_whatever_became_of_the_template);
	tcase_add_test(tc,
	    a_text_of_a_template_over_the_maximum_gets_413);
	tcase_add_test(tc, a_stream_begins_with_exactly_this_head);
	tcase_add_loop_test(tc, a_refused_start_tells_the_spoolers_reason, 0,
	    ROWS(replies));
	tcase_add_test(tc, the_spooler_is_told_whose_address_it_is);
	tcase_add_test(tc, whoever_is_second_joins_the_first);
	tcase_add_test(tc, whoever_is_second_with_another_message_gets_409);
	tcase_add_test(tc, a_deleted_id_is_not_started_again);
	tcase_add_test(tc, a_client_that_left_at_the_head_is_aborted);
	tcase_add_loop_test(tc, a_cursor_leads_to_the_frame_after_it, 0,
	    ROWS(cursors));
	tcase_add_test(tc,
	    after_a_power_loss_a_lost_cursor_gets_the_last_frame);
	tcase_add_test(tc, head_neither_starts_nor_follows);
}

static void
suite_streams(Suite *s)
{
	TCase *tc = tests_add(s, "streams");

	tcase_add_test(tc, a_snapshot_is_the_fold_of_the_frames);
	tcase_add_test(tc, a_live_stream_has_a_snapshot);
	tcase_add_loop_test(tc,
	    a_resume_that_meets_damage_has_the_stream_end_there, 0, 8);
	tcase_add_test(tc,
	    a_stream_of_a_dead_writer_is_ended_before_its_snapshot);
	tcase_add_loop_test(tc, what_cannot_be_ended_gets_503, 0, 3);
	tcase_add_test(tc, stop_answers_with_the_snapshot_and_again_the_same);
	tcase_add_test(tc, stop_ends_a_stream_whose_writer_is_dead);
	tcase_add_loop_test(tc, delete_removes_for_good, 0, 2);
	tcase_add_loop_test(tc, anothers_stream_looks_like_a_missing_one, 0,
	    ROWS(verbs));
	tcase_add_loop_test(tc, an_id_that_cannot_be_looks_like_a_missing_one,
	    0, ROWS(bad_ids));
	tcase_add_test(tc, owners_with_equal_ids_do_not_meet);
	tcase_add_test(tc, the_list_is_the_callers_newest_first);
	tcase_add_test(tc, the_list_comes_in_pages);
	tcase_add_test(tc, the_list_of_anonymous_is_empty);
	tcase_add_loop_test(tc, a_bad_list_request_is_refused, 0,
	    ROWS(lists));
}

static void
suite_turns(Suite *s)
{
	TCase *tc = tests_add(s, "turns");

	tcase_add_test(tc,
	    the_spooler_is_told_who_speaks_and_what_was_said);
	tcase_add_test(tc, what_a_turn_leaves_out_is_made_up);
	tcase_add_loop_test(tc, a_turn_that_cannot_be_is_not_started, 0,
	    ROWS(turns));
	tcase_add_test(tc, a_turn_from_another_origin_is_refused);
	tcase_add_loop_test(tc,
	    a_turn_of_the_wrong_session_or_persona_is_a_conflict, 0, 2);
	tcase_add_test(tc, a_file_that_is_no_session_is_not_told);
}

int
main(void)
{
	Suite *s = suite_create("route");
	SRunner *sr = srunner_create(s);
	int failed;

	suite_http(s);
	suite_stream(s);
	suite_streams(s);
	suite_turns(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
