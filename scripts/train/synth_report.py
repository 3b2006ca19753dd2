"""report.json, report.md, model.toml, curves.png, panels.png of the synthesis networks."""

import json
import math

import numpy as np
import torch

import synth_data
import synth_evaluate as evaluate

SHIFT = {"test": "in-family", "shifted-anatomy": "necks", "shifted-coils": "shading, gains, twice the noise, T1w up to 2 px away", "shifted-tissue": "protons of every tissue +-20 %"}


def write(out, result):
    (out / "report.json").write_text(json.dumps(result, indent=1, default=float))
    (out / "report.md").write_text(markdown(result))
    if "sha256" in result:
        (out / "model.toml").write_text(manifest(result))
    if result.get("history"):
        curves(out / "curves.png", result)


def verdicts(r):
    """[(what, needed, found, where, reached)], one line per figure and family."""
    out = []

    def add(what, needed, value, where, ok):
        if value is not None:
            out.append((what, needed, value, where, bool(math.isfinite(value) and ok(value))))

    for name, f in r.get("figures", {}).items():
        add("90 % interval holds", "0.87-0.93", f.get("coverage"), name, lambda v: 0.87 <= v <= 0.93)
        if r["what"] == "ct":
            m = f["methods"]["ours"]
            add("MAE of the body, HU", "<= 55", m["body_mae_hu"], name, lambda v: v <= 55)
            add("MAE of spongy bone, HU (below 30: a leak)", "30-40", m["spongy_mae_hu"], name, lambda v: 30 <= v <= 40)
            add("Dice above 300 HU", ">= 0.85", m["cortical_dice"], name, lambda v: v >= 0.85)
            continue
        for c, (low, high) in {"stir": (27.0, 30.0), "t2fs": (26.5, 30.0)}.items():
            m = f[c]["methods"]
            ours, where = m["ours"]["psnr_db"], f"{c}, {name}"
            add("foreground PSNR, dB (above 30: a leak)", f"{low}-{high}", ours, where, lambda v: low <= v <= high)
            for other, by in (("affine", 3), ("quadratic", 2), ("two-point signal model", 2), ("plain U-Net", 0)):
                if other in m:
                    add(f"dB over {other}", f">= {by}", round(ours - m[other]["psnr_db"], 2), where, lambda v: v >= by)
            add("90 % interval holds", "0.87-0.93", f[c]["coverage"], where, lambda v: 0.87 <= v <= 0.93)
            for size, needed in ((">= 8 mm", 0.9), ("4-8 mm", 0.75)):
                found, n = f[c]["recall"][size]
                if n:
                    add(f"recall of {size} bright lesions of bone ({n})", f">= {needed}", found / n, where, lambda v: v >= needed)
            flagged, n = f[c]["recall"]["missed_flagged"]
            if n:
                add(f"missed lesions that are flagged ({n})", ">= 0.8", flagged / n, where, lambda v: v >= 0.8)
            add("false positives per case", "<= 0.5", f[c]["false_positives_per_case"], where, lambda v: v <= 0.5)
    for name, share in r.get("strangers", {}).items():
        if name != "as they are":
            add("share said to be out of domain", ">= 0.95", share, name, lambda v: v >= 0.95)
    if "shifted-anatomy" in r.get("figures", {}):
        add("share said to be out of domain", ">= 0.95", r["figures"]["shifted-anatomy"]["out_of_domain"], "necks", lambda v: v >= 0.95)
    return out


def _table(head, rows):
    return ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"] + ["| " + " | ".join(str(v) for v in r) + " |" for r in rows] + [""]


