/* Owns the running of one schedule on the CPU: operands resolved to pointers, dims evaluated when a symbol changes,
 * steps in order, each split over the pool where it is worth waking it. Knows no kernel by name; asks the op table what
 * a step costs. Nothing is allocated after knit__cpu_plan_create. */
#include "cpu.h"

#include <string.h>
#include <time.h>

/* One core's rough speed, for the only question asked here: is a step long enough to be split? */
#define FLOPS_PER_NS 8.0
#define BYTES_PER_NS 10.0

#define AHEAD_BYTES (256 << 10) /* that a thread asks for before a step begins: a part of its second cache */

typedef struct plan_step {
	const knit_cpu_kernel *kernel;
	const knit_step *source; /* of the schedule, which outlives the plan */
	const knit_op_def *def;
	char *in_base[KNIT_MAX_IN], *out_base[KNIT_MAX_OUT]; /* element 0 of the storage; NULL: absent */
	knit_cpu_step step;
	const knit_pool_ahead *ahead; /* of each thread, what the next step with weights reads first; NULL: not known */
	bool split;
} plan_step;

/* An operand that reads a weight. */
typedef struct weight_use { uint32_t step, operand; } weight_use;

struct knit_plan {
	knit_device *dev;
	const knit_schedule *schedule;
	plan_step *steps;
	knit_pool_ahead *ahead; /* [step][thread]: what that step reads first */
	uint64_t *ns; /* per step; NULL where timing is off */
	/* The uses of weight buffer i are uses[first_use[i] .. first_use[i + 1]), so that another can take its place. */
	weight_use *uses;
	uint32_t *first_use;
	uint32_t step_count, symbol_count, use_count;
	int64_t symbols[KNIT_MAX_SYMBOLS];
	bool evaluated, submitted;
};

/* ---- making ------------------------------------------------------------------------------------------------------ */

static void plan_free(knit_device *dev, knit_plan *plan) {
	knit__free(&dev->a, plan->steps, (size_t)plan->step_count * sizeof *plan->steps);
	knit__free(&dev->a, plan->ahead, (size_t)plan->step_count * dev->threads * sizeof *plan->ahead);
	knit__free(&dev->a, plan->ns, (size_t)plan->step_count * sizeof *plan->ns);
	knit__free(&dev->a, plan->uses, (size_t)plan->use_count * sizeof *plan->uses);
	knit__free(&dev->a, plan->first_use, ((size_t)plan->schedule->buffer_count + 1) * sizeof *plan->first_use);
	knit__free(&dev->a, plan, sizeof *plan);
}

/* What does not depend on symbols. */
static bool tensor_resolve(const knit_operand *o, knit_buffer *const *bufs, uint32_t buffer_count, char **base,
                           knit_cpu_tensor *out) {
	if (o->buffer == UINT32_MAX)
		return true;
	if (o->buffer >= buffer_count || !bufs[o->buffer] || o->base > bufs[o->buffer]->bytes)
		return false;
	*base = bufs[o->buffer]->data + o->base;
	out->dtype = o->dtype;
	out->rank = o->rank;
	out->layout = o->layout;
	return true;
}

static bool step_resolve(const knit_device *dev, const knit_schedule *s, knit_buffer *const *bufs, const knit_step *from,
                         plan_step *to) {
	to->source = from;
	to->kernel = knit__cpu_kernels[from->kernel - 1];
	to->def = knit__op(from->op);
	to->step.attr = from->attr;
	to->step.threads = dev->threads;
	if (from->scratch_bytes) {
		const knit_buffer *const arena = from->scratch_buffer < s->buffer_count ? bufs[from->scratch_buffer] : NULL;
		if (!arena || from->scratch_base > arena->bytes || from->scratch_bytes > arena->bytes - from->scratch_base)
			return false;
		to->step.scratch = arena->data + from->scratch_base;
	}
	for (uint32_t i = 0; i < from->in_count; ++i) {
		if (!tensor_resolve(&from->in[i], bufs, s->buffer_count, &to->in_base[i], &to->step.in[i]))
			return false;
	}
	for (uint32_t i = 0; i < from->out_count; ++i) {
		if (!tensor_resolve(&from->out[i], bufs, s->buffer_count, &to->out_base[i], &to->step.out[i]))
			return false;
	}
	return true;
}

