/* Visits of the decoder on models made in code: norms of visits and loops, other loop counts, LoRA that goes along, and
 * the memory report, which must show that no weight is copied. */
#include "../tools/suite.h"
#include "../tools/tiny_model.h"

#include <stdio.h>
#include <string.h>

enum { TOKENS = 5 };

static const int32_t ids[TOKENS] = {3, 15, 0, 7, 1}, seq[TOKENS], rows[TOKENS] = {0, 1, 2, 3, 4},
					 pos[TOKENS] = {0, 1, 2, 3, 4};
static const uint64_t layer_bytes = 4 * (2 * DIM + 2 * DIM * DIM + DIM * DIM + 3 * DIM * FFN);

static void run(const knit__decoder_config *c, knit_weights *base, knit_weights *adapters, int tokens, float *logits,
				knit_memory *m) {
	const knit__decoder_desc desc = {
		.config = c, .base = base, .adapters = adapters, .max_tokens = 8, .max_outputs = 8};
	knit__decoder d;
	knit_memory own;
	knit_diag diag = {0};

	ck_assert_msg(knit__decoder_open(tiny.ctx, &desc, &d, &diag) == KNIT_OK, "%s", diag.text);
	ck_assert_msg(knit__decoder_step(&d, ids, seq, pos, (size_t)tokens, rows, (size_t)tokens, logits, &diag) == KNIT_OK,
				  "%s", diag.text);
	ck_assert_int_eq(knit_program_memory(d.program, m ? m : &own), KNIT_OK);
	knit__decoder_close(&d);
}

static void read_config(knit__decoder_config *c) {
	knit_diag diag = {0};

	ck_assert_msg(knit__decoder_config_read(&tiny.keys, tiny.store, c, &diag) == KNIT_OK, "%s", diag.text);
}

static void put(const char *name, const float *data, int rank, int64_t n0, int64_t n1) {
	const int64_t dims[] = {n0, n1};

	ck_assert_int_eq(knit_weights_add(tiny.store, name, KNIT_F32, rank, dims, data,
									  (size_t)(n0 * (rank > 1 ? n1 : 1)) * sizeof *data, NULL),
					 KNIT_OK);
}

/* Visits 0,1,0,1 with a norm of visit 2's own, against four layers of which the third has that norm. */
START_TEST(norm_of_a_visit) {
	static knit__decoder_config c, copied;
	static const uint16_t from[] = {0, 1, 0, 1};
	static const char *const norms[] = {"attn_norm", "ffn_norm"};
	float a[TOKENS * VOCAB], b[TOKENS * VOCAB], plain[TOKENS * VOCAB], gain[2][DIM];
	char name[KNIT__NAME_BYTES];
	knit_weights *base;

	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_u32("knit.loops", 2);
	tiny_tensors(NULL, LAYERS, NULL);
	read_config(&c);
	run(&c, tiny.store, NULL, TOKENS, plain, NULL);

	base = tiny.store;
	ck_assert_int_eq(knit_weights_create(tiny.ctx, &tiny.store), KNIT_OK);
	tiny_tensors(NULL, LAYERS, NULL);
	for (int n = 0; n < 2; ++n) {
		for (int i = 0; i < DIM; ++i)
			gain[n][i] = 0.5f + 0.25f * (float)i + (float)n;
		snprintf(name, sizeof name, "visit.2.%s.weight", norms[n]);
		put(name, gain[n], 1, DIM, 0);
	}
	read_config(&c);
	run(&c, tiny.store, NULL, TOKENS, a, NULL);
	ck_assert(memcmp(a, plain, sizeof a) != 0);

	knit_weights_release(base);
	base = tiny.store;
	ck_assert_int_eq(knit_weights_create(tiny.ctx, &tiny.store), KNIT_OK);
	tiny_tensors(NULL, 2, NULL);
	for (uint32_t l = 2; l < 4; ++l)
		for (int p = KNIT__ATTN_NORM; p < KNIT__PART_COUNT; ++p) {
			char source[KNIT__NAME_BYTES], copy[KNIT__NAME_BYTES];
			knit_weight_info info;
			knit__weight_name(KNIT__NAMES_GGUF, (knit__part)p, l, copy);
			knit__weight_name(KNIT__NAMES_GGUF, (knit__part)p, from[l], source);
			ck_assert_int_eq(knit_weights_find(tiny.store, source, &info), KNIT_OK);
			const void *data = l == 2 && p <= KNIT__FFN_NORM ? gain[p - KNIT__ATTN_NORM] : info.data;
			ck_assert_int_eq(knit_weights_add(tiny.store, copy, info.dtype, info.rank, info.dims, data,
											  (size_t)info.bytes, NULL),
							 KNIT_OK);
		}
	copied = c;
	copied.layers = 4;
	for (uint16_t v = 0; v < 4; ++v)
		copied.visits[v] = v;
	run(&copied, tiny.store, NULL, TOKENS, b, NULL);
	ck_assert_int_eq(memcmp(a, b, sizeof a), 0);

	/* A third loop has the second one's norms; one loop alone has none of them. */
	float more[TOKENS * VOCAB];
	ck_assert_int_eq(knit__decoder_config_loops(&c, 3, NULL), KNIT_OK);
	knit__decoder_weight_name(&c, base, KNIT__FFN_NORM, 4, name);
	ck_assert_str_eq(name, "visit.2.ffn_norm.weight");
	knit__decoder_weight_name(&c, base, KNIT__FFN_NORM, 5, name);
	ck_assert_str_eq(name, "blk.1.ffn_norm.weight");
	run(&c, base, NULL, TOKENS, more, NULL);
	ck_assert_int_eq(knit__decoder_config_loops(&c, 1, NULL), KNIT_OK);
	knit__decoder_weight_name(&c, base, KNIT__FFN_NORM, 0, name);
	ck_assert_str_eq(name, "blk.0.ffn_norm.weight");
	knit_weights_release(base);
	tiny_close();
}
END_TEST

