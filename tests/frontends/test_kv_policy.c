/* KV policies: their text, the slots of each visit, bytes by the formula, what a visit that only reads is built of, and
 * the largest context for a memory limit. */
#include "../../frontends/models/fit.h"
#include "../../frontends/models/load.h"
#include "../tools/suite.h"
#include "../tools/tiny_model.h"

#include <stdio.h>
#include <string.h>

enum { TOKENS = 7, ROW = DIM / 2 };

/* ---- text -------------------------------------------------------------------------------------------------------- */

START_TEST(texts_are_read) {
	static const struct {
		const char *text;
		knit__kv_spec want;
	} good[] = {
		{"f16", {.k = KNIT_F16, .v = KNIT_F16}},
		{"visit", {.policy = KNIT__KV_VISIT}},
		{"layer,q8_0", {.policy = KNIT__KV_LAYER, .k = KNIT_Q8_0, .v = KNIT_Q8_0}},
		{"k=f32,first,v=q4_0", {.policy = KNIT__KV_FIRST, .k = KNIT_F32, .v = KNIT_Q4_0}},
		{"group:3,window=20,sinks=4", {.policy = KNIT__KV_GROUP, .group = 3, .window = 20, .sinks = 4}},
		{"window=1", {.window = 1}},
		{"v=bf16,window=2147483647,sinks=0", {.v = KNIT_BF16, .window = INT32_MAX}},
	};
	static const struct { const char *text, *says; } bad[] = {
		{"", "\"\" is no policy"},
		{"f8", "\"f8\" is no policy"},
		{"i32", "\"i32\""},
		{"group", "\"group\""},
		{"group:", "\"group:\""},
		{"group:0", "\"group:0\""},
		{"group:2x", "\"group:2x\""},
		{"window=0", "\"window=0\""},
		{"window=99999999999999999999", "\"window="},
		{"sinks=4", "sinks=4 needs a window"},
		{"f16,f32", "\"f32\" says what was said before"},
		{"f16,k=f32", "\"k=f32\" says"},
		{"visit,layer", "\"layer\" says"},
		{"visit,,f16", "\"\" is no policy"},
		{"first,", "\"\" is no policy"},
		{"K=f16", "\"K=f16\""},
		{"a very long item that nobody could mean by this", "\"a very long item that nobody could mean"},
	};

	for (size_t i = 0; i < sizeof good / sizeof *good; ++i) {
		knit__kv_spec got;

		memset(&got, 0, sizeof got);
		ck_assert_int_eq(knit__kv_parse(good[i].text, &got, NULL), KNIT_OK);
		ck_assert(got.policy == good[i].want.policy && got.group == good[i].want.group && got.k == good[i].want.k &&
				  got.v == good[i].want.v && got.window == good[i].want.window && got.sinks == good[i].want.sinks);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
		knit__kv_spec untouched = {.group = 77};
		knit_diag d = {0};

		ck_assert_int_eq(knit__kv_parse(bad[i].text, &untouched, &d), KNIT_ERR_ARGUMENT);
		ck_assert_msg(strstr(d.text, bad[i].says) != NULL, "\"%s\" lacks \"%s\"", d.text, bad[i].says);
		ck_assert_uint_eq(untouched.group, 77);
	}
}
END_TEST

START_TEST(texts_are_written) {
	static const struct {
		knit__kv_spec spec;
		const char *text;
	} rows[] = {
		{{.policy = KNIT__KV_VISIT, .k = KNIT_F16, .v = KNIT_F16}, "a slot per visit, f16"},
		{{.policy = KNIT__KV_LAYER, .k = KNIT_F16, .v = KNIT_F16}, "a slot per layer (last visit), f16"},
		{{.policy = KNIT__KV_FIRST, .k = KNIT_Q8_0, .v = KNIT_Q4_0, .window = 20, .sinks = 4},
		 "a slot per layer (first visit), k q8_0, v q4_0, window 20 with 4 sinks"},
		{{.policy = KNIT__KV_GROUP, .group = 2, .k = KNIT_F32, .v = KNIT_F32}, "a slot per 2 layers, f32"},
		{{.k = KNIT_F32, .v = KNIT_F32}, "the model's slots, f32"},
	};
	char text[160];

	for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
		knit__kv_text(&rows[i].spec, text, sizeof text);
		ck_assert_str_eq(text, rows[i].text);
		knit__kv_text(&rows[i].spec, text, 8);
		ck_assert_uint_eq(strlen(text), 7);
	}
}
END_TEST

