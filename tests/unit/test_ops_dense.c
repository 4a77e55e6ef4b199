/* References of gather, linear, the elementwise ops, norms, softmax, argmax, copy and cast, against closed forms and
 * loops written another way. */
#include "../tools/op_eval.h"
#include "../tools/suite.h"

#include <math.h>

static op_array a, b, c, y;

static void near(double got, double want, double tolerance) {
	ck_assert_msg(fabs(got - want) <= tolerance, "%.17g, not %.17g", got, want);
}

/* ---- gather ------------------------------------------------------------------------------------------------------ */

START_TEST(gather_takes_rows) {
	op_array_init(&a, KNIT_Q8_0, 5, 3, 0, 0);
	op_array_init(&b, KNIT_I32, 4, 0, 0, 0);
	op_array_init(&y, KNIT_F32, 4, 3, 0, 0);
	op_array_random(&a, 1);
	op_array_set(&b, (const double[]){4, 0, 4, 2});
	op_eval(KNIT_OP_GATHER, NULL, (op_array *[]){&a, &b}, 2, &y);
	for (int j = 0; j < 3; ++j) {
		ck_assert(y.data[j] == a.data[12 + j]);
		ck_assert(y.data[3 + j] == a.data[j]);
		ck_assert(y.data[6 + j] == a.data[12 + j]);
		ck_assert(y.data[9 + j] == a.data[6 + j]);
	}
}
END_TEST

START_TEST(gather_shows_bad_ids) {
	op_array_init(&a, KNIT_F32, 2, 1, 0, 0);
	op_array_init(&b, KNIT_I32, 3, 0, 0, 0);
	op_array_init(&y, KNIT_F32, 3, 1, 0, 0);
	op_array_set(&b, (const double[]){-1, 2, 1});
	op_eval(KNIT_OP_GATHER, NULL, (op_array *[]){&a, &b}, 2, &y);
	ck_assert(isnan(y.data[0]) && isnan(y.data[1]) && y.data[2] == 0);
}
END_TEST

/* ---- linear ------------------------------------------------------------------------------------------------------ */

START_TEST(linear_by_hand) {
	op_array_init(&a, KNIT_F32, 2, 3, 0, 0);
	op_array_init(&b, KNIT_F32, 2, 3, 0, 0);
	op_array_init(&y, KNIT_F32, 2, 2, 0, 0);
	op_array_set(&a, (const double[]){1, 2, 3, -1, 0, 1});
	op_array_set(&b, (const double[]){1, 10, 100, 0.5, 0.25, 2});
	op_eval(KNIT_OP_LINEAR, NULL, (op_array *[]){&a, &b}, 2, &y);
	ck_assert(y.data[0] == 321 && y.data[1] == 7 && y.data[2] == 99 && y.data[3] == 1.5);
}
END_TEST

/* Outer products, one column of x after the other, for ranks 1 to 4. */
START_TEST(linear_as_outer_products) {
	static const int64_t shapes[][4] = {{7, 0, 0, 0}, {5, 7, 0, 0}, {2, 3, 33, 0}, {2, 1, 4, 16}};

	for (size_t s = 0; s < 4; ++s) {
		const int rank = (int)s + 1;
		const int64_t k = shapes[s][rank - 1], n = 6;
		int64_t out[4] = {shapes[s][0], shapes[s][1], shapes[s][2], shapes[s][3]};
		double want[OP_EVAL_ELEMENTS] = {0};

		out[rank - 1] = n;
		op_array_init(&a, KNIT_F32, shapes[s][0], shapes[s][1], shapes[s][2], shapes[s][3]);
		op_array_init(&b, KNIT_F16, n, k, 0, 0);
		op_array_init(&y, KNIT_F32, out[0], out[1], out[2], out[3]);
		op_array_random(&a, s);
		op_array_random(&b, s + 10);
		op_eval(KNIT_OP_LINEAR, NULL, (op_array *[]){&a, &b}, 2, &y);
		const int64_t rows = knit__array_count(&a.a) / k;
		for (int64_t i = 0; i < k; ++i)
			for (int64_t j = 0; j < n; ++j)
				for (int64_t r = 0; r < rows; ++r)
					want[r * n + j] += a.data[r * k + i] * *op_array_at(&b, j, i, 0, 0);
		for (int64_t i = 0; i < rows * n; ++i)
			near(y.data[i], want[i], 1e-13);
	}
}
END_TEST

/* ---- elementwise ------------------------------------------------------------------------------------------------- */

