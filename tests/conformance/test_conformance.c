/* Runs the conformance table on every device against the double-precision reference.
 *
 *   test-conformance-conformance                                      all devices, all cases
 *   test-conformance-conformance --device cpu --isa avx2 --threads 3 --case NAME     one case again
 *   test-conformance-conformance --support                            the support matrix as Markdown
 */
#include "cases.h"
#include "conf_run.h"

#include "../../backends/cpu/cpu.h"
#include "../../graph/context.h"
#include "../../graph/schedule.h"
#include "../tools/device_run.h"
#include "../tools/suite.h"
#include "../tools/vulkan_case.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static conf_case *cases;
static size_t case_count;
static conf_config chosen = {.threads = 1};
static bool partly; /* not all cases are in the table */

/* ---- the support matrix ------------------------------------------------------------------------------------------ */

static bool supported(knit_context *ctx, const knit_backend *backend, knit_device *dev, uint16_t op, knit_dtype dtype) {
	bool any = false;

	for (size_t i = 0; i < case_count; ++i) {
		case_build b;
		device_run *device = NULL;

		if (cases[i].op != op || cases[i].dtype != dtype)
			continue;
		const bool built = case_open(&b, ctx, &cases[i]);
		any = built && device_run_create(b.g, backend, dev, conf_is_fused(op) ? NULL : conf_fusions, &device, NULL) == KNIT_OK &&
		      (!conf_is_fused(op) || conf_has_step(device_run_schedule(device), op));
		device_run_destroy(device);
		case_close(&b);
		break;
	}
	return any;
}

static void support_matrix(knit_text *t) {
	knit_device *devices[8] = {0};
	knit_context *ctx = NULL;
	size_t n = 0;

	unsetenv("KNIT_CPU_ISA");
	knit_context_create(NULL, &ctx);
	knit__text_add(t, "| op |");
	for (; n < 8 && knit__backend_at(n); ++n) {
		knit__backend_at(n)->open(0, &ctx->desc, &devices[n], NULL);
		knit__text_add(t, " %s |", knit__backend_at(n)->name);
	}
	knit__text_add(t, "\n|---|");
	for (size_t i = 0; i < n; ++i)
		knit__text_add(t, "---|");
	knit__text_add(t, "\n");
	for (uint16_t op = KNIT_OP_NONE + 1; op < KNIT_OP_COUNT; ++op) {
		knit__text_add(t, "| %s |", knit__op(op)->name);
		for (size_t i = 0; i < n; ++i) {
			for (int dtype = KNIT_F32; dtype <= KNIT_Q6_K; ++dtype)
				if (devices[i] && supported(ctx, knit__backend_at(i), devices[i], op, (knit_dtype)dtype))
					knit__text_add(t, " %s", knit_dtype_name((knit_dtype)dtype));
			knit__text_add(t, " |");
		}
		knit__text_add(t, "\n");
	}
	for (size_t i = 0; i < n; ++i)
		if (devices[i])
			knit__backend_at(i)->close(devices[i]);
	knit_context_destroy(ctx);
}

START_TEST(readme_has_the_present_matrix) {
	if (!vulkan_present()) {
		printf("SKIP: the support matrix: its column of this device would be empty\n");
		return;
	}
	knit_text t = {.a = &knit__default_allocator};
	char *readme = calloc(1, 1 << 20);
	FILE *f = fopen(KNIT_SOURCE_DIR "/README.md", "r");

	if (f) {
		const size_t n = fread(readme, 1, (1 << 20) - 1, f);

		readme[n] = 0;
		fclose(f);
	}
	support_matrix(&t);
	const bool present = strstr(readme, t.data) != NULL;
	if (!present)
		printf("README.md does not hold the present support matrix; put in what --support prints:\n%s", t.data);
	free(readme);
	knit__text_clear(&t);
	ck_assert(present);
}
END_TEST

/* ---- tests ------------------------------------------------------------------------------------------------------- */

