/* What weights in a layout of the device's cost: the report true to the byte, padding itemised; the file's own pages given back;
 * equal bytes that are read in two ways; bytes that cannot be given back. */
#include "../tools/model_run.h"
#include "../tools/packed_model.h"
#include "../tools/report.h"
#include "../tools/suite.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
			mine = strstr(line, pack_env.path) != NULL;
		else if (mine && sscanf(line, "Rss: %" SCNu64, &kib) == 1)
			sum += kib * 1024;
	}
	fclose(f);
	return sum;
}

/* ---- figures ----------------------------------------------------------------------------------------------------- */

/* A storage that lies as in its file has no figures of a layout. */
static uint64_t number_or_0(const cJSON *object, const char *name) {
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
	const cJSON *item;

	cJSON *const root = report_of(p, NULL);
	cJSON_ArrayForEach(item, cJSON_GetObjectItem(root, "storages")) {
		packed += number_or_0(item, "packed_bytes");
		padding += number_or_0(item, "padding_bytes");
		for (size_t i = 0; i < PACK_MADE; ++i) {
			if (strcmp(pack_made[i].name, cJSON_GetObjectItem(item, "name")->valuestring) != 0 || m->packed_storages != PACK_PACKED)
				continue;
			ck_assert_uint_eq(number_or_0(item, "layout") != 0, pack_made[i].packed);
			ck_assert_uint_eq(number_or_0(item, "padding_bytes"), pack_made[i].padding);
		}
	}
	const cJSON *const memory = cJSON_GetObjectItem(root, "memory");
	ck_assert_uint_eq(packed, m->packed_bytes);
	ck_assert_uint_eq(padding, m->padding_bytes);
	ck_assert_uint_eq(report_number(memory, "packed_bytes"), m->packed_bytes);
	ck_assert_uint_eq(report_number(memory, "padding_bytes"), m->padding_bytes);
	ck_assert_uint_eq(report_number(memory, "packed_storages"), m->packed_storages);
	cJSON_Delete(root);
}

/* Resident: the file's unique bytes and the padding, to the byte, in the report and (in pages) in the process. */
START_TEST(weights_cost_their_unique_bytes_and_padding) {
	const int64_t used = PACK_TOKENS;
	knit_memory m, plain;
	uint64_t padding = 0, unique = 0;

	if (!pack_panels_here())
		return;
	pack_begin(NULL);
	for (size_t i = 0; i < PACK_MADE; ++i) {
		padding += pack_made[i].padding;
		unique += pack_bytes(i);
	}
	knit_weights *const store = pack_weights();
	knit_graph *const g = pack_graph_tied(store);
	knit_program *p = pack_compile(g, "layout");
	knit_program_memory(p, &plain);
	free(pack_logits_of(p, PACK_TOKENS));
	const uint64_t before = resident();
	check_items(p, &plain);
	knit_program_release(p);
	p = pack_compile(g, NULL);
	knit_program_memory(p, &m);
	check_items(p, &m);
	ck_assert_uint_eq(unique_bytes(store), unique);
	ck_assert_uint_eq(m.weight_bytes + m.adapter_bytes, unique);
	ck_assert_uint_eq(m.packed_bytes, padding);
	ck_assert_uint_eq(m.padding_bytes, padding);
	ck_assert_uint_eq(m.packed_storages, PACK_PACKED);
	ck_assert_uint_eq(m.weight_storages, PACK_BASE);
	ck_assert_uint_eq(plain.weight_bytes, m.weight_bytes);
	ck_assert_uint_eq(plain.packed_bytes + plain.packed_storages + plain.padding_bytes, 0);

	/* Saving hashes the weights: what that reads is given back too. */
	knit_session *const s = pack_session(p);
	free(pack_logits(s, PACK_TOKENS));
	const uint64_t compiled = resident();
	pack_ok(knit_session_save_states(s, pack_env.states_path, &used, 1, NULL, 0));
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
	pack_end();
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

	pack_ok(knit_graph_create(pack_env.ctx, &g));
	const knit_dim in[] = {knit_sym(g, "tokens", 1, PACK_TOKENS), knit_n(columns)};
	const knit_tensor x = knit_input(g, "x", KNIT_F32, 2, in);
	knit_output(g, "y", knit_linear(g, x, knit_weight(g, store, "%s", name)));
	if (adapter)
		knit_output(g, "z", knit_linear(g, x, knit_adapter(g, store, "%s", name)));
	pack_ok(knit_graph_status(g, &pack_env.diag));
	return g;
}

static void run_one(knit_program *p, int64_t columns, float *y) {
	static float x[3 * COLUMNS];
	knit_session *const s = pack_session(p);

	for (int i = 0; i < 3 * COLUMNS; ++i)
		x[i] = (float)(i * 37 % 101 - 50) / 50;
	pack_ok(knit_session_set(s, "tokens", 3));
	pack_ok(knit_session_write(s, "x", x, (size_t)(3 * columns) * 4));
	pack_ok(knit_session_run(s));
	pack_ok(knit_session_read(s, "y", y, (size_t)(3 * ROWS * COLUMNS / columns) * 4));
	knit_session_destroy(s);
}

static void same_as_plain(knit_program *packed, const knit_graph *g, int64_t columns) {
	static float a[3 * COLUMNS], b[3 * COLUMNS];
	const size_t count = (size_t)(3 * ROWS * COLUMNS / columns);
	knit_program *const plain = pack_compile(g, "layout");

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

	if (!pack_panels_here())
		return;
	pack_begin(NULL);
	for (size_t i = 0; i < BYTES; ++i)
		data[i] = i % 34 == 0 ? 0 : i % 34 == 1 ? (15 - 9) << 2 : (unsigned char)(i * i / 7);
	pack_write(tensors, 2);
	knit_weights *const store = pack_weights();
	for (int i = 0; i < 3; ++i) {
		g[i] = build_one(store, i == 1 ? "tall" : "wide", i == 1 ? ROWS : COLUMNS, i == 2);
		p[i] = pack_compile(g[i], NULL);
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
	pack_end();
}
END_TEST

/* Bytes that a caller has handed over cannot be given back: the panels are a second copy, and the report says so. */
START_TEST(bytes_of_no_file) {
	static const unsigned char data[46 * 68];
	knit_weights *store = NULL;
	knit_memory m;

	if (!pack_panels_here())
		return;
	pack_begin(NULL);
	pack_ok(knit_weights_create(pack_env.ctx, &store));
	pack_ok(knit_weights_add(store, "w", KNIT_Q8_0, 2, (int64_t[]){46, 64}, data, sizeof data, &pack_env.diag));
	knit_graph *const g = build_one(store, "w", 64, false);
	knit_program *const p = pack_compile(g, NULL);
	knit_program_memory(p, &m);
	ck_assert_uint_eq(m.weight_bytes, 46 * 68);
	ck_assert_uint_eq(m.packed_bytes, 48 * 68);
	ck_assert_uint_eq(m.padding_bytes, 2 * 68);
	check_items(p, &m);
	knit_program_release(p);
	knit_graph_destroy(g);
	knit_weights_release(store);
	pack_end();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		weights_cost_their_unique_bytes_and_padding,
		the_bundled_model_costs_its_unique_bytes,
		equal_bytes_in_two_ways,
		bytes_of_no_file,
	};
	const TTest *const quick[] = {the_bundled_model_costs_its_unique_bytes};

	if (suite_quick())
		return suite_run("packing_report", quick, sizeof quick / sizeof *quick);
	return suite_run("packing_report", tests, sizeof tests / sizeof *tests);
}
