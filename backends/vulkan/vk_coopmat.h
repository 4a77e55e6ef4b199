/* Owns the few declarations of VK_KHR_cooperative_matrix that are needed, by their numbers in the specification: the
 * extension is younger than the headers that knit is content with. */
#ifndef KNIT_VK_COOPMAT_H
#define KNIT_VK_COOPMAT_H

#include "vk_load.h"

#define KNIT_VK_COOPMAT_EXTENSION "VK_KHR_cooperative_matrix"
#define KNIT_VK_COOPMAT_QUERY "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR"
#define KNIT_VK_COOPMAT_FEATURES_TYPE ((VkStructureType)1000506000)
#define KNIT_VK_COOPMAT_PROPERTIES_TYPE ((VkStructureType)1000506001)

enum { KNIT_VK_COMPONENT_F16 = 0, KNIT_VK_COMPONENT_F32 = 1, KNIT_VK_SCOPE_SUBGROUP = 3 };

/* VkPhysicalDeviceCooperativeMatrixFeaturesKHR */
typedef struct knit_vk_coopmat_features {
	VkStructureType sType;
	void *pNext;
	VkBool32 cooperative_matrix, robust_buffer_access;
} knit_vk_coopmat_features;

/* VkCooperativeMatrixPropertiesKHR; enumerations are 32 bits wide. */
typedef struct knit_vk_coopmat_properties {
	VkStructureType sType;
	void *pNext;
	uint32_t m, n, k, a_type, b_type, c_type, result_type;
	VkBool32 saturating;
	uint32_t scope;
} knit_vk_coopmat_properties;

typedef VkResult(VKAPI_PTR *knit_vk_coopmat_query)(VkPhysicalDevice physical, uint32_t *count,
                                                   knit_vk_coopmat_properties *out);

#endif
