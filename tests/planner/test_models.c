/* Pins the memory plans of whole decoders: for the bundled model, a llama of 1.1 billion parameters and 10 layers visited
 * three times, activations take exactly the bytes that are needed at once, in decode and in prefill. The large ones are
 * shapes without numbers: nothing here runs. */
#include "../../backends/program.h"
#include "../../frontends/models/decoder.h"
#include "../../frontends/models/load.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

typedef struct shape {
	const char *name;
	uint32_t dim, layers, loops, heads, kv_heads, ffn, vocab, rank, context;
} shape;

static const shape llama = {"1.1 B llama", 2048, 22, 1, 32, 4, 5632, 32000, 0, 2048};
static const shape looped = {"10 layers x 3", 576, 10, 3, 9, 3, 1536, 49152, 0, 2048};
static const shape with_lora = {"10 layers x 3, LoRA", 576, 10, 3, 9, 3, 1536, 49152, 16, 2048};

/* More steps and more results to place: a harder plan. */
static const char no_fusion[] = "fuse_linear,merge_siblings,fuse_norm,fuse_kv,fuse_elementwise";

static knit_context *context;

/* ---- models without numbers ---------------------------------------------------------------------------------------- */

#define ROOM (UINT64_C(4) << 30)

/* Pages that nobody touches take no memory; a number at each tensor's start keeps tensors of a shape apart. */
static struct { char *bytes; uint64_t used; uint32_t count; } room;

static void add(knit_weights *store, const char *name, knit_dtype dtype, int64_t rows, int64_t columns) {
	const int64_t dims[2] = {rows, columns};
	char *const data = room.bytes + room.used;
	uint64_t bytes;
	knit_diag d = {0};

	ck_assert(knit__dtype_bytes(dtype, (uint64_t)(rows * (columns ? columns : 1)), &bytes));
	ck_assert_uint_lt(room.used + bytes, ROOM);
	room.used += (bytes + 4095) / 4096 * 4096;
	++room.count;
	memcpy(data, &room.count, sizeof room.count);
	ck_assert_msg(knit__weights_add_mapped(store, name, dtype, columns ? 2 : 1, dims, data, bytes, &d) == KNIT_OK, "%s",
	              d.text);
}

static void add_layers(knit_weights *store, const shape *s) {
	const int64_t dim = s->dim, kv = s->dim / s->heads * s->kv_heads, ffn = s->ffn;
	const int64_t shapes[][2] = {{dim, dim}, {kv, dim}, {kv, dim}, {dim, dim}, {ffn, dim}, {ffn, dim}, {dim, ffn}};
	char name[KNIT__NAME_BYTES];

	add(store, "token_embd.weight", KNIT_Q8_0, s->vocab, dim);
	add(store, "output_norm.weight", KNIT_F32, dim, 0);
	for (uint32_t l = 0; l < s->layers; ++l) {
		for (int p = KNIT__ATTN_NORM; p < KNIT__PART_COUNT; ++p) {
			const int64_t *of = p < KNIT__ATTN_Q ? NULL : shapes[p - KNIT__ATTN_Q];

			knit__weight_name(KNIT__NAMES_GGUF, (knit__part)p, l, name);
			add(store, name, of ? KNIT_Q8_0 : KNIT_F32, of ? of[0] : dim, of ? of[1] : 0);
		}
	}
	for (uint32_t v = 0; v < s->layers * s->loops && s->rank; ++v) {
		for (int p = KNIT__ATTN_Q; p < KNIT__PART_COUNT; ++p) {
			knit__adapter_name(KNIT__NAMES_GGUF, (knit__part)p, v, 'a', name);
			add(store, name, KNIT_F32, s->rank, shapes[p - KNIT__ATTN_Q][1]);
			knit__adapter_name(KNIT__NAMES_GGUF, (knit__part)p, v, 'b', name);
			add(store, name, KNIT_F32, shapes[p - KNIT__ATTN_Q][0], s->rank);
		}
	}
}

static void add_keys(knit_metadata *keys, const shape *s) {
	const struct { const char *key; uint32_t value; } counts[] = {
		{"knit.embedding_length", s->dim},         {"knit.block_count", s->layers},
		{"knit.feed_forward_length", s->ffn},      {"knit.context_length", s->context},
		{"knit.attention.head_count", s->heads},   {"knit.attention.head_count_kv", s->kv_heads},
		{"knit.loops", s->loops},                  {"knit.lora.rank", s->rank},
	};

	ck_assert_int_eq(knit__metadata_add_string(keys, "general.architecture", "knit", 4, NULL), KNIT_OK);
	ck_assert_int_eq(knit__metadata_add_f32(keys, "knit.attention.layer_norm_rms_epsilon", 1e-5f, NULL), KNIT_OK);
	if (s->rank)
		ck_assert_int_eq(knit__metadata_add_f32(keys, "knit.lora.alpha", 2 * (float)s->rank, NULL), KNIT_OK);
	for (size_t i = 0; i < sizeof counts / sizeof *counts - (s->rank == 0); ++i)
		ck_assert_int_eq(knit__metadata_add_u32(keys, counts[i].key, counts[i].value, NULL), KNIT_OK);
}

