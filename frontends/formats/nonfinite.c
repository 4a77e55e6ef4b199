/* Owns the search for NaN and infinity in a tensor's bytes. Looks at exponent bits, converts nothing. */
#include "nonfinite.h"

#include "../../graph/dtype.h"

#include <string.h>

/* Where the 16 or 32 bits that may be NaN stand: `words` of them from `at` on, every `stride` bytes; together they stand for
 * `elements` elements. */
typedef struct layout {
	uint64_t stride, elements, at, words;
	uint32_t exponent, mantissa; /* masks */
	size_t word_bytes;
} layout;

static bool layout_of(knit_dtype dtype, layout *out) {
	const knit_dtype_info *info = knit__dtype_info(dtype);

	if (!info)
		return false;
	*out = (layout){info->block_bytes, info->block_elements, 0, 1, 0x7c00, 0x03ff, 2}; /* f16, and the blocks' scales */
	if (dtype == KNIT_F32)
		*out = (layout){4, 1, 0, 1, 0x7f800000, 0x007fffff, 4};
	if (dtype == KNIT_BF16)
		*out = (layout){2, 1, 0, 1, 0x7f80, 0x007f, 2};
	if (dtype == KNIT_Q4_K)
		out->words = 2; /* of the scales and of the minima */
	if (dtype == KNIT_Q6_K)
		out->at = info->block_bytes - 2;
	return dtype != KNIT_I32;
}

bool knit__weights_all_finite(const knit_weight_info *w, knit_nonfinite *out) {
	const uint8_t *p = w->data;
	layout l;

	*out = (knit_nonfinite){0};
	if (!layout_of(w->dtype, &l))
		return true;
	for (uint64_t i = 0; i < w->bytes / l.stride * l.words; ++i) {
		uint32_t bits = 0;

		memcpy(&bits, p + i / l.words * l.stride + l.at + i % l.words * l.word_bytes, l.word_bytes);
		if ((bits & l.exponent) != l.exponent)
			continue;
		if (out->nan + out->inf == 0)
			out->first = i / l.words * l.elements;
		if (bits & l.mantissa)
			out->nan++;
		else
			out->inf++;
	}
	return out->nan + out->inf == 0;
}
