/* Owns the measuring of choices: which trials hang on which choice, what is chosen. All is decided in memory; the
 * file is replaced at the end, or not at all. */
#include "vk_tune.h"

#include "vk_plan.h"
#include "vk_trial.h"
#include "vk_tune_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WORTH 0.97   /* of the usual time: less is not told from noise */
#define WARM_MS 300  /* devices raise their clocks only after a while */

/* One trial of the choice of this name. Tiles by bf16: f16 may go to cooperative matrices, which have one form. */
static const struct { const char *choice; knit_vk_trial_desc what; } trials[] = {
	{"matvec_width", {.dtype = KNIT_F16, .rows = 1}},
	{"matvec_width", {.dtype = KNIT_Q8_0, .rows = 1}},
	{"matvec_columns_1", {.dtype = KNIT_F16, .rows = 1}},
	{"matvec_columns_1", {.dtype = KNIT_Q8_0, .rows = 1}},
	{"matvec_columns_4", {.dtype = KNIT_Q8_0, .rows = 4}},
	{"matvec_columns_8", {.dtype = KNIT_Q8_0, .rows = 8}},
	{"dot_rows", {.dtype = KNIT_Q8_0, .rows = 24}},
	{"dot_rows", {.dtype = KNIT_Q8_0, .rows = 128}},
	{"large_tile_rows", {.dtype = KNIT_Q8_0, .rows = 96}},
	{"large_tile_rows", {.dtype = KNIT_BF16, .rows = 160}},
	{"large_tile_rows", {.dtype = KNIT_BF16, .rows = 320}},
	{"middle_tile_rows", {.dtype = KNIT_Q8_0, .rows = 24}},
	{"middle_tile_rows", {.dtype = KNIT_BF16, .rows = 48}},
	{"matvec_rows", {.dtype = KNIT_Q8_0, .rows = 6}},
	{"matvec_rows", {.dtype = KNIT_Q8_0, .rows = 12}},
	{"matvec_rows", {.dtype = KNIT_F16, .rows = 24}},
	{"attention_chunk", {.attention = true, .dtype = KNIT_F16, .rows = 1}},
};
#define TRIALS (sizeof trials / sizeof trials[0])

typedef struct tuner {
	knit_context *ctx;
	knit_device *dev;
	const knit_tune_desc *desc;
	knit_tune_result *out;
	knit_diag *d;
	size_t done, total;
	uint32_t rounds;
} tuner;

/* ---- one choice -------------------------------------------------------------------------------------------------- */

static uint32_t candidates_of(const knit_vk_caps *caps, const knit_vk_choice *c, uint32_t out[KNIT_VK_MAX_CANDIDATES]) {
	uint32_t count = 0;

	for (uint32_t i = 0; i < c->count && !c->fixed; ++i)
		if (knit__vk_candidate_fits(caps, c, c->candidates[i]))
			out[count++] = c->candidates[i];
	return count > 1 ? count : 0;
}

static knit_status ask(tuner *t, const knit_vk_choice *c, knit_diag *d) {
	if (t->desc->go_on && !t->desc->go_on(t->desc->user, c->name, t->done, t->total))
		return knit__fail(d, KNIT_ERR_STATE, 0, "stopped; nothing was written");
	++t->done;
	return KNIT_OK;
}

/* Adds the times of one trial to those of the candidates. Rounds: what changes while all are measured meets all. */
static knit_status measure(tuner *t, const knit_vk_choice *c, const knit_vk_trial *trial, const uint32_t *candidates,
                           uint32_t count, double *sums, knit_diag *d) {
	knit_vk_tuning *const tuning = &t->dev->kernel_caps.tuning;
	const uint32_t before = knit__vk_tuning_get(tuning, c);
	double best[KNIT_VK_MAX_CANDIDATES] = {0};
	knit_status status = KNIT_OK;

	for (uint32_t round = 0; status == KNIT_OK && round < t->rounds; ++round) {
		for (uint32_t i = 0; status == KNIT_OK && i < count; ++i) {
			double ms = 0;
			status = ask(t, c, d);
			knit__vk_tuning_set(tuning, c, candidates[i]);
			if (status == KNIT_OK)
				status = knit__vk_trial_time(trial, 20, &ms, d);
			best[i] = round == 0 || ms < best[i] ? ms : best[i];
		}
	}
	knit__vk_tuning_set(tuning, c, before);
	for (uint32_t i = 0; i < count; ++i)
		sums[i] += best[i];
	return status;
}

static void decide(tuner *t, const knit_vk_choice *c, const uint32_t *candidates, uint32_t count, const double *sums) {
	const uint32_t usual = knit__vk_tuning_get(knit__vk_tuning_of((int)t->dev->kernel_caps.device_class), c);
	uint32_t at = 0, best = 0;

	for (uint32_t i = 0; i < count; ++i) {
		at = candidates[i] == usual ? i : at;
		best = sums[i] < sums[best] ? i : best;
	}
	const uint32_t chosen = sums[best] < sums[at] * WORTH ? best : at;
	knit__vk_tuning_set(&t->dev->kernel_caps.tuning, c, candidates[chosen]);
	for (uint32_t i = 0; i < count; ++i) {
		knit_tune_row *const row = &t->out->rows[t->out->count++];
		*row = (knit_tune_row){.ms = sums[i], .usual = i == at, .chosen = i == chosen};
		snprintf(row->choice, sizeof row->choice, "%s", c->name);
		if (candidates[i] == KNIT_VK_NEVER)
			snprintf(row->candidate, sizeof row->candidate, "never");
		else
			snprintf(row->candidate, sizeof row->candidate, "%" PRIu32, candidates[i]);
	}
}

