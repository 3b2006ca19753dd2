"""Makes the bad files of this folder; run with a Python that has numpy, h5py and ismrmrd. All under 20 KB."""

import struct
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
from ismrmrd.hdf5 import acquisition_dtype, image_header_dtype

here = Path(__file__).parent
header = (here / "../data/header_full.xml").read_bytes()


def good(name, n=3, group="dataset", xml=b"<ismrmrdHeader/>", edit=None):
    path = here / name
    path.unlink(missing_ok=True)
    ds = ismrmrd.Dataset(str(path), group)
    if xml is not None:
        ds.write_xml_header(xml)
    for i in range(n):
        acq = ismrmrd.Acquisition()
        acq.resize(8, 2)
        acq.data[:] = i + 1j
        ds.append_acquisition(acq)
    ds.close()
    if edit:
        with h5py.File(path, "r+") as f:
            edit(f)
    return path


def patch(path, old, new, count=1):
    data = path.read_bytes()
    assert old in data, old
    path.write_bytes(data.replace(old, new, count))


def rewrite(i, change):
    def edit(f):
        row = f["dataset/data"][i]
        change(row)
        f["dataset/data"][i] = row

    return edit


def head(field, value):
    def change(row):
        row["head"][field] = value

    return change


(here / "empty.h5").write_bytes(b"")
(here / "not_hdf5.h5").write_bytes(b"This is a text file, whatever its name says.\n" * 4)
whole = good("cut_off.h5").read_bytes()
(here / "cut_off.h5").write_bytes(whole[: len(whole) * 2 // 3])
(here / "signature_only.h5").write_bytes(whole[:8])
good("header_nan_matrix.h5", xml=header.replace(b"<x>640</x>", b"<x>NaN</x>"))
good("header_negative_matrix.h5", xml=header.replace(b"<y>320</y>", b"<y>-320</y>", 1))
good("header_huge_matrix.h5", xml=header.replace(b"<y>320</y>", b"<y>99999999999999999999</y>", 1))
good("header_not_xml.h5", xml=b"{\"not\": \"xml\"}")
good("header_bad_utf8.h5", xml=b"<ismrmrdHeader><version>\xff\xfe</version></ismrmrdHeader>")
good("more_samples_than_data.h5", edit=rewrite(1, head("number_of_samples", 9)))
good("absurd_samples.h5", edit=rewrite(2, head("number_of_samples", 65535)))
good("absurd_channels.h5", edit=rewrite(0, head("active_channels", 65535)))
good("trajectory_missing.h5", edit=rewrite(0, head("trajectory_dimensions", 3)))
good("compressed_flag.h5", edit=lambda f: [rewrite(0, head("flags", 1 << 52))(f), rewrite(0, head("number_of_samples", 4))(f)])


def without_member(f):
    del f["dataset/data"]
    head_type = np.dtype([(n, acquisition_dtype["head"][n]) for n in acquisition_dtype["head"].names if n != "idx"])
    vlen = h5py.special_dtype(vlen=np.float32)
    f["dataset"].create_dataset("data", (2,), dtype=np.dtype([("head", head_type), ("traj", vlen), ("data", vlen)]))


good("header_member_missing.h5", edit=without_member)


def never_written(f):
    f["dataset/data"].resize(2**40, axis=0)


good("absurd_count.h5", edit=never_written)


def external(f):
    del f["dataset/xml"]
    f["dataset"].create_dataset("xml", (1,), dtype="S64", external=[("/etc/passwd", 0, 64)])


good("xml_in_another_file.h5", edit=external)


def number(f):
    del f["dataset/xml"]
    f["dataset/xml"] = np.arange(3)


good("xml_is_a_number.h5", edit=number)


def wrong_heap(name, change):
    path = good(name, n=1)
    data = bytearray(path.read_bytes())
    # Length 32 floats, then the heap address of the samples.
    at = data.index(struct.pack("<I", 32), 2048)
    while struct.unpack_from("<Q", data, at + 4)[0] >= len(data) or data[struct.unpack_from("<Q", data, at + 4)[0]:][:4] != b"GCOL":
        at = data.index(struct.pack("<I", 32), at + 1)
    change(data, at)
    path.write_bytes(data)


wrong_heap("heap_outside.h5", lambda d, at: struct.pack_into("<Q", d, at + 4, 1 << 60))
wrong_heap("heap_not_a_heap.h5", lambda d, at: struct.pack_into("<Q", d, at + 4, 0))
wrong_heap("heap_no_object.h5", lambda d, at: struct.pack_into("<I", d, at + 12, 77))
# Found by the fuzzer: heap_free_space_of_no_bytes.h5, in whose heap the library walks on for ever, and
# names_free_list_without_end.h5, for whose list it takes all memory.
wrong_heap("heap_long_length.h5", lambda d, at: struct.pack_into("<I", d, at, 0xFFFFFFFF))


def images(name, matrix, shape):
    path = here / name
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as f:
        g = f.create_group("dataset/image_0")
        heads = np.zeros(1, dtype=image_header_dtype)
        heads["matrix_size"] = matrix
        heads["channels"] = 1
        heads["data_type"] = 5
        g.create_dataset("header", data=heads)
        data = g.create_dataset("data", shape, dtype="<f4", chunks=tuple(min(n, 8) for n in shape))
        data[..., 0, 0] = 1


images("image_contradicts_header.h5", (8, 8, 1), (1, 1, 1, 4, 4))
with h5py.File(here / "arrays_without_bytes.h5", "w") as f:
    f.create_dataset("dataset/arr", (2**57, 0, 3), dtype="<f4", chunks=(1, 2, 3), maxshape=(None, None, 3))
    f["dataset/xml"] = "<ismrmrdHeader/>"
images("image_absurd.h5", (65535, 65535, 1), (1, 1, 1, 65535, 65535))

(here / "cut_off.v1").write_bytes(struct.pack("<HI", 3, 100) + b"<ismrmrdHeader>")
(here / "unknown_message.v1").write_bytes(struct.pack("<HI", 3, 16) + b"<ismrmrdHeader/>" + struct.pack("<H", 999))
(here / "huge_text.v1").write_bytes(struct.pack("<HI", 3, 0xFFFFFFFF) + b"<ismrmrdHeader/>")
(here / "schema_not_json.v2").write_bytes(b"yardl" + struct.pack("<I", 1) + b"\x05hello")
loop = b'{"protocol":{"name":"Mrd","sequence":[{"name":"header","type":"A"},{"name":"data","type":{"stream":{"items":"A"}}}]},"types":[{"name":"A","fields":[{"name":"a","type":"A"}]}]}'
(here / "schema_holds_itself.v2").write_bytes(b"yardl" + struct.pack("<I", 1) + bytes([0x80 | len(loop) & 0x7F, len(loop) >> 7]) + loop)
none = b'{"protocol":{"name":"Mrd","sequence":[{"name":"header","type":"A"},{"name":"data","type":{"stream":{"items":"A"}}}]},"types":[{"name":"A","fields":[]}]}'
(here / "elements_without_bytes.v2").write_bytes(b"yardl" + struct.pack("<I", 1) + bytes([0x80 | len(none) & 0x7F, len(none) >> 7]) + none + b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f")
(here / "version.v2").write_bytes(b"yardl" + struct.pack("<I", 7))
(here / "entity_bomb.xml").write_bytes(b'<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]><ismrmrdHeader><version>&c;</version></ismrmrdHeader>')
(here / "deep.xml").write_bytes(b"<a>" * 5000)
(here / "second_root.xml").write_bytes(b"<ismrmrdHeader/><ismrmrdHeader/>")
