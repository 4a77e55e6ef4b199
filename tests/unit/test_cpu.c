/* Tests the CPU device: enumeration, kernel selection over a table of its own, buffers, and the plan's refusal of
 * schedules that name what is not there. */
#include "../../backends/cpu/cpu.h"
#include "../../graph/context.h"
#include "../tools/suite.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const knit_backend *const cpu = &knit__cpu_backend;
static knit_context_desc desc;
static knit_device *dev;

static void setup(void) {
	knit_diag d = {0};

	desc = (knit_context_desc){.allocator = knit__default_allocator, .cpu_threads = 2};
	ck_assert_msg(cpu->open(0, &desc, &dev, &d) == KNIT_OK, "%s", d.text);
}

static void teardown(void) { cpu->close(dev); }

START_TEST(the_device) {
	knit_device_info info;
	knit_device *other;
	knit_diag d = {0};
	size_t count;

	ck_assert_int_eq(cpu->enumerate(&desc, &info, 1, &count), KNIT_OK);
	ck_assert_uint_eq(count, 1);
	ck_assert_str_eq(info.id, "cpu");
	ck_assert_uint_le(dev->isa, knit__cpu_isa_found());
	ck_assert(getenv("KNIT_CPU_ISA") != NULL || dev->isa == knit__cpu_isa_found());
	ck_assert_ptr_nonnull(strstr(info.detail, knit__cpu_isa_name(dev->isa)));
	ck_assert_uint_eq(dev->threads, 2);
	ck_assert(cpu->caps(dev)->unified_memory && !cpu->caps(dev)->timestamps);
	ck_assert_int_eq(cpu->open(1, &desc, &other, &d), KNIT_ERR_NOT_FOUND);
	ck_assert_ptr_null(other);
	desc.cpu_threads = 100;
	ck_assert_int_eq(cpu->open(0, &desc, &other, NULL), KNIT_ERR_LIMIT);
	ck_assert_str_eq(knit__cpu_isa_name((knit_cpu_isa)9), "?");
}
END_TEST

/* ---- selection --------------------------------------------------------------------------------------------------- */

static bool accepts_all(const knit_node_view *node) {
	(void)node;
	return true;
}

static bool accepts_f32(const knit_node_view *node) { return node->in[0].dtype == KNIT_F32; }

static const knit_cpu_kernel fast = {.name = "fast", .op = KNIT_OP_SILU, .isa = KNIT_CPU_AVX512, .accepts = accepts_f32};
static const knit_cpu_kernel medium = {.name = "medium", .op = KNIT_OP_SILU, .isa = KNIT_CPU_AVX2, .accepts = accepts_f32};
static const knit_cpu_kernel other_op = {.name = "other", .op = KNIT_OP_GELU, .accepts = accepts_all};
static const knit_cpu_kernel slow = {.name = "slow", .op = KNIT_OP_SILU, .accepts = accepts_all};

START_TEST(first_row_that_fits) {
	static const knit_cpu_kernel *const table[] = {&fast, &medium, &other_op, &slow};
	knit_node_view node = {.op = KNIT_OP_SILU};

	node.in[0].dtype = KNIT_F32;
	ck_assert_uint_eq(knit__cpu_select_from(table, 4, KNIT_CPU_AVX512, &node), 1);
	ck_assert_uint_eq(knit__cpu_select_from(table, 4, KNIT_CPU_AVX2, &node), 2);
	ck_assert_uint_eq(knit__cpu_select_from(table, 4, KNIT_CPU_PLAIN, &node), 4);
	ck_assert_uint_eq(knit__cpu_select_from(table, 3, KNIT_CPU_PLAIN, &node), 0);
	node.in[0].dtype = KNIT_F16;
	ck_assert_uint_eq(knit__cpu_select_from(table, 4, KNIT_CPU_AVX512, &node), 4);
	node.op = KNIT_OP_GELU;
	ck_assert_uint_eq(knit__cpu_select_from(table, 4, KNIT_CPU_AVX512, &node), 3);
	node.op = KNIT_OP_ROPE;
	ck_assert_uint_eq(knit__cpu_select_from(table, 4, KNIT_CPU_AVX512, &node), 0);
}
END_TEST

