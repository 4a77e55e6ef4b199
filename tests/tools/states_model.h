/* Owns a small model whose states are saved and restored, and a folder for the files. */
#ifndef KNIT_TEST_STATES_MODEL_H
#define KNIT_TEST_STATES_MODEL_H

#include "knit.h"

enum { STATES_DIM = 32, STATES_VOCAB = 12, STATES_TOKENS = 8 };

/* A model of one layer visited twice, in ways that differ. */
typedef struct states_spec {
	int64_t sequences, positions, window, sinks;
	knit_dtype k, v;
	uint32_t weights, lora; /* seeds; lora 0: none */
	float scale;            /* of attention */
	const char *disable;
	bool share, no_limit;   /* both visits use one slot; only the window is kept */
	int64_t max_tokens;
} states_spec;

extern const states_spec states_usual;

typedef struct states_model {
	knit_context *ctx;
	knit_weights *store;
	knit_program *program;
	knit_session *session;
} states_model;

/* A matrix f32 of numbers that its name and the seed give. */
void states_add(knit_weights *w, const char *name, int64_t rows, int64_t columns, uint32_t seed);
/* Fills in all of m but its context, which is there. */
knit_status states_build(const states_spec *s, states_model *m);
states_model states_open(states_spec s);
void states_close(states_model *m);

/* Runs `count` tokens from position `first` on: token number p of sequence q is a function of both. */
void states_feed(const states_model *m, int32_t sequence, int first, int count, float *logits);
/* Positions 0 .. end - 1, in steps. */
void states_feed_up_to(const states_model *m, int32_t sequence, int end);
/* The session's next logits; two sessions with the same states give the same. */
void states_probe(const states_model *m, float *logits);
/* `status` is what it must be, and the session's diagnostic says this. */
void states_says(const states_model *m, knit_status status, knit_status want, const char *text);

/* A folder for one test, and two names in it, "context" and "other". Nothing else may be left there at the end. */
extern char states_folder[], states_path[64], states_other[64];
void states_setup(void);
void states_teardown(void);
/* Names in the folder but for these two. */
int states_strangers(void);
char *states_slurp(const char *name, size_t *bytes);
void states_spill(const char *name, const char *data, size_t bytes);

#endif
