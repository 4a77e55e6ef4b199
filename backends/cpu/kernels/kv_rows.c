/* Owns the rounding of rows on their way into a KV slot for any processor, and the way back. Loops without branches, so that compilers
 * vectorise them. Reference: ops/quant.c. */
#include "kv_rows.h"

#include "kv_store.h"

void knit__kv_row_store(knit_dtype t, const float *x, char *out, int64_t n) { kv_row_store(t, x, out, n); }

static void load_q8_0(const char *src, float *restrict x) {
	knit_q8_0 b;

	memcpy(&b, src, sizeof b);
	const float d = knit__half_load(b.d);
	for (int i = 0; i < KNIT_QK; ++i)
		x[i] = d * (float)b.q[i];
}

static void load_q4_0(const char *src, float *restrict x) {
	knit_q4_0 b;

	memcpy(&b, src, sizeof b);
	const float d = knit__half_load(b.d);
	for (int i = 0; i < KNIT_QK / 2; ++i) {
		x[i] = d * (float)((int)(b.q[i] & 15) - 8);
		x[i + KNIT_QK / 2] = d * (float)((int)(b.q[i] >> 4) - 8);
	}
}

void knit__kv_row_load(knit_dtype t, const char *src, float *x, int64_t n) {
	if (t == KNIT_Q8_0) {
		for (int64_t i = 0; i < n / KNIT_QK; ++i)
			load_q8_0(src + i * (int64_t)sizeof(knit_q8_0), x + i * KNIT_QK);
	} else if (t == KNIT_Q4_0) {
		for (int64_t i = 0; i < n / KNIT_QK; ++i)
			load_q4_0(src + i * (int64_t)sizeof(knit_q4_0), x + i * KNIT_QK);
	} else {
		knit__floats_to_f32(t, src, x, n);
	}
}
