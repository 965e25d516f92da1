"""Steps of steepest descent under the spectral norm for weights that stay on a manifold.

The step A maximises Re tr(GᴴA) subject to ‖A‖₂ ≤ 1 among the tangents of the manifold at W: on the Stiefel manifold WᴴW = I
those with WᴴA + AᴴW = 0, on the spectral sphere σ₁(W) = const those with Re tr(ΘᴴA) = 0 for Θ = u₁v₁ᴴ.
`iterations.tangent_ascent` has the method. For a square W on the Stiefel manifold, A = W Ω with skew-Hermitian Ω, so that
A = W msign((WᴴG - GᴴW)/2).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, NoReturn

from matsign._typing import Array, ArrayLike, Generic, T
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.core.options import real_number, short_repr
from matsign.core.public import public_function
from matsign.core.tolerances import working_precision
from matsign.iterations.tangent_ascent import Ascent, SphereNormals, StiefelNormals, ascend, tangent_part
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, inner, safe_divisor, scale_to_unit, to_double

# The largest ‖WᴴW - I‖ at which W still counts as orthonormal up to rounding of its entries; the step is that at msign(W).
_ORTHONORMAL = 1e-2
# The default of `gap`, in double and in single precision.
_GAP, _GAP_SINGLE = 1e-8, 1e-4


class ManifoldStep(NamedTuple, Generic[T]):
    """Hold a step along a manifold.

    The result of `stiefel_step` and `spectral_sphere_step`: a named tuple, so ``step, gap = stiefel_step(W, G)`` works.

    Attributes
    ----------
    step : array (..., n, m)
        The tangent A with ‖A‖₂ ≤ 1 along which G increases most.
    gap : array (...)
        The relative duality gap: Re tr(GᴴA) is at least 1 - ``gap`` times its maximum.

    See Also
    --------
    stiefel_step, spectral_sphere_step : Compute it.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign.optim import stiefel_step
    >>> result = stiefel_step(np.eye(2), np.array([[0.0, 3.0], [1.0, 0.0]]))
    >>> result._fields
    ('step', 'gap')
    """

    step: T
    gap: T


def _stiefel(backend: Backend, w: Array, g: Array, *, gap: float | None) -> Solution:
    if w.shape[-2] < w.shape[-1]:
        result = _stiefel(backend, adjoint(w), adjoint(g), gap=gap)
        return result._replace(value=(adjoint(result.value[0]), result.value[1]))
    noise, kind = working_precision(backend, g), backend.dtype_name(g)
    w, (g, _) = to_double(backend, w), scale_to_unit(backend, to_double(backend, g))
    defect = backend.norm(adjoint(w) @ w - eye(backend, w))
    u, _, vh = backend.svd(w)
    normals = StiefelNormals(u @ vh)
    g = _tangent_gradient(backend, normals, g, noise)
    if w.shape[-2] == w.shape[-1]:
        step, reached = _square(backend, normals.w, g)
        result = solution(backend, (backend.astype(step, kind), backend.astype(reached, _real(kind))))
    else:
        result = _ascent(backend, normals, g, gap, kind)
    failure = Failure.NOT_ORTHONORMAL.where(backend, ~(defect <= _ORTHONORMAL), result.failure)
    return result._replace(failure=failure, detail=_detail(backend, result, failure, defect))


def _square(backend: Backend, w: Array, g: Array) -> tuple[Array, Array]:
    """The step for a square W: W times the msign of the skew-Hermitian WᴴG."""
    k = adjoint(w) @ g
    u, values, vh = backend.svd((k - adjoint(k)) / 2)
    kept = values > k.shape[-1] * backend.eps(k) * values[:, :1]
    omega = (u * kept[:, None, :]) @ vh
    step = w @ ((omega - adjoint(omega)) / 2)
    bound = backend.xp.sum(values, axis=-1)
    step = step / broadcast_scalar(backend.xp.maximum(backend.svd(step)[1][:, 0], 1 + 0 * bound))
    lost = backend.xp.maximum(bound - inner(backend, g, step), 0 * bound)
    return step, lost / safe_divisor(backend, bound)


def _sphere(backend: Backend, w: Array, g: Array, *, gap: float | None) -> Solution:
    if w.shape[-2] < w.shape[-1]:
        result = _sphere(backend, adjoint(w), adjoint(g), gap=gap)
        return result._replace(value=(adjoint(result.value[0]), result.value[1]))
    noise, kind, equal = working_precision(backend, g), backend.dtype_name(g), working_precision(backend, w)
    (w, _), (g, _) = scale_to_unit(backend, to_double(backend, w)), scale_to_unit(backend, to_double(backend, g))
    u, values, vh = backend.svd(w)
    zero = values[:, 0] == 0
    top = backend.astype(values >= (1 - equal) * values[:, :1], backend.dtype_name(w))
    count = backend.xp.sum(top.real, axis=-1)
    normals = SphereNormals(((u * top[:, None, :]) @ vh) / broadcast_scalar(count))
    result = _ascent(backend, normals, _tangent_gradient(backend, normals, g, noise), gap, kind)
    failure = Failure.ZERO_WEIGHT.where(backend, zero, result.failure)
    return result._replace(failure=failure, detail=_detail(backend, result, failure, count))


def _tangent_gradient(backend: Backend, normals: Any, g: Array, noise: float) -> Array:
    """The tangent nearest to G, which has the same step; 0 where no more than rounding errors of G are left."""
    tangent = tangent_part(backend, normals, g)
    rounding = ~(backend.norm(tangent) > noise * backend.norm(g))
    return backend.xp.where(broadcast_scalar(rounding), 0 * tangent, tangent)


def _ascent(backend: Backend, normals: Any, g: Array, gap: float | None, kind: str) -> Solution:
    if gap is None:
        gap = _GAP if backend.eps(g) < 1e-10 else _GAP_SINGLE
    long, short = g.shape[-2:]
    basis = None
    if isinstance(normals, StiefelNormals) and long > 2 * short:  # the step has the columns of W and G
        basis = backend.xp.linalg.qr(backend.xp.concat([normals.w, g], axis=-1))[0]
        normals, g = StiefelNormals(adjoint(basis) @ normals.w), adjoint(basis) @ g
    found: Ascent = ascend(backend, normals, g, gap)
    step = found.step if basis is None else basis @ found.step
    value = backend.astype(step, kind), backend.astype(found.gap, _real(kind))
    return solution(backend, value, Failure.DUALITY_GAP, ~(found.gap <= gap), found.count, found.gap)


def _detail(backend: Backend, result: Solution, failure: Array, number: Array) -> Array:
    """The details, with a number where the failure is not that of the gap."""
    of_gap = (failure == 0) | (failure == int(Failure.DUALITY_GAP))
    number = backend.astype(number, backend.dtype_name(result.detail))
    zeros = backend.xp.stack([number, 0 * number], axis=-1)
    return backend.xp.where(of_gap[:, None], result.detail, zeros)


def _real(kind: str) -> str:
    return {"complex64": "float32", "complex128": "float64"}.get(kind, kind)


def _no_certificate(*_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError("a step along a manifold has its certificate in the result: the field gap")


def _no_derivative(*_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError(
        "a step along a manifold has no derivative here: compute it without gradients (torch.no_grad(), "
        "jax.lax.stop_gradient), as optimisers do"
    )


def _check_gap(name: str, *, gap: float | None) -> None:
    if gap is not None and not 0 < real_number(gap) < 1:
        raise ValueError(f"{name}: gap must be a number between 0 and 1, got {short_repr(gap)}")


def stiefel_step(
    W: ArrayLike[T], G: ArrayLike[T], *, gap: float | None = None, errors: str = "raise"
) -> ManifoldStep[T]:
    """Compute the steepest step under the spectral norm along the Stiefel manifold.

    A maximises Re tr(GᴴA) over all A with ‖A‖₂ ≤ 1 and WᴴA + AᴴW = 0, the tangents of WᴴW = I at W. A descent for a
    loss with gradient G is W ← msign(W - lr A) [1]_, [2]_.

    Parameters
    ----------
    W : array_like (..., n, m)
        Matrices with orthonormal columns, or with orthonormal rows if n < m, of dtype float32, float64, complex64 or complex128.
    G : array_like (..., n, m)
        The gradients or momenta, of any size and rank.
    gap : float, optional
        The relative duality gap to reach. Default: 1e-8, or 1e-4 where there is no double precision.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `matsign.SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    step : array (..., n, m)
        The steps A.
    gap : array (...)
        Their relative duality gaps. Both are the fields of the named tuple `ManifoldStep`.

    Raises
    ------
    matsign.SpectrumError
        If the gap does not reach ``gap``, W is not orthonormal (‖WᴴW - I‖ > 0.01), or a member holds NaN or infinity, and
        ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If W or G is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    spectral_sphere_step : The same where only the largest singular value of W is fixed.
    Muon : Takes such steps with ``manifold="stiefel"``.
    matsign.msign : The step without a manifold, and the way back to it.

    Notes
    -----
    The maximum equals the minimum of ‖G + W X‖_*, the sum of the singular values, over Hermitian X. The method is Newton's
    for this dual, smoothed by a self-concordant barrier, with conjugate gradients that a Lyapunov equation preconditions. It
    needs 10 to 80 singular value decompositions, and works where G + W X is singular, too. For a square W,
    A = W msign((WᴴG - GᴴW)/2).

    W may be orthonormal up to rounding of a lower precision: A is a tangent at msign(W). Where G is normal to the manifold
    up to rounding, G = W S with Hermitian S, every tangent A has Re tr(GᴴA) = 0, and the result is A = 0 with the gap 0.
    Where the maximum is attained at several A, the result is one of them.

    There are no derivatives; `matsign.certify` does not take it: the gap is a certificate, for the A that is returned.

    References
    ----------
    .. [1] J. Bernstein, "Modular manifolds", Thinking Machines Lab, 2025, doi:10.64434/tml.20250926.
    .. [2] J. Su, "Steepest descent on manifolds: 3. Muon + Stiefel" (in Chinese), 2025, https://kexue.fm/archives/11221.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign.optim import stiefel_step
    >>> W = np.eye(4, 2)
    >>> G = np.array([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0], [0.0, 1.0]])
    >>> step, gap = stiefel_step(W, G)
    >>> bool(np.linalg.norm(step, 2) <= 1 + 1e-15), bool(np.linalg.norm(W.T @ step + step.T @ W) < 1e-15), bool(gap < 1e-8)
    (True, True, True)
    """
    return STIEFEL_STEP(W, G, gap=gap, errors=errors)


def spectral_sphere_step(
    W: ArrayLike[T], G: ArrayLike[T], *, gap: float | None = None, errors: str = "raise"
) -> ManifoldStep[T]:
    """Compute the steepest step under the spectral norm along a sphere of the spectral norm.

    A maximises Re tr(GᴴA) over all A with ‖A‖₂ ≤ 1 that do not change the largest singular value of W to first order:
    Re tr(ΘᴴA) = 0 with Θ = u₁v₁ᴴ. A descent for a loss with gradient G divides W - lr A by its spectral norm [1]_.

    Parameters
    ----------
    W : array_like (..., n, m)
        Matrices that are not zero, of dtype float32, float64, complex64 or complex128.
    G : array_like (..., n, m)
        The gradients or momenta, of any size and rank.
    gap : float, optional
        The relative duality gap to reach. Default: 1e-8, or 1e-4 where there is no double precision.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `matsign.SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    step : array (..., n, m)
        The steps A.
    gap : array (...)
        Their relative duality gaps. Both are the fields of the named tuple `ManifoldStep`.

    Raises
    ------
    matsign.SpectrumError
        If the gap does not reach ``gap``, W is zero, or a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If W or G is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    stiefel_step : The same where all singular values of W are fixed.
    Muon : Takes such steps with ``manifold="spectral_sphere"``.

    Notes
    -----
    The maximum equals the minimum of ‖G + x Θ‖_*, the sum of the singular values, over real numbers x, and A is the msign of
    G + x Θ where that is not singular. The method is Newton's, with a self-concordant barrier.

    Where the largest singular value of W has k copies (up to rounding), the sphere has an edge at W; Θ is then the mean of
    the k products uᵢvᵢᴴ, and the mean of these singular values does not change to first order. Where G is a multiple of Θ
    up to rounding, the result is A = 0 with the gap 0.

    There are no derivatives; `matsign.certify` does not take it: the gap is a certificate, for the A that is returned.

    References
    ----------
    .. [1] J. Su, "Steepest descent on manifolds: 4. Muon + spectral sphere" (in Chinese), 2025, https://kexue.fm/archives/11241.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign.optim import spectral_sphere_step
    >>> W = np.diag([2.0, 1.0])
    >>> step, gap = spectral_sphere_step(W, np.array([[3.0, 1.0], [0.0, 1.0]]))
    >>> bool(abs(step[0, 0]) < 1e-15), bool(abs(np.linalg.norm(step, 2) - 1) < 1e-6), bool(gap < 1e-8)
    (True, True, True)
    """
    return SPECTRAL_SPHERE_STEP(W, G, gap=gap, errors=errors)


def _public(f: Any, solve: Any) -> Any:
    return public_function(
        f,
        "(n,m),(n,m)->(n,m),()",
        kinds=("same", "real"),
        solve=solve,
        residual=_no_certificate,
        tangent=_no_derivative,
        cotangent=_no_derivative,
        wrap=lambda backend, step, gap: ManifoldStep(step, gap),
        check=functools.partial(_check_gap, f.__name__),
    )


STIEFEL_STEP = _public(stiefel_step, _stiefel)
SPECTRAL_SPHERE_STEP = _public(spectral_sphere_step, _sphere)
