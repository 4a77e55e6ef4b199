/* Reads bench runs back and says which tests changed: only where the intervals of the medians part. */
#include "compare.h"

#include <cjson/cJSON.h>

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static const char *text_of(const cJSON *o, const char *name) {
	const cJSON *const item = cJSON_GetObjectItemCaseSensitive(o, name);

	return cJSON_IsString(item) ? item->valuestring : NULL;
}

static bool number_of(const cJSON *o, const char *name, double *out) {
	const cJSON *const item = cJSON_GetObjectItemCaseSensitive(o, name);

	*out = cJSON_IsNumber(item) ? item->valuedouble : 0;
	return cJSON_IsNumber(item);
}

/* The texts and numbers of these names, one after the other; `used` of the key are taken. */
static bool add_texts(const cJSON *o, const char *const *names, size_t count, bench_result *r, const char **wrong) {
	size_t used = strlen(r->key);

	for (size_t i = 0; i < count; ++i) {
		const char *const text = text_of(o, names[i]);
		*wrong = names[i];
		if (!text)
			return false;
		/* Of a model's path the folder does not count. */
		const char *const slash = strcmp(names[i], "model") == 0 ? strrchr(text, '/') : NULL;
		used += (size_t)snprintf(r->key + used, sizeof r->key - used, "%.400s|", slash ? slash + 1 : text);
		if (used >= sizeof r->key)
			return false;
	}
	return true;
}

/* A single op. */
static bool read_op_key(const cJSON *o, bench_result *r, const char **wrong) {
	static const char *const texts[] = {"op", "operands", "device"};
	double threads;

	if (!add_texts(o, texts, sizeof texts / sizeof *texts, r, wrong))
		return false;
	*wrong = "threads";
	if (!number_of(o, "threads", &threads) || !(threads >= 0) || threads > 1e9)
		return false;
	const size_t used = strlen(r->key);
	snprintf(r->key + used, sizeof r->key - used, "%.0f", threads);
	snprintf(r->test, sizeof r->test, "%s %s", text_of(o, "op"), text_of(o, "operands"));
	snprintf(r->subject, sizeof r->subject, "%s", text_of(o, "device"));
	r->tokens = 1;
	return true;
}

/* What makes two rows the same test: not the folder that the model was in, nor the device's driver. */
static bool read_key(const cJSON *o, bench_result *r, const char **wrong) {
	static const char *const texts[] = {"model", "subject", "kv", "test"};
	static const char *const numbers[] = {"prompt", "made", "depth", "threads", "batch"};

	if (!add_texts(o, texts, sizeof texts / sizeof *texts, r, wrong))
		return false;
	size_t used = strlen(r->key);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; ++i) {
		double v;
		*wrong = numbers[i];
		if (!number_of(o, numbers[i], &v) || !(v >= 0) || v > 1e15)
			return false;
		used += (size_t)snprintf(r->key + used, sizeof r->key - used, "%.0f|", v);
		if (used >= sizeof r->key)
			return false;
		r->tokens += i < 2 ? v : 0;
	}
	*wrong = "prompt or made";
	snprintf(r->test, sizeof r->test, "%s", text_of(o, "test"));
	snprintf(r->subject, sizeof r->subject, "%s", text_of(o, "subject"));
	return r->tokens > 0;
}

/* The name of the smallest cache of the host that half of would hold what a token reads, and its GB/s; NULL: none. */
static const char *cache_of(const cJSON *o, const cJSON *peaks, double *peak) {
	static const char *const names[] = {"first cache", "second cache", "last-level cache"};
	const cJSON *const cost = cJSON_GetObjectItemCaseSensitive(o, "per_token"), *cache;
	double weights, states, threads, host, bytes;
	size_t i = 0;

	if (!number_of(cost, "weight_bytes_unique", &weights) || !number_of(cost, "state_bytes", &states) || weights + states <= 0 ||
	    !number_of(o, "threads", &threads) || !number_of(peaks, "host_read_gb_per_s", &host))
		return NULL;
	double read;
	if (!number_of(peaks, "read_gb_per_s", &read) || fabs(read - host) > 1e-9 * host)
		return NULL; /* another device */
	cJSON_ArrayForEach(cache, cJSON_GetObjectItemCaseSensitive(peaks, "host_caches")) {
		if (i < sizeof names / sizeof *names && number_of(cache, "bytes", &bytes) && weights + states <= bytes * threads &&
		    number_of(cache, "read_gb_per_s", peak) && *peak > 0)
			return names[i];
		++i;
	}
	return NULL;
}

