#!/usr/bin/env bash
# Tests scripts/gpu_check.sh without a card: packs, runs the folder in an empty environment on the emulated card (must pass),
# with a test taken away (must fail) and without any card (must fail). Builds in release: minutes.
#   scripts/gpu_check_emulated.sh [PYTHON with numpy, for the bench]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${1:-}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
scripts/gpu_check.sh pack "$dir/packed"
mkdir "$dir/card" "$dir/bin"
[ -z "$python" ] || { printf '#!/bin/sh\nexec %s "$@"\n' "$python" >"$dir/bin/python3" && chmod +x "$dir/bin/python3"; }
CAUDA_EMU_CARD=$dir/card cargo test --quiet --release --test it -- --ignored --exact use_a_card::a_card_for_scripts >/dev/null
with_card=(env -i "PATH=$dir/bin:/usr/bin:/bin" "LD_LIBRARY_PATH=$dir/card" "CAUDA_KERNELS=$dir/card" CAUDA_EMU_REPORT=/dev/null)
"${with_card[@]}" "$dir/packed/run.sh" --out "$dir/out" || { cat "$dir/out/report.md" "$dir"/out/*log* 2>/dev/null; exit 1; }
fails() { # what, code, command
    local what=$1 code=0
    local wanted=$2
    shift 2
    "$@" >"$dir/said" 2>&1 || code=$?
    [ "$code" = "$wanted" ] && { echo "ok: $what ends with $code: $(tail -1 "$dir/said")"; return; }
    echo "FAIL: $what ended with $code, not $wanted"
    cat "$dir/said"
    exit 1
}
fails "without a card" 3 env -i PATH=/usr/bin:/bin "$dir/packed/run.sh" --out "$dir/none"
# A twin whose tests are all called otherwise: nothing runs, and that is no success.
sed 's/\(inside ".*" [0-9]*\) [a-z_]*::/\1 no_such::/' "$dir/packed/run.sh" >"$dir/packed/twin.sh"
chmod +x "$dir/packed/twin.sh"
fails "a run whose checks are not there" 1 "${with_card[@]}" "$dir/packed/twin.sh" --quick --out "$dir/twin"
grep -q 'no check ran' "$dir/twin/report.md"
