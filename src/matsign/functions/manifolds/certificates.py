"""Certificates of steps along manifolds: feasibility, and the duality gap by a second solution of the dual.

The correction is the difference to this solution, with the change that rounding errors of W and G cause.
"""

from __future__ import annotations

from collections.abc import Callable

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.functions.manifolds.derivatives import SPHERE, STIEFEL
from matsign.functions.manifolds.methods import Task, sphere_task, square_step, stiefel_task
from matsign.iterations.tangent_ascent import ascend, sharpen
from matsign.linalg.stacks import adjoint, inner, safe_divisor, to_double

MEASURES = ("duality_gap", "tangency", "overshoot")
# The second solution has this gap, if it is reached.
_SMALLER_GAP = 1e-10


def stiefel_residual(backend: Backend, value: Arrays, w: Array, g: Array) -> Residual:
    return _residual(backend, stiefel_task, STIEFEL.rounding, value, w, g)


def sphere_residual(backend: Backend, value: Arrays, w: Array, g: Array) -> Residual:
    return _residual(backend, sphere_task, SPHERE.rounding, value, w, g)


def _residual(
    backend: Backend,
    task_of: Callable[..., Task],
    rounding: Callable[..., Array],
    value: Arrays,
    w: Array,
    g: Array,
) -> Residual:
    if w.shape[-2] < w.shape[-1]:
        wide = _residual(backend, task_of, rounding, (adjoint(value[0]), value[1]), adjoint(w), adjoint(g))
        return wide._replace(correction=(adjoint(wide.correction[0]), wide.correction[1]))
    task, a = task_of(backend, w, g), to_double(backend, value[0])
    best, best_gap = _second_solution(backend, task)
    bound = inner(backend, task.g, best) / (1 - best_gap)
    lost = backend.xp.maximum(bound - inner(backend, task.g, a), 0 * bound)
    measures = (
        lost / safe_divisor(backend, bound),
        backend.norm(task.normals.restrict(backend, a)) / a.shape[-1] ** 0.5,
        backend.xp.maximum(backend.svd(a)[1][:, 0] - 1, 0 * bound),
    )
    backward = backend.xp.maximum(backend.xp.maximum(*measures[:2]), measures[2])
    return Residual(backward, (best - a + rounding(backend, w, g), 0 * value[1]), measures=measures)


def _second_solution(backend: Backend, task: Task) -> tuple[Array, Array]:
    if task.has_closed_form:
        return square_step(backend, task)
    found = sharpen(backend, ascend(backend, task.normals, task.g, _SMALLER_GAP))
    return found.step, found.gap
