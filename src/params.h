/* params.h - what a request asks: its query string and its body as one set of
 * names and values.  A name that the body has hides the query's, also when its
 * value there is null.  No I/O here. */
#ifndef RESPOOL_PARAMS_H
#define RESPOOL_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "buf.h"
#include "err.h"
#include "errtype.h"

struct json_object;
struct params;

#define PARAMS_MAX 256 /* names in a query or a form */

/* query and type (of the body) may be NULL or empty.  A body is JSON (one
 * object) or a form, as its type says; without a byte it may be of any type.
 * ERRTYPE_none; ERRTYPE_invalid_request: a name twice in one source, a bad
 * percent escape, not UTF-8, a NUL in a name, not JSON, not an object;
 * ERRTYPE_unsupported_media_type; ERRTYPE_internal: no memory.  *ret_why then
 * has a sentence, or nothing.  *ret: params_free. */
enum errtype params_parse(const char *query, const char *type,
    const struct buf *body, struct params **ret, struct buf *ret_why);
void params_free(struct params *p);

/* Each: RS_OK; RS_ENOENT: not given, or null; RS_EINVAL: of another type.
 * Strings are lent and terminated; they may hold NULs. */
enum rs_err params_str(const struct params *p, const char *name,
    const char **ret, size_t *ret_len);
/* A JSON integer; in a query or form, digits with an optional '-'.  RS_EINVAL
 * also for one that does not fit. */
enum rs_err params_int(const struct params *p, const char *name,
    int64_t *ret);
/* A JSON true or false; in a query or form, the same words. */
enum rs_err params_bool(const struct params *p, const char *name, bool *ret);
/* A JSON array, or object; in a query or form, its JSON text.  *ret is the
 * caller's (json_object_put). */
enum rs_err params_array(const struct params *p, const char *name,
    struct json_object **ret);
enum rs_err params_object(const struct params *p, const char *name,
    struct json_object **ret);

/* Digits with an optional '-'.  RS_OK or RS_EINVAL. */
enum rs_err params_int_parse(const char *p, size_t n, int64_t *ret);

/* Adds the text that percent escapes stand for; form: '+' is a space.
 * RS_OK; RS_EINVAL: a bad escape, or not UTF-8; RS_ETOOBIG, RS_ENOMEM. */
enum rs_err params_decode(const char *p, size_t n, bool form, struct buf *ret);

#endif
