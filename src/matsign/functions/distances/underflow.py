"""Errors of numbers that underflow: a number below those of its dtype has an infinite relative error, a denormal one its unit."""

from __future__ import annotations

import math

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.public import Residual


def with_underflow(backend: Backend, measured: Residual, value: Array, nonzero: Array) -> Residual:
    """The residual of a number, `nonzero` being where the exact number is not 0."""
    xp, lost = backend.xp, (value == 0) & nonzero
    smallest = 2.0**-1074 if backend.eps(value) < 1e-10 else 2.0**-149
    (correction,) = measured.correction
    correction = xp.where(value > 0, xp.maximum(correction, smallest + 0 * correction), correction)
    return measured._replace(
        backward=xp.where(lost, xp.ones_like(measured.backward), measured.backward),
        correction=(xp.where(lost, math.inf + 0 * correction, correction),),
    )
