"""NumPy and SciPy."""

from __future__ import annotations

import cmath
import functools
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import array_api_compat.numpy
import numpy as np

from matsign._typing import Arrays
from matsign._typing import NDArray as Array
from matsign.backends import control_flow, lapack, stacking
from matsign.backends.lapack import processors

name = "numpy"
xp = array_api_compat.numpy

# Up to this size SciPy's LAPACK, called directly, is up to twice as fast as numpy.linalg. Above it both use threads, those of
# its own BLAS, and alternating between the two costs ten times the gain.
_MAX_LAPACK_SIZE = 80


def asarray(x: Any, like: Any = None) -> Array:
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise TypeError("it has masked entries; fill them first, as by x.filled(0)")
    x = np.asarray(x)
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))


# A table, because ``dtype.name`` takes as long as a small matrix product.
_NAMES = {np.dtype(name): name for name in ("float32", "float64", "complex64", "complex128")}


def layout(x: Any) -> Any:
    return (x.dtype, x.shape) if type(x) is np.ndarray and x.ndim > 1 and x.dtype in _NAMES else None


def astype(x: Array, kind: str) -> Array:
    return x if _NAMES.get(x.dtype) == kind else x.astype(kind)


def dtype_name(x: Array) -> str:
    return _NAMES.get(x.dtype) or x.dtype.name


def default_float() -> str:
    return "float64"


def resolve_conj(x: Array) -> Array:
    return x


def eye(n: int, like: Array) -> Array:
    return _small_eye(n, like.dtype) if n <= _MAX_LAPACK_SIZE else np.eye(n, dtype=like.dtype)


@cache
def _small_eye(n: int, dtype: np.dtype[Any]) -> Array:
    out = np.eye(n, dtype=dtype)
    out.setflags(write=False)  # the array is shared
    return out


def zeros(shape: tuple[int, ...], like: Array) -> Array:
    return np.zeros(shape, like.dtype)


def ones(like: Array) -> Array:
    out = np.empty(len(like), like.real.dtype)
    out.fill(1)
    return out


def int_zeros(like: Array) -> Array:
    return np.zeros(len(like), np.int32)


def is_complex(x: Array) -> bool:
    return x.dtype.kind == "c"


# `largest` of a stack with more than this many members of at most this many entries reduces entry by entry.
_MAX_ENTRIES = 16


# From this length the BLAS uses threads for a dot product, which then keep spinning and slow down those of SciPy's BLAS.
_THREADED_LENGTH = 10_000
_SUM_LENGTH = 4096


def inner(x: Array, y: Array) -> Array:
    if x.shape[-1] < _THREADED_LENGTH:
        return np.vecdot(x, y).real
    if x.dtype.kind == "c":
        x, y = (np.ascontiguousarray(z).view(z.real.dtype) for z in (x, y))
    # Sums of pieces: one long sum in single precision has an error of a hundred roundings.
    whole = x.shape[-1] // _SUM_LENGTH * _SUM_LENGTH
    pieces = (z[:, :whole].reshape(len(z), -1, _SUM_LENGTH) for z in (x, y))
    return np.vecdot(*pieces).sum(-1) + np.vecdot(x[:, whole:], y[:, whole:])


def norm(x: Array) -> Array:
    flat = x.reshape(len(x), -1)
    return np.sqrt(np.vecdot(flat, flat).real if flat.shape[-1] < _THREADED_LENGTH else inner(flat, flat))


def trace(x: Array) -> Array:
    return np.add.reduce(x.diagonal(0, -2, -1), axis=-1)


_EPS = {dtype: float(np.finfo(name).eps) for dtype, name in _NAMES.items()}


def eps(x: Array) -> float:
    return _EPS[x.dtype]


def common_dtype_name(*xs: Array) -> str:
    if all(x.dtype == xs[0].dtype for x in xs):
        return dtype_name(xs[0])
    return np.result_type(*(x.dtype for x in xs)).name


def device_name(x: Array) -> str:
    return "cpu"


def follows_others(x: Array) -> bool:
    return False


def on_cpu(x: Array) -> bool:
    return True


fast_eigh = fast_svd = on_cpu


def fast_half_dtype(x: Array) -> str | None:
    return None


def is_traced(x: Array) -> bool:
    return False


def dynamic_shapes(x: Array) -> bool:
    return True


