/* Owns the choice of sides: reads per token per byte, in a greedy order. See place.h. */
#include "place.h"

#include "../../graph/op_def.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

/* A matrix that decides where steps run. */
typedef struct leader {
	uint32_t buffer, first, percent; /* first: a step; percent: reads per token in hundredths */
	uint64_t most;                   /* bytes that one step reads of it */
} leader;

typedef struct placer {
	const knit_schedule *s;
	const uint8_t *can;
	uint64_t budget, arena_bytes;
	knit_split_place *p;
	uint32_t *lead;     /* per step: the buffer that decides; NONE */
	uint32_t *group;    /* per buffer: a state of the same group, itself for its first; NONE: no state */
	uint8_t *group_can; /* per buffer that is the first of a group */
	uint8_t *group_on;
	bool *taken;        /* per buffer: a leader that goes near */
	uint8_t *on;        /* per buffer: where its steps run */
	leader *leaders;
	uint32_t leader_count;
} placer;

static uint64_t sum_u64(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }

static bool has_buffer(const knit_schedule *s, const knit_operand *o, knit_buffer_use use) {
	return o->buffer < s->buffer_count && s->buffers[o->buffer].use == use;
}

/* ---- reads ------------------------------------------------------------------------------------------------------- */

static uint64_t operand_bytes(const knit_schedule *s, const knit_operand *o) {
	uint64_t elements = 1, bytes = 0;

	for (uint32_t i = 0; i < o->rank; ++i)
		if (!knit__mul_u64(elements, (uint64_t)knit__dim_lo(&s->graph->exprs, NULL, o->dims[i]), &elements))
			return UINT64_MAX;
	return knit__dtype_bytes(o->dtype, elements, &bytes) ? bytes : UINT64_MAX;
}

/* What a step reads of weight operand `at` in a run of the least sizes: the rows that its indices choose, or all of it. */
static uint64_t read_bytes(const knit_schedule *s, const knit_step *step, uint32_t at) {
	const knit_op_def *const def = knit__op(step->op);
	const uint64_t all = operand_bytes(s, &step->in[at]);
	uint64_t bytes = all;

	for (uint32_t r = 0; def && r < def->index_rule_count; ++r) {
		const knit_index_rule *const rule = &def->index_rules[r];
		if (rule->into != at || rule->dim != 0 || rule->operand >= step->in_count ||
		    step->in[rule->operand].buffer == UINT32_MAX)
			continue;
		const int64_t rows = knit__dim_lo(&s->graph->exprs, NULL, step->in[at].dims[0]);
		const int64_t chosen = knit__dim_lo(&s->graph->exprs, NULL, step->in[rule->operand].dims[0]);
		if (rows > 0 && chosen < rows && (uint64_t)chosen * (all / (uint64_t)rows) < bytes)
			bytes = (uint64_t)chosen * (all / (uint64_t)rows);
	}
	return bytes;
}

static void count_reads(placer *w) {
	for (uint32_t i = 0; i < w->s->step_count; ++i) {
		const knit_step *const step = &w->s->steps[i];
		for (uint32_t k = 0; k < step->in_count; ++k) {
			if (!has_buffer(w->s, &step->in[k], KNIT_BUFFER_CONST))
				continue;
			uint64_t *const sum = &w->p->storages[step->in[k].buffer].read_bytes;
			*sum = sum_u64(*sum, read_bytes(w->s, step, k));
		}
	}
	for (uint32_t b = 0; b < w->s->buffer_count; ++b) {
		knit_split_storage *const t = &w->p->storages[b];
		t->reads = w->s->buffers[b].bytes ? (double)t->read_bytes / (double)w->s->buffers[b].bytes : 0.0;
	}
}

/* ---- who decides ------------------------------------------------------------------------------------------------- */

/* The largest matrix. Vectors decide nothing: a gain that still fits would tear its step out of its surroundings. */
static uint32_t leader_of(const knit_schedule *s, const knit_step *step) {
	uint32_t best = NONE;

	for (uint32_t k = 0; k < step->in_count; ++k) {
		const knit_operand *const o = &step->in[k];
		if (!has_buffer(s, o, KNIT_BUFFER_CONST) || o->rank < 2)
			continue;
		if (best == NONE || s->buffers[o->buffer].bytes > s->buffers[best].bytes)
			best = o->buffer;
	}
	return best;
}

static int compare_leaders(const void *x, const void *y) {
	const leader *const a = x, *const b = y;

	if (a->percent != b->percent)
		return a->percent > b->percent ? -1 : 1;
	if (a->first != b->first)
		return a->first < b->first ? -1 : 1;
	return a->buffer < b->buffer ? -1 : a->buffer > b->buffer;
}

