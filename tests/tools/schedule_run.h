/* Owns the slow execution of a schedule on bytes, by the ops' references, in any order of its steps: what a device would
 * do that obeys the hazard list and nothing else. Beside it the same steps with every storage in memory of its own, as
 * the yardstick. */
#ifndef KNIT_TEST_SCHEDULE_RUN_H
#define KNIT_TEST_SCHEDULE_RUN_H

#include "../../graph/schedule.h"

typedef struct schedule_run {
	uint8_t *bytes; /* outputs, then states, one after the other, as they stand after the run */
	size_t count;
} schedule_run;

/* Weights, inputs and states are filled from `seed`; inputs that index are kept below what s asks for, seq and pos make
 * distinct pairs. symbols: one value per symbol. order: step numbers, NULL for as they stand. shared: use the plan's
 * places; otherwise memory of its own for every storage. False where memory ran out. */
bool schedule_run_create(const knit_schedule *s, const int64_t *symbols, uint64_t seed, const uint32_t *order, bool shared,
                         schedule_run *out);
void schedule_run_clear(schedule_run *r);
bool schedule_run_equal(const schedule_run *a, const schedule_run *b);

/* An order that the hazards allow, chosen by chance: `order` has step_count elements. */
bool schedule_run_shuffle(const knit_schedule *s, uint64_t seed, uint32_t *order);

#endif
