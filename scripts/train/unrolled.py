#!/usr/bin/env python3
"""Trains the denoiser on through the cascades of the unrolled reconstruction, measures it, and writes the model: one command.

    python3 scripts/train/unrolled.py --cauda target/release/cauda --from target/train/out/checkpoint.pt --out target/train/unrolled --tiny

The network and its contract are the denoiser's (README.md); what changes is what it has seen: the errors that lines, maps and its own earlier
answers leave. Coils, masks, maps and data consistency are `parallel.py`.
"""

import argparse
import copy
import hashlib
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent))
import data
import parallel
import report as report_file
from data import _uniform, _with
from denoise import card_time, export, say
from half import round_weights
from net import Denoiser, UNet, n_parameters

COILS = 8
TARGETS = [("R=3", 2.0, 1.0), ("R=4", 3.0, None)]


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cauda", default="target/release/cauda", help="the simulator")
    p.add_argument("--out", type=Path, required=True, help="folder of the results")
    p.add_argument("--data", type=Path, help="folder of the samples; kept and used again (default: a temporary one)")
    p.add_argument("--from", dest="start", type=Path, help="checkpoint.pt of denoise.py to begin with")
    p.add_argument("--resume", type=Path, help="checkpoint.pt of an earlier run of this script to go on from")
    p.add_argument("--evaluate", type=Path, help="checkpoint.pt of this script: export and report alone")
    p.add_argument("--wait", type=float, default=0, help="seconds to wait for the file of --from while cases are made")
    p.add_argument("--samples", type=int, default=500)
    p.add_argument("--test-samples", type=int, default=4)
    p.add_argument("--cases", type=int, default=600, help="images with coils, masks and maps; noise is drawn anew in every step")
    p.add_argument("--cascades", type=int, default=4)
    p.add_argument("--seconds", type=float, default=200)
    p.add_argument("--batch", type=int, default=6)
    p.add_argument("--rate", type=float, default=3e-4)
    p.add_argument("--snr", type=float, nargs="+", default=[10, 20, 40])
    p.add_argument("--replicates", type=int, default=2, help="test images of each family, pattern and level")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--commit", default="unknown")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--tiny", action="store_true", help="all of it, small, on a CPU: proves that it runs, not that it is good")
    a = p.parse_args()
    if a.tiny:
        a.samples, a.test_samples, a.cases, a.cascades, a.batch, a.seconds, a.snr, a.replicates = 6, 1, 4, 2, 1, 20, [20], 1
    return a


