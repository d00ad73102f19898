/* fuzz_models.c - the models file, and what its models say. */
#include <string.h>
#include <json-c/json.h>

#include "fuzz.h"
#include "money.h"
#include "provider.h"
#include "sse.h"

#define STEPS 64 /* of an answer */

static void
check_demo(const struct demo_script *script)
{
	struct json_object *messages = json_tokener_parse(
	    "[{\"role\":\"user\",\"content\":\"one two\"}]");
	uint64_t due = 0;
	struct demo *demo;
	struct delta d;

	assert(demo_new(script, messages, &demo) == RS_OK);
	for (int i = 0; i < STEPS && demo_due_ms(demo) != DEMO_NEVER; i++) {
		assert(demo_due_ms(demo) >= due);
		due = demo_due_ms(demo);
		demo_next(demo, &d);
		if (d.kind == DELTA_FINISH || d.kind == DELTA_ERROR)
			break;
		assert(d.kind != DELTA_CONTENT || d.len <= SSE_TEXT_MAX);
	}
	demo_free(demo);
	json_object_put(messages);
}

static void
check_upstream(const struct models *m, const struct model *one)
{
	bool http = one->provider != PROVIDER_DEMO &&
	    one->provider != PROVIDER_EXEC;

	assert(one->upstream_model != NULL);
	assert((one->base_url != NULL) == http);
	assert(http || !model_in_clear(one));
	assert(one->timeouts.connect > 0 && one->timeouts.total > 0);
	assert((one->exec.command != NULL && one->exec.command[0] != NULL) ==
	    (one->provider == PROVIDER_EXEC));
	for (size_t i = 0; i < one->fallback_count; i++)
		assert(one->fallback[i] >= m->all &&
		    one->fallback[i] < m->all + m->count &&
		    one->fallback[i] != one);
}

static void
check_models(const struct models *m)
{
	const struct usage u = { 1, 2, 3, UINT64_MAX - 1, 0 };
	const struct usage none = { 0 };

	assert(m->count > 0);
	assert(m->def >= m->all && m->def < m->all + m->count);
	for (size_t i = 0; i < m->count; i++) {
		const struct model *one = &m->all[i];

		assert(strlen(one->name) <= MODEL_NAME_MAX);
		assert(models_find(m, one->name, strlen(one->name)) == one);
		assert(prices_cost(&one->prices, &none) == 0);
		(void)prices_cost(&one->prices, &u);
		check_demo(&one->demo);
		check_upstream(m, one);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *path = fuzz_file(data, size), *p;
	struct models *m;
	struct buf why;

	buf_init(&why, 1 << 20);
	if (models_load(path, &m, &why) == RS_OK) {
		check_models(m);
		models_unref(m);
	} else {
		assert(why.len > 0 && why.data[why.len - 1] == '\n');
		for (p = why.data; *p != '\0'; p = strchr(p, '\n') + 1)
			assert(strncmp(p, path, strlen(path)) == 0);
	}
	buf_done(&why);
	return 0;
}
