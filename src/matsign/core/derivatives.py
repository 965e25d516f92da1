"""The Fréchet derivative and its norm, the condition number, as functions on every library."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Concatenate, ParamSpec, Protocol, overload

from matsign._typing import Array, ArrayOf, Arrays, OptionalArrayLike, T
from matsign.backends import Backend
from matsign.backends.adapters import BoundFunction, adapter_of
from matsign.core.answer_operations import AnswerOperation
from matsign.core.batch_calls import batch_call
from matsign.core.objects import accept_models_of
from matsign.core.operations import BoundOperation
from matsign.core.options import Parameters, known_options
from matsign.core.public import (
    FunctionSpec,
    answer,
    as_public,
    bound_operation,
    checked_options,
    decided_options,
    spec_of,
)
from matsign.core.validation import Call, stack_arguments
from matsign.linalg.stacks import broadcast_to_rank, far_exponent, random_probe, safe_divisor, scaled_norm

_POWER_STEPS = 4
# Exponents of a dtype reach to about minus this number, less a margin of a sixteenth.
_LOWEST_EXPONENT = {"float32": 118, "float64": 958}


P = ParamSpec("P")


class Derivative(Protocol):
    """The Fréchet derivative of a function of arrays whose result is one array."""

    def __call__(self, *arrays: OptionalArrayLike[T], **options: Any) -> T: ...


@overload
def frechet(f: Callable[Concatenate[Any, ...], ArrayOf[Any]]) -> Derivative: ...
@overload
def frechet(f: Callable[..., Any]) -> Callable[..., Any]: ...
def frechet(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return the Fréchet derivative of a function.

    ``frechet(f)(A, dA)`` is the linear part L(A, dA) of the change of f: f(A + dA) = f(A) + L(A, dA) + o(‖dA‖).

    Parameters
    ----------
    f : callable
        A function of this library that returns arrays, such as `msign` or `solve_sylvester`.

    Returns
    -------
    derivative : callable
        A function of the arrays of ``f``, in order, and then of as many directions, each with the shape of its array up
        to leading axes, which broadcast. None means a direction of zeros. Options are those of ``f``. The result has
        the form of the result of ``f``.

    Raises
    ------
    TypeError
        If ``f`` is not such a function.

    See Also
    --------
    condition : The norm of the derivative, relative.

    Notes
    -----
    The derivative is one linear equation at the result, a Sylvester or a Stein equation, and costs about as much as one
    more evaluation of f. It works on NumPy arrays as well, and is itself differentiable in PyTorch and JAX. The
    function that is returned raises what ``f`` raises.

    The thresholds of `mclip` and `soft_threshold` count as arrays: ``frechet(mclip)(M, lower, upper, dM, dlower,
    dupper)``.

    Where f is not differentiable in every direction, as `mcsgn` of singular and `msign` of rank-deficient matrices, the
    result is the derivative along the part of the direction that keeps the rank.

    Examples
    --------
    >>> import numpy as np, matsign
    >>> A, dA = np.array([[4.0, 3.0], [0.0, -2.0]]), np.array([[0.0, 0.0], [1.0, 0.0]])
    >>> L = matsign.frechet(matsign.mcsgn)(A, dA)
    >>> step = (matsign.mcsgn(A + 1e-6 * dA) - matsign.mcsgn(A - 1e-6 * dA)) / 2e-6
    >>> bool(np.linalg.norm(L - step) < 1e-9)
    True
    """
    spec = spec_of(f, "frechet needs a function of matsign")

    @functools.wraps(f, updated=())
    def derivative(*args: Any, **options: Any) -> Any:
        half, names = len(args) // 2, (*spec.parameters.arrays, *spec.parameters.numbers)
        if len(args) % 2 or half > len(names):
            raise TypeError(f"frechet({spec.name}) takes its arrays and then as many directions, got {len(args)}")
        arrays, errors, options = spec.bind(*_by_keyword(spec.parameters, names[:half], args[:half], options))
        numbers, errors, options = checked_options(spec, errors, options)
        directions = [*args[half:], *(None for _ in names[half:])]
        by_adapter = _frechet_by_adapter(spec, arrays, numbers, directions, options | {"errors": errors})
        if by_adapter is not NotImplemented:
            return by_adapter
        call, changes = _prepare_directions(spec.parameters, [*arrays, *numbers], directions)
        bound, given = bound_operation(spec, call, errors, decided_options(spec, call, options))
        backend, count = call.backend, len(spec.operation.results)
        value = backend.bind(bound, *given)[:count]
        pairs = zip(call.stacks, changes, strict=True)
        tangents = tuple(backend.xp.zeros_like(x) if m is None else m for x, m in pairs if x is not None)
        return as_public(spec, call, backend.tangent(bound, value, given, tangents))

    accepting: Callable[..., Any] = accept_models_of(f, derivative, directions=True)
    return accepting


