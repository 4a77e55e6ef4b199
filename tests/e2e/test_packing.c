/* Weights in a layout of the device's, from a file to logits: one packed copy for all visits, buckets, programs and
 * sessions; the file's own pages given back; the report true to the byte; results those of the plain layout. */
#include "../../backends/program.h"
#include "../../frontends/formats/gguf_write.h"
#include "../../frontends/formats/model_file.h"
#include "../tools/model_run.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DIM = 64, FF = 480, VOCAB = 32010, LOW = 32, VISITS = 3, TOKENS = 16, POSITIONS = 32, PANEL = 16 };

/* Of the file's tensors: which lie packed where there are panels, and what these are filled up with. No row count of the first
 * and no column count of the fourth is whole panels; the sixth would be mostly padding, and stays as it is. */
static const struct { const char *name; knit_dtype type; int64_t rows, columns; bool packed; uint64_t padding; } made[] = {
	{"embed", KNIT_Q8_0, VOCAB, DIM, true, (uint64_t)(PANEL - VOCAB % PANEL) * (DIM / 32 * 34)},
	{"up", KNIT_Q8_0, FF, DIM, true, 0},
	{"gate", KNIT_Q4_0, FF, DIM, true, 0},
	{"down", KNIT_Q4_0, DIM, FF, true, (uint64_t)DIM * 18},
	{"mix", KNIT_Q8_0, DIM, DIM, true, 0},
	{"few", KNIT_Q4_0, 20, DIM, false, 0},
	{"gain", KNIT_F32, 1, DIM, false, 0},
	{"low.a", KNIT_Q8_0, LOW, DIM, false, 0},
	{"low.b", KNIT_Q8_0, DIM, LOW, false, 0},
};
enum { MADE = sizeof made / sizeof *made, BASE = 7, PACKED = 5 };

static knit_context *ctx;
static char folder[32], path[64], states_path[64];
static knit_diag diag;

static void must(knit_status got) { ck_assert_msg(got == KNIT_OK, "%s: %s", knit_status_name(got), diag.text); }

