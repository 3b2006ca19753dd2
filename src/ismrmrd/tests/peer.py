"""The other side of tests/peers.rs: ismrmrd-python reads and writes what our library writes and reads.

peer.py dump FILE GROUP OUT        all acquisitions as bytes: header, trajectory, samples, one after the other
peer.py write FILE GROUP OUT       a file of its own making, and the same bytes
peer.py images FILE GROUP NAME OUT all images of a series: header, attributes, voxels
peer.py arrays FILE GROUP NAME OUT all arrays of a series
peer.py waveforms FILE GROUP OUT   all waveforms
peer.py compress FILE GROUP OUT    a copy of the file with every data set compressed
peer.py append FILE GROUP OUT      its acquisitions once more behind themselves, then `dump`
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
    if mode == "compress":
        import h5py

        with h5py.File(file, "r") as old, h5py.File(rest[0], "w") as new:

            def copy(name, item):
                if isinstance(item, h5py.Dataset) and item.ndim and item.size > 1:
                    chunks = tuple(max(1, (n + 1) // 2 + 1) if n > 2 else n for n in item.shape)
                    new.create_dataset(name, data=item[()], dtype=item.dtype, chunks=chunks, compression="gzip", shuffle=True, fletcher32=item.dtype.kind == "f")
                elif isinstance(item, h5py.Dataset):
                    new.create_dataset(name, data=item[()], dtype=item.dtype)

            old.visititems(copy)
        return
    if mode == "append":
        ds = ismrmrd.Dataset(file, group)
        for i in range(ds.number_of_acquisitions()):
            ds.append_acquisition(ds.read_acquisition(i))
        for i in range(40):
            ds.append_array(f"array {i}", np.arange(6.0))
        ds.close()
        mode = "dump"
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
                # As it stands in the file: image.attribute_string is written anew from the parsed values.
                text = ds._dataset[rest[0]]["attributes"][i]
                assert image.meta["ImageComment"] == "größer < 1"
                out.write(text if isinstance(text, bytes) else text.encode())
                # ismrmrd-python holds data type 4 (32 bits in the file) in Python's own int of 64.
                data = image.data.astype("<i4") if image.getHead().data_type == 4 else image.data
                out.write(data.tobytes())
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
