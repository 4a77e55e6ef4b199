/* Owns the table of element types. Knows nothing of how their bits are read (ops/quant.c). */
#include "dtype.h"
#include "base.h"

#include <string.h>

static const knit_dtype_info dtypes[] = {
	[KNIT_F32] = {"f32", 1, 4, true, false, true},   [KNIT_F16] = {"f16", 1, 2, true, false, true},
	[KNIT_BF16] = {"bf16", 1, 2, true, false, true}, [KNIT_I32] = {"i32", 1, 4, false, false, false},
	[KNIT_Q8_0] = {"q8_0", 32, 34, false, true, true}, [KNIT_Q4_0] = {"q4_0", 32, 18, false, true, true},
	[KNIT_Q4_K] = {"q4_K", 256, 144, false, true, false}, [KNIT_Q6_K] = {"q6_K", 256, 210, false, true, false},
};

const knit_dtype_info *knit__dtype_info(knit_dtype dtype) {
	return dtype >= KNIT_F32 && (size_t)dtype < sizeof dtypes / sizeof dtypes[0] ? &dtypes[dtype] : NULL;
}

const char *knit_dtype_name(knit_dtype dtype) {
	const knit_dtype_info *info = knit__dtype_info(dtype);

	return info ? info->name : "?";
}

knit_dtype knit__dtype_parse(const char *name) {
	for (size_t i = KNIT_F32; i < sizeof dtypes / sizeof dtypes[0]; ++i)
		if (strcmp(dtypes[i].name, name) == 0)
			return (knit_dtype)i;
	return (knit_dtype)0;
}

bool knit__dtype_bytes(knit_dtype dtype, uint64_t elements, uint64_t *bytes) {
	const knit_dtype_info *info = knit__dtype_info(dtype);

	return info && elements % info->block_elements == 0 &&
	       knit__mul_u64(elements / info->block_elements, info->block_bytes, bytes);
}
