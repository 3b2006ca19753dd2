#!/usr/bin/env bash
# Reads 20,000 acquisitions of 16 x 640 complex samples (1.6 GB) by our two paths and by libismrmrd, in turn,
# from a warm page cache. Needs g++ and Debian's libismrmrd-dev for the third; says so without them.
# Usage: scripts/bench/read_acquisitions.sh [rounds]
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-5}
work=$(mktemp -d "${TMPDIR:-/tmp}/read_acquisitions.XXXXXX")
trap 'rm -rf "$work"' EXIT
cargo build --release -q -p ismrmrd --example read_acquisitions
ours=${CARGO_TARGET_DIR:-target}/release/examples/read_acquisitions
theirs=
if g++ -O3 -march=native -o "$work/cpp" scripts/bench/read_acquisitions.cpp -lismrmrd -I/usr/include/hdf5/serial 2>"$work/log"; then
    theirs=$work/cpp
else
    echo "libismrmrd is not timed: $(tail -1 "$work/log")"
fi
"$ours" write "$work/scan.h5"
cat "$work/scan.h5" >/dev/null
for _ in $(seq "$rounds"); do
    "$ours" direct "$work/scan.h5"
    "$ours" headers "$work/scan.h5"
    "$ours" library "$work/scan.h5"
    if [ -n "$theirs" ]; then "$theirs" "$work/scan.h5"; fi
done
