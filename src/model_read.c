/* model_read.c - the models file: its JSON, checked, as struct models. */
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "jx.h"
#include "model.h"
#include "money.h"
#include "text.h"

#define FILE_SIZE_MAX (1 << 20)
#define COUNT_MAX 10000000	/* chunks */
#define INTERVAL_MAX 600000	/* ms; times COUNT_MAX it fits well into ns */
#define FIRST_MAX 86400000	/* ms */
#define PRICE_MAX 1000000000000000 /* a thousand USD per token */
#define SECONDS_MAX 86400
#define RETRIES_MAX 10
#define FALLBACK_MAX 8		/* of one model */
#define FALLBACK_DEPTH_MAX 100	/* of one another */
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

static const char key_fault[] = "a key does not belong into this file: put it "
    "into an environment variable and name that one in api_key_env, or into a "
    "file that only the spooler's user can read and name that one in "
    "api_key_file";

static const char *const provider_words[] = {
#define PROVIDER(word, text) [PROVIDER_##word] = (text),
	PROVIDERS(PROVIDER)
#undef PROVIDER
	NULL
};

/* Where each is asked when the file does not say. */
static const char *const base_urls[] = {
	[PROVIDER_OPENAI] = "https://api.openai.com/v1",
	[PROVIDER_RESPONSES] = "https://api.openai.com/v1",
	[PROVIDER_ANTHROPIC] = "https://api.anthropic.com",
	[PROVIDER_GEMINI] = "https://generativelanguage.googleapis.com",
	[PROVIDER_OLLAMA] = "http://127.0.0.1:11434",
	[PROVIDER_EXEC] = NULL,
};

/* "" is not a word of the file. */
static const char *const auth_words[] = {
	[AUTH_USUAL] = "", [AUTH_BEARER] = "bearer",
	[AUTH_X_API_KEY] = "x-api-key", [AUTH_NONE] = "none", NULL
};
static const char *const format_words[] = {
	[EXEC_TEXT] = "text", [EXEC_LINES] = "lines", [EXEC_JSONL] = "jsonl",
	NULL
};

struct loader {
	const char *path;
	struct buf *why;
	bool faulty;
	unsigned provider;	/* of the model that is read: a bit of OF_,
				 * or OF_ANY where that is not known */
};

/* Which providers a field is for. */
#define OF(word) (1u << PROVIDER_##word)
#define OF_HTTP (OF(OPENAI) | OF(RESPONSES) | OF(ANTHROPIC) | OF(GEMINI) | \
	OF(OLLAMA))
#define OF_ANY (~0u)

/* A field of an object o: read checks it, and puts its value where off says;
 * what is wrong there is told as place. */
struct field {
	const char *name;
	void (*read)(struct loader *l, const char *place,
	    struct json_object *o, const struct field *f, void *to);
	size_t off;		/* in the struct that is filled */
	unsigned of;
	uint64_t max;		/* of a number */
	const char *const *words; /* in the order of the enum, NULL at the
				   * end */
};

/* ---- faults ---- */

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

/* ---- one field ---- */

static void
uint_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
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
		*(uint64_t *)to = n;
	}
}

static void
retries_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	uint64_t n = *(unsigned *)to;

	uint_read(l, place, o, f, &n);
	*(unsigned *)to = (unsigned)n;
}

/* Seconds, as milliseconds. */
static void
seconds_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	struct json_object *value = json_object_object_get(o, f->name);
	double ms = 0;

	if (json_object_is_type(value, json_type_double) ||
	    json_object_is_type(value, json_type_int))
		ms = json_object_get_double(value) * 1000;
	if (ms >= 1 && ms <= SECONDS_MAX * 1000.0)
		*(uint64_t *)to = (uint64_t)(ms + 0.5);
	else
		fault(l, place, "must be a number of seconds, 0.001 to 86400");
}

static void
bool_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	if (jx_get_bool(o, f->name, to) != RS_OK)
		fault(l, place, "must be true or false");
}

/* The field says the opposite of the member. */
static void
not_bool_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	bool value = true;

	bool_read(l, place, o, f, &value);
	*(bool *)to = !value;
}

