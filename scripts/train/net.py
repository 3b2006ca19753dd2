"""Networks: the denoiser, and a DnCNN of the same size to compare with.

Both see unit noise. The image is divided by `noise * gfactor` first and multiplied by it at the end, so that
`f(a x, g, a noise) = a f(x, g, noise)` holds exactly for every a > 0, and a level of noise is an amount of signal.
"""

import torch
from torch import nn

SLICES = 3
MULTIPLE = 8


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a = nn.Conv2d(width, width, 3, padding=1)
        self.b = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.b.weight.mul_(0.2)

    def forward(self, x):
        return x + self.b(torch.relu(self.a(x)))


def blocks(width, n):
    return nn.Sequential(*[Block(width) for _ in range(n)])


class UNet(nn.Module):
    """Four resolutions; what is three pixels wide is decided at the first two. In: [n, 6, h, w] in units of noise; out: noise
    to take away [n, 2, h, w] and the logarithm of the error that remains [n, 1, h, w]."""

    def __init__(self, widths=(32, 56, 80, 96), depths=(1, 3, 2, 2)):
        super().__init__()
        w0, w1, w2, w3 = widths
        d0, d1, d2, d3 = depths
        self.stem, self.enc0 = nn.Conv2d(2 * SLICES, w0, 3, padding=1), blocks(w0, d0)
        self.down1, self.enc1 = nn.Conv2d(w0, w1, 2, 2), blocks(w1, d1)
        self.down2, self.enc2 = nn.Conv2d(w1, w2, 2, 2), blocks(w2, d2)
        self.down3, self.mid = nn.Conv2d(w2, w3, 2, 2), blocks(w3, d3)
        self.up3, self.dec2 = nn.ConvTranspose2d(w3, w2, 2, 2), blocks(w2, d2)
        self.up2, self.dec1 = nn.ConvTranspose2d(w2, w1, 2, 2), blocks(w1, d1)
        self.up1, self.dec0 = nn.ConvTranspose2d(w1, w0, 2, 2), blocks(w0, d0 + 1)
        self.head = nn.Conv2d(w0, 3, 3, padding=1)
        # Starts as the identity: nothing taken away, sigma that of the noise.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        s = self.enc0(self.stem(x))
        a = self.enc1(self.down1(s))
        b = self.enc2(self.down2(a))
        c = self.mid(self.down3(b))
        b = self.dec2(b + self.up3(c))
        a = self.dec1(a + self.up2(b))
        y = self.head(self.dec0(s + self.up1(a)))
        return y[:, :2], y[:, 2:]


class DnCNN(nn.Module):
    """Zhang 2017: convolution, batch normalisation, ReLU at full resolution, residual learning; the same in- and outputs."""

    def __init__(self, width=88, depth=19):
        super().__init__()
        layers = [nn.Conv2d(2 * SLICES, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Conv2d(width, 3, 3, padding=1))
        for m in self.body:
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
        nn.init.zeros_(self.body[-1].weight)
        nn.init.zeros_(self.body[-1].bias)

    def forward(self, x):
        y = self.body(x)
        return y[:, :2], y[:, 2:]


class Denoiser(nn.Module):
    """The contract around a network: see README.md. `core` works in units of noise, `forward` in those of the image."""

    INPUT_SCALE = 0.125

    def __init__(self, net):
        super().__init__()
        self.net = net
        # Set once, on the validation family, so that 1.645 sigma covers 90 % there.
        self.register_buffer("sigma_scale", torch.ones(1))

    def core(self, x):
        """x [n, 6, h, w] in units of noise -> (image [n, 2, h, w], logarithm of sigma [n, 1, h, w]), the same units."""
        noise, log_sigma = self.net(x * self.INPUT_SCALE)
        middle = 2 * (SLICES // 2)
        return x[:, middle : middle + 2] - noise.float(), log_sigma.float().clamp(-5.0, 2.0)

    def forward(self, image, gfactor, noise):
        unit = (noise.reshape(-1, 1, 1, 1) * gfactor).clamp_min(1e-20)
        denoised, log_sigma = self.core(image / unit)
        return denoised * unit, torch.exp(log_sigma) * self.sigma_scale * unit


def n_parameters(model):
    return sum(p.numel() for p in model.parameters())
