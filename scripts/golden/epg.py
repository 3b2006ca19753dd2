#!/usr/bin/env python3
"""Echo amplitudes of turbo spin echo trains from two phase-graph programs of others: mrpro and epyg.

Usage: epg.py [EPYG_SITE_PACKAGES]      writes tests/golden/epg/*.npy

mrpro must be importable; epyg may live in a folder of its own, because it asks for an older numpy.
`params` are T1, T2, refocusing angle (degrees), echo spacing; `echoes_*` the 60 echoes of one train from equilibrium,
excitation 90 degrees (a shorter train has the first of them). `steady_params` are T1, T2, B1; `steady_*` the 19 echoes
(150 degrees, 10 ms) of the 12th train at TR 1000 ms, all transverse magnetisation spoiled between trains: what a
train leaves of the longitudinal magnetisation is in them. B1 scales excitation and refocusing. Times in ms.
"""
import os, sys
import numpy as np

sys.path += sys.argv[1:2]
import torch
from mrpro.operators.models import EPG
from epyg import EpyG, Operators

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/golden/epg")
torch.set_default_dtype(torch.float64)


def mrpro_trains(t1, t2, exc, ref, esp, n, tr, repeats):
    p = EPG.Parameters(m0=torch.tensor([1 + 0j]), t1=torch.tensor([t1]), t2=torch.tensor([t2]))
    s = EPG.initial_state((1,), n_states=2 * n + 4, dtype=torch.complex128)
    half = EPG.relax_matrix(torch.tensor(esp / 2), p.t1, p.t2)
    rad = lambda a: torch.tensor(np.deg2rad(a))
    refocus = EPG.rf_matrix(rad(ref), rad(0.0))
    for _ in range(repeats):
        s = EPG.rf(s, EPG.rf_matrix(rad(exc), rad(90.0)))
        out = []
        for _ in range(n):
            s = EPG.gradient_dephasing(EPG.relax(s, half))
            s = EPG.relax(EPG.gradient_dephasing(EPG.rf(s, refocus)), half)
            out.append(EPG.acquisition(s, p.m0))
        z = s[..., 2, 0].clone()
        s = torch.zeros_like(s)
        s[..., 2, 0] = z
        s = EPG.relax(s, EPG.relax_matrix(torch.tensor(tr - n * esp), p.t1, p.t2))
    return torch.stack(out)[:, 0].real.numpy()


def epyg_trains(t1, t2, exc, ref, esp, n, tr, repeats):
    g = EpyG.epg(initial_size=2 * n + 8)
    excite = Operators.Transform(np.deg2rad(exc), -np.pi / 2)  # epyg turns the other way round
    refocus = Operators.Transform(np.deg2rad(ref), 0.0)
    relax = Operators.Epsilon(esp / 2 / t1, esp / 2 / t2)
    shift = Operators.Shift(compact=0.0)
    rest = Operators.Epsilon((tr - n * esp) / t1, (tr - n * esp) / t2)
    for _ in range(repeats):
        excite.apply(g)
        out = []
        for _ in range(n):
            relax.apply(g), shift.apply(g), refocus.apply(g), shift.apply(g), relax.apply(g)
            out.append(g.get_f())
        z = g.get_z()
        g = EpyG.epg(initial_size=2 * n + 8, m0=z)
        rest.apply(g)
    out = np.array(out)
    return out.real


def main():
    os.makedirs(OUT, exist_ok=True)
    save = lambda name, a: np.save(os.path.join(OUT, name + ".npy"), np.ascontiguousarray(a, np.float32))
    pairs = [(t1, t2) for t1 in (250.0, 900.0, 4300.0) for t2 in (5.0, 36.0, 110.0, 800.0) if t2 <= t1]
    cases = [(t1, t2, a, e) for t1, t2 in pairs for a in (45.0, 120.0, 160.0, 180.0) for e in (4.0, 10.4)]
    a = np.array([mrpro_trains(t1, t2, 90.0, al, e, 60, 1e9, 1) for t1, t2, al, e in cases])
    b = np.array([epyg_trains(t1, t2, 90.0, al, e, 60, 1e9, 1) for t1, t2, al, e in cases])
    print("one train: mrpro and epyg differ by at most", np.abs(a - b).max())
    save("params", cases), save("echoes_mrpro", a), save("echoes_epyg", b)
    # The same block as a user of mrpro calls it.
    block = EPG.TseBlock(np.deg2rad([160.0] * 60), [0.0] * 60, 10.4)
    p = EPG.Parameters(m0=torch.tensor([1.0]), t1=torch.tensor([900.0]), t2=torch.tensor([36.0]))
    _, echoes = block(p, 130)
    row = [i for i, c in enumerate(cases) if c == (900.0, 36.0, 160.0, 10.4)][0]
    print("TseBlock differs by at most", np.abs(np.array([complex(e[0]).real for e in echoes]) - a[row]).max())
    steady = [(t1, t2, b1) for t1, t2 in pairs for b1 in (0.8, 1.0, 1.2)]
    run = lambda f: np.array([f(t1, t2, 90 * b1, 150 * b1, 10.0, 19, 1000.0, 12) for t1, t2, b1 in steady])
    a, b = run(mrpro_trains), run(epyg_trains)
    print("steady state: mrpro and epyg differ by at most", np.abs(a - b).max())
    save("steady_params", steady), save("steady_mrpro", a), save("steady_epyg", b)


main()
