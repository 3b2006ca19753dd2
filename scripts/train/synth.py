#!/usr/bin/env python3
"""Trains a synthesis network, STIR and T2FS (`fs`) or CT (`ct`) from T1w and T2w, measures it, writes the model: one command.

    python3 scripts/train/synth.py --what fs --data target/train/samples --cauda target/release/cauda --out target/train/fs --tiny
    python3 scripts/train/synth.py --what fs --data DIR --out OUT --evaluate OUT/checkpoint.pt --device cpu

SYNTH.md beside this file has the contract of the models and how to train on other data.
"""

import argparse
import copy
import hashlib
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
import synth_data
import synth_evaluate as evaluate
import synth_report as report_file
from half import halve, round_weights
from synth_evaluate import ssim_map
from synth_net import SLICES, TINY, PlainFS, SynthCT, SynthFS, best_factor, n_parameters

START = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - START:6.1f} s] {text}", flush=True)


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--what", choices=["fs", "ct"], required=True)
    p.add_argument("--data", type=Path, required=True, help="folder of the samples, one folder per family; what is there is used")
    p.add_argument("--out", type=Path, required=True, help="folder of the results")
    p.add_argument("--cauda", help="the simulator: makes what is missing of --samples and --test-samples")
    p.add_argument("--samples", type=int, default=0, help="training samples (0: all that are there, or 500)")
    p.add_argument("--test-samples", type=int, default=0, help="samples of each other family (0: all that are there, or 24)")
    p.add_argument("--workers", type=int, help="processes that read (default: all cores)")
    p.add_argument("--seconds", type=float, help="training time (default: 200; tiny: 20)")
    p.add_argument("--plain-seconds", type=float, default=0, help="training time of a plain U-Net to compare with (fs)")
    p.add_argument("--wall", type=float, help="seconds in all: training is shortened so that the model is written in time")
    p.add_argument("--batch", type=int, help="images a step (default: 16; tiny: 4)")
    p.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    p.add_argument("--crop", type=int, help="side of what is cut from each image (default: all of it; tiny: 64)")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--resume", type=Path, help="checkpoint.pt to go on from (weights)")
    p.add_argument("--evaluate", type=Path, metavar="CHECKPOINT", help="no training: model, figures and report of this checkpoint")
    p.add_argument("--commit", default="unknown", help="of the simulator, for the manifest")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--tiny", action="store_true", help="a small network, few samples, short, for a CPU: proves that it runs, not that it is good")
    a = p.parse_args()
    a.seconds, a.batch = a.seconds or (20 if a.tiny else 200), a.batch or (4 if a.tiny else 16)
    if a.tiny:
        a.samples, a.test_samples, a.crop = a.samples or 6, a.test_samples or 2, a.crop or 64
    if a.crop and a.crop % 16:
        p.error(f"--crop {a.crop}: needed a multiple of 16")
    if a.what == "ct":
        a.plain_seconds = 0
    return a


def autocast(device):
    return torch.autocast("cuda", torch.bfloat16, enabled=torch.device(device).type == "cuda")


def sync(device):
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def likelihood(error, log_sigma, weight):
    """Gaussian; trains sigma only, as the error is given."""
    square = error.detach().square()
    return (weight * (0.5 * square * torch.exp(-2 * log_sigma) + log_sigma)).mean()


def losses_fs(model, b, plain=False):
    image, log_sigma, maps, rendered, _ = model.core(b["t1w"], b["t2w"], b["noise"], b["sequence"])
    body = (b["label"] > 0).float()[:, None]
    weight = (0.1 + 0.9 * body) * (1 + 4 * (b["lesion"] > 0).float()[:, None])
    e = image - b["target"]
    main = (weight * (e.abs() + 4 * e.square())).mean()
    structure = 1 - ssim_map(image.flatten(0, 1)[:, None], b["target"].flatten(0, 1)[:, None], 1.0).mean()
    loss = main + 0.2 * structure + 0.05 * likelihood(e, log_sigma, weight)
    if not plain:
        truth = evaluate.physical(b["maps"])
        has = body * (truth[:, :1] > 0.15)
        water = has * (1 - truth[:, 1:2]) * (truth[:, 3:4] > 5)  # the relaxation of what is there and gives signal
        loss = loss + 0.1 * (body * (maps[:, :1] - truth[:, :1]).abs()).mean() + 0.1 * (has * (maps[:, 1:2] - truth[:, 1:2]).abs()).mean()
        loss = loss + 0.04 * (water * (maps[:, 2:].log() - truth[:, 2:].log()).abs()).mean()
        consistent = best_factor(b["clean"], rendered) * rendered - b["clean"]
        loss = loss + 0.1 * (body * consistent.abs()).mean()
    return loss, (body * (e / b["csf"][:, :, None, None]).square()).sum() / (2 * body.sum())


