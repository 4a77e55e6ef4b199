#include "shape.h"

#include "../graph/base.h"
#include "../graph/dtype.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Sizes of known models; the weights are random whatever the name. */
static const struct {
	const char *name;
	bench_shape shape;
} named[] = {
	{"15m", {.dim = 288, .layers = 6, .heads = 6, .kv_heads = 6, .ffn = 768, .vocab = 32000, .context = 32768, .tied = true}},
	{"125m", {.dim = 576, .layers = 30, .heads = 9, .kv_heads = 3, .ffn = 1536, .vocab = 49152, .context = 32768, .tied = true}},
	{"1.1b", {.dim = 2048, .layers = 22, .heads = 32, .kv_heads = 4, .ffn = 5632, .vocab = 32000, .context = 32768}},
	{"8b", {.dim = 4096, .layers = 32, .heads = 32, .kv_heads = 8, .ffn = 14336, .vocab = 128256, .context = 131072}},
};

const char *bench_shape_names(void) {
	return "  15m   dim 288, 6 layers, 6 heads, ff 768, vocab 32000, tied head\n"
		   "  125m  dim 576, 30 layers, 9/3 heads, ff 1536, vocab 49152, tied head\n"
		   "  1.1b  dim 2048, 22 layers, 32/4 heads, ff 5632, vocab 32000\n"
		   "  8b    dim 4096, 32 layers, 32/8 heads, ff 14336, vocab 128256\n";
}

static bool take_number(const char *text, int64_t lo, int64_t hi, int64_t *out) {
	char *end;

	errno = 0;
	const long long v = strtoll(text, &end, 10);
	if (errno || end == text || *end || v < lo || v > hi)
		return false;
	*out = v;
	return true;
}

static knit_status take_type(const char *key, const char *text, knit_dtype *out, knit_diag *diag) {
	const knit_dtype type = knit__dtype_parse(text);

	if (type == 0 || type == KNIT_I32)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0,
		                  "%s=%s is no type of weights (f32, f16, bf16, q8_0, q4_0, q4_K, q6_K, or q4_k_m for type)", key, text);
	*out = type;
	return KNIT_OK;
}

static knit_status take_pair(bench_shape *s, const char *key, const char *value, knit_diag *diag) {
	int64_t tied = s->tied, seed = (int64_t)s->seed;
	const struct {
		const char *key;
		int64_t lo, hi, *out;
	} numbers[] = {
		{"dim", 1, 1 << 20, &s->dim},          {"layers", 1, 1024, &s->layers},     {"heads", 1, 4096, &s->heads},
		{"kv_heads", 1, 4096, &s->kv_heads},   {"head_dim", 2, 1024, &s->head_dim}, {"ff", 1, 1 << 20, &s->ffn},
		{"vocab", 8, 1 << 21, &s->vocab},      {"context", 1, 1 << 24, &s->context}, {"visits", 1, 64, &s->visits},
		{"lora", 0, 4096, &s->lora},           {"tied", 0, 1, &tied},               {"seed", 0, INT64_MAX, &seed},
	};

	if (strcmp(key, "type") == 0 && strcmp(value, "q4_k_m") == 0) {
		s->type = KNIT_Q4_K;
		s->rich = KNIT_Q6_K;
		return KNIT_OK;
	}
	if (strcmp(key, "rich") == 0)
		return take_type(key, value, &s->rich, diag);
	if (strcmp(key, "type") == 0)
		return take_type(key, value, &s->type, diag);
	if (strcmp(key, "embedding") == 0)
		return take_type(key, value, &s->embedding, diag);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; ++i) {
		if (strcmp(key, numbers[i].key) != 0)
			continue;
		if (!take_number(value, numbers[i].lo, numbers[i].hi, numbers[i].out))
			return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "%s=%s: needs a number from %" PRId64 " to %" PRId64, key, value,
			                  numbers[i].lo, numbers[i].hi);
		s->tied = tied != 0;
		s->seed = (uint64_t)seed;
		return KNIT_OK;
	}
	return knit__fail(diag, KNIT_ERR_ARGUMENT, 0,
	                  "a shape has no \"%s\": dim, layers, heads, kv_heads, head_dim, ff, vocab, context, visits, lora, type, "
	                  "rich, embedding, tied, seed",
	                  key);
}

/* Rows must be whole blocks. */
static knit_status check_blocks(knit_dtype type, const char *what, int64_t columns, knit_diag *diag) {
	const knit_dtype_info *const info = knit__dtype_info(type);

	if (columns % info->block_elements == 0)
		return KNIT_OK;
	return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "%s %" PRId64 " is no multiple of %d, the block of %s", what, columns,
	                  (int)info->block_elements, info->name);
}

