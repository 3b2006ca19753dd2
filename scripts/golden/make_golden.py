#!/usr/bin/env python3
"""Golden values: small inputs, and what independent programs make of them. Output: tests/golden/CASE/{case.toml,*.npy}.

Usage: make_golden.py [CASE ...]      needs BART 0.8 on the path and the Python packages of scripts/bench/README.md.

Arrays are row-major, complex64 unless said, k-space [coil, y, x] with DC at n/2. Nothing here reads a line of Cauda.
"""
import datetime, os, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import numpy as np
import scipy.ndimage as nd
import peers as P
import simulate as S

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/golden")
V = P.versions()


def save(case, arrays, thresholds, programs, what):
    d = os.path.join(ROOT, case); os.makedirs(d, exist_ok=True)
    for k, a in arrays.items():
        a = np.ascontiguousarray(a)
        if a.nbytes > 200_000: raise SystemExit(f"{case}/{k}: {a.nbytes} bytes")
        np.save(os.path.join(d, k + ".npy"), a)
    with open(os.path.join(d, "case.toml"), "w") as f:
        f.write(f'what = "{what}"\nscript = "scripts/golden/make_golden.py {case}"\ndate = "{datetime.date.today()}"\n')
        f.write("programs = { " + ", ".join(f'{p} = "{V[p]}"' for p in programs) + " }\n\n[arrays]\n")
        for k, a in arrays.items():
            f.write(f'{k} = "{a.dtype} {list(a.shape)}"\n')
        f.write("\n[thresholds]\n")
        for k, (v, why) in thresholds.items():
            f.write(f"{k} = {v}  # {why}\n")
    print(case, {k: a.shape for k, a in arrays.items()})


def scan(n=48, coils=4, snr=60., seed=1, os_=3):
    """Small noisy scan, whitened: k-space [coil, y, x], truth (root-sum-of-squares), inside mask, true maps."""
    rng = np.random.default_rng(seed)
    obj = S.object_slice(5, .1, n * os_, n * os_); mp = S.loop_maps(coils, [.1], n * os_, n * os_)[:, 0]
    k = np.stack([S.crop(S.crop(P.fftc(obj * m, (0, 1)), 0, n), 1, n) for m in mp])
    im = P.ifftc(k, (1, 2)); t = np.sqrt((abs(im) ** 2).sum(0))
    g = snr / np.median(t[t > .2 * t.max()])
    k = k * g + rng.standard_normal(k.shape) + 1j * rng.standard_normal(k.shape)
    mask = (abs(obj).reshape(n, os_, n, os_) > .02).mean((1, 3)) > .5
    return k.astype(np.complex64), (t * g).astype(np.float32), mask


def fft():
    rng = np.random.default_rng(0)
    out = {}
    for ny, nx in ((6, 8), (7, 9), (5, 12), (1, 13), (11, 1)):
        x = (rng.standard_normal((2, ny, nx)) + 1j * rng.standard_normal((2, ny, nx))).astype(np.complex64)
        out[f"image_{ny}x{nx}"] = x
        out[f"kspace_{ny}x{nx}"] = P.fftc(x.astype(np.complex128), (1, 2)).astype(np.complex64)
    save("fft", out, dict(relative=(2e-6, "f32 rounding")), ["scipy"], "Centred unitary 2D transform, image to k-space, by scipy.fft in double precision")


