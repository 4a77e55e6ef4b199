/* Owns what kernels that turn pairs share: the table of frequencies, and the parameters of what is turned. */
#ifndef KNIT_VK_ROPE_H
#define KNIT_VK_ROPE_H

#include "../../../shaders/params/kv_write.h"
#include "operand.h"

/* Bytes of the table: per pair the frequency in turns per position, a 64-bit fraction. Never 0, for the binding's sake. */
uint64_t knit__vk_rope_table_bytes(int64_t rotary);
void knit__vk_rope_table(double theta, int64_t rotary, uint64_t *out);

/* The part of the parameters for q [tokens, heads, head_dim] and where it is written to. */
void knit__vk_rope_params(const knit_vk_tensor *q, const knit_vk_tensor *result, int64_t rotary, int64_t layout,
                          struct knit_kv_write_params *p);
/* Group counts, once the units of all parts are there. */
void knit__vk_kv_groups(const knit_vk_caps *caps, struct knit_kv_write_params *p, uint32_t groups[3]);

#define KNIT_VK_KV_WIDTH 64
/* The bindings in the shader's order, as far as the op has them. What is read and lacking stays absent; what is written
 * and lacking shows output 0, since nothing may be declared as written that other steps read. */
enum {
	KNIT_VK_KV_Q, KNIT_VK_KV_K, KNIT_VK_KV_V, KNIT_VK_KV_SEQ, KNIT_VK_KV_POS, KNIT_VK_KV_TABLE, KNIT_VK_KV_RESULT,
	KNIT_VK_KV_KSTATE, KNIT_VK_KV_VSTATE, KNIT_VK_KV_BINDINGS
};
knit_vk_dispatch knit__vk_kv_dispatch(const knit_vk_caps *caps);

/* Invocations in eights: as many as share a block. */
static inline uint knit__vk_kv_units(int64_t units) { return (uint)((units + 7) / 8 * 8); }

#endif
