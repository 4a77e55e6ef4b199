/* Owns a file while it is written: it appears under its name when it is complete, or not at all. Knows no format. */
#ifndef KNIT_FORMATS_FILE_OUT_H
#define KNIT_FORMATS_FILE_OUT_H

#include "../../graph/base.h"

#include <sys/types.h>

typedef struct knit_file_out {
	const knit_allocator *a;
	char *path;      /* where it will be: a link's target, so that the link stays one */
	char *temporary; /* beside it; NULL where path is a pipe or device, which is written as it is */
	bool named;      /* temporary exists; until then the file has no name, where the file system knows such files */
	int fd;
	mode_t mode; /* of the file that was there, or what umask leaves */
} knit_file_out;

/* Opens a file beside `path` for writing. IO, saying "path: why". On failure *out is cleared. */
knit_status knit__file_out_open(const knit_allocator *a, const char *path, knit_file_out *out, knit_diag *diag);
/* All of the bytes. IO. */
knit_status knit__file_out_write(const knit_file_out *f, const void *data, size_t bytes, knit_diag *diag);
/* Brings the bytes to the disk, then the file to its name, replacing what was there. On failure nothing has changed.
 * Either way *f is cleared. */
knit_status knit__file_out_commit(knit_file_out *f, knit_diag *diag);
/* Removes what was written. A cleared file is fine. */
void knit__file_out_abort(knit_file_out *f);

/* Whether both names lead to one file that exists. */
bool knit__same_file(const char *a, const char *b);

#endif
