/* Tests knit_compile, devices and the memory report on the null device: what is shared, what is refused and how it is
 * said. */
#include "../../backends/null/null.h"
#include "../../backends/program.h"
#include "../tools/small_model.h"
#include "../tools/suite.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static knit_context *ctx;
static knit_weights *weights;
static knit_graph *graph;
static const knit_bucket decode_prefill[] = {{"tokens", 1, 1}, {"tokens", 2, SMALL_TOKENS}};

static void setup(void) {
	ck_assert_int_eq(knit_context_create(&(knit_context_desc){.cpu_threads = 2}, &ctx), KNIT_OK);
	ck_assert_int_eq(small_model_weights(ctx, &weights), KNIT_OK);
	ck_assert_int_eq(small_model_graph(ctx, weights, &graph), KNIT_OK);
}

static void teardown(void) {
	knit_graph_destroy(graph);
	knit_weights_release(weights);
	knit_context_destroy(ctx);
}

static knit_program *compile(const knit_compile_desc *desc) {
	knit_program *p;
	knit_diag d;

	ck_assert_msg(knit_compile(graph, desc, &p, &d) == KNIT_OK, "%s", d.text);
	ck_assert_int_eq(d.status, KNIT_OK);
	return p;
}

static void refuse(const knit_graph *g, const knit_compile_desc *desc, knit_status status, const char *words) {
	knit_program *p = (knit_program *)&status;
	knit_diag d = {.status = KNIT_ERR_IO, .text = "an error of long ago"};

	const knit_status got = knit_compile(g, desc, &p, &d);
	ck_assert_msg(got == status, "%s: %s", knit_status_name(got), d.text);
	ck_assert_int_eq(d.status, status);
	ck_assert_ptr_null(p);
	ck_assert_msg(strstr(d.text, words), "\"%s\" does not say \"%s\"", d.text, words);
}

START_TEST(devices_are_listed) {
	knit_device_info info[24];
	size_t count, again;

	ck_assert_int_eq(knit_devices(ctx, NULL, 0, &count), KNIT_OK);
	ck_assert_uint_ge(count, 3); /* the Vulkan devices of this machine, or one entry that says why there is none */
	ck_assert_uint_le(count, 24);
	ck_assert_int_eq(knit_devices(ctx, info, 1, &again), KNIT_OK);
	ck_assert_uint_eq(again, count);
	ck_assert_str_eq(info[0].id, "cpu");
	ck_assert_int_eq(knit_devices(ctx, info, 24, &again), KNIT_OK);
	ck_assert_uint_eq(again, count);
	ck_assert_int_eq(strncmp(info[1].id, "vulkan", 6), 0);
	ck_assert(info[1].detail[0] != '\0');
	ck_assert_str_eq(info[count - 1].id, "null");
	ck_assert(info[0].available && info[count - 1].available);
	ck_assert_uint_gt(info[0].memory_bytes, 0);
	ck_assert_ptr_nonnull(strstr(info[0].detail, "2 threads"));
	ck_assert_int_eq(knit_devices(NULL, info, 8, &count), KNIT_ERR_ARGUMENT);
}
END_TEST

START_TEST(devices_open_by_id) {
	knit_opened *a, *b;
	knit_diag d = {0};

	ck_assert_int_eq(knit__device_open(ctx, "null", &a, &d), KNIT_OK);
	ck_assert_int_eq(knit__device_open(ctx, "null:0", &b, &d), KNIT_OK);
	ck_assert_ptr_eq(a, b);
	ck_assert_int_eq(knit__device_open(ctx, NULL, &a, &d), KNIT_OK);
	ck_assert_str_eq(a->id, "cpu");
	ck_assert_int_eq(knit__device_open(ctx, "cpu:0", &b, &d), KNIT_OK);
	ck_assert_ptr_eq(a, b);
}
END_TEST

