/* Opens and compiles the model of a command line. */
#include "cli.h"

#include <inttypes.h>
#include <string.h>

enum { DEFAULT_POSITIONS = 4096 };

static void log_to_stderr(void *user, int level, const char *text) {
	(void)user;
	if (level == KNIT_LOG_WARNING)
		fprintf(stderr, "knit: warning: %s\n", text);
}

/* Other visits than the model's: says what becomes of the weights that belong to visits. */
static void note_visits(const knit__model *m) {
	const char *what = m->adapters && m->config.visit_norms ? "LoRA and norms" : m->adapters ? "LoRA" : "norms";
	uint32_t shared, bare;

	if ((!m->adapters && !m->config.visit_norms) || !knit__decoder_visits_changed(&m->config, &shared, &bare))
		return;
	fprintf(stderr,
			"knit: note: %u visits where the model has %u: the n-th visit of a layer takes the %s of the model's n-th",
			(unsigned)m->config.visit_count, (unsigned)m->config.model_visits.count, what);
	if (shared)
		fprintf(stderr, "; %u more share those of its last", (unsigned)shared);
	if (bare)
		fprintf(stderr, "; %u have none", (unsigned)bare);
	fprintf(stderr, "%s\n", m->adapters ? " (--adapter none: without LoRA)" : "");
}

int cli_model_open(const cli_common *c, cli_model *m) {
	const knit_context_desc desc = {.log = log_to_stderr, .cpu_threads = c->threads};
	knit_diag diag = {0};

	memset(m, 0, sizeof *m);
	if (knit_context_create(&desc, &m->ctx) != KNIT_OK)
		return cli_fail("out of memory");
	const knit_status status = knit__model_load(m->ctx, &c->model, &m->model, &diag);
	if (status != KNIT_OK)
		return cli_fail_diag(status, &diag);
	note_visits(&m->model);
	return CLI_OK;
}

void cli_model_set_kv(const cli_common *c, cli_model *m, knit_dtype type) {
	m->kv = c->kv;
	m->kv.k = m->kv.k ? m->kv.k : type;
	m->kv.v = m->kv.v ? m->kv.v : type;
	m->model.config.kv_policy = m->kv.policy;
	m->model.config.kv_group = m->kv.group;
	if (m->kv.policy == KNIT__KV_MODEL && m->model.config.own_kv.count == 0) { /* what that means, for the reader */
		m->kv.policy = m->model.config.own_kv_policy ? m->model.config.own_kv_policy : KNIT__KV_VISIT;
		m->kv.group = m->model.config.own_kv_group;
	}
}

static knit__decoder_desc describe(const cli_common *c, const cli_model *m, int64_t positions, int64_t max_tokens,
								   int64_t max_outputs) {
	return (knit__decoder_desc){
		.config = &m->model.config,
		.base = m->model.file.store,
		.adapters = m->model.adapters,
		.positions = positions,
		.max_tokens = max_tokens,
		.max_outputs = max_outputs,
		.kv_k = m->kv.k,
		.kv_v = m->kv.v,
		.window = m->kv.window,
		.sinks = m->kv.sinks,
		.memory_limit = c->memory,
		.plan_only = c->plan_only,
		.device = c->device,
		.device_memory = c->device_memory,
	};
}

/* --memory: the largest context, which --ctx may not exceed. */
static int fit_context(const cli_common *c, cli_model *m, const knit__decoder_desc *desc, int64_t *positions) {
	const int64_t made_for = m->model.config.context;
	knit_diag diag = {0};
	knit_status status = knit__decoder_fit(m->ctx, desc, c->memory, KNIT__MAX_CONTEXT, &m->fit, &diag);

	if (status == KNIT_OK && c->ctx > m->fit.positions) {
		knit__fit asked;
		char a[32], b[32];

		status = knit__decoder_sum(m->ctx, desc, c->ctx, &asked, &diag);
		if (status == KNIT_OK) {
			asked.limit = c->memory;
			cli_fail("--ctx %" PRId64 " takes %s, --memory is %s: at most %" PRId64 " positions fit", c->ctx,
					 cli_bytes(asked.total, a), cli_bytes(c->memory, b), m->fit.positions);
			cli_print_fit(stderr, &asked);
			return CLI_FAILED;
		}
	}
	if (status == KNIT_ERR_LIMIT && m->fit.total) {
		cli_fail("%s", diag.text);
		cli_print_fit(stderr, &m->fit);
		return CLI_FAILED;
	}
	if (status != KNIT_OK)
		return cli_fail_diag(status, &diag);
	if (c->ctx)
		*positions = c->ctx;
	else if (m->kv.window)
		*positions = m->fit.positions == KNIT__MAX_CONTEXT ? 0 : m->fit.positions;
	else
		*positions = m->fit.positions < made_for ? m->fit.positions : made_for;
	return CLI_OK;
}

int cli_model_context(const cli_common *c, cli_model *m, int64_t max_tokens, int64_t max_outputs, int64_t *positions) {
	const knit__decoder_desc desc = describe(c, m, 0, max_tokens, max_outputs);
	const int64_t made_for = m->model.config.context;

	if (c->memory)
		return fit_context(c, m, &desc, positions);
	*positions = c->ctx ? c->ctx : m->kv.window ? 0 : made_for < DEFAULT_POSITIONS ? made_for : DEFAULT_POSITIONS;
	return CLI_OK;
}

int cli_model_compile(const cli_common *c, cli_model *m, int64_t positions, int64_t max_tokens, int64_t max_outputs) {
	knit_diag diag = {0};
	const knit__decoder_desc desc = describe(c, m, positions, max_tokens, max_outputs);

	if (positions > m->model.config.context && !m->kv.window)
		fprintf(stderr,
				"knit: note: --ctx %" PRId64 " is more than the %" PRId64 " positions that the model was made for\n",
				positions, m->model.config.context);
	const knit_status status = knit__decoder_open(m->ctx, &desc, &m->decoder, &diag);
	if (status == KNIT_ERR_NOT_FOUND && c->device)
		return cli_fail("%s; \"knit devices\" lists what there is", diag.text);
	if (status == KNIT_ERR_MEMORY)
		return cli_fail("%s; a smaller --ctx or --kv q8_0 takes less memory", diag.text);
	if (status != KNIT_OK)
		return cli_fail_diag(status, &diag);
	m->positions = m->decoder.positions;
	return CLI_OK;
}

void cli_model_close(cli_model *m) {
	knit__decoder_close(&m->decoder);
	knit__model_unload(&m->model);
	knit_context_destroy(m->ctx);
	memset(m, 0, sizeof *m);
}
