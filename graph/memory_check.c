/* Owns the proof that a schedule is right about memory: it replays the steps over a map of which bytes hold which value,
 * and compares what it sees with the graph. It shares no code with the planner and believes nothing that the planner
 * noted down: neither lifetimes nor slots nor where a storage lies, only what the steps say. Plain on purpose. */
#include "op_def.h"
#include "schedule.h"

#include <stdio.h>
#include <string.h>

#define NOTHING 0 /* bytes that hold no value: never written, or used as scratch since */

/* Bytes [begin, end) of a buffer hold value `owner`, whose first byte is at `base`. */
typedef struct piece { uint64_t begin, end, base; uint32_t owner; } piece;
/* By `begin`, not overlapping. Bytes in no piece hold nothing. */
typedef struct map { piece *pieces; uint32_t count, cap; } map;
typedef struct span { uint64_t begin, end; } span;
typedef struct touch { span bytes; uint32_t buffer, step; bool write; } touch;

typedef struct checker {
	const knit_schedule *s;
	const knit_graph *g;
	const knit_allocator *a;
	knit_diag *d;
	map *maps;      /* per buffer */
	touch *touches; /* of all steps, in their order, weights left out */
	uint32_t touch_count, touch_cap;
	uint32_t *runs;   /* per node: how often a step runs it */
	uint32_t *chain;  /* per hazard: the next one with the same `after`, as index + 1 */
	uint32_t *chains; /* per step: its first hazard, as index + 1 */
	uint64_t *before; /* per step one row of bits: the steps that are done when it starts */
	uint32_t row_words;
	uint32_t step; /* the present one */
} checker;

/* ---- saying what is wrong ------------------------------------------------------------------------------------------- */

static bool fault(checker *c, const char *fmt, ...) KNIT_PRINTF(2, 3);
static bool fault(checker *c, const char *fmt, ...) {
	const bool in_step = c->step < c->s->step_count;
	const knit_step *step = in_step ? &c->s->steps[c->step] : NULL;
	const knit_op_def *def = in_step ? knit__op(step->op) : NULL;
	char text[sizeof c->d->text], where[96] = "at the end";
	va_list args;

	if (in_step)
		snprintf(where, sizeof where, "step %u (%s%s%s)", c->step, def ? def->name : "?",
		         step->origin && *step->origin ? " at " : "", step->origin ? step->origin : "");
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	knit__fail(c->d, KNIT_ERR_INTERNAL, in_step ? step->node : 0, "memory check: %s %s", where, text);
	return false;
}

static bool no_memory(checker *c) {
	knit__fail_memory(c->d, "memory check", (uint64_t)c->s->step_count * sizeof(touch));
	return false;
}

#define BYTES(s) (unsigned long long)(s).begin, (unsigned long long)(s).end

static const char *buffer_name(const checker *c, uint32_t buffer) { return c->s->buffers[buffer].name; }

/* ---- what the graph says -------------------------------------------------------------------------------------------- */

/* The value whose writing puts the right bytes there. All values that nobody writes share their storage's first. */
static uint32_t owner_of(const checker *c, uint32_t value) {
	const knit_value *v = &c->g->values[value];
	const uint32_t root = v->view_of ? v->view_of : value;

	return c->g->values[root].producer ? root : c->g->storages[v->storage].value;
}

/* From the first byte that a value can touch to the last, at the bucket's bounds, counted from its storage's first. */
static bool value_span(const checker *c, uint32_t value, span *out) {
	const knit_value *v = &c->g->values[value];
	const knit_exprs *e = &c->g->exprs;
	const knit_dtype_info *info = knit__dtype_info(v->dtype);
	uint64_t end = (uint64_t)knit__dim_hi(e, &c->s->bounds, v->offset);

	*out = (span){0, 0};
	for (int i = 0; i < v->rank; ++i) {
		const int64_t n = knit__dim_hi(e, &c->s->bounds, v->dims[i]), stride = knit__dim_hi(e, &c->s->bounds, v->strides[i]);
		int64_t way;

		if (n == 0)
			return true;
		if (!knit__mul_i64(n - 1, stride, &way) || !knit__add_u64(end, (uint64_t)way, &end))
			return false;
	}
	out->begin = (uint64_t)knit__dim_lo(e, &c->s->bounds, v->offset) / info->block_elements * info->block_bytes;
	return knit__mul_u64(end / info->block_elements + 1, info->block_bytes, &out->end);
}

