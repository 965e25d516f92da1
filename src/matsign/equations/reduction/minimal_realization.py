"""Minimal realization: the controllable and observable part of a model ẋ = a x + b u or x⁺ = a x + b u, y = c x.

The orthogonal projection vᴴ a v, vᴴ b, c v on the observable part of the controllable subspace, in balanced units, has the same
transfer function with the fewest states (Kalman 1963). `direct.staircase` has the method, `equations.reduction.minimal_subspaces`
the differential of v.
"""

from __future__ import annotations

import functools
from typing import NamedTuple, overload

from matsign._typing import Array, ArrayLike, Arrays, Generic, Model, OptionalArrayLike, T, VectorLike
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.core.objects import takes_model
from matsign.core.public import Residual, public_function
from matsign.equations.reduction.minimal_subspaces import (
    SUBSPACES,
    Subspaces,
    Units,
    coupling_terms,
    subspaces_at,
    subspaces_cotangent,
    subspaces_tangent,
)
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, relative_norm

# The diagonal entry of states that are added: stable in continuous and in discrete time.
_ADDED_STATE = -0.5


class Realization(NamedTuple, Generic[T]):
    """Hold a model.

    The result of `minimal_realization`: a named tuple of the matrices of ẋ = a x + b u, y = c x + d u, or of the same
    model in discrete time.

    Attributes
    ----------
    a : array (..., r, r)
        System matrix.
    b : array (..., r, m)
        Input matrix.
    c : array (..., p, r)
        Output matrix.
    d : array (..., p, m)
        Direct term.

    See Also
    --------
    minimal_realization : Compute the model.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import minimal_realization
    >>> model = minimal_realization(np.diag([-1.0, -2.0]), [1.0, 0.0], [1.0, 1.0])
    >>> model._fields, model.a.shape
    (('a', 'b', 'c', 'd'), (1, 1))
    >>> bool(abs(model.a + 1) < 1e-15), bool(abs(model.c @ model.b - 1) < 1e-15)
    (True, True)
    """

    a: T
    b: T
    c: T
    d: T


def _largest_order(known: dict[str, int], *, order: int | None, rtol: float | None = None) -> dict[str, int]:
    """The number of states before those that no member needs are dropped."""
    n = known["n"]
    if order is None:
        return {"r": n}
    if isinstance(order, bool) or not isinstance(order, int) or not 1 <= order <= max(n, 1):
        raise ValueError(f"minimal_realization: order must be None or a whole number from 1 to {n}, got {order!r}")
    return {"r": min(order, n)}


class _Projection(NamedTuple):
    """The subspaces, the model in units, and the columns of the basis v that are used."""

    at: Subspaces
    units: Units
    model: Arrays
    v: Array

    @classmethod
    def of(cls, backend: Backend, at: Subspaces, model: Arrays, order: int | None) -> _Projection:
        units = Units.of(backend, at.e, model)
        return cls(at, units, units.inward(backend, model), at.both[:, :, :order])

    def project(self, model: Arrays) -> Arrays:
        a, b, c = model
        return adjoint(self.v) @ a @ self.v, adjoint(self.v) @ b, c @ self.v


def _with_added_states(backend: Backend, p: _Projection) -> Arrays:
    """The projected model, with a decoupled state for each missing column of v."""
    a, b, c = p.units.outward(backend, p.project(p.model))
    added = backend.astype((p.v == 0).all(-2), backend.dtype_name(a))
    return a + _ADDED_STATE * added[:, None, :] * eye(backend, a), b, c


def _count(backend: Backend, basis: Array) -> Array:
    return backend.xp.sum(backend.astype((basis != 0).any(-2), backend.dtype_name(basis.real)), axis=-1)


def _solve(
    backend: Backend, a: Array, b: Array, c: Array, d: Array | None, *, order: int | None, rtol: float | None
) -> Solution:
    _largest_order({"n": a.shape[-1]}, order=order)
    at = Subspaces(*SUBSPACES.solve(backend, a, b, c, rtol=rtol).value)
    projection, count = _Projection.of(backend, at, (a, b, c), order), _count(backend, at.both)
    too_many, minimal = count > projection.v.shape[-1], broadcast_scalar(count == a.shape[-1])
    value = _with_added_states(backend, projection)
    if projection.v.shape[-1] == a.shape[-1]:
        value = tuple(backend.xp.where(minimal, x, y) for x, y in zip((a, b, c), value, strict=True))
    value = (*value, backend.zeros((len(a), c.shape[-2], b.shape[-1]), a) if d is None else d)
    return scaling.check_range(backend, solution(backend, value, Failure.MORE_STATES, too_many, detail=count))


