"""Products and sums of matrices in nearly twice the working precision, from working-precision products that are exact.

A residual that is smaller than the rounding of its own terms says nothing. Cut into slices of few enough bits, matrices have
products without any rounding (Ozaki, Ogita, Oishi & Rump 2012), and sums that keep what they round off (Knuth 1969) add them up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import adjoint, assemble


class DoubleWord(NamedTuple):
    """The unevaluated sum high + low, low below the rounding of high; None where it is zero."""

    high: Array
    low: Array | None


def from_double(x: Array) -> DoubleWord:
    """x itself."""
    return DoubleWord(x, None)


def dw_add(x: DoubleWord, y: DoubleWord) -> DoubleWord:
    """x + y."""
    high = x.high + y.high
    back = high - x.high
    low = (x.high - (high - back)) + (y.high - back)
    if x.low is None and y.low is None:
        return DoubleWord(high, low)
    low = low + (y.low if x.low is None else x.low if y.low is None else x.low + y.low)
    # Where the high parts cancel, what they had lost is as large as what is left.
    total = high + low
    return DoubleWord(total, low - (total - high))


def dw_neg(x: DoubleWord) -> DoubleWord:
    return times(-1.0, x)


def times(s: Any, x: DoubleWord) -> DoubleWord:
    """x times powers of two, or -1."""
    return _each(lambda part: s * part, x)


def dw_adjoint(x: DoubleWord) -> DoubleWord:
    return _each(adjoint, x)


def collapsed(x: DoubleWord) -> Array:
    """x in working precision."""
    return x.high if x.low is None else x.high + x.low


def dw_product(backend: Backend, x: DoubleWord, y: DoubleWord) -> DoubleWord:
    """x y of real or complex matrices."""
    if not backend.is_complex(x.high):
        return _product(backend, x, y)
    # [[re, -im], [im, re]] of x acts on [re; im] of y as x on y.
    n = x.high.shape[-2]
    z = _product(backend, _each(lambda m: _real_form(backend, m), x), _each(lambda m: _real_stack(backend, m), y))
    return _each(lambda m: m[..., :n, :] + 1j * m[..., n:, :], z)


def _each(f: Callable[[Array], Array], x: DoubleWord) -> DoubleWord:
    return DoubleWord(f(x.high), None if x.low is None else f(x.low))


def _real_form(backend: Backend, m: Array) -> Array:
    re, im = m.real, m.imag
    return assemble(backend, re, -im, im, re)


def _real_stack(backend: Backend, m: Array) -> Array:
    return backend.xp.concat([m.real, m.imag], axis=-2)


def _product(backend: Backend, x: DoubleWord, y: DoubleWord) -> DoubleWord:
    """The products of the first two slices of each, without rounding, and what is left in working precision."""
    digits = -round(math.log2(backend.eps(x.high))) + 1
    # Two slices of this many bits, multiplied and summed, fill the digits of one number.
    shift = digits - (digits - math.ceil(math.log2(x.high.shape[-1] + 1))) // 2
    a, a_rest = _slice(backend, x.high, -1, shift)
    b, b_rest = _slice(backend, y.high, -2, shift)
    a_next, a_last = _slice(backend, a_rest, -1, shift)
    b_next, b_last = _slice(backend, b_rest, -2, shift)
    rest = backend.addmm(1.0, backend.addmm(1.0, a @ b_last, 1.0, a_next, b_rest), 1.0, a_last, y.high)
    if x.low is not None:
        rest = backend.addmm(1.0, rest, 1.0, x.low, y.high)
    if y.low is not None:
        rest = backend.addmm(1.0, rest, 1.0, x.high, y.low)
    # The small ones first.
    return dw_add(
        from_double(a @ b), dw_add(from_double(a @ b_next), dw_add(from_double(a_next @ b), from_double(rest)))
    )


def _slice(backend: Backend, x: Array, axis: int, shift: int) -> tuple[Array, Array]:
    """(high, rest): few bits below the largest entry of each row (or column) of x, and what is left."""
    top = backend.xp.max(backend.xp.abs(x), axis=axis, keepdims=True)
    # Adding and subtracting a large power of two rounds to a multiple of its last digit.
    large = backend.ldexp(backend.xp.ones_like(top), backend.exponent(top) + shift)
    high = (x + large) - large
    return high, x - high
