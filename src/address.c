/* address.c - addresses and networks. */
#include <arpa/inet.h>
#include <netinet/in.h>

#include <string.h>

#include "address.h"
#include "text.h"

#define WORD_MAX 64	/* bytes of the longest address, with room */
static const char space[] = " \t";

/* The address alone: without brackets and port. */
static void
address_bare(const char **p, size_t *n)
{
	const char *end = memchr(*p, ']', *n);
	const char *colon = memchr(*p, ':', *n);

	if (*n > 0 && **p == '[' && end != NULL) {
		(*p)++;
		*n = (size_t)(end - *p);
	} else if (colon != NULL && memchr(colon + 1, ':',
	    *n - (size_t)(colon + 1 - *p)) == NULL) {
		*n = (size_t)(colon - *p);
	}
}

bool
address_parse(const char *p, size_t n, struct address *ret)
{
	struct address a = { { [10] = 0xff, 0xff } };
	char word[WORD_MAX];

	address_bare(&p, &n);
	if (n >= sizeof word || memchr(p, '\0', n) != NULL)
		return false;
	memcpy(word, p, n);
	word[n] = '\0';
	if (inet_pton(AF_INET, word, a.bytes + 12) != 1 &&
	    inet_pton(AF_INET6, word, a.bytes) != 1)
		return false;
	*ret = a;
	return true;
}

/* An address, or a network with the number of bits that count. */
static bool
network_parse(const char *p, size_t n, struct address *ret, unsigned *ret_bits)
{
	const char *slash = memchr(p, '/', n);
	size_t len = slash != NULL ? (size_t)(slash - p) : n;
	bool v4 = memchr(p, ':', len) == NULL;
	unsigned bits = 0, most = v4 ? 32 : 128;
	const char *end = p + n;

	if (slash == NULL)
		bits = most;
	else if (++slash == end)
		return false;
	else
		for (; slash < end; slash++) {
			if (*slash < '0' || *slash > '9')
				return false;
			bits = bits * 10 + (unsigned)(*slash - '0');
			if (bits > most)
				return false;
		}
	*ret_bits = bits + 128 - most;
	return address_parse(p, len, ret);
}

static bool
same_bits(const struct address *a, const struct address *b, unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;

	return memcmp(a->bytes, b->bytes, whole) == 0 && (rest == 0 ||
	    (a->bytes[whole] ^ b->bytes[whole]) >> (8 - rest) == 0);
}

bool
address_in(const struct address *a, const char *networks)
{
	struct address network;
	unsigned bits;
	size_t n;

	for (;; networks += n) {
		networks += strspn(networks, space);
		if ((n = strcspn(networks, space)) == 0)
			return false;
		if (network_parse(networks, n, &network, &bits) &&
		    same_bits(a, &network, bits))
			return true;
	}
}

const char *
address_bad_word(const char *networks, size_t *ret_len)
{
	struct address network;
	unsigned bits;
	size_t n;

	for (;; networks += n) {
		networks += strspn(networks, space);
		if ((n = strcspn(networks, space)) == 0)
			return NULL;
		if (!network_parse(networks, n, &network, &bits)) {
			*ret_len = n;
			return networks;
		}
	}
}

/* Takes the last entry of a list between commas; *n is what is before it. */
static bool
list_last(const char *list, size_t *n, struct address *ret)
{
	size_t begin, end = *n;

	while (end > 0 && strchr(space, list[end - 1]) != NULL)
		end--;
	for (begin = end; begin > 0 && list[begin - 1] != ','; begin--)
		continue;
	*n = begin > 0 ? begin - 1 : 0;
	while (begin < end && strchr(space, list[begin]) != NULL)
		begin++;
	return address_parse(list + begin, end - begin, ret);
}

bool
address_client(const char *peer, const char *forwarded, const char *trusted,
    struct address *ret)
{
	struct address a;
	size_t n = forwarded != NULL ? strlen(forwarded) : 0;

	if (peer == NULL || !address_parse(peer, strlen(peer), &a))
		return false;
	while (n > 0 && address_in(&a, trusted))
		if (!list_last(forwarded, &n, &a))
			return false;
	*ret = a;
	return true;
}

void
address_key(const struct address *a, char ret[ADDRESS_KEY_SIZE])
{
	static const struct address v4 = { { [10] = 0xff, 0xff } };
	char hex[SHA256_HEX_SIZE];

	sha256_hex(a->bytes, same_bits(a, &v4, 96) ? 16 : 8, hex);
	memcpy(ret, hex, ADDRESS_KEY_SIZE - 1);
	ret[ADDRESS_KEY_SIZE - 1] = '\0';
}
