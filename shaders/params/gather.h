/* Owns the parameter block of gather. */
#ifndef KNIT_PARAMS_GATHER_H
#define KNIT_PARAMS_GATHER_H

#include "words.h"

/* One dispatch knows rows [first, first + count) of the table; the first one also answers ids outside of the table. */
struct knit_gather_params {
	uint ids, n;          /* how many of each */
	uint pieces;          /* groups per row */
	uint rows, first, count;
	uint base, row_words; /* where row `first` begins, and from row to row: words of the table's array */
	uint ids_at, out_at;  /* elements */
};

#endif
