"""The orthogonal Procrustes problem: the unitary Q that minimises ‖A Q - B‖, the nearest one to M = AᴴB.

With S = QᴴM and the rule R(M, dM) of `rotation_derivatives`:

tangent(A, B, dA, dB):
    dM = dAᴴ B + Aᴴ dB
    return R(M, dM), Re tr(Qᴴ dM)

cotangent(A, B, Q̄, s̄):
    M̄ = R(M, Q̄) + s̄ Q
    return B M̄ᴴ, A M̄

Source: Schönemann 1966.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from matsign._typing import Array, ArrayLike, Arrays, Generic, T
from matsign.backends import Backend
from matsign.core.members import Solution, overflow_failure, solution
from matsign.core.public import Residual, public_function
from matsign.core.tolerances import rank_tolerance
from matsign.functions.rotations.rotation_certificates import residual_of_nearest
from matsign.functions.rotations.rotation_derivatives import rotation_tangent
from matsign.functions.rotations.rotation_methods import nearest_by_svd
from matsign.linalg.stacks import adjoint, broadcast_scalar, inner, safe_divisor, scale_to_unit, to_double


class Procrustes(NamedTuple, Generic[T]):
    """Hold the solution of an orthogonal Procrustes problem.

    The result of `procrustes`: a named tuple, so ``q, scale = procrustes(A, B)`` works.

    Attributes
    ----------
    q : array (..., n, n)
        The orthogonal or unitary matrix for which A q is nearest to B.
    scale : array (...)
        The sum of the singular values of AᴴB. The best multiple of A q is ``scale`` / ‖A‖².

    See Also
    --------
    procrustes : Compute it.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import procrustes
    >>> A = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> result = procrustes(A, -3.0 * A)
    >>> result._fields
    ('q', 'scale')
    >>> (result.q.round(12) + 0.0).tolist(), round(float(result.scale / np.sum(A * A)), 12)
    ([[-1.0, 0.0], [0.0, -1.0]], 3.0)
    """

    q: T
    scale: T


class _Scaled(NamedTuple):
    """A and B divided by powers of two, their exponents, and M = AᴴB of the scaled ones."""

    a: Array
    b: Array
    ea: Array
    eb: Array
    m: Array


def _scale(backend: Backend, a: Array, b: Array) -> _Scaled:
    (a, ea), (b, eb) = scale_to_unit(backend, a), scale_to_unit(backend, b)
    return _Scaled(a, b, ea, eb, adjoint(a) @ b)


def _procrustes(backend: Backend, a: Array, b: Array, *, rtol: float | None) -> Solution:
    of = _scale(backend, a, b)
    m, _ = scale_to_unit(backend, of.m)
    q = nearest_by_svd(backend, to_double(backend, m), rank_tolerance(backend, of.m, rtol), rotation=False)
    q = backend.astype(q, backend.dtype_name(m))
    scale = backend.ldexp(inner(backend, q, of.m), of.ea + of.eb)
    result = solution(backend, (q, scale))
    return result._replace(failure=overflow_failure(backend, broadcast_scalar(scale), result.failure))


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **_: Any) -> Arrays:
    of, q = _scale(backend, *arrays), value[0]
    da, db = (backend.ldexp(x, broadcast_scalar(-e)) for x, e in zip(tangents, (of.ea, of.eb), strict=True))
    dm = adjoint(da) @ of.b + adjoint(of.a) @ db
    (dq,) = rotation_tangent(backend, (q,), (of.m,), (dm,))
    return dq, backend.ldexp(inner(backend, q, dm), of.ea + of.eb)


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **_: Any) -> Arrays:
    of, q, (bar_q, bar_scale) = _scale(backend, *arrays), value[0], cotangents
    (bar_m,) = rotation_tangent(backend, (q,), (of.m,), (bar_q,))
    bar_m = bar_m + broadcast_scalar(backend.ldexp(bar_scale, of.ea + of.eb)) * q
    bars = of.b @ adjoint(bar_m), of.a @ bar_m
    return tuple(backend.ldexp(x, broadcast_scalar(-e)) for x, e in zip(bars, (of.ea, of.eb), strict=True))


def _residual(backend: Backend, value: tuple[Array, Array], a: Array, b: Array) -> Residual:
    """That of the nearest unitary matrix to AᴴB, and the gap of the sum of its singular values."""
    (q, scale), of = value, _scale(backend, a, b)
    size = backend.norm(of.a) * backend.norm(of.b)
    result = residual_of_nearest(backend, q, of.m, 2 * size, rotation=False)
    nuclear, e = inner(backend, q, of.m), of.ea + of.eb
    gap = abs(nuclear - backend.ldexp(scale, -e))
    backward = backend.xp.maximum(result.backward, gap / safe_divisor(backend, size))
    correction = (result.correction[0], backend.ldexp(gap + backend.eps(nuclear) * size, e))
    return Residual(backward, correction, backend.ldexp(result.separation, e))


def procrustes(A: ArrayLike[T], B: ArrayLike[T], *, rtol: float | None = None, errors: str = "raise") -> Procrustes[T]:
    """Solve the orthogonal Procrustes problem.

    q minimises ‖A q - B‖ over all orthogonal, for complex arrays unitary matrices [1]_. The order of the arguments and
    results is that of SciPy.

    Parameters
    ----------
    A : array_like (..., k, n)
        Matrices, such as k points as rows, of dtype float32, float64, complex64 or complex128.
    B : array_like (..., k, n)
        Matrices of the same shape, to which A q is to be near.
    rtol : float, optional
        A singular value of AᴴB of at most ``rtol`` times the largest one counts as zero. Default: n eps.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    q : array (..., n, n)
        The orthogonal or unitary matrices.
    scale : array (...)
        The sums of the singular values of AᴴB, real. Both are the fields of the named tuple `Procrustes`.

    Raises
    ------
    SpectrumError
        If ``scale`` overflows or a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If A or B is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    kabsch : With a translation and weights, for rotations.
    msign : The factor of AᴴB with zeros where AᴴB is singular.
    scipy.linalg.orthogonal_procrustes : SciPy's, for one pair.

    Notes
    -----
    q is the unitary matrix nearest to AᴴB. Where AᴴB is singular there are several; the result is then, of all of them,
    the one nearest to I, and if several are equally near, a fixed rule takes one. With a factor, ‖c A q - B‖ is smallest
    for c = ``scale`` / ‖A‖².

    Derivatives exist to any order where AᴴB is nonsingular, also at repeated singular values. Where it is singular, those
    of q are NaN if q may turn (for real arrays of rank n - 1 it may only be reflected, and the derivative is that of
    the q that is returned), and the first one of ``scale`` is Re tr(qᴴ d(AᴴB)). A member of a batch gives the same bits
    as in a call by itself. Under ``jax.jit`` no error can be raised: a member without an answer is NaN.

    The backward error of `certify` is the largest of ‖M - q S‖ / (2‖M‖) with M = AᴴB and S the Hermitian part of qᴴM,
    ‖qᴴq - I‖ / (2√n), the size of a negative eigenvalue of S relative to the largest one, and the error of ``scale`` over
    ‖A‖ ‖B‖. The separation is the smallest sum of two eigenvalues of S, for real arrays of two different ones.

    References
    ----------
    .. [1] P. H. Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31(1), 1966,
       pp. 1-10, doi:10.1007/BF02289451.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import procrustes
    >>> turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    >>> A = np.array([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0]])
    >>> q, scale = procrustes(A, A @ turn)
    >>> bool(np.linalg.norm(q - turn) < 1e-14), bool(abs(scale - np.sum(A * A)) < 1e-13)
    (True, True)
    """
    return PROCRUSTES(A, B, rtol=rtol, errors=errors)


PROCRUSTES = public_function(
    procrustes,
    "(k,n),(k,n)->(n,n),()",
    kinds=("same", "real"),
    solve=_procrustes,
    residual=_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    wrap=lambda backend, q, scale: Procrustes(q, scale),
)
