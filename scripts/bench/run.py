#!/usr/bin/env python3
"""Times Cauda beside its peers: same input, same machine, same run, two threads, turn by turn.

Usage: run.py [--quick] [--out DIR] [DEMAND ...]      DEMAND: whole cg_any cg_regular grappa espirit linear fft nufft read (default all)
One command; everything else is built or simulated on the way. Holds /tmp/bench.lock. Results: table.md, raw.csv and
machine.txt in benches/results/<date>-<machine>/. Times are seconds, best and median of the turns after one warm-up that
is not counted (plans, imports, FFTW planning, network of threads). A turn is as many runs in a row as fill TURN_S, at
least one, and counts with their mean: a run of milliseconds after a pause would time the waking of the cores, which a
run of seconds does not notice (Python's timeit and Criterion do the same). Programs that are timed from start to exit run
once a turn. Quality: NRMSE inside the object; Cauda may be at most 1 % (relative) above the peer. Memory: peak resident set
of the process (wait4).
"""
import argparse, csv, datetime, fcntl, json, os, platform, resource, statistics, subprocess, sys, tempfile, time, warnings
os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "2"
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.normpath(os.path.join(HERE, "../.."))
sys.path.insert(0, os.path.join(HERE, "../golden"))
import numpy as np
import peers as P
import simulate as S

INPUTS = S.DEFAULT_OUT
BIN = os.path.join(INPUTS, "bin")
warnings.simplefilter("ignore")
ROWS, RAW = [], []
PAUSE_S = 0.3   # before every turn: thread pools of the one before (OpenBLAS, OpenMP) spin on for up to 200 ms
TURN_S = 0.5
CARGO_TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))


# ------------------------------------------------------------------------------------------------ contenders
class Call:
    """A peer inside this process; `factor` scales the time of a part of the work to the whole."""
    def __init__(self, name, fn, reps=None, factor=1, warm=True): self.name, self.fn, self.reps, self.out, self.factor, self.needs_warm = name, fn, reps, None, factor, warm
    def warm(self): self.out = self.fn() if self.needs_warm else None
    def run(self):
        t = time.perf_counter(); self.out = self.fn(); return (time.perf_counter() - t) * self.factor
    def close(self): return self.out
    rss = None


def small(cmd):
    """The command under GNU time: wait4 here would count this Python's own pages, which a forked child starts with."""
    f = tempfile.NamedTemporaryFile(delete=False); f.close()
    return ["/usr/bin/time", "-f", "%M", "-o", f.name, *cmd], f.name


def peak(name):
    with open(name) as f: return int(f.read().split()[-1]) * 1024


class Server:
    """A program that plans once, then runs once per line on stdin and answers {"seconds": s}."""
    def __init__(self, name, cmd, out=None, reps=None):
        self.name, self.cmd, self.path, self.reps, self.p = name, cmd, out, reps, None
    def warm(self):
        cmd, self.mem = small(self.cmd)
        self.p = subprocess.Popen(cmd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True); self.run()
    def run(self):
        self.p.stdin.write("run\n"); self.p.stdin.flush()
        line = self.p.stdout.readline()
        if not line: raise RuntimeError(f"{self.name}: ended early")
        return json.loads(line)["seconds"]
    def close(self):
        self.p.stdin.close(); self.p.wait(); self.rss = peak(self.mem)
        return np.load(self.path) if self.path and os.path.exists(self.path) else None


class Program:
    """A whole program, timed from start to exit; with `inner`, by the seconds it prints."""
    def __init__(self, name, cmd, result=None, inner=False, reps=None): self.name, self.cmd, self.result, self.inner, self.reps, self.rss = name, cmd, result, inner, reps, 0
    def warm(self): self.run()
    def run(self):
        t = time.perf_counter()
        cmd, mem = small(self.cmd)
        p = subprocess.run(cmd, capture_output=True, text=True)
        t, out = time.perf_counter() - t, p.stdout
        if p.returncode: raise RuntimeError(f"{' '.join(self.cmd)}: {p.stderr[-800:]}")
        self.rss = max(self.rss, peak(mem))
        return json.loads(out)["seconds"] if self.inner else t
    def close(self): return self.result() if self.result else None


