/* Weights in a layout of the device's: one packed copy for all visits, buckets, programs and sessions; none of adapters;
 * results those of the plain layout; failing allocations. */
#include "../../backends/cpu/cpu.h"
#include "../tools/model_run.h"
#include "../tools/packed_model.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool same_bits(const float *a, const float *b) { return memcmp(a, b, sizeof(float) * PACK_TOKENS * PACK_VOCAB) == 0; }

static double largest(const float *a) {
	double most = 0;

	for (size_t i = 0; i < (size_t)PACK_TOKENS * PACK_VOCAB; ++i)
		most = fmax(most, fabs((double)a[i]));
	return most;
}

/* ---- one copy ---------------------------------------------------------------------------------------------------- */

/* Three visits, two buckets, two programs, two sessions of each: as many packs as there are weights. */
START_TEST(one_packed_copy_for_all) {
	knit_program *p[2];
	knit_session *s[4];
	float *out[4];
	knit_opened *o;

	if (!pack_panels_here())
		return;
	pack_begin(NULL);
	knit_weights *const store = pack_weights();
	knit_graph *const g = pack_graph_tied(store);
	const uint64_t before = knit__weight_work.packs;
	p[0] = pack_compile(g, NULL);
	ck_assert_uint_eq(knit__weight_work.packs, before + PACK_PACKED);
	p[1] = pack_compile(g, "fuse_linear,merge_siblings");
	for (int i = 0; i < 4; ++i) {
		knit_counters c;
		s[i] = pack_session(p[i / 2]);
		out[i] = pack_logits(s[i], i % 2 ? PACK_TOKENS : 1);
		knit_session_counters(s[i], &c);
		ck_assert_uint_eq(c.packs, 0);
		ck_assert_uint_eq(c.uploads, 0);
	}
	ck_assert_uint_eq(knit__weight_work.packs, before + PACK_PACKED);
	ck_assert(same_bits(out[0], out[1]) && same_bits(out[0], out[2]) && same_bits(out[0], out[3]));
	for (uint32_t i = 0; i < p[0]->buffer_count; ++i)
		ck_assert_ptr_eq(p[0]->weights[i], p[1]->weights[i]);
	pack_ok(knit__device_open(pack_env.ctx, "cpu", &o, &pack_env.diag));
	ck_assert_uint_eq(o->weight_count, PACK_MADE);

	/* When the last user goes the copies go; packing again reads pages that were given back. */
	for (int i = 0; i < 4; ++i)
		knit_session_destroy(s[i]);
	knit_program_release(p[0]);
	ck_assert_uint_eq(o->weight_count, PACK_MADE);
	knit_program_release(p[1]);
	ck_assert_uint_eq(o->weight_count, 0);
	p[0] = pack_compile(g, NULL);
	ck_assert_uint_eq(knit__weight_work.packs, before + 2 * PACK_PACKED);
	float *const again = pack_logits_of(p[0], 4);
	ck_assert(same_bits(out[0], again));
	free(again);
	for (int i = 0; i < 4; ++i)
		free(out[i]);
	knit_program_release(p[0]);
	knit_graph_destroy(g);
	knit_weights_release(store);
	pack_end();
}
END_TEST

/* An adapter's weights are read as they lie: binding another one packs, allocates and uploads nothing. */
START_TEST(adapters_are_not_packed) {
	knit_adapter_set *set = NULL;
	knit_weights *other = NULL;
	knit_counters c;

	pack_begin(NULL);
	knit_weights *const store = pack_weights();
	knit_graph *const g = pack_graph_tied(store);
	knit_program *const p = pack_compile(g, NULL);
	for (uint32_t i = 0; i < p->buffer_count; ++i)
		if (p->buckets[0].schedule->buffers[i].kind == KNIT_STORAGE_ADAPTER)
			ck_assert_uint_eq(p->buckets[0].schedule->buffers[i].layout, 0);
	pack_ok(knit_weights_create(pack_env.ctx, &other));
	for (size_t i = PACK_BASE; i < PACK_MADE; ++i) {
		void *const data = pack_contents(i, 2);
		pack_ok(knit_weights_add(other, pack_made[i].name, pack_made[i].type, 2, (int64_t[]){pack_made[i].rows, pack_made[i].columns}, data,
		                      (size_t)pack_bytes(i), &pack_env.diag));
		free(data);
	}
	pack_ok(knit_adapter_open(p, other, &set, &pack_env.diag));
	knit_session *const s = pack_session(p);
	float *const a = pack_logits(s, PACK_TOKENS);
	pack_ok(knit_session_bind_adapter(s, set));
	float *const b = pack_logits(s, PACK_TOKENS);
	pack_ok(knit_session_bind_adapter(s, NULL));
	float *const back = pack_logits(s, PACK_TOKENS);
	knit_session_counters(s, &c);
	ck_assert_uint_eq(c.binds, 2);
	ck_assert_uint_eq(c.packs + c.allocations + c.buffers + c.uploads, 0);
	ck_assert(!same_bits(a, b) && same_bits(a, back));
	free(a);
	free(b);
	free(back);
	knit_session_destroy(s);
	knit_adapter_release(set);
	knit_weights_release(other);
	knit_program_release(p);
	knit_graph_destroy(g);
	knit_weights_release(store);
	pack_end();
}
END_TEST

