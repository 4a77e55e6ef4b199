/* Owns the weight store: adding, finding by name, finding twins, giving back. Knows no file format. */
#include "weights.h"

#include <stdlib.h>
#include <string.h>

#define TWIN_PREFIX_BYTES 256 /* enough to tell real tensors apart while touching one page of each */

knit_status knit_weights_create(knit_context *ctx, knit_weights **out) {
	if (!out)
		return KNIT_ERR_ARGUMENT;
	*out = NULL;
	if (!ctx)
		return KNIT_ERR_ARGUMENT;

	knit_weights *store = knit__alloc_zero(&ctx->a, sizeof *store);
	if (!store)
		return KNIT_ERR_MEMORY;
	store->ctx = knit__context_retain(ctx);
	atomic_init(&store->refs, 1);
	atomic_init(&store->sealed, false);
	*out = store;
	return KNIT_OK;
}

knit_weights *knit__weights_retain(knit_weights *store) {
	atomic_fetch_add_explicit(&store->refs, 1, memory_order_relaxed);
	return store;
}

void knit_weights_release(knit_weights *store) {
	if (!store || atomic_fetch_sub_explicit(&store->refs, 1, memory_order_acq_rel) != 1)
		return;

	knit_context *ctx = store->ctx;
	for (uint32_t i = 0; i < store->count; ++i) {
		knit_weight_entry *w = &store->entries[i];

		knit__free(&ctx->a, w->name, strlen(w->name) + 1);
		if (w->owned)
			knit__free(&ctx->a, (void *)(uintptr_t)w->data, w->bytes);
	}
	knit__free(&ctx->a, store->entries, store->cap * sizeof *store->entries);
	knit__free(&ctx->a, store->table, store->table_cap * sizeof *store->table);
	if (store->path)
		knit__free(&ctx->a, store->path, strlen(store->path) + 1);
	if (store->mapping && store->unmap)
		store->unmap(store->mapping, store->mapping_bytes);
	knit__free(&ctx->a, store, sizeof *store);
	knit__context_release(ctx);
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static uint32_t *slot(const knit_weights *store, const char *name) {
	uint32_t i = (uint32_t)knit__hash(KNIT__HASH_SEED, name, strlen(name)) & (store->table_cap - 1);

	while (store->table[i] && strcmp(store->entries[store->table[i] - 1].name, name) != 0)
		i = (i + 1) & (store->table_cap - 1);
	return &store->table[i];
}

static bool make_room(knit_weights *store) {
	const knit_allocator *a = &store->ctx->a;

	if (!knit__grow(a, (void **)&store->entries, &store->cap, store->count + 1, sizeof *store->entries))
		return false;
	if ((store->count + 1) * 2 <= store->table_cap)
		return true;

	const uint32_t old_cap = store->table_cap, cap = old_cap ? old_cap * 2 : 64;
	uint32_t *old = store->table, *table = knit__alloc_array(a, cap, sizeof *table);
	if (!table)
		return false;
	store->table = table;
	store->table_cap = cap;
	for (uint32_t i = 0; i < store->count; ++i)
		*slot(store, store->entries[i].name) = i + 1;
	knit__free(a, old, old_cap * sizeof *old);
	return true;
}

const knit_weight_entry *knit__weights_get(const knit_weights *store, const char *name) {
	const uint32_t found = store->table_cap ? *slot(store, name) : 0;

	return found ? &store->entries[found - 1] : NULL;
}

/* ---- adding ------------------------------------------------------------------------------------------------------ */

static knit_status check(const knit_weights *store, const char *name, knit_dtype dtype, int rank, const int64_t *dims,
                         uint64_t bytes, knit_diag *d) {
	const knit_dtype_info *info = knit__dtype_info(dtype);
	uint64_t elements = 1, needed;

	if (atomic_load(&store->sealed))
		return knit__fail(d, KNIT_ERR_STATE, 0, "tensor \"%s\": the store is in use and cannot change", name);
	if (!info)
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "tensor \"%s\": unknown element type %d", name, (int)dtype);
	if (rank < 1 || rank > KNIT_MAX_RANK)
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "tensor \"%s\": rank %d, needs 1 to %d", name, rank, KNIT_MAX_RANK);
	for (int i = 0; i < rank; ++i)
		if (dims[i] < 0 || !knit__mul_u64(elements, (uint64_t)dims[i], &elements))
			return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "tensor \"%s\": dimension %d is %lld", name, i,
			                  (long long)dims[i]);
	if (dims[rank - 1] % info->block_elements != 0)
		return knit__fail(d, KNIT_ERR_SHAPE, 0, "tensor \"%s\": rows of %lld elements, %s needs a multiple of %u", name,
		                  (long long)dims[rank - 1], info->name, info->block_elements);
	if (!knit__dtype_bytes(dtype, elements, &needed) || needed != bytes)
		return knit__fail(d, KNIT_ERR_SHAPE, 0, "tensor \"%s\": %llu bytes given, its type and shape need %llu", name,
		                  (unsigned long long)bytes, (unsigned long long)needed);
	if (knit__weights_get(store, name))
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "tensor \"%s\": there is one of that name already", name);
	return KNIT_OK;
}

