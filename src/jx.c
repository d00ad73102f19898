/* jx.c - JSON: strict parsing with json-c, and writing into a buf. */
#include <json-c/json.h>
#include <limits.h>
#include <string.h>

#include "jx.h"
#include "text.h"

/* json-c, strict, still takes control characters in strings, names in single
 * quotes, NaN, Infinity, "-01" and "1.", bytes after a NUL, and overlong
 * UTF-8; it cuts names at an escaped NUL, and of two equal names the last one
 * wins.  So the text is gone over first. */
struct jx_scan {
	const char *p, *end;
	size_t depth;
	size_t members;		/* of all objects */
	bool string_has_nul;	/* the last string, by its escape */
	const char *why;
};

static bool
jx_fault(struct jx_scan *s, const char *why)
{
	s->why = why;
	return false;
}

/* Goes over a string, from its first byte after the quote. */
static bool
jx_scan_string(struct jx_scan *s)
{
	s->string_has_nul = false;
	for (; s->p < s->end && *s->p != '"'; s->p++) {
		if ((unsigned char)*s->p < 0x20)
			return jx_fault(s, "a control character in a string");
		if (*s->p != '\\')
			continue;
		if (s->end - s->p >= 6 && memcmp(s->p, "\\u0000", 6) == 0)
			s->string_has_nul = true;
		if (++s->p == s->end)
			break;
	}
	if (s->p == s->end)
		return jx_fault(s, "a string without an end");
	s->p++;
	return true;
}

static size_t
jx_scan_digits(struct jx_scan *s)
{
	const char *from = s->p;

	while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
		s->p++;
	return (size_t)(s->p - from);
}

static bool
jx_scan_char(struct jx_scan *s, char a, char b)
{
	if (s->p == s->end || (*s->p != a && *s->p != b))
		return false;
	s->p++;
	return true;
}

static bool
jx_scan_number(struct jx_scan *s)
{
	const char *first;

	jx_scan_char(s, '-', '-');
	first = s->p;
	if (jx_scan_digits(s) == 0 || (*first == '0' && s->p > first + 1))
		return jx_fault(s, "a number that is none");
	if (jx_scan_char(s, '.', '.') && jx_scan_digits(s) == 0)
		return jx_fault(s, "a number that is none");
	if (jx_scan_char(s, 'e', 'E')) {
		jx_scan_char(s, '+', '-');
		if (jx_scan_digits(s) == 0)
			return jx_fault(s, "a number that is none");
	}
	return true;
}

/* Goes over one token, outside of strings and numbers one character. */
static bool
jx_scan_token(struct jx_scan *s)
{
	char c = *s->p;

	if (c == '-' || (c >= '0' && c <= '9'))
		return jx_scan_number(s);
	s->p++;
	switch (c) {
	case '"':
		return jx_scan_string(s);
	case '{':
	case '[':
		if (++s->depth > JX_DEPTH_MAX)
			return jx_fault(s, "nested too deep");
		return true;
	case '}':
	case ']':
		s->depth--; /* json-c finds what was not opened */
		return true;
	case ':':
		if (s->string_has_nul)
			return jx_fault(s, "a NUL in a name");
		s->members++;
		return true;
	case '\0':
	case '\'':
	case 'N':
	case 'I':
		return jx_fault(s, "not JSON");
	default:
		return true;
	}
}

static enum rs_err
jx_tokens(const char *p, size_t n, struct json_object **ret,
    const char **ret_why)
{
	enum rs_err err = RS_EINVAL;
	struct json_tokener *tok;
	struct json_object *o;

	if ((tok = json_tokener_new_ex(JX_DEPTH_MAX + 1)) == NULL)
		return RS_ENOMEM;
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT);
	/* It does not notice when its buffer cannot grow. */
	if (printbuf_memset(tok->pb, 0, 0, (int)n) < 0) {
		json_tokener_free(tok);
		return RS_ENOMEM;
	}
	printbuf_reset(tok->pb);
	o = json_tokener_parse_ex(tok, p, (int)n);
	/* A number could go on; the NUL says that it does not. */
	if (json_tokener_get_error(tok) == json_tokener_continue)
		o = json_tokener_parse_ex(tok, "", 1);
	switch (json_tokener_get_error(tok)) {
	case json_tokener_success:
		/* Nothing, where the text is not "null": it had no memory. */
		err = o == NULL && p[strspn(p, " \t\r\n")] != 'n' ?
		    RS_ENOMEM : RS_OK;
		if (err == RS_OK)
			*ret = o;
		break;
	case json_tokener_continue:
		*ret_why = "it is cut short";
		break;
	default:
		*ret_why = json_tokener_error_desc(json_tokener_get_error(tok));
		break;
	}
	json_tokener_free(tok);
	return err;
}

/* The members of all objects in o. */
static size_t
jx_members(struct json_object *o)
{
	struct json_object_iterator it, end;
	size_t i, n = 0;

	if (json_object_is_type(o, json_type_array)) {
		for (i = 0; i < json_object_array_length(o); i++)
			n += jx_members(json_object_array_get_idx(o, i));
	} else if (json_object_is_type(o, json_type_object)) {
		n = (size_t)json_object_object_length(o);
		it = json_object_iter_begin(o);
		end = json_object_iter_end(o);
		for (; !json_object_iter_equal(&it, &end);
		    json_object_iter_next(&it))
			n += jx_members(json_object_iter_peek_value(&it));
	}
	return n;
}