def _tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, order: int | None, rtol: float | None
) -> Arrays:
    arrays, tangents, dd = arrays[:3], tangents[:3], tangents[3]
    at = subspaces_at(backend, arrays, rtol)
    p, dv = _Projection.of(backend, at, arrays, order), subspaces_tangent(backend, at, arrays, tangents)
    (a, b, c), v, dv = p.model, p.v, dv[2][:, :, :order]
    da, db, dc = p.project(p.units.inward(backend, tangents))
    da = da + adjoint(dv) @ a @ v + adjoint(v) @ a @ dv
    model = p.units.outward(backend, (da, db + adjoint(dv) @ b, dc + c @ dv))
    return (*model, backend.xp.zeros_like(value[3]) if dd is None else dd)


def _cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, order: int | None, rtol: float | None
) -> Arrays:
    """The adjoint of `_tangent`."""
    arrays, d, bars, bar_d = arrays[:3], arrays[3], cotangents[:3], cotangents[3]
    at = subspaces_at(backend, arrays, rtol)
    p = _Projection.of(backend, at, arrays, order)
    (a, b, c), v, (bar_a, bar_b, bar_c) = p.model, p.v, p.units.outward(backend, bars)
    bar_v = a @ v @ adjoint(bar_a) + adjoint(a) @ v @ bar_a + b @ adjoint(bar_b) + adjoint(c) @ bar_c
    bar_v = backend.xp.concat([bar_v, backend.zeros((*a.shape[:2], a.shape[-1] - v.shape[-1]), a)], axis=-1)
    by_v = subspaces_cotangent(backend, at, arrays, (at.e, 0 * bar_v, bar_v))
    direct = p.units.inward(backend, (v @ bar_a @ adjoint(v), v @ bar_b, bar_c @ adjoint(v)))
    return (*(x + y for x, y in zip(by_v, direct, strict=True)), None if d is None else bar_d)


def _residual(
    backend: Backend,
    value: Arrays,
    a: Array,
    b: Array,
    c: Array,
    d: Array | None = None,
    *,
    order: int | None,
    rtol: float | None,
) -> Residual:
    """The parts that couple the subspaces, which were taken for zero, and the distance to the recomputed model."""
    xp, model, value, own = backend.xp, (a, b, c), value[:3], value[3]
    at = Subspaces(*SUBSPACES.solve(backend, *model, rtol=rtol).value)
    p, count = _Projection.of(backend, at, model, order), _count(backend, at.both)
    recomputed = _with_added_states(backend, p)
    coupling = coupling_terms(backend, at, p.model)
    direction = p.units.back(backend, coupling)
    moved = _tangent(backend, (*value, own), (*model, None), (*direction, None), order=order, rtol=rtol)[:3]
    # The projected model of one that is not minimal has rounding errors.
    rounded = backend.eps(a) * backend.astype(count < a.shape[-1], backend.dtype_name(a.real))
    correction = tuple(
        xp.abs(x - y) + xp.abs(z) + broadcast_scalar(rounded) * xp.abs(y)
        for x, y, z in zip(value, recomputed, moved, strict=True)
    )
    changes = [relative_norm(backend, x, y) for x, y in zip(coupling, p.model, strict=True)]
    changes += [relative_norm(backend, x - y, y) for x, y in zip(value, recomputed, strict=True)]
    correction = (*correction, own - (0 * own if d is None else d))
    return Residual(functools.reduce(xp.maximum, changes), correction, measures=(count,))


def _drop_added_states(backend: Backend, a: Array, b: Array, c: Array, d: Array) -> Realization[Array]:
    """The model without the last states that are added in every member; a traced one keeps them, as shapes are fixed."""
    if backend.is_traced(a) or 0 in a.shape:
        return Realization(a, b, c, d)
    used = _used_states(backend, *(backend.stop_gradient(x) for x in (a, b, c)))
    return Realization(a[..., :used, :used], b[..., :used, :], c[..., :, :used], d)


def _used_states(backend: Backend, a: Array, b: Array, c: Array) -> int:
    """The number of states up to the last one that some member needs; at least 1 if a member without an answer must hold NaN."""
    xp, off_diagonal = backend.xp, a * (1 - backend.eye(a.shape[-1], a))
    coupled = xp.concat((off_diagonal, off_diagonal.mT, b, c.mT), axis=-1)
    used = (xp.isfinite(coupled) & (coupled != 0)).any(-1).reshape((-1, a.shape[-1])).any(0)
    least = 0 if backend.all_true(xp.isfinite(a)) else 1
    return max([k + 1 for k, any_here in enumerate(used.tolist()) if any_here], default=least)


