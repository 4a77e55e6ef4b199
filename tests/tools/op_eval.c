/* Owns dense arrays for tests that call an op's reference directly, without a graph. */
#include "op_eval.h"

#include <check.h>
#include <string.h>

void op_array_init(op_array *x, knit_dtype dtype, int64_t d0, int64_t d1, int64_t d2, int64_t d3) {
	const int64_t dims[] = {d0, d1, d2, d3};

	memset(x, 0, sizeof *x);
	x->a.dtype = dtype;
	while (x->a.rank < 4 && dims[x->a.rank] != 0) {
		x->a.dims[x->a.rank] = dims[x->a.rank];
		x->a.rank++;
	}
	x->a.data = x->data;
	ck_assert_int_le(knit__array_count(&x->a), OP_EVAL_ELEMENTS);
}

void op_array_set(op_array *x, const double *values) {
	memcpy(x->data, values, (size_t)knit__array_count(&x->a) * sizeof *values);
}

void op_array_random(op_array *x, uint64_t seed) {
	uint64_t s = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

	for (int64_t i = 0; i < knit__array_count(&x->a); ++i) {
		s ^= s >> 12, s ^= s << 25, s ^= s >> 27;
		x->data[i] = (double)(s * UINT64_C(0x2545f4914f6cdd1d) >> 11) * 0x1p-52 - 1;
	}
}

double *op_array_at(op_array *x, int64_t i0, int64_t i1, int64_t i2, int64_t i3) {
	const int64_t index[] = {i0, i1, i2, i3};
	int64_t at = 0;

	for (uint32_t i = 0; i < x->a.rank; ++i) {
		ck_assert(index[i] >= 0 && index[i] < x->a.dims[i]);
		at = at * x->a.dims[i] + index[i];
	}
	return &x->data[at];
}

void op_eval(knit_op op, const knit_attr *attr, op_array *const *in, uint32_t in_count, op_array *out) {
	knit_array arrays[KNIT_MAX_IN] = {0};
	knit_array result = out->a;

	ck_assert_uint_le(in_count, KNIT_MAX_IN);
	for (uint32_t i = 0; i < in_count; ++i) {
		if (!in[i])
			continue;
		arrays[i] = in[i]->a;
		arrays[i].data = in[i]->data;
	}
	result.data = out->data;
	knit__op((uint16_t)op)->eval(attr, arrays, in_count, &result);
}
