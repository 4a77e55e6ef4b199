/* knit devices: what this machine can compute on. */
#include "cli.h"

#include <string.h>

enum { MAX_DEVICES = 48, MAX_FACTS = 512 };

static const char help[] = "knit devices: what this machine can compute on; the ids are for --device.\n\n"
						   "  knit devices            a table\n"
						   "  knit devices -v         and all that is known of each\n"
						   "  knit devices --json     the same for programs\n\n"
						   "Two ids joined by + are a device too: --device vulkan+cpu puts what is read most on the first, as far as\n"
						   "--device-memory allows, and the rest on the second (knit plan shows it).\n";

/* All that is known of a device; 0 of them where there is nothing to say. */
static size_t facts_read(knit_context *ctx, const char *id, knit_device_fact *out) {
	size_t count = 0;

	if (knit_device_facts(ctx, id, out, MAX_FACTS, &count) != KNIT_OK)
		return 0;
	return count < MAX_FACTS ? count : MAX_FACTS;
}

/* {"device": {"name": ...}, "limits": {...}} */
static cJSON *facts_json(const knit_device_fact *facts, size_t count) {
	cJSON *const all = cJSON_CreateObject();

	for (size_t i = 0; i < count; ++i) {
		cJSON *group = cJSON_GetObjectItemCaseSensitive(all, facts[i].group);
		if (!group)
			group = cJSON_AddObjectToObject(all, facts[i].group);
		cJSON_AddItemToObject(group, facts[i].name, cli_json_text(facts[i].value, strlen(facts[i].value)));
	}
	return all;
}

static int print_json(knit_context *ctx, const knit_device_info *list, size_t count, bool verbose) {
	static knit_device_fact facts[MAX_FACTS];
	cJSON *root = cJSON_CreateObject(), *array = cJSON_AddArrayToObject(root, "devices");

	for (size_t i = 0; i < count; ++i) {
		cJSON *item = cJSON_CreateObject();
		cJSON_AddStringToObject(item, "id", list[i].id);
		cJSON_AddItemToObject(item, "name", cli_json_text(list[i].name, strlen(list[i].name)));
		cJSON_AddItemToObject(item, "detail", cli_json_text(list[i].detail, strlen(list[i].detail)));
		cJSON_AddItemToObject(item, "memory_bytes", cli_json_u64(list[i].memory_bytes));
		cJSON_AddBoolToObject(item, "available", list[i].available);
		cJSON_AddBoolToObject(item, "software", list[i].software);
		if (verbose)
			cJSON_AddItemToObject(item, "facts", facts_json(facts, facts_read(ctx, list[i].id, facts)));
		cJSON_AddItemToArray(array, item);
	}
	return cli_json_print(root);
}

static void print_facts(knit_context *ctx, const char *id) {
	static knit_device_fact facts[MAX_FACTS];
	const size_t count = facts_read(ctx, id, facts);

	for (size_t i = 0; i < count; ++i)
		printf("  %-10s %-34s %s\n", i && strcmp(facts[i].group, facts[i - 1].group) == 0 ? "" : facts[i].group,
			   facts[i].name, facts[i].value);
}

static int print_table(knit_context *ctx, const knit_device_info *list, size_t count, bool verbose) {
	char bytes[32];

	for (size_t i = 0; i < count; ++i) {
		printf("%-10s %-9s %10s  %s\n%22s%s\n", list[i].id, list[i].available ? "ready" : "absent",
			   list[i].memory_bytes ? cli_bytes(list[i].memory_bytes, bytes) : "", list[i].name, "", list[i].detail);
		if (verbose)
			print_facts(ctx, list[i].id);
	}
	return cli_finish_stdout();
}

int cli_devices(int argc, char **argv) {
	static const struct option longs[] = {
		{"json", no_argument, NULL, CLI_OPT_JSON}, {"verbose", no_argument, NULL, 'v'}, {"help", no_argument, NULL, 'h'}, {0}};
	cli_common c = {.command = "devices"};
	knit_device_info list[MAX_DEVICES];
	knit_context *ctx = NULL;
	size_t count = 0;
	int option, code = CLI_OK;
	bool verbose = false;

	while ((option = getopt_long(argc, argv, ":hv", longs, NULL)) != -1) {
		if (option == 'h') {
			fputs(help, stdout);
			return cli_finish_stdout();
		}
		if (option == 'v') {
			verbose = true;
			continue;
		}
		if (!cli_common_option(&c, option, argv, &code))
			return code;
	}
	if (optind < argc)
		return cli_usage("devices", "\"%s\" is one operand too many", argv[optind]);
	if (knit_context_create(NULL, &ctx) != KNIT_OK)
		return cli_fail("out of memory");
	const knit_status status = knit_devices(ctx, list, MAX_DEVICES, &count);
	count = count < MAX_DEVICES ? count : MAX_DEVICES;
	if (status != KNIT_OK)
		code = cli_fail("the devices cannot be listed: %s", knit_status_name(status));
	else
		code = c.json ? print_json(ctx, list, count, verbose) : print_table(ctx, list, count, verbose);
	knit_context_destroy(ctx);
	return code;
}