def markdown(r):
    ct = r["what"] == "ct"
    lines = ["# Synthetic CT: what was measured" if ct else "# Synthetic STIR and T2FS: what was measured", ""]
    if not r["complete"]:
        lines += ["**This run was not finished; what is below is what there is.**", ""]
    if r["tiny"]:
        lines += ["**A tiny network: it proves that all steps run. Its figures say nothing about the method.**", ""]
    families = ", ".join(f"{n} {f['samples']} (seeds from {f['seed']})" for n, f in r["families"].items())
    lines += [f"Simulated data only. Trained {r.get('training_seconds', 0):g} s on {r.get('trained_on', '?')}, torch {r['torch']}; {r.get('parameters', 0):,} parameters"
              + (f"; plain U-Net {r['plain_parameters']:,} parameters, {r['plain_seconds']:g} s" if "plain_seconds" in r else "") + f". Samples, five slices each: {families}.", ""]
    v = verdicts(r)
    if v:
        lines += ["## Asked for, and found", "", *_table(["figure", "needed", "found", "where", "reached"], [(w, n, f"{x:.3g}" if abs(x) < 1 else f"{x:.2f}", at, "yes" if ok else "**not reached**") for w, n, x, at, ok in v])]
    for name, f in r.get("figures", {}).items():
        lines += [f"## {name} ({SHIFT[name]}): {f['cases']} cases", ""]
        if ct:
            keys = ["body_mae_hu", "spongy_mae_hu", "cortical_mae_hu", "soft_mae_hu", "air_mae_hu", "cortical_dice", "bone_dice"]
            lines += _table(["method", "MAE body, HU", "spongy", "cortical", "soft", "air", "Dice > 300 HU", "Dice bone"], [(m, *(x.get(k, "") for k in keys)) for m, x in f["methods"].items()])
            lines += [f"The 90 % interval holds {f['coverage']:.3f} of the body; it abstains on {f['abstains']:.3f} of it; slices out of domain {f['out_of_domain']:.3f}.", ""]
            continue
        for c in evaluate.CONTRASTS:
            x = f[c]
            lines += [f"### {c.upper()}", "", *_table(["method", "foreground PSNR, dB", "worst case", "whole field", "SSIM, foreground"],
                      [(m, y["psnr_db"], y["psnr_worst_case_db"], y["psnr_total_db"], y["ssim"]) for m, y in x["methods"].items()])]
            sizes = ", ".join("{}: {} of {}".format(s, *x["recall"][s]) for _, _, s in evaluate.SIZES)
            kinds = ", ".join(f"{k} {a} of {n}" for k, (a, n) in x["recall"]["by_kind"].items())
            a, n = x["recall"]["missed_flagged"]
            lines += [f"Bright lesions of bone found: {sizes} ({kinds or 'none there'}); median share of contrast kept {x['recall']['median_contrast_kept']}; missed and flagged: {a} of {n}; "
                      f"false positives per case {x['false_positives_per_case']}; 90 % interval holds {x['coverage']:.3f}; abstains on {x['abstains']:.3f} of the body.", ""]
        lines += [f"Slices out of domain: {f['out_of_domain']:.3f}.", ""]
    if r.get("noise_levels"):
        lines += ["## test, by the noise of the inputs", ""]
        if ct:
            lines += _table(["noise / scale", "MAE body, HU", "spongy", "90 % interval"], [(k, f["methods"]["ours"]["body_mae_hu"], f["methods"]["ours"]["spongy_mae_hu"], f["coverage"]) for k, f in r["noise_levels"].items()])
        else:
            lines += _table(["noise / scale", "STIR, dB", "T2FS, dB", "90 % interval STIR", "T2FS"], [(k, *(f[c]["methods"]["ours"]["psnr_db"] for c in evaluate.CONTRASTS), *(f[c]["coverage"] for c in evaluate.CONTRASTS)) for k, f in r["noise_levels"].items()])
    if r.get("strangers"):
        lines += ["## Out of domain", "", *_table(["inputs", "share of slices flagged"], list(r["strangers"].items()))]
    lines += ["## How", ""]
    if ct:
        lines += ["* Truth is the CT number of the MR voxel (all of its thickness), without noise: the sample's 1 mm CT lies on the MR slices only in the middle of the slab.",
                  "* Spongy: two pixels inside of the vertebral bodies, no lesion. Mineral is drawn apart from fat, so T1w and T2w cannot tell it: about 32 HU are out of reach.",
                  "* Regressions are fitted voxel by voxel on the training family, all in the body. \"Bulk by true tissue\" knows the tissue of every voxel: no method has that."]
    else:
        lines += ["* PSNR: of the body, data range 1 where the median of the fluid in the dural sac of the target is 1, squared errors pooled over the family; \"whole field\" has the air in it.",
                  "* Inputs have noise of 2 % of the series' 99.5th percentile unless said otherwise; targets have none.",
                  "* Affine and quadratic: regression of each voxel, fitted on training. T2w - alpha T1w: scale, alpha and offset fitted to the truth of each image (an oracle). Two-point: fat fraction and T2 "
                  "from both, with one PD and one T1 of water, rendered. Signal model on the true maps: what rendering alone can do (no stimulated echoes, chemical shift, blur, nor the patient's own fat T1).",
                  f"* A lesion counts where it is bone and brighter than the bone around it by {evaluate.VISIBLE:g} of fluid in the *true* image; it is found with half of that contrast, in the slice where it is largest; its "
                  "size is the diameter of a disc of its area. False positive: a 5 px mean in a vertebral body that exceeds the 21 px mean about it by the threshold "
                  f"({r.get('false_positive_threshold', 'n.a.')}: half of the median lesion's contrast in the validation family), where the truth has less than half of that. A missed lesion is flagged if the stage would abstain on a fifth of it.",
                  "* Plain U-Net: the same trunk without sequences, maps and signal model, trained for the time that is stated above."]
    if "export" in r:
        e = r["export"]
        lines += [f"* ONNX Runtime {e['onnxruntime']} against PyTorch, largest difference over largest value: {({k: float(f'{v:.1e}') for k, v in e['relative_difference'].items()})}; "
                  f"{e['ms_per_320x320_slice_2_threads']} ms per 320x320 slice on 2 threads of that machine; 15 slices on the card: {r.get('card_ms_per_exam')} ms. {e['bytes'] / 1e6:.1f} MB."]
    return "\n".join(lines) + "\n"