/* The operand is the graph's value, in the buffer of its storage, inside it. `out`: its bytes in the buffer. */
static bool check_operand(checker *c, const knit_operand *o, uint32_t value, span *out) {
	const knit_value *v = &c->g->values[value];
	const knit_storage *storage = &c->g->storages[v->storage];
	const knit_buffer_desc *b;
	span inner;
	uint64_t bytes;

	if (o->value != value)
		return fault(c, "has operand %%%u where the graph has %%%u", o->value, value);
	if (o->buffer >= c->s->buffer_count)
		return fault(c, "has %%%u in buffer %u of %u", value, o->buffer, c->s->buffer_count);
	if (o->dtype != v->dtype || o->rank != v->rank || o->layout != v->layout || o->offset.v != v->offset.v ||
	    memcmp(o->dims, v->dims, v->rank * sizeof *v->dims) != 0 ||
	    memcmp(o->strides, v->strides, v->rank * sizeof *v->strides) != 0)
		return fault(c, "sees %%%u with another type or shape than the graph gives it", value);

	b = &c->s->buffers[o->buffer];
	if (storage->kind == KNIT_STORAGE_TEMP ? b->use != KNIT_BUFFER_ARENA : b->storage != v->storage || o->base != 0)
		return fault(c, "looks for %%%u at byte %llu of %s, which is not where its storage lies", value,
		             (unsigned long long)o->base, b->name);
	if (!value_span(c, value, &inner) || !knit__storage_max_bytes(c->g, &c->s->bounds, v->storage, &bytes))
		return fault(c, "touches more of %%%u than 64 bits can count", value);
	if (inner.end > bytes)
		return fault(c, "touches bytes [%llu, %llu) of %%%u, whose storage has %llu", BYTES(inner), value,
		             (unsigned long long)bytes);
	if (o->base > b->bytes || bytes > b->bytes - o->base)
		return fault(c, "has %%%u in bytes [%llu, %llu) of %s, which has %llu", value, (unsigned long long)o->base,
		             (unsigned long long)(o->base + bytes), b->name, (unsigned long long)b->bytes);
	*out = (span){o->base + inner.begin, o->base + inner.end};
	return true;
}

/* ---- the map ------------------------------------------------------------------------------------------------------ */

/* [s.begin, s.end) holds `owner` from now on. */
static bool put(checker *c, uint32_t buffer, span s, uint64_t base, uint32_t owner) {
	map *m = &c->maps[buffer];
	uint32_t from = 0, kept = 0;
	piece left = {0}, right = {0}, added[3];

	if (s.begin >= s.end)
		return true;
	if (!knit__grow(c->a, (void **)&m->pieces, &m->cap, m->count + 2, sizeof *m->pieces))
		return no_memory(c);
	while (from < m->count && m->pieces[from].end <= s.begin)
		++from;

	uint32_t to = from;
	for (; to < m->count && m->pieces[to].begin < s.end; ++to) {
		const piece *p = &m->pieces[to];

		if (p->begin < s.begin)
			left = (piece){p->begin, s.begin, p->base, p->owner};
		if (p->end > s.end)
			right = (piece){s.end, p->end, p->base, p->owner};
	}
	if (left.end != 0)
		added[kept++] = left;
	if (owner != NOTHING)
		added[kept++] = (piece){s.begin, s.end, base, owner};
	if (right.end != 0)
		added[kept++] = right;
	memmove(&m->pieces[from + kept], &m->pieces[to], (m->count - to) * sizeof *m->pieces);
	memcpy(&m->pieces[from], added, kept * sizeof *added);
	m->count = m->count - (to - from) + kept;
	return true;
}

