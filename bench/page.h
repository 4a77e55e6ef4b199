/* Owns the page of `knit bench --html`: the embedded template, and the data that goes into it. */
#ifndef KNIT_BENCH_PAGE_H
#define KNIT_BENCH_PAGE_H

#include "profile.h"

/* Made by embed.cmake: what stands before the data and after it. */
extern const unsigned char bench_page_before[], bench_page_after[];
extern const size_t bench_page_before_bytes, bench_page_after_bytes;

/* One file that names nothing outside itself. */
void bench_page_print(FILE *f, const bench_run *run, const bench_profile *profiles, size_t count);

#endif
