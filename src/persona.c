/* persona.c - personas: a directory of JSON files. */
#include <dirent.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "fdio.h"
#include "jx.h"
#include "persona.h"
#include "spool.h"
#include "text.h"

#define SUFFIX ".json"

static void
persona_done(struct persona *p)
{
	free(p->greeting);
	free(p->system);
	free(p->model);
	json_object_put(p->parameters);
}

void
personas_free(struct personas *p)
{
	size_t i;

	if (p == NULL)
		return;
	for (i = 0; i < p->count; i++)
		persona_done(&p->all[i]);
	free(p->all);
	free(p);
}

/* What is being read. */
struct reading {
	const char *path;
	struct buf *why;
	bool faulty;
};

static void
fault(struct reading *rd, const char *field, const char *text)
{
	buf_printf(rd->why, "%s: %s%s%s\n", rd->path, field,
	    field[0] != '\0' ? ": " : "", text);
	rd->faulty = true;
}

/* A text; lent.  NULL: left out, or faulty. */
static const char *
text_read(struct reading *rd, struct json_object *o, const char *name,
    bool required)
{
	const char *s;
	size_t len;
	enum rs_err err = jx_get_str(o, name, &s, &len);

	if (err == RS_OK && len > 0 && memchr(s, '\0', len) == NULL)
		return s;
	if (err != RS_ENOENT)
		fault(rd, name, "must be a text, not empty and without NULs");
	else if (required)
		fault(rd, name, "is missing");
	return NULL;
}

static enum rs_err
text_copy(struct reading *rd, struct json_object *o, const char *name,
    bool required, char **ret)
{
	const char *s = text_read(rd, o, name, required);

	return s != NULL && (*ret = strdup(s)) == NULL ? RS_ENOMEM : RS_OK;
}

static void
names_read(struct reading *rd, struct json_object *o, struct persona *p)
{
	const char *id = text_read(rd, o, "id", false);
	const char *name = text_read(rd, o, "name", true);

	if (id != NULL && strcmp(id, p->id) != 0)
		fault(rd, "id", "must be the file's name without .json");
	if (name != NULL && strlen(name) > TURN_NAME_MAX)
		fault(rd, "name", "must have at most 128 bytes");
	else if (name != NULL)
		memcpy(p->name, name, strlen(name) + 1);
}

static void
fields_check(struct reading *rd, struct json_object *o)
{
	static const char *const known[] = { "id", "name", "greeting",
		"system", "model", "parameters" };
	char field[80];
	size_t i, n = sizeof known / sizeof known[0];

	json_object_object_foreach(o, name, value) {
		(void)value;
		for (i = 0; i < n && strcmp(known[i], name) != 0; i++)
			continue;
		if (i < n)
			continue;
		snprintf(field, sizeof field, "%.*s",
		    (int)utf8_cut(name, strlen(name), 64), name);
		fault(rd, field, "there is no such field");
	}
}

static enum rs_err
persona_read(struct reading *rd, struct json_object *o, struct persona *p)
{
	enum rs_err err;

	if (!json_object_is_type(o, json_type_object)) {
		fault(rd, "", "must be a JSON object");
		return RS_OK;
	}
	fields_check(rd, o);
	names_read(rd, o, p);
	if ((err = text_copy(rd, o, "greeting", false, &p->greeting)) !=
	    RS_OK ||
	    (err = text_copy(rd, o, "system", true, &p->system)) != RS_OK ||
	    (err = text_copy(rd, o, "model", false, &p->model)) != RS_OK)
		return err;
	if (json_object_object_get_ex(o, "parameters", &p->parameters)) {
		json_object_get(p->parameters);
		if (!json_object_is_type(p->parameters, json_type_object))
			fault(rd, "parameters", "must be an object");
	}
	return RS_OK;
}