def turn(contender):
    """Mean of the runs of one turn."""
    runs, start = [], time.perf_counter()
    while not runs or (not isinstance(contender, Program) and time.perf_counter() - start < TURN_S): runs.append(contender.run())
    return statistics.fmean(runs)


def race(what, contenders, reps, quality=None, target=None, unit="s"):
    """Turn by turn; the first contender is ours. `quality(output)` -> dict of numbers."""
    live = []
    for c in contenders:
        try: c.warm(); live.append(c)
        except Exception as e: print(f"  {what}: {c.name} did not run: {type(e).__name__}: {e}", flush=True); ROWS.append(dict(what=what, who=c.name, note=f"did not run: {type(e).__name__}: {str(e)[:160]}"))
    times = {c.name: [] for c in live}
    for r in range(reps):
        for c in live:
            if c.reps is not None and r >= c.reps: continue
            time.sleep(PAUSE_S); times[c.name].append(turn(c)); RAW.append((what, c.name, r, f"{times[c.name][-1]:.6f}"))
    res = {}
    for c in live:
        out = c.close(); t = times[c.name]
        q = quality(out) if quality and out is not None else {}
        res[c.name] = dict(best=min(t), median=statistics.median(t), rss=c.rss, **q)
    ours = res.get("cauda")
    for n, v in res.items():
        row = dict(what=what, who=n, **v)
        if ours and n != "cauda": row.update(ratio=v["median"] / ours["median"], ratio_best=v["best"] / ours["best"])
        if ours and n != "cauda" and target and n in target: row["target"] = target[n]
        if n.startswith("cauda,"):   # another reading of the same demand: against the fastest peer
            for key, by in (("ratio", "median"), ("ratio_best", "best")): row[key] = min(w[by] for m, w in res.items() if not m.startswith("cauda")) / v[by]
        ROWS.append(row)
        print(f"  {what:34} {n:22} best {v['best']:.4f} median {v['median']:.4f}" + (f"  x{row['ratio']:.1f}" if "ratio" in row else "") + (f" (target {row['target']})" if "target" in row else "")
              + "".join(f"  {k} {x:.5g}" for k, x in v.items() if k not in ("best", "median", "rss")) + (f"  rss {v['rss'] / 2**20:.0f} MiB" if v["rss"] else ""), flush=True)
    return res


def ours(op, *args, out=None, reps=None):
    path = tempfile.mktemp(suffix=".npy", prefix=f"cauda-bench-{op}-") if out else None
    return Server("cauda", [PEERS_BIN, op, *map(str, args), f"out={path}" if path else "out="], path, reps)


def build(skip=False):
    """Ours by cargo unless CAUDA_BIN and CAUDA_PEERS_BIN name them; the small C and C++ programs of the peers always."""
    global PEERS_BIN, CAUDA
    if skip:
        CAUDA, PEERS_BIN = os.environ["CAUDA_BIN"], os.environ["CAUDA_PEERS_BIN"]
    else:
        r = subprocess.run(["cargo", "build", "--release", "-q", "--bin", "cauda"], cwd=ROOT)
        CAUDA = os.path.join(CARGO_TARGET, "release/cauda")
        r = subprocess.run(["cargo", "bench", "-q", "--bench", "peers", "--no-run", "--message-format=json"], cwd=ROOT, capture_output=True, text=True)
        PEERS_BIN = ""
        for line in r.stdout.splitlines():
            m = json.loads(line)
            if m.get("reason") == "compiler-artifact" and m["target"]["name"] == "peers": PEERS_BIN = m["executable"]
        if not PEERS_BIN: print("benches/peers.rs does not build: peers alone\n", r.stderr[-2000:]); PEERS_BIN = "/bin/false"
    os.makedirs(BIN, exist_ok=True)
    hdf5 = ["-I/usr/include/hdf5/serial", "-L/usr/lib/x86_64-linux-gnu/hdf5/serial"]
    subprocess.run(["g++", "-O2", os.path.join(HERE, "mrd_cpp.cpp"), "-o", f"{BIN}/mrd_cpp", *hdf5, "-lismrmrd", "-lhdf5"], check=True)
    subprocess.run(["gcc", "-O2", os.path.join(HERE, "fftw.c"), "-o", f"{BIN}/fftw", "-lfftw3f_threads", "-lfftw3f", "-lpthread", "-lm"], check=True)


