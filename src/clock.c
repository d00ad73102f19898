/* clock.c - time; settable in tests. */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#include "clock.h"

#define ISO_LAST_MS 253402300799999 /* of the year 9999 */
#define WAIT_MAX_MS 3600000

static _Atomic bool frozen;
static _Atomic uint64_t frozen_mono_ns;
static _Atomic int64_t frozen_wall_ms;

uint64_t
clock_mono_ns(void)
{
	struct timespec t;

	if (frozen)
		return frozen_mono_ns;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

int64_t
clock_wall_ms(void)
{
	struct timespec t;

	if (frozen)
		return frozen_wall_ms;
	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / (long)NS_PER_MS;
}

int
clock_ms_until(uint64_t due_ns, uint64_t now_ns)
{
	uint64_t ms;

	if (due_ns <= now_ns)
		return 0;
	ms = (due_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS;
	return ms > WAIT_MAX_MS ? WAIT_MAX_MS : (int)ms;
}

void
clock_freeze(uint64_t mono_ns, int64_t wall_ms)
{
	frozen_mono_ns = mono_ns;
	frozen_wall_ms = wall_ms;
	frozen = true;
}

void
clock_run(void)
{
	frozen = false;
}

void
clock_iso(int64_t wall_ms, char ret[CLOCK_ISO_SIZE])
{
	char day[CLOCK_ISO_SIZE];
	struct tm tm;
	time_t s;

	/* A damaged file may hold any number; the text must keep its size. */
	if (wall_ms < 0)
		wall_ms = 0;
	if (wall_ms > ISO_LAST_MS)
		wall_ms = ISO_LAST_MS;
	s = (time_t)(wall_ms / 1000);
	gmtime_r(&s, &tm);
	strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(ret, CLOCK_ISO_SIZE, "%.19s.%03uZ", day,
	    (unsigned)(wall_ms % 1000));
}
