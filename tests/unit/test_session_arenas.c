/* Tests programs whose activations lie in several arenas, as on a device that limits one buffer: compiled, run by
 * sessions and reported, with the results of one arena bit for bit. */
#include "../../backends/cpu/cpu.h"
#include "../../backends/null/null.h"
#include "../../backends/program.h"
#include "../tools/device_run.h"
#include "../tools/random_graph.h"
#include "../tools/report.h"
#include "../tools/small_model.h"
#include "../tools/suite.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOGITS = SMALL_TOKENS * SMALL_VOCAB, RUNS = 6, BRANCHES = 7, MOST_ARENAS = 16 };

static const knit_bucket buckets[] = {{"tokens", 1, 1}, {"tokens", 2, 4}, {"tokens", 5, SMALL_TOKENS}};
static knit_context *context;
static knit_weights *weights;
static knit_graph *graph;

/* Inputs and output as the small model has them; seven results that are all needed at once, in whatever order. Weights are
 * quantised, so that linears of the CPU ask for scratch. */
static void make_branches(void) {
	static const int64_t rows[2] = {SMALL_VOCAB, SMALL_DIM}, square[2] = {SMALL_DIM, SMALL_DIM};
	static double numbers[SMALL_DIM * SMALL_DIM];
	static char bytes[SMALL_DIM * 34]; /* q8_0: a row of 32 is a block of 34 */
	knit_tensor branch[BRANCHES], x, product, sum;

	for (int i = 0; i < SMALL_DIM * SMALL_DIM; ++i)
		numbers[i] = (double)(i * 29 % 83 - 41) / 128;
	knit__encode(KNIT_Q8_0, numbers, bytes, SMALL_VOCAB * SMALL_DIM);
	ck_assert_int_eq(knit_weights_create(context, &weights), KNIT_OK);
	ck_assert_int_eq(knit_weights_add(weights, "table", KNIT_Q8_0, 2, rows, bytes, SMALL_VOCAB * 34, NULL),
	                 KNIT_OK);
	for (char name[2] = "a"; name[0] < 'a' + BRANCHES; ++name[0]) {
		numbers[name[0] - 'a'] += 0.25;
		knit__encode(KNIT_Q8_0, numbers, bytes, SMALL_DIM * SMALL_DIM);
		ck_assert_int_eq(knit_weights_add(weights, name, KNIT_Q8_0, 2, square, bytes, sizeof bytes, NULL), KNIT_OK);
	}

	ck_assert_int_eq(knit_graph_create(context, &graph), KNIT_OK);
	const knit_dim tokens = knit_sym(graph, "tokens", 1, SMALL_TOKENS);
	const knit_tensor table = knit_weight(graph, weights, "table");
	x = knit_gather(graph, table, knit_input(graph, "ids", KNIT_I32, 1, &tokens));
	x = knit_add(graph, x, knit_gather(graph, table, knit_input(graph, "pos", KNIT_I32, 1, &tokens)));
	x = knit_add(graph, x, knit_gather(graph, table, knit_input(graph, "seq", KNIT_I32, 1, &tokens)));
	for (int i = 0; i < BRANCHES; ++i) {
		const char name[2] = {(char)('a' + i), 0};

		branch[i] = knit_softmax(graph, knit_linear(graph, x, knit_weight(graph, weights, "%s", name)));
		product = i ? knit_linear(graph, knit_mul(graph, product, branch[i]), knit_weight(graph, weights, "a")) : branch[0];
	}
	sum = product;
	for (int i = 0; i < BRANCHES; ++i)
		sum = knit_linear(graph, knit_mul(graph, sum, branch[i]), knit_weight(graph, weights, "b"));
	knit_output(graph, "logits", knit_linear(graph, sum, table));
	ck_assert_int_eq(knit_graph_status(graph, NULL), KNIT_OK);
}

static void begin(bool branches) {
	ck_assert_int_eq(knit_context_create(&(knit_context_desc){.cpu_threads = 2}, &context), KNIT_OK);
	if (branches) {
		make_branches();
		return;
	}
	ck_assert_int_eq(small_model_weights(context, &weights), KNIT_OK);
	ck_assert_int_eq(small_model_graph(context, weights, &graph), KNIT_OK);
}

static void end(void) {
	knit_graph_destroy(graph);
	knit_weights_release(weights);
	knit_context_destroy(context);
}

