/* What a block format costs in quality, on weights that were trained: the bundled model written again with its matrices in
 * each format, packed in the layouts that kernels like and as the file has them.
 *
 * Its rows are too short for super-blocks, so the copy is wider by zeros: 256 for 128 (heads and norms likewise), 512 for 352.
 * The mean square that a norm takes is halved by them, so norms' weights are divided by sqrt 2 and the epsilon by 2: the
 * copy in f32 computes what the model computes. */
#include "../../frontends/formats/gguf_write.h"
#include "../../frontends/text/perplexity.h"
#include "../../ops/quant.h"
#include "../tools/model_run.h"
#include "../tools/suite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char demo[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";

enum { WINDOW = 256 };
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
enum { WINDOWS = 1 };
#else
enum { WINDOWS = 0 }; /* all of the text's last tenth */
#endif

static int32_t *ids;
static size_t id_count;

static bool load_text(void) {
	char file[4096];
	size_t bytes;

	if (!test_data(KNIT_TEST_DATA, "corpora/tinyshakespeare.txt", file, sizeof file))
		return false;
	char *const text = test_read_file(file, &bytes);
	const size_t cut = bytes * 9 / 10;

	id_count = bytes - cut;
	ids = malloc(id_count * sizeof *ids);
	ck_assert_ptr_nonnull(ids);
	for (size_t i = 0; i < id_count; ++i)
		ids[i] = (uint8_t)text[cut + i];
	free(text);
	return true;
}

/* ---- the copies -------------------------------------------------------------------------------------------------- */

static int64_t widened(int64_t dim) { return dim == 128 ? 256 : dim == 352 ? 512 : dim; }

static bool is_matrix(const knit_weight_entry *e) { return e->rank == 2 && !strstr(e->name, "lora"); }

/* A tensor of the copy; the caller frees its data. */
static knit_gguf_out copied(const knit_weight_entry *e, knit_dtype type, uint32_t index) {
	knit_gguf_out o = {.name = e->name, .dtype = is_matrix(e) ? type : KNIT_F32, .rank = e->rank, .same_as = index};
	const int64_t rows = e->rank == 2 ? e->dims[0] : 1, columns = e->dims[e->rank - 1];
	const int64_t wide_rows = e->rank == 2 ? widened(rows) : 1, wide = widened(columns);
	float *const row = calloc((size_t)wide, sizeof *row);

	ck_assert_int_le(e->rank, 2);
	o.dims[0] = wide_rows;
	o.dims[e->rank - 1] = wide;
	uint64_t row_bytes;
	ck_assert(knit__dtype_bytes(o.dtype, (uint64_t)wide, &row_bytes));
	o.bytes = (uint64_t)wide_rows * row_bytes;
	char *const data = malloc(o.bytes);
	ck_assert(row && data);
	for (int64_t r = 0; r < wide_rows; ++r) {
		memset(row, 0, (size_t)wide * sizeof *row);
		if (r < rows)
			knit__row_to_f32(e->dtype, (const char *)e->data + (size_t)r * e->bytes / (size_t)rows, row, (size_t)columns);
		for (int64_t i = 0; i < columns && strstr(e->name, "norm"); ++i)
			row[i] *= (float)M_SQRT1_2;
		knit__row_from_f32(o.dtype, row, data + (uint64_t)r * row_bytes, (size_t)wide);
	}
	free(row);
	o.data = data;
	return o;
}

static void set_u32(const knit_metadata *m, const char *key, uint32_t value) {
	const knit_metadata_entry *const e = knit__metadata_find(m, key);

	ck_assert_msg(e && e->type == KNIT_METADATA_U32, "%s", key);
	memcpy(e->data, &value, sizeof value);
}