/* What binds the row, and how fast the machine itself was in that. */
static void read_limit(const cJSON *o, bench_result *r) {
	const cJSON *const peaks = cJSON_GetObjectItemCaseSensitive(o, "peaks");
	const char *const bound = text_of(o, "bound_by"), *name = NULL;
	double step;

	if (!bound)
		return;
	if (strcmp(bound, "memory") == 0) {
		name = cache_of(o, peaks, &r->peak);
		if (!name && number_of(peaks, "read_gb_per_s", &r->peak))
			name = "memory";
	} else if (strcmp(bound, "compute") == 0 && number_of(peaks, "compute_gflop_per_s", &r->peak)) {
		name = "arithmetic";
	} else if (strcmp(bound, "launch") == 0 && number_of(peaks, "step_s", &step) && step > 0) {
		name = "empty step";
		r->peak = 1 / step;
	}
	snprintf(r->limit, sizeof r->limit, "%s", name && r->peak > 0 ? name : "");
}

static bool read_row(const cJSON *o, bool op, bench_result *r, const char **wrong) {
	const cJSON *const seconds = cJSON_GetObjectItemCaseSensitive(o, "seconds"), *item;
	const cJSON *const check = cJSON_GetObjectItemCaseSensitive(o, "check");

	*r = (bench_result){0};
	if (!(op ? read_op_key(o, r, wrong) : read_key(o, r, wrong)))
		return false;
	snprintf(r->machine, sizeof r->machine, "%s", text_of(o, "machine") ? text_of(o, "machine") : "");
	snprintf(r->commit, sizeof r->commit, "%s", text_of(o, "commit") ? text_of(o, "commit") : "");
	(void)number_of(o, "clock_loop_after_s", &r->clock);
	(void)number_of(o, "others_share", &r->busy);
	(void)number_of(cJSON_GetObjectItemCaseSensitive(o, "peaks"), "read_gb_per_s", &r->read_gbps);
	read_limit(o, r);
	r->wrong = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(check, "wrong"));
	if (!number_of(check, "nmse", &r->nmse) && r->wrong)
		r->nmse = NAN;
	if (op && number_of(o, "nmse_to_first", &r->nmse))
		r->wrong = r->nmse > BENCH_NMSE_WRONG;
	*wrong = "seconds";
	if (!cJSON_IsArray(seconds))
		return false;
	cJSON_ArrayForEach(item, seconds) {
		if (!cJSON_IsNumber(item) || !(item->valuedouble > 0) || r->count == BENCH_MAX_SAMPLES)
			return false;
		r->seconds[r->count++] = item->valuedouble;
	}
	return true;
}

static knit_status add_row(bench_results *out, const bench_result *r, const char *name, size_t line, knit_diag *diag) {
	for (size_t i = 0; i < out->count; ++i)
		if (strcmp(out->rows[i].key, r->key) == 0)
			return knit__fail(diag, KNIT_ERR_FORMAT, 0, "%.80s, line %zu: %s of %s is there twice", name, line, r->test, r->subject);
	if (out->count == out->cap) {
		const size_t cap = out->cap ? out->cap * 2 : 16;
		bench_result *const larger = realloc(out->rows, cap * sizeof *larger);
		if (!larger)
			return knit__fail_memory(diag, "the results", cap * sizeof *larger);
		out->rows = larger;
		out->cap = cap;
	}
	out->rows[out->count++] = *r;
	return KNIT_OK;
}

