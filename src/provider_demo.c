/* provider_demo.c - the demo provider: a script in place of a network.
 *
 * What it says: script->text word by word; else, when script->chunks is not
 * 0, "tok0 ", "tok1 ", ...; else the last user message word by word.  A word
 * comes with the white space after it, the first one also with that before
 * it; one that is longer than SSE_TEXT_MAX is cut between characters.
 * When: chunk n at first_ms + n * interval_ms, never "interval_ms after the
 * one before", so that a late caller does not make the rest late; usage and
 * finish together with the last chunk, or with the error.
 * Faults take the place of chunk N: hang_after is for ever, fail_after is an
 * error; of two at the same N the error comes. */
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jx.h"
#include "provider.h"
#include "sse.h"
#include "text.h"

struct demo {
	const struct demo_script *script;
	char *echo;		/* the message, where it is what we say */
	const char *text;	/* what is left to say */
	size_t len;
	uint64_t input;		/* words of the messages */
	uint64_t said;		/* chunks */
	bool usage_told;
	char token[32];
};

static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static size_t
word_length(const char *p, size_t len, bool first)
{
	/* No further, or a word of megabytes is read again for each piece. */
	size_t i = 0, n = len > SSE_TEXT_MAX ? SSE_TEXT_MAX + 1 : len;

	while (first && i < n && is_space(p[i]))
		i++;
	while (i < n && !is_space(p[i]))
		i++;
	while (i < n && is_space(p[i]))
		i++;
	return i > SSE_TEXT_MAX ? utf8_cut(p, len, SSE_TEXT_MAX) : i;
}

static uint64_t
count_words(const char *p, size_t len)
{
	uint64_t words = 0;
	size_t i;

	for (i = 0; i < len; i++)
		words += !is_space(p[i]) && (i == 0 || is_space(p[i - 1]));
	return words;
}

/* Counts the words of all messages and finds the last one of the user. */
static void
read_messages(struct demo *d, struct json_object *messages)
{
	const char *role, *content;
	size_t i, role_len, len;

	for (i = 0; i < json_object_array_length(messages); i++) {
		struct json_object *o = json_object_array_get_idx(messages, i);

		if (jx_get_str(o, "content", &content, &len) != RS_OK)
			continue;
		d->input += count_words(content, len);
		if (jx_get_str(o, "role", &role, &role_len) == RS_OK &&
		    strcmp(role, "user") == 0) {
			d->text = content;
			d->len = len;
		}
	}
}

enum rs_err
demo_new(const struct demo_script *script, struct json_object *messages,
    struct demo **ret)
{
	struct demo *d = calloc(1, sizeof *d);

	if (d == NULL)
		return RS_ENOMEM;
	d->script = script;
	read_messages(d, messages);
	if (script->text != NULL) {
		d->text = script->text;
		d->len = strlen(script->text);
	} else if (script->chunks > 0) {
		d->text = NULL;
		d->len = 0;
	} else if (d->len > 0) {
		d->echo = malloc(d->len);
		if (d->echo == NULL) {
			demo_free(d);
			return RS_ENOMEM;
		}
		memcpy(d->echo, d->text, d->len);
		d->text = d->echo;
	}
	*ret = d;
	return RS_OK;
}

void
demo_free(struct demo *d)
{
	if (d == NULL)
		return;
	free(d->echo);
	free(d);
}

static bool
all_said(const struct demo *d)
{
	if (d->script->text == NULL && d->script->chunks > 0)
		return d->said == d->script->chunks;
	return d->len == 0;
}

uint64_t
demo_due_ms(const struct demo *d)
{
	const struct demo_script *s = d->script;
	uint64_t n = d->said;

	if (n == s->hang_after && n != s->fail_after)
		return DEMO_NEVER;
	if (n > 0 && n != s->fail_after && all_said(d))
		n--;
	return s->first_ms + n * s->interval_ms;
}

static void
say_chunk(struct demo *d, struct delta *ret)
{
	ret->kind = DELTA_CONTENT;
	ret->tokens = 1;
	if (d->text == NULL) {
		ret->text = d->token;
		ret->len = (size_t)snprintf(d->token, sizeof d->token,
		    "tok%llu ", (unsigned long long)d->said);
	} else {
		ret->text = d->text;
		ret->len = word_length(d->text, d->len, d->said == 0);
		d->text += ret->len;
		d->len -= ret->len;
	}
	d->said++;
}

void
demo_next(struct demo *d, struct delta *ret)
{
	bool fails = d->said == d->script->fail_after;

	*ret = (struct delta){ 0 };
	if (fails && d->usage_told) {
		ret->kind = DELTA_ERROR;
		ret->error.type = d->script->error_type;
	} else if (!fails && !all_said(d)) {
		say_chunk(d, ret);
	} else if (!d->usage_told) {
		ret->kind = DELTA_USAGE;
		ret->usage.input = d->input;
		ret->usage.output = d->said;
		d->usage_told = true;
	} else {
		ret->kind = DELTA_FINISH;
		ret->finish = FINISH_STOP;
	}
}
