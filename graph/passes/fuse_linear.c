/* Fuses what belongs to a linear into it: a bias, a residual, a LoRA (which stays apart from the weight), and the gate,
 * activation and product of a gated pair. Weights keep their storages. */
#include "../fused.h"
#include "fuse.h"

/* A linear, or what was fused into one already; fields are values, 0: none. */
typedef struct projection {
	uint32_t node;
	uint32_t in[KNIT_LORA_OPERANDS];
	double s;
} projection;

/* The linear that writes `value` for one reader alone. */
static bool find_projection(const knit_fuser *f, uint32_t value, projection *out) {
	const uint32_t plain = knit__fuse_writer(f, value, KNIT_OP_LINEAR);
	const uint32_t node = plain ? plain : knit__fuse_writer(f, value, KNIT_OP_LINEAR_LORA);

	if (!node || !knit__fuse_used_once(f, value))
		return false;
	const knit_node *n = &f->g->nodes[node];
	*out = (projection){.node = node, .s = plain ? 0 : n->attr[0].f};
	for (uint32_t i = 0; i < n->in_count; ++i)
		out->in[i] = n->in[i];
	return true;
}

static void add_part(knit_fusion *u, uint32_t node) {
	if (u->part_count < KNIT_FUSE_PARTS)
		u->part[u->part_count] = node;
	u->part_count++;
}

/* `last` is the node whose output the fused one takes over. */
static bool fuse_projection(knit_fuser *f, const projection *p, knit_fusion *u, uint32_t last) {
	add_part(u, last);
	u->op = KNIT_OP_LINEAR_LORA;
	u->main = p->node;
	u->attr[0].f = p->s;
	for (uint32_t i = 0; i < KNIT_LORA_OPERANDS; ++i) {
		u->in[i] = p->in[i];
		if (p->in[i])
			u->in_count = (uint8_t)(i + 1);
	}
	u->out[0] = f->g->nodes[last].out[0];
	u->out_count = 1;
	return u->part_count <= KNIT_FUSE_PARTS && knit__fuse(f, u);
}

/* ---- LoRA -------------------------------------------------------------------------------------------------------- */

/* Goes through scales, each for one reader alone, multiplying their factors into *s. */
static uint32_t skip_scales(const knit_fuser *f, uint32_t value, double *s, uint32_t *parts, uint32_t *count) {
	uint32_t node;

	while (*count < KNIT_FUSE_PARTS && knit__fuse_used_once(f, value) &&
		   (node = knit__fuse_writer(f, value, KNIT_OP_SCALE)) != 0) {
		*s *= f->g->nodes[node].attr[0].f;
		parts[(*count)++] = node;
		value = f->g->nodes[node].in[0];
	}
	return value;
}

/* s (x A^T) B^T: two linears with scales behind either, or one lora_select. Fills what it adds to p. */
static bool find_low_rank(const knit_fuser *f, uint32_t value, projection *p, knit_fusion *u) {
	uint32_t parts[KNIT_FUSE_PARTS], count = 0;
	double s = 1;

	value = skip_scales(f, value, &s, parts, &count);
	if (!knit__fuse_used_once(f, value))
		return false;
	const uint32_t selected = knit__fuse_writer(f, value, KNIT_OP_LORA_SELECT);
	const uint32_t up = selected ? selected : knit__fuse_writer(f, value, KNIT_OP_LINEAR);
	if (!up || count == KNIT_FUSE_PARTS)
		return false;
	parts[count++] = up;
	const knit_node *b = &f->g->nodes[up];
	if (selected) {
		if (b->in[0] != p->in[KNIT_LORA_X])
			return false;
		p->in[KNIT_LORA_A] = b->in[1];
		p->in[KNIT_LORA_B] = b->in[2];
		p->in[KNIT_LORA_ADAPTERS] = b->in[3];
		p->in[KNIT_LORA_SEQ] = b->in[4];
		s *= b->attr[0].f;
	} else {
		value = skip_scales(f, b->in[0], &s, parts, &count);
		const uint32_t down = knit__fuse_writer(f, value, KNIT_OP_LINEAR);

		if (!down || !knit__fuse_used_once(f, value) || f->g->nodes[down].in[0] != p->in[KNIT_LORA_X] ||
			count == KNIT_FUSE_PARTS)
			return false;
		parts[count++] = down;
		p->in[KNIT_LORA_A] = f->g->nodes[down].in[1];
		p->in[KNIT_LORA_B] = b->in[1];
	}
	p->s = s;
	while (count)
		add_part(u, parts[--count]); /* in the order in which they run */
	return true;
}

/* add(x W^T, s (x A^T) B^T), in either order. */
static bool fuse_lora(knit_fuser *f, uint32_t node) {
	for (int side = 0; side < 2; ++side) {
		const knit_node *n = &f->g->nodes[node];
		knit_fusion u = {0};
		projection p;

		if (!find_projection(f, n->in[side], &p) || p.in[KNIT_LORA_A])
			continue;
		add_part(&u, p.node);
		if (find_low_rank(f, n->in[1 - side], &p, &u) && fuse_projection(f, &p, &u, node))
			return true;
	}
	return false;
}

/* ---- bias, residual ---------------------------------------------------------------------------------------------- */

