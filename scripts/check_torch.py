#!/usr/bin/env python3
"""The libtorch plug-in as a program without libtorch meets it: loads, agrees with ONNX Runtime, refuses, holds its memory.

Usage: check_torch.py [DIR] [--runs N] [--damaged N]

DIR (default: target/torch) is what `scripts/torch.sh` made. Needs numpy, and onnxruntime (DIR/site has one). Checked on the CPU
with 2 threads, and on card 0 where libtorch sees one (device memory and a stream of ours, through the CUDA driver):

* outputs within 1e-4 of their rms of ONNX Runtime's on the CPU, at two shapes; an input that is wrong by 1 % must be seen;
* the same bits in every run;
* what is no module, damaged, or of the wrong shape or number is an error with a text; damaged files are loaded and run in
  another process, which must live;
* resident memory after all runs and after loading again and again.

Exit status 1 if one of them fails.
"""
import argparse, ctypes, os, random, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("dir", nargs="?", type=Path, default=ROOT / "target" / "torch")
parser.add_argument("--runs", type=int, default=200)
parser.add_argument("--damaged", type=int, default=1000, help="files, each with one byte wrong or the end cut off")
parser.add_argument("--load-damaged", type=int, nargs=2, metavar=("FIRST", "LAST"), help=argparse.SUPPRESS)
args = parser.parse_args()
sys.path.append(str(args.dir / "site"))
import numpy as np

BOUND, THREADS, CPU = 1e-4, 2, -1
NAMES = {"image": 6, "gfactor": 1, "noise": 0}, {"denoised": 2, "sigma": 1}
failed = []


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("shape", ctypes.POINTER(ctypes.c_int64)), ("rank", ctypes.c_uint32), ("device", ctypes.c_int32)]


def judge(name, ok, said=""):
    print(f"{'ok  ' if ok else 'FAIL'}  {name}{': ' if said else ''}{said}", flush=True)
    if not ok:
        failed.append(name)


def ms(work):
    begin = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begin)


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


class Plugin:
    def __init__(self, path):
        self.c = ctypes.CDLL(str(path), mode=os.RTLD_NOW)
        p, size = ctypes.c_void_p, ctypes.c_size_t
        self.c.cauda_torch_describe.restype = ctypes.c_char_p
        self.c.cauda_torch_load.restype = p
        self.c.cauda_torch_load.argtypes = [ctypes.c_char_p, size, ctypes.c_int32, ctypes.c_uint32, ctypes.c_char_p, size]
        self.c.cauda_torch_run.argtypes = [p, ctypes.POINTER(Tensor), size, ctypes.POINTER(Tensor), size, p, ctypes.c_char_p, size]
        self.c.cauda_torch_unload.argtypes, self.c.cauda_torch_unload.restype = [p], None

    def load(self, data, device=CPU):
        error = ctypes.create_string_buffer(1024)
        model = self.c.cauda_torch_load(data, len(data), device, THREADS, error, len(error))
        if not model:
            raise ValueError(error.value.decode())
        return model

    def run(self, model, inputs, outputs, stream=None):
        error = ctypes.create_string_buffer(1024)
        if self.c.cauda_torch_run(model, tensors(inputs), len(inputs), tensors(outputs), len(outputs), stream, error, len(error)):
            raise ValueError(error.value.decode())


def tensors(values):
    """Arrays, or (address on card 0, shape)."""
    out = (Tensor * max(len(values), 1))()
    for t, v in zip(out, values):
        address, shape, device = (*v, 0) if isinstance(v, tuple) else (v.ctypes.data, v.shape, CPU)
        t.data, t.rank, t.device = address, len(shape), device
        t.shape = (ctypes.c_int64 * len(shape))(*shape)
    return out


def example(n, h, w):
    rng = np.random.default_rng(n * h * w)
    values = 10 * rng.standard_normal((n, 6, h, w)), 1 + rng.random((n, 1, h, w)), 0.5 + rng.random(n)
    return [np.ascontiguousarray(v, dtype=np.float32) for v in values]


def empty(n, h, w):
    return [np.full((n, c, h, w), np.nan, np.float32) for c in NAMES[1].values()]


def furthest(got, expected):
    return max(float(np.abs(g - e).max() / np.sqrt(np.mean(e.astype(np.float64) ** 2))) for g, e in zip(got, expected))


