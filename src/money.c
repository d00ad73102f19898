/* money.c - cost in picodollars (1e-12 USD), integers throughout. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "money.h"

#define DECIMALS 12

void
money_put(struct buf *b, uint64_t picodollars)
{
	char text[2 + 20 + DECIMALS];
	int len;

	if (picodollars == MONEY_UNKNOWN) {
		buf_puts(b, "null");
		return;
	}
	len = snprintf(text, sizeof text, "%" PRIu64 ".%0*" PRIu64,
	    picodollars / MONEY_PER_USD, DECIMALS, picodollars % MONEY_PER_USD);
	while (text[len - 1] == '0')
		len--;
	if (text[len - 1] == '.')
		len--;
	buf_add(b, text, (size_t)len);
}

enum rs_err
money_parse(const char *p, size_t n, uint64_t *ret)
{
	uint64_t sum = 0;
	size_t i, decimals = 0;
	bool point = false;

	if (n == 4 && memcmp(p, "null", 4) == 0) {
		*ret = MONEY_UNKNOWN;
		return RS_OK;
	}
	if (n == 0 || p[0] == '.' || (n > 1 && p[0] == '0' && p[1] != '.'))
		return RS_EINVAL;
	for (i = 0; i < n; i++) {
		if (p[i] == '.' && !point) {
			point = true;
			continue;
		}
		if (p[i] < '0' || p[i] > '9')
			return RS_EINVAL;
		decimals += point;
		if (__builtin_mul_overflow(sum, UINT64_C(10), &sum) ||
		    __builtin_add_overflow(sum, (uint64_t)(p[i] - '0'), &sum))
			return RS_EINVAL;
	}
	if (p[n - 1] == '.' || decimals > DECIMALS)
		return RS_EINVAL;
	for (; decimals < DECIMALS; decimals++)
		if (__builtin_mul_overflow(sum, UINT64_C(10), &sum))
			return RS_EINVAL;
	if (sum == MONEY_UNKNOWN)
		return RS_EINVAL;
	*ret = sum;
	return RS_OK;
}

uint64_t
money_add(uint64_t a, uint64_t b)
{
	uint64_t sum;

	if (a == MONEY_UNKNOWN || b == MONEY_UNKNOWN)
		return MONEY_UNKNOWN;
	if (__builtin_add_overflow(a, b, &sum) || sum == MONEY_UNKNOWN)
		return MONEY_UNKNOWN - 1;
	return sum;
}

uint64_t
money_mul(uint64_t tokens, uint64_t price)
{
	uint64_t product;

	if (tokens == MONEY_UNKNOWN || price == MONEY_UNKNOWN)
		return MONEY_UNKNOWN;
	if (__builtin_mul_overflow(tokens, price, &product) ||
	    product == MONEY_UNKNOWN)
		return MONEY_UNKNOWN - 1;
	return product;
}