static knit_status read_line(const char *name, size_t line, const char *text, size_t bytes, bench_results *out, knit_diag *diag) {
	cJSON *const o = cJSON_ParseWithLength(text, bytes);
	const char *const schema = text_of(o, "schema"), *wrong = NULL;
	knit_status status = KNIT_OK;
	bench_result r;

	const bool op = schema && strcmp(schema, "knit.ops/1") == 0;
	if (schema && strcmp(schema, "knit.profile/1") == 0)
		status = KNIT_OK; /* written beside the rows */
	else if (!cJSON_IsObject(o))
		status = knit__fail(diag, KNIT_ERR_FORMAT, 0, "%.80s, line %zu: no JSON object: needs what knit bench --json writes", name, line);
	else if (!op && (!schema || strcmp(schema, "knit.bench/1") != 0))
		status = knit__fail(diag, KNIT_ERR_FORMAT, 0, "%.80s, line %zu: schema is %.40s, needs knit.bench/1", name, line,
		                    schema ? schema : "not there");
	else if (!read_row(o, op, &r, &wrong))
		status = knit__fail(diag, KNIT_ERR_FORMAT, 0, "%.80s, line %zu: \"%s\" is not there or out of range", name, line, wrong);
	else
		status = add_row(out, &r, name, line, diag);
	cJSON_Delete(o);
	return status;
}

knit_status bench_results_read(const char *name, const char *text, size_t bytes, bench_results *out, knit_diag *diag) {
	knit_status status = KNIT_OK;
	size_t line = 0;

	*out = (bench_results){0};
	for (size_t at = 0; at < bytes && status == KNIT_OK;) {
		const char *const end = memchr(text + at, '\n', bytes - at);
		const size_t length = end ? (size_t)(end - text) - at : bytes - at;
		++line;
		if (length)
			status = read_line(name, line, text + at, length, out, diag);
		at += length + 1;
	}
	if (status == KNIT_OK && out->count == 0)
		status = knit__fail(diag, KNIT_ERR_FORMAT, 0, "%.80s: no results in it", name);
	if (status != KNIT_OK)
		bench_results_clear(out);
	return status;
}