/* A store whose head shows the normalised residual stream in its first columns, and whose embedding of token ids[0] is
 * `embedding` where that is given. */
static void visible_model(const float *embedding, const float *gain) {
	static float table[VOCAB * DIM], head[VOCAB * DIM];

	tiny_tensors("token_embd.weight", LAYERS, NULL);
	for (int i = 0; i < VOCAB * DIM; ++i)
		table[i] = 0.1f * (float)(i % 23) - 1;
	if (embedding)
		memcpy(table + ids[0] * DIM, embedding, DIM * sizeof *embedding);
	for (int i = 0; i < DIM; ++i)
		head[i * DIM + i] = 1;
	put("token_embd.weight", table, 2, VOCAB, DIM);
	put("output.weight", head, 2, VOCAB, DIM);
	if (gain)
		put("loop_norm.weight", gain, 1, DIM, 0);
}

/* Two loops with a norm between them: the second one reads what the first one, with that norm as its output norm,
 * gives. */
START_TEST(norm_between_loops) {
	static knit__decoder_config c;
	float once[VOCAB], twice[VOCAB], by_hand[VOCAB];
	knit_weight_info info;
	knit_weights *first;
	char name[KNIT__NAME_BYTES];

	tiny_open();
	tiny_keys(NULL, NULL, 0);
	visible_model(NULL, NULL);
	read_config(&c);
	run(&c, tiny.store, NULL, 1, once, NULL);
	ck_assert_int_eq(knit_weights_find(tiny.store, "output_norm.weight", &info), KNIT_OK);

	first = tiny.store;
	ck_assert_int_eq(knit_weights_create(tiny.ctx, &tiny.store), KNIT_OK);
	visible_model(once, NULL);
	run(&c, tiny.store, NULL, 1, by_hand, NULL);
	knit_weights_release(tiny.store);

	ck_assert_int_eq(knit_weights_create(tiny.ctx, &tiny.store), KNIT_OK);
	visible_model(NULL, info.data);
	tiny_u32("knit.loops", 2);
	read_config(&c);
	ck_assert(knit__decoder_loop_norm_after(&c, tiny.store, 1, name));
	ck_assert_str_eq(name, "loop_norm.weight");
	ck_assert(!knit__decoder_loop_norm_after(&c, tiny.store, 0, name));
	ck_assert(!knit__decoder_loop_norm_after(&c, tiny.store, 3, name)); /* output_norm follows */
	run(&c, tiny.store, NULL, 1, twice, NULL);
	ck_assert_int_eq(memcmp(twice, by_hand, sizeof twice), 0);

	/* One loop alone has no norm between loops: the model of before. */
	ck_assert_int_eq(knit__decoder_config_loops(&c, 1, NULL), KNIT_OK);
	run(&c, tiny.store, NULL, 1, twice, NULL);
	ck_assert_int_eq(memcmp(twice, once, sizeof twice), 0);
	knit_weights_release(first);
	tiny_close();
}
END_TEST

