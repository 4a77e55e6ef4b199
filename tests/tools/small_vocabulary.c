/* Owns a vocabulary of a few pieces. */
#include "small_vocabulary.h"

#include <check.h>
#include <string.h>

const vocabulary_piece vocabulary_small[] = {
	{"<unk>", 0, 2}, {"<s>", 0, 3},   {"</s>", 0, 3},    {"\xe2\x96\x81", -9, 1}, {"a", -9, 1},
	{"b", -9, 1},    {"ab", -2, 1},   {"ba", -1, 1},     {"aba", -3, 1},          {"\xe2\x96\x81" "a", -4, 1},
	{"<", -9, 1},    {"s", -9, 1},    {">", -9, 1},      {"<s", -1, 1},           {"ab", -1, 1},
};
_Static_assert(sizeof vocabulary_small / sizeof vocabulary_small[0] == VOCABULARY_SMALL, "all are there");

void vocabulary_metadata(knit_metadata *m, const knit_allocator *a, const vocabulary_piece *pieces, uint64_t count,
                         uint64_t scores, uint64_t types) {
	knit_diag diag = {0};
	knit_metadata_entry *e;
	uint64_t text = 0;
	float score[VOCABULARY_SMALL];
	int32_t type[VOCABULARY_SMALL];

	knit__metadata_init(m, a);
	for (uint64_t i = 0; i < count; ++i) {
		text += strlen(pieces[i].text);
		score[i] = pieces[i].score;
		type[i] = pieces[i].type;
	}
	ck_assert_int_eq(knit__metadata_add_string(m, "tokenizer.ggml.model", "llama", 5, &diag), KNIT_OK);
	ck_assert_int_eq(knit__metadata_add_strings(m, "tokenizer.ggml.tokens", true, count, text, &e, &diag), KNIT_OK);
	for (uint64_t i = 0; i < count; ++i)
		knit__metadata_string_put(e, i, pieces[i].text, strlen(pieces[i].text));
	if (scores)
		ck_assert_int_eq(knit__metadata_add(m, "tokenizer.ggml.scores", KNIT_METADATA_F32, true, scores, score, &diag), KNIT_OK);
	if (types)
		ck_assert_int_eq(knit__metadata_add(m, "tokenizer.ggml.token_type", KNIT_METADATA_I32, true, types, type, &diag), KNIT_OK);
}
