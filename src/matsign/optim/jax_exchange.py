"""Whole matrices for every device, from parameters that are sharded over the devices of a mesh, and back.

This is the program of one device. It holds a part of every parameter. The matrices of parameters of one shape are numbered; the
first devices own the first matrices, each the same number of them, with zeros after the last. One all-to-all brings every matrix
to its owner, which computes with it alone, and one collective brings back what each device holds of it.

Three kinds of mesh axes, for a parameter:

- *batch axes*, over which axes that count matrices are sharded: matrices stay among the devices that have the same ones;
- *matrix axes*, over which axes of the matrices themselves are sharded;
- *replica axes*, the others: devices along them hold the same numbers.

Without matrix axes no exchange is needed before the computation, and without replica axes, too, none after it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp  # noqa: TID251
import numpy as np
from jax import lax  # noqa: TID251

from matsign._typing import Array
from matsign.optim.batching import Shape

Names = tuple[str, ...]
# More zeros than this behind the last matrix are not sent to all replicas: a sum over the replicas costs less memory.
_MOST_ZEROS = 2**24


class Placement(NamedTuple):
    """The mesh axes over which each axis of a parameter is sharded: those that count matrices, and those of the matrices."""

    batch: tuple[Names, ...]
    matrix: tuple[Names, ...]


class Exchange(NamedTuple):
    """An exchange of parameters whose matrices have one shape, over the same batch axes and the same matrix axes.

    `placements` has one for each parameter and `counts` the number of its matrices on a device. `sizes` are those of the mesh
    axes, `matrix_axes` and `replica_axes` as in the text above.
    """

    sizes: Mapping[str, int]
    matrix_axes: Names
    replica_axes: Names
    shape: Shape
    placements: tuple[tuple[Names, ...], ...]
    counts: tuple[int, ...]

    @property
    def _parts(self) -> int:
        """The number of devices over which a matrix is sharded."""
        return math.prod(self.sizes[name] for name in self.matrix_axes)

    @property
    def _replicas(self) -> int:
        return math.prod(self.sizes[name] for name in self.replica_axes)

    @property
    def matrices_per_device(self) -> int:
        """The number of matrices, with zeros, that a device owns."""
        return -(-sum(self.counts) // (self._parts * self._replicas))

    def to_owners(self, parameters: Sequence[Array]) -> Array:
        """The matrices that this device owns, from what it has of each parameter: (matrices on the device, *part of the axes)."""
        parts, replicas, owned = self._parts, self._replicas, self.matrices_per_device
        x = jnp.concatenate([x.reshape(len(x), -1) for x in parameters])
        x = jnp.pad(x, [(0, owned * parts * replicas - len(x)), (0, 0)]).reshape((replicas, parts, owned, -1))
        x = lax.dynamic_index_in_dim(x, _index(self.replica_axes), keepdims=False)
        if self.matrix_axes:
            x = lax.all_to_all(x, self.matrix_axes, 0, 0)
        return self._by_placement([self._join(x, placement) for placement in self._kinds()])

    def from_owners(self, x: Array) -> list[Array]:
        """What this device has of each parameter, from the matrices that it owns."""
        parts, replicas, owned = self._parts, self._replicas, self.matrices_per_device
        pieces = self._by_placement([self._cut(x, placement) for placement in self._kinds()], axis=1)
        total, size = sum(self.counts), pieces.shape[-1]
        if replicas == 1:
            x = lax.all_to_all(pieces, self.matrix_axes, 0, 0) if self.matrix_axes else pieces
        elif (owned * parts * replicas - total) * size > _MOST_ZEROS:
            x = lax.all_to_all(pieces, self.matrix_axes, 0, 0) if self.matrix_axes else pieces
            x = self._sum_over_replicas(x.reshape((parts * owned, size)), total)
        elif parts == 1:
            x = lax.all_gather(pieces, self.replica_axes)
        else:
            pieces = jnp.broadcast_to(pieces, (replicas, *pieces.shape)).reshape((replicas * parts, owned, size))
            x = lax.all_to_all(pieces, self.replica_axes + self.matrix_axes, 0, 0)
        ends = np.cumsum(self.counts)
        parameters = jnp.split(x.reshape((-1, size))[:total], ends[:-1])
        return [
            x.reshape((count, *self._local_shape(placement)))
            for x, count, placement in zip(parameters, self.counts, self.placements, strict=True)
        ]

    def _sum_over_replicas(self, x: Array, total: int) -> Array:
        """All matrices, of which each replica has a few."""
        room = jnp.zeros((total + len(x), x.shape[1]), x.dtype)
        start = jnp.minimum(_index(self.replica_axes) * len(x), total)
        return lax.psum(lax.dynamic_update_slice_in_dim(room, x, start, 0), self.replica_axes)

    def _kinds(self) -> list[tuple[Names, ...]]:
        """The different placements."""
        return list(dict.fromkeys(self.placements))

    def _by_placement(self, candidates: list[Array], axis: int = 0) -> Array:
        """For each owned matrix, counted by this axis, the candidate for the placement of its parameter."""
        if len(candidates) == 1:
            return candidates[0]
        kinds, owners = self._kinds(), self._parts * self._replicas
        number = np.zeros((owners, self.matrices_per_device), np.int32)
        per_matrix = np.repeat([kinds.index(placement) for placement in self.placements], self.counts)
        number.reshape(-1)[: len(per_matrix)] = per_matrix
        mine = jnp.asarray(number)[_index(self.replica_axes + self.matrix_axes)]
        shape = candidates[0].shape
        mine = lax.broadcast_in_dim(mine, shape, (axis,))
        return lax.select_n(mine, *candidates) if len(candidates) > 2 else jnp.where(mine == 0, *candidates)

    def _local_shape(self, placement: tuple[Names, ...]) -> Shape:
        """The shape of the part of a matrix that a device holds."""
        return tuple(
            size // math.prod(self.sizes[name] for name in names)
            for size, names in zip(self.shape, placement, strict=True)
        )

    def _join(self, pieces: Array, placement: tuple[Names, ...]) -> Array:
        """Whole matrices from their parts: (parts, matrices, numbers of a part) to (matrices, *shape)."""
        local, blocks = self._local_shape(placement), [self.sizes[name] for name in self.matrix_axes]
        x = pieces.reshape((*blocks, self.matrices_per_device, *local))
        return x.transpose(np.argsort(self._order(placement))).reshape((self.matrices_per_device, *self.shape))

    def _cut(self, x: Array, placement: tuple[Names, ...]) -> Array:
        """The inverse of `_join`."""
        local = self._local_shape(placement)
        split = [
            n
            for names, size in zip(placement, local, strict=True)
            for n in (*(self.sizes[name] for name in names), size)
        ]
        x = x.reshape((self.matrices_per_device, *split)).transpose(self._order(placement))
        return x.reshape((self._parts, self.matrices_per_device, math.prod(local)))

    def _order(self, placement: tuple[Names, ...]) -> list[int]:
        """For (parts by mesh axes, matrices, *local axes), where these axes are when each mesh axis is before its local axis."""
        axes: list[str | int] = [-1]
        for k, names in enumerate(placement):
            axes += [*names, k]
        return [axes.index(axis) for axis in (*self.matrix_axes, -1, *range(len(placement)))]


def _index(names: Names) -> Array:
    """The number of this device along these mesh axes."""
    return lax.axis_index(names) if names else jnp.zeros((), jnp.int32)


def exchanges(
    mesh_axes: Mapping[str, int], kinds: Sequence[tuple[Shape, Placement, int, object]]
) -> list[tuple[list[int], Exchange]]:
    """The exchanges, each with the numbers of its parameters.

    A parameter is given by the shape of its matrices, its placement, the number of its matrices on a device, and anything else
    that parameters of one exchange must share.
    """
    sizes = {name: size for name, size in mesh_axes.items() if size > 1}
    trimmed = [Placement(*(_without(part, sizes) for part in placement)) for _, placement, _, _ in kinds]
    groups: dict[object, list[int]] = {}
    for k, (shape, _, _, other) in enumerate(kinds):
        batch, matrix = ({name for names in part for name in names} for part in trimmed[k])
        groups.setdefault((shape, frozenset(batch), frozenset(matrix), other), []).append(k)
    found = []
    for members in groups.values():
        first = trimmed[members[0]]
        batch, matrix = ({name for names in part for name in names} for part in first)
        matrix_axes = tuple(name for name in sizes if name in matrix)
        replica_axes = tuple(name for name in sizes if name not in matrix and name not in batch)
        placements = tuple(trimmed[k].matrix for k in members)
        counts = tuple(kinds[k][2] for k in members)
        found.append((members, Exchange(sizes, matrix_axes, replica_axes, kinds[members[0]][0], placements, counts)))
    return found


def _without(axes: tuple[Names, ...], sizes: Mapping[str, int]) -> tuple[Names, ...]:
    """The placement without mesh axes of one device."""
    return tuple(tuple(name for name in names if name in sizes) for names in axes)
