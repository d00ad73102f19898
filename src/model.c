/* model.c - the models file. */
#include <sys/stat.h>

#include <json-c/json.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "jx.h"
#include "log.h"
#include "model.h"
#include "money.h"
#include "text.h"

#define FILE_SIZE_MAX (1 << 20)
#define COUNT_MAX 10000000	/* chunks */
#define INTERVAL_MAX 600000	/* ms; times COUNT_MAX it fits well into ns */
#define FIRST_MAX 86400000	/* ms */
#define PRICE_MAX 1000000000000000 /* a thousand USD per token */
#define PLACE_SIZE 320 /* "models.", two names of 128 bytes, and more */

static const char builtin[] =
    "{ \"default\": \"demo\", \"models\": {"
    "  \"demo\": { \"provider\": \"demo\", \"chunks\": 100,"
    "    \"interval_ms\": 50, \"prices\": { \"input\": 150000,"
    "    \"cache_read\": 75000, \"cache_write\": 150000,"
    "    \"output\": 600000 } },"
    "  \"echo\": { \"provider\": \"demo\", \"prices\": { \"input\": 150000,"
    "    \"cache_read\": 75000, \"cache_write\": 150000,"
    "    \"output\": 600000 } } } }";

enum field_type {
	FIELD_UINT, FIELD_BOOL, FIELD_TEXT, FIELD_ENV, FIELD_PROVIDER,
	FIELD_ERRTYPE, FIELD_PRICES,
};

struct field {
	const char *name;
	enum field_type type;
	size_t off;	/* in the struct that is filled */
	uint64_t max;	/* of FIELD_UINT */
};

static const struct field model_fields[] = {
#define MODEL(field) offsetof(struct model, field)
	{ "provider", FIELD_PROVIDER, MODEL(provider), 0 },
	{ "hidden", FIELD_BOOL, MODEL(hidden), 0 },
	{ "prices", FIELD_PRICES, MODEL(prices), 0 },
	{ "api_key_env", FIELD_ENV, MODEL(api_key_env), 0 },
	{ "text", FIELD_TEXT, MODEL(demo.text), 0 },
	{ "chunks", FIELD_UINT, MODEL(demo.chunks), COUNT_MAX },
	{ "interval_ms", FIELD_UINT, MODEL(demo.interval_ms), INTERVAL_MAX },
	{ "first_ms", FIELD_UINT, MODEL(demo.first_ms), FIRST_MAX },
	{ "fail_after", FIELD_UINT, MODEL(demo.fail_after), COUNT_MAX },
	{ "error_type", FIELD_ERRTYPE, MODEL(demo.error_type), 0 },
	{ "hang_after", FIELD_UINT, MODEL(demo.hang_after), COUNT_MAX },
	{ 0 }
#undef MODEL
};

static const struct field price_fields[] = {
#define PRICE(field) { #field, FIELD_UINT, offsetof(struct prices, field), \
	PRICE_MAX }
	PRICE(input), PRICE(cache_read), PRICE(cache_write), PRICE(output),
	{ 0 }
#undef PRICE
};

struct models_file {
	pthread_mutex_t lock;	/* for all below */
	char *path;
	struct stat seen;	/* of what was read last, or failed to be */
	struct models *now;
};

struct loader {
	const char *path;
	struct buf *why;
	bool faulty;
};

static void fields_read(struct loader *l, const char *place,
    struct json_object *o, const struct field *fields, void *base);

uint64_t
prices_cost(const struct prices *p, const struct usage *u)
{
	const uint64_t terms[][2] = {
		{ u->input, p->input },
		{ u->cache_read, p->cache_read },
		{ u->cache_write, p->cache_write },
		{ u->output, p->output },
	};
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < sizeof terms / sizeof terms[0]; i++)
		if (terms[i][0] != 0)
			sum = money_add(sum,
			    money_mul(terms[i][0], terms[i][1]));
	return sum;
}

/* place: what is wrong there; "": the whole file. */
static void
fault(struct loader *l, const char *place, const char *text)
{
	buf_printf(l->why, "%s: %s%s%s\n", l->path, place,
	    place[0] != '\0' ? ": " : "", text);
	l->faulty = true;
}

