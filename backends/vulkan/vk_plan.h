/* Owns what the files that make, record and run a plan tell each other; nobody else includes it, tests aside. */
#ifndef KNIT_VK_PLAN_H
#define KNIT_VK_PLAN_H

#include "vk.h"

/* One dispatch of a step. `level`: dispatches of one level need no barrier between them. `epoch`: how many barriers were
 * recorded before it, for the checker. */
typedef struct knit_vk_work {
	const knit_vk_pipeline *pipeline;
	VkDescriptorSet set;
	uint32_t step, index; /* index: its number within the step */
	uint32_t level, epoch;
	bool waits;
} knit_vk_work;

typedef struct knit_vk_plan_step {
	const knit_vk_kernel *kernel;
	knit_vk_step view;        /* dims of the last evaluation; of the bucket's upper bounds before the first */
	uint32_t first, count;    /* of its works */
	uint64_t table_at;        /* bytes into plan->constants */
	uint64_t table_bytes;
	double estimate_ns;
	bool fixed;               /* no dim of it hangs on a symbol */
} knit_vk_plan_step;

/* A binding that shows a weight, so that another weight can take its place. */
typedef struct knit_vk_use { uint32_t work, binding, buffer; uint64_t base, bytes; } knit_vk_use;

struct knit_plan {
	knit_device *dev;
	const knit_schedule *schedule; /* outlives the plan */
	knit_vk_plan_step *steps;
	knit_vk_work *works;
	uint32_t *order;          /* of works, as recorded */
	/* Bindings that show weight buffer i are uses[first_use[i] .. first_use[i + 1]). */
	knit_vk_use *uses;
	uint32_t *first_use;
	uint32_t step_count, work_count, use_count;
	uint64_t use_cap;
	uint64_t dispatch_bytes;  /* see dispatches_make */
	VkDescriptorPool descriptors;
	/* `control` holds the parameter blocks, then the group counts. Where the host cannot write it in place, `staging` is
	 * its twin and `upload` copies it across. `constants` begins with zeros for absent operands, dispatch by dispatch, then
	 * come the tables. */
	knit_buffer *control, *staging, *constants;
	uint64_t groups_at, control_bytes, constants_bytes;
	VkCommandPool pool;
	VkCommandBuffer *segments, upload;
	uint32_t *segment_end;    /* positions in `order` */
	uint32_t segment_count, barrier_count;
	VkFence fence;
	VkQueryPool queries;      /* NULL where timing is off */
	uint64_t *ns;             /* per step, of the last run */
	uint64_t tick_mask;
	int64_t symbols[KNIT_MAX_SYMBOLS];
	uint32_t symbol_count;
	bool evaluated, recorded, in_flight, has_run, upload_due;
};

/* vk_bind.c: pipelines, descriptor sets and tables of all dispatches. */
knit_status knit__vk_dispatches_make(knit_plan *plan, knit_buffer *const *bufs, knit_diag *d);
void knit__vk_dispatches_free(knit_plan *plan);

/* vk_params.c: dims from symbols, and what hangs on them. */
void knit__vk_step_bounds(knit_plan *plan, uint32_t step); /* views at the bucket's upper bounds */
knit_status knit__vk_control_make(knit_plan *plan, knit_diag *d);
knit_status knit__vk_evaluate(knit_plan *plan, const int64_t *symbols, knit_diag *d);

/* vk_barrier.c. `alone`: every step in a level of its own, in the schedule's order. */
knit_status knit__vk_levels(knit_plan *plan, bool alone, knit_diag *d);
/* Proves from what was recorded that every hazard, and every `waits` inside a step, has a barrier in between. */
knit_status knit__vk_barrier_check(const knit_plan *plan, knit_diag *d);

/* vk_time.c: how long a step may take at the bucket's upper bounds, and how long one submission may. */
double knit__vk_estimate_ns(const knit_plan *plan, uint32_t step);
double knit__vk_segment_ns(const knit_device *dev);
void knit__vk_segment_halve(void); /* after a loss: see vk_time.c */
uint64_t knit__vk_now_ns(void);
knit_status knit__vk_times_make(knit_plan *plan, knit_diag *d);
void knit__vk_times_read(knit_plan *plan);

/* vk_record.c */
knit_status knit__vk_commands_make(knit_plan *plan, knit_diag *d);
knit_status knit__vk_record(knit_plan *plan, knit_diag *d);

#endif
