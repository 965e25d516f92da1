"""Lyapunov equations a x eᴴ + e x aᴴ = q and Stein equations a x aᴴ - e x eᴴ + q = 0 on the CPU, by Schur forms.

In standard form, s = e⁻¹ a and e⁻¹ q e⁻ᴴ, they need one Schur form of s; the residual of the original equation corrects the
result. It is kept if its residual is at working precision, and if rounding errors in a and e, magnified by the inverse of e,
cannot make the equation singular. Others are solved by QZ, without an inverse (`direct.generalized_schur`). Equations that come
here are often ill-conditioned, so x is corrected by residuals in double-word arithmetic until a correction is below rounding.
Arguments and results are NumPy stacks with entries of moderate size.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

from matsign._typing import NDArray as Array
from matsign.backends import lapack
from matsign.backends import numpy as backend
from matsign.core.failures import Failure
from matsign.direct import bartels_stewart
from matsign.direct.bartels_stewart import SchurForm
from matsign.direct.generalized_schur import (
    GeneralizedForm,
    Inverse,
    probe_of,
    separation_if_singular,
    separation_of,
)
from matsign.linalg.double_word import DoubleWord, dw_add, dw_adjoint, dw_neg, dw_product, from_double
from matsign.linalg.separation import ROUNDINGS

# The standard form is not tried if the reciprocal condition number of e is below this power of eps.
_ILL_CONDITIONED = 0.75
# The largest residual that counts as rounding: this times eps times the norm of the moduli of the terms.
_AT_ROUNDING = 4


class _Standard(NamedTuple):
    """The equation T(x) = q by the Schur form of s = e⁻¹ a: T(x) = e S(x) eᴴ with S(x) = s x + x sᴴ or x - s x sᴴ."""

    a: Array
    e: Array
    inverse: Array
    lu: tuple[Array, Array]
    s: Array
    form: SchurForm
    discrete: bool

    def solve(self, q: Array) -> Array:
        """With one correction, if the residual is above rounding and the correction reduces it."""
        x = self._solve(q)
        if self.is_accurate(q, x):
            return x
        gap = self._gap(q, x)
        new = x + self._solve(gap)
        return new if _frobenius(self._gap(q, new)) < _frobenius(gap) else x

    def _gap(self, q: Array, x: Array) -> Array:
        return _total(_terms(self.a, x, q, self.e, self.discrete))

    def _solve(self, q: Array) -> Array:
        half = scipy.linalg.lu_solve(self.lu, q, check_finite=False).conj().T
        right = scipy.linalg.lu_solve(self.lu, half, check_finite=False).conj().T
        return _real_if(q, self.form.solve(np.ascontiguousarray(right)))

    def adjoint_solve(self, x: Array) -> Array:
        return _congruence(self.inverse.conj().T, _real_if(x, self.form.adjoint_solve(x)))

    def is_accurate(self, q: Array, x: Array) -> bool:
        """Whether the residual is at working precision."""
        a, y, right, e = (np.abs(z) for z in (self.a, x, q, self.e))
        first, second, third = _terms(a, y, right, e, self.discrete)
        size = _frobenius(np.abs(first) + np.abs(second) + np.abs(third))
        return _frobenius(self._gap(q, x)) <= _AT_ROUNDING * float(np.finfo(q.dtype).eps) * size

    def is_reliable(self, q: Array, x: Array) -> bool:
        """Whether x is accurate, and rounding errors in a and e cannot make the equation singular."""
        if not self.is_accurate(q, x):
            return False
        eps = float(np.finfo(q.dtype).eps)
        # The change of S by rounding: terms such as e⁻¹ δa x, and e⁻¹ δe s x.
        change = 2 * _norm(self.inverse) * (_norm(self.a) + _norm(self.e) * _norm(self.s))
        if self.discrete:
            change *= max(_norm(self.s), 1.0)
        return separation_of(_OfStandard(self.form), probe_of(q)) > ROUNDINGS * eps * change


class _OfStandard(NamedTuple):
    """The equation S(x) = q of a Schur form."""

    form: SchurForm

    def solve(self, q: Array) -> Array:
        return _real_if(q, self.form.solve(q))

    def adjoint_solve(self, x: Array) -> Array:
        return _real_if(x, self.form.adjoint_solve(x))


def lyapunov(a: Array, q: Array, e: Array) -> tuple[Array, Array, Array]:
    """(x, failure, detail) with a x eᴴ + e x aᴴ = q; the detail is the number of the failure's text."""
    return _solve_each(a, q, e, discrete=False, singular=Failure.COMMON_DESCRIPTOR_EIGENVALUE)


