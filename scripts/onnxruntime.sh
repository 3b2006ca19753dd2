#!/usr/bin/env bash
# Installs ONNX Runtime's library, which runs the networks, where `cauda` looks for it. No root, no Python at run time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/needs.sh
need_onnxruntime
