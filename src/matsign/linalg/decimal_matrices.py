"""Real matrices of decimal numbers with a chosen number of digits, as NumPy arrays of ``decimal.Decimal``.

Products, sums and multiples are NumPy's own. The range of exponents is so wide that nothing over- or underflows. Compute
inside `precision`, which sets the number of digits for the current thread.
"""

from __future__ import annotations

import contextlib
import decimal
from collections.abc import Iterator
from decimal import Decimal

import numpy as np

from matsign._typing import NDArray as Array

_NORM_DIGITS = 28


@contextlib.contextmanager
def precision(count: int) -> Iterator[None]:
    """Decimal arithmetic with `count` digits. A division by zero or an invalid operation raises an ArithmeticError."""
    context = decimal.Context(prec=count, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
    with decimal.localcontext(context):
        yield


def from_floats(x: Array) -> Array:
    """`x` exactly; a complex matrix becomes the real [[re, -im], [im, re]], which preserves products and adjoints."""
    if np.iscomplexobj(x):
        x = np.block([[x.real, -x.imag], [x.imag, x.real]])
    out = np.empty(x.shape, object)
    for place, value in np.ndenumerate(x):
        out[place] = Decimal(float(value))
    return out


def to_floats(x: Array, like: Array) -> Array:
    """`x` in the dtype and the shape of `like`."""
    n, m = like.shape
    if not np.iscomplexobj(like):
        return x.astype(float).astype(like.dtype)
    return (x[:n, :m].astype(float) + 1j * x[n:, :m].astype(float)).astype(like.dtype)


def eye(n: int) -> Array:
    return from_floats(np.eye(n))


def size(x: Array) -> Decimal:
    """Frobenius norm to 28 digits, enough to scale or compare; a square root to a thousand digits would be slow."""
    rough = decimal.Context(prec=_NORM_DIGITS, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
    total = Decimal(0)
    for v in map(rough.plus, x.ravel()):
        total = rough.fma(v, v, total)
    return rough.sqrt(total)


def inverse(a: Array) -> Array:
    """Inverse by Gauss-Jordan elimination with partial pivoting; raises an ArithmeticError for a singular matrix."""
    a, n, one = a.copy(), len(a), Decimal(1)
    rows = list(range(n))
    for k in range(n):
        pivot = k + int(np.argmax(np.abs(a[k:, k])))
        if pivot != k:
            a[[k, pivot]] = a[[pivot, k]]
            rows[k], rows[pivot] = rows[pivot], rows[k]
        over = one / a[k, k]
        a[k, k] = one
        a[k] = a[k] * over
        for i in range(n):
            if i != k and a[i, k]:
                factor, a[i, k] = a[i, k], Decimal(0)
                a[i] = a[i] - factor * a[k]
    out = np.empty_like(a)
    out[:, rows] = a
    return out