/* Every row can run: phases without holes, an op, a name of its own. */
START_TEST(the_table_is_well_formed) {
	ck_assert_uint_gt(knit__cpu_kernel_count, 0);
	for (uint32_t i = 0; i < knit__cpu_kernel_count; ++i) {
		const knit_cpu_kernel *const k = knit__cpu_kernels[i];
		ck_assert_msg(k->op > KNIT_OP_NONE && k->op < KNIT_OP_COUNT, "%s", k->name);
		ck_assert_msg(k->accepts && k->phases[0].run, "%s", k->name);
		for (int p = 0; p < KNIT_CPU_PHASES; ++p) {
			ck_assert_msg(!k->phases[p].run == !k->phases[p].units, "%s: phase %d", k->name, p);
			ck_assert_msg(p == 0 || !k->phases[p].run || k->phases[p - 1].run, "%s: phase %d", k->name, p);
		}
		for (uint32_t other = 0; other < i; ++other)
			ck_assert_str_ne(k->name, knit__cpu_kernels[other]->name);
	}
}
END_TEST

/* ---- buffers ----------------------------------------------------------------------------------------------------- */

START_TEST(buffers_are_zeroed_aligned_and_bounded) {
	static const uint64_t sizes[] = {0, 1, 63, 4096, 262143, 262144, 1000001};

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
		const uint64_t n = sizes[i];
		char *const bytes = malloc(n + 1);
		knit_buffer *b;
		ck_assert_int_eq(cpu->buffer_create(dev, KNIT_BUFFER_STATE, n, &b), KNIT_OK);
		ck_assert_uint_eq((uintptr_t)b->data % 64, 0);
		for (int round = 0; round < 2; ++round) {
			ck_assert_int_eq(cpu->buffer_read(dev, b, 0, bytes, n), KNIT_OK);
			uint64_t zeros = 0;
			while (zeros < n && bytes[zeros] == 0)
				++zeros;
			ck_assert_uint_eq(zeros, n);
			memset(bytes, 0x5a, n);
			ck_assert_int_eq(cpu->buffer_write(dev, b, 0, bytes, n), KNIT_OK);
			if (n)
				ck_assert_int_eq(b->data[n - 1], 0x5a);
			ck_assert_int_eq(cpu->buffer_clear(dev, b), KNIT_OK);
		}
		ck_assert_int_eq(cpu->buffer_write(dev, b, n, bytes, 1), KNIT_ERR_ARGUMENT);
		ck_assert_int_eq(cpu->buffer_read(dev, b, UINT64_MAX, bytes, 2), KNIT_ERR_ARGUMENT);
		ck_assert_int_eq(cpu->buffer_read(dev, b, n, bytes, 0), KNIT_OK);
		cpu->buffer_destroy(dev, b);
		free(bytes);
	}
	cpu->buffer_destroy(dev, NULL);
}
END_TEST

static long resident_pages(void) {
	long total = 0, resident = 0;
	FILE *const f = fopen("/proc/self/statm", "r");

	if (!f)
		return -1;
	ck_assert_int_eq(fscanf(f, "%ld %ld", &total, &resident), 2);
	fclose(f);
	return resident;
}

/* A KV slot costs the pages its context has reached, and a reset gives them back. */
START_TEST(large_states_are_touched_lazily) {
#if defined(__SANITIZE_THREAD__)
	puts("SKIP: the thread sanitizer has pages of its own for each page touched");
	return;
#endif
	const uint64_t bytes = UINT64_C(1) << 28;
	const long page = sysconf(_SC_PAGESIZE), before = resident_pages();
	knit_buffer *b;

	if (before < 0) {
		puts("SKIP: no /proc/self/statm");
		return;
	}
	ck_assert_int_eq(cpu->buffer_create(dev, KNIT_BUFFER_STATE, bytes, &b), KNIT_OK);
	ck_assert_int_lt((resident_pages() - before) * page, 1 << 24);
	memset(b->data, 1, 1 << 26);
	ck_assert_int_ge((resident_pages() - before) * page, 1 << 26);
	ck_assert_int_eq(cpu->buffer_clear(dev, b), KNIT_OK);
	ck_assert_int_lt((resident_pages() - before) * page, 1 << 24);
	cpu->buffer_destroy(dev, b);
}
END_TEST