/* Lent; NULL when it is no string. */
static const char *
str_get(struct loader *l, const char *place, struct json_object *o,
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

/* s may be NULL: no memory. */
static void
str_take(struct loader *l, const char *place, char *s, char **to)
{
	if (s == NULL)
		fault(l, place, rs_strerror(RS_ENOMEM));
	*to = s;
}

static void
text_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	const char *s = str_get(l, place, o, f->name);

	if (s != NULL)
		str_take(l, place, strdup(s), to);
}

/* A text that goes into a URL or a header as it is. */
static void
token_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	const char *s = str_get(l, place, o, f->name), *p;

	if (s == NULL)
		return;
	for (p = s; *p > ' ' && *p < 0x7f; p++)
		;
	if (p == s || *p != '\0')
		fault(l, place, "must be visible ASCII without spaces");
	else
		str_take(l, place, strdup(s), to);
}

/* Absolute, as the programs change their directory: a relative one begins at
 * the models file's. */
static char *
path_make(const struct loader *l, const char *s)
{
	const char *slash = strrchr(l->path, '/');
	char *ret;

	if (s[0] == '/' || slash == NULL)
		return strdup(s);
	if (asprintf(&ret, "%.*s/%s", (int)(slash - l->path), l->path, s) < 0)
		ret = NULL;
	return ret;
}

static void
path_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	const char *s = str_get(l, place, o, f->name);

	if (s != NULL && s[0] == '\0')
		fault(l, place, "must not be empty");
	else if (s != NULL)
		str_take(l, place, path_make(l, s), to);
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
env_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	const char *s = str_get(l, place, o, f->name);

	if (s != NULL && !env_name_valid(s))
		fault(l, place, "must name an environment variable "
		    "(A-Z, 0-9 and _), and none that begins with HTTP_");
	else if (s != NULL)
		str_take(l, place, strdup(s), to);
}

/* A field that must not be there. */
static void
key_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	(void)o;
	(void)f;
	(void)to;
	fault(l, place, key_fault);
}

/* -1: it is none of them. */
static int
word_find(const char *const *words, const char *s)
{
	int i;

	for (i = 0; words[i] != NULL; i++)
		if (words[i][0] != '\0' && strcmp(words[i], s) == 0)
			return i;
	return -1;
}

/* to: an enum, whose constants from 0 on the words are. */
static void
word_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	const char *s = str_get(l, place, o, f->name), *comma = "";
	const char *const *w;
	int i;

	if (s == NULL)
		return;
	if ((i = word_find(f->words, s)) >= 0) {
		*(unsigned *)to = (unsigned)i;
		return;
	}
	buf_printf(l->why, "%s: %s: must be one of ", l->path, place);
	for (w = f->words; *w != NULL; w++) {
		if ((*w)[0] == '\0')
			continue;
		buf_printf(l->why, "%s%s", comma, *w);
		comma = ", ";
	}
	buf_puts(l->why, "\n");
	l->faulty = true;
}

static void
errtype_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	const char *s = str_get(l, place, o, f->name);
	enum errtype type;

	if (s == NULL)
		return;
	type = errtype_find(s);
	if (type == ERRTYPE_none)
		fault(l, place, "there is no such error type");
	else if (errtype_info(type)->status != 0 &&
	    type != ERRTYPE_model_not_found)
		fault(l, place, "is not one of a frame");
	else
		*(enum errtype *)to = type;
}

/* The host of a URL that url_fault has nothing against. */
static const char *
url_host(const char *url, size_t *ret_len)
{
	const char *p = strstr(url, "://") + 3;

	*ret_len = *p == '[' ? strcspn(p, "]") + 1 : strcspn(p, ":/");
	return p;
}

