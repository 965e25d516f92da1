"""The updates of parameters that are sharded over the devices of a mesh, as one primitive of JAX.

How parameters are sharded is known only to the compiler where a mesh has automatic axes. So the primitive is lowered, in programs
for several devices, to a call that the compiler partitions by asking `_partition`: it is told how every operand is sharded,
requires exactly that, returns the updates sharded in the same way, and the program of one device is `on_one_device`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax  # noqa: TID251
import jax.numpy as jnp  # noqa: TID251
import numpy as np
from jax.experimental.custom_partitioning import custom_partitioning  # noqa: TID251
from jax.extend.core import Primitive  # noqa: TID251
from jax.interpreters import ad, batching, mlir  # noqa: TID251
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: TID251

from matsign._typing import Array
from matsign.backends import jax_accelerator, jax_host, jax_partitioning
from matsign.backends.jax_sharding import no_mesh
from matsign.functions.polar.methods import has_fixed_steps
from matsign.optim.batching import MsignConfig
from matsign.optim.jax_exchange import Names, Placement, exchanges
from matsign.optim.matrix_axes import Reading, msign_updates


class Updates(NamedTuple):
    """What is computed: how each parameter is read, how msign is computed, and the rule for the factor of the learning rate."""

    readings: tuple[Reading, ...]
    how: MsignConfig
    adjustment: str | None

    def of(self, parameters: Sequence[Array]) -> list[Array]:
        """The updates, on one device."""
        return msign_updates(parameters, self.readings, self.how, self.adjustment)

    def has_fixed_steps(self) -> bool:
        schedule, steps, tol, _ = self.how
        return has_fixed_steps(method="polynomial", tol=tol, schedule=schedule, steps=steps)


_updates = Primitive("matsign_updates")
_updates.multiple_results = True
jax_partitioning.enable(_updates)


def sharded_updates(updates: Updates, parameters: Sequence[Array], like: Sequence[Array]) -> list[Array]:
    """The updates, each sharded as the array of its number in `like`. Each device computes whole matrices, no matrix twice."""
    if not parameters or not any(_may_be_sharded(x) for x in (*parameters, *like)):
        return updates.of(parameters)
    full = [k for k, x in enumerate(parameters) if x.size]  # nothing is computed for the others
    readings = tuple(updates.readings[k] for k in full)
    arrays = (*(parameters[k] for k in full), *(like[k] for k in full))
    found = iter(_updates.bind(*arrays, updates=updates._replace(readings=readings)) if full else ())
    return [next(found) if x.size else x for x in parameters]


def _may_be_sharded(x: Any) -> bool:
    """Whether an array is on several devices or traced, except in a `shard_map`, where it is a part of one device."""
    if isinstance(x, jax.core.Tracer):
        return not jax.sharding.get_abstract_mesh().manual_axes
    return isinstance(x, jax.Array) and len(x.sharding.device_set) > 1


@functools.lru_cache(maxsize=64)
def _jit_updates(updates: Updates) -> Callable[..., list[Array]]:
    return jax.jit(functools.partial(_updates.bind, updates=updates))


@_updates.def_impl
def _run(*arrays: Array, updates: Updates) -> list[Array]:
    return _jit_updates(updates)(*arrays)


@_updates.def_abstract_eval
def _abstract(*arrays: Any, updates: Updates) -> list[Any]:
    count = len(updates.readings)
    return [x.update(sharding=y.sharding, weak_type=False) for x, y in zip(arrays[:count], arrays[count:], strict=True)]


def _batch(arrays: Any, axes: Any, *, updates: Updates) -> tuple[list[Array], list[int]]:
    size = next(x.shape[d] for x, d in zip(arrays, axes, strict=True) if d is not None)
    leading = [
        jnp.broadcast_to(x, (size, *x.shape)) if d is None else jnp.moveaxis(x, d, 0)
        for x, d in zip(arrays, axes, strict=True)
    ]
    readings = tuple(reading.with_leading_axis() for reading in updates.readings)
    return _updates.bind(*leading, updates=updates._replace(readings=readings)), [0] * len(readings)


batching.primitive_batchers[_updates] = _batch


def _jvp(arrays: Any, tangents: Any, *, updates: Updates) -> Any:
    """That of the updates on one device."""
    count = len(updates.readings)
    given = tuple(map(ad.instantiate_zeros, tangents[:count]))
    return jax.jvp(lambda *parameters: updates.of(parameters), tuple(arrays[:count]), given)


ad.primitive_jvps[_updates] = _jvp


def _lower(ctx: Any, *operands: Any, updates: Updates) -> Any:
    """The lowering: for one device the updates alone, for several a call that the compiler partitions.

    An exported program cannot ask for the program of a device, and contains the updates alone.
    """
    module, count = ctx.module_context, len(updates.readings)
    if getattr(module.axis_context, "num_devices", 1) > 1 and jax_host.reachable(module):
        program = _partitioned_call(updates, ctx.avals_in, module)
    else:
        program = lambda *arrays: updates.of(arrays[:count])  # noqa: E731
    # Types without shardings, which are the compiler's matter.
    avals = [jax.core.ShapedArray(x.shape, x.dtype) for x in ctx.avals_in]
    with no_mesh():
        return mlir.lower_fun(program)(ctx.replace(avals_in=avals), *operands)


# Calls of the host within are objects of their own, so equal ones must not share a lowering.
mlir.register_lowering(_updates, _lower, cacheable=False)


def _partitioned_call(updates: Updates, types: Sequence[Any], module: Any) -> Callable[..., Any]:
    """The call that the compiler partitions."""
    count = len(updates.readings)
    call_host = None if updates.has_fixed_steps() else _host_calls(module)
    # The first function has the types of the results; it is not compiled.
    call = custom_partitioning(lambda *arrays: arrays[:count])
    axes = ", ".join(" ".join(f"p{k}a{axis}" for axis in range(x.ndim)) for k, x in enumerate(types[:count]))
    run = jax_partitioning.with_dtypes_of_caller(functools.partial(on_one_device, updates, call_host))
    call.def_partition(
        functools.partial(_partition, run, count, module.axis_context.device_assignment),
        infer_sharding_from_operands=lambda mesh, operands, results: tuple(x.sharding for x in operands[count:]),
        sharding_rule=f"{axes}, {axes} -> {axes}",
    )
    return lambda *arrays: list(call(*arrays))


def _host_calls(module: Any) -> Callable[..., Any]:
    """How programs of single devices call the host; NaN where they cannot."""
    if jax_host.can_call_from_devices(module):
        return jax_host.HostCalls(module)
    return lambda solve, results, *arrays: jax_accelerator.all_failed(results=results)


def _partition(run: Callable[..., Any], count: int, devices: Any, mesh: Any, operands: Any, results: Any) -> Any:
    """What the compiler asks for: the program of one device, and the shardings of results and operands that it is for."""
    mesh, specs = _specs(mesh, devices, operands[count:])
    shardings = tuple(NamedSharding(mesh, spec) for spec in specs)
    return mesh, functools.partial(run, sizes=dict(mesh.shape), specs=specs), shardings, shardings + shardings


def _specs(mesh: Any, devices: Any, operands: Any) -> tuple[Any, list[PartitionSpec]]:
    """The mesh and how each operand is sharded; replicated where the compiler does not know names of mesh axes."""
    if not all(isinstance(x.sharding, NamedSharding) for x in operands):
        return Mesh(np.array(devices), ("devices",)), [PartitionSpec() for _ in operands]
    return mesh, [dividing(x.sharding.spec, x.shape, mesh.shape) for x in operands]


def dividing(spec: Any, shape: tuple[int, ...], sizes: Mapping[str, int]) -> PartitionSpec:
    """A sharding without the mesh axes that do not divide an axis into equal parts."""
    entries = (*spec, *(None,) * (len(shape) - len(spec)))
    pairs = list(zip(shape, map(_names, entries), strict=True))
    return PartitionSpec(*(names if n % math.prod(sizes[name] for name in names) == 0 else None for n, names in pairs))


def _names(entry: Any) -> Names:
    return () if entry is None else entry if isinstance(entry, tuple) else (entry,)


def on_one_device(
    updates: Updates,
    call_host: Callable[..., Any] | None,
    *arrays: Array,
    sizes: Mapping[str, int],
    specs: Sequence[PartitionSpec],
) -> tuple[Array, ...]:
    """What one device holds of each update, from what it holds of each parameter, on a mesh whose axes have these sizes."""
    readings = updates.readings
    arranged = [r.arrange(x) for r, x in zip(readings, arrays[: len(readings)], strict=True)]
    stacks = [_stack(r, x) for r, x in zip(readings, arranged, strict=True)]
    kinds = []
    for r, x, spec in zip(readings, stacks, specs, strict=True):
        placement = _placement(r, spec)
        parts = (math.prod(sizes[name] for name in names) for names in placement.matrix)
        shape = tuple(n * p for n, p in zip(x.shape[1:], parts, strict=True))
        kinds.append((shape, placement, len(x), (r.of_stack(), x.dtype)))
    plan = exchanges(sizes, kinds)
    owned = [exchange.to_owners([stacks[k] for k in members]) for members, exchange in plan]
    of_stacks = updates._replace(readings=tuple(readings[members[0]].of_stack() for members, _ in plan))
    with jax_partitioning.within_program_of_device(call_host):
        found = of_stacks.of(owned)
    parts_of_updates: dict[int, Array] = {}
    for (members, exchange), x in zip(plan, found, strict=True):
        parts_of_updates.update(zip(members, exchange.from_owners(x), strict=True))
    return tuple(r.restore(parts_of_updates[k].reshape(arranged[k].shape)) for k, r in enumerate(readings))


def _stack(reading: Reading, x: Array) -> Array:
    """An arranged parameter, or a part of it, with the axes that count matrices joined into one."""
    count = reading.layout.batch_axes
    return x.reshape((math.prod(x.shape[:count]), *x.shape[count:]))


def _placement(reading: Reading, spec: PartitionSpec) -> Placement:
    """The mesh axes of an arranged parameter."""
    names = [_names(entry) for entry in spec]
    if reading.order is not None:
        names = [names[axis] for axis in reading.order]
    count = reading.layout.batch_axes
    return Placement(tuple(names[:count]), tuple(names[count:]))
