/* knit tune: which forms of a device's kernels are fastest on it, measured once and kept. */
#include "cli.h"

#include <string.h>
#include <unistd.h>

enum { OPT_RESET = CLI_OPT_OWN };

static const char help[] =
	"knit tune: measure, in seconds, which forms of a GPU's kernels are fastest on it, and keep that for this device\n"
	"and driver in the cache folder. Never needed: without it a table by class of device holds.\n\n"
	"  knit tune                       the best Vulkan device\n"
	"  knit tune --device vulkan:1     another one (see knit devices)\n"
	"  knit tune --reset               forget what was measured\n"
	"  knit tune --json                for programs\n\n"
	"Where it is kept: KNIT_CACHE, else $XDG_CACHE_HOME/knit, else ~/.cache/knit; what holds: knit devices -v.\n";

static bool go_on(void *user, const char *choice, size_t done, size_t total) {
	const bool *const tell = user;

	if (*tell)
		fprintf(stderr, "\r%zu of %zu: %-24s", done + 1, total, choice);
	return !cli_interrupted;
}

/* The row that the table has, of the choice that row `at` belongs to. */
static const knit_tune_row *usual_of(const knit_tune_result *r, size_t at) {
	for (size_t i = 0; i < r->count; ++i)
		if (r->rows[i].usual && strcmp(r->rows[i].choice, r->rows[at].choice) == 0)
			return &r->rows[i];
	return &r->rows[at];
}

static double gain(const knit_tune_result *r, size_t at) {
	return r->rows[at].ms > 0 ? usual_of(r, at)->ms / r->rows[at].ms : 1.0;
}

static int print_table(const knit_tune_result *r) {
	printf("%-18s %9s %11s  %s\n", "choice", "", "ms", "speed, table's = 1");
	for (size_t i = 0; i < r->count; ++i) {
		const knit_tune_row *const row = &r->rows[i];
		const bool first = i == 0 || strcmp(row->choice, r->rows[i - 1].choice) != 0;
		printf("%-18s %9s %11.4f  %.2f%s%s\n", first ? row->choice : "", row->candidate, row->ms, gain(r, i),
			   row->usual ? "  table" : "", row->chosen ? "  chosen" : "");
	}
	printf("kept in %s\n", r->file);
	return cli_finish_stdout();
}

static int print_json(const char *device, const knit_tune_result *r) {
	cJSON *const root = cJSON_CreateObject(), *choices = NULL, *item = NULL;

	cJSON_AddStringToObject(root, "device", device);
	choices = cJSON_AddArrayToObject(root, "choices");
	for (size_t i = 0; i < r->count; ++i) {
		const knit_tune_row *const row = &r->rows[i];
		if (i == 0 || strcmp(row->choice, r->rows[i - 1].choice) != 0) {
			item = cJSON_CreateObject();
			cJSON_AddStringToObject(item, "name", row->choice);
			cJSON_AddArrayToObject(item, "candidates");
			cJSON_AddItemToArray(choices, item);
		}
		cJSON *const candidate = cJSON_CreateObject();
		cJSON_AddStringToObject(candidate, "value", row->candidate);
		cJSON_AddNumberToObject(candidate, "ms", row->ms);
		cJSON_AddItemToArray(cJSON_GetObjectItemCaseSensitive(item, "candidates"), candidate);
		if (row->usual)
			cJSON_AddStringToObject(item, "table", row->candidate);
		if (row->chosen) {
			cJSON_AddStringToObject(item, "chosen", row->candidate);
			cJSON_AddNumberToObject(item, "gain", gain(r, i));
		}
	}
	cJSON_AddItemToObject(root, "file", cli_json_text(r->file, strlen(r->file)));
	return cli_json_print(root);
}

static int tune(const cli_common *c, bool reset) {
	static knit_tune_result result;
	bool tell = isatty(STDERR_FILENO) != 0;
	const knit_tune_desc desc = {.reset = reset, .go_on = go_on, .user = &tell};
	const char *const device = c->device ? c->device : "vulkan";
	knit_context *ctx = NULL;
	knit_diag diag = {0};

	if (knit_context_create(NULL, &ctx) != KNIT_OK)
		return cli_fail("out of memory");
	cli_catch_interrupts();
	const knit_status status = knit_device_tune(ctx, device, &desc, &result, &diag);
	knit_context_destroy(ctx);
	if (tell && !reset)
		fprintf(stderr, "\r%60s\r", "");
	if (status == KNIT_ERR_STATE && cli_interrupted) {
		fprintf(stderr, "knit: %s\n", diag.text);
		return CLI_INTERRUPTED;
	}
	if (status != KNIT_OK)
		return cli_fail_diag(status, &diag);
	if (c->json)
		return print_json(device, &result);
	if (!reset)
		return print_table(&result);
	printf("%s is gone: the table holds\n", result.file);
	return cli_finish_stdout();
}

int cli_tune(int argc, char **argv) {
	static const struct option longs[] = {{"device", required_argument, NULL, CLI_OPT_DEVICE},
										  {"json", no_argument, NULL, CLI_OPT_JSON},
										  {"reset", no_argument, NULL, OPT_RESET},
										  {"help", no_argument, NULL, 'h'},
										  {0}};
	cli_common c = {.command = "tune"};
	int option, code = CLI_OK;
	bool reset = false;

	while ((option = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
		if (option == 'h') {
			fputs(help, stdout);
			return cli_finish_stdout();
		}
		if (option == OPT_RESET) {
			reset = true;
			continue;
		}
		if (!cli_common_option(&c, option, argv, &code))
			return code;
	}
	if (optind < argc)
		return cli_usage("tune", "\"%s\" is one operand too many", argv[optind]);
	return tune(&c, reset);
}
