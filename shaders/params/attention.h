/* Owns the parameter block of attention, for all of its shaders. */
#ifndef KNIT_PARAMS_ATTENTION_H
#define KNIT_PARAMS_ATTENTION_H

#include "words.h"

/* Elements, but for what is said otherwise. Keys of position-cell c, sequence s, kv head h: k_at + s * k_seq + c * k_cell +
 * h * k_head; values likewise. */
struct knit_attention_params {
	uint groups, tokens, heads, kv_heads;
	uint share; /* query heads of a kv head */
	uint parts; /* of those, for a group each */
	uint dim, quads;
	uint q_at, q_token, q_head, y_at, seq_at, pos_at;
	uint k_at, k_seq, k_cell, k_head;
	uint v_at, v_seq, v_cell, v_head;
	uint sequences, cells, window, ring, sinks;
	uint chunk, chunks; /* seen positions of a chunk; chunks of a token at most */
	float scale;        /* with log2(e) */
};

#endif
