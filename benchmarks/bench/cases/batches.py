"""Many small matrices in one call, beside a loop over SciPy, or SciPy's own batch where it has one."""

from __future__ import annotations

import numpy as np
import scipy.linalg as sl

import matsign
from bench.case import Case, agree
from bench.cases import sizes
from bench.cases.matrices import both_sides, definite, gaussian, plant, right
from bench.peers import NUMPY, SCIPY, TORCH, module

torch = module("torch")

SIZES = sizes(quick=((200, 8),), usual=((2000, 4), (100, 32)), long=((10_000, 8), (16, 128)))
SHORTER = sizes(quick=((100, 8),), usual=((500, 4), (20, 32)), long=((10_000, 8),))
MANY = sizes(quick=((5000, 3),), usual=((50_000, 3),), long=((1_000_000, 3),))


def loop(f):
    """f of one matrix after the other."""
    return lambda *stacks: [f(*members) for members in zip(*stacks, strict=True)]


def lyapunov(rng, count, n):
    b = gaussian(rng, count, n, 2)
    return -right(rng, count, n, n), -b @ b.mT


def stein(rng, count, n):
    b = gaussian(rng, count, n, 2)
    return right(rng, count, n, n) / 4, b @ b.mT


def fourth_root_by_eigh(a):
    """a^(-1/4) of definite matrices."""
    values, v = np.linalg.eigh(a)
    return (v * values[..., None, :] ** -0.25) @ v.mT


def fourth_root_by_torch(a):
    values, v = torch.linalg.eigh(a)
    return (v * values[..., None, :] ** -0.25) @ v.mT


def eigh_loop(stack):
    return [(v * values**-0.25) @ v.mT for values, v in map(torch.linalg.eigh, stack)]


def covariances(rng, count, n):
    """Of four samples for each variable, in float32."""
    g = torch.from_numpy(gaussian(rng, count, n, 4 * n)).float()
    a = g @ g.mT / (4 * n)
    return ((a + a.mT) / 2,)


def ill_conditioned(rng, count, n):
    """Of condition number 1e3, in float32."""
    q = torch.linalg.qr(torch.from_numpy(gaussian(rng, count, n, n)))[0]
    a = (q * torch.logspace(0, -3, n, dtype=q.dtype)) @ q.mT
    return ((a + a.mT).float() / 2,)


def separable(rng, count, n):
    return right(rng, count, n, n, shift=4.5), right(rng, count, n, n, shift=4.5), gaussian(rng, count, n, n)


def kabsch_by_svd(p, q):
    """Rotation and translation of each pair, and the rmsd as a column."""
    p0, q0 = p.mean(1, keepdims=True), q.mean(1, keepdims=True)
    u, _, vh = np.linalg.svd((q - q0).mT @ (p - p0))
    u[..., -1] *= np.linalg.det(u @ vh)[:, None]
    r = u @ vh
    gaps = (p - p0) @ r.mT - (q - q0)
    return r, q0 - p0 @ r.mT, np.sqrt((gaps**2).sum((1, 2), keepdims=True) / p.shape[1])


def kabsch_as_matrices(p, q):
    """The same by matsign."""
    r, t, rmsd = matsign.kabsch(p, q)
    return r, t[:, None], rmsd[:, None, None]


def collections(rng, count, n):
    """Ten covariance matrices each, of four samples for each variable."""
    g = gaussian(rng, count * 10, n, 4 * n)
    return ((g @ g.mT / (4 * n)).reshape(count, 10, n, n),)


def long_collection(rng, count, n):
    """As covariances of n channels of an electroencephalogram."""
    g = gaussian(rng, count, n, 4 * n)
    return ((g @ g.mT / (4 * n))[None],)


def function_by_eigh(f, a):
    values, v = np.linalg.eigh(a)
    return (v * f(values)[..., None, :]) @ v.mT


def karcher_by_descent(stack):
    """The usual fixed point of one collection: M exp(mean of the logarithms), until they are small."""
    m = stack.mean(0)
    for _ in range(100):
        root, inverse = (function_by_eigh(lambda x, p=p: x**p, m) for p in (0.5, -0.5))
        step = function_by_eigh(np.log, inverse @ stack @ inverse).mean(0)
        m = root @ function_by_eigh(np.exp, step) @ root
        if np.linalg.norm(step) < 1e-10:
            break
    return m


def bures_by_fixed_point(stack):
    m = stack.mean(0)
    for _ in range(100):
        root, inverse = (function_by_eigh(lambda x, p=p: x**p, m) for p in (0.5, -0.5))
        step = function_by_eigh(np.sqrt, root @ stack @ root).mean(0)
        before, m = m, inverse @ step @ step @ inverse
        if np.linalg.norm(m - before) < 1e-10 * np.linalg.norm(m):
            break
    return m


def riemannian_by_eigenvalues(a, b):
    return np.sqrt((np.log(sl.eigvalsh(a, b)) ** 2).sum()).reshape(1, 1)


