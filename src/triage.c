/* triage.c - what a message is about. */
#include <json-c/json.h>
#include <regex.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "jx.h"
#include "text.h"
#include "triage.h"

/* All is lent from the JSON of the file. */
struct rule {
	const char *name, *category;
	const char *template_name, *model; /* NULL: none */
	struct json_object *words; /* in lower case; NULL: none, likewise */
	struct json_object *patterns;
	uint64_t min_length, max_length;
	uint64_t weight;
};

struct triage {
	struct json_object *root;
	struct rule *rules;
	size_t count;
};

struct loader {
	const char *path;
	struct buf *why;
	bool faulty;
	size_t at;		/* the rule that is read */
	const char *name;	/* its name, or NULL */
	size_t patterns;	/* of all rules so far */
};

static void
fault(struct loader *l, const char *field, const char *text)
{
	buf_printf(l->why, "%s: rules[%zu]", l->path, l->at);
	if (l->name != NULL)
		buf_printf(l->why, " (%s)", l->name);
	buf_printf(l->why, ": %s: %s\n", field, text);
	l->faulty = true;
}

static char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* ---- reading ---- */

/* One line of text that is short enough for a message. */
static bool
text_ok(const char *s, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if ((unsigned char)s[i] < ' ' || s[i] == 0x7f)
			return false;
	return len > 0 && len <= TRIAGE_TEXT_MAX;
}

static const char *
read_text(struct loader *l, struct json_object *o, const char *field,
    bool needed)
{
	const char *s = NULL;
	size_t len;
	enum rs_err err = jx_get_str(o, field, &s, &len);

	if (err == RS_ENOENT && !needed)
		return NULL;
	if (err != RS_OK || !text_ok(s, len)) {
		fault(l, field, "must be a text of 1 to 256 bytes without "
		    "control characters");
		return NULL;
	}
	return s;
}

static uint64_t
read_number(struct loader *l, struct json_object *o, const char *field,
    uint64_t def, uint64_t min, uint64_t max)
{
	uint64_t n = def;
	enum rs_err err = jx_get_uint(o, field, &n);

	if (err == RS_ENOENT)
		return def;
	if (err != RS_OK || n < min || n > max) {
		fault(l, field, max == UINT64_MAX ?
		    "must be an integer of 0 or more" :
		    "must be an integer from 1 to 1000");
		return def;
	}
	return n;
}

/* What a pattern matched before would make its time grow beyond all bounds. */
static bool
refers_back(const char *pattern)
{
	for (; *pattern != '\0'; pattern++)
		if (*pattern == '\\' && *++pattern >= '1' && *pattern <= '9')
			return true;
		else if (*pattern == '\0')
			break;
	return false;
}

static bool
pattern_ok(struct loader *l, const char *pattern)
{
	char text[128];
	regex_t re;
	int error;

	if (++l->patterns > TRIAGE_PATTERNS_MAX) {
		fault(l, "patterns", "more than 100 in the whole file");
		return false;
	}
	if (refers_back(pattern)) {
		fault(l, "patterns", "\\1 to \\9 are not supported");
		return false;
	}
	error = regcomp(&re, pattern, REG_EXTENDED | REG_ICASE | REG_NOSUB);
	if (error != 0) {
		regerror(error, &re, text, sizeof text);
		fault(l, pattern, text);
		return false;
	}
	regfree(&re);
	return true;
}

static bool
word_fold(struct json_object *o, const char *s, size_t len)
{
	char word[TRIAGE_TEXT_MAX];
	size_t i;

	for (i = 0; i < len; i++)
		word[i] = lower(s[i]);
	return json_object_set_string_len(o, word, (int)len) == 1;
}

/* NULL: it has none, or none that is right. */
static struct json_object *
read_list(struct loader *l, struct json_object *o, const char *field,
    bool patterns)
{
	struct json_object *list, *item;
	size_t i;

	if (!json_object_object_get_ex(o, field, &list))
		return NULL;
	if (!json_object_is_type(list, json_type_array)) {
		fault(l, field, "must be a list of texts");
		return NULL;
	}
	for (i = 0; i < json_object_array_length(list); i++) {
		const char *s;
		size_t len;

		item = json_object_array_get_idx(list, i);
		s = json_object_get_string(item);
		if (!json_object_is_type(item, json_type_string) ||
		    !text_ok(s, len = strlen(s))) {
			fault(l, field, "must be texts of 1 to 256 bytes "
			    "without control characters");
			return NULL;
		}
		if (patterns ? !pattern_ok(l, s) : !word_fold(item, s, len))
			return NULL;
	}
	return i > 0 ? list : NULL;
}

