/* Owns the choice of the next token from logits: greedy, temperature, top-k, top-p, and llama2.c's way of doing so. */
#include "sampler.h"

#include <math.h>
#include <string.h>

typedef struct choice {
	float weight; /* logit or probability */
	int32_t id;
} choice;

struct knit_sampler {
	knit_context *ctx; /* retained */
	knit_sampler_desc desc;
	uint32_t vocab_size;
	uint64_t random[4]; /* llama2.c uses the first alone */
	choice *choices;    /* vocab_size, reordered by every call */
};

/* ---- random numbers ---------------------------------------------------------------------------------------------- */

static uint64_t rotate(uint64_t x, int by) { return x << by | x >> (64 - by); }

/* splitmix64 (Steele, Lea and Flood 2014): spreads any seed over the state. */
static uint64_t next_seed(uint64_t *state) {
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* xoshiro256** 1.0 (Blackman and Vigna 2021), as a number in [0, 1) of 53 bits. */
static double draw(uint64_t s[4]) {
	const uint64_t result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotate(s[3], 45);
	return (double)(result >> 11) * 0x1p-53;
}

/* xorshift64* (Marsaglia 2003, Vigna 2016), as llama2.c takes a coin from it: 24 bits in [0, 1). */
static float draw_llama2c(uint64_t *state) {
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return (float)((x * UINT64_C(0x2545f4914f6cdd1d)) >> 40) * 0x1p-24f;
}

void knit__sampler_reset(knit_sampler *s) {
	uint64_t seed = s->desc.seed;

	if (s->desc.kind == KNIT_SAMPLER_LLAMA2C) {
		s->random[0] = seed;
		return;
	}
	for (int i = 0; i < 4; ++i)
		s->random[i] = next_seed(&seed);
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

static knit_status check(const knit_sampler_desc *d, uint32_t vocab_size, knit_diag *diag) {
	if (vocab_size == 0 || vocab_size > INT32_MAX)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "sampler: a vocabulary of %u tokens", vocab_size);
	if (d->kind != KNIT_SAMPLER_STANDARD && d->kind != KNIT_SAMPLER_LLAMA2C)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "sampler: unknown kind %d", (int)d->kind);
	if (!isfinite(d->temperature) || d->temperature < 0.0f)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "sampler: temperature %g, needs 0 (greedy) or more",
		                  (double)d->temperature);
	if (!isfinite(d->top_p) || d->top_p < 0.0f)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "sampler: top-p %g, needs 0 (off) to 1", (double)d->top_p);
	if (d->kind == KNIT_SAMPLER_LLAMA2C && d->top_k != 0)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "sampler: llama2.c's sampler has no top-k");
	if (d->kind == KNIT_SAMPLER_LLAMA2C && d->seed == 0 && d->temperature > 0.0f)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "sampler: llama2.c's random numbers need a seed other than 0");
	return KNIT_OK;
}

knit_status knit__sampler_create(knit_context *ctx, uint32_t vocab_size, const knit_sampler_desc *desc,
                                 knit_sampler **out, knit_diag *diag) {
	const knit_status status = check(desc, vocab_size, diag);

	*out = NULL;
	if (status != KNIT_OK)
		return status;
	knit_sampler *s = knit__alloc_zero(&ctx->a, sizeof *s);
	if (!s)
		return knit__fail_memory(diag, "a sampler", sizeof *s);
	s->choices = knit__alloc_array(&ctx->a, vocab_size, sizeof *s->choices);
	if (!s->choices) {
		knit__free(&ctx->a, s, sizeof *s);
		return knit__fail_memory(diag, "a sampler", vocab_size * sizeof *s->choices);
	}
	s->ctx = knit__context_retain(ctx);
	s->desc = *desc;
	s->vocab_size = vocab_size;
	knit__sampler_reset(s);
	*out = s;
	return KNIT_OK;
}

void knit__sampler_destroy(knit_sampler *s) {
	if (!s)
		return;

	knit_context *ctx = s->ctx;
	knit__free(&ctx->a, s->choices, s->vocab_size * sizeof *s->choices);
	knit__free(&ctx->a, s, sizeof *s);
	knit__context_release(ctx);
}

/* ---- a heap of choices: the heaviest first, the lowest id among equals --------------------------------------------- */

static bool before(const choice *a, const choice *b) {
	return a->weight != b->weight ? a->weight > b->weight : a->id < b->id;
}

static void sift_down(choice *heap, uint32_t count, uint32_t i) {
	const choice moved = heap[i];

	for (uint32_t down; (down = 2 * i + 1) < count; i = down) {
		if (down + 1 < count && before(&heap[down + 1], &heap[down]))
			++down;
		if (!before(&heap[down], &moved))
			break;
		heap[i] = heap[down];
	}
	heap[i] = moved;
}

static void heap_make(choice *heap, uint32_t count) {
	for (uint32_t i = count / 2; i-- > 0;)
		sift_down(heap, count, i);
}

/* Moves the first choice to heap[count - 1]; the heap has one less. Choices taken so stand from the end in order. */
static const choice *heap_take(choice *heap, uint32_t count) {
	const choice first = heap[0];

	heap[0] = heap[count - 1];
	heap[count - 1] = first;
	if (count > 1)
		sift_down(heap, count - 1, 0);
	return &heap[count - 1];
}

/* ---- the standard sampler ---------------------------------------------------------------------------------------- */

