"""Figures of the synthesis networks and of what they are held against, on families that training never saw."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

import synth_data
from synth_data import BODY_OF_VERTEBRA, BONE, SLAB
from synth_net import SignalModel

CONTRASTS = ("stir", "t2fs")
SIZES = ((0, 4, "< 4 mm"), (4, 8, "4-8 mm"), (8, 1e9, ">= 8 mm"))
# Contrast to the ring, of the fluid's signal, from which a lesion counts as visible in the true image.
VISIBLE = 0.10


def ssim_map(x, y, data_range):
    """Wang 2004 with flat 7 x 7 windows, [n, 1, h, w]; data_range is a number or [n, 1, 1, 1]."""
    mean = lambda v: F.avg_pool2d(v, 7, 1, 3, count_include_pad=False)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mx, my = mean(x), mean(y)
    vx, vy, c = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    return (2 * mx * my + c1) * (2 * c + c2) / ((mx * mx + my * my + c1) * (vx.clamp_min(0) + vy.clamp_min(0) + c2))


def polynomials(t1w, t2w, knots=None):
    """Regressors of a voxel, by name: each [k, ...]. Piecewise linear: of T1w, with a ramp from each knot."""
    one = torch.ones_like(t1w)
    out = {"affine": torch.stack([one, t1w, t2w]), "quadratic": torch.stack([one, t1w, t2w, t1w * t1w, t1w * t2w, t2w * t2w])}
    if knots is not None:
        out["piecewise linear T1w (bulk)"] = torch.stack([one, t1w] + [(t1w - k).clamp_min(0) for k in knots])
    return out


class Baselines:
    """Regressions voxel by voxel, fitted on training samples in the body, and what needs a fit of its own."""

    def __init__(self, samples, rng, ct, n=40):
        self.ct, self.knots = ct, [0.1, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85] if ct else None
        moments, pd, pairs, by_label = {}, [], np.zeros(2), torch.zeros(2, 256, dtype=torch.float64)
        signal = SignalModel().to(rng.device)
        for i in range(min(n, len(samples))):
            b = synth_data.case(samples, i, "train", rng, ct=ct)
            body = b["label"] > 0
            y = (b["hu"][:, 0:1] if ct else b["target"]).transpose(0, 1)[:, body].double()
            for name, x in polynomials(b["t1w"][:, 1][body], b["t2w"][:, 1][body], self.knots).items():
                x = x.double()
                a = moments.setdefault(name, [0, 0])
                a[0], a[1] = a[0] + x @ x.T, a[1] + x @ y.T
            if ct:
                label = b["label"][body].long().cpu()
                by_label[0].index_add_(0, label, y[0].cpu())
                by_label[1].index_add_(0, label, torch.ones_like(y[0]).cpu())
            else:
                maps = physical(b["maps"])
                with torch.no_grad():
                    rendered = signal(maps, b["sequence"])[0][:, 0]
                pairs += [float((rendered * b["clean"][:, 0])[body].sum()), float(rendered.square()[body].sum())]
                pd.append(float(maps[:, 0][body].mean()))
        self.weights = {}
        for name, (a, c) in moments.items():
            a = a + 1e-9 * torch.trace(a) * torch.eye(len(a), dtype=a.dtype, device=a.device)
            self.weights[name] = torch.linalg.solve(a, c).float()
        if ct:
            self.bulk = (by_label[0] / by_label[1].clamp_min(1)).float()
            self.bulk[0] = -1000
        else:
            self.pd, self.t1w_factor, self.signal = float(np.mean(pd)), pairs[0] / max(pairs[1], 1e-9), signal

    def __call__(self, b):
        """Images [5, c, h, w] of every baseline."""
        t1w, t2w = b["t1w"][:, 1], b["t2w"][:, 1]
        out = {}
        for name, x in polynomials(t1w, t2w, self.knots).items():
            y = torch.einsum("kc,kzhw->zchw", self.weights[name].to(x), x)
            out[name] = y if self.ct else y.clamp_min(0)
        if self.ct:
            out["bulk by true tissue (oracle)"] = self.bulk.to(t1w.device)[b["label"].long()][:, None]
            return out
        out["T2w - alpha T1w (fitted to each image's truth)"] = difference(t1w, t2w, b["target"], b["label"] > 0)
        out["two-point signal model"] = self.two_point(b)
        return out

    @torch.no_grad()
    def two_point(self, b):
        """(fat fraction, T2) that give T1w and T2w with one PD and one T1 of water (long T2: fluid), then rendered."""
        dev = b["t1w"].device
        ff, t2 = torch.linspace(0, 1, 21, device=dev), torch.exp(torch.linspace(np.log(12), np.log(1600), 30, device=dev))
        ff, t2 = (v.flatten() for v in torch.meshgrid(ff, t2, indexing="ij"))
        t1 = torch.where(t2 > 300, 4200.0, 1000.0 if float(b["sequence"][0, 0]) < 2.2 else 1200.0)
        maps = torch.stack([torch.full_like(ff, self.pd), ff, t1, t2])[None, :, None]
        t1w, t2w, stir, t2fs = (v.flatten() for v in self.signal(maps, b["sequence"][:1]))
        table = torch.stack([t1w * self.t1w_factor, t2w], 1)
        table = torch.cat([table, torch.zeros(1, 2, device=dev)])
        values = torch.cat([torch.stack([stir.abs(), t2fs], 1), torch.zeros(1, 2, device=dev)])
        out = torch.zeros_like(b["target"])
        body = b["label"] > 0
        points = torch.stack([b["t1w"][:, 1][body], b["t2w"][:, 1][body]], 1)
        # Nearest by |t|^2 - 2 p t.
        nearest = torch.cat([torch.addmm(table.square().sum(1), p, table.T, alpha=-2).argmin(1) for p in points.split(4096 if dev.type == "cpu" else 65536)])
        out.permute(0, 2, 3, 1)[body] = values[nearest]
        return out


def difference(t1w, t2w, target, body):
    """scale (T2w - alpha T1w) + offset, all three fitted to the truth of this very image: an oracle."""
    x = torch.stack([torch.ones_like(t1w), t1w, t2w])
    xb = x[:, body].double()
    y = target.transpose(0, 1)[:, body].double()
    w = torch.linalg.solve(xb @ xb.T, xb @ y.T).to(x)
    return torch.einsum("kc,kzhw->zchw", w, x).clamp_min(0)


def physical(maps):
    """Stored maps in the units of the contract; what is outside of the networks' range is brought to its edge."""
    pd, ff, t1, t2 = maps.split(1, 1)
    return torch.cat([pd, ff, (1000 * t1).clamp(100, 5000), (1000 * t2).clamp(3, 2500)], 1)


