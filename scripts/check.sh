#!/usr/bin/env bash
# What CI runs, and what to run before a push: the README's test command, format, lints, documentation.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/needs.sh
need_cc
need_cxx
need_cargo
need_cmake

failed=0
summary=()
step() {
    local name=$1 begin=$SECONDS
    shift
    printf '== %s: %s\n' "$name" "$*"
    if "$@"; then
        summary+=("ok    $name ($((SECONDS - begin)) s)")
    else
        summary+=("FAIL  $name ($((SECONDS - begin)) s)")
        failed=1
    fi
}

step format cargo fmt --all --check
step format-torch cargo fmt --manifest-path src/model/torch/Cargo.toml --check
step test scripts/test.sh
step kernels scripts/kernels_check.sh
# A minute of scans beside the lints, which leave a core free.
soaked=$(mktemp)
scripts/soak.sh 60 "${CARGO_TARGET_DIR:-target}/debug/cauda" >"$soaked" 2>&1 &
soak=$!
step clippy cargo clippy --quiet --workspace --all-targets -- -D warnings
step doc env RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps
soak_said() {
    wait "$soak"
    local code=$?
    cat "$soaked"
    return "$code"
}
step soak soak_said

printf '\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
