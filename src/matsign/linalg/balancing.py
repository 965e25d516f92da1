"""Balancing: a change of the units of the states, a → 2^-e a 2^e, that makes rows and columns alike in size.

A power of two costs no rounding. What is computed from a balanced matrix no longer depends on the units that the
caller's states happened to have (Parlett & Reinsch 1969).
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

# Rows and columns within this factor are left alone.
_ALIKE = 32.0
# An entry within this factor of the largest diagonal entry, or of the largest √|aᵢⱼ aⱼᵢ|, is one that no units make smaller.
_BOUND = 8.0
# The exponents that `Backend.ldexp` can apply: two factors, each a number of the dtype.
_ROOM = {"float32": 2 * 126, "float64": 2 * 1022}
# The exponent of zero, below every other.
_NONE = -100_000


def is_unbalanced(backend: Backend, a: Array) -> Array:
    """Which members have a row much larger or smaller than the column of the same index."""
    return uneven_rows(backend, a).any(-1)


def uneven_rows(backend: Backend, a: Array) -> Array:
    """Which rows are much larger or smaller than the column of the same index, (B, n)."""
    size = backend.xp.abs(a)
    row, col = size.sum(-1), size.sum(-2)
    return (row / _ALIKE > col) | (col / _ALIKE > row)


def balancing_exponents(backend: Backend, a: Array) -> Array:
    """e (B, n), integer: the balanced matrix is 2^-e a 2^e; zero for members that are balanced already.

    For a as it is: brought to size, entries that matter may vanish.
    """
    none = backend.xp.zeros_like(a[..., 0, :], dtype=backend.xp.int32)
    return backend.rare_cond(
        is_unbalanced(backend, a),
        lambda a, none: backend.host_callback(_by_lapack, none, a),
        lambda a, none: none,
        *(a, none),
    )


def rescale(backend: Backend, a: Array, e: Array) -> Array:
    """2^-e a 2^e."""
    return backend.ldexp(a, e[:, None, :] - e[:, :, None])


class BalancedMatrix(NamedTuple):
    """matrix = 2^-k 2^-e m 2^e, and which entries a function of it may have: from i to j there must be a path of entries.

    e and `reached` are None where it is known that no member of the stack has units to change.
    """

    matrix: Array
    e: Array | None
    k: Array
    reached: Array | None

    def inward(self, backend: Backend, x: Array, degree: int = 0) -> Array:
        """2^-e x 2^e 2^(-degree k): something of the caller's in these units."""
        power = -broadcast_scalar(self.k) * degree if degree else None
        return self._scaled(backend, x, power, -1)

    def outward(self, backend: Backend, x: Array, degree: int = 0, exact: bool = False) -> Array:
        """2^e x 2^-e 2^(degree k): back into the caller's; `exact` as in `Backend.exact_ldexp`."""
        power = broadcast_scalar(self.k) * degree if degree else None
        return self._scaled(backend, x, power, 1, exact)

    def mask_unreachable(self, backend: Backend, x: Array) -> Array:
        """x without the rounding errors where a function of the matrix has zeros, which units may magnify."""
        return x if self.reached is None else backend.xp.where(self.reached, x, 0 * x)

    def _scaled(self, backend: Backend, x: Array, power: Array | None, direction: int, exact: bool = False) -> Array:
        if self.e is not None:
            shift = direction * (self.e[:, :, None] - self.e[:, None, :])
            power = shift if power is None else shift + power
        if power is None:
            return x
        return backend.exact_ldexp(x, power) if exact else backend.ldexp(x, power)


def balance(backend: Backend, m: Array) -> BalancedMatrix:
    """m in units that balance it, with its largest entry in [1/2, 1).

    More than `balancing_exponents`: a block triangular matrix is balanced too, by making its coupling as small as its diagonal
    blocks, and the units are those of the whole matrix where rows and columns are alike one by one (a chain of large entries).
    """
    a, k = scale_to_unit(backend, m)
    if backend.unrolls_loops(m):
        return BalancedMatrix(a, None, k, None)
    fixed = backend.stop_gradient(a)
    mask = is_unbalanced(backend, fixed) | _reducible(backend, fixed)
    if not backend.is_traced(m) and not mask.any():
        return BalancedMatrix(a, None, k, None)
    none = backend.xp.zeros_like(a[:, 0, :], dtype=backend.xp.int32)

    def balance_members(m: Array, a: Array, k: Array, none: Array) -> BalancedMatrix:
        m_fixed = backend.stop_gradient(m)
        sizes = backend.xp.where(
            m_fixed == 0, _NONE + 0 * none[:, None, :], backend.exponent(_moduli(backend, m_fixed))
        )
        thoroughly = functools.partial(_graph_exponents, room=_ROOM[backend.dtype_name(m.real)])
        e, reached = backend.host_callback(thoroughly, (none, m_fixed == 0), sizes)
        # In one step: between the caller's units and these may lie sizes that the dtype does not have.
        shift = e[:, None, :] - e[:, :, None]
        k = backend.xp.max(sizes + shift, axis=(-1, -2))
        return BalancedMatrix(backend.exact_ldexp(m, shift - broadcast_scalar(k)), e, k, reached)

    def scale_only(m: Array, a: Array, k: Array, none: Array) -> BalancedMatrix:
        return BalancedMatrix(a, none, k, m == m)

    found: BalancedMatrix = backend.rare_cond(mask, balance_members, scale_only, m, a, k, none)
    return found