INPUTS = {
    "t1w": ('["n", 3, "h", "w"]', "99.5th percentile of the series = 1", "T1w magnitude of the previous, this and the next slice; at an edge this slice is repeated"),
    "t2w": ('["n", 3, "h", "w"]', "99.5th percentile of the series = 1", "T2w, the same; CT: zeros where absent"),
    "noise": ('["n", 2]', "those of t1w, t2w", "standard deviation of the noise of t1w, t2w"),
    "sequence": ('["n", 16]', "T, ms, 1", "b0; t1w: tr, te, etl, esp; t2w: tr, te, etl, esp; stir: tr, te, ti, esp; t2fs: tr, te, residual fat (0-1)"),
    "geometry": ('["n", 4]', "1, mm, mm, T", "has t2w (0 or 1), pixel, slice pitch, b0"),
}
IMAGE = '["n", 1, "h", "w"]'
OUTPUTS = {
    "fs": {"stir": (IMAGE, "those of t2w", "synthetic STIR"), "stir_sigma": (IMAGE, "those of t2w", "standard deviation of its error"),
           "t2fs": (IMAGE, "those of t2w", "synthetic fat-saturated T2w"), "t2fs_sigma": (IMAGE, "those of t2w", "standard deviation of its error"),
           "maps": ('["n", 4, "h", "w"]', "those of t2w, 1, ms, ms", "proton density, fat fraction, T1 and T2 of water"),
           "mismatch": ('["n", 2, "h", "w"]', "those of t1w, t2w", "distance of rendered T1w and T2w from those given, after the best factor"),
           "domain": ('["n"]', "1", "above 1: not like the training")},
    "ct": {"hu": (IMAGE, "HU", "synthetic CT number"), "sigma": (IMAGE, "HU", "standard deviation of its error"), "bone": (IMAGE, "1", "probability of bone"),
           "domain": ('["n"]', "1", "above 1: not like the training")},
}


