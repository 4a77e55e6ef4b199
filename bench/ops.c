/* Single ops, measured: a program of copies of one step, each with operands of its own, so that what a cache keeps from
 * one run to the next is not taken for what memory gives. */
#include "ops.h"
#include "clock.h"

#include "../backends/report.h"
#include "../backends/session_impl.h"
#include "../graph/dtype.h"
#include "../ops/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COPIES = 64, STOCK = 1 << 16, MAX_DEVICES = 8, FILL_TOKENS = 512 };

typedef struct op_run {
	knit_context *ctx;
	knit_weights *store;
	knit_program *program;
	knit_session *session;
} op_run;

/* In [-1, 1), the same for the same number. */
static float value_of(uint64_t i) {
	i = (i ^ (i >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	i = (i ^ (i >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (float)((double)(i >> 40) / (double)(1 << 23) - 1);
}

/* ---- the graph --------------------------------------------------------------------------------------------------- */

static bool has_matrix(bench_op_kind kind) { return kind == BENCH_OP_LINEAR || kind == BENCH_OP_GATHER; }

/* Bytes that one copy has of its own. */
static uint64_t own_bytes(const bench_op_case *c) {
	uint64_t bytes = 0;

	if (has_matrix(c->kind))
		knit__dtype_bytes(c->type, (uint64_t)(c->rows * c->columns), &bytes);
	else if (c->kind == BENCH_OP_ATTENTION)
		knit__dtype_bytes(c->type, (uint64_t)((c->depth + c->tokens) * c->kv_heads * c->head_dim * 2), &bytes);
	else
		bytes = (uint64_t)(c->tokens * (c->rows ? c->rows : 1) * c->columns) * 4;
	return bytes;
}

/* Matrices that differ, so that they are not found to be one. */
static knit_status add_matrices(knit_weights *store, const bench_op_case *c, uint32_t copies, knit_diag *diag) {
	const uint64_t elements = (uint64_t)(c->rows * c->columns);
	uint64_t bytes = 0, stock_bytes = 0;
	knit_status status = KNIT_OK;

	if (!knit__dtype_bytes(c->type, elements, &bytes) || !knit__dtype_bytes(c->type, STOCK, &stock_bytes))
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "a matrix of that size cannot be %s", knit_dtype_name(c->type));
	float *const values = calloc(STOCK, sizeof *values);
	uint8_t *const stock = malloc(stock_bytes), *const data = malloc(bytes);
	if (!values || !stock || !data)
		status = knit__fail_memory(diag, "a matrix", bytes);
	for (uint64_t i = 0; status == KNIT_OK && i < STOCK; ++i)
		values[i] = 0.05f * value_of(i);
	if (status == KNIT_OK)
		knit__row_from_f32(c->type, values, stock, STOCK);
	for (uint32_t k = 0; k < copies && status == KNIT_OK; ++k) {
		const uint64_t shift = stock_bytes / 256 * k; /* whole blocks of every type */
		char name[16];
		for (uint64_t at = 0; at < bytes;) {
			const uint64_t from = (at + shift) % stock_bytes, room = stock_bytes - from, n = room < bytes - at ? room : bytes - at;
			memcpy(data + at, stock + from, n);
			at += n;
		}
		snprintf(name, sizeof name, "w%u", k);
		status = knit_weights_add(store, name, c->type, 2, (int64_t[]){c->rows, c->columns}, data, bytes, diag);
	}
	free(values);
	free(stock);
	free(data);
	return status;
}

static knit_tensor input(knit_graph *g, const char *kind, uint32_t copy, knit_dtype type, int rank, const knit_dim *dims) {
	char name[16];

	snprintf(name, sizeof name, "%s%u", kind, copy);
	return knit_input(g, name, type, rank, dims);
}

/* Its own q, k and v; sequence and positions are those of all copies. */
static knit_tensor attention(knit_graph *g, const bench_op_case *c, uint32_t copy, knit_dim tokens, knit_tensor seq, knit_tensor pos) {
	const knit_kv_desc desc = {.positions = c->depth + c->tokens, .kv_heads = c->kv_heads, .head_dim = c->head_dim, .k = c->type, .v = c->type};
	const knit_kv_slot slot = knit_kv_slot_define(g, &desc, "%u", copy);
	const knit_tensor q = input(g, "q", copy, KNIT_F32, 3, (knit_dim[]){tokens, {c->heads}, {c->head_dim}});
	const knit_tensor k = input(g, "k", copy, KNIT_F32, 3, (knit_dim[]){tokens, {c->kv_heads}, {c->head_dim}});

	knit_kv_slot_append(g, &slot, k, k, seq, pos);
	return knit_kv_slot_attend(g, &slot, q, seq, pos, 0);
}

static knit_tensor build_one(knit_graph *g, knit_weights *store, const bench_op_case *c, uint32_t copy, knit_dim tokens, knit_tensor seq,
                             knit_tensor pos) {
	const knit_dim flat[] = {tokens, {c->columns}};

	switch (c->kind) {
	case BENCH_OP_LINEAR: return knit_linear(g, input(g, "x", copy, KNIT_F32, 2, flat), knit_weight(g, store, "w%u", copy));
	case BENCH_OP_GATHER: return knit_gather(g, knit_weight(g, store, "w%u", copy), pos);
	case BENCH_OP_ATTENTION: return attention(g, c, copy, tokens, seq, pos);
	case BENCH_OP_RMS_NORM:
		return knit_rms_norm(g, input(g, "x", copy, KNIT_F32, 2, flat), input(g, "g", copy, KNIT_F32, 1, (knit_dim[]){{c->columns}}), 1e-5f);
	case BENCH_OP_ROPE:
		return knit_rope(g, input(g, "x", copy, KNIT_F32, 3, (knit_dim[]){tokens, {c->rows}, {c->columns}}), pos, NULL);
	case BENCH_OP_SILU: return knit_silu(g, input(g, "x", copy, KNIT_F32, 2, flat));
	case BENCH_OP_MUL: return knit_mul(g, input(g, "x", copy, KNIT_F32, 2, flat), input(g, "z", copy, KNIT_F32, 2, flat));
	default: return knit_argmax(g, input(g, "x", copy, KNIT_F32, 2, flat));
	}
}

static knit_status build(op_run *r, const bench_op_case *c, uint32_t copies, const char *device, knit_diag *diag) {
	const bool fills = c->kind == BENCH_OP_ATTENTION && c->depth > 0; /* in larger steps, before it is measured */
	const int64_t most = fills ? FILL_TOKENS : c->tokens;
	const knit_bucket buckets[] = {{"tokens", c->tokens, c->tokens}, {"tokens", c->tokens + 1, most}};
	const knit_compile_desc desc = {.device = device, .buckets = buckets, .bucket_count = most > c->tokens ? 2 : 1,
	                                .disable_passes = "merge_siblings"};
	knit_tensor seq = {0}, pos = {0};
	knit_graph *g;
	knit_status status = knit_graph_create(r->ctx, &g);

	if (status != KNIT_OK)
		return status;
	const knit_dim tokens = knit_sym(g, "tokens", c->tokens, most);
	if (c->kind == BENCH_OP_ATTENTION)
		seq = knit_input(g, "seq", KNIT_I32, 1, &tokens);
	if (c->kind == BENCH_OP_ATTENTION || c->kind == BENCH_OP_ROPE || c->kind == BENCH_OP_GATHER)
		pos = knit_input(g, "pos", KNIT_I32, 1, &tokens);
	for (uint32_t i = 0; i < copies; ++i) {
		char name[16];
		snprintf(name, sizeof name, "y%u", i);
		knit_output(g, name, build_one(g, r->store, c, i, tokens, seq, pos));
	}
	status = knit_compile(g, &desc, &r->program, diag);
	knit_graph_destroy(g);
	return status == KNIT_OK ? knit_session_create(r->program, &r->session, diag) : status;
}

/* ---- feeding ----------------------------------------------------------------------------------------------------- */

static knit_status write_all(op_run *r, const bench_op_case *c, int64_t tokens, int64_t at) {
	const knit_schedule *const s = r->program->buckets[0].schedule;
	int64_t symbols[KNIT_MAX_SYMBOLS];
	knit_status status = knit_session_set(r->session, "tokens", tokens);

	memcpy(symbols, s->bounds.lo, sizeof symbols);
	symbols[r->program->bucket_symbol == KNIT_NO_SYMBOL ? 0 : r->program->bucket_symbol] = tokens;
	for (uint32_t i = 0; i < r->program->graph->input_count && status == KNIT_OK; ++i) {
		const knit_value *const v = &r->program->graph->values[r->session->inputs[i].value];
		const char *const name = r->session->inputs[i].name;
		size_t n = 1;
		for (uint32_t k = 0; k < v->rank; ++k)
			n *= (size_t)knit__dim_eval(&r->program->graph->exprs, symbols, v->dims[k]);
		float *const data = malloc(n * 4 + 4);
		if (!data)
			return KNIT_ERR_MEMORY;
		for (size_t k = 0; k < n; ++k) {
			const int32_t whole = strcmp(name, "pos") != 0 ? 0 : c->kind == BENCH_OP_GATHER ? (int32_t)((k * 977 + 13) % (size_t)c->rows) : (int32_t)(at + (int64_t)k);
			const float x = value_of(k + i * 1000003);
			memcpy(data + k, v->dtype == KNIT_I32 ? (const void *)&whole : (const void *)&x, 4);
		}
		status = knit_session_write(r->session, name, data, n * 4);
		free(data);
	}
	return status;
}

/* Everything that is there before the first run that counts. */
static knit_status feed(op_run *r, const bench_op_case *c) {
	knit_status status = KNIT_OK;

	for (int64_t at = 0; c->kind == BENCH_OP_ATTENTION && at < c->depth && status == KNIT_OK;) {
		const int64_t n = c->depth - at < FILL_TOKENS ? c->depth - at : FILL_TOKENS;
		status = write_all(r, c, n, at);
		if (status == KNIT_OK)
			status = knit_session_run(r->session);
		at += n;
	}
	return status == KNIT_OK ? write_all(r, c, c->tokens, c->depth) : status;
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

static void op_close(op_run *r) {
	knit_session_destroy(r->session);
	knit_program_release(r->program);
	knit_weights_release(r->store);
	knit_context_destroy(r->ctx);
	*r = (op_run){0};
}

static knit_status op_open(op_run *r, const bench_ops_desc *desc, const bench_op_case *c, uint32_t copies, const char *device,
                           knit_diag *diag) {
	const knit_context_desc host = {.cpu_threads = desc->threads};
	knit_status status = knit_context_create(&host, &r->ctx);

	if (status == KNIT_OK)
		status = knit_weights_create(r->ctx, &r->store);
	if (status == KNIT_OK && has_matrix(c->kind))
		status = add_matrices(r->store, c, copies, diag);
	if (status == KNIT_OK)
		status = build(r, c, copies, device, diag);
	if (status == KNIT_OK)
		status = feed(r, c);
	if (status == KNIT_OK)
		status = knit_session_run(r->session); /* warm */
	if (r->session && status != KNIT_OK && diag->text[0] == '\0')
		knit_session_diag(r->session, diag);
	return status;
}

/* Of one copy. */
static void cost_of(const op_run *r, const bench_op_case *c, uint32_t copies, bench_cost *out) {
	const knit_schedule *const s = r->program->buckets[0].schedule;
	int64_t symbols[KNIT_MAX_SYMBOLS];

	*out = (bench_cost){0};
	memcpy(symbols, s->bounds.lo, sizeof symbols);
	for (uint32_t i = 0; i < s->step_count; ++i) {
		knit_step_cost cost;
		knit__step_cost(s, symbols, c->depth + (c->tokens + 1) / 2, &s->steps[i], &cost);
		out->flops += cost.flops / copies;
		out->weight_bytes += (double)(cost.read + cost.write) / copies;
	}
	out->all_bytes = out->weight_bytes;
	out->steps = (double)s->step_count / copies;
	out->int8 = c->kind == BENCH_OP_LINEAR && knit__dtype_info(c->type)->is_block;
}

/* The first copy's results; NULL: they cannot be had. Freed by the caller. */
static float *results(const op_run *r, const bench_op_case *c, size_t *count) {
	const int64_t wide = c->kind == BENCH_OP_LINEAR ? c->rows : c->kind == BENCH_OP_ATTENTION ? c->heads * c->head_dim
	                     : c->kind == BENCH_OP_ROPE ? c->rows * c->columns : c->columns;

	*count = (size_t)(c->tokens * wide);
	float *const y = c->kind == BENCH_OP_ARGMAX ? NULL : malloc(*count * sizeof *y);
	if (y && knit_session_read(r->session, "y0", y, *count * sizeof *y) == KNIT_OK)
		return y;
	free(y);
	return NULL;
}

static double nmse(const op_run *r, const op_run *first, const bench_op_case *c) {
	size_t count = 0;
	float *const got = results(r, c, &count), *const wanted = results(first, c, &count);
	double off = 0, all = 0;

	for (size_t i = 0; got && wanted && i < count; ++i) {
		off += ((double)got[i] - wanted[i]) * ((double)got[i] - wanted[i]);
		all += (double)wanted[i] * wanted[i];
	}
	const double answer = !got || !wanted ? -1 : all > 0 ? off / all : off;
	free(got);
	free(wanted);
	return answer;
}

static knit_status measure(const bench_ops_desc *desc, op_run *runs, bench_op_row *rows, knit_diag *diag) {
	const double begin = bench_now();

	for (int64_t round = 0; round < desc->runs; ++round) {
		if (round >= 3 && bench_now() - begin > desc->seconds * (double)desc->device_count)
			break;
		for (size_t i = 0; i < desc->device_count; ++i) {
			const size_t at = round % 2 ? desc->device_count - 1 - i : i;
			if (rows[at].unsupported)
				continue;
			const double start = bench_now();
			const knit_status status = knit_session_run(runs[at].session);
			if (status != KNIT_OK) {
				knit_session_diag(runs[at].session, diag);
				return status;
			}
			rows[at].row.seconds[rows[at].row.count++] = (bench_now() - start) / rows[at].copies;
		}
	}
	return KNIT_OK;
}

static void finish(bench_op_row *row, const bench_op_row *first) {
	double rates[BENCH_MAX_SAMPLES], firsts[BENCH_MAX_SAMPLES];

	for (size_t i = 0; i < row->row.count; ++i)
		rates[i] = 1 / row->row.seconds[i];
	for (size_t i = 0; i < first->row.count; ++i)
		firsts[i] = 1 / first->row.seconds[i];
	bench_stats_of(rates, row->row.count, 1, &row->row.rate);
	if (row != first)
		bench_ratio_of(rates, row->row.count, firsts, first->row.count, 1, &row->row.ratio);
}

knit_status bench_op_measure(const bench_ops_desc *desc, const bench_op_case *c, bench_op_row *rows, knit_diag *diag) {
	const uint64_t own = own_bytes(c), wanted = own ? desc->copies_bytes / own + 1 : 1;
	const uint32_t copies = wanted < MAX_COPIES ? (uint32_t)wanted : MAX_COPIES;
	op_run runs[MAX_DEVICES] = {0};
	knit_status status = KNIT_OK;

	if (desc->device_count > MAX_DEVICES)
		return knit__fail(diag, KNIT_ERR_LIMIT, 0, "at most %d devices", MAX_DEVICES);
	for (size_t i = 0; i < desc->device_count && status == KNIT_OK; ++i) {
		rows[i] = (bench_op_row){.c = *c, .row.subject = &desc->devices[i], .copies = copies, .nmse = -1};
		*diag = (knit_diag){0};
		status = op_open(&runs[i], desc, c, copies, desc->devices[i].device, diag);
		rows[i].unsupported = status == KNIT_ERR_UNSUPPORTED;
		if (rows[i].unsupported)
			status = KNIT_OK;
		else if (status == KNIT_OK)
			cost_of(&runs[i], c, copies, &rows[i].row.cost);
	}
	if (status == KNIT_OK)
		status = measure(desc, runs, rows, diag);
	for (size_t i = 0; i < desc->device_count && status == KNIT_OK; ++i) {
		finish(&rows[i], &rows[0]);
		if (i > 0 && !rows[i].unsupported && !rows[0].unsupported)
			rows[i].nmse = nmse(&runs[i], &runs[0], c);
	}
	for (size_t i = 0; i < desc->device_count; ++i)
		op_close(&runs[i]);
	return status;
}
