"""Operations in programs that JAX compiles for a CPU: one call of the NumPy implementation with the whole batch.

XLA would compile every branch of a solver, and its LAPACK calls are slow for small matrices. The call has NumPy's bits and speed,
and hardly any compilation time. It is chosen at lowering, when the platform is known.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.interpreters import mlir

from matsign.backends import load
from matsign.backends.jax_derivatives import leading_axes
from matsign.backends.lapack import processors

_WORKERS = 2 * processors()


def _start_pool() -> ThreadPoolExecutor:
    """A pool whose threads have all been started.

    XLA's threads flush denormal numbers to zero, and a thread inherits this mode from the thread that starts it: these are
    started by the thread that imports this module.
    """
    pool = ThreadPoolExecutor(_WORKERS, "matsign")
    barrier = threading.Barrier(_WORKERS + 1)
    for _ in range(_WORKERS):
        pool.submit(barrier.wait)
    barrier.wait()
    return pool


_pool = _start_pool()


def runs_on_one_device(context: Any) -> bool:
    """Whether the program being lowered gets the whole batch, or is the part of one device in `shard_map`.

    `context` is the axis context of the lowering. In a program that XLA partitions, a host call would gather the batch.
    """
    manual = getattr(context, "manual_axes", None)
    if manual is not None:
        return set(manual) == set(context.mesh.axis_names)
    return getattr(context, "num_devices", 2) == 1


def calls_numpy(module: Any) -> bool:
    """Whether a program for a CPU calls NumPy for operations that iterate."""
    return runs_on_one_device(module.axis_context) and reachable(module)


def reachable(module: Any) -> bool:
    """Whether the program being lowered will run in this process: it is not exported, and its platform is present."""
    backend = module.get_backend(optional=True)
    return backend is not None and not module.lowering_parameters.for_export


def call_on_host(ctx: Any, operands: Any, solve: Callable[[Any, Any], list[Any]]) -> Any:
    """The lowering of an operation to one call of ``solve(results, arrays)``.

    Not by `jax.pure_callback`, which converts the operands to JAX arrays: waiting for these in a thread of XLA deadlocks when all
    of its threads wait (two programs at a time on two cores).
    """
    result, _, _ = mlir.emit_python_callback(
        ctx,
        _in_pool(solve, ctx.avals_out),
        None,
        list(operands),
        ctx.avals_in,
        ctx.avals_out,
        has_side_effect=False,
        returns_token=False,
    )
    return result


def _in_pool(solve: Callable[[Any, Any], list[Any]], results: Any) -> Callable[..., tuple[Any, ...]]:
    def call(*arrays: Any) -> tuple[Any, ...]:
        return tuple(_pool.submit(solve, results, arrays).result())

    return call


class HostCalls:
    """Calls of the host in the programs of single devices, which are traced while XLA partitions the whole program.

    A compiled program knows a Python function by its number among those of the whole program. So one function is registered with
    that, and calls one of those that the programs of the devices have added, by a number which is its first operand.
    """

    def __init__(self, module: Any) -> None:
        self._functions: list[Callable[..., tuple[Any, ...]]] = []
        module.add_host_callback(self._call)
        self._index = np.uint64(len(module.host_callbacks) - 1)
        self._target = f"xla_ffi_python_{'cpu' if module.platforms[0] == 'cpu' else 'gpu'}_callback"

    def _call(self, number: Any, *arrays: Any) -> tuple[Any, ...]:
        return self._functions[int(number)](*arrays)

    def __call__(self, solve: Callable[[Any, Any], list[Any]], results: Any, *arrays: Any) -> Any:
        """The traced results of ``solve(results, arrays)``; `results` are shapes and dtypes."""
        types = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in results]
        number = np.int32(len(self._functions))
        self._functions.append(_in_pool(solve, types))
        return jax.ffi.ffi_call(self._target, types)(number, *arrays, index=self._index)


def can_call_from_devices(module: Any) -> bool:
    """Whether `HostCalls` works on the platform of a program."""
    return reachable(module) and tuple(module.platforms) in (("cpu",), ("cuda",), ("rocm",))


def solve_all(bound: Any, results: Any, arrays: Any) -> list[Any]:
    """The results of an operation, by NumPy; arrays and results may have several leading axes."""
    leading = arrays[0].shape[: leading_axes(bound, arrays)]
    stacks = [np.asarray(x).reshape((math.prod(leading), *x.shape[len(leading) :])) for x in arrays]
    values = [x.reshape((*leading, *x.shape[1:])) for x in _solve(bound, stacks)]
    return [_pad(x, like) for x, like in zip(values, results, strict=True)]


def solve_some(bound: Any, results: Any, arrays: Any) -> list[Any]:
    """The results for the members in the mask, which is the first array, and zeros for the others."""
    mask, *arrays = map(np.asarray, arrays)
    out = [np.zeros(like.shape, like.dtype) for like in results]
    for x, part in zip(out, _solve(bound, [x[mask] for x in arrays]), strict=True):
        whole = np.zeros((len(part), *x.shape[1:]), x.dtype)
        whole[tuple(map(slice, part.shape))] = part
        x[mask] = whole
    return out


def _solve(bound: Any, arrays: Any) -> Any:
    return bound.evaluate(load("numpy"), *map(np.asarray, arrays))


def _pad(x: Any, like: Any) -> Any:
    """x padded with zeros to the shape in the compiled program, where NumPy chooses a size by values."""
    if x.shape == like.shape:
        return x.astype(like.dtype, copy=False)
    out = np.zeros(like.shape, like.dtype)
    out[tuple(slice(k) for k in x.shape)] = x
    return out
