#!/usr/bin/env python3
"""Makes the small raw-data files under tests/data/source (all synthetic, CC0) and checks them with independent readers.

Needs numpy, h5py, scipy, twixtools, pymapvbvd. Every sample says where it belongs: real part = 100 * line + coil,
imaginary part = column (+ 1000 * slice).

twix layout: public structures of siemens_to_ismrmrd (siemensraw.h), mapVBVD and twixtools (MIT).
fastMRI layout: fastmri/data/mri_data.py (MIT).
"""
import struct, sys
from pathlib import Path
import h5py
import numpy as np
from scipy.io import savemat

OUT = Path(__file__).resolve().parent.parent / "tests" / "data" / "source"
ACQEND, SYNC, ONLINE, LASTMEAS, PHASCOR = 1 << 0, 1 << 5, 1 << 3, 1 << 11, 1 << 21
PATREF, PATREFIMA, REFLECT, NOISE, FIRST, LAST = 1 << 22, 1 << 23, 1 << 24, 1 << 25, 1 << 28, 1 << 29


def header(yaps, meas):
    """Text buffers of one measurement."""
    asc = "### ASCCONV BEGIN ###\n" + "".join(f"{k} = {v}\n" for k, v in yaps.items()) + "### ASCCONV END ###\n"

    def xmap(d):
        out = ""
        for k, v in d.items():
            if isinstance(v, dict):
                out += f'<ParamMap."{k}"> {{ {xmap(v)} }}\n'
            elif isinstance(v, float):
                out += f'<ParamDouble."{k}"> {{ <Precision> 6 {v} }}\n'
            elif isinstance(v, str):
                out += f'<ParamString."{k}"> {{ "{v}" }}\n'
            elif v is None:
                out += f'<ParamLong."{k}"> {{ }}\n'
            else:
                out += f'<ParamLong."{k}"> {{ {v} }}\n'
        return out

    xprot = '<XProtocol> {\n<Name> "x"\n<ParamMap.""> {\n' + xmap(meas) + "}\n}\n"
    buffers = {"Config": xprot, "Dicom": xprot, "Meas": xprot, "MeasYaps": asc, "Phoenix": asc, "Spice": xprot}
    body = b"".join(k.encode() + b"\0" + struct.pack("<I", len(v) + 1) + v.encode() + b"\0" for k, v in buffers.items())
    total = 8 + len(body)
    total += -total % 32
    # Readers tell VB from VD by the first number: a header length above 10,000, or a small file number.
    total = max(total, 10_240)
    return struct.pack("<II", total, len(buffers)) + body.ljust(total - 8, b"\0")


