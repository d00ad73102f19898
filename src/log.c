/* log.c - one event, one line, one write. */
#include <sys/socket.h>
#include <sys/un.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "fdio.h"
#include "log.h"
#include "text.h"

#define LINE_MAX_LEN 2048 /* longer lines are cut */
#define IDENT_SIZE 32
#define SYSLOG_WAIT_MS 10

static const struct {
	const char *name;
	int priority; /* of syslog */
} levels[] = {
	[LOGL_ERROR] = { "error", LOG_DAEMON | LOG_ERR },
	[LOGL_WARN] = { "warn", LOG_DAEMON | LOG_WARNING },
	[LOGL_INFO] = { "info", LOG_DAEMON | LOG_INFO },
	[LOGL_DEBUG] = { "debug", LOG_DAEMON | LOG_DEBUG },
};

static _Atomic enum log_level log_level = LOGL_INFO;
/* For what follows: keeps a file open that a line is on its way to. */
static pthread_mutex_t log_mutex = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = STDERR_FILENO; /* -1: no syslog daemon, for now */
static char *log_path;		/* NULL: stderr */
static char log_ident[IDENT_SIZE]; /* log_path is syslog's; "": a file */
static unsigned long log_lost;	/* lines that syslog did not take */

static void
log_close(void)
{
	if (log_fd > STDERR_FILENO)
		close(log_fd);
	log_fd = STDERR_FILENO;
}

/* Where it cannot be opened, lines go where they went.  An errno, or 0. */
static int
file_open(void)
{
	int fd;

	if (log_path == NULL || log_ident[0] != '\0')
		return 0;
	fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC |
	    O_NOCTTY, 0640);
	if (fd < 0)
		return errno;
	log_close();
	log_fd = fd;
	return 0;
}

/* mutex is held. */
static void
log_set(enum log_level level, const char *path, const char *ident)
{
	log_close();
	free(log_path);
	log_path = path[0] != '\0' ? strdup(path) : NULL;
	snprintf(log_ident, sizeof log_ident, "%s", ident);
	log_level = level;
}

void
log_open(enum log_level level, const char *path)
{
	int err;

	pthread_mutex_lock(&log_mutex);
	log_set(level, path, "");
	err = file_open();
	pthread_mutex_unlock(&log_mutex);
	if (err != 0)
		log_error("log", "log_file %s cannot be opened: %s", path,
		    strerror(err));
}

void
log_open_syslog(enum log_level level, const char *socket_path,
    const char *program)
{
	pthread_mutex_lock(&log_mutex);
	log_set(level, socket_path, program);
	log_fd = -1;
	log_lost = 0;
	pthread_mutex_unlock(&log_mutex);
}

void
log_reopen(void)
{
	bool file;
	int err;

	pthread_mutex_lock(&log_mutex);
	file = log_path != NULL && log_ident[0] == '\0';
	err = file_open();
	pthread_mutex_unlock(&log_mutex);
	if (err != 0)
		log_error("log", "not opened again, the former file is kept "
		    "pid=%d why=\"%s\"", (int)getpid(), strerror(err));
	else if (file)
		log_info("log", "opened again pid=%d", (int)getpid());
}

/* ---- syslog ---- */

/* What syslog(3) would write; but that one waits for a slow daemon. */
static size_t
syslog_head(enum log_level level, char *line, size_t size)
{
	time_t now = (time_t)(clock_wall_ms() / 1000);
	char date[32];
	struct tm tm;

	localtime_r(&now, &tm);
	strftime(date, sizeof date, "%b %e %H:%M:%S", &tm);
	return (size_t)snprintf(line, size, "<%d>%s %s[%d]: ",
	    levels[level].priority, date, log_ident, (int)getpid());
}

static bool
syslog_connect(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };

	if (log_path == NULL || strlen(log_path) >= sizeof sun.sun_path)
		return false;
	strcpy(sun.sun_path, log_path);
	log_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (log_fd >= 0 && connect(log_fd, (struct sockaddr *)&sun,
	    sizeof sun) < 0) {
		close(log_fd);
		log_fd = -1;
	}
	return log_fd >= 0;
}

/* False: the daemon is gone, or has no room for it now. */
static bool
syslog_send(const char *line, size_t len)
{
	struct pollfd pfd = { .fd = log_fd, .events = POLLOUT };

	if (log_fd >= 0) {
		if (send(log_fd, line, len, MSG_NOSIGNAL) >= 0)
			return true;
		/* A daemon's queue may be as short as 10 lines: a burst gets
		 * a moment, unless the last one got it in vain. */
		if (errno == EAGAIN)
			return log_lost == 0 &&
			    poll(&pfd, 1, SYSLOG_WAIT_MS) > 0 &&
			    send(log_fd, line, len, MSG_NOSIGNAL) >= 0;
		/* Another daemon, perhaps, has the name now. */
		close(log_fd);
		log_fd = -1;
	}
	return syslog_connect() && send(log_fd, line, len, MSG_NOSIGNAL) >= 0;
}

/* The line, and before it how many are missing. */
static void
syslog_line(const char *line, size_t len)
{
	char lost[256];
	size_t n;

	if (log_lost > 0) {
		n = syslog_head(LOGL_WARN, lost, sizeof lost);
		n += (size_t)snprintf(lost + n, sizeof lost - n,
		    "log lines lost lines=%lu", log_lost);
		if (syslog_send(lost, n))
			log_lost = 0;
	}
	if (log_lost > 0 || !syslog_send(line, len))
		log_lost++;
}

/* ---- lines ---- */

static size_t
file_head(enum log_level level, char *line, size_t size)
{
	char now[CLOCK_ISO_SIZE];

	clock_iso(clock_wall_ms(), now);
	return (size_t)snprintf(line, size, "%s %s ", now, levels[level].name);
}

__attribute__((format(printf, 3, 0)))
static void
log_line(enum log_level level, const char *part, const char *fmt, va_list ap)
{
	char line[LINE_MAX_LEN], text[LINE_MAX_LEN];
	int saved = errno, n;
	size_t len;

	if (level > log_level)
		return;
	n = snprintf(text, sizeof text, "%s ", part);
	if ((size_t)n < sizeof text) {
		errno = saved; /* for %m */
		vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
	}

	pthread_mutex_lock(&log_mutex);
	len = log_ident[0] != '\0' ? syslog_head(level, line, sizeof line) :
	    file_head(level, line, sizeof line);
	/* Room for the line end in place of the NUL. */
	len += (size_t)snprintf(line + len, sizeof line - len, "%s", text);
	if (len > sizeof line - 1)
		len = sizeof line - 1;
	if (log_ident[0] != '\0') {
		syslog_line(line, len);
	} else {
		line[len++] = '\n';
		/* A log that is full or gone must not stop the work. */
		(void)fd_write_full(log_fd, line, len);
	}
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