@torch.no_grad()
def make_cases(samples, n, rng, shifted=False, snrs=None, patterns=None, contrasts=4, tissue=0.0):
    """[{truth, coils, maps, mask, noise, body, ...}] on the generator's device. The truth is in units of the lines' noise."""
    dev, out = rng.device, []
    pick = lambda k: int(torch.randint(k, (), generator=rng, device=dev))
    for i in range(n):
        j = pick(samples.images.shape[0]) if patterns is None else i % samples.images.shape[0]
        c, z = (pick(contrasts), pick(5)) if patterns is None else ((i // samples.images.shape[0]) % 2, 2)
        x, label = samples.images[j, c, z].float().to(dev)[None], samples.label[j, z].to(dev)[None]
        if tissue:
            x = data.tissues(x[None], label[None], tissue, rng)[0]
        body = (label > 0).float()
        h, w = x.shape[-2:]
        if patterns is None:
            x = x * torch.exp(_uniform((1, 1, 1), 0, 0.4, rng) * data.smooth_field(1, h, w, 2, rng)[:, 0])
            t = F.interpolate(torch.randn(1, 1, h // 2, w // 2, generator=rng, device=dev), size=(h, w), mode="bilinear")[:, 0]
            x = (x * (1 + 0.06 * float(torch.rand((), generator=rng, device=dev)) * t)).clamp_min(0)
            if pick(2):
                x, body = x.transpose(-2, -1), body.transpose(-2, -1)
        # The body goes on beyond the field of view; coils and saturation end there. Left out in a third of the training.
        if patterns is not None or pick(3):
            end = torch.linspace(-1, 1, h, device=dev).abs()
            x = x * ((1 - end) / 0.12).clamp(0, 1).view(1, h, 1)
        s = parallel.coils(1, COILS, h, w, rng, shifted)
        rss = s.abs().square().sum(1).sqrt()
        if snrs is None:
            level = math.exp(float(_uniform((), math.log(5), math.log(60), rng)))
            rate, variable = 2 + pick(3), bool(pick(2))
        else:
            level, (rate, variable) = snrs[(i // len(patterns)) % len(snrs)], patterns[i % len(patterns)]
        truth = x * torch.exp(1j * data.phases(1, h, w, rng)[:, 0]) * (level / data.foreground_mean(x * rss, body))[:, None, None]
        if patterns is None:
            unit = 1 / rss.clamp_min(1e-3)
            things = data.implants(1, h, w, unit[:, None], rng)[:, 0] * body
            truth = truth + things * torch.exp(1j * truth.angle())
        m = parallel.mask(1, h, rate, variable, 24, rng)
        y, clean = parallel.lines(truth, s, m, rng)
        maps = parallel.espirit(y[0])[None]
        noise = parallel.sense_noise(maps, m)
        reference = (maps.conj() * data.ifft2(clean)).sum(1)
        out.append({"truth": truth, "coils": s, "maps": maps, "mask": m, "noise": noise, "reference": reference,
                    "body": body * (noise > 0), "rate": rate, "variable": variable, "snr": level})
    return out


def gather(cases):
    return [torch.cat([c[k] for c in cases]) for k in ("truth", "coils", "maps", "mask", "noise", "reference", "body")]


def steps_of(model, cases, rng, cascades):
    """Cascades of a batch with fresh noise, in units of the mean noise of SENSE in the body: [(image, own error, z)], weights."""
    truth, coils, maps, m, noise, reference, body = gather(cases)
    y, _ = parallel.lines(truth, coils, m, rng)
    start = parallel.sense(y, maps, m, n=40)
    unit = ((noise * body).sum((-2, -1)) / body.sum((-2, -1)).clamp_min(1))[:, None, None]
    weight = (0.1 + 0.9 * body) * (noise > 0)
    steps = parallel.unrolled(model, y, maps, m, noise, cascades, start)
    return steps, reference, unit, weight, body, (start, y, maps, m)


def loss_of(steps, reference, unit, weight):
    total = 0.0
    for k, (z, own, x, _) in enumerate(steps):
        e = torch.view_as_real((x - reference) / unit)
        huber = F.huber_loss(e, torch.zeros_like(e), reduction="none", delta=2.0).mean(-1)
        off = torch.view_as_real((z - reference) / unit)
        first = F.huber_loss(off, torch.zeros_like(off), reduction="none", delta=2.0).mean(-1)
        square = off.detach().square().mean(-1).clamp_max(25.0)
        s = (own / unit).clamp_min(1e-4)
        likelihood = 0.5 * square / s**2 + torch.log(s)
        share = 1.0 if k == len(steps) - 1 else 0.3
        total = total + share * ((huber + 0.3 * first + 0.05 * likelihood * (own > 0)) * weight).mean()
    return total


@torch.no_grad()
def validate(model, check, args):
    rng = torch.Generator(device=args.device).manual_seed(5)
    before = after = n = 0.0
    for i in range(0, len(check), args.batch):
        steps, ref, unit, _, body, (start, *_) = steps_of(model, check[i : i + args.batch], rng, args.cascades)
        after += float(((steps[-1][2] - ref).abs() / unit * body).square().sum())
        before += float(((start - ref).abs() / unit * body).square().sum())
        n += float(body.sum())
    return math.sqrt(after / n / 2), math.sqrt(before / n / 2)


def train(model, cases, check, args, save):
    rng = torch.Generator(device=args.device).manual_seed(args.seed)
    average = copy.deepcopy(model).eval()
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=1e-4)
    scaler = torch.amp.GradScaler("cuda", enabled=args.device == "cuda", init_scale=1024.0)
    history, losses, step, began, marked = [], [], 0, time.monotonic(), 0.0
    while (spent := time.monotonic() - began) < args.seconds:
        done = spent / args.seconds
        rate = args.rate * min(1.0, done / 0.05 + 0.05) * (0.5 * (1 + math.cos(math.pi * done)) + 0.01)
        for group in optimiser.param_groups:
            group["lr"] = rate
        chosen = torch.randint(len(cases), (args.batch,), generator=rng, device=args.device).tolist()
        steps, ref, unit, weight, _, _ = steps_of(model, [cases[i] for i in chosen], rng, args.cascades)
        loss = loss_of(steps, ref, unit, weight)
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimiser)
        scaler.update()
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - min(0.995, (1 + step) / (10 + step)))
        losses.append(float(loss.detach()))
        if time.monotonic() - marked > max(args.seconds / 12, 2.0):
            marked = time.monotonic()
            after, before = validate(average, check, args)
            history.append({"seconds": round(spent, 1), "step": step, "train_loss": float(np.mean(losses)), "validation_rms": after, "sense_rms": before})
            losses = []
            say(f"step {step}: loss {history[-1]['train_loss']:.4f}, validation rms / noise {after:.4f} (SENSE {before:.4f})")
            if not math.isfinite(history[-1]["train_loss"]):
                raise SystemExit("training diverged: try a lower --rate")
            save(average, history)
    after, before = validate(average, check, args)
    history.append({"seconds": round(args.seconds, 1), "step": step, "validation_rms": after, "sense_rms": before})
    say(f"{step} steps, validation {after:.4f}")
    return average, history


def ssim(a, b, body, peak):
    k = torch.ones(1, 1, 7, 7, device=a.device) / 49
    mean = lambda t: F.conv2d(t[None, None], k, padding=3)[0, 0]
    ma, mb = mean(a), mean(b)
    va, vb, ab = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    return float(((2 * ma * mb + c1) * (2 * ab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))[body].mean())


def hfen(a, b, body):
    """Error of a Laplacian of Gaussian, 15 x 15, sigma 1.5, over its norm."""
    t = torch.arange(-7, 8, device=a.device).float()
    r2 = t[:, None] ** 2 + t[None, :] ** 2
    g = torch.exp(-r2 / (2 * 1.5**2))
    log = (r2 - 2 * 1.5**2) * g
    log = log - log.mean()
    f = lambda x: F.conv2d(x[None, None], log[None, None], padding=7)[0, 0][body]
    return float((f(a) - f(b)).norm() / f(b).norm())


def score(image, reference, body):
    a, b, inside = image.abs()[0], reference.abs()[0], body[0] > 0
    peak = float(b[inside].max())
    return {"psnr_db": float(20 * math.log10(peak) - 10 * torch.log10((a - b)[inside].square().mean())),
            "ssim": ssim(a, b, inside, peak), "hfen": hfen(a, b, inside)}


SENSE_WEIGHTS = (3e-3, 1e-2, 3e-2, 0.1, 0.3)
L1_WEIGHTS = (0.5, 1.0, 1.7, 2.5)


def tune(check, rng):
    """Weights of SENSE and of L1-wavelet with the least error on the validation family, for every pattern and level by itself:
    {(rate, variable, snr): {method: weight}}. What they are held against is tuned as well as it can be."""
    best = {}
    for key in sorted({(c["rate"], c["variable"], c["snr"]) for c in check}):
        here = [c for c in check if (c["rate"], c["variable"], c["snr"]) == key]
        total = {"CG-SENSE": dict.fromkeys(SENSE_WEIGHTS, 0.0), "L1-wavelet": dict.fromkeys(L1_WEIGHTS, 0.0)}
        for c in here:
            y, _ = parallel.lines(c["truth"], c["coils"], c["mask"], rng)
            error = lambda x: float(((x.abs() - c["reference"].abs()) * c["body"]).square().sum() / c["body"].sum())
            for v in SENSE_WEIGHTS:
                total["CG-SENSE"][v] += error(parallel.sense(y, c["maps"], c["mask"], v, 40))
            for v in L1_WEIGHTS:
                total["L1-wavelet"][v] += error(parallel.l1_wavelet(y, c["maps"], c["mask"], v, rng, 50))
        best[key] = {m: min(t, key=t.get) for m, t in total.items()}
    return best


@torch.no_grad()
def measure(models, cases, best, rng, cascades):
    rows = []
    for c in cases:
        weight = best[c["rate"], c["variable"], c["snr"]]
        y, clean = parallel.lines(c["truth"], c["coils"], c["mask"], rng)
        ref, body, maps, m = c["reference"], c["body"], c["maps"], c["mask"]
        everything = (maps.conj() * data.ifft2(clean + data.white(clean.shape, rng))).sum(1)
        images = {f"all lines ({c['rate']}x the time)": everything,
                  "CG-SENSE": parallel.sense(y, maps, m, weight["CG-SENSE"], 40),
                  "L1-wavelet": parallel.l1_wavelet(y, maps, m, weight["L1-wavelet"], rng)}
        twice = parallel.lines(c["truth"], c["coils"], m, rng)[0]
        images["CG-SENSE, two averages (twice the time)"] = parallel.sense((y + twice) / 2, maps, m, weight["CG-SENSE"] / 2, 40)
        row = {"rate": c["rate"], "variable": c["variable"], "snr": c["snr"], "methods": {}}
        for name, (model, n) in models.items():
            z, own, x, both = parallel.unrolled(model, y, maps, m, c["noise"], n)[-1]
            images[name] = x
            if name == "unrolled":
                inside = torch.view_as_real(x - ref).abs() <= 1.645 * both[..., None]
                row["coverage"] = float(inside[body > 0].float().mean())
                row["distance"] = float(parallel.distance(x, y, maps, m))
                row["distance_of_reference"] = float(parallel.distance(ref, y, maps, m))
        for name, x in images.items():
            row["methods"][name.replace(f"({c['rate']}x the time)", "(R times the time)")] = score(x, ref, body)
        rows.append(row)
    return rows


def table(rows):
    """Means per pattern: {"R=3": {methods: {...}, coverage, distance, ...}}."""
    out = {}
    for key in sorted({(r["rate"], r["variable"]) for r in rows}):
        here = [r for r in rows if (r["rate"], r["variable"]) == key]
        name = f"R={key[0]}" + (", variable density" if key[1] else "")
        methods = {m: {k: float(np.mean([r["methods"][m][k] for r in here])) for k in ("psnr_db", "ssim", "hfen")} for m in here[0]["methods"]}
        out[name] = {"methods": methods, "images": len(here), **{k: float(np.mean([r[k] for r in here])) for k in ("coverage", "distance", "distance_of_reference")}}
    return out


@torch.no_grad()
def panels(path, models, families, best, rng):
    """One row per family: the R = 4 case of the lowest level, by every method, the reference, and error over noise of the last."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = []
    for name, cases in families.items():
        c = max(cases, key=lambda c: (c["rate"], -c["snr"], -c["variable"]))
        y, _ = parallel.lines(c["truth"], c["coils"], c["mask"], rng)
        weight = best[c["rate"], c["variable"], c["snr"]]
        row = [("CG-SENSE", parallel.sense(y, c["maps"], c["mask"], weight["CG-SENSE"], 40)),
               ("L1-wavelet", parallel.l1_wavelet(y, c["maps"], c["mask"], weight["L1-wavelet"], rng))]
        for label, (model, n) in models.items():
            _, _, x, both = parallel.unrolled(model, y, c["maps"], c["mask"], c["noise"], n)[-1]
            row.append((label, x))
        row = [(a, b.abs()[0]) for a, b in row] + [("reference", c["reference"].abs()[0])]
        off = (x - c["reference"]).abs()[0] / c["noise"].clamp_min(1e-6)[0]
        rows.append((f"{name}, R = {c['rate']}, SNR {c['snr']:g}", row + [("error of unrolled / noise of SENSE", off), ("predicted sigma / noise of SENSE", (both / c["noise"].clamp_min(1e-6))[0])]))
    figure, axes = plt.subplots(len(rows), len(rows[0][1]), figsize=(2.6 * len(rows[0][1]), 2.7 * len(rows)), squeeze=False)
    for line, (name, row) in zip(axes, rows):
        top = float(dict(row)["reference"].quantile(0.995))
        for a, (label, image) in zip(line, row):
            a.imshow(image.cpu().numpy(), cmap="gray", vmin=0, vmax=2 if "error" in label else 1 if "sigma" in label else top)
            a.set_title(label, fontsize=8)
            a.set_axis_off()
        line[0].text(0, -14, name, fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def verdicts(result):
    """[(what, needed, found, where, reached)], worst over families."""
    found = []
    worst = lambda values: min(values, key=lambda v: v[0])
    families = result.get("families_measured", {})
    gain = lambda t, other: t["methods"]["unrolled"]["psnr_db"] - t["methods"][other]["psnr_db"]
    for name, over_sense, over_l1 in TARGETS:
        cells = [(fam + ", " + p, t) for fam, ts in families.items() for p, t in ts.items() if p.startswith(name)]
        if not cells:
            continue
        v, w = worst([(gain(t, "CG-SENSE"), w) for w, t in cells])
        found.append((f"{name}: over CG-SENSE, dB", f">= {over_sense:g}", v, w, v >= over_sense))
        if over_l1:
            v, w = worst([(gain(t, "L1-wavelet"), w) for w, t in cells])
            found.append((f"{name}: over L1-wavelet, dB", f">= {over_l1:g}", v, w, v >= over_l1))
        else:
            v, w = worst([(t["methods"]["unrolled"]["ssim"], w) for w, t in cells])
            found.append((f"{name}: SSIM", ">= 0.93", v, w, v >= 0.93))
            v, w = worst([(-t["methods"]["unrolled"]["hfen"], w) for w, t in cells])
            found.append((f"{name}: HFEN", "<= 0.25", -v, w, -v <= 0.25))
    cells = [(fam + ", " + p, t) for fam, ts in families.items() for p, t in ts.items()]
    if cells:
        v, w = max(((t["distance"], w) for w, t in cells), key=lambda x: abs(x[0] - 1))
        found.append(("lines from the image, standard deviations", "0.95-1.05", v, w, 0.95 <= v <= 1.05))
        v, w = max(((t["coverage"], w) for w, t in cells), key=lambda x: abs(x[0] - 0.9))
        found.append(("sigma: 90 % interval holds", "0.87-0.93", v, w, 0.87 <= v <= 0.93))
    return found


def write(out, r):
    if "sha256" in r:
        cascades = f"\n[cascades]\nn = {r['cascades']}\nsigma_ratio = {r['sigma_ratio']:.4f}\n"
        (out / "model.toml").write_text(report_file.manifest(r, "unrolled", "1", verdicts(r), cascades))
    (out / "report.json").write_text(json.dumps(r, indent=1, default=float))
    lines = ["# Unrolled reconstruction: what was measured", ""]
    if not r["complete"]:
        lines += ["**This run was not finished; what is below is what there is.**", ""]
    if r["tiny"]:
        lines += ["**A tiny run: it proves that all steps run. Its figures say nothing about the method.**", ""]
    lines += [f"Simulated data only: {COILS} coils, 256 x 256, 24 calibration lines, ESPIRiT maps from them; levels {r['snr']} (mean signal of the body over the noise, all lines). "
              f"{r['device']}, torch {r['torch']}; {r.get('parameters', 0):,} parameters, {r['cascades']} cascades, trained {r.get('training_seconds', 0):g} s on {r.get('cases', 0)} images "
              f"after the denoiser's training. Weights of CG-SENSE and L1-wavelet chosen on the validation family for every pattern and level: {r.get('best')}.", ""]
    v = verdicts(r)
    if v:
        lines += ["| figure | needed | worst found | where | reached |", "| --- | --- | --- | --- | --- |"]
        lines += [f"| {a} | {b} | {c:.3f} | {d} | {'yes' if e else '**not reached**'} |" for a, b, c, d, e in v] + [""]
    for fam, ts in r.get("families_measured", {}).items():
        names = list(next(iter(ts.values()))["methods"])
        lines += [f"## {fam}: PSNR in the body, dB (SSIM, HFEN)", "", "| pattern | " + " | ".join(names) + " | 90 % interval holds | lines from the image | from the reference |", "| --- |" + " --- |" * (len(names) + 3)]
        for p, t in ts.items():
            cells = " | ".join(f"{t['methods'][n]['psnr_db']:.2f} ({t['methods'][n]['ssim']:.3f}, {t['methods'][n]['hfen']:.2f})" for n in names)
            lines.append(f"| {p} | {cells} | {t['coverage']:.3f} | {t['distance']:.3f} | {t['distance_of_reference']:.3f} |")
        lines.append("")
    lines += ["The reference is the noise-free image through the same maps; all methods use the same lines and the same maps. \"Lines from the image\": root mean square, in standard deviations of the noise; that of the reference is what the error of the maps alone leaves."]
    (out / "report.md").write_text("\n".join(lines) + "\n")


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    device = args.device
    folder = args.data or Path(tempfile.mkdtemp(prefix="cauda-train-"))
    simulator = subprocess.run([args.cauda, "--version"], capture_output=True, text=True).stdout.strip()
    result = {"simulator": simulator, "command": " ".join(sys.argv[1:]), "torch": torch.__version__, "tiny": args.tiny, "complete": False, "cascades": args.cascades, "snr": args.snr,
              "device": torch.cuda.get_device_name() if device == "cuda" else device, "commit": args.commit, "cases": args.cases}
    sets = {n: data.simulate(args.cauda, n, args.samples if n == "train" else args.test_samples, folder / n) for n in data.FAMILIES}
    result["families"] = {n: {"seed": data.FAMILIES[n].seed, "samples": int(s.images.shape[0])} for n, s in sets.items()}
    say("samples read")
    rng = torch.Generator(device=device).manual_seed(11)
    cases = make_cases(sets["train"], 0 if args.evaluate else args.cases, rng)
    check = make_cases(sets["validation"], 2 if args.tiny else 12, rng)
    say(f"{len(cases)} cases")

    model = Denoiser(UNet()).to(device)
    waited = time.monotonic()
    while args.start and not args.start.exists() and time.monotonic() - waited < args.wait:
        time.sleep(0.5)
    plain = copy.deepcopy(model)
    if args.start:
        plain.load_state_dict(torch.load(args.start, map_location=device, weights_only=True)["denoiser"])
    model.load_state_dict(plain.state_dict())
    if again := args.resume or args.evaluate:
        model.load_state_dict(torch.load(again, map_location=device, weights_only=True)["unrolled"])
    say(f"begins with {again or args.start}")
    plain.eval()
    result["parameters"] = n_parameters(model)

    def save(average, history):
        torch.save({"unrolled": {k: v.detach().cpu() for k, v in average.state_dict().items()}}, args.out / "checkpoint.part")
        (args.out / "checkpoint.part").rename(args.out / "checkpoint.pt")
        result["history"] = {"unrolled": history}
        write(args.out, result)

    history = []
    if args.evaluate:
        earlier = args.evaluate.parent / "report.json"
        history = json.loads(earlier.read_text())["history"]["unrolled"] if earlier.exists() else []
        result["evaluated"] = str(args.evaluate)
    else:
        model, history = train(model, cases, check, args, save)
    result["training_seconds"] = history[-1]["seconds"] if history else 0
    del cases
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    round_weights(model)
    # Sigma of the last answer: scaled so that 1.645 of it holds 90 % on the validation family.
    ratios = []
    with torch.no_grad():
        for c in check:
            steps, ref, _, _, body, _ = steps_of(model, [c], rng, args.cascades)
            r = torch.view_as_real(steps[-1][2] - ref).abs() / steps[-1][3].clamp_min(1e-9)[..., None]
            ratios.append(r[body > 0].flatten().cpu().numpy())
    result["sigma_ratio"] = float(np.quantile(np.concatenate(ratios), 0.9)) / 1.645
    save(model, history)
    result["export"] = export(model, args.out / "model.onnx")
    result["sha256"] = hashlib.sha256((args.out / "model.onnx").read_bytes()).hexdigest()
    result["card_ms_per_320x320_slice"] = card_time(model, device)
    save(model, history)
    say(f"exported: {result['export']}, sigma off by {result['sigma_ratio']:.3f}")

    patterns = [(3, False)] if args.tiny else [(2, False), (3, False), (4, False), (3, True), (4, True)]
    with torch.no_grad():
        tuning = make_cases(sets["validation"], len(patterns) * len(args.snr), torch.Generator(device=device).manual_seed(17), snrs=args.snr, patterns=patterns)
        best = tune(tuning, rng)
    result["best"] = {f"R={k[0]}{' variable' if k[1] else ''}, SNR {k[2]:g}": v for k, v in best.items()}
    say(f"weights: {result['best']}")
    models = {"denoiser in 2 cascades": (plain, 2), "unrolled": (model, args.cascades)}
    shown = {}
    for name in data.TESTS:
        family = data.FAMILIES[name]
        n = len(patterns) * len(args.snr) * args.replicates
        tested = make_cases(sets[name], n, torch.Generator(device=device).manual_seed(family.seed + 7), family.coils, args.snr, patterns, tissue=family.tissue)
        result.setdefault("families_measured", {})[name] = table(measure(models, tested, best, rng, args.cascades))
        shown[name] = tested[: len(patterns)]
        write(args.out, result)
        say(f"measured {name}")
    result["complete"] = True
    write(args.out, result)
    panels(args.out / "panels.png", models, shown, best, rng)


if __name__ == "__main__":
    main()
