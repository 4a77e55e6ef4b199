/* The certificate as text. */
#include "plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN_KINDS = 24 };

const char *cli_flops(double flops, char out[32]) {
	static const char *const units[] = {"FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"};
	size_t unit = 0;

	for (; flops >= 1000 && unit + 1 < sizeof units / sizeof *units; ++unit)
		flops /= 1000;
	snprintf(out, 32, flops < 10 && unit ? "%.2f %s" : flops < 100 && unit ? "%.1f %s" : "%.0f %s", flops, units[unit]);
	return out;
}

static const cJSON *child(const cJSON *object, const char *name) {
	return cJSON_GetObjectItemCaseSensitive(object, name);
}

static double number(const cJSON *object, const char *name) {
	const cJSON *item = child(object, name);

	return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

static uint64_t bytes_of(const cJSON *object, const char *name) {
	return (uint64_t)number(object, name);
}

static const char *text(const cJSON *object, const char *name) {
	const cJSON *item = child(object, name);

	return cJSON_IsString(item) ? item->valuestring : "";
}

/* ---- model and memory -------------------------------------------------------------------------------------------- */

static void print_model(const cli_certificate *p) {
	const knit__decoder_config *c = &p->m->model.config;
	knit__visit_list list = {.count = c->visit_count};
	char visits[160], a[32], b[32];

	memcpy(list.layer, c->visits, sizeof list.layer);
	knit__visits_text(&list, visits, sizeof visits);
	printf("model       %s on %s: %u layers in %u visits (%s)\n", p->common->model.path,
		   knit_program_device(p->m->decoder.program), (unsigned)c->layers, (unsigned)c->visit_count, visits);
	const uint64_t unique = p->parameters.unique + p->parameters.lora, visited = p->parameters.visited + p->parameters.lora;
	printf("parameters  %s stored, %s as visited (%.2f x)\n", cli_count(unique, a), cli_count(visited, b),
		   (double)visited / (double)unique);
}

static double percent_above(uint64_t bytes, uint64_t bound) {
	return bound ? 100 * ((double)bytes - (double)bound) / (double)bound : 0;
}

static void print_memory(const cli_certificate *p) {
	const knit_memory *m = &p->memory;
	const cJSON *bucket;
	char a[32], b[32], c[32];

	printf("\nweights     %10s stored once, in %u storages\n", cli_bytes(m->weight_bytes, a), (unsigned)m->weight_storages);
	printf("            %10s by use, in %u uses: sharing saves %s\n", cli_bytes(m->weight_bytes_by_use, a),
		   (unsigned)m->weight_uses, cli_bytes(m->weight_bytes_by_use - m->weight_bytes, b));
	if (m->adapter_bytes)
		printf("adapters    %10s LoRA\n", cli_bytes(m->adapter_bytes, a));
	if (m->packed_bytes || m->packed_storages)
		printf("packed      %10s more: %u storages in the device's layout, %s of it padding, %s second copies\n",
			   cli_bytes(m->packed_bytes, a), (unsigned)m->packed_storages, cli_bytes(m->padding_bytes, b),
			   cli_bytes(m->packed_bytes - m->padding_bytes, c));
	printf("KV cache    %10s ", cli_bytes(m->state_bytes, a));
	if (p->m->positions < KNIT__MAX_CONTEXT)
		printf("for %" PRId64 " positions, %s each; keys %s, values %s\n", p->m->positions,
			   cli_bytes(p->kv_bytes_per_token, b), knit_dtype_name(p->m->kv.k), knit_dtype_name(p->m->kv.v));
	else
		printf("for a window of %" PRId64 " in any number of positions, %s each; keys %s, values %s\n", p->m->kv.window,
			   cli_bytes(p->kv_bytes_per_token, b), knit_dtype_name(p->m->kv.k), knit_dtype_name(p->m->kv.v));
	cJSON_ArrayForEach(bucket, child(p->report, "buckets")) {
		const cJSON *about = child(bucket, "about");
		const uint64_t arena = bytes_of(about, "arena_bytes"), bound = bytes_of(about, "arena_lower_bound");
		printf("arena       %10s for %.0f", cli_bytes(arena, a), number(about, "lo"));
		if (number(about, "hi") != number(about, "lo"))
			printf(" to %.0f", number(about, "hi"));
		printf(" token%s", number(about, "hi") == 1 ? "" : "s");
		const int arenas = cJSON_GetArraySize(child(bucket, "arenas"));
		if (arenas > 1)
			printf(" in %d buffers, which the device limits", arenas);
		printf("; no plan can be below %s: gap %.4g %%", cli_bytes(bound, b), percent_above(arena, bound));
		if (child(about, "arena_in_order"))
			printf("; %s by best fit in execution order", cli_bytes(bytes_of(about, "arena_in_order"), c));
		printf("; %s without sharing\n", cli_bytes(bytes_of(about, "arena_unshared"), c));
	}
	printf("in, out     %10s\n", cli_bytes(m->io_bytes, a));
	printf("sum         %10s\n", cli_bytes(m->weight_bytes + m->adapter_bytes + m->packed_bytes + m->state_bytes +
											   m->arena_bytes + m->io_bytes,
										   a));
}

/* ---- split ------------------------------------------------------------------------------------------------------- */

/* Storages that lie on one side for the same reason. */
static void print_split_kinds(const cJSON *split, const char *on) {
	const cJSON *all = child(split, "storages"), *item, *other;

	cJSON_ArrayForEach(item, all) {
		const char *why = text(item, "why");
		uint64_t bytes = 0;
		uint32_t count = 0;
		bool first = true;
		char a[32];

		if (strcmp(text(item, "on"), on) != 0 || number(item, "reads_per_token") <= 0)
			continue;
		cJSON_ArrayForEach(other, all) {
			if (strcmp(text(other, "on"), on) != 0 || strcmp(text(other, "why"), why) != 0 ||
				number(other, "reads_per_token") <= 0)
				continue;
			first = count++ ? first : other == item;
			bytes += bytes_of(other, "bytes");
		}
		if (!first)
			continue;
		printf("            %10s in %u: %s (%s%s)\n", cli_bytes(bytes, a), (unsigned)count, why, text(item, "name"),
			   count > 1 ? ", ..." : "");
	}
}

static void print_split(const cJSON *split) {
	static const char *const sides[] = {"first", "second"};
	const cJSON *device;
	char a[32], b[32], c[32], d[32];
	int side = 0;

	if (!split)
		return;
	printf("\nsplit       %.0f switches per token, %s moved in %.0f pieces", number(split, "switches_per_token"),
		   cli_bytes(bytes_of(split, "moved_bytes_per_token"), a), number(split, "moves_per_token"));
	if (cJSON_IsNumber(child(split, "budget_bytes")))
		printf("; %s for the first device", cli_bytes(bytes_of(split, "budget_bytes"), a));
	if (number(split, "steps_without_kernel") > 0)
		printf("; %.0f steps run where their weights do not lie: no kernel", number(split, "steps_without_kernel"));
	printf("\n");
	cJSON_ArrayForEach(device, child(split, "devices")) {
		printf("%-11s %10s of weights, read %s per token; %s of KV cache, %s of arena; %.0f steps\n",
			   text(device, "device"), cli_bytes(bytes_of(device, "weight_bytes"), a),
			   cli_bytes(bytes_of(device, "weight_bytes_read"), b), cli_bytes(bytes_of(device, "state_bytes"), c),
			   cli_bytes(bytes_of(device, "arena_bytes"), d), number(device, "steps"));
		if (side < 2)
			print_split_kinds(split, sides[side++]);
	}
	print_split_kinds(split, "both");
}

/* ---- cost -------------------------------------------------------------------------------------------------------- */

static void print_run(const cJSON *run) {
	const uint64_t weights = bytes_of(run, "weight_bytes_read"), unique = bytes_of(run, "weight_bytes_unique");
	const uint64_t kv = bytes_of(run, "state_bytes_read"), all = bytes_of(run, "read_bytes");
	char a[32], b[32], c[32];

	printf("%10s, %s read, %s written\n", cli_flops(number(run, "flops"), a), cli_bytes(all, b),
		   cli_bytes(bytes_of(run, "write_bytes"), c));
	printf("            %10s of weights: %s", cli_bytes(weights, a), cli_bytes(unique, b));
	printf(" once, %s read again", cli_bytes(weights - unique, c));
	printf("; %s of KV cache, %s of activations\n", cli_bytes(kv, a),
		   cli_bytes(all > weights + kv ? all - weights - kv : 0, b));
}

static void print_cost(const cli_certificate *p) {
	const cJSON *decode = child(p->report, "decode"), *prefill = child(p->report, "prefill");

	printf("\none token after %.0f positions (decode)\n            ", number(decode, "context"));
	print_run(decode);
	if (!prefill)
		return;
	printf("a prompt of %.0f tokens in %.0f runs (prefill)\n            ", number(prefill, "prompt"),
		   number(prefill, "runs"));
	print_run(prefill);
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

/* Steps of one op, made of the same parts. */
typedef struct kind {
	const char *op, *parts;
	uint32_t count;
	double flops, weights;
} kind;

static int compare_kinds(const void *a, const void *b) {
	const kind *x = a, *y = b;

	return x->count != y->count ? (x->count > y->count ? -1 : 1) : strcmp(x->op, y->op);
}

static uint32_t count_kinds(const cJSON *steps, kind *kinds) {
	const cJSON *step;
	uint32_t count = 0;

	cJSON_ArrayForEach(step, steps) {
		uint32_t k = 0;
		while (k < count && (strcmp(kinds[k].op, text(step, "op")) != 0 || strcmp(kinds[k].parts, text(step, "parts")) != 0))
			++k;
		if (k == count)
			kinds[count++] = (kind){.op = text(step, "op"), .parts = text(step, "parts")};
		++kinds[k].count;
		kinds[k].flops += number(step, "flops");
		kinds[k].weights += number(step, "weight_bytes");
	}
	qsort(kinds, count, sizeof *kinds, compare_kinds);
	return count;
}

/* The visit that a step belongs to, by its origin "visit.7.blk.1.attn_q"; -1: none. */
static int32_t visit_of(const cJSON *step) {
	unsigned visit;

	return sscanf(text(step, "origin"), "visit.%u.", &visit) == 1 && visit < KNIT__MAX_VISITS ? (int32_t)visit : -1;
}

static void print_visits(const cli_certificate *p, const cJSON *steps, uint32_t total) {
	uint32_t per_visit[KNIT__MAX_VISITS] = {0}, least = UINT32_MAX, most = 0, inside = 0;
	const uint32_t visits = p->m->model.config.visit_count;
	const cJSON *step;

	cJSON_ArrayForEach(step, steps) {
		const int32_t v = visit_of(step);
		if (v < 0)
			continue;
		++per_visit[v];
		++inside;
	}
	for (uint32_t v = 0; v < visits; ++v) {
		least = per_visit[v] < least ? per_visit[v] : least;
		most = per_visit[v] > most ? per_visit[v] : most;
	}
	printf("\nsteps       %10u per run: %u", (unsigned)total, (unsigned)least);
	if (most != least)
		printf(" to %u", (unsigned)most);
	printf(" per visit, %u beside the visits\n", (unsigned)(total - inside));
}

static int print_steps(const cli_certificate *p) {
	const cJSON *steps = child(cJSON_GetArrayItem(child(p->report, "buckets"), 0), "steps");
	const uint32_t total = (uint32_t)cJSON_GetArraySize(steps);
	kind *kinds = calloc(total + 1, sizeof *kinds);
	char a[32], b[32];

	if (!kinds)
		return cli_fail("out of memory");
	print_visits(p, steps, total);
	const uint32_t count = count_kinds(steps, kinds);
	for (uint32_t i = 0; i < count && i < SHOWN_KINDS; ++i) {
		const kind *k = &kinds[i];
		printf("            %10u x %-14s %10s %10s of weights", (unsigned)k->count, k->op, cli_flops(k->flops, a),
			   k->weights > 0 ? cli_bytes((uint64_t)k->weights, b) : "none");
		if (*k->parts)
			printf("   = %s", k->parts);
		putchar('\n');
	}
	if (count > SHOWN_KINDS)
		printf("            and %u kinds more\n", (unsigned)(count - SHOWN_KINDS));
	free(kinds);
	return CLI_OK;
}

int cli_plan_print(const cli_certificate *plan) {
	print_model(plan);
	print_memory(plan);
	print_split(child(plan->report, "split"));
	print_cost(plan);
	const int code = print_steps(plan);
	return code == CLI_OK ? cli_finish_stdout() : code;
}
