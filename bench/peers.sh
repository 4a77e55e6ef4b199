#!/usr/bin/env bash
# knit beside its peers: one table with every goal, its ratio and the interval of that, and the memory of each. One alternating run a row.
#
#   LLAMA_BENCH=/opt/llama.cpp/build/bin/llama-bench IK_BENCH=/opt/ik_llama.cpp/build/bin/llama-bench bench/peers.sh
#   bench/peers.sh --only 1.1b-q8_0,125m-4096 --runs 3
#   bench/peers.sh --list                  the rows, with what each is for
#   bench/peers.sh --models                only makes the model files (14 GB), so that the rows start at once
#   bench/peers.sh --report                only writes the page again
#
#   --models-in DIR   where the model files lie or will lie (TMPDIR or /tmp, in knit-models)
#   --out DIR         one JSON lines file for each row; a row that is there is not run again (build/peers)
#   --again           run rows again
#   --runs N          knit's runs of each test (6); peers are started for every third of them, 3 runs each where a start is long
#   --results DIR     where peers.md and peers.jsonl go (bench/results)
#   --knit PATH       the command (build/release/knit)
#
# Nothing else may run on the machine: llama-bench's threads wait by spinning, and lose ten times their speed to a neighbour. All rows take
# about half an hour on 2 cores. A row that fails is said so and the others go on. Needs jq.
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
models=${TMPDIR:-/tmp}/knit-models out=$root/build/peers results=$root/bench/results knit=$root/build/release/knit
only='' runs=6 again='' mode=run
llama=${LLAMA_BENCH:-} ik=${IK_BENCH:-}

