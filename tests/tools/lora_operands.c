/* Owns the operands that ops with LoRA share. */
#include "lora_operands.h"

#include <stdlib.h>

void lora_choice(kernel_bench *b, uint32_t adapters, uint32_t seq, int64_t rows, int64_t slots) {
	int32_t *const of_token = malloc((size_t)(rows + 1) * sizeof *of_token), of_sequence[LORA_SEQUENCES];

	for (int64_t i = 0; i < rows; ++i)
		of_token[i] = (int32_t)(i / 2 % LORA_SEQUENCES);
	for (int64_t i = 0; i < LORA_SEQUENCES; ++i)
		of_sequence[i] = (int32_t)((i * 2 + 1) % slots);
	bench_indices(b, adapters, LORA_SEQUENCES, of_sequence);
	bench_indices(b, seq, rows, of_token);
	free(of_token);
}

void lora_factor(kernel_bench *b, uint32_t i, knit_dtype t, int64_t slots, int64_t rows, int64_t columns) {
	bench_in(b, i, t, slots ? 3 : 2, slots ? (int64_t[]){slots, rows, columns} : (int64_t[]){rows, columns}, 1, 0,
	         t == KNIT_F32 ? 4 : 2);
}
