/* Fuses ops that treat every element alone, as far as they hang together, into maps: values between them are never
 * stored. Joins only what nobody else reads. */
#include "../fused.h"
#include "fuse.h"

/* A set of nodes that is to become one map; root: the one whose output stays. */
typedef struct cluster {
	uint32_t root;
	uint32_t nodes[KNIT_MAP_STEPS], count; /* root first, then its producers as they were found */
	uint32_t sorted[KNIT_MAP_STEPS];       /* the same in the order of execution */
	uint32_t operands[KNIT_MAP_OPERANDS], operand_count;
	uint8_t result[KNIT_MAP_STEPS]; /* per sorted node: the register of its output */
	knit_attr program[KNIT_MAP_STEPS];
	uint32_t steps;
} cluster;

static knit_map_op map_op(uint16_t op) {
	switch (op) {
	case KNIT_OP_ADD:
		return KNIT_MAP_ADD;
	case KNIT_OP_MUL:
		return KNIT_MAP_MUL;
	case KNIT_OP_SCALE:
		return KNIT_MAP_SCALE;
	case KNIT_OP_SILU:
		return KNIT_MAP_SILU;
	case KNIT_OP_GELU:
		return KNIT_MAP_GELU;
	default:
		return KNIT_MAP_END;
	}
}

/* An instruction holds its factor as f32. */
static bool fits_map(const knit_node *n) {
	if (n->op == KNIT_OP_SCALE)
		return (double)(float)n->attr[0].f == n->attr[0].f;
	return n->op == KNIT_OP_MAP || map_op(n->op) != KNIT_MAP_END;
}

