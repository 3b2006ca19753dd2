#!/usr/bin/env python3
"""What a card does, beside peers on the same card in the same run. Prints Markdown; numpy is enough, peers are optional.

Usage: gpu.py --peers PROGRAM [--tiny] [--rounds N] [--seconds S]      PROGRAM: `cargo bench --no-run --bench peers`, or bin/peers of a packed folder
Contenders take turns: a round is one run of each; the first rounds are not counted. Times are wall time on the host, of runs
that end with the card idle; kernels and copies by the card's clock. Cauda "from the host" counts everything from pageable
memory to pageable memory, "resident" has samples and maps on the card (Cauda's image comes down all the same). Error: NRMSE against 300 iterations on the CPU. Peers that do
not import are named, with why. --tiny: sizes for an emulated card, whose figures mean nothing.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile, time
import numpy as np

a = argparse.ArgumentParser()
a.add_argument("--peers", required=True)
a.add_argument("--tiny", action="store_true")
a.add_argument("--rounds", type=int, default=0)
a.add_argument("--seconds", type=float, default=60.0, help="how long contenders take turns, at most")
a.add_argument("--cauda", help="the program, for the time of a cold process")
a.add_argument("--cold", nargs="*", default=[], help="more words for its `recon`")
A = a.parse_args()
ROUNDS, WARM = A.rounds or (2 if A.tiny else 40), 1 if A.tiny else 5
ITERATIONS, LAMBDA = 10, 0.02
DIR = tempfile.TemporaryDirectory()
rng = np.random.default_rng(1)


def fftc(x): return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x, axes=(-2, -1)), norm="ortho"), axes=(-2, -1)).astype(np.complex64)


def inputs(name, n, coils, masks):
    """A folder: full, maps, and k-space under each mask."""
    folder = os.path.join(DIR.name, name); os.makedirs(folder)
    y, x = np.meshgrid(*[(np.arange(n) - n // 2) / (n / 2)] * 2, indexing="ij")
    image = 30.0 * ((x / .72) ** 2 + (y / .88) ** 2 < 1) * (1 - .5 * (((x - .2) / .2) ** 2 + ((y - .1) / .35) ** 2 < 1))
    angle = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    dx, dy = x - 1.3 * np.cos(angle), y - 1.3 * np.sin(angle)
    maps = np.exp(1j * (angle + .5 * (dx * np.sin(angle) - dy * np.cos(angle)))) / (dx ** 2 + dy ** 2 + .05)
    maps /= np.sqrt((abs(maps) ** 2).sum(0))
    full = fftc(maps * image) + (rng.standard_normal((coils, n, n)) + 1j * rng.standard_normal((coils, n, n)))
    save = lambda what, v: np.save(os.path.join(folder, what + ".npy"), v)
    save("full", full.astype(np.complex64)); save("maps", maps.astype(np.complex64))
    for what, mask in masks.items():
        mask = np.ascontiguousarray(np.broadcast_to(mask, (n, n)))
        save("mask_" + what, mask); save("ksp_" + what, (full * mask).astype(np.complex64))
    return folder


class Cauda:
    def __init__(self, name, op, *words):
        self.name, self.why = name, None
        self.out = tempfile.mktemp(dir=DIR.name, suffix=".npy")
        self.p = subprocess.Popen([A.peers, op, *words, f"out={self.out}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    def run(self):
        try:
            self.p.stdin.write("run\n"); self.p.stdin.flush()
            line = self.p.stdout.readline()
        except BrokenPipeError: line = ""
        if not line: raise RuntimeError((self.p.stderr.read().strip().splitlines() or ["ended"])[-1])
        return json.loads(line)["seconds"]
    def close(self):
        self.p.stdin.close(); self.p.wait()
        self.p.stdout.close(); self.p.stderr.close()
        return np.load(self.out) if os.path.exists(self.out) else None


class Call:
    """`make` imports, puts the data on the card, and gives what runs once and waits."""
    def __init__(self, name, make): self.name, self.make, self.fn = name, make, None
    def run(self):
        if self.fn is None: self.fn, self.get = self.make()
        begin = time.perf_counter(); self.out = self.fn(); return time.perf_counter() - begin
    def close(self): return np.asarray(self.get(self.out)).reshape(-1)


def race(title, contenders, truth=None):
    times = {c.name: [] for c in contenders}
    said = {}
    begin = None
    for i in range(WARM + ROUNDS):
        # Loading libraries is not counted; three rounds are the least that says anything.
        if i == WARM: begin = time.perf_counter()
        if i >= WARM + 3 and time.perf_counter() - begin > A.seconds: break
        for c in contenders:
            if c.name in said: continue
            try: t = c.run()
            except Exception as e:
                said[c.name] = f"{type(e).__name__}: {e}".splitlines()[0][:160]
                continue
            if i >= WARM: times[c.name].append(t)
    print(f"\n### {title}\n\n| | median ms | p99 ms | best ms | error |\n| --- | --- | --- | --- | --- |")
    result = {}
    for c in contenders:
        if c.name in said: print(f"| {c.name} | not run: {said[c.name]} | | | |"); continue
        out, t = c.close(), times[c.name]
        error = ""
        if truth is not None and out is not None and out.size == truth.size:
            error = f"{np.linalg.norm(out.reshape(-1) - truth) / np.linalg.norm(truth):.1e}"
        ms = [1e3 * v for v in (statistics.median(t), np.percentile(t, 99), min(t))]
        print(f"| {c.name} | " + " | ".join(f"{v:.3f}" for v in ms) + f" | {error} |", flush=True)
        result[c.name] = ms
    return result


def demand(what, found, limit):
    """Against what the issue asks; of an emulated card there is nothing to say."""
    if found is not None and not A.tiny: print(f"\nAsked: {what} {limit}. Found: {found}.")


# ------------------------------------------------------------------------------------------------ peers, each optional
def torch_cuda():
    import torch
    if not torch.cuda.is_available(): raise RuntimeError("torch sees no card")
    return torch


def load(folder, mask): return [np.load(os.path.join(folder, f"{n}.npy")) for n in (f"ksp_{mask}", "maps", f"mask_{mask}")]


def textbook(folder, mask):
    """Conjugate gradients as one writes them in PyTorch in an hour; FFTs by cuFFT."""
    torch = torch_cuda()
    k, s, m = [torch.from_numpy(v).cuda() for v in load(folder, mask)]
    k, m, s = [torch.fft.ifftshift(v, dim=(-2, -1)) for v in (k, m.float(), s)]
    def a_h(v): return (s.conj() * torch.fft.ifft2(v, norm="ortho")).sum(0)
    def normal(x): return a_h(m * torch.fft.fft2(s * x, norm="ortho")) + LAMBDA * x
    def run():
        r = a_h(k); x = torch.zeros_like(r); p = r.clone(); rho = torch.vdot(r.reshape(-1), r.reshape(-1)).real
        for _ in range(ITERATIONS):
            q = normal(p)
            alpha = rho / torch.vdot(p.reshape(-1), q.reshape(-1)).real
            x = x + alpha * p; r = r - alpha * q
            new = torch.vdot(r.reshape(-1), r.reshape(-1)).real
            p = r + new / rho * p; rho = new
        torch.cuda.synchronize(); return x
    return run, lambda x: torch.fft.fftshift(x).cpu().numpy()


def sigpy(folder, mask):
    import cupy as cp, sigpy as sp, sigpy.mri as mr
    k, s, m = load(folder, mask)
    device = sp.Device(0)
    k, s, w = [sp.to_device(v, device) for v in (k, s, m[None].astype(np.float32))]
    def run():
        x = mr.app.SenseRecon(k, s, lamda=LAMBDA, weights=w, max_iter=ITERATIONS, device=device, show_pbar=False).run()
        cp.cuda.Device(0).synchronize(); return x
    return run, lambda x: cp.asnumpy(x)


def mrpro(folder, mask):
    torch = torch_cuda()
    from mrpro.operators import FastFourierOp
    from mrpro.algorithms.optimizers import cg
    k, s, m = [torch.from_numpy(v).cuda() for v in load(folder, mask)]
    y, s, w = k[None, :, None], s[None, :, None], m.to(torch.complex64)
    f = FastFourierOp(dim=(-2, -1))
    def a_h(v): return (s.conj() * f.adjoint(v)[0]).sum(1, keepdim=True)
    def normal(x): return (a_h(w * f(s * x)[0]) + LAMBDA * x,)
    def run():
        with torch.no_grad(): (x,) = cg(normal, a_h(y), max_iterations=ITERATIONS, tolerance=0.0)
        torch.cuda.synchronize(); return x
    return run, lambda x: x.cpu().numpy()


def bartorch(folder, mask):
    torch = torch_cuda()
    import bartorch
    k, s, _ = load(folder, mask)
    k, s = [torch.from_numpy(v[:, None]).cuda() for v in (k, s)]
    def run():
        x = bartorch.apps.pics(k, s, l2=LAMBDA, maxiter=ITERATIONS); torch.cuda.synchronize(); return x
    return run, lambda x: x.cpu().numpy()


# ------------------------------------------------------------------------------------------------ the run
def once(op, *words):
    p = subprocess.run([A.peers, op, *words, *(["tiny=1"] if A.tiny else [])], capture_output=True, text=True)
    if p.returncode: raise SystemExit(f"{op}: {p.stderr.strip()[-400:]}")
    return [json.loads(line) for line in p.stdout.splitlines()], p.stderr


print("## Speed")
(copy, launch), said = once("copy_card")
if A.tiny or "Emulated" in said: print("\n**An emulated card: these figures mean nothing.** They say that the script works.")
rate = copy["bytes"] / max(copy["seconds"], 1e-12)
print(f"\nCopy on the card, read and written: {rate / 1e9:.0f} GB/s ({copy['bytes'] // 2 >> 20} MiB). A copy of 8 bytes: {launch['launch_card_s'] * 1e6:.1f} us of the card, {launch['launch_wall_s'] * 1e6:.1f} us of the host.")
print("\n### Kernels, against the copy\n\nBytes are those that must move, beyond the caches.\n\n| kernel | MB | us | GB/s | of the copy |\n| --- | --- | --- | --- | --- |")
for k in once("kernels_card")[0]:
    r = k["bytes"] / max(k["seconds"], 1e-12)
    print(f"| {k['kernel']} | {k['bytes'] / 1e6:.1f} | {k['seconds'] * 1e6:.1f} | {r / 1e9:.0f} | {100 * r / rate:.0f} % |")

n, coils = (24, 3) if A.tiny else (256, 12)
centre = abs(np.arange(n) - n // 2) < max(n // 20, 5)
any_ = (rng.random((n, n)) < .25) | (centre[:, None] & centre[None])
lines = ((np.arange(n) * 7 % 11 < 3) | centre)[:, None]
folder = inputs("cg", n, coils, {"any": any_, "lines": lines})
for mask, title in [("any", "any mask over the plane"), ("lines", "any mask along one axis")]:
    job = [folder, f"mask={mask}", f"lambda={LAMBDA}"]
    ten = [f"iterations={ITERATIONS}", "tolerance=1e-12"]
    cpu = Cauda("", "sense", *job, "iterations=300", "tolerance=1e-7"); cpu.run(); truth = cpu.close()
    peers = [Call(f"{name}, resident", lambda make=make: make(folder, mask)) for name, make in [("PyTorch, by hand", textbook), ("SigPy on CuPy", sigpy), ("mrpro", mrpro), ("bartorch", bartorch)]]
    found = race(f"CG-SENSE, {title}: {coils} coils, {n} x {n}, {ITERATIONS} iterations",
                 [Cauda("Cauda, resident", "cg_card", *job, *ten, "resident=1"), Cauda("Cauda, from the host", "cg_card", *job, *ten), Cauda("Cauda, CPU of this machine", "sense", *job, *ten), *peers], truth)
    ours = found.get("Cauda, resident")
    if ours:
        beside = ", ".join(f"{k.split(',')[0]} {v[0] / ours[0]:.1f} times as long" for k, v in found.items() if not k.startswith("Cauda"))
        demand("CG-SENSE, warm, at most", f"{ours[0]:.3f} ms; {beside or 'no peer ran'}", "2 ms, and peers 3 times as long")

n, coils, slices = (32, 6, 3) if A.tiny else (320, 16, 20)
folder = inputs("unfold", n, coils, {"r4": (np.arange(n) % 4 == 1)[:, None], "acs": ((np.arange(n) % 4 == 1) | (abs(np.arange(n) - n // 2) < 12))[:, None]})
job = [folder, "mask=r4", f"lambda={LAMBDA}"]
cpu = Cauda("", "sense", *job); cpu.run(); truth = cpu.close()
ROUNDS, keep = min(ROUNDS, 15), ROUNDS
unfold = lambda title, *words: Cauda(f"Cauda, {title}", "unfold_card", *job, f"slices={slices}", *words)
found = race(f"Unfolding {slices} slices, {coils} coils, {n} x {n}, R = 4, to images of the host",
             [unfold(f"{title}, {t} threads", *words, f"threads={t}") for t in (1, 2, 4) for title, words in
              [("pinned samples, maps on the card", ["from=pinned", "maps=resident"]), ("pinned samples and maps", ["from=pinned"]), ("pageable samples and maps", [])]], truth)
if found:
    best = lambda what: min((v[0], k.rsplit(", ", 1)[1]) for k, v in found.items() if what in k)
    demand("20 slices from pinned memory to images at most", "; ".join(f"{best(w)[0]:.1f} ms with {w} ({best(w)[1]})" for w in ("maps on the card", "pinned samples and maps")), "25 ms")

job = [folder, "mask=acs", f"acs={10 if A.tiny else 24}"]
cpu = Cauda("", "espirit", *job); cpu.run(); truth = cpu.close()
found = race(f"ESPIRiT, {coils} coils, {n} x {n}, 24 calibration lines, from the host to the host", [Cauda("Cauda, card", "espirit_card", *job), Cauda("Cauda, CPU of this machine", "espirit", *job)], truth.reshape(-1))
if "Cauda, card" in found: demand("ESPIRiT 320 x 320 x 16 at most", f"{found['Cauda, card'][0]:.1f} ms", "10 ms")

n, coils = (24, 4) if A.tiny else (128, 12)
folder = inputs("grappa", n, coils, {"r3": (np.arange(n) % 3 == n // 2 % 3)[:, None]})
job = [folder, "mask=r3", f"acs={max(n // 5, 12)}", "accel=3"]
ROUNDS, WARM = (keep, WARM) if A.tiny else (1000, 20)
cpu = Cauda("", "grappa_card", *job, "backend=cpu"); cpu.run(); truth = cpu.close()
found = race(f"A real-time frame by GRAPPA with known weights, {coils} coils, {n} x {n}, R = 3, from the host to the host",
             [Cauda("Cauda, card", "grappa_card", *job), Cauda("Cauda, CPU of this machine", "grappa_card", *job, "backend=cpu")], truth)
if "Cauda, card" in found: demand("p99 with transfers at most", f"{found['Cauda, card'][1]:.3f} ms", "2 ms")

# ------------------------------------------------------------------------------------------------ our transforms, and cuFFT
try:
    torch = torch_cuda()
    x = torch.randn(320 * 320, 320, dtype=torch.complex64, device="cuda")
    def card_time(fn, runs=20):
        for _ in range(3): fn()
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        for _ in range(runs): fn()
        b.record(); torch.cuda.synchronize(); return a.elapsed_time(b) / runs * 1e3
    y = x.view(320, 320, 320)
    print(f"\ncuFFT on the same data, no shifts: rows {card_time(lambda: torch.fft.fft(x)):.1f} us, columns {card_time(lambda: torch.fft.fft(y, dim=1)):.1f} us (fft_rows_c32 and fft_columns_c32 above shift and scale too).")
    del x, y
except Exception as e: print(f"\ncuFFT: not run: {e}")

# ------------------------------------------------------------------------------------------------ a cold process
if A.cauda:
    scan = os.path.join(DIR.name, "scan.h5")
    subprocess.run([A.cauda, "simulate", "--preset", "small", "-o", scan, "-f"], check=True, capture_output=True)
    times = []
    for i in range(6):
        begin = time.perf_counter()
        p = subprocess.run([A.cauda, "recon", scan, "-o", os.path.join(DIR.name, "out.nii.gz"), "-f", "--set", "device.prefer=cuda", "--set", "recon.method=sense", *A.cold], capture_output=True, text=True)
        times.append(time.perf_counter() - begin)
        if p.returncode: print(f"\nCold process: not run: {p.stderr.strip()[-300:]}"); break
    else: demand("a cold process to its first image, kernels compiled before, at most", f"{1e3 * statistics.median(times[1:]):.0f} ms (first time, kernels not in the cache unless they came along: {1e3 * times[0]:.0f} ms)", "1500 ms")

