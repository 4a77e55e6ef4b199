/* What a process takes while it loads and runs a model of tens of MiB that is made on the spot: its weights once, also for a
 * moment, and of keys and values only the positions that are used. */
#include "../../bench/random_model.h"
#include "../../graph/context.h"
#include "../tools/model_run.h"
#include "../tools/suite.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS = 8, CONTEXT = 1 << 16 };

static uint64_t status_bytes(const char *key) {
	FILE *const f = fopen("/proc/self/status", "r");
	const size_t length = strlen(key);
	uint64_t kib = 0;
	char line[128];

	while (f && fgets(line, sizeof line, f))
		if (strncmp(line, key, length) == 0 && sscanf(line + length, ": %" SCNu64, &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib * 1024;
}

/* The peak starts anew; false where the system has no such thing. */
static bool reset_peak(void) {
	const int f = open("/proc/self/clear_refs", O_WRONLY);
	const bool ok = f >= 0 && write(f, "5", 1) == 1;

	if (f >= 0)
		close(f);
	return ok && status_bytes("VmHWM") != 0;
}

/* Most of the weights in one matrix, so that this matrix twice is seen as well as all of them twice. */
static void make(const char *type, char path[64]) {
	knit_context *ctx;
	knit_diag d = {0};
	bench_shape shape;
	char text[160];
	uint64_t bytes;

	snprintf(path, 64, "/tmp/knit-load-memory-%ld.gguf", (long)getpid());
	snprintf(text, sizeof text, "llama:dim=512,layers=2,heads=8,kv_heads=8,ff=1024,vocab=65536,context=%d,tied=1,type=%s", CONTEXT,
	         type);
	ck_assert_msg(bench_shape_parse(text, &shape, &d) == KNIT_OK, "%s", d.text);
	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_msg(bench_random_model(&ctx->a, &shape, path, NULL, NULL, &bytes, &d) == KNIT_OK, "%s", d.text);
	knit_context_destroy(ctx);
}

static void check(const char *type) {
	const int32_t ids[TOKENS] = {1, 2, 3, 4, 5, 6, 7, 8};
	knit_memory m;
	model_run r;
	char path[64];

	make(type, path);
	if (!reset_peak()) {
		printf("SKIP: this system does not say how much was resident\n");
		unlink(path);
		return;
	}
	const uint64_t before = status_bytes("VmRSS");
	const knit__model_desc model = {.path = path};
	model_run_open(&r, &model,
	               (knit__decoder_desc){.positions = CONTEXT, .max_tokens = TOKENS, .max_outputs = TOKENS, .kv = KNIT_F16}, 2);
	float *const logits = model_run_logits(&r, ids, TOKENS, TOKENS);
	free(logits);
	ck_assert_int_eq(knit_program_memory(r.decoder.program, &m), KNIT_OK);
	const uint64_t taken = status_bytes("VmHWM") - before;
	const uint64_t weights = m.weight_bytes + m.packed_bytes, arena = m.arena_bytes + m.io_bytes;
	/* logits of all rows here and in the session, stacks, tables; with the address sanitizer also an eighth of what is touched */
	const uint64_t room = weights / 8 + (UINT64_C(12) << 20);

	printf("%s: %.1f MB at most for %.1f MB of weights, %.1f MB of arena and ports; keys and values of all positions: %.1f MB\n",
	       type, (double)taken / 1e6, (double)weights / 1e6, (double)arena / 1e6, (double)m.state_bytes / 1e6);
	ck_assert_uint_ge(taken, weights * 9 / 10);
	ck_assert_uint_le(taken, weights + arena + room);
	ck_assert_uint_gt(m.state_bytes, UINT64_C(200) << 20); /* or the bound says nothing of them */
	model_run_close(&r);
	unlink(path);
}

START_TEST(weights_are_resident_once) { check("q8_0"); }
END_TEST

START_TEST(nibbles_are_resident_once) { check("q4_0"); }
END_TEST

/* Nothing is packed: the file's pages are the weights. */
START_TEST(floats_are_resident_once) { check("f16"); }
END_TEST

int main(void) {
	const TTest *const tests[] = {weights_are_resident_once, nibbles_are_resident_once, floats_are_resident_once};

	return suite_run("load_memory", tests, sizeof tests / sizeof *tests);
}
