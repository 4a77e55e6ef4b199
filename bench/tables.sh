#!/usr/bin/env bash
# The full table and the page of two models: the bundled one and a 1.1 B llama made on the spot. Writes results/bundled.md, 1.1b.md and
# a page for each. Takes about 3 minutes and 3 GB of disk (TMPDIR); nothing else may run on the machine.
#
#   bench/tables.sh                  both
#   bench/tables.sh bundled          one of them
#   KNIT=build/release/knit RESULTS=bench/results bench/tables.sh
set -euo pipefail

cd "$(dirname "$0")/.." # so that no path of this machine gets into the tables
knit=${KNIT:-build/release/knit} results=${RESULTS:-bench/results}

table() { # NAME ARGUMENTS...
	local name=$1
	shift
	"$knit" bench "$@" --threads "$(nproc)" --profile --markdown --html "$results/$name.html" -o "$results/$name.md"
	echo "written: $results/$name.md, $results/$name.html" >&2
}

[ $# -gt 0 ] || set -- bundled 1.1b
for name in "$@"; do
	case $name in
	bundled) table bundled frontends/demo/shakespeare.gguf -p 512 -n 128 -d 0,4096 -r 12 --seconds 10 ;;
	1.1b) table 1.1b --shape 1.1b,type=q8_0 -p 512 -n 32 -d 0,4096 -r 6 --seconds 8 ;;
	*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" && exit 2 ;;
	esac
done
