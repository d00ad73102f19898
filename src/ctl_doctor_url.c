/* ctl_doctor_url.c - through the web server: does the responder answer, is it
 * ours, and does it get what was sent? */
#include <sys/stat.h>

#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "ctl_doctor.h"
#include "fdio.h"
#include "jx.h"

#define URL_SIZE_MAX 8192
#define CLOCK_SLACK_S 5
#define RESPONDER_DESCRIPTORS 1024 /* two for each reader */

static void
text_get(struct json_object *o, const char *name, char *to, size_t size)
{
	const char *s = "";
	size_t len = 0;

	jx_get_str(o, name, &s, &len);
	doctor_shown(to, size, s, len);
}

/* Compares what the responder says of text with what it is here. */
static bool
is_same(const struct site *s, struct json_object *probe, const char *name,
    const char *text)
{
	char said[SHA256_HEX_SIZE], here[SHA256_HEX_SIZE];
	struct buf b;

	buf_init(&b, 256);
	buf_printf(&b, "%s:%s", s->nonce, text);
	sha256_hex(b.data, b.len, here);
	buf_done(&b);
	text_get(probe, name, said, sizeof said);
	return strcmp(said, here) == 0;
}

/* False: it is another spool, so that nothing else can be compared. */
static bool
check_spool(struct site *s, struct json_object *probe)
{
	struct doctor *d = s->doctor;
	struct stat st;
	char text[64];

	if (d->sp == NULL || fstat(d->sp->fd, &st) < 0) {
		doctor_say(d, DOCTOR_SKIP, "same spool", "there is none here");
		return true;
	}
	snprintf(text, sizeof text, "%ju:%ju", (uintmax_t)st.st_dev,
	    (uintmax_t)st.st_ino);
	if (!is_same(s, probe, "spool", text)) {
		doctor_say(d, DOCTOR_FAIL, "same spool", "the responder's "
		    "spool is not the %s that is seen here: under /tmp or "
		    "/var/tmp a unit with PrivateTmp=true has directories of "
		    "its own, so move spool_dir to /var/spool/respool; or the "
		    "responder has another spool_dir, or began before this "
		    "one was made: compare their configurations and restart "
		    "the responder", d->conf->spool_dir);
		return false;
	}
	doctor_say(d, DOCTOR_OK, "same spool",
	    "the responder sees it as it is here");
	if (!is_same(s, probe, "settings", d->conf->hash))
		doctor_say(d, DOCTOR_WARN, "same settings", "the responder "
		    "has other settings than those seen here; restart it if "
		    "they were changed, or give this command the same -c FILE "
		    "and RESPOOL_ variables");
	else
		doctor_say(d, DOCTOR_OK, "same settings",
		    "the responder has those seen here");
	return true;
}

static void
check_authorization(struct site *s, struct json_object *probe)
{
	bool came = false;
	struct buf cure;

	jx_get_bool(probe, "authorization", &came);
	if (came) {
		doctor_say(s->doctor, DOCTOR_OK, "Authorization",
		    "reaches the responder");
		return;
	}
	buf_init(&cure, 4096);
	doctor_cure(&cure, &s->way, FAULT_AUTHORIZATION);
	doctor_say(s->doctor, DOCTOR_FAIL, "Authorization", "this header is "
	    "stripped on the way to the responder; %s", cure.data);
	buf_done(&cure);
}

static void
check_version(struct site *s, struct json_object *o)
{
	char version[64];

	text_get(o, "version", version, sizeof version);
	if (strcmp(version, PACKAGE_VERSION) != 0)
		doctor_say(s->doctor, DOCTOR_FAIL, "version", "the responder "
		    "is respool %s, this is %s; restart it after an update",
		    version, PACKAGE_VERSION);
	else
		doctor_say(s->doctor, DOCTOR_OK, "version", "%s", version);
}

