/* `knit bench ops`: every kind of op runs at a model's shapes, costs are those of one step however many copies there are,
 * and two devices of one kind agree. No time is asked to be anything but positive. */
#include "../../bench/ops.h"
#include "../tools/command.h"
#include "../tools/suite.h"

#include <cjson/cJSON.h>

#include <stdio.h>

static const char knit[] = KNIT_BINARY_DIR "/knit";

#define RUN(result, ...) command_run((const char *const[]){knit, "bench", "ops", __VA_ARGS__, NULL}, NULL, result)

static void check_row(const bench_op_row *r) {
	const bench_op_case *const c = &r->c;
	const double flops = r->row.cost.flops, bytes = r->row.cost.all_bytes, tokens = (double)c->tokens;
	char text[80];

	bench_op_text(c, text);
	ck_assert_msg(!r->unsupported && r->row.count == 3 && r->row.rate.median > 0, "%s %s", bench_op_name(c->kind), text);
	if (c->kind == BENCH_OP_LINEAR) {
		ck_assert_double_eq_tol(flops, 2 * tokens * (double)(c->rows * c->columns), 1);
		ck_assert(r->row.cost.int8 == (c->type == KNIT_Q8_0));
	} else if (c->kind == BENCH_OP_ATTENTION) {
		/* Products of q and k, and of weights and v, for each position that is seen. */
		const double seen = (double)c->depth + (tokens + 1) / 2;
		ck_assert(flops >= 4 * tokens * (double)(c->heads * c->head_dim) * (seen - 1));
		ck_assert(flops <= 8 * tokens * (double)(c->heads * c->head_dim) * (seen + 1) + 1e5);
	} else {
		ck_assert(flops >= 0 && bytes >= 4 * tokens);
	}
	/* Attention comes with two appends. */
	ck_assert_msg(r->row.cost.steps == (c->kind == BENCH_OP_ATTENTION ? 3 : 1), "%s has %g steps", text, r->row.cost.steps);
}

START_TEST(every_op_runs) {
	static const knit_dtype types[] = {KNIT_Q8_0, KNIT_F16};
	bench_subject devices[2] = {{.device = "cpu", .name = "cpu", .on_host = true}, {.device = "cpu", .name = "again", .on_host = true}};
	const bench_ops_desc desc = {.devices = devices, .device_count = 2, .threads = 2, .runs = 3, .seconds = 1, .copies_bytes = 20000};
	bool seen[BENCH_OP_KINDS] = {0};
	bench_shape shape;
	knit_diag d = {0};

	ck_assert_int_eq(bench_shape_parse("llama:dim=64,layers=1,heads=4,kv_heads=2,ff=96,vocab=128", &shape, &d), KNIT_OK);
	for (size_t t = 0; t < 4; ++t) {
		bench_op_case cases[16];
		const size_t count = bench_op_cases(&shape, "small", types[t % 2], t < 2 ? 1 : 5, cases, 16);
		ck_assert_uint_ge(count, 8);
		for (size_t i = 0; i < count; ++i) {
			bench_op_row rows[2];
			cases[i].depth = cases[i].depth ? 40 : 0;
			ck_assert_msg(bench_op_measure(&desc, &cases[i], rows, &d) == KNIT_OK, "%s: %s", bench_op_name(cases[i].kind), d.text);
			check_row(&rows[0]);
			check_row(&rows[1]);
			ck_assert(rows[0].copies >= 1 && rows[0].copies <= 64);
			ck_assert(rows[0].nmse < 0 && (cases[i].kind == BENCH_OP_ARGMAX || rows[1].nmse == 0));
			ck_assert(rows[0].row.ratio.count == 0 && rows[1].row.ratio.count == 3);
			seen[cases[i].kind] = true;
		}
	}
	for (int i = 0; i < BENCH_OP_KINDS; ++i)
		ck_assert_msg(seen[i] && bench_op_find(bench_op_name((bench_op_kind)i)) == (bench_op_kind)i, "%s", bench_op_name((bench_op_kind)i));
	ck_assert_int_eq(bench_op_find("convolution"), BENCH_OP_KINDS);
}
END_TEST

/* A device that computes nothing has other results, and is seen to. */
START_TEST(other_results_are_seen) {
	bench_subject devices[2] = {{.device = "cpu", .name = "cpu", .on_host = true}, {.device = "null", .name = "null"}};
	const bench_ops_desc desc = {.devices = devices, .device_count = 2, .threads = 1, .runs = 3, .seconds = 1};
	const bench_op_case c = {BENCH_OP_LINEAR, KNIT_Q4_0, 2, 64, 32, .where = "given"};
	bench_op_row rows[2];
	knit_diag d = {0};

	ck_assert_msg(bench_op_measure(&desc, &c, rows, &d) == KNIT_OK, "%s", d.text);
	ck_assert(rows[1].nmse > BENCH_NMSE_WRONG);
}
END_TEST

START_TEST(the_command) {
	static const struct { const char *option, *value, *says; } wrong[] = {
		{"--op", "convolution", "none of linear"},
		{"--type", "i32", "no type of matrices"},
		{"--shape", "900b", "is no shape"},
		{"--rows", "64", "go together"},
		{"--tokens", "0", "at least 1"},
		{"--runs", "x", "no value"},
		{"--nothing", "1", "--nothing"},
	};
	command_result r;
	unsigned lines = 0;

	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; ++i) {
		RUN(&r, wrong[i].option, wrong[i].value);
		command_check_error(&r, 2, wrong[i].says);
	}
	RUN(&r, "--op", "linear", "--type", "q8_0,f16", "--rows", "96", "--columns", "64", "--tokens", "1,3", "--threads", "1", "-r", "3",
	    "--no-peaks", "--cached", "--compare", "cpu,null", "--json");
	ck_assert_msg(r.code == 0, "%s", r.err);
	for (char *save = NULL, *line = strtok_r(r.out, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		cJSON *const o = cJSON_Parse(line);
		ck_assert(cJSON_IsObject(o));
		ck_assert_str_eq(cJSON_GetObjectItem(o, "schema")->valuestring, "knit.ops/1");
		ck_assert_str_eq(cJSON_GetObjectItem(o, "device")->valuestring, lines % 2 ? "null" : "cpu");
		ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(o, "seconds")), 3);
		ck_assert(cJSON_GetObjectItem(o, "flops")->valuedouble >= 2 * 96 * 64 && cJSON_GetObjectItem(o, "bytes")->valuedouble > 0);
		cJSON_Delete(o);
		++lines;
	}
	ck_assert_uint_eq(lines, 8);
	command_clear(&r);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {every_op_runs, other_results_are_seen, the_command};

	return suite_run("bench_ops", tests, (int)(sizeof tests / sizeof tests[0]));
}
