"""The other side of tests/peers.rs: ismrmrd-python reads and writes what our library writes and reads.

peer.py dump FILE GROUP OUT        all acquisitions as bytes: header, trajectory, samples, one after the other
peer.py write FILE GROUP OUT       a file of its own making, and the same bytes
peer.py images FILE GROUP NAME OUT all images of a series: header, attributes, voxels
peer.py arrays FILE GROUP NAME OUT all arrays of a series
peer.py waveforms FILE GROUP OUT   all waveforms
peer.py header FILE OUT            parses an XML header and writes it again
"""

import sys

import ismrmrd
import numpy as np


def acquisition_bytes(acq):
    return bytes(acq.getHead()) + acq.traj.tobytes() + acq.data.tobytes()


def main(mode, file, *rest):
    if mode == "header":
        header = ismrmrd.xsd.CreateFromDocument(open(file, "rb").read())
        open(rest[0], "w").write(ismrmrd.xsd.ToXML(header))
        return
    group, *rest = rest
    if mode == "write":
        rng = np.random.default_rng(1)
        ds = ismrmrd.Dataset(file, group)
        ds.write_xml_header(b"<ismrmrdHeader/>")
        with open(rest[0], "wb") as out:
            for i in range(40):
                channels, samples, dims = int(rng.integers(1, 9)), int(rng.integers(1, 900)), int(rng.integers(0, 4))
                acq = ismrmrd.Acquisition()
                acq.resize(samples, channels, trajectory_dimensions=dims)
                acq.version = 1
                acq.scan_counter = i
                acq.flags = int(rng.integers(0, 2**62))
                acq.idx.kspace_encode_step_1 = i
                acq.user_float[3] = 1.5
                acq.data[:] = rng.normal(size=(channels, samples)) + 1j * rng.normal(size=(channels, samples))
                if dims:
                    acq.traj[:] = rng.normal(size=(samples, dims))
                ds.append_acquisition(acq)
                out.write(acquisition_bytes(acq))
        ds.close()
        return
    ds = ismrmrd.Dataset(file, group, mode="r")
    with open(rest[-1], "wb") as out:
        if mode == "dump":
            for i in range(ds.number_of_acquisitions()):
                out.write(acquisition_bytes(ds.read_acquisition(i)))
        elif mode == "images":
            for i in range(ds.number_of_images(rest[0])):
                image = ds.read_image(rest[0], i)
                # Without attribute_string_len: ismrmrd-python counts characters there, not bytes.
                out.write(bytes(image.getHead())[:194])
                text = image.attribute_string
                out.write(text if isinstance(text, bytes) else text.encode())
                out.write(image.data.tobytes())
        elif mode == "arrays":
            for i in range(ds.number_of_arrays(rest[0])):
                out.write(ds.read_array(rest[0], i).tobytes())
        elif mode == "waveforms":
            for i in range(ds.number_of_waveforms()):
                waveform = ds.read_waveform(i)
                out.write(bytes(waveform.getHead()) + waveform.data.tobytes())
        else:
            raise SystemExit(f"unknown mode {mode}")


main(*sys.argv[1:])
