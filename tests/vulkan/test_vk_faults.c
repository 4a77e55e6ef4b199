/* Fails what a driver can fail, call by call, from opening the device to reading results: MEMORY each time, nothing
 * left behind, what was there before still works. Then loses the device at each submission and wait. */
#include "../../backends/device.h"
#include "../../backends/vulkan/vk_fail.h"
#include "../../backends/vulkan/vk_instance.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"
#include "../tools/vulkan_case.h"

#include <math.h>
#include <stdio.h>

enum { ROWS = 40, WIDTH = 64, TOKENS = 4, POSITIONS = 6 };

static bool here;

typedef struct model {
	knit_context *ctx;
	knit_weights *w;
	knit_graph *g;
} model;

static knit_status model_make(model *m, track_alloc *t) {
	const int64_t dims[] = {ROWS, WIDTH};
	static float table[ROWS * WIDTH], gain[WIDTH];

	*m = (model){.ctx = track_context(t)};
	for (int i = 0; i < ROWS * WIDTH; ++i)
		table[i] = sinf((float)i);
	for (int i = 0; i < WIDTH; ++i)
		gain[i] = 1.0f + 0.01f * (float)i;
	ck_assert_int_eq(knit_weights_create(m->ctx, &m->w), KNIT_OK);
	ck_assert_int_eq(knit_weights_add(m->w, "table", KNIT_F32, 2, dims, table, sizeof table, NULL), KNIT_OK);
	ck_assert_int_eq(knit_weights_add(m->w, "gain", KNIT_F32, 1, dims + 1, gain, sizeof gain, NULL), KNIT_OK);
	ck_assert_int_eq(knit_graph_create(m->ctx, &m->g), KNIT_OK);
	const knit_dim tokens = knit_sym(m->g, "tokens", 1, TOKENS);
	const knit_dim cells[] = {knit_n(1), knit_n(POSITIONS), knit_n(WIDTH)};
	const knit_tensor ids = knit_input(m->g, "ids", KNIT_I32, 1, &tokens);
	const knit_tensor seq = knit_input(m->g, "seq", KNIT_I32, 1, &tokens);
	const knit_tensor pos = knit_input(m->g, "pos", KNIT_I32, 1, &tokens);
	const knit_tensor x = knit_gather(m->g, knit_weight(m->g, m->w, "table"), ids);
	const knit_tensor y = knit_rms_norm(m->g, x, knit_weight(m->g, m->w, "gain"), 1e-5f);
	const knit_state kept = knit_state_define(m->g, KNIT_F32, 3, cells, "kept");
	knit_state_append(m->g, kept, y, seq, pos);
	knit_output(m->g, "y", knit_softmax(m->g, y));
	knit_output(m->g, "kept", knit_scale(m->g, knit_state_read(m->g, kept), 2.0f));
	return knit_graph_status(m->g, NULL);
}

static void model_free(model *m) {
	knit_graph_destroy(m->g);
	knit_weights_release(m->w);
	knit_context_destroy(m->ctx);
}

static const knit_bucket buckets[] = {{"tokens", 1, 1}, {"tokens", 2, TOKENS}};

static knit_status compile(const model *m, const char *device, uint32_t bucket_count, knit_program **out,
                           knit_diag *d) {
	const knit_compile_desc desc = {.device = device, .buckets = buckets, .bucket_count = bucket_count};

	return knit_compile(m->g, &desc, out, d);
}

typedef struct results {
	float y[TOKENS * WIDTH], kept[POSITIONS * WIDTH];
} results;

static knit_status run(knit_session *s, results *out) {
	static const int32_t ids[TOKENS] = {3, 39, 0, 17}, seq[TOKENS], pos[TOKENS] = {0, 1, 2, 3}, last[1] = {4};
	knit_status status = knit_session_set(s, "tokens", TOKENS);

	/* A prefill and a token. */
	for (int turn = 0; turn < 2 && status == KNIT_OK; ++turn) {
		const size_t count = turn ? 1 : TOKENS;
		if (turn)
			status = knit_session_set(s, "tokens", 1);
		if (status == KNIT_OK)
			status = knit_session_write(s, "ids", ids, count * sizeof *ids);
		if (status == KNIT_OK)
			status = knit_session_write(s, "seq", seq, count * sizeof *seq);
		if (status == KNIT_OK)
			status = knit_session_write(s, "pos", turn ? last : pos, count * sizeof *pos);
		if (status == KNIT_OK)
			status = knit_session_run(s);
		if (status == KNIT_OK && turn == 0)
			status = knit_session_read(s, "y", out->y, sizeof out->y);
	}
	return status == KNIT_OK ? knit_session_read(s, "kept", out->kept, sizeof out->kept) : status;
}

