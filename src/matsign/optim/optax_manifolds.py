"""Muon for weights on a manifold, as a gradient transformation for JAX: what `manifold_updates` does for PyTorch.

With the point W of the manifold that is nearest to w / R, and u from the momentum, the update is

    R retract(W - lr A) - w,        A the steepest tangent at W for u.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax  # noqa: TID251
import jax.numpy as jnp  # noqa: TID251
import numpy as np

from matsign._typing import Array
from matsign.core.options import real_number, short_repr
from matsign.functions.manifolds.steps import spectral_sphere_step, stiefel_step
from matsign.functions.polar.polar import msign
from matsign.optim.batching import Layout, as_blocks, check_layout
from matsign.optim.jax_leaves import Axes, leaf_name, leaf_readings
from matsign.optim.jax_momenta import check_dtypes, check_gradient, check_momentum, kept_dtype, mixing
from matsign.optim.manifold_options import GAP, check_manifold
from matsign.optim.matrix_axes import Reading
from matsign.optim.optax import GradientTransformation

Tree = Any
Rate = float | jax.Array | Callable[[Array], Any]


class MuonOnManifoldState(NamedTuple):
    """The momenta, a tree like the parameters, and the number of updates."""

    momentum: Tree
    step: Array


class Manifold(NamedTuple):
    """The name of a manifold, the largest singular value of weights on it, and the duality gap of a step."""

    name: str
    radius: float
    gap: float

    def move(self, rate: Any, w: Array, u: Array) -> Array:
        """New matrices; NaN for those with a weight or a gradient that is not finite."""
        step = stiefel_step if self.name == "stiefel" else spectral_sphere_step
        point = self.retract(_wide(w) / self.radius)
        a = step(point, _wide(u), gap=self.gap, errors="nan").step
        return (self.radius * self.retract(point - jnp.asarray(rate, point.real.dtype) * a)).astype(w.dtype)

    def retract(self, x: Array) -> Array:
        """The nearest point of the manifold with radius 1."""
        if self.name == "stiefel":
            return msign(x, errors="nan")
        return x / jnp.linalg.norm(x, 2, axis=(-2, -1), keepdims=True)


def muon_on_manifold(
    learning_rate: Rate,
    manifold: str,
    *,
    radius: float = 1.0,
    momentum: float | jax.Array = 0.95,
    nesterov: bool = True,
    tol: float | None = None,
    split: int | tuple[int, ...] = 1,
    split_inputs: int | tuple[int, ...] = 1,
    batch_axes: int = 0,
    outputs_last: bool = True,
    axes: Axes = None,
    momentum_dtype: Any = None,
) -> GradientTransformation:
    """Train weights that stay on a manifold along the steepest steps of Muon, with JAX.

    A gradient transformation that is an optimiser by itself: it contains the learning rate, because the way back to the
    manifold depends on it. Nothing may follow it in ``optax.chain``.

    Parameters
    ----------
    learning_rate : float, array or callable
        The learning rate, or a schedule: a function of the number of updates, as of optax.
    manifold : {"stiefel", "spectral_sphere"}
        "stiefel" keeps columns or rows of weights orthogonal and of one length, "spectral_sphere" their largest singular
        value.
    radius : float, default 1.0
        The largest singular value of a weight. A step changes it by at most the learning rate times this.
    momentum : float, default 0.95
        The factor μ of the momentum.
    nesterov : bool, default True
        Whether a step is the steepest one for u as below, or for m.
    tol : float, optional
        The relative duality gap of a step, at least 1e-6. Default: 0.01.
    split : int or tuple of int, default 1
        The number of equal blocks of the outputs that are matrices by themselves, or the sizes of blocks.
    split_inputs : int or tuple of int, default 1
        The same for the inputs.
    batch_axes : int, default 0
        The number of leading axes that count matrices.
    outputs_last : bool, default True
        Where a kernel has its outputs: on its last axis, as in Flax, or on its first axis, as in Equinox.
    axes : MatrixAxes, callable or tree of MatrixAxes, optional
        The axes of a parameter that are inputs and outputs of its matrices, as in `scale_by_msign`.
    momentum_dtype : dtype, optional
        The dtype in which momenta are kept between steps. Default: the dtype of the parameters.

    Returns
    -------
    transformation : GradientTransformation
        A named tuple of ``init(params)``, which returns a state, and ``update(updates, state, params)``, which returns
        the new updates and the new state. ``update`` needs the parameters.

    Raises
    ------
    ValueError
        If an option is out of range, a leaf is not a matrix, has no nearest point on the manifold (dependent columns, or zero on
        the sphere) or is too large for its dtype (see Notes) when ``init`` gets its values, or is spread over devices. The
        message names the leaf.

    See Also
    --------
    matsign.stiefel_step, matsign.spectral_sphere_step : The steps.
    Muon : The same for PyTorch, with ``manifold=``.
    scale_by_msign : Without a manifold.
    param_labels : Which leaves are matrices, and their axes, for ``optax.multi_transform``.

    Notes
    -----
    With the momentum of `scale_by_msign`, the point W of the manifold that is nearest to w over the radius, and the steepest
    tangent A at W for u, a step is w ← radius · retract(W - lr A). The first step moves weights to the manifold.
    As it is the sum of a weight and an update, rounding errors of the size of the weight remain then, until the second step;
    ``init`` refuses weights for which they are as large as the radius.

    It can be traced by ``jax.jit``. A leaf with NaN becomes NaN and no other. Leaves whose values differ between devices are
    refused outside of programs; in a program the compiler brings each leaf together.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from matsign.optim import muon_on_manifold
    >>> transformation = muon_on_manifold(0.1, "stiefel")
    >>> params = {"kernel": jnp.eye(6, 4)}
    >>> gradients = {"kernel": jnp.arange(24.0).reshape(6, 4)}
    >>> updates, state = transformation.update(gradients, transformation.init(params), params)
    >>> w = params["kernel"] + updates["kernel"]
    >>> bool(jnp.linalg.norm(w.T @ w - jnp.eye(4)) < 1e-6)
    True
    """
    check_momentum(momentum)
    check_manifold({"manifold": manifold, "radius": radius, "tol": tol, "schedule": None, "adjust_lr_fn": None})
    for name, value in (("nesterov", nesterov), ("outputs_last", outputs_last)):
        if value not in (True, False):
            raise ValueError(f"{name} must be True or False, got {short_repr(value)}")
    if manifold is None:
        raise ValueError("manifold must be 'stiefel' or 'spectral_sphere', got None; scale_by_msign has no manifold")
    _check_rate(learning_rate)
    place = Manifold(manifold, float(radius), GAP if tol is None else tol)
    layout = Layout(as_blocks(split), batch_axes, outputs_last, as_blocks(split_inputs))
    check_layout(layout)
    dtype, mix = kept_dtype(momentum_dtype), mixing(momentum)

    def init(params: Tree) -> MuonOnManifoldState:
        check_dtypes(params, dtype)
        leaves = jax.tree_util.tree_flatten_with_path(params)[0]
        for (path, w), reading in zip(leaves, leaf_readings(params, axes, layout), strict=True):
            _check_leaf(place, path, w, reading)
        return MuonOnManifoldState(
            jax.tree.map(lambda w: jnp.zeros_like(w, dtype=dtype), params), jnp.zeros((), jnp.int32)
        )

    def update(updates: Tree, state: MuonOnManifoldState, params: Tree = None) -> tuple[Tree, MuonOnManifoldState]:
        if params is None:
            raise ValueError("muon_on_manifold needs the parameters: transformation.update(updates, state, params)")
        jax.tree_util.tree_map_with_path(check_gradient, updates, state.momentum)
        m = jax.tree.map(mix, state.momentum, updates)
        along = jax.tree.map(mix, m, updates) if nesterov else m
        rate = learning_rate(state.step) if callable(learning_rate) else learning_rate
        leaves, structure = jax.tree.flatten(params)
        readings = leaf_readings(params, axes, layout)
        moved = _new_matrices(place, rate, leaves, jax.tree.leaves(along), readings)
        changes = [x - w for x, w in zip(moved, leaves, strict=True)]
        kept = jax.tree.map(lambda x, old: x.astype(dtype or old.dtype), m, state.momentum)
        return jax.tree.unflatten(structure, changes), MuonOnManifoldState(kept, jnp.minimum(state.step + 1, 2**30))

    return GradientTransformation(init, update)


def _new_matrices(
    place: Manifold, rate: Any, weights: list[Array], along: list[Array], readings: tuple[Reading, ...]
) -> list[Array]:
    """The new parameters; matrices of one shape and dtype are one stack."""
    arranged = [r.arrange(jnp.asarray(w)) for r, w in zip(readings, weights, strict=True)]
    pairs = [
        pair
        for r, w, u in zip(readings, arranged, along, strict=True)
        for pair in zip(r.layout.matrices(w), r.layout.matrices(r.arrange(u).astype(w.dtype)), strict=True)
    ]
    kinds: dict[Any, list[int]] = {}
    for k, (w, _) in enumerate(pairs):
        kinds.setdefault((w.shape[1:], w.dtype), []).append(k)
    moved = [w for w, _ in pairs]
    for members in kinds.values():
        stacks = [jnp.concatenate([pairs[k][side] for k in members]) for side in (0, 1)]
        if stacks[0].size:
            ends = np.cumsum([len(pairs[k][0]) for k in members])[:-1]
            for k, x in zip(members, jnp.split(place.move(rate, *stacks), ends), strict=True):
                moved[k] = x
    rest = iter(moved)
    return [
        r.restore(r.layout.parameter([next(rest) for _ in range(r.layout.stacks)], w.shape))
        for r, w in zip(readings, arranged, strict=True)
    ]


def _check_rate(rate: Rate) -> None:
    if callable(rate) or isinstance(rate, (jax.Array, np.ndarray)):
        return
    if not 0 <= real_number(rate) < math.inf:
        raise ValueError(f"learning_rate must be a number of at least 0 or a schedule, got {short_repr(rate)}")


def _check_leaf(place: Manifold, path: Any, w: Array, reading: Reading) -> None:
    """A ValueError for a leaf that is spread over devices, or with a matrix that the first update cannot move to the manifold."""
    if isinstance(w, jax.core.Tracer):
        return
    if isinstance(w, jax.Array) and not w.sharding.is_fully_replicated:
        raise ValueError(
            f"{leaf_name(path)} is sharded, and a manifold is for parameters that are whole on their device"
        )
    for x in reading.layout.matrices(reading.arrange(jnp.asarray(w))):
        if not x.size:
            continue
        values = np.linalg.svd(np.nan_to_num(np.asarray(_wide(x))), compute_uv=False)
        eps = max(x.shape[-2:]) * np.finfo(values.dtype).eps
        rounding = float(jnp.finfo(x.dtype).eps) * values[:, 0]  # type: ignore[no-untyped-call]
        if (rounding > place.radius / 4).any():
            raise ValueError(
                f"{leaf_name(path)} is so far from the manifold that rounding errors of the first update are as large as the "
                f"radius {place.radius:g}; divide it by its spectral norm"
            )
        if place.name == "stiefel" and (values[:, -1] <= eps * values[:, 0]).any():
            raise ValueError(
                f"{leaf_name(path)} has dependent rows or columns, and so no nearest point on the Stiefel manifold; "
                "initialise it by jax.nn.initializers.orthogonal"
            )
        if place.name == "spectral_sphere" and (values[:, 0] == 0).any():
            raise ValueError(f"{leaf_name(path)} has a zero matrix, which has no nearest point on the spectral sphere")


def _wide(x: Array) -> Array:
    """In single precision if it is in half precision."""
    return x.astype(jnp.float32) if x.dtype in (jnp.float16, jnp.bfloat16) else x
