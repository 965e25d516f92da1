"""One matrix of NumPy without the axis of a stack: the operations of `backends.numpy`, with the same bits.

Matrices are ``(n, m)`` and numbers are NumPy scalars, which compare and multiply in a twentieth of the time of arrays with one
entry. A solver for this backend counts axes from the end and broadcasts numbers by `stacks.broadcast_scalar`.
"""

from __future__ import annotations

import cmath
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from matsign._typing import Array
from matsign.backends import control_flow
from matsign.backends import numpy as stacks
from matsign.backends.numpy import (
    asarray,
    astype,
    common_dtype_name,
    default_float,
    device_name,
    dtype_name,
    dynamic_shapes,
    eps,
    eye,
    fast_eigh,
    fast_half_dtype,
    fast_svd,
    is_complex,
    is_traced,
    layout,
    on_cpu,
    products_only,
    resolve_conj,
    stop_gradient,
    unrolls_loops,
)

__all__ = [
    "asarray",
    "astype",
    "common_dtype_name",
    "default_float",
    "device_name",
    "dtype_name",
    "dynamic_shapes",
    "eps",
    "eye",
    "fast_eigh",
    "fast_half_dtype",
    "fast_svd",
    "is_complex",
    "is_traced",
    "layout",
    "on_cpu",
    "products_only",
    "resolve_conj",
    "stop_gradient",
    "unrolls_loops",
]

name = "numpy"


def call(f: Callable[..., Any], *arrays: Array, **options: Any) -> Any:
    """``f(backend, *arrays, **options)`` for the matrices in stacks of one."""
    return f(sys.modules[__name__], *[None if x is None else x[0] for x in arrays], **options)


def _as_stack(x: Array) -> Array:
    return x[None]


_maximum: Callable[..., Array] = np.maximum.reduce


class _Namespace:
    """The array API, with faster functions of scalars."""

    def __getattr__(self, name: str) -> Any:
        result = getattr(stacks.xp, name)
        setattr(self, name, result)
        return result

    @staticmethod
    def where(mask: Array, x: Array, y: Array) -> Array:
        if type(mask) is np.bool_ and type(x) is type(y) and _layout(x) == _layout(y):
            return x if mask else y
        if type(mask) is np.bool_ and type(y) is float and isinstance(x, np.inexact):
            return x if mask else type(x)(y)
        result: Array = np.where(mask, x, y)
        return result[()]

    @staticmethod
    def maximum(x: Array, y: Array) -> Array:
        if type(x) is type(y) and x.ndim == 0:
            return x if x >= y or x != x else y
        return np.maximum(x, y)

    @staticmethod
    def max(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
        return _maximum(x, axis=axis, keepdims=keepdims)

    abs = staticmethod(abs)
    ones_like = staticmethod(np.ones_like)
    zeros_like = staticmethod(np.zeros_like)


def _layout(x: Array) -> Any:
    return (x.dtype, x.shape) if hasattr(x, "dtype") else None


xp = _Namespace()

_ONE = {dtype: np.real(dtype.type(1)) for dtype in stacks._NAMES}
_INT_ZERO = np.int32(0)


def zeros(shape: tuple[int, ...], like: Array) -> Array:
    return np.zeros(shape, like.dtype)


def ones(like: Array) -> Array:
    return _ONE[like.dtype]


def int_zeros(like: Array) -> Array:
    return _INT_ZERO


def inner(x: Array, y: Array) -> Array:
    return stacks.inner(x[None], y[None])[0]


def norm(x: Array) -> Array:
    if x.size < stacks._THREADED_LENGTH:
        flat = x.ravel()
        return np.sqrt(np.vecdot(flat, flat).real if flat.dtype.kind == "c" else flat.dot(flat))
    return stacks.norm(x[None])[0]


def trace(x: Array) -> Array:
    return np.add.reduce(x.diagonal())


def full_precision(x: Array) -> Any:
    return stacks.full_precision(x)


def known_finite(x: Array) -> bool:
    return cmath.isfinite(np.vdot(x, x) if x.size < stacks._THREADED_LENGTH else x.sum())


def any_true(x: Array) -> bool:
    return bool(np.count_nonzero(x))


def all_true(x: Array) -> bool:
    return bool(np.count_nonzero(x) == x.size)


def addmm(beta: float, x: Array, alpha: float, a: Array, b: Array) -> Array:
    return stacks.addmm(beta, x, alpha, a, b)


def hermitian_product(a: Array, b: Array, shift: float = 0.0) -> Array:
    return stacks.hermitian_product(a[None], b[None], shift)[0]


def add_diagonal(x: Array, alpha: Array) -> Array:
    return stacks.add_diagonal(x[None], alpha[None])[0]


def inv(a: Array) -> Array:
    return stacks.inv(a[None])[0]


def solve(a: Array, b: Array) -> Array:
    return stacks.solve(a[None], b[None])[0]


def svd(a: Array) -> tuple[Array, Array, Array]:
    u, values, vh = stacks.svd(a[None])
    return u[0], values[0], vh[0]


def eigh(a: Array) -> tuple[Array, Array]:
    values, vectors = stacks.eigh(a[None])
    return values[0], vectors[0]


def eig(a: Array) -> tuple[Array, Array]:
    values, vectors = stacks.eig(a[None])
    return values[0], vectors[0]


def cholesky(a: Array) -> Array:
    return stacks.cholesky(a[None])[0]


def log_determinant(a: Array) -> Array:
    return stacks.log_determinant(a[None])[0]


def exponent(x: Array) -> Array:
    return np.int32(math.frexp(x)[1]) if x.ndim == 0 else stacks.exponent(x)


def largest(x: Array) -> Array:
    return np.maximum.reduce(np.abs(x), axis=None)


def ldexp(x: Array, e: Array) -> Array:
    if e.ndim == 0 and -100 < e < 100 and x.dtype.kind == "f":
        return np.multiply(x, 2.0 ** int(e), order="C")  # at most one rounding, as in `stacks.ldexp`
    return stacks.ldexp(x, e)


exact_ldexp = ldexp


def loop(step: Callable[[Any], Any], state: Any, limit: int) -> Any:
    for _ in range(limit):
        state, active = step(state)
        if not active:
            break
    return state


fold_rows = control_flow.fold_rows
shared_function = control_flow.shared_function


def masked_cond(mask: Array, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Any) -> Any:
    return (yes if mask else no)(*arrays)


rare_cond = masked_cond


def masked_select(mask: Array, yes: Any, no: Any) -> Any:
    return yes if mask else no


def host_callback(f: Callable[..., Any], like: Any, *arrays: Array) -> Any:
    return control_flow.tree_map(_first, f(*[_as_stack(x) for x in arrays]))


def _first(x: Array) -> Array:
    return x[0]
