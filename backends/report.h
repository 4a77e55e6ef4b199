/* Owns what the report of a program is computed from: costs of steps and runs at given sizes. Changes nothing. */
#ifndef KNIT_REPORT_H
#define KNIT_REPORT_H

#include "program.h"

/* Of one execution of a step, or of a run: what is read and written, and which part of it is weights or states. */
typedef struct knit_step_cost {
	double flops;
	uint64_t read, write;             /* all bytes */
	uint64_t weights;                 /* read from base weights and adapters */
	uint64_t state_read, state_write; /* from and to states */
} knit_step_cost;

/* symbols: one value per symbol of the graph. context: how many positions a row of attention sees. */
void knit__step_cost(const knit_schedule *s, const int64_t *symbols, int64_t context, const knit_step *step,
                     knit_step_cost *out);

/* Sums over runs. */
typedef struct knit_run_cost {
	knit_step_cost sum;
	uint64_t *largest; /* per buffer: the most that one step read of it, for weights */
	uint32_t buffer_count, runs;
	const knit_allocator *a;
} knit_run_cost;

bool knit__run_cost_init(knit_run_cost *c, const knit_program *p);
void knit__run_cost_clear(knit_run_cost *c);
/* Adds one run of the bucket. */
void knit__run_cost_add(knit_run_cost *c, const knit_program *p, uint32_t bucket, const int64_t *symbols, int64_t context);
/* Bytes of weights that were read, each byte once. */
uint64_t knit__run_cost_unique(const knit_run_cost *c);

/* The bucket with the smallest, and the one with the largest values of its symbol. */
uint32_t knit__program_smallest_bucket(const knit_program *p);
uint32_t knit__program_largest_bucket(const knit_program *p);
/* Cells of the largest state, 0 if there is none. */
int64_t knit__program_cells(const knit_program *p);

#endif
