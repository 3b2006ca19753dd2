"""Samples of the digital spine for the synthesis networks, and what is done to them in training.

Series are divided by the 99.5th percentile of their magnitude: T1w by its own, T2w, STIR, T2FS and PD by that of T2w.
"""

import json
import mmap
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path
from queue import Empty

import h5py
import numpy as np
import torch
import torch.nn.functional as F

import data
from data import SIZE, _uniform, _with, smooth_field

SLAB = 5
FAMILIES = data.FAMILIES
TESTS = data.TESTS
# Fat that suppression leaves in the samples' T2FS: 9 % lies too close to water to be reached, the rest is the field's.
RESIDUAL_FAT = 0.10
SAC, BODY_OF_VERTEBRA, BONE = 12, 1, 8  # labels of src/phantom/matter.rs; 1 to BONE are bone
HU = (-1050.0, 2000.0)
MAPS = ("pd", "fat_fraction", "t1_ms", "t2_ms")
MAP_UNIT = (1.0, 1.0, 1000.0, 1000.0)  # stored in f16


@dataclass
class Samples:
    """images [n, 4, 5, h, w] T1w, T2w, STIR, T2FS, and maps [n, 4, 5, h, w] (pd, fat fraction, T1 and T2 in s), f16; for
    CT images has two and `hu` [n, 5, h, w] is there. label, lesion u8 [n, 5, h, w]; sequence [n, 16];
    geometry [n, 2] pixel and slice pitch, mm; csf [n, 2] level of the fluid in STIR, T2FS; findings: name by lesion number;
    lesioned [k, 2]: sample and slice of where there are lesions."""

    images: torch.Tensor
    maps: torch.Tensor | None
    hu: torch.Tensor | None
    label: torch.Tensor
    lesion: torch.Tensor
    sequence: torch.Tensor
    geometry: torch.Tensor
    csf: torch.Tensor
    findings: list
    lesioned: torch.Tensor | None = None

    def __len__(self):
        return self.images.shape[0]

    def to(self, device):
        move = lambda v: v.to(device) if isinstance(v, torch.Tensor) else v
        return Samples(**{k: move(v) for k, v in self.__dict__.items()})

    def first(self, n):
        return Samples(**{k: v if v is None else v[:n] for k, v in self.__dict__.items() if k != "lesioned"})


def sequence_vector(sequences):
    """[16] of the contract, from the sequences T1w, T2w, STIR, T2FS of a sample."""
    t1w, t2w, stir, t2fs = sequences
    of = lambda s, *keys: [s[k] for k in keys]
    train = ("tr_ms", "te_ms", "echo_train_length", "echo_spacing_ms")
    return [t1w["field_strength_t"], *of(t1w, *train), *of(t2w, *train),
            *of(stir, "tr_ms", "te_ms", "ti_ms", "echo_spacing_ms"), *of(t2fs, "tr_ms", "te_ms"), RESIDUAL_FAT]


def _one(path, what, place):
    """Reads one sample into `place`, a dict of arrays; returns what is small."""
    with h5py.File(path) as f:
        s = f["sample"]
        x = s["images"][0, : 4 if what == "fs" else 2]
        if x.shape[1:] != (SLAB, SIZE, SIZE):
            raise ValueError(f"{path}: {x.shape}, needed (4, {SLAB}, {SIZE}, {SIZE})")
        label = s["label"][0].astype(np.uint8)
        scale = [max(float(np.percentile(x[c], 99.5)), 1e-6) for c in (0, 1)]
        place["images"][:] = x / np.array([scale[0]] + [scale[1]] * (x.shape[0] - 1), np.float32)[:, None, None, None]
        place["label"][:] = label
        place["lesion"][:] = s["lesion"][0].astype(np.uint8)
        csf = [1.0, 1.0]
        if what == "fs":
            for i, (name, unit) in enumerate(zip(MAPS, (scale[1], *MAP_UNIT[1:]))):
                place["maps"][i] = s[name][0] / unit
            sac = label == SAC
            csf = [float(np.median(x[c][sac])) if sac.sum() > 50 else float(np.percentile(x[c], 99.5)) for c in (2, 3)]
        else:
            place["hu"][:] = np.clip(s["hu"][0], *HU)
        pitch = float(s["geometry"][0, 1, 0])
    with open(path[:-3] + ".json") as f:
        j = json.load(f)
    first = j["sequences"][0]
    findings = {int(x["id"]): x["name"] for x in j["patient"]["lesions"]}
    return (sequence_vector(j["sequences"]), [first["fov_mm"][0] / first["matrix"][0], pitch], [c / scale[1] for c in csf], findings)