/* A program for a device whose kernels see at most `max_arena` bytes at once; NULL where a tensor is larger. */
static knit_program *compile(const char *id, uint64_t max_arena) {
	const knit_compile_desc desc = {.buckets = buckets, .bucket_count = 3};
	knit_opened *device;
	knit_program *p;
	knit_diag d = {0};

	ck_assert_int_eq(knit__device_open(context, id, &device, &d), KNIT_OK);
	const uint64_t kept = device->target.max_binding_range;
	device->target.max_binding_range = max_arena;
	const knit_status status = knit__compile_on(graph, &desc, device, &p, &d);
	device->target.max_binding_range = kept;
	ck_assert_msg(status == KNIT_OK || status == KNIT_ERR_LIMIT, "%s", d.text);
	return status == KNIT_OK ? p : NULL;
}

static uint32_t arenas_of(const knit_program *p) { return p->buckets[0].schedule->arena_count; }

/* A program of `wanted` arenas, by trying limits. */
static knit_program *compile_with(const char *id, uint32_t wanted) {
	knit_program *p = compile(id, 0);

	ck_assert_ptr_nonnull(p);
	for (uint64_t limit = p->memory.arena_bytes; p && arenas_of(p) != wanted; limit -= limit / 32 + 1) {
		knit_program_release(p);
		p = compile(id, limit);
	}
	ck_assert_msg(p != NULL, "%s: no limit gives %u arenas", id, wanted);
	return p;
}

/* Prompts and single tokens of two sequences; the logits of all runs one after the other. */
static void run(knit_session *s, float *logits) {
	static const int64_t counts[RUNS] = {SMALL_TOKENS, 1, 1, 3, 1, 4};
	int32_t next[2] = {0, 0};

	memset(logits, 0, (size_t)RUNS * LOGITS * sizeof *logits);
	for (int r = 0; r < RUNS; ++r) {
		const size_t n = (size_t)counts[r];
		int32_t ids[SMALL_TOKENS], seq[SMALL_TOKENS], pos[SMALL_TOKENS];

		for (size_t i = 0; i < n; ++i) {
			seq[i] = r % 2;
			pos[i] = next[r % 2]++;
			ids[i] = (int32_t)((size_t)r * 7 + i * 5) % SMALL_VOCAB;
		}
		ck_assert_int_eq(knit_session_set(s, "tokens", counts[r]), KNIT_OK);
		ck_assert_int_eq(knit_session_write(s, "ids", ids, n * sizeof *ids), KNIT_OK);
		ck_assert_int_eq(knit_session_write(s, "seq", seq, n * sizeof *seq), KNIT_OK);
		ck_assert_int_eq(knit_session_write(s, "pos", pos, n * sizeof *pos), KNIT_OK);
		ck_assert_int_eq(knit_session_run(s), KNIT_OK);
		ck_assert_int_eq(knit_session_read(s, "logits", logits + r * LOGITS, n * SMALL_VOCAB * sizeof *logits), KNIT_OK);
	}
}

/* Sizes agree wherever they are told: buffers, figures, report. */
static void check_figures(const knit_program *p) {
	knit_memory m;
	uint64_t bytes[MOST_ARENAS] = {0}, sum = 0, largest = 0;

	ck_assert_int_eq(knit_program_memory(p, &m), KNIT_OK);
	ck_assert_uint_le(arenas_of(p), MOST_ARENAS);
	for (uint32_t b = 0; b < p->bucket_count; ++b) {
		const knit_schedule *s = p->buckets[b].schedule;

		ck_assert_uint_eq(s->arena_count, arenas_of(p));
		ck_assert_uint_eq(s->buffer_count, p->buckets[0].schedule->buffer_count);
		ck_assert_uint_ge(s->plan.arena_bytes, s->plan.lower_bound);
		largest = s->plan.arena_bytes > largest ? s->plan.arena_bytes : largest;
		for (uint32_t i = 0; i < s->arena_count; ++i) {
			const knit_buffer_desc *d = &s->buffers[knit__schedule_arena(s, i)];

			ck_assert_int_eq(d->use, KNIT_BUFFER_ARENA);
			ck_assert_uint_le(d->bytes, s->max_arena ? s->max_arena : UINT64_MAX);
			bytes[i] = d->bytes > bytes[i] ? d->bytes : bytes[i];
		}
	}
	for (int i = 0; i < MOST_ARENAS; ++i)
		sum += bytes[i];
	ck_assert_uint_eq(m.arena_bytes, sum);
	ck_assert_uint_ge(m.arena_bytes, largest);
	ck_assert_uint_ge(m.arena_bytes, m.arena_lower_bound);
}

