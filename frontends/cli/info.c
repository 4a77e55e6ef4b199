/* knit info: what a model is made of and what its parts share. */
#include "cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char help[] = "knit info MODEL: what a model is made of, and what its parts share.\n\n"
						   "  knit info story.gguf            layers, visits, parameters, shared weights, vocabulary\n"
						   "  knit info story.gguf --json     the same for programs\n\n"
						   "      --tokenizer FILE  llama2.c tokenizer (the model's own, or one beside it)\n"
						   "      --visits LIST     layers in the order in which they run: 0-3,2-3,4; 0-3x3 is three times 0-3\n"
						   "      --loops N         run the model's loop N times: the whole stack, or the core between prelude and coda\n"
						   "      --adapter FILE    LoRA matrices from a file of their own; none: without LoRA\n"
						   "      --kv SPEC         how large the KV slots would be, SPEC as in knit run --help (f16)\n"
						   "      --json            one JSON object\n";

/* What the store says about types and sharing. */
typedef struct store_facts {
	uint64_t unique, named; /* bytes: each storage once, each name once */
	uint64_t tie_saves;     /* bytes of equal tensors that lie in the file more than once */
	uint32_t tensors;
	struct {
		uint32_t tensors;
		uint64_t bytes;
	} types[KNIT_Q6_K + 1];
} store_facts;

/* Where a tensor's bytes lie, and where those of the first one with equal bytes do. */
typedef struct place {
	uint32_t storage;
	const void *data;
	uint64_t bytes;
} place;

static int compare_places(const void *a, const void *b) {
	const place *x = a, *y = b;

	if (x->storage != y->storage)
		return x->storage < y->storage ? -1 : 1;
	return (x->data > y->data) - (x->data < y->data);
}

/* Names may share bytes in the file already: each place counts once. 0 where memory is out. */
static uint64_t tie_saves(const knit_weights *store) {
	place *places = calloc(store->count + 1, sizeof *places);
	uint64_t saves = 0;

	for (uint32_t i = 0; places && i < store->count; ++i)
		places[i] = (place){store->entries[i].storage, store->entries[i].data, store->entries[i].bytes};
	if (places)
		qsort(places, store->count, sizeof *places, compare_places);
	for (uint32_t i = 1; places && i < store->count; ++i)
		if (places[i].storage == places[i - 1].storage && places[i].data != places[i - 1].data)
			saves += places[i].bytes;
	free(places);
	return saves;
}

static void look_at_store(const knit_weights *store, store_facts *out) {
	memset(out, 0, sizeof *out);
	knit__weights_bytes(store, &out->unique, &out->named);
	out->tie_saves = tie_saves(store);
	out->tensors = store->count;
	for (uint32_t i = 0; i < store->count; ++i) {
		const knit_weight_entry *e = &store->entries[i];
		if ((size_t)e->dtype < sizeof out->types / sizeof *out->types) {
			++out->types[e->dtype].tensors;
			out->types[e->dtype].bytes += e->bytes;
		}
	}
}

/* The next entry after `from` that begins a group of names with one storage; count if there is none. */
static uint32_t next_group(const knit_weights *store, uint32_t from) {
	for (uint32_t i = from; i < store->count; ++i) {
		if (store->entries[i].storage != i)
			continue;
		for (uint32_t k = i + 1; k < store->count; ++k)
			if (store->entries[k].storage == i)
				return i;
	}
	return store->count;
}

static void visits_text(const knit__decoder_config *c, char *out, size_t bytes) {
	knit__visit_list list = {.count = c->visit_count};

	memcpy(list.layer, c->visits, sizeof list.layer);
	knit__visits_text(&list, out, bytes);
}

static bool visits_are_plain(const knit__decoder_config *c) {
	for (uint32_t v = 0; v < c->visit_count; ++v)
		if (c->visits[v] != v)
			return false;
	return c->visit_count == c->layers;
}