/* For every operand that reads a weight: counts it where uses is NULL, else writes it down at the buffer's place. */
static void each_weight_use(const knit_schedule *s, uint32_t *at, weight_use *uses) {
	for (uint32_t i = 0; i < s->step_count; ++i) {
		for (uint32_t k = 0; k < s->steps[i].in_count; ++k) {
			const uint32_t buffer = s->steps[i].in[k].buffer;
			if (buffer >= s->buffer_count || s->buffers[buffer].use != KNIT_BUFFER_CONST)
				continue;
			if (uses)
				uses[at[buffer]] = (weight_use){i, k};
			++at[buffer];
		}
	}
}

/* Sorted by buffer, by counting. */
static bool uses_find(knit_plan *plan) {
	const knit_schedule *const s = plan->schedule;
	uint32_t *const at = knit__alloc_array(&plan->dev->a, (size_t)s->buffer_count + 1, sizeof *at);

	plan->first_use = at;
	if (!at)
		return false;
	each_weight_use(s, at, NULL);
	for (uint32_t i = 0; i <= s->buffer_count; ++i) {
		const uint32_t count = at[i];
		at[i] = plan->use_count;
		plan->use_count += count;
	}
	plan->uses = knit__alloc_array(&plan->dev->a, plan->use_count, sizeof *plan->uses);
	if (!plan->uses)
		return false;
	each_weight_use(s, at, plan->uses);
	/* Each place has moved to where the next buffer's begins. */
	for (uint32_t i = s->buffer_count; i > 0; --i)
		at[i] = at[i - 1];
	at[0] = 0;
	return true;
}

knit_status knit__cpu_plan_create(knit_device *dev, const knit_schedule *s, knit_buffer *const *bufs, knit_plan **out,
                                  knit_diag *d) {
	*out = NULL;
	knit_plan *const plan = knit__alloc_zero(&dev->a, sizeof *plan);
	if (!plan)
		return knit__fail_memory(d, "a CPU plan", sizeof *plan);
	plan->dev = dev;
	plan->schedule = s;
	plan->step_count = s->step_count;
	plan->symbol_count = s->graph->exprs.symbol_count;
	plan->steps = knit__alloc_array(&dev->a, s->step_count, sizeof *plan->steps);
	plan->ahead = knit__alloc_array(&dev->a, (size_t)s->step_count * dev->threads, sizeof *plan->ahead);
	if (dev->timing)
		plan->ns = knit__alloc_array(&dev->a, s->step_count, sizeof *plan->ns);
	if (!plan->steps || !plan->ahead || (dev->timing && !plan->ns) || !uses_find(plan)) {
		plan_free(dev, plan);
		return knit__fail_memory(d, "a CPU plan", (uint64_t)s->step_count * sizeof *plan->steps);
	}
	for (uint32_t i = 0; i < s->step_count; ++i) {
		const knit_step *const from = &s->steps[i];
		if (from->kernel >= 1 && from->kernel <= knit__cpu_kernel_count &&
		    step_resolve(dev, s, bufs, from, &plan->steps[i]))
			continue;
		plan_free(dev, plan);
		return knit__fail(d, KNIT_ERR_INTERNAL, from->node, "cpu: step %u (%s) names a kernel or a buffer that is not there",
		                  i, from->origin ? from->origin : "");
	}
	*out = plan;
	return KNIT_OK;
}

void knit__cpu_plan_destroy(knit_device *dev, knit_plan *plan) {
	if (plan)
		plan_free(dev, plan);
}

