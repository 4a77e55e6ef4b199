/* Opens and compiles the model of a command line. */
#include "cli.h"

#include <inttypes.h>
#include <string.h>

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

int cli_model_compile(const cli_common *c, cli_model *m, int64_t positions, int64_t max_tokens, int64_t max_outputs) {
	knit_diag diag = {0};
	const knit__decoder_desc desc = {
		.config = &m->model.config,
		.base = m->model.file.store,
		.adapters = m->model.adapters,
		.positions = positions,
		.max_tokens = max_tokens,
		.max_outputs = max_outputs,
		.kv = m->kv,
		.device = c->device,
	};
	if (positions > m->model.config.context)
		fprintf(stderr,
				"knit: note: --ctx %" PRId64 " is more than the %" PRId64 " positions that the model was made for\n",
				positions, m->model.config.context);
	const knit_status status = knit__decoder_open(m->ctx, &desc, &m->decoder, &diag);
	if (status == KNIT_ERR_NOT_FOUND && c->device)
		return cli_fail("%s; \"knit devices\" lists what there is", diag.text);
	if (status == KNIT_ERR_MEMORY)
		return cli_fail("%s; a smaller --ctx or --kv f16 takes less memory", diag.text);
	if (status != KNIT_OK)
		return cli_fail_diag(status, &diag);
	m->positions = positions;
	return CLI_OK;
}

void cli_model_close(cli_model *m) {
	knit__decoder_close(&m->decoder);
	knit__model_unload(&m->model);
	knit_context_destroy(m->ctx);
	memset(m, 0, sizeof *m);
}
