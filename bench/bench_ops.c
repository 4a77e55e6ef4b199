/* `knit bench ops`: its options, the cases they ask for, and the devices. */
#include "bench_cli.h"
#include "clock.h"
#include "ops.h"

#include "../graph/dtype.h"

#include <stdlib.h>
#include <string.h>

enum { OPT_OP = CLI_OPT_OWN, OPT_TYPE, OPT_TOKENS, OPT_SHAPE, OPT_ROWS, OPT_COLUMNS, OPT_SECONDS, OPT_NO_PEAKS, OPT_CACHED, OPT_MD };
enum { MAX_CASES = 1024, MAX_NAMES = BENCH_MAX_SUBJECTS, DEFAULT_RUNS = 30 };
#define COPIES_BYTES (UINT64_C(128) << 20)

static const char help[] =
	"knit bench ops: single ops at the shapes that models use, with bytes, FLOP and percent of peak.\n\n"
	"  knit bench ops                                           all of them, of the 125m and the 1.1b, for 1 and 512 tokens\n"
	"  knit bench ops --op linear --type q8_0,f16 --tokens 1    some of them\n"
	"  knit bench ops --op linear --type q4_0 --rows 4096 --columns 2048\n"
	"  knit bench ops --compare cpu,vulkan                      side by side, in turns, with the results compared\n\n"
	"      --op LIST         linear, attention, rms_norm, rope, silu, mul, gather, argmax (all)\n"
	"      --type LIST       of matrices (f32,f16,q8_0,q4_0)\n"
	"      --tokens LIST     (1,512)\n"
	"      --shape LIST      of which models (125m,1.1b)\n"
	"      --rows N, --columns N   one matrix of that size instead of the models'\n"
	"      --device LIST, --compare LIST   devices (cpu)\n"
	"      --threads N       of the CPU (one per core)\n"
	"  -r, --runs N          runs of each (30)\n"
	"      --seconds S       or so many seconds, with at least 3 runs (0.3)\n"
	"      --cached          one copy of the operands, which caches may hold, instead of 128 MiB of copies\n"
	"      --no-peaks        do not measure what the machine can do\n"
	"      --json, --markdown   instead of the table\n"
	"  -o, --output FILE     write it there; the file appears when it is complete\n";

typedef struct ops_options {
	const char *ops[MAX_NAMES], *types[MAX_NAMES], *shapes[MAX_NAMES], *devices[BENCH_MAX_SUBJECTS], *output;
	size_t op_count, type_count, shape_count, device_count, token_count;
	int64_t tokens[BENCH_MAX_LIST], rows, columns, runs, threads;
	double seconds;
	bool no_peaks, cached;
	bench_format format;
} ops_options;

typedef struct ops_bench {
	const ops_options *o;
	bench_run run;
	bench_subject devices[BENCH_MAX_SUBJECTS];
	bench_op_case cases[MAX_CASES];
	size_t case_count, row_count;
	bench_op_row *rows;
} ops_bench;

/* ---- cases ------------------------------------------------------------------------------------------------------- */

static bool wanted(const ops_options *o, const bench_op_case *c) {
	for (size_t i = 0; i < o->op_count; ++i)
		if (bench_op_find(o->ops[i]) == c->kind)
			return true;
	return o->op_count == 0;
}

/* Those that do not depend on the type of matrices come once. */
static void add_case(ops_bench *b, const bench_op_case *c) {
	char text[80], other[80];

	bench_op_text(c, text);
	for (size_t i = 0; i < b->case_count; ++i) {
		bench_op_text(&b->cases[i], other);
		if (b->cases[i].kind == c->kind && strcmp(text, other) == 0)
			return;
	}
	if (b->case_count < MAX_CASES && wanted(b->o, c))
		b->cases[b->case_count++] = *c;
}

