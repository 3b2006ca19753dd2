"""The peers behind one calling convention: k-space [coil, pe2, pe1, ro] in (whitened, zero where not measured),
complex image or maps [coil, z, y, x] out. Used by make_references.py, make_golden.py, ../check_peers.py and ../bench.
"""
import atexit, os, subprocess, tempfile, time
os.environ.setdefault("OMP_NUM_THREADS", "2")
import numpy as np
import scipy.fft as sf


def fftc(x, axes):
    return sf.fftshift(sf.fftn(sf.ifftshift(x, axes), axes=axes, norm="ortho", workers=2), axes)


def ifftc(x, axes):
    return sf.fftshift(sf.ifftn(sf.ifftshift(x, axes), axes=axes, norm="ortho", workers=2), axes)


def nrmse(x, truth, mask):
    """Relative error inside the object after the best scale: |x| against the magnitude truth."""
    x, t = np.abs(x[mask]).astype(np.float64), truth[mask].astype(np.float64)
    a = (x @ t) / max(x @ x, 1e-300)
    return float(np.linalg.norm(a * x - t) / np.linalg.norm(t))


def versions():
    import sigpy, torch, scipy, skimage
    from importlib.metadata import version
    return dict(bart=subprocess.run(["bart", "version"], capture_output=True, text=True).stdout.strip(), bartorch=version("bartorch"),
                sigpy=sigpy.__version__, pygrappa=version("pygrappa"), mrpro=version("mrpro"), torch=torch.__version__,
                numpy=np.__version__, scipy=scipy.__version__, scikit_image=skimage.__version__)


# ------------------------------------------------------------------------------------------------ BART command line
class Bart:
    """BART by its command line; arrays pass through /dev/shm as .cfl, which is the fastest a shell user can have."""

    def __init__(self):
        self.dir = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self.n = 0

    def put(self, x):
        self.n += 1
        p = os.path.join(self.dir.name, f"a{self.n}")
        write_cfl(p, x)
        return p

    def get(self, p):
        return read_cfl(p)

    def run(self, *args, outputs=1):
        """Runs `bart ARGS IN... OUT...`; numpy arrays among ARGS become files. Returns the outputs as arrays."""
        a = [self.put(v) if isinstance(v, np.ndarray) else str(v) for v in args]
        outs = []
        for _ in range(outputs):
            self.n += 1; outs.append(os.path.join(self.dir.name, f"a{self.n}"))
        r = subprocess.run(["bart", *a, *outs], capture_output=True, text=True)
        if r.returncode:
            raise RuntimeError(f"bart {' '.join(a)}: {r.stderr or r.stdout}")
        res = [self.get(o) for o in outs]
        for f in os.listdir(self.dir.name):
            os.unlink(os.path.join(self.dir.name, f))
        return res[0] if outputs == 1 else res


def write_cfl(p, x):
    """Row-major array [..., y, x] becomes BART's column-major dims (x, y, ...): the same bytes."""
    with open(p + ".hdr", "w") as f:
        f.write("# Dimensions\n" + " ".join(str(d) for d in reversed(x.shape)) + "\n")
    np.ascontiguousarray(x, np.complex64).tofile(p + ".cfl")


def read_cfl(p):
    with open(p + ".hdr") as f:
        dims = [int(v) for v in f.read().split("\n")[1].split()]
    while len(dims) > 4 and dims[-1] == 1:
        dims.pop()
    return np.fromfile(p + ".cfl", np.complex64).reshape(dims[::-1])


BART = Bart()
atexit.register(BART.dir.cleanup)


# ------------------------------------------------------------------------------------------------ maps
def maps_bart(ksp, acs=24, sets=1, args=()):
    out = BART.run("ecalib", f"-m{sets}", f"-r{acs}", *args, ksp)
    return out


def maps_bartorch(ksp, acs=24, sets=1):
    import bartorch, torch
    k = torch.from_numpy(ksp if ksp.shape[1] > 1 else ksp[:, 0])
    m = bartorch.tools.ecalib(k, maps=sets, calib_size=acs).numpy()
    return m if ksp.shape[1] > 1 else np.expand_dims(m, -3)


def maps_sigpy(ksp, acs=24, **kw):
    import sigpy.mri as mr
    k = ksp if ksp.shape[1] > 1 else ksp[:, 0]
    m = mr.app.EspiritCalib(k, calib_width=acs, show_pbar=False, **kw).run()
    return m if ksp.shape[1] > 1 else m[:, None]


# ------------------------------------------------------------------------------------------------ CG-SENSE
def pics_bart(ksp, maps, lam=0., iters=30, l1=False):
    return BART.run("pics", "-S", "-l1" if l1 else "-l2", "-r", lam, "-i", iters, ksp, maps)


def pics_bartorch(ksp, maps, lam=0., iters=30):
    import bartorch, torch
    return bartorch.apps.pics(torch.from_numpy(ksp), torch.from_numpy(maps), l2=lam, maxiter=iters).numpy()


