"""Networks of synthesis: STIR and T2FS by maps and a signal model, CT directly, and a plain U-Net to compare with."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from net import Block, blocks, n_parameters  # noqa: F401

MULTIPLE = 16
SLICES = 3
# Middle and spread of each entry of `sequence`: what the network sees is (x - middle) / spread.
MIDDLE = (2.25, 600, 10.5, 4, 10.5, 3800, 103, 19, 10.2, 4250, 56, 190, 9.5, 3800, 80, 0.1)
SPREAD = (0.75, 90, 1.5, 2, 1.5, 420, 7, 4, 0.7, 430, 5, 35, 0.9, 430, 4.5, 0.1)
# The samples have one echo train length per series and one residual of fat: the signal model gets them, the network must not,
# for whatever it made of another value would be chance.
CONSTANT = (3, 7, 15)
T1_RANGE, T2_RANGE = (100.0, 5000.0), (3.0, 2500.0)


class Trunk(nn.Module):
    """Most work at a half and a quarter of the resolution; the condition scales and shifts the features of each level."""

    def __init__(self, inputs, outputs, condition, widths, depths):
        super().__init__()
        w0, w1, w2, w3 = widths
        self.stem = nn.Conv2d(inputs, w0, 3, padding=1)
        self.down1, self.enc1 = nn.Conv2d(w0, w1, 2, 2), blocks(w1, depths[0])
        self.down2, self.enc2 = nn.Conv2d(w1, w2, 2, 2), blocks(w2, depths[1])
        self.down3, self.mid = nn.Conv2d(w2, w3, 2, 2), blocks(w3, depths[2])
        self.up3, self.dec2 = nn.ConvTranspose2d(w3, w2, 2, 2), blocks(w2, depths[1])
        self.up2, self.dec1 = nn.ConvTranspose2d(w2, w1, 2, 2), blocks(w1, depths[0])
        self.up1 = nn.ConvTranspose2d(w1, w0, 2, 2)
        self.last = Block(w0)
        self.head = nn.Conv2d(w0, outputs, 3, padding=1)
        self.widths = (w0, w1, w2, w3, w2, w1)
        self.condition = nn.Sequential(nn.Linear(condition, 64), nn.ReLU(), nn.Linear(64, 2 * sum(self.widths)))
        for layer in (self.condition[2], self.head):
            with torch.no_grad():
                layer.weight.mul_(0.1)
                layer.bias.zero_()

    def forward(self, x, condition):
        parts = self.condition(condition).split([2 * w for w in self.widths], 1)

        def film(y, k):
            scale, shift = parts[k][:, :, None, None].chunk(2, 1)
            return y * (1 + scale) + shift

        s = torch.relu(film(self.stem(x), 0))
        a = self.enc1(film(self.down1(s), 1))
        b = self.enc2(film(self.down2(a), 2))
        c = self.mid(film(self.down3(b), 3))
        b = self.dec2(film(b + self.up3(c), 4))
        a = self.dec1(film(a + self.up2(b), 5))
        return self.head(torch.relu(self.last(s + self.up1(a)))), c.mean((2, 3))


class Domain(nn.Module):
    """Squared Mahalanobis distance of features from training's, over its 99th percentile on the validation family."""

    def __init__(self, width):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("whiten", torch.eye(width))
        self.register_buffer("unit", torch.ones(1))

    def forward(self, features):
        return ((features - self.mean) @ self.whiten).square().sum(1) / self.unit

    @torch.no_grad()
    def fit(self, training, validation):
        f = training.double().cpu()
        self.mean.copy_(f.mean(0))
        centred = f - f.mean(0)
        # Few samples for as many features: half the smallest directions are the noise of the estimate.
        value, vector = torch.linalg.eigh(centred.T @ centred / max(len(f) - 1, 1))
        value = value.clamp_min(0) + 1e-3 * value.mean() + 1e-12
        self.whiten.copy_(vector / value.sqrt())
        self.unit.fill_(1.0)
        self.unit.fill_(max(float(torch.quantile(self(validation.to(self.mean)), 0.99)), 1e-6))


