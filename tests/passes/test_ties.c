/* No pass loses a tie: on a looped decoder with a tied head and LoRA per visit, the weights that steps use are the same
 * storages over the same bytes before and after each pass, alone and in the order in which they run, for every device. */
#include "../../backends/device.h"
#include "../../graph/pass.h"
#include "../tools/suite.h"
#include "../tools/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOOPS = 3 };

/* What the nodes of a graph use of one kind of weight. */
typedef struct ties {
	uint32_t storages, places, uses; /* places: distinct host bytes */
	uint64_t bytes;                  /* of the places */
} ties;

static ties ties_of(const knit_graph *g, knit_storage_kind kind) {
	bool *used = calloc(g->storage_count, sizeof *used);
	ties t = {0};

	ck_assert_ptr_nonnull(used);
	for (uint32_t i = 0; i < g->order_count; ++i) {
		const knit_node *n = &g->nodes[g->order[i]];
		for (uint32_t k = 0; k < n->in_count; ++k) {
			const uint32_t s = n->in[k] ? g->values[n->in[k]].storage : 0;
			if (!s || g->storages[s].kind != kind)
				continue;
			++t.uses;
			t.storages += !used[s];
			used[s] = true;
		}
	}
	for (uint32_t s = 1; s < g->storage_count; ++s) {
		bool first = used[s];
		for (uint32_t other = 1; other < s && first; ++other)
			first = !used[other] || g->storages[other].host != g->storages[s].host;
		if (!first)
			continue;
		++t.places;
		t.bytes += g->storages[s].max_bytes;
	}
	free(used);
	return t;
}

static void check_equal(const ties *before, const ties *after, const char *pass, const char *what) {
	ck_assert_msg(after->storages == before->storages, "%s: %u %s storages, before %u", pass, after->storages, what,
				  before->storages);
	ck_assert_msg(after->places == before->places && after->bytes == before->bytes,
				  "%s: %u places with %llu bytes of %s, before %u with %llu", pass, after->places,
				  (unsigned long long)after->bytes, what, before->places, (unsigned long long)before->bytes);
}

static knit_graph *decoder(void) {
	static knit__decoder_config c;
	knit_graph *g = NULL;
	knit_diag diag = {0};

	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_u32("knit.loops", LOOPS);
	tiny_u32("knit.lora.rank", RANK);
	tiny_tensors(NULL, LAYERS, NULL);
	tiny_lora(LAYERS * LOOPS, NULL, RANK, 0.4f);
	ck_assert_msg(knit__decoder_config_read(&tiny.keys, tiny.store, &c, &diag) == KNIT_OK, "%s", diag.text);
	ck_assert(c.tied && c.visit_count == LAYERS * LOOPS);
	const knit__decoder_desc desc = {.config = &c, .base = tiny.store, .adapters = tiny.store, .max_tokens = 8};
	ck_assert_msg(knit__decoder_graph(tiny.ctx, &desc, &g, &diag) == KNIT_OK, "%s", diag.text);
	return g;
}

static void run_pass(knit_graph *g, const knit_target *target, const knit_pass *pass) {
	uint32_t changes = 0;
	knit_diag d = {0};

	ck_assert_msg(pass->run(g, target, &changes, &d) == KNIT_OK, "%s: %s", pass->name, d.text);
	ck_assert_int_eq(knit__graph_compact(g), KNIT_OK);
}

static knit_graph *cloned(const knit_graph *g) {
	knit_graph *copy = NULL;

	ck_assert_int_eq(knit__graph_clone(g, &copy, NULL), KNIT_OK);
	return copy;
}

