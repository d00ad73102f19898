/* failure.c - why an upstream did not answer. */
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "failure.h"
#include "jx.h"
#include "text.h"

/* What upstreams call their errors, as type, code, status or reason; for a
 * status that says less.  The first row that one of the words has counts, so
 * the words that say most come first. */
static const struct {
	const char *word;
	enum errtype type;
} words[] = {
	{ "context_length_exceeded", ERRTYPE_context_length },
	{ "exceed_context_size_error", ERRTYPE_context_length },
	{ "model_not_found", ERRTYPE_model_not_found },
	{ "not_found_error", ERRTYPE_model_not_found },
	{ "NOT_FOUND", ERRTYPE_model_not_found },
	{ "NotFoundError", ERRTYPE_model_not_found },
	{ "insufficient_quota", ERRTYPE_quota },
	{ "credit_balance_exhausted", ERRTYPE_quota },
	{ "billing_error", ERRTYPE_quota },
	{ "billing_hard_limit_reached", ERRTYPE_quota },
	{ "API_KEY_INVALID", ERRTYPE_auth },
	{ "invalid_api_key", ERRTYPE_auth },
	{ "authentication_error", ERRTYPE_auth },
	{ "permission_error", ERRTYPE_auth },
	{ "PERMISSION_DENIED", ERRTYPE_auth },
	{ "UNAUTHENTICATED", ERRTYPE_auth },
	{ "rate_limit_exceeded", ERRTYPE_rate_limit },
	{ "rate_limit_error", ERRTYPE_rate_limit },
	{ "RateLimitError", ERRTYPE_rate_limit },
	{ "RESOURCE_EXHAUSTED", ERRTYPE_rate_limit },
	{ "too_many_requests", ERRTYPE_rate_limit },
	{ "slow_down", ERRTYPE_rate_limit },
	{ "overloaded_error", ERRTYPE_overloaded },
	{ "server_is_overloaded", ERRTYPE_overloaded },
	{ "engine_overloaded", ERRTYPE_overloaded },
	{ "service_unavailable_error", ERRTYPE_overloaded },
	{ "unavailable_error", ERRTYPE_overloaded },
	{ "UNAVAILABLE", ERRTYPE_overloaded },
	{ "server_error", ERRTYPE_upstream_5xx },
	{ "internal_error", ERRTYPE_upstream_5xx },
	{ "internal_server_error", ERRTYPE_upstream_5xx },
	{ "InternalServerError", ERRTYPE_upstream_5xx },
	{ "INTERNAL", ERRTYPE_upstream_5xx },
	{ "DEADLINE_EXCEEDED", ERRTYPE_upstream_5xx },
	{ "api_error", ERRTYPE_upstream_5xx },
	{ "timeout_error", ERRTYPE_upstream_5xx },
	{ "invalid_request_error", ERRTYPE_bad_request },
	{ "invalid_prompt", ERRTYPE_bad_request },
	{ "request_too_large", ERRTYPE_bad_request },
	{ "BadRequestError", ERRTYPE_bad_request },
	{ "INVALID_ARGUMENT", ERRTYPE_bad_request },
	{ "FAILED_PRECONDITION", ERRTYPE_bad_request },
};

/* Those who have no word for it say it in a sentence. */
static const char *const context_phrases[] = {
	"context length", "context window", "context size",
	"fit the context", "prompt is too long",
	"exceeds the maximum number of tokens",
};

/* What an error object says, before it is copied. */
struct found {
	struct json_object *type, *code, *message;
	struct json_object *reason, *delay; /* of the details */
};

/* A number as text, a string when it is a word: letters and digits that may
 * be shown to anybody. */
static void
word_copy(char ret[FAILURE_WORD_MAX], struct json_object *o)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz"
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.- ";
	const char *s = "";

	if (json_object_is_type(o, json_type_string) ||
	    json_object_is_type(o, json_type_int))
		s = json_object_get_string(o);
	if (s != NULL && strlen(s) < FAILURE_WORD_MAX &&
	    s[strspn(s, allowed)] == '\0')
		memcpy(ret, s, strlen(s) + 1);
}

/* Google's details: one entry has the reason, another the wait. */
static void
details_look(struct found *f, struct json_object *details)
{
	struct json_object *o;
	size_t i;

	if (!json_object_is_type(details, json_type_array))
		return;
	for (i = 0; i < json_object_array_length(details); i++) {
		o = json_object_array_get_idx(details, i);
		if (f->reason == NULL)
			f->reason = json_object_object_get(o, "reason");
		if (f->delay == NULL)
			f->delay = json_object_object_get(o, "retryDelay");
	}
}

static bool
says_error(struct json_object *o, const char *name)
{
	const char *s = json_object_get_string(json_object_object_get(o, name));

	return s != NULL && strcmp(s, "error") == 0;
}