def case(name):
    d = os.path.join(INPUTS, name)
    if not os.path.exists(os.path.join(d, "ksp.npy")): S.make(name, INPUTS)
    return d, *(np.load(os.path.join(d, n + ".npy")) for n in ("ksp", "truth", "mask"))


def ops():
    """One 320x320 slice, 16 coils: fully sampled, masks, maps; kept in DIR/ops for every contender."""
    d = os.path.join(INPUTS, "ops"); os.makedirs(d, exist_ok=True)
    _, ksp, truth, mask = case("bench_full")
    k = ksp[0, :, 0]; n = 320
    def keep(name, x):
        p = os.path.join(d, name + ".npy")
        if not os.path.exists(p): np.save(p, np.ascontiguousarray(x))
        return np.load(p)
    o = dict(dir=d, truth=truth[0], inside=mask[0])
    reg, cal = S.regular(n, 4, 24); v, _ = S.vd1d(n, 4, 24); pm, _ = S.poisson2d(n, n, 4, 24)
    for name, m in (("regular", np.repeat(reg[:, None], n, 1)), ("regular_acs", np.repeat((reg | cal)[:, None], n, 1)), ("vd1d", np.repeat(v[:, None], n, 1)), ("poisson", pm)):
        o["mask_" + name] = keep("mask_" + name, m); o["ksp_" + name] = keep("ksp_" + name, (k * m).astype(np.complex64))
    o["full"] = keep("full", k)
    p = os.path.join(d, "maps.npy")
    o["maps"] = keep("maps", P.maps_bartorch(o["ksp_regular_acs"][:, None], 24)[:, 0]) if not os.path.exists(p) else np.load(p)
    return o


# ------------------------------------------------------------------------------------------------ demands
def converged(o, name, lam):
    p = os.path.join(o["dir"], f"solution_{name}_{lam:g}.npy")
    if not os.path.exists(p):
        from make_golden_solver import solve
        np.save(p, solve(o["ksp_" + name], o["maps"], o["mask_" + name], lam))
    return np.load(p)


LAM = 0.01
# "30 iterations' accuracy": ours stops where it is at least as near to the converged solution as the peers after 30
# iterations of plain conjugate gradients. Their distance depends on the mask (the column "distance to solution" shows
# both); NRMSE against the truth must not be more than 1 % above theirs either.
TOLERANCE = dict(poisson=4e-5, vd1d=1e-4, regular_acs=1.5e-5, regular=2e-5)


def bench_cg(reps, names, label, target):
    o = ops()
    for name in names:
        sol = converged(o, name, LAM); m3 = o["inside"][0]
        def q(x):
            x = np.asarray(x).reshape(320, 320)
            return dict(nrmse=P.nrmse(x, o["truth"][0], m3), to_solution=float(np.linalg.norm((x - sol)[m3]) / np.linalg.norm(sol[m3])))
        u, s = o["ksp_" + name][:, None], np.ascontiguousarray(o["maps"][:, None])
        # Two readings of "30 iterations' accuracy": the NRMSE that they reach, within 1 % (as shipped), and the distance to
        # the converged solution that they reach.
        near = ours("sense", o["dir"], f"mask={name}", f"lambda={LAM}", f"tolerance={TOLERANCE[name]}", "iterations=100", out=True)
        near.name = "cauda, as near as peers"
        cs = [ours("sense", o["dir"], f"mask={name}", f"lambda={LAM}", out=True), near]
        cs += [Call("bartorch", lambda: P.pics_bartorch(u, s, LAM, 30)), Call("scipy", lambda: P.sense_scipy(u, s, LAM, 30)), *([] if QUICK else [Call("mrpro", lambda: P.sense_mrpro(u, s, LAM, 30)),
               Call("bart", lambda: P.pics_bart(u, s, LAM, 30), reps=3), Call("sigpy", lambda: P.sense_sigpy(u, s, LAM, 30), reps=1)])]
        race(f"{label} {name}", cs, reps, q, {k: target for k in ("bartorch", "scipy", "mrpro", "bart", "sigpy")})