/* ---- maps -------------------------------------------------------------------------------------------------------- */

START_TEST(maps_by_policy) {
	static const uint16_t visits[] = {0, 1, 2, 2, 2, 3, 4}, loops[] = {0, 1, 2, 0, 1, 2};
	static const struct {
		knit__kv_policy policy;
		uint32_t group;
		const uint16_t *layers;
		uint32_t count;
		const char *slots, *writes;
		uint32_t distinct;
	} rows[] = {
		{KNIT__KV_VISIT, 0, visits, 7, "0123456", "1111111", 7},
		{KNIT__KV_LAYER, 0, visits, 7, "0122256", "1111111", 5},
		{KNIT__KV_FIRST, 0, visits, 7, "0122256", "1110011", 5},
		{KNIT__KV_GROUP, 1, visits, 7, "0123456", "1111111", 7},
		/* layers 2 and 3 share the slot of their first visits */
		{KNIT__KV_GROUP, 2, visits, 7, "0023426", "1011101", 5},
		{KNIT__KV_GROUP, 9, visits, 7, "0003400", "1001100", 3},
		{KNIT__KV_VISIT, 0, loops, 6, "012345", "111111", 6},
		{KNIT__KV_LAYER, 0, loops, 6, "012012", "111111", 3},
		{KNIT__KV_FIRST, 0, loops, 6, "012012", "111000", 3},
		{KNIT__KV_GROUP, 3, loops, 6, "000333", "100100", 2},
		{KNIT__KV_GROUP, 2, loops, 6, "002335", "101101", 4},
	};
	knit__kv_map map;
	uint32_t visit = 99;

	for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
		knit__kv_map_make(rows[i].policy, rows[i].group, rows[i].layers, rows[i].count, &map);
		ck_assert_uint_eq(map.count, rows[i].count);
		for (uint32_t v = 0; v < map.count; ++v)
			ck_assert_msg(map.slot[v] == rows[i].slots[v] - '0' && map.writes[v] == (rows[i].writes[v] == '1'),
						  "row %zu, visit %u: slot %u", i, v, map.slot[v]);
		ck_assert_uint_eq(knit__kv_map_slots(&map), rows[i].distinct);
		ck_assert(knit__kv_map_check(&map, &visit));
	}
	map.writes[0] = false;
	ck_assert(!knit__kv_map_check(&map, &visit) && visit == 0);
}
END_TEST

/* ---- models ------------------------------------------------------------------------------------------------------ */

static const uint32_t looped[] = {0, 1, 0, 1, 0, 1};
static knit__decoder_config config;

static void put_numbers(const char *key, knit_metadata_type type, const void *data, uint64_t count) {
	ck_assert_int_eq(knit__metadata_add(&tiny.keys, key, type, true, count, data, NULL), KNIT_OK);
}

static void open_model(const char *skip) {
	knit_diag d = {0};

	tiny_keys(NULL, NULL, 0);
	tiny_visits(looped, 6);
	tiny_tensors(skip, LAYERS, NULL);
	ck_assert_msg(knit__decoder_config_read(&tiny.keys, tiny.store, &config, &d) == KNIT_OK, "%s", d.text);
}

static knit__decoder_desc describe(void) {
	return (knit__decoder_desc){.config = &config, .base = tiny.store, .max_tokens = 8, .max_outputs = 8, .device = "cpu"};
}

static void logits_of(const knit__decoder_desc *desc, size_t batch, float *out) {
	static const int32_t ids[TOKENS] = {3, 15, 0, 7, 7, 1, 9}, seq[TOKENS], rows[TOKENS] = {0, 1, 2, 3, 4, 5, 6},
						 pos[TOKENS] = {0, 1, 2, 3, 4, 5, 6};
	knit__decoder d;
	knit_diag diag = {0};

	ck_assert_msg(knit__decoder_open(tiny.ctx, desc, &d, &diag) == KNIT_OK, "%s", diag.text);
	for (size_t at = 0; at < TOKENS; at += batch) {
		const size_t n = TOKENS - at < batch ? TOKENS - at : batch;

		ck_assert_msg(knit__decoder_step(&d, ids + at, seq, pos + at, n, rows, n, out + at * VOCAB, &diag) == KNIT_OK, "%s",
					  diag.text);
	}
	knit__decoder_close(&d);
}