/* Every byte of [s.begin, s.end) holds `owner`, begun at `base`. */
static bool expect(checker *c, uint32_t buffer, span s, uint64_t base, uint32_t owner, uint32_t value) {
	const map *m = &c->maps[buffer];
	uint64_t at = s.begin;

	for (uint32_t i = 0; i < m->count && at < s.end; ++i) {
		const piece *p = &m->pieces[i];

		if (p->end <= at)
			continue;
		if (p->begin > at)
			break;
		if (p->owner != owner)
			return fault(c, "reads %%%u in bytes [%llu, %llu) of %s, but from byte %llu on they hold %%%u", value, BYTES(s),
			             buffer_name(c, buffer), (unsigned long long)at, p->owner);
		if (p->base != base)
			return fault(c, "reads %%%u from byte %llu of %s on, but it was written from byte %llu on", value,
			             (unsigned long long)base, buffer_name(c, buffer), (unsigned long long)p->base);
		at = p->end;
	}
	if (at < s.end)
		return fault(c, "reads %%%u in bytes [%llu, %llu) of %s, but byte %llu holds no value", value, BYTES(s),
		             buffer_name(c, buffer), (unsigned long long)at);
	return true;
}

/* ---- one step ----------------------------------------------------------------------------------------------------- */

static bool add_touch(checker *c, uint32_t buffer, span bytes, bool write) {
	if (c->s->buffers[buffer].use == KNIT_BUFFER_CONST || bytes.begin >= bytes.end)
		return true;
	if (!knit__grow(c->a, (void **)&c->touches, &c->touch_cap, c->touch_count + 1, sizeof *c->touches))
		return no_memory(c);
	c->touches[c->touch_count++] = (touch){bytes, buffer, c->step, write};
	return true;
}

static bool overlap(span x, span y) { return x.begin < y.end && y.begin < x.end && x.begin < x.end && y.begin < y.end; }

static bool check_node(checker *c, const knit_step *step) {
	const knit_node *n;

	if (step->node == 0 || step->node >= c->g->node_count || c->g->nodes[step->node].op == KNIT_OP_NONE)
		return fault(c, "runs node %u, which does not exist", step->node);
	n = &c->g->nodes[step->node];
	if (step->op != n->op || step->in_count != n->in_count || step->out_count != n->out_count ||
	    memcmp(step->attr, n->attr, sizeof n->attr) != 0)
		return fault(c, "is not what node %u of the graph is", step->node);
	if (c->runs[step->node]++ != 0)
		return fault(c, "runs node %u a second time", step->node);
	if (step->kernel == 0)
		return fault(c, "has no kernel");
	return true;
}

/* An output may lie only on the input of its own number: exactly, and where the op says so. */
static bool may_share(const checker *c, const knit_step *step, uint32_t in, uint32_t out, span x, span y) {
	const knit_op_def *def = knit__op(step->op);
	const knit_value *a = &c->g->values[step->in[in].value], *b = &c->g->values[step->out[out].value];

	if (in != out || x.begin != y.begin || x.end != y.end || a->dtype != b->dtype || a->rank != b->rank)
		return false;
	if (out < def->state_outputs)
		return b->version == a->version + 1;
	return out == 0 && (def->flags & KNIT_OP_INPLACE) && memcmp(a->dims, b->dims, a->rank * sizeof *a->dims) == 0 &&
	       knit__value_contiguous(c->g, step->in[0].value) && knit__value_contiguous(c->g, step->out[0].value);
}

