/* Owns the tiles of linear for weights in panels in NEON as every 64-bit ARM has it (linear_panels_neon.h), and the sums
 * that a quantised row of x carries for them. */
#include "linear_panels_neon.h"

/* After q: minus `bias` times the sum of every `n` of them (a multiple of 16). */
KNIT_INLINE void add_sums(int64_t k, int32_t bias, const int n, char *row) {
	char *const sums = row + knit__linear_padded(k);

	for (int64_t i = 0; i < k; i += n) {
		int32_t sum = 0;

		for (int j = 0; j < n; j += 16)
			sum += vaddlvq_s8(knit__load16(row + i + j));
		sum *= -bias;
		memcpy(sums + i / n * 4, &sum, sizeof sum);
	}
}

void knit__linear_quantise_panels_neon(const float *x, int64_t k, int32_t bias, char *row) {
	knit__linear_quantise_neon(x, k, bias, row);
	add_sums(knit__linear_padded(k), bias, 32, row);
}

void knit__linear_quantise_panels16_neon(const float *x, int64_t k, int32_t bias, char *row) {
	knit__linear_quantise_neon(x, k, bias, row);
	add_sums(knit__linear_padded(k), bias, 16, row);
}

KNIT_LINEAR_PANEL_KERNELS(neon, KNIT_CPU_NEON)
