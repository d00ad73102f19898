/* act_ops.c - the models, health, readiness and version */
#include <sys/resource.h>
#include <sys/stat.h>

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "jx.h"
#include "money.h"
#include "route.h"

#define MODELS_BYTES_MAX (1 << 24)
#define HEALTH_BYTES_MAX 256
#define READY_BYTES_MAX 1024
#define READY_HEADERS "Content-Type: application/json\r\n" \
	"Cache-Control: no-store\r\n" \
	"X-Content-Type-Options: nosniff\r\n" \
	"Retry-After: 5\r\n"
#define PROBE_BYTES_MAX 1024
#define NONCE_MIN 16
#define NONCE_MAX 64

/* In USD a token, as in costs: exact, and null when unknown. */
static void
model_put(struct buf *b, const struct model *m)
{
	buf_puts(b, "{\"name\":");
	jx_put_str(b, m->name, strlen(m->name));
	buf_puts(b, ",\"prices\":{\"input\":");
	money_put(b, m->prices.input);
	buf_puts(b, ",\"cache_read\":");
	money_put(b, m->prices.cache_read);
	buf_puts(b, ",\"cache_write\":");
	money_put(b, m->prices.cache_write);
	buf_puts(b, ",\"output\":");
	money_put(b, m->prices.output);
	buf_puts(b, "}}");
}

void
act_models(struct request *rq)
{
	struct models *models = models_file_get(rq->r->models);
	struct buf b;
	bool first = true;
	size_t i;

	buf_init(&b, MODELS_BYTES_MAX);
	buf_puts(&b, "{\"models\":[");
	for (i = 0; i < models->count; i++) {
		if (models->all[i].hidden)
			continue;
		buf_puts(&b, first ? "" : ",");
		model_put(&b, &models->all[i]);
		first = false;
	}
	buf_puts(&b, "],\"default\":");
	if (models->def->hidden)
		buf_puts(&b, "null");
	else
		jx_put_str(&b, models->def->name, strlen(models->def->name));
	buf_puts(&b, "}");
	models_unref(models);
	reply_json(rq, &b);
	buf_done(&b);
}

void
act_health(struct request *rq)
{
	struct buf b;

	buf_init(&b, HEALTH_BYTES_MAX);
	buf_puts(&b, "{\"status\":\"ok\"}");
	reply_json(rq, &b);
	buf_done(&b);
}

/* Fixed sentences: who asks is nobody in particular. */
static void
reason(struct buf *b, const char *text)
{
	buf_printf(b, "%s\"%s\"", b->len > 0 ? "," : "", text);
}

static void
reason_of_spool(struct buf *b, enum rs_err err)
{
	switch (err) {
	case RS_OK:
		break;
	case RS_ENOSPC:
		reason(b, "The spool's disk is full, or nearly.");
		break;
	case RS_EPERM:
		reason(b, "The spool cannot be written to.");
		break;
	case RS_ENOENT:
		reason(b, "The spool's directory is gone.");
		break;
	default:
		reason(b, "The spool cannot be used.");
		break;
	}
}

void
act_ready(struct request *rq)
{
	const struct responder *r = rq->r;
	enum rs_err spool = RS_OK, err = wake_ready(r->wake, &spool);
	struct buf why, b;

	buf_init(&why, READY_BYTES_MAX);
	buf_init(&b, READY_BYTES_MAX);
	if (err == RS_ETIMEOUT)
		reason(&why, "The spooler does not answer.");
	else if (err == RS_ECLOSED)
		reason(&why, "No spooler runs, and none can be started now.");
	/* Where there is none to say it, and the spool is ours to write to. */
	if (err != RS_OK && r->spool->uid == geteuid())
		spool = spool_ready(r->spool, r->conf->max_stream_bytes);
	reason_of_spool(&why, spool);
	if (!models_file_good(r->models))
		reason(&why, "The models file has a fault.");
	if (r->conf->owner_by == OWNER_BY_JWT) {
		if (reload_use(r->jwt_key) == NULL)
			reason(&why, "The key for tokens cannot be used.");
		reload_done(r->jwt_key);
	}
	if (why.len == 0) {
		buf_puts(&b, "{\"status\":\"ready\"}");
		reply_json(rq, &b);
	} else {
		buf_printf(&b, "{\"status\":\"not ready\",\"reasons\":[%s]}",
		    why.data);
		reply_send(rq, 503, READY_HEADERS, b.data, b.len);
	}
	buf_done(&b);
	buf_done(&why);
}

/* The nonce of "probe=NONCE"; NULL: none is asked for. */
static const char *
probe_nonce(const struct request *rq)
{
	static const char name[] = "probe=";
	const char *s = client_env(rq->c, "QUERY_STRING");
	size_t len;

	if (s == NULL || strncmp(s, name, sizeof name - 1) != 0)
		return NULL;
	s += sizeof name - 1;
	len = strlen(s);
	return len >= NONCE_MIN && len <= NONCE_MAX &&
	    strspn(s, "0123456789abcdef") == len ? s : NULL;
}

static const char *
probe_server(const struct request *rq)
{
	static const char *const names[] = { "lighttpd", "Apache", "nginx" };
	const char *s = client_env(rq->c, "SERVER_SOFTWARE");
	size_t i;

	for (i = 0; s != NULL && i < sizeof names / sizeof names[0]; i++)
		if (strncmp(s, names[i], strlen(names[i])) == 0)
			return names[i];
	return "other";
}

static const char *
probe_gateway(const struct request *rq)
{
	const char *file = client_env(rq->c, "SCRIPT_FILENAME");

	if (client_env(rq->c, "FCGI_ROLE") == NULL)
		return "cgi";
	return file != NULL && strncmp(file, "proxy:", 6) == 0 ? "proxy" :
	    "fastcgi";
}

/* What respoolctl compares with what it sees from its side.  Hashed with its
 * own nonce, the answer tells a stranger nothing about this host. */
static void
probe_put(const struct request *rq, const char *nonce, struct buf *b)
{
	const struct responder *r = rq->r;
	const char *auth = client_env(rq->c, "HTTP_AUTHORIZATION");
	char text[NONCE_MAX + 1 + SHA256_HEX_SIZE];
	char spool[SHA256_HEX_SIZE], settings[SHA256_HEX_SIZE];
	struct rlimit fds = { 0 };
	struct stat st = { 0 };

	fstat(r->spool->fd, &st);
	getrlimit(RLIMIT_NOFILE, &fds);
	snprintf(text, sizeof text, "%s:%ju:%ju", nonce,
	    (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	sha256_hex(text, strlen(text), spool);
	snprintf(text, sizeof text, "%s:%s", nonce, r->conf->hash);
	sha256_hex(text, strlen(text), settings);
	buf_printf(b, ",\"probe\":{\"spool\":\"%s\",\"settings\":\"%s\","
	    "\"authorization\":%s,\"server\":\"%s\",\"gateway\":\"%s\","
	    "\"descriptors\":%ju}", spool, settings,
	    auth != NULL && auth[0] != '\0' ? "true" : "false",
	    probe_server(rq), probe_gateway(rq), (uintmax_t)fds.rlim_cur);
}

void
act_version(struct request *rq)
{
	const char *nonce = probe_nonce(rq);
	struct buf b;

	buf_init(&b, PROBE_BYTES_MAX);
	buf_puts(&b, "{\"name\":\"respool\",\"version\":\""
	    PACKAGE_VERSION "\"");
	if (nonce != NULL)
		probe_put(rq, nonce, &b);
	buf_puts(&b, "}");
	reply_json(rq, &b);
	buf_done(&b);
}
