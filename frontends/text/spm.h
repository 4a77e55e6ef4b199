/* Owns SentencePiece's BPE: text to ids by merging the neighbours whose union has the best score (Kudo and Richardson
 * 2018), with bytes for what is in no piece. */
#ifndef KNIT_TEXT_SPM_H
#define KNIT_TEXT_SPM_H

#include "tokenizer.h"
#include "vocab.h"

/* Appends the ids of `text`, a normalised text of at most KNIT_LIMIT_TEXT_BYTES + 1 bytes. */
knit_status knit__spm_encode(const knit_vocab *v, const knit_allocator *a, const char *text, uint32_t bytes,
                             knit_token_list *list, knit_diag *diag);

#endif
