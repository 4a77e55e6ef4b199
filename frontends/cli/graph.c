/* knit graph: prints a model's graph as text or for Graphviz. */
#include "cli.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { DEFAULT_POSITIONS = 4096, BATCH = 64 };
enum { OPT_FORMAT = CLI_OPT_OWN };

static const char help[] = "knit graph MODEL: prints the model's graph: every op, shape, weight and state.\n\n"
						   "  knit graph story.gguf                                text, one op per line\n"
						   "  knit graph story.gguf --format dot | dot -Tsvg > g.svg   a picture, with Graphviz\n"
						   "  knit graph story.gguf -o graph.txt                   into a file\n\n"
						   "      --format F        text or dot (text)\n"
						   "  -o, --output FILE     the file appears when it is complete (stdout)\n"
						   "      --ctx N           positions of the KV slots (the model's, at most 4096)\n"
						   "      --kv SPEC         KV slots, as in knit run --help (f16)\n"
						   "      --visits LIST     layers in the order in which they run: 0-3,2-3,4; 0-3x3 is three times 0-3\n"
						   "      --loops N         run the model's loop N times: the whole stack, or the core between prelude and coda\n"
						   "      --adapter FILE    LoRA matrices from a file of their own; none: without LoRA\n";

static void write_stdout(void *user, const char *text, size_t bytes) {
	int *error = user;

	if (!*error && !cli_write_all(STDOUT_FILENO, text, bytes))
		*error = errno ? errno : EIO;
}

static int print_stdout(const knit_graph *g, knit_graph_format format) {
	int error = 0;
	const knit_status status = knit_graph_print(g, format, write_stdout, &error);

	if (error == EPIPE)
		return CLI_PIPE_CLOSED;
	if (error)
		return cli_fail("cannot write the graph: %s", strerror(error));
	return status == KNIT_OK ? CLI_OK : cli_fail("the graph cannot be printed: %s", knit_status_name(status));
}

static int print_file(const cli_model *m, const knit_graph *g, knit_graph_format format, const char *path) {
	cli_file f;
	int code = cli_file_open(&m->ctx->a, path, &f);

	if (code != CLI_OK)
		return code;
	const knit_status status = knit_graph_print(g, format, cli_file_write, &f);
	return cli_file_close(&f, status);
}

static int print(const cli_common *c, cli_model *m, knit_graph_format format, const char *path) {
	const int64_t context = m->model.config.context;

	cli_model_set_kv(c, m, KNIT_F16);
	const knit__decoder_desc desc = {
		.config = &m->model.config,
		.base = m->model.file.store,
		.adapters = m->model.adapters,
		.positions = c->ctx                        ? c->ctx
					 : m->kv.window                ? 0
					 : context < DEFAULT_POSITIONS ? context
												   : DEFAULT_POSITIONS,
		.max_tokens = BATCH,
		.kv_k = m->kv.k,
		.kv_v = m->kv.v,
		.window = m->kv.window,
		.sinks = m->kv.sinks,
	};
	knit_graph *g = NULL;
	knit_diag diag = {0};
	const knit_status status = knit__decoder_graph(m->ctx, &desc, &g, &diag);

	if (status != KNIT_OK)
		return cli_fail_diag(status, &diag);
	const int code = path ? print_file(m, g, format, path) : print_stdout(g, format);
	knit_graph_destroy(g);
	return code;
}

int cli_graph(int argc, char **argv) {
	static const struct option longs[] = {
		{"format", required_argument, NULL, OPT_FORMAT},
		{"output", required_argument, NULL, 'o'},
		{"ctx", required_argument, NULL, CLI_OPT_CTX},
		{"kv", required_argument, NULL, CLI_OPT_KV},
		{"visits", required_argument, NULL, CLI_OPT_VISITS},
		{"loops", required_argument, NULL, CLI_OPT_LOOPS},
		{"adapter", required_argument, NULL, CLI_OPT_ADAPTER},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	cli_common c = {.command = "graph"};
	knit_graph_format format = KNIT_GRAPH_TEXT;
	const char *path = NULL;
	cli_model m = {0};
	int option, code = CLI_OK;

	while ((option = getopt_long(argc, argv, ":o:h", longs, NULL)) != -1) {
		if (option == 'h') {
			fputs(help, stdout);
			return cli_finish_stdout();
		}
		if (option == 'o')
			path = optarg;
		else if (option == OPT_FORMAT && strcmp(optarg, "dot") == 0)
			format = KNIT_GRAPH_DOT;
		else if (option == OPT_FORMAT && strcmp(optarg, "text") == 0)
			format = KNIT_GRAPH_TEXT;
		else if (option == OPT_FORMAT)
			return cli_usage("graph", "--format \"%s\" is neither text nor dot", optarg);
		else if (!cli_common_option(&c, option, argv, &code))
			return code;
	}
	if (!cli_operands(&c, argc, argv, NULL, NULL, &code))
		return code;
	code = cli_model_open(&c, &m);
	if (code == CLI_OK)
		code = print(&c, &m, format, path);
	cli_model_close(&m);
	return code;
}
