/* What the bench writes, to a file that appears when it is complete, or to stdout. */
#include "bench_cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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

int bench_write_check(const char *path) {
	knit_context *ctx = NULL;
	struct stat st;
	cli_file file;

	if (!path)
		return CLI_OK;
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return cli_fail("%s: %s", path, strerror(EISDIR));
	if (knit_context_create(NULL, &ctx) != KNIT_OK)
		return cli_fail("out of memory");
	const int code = cli_file_open(&ctx->a, path, &file);
	if (code == CLI_OK)
		knit__file_out_abort(&file.out);
	knit_context_destroy(ctx);
	return code;
}
