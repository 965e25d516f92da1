"""How the members of a stack are distributed over devices.

The leading axes of an array count the members; the others belong to each member. On an explicit mesh the sharding is part of the
type of an array, also of a traced one; on an automatic mesh only arrays with values have one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as xp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from matsign._typing import Array

Axes = tuple[Any, ...]  # for each axis of an array: None, the name of a mesh axis, or a tuple of names


def axes_of(x: Any) -> Axes:
    """The mesh axes over which each axis of x is sharded, as far as its type or its value tells."""
    sharding = sharding_of(x)
    return (None,) * x.ndim if sharding is None else spec_of(sharding, x.ndim)


def typed_axes(x: Any) -> Axes:
    """The mesh axes in the type of x: those of an explicit mesh."""
    typed = x.sharding if isinstance(x, jax.core.ShapedArray) else jax.typeof(x).sharding
    return spec_of(typed, x.ndim)


def spec_of(sharding: Any, ndim: int) -> Axes:
    spec = tuple(sharding.spec)
    return (*spec, *(None,) * (ndim - len(spec)))


def sharding_of(x: Any) -> NamedSharding | None:
    """The sharding over a mesh that is in the type of x, or else that of its value; None if there is none."""
    if is_concrete(x) and isinstance(x.sharding, NamedSharding):
        return x.sharding
    typed = x.sharding if isinstance(x, jax.core.ShapedArray) else jax.typeof(x).sharding
    return None if typed.mesh.empty else typed


def is_concrete(x: Any) -> bool:
    return isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)


def over_several_devices(x: Any) -> bool:
    """Whether x has values on several devices."""
    return is_concrete(x) and len(x.sharding.device_set) > 1


def members_only(shardings: Sequence[Axes], leading: int) -> bool:
    """Whether arrays with these shardings are distributed by members alone: no axis of a matrix is sharded."""
    return all(axis is None for axes in shardings for axis in axes[leading:])


def axes_of_members(shardings: Sequence[Axes], leading: int) -> Axes:
    """The mesh axes over which members are sharded: for each leading axis those of the first array that is sharded along it."""
    common: list[Any] = [None] * leading
    for k in range(leading):
        free = set(names_of([*common[:k], *common[k + 1 :]]))
        choices = (axes[k] for axes in shardings if axes[k] is not None and not free & set(names_of([axes[k]])))
        common[k] = next(choices, None)
    return tuple(common)


def names_of(axes: Sequence[Any]) -> list[str]:
    """The names of all mesh axes."""
    return [name for axis in axes if axis is not None for name in (axis if isinstance(axis, tuple) else (axis,))]


def check_members(shardings: Sequence[Axes], leading: int) -> None:
    """Raise a ValueError if types on an explicit mesh do not allow one sharding of the members."""
    for k in range(leading):
        found = list(dict.fromkeys(axes[k] for axes in shardings if axes[k] is not None))
        if len(found) > 1:
            raise ValueError(
                f"the leading axis {k} is sharded over {found[0]!r} in one array and over {found[1]!r} in another; "
                "jax.sharding.reshard one of them"
            )
    common = axes_of_members(shardings, leading)
    if any(c is None and any(axes[k] is not None for axes in shardings) for k, c in enumerate(common)):
        raise ValueError("two leading axes are sharded over the same mesh axis; jax.sharding.reshard one of the arrays")


def equally_sharded(arrays: Sequence[Array], leading: int) -> tuple[Array, ...]:
    """Arrays of one operation, with types that shard the members of all of them as one of them does."""
    typed = [typed_axes(x) for x in arrays]
    check_members(typed, leading)
    common = axes_of_members(typed, leading)
    if not any(common):
        return tuple(arrays)
    mesh = _mesh(arrays)
    return tuple(
        x if axes[:leading] == common else _reshard(x, NamedSharding(mesh, PartitionSpec(*common, *axes[leading:])))
        for x, axes in zip(arrays, typed, strict=True)
    )


def _mesh(arrays: Sequence[Array]) -> Any:
    """The mesh of arrays of which one is sharded."""
    return next(s.mesh for s in map(sharding_of, arrays) if s is not None and any(s.spec))


def _reshard(x: Array, sharding: NamedSharding) -> Array:
    return jax.device_put(x, sharding) if is_concrete(x) else jax.sharding.reshard(x, sharding)


def as_stacks(arrays: Sequence[Any], batch: tuple[int, ...], own: Sequence[int]) -> tuple[Any, ...]:
    """Arrays with the leading axes `batch`, or one of size 1 for a single matrix; the last `own` axes are those of a member.

    The leading axes are not merged: two sharded ones cannot become one without communication.
    """
    single = batch == ()
    arrays = [x[None] if single and x is not None and x.ndim == k else x for x, k in zip(arrays, own, strict=True)]
    batch = batch or (1,)
    given = [(x, k) for x, k in zip(arrays, own, strict=True) if x is not None]
    check_members([_leading_axes(typed_axes(x), k, batch) for x, k in given], len(batch))
    if all(x.shape[: x.ndim - k] == batch for x, k in given):
        return tuple(arrays)
    # With a tracer among them, only types tell how the others may be sharded.
    values = all(is_concrete(x) for x, _ in given)
    axes = axes_of if values else typed_axes
    common = axes_of_members([_leading_axes(axes(x), k, batch) for x, k in given], len(batch))
    mesh = _mesh([x for x, _ in given]) if any(common) else None

    def broadcast(x: Array, k: int) -> Array:
        shape = (*batch, *x.shape[x.ndim - k :])
        if x.shape == shape:
            return x
        if mesh is None:
            return xp.broadcast_to(x, shape)
        sharding = NamedSharding(mesh, PartitionSpec(*common, *axes(x)[x.ndim - k :]))
        return _broadcaster(shape, sharding)(x) if values else xp.broadcast_to(x, shape, out_sharding=sharding)

    return tuple(None if x is None else broadcast(x, k) for x, k in zip(arrays, own, strict=True))


def _leading_axes(axes: Axes, own: int, batch: tuple[int, ...]) -> Axes:
    """The mesh axes of the leading axes of an array after it is broadcast."""
    leading = axes[: len(axes) - own]
    return (*(None,) * (len(batch) - len(leading)), *leading)


@functools.lru_cache(maxsize=256)
def _broadcaster(shape: tuple[int, ...], sharding: NamedSharding) -> Any:
    """A program for each sharding: broadcast first and sharded afterwards, the array would stand whole on one device."""
    return jax.jit(lambda x: xp.broadcast_to(x, shape), out_shardings=sharding)


def gather(x: Array) -> Any:
    """x as a NumPy array in every process."""
    if not x.is_fully_addressable:
        x = jax.jit(lambda x: x, out_shardings=NamedSharding(x.sharding.mesh, PartitionSpec()))(x)
    return np.asarray(x)


def merge_members(x: Array, leading: int) -> Array:
    """x with its leading axes as one."""
    return x if leading == 1 else x.reshape((math.prod(x.shape[:leading]), *x.shape[leading:]))


def split_members(x: Array, leading: tuple[int, ...]) -> Array:
    """x with these leading axes in place of the one."""
    return x if len(leading) == 1 else x.reshape((*leading, *x.shape[1:]))


def on_stacks(f: Callable[..., Any], leading: int) -> Callable[..., Any]:
    """A function of stacks, which have one leading axis, for arrays with more: these are not merged."""
    for _ in range(leading - 1):
        f = jax.vmap(f)
    return f


def no_mesh() -> Any:
    """A context in which the types of arrays have no shardings."""
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ()))
