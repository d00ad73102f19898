/* ctl_doctor.h - respoolctl doctor: what its parts share. */
#ifndef RESPOOL_CTL_DOCTOR_H
#define RESPOOL_CTL_DOCTOR_H

#ifdef HAVE_LIBCURL
#include <curl/curl.h>
#endif
#include "ctl.h"
#include "model.h"

/* DOCTOR_SKIP: it could not be looked at, and why. */
enum finding { DOCTOR_OK, DOCTOR_SKIP, DOCTOR_WARN, DOCTOR_FAIL };

struct doctor {
	const struct conf *conf;
	struct spool *sp;	/* NULL: it cannot be used */
	struct models *models;	/* NULL: likewise */
	pid_t spooler;		/* the one that runs; 0: none */
	bool has_url;
	unsigned warnings, faults;
};

/* Prints one line: the finding, what was looked at, and the sentence. */
void doctor_say(struct doctor *d, enum finding f, const char *what,
    const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Says whether who may open enough files; has few: can do less than it is
 * configured for. */
void doctor_descriptors(struct doctor *d, const char *who, uint64_t limit,
    uint64_t needed);

/* ---- ctl_doctor_local.c, ctl_doctor_spooler.c: no URL is needed ---- */

void doctor_spool(struct doctor *d);	/* opens sp */
void doctor_spooler(struct doctor *d);	/* finds the spooler */
void doctor_models(struct doctor *d);	/* loads the models */

/* ---- ctl_doctor_cure.c: which setting of which server ---- */

enum fault {
	FAULT_BUFFERS, FAULT_COMPRESSES, FAULT_AUTHORIZATION,
	FAULT_LAST_EVENT_ID, FAULT_TIMEOUT, FAULT_COUNT
};

/* Who is on the way, as far as is known. */
struct way {
	char server[16];	/* the responder's web server, as of a probe */
	char gateway[16];	/* "cgi", "fastcgi", "proxy" */
	char front[128];	/* the header Server; or "" */
};

/* Adds what to change where, in a sentence; the server that answers is named
 * too when it is another than the responder's. */
void doctor_cure(struct buf *b, const struct way *way, enum fault fault);

#ifdef HAVE_LIBCURL /* what follows looks through the web server */

/* ---- ctl_doctor_http.c: one request, looked at closely ---- */

struct fetch {
	/* What is asked; url is lent. */
	const char *method;
	const char *url;
	struct curl_slist *headers; /* taken */
	bool compressed;	/* accept that */
	uint64_t timeout_ms;
	/* Called for the body of a 200; false: enough.  NULL: goes to body. */
	bool (*data)(void *arg, const char *p, size_t n);
	void *arg;

	/* What came. */
	long status;		/* 0: nothing */
	char server[128];	/* headers, or "" */
	char type[128];
	char encoding[64];
	int64_t date;		/* Unix time of the header Date; -1 */
	uint64_t sent_ns;
	struct buf body;	/* its first 64 KiB */
	bool enough;		/* data said so */
	bool timed_out;
	bool whole;		/* the response ended as HTTP says */
	char why[CURL_ERROR_SIZE]; /* when it did not */
};

/* Fills in zeros, GET and 10 s. */
void fetch_init(struct fetch *f, const char *url);
void fetch_done(struct fetch *f);
void fetch_header(struct fetch *f, const char *name, const char *value);
void fetch_run(struct fetch *f);
/* What a terminal may be shown of a stranger's text of n bytes. */
void doctor_shown(char *to, size_t size, const char *p, size_t n);
/* Adds why there is no 200, in words. */
void fetch_why(const struct fetch *f, struct buf *b);

/* ---- ctl_doctor_pick.c: which models tell something ---- */

/* What they are asked; some echo it, a word a chunk. */
#define DOCTOR_MESSAGE "one two three four five six seven eight nine ten " \
	"eleven twelve thirteen fourteen fifteen sixteen"
#define DOCTOR_FRAMES_MIN 5
#define DOCTOR_SPAN_MIN_MS 400	/* shorter answers tell nothing */
#define DOCTOR_LEAD_MAX_MS 20000 /* before a silence */

/* Milliseconds from a demo model's first chunk to its last; 0: it is not one
 * to look at. */
uint64_t doctor_span_ms(const struct model *m);
/* The one that is the quickest to show its pace, and the first to be silent
 * for that many milliseconds; NULL: there is none. */
const struct model *doctor_paced_model(const struct models *all);
const struct model *doctor_quiet_model(const struct models *all,
    uint64_t need);

/* ---- ctl_doctor_url.c, ctl_doctor_stream.c: through the web server ---- */

struct site {
	struct doctor *doctor;
	char *url;		/* without a slash at its end */
	struct way way;
	char nonce[33];		/* in the names of what is made */
	bool buffers;		/* nothing comes before its end */
};

void doctor_url(struct doctor *d, const char *url);
void doctor_stream(struct site *s);

#endif /* HAVE_LIBCURL */

#endif
