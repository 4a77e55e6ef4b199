/* knit tie: writes a GGUF file in which tensors with equal bytes are there once. */
#include "cli.h"

#include "../formats/gguf_write.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPT_PORTABLE = CLI_OPT_OWN };
enum { SHOWN_GROUPS = 12, SHOWN_NAMES = 6 };

static const char help[] =
	"knit tie IN OUT: finds tensors with equal bytes in a GGUF file and writes them once.\n\n"
	"  knit tie story.gguf tied.gguf               every name stays, equal ones point at the same bytes\n"
	"  knit tie story.gguf tied.gguf --portable    a file that every reader of GGUF takes\n\n"
	"knit reads a file whose tensors share bytes as it reads any other. Other programs may not: those built on ggml\n"
	"want each tensor's bytes behind the one before and refuse such a file. An output.weight that equals\n"
	"token_embd.weight is left out instead, which readers of llama models understand as a tied head; --portable does\n"
	"only that. Values are never changed: knit finds equal tensors when it opens a file, so tying saves bytes of the\n"
	"file, not of memory.\n\n"
	"      --portable        leave out a tied head, write all other tensors in full\n"
	"      --json            one JSON object\n";

typedef struct tie {
	const char *in, *out;
	bool portable, json;
	knit_context *ctx;
	knit_model_file file;
	knit_gguf_out *tensors;
	uint32_t count, shared; /* shared: names whose bytes another one has */
	bool head_left_out;
} tie;

static bool progress(void *user, uint64_t done, uint64_t total) {
	(void)user;
	char bar[31];

	if (cli_interrupted)
		return false;
	/* Not for files that are written in the wink of an eye. */
	if (!isatty(STDERR_FILENO) || total < UINT64_C(1) << 26)
		return true;
	const size_t full = total ? (size_t)(done * (sizeof bar - 1) / total) : 0;
	for (size_t i = 0; i + 1 < sizeof bar; ++i)
		bar[i] = i < full ? '#' : '.';
	bar[sizeof bar - 1] = '\0';
	fprintf(stderr, "\r[%s] %s of %s ", bar, cli_bytes(done, (char[32]){0}), cli_bytes(total, (char[32]){0}));
	if (done == total)
		fprintf(stderr, "\r%79s\r", "");
	return true;
}

/* A head that readers of llama models do not miss: an output matrix with the bytes and shape of the embedding. */
static bool is_tied_head(const knit_model_file *file, const knit_weight_entry *e) {
	const knit_weight_entry *embd = knit__weights_get(file->store, "token_embd.weight");
	const char *architecture = "";

	if (strcmp(e->name, "output.weight") != 0 || !embd || e->storage != embd->storage || e->rank != embd->rank ||
		memcmp(e->dims, embd->dims, (size_t)e->rank * sizeof *e->dims) != 0)
		return false;
	(void)knit__metadata_string(&file->metadata, "general.architecture", &architecture, NULL);
	return strcmp(architecture, "llama") == 0 || strcmp(architecture, "knit") == 0;
}

static int choose(tie *t) {
	const knit_weights *store = t->file.store;
	uint32_t *written = calloc(store->count + 1, sizeof *written); /* storage -> index in tensors + 1 */

	t->tensors = calloc(store->count + 1, sizeof *t->tensors);
	if (!written || !t->tensors) {
		free(written);
		return cli_fail("out of memory");
	}
	for (uint32_t i = 0; i < store->count; ++i) {
		const knit_weight_entry *e = &store->entries[i];
		if (is_tied_head(&t->file, e)) {
			t->head_left_out = true;
			continue;
		}
		knit_gguf_out *o = &t->tensors[t->count];
		*o = (knit_gguf_out){e->name, e->dtype, e->rank, {0}, e->data, e->bytes, t->count};
		memcpy(o->dims, e->dims, sizeof o->dims);
		if (written[e->storage] && !t->portable) {
			o->same_as = written[e->storage] - 1;
			++t->shared;
		} else if (!written[e->storage]) {
			written[e->storage] = t->count + 1;
		}
		++t->count;
	}
	free(written);
	return CLI_OK;
}

/* One line for a tensor and those that share its bytes. */
static void print_group(const tie *t, uint32_t owner) {
	uint32_t names = 1;

	printf("shared  %s", t->tensors[owner].name);
	for (uint32_t k = owner + 1; k < t->count; ++k)
		if (t->tensors[k].same_as == owner && ++names <= SHOWN_NAMES)
			printf(" = %s", t->tensors[k].name);
	if (names > SHOWN_NAMES)
		printf(" and %u more", (unsigned)(names - SHOWN_NAMES));
	printf(" (saves %s)\n", cli_bytes(t->tensors[owner].bytes * (names - 1), (char[32]){0}));
}

