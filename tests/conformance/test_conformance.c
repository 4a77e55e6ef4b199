/* Runs the conformance table on every device against the double-precision reference.
 *
 *   test-conformance-conformance                                      all devices, all cases
 *   test-conformance-conformance --device cpu --isa avx2 --threads 3 --case NAME     one case again
 *   test-conformance-conformance --support                            the support matrix as Markdown
 */
#include "cases.h"

#include "../../backends/cpu/cpu_kernel.h"
#include "../../graph/context.h"
#include "../../graph/schedule.h"
#include "../tools/device_run.h"

#include <check.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_REPORTED 20
/* Kernels that no case can reach yet, because no pass lays weights out in panels; their unit tests run them directly. */
#define NOT_YET_REACHED "_panels"

/* What a backend does not do: `never` by nature, or not yet. An entry that turns out to work fails the suite. */
static const struct { const char *device, *op; knit_dtype dtype; bool never; const char *because; } refused[] = {
	{"", "", 0, false, ""},
};

typedef struct config { const char *device, *isa; uint32_t threads; const char *only; } config;

static conf_case *cases;
static size_t case_count;
static config chosen;

static const knit_backend *find_backend(const char *name) {
	for (size_t i = 0; knit__backend_at(i); ++i)
		if (strcmp(knit__backend_at(i)->name, name) == 0)
			return knit__backend_at(i);
	return NULL;
}

static bool is_refused(const config *cfg, const conf_case *c) {
	for (size_t i = 0; i < sizeof refused / sizeof refused[0]; ++i)
		if (strcmp(refused[i].device, cfg->device) == 0 && strcmp(refused[i].op, knit__op(c->op)->name) == 0 &&
		    refused[i].dtype == c->dtype)
			return true;
	return false;
}

static void say_failure(const config *cfg, const conf_case *c, const char *why) {
	printf("FAIL %s: %s\n  again: test-conformance-conformance --device %s%s%s --threads %u --case %s\n", c->name, why,
	       cfg->device, cfg->isa ? " --isa " : "", cfg->isa ? cfg->isa : "", cfg->threads, c->name);
}

/* Feeds the oracle and the device the inputs of one run. */
static bool feed(const case_build *b, knit_interp *oracle, device_run *device) {
	if (b->tokens && (knit__interp_set_symbol(oracle, "tokens", b->tokens) != KNIT_OK ||
	                  device_run_set(device, "tokens", b->tokens) != KNIT_OK))
		return false;
	for (uint32_t i = 0; i < b->input_count; ++i) {
		const case_input *in = &b->inputs[i];

		if (knit__interp_write(oracle, in->name, in->data, in->count) != KNIT_OK ||
		    device_run_write(device, in->name, in->data, in->count) != KNIT_OK)
			return false;
	}
	return true;
}

static bool compare(const config *cfg, const case_build *b, int output, const knit_interp *oracle,
                    const knit_array *want, const double *got, size_t count) {
	const knit_tensor *t = output ? b->more[output - 1] : b->t;
	const case_bound bound = output ? b->c->more[output - 1] : b->c->bound;
	const knit_array *operands[CASE_TENSORS] = {0};
	double *tolerance = calloc(count + 1, sizeof *tolerance);
	char why[160];
	bool ok = true;

	for (int i = 0; i < CASE_TENSORS; ++i)
		operands[i] = t[i].id ? knit__interp_value(oracle, t[i].id) : NULL;
	if (bound)
		bound(b->c, operands, want, tolerance);
	for (size_t i = 0; ok && i < count; ++i) {
		/* A tolerance that is NaN or infinite belongs to an element that is. */
		const double off = fabs(got[i] - want->data[i]);
		const bool both_nan = isnan(want->data[i]) && isnan(got[i]);

		ok = both_nan || got[i] == want->data[i] || off <= tolerance[i];
		if (!ok) {
			snprintf(why, sizeof why, "output %d, element %zu is %.9g, needs %.9g within %.3g (off by %.3g)", output, i,
			         got[i], want->data[i], tolerance[i], off);
			say_failure(cfg, b->c, why);
		}
	}
	free(tolerance);
	return ok;
}

static bool check_output(const config *cfg, const case_build *b, int output, const knit_interp *oracle,
                         device_run *device) {
	static const char *const names[CASE_OUTPUTS] = {"y", "y.1", "y.2"};
	const knit_array *want;
	size_t count = 0;

	if (knit__interp_output(oracle, names[output], &want) != KNIT_OK) {
		if (output == 0)
			say_failure(cfg, b->c, "there is no output y");
		return output > 0;
	}
	const double *got = device_run_output(device, names[output], &count);
	if (!got || count != (size_t)knit__array_count(want)) {
		say_failure(cfg, b->c, "an output has another size than the reference's");
		return false;
	}
	return strcmp(cfg->device, "null") == 0 || compare(cfg, b, output, oracle, want, got, count);
}

