/* Shapes from text, and the models made of them. */
#include "../../bench/random_model.h"
#include "../../bench/subject.h"
#include "../../frontends/models/load.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

START_TEST(names_and_keys) {
	bench_shape s, again;
	knit_diag d = {0};
	char text[320];

	ck_assert_int_eq(bench_shape_parse("1.1b,type=q4_0,visits=3,lora=16", &s, &d), KNIT_OK);
	ck_assert(s.dim == 2048 && s.layers == 22 && s.heads == 32 && s.kv_heads == 4 && s.head_dim == 64 && s.ffn == 5632);
	ck_assert(s.type == KNIT_Q4_0 && s.embedding == KNIT_Q4_0 && s.visits == 3 && s.lora == 16 && !s.tied);
	bench_shape_text(&s, text);
	ck_assert_int_eq(bench_shape_parse(text, &again, &d), KNIT_OK);
	ck_assert_mem_eq(&s, &again, sizeof s);
	ck_assert_int_eq(bench_shape_parse("llama:dim=64,layers=2,heads=4,ff=96,vocab=300,tied=1,embedding=f16", &s, &d), KNIT_OK);
	ck_assert(s.kv_heads == 4 && s.head_dim == 16 && s.tied && s.type == KNIT_Q8_0 && s.embedding == KNIT_F16 && s.rich == s.type);
	ck_assert_int_eq(bench_shape_parse("1.1b,type=q4_k_m", &s, &d), KNIT_OK);
	ck_assert(s.type == KNIT_Q4_K && s.rich == KNIT_Q6_K && s.embedding == KNIT_Q4_K);
	ck_assert_int_eq(bench_shape_parse("1.1b,type=q4_k_m,tied=1", &s, &d), KNIT_OK);
	ck_assert(s.embedding == KNIT_Q6_K);
}
END_TEST

START_TEST(wrong_shapes) {
	static const struct { const char *text, *says; } wrong[] = {
		{"2b", "is no shape"},
		{"1.1b,type=q9", "q9"},
		{"1.1b,colour=red", "colour"},
		{"1.1b,dim", "key=value"},
		{"1.1b,dim=x", "number"},
		{"1.1b,dim=2049", "multiple of 32"},
		{"llama:dim=64", "layers"},
		{"1.1b,kv_heads=5", "kv_heads"},
		{"1.1b,head_dim=63", "even"},
		{"15m,type=q4_K", "dim 288 is no multiple of 256, the block of q4_K"},
	};

	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; ++i) {
		bench_shape s;
		knit_diag d = {0};
		ck_assert_msg(bench_shape_parse(wrong[i].text, &s, &d) == KNIT_ERR_ARGUMENT, "%s was taken", wrong[i].text);
		ck_assert_msg(strstr(d.text, wrong[i].says), "%s: %s", wrong[i].text, d.text);
	}
}
END_TEST

/* Made, read, run: with loops and LoRA, in every type; the same shape gives the same bytes, another seed others. */
START_TEST(models_run) {
	static const char *const shapes[] = {
		"llama:dim=64,layers=2,heads=4,kv_heads=2,ff=96,vocab=300,type=q8_0",
		"llama:dim=64,layers=2,heads=4,kv_heads=2,ff=96,vocab=300,type=q4_0,tied=1,visits=3,lora=4",
		"llama:dim=64,layers=1,heads=2,ff=64,vocab=259,type=f16,embedding=f32,head_dim=48",
		"llama:dim=32,layers=1,heads=2,ff=64,vocab=20,type=bf16",
		"llama:dim=256,layers=2,heads=4,kv_heads=2,ff=512,vocab=300,type=q4_k_m",
		"llama:dim=256,layers=1,heads=4,ff=256,vocab=300,type=q6_K,tied=1,visits=2",
	};
	char path[64];

	snprintf(path, sizeof path, "/tmp/knit-test-shape-%ld.gguf", (long)getpid());
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) {
		knit_context *ctx;
		bench_shape s;
		bench_subject *subject;
		knit_diag d = {0};
		uint64_t bytes;
		double seconds[2];
		size_t count;

		ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
		ck_assert_int_eq(bench_shape_parse(shapes[i], &s, &d), KNIT_OK);
		ck_assert_msg(bench_random_model(&ctx->a, &s, path, NULL, NULL, &bytes, &d) == KNIT_OK, "%s", d.text);
		const bench_knit_desc desc = {.path = path, .device = "cpu", .threads = 1, .max_depth = 24, .batch = 8};
		ck_assert_msg(bench_knit_open(&desc, &subject, &d) == KNIT_OK, "%s: %s", shapes[i], d.text);
		const bench_test tests[] = {{.prompt = 8}, {.made = 4, .depth = 20}};
		for (size_t t = 0; t < 2; ++t) {
			ck_assert_msg(subject->kind->run(subject, &tests[t], seconds, 2, &count, &d) == KNIT_OK, "%s", d.text);
			ck_assert(count == 1 && seconds[0] > 0);
		}
		ck_assert_ptr_nonnull(bench_knit_program(subject));
		subject->kind->close(subject);
		knit_context_destroy(ctx);
	}
	unlink(path);
}
END_TEST

static uint64_t checksum(const char *path) {
	FILE *const f = fopen(path, "rb");
	uint64_t sum = 1469598103934665603u;
	int c;

	ck_assert_ptr_nonnull(f);
	while ((c = getc(f)) != EOF)
		sum = (sum ^ (uint64_t)c) * 1099511628211u;
	fclose(f);
	return sum;
}

START_TEST(seeds) {
	char path[64], text[128];
	uint64_t sums[3], bytes;
	knit_context *ctx;

	snprintf(path, sizeof path, "/tmp/knit-test-seed-%ld.gguf", (long)getpid());
	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	for (int i = 0; i < 3; ++i) {
		bench_shape s;
		knit_diag d = {0};
		snprintf(text, sizeof text, "llama:dim=64,layers=2,heads=4,ff=64,vocab=64,seed=%d", i == 2 ? 5 : 4);
		ck_assert_int_eq(bench_shape_parse(text, &s, &d), KNIT_OK);
		ck_assert_int_eq(bench_random_model(&ctx->a, &s, path, NULL, NULL, &bytes, &d), KNIT_OK);
		sums[i] = checksum(path);
	}
	ck_assert(sums[0] == sums[1] && sums[0] != sums[2]);
	knit_context_destroy(ctx);
	unlink(path);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {names_and_keys, wrong_shapes, models_run, seeds};

	return suite_run("bench_shape", tests, (int)(sizeof tests / sizeof tests[0]));
}