/* What is wrong with a base URL; NULL: nothing. */
static const char *
url_fault(const char *url)
{
	const char *p, *end, *c;
	long port;

	if (strncmp(url, "https://", 8) != 0 && strncmp(url, "http://", 7) != 0)
		return "must begin with https:// or http://";
	for (c = url; *c != '\0'; c++)
		if (*c <= ' ' || *c >= 0x7f || strchr("\"<>\\^`{|}", *c))
			return "has a character that no URL has";
	if (strpbrk(url, "?#") != NULL)
		return "must not have a query or a fragment";
	p = strstr(url, "://") + 3;
	end = p + strcspn(p, "/");
	if (memchr(p, '@', (size_t)(end - p)) != NULL)
		return "must not have a user or a password";
	if (*p == '[') {
		c = p + 1 + strspn(p + 1, "0123456789abcdefABCDEF:.");
		if (c == p + 1 || *c++ != ']')
			return "has no valid host";
	} else {
		c = p + strspn(p, "abcdefghijklmnopqrstuvwxyz"
		    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._");
		if (c == p)
			return "has no valid host";
	}
	if (c < end && *c == ':') {
		size_t digits = strspn(++c, "0123456789");

		port = digits > 0 && digits <= 5 ? strtol(c, NULL, 10) : 0;
		if (port < 1 || port > 65535)
			return "has no valid port";
		c += digits;
	}
	return c == end ? NULL : "has no valid host";
}

static void
url_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	const char *s = str_get(l, place, o, f->name);
	const char *text;
	size_t len;

	if (s == NULL)
		return;
	if ((text = url_fault(s)) != NULL) {
		fault(l, place, text);
		return;
	}
	for (len = strlen(s); s[len - 1] == '/'; len--)
		;
	str_take(l, place, strndup(s, len), to);
}

static void
command_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	struct json_object *list = json_object_object_get(o, f->name), *word;
	size_t i, n;
	char **argv;

	n = json_object_is_type(list, json_type_array) ?
	    json_object_array_length(list) : 0;
	if ((argv = calloc(n + 1, sizeof *argv)) == NULL)
		fault(l, place, rs_strerror(RS_ENOMEM));
	*(char ***)to = argv;
	for (i = 0; argv != NULL && i < n; i++) {
		const char *s;

		word = json_object_array_get_idx(list, i);
		s = json_object_get_string(word);
		if (!json_object_is_type(word, json_type_string) ||
		    s[0] == '\0' || strlen(s) !=
		    (size_t)json_object_get_string_len(word))
			break;
		str_take(l, place, i == 0 && strchr(s, '/') != NULL ?
		    path_make(l, s) : strdup(s), &argv[i]);
	}
	if (n == 0 || i < n)
		fault(l, place, "must be an array of strings that are not "
		    "empty, without NULs");
}

/* ---- parameters ---- */

static bool
param_is_amount(struct json_object *v)
{
	return (json_object_is_type(v, json_type_double) ||
	    json_object_is_type(v, json_type_int)) &&
	    json_object_get_double(v) >= 0;
}

static bool
param_is_count(struct json_object *v)
{
	return json_object_is_type(v, json_type_int) &&
	    json_object_get_int64(v) >= 1;
}

static bool
param_is_stop(struct json_object *v)
{
	size_t i;

	if (!json_object_is_type(v, json_type_array))
		return json_object_is_type(v, json_type_string);
	for (i = 0; i < json_object_array_length(v); i++)
		if (!json_object_is_type(json_object_array_get_idx(v, i),
		    json_type_string))
			return false;
	return true;
}

static const char param_taken[] = "is not a parameter: respool sets it";

/* Those that are known; valid NULL: they are refused. */
static const struct param {
	const char *name;
	bool (*valid)(struct json_object *v);
	const char *fault;
} params[] = {
	{ "temperature", param_is_amount, "must be a number of 0 or more" },
	{ "top_p", param_is_amount, "must be a number of 0 or more" },
	{ "top_k", param_is_count, "must be an integer of 1 or more" },
	{ "max_tokens", param_is_count, "must be an integer of 1 or more" },
	{ "stop", param_is_stop, "must be a string or an array of them" },
	{ "model", NULL, param_taken },
	{ "messages", NULL, param_taken },
	{ "input", NULL, param_taken },
	{ "contents", NULL, param_taken },
	{ "stream", NULL, param_taken },
	{ "system", NULL, "is a field of the model, not a parameter" },
	{ "api_key", NULL, key_fault },
};

