#!/usr/bin/env python3
"""Makes the data, trains the denoiser and a DnCNN of its size, measures both, and writes the model: one command.

    python3 scripts/train/denoise.py --cauda target/release/cauda --out target/train/out --tiny

README.md beside this file has the contract of the model and how to train on other data.
"""

import argparse
import copy
import hashlib
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
import data
import evaluate
import report as report_file
from half import halve, round_weights
from net import MULTIPLE, SLICES, Denoiser, DnCNN, UNet, n_parameters

START = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - START:6.1f} s] {text}", flush=True)


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cauda", default="target/release/cauda", help="the simulator")
    p.add_argument("--out", type=Path, required=True, help="folder of the results")
    p.add_argument("--data", type=Path, help="folder of the samples; kept and used again (default: a temporary one)")
    p.add_argument("--samples", type=int, default=500, help="training samples, 20 images each")
    p.add_argument("--test-samples", type=int, default=4, help="samples of each test family and of the validation family")
    p.add_argument("--seconds", type=float, default=110, help="training time of the denoiser")
    p.add_argument("--dncnn-seconds", type=float, default=50, help="training time of the DnCNN; 0: none")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--rate", type=float, default=1.5e-3, help="highest learning rate")
    p.add_argument("--crop", type=int, help="side of what is cut from each image (default: 256; DnCNN: 96)")
    p.add_argument("--snr", type=float, nargs="+", default=[5, 10, 20, 40], help="levels of the test: mean foreground signal over noise at g = 1")
    p.add_argument("--replicas", type=int, default=32)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--resume", type=Path, help="checkpoint.pt to go on from (weights)")
    p.add_argument("--commit", default="unknown", help="of the simulator, for the manifest")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--no-others", action="store_true", help="without NLM and BM3D-like")
    p.add_argument("--tiny", action="store_true", help="all of it, small, on a CPU: proves that it runs, not that it is good")
    a = p.parse_args()
    if a.tiny:
        a.samples, a.test_samples, a.batch, a.crop, a.replicas = 6, 1, 4, 64, 4
        a.seconds, a.dncnn_seconds, a.snr = 30, 10, [5, 20]
    if a.crop and a.crop % MULTIPLE:
        p.error(f"--crop {a.crop}: needed a multiple of {MULTIPLE}")
    return a


def autocast(device):
    # Half, not bfloat16: a bright pixel is some 100 times the noise, and 8 bits would round the noise away.
    return torch.autocast("cuda", torch.float16, enabled=torch.device(device).type == "cuda")


def losses(model, noisy, truth, weight):
    """Squared error (Huber far out) in units of noise, and the likelihood of that error, which only trains sigma."""
    pred, log_sigma = model.core(noisy)
    error = pred - truth
    main = (torch.nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=2.0) * weight).mean()
    # What is missing over three pixels is contrast that was smoothed away; noise that is left averages out.
    lost = torch.nn.functional.avg_pool2d(error, 3, 1, 1)
    main = main + 2.0 * (lost.square() * weight).mean()
    square = error.detach().square().mean(1, keepdim=True).clamp_max(25.0)
    likelihood = ((0.5 * square * torch.exp(-2 * log_sigma) + log_sigma) * weight).mean()
    return main, likelihood, (error.square() * weight).mean() / weight.mean()