def losses_ct(model, b, plain=False):
    khu, log_sigma, bone, _ = model.core(b["t1w"], b["t2w"], b["noise"], b["geometry"])
    truth = b["hu"] / 1000
    body = (b["label"] > 0).float()[:, None]
    weight = (0.2 + 0.8 * body) * (1 + 3 * (truth > 0.3).float()) * (1 + (b["lesion"] > 0).float()[:, None])
    e = khu - truth
    step = lambda x: (x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1])
    edges = sum((p - t).abs().mean() for p, t in zip(step(khu), step(truth)))
    is_bone = ((b["label"] > 0) & (b["label"] <= synth_data.BONE)).float()[:, None]
    p = torch.sigmoid(bone)
    dice = 1 - (2 * (p * is_bone).sum() + 1) / (p.sum() + is_bone.sum() + 1)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(bone, is_bone)
    loss = (weight * e.abs()).mean() + 0.3 * edges + 0.05 * dice + 0.05 * entropy + 0.05 * likelihood(e, log_sigma, weight)
    return loss, (body * e.abs()).sum() / body.sum()


def figure(what, mean):
    """What the log shows of the running measure: foreground PSNR, or MAE of the body."""
    return round(-10 * math.log10(max(mean, 1e-12)), 3) if what == "fs" else round(1000 * mean, 2)


@torch.no_grad()
def validate(model, check, what, loss):
    return figure(what, float(np.mean([float(loss(model, b)[1]) for b in check])))


