/* Owns the shape of a model that the bench makes on the spot: sizes, types, visits. Knows no file and no device. */
#ifndef KNIT_BENCH_SHAPE_H
#define KNIT_BENCH_SHAPE_H

#include "knit.h"

#include <stdbool.h>

typedef struct bench_shape {
	int64_t dim, layers, heads, kv_heads, head_dim, ffn, vocab, context;
	int64_t visits;   /* times that the whole stack runs */
	int64_t lora;     /* rank of a LoRA on all seven projections of each visit; 0: none */
	knit_dtype type;  /* of the layers' matrices */
	knit_dtype rich;  /* of those that suffer most from few bits: attn_v, ffn_down, a head of its own; by default as the others */
	knit_dtype embedding; /* of the embedding and the head */
	bool tied;        /* the head is the embedding */
	uint64_t seed;
} bench_shape;

/* "llama:dim=2048,layers=22,heads=32,kv_heads=4,ff=5632,vocab=32000,type=q4_0", or a name with changes:
 * "1.1b,type=q8_0,visits=3,lora=16". Further keys: head_dim, context, embedding, rich, tied=0|1, seed. type=q4_k_m is
 * type=q4_K with rich=q6_K. ARGUMENT, saying what is wrong and what there is. */
knit_status bench_shape_parse(const char *text, bench_shape *out, knit_diag *diag);
/* The text that gives the same shape again, all keys spelled out. */
void bench_shape_text(const bench_shape *shape, char out[320]);
/* The names and sizes, a line each, for --help. */
const char *bench_shape_names(void);

#endif
