/* The reference's side of a case; see conf_expect.h. */
#include "conf_expect.h"

#include <stdlib.h>
#include <string.h>

const char *const conf_output_names[CASE_OUTPUTS] = {"y", "y.1", "y.2"};

/* A tolerance that is NaN or infinite belongs to an element that is. */
static void keep(const case_build *b, int output, const knit_interp *oracle, const knit_array *want, conf_output *out) {
	const knit_tensor *t = output ? b->more[output - 1] : b->t;
	const case_bound bound = output ? b->c->more[output - 1] : b->c->bound;
	const knit_array *operands[CASE_TENSORS] = {0};

	out->count = (size_t)knit__array_count(want);
	out->data = calloc(out->count + 1, sizeof *out->data);
	out->tolerance = calloc(out->count + 1, sizeof *out->tolerance);
	if (!out->data || !out->tolerance)
		abort();
	if (out->count)
		memcpy(out->data, want->data, out->count * sizeof *out->data);
	for (int i = 0; i < CASE_TENSORS; ++i)
		operands[i] = t[i].id ? knit__interp_value(oracle, t[i].id) : NULL;
	if (bound)
		bound(b->c, operands, want, out->tolerance);
}

static const char *run_once(case_build *b, conf_expect *e, int run, knit_interp *oracle, knit_diag *d) {
	case_feed(b, run);
	if (b->tokens && knit__interp_set_symbol(oracle, "tokens", b->tokens) != KNIT_OK)
		return "the reference did not take the number of tokens";
	for (uint32_t i = 0; i < b->input_count; ++i)
		if (knit__interp_write(oracle, b->inputs[i].name, b->inputs[i].data, b->inputs[i].count) != KNIT_OK)
			return "the reference did not take the inputs";
	if (knit__interp_run(oracle, d) != KNIT_OK)
		return d->text;
	for (int output = 0; output < CASE_OUTPUTS; ++output) {
		const knit_array *want;

		if (knit__interp_output(oracle, conf_output_names[output], &want) == KNIT_OK)
			keep(b, output, oracle, want, &e->outputs[run * CASE_OUTPUTS + output]);
		else if (output == 0)
			return "there is no output y";
	}
	return NULL;
}

const char *conf_expect_make(case_build *b, conf_expect *e, knit_diag *d) {
	knit_interp *oracle = NULL;
	const char *why = NULL;

	*e = (conf_expect){.runs = b->c->runs, .seed = b->seed};
	e->outputs = calloc((size_t)e->runs * CASE_OUTPUTS + 1, sizeof *e->outputs);
	if (!e->outputs)
		abort();
	if (knit__interp_create(b->g, 1, &oracle, d) != KNIT_OK)
		why = d->text;
	for (int run = 0; !why && run < e->runs; ++run)
		why = run_once(b, e, run, oracle, d);
	knit__interp_destroy(oracle);
	return why;
}

void conf_expect_clear(conf_expect *e) {
	for (int i = 0; e->outputs && i < e->runs * CASE_OUTPUTS; ++i) {
		free(e->outputs[i].data);
		free(e->outputs[i].tolerance);
	}
	free(e->outputs);
	*e = (conf_expect){0};
}

void conf_expect_feed(const conf_expect *e, case_build *b, int run) {
	if (run == 0)
		b->seed = e->seed;
	case_feed(b, run);
}
