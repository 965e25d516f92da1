"""Scaling of equations and their answers by powers of two, which causes no rounding.

An answer may be too large for its dtype although all intermediate results were near one: it fails with OVERFLOW.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution
from matsign.linalg import balancing
from matsign.linalg.stacks import EXPONENT_OF_ZERO, broadcast_scalar, broadcast_to_rank, entry_exponents, scale_to_unit


def balance_together(backend: Backend, *matrices: Array) -> tuple[Array, ...]:
    """``(*exponents, *scaled, k)``: each matrix as 2^-k 2^-e m 2^e with balancing exponents e (B, n), so that rows and columns
    have similar norms, and with k such that the largest entry of all is near one.

    Both scalings are applied at once, because 2^-e m 2^e alone may overflow. The exponents are None where it is known that no
    member needs balancing.
    """
    if backend.products_only(matrices[0]) or (
        not backend.is_traced(matrices[0])
        and not any([backend.any_true(balancing.uneven_rows(backend, m)) for m in matrices])
    ):
        return *[None] * len(matrices), *scale_to_unit(backend, *matrices)
    exponents = [balancing.balancing_exponents(backend, m) for m in matrices]

    def rescale(*both: Array) -> tuple[Array, ...]:
        exponents, matrices = both[: len(both) // 2], both[len(both) // 2 :]
        shifts = [e[..., None, :] - e[..., :, None] for e in exponents]
        pairs = list(zip(matrices, shifts, strict=True))
        k = functools.reduce(backend.xp.maximum, [exponent_of(backend, m, shift) for m, shift in pairs])
        k = backend.xp.where(k > EXPONENT_OF_ZERO, k, 0 * k)
        return *exponents, *(backend.exact_ldexp(m, shift - broadcast_scalar(k)) for m, shift in pairs), k

    def scale_only(*both: Array) -> tuple[Array, ...]:
        return *both[: len(both) // 2], *scale_to_unit(backend, *both[len(both) // 2 :])

    unbalanced = functools.reduce(operator.or_, [(e != 0).any(-1) for e in exponents])
    result: tuple[Array, ...] = backend.rare_cond(unbalanced, rescale, scale_only, *exponents, *matrices)
    return result


def add_exponents(e: Array | None, f: Array) -> Array:
    """Exponents e + f, where e may be None for zeros."""
    return f if e is None else e + f


def scale_right_side(backend: Backend, q: Array, e: Array | None) -> tuple[Array, Array]:
    """(2^-k 2^-e q, k) for one exponent for each entry (B, n, m), with k such that the largest entry is near one."""
    if e is None:
        at_size, k = scale_to_unit(backend, q)
        return at_size, k

    return backend.rare_cond(
        (e != 0).any((-1, -2)),
        lambda q, e: scale_entries(backend, q, e),
        lambda q, e: scale_to_unit(backend, q),
        *(q, e),
    )


def scale_entries(backend: Backend, q: Array, e: Array) -> tuple[Array, Array]:
    """The same, also where 2^-e q would overflow or underflow."""
    k = exponent_of(backend, q, -e)
    k = backend.xp.where(k > EXPONENT_OF_ZERO, k, 0 * k)
    return backend.exact_ldexp(q, -e - broadcast_scalar(k)), k


def exponent_of(backend: Backend, x: Array, shift: Array) -> Array:
    """The exponent of the largest entry of 2^shift x; `EXPONENT_OF_ZERO` where all are zero."""
    return backend.xp.max(
        backend.xp.where(x != 0, entry_exponents(backend, x) + shift, EXPONENT_OF_ZERO + 0 * shift), axis=(-1, -2)
    )


def restore(backend: Backend, result: Solution, e: Array) -> Solution:
    """The answer 2^e x, with a failure where it is too large for the dtype."""
    return check_range(backend, result._replace(value=(backend.ldexp(result.value[0], e),)))


def check_range(backend: Backend, result: Solution) -> Solution:
    """The solution with a failure where a value is no longer finite."""
    if all(not backend.is_traced(x) and backend.known_finite(x) for x in result.value):
        return result
    failure = result.failure
    for x in result.value:
        axes = (-1, -2) if x.ndim == failure.ndim + 2 else -1
        overflowed = (failure == 0) & ~backend.xp.isfinite(x).all(axes)
        failure = Failure.OVERFLOW.where(backend, overflowed, failure)
    return result._replace(failure=failure)


class Powers(NamedTuple):
    """The exponents for each member by which the arrays and the value of an equation exceed those of an equation near one."""

    arrays: tuple[Array, ...]
    value: tuple[Array, ...]


def size_of(backend: Backend, *matrices: Array) -> Array:
    """The exponent of the largest entry of these matrices, without a derivative."""
    return scale_to_unit(backend, *(backend.stop_gradient(x) for x in matrices))[-1]


def tangent_at_size(powers: Callable[..., Powers], tangent: Callable[..., Any]) -> Callable[..., Any]:
    """The tangent for arrays of any size, from the tangent for arrays near one: products would overflow without scaling."""

    def at_size(backend: Backend, value: Any, arrays: Any, tangents: Any, **options: Any) -> Any:
        by = powers(backend, *arrays)
        down = tuple(-k for k in by.arrays)
        value = _ldexp_each(backend, value, tuple(-k for k in by.value))
        return _ldexp_each(
            backend,
            tangent(
                backend, value, _ldexp_each(backend, arrays, down), _ldexp_each(backend, tangents, down), **options
            ),
            by.value,
        )

    return at_size


def cotangent_at_size(powers: Callable[..., Powers], cotangent: Callable[..., Any]) -> Callable[..., Any]:
    """`tangent_at_size` for a cotangent."""

    def at_size(backend: Backend, value: Any, arrays: Any, cotangents: Any, **options: Any) -> Any:
        by = powers(backend, *arrays)
        down = tuple(-k for k in by.arrays)
        top = by.value[0]
        for k in by.value[1:]:
            top = backend.xp.maximum(top, k)
        value = _ldexp_each(backend, value, tuple(-k for k in by.value))
        cotangents = _ldexp_each(backend, cotangents, tuple(k - top for k in by.value))
        scaled_cotangents = cotangent(backend, value, _ldexp_each(backend, arrays, down), cotangents, **options)
        return _ldexp_each(backend, scaled_cotangents, tuple(top + k for k in down))

    return at_size


def _ldexp_each(backend: Backend, xs: Any, exponents: tuple[Array, ...]) -> Any:
    """The arrays times these powers of two; None stays None."""
    return tuple(
        None if x is None else backend.ldexp(x, broadcast_to_rank(k, x)) for x, k in zip(xs, exponents, strict=True)
    )


def backward_unless_underflow(backend: Backend, backward: Array, value: Array, scaled: Array) -> Array:
    """The backward error; at least 1, so that the forward one is infinite, where a nonzero `scaled` gives a `value` of 0."""
    lost = (value == 0) & (scaled > 0)
    return backend.xp.where(lost, backend.xp.maximum(backward, 1 + 0 * backward), backward)


def at_least_rounded(backend: Backend, step: Array, value: Array) -> Array:
    """The correction, with one unit in the last place added for the denormal entries of the value."""
    info = backend.xp.finfo(value.real.dtype)
    tiny = float(info.smallest_normal)
    return backend.xp.where(backend.xp.abs(value) < tiny, step + tiny * float(info.eps), step)
