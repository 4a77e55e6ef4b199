# The only list of shader variants, a row each:
#   name | source | defines | needs
# name: what kernels ask for. source: in this folder. defines: NAME=VALUE words. needs: words of what a device must offer
# beyond the baseline: dot coopmat subgroup_control (KNIT_VK_* in backends/vulkan/vk_kernel.h).
set(KNIT_SHADER_VARIANTS
	"gather | gather.comp | |"
	"map | map.comp | |"
	"copy | copy.comp | |"
	"softmax | softmax.comp | |"
	"argmax | argmax.comp | |"
	"norm | norm.comp | |"
	"add_norm | norm.comp | ADD |"
	"kv_write | kv_write.comp | |"
	"attention_split | attention_split.comp | |"
	"attention_combine | attention_combine.comp | |"
	"attention_tile | attention_tile.comp | |"
	"linear_matvec_f32 | linear_matvec.comp | W_F32 |"
	"linear_matvec_f16 | linear_matvec.comp | W_F16 |"
	"linear_matvec_bf16 | linear_matvec.comp | W_BF16 |"
	"linear_matvec_q8_0 | linear_matvec.comp | W_Q8_0 |"
	"linear_matvec_q4_0 | linear_matvec.comp | W_Q4_0 |"
	"linear_matvec_q4_k | linear_matvec.comp | W_Q4_K |"
	"linear_matvec_q6_k | linear_matvec.comp | W_Q6_K |"
	"linear_tile_f32 | linear_tile.comp | W_F32 |"
	"linear_tile_f16 | linear_tile.comp | W_F16 |"
	"linear_tile_bf16 | linear_tile.comp | W_BF16 |"
	"linear_tile_q8_0 | linear_tile.comp | W_Q8_0 |"
	"linear_tile_q4_0 | linear_tile.comp | W_Q4_0 |"
	"linear_tile_q4_k | linear_tile.comp | W_Q4_K |"
	"linear_tile_q6_k | linear_tile.comp | W_Q6_K |"
	"linear_quantise | linear_quantise.comp | |"
	"linear_tile_dot_q8_0 | linear_tile_dot.comp | W_Q8_0 | dot"
	"linear_tile_dot_q4_0 | linear_tile_dot.comp | W_Q4_0 | dot"
)
