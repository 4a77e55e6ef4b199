/* Fuzz target: safetensors files. The input is a header and data; the length in front of the header is made here, since a
 * fuzzer hardly ever guesses it: the first two bytes say where the header ends. See run.sh. */
#include "../../frontends/formats/safetensors.h"
#include "fuzz_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
	if (bytes < 3)
		return 0;

	const uint64_t wanted = (uint64_t)data[0] | (uint64_t)data[1] << 8;
	const uint64_t length = wanted > bytes - 2 ? bytes - 2 : wanted;
	uint8_t *file = malloc(8 + bytes - 2);
	if (!file)
		return 0;
	memcpy(file, &length, 8);
	memcpy(file + 8, data + 2, bytes - 2);
	if (knit__safetensors_matches(file, 8 + bytes - 2))
		fuzz_model(file, 8 + bytes - 2);
	free(file);
	return 0;
}