def condition(f: Callable[P, Any]) -> Callable[P, Any]:
    """Return a function that estimates condition numbers.

    ``condition(f)(A)`` is the largest ‖L(A, E)‖ ‖A‖ / ‖f(A)‖ over all E of norm 1, where L is the Fréchet derivative of
    f: the factor by which relative errors in A grow in f(A).

    Parameters
    ----------
    f : callable
        A function of this library that returns arrays, such as `sqrtm` or `solve_sylvester`.

    Returns
    -------
    number : callable
        A function with the arguments and options of ``f``, which returns one number for each member of the batch, and NaN
        where ``f`` has no value.

    Raises
    ------
    TypeError
        If ``f`` is not such a function.

    See Also
    --------
    frechet : The derivative itself.
    certify : Estimate the error of one result.

    Notes
    -----
    All norms are Frobenius norms. With several arrays or results, changes of all arrays together are considered, each
    relative to the norm of its array or result. Thresholds count as exact. The number is 0 where f is 0. It is infinite
    where a root is singular, because there the root has no derivative, like √t at zero; and where the derivative
    overflows.

    The estimate is a lower bound, mostly within a few percent, by power iteration on the derivative and its adjoint
    [1]_. It solves eight linear equations, where a gradient solves one. The function that is returned raises what ``f``
    raises.

    References
    ----------
    .. [1] N. J. Higham, "Functions of Matrices: Theory and Computation", SIAM, 2008, section 3.3,
       doi:10.1137/1.9780898717778.

    Examples
    --------
    >>> import numpy as np, matsign
    >>> estimate = matsign.condition(matsign.sqrtm)(np.diag([1.0, 1e-8]))
    >>> bool(abs(estimate / 5e3 - 1) < 0.1)
    True
    """
    spec = spec_of(f, "condition needs a function of matsign")

    @functools.wraps(f, updated=())
    def number(*args: P.args, **kwargs: P.kwargs) -> Any:
        arrays, errors, options = spec.bind(args, kwargs)
        by_adapter = spec.by_adapter(arrays, errors, options, condition, ((),))
        if by_adapter is not NotImplemented:
            return by_adapter
        result = answer(spec, arrays, errors, options)
        backend, bound, batch = result.call.backend, result.bound, result.call.batch
        given, value = (
            tuple(backend.stop_gradient(x) for x in xs if x is not None)
            for xs in (result.call.stacks, result.solution.value)
        )
        if not bound.has_entries(given):
            return backend.zeros(batch, given[0]).real
        norm = backend.bind(_Conditioning(spec, replace(bound, batch=None)), *given, *value, result.solution.failure)[0]
        return norm[0] if batch == () else norm.reshape(batch)

    accepting: Callable[P, Any] = accept_models_of(f, number)
    return accepting


