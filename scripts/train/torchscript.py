#!/usr/bin/env python3
"""Writes the TorchScript of a denoiser that was exported to ONNX, for the libtorch plug-in (scripts/torch.sh).

    python3 scripts/train/torchscript.py DIR OUT

DIR holds `model.onnx` and `model.toml`. The ONNX file is the truth: its initializers have the names of the state dict. OUT gets
both files, `model.pt`, and in `model.toml` the section `[torchscript]` with the digest. OUT may be DIR. Nothing is written
unless both run-times agree to 1e-4 of the rms of each output, at sizes other than the traced one.
Needs torch, numpy, onnx, onnxruntime.
"""

import hashlib
import json
import shutil
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from net import SLICES, Denoiser, UNet

BOUND = 1e-4
INPUTS, NAMES = ["image", "gfactor", "noise"], ["denoised", "sigma"]


def example(n, h, w, seed):
    """Inputs of the contract, noise of standard deviation 0.5-1.5 under images of 10: image, gfactor, noise."""
    rng = torch.Generator().manual_seed(seed)
    return (10 * torch.randn(n, 2 * SLICES, h, w, generator=rng), 1 + torch.rand(n, 1, h, w, generator=rng),
            0.5 + torch.rand(n, generator=rng))


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Module(torch.nn.Module):
    """What is saved: oneDNN is a third faster on channels that stand together; cuDNN in single precision gets them apart."""

    def __init__(self, traced):
        super().__init__()
        self.traced = traced

    def forward(self, image, gfactor, noise):
        if not image.is_cuda:
            image = image.contiguous(memory_format=torch.channels_last)
        return self.traced(image, gfactor, noise)


def scripted(onnx_file):
    """The module with the weights of the ONNX file, frozen: weights are constants of the program."""
    weights = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()).float() for t in onnx.load(onnx_file).graph.initializer}
    model = Denoiser(UNet())
    model.load_state_dict(weights)  # names and shapes, all and no others
    model.eval().requires_grad_(False)
    traced = torch.jit.trace(model, example(1, 64, 64, 0))
    return torch.jit.freeze(torch.jit.script(Module(traced).eval()))


def furthest(module, onnx_file):
    """Largest difference of each output from ONNX Runtime's, over the rms of that output."""
    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    worst = dict.fromkeys(NAMES, 0.0)
    for seed, (n, h, w) in enumerate([(1, 320, 320), (3, 96, 136), (2, 8, 16)]):
        inputs = example(n, h, w, 1 + seed)
        expected = session.run(NAMES, dict(zip(INPUTS, (t.numpy() for t in inputs))))
        for name, e, got in zip(NAMES, expected, module(*inputs)):
            assert got.shape == e.shape, f"{name}: {tuple(got.shape)}, ONNX Runtime gives {e.shape}"
            worst[name] = max(worst[name], float(np.abs(got.numpy() - e).max() / np.sqrt(np.mean(e.astype(np.float64) ** 2))))
    return worst


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    source, out = map(Path, sys.argv[1:])
    manifest = (source / "model.toml").read_text()
    onnx_file = source / tomllib.loads(manifest)["file"]
    if digest(onnx_file) != tomllib.loads(manifest)["sha256"]:
        raise SystemExit(f"{onnx_file} is not the file of its manifest: the digest differs")
    module = scripted(onnx_file)
    worst = furthest(module, onnx_file)
    said = ", ".join(f"{name} {value:.1e}" for name, value in worst.items())
    if not max(worst.values()) <= BOUND:
        raise SystemExit(f"TorchScript and ONNX Runtime differ by {said} of the rms; allowed: {BOUND:.0e}")
    out.mkdir(parents=True, exist_ok=True)
    torch.jit.save(module, str(out / "model.pt"))
    if out.resolve() != source.resolve():
        shutil.copyfile(onnx_file, out / onnx_file.name)
    # The last section, so that a former one is cut off.
    head = manifest.split("\n[torchscript]")[0].rstrip()
    order = f"# In the order of forward and of its tuple.\ninputs = {json.dumps(INPUTS)}\noutputs = {json.dumps(NAMES)}"
    (out / "model.toml").write_text(f'{head}\n\n[torchscript]\nfile = "model.pt"\nsha256 = "{digest(out / "model.pt")}"\n{order}\n')
    print(f"{out / 'model.pt'}: differs from ONNX Runtime {onnxruntime.__version__} by {said} of the rms")


if __name__ == "__main__":
    main()