def sense_sigpy(ksp, maps, lam=0., iters=30):
    import sigpy.mri as mr
    two = ksp.shape[1] == 1
    y, m = (ksp[:, 0], maps[:, 0]) if two else (ksp, maps)
    w = (np.abs(y).sum(0, keepdims=True) > 0).astype(np.float32)
    return mr.app.SenseRecon(y, m, lamda=lam, weights=w, max_iter=iters, show_pbar=False).run()


def sense_mrpro(ksp, maps, lam=0., iters=30):
    """mrpro's own operators and its own CG: FastFourierOp, CartesianMask by weights, SensitivityOp."""
    import torch
    from mrpro.operators import FastFourierOp, SensitivityOp
    from mrpro.algorithms.optimizers import cg
    from mrpro.data import CsmData
    y = torch.from_numpy(ksp)[None]                               # other, coil, z, y, x
    s = torch.from_numpy(np.ascontiguousarray(maps))[None]
    w = (y.abs().sum(1, keepdim=True) > 0).to(torch.complex64)
    dim = (-2, -1) if ksp.shape[1] == 1 else (-3, -2, -1)
    f = FastFourierOp(dim=dim)
    def a_h(k):
        return (s.conj() * f.adjoint(k)[0]).sum(1, keepdim=True)
    def normal(x):
        return (a_h(w * f(s * x)[0]) + lam * x,)
    with torch.no_grad():
        (x,) = cg(normal, a_h(y), max_iterations=iters, tolerance=1e-7)
    return x.numpy()[0, 0]


def sense_scipy(ksp, maps, lam=0., iters=30):
    """numpy + scipy.fft (2 workers) + plain CG, what a physicist writes in an afternoon."""
    s = maps.astype(np.complex64); sc = s.conj()
    axes = (2, 3) if ksp.shape[1] == 1 else (1, 2, 3)
    shift = np.ones(ksp.shape[1:], np.float32)
    for ax in axes:
        n = ksp.shape[ax]
        if n % 2:
            shift = None
            break
        sh = [1, 1, 1]; sh[ax - 1] = n
        shift = shift * (1 - 2 * (np.arange(n) % 2)).reshape(sh).astype(np.float32)
    w = (np.abs(ksp).sum(0) > 0).astype(np.float32)
    if shift is not None:   # checkerboards into maps and data instead of fftshift
        s, sc, y = s * shift, sc * shift, ksp * shift
        F = lambda x: sf.fftn(x, axes=axes, norm="ortho", workers=2, overwrite_x=True)
        Fh = lambda x: sf.ifftn(x, axes=axes, norm="ortho", workers=2, overwrite_x=True)
    else:
        y, F, Fh = ksp, (lambda x: fftc(x, axes)), (lambda x: ifftc(x, axes))
    def normal(x):
        k = F(s * x); k *= w
        return (sc * Fh(k)).sum(0) + np.float32(lam) * x
    b = (sc * Fh(y.copy())).sum(0)
    x = np.zeros_like(b); r = b.copy(); p = r.copy(); rs = np.vdot(r, r).real
    for _ in range(iters):
        q = normal(p); al = np.float32(rs / np.vdot(p, q).real)
        x += al * p; r -= al * q; new = np.vdot(r, r).real
        p = r + np.float32(new / rs) * p; rs = new
        if rs == 0:
            break
    return x


# ------------------------------------------------------------------------------------------------ GRAPPA
def acs_block(ksp, acs):
    n2, n1 = ksp.shape[1:3]
    a2 = slice(n2 // 2 - acs // 2, n2 // 2 - acs // 2 + acs) if n2 > 1 else slice(0, 1)
    return ksp[:, a2, n1 // 2 - acs // 2:n1 // 2 - acs // 2 + acs]


def grappa_mdgrappa(ksp, acs, kernel=(5, 5), lam=.01):
    """Coil k-space filled by pygrappa.mdgrappa; kernel is (pe..., ro). Returns [coil, pe2, pe1, ro]."""
    from pygrappa import mdgrappa
    if ksp.shape[1] == 1:
        return mdgrappa(ksp[:, 0], acs_block(ksp, acs)[:, 0], kernel_size=kernel, coil_axis=0, lamda=lam)[:, None]
    return mdgrappa(ksp, acs_block(ksp, acs), kernel_size=kernel, coil_axis=0, lamda=lam)


def grappa_cgrappa(ksp, acs, kernel=(5, 5), lam=.01):
    from pygrappa import cgrappa
    k = np.ascontiguousarray(ksp[:, 0], np.complex128); c = np.ascontiguousarray(acs_block(ksp, acs)[:, 0], np.complex128)
    return cgrappa(k, c, kernel_size=kernel, lamda=lam, coil_axis=0)[:, None]


def rss(ksp):
    axes = (2, 3) if ksp.shape[1] == 1 else (1, 2, 3)
    return np.sqrt((np.abs(ifftc(ksp, axes)) ** 2).sum(0))


def combine(ksp, maps):
    axes = (2, 3) if ksp.shape[1] == 1 else (1, 2, 3)
    return (maps.conj() * ifftc(ksp, axes)).sum(0)