def whitening():
    rng = np.random.default_rng(3)
    psi = S.covariance(6) * 40.
    L = np.linalg.cholesky(psi / 2)
    noise = (L @ (rng.standard_normal((6, 2048)) + 1j * rng.standard_normal((6, 2048)))).astype(np.complex64)
    b = P.BART
    x = noise[:, None, None, :]
    _, w, cov = b.run("whiten", x, x, outputs=3)
    w = w.reshape(6, 6) if w.size == 36 else w; cov = cov.reshape(6, 6)
    # BART's files are column-major over (coil, coil'); decide row/column by what whitens.
    best = min(((np.linalg.norm((m.conj() if c else m) @ noise @ noise.conj().T @ (m.conj() if c else m).conj().T / 2048 - np.eye(6)), m.conj() if c else m)
                for m in (w, w.T) for c in (0, 1)), key=lambda t: t[0])
    assert best[0] < 1e-2, best[0]
    num = (noise.astype(np.complex128) @ noise.astype(np.complex128).conj().T) / 2048
    cb = cov if np.linalg.norm(cov - num) < np.linalg.norm(cov.T - num) else cov.T
    print("whitening: BART against numpy, covariance", np.linalg.norm(cb - num) / np.linalg.norm(num), "scale", np.linalg.norm(cb) / np.linalg.norm(num))
    ours = np.sqrt(2) * best[1]   # unit variance per complex sample -> per component
    print("   whitening matrix:", np.linalg.norm(ours - np.linalg.inv(np.linalg.cholesky(num / 2))) / np.linalg.norm(ours))
    save("whitening", dict(noise=noise, covariance=cb.astype(np.complex64), whitening=ours.astype(np.complex64)),
         dict(covariance=(6e-4, "relative; BART divides by n - 1, we by n"), whitening=(6e-4, "relative; the same")), ["bart"],
         "bart whiten: noise [coil, sample] -> covariance E[n n^H] and lower-triangular whitening matrix, times sqrt(2): unit noise per component")


def espirit():
    k, t, m = scan()
    b = P.BART
    one, ev1 = b.run("ecalib", "-m1", "-r20", "-k6", "-t0.001", "-c0.8", k[:, None], outputs=2)
    two, ev2 = b.run("ecalib", "-m2", "-r20", "-k6", "-t0.001", "-c0.8", k[:, None], outputs=2)
    n = k.shape[-1]
    save("espirit", dict(kspace=k, maps1=one.reshape(4, n, n), eigen1=ev1.reshape(n, n), maps2=two.reshape(2, 4, n, n), eigen2=ev2.reshape(2, n, n), inside=m),
         dict(maps=(.02, "relative, inside the object, phase of each voxel fitted"), eigen=(.02, "absolute, inside the object"), support=(.02, "fraction of voxels inside whose crop differs")), ["bart"],
         "bart ecalib -m1 and -m2, -r20 -k6 -t0.001 -c0.8, 48x48, 4 coils")


def espirit_rect():
    k, t, m = scan(60, 5, seed=4)
    k = P.fftc(P.ifftc(k, (1, 2))[:, :, 6:-7], (1, 2)).astype(np.complex64); m = m[:, 6:-7]   # 60 x 47, the object still inside
    one, ev = P.BART.run("ecalib", "-m1", "-r16", "-k5", "-t0.001", "-c0.8", k[:, None], outputs=2)
    save("espirit_rect", dict(kspace=k, maps1=one.reshape(k.shape), eigen1=ev.reshape(k.shape[1:]), inside=m),
         dict(maps=(.035, "as espirit; SigPy is 0.025 from BART here"), eigen=(.02, "absolute"), support=(.02, "as espirit")), ["bart"], "bart ecalib -m1 -r16 -k5 on an odd, rectangular 60x47 image, 5 coils")


def espirit_sigpy():
    """SigPy on the k-space of `espirit`. Its threshold is on singular values, BART's and ours on their squares."""
    k, m = (np.load(os.path.join(ROOT, "espirit", f"{a}.npy")) for a in ("kspace", "inside"))
    maps = P.maps_sigpy(k[:, None], 20, thresh=.001 ** .5, kernel_width=6, crop=.8, max_iter=300)[:, 0]
    save("espirit_sigpy", dict(maps_inside=maps[:, m].astype(np.complex64)),
         dict(median=(1e-6, "1 - |<ours, theirs>|, unit maps, median over the voxels inside that both keep"), late=(1e-5, "same, 99th percentile"),
              support=(.02, "fraction of voxels inside whose crop differs")), ["sigpy"],
         "sigpy.mri.app.EspiritCalib, calib_width 20, kernel_width 6, thresh sqrt(0.001), crop 0.8, 300 iterations, on kspace.npy of espirit; [coil, voxel inside]")