while [ $# -gt 0 ]; do
	case $1 in
	--only) only=,$2, && shift ;;
	--runs) runs=$2 && shift ;;
	--models-in) models=$2 && shift ;;
	--out) out=$2 && shift ;;
	--results) results=$2 && shift ;;
	--knit) knit=$2 && shift ;;
	--again) again=1 ;;
	--list | --models | --report) mode=${1#--} ;;
	*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" && exit 2 ;;
	esac
	shift
done
command -v jq >/dev/null || { echo "peers.sh: needs jq (on Debian: apt-get install jq)" >&2; exit 2; }
mkdir -p "$models" "$out"

# The file of a shape: made once.
model() {
	local file

	file=$models/$(tr ',=' '--' <<<"$1").gguf
	if [ ! -s "$file" ]; then
		echo "making $file" >&2
		"$knit" bench --shape "$1" --keep "$file.part" -p 1 -n 0 -r 1 --no-peaks --no-check --no-load >/dev/null 2>&1 && mv "$file.part" "$file"
	fi
	echo "$file"
}

# name; goal of prefill and of decode (x: ratio to the better peer, %: of the memory's peak, -: none); shape; what peers run instead;
# variants (plain; rtr: ik repacks the weights at loading; nofa: both without flash attention, which in ik has no kernel for heads of 48 and
# takes minutes at depth there; nofa_only: nothing else); options. At a depth of 16 k a peer reads the context anew for each of its runs,
# which is most of the row's minutes: one start and one run, so their interval is a point and the ratio's is knit's own.
rows() {
	cat <<-END
		1.1b-f32|1.5x|85%|1.1b,type=f32||plain|-p 512 -n 128 --peer-runs 1 --peer-starts 3
		1.1b-f16|1.5x|85%|1.1b,type=f16||plain rtr|-p 512 -n 128 --peer-runs 1 --peer-starts 3
		1.1b-q8_0|2.2x|85%|1.1b,type=q8_0||plain rtr|-p 512 -n 128 --peer-runs 1 --peer-starts 3
		1.1b-q4_0|2.2x|85%|1.1b,type=q4_0||plain rtr|-p 512 -n 128 --peer-runs 1 --peer-starts 3
		1.1b-q4_k_m|2x|85%|1.1b,type=q4_k_m||plain rtr|-p 512 -n 128 --peer-runs 1 --peer-starts 3
		125m|1.7x|1.7x|125m,type=q8_0||plain rtr|-p 512 -n 128 --peer-runs 3 --peer-starts 3
		125m-4096|-|3x|125m,type=q8_0||plain|-p 0 -n 128 -d 4096 --peer-runs 3 --peer-starts 2
		125m-4096-q8_0|-|3x|125m,type=q8_0||plain|-p 0 -n 128 -d 4096 --kv q8_0 --peer-runs 3 --peer-starts 2
		125m-4096-q4_0|-|3x|125m,type=q8_0||plain|-p 0 -n 128 -d 4096 --kv q4_0 --peer-runs 3 --peer-starts 2
		125m-16384|-|3x|125m,type=q8_0||plain|-p 0 -n 16 -d 16384 -r 5 --peer-runs 1 --peer-starts 1
		15m|1.7x|1.7x|15m,type=q8_0||nofa|-p 512 -n 128 --peer-runs 3 --peer-starts 3
		15m-4096|-|6x|15m,type=q8_0||nofa|-p 0 -n 128 -d 4096 --peer-runs 3 --peer-starts 3
		15m-16384|-|6x|15m,type=q8_0||nofa_only|-p 0 -n 16 -d 16384 -r 5 --peer-runs 1 --peer-starts 1
		loop-q8_0|-|1.6x|125m,layers=10,visits=3,type=q8_0|125m,type=q8_0|plain|-p 512 -n 128 --peer-runs 3 --peer-starts 3
		loop-q4_0|-|1.6x|125m,layers=10,visits=3,type=q4_0|125m,type=q4_0|plain rtr|-p 512 -n 128 --peer-runs 3 --peer-starts 3
		memory-125m|-|-|125m,type=q8_0||plain|-p 4096 -n 0
		memory-1.1b-q4_0|-|-|1.1b,type=q4_0||plain|-p 4096 -n 0
		load-1.1b-q8_0|-|-|1.1b,type=q8_0||plain|-p 16 -n 0
		load-15m|-|-|15m,type=q8_0||plain|-p 16 -n 0
	END
}

# What a peer keeps for its activations at this context, as it says itself.
buffers() { # PROGRAM FILE CONTEXT
	"$1" -m "$2" -p "$3" -n 0 -r 1 -t "$(nproc)" -b 512 -ub 512 -v 2>&1 | sed -n 's/.*compute buffer size *= *\([0-9.]*\) MiB.*/\1/p' | sort -n | tail -n 1
}

run_row() { # NAME SHAPE PEER_SHAPE VARIANTS OPTIONS
	local file peer_file='' args=() common v
	file=$(model "$2")
	[ -n "$3" ] && peer_file=$(model "$3")
	common=(--json -r "$runs" --seconds 40 --no-check)
	[ -n "$peer_file" ] && args+=(--peer-model "$peer_file")
	[ -n "$llama" ] && [ "$4" != nofa_only ] && args+=(--peer "llama-bench=$llama")
	for v in $4; do
		[ -n "$ik" ] || continue
		case $v in
		plain) args+=(--peer "ik-llama-bench=$ik") ;;
		rtr) args+=(--peer "ik-llama-bench:repacked=$ik -rtr 1") ;;
		nofa | nofa_only)
			args+=(--peer "ik-llama-bench:no-fa=$ik -fa 0")
			[ -n "$llama" ] && args+=(--peer "llama-bench:no-fa=$llama -fa 0")
			;;
		esac
	done
	case $1 in
	memory-* | load-*)
		common=(--json -r 1 --no-check --no-peaks --peer-runs 1)
		args=()
		[ -n "$llama" ] && args+=(--peer "llama-bench=$llama --no-warmup")
		[ -n "$ik" ] && args+=(--peer "ik-llama-bench=$ik")
		;;
	*) common+=(--no-load) ;;
	esac
	# shellcheck disable=SC2086
	"$knit" bench "$file" "${common[@]}" $5 "${args[@]}" -o "$out/$1.part" || return
	case $1 in
	memory-125m)
		for v in "llama-bench:$llama" "ik-llama-bench:$ik"; do
			[ -n "${v#*:}" ] || continue
			jq -nc --arg s "${v%%:*}" --arg m "$(buffers "${v#*:}" "$file" 4096)" '{schema: "peers.buffers", subject: $s, mib: ($m | tonumber? // 0)}' >>"$out/$1.part"
		done
		;;
	esac
	mv "$out/$1.part" "$out/$1.jsonl"
}

# ---- the page -------------------------------------------------------------------------------------------------------