static const char *vocabulary_kind(const knit_tokenizer *t) {
	const char *kind = knit__tokenizer_kind(t);

	return strcmp(kind, "llama") == 0 ? "SentencePiece" : kind;
}

static void print_shared(const cli_model *m, const store_facts *f) {
	const knit__decoder_config *c = &m->model.config;
	const knit_weights *store = m->model.file.store;
	char a[32];

	if (c->tied)
		printf("head         tied: the embedding is the output matrix too\n");
	for (uint32_t i = next_group(store, 0); i < store->count; i = next_group(store, i + 1)) {
		uint32_t names = 1;
		printf("shared       %s", store->entries[i].name);
		for (uint32_t k = i + 1; k < store->count; ++k)
			if (store->entries[k].storage == i && ++names <= 8)
				printf(" = %s", store->entries[k].name);
		if (names > 8)
			printf(" and %u more", (unsigned)(names - 8));
		printf(": equal bytes, stored once (saves %s)\n", cli_bytes(store->entries[i].bytes * (names - 1), a));
	}
	if (f->named > f->unique)
		printf("saved        %s of %s in memory by sharing\n", cli_bytes(f->named - f->unique, a),
			   cli_bytes(f->named, (char[32]){0}));
	if (m->model.file.format == KNIT_MODEL_GGUF && f->tie_saves)
		printf("in the file  equal tensors lie there more than once: \"knit tie\" would save %s of %s\n",
			   cli_bytes(f->tie_saves, a), cli_bytes(m->model.file.file_bytes, (char[32]){0}));
}

static void print_slots(const cli_model *m) {
	const knit__decoder_config *k = &m->model.config;
	const uint64_t each = knit__decoder_kv_bytes(k, m->kv.k, m->kv.v);
	knit__kv_map map;
	char a[32], b[32], text[160];

	printf("context      %" PRId64 " positions\n", k->context);
	knit__kv_text(&m->kv, text, sizeof text);
	if (knit__decoder_kv_map(k, &map, NULL) != KNIT_OK) {
		printf("KV cache     the model's slots are for its own visits (--kv names others)\n");
		return;
	}
	printf("KV cache     %u slots for %u visits (%s): %s per position", (unsigned)knit__kv_map_slots(&map),
		   (unsigned)map.count, text, cli_bytes(each, a));
	if (m->kv.window)
		printf(", %s for the window and %s for each token of a step\n",
			   cli_bytes(each * (uint64_t)(m->kv.window - 1 + m->kv.sinks), b), a);
	else
		printf(", %s for all\n", cli_bytes(each * (uint64_t)k->context, b));
}

