"""report.json, report.md, model.toml, curves.png, panels.png."""

import json
import math

import numpy as np
import torch

import baselines
import evaluate
from evaluate import TARGETS


def write(out, result):
    text = json.dumps(result, indent=1, default=float)
    (out / "report.json").write_text(text)
    (out / "report.md").write_text(markdown(result))
    if "sha256" in result:
        (out / "model.toml").write_text(manifest(result))
    if result.get("history"):
        curves(out / "curves.png", result["history"])


def verdicts(result):
    """[(what, needed, worst found, where, reached)]: over all test families and levels, never the mean of them."""
    found = []

    def add(what, needed, values, ok, badness=lambda v: -v):
        """`values` are (figure, where); what has no finite figure has not reached it."""
        if values:
            reached = [math.isfinite(v) and ok(v) for v, _ in values]
            v, where = max(values, key=lambda x: badness(x[0]) if math.isfinite(x[0]) else math.inf)
            found.append((what, needed, v, where, all(reached), f"{sum(reached)} of {len(values)}"))

    ours = [(r, f"{fam}, SNR {r['snr']:g}") for fam, rs in result.get("replicas", {}).items() for r in rs if r["method"] == "ours"]
    add("SNR gain in flat tissue", ">= 1.47", [(r["snr_gain"], w) for r, w in ours], lambda v: v >= TARGETS["snr_gain"])
    add("edge loss (10-90 % width), %", "<= 5", [(r["edge_loss_percent"], w) for r, w in ours if r["edges"]], lambda v: v <= TARGETS["edge_loss_percent"], lambda v: v)
    add("contrast kept of 3 mm discs at CNR 3", ">= 0.90", [(r["contrast_kept"], w) for r, w in ours if r["discs"]], lambda v: v >= TARGETS["contrast_kept"])
    add("false disc of 3 mm in lesion-free tissue, CNR of the mean", "<= 1", [(r["false_disc_cnr"], w) for r, w in ours if math.isfinite(r["false_disc_cnr"])], lambda v: v <= TARGETS["false_disc_cnr"], lambda v: v)
    cells = [(c, f"{fam}, SNR {snr}") for fam, levels in result.get("fidelity", {}).items() for snr, c in levels.items()]
    low, high = TARGETS["coverage"]
    add("sigma: 90 % interval holds", "0.87-0.93", [(c["coverage"], w) for c, w in cells], lambda v: low <= v <= high, lambda v: abs(v - 0.9))
    for other in ("NLM", "BM3D-like", "DnCNN"):
        add(f"PSNR over {other}, dB", ">= 1", [(c["methods"]["ours"]["psnr_db"] - c["methods"][other]["psnr_db"], w) for c, w in cells if other in c["methods"]],
            lambda v: v >= TARGETS["db_over_best_other"])
    return found


