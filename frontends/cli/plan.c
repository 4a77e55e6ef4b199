/* knit plan: what a model costs before it runs, with the proof. Compiles without making a weight resident. */
#include "plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 64, DEFAULT_PROMPT = 512, MAX_PROMPT = 1 << 17 };
enum { OPT_HTML = CLI_OPT_OWN, OPT_PROMPT, OPT_CSV };

static const char help[] =
	"knit plan MODEL: what a model costs before it runs, with the proof: weights and what sharing saves, KV cache, memory\n"
	"for activations beside the least that is possible, bytes and FLOP per token, the steps and what they were made of.\n\n"
	"  knit plan story.gguf                        the certificate as text\n"
	"  knit plan story.gguf --html plan.html       the same as a page: graph, memory timeline, tables\n"
	"  knit plan story.gguf --loops 8 --ctx 4096   what if the loop ran 8 times\n"
	"  knit plan story.gguf --json                 all of it, for programs\n"
	"  knit plan --csv blocks.csv                  place bare blocks: id,lower,upper,size (alive from lower up to upper)\n\n"
	"      --ctx N           positions of the KV slots, and how many one token of decode sees (the model's, at most 4096)\n"
	"      --prompt N        tokens of the prompt whose prefill is added up (the context, at most 512)\n"
	"      --html FILE       one page without links to anything; it appears when it is complete\n"
	"      --json            one JSON object\n"
	"      --csv FILE        blocks instead of a model; - is stdin\n"
	"  -o, --output FILE     with --csv: where the offsets go; the file appears when it is complete\n"
	"      --device ID       whose kernels: see knit devices (the best one); null: any; vulkan+cpu: split over two\n"
	"      --device-memory SIZE  of a split: what may lie on its first device (what that has free)\n"
	"      --kv SPEC         KV slots, as in knit run --help (f16)\n"
	"      --memory SIZE     the context that fits: 4G, 512M\n"
	"      --visits LIST     layers in the order in which they run: 0-3,2-3,4; 0-3x3 is three times 0-3\n"
	"      --loops N         run the model's loop N times: the whole stack, or the core between prelude and coda\n"
	"      --adapter FILE    LoRA matrices from a file of their own; none: without LoRA\n";

typedef struct plan_options {
	cli_common common;
	const char *html, *csv, *output;
	int64_t prompt; /* 0: not given */
} plan_options;

/* ---- the report -------------------------------------------------------------------------------------------------- */

typedef struct pieces {
	char *text;
	size_t bytes, cap;
	bool failed;
} pieces;

static void take(void *user, const char *text, size_t bytes) {
	pieces *p = user;

	if (p->failed)
		return;
	if (p->bytes + bytes + 1 > p->cap) {
		const size_t cap = (p->bytes + bytes + 1) * 2;
		char *larger = realloc(p->text, cap);
		if (!larger) {
			p->failed = true;
			return;
		}
		p->text = larger;
		p->cap = cap;
	}
	memcpy(p->text + p->bytes, text, bytes);
	p->bytes += bytes;
	p->text[p->bytes] = '\0';
}

