/* link.h - read links: who has one may read that one stream, until a time.
 *
 *	EXPIRES.OWNER.SEAL
 *		EXPIRES: Unix time, hexadecimal
 *		OWNER: the owner's hash, 16 hexadecimal digits, xor a mask
 *			that is made of the rest: owners can be guessed, and
 *			so could what their hash stands for
 *		SEAL: the first 32 hexadecimal digits of the HMAC-SHA256 of
 *			expiry, owner's hash, the stream's id and when it was
 *			created: so a link dies with its stream, and is none to
 *			a later one with the same id
 *
 * Nothing is kept of a link.  The key is SPOOL/link.secret, 32 random bytes,
 * made by the mutator and never replaced while it is there: to remove it
 * revokes all links, once the next spooler has made another one. */
#ifndef RESPOOL_LINK_H
#define RESPOOL_LINK_H

#include <stddef.h>
#include <stdint.h>
#include "err.h"
#include "spool.h"

#define LINK_SIZE (16 + 1 + 16 + 1 + 32 + 1)

/* Makes the secret if there is none.  Mutator only.  RS_OK; RS_ECORRUPT: what
 * is there is none; RS_ENOSPC, RS_EIO. */
enum rs_err link_secret_make(const struct spool *sp);

/* The link to a stream.  RS_ENOENT: there is no secret yet; RS_ECORRUPT,
 * RS_EIO. */
enum rs_err link_make(const struct spool *sp, const struct stream_key *k,
    int64_t created_ms, int64_t expires_s, char ret[LINK_SIZE]);

/* Opens the stream that a link of len bytes is for; id is valid, now_s Unix
 * time.  RS_OK: spool_reader_done; RS_ENOENT: it is no link to that stream, or
 * no longer, or there is no such stream; RS_ECORRUPT, RS_EIO. */
enum rs_err link_open(struct spool *sp, const char *link, size_t len,
    const char *id, int64_t now_s, struct spool_reader *ret);

#endif
