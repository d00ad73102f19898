/* buf.h - a byte buffer with a hard maximum.
 * Errors stick: after the first one every add is a no-op, so that a writer
 * checks b.err once, at its end. */
#ifndef RESPOOL_BUF_H
#define RESPOOL_BUF_H

#include <stddef.h>
#include "err.h"

struct buf {
	char *data;	/* NUL-terminated when not NULL; may hold NULs */
	size_t len;	/* bytes, without that NUL */
	size_t cap;
	size_t max;	/* len never exceeds it */
	enum rs_err err; /* RS_OK, RS_ENOMEM, RS_ETOOBIG */
};

/* Allocates nothing. */
void buf_init(struct buf *b, size_t max);
/* Frees the memory; b may be used again after buf_init. */
void buf_done(struct buf *b);
/* Empties b and forgets the error; keeps the memory. */
void buf_clear(struct buf *b);

/* Each adds all of it or nothing. */
void buf_add(struct buf *b, const void *p, size_t n);
void buf_puts(struct buf *b, const char *s);
void buf_printf(struct buf *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Removes the first n <= len bytes. */
void buf_drop(struct buf *b, size_t n);

#endif
