/* Walks the graph in the order in which it was built. Sizes that follow from the length of the context are left out: the
 * bounds of symbols, the cells of states, the size of a ring. */
#include "identity.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <string.h>

_Static_assert(sizeof(XXH3_state_t) <= sizeof(knit_hasher), "the hasher has room for its state");

/* ---- hashing ----------------------------------------------------------------------------------------------------- */

static XXH3_state_t *state_of(knit_hasher *h) { return (XXH3_state_t *)(void *)h->state; }

void knit__hasher_init(knit_hasher *h) {
	memset(h, 0, sizeof *h); /* XXH3 asks for it */
	XXH3_128bits_reset(state_of(h));
}

void knit__hasher_add(knit_hasher *h, const void *data, size_t bytes) {
	if (bytes)
		XXH3_128bits_update(state_of(h), data, bytes);
}

knit_digest knit__hasher_digest(const knit_hasher *h) {
	const XXH128_hash_t x = XXH3_128bits_digest((const XXH3_state_t *)(const void *)h->state);

	return (knit_digest){x.low64, x.high64};
}

static void add_u64(knit_hasher *h, uint64_t n) { knit__hasher_add(h, &n, sizeof n); }

static void add_text(knit_hasher *h, const char *text) {
	add_u64(h, strlen(text));
	knit__hasher_add(h, text, strlen(text));
}

/* ---- structure --------------------------------------------------------------------------------------------------- */

typedef struct walk {
	const knit_graph *g;
	knit_identity *id;
	knit_hasher h;
	uint32_t *number; /* storage -> 1 + place in id->weights; node -> 1 + place in the order, behind the storages */
} walk;

static bool is_weight(knit_storage_kind kind) { return kind == KNIT_STORAGE_CONST || kind == KNIT_STORAGE_ADAPTER; }

/* The number of a weight, which may be new. 0 when out of memory. */
static uint32_t weight_number(walk *w, uint32_t storage) {
	const knit_storage *s = &w->g->storages[storage];
	knit_identity *id = w->id;

	if (w->number[storage])
		return w->number[storage];
	if (!knit__grow(w->g->a, (void **)&id->weights, &id->cap, id->count + 1, sizeof *id->weights))
		return 0;
	id->weights[id->count++] = (knit_identity_weight){s->host, s->max_bytes, s->name, s->kind};

	const knit_value *v = &w->g->values[s->value];
	add_u64(&w->h, ((uint64_t)s->kind << 32) | (uint64_t)s->dtype);
	for (int i = 0; i < v->rank; ++i)
		add_u64(&w->h, (uint64_t)v->dims[i].v);
	return w->number[storage] = id->count;
}

/* Numbers as they are; sizes that symbols make only as such. */
static void add_dim(walk *w, knit_dim d) { add_u64(&w->h, d.v >= 0 ? (uint64_t)d.v : UINT64_MAX); }

static bool add_operand(walk *w, uint32_t value) {
	const knit_value *v = &w->g->values[value];
	const knit_storage *s = &w->g->storages[v->storage];
	const uint32_t producer = knit__value_producer(w->g, value), root = knit__value_root(w->g, value);

	add_u64(&w->h, (uint64_t)s->kind);
	if (is_weight(s->kind)) {
		const uint32_t number = weight_number(w, v->storage);
		if (!number)
			return false;
		add_u64(&w->h, number);
	} else if (s->kind == KNIT_STORAGE_STATE) {
		add_text(&w->h, knit__strings_get(&w->g->strings, s->name));
		add_u64(&w->h, v->version);
		return true; /* windows on it follow from the length of the context */
	} else if (producer) {
		uint32_t out = 0;
		while (w->g->nodes[producer].out[out] != root)
			++out;
		add_u64(&w->h, w->number[w->g->storage_count + producer]);
		add_u64(&w->h, out);
	} else {
		add_text(&w->h, knit__strings_get(&w->g->strings, s->name));
	}
	for (int i = 0; v->view_of && i < v->rank; ++i) {
		add_dim(w, v->dims[i]);
		add_dim(w, v->strides[i]);
	}
	if (v->view_of)
		add_dim(w, v->offset);
	return true;
}

/* The size of a ring is the context's; so are sinks where they only say how a ring is laid out. */
static bool is_layout(const knit_op_def *def, uint32_t attr) {
	return def->ring_attr && (attr + 1 == def->ring_attr || (attr + 1 == def->sinks_attr && !def->window_attr));
}

static bool add_node(walk *w, uint32_t node) {
	const knit_node *n = &w->g->nodes[node];
	const knit_op_def *def = knit__op(n->op);

	add_text(&w->h, def->name);
	for (uint32_t i = 0; i < def->attr_count; ++i)
		if (!is_layout(def, i))
			add_u64(&w->h, (uint64_t)n->attr[i].i); /* the bits, whichever member it is */
	for (uint32_t i = 0; i < n->in_count; ++i) {
		add_u64(&w->h, n->in[i] != 0);
		if (n->in[i] && !add_operand(w, n->in[i]))
			return false;
	}
	return true;
}

knit_status knit__identity_make(const knit_graph *g, knit_identity *out, knit_diag *d) {
	const size_t numbers = (size_t)g->storage_count + g->node_count;
	walk w = {.g = g, .id = out, .number = knit__alloc_array(g->a, numbers, sizeof *w.number)};
	bool ok = w.number != NULL;

	*out = (knit_identity){0};
	knit__hasher_init(&w.h);
	for (uint32_t i = 0; ok && i < g->order_count; ++i) {
		w.number[g->storage_count + g->order[i]] = i + 1;
		ok = add_node(&w, g->order[i]);
	}
	knit__free(g->a, w.number, numbers * sizeof *w.number);
	if (!ok) {
		knit__identity_clear(out, g->a);
		return knit__fail_memory(d, "the identity of a program", numbers * sizeof *w.number);
	}
	out->structure = knit__hasher_digest(&w.h).low;
	return KNIT_OK;
}

void knit__identity_clear(knit_identity *id, const knit_allocator *a) {
	knit__free(a, id->weights, id->cap * sizeof *id->weights);
	*id = (knit_identity){0};
}