static void expect_close(const results *a, const results *b) {
	float worst = 0.0f;

	for (size_t i = 0; i < sizeof a->y / sizeof a->y[0]; ++i)
		worst = fmaxf(worst, fabsf(a->y[i] - b->y[i]));
	for (size_t i = 0; i < sizeof a->kept / sizeof a->kept[0]; ++i)
		worst = fmaxf(worst, fabsf(a->kept[i] - b->kept[i]));
	ck_assert_float_le(worst, 1e-4f);
}

static results wanted(void) {
	track_alloc t = {0};
	model m;
	knit_program *p;
	knit_session *s;
	results r;

	ck_assert_int_eq(model_make(&m, &t), KNIT_OK);
	ck_assert_int_eq(compile(&m, "cpu", 0, &p, NULL), KNIT_OK);
	ck_assert_int_eq(knit_session_create(p, &s, NULL), KNIT_OK);
	ck_assert_int_eq(run(s, &r), KNIT_OK);
	knit_session_destroy(s);
	knit_program_release(p);
	model_free(&m);
	return r;
}

static const char *stage;

/* From the device to the results; whatever fails is tried once more. */
static knit_status everything(const model *m, results *out, knit_diag *d) {
	knit_program *p = NULL;
	knit_session *s = NULL;
	knit_status failed = KNIT_OK;

	stage = "compile";
	knit_status status = compile(m, "vulkan", 0, &p, d);
	if (status != KNIT_OK) {
		ck_assert_ptr_null(p);
		failed = status;
		unsetenv("KNIT_VK_FAIL"); /* a device that is opened now begins to count anew */
		status = compile(m, "vulkan", 0, &p, NULL);
	}
	ck_assert_msg(status == KNIT_OK, "the second try: %s", knit_status_name(status));
	if (failed == KNIT_OK)
		stage = "session";
	status = knit_session_create(p, &s, failed == KNIT_OK ? d : NULL);
	if (status != KNIT_OK) {
		ck_assert_ptr_null(s);
		failed = status;
		status = knit_session_create(p, &s, NULL);
	}
	ck_assert_msg(status == KNIT_OK, "the second try: %s", knit_status_name(status));
	if (failed == KNIT_OK)
		stage = "run";
	status = run(s, out);
	if (status != KNIT_OK) {
		failed = status;
		knit_session_destroy(s);
		ck_assert_int_eq(knit_session_create(p, &s, NULL), KNIT_OK);
		status = run(s, out);
	}
	ck_assert_msg(status == KNIT_OK, "the second try: %s", knit_status_name(status));
	knit_session_destroy(s);
	knit_program_release(p);
	return failed;
}

static void fail_each(const char *limits, uint64_t first, uint64_t step) {
	const results want = wanted();
	uint64_t made = first, submitted, seen = 0, n;
	const uint64_t messages = knit__vk_messages();

	if (limits)
		setenv("KNIT_VK_LIMITS", limits, 1);
	for (n = first; n <= made + step; n += step) { /* until the call to fail is one more than there are */
		track_alloc t = {0};
		knit_diag d = {0};
		results got;
		model m;
		char text[32];

		snprintf(text, sizeof text, "%llu", (unsigned long long)n);
		setenv("KNIT_VK_FAIL", text, 1);
		ck_assert_int_eq(model_make(&m, &t), KNIT_OK);
		const knit_status status = everything(&m, &got, &d);
		knit__vk_fail_counts(&made, &submitted);
		made = made < n ? made : n; /* with this one failed there may be fewer or more */
		model_free(&m);
		/* A call that has another way (a smaller block, no cache file) need not fail what it is for. */
		ck_assert_msg(status == KNIT_OK || status == KNIT_ERR_MEMORY, "call %llu, %s: %s: %s", (unsigned long long)n, stage,
		              knit_status_name(status), d.text);
		ck_assert_msg(status == KNIT_OK || strcmp(stage, "run") == 0 || d.text[0], "call %llu, %s: no words",
		              (unsigned long long)n, stage);
		seen += status != KNIT_OK;
		expect_close(&got, &want);
		ck_assert_msg(t.live == 0 && !t.bad_free, "call %llu, %s: %llu bytes not given back", (unsigned long long)n, stage,
		              (unsigned long long)t.live);
		ck_assert_msg(knit__vk_messages() == messages, "call %llu, %s: validation has something to say",
		              (unsigned long long)n, stage);
	}
	unsetenv("KNIT_VK_FAIL");
	unsetenv("KNIT_VK_LIMITS");
	printf("%llu calls that can fail; of each %llu-th one %llu were told of\n", (unsigned long long)made,
	       (unsigned long long)step, (unsigned long long)seen);
	ck_assert_uint_gt(made, 30);
	ck_assert_uint_gt(seen, made / step / 2);
}