static bool same_shape(const knit_graph *g, uint32_t a, uint32_t b) {
	const knit_value *x = knit__value(g, a), *y = knit__value(g, b);

	if (x->dtype != KNIT_F32 || y->dtype != KNIT_F32 || x->rank != y->rank)
		return false;
	for (int i = 0; i < x->rank; ++i)
		if (!knit__dim_equal(x->dims[i], y->dims[i]))
			return false;
	return true;
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static void sort_nodes(const knit_fuser *f, cluster *c) {
	for (uint32_t i = 0; i < c->count; ++i) {
		uint32_t at = i;

		for (; at > 0 && f->place[c->sorted[at - 1]] > f->place[c->nodes[i]]; --at)
			c->sorted[at] = c->sorted[at - 1];
		c->sorted[at] = c->nodes[i];
	}
}

static bool add_operand(cluster *c, uint32_t value) {
	for (uint32_t i = 0; i < c->operand_count; ++i)
		if (c->operands[i] == value)
			return true;
	if (c->operand_count == KNIT_MAP_OPERANDS)
		return false;
	c->operands[c->operand_count++] = value;
	return true;
}

/* The register of a value: an operand's, or the result of one of the first `count` nodes. */
static uint8_t reg_of(const knit_graph *g, const cluster *c, uint32_t count, uint32_t value) {
	for (uint32_t i = 0; i < count; ++i)
		if (g->nodes[c->sorted[i]].out[0] == value)
			return c->result[i];
	for (uint32_t i = 0; i < c->operand_count; ++i)
		if (c->operands[i] == value)
			return (uint8_t)i;
	return UINT8_MAX;
}

static bool is_inner(const knit_graph *g, const cluster *c, uint32_t value) {
	for (uint32_t i = 0; i < c->count; ++i)
		if (g->nodes[c->nodes[i]].out[0] == value)
			return true;
	return false;
}

/* Operands from outside, those of the whole shape first: operand 0 must be one. */
static bool collect_operands(const knit_graph *g, cluster *c) {
	c->operand_count = 0;
	for (int vectors = 0; vectors < 2; ++vectors)
		for (uint32_t i = 0; i < c->count; ++i) {
			const knit_node *n = &g->nodes[c->sorted[i]];

			for (uint32_t k = 0; k < n->in_count; ++k) {
				const bool full = same_shape(g, n->in[k], g->nodes[c->root].out[0]);

				if (full == !vectors && !is_inner(g, c, n->in[k]) && !add_operand(c, n->in[k]))
					return false;
			}
		}
	return true;
}

static bool add_step(cluster *c, knit_map_instr x) {
	if (c->steps == KNIT_MAP_STEPS)
		return false;
	c->program[c->steps++].i = knit__map_encode(x);
	return true;
}

/* A map's own program with its registers renamed. */
static bool add_program(const knit_graph *g, cluster *c, uint32_t at, const knit_node *n) {
	const uint32_t start = c->steps;

	for (uint32_t i = 0; i < knit__map_count(n->attr); ++i) {
		knit_map_instr x;

		if (!knit__map_decode(n->attr[i].i, &x))
			return false;
		x.a = x.a < KNIT_MAP_OPERANDS ? reg_of(g, c, at, n->in[x.a]) : (uint8_t)(x.a + start);
		if (knit__map_has_b(x.op))
			x.b = x.b < KNIT_MAP_OPERANDS ? reg_of(g, c, at, n->in[x.b]) : (uint8_t)(x.b + start);
		if (!add_step(c, x))
			return false;
	}
	return true;
}

/* False where the nodes need more operands or instructions than a map has. */
static bool compile(const knit_fuser *f, cluster *c) {
	const knit_graph *g = f->g;

	sort_nodes(f, c);
	c->steps = 0;
	for (uint32_t i = 0; i < KNIT_MAP_STEPS; ++i)
		c->program[i].i = 0;
	if (!collect_operands(g, c))
		return false;
	for (uint32_t i = 0; i < c->count; ++i) {
		const knit_node *n = &g->nodes[c->sorted[i]];
		const bool fits = n->op == KNIT_OP_MAP
							  ? add_program(g, c, i, n)
							  : add_step(c, (knit_map_instr){.op = map_op(n->op),
															 .a = reg_of(g, c, i, n->in[0]),
															 .b = n->in_count > 1 ? reg_of(g, c, i, n->in[1]) : 0,
															 .s = n->op == KNIT_OP_SCALE ? (float)n->attr[0].f : 0});

		if (!fits)
			return false;
		c->result[i] = (uint8_t)(KNIT_MAP_OPERANDS + c->steps - 1);
	}
	return true;
}

/* ---- the cluster ------------------------------------------------------------------------------------------------- */

/* All readers of `value` are in the cluster. */
static bool read_inside(const knit_fuser *f, const cluster *c, uint32_t value) {
	uint32_t uses = 0;

	for (uint32_t i = 0; i < c->count; ++i) {
		const knit_node *n = &f->g->nodes[c->nodes[i]];

		for (uint32_t k = 0; k < n->in_count; ++k)
			uses += n->in[k] == value;
	}
	return uses == f->uses[value];
}

/* Takes in the producer of `value` if it can. */
static bool take(const knit_fuser *f, cluster *c, uint32_t value) {
	const uint32_t node = f->g->values[value].producer;

	if (!node || c->count == KNIT_MAP_STEPS || !fits_map(&f->g->nodes[node]) || is_inner(f->g, c, value) ||
		!same_shape(f->g, value, f->g->nodes[c->root].out[0]) || !read_inside(f, c, value))
		return false;
	cluster larger = *c;
	larger.nodes[larger.count++] = node;
	if (!compile(f, &larger))
		return false;
	*c = larger;
	return true;
}

static bool rule(knit_fuser *f, uint32_t node) {
	const knit_graph *g = f->g;
	cluster c = {.root = node, .nodes = {node}, .count = 1};

	if (!fits_map(&g->nodes[node]))
		return false;
	for (bool again = true; again;) {
		again = false;
		for (uint32_t i = 0; i < c.count; ++i) {
			const knit_node *n = &g->nodes[c.nodes[i]];

			for (uint32_t k = 0; k < n->in_count; ++k)
				again = take(f, &c, n->in[k]) || again;
		}
	}
	if (c.count < 2)
		return false;

	knit_fusion u = {.op = KNIT_OP_MAP,
					 .main = node,
					 .in_count = (uint8_t)c.operand_count,
					 .out = {g->nodes[node].out[0]},
					 .out_count = 1,
					 .part_count = (uint8_t)c.count};

	for (uint32_t i = 0; i < c.operand_count; ++i)
		u.in[i] = c.operands[i];
	for (uint32_t i = 0; i < c.count; ++i)
		u.part[i] = c.sorted[i];
	for (uint32_t i = 0; i < KNIT_MAP_STEPS; ++i)
		u.attr[i] = c.program[i];
	return knit__fuse(f, &u);
}

knit_status knit__pass_fuse_elementwise(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d) {
	knit_fuser f;

	if (knit__fuser_open(&f, g, t))
		knit__fuse_everywhere(&f, KNIT_FUSE_BACKWARDS, rule);
	return knit__fuser_close(&f, changes, d);
}
