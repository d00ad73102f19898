/* log.c - one event, one line, one write. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "fdio.h"
#include "log.h"
#include "text.h"

#define LINE_MAX_LEN 2048 /* longer lines are cut */

static const char *const level_names[] = {
	[LOGL_ERROR] = "error",
	[LOGL_WARN] = "warn",
	[LOGL_INFO] = "info",
	[LOGL_DEBUG] = "debug",
};

static _Atomic enum log_level log_level = LOGL_INFO;
static int log_fd = STDERR_FILENO;
/* Keeps log_open from closing the file that a line is on its way to. */
static pthread_mutex_t log_mutex = PTHREAD_MUTEX_INITIALIZER;

void
log_open(enum log_level level, const char *path)
{
	int fd = STDERR_FILENO, err = 0;

	if (path[0] != '\0') {
		fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC |
		    O_NOCTTY, 0640);
		if (fd < 0) {
			err = errno;
			fd = STDERR_FILENO;
		}
	}
	pthread_mutex_lock(&log_mutex);
	if (log_fd != STDERR_FILENO)
		close(log_fd);
	log_fd = fd;
	pthread_mutex_unlock(&log_mutex);
	log_level = level;
	if (err != 0)
		log_error("log", "log_file %s cannot be opened: %s", path,
		    strerror(err));
}

__attribute__((format(printf, 3, 0)))
static void
log_line(enum log_level level, const char *part, const char *fmt, va_list ap)
{
	char line[LINE_MAX_LEN], now[CLOCK_ISO_SIZE];
	int saved = errno, n;
	size_t len;

	if (level > log_level)
		return;
	clock_iso(clock_wall_ms(), now);
	n = snprintf(line, sizeof line, "%s %s %s ", now, level_names[level],
	    part);
	len = (size_t)n;
	if (len < sizeof line) {
		errno = saved; /* for %m */
		n = vsnprintf(line + len, sizeof line - len, fmt, ap);
		len += n > 0 ? (size_t)n : 0;
	}
	if (len > sizeof line - 1)
		len = sizeof line - 1;
	line[len++] = '\n';

	pthread_mutex_lock(&log_mutex);
	/* A log that is full or gone must not stop the work. */
	(void)fd_write_full(log_fd, line, len);
	pthread_mutex_unlock(&log_mutex);
	errno = saved;
}

void
log_error(const char *part, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(LOGL_ERROR, part, fmt, ap);
	va_end(ap);
}

void
log_warn(const char *part, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(LOGL_WARN, part, fmt, ap);
	va_end(ap);
}

void
log_info(const char *part, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(LOGL_INFO, part, fmt, ap);
	va_end(ap);
}

void
log_debug(const char *part, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(LOGL_DEBUG, part, fmt, ap);
	va_end(ap);
}

const char *
log_quote(char dst[LOG_QUOTE_SIZE], const char *s, size_t n)
{
	static const char end[] = "\"...";
	char one[5];
	size_t i, len, part, at = 0;

	dst[at++] = '"';
	for (i = 0; i < n; i += len) {
		len = utf8_char(s + i, n - i);
		if (len == 0 || (unsigned char)s[i] < 0x20 || s[i] == 0x7f ||
		    /* U+0080 to U+009F: terminals obey them too */
		    (len == 2 && s[i] == '\xc2' &&
		    (unsigned char)s[i + 1] < 0xa0)) {
			len = 1;
			part = (size_t)snprintf(one, sizeof one, "\\x%02x",
			    (unsigned)(unsigned char)s[i]);
		} else if (s[i] == '"' || s[i] == '\\') {
			part = (size_t)snprintf(one, sizeof one, "\\%c", s[i]);
		} else {
			memcpy(one, s + i, len);
			part = len;
		}
		if (at + part + sizeof end > LOG_QUOTE_SIZE)
			break;
		memcpy(dst + at, one, part);
		at += part;
	}
	strcpy(dst + at, i < n ? end : "\"");
	return dst;
}
