/* Opens the files of a model in order and lets each part check itself. */
#include "load.h"

#include "../formats/nonfinite.h"
#include "hf_config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_PATH_BYTES = 4096 };

/* Puts the file's name before a message: a command that opens several files must say which. */
static knit_status name_file(knit_status status, const char *path, knit_diag *diag) {
	char text[sizeof diag->text];

	if (status == KNIT_OK || !diag)
		return status;
	if (diag->status == KNIT_OK)
		return knit__fail(diag, status, 0, "%.120s: %s", path, knit_status_name(status));
	snprintf(text, sizeof text, "%s", diag->text);
	const size_t length = strlen(path);
	const size_t shown = length > 80 ? 80 : length; /* the end of a path says most */
	snprintf(diag->text, sizeof diag->text, "%s%s: %.150s", shown < length ? "..." : "", path + length - shown, text);
	return status;
}

static knit_status check_finite(knit_context *ctx, const knit_weights *store, knit_diag *diag) {
	knit_nonfinite found;
	knit_weight_info info;

	if (knit_weights_at(store, knit__weights_first_nonfinite(store, ctx->desc.cpu_threads, &found), &info) != KNIT_OK)
		return KNIT_OK;
	return knit__fail(diag, KNIT_ERR_FORMAT, 0,
					  "%.80s has %" PRIu64 " NaN and %" PRIu64 " infinite values, the first at element "
					  "%" PRIu64 ": the file is damaged or training diverged",
					  info.name, found.nan, found.inf, found.first);
}

static knit_status open_file(knit_context *ctx, const char *path, bool skip_finite, knit_model_file *out,
							 knit_diag *diag) {
	knit_status status = knit__model_open(ctx, path, out, diag);

	if (status == KNIT_OK && !skip_finite)
		status = check_finite(ctx, out->store, diag);
	if (status == KNIT_OK)
		status = knit__weights_seal(out->store);
	return status;
}

static knit_status read_config(knit__model *m, const char *path, knit_diag *diag) {
	knit_metadata *keys = &m->file.metadata;

	if (m->file.format == KNIT_MODEL_SAFETENSORS && !knit__metadata_find(keys, "general.architecture")) {
		const knit_status status = knit__hf_config_beside(path, keys, diag);
		if (status == KNIT_ERR_NOT_FOUND)
			return knit__fail(diag, status, 0,
							  "a safetensors model needs its config.json in the same folder: put it there");
		if (status != KNIT_OK)
			return status;
	}
	return knit__decoder_config_read(keys, m->file.store, &m->config, diag);
}

static knit_status read_adapter(knit_context *ctx, const knit__model_desc *desc, knit__model *m, knit_diag *diag) {
	if (desc->no_adapter)
		return KNIT_OK;
	if (!desc->adapter_path) {
		m->adapters = m->config.lora_rank ? m->file.store : NULL;
		return KNIT_OK;
	}
	knit_status status = open_file(ctx, desc->adapter_path, desc->skip_finite_check, &m->adapter, diag);
	if (status == KNIT_OK)
		status = knit__decoder_config_adapter(&m->config, &m->adapter.metadata, m->adapter.store, diag);
	m->adapters = m->adapter.store;
	return name_file(status, desc->adapter_path, diag);
}

/* After the adapter, which may bring visits of its own: LoRA and norms of visits follow what was asked for. */
static knit_status change_visits(const knit__model_desc *desc, knit__model *m, knit_diag *diag) {
	if (desc->visits && desc->loops)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0,
						  "--visits lists every visit and --loops changes their number: give one of them");
	if (desc->visits)
		return knit__decoder_config_visits(&m->config, desc->visits, diag);
	return desc->loops ? knit__decoder_config_loops(&m->config, desc->loops, diag) : KNIT_OK;
}