static void write_copy(const char *path, knit_dtype type) {
	knit_context *ctx;
	knit_model_file file;
	knit_diag diag = {0};
	uint64_t written;
	double epsilon;

	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_msg(knit__model_open(ctx, demo, &file, &diag) == KNIT_OK, "%s", diag.text);
	set_u32(&file.metadata, "knit.embedding_length", 256);
	set_u32(&file.metadata, "knit.feed_forward_length", 512);
	set_u32(&file.metadata, "knit.attention.head_count", 8);
	set_u32(&file.metadata, "knit.attention.head_count_kv", 8);
	ck_assert_int_eq(knit__metadata_f64(&file.metadata, "knit.attention.layer_norm_rms_epsilon", &epsilon, &diag), KNIT_OK);
	const float half = (float)epsilon / 2;
	memcpy(knit__metadata_find(&file.metadata, "knit.attention.layer_norm_rms_epsilon")->data, &half, sizeof half);

	const uint32_t count = (uint32_t)file.store->count;
	knit_gguf_out *const tensors = calloc(count, sizeof *tensors);
	ck_assert_ptr_nonnull(tensors);
	for (uint32_t i = 0; i < count; ++i)
		tensors[i] = copied(&file.store->entries[i], type, i);
	const knit_gguf_write_desc desc = {.metadata = &file.metadata, .tensors = tensors, .count = count};
	ck_assert_msg(knit__gguf_write(&ctx->a, path, &desc, &written, &diag) == KNIT_OK, "%s", diag.text);
	for (uint32_t i = 0; i < count; ++i)
		free((void *)(uintptr_t)tensors[i].data);
	free(tensors);
	knit__model_file_close(&file);
	knit_context_destroy(ctx);
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

/* packed: how many storages the program keeps in a layout of its own. */
static double nats_of(const char *path, bool layout, uint32_t *packed) {
	const knit__decoder_desc desc = {.positions = WINDOW, .max_tokens = 64, .max_outputs = 64, .kv = KNIT_F32};
	knit__perplexity p;
	knit_diag diag = {0};
	knit_memory m;
	model_run r;

	ck_assert_int_eq(layout ? unsetenv("KNIT_PASSES_OFF") : setenv("KNIT_PASSES_OFF", "layout", 1), 0);
	model_run_open(&r, &(knit__model_desc){.path = path}, desc, 0);
	unsetenv("KNIT_PASSES_OFF");
	knit_program_memory(r.decoder.program, &m);
	*packed = m.packed_storages;
	const knit__perplexity_desc measure = {
		.decoder = &r.decoder, .ids = ids, .count = id_count, .cut = KNIT__CUT_TEXT, .window = WINDOW, .max_windows = WINDOWS, .bos = -1};
	ck_assert_msg(knit__perplexity_measure(r.ctx, &measure, &p, &diag) == KNIT_OK, "%s", diag.text);
	model_run_close(&r);
	return p.mean;
}

/* The bound on what a format may cost is generous: that it is not broken. That packing costs nothing is what counts. */
START_TEST(quality_of_the_formats) {
	static const struct { knit_dtype type; double most; } rows[] = {{KNIT_F32, 1e-4}, {KNIT_F16, 1e-4}, {KNIT_BF16, 0.01}, {KNIT_Q8_0, 0.01},
	                                                               {KNIT_Q6_K, 0.02}, {KNIT_Q4_K, 0.1}, {KNIT_Q4_0, 0.15}};
	char folder[] = "/tmp/knit-types-XXXXXX", path[64];
	uint32_t packed, unpacked;

	if (!load_text())
		return;
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/copy.gguf", folder);
	const double original = nats_of(demo, true, &packed);
	printf("| matrices in | nats per byte | to the model's own, %.6f | as the file has them | packed to unpacked |\n|---|---|---|---|---|\n", original);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
		write_copy(path, rows[i].type);
		const double nats = nats_of(path, true, &packed), plain = nats_of(path, false, &unpacked);

		printf("| %s | %.6f | %+.3f %% | %.6f | %+.5f %% |\n", knit_dtype_name(rows[i].type), nats, (nats / original - 1) * 100, plain,
		       (nats / plain - 1) * 100);
		ck_assert_double_le(fabs(nats / original - 1), rows[i].most);
		ck_assert_double_le(fabs(exp(nats - plain) - 1), 1e-3);
		ck_assert_uint_eq(unpacked, 0);
	}
	unlink(path);
	rmdir(folder);
	free(ids);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {quality_of_the_formats};

	if (suite_quick()) /* the only pass that matters here is switched by the test */
		return 0;
	return suite_run("types", tests, 1);
}
