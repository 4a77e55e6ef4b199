/* Owns everything mutable of a running program: symbol values, inputs, outputs, states, the arena. Knows no op. After
 * knit_session_create nothing is allocated. */
#include "session_check.h"
#include "session_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- asking ------------------------------------------------------------------------------------------------------ */

void knit_session_diag(const knit_session *s, knit_diag *out) {
	if (s && out)
		*out = s->diag;
}

size_t knit__session_times(const knit_session *s, knit_step_time *out, size_t cap) {
	const knit_opened *const o = s->program->device;

	return s->has_run ? o->backend->plan_times(s->plans[s->run_bucket], out, cap) : 0;
}

/* Bytes of a port's tensor with these symbols; dims are within their planned bounds, so nothing overflows. */
static uint64_t port_bytes(const knit_session *s, const session_port *p, const int64_t *symbols) {
	const knit_graph *const g = s->program->graph;
	const knit_value *const v = &g->values[p->value];
	uint64_t elements = 1, bytes = 0;

	for (uint32_t i = 0; i < v->rank; ++i)
		elements *= (uint64_t)knit__dim_eval(&g->exprs, symbols, v->dims[i]);
	knit__dtype_bytes(v->dtype, elements, &bytes);
	return bytes;
}

static session_port *port_find(session_port *ports, uint32_t count, const char *name) {
	for (uint32_t i = 0; i < count; ++i) {
		if (strcmp(ports[i].name, name) == 0)
			return &ports[i];
	}
	return NULL;
}

static knit_status fail_port(knit_session *s, const char *what, const char *name, const session_port *ports,
                             uint32_t count) {
	char known[140] = "none";
	size_t used = 0;

	for (uint32_t i = 0; i < count && used < sizeof known; ++i)
		used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", ports[i].name);
	return knit__fail(&s->diag, KNIT_ERR_NOT_FOUND, 0, "no %s \"%.40s\"; the graph has: %s", what, name, known);
}

knit_status knit__session_begin(knit_session *s) {
	s->diag = (knit_diag){0};
	if (s->dead)
		return knit__fail(&s->diag, KNIT_ERR_DEVICE, 0, "the device was lost: destroy this session and make a new one");
	return KNIT_OK;
}

knit_status knit__session_device(knit_session *s, knit_status status, const char *what) {
	if (status == KNIT_ERR_DEVICE)
		s->dead = true;
	if (status == KNIT_OK)
		return status;
	return knit__fail(&s->diag, status, 0, "%s: %s failed: %s", s->program->device->id, what, knit_status_name(status));
}

/* ---- symbols and inputs ------------------------------------------------------------------------------------------ */

knit_status knit_session_set(knit_session *s, const char *symbol, int64_t value) {
	char known[140];

	if (!s)
		return KNIT_ERR_ARGUMENT;
	const knit_status status = knit__session_begin(s);
	if (status != KNIT_OK)
		return status;
	if (!symbol)
		return knit__fail(&s->diag, KNIT_ERR_ARGUMENT, 0, "knit_session_set: the symbol's name is NULL");

	const knit_graph *const g = s->program->graph;
	const uint32_t i = knit__graph_symbol_find(g, symbol);
	if (i == KNIT_NO_SYMBOL) {
		knit__graph_symbols_text(g, known, sizeof known);
		return knit__fail(&s->diag, KNIT_ERR_NOT_FOUND, 0, "no symbol \"%.40s\"; the graph has: %s", symbol, known);
	}
	const knit_symbol *const range = &g->exprs.symbols[i];
	if (value < range->lo || value > range->hi)
		return knit__fail(&s->diag, KNIT_ERR_LIMIT, 0, "%.40s = %" PRId64 ": this program was made for %" PRId64
		                                               " to %" PRId64,
		                  symbol, value, range->lo, range->hi);
	s->symbols[i] = value;
	return KNIT_OK;
}

static knit_status write_input(knit_session *s, const char *input, const void *data, size_t bytes) {
	knit_status status = knit__session_begin(s);
	if (status != KNIT_OK)
		return status;
	if (!input || (!data && bytes))
		return knit__fail(&s->diag, KNIT_ERR_ARGUMENT, 0, "knit_session_write: the %s is NULL", input ? "data" : "name");

	session_port *const p = port_find(s->inputs, s->program->graph->input_count, input);
	if (!p)
		return fail_port(s, "input", input, s->inputs, s->program->graph->input_count);
	if (bytes > p->max_bytes)
		return knit__fail(&s->diag, KNIT_ERR_SHAPE, 0, "input \"%.60s\": %zu bytes written, it has room for %" PRIu64,
		                  p->name, bytes, p->max_bytes);

	if (p->buffer != UINT32_MAX && bytes) {
		const knit_opened *const o = s->program->device;
		p->written = false; /* half a write is none */
		status = knit__session_device(s, o->backend->buffer_write(o->dev, s->buffers[p->buffer], 0, data, bytes), "the upload");
		if (status != KNIT_OK)
			return status;
	}
	if (p->copy && bytes)
		memcpy(p->copy, data, bytes);
	p->written_bytes = bytes;
	p->written = true;
	return KNIT_OK;
}

