/* The dialects of llama-bench, and another build of knit: one process per run, whose JSON has the times. It loads the file anew each time, outside
 * of its own measurement. */
#include "peer.h"

#include "child.h"

#include "../graph/base.h"
#include "../graph/dtype.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_EXTRA = 32, MAX_WORDS = 32, WORD = 24 };

/* Programs that share the options and the JSON, but for these. */
typedef struct dialect {
	const char *name, *cold_option, *cold_value; /* do not warm up: an option, and its value or NULL */
	bool has_depth; /* -d; else decode after a prompt as -gp DEPTH,N, and no prompt after another */
	bool knit;      /* another build of this bench, with its options and its JSON */
	bool cold;      /* it warms a prompt up with one token: its first run of each start is thrown away */
} dialect;

static const dialect dialects[] = {
	{.name = "llama-bench", .cold_option = "--no-warmup", .has_depth = true},
	{.name = "ik-llama-bench", .cold_option = "-w", .cold_value = "0", .cold = true},
	{.name = "knit", .has_depth = true, .knit = true},
};

typedef struct peer {
	bench_subject base;
	const dialect *dialect;
	char *program, *model; /* program: and its further arguments behind it, each terminated */
	char *extra[MAX_EXTRA];
	size_t extra_count;
	char text[64]; /* the further arguments again, for people */
	uint32_t threads;
	int64_t batch, runs;
	const char *kv;
} peer;

static void peer_close(bench_subject *s) {
	peer *const p = (peer *)s;

	free(p->program);
	free(p->model);
	free(p);
}

/* What it says of itself: build, processor or GPU. */
static void read_version(peer *p, const cJSON *row) {
	const cJSON *const commit = cJSON_GetObjectItemCaseSensitive(row, "build_commit");
	const cJSON *const number = cJSON_GetObjectItemCaseSensitive(row, "build_number");
	const cJSON *const backends = cJSON_GetObjectItemCaseSensitive(row, "backends");
	const cJSON *const own = cJSON_GetObjectItemCaseSensitive(row, "commit"), *const device = cJSON_GetObjectItemCaseSensitive(row, "device");
	const cJSON *const cpu = cJSON_GetObjectItemCaseSensitive(row, "cpu_info"), *const gpu = cJSON_GetObjectItemCaseSensitive(row, "gpu_info");

	if (cJSON_IsString(commit) && cJSON_IsNumber(number))
		snprintf(p->base.version, sizeof p->base.version, "build %.0f (%.20s)%s%.50s", number->valuedouble, commit->valuestring,
		         p->text[0] ? " " : "", p->text);
	if (cJSON_IsString(own))
		snprintf(p->base.version, sizeof p->base.version, "commit %.40s%s%.40s", own->valuestring, p->text[0] ? " " : "", p->text);
	if (cJSON_IsString(device))
		snprintf(p->base.device, sizeof p->base.device, "%.60s", device->valuestring);
	if (cJSON_IsString(backends))
		snprintf(p->base.device, sizeof p->base.device, "%.60s", backends->valuestring);
	if (cJSON_IsString(gpu) && gpu->valuestring[0])
		snprintf(p->base.driver, sizeof p->base.driver, "%.150s", gpu->valuestring);
	else if (cJSON_IsString(cpu))
		snprintf(p->base.driver, sizeof p->base.driver, "%.150s", cpu->valuestring);
}

static knit_status read_samples(peer *p, const char *text, size_t skip, double *out, size_t cap, size_t *count, knit_diag *diag) {
	cJSON *const root = cJSON_Parse(text); /* the first of JSON lines, where there are several */
	const cJSON *const first = p->dialect->knit ? root : cJSON_GetArrayItem(root, 0);
	const cJSON *const samples = cJSON_GetObjectItemCaseSensitive(first, p->dialect->knit ? "seconds" : "samples_ns");
	const double unit = p->dialect->knit ? 1 : 1e-9;
	const cJSON *item;
	size_t seen = 0;

	*count = 0;
	read_version(p, first);
	cJSON_ArrayForEach(item, samples) {
		if (cJSON_IsNumber(item) && item->valuedouble > 0 && seen++ >= skip && *count < cap)
			out[(*count)++] = item->valuedouble * unit;
	}
	cJSON_Delete(root);
	return *count ? KNIT_OK : knit__fail(diag, KNIT_ERR_FORMAT, 0, "%s wrote no times", p->program);
}

typedef struct words { char *argv[2 * MAX_WORDS + MAX_EXTRA + 1], numbers[MAX_WORDS][WORD]; size_t count, used; } words;

static void word(words *w, const char *text) { w->argv[w->count++] = (char *)(uintptr_t)text; }

static void option(words *w, const char *name, int64_t value) {
	snprintf(w->numbers[w->used], WORD, "%" PRId64, value);
	word(w, name);
	word(w, w->numbers[w->used++]);
}

static void knit_command(const peer *p, const bench_test *test, int64_t runs, words *w) {
	word(w, p->program);
	word(w, "bench");
	word(w, p->model);
	option(w, "-p", test->prompt);
	option(w, "-n", test->made);
	option(w, "-d", test->depth);
	option(w, "--threads", p->threads);
	option(w, "--batch", p->batch);
	option(w, "-r", runs);
	word(w, "--kv");
	word(w, p->kv);
	word(w, "--no-peaks");
	word(w, "--no-check");
	word(w, "--no-load");
	word(w, "--json");
	for (size_t i = 0; i < p->extra_count; ++i)
		word(w, p->extra[i]);
}

