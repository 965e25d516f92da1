"""A step as one primitive of JAX, with rules for all that JAX does to it.

Eagerly it runs on concrete arrays. Compiled, it is lowered through its traced form, or for a CPU to a call of NumPy (`jax_host`).
Under ``vmap`` it takes the new axis into its stack. Its tangent is the step's own; a step that is linear in its last array is
transposed by transposing the others.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as xp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from matsign._typing import Array
from matsign.backends import CODES, jax_accelerator, jax_host, load
from matsign.backends.jax_derivatives import Derivative

_step = Primitive("matsign")
_step.multiple_results = True


def bind(step: Any, *arrays: Array) -> tuple[Array, ...]:
    return tuple(_step.bind(*_equally_varying(arrays), step=step))


def _varying(x: Any) -> frozenset[Any]:
    """The axes of a `shard_map` over which an array or its type varies from device to device."""
    kind = x if isinstance(x, jax.core.ShapedArray) else jax.typeof(x)
    manual = getattr(kind, "manual_axis_type", None)
    return frozenset(getattr(kind, "vma", ()) if manual is None else manual.varying)


def _equally_varying(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    """Arrays that vary over the same axes, as all operands of an operation must."""
    every = frozenset().union(*map(_varying, arrays))
    missing = [tuple(every - _varying(x)) for x in arrays]
    return tuple(lax.pcast(x, axes, to="varying") if axes else x for x, axes in zip(arrays, missing, strict=True))


@_step.def_impl
def _run(*arrays: Array, step: Any) -> list[Array]:
    if not by_numpy(step, *arrays):
        return list(step(load("jax"), *arrays))
    found = step.evaluate(load("numpy"), *map(np.asarray, arrays))
    out = [from_numpy(x, arrays[0]) for x in found]
    if step.raises(load("numpy"), found):
        step.raise_failures(load("jax"), tuple(out))
    return out


def by_numpy(step: Any, *arrays: Array) -> bool:
    return not step.fixed and all([_on_host(x) for x in arrays])


def from_numpy(x: Any, like: Array) -> Array:
    """On the device of `like`; committed to it only where it is not the usual one."""
    found = xp.asarray(x)
    return found if found.sharding == like.sharding else jax.device_put(found, like.sharding)


def _on_host(x: Any) -> bool:
    """Whether NumPy can take x as it is: with values, on one CPU. One call of its takes less time than one operation of JAX's."""
    if not isinstance(x, jax.Array) or isinstance(x, jax.core.Tracer):
        return False
    return isinstance(x.sharding, SingleDeviceSharding) and x.is_fully_addressable and x.platform() == "cpu"


@_step.def_abstract_eval
def _abstract(*arrays: Any, step: Any) -> list[Any]:
    return [_result_type(arrays[0], shape, dtype) for shape, dtype in _results(step, arrays)]


def _result_type(like: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """The type of a result: its members lie where those of `like` lie."""
    over = like.sharding.spec[0] if like.sharding.spec else None
    sharding = NamedSharding(like.sharding.mesh, PartitionSpec(over, *(None,) * (len(shape) - 1)))
    return like.update(shape=shape, dtype=dtype, weak_type=False, sharding=sharding)


def _results(step: Any, arrays: Any) -> list[tuple[tuple[int, ...], Any]]:
    """Shapes and dtypes of all that a step returns; where a solver chooses a size, only tracing it tells."""
    if isinstance(step, Derivative):
        return [(x.shape, x.dtype) for x in step.like(arrays)]
    known = step.result_shapes(arrays)
    if known is None:
        given = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays)
        return [(x.shape, x.dtype) for x in jax.eval_shape(lambda *xs: step(load("jax"), *xs), *given)]
    same, count = arrays[0].dtype, arrays[0].shape[0]
    kinds = {"same": same, "real": np.finfo(same).dtype, "complex": np.result_type(same, np.complex64)}
    codes = [((count,), xp.int32), ((count,), xp.int32), ((count, 2), kinds["real"])]
    return [*((shape, kinds[kind]) for shape, kind in known), *codes]


# Each call of the host is an object of its own, so equal steps of a program must not share one.
mlir.register_lowering(_step, jax_accelerator.lowering, cacheable=False)
mlir.register_lowering(_step, jax_host.lowering(jax_accelerator.lowering), platform="cpu", cacheable=False)


def _batch(arrays: Any, axes: Any, *, step: Any) -> tuple[list[Array], list[int]]:
    count = next(x.shape[d] for x, d in zip(arrays, axes, strict=True) if d is not None)

    def merge(x: Array, d: Any) -> Array:
        x = xp.broadcast_to(x, (count, *x.shape)) if d is None else xp.moveaxis(x, d, 0)
        return x.reshape((count * x.shape[1], *x.shape[2:]))

    found = bind(step.over(count), *(merge(x, d) for x, d in zip(arrays, axes, strict=True)))
    return [x.reshape((count, x.shape[0] // count, *x.shape[1:])) for x in found], [0] * len(found)


batching.primitive_batchers[_step] = _batch


def _jvp(arrays: Any, tangents: Any, *, step: Any) -> tuple[tuple[Array, ...], list[Any]]:
    if isinstance(step, Derivative):
        return _second_jvp(arrays, tangents, step)
    found = bind(step, *arrays)
    value = found[:-CODES]
    moved = bind(Derivative(step, "tangent"), *value, *arrays, *map(ad.instantiate_zeros, tangents))
    still = [ad.Zero(jax.typeof(x).to_tangent_aval()) for x in found[-CODES:]]
    return found, [*moved, *still]


def _second_jvp(operands: Any, tangents: Any, step: Derivative) -> tuple[tuple[Array, ...], list[Any]]:
    """A derivative is linear in its directions; how it moves with the point, the rule it is made of tells."""
    count = step.directions
    point, directions = operands[:-count], operands[-count:]
    moved = bind(step, *point, *map(ad.instantiate_zeros, tangents[-count:]))
    if all(isinstance(x, ad.Zero) for x in tangents[:-count]):
        return bind(step, *operands), list(moved)
    found, turned = jax.jvp(
        lambda *point: tuple(step(load("jax"), *point, *directions)),
        tuple(point),
        tuple(map(ad.instantiate_zeros, tangents[:-count])),
    )
    return found, [x + y for x, y in zip(moved, turned, strict=True)]


ad.primitive_jvps[_step] = _jvp


def _transpose(cotangents: Any, *arrays: Array, step: Any) -> list[Any]:
    if isinstance(step, Derivative):
        point, directions = arrays[: -step.directions], arrays[-step.directions :]
        given = (ad.instantiate_zeros(x).conj() for x in cotangents)
        found = [x.conj() for x in bind(step.adjoint(), *point, *given)]
        wanted = map(ad.is_undefined_primal, directions)
        return [*(None for _ in point), *(x if w else None for x, w in zip(found, wanted, strict=True))]
    *others, q = arrays
    assert step.operation.linear, step.operation.name
    assert ad.is_undefined_primal(q), "only the last array of a linear step has a transpose"
    bar = ad.instantiate_zeros(cotangents[0])
    return [*(None for _ in others), bind(step, *(x.mT for x in others), bar)[0]]


ad.primitive_transposes[_step] = _transpose
