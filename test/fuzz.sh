#!/bin/bash
# Runs every fuzz target of the tree in turn: fuzz.sh TIME [ONLY], where ONLY is a
# part of a target's name or folder. Findings are kept in the package's testdata/fuzz,
# where the ordinary tests replay them for ever; test/cmd/corpus adds to them.
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-30s}
only=${2:-}
targets=()
while IFS=: read -r file line; do
	name=${line#func }
	targets+=("$(dirname "$file") ${name%%(*}")
done < <(grep -roE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+\(' . | sort)

ran=0
failed=()
for t in "${targets[@]}"; do
	read -r dir name <<<"$t"
	[[ "$dir/$name" == *"$only"* ]] || continue
	echo "== $dir $name, $time"
	ran=$((ran + 1))
	"${GO:-go}" test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 10x "$dir" || failed+=("$dir/$name")
done

if [ "$ran" -eq 0 ]; then
	echo "fuzz: error: no target's name or folder has \"$only\" in it" >&2
	exit 1
fi
echo "$ran fuzz targets, ${#failed[@]} with findings${failed[*]:+: ${failed[*]}}"
[ ${#failed[@]} -eq 0 ]
