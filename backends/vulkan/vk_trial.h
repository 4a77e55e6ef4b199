/* Owns the timing of one small program on a device. */
#ifndef KNIT_VK_TRIAL_H
#define KNIT_VK_TRIAL_H

#include "vk.h"

/* A few steps in a chain, as large as the class of the device can do in milliseconds: products of `rows` rows of x with
 * weights of this type, or attention of `rows` tokens over a state of it. */
typedef struct knit_vk_trial_desc {
	bool attention;
	knit_dtype dtype;
	uint32_t rows;
} knit_vk_trial_desc;

typedef struct knit_vk_trial {
	knit_device *dev;
	knit_weights *store;
	knit_graph *g;
} knit_vk_trial;

/* All that does not hang on the device's tuning. free takes a trial that was not made or only in part. */
knit_status knit__vk_trial_make(knit_context *ctx, knit_device *dev, const knit_vk_trial_desc *what, knit_vk_trial *out,
                                knit_diag *d);
void knit__vk_trial_free(knit_vk_trial *t);
/* The time of one run with the device's tuning as it is now: the best of a few, which take least_ms together. */
knit_status knit__vk_trial_time(const knit_vk_trial *t, double least_ms, double *ms, knit_diag *d);

#endif
