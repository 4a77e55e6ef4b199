/* Owns the operands that ops with LoRA share, for tests of their kernels: factors, of slots or without, and which sequence
 * has which slot. */
#ifndef KNIT_TEST_LORA_OPERANDS_H
#define KNIT_TEST_LORA_OPERANDS_H

#include "kernel_run.h"

enum { LORA_SEQUENCES = 3 };

/* Operands `adapters` and `seq`: tokens go around the sequences in pairs, sequences have different slots. */
void lora_choice(kernel_bench *b, uint32_t adapters, uint32_t seq, int64_t rows, int64_t slots);
/* Operand i: a factor [rows, columns], or one in each of the slots. */
void lora_factor(kernel_bench *b, uint32_t i, knit_dtype t, int64_t slots, int64_t rows, int64_t columns);

#endif