START_TEST(passes_keep_ties) {
	static const char *const devices[] = {"cpu", "null"};
	knit_graph *g = decoder();
	const ties base = ties_of(g, KNIT_STORAGE_CONST), lora = ties_of(g, KNIT_STORAGE_ADAPTER);

	/* Nine of each layer, the embedding, which is the head, and the last norm. */
	ck_assert_uint_eq(base.storages, LAYERS * 9 + 2);
	ck_assert_uint_eq(base.places, base.storages);
	ck_assert_uint_eq(base.uses, LAYERS * LOOPS * 9 + 3);
	ck_assert_uint_eq(lora.storages, LAYERS * LOOPS * 14);
	for (size_t i = 0; i < sizeof devices / sizeof *devices; ++i) {
		knit_opened *device = NULL;
		ck_assert_int_eq(knit__device_open(tiny.ctx, devices[i], &device, NULL), KNIT_OK);
		knit_graph *chain = cloned(g);
		for (size_t p = 0; knit__pass_at(p); ++p) {
			const knit_pass *pass = knit__pass_at(p);
			knit_graph *alone = cloned(g);
			run_pass(alone, &device->target, pass);
			run_pass(chain, &device->target, pass);
			for (int k = 0; k < 2; ++k) {
				const knit_graph *result = k ? chain : alone;
				const ties b = ties_of(result, KNIT_STORAGE_CONST), l = ties_of(result, KNIT_STORAGE_ADAPTER);
				check_equal(&base, &b, pass->name, "base");
				check_equal(&lora, &l, pass->name, "LoRA");
				/* Fusing changes what uses a weight, never how often. */
				ck_assert_msg(b.uses == base.uses, "%s: %u uses, before %u", pass->name, b.uses, base.uses);
			}
			knit_graph_destroy(alone);
		}
		knit_graph_destroy(chain);
	}
	knit_graph_destroy(g);
	tiny_close();
}
END_TEST

/* With each pass switched off the compiled program reports the same bytes. */
START_TEST(reports_keep_ties) {
	static const char *const devices[] = {"cpu", "null"};
	knit_graph *g = decoder();
	const ties base = ties_of(g, KNIT_STORAGE_CONST), lora = ties_of(g, KNIT_STORAGE_ADAPTER);

	for (size_t i = 0; i < sizeof devices / sizeof *devices; ++i)
		for (size_t p = 0; p == 0 || knit__pass_at(p - 1); ++p) {
			const knit_pass *off = p ? knit__pass_at(p - 1) : NULL;
			const knit_compile_desc desc = {.device = devices[i], .disable_passes = off ? off->name : NULL, .plan_only = true};
			knit_program *program = NULL;
			knit_memory m;
			knit_diag d = {0};
			if (off && off->required)
				continue;
			ck_assert_msg(knit_compile(g, &desc, &program, &d) == KNIT_OK, "without %s: %s", desc.disable_passes, d.text);
			ck_assert_int_eq(knit_program_memory(program, &m), KNIT_OK);
			ck_assert_uint_eq(m.weight_bytes, base.bytes);
			ck_assert_uint_eq(m.weight_storages, base.storages);
			ck_assert_uint_eq(m.weight_uses, base.uses);
			ck_assert_uint_eq(m.adapter_bytes, lora.bytes);
			knit_program_release(program);
		}
	knit_graph_destroy(g);
	tiny_close();
}
END_TEST

/* What the tests above look at changes when one visit gets a copy of its weight. */
START_TEST(a_lost_tie_is_seen) {
	static uint8_t copy[4096];
	knit_graph *g = decoder();
	const ties before = ties_of(g, KNIT_STORAGE_CONST);
	uint32_t last = 0, which = 0;

	for (uint32_t i = 0; i < g->order_count; ++i)
		for (uint32_t k = 0; k < g->nodes[g->order[i]].in_count; ++k)
			if (g->nodes[g->order[i]].in[k] &&
				knit__value_storage(g, g->nodes[g->order[i]].in[k])->kind == KNIT_STORAGE_CONST &&
				knit__value(g, g->nodes[g->order[i]].in[k])->rank == 2) {
				last = g->order[i];
				which = k;
			}
	const knit_value v = *knit__value(g, g->nodes[last].in[which]);
	knit_type type = {.dtype = v.dtype, .rank = v.rank};
	uint32_t value = 0;
	memcpy(type.dims, v.dims, sizeof type.dims);
	ck_assert(knit__storage_add(g, KNIT_STORAGE_CONST, "a copy", &type, copy, &value));
	g->nodes[last].in[which] = value;
	const ties after = ties_of(g, KNIT_STORAGE_CONST);
	ck_assert_uint_eq(after.uses, before.uses);
	ck_assert_uint_eq(after.storages, before.storages + 1);
	ck_assert_uint_eq(after.places, before.places + 1);
	ck_assert_uint_gt(after.bytes, before.bytes);
	knit_graph_destroy(g);
	tiny_close();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		passes_keep_ties,
		reports_keep_ties,
		a_lost_tie_is_seen,
	};

	return suite_run("ties", tests, sizeof tests / sizeof *tests);
}