START_TEST(impossible_sizes) {
	knit_buffer *b;

	ck_assert_int_eq(cpu->buffer_create(dev, KNIT_BUFFER_STATE, UINT64_MAX, &b), KNIT_ERR_LIMIT);
	ck_assert_ptr_null(b);
	ck_assert_int_eq(cpu->buffer_create(dev, KNIT_BUFFER_STATE, UINT64_C(1) << 60, &b), KNIT_ERR_MEMORY);
	ck_assert_ptr_null(b);
}
END_TEST

START_TEST(weights_are_read_in_place) {
	static const float w[5] = {1, 2, 3, 4, 5};
	float out[4];
	knit_buffer *b;

	ck_assert_int_eq(cpu->buffer_import(dev, w + 1, 16, &b), KNIT_OK);
	ck_assert_ptr_eq(b->data, w + 1);
	ck_assert_int_eq(cpu->buffer_read(dev, b, 0, out, 16), KNIT_OK);
	ck_assert(out[0] == 2.0f && out[3] == 5.0f);
	ck_assert_int_eq(cpu->buffer_write(dev, b, 0, out, 16), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(cpu->buffer_clear(dev, b), KNIT_ERR_ARGUMENT);
	cpu->buffer_destroy(dev, b);
	ck_assert_int_eq(cpu->buffer_import(dev, (const char *)w + 2, 8, &b), KNIT_ERR_ARGUMENT);
	ck_assert_ptr_null(b);
}
END_TEST

/* ---- plans ------------------------------------------------------------------------------------------------------- */

START_TEST(plans_refuse_what_is_not_there) {
	knit_context *ctx;
	knit_graph *g;
	knit_buffer *b[1];
	knit_plan *plan;
	knit_diag d = {0};
	knit_buffer_desc buffer = {.use = KNIT_BUFFER_ARENA, .bytes = 64};
	knit_step step = {.op = KNIT_OP_SILU, .kernel = knit__cpu_kernel_count + 1, .origin = "here"};

	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_int_eq(knit_graph_create(ctx, &g), KNIT_OK);
	ck_assert_int_eq(cpu->buffer_create(dev, KNIT_BUFFER_ARENA, 64, &b[0]), KNIT_OK);
	const knit_schedule s = {.graph = g, .steps = &step, .step_count = 1, .buffers = &buffer, .buffer_count = 1};
	ck_assert_int_eq(cpu->plan_create(dev, &s, b, &plan, &d), KNIT_ERR_INTERNAL);
	ck_assert_ptr_null(plan);
	step.kernel = 0;
	ck_assert_int_eq(cpu->plan_create(dev, &s, b, &plan, NULL), KNIT_ERR_INTERNAL);
	step.kernel = 1;
	step.scratch_base = 32;
	step.scratch_bytes = 33;
	ck_assert_int_eq(cpu->plan_create(dev, &s, b, &plan, NULL), KNIT_ERR_INTERNAL);
	step.scratch_bytes = 32;
	ck_assert_int_eq(cpu->plan_create(dev, &s, b, &plan, NULL), KNIT_OK);
	ck_assert_int_eq(cpu->plan_wait(plan, 0), KNIT_ERR_STATE);
	cpu->plan_destroy(dev, plan);
	cpu->buffer_destroy(dev, b[0]);
	knit_graph_destroy(g);
	knit_context_destroy(ctx);
}
END_TEST

int main(void) {
	Suite *s = suite_create("cpu");
	TCase *t = tcase_create("cpu");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, the_device);
	tcase_add_test(t, first_row_that_fits);
	tcase_add_test(t, the_table_is_well_formed);
	tcase_add_test(t, buffers_are_zeroed_aligned_and_bounded);
	tcase_add_test(t, large_states_are_touched_lazily);
	tcase_add_test(t, impossible_sizes);
	tcase_add_test(t, weights_are_read_in_place);
	tcase_add_test(t, plans_refuse_what_is_not_there);
	suite_add_tcase(s, t);
	return suite_finish(s, CK_FORK);
}