static int list_cases(ops_bench *b) {
	static const char *const all_types[] = {"f32", "f16", "q8_0", "q4_0"}, *const all_shapes[] = {"125m", "1.1b"};
	const ops_options *const o = b->o;
	const char *const *const types = o->type_count ? o->types : all_types, *const *const shapes = o->shape_count ? o->shapes : all_shapes;
	const size_t type_count = o->type_count ? o->type_count : 4, shape_count = o->rows ? 1 : o->shape_count ? o->shape_count : 2;
	bench_op_case found[32];

	for (size_t i = 0; i < o->op_count; ++i)
		if (bench_op_find(o->ops[i]) == BENCH_OP_KINDS)
			return cli_usage("bench ops", "--op \"%s\" is none of linear, attention, rms_norm, rope, silu, mul, gather, argmax", o->ops[i]);
	for (size_t s = 0; s < shape_count; ++s) {
		bench_shape shape = {0};
		knit_diag diag = {0};
		if (!o->rows && bench_shape_parse(shapes[s], &shape, &diag) != KNIT_OK)
			return cli_usage("bench ops", "--shape %s", diag.text);
		for (size_t t = 0; t < type_count; ++t) {
			const knit_dtype type = knit__dtype_parse(types[t]);
			if (!type || type == KNIT_I32)
				return cli_usage("bench ops", "--type \"%s\" is no type of matrices", types[t]);
			for (size_t k = 0; k < o->token_count; ++k) {
				const bench_op_case own = {BENCH_OP_LINEAR, type, o->tokens[k], o->rows, o->columns, .where = "given"};
				if (o->rows)
					add_case(b, &own);
				const size_t n = o->rows ? 0 : bench_op_cases(&shape, shapes[s], type, o->tokens[k], found, sizeof found / sizeof *found);
				for (size_t i = 0; i < n; ++i)
					add_case(b, &found[i]);
			}
		}
	}
	return b->case_count ? CLI_OK : cli_usage("bench ops", "nothing to measure");
}

/* ---- devices ----------------------------------------------------------------------------------------------------- */

