/* Owns KNIT_VK_LIMITS: limits lowered below the driver's, so that one machine can stand in for smaller devices. */
#ifndef KNIT_VK_LIMITS_H
#define KNIT_VK_LIMITS_H

#include "vk_probe.h"

/* "binding=134217728,allocation=268435456,groups=65535,invocations=128,shared=16384,subgroup=16,features=0,
 * memory=1000000000,allocations=64,mapped=0", any of them; values above the driver's change nothing. memory: bytes of
 * the device's own; allocations: how many at a time; mapped=0: the device's own memory counts as out of the host's
 * reach. ARGUMENT with what is wrong in the text, or where the driver cannot run the subgroup size. */
knit_status knit__vk_limits_apply(knit_vk_probe *probe, knit_diag *d);

#endif
