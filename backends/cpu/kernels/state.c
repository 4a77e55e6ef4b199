/* Owns the CPU kernel of append: rows written to cells of a state. Reference: ops/state.c. */
#include "kernels.h"
#include "kv_rows.h"
#include "operand.h"

enum { STATE, ROWS, SEQ, POS };
enum { RING, SINKS };

static int64_t units(const knit_cpu_step *s) { return s->in[ROWS].dims[0]; }

/* A cell outside the state is left out: the session has checked seq and pos where they are inputs. */
static void run(const knit_cpu_step *s, int64_t begin, int64_t end, uint32_t thread) {
	const knit_cpu_tensor *const state = &s->out[0], *const rows = &s->in[ROWS];
	const int32_t *const seq = (const int32_t *)(void *)s->in[SEQ].data;
	const int32_t *const pos = (const int32_t *)(void *)s->in[POS].data;
	const int64_t n = knit__row_length(rows), per_token = rows->rank == 3 ? rows->dims[1] : 1;

	(void)thread;
	for (int64_t t = begin; t < end; ++t) {
		const int64_t cell = knit__kv_cell(pos[t], s->attr[RING].i, s->attr[SINKS].i, state->dims[1]);

		if (seq[t] < 0 || seq[t] >= state->dims[0] || cell < 0)
			continue;
		char *const out =
			state->data + knit__bytes_of(state->dtype, seq[t] * state->strides[0] + cell * state->strides[1]);

		for (int64_t i = 0; i < per_token; ++i)
			knit__kv_row_store(state->dtype, knit__f32_row(rows, t * per_token + i),
			                   out + knit__bytes_of(state->dtype, i * n), n);
	}
}

static bool accepts(const knit_node_view *node) {
	const knit_operand_view *const state = &node->in[STATE], *const rows = &node->in[ROWS];

	return (knit__is_float(state->dtype) || knit__is_block(state->dtype)) && state->layout == 0 && state->contiguous && knit__f32_rows(rows) &&
	       rows->rank + 1 == state->rank && rows->rank >= 2 && rows->rank <= 3 && knit__index_vector(&node->in[SEQ]) &&
	       knit__index_vector(&node->in[POS]);
}

const knit_cpu_kernel knit__append_plain = {"append", KNIT_OP_STATE_APPEND, KNIT_CPU_PLAIN, accepts, NULL,
                                            {{units, run}}};
