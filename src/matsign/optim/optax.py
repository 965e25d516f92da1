"""The step of Muon as a gradient transformation for JAX, for use in ``optax.chain``; optax itself is not needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax  # noqa: TID251
import jax.numpy as jnp  # noqa: TID251

from matsign._typing import Array
from matsign.core.options import short_repr
from matsign.optim.batching import (
    Layout,
    as_blocks,
    check_adjustment,
    check_layout,
    check_precision,
    msign_config,
)
from matsign.optim.jax_leaves import Axes, check_one_mesh, leaf_readings, sharded_alike, zeros_like
from matsign.optim.jax_momenta import check_dtypes, check_gradient, check_momentum, kept_dtype, mixing
from matsign.optim.jax_updates import Updates, sharded_updates

Tree = Any


if TYPE_CHECKING:
    from optax import (
        GradientTransformation as GradientTransformation,  # so that type checkers let `optax.chain` take it
    )
else:

    class GradientTransformation(NamedTuple):
        """init(params) is a state; update(gradients, state, params) is (updates, state)."""

        init: Callable[[Tree], Any]
        update: Callable[..., tuple[Tree, Any]]


class ScaleByMsignState(NamedTuple):
    """The momenta, a tree like the parameters, and the number of updates if the bias is corrected."""

    momentum: Tree
    step: Array | None = None


def scale_by_msign(
    momentum: float | jax.Array = 0.95,
    nesterov: bool = True,
    *,
    ns_coefficients: tuple[float, float, float] | None = None,
    ns_steps: int | None = None,
    schedule: str | Sequence[Sequence[float]] | None = None,
    steps: int | None = None,
    tol: float | None = None,
    precision: str | None = None,
    adjust_lr_fn: str | None = None,
    split: int | tuple[int, ...] = 1,
    split_inputs: int | tuple[int, ...] = 1,
    batch_axes: int = 0,
    outputs_last: bool = True,
    axes: Axes = None,
    momentum_dtype: Any = None,
    bias_correction: bool = False,
) -> GradientTransformation:
    """Replace updates by the msign of their momentum, with JAX.

    A gradient transformation for ``optax.chain``, before the learning rate: ``chain(scale_by_msign(),
    add_decayed_weights(0.1), scale_by_learning_rate(0.02))`` is Muon. It does not import optax.

    Parameters
    ----------
    momentum : float, default 0.95
        The factor μ of the momentum.
    nesterov : bool, default True
        Whether the update goes along u as below, or along m.
    ns_coefficients : (float, float, float), optional
        Coefficients of Newton-Schulz steps. If this or ``ns_steps`` is given, exactly those steps are taken.
    ns_steps : int, optional
        The number of Newton-Schulz steps.
    schedule : str or sequence of (float, float, float), optional
        Polynomial steps by name or by rows (a, b, c), as in `matsign.msign`.
    steps : int, optional
        The number of steps, of ``schedule`` or of generated ones. Default: 4 generated steps.
    tol : float, optional
        In place of a number of steps: singular values above a thousandth of the largest one end within ``tol`` of 1.
    precision : {"half", "full"}, optional
        "half" takes products in half precision where the device has units for it; it cannot be combined with ``tol``.
        Default: "half" on an accelerator and for 16-bit parameters, else "full".
    adjust_lr_fn : {"original", "match_rms_adamw"}, optional
        The factor s of the update, for a matrix of n outputs and m inputs: √max(1, n/m) for "original", the default;
        0.2 √max(n, m) for "match_rms_adamw".
    split : int or tuple of int, default 1
        The number of equal blocks of the outputs that are matrices by themselves, or the sizes of blocks that are not
        equal, as of queries, keys and values in grouped-query attention.
    split_inputs : int or tuple of int, default 1
        The same for the inputs.
    batch_axes : int, default 0
        The number of leading axes that count matrices.
    outputs_last : bool, default True
        Where a kernel has its outputs: on its last axis, as in Flax and Haiku (all other axes together are the inputs),
        or on its first axis, as in Equinox.
    axes : MatrixAxes, callable or tree of MatrixAxes, optional
        The axes of a parameter that are inputs and outputs of its matrices, in place of the four options above: for all
        leaves; as a function ``axes(path, shape)``, with a path such as "layers.0.query.kernel"; or as a tree whose
        entries hold for a leaf or for all leaves below. Where it is None, the four options apply.
    momentum_dtype : dtype, optional
        The dtype in which momenta are kept between steps, as ``mu_dtype`` of optax: ``jnp.bfloat16`` for half of the
        memory. An update is computed in the wider of it and the dtype of the gradient. Default: the dtype of the
        parameters.
    bias_correction : bool, default False
        Whether u of step t is computed from g/(1 - μᵗ) and m/(1 - μᵗ⁺¹), as in ``optax.contrib.scale_by_muon``. With
        ``ns_steps=5`` the updates are then those of optax. Has no effect without ``nesterov``.

    Returns
    -------
    transformation : GradientTransformation
        A named tuple of ``init(params)``, which returns a state, and ``update(updates, state, params)``, which returns
        the new updates and the new state.

    Raises
    ------
    ValueError
        If an option is out of range, a leaf is not a matrix, or a leaf is on another mesh than the others. The message
        names the leaf. Exclude leaves that are not matrices by ``optax.masked``, or give them to another transformation
        by ``optax.multi_transform`` with the labels of `param_labels`.

    See Also
    --------
    matsign.msign : The function that makes the updates.
    MatrixAxes : The axes of a parameter.
    param_labels : Which leaves are matrices, and their axes.
    Muon : The optimiser for PyTorch.

    Notes
    -----
    For an update g with momentum m, the new update is [1]_::

        m ← μ m + (1 - μ) g,    u = (1 - μ) g + μ m,    s msign(u).

    It can be traced by ``jax.jit``. Leaves of equal shape, and of the transposed shape, go through one batched msign,
    and small ones of other lengths with them. A leaf with NaN becomes NaN and no other.

    Leaves may be sharded over the devices of a mesh. An update is sharded as the parameter, or as the momentum if ``update``
    gets no parameters, and momenta as the parameters. Every device computes whole matrices, each of them once: one
    all-to-all brings the matrices of a shape to the devices that compute with them, and one collective brings them back.

    References
    ----------
    .. [1] K. Jordan and others, "Muon: An optimizer for hidden layers in neural networks", 2024,
       https://kellerjordan.github.io/posts/muon/.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from matsign.optim import scale_by_msign
    >>> transformation = scale_by_msign(tol=1e-3)
    >>> params = {"kernel": jnp.eye(6, 4), "other": jnp.eye(4, 6)}
    >>> gradients = jax.tree.map(lambda w: w * jnp.arange(1.0, w.shape[1] + 1), params)
    >>> updates, state = jax.jit(transformation.update)(gradients, transformation.init(params))
    >>> u = updates["kernel"]
    >>> bool(jnp.linalg.norm(u.T @ u - jnp.eye(4)) < 4e-3)
    True
    """
    check_momentum(momentum)
    check_adjustment(adjust_lr_fn)
    check_precision(precision)
    for name, value in (
        ("nesterov", nesterov),
        ("outputs_last", outputs_last),
        ("bias_correction", bias_correction),
    ):
        if value not in (True, False):
            raise ValueError(f"{name} must be True or False, got {short_repr(value)}")
    how = msign_config(ns_coefficients, ns_steps, schedule, steps, tol, precision)
    layout = Layout(as_blocks(split), batch_axes, outputs_last, as_blocks(split_inputs))
    check_layout(layout)
    dtype = kept_dtype(momentum_dtype)

    def init(params: Tree) -> ScaleByMsignState:
        check_one_mesh(params)
        leaf_readings(params, axes, layout)
        check_dtypes(params, dtype)
        step = jnp.zeros((), jnp.int32) if bias_correction else None
        return ScaleByMsignState(jax.tree.map(lambda w: zeros_like(w, dtype), params), step)

    mix = mixing(momentum)

    def update(updates: Tree, state: ScaleByMsignState, params: Tree = None) -> tuple[Tree, ScaleByMsignState]:
        check_one_mesh(params, state.momentum, updates)
        jax.tree_util.tree_map_with_path(check_gradient, updates, state.momentum)
        updates = jax.tree.map(sharded_alike, updates, state.momentum)
        m = jax.tree.map(mix, state.momentum, updates)
        ahead, step = m, state.step
        if bias_correction:
            # msign(c x) = msign(x), so that only the ratio of the two divisors matters. After 2³⁰ steps it is 1.
            step = jnp.minimum(jnp.asarray(state.step) + 1, 2**30)
            ratio = (1 - momentum**step) / (1 - momentum ** (step + 1))
            ahead = jax.tree.map(lambda x: ratio.astype(x.dtype) * x, m)
        u = jax.tree.map(mix, ahead, updates) if nesterov else m
        kept = jax.tree.map(lambda x, old: x.astype(dtype or old.dtype), m, state.momentum)
        leaves, structure = jax.tree.flatten(u)
        like = jax.tree.leaves(params if _same_structure(params, u) else state.momentum)
        signs = sharded_updates(Updates(leaf_readings(u, axes, layout), how, adjust_lr_fn), leaves, like)
        return jax.tree.unflatten(structure, signs), ScaleByMsignState(kept, step)

    return GradientTransformation(init, update)


def _same_structure(*trees: Tree) -> bool:
    structures: list[Any] = [jax.tree.structure(tree) for tree in trees]
    return bool(structures[0] == structures[1])
