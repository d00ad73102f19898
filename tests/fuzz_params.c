/* fuzz_params.c - requests: a method, CGI variables, an empty line, a body.
 * Whatever they say, there is one well-formed answer. */
#include <stdio.h>
#include <string.h>
#include <json-c/json.h>

#include "fake_client.h"
#include "fake_wake.h"
#include "fuzz.h"
#include "jx.h"
#include "log.h"
#include "responder.h"
#include "spool_fixture.h"

#define VARS_MAX 16

static struct responder responder;

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static char origins[] = "https://a.example https://b.example";
	static char templates[4096], personas[4096];
	struct buf why;

	(void)argc, (void)argv;
	snprintf(templates, sizeof templates, "%s/share/templates",
	    getenv("RESPOOL_SOURCE") != NULL ? getenv("RESPOOL_SOURCE") : ".");
	snprintf(personas, sizeof personas, "%s/share/personas",
	    getenv("RESPOOL_SOURCE") != NULL ? getenv("RESPOOL_SOURCE") : ".");
	fx_setup();
	atexit(fx_teardown);
	log_open(LOGL_ERROR, "/dev/null");
	fx_conf.static_dir = fx_dir;
	fx_conf.base_path = (char *)"/base";
	fx_conf.trusted_proxies = (char *)"10.0.0.0/8";
	fx_conf.cors_origins = origins;
	fx_conf.max_stream_bytes = 1 << 20;
	fx_conf.max_body_bytes = 4096;
	fx_conf.default_persona = (char *)"lion_001";
	responder = (struct responder){ .conf = &fx_conf, .spool = fx_sp };
	buf_init(&why, 4096);
	ck_assert_int_eq(models_file_open("", &responder.models, &why), RS_OK);
	buf_done(&why);
	ck_assert_int_eq(reload_new(&templates_kind, templates,
	    &responder.templates), RS_OK);
	ck_assert_int_eq(reload_new(&personas_kind, personas,
	    &responder.personas), RS_OK);
	ck_assert_int_eq(reload_new(&triage_kind, "", &responder.triage),
	    RS_OK);
	return 0;
}

/* alice has two streams: one is ended, nobody writes the other. */
static void
make_streams(struct stream_key keys[static 2])
{
	struct buf b;

	for (int i = 0; i < 2; i++) {
		const size_t sizes[] = { 0, 300 };
		size_t head;

		stream_key(&keys[i], "alice", i == 0 ? "ended" : "open");
		fx_stream(&b, sizes, 2, &head);
		if (i == 0)
			fx_done(&b, 2);
		fx_write(&keys[i], b.data, b.len);
		buf_done(&b);
	}
}

/* The text has a line for each; NULL when it is not a request. */
static struct client *
make_client(char *p, const char *end, bool *ret_head)
{
	struct client *c;
	char *nl = strchr(p, '\n'), *eq;

	if (nl == NULL)
		return NULL;
	*nl = '\0';
	*ret_head = strcmp(p, "HEAD") == 0;
	c = fake_client_new(p);
	for (int i = 0; i < VARS_MAX; i++) {
		p = nl + 1;
		if ((nl = strchr(p, '\n')) == NULL || nl == p ||
		    (eq = memchr(p, '=', (size_t)(nl - p))) == NULL)
			break;
		*nl = *eq = '\0';
		fake_client_env(c, p, eq + 1);
	}
	p += *p == '\n';
	fake_client_body(c, NULL, p, (size_t)(end - p), RS_OK);
	return c;
}

/* Lines of a head are ours: nothing that was asked can add one. */
static void
check_head(const char *p, const char *end)
{
	static const char *const names[] = { "Status", "Content-Type",
	    "Cache-Control", "X-Content-Type-Options", "Content-Length",
	    "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials",
	    "Access-Control-Expose-Headers", "Access-Control-Allow-Methods",
	    "Access-Control-Allow-Headers", "Access-Control-Max-Age", "Vary",
	    "Allow", "Retry-After", "Connection", "X-Accel-Buffering",
	    "X-Stream-ID", "Location", "Content-Security-Policy",
	    "Referrer-Policy", "ETag" };
	const size_t count = sizeof names / sizeof names[0];
	size_t i, n;

	for (; p < end; p = strstr(p, "\r\n") + 2) {
		n = strcspn(p, ":\r\n");
		for (i = 0; i < count; i++)
			if (strlen(names[i]) == n &&
			    memcmp(p, names[i], n) == 0)
				break;
		assert(i < count && p[n] == ':' && p[n + 1] == ' ');
		assert(p[strcspn(p, "\r\n")] == '\r');
	}
}

static void
check_answer(bool head)
{
	const char *body, *why, *type;
	struct json_object *o;
	int status;
	size_t len;

	assert(fake_answer.end == FAKE_FINISHED);
	status = fake_status();
	assert(status == 200 || status == 204 || status == 301 ||
	    (status >= 400 && status < 500) || status == 503);
	body = fake_content();
	check_head(fake_answer.out.data, body - 2);
	if (head || status == 204)
		assert(body[0] == '\0');
	else if (strcmp(fake_header("Content-Type"), "application/json") == 0) {
		assert(jx_parse(body, strlen(body), &o, &why) == RS_OK);
		assert(status == 200 || (jx_get_str(o, "error_type", &type,
		    &len) == RS_OK && errtype_find(type) != ERRTYPE_none &&
		    errtype_info(errtype_find(type))->status == status));
		json_object_put(o);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stream_key keys[3];
	char *text = malloc(size + 1);
	int n = 2, next_fd = fuzz_next_fd();
	struct client *c;
	bool head;

	memcpy(text, data, size);
	text[size] = '\0';
	c = make_client(text, text + size, &head);
	if (c != NULL) {
		fake_wake_init(fx_sp);
		make_streams(keys);
		route_serve(&responder, c);
		check_answer(head);
		assert(!head || fake_wake.starts == 0);
		if (fake_wake.starts > 0)
			keys[n++] = fake_wake.start.key;
		while (n-- > 0)
			unlink(fx_path(&keys[n]));
		fake_wake_done();
		fuzz_forget_usage(fx_sp);
		assert(fuzz_next_fd() == next_fd);
	}
	free(text);
	return 0;
}
