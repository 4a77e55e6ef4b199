/* Owns the functions whose precision Vulkan leaves loose: exp, and the gates made of it. Within 2 ulp, NaN in NaN out.
 * Needs formats.glsl. */

/* exp x = p * f1 * f2: p in [0.7, 1.42], f1 and f2 powers of two, so that what the product is scaled by can come between
 * them and nothing is lost below or above the range. x = n ln 2 + r, |r| <= ln 2 / 2; the series to r^7 / 7! leaves 5e-9.
 * Of a NaN it makes numbers. */
float knit_exp_parts(float x, out float f1, out float f2) {
	const float c = max(min(x, 89.0), -104.5); /* above: infinity; below: 0 */
	const float n = roundEven(c * 1.44269504088896341);
	const float r = (c - n * 0.693359375) - n * -2.12194440e-4; /* ln 2 in two parts: n times the first is exact */
	const int e = int(n), e1 = e >> 1;
	float p = 1.0 / 5040.0;

	p = p * r + 1.0 / 720.0;
	p = p * r + 1.0 / 120.0;
	p = p * r + 1.0 / 24.0;
	p = p * r + 1.0 / 6.0;
	p = p * r + 0.5;
	p = p * r * r + r + 1.0;
	f1 = uintBitsToFloat(uint(e1 + 127) << 23);
	f2 = uintBitsToFloat(uint(e - e1 + 127) << 23);
	return p;
}

float knit_exp(float x) {
	float f1, f2;
	const float p = knit_exp_parts(x, f1, f2);

	precise const float y = p * f1 * f2; /* in this order: one of the powers alone may leave the range */
	return knit_is_nan(x) ? x : y;
}

/* x / (1 + exp(-u)), u of x's sign. Only exp(-|u|) is taken: the divisor stays in [1, 2], where division is precise. */
float knit_gate(float x, float u) {
	float f1, f2;
	const float p = knit_exp_parts(-abs(u), f1, f2);

	precise const float scaled = x * p * f1 * f2, e = p * f1 * f2;
	return (u < 0.0 ? scaled : x) / (1.0 + e);
}

float knit_silu(float x) { return knit_gate(x, x); }
/* 0.5 x (1 + tanh u) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3) */
float knit_gelu(float x) { return knit_gate(x, 1.59576912160573071 * (x + 0.044715 * x * x * x)); }
