# Installs what the build needs and a fresh machine lacks. Sourced by demo.sh and test.sh.
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

# Rust is the one thing that the user brings: an installer of ours would put a toolchain where it was not asked for.
need_cargo() {
    if ! command -v cargo >/dev/null 2>&1 && [ -f "$HOME/.cargo/env" ]; then . "$HOME/.cargo/env"; fi
    if command -v cargo >/dev/null 2>&1; then return; fi
    say "needed: Rust 1.88 or later (https://rustup.rs); install it and run again"
    exit 4
}
