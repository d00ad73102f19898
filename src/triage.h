/* triage.h - what a message is about, by rules from a file:
 *	{ "rules": [ { "name": "refunds", "category": "billing",
 *	    "words": ["refund", "money back"], "patterns": ["order +#?[0-9]+"],
 *	    "min_length": 1, "max_length": 500, "weight": 3,
 *	    "template": "support", "model": "gpt" } ] }
 * name and category are needed, and one of words, patterns, min_length and
 * max_length at least.  A rule matches when one of its words or one of its
 * patterns is found, if it has any, and the length is within its bounds.
 * - words: whole words or phrases; letters A to Z and a to z are the same
 * - patterns: extended regular expressions of POSIX, likewise; without
 *   references to what they matched
 * - lengths: of the message, in characters
 * - weight: 1 (the default) to 1000
 * Patterns look at the first TRIAGE_LOOK bytes of a message, as the time that
 * one can take grows with their square: 8 ms for "a.*b" and 2,048 times an a.
 */
#ifndef RESPOOL_TRIAGE_H
#define RESPOOL_TRIAGE_H

#include <stdbool.h>
#include <stddef.h>
#include "buf.h"
#include "err.h"

#define TRIAGE_FILE_MAX 262144	/* bytes */
#define TRIAGE_RULES_MAX 1000
#define TRIAGE_PATTERNS_MAX 100	/* of all rules */
#define TRIAGE_TEXT_MAX 256	/* bytes of a word, pattern, name ... */
#define TRIAGE_WEIGHT_MAX 1000
#define TRIAGE_LOOK 2048

struct triage;

/* What a message is.  All are lent from the rules, or NULL. */
struct triage_found {
	const char *category; /* never NULL: "general" when no rule matches */
	const char *template_name;
	const char *model;
	const char *rule;
	double confidence;
};

/* RS_OK; RS_EINVAL: what the file says is wrong; else as conf_read_file.  On
 * failure *ret_why has one line per fault, "PATH: rules[2] (refunds): ...",
 * or "PATH:LINE: ..." when the JSON itself is not valid.  *ret: triage_free */
enum rs_err triage_load(const char *path, struct triage **ret,
    struct buf *ret_why);
/* The same from its text. */
enum rs_err triage_parse(const char *path, const char *text, size_t len,
    struct triage **ret, struct buf *ret_why);
void triage_free(struct triage *t); /* takes NULL */

/* The category whose matching rules weigh most, and of its matching rules the
 * heaviest one; of equals the one that stands first in the file.  confidence
 * is the weight of the category's matching rules over that of all matching
 * ones: 1 when no other category is in question, 0 when no rule matches.
 * t may be NULL: no rules.  RS_OK or RS_ENOMEM. */
enum rs_err triage_find(const struct triage *t, const char *message,
    size_t len, struct triage_found *ret);

/* What the i-th rule names, each NULL when it names none; false: there are
 * fewer rules. */
bool triage_names(const struct triage *t, size_t i, const char **ret_rule,
    const char **ret_template, const char **ret_model);

#endif