def bench_cg_any(reps): bench_cg(reps, ("poisson",), "CG-SENSE 320x320x16 any mask", "fastest >= 3")
def bench_cg_regular(reps): bench_cg(reps, ("vd1d", "regular_acs", "regular"), "SENSE 320x320x16 mask along one axis", "fastest >= 20")


def bench_grappa(reps):
    o = ops(); u = o["ksp_regular_acs"][:, None]; m3 = o["inside"]
    q = lambda x: dict(nrmse=P.nrmse(np.abs(np.asarray(x)).reshape(1, 320, 320), o["truth"], m3))
    wide = ours("grappa", o["dir"], "mask=regular_acs", "apply=image", "window=4", out=True); wide.name = "cauda, window 5 x 4"
    race("GRAPPA: calibrate, unmix, combine", [ours("grappa", o["dir"], "mask=regular_acs", "apply=image", out=True), wide,
         Call("pygrappa mdgrappa 4x5", lambda: P.rss(P.grappa_mdgrappa(u, 24, (4, 5))), 1 if QUICK else 2, warm=not QUICK), *([] if QUICK else [Call("pygrappa cgrappa 4x5", lambda: P.rss(P.grappa_cgrappa(u, 24, (4, 5))), 2),
         Call("pygrappa mdgrappa 15x5", lambda: P.rss(P.grappa_mdgrappa(u, 24, (15, 5))), 1, warm=False)]),
         Server("FFTW floor", [f"{BIN}/fftw", "16", "320", "320", "2", "MEASURE"])], reps, q, {"pygrappa mdgrappa 4x5": ">= 50", "pygrappa cgrappa 4x5": ">= 50", "FFTW floor": ">= 0.333"})


def bench_espirit(reps, sigpy=True):
    o = ops(); u = o["ksp_regular_acs"][:, None]; m3 = o["inside"][0]
    ref = o["maps"]; full = P.ifftc(o["full"], (1, 2))
    def q(m):
        m = np.asarray(m).reshape(16, 320, 320)
        inner = np.abs((ref.conj() * m).sum(0)); both = inner[m3 & ((np.abs(m) ** 2).sum(0) > .5) & ((np.abs(ref) ** 2).sum(0) > .5)]
        return dict(agree_median=float(np.median(both)), agree_p1=float(np.quantile(both, .01)), nrmse=P.nrmse((m.conj() * full).sum(0), o["truth"][0], m3),
                    support=float(((np.abs(m[:, m3]) ** 2).sum(0) > .5).mean()))
    cs = [ours("espirit", o["dir"], "mask=regular_acs", "acs=24", out=True), Call("bartorch", lambda: P.maps_bartorch(u, 24)), Call("bart", lambda: P.maps_bart(u, 24), reps=2)]
    if sigpy: cs.append(Call("sigpy", lambda: P.maps_sigpy(u, 24), reps=1))
    race("ESPIRiT 320x320x16, 24 ACS, one set", cs, reps, q, {"bartorch": ">= 10", "sigpy": ">= 50"})


def bench_linear(reps):
    o = ops(); x = np.ascontiguousarray(o["full"].reshape(16, -1)); W = np.tril(np.random.default_rng(1).standard_normal((16, 16)) + 1j * np.random.default_rng(2).standard_normal((16, 16))).astype(np.complex64)
    np.save(os.path.join(o["dir"], "whitening.npy"), W)
    out = np.empty_like(x)   # neither side pays for fresh memory
    race("whitening 16 x 102400", [ours("whiten", o["dir"], out=True), Call("numpy OpenBLAS", lambda: np.matmul(W, x, out=out))], reps, lambda y: dict(error=float(np.linalg.norm(np.asarray(y).reshape(16, -1) - W @ x) / np.linalg.norm(W @ x))), {"numpy OpenBLAS": ">= 1"})
    def svd():
        g = x @ x.conj().T; w, v = np.linalg.eigh(g); return v[:, ::-1][:, :8].conj().T @ x
    race("coil compression SVD 16 -> 8", [ours("compress", o["dir"], "mask=full", out=True), Call("numpy OpenBLAS", svd)], reps, lambda y: dict(energy=float((np.abs(np.asarray(y)) ** 2).sum() / (np.abs(x) ** 2).sum())), {"numpy OpenBLAS": ">= 1"})


