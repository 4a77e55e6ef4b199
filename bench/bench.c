/* `knit bench`: its options. What it is for: how fast a model runs, on what a number is worth, beside the machine's own
 * limits. */
#include "bench_cli.h"
#include "shape.h"

#include <string.h>

enum { OPT_SHAPE = CLI_OPT_OWN, OPT_KEEP, OPT_PEER, OPT_PEER_RUNS, OPT_PEER_STARTS, OPT_PEER_MODEL, OPT_BATCH, OPT_SECONDS, OPT_NO_PEAKS, OPT_NO_CHECK, OPT_NO_LOAD, OPT_PLANT, OPT_PROFILE, OPT_TRACE, OPT_HTML, OPT_MD, OPT_CSV };
enum { DEFAULT_RUNS = 10 };

static const char help[] =
	"knit bench MODEL | --shape SHAPE: tokens per second of prefill and decode, with what the numbers are worth: alternating\n"
	"runs, medians with 95 %% intervals, beside the bytes per second that this machine can read.\n\n"
	"  knit bench story.gguf                            prefill of 512 tokens, decode of 128, on the best device\n"
	"  knit bench --shape 1.1b,type=q4_0 -d 0,4096      a made-up model, at two depths of context\n"
	"  knit bench story.gguf --device cpu,vulkan        two devices, the second's ratio to the first\n"
	"  knit bench --shape 1.1b,type=q8_0 --peer llama-bench=/opt/llama.cpp/build/bin/llama-bench\n"
	"  knit bench compare OLD NEW                       two runs with --json: which tests became faster or slower\n"
	"  knit bench ops --help                            single ops\n\n"
	"shapes (random weights; see below for keys):\n%s"
	"  or llama:dim=2048,layers=22,heads=32,kv_heads=4,ff=5632,vocab=32000,type=q4_0,visits=3,lora=16\n"
	"  keys after a name change it: 1.1b,type=f16; 125m,layers=10,visits=3; also head_dim, context, embedding, rich, tied, seed;\n"
	"  type=q4_k_m is q4_K with q6_K for attn_v, ffn_down and the head (rich=q6_K)\n\n"
	"      --shape SHAPE     a model with random weights instead of a file\n"
	"      --keep FILE       keep that model, so that other programs can run it\n"
	"  -p, --prompt LIST     tokens of prefill (512); 0: none\n"
	"  -n, --make LIST       tokens of decode (128); 0: none\n"
	"  -d, --depth LIST      tokens that are there before (0)\n"
	"  -r, --runs N          runs of each test (10)\n"
	"      --seconds S       stop a test earlier, after so many seconds (60), with at least 3 runs\n"
	"      --batch N         tokens of one prefill step (512)\n"
	"      --device LIST     devices to compare: see knit devices (the best one)\n"
	"      --device-memory SIZE  of a split like vulkan+cpu: what may lie on its first device\n"
	"      --threads N       of the CPU and of peers (one per core)\n"
	"      --kv TYPE         of keys and values: f16, f32, q8_0 ... (f16)\n"
	"      --visits LIST, --loops N, --adapter none   as in knit run\n"
	"      --peer NAME=PATH  another program's bench on the same file, alternating; NAME: llama-bench, ik-llama-bench, or knit for\n"
	"                        another build of this command, with a label of your own behind a colon. Words after the path\n"
	"                        are its arguments. May be given again:\n"
	"                        --peer llama-bench=/opt/llama-bench --peer \"ik-llama-bench:repacked=/opt/ik/llama-bench -rtr 1\"\n"
	"      --peer-runs N     runs of each start of a peer's program (3)\n"
	"      --peer-starts N   starts of it, spread over the runs (one for each)\n"
	"      --peer-model FILE what peers run instead, where they cannot run the same (a looped model, written out)\n"
	"      --no-peaks        do not measure what the machine can do\n"
	"      --no-check        do not compare logits with the reference\n"
	"      --no-load         do not load the model in processes of its own: no loading from disk, no memory as the system sees it\n"
	"      --plant-slowdown P%%  make knit's runs longer by waiting, to see whether compare finds it; the rows say so\n"
	"      --profile         where the time goes: steps by kind, with their share and what they reach of the peak\n"
	"      --trace FILE      the same step by step, as Chrome trace JSON\n"
	"      --html FILE       a page with charts, profile included, that needs nothing outside itself\n"
	"      --json, --markdown, --csv   instead of the table\n"
	"  -o, --output FILE     write it there; the file appears when it is complete\n";

/* ---- options ----------------------------------------------------------------------------------------------------- */

/* "0,4096" */
bool bench_take_list(const char *value, int64_t hi, int64_t *out, size_t *count) {
	char copy[256], *save = NULL;

	*count = 0;
	if (strlen(value) >= sizeof copy)
		return false;
	strcpy(copy, value);
	for (char *part = strtok_r(copy, ",", &save); part; part = strtok_r(NULL, ",", &save))
		if (*count == BENCH_MAX_LIST || !cli_parse_i64(part, 0, hi, &out[(*count)++]))
			return false;
	return *count > 0;
}

bool bench_take_names(char *value, const char **out, size_t *count) {
	char *save = NULL;

	for (char *part = strtok_r(value, ",", &save); part; part = strtok_r(NULL, ",", &save)) {
		if (*count == BENCH_MAX_SUBJECTS)
			return false;
		out[(*count)++] = part;
	}
	return *count > 0;
}

