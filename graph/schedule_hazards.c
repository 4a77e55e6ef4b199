/* Owns the hazard list: which step must wait for which, found from the bytes that steps touch after planning, because
 * reuse of the arena makes orders that are no edges of the graph. Refuses to know ops. */
#include "schedule_parts.h"

#include <string.h>

#define NO_STEP UINT32_MAX

/* The readers of a range since its last write, as a list that ranges share when they are split. 0: the end. */
typedef struct reader { uint32_t step, next; } reader;
typedef struct range { uint64_t begin, end; uint32_t writer, readers; } range;
/* All bytes of one buffer, cut where accesses began or ended. */
typedef struct ranges { range *data; uint32_t count, cap; } ranges;

typedef struct finder {
	knit_schedule *s;
	ranges *buffers;
	reader *readers; /* [0] unused */
	uint32_t reader_count, reader_cap;
	uint32_t *seen; /* per step: its hazard before the present step, as index + 1 */
	uint32_t step, step_hazards;
} finder;

typedef struct window { uint64_t begin, end; } window;

/* The bytes of its buffer that an operand can touch at the bucket's upper bounds: from its first element to its last. */
static window operand_window(const knit_schedule *s, const knit_operand *o) {
	const knit_exprs *e = &s->graph->exprs;
	const knit_dtype_info *info = knit__dtype_info(o->dtype);
	const window whole = {o->base, UINT64_MAX};
	uint64_t first = (uint64_t)knit__dim_lo(e, &s->bounds, o->offset);
	uint64_t last = (uint64_t)knit__dim_hi(e, &s->bounds, o->offset), span, bytes;

	for (uint32_t i = 0; i < o->rank; ++i) {
		const uint64_t n = (uint64_t)knit__dim_hi(e, &s->bounds, o->dims[i]);
		const uint64_t stride = (uint64_t)knit__dim_hi(e, &s->bounds, o->strides[i]);

		if (n == 0)
			return (window){o->base, o->base};
		if (!knit__mul_u64(n - 1, stride, &span) || !knit__add_u64(last, span, &last))
			return whole;
	}
	first = first / info->block_elements * info->block_bytes;
	if (!knit__mul_u64(last / info->block_elements + 1, info->block_bytes, &bytes) ||
	    !knit__add_u64(bytes, o->base, &bytes) || !knit__add_u64(first, o->base, &first))
		return whole;
	return (window){first, bytes};
}

/* ---- ranges ------------------------------------------------------------------------------------------------------- */

static bool split(finder *f, ranges *r, uint32_t index, uint64_t at) {
	if (!knit__grow(f->s->a, (void **)&r->data, &r->cap, r->count + 1, sizeof *r->data))
		return false;
	memmove(&r->data[index + 1], &r->data[index], (r->count - index) * sizeof *r->data);
	++r->count;
	r->data[index].end = at;
	r->data[index + 1].begin = at;
	return true;
}

/* Cuts the ranges so that [w.begin, w.end) is exactly [*from, *to) of them. */
static bool cut(finder *f, ranges *r, window w, uint32_t *from, uint32_t *to) {
	uint32_t i = 0, n = r->count;

	if (r->count == 0) {
		if (!knit__grow(f->s->a, (void **)&r->data, &r->cap, 1, sizeof *r->data))
			return false;
		r->data[r->count++] = (range){0, UINT64_MAX, NO_STEP, 0};
	}
	while (n > 1) { /* the last range that begins at or before w.begin */
		const uint32_t half = n / 2;

		if (r->data[i + half].begin <= w.begin)
			i += half;
		n -= half;
	}
	if (r->data[i].begin < w.begin && !split(f, r, i++, w.begin))
		return false;
	*from = i;
	while (r->data[i].end < w.end)
		++i;
	if (r->data[i].end > w.end && !split(f, r, i, w.end))
		return false;
	*to = i + 1;
	return true;
}

/* ---- accesses ----------------------------------------------------------------------------------------------------- */

/* One entry per pair of steps, of the first kind found: a step's reads are looked at before its writes. */
static bool add_hazard(finder *f, uint32_t before, knit_hazard_kind kind) {
	knit_schedule *s = f->s;

	if (f->seen[before] > f->step_hazards)
		return true;
	if (!knit__grow(s->a, (void **)&s->hazards, &s->hazard_cap, s->hazard_count + 1, sizeof *s->hazards))
		return false;
	s->hazards[s->hazard_count++] = (knit_hazard){before, f->step, kind};
	f->seen[before] = s->hazard_count;
	return true;
}

