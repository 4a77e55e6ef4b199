/* The name tables. */
#include "names.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>

typedef struct name_row {
	const char *gguf, *hf;
} name_row;

static const name_row names[KNIT__PART_COUNT] = {
	[KNIT__TOKEN_EMBD] = {"token_embd", "model.embed_tokens"},
	[KNIT__OUTPUT_NORM] = {"output_norm", "model.norm"},
	[KNIT__OUTPUT] = {"output", "lm_head"},
	[KNIT__ATTN_NORM] = {"attn_norm", "input_layernorm"},
	[KNIT__FFN_NORM] = {"ffn_norm", "post_attention_layernorm"},
	[KNIT__ATTN_Q] = {"attn_q", "self_attn.q_proj"},
	[KNIT__ATTN_K] = {"attn_k", "self_attn.k_proj"},
	[KNIT__ATTN_V] = {"attn_v", "self_attn.v_proj"},
	[KNIT__ATTN_OUTPUT] = {"attn_output", "self_attn.o_proj"},
	[KNIT__FFN_GATE] = {"ffn_gate", "mlp.gate_proj"},
	[KNIT__FFN_UP] = {"ffn_up", "mlp.up_proj"},
	[KNIT__FFN_DOWN] = {"ffn_down", "mlp.down_proj"},
};

const char *knit__part_name(knit__part part) {
	assert(part < KNIT__PART_COUNT);
	return names[part].gguf;
}

void knit__weight_name(knit__name_style style, knit__part part, uint32_t layer, char out[KNIT__NAME_BYTES]) {
	assert(part < KNIT__PART_COUNT);
	const char *name = style == KNIT__NAMES_HF ? names[part].hf : names[part].gguf;

	if (part < KNIT__ATTN_NORM)
		snprintf(out, KNIT__NAME_BYTES, "%s.weight", name);
	else if (style == KNIT__NAMES_HF)
		snprintf(out, KNIT__NAME_BYTES, "model.layers.%u.%s.weight", (unsigned)layer, name);
	else
		snprintf(out, KNIT__NAME_BYTES, "blk.%u.%s.weight", (unsigned)layer, name);
}

void knit__visit_norm_name(knit__name_style style, knit__part part, uint32_t visit, char out[KNIT__NAME_BYTES]) {
	assert(part == KNIT__ATTN_NORM || part == KNIT__FFN_NORM);
	snprintf(out, KNIT__NAME_BYTES, "%s.%u.%s.weight", style == KNIT__NAMES_HF ? "steps" : "visit", (unsigned)visit,
			 style == KNIT__NAMES_HF ? names[part].hf : names[part].gguf);
}

void knit__loop_norm_name(knit__name_style style, int32_t loop, char out[KNIT__NAME_BYTES]) {
	const bool hf = style == KNIT__NAMES_HF;

	if (loop < 0)
		snprintf(out, KNIT__NAME_BYTES, hf ? "model.loop_norm.weight" : "loop_norm.weight");
	else
		snprintf(out, KNIT__NAME_BYTES, hf ? "model.loops.%d.norm.weight" : "loop.%d.output_norm.weight", (int)loop);
}

void knit__adapter_name(knit__name_style style, knit__part part, uint32_t visit, char which,
						char out[KNIT__NAME_BYTES]) {
	assert(part >= KNIT__ATTN_Q && part < KNIT__PART_COUNT && (which == 'a' || which == 'b'));
	if (style == KNIT__NAMES_HF)
		snprintf(out, KNIT__NAME_BYTES, "steps.%u.%s.lora_%c.weight", (unsigned)visit, names[part].hf,
				 which == 'a' ? 'A' : 'B');
	else
		snprintf(out, KNIT__NAME_BYTES, "visit.%u.%s.lora_%c", (unsigned)visit, names[part].gguf, which);
}