@overload
def minimal_realization(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    d: OptionalArrayLike[T] = None,
    *,
    order: int | None = None,
    rtol: float | None = None,
    errors: str = "raise",
) -> Realization[T]: ...
@overload
def minimal_realization(
    sys: Model, /, *, order: int | None = None, rtol: float | None = None, errors: str = "raise"
) -> Model: ...
@takes_model("ABCD", discrete=None, returns_model=True)
def minimal_realization(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    d: OptionalArrayLike[T] = None,
    *,
    order: int | None = None,
    rtol: float | None = None,
    errors: str = "raise",
) -> Realization[T]:
    """Remove the states of a linear system that its inputs do not reach or its outputs do not show.

    For a model ẋ = a x + b u, y = c x + d u, stable or not, or x⁺ = a x + b u: a model with the same transfer function
    and the fewest states.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices, of dtype float32, float64, complex64 or complex128.
    b : array_like (..., n, m)
        Input matrices.
    c : array_like (..., p, n)
        Output matrices.
    d : array_like (..., p, m), optional
        Direct terms, which do not change. Default: 0.
    order : int, optional
        The largest number of states of the result. A member that needs more is an error. Under ``jax.jit``, where no
        size can depend on values, the result has exactly this number. Default: n.
    rtol : float, optional
        What counts as zero: parts of a, b and c that couple two subspaces and are smaller than ``rtol`` times the norms
        of these matrices, in balanced units. Default: 10 n times the spacing of numbers near 1.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    a : array (..., r, r)
        System matrices of the minimal models. In a batch, r is the largest number of states that a member needs; the
        others get further states, decoupled from inputs, outputs and all states, with -1/2 on the diagonal of a. A model
        that is minimal is returned unchanged, if no other member needs more states.
    b : array (..., r, m)
        Their input matrices.
    c : array (..., p, r)
        Their output matrices.
    d : array (..., p, m)
        The direct terms. The four are the fields of the named tuple `Realization`.

    Raises
    ------
    SpectrumError
        If a member needs more states than ``order``, or holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    balanced_truncation : A model with fewer states still, for a stable model.

    Notes
    -----
    An orthogonal projection, in units of the states that balance [[a, b], [c, 0]], on the controllable subspace and then on
    its observable part [1]_ [2]_, by staircase forms [3]_. Neither decision depends on the units of states, inputs,
    outputs or time. Where rounding errors that many steps of the staircase have magnified hide a subspace, it is
    corrected. The result is, up to rounding, the exact minimal realization of a model that differs from the given one by at
    most ``rtol``. Such a small change can move a transfer function far near its poles, and a model from data rarely has
    states that are superfluous to rounding: choose ``rtol`` by the accuracy of the data, or take `balanced_truncation`,
    which bounds the error.

    The choice of the remaining states is not unique. Functions that do not depend on it, such as the transfer function,
    its norms and its poles, are differentiable to any order in directions in which the number of states stays the same
    (all, if the model is minimal). In other directions the transfer function has no derivative within models of this
    order, and that of the projected model for one choice of the projection is returned.

    A member of a batch gives the same bits as in a call by itself, but for the further states (with Dask, all n states are
    kept, and their entries of a are 0). The computation of the subspaces runs in double precision on the CPU, in NumPy.

    The backward error of `certify` is the largest of the relative norms of the parts of a, b and c that were taken for
    zero, in balanced units, or of the difference from the projected model. The forward error is the derivative in the
    direction of these parts. ``measures["order"]`` is the number of states that each member needs.

    ``minimal_realization(sys)`` takes a model ``sys``, a ``scipy.signal.StateSpace`` or a ``control.StateSpace`` in
    continuous or discrete time, and returns a model of the same class with the same D and dt. A vector as b is a column, as
    c a row.

    References
    ----------
    .. [1] R. E. Kalman, "Mathematical description of linear dynamical systems", J. SIAM Control Ser. A 1(2), 1963, pp.
       152-192, doi:10.1137/0301010.
    .. [2] A. Varga, "Numerically stable algorithm for standard controllability form determination", Electronics Letters
       17(2), 1981, pp. 74-75, doi:10.1049/el:19810055.
    .. [3] P. Van Dooren, "The generalized eigenstructure problem in linear system theory", IEEE Trans. Automat. Control
       26(1), 1981, pp. 111-129, doi:10.1109/TAC.1981.1102559.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import minimal_realization
    >>> a = np.array([[1.0, 2.0, 0.0], [0.0, -3.0, 1.0], [0.0, 0.0, -4.0]])  # the last state gets no input
    >>> b, c = np.array([[1.0], [1.0], [0.0]]), np.array([[1.0, 1.0, 1.0]])
    >>> small = minimal_realization(a, b, c)
    >>> small.a.shape
    (2, 2)
    >>> def transfer(s, a, b, c):
    ...     return (c @ np.linalg.solve(s * np.eye(len(a)) - a, b))[0, 0]
    >>> bool(abs(transfer(2j, *small[:3]) - transfer(2j, a, b, c)) < 1e-14)
    True
    """
    return MINIMAL_REALIZATION(a, b, c, d, order=order, rtol=rtol, errors=errors)


MINIMAL_REALIZATION = public_function(
    minimal_realization,
    "(n,n),(n,m),(p,n),(p,m)->(r,r),(r,m),(p,r),(p,m)",
    solve=_solve,
    residual=_residual,
    tangent=_tangent,
    cotangent=_cotangent,
    measures=("order",),
    wrap=_drop_added_states,
    sizes=_largest_order,
    columns=("b",),
    rows=("c",),
)
