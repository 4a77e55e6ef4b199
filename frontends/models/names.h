/* Owns the names that decoder weights have in files of each naming style. Knows no shapes and opens nothing. */
#ifndef KNIT_NAMES_H
#define KNIT_NAMES_H

#include <stddef.h>
#include <stdint.h>

enum { KNIT__NAME_BYTES = 96 };

typedef enum knit__name_style {
	KNIT__NAMES_GGUF = 0, /* blk.3.attn_q.weight; adapters visit.7.attn_q.lora_a */
	KNIT__NAMES_HF,       /* model.layers.3.self_attn.q_proj.weight; adapters steps.7.self_attn.q_proj.lora_A.weight */
} knit__name_style;

/* The weights of a decoder. The first three are not repeated; the seven projections may have a LoRA per visit. */
typedef enum knit__part {
	KNIT__TOKEN_EMBD = 0,
	KNIT__OUTPUT_NORM,
	KNIT__OUTPUT,
	KNIT__ATTN_NORM,
	KNIT__FFN_NORM,
	KNIT__ATTN_Q,
	KNIT__ATTN_K,
	KNIT__ATTN_V,
	KNIT__ATTN_OUTPUT,
	KNIT__FFN_GATE,
	KNIT__FFN_UP,
	KNIT__FFN_DOWN,
	KNIT__PART_COUNT
} knit__part;

/* "attn_q": the short name, the same in both styles; used in origins and messages. */
const char *knit__part_name(knit__part part);
/* The name of a weight in a file; `layer` is ignored for the parts that are not repeated. */
void knit__weight_name(knit__name_style style, knit__part part, uint32_t layer, char out[KNIT__NAME_BYTES]);
/* The norm that a visit has instead of its layer's: visit.7.attn_norm.weight. */
void knit__visit_norm_name(knit__name_style style, knit__part part, uint32_t visit, char out[KNIT__NAME_BYTES]);
/* The norm after a loop: loop.2.output_norm.weight, and the one for all loops (loop < 0): loop_norm.weight. */
void knit__loop_norm_name(knit__name_style style, int32_t loop, char out[KNIT__NAME_BYTES]);
/* The name of the LoRA matrix A (which = 'a') or B ('b') of a projection at a visit. */
void knit__adapter_name(knit__name_style style, knit__part part, uint32_t visit, char which,
						char out[KNIT__NAME_BYTES]);

#endif