def read(folder, n, what, workers=None):
    """The samples of a folder, at most n, by many processes into one piece of shared memory."""
    paths = sorted(str(p) for p in Path(folder).glob("shard_*/sample_*.h5"))[: n or None]
    if not paths:
        raise SystemExit(f"no samples in {folder}: expected shard_*/sample_*.h5")
    n, block = len(paths), (SLAB, SIZE, SIZE)
    shapes = {"images": ((n, 4 if what == "fs" else 2, *block), np.float16), "label": ((n, *block), np.uint8), "lesion": ((n, *block), np.uint8)}
    shapes |= {"maps": ((n, 4, *block), np.float16)} if what == "fs" else {"hu": ((n, *block), np.float16)}
    arrays = {}
    for k, (shape, dtype) in shapes.items():
        count = int(np.prod(shape))
        # Anonymous and shared: /dev/shm of a container may be small. Children are forked and write into it.
        arrays[k] = np.frombuffer(mmap.mmap(-1, count * np.dtype(dtype).itemsize), dtype).reshape(shape)
    workers = max(1, min(workers or len(os.sched_getaffinity(0)), 32, n))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def work(k):
        try:
            for i in range(k, n, workers):
                queue.put((i, _one(paths[i], what, {name: a[i] for name, a in arrays.items()})))
        except Exception as e:  # the parent says it
            queue.put((-1, f"{type(e).__name__}: {e}"))

    children = [context.Process(target=work, args=(k,), daemon=True) for k in range(workers)]
    for c in children:
        c.start()
    small = {}
    while len(small) < n:
        try:
            i, found = queue.get(timeout=120)
        except Empty:
            raise SystemExit(f"{folder}: {n - len(small)} samples did not come in 120 s: was a reader killed?") from None
        if i < 0:
            raise SystemExit(f"{folder}: {found}")
        small[i] = found
    for c in children:
        c.join()
    column = lambda k: torch.tensor([small[i][k] for i in range(n)], dtype=torch.float32)
    t = {k: torch.from_numpy(a) for k, a in arrays.items()}
    return Samples(t["images"], t.get("maps"), t.get("hu"), t["label"], t["lesion"], column(0), column(1), column(2), [small[i][3] for i in range(n)])


def present(folder):
    return sum(1 for _ in Path(folder).glob("shard_*/sample_*.h5"))


def neighbours(z):
    """[b] -> [b, 3]: previous, this, next; at an edge this one again."""
    return torch.stack([torch.where(z > 0, z - 1, z), z, torch.where(z < SLAB - 1, z + 1, z)], 1)


def magnitude(x, noise, rng):
    """x [b, 3, h, w] with complex noise of standard deviation `noise` [b] per part."""
    s = noise.view(-1, 1, 1, 1)
    draw = lambda: torch.randn(x.shape, generator=rng, device=x.device) * s
    return ((x + draw()).square() + draw().square()).sqrt()


def shades(b, h, w, top, waves, rng):
    """Smooth positive fields [b, 1, h, w] about 1, changing by up to some `top`."""
    return torch.exp(_uniform((b, 1, 1, 1), 0, top, rng) * smooth_field(b, h, w, waves, rng))


def _pick(s, i, z):
    zs, at = neighbours(z), i[:, None]
    out = {"t1w": s.images[at, 0, zs].float(), "t2w": s.images[at, 1, zs].float(), "label": s.label[i, z], "lesion": s.lesion[i, z],
           "sequence": s.sequence[i], "geometry": s.geometry[i], "csf": s.csf[i]}
    if s.maps is not None:
        out["target"], out["maps"] = s.images[i, 2:, z].float(), s.maps[i, :, z].float()
    else:
        out["hu"] = s.hu[i, z][:, None].float()
    return out


def tissues(b, fraction, rng):
    """Every tissue of every image with more or less protons, in all contrasts alike: what a prior off by `fraction` is."""
    scale = _uniform((b["label"].shape[0], 256), 1 - fraction, 1 + fraction, rng)
    scale[:, 0] = 1
    field = scale.gather(1, b["label"].flatten(1).long()).view_as(b["label"])[:, None]
    b["t1w"], b["t2w"] = b["t1w"] * field, b["t2w"] * field
    if "maps" in b:
        b["target"] = b["target"] * field
        b["maps"] = torch.cat([b["maps"][:, :1] * field, b["maps"][:, 1:]], 1)


def scanner(b, rng, gain=0.2, common=0.35, own=0.15):
    """Gains of the series and shading by the coils: the target is in units of T2w, so what T2w gets it gets too."""
    n, _, h, w = b["t1w"].shape
    g = _uniform((2, n, 1, 1, 1), 1 - gain, 1 + gain, rng)
    both = shades(n, h, w, common, 1, rng)
    b["t1w"] = b["t1w"] * (g[0] * both * shades(n, h, w, own, 1, rng))
    b["t2w"] = b["t2w"] * (g[1] * both)
    if "maps" in b:
        b["target"] = b["target"] * (g[1] * both)
        b["maps"] = torch.cat([b["maps"][:, :1] * (g[1] * both), b["maps"][:, 1:]], 1)
    b["csf"] = b["csf"] * g[1].view(-1, 1)


