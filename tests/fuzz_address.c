/* fuzz_address.c - a peer, its proxies' words and the networks that are
 * trusted: each up to a line end. */
#include <arpa/inet.h>
#include <netinet/in.h>

#include <stdlib.h>
#include <string.h>

#include "address.h"
#include "fuzz.h"

/* One line of the input as a string of its own. */
static char *
line_take(const uint8_t **p, size_t *n)
{
	const uint8_t *end = memchr(*p, '\n', *n);
	size_t len = end != NULL ? (size_t)(end - *p) : *n;
	char *line = malloc(len + 1);

	memcpy(line, *p, len);
	line[len] = '\0';
	*p += end != NULL ? len + 1 : len;
	*n -= end != NULL ? len + 1 : len;
	return line;
}

/* What it takes, the C library writes down so that it takes it again. */
static void
check_address(const struct address *a)
{
	char text[INET6_ADDRSTRLEN], key[ADDRESS_KEY_SIZE];
	struct address again;

	assert(inet_ntop(AF_INET6, a->bytes, text, sizeof text) != NULL);
	assert(address_parse(text, strlen(text), &again));
	assert(memcmp(a, &again, sizeof again) == 0);
	assert(address_in(a, text) && address_in(a, "::/0"));
	address_key(a, key);
	assert(strlen(key) == ADDRESS_KEY_SIZE - 1);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	char *peer = line_take(&p, &n), *trusted = line_take(&p, &n);
	char *forwarded = line_take(&p, &n);
	struct address a;
	const char *bad;
	size_t len = 0;

	bad = address_bad_word(trusted, &len);
	assert(bad == NULL || (len > 0 && bad >= trusted &&
	    bad + len <= trusted + strlen(trusted)));
	if (address_client(peer, forwarded, trusted, &a)) {
		check_address(&a);
		assert(address_client(peer, NULL, trusted, &a));
	}
	if (address_client(peer, forwarded, "", &a)) {
		check_address(&a);
		assert(address_parse(peer, strlen(peer), &a));
	}
	free(peer);
	free(trusted);
	free(forwarded);
	return 0;
}
