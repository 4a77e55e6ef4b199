/* Owns the CPU kernel of gather. Reference: ops/gather.c. */
#include "../../../ops/quant.h"
#include "half.h"
#include "kernels.h"
#include "operand.h"
#include "panels.h"

#include <math.h>

static int64_t units(const knit_cpu_step *s) { return s->in[1].dims[0]; }

/* Ids of a step before this one are not checked by anyone: outside the table there is NaN. */
static void run(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	const knit_cpu_tensor *const table = &s->in[0];
	const int32_t *const ids = (const int32_t *)(void *)s->in[1].data;
	const int64_t rows = table->dims[0], n = table->dims[1];

	(void)thread;
	for (int64_t i = begin; i < end; ++i) {
		float *const out = knit__f32_row(&s->out[0], i);

		if (ids[i] < 0 || ids[i] >= rows) {
			for (int64_t j = 0; j < n; ++j)
				out[j] = NAN;
			continue;
		}
		if (table->layout == KNIT_CPU_PANELS) {
			knit__panels_row(table->dtype, table->data, n, ids[i], out);
			continue;
		}
		const char *const row = table->data + knit__bytes_of(table->dtype, ids[i] * table->strides[0]);

		if (knit__is_block(table->dtype))
			knit__row_to_f32(table->dtype, row, out, (size_t)n);
		else
			knit__floats_to_f32(table->dtype, row, out, n);
	}
}

static bool accepts(const knit_node_view *node) {
	return (knit__weight_rows(&node->in[0]) || knit__weight_panels(&node->in[0])) &&
	       knit__index_vector(&node->in[1]) &&
	       knit__f32_dense(&node->out[0]);
}

const knit_cpu_kernel knit__gather_plain = {"gather", KNIT_OP_GATHER, KNIT_CPU_PLAIN, accepts, NULL, {{units, run}}};