@torch.no_grad()
def run(model, b, ct=False):
    return model(b["t1w"], b["t2w"], b["noise"], b["geometry"] if ct else b["sequence"])


def flagged(out, limits):
    """[5, h, w] per contrast: where the image abstains."""
    stir, s1, t2fs, s2, maps, mismatch, domain = out
    bad = (mismatch > limits["mismatch"]).any(1) | (domain > 1)[:, None, None]
    return [bad | (s[:, 0] > limits[f"{c}_sigma"]) for c, s in zip(CONTRASTS, (s1, s2))]


def marrow_lesions(truth, found, lesion, label, names, pixel_mm, csf):
    """Lesions of bone that are bright in the truth, each in the slice where it is largest: contrast to the ring of
    bone around it, in fluid's signal. truth, found [5, h, w]: numpy."""
    out = []
    for k in np.unique(lesion[lesion > 0]):
        z = int((lesion == k).sum((1, 2)).argmax())
        m = (lesion[z] == k) & (label[z] >= 1) & (label[z] <= BONE)
        if m.sum() < 6 or names.get(int(k)) == "metal":
            continue
        bone = (label[z] >= 1) & (label[z] <= BONE) & (lesion[z] == 0)
        ring = ndimage.binary_dilation(m, iterations=6) & ~ndimage.binary_dilation(m, iterations=2) & bone
        if ring.sum() < 15:
            continue
        contrast = lambda x: float(x[z][m].mean() - np.median(x[z][ring])) / csf
        if (c := contrast(truth)) >= VISIBLE:
            out.append({"name": names.get(int(k), "?"), "mm": 2 * float(np.sqrt(m.sum() / np.pi)) * pixel_mm, "z": z, "mask": m, "truth": c, "found": contrast(found)})
    return out


def false_positives(truth, found, lesion, label, csf, threshold):
    """Bright spots of about 4 mm in vertebral bodies away from lesions, which the truth does not have: a case."""
    v = (label == BODY_OF_VERTEBRA) & ~ndimage.binary_dilation(lesion > 0, np.ones((1, 3, 3)), iterations=4)
    v = ndimage.binary_erosion(v, np.ones((1, 3, 3)), iterations=2)  # the discs' blur is no spot

    def response(x):
        mean = lambda size: ndimage.uniform_filter(x * v, (0, size, size)) / np.maximum(ndimage.uniform_filter(v.astype(np.float32), (0, size, size)), 1e-3)
        return (mean(5) - mean(21)) / csf * v

    spots = (response(found) >= threshold) & (response(truth) < threshold / 2)
    labels, n = ndimage.label(spots, np.ones((3, 3, 3)))
    return int((ndimage.sum_labels(spots, labels, range(1, n + 1)) >= 4).sum()) if n else 0