static int print_text(const cli_common *c, const cli_model *m) {
	const knit__decoder_config *k = &m->model.config;
	const knit_weights *store = m->model.file.store;
	knit__decoder_parameters p;
	store_facts f;
	char a[32], text[256];

	if (knit__decoder_count_parameters(k, store, m->model.adapters, &p) != KNIT_OK)
		return cli_fail("out of memory");
	look_at_store(store, &f);
	printf("file         %s, %s", c->model.path, knit__model_format_name(m->model.file.format));
	if (m->model.file.version)
		printf(" v%u", (unsigned)m->model.file.version);
	printf(", %s\n", cli_bytes(m->model.file.file_bytes, a));
	printf("architecture %s: %u layers, width %" PRId64 ", feed-forward %" PRId64 "\n", k->architecture,
		   (unsigned)k->layers, k->dim, k->ffn);
	printf("attention    %" PRId64 " heads of %" PRId64 ", %" PRId64 " for keys and values; rope %s, theta %g\n",
		   k->heads, k->head_dim, k->kv_heads, k->rope.layout == KNIT_ROPE_SPLIT ? "split" : "interleaved",
		   (double)k->rope.theta);
	visits_text(k, text, sizeof text);
	printf("visits       %u of %u layers%s%s\n", (unsigned)k->visit_count, (unsigned)k->layers,
		   visits_are_plain(k) ? ", each once" : ": ", visits_are_plain(k) ? "" : text);
	printf("parameters   %s stored", cli_count(p.unique + p.lora, a));
	printf(", %s as visited\n", cli_count(p.visited + p.lora, a));
	if (p.lora)
		printf("LoRA         rank %" PRId64 ", scale %g, %s parameters\n", k->lora_rank, (double)k->lora_scale,
			   cli_count(p.lora, a));
	for (int t = 0; t <= KNIT_Q6_K; ++t)
		if (f.types[t].tensors)
			printf("weights      %s: %u tensors, %s\n", knit_dtype_name((knit_dtype)t), (unsigned)f.types[t].tensors,
				   cli_bytes(f.types[t].bytes, a));
	print_shared(m, &f);
	if (m->model.tokenizer)
		printf("vocabulary   %s, %s tokens\n", vocabulary_kind(m->model.tokenizer),
			   cli_count(knit__tokenizer_vocab_size(m->model.tokenizer), a));
	else
		printf("vocabulary   %s rows; no tokenizer that knit knows (--tokenizer names one)\n",
			   cli_count((uint64_t)k->vocab, a));
	print_slots(m);
	if (m->model.file.skipped_count)
		printf("left out     %u tensors that are no weights, such as %s\n", (unsigned)m->model.file.skipped_count,
			   m->model.file.skipped[0].name);
	return cli_finish_stdout();
}

static cJSON *json_shared(const knit_weights *store) {
	cJSON *groups = cJSON_CreateArray();

	for (uint32_t i = next_group(store, 0); i < store->count; i = next_group(store, i + 1)) {
		cJSON *group = cJSON_CreateObject(), *names = cJSON_AddArrayToObject(group, "names");
		for (uint32_t k = i; k < store->count; ++k)
			if (store->entries[k].storage == i)
				cJSON_AddItemToArray(names, cJSON_CreateString(store->entries[k].name));
		cJSON_AddItemToObject(group, "bytes", cli_json_u64(store->entries[i].bytes));
		cJSON_AddItemToArray(groups, group);
	}
	return groups;
}

