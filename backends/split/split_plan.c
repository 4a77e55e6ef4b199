/* Owns plans over two devices: a part of the schedule, with a plan of its own, for each run on one side, and between them
 * the results that go across. After knit__split_plan_create nothing is allocated, unless an adapter is bound whose
 * weights no plan has needed on that side before. */
#include "split_impl.h"

#include <string.h>

/* A run of steps as its device sees it: the buffers that they touch, numbered anew in the same order, and all arenas. */
typedef struct part {
	knit_side side;
	knit_schedule schedule;
	uint32_t *outer;     /* per buffer of the part: its number in the whole */
	uint32_t first_step;
	uint32_t first_move, move_count;
	knit_plan *plan;
} part;

struct knit_plan {
	knit_device *dev;
	const knit_schedule *schedule; /* outlives the plan */
	knit_buffer **bufs;
	part *parts;
	knit_split_cut cut;
	char *staging; /* for one move */
	uint64_t staging_bytes;
	uint32_t part_count;
	bool in_flight;
};

/* ---- settling ---------------------------------------------------------------------------------------------------- */

static uint64_t arena_bytes(const knit_schedule *const *s, uint32_t count) {
	uint64_t sum = 0;

	for (uint32_t k = 0; k < s[0]->arena_count; ++k) {
		uint64_t most = 0;
		for (uint32_t i = 0; i < count; ++i) {
			const uint64_t bytes = s[i]->buffers[knit__schedule_arena(s[i], k)].bytes;
			most = bytes > most ? bytes : most;
		}
		sum += most;
	}
	return sum;
}

knit_status knit__split_describe(const knit_schedule *const *s, uint32_t count, uint64_t budget, const knit_allocator *a,
                                 knit_split_place *out, knit_diag *d) {
	const uint32_t steps = s[0]->step_count;
	uint8_t *const can = knit__alloc_array(a, steps, sizeof *can);
	knit_status status = can ? KNIT_OK : knit__fail_memory(d, "the split", steps);

	*out = (knit_split_place){0};
	/* Buckets have the same steps, and a session has one set of states for all of them: what one bucket has no kernel for
	 * none may use. */
	for (uint32_t i = 0; status == KNIT_OK && i < steps; ++i) {
		can[i] = KNIT_ON_NEAR | KNIT_ON_FAR;
		for (uint32_t k = 0; k < count; ++k)
			can[i] &= knit__split_can(s[k]->steps[i].kernel);
		if (can[i] == 0)
			status = knit__fail(d, KNIT_ERR_UNSUPPORTED, s[0]->steps[i].node,
			                    "split: %.80s: neither device has kernels for all buckets",
			                    s[0]->steps[i].origin ? s[0]->steps[i].origin : "");
	}
	if (status == KNIT_OK)
		status = knit__split_place(s[0], can, budget, arena_bytes(s, count), a, out, d);
	knit__free(a, can, steps * sizeof *can);
	return status;
}

knit_status knit__split_settle(knit_device *dev, knit_schedule *const *s, uint32_t count, knit_diag *d) {
	knit_split_place place;
	const knit_status status =
		knit__split_describe((const knit_schedule *const *)s, count, dev->budget, &dev->a, &place, d);

	if (status != KNIT_OK)
		return status;
	for (uint32_t k = 0; k < count; ++k)
		for (uint32_t i = 0; i < place.step_count; ++i)
			s[k]->steps[i].kernel |= KNIT_SPLIT_SETTLED | (place.sides[i] == KNIT_FAR ? KNIT_SPLIT_SETTLED_FAR : 0);
	knit__split_place_clear(&place, &dev->a);
	return KNIT_OK;
}

