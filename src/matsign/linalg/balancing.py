"""Balancing: a diagonal similarity a → 2^-e a 2^e, a change of units, that makes row and column norms nearly equal.

Multiplying by a power of two causes no rounding. Results computed from a balanced matrix do not depend on the caller's
units (Parlett & Reinsch 1969).
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components

from matsign._typing import Array
from matsign.backends import Backend, lapack
from matsign.backends import numpy as numpy_backend
from matsign.linalg.stacks import broadcast_scalar, scale_to_unit

# A row and a column whose sums differ by less than this factor count as balanced.
_BALANCED_RATIO = 32.0
# An entry is too large if it exceeds the largest √|aᵢⱼ aⱼᵢ|, which no units change, by more than this factor.
_EXCESS_RATIO = 8.0
# The largest exponent that `Backend.ldexp` can apply: it multiplies by two factors, each a normal number of the dtype.
_EXPONENT_RANGE = {"float32": 2 * 126, "float64": 2 * 1022}
# The exponent that stands for an entry 0, below that of every number.
_ZERO_EXPONENT = -100_000


def is_unbalanced(backend: Backend, a: Array) -> Array:
    """Which members have a row much larger or smaller than the column of the same index."""
    return uneven_rows(backend, a).any(-1)


def uneven_rows(backend: Backend, a: Array) -> Array:
    """Which rows are much larger or smaller than the column of the same index, (B, n)."""
    size = backend.xp.abs(a)
    row, col = size.sum(-1), size.sum(-2)
    return (row / _BALANCED_RATIO > col) | (col / _BALANCED_RATIO > row)


def balancing_exponents(backend: Backend, a: Array) -> Array:
    """e (B, n), integer: the balanced matrix is 2^-e a 2^e; zero for members that are balanced already.

    Pass a unscaled: scaling to unit size first may let small entries underflow.
    """
    zeros = backend.xp.zeros_like(a[..., 0, :], dtype=backend.xp.int32)
    return backend.rare_cond(
        is_unbalanced(backend, a),
        lambda a, zeros: backend.host_callback(_lapack_balancing, zeros, a),
        lambda a, zeros: zeros,
        *(a, zeros),
    )


def rescale(backend: Backend, a: Array, e: Array) -> Array:
    """2^-e a 2^e."""
    return backend.ldexp(a, e[:, None, :] - e[:, :, None])


class BalancedMatrix(NamedTuple):
    """matrix = 2^-k 2^-e m 2^e; `reached` marks (i, j) with a path of nonzero entries, where f(matrix) may be nonzero.

    e and `reached` are None if no member of the stack needs other units.
    """

    matrix: Array
    e: Array | None
    k: Array
    reached: Array | None

    def inward(self, backend: Backend, x: Array, degree: int = 0) -> Array:
        """2^-e x 2^e 2^(-degree k): x from the caller's units to the balanced ones."""
        power = -broadcast_scalar(self.k) * degree if degree else None
        return self._apply_exponents(backend, x, power, -1)

    def outward(self, backend: Backend, x: Array, degree: int = 0, exact: bool = False) -> Array:
        """2^e x 2^-e 2^(degree k): x back to the caller's units; `exact` takes `Backend.exact_ldexp`."""
        power = broadcast_scalar(self.k) * degree if degree else None
        return self._apply_exponents(backend, x, power, 1, exact)

    def mask_unreachable(self, backend: Backend, x: Array) -> Array:
        """x with 0 where a function of the matrix is 0: a change of units could magnify rounding errors there."""
        return x if self.reached is None else backend.xp.where(self.reached, x, 0 * x)

    def _apply_exponents(
        self, backend: Backend, x: Array, power: Array | None, direction: int, exact: bool = False
    ) -> Array:
        if self.e is not None:
            shift = direction * (self.e[:, :, None] - self.e[:, None, :])
            power = shift if power is None else shift + power
        if power is None:
            return x
        return backend.exact_ldexp(x, power) if exact else backend.ldexp(x, power)


