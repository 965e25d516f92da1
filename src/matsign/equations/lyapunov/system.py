"""Models ẋ = a x + b u, y = c x or e ẋ = a x + b u in balanced units, and factors of their Gramians."""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array
from matsign.iterations.smith_factored import Factors


class System(NamedTuple):
    """ẋ = a x + b u, y = c x in units in which a is balanced and the largest entries are near 1.

    In the caller's units the states are 2^e times these; b is 2^b_scale times larger, c 2^c_scale times, and a 4^half times.
    With a `descriptor` these are the scales of e⁻¹ a and e⁻¹ b; its rows have units 2^rows of their own.
    """

    a: Array
    b: Array
    c: Array
    e: Array
    b_scale: Array
    c_scale: Array
    half: Array
    descriptor: Array | None = None
    rows: Array | None = None


class Gramians(NamedTuple):
    """Factors of the controllability Gramian z zᴴ and the observability Gramian y yᴴ of a `System`."""

    z: Array
    y: Array
    steps: Array
    failure: Array
    detail: Array | None = None  # the number of the failure's text


class ScaledFactor(NamedTuple):
    """A factor z of the Gramian of a model in units; the factor in the caller's units is 2^(e + scale) z."""

    factors: Factors
    e: Array
    scale: Array
    failure: Array
    detail: Array | None = None

    @property
    def z(self) -> Array:
        return self.factors.z[0]
