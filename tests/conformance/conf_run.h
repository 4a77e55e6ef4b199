/* Owns running conformance cases on a device against the double-precision reference, and the lists of what a backend does
 * not do. Knows no backend but by name. */
#ifndef KNIT_TEST_CONF_RUN_H
#define KNIT_TEST_CONF_RUN_H

#include "../../backends/backend.h"
#include "cases.h"

typedef struct conf_config {
	const char *device, *isa; /* isa: of the CPU, NULL: the best */
	uint32_t threads;
	const char *only; /* the name of one case; NULL: all */
	bool (*take)(const conf_case *c); /* NULL: all */
	bool few;         /* cases of one run with few tokens only, in graphs that cannot have more: kernels for decoding */
	bool *hit;        /* by kernel number - 1: chosen by some case; NULL: not wanted */
	uint32_t hit_count;
} conf_config;

/* Runs what cfg chooses; how many failed, -1 with a SKIP line if the device is absent. */
int conf_run(const conf_config *cfg, const conf_case *cases, size_t count);
/* The same on several configurations, with the reference run once for all of them. Which cases are run, and `few`, are as the
 * first one says; the failures are those of all together. */
#define CONF_CONFIGS 8
int conf_run_all(const conf_config *cfgs, size_t cfg_count, const conf_case *cases, size_t count);

const knit_backend *conf_backend(const char *name);
/* Passes that make fused ops: plain ops are tried without them. */
extern const char conf_fusions[];
bool conf_is_fused(uint16_t op);
bool conf_has_step(const knit_schedule *s, uint16_t op);

#endif
