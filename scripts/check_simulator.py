#!/usr/bin/env python3
"""One turbo spin echo slice of a digital spine by a Bloch and phase-graph simulator of others (MRzeroCore) and by ours.

Usage: check_simulator.py [--epg SITE_PACKAGES] [--out FILE]

Needs torch, numpy and MRzeroCore (tests only; it may live in the site-packages of another environment: --epg), and builds
`scripts/one_slice.rs`, which says what is played and what lies where. MRzeroCore plays every pulse, gradient and sample
of it: dummy shots until the steady state, crushers, spoilers, phase encoding, relaxation and off-resonance during the
readout, each fat peak as spins of its own frequency. Nothing is scaled to fit. Compared are

* the echoes of CSF, cord, marrow and fat at three transmit fields: by phase graphs, and by 4000 isochromats each;
* the image of the slice; that with the patient's field is said and not judged. Takes a quarter of an hour.

A wrong twin (T2 too long by 20 %), one without fat's frequencies and one off by a pixel must be seen. The sense in which
frequency and place turn the phase is a convention, MRzeroCore's the opposite of ours, and is not judged here.
Exit status 1 if a tolerance is missed or a twin is not seen.
"""
import argparse, json, os, subprocess, sys, tempfile, time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--epg", default="/opt/epg/lib/python3.11/site-packages")
parser.add_argument("--out")
args = parser.parse_args()
sys.path.append(args.epg)
import numpy as np
import torch
import MRzeroCore as mr0

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
DUMMIES, SPINS = 4, 4000
lines, failed = [], []


def say(text):
    print(text, flush=True)
    lines.append(text)


def judge(name, value, most=None, least=None):
    ok = (most is None or value <= most) and (least is None or value >= least)
    bound = f"at most {most}" if least is None else f"at least {least}"
    say(f"{name}: {value:.5f} ({bound}) {'ok' if ok else 'MISSED'}")
    if not ok:
        failed.append(name)


