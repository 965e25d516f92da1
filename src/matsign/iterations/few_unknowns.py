"""Small linear matrix equations as one system for the entries of x: one LU factorisation, whatever the spectra are.

An iteration takes a hundred array operations, and a Schur form one call a member; this takes twenty operations for a stack.
The residual, and the solution for a random right-hand side with the same factors, tell whether x is reliable.
The symmetric solution of a real equation has half as many unknowns: the entries on and below its diagonal.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from matsign._typing import Array
from matsign.backends import Backend
from matsign.iterations.refinement import total
from matsign.linalg.separation import ROUNDINGS, may_be_singular
from matsign.linalg.stacks import broadcast_scalar, far_exponent, plus_identity, probe_numbers

# With more unknowns than this the factorisation takes longer than a sum by doubling; in complex arithmetic it takes four times
# as long.
_MAX_UNKNOWNS, _MAX_UNKNOWNS_COMPLEX = 25, 9


class SystemSolution(NamedTuple):
    """x, and an upper bound on the separation of the equation, from the solution for a random right-hand side."""

    x: Array
    least: Array


class _Places(NamedTuple):
    """Indices into the entries of a and b (`_with_zero`), q and the solution: for the system, its right-hand side and x."""

    system: Any
    right: Any
    x: Any
    probe: Any  # the random right-hand side
    size: float  # its norm


def has_few_unknowns(backend: Backend, q: Array, *, symmetric: bool = False) -> bool:
    """Whether an equation with this right-hand side has few unknowns; on NumPy only, where arrays have values."""
    n, m = q.shape[-2:]
    count = n * (n + 1) // 2 if symmetric else n * m
    return backend.name == "numpy" and count <= (_MAX_UNKNOWNS_COMPLEX if backend.is_complex(q) else _MAX_UNKNOWNS)


def sylvester(backend: Backend, a: Array, b: Array, q: Array) -> SystemSolution:
    """x with a x + x b = q."""
    places = _sylvester_places(*q.shape[-2:])
    return _solve_system(backend, _sum(_with_zero(a, b), places), q, places)


def lyapunov(backend: Backend, a: Array, q: Array, *, symmetric: bool) -> SystemSolution:
    """x with a x + x aᴴ = q; `symmetric` says that a is real and q symmetric."""
    if not symmetric:
        return sylvester(backend, a, a.mT.conj(), q)
    places = _symmetric_places(q.shape[-1], stein=False)
    return _solve_system(backend, _sum(_with_zero(a), places), q, places)


def stein(backend: Backend, a: Array, q: Array, d: Array, *, symmetric: bool) -> SystemSolution:
    """x with d x - a x aᴴ = q, for one number d per member."""
    n = a.shape[-1]
    places = _symmetric_places(n, stein=True) if symmetric else _stein_places(n)
    ik, jl, *other = places.system
    numbers = _with_zero(a)
    product = _take(numbers, ik) * _take(numbers.conj(), jl)
    if symmetric:
        il, jk = other
        product = product + _take(numbers, il) * _take(numbers, jk)
    return _solve_system(backend, plus_identity(backend, broadcast_scalar(d), -product), q, places)


def discrete_sylvester(backend: Backend, a: Array, b: Array, q: Array, d: Array) -> SystemSolution:
    """x with d x - a x b = q, for one number d per member."""
    places = _product_places(*q.shape[-2:])
    of_a, of_b = places.system
    product = _take(_with_zero(a), of_a) * _take(_with_zero(b), of_b)
    return _solve_system(backend, plus_identity(backend, broadcast_scalar(d), -product), q, places)


def generalized_sylvester(backend: Backend, a: Array, b: Array, c: Array, d: Array, q: Array) -> SystemSolution:
    """x with a x b + c x d = q."""
    places = _product_places(*q.shape[-2:])
    left, right = places.system
    first, second = (_take(_with_zero(x), left) * _take(_with_zero(y), right) for x, y in ((a, b), (c, d)))
    return _solve_system(backend, first + second, q, places)


def reliable(backend: Backend, result: SystemSolution, operator: Array, q: Array, *others: Array) -> Array:
    """Where x is right to working precision and the equation q + others = 0, with the norm `operator`, surely not singular.

    The arrays are in the caller's units: False where squares of their norms may overflow or underflow.
    """
    sizes = [backend.norm(part) for part in (q, *others)]
    size_x, gap = backend.norm(result.x), backend.norm(total((q, *others)))
    limit = ROUNDINGS * backend.eps(q) * operator
    ok = gap <= 4 * backend.eps(q) * total(tuple(sizes))
    ok = ok & ~may_be_singular(backend, result.least, q, limit) & (size_x * limit < sizes[0])
    high = 2.0 ** (far_exponent(backend, q) // 4)
    for size in (operator, sizes[0], size_x):
        ok = ok & (size < high) & (size > 1 / high)
    return ok


def _solve_system(backend: Backend, system: Array, q: Array, places: _Places) -> SystemSolution:
    """By one factorisation for q and for a random right-hand side; NaN where the system is singular."""
    rights = np.empty((*system.shape[:-1], 2), q.dtype)
    rights[..., 0] = _take(q.reshape((*q.shape[:-2], -1)), places.right)
    rights[..., 1] = places.probe
    solutions = np.take(backend.solve(system, rights), places.x, axis=-2).reshape((*q.shape, 2))
    return SystemSolution(solutions[..., 0], places.size / backend.norm(solutions[..., 1]))


def _with_zero(*matrices: Array) -> Array:
    """The entries of matrices one after the other, and a zero."""
    first, ends = matrices[0], [0]
    for x in matrices:
        ends.append(ends[-1] + x.shape[-2] * x.shape[-1])
    out = np.zeros((*first.shape[:-2], ends[-1] + 1), first.dtype)
    for x, start, end in zip(matrices, ends, ends[1:], strict=False):
        out[..., start:end] = x.reshape((*x.shape[:-2], -1))
    return out


def _take(numbers: Array, places: Array) -> Array:
    return numbers.take(places, axis=-1)


def _sum(numbers: Array, places: _Places) -> Array:
    one, other = places.system
    return _take(numbers, one) + _take(numbers, other)


@functools.lru_cache(maxsize=32)
def _sylvester_places(n: int, m: int) -> _Places:
    """a ⊗ I + I ⊗ bᵀ from entries of a and b."""
    i, j, k, h = _indices(np.arange(n * m), m)
    of_a, of_b, zero = i * n + k, n * n + h * m + j, n * n + m * m
    system = np.where(j == h, of_a, zero), np.where(i == k, of_b, zero)
    return _unsymmetric_places(system, n, m)


@functools.lru_cache(maxsize=32)
def _product_places(n: int, m: int) -> _Places:
    """a ⊗ bᵀ as products of entries of a and b."""
    i, j, k, h = _indices(np.arange(n * m), m)
    return _unsymmetric_places((i * n + k, h * m + j), n, m)


@functools.lru_cache(maxsize=32)
def _stein_places(n: int) -> _Places:
    """a ⊗ conj(a) as products of entries of a."""
    i, j, k, h = _indices(np.arange(n * n), n)
    return _unsymmetric_places((i * n + k, j * n + h), n, n)


def _unsymmetric_places(system: tuple[Any, ...], n: int, m: int) -> _Places:
    probe, everything = probe_numbers(n, m), np.arange(n * m)
    return _Places(system, everything, everything, probe.ravel(), float(np.linalg.norm(probe)))


@functools.lru_cache(maxsize=32)
def _symmetric_places(n: int, *, stein: bool) -> _Places:
    """For x = xᵀ with the unknowns (k, h), k ≥ h, each with the sum of the coefficients of the entries (k, h) and (h, k)."""
    row, col = np.tril_indices(n)
    lower = row * n + col
    i, j, k, h = _indices(lower, n)
    off_diagonal, zero = k != h, n * n
    system: tuple[Any, ...]
    if stein:
        system = i * n + k, j * n + h, np.where(off_diagonal, i * n + h, zero), np.where(off_diagonal, j * n + k, zero)
    else:
        first = np.where(j == h, i * n + k, np.where(off_diagonal & (j == k), i * n + h, zero))
        second = np.where(i == k, j * n + h, np.where(off_diagonal & (i == h), j * n + k, zero))
        system = first, second
    unknowns = np.empty((n, n), np.intp)
    unknowns[row, col] = unknowns[col, row] = np.arange(len(lower))
    probe = probe_numbers(n, n) + probe_numbers(n, n).T
    return _Places(system, lower, unknowns.ravel(), probe[row, col], float(np.linalg.norm(probe)))


def _indices(entries: Any, m: int) -> tuple[Any, Any, Any, Any]:
    """(i, j, k, h): row and column of each equation's entry and of each unknown, from indices into a matrix of m columns."""
    i, j = np.divmod(entries, m)
    return i[:, None], j[:, None], i[None, :], j[None, :]