/* Finds the words in any of the shapes:
 *	{error: {message, type, code, param}}, {error: "text"},
 *	{error: {code, message, status, details}}, [{error: ...}],
 *	{type: "error", error: {type, message}}, {type: "error", code, message},
 *	{object: "error", message, type, code} */
static bool
failure_find(struct json_object *o, struct found *ret)
{
	struct json_object *inner;

	if (json_object_is_type(o, json_type_array))
		o = json_object_array_get_idx(o, 0);
	inner = json_object_object_get(o, "error");
	if (json_object_is_type(inner, json_type_string)) {
		ret->message = inner;
		return true;
	}
	if (json_object_is_type(inner, json_type_object)) {
		ret->type = json_object_object_get(inner, "type");
		if (ret->type == NULL)
			ret->type = json_object_object_get(inner, "status");
	} else if (says_error(o, "object")) {
		inner = o;
		ret->type = json_object_object_get(inner, "type");
	} else if (says_error(o, "type")) {
		inner = o;
	} else {
		return false;
	}
	ret->code = json_object_object_get(inner, "code");
	ret->message = json_object_object_get(inner, "message");
	details_look(ret, json_object_object_get(inner, "details"));
	return true;
}

/* A class for a status; the words may say more. */
static enum errtype
class_of_status(int64_t status)
{
	if (status >= 300 && status < 400)
		return ERRTYPE_redirect_refused;
	switch (status) {
	case 401:
	case 403:
		return ERRTYPE_auth;
	case 402:
		return ERRTYPE_quota;
	case 408:
	case 409:
	case 425:
		return ERRTYPE_upstream_error; /* another time, perhaps */
	case 429:
		return ERRTYPE_rate_limit;
	case 503:
	case 529:
		return ERRTYPE_overloaded;
	default:
		return status >= 500 && status < 600 ? ERRTYPE_upstream_5xx :
		    status >= 400 && status < 500 ? ERRTYPE_bad_request :
		    ERRTYPE_upstream_error;
	}
}

static bool
names_context(const char *message)
{
	size_t i;

	for (i = 0; i < sizeof context_phrases / sizeof context_phrases[0];
	    i++)
		if (strcasestr(message, context_phrases[i]) != NULL)
			return true;
	return false;
}

/* ERRTYPE_none: they do not say. */
static enum errtype
class_of_words(const struct failure *f, const struct found *found)
{
	char reason[FAILURE_WORD_MAX] = "";
	enum errtype type = ERRTYPE_none;
	size_t i;

	word_copy(reason, found->reason);
	for (i = 0; i < sizeof words / sizeof words[0]; i++)
		if (strcmp(f->upstream_code, words[i].word) == 0 ||
		    strcmp(f->upstream_type, words[i].word) == 0 ||
		    strcmp(reason, words[i].word) == 0) {
			type = words[i].type;
			break;
		}
	if ((type == ERRTYPE_none || type == ERRTYPE_bad_request) &&
	    names_context(f->message))
		type = ERRTYPE_context_length;
	return type;
}

bool
failure_word_known(const char *word)
{
	size_t i;

	for (i = 0; i < sizeof words / sizeof words[0]; i++)
		if (strcmp(word, words[i].word) == 0)
			return true;
	return word[strspn(word, "0123456789")] == '\0';
}

static void
message_copy(struct failure *f, struct json_object *o)
{
	const char *s;
	size_t i, len;

	if (!json_object_is_type(o, json_type_string))
		return;
	s = json_object_get_string(o);
	len = utf8_cut(s, (size_t)json_object_get_string_len(o),
	    sizeof f->message - 1);
	for (i = 0; i < len; i++)
		f->message[i] = (unsigned char)s[i] < ' ' || s[i] == 0x7f ?
		    ' ' : s[i];
	f->message[len] = '\0';
}

static void
failure_copy(struct failure *f, const struct found *found)
{
	word_copy(f->upstream_type, found->type);
	word_copy(f->upstream_code, found->code);
	/* Some have one word only. */
	if (f->upstream_code[0] == '\0')
		word_copy(f->upstream_code, found->type);
	if (f->upstream_type[0] == '\0')
		word_copy(f->upstream_type, found->code);
	message_copy(f, found->message);
}

bool
failure_read_json(struct json_object *o, struct failure *ret)
{
	struct failure f = { .type = ERRTYPE_upstream_error,
		.wait_ms = FAILURE_NO_WAIT };
	struct found found = { 0 };
	enum errtype type;
	int64_t status;

	if (!failure_find(o, &found))
		return false;
	failure_copy(&f, &found);
	if ((type = class_of_words(&f, &found)) != ERRTYPE_none) {
		f.type = type;
	} else {
		status = json_object_get_int64(found.code); /* or 0 */
		if (status >= 400 && status < 600)
			f.type = class_of_status(status);
	}
	f.retryable = errtype_info(f.type)->retryable;
	*ret = f;
	return true;
}