def markdown(r):
    lines = ["# Denoiser: what was measured", ""]
    if not r["complete"]:
        lines += ["**This run was not finished; what is below is what there is.**", ""]
    if r["tiny"]:
        lines += ["**A tiny run: it proves that all steps run. Its figures say nothing about the method.**", ""]
    fam = ", ".join(f"{n} {f.get('samples', 0)} (seeds from {f['seed']})" for n, f in r["families"].items())
    lines += [f"Simulated data only. {r['device']}, torch {r['torch']}; {r.get('parameters', 0):,} parameters, trained {r.get('training_seconds', 0):g} s; "
              f"DnCNN {r.get('dncnn_parameters', 0):,} parameters, {r.get('dncnn_seconds', 0):g} s. Samples: {fam}.", "",
              "Levels: mean signal in the foreground over the noise's standard deviation (one part, g = 1). Test images have a phase, a g-factor and "
              "mild echo-train decay; foreground is the body. PSNR is of the magnitude, NRMSE of the complex image.", ""]
    v = verdicts(r)
    if v:
        lines += ["## Asked for, and found", "", "| figure | needed | worst found | where | reached | cells that do |", "| --- | --- | --- | --- | --- | --- |"]
        lines += [f"| {w} | {n} | {x:.3f} | {where} | {'yes' if ok else '**not reached**'} | {count} |" for w, n, x, where, ok, count in v]
        lines.append("")
    for family, levels in r.get("fidelity", {}).items():
        names = list(next(iter(levels.values()))["methods"])
        lines += [f"## {family}: PSNR, dB (NRMSE)", "", "| SNR | " + " | ".join(names) + " | averages that equal ours | 90 % interval holds |",
                  "| --- |" + " --- |" * (len(names) + 2)]
        for snr, c in levels.items():
            m = c["methods"]
            equal = (m["noisy"]["nrmse"] / m["ours"]["nrmse"]) ** 2
            lines.append(f"| {snr} | " + " | ".join(f"{m[n]['psnr_db']:.2f} ({m[n]['nrmse']:.4f})" for n in names) + f" | {equal:.1f} | {c['coverage']:.3f} |")
        lines.append("")
    for family, records in r.get("replicas", {}).items():
        lines += [f"## {family}: many draws of the same images", "",
                  "Noise and bias in units of the local noise, in flat tissue; edges in pixels, of the mean of the draws, at steps of at least 4 times the noise.", "",
                  "| SNR | method | SNR gain | rms bias | largest bias (its z) | edge 10-90 %, truth | found | loss % (n) | 3 mm CNR 3 disc: contrast kept (worst, spread of one draw, n) | false disc, CNR |",
                  "| --- |" + " --- |" * 9]
        for x in records:
            lines.append(f"| {x['snr']:g} | {x['method']} | {x['snr_gain']:.2f} | {x['bias_rms']:.3f} | {x['bias_max']:.2f} ({x['bias_max_z']:.0f}) | {x['edge_truth_px']:.2f} | {x['edge_px']:.2f} | "
                         f"{x['edge_loss_percent']:.1f} ({x['edges']}) | {x['contrast_kept']:.3f} ({x['contrast_kept_worst']:.2f}, {x['contrast_spread']:.2f}, {x['discs']}) | {x['false_disc_cnr']:.2f} |")
        lines.append("")
    lines += ["## How", "",
              "* NLM: scikit-image, patch 5, reach 7, told sigma; its h is chosen on the validation family. BM3D-like: two stages in torch, fixed groups (baselines.py). "
              "Both work on the image divided by noise and g-factor, one slice.",
              "* Two averages cost twice the time; \"averages that equal ours\" is the number of equal scans whose mean has our NRMSE.",
              "* shifted-anatomy: necks. shifted-coils: g-factors to 4.5 with bands along both axes, faster phase. shifted-tissue: the brightness of every tissue +-20 %, done to the image.",
              "* False disc: the mean residual of the draws, matched with a 3 mm disc against its ring, in flat tissue without lesions; the noise of the mean is in it.",
              "* z of the largest bias grows with the number of draws: any smoothing has it."]
    if "export" in r:
        lines.append(f"* ONNX Runtime {r['export']['onnxruntime']} against PyTorch, largest difference over largest value: {r['export']['relative_difference']}; "
                     f"{r['export']['ms_per_320x320_slice_2_threads']} ms per 320x320 slice on 2 threads of that machine; card {r.get('card_ms_per_320x320_slice')} ms.")
    return "\n".join(lines) + "\n"