# Products of larger members use the threads of the BLAS; chunks of small ones are too short for more threads.
_MAX_THREADED_SIZE, _MAX_WORKERS = 64, 8


def products_only(x: Array) -> bool:
    return False


def unrolls_loops(x: Array) -> bool:
    return False


def workers(x: Array) -> int:
    return 1 if max(x.shape[1:]) > _MAX_THREADED_SIZE else min(_MAX_WORKERS, processors())


def full_precision(x: Array) -> Any:
    return np.errstate(all="ignore")


def _gufunc(name: str) -> Any:
    """The private gufunc of a ``numpy.linalg`` function, or None if this version of NumPy has none."""
    return getattr(getattr(np.linalg, "_umath_linalg", None), name, None)


def _gufunc_or_public(name: str, public: Callable[..., Any]) -> Callable[..., Any]:
    """The gufunc of a ``numpy.linalg`` function, which returns NaN for members that have no answer.

    The checks in the public function take longer than a small matrix. The public function is called if there is no gufunc,
    and for single precision, which it computes in double.
    """
    loop = _gufunc(name)

    def call(*arrays: Array) -> Any:
        if loop is None or arrays[0].dtype.char not in "dD":
            return _nan_for_errors(public, *arrays)
        return loop(*arrays)

    return call


def _nan_for_errors(f: Callable[..., Any], *arrays: Array) -> Array:
    """A ``numpy.linalg`` function on a stack: where it raises for one member, that member becomes NaN."""
    try:
        return f(*arrays)
    except np.linalg.LinAlgError:
        if len(arrays[0]) == 1:
            return np.full_like(arrays[-1], np.nan)
        return np.concatenate([_nan_for_errors(f, *(x[i : i + 1] for x in arrays)) for i in range(len(arrays[0]))])


def addmm(beta: float, x: Array, alpha: float, a: Array, b: Array) -> Array:
    y = a @ b
    if alpha != 1:
        y *= alpha
    y += x if beta == 1 else beta * x
    return y


def hermitian_product(a: Array, b: Array, shift: float = 0.0) -> Array:
    product = a @ b
    if shift:
        np.einsum("bii->bi", product)[...] += shift
    return product


def add_diagonal(x: Array, alpha: Array) -> Array:
    np.einsum("bii->bi", x)[...] += alpha[:, None]
    return x


def known_finite(x: Array) -> bool:
    # One pass. The sum of finite numbers may overflow: then the answer is False and the caller tests each entry.
    return cmath.isfinite(np.vdot(x, x) if x.size < _THREADED_LENGTH else x.sum())


def any_true(x: Array) -> bool:
    return bool(np.count_nonzero(x))


def all_true(x: Array) -> bool:
    return bool(np.count_nonzero(x) == x.size)


_inv = _gufunc_or_public("inv", np.linalg.inv)
_solve = _gufunc_or_public("solve", np.linalg.solve)
_cholesky = _gufunc_or_public("cholesky_lo", np.linalg.cholesky)
_slogdet = _gufunc_or_public("slogdet", np.linalg.slogdet)
_svd, _eigh, _single_inv = _gufunc("svd_s"), _gufunc("eigh_lo"), _gufunc("inv")


def inv(a: Array) -> Array:
    # The choice depends on the size alone, so that a member of a stack gets the same bits as a single matrix.
    if 16 <= a.shape[-1] <= _MAX_LAPACK_SIZE:
        if a.dtype.char in "fF" and _single_inv is not None:
            return _single_inv(a)
        return lapack.inv(a[0])[None] if len(a) == 1 else np.stack([lapack.inv(x) for x in a])
    return _inv(a)


def inv_near(a: Array, guess: Array) -> Array:
    return inv(a)


def _call_gufunc(loop: Any, a: Array) -> Any:
    """The results of a gufunc; None if there is none for this dtype, or if a member is NaN."""
    if loop is None or a.dtype.char not in "dD":
        return None
    result = loop(a)
    return result if known_finite(result[-2]) else None  # the values


# numpy.linalg calls LAPACK for each member, so a member of a stack gets the same bits as a single matrix. SciPy's call saves 5
# microseconds for a single small matrix, with other bits: an answer would then depend on the length of its batch.
def svd(a: Array) -> tuple[Array, Array, Array]:
    result: tuple[Array, Array, Array] | None = _call_gufunc(_svd, a)
    if result is not None:
        return result
    try:
        return np.linalg.svd(a, full_matrices=False)
    except np.linalg.LinAlgError:
        u, values, vh = _member_by_member(svd, lapack.svd, a)
        return u, values, vh