def sampling(n, r, acs):
    img, cal = S.regular(n, r, acs)
    return img, cal


def grappa():
    k, t, m = scan(48, 6, seed=2)
    out, th = dict(full=k.astype(np.complex64), truth=t, inside=m), {}
    for r in (2, 3):
        img, cal = sampling(48, r, 20)
        u = (k * (img | cal)[None, :, None]).astype(np.complex64)
        f = P.grappa_mdgrappa(u[:, None], 20, (5, 5), lam=.01)[:, 0].astype(np.complex64)
        out[f"lines_r{r}"] = (img | cal); out[f"filled_r{r}"] = f
        th[f"nrmse_r{r}"] = (round(P.nrmse(P.rss(f[:, None])[0], t, m), 5), "pygrappa's own error against the truth, magnitude inside")
        for kern in ((4, 5), (2, 5)):
            g = P.grappa_mdgrappa(u[:, None], 20, kern, lam=.01)
            th[f"nrmse_r{r}_{kern[0]}x{kern[1]}"] = (round(P.nrmse(P.rss(g)[0], t, m), 5), "same, another kernel")
    save("grappa", out, th, ["pygrappa"], "pygrappa.mdgrappa, kernel 5x5, lamda 0.01, R=2 and 3 with 20 calibration lines, 48x48, 6 coils")


