"""Linear matrix equations as one system for the entries of the unknown, each equation and each unknown in units of its own.

The norm of an operator hides its small entries: in bad units it may be singular to working precision in the norm though no change
of its entries by rounding makes it singular. K + D is regular for all D with |Dᵢⱼ| ≤ Nᵢⱼ if the spectral radius of |K⁻¹| N is
below 1, which no units change; the largest ratio (|K⁻¹| N v)ᵢ / vᵢ bounds it for every v > 0 (Collatz). For few unknowns K⁻¹ is
affordable.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from matsign._typing import NDArray as Array
from matsign.backends import lapack, load
from matsign.linalg.equilibration import equilibrating_exponents, rescale
from matsign.linalg.separation import ROUNDINGS
from matsign.linalg.stacks import entry_exponents

# The inverse for more unknowns takes too long.
MAX_UNKNOWNS = 128
# Changes by rounding that are smaller than this leave two digits of each solution.
_SMALL = 0.01
_CORRECTIONS, _STEPS = 2, 10


class EntrywiseSystem(NamedTuple):
    """2^(rows + columns) m x = q for the entries of x and q, with the inverse of m; `bounds` are sums of moduli, for m."""

    m: Array
    inverse: Array
    bounds: Array
    rows: Array
    columns: Array

    @classmethod
    def of(cls, system: Array, bounds: Array) -> EntrywiseSystem:
        """`bounds`: for each entry of the system the sum of the moduli of the terms that add up to it."""
        backend = load("numpy")
        rows, columns = (e[0] for e in equilibrating_exponents(backend, entry_exponents(backend, system[None])))
        m, bounds = (rescale(backend, x, rows, columns) for x in (system, bounds))
        return cls(m, lapack.inv(m), bounds, rows, columns)

    def is_regular(self) -> bool:
        """Whether no change of the entries by rounding makes the system singular, or nearly so."""
        change = np.abs(self.inverse) @ self.bounds * (ROUNDINGS * np.finfo(self.m.dtype).eps)
        v = np.ones(len(change), change.dtype)
        for _ in range(_STEPS):
            v = change @ v
            v = v / v.max()
        return bool((change @ v < _SMALL * v).all())

    def is_accurate(self, q: Array, x: Array) -> bool:
        """Whether x solves each equation, and changes of the entries by rounding leave two digits of it."""
        backend = load("numpy")
        y, right = (backend.ldexp(z.ravel(), e) for z, e in ((x, self.columns), (q, -self.rows)))
        rounding = (self.bounds @ np.abs(y) + np.abs(right)) * (ROUNDINGS * np.finfo(self.m.dtype).eps)
        if not (np.abs(right - self.m @ y) <= len(y) * rounding).all():
            return False
        change = np.abs(self.inverse) @ rounding
        return bool(np.linalg.norm(backend.ldexp(change, -self.columns)) <= _SMALL * np.linalg.norm(x))

    def adjoint(self) -> EntrywiseSystem:
        return EntrywiseSystem(self.m.conj().T, self.inverse.conj().T, self.bounds.T, self.columns, self.rows)

    def solve(self, q: Array) -> Array:
        backend = load("numpy")
        right = backend.ldexp(q.ravel(), -self.rows)
        x = self.inverse @ right
        for _ in range(_CORRECTIONS):
            x = x + self.inverse @ (right - self.m @ x)
        return np.reshape(backend.ldexp(x, -self.columns), q.shape)

    def adjoint_solve(self, x: Array) -> Array:
        return self.adjoint().solve(x)


def generalized_system(a: Array, b: Array, c: Array, d: Array) -> EntrywiseSystem:
    """The system of a x b + c x d."""

    def system(a: Array, b: Array, c: Array, d: Array) -> Array:
        return np.kron(a, b.T) + np.kron(c, d.T)

    return EntrywiseSystem.of(system(a, b, c, d), system(*(np.abs(x) for x in (a, b, c, d))))


def pair(a: Array, b: Array, d: Array, e: Array) -> EntrywiseSystem:
    """The system of [a x - y b; d x - y e] for [x; y]."""
    left, right = np.eye(len(a), dtype=a.dtype), np.eye(len(b), dtype=b.dtype)
    rows = [[np.kron(x, right), -np.kron(left, y.T)] for x, y in ((a, b), (d, e))]
    system = np.block(rows)
    return EntrywiseSystem.of(system, np.abs(system))
