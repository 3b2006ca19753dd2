#!/usr/bin/env bash
# Builds the libtorch plug-in and writes the TorchScript of the shipped denoiser beside it. A second run finds everything.
#
#   scripts/torch.sh [OUT]      default: target/torch
#
# OUT gets libcauda_torch.so, `libtorch` (a link to the folder of libtorch, where the library looks for it), model.pt, model.onnx
# and model.toml. PyTorch 2.11 is taken from $CAUDA_PYTHON, /opt/peers or python3, else installed in OUT/venv: 4 GiB with CUDA,
# which is what PyPI has; pip's own settings (PIP_INDEX_URL) may name an index of smaller CPU wheels. Five minutes for the build.
# To another machine: copy the library and the model, and link `libtorch` there to .../site-packages/torch/lib of its PyTorch 2.11.
set -euo pipefail
out=${1:-${CARGO_TARGET_DIR:-$(dirname "${BASH_SOURCE[0]}")/../target}/torch}
out=$(mkdir -p "$out" && cd "$out" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/needs.sh
need_cxx
need_cargo
model=src/model/shipped/denoiser
export PYTHONPATH="$out/site${PYTHONPATH:+:$PYTHONPATH}"

find_torch() { # sets python and libtorch
    local at
    for python in "$out/venv/bin/python" "${CAUDA_PYTHON:-}" /opt/peers/bin/python python3; do
        command -v "$python" >/dev/null 2>&1 || continue
        at=$("$python" -c 'import torch; print(torch.__path__[0] if torch.__version__.startswith("2.11.") else "")' 2>/dev/null) || continue
        libtorch=$at
        [ -z "$libtorch" ] || return 0
    done
    return 1
}
if ! find_torch; then
    say "installing PyTorch 2.11 in $out/venv ..."
    { python3 -m venv "$out/venv" && "$out/venv/bin/pip" install -q --disable-pip-version-check torch==2.11.0 numpy; } >&2 && find_torch || {
        say "needed: a Python with torch 2.11 (pip install torch==2.11.0); install it, name it in CAUDA_PYTHON and run again"
        exit 4
    }
fi
if ! "$python" -c 'import onnx, onnxruntime' 2>/dev/null; then
    say "installing onnx and onnxruntime in $out/site ..."
    "$python" -m pip install -q --disable-pip-version-check --target "$out/site" onnx==1.23.2 onnxruntime==1.32.0 >&2 || {
        say "needed: onnx and onnxruntime for $python; install them and run again"
        exit 4
    }
fi

LIBTORCH=$libtorch CARGO_TARGET_DIR=$out/build cargo build --quiet --release --locked --manifest-path src/model/torch/Cargo.toml
# Renamed into place: a running engine may have the former one mapped.
cp "$out/build/release/libcauda_torch.so" "$out/libcauda_torch.so.part"
mv "$out/libcauda_torch.so.part" "$out/libcauda_torch.so"
ln -sfn "$libtorch/lib" "$out/libtorch"
if ! [ "$out/model.toml" -nt "$model/model.onnx" ] || ! [ "$out/model.toml" -nt scripts/train/torchscript.py ]; then
    "$python" scripts/train/torchscript.py "$model" "$out"
fi
# Loaded once, by what the engine does: where libtorch is not found, it shows here.
"$python" - "$out/libcauda_torch.so" <<'PY'
import ctypes, os, sys

library = ctypes.CDLL(sys.argv[1], mode=os.RTLD_NOW)
library.cauda_torch_describe.restype = ctypes.c_char_p
print(f"{sys.argv[1]}: {library.cauda_torch_describe().decode()}")
PY
