"""The null spaces of the powers of a matrix of floating-point numbers, counted exactly.

Floating-point numbers are integers times powers of two, so a matrix of them has a rank that no rounding can blur: its rank
modulo a prime is never larger, and smaller only where the prime divides every minor of that size (Dixon 1982 and others).
Two primes near 2^20 leave a chance of about 1e-12 for that. Products modulo such a prime are exact in double precision up to
8192 rows, so they are the BLAS's.
"""

from __future__ import annotations

import numpy as np

from matsign._typing import NDArray as Array

# Both are 1 modulo 4, so that -1 has a square root for complex entries.
_PRIMES = (1048573, 1048517)
_LARGEST = 8192
_PANEL = 48
# Up to here the members of a stack are worked off together.
_SMALL = 64


def nullities(stack: Array) -> Array:
    """(B, n) int32: the dimensions of the null spaces of m, m², ..., mⁿ; zeros for members too large to count."""
    n = stack.shape[-1]
    if n > _LARGEST:
        return np.zeros((len(stack), n), np.int32)
    return np.minimum(*(_chains(np.stack([_residues(m, p) for m in stack]), p) for p in _PRIMES))


def _chains(a: Array, p: int) -> Array:
    """The nullities modulo p; they stop growing once one power adds nothing."""
    n = a.shape[-1]
    power, out, grows = a, np.zeros(a.shape[:2], np.int32), np.arange(len(a))
    for k in range(n):
        found = n - _ranks(power, p)
        out[grows, k:] = found[:, None]
        more = (found < n) & (found > (out[grows, k - 1] if k else 0))
        grows, power, a = grows[more], power[more], a[more]
        if len(grows) == 0:
            break
        power = _modulo(power @ a, p)
    return out


def _ranks(a: Array, p: int) -> Array:
    if a.shape[-1] > _SMALL:
        return np.array([_rank(x, p) for x in a])
    return _ranks_together(a, p)


def _ranks_together(a: Array, p: int) -> Array:
    """Elimination on all members of a stack at once, without divisions; a row that was a pivot is not touched again."""
    free, each = np.ones(a.shape[:2], bool), np.arange(len(a))
    for column in range(a.shape[-1]):
        candidates = free & (a[:, :, column] != 0)
        pivot, found = candidates.argmax(axis=1), candidates.any(axis=1)
        row = a[each, pivot]
        free[each[found], pivot[found]] = False
        multipliers = np.where(candidates & free, a[:, :, column], 0)
        change = multipliers != 0
        scale = np.where(change, row[:, column, None], 1)
        a = _modulo(scale[:, :, None] * a + np.where(change, p - multipliers, 0)[:, :, None] * row[:, None, :], p)
    return (~free).sum(axis=1)


def _residues(m: Array, p: int) -> Array:
    """The entries modulo p, as doubles, times one power of two for the whole matrix."""
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
    """A square root of -1 modulo a prime that is 1 modulo 4: a quarter of the way round a generator of the squares."""
    for x in range(2, p):
        root = pow(x, (p - 1) // 4, p)
        if root * root % p == p - 1:
            return root
    raise ArithmeticError(f"{p} is not a prime that is 1 modulo 4")


def _modulo(x: Array, p: int) -> Array:
    """Whole numbers below 2^53 modulo p: the quotient may be one off by rounding, which a second look mends."""
    x = x - p * np.floor(x / p)
    x += p * (x < 0)
    x -= p * (x >= p)
    return x


def _rank(a: Array, p: int) -> int:
    """Gauss's elimination modulo p, a panel of columns at a time so that most of the work is products."""
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
        # The rows of the pivots among themselves, then all rows below at once.
        for k in range(first, rank):
            later = slice(k + 1, rank)
            a[later, stop:] = _modulo(a[later, stop:] + (p - factors[later, k - first, None]) * a[k, stop:], p)
        update = _modulo(factors[rank:, : rank - first] @ a[first:rank, stop:], p)
        a[rank:, stop:] = _modulo(a[rank:, stop:] + (p - update), p)
    return rank
