/* ctl_doctor.c - respoolctl doctor: looks at an installation as a friendly
 * expert would, and says what to change. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl_doctor.h"

#define DESCRIPTORS_MIN 256

/* Exit status. */
enum { DOCTOR_HEALTHY = 0, DOCTOR_WARNED = 1, DOCTOR_SICK = 2 };

void
doctor_say(struct doctor *d, enum finding f, const char *what,
    const char *fmt, ...)
{
	static const char *const words[] = { "ok", "skip", "warn", "FAIL" };
	va_list ap;

	d->warnings += f == DOCTOR_WARN;
	d->faults += f == DOCTOR_FAIL;
	printf("%-4s %s: ", words[f], what);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout); /* some checks take their time */
}

void
doctor_descriptors(struct doctor *d, const char *who, uint64_t limit,
    uint64_t needed)
{
	enum finding f = limit < DESCRIPTORS_MIN ? DOCTOR_FAIL :
	    limit < needed ? DOCTOR_WARN : DOCTOR_OK;

	if (f == DOCTOR_OK)
		doctor_say(d, f, "descriptors", "%s may open %llu files", who,
		    (unsigned long long)limit);
	else
		doctor_say(d, f, "descriptors", "%s may open %llu files only, "
		    "%llu are wanted; raise the limit where it is started: "
		    "LimitNOFILE= of its systemd unit, or ulimit -n", who,
		    (unsigned long long)limit, (unsigned long long)needed);
}

/* why: the faults, or the warnings, a line each. */
static void
say_configuration(struct doctor *d, const char *why)
{
	enum finding f = d->conf == NULL ? DOCTOR_FAIL : DOCTOR_WARN;
	size_t len;

	for (; why != NULL && *why != '\0'; why += len) {
		len = strcspn(why, "\n");
		doctor_say(d, f, "configuration", "%.*s%s", (int)len, why,
		    d->conf != NULL ? ": mistyped?" : "; see respool.conf(5)");
		len += why[len] == '\n';
	}
	if (d->faults + d->warnings > 0)
		return;
	if (d->conf == NULL)
		doctor_say(d, DOCTOR_FAIL, "configuration",
		    "cannot be read; is there memory left?");
	else
		doctor_say(d, DOCTOR_OK, "configuration", "%s",
		    d->conf->file != NULL ? d->conf->file :
		    "no file: the defaults and the environment");
}

int
ctl_doctor(struct ctl *ctl, int argc, char **argv)
{
	struct doctor d = { .conf = ctl->conf, .has_url = argc > 0 };

	if (argc > 0 && strncmp(argv[0], "http://", 7) != 0 &&
	    strncmp(argv[0], "https://", 8) != 0) {
		ctl_fail("doctor", "the URL must begin with http:// or "
		    "https://, and end where respool is mounted");
		return CTL_USAGE;
	}
	say_configuration(&d, ctl->conf_why);
	if (d.conf != NULL) {
		doctor_spool(&d);
		doctor_spooler(&d);
		doctor_models(&d);
#ifdef HAVE_LIBCURL
		if (argc > 0)
			doctor_url(&d, argv[0]);
#else
		if (argc > 0)
			doctor_say(&d, DOCTOR_SKIP, "web server", "respoolctl "
			    "was built without libcurl, which this needs");
#endif
		else
			doctor_say(&d, DOCTOR_SKIP, "web server", "give the "
			    "URL where respool is, as in respoolctl doctor "
			    "https://example.org");
	}
	printf("faults %u, warnings %u\n", d.faults, d.warnings);
	models_unref(d.models);
	spool_close(d.sp);
	return d.faults > 0 ? DOCTOR_SICK : d.warnings > 0 ? DOCTOR_WARNED :
	    DOCTOR_HEALTHY;
}