/* The id whose share of [0, total) holds `at`, walking n choices backwards from the end (or forwards from the begin). */
static int32_t pick(const knit_sampler *s, float max, bool sorted, uint32_t n, double at) {
	double sum = 0.0;
	int32_t last = 0;

	for (uint32_t i = 0; i < n; ++i) {
		const choice *c = &s->choices[sorted ? s->vocab_size - 1 - i : i];
		const double weight = exp((double)(c->weight - max) / (double)s->desc.temperature);

		sum += weight;
		if (weight > 0.0)
			last = c->id;
		if (at < sum)
			return c->id;
	}
	return last; /* rounding: the sum came out a little smaller than before */
}

static int32_t sample_standard(knit_sampler *s, const float *logits, float max) {
	const uint32_t n = s->vocab_size;
	const uint32_t top_k = s->desc.top_k && s->desc.top_k < n ? s->desc.top_k : n;
	const bool has_top_p = s->desc.top_p > 0.0f && s->desc.top_p < 1.0f;
	const double temperature = (double)s->desc.temperature;
	const bool sorted = top_k < n || has_top_p;
	double total = 0.0, wanted;
	uint32_t kept = top_k;

	for (uint32_t i = 0; i < n; ++i)
		s->choices[i] = (choice){logits[i], (int32_t)i};
	if (sorted)
		heap_make(s->choices, n);

	/* The sum that top-p is a share of: over what top-k leaves. */
	for (uint32_t i = 0; i < top_k; ++i) {
		const choice *c = top_k < n ? heap_take(s->choices, n - i) : &s->choices[i];

		total += exp((double)(c->weight - max) / temperature);
	}
	if (has_top_p) {
		wanted = (double)s->desc.top_p * total;
		total = 0.0;
		for (kept = 0; kept < top_k && (kept == 0 || total < wanted); ++kept) {
			const choice *c = top_k < n ? &s->choices[n - 1 - kept] : heap_take(s->choices, n - kept);

			total += exp((double)(c->weight - max) / temperature);
		}
	}
	return pick(s, max, sorted, kept, draw(s->random) * total);
}

/* ---- llama2.c's sampler ------------------------------------------------------------------------------------------ */

/* All in float and in this order: the same roundings give the same choices. */
static void softmax_llama2c(knit_sampler *s, const float *logits, float max) {
	float sum = 0.0f;

	max /= s->desc.temperature;
	for (uint32_t i = 0; i < s->vocab_size; ++i) {
		const float weight = expf(logits[i] / s->desc.temperature - max);

		s->choices[i] = (choice){weight, (int32_t)i};
		sum += weight;
	}
	for (uint32_t i = 0; i < s->vocab_size; ++i)
		s->choices[i].weight /= sum;
}

static int32_t sample_all_llama2c(const knit_sampler *s, float coin) {
	float sum = 0.0f;

	for (uint32_t i = 0; i < s->vocab_size; ++i) {
		sum += s->choices[i].weight;
		if (coin < sum)
			return (int32_t)i;
	}
	return (int32_t)s->vocab_size - 1;
}

static int32_t sample_top_p_llama2c(knit_sampler *s, int32_t most_likely, float coin) {
	const float top_p = s->desc.top_p;
	/* What is below this cannot be part of the set; llama2.c leaves it out before it sorts, and so from the sums. */
	const float cutoff = (1.0f - top_p) / (float)(s->vocab_size - 1);
	uint32_t n = 0, kept = 0;
	float sum = 0.0f, drawn = 0.0f;

	for (uint32_t i = 0; i < s->vocab_size; ++i)
		if (s->choices[i].weight >= cutoff)
			s->choices[n++] = s->choices[i];
	if (n == 0)
		return most_likely; /* a tiny top-p over nearly equal tokens */

	heap_make(s->choices, n);
	while (kept < n && sum <= top_p) {
		sum += heap_take(s->choices, n - kept)->weight;
		++kept;
	}
	const float at = coin * sum;
	for (uint32_t i = 0; i < kept; ++i) {
		const choice *c = &s->choices[n - 1 - i];

		drawn += c->weight;
		if (at < drawn)
			return c->id;
	}
	return s->choices[n - kept].id;
}

static int32_t sample_llama2c(knit_sampler *s, const float *logits, int32_t most_likely) {
	softmax_llama2c(s, logits, logits[most_likely]);
	const float coin = draw_llama2c(&s->random[0]);
	if (s->desc.top_p <= 0.0f || s->desc.top_p >= 1.0f || s->vocab_size == 1)
		return sample_all_llama2c(s, coin);
	return sample_top_p_llama2c(s, most_likely, coin);
}

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

knit_status knit__sampler_next(knit_sampler *s, const float *logits, int32_t *id, knit_diag *diag) {
	int32_t best = 0;

	for (uint32_t i = 0; i < s->vocab_size; ++i) {
		if (isnan(logits[i]) || logits[i] == INFINITY)
			return knit__fail(diag, KNIT_ERR_FORMAT, 0,
			                  "sampler: the logit of token %u is %s: the model's weights may hold NaN or infinity", i,
			                  isnan(logits[i]) ? "NaN" : "infinite");
		if (logits[i] > logits[best])
			best = (int32_t)i;
	}
	if (logits[best] == -INFINITY)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0, "sampler: all logits are minus infinity");

	if (s->desc.temperature == 0.0f)
		*id = best;
	else if (s->desc.kind == KNIT_SAMPLER_LLAMA2C)
		*id = sample_llama2c(s, logits, best);
	else
		*id = sample_standard(s, logits, logits[best]);
	return KNIT_OK;
}
