"""JAX: loops run in Python for eager arrays and in ``lax.while_loop`` for traced ones; converged members keep their state."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as xp
import numpy as np
from jax import lax
from jax.sharding import SingleDeviceSharding

from matsign._typing import Arrays
from matsign.backends import control_flow, jax_sharding, numpy
from matsign.backends.control_flow import first_leaf, tree_map
from matsign.backends.jax_derivatives import Derivative

Array = jax.Array
name = "jax"


def asarray(x: Any, like: Any = None) -> Array:
    return xp.asarray(x)


def layout(x: Any) -> Any:
    if not isinstance(x, jax.Array) or isinstance(x, jax.core.Tracer) or x.ndim < 2 or x.dtype not in _NAMES:
        return None
    return (jax.Array, x.dtype, x.shape, x.sharding) if isinstance(x.sharding, SingleDeviceSharding) else None


_NAMES = {np.dtype(name) for name in ("float16", "float32", "float64", "complex64", "complex128")}


def astype(x: Array, kind: str) -> Array:
    return x.astype(kind)


def dtype_name(x: Array) -> str:
    return x.dtype.name


def default_float() -> str:
    return xp.zeros(()).dtype.name


def resolve_conj(x: Array) -> Array:
    return x


def eye(n: int, like: Array) -> Array:
    return xp.eye(n, dtype=like.dtype)


def zeros(shape: tuple[int, ...], like: Array) -> Array:
    return xp.zeros(shape, like.dtype)


def ones(like: Array) -> Array:
    return xp.ones(len(like), like.real.dtype)


def int_zeros(like: Array) -> Array:
    return xp.zeros(len(like), xp.int32)


def is_complex(x: Array) -> bool:
    return bool(xp.iscomplexobj(x))


def inner(x: Array, y: Array) -> Array:
    return xp.vecdot(x, y).real


def norm(x: Array) -> Array:
    flat = x.reshape(len(x), -1)
    return xp.sqrt(inner(flat, flat))


def trace(x: Array) -> Array:
    return xp.linalg.trace(x)


def eps(x: Array) -> float:
    return float(xp.finfo(x.dtype).eps)


def common_dtype_name(*xs: Array) -> str:
    return xp.result_type(*(x.dtype for x in xs)).name


def follows_others(x: Array) -> bool:
    return is_traced(x) or not x.committed


def device_name(x: Array) -> str:
    if is_traced(x):
        return "traced"
    return ",".join(sorted(str(d) for d in x.devices()))


def _platform(x: Array) -> str:
    return jax.default_backend() if is_traced(x) else next(iter(x.devices())).platform


def on_cpu(x: Array) -> bool:
    return _platform(x) == "cpu"


fast_eigh = fast_svd = on_cpu


def fast_half_dtype(x: Array) -> str | None:
    return {"gpu": "float16", "cuda": "float16", "rocm": "float16", "tpu": "bfloat16"}.get(_platform(x))


def is_traced(x: Array) -> bool:
    return isinstance(x, jax.core.Tracer)


def dynamic_shapes(x: Array) -> bool:
    return False


def products_only(x: Array) -> bool:
    return False


def unrolls_loops(x: Array) -> bool:
    return False


def workers(x: Array) -> int:
    return 0


def full_precision(x: Array) -> Any:
    # By default float32 products may be computed in bfloat16 or TensorFloat-32, with which no iteration converges.
    return jax.default_matmul_precision("highest")


def addmm(beta: float, x: Array, alpha: float, a: Array, b: Array) -> Array:
    return (x if beta == 1 else beta * x) + (a @ b if alpha == 1 else alpha * (a @ b))


def hermitian_product(a: Array, b: Array, shift: float = 0.0) -> Array:
    return a @ b + shift * xp.eye(a.shape[-2], dtype=a.dtype) if shift else a @ b


def add_diagonal(x: Array, alpha: Array) -> Array:
    return x + alpha[:, None, None] * xp.eye(x.shape[-1], dtype=x.dtype)


def any_true(x: Array) -> bool:
    return bool(x.any())


def all_true(x: Array) -> bool:
    return bool(x.all())


def known_finite(x: Array) -> bool:
    return not is_traced(x) and bool(xp.isfinite(x).all())


# In programs for a CPU these are used only if XLA partitions the program: several stacked factorisations in one program deadlock
# on machines with few cores (observed with jaxlib 0.10.2 on two).
inv, solve, cholesky = xp.linalg.inv, xp.linalg.solve, xp.linalg.cholesky


def inv_near(a: Array, guess: Array) -> Array:
    return inv(a)


def eigh(a: Array) -> tuple[Array, Array]:
    return tuple(xp.linalg.eigh(a))


def svd(a: Array) -> tuple[Array, Array, Array]:
    return tuple(xp.linalg.svd(a, full_matrices=False))


def eig(a: Array) -> tuple[Array, Array]:
    if on_cpu(a):
        values, vectors = xp.linalg.eig(a)
        return values, vectors
    # Not every accelerator has it.
    vectors = a.astype(xp.result_type(a.dtype, xp.complex64))
    return host_callback(numpy.eig, (vectors[..., 0], vectors), a)


# For each float dtype, the integer dtype of its bits and the number of fraction bits.
_BITS = {"float32": (xp.int32, 23), "float64": (xp.int64, 52)}


def _lift_denormals(x: Array) -> tuple[Array, Array]:
    """(y, shift) with real x = y 2^shift and no denormal in y: XLA on a CPU flushes denormals to zero."""
    kind, fraction = _BITS[x.dtype.name]
    bits = lax.bitcast_convert_type(x, kind) & xp.iinfo(kind).max
    denormal = (bits > 0) & (bits < 1 << fraction)
    lifted = xp.where(denormal, xp.copysign(bits.astype(x.dtype), x), x)
    return lifted, xp.where(denormal, xp.finfo(x.dtype).minexp - fraction, 0).astype(xp.int32)


def _lower_denormals(x: Array, e: Array) -> Array:
    """x 2^e, assembled from its bits where it is denormal."""
    kind, fraction = _BITS[x.dtype.name]
    whole = xp.abs(ldexp(x, e - (xp.finfo(x.dtype).minexp - fraction)))
    low = whole < 1 << fraction
    number = lax.bitcast_convert_type(xp.round(xp.where(low, whole, 0)).astype(kind), x.dtype)
    return xp.where(low, xp.where(x < 0, -number, number), ldexp(x, e))


@functools.partial(jax.jit, inline=True)
def log_determinant(a: Array) -> Array:
    return xp.linalg.slogdet(a)[1]


def exponent(x: Array) -> Array:
    lifted, shift = _lift_denormals(x)
    return xp.where(lifted == 0, 0, xp.frexp(lifted)[1] + shift)


def ldexp(x: Array, e: Array) -> Array:
    real = x.real.dtype
    # Beyond this limit a factor is infinite and 0 becomes NaN; no ratio of two numbers is so large.
    limit = 252 if real == xp.float32 else 2044
    e = xp.clip(e, -limit, limit)
    half = e // 2
    return x * xp.ldexp(xp.ones((), real), half) * xp.ldexp(xp.ones((), real), e - half)


@functools.partial(jax.jit, inline=True)
def exact_ldexp(x: Array, e: Array) -> Array:
    if is_complex(x):
        return lax.complex(exact_ldexp(x.real, e), exact_ldexp(x.imag, e))
    lifted, shift = _lift_denormals(x)
    return _lower_denormals(lifted, e + shift)


@functools.partial(jax.jit, inline=True)
def largest(x: Array) -> Array:
    kind, _ = _BITS[x.dtype.name]
    # The bits of nonnegative floats, read as integers, are in the order of the floats.
    bits = lax.bitcast_convert_type(x, kind) & xp.iinfo(kind).max
    return lax.bitcast_convert_type(xp.max(bits, axis=(-1, -2)), x.dtype)


def where(mask: Array, yes: Array, no: Array) -> Array:
    return xp.where(mask.reshape(mask.shape + (1,) * (yes.ndim - 1)), yes, no)


def loop(step: Callable[[Any], Any], state: Any, limit: int) -> Any:
    first = first_leaf(state)
    carry = (0, state, xp.ones(first.shape[0], bool))

    def alive(carry: Any) -> Any:
        k, _, active = carry
        return (k < limit) & active.any()

    def body(carry: Any) -> Any:
        k, old, active = carry
        new, still = step(old)
        new = tree_map(lambda x, y: where(active, x, y), new, old)
        return k + 1, new, active & still

    if any(is_traced(x) for x in jax.tree_util.tree_leaves(state)):
        return lax.while_loop(alive, body, carry)[1]
    while alive(carry):
        carry = body(carry)
    return carry[1]


def masked_cond(mask: Array, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Array) -> Any:
    def both(*arrays: Array) -> Any:
        return tree_map(lambda x, y: where(mask, x, y), yes(*arrays), no(*arrays))

    if is_traced(mask):
        return lax.cond(mask.any(), both, no, *arrays)
    if mask.all():
        return yes(*arrays)
    return both(*arrays) if mask.any() else no(*arrays)


rare_cond = masked_cond


fold_rows = control_flow.fold_rows
shared_function = control_flow.shared_function
sum_over_rows = control_flow.sum_over_rows


def scan(f: Callable[..., Any], state: Any, rows: Any, *, reverse: bool = False) -> tuple[Any, Any]:
    result: tuple[Any, Any] = lax.scan(f, state, tree_map(xp.asarray, rows), reverse=reverse)
    return result


def masked_select(mask: Array, yes: Any, no: Any) -> Any:
    return masked_cond(mask, control_flow.first, control_flow.second, yes, no)


as_stacks = jax_sharding.as_stacks


def tangent(bound: Any, value: Arrays, arrays: Arrays, directions: Arrays) -> Arrays:
    return bind(Derivative(bound, "tangent"), *value, *arrays, *directions)


def bind(bound: Any, *arrays: Array) -> tuple[Array, ...]:
    from matsign.backends import jax_autodiff

    return jax_autodiff.bind(bound, *arrays)


def by_numpy(bound: Any, *arrays: Array) -> bool:
    from matsign.backends import jax_autodiff

    return jax_autodiff.by_numpy(bound, *arrays)


def from_numpy(x: Any, like: Array) -> Array:
    from matsign.backends import jax_autodiff

    return jax_autodiff.from_numpy(x, like)


def stop_gradient(x: Array) -> Array:
    return lax.stop_gradient(x)


def host_callback(f: Callable[..., Any], like: Any, *arrays: Array) -> Any:
    shapes = tree_map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like)

    def call(*arrays: Any) -> Any:
        return tree_map(lambda r, x: np.asarray(r, x.dtype), f(*(np.asarray(x) for x in arrays)), shapes)

    if any(is_traced(x) for x in arrays):
        return jax.pure_callback(call, shapes, *arrays, vmap_method="sequential")
    return tree_map(xp.asarray, call(*arrays))
