/* knit eval: how well a model predicts a text. */
#include "cli.h"

#include "../formats/limits.h"
#include "../text/generate.h"
#include "../text/perplexity.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEFAULT_POSITIONS = 4096, BATCH = 64, MAX_LOGITS = 1 << 22, MAX_IDS_BYTES = 1 << 28 };
enum { OPT_LAST = CLI_OPT_OWN, OPT_WINDOWS, OPT_IDS };

static const char help[] =
	"knit eval MODEL FILE: how well the model predicts a text, in nats per token (the mean of -log p) and per byte.\n\n"
	"  knit eval story.gguf book.txt                       the whole text\n"
	"  knit eval story.gguf book.txt --last-fraction 0.1   its last tenth only, where training saw the rest\n"
	"  knit eval story.gguf book.txt --windows 20          a quick estimate\n"
	"  knit eval stories.bin --ids stream.u16 --ctx 256    token ids, 16 bits each, instead of text\n\n"
	"The text is cut into windows of --ctx tokens that do not overlap; each starts from an empty context. A model\n"
	"with a BOS token sees BOS first and predicts all of them; for one without, the first is context only. With --ids\n"
	"the stream holds its own BOS tokens: each of --ctx inputs predicts the id after it, and what fills no window is\n"
	"left out. The standard error comes from the spread of whole windows.\n\n"
	"      --ctx N             tokens in a window (the model's context, at most 4096)\n"
	"      --last-fraction F   measure the last part of the file only, from byte floor((1 - F) x size)\n"
	"      --windows N         stop after N windows\n"
	"      --ids FILE          little-endian 16-bit token ids instead of FILE\n"
	"      --kv SPEC           KV slots: types, policy, window, as in knit run --help (f32)\n"
	"      --threads N         CPU threads (all cores)\n"
	"      --device ID         see knit devices (the best one); vulkan+cpu: split over two\n"
	"      --device-memory SIZE  of a split: what may lie on its first device (what that has free)\n"
	"      --tokenizer FILE    llama2.c tokenizer (the model's own, or tokenizer.bin or tok512.bin beside it)\n"
	"      --visits LIST       layers in the order in which they run: 0-3,2-3,4; 0-3x3 is three times 0-3\n"
	"      --loops N           run the model's loop N times: the whole stack, or the core between prelude and coda\n"
	"      --adapter FILE      LoRA matrices from a file of their own; none: without LoRA\n"
	"      --json              one JSON object\n";

typedef struct eval_options {
	cli_common common;
	const char *file, *ids;
	double last_fraction; /* 0: the whole file */
	size_t windows;
} eval_options;

static void progress(void *user, size_t done, size_t windows, double mean) {
	const uint64_t begin = *(const uint64_t *)user, ns = knit__clock_ns() - begin;
	char bar[21];
	const size_t full = done * (sizeof bar - 1) / windows;

	for (size_t i = 0; i + 1 < sizeof bar; ++i)
		bar[i] = i < full ? '#' : '.';
	bar[sizeof bar - 1] = '\0';
	fprintf(stderr, "\r[%s] %zu of %zu windows, %.4f nats per token, %.0f s left ", bar, done, windows, mean,
			(double)ns / 1e9 * (double)(windows - done) / (double)done);
	if (done == windows)
		fprintf(stderr, "\r%79s\r", "");
}

/* The part of the file that is asked for, from a whole UTF-8 character on. */
static size_t first_byte(const eval_options *o, const char *text, size_t bytes) {
	size_t begin = o->last_fraction > 0 ? (size_t)floor((1 - o->last_fraction) * (double)bytes) : 0;

	for (int i = 0; i < 3 && begin > 0 && begin < bytes && ((uint8_t)text[begin] & 0xc0) == 0x80; ++i)
		++begin;
	return begin;
}

static int read_ids(const eval_options *o, knit_token_list *list) {
	char *data = NULL;
	size_t bytes = 0;
	const int code = cli_read_file(o->ids, MAX_IDS_BYTES, &data, &bytes);

	if (code != CLI_OK)
		return code;
	if (bytes % 2 != 0) {
		free(data);
		return cli_fail("%s: %zu bytes are no whole number of 16-bit ids", o->ids, bytes);
	}
	if (!knit__grow(list->a, (void **)&list->ids, &list->cap, (uint32_t)(bytes / 2), sizeof *list->ids)) {
		free(data);
		return cli_fail("out of memory");
	}
	for (size_t i = 0; i < bytes / 2; ++i)
		list->ids[i] = (uint8_t)data[2 * i] | (uint8_t)data[2 * i + 1] << 8;
	list->count = (uint32_t)(bytes / 2);
	free(data);
	return CLI_OK;
}