static knit_status add(knit_weights *store, const char *name, knit_dtype dtype, int rank, const int64_t *dims,
                       const void *data, uint64_t bytes, bool copy, knit_diag *d) {
	const knit_allocator *a = &store->ctx->a;
	const knit_status status = check(store, name, dtype, rank, dims, bytes, d);
	knit_weight_entry w = {.dtype = dtype, .rank = rank, .data = data, .bytes = bytes, .owned = copy};

	if (status != KNIT_OK)
		return status;
	if (!make_room(store))
		return knit__fail_memory(d, "the weight table", sizeof w);
	w.name = knit__alloc(a, strlen(name) + 1);
	if (!w.name)
		return knit__fail_memory(d, "a tensor name", strlen(name) + 1);
	strcpy(w.name, name);
	if (copy) {
		void *own = knit__alloc(a, bytes);
		if (!own) {
			knit__free(a, w.name, strlen(name) + 1);
			return knit__fail_memory(d, name, bytes);
		}
		if (bytes)
			memcpy(own, data, bytes);
		w.data = own;
	}
	memcpy(w.dims, dims, (size_t)rank * sizeof *dims);
	w.storage = store->count;
	store->entries[store->count] = w;
	*slot(store, w.name) = store->count + 1;
	store->count++;
	return KNIT_OK;
}

knit_status knit_weights_add(knit_weights *store, const char *name, knit_dtype dtype, int rank, const int64_t *dims,
                             const void *data, size_t bytes, knit_diag *diag) {
	if (diag)
		*diag = (knit_diag){0};
	if (!store || !name || !*name || !dims || (!data && bytes))
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "weights_add needs a store, a name, dims and data");
	return add(store, name, dtype, rank, dims, data, bytes, true, diag);
}

knit_status knit__weights_add_mapped(knit_weights *store, const char *name, knit_dtype dtype, int rank,
                                     const int64_t *dims, const void *data, uint64_t bytes, knit_diag *d) {
	return add(store, name, dtype, rank, dims, data, bytes, false, d);
}

void knit__weights_own_mapping(knit_weights *store, void *mapping, uint64_t bytes, void (*unmap)(void *, uint64_t)) {
	store->mapping = mapping;
	store->mapping_bytes = bytes;
	store->unmap = unmap;
}

knit_status knit__weights_set_path(knit_weights *store, const char *path) {
	char *copy = knit__alloc(&store->ctx->a, strlen(path) + 1);

	if (!copy)
		return KNIT_ERR_MEMORY;
	strcpy(copy, path);
	if (store->path)
		knit__free(&store->ctx->a, store->path, strlen(store->path) + 1);
	store->path = copy;
	return KNIT_OK;
}

/* ---- twins ------------------------------------------------------------------------------------------------------- */

typedef struct twin_key { uint64_t hash, bytes; knit_dtype dtype; uint32_t index; } twin_key;

