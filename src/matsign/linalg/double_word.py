"""Products and sums of matrices in nearly twice the working precision, from exact products in working precision.

They compute residuals that are smaller than the rounding errors of their terms. Each matrix is split into slices of so few bits
that products of slices are exact (Ozaki, Ogita, Oishi & Rump 2012); error-free addition (Knuth 1969) sums them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import adjoint, assemble


class DoubleWord(NamedTuple):
    """The unevaluated sum high + low, |low| at most the rounding error of high; a low of None is zero."""

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
    # Where the high parts cancel, low may be as large as high: normalise.
    total = high + low
    return DoubleWord(total, low - (total - high))


def dw_neg(x: DoubleWord) -> DoubleWord:
    return times(-1.0, x)


def times(s: Any, x: DoubleWord) -> DoubleWord:
    """s x, exact for s = ±2^k."""
    return _each(lambda part: s * part, x)


def dw_adjoint(x: DoubleWord) -> DoubleWord:
    return _each(adjoint, x)


def collapse(x: DoubleWord) -> Array:
    """x in working precision."""
    return x.high if x.low is None else x.high + x.low


def dw_product(backend: Backend, x: DoubleWord, y: DoubleWord) -> DoubleWord:
    """x y of real or complex matrices."""
    if not backend.is_complex(x.high):
        return _product(backend, x, y)
    # [[re x, -im x], [im x, re x]] [re y; im y] = [re xy; im xy].
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
    """Exact products of the leading slices, and the remaining terms in working precision."""
    digits = -round(math.log2(backend.eps(x.high))) + 1
    # The sum of n products of two slices of digits - shift bits fits one significand.
    shift = digits - (digits - math.ceil(math.log2(x.high.shape[-1] + 1))) // 2
    a, a_rest = _split_bits(backend, x.high, -1, shift)
    b, b_rest = _split_bits(backend, y.high, -2, shift)
    a_next, a_last = _split_bits(backend, a_rest, -1, shift)
    b_next, b_last = _split_bits(backend, b_rest, -2, shift)
    rest = backend.addmm(1.0, backend.addmm(1.0, a @ b_last, 1.0, a_next, b_rest), 1.0, a_last, y.high)
    if x.low is not None:
        rest = backend.addmm(1.0, rest, 1.0, x.low, y.high)
    if y.low is not None:
        rest = backend.addmm(1.0, rest, 1.0, x.high, y.low)
    # Add the small terms first.
    return dw_add(
        from_double(a @ b), dw_add(from_double(a @ b_next), dw_add(from_double(a_next @ b), from_double(rest)))
    )


def _split_bits(backend: Backend, x: Array, axis: int, shift: int) -> tuple[Array, Array]:
    """(high, rest), x = high + rest: high has few bits below the largest entry of each row (or column) of x."""
    top = backend.xp.max(backend.xp.abs(x), axis=axis, keepdims=True)
    # Adding and subtracting a large power of two rounds x to a multiple of that power's unit in the last place.
    large = backend.ldexp(backend.xp.ones_like(top), backend.exponent(top) + shift)
    high = (x + large) - large
    return high, x - high