/* What a step reads of its leader. */
static uint64_t lead_bytes(const placer *w, uint32_t step) {
	uint64_t bytes = 0;

	for (uint32_t k = 0; k < w->s->steps[step].in_count; ++k)
		if (w->s->steps[step].in[k].buffer == w->lead[step])
			bytes = sum_u64(bytes, read_bytes(w->s, &w->s->steps[step], k));
	return bytes;
}

static leader *leader_find(placer *w, uint32_t buffer) {
	for (uint32_t i = 0; i < w->leader_count; ++i)
		if (w->leaders[i].buffer == buffer)
			return &w->leaders[i];

	/* In hundredths, so that the one row which an embedding takes from a tied head does not count as more reads. */
	const double percent = w->p->storages[buffer].reads * 100.0;
	leader *const l = &w->leaders[w->leader_count++];
	*l = (leader){.buffer = buffer, .percent = percent < 4e9 ? (uint32_t)percent : UINT32_MAX};
	return l;
}

/* A leader's place in the order is that of the first step that reads most of it. */
static void find_leaders(placer *w) {
	for (uint32_t i = 0; i < w->s->step_count; ++i) {
		w->lead[i] = leader_of(w->s, &w->s->steps[i]);
		if (w->lead[i] == NONE)
			continue;
		leader *const l = leader_find(w, w->lead[i]);
		const uint64_t bytes = lead_bytes(w, i);
		if (bytes > l->most) {
			l->most = bytes;
			l->first = i;
		}
	}
	qsort(w->leaders, w->leader_count, sizeof *w->leaders, compare_leaders);
}

/* ---- states ------------------------------------------------------------------------------------------------------ */

static uint32_t group_of(const placer *w, uint32_t buffer) {
	while (w->group[buffer] != buffer)
		buffer = w->group[buffer];
	return buffer;
}

/* The group of the states that a step touches; NONE: none. */
static uint32_t step_group(const placer *w, const knit_step *step) {
	for (uint32_t k = 0; k < step->in_count; ++k)
		if (has_buffer(w->s, &step->in[k], KNIT_BUFFER_STATE))
			return group_of(w, step->in[k].buffer);
	for (uint32_t k = 0; k < step->out_count; ++k)
		if (has_buffer(w->s, &step->out[k], KNIT_BUFFER_STATE))
			return group_of(w, step->out[k].buffer);
	return NONE;
}

static void join(placer *w, const knit_operand *o, uint32_t to) {
	if (to != NONE && has_buffer(w->s, o, KNIT_BUFFER_STATE))
		w->group[group_of(w, o->buffer)] = group_of(w, to);
}

/* States of one step (keys and values) stay together. */
static knit_status find_groups(placer *w, knit_diag *d) {
	for (uint32_t b = 0; b < w->s->buffer_count; ++b) {
		w->group[b] = w->s->buffers[b].use == KNIT_BUFFER_STATE ? b : NONE;
		w->group_can[b] = KNIT_ON_NEAR | KNIT_ON_FAR;
	}
	for (uint32_t i = 0; i < w->s->step_count; ++i) {
		const knit_step *const step = &w->s->steps[i];
		const uint32_t group = step_group(w, step);
		for (uint32_t k = 0; k < step->in_count; ++k)
			join(w, &step->in[k], group);
		for (uint32_t k = 0; k < step->out_count; ++k)
			join(w, &step->out[k], group);
	}
	for (uint32_t i = 0; i < w->s->step_count; ++i) {
		const uint32_t group = step_group(w, &w->s->steps[i]);
		if (group == NONE)
			continue;
		w->group_can[group] &= w->can[i];
		if (w->group_can[group] == 0)
			return knit__fail(d, KNIT_ERR_UNSUPPORTED, w->s->steps[i].node,
			                  "split: neither device has kernels for all steps of state \"%.60s\"",
			                  w->s->buffers[group].name ? w->s->buffers[group].name : "");
	}
	return KNIT_OK;
}

/* ---- sides ------------------------------------------------------------------------------------------------------- */

static knit_side limited(knit_side wanted, uint8_t can) {
	return can & knit__on(wanted) ? wanted : can & KNIT_ON_NEAR ? KNIT_NEAR : KNIT_FAR;
}

/* Where steps run that come before the first with a matrix. */
static knit_side first_side(const placer *w, knit_side otherwise) {
	for (uint32_t i = 0; i < w->s->step_count; ++i)
		if (w->lead[i] != NONE)
			return w->taken[w->lead[i]] ? KNIT_NEAR : KNIT_FAR;
	return otherwise;
}

