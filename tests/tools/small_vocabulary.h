/* Owns a vocabulary of a few pieces, and the metadata of it or of any other. */
#ifndef KNIT_TEST_SMALL_VOCABULARY_H
#define KNIT_TEST_SMALL_VOCABULARY_H

#include "../../frontends/formats/metadata.h"

typedef struct vocabulary_piece {
	const char *text;
	float score;
	int32_t type;
} vocabulary_piece;

enum { VOCABULARY_SMALL = 15 };
extern const vocabulary_piece vocabulary_small[VOCABULARY_SMALL];

/* As a GGUF file says it, with so many of the scores and types (0: without the key); `count` at most VOCABULARY_SMALL. */
void vocabulary_metadata(knit_metadata *m, const knit_allocator *a, const vocabulary_piece *pieces, uint64_t count,
                         uint64_t scores, uint64_t types);

#endif
