/* Owns the cutting of a schedule into runs on one side, and the list of results that go across. See place.h. */
#include "place.h"

#include <string.h>

typedef struct cutter {
	const knit_schedule *s;
	const knit_side *sides;
	const knit_allocator *a;
	knit_split_cut *c;
	uint8_t *on; /* per storage: where its bytes are; 0: no step has written it */
} cutter;

static uint32_t storage_of(const cutter *w, const knit_operand *o) { return w->s->graph->values[o->value].storage; }

/* Whether the bytes of an operand are made by steps and may be wanted on another side. A state never is. */
static bool is_result(const cutter *w, const knit_operand *o) {
	if (o->buffer >= w->s->buffer_count)
		return false;
	const knit_buffer_use use = w->s->buffers[o->buffer].use;
	return use == KNIT_BUFFER_ARENA || use == KNIT_BUFFER_IO;
}

static bool run_begin(cutter *w, uint32_t step) {
	knit_split_cut *const c = w->c;

	if (c->run_count && c->runs[c->run_count - 1].side == w->sides[step])
		return true;
	if (!knit__grow(w->a, (void **)&c->runs, &c->run_cap, c->run_count + 1, sizeof *c->runs))
		return false;
	c->runs[c->run_count++] =
		(knit_split_run){.side = w->sides[step], .first = step, .first_move = c->move_count};
	return true;
}

/* A storage has one writer, and its bytes are nobody else's from there to its last reader: it may be moved at the run's
 * beginning, whatever step of the run reads it. */
static bool operand_read(cutter *w, const knit_operand *o, knit_side side) {
	knit_split_cut *const c = w->c;

	if (!is_result(w, o))
		return true;
	uint8_t *const on = &w->on[storage_of(w, o)];
	if (*on == 0 || *on & knit__on(side))
		return true;
	if (!knit__grow(w->a, (void **)&c->moves, &c->move_cap, c->move_count + 1, sizeof *c->moves))
		return false;
	c->moves[c->move_count++] = (knit_split_move){storage_of(w, o), o->buffer, o->base};
	++c->runs[c->run_count - 1].move_count;
	*on |= knit__on(side);
	return true;
}

static bool step_add(cutter *w, uint32_t i) {
	const knit_step *const step = &w->s->steps[i];

	if (!run_begin(w, i))
		return false;
	++w->c->runs[w->c->run_count - 1].count;
	for (uint32_t k = 0; k < step->in_count; ++k)
		if (!operand_read(w, &step->in[k], w->sides[i]))
			return false;
	for (uint32_t k = 0; k < step->out_count; ++k)
		if (is_result(w, &step->out[k]))
			w->on[storage_of(w, &step->out[k])] = knit__on(w->sides[i]);
	return true;
}

void knit__split_cut_clear(knit_split_cut *c, const knit_allocator *a) {
	knit__free(a, c->runs, c->run_cap * sizeof *c->runs);
	knit__free(a, c->moves, c->move_cap * sizeof *c->moves);
	memset(c, 0, sizeof *c);
}

knit_status knit__split_cut(const knit_schedule *s, const knit_side *sides, const knit_allocator *a, knit_split_cut *out,
                            knit_diag *d) {
	cutter w = {.s = s, .sides = sides, .a = a, .c = out};

	memset(out, 0, sizeof *out);
	w.on = knit__alloc_array(a, s->graph->storage_count, sizeof *w.on);
	bool ok = w.on != NULL;
	for (uint32_t i = 0; ok && i < s->step_count; ++i)
		ok = step_add(&w, i);
	knit__free(a, w.on, s->graph->storage_count * sizeof *w.on);
	if (ok)
		return KNIT_OK;
	knit__split_cut_clear(out, a);
	return knit__fail_memory(d, "the split", s->graph->storage_count);
}

uint64_t knit__split_move_bytes(const knit_schedule *s, uint32_t storage, const int64_t *symbols) {
	const knit_value *const v = &s->graph->values[s->graph->storages[storage].value];
	uint64_t elements = 1, bytes = 0;

	for (uint32_t i = 0; i < v->rank; ++i)
		elements *= (uint64_t)knit__dim_eval(&s->graph->exprs, symbols, v->dims[i]);
	return knit__dtype_bytes(v->dtype, elements, &bytes) ? bytes : 0;
}