def moments(t1w, t2w):
    """[n, 5]: how the two images go together, free of their gains: what a swap or a copy changes first."""
    a, b = t1w[:, 1], t2w[:, 1]
    mean = lambda x: x.mean((1, 2))
    ra, rb = (mean(a * a) + 1e-6).sqrt(), (mean(b * b) + 1e-6).sqrt()
    return torch.stack([mean(a) / ra, mean(b) / rb, mean(a * b) / (ra * rb), mean(a * a * b) / (ra * ra * rb), mean(a * b * b) / (ra * rb * rb)], 1)


class SignalModel(nn.Module):
    """Signals of water and one fat pool in the four series: saturation recovery after a train that leaves nothing, inversion
    recovery, mono-exponential decay to the effective TE. What this lacks (stimulated echoes, the flip angle that nobody
    tells) is one factor of signal and one of TE per series, learned; so are T1 and T2 of fat at 1.5 and 3 T."""

    def __init__(self):
        super().__init__()
        self.log_fat_t1 = nn.Parameter(torch.tensor([260.0, 350.0]).log())
        self.log_fat_t2 = nn.Parameter(torch.tensor([110.0, 110.0]).log())
        self.log_gain = nn.Parameter(torch.tensor([-0.1, 0.0, -0.05, -0.1]))
        self.log_te = nn.Parameter(torch.zeros(4))

    def forward(self, maps, sequence):
        """maps [n, 4, h, w] as in the contract -> T1w, T2w, STIR (signed), T2FS, each [n, 1, h, w]."""
        pd, ff, t1, t2 = maps.split(1, 1)
        q = [v[:, :, None, None] for v in sequence.split(1, 1)]
        three = ((q[0] - 1.5) / 1.5).clamp(0, 1)
        between = lambda p: torch.exp(p[0] * (1 - three) + p[1] * three)
        fat_t1, fat_t2 = between(self.log_fat_t1), between(self.log_fat_t2)
        gain, late = torch.exp(self.log_gain), torch.exp(self.log_te)
        recovery = lambda tr, t: 1 - torch.exp(-tr.clamp_min(1.0) / t)
        decay = lambda te, k, t: torch.exp(-te * late[k] / t) * gain[k]

        def saturation(k, tr, te, train, residual=1.0):
            one = lambda r1, r2: recovery(tr - train, r1) * decay(te, k, r2)
            return pd * ((1 - ff) * one(t1, t2) + ff * residual * one(fat_t1, fat_t2))

        def inversion(k, tr, te, ti):
            # The train is about 2 TE long: k-space is filled in order.
            one = lambda r1, r2: (1 - (1 + recovery(tr - ti - 2 * te, r1)) * torch.exp(-ti / r1)) * decay(te, k, r2)
            return pd * ((1 - ff) * one(t1, t2) + ff * one(fat_t1, fat_t2))

        return (saturation(0, q[1], q[2], q[3] * q[4]), saturation(1, q[5], q[6], q[7] * q[8]),
                inversion(2, q[9], q[10], q[11]), saturation(3, q[13], q[14], 2 * q[14], q[15]))


def best_factor(given, rendered):
    """The factor of `rendered` that comes nearest to `given`, one per image."""
    return (given * rendered).sum((2, 3), keepdim=True) / rendered.square().sum((2, 3), keepdim=True).clamp_min(1e-6)


