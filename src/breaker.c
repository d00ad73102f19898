/* breaker.c - circuits of models. */
#include <stdlib.h>
#include <string.h>

#include "breaker.h"

struct circuit {
	struct circuit *next;
	uint64_t failed_ns[BREAKER_FAILURES]; /* the last ones, in a ring */
	unsigned count, pos;
	bool open;
	bool trial;		/* one is under way */
	uint64_t opened_ns;
	char model[];
};

void
breakers_done(struct breakers *b)
{
	struct circuit *c;

	while ((c = b->first) != NULL) {
		b->first = c->next;
		free(c);
	}
}

static struct circuit *
circuit_find(struct breakers *b, const char *model)
{
	struct circuit *c = b->first;

	while (c != NULL && strcmp(c->model, model) != 0)
		c = c->next;
	return c;
}

bool
breaker_allows(struct breakers *b, const char *model, uint64_t now_ns,
    bool *ret_trial)
{
	struct circuit *c = circuit_find(b, model);

	*ret_trial = false;
	if (c == NULL || !c->open)
		return true;
	if (c->trial || now_ns - c->opened_ns < BREAKER_OPEN_NS)
		return false;
	*ret_trial = c->trial = true;
	return true;
}

/* Only models that have failed have a circuit.  What was asked before it
 * opened and ends late is no news, here and below. */
void
breaker_worked(struct breakers *b, const char *model, bool trial)
{
	struct circuit **p = &b->first, *c = circuit_find(b, model);

	if (c == NULL || (c->open && !trial))
		return;
	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	free(c);
}

bool
breaker_failed(struct breakers *b, const char *model, bool trial,
    uint64_t now_ns)
{
	struct circuit *c = circuit_find(b, model);

	if (c == NULL) {
		/* Without memory one failure less is counted. */
		c = calloc(1, sizeof *c + strlen(model) + 1);
		if (c == NULL)
			return false;
		strcpy(c->model, model);
		c->next = b->first;
		b->first = c;
	}
	if (c->open && !trial)
		return false;
	c->failed_ns[c->pos] = now_ns;
	c->pos = (c->pos + 1) % BREAKER_FAILURES;
	if (c->count < BREAKER_FAILURES)
		c->count++;
	if (!trial && (c->count < BREAKER_FAILURES ||
	    now_ns - c->failed_ns[c->pos] > BREAKER_WINDOW_NS))
		return false;
	c->open = true;
	c->trial = false;
	c->opened_ns = now_ns;
	return true;
}

void
breaker_forget(struct breakers *b, const char *model, bool trial)
{
	struct circuit *c = circuit_find(b, model);

	if (c != NULL && trial)
		c->trial = false;
}
