"""Exact dimensions of the null spaces of the powers of a matrix of floating-point numbers.

Floating-point numbers are integers times powers of two, so the matrix has a well-defined exact rank. Its rank modulo a prime
is never larger, and smaller only if the prime divides every minor of that size (Dixon 1982). For two primes near 2^20 the
probability of that is about 1e-12. Products modulo such a prime are exact in double precision up to 8192 rows, so BLAS
computes them.
"""

from __future__ import annotations

import numpy as np

from matsign._typing import NDArray as Array

# Both are 1 modulo 4, so that -1 has a square root for complex entries.
_PRIMES = (1048573, 1048517)
_LARGEST = 8192
_PANEL = 48
# Up to this size all members of a stack are eliminated together.
_SMALL = 64


def nullities(stack: Array) -> Array:
    """(B, n) int32: the dimensions of the null spaces of m, m², …, mⁿ; zeros for matrices of more than 8192 rows."""
    n = stack.shape[-1]
    if n > _LARGEST:
        return np.zeros((len(stack), n), np.int32)
    return np.minimum(*(_power_nullities(np.stack([_residues(m, p) for m in stack]), p) for p in _PRIMES))


def _power_nullities(a: Array, p: int) -> Array:
    """The nullities modulo p; once a power adds nothing, later powers add nothing either."""
    n = a.shape[-1]
    power, out, grows = a, np.zeros(a.shape[:2], np.int32), np.arange(len(a))
    for k in range(n):
        nullity = n - _ranks(power, p)
        out[grows, k:] = nullity[:, None]
        more = (nullity < n) & (nullity > (out[grows, k - 1] if k else 0))
        grows, power, a = grows[more], power[more], a[more]
        if len(grows) == 0:
            break
        power = _modulo(power @ a, p)
    return out


def _ranks(a: Array, p: int) -> Array:
    if a.shape[-1] > _SMALL:
        return np.array([_rank(x, p) for x in a])
    return _batched_ranks(a, p)


def _batched_ranks(a: Array, p: int) -> Array:
    """Division-free elimination on all members of a stack at once; pivot rows are not changed afterwards."""
    free, each = np.ones(a.shape[:2], bool), np.arange(len(a))
    for column in range(a.shape[-1]):
        candidates = free & (a[:, :, column] != 0)
        pivot, has_pivot = candidates.argmax(axis=1), candidates.any(axis=1)
        row = a[each, pivot]
        free[each[has_pivot], pivot[has_pivot]] = False
        multipliers = np.where(candidates & free, a[:, :, column], 0)
        change = multipliers != 0
        scale = np.where(change, row[:, column, None], 1)
        a = _modulo(scale[:, :, None] * a + np.where(change, p - multipliers, 0)[:, :, None] * row[:, None, :], p)
    return (~free).sum(axis=1)


def _residues(m: Array, p: int) -> Array:
    """The entries, times one power of two for the whole matrix, modulo p, as doubles."""
    if np.iscomplexobj(m):
        both = _residues(np.stack([m.real, m.imag]), p)
        return _modulo(both[0] + _root_of_minus_one(p) * both[1], p)
    mantissa, exponent = np.frexp(m.astype(np.float64))
    whole = np.ldexp(mantissa, 53).astype(np.int64) % p
    exponent = np.where(m == 0, 0, exponent)
    low = int(exponent.min())
    powers = [1]
    for _ in range(int(exponent.max()) - low):
        powers.append(powers[-1] * 2 % p)
    return (whole * np.array(powers, np.int64)[exponent - low] % p).astype(np.float64)


def _root_of_minus_one(p: int) -> int:
    """A square root of -1 modulo a prime p that is 1 modulo 4: x^((p-1)/4) for a quadratic nonresidue x."""
    for x in range(2, p):
        root = pow(x, (p - 1) // 4, p)
        if root * root % p == p - 1:
            return root
    raise ArithmeticError(f"{p} is not a prime that is 1 modulo 4")


def _modulo(x: Array, p: int) -> Array:
    """Integers below 2^53 modulo p. Rounding may make the quotient wrong by 1; the last two lines correct that."""
    x = x - p * np.floor(x / p)
    x += p * (x < 0)
    x -= p * (x >= p)
    return x


def _rank(a: Array, p: int) -> int:
    """Gaussian elimination modulo p by panels of columns, so that most of the work is matrix products."""
    a, n, rank = a.copy(), len(a), 0
    for start in range(0, n, _PANEL):
        stop = min(start + _PANEL, n)
        factors, first = np.zeros((n, stop - start)), rank
        for column in range(start, stop):
            candidates = np.flatnonzero(a[rank:, column])
            if len(candidates) == 0:
                continue
            pivot = rank + int(candidates[0])
            a[[rank, pivot]], factors[[rank, pivot]] = a[[pivot, rank]], factors[[pivot, rank]]
            inverse = pow(int(a[rank, column]), p - 2, p)
            multipliers = _modulo(a[rank + 1 :, column] * inverse, p)
            a[rank + 1 :, column:stop] = _modulo(
                a[rank + 1 :, column:stop] + (p - multipliers[:, None]) * a[rank, column:stop], p
            )
            factors[rank + 1 :, rank - first] = multipliers
            rank += 1
            if rank == n:
                return n
        # Update the pivot rows one after the other, then all rows below by one product.
        for k in range(first, rank):
            later = slice(k + 1, rank)
            a[later, stop:] = _modulo(a[later, stop:] + (p - factors[later, k - first, None]) * a[k, stop:], p)
        update = _modulo(factors[rank:, : rank - first] @ a[first:rank, stop:], p)
        a[rank:, stop:] = _modulo(a[rank:, stop:] + (p - update), p)
    return rank
