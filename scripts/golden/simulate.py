#!/usr/bin/env python3
"""Simulated multi-coil scans as ISMRMRD files, with their truth: an implementation independent of `src/phantom`.

Usage: simulate.py [--out DIR] [CASE ...]       (no CASE: every small case; `bench20` and `all` must be named)

Object: ellipses rasterised on a grid three times finer than the image, times a smooth phase. Coils: loops of current
around the object, Biot-Savart (Bx - i By). k-space: transform of the fine grid cut to the scan's extent, so that
there is no inverse crime, with 2x readout oversampling. Noise: complex Gaussian, correlated between the coils, in the
scan and in separate noise readouts.

Every case leaves in DIR/CASE:
  scan.h5     ISMRMRD: header, noise readouts, imaging and calibration lines, flags as a Siemens converter sets them
  ksp.npy     complex64 [frame, coil, pe2, pe1, ro]: whitened with the covariance *estimated* from the noise readouts,
              readout oversampling removed, zero where not measured (what a peer without an ingest is given)
  truth.npy   float32 [frame, z, y, x]: root-sum-of-squares of the noise-free, fully sampled, truly whitened coils
  mask.npy    bool [frame, z, y, x]: inside the object
  noise.npy   complex64 [coil, sample]; cov_true.npy complex128 [coil, coil]
  case.json   what it is
"""
import argparse, json, os, sys
import numpy as np
import h5py
import scipy.fft as sf
import scipy.linalg as sl
from ismrmrd import hdf5 as ih5

DEFAULT_OUT = os.environ.get("CAUDA_PEER_INPUTS", os.path.join(os.path.dirname(__file__), "../../target/peer-inputs"))
FLAG = dict(first_slice=7, last_slice=8, noise=19, calib=20, calib_img=21, last_measurement=25)  # 1-based, as in MRD
FLAG_REVERSE = 22


def fftc(x, axes):
    return sf.fftshift(sf.fftn(sf.ifftshift(x, axes), axes=axes, norm="ortho"), axes)


def ifftc(x, axes):
    return sf.fftshift(sf.ifftn(sf.ifftshift(x, axes), axes=axes, norm="ortho"), axes)


def crop(x, axis, n):
    lo = x.shape[axis] // 2 - n // 2
    return np.take(x, np.arange(lo, lo + n), axis)


# ----------------------------------------------------------------------------------------------------- object, coils
ELLIPSES = [  # value, half axes (fields of view), centre, angle in degrees
    (1.00, .36, .44, 0, 0, 0), (-.25, .335, .415, 0, -.01, 0), (-.35, .06, .17, .12, 0, -18), (-.35, .08, .21, -.12, 0, 18),
    (.30, .11, .13, 0, .19, 0), (.25, .024, .024, 0, .05, 0), (.25, .024, .024, 0, -.05, 0),
    (.30, .024, .012, -.04, -.32, 0), (.30, .012, .012, 0, -.32, 0), (.30, .012, .024, .03, -.32, 0)]


def ellipses(rng, z):
    """Ellipses of one slice at height z in -1..1: Toft's head, shrunk towards the poles, with small random detail."""
    shrink = np.sqrt(max(1 - .45 * z * z, .1))
    out = [(v, a * shrink, b * shrink, x * shrink, y * shrink, t) for v, a, b, x, y, t in ELLIPSES]
    for _ in range(24):
        r, phi = .30 * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        out.append((rng.uniform(-.25, .35), rng.uniform(.004, .03) * shrink, rng.uniform(.004, .03) * shrink,
                    r * np.cos(phi) * shrink, r * np.sin(phi) * shrink, rng.uniform(0, 180)))
    return out


