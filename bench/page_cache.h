/* Owns what of a file lies in the system's page cache. */
#ifndef KNIT_BENCH_PAGE_CACHE_H
#define KNIT_BENCH_PAGE_CACHE_H

/* Share of the file's pages that are in memory, 0..1; negative where the system does not say. */
double bench_cached_share(const char *path);
/* Asks the system to drop the file's pages, written ones written first, and returns what share is in memory afterwards: pages that
 * a process has mapped stay, and some file systems drop none. Negative where it cannot be asked. */
double bench_cache_drop(const char *path);
/* Reads the file once. */
void bench_cache_fill(const char *path);

#endif
