/* Owns the weight store: name -> bytes, and which names share bytes. Filled by the file readers in frontends/ and by
 * knit_weights_add; knows no file format. After its first use it is sealed and immutable. */
#ifndef KNIT_WEIGHTS_H
#define KNIT_WEIGHTS_H

#include "base.h"
#include "context.h"
#include "dtype.h"

#include <stdatomic.h>

typedef struct knit_weight_entry {
	char *name;
	knit_dtype dtype;
	int rank;
	int64_t dims[KNIT_MAX_RANK]; /* outermost first */
	const void *data;
	uint64_t bytes;
	uint32_t storage; /* index of the first entry with the same bytes and type; valid once sealed */
	bool owned;       /* data was allocated by the store */
} knit_weight_entry;

struct knit_weights {
	knit_context *ctx; /* retained */
	atomic_uint refs;
	_Atomic bool sealed;
	knit_weight_entry *entries;
	uint32_t *table; /* name -> index + 1, open addressing */
	uint32_t count, cap, table_cap;
	/* Keeps the bytes alive: a mapping, given back by `unmap` when the last reference goes. */
	void *mapping;
	uint64_t mapping_bytes;
	void (*unmap)(void *mapping, uint64_t bytes);
	/* Gives memory of the mapping back to the system until it is read again; NULL where it would be lost. */
	void (*forget)(const void *data, uint64_t bytes);
	char *path; /* for messages; NULL for a store made in memory */
};

/* Adds a tensor whose bytes stay valid as long as the store (they lie in its mapping, or are static).
 * ARGUMENT for a bad type, rank or dim or a second tensor of the same name, SHAPE for a wrong size, MEMORY. */
knit_status knit__weights_add_mapped(knit_weights *store, const char *name, knit_dtype dtype, int rank,
                                     const int64_t *dims, const void *data, uint64_t bytes, knit_diag *d);
/* Hands a mapping over to the store (only once). */
void knit__weights_own_mapping(knit_weights *store, void *mapping, uint64_t bytes, void (*unmap)(void *, uint64_t));
/* Whether bytes of the store can be given back and be read again. */
static inline bool knit__weights_forgettable(const knit_weights *store, const void *data) {
	const char *const begin = store->mapping, *const at = data;

	return store->forget && begin && at >= begin && at < begin + store->mapping_bytes;
}
knit_status knit__weights_set_path(knit_weights *store, const char *path);
/* Finds tensors with equal bytes and freezes the store. Called by the first use; safe from several threads. */
knit_status knit__weights_seal(knit_weights *store);
knit_weights *knit__weights_retain(knit_weights *store);
/* NULL if there is none. */
const knit_weight_entry *knit__weights_get(const knit_weights *store, const char *name);
/* Bytes of distinct storages, and the sum over all names. */
void knit__weights_bytes(const knit_weights *store, uint64_t *unique, uint64_t *named);

#endif