/* Where the device has no kernel for a trial there is nothing to choose. */
static knit_status tune_choice(tuner *t, const knit_vk_choice *c) {
	uint32_t candidates[KNIT_VK_MAX_CANDIDATES];
	double sums[KNIT_VK_MAX_CANDIDATES] = {0};
	const uint32_t count = candidates_of(&t->dev->kernel_caps, c, candidates);
	knit_status status = KNIT_OK;
	knit_diag why = {0};

	for (size_t i = 0; status == KNIT_OK && count && i < TRIALS; ++i) {
		knit_vk_trial trial;
		if (strcmp(trials[i].choice, c->name) != 0)
			continue;
		status = knit__vk_trial_make(t->ctx, t->dev, &trials[i].what, &trial, &why);
		if (status == KNIT_OK)
			status = measure(t, c, &trial, candidates, count, sums, &why);
		knit__vk_trial_free(&trial);
	}
	if (status == KNIT_ERR_UNSUPPORTED)
		return KNIT_OK;
	if (status != KNIT_OK)
		return knit__fail(t->d, status, 0, "%s", why.text);
	if (count)
		decide(t, c, candidates, count, sums);
	return KNIT_OK;
}

/* ---- all --------------------------------------------------------------------------------------------------------- */

static size_t total_of(const tuner *t) {
	uint32_t candidates[KNIT_VK_MAX_CANDIDATES];
	size_t total = 0;

	for (uint32_t i = 0; i < knit__vk_choice_count; ++i)
		for (size_t k = 0; k < TRIALS; ++k)
			if (strcmp(trials[k].choice, knit__vk_choices[i].name) == 0)
				total += candidates_of(&t->dev->kernel_caps, &knit__vk_choices[i], candidates);
	return total * t->rounds;
}

static knit_status warm_up(tuner *t) {
	knit_vk_trial trial;
	double ms;

	if (t->dev->kernel_caps.device_class == KNIT_VK_SOFTWARE)
		return KNIT_OK;
	knit_status status = knit__vk_trial_make(t->ctx, t->dev, &trials[0].what, &trial, t->d);
	const uint64_t begin = knit__vk_now_ns();
	while (status == KNIT_OK && knit__vk_now_ns() - begin < WARM_MS * UINT64_C(1000000))
		status = knit__vk_trial_time(&trial, WARM_MS, &ms, t->d);
	knit__vk_trial_free(&trial);
	return status;
}

static knit_status tune_all(tuner *t) {
	t->rounds = 2;
	t->dev->kernel_caps.tuning = *knit__vk_tuning_of((int)t->dev->kernel_caps.device_class);
	t->dev->timing = t->dev->probe.timestamp_bits != 0;
	t->total = total_of(t);
	knit_status status = warm_up(t);
	for (uint32_t i = 0; status == KNIT_OK && i < knit__vk_choice_count; ++i)
		status = tune_choice(t, &knit__vk_choices[i]);
	if (status != KNIT_OK)
		return status;
	if (!knit__vk_tuning_save(&t->dev->probe, &t->dev->kernel_caps.tuning))
		return knit__fail(t->d, KNIT_ERR_IO, 0, "%.200s cannot be written", t->out->file);
	return KNIT_OK;
}

static knit_status forget(const knit_tune_result *out, knit_diag *d) {
	if (unlink(out->file) == 0 || errno == ENOENT)
		return KNIT_OK;
	return knit__fail(d, KNIT_ERR_IO, 0, "%.180s cannot be removed: %s", out->file, strerror(errno));
}

knit_status knit__vk_tune(uint32_t index, const knit_context_desc *host, const knit_tune_desc *desc,
                          knit_tune_result *out, knit_diag *d) {
	tuner t = {.desc = desc, .out = out, .d = d};

	knit_status status = knit__vk_open(index, host, &t.dev, d);
	if (status != KNIT_OK)
		return status;
	if (!knit__vk_tuning_path(&t.dev->probe, out->file, sizeof out->file))
		status = knit__fail(d, KNIT_ERR_IO, 0, "there is no folder to keep what is measured: set KNIT_CACHE");
	else if (desc->reset)
		status = forget(out, d);
	else if (knit_context_create(host, &t.ctx) != KNIT_OK)
		status = knit__fail_memory(d, "a context", 0);
	else
		status = tune_all(&t);
	if (status != KNIT_OK)
		out->count = 0;
	knit__vk_close(t.dev);
	if (t.ctx)
		knit_context_destroy(t.ctx);
	return status;
}
