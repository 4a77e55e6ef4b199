/* A model that lies half on a Vulkan device and half on the CPU: the CPU's logits at every budget, calls of the driver that
 * fail, a device that is lost, and what is said where the model does not fit the device alone. */
#include "../../backends/vulkan/vk_fail.h"
#include "../../backends/vulkan/vk_instance.h"
#include "../tools/small_model.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"
#include "../tools/vulkan_case.h"

#include <math.h>
#include <stdio.h>

enum { TOKENS = 7, LOGITS = TOKENS * SMALL_VOCAB };
/* Some of the small model's layers on each side. */
#define HALF UINT64_C(45000)

static const knit_bucket buckets[] = {{"tokens", 1, 1}, {"tokens", 2, SMALL_TOKENS}};
static bool here;

typedef struct model {
	knit_context *ctx;
	knit_weights *w;
	knit_graph *g;
} model;

static void model_make(model *m, track_alloc *t) {
	m->ctx = track_context(t);
	ck_assert_int_eq(small_model_weights(m->ctx, &m->w), KNIT_OK);
	ck_assert_int_eq(small_model_graph(m->ctx, m->w, &m->g), KNIT_OK);
}

static void model_free(model *m) {
	knit_graph_destroy(m->g);
	knit_weights_release(m->w);
	knit_context_destroy(m->ctx);
}

static knit_status compile(const model *m, const char *device, uint64_t budget, knit_program **out, knit_diag *d) {
	const knit_compile_desc desc = {.device = device, .buckets = buckets, .bucket_count = 2, .device_memory = budget};

	return knit_compile(m->g, &desc, out, d);
}

static knit_status step(knit_session *s, size_t first, size_t count, float *out) {
	static const int32_t ids[TOKENS] = {1, 5, 9, 23, 0, 7, 7}, zeros[TOKENS], rising[TOKENS] = {0, 1, 2, 3, 4, 5, 6};
	knit_status status = knit_session_set(s, "tokens", (int64_t)count);

	if (status == KNIT_OK)
		status = knit_session_write(s, "ids", ids + first, count * 4);
	if (status == KNIT_OK)
		status = knit_session_write(s, "seq", zeros, count * 4);
	if (status == KNIT_OK)
		status = knit_session_write(s, "pos", rising + first, count * 4);
	if (status == KNIT_OK)
		status = knit_session_run(s);
	return status == KNIT_OK
	           ? knit_session_read(s, "logits", out + first * SMALL_VOCAB, count * SMALL_VOCAB * sizeof *out)
	           : status;
}

/* A prompt, then token by token. */
static knit_status run(knit_session *s, float out[LOGITS]) {
	knit_status status = step(s, 0, 4, out);

	for (size_t t = 4; status == KNIT_OK && t < TOKENS; ++t)
		status = step(s, t, 1, out);
	return status;
}

static void expect_close(const float *a, const float *b) {
	for (int i = 0; i < LOGITS; ++i)
		ck_assert_msg(fabsf(a[i] - b[i]) <= 1e-4f, "logit %d: %g and %g", i, (double)a[i], (double)b[i]);
}

/* On a device that works. */
static void run_on(const model *m, const char *device, uint64_t budget, float out[LOGITS]) {
	knit_program *p = NULL;
	knit_session *s = NULL;
	knit_diag d = {0};

	ck_assert_msg(compile(m, device, budget, &p, &d) == KNIT_OK, "%s", d.text);
	ck_assert_msg(knit_session_create(p, &s, &d) == KNIT_OK, "%s", d.text);
	const knit_status status = run(s, out);
	knit_session_diag(s, &d);
	ck_assert_msg(status == KNIT_OK, "%s", d.text);
	knit_session_destroy(s);
	knit_program_release(p);
}

START_TEST(logits_of_the_cpu_at_every_budget) {
	static const uint64_t budgets[] = {1, 20000, 35000, HALF, 60000, 80000, 0};
	float want[LOGITS], got[LOGITS];
	track_alloc t = {0};
	model m;

	if (!here)
		return;
	model_make(&m, &t);
	run_on(&m, "cpu", 0, want);
	for (size_t i = 0; i < sizeof budgets / sizeof *budgets; ++i) {
		run_on(&m, "vulkan+cpu", budgets[i], got);
		expect_close(got, want);
		run_on(&m, "cpu+vulkan", budgets[i], got);
		expect_close(got, want);
	}
	model_free(&m);
	ck_assert(t.live == 0 && !t.bad_free);
}
END_TEST

