"""A bound operation as one primitive of JAX, with a rule for each transformation.

Eagerly it runs on concrete arrays. Compiled, its traced form is lowered, or for a CPU a call of NumPy (`jax_host`). Members of
an array may be counted by several leading axes, and ``vmap`` adds one more: only the program of one device merges them. The
tangent is that of the operation; an operation that is linear in one array is transposed by transposing the other arrays.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as xp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from matsign._typing import Array
from matsign.backends import CODES, jax_accelerator, jax_host, jax_partitioning, jax_sharded, jax_sharding, load
from matsign.backends.jax_derivatives import Derivative, first_argument, leading_axes
from matsign.backends.jax_matrix_axes import result_axes

_operation = Primitive("matsign")
_operation.multiple_results = True


def bind(bound: Any, *arrays: Array) -> tuple[Array, ...]:
    call_host = jax_partitioning.host_of_devices()
    if call_host is not None and not bound.fixed:
        return jax_accelerator.trace(*arrays, bound=bound, call_host=call_host)
    arrays = jax_sharding.equally_sharded(arrays, leading_axes(bound, arrays))
    return tuple(_operation.bind(*_equally_varying(arrays), bound=bound))


def _varying(x: Any) -> frozenset[Any]:
    """The axes of a `shard_map` over which an array or its type varies from device to device."""
    kind = x if isinstance(x, jax.core.ShapedArray) else jax.typeof(x)
    manual = getattr(kind, "manual_axis_type", None)
    return frozenset(getattr(kind, "vma", ()) if manual is None else manual.varying)


def _equally_varying(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    """Arrays that vary over the same axes, as the operands of a primitive must."""
    every = frozenset().union(*map(_varying, arrays))
    missing = [tuple(every - _varying(x)) for x in arrays]
    return tuple(lax.pcast(x, axes, to="varying") if axes else x for x, axes in zip(arrays, missing, strict=True))


@_operation.def_impl
def _run(*arrays: Array, bound: Any) -> list[Array]:
    if by_numpy(bound, *arrays):
        return _run_by_numpy(bound, arrays)
    if any(map(jax_sharding.over_several_devices, arrays)):
        return _run_on_devices(bound, arrays)
    leading = leading_axes(bound, arrays)
    result = bound(load("jax"), *(jax_sharding.merge_members(x, leading) for x in arrays))
    return [jax_sharding.split_members(x, arrays[0].shape[:leading]) for x in result]


def _run_by_numpy(bound: Any, arrays: tuple[Array, ...]) -> list[Array]:
    leading = leading_axes(bound, arrays)
    stacks = (jax_sharding.merge_members(np.asarray(x), leading) for x in arrays)
    result = bound.evaluate(load("numpy"), *stacks)
    shape = arrays[0].shape[:leading]
    out = [from_numpy(jax_sharding.split_members(x, shape), arrays[0]) for x in result]
    if bound.raises(load("numpy"), result):
        bound.raise_failures(load("jax"), tuple(out))
    return out


def _run_on_devices(bound: Any, arrays: tuple[Array, ...]) -> list[Array]:
    """By one compiled program. All processes raise the same error, so that none waits for another."""
    try:
        out = list(_jit_operation(*arrays, bound=bound))
    except jax.errors.JaxRuntimeError as error:
        raise jax_sharded.refusal(error) from None
    if bound.raises(load("jax"), tuple(out)):
        codes = [jax_sharding.gather(x) for x in out[-CODES:]]
        bound.raise_failures(load("jax"), (*out[:-CODES], *codes))
    return out


@functools.partial(jax.jit, static_argnames="bound")
def _jit_operation(*arrays: Array, bound: Any) -> list[Array]:
    return _operation.bind(*arrays, bound=bound)


def by_numpy(bound: Any, *arrays: Array) -> bool:
    return not bound.fixed and all([_on_one_cpu(x) for x in arrays])


def from_numpy(x: Any, like: Array) -> Array:
    """On the device of `like`, committed to it only if it is not the default device."""
    result = xp.asarray(x)
    return result if result.sharding == like.sharding else jax.device_put(result, like.sharding)


def _on_one_cpu(x: Any) -> bool:
    """Whether x has values on one CPU, so that NumPy can read it. One call of NumPy is faster than one operation of JAX."""
    if not isinstance(x, jax.Array) or isinstance(x, jax.core.Tracer):
        return False
    return isinstance(x.sharding, SingleDeviceSharding) and x.is_fully_addressable and x.platform() == "cpu"


@_operation.def_abstract_eval
def _abstract(*arrays: Any, bound: Any) -> list[Any]:
    leading, results = leading_axes(bound, arrays), _results(bound, arrays, leading_axes(bound, arrays))
    typed = [jax_sharding.typed_axes(x) for x in arrays]
    own = result_axes(leading, arrays, typed, [shape for shape, _ in results])
    return [_result_type(arrays[0], *of, leading, axes) for of, axes in zip(results, own, strict=True)]


def _result_type(like: Any, shape: tuple[int, ...], dtype: Any, leading: int, own: Any) -> Any:
    """The type of a result, with the members sharded as those of `like`, and its own axes over the mesh axes `own`."""
    over = jax_sharding.typed_axes(like)[:leading]
    sharding = NamedSharding(like.sharding.mesh, PartitionSpec(*over, *own))
    return like.update(shape=shape, dtype=dtype, weak_type=False, sharding=sharding)


def _results(bound: Any, arrays: Any, leading: int) -> list[tuple[tuple[int, ...], Any]]:
    """Shapes and dtypes of the results of an operation; by tracing if the solver chooses a size."""
    if isinstance(bound, Derivative):
        return [(x.shape, x.dtype) for x in bound.like(arrays)]
    members = arrays[0].shape[:leading]
    count = math.prod(members)
    stacks = [jax.ShapeDtypeStruct((count, *x.shape[leading:]), x.dtype) for x in arrays]
    known = bound.result_shapes(stacks)
    if known is None:
        found = jax.eval_shape(lambda *xs: bound(load("jax"), *xs), *stacks)
        return [((*members, *x.shape[1:]), x.dtype) for x in found]
    same = arrays[0].dtype
    kinds = {"same": same, "real": np.finfo(same).dtype, "complex": np.result_type(same, np.complex64)}
    codes = [(members, xp.int32), (members, xp.int32), ((*members, 2), kinds["real"])]
    return [*(((*members, *shape[1:]), kinds[kind]) for shape, kind in known), *codes]


def _lower(ctx: Any, *operands: Any, bound: Any, platform: str | None = None) -> Any:
    """By NumPy on a CPU, by `jax_accelerator` elsewhere; in a program for several devices on each of them by itself."""
    module, cpu = ctx.module_context, platform == "cpu"
    if jax_partitioning.partitions(module):
        whole = functools.partial(_operation.bind, bound=bound)
        return jax_partitioning.lower(ctx, *operands, bound=bound, whole=whole, on_host=cpu)
    if cpu and not bound.fixed and jax_host.calls_numpy(module):
        return jax_host.call_on_host(ctx, operands, functools.partial(jax_host.solve_all, bound))
    return jax_accelerator.lowering(ctx, *operands, bound=bound)


# Each host call is an object of its own, so equal operations of a program must not share a lowering.
mlir.register_lowering(_operation, _lower, cacheable=False)
mlir.register_lowering(_operation, functools.partial(_lower, platform="cpu"), platform="cpu", cacheable=False)
jax_partitioning.enable(_operation)


def _batch(arrays: Any, axes: Any, *, bound: Any) -> tuple[tuple[Array, ...], list[int]]:
    count = next(x.shape[d] for x, d in zip(arrays, axes, strict=True) if d is not None)
    moved = [x if d is None else xp.moveaxis(x, d, 0) for x, d in zip(arrays, axes, strict=True)]
    ndims = [x.ndim - (d is not None) for x, d in zip(arrays, axes, strict=True)]
    first = first_argument(bound)
    leading = ndims[first] - bound.first_axes
    last = moved[first].ndim - bound.first_axes
    members = moved[first].shape[last - leading : last]
    stacks = jax_sharding.as_stacks(moved, (count, *members), [n - leading for n in ndims])
    result = bind(bound.with_leading_axis(count), *stacks)
    return result, [0] * len(result)


batching.primitive_batchers[_operation] = _batch


def _jvp(arrays: Any, tangents: Any, *, bound: Any) -> tuple[tuple[Array, ...], list[Any]]:
    if isinstance(bound, Derivative):
        return _second_jvp(arrays, tangents, bound)
    result = bind(bound, *arrays)
    value = result[:-CODES]
    changes = bind(Derivative(bound, "tangent"), *value, *arrays, *map(ad.instantiate_zeros, tangents))
    no_changes = [ad.Zero(jax.typeof(x).to_tangent_aval()) for x in result[-CODES:]]
    return result, [*changes, *no_changes]


def _second_jvp(operands: Any, tangents: Any, bound: Derivative) -> tuple[tuple[Array, ...], list[Any]]:
    """The tangent of a derivative: linear in the directions, and by jax.jvp of the derivative in the point."""
    count = bound.directions
    point, directions = operands[:-count], operands[-count:]
    changes = bind(bound, *point, *map(ad.instantiate_zeros, tangents[-count:]))
    if all(isinstance(x, ad.Zero) for x in tangents[:-count]):
        return bind(bound, *operands), list(changes)
    function = jax_sharding.on_stacks(lambda *xs: tuple(bound(load("jax"), *xs)), leading_axes(bound, operands))
    result, change_of_point = jax.jvp(
        lambda *point: function(*point, *directions),
        tuple(point),
        tuple(map(ad.instantiate_zeros, tangents[:-count])),
    )
    return result, [x + y for x, y in zip(changes, change_of_point, strict=True)]


ad.primitive_jvps[_operation] = _jvp


def _transpose(cotangents: Any, *arrays: Array, bound: Any) -> list[Any]:
    if isinstance(bound, Derivative):
        point, directions = arrays[: -bound.directions], arrays[-bound.directions :]
        given = (ad.instantiate_zeros(x).conj() for x in cotangents)
        result = [x.conj() for x in bind(bound.adjoint(), *point, *given)]
        wanted = map(ad.is_undefined_primal, directions)
        return [*(None for _ in point), *(x if w else None for x, w in zip(result, wanted, strict=True))]
    assert bound.operation.linear, bound.operation.name
    places = range(len(arrays))
    place = places[bound.operation.linear_array]
    undefined = [k for k in places if ad.is_undefined_primal(arrays[k])]
    assert undefined == [place], "a linear step has a transpose in one array only"
    bar = ad.instantiate_zeros(cotangents[0])
    matrices = [len(letters) > 1 for letters, given in zip(bound.operation.letters, bound.given, strict=True) if given]
    transposed = (arrays[k].mT if k != place and matrices[k] else arrays[k] for k in places)
    result = bind(bound, *(bar if k == place else x for k, x in zip(places, transposed, strict=True)))[0]
    return [result if k == place else None for k in places]


ad.primitive_transposes[_operation] = _transpose
