/* The dialect llama-bench: one process per run, `-o json`, whose samples_ns we take. It loads the file anew each time, outside
 * of its own measurement. */
#include "peer.h"

#include "../graph/base.h"
#include "../graph/dtype.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { REPETITIONS = 3, MAX_OUTPUT = 1 << 20, MAX_EXTRA = 16 };

typedef struct peer {
	bench_subject base;
	char *program, *model; /* program: and its further arguments behind it, each terminated */
	char *extra[MAX_EXTRA];
	size_t extra_count;
	uint32_t threads;
	int64_t batch;
	const char *kv;
} peer;

static void peer_close(bench_subject *s) {
	peer *const p = (peer *)s;

	free(p->program);
	free(p->model);
	free(p);
}

/* What the program wrote to stdout, terminated; NULL with the reason. */
static char *output_of(const peer *p, char *const *argv, knit_diag *diag) {
	posix_spawn_file_actions_t actions;
	char *text = calloc(1, MAX_OUTPUT);
	size_t have = 0;
	int ends[2], state = 0;
	pid_t child;

	if (!text || pipe(ends) != 0) {
		free(text);
		knit__fail(diag, KNIT_ERR_IO, 0, "no pipe to %s: %s", p->program, strerror(errno));
		return NULL;
	}
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
	posix_spawn_file_actions_addclose(&actions, ends[0]);
	posix_spawn_file_actions_addclose(&actions, ends[1]);
	posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", 1, 0); /* O_WRONLY */
	const int error = posix_spawnp(&child, p->program, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	for (ssize_t n = 1; error == 0 && n > 0 && have < MAX_OUTPUT - 1; have += n > 0 ? (size_t)n : 0) {
		n = read(ends[0], text + have, MAX_OUTPUT - 1 - have);
		if (n < 0 && errno == EINTR)
			n = 1, have -= 1;
	}
	close(ends[0]);
	if (error == 0)
		while (waitpid(child, &state, 0) < 0 && errno == EINTR)
			;
	if (error || !WIFEXITED(state) || WEXITSTATUS(state) != 0) {
		knit__fail(diag, error ? KNIT_ERR_NOT_FOUND : KNIT_ERR_IO, 0, "%s %s", p->program,
		           error ? strerror(error) : "ended with an error: run it by hand to see why");
		free(text);
		return NULL;
	}
	return text;
}

/* What it says of itself: build, processor or GPU. */
static void read_version(peer *p, const cJSON *row) {
	const cJSON *const commit = cJSON_GetObjectItemCaseSensitive(row, "build_commit");
	const cJSON *const number = cJSON_GetObjectItemCaseSensitive(row, "build_number");
	const cJSON *const backends = cJSON_GetObjectItemCaseSensitive(row, "backends");
	const cJSON *const cpu = cJSON_GetObjectItemCaseSensitive(row, "cpu_info"), *const gpu = cJSON_GetObjectItemCaseSensitive(row, "gpu_info");

	if (cJSON_IsString(commit) && cJSON_IsNumber(number))
		snprintf(p->base.version, sizeof p->base.version, "build %.0f (%.40s)", number->valuedouble, commit->valuestring);
	if (cJSON_IsString(backends))
		snprintf(p->base.device, sizeof p->base.device, "%.60s", backends->valuestring);
	if (cJSON_IsString(gpu) && gpu->valuestring[0])
		snprintf(p->base.driver, sizeof p->base.driver, "%.150s", gpu->valuestring);
	else if (cJSON_IsString(cpu))
		snprintf(p->base.driver, sizeof p->base.driver, "%.150s", cpu->valuestring);
}

static knit_status read_samples(peer *p, const char *text, double *out, size_t cap, size_t *count,
                                knit_diag *diag) {
	cJSON *const root = cJSON_Parse(text);
	const cJSON *const first = cJSON_GetArrayItem(root, 0);
	const cJSON *const samples = cJSON_GetObjectItemCaseSensitive(first, "samples_ns");
	const cJSON *item;

	*count = 0;
	read_version(p, first);
	cJSON_ArrayForEach(item, samples) {
		if (cJSON_IsNumber(item) && item->valuedouble > 0 && *count < cap)
			out[(*count)++] = item->valuedouble * 1e-9;
	}
	cJSON_Delete(root);
	return *count ? KNIT_OK : knit__fail(diag, KNIT_ERR_FORMAT, 0, "%s wrote no samples_ns", p->program);
}

static knit_status run(bench_subject *s, const bench_test *test, double *out, size_t cap, size_t *count,
                       knit_diag *diag) {
	peer *const p = (peer *)s;
	char prompt[24], made[24], depth[24], threads[16], batch[24], repetitions[8];

	snprintf(prompt, sizeof prompt, "%" PRId64, test->prompt);
	snprintf(made, sizeof made, "%" PRId64, test->made);
	snprintf(depth, sizeof depth, "%" PRId64, test->depth);
	snprintf(threads, sizeof threads, "%u", p->threads);
	snprintf(batch, sizeof batch, "%" PRId64, p->batch);
	snprintf(repetitions, sizeof repetitions, "%d", cap < REPETITIONS ? (int)cap : REPETITIONS);
	char *argv[32 + MAX_EXTRA] = {p->program, "-m", p->model, "-p", prompt, "-n", made, "-d", depth, "-t", threads, "-b", batch,
	                              "-ub", batch, "-ctk", (char *)(uintptr_t)p->kv, "-ctv", (char *)(uintptr_t)p->kv, "-r",
	                              repetitions, "-o", "json"};
	size_t argc = 0;

	while (argv[argc])
		++argc;
	for (size_t i = 0; i < p->extra_count; ++i)
		argv[argc++] = p->extra[i];
	char *const text = output_of(p, argv, diag);
	if (!text)
		return diag->status ? diag->status : KNIT_ERR_IO;
	const knit_status status = read_samples(p, text, out, cap, count, diag);
	free(text);
	return status;
}

static const bench_subject_kind kind = {run, peer_close};

knit_status bench_peer_open(const bench_peer_desc *desc, bench_subject **out, knit_diag *diag) {
	const char *const path = strchr(desc->spec, '=');
	peer *const p = calloc(1, sizeof *p);

	*out = NULL;
	if (!path || strncmp(desc->spec, "llama-bench=", 12) != 0) {
		free(p);
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "--peer %s: needs llama-bench=PATH", desc->spec);
	}
	if (!p)
		return knit__fail_memory(diag, "a peer", sizeof *p);
	p->base.kind = &kind;
	p->program = strdup(path + 1);
	p->model = strdup(desc->model);
	p->threads = desc->threads;
	p->batch = desc->batch;
	p->kv = desc->kv ? knit__dtype_info(desc->kv)->name : "f16";
	if (!p->program || !p->model) {
		peer_close(&p->base);
		return knit__fail_memory(diag, "a peer", sizeof *p);
	}
	char *save = NULL;
	strtok_r(p->program, " ", &save);
	for (char *word = strtok_r(NULL, " ", &save); word && p->extra_count < MAX_EXTRA; word = strtok_r(NULL, " ", &save))
		p->extra[p->extra_count++] = word;
	if (access(p->program, X_OK) != 0) {
		const knit_status status = knit__fail(diag, KNIT_ERR_NOT_FOUND, 0, "%.200s: %s", p->program, strerror(errno));
		peer_close(&p->base);
		return status;
	}
	snprintf(p->base.name, sizeof p->base.name, "llama-bench");
	snprintf(p->base.version, sizeof p->base.version, "%.90s", p->program);
	p->base.on_host = p->extra_count == 0;
	*out = &p->base;
	return KNIT_OK;
}
