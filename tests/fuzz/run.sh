#!/bin/sh
# Builds a fuzz target with clang's libFuzzer, ASan and UBSan and runs it.
#   tests/fuzz/run.sh gguf [SECONDS] [FOLDER]     targets: gguf safetensors llama2c; default 60 s, folder /tmp/knit-fuzz
# Found inputs and the corpus stay in FOLDER. Debian 12: apt-get install clang libclang-rt-14-dev libcjson-dev.
# Seeds come from the outside test data where that is there.
set -eu
target=${1:?which target: gguf, safetensors or llama2c}
seconds=${2:-60}
out=${3:-/tmp/knit-fuzz}
root=$(cd "$(dirname "$0")/../.." && pwd)
data=$root/../shared/data
corpus=$out/corpus-$target
mkdir -p "$corpus"

# The front ends that read files, and what they stand on.
cd "$root"
clang -g -O1 -std=c11 -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Igraph/include \
	"tests/fuzz/fuzz_$target.c" frontends/formats/*.c frontends/text/tokenizer.c frontends/text/vocab.c \
	frontends/text/spm.c frontends/text/utf8.c graph/base.c graph/context.c graph/dtype.c graph/weights.c \
	-lcjson -lm -lpthread -o "$out/fuzz_$target"

dict=
if [ -d "$data/robustness" ]; then
	case $target in
	gguf)
		cp -f "$data"/robustness/gguf/*.gguf "$corpus"/
		dict=-dict=$data/robustness/llama.dict
		;;
	safetensors)
		# The targets take the header's length as two bytes in front.
		for f in "$data"/robustness/safetensors/*; do
			[ "$(wc -c <"$f")" -gt 8 ] && { head -c 2 "$f"; tail -c +9 "$f"; } >"$corpus/$(basename "$f")"
		done
		;;
	llama2c)
		{ printf '\001'; cat "$data/models/stories260K/tok512.bin"; } >"$corpus/tok512"
		# dim 4, hidden 2, 1 layer, 2 heads, 1 kv head, vocabulary 3, context 2
		{ printf '\000\004\0\0\0\002\0\0\0\001\0\0\0\002\0\0\0\001\0\0\0\003\0\0\0\002\0\0\0'; head -c 400 /dev/zero; } >"$corpus/v0"
		;;
	esac
fi
[ -z "$dict" ] || [ -f "${dict#-dict=}" ] || dict=
cd "$out"
exec "./fuzz_$target" -max_total_time="$seconds" -max_len=16384 -rss_limit_mb=1024 -malloc_limit_mb=64 -timeout=10 \
	-print_final_stats=1 $dict "$corpus"
