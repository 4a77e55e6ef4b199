/* knit run: writes text with a model, says how fast and in how much memory. */
#include "cli.h"

#include "../formats/limits.h"
#include "../text/generate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { DEFAULT_TOKENS = 256, BATCH = 64 };
enum { OPT_SAVE = CLI_OPT_OWN, OPT_LOAD, OPT_TEMP, OPT_TOP_K, OPT_TOP_P, OPT_SEED, OPT_SAMPLER, OPT_ENDLESS };

static const char help[] =
	"knit run MODEL: writes text with a model.\n\n"
	"  knit run story.gguf -p \"Once upon a time\"          write on from a text\n"
	"  knit run story.gguf < letter.txt                   the same, the text from a file or pipe\n"
	"  knit run story.gguf -p \"Dear\" -n 50 --temp 0       50 tokens, always the most likely one\n"
	"  knit run story.gguf -p \"Dear\" --seed 7             the same text every time\n"
	"  knit run stories.bin --tokenizer tok512.bin        a llama2.c model\n"
	"  knit run story.gguf -p \"$(cat mail.txt)\" -n 0 --save mail.kv     read a long text once\n"
	"  knit run story.gguf --load mail.kv -p \"In short:\"               and go on from it, as often as you like\n"
	"  knit run story.gguf --memory 4G --kv first,q8_0    as much context as 4 GiB hold, a slot per layer, 8 bits a number\n"
	"  knit run story.gguf --kv window=512,sinks=4 -n 100000    text without end in little memory\n"
	"  knit run story.gguf --visits 0,1,2,2,2,3,4         run layer 2 three times\n\n"
	"MODEL is a GGUF file, a llama2.c file, or a folder with model.safetensors and config.json.\n\n"
	"  -p, --prompt TEXT     the text to go on from; - reads it from stdin (as when stdin is no terminal)\n"
	"  -n, --tokens N        tokens to make, at most (256)\n"
	"      --temp T          0: always the most likely token; higher: freer (0.8)\n"
	"      --top-k K         choose among the K most likely tokens (0: all)\n"
	"      --top-p P         choose among the likeliest tokens that together reach P (0.95)\n"
	"      --seed N          repeat a choice (a new one each time; it is printed)\n"
	"      --sampler NAME    knit, or llama2c: the same choices as llama2.c for the same seed (knit)\n"
	"      --ctx N           positions to keep: prompt and new text together (the model's, at most 4096)\n"
	"      --endless         when the context is full, go on from its second half\n"
	"      --memory SIZE     use at most so much (4G, 512M): the largest context that fits, with the sum; --ctx beyond is refused\n"
	"      --kv SPEC         how keys and values are kept, items with commas between them:\n"
	"                        TYPE, or k=TYPE and v=TYPE: f32, f16, bf16, q8_0, q4_0 (f16; f32 with --sampler llama2c)\n"
	"                        visit: a slot per visit; layer: one per layer, the last visit's stays; first: one per layer,\n"
	"                        the first visit's, later visits only read; group:N: one per N adjacent layers\n"
	"                        window=N: only the last N positions are seen and kept; sinks=N: and the first N\n"
	"      --save FILE       keep the context in a file: slots and text, up to the last token made\n"
	"      --load FILE       go on from a saved context (same model, adapter, visits, --kv); -p is added to its text\n"
	"      --threads N       CPU threads (all cores)\n"
	"      --device ID       see knit devices (the best one); vulkan+cpu: what is read most on the first, the rest on the other\n"
	"      --device-memory SIZE  of a split like vulkan+cpu: what may lie on its first device (what that has free)\n"
	"      --tokenizer FILE  llama2.c tokenizer (the model's own, or tokenizer.bin or tok512.bin beside it)\n"
	"      --visits LIST     layers in the order in which they run: 0-3,2-3,4; 0-3x3 is three times 0-3\n"
	"      --loops N         run the model's loop N times: the whole stack, or the core between prelude and coda\n"
	"      --adapter FILE    LoRA matrices from a file of their own; none: without LoRA\n"
	"      --json            one JSON object instead of text: text, ids, timings, memory\n"
	"  -q, --quiet           no figures at the end\n";

