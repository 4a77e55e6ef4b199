#!/usr/bin/env bash
# Perplexity of the bundled model and of stories260K for every pair of types of keys and values, as a Markdown page on stdout.
#   bench/kv_types.sh KNIT DATA [WINDOWS]      bench/kv_types.sh build/release/knit ../shared/data > bench/results/kv-types.md
# KNIT: the built command. DATA: the folder with corpora/, models/ and golden/. WINDOWS: of the last tenth of the text (200).
# The same tokens are measured for every pair, so differences say more than the standard error of one figure.
set -euo pipefail
knit=$1 data=$2 windows=${3:-200}
root=$(cd "$(dirname "$0")/.." && pwd)
types=(f32 f16 bf16 q8_0 q4_0)

# nats per token of `knit eval` with these arguments
nats() {
	"$knit" eval "$@" --json | sed -n 's/.*"nats_per_token":\([0-9.e+-]*\).*/\1/p'
}
bundled() { nats "$root/frontends/demo/shakespeare.gguf" "$data/corpora/tinyshakespeare.txt" --last-fraction 0.1 --windows "$windows" --kv "$1"; }
stories() { nats "$data/models/stories260K/stories260K.bin" --ids "$data/golden/stories260K.ppl_ids.u16" --ctx 256 --kv "$1"; }

# One row per type of keys, one column per type of values: perplexity and its change in percent.
table() {
	local base k v n
	base=$("$1" f32)
	printf '| keys \\ values |'; printf ' %s |' "${types[@]}"; printf '\n|---|'; printf -- '---|%.0s' "${types[@]}"; printf '\n'
	for k in "${types[@]}"; do
		printf '| %s |' "$k"
		for v in "${types[@]}"; do
			n=$("$1" "k=$k,v=$v")
			awk -v n="$n" -v b="$base" 'BEGIN { printf " %.4f (%+.3f %%) |", exp(n), (exp(n - b) - 1) * 100 }'
		done
		printf '\n'
	done
}

cat <<-END
	# Types of keys and values

	Perplexity with the KV slots in each pair of types, and its change against f32 for both. Made by \`bench/kv_types.sh\` at commit
	$(git -C "$root" rev-parse --short HEAD) on a CPU of the cloud with $("$knit" devices | awk 'seen { sub(",", "", $2); print $1, $2; exit } $1 == "cpu" { seen = 1 }').

	## The bundled model

	Bytes, 12 visits of 4 layers, heads of 32; the first $windows windows of 256 bytes of the last tenth of Tiny Shakespeare.

END
table bundled
cat <<-END

	## stories260K

	5 layers, heads of 8 (a block of 32 spans four of them); the golden stream of 94 windows of 256 tokens.

END
table stories
cat <<-END

	## Policies and windows

	The bundled model as above, f16. It was trained with a slot per visit and the whole context: the other rows say what it costs to run it
	otherwise without training it for that.

	| --kv | perplexity | bytes per position |
	|---|---|---|
END
for kv in visit layer first group:2 group:4 visit,window=64 visit,window=64,sinks=4; do
	n=$(bundled "$kv,f16")
	bytes=$("$knit" info "$root/frontends/demo/shakespeare.gguf" --kv "$kv,f16" --json | sed -n 's/.*"kv_bytes_per_position":\([0-9]*\).*/\1/p')
	awk -v kv="$kv" -v n="$n" -v b="$bytes" 'BEGIN { printf "| %s | %.4f | %d |\n", kv, exp(n), b }'
done
