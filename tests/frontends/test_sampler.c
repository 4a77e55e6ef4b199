/* The sampler: greedy, the standard way against its definition, llama2.c's way against a plain restatement of it. */
#include "../../frontends/text/sampler.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define VOCAB 40

static knit_context *ctx;
static track_alloc track;
static knit_diag diag;

static void begin(void) {
	diag = (knit_diag){0};
	ctx = track_begin(&track);
}

static void end(void) { track_end(&track, ctx); }

static knit_sampler *make(uint32_t vocab, knit_sampler_desc desc) {
	knit_sampler *s = NULL;

	ck_assert_msg(knit__sampler_create(ctx, vocab, &desc, &s, &diag) == KNIT_OK, "%s", diag.text);
	return s;
}

static int32_t next(knit_sampler *s, const float *logits) {
	int32_t id = -1;

	ck_assert_msg(knit__sampler_next(s, logits, &id, &diag) == KNIT_OK, "%s", diag.text);
	return id;
}

static uint32_t noise_state;
static float noise(void) {
	noise_state = noise_state * 1664525 + 1013904223;
	return (float)(noise_state >> 8) / 16777216.0f;
}

static void random_logits(float *logits, uint32_t n, uint32_t seed) {
	noise_state = seed;
	for (uint32_t i = 0; i < n; ++i)
		logits[i] = 8.0f * noise() - 4.0f;
}

/* ---- greedy and faults ------------------------------------------------------------------------------------------- */

START_TEST(greedy_takes_the_lowest_of_equals) {
	const float logits[] = {-1, 3, 3, 2, -INFINITY};

	begin();
	for (int kind = 0; kind < 2; ++kind) {
		knit_sampler *s = make(5, (knit_sampler_desc){.kind = (knit_sampler_kind)kind});

		ck_assert_int_eq(next(s, logits), 1);
		knit__sampler_destroy(s);
	}
	end();
}
END_TEST

START_TEST(what_cannot_be_sampled) {
	const knit_sampler_desc bad[] = {
		{.temperature = -1},
		{.temperature = NAN},
		{.temperature = INFINITY},
		{.top_p = -0.1f},
		{.top_p = NAN},
		{.kind = (knit_sampler_kind)7},
		{.kind = KNIT_SAMPLER_LLAMA2C, .temperature = 1, .top_k = 3, .seed = 1},
		{.kind = KNIT_SAMPLER_LLAMA2C, .temperature = 1},
	};
	const float nan_logit[] = {0, NAN}, inf_logit[] = {INFINITY, 0}, none[] = {-INFINITY, -INFINITY};
	knit_sampler *s = NULL;
	int32_t id = -1;

	begin();
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i)
		ck_assert_int_eq(knit__sampler_create(ctx, 2, &bad[i], &s, &diag), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit__sampler_create(ctx, 0, &(knit_sampler_desc){0}, &s, &diag), KNIT_ERR_ARGUMENT);
	ck_assert_ptr_null(s);
	diag = (knit_diag){0};
	for (int kind = 0; kind < 2; ++kind)
		for (int temperature = 0; temperature < 2; ++temperature) {
			s = make(2, (knit_sampler_desc){.kind = (knit_sampler_kind)kind, .temperature = (float)temperature, .seed = 1});
			ck_assert_int_eq(knit__sampler_next(s, nan_logit, &id, NULL), KNIT_ERR_FORMAT);
			ck_assert_int_eq(knit__sampler_next(s, inf_logit, &id, NULL), KNIT_ERR_FORMAT);
			ck_assert_int_eq(knit__sampler_next(s, none, &id, NULL), KNIT_ERR_FORMAT);
			knit__sampler_destroy(s);
		}
	ck_assert_int_eq(id, -1);
	for (uint64_t fail_at = 1; fail_at <= 2; ++fail_at) {
		track.fail_at = track.count + fail_at;
		ck_assert_int_eq(knit__sampler_create(ctx, 2, &(knit_sampler_desc){0}, &s, NULL), KNIT_ERR_MEMORY);
		track.fail_at = 0;
	}
	end();
}
END_TEST

/* ---- the standard sampler ---------------------------------------------------------------------------------------- */