START_TEST(every_op_has_a_case) {
	for (uint16_t op = KNIT_OP_NONE + 1; op < KNIT_OP_COUNT; ++op) {
		size_t n = 0;

		for (size_t i = 0; i < case_count; ++i)
			n += cases[i].op == op;
		ck_assert_msg(partly || n > 0, "op %s has no conformance case", knit__op(op)->name);
	}
}
END_TEST

/* The null device, which takes every case, and each instruction set and thread count of the CPU's; at the end every row of the
 * kernel table was used by some case. */
START_TEST(null_and_cpu_agree_with_the_reference) {
	const knit_cpu_isa *isas;
	const size_t count = knit__cpu_isa_levels(&isas);
	const knit_cpu_isa best = isas[count - 1];
	conf_config cfgs[CONF_CONFIGS] = {{.device = "null", .threads = 1}};
	bool *hit = calloc(knit__cpu_kernel_count, sizeof *hit);

	for (size_t i = 0; i < 2 * count; ++i)
		cfgs[1 + i] = (conf_config){.device = "cpu",
		                            .isa = knit__cpu_isa_name(isas[i / 2]),
		                            .threads = i % 2 ? 3 : 1,
		                            .hit = hit,
		                            .hit_count = knit__cpu_kernel_count};
	ck_assert_int_eq(conf_run_all(cfgs, 1 + 2 * count, cases, case_count), 0);
	if (best != KNIT_CPU_AVX512 && best != KNIT_CPU_DOTPROD)
		printf("SKIP: kernels above %s: this machine lacks the instructions\n", knit__cpu_isa_name(best));
	for (uint32_t i = 0; i < knit__cpu_kernel_count; ++i) {
		ck_assert_msg(partly || hit[i] || knit__cpu_kernels[i]->isa > best, "no case reaches kernel %s", knit__cpu_kernels[i]->name);
	}
	free(hit);
}
END_TEST

/* "1/3": keeps the cases 1, 4, 7 ... in the table, so that several processes can share the work. */
static bool keep_part(const char *text) {
	unsigned part, parts;
	size_t n = 0;

	if (sscanf(text, "%u/%u", &part, &parts) != 2 || part >= parts)
		return false;
	for (size_t i = part; i < case_count; i += parts)
		cases[n++] = cases[i];
	case_count = n;
	partly = parts > 1;
	return true;
}

static int usage(void) {
	puts("usage: test-conformance-conformance [--support] [--device cpu|null|vulkan] [--isa LEVEL] [--threads N]\n"
	     "                                    [--few] [--part K/N] [--case NAME]      LEVEL: as KNIT_CPU_ISA");
	return 2;
}

int main(int argc, char **argv) {
	static const struct option options[] = {{"device", 1, NULL, 'd'}, {"isa", 1, NULL, 'i'},     {"threads", 1, NULL, 't'},
	                                        {"case", 1, NULL, 'c'},   {"support", 0, NULL, 's'}, {"few", 0, NULL, 'f'},
	                                        {"part", 1, NULL, 'p'},   {0}};
	int failed, option;

	cases = cases_make(&case_count);
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'd': chosen.device = optarg; break;
		case 'i': chosen.isa = optarg; break;
		case 't': chosen.threads = (uint32_t)atoi(optarg); break;
		case 'c': chosen.only = optarg; break;
		case 'f': chosen.few = true; break;
		case 'p':
			if (!keep_part(optarg))
				return usage();
			break;
		case 's': {
			knit_text t = {.a = &knit__default_allocator};

			support_matrix(&t);
			fputs(t.data, stdout);
			knit__text_clear(&t);
			cases_free(cases);
			return 0;
		}
		default: return usage();
		}
	}
	if (chosen.device) {
		failed = conf_run(&chosen, cases, case_count);
	} else {
		Suite *s = suite_create("conformance");
		TCase *t = tcase_create("cases");

		tcase_set_timeout(t, 0);
		tcase_add_test(t, every_op_has_a_case);
		tcase_add_test(t, null_and_cpu_agree_with_the_reference);
		tcase_add_test(t, readme_has_the_present_matrix);
		suite_add_tcase(s, t);
		failed = suite_finish(s, CK_NOFORK);
	}
	cases_free(cases);
	return failed != 0;
}
