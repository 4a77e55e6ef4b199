/* Owns the names of the embedded page of `knit plan --html`: what stands before the data and after it. */
#ifndef KNIT_PLAN_PAGE_H
#define KNIT_PLAN_PAGE_H

#include <stddef.h>

extern const unsigned char cli_plan_page_before[], cli_plan_page_after[];
extern const size_t cli_plan_page_before_bytes, cli_plan_page_after_bytes;

#endif