class Sums:
    """Squared errors in the foreground, pooled; PSNR with data range 1 where the fluid of the target is 1."""

    def __init__(self):
        self.square, self.n, self.ssim, self.total, self.images, self.each = 0.0, 0, 0.0, 0.0, 0, []

    def add(self, image, truth, body, csf):
        e = ((image - truth) / csf).square()
        self.square += float(e[body].sum())
        self.n += int(body.sum())
        self.total += float(e.mean())
        self.images += 1
        self.each.append(-10 * np.log10(max(float(e[body].mean()), 1e-12)))
        s = ssim_map((image / csf)[:, None], (truth / csf)[:, None], 1.0)[:, 0]
        self.ssim += float(s[body].mean())

    def table(self):
        db = lambda v: round(float(-10 * np.log10(max(v, 1e-12))), 2)
        return {"psnr_db": db(self.square / max(self.n, 1)), "psnr_total_db": db(self.total / max(self.images, 1)),
                "psnr_worst_case_db": round(min(self.each), 2), "ssim": round(self.ssim / max(self.images, 1), 4)}


def fs_family(model, others, baselines, samples, family, rng, limits, threshold, noise=0.02, full=True):
    """All figures of STIR and T2FS on one family; `others`: networks to compare with, by name."""
    sums, inside, n_body, flags, domain, lesions, spots = {}, np.zeros(2), 0, np.zeros(2), [], [[], []], np.zeros(2, int)
    for i in range(len(samples)):
        b = synth_data.case(samples, i, family, rng, noise)
        body, csf = b["label"] > 0, b["csf"][0].tolist()
        out = run(model, b)
        images = {"ours": torch.cat([out[0], out[2]], 1)}
        with torch.no_grad():
            for name, other in others.items():
                images[name] = other.core(b["t1w"], b["t2w"], b["noise"], b["sequence"])[0].clamp_min(0)
            if full:
                images |= baselines(b)
                r = model.signal(physical(b["maps"]), b["sequence"])
                images["signal model on the true maps (oracle)"] = torch.cat([r[2].abs(), r[3]], 1)
        for name, image in images.items():
            for c, contrast in enumerate(CONTRASTS):
                sums.setdefault(contrast, {}).setdefault(name, Sums()).add(image[:, c], b["target"][:, c], body, csf[c])
        domain += out[6].tolist()
        n_body += int(body.sum())
        flag = flagged(out, limits)
        label, lesion = b["label"].cpu().numpy(), b["lesion"].cpu().numpy()
        for c in range(2):
            error = (images["ours"][:, c] - b["target"][:, c]).abs()
            inside[c] += float((error <= 1.645 * out[2 * c + 1][:, 0])[body].sum())
            flags[c] += float(flag[c][body].sum())
            if not full:
                continue
            truth, found = b["target"][:, c].cpu().numpy(), images["ours"][:, c].cpu().numpy()
            for x in marrow_lesions(truth, found, lesion, label, samples.findings[i], float(b["geometry"][0, 0]), csf[c]):
                mask = torch.from_numpy(x.pop("mask")).to(flag[c].device)
                lesions[c].append({**x, "sample": i, "flagged": float(flag[c][x["z"]][mask].float().mean()) >= 0.2})
            spots[c] += false_positives(truth, found, lesion, label, csf[c], threshold)
    result = {"cases": len(samples), "out_of_domain": round(float(np.mean([d > 1 for d in domain])), 4)}
    for c, contrast in enumerate(CONTRASTS):
        result[contrast] = {"methods": {n: s.table() for n, s in sums[contrast].items()}, "coverage": round(inside[c] / max(n_body, 1), 4), "abstains": round(flags[c] / max(n_body, 1), 4)}
        if full:
            result[contrast] |= {"recall": recall(lesions[c]), "false_positives_per_case": round(spots[c] / max(len(samples), 1), 3)}
    return result, lesions


def recall(lesions):
    """By size, and how many of the missed ones are flagged. Found: at least half of the true contrast."""
    out = {}
    for low, high, name in SIZES:
        of = [x for x in lesions if low <= x["mm"] < high]
        out[name] = [sum(x["found"] >= 0.5 * x["truth"] for x in of), len(of)]
    missed = [x for x in lesions if x["found"] < 0.5 * x["truth"]]
    return {**out, "missed_flagged": [sum(x["flagged"] for x in missed), len(missed)],
            "by_kind": {k: [sum(x["found"] >= 0.5 * x["truth"] for x in lesions if x["name"] == k), sum(x["name"] == k for x in lesions)] for k in sorted({x["name"] for x in lesions})},
            "median_contrast_kept": round(float(np.median([x["found"] / x["truth"] for x in lesions])), 3) if lesions else None}