/* What settle has chosen; a schedule that nobody settled is a program by itself. */
static knit_status sides_of(knit_device *dev, const knit_schedule *s, knit_side *sides, knit_diag *d) {
	knit_split_place place;
	bool settled = true;

	for (uint32_t i = 0; i < s->step_count; ++i) {
		sides[i] = s->steps[i].kernel & KNIT_SPLIT_SETTLED_FAR ? KNIT_FAR : KNIT_NEAR;
		settled = settled && s->steps[i].kernel & KNIT_SPLIT_SETTLED;
	}
	if (settled)
		return KNIT_OK;
	const knit_status status = knit__split_describe(&s, 1, dev->budget, &dev->a, &place, d);
	if (status != KNIT_OK)
		return status;
	memcpy(sides, place.sides, s->step_count * sizeof *sides);
	knit__split_place_clear(&place, &dev->a);
	return KNIT_OK;
}

/* ---- parts ------------------------------------------------------------------------------------------------------- */

static void part_clear(knit_device *dev, part *p) {
	knit_schedule *const s = &p->schedule;

	if (p->plan)
		dev->backend[p->side]->plan_destroy(dev->dev[p->side], p->plan);
	knit__free(&dev->a, s->steps, s->step_count * sizeof *s->steps);
	knit__free(&dev->a, s->buffers, s->buffer_count * sizeof *s->buffers);
	knit__free(&dev->a, s->hazards, s->hazard_cap * sizeof *s->hazards);
	knit__free(&dev->a, p->outer, s->buffer_count * sizeof *p->outer);
}

static void touch(const knit_step *step, bool *used) {
	for (uint32_t k = 0; k < step->in_count; ++k)
		if (step->in[k].buffer != UINT32_MAX)
			used[step->in[k].buffer] = true;
	for (uint32_t k = 0; k < step->out_count; ++k)
		if (step->out[k].buffer != UINT32_MAX)
			used[step->out[k].buffer] = true;
}

static void renumber(knit_operand *o, uint32_t count, const uint32_t *number) {
	for (uint32_t k = 0; k < count; ++k)
		if (o[k].buffer != UINT32_MAX)
			o[k].buffer = number[o[k].buffer];
}

static void steps_fill(const knit_schedule *whole, part *p, const uint32_t *number) {
	for (uint32_t i = 0; i < p->schedule.step_count; ++i) {
		knit_step *const step = &p->schedule.steps[i];
		*step = whole->steps[p->first_step + i];
		step->kernel = knit__split_half(step->kernel, p->side);
		renumber(step->in, KNIT_MAX_IN, number);
		renumber(step->out, KNIT_MAX_OUT, number);
		step->scratch_buffer = number[step->scratch_buffer];
	}
}

static void hazards_fill(const knit_schedule *whole, part *p) {
	const uint32_t end = p->first_step + p->schedule.step_count;

	for (uint32_t i = 0; i < whole->hazard_count; ++i) {
		const knit_hazard *const h = &whole->hazards[i];
		if (h->before >= p->first_step && h->after < end)
			p->schedule.hazards[p->schedule.hazard_count++] =
				(knit_hazard){h->before - p->first_step, h->after - p->first_step, h->kind};
	}
}

/* `used` and `number` have an element per buffer of the whole. */
static knit_status part_fill(knit_plan *plan, part *p, uint32_t step_count, bool *used, uint32_t *number) {
	const knit_schedule *const whole = plan->schedule;
	const knit_allocator *const a = &plan->dev->a;
	knit_schedule *const s = &p->schedule;

	memset(used, 0, whole->buffer_count * sizeof *used);
	for (uint32_t i = 0; i < step_count; ++i)
		touch(&whole->steps[p->first_step + i], used);
	for (uint32_t b = 0; b < whole->buffer_count; ++b) {
		used[b] = used[b] || whole->buffers[b].use == KNIT_BUFFER_ARENA;
		number[b] = s->buffer_count;
		s->buffer_count += used[b];
	}
	s->a = a;
	s->graph = whole->graph;
	s->bounds = whole->bounds;
	s->arena_count = whole->arena_count;
	s->max_arena = whole->max_arena;
	s->plan = whole->plan;
	s->step_count = step_count;
	s->steps = knit__alloc_array(a, step_count, sizeof *s->steps);
	s->buffers = knit__alloc_array(a, s->buffer_count, sizeof *s->buffers);
	p->outer = knit__alloc_array(a, s->buffer_count, sizeof *p->outer);
	/* At most as many as the whole has. */
	s->hazards = knit__alloc_array(a, whole->hazard_count, sizeof *s->hazards);
	s->hazard_cap = s->hazards ? whole->hazard_count : 0;
	if (!s->steps || !s->buffers || !p->outer || !s->hazards)
		return KNIT_ERR_MEMORY;
	for (uint32_t b = 0; b < whole->buffer_count; ++b) {
		if (!used[b])
			continue;
		s->buffers[number[b]] = whole->buffers[b];
		p->outer[number[b]] = b;
	}
	s->arena_buffer = number[whole->arena_buffer];
	steps_fill(whole, p, number);
	hazards_fill(whole, p);
	return KNIT_OK;
}

