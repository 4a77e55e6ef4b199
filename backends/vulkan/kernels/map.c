/* Owns the kernels of map and of the elementwise ops add, mul, scale, silu and gelu: one shader, whose program is part of
 * the pipeline. References: ops/map.c, ops/elementwise.c. */
#include "../../../graph/fused.h"
#include "../../../shaders/params/map.h"
#include "kernels.h"
#include "operand.h"

_Static_assert(sizeof(struct knit_map_params) <= KNIT_VK_PARAM_BYTES, "map's parameters fit");
_Static_assert(KNIT_MAP_OPERANDS == 4 && KNIT_MAP_STEPS == 6, "as in map.comp");

#define WIDTH 64
#define MAP_EACH 4 /* elements of an invocation */

enum { SPEC_PROGRAM = 1, SPEC_OPERANDS = SPEC_PROGRAM + KNIT_MAP_STEPS, SPEC_COUNT };

/* ---- map --------------------------------------------------------------------------------------------------------- */

static uint32_t word_of(const knit_map_instr *x) {
	return (uint32_t)x->op | (uint32_t)x->a << 8 | (knit__map_has_b(x->op) ? (uint32_t)x->b << 16 : 0);
}

static uint32_t operands_word(const knit_vk_step *s) {
	uint32_t word = 0;

	for (uint32_t i = 0; i < s->in_count; ++i)
		if (s->in[i].present)
			word |= ((uint32_t)s->in[i].dtype | (s->in[i].rank != s->out[0].rank ? 0x80u : 0)) << 8 * i;
	return word;
}

static uint32_t plan_program(const knit_vk_caps *caps, const knit_vk_step *s, const knit_map_instr *program, uint32_t count,
                             knit_vk_dispatch *out) {
	if (!out)
		return 1;
	*out = (knit_vk_dispatch){.shader = "map", .spec_count = SPEC_COUNT, .binding_count = KNIT_MAP_OPERANDS + 1};
	out->spec[0] = knit__vk_local(caps, WIDTH);
	for (uint32_t i = 0; i < count; ++i)
		out->spec[SPEC_PROGRAM + i] = word_of(&program[i]);
	out->spec[SPEC_OPERANDS] = operands_word(s);
	for (uint8_t i = 0; i < s->in_count && i < KNIT_MAP_OPERANDS; ++i)
		if (s->in[i].present)
			out->bindings[i] = knit__vk_in(i);
	out->bindings[KNIT_MAP_OPERANDS] = knit__vk_out(0);
	return 1;
}

static void fill_program(const knit_vk_caps *caps, const knit_vk_step *s, const knit_map_instr *program, uint32_t count,
                         void *params, uint32_t groups[3]) {
	struct knit_map_params *const p = params;

	p->count = (uint)knit__vk_outer(&s->out[0], 0);
	p->row = (uint)s->out[0].dims[s->out[0].rank - 1];
	p->out_at = (uint)s->out[0].offset;
	for (uint32_t i = 0; i < s->in_count && i < KNIT_MAP_OPERANDS; ++i)
		p->at[i] = (uint)s->in[i].offset;
	for (uint32_t i = 0; i < count; ++i)
		p->scale[i] = program[i].s;
	knit__vk_grid(caps, knit__vk_ceil_div(p->count, (uint64_t)knit__vk_local(caps, WIDTH) * MAP_EACH), groups);
}

static uint32_t decode(const knit_attr *attr, knit_map_instr *program) {
	const uint32_t count = knit__map_count(attr);

	for (uint32_t i = 0; i < count; ++i)
		knit__map_decode(attr[i].i, &program[i]);
	return count;
}

static bool accepts_map(const knit_vk_caps *caps, const knit_node_view *node) {
	for (uint32_t i = 0; i < node->in_count; ++i) {
		const knit_operand_view *const x = &node->in[i];

		if (!(knit__vk_f32_dense(x) && x->rank == node->out[0].rank) && !(i > 0 && knit__vk_float_vector(x)))
			return false;
	}
	return knit__vk_f32_dense(&node->out[0]) && knit__map_count(node->attr) > 0 && knit__vk_all_bind(caps, node, 0);
}

