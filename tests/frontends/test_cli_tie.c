/* knit tie, and what knit info says of it: equal tensors are written once, the model computes the same. */
#include "../../frontends/formats/gguf_write.h"
#include "../../frontends/formats/model_file.h"
#include "../tools/command.h"
#include "../tools/suite.h"

#include <cjson/cJSON.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char knit[] = KNIT_BINARY_DIR "/knit";
static const char model[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";

#define RUN(result, input, ...) command_run((const char *const[]){knit, __VA_ARGS__, NULL}, input, result)

static char folder[32], loose[64], tied[64];

static void begin(void) {
	snprintf(folder, sizeof folder, "/tmp/knit-tie-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(loose, sizeof loose, "%s/loose.gguf", folder);
	snprintf(tied, sizeof tied, "%s/tied.gguf", folder);
}

static void end(void) {
	unlink(loose);
	unlink(tied);
	ck_assert_int_eq(rmdir(folder), 0); /* nothing else was left there */
}

static double number(const cJSON *object, const char *name) {
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

	ck_assert_msg(cJSON_IsNumber(item), "%s is no number", name);
	return item->valuedouble;
}

/* The bundled model as a tool that knows nothing of sharing would write it: a head of its own, a copy of layer 0 as
 * layer `copies` and so on. Returns the bytes that are there twice. */
static uint64_t untie(unsigned copies) {
	knit_context *ctx = NULL;
	knit_model_file file;
	knit_diag diag = {0};
	uint64_t twice = 0, size;

	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_msg(knit__model_open(ctx, model, &file, &diag) == KNIT_OK, "%s", diag.text);
	const uint32_t count = file.store->count;
	knit_gguf_out *out = calloc(count * 2 + 1, sizeof *out);
	char (*names)[64] = calloc(count, sizeof *names);
	uint32_t n = 0;
	for (uint32_t i = 0; i < count; ++i) {
		const knit_weight_entry *e = &file.store->entries[i];
		out[n] = (knit_gguf_out){e->name, e->dtype, e->rank, {0}, e->data, e->bytes, n};
		memcpy(out[n++].dims, e->dims, sizeof e->dims);
		if (strcmp(e->name, "token_embd.weight") != 0 && (copies == 0 || strncmp(e->name, "blk.0.", 6) != 0))
			continue;
		const bool head = e->name[0] == 't';
		snprintf(names[i], sizeof names[i], head ? "output.weight" : "spare.%s", e->name);
		out[n] = out[n - 1];
		out[n].name = names[i];
		out[n].same_as = n;
		++n;
		twice += e->bytes;
	}
	const knit_gguf_write_desc desc = {.metadata = &file.metadata, .tensors = out, .count = n};
	ck_assert_msg(knit__gguf_write(&ctx->a, loose, &desc, &size, &diag) == KNIT_OK, "%s", diag.text);
	free(names);
	free(out);
	knit__model_file_close(&file);
	knit_context_destroy(ctx);
	return twice;
}

static uint64_t size_of(const char *path) {
	struct stat st;

	ck_assert_int_eq(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

static void check_same_text(void) {
	command_result a, b;

	RUN(&a, NULL, "run", loose, "-p", "KING:", "-n", "12", "--temp", "0", "-q");
	RUN(&b, NULL, "run", tied, "-p", "KING:", "-n", "12", "--temp", "0", "-q");
	ck_assert_msg(a.code == 0 && b.code == 0, "%s%s", a.err, b.err);
	ck_assert_str_eq(a.out, b.out);
	command_clear(&a);
	command_clear(&b);
}

START_TEST(equal_tensors_are_written_once) {
	command_result r;
	uint64_t saved;

	begin();
	const uint64_t twice = untie(1);
	RUN(&r, NULL, "info", loose, "--json");
	cJSON *info = command_check_json(&r);
	ck_assert_double_eq(number(info, "tie_saves_bytes"), (double)twice);
	cJSON_Delete(info);
	RUN(&r, NULL, "info", loose);
	ck_assert_ptr_nonnull(strstr(r.out, "\"knit tie\" would save"));
	command_clear(&r);

	RUN(&r, NULL, "tie", loose, tied, "--json");
	cJSON *root = command_check_json(&r);
	saved = (uint64_t)number(root, "saved_bytes");
	ck_assert_uint_ge(saved, twice);
	ck_assert_uint_eq(saved, size_of(loose) - size_of(tied));
	ck_assert_double_eq(number(root, "shared_tensors"), 9);
	ck_assert(cJSON_IsTrue(cJSON_GetObjectItem(root, "head_left_out")));
	ck_assert(cJSON_IsFalse(cJSON_GetObjectItem(root, "portable")));
	cJSON_Delete(root);
	check_same_text();
	RUN(&r, NULL, "info", tied, "--json");
	info = command_check_json(&r);
	ck_assert_double_eq(number(info, "tie_saves_bytes"), 0);
	cJSON_Delete(info);

	/* Tied again it is the same file. */
	const uint64_t bytes = size_of(tied);
	unlink(loose);
	ck_assert_int_eq(rename(tied, loose), 0);
	RUN(&r, NULL, "tie", loose, tied);
	ck_assert_msg(r.code == 0, "%s", r.err);
	ck_assert_ptr_nonnull(strstr(r.out, "blk.0.attn_q.weight = spare.blk.0.attn_q.weight"));
	ck_assert_ptr_nonnull(strstr(r.out, "0 B (0 bytes) saved"));
	command_clear(&r);
	ck_assert_uint_eq(size_of(tied), bytes);
	end();
}
END_TEST

/* The bundled model with a head of its own: --portable takes that away and nothing else. */
START_TEST(portable_leaves_out_the_head) {
	command_result r;

	begin();
	const uint64_t twice = untie(1);
	RUN(&r, NULL, "tie", loose, tied, "--portable");
	ck_assert_msg(r.code == 0, "%s", r.err);
	ck_assert_ptr_nonnull(strstr(r.out, "output.weight equals token_embd.weight: left out"));
	ck_assert_ptr_nonnull(strstr(r.out, "every reader of GGUF takes it"));
	command_clear(&r);
	ck_assert_uint_ge(size_of(loose), size_of(tied) + 256 * 128 * 2);
	ck_assert_uint_gt(size_of(tied), size_of(loose) - twice);
	check_same_text();
	end();
}
END_TEST

START_TEST(refusals) {
	char other[80];
	command_result r;

	begin();
	RUN(&r, NULL, "tie", model, model);
	command_check_error(&r, 1, "is the file to be read");
	snprintf(other, sizeof other, "%s/link.gguf", folder);
	ck_assert_int_eq(symlink(model, other), 0);
	RUN(&r, NULL, "tie", model, other);
	command_check_error(&r, 1, "is the file to be read");
	unlink(other);
	RUN(&r, NULL, "tie", model);
	command_check_error(&r, 2, "name a file to write");
	RUN(&r, NULL, "tie", model, "/dev/full");
	command_check_error(&r, 1, "/dev/full: No space left");
	RUN(&r, NULL, "tie", model, "/nowhere/out.gguf");
	command_check_error(&r, 1, "/nowhere/out.gguf: No such file");
	RUN(&r, NULL, "tie", knit, tied);
	command_check_error(&r, 1, "not a model file");
	end();
}
END_TEST

/* A file that takes a while to write, and Ctrl-C in the middle: nothing is left. */
static bool nameless_files(void) {
#ifdef O_TMPFILE
	const int fd = open(folder, O_TMPFILE | O_WRONLY, 0600);

	if (fd < 0 || access("/proc/self/fd", X_OK) != 0)
		return false;
	close(fd);
	return true;
#else
	return false;
#endif
}

static int files_there(void) {
	DIR *d = opendir(folder);
	int n = 0;

	for (struct dirent *e; (e = readdir(d)) != NULL;)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

START_TEST(an_interrupt_leaves_nothing) {
	static const uint64_t bytes = UINT64_C(600) << 20;
	knit_context *ctx = NULL;
	knit_metadata m;
	uint64_t size;
	command_live live;
	command_result r;

	begin();
	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	knit__metadata_init(&m, &ctx->a);
	/* Written by hand: a head, then a hole in the file that reads as zeros. */
	static const float one = 1;
	const knit_gguf_out small = {"big", KNIT_F32, 1, {(int64_t)(bytes / 4)}, &one, 0, 0};
	const knit_gguf_write_desc desc = {.metadata = &m, .tensors = &small, .count = 1};
	ck_assert_int_eq(knit__gguf_write(&ctx->a, loose, &desc, &size, NULL), KNIT_OK);
	ck_assert_int_eq(truncate(loose, (off_t)(size + bytes)), 0);
	knit__metadata_clear(&m);
	knit_context_destroy(ctx);

	command_start((const char *const[]){knit, "tie", loose, tied, NULL}, &live);
	usleep(300000);
	ck_assert_int_eq(kill(live.pid, SIGINT), 0);
	command_finish(&live, &r);
	/* A machine that wrote it all in that time has nothing to show. */
	ck_assert_msg(r.code == 130 || r.code == 0 || r.code == 1000 + SIGINT, "exit code %d: %s", r.code, r.err);
	if (r.code == 130)
		ck_assert_ptr_nonnull(strstr(r.err, "interrupted"));
	ck_assert_int_eq(access(tied, F_OK) == 0, r.code == 0);
	if (r.code != 130)
		printf("SKIP: the interrupt came too early or too late (exit code %d)\n", r.code);
	command_clear(&r);
	unlink(tied);

	/* Two at once, of which the second ends the process where it is, and a kill: nothing is left beside the file either,
	 * where the system knows files without names. */
	for (int round = 0; round < 2; ++round) {
		command_start((const char *const[]){knit, "tie", loose, tied, NULL}, &live);
		usleep(250000);
		for (int i = 0; i < 2 - round; ++i) {
			kill(live.pid, round ? SIGKILL : SIGINT);
			usleep(100);
		}
		command_finish(&live, &r);
		if (nameless_files())
			ck_assert_int_eq(files_there(), access(tied, F_OK) == 0 ? 2 : 1);
		command_clear(&r);
		unlink(tied);
	}
	end();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		equal_tensors_are_written_once,
		portable_leaves_out_the_head,
		refusals,
		an_interrupt_leaves_nothing,
	};

	return suite_run("cli_tie", tests, sizeof tests / sizeof *tests);
}