def bench_fft(reps):
    import ducc0, scipy.fft as sf
    o = ops(); x = o["full"].copy()
    for b, ny, nx in ((16, 320, 320), (16, 256, 256), (16, 165, 131)):
        y = np.ascontiguousarray(np.resize(x, (b, ny, nx)))
        out = np.empty_like(y)
        race(f"batched 2D FFT {b}x{ny}x{nx}", [ours("fft", f"shape={b}x{ny}x{nx}"), Server("FFTW measure", [f"{BIN}/fftw", str(b), str(ny), str(nx), "2", "MEASURE"]),
             Call("ducc0", lambda: ducc0.fft.c2c(y, axes=(1, 2), nthreads=2, out=out)), Call("scipy", lambda: sf.fft2(y, workers=2))], reps, None, {"FFTW measure": ">= 0.77", "ducc0": ">= 0.77"})


def bench_read(reps):
    p = os.path.join(INPUTS, "read20000.h5")
    if not os.path.exists(p): subprocess.run([f"{BIN}/mrd_cpp", "write", p, "20000", "16", "640"], check=True)
    with open(p, "rb") as f:
        while f.read(1 << 24): pass   # warm cache for all
    race("read 20000 x 16 x 640", [ours("read", p), Program("libismrmrd C++", [f"{BIN}/mrd_cpp", "read", p], inner=True)], max(2, reps // 2), None, {"libismrmrd C++": ">= 4"})


def bench_whole(reps):
    d, ksp, truth, mask = case("bench20"); n = len(ksp)
    import h5py
    with h5py.File(os.path.join(d, "scan.h5")) as f:
        data = f["dataset/data"][:]
    noise = np.load(os.path.join(d, "noise.npy"))
    # k-space as a BART user has it after conversion: [slice, coil, 1, pe, ro with oversampling], free of charge
    acc = np.zeros((n, 16, 1, 320, 640), np.complex64)
    for a in data:
        h = a["head"]
        if h["flags"] & (1 << 18): continue
        acc[h["idx"]["slice"], :, 0, h["idx"]["kspace_encode_step_1"]] = a["data"].view(np.complex64).reshape(16, 640)
    quality = lambda im: dict(nrmse=float(np.sqrt(np.mean([P.nrmse(np.abs(im[i]).reshape(truth[i].shape), truth[i], mask[i]) ** 2 for i in range(part)]))))
    lam, part = LAM, PEER_SLICES or n   # the peers may do a part of the slices; their time is then scaled, and said
    def chain():
        b = P.BART; out = []
        cols = b.put(noise[:, None, None, :])
        for i in range(part):
            k = b.put(acc[i]); w, f, c, g, m, x = (f"{k}{s}" for s in "wfcgmx")
            for cmd in (["whiten", k, cols, w], ["fft", "-i", "-u", "1", w, f], ["resize", "-c", "0", "320", f, c], ["fft", "-u", "1", c, g], ["ecalib", "-m1", "-r24", g, m], ["pics", "-S", "-l2", "-r", str(lam), "-i30", g, m, x]):
                r = subprocess.run(["bart", *cmd], capture_output=True, text=True)
                if r.returncode: raise RuntimeError(r.stderr)
            out.append(b.get(x))
            for s in ("", *"wfcgmx"):
                for e in (".cfl", ".hdr"): os.unlink(k + s + e)
        return np.stack(out)
    def inproc():
        import bartorch, torch
        nz, out = torch.from_numpy(noise[:, None, None, :]), []
        for i in range(part):
            w = bartorch.tools.whiten(torch.from_numpy(acc[i]), nz)
            g = bartorch.fft(bartorch.resize(bartorch.ifft(w, axes=-1, unitary=True), {-1: 320}) if False else crop_ro(bartorch.ifft(w, axes=(-1,), unitary=True)), axes=(-1,), unitary=True)
            m = bartorch.tools.ecalib(g, maps=1, calib_size=24)
            out.append(bartorch.apps.pics(g, m, l2=lam, maxiter=30).numpy())
        return np.stack(out)
    def crop_ro(t): return t[..., 160:480].contiguous()
    folder = tempfile.mkdtemp()
    def result(p):
        def get():
            return np.load(p).reshape(truth.shape)
        return get
    for label, sets in (("SENSE, same Tikhonov weight", ['recon.method="sense"', f"recon.sense.lambda={LAM * 320 / 98:.5f}"]), ("auto, as shipped", [])):
        p = os.path.join(folder, f"{len(sets)}.npy"); h = os.path.join(folder, f"{len(sets)}.h5")
        cmd = lambda out: [CAUDA, "recon", os.path.join(d, "scan.h5"), "--force", "-o", out, *[x for s in sets for x in ("--set", s)]]
        def get(p=p, cmd=cmd):
            r = subprocess.run(cmd(p), capture_output=True, text=True)
            if r.returncode: raise RuntimeError(r.stderr)
            return np.load(p).reshape(truth.shape)
        ours_ = Program("cauda", cmd(h), get)
        cut = f" ({part} of {n} slices, scaled)" if part < n else ""
        peers = [Call("bartorch in process" + cut, inproc, 1 if reps < 5 else 2, n / part, False), Call("BART 0.8 commands" + cut, chain, 1, n / part, False)] if "same" in label else []
        res = race(f"whole job, {label}", [ours_, *peers], reps, quality, {"bartorch in process" + cut: ">= 15", "BART 0.8 commands" + cut: ">= 30"})
        if "cauda" in res:
            ks = 1960 * 16 * 640 * 8
            ROWS.append(dict(what=f"whole job, {label}", who="peak memory / k-space", best=res["cauda"]["rss"] / ks, median=res["cauda"]["rss"] / ks, target="<= 2.5"))


def bench_nufft(reps):
    """Golden-angle radial, 256x256, 400 spokes x 512, 16 coils, tolerance 1e-3; everybody has planned before. Errors against
    double precision finufft at 1e-12, relative, all coils."""
    import finufft, bartorch, torch
    n, spokes, ro, coils, tol = 256, 400, 512, 16, 1e-3
    d = os.path.join(INPUTS, "nufft"); os.makedirs(d, exist_ok=True)
    angle = np.arange(spokes)[:, None] * np.pi * (np.sqrt(5) - 1) / 2; r = (np.arange(ro) - ro / 2) / ro * n
    k = np.stack([(r * np.cos(angle)).ravel(), (r * np.sin(angle)).ravel()], 1).astype(np.float32)
    g = np.random.default_rng(1); noise = lambda *s: (g.standard_normal(s) + 1j * g.standard_normal(s)).astype(np.complex64)
    images, samples = noise(coils, n, n), noise(coils, len(k))
    for name, x in (("trajectory", k), ("images", images), ("samples", samples)): np.save(os.path.join(d, name + ".npy"), x)
    x, y = (2 * np.pi / n * k.astype(np.float64)).T
    k3 = torch.from_numpy(np.concatenate([k, 0 * k[:, :1]], 1)[None].copy()); im3, s3 = torch.from_numpy(images[:, None]), torch.from_numpy(samples[:, None, :, None].copy())
    peer_adjoint = lambda: bartorch.nufft_adjoint(s3, k3, image_shape=(1, n, n)).numpy()
    for kind, given, shape in ((1, samples, (coils, n, n)), (2, images, samples.shape)):
        sign = 1 if kind == 1 else -1
        exact = finufft.Plan(kind, (n, n), coils, 1e-12, sign, "complex128"); exact.setpts(y, x); truth = exact.execute(given.astype(np.complex128)) / n
        error = lambda out: dict(error=float(np.linalg.norm(np.asarray(out).reshape(shape) - truth) / np.linalg.norm(truth)))
        unitary = given / np.float32(n)   # finufft does not scale: what it gets is scaled, off the clock
        contenders = [ours("nufft", d, f"type={kind}", f"tolerance={tol}", out=True)]
        for upsampling in (2.0, 1.25):
            plan = finufft.Plan(kind, (n, n), coils, tol, sign, "complex64", nthreads=2, upsampfac=upsampling); plan.setpts(y.astype(np.float32), x.astype(np.float32))
            out = np.empty(shape, np.complex64)   # neither side pays for fresh memory
            contenders.append(Call(f"finufft, upsampling {upsampling}", lambda plan=plan, out=out: plan.execute(unitary, out=out)))
        contenders.append(Call("bartorch", peer_adjoint if kind == 1 else lambda: bartorch.nufft(im3, k3).numpy()))
        race(f"NUFFT type {kind}, 256x256x16, 400 x 512", contenders, reps, error, {c.name: ">= 1" for c in contenders[1:]})


PEER_SLICES, QUICK = 0, False
DEMANDS = dict(fft=bench_fft, nufft=bench_nufft, linear=bench_linear, espirit=bench_espirit, grappa=bench_grappa, cg_any=bench_cg_any, cg_regular=bench_cg_regular, read=bench_read, whole=bench_whole)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true"); p.add_argument("--reps", type=int, default=0); p.add_argument("--out", default="")
    p.add_argument("demands", nargs="*")
    p.add_argument("--peer-slices", type=int, default=0, help="whole job: peers reconstruct so many slices, time scaled"); p.add_argument("--no-build", action="store_true")
    a = p.parse_args()
    global PEER_SLICES, QUICK; PEER_SLICES, QUICK = a.peer_slices, a.quick
    build(a.no_build)
    reps = a.reps or (3 if a.quick else 7)
    with open("/tmp/bench.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in a.demands or DEMANDS:
            print(name, flush=True)
            try: DEMANDS[name](reps)
            except Exception as e:
                print(f"  {name}: {type(e).__name__}: {e}", flush=True); ROWS.append(dict(what=name, who="-", note=f"did not run: {e}"))
    report(a.out or os.path.join(ROOT, "benches/results", f"{datetime.date.today()}-{os.cpu_count()}core-{'epyc' if 'EPYC' in open('/proc/cpuinfo').read() else platform.machine()}"))


def report(out):
    os.makedirs(out, exist_ok=True)
    cols = ["what", "who", "best", "median", "ratio", "ratio_best", "target", "nrmse", "to_solution", "agree_median", "agree_p1", "support", "error", "energy", "rss", "note"]
    with open(os.path.join(out, "summary.csv"), "w", newline="") as f:
        w = csv.DictWriter(f, cols, extrasaction="ignore"); w.writeheader(); w.writerows(ROWS)
    with open(os.path.join(out, "raw.csv"), "w", newline="") as f:
        w = csv.writer(f); w.writerow(["what", "who", "repeat", "seconds"]); w.writerows(RAW)
    sig = lambda v: "" if v is None or v == "" else (f"{v:.4g}" if isinstance(v, float) else str(v))
    with open(os.path.join(out, "table.md"), "w") as f:
        f.write(f"# Cauda beside its peers, {datetime.datetime.now():%Y-%m-%d %H:%M}\n\nMade by `scripts/bench/run.py`. Seconds; `x` = peer's median over ours in the same run (above 1: we are faster); `x of best` = best over best.\n\n")
        f.write("| demand | who | best | median | x | x of best | target x | NRMSE inside | distance to solution | other |\n|---|---|---|---|---|---|---|---|---|---|\n")
        for r in ROWS:
            other = ", ".join(f"{k} {sig(r[k])}" for k in ("agree_median", "agree_p1", "support", "error", "energy", "note") if r.get(k) not in (None, ""))
            if r.get("rss"): other += f" peak {r['rss'] / 2**20:.0f} MiB"
            f.write("| " + " | ".join([r["what"], r["who"], sig(r.get("best")), sig(r.get("median")), sig(r.get("ratio")), sig(r.get("ratio_best")), sig(r.get("target")), sig(r.get("nrmse")), sig(r.get("to_solution")), other]) + " |\n")
    with open(os.path.join(out, "machine.txt"), "w") as f:
        f.write(subprocess.run(["lscpu"], capture_output=True, text=True).stdout + json.dumps(P.versions(), indent=1) + "\n" + subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
                + f"load averages at the end: {os.getloadavg()}\n")
    print("written:", out)


if __name__ == "__main__":
    main()
