"""The leaves of a tree of parameters in JAX: their names, how each is read as matrices, and the mesh that they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax  # noqa: TID251
import jax.numpy as jnp  # noqa: TID251
from jax.sharding import NamedSharding  # noqa: TID251

from matsign._typing import Array
from matsign.core.options import short_repr
from matsign.optim.batching import Layout
from matsign.optim.matrix_axes import MatrixAxes, Reading, reading

Tree = Any
# MatrixAxes for all leaves, by path and shape, or a tree of them.
Axes = MatrixAxes | Callable[[str, tuple[int, ...]], MatrixAxes | None] | Tree | None


def path_name(path: Any) -> str:
    """The path of a leaf as one word: ``layers.0.kernel``."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def leaf_name(path: Any) -> str:
    """A leaf in an error message."""
    return f"leaf {path_name(path)!r}" if path else "the array"


def leaf_readings(tree: Tree, axes: Axes, layout: Layout) -> tuple[Reading, ...]:
    """How each leaf is read: by `axes` where they name it, or by `layout`; a ValueError names a leaf that is no matrix."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    given = _axes_by_leaf(axes, tree)
    return tuple(_reading(path, jnp.shape(x), given(path, jnp.shape(x)), layout) for path, x in leaves)


def _reading(path: Any, shape: tuple[int, ...], axes: Any, layout: Layout) -> Reading:
    name = leaf_name(path)
    if axes is None:
        layout.shapes(shape, name)
        return Reading(None, layout)
    if not isinstance(axes, MatrixAxes):
        raise ValueError(f"axes must be MatrixAxes or None for {name} of shape {shape}, got {short_repr(axes)}")
    return reading(axes, shape, name)


def _axes_by_leaf(axes: Axes, tree: Tree) -> Callable[[Any, tuple[int, ...]], Any]:
    if axes is None or isinstance(axes, MatrixAxes):
        return lambda path, shape: axes
    if callable(axes):
        return lambda path, shape: axes(path_name(path), shape)
    entries = jax.tree_util.tree_flatten_with_path(axes, is_leaf=lambda x: x is None or isinstance(x, MatrixAxes))[0]
    by_path = {tuple(map(str, path)): value for path, value in entries}
    _check_paths(by_path, tree)

    def of_leaf(path: Any, shape: tuple[int, ...]) -> Any:
        keys = tuple(map(str, path))
        return next((by_path[keys[:k]] for k in range(len(keys), -1, -1) if keys[:k] in by_path), None)

    return of_leaf


def _check_paths(by_path: Mapping[tuple[str, ...], Any], tree: Tree) -> None:
    """A ValueError for axes of a leaf that the tree does not have, also not where optax leaves it out."""
    every = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_left_out)[0]
    paths = [(tuple(map(str, path)), _is_left_out(x)) for path, x in every]
    for keys, value in by_path.items():
        there = any(keys == path[: len(keys)] or (left_out and path == keys[: len(path)]) for path, left_out in paths)
        if value is not None and not there:
            raise ValueError(f"axes has {''.join(keys)}, which is not a part of the tree")


def _is_left_out(x: Any) -> bool:
    """Whether optax has masked a leaf or a part of the tree."""
    return type(x).__name__ == "MaskedNode"


def check_one_mesh(*trees: Tree) -> None:
    """A ValueError that names a leaf which is not on the mesh of the others."""
    leaves = [leaf for tree in trees for leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]
    for traced in (False, True):  # types of traced arrays have a mesh without devices
        chosen = [(path, x) for path, x in leaves if isinstance(x, jax.core.Tracer) == traced]
        _check_meshes([(path, mesh) for path, x in chosen if (mesh := _mesh(x)) is not None])


def _check_meshes(meshes: Sequence[tuple[Any, Any]]) -> None:
    if len({mesh for _, mesh in meshes}) < 2:
        return
    common, _ = Counter(mesh for _, mesh in meshes).most_common(1)[0]
    path, other = next((path, mesh) for path, mesh in meshes if mesh != common)
    raise ValueError(
        f"{leaf_name(path)} is on {other}, and other leaves are on {common}; jax.device_put it on the mesh of the others"
    )


def _mesh(x: Any) -> Any:
    """The mesh of an array, or the device that it is committed to; None if it can be on any."""
    if not isinstance(x, jax.Array):
        return None
    if isinstance(x, jax.core.Tracer):
        mesh = jax.typeof(x).sharding.mesh
        return None if mesh.empty else mesh
    if isinstance(x.sharding, NamedSharding):
        return x.sharding.mesh
    return tuple(x.sharding.device_set) if x.committed else None


def zeros_like(x: Array, dtype: Any) -> Array:
    """Zeros that are sharded as x: in a compiled program they must depend on x for that."""
    if not isinstance(x, jax.core.Tracer):
        return jnp.zeros_like(x, dtype=dtype)
    return (x != x).astype(dtype or x.dtype) * jnp.zeros((), dtype or x.dtype)


def sharded_alike(x: Array, like: Array) -> Array:
    """x with the sharding of `like`, where it is known: outside of programs, or in the type of an array on an explicit mesh."""
    if all(isinstance(y, jax.Array) and not isinstance(y, jax.core.Tracer) for y in (x, like)):
        both = isinstance(x.sharding, NamedSharding) and isinstance(like.sharding, NamedSharding)
        return jax.device_put(x, like.sharding) if both and x.sharding != like.sharding else x
    sharding = jax.typeof(like).sharding
    if sharding.mesh.empty or jax.typeof(x).sharding == sharding or jax.typeof(x).sharding.mesh.empty:
        return x
    return jax.sharding.reshard(x, sharding)