static int read_text(const eval_options *o, const cli_model *m, knit_token_list *list) {
	knit_diag diag = {0};
	char *text = NULL;
	size_t bytes = 0;
	const int code = cli_read_file(o->file, KNIT_LIMIT_TEXT_BYTES, &text, &bytes);

	if (code != CLI_OK)
		return code;
	const size_t begin = first_byte(o, text, bytes);
	const knit_status status = knit__tokenizer_encode(m->model.tokenizer, text + begin, bytes - begin, list, &diag);
	free(text);
	return status == KNIT_OK ? CLI_OK : cli_fail_diag(status, &diag);
}

static int print_json(const eval_options *o, const cli_model *m, const knit__perplexity *p) {
	const char *file = o->ids ? o->ids : o->file;
	cJSON *root = cJSON_CreateObject();

	cJSON_AddItemToObject(root, "model", cli_json_text(o->common.model.path, strlen(o->common.model.path)));
	cJSON_AddItemToObject(root, "file", cli_json_text(file, strlen(file)));
	cJSON_AddStringToObject(root, "device", knit_program_device(m->decoder.program));
	cJSON_AddNumberToObject(root, "context", (double)m->positions);
	cJSON_AddItemToObject(root, "kv", cli_json_kv(&m->kv));
	cJSON_AddNumberToObject(root, "windows", (double)p->windows);
	cJSON_AddItemToObject(root, "tokens", cli_json_u64(p->tokens));
	cJSON_AddNumberToObject(root, "nats_per_token", p->mean);
	cJSON_AddNumberToObject(root, "standard_error", p->standard_error);
	cJSON_AddNumberToObject(root, "perplexity", exp(p->mean));
	if (p->bytes) {
		cJSON_AddItemToObject(root, "bytes", cli_json_u64(p->bytes));
		cJSON_AddNumberToObject(root, "nats_per_byte", p->nats / (double)p->bytes);
		cJSON_AddNumberToObject(root, "bits_per_byte", p->nats / (double)p->bytes / log(2));
	}
	cJSON_AddNumberToObject(root, "seconds", (double)p->ns / 1e9);
	cJSON_AddBoolToObject(root, "complete", !p->interrupted);
	return cli_json_print(root);
}

static int print_text(const cli_model *m, const knit__perplexity *p) {
	char a[32], b[32];

	printf("nats per token  %.4f +- %.4f   perplexity %.3f\n", p->mean, p->standard_error, exp(p->mean));
	if (p->bytes) {
		const double per_byte = p->nats / (double)p->bytes;
		printf("nats per byte   %.4f +- %.4f   %.4f bits\n", per_byte,
			   p->standard_error * (double)p->tokens / (double)p->bytes, per_byte / log(2));
	}
	printf("measured on     %s tokens, %s bytes, %zu windows of %" PRId64 "\n", cli_count(p->tokens, a),
		   cli_count(p->bytes, b), p->windows, m->positions);
	printf("speed           %.1f tokens/s on %s\n", p->ns ? (double)p->tokens * 1e9 / (double)p->ns : 0,
		   knit_program_device(m->decoder.program));
	return cli_finish_stdout();
}

static int measure(const eval_options *o, cli_model *m, const knit_token_list *list) {
	const knit_tokenizer *t = m->model.tokenizer;
	uint64_t begin = knit__clock_ns();
	const knit__perplexity_desc desc = {
		.decoder = &m->decoder,
		.ids = list->ids,
		.count = list->count,
		.cut = o->ids ? KNIT__CUT_STREAM : KNIT__CUT_TEXT,
		.window = (size_t)m->positions,
		.bos = t && knit__tokenizer_wants_bos(t) ? knit__tokenizer_bos(t) : -1,
		.max_windows = o->windows,
		.tokenizer = t,
		.interrupted = &cli_interrupted,
		.progress = isatty(STDERR_FILENO) ? progress : NULL,
		.user = &begin,
	};
	knit__perplexity p;
	knit_diag diag = {0};
	const knit_status status = knit__perplexity_measure(m->ctx, &desc, &p, &diag);

	if (status != KNIT_OK)
		return cli_fail_diag(status, &diag);
	if (p.interrupted)
		fprintf(stderr, "\nknit: interrupted after %zu of %zu windows\n", p.windows, p.windows_total);
	const int code = o->common.json ? print_json(o, m, &p) : print_text(m, &p);
	return p.interrupted ? CLI_INTERRUPTED : code;
}

