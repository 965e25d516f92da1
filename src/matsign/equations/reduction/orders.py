"""The number of states of a reduced model: given, or the smallest one for which the error bound is small enough.

The transfer functions of both models differ on the boundary of stability by at most twice the sum of the Hankel singular values
that are left out, each distinct value counted once (Enns 1984, Glover 1984).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.operations import apply
from matsign.core.options import short_repr
from matsign.equations.reduction.hankel import HANKEL_SINGULAR_VALUES
from matsign.equations.reduction.times import check_sampling_time


def check_reduction(*, order: Any, tol: Any, method: str, dt: Any) -> None:
    check_sampling_time("balanced_truncation", dt)
    if (order is None) == (tol is None):
        raise ValueError(
            f"balanced_truncation: give either order or tol, got order={short_repr(order)} and tol={short_repr(tol)}"
        )


def order_by_bound(backend: Backend, arrays: Arrays, options: dict[str, Any]) -> dict[str, Any]:
    """The options with the smallest order for which the error bound of every member is at most `tol`."""
    check_reduction(**options)
    a, b, c, _, e = arrays
    if any(x is not None and backend.is_traced(x) for x in (a, b, c, e)):
        raise ValueError(
            "balanced_truncation: tol needs the values of the arrays, which are not known here; give order"
        )
    a, b, c = (backend.stop_gradient(x) for x in (a, b, c))
    e, order = e if e is None else backend.stop_gradient(e), 1
    if 0 not in a.shape:
        (values,) = apply(backend, HANKEL_SINGULAR_VALUES.operation, a, b, c, e, dt=options["dt"])
        eps, members = backend.eps(values), values.reshape((-1, a.shape[-1])).tolist()
        order = max(smallest_order(np.asarray(x), options["tol"], eps) for x in members)
    return options | {"order": order, "tol": None}


def smallest_order(values: Array, tol: float, eps: float) -> int:
    """The least number of values, at least 1, such that twice the sum of the distinct ones among the others is at most tol.

    Values that differ by rounding count as equal. A member without values needs one state.
    """
    if not (values >= 0).all():
        return 1
    finite = values[np.isfinite(values)]
    order, total, counted = len(values), 0.0, math.inf
    rounding = len(values) * eps * finite.max(initial=0)
    for value in finite[::-1]:
        if abs(value - counted) > rounding:
            total, counted = total + 2 * value, value
        if total > tol:
            break
        order -= 1
    return max(order, 1)