def protocol(name, baseline, lines, slices, turbo, pat, mode, nlines, first_line):
    yaps = {
        "sProtConsistencyInfo.tBaselineString": f'"{baseline}"', "tProtocolName": f'"{name}"',
        "tSequenceFileName": '"%SiemensSeq%\\tse"', "lContrasts": 1, "alTR[0]": 3000000, "alTE[0]": 85000,
        "sRXSPEC.alDwellTime[0]": 11600, "sKSpace.lBaseResolution": 16, "sKSpace.lPhaseEncodingLines": lines,
        "sKSpace.lPartitions": 1, "sKSpace.lImagesPerSlab": 1, "sKSpace.ucTrajectory": 1, "sKSpace.ucDimension": "0x2",
        "sPat.lAccelFactPE": pat, "sPat.lAccelFact3D": 1, "sPat.ucRefScanMode": mode, "sPat.lRefLinesPE": 4,
        "sFastImaging.lTurboFactor": turbo, "sFastImaging.lSegments": lines // turbo, "sSliceArray.lSize": slices,
        "sSliceArray.asSlice[0].dThickness": 4.0, "sSliceArray.asSlice[0].dPhaseFOV": 160.0,
        "sSliceArray.asSlice[0].dReadoutFOV": 160.0, "adFlipAngleDegree[0]": 180.0,
        "sTXSPEC.asNucleusInfo[0].lFrequency": 123250000,
    }
    # Listed out of order, as on the scanner: channel 2 first.
    prefix = "asCoilSelectMeas[0].asList" if "VB" in baseline else "sCoilSelectMeas.aRxCoilSelectData[0].asList"
    for i, channel in enumerate([2, 1, 3]):
        yaps[f"{prefix}[{i}].sCoilElementID.tCoilID"] = '"Spine"'
        yaps[f"{prefix}[{i}].sCoilElementID.tElement"] = f'"SP{channel}"'
        yaps[f"{prefix}[{i}].lElementSelected"] = 1
        yaps[f"{prefix}[{i}].lRxChannelConnected"] = channel
    meas = {
        "HEADER": {"MeasUID": 7, "tProtocolName": name},
        "YAPS": {"iNoOfFourierColumns": 32, "iNoOfFourierLines": nlines, "iMaxNoOfRxChannels": 3, "flReadoutOSFactor": 2.0,
                 "tPatientPosition": "HFS", "flMagneticFieldStrength": 2.89362, "lFirstFourierLine": first_line,
                 "i3DFTLength": 1, "iNoOfFourierPartitions": 1},
        "DICOM": {"Manufacturer": "SIEMENS", "ManufacturersModelName": "Test", "lFrequency": 123250000,
                  "adFlipAngleDegree": 180.0, "SoftwareVersions": "syngo MR B17"},
        "IRIS": {"DERIVED": {"imageColumns": 16, "imageLines": 16, "phaseOversampling": 0.25},
                 "RECOMPOSE": {"PatientLOID": "5.0.111", "StudyLOID": "5.0.222"}},
    }
    return header(yaps, meas)


QUAT = (np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5))


def counters(line, sli, seg):
    return struct.pack("<14H", line, 0, sli, 0, 0, 0, 0, 0, seg, 0, 0, 0, 0, 0)


def signal(line, sli, coil, n):
    data = np.zeros(2 * n, "<f4")
    data[0::2] = 100 * line + coil
    data[1::2] = np.arange(n) + 1000 * sli
    return data.tobytes()


