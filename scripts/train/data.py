"""Samples of the digital spine, split by families of seeds, and how a scanner would have seen them."""

import glob
import json
import math
import os
import subprocess
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import h5py
import numpy as np
import torch
import torch.nn.functional as F

SIZE = 256
# Of the error inside planted things, beside 1 elsewhere: they are a hundredth of the area and the reason for the picture.
LESION_WEIGHT = 6.0


@dataclass(frozen=True)
class Family:
    """seed: the first; cervical: necks; coils: g-factors and phase never seen in training; tissue: every tissue of
    every image brighter or darker by up to this fraction."""

    seed: int
    cervical: bool = False
    coils: bool = False
    tissue: float = 0.0


# No seed is in two families: a training set may have 90 000 samples.
FAMILIES = {
    "train": Family(100_000),
    "validation": Family(200_000),
    "test": Family(300_000),
    "shifted-anatomy": Family(400_000, cervical=True),
    "shifted-coils": Family(500_000, coils=True),
    "shifted-tissue": Family(600_000, tissue=0.2),
}
TESTS = [name for name in FAMILIES if name.startswith(("test", "shifted"))]


@dataclass
class Samples:
    """images f16 [n, 4, 5, h, w], noise-free magnitude, 99.5th percentile 1; label u8 [n, 5, h, w], 0 is air;
    lesion bool [n, 5, h, w]; pixel_mm [n]."""

    images: torch.Tensor
    label: torch.Tensor
    lesion: torch.Tensor
    pixel_mm: np.ndarray

    def to(self, device):
        return Samples(self.images.to(device), self.label.to(device), self.lesion.to(device), self.pixel_mm)


def simulate(cauda, name, n, folder):
    """Runs the simulator (what is there is kept) and reads its samples."""
    family = FAMILIES[name]
    command = [cauda, "simulate", "--dataset", str(n), "--seed", str(family.seed), "-o", str(folder), "--force"]
    if family.cervical:
        command.append("--cervical")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return read(folder, n)


def _read_one(path):
    with h5py.File(path) as f:
        x = f["sample/images"][0]
        if x.shape[1:] != (5, SIZE, SIZE):
            raise ValueError(f"{path}: {x.shape}, needed (4, 5, {SIZE}, {SIZE})")
        top = np.percentile(x[..., ::4, ::4], 99.5, axis=(1, 2, 3), keepdims=True)
        images = (x / np.maximum(top, 1e-6)).astype(np.float16)
        label, lesion = f["sample/label"][0], f["sample/lesion"][0] > 0
    with open(path[:-3] + ".json") as f:
        s = json.load(f)["sequences"][0]
    return images, label, lesion, s["fov_mm"][0] / s["matrix"][0]