/* Copies through the staging buffer can fail besides all the others. */
START_TEST(every_call_that_can_fail) {
	if (here)
		fail_each("mapped=0", 1, 1);
}
END_TEST

/* And where a run is several submissions, of which some are taken and one is not. */
START_TEST(some_calls_where_the_host_reaches_all_memory) {
	setenv("KNIT_VK_SEGMENT_US", "0", 1);
	if (here)
		fail_each(NULL, 3, 5);
	unsetenv("KNIT_VK_SEGMENT_US");
}
END_TEST

/* ---- losing the device ------------------------------------------------------------------------------------------- */

START_TEST(a_device_lost_at_each_submission) {
	uint64_t made, submitted = 1, seen = 0;

	if (!here)
		return;
	const results want = wanted();
	setenv("KNIT_VK_LIMITS", "mapped=0", 1);
	for (uint64_t n = 1; n <= submitted + 1; ++n) {
		track_alloc t = {0};
		knit_program *p = NULL, *again = NULL;
		knit_session *s = NULL, *other = NULL;
		knit_diag d = {0};
		results got;
		model m;
		char text[32];

		snprintf(text, sizeof text, "%llu", (unsigned long long)n);
		setenv("KNIT_VK_LOSE", text, 1);
		ck_assert_int_eq(model_make(&m, &t), KNIT_OK);
		knit_status status = compile(&m, "vulkan", 2, &p, &d);
		if (status == KNIT_OK)
			status = knit_session_create(p, &s, &d);
		if (status == KNIT_OK)
			status = run(s, &got);
		knit__vk_fail_counts(&made, &submitted);
		submitted = submitted < n ? submitted : n;
		unsetenv("KNIT_VK_LOSE");
		ck_assert_msg(status == KNIT_OK || status == KNIT_ERR_DEVICE, "call %llu: %s: %s", (unsigned long long)n,
		              knit_status_name(status), d.text);
		if (status == KNIT_OK) { /* all submissions are through, and the next would be lost */
			knit_session_destroy(s);
			knit_program_release(p);
			model_free(&m);
			break;
		}
		++seen;
		/* The session stays dead, and the program's device with it. */
		if (s)
			ck_assert_int_ne(run(s, &got), KNIT_OK);
		if (p)
			ck_assert_int_eq(knit_session_create(p, &other, NULL), KNIT_ERR_DEVICE);
		ck_assert_ptr_null(other);
		/* Beside it, in the same context, a new open works. */
		ck_assert_msg(compile(&m, "vulkan", 2, &again, &d) == KNIT_OK, "%s", d.text);
		ck_assert_int_eq(knit_session_create(again, &other, NULL), KNIT_OK);
		ck_assert_int_eq(run(other, &got), KNIT_OK);
		expect_close(&got, &want);
		knit_session_destroy(s);
		knit_program_release(p);
		ck_assert_int_eq(knit_session_reset_states(other), KNIT_OK);
		ck_assert_int_eq(run(other, &got), KNIT_OK);
		expect_close(&got, &want);
		knit_session_destroy(other);
		knit_program_release(again);
		model_free(&m);
		ck_assert(t.live == 0 && !t.bad_free);
	}
	unsetenv("KNIT_VK_LIMITS");
	printf("lost at %llu of %llu submissions and waits\n", (unsigned long long)seen, (unsigned long long)submitted);
	ck_assert_uint_eq(seen, submitted);
	ck_assert_uint_gt(seen, 5);
}
END_TEST

START_TEST(validation_found_nothing) { ck_assert_uint_eq(knit__vk_messages(), 0); }
END_TEST

int main(void) {
	here = vulkan_present_checked();

	const TTest *const tests[] = {every_call_that_can_fail, some_calls_where_the_host_reaches_all_memory,
	                              a_device_lost_at_each_submission, validation_found_nothing};
	return suite_run("vk_faults", tests, sizeof tests / sizeof tests[0]);
}
