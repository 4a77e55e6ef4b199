/* Owns a small quantised model in a GGUF file of its own, for tests of weights in layouts of a device's: three visits with tied
 * weights, an adapter, a state, a tied head. One at a time. */
#ifndef KNIT_TEST_PACKED_MODEL_H
#define KNIT_TEST_PACKED_MODEL_H

#include "../../backends/program.h"
#include "../../frontends/formats/gguf_write.h"

enum {
	PACK_DIM = 64,
	PACK_FF = 480,
	PACK_VOCAB = 32010,
	PACK_LOW = 32,
	PACK_VISITS = 3,
	PACK_TOKENS = 16,
	PACK_POSITIONS = 32,
	PACK_PANEL = 16,
	PACK_MADE = 9,   /* tensors in the file */
	PACK_BASE = 7,   /* of them, before the adapter's */
	PACK_PACKED = 5, /* of them, those that lie packed where there are panels */
};

/* The file's tensors: which lie packed, and what these are filled up with. No row count of the first and no column count of the
 * fourth is whole panels; the sixth would be mostly padding, and stays as it is. */
typedef struct pack_tensor {
	const char *name;
	knit_dtype type;
	int64_t rows, columns;
	bool packed;
	uint64_t padding;
} pack_tensor;
extern const pack_tensor pack_made[PACK_MADE];
extern const knit_bucket pack_buckets[2]; /* one token; more */

typedef struct pack_environment {
	knit_context *ctx;
	char folder[32], path[64], states_path[64];
	knit_diag diag;
} pack_environment;
extern pack_environment pack_env;

/* Fails the test with pack_env.diag. */
void pack_ok(knit_status got);
/* False, and a SKIP line, where no kernel of the machine reads panels. */
bool pack_panels_here(void);
/* Makes the file; ctx NULL: a context of its own. */
void pack_begin(knit_context *ctx);
/* Destroys the context and the files. */
void pack_end(void);
/* Another file in place of the model's. */
void pack_write(const knit_gguf_out *tensors, uint32_t count);
uint64_t pack_bytes(size_t tensor);
/* Other numbers for another seed; the caller frees them. The file has those of 1. */
void *pack_contents(size_t tensor, uint64_t seed);

/* The file, opened once more. */
knit_weights *pack_weights(void);
/* Visit v takes its weights from stores[v]. */
knit_graph *pack_graph(knit_weights *const stores[PACK_VISITS]);
knit_graph *pack_graph_tied(knit_weights *store);
knit_program *pack_compile(const knit_graph *g, const char *disable);
knit_session *pack_session(knit_program *p);
/* Of PACK_TOKENS tokens, in batches; the caller frees them. */
float *pack_logits(knit_session *s, size_t batch);
float *pack_logits_of(knit_program *p, size_t batch);

#endif
