/* knit plan --csv: places bare blocks that a file lists, `id,lower,upper,size`, alive from step lower up to step upper,
 * which is not included (the form of the public memory planning instances). Knows no model. */
#include "../text/generate.h"
#include "plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE = 1 << 24, MAX_BLOCKS = 1 << 14 };

static const char header[] = "id,lower,upper,size";

typedef struct block_list {
	knit_block *blocks;
	char *text; /* of the file, cut into fields */
	char **ids; /* in text */
	size_t count, cap;
} block_list;

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static char *trim(char *text) {
	size_t length;

	text += strspn(text, " \t");
	for (length = strlen(text); length > 0 && strchr(" \t\r", text[length - 1]); --length)
		text[length - 1] = '\0';
	return text;
}

static bool grow(block_list *list) {
	const size_t cap = list->cap ? list->cap * 2 : 256;
	knit_block *blocks;
	char **ids;

	if (list->count < list->cap)
		return true;
	blocks = realloc(list->blocks, cap * sizeof *blocks);
	if (blocks)
		list->blocks = blocks;
	ids = realloc(list->ids, cap * sizeof *ids);
	if (ids)
		list->ids = ids;
	if (!blocks || !ids)
		return false;
	list->cap = cap;
	return true;
}

/* The next field of a line, cut off; NULL where there is none. */
static char *next_field(char **rest) {
	char *field = *rest, *comma;

	if (!field)
		return NULL;
	comma = strchr(field, ',');
	if (comma)
		*comma = '\0';
	*rest = comma ? comma + 1 : NULL;
	return trim(field);
}

static int read_block(const char *path, size_t line, char *text, bool has_offset, block_list *list) {
	static const char *const names[] = {"lower", "upper", "size"};
	char *id = next_field(&text);
	uint64_t numbers[3];

	if (!*id)
		return cli_fail("%s:%zu: the id is empty; a line is %s", path, line, header);
	for (size_t i = 0; i < 3; ++i) {
		const char *field = next_field(&text);

		if (!field)
			return cli_fail("%s:%zu: there is no %s; a line is %s", path, line, names[i], header);
		if (!cli_parse_u64(field, &numbers[i]))
			return cli_fail("%s:%zu: %s \"%.40s\" is no number of 0 or more", path, line, names[i], field);
	}
	if (has_offset)
		(void)next_field(&text);
	if (text)
		return cli_fail("%s:%zu: more fields than the first line names", path, line);
	if (numbers[0] >= numbers[1])
		return cli_fail("%s:%zu: lower %" PRIu64 " is not below upper %" PRIu64 ": the block is never alive", path, line,
						numbers[0], numbers[1]);
	if (numbers[1] > UINT32_MAX)
		return cli_fail("%s:%zu: upper %" PRIu64 " is above %u", path, line, numbers[1], UINT32_MAX);
	if (list->count == MAX_BLOCKS)
		return cli_fail("%s:%zu: more than %d blocks", path, line, (int)MAX_BLOCKS);
	if (!grow(list))
		return cli_fail("%s: out of memory", path);
	list->ids[list->count] = id;
	list->blocks[list->count++] =
		(knit_block){.bytes = numbers[2], .first = (uint32_t)numbers[0], .last = (uint32_t)(numbers[1] - 1)};
	return CLI_OK;
}

/* "id,lower,upper,size", or with ",offset" behind, as -o writes it. */
static bool read_header(char *line, bool *has_offset) {
	char names[64] = "";

	for (char *field; (field = next_field(&line)) != NULL;) {
		const size_t length = strlen(names);

		if (length + strlen(field) + 2 > sizeof names)
			return false;
		snprintf(names + length, sizeof names - length, "%s%s", length ? "," : "", field);
	}
	*has_offset = strcmp(names, "id,lower,upper,size,offset") == 0;
	return *has_offset || strcmp(names, header) == 0;
}

