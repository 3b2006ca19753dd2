"""Clients of other people against our server: tests/serve_a_scanner.rs.

peers.py tcp PORT CAUDA SCAN     ismrmrd-python's serializer and deserializer over TCP
peers.py fire PORT CAUDA SCAN    a client written to python-ismrmrd-server's conventions
peers.py pipe2 PORT CAUDA SCAN   mrd-python writes an MRD v2 scan to our standard input and reads the images
"""

import io
import socket
import struct
import subprocess
import sys

import ismrmrd
import numpy as np
from ismrmrd.serialization import ProtocolDeserializer, ProtocolSerializer

mode, port, cauda, path = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]


def scan():
    with open(path, "rb") as f:
        return list(ProtocolDeserializer(f).deserialize())


def tcp():
    with socket.create_connection(("127.0.0.1", port)) as s, s.makefile("rwb") as f:
        with ProtocolSerializer(f) as out:
            for item in scan():
                out.serialize(item)
        f.flush()
        items = list(ProtocolDeserializer(f).deserialize())
    images = [i for i in items if isinstance(i, ismrmrd.Image)]
    assert len(images) == 2, items
    assert images[0].data.shape == (1, 1, 16, 16) and images[0].data.max() > 0
    assert "recon_only" in images[0].attribute_string


def fire():
    """Trailing NULs that count, JSON text after the header, answers read by hand as connection.py does."""
    items = scan()
    header = next(i for i in items if isinstance(i, ismrmrd.xsd.ismrmrdHeader))
    acquisitions = [i for i in items if isinstance(i, ismrmrd.Acquisition)]
    with socket.create_connection(("127.0.0.1", port)) as s:

        def text(number, words):
            data = words.encode() + b"\0"
            s.sendall(struct.pack("<HI", number, len(data)) + data)

        def read(n):
            data = b""
            while len(data) < n:
                piece = s.recv(n - len(data))
                assert piece, "the server hung up"
                data += piece
            return data

        s.sendall(struct.pack("<H1024s", 1, b"simplefft"))
        text(3, header.toXML() if hasattr(header, "toXML") else ismrmrd.xsd.ToXML(header))
        text(5, '{"parameters": {"config": "simplefft"}}')
        for acq in acquisitions:
            s.sendall(struct.pack("<H", 1008))
            acq.serialize_into(s.sendall)
        s.sendall(struct.pack("<H", 4))
        images = 0
        while True:
            (number,) = struct.unpack("<H", read(2))
            if number == 4:
                break
            elif number == 5:
                read(struct.unpack("<I", read(4))[0])
            elif number == 1022:
                image = ismrmrd.Image.deserialize_from(read)
                assert image.data.shape == (1, 1, 16, 16)
                images += 1
            else:
                raise AssertionError(f"message {number}")
    assert images == 2, images


def pipe2():
    import mrd
    from mrd.tools import phantom

    scan = io.BytesIO()
    phantom.generate(scan, matrix=32, coils=4, oversampling=2, repetitions=2, noise_level=0.05)
    out = subprocess.run([cauda, "serve", "--stdio", "--log", "error"], input=scan.getvalue(), capture_output=True)
    assert out.returncode == 0, out.stderr
    with mrd.BinaryMrdReader(io.BytesIO(out.stdout)) as reader:
        assert reader.read_header() is not None
        images = [i.value for i in reader.read_data()]
    assert len(images) == 2, images
    for image in images:
        assert image.data.shape == (1, 1, 32, 32) and np.isfinite(image.data).all() and image.data.max() > 0


{"tcp": tcp, "fire": fire, "pipe2": pipe2}[mode]()
