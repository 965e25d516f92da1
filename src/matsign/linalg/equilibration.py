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
from matsign.linalg.stacks import EXPONENT_OF_ZERO, broadcast_scalar, entry_exponents, scale_to_unit

_SWEEPS = 3
# Rows, and columns, whose exponents differ by no more than this are left as they are.
_EVEN = 8


def equilibrating_exponents(backend: Backend, *exponents: Array) -> tuple[Array, Array]:
    """(r, s), integers (B, n): the entries of 2^-(rᵢ + sⱼ) x are at most 1 for each x with one of these `entry_exponents`.

    The members that are even already have one unit, in r. Sums of exponents do not overflow or underflow as the numbers would.
    """
    e = functools.reduce(backend.xp.maximum, exponents)
    size = _largest_of(backend, _largest_of(backend, e, -1), -1)[..., None]
    e = e - size[..., None]
    rows, columns = (_largest_of(backend, e, axis) for axis in (-1, -2))

    def equilibrate(rows: Array, columns: Array, e: Array) -> tuple[Array, Array]:
        columns = 0 * columns
        for sweep in range(_SWEEPS):
            columns = columns + _largest_of(backend, e - rows[..., :, None] - columns[..., None, :], -2)
            if sweep < _SWEEPS - 1:
                rows = rows + _largest_of(backend, e - rows[..., :, None] - columns[..., None, :], -1)
        return rows, columns

    rows, columns = backend.rare_cond(
        (_spread(backend, rows) > _EVEN) | (_spread(backend, columns) > _EVEN),
        equilibrate,
        lambda rows, columns, *_: (0 * rows, 0 * columns),
        *(rows, columns, e),
    )
    return rows + size, columns


def equilibrate(backend: Backend, a: Array, c: Array, of_a: Array, of_c: Array) -> tuple[Array, Array, Array, Array]:
    """(2^-(of_a + rᵢ + sⱼ) a, 2^-(of_c + rᵢ + sⱼ) c, r, s) with exponents r and s for rows and columns of both."""
    pairs = [(x, broadcast_scalar(k)) for x, k in ((a, of_a), (c, of_c))]
    rows, columns = equilibrating_exponents(backend, *(entry_exponents(backend, x) - k for x, k in pairs))
    outer = rows[..., :, None] + columns[..., None, :]
    a, c = (backend.exact_ldexp(x, -(k + outer)) for x, k in pairs)
    return a, c, rows, columns


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


def _largest_of(backend: Backend, e: Array, axis: int) -> Array:
    """The largest exponents; 0 for zeros."""
    top = backend.xp.max(e, axis=axis)
    return backend.xp.where(top > EXPONENT_OF_ZERO // 2, top, 0 * top)


def _spread(backend: Backend, e: Array) -> Array:
    return backend.xp.max(e, axis=-1) - backend.xp.min(e, axis=-1)
