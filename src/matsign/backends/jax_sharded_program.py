"""What a device does in an operation on sharded matrices: the program is traced for a mesh without devices."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, PartitionSpec

from matsign.backends import CODES
from matsign.backends.jax_matrix_axes import grid_of, own_axes
from matsign.backends.jax_program import Program, analyse
from matsign.backends.jax_sharded import solve


def of_matrices(
    bound: Any, shapes: Sequence[tuple[int, ...]], dtype: str, axes: Mapping[str, int], loop_steps: int
) -> Program:
    """The program of a bound operation on single matrices of these shapes, over all axes of a mesh."""
    mesh = AbstractMesh(tuple(axes.values()), tuple(axes))
    with jax.enable_x64(dtype in ("float64", "complex128")):
        arrays = [jax.ShapeDtypeStruct((1, *shape), dtype) for shape in shapes]
        grid = grid_of(mesh, [(None, tuple(axes), None)], 1, [x.shape for x in arrays])
        results = [shape for shape, _ in bound.result_shapes(arrays)]
        given, values = (
            [own_axes(grid, shape, 1) for shape in every] for every in ([x.shape for x in arrays], results)
        )
        program = jax.shard_map(
            functools.partial(solve, bound, grid, [axis for axis, _ in given], [axis for axis, _ in values]),
            mesh=mesh,
            in_specs=tuple(PartitionSpec(None, *spec) for _, spec in given),
            out_specs=(*(PartitionSpec(None, *spec) for _, spec in values), *[PartitionSpec()] * CODES),
            check_vma=False,
        )
        return analyse(jax.make_jaxpr(program)(*arrays).jaxpr, axes, loop_steps)
