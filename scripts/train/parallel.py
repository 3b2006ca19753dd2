"""Parallel imaging in torch, as the engine does it: coils, ESPIRiT maps, SENSE, its noise, and the image between lines and a prior.

Independent of the engine's code, with its conventions: unitary transforms, whitened lines (standard deviation 1 in the real and in the
imaginary part), phase encoding along the rows' axis. Images are complex [b, h, w], maps [b, c, h, w], masks f32 [b, 1, h, 1].
"""

import math

import torch
import torch.nn.functional as F

from data import _uniform, _with, fft2, ifft2, white

# As `recon.unrolled` of the engine.
START_LAMBDA = 3e-3
STILL_NOISE = 0.7


def coils(b, c, h, w, rng, shifted=False):
    """Receive sensitivities of loops: a row behind the patient, or a ring. `shifted`: smaller loops nearer, a ring only."""
    dev = rng.device
    y = torch.linspace(-1, 1, h, device=dev).view(1, 1, h, 1)
    x = torch.linspace(-1, 1, w, device=dev).view(1, 1, 1, w)
    i = torch.arange(c, device=dev).view(1, c, 1, 1)
    shape = (b, c, 1, 1)
    turn = 2 * math.pi * (i + _uniform(shape, -0.2, 0.2, rng)) / c + _uniform((b, 1, 1, 1), 0, 2 * math.pi, rng)
    away = _uniform((b, 1, 1, 1), 1.0, 1.25, rng) if shifted else _uniform((b, 1, 1, 1), 1.1, 1.6, rng)
    ring_y, ring_x = away * turn.sin(), away * turn.cos()
    rows = c // 2
    row_y = 2 * ((i % rows) + 0.5) / rows - 1 + _uniform(shape, -0.05, 0.05, rng)
    row_x = torch.where(i < rows, 1.0, 1.4) + _uniform((b, 1, 1, 1), -0.1, 0.1, rng)
    ring = _with(1.0 if shifted else 0.5, (b, 1, 1, 1), rng)
    dy, dx = y - torch.where(ring, ring_y, row_y), x - torch.where(ring, ring_x, row_x)
    a = _uniform((b, 1, 1, 1), 0.3, 0.5, rng) if shifted else _uniform((b, 1, 1, 1), 0.4, 0.8, rng)
    size = (dy**2 + dx**2) / a**2
    phase = torch.complex(dx, dy) / torch.sqrt(dx**2 + dy**2 + (0.6 * a) ** 2)
    return phase * torch.exp(1j * _uniform(shape, 0, 2 * math.pi, rng)) / (1 + size) ** 1.25