static const struct param *
param_find(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof params / sizeof params[0]; i++)
		if (strcmp(params[i].name, name) == 0)
			return &params[i];
	return NULL;
}

bool
model_param_known(const char *name)
{
	return param_find(name) != NULL;
}

static void
params_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	struct json_object *all = json_object_object_get(o, f->name);

	if (!json_object_is_type(all, json_type_object)) {
		fault(l, place, "must be an object");
		return;
	}
	json_object_object_foreach(all, name, value) {
		const struct param *p = param_find(name);
		char inner[PLACE_SIZE];

		place_make(inner, place, name);
		if (p != NULL && (p->valid == NULL || !p->valid(value)))
			fault(l, inner, p->fault);
	}
	*(struct json_object **)to = json_object_get(all);
}

/* ---- all fields ---- */

static void fields_read(struct loader *l, const char *place,
    struct json_object *o, const struct field *fields, void *base);

static void
prices_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	static const struct field fields[] = {
#define PRICE(field) { #field, uint_read, offsetof(struct prices, field), \
	OF_ANY, PRICE_MAX, NULL }
		PRICE(input), PRICE(cache_read), PRICE(cache_write),
		PRICE(output),
		{ 0 }
#undef PRICE
	};

	fields_read(l, place, json_object_object_get(o, f->name), fields, to);
}

static void
timeouts_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	static const struct field fields[] = {
#define TIMEOUT(field, of) { #field, seconds_read, \
	offsetof(struct timeouts, field), of, 0, NULL }
		TIMEOUT(connect, OF_HTTP), TIMEOUT(headers, OF_HTTP),
		TIMEOUT(first_content, OF_HTTP), TIMEOUT(idle, OF_HTTP),
		TIMEOUT(total, OF_HTTP | OF(EXEC)),
		{ 0 }
#undef TIMEOUT
	};

	fields_read(l, place, json_object_object_get(o, f->name), fields, to);
}

/* Its names mean something when all models are read: fallback_read. */
static void
later_read(struct loader *l, const char *place, struct json_object *o,
    const struct field *f, void *to)
{
	(void)l;
	(void)place;
	(void)o;
	(void)f;
	(void)to;
}

static const struct field model_fields[] = {
#define MODEL(field) offsetof(struct model, field)
	{ "provider", word_read, MODEL(provider), OF_ANY, 0, provider_words },
	{ "hidden", bool_read, MODEL(hidden), OF_ANY, 0, NULL },
	{ "prices", prices_read, MODEL(prices), OF_ANY, 0, NULL },
	{ "timeouts", timeouts_read, MODEL(timeouts), OF_ANY, 0, NULL },
	{ "retries", retries_read, MODEL(retries), OF_ANY, RETRIES_MAX, NULL },
	{ "fallback", later_read, MODEL(fallback), OF_ANY, 0, NULL },
	{ "base_url", url_read, MODEL(base_url), OF_HTTP, 0, NULL },
	{ "upstream_model", token_read, MODEL(upstream_model), OF_HTTP, 0,
	    NULL },
	{ "api_key", key_read, 0, OF_ANY, 0, NULL },
	{ "api_key_env", env_read, MODEL(api_key_env), OF_HTTP, 0, NULL },
	{ "api_key_file", path_read, MODEL(api_key_file), OF_HTTP, 0, NULL },
	{ "auth", word_read, MODEL(auth), OF_HTTP, 0, auth_words },
	{ "api_version", token_read, MODEL(api_version),
	    OF(ANTHROPIC) | OF(GEMINI), 0, NULL },
	{ "system", text_read, MODEL(system), OF_HTTP, 0, NULL },
	{ "parameters", params_read, MODEL(parameters), OF_HTTP, 0, NULL },
	{ "stream_usage", not_bool_read, MODEL(no_stream_usage), OF(OPENAI), 0,
	    NULL },
	{ "text", text_read, MODEL(demo.text), OF(DEMO), 0, NULL },
	{ "chunks", uint_read, MODEL(demo.chunks), OF(DEMO), COUNT_MAX, NULL },
	{ "interval_ms", uint_read, MODEL(demo.interval_ms), OF(DEMO),
	    INTERVAL_MAX, NULL },
	{ "first_ms", uint_read, MODEL(demo.first_ms), OF(DEMO), FIRST_MAX,
	    NULL },
	{ "fail_after", uint_read, MODEL(demo.fail_after), OF(DEMO), COUNT_MAX,
	    NULL },
	{ "error_type", errtype_read, MODEL(demo.error_type), OF(DEMO), 0,
	    NULL },
	{ "hang_after", uint_read, MODEL(demo.hang_after), OF(DEMO), COUNT_MAX,
	    NULL },
	{ "command", command_read, MODEL(exec.command), OF(EXEC), 0, NULL },
	{ "format", word_read, MODEL(exec.format), OF(EXEC), 0, format_words },
	{ "cwd", path_read, MODEL(exec.cwd), OF(EXEC), 0, NULL },
	{ "timeout", seconds_read, MODEL(timeouts.total), OF(EXEC), 0, NULL },
	{ 0 }
#undef MODEL
};

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
		else if ((f->of & l->provider) == 0)
			fault(l, inner, "the model's provider has no such "
			    "field");
		else if (value == NULL)
			fault(l, inner, "must not be null");
		else
			f->read(l, inner, o, f, (char *)base + f->off);
	}
}

