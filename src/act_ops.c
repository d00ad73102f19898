/* act_ops.c - the models, health and version */
#include <sys/resource.h>
#include <sys/stat.h>

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "jx.h"
#include "money.h"
#include "route.h"

#define MODELS_BYTES_MAX (1 << 24)
#define HEALTH_BYTES_MAX 256
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
