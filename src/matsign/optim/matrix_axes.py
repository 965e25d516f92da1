"""Which axes of a parameter are the inputs and outputs of its matrices, for parameters whose axes are in any order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.core.options import short_repr
from matsign.optim.batching import (
    Blocks,
    Layout,
    MsignConfig,
    Shape,
    as_blocks,
    check_layout,
    is_whole,
    msign_batched,
)


class MatrixAxes(NamedTuple):
    """Name the axes of a parameter that are inputs and outputs of its matrices, for `scale_by_msign`.

    All other axes count matrices. So ``MatrixAxes()`` reads (layers, in, out) as one matrix for each layer, and
    ``MatrixAxes(inputs=0, outputs=(1, 2))`` reads (in, heads, size) as one matrix of in inputs and heads × size outputs.

    Attributes
    ----------
    inputs : int or tuple of int, default -2
        The axes that are summed over when the parameter is applied. Negative numbers count from the last axis.
    outputs : int or tuple of int, default -1
        The axes of the result.
    split : int or tuple of int, default 1
        The number of equal blocks of the outputs that are matrices by themselves, or the sizes of blocks.
    split_inputs : int or tuple of int, default 1
        The same for the inputs.

    See Also
    --------
    scale_by_msign : The transformation that takes these.
    param_labels : Labels for ``optax.multi_transform``, and axes.

    Notes
    -----
    The factor of the learning rate is that of the matrix: for (in, heads, size) of 64 × 4 × 32 it is √(128/64).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from matsign.optim import MatrixAxes, scale_by_msign
    >>> query = jnp.ones((6, 2, 4))
    >>> transformation = scale_by_msign(axes=MatrixAxes(inputs=0, outputs=(1, 2)))
    >>> updates, _ = transformation.update(query, transformation.init(query))
    >>> updates.shape
    (6, 2, 4)
    """

    inputs: int | tuple[int, ...] = -2
    outputs: int | tuple[int, ...] = -1
    split: Blocks = 1
    split_inputs: Blocks = 1


class Reading(NamedTuple):
    """How a parameter is read as matrices: the order to bring its axes into, if it is another one, and the layout then."""

    order: tuple[int, ...] | None
    layout: Layout

    def arrange(self, x: Array) -> Array:
        """The parameter with its axes in the order of the layout."""
        return x if self.order is None else x.transpose(self.order)

    def restore(self, x: Array) -> Array:
        """The parameter from what `arrange` has made of it."""
        return x if self.order is None else x.transpose([self.order.index(axis) for axis in range(len(self.order))])

    def with_leading_axis(self) -> Reading:
        """The reading of several such parameters, stacked along a new first axis."""
        order = None if self.order is None else (0, *(axis + 1 for axis in self.order))
        return Reading(order, self.layout._replace(batch_axes=self.layout.batch_axes + 1))

    def of_stack(self) -> Reading:
        """The reading of an arranged parameter whose axes that count matrices are joined into one."""
        return Reading(None, self.layout._replace(batch_axes=1))


def reading(axes: MatrixAxes, shape: Shape, name: str) -> Reading:
    """The reading of a parameter of this shape, called `name`, by these axes; a ValueError that names it if they do not fit."""
    inputs, outputs = (_axis_numbers(getattr(axes, side), side, shape, name) for side in ("inputs", "outputs"))
    both = inputs + outputs
    if len(set(both)) < len(both):
        raise ValueError(f"{name} of shape {tuple(shape)} has an axis twice in {short_repr(axes)}")
    counted = tuple(axis for axis in range(len(shape)) if axis not in both)
    order = (*counted, *both)
    layout = Layout(as_blocks(axes.split), len(counted), True, as_blocks(axes.split_inputs), len(outputs))
    try:
        check_layout(layout)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    found = Reading(None if order == tuple(range(len(shape))) else order, layout)
    layout.shapes(tuple(shape[axis] for axis in order), name)
    return found


def _axis_numbers(axes: Any, side: str, shape: Shape, name: str) -> tuple[int, ...]:
    """Numbers from 0 of the axes of one side."""
    numbers = tuple(axes) if isinstance(axes, (tuple, list)) else (axes,)
    if not numbers or not all(is_whole(axis) and -len(shape) <= axis < len(shape) for axis in numbers):
        raise ValueError(
            f"{side} of MatrixAxes must be axes of {name} of shape {tuple(shape)}, one or several, got {short_repr(axes)}"
        )
    return tuple(int(axis) % len(shape) for axis in numbers)


def msign_updates(
    parameters: Sequence[Array], readings: Sequence[Reading], how: MsignConfig, adjustment: str | None
) -> list[Array]:
    """The msign of every parameter times its factor of the learning rate, in a few calls."""
    arranged = [r.arrange(x) for r, x in zip(readings, parameters, strict=True)]
    stacks = [stack for r, x in zip(readings, arranged, strict=True) for stack in r.layout.matrices(x)]
    signs = iter(msign_batched(stacks, [how] * len(stacks)))
    updates = []
    for r, x in zip(readings, arranged, strict=True):
        factor, update = r.layout.update(list(itertools.islice(signs, r.layout.stacks)), adjustment, x.shape)
        updates.append(factor * r.restore(update))
    return updates
