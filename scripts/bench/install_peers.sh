#!/usr/bin/env bash
# Installs the programs that Cauda is compared with: Debian's packages, and a Python environment of its own.
#
# Usage: install_peers.sh [DIR]     DIR: the environment, default ~/.cache/cauda/peers (2 to 4 GB)
# Then:  DIR/bin/python scripts/bench/run.py ...      DIR/bin/python scripts/check_peers.py ...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/needs.sh
peers="${1:-${XDG_CACHE_HOME:-$HOME/.cache}/cauda/peers}"

apt_install bart g++ libfftw3-dev libismrmrd-dev libhdf5-dev ismrmrd-tools dcmtk dicom3tools time
[ -x "$peers/bin/python" ] || python3 -m venv "$peers"
# Pinned: a figure beside a peer means nothing without the peer's version.
"$peers/bin/pip" install -q \
    numpy==2.4.6 scipy==1.17.1 scikit-image==0.26.0 h5py==3.16.0 \
    ismrmrd==1.15.0 mrd-python==2.1.1 twixtools==0.24 pydicom==3.0.2 nibabel==5.4.2 \
    torch==2.11.0 bartorch==0.0.17 sigpy==0.1.27 pygrappa==0.26.3 mrpro==0.261015 ducc0==0.42.0 finufft==2.5.1
say "peers: $peers/bin/python"