enum rs_err
jx_parse(const char *p, size_t n, struct json_object **ret,
    const char **ret_why)
{
	struct jx_scan s = { 0 };
	struct json_object *o;
	enum rs_err err;

	if (n == 0) {
		*ret_why = "it is empty"; /* p may be NULL then */
		return RS_EINVAL;
	}
	s.p = p;
	s.end = p + n;
	if (n > INT_MAX)
		jx_fault(&s, "too long");
	else if (!utf8_valid(p, n))
		jx_fault(&s, "not UTF-8");
	while (s.why == NULL && s.p < s.end)
		jx_scan_token(&s);
	if (s.why != NULL) {
		*ret_why = s.why;
		return RS_EINVAL;
	}
	if ((err = jx_tokens(p, n, &o, ret_why)) != RS_OK)
		return err;
	if (jx_members(o) != s.members) {
		json_object_put(o);
		*ret_why = "a name twice";
		return RS_EINVAL;
	}
	*ret = o;
	return RS_OK;
}

unsigned
jx_fault_line(const char *p, size_t n)
{
	struct json_tokener *tok = json_tokener_new_ex(JX_DEPTH_MAX);
	unsigned line = 0;
	size_t i, end;

	if (tok == NULL)
		return 0;
	if (n > 0 && n <= INT_MAX) {
		json_tokener_set_flags(tok,
		    JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
		json_object_put(json_tokener_parse_ex(tok, p, (int)n));
		if (json_tokener_get_error(tok) != json_tokener_success) {
			end = json_tokener_get_parse_end(tok);
			for (i = 0, line = 1; i < end; i++)
				line += p[i] == '\n';
		}
	}
	json_tokener_free(tok);
	return line;
}

/* ---- looking only: for each frame on its way to a client ---- */

static void
jx_skip_space(struct jx_scan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' ||
	    *s->p == '\r' || *s->p == '\n'))
		s->p++;
}

/* The length of the escape at p, or 0 when there is none. */
static size_t
jx_escape_length(const char *p, size_t n)
{
	size_t i;

	if (n < 2 || p[1] == '\0' || strchr("\"\\/bfnrtu", p[1]) == NULL)
		return 0;
	if (p[1] != 'u')
		return 2;
	for (i = 2; i < 6; i++)
		if (i >= n || !((p[i] >= '0' && p[i] <= '9') ||
		    ((p[i] | 0x20) >= 'a' && (p[i] | 0x20) <= 'f')))
			return 0;
	return 6;
}

/* Goes over a string, from its quote on. */
static bool
jx_check_string(struct jx_scan *s)
{
	const char *p = s->p, *end = s->end;

	if (p == end || *p++ != '"')
		return false;
	for (;;) {
		unsigned char c;
		size_t len;

		while (p < end && (c = (unsigned char)*p) >= ' ' &&
		    c < 0x80 && c != '"' && c != '\\')
			p++;
		if (p == end)
			return false;
		if (*p == '"')
			break;
		len = *p == '\\' ? jx_escape_length(p, (size_t)(end - p)) :
		    (unsigned char)*p < ' ' ? 0 :
		    utf8_char(p, (size_t)(end - p));
		if (len == 0)
			return false;
		p += len;
	}
	s->p = p + 1;
	return true;
}

static bool
jx_check_word(struct jx_scan *s, const char *word)
{
	size_t len = strlen(word);

	if ((size_t)(s->end - s->p) < len || memcmp(s->p, word, len) != 0)
		return false;
	s->p += len;
	return true;
}

static bool jx_check_value(struct jx_scan *s);

/* Goes over an array or object, from behind its bracket on. */
static bool
jx_check_members(struct jx_scan *s, bool named, char close)
{
	if (++s->depth > JX_DEPTH_MAX)
		return false;
	jx_skip_space(s);
	if (!jx_scan_char(s, close, close)) {
		do {
			jx_skip_space(s);
			if (named && !jx_check_string(s))
				return false;
			jx_skip_space(s);
			if (named && !jx_scan_char(s, ':', ':'))
				return false;
			if (!jx_check_value(s))
				return false;
			jx_skip_space(s);
		} while (jx_scan_char(s, ',', ','));
		if (!jx_scan_char(s, close, close))
			return false;
	}
	s->depth--;
	return true;
}

static bool
jx_check_value(struct jx_scan *s)
{
	jx_skip_space(s);
	if (s->p == s->end)
		return false;
	switch (*s->p) {
	case '"':
		return jx_check_string(s);
	case '{':
		s->p++;
		return jx_check_members(s, true, '}');
	case '[':
		s->p++;
		return jx_check_members(s, false, ']');
	case 't':
		return jx_check_word(s, "true");
	case 'f':
		return jx_check_word(s, "false");
	case 'n':
		return jx_check_word(s, "null");
	default:
		return jx_scan_number(s);
	}
}

