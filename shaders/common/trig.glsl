/* Owns sines and cosines of large angles, which Vulkan leaves loose. An angle is a fraction of a turn in 64 bits (x low, y
 * high): products with positions are integer arithmetic modulo a turn, so no position is too large. What remains is at
 * most an eighth of a turn, for polynomials. */

/* position times frequency; the frequency too is a fraction of a turn. */
uvec2 knit_turn(int position, uvec2 frequency) {
	uint high, low;

	umulExtended(uint(position), frequency.x, high, low);
	high += uint(position) * frequency.y - (position < 0 ? frequency.x : 0u);
	return uvec2(low, high);
}

/* Off by less than 2^-22. */
vec2 knit_cos_sin(uvec2 turn) {
	const uint quarter = (turn.y + 0x20000000u) >> 30;
	const float rest = float(int(turn.y - (quarter << 30))) + float(turn.x) * 2.3283064365386963e-10;
	const float x = rest * 1.4629180792671596e-9; /* 2 pi / 2^32 */
	const float z = x * x;
	const float s = x + x * z * (-1.6666654611e-1 + z * (8.3321608736e-3 + z * -1.9515295891e-4));
	const float c = 1.0 - 0.5 * z + z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5));
	const vec2 turned = (quarter & 1u) != 0u ? vec2(-s, c) : vec2(c, s);

	return (quarter & 2u) != 0u ? -turned : turned;
}