void bench_results_clear(bench_results *r) {
	free(r->rows);
	*r = (bench_results){0};
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static const bench_result *find(const bench_results *in, const char *key) {
	for (size_t i = 0; i < in->count; ++i)
		if (strcmp(in->rows[i].key, key) == 0)
			return &in->rows[i];
	return NULL;
}

static void rates_of(const bench_result *r, double *out) {
	for (size_t i = 0; i < r->count; ++i)
		out[i] = r->tokens / r->seconds[i];
}

/* How much faster the machine itself was in the new run, 1: as fast, by what the two runs measured of what binds, or of its clock
 * where that changed more. */
static double drift_of(const bench_result *old, const bench_result *new) {
	const double clock = old->clock > 0 && new->clock > 0 ? old->clock / new->clock : 1;
	const double peak = old->peak > 0 && new->peak > 0 && strcmp(old->limit, new->limit) == 0 ? new->peak / old->peak : 1;

	return fabs(log(peak)) > fabs(log(clock)) ? peak : clock;
}

/* Why a difference may be the machine's although what binds the row did not explain it: others took of it, or its memory, of which
 * arithmetic and caches do not know but models that nearly fit into a cache do, changed by more than was seen. */
static bool doubtful(const bench_result *old, const bench_result *new, bench_change *c) {
	const double memory = old->read_gbps > 0 && new->read_gbps > 0 ? new->read_gbps / old->read_gbps : 1;

	if (fmax(old->busy, new->busy) > BENCH_BUSY) {
		snprintf(c->doubt, sizeof c->doubt, "others took %.0f %% of the machine", fmax(old->busy, new->busy) * 100);
		return true;
	}
	if (strcmp(old->limit, "memory") == 0 || fabs(memory - 1) <= BENCH_DRIFT || fabs(log(c->ratio.median)) > fabs(log(memory)))
		return false;
	snprintf(c->doubt, sizeof c->doubt, "the machine, %.2f x in memory", memory);
	return true;
}

static void compare_rows(const bench_result *old, const bench_result *new, bench_change *out) {
	double old_rates[BENCH_MAX_SAMPLES], new_rates[BENCH_MAX_SAMPLES];
	const double drift = drift_of(old, new);

	*out = (bench_change){.old = old, .new = new};
	rates_of(old, old_rates);
	rates_of(new, new_rates);
	bench_stats_of(old_rates, old->count, 1, &out->old_rate);
	bench_stats_of(new_rates, new->count, 1, &out->new_rate);
	bench_ratio_of(new_rates, new->count, old_rates, old->count, 1, &out->ratio);
	/* What the machine's own change would explain is no difference of the program. */
	const bool faster = out->new_rate.lo > out->old_rate.hi * fmax(1, drift);
	const bool slower = out->new_rate.hi < out->old_rate.lo * fmin(1, drift);
	if (new->wrong)
		out->verdict = BENCH_WRONG;
	else if (old->count < BENCH_ENOUGH_RUNS || new->count < BENCH_ENOUGH_RUNS)
		out->verdict = BENCH_TOO_FEW;
	else if (faster || slower)
		out->verdict = doubtful(old, new, out) ? BENCH_MACHINE : faster ? BENCH_FASTER : BENCH_SLOWER;
	/* A program that became slower may hide behind a machine that became faster, and the other way round. */
	else if (fabs(drift - 1) > BENCH_DRIFT) {
		snprintf(out->doubt, sizeof out->doubt, "the machine, %.2f x in %s", drift, old->limit[0] ? old->limit : "its clock");
		out->verdict = BENCH_MACHINE;
	}
}

size_t bench_compare(const bench_results *old, const bench_results *new, bench_change *out) {
	size_t n = 0;

	for (size_t i = 0; i < new->count; ++i) {
		const bench_result *const before = find(old, new->rows[i].key);
		if (before)
			compare_rows(before, &new->rows[i], &out[n++]);
		else
			out[n++] = (bench_change){.new = &new->rows[i], .verdict = new->rows[i].wrong ? BENCH_WRONG : BENCH_ADDED};
	}
	for (size_t i = 0; i < old->count; ++i)
		if (!find(new, old->rows[i].key))
			out[n++] = (bench_change){.old = &old->rows[i], .verdict = BENCH_GONE};
	return n;
}

bool bench_change_fails(const bench_change *c, double limit) {
	if (c->verdict == BENCH_WRONG || c->verdict == BENCH_GONE)
		return true;
	return c->verdict == BENCH_SLOWER && c->ratio.median < 1 - limit;
}

/* ---- printing ---------------------------------------------------------------------------------------------------- */

static const char *say(const bench_change *c, char out[64]) {
	static const char *const plain[] = {[BENCH_SAME] = "no difference", [BENCH_TOO_FEW] = "too few runs to tell",
	                                    [BENCH_GONE] = "gone", [BENCH_ADDED] = "added"};

	if (c->verdict == BENCH_FASTER || c->verdict == BENCH_SLOWER)
		snprintf(out, 64, "%s by %.1f %%", c->verdict == BENCH_FASTER ? "faster" : "SLOWER", fabs(c->ratio.median - 1) * 100);
	else if (c->verdict == BENCH_MACHINE)
		snprintf(out, 64, "CANNOT TELL: %s", c->doubt);
	else if (c->verdict == BENCH_WRONG)
		snprintf(out, 64, "WRONG: NMSE %.1e", c->new->nmse);
	else
		snprintf(out, 64, "%s", plain[c->verdict]);
	return out;
}

static void print_rate(FILE *f, const bench_stats *s) {
	char text[64] = "-";

	if (s->count)
		snprintf(text, sizeof text, "%.2f (%.2f-%.2f)", s->median, s->lo, s->hi);
	fprintf(f, "  %28s", text);
}

static void print_doubts(FILE *f, const bench_change *changes, size_t count) {
	for (size_t i = 0; i < count; ++i) {
		const bench_result *const a = changes[i].old, *const b = changes[i].new;
		if (!a || !b)
			continue;
		if (strcmp(a->machine, b->machine) != 0)
			fprintf(f, "warning: other machines: %s; %s\n", a->machine, b->machine);
		if (a->clock > 0 && b->clock > 0 && fabs(b->clock / a->clock - 1) > 0.05)
			fprintf(f, "warning: a fixed loop took %.0f %% %s in the new run: the clock, not the program, may have changed\n",
			        fabs(b->clock / a->clock - 1) * 100, b->clock > a->clock ? "longer" : "less");
		if (a->read_gbps > 0 && b->read_gbps > 0 && fabs(b->read_gbps / a->read_gbps - 1) > 0.05)
			fprintf(f, "warning: memory was read at %.1f GB/s in the old run and at %.1f in the new one: where it binds, no smaller difference counts\n",
			        a->read_gbps, b->read_gbps);
		if (fmax(a->busy, b->busy) > BENCH_BUSY)
			fprintf(f, "warning: other processes took %.0f %% of the machine in the old run, %.0f %% in the new one: differences may be "
			           "theirs\n", fmax(a->busy, 0) * 100, fmax(b->busy, 0) * 100);
		return; /* they are of the run, the same in each row */
	}
}

void bench_print_changes(FILE *f, const bench_change *changes, size_t count, double limit) {
	size_t tally[BENCH_ADDED + 1] = {0}, failed = 0;

	int wide = 22;
	for (size_t i = 0; i < count; ++i) {
		const size_t n = strlen(changes[i].new ? changes[i].new->test : changes[i].old->test);
		wide = (int)n > wide ? (int)n : wide;
	}
	print_doubts(f, changes, count);
	fprintf(f, "%-*s %-20s  %28s  %28s  %22s  %s\n", wide, "test", "subject", "old, per second (95 %)", "new, per second (95 %)",
	        "new / old (95 %)", "verdict");
	for (size_t i = 0; i < count; ++i) {
		const bench_change *const c = &changes[i];
		const bench_result *const r = c->new ? c->new : c->old;
		char ratio[64] = "-", verdict[64];
		if (c->ratio.count)
			snprintf(ratio, sizeof ratio, "%.3f (%.3f-%.3f)", c->ratio.median, c->ratio.lo, c->ratio.hi);
		fprintf(f, "%-*s %-20s", wide, r->test, r->subject);
		print_rate(f, &c->old_rate);
		print_rate(f, &c->new_rate);
		const bool fails = limit >= 0 && bench_change_fails(c, limit);
		fprintf(f, "  %22s  %s%s\n", ratio, say(c, verdict), fails ? "  FAILS" : "");
		++tally[c->verdict];
		failed += fails;
	}
	fprintf(f, "%zu faster, %zu slower, %zu without a difference", tally[BENCH_FASTER], tally[BENCH_SLOWER], tally[BENCH_SAME]);
	if (tally[BENCH_TOO_FEW])
		fprintf(f, ", %zu with fewer than %d runs", tally[BENCH_TOO_FEW], BENCH_ENOUGH_RUNS);
	if (tally[BENCH_MACHINE])
		fprintf(f, ", %zu that cannot be told (the machine changed)", tally[BENCH_MACHINE]);
	if (tally[BENCH_WRONG])
		fprintf(f, ", %zu wrong", tally[BENCH_WRONG]);
	if (tally[BENCH_GONE] + tally[BENCH_ADDED])
		fprintf(f, ", %zu gone, %zu added", tally[BENCH_GONE], tally[BENCH_ADDED]);
	if (limit >= 0)
		fprintf(f, "; %zu fail (slower by more than %.4g %%, wrong or gone)", failed, limit * 100);
	fputc('\n', f);
	if (tally[BENCH_MACHINE])
		fputs("the machine itself was another one in the new run: run both again, or let the two builds take turns in one run (--peer knit:before=PATH)\n", f);
}