static int read_blocks(const char *path, const char *data, size_t bytes, block_list *list) {
	bool has_offset = false;
	size_t line = 0;
	int code = CLI_OK;
	char *text = list->text = malloc(bytes + 1);

	if (!text)
		return cli_fail("%s: out of memory", path);
	memcpy(text, data, bytes);
	text[bytes] = '\0';

	if (strncmp(text, "\xef\xbb\xbf", 3) == 0)
		text += 3;
	for (char *next; text && code == CLI_OK; text = next) {
		next = strchr(text, '\n');
		if (next)
			*next++ = '\0';
		if (++line == 1 && !read_header(text, &has_offset))
			return cli_fail("%s:1: the first line must be \"%s\"", path, header);
		if (line > 1 && *trim(text))
			code = read_block(path, line, text, has_offset, list);
	}
	return code;
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

static double percent_above(uint64_t bytes, uint64_t bound) {
	return bound ? 100 * ((double)bytes - (double)bound) / (double)bound : 0;
}

static int print_text(const block_list *list, const knit_block_plan *plan, double seconds) {
	char a[32];

	printf("blocks       %14zu\n", list->count);
	printf("lower bound  %14s bytes: the most that is alive at one step\n", cli_count(plan->lower_bound, a));
	printf("peak         %14s bytes, %.2f %% above the bound%s\n", cli_count(plan->peak, a),
		   percent_above(plan->peak, plan->lower_bound), plan->optimal ? "; proven: nothing needs less" : "");
	printf("greedy       %14s bytes, %.2f %% above it: before the exact search\n", cli_count(plan->greedy, a),
		   percent_above(plan->greedy, plan->lower_bound));
	printf("in order     %14s bytes, %.2f %% above it: best fit in the order of execution, the common practice\n",
		   cli_count(plan->in_order, a), percent_above(plan->in_order, plan->lower_bound));
	printf("unshared     %14s bytes\n", cli_count(plan->unshared, a));
	printf("time         %14.3f s", seconds);
	if (plan->search_work)
		printf(", %.1f M blocks looked at by the exact search", 1e-6 * (double)plan->search_work);
	printf("\n");
	return cli_finish_stdout();
}

static int print_json(const char *path, const block_list *list, const knit_block_plan *plan, double seconds) {
	cJSON *root = cJSON_CreateObject();

	cJSON_AddStringToObject(root, "schema", "knit.blocks/1");
	cJSON_AddItemToObject(root, "path", cli_json_text(path, strlen(path)));
	cJSON_AddNumberToObject(root, "blocks", (double)list->count);
	cJSON_AddItemToObject(root, "lower_bound_bytes", cli_json_u64(plan->lower_bound));
	cJSON_AddItemToObject(root, "peak_bytes", cli_json_u64(plan->peak));
	cJSON_AddNumberToObject(root, "gap_percent", percent_above(plan->peak, plan->lower_bound));
	cJSON_AddBoolToObject(root, "optimal", plan->optimal);
	cJSON_AddItemToObject(root, "greedy_bytes", cli_json_u64(plan->greedy));
	cJSON_AddItemToObject(root, "in_order_bytes", cli_json_u64(plan->in_order));
	cJSON_AddItemToObject(root, "unshared_bytes", cli_json_u64(plan->unshared));
	cJSON_AddItemToObject(root, "search_work", cli_json_u64(plan->search_work));
	cJSON_AddNumberToObject(root, "seconds", seconds);
	return cli_json_print(root);
}

static int write_offsets(knit_context *ctx, const char *path, const block_list *list) {
	cli_file f;
	const int code = cli_file_open(&ctx->a, path, &f);

	if (code != CLI_OK)
		return code;
	cli_file_write(&f, header, strlen(header));
	cli_file_write(&f, ",offset\n", 8);
	for (size_t i = 0; i < list->count; ++i) {
		const knit_block *b = &list->blocks[i];
		char numbers[128];

		snprintf(numbers, sizeof numbers, ",%u,%" PRIu64 ",%" PRIu64 ",%" PRIu64 "\n", b->first, (uint64_t)b->last + 1,
				 b->bytes, b->offset);
		cli_file_write(&f, list->ids[i], strlen(list->ids[i]));
		cli_file_write(&f, numbers, strlen(numbers));
	}
	return cli_file_close(&f, KNIT_OK);
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static int place(const char *path, const char *output, bool json, block_list *list) {
	knit_context *ctx = NULL;
	knit_block_plan plan;
	knit_diag diag = {0};
	const knit_status created = knit_context_create(NULL, &ctx);
	const uint64_t begin = knit__clock_ns();

	if (created != KNIT_OK)
		return cli_fail("out of memory");

	const knit_status status = knit_plan_blocks(ctx, list->blocks, list->count, 1, &plan, &diag);
	const double seconds = (double)(knit__clock_ns() - begin) * 1e-9;
	int code = status == KNIT_OK ? CLI_OK : cli_fail_diag(status, &diag);

	if (code == CLI_OK && output)
		code = write_offsets(ctx, output, list);
	if (code == CLI_OK)
		code = json ? print_json(path, list, &plan, seconds) : print_text(list, &plan, seconds);
	knit_context_destroy(ctx);
	return code;
}

int cli_plan_csv(const char *path, const char *output, bool json) {
	block_list list = {0};
	size_t bytes;
	char *text;
	int code = cli_read_file(path, MAX_FILE, &text, &bytes);

	if (code != CLI_OK)
		return code;
	if (output && knit__same_file(path, output))
		code = cli_fail("-o %s would replace what is read", output);
	else if (memchr(text, '\0', bytes))
		code = cli_fail("%s: a NUL byte: this is no text", path);
	else
		code = read_blocks(path, text, bytes, &list);
	if (code == CLI_OK)
		code = place(path, output, json, &list);
	free(list.text);
	free(list.blocks);
	free(list.ids);
	free(text);
	return code;
}