class SynthFS(nn.Module):
    def __init__(self, widths=(16, 48, 96, 192), depths=(2, 2, 3)):
        super().__init__()
        # 4 maps, 2 residuals, 2 logarithms of sigma.
        self.net = Trunk(2 * SLICES, 8, 18, widths, depths)
        self.signal = SignalModel()
        self.domain = Domain(widths[3] + 5)
        self.register_buffer("sigma_scale", torch.ones(2))
        self.register_buffer("middle", torch.tensor(MIDDLE, dtype=torch.float32))
        self.register_buffer("spread", torch.tensor(SPREAD, dtype=torch.float32))
        self.register_buffer("varies", torch.tensor([float(k not in CONSTANT) for k in range(16)]))

    def condition(self, noise, sequence):
        # Far from what was seen the network extrapolates little; the signal model goes on as physics says.
        x = ((sequence - self.middle) / self.spread).clamp(-3, 3) * self.varies
        if self.training:
            # Times go together in the samples and need not elsewhere: nothing may hang on one of them to the last digit.
            x = x + 0.2 * torch.randn_like(x)
        return torch.cat([x, 20 * noise], 1)

    def core(self, t1w, t2w, noise, sequence):
        """(stir, t2fs) [n, 2, h, w], log sigma [n, 2, h, w], maps [n, 4, h, w], rendered T1w and T2w, features."""
        y, features = self.net(torch.cat([t1w, t2w], 1), self.condition(noise, sequence))
        y = y.float()
        with torch.autocast(y.device.type, enabled=False):
            maps = torch.cat([F.softplus(y[:, 0:1] + 0.5), torch.sigmoid(y[:, 1:2] - 1.0),
                              800.0 * torch.exp((2 * y[:, 2:3]).clamp(math.log(T1_RANGE[0] / 800), math.log(T1_RANGE[1] / 800))),
                              50.0 * torch.exp((2 * y[:, 3:4]).clamp(math.log(T2_RANGE[0] / 50), math.log(T2_RANGE[1] / 50)))], 1)
            r1, r2, stir, t2fs = self.signal(maps, sequence.float())
            image = torch.cat([(stir.square() + 1e-6).sqrt(), t2fs], 1) + y[:, 4:6]
            return image, y[:, 6:8].clamp(-3.5, 1.0) - 2.0, maps, torch.cat([r1, r2], 1), torch.cat([features.float(), moments(t1w, t2w)], 1)

    def forward(self, t1w, t2w, noise, sequence):
        image, log_sigma, maps, rendered, features = self.core(t1w, t2w, noise, sequence)
        image = image.clamp_min(0)
        sigma = torch.exp(log_sigma) * self.sigma_scale.view(1, 2, 1, 1)
        given = torch.cat([t1w[:, 1:2], t2w[:, 1:2]], 1)
        mismatch = (best_factor(given, rendered) * rendered - given).abs()
        return image[:, 0:1], sigma[:, 0:1], image[:, 1:2], sigma[:, 1:2], maps, mismatch, self.domain(features)


class PlainFS(nn.Module):
    """The same U-Net without sequences and without physics."""

    def __init__(self, widths=(16, 48, 96, 192), depths=(2, 2, 3)):
        super().__init__()
        self.net = Trunk(2 * SLICES, 4, 2, widths, depths)

    def core(self, t1w, t2w, noise, sequence):
        y, features = self.net(torch.cat([t1w, t2w], 1), 20 * noise)
        y = y.float()
        return y[:, :2], y[:, 2:4].clamp(-3.5, 1.0) - 2.0, None, None, features.float()


class SynthCT(nn.Module):
    def __init__(self, widths=(16, 48, 80, 160), depths=(2, 2, 3)):
        super().__init__()
        self.net = Trunk(2 * SLICES, 3, 6, widths, depths)
        self.domain, self.domain_alone = Domain(widths[3] + 5), Domain(widths[3] + 5)  # with T2w, without
        self.register_buffer("sigma_scale", torch.ones(1))

    def core(self, t1w, t2w, noise, geometry):
        """kHU, logarithm of sigma in kHU, logit of bone, each [n, 1, h, w]; features."""
        g = geometry * geometry.new_tensor([1.0, 1.0, 0.25, 0.5]) - geometry.new_tensor([0.5, 1.0, 1.0, 1.0])
        y, features = self.net(torch.cat([t1w, t2w], 1), torch.cat([g.clamp(-3, 3), 20 * noise], 1))
        y = y.float()
        return 4 * y[:, 0:1] - 0.1, y[:, 1:2].clamp(-2.5, 2.5) - 2.5, 4 * y[:, 2:3] - 1.0, torch.cat([features.float(), moments(t1w, t2w)], 1)

    def forward(self, t1w, t2w, noise, geometry):
        khu, log_sigma, bone, features = self.core(t1w, t2w, noise, geometry)
        domain = torch.where(geometry[:, 0] > 0.5, self.domain(features), self.domain_alone(features))
        return (1000 * khu).clamp(-1050, 2000), 1000 * torch.exp(log_sigma) * self.sigma_scale, torch.sigmoid(bone), domain


TINY = {"widths": (8, 24, 48, 64), "depths": (1, 1, 1)}