static knit_status fail_buffer(const knit_plan *plan, knit_side side, uint32_t buffer, knit_status status, knit_diag *d) {
	const knit_device *const dev = plan->dev;
	const knit_buffer_desc *const b = &plan->schedule->buffers[buffer];
	uint64_t left = 0, all = 0;

	if (status == KNIT_ERR_MEMORY && dev->backend[side]->room)
		dev->backend[side]->room(dev->dev[side], &left, &all);
	if (all)
		return knit__fail(d, status, 0,
		                  "%s: \"%.60s\" (%llu bytes) could not be placed: %.1f of %.1f MiB are free%s", dev->name[side],
		                  b->name ? b->name : "", (unsigned long long)b->bytes, (double)left / 1048576.0,
		                  (double)all / 1048576.0, side == KNIT_NEAR ? "; give the device less (--device-memory)" : "");
	return knit__fail(d, status, 0, "%s: \"%.60s\" (%llu bytes) could not be placed: %s", dev->name[side],
	                  b->name ? b->name : "", (unsigned long long)b->bytes, knit_status_name(status));
}

static knit_status part_plan(knit_plan *plan, part *p, knit_diag *d) {
	knit_device *const dev = plan->dev;
	const uint32_t count = p->schedule.buffer_count;
	knit_status status = KNIT_OK;

	knit_buffer **const inner = knit__alloc_array(&dev->a, count, sizeof(knit_buffer *));
	if (!inner)
		return knit__fail_memory(d, "a split plan", count * sizeof(knit_buffer *));
	for (uint32_t b = 0; status == KNIT_OK && b < count; ++b) {
		knit_buffer *const buf = plan->bufs[p->outer[b]];
		status = knit__split_buffer_need(dev, buf, p->side);
		if (status != KNIT_OK)
			fail_buffer(plan, p->side, p->outer[b], status, d);
		inner[b] = buf->inner[p->side];
	}
	if (status == KNIT_OK)
		status = dev->backend[p->side]->plan_create(dev->dev[p->side], &p->schedule, inner, &p->plan, d);
	knit__free(&dev->a, inner, count * sizeof(knit_buffer *));
	return status;
}

/* An output is read from where it is written, the same in all buckets. */
static void results_note(const knit_plan *plan, const part *p) {
	for (uint32_t i = 0; i < p->schedule.step_count; ++i) {
		const knit_step *const step = &plan->schedule->steps[p->first_step + i];
		for (uint32_t k = 0; k < step->out_count; ++k)
			if (step->out[k].buffer < plan->schedule->buffer_count &&
			    plan->schedule->buffers[step->out[k].buffer].use == KNIT_BUFFER_IO)
				plan->bufs[step->out[k].buffer]->result_on = knit__on(p->side);
	}
}

static knit_status parts_make(knit_plan *plan, knit_diag *d) {
	const knit_schedule *const whole = plan->schedule;
	const knit_allocator *const a = &plan->dev->a;
	bool *const used = knit__alloc_array(a, whole->buffer_count, sizeof *used);
	uint32_t *const number = knit__alloc_array(a, whole->buffer_count, sizeof *number);
	knit_status status = KNIT_OK;

	plan->parts = knit__alloc_array(a, plan->cut.run_count, sizeof *plan->parts);
	if (!used || !number || !plan->parts)
		status = KNIT_ERR_MEMORY;
	for (uint32_t i = 0; status == KNIT_OK && i < plan->cut.run_count; ++i) {
		const knit_split_run *const run = &plan->cut.runs[i];
		part *const p = &plan->parts[plan->part_count++];
		*p = (part){.side = run->side, .first_step = run->first, .first_move = run->first_move,
		            .move_count = run->move_count};
		status = part_fill(plan, p, run->count, used, number);
		if (status == KNIT_OK)
			status = part_plan(plan, p, d);
		if (status == KNIT_OK)
			results_note(plan, p);
	}
	knit__free(a, used, whole->buffer_count * sizeof *used);
	knit__free(a, number, whole->buffer_count * sizeof *number);
	return status;
}

