/* ctl_usage.c - respoolctl usage. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "dialect.h"
#include "jx.h"
#include "money.h"
#include "usage.h"

#define LINE_SIZE_MAX 4096

/* The same numbers, for both ways of printing a row. */
static const struct column {
	const char *head, *name;
	size_t off;	/* of a uint64_t in struct usage_row */
} columns[] = {
#define COLUMN(head, name, field) \
	{ (head), (name), offsetof(struct usage_row, field) }
	COLUMN("GENERATIONS", "generations", generations),
	COLUMN("FAILED", "failed", failed),
	COLUMN("PARTIAL", "partial", partial),
	COLUMN("ESTIMATED", "estimated", estimated),
	COLUMN("OPEN", "open", open),
	COLUMN("INPUT", "input", usage.input),
	COLUMN("CACHE_READ", "cache_read", usage.cache_read),
	COLUMN("CACHE_WRITE", "cache_write", usage.cache_write),
	COLUMN("OUTPUT", "output", usage.output),
	COLUMN("REASONING", "reasoning", usage.reasoning),
	COLUMN("UNPRICED", "unpriced", unpriced),
#undef COLUMN
};
#define COLUMN_COUNT (sizeof columns / sizeof columns[0])

static unsigned long long
cell(const struct usage_row *row, size_t column)
{
	return *(const uint64_t *)((const char *)row + columns[column].off);
}

static void
row_print(const struct usage_row *row, const char *model)
{
	struct buf cost;
	size_t i;

	buf_init(&cost, LINE_SIZE_MAX);
	money_put(&cost, row->cost);
	for (i = 0; i < COLUMN_COUNT; i++)
		printf("%*llu ", (int)strlen(columns[i].head), cell(row, i));
	printf("%18s %s\n", cost.data, model);
	buf_done(&cost);
}

static void
table_print(const struct usage_sums *sums, const struct usage_row *total)
{
	size_t i;

	for (i = 0; i < COLUMN_COUNT; i++)
		printf("%s ", columns[i].head);
	printf("%18s %s\n", "COST_USD", "MODEL");
	for (i = 0; i < sums->count; i++)
		row_print(&sums->rows[i], sums->rows[i].model);
	row_print(total, "(all)");
	if (total->unpriced > 0)
		printf("%llu without a price or usage: what they cost is not "
		    "known, and not in COST_USD\n",
		    (unsigned long long)total->unpriced);
	if (total->open > 0)
		printf("%llu open: reserved and not settled, as they are being "
		    "written or their spooler died\n",
		    (unsigned long long)total->open);
}

static void
row_put(struct buf *b, const struct usage_row *row)
{
	size_t i;

	for (i = 0; i < COLUMN_COUNT; i++)
		buf_printf(b, "\"%s\":%llu,", columns[i].name, cell(row, i));
	buf_puts(b, "\"total_cost\":");
	money_put(b, row->cost);
}

static void
json_print(const struct usage_sums *sums, const struct usage_row *total)
{
	struct buf b;
	size_t i;

	buf_init(&b, LINE_SIZE_MAX);
	fputs("{\"models\":[", stdout);
	for (i = 0; i < sums->count; i++) {
		const struct usage_row *row = &sums->rows[i];

		buf_clear(&b);
		buf_puts(&b, i > 0 ? ",{\"model\":" : "{\"model\":");
		jx_put_str(&b, row->model, strlen(row->model));
		buf_puts(&b, ",");
		row_put(&b, row);
		buf_puts(&b, "}");
		fputs(b.data, stdout);
	}
	buf_clear(&b);
	row_put(&b, total);
	printf("],%s}\n", b.data);
	buf_done(&b);
}

static bool
day_valid(const char *day)
{
	const char *form = "dddd-dd-dd";

	for (; *form != '\0'; form++, day++)
		if (*form == 'd' ? *day < '0' || *day > '9' : *day != *form)
			return false;
	return *day == '\0';
}

int
ctl_usage(struct ctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
		{ "day", required_argument, NULL, 'd' },
		{ "owner", required_argument, NULL, 'o' },
		{ "model", required_argument, NULL, 'm' },
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 }
	};
	struct usage_query q = { NULL, NULL, NULL };
	struct usage_row total = { .generations = 0 };
	const char *owner = ctl->owner;
	struct usage_sums sums;
	struct stream_key k;
	bool json = false;
	enum rs_err err;
	size_t i;
	int ch;

	/* argv[-1] is the command: what getopt takes for the program. */
	optind = 0;
	while ((ch = getopt_long(argc + 1, argv - 1, "", options, NULL)) !=
	    -1) {
		switch (ch) {
		case 'd':
			q.day = optarg;
			break;
		case 'o':
			owner = optarg;
			break;
		case 'm':
			q.model = optarg;
			break;
		case 'j':
			json = true;
			break;
		default:
			return CTL_USAGE;
		}
	}
	if (optind != argc + 1 || (q.day != NULL && !day_valid(q.day)) ||
	    (owner != NULL && !spool_owner_valid(owner, strlen(owner)))) {
		ctl_fail("usage", "wrong argument: [--day YYYY-MM-DD] "
		    "[--owner O] [--model M] [--json]");
		return CTL_USAGE;
	}
	if (owner != NULL) {
		stream_key(&k, owner, "any");
		q.owner_hash = k.owner_hash;
	}
	if ((err = usage_sum(ctl->sp, &q, &sums)) != RS_OK)
		return ctl_fail("usage", rs_strerror(err));
	for (i = 0; i < sums.count; i++)
		usage_row_add(&total, &sums.rows[i]);
	if (json)
		json_print(&sums, &total);
	else
		table_print(&sums, &total);
	usage_sums_done(&sums);
	return EXIT_SUCCESS;
}
