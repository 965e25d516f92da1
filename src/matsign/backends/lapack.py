"""SciPy's LAPACK where it is faster than the calls of the array libraries, for one NumPy matrix at a time.

``numpy.linalg.inv`` solves with an identity and ``scipy.linalg.inv`` estimates a condition number; `getrf` and `getri` with a
full workspace take half their time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from threading import RLock, Thread
from typing import Any

import numpy as np
import scipy  # scipy.linalg is imported on first use, which takes a third of a second

from matsign._typing import NDArray as Array

_LETTER = {"f": "s", "d": "d", "F": "c", "D": "z"}


@cache
def routine(name: str, char: str) -> Callable[..., Any]:
    """The LAPACK routine `name` for the dtype with this character code, such as ``routine("getrf", "d")``."""
    return getattr(scipy.linalg.lapack, _LETTER[char] + name)


def product(a: Array, b: Array) -> Array:
    """a b in SciPy's BLAS, which the routines here use: the threads of NumPy's BLAS would slow them down."""
    if max(*a.shape, b.shape[1]) <= 64:
        return a @ b
    return getattr(scipy.linalg.blas, _LETTER[a.dtype.char] + "gemm")(1.0, a, b)


def inv(a: Array) -> Array:
    """Inverse of one matrix; NaN where it is singular."""
    char = a.dtype.char
    # The transpose of a C-ordered array is Fortran-ordered and need not be copied.
    lu, pivots, info = routine("getrf", char)(a.T)
    if info == 0:
        inverse, info = routine("getri", char)(lu, pivots, lwork=64 * max(len(a), 1), overwrite_lu=1)
        if info == 0:
            return inverse.T
    return np.full_like(a, np.nan)


def _no_selection(eigenvalue: Any, imaginary: Any = None) -> None:
    return None


def schur(a: Array, select: Callable[..., bool] | None = None) -> tuple[Array, Array, Array, int]:
    """(T, Z, eigenvalues, number of selected ones, which come first), a = Z T Zᴴ; for real a the real quasi-triangular form."""
    char = a.dtype.char
    gees = routine("gees", char)
    lwork = max(3 * len(a), 1) if len(a) < 32 else 34 * len(a)
    result = gees(select or _no_selection, a, sort_t=int(select is not None), lwork=lwork)
    t, count, z, info = result[0], result[1], result[-3], result[-1]
    eigenvalues = result[2] + 1j * result[3] if len(result) == 7 else result[2]
    # info > n: after reordering, rounding changed whether an eigenvalue is selected; the decomposition is valid.
    if 0 < info <= len(a):
        t, z = np.full_like(t, np.nan), np.full_like(z, np.nan)
    return t, z, eigenvalues, int(count)


_FILTERS = RLock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings from SciPy. Warning filters belong to the process, so a lock protects them."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def processors() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Sizes for which LAPACK uses no threads and a Schur form takes longer than starting a thread.
_CONCURRENT_SIZES = range(24, 100)


def schur_pair(a: Array, b: Array) -> tuple[Array, Array, Array, Array]:
    """(T, Z, T', Z') of two matrices, in two threads if they are small: the QR algorithm alone uses one core."""
    if not (len(a) in _CONCURRENT_SIZES and len(b) in _CONCURRENT_SIZES and processors() > 1):
        return (*schur(a)[:2], *schur(b)[:2])
    second: list[Array] = []
    thread = Thread(target=lambda: second.extend(_schur_without_gil(b)))
    thread.start()
    first = _schur_without_gil(a)
    thread.join()
    return (*first, second[0], second[1])


def _schur_without_gil(a: Array) -> tuple[Array, Array]:
    """(T, Z) by the routine of `schur`, called without Python's global lock, which SciPy's wrapper holds for `select`."""
    n = len(a)
    t, z, values, work = (
        np.array(a, order="F"),
        np.empty_like(a, order="F"),
        np.empty(2 * n, a.dtype),
        np.empty(34 * n, a.dtype),
    )
    integers = np.array([n, len(work), 0, 0], np.int32)
    size, length, count, info = (integers.ctypes.data + 4 * k for k in range(4))
    eigenvalues: tuple[Any, ...] = (values.ctypes.data,)
    last: tuple[Any, ...] = (np.empty(n, a.real.dtype).ctypes.data,)
    if a.dtype.kind == "f":
        eigenvalues, last = (values.ctypes.data, values.ctypes.data + n * a.itemsize), ()
    addresses = [x.ctypes.data for x in (t, z, work)]
    _routine_without_gil("gees", a.dtype.char)(
        *(b"V", b"N", None, size, addresses[0], size, count),
        *eigenvalues,
        *(addresses[1], size, addresses[2], length),
        *last,
        *(None, info),
    )
    return (t, z) if integers[3] == 0 else (np.full_like(t, np.nan), np.full_like(z, np.nan))


@cache
def _routine_without_gil(name: str, char: str) -> Callable[..., None]:
    """A LAPACK routine at the address that SciPy publishes for Cython; ctypes releases Python's global lock for the call."""
    from scipy.linalg import cython_lapack

    capsule = cython_lapack.__pyx_capi__[_LETTER[char] + name]
    signature = _capsule_function("GetName", ctypes.c_char_p, ctypes.py_object)(capsule)
    address = _capsule_function("GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(capsule, signature)
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (signature.count(b",") + 1))(address)


