/* Owns what tests read off a graph. */
#include "graph_look.h"
#include "../../graph/context.h"
#include "../../graph/pass_check.h"
#include "../../graph/text.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

char *graph_print(const knit_graph *g) {
	knit_text t = {.a = g->a};

	ck_assert_int_eq(knit__print_text(g, &t), KNIT_OK);
	char *copy = strdup(t.data);
	knit__text_clear(&t);
	return copy;
}

char *graph_round_trip(const knit_graph *g) {
	knit_diag d = {0};
	knit_graph *again;
	char *first = graph_print(g);

	ck_assert_msg(knit__check_valid(g, NULL, &d) == KNIT_OK, "%s\n%s", d.text, first);
	ck_assert_msg(knit__parse_text(g->ctx, first, &again, &d) == KNIT_OK, "%s\n%s", d.text, first);
	char *second = graph_print(again);
	ck_assert_str_eq(first, second);
	ck_assert_msg(knit__check_valid(again, NULL, &d) == KNIT_OK, "%s", d.text);
	ck_assert_uint_eq(again->order_count, g->order_count);
	ck_assert_uint_eq(again->input_count, g->input_count);
	ck_assert_uint_eq(again->output_count, g->output_count);
	ck_assert_uint_eq(again->state_count, g->state_count);
	knit_graph_destroy(again);
	free(second);
	return first;
}

uint64_t graph_weight_bytes(const knit_graph *g, uint32_t *storages) {
	bool *used = calloc(g->storage_count, sizeof *used);
	uint64_t bytes = 0;

	*storages = 0;
	for (uint32_t i = 0; i < g->order_count; ++i)
		for (int k = 0; k < g->nodes[g->order[i]].in_count; ++k)
			used[g->values[g->nodes[g->order[i]].in[k]].storage] = true;
	for (uint32_t i = 0; i < g->output_count; ++i)
		used[g->values[g->outputs[i].value].storage] = true;
	for (uint32_t i = 1; i < g->storage_count; ++i) {
		if (!used[i] || (g->storages[i].kind != KNIT_STORAGE_CONST && g->storages[i].kind != KNIT_STORAGE_ADAPTER))
			continue;
		bytes += g->storages[i].max_bytes;
		++*storages;
	}
	free(used);
	return bytes;
}