START_TEST(add_and_mul) {
	for (int vector = 0; vector < 2; ++vector) {
		op_array_init(&a, KNIT_F32, 2, 3, 5, 0);
		if (vector)
			op_array_init(&b, KNIT_F32, 5, 0, 0, 0);
		else
			op_array_init(&b, KNIT_F32, 2, 3, 5, 0);
		op_array_init(&y, KNIT_F32, 2, 3, 5, 0);
		op_array_init(&c, KNIT_F32, 2, 3, 5, 0);
		op_array_random(&a, 1);
		op_array_random(&b, 2);
		op_eval(KNIT_OP_ADD, NULL, (op_array *[]){&a, &b}, 2, &y);
		op_eval(KNIT_OP_MUL, NULL, (op_array *[]){&a, &b}, 2, &c);
		for (int i = 0; i < 2; ++i)
			for (int j = 0; j < 3; ++j)
				for (int k = 0; k < 5; ++k) {
					const double p = *op_array_at(&a, i, j, k, 0);
					const double q = vector ? b.data[k] : *op_array_at(&b, i, j, k, 0);

					ck_assert(*op_array_at(&y, i, j, k, 0) == p + q);
					ck_assert(*op_array_at(&c, i, j, k, 0) == p * q);
				}
	}
}
END_TEST

START_TEST(scale_silu_gelu) {
	static const double x[] = {-5, -1, -0.5, 0.25, 1, 3};
	/* worked out outside this program */
	static const double silu[] = {-0.03346425462142428, -0.2689414213699951, -0.1887703343990727,
								  0.14054412522144952,  0.7310585786300049,  2.8577223804672998};
	static const double gelu[] = {-2.2917961972623857e-07, -0.15880800939172324, -0.15428599017485606,
								  0.149675350701685,       0.8411919906082768,   2.996362607918227};
	const knit_attr half[] = {{.f = -0.5}};

	op_array_init(&a, KNIT_F32, 6, 0, 0, 0);
	op_array_init(&y, KNIT_F32, 6, 0, 0, 0);
	op_array_set(&a, x);
	op_eval(KNIT_OP_SCALE, half, (op_array *[]){&a}, 1, &y);
	for (int i = 0; i < 6; ++i)
		ck_assert(y.data[i] == x[i] / -2);
	op_eval(KNIT_OP_SILU, NULL, (op_array *[]){&a}, 1, &y);
	for (int i = 0; i < 6; ++i)
		near(y.data[i], silu[i], 1e-15);
	op_eval(KNIT_OP_GELU, NULL, (op_array *[]){&a}, 1, &y);
	for (int i = 0; i < 6; ++i)
		near(y.data[i], gelu[i], 1e-15);
}
END_TEST

START_TEST(silu_gelu_at_the_ends) {
	op_array_init(&a, KNIT_F32, 5, 0, 0, 0);
	op_array_init(&y, KNIT_F32, 5, 0, 0, 0);
	op_array_set(&a, (const double[]){-1e4, 1e4, 0, -0.0, (double)NAN});
	for (int gelu = 0; gelu < 2; ++gelu) {
		op_eval(gelu ? KNIT_OP_GELU : KNIT_OP_SILU, NULL, (op_array *[]){&a}, 1, &y);
		ck_assert(y.data[0] == 0 && y.data[1] == 1e4 && y.data[2] == 0 && y.data[3] == 0 && isnan(y.data[4]));
	}
}
END_TEST

/* ---- norms ------------------------------------------------------------------------------------------------------- */

START_TEST(rms_norm_by_hand) {
	const knit_attr none[] = {{.f = 0}}, one[] = {{.f = 1}};

	op_array_init(&a, KNIT_F32, 2, 2, 0, 0);
	op_array_init(&b, KNIT_F32, 2, 0, 0, 0);
	op_array_init(&y, KNIT_F32, 2, 2, 0, 0);
	op_array_set(&a, (const double[]){1, 7, -3, 3}); /* mean squares 25 and 9 */
	op_array_set(&b, (const double[]){1, 10});
	op_eval(KNIT_OP_RMS_NORM, none, (op_array *[]){&a, &b}, 2, &y);
	near(y.data[0], 0.2, 1e-15);
	near(y.data[1], 14, 1e-14);
	near(y.data[2], -1, 1e-15);
	near(y.data[3], 10, 1e-14);
	op_array_set(&a, (const double[]){sqrt(3), sqrt(3), 0, 0}); /* mean square 3, plus eps 1: root 2 */
	op_eval(KNIT_OP_RMS_NORM, one, (op_array *[]){&a, &b}, 2, &y);
	near(y.data[0], sqrt(3) / 2, 1e-15);
	ck_assert(y.data[2] == 0);
}
END_TEST

