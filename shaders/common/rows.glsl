/* Owns the places of rows (params/rows.h). */

/* The element where row r begins. */
uint knit_row(const knit_rows t, uint r) {
	const uint outer = r / t.size[1];

	return t.at + r % t.size[1] * t.stride[2] + outer % t.size[0] * t.stride[1] + outer / t.size[0] * t.stride[0];
}
