"""Converged Tikhonov SENSE in double precision: the solution that every contender's iterations aim at."""
import numpy as np
import peers as P


def solve(u, s, mask, lam, iters=600, tol=1e-9):
    """(A^H A + lam) x = A^H y; u [coil, y, x], maps s [coil, y, x], mask [y, x]; returns complex64 [y, x]."""
    s = s.astype(np.complex128)
    A = lambda x: (s.conj() * P.ifftc(mask * P.fftc(s * x, (1, 2)), (1, 2))).sum(0) + lam * x
    b = (s.conj() * P.ifftc(u.astype(np.complex128), (1, 2))).sum(0)
    x = np.zeros_like(b); r = b.copy(); p = r.copy(); rs = np.vdot(r, r).real; r0 = rs
    for _ in range(iters):
        q = A(p); a = rs / np.vdot(p, q).real; x += a * p; r -= a * q
        n = np.vdot(r, r).real
        if n < tol * tol * r0: break
        p = r + n / rs * p; rs = n
    return x.astype(np.complex64)
