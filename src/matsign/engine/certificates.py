"""A certificate beside every answer: how wrong it is, measured from the answer itself."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from matsign.backends import Backend
from matsign.engine.declare import HALVES, Answer, Call, Declaration, answer
from matsign.engine.linear import norm

Array = Any


class Certificate(NamedTuple):
    """How far an answer can be trusted, one entry per batch member (plain numbers for a single matrix).

    Attributes
    ----------
    backward_error : relative residual of the equation that the answer should satisfy
    forward_error : estimated relative error, the size of one correction step
    iterations : steps taken; 0 for a direct method
    converged : whether there is an answer
    """

    backward_error: Any
    forward_error: Any
    iterations: Any
    converged: Any


def certify(f: Callable[..., Any]) -> Callable[..., tuple[Any, Certificate]]:
    """``certify(f)(*args) = (f(*args), certificate)`` for every public function f, shaped like ``jax.value_and_grad``.

    The backward error is the relative residual. The forward error is estimated by the size of one correction step: the
    derivative of f in the direction of the residual, which costs one more Sylvester equation. It sees errors that the
    residual hides. With ``errors="nan"`` a member without an answer has NaN errors and ``converged`` False.

    Raises ``TypeError`` when `f` is not a function of this library.

    >>> import numpy as np, matsign
    >>> value, certificate = matsign.certify(matsign.mcsgn)(np.array([[1.0, 1e6], [0.0, -1.0]]))
    >>> value
    array([[ 1.e+00,  1.e+06],
           [ 0.e+00, -1.e+00]])
    >>> bool(certificate.converged), bool(certificate.backward_error < 1e-15)
    (True, True)
    """
    declaration = getattr(f, "declaration", None)
    if not isinstance(declaration, Declaration):
        raise TypeError(f"certify wants a function of matsign, got {f!r}")

    @functools.wraps(f)
    def certified(*args: Any, **kwargs: Any) -> tuple[Any, Certificate]:
        result = answer(declaration, args, kwargs)
        return result.public, _certificate(declaration, result)

    return certified


def _certificate(declaration: Declaration, result: Answer) -> Certificate:
    be, call, solution = result.call.be, result.call, result.solution
    xp = be.xp
    converged = solution.failure == 0
    with be.scoped(call.stacks[0]):
        if 0 in solution.failure.shape or 0 in call.sizes.values():
            backward = forward = be.real(xp.zeros(solution.failure.shape, dtype=call.stacks[0].dtype))
        else:
            # What has no answer has no residual either; zeros keep NaN away from LAPACK.
            kept = tuple(xp.where(converged[:, None, None], x, xp.zeros_like(x)) for x in solution.value)
            backward, forward = _errors(declaration, call, kept)
            nan = xp.full_like(backward, xp.nan)
            backward, forward = xp.where(converged, backward, nan), xp.where(converged, forward, nan)
        iterations = xp.astype(solution.iterations, xp.int32)
    return Certificate(*(_shaped(be, x, call.batch) for x in (backward, forward, iterations, converged)))


def _errors(declaration: Declaration, call: Call, value: tuple[Array, ...]) -> tuple[Array, Array]:
    """Backward error, and ‖correction‖ / ‖value‖ over all arrays of the value."""
    be = call.be
    if call.kind in HALVES:
        value = tuple(be.astype(be.astype(x, call.kind), be.kind(x)) for x in value)
    backward, correction = declaration.residual(be, value, *call.stacks)
    forward = 0 * backward
    for step, x in zip(correction, value, strict=True):
        size = norm(be, x)
        forward = be.xp.maximum(forward, norm(be, step) / be.xp.where(size > 0, size, be.ones(x)))
    return backward, forward


def _shaped(be: Backend, x: Array, batch: tuple[int, ...]) -> Any:
    if batch or be.traced(x):
        return x.reshape(batch)
    return x[0].item()