static void print_groups(const tie *t) {
	uint32_t groups = 0;

	for (uint32_t k = 0; k < t->count; ++k) {
		const uint32_t owner = t->tensors[k].same_as;
		bool first = owner != k;
		for (uint32_t i = owner + 1; i < k && first; ++i)
			first = t->tensors[i].same_as != owner;
		if (!first)
			continue;
		if (++groups > SHOWN_GROUPS) {
			printf("shared  ...\n");
			return;
		}
		print_group(t, owner);
	}
}

static int print_result(const tie *t, uint64_t written) {
	const uint64_t before = t->file.file_bytes, saved = before > written ? before - written : 0;
	char a[32], b[32];

	if (t->json) {
		cJSON *root = cJSON_CreateObject();
		cJSON_AddItemToObject(root, "in", cli_json_text(t->in, strlen(t->in)));
		cJSON_AddItemToObject(root, "out", cli_json_text(t->out, strlen(t->out)));
		cJSON_AddItemToObject(root, "in_bytes", cli_json_u64(before));
		cJSON_AddItemToObject(root, "out_bytes", cli_json_u64(written));
		cJSON_AddItemToObject(root, "saved_bytes", cli_json_u64(saved));
		cJSON_AddNumberToObject(root, "tensors", t->count);
		cJSON_AddNumberToObject(root, "shared_tensors", t->shared);
		cJSON_AddBoolToObject(root, "head_left_out", t->head_left_out);
		cJSON_AddBoolToObject(root, "portable", t->shared == 0);
		return cli_json_print(root);
	}
	if (t->head_left_out)
		printf("tied    output.weight equals token_embd.weight: left out, readers take the embedding\n");
	print_groups(t);
	printf("%s  %s -> %s: %s (%" PRIu64 " bytes) saved", t->out, cli_bytes(before, a), cli_bytes(written, b),
		   cli_bytes(saved, (char[32]){0}), saved);
	if (t->shared)
		printf("; knit reads it, other programs may not (--portable)\n");
	else
		printf("; every reader of GGUF takes it\n");
	return cli_finish_stdout();
}

static int write_file(tie *t) {
	const knit_gguf_write_desc desc = {
		.metadata = &t->file.metadata, .tensors = t->tensors, .count = t->count, .progress = progress};
	uint64_t written = 0;
	knit_diag diag = {0};
	const knit_status status = knit__gguf_write(&t->ctx->a, t->out, &desc, &written, &diag);

	if (status == KNIT_ERR_STATE && cli_interrupted) {
		fprintf(stderr, "\nknit: interrupted, %s is not written\n", t->out);
		return CLI_INTERRUPTED;
	}
	return status == KNIT_OK ? print_result(t, written) : cli_fail_diag(status, &diag);
}

static int run(tie *t) {
	knit_diag diag = {0};

	if (knit__same_file(t->in, t->out))
		return cli_fail("%s is the file to be read: name another one to write", t->out);
	if (knit_context_create(NULL, &t->ctx) != KNIT_OK)
		return cli_fail("out of memory");
	const knit_status status = knit__model_open(t->ctx, t->in, &t->file, &diag);
	if (status != KNIT_OK)
		return cli_fail("%s: %s", t->in, diag.text[0] ? diag.text : knit_status_name(status));
	if (t->file.format != KNIT_MODEL_GGUF)
		return cli_fail("%s is a %s file: knit tie reads and writes GGUF", t->in,
						knit__model_format_name(t->file.format));
	if (knit__weights_seal(t->file.store) != KNIT_OK)
		return cli_fail("out of memory");
	const int code = choose(t);
	return code == CLI_OK ? write_file(t) : code;
}

int cli_tie(int argc, char **argv) {
	static const struct option longs[] = {
		{"portable", no_argument, NULL, OPT_PORTABLE},
		{"json", no_argument, NULL, CLI_OPT_JSON},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	cli_common c = {.command = "tie"};
	tie t = {0};
	int option, code = CLI_OK;

	while ((option = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
		if (option == 'h') {
			fputs(help, stdout);
			return cli_finish_stdout();
		}
		if (option == OPT_PORTABLE)
			t.portable = true;
		else if (!cli_common_option(&c, option, argv, &code))
			return code;
	}
	if (!cli_operands(&c, argc, argv, &t.out, "file to write", &code))
		return code;
	t.in = c.model.path;
	t.json = c.json;
	cli_catch_interrupts();
	code = run(&t);
	free(t.tensors);
	knit__model_file_close(&t.file);
	knit_context_destroy(t.ctx);
	return code;
}