/* State bytes are slots x sequences x cells x (a row of keys and one of values), whatever the policy, types and window. */
START_TEST(bytes_are_what_the_formula_says) {
	static const char *const specs[] = {"f16",       "visit,f32",        "layer,f16",          "first,k=f32,v=f16",
										"group:1",   "group:2,bf16",     "f16,window=5",       "layer,window=6,sinks=2",
										"group:2,k=bf16,v=f32,window=3,sinks=1", "first,window=1000"};
	static const uint32_t slots[] = {6, 6, 2, 2, 6, 3, 6, 2, 3, 2};

	tiny_open();
	open_model(NULL);
	for (size_t i = 0; i < sizeof specs / sizeof *specs; ++i) {
		for (int64_t sequences = 1; sequences <= 3; sequences += 2) {
			for (int64_t positions = 0; positions <= 20; positions += 10) {
				knit__decoder_desc desc = describe();
				knit__kv_spec spec;
				knit_program *p;
				knit_memory m;
				knit_diag d = {0};

				ck_assert_int_eq(knit__kv_parse(specs[i], &spec, NULL), KNIT_OK);
				config.kv_policy = spec.policy;
				config.kv_group = spec.group;
				desc.kv_k = spec.k ? spec.k : KNIT_F16;
				desc.kv_v = spec.v ? spec.v : KNIT_F16;
				desc.window = spec.window;
				desc.sinks = spec.sinks;
				desc.sequences = sequences;
				desc.positions = positions;
				ck_assert_msg(knit__decoder_compile(tiny.ctx, &desc, &p, &d) == KNIT_OK, "%s: %s", specs[i], d.text);
				knit_program_memory(p, &m);
				knit_program_release(p);

				const int64_t ring = spec.window + 8 - 1 + spec.sinks, most = positions ? positions : CONTEXT;
				const int64_t cells = !spec.window                      ? most
									  : positions && positions <= ring ? positions
																		: ring;
				const uint64_t row = (desc.kv_k == KNIT_F32 ? 4 : 2) * ROW + (desc.kv_v == KNIT_F32 ? 4 : 2) * ROW;
				ck_assert_uint_eq(m.state_bytes, slots[i] * (uint64_t)(sequences * cells) * row);
				ck_assert_uint_eq(knit__decoder_kv_bytes(&config, desc.kv_k, desc.kv_v), slots[i] * row);
			}
		}
	}
	tiny_close();
}
END_TEST

