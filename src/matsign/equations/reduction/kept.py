"""Models with poles that are not stable: the part of these poles is kept, the rest is reduced.

With the projector P on the invariant subspace of the poles that are kept (`direct.spectral_split`), a model is the sum of a
stable one and one that has these poles alone. Neither changes its size here: the stable one has the matrices

    a - P a - μ P,    (I - P) b,    c (I - P),

whose additional poles -μ are neither controllable nor observable (μ = 0 in discrete time). With the unit vectors C and R of a
split, the kept part has the bases v = P C and lᴴ = (Rᵀ P C)⁻¹ Rᵀ P, lᴴ v = I.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.direct import spectral_split
from matsign.equations.reduction.times import Time
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye


class Kept(NamedTuple):
    """The split of a stack of models (`direct.spectral_split.Split`); members without kept poles have P = 0."""

    projector: Array
    columns: Array
    rows: Array
    line: Array

    @property
    def count(self) -> Array:
        """The number of poles that are kept."""
        return self.columns.real.sum((-1, -2))

    def any_in(self, backend: Backend) -> bool:
        """Whether some member may keep poles."""
        return backend.is_traced(self.columns) or backend.any_true(self.columns != 0)


class Bases(NamedTuple):
    """l and v with as many columns as the reduced model has states, and the matrix (Rᵀ P C)⁻¹."""

    left: Array
    right: Array
    inverse: Array


def nothing_kept(backend: Backend, time: Time, a: Array) -> Kept:
    zeros = 0 * a
    return Kept(zeros, zeros, zeros, time.steady + 0 * a[:, 0, 0].real)


def split(backend: Backend, time: Time, a: Array) -> Kept:
    f = spectral_split.outside_circle if time.steady else spectral_split.right_of_axis
    like = spectral_split.Split(a, a, a, backend.ones(a))
    return Kept(*backend.host_callback(f, like, a))


def positions(backend: Backend, like: Array, count: int) -> Array:
    """0, 1, …, as a vector of real numbers."""
    return (backend.zeros((count,), like.real) + 1).cumsum(0) - 1


def first_columns(backend: Backend, kept: Kept, order: int) -> Array:
    """The mask (B, order) of the columns of the kept part in a reduced model."""
    return positions(backend, kept.columns, order)[None, :] + 0.5 < kept.count[:, None]


def placing(backend: Backend, kept: Kept, order: int) -> Array:
    """The real matrix (B, n, order) of 0 and 1 that moves columns to the right, behind those of the kept part."""
    like = kept.columns
    rows, columns = positions(backend, like, like.shape[-1]), positions(backend, like, order)
    distance = columns[None, None, :] - rows[None, :, None] - kept.count[:, None, None]
    return backend.astype(backend.xp.abs(distance) < 0.5, backend.dtype_name(like.real))


def size_of_pole(backend: Backend, time: Time, a: Array) -> Array:
    """μ, (B, 1, 1)."""
    size = backend.stop_gradient(backend.norm(a))
    return broadcast_scalar(0 * size if time.steady else backend.xp.where(size > 0, size, 1 + 0 * size))


def stable_model(backend: Backend, time: Time, kept: Kept, a: Array, b: Array, c: Array) -> Arrays:
    p = kept.projector
    return a - p @ a - size_of_pole(backend, time, a) * p, b - p @ b, c - c @ p


def bases(backend: Backend, kept: Kept, order: int, invert: Callable[[Array], Array]) -> Bases:
    columns, rows = kept.columns, adjoint(kept.rows)
    unused = eye(backend, columns) * (1 - columns.sum(-2))[:, None, :]
    inverse_core = invert(rows @ kept.projector @ columns + unused)
    left, right = adjoint(inverse_core @ rows @ kept.projector), kept.projector @ columns
    return Bases(left[:, :, :order], right[:, :, :order], inverse_core)
