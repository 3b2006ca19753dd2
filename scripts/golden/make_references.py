#!/usr/bin/env python3
"""Peers' images and their error against the truth, for every simulated and real workload.

Usage: make_references.py [--in DIR] [CASE ...]   writes DIR/CASE/ref_METHOD.npy (magnitude, [frame, z, y, x]) and
tests/golden/quality/table.json: NRMSE inside the object, magnitude, after the best scale. Regularisation of the peers
is their documented default; for CG-SENSE also the best of a short list *chosen on the truth* is kept (`oracle`), which
favours the peer.
"""
import argparse, datetime, json, os, sys, time, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, os.path.dirname(__file__))
import numpy as np
import peers as P
from simulate import DEFAULT_OUT

HERE = os.path.dirname(os.path.abspath(__file__))
TABLE = os.path.join(HERE, "../../tests/golden/quality/table.json")


def methods(info, ksp):
    two = ksp.shape[1] == 1
    acs = info["acs"] or 24
    state = {}
    def maps():
        if "m" not in state: state["m"] = P.maps_bartorch(ksp, acs)
        return state["m"]
    if info["accel"] == 1:
        yield "rss", lambda: P.rss(ksp)
        yield "espirit_combine_bartorch", lambda: P.combine(ksp, maps())
    for it in (30, 100) if two else (30,):
        yield f"cg{it}_bartorch", lambda it=it: P.pics_bartorch(ksp, maps(), 0., it)
    for lam in (1e-3, 1e-2, 3e-2, 1e-1) if two else (1e-2, 3e-2):
        yield f"cg_l2_{lam:g}_bartorch", lambda lam=lam: P.pics_bartorch(ksp, maps(), lam, 100)
    if two:
        yield "cg30_bart", lambda: P.pics_bart(ksp, P.maps_bart(ksp, acs), 0., 30)
        yield "cg30_sigpy", lambda: P.sense_sigpy(ksp, P.maps_sigpy(ksp, acs), 0., 30)
        yield "cg30_mrpro", lambda: P.sense_mrpro(ksp, maps(), 0., 30)
        yield "cg30_scipy", lambda: P.sense_scipy(ksp, maps(), 0., 30)
        yield "l1_bart", lambda: P.pics_bart(ksp, maps(), .005, 60, l1=True)
    wide = [(4 * info["accel"] - 1, 5)] if isinstance(info["accel"], int) else []   # 4 source lines, 5 along the readout
    regular = info.get("kind", "regular") in ("regular", "caipi") and info["accel"] != 1
    if regular and two:
        for k in ((4, 5), (5, 5), (2, 5), *wide):
            yield f"grappa_{k[0]}x{k[1]}_mdgrappa", lambda k=k: P.rss(P.grappa_mdgrappa(ksp, acs, k))
        yield "grappa_5x5_cgrappa", lambda: P.rss(P.grappa_cgrappa(ksp, acs, (5, 5)))
    if regular and not two:
        yield "grappa_5x5x3_mdgrappa", lambda: P.rss(P.grappa_mdgrappa(ksp, acs, (5, 5, 3)))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--in", dest="inp", default=DEFAULT_OUT); p.add_argument("cases", nargs="*")
    p.add_argument("--only", default="")
    a = p.parse_args()
    table = dict(cases={})
    if os.path.exists(TABLE):
        with open(TABLE) as f: table = json.load(f)
    table.update(script="scripts/golden/make_references.py", date=datetime.date.today().isoformat(), versions=P.versions(),
                 metric="NRMSE of the magnitude inside the object, after the best real scale")
    for case in a.cases or sorted(d for d in os.listdir(a.inp) if d != "bench20" and os.path.exists(os.path.join(a.inp, d, "ksp.npy"))):
        d = os.path.join(a.inp, case)
        with open(os.path.join(d, "case.json")) as f: info = json.load(f)
        ksp, truth, mask = (np.load(os.path.join(d, n + ".npy")) for n in ("ksp", "truth", "mask"))
        row = table["cases"].setdefault(case, {})
        fs = range(len(ksp))
        runs = [list(methods(info, ksp[f])) for f in fs]
        for j, (name, _) in enumerate(runs[0]):
            if a.only and a.only not in name: continue
            t = time.time()
            try:
                im = np.stack([np.abs(np.asarray(runs[f][j][1]())).reshape(ksp.shape[2:] if ksp.ndim == 6 else ksp.shape[2:]) for f in fs])
            except Exception as e:  # a peer that cannot do a case is said, not hidden
                print(f"{case} {name}: FAILED {type(e).__name__}: {str(e)[:200]}", flush=True); continue
            t = time.time() - t
            np.save(os.path.join(d, f"ref_{name}.npy"), im.astype(np.float32))
            row[name] = round(float(np.sqrt(np.mean([P.nrmse(im[f], truth[f], mask[f]) ** 2 for f in fs]))), 6)
            print(f"{case:10} {name:28} {row[name]:.4f}  {t:.1f} s", flush=True)
            os.makedirs(os.path.dirname(TABLE), exist_ok=True)   # after each: 3D peers take many minutes
            with open(TABLE, "w") as f: json.dump(table, f, indent=1, sort_keys=True)


main()