static bool panels_here(void) {
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		return true;
#endif
	printf("SKIP: no kernel of this machine reads weights in panels\n");
	return false;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static uint64_t bytes_of(size_t i) {
	uint64_t bytes = 0;

	ck_assert(knit__dtype_bytes(made[i].type, (uint64_t)(made[i].rows * made[i].columns), &bytes));
	return bytes;
}

static uint64_t next(uint64_t *state) {
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Random blocks whose scales, powers of two, keep the size of what goes through; or ones. */
static void *contents(size_t i, uint64_t seed) {
	const size_t block = made[i].type == KNIT_Q8_0 ? 34 : 18, bytes = (size_t)bytes_of(i);
	unsigned char *const data = malloc(bytes);
	uint64_t state = seed * 1000 + i + 1;

	if (made[i].type == KNIT_F32) {
		for (int64_t k = 0; k < made[i].columns; ++k)
			((float *)(void *)data)[k] = 1;
		return data;
	}
	for (size_t at = 0; at < bytes; at += block) {
		const int exponent = (made[i].type == KNIT_Q8_0 ? 9 : 5) + (int)(next(&state) % 2);
		const uint16_t scale = (uint16_t)((15 - exponent) << 10);

		memcpy(data + at, &scale, 2);
		for (size_t k = 2; k < block; ++k)
			data[at + k] = (unsigned char)(next(&state) >> 32);
	}
	return data;
}

static void write_file(const knit_gguf_out *tensors, uint32_t count) {
	knit_metadata m;
	uint64_t size;

	knit__metadata_init(&m, &knit__default_allocator);
	const knit_gguf_write_desc desc = {.metadata = &m, .tensors = tensors, .count = count};
	must(knit__gguf_write(&knit__default_allocator, path, &desc, &size, &diag));
	knit__metadata_clear(&m);
}

static void begin(knit_context *context) {
	knit_gguf_out tensors[MADE];

	unsetenv("KNIT_CPU_ISA");
	ctx = context;
	if (!ctx)
		must(knit_context_create(&(knit_context_desc){.cpu_threads = 2}, &ctx));
	snprintf(folder, sizeof folder, "/tmp/knit-pack-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/model.gguf", folder);
	snprintf(states_path, sizeof states_path, "%s/states", folder);
	for (uint32_t i = 0; i < MADE; ++i)
		tensors[i] = (knit_gguf_out){made[i].name, made[i].type, made[i].type == KNIT_F32 ? 1 : 2,
		                             {made[i].type == KNIT_F32 ? made[i].columns : made[i].rows, made[i].columns},
		                             contents(i, 1), bytes_of(i), i};
	write_file(tensors, MADE);
	for (uint32_t i = 0; i < MADE; ++i)
		free((void *)(uintptr_t)tensors[i].data);
}

static void end(void) {
	knit_context_destroy(ctx);
	unlink(path);
	unlink(states_path);
	ck_assert_int_eq(rmdir(folder), 0);
}

static knit_weights *open_weights(void) {
	knit_weights *store = NULL;

	must(knit_weights_open(ctx, path, &store, &diag));
	return store;
}

/* What of the mapped file is in memory, in bytes. */
static uint64_t resident(void) {
	FILE *const f = fopen("/proc/self/smaps", "r");
	uint64_t sum = 0, kib;
	bool mine = false;
	char line[512];

	if (!f)
		return UINT64_MAX;
	while (fgets(line, sizeof line, f)) {
		if (strchr(line, '-') && strchr(line, '-') < strchr(line, ' '))
			mine = strstr(line, path) != NULL;
		else if (mine && sscanf(line, "Rss: %" SCNu64, &kib) == 1)
			sum += kib * 1024;
	}
	fclose(f);
	return sum;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

/* Visit v takes its weights from stores[v]. */
static knit_graph *build(knit_weights *const stores[VISITS]) {
	knit_graph *g;

	must(knit_graph_create(ctx, &g));
	const knit_dim tokens = knit_sym(g, "tokens", 1, TOKENS);
	const knit_tensor ids = knit_input(g, "ids", KNIT_I32, 1, &tokens), seq = knit_input(g, "seq", KNIT_I32, 1, &tokens);
	const knit_tensor pos = knit_input(g, "pos", KNIT_I32, 1, &tokens);
	const knit_dim cells[] = {knit_n(1), knit_n(POSITIONS), knit_n(DIM)};
	const knit_state seen = knit_state_define(g, KNIT_F32, 3, cells, "seen");
	knit_tensor x = knit_gather(g, knit_weight(g, stores[0], "embed"), ids);

	for (int v = 0; v < VISITS; ++v) {
		const knit_tensor h = knit_rms_norm(g, x, knit_weight(g, stores[v], "gain"), 1e-5f);
		const knit_tensor up = knit_linear(g, h, knit_weight(g, stores[v], "up"));
		const knit_tensor gate = knit_silu(g, knit_linear(g, h, knit_weight(g, stores[v], "gate")));
		x = knit_add(g, x, knit_linear(g, knit_mul(g, gate, up), knit_weight(g, stores[v], "down")));
		x = knit_add(g, x, knit_linear(g, knit_linear(g, x, knit_adapter(g, stores[0], "low.a")),
		                               knit_adapter(g, stores[0], "low.b")));
		x = knit_linear(g, x, knit_weight(g, stores[v], "mix"));
	}
	knit_state_append(g, seen, x, seq, pos);
	knit_output(g, "few", knit_linear(g, x, knit_weight(g, stores[0], "few")));
	knit_output(g, "logits", knit_linear(g, x, knit_weight(g, stores[0], "embed")));
	must(knit_graph_status(g, &diag));
	return g;
}

static knit_graph *build_tied(knit_weights *store) {
	knit_weights *const stores[VISITS] = {store, store, store};

	return build(stores);
}

static const knit_bucket decode_prefill[] = {{"tokens", 1, 1}, {"tokens", 2, TOKENS}};

static knit_program *compile(const knit_graph *g, const char *disable) {
	const knit_compile_desc desc = {
		.device = "cpu", .buckets = decode_prefill, .bucket_count = 2, .disable_passes = disable};
	knit_program *p = NULL;

	must(knit_compile(g, &desc, &p, &diag));
	return p;
}

static knit_session *session_of(knit_program *p) {
	knit_session *s = NULL;

	must(knit_session_create(p, &s, &diag));
	return s;
}

/* Logits of TOKENS tokens in batches; the caller frees them. */
static float *logits(knit_session *s, size_t batch) {
	float *const out = malloc(sizeof(float) * TOKENS * VOCAB);
	int32_t ids[TOKENS], seq[TOKENS] = {0}, pos[TOKENS];

	for (int i = 0; i < TOKENS; ++i) {
		ids[i] = i * 1237 % VOCAB;
		pos[i] = i;
	}
	ids[TOKENS - 1] = VOCAB - 1;
	for (size_t at = 0; at < TOKENS; at += batch) {
		must(knit_session_set(s, "tokens", (int64_t)batch));
		must(knit_session_write(s, "ids", ids + at, batch * 4));
		must(knit_session_write(s, "seq", seq + at, batch * 4));
		must(knit_session_write(s, "pos", pos + at, batch * 4));
		must(knit_session_run(s));
		must(knit_session_read(s, "logits", out + at * VOCAB, batch * VOCAB * 4));
	}
	return out;
}

static float *logits_of(knit_program *p, size_t batch) {
	knit_session *const s = session_of(p);
	float *const out = logits(s, batch);

	knit_session_destroy(s);
	return out;
}

static bool same_bits(const float *a, const float *b) { return memcmp(a, b, sizeof(float) * TOKENS * VOCAB) == 0; }

static double largest(const float *a) {
	double most = 0;

	for (size_t i = 0; i < (size_t)TOKENS * VOCAB; ++i)
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

	if (!panels_here())
		return;
	begin(NULL);
	knit_weights *const store = open_weights();
	knit_graph *const g = build_tied(store);
	const uint64_t before = knit__weight_work.packs;
	p[0] = compile(g, NULL);
	ck_assert_uint_eq(knit__weight_work.packs, before + PACKED);
	p[1] = compile(g, "fuse_linear,merge_siblings");
	for (int i = 0; i < 4; ++i) {
		knit_counters c;
		s[i] = session_of(p[i / 2]);
		out[i] = logits(s[i], i % 2 ? TOKENS : 1);
		knit_session_counters(s[i], &c);
		ck_assert_uint_eq(c.packs, 0);
		ck_assert_uint_eq(c.uploads, 0);
	}
	ck_assert_uint_eq(knit__weight_work.packs, before + PACKED);
	ck_assert(same_bits(out[0], out[1]) && same_bits(out[0], out[2]) && same_bits(out[0], out[3]));
	for (uint32_t i = 0; i < p[0]->buffer_count; ++i)
		ck_assert_ptr_eq(p[0]->weights[i], p[1]->weights[i]);
	must(knit__device_open(ctx, "cpu", &o, &diag));
	ck_assert_uint_eq(o->weight_count, MADE);

	/* When the last user goes the copies go; packing again reads pages that were given back. */
	for (int i = 0; i < 4; ++i)
		knit_session_destroy(s[i]);
	knit_program_release(p[0]);
	ck_assert_uint_eq(o->weight_count, MADE);
	knit_program_release(p[1]);
	ck_assert_uint_eq(o->weight_count, 0);
	p[0] = compile(g, NULL);
	ck_assert_uint_eq(knit__weight_work.packs, before + 2 * PACKED);
	float *const again = logits_of(p[0], 4);
	ck_assert(same_bits(out[0], again));
	free(again);
	for (int i = 0; i < 4; ++i)
		free(out[i]);
	knit_program_release(p[0]);
	knit_graph_destroy(g);
	knit_weights_release(store);
	end();
}
END_TEST

/* An adapter's weights are read as they lie: binding another one packs, allocates and uploads nothing. */
START_TEST(adapters_are_not_packed) {
	knit_adapter_set *set = NULL;
	knit_weights *other = NULL;
	knit_counters c;

	begin(NULL);
	knit_weights *const store = open_weights();
	knit_graph *const g = build_tied(store);
	knit_program *const p = compile(g, NULL);
	for (uint32_t i = 0; i < p->buffer_count; ++i)
		if (p->buckets[0].schedule->buffers[i].kind == KNIT_STORAGE_ADAPTER)
			ck_assert_uint_eq(p->buckets[0].schedule->buffers[i].layout, 0);
	must(knit_weights_create(ctx, &other));
	for (size_t i = BASE; i < MADE; ++i) {
		void *const data = contents(i, 2);
		must(knit_weights_add(other, made[i].name, made[i].type, 2, (int64_t[]){made[i].rows, made[i].columns}, data,
		                      (size_t)bytes_of(i), &diag));
		free(data);
	}
	must(knit_adapter_open(p, other, &set, &diag));
	knit_session *const s = session_of(p);
	float *const a = logits(s, TOKENS);
	must(knit_session_bind_adapter(s, set));
	float *const b = logits(s, TOKENS);
	must(knit_session_bind_adapter(s, NULL));
	float *const back = logits(s, TOKENS);
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
	end();
}
END_TEST

/* ---- results ----------------------------------------------------------------------------------------------------- */

START_TEST(results_are_those_of_the_plain_layout) {
	static const char *const isas[] = {"plain", "avx2", "avx512"};

	for (size_t i = 0; i < sizeof isas / sizeof *isas; ++i) {
		begin(NULL);
		setenv("KNIT_CPU_ISA", isas[i], 1);
		knit_weights *const store = open_weights();
		knit_graph *const g = build_tied(store);
		knit_program *const packed = compile(g, NULL), *const plain = compile(g, "layout");
		float *const a = logits_of(packed, TOKENS), *const b = logits_of(plain, TOKENS);
		float *const one = logits_of(packed, 1), *const four = logits_of(packed, 4);
		const double off = test_largest_difference(a, b, (size_t)TOKENS * VOCAB), size = largest(b);

		printf("%s: packed and plain off by %.1e of %.3g\n", isas[i], off, size);
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
		end();
	}
}
END_TEST

/* One weight visited three times against three weights with the same bytes, each packed for itself. */
START_TEST(looped_equals_copied) {
	knit_weights *stores[VISITS];
	knit_memory one, many;

	if (!panels_here())
		return;
	begin(NULL);
	for (int v = 0; v < VISITS; ++v)
		stores[v] = open_weights();
	knit_graph *const tied = build_tied(stores[0]), *const copied = build(stores);
	knit_program *const a = compile(tied, NULL), *const b = compile(copied, "dedup_weights"), *const c = compile(copied, NULL);
	float *const x = logits_of(a, TOKENS), *const y = logits_of(b, TOKENS), *const z = logits_of(c, TOKENS);

	ck_assert(same_bits(x, y) && same_bits(x, z));
	knit_program_memory(a, &one);
	knit_program_memory(b, &many);
	ck_assert_uint_eq(one.packed_storages, PACKED);
	ck_assert_uint_eq(many.packed_storages, PACKED + (VISITS - 1) * 4); /* all but the embedding */
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
	for (int v = 0; v < VISITS; ++v)
		knit_weights_release(stores[v]);
	end();
}
END_TEST

/* ---- figures ----------------------------------------------------------------------------------------------------- */

typedef struct pieces { char *text; size_t bytes, cap; } pieces;

static void take(void *user, const char *text, size_t bytes) {
	pieces *p = user;

	if (p->bytes + bytes + 1 > p->cap) {
		p->cap = (p->bytes + bytes + 1) * 2;
		p->text = realloc(p->text, p->cap);
	}
	memcpy(p->text + p->bytes, text, bytes);
	p->bytes += bytes;
	p->text[p->bytes] = '\0';
}

static uint64_t number(const cJSON *object, const char *name) {
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

	return cJSON_IsNumber(item) ? (uint64_t)item->valuedouble : 0;
}

static uint64_t unique_bytes(const knit_weights *store) {
	knit_weight_info info;
	uint64_t sum = 0;

	for (size_t i = 0; knit_weights_at(store, i, &info) == KNIT_OK; ++i)
		sum += info.storage == i ? info.bytes : 0;
	return sum;
}

static void check_items(const knit_program *p, const knit_memory *m) {
	uint64_t packed = 0, padding = 0;
	pieces got = {0};
	const cJSON *item;

	must(knit_program_report(p, NULL, take, &got));
	cJSON *const root = cJSON_Parse(got.text);
	ck_assert(cJSON_IsObject(root));
	cJSON_ArrayForEach(item, cJSON_GetObjectItem(root, "storages")) {
		packed += number(item, "packed_bytes");
		padding += number(item, "padding_bytes");
		for (size_t i = 0; i < MADE; ++i) {
			if (strcmp(made[i].name, cJSON_GetObjectItem(item, "name")->valuestring) != 0 || m->packed_storages != PACKED)
				continue;
			ck_assert_uint_eq(number(item, "layout") != 0, made[i].packed);
			ck_assert_uint_eq(number(item, "padding_bytes"), made[i].padding);
		}
	}
	const cJSON *const memory = cJSON_GetObjectItem(root, "memory");
	ck_assert_uint_eq(packed, m->packed_bytes);
	ck_assert_uint_eq(padding, m->padding_bytes);
	ck_assert_uint_eq(number(memory, "packed_bytes"), m->packed_bytes);
	ck_assert_uint_eq(number(memory, "padding_bytes"), m->padding_bytes);
	ck_assert_uint_eq(number(memory, "packed_storages"), m->packed_storages);
	cJSON_Delete(root);
	free(got.text);
}

/* Resident: the file's unique bytes and the padding, to the byte, in the report and (in pages) in the process. */
START_TEST(weights_cost_their_unique_bytes_and_padding) {
	const int64_t used = TOKENS;
	knit_memory m, plain;
	uint64_t padding = 0, unique = 0;

	if (!panels_here())
		return;
	begin(NULL);
	for (size_t i = 0; i < MADE; ++i) {
		padding += made[i].padding;
		unique += bytes_of(i);
	}
	knit_weights *const store = open_weights();
	knit_graph *const g = build_tied(store);
	knit_program *p = compile(g, "layout");
	knit_program_memory(p, &plain);
	free(logits_of(p, TOKENS));
	const uint64_t before = resident();
	check_items(p, &plain);
	knit_program_release(p);
	p = compile(g, NULL);
	knit_program_memory(p, &m);
	check_items(p, &m);
	ck_assert_uint_eq(unique_bytes(store), unique);
	ck_assert_uint_eq(m.weight_bytes + m.adapter_bytes, unique);
	ck_assert_uint_eq(m.packed_bytes, padding);
	ck_assert_uint_eq(m.padding_bytes, padding);
	ck_assert_uint_eq(m.packed_storages, PACKED);
	ck_assert_uint_eq(m.weight_storages, BASE);
	ck_assert_uint_eq(plain.weight_bytes, m.weight_bytes);
	ck_assert_uint_eq(plain.packed_bytes + plain.packed_storages + plain.padding_bytes, 0);

	/* Saving hashes the weights: what that reads is given back too. */
	knit_session *const s = session_of(p);
	free(logits(s, TOKENS));
	const uint64_t compiled = resident();
	must(knit_session_save_states(s, states_path, &used, 1, NULL, 0));
	const uint64_t saved = resident();
	if (before == UINT64_MAX) {
		printf("SKIP: no /proc/self/smaps to see pages in\n");
	} else {
		printf("of %" PRIu64 " bytes of weights resident in the mapping: %" PRIu64 " plain, %" PRIu64 " packed, %" PRIu64
		       " after saving\n", unique, before, compiled, saved);
		ck_assert_uint_ge(before, unique * 9 / 10);
		ck_assert_uint_le(compiled, unique / 2);
		ck_assert_uint_le(saved, unique / 2);
	}
	knit_session_destroy(s);
	knit_program_release(p);
	knit_graph_destroy(g);
	knit_weights_release(store);
	end();
}
END_TEST

/* A file of floats: nothing to pack, nothing more than what is in it. */
START_TEST(the_bundled_model_costs_its_unique_bytes) {
	const knit__model_desc model = {.path = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf"};
	knit_memory m;
	model_run r;

	model_run_open(&r, &model, (knit__decoder_desc){.positions = 16, .max_tokens = 4}, 1);
	knit_program_memory(r.decoder.program, &m);
	ck_assert_uint_eq(m.weight_bytes + m.adapter_bytes, unique_bytes(r.model.file.store));
	ck_assert_uint_eq(m.packed_bytes + m.padding_bytes + m.packed_storages, 0);
	model_run_close(&r);
}
END_TEST

/* ---- the same bytes twice ---------------------------------------------------------------------------------------- */

enum { ROWS = 64, COLUMNS = 128, BYTES = ROWS * COLUMNS / 32 * 34 };

/* y = x w^T of a matrix of the file, and, where that is wanted, z of the same matrix as an adapter's. */
static knit_graph *build_one(knit_weights *store, const char *name, int64_t columns, bool adapter) {
	knit_graph *g;

	must(knit_graph_create(ctx, &g));
	const knit_dim in[] = {knit_sym(g, "tokens", 1, TOKENS), knit_n(columns)};
	const knit_tensor x = knit_input(g, "x", KNIT_F32, 2, in);
	knit_output(g, "y", knit_linear(g, x, knit_weight(g, store, "%s", name)));
	if (adapter)
		knit_output(g, "z", knit_linear(g, x, knit_adapter(g, store, "%s", name)));
	must(knit_graph_status(g, &diag));
	return g;
}

static void run_one(knit_program *p, int64_t columns, float *y) {
	static float x[3 * COLUMNS];
	knit_session *const s = session_of(p);

	for (int i = 0; i < 3 * COLUMNS; ++i)
		x[i] = (float)(i * 37 % 101 - 50) / 50;
	must(knit_session_set(s, "tokens", 3));
	must(knit_session_write(s, "x", x, (size_t)(3 * columns) * 4));
	must(knit_session_run(s));
	must(knit_session_read(s, "y", y, (size_t)(3 * ROWS * COLUMNS / columns) * 4));
	knit_session_destroy(s);
}

static void same_as_plain(knit_program *packed, const knit_graph *g, int64_t columns) {
	static float a[3 * COLUMNS], b[3 * COLUMNS];
	const size_t count = (size_t)(3 * ROWS * COLUMNS / columns);
	knit_program *const plain = compile(g, "layout");

	run_one(packed, columns, a);
	run_one(plain, columns, b);
	ck_assert(test_largest_difference(a, b, count) <= 1e-4 && fabs((double)a[1]) > 1e-3);
	knit_program_release(plain);
}

/* Equal bytes are one storage of the file; panels differ by the shape that a program knows them under. Where they are read as
 * they lie too, here as an adapter's, they stay, and the panels are a second copy. */
START_TEST(equal_bytes_in_two_ways) {
	unsigned char data[BYTES];
	const knit_gguf_out tensors[] = {{"wide", KNIT_Q8_0, 2, {ROWS, COLUMNS}, data, BYTES, 0},
	                                 {"tall", KNIT_Q8_0, 2, {COLUMNS, ROWS}, data, BYTES, 1}};
	knit_program *p[3];
	knit_graph *g[3];
	knit_memory m;

	if (!panels_here())
		return;
	begin(NULL);
	for (size_t i = 0; i < BYTES; ++i)
		data[i] = i % 34 == 0 ? 0 : i % 34 == 1 ? (15 - 9) << 2 : (unsigned char)(i * i / 7);
	write_file(tensors, 2);
	knit_weights *const store = open_weights();
	for (int i = 0; i < 3; ++i) {
		g[i] = build_one(store, i == 1 ? "tall" : "wide", i == 1 ? ROWS : COLUMNS, i == 2);
		p[i] = compile(g[i], NULL);
	}
	for (int i = 0; i < 3; ++i) {
		knit_program_memory(p[i], &m);
		ck_assert_uint_eq(m.weight_bytes, BYTES);
		ck_assert_uint_eq(m.packed_storages, 1);
		ck_assert_uint_eq(m.padding_bytes, 0);
		ck_assert_uint_eq(m.packed_bytes, i == 2 ? BYTES : 0);
		check_items(p[i], &m);
		same_as_plain(p[i], g[i], i == 1 ? ROWS : COLUMNS);
	}
	for (int i = 0; i < 3; ++i) {
		knit_program_release(p[i]);
		knit_graph_destroy(g[i]);
	}
	knit_weights_release(store);
	end();
}
END_TEST

/* Bytes that a caller has handed over cannot be given back: the panels are a second copy, and the report says so. */
START_TEST(bytes_of_no_file) {
	static const unsigned char data[46 * 68];
	knit_weights *store = NULL;
	knit_memory m;

	if (!panels_here())
		return;
	begin(NULL);
	must(knit_weights_create(ctx, &store));
	must(knit_weights_add(store, "w", KNIT_Q8_0, 2, (int64_t[]){46, 64}, data, sizeof data, &diag));
	knit_graph *const g = build_one(store, "w", 64, false);
	knit_program *const p = compile(g, NULL);
	knit_program_memory(p, &m);
	ck_assert_uint_eq(m.weight_bytes, 46 * 68);
	ck_assert_uint_eq(m.packed_bytes, 48 * 68);
	ck_assert_uint_eq(m.padding_bytes, 2 * 68);
	check_items(p, &m);
	knit_program_release(p);
	knit_graph_destroy(g);
	knit_weights_release(store);
	end();
}
END_TEST

/* ---- failing ----------------------------------------------------------------------------------------------------- */

START_TEST(failing_allocations) {
	knit_status status = KNIT_ERR_MEMORY;
	track_alloc track = {0};
	uint64_t n = 0;

	setenv("KNIT_GUARD", "0", 1); /* it remembers what was destroyed */
	begin(track_context(&track));
	knit_weights *const store = open_weights();
	knit_graph *const g = build_tied(store);
	knit_program *p = compile(g, NULL); /* the device is open from here on */
	knit_program_release(p);
	for (; status != KNIT_OK; ++n) {
		const knit_compile_desc desc = {.device = "cpu", .buckets = decode_prefill, .bucket_count = 2};
		const uint64_t live = track.live;

		track.fail_at = track.count + 1 + n;
		status = knit_compile(g, &desc, &p, &diag);
		track.fail_at = 0;
		ck_assert_msg(status == KNIT_OK || status == KNIT_ERR_MEMORY, "%s: %s", knit_status_name(status), diag.text);
		ck_assert_msg(status == KNIT_OK || (track.live == live && !p), "allocation %" PRIu64 ": %" PRIu64 " bytes lost, %s", n,
		              track.live - live, diag.text);
	}
	ck_assert_uint_gt(n, 50);
	knit_program_release(p);
	knit_graph_destroy(g);
	knit_weights_release(store);
	end();
	unsetenv("KNIT_GUARD");
	ck_assert_uint_eq(track.live, 0);
	ck_assert(!track.bad_free);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		one_packed_copy_for_all,
		adapters_are_not_packed,
		results_are_those_of_the_plain_layout,
		looped_equals_copied,
		weights_cost_their_unique_bytes_and_padding,
		the_bundled_model_costs_its_unique_bytes,
		equal_bytes_in_two_ways,
		bytes_of_no_file,
		failing_allocations,
	};

	return suite_run("packing", tests, sizeof tests / sizeof *tests);
}
