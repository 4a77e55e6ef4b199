/* Owns the list of passes and their running: order, switching off, dumps, checks. Knows no pass's workings. */
#include "pass.h"
#include "context.h"
#include "pass_check.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const knit_pass passes[] = {
	{"canonicalise", knit__pass_canonicalise, false, "equal graphs get the same form; ops that do nothing go"},
	{"dedup_weights", knit__pass_dedup_weights, false, "weights with equal bytes become one storage"},
	{"fold", knit__pass_fold, false, "what depends on weights alone is computed once, if that costs no bytes",
	 .tolerance = 1e-4}, /* constants are rounded to their type */
	{"cse", knit__pass_cse, false, "equal computations are done once"},
	{"dce", knit__pass_dce, false, "what no output and no state needs is removed"},
	{"fuse_linear", knit__pass_fuse_linear, false, "bias, residual, LoRA and gated pairs join their linears"},
	{"merge_siblings", knit__pass_merge_siblings, false, "linears over one x become one step"},
	{"fuse_norm", knit__pass_fuse_norm, false, "a sum and its norm become one step"},
	{"fuse_kv", knit__pass_fuse_kv, false, "rope and the writes to a KV slot become one step"},
	{"fuse_elementwise", knit__pass_fuse_elementwise, false, "chains of elementwise ops become one step"},
	{"legalise", knit__pass_legalise, true, "copies for operands that must be contiguous; outputs own their bytes"},
	{"order", knit__pass_order, true, "a valid execution order"},
	{"layout", knit__pass_layout, false, "weights lie as all their uses read them fastest"},
};

#define PASS_COUNT (sizeof passes / sizeof passes[0])
#define CHECK_TOLERANCE 1e-9

const knit_pass *knit__pass_at(size_t index) { return index < PASS_COUNT ? &passes[index] : NULL; }

const knit_pass *knit__pass_find(const char *name) {
	for (size_t i = 0; i < PASS_COUNT; ++i)
		if (strcmp(passes[i].name, name) == 0)
			return &passes[i];
	return NULL;
}

/* ---- switching off ----------------------------------------------------------------------------------------------- */

static knit_status switch_off(bool *off, const char *name, size_t length, knit_diag *d) {
	for (size_t i = 0; i < PASS_COUNT; ++i) {
		if (strlen(passes[i].name) != length || strncmp(passes[i].name, name, length) != 0)
			continue;
		if (passes[i].required)
			return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "pass %s cannot be switched off", passes[i].name);
		off[i] = true;
		return KNIT_OK;
	}
	return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "no pass \"%.*s\" to switch off", length > 64 ? 64 : (int)length, name);
}

/* "cse,dce": empty parts and spaces are skipped. */
static knit_status read_list(const char *list, bool *off, knit_diag *d) {
	for (const char *p = list ? list : ""; *p;) {
		const size_t length = strcspn(p, ", ");
		const knit_status status = length ? switch_off(off, p, length, d) : KNIT_OK;

		if (status != KNIT_OK)
			return status;
		p += length;
		p += strspn(p, ", ");
	}
	return KNIT_OK;
}

/* ---- looking on -------------------------------------------------------------------------------------------------- */

static bool environment_is(const char *name, const char *value) {
	const char *set = getenv(name);

	return set && strcmp(set, value) == 0;
}

static void dump(const knit_graph *g, const char *when, const char *pass) {
	knit_text t = {.a = g->a};

	knit__print_text(g, &t);
	fprintf(stderr, "; %s %s\n%s\n", when, pass, t.data && !t.failed ? t.data : "; out of memory");
	knit__text_clear(&t);
}

/* A failure here is a bug in the pass, so everything there is to see goes to stderr. */
static knit_status check_valid(const knit_graph *g, const char *pass, knit_diag *d) {
	knit_text report = {.a = g->a};
	knit_diag why = {0};
	const knit_status status = knit__check_valid(g, &report, &why);

	if (status == KNIT_ERR_INTERNAL)
		fprintf(stderr, "knit: the graph after pass %s is broken:\n%s\n", pass, report.data ? report.data : why.text);
	if (status != KNIT_OK)
		knit__fail(d, status, 0, "after pass %s: %s", pass, why.text);
	knit__text_clear(&report);
	return status;
}

static knit_status check_deeply(const knit_graph *before, const knit_graph *after, const knit_pass *checked,
                                knit_diag *d) {
	const double tolerance = checked->tolerance > 0 ? checked->tolerance : CHECK_TOLERANCE;
	const char *pass = checked->name;
	knit_diag why = {0};
	bool skipped = false;
	knit_status status = check_valid(after, pass, d);

	if (status != KNIT_OK)
		return status;
	status = knit__check_text(after, &why);
	if (status == KNIT_OK)
		status = knit__check_equal(before, after, 1, tolerance, &skipped, &why);
	if (skipped)
		knit__log(after->ctx, KNIT_LOG_INFO, "pass %s: the graph is too large for the reference, not compared", pass);
	return status == KNIT_OK ? KNIT_OK : knit__fail(d, status, why.node, "after pass %s: %s", pass, why.text);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static knit_status run_one(knit_graph *g, const knit_target *target, const knit_pass *pass, knit_diag *d) {
	knit_diag why = {0};
	uint32_t changes = 0;
	knit_status status = pass->run(g, target, &changes, &why);

	if (status == KNIT_OK && changes)
		status = knit__graph_compact(g);
	if (status == KNIT_OK)
		status = g->diag.status; /* from the functions that change graphs */
	if (status == KNIT_OK) {
		knit__log(g->ctx, KNIT_LOG_DEBUG, "pass %s: %u changes", pass->name, changes);
		return KNIT_OK;
	}
	const knit_diag *cause = why.status != KNIT_OK ? &why : &g->diag;
	return knit__fail(d, status, cause->node, "pass %s: %s", pass->name, cause->text);
}

static knit_status run_checked(knit_graph *g, const knit_target *target, const knit_pass *pass, bool deeply,
                               knit_diag *d) {
	const bool shown = environment_is("KNIT_DUMP", pass->name) || environment_is("KNIT_DUMP", "all");
	knit_graph *before = NULL;
	knit_status status = deeply ? knit__graph_clone(g, &before, d) : KNIT_OK;

	if (shown)
		dump(g, "before", pass->name);
	if (status == KNIT_OK)
		status = run_one(g, target, pass, d);
	if (shown)
		dump(g, "after", pass->name);
	if (status == KNIT_OK && deeply)
		status = check_deeply(before, g, pass, d);
#ifndef NDEBUG
	else if (status == KNIT_OK)
		status = check_valid(g, pass->name, d);
#endif
	knit_graph_destroy(before);
	return status;
}

knit_status knit__passes_run(knit_graph *g, const knit_target *target, const char *disable, knit_diag *d) {
	const bool deeply = environment_is("KNIT_CHECK", "1");
	bool off[PASS_COUNT] = {false};
	knit_status status = read_list(disable, off, d);

	if (status == KNIT_OK)
		status = read_list(getenv("KNIT_PASSES_OFF"), off, d);
	for (size_t i = 0; i < PASS_COUNT && status == KNIT_OK; ++i)
		if (!off[i])
			status = run_checked(g, target, &passes[i], deeply, d);
	return status;
}
