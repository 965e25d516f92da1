"""Equilibration: units of the rows and columns of a pencil (a, c), powers of 2, in which they have similar largest entries.

Unlike balancing it is no similarity: rows and columns have units of their own, as equations and unknowns have. Powers of 2 cause
no rounding.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import broadcast_scalar, scale_to_unit

_SWEEPS = 3
# Rows, and columns, whose exponents differ by no more than this are left as they are.
_EVEN = 8


def equilibrating_exponents(backend: Backend, a: Array, c: Array) -> tuple[Array, Array]:
    """(r, s), integers (B, n): 2^-(rᵢ + sⱼ) aᵢⱼ and the same for c; zeros for members that are even already.

    The entries of a and c are at most 1.
    """
    sizes = _moduli(backend, a, c)
    rows, columns = (_exponents(backend, sizes, axis) for axis in (-1, -2))

    def equilibrate(rows: Array, columns: Array, *sizes: Array) -> tuple[Array, Array]:
        columns = 0 * columns
        for sweep in range(_SWEEPS):
            columns = columns + _exponents(backend, [rescale(backend, x, rows, columns) for x in sizes], -2)
            if sweep < _SWEEPS - 1:
                rows = rows + _exponents(backend, [rescale(backend, x, rows, columns) for x in sizes], -1)
        return rows, columns

    result: tuple[Array, Array] = backend.rare_cond(
        (_spread(backend, rows) > _EVEN) | (_spread(backend, columns) > _EVEN),
        equilibrate,
        lambda rows, columns, *_: (0 * rows, 0 * columns),
        *(rows, columns, *sizes),
    )
    return result


def scale_to_representable(backend: Backend, *matrices: Array) -> tuple[Any, ...]:
    """``(*scaled, k)``: times 2^-k, as by `scale_to_unit` where no entry underflows, else so that the smallest one does not.

    Entries from 1e-200 to 1e200, as of rows and columns in units of 1e±100, have no common unit until they are equilibrated.
    """
    xp, sizes = backend.xp, _moduli(backend, *matrices)
    least = functools.reduce(xp.minimum, [xp.min(xp.where(y > 0, y, math.inf), axis=(-2, -1)) for y in sizes])
    *_, k = scale_to_unit(backend, *matrices)
    some = xp.isfinite(least)
    limit = backend.exponent(xp.where(some, least, 1 + 0 * least)) + _range(backend, matrices[0])
    k = xp.where(some, xp.minimum(k, limit), k)
    return (*(backend.exact_ldexp(x, broadcast_scalar(-k)) for x in matrices), k)


def _range(backend: Backend, x: Array) -> int:
    """An exponent k for which 2^-k has all its digits."""
    return 1000 if backend.eps(x) < 1e-10 else 120


def rescale(backend: Backend, a: Array, rows: Array, columns: Array) -> Array:
    """2^-(rowsᵢ + columnsⱼ) aᵢⱼ."""
    return backend.ldexp(a, -(rows[..., :, None] + columns[..., None, :]))


def _moduli(backend: Backend, *matrices: Array) -> list[Array]:
    """The moduli of the entries, of real and imaginary parts by themselves: a modulus could overflow."""
    parts: list[Array] = []
    for x in matrices:
        parts += [x.real, x.imag] if backend.is_complex(x) else [x]
    return [backend.xp.abs(x) for x in parts]


def _exponents(backend: Backend, sizes: list[Array] | tuple[Array, ...], axis: int) -> Array:
    """The exponents of the largest entries; 0 for zero."""
    tops = [backend.xp.max(x, axis=axis) for x in sizes]
    return backend.exponent(functools.reduce(backend.xp.maximum, tops))


def _spread(backend: Backend, e: Array) -> Array:
    return backend.xp.max(e, axis=-1) - backend.xp.min(e, axis=-1)
