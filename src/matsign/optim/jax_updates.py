"""The updates of parameters that are sharded over the devices of a mesh, as one primitive of JAX.

How parameters are sharded is known only to the compiler where a mesh has automatic axes. So the primitive is lowered, in programs
for several devices, to a call that the compiler partitions by asking `_partition`: it is told how every operand is sharded,
requires exactly that, returns the updates sharded in the same way, and the program of one device is `on_one_device`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax  # noqa: TID251
import numpy as np
from jax.experimental.custom_partitioning import custom_partitioning  # noqa: TID251
from jax.extend.core import Primitive  # noqa: TID251
from jax.interpreters import ad, batching, mlir  # noqa: TID251
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: TID251

from matsign._typing import Array
from matsign.backends import jax_accelerator, jax_host, jax_partitioning
from matsign.backends.jax_sharding import no_mesh
from matsign.functions.polar_methods import has_fixed_steps
from matsign.optim.batching import MsignConfig
from matsign.optim.jax_exchange import Names, Placement, exchanges
from matsign.optim.matrix_axes import Reading, msign_updates

Readings = tuple[Reading, ...]

_updates = Primitive("matsign_updates")
_updates.multiple_results = True
jax_partitioning.enable(_updates)


def sharded_updates(
    parameters: Sequence[Array], like: Sequence[Array], readings: Readings, how: MsignConfig, adjustment: str | None
) -> list[Array]:
    """`msign_updates`, with each update sharded as the array of its number in `like`; each device computes whole matrices."""
    on_one_device = functools.partial(msign_updates, readings=readings, how=how, adjustment=adjustment)
    if not parameters or not any(_may_be_sharded(x) for x in (*parameters, *like)):
        return on_one_device(parameters)
    found: list[Array] = _updates.bind(*parameters, *like, readings=readings, how=how, adjustment=adjustment)
    return found


def _may_be_sharded(x: Any) -> bool:
    """Whether an array is on several devices or traced, except in a `shard_map`, where it is a part of one device."""
    if isinstance(x, jax.core.Tracer):
        return not jax.sharding.get_abstract_mesh().manual_axes
    return isinstance(x, jax.Array) and len(x.sharding.device_set) > 1


@functools.lru_cache(maxsize=64)
def _compiled(**options: Any) -> Callable[..., list[Array]]:
    return jax.jit(functools.partial(_updates.bind, **options))


@_updates.def_impl
def _run(*arrays: Array, **options: Any) -> list[Array]:
    return _compiled(**options)(*arrays)


@_updates.def_abstract_eval
def _abstract(*arrays: Any, readings: Readings, **_: Any) -> list[Any]:
    count = len(readings)
    return [x.update(sharding=y.sharding, weak_type=False) for x, y in zip(arrays[:count], arrays[count:], strict=True)]


def _lower(ctx: Any, *operands: Any, readings: Readings, how: MsignConfig, adjustment: str | None) -> Any:
    """The lowering: for one device the updates alone, for several a call that the compiler partitions."""

    def whole(*arrays: Array) -> list[Array]:
        return msign_updates(arrays[: len(readings)], readings, how, adjustment)

    def partitioned(*arrays: Array) -> list[Array]:
        return _partitioned(arrays, readings, how, adjustment, call_host)

    module = ctx.module_context
    several = getattr(module.axis_context, "num_devices", 1) > 1
    call_host = _host_calls(module) if several and not _has_fixed_steps(how) else None
    # Types without shardings, which are the compiler's matter.
    avals = [jax.core.ShapedArray(x.shape, x.dtype) for x in ctx.avals_in]
    with no_mesh():
        return mlir.lower_fun(partitioned if several else whole)(ctx.replace(avals_in=avals), *operands)


def _has_fixed_steps(how: MsignConfig) -> bool:
    return has_fixed_steps(method="polynomial", tol=how.tol, schedule=how.schedule, steps=how.steps)


def _host_calls(module: Any) -> Callable[..., Any]:
    """How programs of single devices call the host; NaN where they cannot."""
    if jax_host.can_call_from_devices(module):
        return jax_host.HostCalls(module)
    return lambda solve, results, *arrays: jax_accelerator.all_failed(results=results)


# Calls of the host within are objects of their own, so equal ones must not share a lowering.
mlir.register_lowering(_updates, _lower, cacheable=False)


def _batch(arrays: Any, axes: Any, *, readings: Readings, **options: Any) -> tuple[list[Array], list[int]]:
    size = next(x.shape[d] for x, d in zip(arrays, axes, strict=True) if d is not None)
    leading = [
        jax.numpy.broadcast_to(x, (size, *x.shape)) if d is None else jax.numpy.moveaxis(x, d, 0)
        for x, d in zip(arrays, axes, strict=True)
    ]
    more = tuple(reading.with_leading_axis() for reading in readings)
    return _updates.bind(*leading, readings=more, **options), [0] * len(readings)


batching.primitive_batchers[_updates] = _batch


def _jvp(arrays: Any, tangents: Any, *, readings: Readings, **options: Any) -> Any:
    count = len(readings)
    given = tuple(map(ad.instantiate_zeros, tangents[:count]))
    return jax.jvp(lambda *xs: msign_updates(xs, readings, **options), tuple(arrays[:count]), given)


ad.primitive_jvps[_updates] = _jvp


def _partitioned(
    arrays: Sequence[Array],
    readings: Readings,
    how: MsignConfig,
    adjustment: str | None,
    call_host: Callable[..., Any] | None,
) -> list[Array]:
    """The updates as a call that the compiler partitions."""
    count = len(readings)

    def whole(*arrays: Array) -> tuple[Array, ...]:
        return tuple(msign_updates(arrays[:count], readings, how, adjustment))

    def as_wanted(_: Any, operands: Any, results: Any) -> tuple[Any, ...]:
        return tuple(x.sharding for x in operands[count:])

    def partition(mesh: Any, operands: Any, results: Any) -> Any:
        mesh, specs = _specs(mesh, operands[count:])
        shardings = tuple(NamedSharding(mesh, spec) for spec in specs)
        program = functools.partial(
            on_one_device,
            mesh_axes=dict(mesh.shape),
            specs=specs,
            readings=readings,
            how=how,
            adjustment=adjustment,
            call_host=call_host,
        )
        return mesh, program, shardings, shardings + shardings

    call = custom_partitioning(whole)
    axes = ", ".join(" ".join(f"p{k}a{axis}" for axis in range(x.ndim)) for k, x in enumerate(arrays[:count]))
    rule = f"{axes}, {axes} -> {axes}"
    call.def_partition(partition, infer_sharding_from_operands=as_wanted, sharding_rule=rule)
    return list(call(*arrays))


def _specs(mesh: Any, operands: Any) -> tuple[Any, list[PartitionSpec]]:
    """The mesh and how each operand is sharded; replicated where the compiler does not know names of mesh axes."""
    if mesh.empty:
        devices = list(operands[0].sharding.device_set)
        return Mesh(np.array(sorted(devices, key=lambda d: d.id)), ("devices",)), [PartitionSpec() for _ in operands]
    return mesh, [dividing(x.sharding.spec, x.shape, mesh.shape) for x in operands]


def dividing(spec: Any, shape: tuple[int, ...], sizes: Any) -> PartitionSpec:
    """A sharding without the mesh axes that do not divide an axis into equal parts."""
    entries = (*spec, *(None,) * (len(shape) - len(spec)))
    kept = []
    for size, entry in zip(shape, entries, strict=True):
        names = _names(entry)
        kept.append(names if size % math.prod(sizes[name] for name in names) == 0 else None)
    return PartitionSpec(*kept)


def _names(entry: Any) -> Names:
    return () if entry is None else entry if isinstance(entry, tuple) else (entry,)


def on_one_device(
    *arrays: Array,
    mesh_axes: Any,
    specs: Sequence[PartitionSpec],
    readings: Readings,
    how: MsignConfig,
    adjustment: str | None,
    call_host: Callable[..., Any] | None,
) -> tuple[Array, ...]:
    """What one device holds of each update, from what it holds of each parameter."""
    parameters = arrays[: len(readings)]
    arranged = [r.arrange(x) for r, x in zip(readings, parameters, strict=True)]
    placements = [_placement(r, spec) for r, spec in zip(readings, specs, strict=True)]
    stacks, kinds = [], []
    for r, x, placement in zip(readings, arranged, placements, strict=True):
        first, local = r.layout.batch_axes, x.shape[r.layout.batch_axes :]
        stacks.append(x.reshape((math.prod(x.shape[:first]), *local)))
        shape = tuple(
            n * math.prod(mesh_axes[name] for name in names) for n, names in zip(local, placement.matrix, strict=True)
        )
        kinds.append((shape, placement, len(stacks[-1]), (r.of_stack(), x.dtype)))
    plan = exchanges(mesh_axes, kinds)
    owned = [exchange.to_owners([stacks[k] for k in members]) for members, exchange in plan]
    with jax_partitioning.within_program_of_device(call_host):
        signs = msign_updates(owned, [kinds[members[0]][3][0] for members, _ in plan], how, adjustment)
    updates: list[Any] = [None] * len(parameters)
    for (members, exchange), x in zip(plan, signs, strict=True):
        for k, part in zip(members, exchange.from_owners(x), strict=True):
            updates[k] = readings[k].restore(part.reshape(arranged[k].shape))
    return tuple(updates)


def _placement(reading: Reading, spec: PartitionSpec) -> Placement:
    """The mesh axes of an arranged parameter."""
    names = [_names(entry) for entry in spec]
    if reading.order is not None:
        names = [names[axis] for axis in reading.order]
    count = reading.layout.batch_axes
    return Placement(tuple(names[:count]), tuple(names[count:]))