/* ---- plans ------------------------------------------------------------------------------------------------------- */

static void plan_free(knit_plan *plan) {
	knit_device *const dev = plan->dev;

	for (uint32_t i = 0; i < plan->part_count; ++i)
		part_clear(dev, &plan->parts[i]);
	knit__free(&dev->a, plan->parts, plan->cut.run_count * sizeof *plan->parts);
	knit__split_cut_clear(&plan->cut, &dev->a);
	knit__free(&dev->a, plan->staging, (size_t)plan->staging_bytes);
	knit__free(&dev->a, plan->bufs, plan->schedule->buffer_count * sizeof *plan->bufs);
	knit__free(&dev->a, plan, sizeof *plan);
}

static knit_status cut_make(knit_plan *plan, knit_diag *d) {
	const knit_schedule *const s = plan->schedule;
	const knit_allocator *const a = &plan->dev->a;
	knit_side *const sides = knit__alloc_array(a, s->step_count, sizeof *sides);
	knit_status status = sides ? sides_of(plan->dev, s, sides, d) : KNIT_ERR_MEMORY;

	if (status == KNIT_OK)
		status = knit__split_cut(s, sides, a, &plan->cut, d);
	knit__free(a, sides, s->step_count * sizeof *sides);
	for (uint32_t i = 0; status == KNIT_OK && i < plan->cut.move_count; ++i) {
		uint64_t bytes = 0;
		if (!knit__storage_max_bytes(s->graph, &s->bounds, plan->cut.moves[i].storage, &bytes))
			return knit__fail(d, KNIT_ERR_LIMIT, 0, "split: a result is larger than memory");
		plan->staging_bytes = bytes > plan->staging_bytes ? bytes : plan->staging_bytes;
	}
	if (status == KNIT_OK) {
		plan->staging = knit__alloc(a, (size_t)plan->staging_bytes);
		status = plan->staging ? KNIT_OK : KNIT_ERR_MEMORY;
	}
	return status;
}

knit_status knit__split_plan_create(knit_device *dev, const knit_schedule *s, knit_buffer *const *bufs, knit_plan **out,
                                    knit_diag *d) {
	*out = NULL;
	knit_plan *const plan = knit__alloc_zero(&dev->a, sizeof *plan);
	if (!plan)
		return knit__fail_memory(d, "a split plan", sizeof *plan);
	plan->dev = dev;
	plan->schedule = s;
	plan->bufs = knit__alloc_array(&dev->a, s->buffer_count, sizeof *plan->bufs);

	knit_status status = plan->bufs ? KNIT_OK : KNIT_ERR_MEMORY;
	if (status == KNIT_OK) {
		memcpy(plan->bufs, bufs, s->buffer_count * sizeof *plan->bufs);
		status = cut_make(plan, d);
	}
	if (status == KNIT_OK)
		status = parts_make(plan, d);
	if (status != KNIT_OK) {
		plan_free(plan);
		return knit__fail(d, status, 0, "a split plan was not made: %s", knit_status_name(status));
	}
	*out = plan;
	return KNIT_OK;
}

void knit__split_plan_destroy(knit_device *dev, knit_plan *plan) {
	(void)dev;
	if (plan)
		plan_free(plan);
}