/* loop.R.output_norm.weight is each loop's own, before the one for all; further loops have the last one's. */
START_TEST(norms_of_single_loops) {
	static knit__decoder_config c;
	static const char *const wanted[] = {NULL, "loop_norm.weight", "loop.1.output_norm.weight",
										 "loop.1.output_norm.weight", "loop.1.output_norm.weight"};
	char name[KNIT__NAME_BYTES];

	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_u32("knit.prelude", 1);
	tiny_u32("knit.loops", 2);
	tiny_tensors(NULL, LAYERS, NULL);
	tiny_tensor("loop.1.output_norm.weight", KNIT_F32, DIM, 0, 1);
	tiny_tensor("loop_norm.weight", KNIT_F32, DIM, 0, 1);
	read_config(&c);
	ck_assert_int_eq(knit__decoder_config_loops(&c, 4, NULL), KNIT_OK);
	ck_assert_uint_eq(c.visit_count, 5);
	for (uint32_t v = 0; v < 5; ++v) {
		const bool is = knit__decoder_loop_norm_after(&c, tiny.store, v, name);
		ck_assert_int_eq(is, wanted[v] != NULL);
		if (is)
			ck_assert_str_eq(name, wanted[v]);
	}
	/* Where loops cannot be told, a model with such norms does not run. */
	ck_assert_int_eq(knit__decoder_config_visits(&c, "0x2,1x3", NULL), KNIT_ERR_UNSUPPORTED);
	ck_assert_int_eq(knit__decoder_config_visits(&c, "0,1x3", NULL), KNIT_OK);
	tiny_close();
}
END_TEST

/* The same tensors under another name. */
static void rename_to(knit_weights *to, const char *from, const char *name) {
	knit_weight_info info;
	knit_diag d = {0};

	ck_assert_msg(knit_weights_find(tiny.store, from, &info) == KNIT_OK, "%s", from);
	ck_assert_msg(knit_weights_add(to, name, info.dtype, info.rank, info.dims, info.data, (size_t)info.bytes, &d) == KNIT_OK,
				  "%s", d.text);
}

/* The names that Hugging Face files have, with norms and LoRA of visits and norms of loops: the same model. */
START_TEST(names_of_hugging_face) {
	static const struct { const char *gguf, *hf; } fixed[] = {
		{"token_embd.weight", "model.embed_tokens.weight"},
		{"output_norm.weight", "model.norm.weight"},
		{"visit.2.attn_norm.weight", "steps.2.input_layernorm.weight"},
		{"visit.3.ffn_norm.weight", "steps.3.post_attention_layernorm.weight"},
		{"loop_norm.weight", "model.loop_norm.weight"},
		{"loop.1.output_norm.weight", "model.loops.1.norm.weight"},
	};
	static knit__decoder_config c, hf;
	float want[TOKENS * VOCAB], got[TOKENS * VOCAB];
	char from[KNIT__NAME_BYTES], to[KNIT__NAME_BYTES];
	knit_weights *renamed, *base;

	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_u32("knit.loops", 3);
	tiny_u32("knit.lora.rank", RANK);
	tiny_tensors(NULL, LAYERS, NULL);
	tiny_lora(3 * LAYERS, NULL, RANK, 0.3f);
	for (size_t i = 2; i < sizeof fixed / sizeof *fixed; ++i)
		tiny_tensor(fixed[i].gguf, KNIT_F32, DIM, 0, 1);
	read_config(&c);
	run(&c, tiny.store, tiny.store, TOKENS, want, NULL);

	ck_assert_int_eq(knit_weights_create(tiny.ctx, &renamed), KNIT_OK);
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; ++i)
		rename_to(renamed, fixed[i].gguf, fixed[i].hf);
	for (uint32_t l = 0; l < LAYERS; ++l)
		for (int p = KNIT__ATTN_NORM; p < KNIT__PART_COUNT; ++p) {
			knit__weight_name(KNIT__NAMES_GGUF, (knit__part)p, l, from);
			knit__weight_name(KNIT__NAMES_HF, (knit__part)p, l, to);
			rename_to(renamed, from, to);
		}
	for (uint32_t v = 0; v < 3 * LAYERS; ++v)
		for (int p = KNIT__ATTN_Q; p < KNIT__PART_COUNT; ++p)
			for (char which = 'a'; which <= 'b'; ++which) {
				knit__adapter_name(KNIT__NAMES_GGUF, (knit__part)p, v, which, from);
				knit__adapter_name(KNIT__NAMES_HF, (knit__part)p, v, which, to);
				rename_to(renamed, from, to);
			}
	base = tiny.store;
	tiny.store = renamed;
	read_config(&hf);
	ck_assert(hf.names == KNIT__NAMES_HF && hf.lora_names == KNIT__NAMES_HF && hf.visit_norms && hf.loop_norms);
	run(&hf, tiny.store, tiny.store, TOKENS, got, NULL);
	ck_assert_int_eq(memcmp(want, got, sizeof got), 0);
	knit_weights_release(base);
	tiny_close();
}
END_TEST

