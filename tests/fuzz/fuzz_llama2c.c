/* Fuzz target: llama2.c model files (first byte even) and tokenizer files (odd). See run.sh. */
#include "../../frontends/formats/llama2c.h"
#include "fuzz_model.h"

static void tokenizer_file(const uint8_t *data, size_t bytes) {
	knit_tokenizer *t = NULL;
	knit_context *ctx;

	if (knit_context_create(NULL, &ctx) != KNIT_OK)
		abort();
	if (knit__tokenizer_open_llama2c_memory(ctx, data, bytes, &t, NULL) == KNIT_OK)
		fuzz_use_tokenizer(ctx, t, data, bytes < 300 ? bytes : 300);
	knit__tokenizer_destroy(t);
	knit_context_destroy(ctx);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
	if (bytes < 1)
		return 0;

	/* A copy of its own: the bytes behind the selector, at an aligned address, with nothing after them. */
	uint8_t *file = malloc(bytes);
	if (!file)
		return 0;
	memcpy(file, data + 1, bytes - 1);
	if (data[0] % 2)
		tokenizer_file(file, bytes - 1);
	else if (knit__llama2c_matches(file, bytes - 1))
		fuzz_model(file, bytes - 1);
	free(file);
	return 0;
}