/* The number of a buffer of the whole in a part, where numbers rise with those of the whole; UINT32_MAX: not in it. */
static uint32_t number_in(const part *p, uint32_t buffer) {
	uint32_t lo = 0, hi = p->schedule.buffer_count;

	while (lo < hi) {
		const uint32_t middle = lo + (hi - lo) / 2;
		if (p->outer[middle] < buffer)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo < p->schedule.buffer_count && p->outer[lo] == buffer ? lo : UINT32_MAX;
}

knit_status knit__split_plan_rebind(knit_plan *plan, uint32_t buffer, knit_buffer *buf) {
	knit_device *const dev = plan->dev;
	knit_status status = KNIT_OK;

	for (uint32_t i = 0; status == KNIT_OK && i < plan->part_count; ++i) {
		part *const p = &plan->parts[i];
		const uint32_t number = number_in(p, buffer);
		if (number == UINT32_MAX)
			continue;
		if (!dev->backend[p->side]->plan_rebind)
			return KNIT_ERR_UNSUPPORTED;
		status = knit__split_buffer_need(dev, buf, p->side);
		if (status == KNIT_OK)
			status = dev->backend[p->side]->plan_rebind(p->plan, number, buf->inner[p->side]);
	}
	if (status == KNIT_OK)
		plan->bufs[buffer] = buf;
	return status;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static knit_status move(knit_plan *plan, const knit_split_move *m, knit_side to, const int64_t *symbols) {
	knit_device *const dev = plan->dev;
	const knit_side from = to == KNIT_NEAR ? KNIT_FAR : KNIT_NEAR;
	const knit_buffer *const buf = plan->bufs[m->buffer];
	const uint64_t bytes = knit__split_move_bytes(plan->schedule, m->storage, symbols);

	if (bytes == 0)
		return KNIT_OK;
	if (bytes > plan->staging_bytes || !buf->inner[from] || !buf->inner[to])
		return KNIT_ERR_INTERNAL;
	const knit_status status =
		dev->backend[from]->buffer_read(dev->dev[from], buf->inner[from], m->base, plan->staging, bytes);
	return status == KNIT_OK
	           ? dev->backend[to]->buffer_write(dev->dev[to], buf->inner[to], m->base, plan->staging, bytes)
	           : status;
}

/* Everything but the last run is done when it returns: each needs the results of the one before. */
knit_status knit__split_plan_submit(knit_plan *plan, const int64_t *symbols) {
	knit_device *const dev = plan->dev;
	knit_status status = KNIT_OK;

	if (plan->in_flight)
		return KNIT_ERR_STATE;
	for (uint32_t i = 0; status == KNIT_OK && i < plan->part_count; ++i) {
		const part *const p = &plan->parts[i];
		for (uint32_t k = 0; status == KNIT_OK && k < p->move_count; ++k)
			status = move(plan, &plan->cut.moves[p->first_move + k], p->side, symbols);
		if (status == KNIT_OK)
			status = dev->backend[p->side]->plan_submit(p->plan, symbols);
		if (status == KNIT_OK && i + 1 < plan->part_count)
			status = dev->backend[p->side]->plan_wait(p->plan, UINT64_MAX);
	}
	plan->in_flight = status == KNIT_OK;
	return status;
}

knit_status knit__split_plan_wait(knit_plan *plan, uint64_t timeout_ns) {
	if (!plan->in_flight)
		return KNIT_ERR_STATE;
	if (plan->part_count == 0) {
		plan->in_flight = false;
		return KNIT_OK;
	}
	const part *const p = &plan->parts[plan->part_count - 1];
	const knit_status status = plan->dev->backend[p->side]->plan_wait(p->plan, timeout_ns);
	plan->in_flight = status == KNIT_ERR_LIMIT; /* still running */
	return status;
}

size_t knit__split_plan_times(const knit_plan *plan, knit_step_time *out, size_t cap) {
	size_t done = 0;

	for (uint32_t i = 0; i < plan->part_count; ++i) {
		const part *const p = &plan->parts[i];
		const size_t room = done < cap ? cap - done : 0;
		const size_t count = plan->dev->backend[p->side]->plan_times(p->plan, room ? out + done : NULL, room);
		for (size_t k = 0; k < count && k < room; ++k)
			out[done + k].step += p->first_step;
		done += count;
	}
	return done;
}
