#!/usr/bin/env bash
# Builds Cauda and reconstructs the small real scan that ships with it; pictures and figures land in out/demo.
# Arguments go to `cauda demo`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/needs.sh
need_cc
need_cargo
need_cmake
need_onnxruntime || true
exec cargo run --release --quiet -- demo "$@"