static int collect(const plan_options *o, cli_model *m, cli_certificate *plan) {
	const knit__decoder_config *c = &m->model.config;
	const int64_t context = m->positions < KNIT__MAX_CONTEXT ? m->positions : 0; /* 0: what the slots hold */
	pieces got = {0};

	memset(plan, 0, sizeof *plan);
	plan->common = &o->common;
	plan->m = m;
	plan->prompt = o->prompt ? o->prompt : context && context < DEFAULT_PROMPT ? context : DEFAULT_PROMPT;
	plan->kv_bytes_per_token = knit__decoder_kv_bytes(c, m->kv.k, m->kv.v);
	const knit_report_desc desc = {.context = context, .prompt = plan->prompt};
	knit_status status = knit_program_memory(m->decoder.program, &plan->memory);
	if (status == KNIT_OK)
		status = knit__decoder_count_parameters(c, m->model.file.store, m->model.adapters, &plan->parameters);
	if (status == KNIT_OK)
		status = knit_program_report(m->decoder.program, &desc, take, &got);
	if (status == KNIT_OK && !got.failed)
		plan->report = cJSON_ParseWithLength(got.text, got.bytes);
	free(got.text);
	return plan->report ? CLI_OK : cli_fail("out of memory");
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static cJSON *json_model(const cli_certificate *plan) {
	const knit__model *model = &plan->m->model;
	const knit__decoder_config *c = &model->config;
	const char *path = plan->common->model.path;
	cJSON *root = cJSON_CreateObject(), *visits = cJSON_CreateArray(), *stands_for = cJSON_CreateArray();
	cJSON *loops = cJSON_CreateObject();
	const struct {
		const char *name;
		int64_t value;
	} rows[] = {
		{"layers", c->layers},      {"embedding_length", c->dim}, {"feed_forward_length", c->ffn}, {"heads", c->heads},
		{"kv_heads", c->kv_heads},  {"head_dim", c->head_dim},    {"vocabulary", c->vocab},        {"context", c->context},
		{"lora_rank", model->adapters ? c->lora_rank : 0},
	};

	cJSON_AddItemToObject(root, "path", cli_json_text(path, strlen(path)));
	cJSON_AddStringToObject(root, "format", knit__model_format_name(model->file.format));
	cJSON_AddItemToObject(root, "file_bytes", cli_json_u64(model->file.file_bytes));
	cJSON_AddStringToObject(root, "architecture", c->architecture);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i)
		cJSON_AddNumberToObject(root, rows[i].name, (double)rows[i].value);
	cJSON_AddBoolToObject(root, "head_tied", c->tied);
	for (uint32_t v = 0; v < c->visit_count; ++v) {
		cJSON_AddItemToArray(visits, cJSON_CreateNumber(c->visits[v]));
		cJSON_AddItemToArray(stands_for,
							 c->stands_for[v] == KNIT__NO_VISIT ? cJSON_CreateNull() : cJSON_CreateNumber(c->stands_for[v]));
	}
	cJSON_AddItemToObject(root, "visits", visits);
	cJSON_AddItemToObject(root, "visit_stands_for", stands_for);
	cJSON_AddNumberToObject(loops, "count", c->loops.loops);
	cJSON_AddNumberToObject(loops, "prelude", c->loops.prelude);
	cJSON_AddNumberToObject(loops, "core", c->loops.core);
	cJSON_AddNumberToObject(loops, "coda", c->loops.coda);
	cJSON_AddItemToObject(root, "loops", loops);
	return root;
}

cJSON *cli_plan_json(cli_certificate *plan) {
	const knit_memory *m = &plan->memory;
	cJSON *root = cJSON_CreateObject(), *parameters = cJSON_CreateObject(), *kv = cli_json_kv(&plan->m->kv);
	char version[32];

	snprintf(version, sizeof version, "%d.%d.%d", KNIT_VERSION_MAJOR, KNIT_VERSION_MINOR, KNIT_VERSION_PATCH);
	cJSON_AddStringToObject(root, "schema", "knit.plan/1");
	cJSON_AddStringToObject(root, "knit", version);
	cJSON_AddItemToObject(root, "model", json_model(plan));
	cJSON_AddItemToObject(parameters, "unique", cli_json_u64(plan->parameters.unique + plan->parameters.lora));
	cJSON_AddItemToObject(parameters, "visited", cli_json_u64(plan->parameters.visited + plan->parameters.lora));
	cJSON_AddItemToObject(parameters, "lora", cli_json_u64(plan->parameters.lora));
	cJSON_AddItemToObject(root, "parameters", parameters);
	if (plan->m->positions < KNIT__MAX_CONTEXT)
		cJSON_AddNumberToObject(root, "context", (double)plan->m->positions);
	else
		cJSON_AddNullToObject(root, "context"); /* a window: no end */
	cJSON_AddItemToObject(kv, "bytes_per_token", cli_json_u64(plan->kv_bytes_per_token));
	cJSON_AddItemToObject(kv, "bytes", cli_json_u64(m->state_bytes));
	cJSON_AddItemToObject(root, "kv", kv);
	cJSON_AddItemToObject(root, "total_bytes",
						  cli_json_u64(m->weight_bytes + m->adapter_bytes + m->packed_bytes + m->state_bytes +
									   m->arena_bytes + m->io_bytes));
	cJSON_AddItemToObject(root, "report", plan->report);
	plan->report = NULL;
	return root;
}

