#!/usr/bin/env bash
# The public memory planning instances and the plans of whole models, as a Markdown page on stdout.
#   bench/planner.sh KNIT DATA [MODELS]    bench/planner.sh build/release/knit ../shared/data build/release/tests/test-planner-models > bench/results/planner.md
# KNIT: the built command. DATA: the folder with planner/*.CAPACITY.csv. MODELS: the built test-planner-models, whose figures
# are the second table.
set -euo pipefail
knit=$1 data=$2 models=${3:-}
root=$(cd "$(dirname "$0")/.." && pwd)
TIMEFORMAT=%U

field() { sed -n "s/.*\"$1\":\([0-9.e+-]*\).*/\1/p" <<<"$json"; }

cat <<-END
	# Memory planner

	Made by \`bench/planner.sh\` at commit $(git -C "$root" rev-parse --short HEAD) on a CPU of the cloud; seconds are processor time of one core.

	## Public instances

	The MiniMalloc instances, each solvable within its capacity. Lower bound: the most that is alive at one step. Greedy: the best of several
	fixed orders. Result: after the exact search, which stops after a fixed number of looked-at blocks, so that it is the same on every
	machine. In order: best fit in the order of execution, the common practice.

	| instance | blocks | capacity | lower bound | greedy | result | of the capacity | seconds | in order | in order / result |
	|---|---|---|---|---|---|---|---|---|---|
END
for file in "$data"/planner/*.csv; do
	name=$(basename "$file" .csv)
	json=$("$knit" plan --csv "$file" --json)
	seconds=$({ time "$knit" plan --csv "$file" >/dev/null; } 2>&1)
	awk -v name="${name%.*}" -v capacity="${name##*.}" -v blocks="$(field blocks)" -v bound="$(field lower_bound_bytes)" \
		-v greedy="$(field greedy_bytes)" -v peak="$(field peak_bytes)" -v order="$(field in_order_bytes)" -v s="$seconds" \
		-v optimal="$(grep -c '"optimal":true' <<<"$json")" 'BEGIN {
		proof = optimal ? ", optimal" : ""
		above = peak > capacity ? " **above**" : ""
		printf "| %s | %d | %d | %d | %d | %d%s | %.4f%s | %.3f | %d | %.3f |\n", name, blocks, capacity, bound, greedy, peak, proof,
			peak / capacity, above, s, order, order / peak }'
done
[ -z "$models" ] && exit
cat <<-END

	## Models

	Bytes of activations and scratch for one token (decode) and as many as given (prefill), with kernels of the CPU (2 threads) and of the
	null device, which needs no scratch. In order: best fit in the order of execution, of the same steps. Unfused: with the fusing passes off.

END
"$models" | grep '^|'