def play(case, shots, reads, is_even=False):
    """The sequence, event by event: times in s, moments in cycles per field of view. `reads`: whole readouts or echoes.

    Crushers differ from shot to shot, so that nothing but the sum of the longitudinal magnetisation lasts until the next
    (`is_even`: they do not): in a patient diffusion and motion do that.
    """
    esp, dwell = case["echo_spacing_ms"] * 1e-3, case["dwell_ms"] * 1e-3
    etl = case["echo_train_length"]
    nx, ny = case["encoded"]
    seq = mr0.Sequence()
    for number, shot in enumerate(shots):
        pe = {echo: pe1 - ny // 2 for echo, pe1 in shot}
        crush = 100.0 * (1.0 if is_even else 1.0 + 0.6180339887 * number)
        rep = seq.new_rep(1)
        rep.pulse.usage = mr0.PulseUsage.EXCIT
        rep.pulse.angle = torch.tensor(np.deg2rad(case["excitation_deg"]), dtype=torch.float32)
        rep.pulse.phase = torch.tensor(np.pi / 2, dtype=torch.float32)
        rep.event_time[:] = esp / 2
        rep.gradm[0] = torch.tensor([nx / 2 if reads else 0.0, 0.0, crush])
        for echo in range(etl):
            is_last, y = echo + 1 == etl, float(pe.get(echo, 0))
            n = nx if reads and echo in pe else 1
            rep = seq.new_rep(n + 1)
            rep.pulse.usage = mr0.PulseUsage.REFOC
            rep.pulse.angle = torch.tensor(np.deg2rad(case["refocusing_deg"]), dtype=torch.float32)
            before = esp / 2 - (n // 2) * dwell
            rep.event_time[0] = before
            rep.event_time[1:n] = dwell
            rep.event_time[n] = esp - before - (n - 1) * dwell
            rep.gradm[0] = torch.tensor([0.0 if n > 1 or not reads else nx / 2, y, crush])
            rep.gradm[1:n, 0] = 1.0
            rep.gradm[n] = torch.tensor([(1.0 if n > 1 else nx / 2) if reads else 0.0, -y, crush])
            if echo in pe:
                rep.adc_usage[:n] = 1
            if is_last:
                # What is left is spread by another moment in every shot, so that none comes back.
                rest = case["tr_ms"] * 1e-3 - (etl + 0.5) * esp
                rep.event_time[n] += rest
                rep.gradm[n, 2] += 1013.0 * (1 + number) ** 2
    return seq


def spins(pd, t1_ms, t2_ms, hz, b1, where, nyquist):
    one = torch.ones_like(pd)
    return mr0.SimData(
        pd, t1_ms * 1e-3, t2_ms * 1e-3, 1e9 * one, 0 * one, hz, b1[None], one[None], torch.ones(3), torch.eye(4),
        where, torch.tensor(nyquist), lambda k, _: (k[:, 2].abs() < 0.5).to(torch.float32))


def graph(seq, data, case, emitted=1e-5):
    tissues = {n: dict(T1=t[0] * 1e-3, T2=t[1] * 1e-3, T2dash=1e9, D=0.0) for n, t in case["tissues"]}
    # The graph's own program speaks on the file descriptor.
    sys.stdout.flush()
    out, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        g = mr0.compute_graph(seq, data, 2000, 1e-5, tissues)
    finally:
        os.dup2(out, 1), os.close(out), os.close(null)
    return mr0.execute_graph(g, seq, data, emitted, emitted, print_progress=False)


def trains(case, isochromats, longer=1.0, is_even=False):
    """Echoes of the tissues, `[tissue * B1, echo]`."""
    etl, out = case["echo_train_length"], []
    seq = play(case, [[]] * DUMMIES + [[(e, case["encoded"][1] // 2) for e in range(etl)]], False, is_even)
    for _, (t1, t2) in case["tissues"]:
        for b1 in case["b1"]:
            v = lambda x: torch.tensor([x], dtype=torch.float32)
            data = spins(v(1.0), v(t1), v(t2 * longer), v(0.0), v(b1), torch.zeros(1, 3), [1e3, 1e3, 10.0])
            if isochromats:
                # Isochromats spread over a box along the crushers.
                data.nyquist = torch.tensor([0.5, 0.5, 0.5])
                signal = mr0.isochromat_sim(seq, data, SPINS, perfect_spoiling=True, print_progress=False)
            else:
                signal = graph(seq, data, case)
            out.append(signal[:, 0].numpy())
    return np.array(out)


def image(case, points, longer=1.0, shift=True):
    """The slice: k-space of all shots, and its plain inverse sum; `[y, x]`."""
    nx, ny = case["encoded"]
    x, y, pd, ff, t1, t2, hz = torch.tensor(points.T.copy())
    where = torch.stack([x, y, 0 * x], 1)
    parts = [(pd * (1 - ff), t1, t2 * longer, hz)]
    fat = torch.ones_like(pd)
    for peak_hz, part in case["fat_peaks_hz"]:
        parts.append((pd * ff * part, fat * case["fat_ms"][0], fat * case["fat_ms"][1] * longer,
                      hz + (peak_hz if shift else 0.0)))
    parts = [torch.cat(p) for p in zip(*parts)]
    where = where.repeat(1 + len(case["fat_peaks_hz"]), 1)
    keep = parts[0] > 0
    # Opposite sense of rotation: see above.
    data = spins(parts[0][keep], parts[1][keep], parts[2][keep], -parts[3][keep], torch.ones(int(keep.sum())),
                 where[keep], [4.0 * nx, 4.0 * ny, 10.0])
    shots = [[]] * DUMMIES + case["shots"]
    signal = graph(play(case, shots, True), data, case, 1e-3)[:, 0].numpy()
    k = np.zeros((ny, nx), complex)
    for (_, pe1), line in zip((l for s in case["shots"] for l in s), signal.reshape(-1, nx)):
        k[pe1] = line
    k /= np.prod(case["raster"])
    full = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(k), norm="forward"))
    mx, my = case["matrix"]
    return full[ny // 2 - my // 2:][:my, nx // 2 - mx // 2:][:, :mx]


with tempfile.TemporaryDirectory() as folder:
    cases = {}
    for field in ["no-field", "field"]:
        at = os.path.join(folder, field)
        subprocess.run(["cargo", "run", "--quiet", "--example", "one_slice", at, field], cwd=ROOT, check=True)
        with open(os.path.join(at, "slice.json")) as f:
            case = json.load(f)
        mx, my = case["matrix"]
        load = lambda name, kind: np.fromfile(os.path.join(at, name), kind)
        cases[field] = (case, load("points.f32", np.float32).reshape(-1, 7),
                        load("image.c64", np.complex64).reshape(my, mx), load("trains.f64", np.float64))

say(f"{time.strftime('%Y-%m-%d')}: MRzeroCore {__import__('importlib.metadata').metadata.version('mrzerocore')}, torch "
    f"{torch.__version__}")
case, points, ours, ours_trains = cases["no-field"]
say(f"TSE: TR {case['tr_ms']} ms, {case['echo_train_length']} echoes every {case['echo_spacing_ms']} ms, "
    f"{case['refocusing_deg']} degrees, {mx} x {my}, {len(points)} points")
torch.manual_seed(1)
theirs = trains(case, False)
ours_trains = ours_trains.reshape(theirs.shape)
off = np.abs(theirs - ours_trains).max(1) / np.abs(ours_trains).max(1)
names = [f"{n} (T1 {t[0]:.0f}, T2 {t[1]:.0f}), B1 {b}" for n, t in case["tissues"] for b in case["b1"]]
for name, o, a, b in zip(names, off, ours_trains, theirs):
    say(f"  {name}: worst echo off by {o:.5f} of the largest; first and last {a[0]:.4f} {a[-1]:.4f}, theirs {b[0].real:.4f} "
        f"{b[-1].real:.4f}")
judge("echoes, phase graphs, worst of all tissues", off.max(), most=2e-3)
bloch = np.abs(trains(case, True) - ours_trains).max(1) / np.abs(ours_trains).max(1)
judge(f"echoes, {SPINS} isochromats, worst of all tissues (their noise is {SPINS ** -0.5:.3f})", bloch.max(), most=0.05)
twin = np.abs(trains(case, False, 1.2) - ours_trains).max(1) / np.abs(ours_trains).max(1)
judge("twin: T2 20 % too long, least of all tissues", twin.min(), least=5e-3)


even = np.abs(trains(case, False, is_even=True) - ours_trains).max(1) / np.abs(ours_trains).max(1)
say(f"not judged: with equal crushers and without diffusion, magnetisation stored along the field comes back in later "
    f"shots: {dict(zip(names, even.round(3).tolist()))}")


def nrmse(a, b):
    return np.linalg.norm(np.abs(a) - np.abs(b)) / np.linalg.norm(np.abs(a))


case, points, ours, _ = cases["no-field"]
theirs, most = image(case, points), 0.02
judge("image, even field, NRMSE", nrmse(theirs, ours), most=most)
say(f"  scale {np.vdot(theirs, ours).real / np.vdot(theirs, theirs).real:.4f}, complex NRMSE "
    f"{np.linalg.norm(theirs - ours) / np.linalg.norm(theirs):.4f}")
judge("twin: T2 20 % too long, NRMSE", nrmse(image(case, points, 1.2), ours), least=2 * most)
judge("twin: fat at the frequency of water, NRMSE", nrmse(image(case, points, shift=False), ours), least=2 * most)
judge("twin: a pixel off, NRMSE", nrmse(np.roll(theirs, 1, 1), ours), least=2 * most)
case, points, ours, _ = cases["field"]
say(f"not judged: image with the patient's field, NRMSE {nrmse(image(case, points), ours):.5f}")
if args.out:
    with open(args.out, "w") as f:
        f.write("\n".join(lines) + "\n")
sys.exit(1 if failed else 0)
