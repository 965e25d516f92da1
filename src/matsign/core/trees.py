"""A function of every matrix in a tree: matrices of equal shape are passed as one batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from matsign import backends
from matsign._typing import Array, ArrayOf
from matsign.backends.adapters import adapter_of
from matsign.core.public import spec_of

P = ParamSpec("P")
Tree = TypeVar("Tree")


class OnTree(Protocol[P]):
    """A function of a tree of arrays, with options, that returns a tree of the same structure."""

    def __call__(self, tree: Tree, /, *args: P.args, **options: P.kwargs) -> Tree: ...


@overload
def each(f: Callable[Concatenate[Any, P], ArrayOf[Any]]) -> OnTree[P]: ...
@overload
def each(f: Callable[Concatenate[Any, P], Any]) -> Callable[Concatenate[Any, P], Any]: ...
def each(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is applied to every matrix of a tree.

    ``each(f)(tree)`` is the tree of f(M) for every M in it. A tree is an array, or a list, tuple or dictionary of
    trees.

    Parameters
    ----------
    f : callable
        A function of this library of one array, such as `msign` or `sqrtm`.

    Returns
    -------
    on_tree : callable
        A function of a tree, with the options of ``f``, that returns a tree of the same structure. An array in the tree
        may be a batch; None stays None.

    Raises
    ------
    TypeError
        If ``f`` is not a function of this library, or takes several arrays.

    See Also
    --------
    msign : A function that is often applied to all layers of a network.
    matsign.optim.Muon : An optimiser that groups its parameters in the same way.

    Notes
    -----
    Arrays of the same shape and dtype are stacked and passed in one call. For `msign`, where msign(Mᴴ) = msign(M)ᴴ,
    arrays of the transposed shape go with them. Each result has the sharding of its array and the same bits as a call
    with that array alone (except of `mcsgn`, `spectral_projector` and `matrix_abs` without ``method``, and of roots,
    powers and logarithms of symmetric matrices with up to four rows, whose method depends on the size of the batch). The result
    is differentiable as f is.

    The function that is returned raises a TypeError for a leaf that is not an array, and with ``errors="raise"`` what
    ``f`` raises; the batch indices in a `SpectrumError` then count along the stack.

    Examples
    --------
    >>> import numpy as np, matsign
    >>> layers = {"in": np.eye(4, 3), "out": np.eye(3, 4), "heads": [2 * np.eye(3), 3 * np.eye(3)]}
    >>> steps = matsign.each(matsign.msign)(layers)
    >>> bool(np.linalg.norm(steps["heads"][1] - np.eye(3)) < 1e-15), steps["out"].shape
    (True, (3, 4))
    """
    wanted = "each needs a function of matsign of one array"
    spec = spec_of(f, wanted)
    if len(spec.parameters.arrays) - len(spec.parameters.optional) != 1:
        raise TypeError(f"{wanted}, got {f!r}")
    joins_adjoints = spec.operation.adjoint

    @functools.wraps(f, updated=())
    def on_tree(tree: Any, **options: Any) -> Any:
        leaves: list[Array] = []
        _map_leaves(tree, leaves.append)
        results: list[Any] = [None] * len(leaves)
        groups: dict[Any, list[int]] = {}
        for place, x in enumerate(leaves):
            groups.setdefault(_group_key(x, joins_adjoints), []).append(place)
        for places in groups.values():
            for place, value in zip(places, _apply_stacked(f, [leaves[k] for k in places], options), strict=True):
                results[place] = value
        values = iter(results)
        return _map_leaves(tree, lambda _: next(values))

    return on_tree


def _group_key(x: Array, joins_adjoints: bool) -> tuple[Any, ...]:
    """The key that arrays must share to be one batch."""
    *batch, n, m = x.shape
    # On an explicit mesh of JAX, arrays that are sharded over different axes have different types.
    over = tuple(getattr(getattr(getattr(x, "aval", None), "sharding", None), "spec", ()))
    return (
        type(x),
        str(getattr(x, "dtype", "")),  # a frame has none
        str(getattr(x, "device", "")),
        over,
        tuple(batch),
        (max(n, m), min(n, m)) if joins_adjoints and not any(over) else (n, m),
    )


def _apply_stacked(f: Callable[..., Any], arrays: list[Array], options: dict[str, Any]) -> list[Any]:
    """f of arrays that have the shape of the first or the transposed one, in one call."""
    if len(arrays) == 1 or adapter_of(arrays) is not None:
        return [f(x, **options) for x in arrays]
    xp = backends.load(backends.library_of(arrays[0]) or "numpy").xp
    adjoint = [x.shape != arrays[0].shape for x in arrays]
    stack = xp.stack([x.mT.conj() if t else x for x, t in zip(arrays, adjoint, strict=True)])
    value = f(stack, **options)
    # Not by iteration: in JAX that moves a sharded array to one device.
    if isinstance(value, tuple):
        parts = zip(*map(xp.unstack, value), strict=True)
        return [type(value)(*part) if hasattr(value, "_fields") else tuple(part) for part in parts]
    return [x.mT.conj() if t else x for x, t in zip(xp.unstack(value), adjoint, strict=True)]


def _map_leaves(tree: Any, visit: Callable[[Array], Any]) -> Any:
    """The tree with each array replaced by `visit` of it, always in the same order."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {key: _map_leaves(part, visit) for key, part in tree.items()}
    if isinstance(tree, (list, tuple)):
        parts = [_map_leaves(part, visit) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if backends.library_of(tree) is None or tree.ndim < 2:
        raise TypeError(f"each needs matrices in lists, tuples and dictionaries, found {type(tree).__name__}")
    return visit(tree)
