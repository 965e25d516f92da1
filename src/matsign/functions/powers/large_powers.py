"""Large powers X^m and their derivatives by squarings, with exponents of their own that neither overflow nor underflow.

(X^m, L) of X and its change E:  a squaring takes (Y, L) to (Y², Y L + L Y), a product with X to (Y X, L X + Y E).
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import broadcast_scalar, scale_to_unit

# A power of two with a larger exponent overflows, or is zero, in every dtype.
LARGEST_EXPONENT = 1 << 20


class _Scaled(NamedTuple):
    """2^e x with the entries of x below 1."""

    x: Array
    e: Array

    @classmethod
    def of(cls, backend: Backend, x: Array, e: Array | int = 0) -> _Scaled:
        x, k = scale_to_unit(backend, x)
        return cls(x, clip_exponent(backend, k + e))

    def times(self, backend: Backend, other: _Scaled) -> _Scaled:
        return self.of(backend, self.x @ other.x, self.e + other.e)

    def plus(self, backend: Backend, other: _Scaled) -> _Scaled:
        top = backend.xp.maximum(self.e, other.e)
        x, y = (backend.ldexp(z.x, broadcast_scalar(z.e - top)) for z in (self, other))
        return self.of(backend, x + y, top)

    def value(self, backend: Backend) -> Array:
        return backend.ldexp(self.x, broadcast_scalar(self.e))


def clip_exponent(backend: Backend, e: Array) -> Array:
    return backend.xp.minimum(backend.xp.maximum(e, 0 * e - LARGEST_EXPONENT), 0 * e + LARGEST_EXPONENT)


def integer_power(backend: Backend, x: Array, m: int) -> Array:
    """x^m for m ≥ 1."""
    base = power = _Scaled.of(backend, x)
    for digit in f"{m:b}"[1:]:
        power = power.times(backend, power)
        power = power.times(backend, base) if digit == "1" else power
    return power.value(backend)


def integer_power_derivative(backend: Backend, x: Array, change: Array, m: int) -> Array:
    """The derivative of x^m, m ≥ 1, along a change of x."""
    base = power = _Scaled.of(backend, x)
    direction = slope = _Scaled.of(backend, change)
    for digit in f"{m:b}"[1:]:
        slope = power.times(backend, slope).plus(backend, slope.times(backend, power))
        power = power.times(backend, power)
        if digit == "1":
            slope = slope.times(backend, base).plus(backend, power.times(backend, direction))
            power = power.times(backend, base)
    return slope.value(backend)