START_TEST(unknown_devices) {
	refuse(graph, &(knit_compile_desc){.device = "vulkan:7"}, KNIT_ERR_NOT_FOUND, "use one of cpu, ");
	refuse(graph, &(knit_compile_desc){.device = "cpu:1"}, KNIT_ERR_NOT_FOUND, "cpu:1");
	refuse(graph, &(knit_compile_desc){.device = "cpu:"}, KNIT_ERR_NOT_FOUND, "cpu:");
	refuse(graph, &(knit_compile_desc){.device = "cpu:99999999999999999999"}, KNIT_ERR_NOT_FOUND, "cpu:9");
	refuse(graph, &(knit_compile_desc){.device = "nullify"}, KNIT_ERR_NOT_FOUND, "nullify");
}
END_TEST

START_TEST(arguments) {
	knit_program *p;
	knit_diag d = {0};

	ck_assert_int_eq(knit_compile(NULL, NULL, &p, &d), KNIT_ERR_ARGUMENT);
	ck_assert_ptr_null(p);
	ck_assert_int_eq(knit_compile(graph, NULL, NULL, NULL), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_compile(graph, &(knit_compile_desc){.device = "none"}, &p, NULL), KNIT_ERR_NOT_FOUND);
	knit_program_release(NULL);
	ck_assert_int_eq(knit_program_memory(NULL, NULL), KNIT_ERR_ARGUMENT);
	ck_assert_uint_eq(knit_program_step_count(NULL, 0), 0);
}
END_TEST

START_TEST(the_graphs_own_error_comes_first) {
	knit_graph *bad;

	ck_assert_int_eq(knit_graph_create(ctx, &bad), KNIT_OK);
	knit_origin(bad, "somewhere");
	knit_linear(bad, knit_weight(bad, weights, "q"), knit_weight(bad, weights, "down"));
	refuse(bad, &(knit_compile_desc){.device = "no such device"}, KNIT_ERR_SHAPE, "linear at somewhere");
	knit_graph_destroy(bad);
	ck_assert_int_eq(knit_graph_create(ctx, &bad), KNIT_OK);
	refuse(bad, &(knit_compile_desc){.device = "null"}, KNIT_ERR_ARGUMENT, "knit_output");
	knit_graph_destroy(bad);
}
END_TEST

START_TEST(buckets_are_checked) {
	static const struct { knit_bucket b[2]; size_t count; knit_status status; const char *words; } cases[] = {
		{{{NULL, 1, 1}}, 1, KNIT_ERR_ARGUMENT, "names no symbol"},
		{{{"token", 1, 1}}, 1, KNIT_ERR_NOT_FOUND, "the graph has: tokens"},
		{{{"tokens", 1, 1}, {"other", 2, 3}}, 2, KNIT_ERR_ARGUMENT, "use one symbol"},
		{{{"tokens", 3, 2}}, 1, KNIT_ERR_ARGUMENT, "3 to 2"},
		{{{"tokens", 0, 2}}, 1, KNIT_ERR_ARGUMENT, "range, 1 to 8"},
		{{{"tokens", 2, 9}}, 1, KNIT_ERR_ARGUMENT, "2 to 9"},
		{{{"tokens", 1, 4}, {"tokens", 4, 8}}, 2, KNIT_ERR_ARGUMENT, "overlap"},
		{{{"tokens", 4, 8}, {"tokens", 1, 6}}, 2, KNIT_ERR_ARGUMENT, "overlap"},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i)
		refuse(graph, &(knit_compile_desc){.device = "null", .buckets = cases[i].b, .bucket_count = cases[i].count},
		       cases[i].status, cases[i].words);
	refuse(graph, &(knit_compile_desc){.device = "null", .bucket_count = 1}, KNIT_ERR_ARGUMENT, "buckets is NULL");
	knit_bucket many[KNIT_MAX_BUCKETS + 1];
	for (int i = 0; i <= KNIT_MAX_BUCKETS; ++i)
		many[i] = (knit_bucket){"tokens", i + 1, i + 1};
	refuse(graph, &(knit_compile_desc){.device = "null", .buckets = many, .bucket_count = KNIT_MAX_BUCKETS + 1},
	       KNIT_ERR_LIMIT, "at most 64");
}
END_TEST