START_TEST(layer_norm_by_hand) {
	const knit_attr none[] = {{.f = 0}};

	op_array_init(&a, KNIT_F32, 1, 4, 0, 0);
	op_array_init(&b, KNIT_F32, 4, 0, 0, 0);
	op_array_init(&c, KNIT_F32, 4, 0, 0, 0);
	op_array_init(&y, KNIT_F32, 1, 4, 0, 0);
	op_array_set(&a, (const double[]){1, 2, 3, 4}); /* mean 2.5, variance 1.25 */
	op_array_set(&b, (const double[]){1, 2, 1, 1});
	op_array_set(&c, (const double[]){0, 0, 5, 0});
	op_eval(KNIT_OP_LAYER_NORM, none, (op_array *[]){&a, &b, &c}, 3, &y);
	near(y.data[0], -1.5 / sqrt(1.25), 1e-14);
	near(y.data[1], -1.0 / sqrt(1.25), 1e-14);
	near(y.data[2], 5 + 0.5 / sqrt(1.25), 1e-14);
	op_eval(KNIT_OP_LAYER_NORM, none, (op_array *[]){&a, &b, NULL}, 3, &y);
	near(y.data[2], 0.5 / sqrt(1.25), 1e-14);
	op_eval(KNIT_OP_LAYER_NORM, none, (op_array *[]){&a, &b}, 2, &y);
	near(y.data[2], 0.5 / sqrt(1.25), 1e-14);
}
END_TEST

/* With gain 1: mean 0 and mean square 1 (layer_norm), mean square 1 (rms_norm); both ignore the size of x. */
START_TEST(norms_normalise) {
	const knit_attr none[] = {{.f = 0}};

	op_array_init(&a, KNIT_F32, 2, 3, 37, 0);
	op_array_init(&b, KNIT_F32, 37, 0, 0, 0);
	op_array_init(&y, KNIT_F32, 2, 3, 37, 0);
	for (int i = 0; i < 37; ++i)
		b.data[i] = 1;
	for (int layer = 0; layer < 2; ++layer) {
		op_array_random(&a, 5);
		for (int64_t i = 0; i < knit__array_count(&a.a); ++i)
			a.data[i] = (a.data[i] + 3) * 1e6;
		op_eval(layer ? KNIT_OP_LAYER_NORM : KNIT_OP_RMS_NORM, none, (op_array *[]){&a, &b}, 2, &y);
		for (int r = 0; r < 6; ++r) {
			double mean = 0, square = 0;

			for (int i = 0; i < 37; ++i) {
				mean += y.data[r * 37 + i] / 37;
				square += y.data[r * 37 + i] * y.data[r * 37 + i] / 37;
			}
			near(square, 1, 1e-12);
			if (layer)
				near(mean, 0, 1e-12);
		}
	}
}
END_TEST

/* ---- softmax, argmax --------------------------------------------------------------------------------------------- */

START_TEST(softmax_closed_form) {
	op_array_init(&a, KNIT_F32, 3, 3, 0, 0);
	op_array_init(&y, KNIT_F32, 3, 3, 0, 0);
	op_array_set(&a, (const double[]){log(1), log(2), log(5), 1e30, 1e30, -1e30, -700, -700 + log(3), -700});
	op_eval(KNIT_OP_SOFTMAX, NULL, (op_array *[]){&a}, 1, &y);
	near(y.data[0], 0.125, 1e-15);
	near(y.data[1], 0.25, 1e-15);
	near(y.data[2], 0.625, 1e-15);
	ck_assert(y.data[3] == 0.5 && y.data[4] == 0.5 && y.data[5] == 0);
	near(y.data[6], 0.2, 1e-12);
	near(y.data[7], 0.6, 1e-12);
}
END_TEST

START_TEST(softmax_masked_and_nan) {
	op_array_init(&a, KNIT_F32, 3, 2, 0, 0);
	op_array_init(&y, KNIT_F32, 3, 2, 0, 0);
	op_array_set(&a, (const double[]){-INFINITY, 3, -INFINITY, -INFINITY, 1, NAN});
	op_eval(KNIT_OP_SOFTMAX, NULL, (op_array *[]){&a}, 1, &y);
	ck_assert(y.data[0] == 0 && y.data[1] == 1);
	for (int i = 2; i < 6; ++i)
		ck_assert(isnan(y.data[i]));
}
END_TEST

