/* Fuzz target: GGUF files, and the tokenizers that they carry. See run.sh. */
#include "../../frontends/formats/gguf.h"
#include "fuzz_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
	if (knit__gguf_matches(data, bytes))
		fuzz_model(data, bytes);
	return 0;
}
