/* The GGUF writer: what it writes reads back the same, shared bytes are there once, a write that is stopped or fails
 * leaves nothing behind. */
#include "../../frontends/formats/file_out.h"
#include "../../frontends/formats/gguf_write.h"
#include "../../frontends/formats/model_file.h"
#include "../tools/bytes.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static knit_context *ctx;
static track_alloc track;
static char folder[32], path[64];

static void begin(void) {
	ctx = track_begin(&track);
	snprintf(folder, sizeof folder, "/tmp/knit-write-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/out.gguf", folder);
}

static unsigned files_there(void) {
	DIR *d = opendir(folder);
	unsigned count = 0;

	for (struct dirent *e; d && (e = readdir(d)) != NULL;)
		count += e->d_name[0] != '.';
	closedir(d);
	return count;
}

static void end(void) {
	unlink(path);
	ck_assert_uint_eq(files_there(), 0);
	rmdir(folder);
	track_end(&track, ctx);
}

/* A key of every type, single and as an array, with extreme values, an empty array and odd strings. */
static void fill(knit_metadata *m) {
	static const uint8_t values[3 * 8] = {0, 1, 1, 0xff, 0x80, 0x7f, 0, 0, 0xff, 0xff, 0xff, 0xff,
										  0xff, 0xff, 0xff, 0x7f, 0, 0, 0x80, 0x7f, 1, 0, 0, 0x80};
	static const char *const texts[] = {"", "text", "\xc3\xa9"};
	knit_metadata_entry *e;
	char key[32];

	for (int t = KNIT_METADATA_U8; t < KNIT_METADATA_STRING; ++t) {
		snprintf(key, sizeof key, "one.%s", knit__metadata_type_name((knit_metadata_type)t));
		ck_assert_int_eq(knit__metadata_add(m, key, (knit_metadata_type)t, false, 1, values, NULL), KNIT_OK);
		snprintf(key, sizeof key, "three.%s", knit__metadata_type_name((knit_metadata_type)t));
		ck_assert_int_eq(knit__metadata_add(m, key, (knit_metadata_type)t, true, 3, values, NULL), KNIT_OK);
		snprintf(key, sizeof key, "none.%s", knit__metadata_type_name((knit_metadata_type)t));
		ck_assert_int_eq(knit__metadata_add(m, key, (knit_metadata_type)t, true, 0, values, NULL), KNIT_OK);
	}
	ck_assert_int_eq(knit__metadata_add_string(m, "general.architecture", "knit", 4, NULL), KNIT_OK);
	ck_assert_int_eq(knit__metadata_add_string(m, "a.string.with.nul", "a\0b", 3, NULL), KNIT_OK);
	ck_assert_int_eq(knit__metadata_add_strings(m, "strings", true, 3, 4 + 2, &e, NULL), KNIT_OK);
	for (uint64_t i = 0; i < 3; ++i)
		knit__metadata_string_put(e, i, texts[i], strlen(texts[i]));
	ck_assert_int_eq(knit__metadata_add_strings(m, "no.strings", true, 0, 0, &e, NULL), KNIT_OK);
}

static void check_equal(const knit_metadata *a, const knit_metadata *b) {
	ck_assert_uint_eq(a->count, b->count);
	for (uint32_t i = 0; i < a->count; ++i) {
		const knit_metadata_entry *x = &a->entries[i], *y = &b->entries[i];
		ck_assert_str_eq(x->key, y->key); /* in the same order */
		ck_assert_int_eq(x->type, y->type);
		ck_assert_int_eq(x->is_array, y->is_array);
		ck_assert_uint_eq(x->count, y->count);
		if (x->type != KNIT_METADATA_STRING) {
			ck_assert_int_eq(memcmp(x->data, y->data, x->count * knit__metadata_type_bytes(x->type)), 0);
			continue;
		}
		for (uint64_t k = 0; k < x->count; ++k) {
			knit_metadata_text s, t;
			ck_assert(knit__metadata_string_at(x, k, &s) && knit__metadata_string_at(y, k, &t));
			ck_assert_uint_eq(s.bytes, t.bytes);
			ck_assert_int_eq(memcmp(s.text, t.text, s.bytes), 0);
		}
	}
}

static uint8_t data[5000];