def train(model, samples, check, args, seconds, crop, save=None):
    """Trains for `seconds`; returns (averaged weights, history). The learning rate follows the clock."""
    device = args.device
    rng = torch.Generator(device=device).manual_seed(args.seed)
    average = copy.deepcopy(model).eval()
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=1e-4, fused=torch.device(device).type == "cuda")
    scaler = torch.amp.GradScaler("cuda", enabled=torch.device(device).type == "cuda")
    history, running, step, began, marked = [], [], 0, time.monotonic(), time.monotonic()
    model.train()
    while (spent := time.monotonic() - began) < seconds:
        done = spent / seconds
        rate = args.rate * min(1.0, done / 0.03 + 0.02) * (0.5 * (1 + math.cos(math.pi * done)) + 0.005)
        for group in optimiser.param_groups:
            group["lr"] = rate
        noisy, truth, weight = data.batch(samples, args.batch, rng, crop=crop)
        with autocast(device):
            main, likelihood, square = losses(model, noisy.contiguous(memory_format=torch.channels_last), truth, weight)
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(main + 0.1 * likelihood).backward()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimiser)
        scaler.update()
        step += 1
        with torch.no_grad():
            keep = min(0.999, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
            for a, b in zip(average.buffers(), model.buffers()):
                a.copy_(b)
        running.append(square.detach())
        if step % 10 == 0 and device == "cuda":
            torch.cuda.synchronize()  # the clock must not run ahead of the card
        if time.monotonic() - marked > max(seconds / 25, 2.0):
            marked = time.monotonic()
            record = {"seconds": round(marked - began, 1), "step": step,
                      "train_rms": float(torch.stack(running).mean().sqrt()), **validate(average, check, device)}
            running = []
            history.append(record)
            say(f"step {step}: rms error / noise {record['train_rms']:.4f}, validation {record['validation_rms']:.4f}, "
                f"90 % interval holds {record['coverage']:.3f}")
            if not math.isfinite(record["train_rms"]):
                raise SystemExit("training diverged: try a lower --rate")
            if save and len(history) % 5 == 0:
                save(average, history)
    history.append({"seconds": round(seconds, 1), "step": step, **validate(average, check, device)})
    say(f"{step} steps, validation {history[-1]['validation_rms']:.4f}")
    return average, history


@torch.no_grad()
def validate(model, check, device):
    square, total, held, n = 0.0, 0.0, 0.0, 0.0
    for noisy, truth, weight in check:
        with autocast(device):
            pred, log_sigma = model.core(noisy)
        body = weight > 0.5
        e = (pred - truth).abs()
        inside = (e <= 1.645 * torch.exp(log_sigma) * model.sigma_scale).float().mean(1, keepdim=True)
        square += float((e.square().mean(1, keepdim=True))[body].sum())
        held += float(inside[body].sum())
        n += float(body.sum())
    return {"validation_rms": math.sqrt(square / n), "coverage": held / n}


@torch.no_grad()
def calibrate(model, check):
    """Sets sigma_scale so that 1.645 sigma holds 90 % of the errors in the body of the validation family."""
    ratios = []
    for noisy, truth, weight in check:
        pred, log_sigma = model.core(noisy)
        r = (pred - truth).abs() * torch.exp(-log_sigma)
        ratios.append(r[(weight > 0.5).expand_as(r)].flatten().cpu().numpy())
    model.sigma_scale.fill_(float(np.quantile(np.concatenate(ratios), 0.9)) / 1.645)


BM3D_TINY = {"step": 6, "reach": 4}
NAMES = {"image": [1, 2 * SLICES], "gfactor": [1, 1], "noise": [1], "denoised": [1, 2], "sigma": [1, 1]}


def export(model, path):
    """ONNX, opset 17, weights in 16 bits, and how far ONNX Runtime is from PyTorch, both on the CPU, at sizes other than the traced one."""
    model = copy.deepcopy(model).cpu().float().eval().to(memory_format=torch.contiguous_format)
    round_weights(model)
    axes = {n: ({0: "n"} if n == "noise" else {0: "n", 2: "h", 3: "w"}) for n in NAMES}
    example = (torch.randn(1, 2 * SLICES, 64, 64), torch.ones(1, 1, 64, 64), torch.ones(1))
    torch.onnx.export(model, example, str(path), opset_version=17, dynamo=False, dynamic_axes=axes,
                      input_names=["image", "gfactor", "noise"], output_names=["denoised", "sigma"])
    halve(path)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = torch.Generator().manual_seed(7)
    worst = {"denoised": 0.0, "sigma": 0.0}
    for n, h, w in [(1, 64, 64), (2, 96, 136), (1, 320, 320)]:
        image = 10 * torch.randn(n, 2 * SLICES, h, w, generator=rng)
        g = 1 + torch.rand(n, 1, h, w, generator=rng)
        noise = 0.5 + torch.rand(n, generator=rng)
        with torch.no_grad():
            expected = model(image, g, noise)
        got = session.run(None, {"image": image.numpy(), "gfactor": g.numpy(), "noise": noise.numpy()})
        for name, e, o in zip(worst, expected, got):
            # Against the largest value of the output: the tolerance that a run-time is held to.
            worst[name] = max(worst[name], float(np.abs(e.numpy() - o).max() / np.abs(e.numpy()).max()))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {"image": np.zeros((1, 2 * SLICES, 320, 320), np.float32), "gfactor": np.ones((1, 1, 320, 320), np.float32), "noise": np.ones(1, np.float32)}
    times = []
    for _ in range(5):
        t = time.monotonic()
        session.run(None, feed)
        times.append(time.monotonic() - t)
    return {"relative_difference": worst, "ms_per_320x320_slice_2_threads": round(1000 * sorted(times)[2], 1), "onnxruntime": onnxruntime.__version__}


@torch.no_grad()
def card_time(model, device):
    """ms per 320x320 slice on the card, half precision, alone; None on a CPU."""
    if device != "cuda":
        return None
    x, g, s = torch.randn(1, 2 * SLICES, 320, 320, device=device), torch.ones(1, 1, 320, 320, device=device), torch.ones(1, device=device)
    with autocast(device):
        for _ in range(10):
            model(x, g, s)
        torch.cuda.synchronize()
        t = time.monotonic()
        for _ in range(50):
            model(x, g, s)
        torch.cuda.synchronize()
    return round(1000 * (time.monotonic() - t) / 50, 2)


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.backends.cudnn.benchmark = True
    folder = args.data or Path(tempfile.mkdtemp(prefix="cauda-train-"))
    device = args.device
    say(f"torch {torch.__version__} on {torch.cuda.get_device_name() if device == 'cuda' else device}")
    result = {
        "command": " ".join(sys.argv[1:]), "torch": torch.__version__, "tiny": args.tiny,
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "simulator": subprocess.run([args.cauda, "--version"], capture_output=True, text=True).stdout.strip(),
        "commit": args.commit, "families": {n: {"seed": f.seed} for n, f in data.FAMILIES.items()}, "complete": False,
    }

    def write():
        result["wall_seconds"] = round(time.monotonic() - START, 1)
        report_file.write(args.out, result)

    sets = {}
    for name in data.FAMILIES:
        n = args.samples if name == "train" else args.test_samples
        sets[name] = data.simulate(args.cauda, name, n, folder / name)
        result["families"][name]["samples"] = int(sets[name].images.shape[0])
        if not args.data:
            shutil.rmtree(folder / name)
        say(f"{name}: {sets[name].images.shape[0]} samples")
    result["data_seconds"] = round(time.monotonic() - START, 1)
    rng = torch.Generator(device=device).manual_seed(99)
    samples, validation = sets["train"].to(device), sets["validation"].to(device)
    check = [data.batch(validation, min(args.batch, 16), rng, crop=args.crop) for _ in range(2 if args.tiny else 6)]

    ours = Denoiser(UNet()).to(device).to(memory_format=torch.channels_last)
    if args.resume:
        state = torch.load(args.resume, map_location=device, weights_only=True)
        ours.load_state_dict(state["denoiser"])
        say(f"resumed from {args.resume}")
    result["parameters"] = n_parameters(ours)
    say(f"denoiser: {n_parameters(ours)} parameters")
    state = {}

    def save_to(key):
        def save(average, history):
            state[key] = {k: v.detach().cpu().contiguous() for k, v in average.state_dict().items()}
            torch.save(state, args.out / "checkpoint.part")
            (args.out / "checkpoint.part").rename(args.out / "checkpoint.pt")
            result.setdefault("history", {})[key] = history
            write()
        return save

    ours, history = train(ours, samples, check, args, args.seconds, args.crop, save_to("denoiser"))
    # Exactly single precision, and exactly the weights that ship, from here on.
    round_weights(ours)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    calibrate(ours, check)
    result["sigma_scale"] = float(ours.sigma_scale)
    save_to("denoiser")(ours, history)
    # For whoever waits for the end of it: `unrolled.py --wait`.
    shutil.copyfile(args.out / "checkpoint.pt", args.out / "final.part")
    (args.out / "final.part").rename(args.out / "final.pt")
    result["export"] = export(ours, args.out / "model.onnx")
    result["card_ms_per_320x320_slice"] = card_time(ours, device)
    say(f"exported: {result['export']}, card {result['card_ms_per_320x320_slice']} ms")
    result["sha256"] = hashlib.sha256((args.out / "model.onnx").read_bytes()).hexdigest()
    write()

    models = {"ours": ours}
    if args.dncnn_seconds > 0:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        other = Denoiser(DnCNN(16, 6) if args.tiny else DnCNN()).to(device).to(memory_format=torch.channels_last)
        result["dncnn_parameters"], result["dncnn_seconds"] = n_parameters(other), args.dncnn_seconds
        say(f"DnCNN: {n_parameters(other)} parameters")
        crop = min(args.crop or 96, 96) if not args.tiny else 32
        other, dncnn_history = train(other, samples, check, args, args.dncnn_seconds, crop)
        result["history"]["DnCNN"] = dncnn_history
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        models["DnCNN"] = other
    result["training_seconds"] = args.seconds

    rng = torch.Generator(device=device).manual_seed(args.seed + 1000)
    cases = {name: data.cases(sets[name], name, device) for name in data.TESTS}
    result["replicas"] = {}
    for name in data.TESTS:
        # Two cases of each family: one T1w, one T2w (of the last sample, if there are more).
        chosen = [cases[name][0], cases[name][-3]][: 1 if args.tiny else 2]
        result["replicas"][name] = evaluate.replicas(models, chosen, args.snr, rng, args.replicas)
        say(f"replicas of {name}")
        write()
    strength = 0.8
    if not args.no_others:
        strength = evaluate.choose_nlm(data.cases(sets["validation"], "validation", device)[:4], args.snr, rng)
        result["nlm_strength"] = strength
    result["fidelity"] = {}
    for name in data.TESTS:
        tested = cases[name][1:2] if args.tiny else cases[name]
        rows = evaluate.fidelity(models, tested, args.snr, strength, rng, not args.no_others, BM3D_TINY if args.tiny else None)
        result["fidelity"][name] = evaluate.gather(rows, args.snr)
        say(f"fidelity of {name}")
        write()
    result["complete"] = True
    write()
    report_file.panels(args.out / "panels.png", models, [cases[n][1] for n in data.TESTS], rng, strength, not args.no_others, BM3D_TINY if args.tiny else None)
    write()
    if not args.data:
        shutil.rmtree(folder, ignore_errors=True)
    say(f"done: {args.out}")


if __name__ == "__main__":
    main()
