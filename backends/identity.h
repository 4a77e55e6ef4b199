/* Owns the identity of what a program computes: a digest of the graph as it was built and of its weights' bytes. It is the
 * same for every device, every set of passes and every length of the context, and another one for any other weight, visit,
 * adapter or attribute: what states hold is of use only to programs of one identity. Knows no file. */
#ifndef KNIT_IDENTITY_H
#define KNIT_IDENTITY_H

#include "../graph/op_def.h"

/* A weight of the graph, in the order of first use. */
typedef struct knit_identity_weight {
	const void *host; /* NULL: filled per session, or none */
	uint64_t bytes;
	uint32_t name; /* string id */
	knit_storage_kind kind;
} knit_identity_weight;

typedef struct knit_identity {
	uint64_t structure; /* of nodes, attributes and how they are connected, without the weights' bytes */
	knit_identity_weight *weights;
	uint32_t count, cap;
} knit_identity;

typedef struct knit_digest { uint64_t low, high; } knit_digest;

/* Of a graph before any pass. MEMORY. */
knit_status knit__identity_make(const knit_graph *g, knit_identity *out, knit_diag *d);
void knit__identity_clear(knit_identity *id, const knit_allocator *a);

/* XXH3 (Collet 2019) over pieces. */
typedef struct knit_hasher { _Alignas(64) unsigned char state[640]; } knit_hasher;
void knit__hasher_init(knit_hasher *h);
void knit__hasher_add(knit_hasher *h, const void *data, size_t bytes);
knit_digest knit__hasher_digest(const knit_hasher *h);

#endif