bool
jx_valid(const char *p, size_t n)
{
	struct jx_scan s = { .p = p, .end = p + n };

	if (!jx_check_value(&s))
		return false;
	jx_skip_space(&s);
	return s.p == s.end;
}

/* RS_ENOENT: not there or null. */
static enum rs_err
jx_get(struct json_object *o, const char *name, enum json_type type,
    struct json_object **ret)
{
	struct json_object *member;

	if (!json_object_object_get_ex(o, name, &member) || member == NULL)
		return RS_ENOENT;
	if (!json_object_is_type(member, type))
		return RS_EINVAL;
	*ret = member;
	return RS_OK;
}

enum rs_err
jx_get_str(struct json_object *o, const char *name, const char **ret,
    size_t *ret_len)
{
	struct json_object *member;
	enum rs_err err;

	if ((err = jx_get(o, name, json_type_string, &member)) != RS_OK)
		return err;
	*ret = json_object_get_string(member);
	*ret_len = (size_t)json_object_get_string_len(member);
	return RS_OK;
}

enum rs_err
jx_get_uint(struct json_object *o, const char *name, uint64_t *ret)
{
	struct json_object *member;
	enum rs_err err;
	uint64_t value;

	if ((err = jx_get(o, name, json_type_int, &member)) != RS_OK)
		return err;
	value = json_object_get_uint64(member);
	/* json-c turns larger numbers into the largest; negative ones it
	 * turns into 0 here. */
	if (value == UINT64_MAX || json_object_get_int64(member) < 0)
		return RS_EINVAL;
	*ret = value;
	return RS_OK;
}

enum rs_err
jx_get_bool(struct json_object *o, const char *name, bool *ret)
{
	struct json_object *member;
	enum rs_err err;

	if ((err = jx_get(o, name, json_type_boolean, &member)) != RS_OK)
		return err;
	*ret = json_object_get_boolean(member);
	return RS_OK;
}

/* The escape of a character, or NULL when it stands for itself. */
static const char *
jx_escape(unsigned char c, char scratch[7])
{
	static const char hex[] = "0123456789abcdef";

	switch (c) {
	case '"':
		return "\\\"";
	case '\\':
		return "\\\\";
	case '\n':
		return "\\n";
	case '\r':
		return "\\r";
	case '\t':
		return "\\t";
	default:
		if (c >= 0x20 && c != 0x7f)
			return NULL;
		memcpy(scratch, "\\u00", 4);
		scratch[4] = hex[c >> 4];
		scratch[5] = hex[c & 15];
		scratch[6] = '\0';
		return scratch;
	}
}

void
jx_put_str(struct buf *b, const char *p, size_t n)
{
	char scratch[7];
	const char *instead;
	size_t i, len, plain = 0; /* where the run of untouched bytes began */

	buf_add(b, "\"", 1);
	for (i = 0; i < n; i += len) {
		len = utf8_char(p + i, n - i);
		if (len > 1)
			continue;
		instead = len == 0 ? "\xef\xbf\xbd" :
		    jx_escape((unsigned char)p[i], scratch);
		len = 1;
		if (instead == NULL)
			continue;
		buf_add(b, p + plain, i - plain);
		buf_puts(b, instead);
		plain = i + 1;
	}
	if (plain < n)
		buf_add(b, p + plain, n - plain);
	buf_add(b, "\"", 1);
}

static void
jx_put_number(struct buf *b, struct json_object *o)
{
	const char *digits = json_object_to_json_string_ext(o,
	    JSON_C_TO_STRING_PLAIN);

	if (digits != NULL)
		buf_puts(b, digits);
	else
		b->err = RS_ENOMEM;
}

static void
jx_put_array(struct buf *b, struct json_object *o)
{
	size_t i;

	buf_puts(b, "[");
	for (i = 0; i < json_object_array_length(o); i++) {
		buf_puts(b, i > 0 ? "," : "");
		jx_put(b, json_object_array_get_idx(o, i));
	}
	buf_puts(b, "]");
}

static void
jx_put_object(struct buf *b, struct json_object *o)
{
	const char *comma = "";

	buf_puts(b, "{");
	json_object_object_foreach(o, name, value) {
		buf_puts(b, comma);
		jx_put_str(b, name, strlen(name));
		buf_puts(b, ":");
		jx_put(b, value);
		comma = ",";
	}
	buf_puts(b, "}");
}

void
jx_put(struct buf *b, struct json_object *o)
{
	switch (json_object_get_type(o)) {
	case json_type_null:
		buf_puts(b, "null");
		break;
	case json_type_boolean:
		buf_puts(b, json_object_get_boolean(o) ? "true" : "false");
		break;
	case json_type_double:
	case json_type_int:
		jx_put_number(b, o);
		break;
	case json_type_string:
		jx_put_str(b, json_object_get_string(o),
		    (size_t)json_object_get_string_len(o));
		break;
	case json_type_array:
		jx_put_array(b, o);
		break;
	case json_type_object:
		jx_put_object(b, o);
		break;
	}
}