def _moduli(backend: Backend, m: Array) -> Array:
    """The sizes of the entries, of complex ones within a factor of √2, so that none overflows."""
    if backend.is_complex(m):
        return backend.xp.maximum(backend.xp.abs(m.real), backend.xp.abs(m.imag))
    return backend.xp.abs(m)


def _reducible(backend: Backend, a: Array) -> Array:
    """Which members have an entry far larger than what products along the shortest cycles say that it must be."""
    size = backend.xp.abs(a)
    return (backend.xp.max(size, axis=(-1, -2)) / _BOUND) ** 2 > backend.xp.max(size * size.mT, axis=(-1, -2))


def _by_lapack(stack: Array) -> Array:
    return np.stack([np.frexp(lapack.balance(_in_doubles(a)))[1] - 1 for a in stack]).astype(np.int32)


def _in_doubles(a: Array) -> Array:
    """a near one in size, with the range of double precision, in which no entry of a single one vanishes."""
    return scale_to_unit(numpy_backend, a[None].astype(np.result_type(a, np.float64)))[0][0]


def _graph_exponents(sizes: Array, room: int) -> tuple[Array, Array]:
    """LAPACK's units, and where a large entry is left after them, those in which none is larger than it must be.

    From the exponents of the entries, `_NONE` for zero, which have no range to leave. Units that leave no `room` are not taken.
    """
    out, reached = np.zeros(sizes.shape[:2], np.int32), np.ones(sizes.shape, bool)
    for k, entries in enumerate(sizes):
        weight = np.where(entries <= _NONE, -np.inf, entries)
        if weight.max() == -np.inf:
            continue
        e = _lapack_exponents(weight)
        rest = _in_units(weight, e)
        if rest.max() >= math.log2(_BOUND) + ((rest + rest.T) / 2).max():
            first = potentials(weight)
            e = first + _lapack_exponents(_in_units(weight, first))
        e = e + _coupling_exponents(_in_units(weight, e))
        if np.ptp(e) + abs(_in_units(weight, e).max()) < room:
            out[k], reached[k] = e, _reachable(weight > -np.inf)
    return out, reached


def _reachable(entries: Array) -> Array:
    """Where powers of a matrix with these entries may have others."""
    paths = entries | np.eye(len(entries), dtype=bool)
    for _ in range(len(entries).bit_length()):
        paths = paths.astype(np.float32) @ paths.astype(np.float32) > 0
    return paths


def _in_units(weight: Array, e: Array) -> Array:
    return weight + (e[None, :] - e[:, None])


def _lapack_exponents(weight: Array) -> Array:
    """LAPACK's units of a matrix with these logarithms; what is out of its range beside the largest counts as the least in it."""
    within = np.exp2(np.maximum(weight - weight.max(), -1000.0))
    return _by_lapack(np.where(weight > -np.inf, within, 0.0)[None])[0]


def _coupling_exponents(weight: Array) -> Array:
    """Units for the blocks of a block triangular pattern in which what couples them is as large as they are.

    Balanced blocks leave their common units open. A coupling larger than the blocks makes the matrix look singular; one far
    smaller drowns in the rounding errors of the blocks, and with it what it becomes in the caller's units.
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
    # Longest paths to the last blocks: along each, the largest coupling of every block but the last is level.
    last = (coupling == -np.inf).all(axis=1)
    e = np.where(last, 0.0, -np.inf)
    for _ in range(count):
        e = np.where(last, 0.0, (coupling + e).max(axis=1))
    # And for the last ones, the largest that leads to them.
    reached = last & (coupling > -np.inf).any(axis=0)
    e = np.where(reached, (e[:, None] - coupling).min(axis=0), e)
    return np.round(e).astype(np.int32)[label]


def potentials(weight: Array) -> Array:
    """e for which no entry of 2^-e a 2^e is larger than the largest mean of the entries along a cycle, which no e changes.

    The means are geometric; with `weight` the logarithms of the entries this is Karp's largest cycle mean (1978) and Bellman
    and Ford's longest paths, at most n steps each, in whole numbers. Zero where there is no cycle: such a matrix is nilpotent
    by its pattern.
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