START_TEST(report_counts_what_is_shared) {
	knit_program *const p = compile(&(knit_compile_desc){.device = "null"});
	knit_memory m;

	ck_assert_int_eq(knit_program_memory(p, &m), KNIT_OK);
	ck_assert_uint_eq(m.weight_bytes, small_model_weight_bytes());
	ck_assert_uint_eq(m.adapter_bytes, small_model_adapter_bytes());
	ck_assert_uint_eq(m.state_bytes, small_model_state_bytes());
	ck_assert_uint_eq(m.packed_bytes, 0);
	ck_assert_uint_eq(m.weight_storages, 11);
	/* embed twice, the last norm once, nine weights of the layer in each visit */
	ck_assert_uint_eq(m.weight_uses, 3 + 9 * SMALL_VISITS);
	const uint64_t embed = SMALL_VOCAB * SMALL_DIM * sizeof(float), norm = SMALL_DIM * sizeof(float);
	ck_assert_uint_eq(m.weight_bytes_by_use,
	                  2 * embed + norm + SMALL_VISITS * (small_model_weight_bytes() - embed - norm));
	ck_assert_uint_eq(m.io_bytes, SMALL_TOKENS * (3 + SMALL_VOCAB) * sizeof(float));
	ck_assert_uint_gt(m.arena_lower_bound, 0);
	ck_assert_uint_ge(m.arena_bytes, m.arena_lower_bound);
	ck_assert_uint_gt(m.arena_unshared, m.arena_bytes);
	ck_assert_str_eq(knit_program_device(p), "null");
	ck_assert_uint_eq(knit_program_step_count(p, 0), 3 + 8 * SMALL_VISITS); /* gather, norm and head; fused blocks */
	ck_assert_uint_eq(knit_program_step_count(p, 1), 0);
	knit_program_release(p);
}
END_TEST

START_TEST(buckets_have_arenas_of_their_size) {
	knit_program *const whole = compile(&(knit_compile_desc){.device = "null"});
	knit_program *const p =
		compile(&(knit_compile_desc){.device = "null", .buckets = decode_prefill, .bucket_count = 2});
	knit_program *const decode =
		compile(&(knit_compile_desc){.device = "null", .buckets = decode_prefill, .bucket_count = 1});
	knit_memory a, b, c;

	knit_program_memory(whole, &a);
	knit_program_memory(p, &b);
	knit_program_memory(decode, &c);
	ck_assert_uint_eq(a.arena_bytes, b.arena_bytes);
	ck_assert_uint_lt(c.arena_bytes, b.arena_bytes / 2);
	ck_assert_uint_eq(knit_program_step_count(p, 0), knit_program_step_count(p, 1));
	ck_assert_uint_gt(knit_program_step_count(p, 1), 0);
	ck_assert_uint_eq(knit_program_step_count(p, 2), 0);
	knit_program_release(whole);
	knit_program_release(p);
	knit_program_release(decode);
}
END_TEST

START_TEST(memory_limit) {
	knit_program *p = compile(&(knit_compile_desc){.device = "null"});
	knit_memory m;
	char sum[32];

	knit_program_memory(p, &m);
	knit_program_release(p);
	const uint64_t total = m.weight_bytes + m.adapter_bytes + m.packed_bytes + m.state_bytes + m.arena_bytes + m.io_bytes;
	snprintf(sum, sizeof sum, "%llu", (unsigned long long)total);
	p = compile(&(knit_compile_desc){.device = "null", .memory_limit = total});
	knit_program_release(p);
	refuse(graph, &(knit_compile_desc){.device = "null", .memory_limit = total - 1}, KNIT_ERR_LIMIT, sum);
}
END_TEST