/* ---- plans ---------------------------------------------------------------------------------------------------------- */

static void check_plans(const char *name, const char *device, knit__decoder_desc desc) {
	static const char *const buckets[] = {"decode", "prefill"};
	knit_program *p = NULL;
	knit_diag d = {0};

	desc.device = device;
	desc.plan_only = true;
	ck_assert_msg(knit__decoder_compile(context, &desc, &p, &d) == KNIT_OK, "%s: %s", name, d.text);
	ck_assert_uint_eq(p->bucket_count, 2);
	for (uint32_t b = 0; b < 2; ++b) {
		const knit_schedule *s = p->buckets[b].schedule;
		const knit_memory_plan *plan = &s->plan;

		printf("| %s | %s | %s | %s, %lld | %llu | %llu | %.2f %% | %llu | %.3f | %llu | %u | %u |\n", name,
		       desc.disable_passes ? "unfused" : "fused", device, buckets[b],
		       (long long)p->buckets[b].bounds.hi[p->bucket_symbol], (unsigned long long)plan->arena_bytes,
		       (unsigned long long)plan->lower_bound,
		       100 * ((double)plan->arena_bytes / (double)plan->lower_bound - 1), (unsigned long long)plan->in_order_bytes,
		       (double)plan->in_order_bytes / (double)plan->arena_bytes, (unsigned long long)plan->unshared_bytes,
		       s->step_count, plan->inplace_count);
		ck_assert_msg(knit__memory_check(s, &context->a, &d) == KNIT_OK, "%s: %s", name, d.text);
		ck_assert_uint_gt(plan->lower_bound, 0);
		ck_assert_uint_eq(plan->arena_bytes, plan->lower_bound); /* a gap of 0 % */
		ck_assert_uint_ge(plan->in_order_bytes, plan->arena_bytes);
		ck_assert_uint_lt(plan->arena_bytes, plan->unshared_bytes / 10);
	}
	knit_program_release(p);
}

static void check_shape(const shape *s) {
	static knit__decoder_config config;
	knit_metadata keys;
	knit_weights *store;
	knit_diag d = {0};

	room.used = room.count = 0;
	room.bytes = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ck_assert_ptr_ne(room.bytes, MAP_FAILED);
	ck_assert_int_eq(knit_weights_create(context, &store), KNIT_OK);
	knit__metadata_init(&keys, &context->a);
	add_keys(&keys, s);
	add_layers(store, s);
	ck_assert_msg(knit__decoder_config_read(&keys, store, &config, &d) == KNIT_OK, "%s", d.text);
	ck_assert_uint_eq(config.visit_count, s->layers * s->loops);

	knit__decoder_desc desc = {.config = &config, .base = store, .adapters = s->rank ? store : NULL, .kv = KNIT_F16,
	                           .positions = s->context, .max_tokens = 512, .max_outputs = 1};
	check_plans(s->name, "null", desc);
	check_plans(s->name, "cpu", desc);
	desc.disable_passes = no_fusion;
	check_plans(s->name, "null", desc);
	check_plans(s->name, "cpu", desc);
	knit__metadata_clear(&keys);
	knit_weights_release(store);
	munmap(room.bytes, ROOM);
}

START_TEST(llama_of_a_billion) { check_shape(&llama); }
END_TEST

START_TEST(ten_layers_three_times) { check_shape(&looped); }
END_TEST

START_TEST(ten_layers_three_times_with_lora) { check_shape(&with_lora); }
END_TEST

START_TEST(bundled_model) {
	const knit__model_desc desc = {.path = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf"};
	knit__model m;
	knit_diag d = {0};

	ck_assert_msg(knit__model_load(context, &desc, &m, &d) == KNIT_OK, "%s", d.text);
	const knit__decoder_desc decoder = {.config = &m.config, .base = m.file.store, .adapters = m.adapters,
	                                    .max_tokens = 64, .max_outputs = 1};
	check_plans("bundled model", "null", decoder);
	check_plans("bundled model", "cpu", decoder);
	knit__model_unload(&m);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {bundled_model, llama_of_a_billion, ten_layers_three_times, ten_layers_three_times_with_lora};
	const knit_context_desc desc = {.cpu_threads = 2}; /* scratch on the CPU hangs on it */
	int failed;

	if (knit_context_create(&desc, &context) != KNIT_OK)
		return 1;
	puts("| model | passes | device | bucket | arena | lower bound | gap | in order | in order / arena | without sharing | steps | in "
	     "place |\n|---|---|---|---|---|---|---|---|---|---|---|---|");
	failed = suite_run("models", tests, sizeof tests / sizeof *tests);
	knit_context_destroy(context);
	return failed;
}
