/* Owns the rewriting of SPIR-V with SPV_NV_cooperative_matrix, which the compilers of Debian 12 know, to
 * SPV_KHR_cooperative_matrix, which devices have. A tool of the build:
 *   knit-coopmat in.spv out.spv
 * The two differ in a type's use, which NV leaves to the products, in the order of operands and in numbers. A matrix's use
 * is known here by the specialization constants of its rows and columns: M x K is A, K x N is B, M x N the sums, where M, N
 * and K are constants 8, 9 and 10. Knows nothing else of a shader, and refuses what it does not expect. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	OP_EXTENSION = 10, OP_CAPABILITY = 17, OP_CONSTANT_TRUE = 41, OP_CONSTANT_FALSE = 42, OP_CONSTANT = 43, OP_DECORATE = 71,
	NV_CAPABILITY = 5357, NV_TYPE = 5358, NV_LOAD = 5359, NV_STORE = 5360, NV_MUL_ADD = 5361, NV_LENGTH = 5362,
	KHR_CAPABILITY = 6022, KHR_TYPE = 4456, KHR_LOAD = 4457, KHR_STORE = 4458, KHR_MUL_ADD = 4459,
	DECORATION_SPEC_ID = 1, SPEC_M = 8, SPEC_N = 9, SPEC_K = 10, HEADER = 5, MAX_WORDS = 1 << 20
};

static const char nv_name[] = "SPV_NV_cooperative_matrix", khr_name[] = "SPV_KHR_cooperative_matrix";

/* What is known of an id. */
typedef struct id_info { uint32_t spec, type; bool is_true, is_false; } id_info;

typedef struct rewriting {
	uint32_t *in, *out;
	size_t in_count, out_count;
	id_info *ids;
	uint32_t numbers; /* id of the constant 0, then 1 and 2; 0: not made yet */
} rewriting;

static void put(rewriting *r, uint32_t word) { r->out[r->out_count++] = word; }

static void put_op(rewriting *r, uint32_t op, uint32_t length) { put(r, length << 16 | op); }

static bool learn(rewriting *r, const uint32_t *i, uint32_t length) {
	const uint32_t op = i[0] & 0xffff, id = op == OP_DECORATE ? i[1] : i[2];

	if (op != OP_DECORATE && op != OP_CONSTANT && op != OP_CONSTANT_TRUE && op != OP_CONSTANT_FALSE)
		return true;
	if (length < 3 || id >= r->in[3])
		return false;
	if (op == OP_DECORATE && length == 4 && i[2] == DECORATION_SPEC_ID)
		r->ids[id].spec = i[3];
	if (op == OP_CONSTANT)
		r->ids[id].type = i[1];
	r->ids[id].is_true |= op == OP_CONSTANT_TRUE;
	r->ids[id].is_false |= op == OP_CONSTANT_FALSE;
	return true;
}

/* Uses, and layouts of memory, are constants of the type that the scope has. */
static bool put_type(rewriting *r, const uint32_t *i, uint32_t length) {
	if (length != 6 || i[3] >= r->in[3] || i[4] >= r->in[3] || i[5] >= r->in[3] || r->ids[i[3]].type == 0)
		return false;
	const uint32_t rows = r->ids[i[4]].spec, columns = r->ids[i[5]].spec;
	const uint32_t use = rows == SPEC_M && columns == SPEC_K ? 0 : rows == SPEC_K && columns == SPEC_N ? 1 : 2;
	if (use == 2 && (rows != SPEC_M || columns != SPEC_N))
		return false;
	for (uint32_t n = 0; r->numbers == 0 && n < 3; ++n) {
		put_op(r, OP_CONSTANT, 4);
		put(r, r->ids[i[3]].type);
		put(r, r->in[3] + n);
		put(r, n);
	}
	r->numbers = r->in[3];
	put_op(r, KHR_TYPE, 7);
	for (uint32_t n = 1; n < 6; ++n)
		put(r, i[n]);
	put(r, r->numbers + use);
	return true;
}

