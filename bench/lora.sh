#!/usr/bin/env bash
# What a LoRA per visit costs in decode, as a Markdown page on stdout.
#   bench/lora.sh BENCH_LORA MACHINE [--cpu-time]      bench/lora.sh build/release/bench-lora "..." > bench/results/lora.md
# BENCH_LORA: the program (ninja bench-lora). MACHINE: in words. --cpu-time: processor time of one thread, for a busy machine.
set -euo pipefail
bench=$1 machine=$2 clock=${3:-}
root=$(cd "$(dirname "$0")/.." && pwd)
row() { "$bench" $clock --tokens 1 --markdown "$@"; }
small="--ffn 1536 --heads 9 --kv-heads 3"
middle="--ffn 2816 --heads 16 --kv-heads 4"

cat <<-END
	# LoRA per visit: the cost in decode

	A looped model of random weights, 10 layers visited 3 times, with a LoRA of rank 16 on all seven projections of each of the 30
	visits, against the same visits without, over the same base weights. Made by \`bench/lora.sh\` with \`bench-lora\` (\`--help\` says
	what it does) at commit $(git -C "$root" rev-parse --short HEAD) on: $machine.

	A pair is one token of each, the order changing from pair to pair; given are the median of the ratios of pairs, its 95 %
	interval by bootstrap, and by how much the LoRA enlarges the bytes that a token reads: no kernel can be better than that where
	bandwidth binds. $([ -n "$clock" ] && echo "Times are processor time of one thread, since others used the machine.")

	| weights | dim / ffn | layers x visits | LoRA | threads | base | without | with | ratio | 95 % interval | bytes | read |
	|---|---|---|---|---|---|---|---|---|---|---|---|
END
row --type f16 --pairs 60
row --type q8_0 --pairs 100
row --type q4_0 --pairs 100
row --type q8_0 --lora-type f32 --pairs 60
row --type f16 --dim 1024 $middle --pairs 150
row --type q8_0 --dim 1024 $middle --pairs 200
row --type f16 --dim 576 $small --pairs 200
row --type q8_0 --dim 576 $small --pairs 200
cat <<-END

	## By op

	Medians of each step, added up; q8_0, 2048 / 5632, then 576 / 1536 (\`bench-lora --steps\`).

END
"$bench" $clock --tokens 1 --pairs 10 --steps | sed -n '/^ms per token/,$p' | sed 's/^/    /'
echo
"$bench" $clock --tokens 1 --pairs 10 --steps --dim 576 $small | sed -n '/^ms per token/,$p' | sed 's/^/    /'
