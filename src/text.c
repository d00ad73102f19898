/* text.c - UTF-8, hexadecimal digests, random names. */
#include <sha2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "text.h"

size_t
utf8_char(const char *p, size_t n)
{
	const unsigned char *u = (const unsigned char *)p;
	unsigned char low = 0x80, high = 0xbf; /* of the second byte */
	size_t i, len;

	if (n == 0)
		return 0;
	if (u[0] < 0x80)
		return 1;
	if (u[0] < 0xc2 || u[0] > 0xf4)
		return 0;
	len = u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;
	if (n < len)
		return 0;
	if (u[0] == 0xe0)
		low = 0xa0; /* below: overlong */
	else if (u[0] == 0xed)
		high = 0x9f; /* above: surrogates */
	else if (u[0] == 0xf0)
		low = 0x90; /* below: overlong */
	else if (u[0] == 0xf4)
		high = 0x8f; /* above: over U+10FFFF */
	if (u[1] < low || u[1] > high)
		return 0;
	for (i = 2; i < len; i++)
		if ((u[i] & 0xc0) != 0x80)
			return 0;
	return len;
}

bool
utf8_valid(const char *p, size_t n)
{
	size_t i, len;

	for (i = 0; i < n; i += len)
		if ((len = utf8_char(p + i, n - i)) == 0)
			return false;
	return true;
}

size_t
utf8_cut(const char *p, size_t n, size_t max)
{
	size_t back, len;

	if (n <= max)
		return n;
	for (back = 1; back <= 3 && back <= max; back++) {
		len = utf8_char(p + max - back, n - max + back);
		if (len > 0)
			return len > back ? max - back : max;
	}
	return max;
}

static void
hex_put(char *ret, const uint8_t *p, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	size_t i;

	for (i = 0; i < n; i++) {
		ret[2 * i] = digits[p[i] >> 4];
		ret[2 * i + 1] = digits[p[i] & 15];
	}
	ret[2 * n] = '\0';
}

void
sha256_hex(const void *p, size_t n, char ret[SHA256_HEX_SIZE])
{
	uint8_t digest[SHA256_DIGEST_LENGTH];
	SHA2_CTX ctx;

	SHA256Init(&ctx);
	SHA256Update(&ctx, p, n);
	SHA256Final(digest, &ctx);
	hex_put(ret, digest, sizeof digest);
}

/* One of HMAC's two hashes: of the key, masked, and then what follows. */
static void
hmac_half(const uint8_t key[SHA256_BLOCK_LENGTH], uint8_t mask, const void *p,
    size_t n, uint8_t ret[SHA256_DIGEST_LENGTH])
{
	uint8_t pad[SHA256_BLOCK_LENGTH];
	SHA2_CTX ctx;
	size_t i;

	for (i = 0; i < sizeof pad; i++)
		pad[i] = key[i] ^ mask;
	SHA256Init(&ctx);
	SHA256Update(&ctx, pad, sizeof pad);
	SHA256Update(&ctx, p, n);
	SHA256Final(ret, &ctx);
}

void
hmac_sha256_hex(const void *key, size_t key_len, const void *p, size_t n,
    char ret[SHA256_HEX_SIZE])
{
	uint8_t block[SHA256_BLOCK_LENGTH] = { 0 };
	uint8_t digest[SHA256_DIGEST_LENGTH];
	SHA2_CTX ctx;

	if (key_len > sizeof block) {
		SHA256Init(&ctx);
		SHA256Update(&ctx, key, key_len);
		SHA256Final(block, &ctx);
	} else {
		memcpy(block, key, key_len);
	}
	hmac_half(block, 0x36, p, n, digest);
	hmac_half(block, 0x5c, digest, sizeof digest, digest);
	hex_put(ret, digest, sizeof digest);
}

void
random_hex(char *ret, size_t bytes)
{
	uint8_t raw[32];
	size_t n;

	ret[0] = '\0';
	for (; bytes > 0; bytes -= n, ret += 2 * n) {
		n = bytes < sizeof raw ? bytes : sizeof raw;
		/* Names that can be guessed would be worse than a crash. */
		if (getentropy(raw, n) < 0)
			abort();
		hex_put(ret, raw, n);
	}
}
