"""Certificates: estimates of the error of an answer, computed from the answer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, ParamSpec

from matsign._typing import Array, Arrays, Result
from matsign.backends import CODES, Backend
from matsign.core.answer_operations import AnswerOperation
from matsign.core.members import mask_nonfinite
from matsign.core.objects import accept_models_of
from matsign.core.operations import split_numbers
from matsign.core.options import known_options
from matsign.core.public import Answer, FunctionSpec, Residual, answer, spec_of
from matsign.core.validation import HALVES
from matsign.linalg.stacks import broadcast_to_rank, largest, relative_norm

P = ParamSpec("P")


class Certificate(NamedTuple):
    """Hold what is known about the error of a result.

    The second result of a function made by `certify`. Each attribute has one entry for each member of the batch, or is
    a plain number for a single matrix.

    Attributes
    ----------
    backward_error : array (...)
        The Frobenius norm of the residual of the equation that the result should satisfy, divided by the sum of the
        Frobenius norms of the terms of this equation, each term as it is evaluated. The documentation of each function
        says which equation this is.
    forward_error : array (...)
        Estimated relative error: the norm of one correction step divided by the norm of the result (for a result of 0,
        by a norm that the function chooses). It is infinite where the estimate cannot be computed, and NaN only where
        there is no result.
    iterations : array of int (...)
        Number of steps; 0 for a direct method.
    converged : array of bool (...)
        Whether there is a result.
    separation : array (...)
        For an equation, an estimate of the smallest ‖L(y)‖ / ‖y‖ of its linear operator L (or of its linearisation at
        the result). Rounding in the data moves the result by about the size of the rounding divided by the separation.
        NaN where there is none.
    boundary : array of bool (...)
        Whether the result is a limit of solutions: some eigenvalues lie on the imaginary axis or the unit
        circle, the boundary of stability.
    measures : dict of str to array
        Further quantities, by name; the documentation of each function says which.

    See Also
    --------
    certify : Make a function that returns a certificate.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import certify, solve_sylvester
    >>> a, b, q = np.array([[3.0, 1.0], [0.0, 2.0]]), np.array([[1.0]]), np.array([[4.0], [6.0]])
    >>> x, certificate = certify(solve_sylvester)(a, b, q)
    >>> bool(certificate.converged), bool(certificate.boundary), bool(certificate.separation > 2)
    (True, False, True)
    >>> bool(np.linalg.norm(a @ x + x @ b - q) < 1e-14), bool(certificate.backward_error < 1e-15)
    (True, True)
    """

    # Arrays for a batch, Python numbers for a single matrix: which of them, the types of the arguments do not say.
    backward_error: Any
    forward_error: Any
    iterations: Any
    converged: Any
    separation: Any
    boundary: Any
    measures: dict[str, Any]


def certify(f: Callable[P, Result]) -> Callable[P, tuple[Result, Certificate]]:
    """Return a function that also returns a certificate.

    ``certify(f)(*args, **options)`` is the pair ``(f(*args, **options), certificate)``. The `Certificate` measures the
    error of the result from the result itself.

    Parameters
    ----------
    f : callable
        A function of this library that returns arrays, such as `mcsgn` or `solve_sylvester`.

    Returns
    -------
    certified : callable
        A function with the arguments and options of ``f``, which returns the result of ``f`` and a `Certificate`.

    Raises
    ------
    TypeError
        If ``f`` is not such a function.

    See Also
    --------
    Certificate : What a certificate holds.
    condition : How much relative errors grow.

    Notes
    -----
    The backward error is the relative residual of the equation that belongs to ``f``. The forward error is estimated by
    the size of one correction step: the derivative of ``f`` in the direction of the residual, which costs one more
    Sylvester equation. It detects errors that are large although the residual is small. To first order, `condition`
    times the backward error is an upper bound of it, often far too large.

    With ``errors="nan"`` a member of a batch without a result has NaN errors and ``converged`` False. The function can
    be used inside ``jax.jit``.

    Examples
    --------
    >>> import numpy as np, matsign
    >>> value, certificate = matsign.certify(matsign.mcsgn)(np.array([[1.0, 1e6], [0.0, -1.0]]))
    >>> value
    array([[ 1.e+00,  1.e+06],
           [ 0.e+00, -1.e+00]])
    >>> bool(certificate.converged), bool(certificate.backward_error < 1e-15)
    (True, True)
    """
    spec = spec_of(f, "certify needs a function of matsign")
    numbers = len(Certificate._fields) - 1 + len(spec.measures)

    @functools.wraps(f, updated=())
    def with_certificate(*args: P.args, **kwargs: P.kwargs) -> tuple[Result, Certificate]:
        arrays, errors, options = spec.bind(args, kwargs)
        both: Any = spec.by_adapter(arrays, errors, options, certify, spec.operation.results + ((),) * numbers)
        if both is not NotImplemented:
            return both
        result = answer(spec, arrays, errors, options)
        return result.public, _certificate(spec, result)

    certified: Callable[P, tuple[Result, Certificate]] = accept_models_of(f, with_certificate)
    return certified


def _certificate(spec: FunctionSpec, result: Answer) -> Certificate:
    backend, call, solution = result.call.backend, result.call, result.solution
    given, value = (
        tuple(backend.stop_gradient(x) for x in xs if x is not None) for xs in (call.stacks, solution.value)
    )
    measurement = Measurement(spec, replace(result.bound, batch=None), dtype_name=call.dtype_name)
    measured = backend.bind(measurement, *given, *value, solution.failure)
    backward, forward, separation, boundary, *measures = measured[: len(measured) - CODES]

    def unstack_numbers(x: Array) -> Any:
        return _unstack(backend, x, call.batch)

    return Certificate(
        unstack_numbers(backward),
        unstack_numbers(forward),
        unstack_numbers(backend.xp.astype(solution.iterations, backend.xp.int32)),
        unstack_numbers(solution.failure == 0),
        unstack_numbers(separation),
        unstack_numbers(boundary > 0),
        {name: unstack_numbers(x) for name, x in zip(spec.measures, measures, strict=False)},
    )


@dataclass(frozen=True)
class Measurement(AnswerOperation):
    """The backward and the forward error, the separation, the boundary (0 or 1) and the measures of an answer."""

    dtype_name: str = ""

    @property
    def count(self) -> int:
        return 4 + len(self.spec.measures)

    def numbers(self, backend: Backend, given: Arrays, value: Arrays, converged: Array) -> Arrays:
        if not self.bound.has_entries(given):
            return tuple(_nan_unless(backend, converged, 0 * backend.ones(given[0])) for _ in self.result_shapes(given))
        # Replace failed members by 0 before calling LAPACK; their errors become NaN below.
        value = self.bound.fill_empty_value(backend, value, given)
        finite_value = tuple(
            backend.xp.where(broadcast_to_rank(converged, x), x, backend.xp.zeros_like(x)) for x in value
        )
        arrays = self.bound.with_none(mask_nonfinite(backend, self.bound.fill_empty(backend, given))[1])
        matrices, options = split_numbers(self.spec.operation, arrays, dict(self.bound.options))
        if self.dtype_name in HALVES:
            finite_value = tuple(
                backend.astype(backend.astype(x, self.dtype_name), backend.dtype_name(x)) for x in finite_value
            )
        measured = self.spec.residual(backend, finite_value, *matrices, **known_options(self.spec.residual, options))
        return tuple(_nan_unless(backend, converged, x) for x in _errors(backend, measured, finite_value))


def _nan_unless(backend: Backend, mask: Array, x: Array) -> Array:
    return backend.xp.where(mask, x, backend.xp.full_like(x, backend.xp.nan))


def _errors(backend: Backend, measured: Residual, value: Arrays) -> Arrays:
    """Backward error, the largest ‖correction‖ / ‖value‖ over the arrays of the value, separation, boundary, measures."""
    backward = _nan_to_infinity(backend, measured.backward)
    forward = backend.xp.zeros_like(backward)
    references = value if measured.zero is None else measured.zero
    for correction, x, y in zip(_flat(measured.correction), _flat(value), _flat(references), strict=True):
        x = backend.xp.where(backend.xp.isinf(x), backend.xp.zeros_like(x), x)  # a frequency of infinity is exact
        # A value of 0 with a residual of 0 is exact.
        zero = largest(backend, x) == 0
        error = _nan_to_infinity(backend, relative_norm(backend, correction, x, y))
        error = backend.xp.where(zero & (backward == 0), backend.xp.zeros_like(error), error)
        if measured.zero is None:
            # A value of 0 that satisfies nothing is one below all numbers of the dtype.
            error = backend.xp.where(zero & (backward > 0.5), backend.xp.full_like(error, backend.xp.inf), error)
        forward = backend.xp.maximum(forward, error)
    separation = backend.xp.full_like(forward, backend.xp.nan) if measured.separation is None else measured.separation
    boundary = (
        0 * forward if measured.boundary is None else backend.astype(measured.boundary, backend.dtype_name(forward))
    )
    return (backward, forward, separation, boundary, *measured.measures)


def _flat(xs: tuple[Array, ...]) -> tuple[Array, ...]:
    """The entries of each member as one column."""
    return tuple(x.reshape((len(x), -1, 1)) for x in xs)


def _nan_to_infinity(backend: Backend, error: Array) -> Array:
    """The error, with infinity for NaN: the error is then unknown."""
    return backend.xp.where(backend.xp.isnan(error), backend.xp.full_like(error, backend.xp.inf), error)


def _unstack(backend: Backend, x: Array, batch: tuple[int, ...]) -> Any:
    if batch or backend.is_traced(x):
        return x.reshape(batch)
    return x[0].item()