/* ---- one model ---- */

bool
model_in_clear(const struct model *m)
{
	const char *host;
	size_t len;

	if (m->base_url == NULL || strncmp(m->base_url, "http://", 7) != 0)
		return false;
	host = url_host(m->base_url, &len);
	return !(len == 9 && strncmp(host, "localhost", 9) == 0) &&
	    !(len == 5 && strncmp(host, "[::1]", 5) == 0) &&
	    !(strncmp(host, "127.", 4) == 0 &&
	    strspn(host, "0123456789.") >= len);
}

/* A name with a dot: a host that need not be near, unlike an address of the
 * own network or the name of a container. */
static bool
host_may_be_far(const char *url)
{
	size_t len;
	const char *host = url_host(url, &len);

	return host[0] != '[' && memchr(host, '.', len) != NULL &&
	    strspn(host, "0123456789.") < len;
}

/* What is more than a field: left out, or not with another one. */
static void
model_complete(struct loader *l, const char *place, struct json_object *o,
    struct model *m)
{
	struct json_object *timeouts;
	const char *url = base_urls[m->provider];

	if (m->upstream_model == NULL)
		str_take(l, place, strdup(m->name), &m->upstream_model);
	if (m->base_url == NULL && url != NULL)
		str_take(l, place, strdup(url), &m->base_url);
	if (m->provider == PROVIDER_EXEC && m->exec.command == NULL)
		fault(l, place, "command is missing");
#ifndef HAVE_LIBCURL
	if ((l->provider & OF_HTTP) != 0)
		fault(l, place, "respool was built without libcurl, which "
		    "this provider needs");
#endif
	if (json_object_object_get_ex(o, "timeout", NULL) &&
	    json_object_object_get_ex(o, "timeouts", &timeouts) &&
	    json_object_is_type(timeouts, json_type_object) &&
	    json_object_object_get_ex(timeouts, "total", NULL))
		fault(l, place, "timeout and timeouts.total are the same: "
		    "give one");
	if ((m->api_key_env != NULL || m->api_key_file != NULL) &&
	    model_in_clear(m) && host_may_be_far(m->base_url))
		fault(l, place, "a key would cross the network in the clear: "
		    "base_url must begin with https://");
}

/* The bit of its provider, or OF_ANY. */
static unsigned
provider_of(struct json_object *o)
{
	const char *s;
	size_t len;
	int i;

	if (jx_get_str(o, "provider", &s, &len) != RS_OK ||
	    (i = word_find(provider_words, s)) < 0)
		return OF_ANY;
	return 1u << i;
}

static void
model_read(struct loader *l, const char *name, struct json_object *o,
    struct model *m)
{
	char place[PLACE_SIZE];

