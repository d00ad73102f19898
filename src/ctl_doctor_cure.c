/* ctl_doctor_cure.c - which setting of which web server cures what. */
#include <string.h>

#include "ctl_doctor.h"

struct cures {
	const char *server;	/* how its name begins */
	const char *gateway;	/* NULL: any */
	const char *name;
	const char *texts[FAULT_COUNT];
};

/* The first row that fits; the last one fits all. */
static const struct cures cures[] = {
	{ "lighttpd", NULL, "lighttpd", {
	[FAULT_BUFFERS] = "server.stream-response-body = 2",
	[FAULT_COMPRESSES] = "leave text/event-stream out of "
	    "deflate.mimetypes",
	[FAULT_AUTHORIZATION] = "remove Authorization from "
	    "setenv.set-request-header",
	[FAULT_LAST_EVENT_ID] = "remove Last-Event-ID from "
	    "setenv.set-request-header",
	[FAULT_TIMEOUT] = "raise server.max-write-idle, and read-timeout in "
	    "fastcgi.server, to 300",
	} },
	{ "Apache", "proxy", "Apache with mod_proxy_fcgi", {
	[FAULT_BUFFERS] = "flushpackets=on at respool's ProxyPass line; where "
	    "it stands there already, another ProxyPass line shares this "
	    "one's worker, whose parameters are ignored (AH01146 in the error "
	    "log): give each line a name of its own after fcgi:// that no "
	    "other one begins with",
	[FAULT_COMPRESSES] = "SetEnv no-gzip 1 for respool's paths, and no "
	    "SetOutputFilter for them",
	[FAULT_AUTHORIZATION] = "CGIPassAuth On in a <LocationMatch> of "
	    "respool's paths, and no RequestHeader unset Authorization",
	[FAULT_LAST_EVENT_ID] = "no RequestHeader unset Last-Event-ID",
	[FAULT_TIMEOUT] = "timeout=300 at respool's ProxyPass line, or "
	    "ProxyTimeout 300",
	} },
	{ "Apache", "cgi", "Apache with mod_cgi or mod_cgid", {
	[FAULT_BUFFERS] = "no filter that collects (SetOutputFilter, "
	    "mod_security); where it cannot be cured, set flush_by_close = "
	    "yes in respool.conf",
	[FAULT_COMPRESSES] = "SetEnv no-gzip 1 for respool's paths, and no "
	    "SetOutputFilter for them",
	[FAULT_AUTHORIZATION] = "CGIPassAuth On in respool's <Directory> or "
	    ".htaccess",
	[FAULT_LAST_EVENT_ID] = "no RequestHeader unset Last-Event-ID",
	[FAULT_TIMEOUT] = "Timeout 300, or CGIDScriptTimeout 300s",
	} },
	{ "Apache", NULL, "Apache with mod_fcgid", {
	[FAULT_BUFFERS] = "FcgidOutputBufferSize 0 (not possible in "
	    ".htaccess: use plain CGI there)",
	[FAULT_COMPRESSES] = "SetEnv no-gzip 1 for respool's paths, and no "
	    "SetOutputFilter for them",
	[FAULT_AUTHORIZATION] = "CGIPassAuth On in respool's <Directory> or "
	    ".htaccess",
	[FAULT_LAST_EVENT_ID] = "no RequestHeader unset Last-Event-ID",
	[FAULT_TIMEOUT] = "FcgidIOTimeout 60 and FcgidBusyTimeout 86400",
	} },
	{ "nginx", NULL, "nginx", {
	[FAULT_BUFFERS] = "fastcgi_buffering off (proxy_buffering off where "
	    "it is a proxy), and no fastcgi_ignore_headers or "
	    "proxy_ignore_headers X-Accel-Buffering",
	[FAULT_COMPRESSES] = "leave text/event-stream out of gzip_types",
	[FAULT_AUTHORIZATION] = "fastcgi_param HTTP_AUTHORIZATION "
	    "$http_authorization, and no proxy_set_header Authorization \"\"",
	[FAULT_LAST_EVENT_ID] = "no fastcgi_param HTTP_LAST_EVENT_ID \"\", "
	    "and no proxy_set_header Last-Event-ID \"\"",
	[FAULT_TIMEOUT] = "fastcgi_read_timeout 300s (proxy_read_timeout "
	    "where it is a proxy)",
	} },
	{ "", NULL, "the web server", {
	[FAULT_BUFFERS] = "switch off its buffering of responses; where it "
	    "cannot be, set flush_by_close = yes in respool.conf",
	[FAULT_COMPRESSES] = "switch off compression of text/event-stream",
	[FAULT_AUTHORIZATION] = "let it pass the header Authorization on",
	[FAULT_LAST_EVENT_ID] = "let it pass the header Last-Event-ID on",
	[FAULT_TIMEOUT] = "raise its time-out for silent responses",
	} },
};

static const struct cures *
cures_find(const char *server, const char *gateway)
{
	const struct cures *c = cures;

	while (strncmp(server, c->server, strlen(c->server)) != 0 ||
	    (c->gateway != NULL && strcmp(gateway, c->gateway) != 0))
		c++;
	return c;
}

void
doctor_cure(struct buf *b, const struct way *way, enum fault fault)
{
	const struct cures *own = cures_find(way->server, way->gateway);
	const struct cures *front = cures_find(way->front, "proxy");

	buf_printf(b, "in %s: %s", own->name, own->texts[fault]);
	if (way->front[0] != '\0' && strcmp(own->server, front->server) != 0)
		buf_printf(b, "; or in front of it, in %.40s: %s", way->front,
		    front->texts[fault]);
}