# One line of the table for each test in a row's file. A peer's ratio there is to knit: turned round.
speed() { # NAME GOAL_OF_PREFILL GOAL_OF_DECODE FILE
	jq -rs --arg name "$1" --arg prefill "$2" --arg decode "$3" '
		def two: . * 100 | round / 100;
		def rate: if . >= 100 then round else . * 10 | round / 10 end;
		def percent: "\(. * 100 | round) %";
		map(select(.schema == "knit.bench/1")) | group_by(.test) | sort_by(.[0].prompt == 0)[] |
		(map(select(.subject | startswith("knit")))[0]) as $k | map(select(.subject | startswith("knit") | not)) as $peers |
		($peers | max_by(.tokens_per_s.median)) as $best | (if $k.prompt > 0 then $prefill else $decode end) as $goal |
		($k.gb_per_s / ($k.peaks.host_read_gb_per_s | if . > 0 then . else infinite end)) as $memory |
		(if $best then 1 / $best.ratio_to_first.median else null end) as $ratio |
		($goal | rtrimstr("x") | rtrimstr("%") | tonumber? // 0) as $wanted |
		(if $goal == "-" then "" elif $goal | endswith("%") then (if $memory * 100 >= $wanted then "yes" else "no" end)
		 elif $ratio == null then "" elif 1 / $best.ratio_to_first.hi >= $wanted then "yes" elif $ratio >= $wanted then "yes, but for the interval"
		 else "no" end) as $met |
		(if $goal | endswith("%") then "\($goal | rtrimstr("%")) % of memory" elif $goal | endswith("x") then "\($goal | rtrimstr("x")) x" else "" end) as $said |
		"| \($name) | \($k.test), KV \($k.kv) | \($k.tokens_per_s.median | rate) | " +
		([$peers[] | "\(.subject | sub("-bench"; "")) \(.tokens_per_s.median | rate)"] | join("; ")) +
		" | \(if $ratio then "**\($ratio | two)** (\(1 / $best.ratio_to_first.hi | two) to \(1 / $best.ratio_to_first.lo | two))" else "-" end) | \($said) | \($met) | " +
		"\($k.bound_by): \($k.of_peak | percent) of \(if $k.bound_by == "compute" then "\($k.peaks.compute_gflop_per_s | round) GFLOP/s" else "\($k.peaks.host_read_gb_per_s | rate) GB/s" end) |"' "$4"
}

# knit's rate in a row, for the goals between rows.
knit_rate() { [ -s "$out/$1.jsonl" ] && jq -rs 'map(select((.subject // "" | startswith("knit")) and .prompt == 0))[0].tokens_per_s | "\(.median) \(.lo) \(.hi)"' "$out/$1.jsonl"; }

# "no slower": the first's interval does not lie below the second's; "faster": its median is above.
between() { # TEXT NAME NAME faster|no_slower
	local a b
	a=$(knit_rate "$2") b=$(knit_rate "$3")
	[ -n "$a" ] && [ -n "$b" ] || return
	awk -v what="$1" -v a="$a" -v b="$b" -v kind="$4" 'BEGIN {
		split(a, x, " "); split(b, y, " ")
		met = kind == "faster" ? x[1] > y[1] : x[3] >= y[2]
		printf "| %s | %.1f (%.1f to %.1f) beside %.1f (%.1f to %.1f) | %s |\n", what, x[1], x[2], x[3], y[1], y[2], y[3], met ? "yes" : "no"
	}'
}