static void assign(placer *w, knit_side otherwise) {
	knit_side side = first_side(w, otherwise);

	memset(w->group_on, 0, w->s->buffer_count * sizeof *w->group_on);
	w->p->moved_steps = 0;
	for (uint32_t i = 0; i < w->s->step_count; ++i) {
		const uint32_t group = step_group(w, &w->s->steps[i]);
		if (w->lead[i] != NONE)
			side = w->taken[w->lead[i]] ? KNIT_NEAR : KNIT_FAR;
		const knit_side wanted = side;
		if (group != NONE) {
			side = w->group_on[group] ? (w->group_on[group] == KNIT_ON_NEAR ? KNIT_NEAR : KNIT_FAR)
			                          : limited(side, w->group_can[group]);
			w->group_on[group] = knit__on(side);
		}
		side = limited(side, w->can[i]);
		w->p->moved_steps += side != wanted && !(w->can[i] & knit__on(wanted));
		w->p->sides[i] = side;
	}
}

static void mark(placer *w) {
	memset(w->on, 0, w->s->buffer_count * sizeof *w->on);
	for (uint32_t i = 0; i < w->s->step_count; ++i) {
		const knit_step *const step = &w->s->steps[i];
		const uint8_t on = knit__on(w->p->sides[i]);
		for (uint32_t k = 0; k < step->in_count; ++k)
			if (step->in[k].buffer < w->s->buffer_count)
				w->on[step->in[k].buffer] |= on;
		for (uint32_t k = 0; k < step->out_count; ++k)
			if (step->out[k].buffer < w->s->buffer_count)
				w->on[step->out[k].buffer] |= on;
	}
}

static bool side_is_used(const placer *w, knit_side side) {
	for (uint32_t i = 0; i < w->s->step_count; ++i)
		if (w->p->sides[i] == side)
			return true;
	return false;
}

/* Bytes near. */
static uint64_t near_bytes(placer *w) {
	uint64_t sum = side_is_used(w, KNIT_NEAR) ? w->arena_bytes : 0;

	mark(w);
	for (uint32_t b = 0; b < w->s->buffer_count; ++b)
		if (w->on[b] & KNIT_ON_NEAR && w->s->buffers[b].use != KNIT_BUFFER_ARENA)
			sum = sum_u64(sum, w->s->buffers[b].bytes);
	return sum;
}

static bool near_can(const placer *w, uint32_t buffer) {
	for (uint32_t i = 0; i < w->s->step_count; ++i)
		if (w->lead[i] == buffer && w->can[i] & KNIT_ON_NEAR)
			return true;
	return false;
}

static uint32_t count_runs(const placer *w) {
	uint32_t runs = 0;

	for (uint32_t i = 0; i < w->s->step_count; ++i)
		runs += i == 0 || w->p->sides[i] != w->p->sides[i - 1];
	return runs;
}

/* Whether a leader goes near beside those that do. After one that found no room, the smaller ones among its equals would
 * be picked out of layers that stay far, with two switches for every visit: they go near only where that adds none. */
static knit_split_why try_leader(placer *w, uint32_t buffer, bool room_is_short, uint32_t *runs) {
	if (!near_can(w, buffer))
		return KNIT_SPLIT_NO_KERNEL;
	w->taken[buffer] = true;
	assign(w, KNIT_FAR);
	const uint32_t then = count_runs(w);
	const bool fits = near_bytes(w) <= w->budget;
	w->taken[buffer] = fits && (!room_is_short || then <= *runs);
	if (!w->taken[buffer])
		return fits ? KNIT_SPLIT_SWITCHES : KNIT_SPLIT_NO_ROOM;
	*runs = then;
	return KNIT_SPLIT_READS;
}

static void choose(placer *w) {
	bool room_is_short = false;

	for (uint32_t b = 0; b < w->s->buffer_count; ++b)
		w->p->storages[b].why = KNIT_SPLIT_WITH_STEPS;
	assign(w, KNIT_FAR);
	uint32_t runs = count_runs(w);
	for (uint32_t i = 0; i < w->leader_count; ++i) {
		const leader *const l = &w->leaders[i];
		if (i > 0 && l->percent != w->leaders[i - 1].percent)
			room_is_short = false;
		const knit_split_why why = try_leader(w, l->buffer, room_is_short, &runs);
		w->p->storages[l->buffer].why = why;
		room_is_short = room_is_short || why == KNIT_SPLIT_NO_ROOM;
	}
	/* Without any matrix: near, if all of it fits. */
	assign(w, KNIT_NEAR);
	if (w->leader_count == 0 && near_bytes(w) > w->budget)
		assign(w, KNIT_FAR);
	mark(w);
}

