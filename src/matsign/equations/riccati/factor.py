"""A factor z of the stabilising solution x = z zᴴ of aᴴ x + x a - x b bᴴ x + cᴴ c = 0, for few inputs and outputs.

x then has few eigenvalues above rounding, and z few columns. `factor_methods` has the solvers: structured doubling on factors
(Li, Chu, Lin & Weng 2013) for the gain and Newton's method (Kleinman 1968) for z. `factor_derivatives` has the
derivatives, `factor_certificates` the errors.
"""

from __future__ import annotations

from typing import overload

from matsign._typing import ArrayLike, NDArray, StateSpace, T, VectorLike
from matsign.core.objects import takes_model
from matsign.core.public import public_function
from matsign.equations.lyapunov.factors import drop_zero_columns
from matsign.equations.riccati.factor_certificates import factor_residual
from matsign.equations.riccati.factor_derivatives import factor_cotangent, factor_tangent
from matsign.equations.riccati.factor_methods import solve_factor


@overload
def riccati_factor(a: ArrayLike[T], b: VectorLike[T], c: VectorLike[T], *, errors: str = "raise") -> T: ...
@overload
def riccati_factor(sys: StateSpace, /, *, errors: str = "raise") -> NDArray: ...
@takes_model("ABC", discrete=False, why_no_d="pass a, b and c of the equation that you mean")
def riccati_factor(a: ArrayLike[T], b: VectorLike[T], c: VectorLike[T], *, errors: str = "raise") -> T:
    """Compute a factor of the stabilising solution of a continuous-time algebraic Riccati equation.

    The z with aᴴ x + x a - x b bᴴ x + cᴴ c = 0 for x = z zᴴ, where the eigenvalues of a - b bᴴ x lie in the left half
    plane. For a large a with few inputs and outputs z has few columns, and x is never formed.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices, of dtype float32, float64, complex64 or complex128.
    b : array_like (..., n, m)
        Input matrices.
    c : array_like (..., p, n)
        Output matrices.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no stabilising solution: raise `SpectrumError`, or return NaN for that
        member and the right result for the others.

    Returns
    -------
    z : array (..., n, k)
        The factors, in the form that `lyapunov_factor` returns: columns are orthogonal, the longest first, and the
        largest entry of each is real and positive. Their number k is the largest number above rounding in the batch (n
        under ``jax.jit``), with zeros where a member has fewer.

    Raises
    ------
    SpectrumError
        If (a, b) is not stabilisable, there is no solution because c does not detect an eigenvalue on the imaginary axis,
        no method finds the solution, or a member holds NaN or infinity, and ``errors="raise"``. The message names the eigenvalue.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    solve_continuous_are : The solution itself, for any weights.
    lyapunov_factor : The equation without its quadratic term.
    lqr : The optimal gain and the poles of the closed loop.

    Notes
    -----
    With the weights q = cᴴ c and r = I the optimal gain is ``(bᴴ @ z) @ zᴴ``, without x. For another r ≻ 0 pass b l⁻ᴴ
    with the Cholesky factor l of r, and for q = l lᴴ pass lᴴ as c.

    From n = 64 on, structured doubling [1]_ on factors [2]_ computes the gain and one step of Newton's method [3]_ the
    factor: two inverses, and one large product for each step of doubling and of Smith's iteration. The columns are
    accurate to rounding relative to the first one, with fewer digits if rates of a differ by 1e8 or more, as the
    certificate tells. Where this does not converge, for n < 64, and in compiled programs for accelerators, z is a
    factor of the solution of `solve_continuous_are`: columns shorter than the root of rounding are then not computed.
    Unstable eigenvalues of a are moved, whether c detects them or not.
    Eigenvalues on the imaginary axis that c does not detect stay there if there is a limit of stabilising solutions: its
    factor is returned, and the `Certificate` has ``boundary`` set.

    Derivatives are right for functions of z zᴴ: the derivative omits changes of z by a unitary factor on its right, on
    which such functions do not depend. Where z zᴴ is singular the first derivatives are right. A member of a batch
    gives the same bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member without a solution is
    NaN.

    The backward error of `certify` is ‖aᴴ x + x a - x b bᴴ x + cᴴ c‖ / (‖aᴴ x‖ + ‖x a‖ + ‖x b bᴴ x‖ + ‖cᴴ c‖) for x = z
    zᴴ, and the forward error that of z. ``riccati_factor(sys)`` takes the matrices of a model ``sys``, a
    ``scipy.signal.StateSpace`` or a ``control.StateSpace`` with D = 0. A vector as b is a column, as c a row.

    References
    ----------
    .. [1] E. K.-W. Chu, H.-Y. Fan and W.-W. Lin, "A structure-preserving doubling algorithm for continuous-time
       algebraic Riccati equations", Linear Algebra Appl. 396, 2005, pp. 55-80, doi:10.1016/j.laa.2004.10.010.
    .. [2] T. Li, E. K.-W. Chu, W.-W. Lin and P. C.-Y. Weng, "Solving large-scale continuous-time algebraic Riccati
       equations by doubling", J. Comput. Appl. Math. 237(1), 2013, pp. 373-383, doi:10.1016/j.cam.2012.06.006.
    .. [3] D. L. Kleinman, "On an iterative technique for Riccati equation computations", IEEE Trans. Automat. Control
       13(1), 1968, pp. 114-115, doi:10.1109/TAC.1968.1098829.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import riccati_factor
    >>> a, b, c = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.0], [1.0]]), np.array([[1.0, 0.0]])
    >>> z = riccati_factor(a, b, c)
    >>> x = z @ z.T
    >>> bool(np.linalg.norm(a.T @ x + x @ a - x @ b @ b.T @ x + c.T @ c) < 1e-14)
    True
    >>> gain = (b.T @ z) @ z.T  # the same gain as from x
    >>> bool(np.linalg.eigvals(a - b @ gain).real.max() < 0)
    True
    """
    return RICCATI_FACTOR(a, b, c, errors=errors)


RICCATI_FACTOR = public_function(
    riccati_factor,
    "(n,n),(n,m),(p,n)->(n,k)",
    solve=solve_factor,
    residual=factor_residual,
    tangent=factor_tangent,
    cotangent=factor_cotangent,
    wrap=drop_zero_columns,
    largest={"k": "n"},
    columns=("b",),
    rows=("c",),
)