static bool run_prepared(const config *cfg, case_build *b, knit_interp *oracle, device_run *device) {
	knit_diag d = {0};

	for (int run = 0; run < b->c->runs; ++run) {
		case_feed(b, run);
		if (!feed(b, oracle, device)) {
			say_failure(cfg, b->c, "the inputs were not taken");
			return false;
		}
		if (knit__interp_run(oracle, &d) != KNIT_OK || device_run_go(device, &d) != KNIT_OK) {
			say_failure(cfg, b->c, d.text);
			return false;
		}
		for (int output = 0; output < CASE_OUTPUTS; ++output)
			if (!check_output(cfg, b, output, oracle, device))
				return false;
	}
	return true;
}

static void note_kernels(const device_run *device, bool *hit) {
	const knit_schedule *s = device_run_schedule(device);

	for (uint32_t i = 0; i < s->step_count; ++i)
		if (s->steps[i].kernel && s->steps[i].kernel <= knit__cpu_kernel_count)
			hit[s->steps[i].kernel - 1] = true;
}

/* Cases of ops that passes make reach them by a graph of plain ops. */
#define FUSIONS "fuse_linear,merge_siblings,fuse_norm,fuse_kv,fuse_elementwise"

static bool is_fused(uint16_t op) {
	return op >= KNIT_OP_LINEAR_LORA && op <= KNIT_OP_MAP;
}

static bool has_step(const device_run *device, uint16_t op) {
	const knit_schedule *s = device_run_schedule(device);

	for (uint32_t i = 0; i < s->step_count; ++i)
		if (s->steps[i].op == op)
			return true;
	return false;
}

/* Once with the fusions, so that a fused op is met, and for these once without; other ops without. */
static bool run_opened(const config *cfg, const knit_backend *backend, knit_device *dev, case_build *b, bool fuse,
                       bool *hit) {
	const conf_case *c = b->c;
	knit_interp *oracle = NULL;
	device_run *device = NULL;
	knit_diag d = {0};
	bool ok = false;

	if (knit__interp_create(b->g, 1, &oracle, &d) != KNIT_OK) {
		say_failure(cfg, c, d.text);
	} else if (device_run_create(b->g, backend, dev, fuse ? NULL : FUSIONS, &device, &d) != KNIT_OK) {
		ok = d.status == KNIT_ERR_UNSUPPORTED && is_refused(cfg, c);
		if (!ok)
			say_failure(cfg, c, d.text);
	} else if (is_refused(cfg, c)) {
		say_failure(cfg, c, "is listed as not supported, and works: take it off the list");
	} else if (has_step(device, c->op) != (fuse || !is_fused(c->op))) {
		say_failure(cfg, c, fuse ? "no step of this op was made" : "a step of this op was made though fusing is off");
	} else if (fuse && device_run_schedule(device)->step_count != c->steps) {
		say_failure(cfg, c, "more was left beside the fused step than should be");
	} else {
		if (hit)
			note_kernels(device, hit);
		ok = run_prepared(cfg, b, oracle, device);
	}
	device_run_destroy(device);
	knit__interp_destroy(oracle);
	return ok;
}

static bool run_case(const config *cfg, knit_context *ctx, const knit_backend *backend, knit_device *dev,
                     const conf_case *c, bool *hit) {
	case_build b;
	knit_diag d = {0};
	bool ok = case_open(&b, ctx, c);

	if (!ok) {
		knit_graph_status(b.g, &d);
		say_failure(cfg, c, d.text);
	}
	ok = ok && run_opened(cfg, backend, dev, &b, is_fused(c->op), hit);
	ok = ok && (!is_fused(c->op) || run_opened(cfg, backend, dev, &b, false, hit));
	case_close(&b);
	return ok;
}

/* Runs what cfg chooses; returns the number of failures, -1 if the device is absent. */
static int run_config(const config *cfg, bool *hit) {
	const knit_backend *backend = find_backend(cfg->device);
	knit_context *ctx = NULL;
	knit_device *dev = NULL;
	knit_diag d = {0};
	int failed = 0, ran = 0;

	if (cfg->isa)
		setenv("KNIT_CPU_ISA", cfg->isa, 1);
	else
		unsetenv("KNIT_CPU_ISA");
	knit_context_desc desc = {.cpu_threads = cfg->threads};
	if (!backend || knit_context_create(&desc, &ctx) != KNIT_OK)
		return -1;
	if (backend->open(0, &ctx->desc, &dev, &d) != KNIT_OK) {
		printf("SKIP: device %s: %s\n", cfg->device, d.text);
		knit_context_destroy(ctx);
		return -1;
	}
	for (size_t i = 0; i < case_count && failed < MAX_REPORTED; ++i) {
		if (cfg->only && strcmp(cfg->only, cases[i].name) != 0)
			continue;
		ran++;
		failed += !run_case(cfg, ctx, backend, dev, &cases[i], hit);
	}
	backend->close(dev);
	knit_context_destroy(ctx);
	printf("%s%s%s, %u thread%s: %d cases, %d failed%s\n", cfg->device, cfg->isa ? " " : "", cfg->isa ? cfg->isa : "",
	       cfg->threads, cfg->threads == 1 ? "" : "s", ran, failed, failed == MAX_REPORTED ? " (stopped there)" : "");
	if (ran == 0)
		printf("no case of that name\n");
	return ran ? failed : 1;
}

