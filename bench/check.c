/* Whether a subject computes the model: its logits over a short made-up text beside those of a reference that shares no
 * kernel with it. */
#include "rows.h"

#include "../frontends/models/decoder.h"
#include "../frontends/models/load.h"
#include "../graph/base.h"
#include "../graph/interp.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* PROMPT tokens in one step, so that prefill is looked at, then one by one. */
enum { PROMPT = 8, SMALL_TOKENS = 24, LARGE_TOKENS = 12 };
/* The definitions do about 1e8 of these in a second. */
#define SMALL_FLOPS 2e9

struct bench_reference {
	char name[64];
	int32_t ids[SMALL_TOKENS];
	size_t count;
	int64_t vocab;
	float *logits; /* [count - PROMPT + 1, vocab]: after token PROMPT - 1 and each one behind it */
};

static size_t rows_of(const bench_reference *r) { return r->count - PROMPT + 1; }

static knit_status take_room(bench_reference *r, int64_t vocab, size_t count, knit_diag *diag) {
	uint64_t state = 12345;

	r->vocab = vocab;
	r->count = count;
	for (size_t i = 0; i < count; ++i) {
		state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		r->ids[i] = (int32_t)((state >> 33) % (uint64_t)vocab);
	}
	r->logits = calloc(rows_of(r) * (size_t)vocab, sizeof *r->logits);
	return r->logits ? KNIT_OK : knit__fail_memory(diag, "the reference", rows_of(r) * (uint64_t)vocab * 4);
}

static knit_status write_numbers(knit_interp *it, const char *name, const int32_t *values, int64_t first, size_t count) {
	double v[SMALL_TOKENS];

	for (size_t i = 0; i < count; ++i)
		v[i] = values ? values[i] : (double)(first < 0 ? 0 : first + (int64_t)i);
	return knit__interp_write(it, name, v, count);
}

/* ids NULL: numbers from `first` on; first negative: zeros. */
static knit_status interpret(const knit_graph *g, bench_reference *r, knit_diag *diag) {
	const knit_array *out = NULL;
	knit_interp *it = NULL;
	const size_t rows = rows_of(r);

	knit_status status = knit__interp_create(g, 1, &it, diag);
	if (status == KNIT_OK)
		status = knit__interp_set_symbol(it, "tokens", (int64_t)r->count);
	if (status == KNIT_OK)
		status = knit__interp_set_symbol(it, "outputs", (int64_t)rows);
	if (status == KNIT_OK)
		status = write_numbers(it, "ids", r->ids, 0, r->count);
	if (status == KNIT_OK)
		status = write_numbers(it, "seq", NULL, -1, r->count);
	if (status == KNIT_OK)
		status = write_numbers(it, "pos", NULL, 0, r->count);
	if (status == KNIT_OK)
		status = write_numbers(it, "out_rows", NULL, PROMPT - 1, rows);
	if (status == KNIT_OK)
		status = knit__interp_run(it, diag);
	if (status == KNIT_OK)
		status = knit__interp_output(it, "logits", &out);
	for (size_t i = 0; status == KNIT_OK && i < rows * (size_t)r->vocab; ++i)
		r->logits[i] = (float)out->data[i];
	knit__interp_destroy(it);
	return status;
}

static knit_status by_definition(const bench_knit_desc *desc, int64_t vocab, bench_reference *r, knit_diag *diag) {
	const knit__model_desc file = {.path = desc->path, .visits = desc->visits, .loops = desc->loops,
	                               .no_adapter = desc->no_adapter, .skip_finite_check = true};
	const knit_dtype kv = desc->kv ? desc->kv : KNIT_F16;
	knit__model model = {0};
	knit_context *ctx = NULL;
	knit_graph *g = NULL;

	snprintf(r->name, sizeof r->name, "definitions in double precision");
	knit_status status = take_room(r, vocab, SMALL_TOKENS, diag);
	if (status == KNIT_OK)
		status = knit_context_create(NULL, &ctx);
	if (status == KNIT_OK)
		status = knit__model_load(ctx, &file, &model, diag);
	if (status == KNIT_OK) {
		const knit__decoder_desc wanted = {.config = &model.config, .base = model.file.store, .adapters = model.adapters,
		                                   .positions = SMALL_TOKENS, .max_tokens = SMALL_TOKENS,
		                                   .max_outputs = (int64_t)rows_of(r), .kv = kv, .kv_k = kv, .kv_v = kv};
		status = knit__decoder_graph(ctx, &wanted, &g, diag);
		if (status == KNIT_OK)
			status = interpret(g, r, diag);
		knit_graph_destroy(g);
		knit__model_unload(&model);
	}
	knit_context_destroy(ctx);
	return status;
}