def train(model, samples, check, args, seconds, plain=False, save=None):
    """Trains for `seconds`; returns (averaged weights, history). The learning rate follows the clock."""
    device, what = args.device, args.what
    loss_of = losses_fs if what == "fs" else losses_ct
    losses = lambda m, b: loss_of(m, b, plain)
    on_card = torch.device(device).type == "cuda"
    rng = torch.Generator(device=device).manual_seed(args.seed)
    average = copy.deepcopy(model).eval()
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=1e-4, fused=on_card)
    history, running, step, began = [], [], 0, time.monotonic()
    marked = saved = began
    model.train()
    while (spent := time.monotonic() - began) < seconds:
        done = spent / seconds
        rate = args.rate * min(1.0, done / 0.03 + 0.02) * (0.5 * (1 + math.cos(math.pi * done)) + 0.005)
        for group in optimiser.param_groups:
            group["lr"] = rate
        b = synth_data.batch(samples, args.batch, rng, args.crop, what == "ct")
        with autocast(device):
            loss, measure = losses(model, b)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        with torch.no_grad():
            keep = min(0.998, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
        running.append(measure.detach())
        if step % 10 == 0:
            sync(device)  # the clock must not run ahead of the card
        now = time.monotonic()
        if now - marked > max(seconds / 25, 2.0):
            mean = float(torch.stack(running).mean())
            if not math.isfinite(mean):
                raise SystemExit("training diverged: try a lower --rate")
            history.append({"seconds": round(now - began, 1), "step": step, "train": figure(what, mean), "validation": validate(average, check, what, losses)})
            say(f"step {step}: training {history[-1]['train']}, validation {history[-1]['validation']} {'dB' if what == 'fs' else 'HU'}")
            running, marked = [], time.monotonic()
            if save and marked - saved > 20:
                save(average, history)
                saved = marked
    history.append({"seconds": round(seconds, 1), "step": step, "validation": validate(average, check, what, losses)})
    say(f"{step} steps, validation {history[-1]['validation']}")
    return average, history


@torch.no_grad()
def calibrate(model, training, validation, args):
    """Fits what is out of domain and the scale of sigma; returns the limits beyond which the stage abstains."""
    ct, device = args.what == "ct", args.device
    rng = torch.Generator(device=device).manual_seed(5)
    rest = 3 if ct else 4
    model.sigma_scale.fill_(1.0)

    def features(samples, n):
        rows, both = [], []
        for _ in range(n):
            b = synth_data.batch(samples, args.batch, rng, None, ct)
            rows.append(model.core(b["t1w"], b["t2w"], b["noise"], b["geometry"] if ct else b["sequence"])[rest].cpu())
            both.append(b["noise"][:, 1].cpu() > 0)
        return torch.cat(rows), torch.cat(both)

    slow = torch.device(device).type == "cpu"
    (fit, both), (check, check_both) = features(training, (8 if args.tiny else 40) if slow else 200), features(validation, (6 if args.tiny else 15) if slow else 60)
    model.domain.fit(fit[both], check[check_both])
    if ct:
        model.domain_alone.fit(fit[~both], check[~check_both])
    ratios, sigmas, mismatches = ([], [], []), ([], []), []
    for i in range(len(validation)):
        b = synth_data.case(validation, i, "validation", rng, ct=ct)
        body = b["label"] > 0
        out = evaluate.run(model, b, ct)
        pairs = [(out[0], out[1], b["hu"])] if ct else [(out[2 * c], out[2 * c + 1], b["target"][:, c : c + 1]) for c in range(2)]
        for c, (image, sigma, truth) in enumerate(pairs):
            ratios[c].append(((image - truth).abs() / sigma)[:, 0][body][::7].cpu().numpy())
            sigmas[c].append(sigma[:, 0][body][::7].cpu().numpy())
        if not ct:
            mismatches.append(out[5].amax(1)[body][::7].cpu().numpy())
    names = ["hu_sigma"] if ct else ["stir_sigma", "t2fs_sigma"]
    limits = {}
    for c, name in enumerate(names):
        scale = float(np.quantile(np.concatenate(ratios[c]), 0.9)) / 1.645
        model.sigma_scale[c] = scale
        limits[name] = float(np.quantile(np.concatenate(sigmas[c]), 0.95)) * scale
    if not ct:
        limits["mismatch"] = float(np.quantile(np.concatenate(mismatches), 0.99))
    return limits


def example(what, n, h, w, seed):
    """Inputs of the contract, in its order."""
    rng = torch.Generator().manual_seed(seed)
    image = lambda: torch.nn.functional.avg_pool2d(torch.rand(n, SLICES, h, w, generator=rng), 5, 1, 2) * 1.2
    noise = 0.01 + 0.03 * torch.rand(n, 2, generator=rng)
    if what == "ct":
        return image(), image(), noise, torch.tensor([1.0, 0.9, 4.0, 3.0]).repeat(n, 1)
    from synth_net import MIDDLE, SPREAD

    sequence = torch.tensor(MIDDLE) + torch.tensor(SPREAD) * (torch.rand(n, 16, generator=rng) - 0.5)
    return image(), image(), noise, sequence.float()


PORTS = {"fs": (["t1w", "t2w", "noise", "sequence"], ["stir", "stir_sigma", "t2fs", "t2fs_sigma", "maps", "mismatch", "domain"]),
         "ct": (["t1w", "t2w", "noise", "geometry"], ["hu", "sigma", "bone", "domain"])}


def export(model, path, what):
    """ONNX, opset 17, weights in 16 bits, and how far ONNX Runtime is from PyTorch, both on the CPU, at sizes other than the traced one."""
    import onnxruntime

    model = copy.deepcopy(model).cpu().float().eval().to(memory_format=torch.contiguous_format)
    round_weights(model)
    inputs, outputs = PORTS[what]
    flat = {"noise", "sequence", "geometry", "domain"}
    axes = {k: ({0: "n"} if k in flat else {0: "n", 2: "h", 3: "w"}) for k in inputs + outputs}
    torch.onnx.export(model, example(what, 1, 64, 64, 0), str(path), opset_version=17, dynamo=False, dynamic_axes=axes, input_names=inputs, output_names=outputs)
    halve(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    worst = dict.fromkeys(outputs, 0.0)
    for seed, (n, h, w) in enumerate([(1, 64, 64), (3, 96, 144), (1, 320, 320)]):
        given = example(what, n, h, w, 1 + seed)
        with torch.no_grad():
            expected = model(*given)
        for name, e, got in zip(outputs, expected, session.run(outputs, dict(zip(inputs, (t.numpy() for t in given))))):
            assert tuple(e.shape) == got.shape, f"{name}: {got.shape}, PyTorch gives {tuple(e.shape)}"
            # Each channel against its own largest value: maps have different units.
            e, got = (v.reshape(v.shape[0], -1, *v.shape[2:]) if v.ndim > 1 else v.reshape(-1, 1) for v in (e.numpy(), got))
            axes_ = tuple(k for k in range(e.ndim) if k != 1)
            worst[name] = max(worst[name], float((np.abs(e - got).max(axes_) / np.maximum(np.abs(e).max(axes_), 1e-6)).max()))
    feed = dict(zip(inputs, (t.numpy() for t in example(what, 1, 320, 320, 9))))
    times = []
    for _ in range(5):
        t = time.monotonic()
        session.run(None, feed)
        times.append(time.monotonic() - t)
    return {"relative_difference": worst, "ms_per_320x320_slice_2_threads": round(1000 * sorted(times)[2], 1), "onnxruntime": onnxruntime.__version__, "bytes": path.stat().st_size}


@torch.no_grad()
def card_time(model, what, device):
    """ms for an exam of 15 slices of 320 x 320 on the card, bfloat16; None on a CPU."""
    if torch.device(device).type != "cuda":
        return None
    given = [t.to(device) for t in example(what, 15, 320, 320, 3)]
    with autocast(device):
        for _ in range(5):
            model(*given)
        torch.cuda.synchronize()
        t = time.monotonic()
        for _ in range(10):
            model(*given)
        torch.cuda.synchronize()
    return round(1000 * (time.monotonic() - t) / 10, 2)


def measure(model, others, sets, args, result, write):
    """Figures of all families, written after each."""
    ct, device = args.what == "ct", args.device
    rng = torch.Generator(device=device).manual_seed(args.seed + 1000)
    baselines = evaluate.Baselines(sets["train"].first(40).to(device), rng, ct, 4 if args.tiny else 40)
    result["figures"], result["noise_levels"] = {}, {}
    limits, on = result["limits"], lambda name: sets[name].to(device)
    threshold = evaluate.VISIBLE
    if not ct:
        _, found = evaluate.fs_family(model, {}, baselines, on("validation"), "validation", rng, limits, 1.0)
        # A false positive is a spot as bright as half of the median lesion, found on the validation family.
        if found[0]:
            threshold = max(0.05, 0.5 * float(np.median([x["truth"] for x in found[0]])))
        result["false_positive_threshold"] = round(threshold, 4)
    for name in [n for n in synth_data.TESTS if n in sets]:
        if ct:
            result["figures"][name] = evaluate.ct_family(model, baselines, on(name), name, rng, limits)
        else:
            result["figures"][name], _ = evaluate.fs_family(model, others, baselines, on(name), name, rng, limits, threshold)
        say(f"figures of {name}")
        write()
    result["strangers"] = evaluate.strangers(model, on("test"), rng, ct, 2 if args.tiny else 20)
    write()
    for noise in (0.005, 0.05):
        result["noise_levels"][str(noise)] = (evaluate.ct_family(model, baselines, on("test"), "test", rng, limits, noise, full=False) if ct
                                              else evaluate.fs_family(model, others, baselines, on("test"), "test", rng, limits, threshold, noise, full=False)[0])
    result["complete"] = True
    write()
    report_file.panels(args.out / "panels.png", model, baselines, {n: on(n) for n in synth_data.TESTS if n in sets}, limits, rng, ct)
    write()


def load(args, result):
    import data

    sets = {}
    for name in synth_data.FAMILIES:
        folder = args.data / name
        there = synth_data.present(folder)
        n = args.samples if name == "train" else args.test_samples
        if args.cauda and there < (n or (0 if there else 500 if name == "train" else 24)):
            family = data.FAMILIES[name]
            command = [args.cauda, "simulate", "--dataset", str(n or (500 if name == "train" else 24)), "--seed", str(family.seed), "-o", str(folder), "--force"]
            folder.parent.mkdir(parents=True, exist_ok=True)
            done = subprocess.run(command + ["--cervical"] * family.cervical, capture_output=True, text=True)
            if done.returncode != 0:
                raise SystemExit(f"{' '.join(command)}: {done.stderr or done.stdout}")
            there = synth_data.present(folder)
        if not there and name.startswith("shifted"):
            say(f"{name}: left out, no samples in {folder}")
            continue
        sets[name] = synth_data.read(folder, n, args.what, args.workers)
        result["families"][name] = {"seed": synth_data.FAMILIES[name].seed, "samples": len(sets[name])}
        say(f"{name}: {len(sets[name])} samples")
    return sets


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    result = {"what": args.what, "command": " ".join(sys.argv[1:]), "torch": torch.__version__, "tiny": args.tiny, "commit": args.commit, "families": {}, "history": {}, "complete": False}
    sets = load(args, result)  # forks: before the card is touched
    device, ct = args.device, args.what == "ct"
    on_card = torch.device(device).type == "cuda"
    torch.manual_seed(args.seed)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    result["device"] = torch.cuda.get_device_name() if on_card else device
    result["data_seconds"] = round(time.monotonic() - START, 1)
    say(f"torch {torch.__version__} on {result['device']}")

    def write():
        result["wall_seconds"] = round(time.monotonic() - START, 1)
        report_file.write(args.out, result)

    kind, sizes = (SynthCT if ct else SynthFS), (TINY if args.tiny else {})
    state = {}
    if args.evaluate or args.resume:
        state = torch.load(args.evaluate or args.resume, map_location="cpu", weights_only=True)
        if state["what"] != args.what:
            raise SystemExit(f"{args.evaluate or args.resume}: a checkpoint of --what {state['what']}")
        sizes = TINY if state["tiny"] else {}
        result["tiny"] = state["tiny"]
    ours = kind(**sizes).to(device).to(memory_format=torch.channels_last)
    if state:
        ours.load_state_dict(state["weights"])
        say(f"weights of {args.evaluate or args.resume}")
    result["parameters"] = n_parameters(ours)
    say(f"{args.what}: {n_parameters(ours)} parameters")
    training, validation = sets["train"].to(device), sets["validation"].to(device)
    training.lesioned = (training.lesion > 0).flatten(2).sum(2).ge(20).nonzero()
    others, plain = {}, {}

    def save(average, history, limits=None):
        result["history"]["ours"] = history
        weights = {k: v.detach().cpu().contiguous() for k, v in average.state_dict().items()}
        torch.save({"what": args.what, "tiny": result["tiny"], "weights": weights, "limits": limits, "plain": plain, "history": json.dumps(result["history"]),
                    "seconds": result.get("training_seconds", 0), "trained_on": result.get("trained_on", result["device"])}, args.out / "checkpoint.part")
        (args.out / "checkpoint.part").rename(args.out / "checkpoint.pt")
        write()

    if args.evaluate:
        result["history"], result["training_seconds"] = json.loads(state["history"]), state["seconds"]
        result["trained_on"], result["limits"], plain = state["trained_on"], state["limits"], state["plain"]
    else:
        rng = torch.Generator(device=device).manual_seed(99)
        check = [synth_data.batch(validation, args.batch, rng, args.crop, ct) for _ in range(2 if args.tiny else 6)]
        seconds, plain_seconds = args.seconds, args.plain_seconds
        if args.wall:
            # What comes after the training: calibration, export, figures.
            left = args.wall - (time.monotonic() - START) - 60
            seconds, plain_seconds = max(10.0, min(seconds, left - plain_seconds)), (plain_seconds if left > 3 * plain_seconds else 0.0)
        result["training_seconds"], result["trained_on"] = round(seconds, 1), result["device"]
        ours, history = train(ours, training, check, args, seconds, save=save)
        save(ours, history)
        result["limits"] = None
    if on_card:
        # Exactly single precision from here on.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    # From here on the network is the one that ships.
    round_weights(ours)
    ours = ours.eval()
    if not result["limits"]:
        result["limits"] = calibrate(ours, training, validation, args)
        say(f"limits {result['limits']}, sigma x {ours.sigma_scale.tolist()}")
        save(ours, result["history"].get("ours", []), result["limits"])
    result["sigma_scale"] = ours.sigma_scale.tolist()
    result["export"] = export(ours, args.out / "model.onnx", args.what)
    result["sha256"] = hashlib.sha256((args.out / "model.onnx").read_bytes()).hexdigest()
    result["card_ms_per_exam"] = card_time(ours, args.what, device)
    say(f"exported: {result['export']}, card {result['card_ms_per_exam']} ms an exam")
    write()
    if not args.evaluate and not ct and plain_seconds > 0:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        other = PlainFS(**sizes).to(device).to(memory_format=torch.channels_last)
        other, result["history"]["plain"] = train(other, training, check, args, plain_seconds, plain=True)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        plain.update({k: v.detach().cpu().contiguous() for k, v in other.state_dict().items()})
        result["plain_seconds"], result["plain_parameters"] = plain_seconds, n_parameters(other)
        save(ours, result["history"]["ours"], result["limits"])
    if plain:
        other = PlainFS(**sizes).to(device)
        other.load_state_dict(plain)
        others["plain U-Net"] = other.eval()
    measure(ours, others, sets, args, result, write)
    say(f"done: {args.out}")


if __name__ == "__main__":
    main()