static void
check_names(struct loader *l, struct json_object *o)
{
	static const char *const known[] = {
		"name", "category", "words", "patterns", "min_length",
		"max_length", "weight", "template", "model",
	};
	size_t i, n = sizeof known / sizeof known[0];

	json_object_object_foreach(o, name, value) {
		(void)value;
		for (i = 0; i < n && strcmp(name, known[i]) != 0; i++)
			;
		if (i == n)
			fault(l, "a field of that name is not known",
			    text_ok(name, strlen(name)) ? name : "?");
	}
}

static void
read_rule(struct loader *l, struct triage *t, struct json_object *o)
{
	struct rule *r = &t->rules[t->count];
	size_t i;

	l->name = NULL;
	if (!json_object_is_type(o, json_type_object)) {
		fault(l, "a rule", "must be an object");
		return;
	}
	l->name = r->name = read_text(l, o, "name", true);
	check_names(l, o);
	r->category = read_text(l, o, "category", true);
	r->template_name = read_text(l, o, "template", false);
	r->model = read_text(l, o, "model", false);
	r->words = read_list(l, o, "words", false);
	r->patterns = read_list(l, o, "patterns", true);
	r->min_length = read_number(l, o, "min_length", 0, 0, UINT64_MAX);
	r->max_length = read_number(l, o, "max_length", UINT64_MAX, 0,
	    UINT64_MAX);
	r->weight = read_number(l, o, "weight", 1, 1, TRIAGE_WEIGHT_MAX);
	if (l->faulty)
		return;
	if (r->words == NULL && r->patterns == NULL && r->min_length == 0 &&
	    r->max_length == UINT64_MAX)
		fault(l, "it matches everything", "give it words, patterns, "
		    "min_length or max_length");
	if (r->min_length > r->max_length)
		fault(l, "min_length", "is more than max_length");
	for (i = 0; i < t->count; i++)
		if (strcmp(t->rules[i].name, r->name) == 0)
			fault(l, "name", "another rule has it too");
	t->count++;
}

static enum rs_err
read_rules(struct loader *l, struct triage *t)
{
	struct json_object *rules;
	size_t i, n;

	if (!json_object_is_type(t->root, json_type_object) ||
	    json_object_object_length(t->root) != 1 ||
	    !json_object_object_get_ex(t->root, "rules", &rules) ||
	    !json_object_is_type(rules, json_type_array) ||
	    (n = json_object_array_length(rules)) > TRIAGE_RULES_MAX) {
		buf_printf(l->why, "%s: must be {\"rules\": [...]} with at "
		    "most %d rules\n", l->path, TRIAGE_RULES_MAX);
		return RS_EINVAL;
	}
	if ((t->rules = calloc(n + 1, sizeof *t->rules)) == NULL)
		return RS_ENOMEM;
	for (i = 0; i < n; i++) {
		l->at = i;
		read_rule(l, t, json_object_array_get_idx(rules, i));
	}
	return l->faulty ? RS_EINVAL : RS_OK;
}

enum rs_err
triage_parse(const char *path, const char *text, size_t len,
    struct triage **ret, struct buf *ret_why)
{
	struct loader l = { .path = path, .why = ret_why };
	struct triage *t = calloc(1, sizeof *t);
	enum rs_err err = RS_ENOMEM;
	const char *why;
	unsigned line;

	if (t == NULL)
		return RS_ENOMEM;
	err = jx_parse(text, len, &t->root, &why);
	if (err == RS_EINVAL) {
		buf_printf(ret_why, "%s:", path);
		if ((line = jx_fault_line(text, len)) > 0)
			buf_printf(ret_why, "%u:", line);
		buf_printf(ret_why, " not valid JSON: %s\n", why);
	}
	if (err == RS_OK)
		err = read_rules(&l, t);
	if (err == RS_OK)
		*ret = t;
	else
		triage_free(t);
	return err;
}

enum rs_err
triage_load(const char *path, struct triage **ret, struct buf *ret_why)
{
	enum rs_err err;
	struct buf b;

	buf_init(&b, TRIAGE_FILE_MAX);
	err = conf_read_file(path, &b, ret_why);
	if (err == RS_OK)
		err = triage_parse(path, b.data, b.len, ret, ret_why);
	buf_done(&b);
	return err;
}

void
triage_free(struct triage *t)
{
	if (t == NULL)
		return;
	free(t->rules);
	json_object_put(t->root);
	free(t);
}

/* ---- matching ---- */

/* A message, as the rules look at it. */
struct message {
	const char *text;	/* in lower case */
	size_t len;
	uint64_t characters;
	const char *head;	/* its beginning, terminated, as it came */
	char *memory;
};

