/* knit devices: what this machine can compute on. */
#include "cli.h"

#include <string.h>

enum { MAX_DEVICES = 32 };

static const char help[] = "knit devices: what this machine can compute on; the ids are for --device.\n\n"
						   "  knit devices            a table\n"
						   "  knit devices --json     the same for programs\n";

static int print_json(const knit_device_info *list, size_t count) {
	cJSON *root = cJSON_CreateObject(), *array = cJSON_AddArrayToObject(root, "devices");

	for (size_t i = 0; i < count; ++i) {
		cJSON *item = cJSON_CreateObject();
		cJSON_AddStringToObject(item, "id", list[i].id);
		cJSON_AddItemToObject(item, "name", cli_json_text(list[i].name, strlen(list[i].name)));
		cJSON_AddItemToObject(item, "detail", cli_json_text(list[i].detail, strlen(list[i].detail)));
		cJSON_AddItemToObject(item, "memory_bytes", cli_json_u64(list[i].memory_bytes));
		cJSON_AddBoolToObject(item, "available", list[i].available);
		cJSON_AddItemToArray(array, item);
	}
	return cli_json_print(root);
}

static int print_table(const knit_device_info *list, size_t count) {
	char bytes[32];

	for (size_t i = 0; i < count; ++i)
		printf("%-10s %-9s %10s  %s\n%22s%s\n", list[i].id, list[i].available ? "ready" : "absent",
			   list[i].memory_bytes ? cli_bytes(list[i].memory_bytes, bytes) : "", list[i].name, "", list[i].detail);
	return cli_finish_stdout();
}

int cli_devices(int argc, char **argv) {
	static const struct option longs[] = {
		{"json", no_argument, NULL, CLI_OPT_JSON}, {"help", no_argument, NULL, 'h'}, {0}};
	cli_common c = {.command = "devices"};
	knit_device_info list[MAX_DEVICES];
	knit_context *ctx = NULL;
	size_t count = 0;
	int option, code = CLI_OK;

	while ((option = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
		if (option == 'h') {
			fputs(help, stdout);
			return cli_finish_stdout();
		}
		if (!cli_common_option(&c, option, argv, &code))
			return code;
	}
	if (optind < argc)
		return cli_usage("devices", "\"%s\" is one operand too many", argv[optind]);
	if (knit_context_create(NULL, &ctx) != KNIT_OK)
		return cli_fail("out of memory");
	const knit_status status = knit_devices(ctx, list, MAX_DEVICES, &count);
	knit_context_destroy(ctx);
	if (status != KNIT_OK)
		return cli_fail("the devices cannot be listed: %s", knit_status_name(status));
	count = count < MAX_DEVICES ? count : MAX_DEVICES;
	return c.json ? print_json(list, count) : print_table(list, count);
}
