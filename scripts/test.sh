#!/usr/bin/env bash
# Every test of every package. Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/needs.sh
need_cc
need_cargo
need_cmake
exec cargo test --workspace --quiet "$@"
