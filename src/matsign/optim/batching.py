"""What the optimisers share, for any array library: options of msign, parameters as matrices, one call for equal shapes."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from matsign import backends
from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.options import real_number, short_repr
from matsign.functions.polar.polar import msign
from matsign.iterations.newton_schulz import form

Shape = tuple[int, ...]
# The number of equal blocks, or the sizes of blocks.
Blocks = int | tuple[int, ...]
Cut = tuple[slice, int]

# Keller Jordan's quintic and his number of steps (2024).
QUINTIC, QUINTIC_STEPS = (3.4445, -4.7750, 2.0315), 5
# Minimax steps from a bound on the spectral norm: four leave singular values nearer to 1 than five of QUINTIC, and cost less.
STEPS = 4
# With a tolerance, singular values above this fraction of the largest end near 1: a random square matrix has few below.
SMALLEST = 1e-3
# More numbers than this are split into several calls: the copies of all matrices of one shape together should not fill a device,
# and on a CPU they should stay in its cache (the answers do not depend on it).
LARGEST, LARGEST_ON_CPU = 2**27, 2**20
# A call costs as much as products with padding whose number of zeros times the shorter side is this.
ZEROS, ZEROS_ON_CPU = 2**28, 2**19

ADJUSTMENTS = (None, "original", "match_rms_adamw")
PRECISIONS = (None, "half", "full")


class MsignConfig(NamedTuple):
    """How msign is computed: steps by coefficients or name, their number, or a tolerance; and the precision of products."""

    schedule: Any = None
    steps: int | None = None
    tol: float | None = None
    precision: str | None = None


def msign_config(
    ns_coefficients: Sequence[float] | None = None,
    ns_steps: int | None = None,
    schedule: Any = None,
    steps: int | None = None,
    tol: float | None = None,
    precision: str | None = None,
) -> MsignConfig:
    """How to compute msign by these options; a ValueError if they name two ways."""
    named = [ns_coefficients is not None or ns_steps is not None, schedule is not None, tol is not None]
    if sum(named) > 1 or (steps is not None and named[0]):
        raise ValueError(
            "give one of ns_coefficients with ns_steps, schedule with or without steps, steps, or tol; got "
            f"ns_coefficients={ns_coefficients!r}, ns_steps={ns_steps!r}, {schedule=}, {steps=}, {tol=}"
        )
    if named[0]:
        rows = repeat_step(
            QUINTIC if ns_coefficients is None else ns_coefficients, QUINTIC_STEPS if ns_steps is None else ns_steps
        )
        return MsignConfig(rows, precision=precision)
    if schedule is not None and not isinstance(schedule, str):
        # Anything but rows of numbers is refused below.
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            schedule = tuple(tuple(float(x) for x in row) for row in schedule)
    chosen = MsignConfig(schedule, STEPS if not any(named) and steps is None else steps, tol, precision)
    orthogonalise(np.ones((1, 1, 1)), chosen)  # raises now for a wrong name, number or tolerance
    return chosen


def repeat_step(coefficients: Sequence[float], steps: int) -> tuple[tuple[float, ...], ...]:
    """One step, repeated."""
    three = isinstance(coefficients, (tuple, list)) and len(coefficients) == 3
    if not (three and all(math.isfinite(real_number(x)) for x in coefficients)):
        raise ValueError(f"ns_coefficients must be three numbers, got {short_repr(coefficients)}")
    if not (is_whole(steps) and 0 < steps < 100):
        raise ValueError(f"ns_steps must be a whole number from 1 to 99, got {short_repr(steps)}")
    return (tuple(float(x) for x in coefficients),) * int(steps)


def orthogonalise(stack: Array, how: MsignConfig) -> Array:
    """msign of every matrix of a stack; NaN for one with NaN in it, zero for zero, whatever the others are."""
    options = {name: value for name, value in how._asdict().items() if value is not None}
    if how.tol is not None and how.steps is None:
        options["rtol"] = SMALLEST
    backend = backends.load(backends.library_of(stack) or "numpy")
    if how.precision is None and not backend.on_cpu(stack) and backend.eps(stack) > 1e-10:
        options["precision"] = "half"
    return msign(stack, method="polynomial", errors="nan", **options)


# Where to put a parameter that is not a matrix.
_OTHERS = (
    'AdamW (algorithm="adamw" for a group of Muon, as matsign.optim.param_groups(model) makes them; '
    "optax.multi_transform in JAX), or to another optimiser"
)


class Block(NamedTuple):
    """A matrix in a parameter that is read as (count, outputs, inputs): its place in count, and its rows and columns."""

    member: int
    rows: slice
    columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


class Layout(NamedTuple):
    """How a parameter is read as matrices of outputs by inputs.

    The first `batch_axes` axes count matrices. Of the other axes the first `output_axes` (or the last ones, for JAX) together
    hold the outputs, and the rest together the inputs. Outputs are cut by `split` and inputs by `split_inputs`, which are a
    number of equal blocks or the sizes of the blocks; each pair of blocks is a matrix. Equal blocks are in one stack; with
    sizes, each block is a stack.
    """

    split: Blocks = 1
    batch_axes: int = 0
    outputs_last: bool = False
    split_inputs: Blocks = 1
    output_axes: int = 1

    @property
    def stacks(self) -> int:
        """The number of stacks that a parameter is read as."""
        return math.prod(len(blocks) if isinstance(blocks, tuple) else 1 for blocks in (self.split, self.split_inputs))

    def shapes(self, shape: Shape, name: str = "a parameter") -> list[tuple[int, int, int]]:
        """(matrices, outputs, inputs) of each stack of a parameter of this shape, called `name` where it has none."""
        count, outputs, inputs = self._whole(shape, name)
        sides = (("split", self.split, outputs, "outputs"), ("split_inputs", self.split_inputs, inputs, "inputs"))
        for option, blocks, size, side in sides:
            if isinstance(blocks, tuple):
                if sum(blocks) != size:
                    raise ValueError(
                        f"{size} {side} of {name} of shape {tuple(shape)} are not the sum {sum(blocks)} of {option}={blocks}"
                    )
            elif blocks < 1 or size % blocks:
                raise ValueError(f"{size} {side} of {name} of shape {tuple(shape)} are not {blocks} equal blocks")
        return [
            (count * p * q, (rows.stop - rows.start) // p, (columns.stop - columns.start) // q)
            for (rows, p), (columns, q) in self._cuts(outputs, inputs)
        ]

    def blocks(self, shape: Shape) -> list[Block]:
        """Every matrix of a parameter of this shape."""
        count, outputs, inputs = self._whole(shape)
        ranges = list(itertools.product(_ranges(self.split, outputs), _ranges(self.split_inputs, inputs)))
        return [Block(member, rows, columns) for member in range(count) for rows, columns in ranges]

    def matrices(self, x: Array) -> list[Array]:
        """A parameter as stacks of matrices; views where the library has views and inputs are not split."""
        count, outputs, inputs = self._whole(x.shape)
        if self.outputs_last:
            x = _permute(x.reshape((count, inputs, outputs)), (0, 2, 1))
        else:
            x = x.reshape((count, outputs, inputs))
        return [_cut(x[:, rows, columns], p, q) for (rows, p), (columns, q) in self._cuts(outputs, inputs)]

    def parameter(self, stacks: Sequence[Array], shape: Shape) -> Array:
        """The stacks as one parameter of this shape."""
        count, outputs, inputs = self._whole(shape)
        cuts = self._cuts(outputs, inputs)
        blocks = [_uncut(x, count, p, q) for x, ((_, p), (_, q)) in zip(stacks, cuts, strict=True)]
        wide = len(self.split_inputs) if isinstance(self.split_inputs, tuple) else 1
        rows = [_concat(blocks[start : start + wide], 2) for start in range(0, len(blocks), wide)]
        x = _concat(rows, 1)
        return (_permute(x, (0, 2, 1)) if self.outputs_last else x).reshape(shape)

    def update(self, signs: Sequence[Array], adjustment: str | None, shape: Shape) -> tuple[float, Array]:
        """The update of a parameter, as a number and an array that it multiplies.

        The number is the factor of the learning rate if it is the same for all blocks, else 1.
        """
        factors = [adjustment_factor(adjustment, outputs, inputs) for _, outputs, inputs in self.shapes(shape)]
        if len(set(factors)) == 1:
            return factors[0], self.parameter(signs, shape)
        return 1.0, self.parameter([factor * x for factor, x in zip(factors, signs, strict=True)], shape)

    def _whole(self, shape: Shape, name: str = "a parameter") -> tuple[int, int, int]:
        """(matrices, outputs, inputs) before outputs and inputs are cut into blocks."""
        batch, rest = shape[: self.batch_axes], tuple(shape[self.batch_axes :])
        k = self.output_axes
        if len(rest) <= k:
            counted = f" after {self.batch_axes} axes that count matrices" if self.batch_axes else ""
            raise ValueError(f"{name} of shape {tuple(shape)} is not a matrix{counted}: give it to {_OTHERS}")
        outputs, inputs = (rest[-k:], rest[:-k]) if self.outputs_last else (rest[:k], rest[k:])
        return math.prod(batch), math.prod(outputs), math.prod(inputs)

    def _cuts(self, outputs: int, inputs: int) -> list[tuple[Cut, Cut]]:
        return list(itertools.product(_cuts(self.split, outputs), _cuts(self.split_inputs, inputs)))


def adjustment_factor(adjustment: str | None, outputs: int, inputs: int) -> float:
    """The factor of the learning rate of a matrix: Keller Jordan's ("original", or None) or Moonshot's."""
    if adjustment == "match_rms_adamw":
        return 0.2 * math.sqrt(max(outputs, inputs))
    return math.sqrt(max(1.0, outputs / max(inputs, 1)))


def as_blocks(blocks: Any) -> Any:
    """A number of blocks, or their sizes as a tuple."""
    return tuple(blocks) if isinstance(blocks, (list, tuple)) else blocks


def _cuts(blocks: Blocks, size: int) -> list[Cut]:
    """The slices of an axis, one for each stack, and the number of equal blocks in each."""
    if not isinstance(blocks, tuple):
        return [(slice(0, size), blocks)]
    ends = list(itertools.accumulate(blocks))
    return [(slice(end - length, end), 1) for length, end in zip(blocks, ends, strict=True)]


def _ranges(blocks: Blocks, size: int) -> list[slice]:
    """The slice of every block of an axis."""
    sizes = blocks if isinstance(blocks, tuple) else (size // blocks,) * blocks
    ends = list(itertools.accumulate(sizes))
    return [slice(end - length, end) for length, end in zip(sizes, ends, strict=True)]


def _cut(x: Array, rows: int, columns: int) -> Array:
    """Every matrix of a stack, cut into this number of equal blocks of rows and of columns."""
    if rows == columns == 1:
        return x
    count, n, m = x.shape
    x = x.reshape((count, rows, n // rows, columns, m // columns))
    return _permute(x, (0, 1, 3, 2, 4)).reshape((count * rows * columns, n // rows, m // columns))


def _uncut(x: Array, count: int, rows: int, columns: int) -> Array:
    """A stack of blocks as the matrices that they were cut from."""
    if rows == columns == 1:
        return x
    _, n, m = x.shape
    x = _permute(x.reshape((count, rows, columns, n, m)), (0, 1, 3, 2, 4))
    return x.reshape((count, rows * n, columns * m))


def _concat(parts: list[Array], axis: int) -> Array:
    if len(parts) == 1:
        return parts[0]
    return backends.load(backends.library_of(parts[0]) or "numpy").xp.concat(parts, axis=axis)


def _permute(x: Array, axes: tuple[int, ...]) -> Array:
    return backends.load(backends.library_of(x) or "numpy").xp.permute_dims(x, axes)


def is_whole(x: Any) -> bool:
    return isinstance(x, Integral) and not isinstance(x, bool)


def check_layout(layout: Layout) -> None:
    """A ValueError for invalid numbers of blocks and axes."""
    for name in ("split", "split_inputs"):
        value = getattr(layout, name)
        sizes = value if isinstance(value, tuple) and value else (value,)
        if not all(is_whole(size) and size >= 1 for size in sizes):
            raise ValueError(
                f"{name} must be a whole number of at least 1, or a tuple of such numbers, got {short_repr(value)}"
            )
    if not (is_whole(layout.batch_axes) and layout.batch_axes >= 0):
        raise ValueError(f"batch_axes must be a whole number of at least 0, got {short_repr(layout.batch_axes)}")


def check_adjustment(adjustment: str | None) -> None:
    """A ValueError for an unknown rule."""
    if not (adjustment is None or isinstance(adjustment, str)) or adjustment not in ADJUSTMENTS:
        raise ValueError(
            f"adjust_lr_fn must be one of {', '.join(map(repr, ADJUSTMENTS))}, got {short_repr(adjustment)}"
        )


def check_precision(precision: str | None) -> None:
    """A ValueError for an unknown precision."""
    if not (precision is None or isinstance(precision, str)) or precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(map(repr, PRECISIONS))}, got {short_repr(precision)}")


def msign_batched(stacks: Sequence[Array], how: Sequence[MsignConfig]) -> list[Array]:
    """msign of stacks of matrices: one call for all of equal shape, or of equal shape when transposed.

    Where padding costs less than another call, matrices with the same shorter side share one, padded with columns of zeros
    to the longest of them: this changes the answer by rounding errors alone.
    """
    buckets: dict[Any, list[int]] = {}
    for k, x in enumerate(stacks):
        backend = backends.load(backends.library_of(x) or "numpy")
        short, long = sorted(x.shape[1:])
        buckets.setdefault(
            (short, form(short, long), how[k], backend.dtype_name(x), backend.device_name(x)), []
        ).append(k)
    signs: dict[int, Array] = {}
    for bucket in buckets.values():
        for part in _parts(bucket, stacks):
            found = _in_one_call([stacks[k] for k in part], how[part[0]])
            signs.update(zip(part, found, strict=True))
    return [signs[k] for k in range(len(stacks))]


def _parts(bucket: list[int], stacks: Sequence[Array]) -> list[list[int]]:
    """A bucket split into calls that limit both their size and the work on padding, the longest matrices first."""
    first = stacks[bucket[0]]
    backend = backends.load(backends.library_of(first) or "numpy")
    on_cpu = backend.dynamic_shapes(first) and backend.on_cpu(first)
    room, most = (LARGEST_ON_CPU, ZEROS_ON_CPU) if on_cpu else (LARGEST, ZEROS)
    parts: list[list[int]] = []
    longest = filled = zeros = 0
    for k in sorted(bucket, key=lambda k: -max(stacks[k].shape[1:])):
        count, long, short = len(stacks[k]), max(stacks[k].shape[1:]), min(stacks[k].shape[1:])
        added = count * short * (longest - long)
        if not parts or filled + count * short * longest > room or short * (zeros + added) > most:
            parts.append([])
            longest, filled, zeros, added = long, 0, 0, 0
        parts[-1].append(k)
        filled += count * short * longest
        zeros += added
    return parts


def _in_one_call(stacks: list[Array], how: MsignConfig) -> list[Array]:
    tall = [x.shape[1] > x.shape[2] for x in stacks]
    wide = [x.mT if transpose else x for x, transpose in zip(stacks, tall, strict=True)]
    if len(wide) == 1:
        found = [orthogonalise(wide[0], how)]
    else:
        backend = backends.load(backends.library_of(wide[0]) or "numpy")
        longest, start, found = max(x.shape[2] for x in wide), 0, []
        signs = orthogonalise(backend.xp.concat([_pad_columns(backend, x, longest) for x in wide]), how)
        for x in wide:
            found.append(signs[start : start + len(x), :, : x.shape[2]])
            start += len(x)
    return [x.mT if transpose else x for x, transpose in zip(found, tall, strict=True)]


def _pad_columns(backend: Backend, x: Array, length: int) -> Array:
    """Wide matrices, padded with columns of zeros to this length."""
    if x.shape[2] == length:
        return x
    return backend.xp.concat([x, backend.zeros((*x.shape[:2], length - x.shape[2]), x)], axis=2)