/* The probabilities by definition: top-k, softmax at temperature, top-p. */
static void define(const float *logits, const knit_sampler_desc *d, double *p) {
	int32_t order[VOCAB];
	double total = 0, kept = 0;
	int k = d->top_k ? (int)d->top_k : VOCAB, n = 0;

	for (int i = 0; i < VOCAB; ++i) {
		int at = i;

		for (; at > 0 && logits[order[at - 1]] < logits[i]; --at)
			order[at] = order[at - 1];
		order[at] = i;
		p[i] = 0;
	}
	for (int i = 0; i < k; ++i)
		total += exp((double)(logits[order[i]] - logits[order[0]]) / (double)d->temperature);
	while (n < k && (n == 0 || d->top_p <= 0 || d->top_p >= 1 || kept < (double)d->top_p * total)) {
		p[order[n]] = exp((double)(logits[order[n]] - logits[order[0]]) / (double)d->temperature);
		kept += p[order[n++]];
	}
	for (int i = 0; i < VOCAB; ++i)
		p[i] /= kept;
}

/* 20,000 draws against the definition: no token outside the set, and chi-squared within what 1 run in 10^6 exceeds. */
START_TEST(frequencies_follow_the_definition) {
	const knit_sampler_desc descs[] = {
		{.temperature = 1, .seed = 1},
		{.temperature = 0.5f, .seed = 2},
		{.temperature = 3, .seed = 3},
		{.temperature = 1, .top_k = 1, .seed = 4},
		{.temperature = 1, .top_k = 7, .seed = 5},
		{.temperature = 1, .top_p = 0.9f, .seed = 6},
		{.temperature = 1, .top_p = 0.0001f, .seed = 7},
		{.temperature = 1.5f, .top_k = 10, .top_p = 0.7f, .seed = 8},
		{.temperature = 1, .top_k = 1000, .top_p = 1, .seed = 9},
	};
	const int draws = 20000;
	float logits[VOCAB];
	double p[VOCAB];

	begin();
	random_logits(logits, VOCAB, 5);
	logits[3] = logits[11]; /* equal ones */
	logits[20] = -INFINITY;
	for (size_t i = 0; i < sizeof descs / sizeof descs[0]; ++i) {
		knit_sampler_desc d = descs[i];
		knit_sampler *s = make(VOCAB, d);
		int seen[VOCAB] = {0}, free_cells = -1;
		double chi = 0;

		d.top_k = d.top_k > VOCAB ? 0 : d.top_k;
		define(logits, &d, p);
		const uint64_t allocations = track.count;
		for (int k = 0; k < draws; ++k)
			seen[next(s, logits)]++;
		ck_assert_uint_eq(track.count, allocations); /* nothing per token */
		for (int k = 0; k < VOCAB; ++k) {
			ck_assert_msg(p[k] > 0 || seen[k] == 0, "case %zu: token %d is outside the set", i, k);
			if (p[k] * draws >= 5) {
				chi += (seen[k] - p[k] * draws) * (seen[k] - p[k] * draws) / (p[k] * draws);
				++free_cells;
			}
		}
		ck_assert_msg(chi <= free_cells + 5 * sqrt(2.0 * free_cells) + 12, "case %zu: chi squared %g, %d", i, chi, free_cells);
		knit__sampler_destroy(s);
	}
	end();
}
END_TEST

START_TEST(a_seed_gives_one_sequence) {
	float logits[VOCAB];
	int32_t first[100];
	int same = 0;

	begin();
	random_logits(logits, VOCAB, 6);
	knit_sampler *s = make(VOCAB, (knit_sampler_desc){.temperature = 2, .top_p = 0.95f, .seed = 0});
	knit_sampler *other = make(VOCAB, (knit_sampler_desc){.temperature = 2, .top_p = 0.95f, .seed = 1});
	for (int i = 0; i < 100; ++i)
		first[i] = next(s, logits);
	knit__sampler_reset(s);
	for (int i = 0; i < 100; ++i) {
		ck_assert_int_eq(next(s, logits), first[i]);
		same += next(other, logits) == first[i];
	}
	ck_assert_int_lt(same, 60);
	knit__sampler_destroy(s);
	knit__sampler_destroy(other);
	end();
}
END_TEST

/* With equal logits of 2^20 tokens the id shows the first 20 bits of the number drawn: the published generators, computed
 * apart from this code (xoshiro256** seeded with splitmix64 from 1; xorshift64* from 42). */
START_TEST(random_numbers_are_the_published_ones) {
	static const double standard[] = {0.7029218331588505, 0.5204366199388569, 0.5741057000197225, 0.39132860204190445, 0.6971784165599615};
	static const int32_t llama2c[] = {5688906, 13124075, 13256299, 15838407, 12824397};
	const uint32_t n = 1 << 20;
	float *logits = calloc(n, sizeof *logits);

	begin();
	ck_assert_ptr_nonnull(logits);
	knit_sampler *s = make(n, (knit_sampler_desc){.temperature = 1, .seed = 1});
	for (int i = 0; i < 5; ++i)
		ck_assert_int_eq(next(s, logits), (int32_t)(standard[i] * n));
	knit__sampler_destroy(s);
	s = make(n, (knit_sampler_desc){.kind = KNIT_SAMPLER_LLAMA2C, .temperature = 1, .seed = 42});
	for (int i = 0; i < 5; ++i)
		ck_assert_int_eq(next(s, logits), llama2c[i] >> 4);
	knit__sampler_destroy(s);
	free(logits);
	end();
}
END_TEST