static knit_status check(const bench_shape *s, knit_diag *diag) {
	const struct {
		const char *key;
		int64_t value;
	} needed[] = {{"dim", s->dim}, {"layers", s->layers}, {"heads", s->heads}, {"ff", s->ffn}, {"vocab", s->vocab}};

	for (size_t i = 0; i < sizeof needed / sizeof *needed; ++i)
		if (needed[i].value == 0)
			return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "the shape says nothing of %s", needed[i].key);
	if (s->heads % s->kv_heads != 0)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "heads %" PRId64 " are no multiple of kv_heads %" PRId64, s->heads,
		                  s->kv_heads);
	if (s->head_dim % 2 != 0)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "head_dim %" PRId64 " is not even", s->head_dim);
	knit_status status = check_blocks(s->type, "dim", s->dim, diag);
	if (status == KNIT_OK)
		status = check_blocks(s->type, "ff", s->ffn, diag);
	if (status == KNIT_OK)
		status = check_blocks(s->type, "heads * head_dim", s->heads * s->head_dim, diag);
	if (status == KNIT_OK)
		status = check_blocks(s->rich, "dim", s->dim, diag);
	if (status == KNIT_OK)
		status = check_blocks(s->rich, "ff", s->ffn, diag);
	return status == KNIT_OK ? check_blocks(s->embedding, "dim", s->dim, diag) : status;
}

static void defaults(bench_shape *s) {
	s->kv_heads = s->kv_heads ? s->kv_heads : s->heads;
	s->head_dim = s->head_dim ? s->head_dim : s->heads && s->dim % s->heads == 0 ? s->dim / s->heads : 64;
	s->context = s->context ? s->context : 32768;
	s->visits = s->visits ? s->visits : 1;
	s->type = s->type ? s->type : KNIT_Q8_0;
	s->rich = s->rich ? s->rich : s->type;
	s->embedding = s->embedding ? s->embedding : s->tied ? s->rich : s->type;
}

/* "1.1b" at the front; without a name the keys must say all. */
static knit_status take_name(char **text, bench_shape *s, knit_diag *diag) {
	const size_t bytes = strcspn(*text, ",:");
	const char end = (*text)[bytes];

	*s = (bench_shape){.seed = 1};
	if (memchr(*text, '=', bytes))
		return KNIT_OK;
	(*text)[bytes] = '\0';
	for (size_t i = 0; i < sizeof named / sizeof *named; ++i)
		if (strcmp(*text, named[i].name) == 0)
			*s = named[i].shape;
	if (s->dim == 0 && strcmp(*text, "llama") != 0)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "\"%s\" is no shape: 15m, 125m, 1.1b, 8b or llama:dim=...", *text);
	s->seed = 1;
	*text += bytes + (end != '\0');
	return KNIT_OK;
}

knit_status bench_shape_parse(const char *text, bench_shape *out, knit_diag *diag) {
	char copy[512], *at = copy, *save = NULL;

	memset(out, 0, sizeof *out);
	if (strlen(text) >= sizeof copy)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "the shape's text is too long");
	strcpy(copy, text);
	knit_status status = take_name(&at, out, diag);
	for (char *pair = strtok_r(at, ",", &save); status == KNIT_OK && pair; pair = strtok_r(NULL, ",", &save)) {
		char *const value = strchr(pair, '=');
		if (!value)
			return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "\"%s\": needs key=value", pair);
		*value = '\0';
		status = take_pair(out, pair, value + 1, diag);
	}
	if (status != KNIT_OK)
		return status;
	defaults(out);
	return check(out, diag);
}

void bench_shape_text(const bench_shape *s, char out[320]) {
	snprintf(out, 320,
	         "llama:dim=%" PRId64 ",layers=%" PRId64 ",heads=%" PRId64 ",kv_heads=%" PRId64 ",head_dim=%" PRId64 ",ff=%" PRId64
	         ",vocab=%" PRId64 ",context=%" PRId64 ",visits=%" PRId64 ",lora=%" PRId64 ",type=%s,rich=%s,embedding=%s,tied=%d,seed=%" PRIu64,
	         s->dim, s->layers, s->heads, s->kv_heads, s->head_dim, s->ffn, s->vocab, s->context, s->visits, s->lora,
	         knit__dtype_info(s->type)->name, knit__dtype_info(s->rich)->name, knit__dtype_info(s->embedding)->name, s->tied, s->seed);
}
