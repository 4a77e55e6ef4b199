/* knit bench: how fast a model runs, on what a number is worth, beside the machine's own limits. */
#include "../frontends/cli/cli.h"
#include "peer.h"
#include "random_model.h"
#include "rows.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { OPT_SHAPE = CLI_OPT_OWN, OPT_KEEP, OPT_PEER, OPT_BATCH, OPT_SECONDS, OPT_NO_PEAKS, OPT_MD, OPT_CSV, OPT_OUT, OPT_COMPARE };
enum { MAX_LIST = 16, MAX_SUBJECTS = 8, MAX_TESTS = 64, DEFAULT_RUNS = 10, MAX_WARM_UP = 6, STEADY_WINDOW = 4 };
#define STEADY 0.03

static const char help[] =
	"knit bench MODEL | --shape SHAPE: tokens per second of prefill and decode, with what the numbers are worth: alternating\n"
	"runs, medians with 95 %% intervals, beside the bytes per second that this machine can read.\n\n"
	"  knit bench story.gguf                            prefill of 512 tokens, decode of 128, on the best device\n"
	"  knit bench --shape 1.1b,type=q4_0 -d 0,4096      a made-up model, at two depths of context\n"
	"  knit bench story.gguf --device cpu,vulkan        two devices, the second's ratio to the first\n"
	"  knit bench --shape 1.1b,type=q8_0 --peer llama-bench=/opt/llama.cpp/build/bin/llama-bench\n\n"
	"shapes (random weights; see below for keys):\n%s"
	"  or llama:dim=2048,layers=22,heads=32,kv_heads=4,ff=5632,vocab=32000,type=q4_0,visits=3,lora=16\n"
	"  keys after a name change it: 1.1b,type=f16; 125m,layers=10,visits=3; also head_dim, context, embedding, tied, seed\n\n"
	"      --shape SHAPE     a model with random weights instead of a file\n"
	"      --keep FILE       keep that model, so that other programs can run it\n"
	"  -p, --prompt LIST     tokens of prefill (512); 0: none\n"
	"  -n, --make LIST       tokens of decode (128); 0: none\n"
	"  -d, --depth LIST      tokens that are there before (0)\n"
	"  -r, --runs N          runs of each test (10)\n"
	"      --seconds S       stop a test earlier, after so many seconds (60), with at least 3 runs\n"
	"      --batch N         tokens of one prefill step (512)\n"
	"      --device LIST     devices to compare: see knit devices (the best one)\n"
	"      --threads N       of the CPU and of peers (one per core)\n"
	"      --kv TYPE         of keys and values: f16, f32, q8_0 ... (f16)\n"
	"      --visits LIST, --loops N, --adapter none   as in knit run\n"
	"      --peer NAME=PATH  another program's bench on the same file, alternating; NAME: llama-bench. May be given again;\n"
	"                        words after the path are its arguments: --peer \"llama-bench=/opt/llama-bench -ngl 99\"\n"
	"      --no-peaks        do not measure what the machine can do\n"
	"      --json, --markdown, --csv   instead of the table\n"
	"  -o, --output FILE     write it there; the file appears when it is complete\n";

typedef struct bench_options {
	cli_common common;
	const char *shape, *keep, *output;
	const char *devices[MAX_SUBJECTS], *peers[MAX_SUBJECTS];
	size_t device_count, peer_count;
	int64_t prompts[MAX_LIST], makes[MAX_LIST], depths[MAX_LIST];
	size_t prompt_count, make_count, depth_count;
	int64_t runs, batch;
	double seconds;
	bool no_peaks;
	enum { TABLE, JSON, MARKDOWN, CSV } format;
} bench_options;

typedef struct bench {
	const bench_options *o;
	bench_run run;
	bench_subject *subjects[2 * MAX_SUBJECTS];
	size_t subject_count;
	char path[4096];
	bool temporary;
} bench;

static double now(void) {
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

static bool making(void *user, uint64_t done, uint64_t total) {
	(void)user;
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\rmaking the model: %3.0f %%%s", total ? (double)done * 100 / (double)total : 100,
		        done == total ? "\r\033[K" : "");
	return !cli_interrupted;
}

