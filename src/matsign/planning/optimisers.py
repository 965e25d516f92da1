"""How a step of an optimiser is divided between devices, and what that costs."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from matsign.backends.counting import Tally
from matsign.core.options import short_repr
from matsign.core.public import spec_of
from matsign.functions.polar import msign
from matsign.optim.batching import LARGEST, SMALLEST, Layout, MsignConfig, msign_config
from matsign.planning import models
from matsign.planning.cost import Cost, cost, request
from matsign.planning.plans import Collective, Plan, Way, as_memory, as_mesh, as_number, totals

OPTIMISERS = ("Muon",)
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
    optimiser : {"Muon"}, default "Muon"
        The optimiser of `matsign.optim`. Plans for Muon need PyTorch.
    mesh : int or mapping of str to int, default 1
        The number of devices, or the sizes of the axes of the mesh by name.
    memory : float, optional
        The bytes of memory of a device. Without it every way fits.
    dtype : str, default "bfloat16"
        The dtype of parameters and gradients.
    momentum_dtype : str, optional
        The dtype in which momenta are kept, by default `dtype`.
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
    For Muon, owners and buckets are those that a step uses; a device holds at most three times what it owns of the largest
    bucket, beside the temporaries of one msign. Activations are not part of the memory.

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
        hint = f"did you mean {close[0]}?" if close else f"wanted {' or '.join(OPTIMISERS)}"
        raise ValueError(f"there is no optimiser {short_repr(optimiser)}; {hint}")
    shapes, axes, available = models.check_shapes(shapes), as_mesh(mesh), as_memory(memory)
    kept = momentum_dtype or dtype
    for name, kind in (("dtype", dtype), ("momentum_dtype", kept)):
        if kind not in _DTYPES:
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
    plan = replace(_muon(step), available=available)
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

    def stored(self) -> dict[str, float]:
        """The bytes of parameters, gradients and state that a device holds."""
        axes = [(SIDES[side], self.axes[name]) for name, side in self.sides.items()]
        held = sum(
            _shard(s, layout.batch_axes, axes) for s, layout in zip(self.matrices.values(), self.layouts, strict=True)
        )
        rest = sum(_shard(s, 0, [(0, n) for axis, n in axes if axis in (0, 1)]) for s in self.others.values())
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


def _shard(shape: tuple[int, ...], first: int, axes: list[tuple[int | None, int]]) -> int:
    """The numbers of the largest shard of a parameter."""
    sizes = list(shape) or [1]
    for axis, parts in axes:
        if axis is not None and first + axis >= 0:
            sizes[first + axis] = -(-sizes[first + axis] // parts)
    return math.prod(sizes)


def _muon(step: _Step) -> Plan:
    """PyTorch: every device owns whole matrices, which come and go by two all-to-alls a bucket."""
    try:
        from matsign.optim import forecast
        from matsign.optim.owners import OWNED
    except ImportError as error:
        raise ValueError(f"a plan for Muon needs PyTorch: {error}") from None
    items = forecast.items_of(
        list(step.matrices.values()),
        step.layouts,
        step.axes,
        [SIDES[s] for s in step.sides.values()],
        step.how,
        step.wide,
    )
    found = forecast.forecast(items, OWNED)
    size = _DTYPES[step.wide]
    shape, count = forecast.chunk(found.largest, LARGEST)
    memory = step.stored() | {
        "matrices of a bucket": 3.0 * size * sum(map(math.prod, found.largest)) if found.moving else 0.0,
        "temporaries of msign": _msign(shape, count, step).memory,
    }
    collectives: tuple[Collective, ...] = ()
    if found.moving:
        times, devices = 2 * found.moving, step.devices
        buffer = max(found.sent) * size / times * devices / (devices - 1)
        collectives = (Collective("all-to-all", times, buffer, devices),)
        way, reason = (
            Way.OWNERS,
            f"two all-to-alls for each of {_plural(found.moving, 'bucket')}; no device computes what another has",
        )
    else:
        way, reason = _without_exchange(step)
    mean = sum(found.work) / len(found.work)
    return _plan(step, "Muon", way, reason, memory, max(found.work) / mean, collectives)


def _plural(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


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
) -> Plan:
    least, most = _work(step)
    return Plan(
        subject=step.subject(name),
        mesh=step.axes,
        way=way,
        reason=reason,
        **totals(least, most),
        memory=memory,
        busiest=busiest,
        collectives=collectives,
        notes=("activations are not part of the memory",),
    )


def _msign(shape: tuple[int, ...], count: int, step: _Step) -> Cost:
    """The msign of a stack, as the optimisers compute it on an accelerator."""
    how = step.how
    options = {name: value for name, value in how._asdict().items() if value is not None}
    if how.tol is not None and how.steps is None:
        options["rtol"] = SMALLEST
    if how.precision is None and step.wide != "float64":
        options["precision"] = "half"
    call = request(spec_of(msign, "msign"), (shape,), step.wide, options | {"method": "polynomial"})
    return cost(call, count, half_dtype="float16")


def _work(step: _Step) -> tuple[Tally, Tally]:
    """The work on all matrices, each shape counted once and multiplied."""
    least, most = Tally(), Tally()
    for shape, count in step.numbers_of_matrices().items():
        one = _msign(shape, 1, step)
        for total, part in ((least, one.least), (most, one.most)):
            total.update({work: count * times for work, times in part.items()})
    return least, most
