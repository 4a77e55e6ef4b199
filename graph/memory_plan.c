/* Owns the lifetimes of activations and the choice of which results take over the bytes of an operand. Leaves offsets to
 * memory_place.c and memory_split.c, and refuses to know kernels and buffers other than the arenas. */
#include "memory_plan.h"
#include "memory_split.h"
#include "op_def.h"

#include <string.h>

#define NEVER UINT32_MAX

/* Positions in the order: of the step that writes a storage, and of the last one that touches it. */
typedef struct life { uint32_t first, last; } life;

typedef struct planner {
	const knit_graph *g;
	const knit_bounds *bounds;
	const uint64_t *scratch_bytes;
	const knit_memory_rules *rules;
	knit_memory_plan *plan;
	life *lives; /* per storage; first == NEVER: not in the arena */
	uint64_t *bytes;
	knit_block *blocks; /* one per slot, then one per step with scratch */
	uint32_t slot_count, block_count, block_cap;
} planner;

/* ---- lifetimes ---------------------------------------------------------------------------------------------------- */

static bool in_arena(const planner *p, uint32_t storage) {
	return p->g->storages[storage].kind == KNIT_STORAGE_TEMP;
}

/* A storage lives from the step that writes it to the last one that reads any value or view on it. */
static knit_status find_lives(planner *p, knit_diag *d) {
	const knit_graph *g = p->g;

	for (uint32_t i = 0; i < g->storage_count; ++i)
		p->lives[i] = (life){NEVER, 0};
	for (uint32_t at = 0; at < g->order_count; ++at) {
		const knit_node *n = &g->nodes[g->order[at]];

		for (uint32_t i = 0; i < n->in_count; ++i) {
			const uint32_t storage = n->in[i] ? g->values[n->in[i]].storage : 0;

			if (!storage || !in_arena(p, storage))
				continue;
			if (p->lives[storage].first == NEVER)
				return knit__fail(d, KNIT_ERR_INTERNAL, g->order[at],
				                  "memory plan: %s at %s reads %%%u before any step writes it", knit__op(n->op)->name,
				                  knit__origin_text(g, n), n->in[i]);
			p->lives[storage].last = at;
		}
		for (uint32_t i = 0; i < n->out_count; ++i) {
			const uint32_t storage = g->values[n->out[i]].storage;

			if (!in_arena(p, storage))
				continue;
			if (p->lives[storage].first != NEVER)
				return knit__fail(d, KNIT_ERR_INTERNAL, g->order[at], "memory plan: %s at %s writes s%u a second time",
				                  knit__op(n->op)->name, knit__origin_text(g, n), storage);
			if (!knit__storage_max_bytes(g, p->bounds, storage, &p->bytes[storage]))
				return knit__fail(d, KNIT_ERR_LIMIT, g->order[at], "%s at %s: the size of its result exceeds 63 bits",
				                  knit__op(n->op)->name, knit__origin_text(g, n));
			p->lives[storage] = (life){at, at};
		}
	}
	/* An output still in the arena is read after the last step. */
	for (uint32_t i = 0; i < g->output_count; ++i) {
		const uint32_t storage = g->values[g->outputs[i].value].storage;

		if (in_arena(p, storage) && p->lives[storage].first != NEVER)
			p->lives[storage].last = g->order_count;
	}
	return KNIT_OK;
}

/* ---- in place ----------------------------------------------------------------------------------------------------- */

/* An operand that occurs twice (x + x) is left alone: kernels may take other operands to be apart from the result. */
bool knit__inplace_fits(const knit_graph *g, uint32_t node, uint32_t operand) {
	const knit_node *n = &g->nodes[node];
	const uint8_t flags = knit__op(n->op)->flags;
	uint32_t uses = 0;

	if (!(flags & KNIT_OP_INPLACE) || n->out_count == 0 || operand >= n->in_count || !n->in[operand])
		return false;
	if (operand > 1 || (operand == 1 && !(flags & KNIT_OP_COMMUTATIVE)))
		return false;

	const knit_value *in = knit__value(g, n->in[operand]), *out = knit__value(g, n->out[0]);
	const knit_storage *from = &g->storages[in->storage], *to = &g->storages[out->storage];

	if (from->kind != KNIT_STORAGE_TEMP || to->kind != KNIT_STORAGE_TEMP || from->max_bytes != to->max_bytes)
		return false;
	if (in->dtype != out->dtype || in->layout != out->layout || in->rank != out->rank)
		return false;
	for (uint32_t i = 0; i < in->rank; ++i)
		if (!knit__dim_equal(in->dims[i], out->dims[i]))
			return false;
	if (in->offset.v != 0 || out->view_of || !knit__value_contiguous(g, n->in[operand]))
		return false;
	for (uint32_t i = 0; i < n->in_count; ++i)
		uses += n->in[i] && g->values[n->in[i]].storage == in->storage;
	return uses == 1;
}