/* Adds the persona of a file. */
static enum rs_err
file_read(struct personas *all, struct reading *rd, const char *id)
{
	struct persona *p = &all->all[all->count];
	struct json_object *o = NULL;
	const char *why;
	enum rs_err err;
	struct buf b;

	buf_init(&b, PERSONA_FILE_MAX);
	memset(p, 0, sizeof *p);
	memcpy(p->id, id, strlen(id) + 1);
	all->count++;
	err = conf_read_file(rd->path, &b, rd->why);
	if (err != RS_OK)
		goto out;
	err = jx_parse(b.len > 0 ? b.data : "", b.len, &o, &why);
	if (err == RS_OK)
		err = persona_read(rd, o, p);
	else if (err == RS_EINVAL)
		fault(rd, "", why);
out:
	json_object_put(o);
	buf_done(&b);
	return err;
}

/* The persona's id from a file's name; false: it is none. */
static bool
id_of(const char *file, char ret[TURN_ID_MAX + 1])
{
	size_t len = strlen(file), end = sizeof SUFFIX - 1;

	if (len <= end || len - end > TURN_ID_MAX ||
	    strcmp(file + len - end, SUFFIX) != 0 ||
	    !spool_id_valid(file, len - end))
		return false;
	memcpy(ret, file, len - end);
	ret[len - end] = '\0';
	return true;
}

static enum rs_err
dir_read(struct personas *all, const char *path, DIR *dir, struct buf *why)
{
	struct reading rd = { .why = why };
	char id[TURN_ID_MAX + 1], *file;
	const struct dirent *de;
	enum rs_err err = RS_OK;

	while (err == RS_OK && (de = readdir(dir)) != NULL) {
		if (!id_of(de->d_name, id))
			continue;
		if (all->count == PERSONAS_MAX) {
			rd.path = path;
			fault(&rd, "", "there are more than 1000 personas");
			break;
		}
		if (asprintf(&file, "%s/%s", path, de->d_name) < 0)
			return RS_ENOMEM;
		rd.path = file;
		err = file_read(all, &rd, id);
		free(file);
		if (err == RS_EINVAL) {
			rd.faulty = true; /* the others are looked at too */
			err = RS_OK;
		}
	}
	return err == RS_OK && rd.faulty ? RS_EINVAL : err;
}

static int
persona_cmp(const void *a, const void *b)
{
	return strcmp(((const struct persona *)a)->id,
	    ((const struct persona *)b)->id);
}

enum rs_err
personas_load(const char *path, struct personas **ret, struct buf *ret_why)
{
	struct personas *all = calloc(1, sizeof *all);
	enum rs_err err = RS_OK;
	DIR *dir = NULL;

	if (all == NULL ||
	    (all->all = calloc(PERSONAS_MAX, sizeof *all->all)) == NULL) {
		free(all);
		return RS_ENOMEM;
	}
	if (path[0] != '\0' && (dir = opendir(path)) == NULL) {
		err = rs_from_errno(errno);
		buf_printf(ret_why, "%s: %s\n", path, strerror(errno));
	}
	if (dir != NULL) {
		err = dir_read(all, path, dir, ret_why);
		closedir(dir);
	}
	if (err != RS_OK) {
		personas_free(all);
		return err;
	}
	qsort(all->all, all->count, sizeof *all->all, persona_cmp);
	*ret = all;
	return RS_OK;
}

const struct persona *
personas_find(const struct personas *p, const char *id)
{
	struct persona key = { .greeting = NULL };

	if (p == NULL || strlen(id) > TURN_ID_MAX)
		return NULL;
	strcpy(key.id, id);
	return bsearch(&key, p->all, p->count, sizeof *p->all, persona_cmp);
}

size_t
personas_check(const struct personas *p, const struct models *m,
    const char *def, struct buf *why)
{
	size_t i, faults = 0;

	for (i = 0; i < p->count; i++) {
		const char *model = p->all[i].model;

		if (model == NULL ||
		    models_find(m, model, strlen(model)) != NULL)
			continue;
		buf_printf(why, "persona %s: there is no model %.128s\n",
		    p->all[i].id, model);
		faults++;
	}
	if (def[0] != '\0' && personas_find(p, def) == NULL) {
		buf_printf(why, "default_persona: there is no persona %s\n",
		    def);
		faults++;
	}
	return faults;
}