/* "12", "1.5" and the like of a unit, behind which only the suffix stands. */
static bool
duration_parse(const char *s, uint64_t unit_ms, const char *suffix,
    uint64_t *ret)
{
	uint64_t sum = 0, part = 0, place = unit_ms;

	if (*s < '0' || *s > '9')
		return false;
	for (; *s >= '0' && *s <= '9'; s++)
		if (__builtin_mul_overflow(sum, UINT64_C(10), &sum) ||
		    __builtin_add_overflow(sum, (uint64_t)(*s - '0'), &sum))
			return false;
	if (*s == '.')
		for (s++; *s >= '0' && *s <= '9'; s++) {
			place /= 10;
			part += (uint64_t)(*s - '0') * place;
		}
	if (strcmp(s, suffix) != 0 ||
	    __builtin_mul_overflow(sum, unit_ms, &sum) ||
	    __builtin_add_overflow(sum, part, &sum))
		return false;
	*ret = sum;
	return true;
}

static bool
date_parse(const char *s, time_t *ret)
{
	struct tm tm = { 0 };
	const char *end = strptime(s, "%a, %d %b %Y %H:%M:%S GMT", &tm);

	if (end == NULL || *end != '\0')
		return false;
	*ret = timegm(&tm);
	return true;
}

/* The first that says it. */
static uint64_t
wait_read(const struct http_head *head, struct json_object *delay)
{
	time_t now, then;
	const char *s = "";
	uint64_t ms;

	if (duration_parse(head->retry_after_ms, 1, "", &ms) ||
	    duration_parse(head->retry_after, 1000, "", &ms))
		return ms;
	/* Against the upstream's clock: ours may be another one. */
	if (date_parse(head->retry_after, &then) &&
	    date_parse(head->date, &now))
		return then > now ? (uint64_t)(then - now) * 1000 : 0;
	if (json_object_is_type(delay, json_type_string))
		s = json_object_get_string(delay);
	return duration_parse(s, 1000, "s", &ms) ? ms : FAILURE_NO_WAIT;
}

/* A limit of money, that no waiting lifts: Anthropic says so somewhere in a
 * rate limit without a time. */
static bool
names_spend_limit(struct json_object *root)
{
	const char *text = json_object_to_json_string(root);

	return text != NULL && strcasestr(text, "spend") != NULL;
}

static enum errtype
class_of_response(const struct failure *f, const struct found *found,
    unsigned status, struct json_object *root)
{
	enum errtype type = class_of_status(status);
	enum errtype said = class_of_words(f, found);

	if (type == ERRTYPE_redirect_refused)
		return type;
	if (status == 429)
		return said == ERRTYPE_quota ||
		    (f->wait_ms == FAILURE_NO_WAIT &&
		    names_spend_limit(root)) ?
		    ERRTYPE_quota : type;
	if (said == ERRTYPE_context_length || said == ERRTYPE_quota ||
	    said == ERRTYPE_model_not_found || said == ERRTYPE_auth)
		return said;
	/* Ours, not those of a web server that has no such page. */
	if (status == 404 && f->message[0] != '\0')
		return ERRTYPE_model_not_found;
	return type;
}

/* {detail: "text"} and {detail: [{msg: "text"}]}, as FastAPI has it: told
 * from an answer only by the status. */
static void
detail_copy(struct failure *f, struct json_object *root)
{
	struct json_object *o = json_object_object_get(root, "detail");

	if (json_object_is_type(o, json_type_array))
		o = json_object_object_get(json_object_array_get_idx(o, 0),
		    "msg");
	message_copy(f, o);
}

void
failure_read(const struct http_head *head, const char *body, size_t len,
    struct failure *ret)
{
	struct json_object *root = NULL;
	struct failure f = { 0 };
	struct found found = { 0 };
	const char *why;

	if (jx_parse(body, len, &root, &why) == RS_OK) {
		if (failure_find(root, &found))
			failure_copy(&f, &found);
		else
			detail_copy(&f, root);
	}
	f.wait_ms = wait_read(head, found.delay);
	f.type = class_of_response(&f, &found, head->status, root);
	f.retryable = errtype_info(f.type)->retryable;
	if (f.type != ERRTYPE_redirect_refused) {
		if (strcasecmp(head->should_retry, "true") == 0)
			f.retryable = true;
		else if (strcasecmp(head->should_retry, "false") == 0)
			f.retryable = false;
	}
	json_object_put(root);
	*ret = f;
}
