/* jx.h - JSON: strict parsing with json-c, and writing into a buf. */
#ifndef RESPOOL_JX_H
#define RESPOOL_JX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "buf.h"
#include "err.h"

struct json_object;

#define JX_DEPTH_MAX 32

/* Parses one whole JSON text: valid UTF-8, RFC 8259 syntax, at most
 * JX_DEPTH_MAX deep, nothing but white space after it, no name twice in an
 * object.  *ret is the caller's (json_object_put).
 * RS_OK; RS_EINVAL with *ret_why a static text; RS_ENOMEM. */
enum rs_err jx_parse(const char *p, size_t n, struct json_object **ret,
    const char **ret_why);

/* The line, from 1, where a text that jx_parse did not take stops being JSON;
 * 0 for what only jx_parse minds. */
unsigned jx_fault_line(const char *p, size_t n);

/* Whether jx_parse would take it, names twice and NULs in names apart;
 * much cheaper, as nothing is built. */
bool jx_valid(const char *p, size_t n);

/* Members of an object.  RS_OK; RS_ENOENT: not there or null; RS_EINVAL:
 * another type.  Strings are lent, with their length (they may hold NULs). */
enum rs_err jx_get_str(struct json_object *o, const char *name,
    const char **ret, size_t *ret_len);
/* An integer >= 0; RS_EINVAL also for negative and fractional numbers. */
enum rs_err jx_get_uint(struct json_object *o, const char *name, uint64_t *ret);
enum rs_err jx_get_bool(struct json_object *o, const char *name, bool *ret);

/* Writes a JSON string with its quotes: controls, '"' and '\' escaped, so
 * that it has neither line ends nor NULs; U+2028/9 stay as they are; each
 * byte that is not UTF-8 becomes U+FFFD. */
void jx_put_str(struct buf *b, const char *p, size_t n);
/* Writes any value, without spaces; its numbers as they were parsed.  (What
 * json-c writes when memory is short lacks parts, and nobody is told.) */
void jx_put(struct buf *b, struct json_object *o);

#endif
