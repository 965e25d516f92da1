"""What balancing needs in continuous and in discrete time: the Gramians, their differentials, their errors, the steady state."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.options import real_number, short_repr
from matsign.core.public import Residual
from matsign.equations.lyapunov import descriptor_equations
from matsign.equations.lyapunov.certificates import lyapunov_residual, stein_residual
from matsign.equations.lyapunov.descriptor_certificates import descriptor_gramian_residual
from matsign.equations.lyapunov.factor_derivatives import (
    discrete_gramian_jvp,
    discrete_gramian_vjp,
    gramian_jvp,
    gramian_vjp,
)
from matsign.equations.lyapunov.factors import discrete_gramians, gramians, in_units
from matsign.equations.lyapunov.system import Gramians, System
from matsign.iterations.differentiable_solves import solve_stable_lyapunov, solve_stable_stein
from matsign.linalg.stacks import adjoint, broadcast_scalar


class Time(NamedTuple):
    """Continuous or discrete time."""

    gramians: Callable[[Backend, System], Gramians]
    gramian: Callable[[Backend, Array, Array], Array]  # (a, q): x for q in place of b bᴴ
    jvp: Callable[..., Array]  # (a, b, x, da, db): dx
    vjp: Callable[..., Arrays]  # its adjoint
    error: Callable[[Backend, Array, Array, Array, Array | None], Residual]  # (x, a, b, e) of a Gramian x
    steady: float  # the steady state is the value of the transfer function at s = 0 or z = 1


def _lyapunov_error(backend: Backend, x: Array, a: Array, b: Array, e: Array | None) -> Residual:
    if e is not None:
        return descriptor_gramian_residual(backend, descriptor_equations.LYAPUNOV_EQUATION, x, (a, b, e))
    return lyapunov_residual(backend, (x,), a, -(b @ adjoint(b)), rounded=True)


def _stein_error(backend: Backend, x: Array, a: Array, b: Array, e: Array | None) -> Residual:
    if e is not None:
        return descriptor_gramian_residual(backend, descriptor_equations.STEIN_EQUATION, x, (a, b, e))
    return stein_residual(backend, (x,), a, b @ adjoint(b), rounded=True)


_CONTINUOUS = Time(gramians, solve_stable_lyapunov, gramian_jvp, gramian_vjp, _lyapunov_error, 0.0)
_DISCRETE = Time(discrete_gramians, solve_stable_stein, discrete_gramian_jvp, discrete_gramian_vjp, _stein_error, 1.0)


def is_discrete(dt: Any) -> bool:
    """Whether a sampling time stands for discrete time; None and 0 stand for continuous time."""
    return dt is not None and bool(dt)


def time_of(dt: Any) -> Time:
    return _DISCRETE if is_discrete(dt) else _CONTINUOUS


def check_sampling_time(name: str, dt: Any) -> None:
    """Raise unless dt is None, True or a finite number of at least 0."""
    if dt is None or dt is True:
        return
    if not isinstance(dt, Real) or isinstance(dt, bool) or not 0 <= real_number(dt) < math.inf:
        raise ValueError(
            f"{name}: dt must be None or 0 for continuous time, or the sampling time of discrete time, a positive number or "
            f"True, got {short_repr(dt)}"
        )


def system_in_units(backend: Backend, time: Time, a: Array, b: Array, c: Array, e: Array | None) -> System:
    """The system in balanced units; in discrete time a keeps its size."""
    s = in_units(backend, a, b, c, e)
    if time is _CONTINUOUS:
        return s
    return s._replace(a=backend.ldexp(s.a, broadcast_scalar(2 * s.half)), half=0 * s.half)