START_TEST(softmax_sums_to_one_and_shifts) {
	op_array_init(&a, KNIT_F32, 2, 2, 2, 101);
	op_array_init(&y, KNIT_F32, 2, 2, 2, 101);
	op_array_init(&c, KNIT_F32, 2, 2, 2, 101);
	op_array_random(&a, 9);
	op_eval(KNIT_OP_SOFTMAX, NULL, (op_array *[]){&a}, 1, &y);
	for (int64_t i = 0; i < 808; ++i)
		a.data[i] += 500;
	op_eval(KNIT_OP_SOFTMAX, NULL, (op_array *[]){&a}, 1, &c);
	for (int r = 0; r < 8; ++r) {
		double sum = 0;

		for (int i = 0; i < 101; ++i) {
			sum += y.data[r * 101 + i];
			near(y.data[r * 101 + i], c.data[r * 101 + i], 1e-13);
		}
		near(sum, 1, 1e-13);
	}
}
END_TEST

START_TEST(argmax_takes_the_first_among_equals) {
	op_array_init(&a, KNIT_F32, 7, 4, 0, 0);
	op_array_init(&y, KNIT_I32, 7, 0, 0, 0);
	op_array_set(&a, (const double[]){1,         3,      3,        2,        /**/ 5,   5,   5,   5,   /**/ -1,
									  -2,        -3,     -0.5,     /**/ NAN, 1,        2,   2, /**/
									  0,         NAN,    4,        NAN,      /**/ NAN, NAN, NAN, NAN, /**/ -INFINITY,
									  -INFINITY, -1e300, -INFINITY});
	op_eval(KNIT_OP_ARGMAX, NULL, (op_array *[]){&a}, 1, &y);
	static const double want[] = {1, 0, 3, 2, 2, 0, 2};
	for (int i = 0; i < 7; ++i)
		ck_assert_msg(y.data[i] == want[i], "row %d: %g, not %g", i, y.data[i], want[i]);
}
END_TEST

/* ---- copy, cast -------------------------------------------------------------------------------------------------- */

START_TEST(copy_and_cast) {
	const knit_attr f16[] = {{.i = KNIT_F16}}, bf16[] = {{.i = KNIT_BF16}}, f32[] = {{.i = KNIT_F32}};

	op_array_init(&a, KNIT_F32, 2, 3, 0, 0);
	op_array_set(&a, (const double[]){1.0 / 3, 1 + 0x1p-11, 1e6, -1 - 0x1p-8, 0x1p-26, -0.0});
	op_array_init(&y, KNIT_F32, 2, 3, 0, 0);
	op_eval(KNIT_OP_COPY, NULL, (op_array *[]){&a}, 1, &y);
	for (int i = 0; i < 6; ++i)
		ck_assert(y.data[i] == a.data[i]);
	op_array_init(&y, KNIT_F16, 2, 3, 0, 0);
	op_eval(KNIT_OP_CAST, f16, (op_array *[]){&a}, 1, &y);
	ck_assert(y.data[0] == 1365.0 / 4096 && y.data[1] == 1 && isinf(y.data[2]) && y.data[3] == -1 - 0x1p-8 &&
			  y.data[4] == 0 && signbit(y.data[5]));
	op_array_init(&y, KNIT_BF16, 2, 3, 0, 0);
	op_eval(KNIT_OP_CAST, bf16, (op_array *[]){&a}, 1, &y);
	ck_assert(y.data[0] == 171.0 / 512 && y.data[2] == 999424 && y.data[3] == -1 && y.data[4] == 0x1p-26);
	op_array_init(&y, KNIT_F32, 2, 3, 0, 0);
	op_eval(KNIT_OP_CAST, f32, (op_array *[]){&a}, 1, &y);
	ck_assert(y.data[0] == 1.0 / 3); /* the reference does not round between f32 values */
}
END_TEST

int main(void) {
	const TTest *const tests[] = {
		gather_takes_rows,
		gather_shows_bad_ids,
		linear_by_hand,
		linear_as_outer_products,
		add_and_mul,
		scale_silu_gelu,
		silu_gelu_at_the_ends,
		rms_norm_by_hand,
		layer_norm_by_hand,
		norms_normalise,
		softmax_closed_form,
		softmax_masked_and_nan,
		softmax_sums_to_one_and_shifts,
		argmax_takes_the_first_among_equals,
		copy_and_cast,
	};

	return suite_run("ops_dense", tests, (int)(sizeof tests / sizeof *tests));
}
