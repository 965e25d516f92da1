"""Schur methods on the CPU, references for the iterations and their fallback: NumPy stacks in, NumPy stacks out.

They are backward stable for every spectrum, but the QR algorithm has no batches and gains little from more cores.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import scipy

from matsign._typing import NDArray as Array
from matsign.backends import lapack, load
from matsign.core.failures import Failure
from matsign.direct.triangular import flip, triangular_sylvester
from matsign.linalg.separation import ROUNDINGS, rounding_separation, separation
from matsign.linalg.stacks import probe_numbers


def _in_left_half(eigenvalue: Any, imaginary: Any = None) -> bool:
    return bool(eigenvalue.real < 0)


def sign(stack: Array) -> tuple[Array, Array]:
    """(mcsgn, failure) from the Schur form with the left half plane first and a Sylvester equation for its corner."""
    out, failure = np.empty_like(stack), np.zeros(len(stack), np.int32)
    eps = float(np.finfo(stack.dtype).eps)
    for k, m in enumerate(_to_double(stack)):
        if not np.isfinite(m).all():
            failure[k] = Failure.NOT_CONVERGED
            continue
        t, z, eigenvalues, left = lapack.schur(m, _in_left_half)
        if _on_axis(m, eigenvalues, eps):
            failure[k] = Failure.AXIS
        s = np.eye(len(m), dtype=m.dtype)
        if left == len(m):
            s *= -1
        elif left:
            x = triangular_sylvester(t[:left, :left], t[left:, left:], -t[:left, left:], -1)
            zh = z.conj().T
            s -= 2 * lapack.product(z[:, :left], zh[:left] - lapack.product(x, zh[left:]))
            s = _refine_sign(s)
        out[k] = s
        if not np.isfinite(s).all():
            failure[k] = Failure.NOT_CONVERGED
    return out, failure


def _refine_sign(s: Array) -> Array:
    """s after a Newton-Schulz step if that reduces ‖S² - I‖, which badly scaled arguments may amplify."""
    one = np.eye(len(s), dtype=s.dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # S² may overflow: then s is returned unchanged
        gap = one - lapack.product(s, s)
        better = s + lapack.product(s, gap) / 2
        left = one - lapack.product(better, better)
    return better if np.linalg.norm(left) < np.linalg.norm(gap) else s


def _to_double(stack: Array) -> Array:
    """Single precision converted to double, in which the reference is computed."""
    return stack.astype({"f": "d", "F": "D"}.get(stack.dtype.char, stack.dtype))


def axis(stack: Array) -> Array:
    """Which members have an eigenvalue on the imaginary axis to working precision."""
    eps = float(np.finfo(stack.dtype).eps)
    return np.array([_on_axis(m, _eigenvalues(m), eps) for m in stack])


def _eigenvalues(m: Array) -> Array:
    """NaN for a matrix that is not finite, or if the QR algorithm does not converge."""
    try:
        return np.linalg.eigvals(m)
    except np.linalg.LinAlgError:
        return np.full(len(m), complex(np.nan, np.nan))


def touches_axis(stack: Array) -> Array:
    """As `axis`, but an eigenvalue zero counts as on the axis."""
    out = np.zeros(len(stack), bool)
    for k, m in enumerate(stack):
        tiny = len(m) * np.finfo(m.dtype).eps * np.linalg.norm(m)
        values = _eigenvalues(m)
        near = values[np.argsort(np.abs(values.real))[:3]]
        shifted = (m - 1j * x.imag * np.eye(len(m)) for x in near)
        out[k] = any(smallest_singular_value(x.astype(np.complex128)) <= tiny for x in shifted)
    return out


def _on_axis(m: Array, eigenvalues: Array, eps: float) -> bool:
    """Whether rounding of m may put an eigenvalue at i w: m - i w I is singular to working precision.

    Real parts are no test, because rounding moves a k-fold eigenvalue by the k-th root of eps. They select the candidates for w.
    """
    if not np.abs(eigenvalues.real).min() <= eps**0.25 * np.abs(eigenvalues).max():
        return False  # also for NaN
    n = len(m)
    tiny = n * eps * np.linalg.norm(m)
    # Eigenvalues near zero are treated by rtol and deflation.
    nonzero = eigenvalues[np.abs(eigenvalues.imag) > tiny]
    for k in np.argsort(np.abs(nonzero.real))[:3]:
        shifted = m - 1j * nonzero[k].imag * np.eye(n)
        if smallest_singular_value(shifted.astype(np.complex128)) <= tiny:
            return True
    return False


def smallest_singular_value(a: Array) -> float:
    """An upper bound within a factor near 1, by inverse iteration on aᴴa."""
    if len(a) <= 64:
        try:
            return float(np.linalg.svd(a, compute_uv=False)[-1])
        except np.linalg.LinAlgError:
            return math.nan
    with lapack.quiet():  # a singular matrix, which is expected, gives a warning
        lu = scipy.linalg.lu_factor(a, check_finite=False)
    v = np.random.default_rng(0).standard_normal(len(a)) + 0j
    for _ in range(4):
        v /= np.linalg.norm(v)
        w = scipy.linalg.lu_solve(lu, v, trans=2, check_finite=False)
        v = scipy.linalg.lu_solve(lu, w, check_finite=False)
        if not np.isfinite(v).all():
            return 0.0
    return float(np.linalg.norm(w) / np.linalg.norm(v))


def sylvester(a: Array, b: Array, q: Array) -> tuple[Array, Array]:
    """(x, failure) with a x + x b = q of moderate size, by Bartels and Stewart (1972) with a blocked triangular solver."""
    out, failure = np.full_like(q, np.nan), np.zeros(len(q), np.int32)
    for k in range(len(q)):
        if not (np.isfinite(a[k].sum()) and np.isfinite(b[k].sum()) and np.isfinite(q[k].sum())):
            failure[k] = Failure.NOT_CONVERGED
            continue
        form = _schur_forms(a[k], b[k])
        with np.errstate(all="ignore"):
            y = triangular_sylvester(form.r, form.s, form.to_schur_basis(q[k]))
            if not (np.isfinite(form.r).all() and np.isfinite(form.s).all()):
                failure[k] = Failure.NOT_CONVERGED
            elif _singular(form, _size(q[k]), _size(y)):
                failure[k] = Failure.COMMON_EIGENVALUE
            else:
                out[k] = form.from_schur_basis(y)
    return out, failure


def solutions(a: Array, b: Array, q: Array) -> tuple[Array, Array]:
    """x with a x + x b = q for right-hand sides (B, k, n, m) of moderate size, and the separation of the equation."""
    out, least = np.empty_like(q), np.zeros(len(q), q.real.dtype)
    for k in range(len(q)):
        form = _schur_forms(a[k], b[k])
        for i, right in enumerate(q[k]):
            out[k, i] = form.from_schur_basis(triangular_sylvester(form.r, form.s, form.to_schur_basis(right)))
        least[k] = separation(load("numpy"), form.inverse, form.adjoint_inverse, form.like).value[0]
    return out, least


def right_sides(a: Array, b: Array, q: Array) -> Array:
    """x with a x + x b = q for right-hand sides (B, k, n, m)."""
    out = np.empty_like(q)
    for k in range(len(q)):
        form = _schur_forms(a[k], b[k])
        for i, right in enumerate(q[k]):
            out[k, i] = form.from_schur_basis(triangular_sylvester(form.r, form.s, form.to_schur_basis(right)))
    return out


class _SchurForms(NamedTuple):
    """a = u r uᴴ and b = v s vᴴ; `inverse` and `adjoint_inverse` map stacks of one."""

    r: Array
    u: Array
    s: Array
    v: Array

    @property
    def like(self) -> Array:
        return np.empty((1, len(self.r), len(self.s)), self.r.dtype)

    def to_schur_basis(self, q: Array) -> Array:
        return lapack.product(lapack.product(self.u.conj().T, q), self.v)

    def from_schur_basis(self, y: Array) -> Array:
        return lapack.product(lapack.product(self.u, y), self.v.conj().T)

    def inverse(self, y: Array) -> Array:
        return triangular_sylvester(self.r, self.s, y[0])[None]

    def adjoint_inverse(self, y: Array) -> Array:
        # By flipping: J rᴴ J and J sᴴ J are upper triangular again.
        x = triangular_sylvester(flip(self.r), flip(self.s), np.asfortranarray(y[0, ::-1, ::-1]))
        return x[None, ::-1, ::-1]


def _schur_forms(a: Array, b: Array) -> _SchurForms:
    return _SchurForms(*lapack.schur_pair(a, b))


def _singular(form: _SchurForms, size_q: float, size_y: float) -> bool:
    """Whether the equation is singular to working precision; one random right-hand side nearly always decides.

    The distance between the spectra is no test: with long Jordan chains an equation is nearly singular though they are far
    apart. The same tests as `separation.may_be_singular` and `rounding_separation`, without their overhead for a small matrix.
    """
    n, m = len(form.r), len(form.s)
    start = probe_numbers(n, m)
    y = triangular_sylvester(form.r, form.s, start.astype(form.r.dtype))
    eps = float(np.finfo(form.r.dtype).eps)
    least = np.divide(_size(start), _size(y))
    if size_q > 0:
        least = min(least, np.divide(size_q, size_y))
    if least > 100 * math.sqrt(n * m) * ROUNDINGS * eps * (_size(form.r) + _size(form.s)):
        return False
    backend = load("numpy")
    limit = rounding_separation(backend, form.r[None], form.s[None])[0]
    return not (least > limit and separation(backend, form.inverse, form.adjoint_inverse, form.like).value[0] > limit)


def _size(x: Array) -> float:
    flat = x.ravel(order="K")
    return math.sqrt(abs(np.vdot(flat, flat)))


def square_root(stack: Array, noise: Array) -> tuple[Array, Array, Array]:
    """(principal square root, failure, detail) by SciPy's Schur method (Björck and Hammarling 1983); `noise` as below."""
    finite = np.asarray(np.isfinite(stack).all((-1, -2)))
    if not finite.all():
        stack = np.where(finite[:, None, None], stack, np.eye(stack.shape[-1], dtype=stack.dtype))
    with lapack.quiet():  # a singular matrix gives a warning: the caller checks the residual
        root = _scipy_root(stack)
    failure, detail = negative_eigenvalues(stack, noise)
    if np.iscomplexobj(root) and not np.iscomplexobj(stack):
        failure[(root.imag != 0).any((-1, -2)) & (failure == 0)] = Failure.NEAR_NEGATIVE
        root = root.real
    failure[~(finite & np.isfinite(root).all((-1, -2))) & (failure == 0)] = Failure.NOT_CONVERGED
    return root.astype(stack.dtype), failure, detail


