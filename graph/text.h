/* Owns the text form of a graph, both ways: parse(print(g)) == g, except for the bytes of weights. */
#ifndef KNIT_TEXT_H
#define KNIT_TEXT_H

#include "ir.h"

knit_status knit__print_text(const knit_graph *g, knit_text *out);
/* Graphviz: nodes as boxes by origin, weights as ellipses, storages used more than once coloured alike. */
knit_status knit__print_dot(const knit_graph *g, knit_text *out);
/* FORMAT with the line number. Weights of a parsed graph have host NULL. */
knit_status knit__parse_text(knit_context *ctx, const char *text, knit_graph **out, knit_diag *d);

/* "const", "state" ...; "?" for an unknown kind. */
const char *knit__storage_kind_name(knit_storage_kind kind);
/* 0 if there is none of that name. */
knit_storage_kind knit__storage_kind_parse(const char *name);

#endif
