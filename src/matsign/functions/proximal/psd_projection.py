"""The projection on the Hermitian positive semidefinite matrices."""

from __future__ import annotations

from typing import Any

from matsign._typing import Array, ArrayLike, Arrays, T
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.public import Residual, public_function
from matsign.functions.proximal.certificates import gap_of_sum, reflections
from matsign.functions.proximal.methods import eigenvalue_bound, sign_in_rule, spectral_projectors
from matsign.iterations.differentiable_solves import sylvester_symmetric
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    eye,
    hermitian,
    safe_divisor,
    scale_to_unit,
)


def _hermitian_part(backend: Backend, a: Array) -> tuple[Array, Array]:
    """(a + aᴴ)/2 scaled, and the log2 of its scale. a is scaled first: the sum might overflow or lose its last digits."""
    a, e = scale_to_unit(backend, a)
    h, f = scale_to_unit(backend, hermitian(a))
    return h, e + f


def _project(backend: Backend, a: Array, *, method: str) -> Solution:
    h, e = _hermitian_part(backend, a)
    (x,) = _halves(backend, h, method, (1,))
    return solution(backend, (backend.ldexp(hermitian(x), broadcast_scalar(e)),))


def _halves(backend: Backend, h: Array, method: str, signs: tuple[int, ...] = (1, -1)) -> Arrays:
    """The positive parts of H and of -H."""
    if method == "eigh" or (method == "auto" and backend.fast_eigh(h)):
        values, vectors = backend.eigh(h)
        sizes = (backend.xp.where(s * values > 0, s * values, 0 * values) for s in signs)
        return tuple((vectors * x[:, None, :]) @ adjoint(vectors) for x in sizes)
    below, above = spectral_projectors(backend, h)
    return tuple(above @ h @ above if s > 0 else -below @ h @ below for s in signs)


def _project_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
    """dX = R dH R + C + Cᴴ with |H| C + C |H| = X dH (I - R): for λᵢ > 0 > λⱼ, dXᵢⱼ = λᵢ / (λᵢ - λⱼ) dHᵢⱼ."""
    (h, e), dh = _hermitian_part(backend, arrays[0]), hermitian(tangents[0])
    x = backend.ldexp(value[0], broadcast_scalar(-e))  # no derivative changes with the scale
    unit, size = eye(backend, h), safe_divisor(backend, eigenvalue_bound(backend, backend.stop_gradient(h)))
    s = sign_in_rule(backend, h + broadcast_scalar(32 * backend.eps(h) * size) * unit)
    r, rest = (unit + s) / 2, (unit - s) / 2
    c = r @ sylvester_symmetric(backend, hermitian(2 * x - h), x @ dh @ rest) @ rest
    return (r @ dh @ r + c + adjoint(c),)


def _project_residual(backend: Backend, value: tuple[Array], a: Array, *, method: str) -> Residual:
    """X = (H + |H|)/2, and X by the same method from Q H Q with a reflection Q."""
    h, e = _hermitian_part(backend, a)
    reflect = reflections(backend, h, alike=True)
    other, rest = (reflect(x) for x in _halves(backend, hermitian(reflect(h)), method))
    terms = tuple(backend.ldexp(x, broadcast_scalar(e - 1)) for x in (h, other + rest))
    return gap_of_sum(backend, value[0], terms, (backend.ldexp(other, broadcast_scalar(e)),), a, a)


def psd_project(A: ArrayLike[T], *, method: str = "auto", errors: str = "raise") -> T:
    """Project a matrix on the Hermitian positive semidefinite matrices.

    psd(A) = (H + abs(H))/2 with H = (A + Aᴴ)/2: the positive semidefinite matrix nearest to A in the Frobenius norm
    [1]_.

    Parameters
    ----------
    A : array_like (..., n, n)
        Square matrices, Hermitian or not, of dtype float32, float64, complex64 or complex128.
    method : {"auto", "eigh", "sign"}, default "auto"
        How the projection is computed:

        - "eigh": by eigenvectors.
        - "sign": by matrix products alone, as R H R with the projector R = (I + sign(H))/2.
        - "auto": "eigh" on a CPU, "sign" on an accelerator.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    X : array (..., n, n)
        The projections, in the library, on the device and in the dtype of A.

    Raises
    ------
    SpectrumError
        If a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, or an option has a value other than those above.
    TypeError
        If A is not a dense array of numbers of a supported dtype.

    See Also
    --------
    matrix_abs : The absolute value.
    mclip : Clip singular values.

    Notes
    -----
    The cost on a CPU is that of one Hermitian eigenvalue problem.

    Derivatives exist to any order where H is nonsingular. A zero eigenvalue is treated as a positive one, so the
    derivative at a positive semidefinite A is the identity on Hermitian directions. A member of a batch gives the same
    bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member without an answer is NaN.

    The backward error of `certify` is ‖X - (H + H sign(H))/2‖ / (‖X‖ + ‖H/2‖ + ‖H sign(H)/2‖).

    References
    ----------
    .. [1] N. J. Higham, "Computing a nearest symmetric positive semidefinite matrix", Linear Algebra Appl. 103, 1988,
       pp. 103-118, doi:10.1016/0024-3795(88)90223-6.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import psd_project
    >>> A = np.array([[1.0, 2.0], [2.0, 1.0]])
    >>> X = psd_project(A)
    >>> X.round(12)
    array([[1.5, 1.5],
           [1.5, 1.5]])
    >>> bool(np.linalg.norm(X - psd_project(-A) - A) < 1e-14)
    True
    """
    return PSD_PROJECT(A, method=method, errors=errors)


PSD_PROJECT = public_function(
    psd_project,
    "(n,n)->(n,n)",
    solve=_project,
    residual=_project_residual,
    tangent=_project_tangent,
    cotangent=_project_tangent,
    choices={"method": ("auto", "eigh", "sign")},
)
