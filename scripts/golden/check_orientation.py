#!/usr/bin/env python3
"""Reads what Cauda wrote with pydicom and nibabel and compares positions with tests/golden/orientation/cases.json.

Usage: check_orientation.py FOLDER
FOLDER holds, for every case, NAME.nii.gz, NAME/ (classic DICOM) and NAME.dcm (Enhanced DICOM). Every marker voxel must
lie within 0.01 mm of its golden position in each of them, so also of each other; `sform` and `qform` must agree.
"""

import json
import pathlib
import sys

import nibabel
import numpy as np
import pydicom

TOLERANCE_MM = 0.01


def place_in_plane(position, orientation, spacing, row, column):
    """DICOM PS3.3 equation C.7.6.2.1-1; spacing is (between rows, between columns)."""
    position, orientation = np.array(position, float), np.array(orientation, float)
    return position + orientation[:3] * float(spacing[1]) * column + orientation[3:] * float(spacing[0]) * row


def nifti_markers(path):
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj)
    sform, qform = image.get_sform(), image.get_qform()
    off = np.abs(sform - qform).max()
    assert off < 1e-3, f"{path}: sform and qform differ by {off}"
    found = {}
    for index in np.argwhere(voxels > 50):
        ras = (sform @ [*index, 1])[:3]
        ras_q = (qform @ [*index, 1])[:3]
        assert np.abs(ras - ras_q).max() < TOLERANCE_MM, f"{path}: sform and qform disagree at {index}"
        found[round(float(voxels[tuple(index)]))] = np.array([-ras[0], -ras[1], ras[2]])
    return found


def classic_markers(folder, case):
    found = {}
    for path in sorted(folder.glob("*.dcm")):
        d = pydicom.dcmread(path)
        assert d.PatientPosition == case["patient_position"], path
        values = d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept)
        for row, column in np.argwhere(values > 50):
            lps = place_in_plane(d.ImagePositionPatient, d.ImageOrientationPatient, d.PixelSpacing, row, column)
            found[round(values[row, column] / 100) * 100] = lps
    return found


def enhanced_markers(path):
    d = pydicom.dcmread(path)
    frames = d.pixel_array
    shared = d.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0]
    found = {}
    for pixels, groups in zip(frames, d.PerFrameFunctionalGroupsSequence):
        values = pixels * float(shared.RescaleSlope) + float(shared.RescaleIntercept)
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        orientation = groups.PlaneOrientationSequence[0].ImageOrientationPatient
        spacing = groups.PixelMeasuresSequence[0].PixelSpacing
        for row, column in np.argwhere(values > 50):
            lps = place_in_plane(position, orientation, spacing, row, column)
            found[round(values[row, column] / 100) * 100] = lps
    return found


def main():
    folder = pathlib.Path(sys.argv[1])
    golden = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/orientation/cases.json"
    cases = json.loads(golden.read_text())["cases"]
    worst = {"nifti": 0.0, "dicom": 0.0, "enhanced": 0.0, "between": 0.0}
    n_markers = 0
    for case in cases:
        name = case["name"]
        found = {
            "nifti": nifti_markers(folder / f"{name}.nii.gz"),
            "dicom": classic_markers(folder / name, case),
            "enhanced": enhanced_markers(folder / f"{name}.dcm"),
        }
        for marker in case["markers"]:
            value = round(marker["value"])
            n_markers += 1
            for reader, places in found.items():
                assert value in places, f"{name}: {reader} has no voxel of value {value}, only {sorted(places)}"
                off = float(np.linalg.norm(places[value] - marker["lps"]))
                worst[reader] = max(worst[reader], off)
                assert off < TOLERANCE_MM, (
                    f"{name}: {reader} puts voxel {marker['index']} at {places[value]}, golden {marker['lps']}"
                )
            between = max(
                float(np.linalg.norm(found["nifti"][value] - found[r][value])) for r in ("dicom", "enhanced")
            )
            worst["between"] = max(worst["between"], between)
            assert between < TOLERANCE_MM, f"{name}: NIfTI and DICOM are {between} mm apart"
        for reader, places in found.items():
            assert len(places) == len(case["markers"]), f"{name}: {reader} has {len(places)} bright voxels"
    assert cases and n_markers, "no case was checked"
    print(f"{len(cases)} cases, {n_markers} markers; worst distance in mm: {worst}")


if __name__ == "__main__":
    main()
