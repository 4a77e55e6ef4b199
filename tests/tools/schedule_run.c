/* Owns the slow execution of a schedule on bytes. */
#include "schedule_run.h"
#include "../../graph/op_def.h"

#include <stdlib.h>
#include <string.h>

typedef struct memory {
	const knit_schedule *s;
	const int64_t *symbols;
	uint8_t **of; /* per buffer; or per storage, where nothing is shared */
	uint32_t count;
	bool shared;
} memory;

static uint64_t random_bits(uint64_t *state) {
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static int64_t size_of(const memory *m, knit_dim d) { return knit__dim_eval(&m->s->graph->exprs, m->symbols, d); }

static uint8_t *bytes_of(const memory *m, const knit_operand *o) {
	if (m->shared)
		return m->of[o->buffer] + o->base;
	return m->of[m->s->graph->values[o->value].storage];
}

/* ---- operands to doubles and back ----------------------------------------------------------------------------------- */

static bool load(const memory *m, const knit_operand *o, knit_array *a) {
	const knit_dtype_info *info = knit__dtype_info(o->dtype);
	const uint8_t *from = bytes_of(m, o);
	int64_t index[KNIT_MAX_RANK] = {0};

	*a = (knit_array){.dtype = o->dtype, .rank = o->rank};
	for (uint32_t i = 0; i < o->rank; ++i)
		a->dims[i] = size_of(m, o->dims[i]);

	const int64_t count = knit__array_count(a);
	a->data = malloc((size_t)(count + 1) * sizeof *a->data);
	if (!a->data)
		return false;
	if (info->is_block) { /* weights: never strided within a row; here they are whole */
		knit__decode(o->dtype, from + size_of(m, o->offset) / info->block_elements * info->block_bytes, a->data,
		             (uint64_t)count);
		return true;
	}
	for (int64_t n = 0; n < count; ++n) {
		int64_t at = size_of(m, o->offset);

		for (uint32_t i = 0; i < o->rank; ++i)
			at += index[i] * size_of(m, o->strides[i]);
		knit__decode(o->dtype, from + at * info->block_bytes, &a->data[n], 1);
		for (uint32_t i = o->rank; i-- > 0 && ++index[i] == a->dims[i];)
			index[i] = 0;
	}
	return true;
}

static bool run_step(const memory *m, uint32_t at) {
	const knit_step *step = &m->s->steps[at];
	const knit_op_def *def = knit__op(step->op);
	knit_array in[KNIT_MAX_IN] = {{0}}, out[KNIT_MAX_OUT] = {{0}};
	bool ok = true;

	for (uint32_t i = 0; i < step->in_count && ok; ++i)
		if (step->in[i].buffer != UINT32_MAX)
			ok = load(m, &step->in[i], &in[i]);
	if (m->shared && ok)
		memset(m->of[step->scratch_buffer] + step->scratch_base, 0xa5, step->scratch_bytes);
	for (uint32_t i = 0; i < step->out_count && ok; ++i) {
		ok = load(m, &step->out[i], &out[i]);
		if (ok && i >= def->state_outputs) /* only a state keeps what was there */
			memset(out[i].data, 0, (size_t)knit__array_count(&out[i]) * sizeof(double));
	}
	if (ok)
		def->eval(step->attr, in, step->in_count, out);
	for (uint32_t i = 0; i < step->out_count && ok; ++i)
		knit__encode(step->out[i].dtype, out[i].data, bytes_of(m, &step->out[i]), (uint64_t)knit__array_count(&out[i]));

	for (uint32_t i = 0; i < KNIT_MAX_IN; ++i)
		free(in[i].data);
	for (uint32_t i = 0; i < KNIT_MAX_OUT; ++i)
		free(out[i].data);
	return ok;
}

/* ---- what is there before the first step ---------------------------------------------------------------------------- */

/* Token t of seq and pos: pairs (0, 0), (1, 0), (0, 1) ... as far as the bounds allow. */
static int32_t index_for(const memory *m, uint32_t buffer, int64_t i, uint64_t *random) {
	const knit_schedule *s = m->s;
	int64_t bound = 1, seqs = 1;
	bool checked = false;

	for (uint32_t k = 0; k < s->index_check_count; ++k) {
		if (s->index_checks[k].buffer != buffer)
			continue;
		const int64_t b = size_of(m, s->index_checks[k].bound);

		bound = !checked || b < bound ? b : bound;
		checked = true;
	}
	for (uint32_t k = 0; k < s->pair_check_count; ++k) {
		for (uint32_t n = 0; n < s->index_check_count; ++n)
			if (s->index_checks[n].buffer == s->pair_checks[k].seq_buffer)
				seqs = size_of(m, s->index_checks[n].bound);
		if (s->pair_checks[k].seq_buffer == buffer)
			return (int32_t)(i % seqs);
		if (s->pair_checks[k].pos_buffer == buffer)
			return (int32_t)(i / seqs % bound);
	}
	return bound > 0 ? (int32_t)(random_bits(random) % (uint64_t)bound) : 0;
}

static void fill(const memory *m, uint32_t buffer, uint8_t *bytes, uint64_t seed) {
	const knit_buffer_desc *b = &m->s->buffers[buffer];
	const knit_storage *storage = &m->s->graph->storages[b->storage];
	const knit_dtype_info *info = knit__dtype_info(storage->dtype);
	uint64_t random = seed ^ b->storage * UINT64_C(0x100000001b3);
	double block[64];

	if (storage->kind == KNIT_STORAGE_STATE || storage->kind == KNIT_STORAGE_OUTPUT)
		return; /* stays as cleared */
	if (storage->host) {
		memcpy(bytes, storage->host, b->bytes);
		return;
	}
	for (uint64_t at = 0; at + info->block_bytes <= b->bytes; at += info->block_bytes) {
		for (uint32_t i = 0; i < info->block_elements; ++i)
			block[i] = storage->dtype == KNIT_I32 ? index_for(m, buffer, (int64_t)(at / 4), &random)
			                                      : ((double)(random_bits(&random) >> 11) * 0x1p-53 - 0.5);
		knit__encode(storage->dtype, block, bytes + at, info->block_elements);
	}
}

static void close_memory(memory *m) {
	for (uint32_t i = 0; m->of && i < m->count; ++i)
		free(m->of[i]);
	free(m->of);
}

static bool open_memory(memory *m, uint64_t seed) {
	const knit_schedule *s = m->s;
	const knit_graph *g = s->graph;

	m->count = m->shared ? s->buffer_count : g->storage_count;
	m->of = calloc(m->count + 1, sizeof *m->of);
	if (!m->of)
		return false;
	for (uint32_t i = 0; i < m->count; ++i) {
		const bool temp = m->shared ? s->buffers[i].use == KNIT_BUFFER_ARENA : g->storages[i].kind == KNIT_STORAGE_TEMP;
		const uint64_t bytes = m->shared ? s->buffers[i].bytes : g->storages[i].max_bytes;

		m->of[i] = malloc(bytes + 1);
		if (!m->of[i])
			return false;
		memset(m->of[i], temp ? 0xff : 0, bytes); /* NaN where nothing may be read */
	}
	for (uint32_t i = 0; i < s->buffer_count; ++i)
		if (s->buffers[i].use != KNIT_BUFFER_ARENA)
			fill(m, i, m->of[m->shared ? i : s->buffers[i].storage], seed);
	return true;
}

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

bool schedule_run_create(const knit_schedule *s, const int64_t *symbols, uint64_t seed, const uint32_t *order, bool shared,
                         schedule_run *out) {
	memory m = {.s = s, .symbols = symbols, .shared = shared};
	bool ok = open_memory(&m, seed);

	*out = (schedule_run){0};
	for (uint32_t i = 0; i < s->step_count && ok; ++i)
		ok = run_step(&m, order ? order[i] : i);
	for (uint32_t i = 0; i < s->buffer_count; ++i)
		if (s->buffers[i].kind == KNIT_STORAGE_OUTPUT || s->buffers[i].kind == KNIT_STORAGE_STATE)
			out->count += s->buffers[i].bytes;
	out->bytes = malloc(out->count + 1);
	ok = ok && out->bytes;
	for (uint32_t i = 0, at = 0; i < s->buffer_count && ok; ++i) {
		if (s->buffers[i].kind != KNIT_STORAGE_OUTPUT && s->buffers[i].kind != KNIT_STORAGE_STATE)
			continue;
		memcpy(out->bytes + at, m.of[shared ? i : s->buffers[i].storage], s->buffers[i].bytes);
		at += (uint32_t)s->buffers[i].bytes;
	}
	close_memory(&m);
	if (!ok)
		schedule_run_clear(out);
	return ok;
}

void schedule_run_clear(schedule_run *r) {
	free(r->bytes);
	*r = (schedule_run){0};
}

bool schedule_run_equal(const schedule_run *a, const schedule_run *b) {
	return a->count == b->count && memcmp(a->bytes, b->bytes, a->count) == 0;
}

bool schedule_run_shuffle(const knit_schedule *s, uint64_t seed, uint32_t *order) {
	uint32_t *waits = calloc(s->step_count + 1, sizeof *waits), *ready = malloc((s->step_count + 1) * sizeof *ready);
	uint32_t ready_count = 0, done = 0;

	for (uint32_t i = 0; waits && i < s->hazard_count; ++i)
		++waits[s->hazards[i].after];
	for (uint32_t i = 0; waits && ready && i < s->step_count; ++i)
		if (waits[i] == 0)
			ready[ready_count++] = i;
	while (waits && ready && ready_count > 0) {
		const uint32_t pick = (uint32_t)(random_bits(&seed) % ready_count), step = ready[pick];

		ready[pick] = ready[--ready_count];
		order[done++] = step;
		for (uint32_t i = 0; i < s->hazard_count; ++i)
			if (s->hazards[i].before == step && --waits[s->hazards[i].after] == 0)
				ready[ready_count++] = s->hazards[i].after;
	}
	free(waits);
	free(ready);
	return done == s->step_count;
}
