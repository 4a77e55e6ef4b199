/* Runs cases; see conf_run.h. */
#include "conf_run.h"

#include "../../graph/context.h"
#include "../tools/device_run.h"
#include "../tools/vulkan_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A run ends after so many failures; the environment variable KNIT_TEST_REPORTED says another number. */
#define MAX_REPORTED 20

/* What a backend does not do: `never` by nature, or not yet. An entry that turns out to work fails the suite. */
static const struct { const char *device, *op; knit_dtype dtype; bool never; const char *because; } refused[] = {
	{"", "", 0, false, ""},
};

const knit_backend *conf_backend(const char *name) {
	for (size_t i = 0; knit__backend_at(i); ++i)
		if (strcmp(knit__backend_at(i)->name, name) == 0)
			return knit__backend_at(i);
	return NULL;
}

static bool is_refused(const conf_config *cfg, const conf_case *c) {
	for (size_t i = 0; i < sizeof refused / sizeof refused[0]; ++i)
		if (strcmp(refused[i].device, cfg->device) == 0 && strcmp(refused[i].op, knit__op(c->op)->name) == 0 &&
		    refused[i].dtype == c->dtype)
			return true;
	return false;
}

static void say_failure(const conf_config *cfg, const conf_case *c, const char *why) {
	printf("FAIL %s: %s\n  again: test-conformance-conformance --device %s%s%s%s --threads %u --case %s\n", c->name, why,
	       cfg->device, cfg->isa ? " --isa " : "", cfg->isa ? cfg->isa : "", cfg->few ? " --few" : "", cfg->threads,
	       c->name);
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

static bool compare(const conf_config *cfg, const case_build *b, int output, const knit_interp *oracle,
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

static bool check_output(const conf_config *cfg, const case_build *b, int output, const knit_interp *oracle,
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

static bool run_prepared(const conf_config *cfg, case_build *b, knit_interp *oracle, device_run *device) {
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

static void note_kernels(const conf_config *cfg, const knit_schedule *s) {
	for (uint32_t i = 0; cfg->hit && i < s->step_count; ++i)
		if (s->steps[i].kernel && s->steps[i].kernel <= cfg->hit_count)
			cfg->hit[s->steps[i].kernel - 1] = true;
}

#define FUSIONS "fuse_linear,merge_siblings,fuse_norm,fuse_kv,fuse_elementwise"
const char conf_fusions[] = FUSIONS;

bool conf_is_fused(uint16_t op) { return op >= KNIT_OP_LINEAR_LORA && op <= KNIT_OP_MAP; }

bool conf_has_step(const knit_schedule *s, uint16_t op) {
	for (uint32_t i = 0; i < s->step_count; ++i)
		if (s->steps[i].op == op)
			return true;
	return false;
}

static bool has_packed(const device_run *device) {
	const knit_schedule *s = device_run_schedule(device);

	for (uint32_t i = 0; i < s->buffer_count; ++i)
		if (s->buffers[i].layout)
			return true;
	return false;
}

/* `packed` becomes whether a weight lies in a layout of the device's. */
static bool run_opened(const conf_config *cfg, const knit_backend *backend, knit_device *dev, case_build *b,
                       bool fuse, bool pack, bool *packed) {
	static const char *const disable[2][2] = {{FUSIONS ",layout", FUSIONS}, {"layout", NULL}};
	const conf_case *c = b->c;
	knit_interp *oracle = NULL;
	device_run *device = NULL;
	knit_diag d = {0};
	bool ok = false;

	if (knit__interp_create(b->g, 1, &oracle, &d) != KNIT_OK) {
		say_failure(cfg, c, d.text);
	} else if (device_run_create(b->g, backend, dev, disable[fuse][pack], &device, &d) != KNIT_OK) {
		ok = d.status == KNIT_ERR_UNSUPPORTED && is_refused(cfg, c);
		if (!ok)
			say_failure(cfg, c, d.text);
	} else if (is_refused(cfg, c)) {
		say_failure(cfg, c, "is listed as not supported, and works: take it off the list");
	} else if (conf_has_step(device_run_schedule(device), c->op) != (fuse || !conf_is_fused(c->op))) {
		say_failure(cfg, c, fuse ? "no step of this op was made" : "a step of this op was made though fusing is off");
	} else if (fuse && device_run_schedule(device)->step_count != c->steps) {
		say_failure(cfg, c, "more was left beside the fused step than should be");
	} else {
		note_kernels(cfg, device_run_schedule(device));
		*packed = has_packed(device);
		ok = run_prepared(cfg, b, oracle, device);
	}
	device_run_destroy(device);
	knit__interp_destroy(oracle);
	return ok;
}

#define FEW_TOKENS 8

static bool run_case(const conf_config *cfg, knit_context *ctx, const knit_backend *backend, knit_device *dev,
                     const conf_case *c, int *ran) {
	case_build b;
	knit_diag d = {0};
	bool ok = cfg->few ? case_open_exact(&b, ctx, c) : case_open(&b, ctx, c);

	if (cfg->few && (c->runs > 1 || b.tokens == 0 || b.tokens > FEW_TOKENS)) {
		case_close(&b);
		return true;
	}
	++*ran;

	if (!ok) {
		knit_graph_status(b.g, &d);
		say_failure(cfg, c, d.text);
	}
	/* with the fusions, so that a fused op is met, and for these without too; other ops without */
	for (int fuse = conf_is_fused(c->op); ok && fuse >= 0; --fuse) {
		bool packed = false;

		ok = run_opened(cfg, backend, dev, &b, fuse, true, &packed);
		ok = ok && (!packed || run_opened(cfg, backend, dev, &b, fuse, false, &packed));
	}
	case_close(&b);
	return ok;
}

int conf_run(const conf_config *cfg, const conf_case *cases, size_t case_count) {
	const knit_backend *backend = conf_backend(cfg->device);
	knit_context *ctx = NULL;
	knit_device *dev = NULL;
	knit_diag d = {0};
	const char *const reported = getenv("KNIT_TEST_REPORTED");
	const int most = reported ? atoi(reported) : MAX_REPORTED;
	int failed = 0, ran = 0;

	if (cfg->isa)
		setenv("KNIT_CPU_ISA", cfg->isa, 1);
	else
		unsetenv("KNIT_CPU_ISA");
	knit_context_desc desc = {.cpu_threads = cfg->threads};
	if (backend && strcmp(cfg->device, "vulkan") == 0)
		vulkan_present(); /* for the libraries that it keeps */
	if (!backend || knit_context_create(&desc, &ctx) != KNIT_OK)
		return -1;
	if (backend->open(0, &ctx->desc, &dev, &d) != KNIT_OK) {
		printf("SKIP: device %s: %s\n", cfg->device, d.text);
		knit_context_destroy(ctx);
		return -1;
	}
	for (size_t i = 0; i < case_count && failed < most; ++i) {
		if ((cfg->only && strcmp(cfg->only, cases[i].name) != 0) || (cfg->take && !cfg->take(&cases[i])))
			continue;
		failed += !run_case(cfg, ctx, backend, dev, &cases[i], &ran);
	}
	backend->close(dev);
	knit_context_destroy(ctx);
	printf("%s%s%s, %u thread%s%s: %d cases, %d failed%s\n", cfg->device, cfg->isa ? " " : "", cfg->isa ? cfg->isa : "",
	       cfg->threads, cfg->threads == 1 ? "" : "s", cfg->few ? ", few tokens" : "", ran, failed, failed == most ? " (stopped there)" : "");
	if (ran == 0)
		printf("no case of that name\n");
	return ran ? failed : 1;
}