def read(folder, n):
    paths = sorted(glob.glob(f"{folder}/shard_*/sample_*.h5"))[:n]
    if not paths:
        raise SystemExit(f"no samples in {folder}: expected shard_*/sample_*.h5")
    images = np.zeros((len(paths), 4, 5, SIZE, SIZE), np.float16)
    label = np.zeros((len(paths), 5, SIZE, SIZE), np.uint8)
    lesion = np.zeros((len(paths), 5, SIZE, SIZE), bool)
    pixel_mm = np.zeros(len(paths))
    with ProcessPoolExecutor(min(8, os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
        for i, one in enumerate(pool.map(_read_one, paths, chunksize=4)):
            images[i], label[i], lesion[i], pixel_mm[i] = one
    return Samples(torch.from_numpy(images), torch.from_numpy(label), torch.from_numpy(lesion), pixel_mm)


def _uniform(shape, low, high, rng):
    return low + (high - low) * torch.rand(shape, generator=rng, device=rng.device)


def _with(p, shape, rng):
    return torch.rand(shape, generator=rng, device=rng.device) < p


def _grid(h, w, device):
    y = torch.linspace(-1, 1, h, device=device)[:, None]
    x = torch.linspace(-1, 1, w, device=device)[None, :]
    return y, x


def smooth_field(b, h, w, waves, rng):
    """[b, 1, h, w], about N(0, 1), changes over 1/waves of the field of view."""
    low = torch.randn(b, 1, waves + 2, waves + 2, generator=rng, device=rng.device)
    return F.interpolate(low, size=(h, w), mode="bicubic", align_corners=True)


def gfactors(b, h, w, rng, coils=False):
    """[b, 1, h, w] >= 1: none, smooth bumps to 3.5, or bands of R = 2-4. `coils`: bands along both axes and bumps to 4.5."""
    y, x = _grid(h, w, rng.device)
    shape = (b, 1, 1, 1)
    top = 3.5 if coils else 2.5
    field = smooth_field(b, h, w, 5 if coils else 3, rng)
    bumps = torch.sigmoid(2.0 * field - 1.0) * _uniform(shape, 0.3, top, rng)
    turns = torch.floor(_uniform(shape, 2, 5, rng))
    along = torch.where(_with(0.5, shape, rng), y.expand(1, 1, h, w), x.expand(1, 1, h, w))
    wave = torch.cos(math.pi * 0.5 * turns * (along + _uniform(shape, -0.3, 0.3, rng))).abs()
    if coils:
        wave = wave * torch.cos(math.pi * 0.5 * turns * (x + y) / 1.4).abs()
    bands = wave ** _uniform(shape, 1.0, 6.0, rng) * _uniform(shape, 0.2, 1.8, rng) * (1 + 0.3 * field).clamp_min(0.2)
    kind = torch.rand(shape, generator=rng, device=rng.device)
    if coils:
        kind = 0.5 + 0.5 * kind
    g = 1 + torch.where(kind < 0.2, 0.0, torch.where(kind < 0.55, bumps, bands + (kind > 0.85) * bumps))
    return g.clamp(1.0, 4.5 if coils else 3.5)


def tissues(x, label, fraction, rng):
    """Every label of every image brighter or darker by up to `fraction`. x, label [b, s, h, w]."""
    scale = _uniform((x.shape[0], 256), 1 - fraction, 1 + fraction, rng)
    return x * scale.gather(1, label.flatten(1).long()).view_as(x)


def implants(b, h, w, contrast, rng, n=12):
    """[b, 1, h, w]: small bright and dark things of a few times `contrast` [b, 1, h, w], the local noise: what must not be smoothed
    away. Half of them are ellipses and streaks of any size, half round and two to five pixels wide, at 1.5 to 6 times the noise."""
    y = torch.arange(h, device=rng.device).view(1, 1, h, 1)
    x = torch.arange(w, device=rng.device).view(1, 1, 1, w)
    shape = (b, n, 1, 1)
    dy, dx = y - _uniform(shape, 0, h, rng), x - _uniform(shape, 0, w, rng)
    angle = _uniform(shape, 0, math.pi, rng)
    u, v = dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()
    is_round = _with(0.5, shape, rng)
    minor = torch.where(is_round, _uniform(shape, 1.0, 2.5, rng), _uniform(shape, 0.8, 3.5, rng))
    major = minor * torch.where(_with(0.8, shape, rng) & ~is_round, _uniform(shape, 1, 7, rng), 1.0)
    r = torch.sqrt((u / major) ** 2 + (v / minor) ** 2)
    inside = ((1 - r) * minor + 0.5).clamp(0, 1)
    sign = torch.where(_with(0.5, shape, rng), 1.0, -1.0)
    height = torch.where(is_round, _uniform(shape, 1.5, 6, rng), _uniform(shape, 1, 8, rng))
    return (inside * sign * height).sum(1, keepdim=True) * contrast


def phases(b, h, w, rng, waves=2):
    return (torch.rand(b, 1, 1, 1, generator=rng, device=rng.device) * 2 * math.pi
            + smooth_field(b, h, w, waves, rng) * _uniform((b, 1, 1, 1), 0.1, 1.5, rng))


def kspace_filters(b, h, w, rng, mild=False):
    """(decay, support) [b, 1, h, w], centred: echo-train decay along the rows' axis, and what was measured of k-space."""
    ky = torch.linspace(-1, 1, h, device=rng.device).view(1, 1, h, 1)
    kx = torch.linspace(-1, 1, w, device=rng.device).view(1, 1, 1, w)
    shape = (b, 1, 1, 1)
    rate = _uniform(shape, 0.0, 0.4 if mild else 1.2, rng)
    linear = _with(0.4, shape, rng)  # decays from one edge to the other, or from the centre outwards
    decay = torch.exp(-rate * torch.where(linear, ky, ky.abs()) + 0 * kx)
    if mild:
        return decay, torch.ones_like(decay)
    cut = lambda: torch.where(_with(0.5, shape, rng), 1.01, _uniform(shape, 0.6, 1.0, rng))
    ry, rx = cut(), cut()
    return decay, ((ky.abs() <= ry) & (kx.abs() <= rx)).float()


def fft2(x):
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x, dim=(-2, -1)), norm="ortho"), dim=(-2, -1))


