#!/usr/bin/env python3
"""Times the streaming server beside its peers over loopback: same bytes, same client, same run, warm, turn by turn.

Usage: server.py [--out FILE.json] [--reps N] [--readouts N] [--cauda BIN] [--peer-dir DIR] [RACE ...]     RACE: recon ingest (default both)

recon   End to end against python-ismrmrd-server. One MRD v1 stream: 24 slices 128x128, 12 coils, 256 samples, fully
        sampled, no noise readouts (the peer's chain takes none). Time from connect() until the last byte of the last
        image is here; `close` is the time until the server has closed. Contenders: cauda asked for `simplefft` by name (root
        sum of squares, as the peer's), cauda with its own adaptive combination, the peer as shipped, and the peer without the
        three .npy files that it writes for every slice. Demanded: the shipped peer's median over ours >= 10; the ratio to
        the peer without files is shown beside it. The images must be the same: NRMSE after one scale for each slice (the
        peer stores 12 bits, each slice scaled to its maximum); with the same arithmetic above 0.002 the race fails.
ingest  10,240 readouts (0.84 GB), 16 coils, 640 samples, from one memory-mapped file in the page cache by one sendall: to a
        process that receives it into a reused buffer of 1 MiB and answers one byte (raw), and to cauda until its last image
        is here. The server has no mode without a reconstruction, so it gets the smallest there is (FFT, root sum of squares),
        on 320 lines that are measured once (32 frames), 8 times (4 frames; a tenth of the work is not ingest) or 32 times (one
        frame, which keeps 0.4 GB of lines until its end), with noise readouts in front (whitening, oversampling removal,
        sorting) or without (no whitening). Demanded: raw median over ours >= 0.6. The peer that only reads (configuration
        `null`) runs once, as a yardstick.

The peer comes from github kspaceKelvin/python-ismrmrd-server (MIT). It is on no package index: clone it to --peer-dir
(default python-ismrmrd-server in the environment of install_peers.sh whose Python runs this). Without it its rows are left
out, and that is said. Holds /tmp/bench.lock. Seconds are wall; cpu is user and system time of the server process.
"""
import argparse, ctypes, fcntl, json, mmap, os, socket, statistics, struct, subprocess, sys, tempfile, threading, time
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.normpath(os.path.join(HERE, "../.."))
sys.path.insert(0, os.path.join(HERE, "../golden"))
import numpy as np
import h5py
import ismrmrd
from ismrmrd.image import get_dtype_from_data_type
import simulate as S

INPUTS = os.path.join(S.DEFAULT_OUT, "server")
CONFIG_FILE, CONFIG_TEXT, HEADER, CLOSE, TEXT, ACQUISITION, IMAGE = 1, 2, 3, 4, 5, 1008, 1022
RSS = 'protocol = "recon_only"\nrecon.method = "fft"\nrecon.combine.method = "rss"\n'
ADAPTIVE = 'protocol = "recon_only"\nrecon.method = "fft"\n'
PAUSE_S = 0.3
# The peer's own main.py; the second starts it with numpy.save doing nothing.
MAIN = "import sys, runpy; sys.path.insert(0, ''); runpy.run_path('main.py', run_name='__main__')"
QUIET = "import numpy; numpy.save = lambda *a, **k: None; " + MAIN


# ------------------------------------------------------------------------------------------------ streams
def by_name(name): return struct.pack("<H1024s", CONFIG_FILE, name.encode())
def by_text(text): return struct.pack("<HI", CONFIG_TEXT, len(text) + 1) + text.encode() + b"\0"
def header(xml): return struct.pack("<HI", HEADER, len(xml) + 1) + xml + b"\0"


def scan_stream():
    """Header, imaging readouts, CLOSE of the recon race, without the configuration; and the number of slices."""
    S.CASES["server24"] = dict(n=128, coils=12, slices=24, accel=1, acs=0)
    path = os.path.join(INPUTS, "server24/scan.h5")
    if not os.path.exists(path): S.make("server24", INPUTS)
    with h5py.File(path) as f:
        xml, rows = f["dataset/xml"][0], f["dataset/data"][:]
    noise = 1 << (S.FLAG["noise"] - 1)
    parts = [header(xml)]
    for r in rows:
        if int(r["head"]["flags"]) & noise: continue
        parts += [struct.pack("<H", ACQUISITION), r["head"].tobytes(), r["data"].tobytes()]
    return b"".join(parts) + struct.pack("<H", CLOSE), 24


