/* Owns the parameter block of map and of the elementwise ops, which are maps of one instruction. */
#ifndef KNIT_PARAMS_MAP_H
#define KNIT_PARAMS_MAP_H

#include "words.h"

struct knit_map_params {
	uint count;       /* elements of the output */
	uint row;         /* elements of a vector that repeats */
	uint at[4], out_at;
	float scale[6];   /* of instructions that scale */
};

#endif
