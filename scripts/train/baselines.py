"""What the network is held against: NLM of scikit-image, and a BM3D-like filter. Both are told the noise exactly.

Inputs are complex images [h, w] in units of noise (divided by `noise * gfactor`), one slice; outputs the same.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F


def nlm(z, strength):
    """scikit-image's non-local means on real and imaginary part together; `strength` is h, in units of noise."""
    from skimage.restoration import denoise_nl_means

    x = np.stack([z.real, z.imag], -1).astype(np.float32)
    y = denoise_nl_means(x, patch_size=5, patch_distance=7, h=strength, sigma=1.0, fast_mode=True, channel_axis=-1)
    return y[..., 0] + 1j * y[..., 1]


def _dct(n, device):
    k = torch.arange(n, device=device, dtype=torch.float32)
    m = torch.cos(math.pi / n * (k[None, :] + 0.5) * k[:, None]) * math.sqrt(2 / n)
    m[0] /= math.sqrt(2)
    return m


def _hadamard(n, device):
    m = torch.ones(1, 1, device=device)
    while m.shape[0] < n:
        m = torch.cat([torch.cat([m, m], 1), torch.cat([m, -m], 1)], 0)
    return m / math.sqrt(n)


def bm3d_like(z, patch=8, step=3, reach=9, group=16, threshold=2.7):
    """The two stages of Dabov 2007 (hard threshold, then Wiener) on groups of similar patches with a DCT and a
    Hadamard transform; real and imaginary parts are filtered apart, matched together. Groups have a fixed size and no
    distance threshold, windows are flat: hence "BM3D-like"."""
    h, w = z.shape
    dev = z.device
    x = torch.view_as_real(z).permute(2, 0, 1)
    d, had = _dct(patch, dev), _hadamard(group, dev)
    d2 = torch.kron(d, d)
    rows, cols = h - patch + 1, w - patch + 1
    ys = torch.unique(torch.cat([torch.arange(0, rows, step), torch.tensor([rows - 1])])).to(dev)
    xs = torch.unique(torch.cat([torch.arange(0, cols, step), torch.tensor([cols - 1])])).to(dev)
    inside = (torch.arange(patch, device=dev)[:, None] * w + torch.arange(patch, device=dev)).flatten()

    def match(image):
        distances, places = [], []
        padded = F.pad(image, (reach, reach, reach, reach), value=1e4)
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                moved = padded[:, reach + dy : reach + dy + h, reach + dx : reach + dx + w]
                square = ((image - moved) ** 2).sum(0)
                mean = F.avg_pool2d(square[None, None], patch, 1)[0, 0]
                distances.append(mean[ys][:, xs].flatten())
                places.append(((ys[:, None] + dy) * w + xs[None, :] + dx).flatten())
        best = torch.stack(distances, 1).topk(group, dim=1, largest=False).indices
        return torch.stack(places, 1).gather(1, best)

    def spectra(image, index):
        patches = image.flatten(1)[:, index]  # [2, groups, group, patch^2]
        return torch.einsum("gk,cnkp->cngp", had, patches @ d2.T)

    def aggregate(spectrum, index, weight):
        patches = torch.einsum("gk,cnkp->cngp", had.T, spectrum) @ d2
        weight = weight.expand_as(patches)
        total, norm = (torch.zeros(2, h * w, device=dev) for _ in range(2))
        for c in range(2):
            total[c].index_add_(0, index.flatten(), (patches[c] * weight[c]).flatten())
            norm[c].index_add_(0, index.flatten(), weight[c].flatten())
        return (total / norm.clamp_min(1e-12)).view(2, h, w)

    def index_of(image):
        return match(image)[:, :, None] + inside

    index = index_of(x)
    s = spectra(x, index)
    kept = s.abs() > threshold
    basic = aggregate(s * kept, index, 1.0 / kept.sum((2, 3), keepdim=True).clamp_min(1))
    index = index_of(basic)
    pilot = spectra(basic, index) ** 2
    wiener = pilot / (pilot + 1)
    out = aggregate(spectra(x, index) * wiener, index, 1.0 / (wiener**2).sum((2, 3), keepdim=True).clamp_min(1e-3))
    return torch.complex(out[0], out[1])
