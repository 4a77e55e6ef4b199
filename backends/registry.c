/* Owns the list of backends and the devices that a context has opened. Knows no program. */
#include "cpu/cpu.h"
#include "device.h"
#include "guard.h"
#include "null/null.h"
#include "split/split.h"
#include "vulkan/vulkan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_DEVICES 16 /* looked at per backend */

/* "Best" is the first available one. */
static const knit_backend *const backends[] = {&knit__cpu_backend, &knit__vulkan_backend, &knit__null_backend};

const knit_backend *knit__backend_at(size_t index) {
	return index < sizeof backends / sizeof backends[0] ? backends[index] : NULL;
}

knit_status knit_devices(knit_context *ctx, knit_device_info *out, size_t cap, size_t *count) {
	const knit_backend *b;

	if (!ctx || !count || (cap && !out))
		return KNIT_ERR_ARGUMENT;
	*count = 0;
	for (size_t i = 0; (b = knit__backend_at(i)) != NULL; ++i) {
		const size_t room = *count < cap ? cap - *count : 0;
		size_t n = 0;
		const knit_status status = b->enumerate(&ctx->desc, room ? out + *count : NULL, room, &n);
		if (status != KNIT_OK)
			return status;
		*count += n;
	}
	return KNIT_OK;
}

knit_status knit_device_facts(knit_context *ctx, const char *id, knit_device_fact *out, size_t cap, size_t *count) {
	const knit_backend *b;

	if (!ctx || !id || !count || (cap && !out))
		return KNIT_ERR_ARGUMENT;
	*count = 0;
	for (size_t i = 0; (b = knit__backend_at(i)) != NULL; ++i) {
		knit_device_info infos[MAX_DEVICES];
		size_t n = 0;
		const knit_status status = b->enumerate(&ctx->desc, infos, MAX_DEVICES, &n);
		if (status != KNIT_OK)
			return status;
		for (uint32_t k = 0; k < n && k < MAX_DEVICES; ++k) {
			if (strcmp(infos[k].id, id) == 0)
				return b->facts && infos[k].available ? b->facts(k, &ctx->desc, out, cap, count) : KNIT_OK;
		}
	}
	return KNIT_ERR_NOT_FOUND;
}

/* ---- what a context shares --------------------------------------------------------------------------------------- */

typedef struct shared {
	pthread_mutex_t lock;
	knit_opened *first;
} shared;

static void opened_close(knit_opened *o) {
	const knit_allocator *const a = &o->ctx->a;

	/* Programs release their weights and retain the context, so nothing is left here unless a program leaked. */
	for (uint32_t i = 0; i < o->weight_count; ++i) {
		o->backend->buffer_destroy(o->dev, o->weights[i]->buffer);
		knit__free(a, o->weights[i], sizeof *o->weights[i]);
	}
	knit__free(a, o->weights, (size_t)o->weight_cap * sizeof *o->weights);
	o->backend->close(o->dev);
	pthread_mutex_destroy(&o->lock);
	knit__free(a, o, sizeof *o);
}

static void shared_close(knit_context *ctx, void *p) {
	shared *const s = p;

	while (s->first) {
		knit_opened *const o = s->first;
		s->first = o->next;
		opened_close(o);
	}
	pthread_mutex_destroy(&s->lock);
	knit__free(&ctx->a, s, sizeof *s);
}

