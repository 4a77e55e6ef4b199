/* Owns the Vulkan instance and what is reported through it: validation messages, counted and passed to the log. Knows
 * no device. */
#ifndef KNIT_VK_INSTANCE_H
#define KNIT_VK_INSTANCE_H

#include "vk_load.h"

/* KNIT_VK_VALIDATE: unset or 0, 1 (core checks), sync (and missing barriers), gpu (and checks inside shaders). */
typedef enum knit_vk_validation {
	KNIT_VK_VALIDATE_OFF,
	KNIT_VK_VALIDATE_CORE,
	KNIT_VK_VALIDATE_SYNC,
	KNIT_VK_VALIDATE_GPU,
} knit_vk_validation;

/* Stays where it is while it is open: the driver keeps a pointer to it for its messages. */
typedef struct knit_vk_instance {
	VkInstance handle;
	VkDebugUtilsMessengerEXT messenger;
	knit_vk_validation validation;
	void (*log)(void *user, int level, const char *text); /* NULL: stderr, as long as validation is on */
	void *log_user;
} knit_vk_instance;

/* Fills vk with the functions of the instance. UNSUPPORTED with the reason: no loader, no driver, no validation layer
 * though one is asked for. */
knit_status knit__vk_instance_open(const knit_context_desc *host, knit_vk_instance *out, knit_vk_api *vk, knit_diag *d);
void knit__vk_instance_close(knit_vk_instance *instance, const knit_vk_api *vk);

/* Errors and warnings that validation has reported to this process so far. */
uint64_t knit__vk_messages(void);

#endif
