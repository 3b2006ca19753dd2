#!/usr/bin/env bash
# Compiles every CUDA kernel for the cards of the last generations, with NVRTC from its Python package: needs no card, no
# driver, no toolkit. Fails on any error, any warning, and on more than 32 bytes of registers spilled to memory (ptxas
# gives away a few to stay below a step of occupancy).
#
#   scripts/kernels_check.sh             finds NVRTC or installs the package; SKIPPED (exit 0) where neither is possible
#   scripts/kernels_check.sh --require   the same, but SKIPPED is a failure
#   scripts/kernels_check.sh --where     tells the folder of NVRTC; exit 1 without one
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Newest version that knows sm_75 and sm_100 and runs beside drivers from 570 on.
package="nvidia-cuda-nvrtc-cu12==12.8.93"
venv="${XDG_CACHE_HOME:-$HOME/.cache}/cauda/nvrtc"

find_nvrtc() {
    local folder
    for folder in "${CAUDA_NVRTC:-}" "$venv"/lib/python3*/site-packages/nvidia/cuda_nvrtc/lib \
        /opt/peers/lib/python3*/site-packages/nvidia/cu13/lib /usr/local/cuda/lib64; do
        if [ -n "$folder" ] && compgen -G "$folder/libnvrtc.so*" >/dev/null; then
            printf '%s\n' "$folder"
            return
        fi
    done
    return 1
}

skip() {
    printf 'SKIPPED: no NVRTC (%s); the kernels were not compiled for any card\n' "$1"
    [ "${require:-}" = 1 ] && exit 1
    exit 0
}

[ "${1:-}" = --where ] && { find_nvrtc; exit; }
[ "${1:-}" = --require ] && require=1
command -v python3 >/dev/null 2>&1 || skip "no python3"
if ! folder=$(find_nvrtc); then
    { [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"; } >/dev/null 2>&1 || skip "python3 cannot make a virtual environment"
    "$venv/bin/pip" install -q --disable-pip-version-check --retries 1 --timeout 10 "$package" >/dev/null 2>&1 ||
        skip "$package cannot be installed: no network?"
    folder=$(find_nvrtc) || skip "$package holds no libnvrtc"
fi
# NVRTC loads its own parts by name.
export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec python3 - "$folder" <<'PY'
import ctypes, glob, re, sys

nvrtc = ctypes.CDLL(sorted(p for p in glob.glob(sys.argv[1] + "/libnvrtc.so*") if ".alt." not in p)[-1])
major, minor = ctypes.c_int(), ctypes.c_int()
nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
print(f"NVRTC {major.value}.{minor.value}")

ARCHITECTURES = ["sm_75", "sm_80", "sm_90", "sm_100"]
header = open("kernels/common.cuh", "rb").read()
sources = sorted(glob.glob("kernels/*.cu"))
# As the engine compiles them.
OPTIONS = re.findall(r'"(.*?)"', re.search(r"const OPTIONS: .*?= \[(.*?)\];", open("src/device/cuda/nvrtc.rs").read(), re.S)[1])
failed = not sources
most = {}

for path in sources + sorted(glob.glob("kernels/emu/faulty/*.cu")):
    for arch in ARCHITECTURES:
        program = ctypes.c_void_p()
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), open(path, "rb").read(), path.encode(), 1,
                                 (ctypes.c_char_p * 1)(header), (ctypes.c_char_p * 1)(b"common.cuh"))
        options = [f"--gpu-architecture={arch}", *OPTIONS, "--ptxas-options=-v"]
        code = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*(o.encode() for o in options)))
        size = ctypes.c_size_t()
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
        text = log.value.decode()
        said = [l for l in text.splitlines() if l.strip() and not re.match(r"ptxas +(info|\.) ", l)]
        said += [f"{name}: {n} bytes of registers spilled"
                 for name, n in re.findall(r"properties for (\w+)\n.* (\d+) bytes spill stores", text) if int(n) > 32]
        if code or said:
            failed = True
            print(f"FAIL {path} {arch}", *said, sep="\n     ")
        name = None
        for line in text.splitlines():
            name = (re.search(r"Compiling entry function '(\w+)'", line) or [None, name])[1]
            used = re.search(r"Used (\d+) registers", line)
            if used and path in sources:
                most.setdefault(name, {})[arch] = int(used[1])

for name, used in most.items():
    print(f"ok {name}: registers " + ", ".join(f"{a} {n}" for a, n in used.items()))
if not most and sources:
    failed = True
    print("FAIL: the compiler named no kernel")
if not sources:
    print("FAIL: there is no kernel in kernels/")
sys.exit(failed)
PY
