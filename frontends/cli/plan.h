/* Owns what the files of `knit plan` share: the collected figures. */
#ifndef KNIT_CLI_PLAN_H
#define KNIT_CLI_PLAN_H

#include "cli.h"

typedef struct cli_certificate {
	const cli_common *common;
	const cli_model *m;
	knit__decoder_parameters parameters;
	knit_memory memory;
	uint64_t kv_bytes_per_token;
	int64_t prompt;
	cJSON *report; /* of knit_program_report */
} cli_certificate;

/* The certificate for people, on stdout. */
int cli_plan_print(const cli_certificate *plan);
/* One object, schema "knit.plan/1"; the report goes into it. NULL when out of memory. */
cJSON *cli_plan_json(cli_certificate *plan);
/* The page with the object's data in it, into a file. Deletes root. */
int cli_plan_page(const cli_certificate *plan, cJSON *root, const char *path);

/* Places the blocks of a CSV file; `output`: where the offsets go, NULL for nowhere. Prints its own error. */
int cli_plan_csv(const char *path, const char *output, bool json);

/* "4.31 MFLOP" */
const char *cli_flops(double flops, char out[32]);

#endif