/* The same of the bundled model, whose rows hold whole blocks: every policy, every pair of types, plain slots and rings. */
START_TEST(bytes_of_every_pair_of_types) {
	enum { TYPES = 5, POLICIES = 6, VISITS = 12, KV_ROW = 128, MAX_TOKENS = 8 };
	static const knit_dtype types[TYPES] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0};
	static const uint64_t row_bytes[TYPES] = {4 * KV_ROW, 2 * KV_ROW, 2 * KV_ROW, KV_ROW / 32 * 34, KV_ROW / 32 * 18};
	static const struct { knit__kv_policy policy; uint32_t group; uint64_t slots; } policies[POLICIES] = {
		{KNIT__KV_VISIT, 0, VISITS}, {KNIT__KV_LAYER, 0, 4},  {KNIT__KV_FIRST, 0, 4},
		{KNIT__KV_GROUP, 1, VISITS}, {KNIT__KV_GROUP, 2, 6}, {KNIT__KV_GROUP, 4, 3},
	};
	knit_context *ctx = NULL;
	knit__model m;
	knit_diag d = {0};

	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_msg(knit__model_load(ctx, &(knit__model_desc){.path = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf"}, &m,
								   &d) == KNIT_OK,
				  "%s", d.text);
	ck_assert(m.config.visit_count == VISITS && m.config.kv_heads * m.config.head_dim == KV_ROW);
	for (uint32_t i = 0; i < TYPES * TYPES + TYPES * POLICIES; ++i) {
		/* All pairs with one policy or another, then all policies with one type. */
		const uint32_t pair = i < TYPES * TYPES ? i : (i - TYPES * TYPES) / POLICIES * (TYPES + 1);
		const uint32_t k = pair / TYPES, v = pair % TYPES, p = i < TYPES * TYPES ? i % POLICIES : (i - TYPES * TYPES) % POLICIES;
		const bool ring = i % 3 == 1;
		const knit__decoder_desc desc = {.config = &m.config, .base = m.file.store, .adapters = m.adapters,
										 .sequences = 1 + i % 2, .positions = ring ? 0 : 77, .max_tokens = MAX_TOKENS,
										 .kv_k = types[k], .kv_v = types[v], .window = ring ? 20 : 0, .sinks = ring ? 3 : 0,
										 .device = "cpu", .plan_only = true};
		const uint64_t cells = ring ? 3 + 20 + MAX_TOKENS - 1 : 77, row = row_bytes[k] + row_bytes[v];
		knit_program *program;
		knit_memory memory;

		m.config.kv_policy = policies[p].policy;
		m.config.kv_group = policies[p].group;
		ck_assert_msg(knit__decoder_compile(ctx, &desc, &program, &d) == KNIT_OK, "%s", d.text);
		knit_program_memory(program, &memory);
		knit_program_release(program);
		ck_assert_uint_eq(memory.state_bytes, policies[p].slots * (1 + i % 2) * cells * row);
		ck_assert_uint_eq(knit__decoder_kv_bytes(&m.config, types[k], types[v]), policies[p].slots * row);
	}
	knit__model_unload(&m);
	knit_context_destroy(ctx);
}
END_TEST

typedef struct origins { char text[1 << 17]; size_t bytes; } origins;

static void collect(void *user, const char *text, size_t bytes) {
	origins *o = user;

	ck_assert_uint_lt(o->bytes + bytes, sizeof o->text);
	memcpy(o->text + o->bytes, text, bytes);
	o->text[o->bytes += bytes] = '\0';
}

/* A visit that only reads has neither projections of keys and values nor appends; the others have both. */
START_TEST(readers_have_no_projections) {
	static origins o;
	knit__decoder_desc desc = describe();
	knit_graph *g = NULL;
	char name[64];

	tiny_open();
	open_model(NULL);
	desc.base = tiny.store;
	config.kv_policy = KNIT__KV_FIRST;
	ck_assert_int_eq(knit__decoder_graph(tiny.ctx, &desc, &g, NULL), KNIT_OK);
	o.bytes = 0;
	ck_assert_int_eq(knit_graph_print(g, KNIT_GRAPH_TEXT, collect, &o), KNIT_OK);
	for (unsigned v = 0; v < 6; ++v) {
		snprintf(name, sizeof name, "visit.%u.blk.%u.attn_k", v, v % 2);
		ck_assert((strstr(o.text, name) != NULL) == (v < 2));
		snprintf(name, sizeof name, "visit.%u.blk.%u.attn_v", v, v % 2);
		ck_assert((strstr(o.text, name) != NULL) == (v < 2));
		snprintf(name, sizeof name, "visit.%u.blk.%u.attn_q", v, v % 2);
		ck_assert(strstr(o.text, name) != NULL);
	}
	knit_graph_destroy(g);
	tiny_close();
}
END_TEST

/* Where no two visits share, every policy is the default, bit for bit; where they do, it is not. Except for `layer`, whose
 * visits see what the tokens before them left, it does not matter how the tokens are cut into steps. */
