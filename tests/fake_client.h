/* fake_client.h - client.h over memory: what a test asks, and what came. */
#ifndef RESPOOL_FAKE_CLIENT_H
#define RESPOOL_FAKE_CLIENT_H

#include <stdbool.h>
#include "buf.h"
#include "client.h"

enum fake_end { FAKE_OPEN, FAKE_FINISHED, FAKE_ABORTED };

/* What the last client made got; valid until the next one is made. */
struct fake_answer {
	struct buf out;
	enum fake_end end;
};
extern struct fake_answer fake_answer;

struct client *fake_client_new(const char *method);
/* Copied. */
void fake_client_env(struct client *c, const char *name, const char *value);
/* Copied; err is what reading it comes to in the end. */
void fake_client_body(struct client *c, const char *type, const void *p,
    size_t n, enum rs_err err);
/* From now on, writing fails. */
void fake_client_leave(struct client *c);

/* Of the answer: its status, 0 when there is none; a header's value, "" when
 * it is missing, valid until the next call; what is after the head. */
int fake_status(void);
const char *fake_header(const char *name);
const char *fake_content(void);

#endif
