"""z^t and log z of numbers given by their logarithms, and the divided differences of both.

With z = e^l the branch of a function is that of l: those of numbers on the negative real axis have the imaginary part π. The
difference of two numbers is z - w = 2 e^{(l+m)/2} sinh d for d = (l - m)/2, so that

    (z^t - w^t) / (z - w) = e^{(t-1)(l+m)/2} sinh(t d) / sinh d,
    (log z - log w) / (z - w) = e^{-(l+m)/2} d / sinh d,

without cancellation where z is near w; for z = w the last factor of each is its limit.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.backends.constants import constant_when_compiled


class Exponent(NamedTuple):
    """The function z^t with t = high + low, or the logarithm for `high` None.

    Half of the digits of t are in `high`, so that its product with an integer exponent is exact.
    """

    high: float | None
    low: float = 0.0

    @property
    def value(self) -> float:
        assert self.high is not None
        return self.high + self.low

    @property
    def is_logarithm(self) -> bool:
        return self.high is None

    @property
    def is_integer(self) -> bool:
        return self.high is not None and self.value == round(self.value) and self.low == round(self.low)


LOGARITHM = Exponent(None)

# Digits of t in `Exponent.high`: products with exponents of at most 11 bits are then exact in single precision.
_HIGH_BITS = 12


@constant_when_compiled
@functools.lru_cache(maxsize=1024)
def exponent(numerator: float | Fraction, denominator: int = 1) -> Exponent:
    """The power numerator / denominator, to twice the digits of a double."""
    t = Fraction(numerator) / denominator
    mantissa, k = math.frexp(float(t))
    high = math.ldexp(round(math.ldexp(mantissa, _HIGH_BITS)), k - _HIGH_BITS)
    return Exponent(high, float(t - Fraction(high)))


def scalar_function(backend: Backend, logarithms: Array, power: Exponent) -> Array:
    """f(e^l): e^{t l}, or l itself for the logarithm."""
    return logarithms if power.is_logarithm else backend.xp.exp(power.value * logarithms)


def divided_difference(backend: Backend, left: Array, right: Array, power: Exponent) -> Array:
    """(f(z) - f(w)) / (z - w) for z = e^left and w = e^right, f'(z) where they are equal."""
    xp = backend.xp
    mean, d = (left + right) / 2, (left - right) / 2
    equal = d == 0
    one = xp.ones_like(d)
    safe = xp.where(equal, one, d)
    if power.is_logarithm:
        return xp.exp(-mean) * xp.where(equal, one, safe / xp.sinh(safe))
    t = power.value
    return xp.exp((t - 1) * mean) * xp.where(equal, t * one, xp.sinh(t * safe) / xp.sinh(safe))
