/* Owns the check of JSON text from outside before a parser sees it: size, nesting, number of values, strings, numbers;
 * and the parser behind one lock. */
#ifndef KNIT_FORMATS_JSON_SCAN_H
#define KNIT_FORMATS_JSON_SCAN_H

#include "reader.h"

/* Scans all that remains in the reader, leaving it where it was. Afterwards nesting is at most KNIT_LIMIT_JSON_DEPTH, there are at most
 * KNIT_LIMIT_JSON_VALUES values and keys, the text is UTF-8, strings are closed, their escapes whole and free of NUL,
 * and every number is an integer from 0 to KNIT_LIMIT_JSON_INTEGER. The grammar is left to the parser. */
knit_status knit__json_scan(knit_reader *r);

/* cJSON's parser, safe for several threads at once. *end is the offset of the first byte after the value, or of the error.
 * NULL if the text is no JSON. */
struct cJSON *knit__json_parse(const void *text, uint64_t bytes, uint64_t *end);

#endif
