/* conf.h - the configuration: defaults, then a file, then the environment. */
#ifndef RESPOOL_CONF_H
#define RESPOOL_CONF_H

#include <stdbool.h>
#include <stdint.h>
#include "buf.h"
#include "err.h"
#include "log.h"
#include "text.h"

#define CONF_T_STRING char *
#define CONF_T_PATH char *
#define CONF_T_WORDS char *
#define CONF_T_SECONDS uint64_t
#define CONF_T_BYTES uint64_t
#define CONF_T_COUNT uint64_t
#define CONF_T_USD uint64_t /* picodollars */
#define CONF_T_AUTO uint64_t
#define CONF_IS_AUTO UINT64_MAX /* the word auto */

/* What happens to an answer that nobody reads. */
enum abandon { ABANDON_CONTINUE, ABANDON_STOP, ABANDON_CAP };

/* Who says whose a request is. */
enum owner_by { OWNER_BY_REQUEST, OWNER_BY_SERVER, OWNER_BY_JWT };

struct conf {
#define CONF(name, type, def, min, max, text) CONF_T_##type name;
#include "conf_table.h"
#undef CONF
	char *file;	/* the file that was read, absolute; NULL: none */
	enum log_level level;	/* log_level, as a number */
	enum abandon abandon_how; /* abandon, likewise */
	enum owner_by owner_by;	/* auth, likewise */
	bool flush;		/* flush_by_close */
	bool to_syslog;		/* syslog */
	/* SHA-256 over all names and values: equal settings, equal hash. */
	char hash[SHA256_HEX_SIZE];
};

/* Reads the file: path, else RESPOOL_CONFIG, else SYSCONFDIR/respool/
 * respool.conf if it exists; then each RESPOOL_NAME of the environment.
 * Relative paths are made absolute, as the programs change their directory:
 * those in the file begin at the file's directory, those in the environment
 * at the working directory.
 * Those of the environment are made so in the environment too, so that they
 * mean the same to a program that is started from here.
 * On RS_EINVAL, or where the file cannot be read (see conf_read_file), *ret_why
 * has one line per fault, "FILE:LINE: what is wrong" or "RESPOOL_NAME: ...".
 * On RS_OK *ret_why has the warnings: a RESPOOL_ variable that no setting
 * has.  ret_why is initialised by the caller.  *ret: conf_free. */
enum rs_err conf_load(const char *path, struct conf **ret,
    struct buf *ret_why);
void conf_free(struct conf *c);

/* All settings as they are in force, in the syntax of the file. */
void conf_print(const struct conf *c, struct buf *ret);

/* Appends a whole file that only the admin may write to b.
 * RS_OK; RS_EPERM: group or others can write it, or we may not read it;
 * RS_EINVAL: not a regular file; RS_ETOOBIG: over b's maximum; RS_ENOENT,
 * RS_EIO, RS_ENOMEM.  On failure *ret_why gets one line, "PATH: ...". */
enum rs_err conf_read_file(const char *path, struct buf *b,
    struct buf *ret_why);

/* True when word is one of the words of a WORDS setting. */
bool conf_has_word(const char *words, const char *word);

#endif
