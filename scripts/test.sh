#!/usr/bin/env bash
# Every test of every package. Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/needs.sh
need_cc
need_cxx
need_cargo
need_cmake
need_onnxruntime || true
# HDF5 leaves its files open in programs that a test starts meanwhile, and with them its locks.
export HDF5_USE_FILE_LOCKING=FALSE
exec cargo test --workspace --quiet "$@"