static bool check_overlaps(checker *c, const knit_step *step, const span *in, const span *out, span scratch) {
	const uint32_t arena = step->scratch_buffer;

	for (uint32_t i = 0; i < step->in_count; ++i) {
		if (step->in[i].buffer == UINT32_MAX)
			continue;
		if (step->in[i].buffer == arena && overlap(in[i], scratch))
			return fault(c, "has scratch in bytes [%llu, %llu) of the arena, over its input %%%u in [%llu, %llu)",
			             BYTES(scratch), step->in[i].value, BYTES(in[i]));
		for (uint32_t k = 0; k < step->out_count; ++k)
			if (step->in[i].buffer == step->out[k].buffer && overlap(in[i], out[k]) &&
			    !may_share(c, step, i, k, in[i], out[k]))
				return fault(c, "writes %%%u to bytes [%llu, %llu) of %s, over its input %%%u in [%llu, %llu)",
				             step->out[k].value, BYTES(out[k]), buffer_name(c, step->out[k].buffer), step->in[i].value,
				             BYTES(in[i]));
	}
	for (uint32_t i = 0; i < step->out_count; ++i) {
		if (step->out[i].buffer == arena && overlap(out[i], scratch))
			return fault(c, "has scratch in bytes [%llu, %llu) of the arena, over its output %%%u in [%llu, %llu)",
			             BYTES(scratch), step->out[i].value, BYTES(out[i]));
		for (uint32_t k = 0; k < i; ++k)
			if (step->out[i].buffer == step->out[k].buffer && overlap(out[i], out[k]))
				return fault(c, "writes %%%u and %%%u to the same bytes [%llu, %llu) of %s", step->out[k].value,
				             step->out[i].value, BYTES(out[i]), buffer_name(c, step->out[i].buffer));
	}
	return true;
}

static bool check_writable(checker *c, const knit_operand *o) {
	const knit_storage_kind kind = c->g->storages[c->g->values[o->value].storage].kind;

	if (kind != KNIT_STORAGE_TEMP && kind != KNIT_STORAGE_OUTPUT && kind != KNIT_STORAGE_STATE)
		return fault(c, "writes %%%u to %s, which is read only", o->value, buffer_name(c, o->buffer));
	return true;
}

static bool replay_step(checker *c) {
	const knit_step *step = &c->s->steps[c->step];
	const uint32_t arena = step->scratch_buffer;
	const span scratch = {step->scratch_base, step->scratch_base + step->scratch_bytes};
	span in[KNIT_MAX_IN] = {{0}}, out[KNIT_MAX_OUT] = {{0}};
	const knit_node *n;

	if (!check_node(c, step))
		return false;
	n = &c->g->nodes[step->node];
	if (arena >= c->s->buffer_count || c->s->buffers[arena].use != KNIT_BUFFER_ARENA)
		return fault(c, "has scratch in buffer %u of %u, which is no arena", arena, c->s->buffer_count);
	if (step->scratch_bytes != 0 && (step->scratch_base > c->s->buffers[arena].bytes ||
	                                 step->scratch_bytes > c->s->buffers[arena].bytes - step->scratch_base))
		return fault(c, "has scratch in bytes [%llu, %llu) of the arena, which has %llu", BYTES(scratch),
		             (unsigned long long)c->s->buffers[arena].bytes);

	for (uint32_t i = 0; i < n->in_count; ++i) {
		const knit_operand *o = &step->in[i];

		if (n->in[i] == 0) {
			if (o->buffer != UINT32_MAX)
				return fault(c, "has an operand %u that the graph has not", i);
			continue;
		}
		if (!check_operand(c, o, n->in[i], &in[i]) ||
		    !expect(c, o->buffer, in[i], o->base, owner_of(c, n->in[i]), n->in[i]) ||
		    !add_touch(c, o->buffer, in[i], false))
			return false;
	}
	for (uint32_t i = 0; i < n->out_count; ++i)
		if (!check_operand(c, &step->out[i], n->out[i], &out[i]) || !check_writable(c, &step->out[i]))
			return false;
	if (!check_overlaps(c, step, in, out, scratch))
		return false;

	if (!put(c, arena, scratch, 0, NOTHING) || !add_touch(c, arena, scratch, true))
		return false;
	for (uint32_t i = 0; i < n->out_count; ++i)
		if (!put(c, step->out[i].buffer, out[i], step->out[i].base, n->out[i]) ||
		    !add_touch(c, step->out[i].buffer, out[i], true))
			return false;
	return true;
}

