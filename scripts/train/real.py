#!/usr/bin/env python3
"""Real scans through the shipped denoiser: pictures, what was removed, and what the engine says of it. No figures: there is no truth.

    python3 scripts/train/real.py --cauda target/release/cauda --data ../shared/data --out DIR

The scans have no noise readouts: noise is taken from the edges of k-space (too high, the images say so). Needs numpy, matplotlib, scipy.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import scipy.io

SCANS = {
    "brain, 8 coils, full": ("mrd/brain8_full.h5", 0),
    "brain, 8 coils, R = 2": ("mrd/brain8_r2_acs24.h5", 0),
    "mouse spine, RARE": ("mrd/mouse_rare_t2w.h5", 7),
    "brain, 0.055 T, FSE": ("mrd/ulf_p7a_fse.h5", 1),
    "brain, 0.055 T, GRE": ("mrd/ulf_p7a_gre.h5", 1),
}
# The same patient at 3 T: to look at, not to subtract.
COUNTERPART = {"brain, 0.055 T, FSE": "brain/p7a_3T_T2w.mat", "brain, 0.055 T, GRE": "brain/p7a_3T_T1w.mat"}


def through(cauda, scan, strength, folder):
    """Complex image and what was removed, [z, y, x], and the notes of networks."""
    quantities = '["complex", "removed"]' if strength > 0 else '["complex"]'
    command = [cauda, "recon", scan, "-o", folder / "a.npy", "--json", "--force", "--set", "ingest.noise_from_edges=true"]
    command += ["--set", "denoise.model=denoiser", "--set", f"denoise.strength={strength}", "--set", f"handoff.quantities={quantities}"]
    run = subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True)
    notes = [n for n in json.loads(run.stdout)["notes"] if n["code"].startswith("denoise")]
    one = folder / "a_complex.npy"
    image = np.load(one if one.exists() else folder / "a.npy")
    removed = np.load(folder / "a_removed.npy") if strength > 0 else None
    flat = lambda a: a.reshape(-1, *a.shape[-2:])
    return flat(image), None if removed is None else flat(removed), notes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cauda", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    titles = ["as measured", "strength 0.5", "strength 1", "removed at 1, eight times as bright", "3 T, same patient"]
    figure, axes = plt.subplots(len(SCANS), 5, figsize=(15, 3 * len(SCANS)), squeeze=False)
    report = {}
    for row, (name, (path, z)) in zip(axes, SCANS.items()):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            image, removed, notes = through(args.cauda, args.data / path, 1.0, folder)
        with tempfile.TemporaryDirectory() as folder:
            half, _, _ = through(args.cauda, args.data / path, 0.5, Path(folder))
        report[name] = {"scan": path, "notes": notes}
        z = min(z, len(image) - 1)
        measured = image[z] + removed[z]
        white = np.percentile(abs(measured), 99.5)
        pictures = [abs(measured), abs(half[z]), abs(image[z]), 8 * abs(removed[z])]
        if name in COUNTERPART:
            loaded = scipy.io.loadmat(args.data / COUNTERPART[name])
            other = np.asarray(next(v for k, v in loaded.items() if not k.startswith("_")), dtype=float)[..., min(z, 3)]
            pictures.append(other / np.percentile(other, 99.5) * white)
        for axis, picture, title in zip(row, pictures, titles):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=white)
            axis.set_title(title if axis is not row[0] else f"{name}\n{title}", fontsize=8)
        for axis in row:
            axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(args.out / "real.png", dpi=110)
    (args.out / "real.json").write_text(json.dumps(report, indent=1) + "\n")
    for name, said in report.items():
        print(name, *[f"{n['code']}: {n['text']}" for n in said["notes"]], sep="\n  ")


if __name__ == "__main__":
    main()
