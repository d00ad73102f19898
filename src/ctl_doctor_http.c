/* ctl_doctor_http.c - one request through the web server, with libcurl. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "clock.h"
#include "ctl_doctor.h"

#define BODY_MAX 65536
#define TIMEOUT_MS 10000
#define WORDS_MAX 300 /* bytes of an answer that are shown */

void
fetch_init(struct fetch *f, const char *url)
{
	*f = (struct fetch){
		.method = "GET", .url = url, .timeout_ms = TIMEOUT_MS,
		.date = -1,
	};
	buf_init(&f->body, BODY_MAX);
}

void
fetch_done(struct fetch *f)
{
	curl_slist_free_all(f->headers);
	buf_done(&f->body);
}

void
fetch_header(struct fetch *f, const char *name, const char *value)
{
	struct curl_slist *list;
	struct buf b;

	buf_init(&b, 1024);
	buf_printf(&b, "%s: %s", name, value);
	list = b.err == RS_OK ? curl_slist_append(f->headers, b.data) : NULL;
	if (list != NULL)
		f->headers = list;
	buf_done(&b);
}

void
doctor_shown(char *to, size_t size, const char *p, size_t n)
{
	size_t i;

	while (n > 0 && (*p == ' ' || *p == '\t'))
		p++, n--;
	while (n > 0 && strchr(" \t\r\n", p[n - 1]) != NULL)
		n--;
	for (i = 0; i < n && i + 1 < size; i++)
		to[i] = p[i] < ' ' || p[i] > '~' ? '?' : p[i];
	to[i] = '\0';
}

static size_t
on_header(char *p, size_t one, size_t n, void *arg)
{
	struct fetch *f = arg;
	const struct {
		const char *name;
		char *to;
		size_t size;
	} fields[] = {
		{ "server:", f->server, sizeof f->server },
		{ "content-type:", f->type, sizeof f->type },
		{ "content-encoding:", f->encoding, sizeof f->encoding },
	};
	char date[64];
	size_t i, len;

	(void)one;
	for (i = 0; i < sizeof fields / sizeof fields[0]; i++) {
		len = strlen(fields[i].name);
		if (n > len && strncasecmp(p, fields[i].name, len) == 0)
			doctor_shown(fields[i].to, fields[i].size, p + len,
			    n - len);
	}
	if (n > 5 && strncasecmp(p, "date:", 5) == 0) {
		doctor_shown(date, sizeof date, p + 5, n - 5);
		f->date = curl_getdate(date, NULL);
	}
	return n;
}

struct receiver {
	struct fetch *f;
	CURL *easy;
};

static size_t
on_data(char *p, size_t one, size_t n, void *arg)
{
	const struct receiver *r = arg;
	struct fetch *f = r->f;
	size_t room = BODY_MAX - f->body.len;

	(void)one;
	curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &f->status);
	if (f->data == NULL || f->status != 200) {
		buf_add(&f->body, p, n < room ? n : room);
		return n;
	}
	f->enough = !f->data(f->arg, p, n);
	return f->enough ? 0 : n;
}

void
fetch_run(struct fetch *f)
{
	CURL *e = curl_easy_init();
	struct receiver r = { f, e };
	int bad = e == NULL;
	CURLcode code;

	if (bad == 0) {
		bad |= (int)curl_easy_setopt(e, CURLOPT_URL, f->url);
		bad |= (int)curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR,
		    "http,https");
		bad |= (int)curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST,
		    f->method);
		bad |= (int)curl_easy_setopt(e, CURLOPT_HTTPHEADER,
		    f->headers);
		bad |= (int)curl_easy_setopt(e, CURLOPT_ACCEPT_ENCODING,
		    f->compressed ? "gzip, deflate" : NULL);
		/* A proxy of this host is not on the readers' way. */
		bad |= (int)curl_easy_setopt(e, CURLOPT_PROXY, "");
		bad |= (int)curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
		bad |= (int)curl_easy_setopt(e, CURLOPT_TIMEOUT_MS,
		    (long)f->timeout_ms);
		bad |= (int)curl_easy_setopt(e, CURLOPT_ERRORBUFFER, f->why);
		bad |= (int)curl_easy_setopt(e, CURLOPT_HEADERFUNCTION,
		    on_header);
		bad |= (int)curl_easy_setopt(e, CURLOPT_HEADERDATA, f);
		bad |= (int)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION,
		    on_data);
		bad |= (int)curl_easy_setopt(e, CURLOPT_WRITEDATA, &r);
	}
	f->sent_ns = clock_mono_ns();
	code = bad != 0 ? CURLE_OUT_OF_MEMORY : curl_easy_perform(e);
	if (e != NULL)
		curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &f->status);
	f->whole = code == CURLE_OK;
	f->timed_out = code == CURLE_OPERATION_TIMEDOUT;
	if (!f->whole && f->why[0] == '\0')
		snprintf(f->why, sizeof f->why, "%s",
		    curl_easy_strerror(code));
	curl_easy_cleanup(e);
}

void
fetch_why(const struct fetch *f, struct buf *b)
{
	char words[WORDS_MAX];

	if (f->status == 0) {
		buf_puts(b, f->why);
		return;
	}
	doctor_shown(words, sizeof words, f->body.data, f->body.len);
	buf_printf(b, "status %ld%s%s", f->status,
	    words[0] != '\0' ? ": " : "", words);
}
