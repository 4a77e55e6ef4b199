/* Owns the making and unmaking of a session: buffers, plans, host copies of the inputs that are checked. Runs nothing. */
#include "session_impl.h"

#include <inttypes.h>
#include <string.h>

static uint32_t buffer_of(const knit_session *s, uint32_t value) {
	const knit_schedule *const schedule = knit__session_schedule(s);
	const uint32_t storage = s->program->graph->values[value].storage;

	for (uint32_t i = 0; i < schedule->buffer_count; ++i) {
		if (schedule->buffers[i].use == KNIT_BUFFER_IO && schedule->buffers[i].storage == storage)
			return i;
	}
	return UINT32_MAX;
}

static knit_status port_make(knit_session *s, const knit_port *from, session_port *to) {
	const knit_graph *const g = s->program->graph;

	to->name = knit__strings_get(&g->strings, from->name);
	to->value = from->value;
	to->buffer = buffer_of(s, from->value);
	if (to->buffer != UINT32_MAX)
		to->max_bytes = knit__session_schedule(s)->buffers[to->buffer].bytes;
	else if (!knit__storage_max_bytes(g, NULL, g->values[from->value].storage, &to->max_bytes))
		return knit__fail(&s->diag, KNIT_ERR_LIMIT, 0, "input \"%s\" is larger than memory", to->name);
	return KNIT_OK;
}

static knit_status ports_make(knit_session *s) {
	const knit_graph *const g = s->program->graph;
	const uint32_t buffers = knit__session_schedule(s)->buffer_count;

	s->inputs = knit__alloc_array(&s->a, g->input_count, sizeof *s->inputs);
	s->outputs = knit__alloc_array(&s->a, g->output_count, sizeof *s->outputs);
	s->input_of = knit__alloc_array(&s->a, buffers, sizeof *s->input_of);
	if (!s->inputs || !s->outputs || !s->input_of)
		return knit__fail_memory(&s->diag, "the session", g->input_count * sizeof *s->inputs);
	memset(s->input_of, 0xff, buffers * sizeof *s->input_of);
	for (uint32_t i = 0; i < g->input_count; ++i) {
		const knit_status status = port_make(s, &g->inputs[i], &s->inputs[i]);
		if (status != KNIT_OK)
			return status;
		if (s->inputs[i].buffer != UINT32_MAX)
			s->input_of[s->inputs[i].buffer] = i;
	}
	for (uint32_t i = 0; i < g->output_count; ++i) {
		const knit_status status = port_make(s, &g->outputs[i], &s->outputs[i]);
		if (status != KNIT_OK)
			return status;
		if (s->outputs[i].buffer == UINT32_MAX)
			return knit__fail(&s->diag, KNIT_ERR_INTERNAL, 0, "output \"%s\" has no buffer", s->outputs[i].name);
	}
	return KNIT_OK;
}

static uint64_t bytes_wanted(const knit_program *p, uint32_t buffer) {
	/* An arena serves every bucket; the other buffers are the same in all. */
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < p->bucket_count; ++i)
		bytes = p->buckets[i].schedule->buffers[buffer].bytes > bytes ? p->buckets[i].schedule->buffers[buffer].bytes : bytes;
	return bytes;
}

/* A weight is the program's; slots of an adapter are this session's, though its steps only read them. */
static bool owned(const knit_buffer_desc *b) { return b->use != KNIT_BUFFER_CONST || b->slots; }

static knit_status fail_buffer(knit_session *s, const knit_buffer_desc *b, uint64_t bytes, knit_status status) {
	const knit_opened *const o = s->program->device;
	const knit_schedule *const schedule = knit__session_schedule(s);
	char room[64] = "";
	uint64_t all = 0;

	for (uint32_t i = 0; i < schedule->buffer_count; ++i)
		all += owned(&schedule->buffers[i]) ? bytes_wanted(s->program, i) : 0;
	if (status == KNIT_ERR_MEMORY)
		knit__device_room_text(o, room, sizeof room);
	return knit__fail(&s->diag, status, 0, "%s: \"%.60s\" needs %" PRIu64 " bytes, the session %" PRIu64 ": %s%s%s", o->id,
	                  b->use == KNIT_BUFFER_ARENA ? "arena" : b->name, bytes, all, knit_status_name(status), room,
	                  status == KNIT_ERR_MEMORY ? knit__device_split_hint(o) : "");
}

static knit_status buffers_make(knit_session *s) {
	const knit_opened *const o = s->program->device;
	const knit_schedule *const schedule = knit__session_schedule(s);

	s->buffers = knit__alloc_array(&s->a, schedule->buffer_count, sizeof(knit_buffer *));
	if (!s->buffers)
		return knit__fail_memory(&s->diag, "the session", schedule->buffer_count * sizeof(knit_buffer *));
	for (uint32_t i = 0; i < schedule->buffer_count; ++i) {
		const knit_buffer_desc *const b = &schedule->buffers[i];
		if (!owned(b)) {
			s->buffers[i] = s->program->weights[i]->buffer;
			continue;
		}
		const uint64_t bytes = bytes_wanted(s->program, i);
		const knit_status status = o->backend->buffer_create(o->dev, b->use, bytes, &s->buffers[i]);
		if (status != KNIT_OK)
			return fail_buffer(s, b, bytes, status);
	}
	return KNIT_OK;
}

