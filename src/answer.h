/* answer.h - an upstream's response, bytes in, deltas out; no I/O.
 * What all providers' readers share: framing (Server-Sent Events, lines), JSON
 * bodies that come where a stream was asked for, characters that were cut
 * between two deltas, and errors, told once. */
#ifndef RESPOOL_ANSWER_H
#define RESPOOL_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "delta.h"
#include "err.h"

struct json_object;
struct provider;
struct answer;

/* Of one event, and of a JSON body in place of a stream.  More is
 * upstream_bad_json. */
#define ANSWER_EVENT_MAX (8 << 20)

/* Deltas go to fn, in order; the last one is DELTA_FINISH or DELTA_ERROR.
 * What a delta lends is valid during the call.  fn must not free the answer.
 * RS_OK, RS_ENOMEM. */
enum rs_err answer_new(const struct provider *p,
    void (*fn)(void *arg, const struct delta *d), void *arg,
    struct answer **ret);
void answer_free(struct answer *a);

/* The next bytes of the body of a response whose status was 200, whatever its
 * content type: many lie about it. */
void answer_feed(struct answer *a, const char *p, size_t n);

/* The body has ended.  whole: as HTTP says that it should; else it was cut.
 * There has been a DELTA_FINISH or DELTA_ERROR when this returns. */
void answer_end(struct answer *a, bool whole);

/* The last delta was told: what still comes is of no interest. */
bool answer_over(const struct answer *a);

/* ---- for providers ---- */

/* Text of any bytes; what is told is valid UTF-8.  The halves of a character,
 * be they UTF-8 bytes or surrogates (answer_parse), meet even when two events
 * hold them. */
void answer_text(struct answer *a, enum delta_kind kind, const char *p,
    size_t n);
/* The member of that name, when it is a string. */
void answer_member(struct answer *a, enum delta_kind kind,
    struct json_object *o, const char *name);

/* A piece of a tool call.  index: the upstream's own or any number that names
 * it within this answer; clients see 0, 1, 2 in order of appearance.  id and
 * name: NULL, or as far as known; clients see each once. */
void answer_tool(struct answer *a, uint64_t index, const char *id,
    const char *name, const char *arguments, size_t len);
/* A whole call.  arguments: what is no object counts as an empty one. */
void answer_tool_json(struct answer *a, uint64_t index, const char *id,
    const char *name, struct json_object *arguments);
/* How many tool calls there have been. */
size_t answer_tools(const struct answer *a);
/* Bytes of arguments that the call of that index has so far; SIZE_MAX: there
 * is no such call. */
size_t answer_tool_len(const struct answer *a, uint64_t index);

/* What was used; replaces what was said before.  cost: decimal USD or NULL. */
void answer_usage(struct answer *a, const struct usage *u, const char *cost);
/* What answer_usage was told last, all TOKENS_UNKNOWN before. */
const struct usage *answer_usage_peek(const struct answer *a);

/* A reason to finish, which takes effect at answer_finish(). */
void answer_reason(struct answer *a, enum finish finish, const char *native);
bool answer_has_reason(const struct answer *a);
/* The answer is whole; without a reason it is FINISH_UNKNOWN. */
void answer_finish(struct answer *a);

/* The answer ends here, with an error of ours ... */
void answer_fail(struct answer *a, enum errtype type);
/* ... or with the upstream's: any of the shapes that failure.h knows.  False:
 * o has no error, and nothing happened. */
bool answer_fail_json(struct answer *a, struct json_object *o);
/* ... or with one whose words are known. */
void answer_fail_words(struct answer *a, enum errtype type,
    const char *upstream_type, const char *upstream_code,
    const char *message);

/* Parses an upstream's JSON: lenient (names may repeat, bytes need not be
 * UTF-8), at most 64 deep; escaped lone surrogates come out as the three bytes
 * that answer_text puts together again.  NULL, and the answer has failed with
 * upstream_bad_json, when it is none.  The caller's (json_object_put). */
struct json_object *answer_parse(struct answer *a, const char *p, size_t n);

#endif
