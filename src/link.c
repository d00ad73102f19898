/* link.c - read links: making them, and what one opens. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fdio.h"
#include "link.h"
#include "spool_impl.h"
#include "text.h"

#define SECRET_NAME "link.secret"
#define SECRET_TMP ".link.secret"
#define SECRET_LEN 32
#define EXPIRES_LEN 16
#define OWNER_LEN 16
#define SEAL_LEN 32
#define TEXT_SIZE 256

/* The parts of a link, as texts. */
struct link_parts {
	char expires[EXPIRES_LEN + 1];
	char owner[OWNER_LEN + 1];
	char seal[SEAL_LEN + 1];
};

static enum rs_err
secret_read(const struct spool *sp, unsigned char ret[SECRET_LEN])
{
	unsigned char bytes[SECRET_LEN + 1];
	struct stat st;
	enum rs_err err;
	size_t n;
	int fd;

	err = spool_file_open(sp, sp->fd, SECRET_NAME, O_RDONLY, &fd, &st);
	if (err != RS_OK)
		return err;
	err = fd_pread_full(fd, bytes, sizeof bytes, 0, &n);
	close(fd);
	if (err == RS_OK && n != SECRET_LEN)
		err = RS_ECORRUPT;
	if (err == RS_OK)
		memcpy(ret, bytes, SECRET_LEN);
	return err;
}

enum rs_err
link_secret_make(const struct spool *sp)
{
	unsigned char secret[SECRET_LEN];
	enum rs_err err = secret_read(sp, secret);
	int fd;

	if (err != RS_ENOENT)
		return err;
	if (getentropy(secret, sizeof secret) < 0)
		abort(); /* as random_hex does */
	unlinkat(sp->fd, SECRET_TMP, 0); /* of who died here */
	fd = openat(sp->fd, SECRET_TMP, O_WRONLY | O_CREAT | O_EXCL |
	    O_NOFOLLOW | O_CLOEXEC, spool_file_mode(sp));
	if (fd < 0)
		return rs_from_errno(errno);
	err = spool_file_own(sp, fd);
	if (err == RS_OK)
		err = fd_write_full(fd, secret, sizeof secret);
	/* It must not come back empty after a power loss, as it is for good. */
	if (err == RS_OK && (fsync(fd) < 0 ||
	    renameat(sp->fd, SECRET_TMP, sp->fd, SECRET_NAME) < 0))
		err = rs_from_errno(errno);
	close(fd);
	if (err != RS_OK)
		unlinkat(sp->fd, SECRET_TMP, 0);
	return err;
}

static void
seal_put(const unsigned char secret[SECRET_LEN], const char *expires,
    const struct stream_key *k, int64_t created_ms, char ret[SEAL_LEN + 1])
{
	char text[TEXT_SIZE], hex[SHA256_HEX_SIZE];
	int n;

	n = snprintf(text, sizeof text, "seal %s %s %s %" PRId64, expires,
	    k->owner_hash, k->id, created_ms);
	hmac_sha256_hex(secret, SECRET_LEN, text, (size_t)n, hex);
	snprintf(ret, SEAL_LEN + 1, "%.*s", SEAL_LEN, hex);
}

static unsigned
hex_value(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* Masks a hash, or takes the mask off. */
static void
owner_mask(const unsigned char secret[SECRET_LEN], const struct link_parts *p,
    const char *id, const char *owner, char ret[OWNER_LEN + 1])
{
	char text[TEXT_SIZE], hex[SHA256_HEX_SIZE];
	int i, n;

	n = snprintf(text, sizeof text, "mask %s %s %s", p->expires, p->seal,
	    id);
	hmac_sha256_hex(secret, SECRET_LEN, text, (size_t)n, hex);
	for (i = 0; i < OWNER_LEN; i++)
		ret[i] = "0123456789abcdef"[hex_value(owner[i]) ^
		    hex_value(hex[i])];
	ret[OWNER_LEN] = '\0';
}

enum rs_err
link_make(const struct spool *sp, const struct stream_key *k,
    int64_t created_ms, int64_t expires_s, char ret[LINK_SIZE])
{
	unsigned char secret[SECRET_LEN];
	struct link_parts p;
	enum rs_err err = secret_read(sp, secret);

	if (err != RS_OK)
		return err;
	snprintf(p.expires, sizeof p.expires, "%" PRIx64, (uint64_t)expires_s);
	seal_put(secret, p.expires, k, created_ms, p.seal);
	owner_mask(secret, &p, k->id, k->owner_hash, p.owner);
	snprintf(ret, LINK_SIZE, "%s.%s.%s", p.expires, p.owner, p.seal);
	return RS_OK;
}

/* Takes min to max digits from *link on, and what must follow them. */
static bool
part_take(const char **link, const char *end, size_t min, size_t max,
    char next, char *ret)
{
	size_t n = 0;
	const char *p = *link;

	while (p + n < end && n < max && ((p[n] >= '0' && p[n] <= '9') ||
	    (p[n] >= 'a' && p[n] <= 'f')))
		n++;
	if (n < min || (next != '\0' ? p + n == end || p[n] != next :
	    p + n != end))
		return false;
	memcpy(ret, p, n);
	ret[n] = '\0';
	*link = p + n + (next != '\0');
	return true;
}

/* In a time that does not tell how much of them is equal. */
static bool
seal_equal(const char *a, const char *b)
{
	volatile unsigned char differ = 0;
	int i;

	for (i = 0; i < SEAL_LEN; i++)
		differ |= (unsigned char)(a[i] ^ b[i]);
	return differ == 0;
}

enum rs_err
link_open(struct spool *sp, const char *link, size_t len, const char *id,
    int64_t now_s, struct spool_reader *ret)
{
	const char *end = link + len;
	unsigned char secret[SECRET_LEN];
	struct stream_key k = { .id = "" };
	struct spool_reader sr;
	char seal[SEAL_LEN + 1];
	struct link_parts p;
	enum rs_err err;

	if (!part_take(&link, end, 1, EXPIRES_LEN, '.', p.expires) ||
	    !part_take(&link, end, OWNER_LEN, OWNER_LEN, '.', p.owner) ||
	    !part_take(&link, end, SEAL_LEN, SEAL_LEN, '\0', p.seal))
		return RS_ENOENT;
	if ((err = secret_read(sp, secret)) != RS_OK)
		return err;
	snprintf(k.id, sizeof k.id, "%s", id);
	owner_mask(secret, &p, k.id, p.owner, k.owner_hash);
	if ((err = spool_find(sp, &k, &sr)) != RS_OK)
		return err;
	seal_put(secret, p.expires, &k, sr.head.created_ms, seal);
	if (!seal_equal(seal, p.seal) ||
	    strtoull(p.expires, NULL, 16) <= (uint64_t)now_s) {
		spool_reader_done(&sr);
		return RS_ENOENT;
	}
	*ret = sr;
	return RS_OK;
}
