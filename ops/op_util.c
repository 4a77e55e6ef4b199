/* Owns what the op files share: operand checks with uniform messages, cost sums. Knows no op's meaning. */
#include "op_util.h"

/* ---- builder functions ------------------------------------------------------------------------------------------- */

bool knit__op_check_operand(knit_graph *g, const char *op, const char *name, knit_tensor t) {
	if (!knit__build_check(g, op, name, t))
		return false;

	const knit_value *v = knit__value(g, t.id);
	for (uint32_t i = 0; i < g->state_count; ++i) {
		const uint32_t now = g->values[g->states[i].current].version;

		if (g->states[i].storage != v->storage || now == v->version)
			continue;
		knit__build_fail(g, op, KNIT_ERR_STATE,
						 "%s was read from state %s after %u appends, there are %u by now: read it again", name,
						 knit__strings_get(&g->strings, g->storages[v->storage].name), v->version, now);
		return false;
	}
	return true;
}

knit_tensor knit__op_build(knit_graph *g, knit_op op, uint32_t count, const knit_op_arg *args, const knit_attr *attr) {
	uint32_t in[KNIT_MAX_IN] = {0};

	if (!knit__op_usable(g))
		return (knit_tensor){0};
	for (uint32_t i = 0; i < count; ++i) {
		if (args[i].optional && args[i].tensor.id == 0)
			continue;
		if (!knit__op_check_operand(g, knit__op((uint16_t)op)->name, args[i].name, args[i].tensor))
			return (knit_tensor){0};
		in[i] = args[i].tensor.id;
	}
	return knit__build(g, (uint16_t)op, count, in, attr);
}

/* ---- checks in infer --------------------------------------------------------------------------------------------- */

bool knit__op_check_dtype(knit_infer *c, uint32_t operand, const char *name, const knit_dtype *allowed) {
	const knit_value *v = c->in[operand];
	knit_text list = {.a = c->graph->a};

	for (const knit_dtype *t = allowed; *t; ++t)
		if (*t == v->dtype)
			return true;
	for (const knit_dtype *t = allowed; *t; ++t)
		knit__text_add(&list, "%s%s", t == allowed ? "" : t[1] ? ", " : " or ", knit_dtype_name(*t));
	knit__infer_fail(c, KNIT_ERR_SHAPE, "%s is %s, needs %s", name, knit__infer_shape(c, v).text,
					 list.data ? list.data : "another type");
	knit__text_clear(&list);
	return false;
}

bool knit__op_check_rank(knit_infer *c, uint32_t operand, const char *name, uint32_t lo, uint32_t hi) {
	const knit_value *v = c->in[operand];

	if (v->rank >= lo && v->rank <= hi)
		return true;
	if (lo == hi)
		return knit__infer_fail(c, KNIT_ERR_SHAPE, "%s is %s of rank %u, needs rank %u", name,
								knit__infer_shape(c, v).text, v->rank, lo);
	return knit__infer_fail(c, KNIT_ERR_SHAPE, "%s is %s of rank %u, needs rank %u to %u", name,
							knit__infer_shape(c, v).text, v->rank, lo, hi);
}

bool knit__op_check_f32(knit_infer *c, uint32_t operand, const char *name, uint32_t lo, uint32_t hi) {
	static const knit_dtype f32[] = {KNIT_F32, 0};

	return knit__op_check_dtype(c, operand, name, f32) && knit__op_check_rank(c, operand, name, lo, hi);
}

bool knit__op_check_per_token(knit_infer *c, uint32_t operand, const char *name, uint32_t like, const char *like_name) {
	static const knit_dtype i32[] = {KNIT_I32, 0};
	const knit_value *v = c->in[operand], *of = c->in[like];

	if (!knit__op_check_dtype(c, operand, name, i32) || !knit__op_check_rank(c, operand, name, 1, 1))
		return false;
	if (knit__dim_equal(v->dims[0], of->dims[0]))
		return true;
	return knit__infer_fail(c, KNIT_ERR_SHAPE, "%s is %s, needs one per token of %s %s", name,
							knit__infer_shape(c, v).text, like_name, knit__infer_shape(c, of).text);
}

bool knit__op_check_vector(knit_infer *c, uint32_t operand, const char *name, uint32_t of, const char *of_name) {
	static const knit_dtype floats[] = {KNIT_F32, KNIT_F16, KNIT_BF16, 0};
	const knit_value *v = c->in[operand], *x = c->in[of];

	if (!knit__op_check_dtype(c, operand, name, floats) || !knit__op_check_rank(c, operand, name, 1, 1))
		return false;
	if (knit__dim_equal(v->dims[0], x->dims[x->rank - 1]))
		return true;
	return knit__infer_fail(c, KNIT_ERR_SHAPE, "%s is %s, needs the innermost dimension of %s %s", name,
							knit__infer_shape(c, v).text, of_name, knit__infer_shape(c, x).text);
}

bool knit__op_same_dims(const knit_value *a, const knit_value *b) {
	if (a->rank != b->rank)
		return false;
	for (int i = 0; i < a->rank; ++i)
		if (!knit__dim_equal(a->dims[i], b->dims[i]))
			return false;
	return true;
}

void knit__op_out_like(knit_infer *c, uint32_t operand, knit_dtype dtype) {
	const knit_value *v = c->in[operand];

	c->out[0] = (knit_type){.dtype = dtype, .rank = v->rank};
	for (int i = 0; i < v->rank; ++i)
		c->out[0].dims[i] = v->dims[i];
}

/* ---- costs ------------------------------------------------------------------------------------------------------- */

uint64_t knit__op_elements(const knit_shape *s) {
	uint64_t n = s->rank > 0;

	for (uint32_t i = 0; i < s->rank; ++i)
		n *= (uint64_t)s->dims[i];
	return n;
}

uint64_t knit__op_bytes(const knit_shape *s) {
	uint64_t bytes = 0;

	if (s->rank == 0 || !knit__dtype_bytes(s->dtype, knit__op_elements(s), &bytes))
		return 0;
	return bytes;
}

void knit__op_cost_stream(double flops, const knit_shape *in, uint32_t in_count, const knit_shape *out,
						  knit_cost *cost) {
	*cost = (knit_cost){.flops = flops, .write_bytes = knit__op_bytes(out)};
	for (uint32_t i = 0; i < in_count; ++i)
		cost->read_bytes += knit__op_bytes(&in[i]);
}

/* ---- simplify ---------------------------------------------------------------------------------------------------- */

static bool is_output(const knit_graph *g, uint32_t value) {
	for (uint32_t i = 0; i < g->output_count; ++i)
		if (knit__value_root(g, g->outputs[i].value) == value)
			return true;
	return false;
}

uint32_t knit__op_forward_input(const knit_graph *g, uint32_t node) {
	const uint32_t in = g->nodes[node].in[0], out = g->nodes[node].out[0];
	const knit_value *v = knit__value(g, in);
	const knit_storage_kind kind = knit__value_storage(g, in)->kind;

	if (kind == KNIT_STORAGE_STATE || !knit__value_contiguous(g, in))
		return 0;
	if (knit__value_storage(g, out)->kind == KNIT_STORAGE_OUTPUT)
		return 0;
	if (is_output(g, out) && (kind != KNIT_STORAGE_TEMP || v->view_of || is_output(g, in)))
		return 0;
	return in;
}