static int print_json(const cli_common *c, const cli_model *m) {
	const knit__decoder_config *k = &m->model.config;
	const knit_weights *store = m->model.file.store;
	knit__decoder_parameters p;
	store_facts f;
	knit__kv_map map;

	if (knit__decoder_count_parameters(k, store, m->model.adapters, &p) != KNIT_OK)
		return cli_fail("out of memory");
	cJSON *root = cJSON_CreateObject(), *types = cJSON_CreateObject(), *visits = cJSON_CreateArray();
	look_at_store(store, &f);
	cJSON_AddItemToObject(root, "model", cli_json_text(c->model.path, strlen(c->model.path)));
	cJSON_AddStringToObject(root, "format", knit__model_format_name(m->model.file.format));
	cJSON_AddNumberToObject(root, "format_version", m->model.file.version);
	cJSON_AddItemToObject(root, "file_bytes", cli_json_u64(m->model.file.file_bytes));
	cJSON_AddStringToObject(root, "architecture", k->architecture);
	cJSON_AddNumberToObject(root, "layers", k->layers);
	cJSON_AddNumberToObject(root, "embedding_length", (double)k->dim);
	cJSON_AddNumberToObject(root, "feed_forward_length", (double)k->ffn);
	cJSON_AddNumberToObject(root, "heads", (double)k->heads);
	cJSON_AddNumberToObject(root, "kv_heads", (double)k->kv_heads);
	cJSON_AddNumberToObject(root, "head_dim", (double)k->head_dim);
	cJSON_AddNumberToObject(root, "context", (double)k->context);
	cJSON_AddStringToObject(root, "rope_layout", k->rope.layout == KNIT_ROPE_SPLIT ? "split" : "interleaved");
	cJSON_AddNumberToObject(root, "rope_theta", (double)k->rope.theta);
	for (uint32_t v = 0; v < k->visit_count; ++v)
		cJSON_AddItemToArray(visits, cJSON_CreateNumber(k->visits[v]));
	cJSON_AddItemToObject(root, "visits", visits);
	cJSON_AddItemToObject(root, "parameters_unique", cli_json_u64(p.unique + p.lora));
	cJSON_AddItemToObject(root, "parameters_visited", cli_json_u64(p.visited + p.lora));
	cJSON_AddItemToObject(root, "parameters_lora", cli_json_u64(p.lora));
	cJSON_AddNumberToObject(root, "lora_rank", (double)k->lora_rank);
	cJSON_AddNumberToObject(root, "lora_scale", k->lora_rank ? (double)k->lora_scale : 0);
	for (int t = 0; t <= KNIT_Q6_K; ++t)
		if (f.types[t].tensors)
			cJSON_AddItemToObject(types, knit_dtype_name((knit_dtype)t), cli_json_u64(f.types[t].bytes));
	cJSON_AddItemToObject(root, "weight_bytes_by_type", types);
	cJSON_AddItemToObject(root, "weight_bytes", cli_json_u64(f.unique));
	cJSON_AddItemToObject(root, "weight_bytes_by_name", cli_json_u64(f.named));
	cJSON_AddItemToObject(root, "tie_saves_bytes", cli_json_u64(f.tie_saves));
	cJSON_AddBoolToObject(root, "head_tied", k->tied);
	cJSON_AddItemToObject(root, "shared", json_shared(store));
	cJSON_AddNumberToObject(root, "vocabulary_rows", (double)k->vocab);
	if (m->model.tokenizer) {
		cJSON_AddStringToObject(root, "vocabulary_kind", knit__tokenizer_kind(m->model.tokenizer));
		cJSON_AddNumberToObject(root, "vocabulary_tokens", knit__tokenizer_vocab_size(m->model.tokenizer));
	}
	cJSON_AddItemToObject(root, "kv_bytes_per_position_f16",
						  cli_json_u64(knit__decoder_kv_bytes(k, KNIT_F16, KNIT_F16)));
	cJSON_AddItemToObject(root, "kv", cli_json_kv(&m->kv));
	cJSON_AddItemToObject(root, "kv_bytes_per_position", cli_json_u64(knit__decoder_kv_bytes(k, m->kv.k, m->kv.v)));
	if (knit__decoder_kv_map(k, &map, NULL) == KNIT_OK)
		cJSON_AddNumberToObject(root, "kv_slots", knit__kv_map_slots(&map));
	return cli_json_print(root);
}

int cli_info(int argc, char **argv) {
	static const struct option longs[] = {
		{"tokenizer", required_argument, NULL, CLI_OPT_TOKENIZER},
		{"visits", required_argument, NULL, CLI_OPT_VISITS},
		{"loops", required_argument, NULL, CLI_OPT_LOOPS},
		{"adapter", required_argument, NULL, CLI_OPT_ADAPTER},
		{"kv", required_argument, NULL, CLI_OPT_KV},
		{"json", no_argument, NULL, CLI_OPT_JSON},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	cli_common c = {.command = "info"};
	cli_model m = {0};
	int option, code = CLI_OK;

	while ((option = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
		if (option == 'h') {
			fputs(help, stdout);
			return cli_finish_stdout();
		}
		if (!cli_common_option(&c, option, argv, &code))
			return code;
	}
	if (!cli_operands(&c, argc, argv, NULL, NULL, &code))
		return code;
	c.model.tokenizer = KNIT__TOKENIZER_IF_THERE;
	code = cli_model_open(&c, &m);
	if (code == CLI_OK) {
		cli_model_set_kv(&c, &m, KNIT_F16);
		code = c.json ? print_json(&c, &m) : print_text(&c, &m);
	}
	cli_model_close(&m);
	return code;
}
