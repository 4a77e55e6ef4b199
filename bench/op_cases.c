/* The ops of a decoder at the sizes of a model's shape. */
#include "ops.h"

#include <inttypes.h>
#include <string.h>

static const char *const names[BENCH_OP_KINDS] = {"linear", "attention", "rms_norm", "rope", "silu", "mul", "gather", "argmax"};

const char *bench_op_name(bench_op_kind kind) { return names[kind]; }

bench_op_kind bench_op_find(const char *name) {
	for (int i = 0; i < BENCH_OP_KINDS; ++i)
		if (strcmp(names[i], name) == 0)
			return (bench_op_kind)i;
	return BENCH_OP_KINDS;
}

void bench_op_text(const bench_op_case *c, char out[80]) {
	const char *const type = c->type ? knit_dtype_name(c->type) : "f32", *const s = c->tokens == 1 ? "" : "s";

	switch (c->kind) {
	case BENCH_OP_ATTENTION:
		snprintf(out, 80, "%s, %" PRId64 "/%" PRId64 " heads of %" PRId64 ", %" PRId64 " token%s @ %" PRId64, type, c->heads, c->kv_heads,
		         c->head_dim, c->tokens, s, c->depth);
		return;
	case BENCH_OP_LINEAR:
	case BENCH_OP_GATHER:
		snprintf(out, 80, "%s, %" PRId64 " x %" PRId64 ", %" PRId64 " token%s", type, c->rows, c->columns, c->tokens, s);
		return;
	case BENCH_OP_ROPE:
		snprintf(out, 80, "%s, %" PRId64 " heads of %" PRId64 ", %" PRId64 " token%s", type, c->rows, c->columns, c->tokens, s);
		return;
	default: snprintf(out, 80, "%s, %" PRId64 ", %" PRId64 " token%s", type, c->columns, c->tokens, s);
	}
}

size_t bench_op_cases(const bench_shape *s, const char *name, knit_dtype type, int64_t tokens, bench_op_case *out, size_t cap) {
	enum { DEPTH = 4096 };
	const int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
	const bool one = tokens == 1;
	const struct { const char *where; bench_op_case c; bool wanted; } all[] = {
		{"attn_q", {BENCH_OP_LINEAR, type, tokens, q, s->dim}, true},
		{"attn_k", {BENCH_OP_LINEAR, type, tokens, kv, s->dim}, kv != q},
		{"ffn_up", {BENCH_OP_LINEAR, type, tokens, s->ffn, s->dim}, true},
		{"ffn_down", {BENCH_OP_LINEAR, type, tokens, s->dim, s->ffn}, true},
		{"head", {BENCH_OP_LINEAR, type, 1, s->vocab, s->dim}, one},
		{"token_embd", {BENCH_OP_GATHER, type, tokens, s->vocab, s->dim}, true},
		{"attention", {BENCH_OP_ATTENTION, KNIT_F16, tokens, 0, 0, s->heads, s->kv_heads, s->head_dim, one ? DEPTH : 0}, true},
		{"norm", {BENCH_OP_RMS_NORM, 0, tokens, 0, s->dim}, true},
		{"attn_q", {BENCH_OP_ROPE, 0, tokens, s->heads, s->head_dim}, true},
		{"ffn", {BENCH_OP_SILU, 0, tokens, 0, s->ffn}, true},
		{"ffn", {BENCH_OP_MUL, 0, tokens, 0, s->ffn}, true},
		{"head", {BENCH_OP_ARGMAX, 0, 1, 0, s->vocab}, one},
	};
	size_t n = 0;

	for (size_t i = 0; i < sizeof all / sizeof *all && n < cap; ++i) {
		if (!all[i].wanted)
			continue;
		out[n] = all[i].c;
		snprintf(out[n].where, sizeof out[n].where, "%.20s %s", name, all[i].where);
		++n;
	}
	return n;
}
