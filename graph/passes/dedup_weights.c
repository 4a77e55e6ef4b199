/* Makes one storage of base weights with equal bytes, also across stores, so that a lost tie is found again. Adapter
 * weights go by their names and stay apart: a session may bind other bytes to each. Weights without bytes (parsed
 * graphs) are left alone. */
#include "../pass.h"

#include <string.h>

#define PREFIX_BYTES 4096 /* hashed; whole weights are compared only where size, type and prefix agree */

typedef struct bucket { uint64_t hash; uint32_t storage; } bucket;

static bool joinable(const knit_storage *s) {
	return s->kind == KNIT_STORAGE_CONST && s->host && s->max_bytes;
}

static uint64_t hash_of(const knit_storage *s) {
	const uint64_t key[] = {s->kind, s->dtype, s->max_bytes};
	const size_t prefix = s->max_bytes < PREFIX_BYTES ? (size_t)s->max_bytes : PREFIX_BYTES;

	return knit__hash(knit__hash(KNIT__HASH_SEED, key, sizeof key), s->host, prefix);
}

static bool equal(const knit_storage *a, const knit_storage *b) {
	return a->kind == b->kind && a->dtype == b->dtype && a->max_bytes == b->max_bytes &&
	       (a->host == b->host || memcmp(a->host, b->host, (size_t)a->max_bytes) == 0);
}

/* `from` under its own shape as a value on the storage of `to`. 0 on failure, with g->diag set. */
static uint32_t value_on(knit_graph *g, uint32_t from, uint32_t to) {
	const knit_value v = g->values[from];
	bool same = v.rank == g->values[to].rank;

	for (int i = 0; same && i < v.rank; ++i)
		same = knit__dim_equal(v.dims[i], g->values[to].dims[i]);
	return same ? to : knit__view_add(g, to, v.rank, v.dims, v.strides, v.offset);
}

/* Moves every value of storage `from` to storage `to`; true if there were uses to move. */
static bool join(knit_graph *g, uint32_t from, uint32_t to) {
	const uint32_t old = g->storages[from].value;
	const uint32_t whole = value_on(g, old, g->storages[to].value);

	return whole && knit__replace_uses(g, old, whole);
}

/* Whether anything still names storage `id`: after joining, its values stay behind unused until compaction. */
static void mark_used(const knit_graph *g, bool *used) {
	for (uint32_t i = 0; i < g->order_count; ++i) {
		const knit_node *n = &g->nodes[g->order[i]];

		for (int k = 0; k < n->in_count; ++k)
			used[g->values[n->in[k]].storage] = true;
	}
	for (uint32_t i = 0; i < g->output_count; ++i)
		used[g->values[g->outputs[i].value].storage] = true;
}

static void join_all(knit_graph *g, const bool *used, bucket *table, uint32_t cap, uint32_t *changes) {
	const uint32_t count = g->storage_count;

	for (uint32_t id = 1; id < count && g->diag.status == KNIT_OK; ++id) {
		const knit_storage *s = &g->storages[id];

		/* What has a layout keeps to itself: the other's uses could not read it. */
		if (!used[id] || !joinable(s) || g->values[s->value].layout)
			continue;
		const uint64_t hash = hash_of(s);
		uint32_t slot = (uint32_t)hash & (cap - 1);
		while (table[slot].storage && (table[slot].hash != hash || !equal(&g->storages[table[slot].storage], s)))
			slot = (slot + 1) & (cap - 1);
		if (!table[slot].storage)
			table[slot] = (bucket){hash, id};
		else if (join(g, id, table[slot].storage))
			++*changes;
	}
}

knit_status knit__pass_dedup_weights(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d) {
	const uint32_t count = g->storage_count;
	uint32_t cap = 16;

	(void)t;
	while (cap / 2 < count)
		cap *= 2;
	bucket *table = knit__alloc_array(g->a, cap, sizeof *table);
	bool *used = knit__alloc_array(g->a, count, sizeof *used);
	if (table && used) {
		mark_used(g, used);
		join_all(g, used, table, cap, changes);
	}
	knit__free(g->a, table, cap * sizeof *table);
	knit__free(g->a, used, count * sizeof *used);
	return table && used ? KNIT_OK : knit__fail_memory(d, "dedup_weights", cap * sizeof *table);
}