/* ---- the support matrix ------------------------------------------------------------------------------------------ */

static bool supported(knit_context *ctx, const knit_backend *backend, knit_device *dev, uint16_t op, knit_dtype dtype) {
	bool any = false;

	for (size_t i = 0; i < case_count; ++i) {
		case_build b;
		device_run *device = NULL;

		if (cases[i].op != op || cases[i].dtype != dtype)
			continue;
		const bool built = case_open(&b, ctx, &cases[i]);
		any = built && device_run_create(b.g, backend, dev, is_fused(op) ? NULL : FUSIONS, &device, NULL) == KNIT_OK &&
		      (!is_fused(op) || has_step(device, op));
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
			for (int dtype = KNIT_F32; dtype <= KNIT_Q4_0; ++dtype)
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
		ck_assert_msg(n > 0, "op %s has no conformance case", knit__op(op)->name);
	}
}
END_TEST

START_TEST(null_takes_every_case) {
	const config cfg = {"null", NULL, 1, NULL};

	ck_assert_int_eq(run_config(&cfg, NULL), 0);
}
END_TEST

/* Each instruction set and thread count; at the end every row of the kernel table was used by some case. */
START_TEST(cpu_agrees_with_the_reference) {
	static const char *const isas[] = {"plain", "avx2", "avx512"};
	bool *hit = calloc(knit__cpu_kernel_count, sizeof *hit);
	knit_cpu_isa best = KNIT_CPU_PLAIN;

	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		best = KNIT_CPU_AVX2;
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni"))
		best = KNIT_CPU_AVX512;
	for (int isa = 0; isa <= (int)best; ++isa) {
		for (uint32_t threads = 1; threads <= 3; threads += 2) {
			const config cfg = {"cpu", isas[isa], threads, NULL};

			ck_assert_int_eq(run_config(&cfg, hit), 0);
		}
	}
	if (best < KNIT_CPU_AVX512)
		printf("SKIP: kernels above %s: this machine lacks the instructions\n", isas[best]);
	for (uint32_t i = 0; i < knit__cpu_kernel_count; ++i) {
		const char *name = knit__cpu_kernels[i]->name;
		const bool waits = strstr(name, NOT_YET_REACHED) != NULL;

		ck_assert_msg(hit[i] || waits || knit__cpu_kernels[i]->isa > best, "no case reaches kernel %s", name);
		ck_assert_msg(!hit[i] || !waits, "kernel %s is listed as not reached yet, and is: take it off the list", name);
	}
	free(hit);
}
END_TEST

static int usage(void) {
	puts("usage: test-conformance-conformance [--support] [--device cpu|null] [--isa plain|avx2|avx512] [--threads N]\n"
	     "                                    [--case NAME]");
	return 2;
}

int main(int argc, char **argv) {
	static const struct option options[] = {{"device", 1, NULL, 'd'}, {"isa", 1, NULL, 'i'},     {"threads", 1, NULL, 't'},
	                                        {"case", 1, NULL, 'c'},   {"support", 0, NULL, 's'}, {0}};
	int failed, option;

	cases = cases_make(&case_count);
	chosen.threads = 1;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'd': chosen.device = optarg; break;
		case 'i': chosen.isa = optarg; break;
		case 't': chosen.threads = (uint32_t)atoi(optarg); break;
		case 'c': chosen.only = optarg; break;
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
		failed = run_config(&chosen, NULL);
	} else {
		Suite *s = suite_create("conformance");
		TCase *t = tcase_create("cases");
		SRunner *r;

		tcase_set_timeout(t, 0);
		tcase_add_test(t, every_op_has_a_case);
		tcase_add_test(t, null_takes_every_case);
		tcase_add_test(t, cpu_agrees_with_the_reference);
		tcase_add_test(t, readme_has_the_present_matrix);
		suite_add_tcase(s, t);
		r = srunner_create(s);
		srunner_set_fork_status(r, CK_NOFORK);
		srunner_run_all(r, CK_NORMAL);
		failed = srunner_ntests_failed(r);
		srunner_free(r);
	}
	cases_free(cases);
	return failed != 0;
}
