/* text.h - UTF-8, hexadecimal digests, random names. */
#ifndef RESPOOL_TEXT_H
#define RESPOOL_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#define SHA256_HEX_SIZE 65

/* Valid UTF-8: no surrogates, no overlong forms, nothing above U+10FFFF. */
bool utf8_valid(const char *p, size_t n);

/* The length of the character that begins at p (1 to 4), or 0 when the n
 * bytes there do not begin with a whole valid one. */
size_t utf8_char(const char *p, size_t n);

/* The largest length <= max at which text of n bytes can be cut without
 * cutting a character; max itself where the text is not UTF-8 there. */
size_t utf8_cut(const char *p, size_t n, size_t max);

/* Lower-case hexadecimal SHA-256. */
void sha256_hex(const void *p, size_t n, char ret[SHA256_HEX_SIZE]);

/* Lower-case hexadecimal HMAC-SHA256 (RFC 2104). */
void hmac_sha256_hex(const void *key, size_t key_len, const void *p, size_t n,
    char ret[SHA256_HEX_SIZE]);

/* 2 * bytes hexadecimal digits of randomness and a NUL. */
void random_hex(char *ret, size_t bytes);

#endif
