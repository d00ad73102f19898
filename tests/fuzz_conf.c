/* fuzz_conf.c - respool.conf and the environment: what is taken is printed so
 * that it is taken again. */
#include <string.h>

#include "conf.h"
#include "fuzz.h"

/* Lines at the front that begin with RESPOOL_ are the environment. */
static const char *
take_environment(char *p, char *names[static 4])
{
	char *end, *eq;

	for (int i = 0; i < 4 && strncmp(p, "RESPOOL_", 8) == 0; i++) {
		if ((end = strchr(p, '\n')) == NULL ||
		    (eq = memchr(p, '=', (size_t)(end - p))) == NULL)
			break;
		*end = *eq = '\0';
		setenv(p, eq + 1, 1);
		names[i] = p;
		p = end + 1;
	}
	return p;
}

/* Each line of it says where. */
static void
check_why(const struct buf *why, const char *path)
{
	const char *p = why->data, *end = p + why->len;

	assert(why->len > 0 && end[-1] == '\n');
	for (; p < end; p = strchr(p, '\n') + 1)
		assert(strncmp(p, path, strlen(path)) == 0 ||
		    strncmp(p, "RESPOOL_", 8) == 0);
}

static void
check_print(const struct conf *c)
{
	struct conf *again;
	struct buf b, why;

	buf_init(&b, 1 << 20);
	buf_init(&why, 1 << 20);
	conf_print(c, &b);
	assert(conf_load(fuzz_file(b.data, b.len), &again, &why) == RS_OK);
	assert(strcmp(c->hash, again->hash) == 0);
	conf_free(again);
	buf_done(&why);
	buf_done(&b);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *names[4] = { NULL }, *text = strndup((const char *)data, size);
	const char *rest = take_environment(text, names), *path;
	size_t used = (size_t)(rest - text);
	enum rs_err err;
	struct conf *c;
	struct buf why;

	buf_init(&why, 1 << 20);
	path = fuzz_file(data + used, size - used);
	err = conf_load(path, &c, &why);
	for (int i = 0; i < 4 && names[i] != NULL; i++)
		unsetenv(names[i]);
	if (err == RS_OK) {
		check_print(c);
		conf_free(c);
	} else {
		assert(err == RS_EINVAL);
		check_why(&why, path);
	}
	buf_done(&why);
	free(text);
	return 0;
}
