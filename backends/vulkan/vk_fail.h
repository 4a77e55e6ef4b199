/* Owns failures on demand, for tests: calls that fail as a driver's would. Does nothing unless the environment asks. */
#ifndef KNIT_VK_FAIL_H
#define KNIT_VK_FAIL_H

#include "vk_load.h"

/* KNIT_VK_FAIL=N: of the calls that make something or take memory, from the opening of the device on, the N-th (from 1)
 * gives VK_ERROR_OUT_OF_DEVICE_MEMORY and does nothing.
 * KNIT_VK_LOSE=N: from the N-th submission or wait on, each gives VK_ERROR_DEVICE_LOST (after what runs has ended).
 * Both count anew with each device that is opened while one of them is set; other devices' calls are not counted.
 * `vk` is changed in place: first when the instance is there, then when the device is. */
void knit__vk_fail_instance(knit_vk_api *vk);
void knit__vk_fail_device(knit_vk_api *vk);
/* Calls counted so far by each of the two. */
void knit__vk_fail_counts(uint64_t *made, uint64_t *submitted);

#endif
