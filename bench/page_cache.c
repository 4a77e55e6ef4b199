/* posix_fadvise drops, mincore looks. */
#include "page_cache.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static double share_of(int fd) {
	const long page = sysconf(_SC_PAGESIZE);
	struct stat st;
	size_t in = 0;

	if (fstat(fd, &st) != 0 || st.st_size <= 0 || page <= 0)
		return -1;
	const size_t bytes = (size_t)st.st_size, pages = (bytes + (size_t)page - 1) / (size_t)page;
	void *const at = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	unsigned char *const seen = malloc(pages);
	const int ok = at != MAP_FAILED && seen && mincore(at, bytes, seen) == 0;
	for (size_t i = 0; ok && i < pages; ++i)
		in += seen[i] & 1;
	free(seen);
	if (at != MAP_FAILED)
		munmap(at, bytes);
	return ok ? (double)in / (double)pages : -1;
}

double bench_cached_share(const char *path) {
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	const double share = fd < 0 ? -1 : share_of(fd);

	if (fd >= 0)
		close(fd);
	return share;
}

double bench_cache_drop(const char *path) {
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	double share = -1;

	if (fd < 0)
		return -1;
	(void)fdatasync(fd); /* pages that are not yet written stay */
	if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0)
		share = share_of(fd);
	close(fd);
	return share;
}

void bench_cache_fill(const char *path) {
	enum { PIECE = 1 << 20 };
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *const piece = malloc(PIECE);

	while (fd >= 0 && piece && read(fd, piece, PIECE) > 0)
		;
	free(piece);
	if (fd >= 0)
		close(fd);
}
