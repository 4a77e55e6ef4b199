/* Owns the program as a backend gets it: steps with resolved operands, buffers, hazards. Made once per bucket from an
 * optimised graph and a memory plan; immutable afterwards. */
#ifndef KNIT_SCHEDULE_H
#define KNIT_SCHEDULE_H

#include "memory_plan.h"
#include "target.h"

typedef enum knit_buffer_use {
	KNIT_BUFFER_CONST = 1, /* one weight storage */
	KNIT_BUFFER_ARENA,     /* activations and scratch; more than one where a device's limits ask for it */
	KNIT_BUFFER_STATE,     /* one state */
	KNIT_BUFFER_IO,        /* one input or output */
} knit_buffer_use;

/* Arena 0, weights, states, inputs and outputs, further arenas: so buffers have the same numbers in every bucket's
 * schedule of a program; only the sizes of the arenas differ. */
typedef struct knit_buffer_desc {
	knit_buffer_use use;
	uint32_t storage;  /* 0 for an arena */
	uint64_t bytes;
	const void *host;  /* CONST */
	uint8_t layout;    /* CONST: 0, or how packed_bytes are made of the host's, a matrix of `shape` */
	uint64_t packed_bytes;
	knit_shape shape;
	const char *name;
	knit_storage_kind kind;
	bool slots; /* of an adapter: CONST for the steps, but each session makes and fills its own */
} knit_buffer_desc;

typedef struct knit_operand {
	uint32_t buffer;      /* index into buffers; UINT32_MAX: absent optional operand */
	uint32_t value;       /* value id, for dumps and checks */
	uint64_t base;        /* bytes from the buffer's start to the storage's first byte */
	knit_dtype dtype;
	uint8_t rank, layout;
	knit_dim dims[KNIT_MAX_RANK], strides[KNIT_MAX_RANK], offset; /* elements; offset counts from `base` */
} knit_operand;

typedef struct knit_step {
	uint16_t op;
	uint8_t in_count, out_count;
	knit_kernel kernel;
	knit_operand in[KNIT_MAX_IN], out[KNIT_MAX_OUT];
	knit_attr attr[KNIT_MAX_ATTRS];
	uint64_t scratch_base, scratch_bytes; /* in buffer scratch_buffer, an arena */
	uint32_t scratch_buffer;
	uint32_t node;
	const char *origin, *parts; /* parts: what a fused step was made of; empty: itself */
} knit_step;

/* Step `after` must not start before step `before` is done. Only the direct ones: the list is transitively reduced per
 * byte range (the last writer and the readers since), in the order of `after`; `before` < `after`. */
typedef enum knit_hazard_kind { KNIT_HAZARD_RAW = 1, KNIT_HAZARD_WAR, KNIT_HAZARD_WAW } knit_hazard_kind;
typedef struct knit_hazard { uint32_t before, after; knit_hazard_kind kind; } knit_hazard;

/* Input `buffer` (i32) must hold indices in [0, bound) before a run. */
typedef struct knit_index_check { uint32_t buffer; knit_dim bound; const char *input, *op, *origin; } knit_index_check;
/* Inputs (seq, pos) together name cells of a state: pairs must be distinct in one run. */
typedef struct knit_pair_check { uint32_t seq_buffer, pos_buffer; const char *state; } knit_pair_check;
/* Inputs (seq, pos) together name cells of a ring: positions must not be negative, and those of one sequence at or above
 * `sinks` lie at most `span` apart in one run. */
typedef struct knit_ring_check {
	uint32_t seq_buffer, pos_buffer;
	int64_t sinks, span;
	const char *op, *origin;
} knit_ring_check;

typedef struct knit_schedule {
	const knit_allocator *a;
	const knit_graph *graph; /* the optimised graph; outlives the schedule */
	knit_bounds bounds;      /* of the bucket */
	knit_step *steps;
	knit_buffer_desc *buffers;
	knit_hazard *hazards;
	knit_index_check *index_checks;
	knit_pair_check *pair_checks;
	knit_ring_check *ring_checks;
	uint32_t step_count, buffer_count, hazard_count, hazard_cap, index_check_count, index_check_cap, pair_check_count,
		pair_check_cap, ring_check_count, ring_check_cap;
	uint32_t arena_buffer; /* index of arena 0; always 0 */
	uint32_t arena_count;  /* the others are the last arena_count - 1 buffers */
	uint64_t max_arena;    /* bytes that one arena may have; 0: no limit */
	knit_memory_plan plan;
} knit_schedule;

/* UNSUPPORTED with op, origin and operand types where the target has no kernel; UNSUPPORTED where an index operand is
 * neither an input nor the result of argmax over a dimension of fitting size. */
knit_status knit__schedule_create(const knit_graph *g, const knit_bounds *bounds, const knit_target *target,
                                  knit_schedule **out, knit_diag *d);
void knit__schedule_destroy(knit_schedule *s);
/* Adds empty arenas up to `count`, so that schedules of several buckets have equal buffers. */
knit_status knit__schedule_add_arenas(knit_schedule *s, uint32_t count, knit_diag *d);
/* The buffer of arena `arena`. */
uint32_t knit__schedule_arena(const knit_schedule *s, uint32_t arena);

/* The independent checker (memory_check.c): replays the steps over an interval map and proves that every read sees the
 * bytes its value's producer wrote, that nothing lies outside its buffer, that in-place pairs are allowed ones, and
 * that the hazard list orders every pair of steps that touch a common byte. Shares no code with the planner. INTERNAL
 * with the first fault. */
knit_status knit__memory_check(const knit_schedule *s, const knit_allocator *a, knit_diag *d);

#endif