/* Nobody reads input 0 after the step, and its bytes are as many in this bucket too. */
static bool takes_over(const planner *p, uint32_t at) {
	const knit_graph *g = p->g;
	const knit_node *n = &g->nodes[g->order[at]];

	if (p->rules->apart || !knit__inplace_fits(g, g->order[at], 0))
		return false;

	const uint32_t in = g->values[n->in[0]].storage, out = g->values[n->out[0]].storage;

	return p->lives[in].last == at && p->bytes[in] == p->bytes[out];
}

/* Gives every storage of the arena a slot, in the order of the steps: the slot of an operand or a new one. */
static void choose_slots(planner *p) {
	const knit_graph *g = p->g;

	for (uint32_t at = 0; at < g->order_count; ++at) {
		const knit_node *n = &g->nodes[g->order[at]];

		for (uint32_t i = 0; i < n->out_count; ++i) {
			const uint32_t storage = g->values[n->out[i]].storage;

			if (!in_arena(p, storage))
				continue;
			if (i == 0 && takes_over(p, at)) {
				const uint32_t slot = p->plan->slot[g->values[n->in[0]].storage];

				p->plan->slot[storage] = slot;
				p->blocks[slot].last = p->lives[storage].last;
				++p->plan->inplace_count;
				continue;
			}
			p->plan->slot[storage] = p->slot_count;
			p->blocks[p->slot_count++] =
				(knit_block){p->bytes[storage], p->lives[storage].first, p->lives[storage].last, 0};
		}
	}
	p->block_count = p->slot_count;
	for (uint32_t at = 0; at < g->order_count && p->scratch_bytes; ++at)
		if (p->scratch_bytes[at] != 0)
			p->blocks[p->block_count++] = (knit_block){p->scratch_bytes[at], at, at, 0};
}

/* ---- the device's limit -------------------------------------------------------------------------------------------- */

static bool above_limit(const planner *p, uint64_t bytes) {
	uint64_t aligned;

	return p->rules->max_arena != 0 && (!knit__align_u64(bytes, p->rules->align, &aligned) ||
	                                    aligned > p->rules->max_arena);
}

static knit_status fail_limit(const planner *p, uint32_t at, const char *what, uint64_t bytes, knit_diag *d) {
	const knit_node *n = &p->g->nodes[p->g->order[at]];
	const char *origin = knit__origin_text(p->g, n);

	return knit__fail(d, KNIT_ERR_LIMIT, p->g->order[at],
	                  "%s%s%s: its %s of %llu bytes must lie in one buffer, of which the device takes at most %llu",
	                  knit__op(n->op)->name, *origin ? " at " : "", origin, what, (unsigned long long)bytes,
	                  (unsigned long long)p->rules->max_arena);
}

/* No tensor straddles two arenas, so each alone must be within the limit. */
static knit_status check_limit(const planner *p, knit_diag *d) {
	const knit_graph *g = p->g;

	for (uint32_t at = 0; at < g->order_count; ++at) {
		const knit_node *n = &g->nodes[g->order[at]];

		for (uint32_t i = 0; i < n->out_count; ++i) {
			const uint32_t storage = g->values[n->out[i]].storage;

			if (in_arena(p, storage) && above_limit(p, p->bytes[storage]))
				return fail_limit(p, at, "result", p->bytes[storage], d);
		}
		if (p->scratch_bytes && above_limit(p, p->scratch_bytes[at]))
			return fail_limit(p, at, "scratch", p->scratch_bytes[at], d);
	}
	return KNIT_OK;
}

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

static knit_status sum_unshared(planner *p, knit_diag *d) {
	const uint64_t align = p->rules->align;
	const knit_graph *g = p->g;
	uint64_t sum = 0, bytes = 0;
	bool fits = true;

	for (uint32_t i = 1; i < g->storage_count; ++i) {
		if (p->plan->slot[i] != UINT32_MAX)
			fits = fits && knit__align_u64(p->bytes[i], align, &bytes) && knit__add_u64(sum, bytes, &sum);
	}
	for (uint32_t at = 0; at < g->order_count && p->scratch_bytes; ++at)
		fits = fits && knit__align_u64(p->scratch_bytes[at], align, &bytes) && knit__add_u64(sum, bytes, &sum);
	if (!fits)
		return knit__fail(d, KNIT_ERR_LIMIT, 0, "memory plan: the sizes of all activations exceed 64 bits together");
	p->plan->unshared_bytes = sum;
	return KNIT_OK;
}

