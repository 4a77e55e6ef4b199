/* What the bench writes, to a file that appears when it is complete, or to stdout. */
#include "bench_cli.h"

#include <stdlib.h>

int bench_write(const char *path, void (*write)(FILE *f, void *user), void *user) {
	const knit_allocator *a;
	knit_context *ctx = NULL;
	cli_file file;
	char *data = NULL;
	size_t bytes = 0;

	if (!path) {
		write(stdout, user);
		return cli_finish_stdout();
	}
	FILE *const f = open_memstream(&data, &bytes);
	if (!f)
		return cli_fail("out of memory");
	write(f, user);
	fclose(f);
	if (knit_context_create(NULL, &ctx) != KNIT_OK) {
		free(data);
		return cli_fail("out of memory");
	}
	a = &ctx->a;
	int code = cli_file_open(a, path, &file);
	if (code == CLI_OK) {
		cli_file_write(&file, data, bytes);
		code = cli_file_close(&file, KNIT_OK);
	}
	free(data);
	knit_context_destroy(ctx);
	return code;
}
