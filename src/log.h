/* log.h - one event, one line, one write:
 *	2031-05-04T10:22:07.113Z info gen stream=7f3a finished pid=812 frames=4
 * Time, level, part, id, what happened in the past tense, key=value with the
 * unit in the key.  Prompts, answers and keys are never logged.  Any thread. */
#ifndef RESPOOL_LOG_H
#define RESPOOL_LOG_H

#include <stddef.h>

enum log_level { LOGL_ERROR, LOGL_WARN, LOGL_INFO, LOGL_DEBUG };
#define LOG_QUOTE_SIZE 160

/* Lines of level and more urgent ones go to path (created, appended to), or
 * to stderr when path is empty or cannot be opened (which is logged).  Before
 * the first call: LOGL_INFO, stderr. */
void log_open(enum log_level level, const char *path);
/* Lines go to the socket of a syslog daemon, of the facility daemon, without
 * our time and level, as syslog has its own.  Nobody waits for the daemon
 * longer than a moment, and that once: what it does not take is lost, and
 * counted in a line when it takes some again. */
void log_open_syslog(enum log_level level, const char *socket_path,
    const char *program);
/* Opens the file again, which may have been renamed; any thread.  Each line is
 * whole in one of the two.  When it cannot be opened, lines go where they
 * went, and one says so. */
void log_reopen(void);

void log_error(const char *part, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void log_warn(const char *part, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void log_info(const char *part, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void log_debug(const char *part, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Outside text made harmless for a line: in double quotes, controls, quotes
 * and backslashes escaped, cut with "..." when too long.  Returns dst. */
const char *log_quote(char dst[LOG_QUOTE_SIZE], const char *s, size_t n);

#endif
