/* Owns what compile.c, report.c and session.c share: the compiled program. Immutable once knit_compile has returned. */
#ifndef KNIT_PROGRAM_H
#define KNIT_PROGRAM_H

#include "device.h"
#include "identity.h"

#include <stdatomic.h>

#define KNIT_MAX_BUCKETS 64
#define KNIT_NO_SYMBOL UINT32_MAX

typedef struct knit_program_bucket {
	knit_bounds bounds;
	knit_schedule *schedule;
} knit_program_bucket;

struct knit_program {
	atomic_uint refs;
	knit_context *ctx; /* retained */
	knit_allocator a;
	knit_opened *device;
	knit_graph *graph; /* optimised; retains the stores of the weights */
	knit_program_bucket *buckets;
	uint32_t bucket_count;
	uint32_t bucket_symbol; /* KNIT_NO_SYMBOL: one bucket for everything */
	/* One per buffer of the schedules, NULL for those that each session makes. */
	knit_weight_buffer **weights;
	uint32_t buffer_count;
	bool plan_only; /* no weights: for figures alone */
	knit_memory memory;
	knit_identity identity; /* of the graph before the passes */
};

knit_program *knit__program_retain(knit_program *p);
/* knit_compile on a device that was opened before, whatever its backend. */
knit_status knit__compile_on(const knit_graph *g, const knit_compile_desc *desc, knit_opened *device,
                             knit_program **out, knit_diag *d);

/* report.c: adds up p->memory from the schedules. LIMIT where the sums overflow or are above `limit` (0: no limit). */
knit_status knit__program_measure(knit_program *p, uint64_t limit, knit_diag *d);
/* What a buffer takes of knit_memory.packed_bytes: padding of its layout, or all of a second copy where the weight's own
 * bytes stay. */
uint64_t knit__program_packed_bytes(const knit_program *p, uint32_t buffer);
/* The store that can give the weight's own bytes back, where no use of the program reads them; NULL otherwise. */
const knit_weights *knit__program_mapped(const knit_program *p, uint32_t buffer);
/* Gives back what hashing the weights of the program has made resident again. */
void knit__program_forget(const knit_program *p);
/* The name of a symbol of the program's graph. */
const char *knit__program_symbol(const knit_program *p, uint32_t symbol);
/* KNIT_NO_SYMBOL if there is none. */
uint32_t knit__graph_symbol_find(const knit_graph *g, const char *name);
/* "tokens, outputs", for messages. */
void knit__graph_symbols_text(const knit_graph *g, char *out, size_t size);

/* Per-step times of the session's last run with the CPU's KNIT_TIMES=1; 0 where timing is off. */
size_t knit__session_times(const knit_session *s, knit_step_time *out, size_t cap);

#endif