def raster(es, ny, nx):
    y = ((np.arange(ny) - ny // 2) / ny)[:, None]
    x = ((np.arange(nx) - nx // 2) / nx)[None]
    im = np.zeros((ny, nx), np.float32)
    for v, a, b, cx, cy, t in es:
        t = np.deg2rad(t)
        u, w = (x - cx) * np.cos(t) + (y - cy) * np.sin(t), (y - cy) * np.cos(t) - (x - cx) * np.sin(t)
        im += np.float32(v) * ((u / a) ** 2 + (w / b) ** 2 <= 1)
    return np.maximum(im, 0)


def object_slice(rng_seed, z, ny, nx, contrast=0):
    rng = np.random.default_rng(rng_seed)
    im = raster(ellipses(rng, z), ny, nx)
    if contrast:
        im = im ** (1 + .5 * contrast) * .8 ** contrast
    y = ((np.arange(ny) - ny // 2) / ny)[:, None]
    x = ((np.arange(nx) - nx // 2) / nx)[None]
    phase = 1.2 * np.sin(2.1 * x + .4) * np.cos(1.7 * y) + 1.5 * x * y - .8 * z + .9 * y * (1 + contrast)
    return (im * np.exp(1j * phase)).astype(np.complex64)


def loop_maps(n_coils, zs, ny, nx, seed=0, grid=96):
    """Biot-Savart maps [coil, z, y, x] on a coarse grid, zoomed with cubic splines. Positions in fields of view."""
    from scipy.ndimage import zoom
    rng = np.random.default_rng(seed)
    rings = 2 if n_coils >= 8 else 1
    ax = (np.arange(grid) - grid // 2) / grid
    Y, X = np.meshgrid(ax, ax, indexing="ij")
    out = np.empty((n_coils, len(zs), ny, nx), np.complex64)
    per = -(-n_coils // rings)
    for c in range(n_coils):
        ring, k = divmod(c, per)
        phi = 2 * np.pi * (k + .5 * ring) / per + rng.normal(0, .03)
        cz = (ring - (rings - 1) / 2) * .45
        er = np.array([np.cos(phi), np.sin(phi), 0.]); et = np.array([-np.sin(phi), np.cos(phi), 0.]); ez = np.array([0, 0, 1.])
        centre, radius = .60 * er * np.array([.9, 1.05, 1]) + cz * ez, .21
        s = np.linspace(0, 2 * np.pi, 33)[:-1]
        pts = centre + radius * (np.cos(s)[:, None] * et + np.sin(s)[:, None] * ez)
        dl = radius * (2 * np.pi / 32) * (-np.sin(s)[:, None] * et + np.cos(s)[:, None] * ez)
        for iz, z in enumerate(zs):
            b = np.zeros((2, grid, grid))
            for p, d in zip(pts, dl):
                rx, ry, rz = X - p[0], Y - p[1], z * .45 - p[2]
                r3 = (rx * rx + ry * ry + rz * rz + 1e-3) ** 1.5
                b[0] += (d[1] * rz - d[2] * ry) / r3
                b[1] += (d[2] * rx - d[0] * rz) / r3
            out[c, iz] = (zoom(b[0], (ny / grid, nx / grid), order=3, grid_mode=True, mode="nearest")
                          - 1j * zoom(b[1], (ny / grid, nx / grid), order=3, grid_mode=True, mode="nearest"))
    return out / np.abs(out).max()


def covariance(n, seed=7):
    """Noise covariance with neighbours correlated and gains that differ by up to 2."""
    rng = np.random.default_rng(seed)
    d = np.abs(np.subtract.outer(np.arange(n), np.arange(n))); d = np.minimum(d, n - d)
    psi = .35 ** d * np.exp(1j * .6 * np.subtract.outer(np.arange(n), np.arange(n)) * (d > 0) * .5)
    gain = rng.uniform(.7, 1.4, n)
    psi = psi * np.outer(gain, gain)
    psi = (psi + psi.conj().T) / 2
    w, v = np.linalg.eigh(psi)
    return (v * np.maximum(w, .05)) @ v.conj().T


# ----------------------------------------------------------------------------------------------------- masks
def regular(n, r, acs):
    m = np.zeros(n, bool); m[(n // 2) % r::r] = True
    calib = np.zeros(n, bool); calib[n // 2 - acs // 2:n // 2 - acs // 2 + acs] = True
    return m, calib


def vd1d(n, r, acs, seed=3):
    rng = np.random.default_rng(seed)
    centre = np.zeros(n, bool); centre[n // 2 - acs // 2:n // 2 - acs // 2 + acs] = True
    p = (1 - np.abs(np.arange(n) - n // 2) / (n / 2 + 1)) ** 2.5
    p[centre] = 0
    pick = rng.choice(n, n // r - acs, replace=False, p=p / p.sum())
    m = centre.copy(); m[pick] = True
    return m, centre


def poisson2d(n2, n1, r, acs, seed=5):
    """Variable-density Poisson disc by dart throwing; full centre acs x acs."""
    rng = np.random.default_rng(seed)
    yy, xx = np.meshgrid((np.arange(n2) - n2 // 2) / (n2 / 2), (np.arange(n1) - n1 // 2) / (n1 / 2), indexing="ij")
    rad = np.sqrt(yy ** 2 + xx ** 2)
    def throw(scale):
        m = np.zeros((n2, n1), bool)
        for j in rng.permutation(n2 * n1):
            y, x = divmod(j, n1)
            d = max(1, int(round(scale * (.6 + 1.4 * rad[y, x]))))
            if d == 1 or not m[max(y - d + 1, 0):y + d, max(x - d + 1, 0):x + d].any():
                m[y, x] = True
        return m
    best = None
    for scale in np.arange(.8, 2.4, .1):
        m = throw(scale)
        m[n2 // 2 - acs // 2:n2 // 2 + acs // 2, n1 // 2 - acs // 2:n1 // 2 + acs // 2] = True
        if best is None or abs(m.mean() - 1 / r) < abs(best.mean() - 1 / r):
            best = m
    calib = np.zeros((n2, n1), bool)
    calib[n2 // 2 - acs // 2:n2 // 2 + acs // 2, n1 // 2 - acs // 2:n1 // 2 + acs // 2] = True
    return best, calib


# ----------------------------------------------------------------------------------------------------- file
def xml(case, enc, rec, fov, limits, accel, calibration, n_coils, traj="cartesian"):
    lim = "".join(f"<{k}><minimum>{a}</minimum><maximum>{b}</maximum><center>{c}</center></{k}>" for k, (a, b, c) in limits.items())
    par = (f"<parallelImaging><accelerationFactor><kspace_encoding_step_1>{accel[0]}</kspace_encoding_step_1>"
           f"<kspace_encoding_step_2>{accel[1]}</kspace_encoding_step_2></accelerationFactor>"
           f"<calibrationMode>{calibration}</calibrationMode></parallelImaging>") if calibration else ""
    sp = lambda m, f: (f"<matrixSize><x>{m[0]}</x><y>{m[1]}</y><z>{m[2]}</z></matrixSize>"
                       f"<fieldOfView_mm><x>{f[0]}</x><y>{f[1]}</y><z>{f[2]}</z></fieldOfView_mm>")
    return (f'<?xml version="1.0" encoding="UTF-8"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
            f"<studyInformation><studyDate>2026-11-23</studyDate></studyInformation>"
            f"<measurementInformation><patientPosition>HFS</patientPosition><protocolName>sim_{case}</protocolName></measurementInformation>"
            f"<acquisitionSystemInformation><systemVendor>simulated</systemVendor><systemFieldStrength_T>3.0</systemFieldStrength_T>"
            f"<relativeReceiverNoiseBandwidth>1.0</relativeReceiverNoiseBandwidth><receiverChannels>{n_coils}</receiverChannels></acquisitionSystemInformation>"
            f"<experimentalConditions><H1resonanceFrequency_Hz>127740000</H1resonanceFrequency_Hz></experimentalConditions>"
            f"<encoding><encodedSpace>{sp(enc, (fov[0] * 2, fov[1], fov[2]))}</encodedSpace><reconSpace>{sp(rec, fov)}</reconSpace>"
            f"<encodingLimits>{lim}</encodingLimits><trajectory>{traj}</trajectory>{par}</encoding>"
            f"<sequenceParameters><TR>500</TR><TE>15</TE></sequenceParameters></ismrmrdHeader>")


def write_mrd(path, xml_text, heads, rows):
    """All acquisitions in one HDF5 write. rows: list of float32 arrays (interleaved complex [coil, sample])."""
    a = np.empty(len(rows), dtype=ih5.acquisition_dtype)
    a["head"] = heads
    empty = np.zeros(0, np.float32)
    for i, r in enumerate(rows):
        a["traj"][i] = empty
        a["data"][i] = r
    with h5py.File(path, "w") as f:
        g = f.create_group("dataset")
        g.create_dataset("xml", data=[xml_text.encode()], dtype=h5py.special_dtype(vlen=bytes), maxshape=(None,))
        g.create_dataset("data", data=a, maxshape=(None,), chunks=(1,))


def head(n, flags=(), centre=0, dwell=5.0, idx=(), n_samples=None, n_coils=None, pos=(0, 0, 0), dirs=None):
    h = np.zeros((), ih5.acquisition_header_dtype)
    h["version"], h["scan_counter"], h["number_of_samples"] = 1, n, n_samples
    h["available_channels"] = h["active_channels"] = n_coils
    h["center_sample"], h["sample_time_us"] = centre, dwell
    h["flags"] = sum(1 << (f - 1) for f in flags)
    d = dirs or ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    h["position"], h["read_dir"], h["phase_dir"], h["slice_dir"] = pos, d[0], d[1], d[2]
    for k, v in idx:
        h["idx"][k] = v
    return h


CASES = {
    # name: matrix (ro, pe1, pe2), coils, slices, sampling
    "r2": dict(n=256, coils=12, accel=2, acs=24), "r3": dict(n=256, coils=12, accel=3, acs=24),
    "r4": dict(n=256, coils=12, accel=4, acs=24), "full": dict(n=192, coils=8, accel=1, acs=0),
    "vd1d": dict(n=256, coils=12, accel=4, acs=24, kind="vd1d"),
    "pf_pe": dict(n=192, coils=8, accel=1, acs=0, pf_pe=6 / 8), "pf_pe_r2": dict(n=192, coils=8, accel=2, acs=24, pf_pe=6 / 8),
    "pf_ro": dict(n=192, coils=8, accel=1, acs=0, pf_ro=6 / 8), "pf_ro_r2": dict(n=192, coils=8, accel=2, acs=24, pf_ro=6 / 8),
    "multi": dict(n=128, coils=6, accel=2, acs=24, contrasts=2, averages=2, slices=2),
    "odd": dict(n=(165, 131), coils=5, accel=2, acs=23),
    "caipi22": dict(n=(96, 96), pe2=64, coils=8, accel=(2, 2), shift=1, acs=24, kind="caipi"),
    "grid22": dict(n=(96, 96), pe2=64, coils=8, accel=(2, 2), shift=0, acs=24, kind="caipi"),
    "poisson": dict(n=(96, 96), pe2=64, coils=8, accel=4, acs=16, kind="poisson"),
    "bench_full": dict(n=320, coils=16, accel=1, acs=0),
    "bench1": dict(n=320, coils=16, accel=4, acs=24), "bench20": dict(n=320, coils=16, slices=20, accel=4, acs=24),
}


def make(name, out, seed=11):
    c = CASES[name]
    n = c["n"] if isinstance(c["n"], tuple) else (c["n"], c["n"])
    nx, ny = n
    nz = c.get("pe2", 1)
    coils, slices, contrasts, averages = c["coils"], c.get("slices", 1), c.get("contrasts", 1), c.get("averages", 1)
    kind, acs = c.get("kind", "regular"), c["acs"]
    folder = os.path.join(out, name); os.makedirs(folder, exist_ok=True)
    rng = np.random.default_rng(abs(hash_name(name)) + seed)
    fov = (240., 240. * ny / nx, 4. if nz == 1 else 2. * nz)
    psi = covariance(coils)
    chol = np.linalg.cholesky(psi)
    sup = 3 if nz == 1 else 2
    zs = np.linspace(-.6, .6, slices) if (slices > 1) else np.array([.1])
    if nz > 1:
        zs = (np.arange(nz * sup) - nz * sup // 2) / (nz * sup / 2) * .98
    maps = loop_maps(coils, zs, ny * sup, nx * sup)
    # noise-free k-space of every frame, [frame, coil, pe2, pe1, 2 ro]
    frames, ksp = [], []
    for con in range(contrasts):
        for sl_i in range(slices):
            frames.append((con, sl_i))
            if nz == 1:
                obj = object_slice(5, float(zs[sl_i]), ny * sup, nx * sup, con)[None]
                mp = maps[:, sl_i:sl_i + 1]
            else:
                obj = np.stack([object_slice(5, float(z), ny * sup, nx * sup, con) * (abs(z) < .9) for z in zs]); mp = maps
            k = np.empty((coils, nz, ny, 2 * nx), np.complex64)
            for i in range(coils):
                im = mp[i] * obj
                im = np.pad(im, ((0, 0), (0, 0), (nx * sup // 2, 2 * nx * sup - nx * sup - nx * sup // 2))) if (nx * sup) % 2 == 0 else \
                    np.pad(im, ((0, 0), (0, 0), (nx * sup - nx * sup // 2, nx * sup // 2)))
                kk = crop(fftc(im, (2,)), 2, 2 * nx)
                kk = crop(fftc(kk, (1,)), 1, ny)
                k[i] = crop(fftc(kk, (0,)), 0, nz) if nz > 1 else kk
            ksp.append(k)
    ksp = np.stack(ksp)
    # noise level: root-sum-of-squares SNR about 40 in the middle of the object
    img = ifftc(crop(ifftc(ksp[0], (3,)), 3, nx), (1, 2))
    wt = sl.solve_triangular(chol, img.reshape(coils, -1), lower=True).reshape(img.shape)
    rss = np.sqrt((np.abs(wt) ** 2).sum(0))
    level = np.median(rss[rss > .2 * rss.max()]) / c.get("snr", 40.)     # per real and imaginary part
    psi_true = psi * 2 * level ** 2                                       # E[n n^H] per complex sample
    chol_true = np.linalg.cholesky(psi_true / 2)
    truth, mask = [], []
    for f in range(len(ksp)):
        img = ifftc(crop(ifftc(ksp[f], (3,)), 3, nx), (1, 2))
        wt = sl.solve_triangular(chol_true, img.reshape(coils, -1), lower=True).reshape(img.shape)
        truth.append(np.sqrt((np.abs(wt) ** 2).sum(0)).astype(np.float32))
        con, sl_i = frames[f]
        if nz == 1:
            o = np.abs(object_slice(5, float(zs[sl_i]), ny * sup, nx * sup, 0)).reshape(1, ny, sup, nx, sup)
            mask.append((o > .02).mean((2, 4)) > .5)
        else:
            o = np.stack([np.abs(object_slice(5, float(z), ny * sup, nx * sup, 0)) * (abs(z) < .9) for z in zs])
            mask.append((o.reshape(nz, sup, ny, sup, nx, sup) > .02).mean((1, 3, 5)) > .5)
    draw = lambda shape: (chol_true @ (rng.standard_normal((coils, int(np.prod(shape)))) + 1j * rng.standard_normal((coils, int(np.prod(shape)))))
                          ).reshape((coils,) + shape).astype(np.complex64)
    noise = draw((64 * 256,))
    cov = (noise.astype(np.complex128) @ noise.conj().T) / noise.shape[1]
    W = np.linalg.inv(np.linalg.cholesky(cov / 2))
    # which lines: image[pe2, pe1], calib[pe2, pe1]
    if kind == "regular":
        r = c["accel"]; m, cal = regular(ny, r, acs); m, cal = m[None], cal[None]
    elif kind == "vd1d":
        r = c["accel"]; m, cal = vd1d(ny, r, acs); m, cal = m[None], cal[None]
    elif kind == "poisson":
        r = c["accel"]; m, cal = poisson2d(nz, ny, r, acs)
    else:
        r1, r2 = c["accel"]; r = r1
        z, y = np.meshgrid(np.arange(nz) - nz // 2, np.arange(ny) - ny // 2, indexing="ij")
        m = (z % r2 == 0) & ((y + c["shift"] * (z // r2)) % r1 == 0)
        cal = np.zeros_like(m); cal[nz // 2 - acs // 2:nz // 2 + acs // 2, ny // 2 - acs // 2:ny // 2 + acs // 2] = True
    first = 0
    if "pf_pe" in c:
        first = ny - int(round(ny * c["pf_pe"])); m[:, :first] = False
    s0 = 0
    if "pf_ro" in c:
        s0 = 2 * nx - int(round(2 * nx * c["pf_ro"]))
    # write
    heads, rows, counter = [], [], 0
    for i in range(0, noise.shape[1], 256):
        h = head(counter, [FLAG["noise"]], 0, 5.0, (), 256, coils); counter += 1
        heads.append(h); rows.append(np.ascontiguousarray(noise[:, i:i + 256]).view(np.float32).ravel())
    acc = np.zeros((len(frames), coils, nz, ny, 2 * nx), np.complex64)
    has_acs_flags = kind != "poisson" and kind != "vd1d" and acs > 0
    for f, (con, sl_i) in enumerate(frames):
        sel = np.argwhere(m | cal)
        for av in range(averages):
            for j, (p2, p1) in enumerate(sel):
                d = ksp[f][:, p2, p1, s0:] + draw((2 * nx - s0,))
                acc[f][:, p2, p1, s0:] += d / averages
                fl = []
                if has_acs_flags and cal[p2, p1]:
                    fl.append(FLAG["calib_img"] if m[p2, p1] else FLAG["calib"])
                if j == 0: fl.append(FLAG["first_slice"])
                if j == len(sel) - 1 and av == averages - 1: fl.append(FLAG["last_slice"])
                if f == len(frames) - 1 and av == averages - 1 and j == len(sel) - 1: fl.append(FLAG["last_measurement"])
                zpos = (sl_i - (slices - 1) / 2) * 5.0
                h = head(counter, fl, nx - s0, 5.0, (("kspace_encode_step_1", p1 - first), ("kspace_encode_step_2", p2), ("slice", sl_i),
                         ("contrast", con), ("average", av)), 2 * nx - s0, coils, (3., -4., zpos + 7.))
                counter += 1; heads.append(h); rows.append(np.ascontiguousarray(d).view(np.float32).ravel())
    limits = {"kspace_encoding_step_1": (0, ny - 1 - first, ny // 2 - first), "kspace_encoding_step_2": (0, nz - 1, nz // 2),
              "average": (0, averages - 1, 0), "slice": (0, slices - 1, 0), "contrast": (0, contrasts - 1, 0)}
    accel = c["accel"] if isinstance(c["accel"], tuple) else (c["accel"], 1)
    if kind in ("poisson", "vd1d"): accel = (1, 1)
    text = xml(name, (2 * nx, ny, nz), (nx, ny, nz), fov, limits, accel, "embedded" if has_acs_flags else None, coils)
    write_mrd(os.path.join(folder, "scan.h5"), text, np.array(heads, ih5.acquisition_header_dtype), rows)
    # independent ingest for the peers
    w = np.einsum("ij,fjzyx->fizyx", W.astype(np.complex64), acc)
    w = fftc(crop(ifftc(w, (4,)), 4, nx), (4,))
    meas = (m | cal)
    w *= meas[None, None, :, :, None]
    if s0:
        w[..., :s0 // 2] = 0
    np.save(os.path.join(folder, "ksp.npy"), w.astype(np.complex64)); np.save(os.path.join(folder, "truth.npy"), np.stack(truth))
    np.save(os.path.join(folder, "mask.npy"), np.stack(mask)); np.save(os.path.join(folder, "noise.npy"), noise)
    np.save(os.path.join(folder, "cov_true.npy"), psi_true)
    info = dict(c, case=name, frames=[dict(contrast=a, slice=b) for a, b in frames], measured=int(meas.sum()), grid=[nz, ny, nx],
                net_acceleration=float(nz * ny / meas.sum()))
    dump(info, os.path.join(folder, "case.json"))
    print(f"{name}: {len(rows)} acquisitions, net R {info['net_acceleration']:.2f}, {os.path.getsize(os.path.join(folder, 'scan.h5')) >> 20} MiB", flush=True)


def dump(obj, path):
    with open(path, "w") as f:
        json.dump(obj, f, indent=1)


def hash_name(name):
    h = 0
    for ch in name.encode():
        h = (h * 131 + ch) % (1 << 31)
    return h


def brain(out, shared):
    """The real 8-coil head scan, retrospectively undersampled; truth = its own fully sampled root-sum-of-squares."""
    k = np.fromfile(os.path.join(shared, "kspace/brain8_full.cfl"), np.complex64).reshape((8, 180, 230))  # [coil, pe1, ro]
    full = ifftc(k, (1, 2)); truth = np.sqrt((np.abs(full) ** 2).sum(0))[None, None].astype(np.float32)
    mask = truth > .08 * truth.max()
    from scipy.ndimage import binary_closing, binary_fill_holes, binary_opening
    mask[0, 0] = binary_fill_holes(binary_closing(binary_opening(mask[0, 0], iterations=1), iterations=4))
    for r in (1, 2, 3, 4):
        name = f"brain_r{r}"; folder = os.path.join(out, name); os.makedirs(folder, exist_ok=True)
        m, cal = regular(180, r, 24)
        sel = np.flatnonzero(m | cal); heads, rows = [], []
        for j, p in enumerate(sel):
            fl = []
            if r > 1 and cal[p]: fl.append(FLAG["calib_img"] if m[p] else FLAG["calib"])
            if j == 0: fl.append(FLAG["first_slice"])
            if j == len(sel) - 1: fl += [FLAG["last_slice"], FLAG["last_measurement"]]
            heads.append(head(j, fl, 115, 5.0, (("kspace_encode_step_1", p),), 230, 8))
            rows.append(np.ascontiguousarray(k[:, p]).view(np.float32).ravel())
        lim = {"kspace_encoding_step_1": (0, 179, 90), "kspace_encoding_step_2": (0, 0, 0)}
        text = xml(name, (230, 180, 1), (230, 180, 1), (230., 180., 5.), lim, (r, 1), "embedded" if r > 1 else None, 8).replace(
            "<x>460.0</x>", "<x>230.0</x>")
        write_mrd(os.path.join(folder, "scan.h5"), text, np.array(heads, ih5.acquisition_header_dtype), rows)
        w = k * (m | cal)[None, :, None]
        np.save(os.path.join(folder, "ksp.npy"), w[None, :, None]); np.save(os.path.join(folder, "truth.npy"), truth); np.save(os.path.join(folder, "mask.npy"), mask)
        dump(dict(case=name, coils=8, accel=r, acs=24 if r > 1 else 0, grid=[1, 180, 230], real=True, measured=len(sel)), os.path.join(folder, "case.json"))
        print(f"{name}: {len(sel)} lines")


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default=DEFAULT_OUT); p.add_argument("--shared", default=os.environ.get("CAUDA_SHARED", os.path.join(os.path.dirname(__file__), "../../../shared/data")))
    p.add_argument("cases", nargs="*")
    a = p.parse_args()
    small = [k for k in CASES if k != "bench20"]
    for name in (a.cases or small + ["brain"]):
        if name == "all":
            for k in CASES: make(k, a.out)
        elif name == "brain":
            if os.path.isdir(a.shared): brain(a.out, a.shared)
            else: print(f"brain skipped: no {a.shared}", file=sys.stderr)
        else:
            make(name, a.out)