def ingest_stream(averages, readouts, with_noise):
    """Path of a stream (no configuration) of `readouts` lines, 16 x 640, in frames of `averages` x 320; its images. Written once, kept."""
    coils, n, lines = 16, 640, 320
    frames = readouts // (lines * averages)
    if frames < 1: raise SystemExit(f"--readouts {readouts}: needed are {lines * averages} at least")
    path = os.path.join(INPUTS, f"{frames}x{averages}-{'noise' if with_noise else 'bare'}.mrd")
    if os.path.exists(path): return path, frames
    rng = np.random.default_rng(1)
    chol = np.linalg.cholesky(S.covariance(coils))
    draw = lambda m: (chol @ (rng.standard_normal((coils, m)) + 1j * rng.standard_normal((coils, m)))).astype(np.complex64).tobytes()
    data = [draw(n) for _ in range(lines)]
    limits = {"kspace_encoding_step_1": (0, lines - 1, lines // 2), "kspace_encoding_step_2": (0, 0, 0), "average": (0, averages - 1, 0), "slice": (0, frames - 1, 0)}
    xml = S.xml("ingest", (n, lines, 1), (n // 2, lines, 1), (240., 240., 4.), limits, (1, 1), None, coils)
    counter = 0
    with open(path + ".part", "wb") as f:
        f.write(header(xml.encode()))
        def readout(h, bytes_): f.write(struct.pack("<H", ACQUISITION)); f.write(h.tobytes()); f.write(bytes_)
        for _ in range(64 if with_noise else 0):
            readout(S.head(counter, [S.FLAG["noise"]], 0, 5.0, (), 256, coils), draw(256)); counter += 1
        for frame, av, p in np.ndindex(frames, averages, lines):
            is_last = (av, p) == (averages - 1, lines - 1)
            flags = [S.FLAG["first_slice"]] * ((av, p) == (0, 0)) + [S.FLAG["last_slice"]] * is_last + [S.FLAG["last_measurement"]] * (is_last and frame == frames - 1)
            idx = (("kspace_encode_step_1", p), ("average", av), ("slice", frame))
            readout(S.head(counter, flags, n // 2, 5.0, idx, n, coils, (0, 0, 5. * frame)), data[p]); counter += 1
        f.write(struct.pack("<H", CLOSE))
    os.rename(path + ".part", path)
    return path, frames


def mapped(path):
    """The file's bytes, read once so that they are in the page cache."""
    with open(path, "rb") as f:
        m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    view = memoryview(m)
    for i in range(0, len(view), 1 << 24): bytes(view[i:i + (1 << 24)])
    return view


# ------------------------------------------------------------------------------------------------ client
def send(port, config, stream):
    """One scan. Returns the answer's bytes, the seconds at which each piece of it came, and the seconds until the close."""
    answer, arrived = bytearray(), []
    buffer = memoryview(bytearray(1 << 20))
    t0 = time.perf_counter()
    s = socket.create_connection(("127.0.0.1", port)); s.settimeout(300)
    def sender():
        try: s.sendall(config); s.sendall(stream)
        except OSError as e: print(f"  sending: {e}", flush=True)
    thread = threading.Thread(target=sender); thread.start()
    while n := s.recv_into(buffer):
        answer += buffer[:n]; arrived.append((len(answer), time.perf_counter() - t0))
    end = time.perf_counter() - t0
    thread.join(); s.close()
    return bytes(answer), arrived, end


def images(answer, is_told):
    """[(slice, magnitude [y, x], end offset)] of an answer; texts are printed if `is_told`, anything else is refused."""
    out, at = [], 0
    while at < len(answer):
        kind, = struct.unpack_from("<H", answer, at); at += 2
        if kind == CLOSE: continue
        if kind == TEXT:
            n, = struct.unpack_from("<I", answer, at)
            if is_told: print("  server says:", answer[at + 4:at + 4 + n].rstrip(b"\0").decode()[:300], flush=True)
            at += 4 + n; continue
        if kind != IMAGE: raise RuntimeError(f"message {kind} in the answer at byte {at}")
        h = ismrmrd.ImageHeader.from_buffer_copy(answer, at); at += ctypes.sizeof(ismrmrd.ImageHeader)
        n, = struct.unpack_from("<Q", answer, at); at += 8 + n
        x, y, z = h.matrix_size
        dtype = get_dtype_from_data_type(h.data_type)
        a = np.frombuffer(answer, dtype, h.channels * x * y * z, at); at += a.nbytes
        out.append((h.slice, np.abs(a.astype(np.complex64 if dtype.kind == "c" else np.float32)).reshape(y, x), at))
    return out


def nrmse(ours, theirs):
    """Over all slices, each fitted by one scale; slices are paired by their index."""
    a, b = ({s: x.astype(np.float64) for s, x, _ in v} for v in (ours, theirs))
    if sorted(a) != sorted(b): raise RuntimeError(f"slices {sorted(a)} and {sorted(b)}")
    num = den = 0.
    for s, x in a.items():
        y = b[s]
        num += np.sum((x * (np.vdot(x, y) / np.vdot(x, x)) - y) ** 2); den += np.sum(y ** 2)
    return float(np.sqrt(num / den))


# ------------------------------------------------------------------------------------------------ servers
class Server:
    """A server process on a free port; `command(port)` starts it."""
    def __init__(self, command, cwd=None):
        with socket.socket() as s: s.bind(("127.0.0.1", 0)); self.port = s.getsockname()[1]
        self.log = tempfile.NamedTemporaryFile(prefix="cauda-race-", suffix=".log")
        self.p = subprocess.Popen(command(self.port), cwd=cwd, stdout=self.log, stderr=self.log)
        for _ in range(200):
            try: socket.create_connection(("127.0.0.1", self.port), 1).close(); return
            except OSError: time.sleep(.1)
            if self.p.poll() is not None: break
        self.close(); raise RuntimeError(f"{command(self.port)[0]} does not listen: {self.tail()}")
    def tail(self):
        with open(self.log.name) as f: return f.read()[-600:]
    def cpu(self):
        with open(f"/proc/{self.p.pid}/stat") as f: f = f.read().rsplit(")", 1)[1].split()
        return (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK")
    def close(self): self.p.terminate(); self.p.wait()


SINK = """
import socket, sys
l = socket.create_server(("127.0.0.1", int(sys.argv[1]))); b = memoryview(bytearray(1 << 20))
while True:
    c, _ = l.accept(); left = int(sys.argv[2])
    while left > 0:
        n = c.recv_into(b)
        if n == 0: break
        left -= n
    else: c.sendall(b"\\4\\0")
    c.close()
"""


class Contender:
    """One configuration and stream sent to one server; `n_images` must come back."""
    def __init__(self, name, server, config, stream, n_images, reps=None):
        self.name, self.server, self.config, self.stream, self.n_images, self.reps = name, server, config, stream, n_images, reps
        self.last, self.close, self.cpu, self.load, self.images = [], [], [], [], None
    def run(self, counted=True):
        before, load = self.server.cpu(), os.getloadavg()[0]
        answer, arrived, end = send(self.server.port, self.config, self.stream)
        got = images(answer, not counted)
        if len(got) != self.n_images: raise RuntimeError(f"{self.name}: {len(got)} images, expected {self.n_images}; {self.server.tail()}")
        if not counted: self.images = got; return
        last = got[-1][2] if got else len(answer)
        self.last.append(next(t for n, t in arrived if n >= last)); self.close.append(end)
        self.cpu.append(self.server.cpu() - before); self.load.append(load)


def race(what, contenders, reps, yardstick, demand, rate_bytes=None):
    """One warm-up each, then turn by turn. Rows: `x` = yardstick's median over the contender's."""
    for c in contenders: c.run(counted=False)
    for r in range(reps):
        for c in contenders:
            if c.reps is None or r < c.reps: time.sleep(PAUSE_S); c.run()
    by = next((c for c in contenders if c.name == yardstick), None)
    rows = []
    for c in contenders:
        row = dict(race=what, who=c.name, median=statistics.median(c.last), best=min(c.last), close=statistics.median(c.close), cpu=statistics.median(c.cpu),
                   load=max(c.load), seconds=c.last)
        if rate_bytes: row["gb_per_s"] = rate_bytes(c) / row["median"] / 1e9
        if by: row.update(x=statistics.median(by.last) / row["median"], x_best=min(by.last) / row["best"])
        if c.name.startswith("cauda"): row["demand"] = demand
        rows.append(row)
    return rows


def show(rows):
    for r in rows:
        print(f"  {r['race']:7} {r['who']:34} median {r['median']:.4f} best {r['best']:.4f} close {r['close']:.4f} cpu {r['cpu']:.2f}" + (f"  {r['gb_per_s']:.2f} GB/s" if "gb_per_s" in r else "")
              + (f"  x{r['x']:.3g} (best x{r['x_best']:.3g})" if "x" in r else "") + (f"  x without .npy {r['x_without_npy']:.3g}" if "x_without_npy" in r else "") + (f"  demand >= {r['demand']}" if "demand" in r else "")
              + (f"  nrmse to peer {r['nrmse_to_peer']:.2g}" if "nrmse_to_peer" in r else "") + f"  load {r['load']:.1f}", flush=True)


# ------------------------------------------------------------------------------------------------ races
def peer(code=MAIN):
    """The peer's server, or None with the reason printed."""
    if not os.path.exists(os.path.join(PEER, "main.py")):
        print(f"  python-ismrmrd-server left out: no {PEER}/main.py; clone github kspaceKelvin/python-ismrmrd-server there", flush=True); return None
    try: return Server(lambda port: [sys.executable, "-c", code, "-H", "127.0.0.1", "-p", str(port)], PEER)
    except RuntimeError as e: print(f"  python-ismrmrd-server left out: {e}", flush=True); return None


def cauda(): return Server(lambda port: [CAUDA, "serve", "--listen", f"127.0.0.1:{port}", "--log", "error"])


def race_recon(reps, _):
    stream, n = scan_stream()
    ours = cauda(); servers = [ours]
    same, adaptive = Contender("cauda simplefft", ours, by_name("simplefft"), stream, n), Contender("cauda, adaptive combination", ours, by_text(ADAPTIVE), stream, n)
    cs = [same, adaptive]
    for name, code in (("python-ismrmrd-server", MAIN), ("python-ismrmrd-server, no .npy", QUIET)):
        if s := peer(code): servers.append(s); cs.append(Contender(name, s, by_name("simplefft"), stream, n))
    try:
        rows = race("recon", cs, reps, "python-ismrmrd-server", 10)
        for c, row in zip(cs, rows):
            if len(cs) == 4 and c in (same, adaptive): row.update(nrmse_to_peer=nrmse(c.images, cs[2].images), x_without_npy=rows[3]["median"] / row["median"])
            if c is same and row.get("nrmse_to_peer", 0) > 0.002: raise RuntimeError(f"not the same images, the times say nothing: NRMSE {row['nrmse_to_peer']:.3g}")
    finally:
        for s in servers: s.close()
    return rows


def race_ingest(reps, readouts):
    config, views = by_text(RSS), []
    for averages, noise in ((8, True), (8, False), (1, True), (32, True)):
        path, frames = ingest_stream(averages, readouts, noise)
        views.append((f"cauda {frames} frames x {averages}, {'' if noise else 'not '}whitened", mapped(path), frames))
    bytes_ = views[0][1]
    sink = Server(lambda port: [sys.executable, "-c", SINK, str(port), str(len(config) + len(bytes_))]); ours = cauda(); servers = [sink, ours]
    cs = [Contender("raw loopback", sink, config, bytes_, 0), *(Contender(name, ours, config, view, frames) for name, view, frames in views)]
    if s := peer(): servers.append(s); cs.append(Contender("python-ismrmrd-server null", s, by_name("null"), bytes_, 0, 1))
    try: return race("ingest", cs, reps, "raw loopback", 0.6, lambda c: len(c.stream))
    finally:
        for s in servers: s.close()


RACES = dict(recon=race_recon, ingest=race_ingest)


def main():
    global CAUDA, PEER
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default=""); p.add_argument("--reps", type=int, default=5); p.add_argument("--readouts", type=int, default=10_240)
    p.add_argument("--cauda", default=os.environ.get("CAUDA_BIN", os.path.join(ROOT, "target/release/cauda"))); p.add_argument("--peer-dir", default=os.path.join(sys.prefix, "python-ismrmrd-server"))
    p.add_argument("races", nargs="*", metavar="RACE")
    a = p.parse_args()
    CAUDA, PEER = os.path.abspath(a.cauda), os.path.abspath(a.peer_dir)
    if not os.path.exists(CAUDA): p.error(f"no {CAUDA}: build it (cargo build --release) or name it with --cauda")
    os.makedirs(INPUTS, exist_ok=True)
    rows = []
    with open("/tmp/bench.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in a.races or RACES:
            print(name, f"load {os.getloadavg()[0]:.2f}", flush=True)
            got = RACES[name](a.reps, a.readouts); show(got); rows += got
    if a.out:
        commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
        with open(a.out, "w") as f: json.dump(dict(rows=rows, cpus=os.cpu_count(), commit=commit, when=time.strftime("%Y-%m-%d %H:%M")), f, indent=1)
        print("written:", a.out)


if __name__ == "__main__":
    main()