static void
check_date(struct site *s, int64_t date)
{
	int64_t off = date - clock_wall_ms() / 1000;

	if (date >= 0 && (off > CLOCK_SLACK_S || off < -CLOCK_SLACK_S))
		doctor_say(s->doctor, DOCTOR_WARN, "web server's clock",
		    "it is %lld s off this host's; set both by NTP",
		    (long long)off);
}

/* Without an answer of ours.  The URL's server answers, or not. */
static void
say_no_answer(struct site *s, const struct fetch *f)
{
	const char *cure;
	struct buf why;

	if (f->status == 0)
		cure = "is the web server running, and is this its address?";
	else if (f->status == 502 || f->status == 503 || f->status == 504)
		cure = "the web server finds no responder: start it, if it "
		    "runs by itself (systemctl restart respool, or "
		    "spawn-fcgi); a stale socket in its place is to be "
		    "removed first; and the web server must be allowed to "
		    "write to the socket (mode 0660, its group)";
	else if (f->status == 401)
		cure = "the web server asks for a password where respool asks "
		    "for none: have it guard /api/ and /convo_ only, or give "
		    "the URL with one, as in https://name:password@host";
	else if (f->status == 403)
		cure = "the web server refuses: Require all granted, and "
		    "Options +ExecCGI where it runs the program";
	else if (f->status == 500)
		cure = "the program does not start: look into the web "
		    "server's error log, and run respool.fcgi -t as its user";
	else
		cure = "respool's paths do not reach it; compare the web "
		    "server's configuration with the one in respool's "
		    "documentation, and base_path with the URL";
	buf_init(&why, 4096);
	fetch_why(f, &why);
	doctor_say(s->doctor, DOCTOR_FAIL, "web server",
	    "%s/version does not answer: %s; %s", s->url, why.data, cure);
	buf_done(&why);
}

static void
way_init(struct site *s, const struct fetch *f, struct json_object *probe)
{
	text_get(probe, "server", s->way.server, sizeof s->way.server);
	text_get(probe, "gateway", s->way.gateway, sizeof s->way.gateway);
	snprintf(s->way.front, sizeof s->way.front, "%s", f->server);
}

/* False: there is nothing to look at. */
static bool
check_probe(struct site *s, const struct fetch *f)
{
	struct json_object *o = NULL, *probe = NULL;
	const char *why;
	uint64_t fds = 0;
	bool ok = false;

	if (f->status != 200 || !f->whole || jx_parse(f->body.data,
	    f->body.len, &o, &why) != RS_OK ||
	    !json_object_is_type(o, json_type_object)) {
		say_no_answer(s, f);
		goto out;
	}
	check_version(s, o);
	if (!json_object_object_get_ex(o, "probe", &probe) ||
	    !json_object_is_type(probe, json_type_object)) {
		doctor_say(s->doctor, DOCTOR_FAIL, "web server", "what "
		    "answers does not know respoolctl doctor, or its query "
		    "string is lost on the way: pass QUERY_STRING on");
		goto out;
	}
	way_init(s, f, probe);
	doctor_say(s->doctor, DOCTOR_OK, "web server", "%s (%s)",
	    s->way.front[0] != '\0' ? s->way.front : s->way.server,
	    s->way.gateway);
	check_date(s, f->date);
	ok = check_spool(s, probe);
	check_authorization(s, probe);
	if (jx_get_uint(probe, "descriptors", &fds) == RS_OK)
		doctor_descriptors(s->doctor, "the responder", fds,
		    RESPONDER_DESCRIPTORS);
out:
	json_object_put(o);
	return ok;
}

static bool
probe_run(struct site *s)
{
	struct fetch f;
	struct buf url;
	bool ok;

	buf_init(&url, URL_SIZE_MAX);
	buf_printf(&url, "%s/version?probe=%s", s->url, s->nonce);
	fetch_init(&f, url.data);
	/* With a name and password in the URL, libcurl makes one of these. */
	if (strchr(s->url, '@') == NULL)
		fetch_header(&f, "Authorization", "Bearer respool-doctor");
	fetch_run(&f);
	ok = check_probe(s, &f);
	fetch_done(&f);
	buf_done(&url);
	return ok;
}

