/* Writes beside the file and renames, so that no reader ever sees half of it and a failed write leaves the old one. */
#include "file_out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static knit_status fail_io(const char *path, int error, knit_diag *diag) {
	const size_t length = strlen(path);

	return knit__fail(diag, KNIT_ERR_IO, 0, "%s: %s", length > 160 ? path + length - 160 : path, strerror(error));
}

static char *joined(const knit_allocator *a, const char *text, const char *more) {
	const size_t bytes = strlen(text) + strlen(more) + 1;
	char *out = knit__alloc(a, bytes);

	if (out)
		snprintf(out, bytes, "%s%s", text, more);
	return out;
}

static void text_free(const knit_allocator *a, char *text) {
	if (text)
		knit__free(a, text, strlen(text) + 1);
}

static void clear(knit_file_out *f) {
	if (f->fd >= 0)
		close(f->fd);
	text_free(f->a, f->temporary);
	text_free(f->a, f->path);
	memset(f, 0, sizeof *f);
	f->fd = -1;
}

/* A file that is there keeps its mode, and a link to it stays a link. */
static knit_status look(const char *path, knit_file_out *f, bool *regular, knit_diag *diag) {
	struct stat st;

	*regular = true;
	if (stat(path, &st) != 0) {
		const mode_t mask = umask(0);
		umask(mask);
		f->mode = 0666 & ~mask;
		f->path = joined(f->a, path, "");
		return f->path ? KNIT_OK : knit__fail_memory(diag, "a path", strlen(path) + 1);
	}
	if (S_ISDIR(st.st_mode))
		return fail_io(path, EISDIR, diag);
	*regular = S_ISREG(st.st_mode);
	f->mode = st.st_mode & 07777;
	char *real = *regular ? realpath(path, NULL) : NULL;
	if (*regular && !real)
		return fail_io(path, errno, diag);
	f->path = joined(f->a, real ? real : path, "");
	free(real);
	return f->path ? KNIT_OK : knit__fail_memory(diag, "a path", strlen(path) + 1);
}

knit_status knit__file_out_open(const knit_allocator *a, const char *path, knit_file_out *out, knit_diag *diag) {
	bool regular;

	*out = (knit_file_out){.a = a, .fd = -1};
	knit_status status = look(path, out, &regular, diag);
	if (status == KNIT_OK && regular) {
		out->temporary = joined(a, out->path, ".XXXXXX");
		if (!out->temporary)
			status = knit__fail_memory(diag, "a path", strlen(path) + 8);
		else
			out->fd = mkostemp(out->temporary, O_CLOEXEC);
	} else if (status == KNIT_OK) {
		out->fd = open(out->path, O_WRONLY | O_CLOEXEC);
	}
	if (status == KNIT_OK && out->fd < 0)
		status = fail_io(path, errno, diag);
	if (status != KNIT_OK)
		clear(out);
	return status;
}

knit_status knit__file_out_write(const knit_file_out *f, const void *data, size_t bytes, knit_diag *diag) {
	const char *at = data;

	while (bytes) {
		const ssize_t n = write(f->fd, at, bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_io(f->path, errno, diag);
		at += n;
		bytes -= (size_t)n;
	}
	return KNIT_OK;
}

/* The new name itself survives a power cut only once its folder is on the disk. Not every file system can say so. */
static void sync_folder(const char *path) {
	char folder[4096];
	const char *slash = strrchr(path, '/');
	const int length = slash ? (int)(slash - path) + 1 : 0;

	if (snprintf(folder, sizeof folder, "%.*s", length ? length : 1, length ? path : ".") >= (int)sizeof folder)
		return;
	const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	(void)fsync(fd);
	close(fd);
}

knit_status knit__file_out_commit(knit_file_out *f, knit_diag *diag) {
	int error = 0;

	if (f->temporary && (fchmod(f->fd, f->mode) != 0 || fsync(f->fd) != 0))
		error = errno;
	const int closed = close(f->fd);
	f->fd = -1;
	if (closed != 0 && !error)
		error = errno;
	if (f->temporary && !error && rename(f->temporary, f->path) != 0)
		error = errno;
	if (error) {
		const knit_status status = fail_io(f->path, error, diag);
		knit__file_out_abort(f);
		return status;
	}
	if (f->temporary)
		sync_folder(f->path);
	clear(f);
	return KNIT_OK;
}

void knit__file_out_abort(knit_file_out *f) {
	if (!f->a)
		return;
	if (f->temporary)
		unlink(f->temporary);
	clear(f);
}

bool knit__same_file(const char *a, const char *b) {
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}