def ifft2(x):
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(x, dim=(-2, -1)), norm="ortho"), dim=(-2, -1))


def white(shape, rng):
    """Complex, standard deviation 1 in the real and 1 in the imaginary part."""
    return torch.complex(torch.randn(shape, generator=rng, device=rng.device), torch.randn(shape, generator=rng, device=rng.device))


def channels(z):
    """complex [n, s, h, w] -> f32 [n, 2 s, h, w]: real, imaginary of each slice."""
    return torch.view_as_real(z).permute(0, 1, 4, 2, 3).flatten(1, 2).contiguous()


def foreground_mean(x, body):
    return ((x * body).sum((-2, -1)) / body.sum((-2, -1)).clamp_min(1)).clamp_min(1e-3)


def batch(samples, b, rng, snr=(2.0, 60.0), crop=None):
    """One training batch in units of noise: (noisy [b, 6, h, w], truth [b, 2, h, w], weight [b, 1, h, w])."""
    dev = rng.device
    pick = lambda n: torch.randint(n, (b,), generator=rng, device=dev)
    n = samples.images.shape[0]
    i, c, z = pick(n), pick(4), pick(5)
    step = torch.where(_with(0.1, (b,), rng), 2, 1)  # a gap between the slices
    step = torch.where(_with(0.1, (b,), rng), 0, step)  # one slice only
    zs = torch.stack([(z - step).clamp_min(0), z, (z + step).clamp_max(4)], 1)
    x = samples.images[i[:, None], c[:, None], zs].float()
    label = samples.label[i[:, None], zs]
    other = samples.images[i[:, None], pick(4)[:, None], zs].float()
    mix = torch.where(_with(0.3, (b, 1, 1, 1), rng), _uniform((b, 1, 1, 1), 0, 1, rng), 1.0)
    x = (mix * x + (1 - mix) * other).abs()
    x = tissues(x, label, 0.1, rng)
    h, w = x.shape[-2:]
    # Zoom, turn and shift: half of the batches, all three slices together.
    body = (label > 0).float()
    if torch.rand((), generator=rng, device=dev) < 0.5:
        angle, zoom = _uniform((b,), -0.3, 0.3, rng), _uniform((b,), 0.6, 1.25, rng)
        theta = torch.zeros(b, 2, 3, device=dev)
        theta[:, 0, 0], theta[:, 0, 1] = zoom * angle.cos(), -zoom * angle.sin()
        theta[:, 1, 0], theta[:, 1, 1] = zoom * angle.sin(), zoom * angle.cos()
        theta[:, :, 2] = _uniform((b, 2), -0.2, 0.2, rng)
        grid = F.affine_grid(theta, (b, 3, h, w), align_corners=False)
        x = F.grid_sample(x, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp_min(0)
        body = (F.grid_sample(body, grid, align_corners=False, padding_mode="border") > 0.5).float()
    level = torch.exp(_uniform((b,), math.log(snr[0]), math.log(snr[1]), rng))
    noise = foreground_mean(x[:, 1], body[:, 1]) / level
    # Texture that the simulator lacks, shading, and small things.
    t = F.interpolate(torch.randn(b, 3, h // 2, w // 2, generator=rng, device=dev), size=(h, w), mode="bilinear") + smooth_field(b, h, w, 24, rng)
    x = x * (1 + t * torch.where(_with(0.5, (b, 1, 1, 1), rng), _uniform((b, 1, 1, 1), 0, 0.08, rng), 0.0))
    x = x * torch.exp(_uniform((b, 1, 1, 1), 0, 0.5, rng) * smooth_field(b, h, w, 2, rng))
    g = gfactors(b, h, w, rng)
    local = noise.view(b, 1, 1, 1) * torch.where(_with(0.7, (b, 1, 1, 1), rng), g, torch.ones_like(g))
    things = implants(b, h, w, local, rng) * body[:, 1:2]
    seen = (things.abs() / local).clamp_max(1.0)
    shared = torch.where(_with(0.5, (b, 1), rng), 1.0, 0.0)  # in the neighbours too, or not
    x = (x + things * torch.stack([shared, torch.ones_like(shared), shared], 1).view(b, 3, 1, 1)).clamp_min(0)
    if torch.rand((), generator=rng, device=dev) < 0.5:
        x, body, g, seen = (t.transpose(-2, -1) for t in (x, body, g, seen))
    flips = [d for d in (-2, -1) if torch.rand((), generator=rng, device=dev) < 0.5]
    if flips:
        x, body, g, seen = (t.flip(flips) for t in (x, body, g, seen))
    phase = phases(b, h, w, rng)
    decay, support = kspace_filters(b, h, w, rng)
    decay = torch.where(_with(0.75, (b, 1, 1, 1), rng), decay, torch.ones_like(decay))
    support = torch.where(_with(0.5, (b, 1, 1, 1), rng), support, torch.ones_like(support))
    truth = ifft2(fft2(x * torch.exp(1j * phase)) * (decay * support))
    n = white((b, 3, h, w), rng)
    # A quarter: noise interpolated with the image; its standard deviation stays 1.
    coloured = torch.where(_with(0.25, (b, 1, 1, 1), rng), support, torch.ones_like(support))
    n = ifft2(fft2(n) * coloured) / coloured.mean((-2, -1), keepdim=True).sqrt()
    # A repeated slice is the same measurement.
    same = (zs == zs[:, 1:2]).view(b, 3, 1, 1)
    n = torch.where(same, n[:, 1:2], n)
    truth = torch.where(same, truth[:, 1:2], truth)
    truth = truth / (noise.view(b, 1, 1, 1) * g)
    noisy, middle, weight = channels(truth + n), channels(truth[:, 1:2]), 0.25 + 0.75 * body[:, 1:2]
    weight = weight * (1 + LESION_WEIGHT * seen)
    if crop:
        y0, x0 = (int(torch.randint(s - crop + 1, (), generator=rng, device=dev)) for s in (h, w))
        noisy, middle, weight = (t[..., y0 : y0 + crop, x0 : x0 + crop] for t in (noisy, middle, weight))
    return noisy, middle, weight


@dataclass
class Case:
    """One test image: truth complex [1, 3, h, w], g [1, 1, h, w], body bool [h, w], lesion bool [h, w], mean signal in the body."""

    name: str
    truth: torch.Tensor
    g: torch.Tensor
    body: torch.Tensor
    lesion: torch.Tensor
    mean: float
    pixel_mm: float

    def noisy(self, snr, n, rng):
        """n draws: complex [n, 3, h, w], and the noise's standard deviation (per part, g = 1)."""
        noise = self.mean / snr
        return self.truth + white((n, *self.truth.shape[1:]), rng) * (noise * self.g), noise


def cases(samples, name, device, per_sample=4):
    """The middle slices of a family with one fixed draw of phase, g-factor and mild echo-train decay each; no truncation."""
    family = FAMILIES[name]
    out = []
    rng = torch.Generator(device=device).manual_seed(family.seed)
    names = ["T1w", "T2w", "STIR", "T2FS"]
    for i in range(samples.images.shape[0]):
        for c in range(per_sample):
            x = samples.images[i : i + 1, c, 1:4].float().to(device)
            label = samples.label[i : i + 1, 1:4].to(device)
            if family.tissue:
                x = tissues(x, label, family.tissue, rng)
            h, w = x.shape[-2:]
            decay, _ = kspace_filters(1, h, w, rng, mild=True)
            truth = ifft2(fft2(x * torch.exp(1j * phases(1, h, w, rng, waves=4 if family.coils else 2))) * decay)
            body = label[0, 1] > 0
            out.append(Case(f"{name} {i} {names[c]}", truth, gfactors(1, h, w, rng, family.coils), body,
                            samples.lesion[i, 2].to(device), float(foreground_mean(truth[0, 1].abs(), body.float())),
                            float(samples.pixel_mm[i])))
    return out
