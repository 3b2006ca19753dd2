#!/usr/bin/env bash
# A server under load for a time: scan after scan, good ones and broken ones, and its memory at the end and near the
# beginning. Fails when it grew by more than 32 MiB or when a good scan was not answered in full.
#   scripts/soak.sh [SECONDS] [path of cauda]
set -euo pipefail
seconds=${1:-60}
cauda=${2:-$(dirname "${BASH_SOURCE[0]}")/../target/release/cauda}
dir=$(mktemp -d)
"$cauda" simulate "$dir/scan.h5" --preset small --set n_slices=4 >/dev/null
"$cauda" serve --listen 127.0.0.1:0 --metrics 127.0.0.1:0 --json --log error --spill "$dir" >"$dir/told" 2>"$dir/log" &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null; rm -rf "$dir"' EXIT
until [ -s "$dir/told" ]; do sleep 0.1; done
address=$(sed 's/.*"listening":"\([^"]*\)".*/\1/' "$dir/told")
metrics=$(sed 's/.*"metrics":"\([^"]*\)".*/\1/' "$dir/told")
resident() { awk '/VmRSS/ {print $2}' "/proc/$server/status"; }
scans=0 begin=$SECONDS first=0
while [ $((SECONDS - begin)) -lt "$seconds" ]; do
    "$cauda" send "$dir/scan.h5" "$address" --protocol recon_only --json >"$dir/sent"
    grep -q '"images": 4' "$dir/sent" || { echo "scan $scans: not all images"; cat "$dir/sent"; exit 1; }
    head -c $((RANDOM * 3)) "$dir/scan.h5" | timeout 2 bash -c "cat >/dev/tcp/${address/:/\/}" 2>/dev/null || true
    scans=$((scans + 1))
    # Pools, plans and caches are there by now.
    [ "$first" -eq 0 ] && [ $((SECONDS - begin)) -ge $((seconds / 5)) ] && first=$(resident)
    rm -f "$dir"/scan-*.mrd "$dir"/scan-*.sent
done
last=$(resident)
echo "$scans scans in $seconds s; resident memory $first KiB after a fifth of the time, $last KiB at the end"
curl -s "http://$metrics/metrics" | grep -E '^cauda_(images|scans|connections)_total' || true
[ $((last - first)) -lt 32768 ]
