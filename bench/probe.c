/* A model opened by a child process: its clock and its memory are nobody else's. */
#include "probe.h"

#include "clock.h"
#include "page_cache.h"

#include "../graph/base.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct answer {
	knit_status status;
	knit_diag diag;
	bench_probe probe;
} answer;

static knit_status look(const bench_knit_desc *desc, int64_t tokens, bench_probe *out, knit_diag *diag) {
	const int64_t batch = desc->batch;
	bench_knit_desc own = *desc;
	bench_subject *s = NULL;

	own.unnamed = true;
	knit_status status = bench_knit_open(&own, &s, diag);

	if (status != KNIT_OK)
		return status;
	(void)bench_resident_look(0, &out->loaded);
	out->load = s->load_seconds;
	status = bench_knit_first_token(s, 0, diag);
	out->first = s->first_cold;
	for (int64_t done = 0; done < tokens && status == KNIT_OK; done += batch)
		status = bench_knit_step(s, done, tokens - done < batch ? tokens - done : batch, diag);
	if (status == KNIT_OK)
		status = bench_knit_step(s, tokens, 1, diag);
	(void)bench_resident_look(0, &out->memory);
	return status;
}

/* All of it, over a pipe. */
static bool pass(int fd, void *data, size_t bytes, bool sending) {
	char *at = data;

	while (bytes) {
		const ssize_t n = sending ? write(fd, at, bytes) : read(fd, at, bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		at += n;
		bytes -= (size_t)n;
	}
	return true;
}

knit_status bench_probe_knit(const bench_knit_desc *desc, int64_t tokens, bench_probe *out, knit_diag *diag) {
	answer a = {0};
	int ends[2];

	*out = (bench_probe){0};
	if (pipe(ends) != 0)
		return knit__fail(diag, KNIT_ERR_IO, 0, "no pipe: %s", strerror(errno));
	const pid_t child = fork();
	if (child == 0) {
		close(ends[0]);
		a.status = look(desc, tokens, &a.probe, &a.diag);
		(void)pass(ends[1], &a, sizeof a, true);
		_exit(0); /* neither buffers nor exit handlers of the parent */
	}
	close(ends[1]);
	const bool told = child > 0 && pass(ends[0], &a, sizeof a, false);
	close(ends[0]);
	while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	if (!told)
		return knit__fail(diag, KNIT_ERR_IO, 0, "a process that should load the model %s", child > 0 ? "ended without a word" : strerror(errno));
	*out = a.probe;
	*diag = a.diag;
	return a.status;
}

static int by_total(const void *a, const void *b) {
	const bench_probe *const x = a, *const y = b;
	const double d = x->load + x->first - y->load - y->first;

	return (d > 0) - (d < 0);
}

knit_status bench_loading_measure(const char *path, bench_probe_fn probe, void *subject, int64_t tokens, bench_loading *out,
                                  knit_diag *diag) {
	enum { MOST = 5 };
	bench_probe seen[MOST];
	knit_status status = KNIT_OK;
	size_t n = 0;

	*out = (bench_loading){.share_kept = bench_cache_drop(path)};
	if (out->share_kept >= 0 && out->share_kept <= BENCH_DROPPED)
		status = probe(subject, 0, &out->disk, diag);
	bench_cache_fill(path);
	for (const double begin = bench_now(); status == KNIT_OK && n < MOST && (n == 0 || bench_now() - begin < 1); ++n)
		status = probe(subject, n == 0 ? tokens : 0, &seen[n], diag);
	if (status != KNIT_OK)
		return status;
	const bench_resident memory = seen[0].memory, loaded = seen[0].loaded;
	qsort(seen, n, sizeof *seen, by_total);
	out->cached = seen[n / 2];
	out->cached.memory = memory;
	out->cached.loaded = loaded;
	return KNIT_OK;
}
