/* Owns the shape of a group: spec constant 0 is its width, and groups are numbered through both axes of the grid. To be
 * included first: extensions come before everything else. */
#extension GL_EXT_scalar_block_layout : require
#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_shader_8bit_storage : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require

layout(local_size_x = 64, local_size_x_id = 0) in;

#define KNIT_PARAMS layout(set = 0, binding = 0, std430) uniform knit_params
#define KNIT_IN(n) layout(set = 0, binding = n, std430) readonly buffer
#define KNIT_OUT(n) layout(set = 0, binding = n, std430) writeonly buffer

uint knit_group() { return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x; }
uint knit_lane() { return gl_LocalInvocationID.x; }
uint knit_width() { return gl_WorkGroupSize.x; }
