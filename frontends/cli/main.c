/* Finds the subcommand and hands over. */
#include "cli.h"

#include <string.h>

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary;
} commands[] = {
	{"run", cli_run, "write text with a model"},
	{"info", cli_info, "what a model is made of"},
	{"eval", cli_eval, "how well a model predicts a text (perplexity)"},
	{"graph", cli_graph, "print a model's graph, as text or for Graphviz"},
	{"plan", cli_plan, "what a model costs before it runs, with the proof"},
	{"tie", cli_tie, "write a model's equal tensors once"},
	{"bench", cli_bench, "how fast a model runs, beside what the machine can do"},
	{"devices", cli_devices, "what this machine can compute on"},
	{"tune", cli_tune, "measure which kernels are fastest on a GPU"},
};

static void print_help(FILE *f) {
	fprintf(f, "knit runs language models that visit their weights more than once.\n\n"
			   "  knit run story.gguf -p \"Once upon a time\"   write on from a text\n"
			   "  knit info story.gguf                        see layers, visits, sizes, what is shared\n"
			   "  knit eval story.gguf book.txt               measure perplexity\n\n"
			   "commands:\n");
	for (size_t i = 0; i < sizeof commands / sizeof *commands; ++i)
		fprintf(f, "  %-8s %s\n", commands[i].name, commands[i].summary);
	fprintf(f, "\n\"knit COMMAND --help\" teaches a command by example; \"knit --version\" names the version.\n");
}

int main(int argc, char **argv) {
	/* A closed pipe is an error of write(), not the end of the process. */
	signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		print_help(stderr);
		return CLI_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
		print_help(stdout);
		return cli_finish_stdout();
	}
	if (strcmp(argv[1], "--version") == 0) {
		printf("knit %d.%d.%d\n", KNIT_VERSION_MAJOR, KNIT_VERSION_MINOR, KNIT_VERSION_PATCH);
		return cli_finish_stdout();
	}
	for (size_t i = 0; i < sizeof commands / sizeof *commands; ++i)
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 1, argv + 1);
	fprintf(stderr, "knit: \"%s\" is no command; try ", argv[1]);
	for (size_t i = 0; i < sizeof commands / sizeof *commands; ++i)
		fprintf(stderr, "%s%s", i == 0 ? "" : i + 1 < sizeof commands / sizeof *commands ? ", " : " or ",
				commands[i].name);
	fprintf(stderr, " (see knit --help)\n");
	return CLI_USAGE;
}
