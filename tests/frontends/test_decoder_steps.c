/* What a decoder's block costs in nodes and steps, before the passes and after: of a plain llama block, with LoRA, with norms
 * of visits and loops, and of a visit that only reads keys and values. Counted, so that a pass that stops firing is seen. */
#include "../../backends/program.h"
#include "../tools/suite.h"
#include "../tools/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DECODE, PREFILL, BUCKETS };

static const char no_fusion[] = "fuse_linear,merge_siblings,fuse_norm,fuse_kv,fuse_elementwise";
static knit__decoder_config config;

typedef struct shape {
	uint32_t layers, loops;
	int64_t rank; /* 0: no LoRA */
	bool visit_norms, loop_norm;
	knit__kv_policy policy;
} shape;

static void visit_norms(uint32_t visits) {
	char name[KNIT__NAME_BYTES];

	for (uint32_t v = 0; v < visits; ++v)
		for (int p = KNIT__ATTN_NORM; p <= KNIT__FFN_NORM; ++p) {
			knit__visit_norm_name(KNIT__NAMES_GGUF, (knit__part)p, v, name);
			tiny_tensor(name, KNIT_F32, DIM, 0, 1);
		}
}

static knit__decoder_desc open_model(const shape *s) {
	const uint32_t visits = s->layers * s->loops;
	knit_diag d = {0};

	tiny_open();
	tiny_keys(NULL, "knit.block_count", s->layers);
	tiny_u32("knit.loops", s->loops);
	tiny_tensors(NULL, s->layers, NULL);
	if (s->rank) {
		tiny_u32("knit.lora.rank", (uint32_t)s->rank);
		tiny_f32("knit.lora.alpha", 2 * (float)s->rank);
		tiny_lora(visits, NULL, s->rank, 0.25f);
	}
	if (s->visit_norms)
		visit_norms(visits);
	if (s->loop_norm)
		tiny_tensor("loop_norm.weight", KNIT_F32, DIM, 0, 1);
	ck_assert_msg(knit__decoder_config_read(&tiny.keys, tiny.store, &config, &d) == KNIT_OK, "%s", d.text);
	ck_assert_uint_eq(config.visit_count, visits);
	config.kv_policy = s->policy;
	return (knit__decoder_desc){.config = &config, .base = tiny.store, .adapters = s->rank ? tiny.store : NULL,
								.positions = CONTEXT, .max_tokens = 8, .kv = KNIT_F16, .device = "cpu", .plan_only = true};
}

/* ---- counting ---------------------------------------------------------------------------------------------------- */

typedef struct counts { uint32_t nodes, unfused, fused[BUCKETS]; } counts;

static uint32_t count_steps(knit__decoder_desc desc, const char *disable, size_t bucket) {
	knit_program *p = NULL;
	knit_diag d = {0};

	desc.disable_passes = disable;
	ck_assert_msg(knit__decoder_compile(tiny.ctx, &desc, &p, &d) == KNIT_OK, "%s", d.text);
	const size_t steps = knit_program_step_count(p, bucket);
	knit_program_release(p);
	return (uint32_t)steps;
}

static counts count(const shape *s) {
	const knit__decoder_desc desc = open_model(s);
	knit_graph *g = NULL;
	counts c = {0};

	ck_assert_int_eq(knit__decoder_graph(tiny.ctx, &desc, &g, NULL), KNIT_OK);
	c.nodes = g->order_count;
	knit_graph_destroy(g);
	c.unfused = count_steps(desc, no_fusion, DECODE);
	for (size_t b = 0; b < BUCKETS; ++b)
		c.fused[b] = count_steps(desc, NULL, b);
	tiny_close();
	return c;
}

/* What one more visit adds. */
static counts per_visit(shape s, uint32_t loops) {
	counts one, more;
	const uint32_t visits = s.layers;

	s.loops = loops;
	one = count(&s);
	s.loops = loops + 1;
	more = count(&s);
	for (size_t b = 0; b < BUCKETS; ++b) {
		ck_assert_uint_eq((more.fused[b] - one.fused[b]) % visits, 0);
		more.fused[b] = (more.fused[b] - one.fused[b]) / visits;
	}
	more.nodes = (more.nodes - one.nodes) / visits;
	more.unfused = (more.unfused - one.unfused) / visits;
	return more;
}

