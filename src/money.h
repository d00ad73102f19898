/* money.h - cost in picodollars (1e-12 USD), integers throughout. */
#ifndef RESPOOL_MONEY_H
#define RESPOOL_MONEY_H

#include <stddef.h>
#include <stdint.h>
#include "buf.h"
#include "err.h"

#define MONEY_UNKNOWN UINT64_MAX
#define MONEY_PER_USD UINT64_C(1000000000000)

/* The exact decimal number in USD, without exponent or trailing zeros:
 * 600000 is 0.0000006, 0 is 0, MONEY_UNKNOWN is null. */
void money_put(struct buf *b, uint64_t picodollars);

/* The way back, of what money_put writes; zeros may stand at the end of the
 * decimals.  RS_EINVAL for anything else. */
enum rs_err money_parse(const char *p, size_t n, uint64_t *ret);

/* Both saturate below MONEY_UNKNOWN, and are MONEY_UNKNOWN when an operand
 * is. */
uint64_t money_add(uint64_t a, uint64_t b);
uint64_t money_mul(uint64_t tokens, uint64_t price);

#endif