static bool own_option(bench_options *o, int option, char **argv, int *code) {
	const char *wrong = NULL, *needs = "numbers with commas between them, 16 at most";

	switch (option) {
	case OPT_SHAPE: o->shape = optarg; return true;
	case OPT_PEER_MODEL: o->peer_model = optarg; return true;
	case OPT_KEEP: o->keep = optarg; return true;
	case OPT_NO_PEAKS: o->no_peaks = true; return true;
	case OPT_NO_CHECK: o->no_check = true; return true;
	case OPT_NO_LOAD: o->no_load = true; return true;
	case OPT_PROFILE: o->profile = true; return true;
	case OPT_TRACE: o->trace = optarg; return true;
	case OPT_HTML: o->html = optarg; return true;
	case CLI_OPT_JSON: o->format = BENCH_JSON; return true;
	case OPT_MD: o->format = BENCH_MARKDOWN; return true;
	case OPT_CSV: o->format = BENCH_CSV; return true;
	case 'o': o->output = optarg; return true;
	case 'p': wrong = bench_take_list(optarg, 1 << 20, o->prompts, &o->prompt_count) ? NULL : "--prompt"; break;
	case 'n': wrong = bench_take_list(optarg, 1 << 20, o->makes, &o->make_count) ? NULL : "--make"; break;
	case 'd': wrong = bench_take_list(optarg, KNIT__MAX_CONTEXT, o->depths, &o->depth_count) ? NULL : "--depth"; break;
	case 'r': wrong = cli_parse_i64(optarg, 1, BENCH_MAX_SAMPLES, &o->runs) ? NULL : "--runs", needs = "a number from 1 to 256"; break;
	case OPT_PEER_RUNS: wrong = cli_parse_i64(optarg, 1, 16, &o->peer_runs) ? NULL : "--peer-runs", needs = "a number from 1 to 16"; break;
	case OPT_PEER_STARTS: wrong = cli_parse_i64(optarg, 1, BENCH_MAX_SAMPLES, &o->peer_starts) ? NULL : "--peer-starts", needs = "a number from 1 to 256"; break;
	case OPT_PLANT: wrong = bench_take_percent(optarg, &o->planted) ? NULL : "--plant-slowdown", needs = "a percentage from 0 to 100"; break;
	case OPT_BATCH: wrong = cli_parse_i64(optarg, 1, 1 << 16, &o->batch) ? NULL : "--batch", needs = "a number from 1 to 65536"; break;
	case OPT_SECONDS: wrong = cli_parse_double(optarg, 0, 1e6, &o->seconds) ? NULL : "--seconds", needs = "a number from 0 to a million"; break;
	case CLI_OPT_DEVICE: wrong = bench_take_names(optarg, o->devices, &o->device_count) ? NULL : "--device", needs = "names with commas between them, 8 at most"; break;
	case OPT_PEER:
		if (o->peer_count < BENCH_MAX_SUBJECTS) {
			o->peers[o->peer_count++] = optarg;
			return true;
		}
		wrong = "--peer", needs = "to be given 8 times at most";
		break;
	default: return cli_common_option(&o->common, option, argv, code);
	}
	if (wrong)
		*code = cli_usage("bench", "%s \"%s\": needs %s", wrong, optarg, needs);
	return wrong == NULL;
}

static size_t nonzero(const int64_t *list, size_t count) {
	size_t n = 0;

	for (size_t i = 0; i < count; ++i)
		n += list[i] != 0;
	return n;
}

/* "-p 16 --device cpu": cut off where there is no room. */
static void keep_flags(int argc, char **argv, char *out, size_t size) {
	for (int i = 1; i < argc; ++i) {
		const size_t used = strlen(out);
		snprintf(out + used, size - used, "%s%s", i > 1 ? " " : "", argv[i]);
	}
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
		{"device-memory", required_argument, NULL, CLI_OPT_DEVICE_MEMORY},
		{"threads", required_argument, NULL, CLI_OPT_THREADS},
		{"kv", required_argument, NULL, CLI_OPT_KV},
		{"visits", required_argument, NULL, CLI_OPT_VISITS},
		{"loops", required_argument, NULL, CLI_OPT_LOOPS},
		{"adapter", required_argument, NULL, CLI_OPT_ADAPTER},
		{"peer", required_argument, NULL, OPT_PEER},
		{"peer-runs", required_argument, NULL, OPT_PEER_RUNS},
		{"peer-starts", required_argument, NULL, OPT_PEER_STARTS},
		{"peer-model", required_argument, NULL, OPT_PEER_MODEL},
		{"no-peaks", no_argument, NULL, OPT_NO_PEAKS},
		{"no-check", no_argument, NULL, OPT_NO_CHECK},
		{"no-load", no_argument, NULL, OPT_NO_LOAD},
		{"plant-slowdown", required_argument, NULL, OPT_PLANT},
		{"profile", no_argument, NULL, OPT_PROFILE},
		{"trace", required_argument, NULL, OPT_TRACE},
		{"html", required_argument, NULL, OPT_HTML},
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

	if (argc > 1 && strcmp(argv[1], "compare") == 0)
		return bench_compare_main(argc - 1, argv + 1);
	keep_flags(argc, argv, o.flags, sizeof o.flags);
	if (argc > 1 && strcmp(argv[1], "ops") == 0)
		return bench_ops_main(argc - 1, argv + 1, o.flags);
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
	const size_t tests = (nonzero(o.prompts, o.prompt_count) + nonzero(o.makes, o.make_count)) * o.depth_count;
	if (tests == 0)
		return cli_usage("bench", "nothing to measure: --prompt and --make are 0");
	if (tests > BENCH_MAX_TESTS)
		return cli_usage("bench", "%zu tests are more than %d", tests, BENCH_MAX_TESTS);
	cli_catch_interrupts();
	return bench_all(&o);
}
