/* fuzz.h - what the fuzz targets share.  A target is run with a directory of
 * inputs, tests/corpus/NAME; HACKING.md says how.  Some work in a directory
 * of their own: the names of files on their command line begin with a '/'. */
#ifndef RESPOOL_FUZZ_H
#define RESPOOL_FUZZ_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include "spool.h"

/* libFuzzer's: the first one runs once, the second one for each input. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What ck_assert does in the fixtures when it fails is defined in fuzz.c:
 * there is no runner to tell. */

/* A file in memory with these bytes; its path, valid until the next call. */
const char *fuzz_file(const void *p, size_t n);

/* Removes today's usage lines, which would pile up. */
void fuzz_forget_usage(const struct spool *sp);

/* The descriptor that comes next: the same before and after an input. */
int fuzz_next_fd(void);

#endif