def balance(backend: Backend, m: Array) -> BalancedMatrix:
    """m in units that balance it, with its largest entry in [1/2, 1).

    Beyond `balancing_exponents`, this scales the off-diagonal blocks of a reducible (block triangular) matrix to the size of
    its diagonal blocks, and finds units where each row norm equals its column norm but some entries are needlessly large.
    """
    a, k = scale_to_unit(backend, m)
    if backend.unrolls_loops(m) or backend.products_only(m):
        return BalancedMatrix(a, None, k, None)
    fixed = backend.stop_gradient(a)
    mask = is_unbalanced(backend, fixed) | _reducible(backend, fixed)
    if not backend.is_traced(m) and not mask.any():
        return BalancedMatrix(a, None, k, None)
    zeros = backend.xp.zeros_like(a[:, 0, :], dtype=backend.xp.int32)

    def balance_members(m: Array, a: Array, k: Array, zeros: Array) -> BalancedMatrix:
        m_fixed = backend.stop_gradient(m)
        sizes = backend.xp.where(
            m_fixed == 0, _ZERO_EXPONENT + 0 * zeros[:, None, :], backend.exponent(entry_sizes(backend, m_fixed))
        )
        graph_exponents = functools.partial(
            _graph_exponents, exponent_range=_EXPONENT_RANGE[backend.dtype_name(m.real)]
        )
        e, reached = backend.host_callback(graph_exponents, (zeros, m_fixed == 0), sizes)
        # One combined exponent: applied separately, the factors could overflow or underflow in between.
        shift = e[:, None, :] - e[:, :, None]
        k = backend.xp.max(sizes + shift, axis=(-1, -2))
        return BalancedMatrix(backend.exact_ldexp(m, shift - broadcast_scalar(k)), e, k, reached)

    def scale_only(m: Array, a: Array, k: Array, zeros: Array) -> BalancedMatrix:
        return BalancedMatrix(a, zeros, k, m == m)

    balanced: BalancedMatrix = backend.rare_cond(mask, balance_members, scale_only, m, a, k, zeros)
    return balanced


def entry_sizes(backend: Backend, m: Array) -> Array:
    """The moduli of the entries; for complex entries the larger of |re| and |im|, which cannot overflow."""
    if backend.is_complex(m):
        return backend.xp.maximum(backend.xp.abs(m.real), backend.xp.abs(m.imag))
    return backend.xp.abs(m)


def _reducible(backend: Backend, a: Array) -> Array:
    """Which members have an entry much larger than the largest √|aᵢⱼ aⱼᵢ|, so that other units may reduce it."""
    size = backend.xp.abs(a)
    return (backend.xp.max(size, axis=(-1, -2)) / _EXCESS_RATIO) ** 2 > backend.xp.max(size * size.mT, axis=(-1, -2))


def _lapack_balancing(stack: Array) -> Array:
    return np.stack([np.frexp(lapack.balance(_scaled_to_double(a)))[1] - 1 for a in stack]).astype(np.int32)


def _scaled_to_double(a: Array) -> Array:
    """a in double precision with its largest entry near 1: no entry of a single-precision matrix underflows."""
    return scale_to_unit(numpy_backend, a[None].astype(np.result_type(a, np.float64)))[0][0]


def _graph_exponents(sizes: Array, exponent_range: int) -> tuple[Array, Array]:
    """(e, reached) from the exponents of the entries, which cannot overflow: LAPACK's balancing, improved by `potentials`.

    `potentials` is used where LAPACK leaves an entry too large. Units that exceed `exponent_range` are rejected.
    """
    out, reached = np.zeros(sizes.shape[:2], np.int32), np.ones(sizes.shape, bool)
    for k, entries in enumerate(sizes):
        weight = np.where(entries <= _ZERO_EXPONENT, -np.inf, entries)
        if weight.max() == -np.inf:
            continue
        e = _lapack_exponents(weight)
        rest = _shifted_exponents(weight, e)
        if rest.max() >= math.log2(_EXCESS_RATIO) + ((rest + rest.T) / 2).max():
            first = potentials(weight)
            e = first + _lapack_exponents(_shifted_exponents(weight, first))
        e = e + _coupling_exponents(_shifted_exponents(weight, e))
        if np.ptp(e) + abs(_shifted_exponents(weight, e).max()) < exponent_range:
            out[k], reached[k] = e, _reachable(weight > -np.inf)
    return out, reached


