# Installs what the build needs and a fresh machine lacks. Sourced by demo.sh, test.sh and others.
#
# One function per thing: look first, then the system's packages, then a package of another kind. A second run finds
# everything and touches no network.

say() { printf '%s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null 2>&1; then sudo -n "$@"; else return 1; fi
}

APT_UPDATED=
apt_install() {
    command -v apt-get >/dev/null 2>&1 || return 1
    if [ -z "$APT_UPDATED" ]; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null || return 1
        APT_UPDATED=1
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# The C compiler and make that HDF5's build and Rust's linker call.
need_cc() {
    if command -v cc >/dev/null 2>&1 && command -v make >/dev/null 2>&1; then return; fi
    say "installing a C compiler ..."
    apt_install gcc libc6-dev make || { say "needed: a C compiler (cc) and make; install them and run again"; exit 4; }
}

# The C++ compiler that runs the CUDA kernels in tests.
need_cxx() {
    if command -v c++ >/dev/null 2>&1; then return; fi
    say "installing a C++ compiler ..."
    apt_install g++ || { say "needed: a C++20 compiler (c++); install it and run again"; exit 4; }
}

# cmake builds the HDF5 library (static, once).
need_cmake() {
    if command -v cmake >/dev/null 2>&1; then return; fi
    say "installing cmake ..."
    if apt_install cmake && command -v cmake >/dev/null 2>&1; then return; fi
    # No apt: the wheel `cmake` is the same program. A folder of its own, kept between runs.
    local venv="${XDG_CACHE_HOME:-$HOME/.cache}/cauda/cmake"
    if [ ! -x "$venv/bin/cmake" ]; then
        python3 -m venv "$venv" >/dev/null 2>&1 && "$venv/bin/pip" install -q "cmake>=3.25" >/dev/null 2>&1 || {
            say "needed: cmake (apt-get install cmake, or pip install cmake); install it and run again"
            exit 4
        }
    fi
    PATH="$venv/bin:$PATH"
    export PATH
}

# ONNX Runtime's library runs the networks: one file of PyPI's wheel, where `cauda` looks for it. Fails without leaving: images
# go out without networks then, and say so.
need_onnxruntime() {
    local version=1.32.0
    local folder="${XDG_DATA_HOME:-$HOME/.local/share}/cauda/onnxruntime"
    if [ -n "${CAUDA_ONNXRUNTIME:-}" ] || [ -f "$folder/libonnxruntime.so.$version" ]; then return; fi
    say "installing ONNX Runtime $version into $folder ..."
    local here
    here=$(mktemp -d)
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip || true
    if python3 -m pip download -q --no-deps --only-binary=:all: --platform "manylinux_2_28_$(uname -m)" \
        --implementation cp --python-version 3.12 -d "$here" "onnxruntime==$version" >"$here/log" 2>&1 &&
        python3 -m zipfile -e "$here"/onnxruntime-*.whl "$here/wheel" && mkdir -p "$folder"; then
        # Under its own name only when it is whole.
        cp "$here/wheel/onnxruntime/LICENSE" "$here/wheel/onnxruntime/ThirdPartyNotices.txt" "$folder/" &&
            cp "$here/wheel/onnxruntime/capi/libonnxruntime.so.$version" "$folder/new.$$" &&
            mv "$folder/new.$$" "$folder/libonnxruntime.so.$version"
    fi
    if [ ! -f "$folder/libonnxruntime.so.$version" ]; then
        tail -n 3 "$here/log" >&2
        say "ONNX Runtime could not be installed: networks will not run (pip download onnxruntime==$version says why)"
        rm -rf "$here"
        return 1
    fi
    rm -rf "$here"
}

# Rust is the one thing that the user brings: an installer of ours would put a toolchain where it was not asked for.
need_cargo() {
    if ! command -v cargo >/dev/null 2>&1 && [ -f "$HOME/.cargo/env" ]; then . "$HOME/.cargo/env"; fi
    if command -v cargo >/dev/null 2>&1; then return; fi
    say "needed: Rust 1.88 or later (https://rustup.rs); install it and run again"
    exit 4
}
