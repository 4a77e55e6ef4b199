/* Owns the parameter block of kv_write, which serves rope and append too: each part may have no units. */
#ifndef KNIT_PARAMS_KV_WRITE_H
#define KNIT_PARAMS_KV_WRITE_H

#include "words.h"

/* Of q, k and v: element e of token t lies at at + t * token + e / dim * head + e % dim; n are the elements of a token,
 * units its invocations, a multiple of 8. Of the states: words of the array of their type. */
struct knit_kv_write_params {
	uint tokens, groups;
	uint rotary, split, ring, sinks, sequences, cells;
	uint seq_at, pos_at, result_at;
	uint q_at, q_token, q_head, q_dim, q_n, q_units;
	uint k_at, k_token, k_head, k_dim, k_n, k_units;
	uint v_at, v_token, v_head, v_dim, v_n, v_units;
	uint k_dtype, k_state_at, k_state_seq, k_state_cell;
	uint v_dtype, v_state_at, v_state_seq, v_state_cell;
};

#endif
