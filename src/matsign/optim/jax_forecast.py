"""What a device does in one call of `scale_by_msign` on sharded parameters: its program is traced for a mesh without devices."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax  # noqa: TID251
from jax.sharding import AbstractMesh, PartitionSpec  # noqa: TID251

from matsign.backends.jax_program import Program, analyse
from matsign.optim.batching import Layout, MsignConfig, Shape
from matsign.optim.jax_updates import Updates, dividing, on_one_device
from matsign.optim.matrix_axes import Reading


def forecast(
    shapes: Sequence[Shape],
    layouts: Sequence[Layout],
    mesh: Mapping[str, int],
    sides: Sequence[int | None],
    how: MsignConfig,
    dtype: str,
) -> Program:
    """The program for parameters of these shapes; `sides` has for each mesh axis what it shards, as for `forecast`."""
    specs = [
        dividing(_spec(layout.batch_axes, mesh, sides), shape, mesh)
        for shape, layout in zip(shapes, layouts, strict=True)
    ]
    updates = Updates(tuple(Reading(None, layout) for layout in layouts), how, None)
    program = functools.partial(on_one_device, updates, None, sizes=dict(mesh), specs=specs)
    sharded = jax.shard_map(
        program,
        mesh=AbstractMesh(tuple(mesh.values()), tuple(mesh)),
        in_specs=tuple(specs),
        out_specs=tuple(specs),
        check_vma=False,
    )
    with jax.enable_x64(dtype == "float64"):
        jaxpr = jax.make_jaxpr(sharded)(*(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes))
    return analyse(jaxpr.jaxpr, mesh, 1)


def _spec(batch_axes: int, mesh: Mapping[str, int], sides: Sequence[int | None]) -> Any:
    axes: list[tuple[str, ...]] = [()] * (batch_axes + 2)
    for name, axis in zip(mesh, sides, strict=True):
        if axis is not None and batch_axes + axis >= 0:
            axes[batch_axes + axis] += (name,)
    return PartitionSpec(*(names or None for names in axes))
