"""Riccati equations that become harder: residuals and errors of matsign and SciPy."""

import numpy as np
import scipy.linalg
from matplotlib import pyplot as plt

import matsign


def graded(power):
    """CAREX 12: weights from 2^-power to 2^power, mixed by a reflection v, with exact entries. The solution is known."""
    eps, v = 2.0**power, 3 * np.eye(3) - 2 * np.ones((3, 3))  # v v = 9 I
    p, w = eps * np.array([1, 2, 3]), np.array([1 / eps, 1, eps])
    x = eps * (9 * p + np.sqrt(81 * p**2 + 9 * w / eps))  # 18 p x - x²/eps + 9 w = 0
    exact = v * x @ v / 9
    problem = v * p @ v, np.eye(3), v * w @ v, eps * np.eye(3)
    return problem, lambda y: np.linalg.norm(y - exact) / np.linalg.norm(exact)


def chain(n):
    """CAREX 17: a chain of n integrators, of which the first is observed and the last is moved. The corner of x is 1."""
    q, b = np.zeros((n, n)), np.zeros((n, 1))
    q[0, 0] = b[-1, 0] = 1
    return (np.eye(n, k=1), b, q, np.eye(1)), lambda y: abs(y[0, -1] - 1)


def measure(solve, problem):
    """The relative residual and the relative error."""
    (a, b, q, r), error = problem
    x = solve(a, b, q, r)
    terms = a.T @ x, x @ a, q, -x @ b @ np.linalg.solve(r, b.T @ x)
    return np.linalg.norm(sum(terms)) / sum(map(np.linalg.norm, terms)), error(x)


figure, both = plt.subplots(2, figsize=(5.2, 6.4))
families = [(graded, range(0, 21, 2), "weights from 2⁻ᵏ to 2ᵏ"), (chain, range(2, 22, 2), "chain of k integrators")]
for axes, (family, sizes, title) in zip(both, families, strict=True):
    for color, name, library in (("C1", "SciPy", scipy.linalg), ("C0", "matsign", matsign)):
        values = np.array([measure(library.solve_continuous_are, family(k)) for k in sizes]).T.clip(1e-17)
        axes.semilogy(sizes, values[1], "o-", color=color, markersize=4, label=f"{name}, error")
        axes.semilogy(sizes, values[0], ":", color=color, label=f"{name}, residual")
    axes.set(title=title, xlabel="k", ylim=(3e-18, 1e2), xticks=range(0, 21, 5), yticks=10.0 ** np.arange(-16, 1, 4))
both[0].legend(ncols=2, loc="upper center", fontsize=9)
