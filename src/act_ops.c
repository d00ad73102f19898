/* act_ops.c - the models, health and version */
#include <string.h>

#include "jx.h"
#include "money.h"
#include "route.h"

#define MODELS_BYTES_MAX (1 << 24)
#define HEALTH_BYTES_MAX 256

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

void
act_version(struct request *rq)
{
	struct buf b;

	buf_init(&b, HEALTH_BYTES_MAX);
	buf_puts(&b, "{\"name\":\"respool\",\"version\":\""
	    PACKAGE_VERSION "\"}");
	reply_json(rq, &b);
	buf_done(&b);
}
