/* Contexts in files: what `knit run` has fed so far, its token ids as the note. */
#include "cli.h"

#include <inttypes.h>

enum { USUAL_TOKENS = 1 << 16 };

static bool room(knit_token_list *list, size_t tokens) {
	return tokens <= UINT32_MAX && knit__grow(list->a, (void **)&list->ids, &list->cap, (uint32_t)tokens, sizeof *list->ids);
}

static int fail_session(const cli_model *m, knit_status status) {
	knit_diag diag = {0};

	knit_session_diag(m->decoder.session, &diag);
	return cli_fail_diag(status, &diag);
}

int cli_context_load(const cli_model *m, const char *path, knit_token_list *ids, size_t *fed) {
	size_t bytes = USUAL_TOKENS * sizeof(int32_t);
	knit_status status = KNIT_ERR_LIMIT;
	int64_t used = 0;

	/* A note that is longer than usual says how long it is. */
	for (int i = 0; i < 2 && status == KNIT_ERR_LIMIT; ++i) {
		const size_t had = bytes;
		if (!room(ids, bytes / sizeof(int32_t) + 1))
			return cli_fail("out of memory");
		status = knit_session_load_states(m->decoder.session, path, &used, 1, ids->ids, &bytes);
		if (status == KNIT_ERR_LIMIT && bytes <= had)
			break;
	}
	if (status != KNIT_OK)
		return fail_session(m, status);
	ids->count = (uint32_t)(bytes / sizeof(int32_t));
	if (bytes % sizeof(int32_t) != 0 || used < 0 || (uint64_t)used > ids->count || ids->count == 0)
		return cli_fail("%s: holds states, but not the tokens of a text: it was not saved by knit run", path);
	*fed = (size_t)used;
	return CLI_OK;
}

int cli_context_save(const cli_model *m, const char *path, const knit_token_list *prompt, const knit_token_list *made,
					 size_t fed) {
	const int64_t used = (int64_t)fed;
	knit_token_list all = {.a = &m->ctx->a};

	if (!room(&all, (size_t)prompt->count + made->count + 1))
		return cli_fail("out of memory");
	for (uint32_t i = 0; i < prompt->count; ++i)
		all.ids[all.count++] = prompt->ids[i];
	for (uint32_t i = 0; i < made->count; ++i)
		all.ids[all.count++] = made->ids[i];
	const knit_status status =
		knit_session_save_states(m->decoder.session, path, &used, 1, all.ids, all.count * sizeof *all.ids);
	knit__token_list_clear(&all);
	return status == KNIT_OK ? CLI_OK : fail_session(m, status);
}
