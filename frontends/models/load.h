/* Owns an opened model: file, decoder config, adapter, tokenizer, found and checked together. Knows no graph. */
#ifndef KNIT_LOAD_H
#define KNIT_LOAD_H

#include "../formats/model_file.h"
#include "../text/tokenizer.h"
#include "config.h"

typedef enum knit__tokenizer_need {
	KNIT__TOKENIZER_NONE = 0, /* not looked for */
	KNIT__TOKENIZER_IF_THERE, /* absent or of an unknown kind: the model loads without */
	KNIT__TOKENIZER_NEEDED,
} knit__tokenizer_need;

typedef struct knit__model_desc {
	const char *path;         /* a model file, or a folder with model.safetensors */
	const char *adapter_path; /* a LoRA file of its own; NULL: the model's own LoRA, if it has one */
	bool no_adapter;          /* run without any LoRA */
	const char *visits;       /* "0,1,1,2" instead of the model's visits; NULL: the model's */
	uint32_t loops;           /* another number of loops than the model's; 0: the model's */
	const char
		*tokenizer_path; /* a llama2.c tokenizer; NULL: the file's own, or tokenizer.bin or tok512.bin beside it */
	knit__tokenizer_need tokenizer;
	bool skip_finite_check; /* do not read every weight in search of NaN */
} knit__model_desc;

typedef struct knit__model {
	knit_model_file file, adapter;
	knit__decoder_config config;
	knit_weights *adapters;    /* borrowed from one of the files; NULL: no LoRA */
	knit_tokenizer *tokenizer; /* NULL if none was needed */
} knit__model;

/* On failure *out is cleared and the message says which file is meant. */
knit_status knit__model_load(knit_context *ctx, const knit__model_desc *desc, knit__model *out, knit_diag *diag);
void knit__model_unload(knit__model *m);

#endif