typedef struct run_options {
	cli_common common;
	const char *prompt; /* NULL: not given */
	const char *save, *load;
	size_t tokens;
	knit_sampler_desc sampler;
	bool seed_given, quiet, endless;
} run_options;

/* Where pieces of text go: stdout as they come, or a buffer for --json. */
typedef struct sink {
	bool json;
	char *text;
	size_t bytes, cap;
	int error; /* errno of a failed write */
} sink;

static bool take_text(void *user, const char *text, size_t bytes) {
	sink *s = user;

	if (!s->json) {
		if (cli_write_all(STDOUT_FILENO, text, bytes))
			return true;
		s->error = errno;
		return false;
	}
	if (s->bytes + bytes > s->cap) {
		const size_t cap = (s->bytes + bytes) * 2;
		char *larger = realloc(s->text, cap);
		if (!larger) {
			s->error = ENOMEM;
			return false;
		}
		s->text = larger;
		s->cap = cap;
	}
	memcpy(s->text + s->bytes, text, bytes);
	s->bytes += bytes;
	return true;
}

static bool parse_number(const run_options *o, const char *name, double lo, double hi, double *out, int *code) {
	if (cli_parse_double(optarg, lo, hi, out))
		return true;
	*code = cli_usage(o->common.command, "%s \"%s\" is no number from %g to %g", name, optarg, lo, hi);
	return false;
}

static bool own_option(run_options *o, int option, char **argv, int *code) {
	double number = 0;
	int64_t n = 0;

	switch (option) {
	case 'p':
		o->prompt = optarg;
		return true;
	case 'n':
		if (!cli_parse_i64(optarg, 0, INT32_MAX, &n)) {
			*code = cli_usage("run", "-n \"%s\" is no number of tokens", optarg);
			return false;
		}
		o->tokens = (size_t)n;
		return true;
	case 'q':
		o->quiet = true;
		return true;
	case OPT_SAVE:
		o->save = optarg;
		return true;
	case OPT_LOAD:
		o->load = optarg;
		return true;
	case OPT_ENDLESS:
		o->endless = true;
		return true;
	case OPT_TEMP:
		if (!parse_number(o, "--temp", 0, 100, &number, code))
			return false;
		o->sampler.temperature = (float)number;
		return true;
	case OPT_TOP_K:
		if (!cli_parse_i64(optarg, 0, INT32_MAX, &n)) {
			*code = cli_usage("run", "--top-k \"%s\" is no number of tokens", optarg);
			return false;
		}
		o->sampler.top_k = (uint32_t)n;
		return true;
	case OPT_TOP_P:
		if (!parse_number(o, "--top-p", 0, 1, &number, code))
			return false;
		o->sampler.top_p = (float)number;
		return true;
	case OPT_SEED:
		if (!cli_parse_u64(optarg, &o->sampler.seed)) {
			*code = cli_usage("run", "--seed \"%s\" is no whole number", optarg);
			return false;
		}
		o->seed_given = true;
		return true;
	case OPT_SAMPLER:
		if (strcmp(optarg, "llama2c") != 0 && strcmp(optarg, "knit") != 0) {
			*code = cli_usage("run", "--sampler \"%s\" is neither knit nor llama2c", optarg);
			return false;
		}
		o->sampler.kind = strcmp(optarg, "llama2c") == 0 ? KNIT_SAMPLER_LLAMA2C : KNIT_SAMPLER_STANDARD;
		return true;
	default:
		return cli_common_option(&o->common, option, argv, code);
	}
}

