"""The duality gap of a step along the Stiefel manifold, by Newton's method and by a fixed-point iteration."""

import numpy as np
import scipy.linalg as sl
from matplotlib import pyplot as plt

from matsign import certify, stiefel_step


def fixed_point_gaps(w, g, best, steps=25):
    """X from the Lyapunov equation H X + X H = -(H S + Sᵀ H), S = WᵀG, with the H of G + W X = A H (Su 2025)."""
    s, x = w.T @ g, -(w.T @ g + g.T @ w) / 2
    for _ in range(steps):
        _, values, vh = np.linalg.svd(g + w @ x, full_matrices=False)
        yield 1 - best / values.sum()
        h = vh.T * (values + 1e-15) @ vh
        x = sl.solve_continuous_lyapunov(h, -(h @ s + s.T @ h))


def newton_gaps(w, g):
    """(steps, gap) for each stated gap."""
    for gap in 10.0 ** -np.arange(0.5, 9):
        value, certificate = certify(stiefel_step)(w, g, gap=gap)
        yield certificate.iterations, value.gap


figure, axes = plt.subplots(1, 2, figsize=(5.2, 3.1), sharex=True, sharey=True)
for ax, (n, m), title in zip(axes, ((12, 4), (5, 4)), ("full rank", "a kink"), strict=True):
    rng = np.random.default_rng(2)
    w, g = np.linalg.qr(rng.standard_normal((n, m)))[0], rng.standard_normal((n, m))
    best = np.sum(g * stiefel_step(w, g).step)
    ax.semilogy(*zip(*newton_gaps(w, g), strict=True), "o-", markersize=4, label="stiefel_step")
    ax.semilogy(np.maximum(list(fixed_point_gaps(w, g, best)), 1e-16), "^-", markersize=3, label="fixed point")
    ax.set(title=f"{title}, {n} × {m}", xlabel="steps", ylim=(1e-10, 1))
axes[0].set_ylabel("relative duality gap")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