START_TEST(policies_compute_what_they_say) {
	static const struct {
		knit__kv_policy policy;
		uint32_t group;
		bool differs, depends_on_steps;
	} rows[] = {
		{KNIT__KV_MODEL, 0, false, false}, {KNIT__KV_VISIT, 0, false, false}, {KNIT__KV_GROUP, 1, false, false},
		{KNIT__KV_LAYER, 0, true, true},   {KNIT__KV_FIRST, 0, true, false},  {KNIT__KV_GROUP, 2, true, false},
	};
	float want[TOKENS * VOCAB], got[TOKENS * VOCAB], cut[TOKENS * VOCAB];
	knit__decoder_desc desc = describe();

	tiny_open();
	open_model(NULL);
	desc.base = tiny.store;
	logits_of(&desc, TOKENS, want);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
		config.kv_policy = rows[i].policy;
		config.kv_group = rows[i].group;
		logits_of(&desc, TOKENS, got);
		/* In one step every visit of `layer` sees its own keys: nothing is left from a token before. */
		const bool differs = rows[i].differs && rows[i].policy != KNIT__KV_LAYER;
		ck_assert_msg((memcmp(want, got, sizeof got) != 0) == differs, "policy %d", (int)rows[i].policy);
		for (size_t batch = 1; batch < TOKENS; batch += 2) {
			logits_of(&desc, batch, cut);
			ck_assert_msg((memcmp(cut, got, sizeof got) != 0) == rows[i].depends_on_steps, "policy %d in steps of %zu",
						  (int)rows[i].policy, batch);
		}
	}
	tiny_close();
}
END_TEST

/* A window that holds everything changes nothing; a narrow one does. */
START_TEST(windows_of_a_decoder) {
	float want[TOKENS * VOCAB], got[TOKENS * VOCAB], cut[TOKENS * VOCAB];
	knit__decoder_desc desc = describe();

	tiny_open();
	open_model(NULL);
	desc.base = tiny.store;
	logits_of(&desc, TOKENS, want);
	desc.window = TOKENS;
	logits_of(&desc, TOKENS, got);
	ck_assert(memcmp(want, got, sizeof got) == 0);
	desc.window = 3;
	logits_of(&desc, TOKENS, got);
	ck_assert(memcmp(want, got, 3 * VOCAB * 4) == 0 && memcmp(want, got, sizeof got) != 0);
	for (size_t batch = 1; batch < 4; ++batch) {
		desc.max_tokens = (int64_t)batch; /* a ring of 3 to 5 cells */
		logits_of(&desc, batch, cut);
		ck_assert(memcmp(cut, got, sizeof got) == 0);
	}
	desc.sinks = 4;
	logits_of(&desc, 1, cut);
	for (int i = 0; i < TOKENS * VOCAB; ++i) /* 4 sinks and 3 of 7 positions are all, summed up apart */
		ck_assert_float_eq_tol(want[i], cut[i], 1e-5f);
	tiny_close();
}
END_TEST

/* ---- metadata ---------------------------------------------------------------------------------------------------- */

static void refused(knit_status status, const char *says) {
	knit_diag d = {0};

	tiny_tensors(NULL, LAYERS, NULL);
	ck_assert_int_eq(knit__decoder_config_read(&tiny.keys, tiny.store, &config, &d), status);
	ck_assert_msg(strstr(d.text, says) != NULL, "\"%s\" lacks \"%s\"", d.text, says);
	tiny_close();
}

static void start(void) {
	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_visits(looped, 6);
}

