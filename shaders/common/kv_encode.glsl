/* Owns the rounding of 32 elements to a block, by 8 neighbouring invocations with 4 elements each. Bit for bit what
 * ops/quant.c does: the two divisions, which Vulkan leaves loose, are done on integers. A scale below the normal numbers
 * of f32, which f16 cannot hold by far, gives a block of zeros. */

/* 1 / d for the bits of a positive normal d below 2^126. */
float knit_inverse(uint d) {
	const uint m = (d & 0x7fffffu) | 0x800000u, exponent = 253u - (d >> 23);

	if (m == 0x800000u)
		return uintBitsToFloat((exponent + 1u) << 23);

	/* 2^47 / m: a guess, and what it leaves over, of which the low bits are enough */
	uint quotient = uint(140737488355328.0 / float(m));
	int rest = int(0u - m * quotient);
	for (int i = 0; i < 8 && rest < 0; ++i, rest += int(m))
		--quotient;
	for (int i = 0; i < 8 && rest >= int(m); ++i, rest -= int(m))
		++quotient;
	if (2 * rest > int(m)) /* never equal */
		++quotient;
	return uintBitsToFloat((exponent << 23) + quotient - 0x800000u);
}

/* The bits of x / 127 for those of a positive normal x; 0 where that is no normal number. */
uint knit_over_127(uint x) {
	const uint m = (x & 0x7fffffu) | 0x800000u, shift = (m << 7) / 127u < 0x1000000u ? 7u : 6u;
	const uint whole = (m << shift) / 127u, rest = (m << shift) % 127u;

	return (x >> 23) <= shift ? 0u : (((x >> 23) - shift) << 23) + whole + (rest > 63u ? 1u : 0u) - 0x800000u;
}

/* What the elements of a block share. */
struct knit_block_scale {
	uint half_bits; /* of the scale */
	float inverse;
	bool is_nan;
};

/* largest: the bits of the largest magnitude. */
knit_block_scale knit_q8_0_scale(uint largest) {
	if (largest >= 0x7f800000u)
		return knit_block_scale(0x7e00u, 0.0, true);
	const uint d = largest < 0x800000u ? 0u : knit_over_127(largest);
	return d == 0u ? knit_block_scale(0u, 0.0, false) : knit_block_scale(knit_to_f16(d), knit_inverse(d), false);
}

/* signed_largest: the bits of the first element of that magnitude; it becomes -8. */
knit_block_scale knit_q4_0_scale(uint signed_largest) {
	const uint largest = signed_largest & 0x7fffffffu, sign = (signed_largest ^ 0x80000000u) & 0x80000000u;

	if (largest >= 0x7f800000u)
		return knit_block_scale(0x7e00u, 0.0, true);
	if (largest < 0x2000000u) /* 2^-123 */
		return knit_block_scale(largest == 0u ? 0x8000u : 0u, 0.0, false);
	const uint d = largest - 0x1800000u;
	const float inverse = knit_inverse(d);
	return knit_block_scale(knit_to_f16(d | sign), sign != 0u ? -inverse : inverse, false);
}

/* Halves away from zero; a byte of two's complement. */
uint knit_q8_0_round(float x, knit_block_scale scale) {
	precise float v = x * scale.inverse;
	const int whole = int(v);
	const float rest = v - float(whole);

	return uint(whole + (rest >= 0.5 ? 1 : 0) - (rest <= -0.5 ? 1 : 0)) & 0xffu;
}

uint knit_q4_0_round(float x, knit_block_scale scale) {
	precise float v = x * scale.inverse;

	v = v + 8.5;
	return scale.is_nan ? 0u : uint(min(int(v), 15));
}