/* Whatever fails is MEMORY, leaves nothing behind, and goes well when it is tried again. */
START_TEST(calls_that_fail) {
	uint64_t made = 1, last = 1, submitted, seen = 0;
	float want[LOGITS], got[LOGITS];
	track_alloc first = {0};
	model m;

	if (!here)
		return;
	model_make(&m, &first);
	run_on(&m, "cpu", 0, want);
	model_free(&m);
	for (uint64_t n = 1; n <= last + 5; n += 5) { /* until there is no such call */
		track_alloc t = {0};
		knit_program *p = NULL;
		knit_session *s = NULL;
		knit_diag d = {0};
		char text[32];

		snprintf(text, sizeof text, "%llu", (unsigned long long)n);
		model_make(&m, &t);
		setenv("KNIT_VK_FAIL", text, 1);
		knit_status status = compile(&m, "vulkan+cpu", HALF, &p, &d);
		if (status == KNIT_OK)
			status = knit_session_create(p, &s, &d);
		if (status == KNIT_OK)
			status = run(s, got);
		knit__vk_fail_counts(&made, &submitted);
		last = made < n ? last : n;
		unsetenv("KNIT_VK_FAIL");
		ck_assert_msg(status == KNIT_OK || status == KNIT_ERR_MEMORY, "call %llu: %s: %s", (unsigned long long)n,
		              knit_status_name(status), d.text);
		ck_assert_msg(status == KNIT_OK || s || d.text[0], "call %llu: no words", (unsigned long long)n);
		seen += status != KNIT_OK;
		if (status == KNIT_OK)
			expect_close(got, want);
		knit_session_destroy(s);
		knit_program_release(p);
		if (made >= n) { /* else it would be this that meets it */
			run_on(&m, "vulkan+cpu", HALF, got);
			expect_close(got, want);
		}
		model_free(&m);
		ck_assert_msg(t.live == 0 && !t.bad_free, "call %llu: %llu bytes not given back", (unsigned long long)n,
		              (unsigned long long)t.live);
	}
	printf("%llu calls that can fail; of each fifth one %llu were told of\n", (unsigned long long)last,
	       (unsigned long long)seen);
	ck_assert_uint_gt(seen, 10);
}
END_TEST

/* The session and its program are dead with the device; the same id opens anew. */
START_TEST(a_device_that_is_lost) {
	uint64_t made, submitted = 1, last = 1, seen = 0;
	float want[LOGITS], got[LOGITS];
	track_alloc t = {0};
	model m;

	if (!here)
		return;
	model_make(&m, &t);
	run_on(&m, "cpu", 0, want);
	for (uint64_t n = 1; n <= last + 1; ++n) {
		knit_program *p = NULL;
		knit_session *s = NULL;
		knit_diag d = {0};
		char text[32];

		snprintf(text, sizeof text, "%llu", (unsigned long long)n);
		setenv("KNIT_VK_LOSE", text, 1);
		/* Another budget is another device, so that it is opened while the variable is set. */
		knit_status status = compile(&m, "vulkan+cpu", HALF + n, &p, &d);
		if (status == KNIT_OK)
			status = knit_session_create(p, &s, &d);
		if (status == KNIT_OK)
			status = run(s, got);
		knit__vk_fail_counts(&made, &submitted);
		last = submitted < n ? last : n;
		unsetenv("KNIT_VK_LOSE");
		ck_assert_msg(status == KNIT_OK || status == KNIT_ERR_DEVICE, "call %llu: %s: %s", (unsigned long long)n,
		              knit_status_name(status), d.text);
		if (status != KNIT_OK) {
			++seen;
			if (s)
				ck_assert_int_eq(run(s, got), KNIT_ERR_DEVICE);
			run_on(&m, "vulkan+cpu", HALF + n, got);
			expect_close(got, want);
		}
		knit_session_destroy(s);
		knit_program_release(p);
	}
	model_free(&m);
	ck_assert(t.live == 0 && !t.bad_free);
	printf("lost at %llu submissions and waits\n", (unsigned long long)seen);
	ck_assert_uint_gt(seen, 5);
}
END_TEST

START_TEST(a_device_that_is_too_small_says_what_to_do) {
	uint64_t said = 0;
	track_alloc t = {0};
	model m;

	if (!here)
		return;
	for (uint64_t n = 1; n <= 200 && said == 0; ++n) {
		knit_program *p = NULL;
		knit_diag d = {0};
		char text[32];

		snprintf(text, sizeof text, "%llu", (unsigned long long)n);
		model_make(&m, &t);
		setenv("KNIT_VK_FAIL", text, 1);
		const knit_status status = compile(&m, "vulkan", 0, &p, &d);
		unsetenv("KNIT_VK_FAIL");
		if (status == KNIT_ERR_MEMORY && strstr(d.text, "weight \""))
			said += strstr(d.text, "device \"vulkan+cpu\" splits") != NULL;
		knit_program_release(p);
		model_free(&m);
	}
	ck_assert_uint_gt(said, 0);
}
END_TEST

START_TEST(validation_found_nothing) { ck_assert_uint_eq(knit__vk_messages(), 0); }
END_TEST

int main(void) {
	here = vulkan_present_checked();

	const TTest *const tests[] = {logits_of_the_cpu_at_every_budget, calls_that_fail, a_device_that_is_lost,
	                              a_device_that_is_too_small_says_what_to_do, validation_found_nothing};
	return suite_run("vk_split", tests, sizeof tests / sizeof tests[0]);
}
