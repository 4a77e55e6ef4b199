/* Translates config.json key by key; whatever would change the arithmetic and is not known here is refused. */
#include "hf_config.h"

#include "../formats/json_scan.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 1 << 20, MAX_PATH_BYTES = 4096 };

static knit_status add_count(const cJSON *root, const char *name, const char *key, knit_metadata *m, knit_diag *diag) {
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, name);

	if (!item || cJSON_IsNull(item))
		return KNIT_OK; /* the reader of the keys says what is missing */
	if (!cJSON_IsNumber(item) || item->valuedouble < 0 || item->valuedouble > UINT32_MAX ||
		item->valuedouble != floor(item->valuedouble))
		return knit__fail(diag, KNIT_ERR_FORMAT, 0, "config.json: \"%s\" is no whole number from 0 to 2^32 - 1", name);
	return knit__metadata_add_u32(m, key, (uint32_t)item->valuedouble, diag);
}

static knit_status add_number(const cJSON *root, const char *name, const char *key, knit_metadata *m, knit_diag *diag) {
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, name);

	if (!item || cJSON_IsNull(item))
		return KNIT_OK;
	if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble) || fabs(item->valuedouble) > 3e38)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0, "config.json: \"%s\" is no number that fits a float", name);
	return knit__metadata_add_f32(m, key, (float)item->valuedouble, diag);
}

static knit_status add_text(const char *key, const char *text, knit_metadata *m, knit_diag *diag) {
	return knit__metadata_add_string(m, key, text, strlen(text), diag);
}

/* Options that must be absent, null, false or of one value. */
static knit_status check_options(const cJSON *root, knit_diag *diag) {
	static const char *const must_be_off[] = {"rope_scaling", "attention_bias", "mlp_bias", "quantization_config"};
	const cJSON *type = cJSON_GetObjectItemCaseSensitive(root, "model_type");
	const cJSON *act = cJSON_GetObjectItemCaseSensitive(root, "hidden_act");

	if (!cJSON_IsString(type))
		return knit__fail(diag, KNIT_ERR_FORMAT, 0, "config.json has no \"model_type\": it describes no model");
	if (strcmp(type->valuestring, "llama") != 0)
		return knit__fail(diag, KNIT_ERR_UNSUPPORTED, 0,
						  "config.json: model type \"%.40s\" is not supported: knit runs \"llama\"", type->valuestring);
	if (act && !(cJSON_IsString(act) && strcmp(act->valuestring, "silu") == 0))
		return knit__fail(diag, KNIT_ERR_UNSUPPORTED, 0, "config.json: \"hidden_act\" is not \"silu\"");
	for (size_t i = 0; i < sizeof must_be_off / sizeof *must_be_off; ++i) {
		const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, must_be_off[i]);
		if (item && !cJSON_IsNull(item) && !cJSON_IsFalse(item))
			return knit__fail(diag, KNIT_ERR_UNSUPPORTED, 0, "config.json: \"%s\" is set: knit does not do that yet",
							  must_be_off[i]);
	}
	return KNIT_OK;
}

static knit_status translate(const cJSON *root, knit_metadata *m, knit_diag *diag) {
	static const struct {
		const char *name, *key;
	} counts[] = {
		{"hidden_size", "llama.embedding_length"},
		{"intermediate_size", "llama.feed_forward_length"},
		{"num_hidden_layers", "llama.block_count"},
		{"num_attention_heads", "llama.attention.head_count"},
		{"num_key_value_heads", "llama.attention.head_count_kv"},
		{"head_dim", "llama.attention.key_length"},
		{"max_position_embeddings", "llama.context_length"},
	};
	knit_status status = check_options(root, diag);

	if (status == KNIT_OK)
		status = add_text("general.architecture", "llama", m, diag);
	if (status == KNIT_OK)
		status = add_text("knit.rope.layout", "split", m, diag);
	for (size_t i = 0; i < sizeof counts / sizeof *counts && status == KNIT_OK; ++i)
		status = add_count(root, counts[i].name, counts[i].key, m, diag);
	if (status == KNIT_OK)
		status = add_number(root, "rms_norm_eps", "llama.attention.layer_norm_rms_epsilon", m, diag);
	if (status == KNIT_OK)
		status = add_number(root, "rope_theta", "llama.rope.freq_base", m, diag);
	return status;
}

knit_status knit__hf_config_parse(const char *json, size_t bytes, knit_metadata *m, knit_diag *diag) {
	uint64_t end = 0;
	cJSON *root = knit__json_parse(json, bytes, &end);
	knit_status status;

	if (!cJSON_IsObject(root)) {
		cJSON_Delete(root);
		return knit__fail(diag, KNIT_ERR_FORMAT, 0, "config.json is no JSON object: get the model's files again");
	}
	status = translate(root, m, diag);
	cJSON_Delete(root);
	return status;
}

knit_status knit__hf_config_beside(const char *model_path, knit_metadata *m, knit_diag *diag) {
	char path[MAX_PATH_BYTES];
	const char *slash = strrchr(model_path, '/');
	const int folder = slash ? (int)(slash - model_path) + 1 : 0;

	if (snprintf(path, sizeof path, "%.*sconfig.json", folder, model_path) >= (int)sizeof path)
		return knit__fail(diag, KNIT_ERR_LIMIT, 0, "the path of config.json is longer than %d bytes", (int)sizeof path);
	FILE *f = fopen(path, "rb");
	if (!f && errno == ENOENT)
		return KNIT_ERR_NOT_FOUND;
	if (!f)
		return knit__fail(diag, KNIT_ERR_IO, 0, "config.json beside the model cannot be opened: %s", strerror(errno));

	char *text = knit__alloc(m->a, MAX_CONFIG_BYTES);
	knit_status status = KNIT_OK;
	if (!text) {
		status = knit__fail_memory(diag, "config.json", MAX_CONFIG_BYTES);
	} else {
		const size_t bytes = fread(text, 1, MAX_CONFIG_BYTES, f);
		if (ferror(f))
			status =
				knit__fail(diag, KNIT_ERR_IO, 0, "config.json beside the model cannot be read: %s", strerror(errno));
		else if (bytes == MAX_CONFIG_BYTES)
			status = knit__fail(diag, KNIT_ERR_LIMIT, 0, "config.json has %d bytes or more", (int)MAX_CONFIG_BYTES);
		else
			status = knit__hf_config_parse(text, bytes, m, diag);
	}
	knit__free(m->a, text, MAX_CONFIG_BYTES);
	fclose(f);
	return status;
}
