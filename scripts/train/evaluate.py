"""Figures of merit. Everything is measured in the foreground of test images that training never saw."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F

import baselines
from data import channels

TARGETS = {
    "snr_gain": 1.47,
    "edge_loss_percent": 5.0,
    "db_over_best_other": 1.0,
    "contrast_kept": 0.90,
    "coverage": (0.87, 0.93),
    "false_disc_cnr": 1.0,
}


@torch.no_grad()
def run(model, images, g, noise, chunk=8):
    """complex images [n, 3, h, w] -> (complex [n, h, w], sigma [n, h, w])."""
    parts = []
    for z in images.split(chunk):
        gs = g.expand(z.shape[0], -1, -1, -1)
        d, s = model(channels(z), gs, torch.full((z.shape[0],), noise, device=z.device))
        parts.append((torch.complex(d[:, 0], d[:, 1]), s[:, 0]))
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def quality(image, truth, body, noise):
    """PSNR of the magnitude (peak: largest of the truth in the body) and NRMSE of the complex image."""
    m, t = image.abs()[body], truth.abs()[body]
    psnr = 20 * torch.log10(t.max() / (m - t).square().mean().sqrt())
    e = (image - truth)[body].abs().square().mean().sqrt()
    return {"psnr_db": float(psnr), "nrmse": float(e / truth[body].abs().square().mean().sqrt())}


def fidelity(models, cases, snrs, nlm_strength, rng, others=True, bm3d=None):
    """Every method on every case and level, one draw each. Returns rows and the coverage of `ours`."""
    rows, waiting = [], []
    with ThreadPoolExecutor() as pool:
        for case in cases:
            for snr in snrs:
                z, noise = case.noisy(snr, 2, rng)
                truth, body, unit = case.truth[0, 1], case.body, noise * case.g[0, 0]
                images = {"noisy": z[0, 1], "two averages (twice the time)": z[:, 1].mean(0)}
                row = {"case": case.name, "snr": snr, "methods": {}}
                for name, model in models.items():
                    d, s = run(model, z[:1], case.g, noise)
                    images[name] = d[0]
                    if name == "ours":
                        e = torch.view_as_real(d[0] - truth).abs() <= 1.645 * s[0][..., None]
                        row["coverage"] = float(e[body].float().mean())
                if others:
                    images["BM3D-like"] = baselines.bm3d_like(z[0, 1] / unit, **(bm3d or {})) * unit
                    job = pool.submit(baselines.nlm, (z[0, 1] / unit).cpu().numpy(), nlm_strength)
                    waiting.append((row, job, truth, body, unit, noise))
                for name, image in images.items():
                    row["methods"][name] = quality(image, truth, body, noise)
                rows.append(row)
        for row, job, truth, body, unit, noise in waiting:
            image = torch.from_numpy(job.result()).to(truth.device).to(truth.dtype) * unit
            row["methods"]["NLM"] = quality(image, truth, body, noise)
    return rows


def choose_nlm(cases, snrs, rng, strengths=(0.4, 0.6, 0.8, 1.0, 1.2)):
    """h of NLM with the least error, on the validation family."""
    def error(args):
        h, z, truth, body, unit = args
        return h, float(np.sqrt((np.abs((baselines.nlm(z, h) - truth)[body]) ** 2).mean()))

    jobs = []
    for case in cases:
        for snr in snrs:
            z, noise = case.noisy(snr, 1, rng)
            unit = noise * case.g[0, 0]
            a = [(x / unit).cpu().numpy() for x in (z[0, 1], case.truth[0, 1])]
            jobs += [(h, a[0], a[1], case.body.cpu().numpy(), None) for h in strengths]
    total = dict.fromkeys(strengths, 0.0)
    with ThreadPoolExecutor() as pool:
        for h, e in pool.map(error, jobs):
            total[h] += e
    return min(total, key=total.get)


def _flat(truth, body, unit, limit=0.5):
    """Where the truth, in units of noise, changes by less than `limit` from pixel to pixel, three pixels around."""
    t = truth.abs() / unit
    dy = F.pad((t[1:] - t[:-1]).abs(), (0, 0, 0, 1))
    dx = F.pad((t[:, 1:] - t[:, :-1]).abs(), (0, 1, 0, 0))
    rough = ((dy > limit) | (dx > limit) | ~body).float()
    return F.max_pool2d(rough[None, None], 7, 1, 3)[0, 0] == 0


def _edges(truth, reach=6):
    """Profiles across clean edges of an image [h, w]: (axis, row, column) of steps between two plateaus."""
    found = []
    for axis in (0, 1):
        t = truth if axis == 0 else truth.T
        jump = np.abs(np.diff(t, axis=0))
        for y, x in zip(*np.nonzero(jump > 0.12 * t.max())):
            if y < reach or y + reach + 1 >= t.shape[0]:
                continue
            p = t[y - reach + 1 : y + reach + 1, x]
            step = p[-3:].mean() - p[:3].mean()
            rises = np.diff(p) * np.sign(step)
            flat = max(np.ptp(p[:3]), np.ptp(p[-3:])) < 0.1 * abs(step)
            if abs(step) > 0.15 * t.max() and flat and (rises > -0.03 * abs(step)).all():
                found.append((axis, y, x, step))
    return found


def _width(p):
    """10-90 % width of a profile, pixels, by linear interpolation; NaN where it never gets there."""
    low, high = p[:3].mean(), p[-3:].mean()
    q = (p - low) / (high - low) if high != low else p * np.nan
    place = []
    for level in (0.1, 0.9):
        over = np.nonzero((q[:-1] < level) & (q[1:] >= level))[0]
        if len(over) == 0:
            return np.nan
        i = over[0] if level == 0.9 else over[-1]
        place.append(i + (level - q[i]) / (q[i + 1] - q[i]))
    return place[1] - place[0]


def edge_widths(image, edges, reach=6):
    """10-90 % widths (pixels) of an image at the edges. Give means over replicas: noise is not to be taken for sharpness."""
    turned = {0: image, 1: image.T}
    return [_width(turned[axis][y - reach + 1 : y + reach + 1, x]) for axis, y, x, _ in edges]


def _discs(case, unit, cnr, n, np_rng):
    """Where to put 3 mm discs: flat, in the body, apart. Returns pattern [h, w] of amplitude 1, signs, and their places."""
    flat = _flat(case.truth[0, 1], case.body, unit, 1.0) & ~case.lesion
    flat[:12], flat[-12:], flat[:, :12], flat[:, -12:] = False, False, False, False
    ys, xs = (a.cpu().numpy() for a in torch.nonzero(flat, as_tuple=True))
    places = []
    for k in np_rng.permutation(len(ys)):
        if all((ys[k] - y) ** 2 + (xs[k] - x) ** 2 > 20**2 for y, x in places):
            places.append((int(ys[k]), int(xs[k])))
        if len(places) == n:
            break
    return places


def _disc(shape, place, radius_px, device):
    y = torch.arange(shape[0], device=device)[:, None] - place[0]
    x = torch.arange(shape[1], device=device)[None, :] - place[1]
    return (radius_px + 0.5 - torch.sqrt((y**2 + x**2).float())).clamp(0, 1)


def replicas(models, cases, snrs, rng, k=32, cnr=3.0):
    """Many draws of one image: standard deviation and bias in flat regions, edge widths, contrast kept of 3 mm discs,
    false discs. Returns one record per level and model, over the cases."""
    records = []
    edges_of = [_edges(case.truth[0, 1].abs().cpu().numpy()) for case in cases]
    for snr in snrs:
        collected = {name: [] for name in ["noisy", *models]}
        for case, all_edges in zip(cases, edges_of):
            np_rng = np.random.default_rng(hash_of(case.name))
            truth, body = case.truth[0, 1], case.body
            z, noise = case.noisy(snr, k, rng)
            unit = noise * case.g[0, 0]
            turn = torch.exp(-1j * truth.angle())
            flat = _flat(truth, body, unit) & ~case.lesion
            places = _discs(case, unit, cnr, 10, np_rng)
            radius = 1.5 / case.pixel_mm
            planted = case.truth.clone()
            signs = [1 if i % 2 == 0 else -1 for i in range(len(places))]
            signs = [1 if truth.abs()[p] < cnr * unit[p] else s for p, s in zip(places, signs)]
            for p, s in zip(places, signs):
                planted[0, 1] += s * cnr * unit[p] * _disc(truth.shape, p, radius, truth.device) * turn.conj()
            z_planted = z - case.truth + planted
            # Edges that can be seen: at least four times the mean noise; some 300 of them.
            edges = [e for e in all_edges if abs(e[3]) > 4 * noise * float(case.g[0, 0][body].mean())]
            edges = edges[:: max(1, len(edges) // 300)]
            true_widths = edge_widths(truth.abs().cpu().numpy(), edges)
            for name in collected:
                if name == "noisy":
                    d, e = z[:, 1], z_planted[:, 1]
                else:
                    d, e = run(models[name], z, case.g, noise)[0], run(models[name], z_planted, case.g, noise)[0]
                r = (d - truth) / unit
                mean = d.mean(0)
                std = torch.sqrt((torch.view_as_real(d - mean) / unit[..., None]).square().sum(0).mean(-1) / (k - 1))
                bias = r.mean(0) * turn
                rec = {"flat_pixels": int(flat.sum())}
                if flat.any():
                    rec["std"] = float(std[flat].square().mean().sqrt())
                    # A mean of k draws has noise itself: taken off.
                    b2 = bias.real[flat].square().mean() - std[flat].square().mean() / k
                    rec["bias_rms"] = float(b2.clamp_min(0).sqrt())
                    rec["bias_max"] = float(bias.real[flat].abs().max())
                    z_scores = bias.real[flat].abs() / (std[flat] / k**0.5).clamp_min(1e-6)
                    rec["bias_max_z"] = float(z_scores.max())
                    rec["false_disc_cnr"] = float(_matched(bias.real, radius)[_inner(flat)].abs().max()) if _inner(flat).any() else float("nan")
                rec["body_bias_rms"] = float((bias.abs()[body].square().mean() - 2 * std[body].square().mean() / k).clamp_min(0).sqrt())
                kept, spread = [], []
                for p, s in zip(places, signs):
                    c = _contrast((e * turn).real / unit[p], p, radius) - _contrast((truth * turn).real[None] / unit[p], p, radius)
                    full = _contrast((planted[0, 1] * turn).real[None] / unit[p], p, radius) - _contrast((truth * turn).real[None] / unit[p], p, radius)
                    kept.append(float(c.mean() / full[0]))
                    spread.append(float(c.std() / full[0].abs()))
                rec["kept"], rec["kept_spread"] = kept, spread
                # In phase with the truth: the magnitude would add the floor of the noise.
                rec["edges"] = {"truth": true_widths, "image": edge_widths((mean * turn).real.cpu().numpy(), edges)}
                collected[name].append(rec)
        for name, recs in collected.items():
            records.append({"snr": snr, "method": name, **_summary(recs)})
    for r in records:
        plain = next(q for q in records if q["snr"] == r["snr"] and q["method"] == "noisy")
        r["snr_gain"] = plain["std"] / r["std"] if r["std"] else float("nan")
    return records


def _summary(recs):
    def over(key, f):
        values = [r[key] for r in recs if key in r and np.isfinite(r[key])]
        return float(f(values)) if values else float("nan")

    pixels = sum(r["flat_pixels"] for r in recs)
    kept = [k for r in recs for k in r["kept"]]
    spread = [k for r in recs for k in r["kept_spread"]]
    t = np.array([w for r in recs for w in r["edges"]["truth"]])
    m = np.array([w for r in recs for w in r["edges"]["image"]])
    good = np.isfinite(t) & np.isfinite(m) if len(t) else np.zeros(0, bool)
    return {
        "images": len(recs),
        "flat_pixels": pixels,
        "std": float(np.sqrt(sum(r["std"] ** 2 * r["flat_pixels"] for r in recs if "std" in r) / max(pixels, 1))),
        "bias_rms": over("bias_rms", lambda v: np.sqrt(np.mean(np.square(v)))),
        "bias_max": over("bias_max", np.max),
        "bias_max_z": over("bias_max_z", np.max),
        "body_bias_rms": over("body_bias_rms", lambda v: np.sqrt(np.mean(np.square(v)))),
        "false_disc_cnr": over("false_disc_cnr", np.max),
        "discs": len(kept),
        "contrast_kept": float(np.mean(kept)) if kept else float("nan"),
        "contrast_kept_worst": float(np.min(kept)) if kept else float("nan"),
        "contrast_spread": float(np.mean(spread)) if spread else float("nan"),
        "edges": int(good.sum()),
        "edge_truth_px": float(np.median(t[good])) if good.any() else float("nan"),
        "edge_px": float(np.median(m[good])) if good.any() else float("nan"),
        "edge_loss_percent": float(100 * (np.median(m[good] / t[good]) - 1)) if good.any() else float("nan"),
        "edges_lost": int((np.isfinite(t) & ~np.isfinite(m)).sum()) if len(t) else 0,
    }


def hash_of(text):
    """The same in every run, unlike hash()."""
    value = 0
    for c in text:
        value = (value * 131 + ord(c)) % (1 << 31)
    return value


def _matched(residual, radius):
    """Contrast of a disc against the ring around it, at every pixel of [h, w]."""
    n = 8
    y = torch.arange(-n, n + 1, device=residual.device)
    r = torch.sqrt((y[:, None] ** 2 + y[None, :] ** 2).float())
    disc = (radius + 0.5 - r).clamp(0, 1)
    ring = ((r > radius + 2) & (r < radius + 5)).float()
    kernel = disc / disc.sum() - ring / ring.sum()
    return F.conv2d(residual[None, None], kernel[None, None], padding=n)[0, 0]


def _inner(flat):
    return F.max_pool2d((~flat).float()[None, None], 13, 1, 6)[0, 0] == 0


def _contrast(images, place, radius):
    """Mean of the disc less mean of the ring, for images [n, h, w]."""
    y = torch.arange(images.shape[-2], device=images.device)[:, None] - place[0]
    x = torch.arange(images.shape[-1], device=images.device)[None, :] - place[1]
    r = torch.sqrt((y**2 + x**2).float())
    disc = (radius + 0.5 - r).clamp(0, 1)
    ring = ((r > radius + 2) & (r < radius + 5)).float()
    return (images * disc).sum((-2, -1)) / disc.sum() - (images * ring).sum((-2, -1)) / ring.sum()


def gather(rows, snrs):
    """Means over the cases of a family: {snr: {method: {psnr_db, nrmse}, coverage}}."""
    out = {}
    for snr in snrs:
        here = [r for r in rows if r["snr"] == snr]
        methods = {m: {k: float(np.mean([r["methods"][m][k] for r in here])) for k in ("psnr_db", "nrmse")}
                   for m in here[0]["methods"]}
        out[str(snr)] = {"methods": methods, "coverage": float(np.mean([r["coverage"] for r in here])), "images": len(here)}
    return out