@dataclass(frozen=True)
class _Conditioning(AnswerOperation):
    """The condition number at an answer."""

    def numbers(self, backend: Backend, given: Arrays, value: Arrays, converged: Array) -> Arrays:
        bound = self.bound
        value, given = bound.fill_empty_value(backend, value, given), bound.fill_empty(backend, given)
        finite_value = tuple(
            backend.xp.where(broadcast_to_rank(converged, x), x, backend.xp.zeros_like(x)) for x in value
        )
        norm = _norm_of_derivative(backend, bound, value, given)
        # NaN here comes from overflow.
        norm = backend.xp.where(converged & backend.xp.isnan(norm), backend.xp.full_like(norm, math.inf), norm)
        if self.spec.unbounded:
            matrices, options = bound.split(given)
            options = known_options(self.spec.unbounded, options)
            mask = self.spec.unbounded(backend, finite_value, *matrices, **options)
            infinite = converged & mask & ~(norm == 0)
            norm = backend.xp.where(infinite, backend.xp.full_like(norm, math.inf), norm)
        return (norm,)


def _norm_of_derivative(backend: Backend, bound: BoundOperation, value: Arrays, arrays: Arrays) -> Array:
    """The largest singular value of the derivative, changes of each array being relative to its norm.

    Powers of two in the norms are applied separately, so that no square and no inverse overflows. Numbers do not change.
    """
    matrices, numbers = (tuple(x for x in arrays if (x.ndim == 1) is one) for one in (False, True))
    no_changes = tuple(backend.xp.zeros_like(x) for x in numbers)
    finite = tuple(backend.xp.where(backend.xp.isinf(x), backend.xp.zeros_like(x), x) for x in value)
    sizes, inverse_sizes = (tuple(scaled_norm(backend, _flat(x)) for x in xs) for xs in (matrices, finite))
    exponent = _direction_exponent(backend, sizes, inverse_sizes)
    sizes = tuple((s, e - exponent) for s, e in sizes)
    inverse_sizes = tuple(
        (backend.xp.where(s > 0, 1 / safe_divisor(backend, s), 0 * s), exponent - e) for s, e in inverse_sizes
    )

    def scale(xs: Arrays, by: tuple[tuple[Array, Array], ...]) -> Arrays:
        return tuple(
            backend.ldexp(broadcast_to_rank(s, x) * x, broadcast_to_rank(e, x))
            for (s, e), x in zip(by, xs, strict=True)
        )

    def unit(xs: Arrays) -> tuple[Arrays, Array]:
        whole = backend.xp.concat([_flat(x) for x in xs], axis=1)
        size, e = scaled_norm(backend, whole)
        inverse = backend.xp.where(size > 0, 1 / safe_divisor(backend, size), 0 * size)
        return scale(xs, tuple((inverse, -e) for _ in xs)), backend.ldexp(size, e)

    # Different relative changes: equal ones leave a quotient of two arrays unchanged, opposite ones a product.
    direction, _ = unit(tuple((-0.6) ** k * _start_direction(backend, x) for k, x in enumerate(matrices)))
    norm = math.nan * sizes[0][0]
    for _ in range(_POWER_STEPS):
        changes, norm = unit(
            scale(bound.tangent(backend, value, arrays, scale(direction, sizes) + no_changes), inverse_sizes)
        )
        gradient = bound.cotangent(backend, value, arrays, scale(changes, inverse_sizes))[: len(matrices)]
        direction, _ = unit(scale(gradient, sizes))
    return norm


def _direction_exponent(backend: Backend, sizes: Any, values: Any) -> Array:
    """The exponent by which directions are scaled down, which is allowed because the derivative is linear in them.

    Their size is half way between the size of the arrays and 1, within bounds for which the smallest of them and the
    resulting changes of the values stay in the range of the dtype.
    """
    xp, room = backend.xp, 3 * far_exponent(backend, sizes[0][0]) // 2
    low, high = _range(backend, [xp.where(s > 0, e, 0 * e) for s, e in sizes])
    exponent = xp.minimum(
        (low + high) // 4, xp.maximum(low + _LOWEST_EXPONENT[backend.dtype_name(sizes[0][0])], 0 * low)
    )
    low, high = _range(backend, [xp.where(s > 0, e, 0 * e) for s, e in values])
    return xp.maximum(xp.minimum(exponent, xp.maximum(low + room, 0 * low)), xp.minimum(high - room, 0 * high))