def manifest(r, name="denoiser", version="2", found=None, more=""):
    """`found`: verdicts; `more`: tables of its own; every model of the denoiser's contract has the same ports."""
    found = verdicts(r) if found is None else found
    quality = [f'{{ figure = "{w}", needed = "{n}", worst = {x:.4g}, where = "{where}", reached = {str(ok).lower()} }}' for w, n, x, where, ok, *_ in found if math.isfinite(x)]
    seeds = "\n".join(f'{n} = {{ first_seed = {f["seed"]}, samples = {f.get("samples", 0)} }}' for n, f in r["families"].items())
    return f"""name = "{name}"
version = "{version}"
kind = "denoiser"
file = "model.onnx"
sha256 = "{r['sha256']}"
opset = 17
parameters = {r['parameters']}
licence = "MIT"
intended_use = "Complex multi-slice 2D MR images of the spine with a known noise level and g-factor. Trained on simulated images only; not a medical device."
size_multiple = 8
slices = 3
tiny = {str(r['tiny']).lower()}
complete = {str(r['complete']).lower()}

[inputs.image]
dtype = "f32"
shape = ["n", 6, "h", "w"]
units = "any; those of noise"
meaning = "real, imaginary of the previous, this and the next slice; at an edge this slice is repeated"

[inputs.gfactor]
dtype = "f32"
shape = ["n", 1, "h", "w"]
units = "1"
meaning = "noise amplification, > 0; 1 where there is none"

[inputs.noise]
dtype = "f32"
shape = ["n"]
units = "those of image"
meaning = "standard deviation of the real (and of the imaginary) part where gfactor is 1"

[outputs.denoised]
dtype = "f32"
shape = ["n", 2, "h", "w"]
units = "those of image"
meaning = "real, imaginary of this slice"

[outputs.sigma]
dtype = "f32"
shape = ["n", 1, "h", "w"]
units = "those of image"
meaning = "standard deviation of the error that remains, per real and per imaginary part"

[training]
data = "cauda simulate --dataset ({r['simulator']})"
commit = "{r['commit']}"
seconds = {r.get('training_seconds', 0)}
device = "{r['device']}"
torch = "{r['torch']}"

[training.families]
{seeds}

[quality]
data = "simulated; the worst of all test families and levels"
figures = [
  {(","+chr(10)+"  ").join(quality)}
]
{more}"""


def curves(path, history):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    for name, h in history.items():
        if not h:
            continue
        t = [x["seconds"] for x in h]
        axes[0].plot(t, [x["validation_rms"] for x in h], label=f"{name}, validation")
        axes[0].plot(t, [x.get("train_rms", np.nan) for x in h], ":", label=f"{name}, training")
        axes[1].plot(t, [x["coverage"] for x in h], label=name)
    axes[0].set(xlabel="training time, s", ylabel="rms error / noise")
    axes[1].axhline(0.9, color="grey", lw=0.5)
    axes[1].set(xlabel="training time, s", ylabel="share within 1.645 sigma", ylim=(0.6, 1))
    for a in axes:
        a.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


@torch.no_grad()
def panels(path, models, cases, rng, strength, others, bm3d=None, snr=8.0):
    """One row per test family: noisy, every method, truth, the residual of ours over the noise, its predicted sigma."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = []
    for case in cases:
        z, noise = case.noisy(snr, 1, rng)
        unit = noise * case.g[0, 0]
        row = [("noisy", z[0, 1].abs())]
        if others:
            x = z[0, 1] / unit
            row.append(("NLM", torch.from_numpy(np.abs(baselines.nlm(x.cpu().numpy(), strength))).to(unit.device) * unit))
            row.append(("BM3D-like", (baselines.bm3d_like(x, **(bm3d or {})) * unit).abs()))
        for name, model in models.items():
            d, s = evaluate.run(model, z, case.g, noise)
            row.append((name, d[0].abs()))
            if name == "ours":
                extra = [("removed / noise", (z[0, 1] - d[0]).real / unit), ("predicted sigma / noise", s[0] / unit)]
        row.append(("truth", case.truth[0, 1].abs()))
        rows.append((case, row + extra))
    columns = len(rows[0][1])
    figure, axes = plt.subplots(len(rows), columns, figsize=(2.6 * columns, 2.7 * len(rows)), squeeze=False)
    for line, (case, row) in zip(axes, rows):
        top = float(case.truth[0, 1].abs().quantile(0.995))
        for a, (name, image) in zip(line, row):
            low, high = {"removed / noise": (-3, 3), "predicted sigma / noise": (0, 0.8)}.get(name, (0, top))
            a.imshow(image.cpu().numpy(), cmap="gray", vmin=low, vmax=high)
            a.set_title(name, fontsize=8)
            a.set_axis_off()
        line[0].text(0, -14, f"{case.name}, SNR {snr:g}", fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)
