"""Operations in programs for several devices: each device solves the members that it holds, without communication.

XLA would gather a stack for a call of the host and for a factorisation. `custom_partitioning` asks for the program of one device
instead, once XLA has chosen the shardings of the operands. That program calls NumPy on a CPU; on an accelerator it is the one of
`jax_accelerator`, with its loops and its calls of the host on each device by itself.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from jax._src.dispatch import prim_requires_devices_during_lowering
from jax.experimental.custom_partitioning import custom_partitioning
from jax.interpreters import mlir
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from matsign._typing import Array
from matsign.backends import jax_accelerator, jax_host, jax_sharded
from matsign.backends.jax_derivatives import Derivative, leading_axes
from matsign.backends.jax_matrix_axes import sharding_rule
from matsign.backends.jax_sharding import Axes, axes_of_members, members_only, no_mesh, spec_of


def enable(primitive: Any) -> None:
    """Make JAX tell the lowering of this primitive which devices its program is for, as `custom_partitioning` needs."""
    prim_requires_devices_during_lowering.add(primitive)


def partitions(module: Any) -> bool:
    """Whether XLA partitions the program being lowered, and asks here for the programs of its devices."""
    context = module.axis_context
    several = getattr(context, "device_assignment", None) is not None and context.num_devices > 1
    return several and jax_host.can_call_from_devices(module)


_host_of_devices: ContextVar[Callable[..., Any] | None] = ContextVar("matsign_host_of_devices", default=None)


@contextlib.contextmanager
def within_program_of_device(call_host: Callable[..., Any] | None) -> Iterator[None]:
    """Operations that are traced here belong to a program of one device that another `custom_partitioning` has asked for.

    `call_host` is of the type `HostCalls`; without it all operations must be fixed sequences of products.
    """
    token = _host_of_devices.set(call_host)
    try:
        with no_mesh():
            yield
    finally:
        _host_of_devices.reset(token)


def host_of_devices() -> Callable[..., Any] | None:
    """How operations that are traced now call the host, if not by a call of the whole program."""
    return _host_of_devices.get()


def with_dtypes_of_caller(program: Callable[..., Any]) -> Callable[..., Any]:
    """A program of one device with 64 bits if they are enabled now: XLA asks for it in a thread that knows no `with` block."""
    enabled = bool(jax.config.read("jax_enable_x64"))

    def run(*arrays: Array, **options: Any) -> Any:
        with jax.enable_x64(enabled):
            return program(*arrays, **options)

    return run


def lower(ctx: Any, *operands: Any, bound: Any, whole: Callable[..., Any], on_host: bool) -> Any:
    """The lowering to one call that XLA partitions. `whole` has the types of the results; it is not compiled."""
    module = ctx.module_context
    leading = leading_axes(bound, ctx.avals_in)
    results = [((x.shape[leading:]), x.dtype) for x in ctx.avals_out]
    if bound.fixed and not isinstance(bound, Derivative):  # derivatives contain other operations
        program = functools.partial(jax_accelerator.trace_products, bound=bound)
    else:
        call_host = jax_host.HostCalls(module)
        program = functools.partial(_by_host if on_host else _by_device, bound, leading, results, call_host)
    by_products = with_dtypes_of_caller(functools.partial(jax_sharded.solve, bound))
    sharded = functools.partial(jax_sharded.partition, bound, by_products)
    partition = functools.partial(
        _partition, leading, with_dtypes_of_caller(program), sharded, module.axis_context.device_assignment
    )
    function = custom_partitioning(lambda *arrays: tuple(whole(*arrays)))
    function.def_partition(partition, sharding_rule=sharding_rule(leading, ctx.avals_in, ctx.avals_out))
    avals = [jax.core.ShapedArray(x.shape, x.dtype) for x in ctx.avals_in]
    with no_mesh():
        return mlir.lower_fun(lambda *arrays: function(*arrays))(ctx.replace(avals_in=avals), *operands)


def _partition(
    leading: int, program: Any, sharded: Any, devices: Any, mesh: Any, operands: Any, results: Any
) -> tuple[Any, ...]:
    """What XLA asks for: the program of one device, and the shardings of the results and operands that it is for."""
    members = _members(leading, devices, [*operands, *results])
    if any(isinstance(x.sharding, NamedSharding) for x in operands):
        shardings = [spec_of(x.sharding, x.ndim) for x in operands]
        if not members_only(shardings, leading):
            result: tuple[Any, ...] = sharded(members, shardings, operands, results)
            return result
    return members.mesh, program, (members,) * len(results), (members,) * len(operands)


def _members(leading: int, devices: Any, arrays: Any) -> NamedSharding:
    """The sharding over members that XLA has chosen."""
    if not all(isinstance(x.sharding, NamedSharding) for x in arrays):
        # No array of the program is on a named mesh: each device solves all members.
        return NamedSharding(Mesh(np.array(devices), ("devices",)), PartitionSpec())
    shardings: list[Axes] = [spec_of(x.sharding, x.ndim) for x in arrays]
    return NamedSharding(arrays[0].sharding.mesh, PartitionSpec(*axes_of_members(shardings, leading)))


def _by_host(bound: Any, leading: int, results: Any, call_host: Any, *arrays: Array) -> tuple[Array, ...]:
    shape = arrays[0].shape[:leading]
    types = [((*shape, *own), dtype) for own, dtype in results]
    return tuple(call_host(functools.partial(jax_host.solve_all, bound), types, *arrays))


def _by_device(bound: Any, leading: int, results: Any, call_host: Any, *arrays: Array) -> tuple[Array, ...]:
    with no_mesh():
        return jax_accelerator.trace(*arrays, bound=bound, call_host=call_host)
