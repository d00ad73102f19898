/* fuzz_tmpl.c - templates: files between lines of "---", the first one being
 * the values as JSON.  What loads can be rendered, and values go out as they
 * are. */
#include <stdio.h>
#include <string.h>
#include <json-c/json.h>

#include "fuzz.h"
#include "jx.h"
#include "tmpl.h"

#define FILES_MAX 8

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	return 0;
}

/* Adds what is at p, up to end, as templates a, b, c ... */
static enum rs_err
add_all(struct tmpl_set *s, const char *p, const char *end, struct buf *why)
{
	char name[2] = "a";
	const char *next;
	enum rs_err err;

	for (; name[0] < 'a' + FILES_MAX; name[0]++, p = next + 5) {
		next = memmem(p, (size_t)(end - p), "\n---\n", 5);
		err = tmpl_set_add(s, name, p,
		    (size_t)((next != NULL ? next : end) - p), why);
		if (err != RS_OK || next == NULL)
			return err;
	}
	return RS_OK;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *p = (const char *)data, *end = p + size, *text, *fault;
	struct json_object *vars = NULL, *list;
	struct tmpl_set *s;
	struct buf why, out;
	enum rs_err err;

	if ((text = memmem(p, size, "\n---\n", 5)) == NULL)
		return 0;
	if (jx_parse(p, (size_t)(text - p), &vars, &fault) != RS_OK)
		return 0;
	buf_init(&why, 1 << 20);
	buf_init(&out, 1 << 20);
	assert(tmpl_set_new("DIR", &s) == RS_OK);
	err = add_all(s, text + 5, end, &why);
	if (err == RS_OK)
		err = tmpl_set_link(s, &why);
	assert(err == RS_OK || (err == RS_EINVAL && why.len > 0));
	if (err == RS_OK) {
		tmpl_set_put(s, &out);
		assert(jx_parse(out.data, out.len, &list, &fault) == RS_OK);
		json_object_put(list);
		buf_clear(&out);
		(void)tmpl_missing(tmpl_find(s, "a", 1), vars, &why);
		err = tmpl_render(tmpl_find(s, "a", 1), vars, &out);
		assert(err == RS_OK || err == RS_ETOOBIG);
	}
	tmpl_set_free(s);
	json_object_put(vars);
	buf_done(&why);
	buf_done(&out);
	return 0;
}
