/* Owns what end-to-end tests share: finding outside data, opening a model, feeding it, golden numbers. */
#ifndef KNIT_TEST_MODEL_RUN_H
#define KNIT_TEST_MODEL_RUN_H

#include "../../frontends/models/decoder.h"
#include "../../frontends/models/load.h"
#include "../../frontends/text/generate.h"

#include <cjson/cJSON.h>

/* Writes KNIT_TEST_DATA/<file> to out; prints a SKIP line and answers false where it is absent. */
bool test_data(const char *root, const char *file, char *out, size_t size);

typedef struct model_run {
	knit_context *ctx;
	knit__model model;
	knit__decoder decoder;
} model_run;

/* Opens and compiles; a failure fails the test. desc.config, base and adapters are filled in. */
void model_run_open(model_run *r, const knit__model_desc *model, knit__decoder_desc desc, uint32_t threads);
void model_run_close(model_run *r);

/* Feeds ids to sequence 0 from position 0 in batches and gives the logits after each: [count, vocab]; the caller frees
 * them. */
float *model_run_logits(model_run *r, const int32_t *ids, size_t count, size_t batch);
/* Generates up to `count` tokens after a prompt, whose text is included; the text and, if wanted, the ids (caller frees
 * both). */
char *model_run_text(model_run *r, const knit_sampler_desc *sampler, const char *prompt, size_t count,
					 knit_token_list *ids);

/* Whole file, terminated; a failure fails the test. The caller frees it. */
char *test_read_file(const char *path, size_t *bytes);
/* `count` floats; the file must have exactly these. */
float *test_read_floats(const char *path, size_t count);
cJSON *test_read_json(const char *path);
/* Largest absolute difference. */
double test_largest_difference(const float *a, const float *b, size_t count);

#endif