static int compare_keys(const void *x, const void *y) {
	const twin_key *a = x, *b = y;

	if (a->bytes != b->bytes)
		return a->bytes < b->bytes ? -1 : 1;
	if (a->hash != b->hash)
		return a->hash < b->hash ? -1 : 1;
	if (a->dtype != b->dtype)
		return a->dtype < b->dtype ? -1 : 1;
	return a->index < b->index ? -1 : a->index > b->index;
}

static bool twins(const knit_weight_entry *a, const knit_weight_entry *b) {
	return a->data == b->data || memcmp(a->data, b->data, a->bytes) == 0;
}

/* Among the keys [begin, end), which agree in size, type and prefix, each entry joins the first with its bytes. */
static void join(knit_weights *store, const twin_key *keys, uint32_t begin, uint32_t end) {
	for (uint32_t i = begin; i < end; ++i) {
		knit_weight_entry *w = &store->entries[keys[i].index];

		for (uint32_t j = begin; j < i; ++j) {
			const knit_weight_entry *first = &store->entries[keys[j].index];

			if (first->storage == keys[j].index && twins(first, w)) {
				w->storage = keys[j].index;
				break;
			}
		}
	}
}

static knit_status find_twins(knit_weights *store) {
	const knit_allocator *a = &store->ctx->a;
	twin_key *keys = knit__alloc_array(a, store->count, sizeof *keys);

	if (!keys)
		return KNIT_ERR_MEMORY;
	for (uint32_t i = 0; i < store->count; ++i) {
		const knit_weight_entry *w = &store->entries[i];
		const size_t prefix = w->bytes < TWIN_PREFIX_BYTES ? w->bytes : TWIN_PREFIX_BYTES;

		keys[i] = (twin_key){knit__hash(KNIT__HASH_SEED, w->data, prefix), w->bytes, w->dtype, i};
	}
	qsort(keys, store->count, sizeof *keys, compare_keys);
	for (uint32_t begin = 0, end; begin < store->count; begin = end) {
		for (end = begin + 1; end < store->count && keys[end].hash == keys[begin].hash &&
		                      keys[end].bytes == keys[begin].bytes && keys[end].dtype == keys[begin].dtype;
		     ++end)
			;
		join(store, keys, begin, end);
	}
	knit__free(a, keys, store->count * sizeof *keys);
	return KNIT_OK;
}

knit_status knit__weights_seal(knit_weights *store) {
	knit_status status = KNIT_OK;

	if (atomic_load_explicit(&store->sealed, memory_order_acquire))
		return KNIT_OK;
	knit__context_lock(store->ctx);
	if (!atomic_load_explicit(&store->sealed, memory_order_relaxed)) {
		status = find_twins(store);
		if (status == KNIT_OK)
			atomic_store_explicit(&store->sealed, true, memory_order_release);
	}
	knit__context_unlock(store->ctx);
	return status;
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

size_t knit_weights_count(const knit_weights *store) { return store ? store->count : 0; }

knit_status knit_weights_at(const knit_weights *store, size_t index, knit_weight_info *out) {
	if (!store || !out)
		return KNIT_ERR_ARGUMENT;
	if (index >= store->count)
		return KNIT_ERR_NOT_FOUND;

	const knit_weight_entry *w = &store->entries[index];
	*out = (knit_weight_info){w->name, w->dtype, w->rank, {0}, w->data, w->bytes, w->storage};
	memcpy(out->dims, w->dims, sizeof out->dims);
	return KNIT_OK;
}

knit_status knit_weights_find(const knit_weights *store, const char *name, knit_weight_info *out) {
	if (!store || !name || !out)
		return KNIT_ERR_ARGUMENT;
	const knit_weight_entry *w = knit__weights_get(store, name);
	return w ? knit_weights_at(store, (size_t)(w - store->entries), out) : KNIT_ERR_NOT_FOUND;
}

void knit__weights_bytes(const knit_weights *store, uint64_t *unique, uint64_t *named) {
	*unique = *named = 0;
	for (uint32_t i = 0; i < store->count; ++i) {
		*named += store->entries[i].bytes;
		if (store->entries[i].storage == i)
			*unique += store->entries[i].bytes;
	}
}