def grappa_3d():
    """R = 2 x 2, plain and sheared (CAIPIRINHA, shift 1). Six coils stand around the plane of both phase-encoding axes."""
    n, nz, coils, sup, acs = 24, 16, 6, 2, 12
    rng = np.random.default_rng(21)
    zs = (np.arange(nz * sup) - nz * sup // 2) / (nz * sup / 2) * .98
    obj = np.stack([S.object_slice(5, z, n * sup, n * sup) * (abs(z) < .9) for z in zs]).transpose(2, 1, 0)   # [pe2, pe1, ro]
    maps = S.loop_maps(coils, zs, n * sup, n * sup).transpose(0, 3, 2, 1)
    k = np.stack([S.crop(S.crop(S.crop(P.fftc(obj * c, (0, 1, 2)), 0, n), 1, n), 2, nz) for c in maps])
    t = P.rss(k); g = 60 / np.median(t[t > .2 * t.max()]); t *= g
    k = k * g + rng.standard_normal(k.shape) + 1j * rng.standard_normal(k.shape)
    m = (abs(obj).reshape(n, sup, n, sup, nz, sup) > .02).mean((1, 3, 5)) > .5
    counts = np.round(np.stack([k.real, k.imag], -1) * 4); assert abs(counts).max() < 32767   # a quarter of the noise's deviation: half the bytes
    k = ((counts[..., 0] + 1j * counts[..., 1]) / 4).astype(np.complex64)
    z, y = np.meshgrid(np.arange(n) - n // 2, np.arange(n) - n // 2, indexing="ij")
    cal = (-acs // 2 <= z) & (z < acs // 2) & (-acs // 2 <= y) & (y < acs // 2)
    masks = {s: cal | (z % 2 == 0) & ((y - s * (z // 2)) % 2 == 0) for s in (0, 1)}
    out, th = dict(inside=m, truth_inside=t[m].astype(np.float32)), dict(counts_per_sigma=(4, "noise deviation of a real or imaginary part"))
    union = masks[0] | masks[1]
    out["counts"] = counts[:, union].astype(np.int16)
    for s, name in ((0, "regular"), (1, "sheared")):
        mk = out[f"lines_{name}"] = masks[s]
        u = (k * mk[None, :, :, None]).astype(np.complex64)
        def note(key, image, why):
            th[f"nrmse_{name}_{key}"] = (round(P.nrmse(image, t, m), 5), why); print("  ", name, key, th[f"nrmse_{name}_{key}"][0], flush=True)
        note("zero_filled", P.rss(u), "nothing filled")
        for kern in ((5, 5, 5), (3, 3, 5), (4, 4, 5)):
            note("pygrappa_" + "x".join(map(str, kern)), P.rss(P.grappa_mdgrappa(u, acs, kern, lam=.01)), "pygrappa.mdgrappa, kernel pe2 x pe1 x ro, lamda 0.01")
        for lam in (.01, .001, .0001):
            note(f"numpy_{lam:g}".replace(".", "_"), P.rss(grappa_2x2(u, P.acs_block(k, acs), s, lam)), f"our second implementation, in numpy, lambda {lam:g}")
        bm = P.BART.run("ecalib", "-m1", f"-r{acs}", "-k5", "-c0.", u)
        for lam in (0., .001, .01):
            note(f"bart_pics_{lam:g}".replace(".", "_"), P.pics_bart(u, bm, lam, 50).reshape(m.shape), f"bart ecalib -m1 -r{acs} -k5 -c0, pics -l2 -r {lam:g} -i 50")
    save("grappa_3d", out, th, ["pygrappa", "bart", "numpy"],
         "2D GRAPPA, R = 2 x 2 regular and sheared by 1, 12 x 12 calibration lines, 24 x 24 x 16 [pe2, pe1, ro], 6 coils; counts: real and imaginary parts of the lines in either mask, [coil, line, ro, 2]; errors against the noise-free root sum of squares")


def grappa_2x2(u, acs, shift, lam, half=2):
    """Second implementation of GRAPPA for R = 2 x 2, lattice {i (0, 2) + j (2, shift)}: 5 samples of the readout x 2 x 2 lines
    along the lattice's own axes predict the three missing lines of a cell. Breuer et al. 2006, doi:10.1002/mrm.20787.
    u, acs: [coil, pe2, pe1, ro], DC at n/2; lam: relative to the mean diagonal of the normal matrix."""
    sources = [(0, 0), (0, 2), (2, shift), (2, 2 + shift)]
    targets = [(0, 1), (1, 1), (1, 1 + shift)] if shift else [(0, 1), (1, 0), (1, 1)]
    take_lines = lambda x, p, d: x[:, p[:, 0] + d[0], p[:, 1] + d[1]]
    def rows(x, p):                                               # [line of p and sample, source x ro x coil]
        a = np.stack([take_lines(x, p, d) for d in sources])      # [source, coil, p, ro]
        a = np.pad(a, ((0, 0),) * 3 + ((half, half),))
        a = np.stack([a[..., i:i + x.shape[3]] for i in range(2 * half + 1)])
        return a.transpose(3, 4, 1, 0, 2).reshape(len(p), x.shape[3], -1)
    n2, n1, nx = acs.shape[1:]
    p = np.argwhere(np.ones((n2 - 2, n1 - 2 - shift)))
    inner = slice(half, nx - half)                                # no sources beyond the ends of the readout
    A = rows(acs.astype(np.complex128), p)[:, inner]; A = A.reshape(-1, A.shape[2])
    B = np.stack([take_lines(acs, p, d) for d in targets]).transpose(2, 3, 0, 1)[:, inner].reshape(len(A), -1)
    N = A.conj().T @ A
    W = np.linalg.solve(N + lam * np.trace(N).real / len(N) * np.eye(len(N)), A.conj().T @ B)
    pad = 6
    x = np.pad(u, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    # only the lattice predicts, also where the calibration block has more
    z, y = np.meshgrid(np.arange(x.shape[1]) - pad - u.shape[1] // 2, np.arange(x.shape[2]) - pad - u.shape[2] // 2, indexing="ij")
    lattice = (z % 2 == 0) & ((y - shift * (z // 2)) % 2 == 0)
    bases = np.argwhere(lattice); bases = bases[(bases < np.array(lattice.shape) - 3).all(1)]
    found = rows(x * lattice[None, :, :, None], bases) @ W
    found = found.reshape(len(bases), x.shape[3], len(targets), -1)
    out = np.zeros_like(x)
    for i, d in enumerate(targets):
        out[:, bases[:, 0] + d[0], bases[:, 1] + d[1]] = found[:, :, i].transpose(2, 0, 1)
    out = out[:, pad:-pad, pad:-pad]
    return np.where(u != 0, u, out)


def cg_sense():
    k, t, m = scan(48, 6, seed=2)
    maps = P.BART.run("ecalib", "-m1", "-r20", "-k6", "-c0.", k[:, None])
    out, th = dict(full=k, maps=maps.reshape(k.shape), truth=t, inside=m), {}
    rng = np.random.default_rng(9)
    masks = {}
    for r in (2, 3):
        img, _ = sampling(48, r, 0); masks[f"regular_r{r}"] = np.repeat(img[:, None], 48, 1)
        img, cal = sampling(48, r, 16); masks[f"acs_r{r}"] = np.repeat((img | cal)[:, None], 48, 1)
    v, _ = S.vd1d(48, 3, 8); masks["vd1d"] = np.repeat(v[:, None], 48, 1)
    pm, _ = S.poisson2d(48, 48, 3, 10); masks["poisson"] = pm
    for name, mk in masks.items():
        u = (k * mk).astype(np.complex64)
        s = maps.astype(np.complex128)
        lam = 0.02 if name != "regular_r2" else 0.
        x64 = dense_cg(u, s[:, 0], mk, lam)
        b = P.pics_bart(u[:, None], maps, 0., 200).reshape(48, 48)
        b0 = dense_cg(u, s[:, 0], mk, 0., 400)
        print(f"   {name}: BART 200 iterations vs double CG, lambda 0:", np.linalg.norm(b - b0) / np.linalg.norm(b0), " nrmse", P.nrmse(b, t, m), P.nrmse(x64, t, m))
        out[f"mask_{name}"] = mk; out[f"solution_{name}"] = x64.astype(np.complex64)
        if "regular" in name or "acs" in name: out[f"bart_{name}"] = b   # lambda 0 on the others amplifies noise without end
        th[f"lambda_{name}"] = (lam, "Tikhonov weight of solution_: A^H A + lambda, unitary transforms, maps of unit norm")
        th[f"nrmse_{name}"] = (round(P.nrmse(x64, t, m), 5), "solution_ against the truth, magnitude inside")
    th["relative"] = (1e-3, "||x - solution|| / ||solution||, iteration run to convergence")
    th["relative_unfold"] = (1e-4, "same, direct unfolding of the regular masks")
    save("cg_sense", out, th, ["bart", "numpy"], "Tikhonov SENSE with given maps (bart ecalib): converged double-precision solution (numpy) and bart pics -l2 -r0 -i200")


def dense_cg(u, s, mk, lam, iters=2000):
    """Conjugate gradients in double precision to 1e-11."""
    A = lambda x: (s.conj() * P.ifftc(mk * P.fftc(s * x, (1, 2)), (1, 2))).sum(0) + lam * x
    b = (s.conj() * P.ifftc(u.astype(np.complex128), (1, 2))).sum(0)
    x = np.zeros_like(b); r = b.copy(); p = r.copy(); rs = np.vdot(r, r).real; r0 = rs
    for _ in range(iters):
        q = A(p); a = rs / np.vdot(p, q).real; x += a * p; r -= a * q
        n = np.vdot(r, r).real
        if n < 1e-22 * r0: break
        p = r + n / rs * p; rs = n
    return x


def gfactor():
    """Pruessmann's g by dense inverses, regular R along y, and the same by the dense (irregular) encoding matrix, 1D."""
    k, t, m = scan(64, 5, seed=6)
    maps = P.BART.run("ecalib", "-m1", "-r20", "-k5", "-c0.", k[:, None])[:, 0].astype(np.complex128)
    out = dict(maps=maps.astype(np.complex64), inside=m)
    n = 64
    for r in (2, 4):
        g = np.zeros((n, n)); std = np.zeros((n, n))
        for x in range(n):
            for y in range(n):
                ys = [(y + j * n // r) % n for j in range(r)] if n % r == 0 else None
                s = maps[:, ys, x]
                c = s.conj().T @ s; inv = np.linalg.inv(c)
                for j, yy in enumerate(ys):
                    g[yy, x] = np.sqrt((inv[j, j] * c[j, j]).real); std[yy, x] = np.sqrt(inv[j, j].real * r)
        out[f"g_r{r}"] = g.astype(np.float32); out[f"std_r{r}"] = std.astype(np.float32)
    img, cal = sampling(64, 3, 16); mk = img | cal
    F = P.fftc(np.eye(n, dtype=np.complex128), (0,))
    std = np.zeros((n, n)); full = np.zeros((n, n))
    for x in range(n):
        E = np.concatenate([F[mk] * maps[c, :, x][None] for c in range(5)])
        std[:, x] = np.sqrt(np.diag(np.linalg.inv(E.conj().T @ E)).real)
        full[:, x] = 1 / np.sqrt((abs(maps[:, :, x]) ** 2).sum(0))
    out["mask_acs_r3"] = mk; out["std_acs_r3"] = std.astype(np.float32)
    save("gfactor", out, dict(relative=(3e-3, "closed form; our smallest Tikhonov weight, 1e-6, shows where five coils unfold four voxels"), relative_irregular=(.03, "pseudo-replica and estimates: the 3 % of issue 2")), ["numpy"],
         "Analytic g-factor and noise standard deviation (unit noise per component in k-space, unitary transforms) from given maps: regular R=2, 4; dense inverse for R=3 with 16 calibration lines")


def homodyne():
    n = 48
    k, t, m = scan(n, 4, seed=8)
    maps = P.BART.run("ecalib", "-m1", "-r20", "-k6", "-c0.", k[:, None])[:, 0]
    im = (maps.conj() * P.ifftc(k, (1, 2))).sum(0)
    y = P.fftc(im, (0, 1)).astype(np.complex64)
    first = n // 4   # lines 0..first-1 missing: 6/8
    u = y.copy(); u[:first] = 0
    hi = u.copy()
    keep = y.copy(); keep[n - first:] = 0
    out = dict(full=y, missing_first=u, missing_last=keep, inside=m, image=im.astype(np.complex64))
    # BART wants the acquired part first along the dimension (column-major dim 1 = y).
    out["bart_missing_last"] = P.BART.run("homodyne", 1, .75, keep[None, None]).reshape(n, n)
    truth = abs(im)
    zf = {kk: P.nrmse(P.ifftc(v, (0, 1)), truth, m) for kk, v in (("missing_first", u), ("missing_last", keep))}
    hb = P.nrmse(out["bart_missing_last"].real, truth, m)
    print("   homodyne: zero-filled", zf, "bart", hb, "abs", P.nrmse(out["bart_missing_last"], truth, m))
    save("homodyne", out, dict(nrmse_zero_filled=(round(zf["missing_last"], 5), "zero filled against the full scan"), nrmse_bart=(round(min(hb, P.nrmse(out['bart_missing_last'], truth, m)), 5), "bart homodyne against the full scan, inside")),
         ["bart"], "bart homodyne 1 0.75 of one complex image with smooth phase, 48x48; the first 36 lines measured (missing_last)")


def compress():
    k, t, m = scan(32, 8, seed=12, snr=100)
    n = 32
    b = P.BART
    msvd = b.run("cc", "-S", "-M", "-p8", "-A", k[:, None])
    csvd = b.run("cc", "-S", "-p4", "-A", k[:, None])
    geo = b.run("cc", "-G", "-p4", "-A", k[:, None])
    e = (abs(csvd) ** 2).sum() / (abs(k) ** 2).sum(); eg = (abs(geo) ** 2).sum() / (abs(k) ** 2).sum()
    s = np.linalg.svd(k.reshape(8, -1), compute_uv=False)
    print("   compress energy svd", e, "numpy", (s[:4] ** 2).sum() / (s ** 2).sum(), "geometric", eg, msvd.shape)
    save("compress", dict(kspace=k, svd4=csvd.reshape(4, n, n), geometric4=geo.reshape(4, n, n), singular=s.astype(np.float32)),
         dict(energy_svd4=(round(float(e), 6), "share of energy in 4 virtual coils, SVD"), energy_geometric4=(round(float(eg), 6), "same, geometric along x"), gram=(1e-4, "relative difference of sum_c v v^H: virtual coils agree up to a phase each")), ["bart"],
         "bart cc -S -p4 -A and -G -p4 -A, 32x32, 8 coils")


def csm():
    """Walsh (mrpro) and Inati (mrpro) on fully sampled coil images."""
    import torch
    from mrpro.algorithms.csm import walsh, inati
    k, t, m = scan(48, 4, seed=1)
    im = torch.from_numpy(P.ifftc(k, (1, 2))[:, None].astype(np.complex64))
    w = walsh(im, smoothing_width=5).numpy()[:, 0]; i = inati(im, smoothing_width=5).numpy()[:, 0]
    cd = P.BART.run("caldir", 20, k[:, None]).reshape(k.shape)
    save("csm", dict(kspace=k, walsh=w, inati=i, caldir=cd, inside=m), dict(projection=(.03, "1 - |<ours, theirs>| / norms, median over the object"), projection_max=(.2, "same, 99th percentile")), ["mrpro", "bart"],
         "mrpro walsh and inati (window 5), bart caldir 20; 48x48, 4 coils; fully sampled coil images")


def metrics():
    from skimage.metrics import structural_similarity, peak_signal_noise_ratio
    rng = np.random.default_rng(4)
    a = S.object_slice(5, .1, 64, 56); a = abs(a).astype(np.float32) * 300
    b = abs(nd.gaussian_filter(a, .7) + 6 * rng.standard_normal(a.shape)).astype(np.float32)   # magnitudes
    dr = float(a.max())
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    s = float((a64 * b64).sum() / (b64 ** 2).sum())
    f = s * b64                                                   # after the fit, as `cauda compare` reports
    ssim = structural_similarity(a64, f, data_range=dr)           # scikit-image's defaults: uniform 7x7, sample covariance
    psnr = peak_signal_noise_ratio(a64, f, data_range=dr)
    g = np.arange(-7, 8); yy, xx = np.meshgrid(g, g, indexing="ij"); r2 = yy ** 2 + xx ** 2; h = np.exp(-r2 / (2 * 1.5 ** 2)); h /= h.sum()
    k = h * (r2 - 2 * 1.5 ** 2) / 1.5 ** 4; k -= k.mean()         # the Laplacian of Gaussian of Matlab's fspecial
    log = lambda x: nd.convolve(x, k, mode="constant")
    hfen = float(np.linalg.norm(log(f) - log(a64)) / np.linalg.norm(log(a64)))
    slog = lambda x: nd.gaussian_laplace(x, 1.5, truncate=4.67, mode="constant")
    hfen_scipy = float(np.linalg.norm(slog(f) - slog(a64)) / np.linalg.norm(slog(a64)))
    save("metrics", dict(reference=a, test=b), dict(nrmse=(float(np.linalg.norm(f - a64) / np.linalg.norm(a64)), "after the fit"), scale=(s, "best real scale of the test image"), psnr=(psnr, "dB, peak = max of reference"),
         ssim=(ssim, "scikit-image's defaults, data_range = max of reference"), hfen=(hfen, "fspecial log 15x15 sigma 1.5, zeros outside"), hfen_scipy=(hfen_scipy, "gaussian_laplace: derivative of the continuous Gaussian, agrees to 1 %")),
         ["scikit_image", "scipy"], "Image metrics by scikit-image and scipy.ndimage, after the best scale")


CASES = dict(fft=fft, whitening=whitening, espirit=espirit, espirit_rect=espirit_rect, espirit_sigpy=espirit_sigpy, grappa=grappa, grappa_3d=grappa_3d, cg_sense=cg_sense, gfactor=gfactor, homodyne=homodyne, compress=compress, csm=csm, metrics=metrics)
if __name__ == "__main__":
    for c in sys.argv[1:] or CASES:
        CASES[c]()
