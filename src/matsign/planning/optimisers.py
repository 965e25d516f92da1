"""How a step of an optimiser is divided between devices, and what that costs."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from matsign.backends.counting import Tally, flops
from matsign.core.options import short_repr
from matsign.core.public import spec_of
from matsign.functions.polar.polar import msign
from matsign.optim.batching import SMALLEST, Layout, MsignConfig, msign_config
from matsign.planning import models
from matsign.planning.cost import Cost, Request, cost, repeated_flops, request
from matsign.planning.plans import Collective, Plan, Way, as_memory, as_mesh, as_number, totals

OPTIMISERS = ("Muon", "scale_by_msign")
# A device holds so many times what it owns of the largest bucket (optim/exchange.py).
_COPIES = 2.5
# A plan for Muon lists what each device holds.
_MOST_DEVICES = 2**14
_DTYPES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
# The axis of a parameter that each word shards, counted from the first axis after those that count matrices.
SIDES: dict[str, int | None] = {"matrices": -1, "rows": 0, "columns": 1, "none": None}


def plan_optimiser(
    shapes: Mapping[str, tuple[int, ...]],
    optimiser: str = "Muon",
    *,
    mesh: int | Mapping[str, int] = 1,
    memory: float | None = None,
    dtype: str = "bfloat16",
    momentum_dtype: str | None = None,
    shard: str | Mapping[str, str] = "rows",
    batch_axes: int = 0,
    adamw: str = models.OTHERS,
    **options: Any,
) -> Plan:
    """How a step of an optimiser will be computed on a mesh of devices, and what it will cost.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        The shapes of the parameters of a model by name.
    optimiser : {"Muon", "scale_by_msign"}, default "Muon"
        The optimiser of `matsign.optim`. Plans for Muon need PyTorch, those for scale_by_msign JAX.
    mesh : int or mapping of str to int, default 1
        The number of devices, or the sizes of the axes of the mesh by name.
    memory : float, optional
        The bytes of memory of a device. Without it every way fits.
    dtype : str, default "bfloat16"
        The dtype of parameters and gradients.
    momentum_dtype : str, optional
        The dtype in which momenta are kept, by default ``dtype``.
    shard : str or mapping of str to str, default "rows"
        What the mesh axes shard: the "rows" (first axis) or "columns" of matrices, the "matrices" of a parameter that has
        several, or "none" if the devices along an axis hold the same; one for all axes, or by name.
    batch_axes : int, default 0
        The number of leading axes that count matrices, in parameters that have at least two more.
    adamw : str
        A regular expression: parameters whose name it matches, and those with one axis, go to AdamW.
    **options : object
        Options of msign as in the optimiser: ``steps``, ``schedule``, ``tol``, ``ns_steps``, ``precision``.

    Returns
    -------
    Plan
        The way, products, operations, bytes moved and bytes held in one step; printed, it is a report.

    Raises
    ------
    ValueError
        If a shape, an option, the mesh or the memory is invalid.

    Notes
    -----
    For Muon, owners and buckets are those that a step uses; a device holds two and a half times what it owns of the largest
    bucket, and the temporaries of one msign. For scale_by_msign the program of a device is traced for the mesh, and its
    collectives and arrays are counted. Activations are not part of the memory.

    Examples
    --------
    >>> from matsign.planning import plan_optimiser
    >>> shapes = {f"layers.{k}.weight": (512, 512) for k in range(24)}
    >>> plan = plan_optimiser(shapes, mesh=4, dtype="float32")
    >>> str(plan.way), plan.busiest
    ('owners by all-to-all', 1.0)
    """
    if optimiser not in OPTIMISERS:
        close = difflib.get_close_matches(str(optimiser), OPTIMISERS, 1)
        hint = f"did you mean {close[0]}?" if close else f"expected {' or '.join(OPTIMISERS)}"
        raise ValueError(f"there is no optimiser {short_repr(optimiser)}; {hint}")
    shapes, axes, available = models.check_shapes(shapes), as_mesh(mesh), as_memory(memory)
    kept = momentum_dtype or dtype
    for name, kind in (("dtype", dtype), ("momentum_dtype", kept)):
        if kind not in tuple(_DTYPES):
            raise ValueError(f"{name} must be one of {', '.join(_DTYPES)}, got {short_repr(kind)}")
    sides = _sides(shard, axes)
    how = _config(options)
    matrices, others = models.split_by_name(shapes, adamw)
    if not matrices:
        raise ValueError(
            f"all of the {len(shapes)} parameters go to AdamW: none is a matrix with another name than {adamw}"
        )
    layouts = [_layout(shape, batch_axes) for shape in matrices.values()]
    step = _Step(matrices, others, layouts, axes, sides, how, dtype, kept)
    plan = replace(_muon(step) if optimiser == "Muon" else _scale_by_msign(step), available=available)
    if plan.fits:
        return plan
    name = max(plan.memory, key=lambda name: plan.memory[name])
    return replace(plan, way=Way.DOES_NOT_FIT, reason=f"as {plan.way} it needs too much memory, most of it for {name}")


def _sides(shard: Any, axes: Mapping[str, int]) -> dict[str, str]:
    """What each mesh axis shards."""
    sides = dict.fromkeys(axes, shard) if isinstance(shard, str) else {**dict.fromkeys(axes, "rows"), **shard}
    for name, side in sides.items():
        if name not in axes:
            raise ValueError(f"shard: the mesh has no axis {name}; it has {', '.join(axes)}")
        if side not in SIDES:
            raise ValueError(f"shard: {name} must be one of {', '.join(SIDES)}, got {short_repr(side)}")
    return sides


def _config(options: dict[str, Any]) -> MsignConfig:
    known = ("ns_coefficients", "ns_steps", "schedule", "steps", "tol", "precision")
    for key in options:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            raise ValueError(f"there is no option {key}; {f'did you mean {close[0]}?' if close else ', '.join(known)}")
    return msign_config(**options)


def _layout(shape: tuple[int, ...], batch_axes: int) -> Layout:
    if not isinstance(batch_axes, int) or batch_axes < 0:
        raise ValueError(f"batch_axes must be a whole number of at least 0, got {short_repr(batch_axes)}")
    return Layout(batch_axes=batch_axes if len(shape) >= batch_axes + 2 else 0)


class _Step(NamedTuple):
    """What is planned: the parameters under msign with their layouts, those for AdamW, and how they are stored and sharded."""

    matrices: models.Shapes
    others: models.Shapes
    layouts: list[Layout]
    axes: dict[str, int]
    sides: dict[str, str]
    how: MsignConfig
    dtype: str
    momentum_dtype: str

    @property
    def devices(self) -> int:
        return math.prod(self.axes.values())

    @property
    def wide(self) -> str:
        """The dtype in which momenta go to their owners."""
        return max(self.momentum_dtype, self.dtype, key=lambda kind: _DTYPES[kind])

    @property
    def sharded_axes(self) -> list[tuple[int | None, int]]:
        """Which axis of a parameter each mesh axis shards, and into how many parts."""
        return [(SIDES[side], self.axes[name]) for name, side in self.sides.items()]

    def shards(self, *, even: bool) -> list[int]:
        """The numbers of the largest shard of each parameter under msign."""
        pairs = zip(self.matrices.values(), self.layouts, strict=True)
        return [_shard(shape, layout.batch_axes, self.sharded_axes, even) for shape, layout in pairs]

    def bytes_stored(self, *, even: bool) -> dict[str, float]:
        """The bytes of parameters, gradients and state that a device holds; with `even` shards have one size, as in JAX."""
        held = sum(self.shards(even=even))
        first: list[tuple[int | None, int]] = [(0, n) for axis, n in self.sharded_axes if axis in (0, 1)]
        rest = sum(_shard(shape, 0, first, even) for shape in self.others.values())
        size, momentum = _DTYPES[self.dtype], _DTYPES[self.momentum_dtype]
        return {
            "parameters": float(size * (held + rest)),
            "gradients": float(size * (held + rest)),
            "momenta": float(momentum * held),
            "AdamW's state": float(2 * size * rest),
        }

    def numbers_of_matrices(self) -> Counter[tuple[int, int]]:
        """How many matrices there are of each shape."""
        number: Counter[tuple[int, int]] = Counter()
        for (name, shape), layout in zip(self.matrices.items(), self.layouts, strict=True):
            for count, n, m in layout.shapes(shape, name):
                number[n, m] += count
        return number

    def subject(self, name: str) -> str:
        sizes = [sum(map(math.prod, shapes.values())) for shapes in (self.matrices, self.others)]
        options = "".join(f", {k}={v}" for k, v in self.how._asdict().items() if v is not None)
        return (
            f"one step of {name} on {as_number(sum(sizes))} parameters, {self.dtype}{options}: {len(self.matrices)} arrays of "
            f"hidden layers ({as_number(sizes[0])}), {len(self.others)} for AdamW"
        )


def _shard(shape: tuple[int, ...], first: int, axes: list[tuple[int | None, int]], even: bool) -> int:
    """The numbers of the largest shard of a parameter; with `even`, an axis that has no equal parts is not sharded."""
    sizes = list(shape) or [1]
    for axis in {axis for axis, _ in axes if axis is not None and first + axis >= 0}:
        n, parts = sizes[first + axis], math.prod(size for other, size in axes if other == axis)
        sizes[first + axis] = n if even and n % parts else -(-n // parts)
    return math.prod(sizes)


def _muon(step: _Step) -> Plan:
    """PyTorch: every device owns whole matrices, which come and go by two all-to-alls a bucket."""
    try:
        from matsign.optim import forecast
        from matsign.optim.owners import OWNED
    except ImportError as error:
        raise ValueError(f"a plan for Muon needs PyTorch: {error}") from None
    if step.devices > _MOST_DEVICES:
        raise ValueError(f"a plan for Muon is for at most {_MOST_DEVICES} devices, got {step.devices}")
    items = forecast.items_of(
        list(step.matrices.values()),
        step.layouts,
        step.axes,
        [SIDES[s] for s in step.sides.values()],
        step.how,
        step.wide,
    )
    found = forecast.forecast(items, OWNED)
    size, devices = _DTYPES[step.wide], step.devices
    temporaries = _msign(*forecast.chunk(found.largest), step).memory if found.largest else 0.0
    collectives: list[Collective] = []
    if found.moving:
        times = 2 * found.moving
        buffer = max(found.sent) * size / times * devices / (devices - 1)
        collectives.append(Collective("all-to-all", times, buffer, devices))
    own = {shape: flops(_msign(shape, 1, step).most) for shape in set().union(*found.owned)}
    busiest = max(sum(own[shape] * times for shape, times in owned.items()) for owned in found.owned)
    for (count, outputs, inputs), times in Counter(found.sharded).items():
        one = _sharded_msign((outputs, inputs), count, step)
        temporaries = max(temporaries, one.memory)
        repeated = repeated_flops(one, min(outputs, inputs), count)
        busiest += times * ((flops(one.most) - repeated) / devices + repeated)
        gram = count * min(outputs, inputs) ** 2 * max(4, size)
        collectives.append(Collective("all-reduce", times * one.row_sums, gram, devices))
    way, reason = _way(step, found.moving, sum(count for count, _, _ in found.sharded))
    memory = step.bytes_stored(even=False) | {
        "matrices of a bucket": _COPIES * size * sum(map(math.prod, found.largest)) if found.moving else 0.0,
        "temporaries of msign": temporaries,
    }
    return _plan(step, "Muon", way, reason, memory, busiest, tuple(collectives))


def _way(step: _Step, moving: int, sharded: int) -> tuple[Way, str]:
    """The way of Muon, by the number of buckets that move and of matrices that stay sharded."""
    if not moving and not sharded:
        return _without_exchange(step)
    along = f"{_plural(sharded, 'large matrix', 'large matrices')} sharded along the long side, in Gram form"
    if not moving:
        return Way.GRAM, along
    reason = f"two all-to-alls for each of {_plural(moving, 'bucket')}; no device computes what another has"
    return Way.OWNERS, f"{reason}; and {along}" if sharded else reason


def _scale_by_msign(step: _Step) -> Plan:
    """JAX: matrices of one shape are a stack, which is resharded to whole matrices and back."""
    try:
        from matsign.optim import jax_forecast
    except ImportError as error:
        raise ValueError(f"a plan for scale_by_msign needs JAX: {error}") from None
    layouts = [layout._replace(outputs_last=True) for layout in step.layouts]
    sides = [SIDES[s] for s in step.sides.values()]
    program = jax_forecast.forecast(list(step.matrices.values()), layouts, step.axes, sides, step.how, step.wide)
    collectives = tuple(Collective(t.kind, n, t.size, t.group) for t, n in program.most.items())
    memory = step.bytes_stored(even=True) | {"stacks and temporaries of msign": program.memory}
    busiest = sum(
        -(-count // step.devices) * flops(_msign(shape, 1, step).most)
        for shape, count in step.numbers_of_matrices().items()
    )
    if collectives:
        way, reason = Way.STACKS, "matrices of one shape are a stack, of which each device has some"
    else:
        way, reason = _without_exchange(step)
    whole = sum(x > y for x, y in zip(step.shards(even=True), step.shards(even=False), strict=True))
    note = f"{_plural(whole, 'array')} not sharded along an axis that the mesh does not divide: shards are equal in JAX"
    return _plan(step, "scale_by_msign", way, reason, memory, busiest, collectives, (note,) if whole else ())


def _plural(count: int, thing: str, several: str | None = None) -> str:
    return f"{count} {thing if count == 1 else several or thing + 's'}"


def _without_exchange(step: _Step) -> tuple[Way, str]:
    if step.devices == 1:
        return Way.ONE_DEVICE, "no communication"
    return Way.LOCAL_BATCH, "every device holds whole matrices, no communication"


def _plan(
    step: _Step,
    name: str,
    way: Way,
    reason: str,
    memory: dict[str, float],
    busiest: float,
    collectives: tuple[Collective, ...],
    notes: tuple[str, ...] = (),
) -> Plan:
    """The plan of a step; `busiest` are the operations of the device that has most."""
    least, most = _work(step)
    return Plan(
        subject=step.subject(name),
        mesh=step.axes,
        way=way,
        reason=reason,
        **totals(least, most),
        memory=memory,
        busiest=busiest * step.devices / flops(most),
        collectives=collectives,
        notes=("activations are not part of the memory", *notes),
    )


def _msign(shape: tuple[int, ...], count: int, step: _Step) -> Cost:
    """The msign of a stack, as the optimisers compute it on an accelerator."""
    half = {} if step.how.precision or step.wide == "float64" else {"precision": "half"}
    return cost(_request(shape, step, half), count, half_dtype="float16")


def _sharded_msign(shape: tuple[int, ...], count: int, step: _Step) -> Cost:
    """The msign of a stack of which each device has some rows, or columns, of each matrix."""
    (short, long), devices = sorted(shape), step.devices
    share = -(-long // devices) / long
    return cost(
        _request(shape, step, {}), count, share=lambda s: share if math.prod(s) > 1.5 * count * short**2 else 1.0
    )


def _request(shape: tuple[int, ...], step: _Step, more: dict[str, Any]) -> Request:
    options = {name: value for name, value in step.how._asdict().items() if value is not None} | more
    if step.how.tol is not None and step.how.steps is None:
        options["rtol"] = SMALLEST
    return request(spec_of(msign, "msign"), (shape,), step.wide, options | {"method": "polynomial"})


def _work(step: _Step) -> tuple[Tally, Tally]:
    """The work on all matrices, each shape counted once and multiplied."""
    least, most = Tally(), Tally()
    for shape, count in step.numbers_of_matrices().items():
        one = _msign(shape, 1, step)
        for total, part in ((least, one.least), (most, one.most)):
            total.update({work: count * times for work, times in part.items()})
    return least, most
