/* Owns linear of one row of x by float weights in AVX2: names for linear_row.h. */
#include "lanes_avx2.h"

#include "linear_row.h"

void knit__linear_row_f32_avx2(const knit_linear_block *b) { row(b, KNIT_F32); }
void knit__linear_row_f16_avx2(const knit_linear_block *b) { row(b, KNIT_F16); }
void knit__linear_row_bf16_avx2(const knit_linear_block *b) { row(b, KNIT_BF16); }