def mask(b, h, rate, variable, acs, rng):
    """Every `rate`-th line, or as many with the density of a Gaussian; the calibration lines always. [b, 1, h, 1]"""
    k = torch.arange(h, device=rng.device).view(1, h)
    inner = (k - h // 2).abs() <= acs // 2 - 1
    shift = torch.randint(rate, (b, 1), generator=rng, device=rng.device)
    regular = (k - shift) % rate == 0
    density = torch.exp(-0.5 * ((k - h // 2) / (0.22 * h)) ** 2)
    key = torch.rand((b, h), generator=rng, device=rng.device) ** (1 / density.clamp_min(1e-6))
    key = torch.where(inner, torch.zeros_like(key), key)
    n = max(h // rate - acs // 2, 1)
    chosen = key >= key.sort(1, descending=True).values[:, n - 1 : n]
    picked = chosen if variable else regular
    return (picked | inner).float().view(b, 1, h, 1)


def forward(x, maps, m):
    return fft2(x[:, None] * maps) * m


def adjoint(y, maps, m):
    return (ifft2(y * m) * maps.conj()).sum(1)


def dot(a, b):
    return (a.conj() * b).real.sum((-2, -1), keepdim=True)


def cg(apply, b, n):
    """n conjugate gradient iterations on apply(x) = b, from zero; every image of the batch by itself."""
    x, r = torch.zeros_like(b), b
    p, rr = r, dot(r, r)
    for _ in range(n):
        ap = apply(p)
        step = rr / dot(p, ap).clamp_min(1e-20)
        x, r = x + step * p, r - step * ap
        new = dot(r, r)
        p, rr = r + new / rr.clamp_min(1e-20) * p, new
    return x


@torch.no_grad()
def sense(y, maps, m, weight=START_LAMBDA, n=60):
    return cg(lambda p: adjoint(forward(p, maps, m), maps, m) + weight * p, adjoint(y, maps, m), n)


@torch.no_grad()
def sense_noise(maps, m, weight=START_LAMBDA, step=4):
    """Standard deviation per part of `sense`, [b, h, w]: the diagonal of the inverse in every `step`-th column, between them
    interpolated. 0 where the maps are."""
    b, c, h, w = maps.shape
    k = torch.arange(h, device=maps.device, dtype=torch.float64)
    power = m.view(b, h).double()
    turn = torch.exp(2j * math.pi / h * (k[:, None] - h // 2) * (k[None, :] - 0.0))
    kernel = (power.to(turn.dtype) @ turn / h).to(torch.complex64)  # [b, lag]
    lag = (torch.arange(h, device=maps.device)[:, None] - torch.arange(h, device=maps.device)[None, :]) % h
    out = []
    columns = torch.arange(0, w, step, device=maps.device)
    for i in range(b):
        s = maps[i, :, :, columns].permute(2, 1, 0)  # [x, y, c]
        a = kernel[i][lag] * (s.conj() @ s.transpose(1, 2))
        nothing = (s.abs().square().sum(-1) < 1e-12).float()
        a = a + torch.diag_embed(weight + nothing)
        lower = torch.linalg.cholesky(a)
        inverse = torch.linalg.solve_triangular(lower, torch.eye(h, device=a.device, dtype=a.dtype).expand_as(a), upper=False)
        out.append(inverse.abs().square().sum(1).sqrt().T * (1 - nothing.T))
    level = F.interpolate(torch.stack(out)[:, None], size=(h, w), mode="bilinear", align_corners=False)[:, 0]
    return level * (maps.abs().square().sum(1) > 1e-12)


@torch.no_grad()
def espirit(y, acs=24, kernel=5, grid=128, crop=0.85):
    """Maps [c, h, w] of unit length from the lines y [c, h, w] of the centre (Uecker 2014); zero where the eigenvalue is below `crop`. The
    signal space is what stands above the largest singular value that noise of standard deviation 1 a part has."""
    c, h, w = y.shape
    block = y[:, h // 2 - acs // 2 + 1 : h // 2 + acs // 2, w // 2 - acs // 2 : w // 2 + acs // 2]
    patches = block.unfold(1, kernel, 1).unfold(2, kernel, 1)
    rows = patches.permute(1, 2, 0, 3, 4).reshape(-1, c * kernel * kernel)
    values, vectors = torch.linalg.eigh(rows.conj().T @ rows)
    n, k = rows.shape
    # Patches overlap: neighbouring rows share their noise, which widens its spectrum.
    floor = 2.0 * 2.0 * (math.sqrt(n) + math.sqrt(k)) ** 2
    kept = vectors[:, values > max(floor, 4e-4 * float(values[-1]))]
    v = kept.T.reshape(-1, c, kernel, kernel)
    padded = torch.zeros(v.shape[0], c, grid, grid, dtype=v.dtype, device=v.device)
    o = grid // 2 - kernel // 2
    padded[:, :, o : o + kernel, o : o + kernel] = v.conj()
    g = ifft2(padded) * grid / kernel
    g = g.permute(2, 3, 1, 0)  # [y, x, c, kernels]
    values, vectors = torch.linalg.eigh(g @ g.conj().transpose(-2, -1))
    first = vectors[..., -1]
    # One phase for all voxels: that of the coils' mean sensitivity.
    mean = (block.flatten(1) @ block.flatten(1).conj().T)
    lead = torch.linalg.eigh(mean).eigenvectors[:, -1]
    along = (first * lead.conj()).sum(-1, keepdim=True)
    first = (first * along.conj() / along.abs().clamp_min(1e-12)).permute(2, 0, 1)


    def up(t):
        """[c, grid, grid] -> [c, h, w]: both are centred at n / 2, and periodic."""
        t = F.pad(t[None], (0, 1, 0, 1), mode="circular")
        return F.interpolate(t, size=(h + 1, w + 1), mode="bilinear", align_corners=True)[0, :, :h, :w]

    maps = torch.complex(up(first.real), up(first.imag))
    maps = maps / maps.abs().square().sum(0, keepdim=True).sqrt().clamp_min(1e-6)
    return maps * (up(values[None, ..., -1]) > crop)


def between(y, maps, m, prior, error, n=10):
    """argmin |E x - y|^2 + |x - prior|^2 / error^2, by x = prior + error u. `error` [b, h, w]; 0: the prior stays."""
    rest = error * adjoint(y - forward(prior, maps, m), maps, m)
    u = cg(lambda p: error * adjoint(forward(error * p, maps, m), maps, m) + p, rest, n)
    return prior + error * u


def cascade(model, x, level, noise, y, maps, m, alone=True):
    """One pass of network and lines: (image of the network, its sigma, image, sigma, level of the next)."""
    # Where there are no maps nothing is known, and the engine's answer is zero.
    known = noise > 0
    unit = torch.where(known, level, torch.ones_like(level))[:, None]
    parts = torch.view_as_real(x).permute(0, 3, 1, 2)
    with torch.autocast("cuda", torch.float16, enabled=x.is_cuda):
        z, log_sigma = model.core((parts / unit).repeat(1, 3, 1, 1))
    z = z.float() * unit * known[:, None]
    z = torch.complex(z[:, 0].contiguous(), z[:, 1].contiguous())
    own = torch.exp(log_sigma.float()[:, 0]) * model.sigma_scale * level * known
    nearer = between(y, maps, m, z, own)
    both = own * noise / torch.sqrt(own**2 + noise**2 + 1e-12)
    return z, own, nearer, both, STILL_NOISE * both


def unrolled(model, y, maps, m, noise, cascades, start=None):
    x = sense(y, maps, m) if start is None else start
    level, steps = noise, []
    for _ in range(cascades):
        z, own, x, both, level = cascade(model, x, level, noise, y, maps, m)
        steps.append((z, own, x, both))
    return steps


_DB4 = (0.2303778133088964, 0.7148465705529154, 0.6308807679298587, -0.0279837694168599, -0.1870348117190931, 0.0308413818355607, 0.0328830116668852, -0.0105974017850690)


def _split(x, axis, inverse=False):
    """One level of the periodic orthogonal transform along an axis of [b, h, w] (complex); the inverse is its adjoint."""
    low = torch.tensor(_DB4, device=x.device)
    high = low.flip(0) * torch.tensor([1.0, -1.0] * 4, device=x.device)
    x = x.transpose(axis, -1)
    n = x.shape[-1]
    at = (2 * torch.arange(n // 2, device=x.device)[:, None] + torch.arange(8, device=x.device)[None, :]) % n
    if not inverse:
        taps = x[..., at]
        y = torch.cat([(taps * low).sum(-1), (taps * high).sum(-1)], -1)
    else:
        a, d = x[..., : n // 2, None] * low, x[..., n // 2 :, None] * high
        y = torch.zeros_like(x).index_add_(-1, at.flatten(), (a + d).flatten(-2))
    return y.transpose(axis, -1)


def wavelet(x, levels=4, inverse=False):
    x = x.clone()
    sizes = [(x.shape[-2] >> k, x.shape[-1] >> k) for k in range(levels)]
    for h, w in reversed(sizes) if inverse else sizes:
        part = x[..., :h, :w]
        part = _split(_split(part, -2, inverse), -1, inverse)
        x[..., :h, :w] = part
    return x


@torch.no_grad()
def l1_wavelet(y, maps, m, weight, rng, n=80):
    """FISTA (Beck 2009) with random shifts of an orthogonal Daubechies-4 transform, from SENSE; `weight` in units of the lines' noise."""
    x = sense(y, maps, m, 1e-2, 20)
    v, t = x, 1.0
    for _ in range(n):
        g = v + adjoint(y - forward(v, maps, m), maps, m)
        shift = [int(torch.randint(16, (), generator=rng, device=rng.device)) for _ in range(2)]
        c = wavelet(torch.roll(g, shift, (-2, -1)))
        c_abs = c.abs()
        small = (c_abs - weight).clamp_min(0) / c_abs.clamp_min(1e-12) * c
        small[..., : c.shape[-2] >> 4, : c.shape[-1] >> 4] = c[..., : c.shape[-2] >> 4, : c.shape[-1] >> 4]
        new = torch.roll(wavelet(small, inverse=True), [-s for s in shift], (-2, -1))
        t_new = 0.5 * (1 + math.sqrt(1 + 4 * t * t))
        v = new + (t - 1) / t_new * (new - x)
        x, t = new, t_new
    return x


def distance(x, y, maps, m):
    """Root mean square distance of the lines from those of the image, per part, in units of their noise. [b]"""
    off = ((forward(x, maps, m) - y) * m).abs().square().sum((-3, -2, -1))
    return (off / (2 * maps.shape[1] * m.sum((-3, -2, -1)) * x.shape[-1])).sqrt()


def lines(truth, sensitivities, m, rng):
    """Whitened lines of an image, with noise; and all lines without it."""
    clean = fft2(truth[:, None] * sensitivities)
    return (clean + white(clean.shape, rng)) * m, clean