CASES = [
    Case(
        "mcsgn, eigenvalues around ±2.5", SCIPY, "signm, loop", lambda rng, count, n: (both_sides(rng, count, n, n),),
        matsign.mcsgn, loop(sl.signm), SIZES, agree(1e-8),
    ),
    Case(
        "polar, Gaussian", SCIPY, "polar, loop", lambda rng, count, n: (gaussian(rng, count, 2 * n, n),),
        matsign.polar, loop(sl.polar), SIZES, agree(1e-8),
    ),
    Case(
        "sqrtm, definite", SCIPY, "sqrtm, batch", lambda rng, count, n: (definite(rng, count, n, n),),
        matsign.sqrtm, sl.sqrtm, SIZES, agree(1e-8),
    ),
    Case(
        "sqrtm, general", SCIPY, "sqrtm, batch", lambda rng, count, n: (right(rng, count, n, n, shift=4.5),),
        matsign.sqrtm, sl.sqrtm, SIZES, agree(1e-8),
    ),
    Case(
        "invrootm, 4, definite", NUMPY, "linalg.eigh, batch", lambda rng, count, n: (definite(rng, count, n, n),),
        lambda a: matsign.invrootm(a, 4), fourth_root_by_eigh,
        MANY, agree(1e-8),
    ),
    Case(
        "invrootm, 4, definite", TORCH, "linalg.eigh, batch",
        lambda rng, count, n: (torch.from_numpy(definite(rng, count, n, n)),),
        lambda a: matsign.invrootm(a, 4), fourth_root_by_torch, MANY, agree(1e-8),
    ),
    Case(
        "invrootm, 4, tol=1e-4, covariances, float32", TORCH, "linalg.eigh, loop", covariances,
        lambda a: matsign.invrootm(a, 4, tol=1e-4), eigh_loop,
        sizes(usual=((4, 256),), long=((64, 256),)), agree(1e-4),
    ),
    Case(
        "invrootm, 4, tol=1e-4, condition number 1e3, float32", TORCH, "linalg.eigh, loop", ill_conditioned,
        lambda a: matsign.invrootm(a, 4, tol=1e-4), eigh_loop,
        sizes(usual=((4, 256),), long=((64, 256),)), agree(2e-4),
    ),
    Case(
        "kabsch, points in three dimensions", NUMPY, "linalg.svd, batch",
        lambda rng, count, k: (gaussian(rng, count, k, 3), gaussian(rng, count, k, 3)),
        kabsch_as_matrices, kabsch_by_svd,
        sizes(quick=((2000, 10),), usual=((50_000, 10),), long=((1_000_000, 10),)), agree(1e-6),
    ),
    Case(
        "karcher_mean, ten covariances", NUMPY, "fixed point by linalg.eigh, loop", collections,
        matsign.karcher_mean, loop(karcher_by_descent), SHORTER, agree(1e-8),
    ),
    Case(
        "karcher_mean, all matrices of the batch", NUMPY, "fixed point by linalg.eigh", long_collection,
        matsign.karcher_mean, loop(karcher_by_descent),
        sizes(quick=((20, 16),), usual=((100, 16), (100, 32), (100, 64)), long=((100, 128),)), agree(1e-8),
    ),
    Case(
        "bures_mean, all matrices of the batch", NUMPY, "fixed point by linalg.eigh", long_collection,
        matsign.bures_mean, loop(bures_by_fixed_point),
        sizes(quick=((20, 16),), usual=((100, 16), (100, 32), (100, 64)), long=((100, 128),)), agree(1e-8),
    ),
    Case(
        "riemannian_distance, pairs", SCIPY, "eigvalsh of the pair, loop",
        lambda rng, count, n: (definite(rng, count, n, n), definite(rng, count, n, n)),
        lambda a, b: matsign.riemannian_distance(a, b).reshape(-1, 1, 1), loop(riemannian_by_eigenvalues),
        sizes(quick=((100, 8),), usual=((1000, 3), (1000, 8), (1000, 32), (20, 128))), agree(1e-8),
    ),
    Case(
        "bures_mean, ten covariances", NUMPY, "fixed point by linalg.eigh, loop", collections,
        matsign.bures_mean, loop(bures_by_fixed_point), SHORTER, agree(1e-8),
    ),
    Case(
        "solve_sylvester, separable spectra", SCIPY, "solve_sylvester, loop", separable,
        matsign.solve_sylvester, loop(sl.solve_sylvester), SIZES, agree(1e-8),
    ),
    Case(
        "solve_continuous_lyapunov, stable", SCIPY, "solve_continuous_lyapunov, loop", lyapunov,
        matsign.solve_continuous_lyapunov, loop(sl.solve_continuous_lyapunov), SIZES, agree(1e-8),
    ),
    Case(
        "solve_discrete_lyapunov", SCIPY, "solve_discrete_lyapunov, loop", stein,
        matsign.solve_discrete_lyapunov, loop(sl.solve_discrete_lyapunov), SIZES, agree(1e-8),
    ),
    Case(
        "solve_continuous_are", SCIPY, "solve_continuous_are, loop", lambda rng, count, n: plant(rng, count, n, n),
        matsign.solve_continuous_are, loop(sl.solve_continuous_are), SHORTER, agree(1e-8),
    ),
    Case(
        "solve_discrete_are", SCIPY, "solve_discrete_are, loop", lambda rng, count, n: plant(rng, count, n, n),
        matsign.solve_discrete_are, loop(sl.solve_discrete_are), SHORTER, agree(1e-8),
    ),
]  # fmt: skip