/* What the responder says of starts. */
static void
check_ready(struct site *s)
{
	struct fetch f;
	struct buf url, why;

	buf_init(&url, URL_SIZE_MAX);
	buf_printf(&url, "%s/ready", s->url);
	fetch_init(&f, url.data);
	fetch_run(&f);
	buf_init(&why, 4096);
	if (f.status != 200)
		fetch_why(&f, &why);
	if (f.status == 200)
		doctor_say(s->doctor, DOCTOR_OK, "ready",
		    "the responder finds all that a start needs");
	else if (f.status == 503)
		doctor_say(s->doctor, DOCTOR_FAIL, "ready", "new answers "
		    "cannot be started: %s; docs/OPERATIONS.md has what to do "
		    "for each reason", why.data);
	else
		doctor_say(s->doctor, DOCTOR_WARN, "ready", "%s does not reach "
		    "the responder: %s; add it to the paths that the web "
		    "server passes on", url.data, why.data);
	fetch_done(&f);
	buf_done(&why);
	buf_done(&url);
}

/* ---- can the spool be read by URL? ---- */

/* Asks for PATH, or what of it may be below a document root. */
static bool
is_shown(const struct site *s, const char *origin, size_t len,
    const char *name)
{
	const char *path = s->doctor->conf->spool_dir;
	bool shown = false;
	struct fetch f;
	struct buf url;

	buf_init(&url, URL_SIZE_MAX);
	for (; path != NULL && !shown; path = strchr(path + 1, '/')) {
		buf_clear(&url);
		buf_printf(&url, "%.*s%s/%s", (int)len, origin, path, name);
		fetch_init(&f, url.data);
		fetch_run(&f);
		shown = f.status == 200 && f.body.len >= strlen(s->nonce) &&
		    memmem(f.body.data, f.body.len, s->nonce,
		    strlen(s->nonce)) != NULL;
		fetch_done(&f);
	}
	if (shown)
		doctor_say(s->doctor, DOCTOR_FAIL, "spool by URL", "everybody "
		    "can read the streams: %.*s/ is served as files; move "
		    "spool_dir out of what the web server shows, or deny it "
		    "there", (int)(url.len - strlen(name) - 1), url.data);
	buf_done(&url);
	return shown;
}

static void
check_shown(struct site *s)
{
	const char *host = strstr(s->url, "://") + 3;
	size_t len = (size_t)(host - s->url) + strcspn(host, "/");
	struct doctor *d = s->doctor;
	char name[64];
	int fd;

	snprintf(name, sizeof name, "doctor-%.16s", s->nonce);
	fd = d->sp == NULL ? -1 : openat(d->sp->fd, name, O_WRONLY | O_CREAT |
	    O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0) {
		doctor_say(d, DOCTOR_SKIP, "spool by URL",
		    "no file can be made in the spool");
		return;
	}
	(void)fd_write_full(fd, s->nonce, strlen(s->nonce));
	close(fd);
	if (!is_shown(s, s->url, len, name) && (s->url[len] == '\0' ||
	    !is_shown(s, s->url, strlen(s->url), name)))
		doctor_say(d, DOCTOR_OK, "spool by URL",
		    "its files cannot be read");
	unlinkat(d->sp->fd, name, 0);
}

void
doctor_url(struct doctor *d, const char *url)
{
	struct site s = { .doctor = d };
	size_t len = strlen(url);

	while (len > 0 && url[len - 1] == '/')
		len--;
	random_hex(s.nonce, 16);
	s.url = strndup(url, len);
	if (s.url == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) !=
	    CURLE_OK) {
		doctor_say(d, DOCTOR_FAIL, "web server", "no memory");
	} else {
		if (probe_run(&s)) {
			check_ready(&s);
			check_shown(&s);
			doctor_stream(&s);
		}
		curl_global_cleanup();
	}
	free(s.url);
}
