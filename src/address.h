/* address.h - where a request comes from.  Pure. */
#ifndef RESPOOL_ADDRESS_H
#define RESPOOL_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

/* In network order; one of IPv4 as ::ffff:192.0.2.1. */
struct address {
	unsigned char bytes[16];
};

/* An address of IPv4 or IPv6, the latter also in brackets; a port after it
 * is passed over.  False: it is none. */
bool address_parse(const char *p, size_t n, struct address *ret);

/* True when a is one of the words between spaces or in one of them: addresses
 * and networks (10.0.0.0/8, fd00::/8).  Words that are neither match
 * nothing. */
bool address_in(const struct address *a, const char *networks);

/* The first word that is neither, or NULL; *ret_len: its length. */
const char *address_bad_word(const char *networks, size_t *ret_len);

/* Whose request it is: the peer's (REMOTE_ADDR), or where that is a trusted
 * proxy, the last one in forwarded (X-Forwarded-For) that is not trusted; the
 * first one when all are.  Either may be NULL.  False: not known, as the peer
 * or what a trusted proxy says is no address. */
bool address_client(const char *peer, const char *forwarded,
    const char *trusted, struct address *ret);

/* What limits count it by: 16 hexadecimal digits of the SHA-256 of the
 * address, of IPv6 of its first 64 bits, and a NUL. */
#define ADDRESS_KEY_SIZE 17
void address_key(const struct address *a, char ret[ADDRESS_KEY_SIZE]);

#endif