def _scipy_root(stack: Array) -> Array:
    """NaN where LAPACK raises."""
    try:
        return np.asarray(scipy.linalg.sqrtm(stack))
    except np.linalg.LinAlgError:
        if len(stack) == 1:
            return np.full_like(stack, np.nan)
        return np.concatenate([_scipy_root(a[None]) for a in stack])


def negative_eigenvalues(stack: Array, noise: Array) -> tuple[Array, Array]:
    """(failure, eigenvalue) of members with a negative eigenvalue, or one that a relative change by `noise` makes negative."""
    failure, detail = np.zeros(len(stack), np.int32), np.zeros((len(stack), 2), stack.real.dtype)
    # The usual and cheapest case: a positive definite Hermitian part proves that the spectrum lies in the right half plane.
    with np.errstate(all="ignore"):
        factor = load("numpy").cholesky(stack + stack.conj().swapaxes(-1, -2))
    rest = np.flatnonzero(~np.isfinite(factor.sum((-1, -2))) & np.isfinite(stack).all((-1, -2)))
    for k, eigenvalues in zip(rest, _eigenvalues_of_each(stack[rest]), strict=True):
        eigenvalue = near_negative_eigenvalue(stack[k], eigenvalues, float(noise[k]))
        if eigenvalue is not None:
            failure[k] = Failure.NEGATIVE if eigenvalue.imag == 0 else Failure.NEAR_NEGATIVE
            detail[k] = eigenvalue.real, eigenvalue.imag
    return failure, detail