/* One tensor of each type; the last two name the bytes of the second. */
static const knit_gguf_out tensors[] = {
	{"f32", KNIT_F32, 2, {3, 5}, data, 60, 0},
	{"f16", KNIT_F16, 3, {2, 3, 7}, data + 100, 84, 1},
	{"bf16", KNIT_BF16, 1, {1}, data + 200, 2, 2},
	{"i32", KNIT_I32, 4, {1, 2, 3, 4}, data + 300, 96, 3},
	{"q8_0", KNIT_Q8_0, 2, {2, 64}, data + 400, 136, 4},
	{"q4_0", KNIT_Q4_0, 2, {1, 32}, data + 600, 18, 5},
	{"q4_K", KNIT_Q4_K, 2, {2, 512}, data + 700, 576, 6},
	{"q6_K", KNIT_Q6_K, 2, {3, 256}, data + 1300, 630, 7},
	{"same", KNIT_F16, 3, {2, 3, 7}, data + 100, 84, 1},
	{"same in another shape", KNIT_F16, 1, {42}, data + 100, 84, 1},
};
enum { TENSORS = sizeof tensors / sizeof *tensors };

static void write_and_check(const knit_metadata *m, uint64_t alignment) {
	const knit_gguf_write_desc desc = {.metadata = m, .tensors = tensors, .count = TENSORS};
	knit_diag diag = {0};
	knit_model_file file;
	uint64_t size = 0;
	struct stat st;

	ck_assert_msg(knit__gguf_write(&ctx->a, path, &desc, &size, &diag) == KNIT_OK, "%s", diag.text);
	ck_assert(stat(path, &st) == 0 && (uint64_t)st.st_size == size);
	ck_assert_uint_eq(size % alignment, 0);
	ck_assert_uint_eq(files_there(), 1);
	ck_assert_msg(knit__model_open(ctx, path, &file, &diag) == KNIT_OK, "%s", diag.text);
	ck_assert_uint_eq(file.version, 3);
	check_equal(m, &file.metadata);
	ck_assert_uint_eq(file.store->count, TENSORS);
	for (uint32_t i = 0; i < TENSORS; ++i) {
		const knit_weight_entry *e = &file.store->entries[i];
		ck_assert_str_eq(e->name, tensors[i].name);
		ck_assert_int_eq(e->dtype, tensors[i].dtype);
		ck_assert_int_eq(e->rank, tensors[i].rank);
		ck_assert_int_eq(memcmp(e->dims, tensors[i].dims, (size_t)e->rank * sizeof *e->dims), 0);
		ck_assert_uint_eq(e->bytes, tensors[i].bytes);
		ck_assert_int_eq(memcmp(e->data, tensors[i].data, e->bytes), 0);
		ck_assert_ptr_eq(e->data, file.store->entries[tensors[i].same_as].data);
	}
	knit__model_file_close(&file);
}

START_TEST(everything_reads_back) {
	static const uint32_t alignments[] = {0, 8, 64, 4096};

	for (size_t i = 0; i < sizeof data; ++i)
		data[i] = (uint8_t)(i * 7 + i / 256);
	for (size_t i = 0; i < sizeof alignments / sizeof *alignments; ++i) {
		knit_metadata m;
		begin();
		knit__metadata_init(&m, &ctx->a);
		if (alignments[i])
			ck_assert_int_eq(knit__metadata_add_u32(&m, "general.alignment", alignments[i], NULL), KNIT_OK);
		fill(&m);
		write_and_check(&m, alignments[i] ? alignments[i] : 32);
		write_and_check(&m, alignments[i] ? alignments[i] : 32); /* over the file that is there */
		knit__metadata_clear(&m);
		end();
	}
}
END_TEST

static bool stop_at(void *user, uint64_t done, uint64_t total) {
	unsigned *left = user;

	ck_assert_uint_le(done, total);
	return (*left)-- != 0;
}

START_TEST(a_stopped_write_leaves_nothing) {
	static const char old[] = "the old file";
	knit_metadata m;
	unsigned n = 0;
	bytes there = {0};

	begin();
	knit__metadata_init(&m, &ctx->a);
	for (knit_status status = KNIT_ERR_STATE; status != KNIT_OK; ++n) {
		unsigned left = n;
		const knit_gguf_write_desc desc = {
			.metadata = &m, .tensors = tensors, .count = TENSORS, .progress = stop_at, .user = &left};
		uint64_t size;
		knit_diag diag = {0};
		FILE *f = fopen(path, "wb");
		ck_assert(f && fwrite(old, 1, sizeof old, f) == sizeof old && fclose(f) == 0);
		status = knit__gguf_write(&ctx->a, path, &desc, &size, &diag);
		ck_assert(status == KNIT_OK || status == KNIT_ERR_STATE);
		ck_assert_uint_eq(files_there(), 1);
		ck_assert(bytes_load(&there, path));
		ck_assert_int_eq(there.count == sizeof old && !memcmp(there.data, old, sizeof old), status != KNIT_OK);
		bytes_clear(&there);
	}
	ck_assert_uint_eq(n, TENSORS - 2 + 1 + 1); /* once per tensor with bytes, once at the end */
	end();
}
END_TEST

