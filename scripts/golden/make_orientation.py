#!/usr/bin/env python3
"""Golden positions for the orientation tests: tests/golden/orientation/cases.json.

Standard library only, and nothing of Cauda: a slice is prescribed in *patient* terms, turned into *device* (gantry)
coordinates for each of the eight patient positions, the voxels are placed there (voxel n//2 at the centre, as a Fourier
transform with DC at n//2 does), and the result is turned back into the patient. What goes to the reconstruction are
MRD's direction cosines, which are patient coordinates (LPS); an implementation that applied the patient position once
more would miss every position but HFS.

Run: python3 scripts/golden/make_orientation.py
"""

import json
import math
import pathlib
import struct

# Rows: the patient's left, posterior and head direction in device axes. Device axes: those of a patient who lies head
# first supine (x to the left hand, y down, z out of the bore towards the head). DICOM PS3.3 C.7.3.1.1.2.
POSITIONS = {
    "HFS": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "HFP": [[-1, 0, 0], [0, -1, 0], [0, 0, 1]],
    "HFDR": [[0, -1, 0], [1, 0, 0], [0, 0, 1]],  # right side down: left is up
    "HFDL": [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
    "FFS": [[-1, 0, 0], [0, 1, 0], [0, 0, -1]],
    "FFP": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
    "FFDR": [[0, -1, 0], [-1, 0, 0], [0, 0, -1]],
    "FFDL": [[0, 1, 0], [1, 0, 0], [0, 0, -1]],
}

# read, phase, slice direction in the patient (LPS). Signs and roles differ on purpose: some need a transposition for
# display, some a flip, some are left-handed.
PLANES = {
    "sagittal": [
        ([0, 0, -1], [0, 1, 0], [1, 0, 0]),  # read head to feet
        ([0, 1, 0], [0, 0, -1], [-1, 0, 0]),
        ([0, 0, 1], [0, -1, 0], [1, 0, 0]),
    ],
    "coronal": [
        ([1, 0, 0], [0, 0, -1], [0, 1, 0]),
        ([0, 0, 1], [-1, 0, 0], [0, -1, 0]),
        ([-1, 0, 0], [0, 0, 1], [0, -1, 0]),  # left-handed
    ],
    "axial": [
        ([1, 0, 0], [0, 1, 0], [0, 0, 1]),
        ([0, -1, 0], [1, 0, 0], [0, 0, 1]),
        ([-1, 0, 0], [0, 1, 0], [0, 0, 1]),  # left-handed
    ],
}


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def rotate(m, v):
    return [sum(m[i][j] * v[j] for j in range(3)) for i in range(3)]


def transposed(m):
    return [[m[j][i] for j in range(3)] for i in range(3)]


def oblique(k):
    """A double-oblique frame: rotations about the patient's x, then z; right-handed for even k, left-handed for odd."""
    a, b = math.radians(23 + 31 * k), math.radians(-17 + 47 * k)
    ca, sa, cb, sb = math.cos(a), math.sin(a), math.cos(b), math.sin(b)
    m = [[cb, -sb * ca, sb * sa], [sb, cb * ca, -cb * sa], [0, sa, ca]]
    read, phase, normal = transposed(m)
    return read, phase, normal if k % 2 == 0 else [-v for v in normal]


def case(plane, number, position, kind):
    directions = oblique(number) if plane == "oblique" else PLANES[plane][number % 3]
    to_patient = POSITIONS[position]
    to_device = transposed(to_patient)
    # Directions as a header holds them, single precision; the device sees the same numbers.
    directions = [[f32(v) for v in d] for d in directions]
    device = [rotate(to_device, d) for d in directions]
    matrix = [9, 12, 5] if number % 2 else [8, 7, 6]  # odd and even extents
    voxel = [f32(v) for v in ([1.25, 0.8, 3.3] if number % 2 else [0.6, 1.1, 2.0])]
    isocentre_offset = [f32(v) for v in (12.5 - 3 * number, -31.25 + number, 140.75 - 20 * number)]  # device, mm

    def place(index):
        d = list(isocentre_offset)
        for axis in range(3):
            step = (index[axis] - matrix[axis] // 2) * voxel[axis]
            for i in range(3):
                d[i] += step * device[axis][i]
        return d

    # An asymmetric block: three along x, two along y, one along z from a corner, each voxel with its own value.
    block = [[1, 1, 1], [2, 1, 1], [3, 1, 1], [1, 2, 1], [1, 1, 2], [matrix[0] - 1, 0, matrix[2] - 1]]
    markers = []
    for value, index in enumerate(block, start=1):
        lps = rotate(to_patient, place(index))
        markers.append(
            {"index": index, "value": 100.0 * value, "lps": lps, "ras": [-lps[0], -lps[1], lps[2]]}
        )
    centre = [matrix[0] // 2, matrix[1] // 2]
    if kind == "2d":
        thickness = f32(voxel[2] * 0.8)  # slices with a gap
        centres = [rotate(to_patient, place([*centre, z])) for z in range(matrix[2])]
    else:
        thickness = voxel[2]
        centres = [rotate(to_patient, place([*centre, matrix[2] // 2]))]
    return {
        "name": f"{plane}_{position}_{kind}",
        "patient_position": position,
        "kind": kind,
        "matrix": matrix,
        "voxel_mm": [voxel[0], voxel[1], thickness],
        "slice_spacing_mm": voxel[2],
        "read_dir": directions[0],
        "phase_dir": directions[1],
        "slice_dir": directions[2],
        "centres_lps": centres,
        "markers": markers,
    }


def main():
    cases = []
    for plane in ["sagittal", "coronal", "axial", "oblique"]:
        for number, position in enumerate(POSITIONS):
            for kind in ["2d", "3d"]:
                cases.append(case(plane, number, position, kind))
    out = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/orientation/cases.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    text = ",\n".join(json.dumps(c) for c in cases)
    out.write_text('{"unit": "mm", "cases": [\n' + text + "\n]}\n")
    print(f"{len(cases)} cases -> {out}")


if __name__ == "__main__":
    main()