def stein(a: Array, q: Array, e: Array) -> tuple[Array, Array, Array]:
    """(x, failure, detail) with a x aᴴ - e x eᴴ + q = 0, as `lyapunov`."""
    return _solve_each(a, q, e, discrete=True, singular=Failure.RECIPROCAL_DESCRIPTOR_EIGENVALUES)


def lyapunov_responses(a: Array, rights: Array, e: Array) -> tuple[Array, Array]:
    """(solutions, separation) for right-hand sides (B, k, n, n)."""
    return _respond_each(a, rights, e, discrete=False)


def stein_responses(a: Array, rights: Array, e: Array) -> tuple[Array, Array]:
    """`lyapunov_responses` for the second equation."""
    return _respond_each(a, rights, e, discrete=True)


def _solve_each(a: Array, q: Array, e: Array, *, discrete: bool, singular: Failure) -> tuple[Array, Array, Array]:
    out, failure, detail = np.full_like(q, np.nan), np.zeros(len(q), np.int32), np.zeros(len(q), q.real.dtype)
    for k in range(len(q)):
        with np.errstate(all="ignore"):
            out[k], failure[k], detail[k] = _solve(a[k], q[k], e[k], discrete, singular)
    return out, failure, detail


def _solve(a: Array, q: Array, e: Array, discrete: bool, singular: Failure) -> tuple[Array | float, Failure, float]:
    if not all(np.isfinite(x.sum()) for x in (a, q, e)):
        return np.nan, Failure.NOT_CONVERGED, 0.0
    inverse, independence = _inverse(e)
    if independence <= _least_independence(e):
        return np.nan, Failure.SINGULAR_E, independence
    standard = _standard_form(a, e, inverse, independence, discrete)
    if standard is not None:
        x = standard.solve(q)
        if standard.is_reliable(q, x):
            return _refine(standard, x, a, q, e, discrete), Failure.NONE, 0.0
    form = _qz_form(a, e, discrete)
    if not form.is_finite():
        return np.nan, Failure.NOT_CONVERGED, 0.0
    x = form.solve(q)
    separation = separation_if_singular(form, q, x)
    if separation is not None:
        return np.nan, singular, separation
    return _refine(form, x, a, q, e, discrete), Failure.NONE, 0.0


# Corrections, and the ratio of each to the one before above which they do not converge.
_CORRECTIONS, _DECREASE = 6, 0.5


def _refine(form: Inverse, x: Array, a: Array, q: Array, e: Array, discrete: bool) -> Array:
    """x corrected by exact residuals; unchanged where the corrections do not decrease."""
    best, before, eps = x, _frobenius(x), float(np.finfo(q.dtype).eps)
    for _ in range(_CORRECTIONS):
        step = form.solve(_exact_gap(a, best, q, e, discrete))
        size = _frobenius(step)
        if not size < _DECREASE * before:
            return x
        best, before = best + step, size
        if size <= eps * _frobenius(best):
            return best
    return best