static knit_status by_plain_kernels(bench_subject *plain, bench_reference *r, knit_diag *diag) {
	const knit_status status = take_room(r, bench_knit_vocab(plain), LARGE_TOKENS, diag);

	snprintf(r->name, sizeof r->name, "cpu, kernels in plain C");
	return status == KNIT_OK ? bench_knit_logits(plain, r->ids, r->count, PROMPT - 1, r->logits, diag) : status;
}

knit_status bench_reference_make(const bench_knit_desc *desc, bench_reference **out, knit_diag *diag) {
	const char *const isa = getenv("KNIT_CPU_ISA");
	char *const kept = isa ? strdup(isa) : NULL;
	bench_knit_desc plain_desc = *desc;
	bench_subject *plain = NULL;
	bench_cost cost;
	bench_reference *const r = calloc(1, sizeof *r);

	*out = NULL;
	if (!r) {
		free(kept);
		return knit__fail_memory(diag, "the reference", sizeof *r);
	}
	/* Opened in any case: it knows what the model costs. The CPU looks at the variable when it is opened. */
	setenv("KNIT_CPU_ISA", "plain", 1);
	plain_desc.device = "cpu";
	plain_desc.device_memory = 0;
	plain_desc.max_depth = SMALL_TOKENS;
	plain_desc.batch = PROMPT;
	knit_status status = bench_knit_open(&plain_desc, &plain, diag);
	if (kept)
		setenv("KNIT_CPU_ISA", kept, 1);
	else
		unsetenv("KNIT_CPU_ISA");
	free(kept);
	if (status == KNIT_OK) {
		bench_cost_of(bench_knit_program(plain), &(bench_test){.prompt = PROMPT}, PROMPT, &cost);
		status = cost.flops * SMALL_TOKENS <= SMALL_FLOPS ? by_definition(desc, bench_knit_vocab(plain), r, diag)
		                                                  : by_plain_kernels(plain, r, diag);
	}
	if (plain)
		plain->kind->close(plain);
	if (status != KNIT_OK) {
		bench_reference_free(r);
		return status;
	}
	*out = r;
	return KNIT_OK;
}

void bench_reference_free(bench_reference *r) {
	if (r)
		free(r->logits);
	free(r);
}

static size_t largest(const float *row, int64_t n) {
	size_t best = 0;

	for (size_t i = 1; i < (size_t)n; ++i)
		if (row[i] > row[best])
			best = i;
	return best;
}

knit_status bench_reference_check(const bench_reference *r, bench_subject *s, knit_diag *diag) {
	const size_t rows = rows_of(r), n = (size_t)r->vocab;
	double off = 0, all = 0;
	size_t same = 0;

	if (bench_knit_vocab(s) != r->vocab)
		return knit__fail(diag, KNIT_ERR_INTERNAL, 0, "the reference has another vocabulary");
	float *const got = calloc(rows * n, sizeof *got);
	if (!got)
		return knit__fail_memory(diag, "the check", rows * n * sizeof *got);
	const knit_status status = bench_knit_logits(s, r->ids, r->count, PROMPT - 1, got, diag);
	for (size_t i = 0; status == KNIT_OK && i < rows; ++i)
		same += largest(got + i * n, r->vocab) == largest(r->logits + i * n, r->vocab);
	for (size_t i = 0; status == KNIT_OK && i < rows * n; ++i) {
		const double d = (double)got[i] - (double)r->logits[i];
		off += d * d;
		all += (double)r->logits[i] * (double)r->logits[i];
	}
	free(got);
	if (status != KNIT_OK)
		return status;
	s->check.rows = rows;
	s->check.nmse = all > 0 ? off / all : off; /* not a number stays one, and counts as wrong */
	s->check.top1 = (double)same / (double)rows;
	snprintf(s->check.reference, sizeof s->check.reference, "%s", r->name);
	return KNIT_OK;
}