/* ---- command ----------------------------------------------------------------------------------------------------- */

static int run(plan_options *o, cli_model *m) {
	cli_certificate plan;
	int64_t positions = 0;
	int code = cli_model_open(&o->common, m);

	if (code != CLI_OK)
		return code;
	cli_model_set_kv(&o->common, m, KNIT_F16);
	code = cli_model_context(&o->common, m, BATCH, 1, &positions);
	if (code == CLI_OK)
		code = cli_model_compile(&o->common, m, positions, positions && positions < BATCH ? positions : BATCH, 1);
	if (code == CLI_OK)
		code = collect(o, m, &plan);
	if (code != CLI_OK)
		return code;
	if (o->html)
		code = cli_plan_page(&plan, cli_plan_json(&plan), o->html);
	else
		code = o->common.json ? cli_json_print(cli_plan_json(&plan)) : cli_plan_print(&plan);
	cJSON_Delete(plan.report);
	return code;
}

int cli_plan(int argc, char **argv) {
	static const struct option longs[] = {
		{"html", required_argument, NULL, OPT_HTML},
		{"csv", required_argument, NULL, OPT_CSV},
		{"output", required_argument, NULL, 'o'},
		{"prompt", required_argument, NULL, OPT_PROMPT},
		{"ctx", required_argument, NULL, CLI_OPT_CTX},
		{"device", required_argument, NULL, CLI_OPT_DEVICE},
		{"device-memory", required_argument, NULL, CLI_OPT_DEVICE_MEMORY},
		{"kv", required_argument, NULL, CLI_OPT_KV},
		{"memory", required_argument, NULL, CLI_OPT_MEMORY},
		{"visits", required_argument, NULL, CLI_OPT_VISITS},
		{"loops", required_argument, NULL, CLI_OPT_LOOPS},
		{"adapter", required_argument, NULL, CLI_OPT_ADAPTER},
		{"json", no_argument, NULL, CLI_OPT_JSON},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	plan_options o = {.common = {.command = "plan", .plan_only = true, .model.skip_finite_check = true}};
	cli_model m = {0};
	int option, code = CLI_OK;

	while ((option = getopt_long(argc, argv, ":o:h", longs, NULL)) != -1) {
		if (option == 'h') {
			fputs(help, stdout);
			return cli_finish_stdout();
		}
		if (option == OPT_HTML)
			o.html = optarg;
		else if (option == OPT_CSV)
			o.csv = optarg;
		else if (option == 'o')
			o.output = optarg;
		else if (option == OPT_PROMPT && !cli_parse_i64(optarg, 1, MAX_PROMPT, &o.prompt))
			return cli_usage("plan", "--prompt \"%s\" is no number of tokens from 1 to %d", optarg, (int)MAX_PROMPT);
		else if (option != OPT_PROMPT && !cli_common_option(&o.common, option, argv, &code))
			return code;
	}
	if (o.csv && (optind < argc || o.html))
		return cli_usage("plan", "--csv takes blocks instead of a model: %s is too much", o.html ? "--html" : argv[optind]);
	if (o.csv)
		return cli_plan_csv(o.csv, o.output, o.common.json);
	if (o.output)
		return cli_usage("plan", "-o is for the offsets of --csv; a page is --html %s", o.output);
	if (!cli_operands(&o.common, argc, argv, NULL, NULL, &code))
		return code;
	if (o.html && o.common.json)
		return cli_usage("plan", "--html and --json: give one of them");
	code = run(&o, &m);
	cli_model_close(&m);
	return code;
}
