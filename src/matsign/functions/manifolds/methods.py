"""Solvers for the steps along the Stiefel manifold and the spectral sphere, by ascent along the tangents (`tangent_ascent`)."""

from __future__ import annotations

from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.core.tolerances import working_precision
from matsign.iterations.tangent_ascent import Ascent, SphereNormals, StiefelNormals, ascend, sharpen, tangent_part
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, inner, safe_divisor, scale_to_unit, to_double

# The largest ‖WᴴW - I‖ at which W still counts as orthonormal up to rounding of its entries; the step is that at msign(W).
ORTHONORMAL = 1e-2
# The default of `gap`, in double and in single precision.
_GAP, _GAP_SINGLE = 1e-8, 1e-4


class Task(NamedTuple):
    """The normals at a tall W, the tangent part of G, and the number that an error about W names."""

    normals: Any
    g: Array
    number: Array

    @property
    def has_closed_form(self) -> bool:
        """Whether the step is that of a square W on the Stiefel manifold."""
        return isinstance(self.normals, StiefelNormals) and self.g.shape[-2] == self.g.shape[-1]


class TopVectors(NamedTuple):
    """W = U S Vᴴ with a mask, 1 for the copies of the largest singular value, else 0."""

    u: Array
    values: Array
    vh: Array
    top: Array

    @property
    def count(self) -> Array:
        return self.top.sum(-1)

    def theta(self) -> Array:
        """The mean of the products uᵢvᵢᴴ."""
        return ((self.u * self.top[:, None, :]) @ self.vh) / broadcast_scalar(self.count)


def stiefel_task(backend: Backend, w: Array, g: Array) -> Task:
    """The task at msign(W), with G scaled; its number is the distance ‖WᴴW - I‖."""
    noise = working_precision(backend, g)
    w, (g, _) = to_double(backend, w), scale_to_unit(backend, to_double(backend, g))
    u, _, vh = backend.svd(w)
    normals = StiefelNormals(u @ vh)
    return Task(normals, _tangent_gradient(backend, normals, g, noise), backend.norm(adjoint(w) @ w - eye(backend, w)))


def sphere_task(backend: Backend, w: Array, g: Array) -> Task:
    """The task at W, with G scaled; its number is the largest singular value of the scaled W."""
    noise, at = working_precision(backend, g), top_vectors(backend, w)
    g, _ = scale_to_unit(backend, to_double(backend, g))
    normals = SphereNormals(at.theta())
    return Task(normals, _tangent_gradient(backend, normals, g, noise), at.values[:, 0])


def top_vectors(backend: Backend, w: Array) -> TopVectors:
    """The singular vectors of the scaled W."""
    equal = working_precision(backend, w)
    u, values, vh = backend.svd(scale_to_unit(backend, to_double(backend, w))[0])
    top = values >= (1 - equal) * values[:, :1]
    return TopVectors(u, values, vh, backend.astype(top, backend.dtype_name(values)))


def _tangent_gradient(backend: Backend, normals: Any, g: Array, noise: float) -> Array:
    """The tangent nearest to G, which has the same step; 0 where no more than rounding errors of G are left."""
    tangent = tangent_part(backend, normals, g)
    rounding = ~(backend.norm(tangent) > noise * backend.norm(g))
    return backend.xp.where(broadcast_scalar(rounding), 0 * tangent, tangent)


def solve_stiefel(backend: Backend, w: Array, g: Array, *, gap: float | None) -> Solution:
    if w.shape[-2] < w.shape[-1]:
        return _adjoint_step(solve_stiefel(backend, adjoint(w), adjoint(g), gap=gap))
    task = stiefel_task(backend, w, g)
    if w.shape[-2] == w.shape[-1]:
        result = _solution(backend, g, *square_step(backend, task))
    else:
        result = _by_ascent(backend, task, g, gap)
    failure = Failure.NOT_ORTHONORMAL.where(backend, ~(task.number <= ORTHONORMAL), result.failure)
    return result._replace(failure=failure, detail=_detail(backend, result, failure, task.number))


def solve_sphere(backend: Backend, w: Array, g: Array, *, gap: float | None) -> Solution:
    if w.shape[-2] < w.shape[-1]:
        return _adjoint_step(solve_sphere(backend, adjoint(w), adjoint(g), gap=gap))
    task = sphere_task(backend, w, g)
    result = _by_ascent(backend, task, g, gap)
    failure = Failure.ZERO_WEIGHT.where(backend, task.number == 0, result.failure)
    return result._replace(failure=failure, detail=_detail(backend, result, failure, task.number))


def _adjoint_step(result: Solution) -> Solution:
    return result._replace(value=(adjoint(result.value[0]), *result.value[1:]))


def square_step(backend: Backend, task: Task) -> tuple[Array, Array]:
    """The step for a square W, W times the msign of the skew-Hermitian WᴴG, and its gap."""
    w, g = task.normals.w, task.g
    k = adjoint(w) @ g
    u, values, vh = backend.svd((k - adjoint(k)) / 2)
    kept = values > k.shape[-1] * backend.eps(k) * values[:, :1]
    omega = (u * kept[:, None, :]) @ vh
    step = w @ ((omega - adjoint(omega)) / 2)
    bound = backend.xp.sum(values, axis=-1)
    step = step / broadcast_scalar(backend.xp.maximum(backend.svd(step)[1][:, 0], 1 + 0 * bound))
    lost = backend.xp.maximum(bound - inner(backend, g, step), 0 * bound)
    return step, lost / safe_divisor(backend, bound)


def stated_gap(backend: Backend, g: Array) -> float:
    """The default of `gap`."""
    return _GAP if backend.eps(g) < 1e-10 else _GAP_SINGLE


def ascent(backend: Backend, task: Task, gap: float | None) -> tuple[Ascent, float]:
    """The best step by ascent, and the gap that it must have; without a stated gap as near to 0 as it gets."""
    stated = stated_gap(backend, task.g) if gap is None else gap
    found = ascend(backend, task.normals, task.g, stated)
    return (sharpen(backend, found) if gap is None else found), stated


def _by_ascent(backend: Backend, task: Task, g: Array, gap: float | None) -> Solution:
    long, short = g.shape[-2:]
    basis = None
    if isinstance(task.normals, StiefelNormals) and long > 2 * short:  # the step has the columns of W and G
        basis = backend.xp.linalg.qr(backend.xp.concat([task.normals.w, task.g], axis=-1))[0]
        task = task._replace(normals=StiefelNormals(adjoint(basis) @ task.normals.w), g=adjoint(basis) @ task.g)
    found, wanted = ascent(backend, task, gap)
    step = found.step if basis is None else basis @ found.step
    return _solution(backend, g, step, found.gap, ~(found.gap <= wanted), found.count)


def _solution(
    backend: Backend, g: Array, step: Array, gap: Array, failed: Array | None = None, count: Array | None = None
) -> Solution:
    value = backend.astype(step, backend.dtype_name(g)), backend.astype(gap, backend.dtype_name(g.real))
    return solution(backend, value, Failure.DUALITY_GAP, failed, count, gap)


def _detail(backend: Backend, result: Solution, failure: Array, number: Array) -> Array:
    """The details, with a number where the failure is not that of the gap."""
    of_gap = (failure == 0) | (failure == int(Failure.DUALITY_GAP))
    number = backend.astype(number, backend.dtype_name(result.detail))
    zeros = backend.xp.stack([number, 0 * number], axis=-1)
    return backend.xp.where(of_gap[:, None], result.detail, zeros)
