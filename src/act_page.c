/* act_page.c - the chat page and its files
 * The page refers to magic/magic.js and api/v1/stream, relative to /magic, so
 * that it works under every prefix; /magic/ is therefore sent there. */
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fdio.h"
#include "log.h"
#include "route.h"
#include "text.h"

#define FILE_BYTES_MAX (1 << 22)
#define HEADERS_MAX 1024
#define ETAG_SIZE 19 /* 16 hex digits in quotes */

static const char *
content_type(const char *name)
{
	static const struct {
		const char *suffix, *type;
	} rows[] = {
		{ ".html", "text/html; charset=utf-8" },
		{ ".js", "text/javascript; charset=utf-8" },
		{ ".css", "text/css; charset=utf-8" },
		{ ".json", "application/json" },
		{ ".svg", "image/svg+xml" },
		{ ".png", "image/png" },
		{ ".ico", "image/x-icon" },
		{ ".txt", "text/plain; charset=utf-8" },
		{ ".ts", "text/plain; charset=utf-8" },
	};
	const char *dot = strrchr(name, '.');
	size_t i;

	for (i = 0; dot != NULL && i < sizeof rows / sizeof rows[0]; i++) {
		if (strcmp(dot, rows[i].suffix) == 0)
			return rows[i].type;
	}
	return "application/octet-stream";
}

/* Reads a regular file of the directory; no links.  RS_ENOENT also for what
 * is something else. */
static enum rs_err
file_read(const char *dir, const char *name, struct buf *b)
{
	int dirfd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = -1;
	struct stat st;
	enum rs_err err = RS_ENOENT;

	if (dirfd < 0)
		return rs_from_errno(errno);
	/* Without O_NONBLOCK a fifo would hold us. */
	fd = openat(dirfd, name,
	    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) {
		err = errno == ELOOP ? RS_ENOENT : rs_from_errno(errno);
		goto out;
	}
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		err = fd_read_all(fd, b);
out:
	if (fd >= 0)
		close(fd);
	close(dirfd);
	return err;
}

/* True: what the browser has is still the same. */
static bool
is_known(const struct request *rq, const char *etag)
{
	const char *tags = client_env(rq->c, "HTTP_IF_NONE_MATCH");

	return tags != NULL && strstr(tags, etag) != NULL;
}

static void
file_send(struct request *rq, const char *name, const struct buf *file)
{
	char hex[SHA256_HEX_SIZE], etag[ETAG_SIZE];
	struct buf headers;

	sha256_hex(file->data, file->len, hex);
	snprintf(etag, sizeof etag, "\"%.16s\"", hex);
	buf_init(&headers, HEADERS_MAX);
	buf_printf(&headers, "Content-Type: %s\r\n"
	    "Content-Security-Policy: default-src 'none'; script-src 'self'; "
	    "style-src 'self'; img-src 'self'; connect-src 'self'; "
	    "base-uri 'none'; frame-ancestors 'none'\r\n"
	    "X-Content-Type-Options: nosniff\r\n"
	    "Cache-Control: no-cache\r\n"
	    "ETag: %s\r\n", content_type(name), etag);
	if (is_known(rq, etag))
		reply_send(rq, 304, headers.data, NULL, 0);
	else
		reply_send(rq, 200, headers.data, file->data, file->len);
	buf_done(&headers);
}

static void
file_reply(struct request *rq, const char *name)
{
	struct buf file;
	char quoted[LOG_QUOTE_SIZE];
	enum rs_err err;

	buf_init(&file, FILE_BYTES_MAX);
	err = file_read(rq->r->conf->static_dir, name, &file);
	if (err == RS_OK)
		file_send(rq, name, &file);
	else if (err == RS_ENOENT)
		reply_error(rq, ERRTYPE_not_found, NULL);
	else {
		log_warn("page", "file=%s not read why=\"%s\"",
		    log_quote(quoted, name, strlen(name)), rs_strerror(err));
		reply_error(rq, ERRTYPE_internal, NULL);
	}
	buf_done(&file);
}

void
act_page(struct request *rq)
{
	file_reply(rq, "index.html");
}

void
act_page_slash(struct request *rq)
{
	reply_send(rq, 301, "Location: ../magic\r\n"
	    "Cache-Control: no-cache\r\n", NULL, 0);
}

void
act_page_file(struct request *rq)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	    "abcdefghijklmnopqrstuvwxyz0123456789._-";

	if (rq->arg[0] == '.' || rq->arg[strspn(rq->arg, plain)] != '\0')
		reply_error(rq, ERRTYPE_not_found, NULL);
	else
		file_reply(rq, rq->arg);
}