/* ---- results ----------------------------------------------------------------------------------------------------- */

START_TEST(results_are_those_of_the_plain_layout) {
	const knit_cpu_isa *isas;
	const size_t count = knit__cpu_isa_levels(&isas);

	for (size_t i = 0; i < count; ++i) {
		const char *const isa = knit__cpu_isa_name(isas[i]);

		pack_begin(NULL);
		setenv("KNIT_CPU_ISA", isa, 1);
		knit_weights *const store = pack_weights();
		knit_graph *const g = pack_graph_tied(store);
		knit_program *const packed = pack_compile(g, NULL), *const plain = pack_compile(g, "layout");
		float *const a = pack_logits_of(packed, PACK_TOKENS), *const b = pack_logits_of(plain, PACK_TOKENS);
		float *const one = pack_logits_of(packed, 1), *const four = pack_logits_of(packed, 4);
		const double off = test_largest_difference(a, b, (size_t)PACK_TOKENS * PACK_VOCAB), size = largest(b);

		printf("%s: packed and plain off by %.1e of %.3g\n", isa, off, size);
		ck_assert(isfinite(size) && size > 0.01);
		ck_assert_msg(off <= 1e-5 * size, "off by %g of %g", off, size);
		ck_assert(same_bits(a, one) && same_bits(a, four));
		free(a);
		free(b);
		free(one);
		free(four);
		knit_program_release(packed);
		knit_program_release(plain);
		knit_graph_destroy(g);
		knit_weights_release(store);
		unsetenv("KNIT_CPU_ISA");
		pack_end();
	}
}
END_TEST

/* One weight visited three times against three weights with the same bytes, each packed for itself. */
START_TEST(looped_equals_copied) {
	knit_weights *stores[PACK_VISITS];
	knit_memory one, many;

	if (!pack_panels_here())
		return;
	pack_begin(NULL);
	for (int v = 0; v < PACK_VISITS; ++v)
		stores[v] = pack_weights();
	knit_graph *const tied = pack_graph_tied(stores[0]), *const copied = pack_graph(stores);
	knit_program *const a = pack_compile(tied, NULL), *const b = pack_compile(copied, "dedup_weights"), *const c = pack_compile(copied, NULL);
	float *const x = pack_logits_of(a, PACK_TOKENS), *const y = pack_logits_of(b, PACK_TOKENS), *const z = pack_logits_of(c, PACK_TOKENS);

	ck_assert(same_bits(x, y) && same_bits(x, z));
	knit_program_memory(a, &one);
	knit_program_memory(b, &many);
	ck_assert_uint_eq(one.packed_storages, PACK_PACKED);
	ck_assert_uint_eq(many.packed_storages, PACK_PACKED + (PACK_VISITS - 1) * 4); /* all but the embedding */
	ck_assert_uint_eq(many.weight_bytes_by_use, one.weight_bytes_by_use);
	knit_program_memory(c, &many);
	ck_assert_int_eq(memcmp(&one, &many, sizeof one), 0);
	free(x);
	free(y);
	free(z);
	knit_program_release(a);
	knit_program_release(b);
	knit_program_release(c);
	knit_graph_destroy(tied);
	knit_graph_destroy(copied);
	for (int v = 0; v < PACK_VISITS; ++v)
		knit_weights_release(stores[v]);
	pack_end();
}
END_TEST

/* ---- failing ----------------------------------------------------------------------------------------------------- */

START_TEST(failing_allocations) {
	knit_status status = KNIT_ERR_MEMORY;
	track_alloc track = {0};
	uint64_t n = 0;

	setenv("KNIT_GUARD", "0", 1); /* it remembers what was destroyed */
	pack_begin(track_context(&track));
	knit_weights *const store = pack_weights();
	knit_graph *const g = pack_graph_tied(store);
	knit_program *p = pack_compile(g, NULL); /* the device is open from here on */
	knit_program_release(p);
	for (; status != KNIT_OK; ++n) {
		const knit_compile_desc desc = {.device = "cpu", .buckets = pack_buckets, .bucket_count = 2};
		const uint64_t live = track.live;

		track.fail_at = track.count + 1 + n;
		status = knit_compile(g, &desc, &p, &pack_env.diag);
		track.fail_at = 0;
		ck_assert_msg(status == KNIT_OK || status == KNIT_ERR_MEMORY, "%s: %s", knit_status_name(status), pack_env.diag.text);
		ck_assert_msg(status == KNIT_OK || (track.live == live && !p), "allocation %" PRIu64 ": %" PRIu64 " bytes lost, %s", n,
		              track.live - live, pack_env.diag.text);
	}
	ck_assert_uint_gt(n, 50);
	knit_program_release(p);
	knit_graph_destroy(g);
	knit_weights_release(store);
	pack_end();
	unsetenv("KNIT_GUARD");
	ck_assert_uint_eq(track.live, 0);
	ck_assert(!track.bad_free);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		one_packed_copy_for_all, adapters_are_not_packed, results_are_those_of_the_plain_layout,
		looped_equals_copied,    failing_allocations,
	};
	const TTest *const quick[] = {adapters_are_not_packed, results_are_those_of_the_plain_layout};

	if (suite_quick())
		return suite_run("packing", quick, sizeof quick / sizeof *quick);
	return suite_run("packing", tests, sizeof tests / sizeof *tests);
}
