/* Owns what binding needs to know of a set of adapter weights. */
#ifndef KNIT_ADAPTER_H
#define KNIT_ADAPTER_H

#include "../graph/weights.h"
#include "program.h"

/* One adapter weight of the program: the number of its buffer and what stands in for it. */
typedef struct knit_adapter_entry { uint32_t buffer; knit_weight_buffer *weight; } knit_adapter_entry;

struct knit_adapter_set {
	atomic_uint refs;
	knit_allocator a;
	knit_program *program; /* retained */
	knit_weights *store;   /* retained: buffers may be its bytes */
	knit_adapter_entry *entries;
	uint32_t count;
};

knit_adapter_set *knit__adapter_retain(knit_adapter_set *a);
/* Whether buffer `i` of the program holds adapter weights that are bound as a whole. */
bool knit__adapter_bindable(const knit_program *p, uint32_t i);
/* The tensor that stands in for adapter buffer `i`, or goes to one of its slots: of the same name, type and shape.
 * NOT_FOUND, SHAPE. */
knit_status knit__adapter_find(const knit_program *p, uint32_t i, const knit_weights *store,
                               const knit_weight_entry **out, knit_diag *d);

#endif