def ct_family(model, baselines, samples, family, rng, limits, noise=0.02, full=True):
    error, count, coverage, body_n, flags, domain = {}, {}, 0.0, 0, 0.0, []
    overlap = {}
    for i in range(len(samples)):
        b = synth_data.case(samples, i, family, rng, noise, ct=True)
        body, truth = b["label"] > 0, b["hu"][:, 0]
        hu, sigma, bone, d = run(model, b, ct=True)
        images = {"ours": hu}
        alone = {**b, "t2w": torch.zeros_like(b["t2w"]), "noise": b["noise"] * b["noise"].new_tensor([1.0, 0.0]), "geometry": b["geometry"] * b["geometry"].new_tensor([0.0, 1, 1, 1])}
        images["ours, T1w alone"] = run(model, alone, ct=True)[0]
        if full:
            images |= baselines(b)
        is_bone = body & (b["label"] <= BONE)
        # Spongy bone: two pixels inside of the bodies, without lesions.
        inner = F.max_pool2d(1 - (b["label"] == BODY_OF_VERTEBRA).float()[:, None], 5, 1, 2)[:, 0] < 0.5
        regions = {"body": body, "spongy": inner & (b["lesion"] == 0), "cortical": is_bone & (truth > 300), "soft": body & ~is_bone & (truth > -200), "air": ~body}
        for name, image in images.items():
            e = (image[:, 0] - truth).abs()
            for region, m in regions.items():
                key = (name, region)
                error[key] = error.get(key, 0.0) + float(e[m].sum())
                count[key] = count.get(key, 0) + int(m.sum())
            for what, x, y in [("cortical", image[:, 0] > 300, truth > 300)] + ([("bone", bone[:, 0] > 0.5, is_bone)] if name == "ours" else []):
                o = overlap.setdefault((name, what), np.zeros(2))
                o += [2 * float((x & y & body).sum()), float((x & body).sum() + (y & body).sum())]
        coverage += float(((hu[:, 0] - truth).abs() <= 1.645 * sigma[:, 0])[body].sum())
        flags += float((sigma[:, 0] > limits["hu_sigma"])[body].sum())
        body_n += int(body.sum())
        domain += d.tolist()
    names = list(dict.fromkeys(n for n, _ in error))
    return {"cases": len(samples), "out_of_domain": round(float(np.mean([d > 1 for d in domain])), 4), "coverage": round(coverage / max(body_n, 1), 4), "abstains": round(flags / max(body_n, 1), 4),
            "methods": {n: {**{f"{r}_mae_hu": round(error[n, r] / max(count[n, r], 1), 1) for r in ("body", "spongy", "cortical", "soft", "air")},
                            **{f"{w}_dice": round(float(overlap[n, w][0] / max(overlap[n, w][1], 1)), 4) for w in ("bone", "cortical") if (n, w) in overlap}} for n in names}}


def strangers(model, samples, rng, ct, n=20):
    """Share of slices that are said to be out of domain, by what was done to the inputs."""
    shares = {}
    for i in range(min(n, len(samples))):
        b = synth_data.case(samples, i, "test", rng, ct=ct)
        noise = lambda: synth_data.magnitude(torch.zeros_like(b["t1w"]), torch.full_like(b["noise"][:, 0], 0.3), rng)
        turned = {k: b[k].transpose(-2, -1).flip(-2) for k in ("t1w", "t2w")}
        for name, x in {"as they are": {}, "T1w and T2w swapped": {"t1w": b["t2w"], "t2w": b["t1w"]}, "T2w in both places": {"t1w": b["t2w"]}, "T1w in both places": {"t2w": b["t1w"]},
                        "noise": {"t1w": noise(), "t2w": noise()}, "turned by 90 degrees": turned, "T2w of another patient": {"t2w": synth_data.case(samples, (i + 1) % len(samples), "test", rng, ct=ct)["t2w"]},
                        "inverted grey values": {k: (1 - b[k]).clamp_min(0) for k in ("t1w", "t2w")}}.items():
            shares.setdefault(name, []).extend((run(model, {**b, **x}, ct)[-1] > 1).tolist())
    return {k: round(float(np.mean(v)), 4) for k, v in shares.items()}