/* ---- llama2.c's sampler ------------------------------------------------------------------------------------------ */

/* The steps of that sampler one after the other, with a stable insertion sort. */
static int32_t restated(const float *logits, float temperature, float top_p, float coin) {
	float p[VOCAB], scaled[VOCAB], max = -INFINITY, sum = 0, drawn = 0;
	const float cutoff = (1.0f - top_p) / (VOCAB - 1);
	int32_t order[VOCAB];
	int n = 0, last;

	for (int i = 0; i < VOCAB; ++i) {
		scaled[i] = logits[i] / temperature;
		max = scaled[i] > max ? scaled[i] : max;
	}
	for (int i = 0; i < VOCAB; ++i)
		sum += p[i] = expf(scaled[i] - max);
	for (int i = 0; i < VOCAB; ++i)
		p[i] /= sum;
	if (top_p <= 0 || top_p >= 1) {
		for (int i = 0; i < VOCAB; ++i)
			if (coin < (drawn += p[i]))
				return i;
		return VOCAB - 1;
	}
	for (int i = 0; i < VOCAB; ++i) {
		if (p[i] < cutoff)
			continue;
		int at = n++;
		for (; at > 0 && p[order[at - 1]] < p[i]; --at)
			order[at] = order[at - 1];
		order[at] = i;
	}
	last = n - 1;
	sum = 0;
	for (int i = 0; i < n; ++i) {
		sum += p[order[i]];
		if (sum > top_p) {
			last = i;
			break;
		}
	}
	for (int i = 0; i <= last; ++i)
		if (coin * sum < (drawn += p[order[i]]))
			return order[i];
	return order[last];
}

static float coin_of(uint64_t *x) {
	*x ^= *x >> 12;
	*x ^= *x << 25;
	*x ^= *x >> 27;
	return (float)((uint32_t)(*x * UINT64_C(0x2545f4914f6cdd1d) >> 32) >> 8) / 16777216.0f;
}

START_TEST(the_llama2c_way_step_by_step) {
	static const float top_ps[] = {0, 1, 0.9f, 0.5f, 0.05f, 0.999f}, temperatures[] = {1, 0.7f, 1.8f};
	float logits[VOCAB];

	begin();
	for (uint64_t round = 1; round <= 200; ++round)
		for (int i = 0; i < 6; ++i)
			for (int k = 0; k < 3; ++k) {
				knit_sampler *s = make(VOCAB, (knit_sampler_desc){.kind = KNIT_SAMPLER_LLAMA2C, .temperature = temperatures[k],
				                                                  .top_p = top_ps[i], .seed = round});
				uint64_t x = round;

				random_logits(logits, VOCAB, (uint32_t)round);
				for (int j = 0; j < VOCAB; j += 3)
					logits[j] = floorf(logits[j]); /* equal ones */
				for (int draw = 0; draw < 4; ++draw)
					ck_assert_int_eq(next(s, logits), restated(logits, temperatures[k], top_ps[i], coin_of(&x)));
				knit__sampler_destroy(s);
			}
	end();
}
END_TEST

/* Where llama2.c would read before its array: a vocabulary of one, a top-p that nothing passes. */
START_TEST(the_llama2c_way_at_its_edges) {
	float logits[VOCAB] = {0};

	begin();
	knit_sampler *s = make(1, (knit_sampler_desc){.kind = KNIT_SAMPLER_LLAMA2C, .temperature = 1, .top_p = 0.5f, .seed = 3});
	ck_assert_int_eq(next(s, logits), 0);
	knit__sampler_destroy(s);
	s = make(VOCAB, (knit_sampler_desc){.kind = KNIT_SAMPLER_LLAMA2C, .temperature = 1, .top_p = 1e-6f, .seed = 3});
	ck_assert_int_eq(next(s, logits), 0);
	knit__sampler_destroy(s);
	end();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		greedy_takes_the_lowest_of_equals,     what_cannot_be_sampled,       frequencies_follow_the_definition,
		a_seed_gives_one_sequence,             random_numbers_are_the_published_ones, the_llama2c_way_step_by_step,
		the_llama2c_way_at_its_edges,
	};

	return suite_run("sampler", tests, sizeof tests / sizeof tests[0]);
}