static shared *shared_get(knit_context *ctx) {
	knit__context_lock(ctx);
	shared *s = atomic_load(&ctx->shared);
	if (!s) {
		s = knit__alloc_zero(&ctx->a, sizeof *s);
		if (s) {
			pthread_mutex_init(&s->lock, NULL);
			ctx->shared_close = shared_close;
			atomic_store(&ctx->shared, s);
		}
	}
	knit__context_unlock(ctx);
	return s;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static knit_kernel target_select(const void *device, const knit_node_view *node) {
	const knit_opened *const o = device;

	return o->backend->select(o->dev, node);
}

static uint64_t target_scratch(const void *device, knit_kernel kernel, const knit_node_view *node) {
	const knit_opened *const o = device;

	return o->backend->scratch(o->dev, kernel, node);
}

static uint8_t target_weight_layout(const void *device, const knit_shape *weight, const knit_weight_use *uses,
                                    uint32_t count) {
	const knit_opened *const o = device;

	return o->backend->weight_layout(o->dev, weight, uses, count);
}

static uint64_t target_packed_bytes(const void *device, uint8_t layout, const knit_shape *weight) {
	const knit_opened *const o = device;

	return o->backend->packed_bytes(o->dev, layout, weight);
}

static bool guard_wanted(void) {
	const char *const text = getenv("KNIT_GUARD");

	if (text && *text)
		return strcmp(text, "0") != 0;
#ifdef NDEBUG
	return false;
#else
	return true;
#endif
}

/* What a device of a context is known by. */
typedef struct device_key {
	const knit_backend *backend, *far; /* far NULL: one device */
	uint32_t index, far_index;
	uint64_t memory; /* of a split */
} device_key;

static void device_name(knit_context *ctx, const knit_backend *b, uint32_t index, char out[32]) {
	knit_device_info infos[MAX_DEVICES] = {0};
	size_t count = 0;

	if (b->enumerate(&ctx->desc, infos, MAX_DEVICES, &count) == KNIT_OK && index < count && index < MAX_DEVICES)
		memcpy(out, infos[index].id, sizeof infos[index].id);
	else
		snprintf(out, 32, "%s", b->name);
}

static knit_status open_split(knit_opened *o, const device_key *key, knit_diag *d) {
	const knit_context_desc *const host = &o->ctx->desc;
	const knit_split_desc desc = {.backend = {key->backend, key->far},
	                              .index = {key->index, key->far_index},
	                              .guarded = guard_wanted(),
	                              .budget = key->memory};
	knit_device *dev = NULL;

	const knit_status status = knit__split_open(&desc, host, &dev, &o->memory_budget, d);
	if (status != KNIT_OK)
		return status;
	o->dev = dev;
	return guard_wanted() ? knit__guard_wrap(&knit__split_backend, dev, host, &o->dev, d) : KNIT_OK;
}

static knit_status open_device(knit_opened *o, const device_key *key, knit_diag *d) {
	const knit_backend *const table = key->far ? &knit__split_backend : key->backend;
	const knit_context_desc *const host = &o->ctx->desc;

	o->backend = guard_wanted() ? &knit__guard_backend : table;
	if (key->far)
		return open_split(o, key, d);
	return guard_wanted() ? knit__guard_open(key->backend, key->index, host, &o->dev, d)
	                      : key->backend->open(key->index, host, &o->dev, d);
}

static knit_status open_new(knit_context *ctx, const device_key *key, knit_opened **out, knit_diag *d) {
	const knit_backend *const backend = key->backend;

	if (backend->abi != KNIT_BACKEND_ABI)
		return knit__fail(d, KNIT_ERR_INTERNAL, 0, "backend %s was built for interface %u, this is %u", backend->name,
		                  backend->abi, KNIT_BACKEND_ABI);
	if (!backend->weight_layout != !backend->pack || !backend->pack != !backend->packed_bytes)
		return knit__fail(d, KNIT_ERR_INTERNAL, 0, "backend %s has some of weight_layout, packed_bytes and pack, not all",
		                  backend->name);
	knit_opened *const o = knit__alloc_zero(&ctx->a, sizeof *o);
	if (!o)
		return knit__fail_memory(d, "a device", sizeof *o);
	o->ctx = ctx;
	o->identity = backend;
	o->index = key->index;
	o->far = key->far;
	o->far_index = key->far_index;
	o->memory_asked = key->memory;

	const knit_status status = open_device(o, key, d);
	if (status != KNIT_OK) {
		knit__free(&ctx->a, o, sizeof *o);
		return knit__fail(d, status, 0, "device %s:%u did not open: %s", backend->name, key->index,
		                  knit_status_name(status));
	}
	char near_id[32], far_id[32] = "";
	device_name(ctx, backend, key->index, near_id);
	if (key->far)
		device_name(ctx, key->far, key->far_index, far_id);
	snprintf(o->id, sizeof o->id, "%s%s%s", near_id, key->far ? "+" : "", far_id);
	const knit_caps *const caps = o->backend->caps(o->dev);
	o->target = (knit_target){.device = o,
	                          .select = target_select,
	                          .scratch = target_scratch,
	                          .buffer_align = caps->buffer_align,
	                          .max_buffer = caps->max_buffer,
	                          .max_binding_range = caps->max_binding_range};
	if (backend->weight_layout && !key->far) {
		o->target.weight_layout = target_weight_layout;
		o->target.packed_bytes = target_packed_bytes;
	}
	pthread_mutex_init(&o->lock, NULL);
	*out = o;
	return KNIT_OK;
}

static bool is_lost(const knit_opened *o) { return o->backend->lost && o->backend->lost(o->dev); }

static bool is_key(const knit_opened *o, const device_key *key) {
	return o->identity == key->backend && o->index == key->index && o->far == key->far &&
	       o->far_index == key->far_index && o->memory_asked == key->memory;
}

static knit_status open_key(knit_context *ctx, const device_key *key, knit_opened **out, knit_diag *d) {
	*out = NULL;
	shared *const s = shared_get(ctx);
	if (!s)
		return knit__fail_memory(d, "the device list", sizeof *s);

	knit_status status = KNIT_OK;
	pthread_mutex_lock(&s->lock);
	knit_opened *o = s->first;
	while (o && (!is_key(o, key) || is_lost(o)))
		o = o->next;
	if (!o) {
		status = open_new(ctx, key, &o, d);
		if (status == KNIT_OK) {
			o->next = s->first;
			s->first = o;
		}
	}
	pthread_mutex_unlock(&s->lock);
	*out = o;
	return status;
}

knit_status knit__device_open_backend(knit_context *ctx, const knit_backend *backend, uint32_t index,
                                      knit_opened **out, knit_diag *d) {
	const device_key key = {.backend = backend, .index = index};

	return open_key(ctx, &key, out, d);
}

void knit__device_use(knit_opened *o) {
	shared *const s = atomic_load(&o->ctx->shared);

	pthread_mutex_lock(&s->lock);
	++o->users;
	pthread_mutex_unlock(&s->lock);
}

void knit__device_leave(knit_opened *o) {
	shared *const s = atomic_load(&o->ctx->shared);
	bool gone = false;

	pthread_mutex_lock(&s->lock);
	gone = --o->users == 0 && is_lost(o);
	if (gone) {
		knit_opened **link = &s->first;
		while (*link != o)
			link = &(*link)->next;
		*link = o->next;
	}
	pthread_mutex_unlock(&s->lock);
	if (gone)
		opened_close(o);
}

const char *knit__device_room_text(const knit_opened *o, char *out, size_t size) {
	uint64_t left = 0, all = 0;

	out[0] = '\0';
	if (o->backend->room)
		o->backend->room(o->dev, &left, &all);
	if (all)
		snprintf(out, size, " (%.1f of %.1f MiB are free)", (double)left / 1048576.0, (double)all / 1048576.0);
	return out;
}

const char *knit__device_split_hint(const knit_opened *o) {
	return o->far || o->backend->caps(o->dev)->unified_memory ? "" : "; device \"vulkan+cpu\" splits";
}

static knit_status fail_not_found(knit_context *ctx, const char *id, knit_diag *d) {
	knit_device_info infos[MAX_DEVICES];
	char known[144] = "";
	size_t used = 0, n = 0;

	if (knit_devices(ctx, infos, MAX_DEVICES, &n) == KNIT_OK) {
		for (size_t i = 0; i < n && i < MAX_DEVICES && used < sizeof known; ++i)
			used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", infos[i].id);
	}
	return knit__fail(d, KNIT_ERR_NOT_FOUND, 0, "no device \"%.32s\": use one of %s, or two joined by +", id, known);
}

/* Whether part occurs in name, in whatever case. */
static bool name_has(const char *name, const char *part) {
	const size_t n = strlen(part);

	for (; *name; ++name) {
		if (strncasecmp(name, part, n) == 0)
			return true;
	}
	return false;
}

static bool all_digits(const char *text) { return *text && text[strspn(text, "0123456789")] == '\0'; }

/* Device `*index` of this backend for "name", "name:index" or "name:part of the device's name"; false if it is none of
 * them. */
static bool id_matches(knit_context *ctx, const knit_backend *b, const char *id, uint32_t *index) {
	knit_device_info infos[MAX_DEVICES];
	const size_t length = strlen(b->name);
	size_t n = 0;

	*index = 0;
	if (strncmp(id, b->name, length) != 0)
		return false;
	if (id[length] == '\0')
		return true;
	const char *const rest = id + length + 1;
	if (id[length] != ':' || !*rest)
		return false;
	if (all_digits(rest)) {
		*index = strlen(rest) > 4 ? MAX_DEVICES : (uint32_t)strtoul(rest, NULL, 10);
		return *index < MAX_DEVICES;
	}
	if (b->enumerate(&ctx->desc, infos, MAX_DEVICES, &n) != KNIT_OK)
		return false;
	while (*index < n && *index < MAX_DEVICES && !name_has(infos[*index].name, rest))
		++*index;
	return *index < n && *index < MAX_DEVICES;
}

static knit_status open_best(knit_context *ctx, knit_opened **out, knit_diag *d) {
	const knit_backend *b;

	for (size_t i = 0; (b = knit__backend_at(i)) != NULL; ++i) {
		knit_device_info infos[MAX_DEVICES] = {0};
		size_t n = 0;
		if (b->enumerate(&ctx->desc, infos, MAX_DEVICES, &n) != KNIT_OK)
			continue;
		/* null computes nothing: nobody who asks for the best means it. */
		for (uint32_t k = 0; b != &knit__null_backend && k < n && k < MAX_DEVICES; ++k) {
			if (infos[k].available && !infos[k].software)
				return knit__device_open_backend(ctx, b, k, out, d);
			if (!infos[k].available)
				knit__fail(d, KNIT_ERR_NOT_FOUND, 0, "no device is available: %s: %.160s", infos[k].id,
				           infos[k].detail);
		}
	}
	return knit__fail(d, KNIT_ERR_NOT_FOUND, 0, "no device is available");
}

/* The device of an id; NOT_FOUND, without words, for none. */
static knit_status id_find(knit_context *ctx, const char *id, const knit_backend **backend, uint32_t *index, knit_diag *d) {
	const knit_backend *b;

	for (size_t i = 0; (b = knit__backend_at(i)) != NULL; ++i) {
		knit_device_info infos[MAX_DEVICES] = {0};
		size_t n = 0;
		if (!id_matches(ctx, b, id, index) || b->enumerate(&ctx->desc, infos, MAX_DEVICES, &n) != KNIT_OK || *index >= n)
			continue;
		*backend = b;
		if (*index < MAX_DEVICES && !infos[*index].available)
			return knit__fail(d, KNIT_ERR_UNSUPPORTED, 0, "device %s is not available: %.180s", infos[*index].id,
			                  infos[*index].detail);
		return KNIT_OK;
	}
	return KNIT_ERR_NOT_FOUND;
}

/* As id_find, and an id of no device is said in words. */
static knit_status device_find(knit_context *ctx, const char *id, const knit_backend **backend, uint32_t *index, knit_diag *d) {
	const knit_status status = id_find(ctx, id, backend, index, d);

	return status == KNIT_ERR_NOT_FOUND ? fail_not_found(ctx, id, d) : status;
}

knit_status knit_device_tune(knit_context *ctx, const char *id, const knit_tune_desc *desc, knit_tune_result *out,
                             knit_diag *d) {
	static const knit_tune_desc usual;
	const knit_backend *b = NULL;
	uint32_t index;

	if (!ctx || !id || !out)
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "knit_device_tune: an argument is NULL");
	*out = (knit_tune_result){0};
	const knit_status status = device_find(ctx, id, &b, &index, d);
	if (status != KNIT_OK)
		return status;
	if (!b->tune)
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, 0, "device %.40s has nothing to tune", id);
	return b->tune(index, &ctx->desc, desc ? desc : &usual, out, d);
}