def refusal(work):
    try:
        work()
    except ValueError as e:
        return str(e)
    return None


def damaged(good, seed):
    rng, data = random.Random(seed), bytearray(good)
    if seed % 4 == 0:
        return bytes(data[: rng.randrange(len(data))])
    # The program and the tables are small beside the weights: half of the wrong bytes are in the last 2 %.
    at = rng.randrange(len(data)) if seed % 2 else len(data) - 1 - rng.randrange(len(data) // 50)
    data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def is_flat(name, n, work):
    """The highest of the second half against that of the first: between them the allocator breathes."""
    marks = [(work(), resident())[1] for _ in range(n)]
    first, second = max(marks[: n // 2]), max(marks[n // 2 :])
    judge(name, second - first < 4, f"at most {first:.1f} MiB in the first half, {second:.1f} in the second")


def check(plugin, name, good, device, expected, run):
    """`run(model, inputs, shape)` gives the outputs as arrays."""
    model = plugin.load(good, device)
    times = [ms(lambda: plugin.c.cauda_torch_unload(plugin.load(good, device))) for _ in range(7)]
    first = ms(lambda: run(model, example(1, 320, 320), (1, 320, 320)))
    for shape, e in expected.items():
        inputs = example(*shape)
        got = run(model, inputs, shape)
        judge(f"{name}: agrees with ONNX Runtime at {shape}", furthest(got, e) <= BOUND, f"{furthest(got, e):.1e} of the rms")
        twin = run(model, [inputs[0], inputs[1], inputs[2] * np.float32(1.01)], shape)
        judge(f"{name}: noise wrong by 1 % is seen at {shape}", furthest(twin, e) > BOUND, f"{furthest(twin, e):.1e}")
        same = all(all(np.array_equal(a, b) for a, b in zip(run(model, inputs, shape), got)) for _ in range(5))
        judge(f"{name}: the same bits in six runs at {shape}", same)
    inputs = example(1, 320, 320)
    wall = []

    def another_model():
        again = plugin.load(good, device)
        run(again, inputs, (1, 320, 320))
        plugin.c.cauda_torch_unload(again)

    is_flat(f"{name}: memory over {args.runs} runs", args.runs, lambda: wall.append(ms(lambda: run(model, inputs, (1, 320, 320)))))
    is_flat(f"{name}: memory over 20 models", 20, another_model)
    print(f"      {name}: load {np.median(times):.0f} ms, first run {first:.0f} ms, then {np.median(wall):.1f} ms a slice of 320x320 "
          f"(best {min(wall):.1f})")
    return model


def refusals(plugin, good, model):
    for name, data in [("no bytes", b""), ("garbage", b"garbage"), ("zeros", bytes(4096)), ("half a file", good[: len(good) // 2]),
                       ("a file without its last byte", good[:-1]), ("a file without its first", good[1:]), ("ONNX", (args.dir / "model.onnx").read_bytes())]:
        said = refusal(lambda: plugin.load(data))
        judge(f"{name} is refused", bool(said), said)
    said = refusal(lambda: plugin.load(good, 99))
    judge("card 99 is refused", bool(said), said)
    x, y = example(1, 64, 64), empty(1, 64, 64)
    for name, inputs, outputs in [
            ("5 channels", [x[0][:, :5].copy(), *x[1:]], y), ("a side of 60", example(1, 60, 64), empty(1, 60, 64)),
            ("a g-factor of another size", [x[0], x[1][..., :32].copy(), x[2]], y), ("two inputs", x[:2], y), ("four inputs", [*x, x[2]], y),
            ("no inputs", [], y), ("one output", x, y[:1]), ("three outputs", x, [*y, y[0]]), ("outputs of another size", x, empty(1, 64, 72)),
            ("an output of another rank", x, [y[0][0], y[1]]), ("an image on a card", [(x[0].ctypes.data, x[0].shape), *x[1:]], y)]:
        said = refusal(lambda: plugin.run(model, inputs, outputs))
        judge(f"{name}: refused", bool(said), said)
    plugin.run(model, x, y)
    judge("and the model still runs", not any(np.isnan(v).any() for v in y))


def load_damaged(plugin, good):
    for seed in range(*args.load_damaged):
        print(seed, flush=True)
        try:
            model = plugin.load(damaged(good, seed))
            plugin.run(model, example(1, 16, 16), empty(1, 16, 16))
            plugin.c.cauda_torch_unload(model)
        except ValueError:
            pass


def survives_damage():
    seed, died = 0, []
    while seed < args.damaged:
        child = subprocess.run([sys.executable, __file__, str(args.dir), "--load-damaged", str(seed), str(args.damaged)], capture_output=True, text=True)
        if child.returncode == 0:
            break
        seed = int(child.stdout.split()[-1]) + 1
        died.append(f"seed {seed - 1} (status {child.returncode}: {child.stderr.strip()[-200:]})")
    judge(f"{args.damaged} damaged files", not died, "; ".join(died) or "an error or a result each")


class Card:
    """Memory and a stream of ours on card 0, in its primary context, as the engine has them."""

    def __init__(self):
        self.cuda = ctypes.CDLL("libcuda.so.1")
        context, self.stream = ctypes.c_void_p(), ctypes.c_void_p()
        self.ask("cuInit", 0)
        self.ask("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self.ask("cuCtxSetCurrent", context)
        self.ask("cuStreamCreate", ctypes.byref(self.stream), 1)  # CU_STREAM_NON_BLOCKING

    def ask(self, call, *values):
        status = getattr(self.cuda, call)(*values)
        if status:
            raise RuntimeError(f"{call}: {status}")

    def put(self, values):
        """Copies of the arrays on the card, as (address, shape)."""
        held = []
        for v in values:
            address = ctypes.c_uint64()
            self.ask("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(v.nbytes))
            self.ask("cuMemcpyHtoDAsync_v2", address, ctypes.c_void_p(v.ctypes.data), ctypes.c_size_t(v.nbytes), self.stream)
            held.append((address.value, v.shape))
        return held

    def run(self, plugin, model, inputs, shape):
        outputs = empty(*shape)
        held = self.put([*inputs, *outputs])
        plugin.run(model, held[:3], held[3:], self.stream)
        for v, (address, _) in zip(outputs, held[3:]):
            self.ask("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(v.ctypes.data), ctypes.c_uint64(address), ctypes.c_size_t(v.nbytes), self.stream)
        self.ask("cuStreamSynchronize", self.stream)
        for address, _ in held:
            self.ask("cuMemFree_v2", ctypes.c_uint64(address))
        return outputs

    def ms_queued(self, plugin, model, n=50):
        """ms a slice when passes queue behind each other, nothing copied."""
        held = self.put([*example(1, 320, 320), *empty(1, 320, 320)])

        def passes():
            for _ in range(n):
                plugin.run(model, held[:3], held[3:], self.stream)
            self.ask("cuStreamSynchronize", self.stream)

        passes()
        return ms(passes) / n

    def used_mib(self):
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.ask("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return (total.value - free.value) / 2**20


def main():
    good = (args.dir / "model.pt").read_bytes()
    opened = ms(lambda: globals().update(plugin=Plugin(args.dir / "libcauda_torch.so")))
    if args.load_damaged:
        return load_damaged(plugin, good)
    judge("five functions of version 1", plugin.c.cauda_torch_abi() == 1, plugin.c.cauda_torch_describe().decode())
    loaded = ms(lambda: plugin.load(good))
    print(f"      dlopen {opened:.0f} ms, first load {loaded:.0f} ms, {resident():.0f} MiB")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(args.dir / "model.onnx"), providers=["CPUExecutionProvider"])
    expected = {shape: session.run(list(NAMES[1]), dict(zip(NAMES[0], example(*shape)))) for shape in [(1, 320, 320), (3, 96, 136)]}

    def on_cpu(model, inputs, shape):
        outputs = empty(*shape)
        plugin.run(model, inputs, outputs)
        return outputs

    model = check(plugin, "CPU, 2 threads", good, CPU, expected, on_cpu)
    refusals(plugin, good, model)
    survives_damage()
    if plugin.c.cauda_torch_describe().endswith(b"CUDA available"):
        card = Card()
        before = card.used_mib()
        model = check(plugin, "card 0", good, 0, expected, lambda *a: card.run(plugin, *a))
        print(f"      card 0: {card.ms_queued(plugin, model):.2f} ms a slice of 320x320, queued; {card.used_mib() - before:.0f} MiB of the card")
    else:
        print("SKIPPED: libtorch sees no card; nothing of it was checked")
    sys.exit(f"{len(failed)} failed: {', '.join(failed)}" if failed else 0)


main()
