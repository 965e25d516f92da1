"""Steps of steepest descent under the spectral norm for weights that stay on a manifold.

The step A maximises Re tr(GᴴA) subject to ‖A‖₂ ≤ 1 among the tangents of the manifold at W: on the Stiefel manifold WᴴW = I
those with WᴴA + AᴴW = 0, on the spectral sphere σ₁(W) = const those with Re tr(ΘᴴA) = 0 for Θ = u₁v₁ᴴ.
`iterations.tangent_ascent` has the method, and `derivatives` the equations of the derivatives. For a square W on the Stiefel
manifold, A = W Ω with skew-Hermitian Ω, so that A = W msign((WᴴG - GᴴW)/2). Sources: Bernstein 2025, Su 2025b.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from matsign._typing import ArrayLike, Generic, T
from matsign.core.options import real_number, short_repr
from matsign.core.public import public_function
from matsign.functions.manifolds.certificates import MEASURES, sphere_residual, stiefel_residual
from matsign.functions.manifolds.derivatives import SPHERE, STIEFEL, Rules
from matsign.functions.manifolds.methods import solve_sphere, solve_stiefel


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
    >>> from matsign import stiefel_step
    >>> result = stiefel_step(np.eye(2), np.array([[0.0, 3.0], [1.0, 0.0]]))
    >>> result._fields
    ('step', 'gap')
    """

    step: T
    gap: T


def _check_gap(name: str, *, gap: float | None) -> None:
    if gap is not None and not 0 < real_number(gap) < 1:
        raise ValueError(f"{name}: gap must be a number between 0 and 1, got {short_repr(gap)}")


def stiefel_step(
    W: ArrayLike[T], G: ArrayLike[T], *, gap: float | None = None, errors: str = "raise"
) -> ManifoldStep[T]:
    """Compute the steepest step under the spectral norm along the Stiefel manifold.

    A maximises Re tr(GᴴA) over all A with ‖A‖₂ ≤ 1 and WᴴA + AᴴW = 0, the tangents of WᴴW = I at W. A descent for a
    loss with gradient G is W ← msign(W - lr A), by Bernstein [1]_ and Su [2]_.

    Parameters
    ----------
    W : array_like (..., n, m)
        Matrices with orthonormal columns, or with orthonormal rows if n < m, of dtype float32, float64, complex64 or complex128.
    G : array_like (..., n, m)
        The gradients or momenta, of any size and rank.
    gap : float, optional
        The relative duality gap to reach, for example 0.01 in training. Default: as small as it gets, and at least 1e-8 (1e-4
        where there is no double precision).
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
    matsign.optim.Muon, matsign.optim.scale_by_msign : Take such steps with ``manifold="stiefel"``.
    msign : The step without a manifold, and the way back to it.

    Notes
    -----
    The maximum equals the minimum of ‖G + W X‖_*, the sum of the singular values, over Hermitian X. The method is Newton's
    for this dual, smoothed by a self-concordant barrier, with conjugate gradients that a Lyapunov equation preconditions. It
    needs 10 to 80 singular value decompositions, and works where G + W X is singular, too. For a square W,
    A = W msign((WᴴG - GᴴW)/2).

    W may be orthonormal up to rounding of a lower precision: A is a tangent at msign(W). Where G is normal to the manifold
    up to rounding, G = W S with Hermitian S, every tangent A has Re tr(GᴴA) = 0, and the result is A = 0 with the gap 0.
    Where the maximum is attained at several A, the result is one of them. Where G + W X has full rank, A has working
    precision; elsewhere its error is of the size of the gap.

    The step has derivatives of first order, by the implicit function theorem for X; a second derivative raises
    `NotImplementedError`. Where G + W X is singular, their relative error is about 1e-7, and more for a graded G. Where a
    change of G prefers one of several best steps, A jumps: that part of the change is left out, and `condition` is infinite.
    The derivatives of ``gap`` are zero.

    `certify` solves the dual again, to a smaller gap. The backward error is the largest of its measures: ``duality_gap``;
    ``tangency``, the norm of the Hermitian part of WᴴA over √m; and ``overshoot``, ‖A‖₂ - 1. The forward error is the distance
    between the two steps, with the effect of rounding errors in W and G.

    References
    ----------
    .. [1] J. Bernstein, "Modular manifolds", Thinking Machines Lab, 2025, doi:10.64434/tml.20250926.
    .. [2] J. Su, "Steepest descent on manifolds: 3. Muon + Stiefel" (in Chinese), 2025, https://kexue.fm/archives/11221.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import stiefel_step
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
    Re tr(ΘᴴA) = 0 with Θ = u₁v₁ᴴ. A descent for a loss with gradient G divides W - lr A by its spectral norm, by Su [1]_.

    Parameters
    ----------
    W : array_like (..., n, m)
        Matrices that are not zero, of dtype float32, float64, complex64 or complex128.
    G : array_like (..., n, m)
        The gradients or momenta, of any size and rank.
    gap : float, optional
        The relative duality gap to reach, for example 0.01 in training. Default: as small as it gets, and at least 1e-8 (1e-4
        where there is no double precision).
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
    matsign.optim.Muon, matsign.optim.scale_by_msign : Take such steps with ``manifold="spectral_sphere"``.

    Notes
    -----
    The maximum equals the minimum of ‖G + x Θ‖_*, the sum of the singular values, over real numbers x, and A is the msign of
    G + x Θ where that is not singular. The method is Newton's, with a self-concordant barrier.

    Where the largest singular value of W has k copies (up to rounding), the sphere has an edge at W; Θ is then the mean of
    the k products uᵢvᵢᴴ, and the mean of these singular values does not change to first order. Where G is a multiple of Θ
    up to rounding, the result is A = 0 with the gap 0.

    Derivatives and certificates are as those of `stiefel_step`. Where the largest singular value has copies, Θ jumps: the part
    of a change of W that parts them is left out, and `condition` is infinite. The measure ``tangency`` is
    abs(Re tr(ΘᴴA)) over √m.

    References
    ----------
    .. [1] J. Su, "Steepest descent on manifolds: 4. Muon + spectral sphere" (in Chinese), 2025, https://kexue.fm/archives/11241.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import spectral_sphere_step
    >>> W = np.diag([2.0, 1.0])
    >>> step, gap = spectral_sphere_step(W, np.array([[3.0, 1.0], [0.0, 1.0]]))
    >>> bool(abs(step[0, 0]) < 1e-15), bool(abs(np.linalg.norm(step, 2) - 1) < 1e-6), bool(gap < 1e-8)
    (True, True, True)
    """
    return SPECTRAL_SPHERE_STEP(W, G, gap=gap, errors=errors)


def _public(f: Any, solve: Any, residual: Any, rules: Rules) -> Any:
    return public_function(
        f,
        "(n,m),(n,m)->(n,m),()",
        kinds=("same", "real"),
        solve=solve,
        residual=residual,
        measures=MEASURES,
        tangent=rules.tangent,
        cotangent=rules.cotangent,
        unbounded=rules.unbounded,
        neutral={0: 1.0},
        wrap=lambda backend, step, gap: ManifoldStep(step, gap),
        check=functools.partial(_check_gap, f.__name__),
    )


STIEFEL_STEP = _public(stiefel_step, solve_stiefel, stiefel_residual, STIEFEL)
SPECTRAL_SPHERE_STEP = _public(spectral_sphere_step, solve_sphere, sphere_residual, SPHERE)