/* Weights cost what is stored, however often they are visited; the report says both. */
START_TEST(visits_copy_no_byte) {
	static const char *const lists[] = {"0-1", "0-1x2", "1,0-1x2,0,0", "0x7,1", "0-1x40"};
	static knit__decoder_config c;
	float logits[TOKENS * VOCAB];
	knit_memory one, m;
	knit__decoder_parameters p1, p;

	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors(NULL, LAYERS, NULL);
	tiny_u32("knit.lora.rank", RANK);
	tiny_lora(LAYERS, NULL, RANK, 0.4f);
	read_config(&c);
	run(&c, tiny.store, tiny.store, TOKENS, logits, &one);
	ck_assert_int_eq(knit__decoder_count_parameters(&c, tiny.store, tiny.store, &p1), KNIT_OK);
	for (size_t i = 0; i < sizeof lists / sizeof *lists; ++i) {
		ck_assert_int_eq(knit__decoder_config_visits(&c, lists[i], NULL), KNIT_OK);
		run(&c, tiny.store, tiny.store, TOKENS, logits, &m);
		ck_assert_int_eq(knit__decoder_count_parameters(&c, tiny.store, tiny.store, &p), KNIT_OK);
		ck_assert_uint_eq(m.weight_bytes, one.weight_bytes);
		ck_assert_uint_eq(m.weight_storages, one.weight_storages);
		ck_assert_uint_eq(m.adapter_bytes, one.adapter_bytes); /* further visits share those of the last */
		ck_assert_uint_eq(m.packed_bytes, one.packed_bytes);
		ck_assert_uint_eq(m.weight_bytes_by_use, one.weight_bytes_by_use + (c.visit_count - 2) * layer_bytes);
		ck_assert_uint_eq(m.state_bytes * 2, one.state_bytes * c.visit_count);
		ck_assert(p.unique == p1.unique && p.lora == p1.lora);
		ck_assert_uint_eq(p.visited, p1.visited + (c.visit_count - 2) * layer_bytes / 4);
	}
	tiny_close();
}
END_TEST

/* A visit more takes the LoRA of the last visit of its layer: the same as that LoRA under a name of its own. */
START_TEST(lora_goes_along) {
	static knit__decoder_config c;
	float a[TOKENS * VOCAB], b[TOKENS * VOCAB];
	knit_weight_info info;
	char name[KNIT__NAME_BYTES], twin[KNIT__NAME_BYTES];

	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_tensors(NULL, LAYERS, NULL);
	tiny_u32("knit.lora.rank", RANK);
	tiny_lora(LAYERS, NULL, RANK, 0.4f);
	read_config(&c);
	ck_assert_int_eq(knit__decoder_config_loops(&c, 2, NULL), KNIT_OK);
	run(&c, tiny.store, tiny.store, TOKENS, a, NULL);

	knit_weights *small = tiny.store;
	ck_assert_int_eq(knit_weights_create(tiny.ctx, &tiny.store), KNIT_OK);
	tiny_tensors(NULL, LAYERS, NULL);
	tiny_lora(LAYERS, NULL, RANK, 0.4f);
	for (uint32_t v = 0; v < LAYERS; ++v)
		for (int p = KNIT__ATTN_Q; p < KNIT__PART_COUNT; ++p)
			for (const char *which = "ab"; *which; ++which) {
				knit__adapter_name(KNIT__NAMES_GGUF, (knit__part)p, v, *which, name);
				knit__adapter_name(KNIT__NAMES_GGUF, (knit__part)p, v + LAYERS, *which, twin);
				ck_assert_int_eq(knit_weights_find(small, name, &info), KNIT_OK);
				ck_assert_int_eq(knit_weights_add(tiny.store, twin, info.dtype, info.rank, info.dims, info.data,
												  (size_t)info.bytes, NULL),
								 KNIT_OK);
			}
	tiny_u32("knit.loops", 2);
	read_config(&c);
	ck_assert_uint_eq(c.stands_for[3], 3);
	run(&c, tiny.store, tiny.store, TOKENS, b, NULL);
	ck_assert_int_eq(memcmp(a, b, sizeof a), 0);
	/* And back: with one loop the large model is the small one. */
	ck_assert_int_eq(knit__decoder_config_loops(&c, 1, NULL), KNIT_OK);
	run(&c, small, small, TOKENS, a, NULL);
	run(&c, tiny.store, tiny.store, TOKENS, b, NULL);
	ck_assert_int_eq(memcmp(a, b, sizeof a), 0);
	knit_weights_release(small);
	tiny_close();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		norm_of_a_visit,     norm_between_loops, norms_of_single_loops,
		names_of_hugging_face, visits_copy_no_byte, lora_goes_along,
	};

	return suite_run("decoder_visits", tests, sizeof tests / sizeof *tests);
}