	m->prices = (struct prices){ MONEY_UNKNOWN, MONEY_UNKNOWN,
	    MONEY_UNKNOWN, MONEY_UNKNOWN };
	m->timeouts = (struct timeouts){ 10000, 60000, 60000, 60000, 900000 };
	m->demo.fail_after = m->demo.hang_after = DEMO_NEVER;
	m->demo.error_type = ERRTYPE_upstream_error;
	place_make(place, "models", name);
	if (name[0] == '\0')
		fault(l, "models", "a name is empty");
	if (strlen(name) > MODEL_NAME_MAX)
		fault(l, place, "the name has more than 128 bytes");
	if (!json_object_is_type(o, json_type_object)) {
		fault(l, place, "must be an object");
		return;
	}
	if (!json_object_object_get_ex(o, "provider", NULL))
		fault(l, place, "provider is missing");
	l->provider = provider_of(o);
	m->retries = (l->provider & OF_HTTP) != 0 ? 2 : 0;
	fields_read(l, place, o, model_fields, m);
	if (l->provider != OF_ANY)
		model_complete(l, place, o, m);
}

/* ---- fallbacks ---- */

static void
fallback_read(struct loader *l, const char *place, struct json_object *list,
    const struct models *all, struct model *m)
{
	size_t i, k, n;

	n = json_object_is_type(list, json_type_array) ?
	    json_object_array_length(list) : SIZE_MAX;
	if (n > FALLBACK_MAX) {
		fault(l, place, "must be an array of at most 8 names");
		return;
	}
	if ((m->fallback = calloc(n + 1, sizeof *m->fallback)) == NULL) {
		fault(l, place, rs_strerror(RS_ENOMEM));
		return;
	}
	for (i = 0; i < n; i++) {
		struct json_object *name = json_object_array_get_idx(list, i);
		const struct model *to = NULL;

		if (json_object_is_type(name, json_type_string))
			to = models_find(all, json_object_get_string(name),
			    (size_t)json_object_get_string_len(name));
		for (k = 0; k < i && m->fallback[k] != to; k++)
			;
		if (to == NULL || k < i) {
			fault(l, place, to == NULL ?
			    "models does not have each of them" :
			    "has a name twice");
			return;
		}
		m->fallback[m->fallback_count++] = to;
	}
}

enum { FALLBACK_NEW, FALLBACK_ON_PATH, FALLBACK_GOOD };

/* False: following the fallbacks of i comes back, or does not end soon. */
static bool
fallback_ends(const struct models *all, size_t i, char *state, int depth)
{
	const struct model *m = &all->all[i];
	size_t k;

	if (state[i] != FALLBACK_NEW)
		return state[i] == FALLBACK_GOOD;
	if (depth == FALLBACK_DEPTH_MAX)
		return false;
	state[i] = FALLBACK_ON_PATH;
	for (k = 0; k < m->fallback_count; k++)
		if (!fallback_ends(all, (size_t)(m->fallback[k] - all->all),
		    state, depth + 1))
			return false;
	state[i] = FALLBACK_GOOD;
	return true;
}

static enum rs_err
fallbacks_read(struct loader *l, struct json_object *root, struct models *m)
{
	struct json_object *all = json_object_object_get(root, "models"), *list;
	char outer[PLACE_SIZE], place[PLACE_SIZE], *state;
	size_t i = 0;

	json_object_object_foreach(all, name, value) {
		place_make(outer, "models", name);
		place_make(place, outer, "fallback");
		if (json_object_is_type(value, json_type_object) &&
		    json_object_object_get_ex(value, "fallback", &list) &&
		    list != NULL)
			fallback_read(l, place, list, m, &m->all[i]);
		i++;
	}
	if ((state = calloc(m->count, 1)) == NULL)
		return RS_ENOMEM;
	for (i = 0; i < m->count && fallback_ends(m, i, state, 0); i++)
		;
	free(state);
	if (i < m->count) {
		place_make(place, "models", m->all[i].name);
		fault(l, place, "its fallbacks come back to a model that was "
		    "tried, or are more than 100 deep");
	}
	return RS_OK;
}

/* ---- the whole file ---- */

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
	s = str_get(l, "default", root, "default");
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
	if (m->count > 0 && (err = fallbacks_read(l, root, m)) != RS_OK)
		return err;
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