knit_status knit__device_peaks(knit_context *ctx, const char *id, knit_device_peaks *out, knit_diag *d) {
	const knit_backend *b = NULL;
	uint32_t index;

	*out = (knit_device_peaks){0};
	const knit_status status = device_find(ctx, id, &b, &index, d);
	if (status != KNIT_OK)
		return status;
	if (!b->peaks)
		return knit__fail(d, KNIT_ERR_UNSUPPORTED, 0, "device %.40s has no loops to measure its peaks with", id);
	return b->peaks(index, &ctx->desc, out, d);
}

/* "vulkan+cpu": the ids of two devices. NOT_FOUND, without words, for anything else. */
static knit_status split_find(knit_context *ctx, const char *id, device_key *key, knit_diag *d) {
	const char *const plus = strchr(id, '+');
	char first[64];

	if (!plus || (size_t)(plus - id) >= sizeof first)
		return KNIT_ERR_NOT_FOUND;
	snprintf(first, sizeof first, "%.*s", (int)(plus - id), id);
	const knit_status status = id_find(ctx, first, &key->backend, &key->index, d);
	return status == KNIT_OK ? id_find(ctx, plus + 1, &key->far, &key->far_index, d) : status;
}

knit_status knit__device_open_within(knit_context *ctx, const char *id, uint64_t memory, knit_opened **out, knit_diag *d) {
	device_key key = {0};
	knit_status status = KNIT_ERR_NOT_FOUND;

	*out = NULL;
	if (id && *id)
		status = id_find(ctx, id, &key.backend, &key.index, d);
	if (status == KNIT_ERR_NOT_FOUND && id && *id) {
		status = split_find(ctx, id, &key, d);
		if (status == KNIT_OK) {
			key.memory = memory;
			return open_key(ctx, &key, out, d);
		}
	}
	if (memory && (status == KNIT_OK || !id || !*id))
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "device memory is what a split may put on its first device: name two, as "
		                                           "in device \"vulkan+cpu\"");
	if (!id || !*id) {
		knit_diag why = {0};
		status = open_best(ctx, out, &why);
		return status == KNIT_OK ? status : knit__fail(d, status, why.node, "%s", why.text);
	}
	if (status == KNIT_ERR_NOT_FOUND)
		return fail_not_found(ctx, id, d);
	return status == KNIT_OK ? open_key(ctx, &key, out, d) : status;
}

knit_status knit__device_open(knit_context *ctx, const char *id, knit_opened **out, knit_diag *d) {
	return knit__device_open_within(ctx, id, 0, out, d);
}
