/* Owns random but valid graphs for tests of passes, planner and backends: small looped decoders' building blocks in any
 * order, made with the public builder. Knows nothing of what is tested on them. */
#ifndef KNIT_TEST_RANDOM_GRAPH_H
#define KNIT_TEST_RANDOM_GRAPH_H

#include "../../graph/ir.h"

/* The same graph for the same seed. About `steps` ops (20 is plenty to meet everything over 100 seeds): every op, every
 * weight type, weights shared between uses and, as equal bytes, between two stores; adapters; strided views; what passes
 * fuse (LoRA, gated pairs, siblings, visits of a slot, chains) and almost that; states with several versions; equal and unused computations; outputs that are inputs, weights, views or named twice.
 * Inputs: x f32 [tokens, 64], ids, seq, pos i32 [tokens], pick i32 [picks], use i32
 * [sequences]. */
knit_status random_graph(knit_context *ctx, uint64_t seed, uint32_t steps, knit_graph **out, knit_diag *d);

#endif
