"""Plants that differ from a given one by rounding, or only in their units: with them the effect of rounding is measured."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from matsign._typing import Array
from matsign.backends import Backend
from matsign.equations.riccati.problem import RiccatiProblem


class Odd(NamedTuple):
    """A plant and its x in other units; entrywise, `gap` and `gain` times residual and gain there are those in p's units."""

    plant: RiccatiProblem
    x: Array
    gap: Array
    gain: Array


def in_odd_units(backend: Backend, p: RiccatiProblem, x: Array, draw: int) -> Odd:
    """The same equation in random units that are not powers of two, so that rounding errors differ everywhere."""
    n, m = p.b.shape[-2:]
    factors = np.random.default_rng(draw).uniform(1, 2, n + m + 1)
    units = backend.astype(backend.asarray(factors, x), backend.dtype_name(x.real))
    t, u, whole = units[:n], units[n : n + m], units[-1]
    u = u if p.r is not None else t / whole  # g keeps its two roles
    rows, columns = t[:, None], t[None, :]
    odd = RiccatiProblem(
        p.a * rows / columns,
        p.b * rows * u[None, :],
        p.q * whole / (rows * columns),
        None if p.r is None else p.r * whole * u[:, None] * u[None, :],
        None if p.e is None else p.e * rows / columns,
        None if p.s is None else p.s * whole * u[None, :] / rows,
    )
    return Odd(odd, x * whole / (rows * columns), rows * columns / whole, u[:, None] * columns)


def round_randomly(backend: Backend, p: RiccatiProblem) -> RiccatiProblem:
    """The plant with every entry changed by a relative ±eps, reproducibly; q and r stay Hermitian."""
    rounded = RiccatiProblem(*(None if x is None else round_by_one(backend, x, k) for k, x in enumerate(p)))
    return rounded.hermitian_parts()


def round_by_one(backend: Backend, x: Array, draw: int = 0) -> Array:
    """x with every entry times 1 ± eps, with fixed random signs."""
    factors = 1 + backend.eps(x) * np.random.default_rng(draw).choice((-1.0, 1.0), x.shape[-2:])
    return x * backend.astype(backend.asarray(factors, x), backend.dtype_name(x.real))
