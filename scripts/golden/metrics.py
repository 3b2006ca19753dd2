"""Golden values of src/metrics/quality.rs, by scikit-image and SciPy. Prints the constants of its tests.

Run: /opt/peers/bin/python scripts/golden/metrics.py
"""
import numpy as np
import scipy.ndimage as ndi
import skimage
from skimage.metrics import structural_similarity, peak_signal_noise_ratio

NY, NX = 23, 31

def lcg(seed, n):
    out, s = [], seed
    for _ in range(n):
        s = (s * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append((s >> 40) / 2**24)
    return np.array(out)

y, x = np.mgrid[0:NY, 0:NX]
ref = (100 + 50 * ((x // 5 + y // 4) % 2) + x).astype(np.float64)
test = (ref + 20 * (lcg(1, NY * NX).reshape(NY, NX) - 0.5)) * 0.25
ref, test = np.float32(ref).astype(float), np.float32(test).astype(float)

s = (test * ref).sum() / (test * test).sum()
fit = s * test
print("versions", skimage.__version__, np.__version__)
print("scale", s)
print("nrmse", np.linalg.norm(ref - fit) / np.linalg.norm(ref))
print("psnr", peak_signal_noise_ratio(ref, fit, data_range=ref.max()))
print("ssim", structural_similarity(ref, fit, data_range=ref.max()))
h = 7
gy, gx = np.mgrid[-h:h + 1, -h:h + 1]
r2, s2 = gx**2 + gy**2, 1.5**2
g = np.exp(-r2 / (2 * s2)); g /= g.sum()
taps = g * (r2 - 2 * s2) / s2**2
taps -= taps.mean()
f = lambda v: ndi.convolve(v, taps, mode="constant")
print("hfen", np.linalg.norm(f(ref) - f(fit)) / np.linalg.norm(f(ref)))
