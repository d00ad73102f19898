/* breaker.h - circuits: a model that keeps failing is left alone for a while.
 * BREAKER_FAILURES failures within BREAKER_WINDOW_NS open a model's circuit
 * for BREAKER_OPEN_NS; then one trial decides. */
#ifndef RESPOOL_BREAKER_H
#define RESPOOL_BREAKER_H

#include <stdbool.h>
#include <stdint.h>
#include "clock.h"

#define BREAKER_FAILURES 5
#define BREAKER_WINDOW_NS (60 * NS_PER_S)
#define BREAKER_OPEN_NS (30 * NS_PER_S)

struct circuit;

/* By the names of models, so that it outlives a change of the models file.
 * Zeroed is empty. */
struct breakers {
	struct circuit *first;
};
void breakers_done(struct breakers *b);

/* May the model be asked now?  After true exactly one of the other three must
 * follow, with what *ret_trial said: this one decides. */
bool breaker_allows(struct breakers *b, const char *model, uint64_t now_ns,
    bool *ret_trial);
/* It answered; ... */
void breaker_worked(struct breakers *b, const char *model, bool trial);
/* ... it did not; true: this opened the circuit; ... */
bool breaker_failed(struct breakers *b, const char *model, bool trial,
    uint64_t now_ns);
/* ... nobody knows, since we left or the request was to blame. */
void breaker_forget(struct breakers *b, const char *model, bool trial);

#endif