def manifest(r):
    what = r["what"]
    inputs = ["t1w", "t2w", "noise", "geometry" if what == "ct" else "sequence"]
    ports = "\n".join(f'[{side}.{k}]\ndtype = "f32"\nshape = {shape}\nunits = "{units}"\nmeaning = "{meaning}"\n'
                      for side, these in (("inputs", {k: INPUTS[k] for k in inputs}), ("outputs", OUTPUTS[what])) for k, (shape, units, meaning) in these.items())
    quality = ",\n  ".join(f'{{ figure = "{w}", needed = "{n}", found = {float(x):.4g}, where = "{at}", reached = {str(ok).lower()} }}' for w, n, x, at, ok in verdicts(r) if math.isfinite(x))
    seeds = "\n".join(f'{n} = {{ first_seed = {f["seed"]}, samples = {f["samples"]} }}' for n, f in r["families"].items())
    use = ("Synthetic CT numbers of the lumbar spine from T1w and T2w; planning preview only, not for bone density, not for exclusion of fractures."
           if what == "ct" else "Synthetic STIR and T2FS of the lumbar spine from T1w and T2w; not for exclusion of marrow lesions.")
    return f"""name = "synth_{what}"
version = "1"
kind = "synth_{what}"
file = "model.onnx"
sha256 = "{r['sha256']}"
opset = 17
parameters = {r['parameters']}
licence = "MIT"
intended_use = "{use} Trained on simulated images only; not a medical device."
size_multiple = 16
slices = 3
tiny = {str(r['tiny']).lower()}
complete = {str(r['complete']).lower()}

# Beyond these the stage abstains.
[limits]
{chr(10).join(f"{k} = {float(v):.6g}" for k, v in (r["limits"] or {}).items())}

{ports}
[training]
data = "cauda simulate --dataset"
commit = "{r['commit']}"
seconds = {float(r.get('training_seconds', 0))}
device = "{r.get('trained_on', '')}"
torch = "{r['torch']}"

[training.families]
{seeds}

[quality]
data = "simulated; every test family"
figures = [
  {quality}
]
"""


def curves(path, r):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4))
    for name, h in r["history"].items():
        axis.plot([x["seconds"] for x in h], [x["validation"] for x in h], label=f"{name}, validation")
        axis.plot([x["seconds"] for x in h if "train" in x], [x["train"] for x in h if "train" in x], ":", label=f"{name}, training")
    axis.set(xlabel="training time, s", ylabel="MAE of the body, HU" if r["what"] == "ct" else "foreground PSNR, dB (as in training: all noise, shifts)")
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


@torch.no_grad()
def panels(path, model, baselines, sets, limits, rng, ct):
    """One row per family and contrast, a slice with a lesion where there is one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = []
    for family, samples in sets.items():
        i = int((samples.lesion > 0).flatten(1).sum(1).argmax())
        b = synth_data.case(samples, i, family, rng, ct=ct)
        z = int((b["lesion"] > 0).flatten(1).sum(1).argmax()) or 2
        out, body = evaluate.run(model, b, ct), b["label"][z] > 0
        given = [("T1w", b["t1w"][z, 1], (0, 1), "gray"), ("T2w", b["t2w"][z, 1], (0, 1), "gray")]
        if ct:
            grey = (-200, 500)
            rows.append((f"CT, {family}", given + [("ours", out[0][z, 0], grey, "gray"), ("truth", b["hu"][z, 0], grey, "gray"), ("difference", out[0][z, 0] - b["hu"][z, 0], (-200, 200), "RdBu_r"),
                         ("sigma", out[1][z, 0], (0, 150), "viridis"), ("bone", out[2][z, 0], (0, 1), "gray"), ("abstains", (out[1][z, 0] > limits["hu_sigma"]) & body, (0, 1), "gray")]))
            continue
        affine, flags = baselines(b)["affine"], evaluate.flagged(out, limits)
        for c, name in enumerate(evaluate.CONTRASTS):
            truth, ours = b["target"][z, c], out[2 * c][z, 0]
            top = float(truth.flatten().quantile(0.995))
            rows.append((f"{name.upper()}, {family}", given + [("affine", affine[z, c], (0, top), "gray"), ("ours", ours, (0, top), "gray"), ("truth", truth, (0, top), "gray"),
                         ("difference", ours - truth, (-top / 4, top / 4), "RdBu_r"), ("sigma", out[2 * c + 1][z, 0], (0, top / 6), "viridis"), ("abstains", flags[c][z] & body, (0, 1), "gray")]))
    columns = len(rows[0][1])
    figure, axes = plt.subplots(len(rows), columns, figsize=(2.2 * columns, 2.4 * len(rows)), squeeze=False)
    for line, (title, row) in zip(axes, rows):
        for a, (name, image, (low, high), map_) in zip(line, row):
            a.imshow(image.float().cpu().numpy(), cmap=map_, vmin=low, vmax=high)
            a.set_title(name, fontsize=8)
            a.set_axis_off()
        line[0].text(0, -36, title + " (SYNTHETIC)", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)