knit_status knit__cpu_plan_rebind(knit_plan *plan, uint32_t buffer, knit_buffer *buf) {
	const knit_schedule *const s = plan->schedule;

	if (buffer >= s->buffer_count || s->buffers[buffer].use != KNIT_BUFFER_CONST || buf->bytes < s->buffers[buffer].bytes)
		return KNIT_ERR_ARGUMENT;
	for (uint32_t i = plan->first_use[buffer]; i < plan->first_use[buffer + 1]; ++i) {
		plan_step *const p = &plan->steps[plan->uses[i].step];
		const uint32_t k = plan->uses[i].operand;
		char *const base = buf->data + p->source->in[k].base;
		if (plan->evaluated)
			p->step.in[k].data = base + (p->step.in[k].data - p->in_base[k]);
		p->in_base[k] = base;
	}
	return KNIT_OK;
}

/* ---- evaluating -------------------------------------------------------------------------------------------------- */

static void tensor_evaluate(const knit_exprs *e, const int64_t *symbols, const knit_operand *o, char *base,
                            knit_cpu_tensor *t) {
	if (!base)
		return;
	const knit_dtype_info *const type = knit__dtype_info(o->dtype);
	const int64_t offset = knit__dim_eval(e, symbols, o->offset);

	t->data = base + offset / type->block_elements * type->block_bytes;
	for (uint32_t i = 0; i < o->rank; ++i) {
		t->dims[i] = knit__dim_eval(e, symbols, o->dims[i]);
		t->strides[i] = knit__dim_eval(e, symbols, o->strides[i]);
	}
}

static knit_shape shape_of(const knit_cpu_tensor *t) {
	knit_shape s = {.dtype = t->dtype, .rank = t->rank};

	memcpy(s.dims, t->dims, sizeof s.dims);
	return s;
}

static bool worth_splitting(const knit_plan *plan, const plan_step *p, int64_t context) {
	const knit_cpu_step *const s = &p->step;
	knit_shape in[KNIT_MAX_IN], out[KNIT_MAX_OUT];
	knit_cost cost = {0};

	if (s->threads == 1)
		return false;
	if (!p->def || !p->def->cost)
		return true;
	for (uint32_t i = 0; i < p->source->in_count; ++i)
		in[i] = shape_of(&s->in[i]);
	for (uint32_t i = 0; i < p->source->out_count; ++i)
		out[i] = shape_of(&s->out[i]);
	p->def->cost(s->attr, in, p->source->in_count, out, context, &cost);
	return cost.flops / FLOPS_PER_NS + (double)(cost.read_bytes + cost.write_bytes) / BYTES_PER_NS >=
	       plan->dev->split_min_ns;
}

/* What each thread reads first of a step's weights; false where nothing is known of them. */
static bool step_reads(const plan_step *p, const knit_pool *pool, knit_pool_ahead *out) {
	uint32_t phase = 0, all = 0;

	if (!p->kernel->reads || !p->split)
		return false;
	while (phase + 1 < KNIT_CPU_PHASES && p->kernel->phases[phase + 1].run)
		++phase;
	const int64_t units = p->kernel->phases[phase].units(&p->step);
	for (uint32_t t = 0; t < p->step.threads; ++t) {
		knit_cpu_read reads[KNIT_CPU_READS];
		int64_t begin, end, left = AHEAD_BYTES;

		out[t] = (knit_pool_ahead){0};
		knit__pool_first_take(pool, units, t, &begin, &end);
		const uint32_t count = begin < end ? p->kernel->reads(&p->step, begin, end, reads) : 0;
		for (uint32_t i = 0; i < count; ++i) {
			const int64_t bytes = reads[i].bytes < left ? reads[i].bytes : left;

			out[t].stretch[i] = (struct knit_pool_stretch){reads[i].at, bytes};
			left -= bytes;
		}
		all += count;
	}
	return all > 0;
}

/* To every step what the next one with weights reads, the first step's being next to the last one's: a token follows. A
 * weight that another takes the place of (rebind) is asked for in vain until the next evaluation. */
static void look_ahead(knit_plan *plan) {
	const knit_pool_ahead *next = NULL, *first = NULL;

	for (uint32_t i = plan->step_count; i-- > 0;) {
		knit_pool_ahead *const own = &plan->ahead[(size_t)i * plan->dev->threads];

		plan->steps[i].ahead = next;
		if (step_reads(&plan->steps[i], plan->dev->pool, own))
			next = first = own;
	}
	for (uint32_t i = plan->step_count; i-- > 0 && !plan->steps[i].ahead;)
		plan->steps[i].ahead = first;
}

