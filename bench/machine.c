/* What the bench says of the machine it ran on. */
#include "clock.h"
#include "rows.h"

#include "commit.h" /* made when knit is built */

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

uint32_t bench_cores(void) {
	const long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n > 0 ? (uint32_t)n : 1;
}

static void processor(char *out, size_t size) {
	char line[512];
	FILE *const f = fopen("/proc/cpuinfo", "r");

	snprintf(out, size, "unknown processor");
	while (f && fgets(line, sizeof line, f)) {
		const char *const colon = strchr(line, ':');
		if (strncmp(line, "model name", 10) == 0 && colon) {
			snprintf(out, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
			break;
		}
	}
	if (f)
		fclose(f);
}

static double seconds_of(const struct rusage *u) {
	return (double)u->ru_utime.tv_sec + (double)u->ru_utime.tv_usec * 1e-6 + (double)u->ru_stime.tv_sec +
	       (double)u->ru_stime.tv_usec * 1e-6;
}

double bench_others_seconds(void) {
	unsigned long long v[8] = {0}, busy;
	FILE *const f = fopen("/proc/stat", "r");
	struct rusage own, children; /* children: peers that have ended */

	if (!f)
		return -1;
	const int got = fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6],
	                       &v[7]);
	fclose(f);
	if (got != 8 || getrusage(RUSAGE_SELF, &own) != 0 || getrusage(RUSAGE_CHILDREN, &children) != 0)
		return -1;
	busy = v[0] + v[1] + v[2] + v[5] + v[6] + v[7]; /* all but idle and waiting for disks; stolen time counts */
	return (double)busy / (double)sysconf(_SC_CLK_TCK) - seconds_of(&own) - seconds_of(&children);
}

double bench_clock_loop(void) {
	double best = 0;

	/* Short enough for one of them to run undisturbed beside others: then it is the clock that is measured. */
	for (int round = 0; round < 60; ++round) {
		volatile uint64_t sink;
		uint64_t x = (uint64_t)round + 1;

		const double begin = bench_now();
		for (int i = 0; i < 300000; ++i)
			x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407); /* each waits for the one before */
		sink = x;
		(void)sink;
		const double seconds = bench_now() - begin;
		best = round == 0 || seconds < best ? seconds : best;
	}
	return best;
}

void bench_machine(bench_run *run) {
	struct utsname u;
	const time_t t = time(NULL);
	struct tm tm;
	char cpu[96];

	processor(cpu, sizeof cpu);
	snprintf(run->machine, sizeof run->machine, "%s, %u cores", cpu, bench_cores());
	if (uname(&u) == 0)
		snprintf(run->system, sizeof run->system, "%.20s %.60s", u.sysname, u.release);
	if (gmtime_r(&t, &tm))
		strftime(run->date, sizeof run->date, "%Y-%m-%dT%H:%M:%SZ", &tm);
	snprintf(run->commit, sizeof run->commit, "%s", KNIT_COMMIT);
}