static bool is_weight(const knit_graph *g, uint32_t value) {
	const knit_storage_kind kind = knit__value_storage(g, value)->kind;

	return kind == KNIT_STORAGE_CONST || kind == KNIT_STORAGE_ADAPTER;
}

/* Whether `b` is a vector that add repeats over the rows of y; where y is a vector too, a weight is called a bias. */
static bool is_bias(const knit_graph *g, uint32_t y, uint32_t b) {
	return knit__value(g, b)->rank == 1 && (knit__value(g, y)->rank > 1 || is_weight(g, b));
}

/* The right operand first: it is the later one where operands are in order, and the earlier one the residual. */
static bool fuse_addend(knit_fuser *f, uint32_t node) {
	for (int side = 1; side >= 0; --side) {
		const knit_node *n = &f->g->nodes[node];
		const uint32_t y = n->in[side], other = n->in[1 - side];
		const uint32_t slot = is_bias(f->g, y, other) ? KNIT_LORA_BIAS : KNIT_LORA_RESIDUAL;
		knit_fusion u = {0};
		projection p;

		if (!find_projection(f, y, &p) || p.in[slot])
			continue;
		p.in[slot] = other;
		add_part(&u, p.node);
		if (fuse_projection(f, &p, &u, node))
			return true;
	}
	return false;
}

/* ---- gated pairs ------------------------------------------------------------------------------------------------- */

static bool is_bare(const projection *p) {
	return !p->in[KNIT_LORA_BIAS] && !p->in[KNIT_LORA_RESIDUAL];
}

/* Both LoRAs, where there are two, choose their matrices by the same operands. */
static bool same_choice(const projection *a, const projection *b) {
	if (!a->in[KNIT_LORA_A] || !b->in[KNIT_LORA_A])
		return true;
	return a->in[KNIT_LORA_ADAPTERS] == b->in[KNIT_LORA_ADAPTERS] && a->in[KNIT_LORA_SEQ] == b->in[KNIT_LORA_SEQ];
}

static bool fuse_pair(knit_fuser *f, uint32_t node, uint32_t act, const projection *gate, const projection *up) {
	const bool silu = f->g->nodes[act].op == KNIT_OP_SILU;
	const projection *choice = gate->in[KNIT_LORA_A] ? gate : up;
	knit_fusion u = {.op = KNIT_OP_GLU,
					 .main = gate->node,
					 .in = {[KNIT_GLU_X] = gate->in[KNIT_LORA_X],
							[KNIT_GLU_WG] = gate->in[KNIT_LORA_W],
							[KNIT_GLU_WU] = up->in[KNIT_LORA_W],
							[KNIT_GLU_AG] = gate->in[KNIT_LORA_A],
							[KNIT_GLU_BG] = gate->in[KNIT_LORA_B],
							[KNIT_GLU_AU] = up->in[KNIT_LORA_A],
							[KNIT_GLU_BU] = up->in[KNIT_LORA_B],
							[KNIT_GLU_ADAPTERS] = choice->in[KNIT_LORA_ADAPTERS],
							[KNIT_GLU_SEQ] = choice->in[KNIT_LORA_SEQ]},
					 .out = {f->g->nodes[node].out[0]},
					 .out_count = 1,
					 .part = {gate->node, act, up->node, node},
					 .part_count = 4,
					 .attr = {[KNIT_GLU_ACT].i = silu ? KNIT_GLU_SILU : KNIT_GLU_GELU,
							  [KNIT_GLU_SG].f = gate->s,
							  [KNIT_GLU_SU].f = up->s}};

	for (uint32_t i = 0; i < KNIT_GLU_OPERANDS; ++i)
		if (u.in[i])
			u.in_count = (uint8_t)(i + 1);
	return knit__fuse(f, &u);
}

/* mul(act(x Wg^T), x Wu^T), in either order. */
static bool fuse_glu(knit_fuser *f, uint32_t node) {
	for (int side = 0; side < 2; ++side) {
		const knit_node *n = &f->g->nodes[node];
		const uint32_t silu = knit__fuse_writer(f, n->in[side], KNIT_OP_SILU);
		const uint32_t act = silu ? silu : knit__fuse_writer(f, n->in[side], KNIT_OP_GELU);
		projection gate, up;

		if (!act || !knit__fuse_used_once(f, n->in[side]) || !find_projection(f, f->g->nodes[act].in[0], &gate) ||
			!find_projection(f, n->in[1 - side], &up))
			continue;
		if (gate.in[KNIT_LORA_X] == up.in[KNIT_LORA_X] && is_bare(&gate) && is_bare(&up) && same_choice(&gate, &up) &&
			fuse_pair(f, node, act, &gate, &up))
			return true;
	}
	return false;
}

/* ---- the pass ---------------------------------------------------------------------------------------------------- */

static bool rule(knit_fuser *f, uint32_t node) {
	switch (f->g->nodes[node].op) {
	case KNIT_OP_ADD:
		return fuse_lora(f, node) || fuse_addend(f, node);
	case KNIT_OP_MUL:
		return fuse_glu(f, node);
	default:
		return false;
	}
}

knit_status knit__pass_fuse_linear(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d) {
	knit_fuser f;

	if (knit__fuser_open(&f, g, t))
		knit__fuse_everywhere(&f, KNIT_FUSE_FORWARDS, rule);
	return knit__fuser_close(&f, changes, d);
}
