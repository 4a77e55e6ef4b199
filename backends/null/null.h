/* Owns the declaration of the null backend. */
#ifndef KNIT_NULL_H
#define KNIT_NULL_H

#include "../backend.h"

extern const knit_backend knit__null_backend;

#endif