/* tokenizer.bin or tok512.bin in the folder of the model; false if neither is there. */
static bool tokenizer_beside(const char *model_path, char out[MAX_PATH_BYTES]) {
	static const char *const names[] = {"tokenizer.bin", "tok512.bin"};
	const char *slash = strrchr(model_path, '/');
	const int folder = slash ? (int)(slash - model_path) + 1 : 0;

	for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
		const int length = snprintf(out, MAX_PATH_BYTES, "%.*s%s", folder, model_path, names[i]);
		if (length < MAX_PATH_BYTES && access(out, R_OK) == 0)
			return true;
	}
	return false;
}

static knit_status open_tokenizer(knit_context *ctx, const knit__model_desc *desc, knit__model *m, knit_diag *diag) {
	char beside[MAX_PATH_BYTES];
	const char *path = desc->tokenizer_path;
	knit_status status;

	if (!path && knit__metadata_find(&m->file.metadata, "tokenizer.ggml.model"))
		return name_file(knit__tokenizer_create(ctx, &m->file.metadata, &m->tokenizer, diag), desc->path, diag);
	if (!path && tokenizer_beside(desc->path, beside))
		path = beside;
	if (!path)
		return knit__fail(diag, KNIT_ERR_NOT_FOUND, 0,
						  "%.120s carries no tokenizer and there is no tokenizer.bin beside it: name "
						  "one with --tokenizer FILE",
						  desc->path);
	status = knit__tokenizer_open_llama2c(ctx, path, &m->tokenizer, diag);
	return name_file(status, path, diag);
}

static knit_status read_tokenizer(knit_context *ctx, const knit__model_desc *desc, knit__model *m, knit_diag *diag) {
	knit_diag own = {0};
	const knit_status status = open_tokenizer(ctx, desc, m, &own);

	if (desc->tokenizer == KNIT__TOKENIZER_IF_THERE && !desc->tokenizer_path &&
		(status == KNIT_ERR_NOT_FOUND || status == KNIT_ERR_UNSUPPORTED))
		return KNIT_OK;
	if (status != KNIT_OK && diag)
		*diag = own;
	if (status == KNIT_OK && (int64_t)knit__tokenizer_vocab_size(m->tokenizer) > m->config.vocab)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0,
						  "%.80s: the tokenizer has %u tokens, the model %" PRId64 ": name the model's own with "
						  "--tokenizer FILE",
						  desc->path, (unsigned)knit__tokenizer_vocab_size(m->tokenizer), m->config.vocab);
	return status;
}

/* A folder stands for the model.safetensors in it. */
static const char *model_path(const char *path, char buffer[MAX_PATH_BYTES]) {
	struct stat st;

	if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
		return path;
	const size_t length = strlen(path);
	const char *slash = length && path[length - 1] == '/' ? "" : "/";
	return snprintf(buffer, MAX_PATH_BYTES, "%s%smodel.safetensors", path, slash) < MAX_PATH_BYTES ? buffer : path;
}

knit_status knit__model_load(knit_context *ctx, const knit__model_desc *desc, knit__model *out, knit_diag *diag) {
	knit__model_desc resolved = *desc;
	char buffer[MAX_PATH_BYTES];

	memset(out, 0, sizeof *out);
	resolved.path = model_path(desc->path, buffer);
	knit_status status = open_file(ctx, resolved.path, desc->skip_finite_check, &out->file, diag);
	if (status == KNIT_OK)
		status = read_config(out, resolved.path, diag);
	status = name_file(status, resolved.path, diag);
	if (status == KNIT_OK)
		status = read_adapter(ctx, &resolved, out, diag);
	if (status == KNIT_OK)
		status = change_visits(&resolved, out, diag);
	if (status == KNIT_OK && desc->tokenizer != KNIT__TOKENIZER_NONE)
		status = read_tokenizer(ctx, &resolved, out, diag);
	if (status != KNIT_OK)
		knit__model_unload(out);
	return status;
}

void knit__model_unload(knit__model *m) {
	knit__tokenizer_destroy(m->tokenizer);
	knit__model_file_close(&m->adapter);
	knit__model_file_close(&m->file);
	memset(m, 0, sizeof *m);
}
