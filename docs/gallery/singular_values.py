"""The singular values of one matrix after each step of three iterations to its polar factor."""

import numpy as np
from matplotlib import pyplot as plt

from matsign import msign
from matsign.iterations.minimax import polar_express

rng = np.random.default_rng(0)
U, V = (np.linalg.qr(rng.standard_normal((16, 16)))[0] for _ in range(2))
M = (U * np.geomspace(1, 1e-3, 16)) @ V


def singular_values(X):
    return np.linalg.svd(X, compute_uv=False)


def by_schedule(schedule):
    """After 0, 1, ... of these steps (a, b, c): x ← a x + b x³ + c x⁵."""
    yield singular_values(M)
    for k in range(1, len(schedule) + 1):
        yield singular_values(msign(M, schedule=schedule[:k]))


def newton(X, steps):
    """X ← (μX + X⁻ᵀ/μ)/2, where μX has the determinant 1 or -1."""
    for _ in range(steps + 1):
        yield singular_values(X)
        mu = abs(np.linalg.det(X)) ** (-1 / len(X))
        X = (mu * X + np.linalg.inv(X).T / mu) / 2


muon = [(3.4445, -4.7750, 2.0315)] * 5
designed = polar_express(5e-4, tol=1e-3, eps=np.finfo(float).eps)
runs = {"Muon, 5 steps": by_schedule(muon), "tol = 0.001": by_schedule(designed), "Newton": newton(M, 7)}

figure, panels = plt.subplots(1, 3, sharey=True, figsize=(4.4, 3.2))
for axes, (name, values) in zip(panels, runs.items(), strict=True):
    axes.axhline(1, color="C1", linewidth=1)
    axes.semilogy(list(values), "o-", color="C0", linewidth=0.6, markersize=2)
    axes.minorticks_off()
    axes.set(title=name, xlabel="step", xticks=[0, 2, 4, 6], xlim=(-0.4, 7.4))
panels[0].set_ylabel("singular values")
