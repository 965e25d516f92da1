"""The method "matsign" of python-control: its functions with other solvers behind them.

Arguments are checked as python-control does it, with its exceptions, but for one thing: a matrix is symmetric if it is so
to rounding at its own size, where python-control asks for an absolute difference below 2e-16.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import control
import numpy as np
import scipy.linalg

import matsign
from matsign._typing import NDArray
from matsign.plugins.system_norms import system_norm

METHOD = "matsign"


def register() -> ExitStack:
    """Replace the functions of python-control by those with this method; closing the result undoes it."""
    undo = ExitStack()
    if not hasattr(control.mateqn.lyap, "without_matsign"):
        ours = {original: _with_method(original, solver) for original, solver in _SOLVERS.items()}
        ours[_CHOICE] = _choose
        _replace(ours)
        undo.callback(_replace, {f: original for original, f in ours.items()})
    return undo


def _replace(functions: Mapping[Any, Any]) -> None:
    """Replace functions wherever a module of python-control refers to them."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "control":
            for key, value in list(vars(module).items()):
                if inspect.isfunction(value) and value in functions:
                    setattr(module, key, functions[value])


def _with_method(original: Callable[..., Any], solver: Callable[..., Any]) -> Callable[..., Any]:
    """The original function, which calls the solver for method="matsign"."""
    signature = inspect.signature(original)
    takes_method = "method" in signature.parameters
    if not takes_method:
        method = inspect.Parameter("method", inspect.Parameter.KEYWORD_ONLY, default=None)
        signature = signature.replace(parameters=[*signature.parameters.values(), method])

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs).arguments
        method = arguments.pop("method", None)
        if method == METHOD:
            return solver(**arguments)
        if not takes_method and method is not None:
            raise control.ControlArgument(f"Unknown method {method}")
        return original(*args, **kwargs) if takes_method else original(**arguments)

    call.__dict__.update(__signature__=signature, without_matsign=original)
    return call


def _choose(method: str | None) -> Any:
    if method == METHOD:
        raise control.ControlArgument(
            'method="matsign" needs a function that was imported after register_control(): import it again, or call it as '
            "control.lyap"
        )
    return _CHOICE(method)


def _matrix(x: Any, rows: int, columns: int, name: str) -> NDArray:
    """A matrix with this number of rows and columns."""
    x = _as_matrix(x, name)
    if x.shape != (rows, columns):
        raise control.ControlDimension(
            f"Incompatible dimensions of {name} matrix; expected ({rows}, {columns}) but found {x.shape}"
        )
    return x


def _square(x: Any, name: str) -> NDArray:
    x = _as_matrix(x, name)
    if x.shape[0] != x.shape[1]:
        raise control.ControlDimension(f"{name} must be a square matrix")
    return x


def _as_matrix(x: Any, name: str) -> NDArray:
    x = np.array(x, ndmin=2)
    if x.ndim != 2:
        raise control.ControlDimension(f"{name} must be a matrix, found an array of shape {x.shape}")
    return x


def _symmetric(x: Any, size: int, name: str) -> NDArray:
    x = _matrix(_square(x, name), size, size, name)
    gap = np.abs(x - x.conj().T).max(initial=0)
    if gap > 100 * np.finfo(np.result_type(x, np.float32)).eps * np.abs(x).max(initial=0):
        raise control.ControlArgument(f"{name} must be a symmetric matrix")
    return x


def lyap(A: Any, Q: Any, C: Any = None, E: Any = None) -> NDArray:
    """A X + X Aᵀ + Q = 0, A X Eᵀ + E X Aᵀ + Q = 0, or A X + X Q + C = 0."""
    a, q, c, e = _lyapunov_arguments(A, Q, C, E)
    return matsign.solve_continuous_lyapunov(a, -q, e=e) if c is None else matsign.solve_sylvester(a, q, -c)


def dlyap(A: Any, Q: Any, C: Any = None, E: Any = None) -> NDArray:
    """A X Aᵀ - X + Q = 0, A X Aᵀ - E X Eᵀ + Q = 0, or A X Qᵀ - X + C = 0."""
    a, q, c, e = _lyapunov_arguments(A, Q, C, E)
    return matsign.solve_discrete_lyapunov(a, q, e=e) if c is None else matsign.solve_discrete_sylvester(a, q.T, c)