static int make_model(bench *b) {
	const knit_allocator *a;
	knit_context *ctx = NULL;
	bench_shape shape;
	knit_diag diag = {0};
	const char *folder = getenv("TMPDIR");

	if (bench_shape_parse(b->o->shape, &shape, &diag) != KNIT_OK)
		return cli_usage("bench", "--shape %s", diag.text);
	if (b->o->keep)
		snprintf(b->path, sizeof b->path, "%s", b->o->keep);
	else
		snprintf(b->path, sizeof b->path, "%s/knit-bench-%ld.gguf", folder ? folder : "/tmp", (long)getpid());
	bench_shape_text(&shape, b->run.model);
	b->run.seed = shape.seed;
	if (knit_context_create(NULL, &ctx) != KNIT_OK)
		return cli_fail("out of memory");
	a = &ctx->a;
	const knit_status status = bench_random_model(a, &shape, b->path, making, NULL, &b->run.file_bytes, &diag);
	knit_context_destroy(ctx);
	if (status == KNIT_ERR_STATE && cli_interrupted)
		return CLI_INTERRUPTED;
	if (status != KNIT_OK)
		return cli_fail_diag(status, &diag);
	b->temporary = !b->o->keep;
	return CLI_OK;
}

static int find_model(bench *b) {
	struct stat st;

	if (b->o->shape)
		return make_model(b);
	snprintf(b->path, sizeof b->path, "%s", b->o->common.model.path);
	snprintf(b->run.model, sizeof b->run.model, "%s", b->path);
	if (stat(b->path, &st) == 0)
		b->run.file_bytes = (uint64_t)st.st_size;
	return CLI_OK;
}

/* ---- subjects ---------------------------------------------------------------------------------------------------- */

static int64_t most(const int64_t *list, size_t count) {
	int64_t n = 0;

	for (size_t i = 0; i < count; ++i)
		n = list[i] > n ? list[i] : n;
	return n;
}

static int open_subjects(bench *b) {
	const bench_options *const o = b->o;
	const int64_t tested = most(o->prompts, o->prompt_count) > most(o->makes, o->make_count)
	                           ? most(o->prompts, o->prompt_count)
	                           : most(o->makes, o->make_count);
	knit_diag diag = {0};

	for (size_t i = 0; i < (o->device_count ? o->device_count : 1); ++i) {
		const bench_knit_desc desc = {
			.path = b->path,
			.device = o->device_count ? o->devices[i] : NULL,
			.threads = b->run.threads,
			.max_depth = most(o->depths, o->depth_count) + tested,
			.batch = o->batch,
			.kv = o->common.kv.k,
			.visits = o->common.model.visits,
			.loops = o->common.model.loops,
			.no_adapter = o->common.model.no_adapter,
		};
		const knit_status status = bench_knit_open(&desc, &b->subjects[b->subject_count], &diag);
		if (status != KNIT_OK)
			return cli_fail_diag(status, &diag);
		bench_subject *const s = b->subjects[b->subject_count++];
		const char *const device = knit_program_device(bench_knit_program(s));
		if (!o->no_peaks && strncmp(device, "cpu", 3) != 0 && strchr(device, '+') == NULL)
			s->peak_read_gbps = bench_device_read_gbps(device);
		snprintf(s->name, sizeof s->name, "knit %.50s", device);
	}
	for (size_t i = 0; i < o->peer_count; ++i) {
		const bench_peer_desc desc = {.spec = o->peers[i], .model = b->path, .threads = b->run.threads, .batch = o->batch,
		                              .kv = o->common.kv.k};
		const knit_status status = bench_peer_open(&desc, &b->subjects[b->subject_count], &diag);
		if (status != KNIT_OK)
			return cli_fail_diag(status, &diag);
		++b->subject_count;
	}
	return CLI_OK;
}

/* ---- cost -------------------------------------------------------------------------------------------------------- */

typedef struct text { char *data; size_t bytes, cap; } text;

static void take(void *user, const char *data, size_t bytes) {
	text *const t = user;

	if (t->bytes + bytes + 1 > t->cap) {
		const size_t cap = (t->bytes + bytes + 1) * 2;
		char *const larger = realloc(t->data, cap);
		if (!larger)
			return;
		t->data = larger;
		t->cap = cap;
	}
	memcpy(t->data + t->bytes, data, bytes);
	t->bytes += bytes;
}