def _capsule_function(name: str, *types: Any) -> Callable[..., Any]:
    return ctypes.PYFUNCTYPE(*types)(("PyCapsule_" + name, ctypes.pythonapi))


def trsyl(a: Array, b: Array, c: Array, sign: int = 1, *, adjoint: bool = False) -> Array:
    """x with a x + sign x b = c for (quasi-)triangular a, b from `schur`, or bᴴ in place of b."""
    x, scale, _ = routine("trsyl", c.dtype.char)(a, b, c, isgn=sign, tranb="C" if adjoint else "N")
    return x if scale == 1 else x / scale


def tgsyl(a: Array, b: Array, c: Array, d: Array, e: Array, f: Array, *, adjoint: bool = False) -> tuple[Array, Array]:
    """(x, y) with a x - y b = c and d x - y e = f for quasi-triangular a, b and triangular d, e, or with aᴴ x + dᴴ y = c and
    x bᴴ + y eᴴ = -f.

    SciPy's wrapper has no complex version.
    """
    char, real = c.dtype.char, c.real.dtype
    n, m = c.shape
    a, b, d, e = (np.asfortranarray(z) for z in (a, b, d, e))
    x, y = np.array(c, order="F"), np.array(f, order="F")
    work, scale, integers = np.empty(1, c.dtype), np.ones(2, real), np.zeros(n + m + 11, np.int32)
    integers[:4] = 0, n, m, 1
    job, rows, columns, length, info, workspace = (integers.ctypes.data + 4 * k for k in range(6))
    scale_address = scale.ctypes.data
    _routine_without_gil("tgsyl", char)(
        *((b"T" if real == c.dtype else b"C") if adjoint else b"N", job, rows, columns),
        *(a.ctypes.data, rows, b.ctypes.data, columns, x.ctypes.data, rows),
        *(d.ctypes.data, rows, e.ctypes.data, columns, y.ctypes.data, rows),
        *(scale_address, scale_address + real.itemsize, work.ctypes.data, length, workspace, info),
    )
    return (x, y) if scale[0] == 1 else (x / scale[0], y / scale[0])


def qz(a: Array, b: Array) -> tuple[Array, Array, Array, Array]:
    """(s, t, q, z) with a = q s zᴴ and b = q t zᴴ, s quasi-triangular and t triangular; NaN if QZ does not converge."""
    try:
        s, t, q, z = scipy.linalg.qz(a, b, check_finite=False)
    except (np.linalg.LinAlgError, ValueError):
        s, t, q, z = (np.full_like(x, np.nan) for x in (a, b, a, a))
    return s, t, q, z


def svd(a: Array) -> tuple[Array, Array, Array]:
    """(u, values, vh), economic, by the QR algorithm; NaN if it does not converge."""
    u, values, vh, info = routine("gesvd", a.dtype.char)(a, full_matrices=0)
    return (
        (u, values, vh)
        if info == 0
        else (np.full_like(u, np.nan), np.full_like(values, np.nan), np.full_like(vh, np.nan))
    )


def eigh(a: Array) -> tuple[Array, Array]:
    """(values, vectors) of a Hermitian matrix by the QR algorithm; NaN if it does not converge."""
    values, vectors, info = routine("heev" if np.iscomplexobj(a) else "syev", a.dtype.char)(a, lower=1)
    return (values, vectors) if info == 0 else (np.full_like(values, np.nan), np.full_like(vectors, np.nan))


def balance(a: Array) -> Array:
    """The powers of two d that balance `a`: diag(d)⁻¹ a diag(d) has rows and columns of similar norms."""
    return routine("gebal", a.dtype.char)(a, scale=1, permute=0)[3]
