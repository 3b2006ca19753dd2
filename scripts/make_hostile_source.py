#!/usr/bin/env python3
"""Makes tests/hostile/source from the samples: files that a careless reader would trip over. Needs numpy and h5py."""
import struct
import zlib
from pathlib import Path
import h5py
import numpy as np

ROOT = Path(__file__).resolve().parent.parent / "tests"
GOOD, OUT = ROOT / "data" / "source", ROOT / "hostile" / "source"
OUT.mkdir(parents=True, exist_ok=True)


def patch(data, at, new):
    return data[:at] + new + data[at + len(new):]


vb, vd = (GOOD / "vb_tse.dat").read_bytes(), (GOOD / "vd_multi.dat").read_bytes()
write = lambda name, data: (OUT / name).write_bytes(data)
second = struct.unpack_from("<Q", vd, 8 + 152 + 8)[0]
line = second + struct.unpack_from("<I", vd, second)[0] + 256
write("vb_cut_in_a_readout.dat", vb[:10240 + 700])
write("vb_cut_in_the_header.dat", vb[:6000])
write("vd_cut_in_the_table.dat", vd[:10240])
write("vd_offset_beyond_the_end.dat", patch(vd[:12000], 8 + 152 + 8, struct.pack("<Q", 1 << 60)))
write("vd_length_beyond_the_end.dat", patch(vd[:24000], 8 + 152 + 16, struct.pack("<Q", (1 << 64) - 1)))
write("vd_65535_channels.dat", patch(vd, line + 50, b"\xff\xff")[:line + 4000])
write("vd_wrong_samples.dat", patch(vd, line + 48, b"\x1e\x00")[:line + 4000])
write("vb_sync_of_length_1.dat", patch(vb, 10240 + 3 * (128 + 8 * 64), struct.pack("<I", 1))[:20000])
write("vb_buffer_length_4g.dat", patch(vb, 8 + 7, b"\xff\xff\xff\xff")[:11000])
npy = (GOOD / "kspace_c16.npy").read_bytes()
write("cut.npy", npy[:500])
write("shape_overflows.npy", npy.replace(b"(2, 6, 5), }" + b" " * 19, b"(4611686018427387904, 6, 5), } "))
write("header_length_beyond_the_end.npy", patch(npy, 8, b"\xff\xff"))
mat = (GOOD / "kspace.mat").read_bytes()
write("cut.mat", mat[:200])
write("zlib_garbage.mat", patch(mat, 150, b"\x55" * 20))
bomb = zlib.compress(b"\0" * (80 << 20), 9)
write("zlib_bomb.mat", mat[:128] + struct.pack("<II", 15, len(bomb)) + bomb)
element = lambda kind, data: struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)
lie = element(6, struct.pack("<II", 0x806, 0)) + element(5, struct.pack("<ii", 40000, 40000)) + element(1, b"kspace") + element(9, b"\0" * 16) * 2
write("extents_beyond_the_data.mat", mat[:128] + element(14, lie))
for name, dims, size in [("too_short", "4 4", 100), ("overflow", "9999999999 9999999999 9999999999", 8), ("maps", "4 4 1 1 2", 256)]:
    write(name + ".hdr", f"# Dimensions\n{dims}\n".encode())
    write(name + ".cfl", b"\x01" * size)
with h5py.File(OUT / "fastmri_sparse_giant.h5", "w") as f:
    f.create_dataset("kspace", shape=(60000, 100, 6000, 6000), dtype="complex64", chunks=(1, 1, 64, 64))
with h5py.File(OUT / "fastmri_wrong_type.h5", "w") as f:
    f.create_dataset("kspace", data=np.zeros((2, 2, 4, 4), "float32"))
with h5py.File(OUT / "fastmri_mask_of_another_length.h5", "w") as f:
    f.create_dataset("kspace", data=np.ones((2, 2, 4, 4), "complex64"))
    f.create_dataset("mask", data=np.ones(5, bool))
with h5py.File(OUT / "hdf5_of_another_layout.h5", "w") as f:
    f.create_group("a").create_dataset("b", data=np.arange(3))
good = (GOOD / "fastmri_full.h5").read_bytes()
write("fastmri_cut.h5", good[:9000])
(OUT / "README.md").write_text(
    "# Hostile raw data\n\nMade by `scripts/make_hostile_source.py`; CC0-1.0. Every file must be refused with a message that names it.\n")
print(sum(f.stat().st_size for f in OUT.iterdir()), "bytes in", len(list(OUT.iterdir())), "files")
