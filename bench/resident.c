/* Resident memory out of /proc/PID/status. */
#include "resident.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void raise_to(uint64_t *to, uint64_t n) { *to = n > *to ? n : *to; }

void bench_resident_raise(bench_resident *to, const bench_resident *by) {
	raise_to(&to->peak, by->peak);
	raise_to(&to->anon, by->anon);
	raise_to(&to->file, by->file);
}

bool bench_resident_look(pid_t pid, bench_resident *out) {
	char path[48], line[160], name[32];
	uint64_t kib, shared = 0, file = 0;
	bool found = false;

	if (pid)
		snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
	FILE *const f = fopen(pid ? path : "/proc/self/status", "r");
	if (!f)
		return false;
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "%31[^:]: %" SCNu64, name, &kib) != 2)
			continue;
		if (strcmp(name, "VmHWM") == 0)
			raise_to(&out->peak, kib * 1024);
		else if (strcmp(name, "RssAnon") == 0)
			found = true, raise_to(&out->anon, kib * 1024);
		else if (strcmp(name, "RssFile") == 0)
			file = kib * 1024;
		else if (strcmp(name, "RssShmem") == 0)
			shared = kib * 1024;
	}
	fclose(f);
	raise_to(&out->file, file + shared);
	return found;
}