START_TEST(passes_can_be_switched_off) {
	knit_program *const p = compile(&(knit_compile_desc){.device = "null", .disable_passes = "cse,dedup_weights"});

	knit_program_release(p);
	refuse(graph, &(knit_compile_desc){.device = "null", .disable_passes = "no_such_pass"}, KNIT_ERR_ARGUMENT,
	       "no_such_pass");
}
END_TEST

static uint32_t live_weights(const char *device, uint32_t *refs) {
	knit_opened *o;

	ck_assert_int_eq(knit__device_open(ctx, device, &o, NULL), KNIT_OK);
	*refs = 0;
	for (uint32_t i = 0; i < o->weight_count; ++i)
		*refs += o->weights[i]->refs;
	return o->weight_count;
}

START_TEST(weight_buffers_are_shared_between_programs) {
	const uint32_t distinct = 11 + 2 * SMALL_VISITS;
	uint32_t refs;
	knit_program *const a = compile(&(knit_compile_desc){.device = "cpu"});
	knit_program *const b =
		compile(&(knit_compile_desc){.device = "cpu", .buckets = decode_prefill, .bucket_count = 2});

	ck_assert_uint_eq(live_weights("cpu", &refs), distinct);
	ck_assert_uint_eq(refs, 2 * distinct);
	for (uint32_t i = 0; i < a->buffer_count; ++i) {
		ck_assert_ptr_eq(a->weights[i], b->weights[i]);
		ck_assert(!a->weights[i] || !a->weights[i]->copied);
	}
	knit_program_release(a);
	ck_assert_uint_eq(live_weights("cpu", &refs), distinct);
	ck_assert_uint_eq(refs, distinct);
	knit_program_release(b);
	ck_assert_uint_eq(live_weights("cpu", &refs), 0);
}
END_TEST

/* A device that cannot import: weights are copied, once per context. */
static const knit_caps *copying_caps(const knit_device *dev) {
	static knit_caps caps;

	caps = *knit__null_backend.caps(dev);
	caps.import_align = 0;
	return &caps;
}

START_TEST(weights_are_copied_where_they_cannot_be_imported) {
	static knit_backend copying;
	const knit_compile_desc none = {0};
	knit_program *a, *b;
	knit_opened *o;
	knit_memory m;

	copying = knit__null_backend;
	copying.caps = copying_caps;
	ck_assert_int_eq(knit__device_open_backend(ctx, &copying, 0, &o, NULL), KNIT_OK);
	ck_assert_int_eq(knit__compile_on(graph, &none, o, &a, NULL), KNIT_OK);
	ck_assert_int_eq(knit__compile_on(graph, &none, o, &b, NULL), KNIT_OK);
	ck_assert_uint_eq(o->weight_count, 11 + 2 * SMALL_VISITS);
	ck_assert(o->weights[0]->copied);
	knit_program_memory(a, &m);
	ck_assert_uint_eq(m.packed_bytes, small_model_weight_bytes() + small_model_adapter_bytes());
	ck_assert_uint_eq(m.weight_bytes, small_model_weight_bytes());
	knit_program_release(a);
	knit_program_release(b);
	ck_assert_uint_eq(o->weight_count, 0);
}
END_TEST

static knit_kernel no_gather(const knit_device *dev, const knit_node_view *node) {
	return node->op == KNIT_OP_GATHER ? 0 : knit__null_backend.select(dev, node);
}

START_TEST(missing_kernels_are_named) {
	static knit_backend lacking;
	const knit_compile_desc none = {0};
	knit_program *p;
	knit_opened *o;
	knit_diag d = {0};

	lacking = knit__null_backend;
	lacking.select = no_gather;
	ck_assert_int_eq(knit__device_open_backend(ctx, &lacking, 0, &o, NULL), KNIT_OK);
	ck_assert_int_eq(knit__compile_on(graph, &none, o, &p, &d), KNIT_ERR_UNSUPPORTED);
	ck_assert_msg(strstr(d.text, "gather at embed"), "%s", d.text);
	ck_assert_uint_eq(o->weight_count, 0);
}
END_TEST