memory() { # NAME FILE
	jq -rs --arg name "$1" '
		def mb: "\(. / 1e5 | round / 10)";
		def row(s; what): "| \($name) | \(s) | \(what) |";
		(map(select(.schema == "peers.buffers")) | map({(.subject): (.mib * 1048576)}) | add // {}) as $buffers |
		map(select(.schema == "knit.bench/1")) | (map(select(.subject | startswith("knit")))[0]) as $k | map(select(.subject | startswith("knit") | not)) as $peers |
		([$buffers[] | select(. > 0)] | min) as $least |
		row("knit"; "\($k.memory.arena_bytes | mb) | \($k.resident.peak_bytes | mb) (\($k.resident.anon_bytes | mb) own, \($k.resident.file_bytes | mb) of files) | \($k.memory.all_bytes | mb)"),
		($peers[] | row(.subject; "\($buffers[.subject] // 0 | if . > 0 then mb else "-" end) | \(.resident.peak_bytes | mb) (\(.resident.anon_bytes | mb) own, \(.resident.file_bytes | mb) of files) | -")),
		row("goal"; "at most \($least // 0 | . / 10 | mb): \(if $least == null then "?" elif $k.memory.arena_bytes <= $least / 10 then "met" else "not met" end) | " +
			"at most \($k.file_bytes + $k.memory.state_bytes + $k.memory.arena_bytes + 30e6 | mb): \(if $k.resident.peak_bytes <= $k.file_bytes + $k.memory.state_bytes + $k.memory.arena_bytes + 30e6 then "met" else "not met" end) | ")' "$2"
}

loading() { # NAME GOAL_SECONDS FILE
	jq -rs --arg name "$1" --argjson goal "$2" '
		def ms: if . == null then "-" else "\(. * 1e4 | round / 10) ms" end;
		map(select(.schema == "knit.bench/1"))[] | (.subject | startswith("knit")) as $knit |
		"| \($name) | \(.subject) | \(.load_s | ms) | \(.first_token_cold_s | ms) | \(.first_token_from_disk_s | ms) | " +
		(if $knit then "\($goal * 1000) ms: \(if .first_token_cold_s <= $goal then "met" else "not met" end)" else "" end) + " |"' "$3"
}

# What a row was measured with, once for all rows.
facts() {
	cat "$out"/*.jsonl | jq -rs 'map(select(.schema == "knit.bench/1")) |
		"- machine: \(map(.machine) | unique | join("; ")); \(map(.system) | unique | join("; ")); \(map(.threads) | unique | map(tostring) | join(", ")) threads",
		"- knit: commit \(map(.commit) | unique | join(", ")), \(map(.date[0:10]) | unique | join(", ")), \(map(select(.subject | startswith("knit")).driver) | unique | join("; "))",
		(map(select(.subject | startswith("knit") | not)) | group_by(.subject)[] | "- \(.[0].subject): \(map(.version) | unique | join("; "))"),
		(map(.peaks.host_read_gb_per_s) | map(select(. > 0)) | "- memory read in these runs: \(min | round) to \(max | round) GB/s"),
		(map(select(.peaks.host_f32_gflop_per_s > 0))[0].peaks | "- arithmetic: f32 \(.host_f32_gflop_per_s | round) GFLOP/s, int8 \(.host_int8_gop_per_s | round) GOP/s"),
		(map(.others_share) | "- other processes took at most \(max * 100 | round) % of the machine while a row was measured")'
}

report() {
	local name prefill decode rest heads='| row | test | knit, tokens/s | peers, tokens/s | knit / better peer (95 %) | goal | met | what binds |'
	echo "# knit beside its peers"
	echo
	echo "Made by \`bench/peers.sh\`; the samples are in [peers.jsonl](peers.jsonl). The same file, the same threads, one alternating run a row; medians, ratios with 95 % bootstrap"
	echo "intervals. *repacked* is ik_llama.cpp with \`-rtr 1\` (of f16 weights it makes bf16 ones: other weights than the file's, counted here as a peer all the same);"
	echo "*no-fa* is without the peer's flash attention. A looped model is one that peers cannot run: they run the same 30 layers written out (three times the weights)."
	echo
	facts
	printf '\n## Speed\n\n%s\n|---|---|---:|---|---|---|---|---|\n' "$heads"
	while IFS='|' read -r name prefill decode rest; do
		case $name in memory-* | load-*) continue ;; esac
		if [ -s "$out/$name.jsonl" ]; then speed "$name" "$prefill" "$decode" "$out/$name.jsonl"; else echo "| $name | not run | | | | | | |"; fi
	done < <(rows)
	printf '\n## Between rows\n\n| goal | tokens/s | met |\n|---|---|---|\n'
	between 'keys and values in q8_0 faster than in f16 (125m at 4096)' 125m-4096-q8_0 125m-4096 faster
	between 'in q4_0 no slower than in q8_0 (125m at 4096)' 125m-4096-q4_0 125m-4096-q8_0 no_slower
	printf '\n## Memory, MB (4096 tokens of context; activations: arena of knit, compute buffers of peers)\n\n| model | subject | activations | resident at most | planned |\n|---|---|---|---|---|\n'
	for name in memory-125m memory-1.1b-q4_0; do [ -s "$out/$name.jsonl" ] && memory "${name#memory-}" "$out/$name.jsonl"; done
	printf '\n## Loading (peers: a whole run of the program with a prompt of 16 tokens)\n\n| model | subject | load | first token, file in the page cache | from disk | goal |\n|---|---|---:|---:|---:|---|\n'
	[ -s "$out/load-1.1b-q8_0.jsonl" ] && loading '1.1b q8_0, 1.2 GB' 0.3 "$out/load-1.1b-q8_0.jsonl"
	[ -s "$out/load-15m.jsonl" ] && loading '15m q8_0, 17 MB' 0.02 "$out/load-15m.jsonl"
	return 0
}

failed=0
while IFS='|' read -r name prefill decode shape peer_shape variants options; do
	[ -z "$only" ] || [[ $only, == *",$name,"* ]] || continue
	case $mode in
	list) echo "$name: $shape; goals: prefill $prefill, decode $decode; $options" ;;
	models) model "$shape" >/dev/null; [ -z "$peer_shape" ] || model "$peer_shape" >/dev/null ;;
	run)
		[ -z "$again" ] && [ -s "$out/$name.jsonl" ] && continue
		begin=$SECONDS
		echo "$name ..." >&2
		run_row "$name" "$shape" "$peer_shape" "$variants" "$options" </dev/null || { echo "$name did not run" >&2; failed=1; }
		echo "$name: $((SECONDS - begin)) s" >&2
		;;
	esac
done < <(rows)
case $mode in run | report)
	mkdir -p "$results"
	report >"$out/peers.md.part" && mv "$out/peers.md.part" "$results/peers.md"
	cat "$out"/*.jsonl >"$results/peers.jsonl"
	echo "written: $results/peers.md" >&2
	;;
esac
exit $failed
