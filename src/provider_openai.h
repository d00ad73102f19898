/* provider_openai.h - what OpenAI's two APIs have in common. */
#ifndef RESPOOL_PROVIDER_OPENAI_H
#define RESPOOL_PROVIDER_OPENAI_H

#include <stdbool.h>
#include "answer.h"
#include "sse.h"

struct json_object;

/* Tells the usage object of either, when it is one. */
void openai_usage(struct answer *a, struct json_object *usage);

/* The event that ends a stream of chat completions, "[DONE]". */
bool openai_is_done(const struct sse_event *ev);

#endif