/* ---- before and after ----------------------------------------------------------------------------------------------- */

/* What is there when a run starts: weights, inputs and states; nothing in the arena and the outputs. */
static bool fill_buffers(checker *c) {
	uint32_t arenas = 0;

	for (uint32_t i = 0; i < c->s->buffer_count; ++i) {
		const knit_buffer_desc *b = &c->s->buffers[i];

		if (b->use == KNIT_BUFFER_ARENA) {
			++arenas;
			if (c->s->max_arena != 0 && b->bytes > c->s->max_arena)
				return fault(c, "arena in buffer %u has %llu bytes, the device takes at most %llu", i,
				             (unsigned long long)b->bytes, (unsigned long long)c->s->max_arena);
			continue;
		}
		if (b->storage == 0 || b->storage >= c->g->storage_count)
			return fault(c, "buffer %u (%s) is for storage %u, which does not exist", i, b->name, b->storage);
		for (uint32_t k = 0; k < i; ++k)
			if (c->s->buffers[k].storage == b->storage)
				return fault(c, "buffers %u and %u are both for %s", k, i, b->name);
		if (c->g->storages[b->storage].kind != KNIT_STORAGE_OUTPUT &&
		    !put(c, i, (span){0, b->bytes}, 0, c->g->storages[b->storage].value))
			return false;
	}
	if (arenas != c->s->arena_count || c->s->buffers[c->s->arena_buffer].use != KNIT_BUFFER_ARENA)
		return fault(c, "%u buffers are arenas, needs buffer %u and %u in all", arenas, c->s->arena_buffer,
		             c->s->arena_count);
	return true;
}

static uint32_t buffer_for(const checker *c, uint32_t storage) {
	for (uint32_t i = 0; i < c->s->buffer_count; ++i)
		if (c->s->buffers[i].storage == storage && c->s->buffers[i].use != KNIT_BUFFER_ARENA)
			return i;
	return UINT32_MAX;
}

/* After the last step every output and every state holds its value, in a buffer of its own. */
static bool check_result(checker *c, uint32_t value, const char *what) {
	const uint32_t buffer = buffer_for(c, c->g->values[value].storage);
	span s;

	if (buffer == UINT32_MAX)
		return fault(c, "%s %%%u has no buffer of its own", what, value);
	if (!value_span(c, value, &s))
		return fault(c, "%s %%%u is larger than 64 bits can count", what, value);
	return expect(c, buffer, s, 0, owner_of(c, value), value);
}

static bool check_results(checker *c) {
	for (uint32_t i = 0; i < c->g->order_count; ++i)
		if (c->runs[c->g->order[i]] != 1)
			return fault(c, "node %u has not run", c->g->order[i]);
	for (uint32_t i = 0; i < c->g->output_count; ++i)
		if (!check_result(c, c->g->outputs[i].value, "output"))
			return false;
	for (uint32_t i = 0; i < c->g->state_count; ++i)
		if (!check_result(c, c->g->states[i].current, "state"))
			return false;
	return true;
}

/* ---- hazards ------------------------------------------------------------------------------------------------------ */

