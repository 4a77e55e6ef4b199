/* Error lines, number parsing and the options that subcommands share. */
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

int cli_fail(const char *fmt, ...) {
	va_list args;

	fflush(stdout);
	fputs("knit: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	return CLI_FAILED;
}

int cli_usage(const char *command, const char *fmt, ...) {
	va_list args;

	fprintf(stderr, "knit %s: ", command);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, " (see knit %s --help)\n", command);
	return CLI_USAGE;
}

int cli_fail_diag(knit_status status, const knit_diag *diag) {
	if (diag->text[0])
		return cli_fail("%s", diag->text);
	return cli_fail("failed: %s", knit_status_name(status));
}

bool cli_parse_i64(const char *text, int64_t lo, int64_t hi, int64_t *out) {
	char *end;

	errno = 0;
	const long long value = strtoll(text, &end, 10);
	if (end == text || *end || errno || value < lo || value > hi)
		return false;
	*out = value;
	return true;
}

bool cli_parse_u64(const char *text, uint64_t *out) {
	char *end;

	errno = 0;
	const unsigned long long value = strtoull(text, &end, 10);
	if (end == text || *end || errno || strchr(text, '-'))
		return false;
	*out = value;
	return true;
}

bool cli_parse_double(const char *text, double lo, double hi, double *out) {
	char *end;
	const double value = strtod(text, &end);

	if (end == text || *end || !isfinite(value) || value < lo || value > hi)
		return false;
	*out = value;
	return true;
}

bool cli_parse_bytes(const char *text, uint64_t *out) {
	static const char units[] = "KMGT";
	char *end;
	double value = strtod(text, &end);
	const char *unit = *end ? strchr(units, *end >= 'a' ? *end - 'a' + 'A' : *end) : NULL;

	if (end == text || *text < '0' || *text > '9' || (*end && (!unit || end[1])))
		return false;
	for (const char *u = units; unit && u <= unit; ++u)
		value *= 1024;
	if (!(value >= 1 && value < 0x1p63))
		return false;
	*out = (uint64_t)value;
	return true;
}

static bool bad(int *exit_code, int code) {
	*exit_code = code;
	return false;
}

bool cli_common_option(cli_common *c, int option, char **argv, int *exit_code) {
	knit_diag diag = {0};
	int64_t n = 0;

	switch (option) {
	case CLI_OPT_DEVICE:
		c->device = optarg;
		return true;
	case CLI_OPT_DEVICE_MEMORY:
		if (!cli_parse_bytes(optarg, &c->device_memory))
			return bad(exit_code, cli_usage(c->command, "--device-memory \"%s\" is no size like 4G, 1.5G or 512M", optarg));
		return true;
	case CLI_OPT_THREADS:
		if (!cli_parse_i64(optarg, 1, 1024, &n))
			return bad(exit_code, cli_usage(c->command, "--threads \"%s\" is no number from 1 to 1024", optarg));
		c->threads = (uint32_t)n;
		return true;
	case CLI_OPT_CTX:
		if (!cli_parse_i64(optarg, 1, KNIT__MAX_CONTEXT, &c->ctx))
			return bad(exit_code, cli_usage(c->command, "--ctx \"%s\" is no number of positions from 1 to %d", optarg,
											(int)KNIT__MAX_CONTEXT));
		return true;
	case CLI_OPT_KV:
		if (knit__kv_parse(optarg, &c->kv, &diag) != KNIT_OK)
			return bad(exit_code, cli_usage(c->command, "--kv %s", diag.text));
		return true;
	case CLI_OPT_MEMORY:
		if (!cli_parse_bytes(optarg, &c->memory))
			return bad(exit_code, cli_usage(c->command, "--memory \"%s\" is no size like 4G, 1.5G or 512M", optarg));
		return true;
	case CLI_OPT_JSON:
		c->json = true;
		return true;
	case CLI_OPT_VISITS:
		c->model.visits = optarg;
		return true;
	case CLI_OPT_LOOPS:
		if (!cli_parse_i64(optarg, 1, KNIT__MAX_VISITS, &n))
			return bad(exit_code, cli_usage(c->command, "--loops \"%s\" is no number from 1 to %d", optarg,
											(int)KNIT__MAX_VISITS));
		c->model.loops = (uint32_t)n;
		return true;
	case CLI_OPT_ADAPTER:
		c->model.no_adapter = strcmp(optarg, "none") == 0;
		c->model.adapter_path = c->model.no_adapter ? NULL : optarg;
		return true;
	case CLI_OPT_TOKENIZER:
		c->model.tokenizer_path = optarg;
		return true;
	case ':':
		return bad(exit_code, cli_usage(c->command, "%s needs a value", argv[optind - 1]));
	default:
		if (optopt > 0 && optopt < 256 && argv[optind - 1][1] != '-')
			return bad(exit_code, cli_usage(c->command, "\"-%c\" is no option of this command", optopt));
		return bad(exit_code, cli_usage(c->command, "\"%s\" is no option of this command", argv[optind - 1]));
	}
}

bool cli_operands(cli_common *c, int argc, char **argv, const char **second, const char *second_name, int *exit_code) {
	const int wanted = second ? 2 : 1, found = argc - optind;

	if (found < 1)
		return bad(exit_code, cli_usage(c->command, "name a MODEL file"));
	if (found < wanted)
		return bad(exit_code, cli_usage(c->command, "name a %s after the model", second_name));
	if (found > wanted)
		return bad(exit_code, cli_usage(c->command, "\"%s\" is one operand too many; quote text with blanks",
										argv[optind + wanted]));
	c->model.path = argv[optind];
	if (second)
		*second = argv[optind + 1];
	return true;
}