static uint32_t plan_map(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	knit_map_instr program[KNIT_MAP_STEPS];

	(void)cap;
	return plan_program(caps, s, program, decode(s->attr, program), out);
}

static void fill_map(const knit_vk_caps *caps, const knit_vk_step *s, uint32_t index, void *params, uint32_t groups[3]) {
	knit_map_instr program[KNIT_MAP_STEPS];

	(void)index;
	fill_program(caps, s, program, decode(s->attr, program), params, groups);
}

const knit_vk_kernel knit__vk_map = {
	.name = "map", .op = KNIT_OP_MAP, .accepts = accepts_map, .plan = plan_map, .fill = fill_map};

/* ---- ops of one instruction -------------------------------------------------------------------------------------- */

static bool accepts_one(const knit_vk_caps *caps, const knit_node_view *node) {
	return knit__vk_f32_dense(&node->in[0]) && knit__vk_f32_dense(&node->out[0]) && knit__vk_all_bind(caps, node, 0);
}

static bool accepts_two(const knit_vk_caps *caps, const knit_node_view *node) {
	const knit_operand_view *const b = &node->in[1];

	return accepts_one(caps, node) &&
	       (knit__vk_float_vector(b) || (knit__vk_f32_dense(b) && b->rank == node->in[0].rank));
}

static uint32_t plan_one(const knit_vk_caps *caps, const knit_vk_step *s, knit_map_instr instr, knit_vk_dispatch *out) {
	return plan_program(caps, s, &instr, 1, out);
}

static uint32_t plan_add(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	(void)cap;
	return plan_one(caps, s, (knit_map_instr){.op = KNIT_MAP_ADD, .b = 1}, out);
}
static uint32_t plan_mul(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	(void)cap;
	return plan_one(caps, s, (knit_map_instr){.op = KNIT_MAP_MUL, .b = 1}, out);
}
static uint32_t plan_scale(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	(void)cap;
	return plan_one(caps, s, (knit_map_instr){.op = KNIT_MAP_SCALE}, out);
}
static uint32_t plan_silu(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	(void)cap;
	return plan_one(caps, s, (knit_map_instr){.op = KNIT_MAP_SILU}, out);
}
static uint32_t plan_gelu(const knit_vk_caps *caps, const knit_vk_step *s, knit_vk_dispatch *out, uint32_t cap) {
	(void)cap;
	return plan_one(caps, s, (knit_map_instr){.op = KNIT_MAP_GELU}, out);
}

static void fill_one(const knit_vk_caps *caps, const knit_vk_step *s, uint32_t index, void *params, uint32_t groups[3]) {
	(void)index;
	fill_program(caps, s, NULL, 0, params, groups);
}
static void fill_scale(const knit_vk_caps *caps, const knit_vk_step *s, uint32_t index, void *params, uint32_t groups[3]) {
	const knit_map_instr scale = {.s = (float)s->attr[0].f};

	(void)index;
	fill_program(caps, s, &scale, 1, params, groups);
}

const knit_vk_kernel knit__vk_add = {
	.name = "add", .op = KNIT_OP_ADD, .accepts = accepts_two, .plan = plan_add, .fill = fill_one};
const knit_vk_kernel knit__vk_mul = {
	.name = "mul", .op = KNIT_OP_MUL, .accepts = accepts_two, .plan = plan_mul, .fill = fill_one};
const knit_vk_kernel knit__vk_scale = {
	.name = "scale", .op = KNIT_OP_SCALE, .accepts = accepts_one, .plan = plan_scale, .fill = fill_scale};
const knit_vk_kernel knit__vk_silu = {
	.name = "silu", .op = KNIT_OP_SILU, .accepts = accepts_one, .plan = plan_silu, .fill = fill_one};
const knit_vk_kernel knit__vk_gelu = {
	.name = "gelu", .op = KNIT_OP_GELU, .accepts = accepts_one, .plan = plan_gelu, .fill = fill_one};