static void check_report(const knit_program *p) {
	const cJSON *bucket, *arena, *block;
	cJSON *const root = report_of(p, NULL);
	uint32_t most = 0, b = 0;
	cJSON_ArrayForEach(bucket, cJSON_GetObjectItem(root, "buckets")) {
		const cJSON *arenas = cJSON_GetObjectItem(bucket, "arenas");
		double sum = 0;
		uint32_t count = 0;

		cJSON_ArrayForEach(arena, arenas) {
			sum += cJSON_GetObjectItem(arena, "bytes")->valuedouble;
			++count;
		}
		most = count > most ? count : most;
		ck_assert_double_eq(sum, cJSON_GetObjectItem(cJSON_GetObjectItem(bucket, "about"), "arena_bytes")->valuedouble);
		const knit_schedule *const s = p->buckets[b++].schedule;
		cJSON_ArrayForEach(block, cJSON_GetObjectItem(bucket, "blocks")) {
			const uint32_t step = (uint32_t)cJSON_GetObjectItem(block, "first")->valuedouble;
			bool found = false;

			if (cJSON_GetObjectItem(block, "storage")->valuedouble == 0)
				ck_assert_double_eq(cJSON_GetObjectItem(block, "arena")->valuedouble, s->steps[step].scratch_buffer);
			cJSON_ArrayForEach(arena, arenas) {
				if (cJSON_GetObjectItem(arena, "id")->valuedouble != cJSON_GetObjectItem(block, "arena")->valuedouble)
					continue;
				found = true;
				ck_assert_double_le(cJSON_GetObjectItem(block, "offset")->valuedouble +
				                        cJSON_GetObjectItem(block, "bytes")->valuedouble,
				                    cJSON_GetObjectItem(arena, "bytes")->valuedouble);
			}
			ck_assert(found);
		}
	}
	ck_assert_uint_eq(most, arenas_of(p));
	cJSON_Delete(root);
}

static void compare_counts(const char *id, bool branches, bool bits) {
	static const uint32_t counts[] = {1, 2, 5};
	static float want[RUNS * LOGITS], got[RUNS * LOGITS];

	begin(branches);
	for (int i = 0; i < (branches ? 3 : 2); ++i) {
		knit_program *p = compile_with(id, counts[i]);
		knit_session *s;
		knit_diag d = {0};

		check_figures(p);
		check_report(p);
		ck_assert_msg(knit_session_create(p, &s, &d) == KNIT_OK, "%s", d.text);
		run(s, i == 0 ? want : got);
		if (i > 0 && bits)
			ck_assert_mem_eq(got, want, sizeof want);
		printf("%s, %s: %u arenas of at most %llu bytes, %llu in all\n", id,
		       branches ? "branches" : "small model", arenas_of(p),
		       (unsigned long long)p->buckets[0].schedule->max_arena, (unsigned long long)p->memory.arena_bytes);
		knit_session_destroy(s);
		knit_program_release(p);
	}
	for (int i = 0; bits && i < RUNS * LOGITS; ++i)
		if (want[i] != 0)
			bits = false;
	ck_assert(!bits); /* something was computed */
	end();
}

START_TEST(cpu_runs_alike_in_any_number_of_arenas) {
	compare_counts("cpu", false, true);
	compare_counts("cpu", true, true);
}
END_TEST

START_TEST(null_takes_any_number_of_arenas) {
	compare_counts("null", false, false);
	compare_counts("null", true, false);
}
END_TEST

/* A bucket of one token needs fewer arenas than one of many: its schedule gets empty ones. */
START_TEST(buckets_share_the_arenas_of_the_largest) {
	begin(true);
	knit_program *const p = compile_with("cpu", 5);
	const knit_schedule *one = p->buckets[0].schedule, *many = p->buckets[2].schedule;

	ck_assert_uint_lt(one->plan.arena_count, many->plan.arena_count);
	ck_assert_uint_eq(one->arena_count, many->arena_count);
	ck_assert_uint_eq(one->buffers[one->buffer_count - 1].bytes, 0);
	knit_program_release(p);
	end();
}
END_TEST

/* Whatever the limit: the report says where every tensor and all scratch lies. */
START_TEST(reports_of_all_limits) {
	knit_program *p;
	uint32_t elsewhere = 0, programs = 0;

	begin(true);
	for (uint64_t limit = 8192; (p = compile("cpu", limit)) != NULL; limit -= 192) {
		const knit_schedule *s = p->buckets[2].schedule;

		check_figures(p);
		check_report(p);
		for (uint32_t i = 0; i < s->step_count; ++i)
			elsewhere += s->steps[i].scratch_bytes != 0 && s->steps[i].scratch_buffer != s->arena_buffer;
		++programs;
		knit_program_release(p);
	}
	printf("%u limits: %u steps with scratch outside arena 0\n", programs, elsewhere);
	ck_assert_uint_gt(elsewhere, 0);
	end();
}
END_TEST

