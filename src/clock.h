/* clock.h - time; settable in tests. */
#ifndef RESPOOL_CLOCK_H
#define RESPOOL_CLOCK_H

#include <stdint.h>

#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull
#define CLOCK_ISO_SIZE 25

/* CLOCK_MONOTONIC: the same in every process of a host. */
uint64_t clock_mono_ns(void);
/* Unix time. */
int64_t clock_wall_ms(void);

/* Milliseconds for poll from now_ns to due_ns, rounded up, an hour at most; 0
 * when it is past. */
int clock_ms_until(uint64_t due_ns, uint64_t now_ns);

/* From now on both clocks stand still where the test sets them, until
 * clock_run() gives the real ones back. */
void clock_freeze(uint64_t mono_ns, int64_t wall_ms);
void clock_run(void);

/* 2031-05-04T10:22:07.113Z */
void clock_iso(int64_t wall_ms, char ret[CLOCK_ISO_SIZE]);

#endif