/* NV: ..., stride, whether by columns, memory operands; KHR: ..., 0 by rows or 1 by columns, stride, memory operands. */
static bool put_access(rewriting *r, const uint32_t *i, uint32_t length, uint32_t op, uint32_t first) {
	if (length < first + 2 || i[first + 1] >= r->in[3] || r->numbers == 0)
		return false;
	const id_info *const by_columns = &r->ids[i[first + 1]];
	if (by_columns->is_true == by_columns->is_false)
		return false;
	put_op(r, op, length);
	for (uint32_t n = 1; n < first; ++n)
		put(r, i[n]);
	put(r, r->numbers + by_columns->is_true);
	put(r, i[first]);
	for (uint32_t n = first + 2; n < length; ++n)
		put(r, i[n]);
	return true;
}

static void put_extension(rewriting *r) {
	uint32_t words[(sizeof khr_name + 3) / 4] = {0};

	memcpy(words, khr_name, sizeof khr_name);
	put_op(r, OP_EXTENSION, 1 + sizeof words / 4);
	for (size_t n = 0; n < sizeof words / 4; ++n)
		put(r, words[n]);
}

static bool put_instruction(rewriting *r, const uint32_t *i, uint32_t length) {
	switch (i[0] & 0xffff) {
	case NV_TYPE: return put_type(r, i, length);
	case NV_LOAD: return put_access(r, i, length, KHR_LOAD, 4);
	case NV_STORE: return put_access(r, i, length, KHR_STORE, 3);
	case NV_LENGTH: return false;
	}
	const bool named = (i[0] & 0xffff) == OP_EXTENSION && length * 4 >= 4 + sizeof nv_name &&
	                   memcmp(i + 1, nv_name, sizeof nv_name) == 0;
	if (named) {
		put_extension(r);
		return true;
	}
	const size_t at = r->out_count;
	for (uint32_t n = 0; n < length; ++n)
		put(r, i[n]);
	if ((i[0] & 0xffff) == NV_MUL_ADD)
		r->out[at] = length << 16 | KHR_MUL_ADD;
	if ((i[0] & 0xffff) == OP_CAPABILITY && length == 2 && i[1] == NV_CAPABILITY)
		r->out[at + 1] = KHR_CAPABILITY;
	return true;
}

static bool each(rewriting *r, bool (*see)(rewriting *, const uint32_t *, uint32_t)) {
	for (size_t at = HEADER; at < r->in_count;) {
		const uint32_t length = r->in[at] >> 16;

		if (length == 0 || at + length > r->in_count || !see(r, r->in + at, length))
			return false;
		at += length;
	}
	return true;
}

static bool rewrite(rewriting *r) {
	if (r->in_count <= HEADER || r->in_count == MAX_WORDS || r->in[0] != 0x07230203u || r->in[3] > MAX_WORDS)
		return false;
	r->ids = calloc(r->in[3] + 1, sizeof *r->ids);
	for (r->out_count = 0; r->out_count < HEADER;)
		put(r, r->in[r->out_count]);
	if (!r->ids || !each(r, learn) || !each(r, put_instruction) || r->numbers == 0)
		return false;
	r->out[3] += 3;
	return true;
}

int main(int argc, char **argv) {
	rewriting r = {.in = malloc(MAX_WORDS * 4), .out = malloc(MAX_WORDS * 16)}; /* a type grows most: 6 words to 19 */
	FILE *const from = argc == 3 ? fopen(argv[1], "rb") : NULL;
	int failed = 1;

	if (from && r.in && r.out) {
		r.in_count = fread(r.in, 4, MAX_WORDS, from);
		failed = !rewrite(&r);
	}
	if (from)
		fclose(from);
	FILE *const to = failed ? NULL : fopen(argv[2], "wb");
	if (to) {
		failed = fwrite(r.out, 4, r.out_count, to) != r.out_count;
		failed |= fclose(to) != 0;
	}
	free(r.in);
	free(r.out);
	free(r.ids);
	if (failed || !to) {
		fprintf(stderr, "coopmat: not SPIR-V with cooperative matrices as expected: %s\n", argc == 3 ? argv[1] : "usage");
		return 1;
	}
	return 0;
}