START_TEST(backends_of_another_interface_are_refused) {
	static knit_backend old;
	knit_opened *o;
	knit_diag d = {0};

	old = knit__null_backend;
	old.abi = KNIT_BACKEND_ABI + 1;
	ck_assert_int_eq(knit__device_open_backend(ctx, &old, 0, &o, &d), KNIT_ERR_INTERNAL);
	ck_assert_ptr_null(o);
}
END_TEST

/* Everything may go in any order: the program keeps what it needs. */
START_TEST(any_order_of_destruction) {
	knit_program *const p = compile(&(knit_compile_desc){.device = "cpu"});
	knit_session *s;

	ck_assert_int_eq(knit_session_create(p, &s, NULL), KNIT_OK);
	knit_context_destroy(ctx);
	knit_weights_release(weights);
	knit_graph_destroy(graph);
	knit_program_release(p);
	ck_assert_int_eq(knit_session_set(s, "tokens", 2), KNIT_OK);
	knit_session_destroy(s);
}
END_TEST

static void *compile_main(void *arg) {
	(void)arg;
	for (int i = 0; i < 5; ++i) {
		knit_program *const p = compile(&(knit_compile_desc){.device = i % 2 ? "cpu" : "null"});
		knit_program_release(p);
	}
	return NULL;
}

START_TEST(compiling_in_several_threads) {
	pthread_t threads[3];
	uint32_t refs;

	for (int i = 0; i < 3; ++i)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, compile_main, NULL), 0);
	for (int i = 0; i < 3; ++i)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(live_weights("cpu", &refs), 0);
}
END_TEST

START_TEST(isa_can_be_lowered) {
	knit_opened *o;
	knit_diag d = {0};
	knit_device_info info[2];
	size_t count;

	setenv("KNIT_CPU_ISA", "plain", 1);
	ck_assert_int_eq(knit_devices(ctx, info, 2, &count), KNIT_OK);
	ck_assert_ptr_nonnull(strstr(info[0].detail, "plain kernels"));
	setenv("KNIT_CPU_ISA", "sse9", 1);
	ck_assert_int_eq(knit_devices(ctx, info, 2, &count), KNIT_OK);
	ck_assert(!info[0].available);
	ck_assert_int_eq(knit__device_open(ctx, "cpu", &o, &d), KNIT_ERR_UNSUPPORTED);
	ck_assert_ptr_nonnull(strstr(d.text, "use plain, avx2 or avx512"));
	unsetenv("KNIT_CPU_ISA");
	ck_assert_int_eq(knit__device_open(ctx, "cpu", &o, NULL), KNIT_OK);
}
END_TEST

int main(void) {
	Suite *s = suite_create("compile");
	TCase *t = tcase_create("compile"), *last = tcase_create("destruction");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_checked_fixture(last, setup, NULL);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, devices_are_listed);
	tcase_add_test(t, devices_open_by_id);
	tcase_add_test(t, unknown_devices);
	tcase_add_test(t, arguments);
	tcase_add_test(t, the_graphs_own_error_comes_first);
	tcase_add_test(t, buckets_are_checked);
	tcase_add_test(t, report_counts_what_is_shared);
	tcase_add_test(t, buckets_have_arenas_of_their_size);
	tcase_add_test(t, memory_limit);
	tcase_add_test(t, passes_can_be_switched_off);
	tcase_add_test(t, weight_buffers_are_shared_between_programs);
	tcase_add_test(t, weights_are_copied_where_they_cannot_be_imported);
	tcase_add_test(t, missing_kernels_are_named);
	tcase_add_test(t, backends_of_another_interface_are_refused);
	tcase_add_test(t, compiling_in_several_threads);
	tcase_add_test(t, isa_can_be_lowered);
	tcase_add_test(last, any_order_of_destruction);
	suite_add_tcase(s, t);
	suite_add_tcase(s, last);
	return suite_finish(s, CK_FORK);
}