/* outer.name on one short line, whatever name is. */
static void
place_make(char ret[PLACE_SIZE], const char *outer, const char *name)
{
	size_t i, len = utf8_cut(name, strlen(name), MODEL_NAME_MAX);

	snprintf(ret, PLACE_SIZE, "%s%s%.*s", outer,
	    outer[0] != '\0' ? "." : "", (int)len, name);
	for (i = 0; ret[i] != '\0'; i++)
		if ((unsigned char)ret[i] < ' ' || ret[i] == 0x7f)
			ret[i] = '?';
}

static void
uint_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, uint64_t *ret)
{
	char text[64];
	uint64_t n;

	if (jx_get_uint(o, f->name, &n) != RS_OK) {
		fault(l, place, "must be an integer of 0 or more");
	} else if (n > f->max) {
		snprintf(text, sizeof text, "must be at most %llu",
		    (unsigned long long)f->max);
		fault(l, place, text);
	} else {
		*ret = n;
	}
}

/* Lent; NULL when it is no string. */
static const char *
str_read(struct loader *l, const char *place, struct json_object *o,
    const char *name)
{
	const char *s;
	size_t len;

	if (jx_get_str(o, name, &s, &len) != RS_OK) {
		fault(l, place, "must be a string");
		return NULL;
	}
	if (memchr(s, '\0', len) != NULL) {
		fault(l, place, "must not have a NUL");
		return NULL;
	}
	return s;
}

/* HTTP_ is where CGI puts the visitor's headers. */
static bool
env_name_valid(const char *s)
{
	return s[0] != '\0' && !(s[0] >= '0' && s[0] <= '9') &&
	    strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == strlen(s) &&
	    strncmp(s, "HTTP_", 5) != 0;
}

static void
field_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	const char *s = NULL;

	if (f->type == FIELD_TEXT || f->type == FIELD_ENV ||
	    f->type == FIELD_PROVIDER || f->type == FIELD_ERRTYPE) {
		s = str_read(l, place, o, f->name);
		if (s == NULL)
			return;
	}
	switch (f->type) {
	case FIELD_UINT:
		uint_read(l, place, o, f, to);
		break;
	case FIELD_BOOL:
		if (jx_get_bool(o, f->name, to) != RS_OK)
			fault(l, place, "must be true or false");
		break;
	case FIELD_ENV:
		if (!env_name_valid(s))
			fault(l, place, "must name an environment variable "
			    "(A-Z, 0-9 and _), and none that begins with "
			    "HTTP_");
		/* FALLTHROUGH */
	case FIELD_TEXT:
		if ((*(char **)to = strdup(s)) == NULL)
			fault(l, place, rs_strerror(RS_ENOMEM));
		break;
	case FIELD_PROVIDER:
		if (strcmp(s, "demo") != 0)
			fault(l, place, "there is no such provider");
		*(enum provider_kind *)to = PROVIDER_DEMO;
		break;
	case FIELD_ERRTYPE:
		*(enum errtype *)to = errtype_find(s);
		if (*(enum errtype *)to == ERRTYPE_none)
			fault(l, place, "there is no such error type");
		else if (errtype_info(*(enum errtype *)to)->status != 0 &&
		    *(enum errtype *)to != ERRTYPE_model_not_found)
			fault(l, place, "is not one of a frame");
		break;
	case FIELD_PRICES:
		fields_read(l, place, json_object_object_get(o, f->name),
		    price_fields, to);
		break;
	}
}

/* Fills the fields of *base that o has. */
static void
fields_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *fields, void *base)
{
	if (!json_object_is_type(o, json_type_object)) {
		fault(l, place, "must be an object");
		return;
	}
	json_object_object_foreach(o, name, value) {
		const struct field *f = fields;
		char inner[PLACE_SIZE];

		place_make(inner, place, name);
		while (f->name != NULL && strcmp(f->name, name) != 0)
			f++;
		if (f->name == NULL)
			fault(l, inner, "there is no such field");
		else if (value == NULL)
			fault(l, inner, "must not be null");
		else
			field_read(l, inner, o, f, (char *)base + f->off);
	}
}

