/* provider.h - what a provider knows; the rest of a generation is gen.c's.
 * No I/O here. */
#ifndef RESPOOL_PROVIDER_H
#define RESPOOL_PROVIDER_H

#include <stdint.h>
#include "delta.h"
#include "err.h"
#include "model.h"

struct json_object;

/* The demo provider: no network; text, pace and faults from the model's
 * entry.  It counts a word of the messages as one input token, a chunk as one
 * output token, and reports both as usage before it finishes. */
struct demo;

/* messages: the JSON array of {role, content} of the request; lent for the
 * call.  script must outlive *ret.  RS_OK, RS_ENOMEM. */
enum rs_err demo_new(const struct demo_script *script,
    struct json_object *messages, struct demo **ret);
void demo_free(struct demo *d);

/* Milliseconds from the generation's start to the next delta; the same until
 * demo_next is called.  DEMO_NEVER: it hangs. */
uint64_t demo_due_ms(const struct demo *d);

/* The next delta; the last one is DELTA_FINISH or DELTA_ERROR, after which it
 * must not be called.  What *ret lends is valid until the next call. */
void demo_next(struct demo *d, struct delta *ret);

#endif
