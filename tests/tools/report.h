/* Owns collecting and parsing a program's report. */
#ifndef KNIT_TEST_REPORT_H
#define KNIT_TEST_REPORT_H

#include "knit.h"

#include <cjson/cJSON.h>

/* Grows outside the context, whose allocations a test may make fail. The caller frees text. */
typedef struct report_text { char *text; size_t bytes, cap; } report_text;
void report_take(void *user, const char *text, size_t bytes);

/* The report, parsed; desc may be NULL. The caller deletes it. */
cJSON *report_of(const knit_program *p, const knit_report_desc *desc);
/* The number of this name in a JSON object, which must have it. */
uint64_t report_number(const cJSON *object, const char *name);

#endif