static double number(const cJSON *o, const char *key) {
	const cJSON *const item = cJSON_GetObjectItemCaseSensitive(o, key);

	return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

static void cost_of(const bench_subject *s, const bench_test *test, bench_cost *out) {
	const knit_program *const p = bench_knit_program(s);
	const int64_t context = test->depth + test->made / 2 + 1;
	const knit_report_desc desc = {.context = context, .prompt = test->prompt ? test->prompt : 1};
	text t = {0};

	*out = (bench_cost){0};
	if (!p || knit_program_report(p, &desc, take, &t) != KNIT_OK) {
		free(t.data);
		return;
	}
	cJSON *const report = cJSON_ParseWithLength(t.data, t.bytes);
	const cJSON *const from = cJSON_GetObjectItemCaseSensitive(report, test->prompt ? "prefill" : "decode");
	const double tokens = test->prompt ? (double)test->prompt : 1;
	const double weights = number(from, "weight_bytes_read"), states = number(from, "state_bytes_read");

	out->flops = number(from, "flops") / tokens;
	out->weight_bytes = weights / tokens;
	out->weight_bytes_unique = number(from, "weight_bytes_unique") / tokens;
	out->state_bytes = (states + number(from, "state_bytes_written")) / tokens;
	cJSON_Delete(report);
	free(t.data);
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

/* One or more runs; those before the row is warm are thrown away. */
static knit_status measure_once(const bench *b, bench_row *r, bool keep, knit_diag *diag) {
	double got[16];
	size_t count = 0;
	const knit_status status = r->subject->kind->run((bench_subject *)(uintptr_t)r->subject, &r->test, got,
	                                                 sizeof got / sizeof *got, &count, diag);

	(void)b;
	for (size_t i = 0; status == KNIT_OK && keep && i < count && r->count < BENCH_MAX_SAMPLES; ++i)
		r->seconds[r->count++] = got[i];
	if (status == KNIT_OK && !keep)
		r->seconds[r->warm_up++] = count ? got[count - 1] : 0;
	return status;
}

/* Warms up until the times have settled, or long enough. */
static knit_status warm_up(const bench *b, bench_row *r, knit_diag *diag) {
	const double begin = now();
	knit_status status = KNIT_OK;

	while (status == KNIT_OK && !cli_interrupted && r->warm_up < MAX_WARM_UP && !r->steady) {
		status = measure_once(b, r, false, diag);
		r->steady = bench_is_steady(r->seconds, r->warm_up, STEADY_WINDOW, STEADY);
		if (r->warm_up >= 1 && now() - begin > b->o->seconds / 4)
			break;
	}
	return status;
}

static void finish_row(bench_row *r, const bench_row *first) {
	const double tokens = (double)(r->test.prompt + r->test.made);
	double rates[BENCH_MAX_SAMPLES], firsts[BENCH_MAX_SAMPLES];

	for (size_t i = 0; i < r->count; ++i)
		rates[i] = tokens / r->seconds[i];
	bench_stats_of(rates, r->count, 1, &r->rate);
	r->steady = r->steady || r->rate.mad < STEADY * r->rate.median;
	for (size_t i = 0; i < first->count; ++i)
		firsts[i] = tokens / first->seconds[i];
	if (r != first)
		bench_ratio_of(rates, r->count, firsts, first->count, 1, &r->ratio);
}

/* All subjects of one test, taking turns. */
static int measure_test(bench *b, bench_row *rows) {
	const double begin = now();
	knit_diag diag = {0};
	char done[64];

	for (size_t i = 0; i < b->subject_count && !cli_interrupted; ++i) {
		const knit_status status = warm_up(b, &rows[i], &diag);
		if (status != KNIT_OK)
			return cli_fail("%s: %s", rows[i].subject->name, diag.text[0] ? diag.text : knit_status_name(status));
	}
	for (int64_t round = 0; round < b->o->runs && !cli_interrupted; ++round) {
		if (round >= 3 && now() - begin > b->o->seconds * (double)b->subject_count)
			break;
		for (size_t i = 0; i < b->subject_count && !cli_interrupted; ++i) {
			/* The order turns round each time, so that none always runs on what another left. */
			const size_t at = round % 2 ? b->subject_count - 1 - i : i;
			const knit_status status = measure_once(b, &rows[at], true, &diag);
			if (status != KNIT_OK)
				return cli_fail("%s: %s", rows[at].subject->name, diag.text[0] ? diag.text : knit_status_name(status));
		}
		if (isatty(STDERR_FILENO)) {
			snprintf(done, sizeof done, "\rrun %" PRId64 " of %" PRId64 "\r\033[K", round + 1, b->o->runs);
			fputs(done, stderr);
		}
	}
	for (size_t i = 0; i < b->subject_count; ++i)
		finish_row(&rows[i], &rows[0]);
	return cli_interrupted ? CLI_INTERRUPTED : CLI_OK;
}

static size_t list_tests(const bench_options *o, bench_test *out) {
	size_t n = 0;

	for (size_t d = 0; d < o->depth_count; ++d) {
		for (size_t i = 0; i < o->prompt_count && n < MAX_TESTS; ++i)
			if (o->prompts[i])
				out[n++] = (bench_test){.prompt = o->prompts[i], .depth = o->depths[d]};
		for (size_t i = 0; i < o->make_count && n < MAX_TESTS; ++i)
			if (o->makes[i])
				out[n++] = (bench_test){.made = o->makes[i], .depth = o->depths[d]};
	}
	return n;
}

static int measure(bench *b) {
	bench_test tests[MAX_TESTS];
	const size_t count = list_tests(b->o, tests);
	int code = CLI_OK;

	b->run.rows = calloc(count * b->subject_count + 1, sizeof *b->run.rows);
	if (!b->run.rows)
		return cli_fail("out of memory");
	const double begin = now(), others = bench_others_seconds();
	for (size_t t = 0; t < count && code == CLI_OK; ++t) {
		bench_row *const rows = b->run.rows + b->run.row_count;
		for (size_t i = 0; i < b->subject_count; ++i) {
			rows[i].subject = b->subjects[i];
			rows[i].test = tests[t];
			cost_of(b->subjects[i], &tests[t], &rows[i].cost);
		}
		code = measure_test(b, rows);
		if (code == CLI_OK || rows[0].count >= 3)
			b->run.row_count += b->subject_count;
	}
	/* A peer is a process of its own: what it takes is not the neighbours'. */
	if (others >= 0 && b->o->peer_count == 0)
		b->run.busy = (bench_others_seconds() - others) / ((now() - begin) * bench_cores());
	return code;
}

/* ---- output ------------------------------------------------------------------------------------------------------ */

static int print(const bench *b) {
	static void (*const printers[])(FILE *, const bench_run *) = {bench_print_table, bench_print_json, bench_print_markdown,
	                                                             bench_print_csv};
	const knit_allocator *a;
	knit_context *ctx = NULL;
	cli_file file;
	char *data = NULL;
	size_t bytes = 0;

	if (!b->o->output) {
		printers[b->o->format](stdout, &b->run);
		return cli_finish_stdout();
	}
	FILE *const f = open_memstream(&data, &bytes);
	if (!f)
		return cli_fail("out of memory");
	printers[b->o->format](f, &b->run);
	fclose(f);
	if (knit_context_create(NULL, &ctx) != KNIT_OK) {
		free(data);
		return cli_fail("out of memory");
	}
	a = &ctx->a;
	int code = cli_file_open(a, b->o->output, &file);
	if (code == CLI_OK) {
		cli_file_write(&file, data, bytes);
		code = cli_file_close(&file, KNIT_OK);
	}
	free(data);
	knit_context_destroy(ctx);
	return code;
}

static int bench_all(bench *b) {
	b->run.threads = b->o->common.threads ? b->o->common.threads : bench_cores();
	bench_machine(&b->run);
	int code = find_model(b);
	if (code == CLI_OK)
		code = open_subjects(b);
	if (code == CLI_OK && !b->o->no_peaks)
		bench_measure_peaks(b->run.threads, &b->run.peaks);
	if (code == CLI_OK)
		code = measure(b);
	if ((code == CLI_OK || code == CLI_INTERRUPTED) && b->run.row_count) {
		const int printed = print(b);
		code = code == CLI_OK ? printed : code;
	}
	for (size_t i = 0; i < b->subject_count; ++i)
		b->subjects[i]->kind->close(b->subjects[i]);
	if (b->temporary)
		unlink(b->path);
	free(b->run.rows);
	return code;
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

/* "0,4096" */
static bool take_list(const char *value, int64_t hi, int64_t *out, size_t *count) {
	char copy[256], *save = NULL;

	*count = 0;
	if (strlen(value) >= sizeof copy)
		return false;
	strcpy(copy, value);
	for (char *part = strtok_r(copy, ",", &save); part; part = strtok_r(NULL, ",", &save))
		if (*count == MAX_LIST || !cli_parse_i64(part, 0, hi, &out[(*count)++]))
			return false;
	return *count > 0;
}

static bool take_names(char *value, const char **out, size_t *count) {
	char *save = NULL;

	for (char *part = strtok_r(value, ",", &save); part; part = strtok_r(NULL, ",", &save)) {
		if (*count == MAX_SUBJECTS)
			return false;
		out[(*count)++] = part;
	}
	return *count > 0;
}

static bool own_option(bench_options *o, int option, char **argv, int *code) {
	const char *wrong = NULL;

	switch (option) {
	case OPT_SHAPE: o->shape = optarg; return true;
	case OPT_KEEP: o->keep = optarg; return true;
	case OPT_NO_PEAKS: o->no_peaks = true; return true;
	case CLI_OPT_JSON: o->format = JSON; return true;
	case OPT_MD: o->format = MARKDOWN; return true;
	case OPT_CSV: o->format = CSV; return true;
	case 'o': o->output = optarg; return true;
	case 'p': wrong = take_list(optarg, 1 << 20, o->prompts, &o->prompt_count) ? NULL : "--prompt"; break;
	case 'n': wrong = take_list(optarg, 1 << 20, o->makes, &o->make_count) ? NULL : "--make"; break;
	case 'd': wrong = take_list(optarg, KNIT__MAX_CONTEXT, o->depths, &o->depth_count) ? NULL : "--depth"; break;
	case 'r': wrong = cli_parse_i64(optarg, 1, BENCH_MAX_SAMPLES, &o->runs) ? NULL : "--runs"; break;
	case OPT_BATCH: wrong = cli_parse_i64(optarg, 1, 1 << 16, &o->batch) ? NULL : "--batch"; break;
	case OPT_SECONDS: wrong = cli_parse_double(optarg, 0, 1e6, &o->seconds) ? NULL : "--seconds"; break;
	case CLI_OPT_DEVICE: wrong = take_names(optarg, o->devices, &o->device_count) ? NULL : "--device"; break;
	case OPT_PEER:
		if (o->peer_count < MAX_SUBJECTS) {
			o->peers[o->peer_count++] = optarg;
			return true;
		}
		wrong = "--peer";
		break;
	default: return cli_common_option(&o->common, option, argv, code);
	}
	if (wrong)
		*code = cli_usage("bench", "%s \"%s\" is no list of numbers or names that it takes", wrong, optarg);
	return wrong == NULL;
}

int cli_bench(int argc, char **argv) {
	static const struct option longs[] = {
		{"shape", required_argument, NULL, OPT_SHAPE},
		{"keep", required_argument, NULL, OPT_KEEP},
		{"prompt", required_argument, NULL, 'p'},
		{"make", required_argument, NULL, 'n'},
		{"depth", required_argument, NULL, 'd'},
		{"runs", required_argument, NULL, 'r'},
		{"seconds", required_argument, NULL, OPT_SECONDS},
		{"batch", required_argument, NULL, OPT_BATCH},
		{"device", required_argument, NULL, CLI_OPT_DEVICE},
		{"threads", required_argument, NULL, CLI_OPT_THREADS},
		{"kv", required_argument, NULL, CLI_OPT_KV},
		{"visits", required_argument, NULL, CLI_OPT_VISITS},
		{"loops", required_argument, NULL, CLI_OPT_LOOPS},
		{"adapter", required_argument, NULL, CLI_OPT_ADAPTER},
		{"peer", required_argument, NULL, OPT_PEER},
		{"no-peaks", no_argument, NULL, OPT_NO_PEAKS},
		{"json", no_argument, NULL, CLI_OPT_JSON},
		{"markdown", no_argument, NULL, OPT_MD},
		{"csv", no_argument, NULL, OPT_CSV},
		{"output", required_argument, NULL, 'o'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	bench_options o = {.common = {.command = "bench"}, .prompts = {512}, .makes = {128}, .prompt_count = 1, .make_count = 1,
	                   .depth_count = 1, .runs = DEFAULT_RUNS, .batch = 512, .seconds = 60};
	int option, code = CLI_OK;

	while ((option = getopt_long(argc, argv, ":hp:n:d:r:o:", longs, NULL)) != -1) {
		if (option == 'h') {
			printf(help, bench_shape_names());
			return cli_finish_stdout();
		}
		if (!own_option(&o, option, argv, &code))
			return code;
	}
	if (o.shape && optind < argc)
		return cli_usage("bench", "--shape makes a model of its own, \"%s\" is one too many", argv[optind]);
	if (!o.shape && !cli_operands(&o.common, argc, argv, NULL, NULL, &code))
		return code;
	if (o.keep && !o.shape)
		return cli_usage("bench", "--keep goes with --shape");
	cli_catch_interrupts();
	bench b = {.o = &o};
	return bench_all(&b);
}
