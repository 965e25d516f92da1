"""Gauss-Jacobi quadrature for the weight s^{-t} (1-s)^t on [0, 1]: nodes, weights, and where it is exact to rounding.

Applied to 1/(1 - s x) with m nodes it gives the [m/m] Padé approximants of (1-x)^t and, for t = 0, of log(1-x).
"""

from __future__ import annotations

import functools

import numpy as np

from matsign.backends.constants import constant_when_compiled


@constant_when_compiled
@functools.lru_cache(maxsize=256)
def jacobi_rule(t: float, m: int) -> tuple[tuple[float, float], ...]:
    """The m (node, weight) of total weight 1, for -1 < t < 1, by the eigenvectors of a tridiagonal matrix (Golub & Welsch).

    The weight is (1-u)^t (1+u)^{-t} for u = 2s - 1, a Jacobi weight whose exponents have the sum 0.
    """
    k = np.arange(1, m)
    off = np.sqrt((k * k - t * t) / (4 * k * k - 1.0))
    recurrence = np.diag(off, 1) + np.diag(off, -1)
    recurrence[0, 0] = -t
    nodes, vectors = np.linalg.eigh(recurrence)
    return tuple(zip(((1 + nodes) / 2).tolist(), (vectors[0] ** 2).tolist(), strict=True))


def radius(nodes: int, eps: float) -> float:
    """The x up to which the rule with this number of nodes is exact to eps: its error is about ρ^{2m}."""
    rho = eps ** (0.5 / nodes)
    return 1 - ((1 - rho) / (1 + rho)) ** 2
