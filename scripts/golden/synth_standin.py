"""Writes tests/data/synth: networks that keep the contract of the synthesis networks and are nothing but arithmetic, so that a test
knows every answer by hand. Needs `onnx`."""

import hashlib
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "synth"
F = TensorProto.FLOAT
NHW = ["n", 1, "h", "w"]


def build(name, inputs, outputs, nodes, constants):
    value = lambda k, shape: helper.make_tensor_value_info(k, F, shape)
    graph = helper.make_graph([helper.make_node(op, i, o, **a) for op, i, o, a in nodes], name, [value(*i) for i in inputs], [value(*o) for o in outputs],
                              [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def centre(name):
    return "Slice", [name, "one", "two", "axis"], [name + "_c"], {}


def number(name, i):
    """Number i of a list for each slice, as [n, 1, 1, 1]."""
    return [("Slice", [name, f"at{i}", f"at{i + 1}", "axis"], [f"{name}{i}_"], {}), ("Reshape", [f"{name}{i}_", "one4"], [f"{name}{i}"], {})]


common = {"one": np.array([1], np.int64), "two": np.array([2], np.int64), "axis": np.array([1], np.int64), "one4": np.array([-1, 1, 1, 1], np.int64),
          "flat": np.array([-1], np.int64)} | {f"at{i}": np.array([i], np.int64) for i in (0, 1, 2, 11, 12, 15, 16)}

# stir = |t2w - 0.5 t1w| (1 + TI / 1000), t2fs = t2w (1 - 0.5 t1w residual fat), sigmas = noise of t2w + 0.1 t1w, 0.2 t1w; mismatch = t1w - 1 and 0;
# domain = B0 / 5.
FS = build("synth_fs", [("t1w", ["n", 3, "h", "w"]), ("t2w", ["n", 3, "h", "w"]), ("noise", ["n", 2]), ("sequence", ["n", 16])],
           [("stir", NHW), ("stir_sigma", NHW), ("t2fs", NHW), ("t2fs_sigma", NHW), ("maps", ["n", 4, "h", "w"]), ("mismatch", ["n", 2, "h", "w"]), ("domain", ["n"])],
           [centre("t1w"), centre("t2w"), *number("sequence", 0), *number("sequence", 11), *number("sequence", 15), *number("noise", 1),
            ("Mul", ["t1w_c", "half"], ["h1"], {}), ("Sub", ["t2w_c", "h1"], ["d"], {}), ("Abs", ["d"], ["a"], {}), ("Mul", ["sequence11", "milli"], ["ti"], {}),
            ("Add", ["ti", "unit"], ["f"], {}), ("Mul", ["a", "f"], ["stir"], {}), ("Mul", ["h1", "sequence15"], ["r"], {}), ("Sub", ["unit", "r"], ["k"], {}),
            ("Mul", ["t2w_c", "k"], ["t2fs"], {}), ("Mul", ["t1w_c", "tenth"], ["t"], {}), ("Add", ["t", "noise1"], ["stir_sigma"], {}), ("Add", ["t", "t"], ["t2fs_sigma"], {}),
            ("Concat", ["t1w_c", "t2w_c", "h1", "t"], ["maps"], {"axis": 1}), ("Sub", ["t1w_c", "unit"], ["m"], {}), ("Sub", ["t1w_c", "t1w_c"], ["z"], {}),
            ("Concat", ["m", "z"], ["mismatch"], {"axis": 1}), ("Mul", ["sequence0", "fifth"], ["b"], {}), ("Reshape", ["b", "flat"], ["domain"], {})],
           common | {"half": np.float32(0.5), "milli": np.float32(1e-3), "unit": np.float32(1), "tenth": np.float32(0.1), "fifth": np.float32(0.2)})

# hu = 1000 (t1w - t2w) - 200, sigma = 40 + 100 t1w, bone = t1w / 4, domain = B0 / 5.
CT = build("synth_ct", [("t1w", ["n", 3, "h", "w"]), ("t2w", ["n", 3, "h", "w"]), ("noise", ["n", 2]), ("geometry", ["n", 4])],
           [("hu", NHW), ("sigma", NHW), ("bone", NHW), ("domain", ["n"])],
           [centre("t1w"), centre("t2w"), *[(op, [i.replace("@", "geometry") for i in a], [o.replace("@", "geometry") for o in b], c) for op, a, b, c in
            [("Slice", ["@", "at3", "at4", "axis"], ["@3_"], {}), ("Reshape", ["@3_", "one4"], ["@3"], {})]],
            ("Sub", ["t1w_c", "t2w_c"], ["d"], {}), ("Mul", ["d", "thousand"], ["e"], {}), ("Sub", ["e", "shift"], ["hu"], {}), ("Mul", ["t1w_c", "hundred"], ["s"], {}),
            ("Add", ["s", "forty"], ["sigma"], {}), ("Mul", ["t1w_c", "quarter"], ["bone"], {}), ("Mul", ["geometry3", "fifth"], ["b"], {}), ("Reshape", ["b", "flat"], ["domain"], {}),
            # The noise has to be used, or a run-time drops the input.
            ("Identity", ["noise"], ["unused"], {})],
           common | {"at3": np.array([3], np.int64), "at4": np.array([4], np.int64), "thousand": np.float32(1000), "shift": np.float32(200), "hundred": np.float32(100),
                     "forty": np.float32(40), "quarter": np.float32(0.25), "fifth": np.float32(0.2)})

PLANES = '["n", {}, "h", "w"]'


def manifest(name, blob, inputs, outputs, limits):
    ports = "".join(f'\n[{side}.{k}]\ndtype = "f32"\nshape = {v}\nunits = "1"\nmeaning = "see scripts/golden/synth_standin.py"\n'
                    for side, these in (("inputs", inputs), ("outputs", outputs)) for k, v in these.items())
    return f"""name = "{name}_standin"
version = "0"
kind = "{name}"
file = "model.onnx"
sha256 = "{hashlib.sha256(blob).hexdigest()}"
opset = 17
licence = "MIT OR Apache-2.0"
intended_use = "Tests. Arithmetic that keeps the contract; nothing is learned."
size_multiple = 16
slices = 3

[limits]
{chr(10).join(f"{k} = {v}" for k, v in limits.items())}
{ports}
[training]

[quality]
"""


three, one = PLANES.format(3), PLANES.format(1)
for name, blob, extra, outputs, limits in [
        ("synth_fs", FS, {"sequence": '["n", 16]'},
         {"stir": one, "stir_sigma": one, "t2fs": one, "t2fs_sigma": one, "maps": PLANES.format(4), "mismatch": PLANES.format(2), "domain": '["n"]'},
         {"mismatch": 0.2, "stir_sigma": 0.5, "t2fs_sigma": 0.15}),
        ("synth_ct", CT, {"geometry": '["n", 4]'}, {"hu": one, "sigma": one, "bone": one, "domain": '["n"]'}, {"hu_sigma": 130.0})]:
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(blob)
    (folder / "model.toml").write_text(manifest(name, blob, {"t1w": three, "t2w": three, "noise": '["n", 2]'} | extra, outputs, limits))