START_TEST(failures_are_told_and_leave_nothing) {
	knit_gguf_out wrong[2] = {tensors[0], tensors[1]};
	knit_gguf_write_desc desc = {.tensors = wrong, .count = 2};
	static const char long_name[] = "a name of sixty-four bytes, which is one more than GGUF can have";
	knit_metadata m;
	uint64_t size;
	knit_diag diag = {0};

	ck_assert_uint_eq(strlen(long_name), 64);
	begin();
	knit__metadata_init(&m, &ctx->a);
	fill(&m);
	desc.metadata = &m;
	wrong[1].name = long_name;
	ck_assert_int_eq(knit__gguf_write(&ctx->a, path, &desc, &size, &diag), KNIT_ERR_LIMIT);
	wrong[1].name = long_name + 1;
	ck_assert_int_eq(knit__gguf_write(&ctx->a, path, &desc, &size, NULL), KNIT_OK);
	unlink(path);
	wrong[1].same_as = 0; /* other bytes */
	ck_assert_int_eq(knit__gguf_write(&ctx->a, path, &desc, &size, NULL), KNIT_ERR_ARGUMENT);
	wrong[0].same_as = 1; /* a later tensor */
	ck_assert_int_eq(knit__gguf_write(&ctx->a, path, &desc, &size, NULL), KNIT_ERR_ARGUMENT);
	wrong[0] = tensors[0];
	wrong[1] = tensors[1];
	wrong[0].same_as = 0;
	wrong[1].same_as = 1;
	diag = (knit_diag){0};
	ck_assert_int_eq(knit__gguf_write(&ctx->a, folder, &desc, &size, &diag), KNIT_ERR_IO);
	ck_assert_ptr_nonnull(strstr(diag.text, "Is a directory"));
	diag = (knit_diag){0};
	ck_assert_int_eq(knit__gguf_write(&ctx->a, "/dev/full", &desc, &size, &diag), KNIT_ERR_IO);
	ck_assert_ptr_nonnull(strstr(diag.text, "/dev/full: No space left"));
	ck_assert_int_eq(knit__gguf_write(&ctx->a, "/nowhere/at/all", &desc, &size, NULL), KNIT_ERR_IO);

	/* Every allocation fails once; whatever is there afterwards is whole. */
	knit_status status = KNIT_ERR_MEMORY;
	unsigned n = 0;
	for (uint64_t from = track.live; status != KNIT_OK; ++n) {
		diag = (knit_diag){0};
		track.fail_at = track.count + 1 + n;
		status = knit__gguf_write(&ctx->a, path, &desc, &size, &diag);
		track.fail_at = 0;
		ck_assert(status == KNIT_OK || (status == KNIT_ERR_MEMORY && diag.text[0]));
		ck_assert_uint_eq(files_there(), status == KNIT_OK);
		ck_assert_uint_eq(track.live, from);
	}
	ck_assert_uint_gt(n, 4);
	knit__metadata_clear(&m);
	end();
}
END_TEST

/* A link stays a link, a mode stays a mode. */
START_TEST(links_and_modes_stay) {
	char link_path[80];
	knit_file_out f;
	struct stat st;

	begin();
	snprintf(link_path, sizeof link_path, "%s/link", folder);
	FILE *old = fopen(path, "wb");
	ck_assert(old && fclose(old) == 0 && chmod(path, 0640) == 0 && symlink("out.gguf", link_path) == 0);
	ck_assert(knit__same_file(path, link_path));
	ck_assert(!knit__same_file(path, folder));
	ck_assert(!knit__same_file(path, "/nowhere"));
	ck_assert_int_eq(knit__file_out_open(&ctx->a, link_path, &f, NULL), KNIT_OK);
	ck_assert_int_eq(knit__file_out_write(&f, "new", 3, NULL), KNIT_OK);
	ck_assert(stat(path, &st) == 0 && st.st_size == 0); /* not yet */
	ck_assert_int_eq(knit__file_out_commit(&f, NULL), KNIT_OK);
	ck_assert(lstat(link_path, &st) == 0 && S_ISLNK(st.st_mode));
	ck_assert(stat(path, &st) == 0 && st.st_size == 3 && (st.st_mode & 07777) == 0640);
	ck_assert_int_eq(knit__file_out_open(&ctx->a, path, &f, NULL), KNIT_OK);
	ck_assert_int_eq(knit__file_out_write(&f, "lost", 4, NULL), KNIT_OK);
	knit__file_out_abort(&f);
	knit__file_out_abort(&f);
	ck_assert(stat(path, &st) == 0 && st.st_size == 3);
	unlink(link_path);
	end();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		everything_reads_back,
		a_stopped_write_leaves_nothing,
		failures_are_told_and_leave_nothing,
		links_and_modes_stay,
	};

	return suite_run("gguf_write", tests, sizeof tests / sizeof *tests);
}