/* ---- sums -------------------------------------------------------------------------------------------------------- */

static void add_buffer(placer *w, uint32_t buffer, knit_split_sum *sum) {
	const knit_buffer_desc *const b = &w->s->buffers[buffer];

	if (b->use == KNIT_BUFFER_CONST) {
		sum->weight_bytes = sum_u64(sum->weight_bytes, b->bytes);
		++sum->storages;
	} else if (b->use == KNIT_BUFFER_STATE) {
		sum->state_bytes = sum_u64(sum->state_bytes, b->bytes);
	} else if (b->use == KNIT_BUFFER_IO) {
		sum->io_bytes = sum_u64(sum->io_bytes, b->bytes);
	}
}

static void add_up(placer *w) {
	for (uint32_t b = 0; b < w->s->buffer_count; ++b) {
		w->p->storages[b].on = w->on[b];
		for (knit_side side = KNIT_NEAR; side <= KNIT_FAR; ++side)
			if (w->on[b] & knit__on(side))
				add_buffer(w, b, &w->p->sums[side]);
	}
	for (uint32_t i = 0; i < w->s->step_count; ++i) {
		const knit_step *const step = &w->s->steps[i];
		knit_split_sum *const sum = &w->p->sums[w->p->sides[i]];
		++sum->steps;
		sum->arena_bytes = w->arena_bytes;
		for (uint32_t k = 0; k < step->in_count; ++k)
			if (has_buffer(w->s, &step->in[k], KNIT_BUFFER_CONST))
				sum->read_bytes = sum_u64(sum->read_bytes, read_bytes(w->s, step, k));
	}
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static bool placer_make(placer *w, const knit_allocator *a) {
	const uint32_t steps = w->s->step_count, buffers = w->s->buffer_count;

	w->p->step_count = steps;
	w->p->buffer_count = buffers;
	w->p->sides = knit__alloc_array(a, steps, sizeof *w->p->sides);
	w->p->storages = knit__alloc_array(a, buffers, sizeof *w->p->storages);
	w->lead = knit__alloc_array(a, steps, sizeof *w->lead);
	w->group = knit__alloc_array(a, buffers, sizeof *w->group);
	w->group_can = knit__alloc_array(a, buffers, sizeof *w->group_can);
	w->group_on = knit__alloc_array(a, buffers, sizeof *w->group_on);
	w->taken = knit__alloc_array(a, buffers, sizeof *w->taken);
	w->on = knit__alloc_array(a, buffers, sizeof *w->on);
	w->leaders = knit__alloc_array(a, buffers, sizeof *w->leaders);
	return w->p->sides && w->p->storages && w->lead && w->group && w->group_can && w->group_on && w->taken && w->on &&
	       w->leaders;
}

static void placer_clear(placer *w, const knit_allocator *a) {
	const size_t buffers = w->s->buffer_count;

	knit__free(a, w->lead, w->s->step_count * sizeof *w->lead);
	knit__free(a, w->group, buffers * sizeof *w->group);
	knit__free(a, w->group_can, buffers * sizeof *w->group_can);
	knit__free(a, w->group_on, buffers * sizeof *w->group_on);
	knit__free(a, w->taken, buffers * sizeof *w->taken);
	knit__free(a, w->on, buffers * sizeof *w->on);
	knit__free(a, w->leaders, buffers * sizeof *w->leaders);
}

void knit__split_place_clear(knit_split_place *p, const knit_allocator *a) {
	knit__free(a, p->sides, p->step_count * sizeof *p->sides);
	knit__free(a, p->storages, p->buffer_count * sizeof *p->storages);
	memset(p, 0, sizeof *p);
}

knit_status knit__split_place(const knit_schedule *s, const uint8_t *can, uint64_t budget, uint64_t arena_bytes,
                              const knit_allocator *a, knit_split_place *out, knit_diag *d) {
	placer w = {.s = s, .can = can, .budget = budget, .arena_bytes = arena_bytes, .p = out};
	knit_status status = KNIT_OK;

	memset(out, 0, sizeof *out);
	if (!placer_make(&w, a))
		status = knit__fail_memory(d, "the split", (uint64_t)s->step_count * sizeof *out->sides);
	if (status == KNIT_OK)
		status = find_groups(&w, d);
	if (status == KNIT_OK) {
		count_reads(&w);
		find_leaders(&w);
		choose(&w);
		add_up(&w);
	}
	placer_clear(&w, a);
	if (status != KNIT_OK)
		knit__split_place_clear(out, a);
	return status;
}