def _eigenvalues_of_each(stack: Array) -> Array:
    try:
        return np.linalg.eigvals(stack).astype(complex)
    except np.linalg.LinAlgError:
        return np.stack([_eigenvalues(m) for m in stack]).astype(complex)


def near_negative_eigenvalue(a: Array, eigenvalues: Array, noise: float) -> complex | None:
    """An eigenvalue that rounding of `a` may put on the negative axis: a computed double one may be a pair beside the axis.

    A simple negative eigenvalue of a real matrix stays on the axis, however small it is.
    """
    if not (eigenvalues.real < 0).any():
        return None
    negative = eigenvalues[(eigenvalues.real < 0) & (eigenvalues.imag == 0)]
    if len(negative) and not np.iscomplexobj(a):
        return complex(negative[np.argmin(negative.real)])
    tiny = float(noise * np.linalg.norm(a))
    eps = max(float(np.finfo(a.dtype).eps), float(noise) / len(a))
    beside = np.abs(eigenvalues.imag) <= -defect_radius(len(a), eps) * eigenvalues.real
    near = eigenvalues[(eigenvalues.real < -tiny) & beside]
    for x in near[np.argsort(np.abs(near.imag))[:3]]:
        # The first test is a consequence of the second, but for rounding of the real part.
        if abs(x.imag) <= tiny or smallest_singular_value(a - x.real * np.eye(len(a))) <= tiny:
            return complex(x)
    return None


def defect_radius(n: int, eps: float) -> float:
    """How far rounding moves a eigenvalue relative to its size, by the k-th root of eps for a Jordan block of size k."""
    return float(eps ** (1 / min(max(n, 4), 12)))


def graph(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array, Array, Array]:
    """(x, number of eigenvalues on the right, whether one is on the axis, whether [x; I] spans the right invariant subspace) of
    [[a, c], [d, b]].
    """
    m, count = _to_double(np.block([[a, c], [d, b]])), np.zeros(len(a), np.int32)
    x, axis, spans = np.full_like(c, np.nan), np.zeros(len(a), bool), np.zeros(len(a), bool)
    eps = float(np.finfo(c.dtype).eps)
    n = a.shape[-1]
    for k, matrix in enumerate(m):
        _, z, eigenvalues, count[k] = lapack.schur(matrix, _in_right_half)
        axis[k] = _on_axis(matrix, eigenvalues, eps)
        if count[k] == b.shape[-1] and np.isfinite(z).all():
            top, bottom = z[:n, : count[k]], z[n:, : count[k]]
            inverse = lapack.inv(bottom)
            x[k] = top @ inverse
            # The columns are orthonormal: if the bottom block is singular to working precision, the subspace is not a graph.
            spans[k] = bool(np.linalg.norm(inverse) * eps < 1)
    return x, count, axis, spans


def _in_right_half(eigenvalue: Any, imaginary: Any = None) -> bool:
    return bool(eigenvalue.real > 0)