class Vb:
    """One 128-byte header before every channel."""

    def __init__(self):
        self.out, self.n = b"", 0

    def mdh(self, mask, n, nc, line, sli, seg, centre, channel, dma):
        head = struct.pack("<IiIIIQHH", dma, 7, self.n, 1000 + self.n, 500, mask, n, nc) + counters(line, sli, seg)
        head += struct.pack("<HHHHfIHH", 0, 0, n // 2, 0, 0.0, 0, centre, 0) + struct.pack("<4H4H", 11, 12, 13, 14, 0, 0, 0, 0)
        head += struct.pack("<3f4f", 1.0, 2.0, 3.0 + 5 * sli, *QUAT) + struct.pack("<HH", channel, 0)
        assert len(head) == 128
        return head

    def readout(self, mask, line, sli=0, seg=0, n=32, nc=3, centre=8):
        self.n += 1
        for c in range(nc):
            self.out += self.mdh(mask, n, nc, line, sli, seg, centre, c, 128 + 8 * n) + signal(line, sli, c, n)

    def sync(self):
        self.n += 1
        self.out += self.mdh(SYNC, 0, 1, 0, 0, 0, 0, 0, 128 + 64) + b"\x55" * 64

    def end(self):
        self.n += 1
        self.out += self.mdh(ACQEND, 16, 1, 0, 0, 0, 0, 0, 128 + 128) + b"\0" * 128
        self.out += b"\0" * (-len(self.out) % 512)


class Vd:
    """A 192-byte header before every readout, 32 bytes before every channel."""

    def __init__(self):
        self.out, self.n = b"", 0

    def mdh(self, mask, n, nc, line, sli, seg, centre, dma):
        head = struct.pack("<IiIIIHHiiiIQHH", dma, 7, self.n, 1000 + self.n, 500, 0, 0, 0, 0, -1040015, 0, mask, n, nc)
        head += counters(line, sli, seg) + struct.pack("<HHHHfIHH", 0, 0, n // 2, 0, 0.0, 0, centre, 0)
        head += struct.pack("<3f4f", 1.0, 2.0, 3.0 + 5 * sli, *QUAT) + struct.pack("<24H4HHHI", *range(24), *[0] * 7)
        assert len(head) == 192
        return head

    def readout(self, mask, line, sli=0, seg=0, n=32, nc=3, centre=8):
        self.n += 1
        self.out += self.mdh(mask, n, nc, line, sli, seg, centre, 192 + nc * (32 + 8 * n))
        for c in range(nc):
            self.out += struct.pack("<IiIIIIHHI", (32 + 8 * n) << 8 | 2, 7, self.n, 0, 0, 0, c, 0, 0) + signal(line, sli, c, n)

    def sync(self):
        self.n += 1
        self.out += self.mdh(SYNC, 0, 0, 0, 0, 0, 0, 192 + 64) + b"\x55" * 64

    def end(self):
        self.n += 1
        self.out += self.mdh(ACQEND, 0, 0, 0, 0, 0, 0, 192 + 160) + b"\0" * 160


def tse(scan, slices, ref_mask, first, last):
    """Lines of a turbo spin echo, R = 2 with 4 calibration lines about line 8, in trains of 4."""
    lines = sorted(set(range(first, last, 2)) | {7, 8, 9, 10})
    for sli in range(slices):
        for i, line in enumerate(lines):
            image, reference = line % 2 == first % 2, 7 <= line <= 10
            mask = ONLINE | (PATREF if reference else 0) | (PATREFIMA if reference and image else 0)
            if reference and not image and ref_mask == "embedded":
                mask |= PATREFIMA
            mask |= (FIRST if i == 0 else 0) | (LAST if i == len(lines) - 1 else 0)
            mask |= REFLECT if line == 4 else 0
            mask |= LASTMEAS if sli == slices - 1 and i == len(lines) - 1 else 0
            scan.readout(mask, line, sli, i % 4)


def write_vb():
    scan = Vb()
    scan.readout(NOISE | ONLINE, 0, n=64)
    scan.sync()
    scan.readout(PHASCOR | ONLINE, 8)
    tse(scan, 2, "embedded", 0, 16)
    scan.end()
    (OUT / "vb_tse.dat").write_bytes(protocol("tse_vb", "N4_VB17A_LATEST", 16, 2, 4, 2, 2, 16, None) + scan.out)


def write_vd():
    adjust, scan = Vd(), Vd()
    for _ in range(4):
        adjust.readout(NOISE | ONLINE, 0, n=64)
    adjust.end()
    scan.sync()
    tse(scan, 2, "separate", 0, 14)
    scan.end()
    parts = [
        ("AdjCoilSens", protocol("AdjCoilSens", "N4_VE11C_LATEST", 16, 1, 1, 1, 1, 16, None) + adjust.out),
        ("tse_ve", protocol("tse_ve", "N4_VE11C_LATEST", 16, 2, 4, 2, 4, 14, 0) + scan.out),
    ]
    table, body, at = struct.pack("<II", 0, len(parts)), b"", 10240
    for i, (name, data) in enumerate(parts):
        table += struct.pack("<IIQQ64s64s", 41 + i, 51 + i, at, len(data), b"x", name.encode())
        data += b"\0" * (-len(data) % 512)
        body += data
        at += len(data)
    (OUT / "vd_multi.dat").write_bytes(table.ljust(10240, b"\0") + body)


def check_twix():
    import twixtools
    from mapvbvd import mapVBVD

    for name, measurement in [("vb_tse.dat", -1), ("vd_multi.dat", -1)]:
        scans = twixtools.read_twix(str(OUT / name), parse_geometry=False, parse_pmu=False, verbose=False)
        lines = 0
        for mdb in scans[measurement]["mdb"]:
            if mdb.is_flag_set("SYNCDATA") or mdb.is_flag_set("NOISEADJSCAN"):
                continue
            line, sli = mdb.cLin, mdb.mdh.Counter.Sli
            expected = 100 * line + np.arange(3)[:, None] + 1j * (np.arange(32) + 1000 * sli)[None]
            # twixtools turns reflected readouts round when asked for `data`.
            found = mdb.data[:, ::-1] if mdb.is_flag_set("REFLECT") and mdb.data[0, 0].imag != 1000 * sli else mdb.data
            assert np.array_equal(found, expected), (name, line)
            lines += 1
        assert lines == (1 if name.startswith("vb") else 0) + 2 * (10 if name.startswith("vb") else 9), (name, lines)
        assert scans[measurement]["hdr"]["MeasYaps"]["sKSpace"]["lBaseResolution"] == 16
        other = mapVBVD(str(OUT / name), quiet=True)
        other = other[-1] if isinstance(other, list) else other
        other.image.flagRemoveOS = False
        data = other.image.unsorted()
        assert data.shape[0] == 32 and data.shape[1] == 3, data.shape
        assert int(other.image.NLin) in (13, 15)
        print(f"{name}: twixtools and mapVBVD agree on {lines} readouts, {data.shape[-1]} of them image lines")


XML = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<experimentalConditions><H1resonanceFrequency_Hz>123250000</H1resonanceFrequency_Hz></experimentalConditions>
<encoding><encodedSpace><matrixSize><x>16</x><y>12</y><z>1</z></matrixSize>
<fieldOfView_mm><x>320</x><y>240</y><z>4.5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>8</x><y>8</y><z>1</z></matrixSize>
<fieldOfView_mm><x>160</x><y>160</y><z>4.5</z></fieldOfView_mm></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>9</maximum><center>4</center></kspace_encoding_step_1>
<slice><minimum>0</minimum><maximum>2</maximum><center>0</center></slice></encodingLimits>
<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"""


def write_fastmri():
    # Encoded matrix 12 lines, 10 measured with their centre at counter 4: two lines of padding on the left.
    slices, coils, ro, pe, left, measured = 3, 2, 16, 12, 2, 10
    full = np.zeros((slices, coils, ro, pe), "complex64")
    for s in range(slices):
        for c in range(coils):
            for line in range(measured):
                full[s, c, :, left + line] = 100 * line + c + 1j * (np.arange(ro) + 1000 * s) + 1
    mask = np.array([(i % 4 == 2 or 5 <= i <= 8) for i in range(pe)])
    for name, data, with_mask in [("fastmri_full.h5", full, False), ("fastmri_test.h5", full * mask.astype("complex64"), True)]:
        with h5py.File(OUT / name, "w") as f:
            f.create_dataset("kspace", data=data)
            f.create_dataset("ismrmrd_header", data=XML)
            if with_mask:
                f.create_dataset("mask", data=mask)
            f.attrs["acquisition"] = "CORPD_FBK"
            f.attrs["max"], f.attrs["norm"], f.attrs["patient_id"] = 1.0, 1.0, "0"


def write_arrays():
    ro, pe, coils = 6, 5, 2
    k = np.zeros((coils, ro, pe), "complex128")
    for c in range(coils):
        for line in range(pe):
            k[c, :, line] = 100 * line + c + 1j * np.arange(ro) + 1
    k[:, :, 3] = 0
    np.save(OUT / "kspace_c16.npy", k)
    np.save(OUT / "kspace_c8_fortran.npy", np.asfortranarray(k.astype("complex64")))
    np.save(OUT / "real.npy", k.real)
    savemat(OUT / "kspace.mat", {"kspace": k.transpose(1, 2, 0), "other": np.arange(4.0)}, do_compression=True)
    data = (np.arange(4 * 3 * 2) + 1j).reshape(4, 3, 2)
    traj = np.linspace(-0.5, 0.5, 12).reshape(4, 3) * (1 + 1j)
    savemat(OUT / "spiral.mat", {"data": data, "k": traj, "w": np.ones((4, 3))}, do_compression=False)
    savemat(OUT / "strange.mat", {"s": {"a": 1.0}, "text": "hello"}, do_compression=True)


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    write_vb(), write_vd(), write_fastmri(), write_arrays()
    if "--no-check" not in sys.argv:
        check_twix()
    for f in sorted(OUT.iterdir()):
        print(f"{f.stat().st_size:8} {f.name}")
