"""Products and sums of matrices in nearly twice the working precision, from working-precision products that are exact.

A residual that is smaller than the rounding of its own terms says nothing. Cut into slices of few enough bits, matrices have
products without any rounding (Ozaki, Ogita, Oishi & Rump 2012), and sums that keep what they round off (Knuth 1969) add them up.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from matsign.backends import Backend
from matsign.engine.blocks import assemble
from matsign.engine.linear import adjoint

Array = Any


class Twice(NamedTuple):
    """The unevaluated sum high + low, low below the rounding of high."""

    high: Array
    low: Array


def twice(x: Array) -> Twice:
    """x itself."""
    return Twice(x, 0 * x)


def plus(x: Twice, y: Twice) -> Twice:
    """x + y."""
    high = x.high + y.high
    back = high - x.high
    low = (x.high - (high - back)) + (y.high - back) + (x.low + y.low)
    # Where the high parts cancel, what they had lost is as large as what is left.
    total = high + low
    return Twice(total, low - (total - high))


def minus(x: Twice) -> Twice:
    return Twice(-x.high, -x.low)


def adjoint_of(x: Twice) -> Twice:
    return Twice(adjoint(x.high), adjoint(x.low))


def product(be: Backend, x: Twice, y: Twice) -> Twice:
    """x y of real or complex matrices."""
    if not be.is_complex(x.high):
        return _product(be, x, y)
    # [[re, -im], [im, re]] of x acts on [re; im] of y as x on y.
    n = x.high.shape[-2]
    z = _product(be, Twice(*(_acting(be, m) for m in x)), Twice(*(_stacked(be, m) for m in y)))
    return Twice(*(m[:, :n] + 1j * m[:, n:] for m in z))


def _acting(be: Backend, m: Array) -> Array:
    re, im = be.real(m), be.imag(m)
    return assemble(be, re, -im, im, re)


def _stacked(be: Backend, m: Array) -> Array:
    return be.xp.concat([be.real(m), be.imag(m)], axis=-2)


def _product(be: Backend, x: Twice, y: Twice) -> Twice:
    digits = -round(math.log2(be.eps(x.high))) + 1
    # Two slices of this many bits, multiplied and summed, fill the digits of one number.
    bits = (digits - math.ceil(math.log2(x.high.shape[-1] + 1))) // 2
    count = math.ceil(digits / bits) + 1  # one more, for rows and columns of graded entries
    left, right = _slices(be, x.high, -1, digits - bits, count), _slices(be, y.high, -2, digits - bits, count)
    total = twice(x.low @ y.high + x.high @ y.low)
    for place in range(count - 1, -1, -1):  # the small ones first
        for i in range(place + 1):
            total = plus(twice(left[i] @ right[place - i]), total)
    return total


def _slices(be: Backend, x: Array, axis: int, shift: int, count: int) -> list[Array]:
    """x as a sum of matrices, each with few bits below the largest entry of its row (or column)."""
    xp, out = be.xp, []
    for _ in range(count - 1):
        top = xp.max(xp.abs(x), axis=axis, keepdims=True)
        # Adding and subtracting a large power of two rounds to a multiple of its last digit.
        large = be.ldexp(xp.ones_like(top), be.exponent(top) + shift)
        high = (x + large) - large
        out.append(high)
        x = x - high
    return [*out, x]
