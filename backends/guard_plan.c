/* Owns the guard's rules for plans: what a schedule must hold, and the order create, submit, wait, destroy. */
#include "guard_impl.h"

#include <string.h>

static void plan_free(knit_device *dev, knit_plan *p) {
	knit__free(knit__guard_alloc(dev), p->bufs, (size_t)p->schedule->buffer_count * sizeof *p->bufs);
	p->bufs = NULL;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

/* With the lock held. */
static knit_status buffers_check(knit_device *dev, const knit_schedule *s, knit_buffer *const *bufs) {
	if (s->buffer_count == 0 || s->arena_buffer >= s->buffer_count)
		return knit__guard_fault(dev, "plan_create: the schedule has no arena");
	for (uint32_t i = 0; i < s->buffer_count; ++i) {
		const knit_buffer_desc *const want = &s->buffers[i];
		const knit_status status = knit__guard_handle_check(dev, bufs[i] ? &bufs[i]->h : NULL, MAGIC_BUFFER, "plan_create");
		if (status != KNIT_OK)
			return status;
		if (bufs[i]->bytes < want->bytes)
			return knit__guard_fault(dev, "plan_create: buffer %u (%s) has %llu bytes, the schedule needs %llu", i,
			             want->name ? want->name : "arena", (unsigned long long)bufs[i]->bytes,
			             (unsigned long long)want->bytes);
		if (bufs[i]->use != want->use)
			return knit__guard_fault(dev, "plan_create: buffer %u (%s) was made for use %d, the schedule uses it as %d", i,
			             want->name ? want->name : "arena", (int)bufs[i]->use, (int)want->use);
	}
	return KNIT_OK;
}

static knit_status operand_check(knit_device *dev, const knit_schedule *s, uint32_t step, const knit_operand *o,
                                 bool written) {
	if (o->buffer == UINT32_MAX)
		return KNIT_OK;
	if (o->buffer >= s->buffer_count)
		return knit__guard_fault(dev, "plan_create: step %u names buffer %u of %u", step, o->buffer, s->buffer_count);

	const knit_buffer_desc *const b = &s->buffers[o->buffer];
	const knit_dtype_info *const type = knit__dtype_info(o->dtype);
	if (!type || o->rank > KNIT_MAX_RANK || o->base > b->bytes)
		return knit__guard_fault(dev, "plan_create: step %u has a broken operand on buffer %u", step, o->buffer);
	if (written && b->use == KNIT_BUFFER_CONST)
		return knit__guard_fault(dev, "plan_create: step %u writes the weight \"%s\"", step, b->name ? b->name : "");

	/* The last element at the upper bounds; strides and dims are not negative. */
	int64_t last = knit__dim_hi(&s->graph->exprs, &s->bounds, o->offset);
	for (uint32_t i = 0; i < o->rank; ++i) {
		const int64_t dim = knit__dim_hi(&s->graph->exprs, &s->bounds, o->dims[i]);
		const int64_t stride = knit__dim_hi(&s->graph->exprs, &s->bounds, o->strides[i]);
		int64_t reach;
		if (dim == 0)
			return KNIT_OK;
		if (!knit__mul_i64(dim - 1, stride, &reach) || !knit__add_i64(last, reach, &last))
			return knit__guard_fault(dev, "plan_create: step %u: an operand's size overflows", step);
	}
	const uint64_t end = (uint64_t)last / type->block_elements * type->block_bytes + type->block_bytes;
	if (last < 0 || end > b->bytes - o->base)
		return knit__guard_fault(dev, "plan_create: step %u reaches byte %llu of buffer %u, which has %llu", step,
		             (unsigned long long)(o->base + end), o->buffer, (unsigned long long)b->bytes);
	return KNIT_OK;
}

static knit_status steps_check(knit_device *dev, const knit_schedule *s) {
	for (uint32_t i = 0; i < s->step_count; ++i) {
		const knit_step *const step = &s->steps[i];

		if (step->kernel == 0)
			return knit__guard_fault(dev, "plan_create: step %u has no kernel", i);
		if (step->scratch_bytes && (step->scratch_buffer >= s->buffer_count ||
		                            s->buffers[step->scratch_buffer].use != KNIT_BUFFER_ARENA))
			return knit__guard_fault(dev, "plan_create: step %u has scratch in buffer %u, which is no arena", i,
			                         step->scratch_buffer);
		const uint64_t arena = step->scratch_bytes ? s->buffers[step->scratch_buffer].bytes : 0;
		if (step->scratch_bytes &&
		    (step->scratch_base > arena || step->scratch_bytes > arena - step->scratch_base ||
		     step->scratch_base % dev->inner->caps(dev->inner_dev)->buffer_align != 0))
			return knit__guard_fault(dev, "plan_create: step %u: scratch lies outside the arena or is not aligned", i);
		for (uint32_t k = 0; k < step->in_count; ++k) {
			if (operand_check(dev, s, i, &step->in[k], false) != KNIT_OK)
				return KNIT_ERR_INTERNAL;
		}
		for (uint32_t k = 0; k < step->out_count; ++k) {
			if (operand_check(dev, s, i, &step->out[k], true) != KNIT_OK)
				return KNIT_ERR_INTERNAL;
		}
	}
	return KNIT_OK;
}

static knit_status inner_plan_create(knit_device *dev, knit_plan *p, knit_diag *diag) {
	const uint32_t n = p->schedule->buffer_count;
	knit_buffer **const inner = knit__alloc_array(knit__guard_alloc(dev), n, sizeof(knit_buffer *));

	if (!inner)
		return knit__fail_memory(diag, "the guard", (uint64_t)n * sizeof(knit_buffer *));
	for (uint32_t i = 0; i < n; ++i)
		inner[i] = p->bufs[i]->inner;
	const knit_status status = dev->inner->plan_create(dev->inner_dev, p->schedule, inner, &p->inner, diag);
	knit__free(knit__guard_alloc(dev), inner, (size_t)n * sizeof(knit_buffer *));
	return status;
}

static knit_status plan_make(knit_device *dev, const knit_schedule *s, knit_buffer *const *bufs, knit_plan **out,
                             knit_diag *diag) {
	knit_plan *const p = knit__alloc_zero(knit__guard_alloc(dev), sizeof *p);

	if (!p)
		return knit__fail_memory(diag, "the guard", sizeof *p);
	p->schedule = s;
	p->bufs = knit__alloc_array(knit__guard_alloc(dev), s->buffer_count, sizeof(knit_buffer *));
	knit_status status = p->bufs ? KNIT_OK : knit__fail_memory(diag, "the guard", s->buffer_count * sizeof(void *));
	if (status == KNIT_OK) {
		memcpy(p->bufs, bufs, s->buffer_count * sizeof(knit_buffer *));
		status = inner_plan_create(dev, p, diag);
	}
	if (status != KNIT_OK) {
		plan_free(dev, p);
		knit__free(knit__guard_alloc(dev), p, sizeof *p);
		return status;
	}
	pthread_mutex_lock(&dev->lock);
	knit__guard_handle_add(dev, &p->h, MAGIC_PLAN, sizeof *p);
	for (uint32_t i = 0; i < s->buffer_count; ++i)
		++p->bufs[i]->plans;
	pthread_mutex_unlock(&dev->lock);
	*out = p;
	return KNIT_OK;
}

knit_status knit__guard_plan_create(knit_device *dev, const knit_schedule *s, knit_buffer *const *bufs,
                                     knit_plan **out, knit_diag *diag) {
	knit_status status;

	*out = NULL;
	pthread_mutex_lock(&dev->lock);
	if (!s || !bufs || !s->graph)
		status = knit__guard_fault(dev, "plan_create: no schedule or no buffers");
	else
		status = buffers_check(dev, s, bufs);
	if (status == KNIT_OK)
		status = steps_check(dev, s);
	if (status != KNIT_OK)
		knit__fail(diag, status, 0, "guard: %s: %s", dev->inner->name, dev->fault);
	pthread_mutex_unlock(&dev->lock);
	return status == KNIT_OK ? plan_make(dev, s, bufs, out, diag) : status;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static void in_flight_set(knit_plan *p, bool on) {
	p->in_flight = on;
	for (uint32_t i = 0; i < p->schedule->buffer_count; ++i) {
		/* Weights are only read: any number of plans may use one at the same time. */
		if (p->bufs[i]->use == KNIT_BUFFER_CONST)
			continue;
		if (on)
			++p->bufs[i]->in_flight;
		else
			--p->bufs[i]->in_flight;
	}
}

/* With the lock held. */
static knit_status rebind_check(knit_device *dev, const knit_plan *p, uint32_t buffer, const knit_buffer *buf) {
	knit_status status = knit__guard_handle_check(dev, &p->h, MAGIC_PLAN, "plan_rebind");

	if (status == KNIT_OK)
		status = knit__guard_handle_check(dev, buf ? &buf->h : NULL, MAGIC_BUFFER, "plan_rebind");
	if (status != KNIT_OK)
		return status;
	if (p->in_flight)
		return knit__guard_fault(dev, "plan_rebind: the plan is running: wait for it first");
	if (buffer >= p->schedule->buffer_count)
		return knit__guard_fault(dev, "plan_rebind: buffer %u of %u", buffer, p->schedule->buffer_count);

	const knit_buffer_desc *const want = &p->schedule->buffers[buffer];
	if (want->use != KNIT_BUFFER_CONST || buf->use != KNIT_BUFFER_CONST)
		return knit__guard_fault(dev, "plan_rebind: buffer %u (%s) is no weight, or is to become none", buffer,
		                         want->name ? want->name : "arena");
	if (buf->bytes < want->bytes)
		return knit__guard_fault(dev, "plan_rebind: buffer %u (%s) is to have %llu bytes, the schedule needs %llu", buffer,
		                         want->name ? want->name : "", (unsigned long long)buf->bytes,
		                         (unsigned long long)want->bytes);
	return KNIT_OK;
}

knit_status knit__guard_plan_rebind(knit_plan *p, uint32_t buffer, knit_buffer *buf) {
	if (!p)
		return KNIT_ERR_INTERNAL;

	knit_device *const dev = p->h.dev;
	pthread_mutex_lock(&dev->lock);
	knit_status status = rebind_check(dev, p, buffer, buf);
	if (status == KNIT_OK && !dev->inner->plan_rebind)
		status = KNIT_ERR_UNSUPPORTED;
	if (status == KNIT_OK)
		status = dev->inner->plan_rebind(p->inner, buffer, buf->inner);
	if (status == KNIT_OK) {
		--p->bufs[buffer]->plans;
		++buf->plans;
		p->bufs[buffer] = buf;
	}
	pthread_mutex_unlock(&dev->lock);
	return status;
}

void knit__guard_plan_destroy(knit_device *dev, knit_plan *p) {
	knit_plan *inner = NULL;

	if (!p)
		return;
	pthread_mutex_lock(&dev->lock);
	if (knit__guard_handle_check(dev, &p->h, MAGIC_PLAN, "plan_destroy") == KNIT_OK) {
		if (p->in_flight) {
			knit__guard_fault(dev, "plan_destroy: the plan is running: wait for it first");
		} else {
			inner = p->inner;
			for (uint32_t i = 0; i < p->schedule->buffer_count; ++i)
				--p->bufs[i]->plans;
			plan_free(dev, p);
			knit__guard_handle_kill(dev, &p->h);
		}
	}
	pthread_mutex_unlock(&dev->lock);
	if (inner)
		dev->inner->plan_destroy(dev->inner_dev, inner);
}

/* With the lock held. */
static knit_status submit_check(knit_device *dev, const knit_plan *p, const int64_t *symbols) {
	const knit_status status = knit__guard_handle_check(dev, &p->h, MAGIC_PLAN, "plan_submit");

	if (status != KNIT_OK)
		return status;
	if (p->in_flight)
		return knit__guard_fault(dev, "plan_submit: submitted twice without a wait");
	if (!symbols)
		return knit__guard_fault(dev, "plan_submit: symbols is NULL");
	for (uint32_t i = 0; i < p->schedule->buffer_count; ++i) {
		if (p->bufs[i]->in_flight)
			return knit__guard_fault(dev, "plan_submit: buffer %u is used by another plan that is running", i);
	}
	for (uint32_t i = 0; i < p->schedule->graph->exprs.symbol_count; ++i) {
		if (symbols[i] < p->schedule->bounds.lo[i] || symbols[i] > p->schedule->bounds.hi[i])
			return knit__guard_fault(dev, "plan_submit: symbol %u is %lld, the schedule was made for %lld to %lld", i,
			             (long long)symbols[i], (long long)p->schedule->bounds.lo[i],
			             (long long)p->schedule->bounds.hi[i]);
	}
	return KNIT_OK;
}

knit_status knit__guard_plan_submit(knit_plan *p, const int64_t *symbols) {
	if (!p)
		return KNIT_ERR_INTERNAL;

	knit_device *const dev = p->h.dev;
	pthread_mutex_lock(&dev->lock);
	knit_status status = submit_check(dev, p, symbols);
	if (status == KNIT_OK)
		in_flight_set(p, true);
	pthread_mutex_unlock(&dev->lock);
	if (status != KNIT_OK)
		return status;

	status = dev->inner->plan_submit(p->inner, symbols);
	if (status != KNIT_OK) {
		pthread_mutex_lock(&dev->lock);
		in_flight_set(p, false); /* nothing was started */
		pthread_mutex_unlock(&dev->lock);
	}
	return status;
}

knit_status knit__guard_plan_wait(knit_plan *p, uint64_t timeout_ns) {
	if (!p)
		return KNIT_ERR_INTERNAL;

	knit_device *const dev = p->h.dev;
	pthread_mutex_lock(&dev->lock);
	knit_status status = knit__guard_handle_check(dev, &p->h, MAGIC_PLAN, "plan_wait");
	if (status == KNIT_OK && !p->in_flight)
		status = knit__guard_fault(dev, "plan_wait: nothing was submitted");
	pthread_mutex_unlock(&dev->lock);
	if (status != KNIT_OK)
		return status;

	status = dev->inner->plan_wait(p->inner, timeout_ns);
	pthread_mutex_lock(&dev->lock);
	in_flight_set(p, false);
	p->ran = status == KNIT_OK;
	pthread_mutex_unlock(&dev->lock);
	return status;
}

size_t knit__guard_plan_times(const knit_plan *p, knit_step_time *out, size_t cap) {
	if (!p)
		return 0;

	knit_device *const dev = p->h.dev;
	pthread_mutex_lock(&dev->lock);
	knit_status status = knit__guard_handle_check(dev, &p->h, MAGIC_PLAN, "plan_times");
	if (status == KNIT_OK && (p->in_flight || (cap && !out)))
		status = knit__guard_fault(dev, "plan_times: the plan is running, or there is nowhere to write to");
	const bool ran = p->ran;
	pthread_mutex_unlock(&dev->lock);
	return status == KNIT_OK && ran ? dev->inner->plan_times(p->inner, out, cap) : 0;
}
