/* ctl_doctor_pick.c - demo models that tell something of the way to a
 * reader. */
#include "ctl_doctor.h"

#define WORD_COUNT 16		/* of DOCTOR_MESSAGE */
#define SPAN_MAX_MS 30000

static uint64_t
words_count(const char *s)
{
	uint64_t n = 0;

	for (; *s != '\0'; s++)
		n += *s != ' ' && (s[1] == ' ' || s[1] == '\0');
	return n;
}

static uint64_t
chunk_count(const struct demo_script *p)
{
	return p->text != NULL ? words_count(p->text) :
	    p->chunks > 0 ? p->chunks : WORD_COUNT;
}

uint64_t
doctor_span_ms(const struct model *m)
{
	const struct demo_script *p = &m->demo;
	uint64_t n = chunk_count(p);

	if (m->provider != PROVIDER_DEMO || p->fail_after != DEMO_NEVER ||
	    p->hang_after != DEMO_NEVER || n < DOCTOR_FRAMES_MIN ||
	    p->interval_ms > SPAN_MAX_MS || n > SPAN_MAX_MS ||
	    p->first_ms > SPAN_MAX_MS)
		return 0;
	return (n - 1) * p->interval_ms;
}

const struct model *
doctor_paced_model(const struct models *all)
{
	const struct model *best = NULL;
	uint64_t span, least = SPAN_MAX_MS;
	size_t i;

	for (i = 0; i < all->count; i++) {
		span = doctor_span_ms(&all->all[i]);
		if (span >= DOCTOR_SPAN_MIN_MS && span <= least) {
			best = &all->all[i];
			least = span;
		}
	}
	return best;
}

/* Milliseconds until it is silent for at least need; UINT64_MAX: never. */
static uint64_t
lead_ms(const struct model *m, uint64_t need)
{
	const struct demo_script *p = &m->demo;
	uint64_t n = chunk_count(p);

	if (m->provider != PROVIDER_DEMO)
		return UINT64_MAX;
	if (p->first_ms > need)
		return 0;
	if (p->interval_ms > need && n > 1 && p->fail_after > 1)
		return p->first_ms;
	if (p->hang_after < n && p->hang_after < p->fail_after &&
	    p->hang_after <= DOCTOR_LEAD_MAX_MS &&
	    p->interval_ms <= DOCTOR_LEAD_MAX_MS && m->timeouts.idle > need)
		return p->first_ms + p->hang_after * p->interval_ms;
	return UINT64_MAX;
}

const struct model *
doctor_quiet_model(const struct models *all, uint64_t need)
{
	const struct model *best = NULL;
	uint64_t lead, least = DOCTOR_LEAD_MAX_MS;
	size_t i;

	for (i = 0; i < all->count; i++) {
		lead = lead_ms(&all->all[i], need);
		if (lead <= least) {
			best = &all->all[i];
			least = lead;
		}
	}
	return best;
}