def move(b, rng, zoom=(0.6, 1.2), turn=0.15, shift=0.1, apart_px=2.0, flip=True):
    """Zoom, turn, shift and mirror of everything; T1w lies up to `apart_px` from T2w besides."""
    n, _, h, w = b["t1w"].shape
    dev = rng.device
    angle, z = _uniform((n,), -turn, turn, rng), _uniform((n,), *zoom, rng)
    still = _with(0.3, (n,), rng)
    angle, z = torch.where(still, 0.0, angle), torch.where(still, 1.0, z)
    mirror = torch.where(_with(0.3 if flip else 0.0, (n,), rng), -1.0, 1.0)
    theta = torch.zeros(n, 2, 3, device=dev)
    theta[:, 0, 0], theta[:, 0, 1] = z * angle.cos() * mirror, -z * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = z * angle.sin() * mirror, z * angle.cos()
    theta[:, :, 2] = torch.where(still[:, None], 0.0, _uniform((n, 2), -shift, shift, rng))
    direction = _uniform((n,), 0, 6.2832, rng)
    apart = torch.where(_with(0.7, (n,), rng), _uniform((n,), 0, apart_px, rng), 0.0)
    other = theta.clone()
    other[:, 0, 2] += 2 / w * apart * direction.cos()
    other[:, 1, 2] += 2 / h * apart * direction.sin()
    grid = F.affine_grid(theta, (n, 1, h, w), align_corners=False)
    sample = lambda x, g, mode="bilinear", pad="zeros": F.grid_sample(x, g, mode=mode, padding_mode=pad, align_corners=False)
    b["t1w"] = sample(b["t1w"], F.affine_grid(other, (n, 1, h, w), align_corners=False))
    b["t2w"] = sample(b["t2w"], grid)
    for k in ("label", "lesion"):
        b[k] = sample(b[k][:, None].float(), grid, "nearest")[:, 0].round().to(torch.uint8)
    for k in ("target", "maps"):
        if k in b:
            b[k] = sample(b[k], grid)
    if "hu" in b:
        b["hu"] = sample(b["hu"] + 1000, grid) - 1000
    b["geometry"] = torch.stack([b["geometry"][:, 0] * z, b["geometry"][:, 1]], 1)


def _crop(b, crop, rng):
    h, w = b["label"].shape[-2:]
    if not crop or crop >= h:
        return
    y, x = (int(torch.randint(0, n - crop + 1, (1,), generator=rng, device=rng.device)) for n in (h, w))
    for k in ("t1w", "t2w", "label", "lesion", "target", "maps", "hu"):
        if k in b:
            b[k] = b[k][..., y : y + crop, x : x + crop]


def _noise(b, low, high, rng):
    n = b["t1w"].shape[0]
    b["clean"] = torch.cat([b["t1w"][:, 1:2], b["t2w"][:, 1:2]], 1)
    b["noise"] = torch.exp(_uniform((n, 2), float(np.log(low)), float(np.log(high)), rng))
    b["t1w"], b["t2w"] = (magnitude(b[k], b["noise"][:, i], rng) for i, k in enumerate(("t1w", "t2w")))


def batch(s, n, rng, crop=None, ct=False):
    """One training batch: inputs of the contract with their truth."""
    draw = lambda top: torch.randint(top, (n,), generator=rng, device=rng.device)
    i, z = draw(len(s)), draw(SLAB)
    if s.lesioned is not None and len(s.lesioned):
        # Lesions are rare: a third of the images has one.
        chosen, often = s.lesioned[draw(len(s.lesioned))], _with(0.25, (n,), rng)
        i, z = torch.where(often, chosen[:, 0], i), torch.where(often, chosen[:, 1], z)
    b = _pick(s, i, z)
    tissues(b, 0.05, rng)
    move(b, rng)
    _crop(b, crop, rng)
    scanner(b, rng)
    _noise(b, 0.005, 0.05, rng)
    if ct:
        has = torch.where(_with(0.8, (n,), rng), 1.0, 0.0)
        b["t2w"] = b["t2w"] * has.view(-1, 1, 1, 1)
        b["noise"] = torch.stack([b["noise"][:, 0], b["noise"][:, 1] * has], 1)
        b["geometry"] = torch.stack([has, b["geometry"][:, 0], b["geometry"][:, 1], b["sequence"][:, 0]], 1)
    return b


def case(s, i, family, rng, noise=0.02, ct=False):
    """All slices of sample i as a test sees them, [5, ...]: noise 2 % of the scale; shifted-coils has shading, twice the
    noise, gains and a T1w that lies up to 2 px away; shifted-tissue has protons +-20 % by tissue."""
    at = torch.arange(SLAB, device=rng.device)
    b = _pick(s, torch.full_like(at, i), at)
    f = FAMILIES[family]
    if f.tissue:
        tissues(b, f.tissue, rng)
    if f.coils:
        move(b, rng, (1.0, 1.0), 0.0, 0.0, 2.0, flip=False)
        scanner(b, rng, 0.2, 0.5, 0.2)
        noise = 2 * noise
    _noise(b, noise, noise * 1.0001, rng)
    if ct:
        b["geometry"] = torch.stack([torch.ones_like(b["geometry"][:, 0]), b["geometry"][:, 0], b["geometry"][:, 1], b["sequence"][:, 0]], 1)
    return b