static enum rs_err
message_init(struct message *m, const char *text, size_t len)
{
	size_t i, look = utf8_cut(text, len, TRIAGE_LOOK);
	char *p = malloc(len + look + 1);

	if (p == NULL)
		return RS_ENOMEM;
	m->memory = p;
	m->text = p;
	m->len = len;
	m->head = p + len;
	m->characters = 0;
	for (i = 0; i < len; i++) {
		p[i] = lower(text[i]);
		m->characters += ((unsigned char)text[i] & 0xc0) != 0x80;
	}
	/* A NUL would be the end. */
	for (i = 0; i < look; i++)
		p[len + i] = text[i] != '\0' ? text[i] : ' ';
	p[len + look] = '\0';
	return RS_OK;
}

/* Part of a word, in whatever language. */
static bool
is_letter(char c)
{
	return (unsigned char)c >= 0x80 || c == '_' ||
	    (c >= '0' && c <= '9') || (lower(c) >= 'a' && lower(c) <= 'z');
}

static bool
has_word(const struct message *m, const char *word, size_t len)
{
	const char *at = m->text, *end = m->text + m->len;

	for (; (at = memmem(at, (size_t)(end - at), word, len)) != NULL; at++)
		if ((at == m->text || !is_letter(at[-1]) ||
		    !is_letter(word[0])) && (at + len == end ||
		    !is_letter(at[len]) || !is_letter(word[len - 1])))
			return true;
	return false;
}

/* Compiled for each message: what the library remembers of the texts that it
 * saw stays with a compiled pattern, hundreds of megabytes if somebody sends
 * the right ones. */
static bool
has_pattern(const struct message *m, const char *pattern)
{
	regex_t re;
	bool yes;

	if (regcomp(&re, pattern, REG_EXTENDED | REG_ICASE | REG_NOSUB) != 0)
		return false; /* no memory */
	yes = regexec(&re, m->head, 0, NULL, 0) == 0;
	regfree(&re);
	return yes;
}

static bool
rule_matches(const struct rule *r, const struct message *m)
{
	struct json_object *o;
	size_t i;

	if (m->characters < r->min_length || m->characters > r->max_length)
		return false;
	if (r->words == NULL && r->patterns == NULL)
		return true;
	for (i = 0; r->words != NULL &&
	    i < json_object_array_length(r->words); i++) {
		o = json_object_array_get_idx(r->words, i);
		if (has_word(m, json_object_get_string(o),
		    (size_t)json_object_get_string_len(o)))
			return true;
	}
	for (i = 0; r->patterns != NULL &&
	    i < json_object_array_length(r->patterns); i++) {
		o = json_object_array_get_idx(r->patterns, i);
		if (has_pattern(m, json_object_get_string(o)))
			return true;
	}
	return false;
}

/* What the category of one rule weighs. */
static uint64_t
category_weight(const struct triage *t, const bool *matched,
    const char *category)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < t->count; i++)
		if (matched[i] &&
		    strcmp(t->rules[i].category, category) == 0)
			sum += t->rules[i].weight;
	return sum;
}

static void
found_fill(const struct triage *t, const bool *matched,
    struct triage_found *ret)
{
	uint64_t total = 0, most = 0, heaviest = 0, weight;
	const struct rule *r;
	size_t i;

	for (i = 0; i < t->count; i++) {
		if (!matched[i])
			continue;
		r = &t->rules[i];
		total += r->weight;
		weight = category_weight(t, matched, r->category);
		if (weight > most) {
			most = weight;
			ret->category = r->category;
		}
	}
	for (i = 0; i < t->count; i++) {
		r = &t->rules[i];
		if (!matched[i] || r->weight <= heaviest ||
		    strcmp(r->category, ret->category) != 0)
			continue;
		heaviest = r->weight;
		ret->template_name = r->template_name;
		ret->model = r->model;
		ret->rule = r->name;
	}
	if (total > 0)
		ret->confidence = (double)most / (double)total;
}

enum rs_err
triage_find(const struct triage *t, const char *message, size_t len,
    struct triage_found *ret)
{
	struct message m;
	bool *matched;
	size_t i;

	if (t == NULL) {
		*ret = (struct triage_found){ .category = "general" };
		return RS_OK;
	}
	if ((matched = calloc(t->count + 1, sizeof *matched)) == NULL ||
	    message_init(&m, message, len) != RS_OK) {
		free(matched);
		return RS_ENOMEM;
	}
	for (i = 0; i < t->count; i++)
		matched[i] = rule_matches(&t->rules[i], &m);
	*ret = (struct triage_found){ .category = "general" };
	found_fill(t, matched, ret);
	free(m.memory);
	free(matched);
	return RS_OK;
}

bool
triage_names(const struct triage *t, size_t i, const char **ret_rule,
    const char **ret_template, const char **ret_model)
{
	if (i >= t->count)
		return false;
	*ret_rule = t->rules[i].name;
	*ret_template = t->rules[i].template_name;
	*ret_model = t->rules[i].model;
	return true;
}
