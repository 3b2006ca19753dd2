"""The demonstration scan: a real T2w RARE of a mouse's head and neck, undersampled after the fact.

Keeps the 9 slices through brain and spine and the 72 of 96 phase-encoding lines from -24 to 47 (partial Fourier 6/8)
of mouse_rare_t2w.h5; writes tests/data/demo_mouse_pf.h5, and, as reference, the magnitude of the fully sampled scan
at the header's recon matrix (zero-filled from 96 to 128, NumPy's FFT) as tests/data/demo_mouse_full.npy (u16, [slice, y, x]).

Source: Bruker ParaVision 6.0.1 RARE, ICON 1 T; MagneticResonanceImaging/MRIRecoTutorial, data/brukerfileCart, MIT.
Run: /opt/peers/bin/python scripts/golden/make_demo.py path/to/mouse_rare_t2w.h5
"""
import re
import sys
from pathlib import Path

import ismrmrd
import numpy as np

SLICES = range(4, 13)
FIRST_LINE = 24
OUT = Path(__file__).resolve().parents[2] / "tests" / "data"

source = ismrmrd.Dataset(sys.argv[1], "dataset", create_if_needed=False)
xml = source.read_xml_header().decode()
acquisitions = [source.read_acquisition(i) for i in range(source.number_of_acquisitions())]

# The reference: every line, zero-filled to the recon matrix, unitary FFT with the centre at n/2.
full = np.zeros((len(SLICES), 128, 128), np.complex128)
for a in acquisitions:
    if a.idx.slice in SLICES:
        full[a.idx.slice - SLICES[0], a.idx.kspace_encode_step_1 + 16, 16:112] = a.data[0]
image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(full, axes=(1, 2)), norm="ortho"), axes=(1, 2))
OUT.mkdir(exist_ok=True)
np.save(OUT / "demo_mouse_full.npy", np.round(np.abs(image) / np.abs(image).max() * 65535).astype("<u2"))


def limit(xml, name, minimum, maximum, center):
    text = f"<{name}>\n    <minimum>{minimum}</minimum>\n    <maximum>{maximum}</maximum>\n    <center>{center}</center>\n   </{name}>"
    return re.sub(f"<{name}>.*?</{name}>", text, xml, flags=re.S)


xml = limit(xml, "kspace_encoding_step_1", FIRST_LINE, 95, 48)
xml = limit(xml, "slice", 0, len(SLICES) - 1, 0)

kept = [a for a in acquisitions if a.idx.slice in SLICES and a.idx.kspace_encode_step_1 >= FIRST_LINE]
first, last = {}, {}
for i, a in enumerate(kept):
    first.setdefault(a.idx.slice, i)
    last[a.idx.slice] = i
path = OUT / "demo_mouse_pf.h5"
path.unlink(missing_ok=True)
target = ismrmrd.Dataset(str(path), "dataset", create_if_needed=True)
target.write_xml_header(xml.encode())
for i, a in enumerate(kept):
    s = a.idx.slice
    a.clear_all_flags()
    if i == first[s]:
        a.set_flag(ismrmrd.ACQ_FIRST_IN_SLICE)
    if i == last[s]:
        a.set_flag(ismrmrd.ACQ_LAST_IN_SLICE)
    if i == len(kept) - 1:
        a.set_flag(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
    a.idx.slice = s - SLICES[0]
    a.scan_counter = i + 1
    target.append_acquisition(a)
target.close()
print(path, path.stat().st_size, len(kept))
