/* Owns the part of a program's report that tells how it is split over two devices. */
#ifndef KNIT_REPORT_SPLIT_H
#define KNIT_REPORT_SPLIT_H

#include "program.h"

#include <cjson/cJSON.h>

/* NULL when out of memory. Only for programs whose device has a `far`. */
cJSON *knit__report_split(const knit_program *p);

#endif
