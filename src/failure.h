/* failure.h - why an upstream did not answer: its words, our class of error.
 * Pure functions. */
#ifndef RESPOOL_FAILURE_H
#define RESPOOL_FAILURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "errtype.h"
#include "http.h"

struct json_object;

#define FAILURE_WORD_MAX 128
#define FAILURE_NO_WAIT UINT64_MAX

struct failure {
	enum errtype type;
	bool retryable;		/* a second attempt may do better */
	uint64_t wait_ms;	/* that the upstream asks for before it; or
				 * FAILURE_NO_WAIT */
	/* The upstream's words, "" when there are none; cut on characters.
	 * message: see delta.h. */
	char upstream_type[FAILURE_WORD_MAX], upstream_code[FAILURE_WORD_MAX];
	char message[512];
};

/* A response whose status is not 200, from its head and up to
 * FAILURE_BODY_MAX bytes of its body, which may be anything. */
#define FAILURE_BODY_MAX 65536
void failure_read(const struct http_head *head, const char *body, size_t len,
    struct failure *ret);

/* True for a word that upstreams use by convention, and for a number: what
 * can be shown to people whom the request does not concern. */
bool failure_word_known(const char *word);

/* An error object in a stream or in a 200, in any of the shapes; false when o
 * is none. */
bool failure_read_json(struct json_object *o, struct failure *ret);

#endif
