/* Owns the decision which of two devices runs each step of a program and holds each of its buffers, and what has to be
 * carried between them. Pure: the same schedule and budget give the same answer. Knows no device. */
#ifndef KNIT_SPLIT_PLACE_H
#define KNIT_SPLIT_PLACE_H

#include "../../graph/schedule.h"

/* Near: the device with the budget. Far: takes the rest. */
typedef enum knit_side { KNIT_NEAR = 0, KNIT_FAR = 1 } knit_side;

/* Sets of sides. */
enum { KNIT_ON_NEAR = 1, KNIT_ON_FAR = 2 };
static inline uint8_t knit__on(knit_side side) { return side == KNIT_NEAR ? KNIT_ON_NEAR : KNIT_ON_FAR; }

typedef enum knit_split_why {
	KNIT_SPLIT_READS = 1,  /* near: its reads earned it the room */
	KNIT_SPLIT_NO_ROOM,    /* far: what would then lie near is more than the budget */
	KNIT_SPLIT_SWITCHES,   /* far: it would fit, but would add switches of devices where its neighbours do not fit */
	KNIT_SPLIT_NO_KERNEL,  /* far: near has no kernel for any of its steps */
	KNIT_SPLIT_WITH_STEPS, /* decides nothing: lies where the steps that touch it run */
} knit_split_why;

/* One per buffer of the schedule. */
typedef struct knit_split_storage {
	uint8_t on;          /* set of sides; 0: no step touches it */
	knit_split_why why;
	uint64_t read_bytes; /* of a weight, by all steps of one run at the least sizes: one token of decode */
	double reads;        /* the same over its bytes: how often each of them is read */
} knit_split_storage;

typedef struct knit_split_sum {
	uint64_t weight_bytes, state_bytes, arena_bytes, io_bytes;
	uint64_t read_bytes; /* of weights, per token */
	uint32_t steps, storages; /* storages: weights */
} knit_split_sum;

typedef struct knit_split_place {
	knit_side *sides; /* per step */
	knit_split_storage *storages;
	knit_split_sum sums[2];
	uint32_t step_count, buffer_count;
	uint32_t moved_steps; /* that run on the other side than their weights ask for: no kernel there */
} knit_split_place;

/* Weights go near in falling order of their reads per token, ties in the order of execution, each if all that would then
 * lie near (weights, states, arena, inputs and outputs of the steps there) is at most `budget`; after one that is too
 * large only those of equal reads that add no switch of devices. A step runs where the
 * largest matrix that it reads lies, other steps where the one before them ran; all steps of a state run on one side,
 * that of the first. can: per step the set of sides that have a kernel. arena_bytes: of all arenas, in the bucket that
 * needs most. UNSUPPORTED where the steps of a state have no side in common; MEMORY. */
knit_status knit__split_place(const knit_schedule *s, const uint8_t *can, uint64_t budget, uint64_t arena_bytes,
                              const knit_allocator *a, knit_split_place *out, knit_diag *d);
void knit__split_place_clear(knit_split_place *p, const knit_allocator *a);

/* Steps [first, first + count) run on one side without a pause. */
typedef struct knit_split_run {
	knit_side side;
	uint32_t first, count;
	uint32_t first_move, move_count; /* to be made before it */
} knit_split_run;

/* A result that was written on the other side: the bytes of its storage from `base` of `buffer`. */
typedef struct knit_split_move { uint32_t storage, buffer; uint64_t base; } knit_split_move;

typedef struct knit_split_cut {
	knit_split_run *runs;
	knit_split_move *moves;
	uint32_t run_count, run_cap, move_count, move_cap;
} knit_split_cut;

/* Cuts the schedule where the side changes, and finds what each run needs from the other side. Only results of steps are
 * moved: inputs are written to every side that reads them. */
knit_status knit__split_cut(const knit_schedule *s, const knit_side *sides, const knit_allocator *a, knit_split_cut *out,
                            knit_diag *d);
void knit__split_cut_clear(knit_split_cut *c, const knit_allocator *a);

/* Bytes of a storage at these sizes (one value per symbol), which are within the planned bounds. */
uint64_t knit__split_move_bytes(const knit_schedule *s, uint32_t storage, const int64_t *symbols);

#endif
