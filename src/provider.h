/* provider.h - what a provider knows; the rest of a generation is gen.c's.
 * No I/O here: a recorded response tests a provider. */
#ifndef RESPOOL_PROVIDER_H
#define RESPOOL_PROVIDER_H

#include <stdint.h>
#include "answer.h"
#include "delta.h"
#include "err.h"
#include "http.h"
#include "model.h"
#include "sse.h"

struct json_object;

/* What is asked. */
struct chat {
	const struct model *model;
	struct json_object *messages; /* [{role, content}, ...], texts; the
				 * role is system, user or assistant */
	struct json_object *parameters; /* of this chat: they win over the
				 * model's; an object, or NULL */
	const char *key;	/* NULL: none */
};

enum framing {
	FRAMING_SSE,	/* Server-Sent Events */
	FRAMING_LINES,	/* one JSON text a line; blank ones are skipped */
	FRAMING_TEXT_LINES, /* text; a line has its end with it */
	FRAMING_BYTES,	/* whatever comes */
};

/* An upstream API.  event, end and whole say what they find with
 * answer_text() and its neighbours, and are not called any more after
 * answer_finish() or answer_fail(). */
struct provider {
	enum framing framing;
	/* The POST request for a chat.  *ret has been initialised and stays
	 * the caller's.  RS_OK; RS_EINVAL: a parameter of the model cannot be
	 * used; RS_ENOMEM.  NULL: exec, whose prompt goes to a command. */
	enum rs_err (*request)(const struct chat *chat, struct http_req *ret);
	/* One event (SSE), line (its text is ev->data) or piece. */
	void (*event)(struct answer *a, const struct sse_event *ev);
	/* The response ended where it should, nothing follows.  Without a
	 * finish or a failure from here it was cut. */
	void (*end)(struct answer *a);
	/* The response was one JSON text where a stream was asked for: a
	 * whole answer; NULL where there is no such thing.  Errors were
	 * looked for already. */
	void (*whole)(struct answer *a, struct json_object *root);
};

/* NULL: demo, which is asked below.  By model, as exec reads its command's
 * output in one of three ways. */
const struct provider *provider_get(const struct model *m);

extern const struct provider provider_openai, provider_responses,
    provider_anthropic, provider_gemini, provider_ollama, provider_exec_text,
    provider_exec_lines, provider_exec_jsonl;

/* The Messages API wants a maximum, whatever the model's entry says. */
#define ANTHROPIC_MAX_TOKENS 4096

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