static bool read_range(finder *f, range *r) {
	if (r->writer != NO_STEP && r->writer != f->step && !add_hazard(f, r->writer, KNIT_HAZARD_RAW))
		return false;
	if (r->readers != 0 && f->readers[r->readers].step == f->step)
		return true;
	if (!knit__grow(f->s->a, (void **)&f->readers, &f->reader_cap, f->reader_count + 1, sizeof *f->readers))
		return false;
	f->readers[f->reader_count] = (reader){f->step, r->readers};
	r->readers = f->reader_count++;
	return true;
}

/* Readers since the last write come after that write, so waiting for them is enough. */
static bool write_range(finder *f, const range *r) {
	if (r->readers == 0 && r->writer != NO_STEP && r->writer != f->step)
		return add_hazard(f, r->writer, KNIT_HAZARD_WAW);
	for (uint32_t i = r->readers; i != 0; i = f->readers[i].next)
		if (f->readers[i].step != f->step && !add_hazard(f, f->readers[i].step, KNIT_HAZARD_WAR))
			return false;
	return true;
}

static bool access_bytes(finder *f, uint32_t buffer, window w, bool write) {
	ranges *r = &f->buffers[buffer];
	uint32_t from, to;

	if (w.begin >= w.end || f->s->buffers[buffer].use == KNIT_BUFFER_CONST)
		return true;
	if (!cut(f, r, w, &from, &to))
		return false;
	for (uint32_t i = from; i < to; ++i)
		if (write ? !write_range(f, &r->data[i]) : !read_range(f, &r->data[i]))
			return false;
	if (!write)
		return true;

	r->data[from] = (range){w.begin, w.end, f->step, 0};
	memmove(&r->data[from + 1], &r->data[to], (r->count - to) * sizeof *r->data);
	r->count -= to - from - 1;
	return true;
}

static bool access_step(finder *f) {
	const knit_step *step = &f->s->steps[f->step];
	const window scratch = {step->scratch_base, step->scratch_base + step->scratch_bytes};

	for (uint32_t i = 0; i < step->in_count; ++i)
		if (step->in[i].buffer != UINT32_MAX &&
		    !access_bytes(f, step->in[i].buffer, operand_window(f->s, &step->in[i]), false))
			return false;
	if (!access_bytes(f, step->scratch_buffer, scratch, true))
		return false;
	for (uint32_t i = 0; i < step->out_count; ++i)
		if (!access_bytes(f, step->out[i].buffer, operand_window(f->s, &step->out[i]), true))
			return false;
	return true;
}

static void sort_by_before(knit_hazard *h, uint32_t count) {
	for (uint32_t i = 1; i < count; ++i) {
		const knit_hazard moved = h[i];
		uint32_t at = i;

		for (; at > 0 && h[at - 1].before > moved.before; --at)
			h[at] = h[at - 1];
		h[at] = moved;
	}
}

knit_status knit__schedule_hazards(knit_schedule *s, knit_diag *d) {
	finder f = {.s = s};
	bool ok;

	f.buffers = knit__alloc_array(s->a, s->buffer_count, sizeof *f.buffers);
	f.seen = knit__alloc_array(s->a, s->step_count, sizeof *f.seen);
	ok = f.buffers && f.seen && knit__grow(s->a, (void **)&f.readers, &f.reader_cap, 1, sizeof *f.readers);
	f.reader_count = 1;
	for (; ok && f.step < s->step_count; ++f.step) {
		f.step_hazards = s->hazard_count;
		ok = access_step(&f);
		if (ok)
			sort_by_before(s->hazards + f.step_hazards, s->hazard_count - f.step_hazards);
	}

	for (uint32_t i = 0; f.buffers && i < s->buffer_count; ++i)
		knit__free(s->a, f.buffers[i].data, f.buffers[i].cap * sizeof(range));
	knit__free(s->a, f.buffers, s->buffer_count * sizeof *f.buffers);
	knit__free(s->a, f.readers, f.reader_cap * sizeof *f.readers);
	knit__free(s->a, f.seen, s->step_count * sizeof *f.seen);
	return ok ? KNIT_OK : knit__fail_memory(d, "hazard list", (uint64_t)s->step_count * sizeof *s->hazards);
}
