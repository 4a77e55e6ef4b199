/* Owns the pieces that case graphs are built from. */
#include "case_build.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- data -------------------------------------------------------------------------------------------------------- */

static double uniform(uint64_t *seed) {
	*seed += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64, Steele et al. 2014 */
	uint64_t z = *seed;

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (double)((z ^ (z >> 31)) >> 11) * 0x1p-52 - 1.0;
}

/* Numbers that the type holds exactly, so that the reference and the device start from the same. */
static void fill_floats(case_build *b, case_fill fill, knit_dtype dtype, double *data, uint64_t count) {
	char *bytes;
	uint64_t size;

	for (uint64_t i = 0; i < count; ++i) {
		switch (fill) {
		case FILL_LARGE: data[i] = 1e4 * uniform(&b->seed); break;
		case FILL_DENORMAL: data[i] = 1e-39 * uniform(&b->seed); break;
		case FILL_EQUAL: data[i] = 0.5; break;
		case FILL_ZEROS: data[i] = i % 2 ? -0.0 : 0.0; break;
		case FILL_NAN:
		case FILL_UNIFORM: data[i] = uniform(&b->seed); break;
		}
	}
	if (!knit__dtype_bytes(dtype, count, &size) || !(bytes = malloc(size + 1)))
		return;
	knit__encode(dtype, data, bytes, count);
	knit__decode(dtype, bytes, data, count);
	free(bytes);
}

static case_input *input_slot(case_build *b, const char *name, knit_dtype dtype) {
	for (uint32_t i = 0; i < b->input_count; ++i)
		if (strcmp(b->inputs[i].name, name) == 0)
			return &b->inputs[i];
	b->inputs[b->input_count] = (case_input){name, dtype, 0, NULL};
	return &b->inputs[b->input_count++];
}

void case_floats(case_build *b, const char *name, knit_dtype dtype, uint64_t count) {
	case_input *in = input_slot(b, name, dtype);

	free(in->data);
	in->count = count;
	in->data = calloc(count + 1, sizeof *in->data);
	fill_floats(b, b->c->fill, dtype, in->data, count);
	if (b->c->fill == FILL_NAN && in == &b->inputs[0] && count)
		in->data[count / 2] = NAN;
}

/* value(i) = (first + step * i) % modulo */
void case_ints(case_build *b, const char *name, uint64_t count, int64_t first, int64_t step, int64_t modulo) {
	case_input *in = input_slot(b, name, KNIT_I32);

	free(in->data);
	in->count = count;
	in->data = calloc(count + 1, sizeof *in->data);
	for (uint64_t i = 0; i < count; ++i)
		in->data[i] = (double)((first + step * (int64_t)i) % modulo);
}

knit_tensor case_in(case_build *b, const char *name, knit_dtype dtype, int rank, const knit_dim *dims) {
	input_slot(b, name, dtype);
	return knit_input(b->g, name, dtype, rank, dims);
}

static knit_tensor weight(case_build *b, knit_dtype dtype, int rank, int64_t d0, int64_t d1) {
	const int64_t dims[2] = {d0, d1};
	const uint64_t count = (uint64_t)(rank == 1 ? d0 : d0 * d1);
	double *data = calloc(count + 1, sizeof *data);
	uint64_t bytes = 0;
	char name[16];

	/* Weights stay ordinary numbers: the fill is about what flows through. */
	fill_floats(b, b->c->fill == FILL_EQUAL ? FILL_EQUAL : FILL_UNIFORM, KNIT_F32, data, count);
	snprintf(name, sizeof name, "w%u", b->weight_count++);
	if (knit__dtype_bytes(dtype, count, &bytes)) {
		char *raw = malloc(bytes + 1);

		knit__encode(dtype, data, raw, count);
		knit_weights_add(b->store, name, dtype, rank, dims, raw, bytes, NULL);
		free(raw);
	}
	free(data);
	/* Sealed by its first use, so several weights need several stores: see weight_done. */
	return knit_weight(b->g, b->store, "%s", name);
}

/* Several weights in one case: each gets a store of its own, since a store is frozen by its first use. */
knit_tensor case_weight(case_build *b, knit_dtype dtype, int rank, int64_t d0, int64_t d1) {
	knit_weights_release(b->store);
	b->store = NULL;
	knit_weights_create(b->ctx, &b->store);
	return weight(b, dtype, rank, d0, d1);
}

knit_dim case_tokens(case_build *b, int64_t value) {
	b->tokens = value;
	return knit_sym(b->g, "tokens", 1, b->exact ? value : value + 3);
}

/* Blocks of 256 get sizes that are not all one block: 256 for 64, 512 for 96, 768 for 160. */
int64_t case_columns(knit_dtype dtype, int64_t columns) {
	const knit_dtype_info *const info = knit__dtype_info(dtype);

	return info->block_elements == 256 ? (columns * 4 + 255) / 256 * 256 : columns;
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

conf_case *case_add(case_table *t, uint16_t op, const char *what, knit_dtype dtype, case_fill fill, void (*build)(case_build *),
                      void (*feed)(case_build *, int), case_bound bound, const int64_t *p) {
	static const char *const fills[] = {"", "_large", "_denormal", "_equal", "_zeros", "_nan"};

	if (t->count == t->cap) {
		t->cap = t->cap ? t->cap * 2 : 256;
		t->data = realloc(t->data, t->cap * sizeof *t->data);
	}
	conf_case *c = &t->data[t->count++];
	*c = (conf_case){.op = op, .build = build, .feed = feed, .bound = bound, .dtype = dtype, .fill = fill, .runs = 1};
	memcpy(c->p, p, sizeof c->p);
	int at = snprintf(c->name, sizeof c->name, "%s%s_%s%s", knit__op(op)->name, what, knit_dtype_name(dtype), fills[fill]);
	for (int i = 0; i < CASE_PARAMS && at < (int)sizeof c->name; ++i)
		if (i < 3 || p[i])
			at += snprintf(c->name + at, sizeof c->name - (size_t)at, "_%lld", (long long)p[i]);
	return c;
}