static void command(const peer *p, const bench_test *test, int64_t runs, words *w) {
	const bool together = !p->dialect->has_depth && test->depth; /* -gp */

	*w = (words){0};
	if (p->dialect->knit) {
		knit_command(p, test, runs, w);
		return;
	}
	word(w, p->program);
	word(w, "-m");
	word(w, p->model);
	option(w, "-p", test->prompt);
	option(w, "-n", together ? 0 : test->made);
	if (together) {
		word(w, "-gp");
		snprintf(w->numbers[w->used], WORD, "%" PRId64 ",%" PRId64, test->depth, test->made);
		word(w, w->numbers[w->used++]);
	} else if (p->dialect->has_depth) {
		option(w, "-d", test->depth);
	}
	option(w, "-t", p->threads);
	option(w, "-b", p->batch);
	option(w, "-ub", p->batch);
	word(w, "-ctk");
	word(w, p->kv);
	word(w, "-ctv");
	word(w, p->kv);
	option(w, "-r", runs);
	word(w, "-o");
	word(w, "json");
	for (size_t i = 0; i < p->extra_count; ++i)
		word(w, p->extra[i]);
}

static knit_status run(bench_subject *s, const bench_test *test, double *out, size_t cap, size_t *count, knit_diag *diag) {
	peer *const p = (peer *)s;
	const size_t runs = (size_t)p->runs < cap ? (size_t)p->runs : cap;
	const size_t skip = p->dialect->cold && test->prompt ? 1 : 0;
	bench_child child;
	words w;

	*count = 0;
	if (!p->dialect->has_depth && test->depth && test->prompt)
		return knit__fail(diag, KNIT_ERR_UNSUPPORTED, 0, "%s has no prompt after others", p->base.name);
	command(p, test, (int64_t)(runs + skip), &w);
	knit_status status = bench_child_run(w.argv, &child, diag);
	if (status != KNIT_OK)
		return status;
	bench_resident_raise(&p->base.seen, &child.memory);
	status = read_samples(p, child.text, skip, out, cap, count, diag);
	free(child.text);
	return status;
}

knit_status bench_peer_probe(void *subject, int64_t tokens, bench_probe *out, knit_diag *diag) {
	peer *const p = subject;
	const bench_test test = {.prompt = BENCH_FIRST_PROMPT};
	bench_child child;
	words w;

	(void)tokens;
	command(p, &test, 1, &w);
	if (p->dialect->cold_option)
		word(&w, p->dialect->cold_option);
	if (p->dialect->cold_value)
		word(&w, p->dialect->cold_value);
	const knit_status status = bench_child_run(w.argv, &child, diag);
	if (status != KNIT_OK)
		return status;
	free(child.text);
	*out = (bench_probe){.load = child.seconds, .loaded = child.memory, .memory = child.memory};
	return KNIT_OK;
}

static const bench_subject_kind kind = {run, peer_close, .warms_itself = true};

/* "ik-llama-bench:repacked=/opt/llama-bench -rtr 1": dialect, what to call it, program, further arguments. */
static knit_status take_spec(peer *p, const char *spec, knit_diag *diag) {
	const size_t left = strcspn(spec, "="), name = strcspn(spec, ":=");
	char *save = NULL;

	for (size_t i = 0; i < sizeof dialects / sizeof *dialects; ++i)
		if (strlen(dialects[i].name) == name && strncmp(spec, dialects[i].name, name) == 0)
			p->dialect = &dialects[i];
	if (!p->dialect || spec[left] != '=' || (spec[name] == ':' && left == name + 1))
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "--peer %.100s: needs llama-bench=PATH, ik-llama-bench=PATH or knit=PATH, or with a label knit:LABEL=PATH",
		                  spec);
	p->program = strdup(spec + left + 1);
	if (!p->program)
		return knit__fail_memory(diag, "a peer", left);
	snprintf(p->base.name, sizeof p->base.name, "%s%s%.*s", p->dialect->knit ? "other knit" : p->dialect->name, spec[name] == ':' ? " " : "",
	         left > name ? (int)(left - name - 1) : 0, left > name ? spec + name + 1 : "");
	snprintf(p->text, sizeof p->text, "%s", strchr(p->program, ' ') ? strchr(p->program, ' ') + 1 : "");
	strtok_r(p->program, " ", &save);
	for (char *w = strtok_r(NULL, " ", &save); w && p->extra_count < MAX_EXTRA; w = strtok_r(NULL, " ", &save))
		p->extra[p->extra_count++] = w;
	if (access(p->program, X_OK) != 0)
		return knit__fail(diag, KNIT_ERR_NOT_FOUND, 0, "%.200s: %s", p->program, strerror(errno));
	return KNIT_OK;
}

knit_status bench_peer_open(const bench_peer_desc *desc, bench_subject **out, knit_diag *diag) {
	peer *const p = calloc(1, sizeof *p);

	*out = NULL;
	if (!p)
		return knit__fail_memory(diag, "a peer", sizeof *p);
	p->base.kind = &kind;
	p->model = strdup(desc->model);
	p->threads = desc->threads;
	p->batch = desc->batch;
	p->runs = desc->runs ? desc->runs : BENCH_PEER_RUNS;
	p->kv = desc->kv ? knit__dtype_info(desc->kv)->name : "f16";
	const knit_status status = p->model ? take_spec(p, desc->spec, diag) : knit__fail_memory(diag, "a peer", sizeof *p);
	if (status != KNIT_OK) {
		peer_close(&p->base);
		return status;
	}
	snprintf(p->base.version, sizeof p->base.version, "%.90s", p->program);
	/* With arguments of its own it may use whatever device. */
	p->base.on_host = strstr(p->text, "-ngl") == NULL && strstr(p->text, "-dev") == NULL;
	*out = &p->base;
	return KNIT_OK;
}