knit_status knit_session_write(knit_session *s, const char *input, const void *data, size_t bytes) {
	if (!s)
		return KNIT_ERR_ARGUMENT;

	const session_work before = knit__session_work();
	const knit_status status = write_input(s, input, data, bytes);
	knit__session_count(s, &before);
	return status;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static knit_status fail_bucket(knit_session *s) {
	const knit_program *const p = s->program;
	const uint32_t symbol = p->bucket_symbol;
	char ranges[140] = "";
	size_t used = 0;

	for (uint32_t i = 0; i < p->bucket_count && used < sizeof ranges; ++i)
		used += (size_t)snprintf(ranges + used, sizeof ranges - used, "%s%" PRId64 " to %" PRId64, i ? ", " : "",
		                         p->buckets[i].bounds.lo[symbol], p->buckets[i].bounds.hi[symbol]);
	return knit__fail(&s->diag, KNIT_ERR_LIMIT, 0, "%.40s = %" PRId64 ": the program was compiled for %s",
	                  knit__program_symbol(p, symbol), s->symbols[symbol], ranges);
}

static knit_status bucket_find(knit_session *s, uint32_t *out) {
	const knit_program *const p = s->program;

	*out = 0;
	if (p->bucket_symbol == KNIT_NO_SYMBOL)
		return KNIT_OK;
	const int64_t value = s->symbols[p->bucket_symbol];
	for (; *out < p->bucket_count; ++*out) {
		const knit_bounds *const b = &p->buckets[*out].bounds;
		if (value >= b->lo[p->bucket_symbol] && value <= b->hi[p->bucket_symbol])
			return KNIT_OK;
	}
	return fail_bucket(s);
}

static knit_status inputs_check(knit_session *s) {
	for (uint32_t i = 0; i < s->program->graph->input_count; ++i) {
		const session_port *const p = &s->inputs[i];
		const uint64_t wanted = port_bytes(s, p, s->symbols);
		if (!p->written)
			return knit__fail(&s->diag, KNIT_ERR_STATE, 0, "input \"%.60s\" was never written: it needs %" PRIu64 " bytes",
			                  p->name, wanted);
		if (p->written_bytes != wanted)
			return knit__fail(&s->diag, KNIT_ERR_SHAPE, 0, "input \"%.60s\" was written with %" PRIu64 " bytes and needs %"
			                                               PRIu64 " at the present symbols: write it again",
			                  p->name, p->written_bytes, wanted);
	}
	return KNIT_OK;
}

static knit_status indices_check(knit_session *s, const knit_schedule *schedule) {
	const knit_exprs *const e = &s->program->graph->exprs;
	knit_status status = KNIT_OK;

	for (uint32_t i = 0; status == KNIT_OK && i < schedule->index_check_count; ++i) {
		const knit_index_check *const c = &schedule->index_checks[i];
		const session_port *const p = &s->inputs[s->input_of[c->buffer]];
		status = knit__check_indices(p->copy, (size_t)(p->written_bytes / sizeof(int32_t)),
		                             knit__dim_eval(e, s->symbols, c->bound), p->name, c->op, c->origin, &s->diag);
	}
	for (uint32_t i = 0; status == KNIT_OK && i < schedule->pair_check_count; ++i) {
		const knit_pair_check *const c = &schedule->pair_checks[i];
		const session_port *const seq = &s->inputs[s->input_of[c->seq_buffer]];
		const session_port *const pos = &s->inputs[s->input_of[c->pos_buffer]];
		const uint64_t bytes = seq->written_bytes < pos->written_bytes ? seq->written_bytes : pos->written_bytes;
		status = knit__check_pairs(seq->copy, pos->copy, (size_t)(bytes / sizeof(int32_t)), s->keys, c->state, &s->diag);
	}
	for (uint32_t i = 0; status == KNIT_OK && i < schedule->ring_check_count; ++i) {
		const knit_ring_check *const c = &schedule->ring_checks[i];
		const session_port *const seq = &s->inputs[s->input_of[c->seq_buffer]];
		const session_port *const pos = &s->inputs[s->input_of[c->pos_buffer]];
		const uint64_t bytes = seq->written_bytes < pos->written_bytes ? seq->written_bytes : pos->written_bytes;
		status = knit__check_ring(seq->copy, pos->copy, (size_t)(bytes / sizeof(int32_t)), s->keys, c->sinks, c->span,
		                          c->op, c->origin, &s->diag);
	}
	return status;
}

static knit_status run(knit_session *s) {
	uint32_t bucket;

	knit_status status = knit__session_begin(s);
	if (status != KNIT_OK)
		return status;
	if (s->states_unknown)
		return knit__fail(&s->diag, KNIT_ERR_STATE, 0, "an earlier run failed in the middle and left the states unknown: "
		                                               "call knit_session_reset_states");
	status = bucket_find(s, &bucket);
	if (status == KNIT_OK)
		status = inputs_check(s);
	if (status == KNIT_OK)
		status = indices_check(s, s->program->buckets[bucket].schedule);
	if (status != KNIT_OK)
		return status;

	/* From here on the states may change. */
	const knit_backend *const b = s->program->device->backend;
	s->has_run = false;
	s->states_unknown = true;
	status = knit__session_device(s, b->plan_submit(s->plans[bucket], s->symbols), "the run");
	if (status == KNIT_OK)
		status = knit__session_device(s, b->plan_wait(s->plans[bucket], UINT64_MAX), "the run");
	if (status != KNIT_OK)
		return status;
	memcpy(s->run_symbols, s->symbols, sizeof s->symbols);
	s->run_bucket = bucket;
	s->states_unknown = false;
	s->has_run = true;
	++s->counters.runs;
	return KNIT_OK;
}

knit_status knit_session_run(knit_session *s) {
	if (!s)
		return KNIT_ERR_ARGUMENT;

	const session_work before = knit__session_work();
	const knit_status status = run(s);
	knit__session_count(s, &before);
	return status;
}

static knit_status read_output(knit_session *s, const char *output, void *data, size_t bytes) {
	const knit_status status = knit__session_begin(s);
	if (status != KNIT_OK)
		return status;
	if (!output || (!data && bytes))
		return knit__fail(&s->diag, KNIT_ERR_ARGUMENT, 0, "knit_session_read: the %s is NULL", output ? "data" : "name");

	const session_port *const p = port_find(s->outputs, s->program->graph->output_count, output);
	if (!p)
		return fail_port(s, "output", output, s->outputs, s->program->graph->output_count);
	if (!s->has_run)
		return knit__fail(&s->diag, KNIT_ERR_STATE, 0, "output \"%.60s\": no run has succeeded yet, or the last one failed: "
		                                               "call knit_session_run",
		                  p->name);
	const uint64_t wanted = port_bytes(s, p, s->run_symbols);
	if (bytes != wanted)
		return knit__fail(&s->diag, KNIT_ERR_SHAPE, 0, "output \"%.60s\" has %" PRIu64 " bytes after the last run, %zu were "
		                                               "asked for",
		                  p->name, wanted, bytes);
	if (bytes == 0)
		return KNIT_OK;
	const knit_opened *const o = s->program->device;
	return knit__session_device(s, o->backend->buffer_read(o->dev, s->buffers[p->buffer], 0, data, bytes), "the read");
}

knit_status knit_session_read(knit_session *s, const char *output, void *data, size_t bytes) {
	if (!s)
		return KNIT_ERR_ARGUMENT;

	const session_work before = knit__session_work();
	const knit_status status = read_output(s, output, data, bytes);
	knit__session_count(s, &before);
	return status;
}

static knit_status reset_states(knit_session *s) {
	knit_status status = knit__session_begin(s);
	if (status != KNIT_OK)
		return status;

	const knit_opened *const o = s->program->device;
	const knit_schedule *const schedule = knit__session_schedule(s);
	s->states_unknown = true;
	for (uint32_t i = 0; i < schedule->buffer_count; ++i) {
		if (schedule->buffers[i].use != KNIT_BUFFER_STATE)
			continue;
		status = knit__session_device(s, o->backend->buffer_clear(o->dev, s->buffers[i]), "clearing a state");
		if (status != KNIT_OK)
			return status;
	}
	s->states_unknown = false;
	return KNIT_OK;
}

knit_status knit_session_reset_states(knit_session *s) {
	if (!s)
		return KNIT_ERR_ARGUMENT;

	const session_work before = knit__session_work();
	const knit_status status = reset_states(s);
	knit__session_count(s, &before);
	return status;
}
