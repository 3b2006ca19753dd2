#!/usr/bin/env python3
"""Non-uniform transforms by finufft in double precision at 1e-13: images to samples, and samples to images.

Usage: nufft.py      writes tests/golden/nufft/*.npy

Trajectories are in cycles per field of view, kx, ky(, kz); images [coil, (z,) y, x]; forward with the negative sign, both
directions scaled by one over the root of the number of voxels, which finufft does not do.
"""
import os
import numpy as np
import finufft

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/golden/nufft")
os.makedirs(OUT, exist_ok=True)
rng = np.random.default_rng(20)
noise = lambda *s: (rng.standard_normal(s) + 1j * rng.standard_normal(s)).astype(np.complex64)


def radial(ny, nx):
    """Golden-angle spokes that reach the edge of k-space."""
    angle = np.arange(20)[:, None] * np.pi * (np.sqrt(5) - 1) / 2
    r = (np.arange(40) - 20) / 40
    return np.stack([(r * np.cos(angle)).ravel() * nx, (r * np.sin(angle)).ravel() * ny], 1)


def anywhere(*shape):
    return (rng.random((500, len(shape))) - 0.5) * np.array(shape[::-1])


for name, shape, k in (("2d", (30, 37), radial(30, 37)), ("3d", (9, 12, 10), anywhere(9, 12, 10))):
    k = k.astype(np.float32)
    images, samples = noise(2, *shape), noise(2, len(k))
    # finufft's first coordinate goes with the first axis of the array: z, y, x. Radians per voxel.
    at = [2 * np.pi * k[:, a].astype(np.float64) / n for a, n in zip(reversed(range(k.shape[1])), shape)]
    scale = 1 / np.sqrt(np.prod(shape))
    plan = lambda kind, sign: finufft.Plan(kind, shape, 2, 1e-13, sign, "complex128")
    forward, adjoint = plan(2, -1), plan(1, 1)
    forward.setpts(*at), adjoint.setpts(*at)
    arrays = dict(trajectory=k, images=images, samples=samples, forward=forward.execute(images.astype(np.complex128)) * scale,
                  adjoint=adjoint.execute(samples.astype(np.complex128)) * scale)
    for what, x in arrays.items():
        np.save(os.path.join(OUT, f"{what}_{name}.npy"), x if what == "trajectory" else x.astype(np.complex64))
