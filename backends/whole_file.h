/* Owns a file that is written as a whole or not at all: it has no name until all of it is on the disk, then it takes the
 * place of what was there. A process that is killed leaves the old file, and nothing beside it where the file system knows
 * files without names. Knows no format. */
#ifndef KNIT_WHOLE_FILE_H
#define KNIT_WHOLE_FILE_H

#include "../graph/base.h"

typedef struct knit_whole_file {
	const knit_allocator *a;
	char *path, *temporary; /* path: where a link leads; temporary: beside it */
	size_t path_size, temporary_size;
	int fd;
	bool named; /* temporary exists */
} knit_whole_file;

/* For tests of what happens where files without names are not known. */
extern bool knit__whole_file_names_only;

/* IO with the path and what the system says; ARGUMENT where the path is there and no plain file. On failure *out is
 * cleared. */
knit_status knit__whole_file_open(const knit_allocator *a, const char *path, knit_whole_file *out, knit_diag *d);
knit_status knit__whole_file_write(knit_whole_file *f, const void *data, size_t bytes, knit_diag *d);
/* Brings the bytes to the disk and the file to its name. On failure what was there is there still. Clears *f. */
knit_status knit__whole_file_commit(knit_whole_file *f, knit_diag *d);
/* Forgets what was written. Clears *f; a cleared file is fine. */
void knit__whole_file_abort(knit_whole_file *f);

#endif
