/* Owns the measuring of choices on a device. */
#ifndef KNIT_VK_TUNE_H
#define KNIT_VK_TUNE_H

#include "vk.h"

knit_status knit__vk_tune(uint32_t index, const knit_context_desc *host, const knit_tune_desc *desc,
                          knit_tune_result *out, knit_diag *d);

#endif
