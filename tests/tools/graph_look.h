/* Owns what tests read off a graph: its text, there and back, and what its weights take. */
#ifndef KNIT_TEST_GRAPH_LOOK_H
#define KNIT_TEST_GRAPH_LOOK_H

#include "../../graph/ir.h"

/* Its text form; the caller frees it. */
char *graph_print(const knit_graph *g);
/* The graph must be valid, print, parse back and print the same. Returns the text. */
char *graph_round_trip(const knit_graph *g);
/* What its weights take: each storage that something uses, once. */
uint64_t graph_weight_bytes(const knit_graph *g, uint32_t *storages);

#endif