START_TEST(maps_from_a_file) {
	static const uint32_t slots[] = {5, 5, 7, 7, 7, 5}, few[] = {0, 1}, large[] = {0, 1, 2, 3, 4, 1024};
	static const uint8_t writes[] = {1, 0, 1, 1, 0, 0}, late[] = {0, 1, 1, 1, 1, 1}, odd[] = {1, 1, 1, 1, 1, 2};
	static const uint32_t first[] = {1, 0, 1, 0, 0, 0};
	knit__kv_map map;
	knit_diag d = {0};

	for (int with_writes = 0; with_writes < 2; ++with_writes) {
		tiny_open();
		put_numbers("knit.kv.slots", KNIT_METADATA_U32, slots, 6);
		if (with_writes)
			put_numbers("knit.kv.writes", KNIT_METADATA_BOOL, writes, 6);
		open_model(NULL);
		ck_assert_int_eq(knit__decoder_kv_map(&config, &map, NULL), KNIT_OK);
		for (int v = 0; v < 6; ++v)
			ck_assert(map.slot[v] == slots[v] && map.writes[v] == (with_writes ? writes[v] != 0 : first[v] != 0));
		ck_assert_uint_eq(knit__decoder_kv_bytes(&config, KNIT_F16, KNIT_F16), 2 * 2 * ROW * 2);
		/* A policy that is asked for goes before the file's; the file's map is for the file's visits. */
		config.kv_policy = KNIT__KV_VISIT;
		ck_assert_uint_eq(knit__decoder_kv_bytes(&config, KNIT_F16, KNIT_F16), 6 * 2 * ROW * 2);
		config.kv_policy = KNIT__KV_MODEL;
		ck_assert_int_eq(knit__decoder_config_loops(&config, 2, NULL), KNIT_OK);
		ck_assert_int_eq(knit__decoder_kv_map(&config, &map, &d), KNIT_ERR_UNSUPPORTED);
		ck_assert(strstr(d.text, "--kv visit") != NULL);
		tiny_close();
	}
	tiny_open();
	tiny_text("knit.kv.policy", "group:2");
	open_model(NULL);
	ck_assert_uint_eq(knit__decoder_kv_bytes(&config, KNIT_F16, KNIT_F16), 3 * 2 * ROW * 2);
	ck_assert_int_eq(knit__decoder_config_loops(&config, 2, NULL), KNIT_OK);
	ck_assert_uint_eq(knit__decoder_kv_bytes(&config, KNIT_F16, KNIT_F16), 2 * 2 * ROW * 2);
	tiny_close();

	start(), put_numbers("knit.kv.slots", KNIT_METADATA_U32, few, 2);
	refused(KNIT_ERR_FORMAT, "knit.kv.slots has 2 entries, the model has 6 visits");
	start(), put_numbers("knit.kv.slots", KNIT_METADATA_U32, large, 6);
	refused(KNIT_ERR_FORMAT, "knit.kv.slots: entry 5 is no number from 0 to 1023");
	start(), put_numbers("knit.kv.slots", KNIT_METADATA_U32, slots, 6), put_numbers("knit.kv.writes", KNIT_METADATA_U8, late, 6);
	refused(KNIT_ERR_FORMAT, "visit 0 reads KV slot 5");
	start(), put_numbers("knit.kv.slots", KNIT_METADATA_U32, slots, 6), put_numbers("knit.kv.writes", KNIT_METADATA_U8, odd, 6);
	refused(KNIT_ERR_FORMAT, "knit.kv.writes: entry 5");
	start(), put_numbers("knit.kv.writes", KNIT_METADATA_U8, writes, 6);
	refused(KNIT_ERR_FORMAT, "without knit.kv.slots");
	start(), put_numbers("knit.kv.slots", KNIT_METADATA_U32, slots, 6), tiny_text("knit.kv.policy", "visit");
	refused(KNIT_ERR_FORMAT, "needs one of them");
	start(), tiny_text("knit.kv.policy", "group:2,f16");
	refused(KNIT_ERR_FORMAT, "knit.kv.policy is \"group:2,f16\"");
	start(), tiny_u32("knit.kv.slots", 3);
	refused(KNIT_ERR_FORMAT, "knit.kv.slots");
}
END_TEST

/* Layers that only read may come without the projections; layers that write may not. */
START_TEST(layers_without_projections) {
	knit_diag d = {0};
	knit_graph *g = NULL;
	float logits[TOKENS * VOCAB];

	tiny_open();
	tiny_text("knit.kv.policy", "group:2");
	open_model("blk.1.attn_k.weight");
	knit__decoder_desc desc = describe();
	logits_of(&desc, TOKENS, logits);
	config.kv_policy = KNIT__KV_VISIT;
	ck_assert_int_eq(knit__decoder_graph(tiny.ctx, &desc, &g, &d), KNIT_ERR_NOT_FOUND);
	ck_assert_msg(strstr(d.text, "blk.1.attn_k.weight") != NULL, "%s", d.text);
	tiny_close();

	tiny_open();
	tiny_keys(NULL, NULL, 0);
	tiny_text("knit.kv.policy", "group:2");
	tiny_visits(looped, 6);
	tiny_tensors("blk.0.attn_v.weight", LAYERS, NULL);
	d = (knit_diag){0};
	ck_assert_int_eq(knit__decoder_config_read(&tiny.keys, tiny.store, &config, &d), KNIT_ERR_NOT_FOUND);
	ck_assert_msg(strstr(d.text, "blk.0.attn_v.weight") != NULL, "%s", d.text);
	tiny_close();
}
END_TEST

