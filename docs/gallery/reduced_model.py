"""The Bode plot of a cantilever beam with 64 states, and of reduced models of it."""

import numpy as np
from matplotlib import pyplot as plt

from matsign import balanced_truncation


def cantilever(elements=16):
    """Euler-Bernoulli beam of length 1: a force at the tip, the velocity of the tip."""
    h = 1 / elements
    bend = np.array([[12, 6, -12, 6], [6, 4, -6, 2], [-12, -6, 12, -6], [6, 2, -6, 4]]) / h**3
    inertia = np.array([[156, 22, 54, -13], [22, 4, 13, -3], [54, 13, 156, -22], [-13, -3, -22, 4]]) * h / 420
    units = np.array([1, h, 1, h])
    stiffness, mass = np.zeros((2, 2 * elements + 2, 2 * elements + 2))
    for k in range(0, 2 * elements, 2):
        stiffness[k : k + 4, k : k + 4] += units[:, None] * bend * units
        mass[k : k + 4, k : k + 4] += units[:, None] * inertia * units
    stiffness, mass = stiffness[2:, 2:], mass[2:, 2:]  # one end is clamped
    tip = np.zeros((2 * elements, 1))
    tip[-2] = 1
    # In coordinates in which the energy is |x|²/2; damping proportional to mass and stiffness
    low = np.linalg.cholesky(stiffness)
    root = np.linalg.cholesky(mass)
    couple = low.T @ np.linalg.inv(root).T
    damping = 0.1 * np.eye(2 * elements) + 1e-5 * couple.T @ couple
    a = np.block([[np.zeros_like(couple), couple], [-couple.T, -damping]])
    b = np.concatenate([0 * tip, np.linalg.solve(root, tip)])
    return a, b, b.T


def response(a, b, c, frequencies):
    """c (iω - a)⁻¹ b, by the eigenvectors of a."""
    values, vectors = np.linalg.eig(a)
    residues = (c @ vectors)[0] * np.linalg.solve(vectors, b)[:, 0]
    return (residues / (1j * frequencies[:, None] - values)).sum(-1)


full = cantilever()
frequencies = np.geomspace(1, 1e3, 600)
exact = response(*full, frequencies)

figure, (size, error) = plt.subplots(2, figsize=(5.2, 6.4), sharex=True)
size.loglog(frequencies, abs(exact), color="C4", linewidth=3, alpha=0.5, label="64 states")
for color, order in (("C1", 4), ("C0", 10)):
    small = balanced_truncation(*full, order)
    bound = 2 * small.hsv[order:].sum()
    reduced = response(small.a, small.b, small.c, frequencies)
    size.loglog(frequencies, abs(reduced), color=color, label=f"{order} states")
    error.loglog(frequencies, abs(reduced - exact), color=color)
    error.axhline(bound, color=color, linestyle=":")
steady = balanced_truncation(*full, 10, method="matchdc")
reduced = response(steady.a, steady.b, steady.c, frequencies) + steady.d[0, 0]
error.loglog(frequencies, abs(reduced - exact), color="C0", linestyle="--", label="exact steady state")
error.legend()
size.set(ylabel="gain, force to velocity")
size.legend()
error.set(xlabel="frequency, rad/s", ylabel="error (dotted: its bound)")
