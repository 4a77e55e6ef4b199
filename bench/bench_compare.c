/* `knit bench compare`: its options and exit code. */
#include "bench_cli.h"
#include "compare.h"

#include <stdlib.h>
#include <string.h>

enum { OPT_FAIL_IF = CLI_OPT_OWN };
enum { UNDECIDED = 3 }; /* exit code */
#define MAX_FILE_BYTES ((size_t)256 << 20)

static const char help[] =
	"knit bench compare OLD NEW: which tests became faster or slower between two runs of `knit bench --json`\n"
	"or `knit bench ops --json`.\n\n"
	"  knit bench compare before.jsonl after.jsonl\n"
	"  knit bench compare before.jsonl after.jsonl --fail-if 3%      for CI: exit code 1 if something is slower than that\n\n"
	"A difference counts only where the 95 % intervals of the two medians part, with at least 5 runs on each side, and further than the\n"
	"machine itself changed in what binds the test (memory, a cache, arithmetic, launches: measured in each run).\n\n"
	"      --fail-if P%      exit code 1 where a test is significantly slower by more than P %, computes something else than\n"
	"                        the model, or is gone\n"
	"Exit codes: 0; 1: --fail-if, or a file that is no result of knit bench; 2: wrong call; 3: with --fail-if, nothing fails, but of some test\n"
	"nothing can be told, since the machine itself changed by more than 10 %: run again, or let the builds take turns in one run\n"
	"(knit bench MODEL --peer knit:before=/path/of/the/older/knit).\n";

bool bench_take_percent(const char *text, double *out) {
	char copy[32];
	const size_t length = strlen(text);

	if (length == 0 || length >= sizeof copy)
		return false;
	memcpy(copy, text, length + 1);
	if (copy[length - 1] == '%')
		copy[length - 1] = '\0';
	if (!cli_parse_double(copy, 0, 100, out))
		return false;
	*out /= 100;
	return true;
}

static int read_results(const char *path, bench_results *out) {
	knit_diag diag = {0};
	char *text = NULL;
	size_t bytes = 0;
	const int code = cli_read_file(path, MAX_FILE_BYTES, &text, &bytes);

	if (code != CLI_OK)
		return code;
	const knit_status status = bench_results_read(path, text, bytes, out, &diag);
	free(text);
	return status == KNIT_OK ? CLI_OK : cli_fail_diag(status, &diag);
}

static int compare(const bench_results *old, const bench_results *new, double limit) {
	bench_change *const changes = calloc(old->count + new->count, sizeof *changes);
	bool failed = false, undecided = false;

	if (!changes)
		return cli_fail("out of memory");
	const size_t count = bench_compare(old, new, changes);
	bench_print_changes(stdout, changes, count, limit);
	for (size_t i = 0; i < count; ++i)
		failed |= limit >= 0 && bench_change_fails(&changes[i], limit), undecided |= limit >= 0 && changes[i].verdict == BENCH_MACHINE;
	free(changes);
	const int code = cli_finish_stdout();
	return code != CLI_OK ? code : failed ? CLI_FAILED : undecided ? UNDECIDED : CLI_OK;
}

int bench_compare_main(int argc, char **argv) {
	static const struct option longs[] = {
		{"fail-if", required_argument, NULL, OPT_FAIL_IF},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	bench_results old = {0}, new = {0};
	double limit = -1;
	int option;

	while ((option = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
		if (option == 'h') {
			fputs(help, stdout);
			return cli_finish_stdout();
		}
		if (option != OPT_FAIL_IF)
			return cli_usage("bench compare", "no option \"%s\", or its value is missing", argv[optind - 1]);
		if (!bench_take_percent(optarg, &limit))
			return cli_usage("bench compare", "--fail-if \"%s\" is no percentage from 0 to 100", optarg);
	}
	if (argc - optind != 2)
		return cli_usage("bench compare", "needs two files, %d given", argc - optind);
	int code = read_results(argv[optind], &old);
	if (code == CLI_OK)
		code = read_results(argv[optind + 1], &new);
	if (code == CLI_OK)
		code = compare(&old, &new, limit);
	bench_results_clear(&old);
	bench_results_clear(&new);
	return code;
}