static bool parse(run_options *o, int argc, char **argv, int *code) {
	static const struct option longs[] = {
		{"prompt", required_argument, NULL, 'p'},
		{"tokens", required_argument, NULL, 'n'},
		{"temp", required_argument, NULL, OPT_TEMP},
		{"top-k", required_argument, NULL, OPT_TOP_K},
		{"top-p", required_argument, NULL, OPT_TOP_P},
		{"seed", required_argument, NULL, OPT_SEED},
		{"save", required_argument, NULL, OPT_SAVE},
		{"load", required_argument, NULL, OPT_LOAD},
		{"endless", no_argument, NULL, OPT_ENDLESS},
		{"sampler", required_argument, NULL, OPT_SAMPLER},
		{"ctx", required_argument, NULL, CLI_OPT_CTX},
		{"kv", required_argument, NULL, CLI_OPT_KV},
		{"memory", required_argument, NULL, CLI_OPT_MEMORY},
		{"threads", required_argument, NULL, CLI_OPT_THREADS},
		{"device", required_argument, NULL, CLI_OPT_DEVICE},
		{"device-memory", required_argument, NULL, CLI_OPT_DEVICE_MEMORY},
		{"tokenizer", required_argument, NULL, CLI_OPT_TOKENIZER},
		{"visits", required_argument, NULL, CLI_OPT_VISITS},
		{"loops", required_argument, NULL, CLI_OPT_LOOPS},
		{"adapter", required_argument, NULL, CLI_OPT_ADAPTER},
		{"json", no_argument, NULL, CLI_OPT_JSON},
		{"quiet", no_argument, NULL, 'q'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int option;

	while ((option = getopt_long(argc, argv, ":p:n:qh", longs, NULL)) != -1) {
		if (option == 'h') {
			fputs(help, stdout);
			*code = cli_finish_stdout();
			return false;
		}
		if (!own_option(o, option, argv, code))
			return false;
	}
	if (!cli_operands(&o->common, argc, argv, NULL, NULL, code))
		return false;
	if (o->sampler.kind == KNIT_SAMPLER_LLAMA2C && o->sampler.top_k) {
		*code = cli_usage("run", "--sampler llama2c has no --top-k");
		return false;
	}
	if (o->endless && o->save) {
		*code = cli_usage("run", "--endless forgets the beginning of the text: it has no context to --save");
		return false;
	}
	if (!o->seed_given) /* a number that is easy to type again; never 0, which llama2.c does not take */
		o->sampler.seed = ((uint64_t)time(NULL) * 2654435761u ^ (uint64_t)getpid() * 40503u) % 1000000 + 1;
	return true;
}

/* The prompt's text: from -p, or stdin without its last newline. */
static int read_prompt(const run_options *o, char **text, size_t *bytes) {
	int code = CLI_OK;

	*text = NULL;
	*bytes = 0;
	if (o->prompt && strcmp(o->prompt, "-") != 0) {
		*text = strdup(o->prompt);
		*bytes = strlen(o->prompt);
		return *text ? CLI_OK : cli_fail("out of memory");
	}
	if (!o->prompt && isatty(STDIN_FILENO))
		return CLI_OK;
	code = cli_read_file("-", KNIT_LIMIT_TEXT_BYTES, text, bytes);
	if (code == CLI_OK && *bytes && (*text)[*bytes - 1] == '\n')
		--*bytes;
	return code;
}

static double rate(uint64_t n, uint64_t ns) {
	return ns ? (double)n * 1e9 / (double)ns : 0;
}

static void print_stop(const cli_model *m, const knit__generated *g, size_t asked) {
	switch (g->stop) {
	case KNIT__STOP_LENGTH:
		fprintf(stderr, "the %zu tokens asked for are made (-n)\n", asked);
		break;
	case KNIT__STOP_END:
		fprintf(stderr, "the model ended its text\n");
		break;
	case KNIT__STOP_CONTEXT:
		fprintf(stderr, "the context of %" PRId64 " positions is full (--ctx, --endless)\n", m->positions);
		break;
	case KNIT__STOP_INTERRUPT:
		fprintf(stderr, "interrupted\n");
		break;
	case KNIT__STOP_WRITER:
		fprintf(stderr, "nobody reads on\n");
		break;
	}
}

static void print_summary(const run_options *o, const cli_model *m, const knit__generated *g, size_t prompt_tokens) {
	knit_memory memory = {0};
	char a[32], b[32], slots[160];

	knit_program_memory(m->decoder.program, &memory);
	fprintf(stderr, "\nprompt     %8s tokens %10.1f tokens/s\n", cli_count(prompt_tokens, a),
			rate(prompt_tokens, g->prompt_ns));
	fprintf(stderr, "generated  %8s tokens %10.1f tokens/s   ", cli_count(g->ids.count, a),
			rate(g->decode_steps, g->decode_ns));
	print_stop(m, g, o->tokens);
	fprintf(stderr, "weights    %10s stored once", cli_bytes(memory.weight_bytes, a));
	if (memory.weight_bytes_by_use > memory.weight_bytes + memory.weight_bytes / 50)
		fprintf(stderr, "; %s as visited (%.1f x)", cli_bytes(memory.weight_bytes_by_use, b),
				(double)memory.weight_bytes_by_use / (double)memory.weight_bytes);
	if (memory.packed_bytes)
		fprintf(stderr, "; %s more packed for kernels", cli_bytes(memory.packed_bytes, b));
	if (memory.adapter_bytes)
		fprintf(stderr, "\nadapters   %10s LoRA of %u visits", cli_bytes(memory.adapter_bytes, a),
				(unsigned)m->model.config.visit_count);
	knit__kv_text(&m->kv, slots, sizeof slots);
	fprintf(stderr, "\nKV cache   %10s ", cli_bytes(memory.state_bytes, a));
	if (m->positions < KNIT__MAX_CONTEXT)
		fprintf(stderr, "%" PRId64 " positions, ", m->positions);
	fprintf(stderr, "%s\n", slots);
	fprintf(stderr, "arena      %10s", cli_bytes(memory.arena_bytes, a));
	fprintf(stderr, " no plan can be below %s", cli_bytes(memory.arena_lower_bound, a));
	fprintf(stderr, "; %s without sharing\n", cli_bytes(memory.arena_unshared, a));
	fprintf(stderr, "in, out    %10s\n", cli_bytes(memory.io_bytes, a));
	fprintf(stderr, "device     %10s", knit_program_device(m->decoder.program));
	if (o->sampler.temperature > 0)
		fprintf(stderr, " with --seed %" PRIu64 " it writes this again", o->sampler.seed);
	fputc('\n', stderr);
}

static cJSON *json_ids(const knit_token_list *list) {
	cJSON *array = cJSON_CreateArray();

	for (uint32_t i = 0; i < list->count; ++i)
		cJSON_AddItemToArray(array, cJSON_CreateNumber(list->ids[i]));
	return array;
}

static int print_json(const run_options *o, const cli_model *m, const knit__generated *g, const knit_token_list *prompt,
					  const sink *text) {
	cJSON *root = cJSON_CreateObject(), *timings = cJSON_CreateObject();
	knit_memory memory = {0};

	knit_program_memory(m->decoder.program, &memory);
	cJSON_AddItemToObject(root, "model", cli_json_text(o->common.model.path, strlen(o->common.model.path)));
	cJSON_AddStringToObject(root, "device", knit_program_device(m->decoder.program));
	cJSON_AddItemToObject(root, "text", cli_json_text(text->text ? text->text : "", text->bytes));
	cJSON_AddItemToObject(root, "prompt_ids", json_ids(prompt));
	cJSON_AddItemToObject(root, "ids", json_ids(&g->ids));
	cJSON_AddStringToObject(root, "stop", knit__stop_name(g->stop));
	cJSON_AddItemToObject(root, "seed",
						  o->sampler.temperature > 0 ? cli_json_u64(o->sampler.seed) : cJSON_CreateNull());
	cJSON_AddNumberToObject(root, "context", (double)m->positions);
	cJSON_AddItemToObject(root, "kv", cli_json_kv(&m->kv));
	if (o->common.memory) {
		cJSON_AddItemToObject(root, "memory_limit", cli_json_u64(o->common.memory));
		cJSON_AddNumberToObject(root, "context_that_fits", (double)m->fit.positions);
	}
	cJSON_AddItemToObject(timings, "prompt_ns", cli_json_u64(g->prompt_ns));
	cJSON_AddItemToObject(timings, "decode_ns", cli_json_u64(g->decode_ns));
	cJSON_AddItemToObject(timings, "decode_steps", cli_json_u64(g->decode_steps));
	cJSON_AddNumberToObject(timings, "prompt_tokens_per_s", rate(prompt->count, g->prompt_ns));
	cJSON_AddNumberToObject(timings, "decode_tokens_per_s", rate(g->decode_steps, g->decode_ns));
	cJSON_AddItemToObject(root, "timings", timings);
	cJSON_AddItemToObject(root, "memory", cli_json_memory(&memory));
	return cli_json_print(root);
}

static int report(const run_options *o, const cli_model *m, const knit__generated *g, const knit_token_list *prompt,
				  sink *text) {
	int code = CLI_OK;

	if (g->stop == KNIT__STOP_WRITER && text->error != EPIPE)
		return cli_fail("cannot write the text: %s", strerror(text->error));
	if (o->common.json)
		code = print_json(o, m, g, prompt, text);
	else if (g->stop != KNIT__STOP_WRITER)
		take_text(text, "\n", 1);
	if (!o->common.json && !o->quiet)
		print_summary(o, m, g, prompt->count);
	if (g->stop == KNIT__STOP_INTERRUPT)
		return CLI_INTERRUPTED;
	return g->stop == KNIT__STOP_WRITER ? CLI_PIPE_CLOSED : code;
}

/* What was made before an interrupt is worth keeping; half a prompt is not. */
static int save(const run_options *o, const cli_model *m, const knit__generated *g, const knit_token_list *prompt) {
	if (g->stop == KNIT__STOP_WRITER || (g->stop == KNIT__STOP_INTERRUPT && g->fed < prompt->count)) {
		fprintf(stderr, "knit: note: %s was not written\n", o->save);
		return CLI_OK;
	}
	const int code = cli_context_save(m, o->save, prompt, &g->ids, g->fed);
	if (code == CLI_OK && !o->quiet && !o->common.json)
		fprintf(stderr, "saved      %10zu positions in %s\n", g->fed, o->save);
	return code;
}

/* `fed` tokens of the prompt are in the slots; the text of `silent` was written when they were made. */
static int generate(const run_options *o, cli_model *m, const knit_token_list *prompt, size_t fed, size_t silent) {
	knit_sampler *sampler = NULL;
	knit_diag diag = {0};
	knit__generated g = {0};
	sink text = {.json = o->common.json};
	int code;

	knit_status status = knit__sampler_create(m->ctx, (uint32_t)m->model.config.vocab, &o->sampler, &sampler, &diag);
	if (status != KNIT_OK)
		return cli_fail_diag(status, &diag);
	const knit__generate_desc desc = {
		.decoder = &m->decoder,
		.tokenizer = m->model.tokenizer,
		.sampler = sampler,
		.prompt = prompt->ids,
		.prompt_tokens = prompt->count,
		.fed = fed,
		.silent = silent,
		.max_new = o->tokens,
		.endless = o->endless,
		.interrupted = &cli_interrupted,
		.write = take_text,
		.user = &text,
	};
	status = knit__generate(m->ctx, &desc, &g, &diag);
	code = status == KNIT_OK ? report(o, m, &g, prompt, &text) : cli_fail_diag(status, &diag);
	if (status == KNIT_OK && o->save) {
		const int saved = save(o, m, &g, prompt);
		code = saved == CLI_OK ? code : saved;
	}
	free(text.text);
	knit__token_list_clear(&g.ids);
	knit__sampler_destroy(sampler);
	return code;
}

static void print_fit(const cli_model *m, int64_t positions) {
	if (m->fit.positions < KNIT__MAX_CONTEXT)
		fprintf(stderr, "memory: the largest context that fits has %" PRId64 " positions", m->fit.positions);
	else
		fprintf(stderr, "memory: any context fits");
	if (positions && positions != m->fit.positions)
		fprintf(stderr, ", %" PRId64 " are used", positions);
	fputc('\n', stderr);
	cli_print_fit(stderr, &m->fit);
}

/* The prompt's tokens: behind those of a loaded context, from the beginning of a text otherwise. */
static int add_prompt(const run_options *o, const cli_model *m, const char *text, size_t bytes, knit_token_list *prompt) {
	knit_diag diag = {0};
	knit_status status = KNIT_OK;

	if (!o->load)
		status = knit__encode_prompt(m->model.tokenizer, text, bytes, prompt, &diag);
	else if (bytes)
		status = knit__tokenizer_encode(m->model.tokenizer, text, bytes, prompt, &diag);
	return status == KNIT_OK ? CLI_OK : cli_fail_diag(status, &diag);
}

static int check_room(const cli_model *m, const knit_token_list *prompt) {
	if (prompt->count <= (uint64_t)m->positions)
		return CLI_OK;
	return cli_fail("the prompt has %u tokens, the context %" PRId64 " positions: shorten it or raise --ctx",
					(unsigned)prompt->count, m->positions);
}

static int compile(const run_options *o, cli_model *m) {
	int64_t positions = 0;
	int code = cli_model_context(&o->common, m, BATCH, 1, &positions);

	if (code == CLI_OK && o->common.memory && !o->quiet)
		print_fit(m, positions);
	return code == CLI_OK ? cli_model_compile(&o->common, m, positions, BATCH, 1) : code;
}

static int run(const run_options *o, cli_model *m, const char *text, size_t bytes) {
	knit_token_list prompt = {0};
	size_t fed = 0, silent = 0;
	int code = cli_model_open(&o->common, m);

	if (code != CLI_OK)
		return code;
	cli_model_set_kv(&o->common, m, o->sampler.kind == KNIT_SAMPLER_LLAMA2C ? KNIT_F32 : KNIT_F16);
	prompt.a = &m->ctx->a;
	if (!o->load)
		code = add_prompt(o, m, text, bytes, &prompt);
	if (code == CLI_OK)
		code = compile(o, m);
	if (code == CLI_OK && o->load) {
		code = cli_context_load(m, o->load, &prompt, &fed);
		silent = prompt.count;
		if (code == CLI_OK)
			code = add_prompt(o, m, text, bytes, &prompt);
		if (fed == prompt.count && fed) /* the logits to go on from are those of the last token */
			--fed;
	}
	if (code == CLI_OK)
		code = check_room(m, &prompt);
	if (code == CLI_OK)
		code = generate(o, m, &prompt, fed, silent);
	knit__token_list_clear(&prompt);
	return code;
}

int cli_run(int argc, char **argv) {
	run_options o = {
		.common = {.command = "run", .model.tokenizer = KNIT__TOKENIZER_NEEDED},
		.tokens = DEFAULT_TOKENS,
		.sampler = {.temperature = 0.8f, .top_p = 0.95f},
	};
	cli_model m = {0};
	char *text = NULL;
	size_t bytes = 0;
	int code = CLI_OK;

	if (!parse(&o, argc, argv, &code))
		return code;
	cli_catch_interrupts();
	code = read_prompt(&o, &text, &bytes);
	if (code == CLI_OK)
		code = run(&o, &m, text ? text : "", bytes);
	cli_model_close(&m);
	free(text);
	return code;
}