def _reachable(entries: Array) -> Array:
    """Where some power of a matrix with these nonzero entries may be nonzero."""
    paths = entries | np.eye(len(entries), dtype=bool)
    for _ in range(len(entries).bit_length()):
        paths = paths.astype(np.float32) @ paths.astype(np.float32) > 0
    return paths


def _shifted_exponents(weight: Array, e: Array) -> Array:
    return weight + (e[None, :] - e[:, None])


def _lapack_exponents(weight: Array) -> Array:
    """LAPACK's exponents for a matrix with these log2 |entries|; ratios to the largest below 2^-1000 are raised to it."""
    within = np.exp2(np.maximum(weight - weight.max(), -1000.0))
    return _lapack_balancing(np.where(weight > -np.inf, within, 0.0)[None])[0]


def _coupling_exponents(weight: Array) -> Array:
    """One exponent for each irreducible diagonal block, so that the off-diagonal blocks become as large as the diagonal ones.

    Balancing the diagonal blocks does not fix their relative units. Larger off-diagonal blocks make the matrix look
    singular; much smaller ones are lost in the rounding errors of the diagonal blocks.
    """
    count, label = connected_components(weight > -np.inf, directed=True, connection="strong")
    if count == 1:
        return np.zeros(len(weight), np.int32)
    blocks = np.full((count, count), -np.inf)
    np.maximum.at(blocks, (label[:, None], label[None, :]), weight)
    level = blocks.diagonal().copy()
    if level.max() == -np.inf:
        return np.zeros(len(weight), np.int32)
    level[level == -np.inf] = level.max()
    coupling = blocks - np.maximum(level[:, None], level[None, :])
    np.fill_diagonal(coupling, -np.inf)
    # Longest paths to the blocks without outgoing coupling: each other block's largest coupling becomes its level.
    last = (coupling == -np.inf).all(axis=1)
    e = np.where(last, 0.0, -np.inf)
    for _ in range(count):
        e = np.where(last, 0.0, (coupling + e).max(axis=1))
    # For blocks without outgoing coupling, balance their largest incoming one.
    reached = last & (coupling > -np.inf).any(axis=0)
    e = np.where(reached, (e[:, None] - coupling).min(axis=0), e)
    return np.round(e).astype(np.int32)[label]


def potentials(weight: Array) -> Array:
    """e for which no entry of 2^-e a 2^e exceeds the largest geometric mean of the entries along a cycle, which no e changes.

    `weight` holds log2 |entries|. The largest cycle mean is computed by Karp's algorithm (1978), e by Bellman-Ford longest
    paths with integer lengths, each in at most n steps. e is 0 if there is no cycle; the matrix is then nilpotent.
    """
    n = len(weight)
    longest = [np.zeros(n)]
    for _ in range(n):
        longest.append((longest[-1][:, None] + weight).max(axis=0))
    end = np.flatnonzero(longest[n] > -np.inf)
    e = np.zeros(n)
    if len(end) == 0:
        return e.astype(np.int32)
    steps = n - np.arange(n)[:, None]
    mean = ((longest[n][end] - np.stack(longest[:n])[:, end]) / steps).min(axis=0).max()
    weight = weight - np.ceil(mean)
    for _ in range(n):
        e, before = np.maximum(e, (weight + e).max(axis=1)), e
        if (e == before).all():
            break
    return e.astype(np.int32)