START_TEST(nodes_and_steps_per_block) {
	static const struct {
		const char *what;
		shape shape;
		counts want;
	} rows[] = {
		/* norm; q, k, v; rope of q and k; two appends; attention; o, add; norm; gate, silu, up, mul; down, add */
		{"a plain llama block", {.layers = 1}, {18, 18, {8, 8}}},
		/* four more for each of seven projections: A, B, scale, add */
		{"with a LoRA of rank 16 on all seven projections", {.layers = 1, .rank = 16}, {46, 46, {8, 8}}},
		{"with norms of its visits", {.layers = 1, .visit_norms = true}, {18, 18, {8, 8}}},
		{"with both", {.layers = 1, .rank = 16, .visit_norms = true}, {46, 46, {8, 8}}},
		{"two layers with both", {.layers = 2, .rank = 16, .visit_norms = true}, {46, 46, {8, 8}}},
		{"with a norm after each loop", {.layers = 1, .loop_norm = true}, {19, 19, {9, 9}}},
		{"a visit that writes over its layer's slot", {.layers = 1, .rank = 16, .policy = KNIT__KV_LAYER}, {46, 46, {8, 8}}},
		/* without k, v, rope of k and appends; the rope of q is a step */
		{"a visit that only reads", {.layers = 1, .policy = KNIT__KV_FIRST}, {13, 13, {8, 8}}},
		{"a visit that only reads, with LoRA", {.layers = 1, .rank = 16, .policy = KNIT__KV_FIRST}, {33, 33, {8, 8}}},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
		const counts got = per_visit(rows[i].shape, 1), *const want = &rows[i].want;

		printf("%s: %u nodes, %u steps without fusion, %u with (%u in prefill)\n", rows[i].what, got.nodes, got.unfused,
			   got.fused[DECODE], got.fused[PREFILL]);
		ck_assert_msg(memcmp(&got, want, sizeof got) == 0, "%s: %u nodes, %u steps without fusion, %u and %u with, not %u, %u, "
														   "%u and %u",
					  rows[i].what, got.nodes, got.unfused, got.fused[DECODE], got.fused[PREFILL], want->nodes, want->unfused,
					  want->fused[DECODE], want->fused[PREFILL]);
	}
}
END_TEST

/* ---- which steps ------------------------------------------------------------------------------------------------- */

/* The steps of one visit as "op = parts", one a line. */
static void check_steps(const shape *s, uint32_t visit, const char *want) {
	const knit__decoder_desc desc = open_model(s);
	knit_program *p = NULL;
	char prefix[32], got[2000] = "";
	size_t used = 0;
	knit_diag d = {0};

	ck_assert_msg(knit__decoder_compile(tiny.ctx, &desc, &p, &d) == KNIT_OK, "%s", d.text);
	snprintf(prefix, sizeof prefix, "visit.%u.", visit);
	const knit_schedule *const schedule = p->buckets[DECODE].schedule;
	for (uint32_t i = 0; i < schedule->step_count; ++i) {
		const knit_step *const step = &schedule->steps[i];
		const char *const parts = step->parts && *step->parts ? step->parts : NULL;

		if (!step->origin || strncmp(step->origin, prefix, strlen(prefix)) != 0)
			continue;
		used += (size_t)snprintf(got + used, sizeof got - used, "%s%s%s\n", knit__op(step->op)->name, parts ? " = " : "",
								 parts ? parts : "");
		ck_assert_uint_lt(used, sizeof got);
	}
	knit_program_release(p);
	tiny_close();
	ck_assert_msg(strcmp(got, want) == 0, "the steps of visit %u are\n%snot\n%s", visit, got, want);
}

#define LORA "linear+linear+linear+scale+add"

START_TEST(what_the_steps_are_made_of) {
	check_steps(&(shape){.layers = 2, .loops = 2}, 2,
				"rms_norm\nlinear_group = linear+linear+linear\nkv_write = rope+rope+append+append\nattention\n"
				"linear_lora = linear+add\nrms_norm\nglu = linear+silu+linear+mul\nlinear_lora = linear+add\n");
	check_steps(&(shape){.layers = 2, .loops = 2, .rank = 16}, 2,
				"rms_norm\nlinear_group = " LORA "+" LORA "+" LORA "\nkv_write = rope+rope+append+append\nattention\n"
				"linear_lora = " LORA "+add\nrms_norm\nglu = " LORA "+silu+" LORA "+mul\nlinear_lora = " LORA "+add\n");
	/* Visit 2 is the second of layer 0: it has q alone. */
	check_steps(&(shape){.layers = 2, .loops = 2, .rank = 16, .policy = KNIT__KV_FIRST}, 2,
				"rms_norm\nlinear_lora = " LORA "\nrope\nattention\n"
				"linear_lora = " LORA "+add\nrms_norm\nglu = " LORA "+silu+" LORA "+mul\nlinear_lora = " LORA "+add\n");
}
END_TEST

/* ---- the shape that knit is made for ----------------------------------------------------------------------------- */

/* Ten layers, visited three times, rank 16 on all seven projections: no more than eight steps per visit. */
START_TEST(ten_layers_three_times) {
	const shape s = {.layers = 10, .loops = 3, .rank = 16};
	const counts c = count(&s);

	printf("10 layers x 3, rank 16: %u nodes, %u steps without fusion, %u with\n", c.nodes, c.unfused, c.fused[DECODE]);
	/* Beside the visits: the embedding's rows, the rows of the outputs, the last norm, the head. */
	for (size_t b = 0; b < BUCKETS; ++b)
		ck_assert_uint_eq(c.fused[b], 30 * 8 + 4);
	ck_assert_uint_eq(c.nodes, 30 * 46 + 4);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {nodes_and_steps_per_block, what_the_steps_are_made_of, ten_layers_three_times};

	return suite_run("decoder_steps", tests, (int)(sizeof tests / sizeof *tests));
}