static void
model_read(struct loader *l, const char *name, struct json_object *o,
    struct model *m)
{
	char place[PLACE_SIZE];

	m->prices = (struct prices){ MONEY_UNKNOWN, MONEY_UNKNOWN,
	    MONEY_UNKNOWN, MONEY_UNKNOWN };
	m->demo.fail_after = m->demo.hang_after = DEMO_NEVER;
	m->demo.error_type = ERRTYPE_upstream_error;
	place_make(place, "models", name);
	if (name[0] == '\0')
		fault(l, "models", "a name is empty");
	if (strlen(name) > MODEL_NAME_MAX)
		fault(l, place, "the name has more than 128 bytes");
	if (json_object_is_type(o, json_type_object) &&
	    !json_object_object_get_ex(o, "provider", NULL))
		fault(l, place, "provider is missing");
	fields_read(l, place, o, model_fields, m);
}

static enum rs_err
all_read(struct loader *l, struct json_object *root, struct models *m)
{
	struct json_object *all = json_object_object_get(root, "models");

	if (!json_object_is_type(all, json_type_object) ||
	    json_object_object_length(all) == 0) {
		fault(l, "models", "must be an object with at least one model");
		return RS_OK;
	}
	m->all = calloc((size_t)json_object_object_length(all),
	    sizeof *m->all);
	if (m->all == NULL)
		return RS_ENOMEM;
	json_object_object_foreach(all, name, value) {
		if ((m->all[m->count].name = strdup(name)) == NULL)
			return RS_ENOMEM;
		model_read(l, name, value, &m->all[m->count++]);
	}
	m->def = m->all;
	return RS_OK;
}

static void
default_read(struct loader *l, struct json_object *root, struct models *m)
{
	const char *s;

	if (!json_object_object_get_ex(root, "default", NULL))
		return;
	s = str_read(l, "default", root, "default");
	if (s != NULL && (m->def = models_find(m, s, strlen(s))) == NULL)
		fault(l, "default", "models does not have it");
}

/* RS_EINVAL when there were faults. */
static enum rs_err
root_read(struct loader *l, struct json_object *root, struct models *m)
{
	enum rs_err err;

	if (!json_object_is_type(root, json_type_object)) {
		fault(l, "", "must be a JSON object");
		return RS_EINVAL;
	}
	json_object_object_foreach(root, name, value) {
		char place[PLACE_SIZE];

		(void)value;
		place_make(place, "", name);
		if (strcmp(name, "default") != 0 && strcmp(name, "models") != 0)
			fault(l, place, "there is no such field");
	}
	err = all_read(l, root, m);
	if (err != RS_OK)
		return err;
	default_read(l, root, m);
	return l->faulty ? RS_EINVAL : RS_OK;
}

/* jx_parse does not say where: json-c parses once more, to tell the line.
 * What only jx_parse minds has none. */