/* A host copy of each input whose values are looked at before a run. */
static knit_status copy_make(knit_session *s, uint32_t buffer) {
	const uint32_t input = buffer < knit__session_schedule(s)->buffer_count ? s->input_of[buffer] : UINT32_MAX;

	if (input == UINT32_MAX)
		return knit__fail(&s->diag, KNIT_ERR_INTERNAL, 0, "an index check names buffer %u, which is no input", buffer);
	session_port *const p = &s->inputs[input];
	if (!p->copy)
		p->copy = knit__alloc_zero(&s->a, (size_t)p->max_bytes);
	return p->copy ? KNIT_OK : knit__fail_memory(&s->diag, "the copy of an index input", p->max_bytes);
}

/* Copies of seq and pos, and a key for each token of the largest run. */
static knit_status keys_plan(knit_session *s, uint32_t seq_buffer, uint32_t pos_buffer) {
	knit_status status = copy_make(s, seq_buffer);

	if (status == KNIT_OK)
		status = copy_make(s, pos_buffer);
	if (status != KNIT_OK)
		return status;
	const size_t count = (size_t)(s->inputs[s->input_of[seq_buffer]].max_bytes / sizeof(int32_t));
	s->key_count = count > s->key_count ? count : s->key_count;
	return KNIT_OK;
}

static knit_status checks_make(knit_session *s) {
	knit_status status = KNIT_OK;

	for (uint32_t b = 0; b < s->program->bucket_count; ++b) {
		const knit_schedule *const schedule = s->program->buckets[b].schedule;
		for (uint32_t i = 0; status == KNIT_OK && i < schedule->index_check_count; ++i)
			status = copy_make(s, schedule->index_checks[i].buffer);
		for (uint32_t i = 0; status == KNIT_OK && i < schedule->pair_check_count; ++i)
			status = keys_plan(s, schedule->pair_checks[i].seq_buffer, schedule->pair_checks[i].pos_buffer);
		for (uint32_t i = 0; status == KNIT_OK && i < schedule->ring_check_count; ++i)
			status = keys_plan(s, schedule->ring_checks[i].seq_buffer, schedule->ring_checks[i].pos_buffer);
	}
	if (status != KNIT_OK)
		return status;
	s->keys = knit__alloc_array(&s->a, s->key_count, sizeof *s->keys);
	return s->keys ? KNIT_OK : knit__fail_memory(&s->diag, "the pair check", s->key_count * sizeof *s->keys);
}

static knit_status plans_make(knit_session *s) {
	const knit_opened *const o = s->program->device;

	s->plans = knit__alloc_array(&s->a, s->program->bucket_count, sizeof(knit_plan *));
	if (!s->plans)
		return knit__fail_memory(&s->diag, "the session", s->program->bucket_count * sizeof(knit_plan *));
	for (uint32_t i = 0; i < s->program->bucket_count; ++i) {
		const knit_status status =
			o->backend->plan_create(o->dev, s->program->buckets[i].schedule, s->buffers, &s->plans[i], &s->diag);
		if (status != KNIT_OK)
			return status;
	}
	return KNIT_OK;
}

void knit_session_destroy(knit_session *s) {
	if (!s)
		return;

	knit_program *const p = s->program;
	const knit_opened *const o = p->device;
	const knit_schedule *const schedule = knit__session_schedule(s);
	const knit_allocator a = s->a;
	for (uint32_t i = 0; s->plans && i < p->bucket_count; ++i) {
		if (s->plans[i])
			o->backend->plan_destroy(o->dev, s->plans[i]);
	}
	for (uint32_t i = 0; s->buffers && i < schedule->buffer_count; ++i) {
		if (s->buffers[i] && owned(&schedule->buffers[i]))
			o->backend->buffer_destroy(o->dev, s->buffers[i]);
	}
	knit_adapter_release(s->adapter);
	for (uint32_t i = 0; s->inputs && i < p->graph->input_count; ++i)
		knit__free(&a, s->inputs[i].copy, (size_t)s->inputs[i].max_bytes);
	knit__free(&a, s->plans, p->bucket_count * sizeof(knit_plan *));
	knit__free(&a, s->buffers, schedule->buffer_count * sizeof(knit_buffer *));
	knit__free(&a, s->keys, s->key_count * sizeof *s->keys);
	knit__free(&a, s->input_of, schedule->buffer_count * sizeof *s->input_of);
	knit__free(&a, s->inputs, p->graph->input_count * sizeof *s->inputs);
	knit__free(&a, s->outputs, p->graph->output_count * sizeof *s->outputs);
	knit__free(&a, s, sizeof *s);
	knit_program_release(p);
}

knit_status knit_session_create(knit_program *p, knit_session **out, knit_diag *diag) {
	if (diag)
		*diag = (knit_diag){0};
	if (out)
		*out = NULL;
	if (!p || !out)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "knit_session_create: %s is NULL", p ? "out" : "the program");
	if (p->plan_only)
		return knit__fail(diag, KNIT_ERR_STATE, 0, "the program was compiled with plan_only: it has no weights to run with");

	knit_session *const s = knit__alloc_zero(&p->a, sizeof *s);
	if (!s)
		return knit__fail_memory(diag, "the session", sizeof *s);
	s->program = knit__program_retain(p);
	s->a = p->a;
	for (uint32_t i = 0; i < p->graph->exprs.symbol_count; ++i)
		s->symbols[i] = p->graph->exprs.symbols[i].lo;

	knit_status status = ports_make(s);
	if (status == KNIT_OK)
		status = buffers_make(s);
	if (status == KNIT_OK)
		status = checks_make(s);
	if (status == KNIT_OK)
		status = plans_make(s);
	if (status != KNIT_OK) {
		knit__fail(&s->diag, status, 0, "the session was not made: %s", knit_status_name(status));
		if (diag)
			*diag = s->diag;
		knit_session_destroy(s);
		return status;
	}
	*out = s;
	return KNIT_OK;
}