START_TEST(tensor_above_the_limit_is_named) {
	const knit_compile_desc desc = {.buckets = buckets, .bucket_count = 3};
	knit_opened *device;
	knit_program *p;
	knit_diag d = {0};

	begin(false);
	ck_assert_int_eq(knit__device_open(context, "cpu", &device, &d), KNIT_OK);
	device->target.max_binding_range = 512;
	ck_assert_int_eq(knit__compile_on(graph, &desc, device, &p, &d), KNIT_ERR_LIMIT);
	ck_assert_msg(strstr(d.text, "must lie in one buffer") && strstr(d.text, "at most 512"), "%s", d.text);
	ck_assert_ptr_null(p);
	end();
}
END_TEST

/* ---- straight on the backend, between guard bands ------------------------------------------------------------------- */

/* Fills every input and gives all outputs, one after the other; the count of them. */
static size_t run_guarded(device_run *r, const knit_graph *g, double *out, size_t cap) {
	double data[4096] = {0};
	knit_diag d = {0};
	size_t total = 0;

	for (uint32_t i = 0; i < g->input_count; ++i) {
		const knit_value *v = &g->values[g->inputs[i].value];
		size_t n = 1;

		for (int k = 0; k < v->rank; ++k)
			n *= (size_t)knit__dim_lo(&g->exprs, NULL, v->dims[k]);
		ck_assert_uint_le(n, 4096);
		for (size_t k = 0; k < n; ++k)
			data[k] = v->dtype == KNIT_I32 ? 0 : (double)((k * 37 + i) % 19) / 8 - 1;
		ck_assert_int_eq(device_run_write(r, knit__strings_get(&g->strings, g->inputs[i].name), data, n), KNIT_OK);
	}
	ck_assert_msg(device_run_go(r, &d) == KNIT_OK, "%s", d.text);
	for (uint32_t i = 0; i < g->output_count; ++i) {
		size_t n = 0;
		const double *values = device_run_output(r, knit__strings_get(&g->strings, g->outputs[i].name), &n);

		ck_assert_ptr_nonnull(values);
		ck_assert_uint_le(total + n, cap);
		memcpy(out + total, values, n * sizeof *values);
		total += n;
	}
	return total;
}

START_TEST(nothing_is_written_past_an_arena) {
	enum { MOST = 1 << 16 };
	knit_device *dev = NULL;
	knit_diag d = {0};
	uint32_t several = 0;
	double *want = calloc(MOST, sizeof *want), *got = calloc(MOST, sizeof *got);

	begin(false);
	ck_assert_int_eq(knit__cpu_backend.open(0, &context->desc, &dev, &d), KNIT_OK);
	for (uint32_t seed = 1; seed <= 30; ++seed) {
		knit_graph *g;
		device_run *r;

		ck_assert_int_eq(random_graph(context, seed, 20, &g, &d), KNIT_OK);
		ck_assert_msg(device_run_create(g, &knit__cpu_backend, dev, NULL, &r, &d) == KNIT_OK, "%s", d.text);
		const size_t count = run_guarded(r, g, want, MOST);
		uint64_t limit = device_run_schedule(r)->plan.arena_bytes;
		device_run_destroy(r);

		for (limit = limit / 2 + 64;; limit += limit / 4) {
			d = (knit_diag){0};
			const knit_status status = device_run_create_limited(g, &knit__cpu_backend, dev, NULL, limit, &r, &d);
			if (status == KNIT_OK)
				break;
			ck_assert_msg(status == KNIT_ERR_LIMIT, "%s", d.text);
		}
		several += device_run_schedule(r)->arena_count > 1;
		ck_assert_uint_eq(run_guarded(r, g, got, MOST), count);
		ck_assert_msg(memcmp(want, got, count * sizeof *got) == 0, "seed %u: other bits", seed);
		device_run_destroy(r);
		knit_graph_destroy(g);
	}
	printf("30 random graphs between guard bands, %u in several arenas\n", several);
	ck_assert_uint_ge(several, 10);
	knit__cpu_backend.close(dev);
	free(want);
	free(got);
	end();
}
END_TEST

int main(void) {
	const TTest *const tests[] = {cpu_runs_alike_in_any_number_of_arenas, null_takes_any_number_of_arenas,
	                              buckets_share_the_arenas_of_the_largest, reports_of_all_limits, tensor_above_the_limit_is_named,
	                              nothing_is_written_past_an_arena};

	return suite_run("session_arenas", tests, sizeof tests / sizeof *tests);
}