/* How many positions the longest row of an attention sees in this run. */
static int64_t attention_context(const knit_cpu_step *s) {
	const knit_cpu_tensor *const pos = &s->in[4];
	const int32_t *const p = (const int32_t *)pos->data;
	int64_t most = 0;

	for (int64_t i = 0; p && i < pos->dims[0]; ++i) {
		const int32_t v = p[i * pos->strides[0]];
		most = v > most ? v : most;
	}
	return most + 1;
}

static void evaluate(knit_plan *plan, const int64_t *symbols) {
	const knit_exprs *const e = &plan->schedule->graph->exprs;

	for (uint32_t i = 0; i < plan->step_count; ++i) {
		plan_step *const p = &plan->steps[i];
		for (uint32_t k = 0; k < p->source->in_count; ++k)
			tensor_evaluate(e, symbols, &p->source->in[k], p->in_base[k], &p->step.in[k]);
		for (uint32_t k = 0; k < p->source->out_count; ++k)
			tensor_evaluate(e, symbols, &p->source->out[k], p->out_base[k], &p->step.out[k]);
		p->split = worth_splitting(plan, p, 1);
	}
	look_ahead(plan);
	memcpy(plan->symbols, symbols, plan->symbol_count * sizeof *symbols);
	plan->evaluated = true;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static uint64_t now_ns(void) {
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static void run_units(void *arg, uint32_t phase, int64_t begin, int64_t end, uint32_t thread) {
	const plan_step *const p = arg;

	p->kernel->phases[phase].run(&p->step, begin, end, thread);
}

static void make_own(void *arg, uint32_t phase, uint32_t thread) {
	const plan_step *const p = arg;

	if (p->kernel->phases[phase].own)
		p->kernel->phases[phase].own(&p->step, thread);
}

_Static_assert(KNIT_CPU_READS <= KNIT_POOL_STRETCHES, "all pieces that units read can be asked for");
_Static_assert(KNIT_CPU_PHASES <= KNIT_POOL_PHASES, "the pool runs every phase of a kernel as one job");

static void run_step(knit_plan *plan, plan_step *p) {
	knit_pool_job job = {.run = run_units, .own = make_own, .arg = p, .ahead = p->ahead};

	for (uint32_t i = 0; i < KNIT_CPU_PHASES && p->kernel->phases[i].run; ++i) {
		job.units[i] = p->kernel->phases[i].units(&p->step);
		job.phases = i + 1;
	}
	const bool split = p->source->op == KNIT_OP_ATTENTION ? worth_splitting(plan, p, attention_context(&p->step))
	                                                      : p->split;
	if (split)
		knit__pool_run(plan->dev->pool, &job);
	else
		knit__pool_run_alone(&job);
}

knit_status knit__cpu_plan_submit(knit_plan *plan, const int64_t *symbols) {
	/* The CPU works in the caller's thread, so the work is done when submit returns and wait has nothing left to do. */
	if (!plan->evaluated || memcmp(plan->symbols, symbols, plan->symbol_count * sizeof *symbols) != 0)
		evaluate(plan, symbols);
	plan->submitted = true;
	for (uint32_t i = 0; i < plan->step_count; ++i) {
		const uint64_t start = plan->ns ? now_ns() : 0;
		run_step(plan, &plan->steps[i]);
		if (plan->ns)
			plan->ns[i] = now_ns() - start;
	}
	return KNIT_OK;
}

knit_status knit__cpu_plan_wait(knit_plan *plan, uint64_t timeout_ns) {
	(void)timeout_ns;
	return plan->submitted ? KNIT_OK : KNIT_ERR_STATE;
}

size_t knit__cpu_plan_times(const knit_plan *plan, knit_step_time *out, size_t cap) {
	if (!plan->ns || !plan->submitted)
		return 0;
	for (uint32_t i = 0; i < plan->step_count && i < cap; ++i)
		out[i] = (knit_step_time){.step = i, .ns = plan->ns[i]};
	return plan->step_count;
}
