"""NumPy and SciPy."""

from __future__ import annotations

import contextlib
from typing import Any, Callable

import array_api_compat.numpy as xp
import numpy as np

from matsign.backends import eager, lapack

Array = np.ndarray[Any, Any]
name = "numpy"

# One call for a stack of small matrices, LAPACK one by one above: measured, the crossover is near here.
_STACKED = 16
_NOTHING = contextlib.nullcontext()


def asarray(x: Any, like: Any = None) -> Array:
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise TypeError("it has masked entries")
    return np.asarray(x)


def astype(x: Array, kind: str) -> Array:
    return x if x.dtype.name == kind else x.astype(kind)


def kind(x: Array) -> str:
    return x.dtype.name


def default_float() -> str:
    return "float64"


def eye(n: int, like: Array) -> Array:
    return np.eye(n, dtype=like.dtype)


def ones(like: Array) -> Array:
    return np.ones(len(like), like.real.dtype)


def real(x: Array) -> Array:
    return x.real


def imag(x: Array) -> Array:
    return x.imag


def is_complex(x: Array) -> bool:
    return x.dtype.kind == "c"


def eps(x: Array) -> float:
    return float(np.finfo(x.dtype).eps)


def common_kind(*xs: Array) -> str:
    return np.result_type(*(x.dtype for x in xs)).name


def where_is(x: Array) -> str:
    return "cpu"


def on_cpu(x: Array) -> bool:
    return True


def traced(x: Array) -> bool:
    return False


def scoped(x: Array) -> Any:
    return np.errstate(all="ignore")


def _linalg(f: Callable[..., Any], *arrays: Array) -> Array:
    """A ``numpy.linalg`` function on a stack: where it raises for one member, that member becomes NaN."""
    try:
        return f(*arrays)  # type: ignore[no-any-return]
    except np.linalg.LinAlgError:
        if len(arrays[0]) == 1:
            return np.full_like(arrays[-1], np.nan)
        return np.concatenate([_linalg(f, *(x[i : i + 1] for x in arrays)) for i in range(len(arrays[0]))])


def inv(a: Array) -> Array:
    if a.shape[-1] < _STACKED and len(a) > 1:
        return _linalg(np.linalg.inv, a)
    if len(a) == 1:
        return lapack.inv(a[0])[None]
    return np.stack([lapack.inv(x) for x in a])


def solve(a: Array, b: Array) -> Array:
    return _linalg(np.linalg.solve, a, b)


def cholesky(a: Array) -> Array:
    return _linalg(np.linalg.cholesky, a)


def exponent(x: Array) -> Array:
    return np.frexp(x)[1]


def ldexp(x: Array, e: Array) -> Array:
    return np.ldexp(x, e) if x.dtype.kind == "f" else _complex_ldexp(x, e)


def _complex_ldexp(x: Array, e: Array) -> Array:
    out = np.empty(np.broadcast_shapes(x.shape, e.shape), x.dtype)
    out.real, out.imag = np.ldexp(x.real, e), np.ldexp(x.imag, e)
    return out


def loop(step: Callable[[Any], Any], state: Any, limit: int) -> Any:
    return eager.loop(step, state, limit, np.arange(len(eager.first_leaf(state))))


split = eager.split


def host(f: Callable[..., Any], like: Any, *arrays: Array) -> Any:
    return f(*arrays)
