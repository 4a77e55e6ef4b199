/* Owns what the files that make a schedule tell each other; nobody else includes it. */
#ifndef KNIT_SCHEDULE_PARTS_H
#define KNIT_SCHEDULE_PARTS_H

#include "schedule.h"

/* Steps, buffers and plan are filled in; adds the hazards. */
knit_status knit__schedule_hazards(knit_schedule *s, knit_diag *d);
/* Steps and buffers are filled in; adds the index and pair checks. buffer_of: per storage, UINT32_MAX: none. */
knit_status knit__schedule_checks(knit_schedule *s, const uint32_t *buffer_of, knit_diag *d);

#endif