def _lyapunov_arguments(A: Any, Q: Any, C: Any, E: Any) -> tuple[Any, Any, Any, Any]:
    if C is not None and E is not None:
        raise control.ControlArgument("Invalid set of input parameters: C and E exclude each other")
    a = _square(A, "A")
    n = len(a)
    if C is None:
        return a, _symmetric(Q, n, "Q"), None, None if E is None else _matrix(E, n, n, "E")
    q = _square(Q, "Q")
    return a, q, _matrix(C, n, len(q), "C"), None


Riccati = tuple[NDArray, NDArray, NDArray]


def care(
    A: Any, B: Any, Q: Any, R: Any = None, S: Any = None, E: Any = None, stabilizing: bool = True, **names: str
) -> Riccati:
    """The solution, the closed-loop poles and the gain of the continuous Riccati equation."""
    a, b, q, r, s, e = _riccati_arguments(A, B, Q, R, S, E, **names)
    x = matsign.solve_continuous_are(a, b, q, r, e, s, half_plane="left" if stabilizing else "right")
    xe = x if e is None else x @ e
    return _closed_loop(x, a, b, e, r, b.conj().T @ xe + (0 if s is None else s.conj().T))


def dare(
    A: Any, B: Any, Q: Any, R: Any, S: Any = None, E: Any = None, stabilizing: bool = True, **names: str
) -> Riccati:
    """The solution, the closed-loop poles and the gain of the discrete Riccati equation."""
    a, b, q, r, s, e = _riccati_arguments(A, B, Q, R, S, E, **names)
    x = matsign.solve_discrete_are(a, b, q, r, e, s, circle="inside" if stabilizing else "outside")
    bx = b.conj().T @ x
    return _closed_loop(x, a, b, e, r + bx @ b, bx @ a + (0 if s is None else s.conj().T))


def _closed_loop(x: NDArray, a: NDArray, b: NDArray, e: NDArray | None, weight: NDArray, right: NDArray) -> Riccati:
    gain = np.linalg.solve(weight, right)
    return x, scipy.linalg.eigvals(a - b @ gain, e), gain


def _riccati_arguments(
    A: Any,
    B: Any,
    Q: Any,
    R: Any,
    S: Any,
    E: Any,
    *,
    _As: str = "A",
    _Bs: str = "B",
    _Qs: str = "Q",
    _Rs: str = "R",
    _Ss: str = "S",
    _Es: str = "E",
) -> tuple[Any, ...]:
    """The matrices, with the names of python-control in the errors."""
    a = _square(A, _As)
    n, m = len(a), np.array(B, ndmin=2).shape[-1]
    return (
        a,
        _matrix(B, n, m, _Bs),
        _symmetric(Q, n, _Qs),
        np.eye(m) if R is None else _symmetric(R, m, _Rs),
        None if S is None else _matrix(S, n, m, _Ss),
        None if E is None else _matrix(E, n, n, _Es),
    )


def gram(sys: Any, type: str) -> NDArray:
    """The controllability ("c") or observability ("o") Gramian, or its upper triangular factor ("cf", "of")."""
    if not isinstance(sys, control.StateSpace):
        raise ValueError("System must be StateSpace!")
    if type not in ("c", "o", "cf", "of"):
        raise ValueError("That type is not supported!")
    a, b = (sys.A, sys.B) if type[0] == "c" else (sys.A.T, sys.C.T)
    continuous = sys.isctime()
    if len(type) == 1:
        return matsign.gramian(a, b) if continuous else matsign.discrete_gramian(a, b)
    z = matsign.lyapunov_factor(a, b) if continuous else matsign.discrete_lyapunov_factor(a, b)
    (r,) = scipy.linalg.qr(z.T, mode="r")
    r = np.pad(r[: len(a)], ((0, max(0, len(a) - len(r))), (0, 0)))
    return np.where(r.diagonal() < 0, -1, 1)[:, None] * r


def hankel_singular_values(sys: Any) -> NDArray:
    """The Hankel singular values, largest first."""
    return matsign.hankel_singular_values(sys)


_CHOICE = control.mateqn._slycot_or_scipy
_SOLVERS: dict[Callable[..., Any], Callable[..., Any]] = {
    control.mateqn.lyap: lyap,
    control.mateqn.dlyap: dlyap,
    control.mateqn.care: care,
    control.mateqn.dare: dare,
    control.statefbk.gram: gram,
    control.modelsimp.hankel_singular_values: hankel_singular_values,
    control.sysnorm.system_norm: system_norm,
}