def _exact_gap(a: Array, x: Array, q: Array, e: Array, discrete: bool) -> Array:
    """q - T(x) in double-word arithmetic."""
    u, y, v = (from_double(z[None]) for z in (a, x, e))

    def term(left: DoubleWord, right: DoubleWord) -> DoubleWord:
        return dw_product(backend, dw_product(backend, left, y), dw_adjoint(right))

    terms = (term(u, u), dw_neg(term(v, v))) if discrete else (dw_neg(term(u, v)), dw_neg(term(v, u)))
    gap: Array = dw_add(dw_add(*terms), from_double(q[None])).high[0]
    return gap


def _respond_each(a: Array, rights: Array, e: Array, *, discrete: bool) -> tuple[Array, Array]:
    out, least = np.full_like(rights, np.nan), np.zeros(len(rights), rights.real.dtype)
    for k in range(len(rights)):
        with np.errstate(all="ignore"):
            form = _form_of(a[k], e[k], discrete)
            if form is not None:
                out[k] = [form.solve(right) for right in rights[k]]
                least[k] = separation_of(form, probe_of(rights[k, 0]))
    return out, least


def _form_of(a: Array, e: Array, discrete: bool) -> Inverse | None:
    """The standard form if it is reliable for a random right-hand side, else QZ; None if LAPACK fails."""
    standard = _standard_form(a, e, *_inverse(e), discrete)
    if standard is not None:
        probe = probe_of(a)
        if standard.is_reliable(probe, standard.solve(probe)):
            return standard
    form = _qz_form(a, e, discrete)
    return form if form.is_finite() else None


def _qz_form(a: Array, e: Array, discrete: bool) -> GeneralizedForm:
    """The generalised Schur form of (a, e), and of a pencil for the right side."""
    ah, eh = (np.ascontiguousarray(x.conj().T) for x in (a, e))
    return GeneralizedForm.of(e, eh, -a, ah) if discrete else GeneralizedForm.of(a, eh, e, ah)


def _standard_form(a: Array, e: Array, inverse: Array, independence: float, discrete: bool) -> _Standard | None:
    if not independence > float(np.finfo(e.dtype).eps) ** _ILL_CONDITIONED:
        return None
    lu = scipy.linalg.lu_factor(e, check_finite=False)
    s = np.ascontiguousarray(scipy.linalg.lu_solve(lu, a, check_finite=False))
    form = bartels_stewart.schur_form(s, discrete=discrete)
    return None if form is None else _Standard(a, e, inverse, lu, s, form, discrete)


def _inverse(e: Array) -> tuple[Array, float]:
    """(e⁻¹, reciprocal condition number of e in the Frobenius norm, 0 if e has no inverse)."""
    inverse = np.ascontiguousarray(lapack.inv(e))
    product = _frobenius(e) * _frobenius(inverse)
    return inverse, 1 / product if np.isfinite(product) and product > 0 else 0.0


def _least_independence(e: Array) -> float:
    """The reciprocal condition number up to which e counts as singular."""
    return ROUNDINGS * float(np.finfo(e.dtype).eps) / len(e) ** 0.5


def _terms(a: Array, x: Array, q: Array, e: Array, discrete: bool) -> tuple[Array, ...]:
    """The terms of q - T(x)."""
    if discrete:
        return q, _congruence(a, x), -_congruence(e, x)
    return q, -_two_sided(a, x, e), -_two_sided(e, x, a)


def _total(parts: tuple[Array, ...]) -> Array:
    first, second, third = parts
    return first + second + third


def _congruence(u: Array, x: Array) -> Array:
    """u x uᴴ."""
    return _two_sided(u, x, u)


def _two_sided(u: Array, x: Array, v: Array) -> Array:
    """u x vᴴ."""
    return lapack.product(lapack.product(u, x), np.ascontiguousarray(v.conj().T))


def _real_if(like: Array, x: Array) -> Array:
    return x.real if np.iscomplexobj(x) and not np.iscomplexobj(like) else x


def _norm(x: Array) -> float:
    return float(np.linalg.norm(x, 2))


def _frobenius(x: Array) -> float:
    return float(np.linalg.norm(x))