static int open_devices(ops_bench *b) {
	const ops_options *const o = b->o;
	knit_device_info list[32];
	knit_context *ctx = NULL;
	size_t count = 0;

	if (knit_context_create(NULL, &ctx) != KNIT_OK)
		return cli_fail("out of memory");
	const knit_status status = knit_devices(ctx, list, sizeof list / sizeof *list, &count);
	knit_context_destroy(ctx);
	if (status != KNIT_OK)
		return cli_fail("the devices cannot be listed: %s", knit_status_name(status));
	for (size_t i = 0; i < (o->device_count ? o->device_count : 1); ++i) {
		bench_subject *const s = &b->devices[i];
		snprintf(s->device, sizeof s->device, "%.60s", o->device_count ? o->devices[i] : "cpu");
		snprintf(s->name, sizeof s->name, "%s", s->device);
		s->on_host = strncmp(s->device, "cpu", 3) == 0 && strchr(s->device, '+') == NULL;
		for (size_t k = 0; k < count && k < sizeof list / sizeof *list; ++k)
			if (strcmp(list[k].id, s->device) == 0)
				snprintf(s->driver, sizeof s->driver, "%.60s; %.90s", list[k].name, list[k].detail);
		if (o->no_peaks)
			continue;
		if (!s->on_host)
			bench_device_peaks(s->device, &s->peaks, s->no_peaks);
		bench_device_latency(s->device, b->run.threads, &s->submit_seconds, &s->step_seconds);
	}
	return CLI_OK;
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

static int measure(ops_bench *b) {
	const ops_options *const o = b->o;
	const bench_ops_desc desc = {.devices = b->devices, .device_count = o->device_count ? o->device_count : 1, .threads = b->run.threads,
	                             .runs = o->runs, .seconds = o->seconds, .copies_bytes = o->cached ? 0 : COPIES_BYTES};
	const double begin = bench_now(), others = bench_others_seconds();

	b->rows = calloc(b->case_count * desc.device_count, sizeof *b->rows);
	if (!b->rows)
		return cli_fail("out of memory");
	for (size_t i = 0; i < b->case_count && !cli_interrupted; ++i) {
		knit_diag diag = {0};
		const knit_status status = bench_op_measure(&desc, &b->cases[i], b->rows + b->row_count, &diag);
		if (status != KNIT_OK) {
			char text[80];
			bench_op_text(&b->cases[i], text);
			return cli_fail("%s %s: %s", bench_op_name(b->cases[i].kind), text, diag.text[0] ? diag.text : knit_status_name(status));
		}
		b->row_count += desc.device_count;
	}
	if (others >= 0)
		b->run.busy = (bench_others_seconds() - others) / ((bench_now() - begin) * bench_cores());
	return cli_interrupted ? CLI_INTERRUPTED : CLI_OK;
}

static void print(FILE *f, void *user) {
	const ops_bench *const b = user;

	if (b->o->format == BENCH_JSON)
		bench_ops_json(f, &b->run, b->rows, b->row_count);
	else
		bench_ops_print(f, &b->run, b->rows, b->row_count, b->o->format == BENCH_MARKDOWN);
}

static int run_all(const ops_options *o, const char *flags) {
	ops_bench *const b = calloc(1, sizeof *b);

	if (!b)
		return cli_fail("out of memory");
	b->o = o;
	b->run.threads = o->threads ? (uint32_t)o->threads : bench_cores();
	snprintf(b->run.flags, sizeof b->run.flags, "%s", flags);
	bench_machine(&b->run);
	int code = list_cases(b);
	if (code == CLI_OK)
		code = open_devices(b);
	if (code == CLI_OK && !o->no_peaks)
		bench_measure_peaks(b->run.threads, &b->run.peaks);
	if (code == CLI_OK)
		code = measure(b);
	if ((code == CLI_OK || code == CLI_INTERRUPTED) && b->row_count) {
		const int printed = bench_write(o->output, print, b);
		code = code == CLI_OK ? printed : code;
	}
	free(b->rows);
	free(b);
	return code;
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

static bool own_option(ops_options *o, int option, char **argv, int *code) {
	const char *wrong = NULL;

	switch (option) {
	case OPT_OP: wrong = bench_take_names(optarg, o->ops, &o->op_count) ? NULL : "--op"; break;
	case OPT_TYPE: wrong = bench_take_names(optarg, o->types, &o->type_count) ? NULL : "--type"; break;
	case OPT_SHAPE: wrong = bench_take_names(optarg, o->shapes, &o->shape_count) ? NULL : "--shape"; break;
	case CLI_OPT_DEVICE: wrong = bench_take_names(optarg, o->devices, &o->device_count) ? NULL : "--device"; break;
	case OPT_TOKENS: wrong = bench_take_list(optarg, 4096, o->tokens, &o->token_count) ? NULL : "--tokens"; break;
	case OPT_ROWS: wrong = cli_parse_i64(optarg, 1, 1 << 20, &o->rows) ? NULL : "--rows"; break;
	case OPT_COLUMNS: wrong = cli_parse_i64(optarg, 1, 1 << 20, &o->columns) ? NULL : "--columns"; break;
	case 'r': wrong = cli_parse_i64(optarg, 1, BENCH_MAX_SAMPLES, &o->runs) ? NULL : "--runs"; break;
	case CLI_OPT_THREADS: wrong = cli_parse_i64(optarg, 1, 1024, &o->threads) ? NULL : "--threads"; break;
	case OPT_SECONDS: wrong = cli_parse_double(optarg, 0, 1e6, &o->seconds) ? NULL : "--seconds"; break;
	case OPT_NO_PEAKS: o->no_peaks = true; break;
	case OPT_CACHED: o->cached = true; break;
	case CLI_OPT_JSON: o->format = BENCH_JSON; break;
	case OPT_MD: o->format = BENCH_MARKDOWN; break;
	case 'o': o->output = optarg; break;
	default:
		*code = cli_usage("bench ops", "no option \"%s\", or its value is missing", argv[optind - 1]);
		return false;
	}
	if (wrong)
		*code = cli_usage("bench ops", "%s \"%s\" is no value that it takes", wrong, optarg);
	return wrong == NULL;
}

int bench_ops_main(int argc, char **argv, const char *flags) {
	static const struct option longs[] = {
		{"op", required_argument, NULL, OPT_OP},
		{"type", required_argument, NULL, OPT_TYPE},
		{"tokens", required_argument, NULL, OPT_TOKENS},
		{"shape", required_argument, NULL, OPT_SHAPE},
		{"rows", required_argument, NULL, OPT_ROWS},
		{"columns", required_argument, NULL, OPT_COLUMNS},
		{"device", required_argument, NULL, CLI_OPT_DEVICE},
		{"compare", required_argument, NULL, CLI_OPT_DEVICE},
		{"threads", required_argument, NULL, CLI_OPT_THREADS},
		{"runs", required_argument, NULL, 'r'},
		{"seconds", required_argument, NULL, OPT_SECONDS},
		{"cached", no_argument, NULL, OPT_CACHED},
		{"no-peaks", no_argument, NULL, OPT_NO_PEAKS},
		{"json", no_argument, NULL, CLI_OPT_JSON},
		{"markdown", no_argument, NULL, OPT_MD},
		{"output", required_argument, NULL, 'o'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	ops_options o = {.tokens = {1, 512}, .token_count = 2, .runs = DEFAULT_RUNS, .seconds = 0.3};
	int option, code = CLI_OK;

	while ((option = getopt_long(argc, argv, ":hr:o:", longs, NULL)) != -1) {
		if (option == 'h') {
			fputs(help, stdout);
			return cli_finish_stdout();
		}
		if (!own_option(&o, option, argv, &code))
			return code;
	}
	if (optind < argc)
		return cli_usage("bench ops", "\"%s\" is one word too many", argv[optind]);
	if (!o.rows != !o.columns)
		return cli_usage("bench ops", "--rows and --columns go together");
	for (size_t i = 0; i < o.token_count; ++i)
		if (o.tokens[i] == 0)
			return cli_usage("bench ops", "--tokens: at least 1");
	cli_catch_interrupts();
	return run_all(&o, flags);
}