static int evaluate(const eval_options *o, cli_model *m) {
	knit_token_list list = {0};
	int code = cli_model_open(&o->common, m);

	if (code != CLI_OK)
		return code;
	const int64_t context = m->model.config.context, vocab = m->model.config.vocab;
	const int64_t positions = o->common.ctx ? o->common.ctx : context < DEFAULT_POSITIONS ? context : DEFAULT_POSITIONS;
	/* Every row's logits are needed: a large vocabulary takes smaller batches. */
	int64_t batch = MAX_LOGITS / vocab < BATCH ? MAX_LOGITS / vocab : BATCH;
	batch = batch < 1 ? 1 : batch > positions ? positions : batch;

	cli_model_set_kv(&o->common, m, KNIT_F32);
	list.a = &m->ctx->a;
	code = o->ids ? read_ids(o, &list) : read_text(o, m, &list);
	if (code == CLI_OK)
		code = cli_model_compile(&o->common, m, positions, batch, batch);
	if (code == CLI_OK)
		code = measure(o, m, &list);
	knit__token_list_clear(&list);
	return code;
}

static bool own_option(eval_options *o, int option, char **argv, int *code) {
	int64_t n = 0;

	switch (option) {
	case OPT_LAST:
		if (cli_parse_double(optarg, 0, 1, &o->last_fraction) && o->last_fraction > 0)
			return true;
		*code = cli_usage("eval", "--last-fraction \"%s\" is no number above 0 and up to 1", optarg);
		return false;
	case OPT_WINDOWS:
		if (!cli_parse_i64(optarg, 1, INT32_MAX, &n)) {
			*code = cli_usage("eval", "--windows \"%s\" is no number from 1", optarg);
			return false;
		}
		o->windows = (size_t)n;
		return true;
	case OPT_IDS:
		o->ids = optarg;
		return true;
	default:
		return cli_common_option(&o->common, option, argv, code);
	}
}

int cli_eval(int argc, char **argv) {
	static const struct option longs[] = {
		{"last-fraction", required_argument, NULL, OPT_LAST},
		{"windows", required_argument, NULL, OPT_WINDOWS},
		{"ids", required_argument, NULL, OPT_IDS},
		{"ctx", required_argument, NULL, CLI_OPT_CTX},
		{"kv", required_argument, NULL, CLI_OPT_KV},
		{"threads", required_argument, NULL, CLI_OPT_THREADS},
		{"device", required_argument, NULL, CLI_OPT_DEVICE},
		{"device-memory", required_argument, NULL, CLI_OPT_DEVICE_MEMORY},
		{"tokenizer", required_argument, NULL, CLI_OPT_TOKENIZER},
		{"visits", required_argument, NULL, CLI_OPT_VISITS},
		{"loops", required_argument, NULL, CLI_OPT_LOOPS},
		{"adapter", required_argument, NULL, CLI_OPT_ADAPTER},
		{"json", no_argument, NULL, CLI_OPT_JSON},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	eval_options o = {.common = {.command = "eval"}};
	cli_model m = {0};
	int option, code = CLI_OK;

	while ((option = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
		if (option == 'h') {
			fputs(help, stdout);
			return cli_finish_stdout();
		}
		if (!own_option(&o, option, argv, &code))
			return code;
	}
	if (!cli_operands(&o.common, argc, argv, o.ids ? NULL : &o.file, "text FILE", &code))
		return code;
	o.common.model.tokenizer = o.ids ? KNIT__TOKENIZER_IF_THERE : KNIT__TOKENIZER_NEEDED;
	cli_catch_interrupts();
	code = evaluate(&o, &m);
	cli_model_close(&m);
	return code;
}
