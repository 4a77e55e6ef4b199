/* Linux can give a file its name when it is complete (O_TMPFILE); elsewhere, and on file systems that cannot, it is written
 * under a name of its own and renamed. */
#include "whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRIES = 100 };

bool knit__whole_file_names_only;

static knit_status fail(knit_diag *d, const char *path, const char *what) {
	const size_t length = strlen(path), shown = length > 120 ? 120 : length;

	return knit__fail(d, KNIT_ERR_IO, 0, "%s%s: %s: %s", shown < length ? "..." : "", path + length - shown, what,
	                  strerror(errno));
}

static char *copy(const knit_allocator *a, const char *text, size_t size) {
	char *out = knit__alloc(a, size);

	if (out)
		snprintf(out, size, "%s", text);
	return out;
}

/* Where `path` leads, if it is a link; *mode is that of the file that is there, or 0666 as umask leaves it. */
static knit_status resolve(knit_whole_file *f, const char *path, mode_t *mode, bool *exists, knit_diag *d) {
	struct stat st;
	char *real = NULL;

	*exists = stat(path, &st) == 0;
	if (!*exists && errno != ENOENT)
		return fail(d, path, "cannot be written");
	if (*exists && !S_ISREG(st.st_mode))
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "%.150s: is no plain file", path);
	if (*exists && !(real = realpath(path, NULL)))
		return fail(d, path, "cannot be written");
	*mode = *exists ? st.st_mode & 07777 : 0666;
	f->path_size = strlen(real ? real : path) + 1;
	f->path = copy(f->a, real ? real : path, f->path_size);
	free(real);
	f->temporary_size = f->path_size + 24;
	f->temporary = knit__alloc(f->a, f->temporary_size);
	return f->path && f->temporary ? KNIT_OK : knit__fail_memory(d, "a file name", f->temporary_size);
}

/* The folder of the path, in `out` of path_size bytes (at least 2). */
static void folder_of(const knit_whole_file *f, char *out, size_t size) {
	const char *slash = strrchr(f->path, '/');

	if (!slash)
		snprintf(out, size, ".");
	else
		snprintf(out, size, "%.*s", slash == f->path ? 1 : (int)(slash - f->path), f->path);
}

static int open_nameless(const knit_whole_file *f, mode_t mode) {
#ifdef O_TMPFILE
	/* Its name is given through here. `temporary` is free until then. */
	if (knit__whole_file_names_only || access("/proc/self/fd", X_OK) != 0)
		return -1;
	folder_of(f, f->temporary, f->temporary_size);
	return open(f->temporary, O_TMPFILE | O_WRONLY | O_CLOEXEC, mode);
#else
	(void)f, (void)mode;
	return -1;
#endif
}

/* A name that nobody has. */
static void next_name(knit_whole_file *f, int try) {
	snprintf(f->temporary, f->temporary_size, "%s.%lx.%x", f->path, (unsigned long)getpid() & 0xffffffff, (unsigned)try);
}

static int open_named(knit_whole_file *f, mode_t mode) {
	for (int i = 0; i < TRIES; ++i) {
		next_name(f, i);
		const int fd = open(f->temporary, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode);
		if (fd >= 0 || errno != EEXIST)
			return fd;
	}
	return -1;
}

static void clear(knit_whole_file *f) {
	if (f->fd >= 0)
		close(f->fd);
	knit__free(f->a, f->path, f->path_size);
	knit__free(f->a, f->temporary, f->temporary_size);
	*f = (knit_whole_file){.fd = -1};
}

knit_status knit__whole_file_open(const knit_allocator *a, const char *path, knit_whole_file *out, knit_diag *d) {
	mode_t mode = 0;
	bool exists = false;

	*out = (knit_whole_file){.a = a, .fd = -1};
	knit_status status = resolve(out, path, &mode, &exists, d);
	if (status == KNIT_OK) {
		out->fd = open_nameless(out, mode);
		if (out->fd < 0) {
			out->fd = open_named(out, mode);
			out->named = out->fd >= 0;
		}
		if (out->fd < 0)
			status = fail(d, path, "cannot be written");
		else if (exists && fchmod(out->fd, mode) != 0)
			status = fail(d, path, "cannot be given its mode");
	}
	if (status != KNIT_OK)
		knit__whole_file_abort(out);
	return status;
}

knit_status knit__whole_file_write(knit_whole_file *f, const void *data, size_t bytes, knit_diag *d) {
	for (const char *at = data; bytes;) {
		const ssize_t n = write(f->fd, at, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(d, f->path, "cannot be written");
		at += n;
		bytes -= (size_t)n;
	}
	return KNIT_OK;
}

/* Gives a nameless file the name beside its own: a link cannot replace what is there, a rename can. */
static bool give_name(knit_whole_file *f) {
	char fd[32];

	snprintf(fd, sizeof fd, "/proc/self/fd/%d", f->fd);
	for (int i = 0; !f->named && i < TRIES; ++i) {
		next_name(f, i);
		f->named = linkat(AT_FDCWD, fd, AT_FDCWD, f->temporary, AT_SYMLINK_FOLLOW) == 0;
		if (!f->named && errno != EEXIST)
			return false;
	}
	return f->named;
}

/* So that the new name survives a power cut, too. Where a folder cannot be opened for this, that is all that can be done. */
static void sync_folder(knit_whole_file *f) {
	folder_of(f, f->temporary, f->temporary_size);
	const int folder = open(f->temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (folder < 0)
		return;
	fsync(folder);
	close(folder);
}

knit_status knit__whole_file_commit(knit_whole_file *f, knit_diag *d) {
	if (fsync(f->fd) != 0 || !give_name(f) || rename(f->temporary, f->path) != 0) {
		const knit_status status = fail(d, f->path, "cannot be written");

		knit__whole_file_abort(f);
		return status;
	}
	f->named = false;
	sync_folder(f);
	clear(f);
	return KNIT_OK;
}

void knit__whole_file_abort(knit_whole_file *f) {
	if (!f->a)
		return;
	if (f->named)
		unlink(f->temporary);
	clear(f);
}
