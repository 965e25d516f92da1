"""Norms of python-control's models as it defines them: infinite ones with a warning, and L∞ norms of unstable models.

The L∞ norm of an unstable G is the H∞ norm of N = G M with an inner M, whose gain is 1 at every frequency. The feedback of least
energy, that of the Riccati equation with q = 0, gives a stable N and such an M (Zhou, Doyle & Glover 1996).
"""

from __future__ import annotations

import warnings
from typing import Any

import control
import numpy as np
import scipy.linalg

import matsign
from matsign._typing import NDArray
from matsign.core.failures import Failure

_UNSTABLE = {Failure.UNSTABLE, Failure.INFINITE_NORM, Failure.BARELY_STABLE}


def system_norm(system: Any, p: Any = 2, tol: float = 1e-6, print_warning: bool = True) -> float:
    """The H₂ (p = 2) or L∞ norm (p = "inf") of a model; the tolerance is not used, since L∞ norms are exact to rounding."""
    if not isinstance(system, (control.StateSpace, control.TransferFunction)):
        raise TypeError("Parameter `system`: must be a `StateSpace` or `TransferFunction`")
    if p not in (2, "inf"):
        raise control.ControlArgument(f"Norm computation for p={p} currently not supported.")
    model = control.ss(system)
    reason = _why_infinite(model) if p == 2 else ""
    if not reason:
        value = _h2_norm(model) if p == 2 else _linf_norm(model)
        if value is not None:
            return value
        reason = _instability(model)
    if print_warning:
        warnings.warn(reason, UserWarning, stacklevel=3)
    return float("inf")


def _why_infinite(model: Any) -> str:
    """Why the H₂ norm of a stable model is infinite."""
    return "System has a direct feedthrough term!" if model.isctime() and model.D.any() else ""


def _instability(model: Any) -> str:
    poles = model.poles()
    distance, place = (poles.real, "imaginary axis") if model.isctime() else (np.abs(poles) - 1, "complex unit circle")
    if np.isclose(distance, 0).any():
        return f"Poles close to, or on, the {place}. Norm value may be uncertain."
    return "System is unstable!"


def _h2_norm(model: Any) -> float | None:
    """The H₂ norm; None for a model that is not stable."""
    a, b, c, d = model.A, model.B, model.C, model.D
    try:
        return float(matsign.h2_norm(a, b, c) if model.isctime() else matsign.discrete_h2_norm(a, b, c, d))
    except matsign.SpectrumError as error:
        if not _UNSTABLE.issuperset(error.failures):
            raise
        return None


def _linf_norm(model: Any) -> float | None:
    """The L∞ norm; None for a model with poles on the boundary."""
    arrays = model.A, model.B, model.C, model.D
    norm = _hinf_norm(*arrays, discrete=not model.isctime())
    if norm is not None or _instability(model).startswith("Poles close"):
        return norm
    minimal = matsign.minimal_realization(*arrays)  # no feedback moves a mode that the inputs do not move
    arrays = minimal.a, minimal.b, minimal.c, minimal.d
    norm = _hinf_norm(*arrays, discrete=not model.isctime())
    if norm is None:
        arrays = _stable_with_the_same_gain(*arrays, discrete=not model.isctime())
        norm = _hinf_norm(*arrays, discrete=not model.isctime())
    return norm


def _hinf_norm(a: NDArray, b: NDArray, c: NDArray, d: NDArray, *, discrete: bool) -> float | None:
    """The H∞ norm; None for a model that is not stable."""
    try:
        return float((matsign.discrete_hinf_norm if discrete else matsign.hinf_norm)(a, b, c, d)[0])
    except matsign.SpectrumError as error:
        if not _UNSTABLE.issuperset(error.failures):
            raise
        return None


def _stable_with_the_same_gain(
    a: NDArray, b: NDArray, c: NDArray, d: NDArray, *, discrete: bool
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """A stable model with the gains of an unstable one at every frequency."""
    n, m = b.shape
    gain, x, _ = (matsign.dlqr if discrete else matsign.lqr)(a, b, np.zeros((n, n)), np.eye(m))
    if discrete:
        factor = np.linalg.cholesky(np.eye(m) + b.conj().T @ x @ b)
        unscaled = scipy.linalg.solve_triangular(factor, np.hstack([b.conj().T, d.conj().T]), lower=True).conj().T
        return a - b @ gain, unscaled[:n], c - d @ gain, unscaled[n:]
    return a - b @ gain, b, c - d @ gain, d