/* ---- how much fits ----------------------------------------------------------------------------------------------- */

static knit_status compiles(const knit__decoder_desc *desc, int64_t positions, uint64_t limit) {
	knit__decoder_desc at = *desc;
	knit_program *p;
	knit_diag d = {0};

	at.positions = positions;
	at.memory_limit = limit;
	const knit_status status = knit__decoder_compile(tiny.ctx, &at, &p, &d);
	knit_program_release(p);
	return status;
}

/* The program for that context keeps to the limit, the one for a position more does not; at every kind of limit. */
START_TEST(the_largest_context_is_exact) {
	knit__fit one, fit;
	knit_diag d = {0};

	tiny_open();
	open_model(NULL);
	knit__decoder_desc desc = describe();
	desc.kv = KNIT_F16;
	ck_assert_int_eq(knit__decoder_sum(tiny.ctx, &desc, 1, &one, &d), KNIT_OK);
	ck_assert_uint_eq(one.bytes_per_position, 6 * 2 * ROW * 2);
	for (uint64_t extra = 0; extra < 3000000; extra = extra * 3 + 101) {
		const uint64_t limit = one.total + extra;

		ck_assert_msg(knit__decoder_fit(tiny.ctx, &desc, limit, KNIT__MAX_CONTEXT, &fit, &d) == KNIT_OK, "%s", d.text);
		ck_assert(fit.total <= limit && fit.limit == limit);
		ck_assert_uint_eq(fit.total, fit.memory.weight_bytes + fit.memory.adapter_bytes + fit.memory.packed_bytes +
										 fit.memory.state_bytes + fit.memory.arena_bytes + fit.memory.io_bytes);
		ck_assert_int_eq(compiles(&desc, fit.positions, limit), KNIT_OK);
		ck_assert_int_eq(compiles(&desc, fit.positions + 1, limit), KNIT_ERR_LIMIT);
	}
	/* less than one position; more than any; no more than asked for */
	ck_assert_int_eq(knit__decoder_fit(tiny.ctx, &desc, one.total - 1, KNIT__MAX_CONTEXT, &fit, &d), KNIT_ERR_LIMIT);
	ck_assert(strstr(d.text, "not even one position fits") != NULL);
	ck_assert_uint_eq(fit.total, one.total);
	ck_assert_int_eq(knit__decoder_fit(tiny.ctx, &desc, UINT64_C(1) << 40, KNIT__MAX_CONTEXT, &fit, NULL), KNIT_OK);
	ck_assert_int_eq(fit.positions, KNIT__MAX_CONTEXT);
	ck_assert_int_eq(knit__decoder_fit(tiny.ctx, &desc, UINT64_C(1) << 40, 100, &fit, NULL), KNIT_OK);
	ck_assert_int_eq(fit.positions, 100);
	/* a window: once its cells fit, everything does */
	desc.window = 50;
	ck_assert_int_eq(knit__decoder_fit(tiny.ctx, &desc, one.total + 40 * one.bytes_per_position + 3000, KNIT__MAX_CONTEXT,
									   &fit, NULL), KNIT_OK);
	ck_assert_int_le(fit.positions, 57);
	ck_assert_int_eq(knit__decoder_fit(tiny.ctx, &desc, one.total + 57 * one.bytes_per_position + 30000, KNIT__MAX_CONTEXT,
									   &fit, NULL), KNIT_OK);
	ck_assert_int_eq(fit.positions, KNIT__MAX_CONTEXT);
	tiny_close();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {texts_are_read,
								  texts_are_written,
								  maps_by_policy,
								  bytes_are_what_the_formula_says,
								  bytes_of_every_pair_of_types,
								  readers_have_no_projections,
								  policies_compute_what_they_say,
								  windows_of_a_decoder,
								  maps_from_a_file,
								  layers_without_projections,
								  the_largest_context_is_exact};

	return suite_run("kv_policy", tests, (int)(sizeof tests / sizeof *tests));
}
