"""Cases of the benchmark collections for algebraic Riccati equations, and errors of a solution.

CAREX, the continuous ones (Abels & Benner 1999), are in `carex`; DAREX, the discrete ones (Benner, Laub & Mehrmann 1995), in
`darex`. Data without a formula are in ``data/riccati.npz``, with the solutions of all cases in 400 bits, rounded to
double, by ``benchmarks/riccati_truth.py``.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.linalg as sl

DATA = Path(__file__).parent / "data" / "riccati.npz"


class Case(NamedTuple):
    """A regulator problem: a, b, q, r, a descriptor e and a cross term s (or None)."""

    name: str
    a: np.ndarray
    b: np.ndarray
    q: np.ndarray
    r: np.ndarray
    e: np.ndarray | None = None
    s: np.ndarray | None = None

    @property
    def discrete(self):
        return self.name.startswith("DAREX")

    @property
    def plant(self):
        return self[1:]

    def gain(self, x):
        xe = x if self.e is None else x @ self.e
        inner = self.b.T @ (x @ self.a if self.discrete else xe)
        weight = self.r + self.b.T @ x @ self.b if self.discrete else self.r
        inner = inner if self.s is None else inner + self.s.T
        return np.linalg.solve(weight, inner), inner

    def residual(self, x):
        """The norm of the residual over the sum of the norms of the terms of the equation."""
        gain, inner = self.gain(x)
        xe = x if self.e is None else x @ self.e
        if self.discrete:
            kept = xe if self.e is None else self.e.T @ xe
            terms = [self.a.T @ x @ self.a, -kept, self.q, -gain.T @ inner]
        else:
            once = self.a.T @ xe
            terms = [once, once.T, self.q, -gain.T @ inner]
        total = sum(map(np.linalg.norm, terms))
        return float(np.linalg.norm(sum(terms)) / total) if total else 0.0

    def poles(self, x):
        """The eigenvalues of the closed loop."""
        return sl.eigvals(self.a - self.b @ self.gain(x)[0], self.e)

    def stable(self, x):
        poles = self.poles(x)
        return bool((abs(poles) < 1).all() if self.discrete else (poles.real < 0).all())

    def error(self, x):
        """‖x - X‖ / ‖X‖, or that of a few products if X is too large to store; rounding of X limits it to 1e-16."""
        known = _stored()
        if self.name + "/signs" in known:
            signs = np.unpackbits(known[self.name + "/signs"], axis=1, count=8) * 2.0 - 1
            expected = known[self.name + "/product"]
            return float(np.linalg.norm(x @ signs - expected) / np.linalg.norm(expected))
        expected = unpacked(known[self.name + "/x"])
        size = np.linalg.norm(expected)
        return float(np.linalg.norm(x - expected) / (size or 1))


@functools.cache
def _stored():
    with np.load(DATA) as data:
        return dict(data)


def stored(name, *keys):
    """The arrays of a case that are data, as doubles; those without a stored array are left out."""
    return {key: _stored()[f"{name}/{key}"].astype(float) for key in keys if f"{name}/{key}" in _stored()}


def packed(x):
    """The upper triangle of a symmetric matrix."""
    return x[np.triu_indices(len(x))]


def unpacked(values):
    n = int((2 * len(values)) ** 0.5)
    x = np.zeros((n, n))
    x[np.triu_indices(n)] = values
    return x + np.triu(x, 1).T
