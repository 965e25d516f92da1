"""How a call of a public function is divided between devices, and what that costs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from matsign.backends.counting import LOOP_STEPS, NeedsOneDeviceError
from matsign.backends.shapes import Shape
from matsign.core.public import spec_of
from matsign.functions.polar.methods import has_fixed_steps
from matsign.iterations.newton_schulz import form
from matsign.planning.cost import Cost, Request, bound_by, cost, repeated_flops, request, working_dtype
from matsign.planning.plans import Collective, Plan, Way, as_memory, as_mesh, totals

# Smaller collectives, of a few numbers, are not listed.
_SMALL = 65
# No mesh is tried that is larger than this to find one that a call fits on.
_MOST_DEVICES = 2**24


def plan_function(
    function: Callable[..., Any],
    *shapes: tuple[int, ...],
    mesh: int | Mapping[str, int] = 1,
    memory: float | None = None,
    dtype: str = "float32",
    **options: Any,
) -> Plan:
    """How a function will be computed on a mesh of devices, and what it will cost.

    Nothing is computed and no memory is taken, so that the sizes may be those of any machine.

    Parameters
    ----------
    function : callable
        A public function of matsign, as ``matsign.msign``.
    *shapes : tuple of int
        The shape of each array argument.
    mesh : int or mapping of str to int, default 1
        The number of devices, or the sizes of the axes of the mesh by name. A batch is spread over all of them; of one
        matrix the rows are spread over the first axis and the columns over the second.
    memory : float, optional
        The bytes of memory of a device. Without it every way fits.
    dtype : str, default "float32"
        The dtype of the arrays.
    **options : object
        Options of the function.

    Returns
    -------
    Plan
        The way, products, operations, bytes moved and bytes held; printed, it is a report.

    Raises
    ------
    TypeError
        If ``function`` is not a public function of arrays.
    ValueError
        If a shape, an option, the mesh or the memory is invalid.

    Notes
    -----
    The solver itself runs on arrays without entries, as it runs on an accelerator, and its products and factorisations are
    counted, so that the numbers are those of the installed version. Memory is that of arrays that exist at the same time if
    each operation makes an array; a compiler that fuses operations needs less. A loop that runs until it has converged is
    counted with 8 steps, or half of its limit if that is less.

    Examples
    --------
    >>> import matsign
    >>> from matsign.planning import plan_function
    >>> plan = plan_function(matsign.msign, (65536, 1024), mesh=8, steps=4)
    >>> str(plan.way), plan.collectives[0].kind, plan.collectives[0].size == 4 * 1024**2
    ('Gram form, all-reduce', 'all-reduce', True)
    """
    spec = spec_of(function, "plan_function needs a function of matsign")
    call, axes, available = request(spec, shapes, dtype, options), as_mesh(mesh), as_memory(memory)
    plans = _ways(call, axes, available)
    for found in plans:
        if found.fits:
            return found
    return _plan_that_does_not_fit(call, axes, available, min(plans, key=lambda plan: plan.bytes_held))


def _ways(call: Request, axes: dict[str, int], available: float | None) -> list[Plan]:
    """The ways of a call on a mesh, the one that the library takes first."""
    devices, single = math.prod(axes.values()), math.prod(call.batch) == 1
    if devices > 1 and single and _is_gram_form(call):
        return [_by_rows(call, axes, available)]
    if devices > 1 and single and find_spec("jax") is not None:
        with contextlib.suppress(NeedsOneDeviceError):
            return [_in_panels(call, axes, available)]
    return [_locally(call, axes, available)]


def _locally(call: Request, axes: dict[str, int], available: float | None) -> Plan:
    """Every device solves its part of the batch."""
    batch, devices = math.prod(call.batch), math.prod(axes.values())
    count = -(-batch // devices)
    spent = cost(call, count)
    if batch == 1 or devices == 1:
        way, reason = Way.ONE_DEVICE, "no communication"
    else:
        way, reason = Way.LOCAL_BATCH, f"{count} of {batch} matrices on a device, no communication"
    idle = devices - -(-batch // count)
    return Plan(
        subject=_subject(call),
        mesh=axes,
        way=way,
        reason=reason,
        **totals(spent.least, spent.most, batch / count),
        busiest=devices * count / batch,
        memory=_bytes_held(call, count, spent.memory),
        available=available,
        notes=(*([f"{idle} of {devices} devices have nothing to do"] if idle else []), *assumptions(spent)),
    )


def _is_gram_form(call: Request) -> bool:
    """Whether the call is one of polynomial steps on the small matrix MᴴM."""
    short, long = sorted(call.members[0] or (1, 1))
    return call.spec.name == "msign" and form(short, long)[0] and has_fixed_steps(**call.options)


def _by_rows(call: Request, axes: dict[str, int], available: float | None) -> Plan:
    """The longer side of one matrix is spread over all devices: sums over it end with an all-reduce."""
    (short, long), devices = sorted(call.members[0] or (1, 1)), math.prod(axes.values())

    def is_spread(shape: Shape) -> bool:
        return math.prod(shape) > 1.5 * short * short

    spent = cost(call, 1, share=lambda shape: -(-long // devices) / long if is_spread(shape) else 1.0)
    repeated = repeated_flops(spent, short, 1)
    found = totals(spent.least, spent.most)
    every = tuple(x + (devices - 1) * repeated for x in found.pop("flops"))
    size = short * short * np.dtype(working_dtype(call)).itemsize
    return Plan(
        subject=_subject(call),
        mesh=axes,
        way=Way.GRAM,
        reason=f"the side of {long} is spread over all devices, products of {short} × {short} are repeated on each",
        **found,
        flops=every,
        memory=_bytes_held(call, 1, spent.memory, spread=devices),
        collectives=(Collective("all-reduce", spent.row_sums, size, devices),),
        available=available,
        notes=assumptions(spent),
    )


def _in_panels(call: Request, axes: dict[str, int], available: float | None) -> Plan:
    """The rows or columns of each matrix are spread over all devices, and products pass blocks from device to device."""
    from matsign.backends import jax_sharded_program

    spent = cost(call, 1, by_products=True)
    shapes = [shape for shape in call.members if shape is not None]
    program = jax_sharded_program.of_matrices(bound_by(call), shapes, working_dtype(call), axes, LOOP_STEPS)
    transfers = sorted(program.most.items(), key=lambda item: -item[0].size * item[1])
    held = _bytes_held(call, 1, 0.0, spread=math.prod(axes.values()))
    return Plan(
        subject=_subject(call),
        mesh=axes,
        way=Way.PANELS,
        reason="rows or columns are spread over all devices, which pass blocks to each other",
        **totals(spent.least, spent.most),
        memory=held | {"result and temporaries": program.memory},
        collectives=tuple(Collective(t.kind, n, t.size, t.group) for t, n in transfers if t.size >= _SMALL),
        available=available,
        notes=assumptions(spent),
    )


def _plan_that_does_not_fit(call: Request, axes: dict[str, int], available: float | None, nearest: Plan) -> Plan:
    """The plan that needs the least memory, which is too much; and the smallest mesh on which the call would fit."""
    found = _smallest_mesh(call, axes, available, nearest.bytes_held)
    advice = f"{found.devices} devices would hold it ({found.way})" if found else "no number of devices would hold it"
    return replace(nearest, way=Way.DOES_NOT_FIT, reason=f"as {nearest.way} it needs too much memory; {advice}")


def _smallest_mesh(call: Request, axes: dict[str, int], available: float | None, held: float) -> Plan | None:
    """The first plan that fits if the first axis of the mesh grows by about two each time, as long as that saves memory."""
    name, larger = next(iter(axes)), dict(axes)
    others = math.prod(axes.values()) // axes[name]
    while math.prod(larger.values()) < _MOST_DEVICES:
        larger[name] = _next_size(call, larger[name], others)
        try:
            found = min(_ways(call, larger, available), key=lambda plan: plan.bytes_held)
        except ValueError:  # a matrix that so many devices do not divide
            continue
        if found.fits:
            return found
        if found.bytes_held >= held:
            return None
        held = found.bytes_held
    return None


def _next_size(call: Request, size: int, others: int) -> int:
    """At least twice the size of a mesh axis; for one matrix the next such that with the other axes it divides a side, if any."""
    if math.prod(call.batch) > 1:
        return 2 * size
    sides = {n // others for shape in call.members if shape is not None for n in shape if n % others == 0}
    small = ((n, k) for n in sides for k in range(1, math.isqrt(n) + 1) if n % k == 0)
    return min((d for n, k in small for d in (k, n // k) if d >= 2 * size), default=2 * size)


def _subject(call: Request) -> str:
    batch = "" if math.prod(call.batch) == 1 else f"{' × '.join(map(str, call.batch))} of "
    sizes = ", ".join(" × ".join(map(str, s)) for s in call.members if s is not None)
    defaults = call.spec.parameters.options
    options = "".join(f", {k}={v}" for k, v in {**call.options, **call.numbers}.items() if v != defaults[k])
    return f"{call.spec.name} of {batch}{sizes}, {call.dtype}{options}"


def _bytes_held(call: Request, count: int, peak: float, spread: int = 1) -> dict[str, float]:
    """The bytes that a device holds: arguments, and the rest of the largest sum of arrays that exist together."""
    entries = sum(-(-s[0] * s[1] // spread) for s in call.members if s is not None)
    arguments = float(count * entries * np.dtype(working_dtype(call)).itemsize)
    return {"arguments": arguments, "result and temporaries": max(0.0, peak - arguments)}


def assumptions(spent: Cost) -> tuple[str, ...]:
    """What the counts of a call assume."""
    return (f"loops that end when they have converged are counted with {LOOP_STEPS} steps",) if spent.converging else ()
