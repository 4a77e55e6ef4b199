/* Runs cases; see conf_run.h. */
#include "conf_run.h"
#include "conf_expect.h"

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

static bool feed(const case_build *b, device_run *device) {
	if (b->tokens && device_run_set(device, "tokens", b->tokens) != KNIT_OK)
		return false;
	for (uint32_t i = 0; i < b->input_count; ++i)
		if (device_run_write(device, b->inputs[i].name, b->inputs[i].data, b->inputs[i].count) != KNIT_OK)
			return false;
	return true;
}

static bool compare(const conf_config *cfg, const case_build *b, int output, const conf_output *want, const double *got) {
	char why[160];

	for (size_t i = 0; i < want->count; ++i) {
		const double off = fabs(got[i] - want->data[i]);
		const bool both_nan = isnan(want->data[i]) && isnan(got[i]);

		if (both_nan || got[i] == want->data[i] || off <= want->tolerance[i])
			continue;
		snprintf(why, sizeof why, "output %d, element %zu is %.9g, needs %.9g within %.3g (off by %.3g)", output, i, got[i],
		         want->data[i], want->tolerance[i], off);
		say_failure(cfg, b->c, why);
		return false;
	}
	return true;
}

static bool check_output(const conf_config *cfg, const case_build *b, int output, const conf_output *want,
                         device_run *device) {
	size_t count = 0;

	if (!want->data)
		return true;
	const double *got = device_run_output(device, conf_output_names[output], &count);
	if (!got || count != want->count) {
		say_failure(cfg, b->c, "an output has another size than the reference's");
		return false;
	}
	return strcmp(cfg->device, "null") == 0 || compare(cfg, b, output, want, got);
}

static bool run_prepared(const conf_config *cfg, case_build *b, const conf_expect *e, device_run *device) {
	knit_diag d = {0};

	for (int run = 0; run < e->runs; ++run) {
		conf_expect_feed(e, b, run);
		if (!feed(b, device)) {
			say_failure(cfg, b->c, "the inputs were not taken");
			return false;
		}
		if (device_run_go(device, &d) != KNIT_OK) {
			say_failure(cfg, b->c, d.text);
			return false;
		}
		for (int output = 0; output < CASE_OUTPUTS; ++output)
			if (!check_output(cfg, b, output, &e->outputs[run * CASE_OUTPUTS + output], device))
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

/* A configuration with its device. */
typedef struct opened {
	const conf_config *cfg;
	const knit_backend *backend;
	knit_context *ctx;
	knit_device *dev;
	int failed, ran;
} opened;

/* `packed` becomes whether a weight lies in a layout of the device's. */
static bool run_opened(const opened *o, case_build *b, const conf_expect *e, bool fuse, bool pack, bool *packed) {
	static const char *const disable[2][2] = {{FUSIONS ",layout", FUSIONS}, {"layout", NULL}};
	const conf_config *const cfg = o->cfg;
	const conf_case *c = b->c;
	device_run *device = NULL;
	knit_diag d = {0};
	bool ok = false;

	if (device_run_create(b->g, o->backend, o->dev, disable[fuse][pack], &device, &d) != KNIT_OK) {
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
		ok = run_prepared(cfg, b, e, device);
	}
	device_run_destroy(device);
	return ok;
}

static bool run_on(const opened *o, case_build *b, const conf_expect *e) {
	bool ok = true;

	/* with the fusions, so that a fused op is met, and for these without too; other ops without */
	for (int fuse = conf_is_fused(b->c->op); ok && fuse >= 0; --fuse) {
		bool packed = false;

		ok = run_opened(o, b, e, fuse, true, &packed);
		ok = ok && (!packed || run_opened(o, b, e, fuse, false, &packed));
	}
	return ok;
}

#define FEW_TOKENS 8

/* One case on all devices. */
static void run_case(opened *devices, size_t count, const conf_case *c) {
	const conf_config *const first = devices[0].cfg;
	case_build b;
	conf_expect e = {0};
	knit_diag d = {0};
	const bool ok = first->few ? case_open_exact(&b, devices[0].ctx, c) : case_open(&b, devices[0].ctx, c);
	const char *why = NULL;

	if (first->few && (c->runs > 1 || b.tokens == 0 || b.tokens > FEW_TOKENS)) {
		case_close(&b);
		return;
	}
	if (!ok) {
		knit_graph_status(b.g, &d);
		why = d.text;
	} else {
		why = conf_expect_make(&b, &e, &d);
	}
	if (why)
		say_failure(first, c, why);
	for (size_t i = 0; i < count; ++i) {
		++devices[i].ran;
		devices[i].failed += why || !run_on(&devices[i], &b, &e);
	}
	conf_expect_clear(&e);
	case_close(&b);
}

static bool open_device(const conf_config *cfg, opened *o) {
	const knit_context_desc desc = {.cpu_threads = cfg->threads};
	knit_diag d = {0};

	*o = (opened){.cfg = cfg, .backend = conf_backend(cfg->device)};
	if (cfg->isa)
		setenv("KNIT_CPU_ISA", cfg->isa, 1);
	else
		unsetenv("KNIT_CPU_ISA");
	if (o->backend && strcmp(cfg->device, "vulkan") == 0)
		vulkan_present(); /* for the libraries that it keeps */
	if (!o->backend || knit_context_create(&desc, &o->ctx) != KNIT_OK)
		return false;
	if (o->backend->open(0, &o->ctx->desc, &o->dev, &d) == KNIT_OK)
		return true;
	printf("SKIP: device %s: %s\n", cfg->device, d.text);
	return false;
}

static void close_device(opened *o) {
	if (o->dev)
		o->backend->close(o->dev);
	if (o->ctx)
		knit_context_destroy(o->ctx);
}

static void say_result(const opened *o, int most) {
	const conf_config *const cfg = o->cfg;

	printf("%s%s%s, %u thread%s%s: %d cases, %d failed%s\n", cfg->device, cfg->isa ? " " : "", cfg->isa ? cfg->isa : "",
	       cfg->threads, cfg->threads == 1 ? "" : "s", cfg->few ? ", few tokens" : "", o->ran, o->failed,
	       o->failed >= most ? " (stopped there)" : "");
}

int conf_run_all(const conf_config *cfgs, size_t cfg_count, const conf_case *cases, size_t case_count) {
	const char *const reported = getenv("KNIT_TEST_REPORTED");
	const int most = reported ? atoi(reported) : MAX_REPORTED;
	opened devices[CONF_CONFIGS] = {0};
	bool ok = cfg_count <= CONF_CONFIGS;
	int failed = 0;

	for (size_t i = 0; ok && i < cfg_count; ++i)
		ok = open_device(&cfgs[i], &devices[i]);
	for (size_t i = 0; ok && i < case_count && failed < most; ++i) {
		if ((cfgs->only && strcmp(cfgs->only, cases[i].name) != 0) || (cfgs->take && !cfgs->take(&cases[i])))
			continue;
		run_case(devices, cfg_count, &cases[i]);
		failed = 0;
		for (size_t j = 0; j < cfg_count; ++j)
			failed += devices[j].failed;
	}
	for (size_t i = 0; i < cfg_count && i < CONF_CONFIGS; ++i) {
		if (ok)
			say_result(&devices[i], most);
		close_device(&devices[i]);
	}
	if (!ok)
		return -1;
	if (devices[0].ran == 0)
		printf("no case of that name\n");
	return devices[0].ran ? failed : 1;
}

int conf_run(const conf_config *cfg, const conf_case *cases, size_t case_count) {
	return conf_run_all(cfg, 1, cases, case_count);
}
