"""Operations in programs that JAX compiles for a CPU: one call of the NumPy implementation with the whole batch.

XLA would compile every branch of a solver, and its LAPACK calls are slow for small matrices. The call has NumPy's bits and speed,
and hardly any compilation time. It is chosen at lowering, when the platform is known.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jax.interpreters import mlir

from matsign.backends import load
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
    results = ctx.avals_out

    def call(*arrays: Any) -> tuple[Any, ...]:
        return tuple(_pool.submit(solve, results, arrays).result())

    result, _, _ = mlir.emit_python_callback(
        ctx, call, None, list(operands), ctx.avals_in, results, has_side_effect=False, returns_token=False
    )
    return result


def solve_all(bound: Any, results: Any, arrays: Any) -> list[Any]:
    """The results of an operation, by NumPy."""
    return [_pad(np.asarray(x), like) for x, like in zip(_solve(bound, arrays), results, strict=True)]


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


def lowering(xla: Callable[..., Any]) -> Callable[..., Any]:
    """The lowering for a CPU: NumPy for operations that iterate; `xla` for fixed products and in programs that XLA partitions."""

    def lower(ctx: Any, *operands: Any, bound: Any) -> Any:
        if bound.fixed or not calls_numpy(ctx.module_context):
            return xla(ctx, *operands, bound=bound)
        return call_on_host(ctx, operands, functools.partial(solve_all, bound))

    return lower