static void
syntax_fault(struct loader *l, const struct buf *b, const char *text)
{
	struct json_tokener *tok = json_tokener_new_ex(JX_DEPTH_MAX);
	size_t i, end = 0;
	unsigned line = 1;

	if (tok != NULL && b->len > 0) {
		json_tokener_set_flags(tok,
		    JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
		json_object_put(json_tokener_parse_ex(tok, b->data,
		    (int)b->len));
		if (json_tokener_get_error(tok) != json_tokener_success)
			end = json_tokener_get_parse_end(tok);
	}
	if (tok != NULL)
		json_tokener_free(tok);
	for (i = 0; i < end; i++)
		line += b->data[i] == '\n';
	buf_printf(l->why, "%s:", l->path);
	if (end > 0)
		buf_printf(l->why, "%u:", line);
	buf_printf(l->why, " not valid JSON: %s\n", text);
}

enum rs_err
models_load(const char *path, struct models **ret, struct buf *ret_why)
{
	struct loader l = { .path = path, .why = ret_why };
	struct json_object *root = NULL;
	struct models *m = NULL;
	const char *text;
	enum rs_err err;
	struct buf b;

	buf_init(&b, FILE_SIZE_MAX);
	if (path[0] != '\0') {
		err = conf_read_file(path, &b, ret_why);
	} else {
		buf_puts(&b, builtin);
		err = b.err;
	}
	if (err != RS_OK)
		goto out;
	err = jx_parse(b.data, b.len, &root, &text);
	if (err == RS_EINVAL)
		syntax_fault(&l, &b, text);
	if (err != RS_OK)
		goto out;
	m = calloc(1, sizeof *m);
	if (m == NULL) {
		err = RS_ENOMEM;
		goto out;
	}
	m->refs = 1;
	err = root_read(&l, root, m);
	if (err != RS_OK)
		goto out;
	*ret = m;
	m = NULL;
out:
	models_unref(m);
	json_object_put(root);
	buf_done(&b);
	return err;
}

const struct model *
models_find(const struct models *m, const char *name, size_t len)
{
	size_t i;

	for (i = 0; i < m->count; i++)
		if (strlen(m->all[i].name) == len &&
		    memcmp(m->all[i].name, name, len) == 0)
			return &m->all[i];
	return NULL;
}

struct models *
models_ref(struct models *m)
{
	__atomic_add_fetch(&m->refs, 1, __ATOMIC_RELAXED);
	return m;
}

void
models_unref(struct models *m)
{
	size_t i;

	if (m == NULL || __atomic_sub_fetch(&m->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	for (i = 0; i < m->count; i++) {
		free(m->all[i].name);
		free(m->all[i].api_key_env);
		free(m->all[i].demo.text);
	}
	free(m->all);
	free(m);
}

/* All zero where there is no file. */
static void
look(const char *path, struct stat *ret)
{
	if (path[0] == '\0' || stat(path, ret) < 0)
		memset(ret, 0, sizeof *ret);
}

static bool
same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino &&
	    a->st_size == b->st_size &&
	    a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	    a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	    a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
	    a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

enum rs_err
models_file_open(const char *path, struct models_file **ret,
    struct buf *ret_why)
{
	struct models_file *f = calloc(1, sizeof *f);
	enum rs_err err = RS_ENOMEM;

	if (f == NULL)
		return RS_ENOMEM;
	pthread_mutex_init(&f->lock, NULL);
	f->path = strdup(path);
	if (f->path == NULL)
		goto out;
	/* Before it is read: a change between the two is seen next time. */
	look(path, &f->seen);
	err = models_load(path, &f->now, ret_why);
	if (err != RS_OK)
		goto out;
	*ret = f;
	f = NULL;
out:
	models_file_free(f);
	return err;
}

static void
read_again(struct models_file *f)
{
	char path[LOG_QUOTE_SIZE], text[LOG_QUOTE_SIZE];
	const char *reason;
	struct models *m;
	enum rs_err err;
	struct buf why;

	buf_init(&why, FILE_SIZE_MAX);
	err = models_load(f->path, &m, &why);
	log_quote(path, f->path, strlen(f->path));
	if (err == RS_OK) {
		models_unref(f->now);
		f->now = m;
		log_info("model", "read the models file again path=%s "
		    "models=%zu", path, m->count);
	} else {
		reason = why.len > 0 ? why.data : rs_strerror(err);
		log_error("model", "kept the models from before path=%s "
		    "reason=%s", path,
		    log_quote(text, reason, strcspn(reason, "\n")));
	}
	buf_done(&why);
}

struct models *
models_file_get(struct models_file *f)
{
	struct models *m;
	struct stat st;

	pthread_mutex_lock(&f->lock);
	look(f->path, &st);
	if (!same_file(&st, &f->seen)) {
		f->seen = st;
		read_again(f);
	}
	m = models_ref(f->now);
	pthread_mutex_unlock(&f->lock);
	return m;
}

void
models_file_free(struct models_file *f)
{
	if (f == NULL)
		return;
	pthread_mutex_destroy(&f->lock);
	models_unref(f->now);
	free(f->path);
	free(f);
}
