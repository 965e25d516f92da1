"""The axes of the matrices of an operation: which are the same, and over which axes of a mesh they are sharded.

Rows of one number are sharded in one way in all matrices of an operation, and so are columns, but not rows as columns: a mesh
axis shards only one axis of an array.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matsign.backends.jax_distributed import COLUMNS, ROWS, Grid
from matsign.backends.jax_sharding import Axes, names_of

# A matrix with at most this many times the entries of a shard of the largest matrix counts as small, ...
_SHARDS = 5
# ... if that matrix has so many times its entries: the Gram matrix of a tall matrix is small, a square matrix is not.
_RATIO = 1.75


def sharding_rule(leading: int, operands: Any, results: Any) -> str:
    """Which axes are the same, for XLA: such as "m0 r4 c4, m0 r4 c2 -> m0 r4 c2"."""
    members, count, sides = [f"m{k}" for k in range(leading)], 0, []
    for arrays in (operands, results):
        terms = []
        for x in arrays:
            own = x.shape[leading:]
            axes = [f"r{own[0]}", f"c{own[1]}"] if len(own) == 2 else [f"a{count + j}" for j in range(len(own))]
            count += len(own)
            terms.append(" ".join([*members, *axes]))
        sides.append(", ".join(terms))
    return " -> ".join(sides)


def result_axes(leading: int, operands: Sequence[Any], shardings: Sequence[Axes], results: Sequence[Any]) -> list[Axes]:
    """The mesh axes of the matrix axes of results of these shapes: those of the first operand of the same size, else none."""
    given = {x.shape[leading:]: axes[leading:] for x, axes in zip(reversed(operands), reversed(shardings), strict=True)}
    return [given.get(shape[leading:], ()) if len(shape) == leading + 2 else () for shape in results]


def grid_of(mesh: Any, shardings: Sequence[Axes], leading: int, shapes: Sequence[tuple[int, ...]]) -> Grid:
    """The devices over which the matrices with these shardings and shapes are distributed."""
    members = names_of([axis for axes in shardings for axis in axes[:leading]])
    sharded = names_of([axis for axes in shardings for axis in axes[leading:]])
    # In the order of the mesh: the exchanges of JAX number the devices in this order, whatever that of the names is.
    over = tuple(name for name in mesh.axis_names if name in sharded and name not in members)
    devices = math.prod(mesh.shape[name] for name in over)
    entries = max(math.prod(shape[leading:]) for shape in shapes)
    small = min(_SHARDS * entries / devices, entries / _RATIO)
    # A rectangle, as the right-hand side of a Sylvester equation, has a side of the largest matrix, which the devices divide.
    rectangles = [math.prod(shape[leading:]) for shape in shapes if len(set(shape[leading:])) == 2]
    return Grid(over, (*over, *dict.fromkeys(members)), devices, min(small, min(rectangles, default=math.inf) - 1))


def own_axes(grid: Grid, shape: tuple[int, ...], leading: int) -> tuple[int | None, Axes]:
    """The distributed axis of an array of this shape, and the mesh axes of its own axes."""
    own = shape[leading:]
    axis = grid.axis(*own) if len(own) == 2 else None
    spec: Axes = {ROWS: (grid.axes, None), COLUMNS: (None, grid.axes), None: (None,) * len(own)}[axis]
    return axis, spec
