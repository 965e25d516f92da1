"""Real matrices of decimal numbers with as many digits as asked for, as NumPy arrays of ``decimal.Decimal``.

Products, sums and multiples are NumPy's own. The exponents have no bounds to speak of, so nothing over- or underflows, and
what a cancellation costs is paid in digits. Use them inside `precision`: the precision belongs to the thread.
"""

from __future__ import annotations

import contextlib
import decimal
from collections.abc import Iterator
from decimal import Decimal

import numpy as np

from matsign._typing import NDArray as Array

_ROUGH = 28  # digits of a norm


@contextlib.contextmanager
def precision(count: int) -> Iterator[None]:
    """Decimal arithmetic with this many digits. A division by zero and a result that is no number are an ArithmeticError."""
    context = decimal.Context(prec=count, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
    with decimal.localcontext(context):
        yield


def from_floats(x: Array) -> Array:
    """The values of `x`; a complex matrix as the real one [[re, -im], [im, re]], which keeps products and adjoints."""
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
    """Frobenius norm, to the digits that a scale or a comparison needs: a root in a thousand digits takes longer than a step."""
    rough = decimal.Context(prec=_ROUGH, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
    total = Decimal(0)
    for v in map(rough.plus, x.ravel()):
        total = rough.fma(v, v, total)
    return rough.sqrt(total)


def inverse(a: Array) -> Array:
    """By Gauss and Jordan with pivoting, in place of a copy; an ArithmeticError for a singular matrix."""
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
