"""Signs, polar decompositions and projections of one matrix."""

from __future__ import annotations

import numpy as np
import scipy.linalg as sl

import matsign
from bench.case import Case, agree
from bench.cases import sizes
from bench.cases.matrices import both_sides, gaussian
from bench.peers import SCIPY, TORCH, module

torch = module("torch")
SIZES = sizes(quick=(64,), usual=(8, 256), long=(512, 1024))


def clip_by_svd(m, upper):
    u, s, vh = sl.svd(m, full_matrices=False)
    return (u * np.minimum(s, upper)) @ vh


def polar_by_svd(m):
    u, _, vh = sl.svd(m, full_matrices=False)
    return u @ vh


def project_by_eigh(a):
    values, v = sl.eigh(a)
    return (v * np.maximum(values, 0)) @ v.T


def msign_by_svd(m):
    u, _, vh = torch.linalg.svd(m, full_matrices=False)
    return u @ vh


def moved(rng, n):
    """A matrix in single precision, and the state of one that was 1e-4 away."""
    m = gaussian(rng, n, n).astype("float32")
    return m + np.float32(1e-4) * gaussian(rng, n, n).astype("float32"), matsign.warm_msign(m).state


def moved_spikes(rng, n):
    """A matrix in single precision with singular values from 3 to 9 and others below 2.1, and the state of a near one."""
    few, one = max(1, n // 32), gaussian(rng, n, n) / np.sqrt(n)
    u, v = (np.linalg.qr(gaussian(rng, n, few))[0] for _ in range(2))
    m = ((u * np.linspace(3, 9, few)) @ v.T + one).astype("float32")
    return m + np.float32(1e-3) * gaussian(rng, n, n).astype("float32") / np.sqrt(n), matsign.warm_mclip(m, 2.2).state


def moved_leading(rng, n):
    """Such a matrix, a state for its large singular values, and their number."""
    m, state = moved_spikes(rng, n)
    return m, state, max(1, n // 32)


def symmetric(rng, n):
    g = gaussian(rng, n, n)
    return ((g + g.T) / 2,)


def pencil(rng, n):
    g = gaussian(rng, n, 2 * n)
    return (*symmetric(rng, n), np.eye(n) + g @ g.T / (4 * n))


def density_by_eigh(h, overlap):
    _, v = sl.eigh(h, overlap)
    return v[:, : len(h) // 2] @ v[:, : len(h) // 2].T


def hamiltonian(rng, n):
    return (symmetric(rng, n)[0] / np.sqrt(n),)


def occupation_by_eigh(h):
    levels, v = sl.eigh(h)
    return (v / (1 + np.exp((levels - 0.2) / 0.1))) @ v.T


CASES = [
    Case(
        "mcsgn, eigenvalues around ±2.5", SCIPY, "signm", lambda rng, n: (both_sides(rng, n, n),),
        matsign.mcsgn, sl.signm, sizes(quick=(64,), usual=(8, 256)), agree(1e-8),
    ),
    Case("polar, Gaussian", SCIPY, "polar", lambda rng, n: (gaussian(rng, n, n),), matsign.polar, sl.polar, SIZES, agree(1e-8)),
    Case(
        "polar, Gaussian, 2n × n", SCIPY, "polar", lambda rng, n: (gaussian(rng, 2 * n, n),),
        matsign.polar, sl.polar, SIZES, agree(1e-8),
    ),
    Case(
        "msign, Gaussian", TORCH, "linalg.svd", lambda rng, n: (torch.from_numpy(gaussian(rng, n, n)),),
        matsign.msign, msign_by_svd, SIZES, agree(1e-8),
    ),
    Case(
        "warm_msign, 1e-4 away, float32", SCIPY, "svd", moved, lambda m, state: matsign.warm_msign(m, state).value,
        lambda m, state: polar_by_svd(m), SIZES, agree(1e-3),
    ),
    Case(
        "warm_mclip, 1e-3 away, a 32nd clipped, float32", SCIPY, "svd", moved_spikes,
        lambda m, state: matsign.warm_mclip(m, 2.2, state=state).value, lambda m, state: clip_by_svd(m, 2.2), SIZES, agree(1e-3),
    ),
    Case(
        "warm_svd, 1e-3 away, a 32nd of the values, float32", SCIPY, "svd", moved_leading,
        lambda m, state, few: matsign.warm_svd(m, few, state=state).s, lambda m, state, few: sl.svd(m)[1][:few], SIZES,
        agree(1e-3),
    ),
    Case(
        "mclip, Gaussian", SCIPY, "svd", lambda rng, n: (gaussian(rng, n, n), float(np.sqrt(n))),
        lambda m, upper: matsign.mclip(m, 0.0, upper), clip_by_svd, SIZES, agree(1e-8),
    ),
    Case(
        "spectral_projector, overlap, lowest half", SCIPY, "eigh", pencil,
        lambda h, overlap: matsign.spectral_projector(h, overlap, lowest=len(h) // 2), density_by_eigh, SIZES, agree(1e-8),
    ),
    Case(
        "fermi_occupation, kT = 0.1", SCIPY, "eigh", hamiltonian, lambda h: matsign.fermi_occupation(h, 0.1, 0.2).density,
        occupation_by_eigh, SIZES, agree(1e-8),
    ),
    Case("psd_project, symmetric", SCIPY, "eigh", symmetric, matsign.psd_project, project_by_eigh, SIZES, agree(1e-8)),
]  # fmt: skip
