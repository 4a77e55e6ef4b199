/* Owns what a process takes of the machine's memory, as the system counts it. */
#ifndef KNIT_BENCH_RESIDENT_H
#define KNIT_BENCH_RESIDENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* In bytes; 0: not known. anon is what only the process has; file is pages of files, which the system can drop and read
 * again. Each is the largest that was seen, so the two may add up to more than peak. */
typedef struct bench_resident { uint64_t peak, anon, file; } bench_resident;

/* Looks at process `pid` (0: this one) and raises *out to what it has. False where the system does not say. */
bool bench_resident_look(pid_t pid, bench_resident *out);

/* Raises each of *to to what `by` has. */
void bench_resident_raise(bench_resident *to, const bench_resident *by);

#endif