def eigh(a: Array) -> tuple[Array, Array]:
    result: tuple[Array, Array] | None = _call_gufunc(_eigh, a)
    if result is not None:
        return result
    try:
        return np.linalg.eigh(a)
    except np.linalg.LinAlgError:
        values, vectors = _member_by_member(eigh, lapack.eigh, a)
        return values, vectors


def _member_by_member(usual: Callable[..., Any], other: Callable[..., Any], a: Array) -> list[Array]:
    """For each member: by the QR algorithm if divide and conquer does not converge, as for some with many zero values."""
    if len(a) == 1:
        return [x[None] for x in other(a[0])]
    return [np.concatenate(parts) for parts in zip(*(usual(x[None]) for x in a), strict=True)]


def eig(a: Array) -> tuple[Array, Array]:
    dtype = np.result_type(a.dtype, np.complex64)
    try:
        values, vectors = np.linalg.eig(a)
    except np.linalg.LinAlgError:
        if len(a) == 1:
            return np.full(a.shape[:-1], np.nan, dtype), np.full(a.shape, np.nan, dtype)
        parts = [eig(a[i : i + 1]) for i in range(len(a))]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    # NumPy returns real arrays for real members if all eigenvalues are real.
    return values.astype(dtype), vectors.astype(dtype)


def solve(a: Array, b: Array) -> Array:
    return _solve(a, b)


def cholesky(a: Array) -> Array:
    return _cholesky(a)


def log_determinant(a: Array) -> Array:
    return _slogdet(a)[1]


def exponent(x: Array) -> Array:
    return np.frexp(x)[1]


def largest(x: Array) -> Array:
    if (
        x.shape[-2] * x.shape[-1] <= _MAX_ENTRIES < len(x)
    ):  # entry by entry: starting a reduction takes longer than such a short one
        return functools.reduce(np.maximum, np.abs(x).reshape(len(x), -1).T)
    return np.maximum.reduce(np.abs(x), axis=(-1, -2))


def ldexp(x: Array, e: Array) -> Array:
    # In C order for any order of x: products of other layouts round differently, and a single transposed matrix would get other
    # bits than a member of a stack.
    return np.ldexp(x, e, order="C") if x.dtype.kind == "f" else _complex_ldexp(x, e)


def _complex_ldexp(x: Array, e: Array) -> Array:
    out = np.empty(np.broadcast_shapes(x.shape, e.shape), x.dtype)
    out.real, out.imag = np.ldexp(x.real, e), np.ldexp(x.imag, e)
    return out


exact_ldexp = ldexp


def loop(step: Callable[[Any], Any], state: Any, limit: int) -> Any:
    all_members, holder = np.arange(len(control_flow.first_leaf(state))), [state]
    del state
    return control_flow.loop(step, holder, limit, all_members)


masked_cond = rare_cond = control_flow.masked_cond


fold_rows = control_flow.fold_rows
shared_function = control_flow.shared_function
sum_over_rows = control_flow.sum_over_rows


def scan(f: Callable[..., Any], state: Any, rows: Any, *, reverse: bool = False) -> tuple[Any, Any]:
    return control_flow.scan(np, f, state, rows, reverse)


def masked_select(mask: Array, yes: Any, no: Any) -> Any:
    return masked_cond(mask, control_flow.first, control_flow.second, yes, no)


def as_stacks(arrays: Sequence[Any], batch: tuple[int, ...], own: Sequence[int]) -> tuple[Any, ...]:
    return stacking.as_stacks(np, arrays, batch, own)


def tangent(bound: Any, value: Arrays, arrays: Arrays, directions: Arrays) -> Arrays:
    return bound.tangent(sys.modules[__name__], value, arrays, directions)


def bind(bound: Any, *arrays: Array) -> tuple[Array, ...]:
    return tuple(bound(sys.modules[__name__], *arrays))


def by_numpy(bound: Any, *arrays: Array) -> bool:
    return False


def from_numpy(x: Array, like: Array) -> Array:
    return x


def stop_gradient(x: Array) -> Array:
    return x


def host_callback(f: Callable[..., Any], like: Any, *arrays: Array) -> Any:
    return f(*arrays)
