/* Owns the places of a super-block's bits in a panel: one block of one row to its lane and back. Knows no kernel.
 * The layout: panels.h; the bits in the file: ops/quant.h. */
#include "../../../ops/quant.h"
#include "panels.h"

#include <string.h>

/* Byte i of the vectors from `at` on that belong to a lane: four neighbours of each lane in 64 bytes. */
static char *byte_of(char *at, int i, int64_t lane) { return at + i / 4 * 64 + lane * 4 + i % 4; }

/* The 32 values of a part of q4_K, or the low four bits of those of q6_K, in the file's 128 bytes. */
static void nibbles_out(knit_dtype t, const uint8_t *bytes, int part, uint8_t out[32]) {
	const int first = t == KNIT_Q4_K ? part / 2 * 32 : part / 4 * 64 + part % 2 * 32;
	const int shift = (t == KNIT_Q4_K ? part % 2 : part % 4 / 2) * 4;

	for (int i = 0; i < 32; ++i)
		out[i] = bytes[first + i] >> shift & 15;
}

static void nibbles_in(knit_dtype t, uint8_t *bytes, int part, const uint8_t in[32]) {
	const int first = t == KNIT_Q4_K ? part / 2 * 32 : part / 4 * 64 + part % 2 * 32;
	const int shift = (t == KNIT_Q4_K ? part % 2 : part % 4 / 2) * 4;

	for (int i = 0; i < 32; ++i)
		bytes[first + i] = (uint8_t)(bytes[first + i] | in[i] << shift);
}

static void pack_nibbles(knit_dtype t, const uint8_t *bytes, char *vectors, int64_t lane) {
	for (int part = 0; part < 8; ++part) {
		uint8_t v[32];

		nibbles_out(t, bytes, part, v);
		for (int i = 0; i < 16; ++i)
			*byte_of(vectors + part * 256, i, lane) = (char)(v[i] | v[i + 16] << 4);
	}
}

static void unpack_nibbles(knit_dtype t, uint8_t *bytes, char *vectors, int64_t lane) {
	for (int part = 0; part < 8; ++part) {
		uint8_t v[32];

		for (int i = 0; i < 16; ++i) {
			const uint8_t pair = (uint8_t)*byte_of(vectors + part * 256, i, lane);

			v[i] = pair & 15;
			v[i + 16] = pair >> 4;
		}
		nibbles_in(t, bytes, part, v);
	}
}

static void pack_q4_k(const char *block, char *group, int64_t lane) {
	knit_q4_k b = {0};

	if (block)
		memcpy(&b, block, sizeof b);
	memcpy(group + lane * 2, &b.d, 2);
	memcpy(group + 32 + lane * 2, &b.dmin, 2);
	for (int i = 0; i < 12; ++i)
		group[64 + i * KNIT_PANEL_ROWS + lane] = (char)b.scales[i];
	pack_nibbles(KNIT_Q4_K, b.q, group + KNIT_PANEL_Q4_K_VECTORS, lane);
}

static void unpack_q4_k(char *group, int64_t lane, char *block) {
	knit_q4_k b = {0};

	memcpy(&b.d, group + lane * 2, 2);
	memcpy(&b.dmin, group + 32 + lane * 2, 2);
	for (int i = 0; i < 12; ++i)
		b.scales[i] = (uint8_t)group[64 + i * KNIT_PANEL_ROWS + lane];
	unpack_nibbles(KNIT_Q4_K, b.q, group + KNIT_PANEL_Q4_K_VECTORS, lane);
	memcpy(block, &b, sizeof b);
}

/* Two bits each of columns i, 8 + i, 16 + i and 24 + i of a part. */
static void pack_q6_k(const char *block, char *group, int64_t lane) {
	knit_q6_k b = {.d = 0};

	if (block)
		memcpy(&b, block, sizeof b);
	memcpy(group + lane * 2, &b.d, 2);
	memset(group + 32 + lane * 2, 0, 2);
	for (int i = 0; i < 16; ++i)
		group[KNIT_PANEL_Q6_K_SCALES + i * KNIT_PANEL_ROWS + lane] = (char)b.scales[i];
	pack_nibbles(KNIT_Q6_K, b.low, group + KNIT_PANEL_Q6_K_VECTORS, lane);
	for (int part = 0; part < 8; ++part)
		for (int i = 0; i < 8; ++i) {
			unsigned bits = 0;

			for (int f = 0; f < 4; ++f)
				bits |= (b.high[part / 4 * 32 + 8 * f + i] >> part % 4 * 2 & 3u) << 2 * f;
			*byte_of(group + KNIT_PANEL_Q6_K_HIGH + part * 128, i, lane) = (char)bits;
		}
}

static void unpack_q6_k(char *group, int64_t lane, char *block) {
	knit_q6_k b = {.d = 0};

	memcpy(&b.d, group + lane * 2, 2);
	for (int i = 0; i < 16; ++i)
		b.scales[i] = (int8_t)group[KNIT_PANEL_Q6_K_SCALES + i * KNIT_PANEL_ROWS + lane];
	unpack_nibbles(KNIT_Q6_K, b.low, group + KNIT_PANEL_Q6_K_VECTORS, lane);
	for (int part = 0; part < 8; ++part)
		for (int i = 0; i < 8; ++i) {
			const uint8_t bits = (uint8_t)*byte_of(group + KNIT_PANEL_Q6_K_HIGH + part * 128, i, lane);

			for (int f = 0; f < 4; ++f) {
				uint8_t *const to = &b.high[part / 4 * 32 + 8 * f + i];

				*to = (uint8_t)(*to | (bits >> 2 * f & 3) << part % 4 * 2);
			}
		}
	memcpy(block, &b, sizeof b);
}

void knit__panels_pack_super(knit_dtype t, const char *block, char *group, int64_t lane) {
	if (t == KNIT_Q4_K)
		pack_q4_k(block, group, lane);
	else
		pack_q6_k(block, group, lane);
}

void knit__panels_unpack_super(knit_dtype t, const char *group, int64_t lane, char *block) {
	char *const at = (char *)(uintptr_t)group;

	if (t == KNIT_Q4_K)
		unpack_q4_k(at, lane, block);
	else
		unpack_q6_k(at, lane, block);
}
