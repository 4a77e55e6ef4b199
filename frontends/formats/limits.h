/* Owns every limit that knit sets on outside files and text; each is tested at the limit and one past it. Counts that a
 * file declares are checked against the bytes that remain as well, so a limit is never the only guard. */
#ifndef KNIT_FORMATS_LIMITS_H
#define KNIT_FORMATS_LIMITS_H

#include <stdint.h>

#define KNIT_LIMIT_METADATA_ENTRIES UINT64_C(65536)    /* key-values of one file */
#define KNIT_LIMIT_KEY_BYTES UINT64_C(65535)           /* a metadata key; the GGUF specification's limit */
#define KNIT_LIMIT_TENSORS UINT64_C(131072)            /* tensors of one file */
#define KNIT_LIMIT_GGUF_NAME_BYTES UINT64_C(63)        /* a GGUF tensor name; ggml keeps 64 bytes with the terminator */
#define KNIT_LIMIT_NAME_BYTES UINT64_C(255)            /* a safetensors tensor name */
#define KNIT_LIMIT_ALIGNMENT UINT64_C(1048576)         /* general.alignment of a GGUF file */
#define KNIT_LIMIT_JSON_BYTES UINT64_C(100000000)      /* safetensors header; the reference reader's limit */
#define KNIT_LIMIT_JSON_DEPTH 4                        /* nested arrays and objects in it; a valid one needs 3 */
#define KNIT_LIMIT_JSON_VALUES UINT64_C(2097152)       /* values in it: bounds the parser's memory, about 64 bytes each */
#define KNIT_LIMIT_JSON_INTEGER UINT64_C(9007199254740991) /* 2^53 - 1: what the parser's doubles hold exactly */
#define KNIT_LIMIT_LLAMA2C_SIZE 268435456              /* any size in a llama2.c header */
#define KNIT_LIMIT_VOCAB UINT64_C(2097152)             /* tokens of a vocabulary */
#define KNIT_LIMIT_TOKEN_BYTES UINT64_C(1048576)       /* the text of one token */
#define KNIT_LIMIT_TEXT_BYTES UINT64_C(16777216)       /* a text given to the tokenizer in one call */

#endif
