/* usage_impl.h - what the usage*.c and quota.c share; for nobody else. */
#ifndef RESPOOL_USAGE_IMPL_H
#define RESPOOL_USAGE_IMPL_H

#include "buf.h"
#include "spool_impl.h"
#include "usage.h"

struct json_object;

/* Longer lines are neither written nor believed. */
#define USAGE_LINE_MAX (1 << 20)

/* ---- usage.c ---- */

/* Begins a line: its type and time. */
void usage_begin(struct buf *b, const char *type);
/* The members that name a generation. */
void usage_put_generation(struct buf *b, const struct stream_key *k,
    int64_t created_ms, const char *model);
/* Those of its reserve that follow. */
void usage_put_worst(struct buf *b, const struct usage_worst *w);
/* Appends to today's file with one write.  What a full disk lets in of it
 * stays: it may be followed by another process's line already. */
enum rs_err usage_append(const struct spool *sp, struct buf *line);

/* ---- usage_read.c ---- */

struct usage_lines {
	int fd;
	uint64_t off;		/* of the line that comes next */
	uint64_t read;		/* bytes of the file that chunk went up to */
	size_t pos, n;		/* what is left of chunk */
	bool whole;		/* line had its end */
	struct buf line;
	char chunk[16384];
};
void usage_lines_init(struct usage_lines *l, int fd, uint64_t off);
void usage_lines_done(struct usage_lines *l); /* fd stays open */
/* The next line, in l->line, and where it begins; the last one may lack its
 * end (l->whole).  One that is too long comes as an empty one.  RS_ENOENT: no
 * more; RS_EIO, RS_ENOMEM. */
enum rs_err usage_lines_next(struct usage_lines *l, uint64_t *ret_off);

/* A line's object and its type, or NULL when it is none of ours.  The
 * caller's: json_object_put. */
struct json_object *usage_line_parse(const struct buf *line,
    const char **ret_type);

/* For tsearch(3) and its like: key and created_ms count. */
int usage_generation_cmp(const void *a, const void *b);
/* False: o does not name one.  A worst case that it does not tell is 0 tokens
 * at an unknown cost. */
bool usage_generation_parse(struct json_object *o,
    struct usage_generation *ret);
/* An amount; MONEY_UNKNOWN also for what is none. */
uint64_t usage_cost_parse(struct json_object *o, const char *name);

/* A reserve or a settle. */
struct usage_line {
	bool settles;
	struct usage_generation g; /* worst: of a reserve */
	bool known;		/* a settle tells what was used: */
	uint64_t tokens;	/* input and output */
	uint64_t cost;		/* or MONEY_UNKNOWN */
};
/* False: line is neither.  Lines of the form that we write take 30 times as
 * long with usage_line_parse. */
bool usage_line_read(const struct buf *line, struct usage_line *ret);

#define USAGE_DAY_SIZE sizeof "YYYY-MM-DD.jsonl"
struct usage_days {
	int dir;
	char (*names)[USAGE_DAY_SIZE];
	size_t count;
};
/* All files there are, the oldest first.  RS_OK; as spool_dir_open;
 * RS_ENOMEM.  usage_days_done also after a failure. */
enum rs_err usage_days_list(const struct spool *sp, struct usage_days *ret);
void usage_days_done(struct usage_days *d);

#endif