def _range(backend: Backend, xs: list[Array]) -> tuple[Array, Array]:
    """The elementwise minimum and maximum."""
    return functools.reduce(backend.xp.minimum, xs), functools.reduce(backend.xp.maximum, xs)


def _flat(x: Array) -> Array:
    """The entries of each member as one column."""
    return x.reshape((len(x), -1, 1))


def _start_direction(backend: Backend, x: Array) -> Array:
    if x.ndim == 2:
        return _start_direction(backend, x[:, :, None])[:, :, 0]
    n, m = x.shape[-2:]
    return backend.xp.broadcast_to(random_probe(backend, n, m, x), x.shape)


def _frechet_by_adapter(
    spec: FunctionSpec, arrays: Arrays, numbers: list[Any], directions: list[Any], options: dict[str, Any]
) -> Any:
    """`frechet` of arrays in chunks or with names; NotImplemented for plain ones."""
    count = len(arrays)
    arguments = (*arrays, *directions[:count], *numbers, *directions[count:])
    adapter = adapter_of(arguments)
    if adapter is None:
        return NotImplemented
    function = BoundFunction(spec.function, options, _frechet_in_order)
    parameters = _with_directions(spec.parameters)
    return adapter.apply(batch_call(function, spec.operation, parameters, arguments, spec.operation.results))


def _frechet_in_order(f: Callable[..., Any]) -> Callable[..., Any]:
    """`frechet(f)` with the arrays and their directions before the numbers and theirs."""
    arrays = len(spec_of(f, "frechet needs a function of matsign").parameters.arrays)

    def derivative(*args: Any, **options: Any) -> Any:
        numbers = (len(args) - 2 * arrays) // 2
        at, changes, rest = args[:arrays], args[arrays : 2 * arrays], args[2 * arrays :]
        return frechet(f)(*at, *rest[:numbers], *changes, *rest[numbers:], **options)

    return derivative


def _by_keyword(
    parameters: Parameters, names: tuple[str, ...], args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional arguments and the keywords of a call, from arrays and numbers by position and options."""
    named = {name: x for name, x in zip(names, args, strict=True) if name in parameters.keyword_arrays}
    twice = [name for name in named if name in options]
    if twice:
        raise TypeError(f"frechet({parameters.name}) got two values of {twice[0]}")
    positional = tuple(x for name, x in zip(names, args, strict=True) if name not in named)
    return positional, options | named


def _prepare_directions(parameters: Parameters, arguments: list[Any], directions: list[Any]) -> tuple[Call, Arrays]:
    """The call on the arguments, and the stacks of the directions, with the same dtype, batch and shapes."""
    doubled, matrices = _with_directions(parameters), len(parameters.arrays)
    with_direction = [n for n, d in zip(parameters.numbers, directions[matrices:], strict=True) if d is not None]
    both = stack_arguments(
        doubled,
        [*arguments[:matrices], *directions[:matrices], *arguments[matrices:], *directions[matrices:]],
        stacked=(*with_direction, *doubled.numbers[len(parameters.numbers) :]),
    )
    at, numbers = both.stacks[: 2 * matrices], both.stacks[2 * matrices :]
    half = len(numbers) // 2
    call = both._replace(stacks=at[:matrices] + numbers[:half])
    return call, at[matrices:] + numbers[half:]


def _with_directions(parameters: Parameters) -> Parameters:
    """The parameters with a direction for every array and every number."""
    directions = tuple("d" + name for name in parameters.arrays)
    return replace(
        parameters,
        shapes=parameters.shapes * 2,
        numbers=parameters.numbers + tuple("d" + name for name in parameters.numbers),
        arrays=parameters.arrays + directions,
        optional=parameters.optional + directions,
        hermitian=(),
        vectors=parameters.vectors | {"d" + name: role for name, role in parameters.vectors.items()},
    )
