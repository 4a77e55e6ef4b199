/* Writes beside the file and renames, so that no reader ever sees half of it and a failed write leaves the old one. Where
 * the system knows files without names, what is written has none until it is complete: a process that is killed leaves
 * nothing. */
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

/* The folder of `path`; false where it is too long. */
static bool folder_of(const char *path, char *out, size_t size) {
	const char *slash = strrchr(path, '/');
	const int length = slash ? (int)(slash - path) + 1 : 0;

	return snprintf(out, size, "%.*s", length ? length : 1, length ? path : ".") < (int)size;
}

/* -1 where there are no such files, or no way to name one afterwards. */
static int open_nameless(const knit_file_out *f) {
#ifdef O_TMPFILE
	char folder[4096];

	if (access("/proc/self/fd", X_OK) == 0 && folder_of(f->path, folder, sizeof folder))
		return open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
#endif
	(void)f;
	return -1;
}

/* A link cannot replace what is there, so the file gets a name beside it first. */
static bool give_name(knit_file_out *f) {
	char fd[32];
	char *const end = f->temporary + strlen(f->temporary) - 6;

	snprintf(fd, sizeof fd, "/proc/self/fd/%d", f->fd);
	for (unsigned i = 0; !f->named && i < 100; ++i) {
		snprintf(end, 7, "%06x", ((unsigned)getpid() * 101 + i) & 0xffffff);
		f->named = linkat(AT_FDCWD, fd, AT_FDCWD, f->temporary, AT_SYMLINK_FOLLOW) == 0;
		if (!f->named && errno != EEXIST)
			return false;
	}
	return f->named;
}

knit_status knit__file_out_open(const knit_allocator *a, const char *path, knit_file_out *out, knit_diag *diag) {
	bool regular;

	*out = (knit_file_out){.a = a, .fd = -1};
	knit_status status = look(path, out, &regular, diag);
	if (status == KNIT_OK && regular) {
		out->temporary = joined(a, out->path, ".XXXXXX");
		if (!out->temporary) {
			status = knit__fail_memory(diag, "a path", strlen(path) + 8);
		} else if ((out->fd = open_nameless(out)) < 0) {
			out->fd = mkostemp(out->temporary, O_CLOEXEC);
			out->named = out->fd >= 0;
		}
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

	if (!folder_of(path, folder, sizeof folder))
		return;
	const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	(void)fsync(fd);
	close(fd);
}

knit_status knit__file_out_commit(knit_file_out *f, knit_diag *diag) {
	int error = 0;

	if (f->temporary && (fchmod(f->fd, f->mode) != 0 || fsync(f->fd) != 0 || !give_name(f)))
		error = errno;
	const int closed = close(f->fd);
	f->fd = -1;
	if (closed != 0 && !error)
		error = errno;
	if (f->temporary && !error && rename(f->temporary, f->path) != 0)
		error = errno;
	f->named = f->named && error;
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
	if (f->named)
		unlink(f->temporary);
	clear(f);
}

bool knit__same_file(const char *a, const char *b) {
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}
