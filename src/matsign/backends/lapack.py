"""SciPy's LAPACK where it is faster than the array libraries' own calls, one matrix at a time, on NumPy arrays.

``numpy.linalg.inv`` solves with an identity and ``scipy.linalg.inv`` estimates a condition number; factor and invert
with a full workspace takes half their time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import scipy  # which imports scipy.linalg when it is first used: a third of a second that not everyone needs

Array = np.ndarray[Any, Any]

_LETTER = {"f": "s", "d": "d", "F": "c", "D": "z"}


@cache
def routine(name: str, char: str) -> Callable[..., Any]:
    """The LAPACK routine `name` for the dtype with this character code, such as ``routine("getrf", "d")``."""
    return getattr(scipy.linalg.lapack, _LETTER[char] + name)


def product(a: Array, b: Array) -> Array:
    """a b in the BLAS that the routines here use, so that the threads of NumPy's own do not get in the way."""
    if max(*a.shape, b.shape[1]) <= 64:
        return a @ b
    return getattr(scipy.linalg.blas, _LETTER[a.dtype.char] + "gemm")(1.0, a, b)


def inv(a: Array) -> Array:
    """Inverse of one matrix; NaN where it is singular."""
    char = a.dtype.char
    # The transpose of a C-ordered array is Fortran-ordered: LAPACK inverts it in place of a copy.
    lu, pivots, info = routine("getrf", char)(a.T)
    if info == 0:
        inverse, info = routine("getri", char)(lu, pivots, lwork=64 * max(len(a), 1), overwrite_lu=1)
        if info == 0:
            return inverse.T
    return np.full_like(a, np.nan)


def _no_selection(eigenvalue: Any, imaginary: Any = None) -> None:
    return None


def schur(a: Array, select: Callable[..., bool] | None = None) -> tuple[Array, Array, Array, int]:
    """(T, Z, eigenvalues, how many selected come first), a = Z T Zᴴ; real input gives the real quasi-triangular form."""
    char = a.dtype.char
    gees = routine("gees", char)
    lwork = max(3 * len(a), 1) if len(a) < 32 else 34 * len(a)
    result = gees(select or _no_selection, a, sort_t=int(select is not None), lwork=lwork)
    t, count, z, info = result[0], result[1], result[-3], result[-1]
    eigenvalues = result[2] + 1j * result[3] if len(result) == 7 else result[2]
    # info > n: reordering moved an eigenvalue over the line by rounding; the decomposition still holds.
    if 0 < info <= len(a):
        t, z = np.full_like(t, np.nan), np.full_like(z, np.nan)
    return t, z, eigenvalues, int(count)


def trsyl(a: Array, b: Array, c: Array, sign: int = 1) -> Array:
    """x with a x + sign x b = c for (quasi-)triangular a, b from `schur`."""
    x, scale, _ = routine("trsyl", c.dtype.char)(a, b, c, isgn=sign)
    return x if scale == 1 else x / scale


def is_definite(a: Array) -> bool:
    """Whether a Hermitian matrix is positive definite: whether it has a Cholesky factor."""
    return bool(routine("potrf", a.dtype.char)(a)[1] == 0)


def balance(a: Array) -> Array:
    """The powers of two d that balance `a`: diag(d)⁻¹ a diag(d) has rows and columns of like size."""
    return routine("gebal", a.dtype.char)(a, scale=1, permute=0)[3]