/* For each step, which steps are surely done when it starts: those that its hazards name, and those before them. */
static bool close_hazards(checker *c) {
	const uint32_t steps = c->s->step_count;

	for (uint32_t i = 0; i < c->s->hazard_count; ++i) {
		const knit_hazard *h = &c->s->hazards[i];

		if (h->before >= h->after || h->after >= steps)
			return fault(c, "hazard %u says that step %u waits for step %u", i, h->after, h->before);
		c->chain[i] = c->chains[h->after];
		c->chains[h->after] = i + 1;
	}
	for (uint32_t i = 0; i < steps; ++i) {
		uint64_t *row = &c->before[(size_t)i * c->row_words];

		for (uint32_t h = c->chains[i]; h != 0; h = c->chain[h - 1]) {
			const uint32_t b = c->s->hazards[h - 1].before;

			for (uint32_t w = 0; w < c->row_words; ++w)
				row[w] |= c->before[(size_t)b * c->row_words + w];
			row[b / 64] |= UINT64_C(1) << b % 64;
		}
	}
	return true;
}

/* Any two steps that touch a common byte, one of them writing, run one after the other. Looks back from each touch until
 * a write that covers all of it: that write waits for whatever touched those bytes before, as was checked when its turn
 * came, and so does whoever waits for it. */
static bool check_hazards(checker *c) {
	for (uint32_t i = 0; i < c->touch_count; ++i) {
		const touch *later = &c->touches[i];
		const uint64_t *row = &c->before[(size_t)later->step * c->row_words];

		for (uint32_t k = i; k-- > 0;) {
			const touch *t = &c->touches[k];

			if (t->buffer != later->buffer || !(t->write || later->write) || t->step == later->step ||
			    !overlap(t->bytes, later->bytes))
				continue;
			if (!(row[t->step / 64] >> t->step % 64 & 1)) {
				c->step = later->step;
				return fault(c, "%s bytes [%llu, %llu) of %s, but need not wait for step %u, which %s [%llu, %llu)",
				             later->write ? "writes" : "reads", BYTES(later->bytes), buffer_name(c, t->buffer), t->step,
				             t->write ? "writes" : "reads", BYTES(t->bytes));
			}
			if (t->write && t->bytes.begin <= later->bytes.begin && later->bytes.end <= t->bytes.end)
				break;
		}
	}
	return true;
}

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

static bool check_all(checker *c) {
	const knit_schedule *s = c->s;
	const size_t steps = s->step_count;

	c->row_words = s->step_count / 64 + 1;
	c->maps = knit__alloc_array(c->a, s->buffer_count, sizeof *c->maps);
	c->runs = knit__alloc_array(c->a, c->g->node_count, sizeof *c->runs);
	c->chain = knit__alloc_array(c->a, s->hazard_count, sizeof *c->chain);
	c->chains = knit__alloc_array(c->a, steps, sizeof *c->chains);
	c->before = knit__alloc_array(c->a, steps * c->row_words, sizeof *c->before);
	if (!c->maps || !c->runs || !c->chain || !c->chains || !c->before)
		return no_memory(c);

	c->step = s->step_count; /* messages speak of no step */
	if (!fill_buffers(c))
		return false;
	for (c->step = 0; c->step < s->step_count; ++c->step)
		if (!replay_step(c))
			return false;
	return check_results(c) && close_hazards(c) && check_hazards(c);
}

knit_status knit__memory_check(const knit_schedule *s, const knit_allocator *a, knit_diag *d) {
	knit_diag own = {0};
	checker c = {.s = s, .g = s->graph, .a = a, .d = d ? d : &own};
	const bool ok = check_all(&c);
	const size_t steps = s->step_count;

	for (uint32_t i = 0; c.maps && i < s->buffer_count; ++i)
		knit__free(a, c.maps[i].pieces, c.maps[i].cap * sizeof(piece));
	knit__free(a, c.maps, s->buffer_count * sizeof *c.maps);
	knit__free(a, c.touches, c.touch_cap * sizeof *c.touches);
	knit__free(a, c.runs, c.g->node_count * sizeof *c.runs);
	knit__free(a, c.chain, s->hazard_count * sizeof *c.chain);
	knit__free(a, c.chains, steps * sizeof *c.chains);
	knit__free(a, c.before, steps * c.row_words * sizeof *c.before);
	return ok ? KNIT_OK : c.d->status;
}
