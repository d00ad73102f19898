/* wire_cases.h - what tests/wire/ holds, for the tests that loop over it. */
#ifndef RESPOOL_WIRE_CASES_H
#define RESPOOL_WIRE_CASES_H

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "provider.h"

static const char *const wire_tables[] = { "cases.json", "more.json" };

/* The bytes of a file there; the caller's. */
static inline struct buf
wire_file(const char *name)
{
	const char *source = getenv("RESPOOL_SOURCE");
	char path[1024];
	struct buf b;
	FILE *f;
	int c;

	snprintf(path, sizeof path, "%s/tests/wire/%s",
	    source ? source : ".", name);
	if ((f = fopen(path, "rb")) == NULL) {
		perror(path);
		exit(EXIT_FAILURE);
	}
	buf_init(&b, 16 << 20);
	while ((c = getc(f)) != EOF)
		buf_add(&b, &(char){ (char)c }, 1);
	fclose(f);
	return b;
}

/* All entries of that list of both tables, as one array. */
static inline struct json_object *
wire_list(const char *name)
{
	struct json_object *all = json_object_new_array(), *root, *list;
	size_t i, k;

	for (i = 0; i < sizeof wire_tables / sizeof wire_tables[0]; i++) {
		struct buf b = wire_file(wire_tables[i]);

		root = json_tokener_parse(b.data);
		list = json_object_object_get(root, name);
		for (k = 0; k < json_object_array_length(list); k++)
			json_object_array_add(all, json_object_get(
			    json_object_array_get_idx(list, k)));
		json_object_put(root);
		buf_done(&b);
	}
	return all;
}

static inline const char *
wire_str(struct json_object *o, const char *name)
{
	return json_object_get_string(json_object_object_get(o, name));
}

/* The provider that one of the tables' API names means. */
static inline const struct provider *
wire_provider(const char *api)
{
	static const struct {
		const char *api;
		enum provider_kind kind;
	} rows[] = {
		{ "openai-chat", PROVIDER_OPENAI },
		{ "openai-responses", PROVIDER_RESPONSES },
		{ "anthropic", PROVIDER_ANTHROPIC },
		{ "gemini", PROVIDER_GEMINI },
		{ "ollama", PROVIDER_OLLAMA },
	};
	struct model m = { 0 };
	size_t i = 0;

	while (strcmp(rows[i].api, api) != 0)
		i++;
	m.provider = rows[i].kind;
	return provider_get(&m);
}

#endif
