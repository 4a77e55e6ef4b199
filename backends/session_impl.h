/* Owns what the files of a session tell each other; nobody else includes it. */
#ifndef KNIT_SESSION_IMPL_H
#define KNIT_SESSION_IMPL_H

#include "program.h"

/* An input or an output. */
typedef struct session_port {
	const char *name;
	uint32_t value, buffer; /* buffer UINT32_MAX: no step reads this input */
	uint64_t max_bytes, written_bytes;
	int32_t *copy; /* of an input with index checks, for these; else NULL */
	bool written;
} session_port;

struct knit_session {
	knit_program *program; /* retained */
	knit_allocator a;
	knit_diag diag;
	session_port *inputs, *outputs;
	uint32_t *input_of; /* buffer -> input, UINT32_MAX: none */
	knit_buffer **buffers; /* one per buffer of the schedules; weights belong to the program */
	knit_plan **plans; /* one per bucket */
	knit_adapter_set *adapter; /* retained; NULL: the program's own weights */
	knit_counters counters;
	uint64_t *keys; /* for pair checks */
	size_t key_count;
	int64_t symbols[KNIT_MAX_SYMBOLS], run_symbols[KNIT_MAX_SYMBOLS];
	uint32_t run_bucket;
	bool has_run;        /* the outputs are those of run_symbols */
	bool states_unknown; /* a run failed in the middle */
	bool dead;           /* the device is lost */
};

/* The first bucket's: buffers have the same numbers in all. */
static inline const knit_schedule *knit__session_schedule(const knit_session *s) { return s->program->buckets[0].schedule; }

/* Every call starts with a clean diag; a dead session does nothing more. */
knit_status knit__session_begin(knit_session *s);
/* Work done by the calling thread, before a call that may do some; count adds what it did to the session's counters. */
typedef struct session_work { uint64_t allocations; knit_weight_work weights; } session_work;
session_work knit__session_work(void);
void knit__session_count(knit_session *s, const session_work *before);
/* What the device answered, in words where it failed. */
knit_status knit__session_device(knit_session *s, knit_status status, const char *what);

#endif