static void fill_offsets(planner *p, const uint32_t *arena) {
	knit_memory_plan *plan = p->plan;
	uint32_t block = p->slot_count;

	for (uint32_t i = 1; i < p->g->storage_count; ++i) {
		if (plan->slot[i] == UINT32_MAX)
			continue;
		plan->offset[i] = p->blocks[plan->slot[i]].offset;
		plan->arena[i] = arena[plan->slot[i]];
	}
	for (uint32_t at = 0; at < p->g->order_count && p->scratch_bytes; ++at) {
		if (p->scratch_bytes[at] == 0)
			continue;
		plan->scratch_offset[at] = p->blocks[block].offset;
		plan->scratch_arena[at] = arena[block++];
	}
}

static knit_status place(planner *p, knit_diag *d) {
	knit_memory_plan *plan = p->plan;
	const knit_allocator *a = p->g->a;
	knit_memory_split split;
	const knit_status status = knit__memory_split_create(a, p->blocks, p->block_count, p->rules->align,
	                                                     p->rules->max_arena, KNIT_COMPILE_SEARCH_BUDGET, &split, d);

	if (status != KNIT_OK)
		return status;
	fill_offsets(p, split.arena);
	plan->arena_bytes = split.total;
	plan->lower_bound = split.plan.lower_bound;
	plan->in_order_bytes = split.plan.in_order;
	plan->arenas = split.bytes;
	plan->arena_count = split.arena_count;
	split.bytes = NULL; /* the plan's now */
	knit__memory_split_clear(&split, a);
	return KNIT_OK;
}

static knit_status plan_memory(planner *p, knit_diag *d) {
	knit_memory_plan *plan = p->plan;
	const knit_allocator *a = p->g->a;
	knit_status status;

	p->block_cap = plan->storage_count + plan->order_count;
	plan->offset = knit__alloc_array(a, plan->storage_count, sizeof *plan->offset);
	plan->arena = knit__alloc_array(a, plan->storage_count, sizeof *plan->arena);
	plan->slot = knit__alloc_array(a, plan->storage_count, sizeof *plan->slot);
	plan->scratch_offset = knit__alloc_array(a, plan->order_count, sizeof *plan->scratch_offset);
	plan->scratch_arena = knit__alloc_array(a, plan->order_count, sizeof *plan->scratch_arena);
	p->lives = knit__alloc_array(a, plan->storage_count, sizeof *p->lives);
	p->bytes = knit__alloc_array(a, plan->storage_count, sizeof *p->bytes);
	p->blocks = knit__alloc_array(a, p->block_cap, sizeof *p->blocks);
	if (!plan->offset || !plan->arena || !plan->slot || !plan->scratch_offset || !plan->scratch_arena || !p->lives ||
	    !p->bytes || !p->blocks)
		return knit__fail_memory(d, "memory plan", (uint64_t)p->block_cap * sizeof *p->blocks);

	memset(plan->offset, 0xff, plan->storage_count * sizeof *plan->offset);
	memset(plan->slot, 0xff, plan->storage_count * sizeof *plan->slot);
	memset(plan->scratch_offset, 0xff, plan->order_count * sizeof *plan->scratch_offset);

	status = find_lives(p, d);
	if (status == KNIT_OK)
		status = check_limit(p, d);
	if (status != KNIT_OK)
		return status;
	choose_slots(p);
	status = place(p, d);
	return status == KNIT_OK ? sum_unshared(p, d) : status;
}

knit_status knit__memory_plan_create(const knit_graph *g, const knit_bounds *bounds, const uint64_t *scratch_bytes,
                                     const knit_memory_rules *rules, knit_memory_plan *out, knit_diag *d) {
	planner p = {.g = g, .bounds = bounds, .scratch_bytes = scratch_bytes, .rules = rules, .plan = out};
	knit_status status;

	*out = (knit_memory_plan){.storage_count = g->storage_count, .order_count = g->order_count};
	status = plan_memory(&p, d);
	knit__free(g->a, p.lives, out->storage_count * sizeof *p.lives);
	knit__free(g->a, p.bytes, out->storage_count * sizeof *p.bytes);
	knit__free(g->a, p.blocks, (size_t)p.block_cap * sizeof *p.blocks);
	if (status != KNIT_OK)
		knit__memory_plan_clear(out, g->a);
	return status;
}

void knit__memory_plan_clear(knit_memory_plan *p, const knit_allocator *a) {
	knit__free(a, p->offset, p->storage_count * sizeof *p->offset);
	knit__free(a, p->arena, p->storage_count * sizeof *p->arena);
	knit__free(a, p->slot, p->storage_count * sizeof *p->slot);
	knit__free(a, p->scratch_offset, p->order_count * sizeof *p->scratch_offset);
	knit__free(a, p->scratch_arena, p->order_count * sizeof *p->scratch_arena);
	knit__free(a, p->arenas, p->arena_count * sizeof *p->arenas);
	*p = (knit_memory_plan){0};
}
