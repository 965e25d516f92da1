"""Operations in programs for an accelerator: the main method in XLA, and one call of the host for the members it cannot solve.

XLA would compile every method that a solver contains. Traced with `Accelerator`, an operation contains only the methods that most
members take; the members for which the solver would take another one (`rare_cond`) or the host are marked as unserved. After the
main method NumPy solves these members, or they are NaN if the program cannot call it: an exported one runs without Python.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as xp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import mlir

from matsign._typing import Array
from matsign.backends import CODES, jax_host, jax_sharding, numpy
from matsign.backends import jax as jax_backend
from matsign.backends.control_flow import first_leaf, tree_map
from matsign.backends.jax_derivatives import Derivative, leading_axes


class Accelerator:
    """The backend `jax` for one trace of one operation; it also collects the unserved members."""

    def __init__(self, call_host: Callable[..., Any]) -> None:
        self.xp = _Namespace()
        self._call_host = call_host
        # A list of masks for each function (of a loop or a branch) that is being traced.
        self._unserved: list[list[Array]] = [[]]
        self._functions: dict[Any, Callable[..., Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(jax_backend, name)

    def unserved_members(self) -> Array | None:
        """The mask of the unserved members so far, or None if there are none."""
        return functools.reduce(operator.or_, self._unserved[-1]) if self._unserved[-1] else None

    def _mark_unserved(self, mask: Array | None) -> None:
        if mask is not None:
            self._unserved[-1].append(mask)

    def _collect_unserved(self, f: Callable[..., Any], *arrays: Any) -> tuple[Any, Array | None]:
        """The result of f, and the members that are unserved by it."""
        self._unserved.append([])
        result = f(*arrays)
        unserved = self.unserved_members()
        self._unserved.pop()
        return result, unserved

    def on_cpu(self, x: Array) -> bool:
        return False

    fast_eigh = fast_svd = on_cpu

    def is_traced(self, x: Array) -> bool:
        return True

    def known_finite(self, x: Array) -> bool:
        """True: the arrays given are finite, and members that become nonfinite are found in the result."""
        return True

    def eig(self, a: Array) -> tuple[Array, Array]:
        """By the host, because not every accelerator has it."""
        kind = xp.result_type(a.dtype, xp.complex64)
        values, vectors = self._call_host(_eig, ((a.shape[:-1], kind), (a.shape, kind)), a)
        return values, vectors

    def host_callback(self, f: Callable[..., Any], like: Any, *arrays: Array) -> Any:
        """Zeros: all members are marked as unserved."""
        self._mark_unserved(xp.ones(len(arrays[0]), bool))
        return tree_map(xp.zeros_like, like)

    def rare_cond(self, mask: Array, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Array) -> Any:
        self._mark_unserved(mask)
        return no(*arrays)

    def masked_cond(self, mask: Array, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Array) -> Any:
        """As in `jax`, but each function is traced once: there, the code of `no` occurs in both branches."""
        other, other_unserved = self._collect_unserved(no, *arrays)

        def both(mask: Array, *arrays: Array) -> Any:
            result, unserved = self._collect_unserved(yes, *arrays)
            unserved = ~mask & mask if unserved is None else unserved & mask
            return self.masked_select(mask, result, other), unserved

        result, unserved = lax.cond(mask.any(), both, lambda mask, *_: (other, mask), mask, *arrays)
        self._mark_unserved(unserved)
        self._mark_unserved(other_unserved)
        return result

    def masked_select(self, mask: Array, yes: Any, no: Any) -> Any:
        return tree_map(lambda x, y: y if x is y else _where(mask, x, y), yes, no)

    def loop(self, step: Callable[[Any], Any], state: Any, limit: int) -> Any:
        """As in `jax`, without a selection for arrays that a step returns unchanged."""

        def alive(carry: Any) -> Any:
            k, _, active, _ = carry
            return lax.bitwise_and(k < limit, active.any())

        def body(carry: Any) -> Any:
            k, old, active, unserved_before = carry
            (new, still), unserved = self._collect_unserved(step, old)
            return (
                k + 1,
                self.masked_select(active, new, old),
                active & still,
                unserved_before if unserved is None else unserved_before | (unserved & active),
            )

        all_members = xp.ones(len(first_leaf(state)), bool)
        _, result, _, unserved_before = lax.while_loop(alive, body, (0, state, all_members, ~all_members))
        self._mark_unserved(unserved_before)
        return result

    def fold_rows(self, rows: Any, f: Callable[..., Any], state: Any) -> Any:
        table = np.array(list(rows), first_leaf(state).real.dtype)
        return lax.scan(lambda x, row: (f(x, *row), None), state, table)[0] if len(table) else state

    def scan(self, f: Callable[..., Any], state: Any, rows: Any, *, reverse: bool = False) -> tuple[Any, Any]:
        def body(old: Any, row: Any) -> Any:
            (new, out), unserved = self._collect_unserved(f, old, row)
            return new, (out, unserved)

        state, (out, unserved) = lax.scan(body, state, tree_map(xp.asarray, rows), reverse=reverse)
        self._mark_unserved(None if unserved is None else unserved.any(0))
        return state, out

    def bind(self, bound: Any, *arrays: Array) -> tuple[Array, ...]:
        """An inner operation; its failed members are unserved."""
        key = (id(bound.operation), bound.given, bound.options)
        result: tuple[Array, ...] = self._shared_call(key, lambda *xs: bound(self, *xs), *arrays)
        self._mark_unserved(result[-CODES] > 0)
        return result

    def shared_function(self, f: Callable[..., Any], backend: Any, *arrays: Any, **options: Any) -> Any:
        return self._shared_call((f, *sorted(options.items())), functools.partial(f, self, **options), *arrays)

    def _shared_call(self, key: Any, f: Callable[..., Any], *arrays: Any) -> Any:
        """A call of f, which is compiled once for all calls with this key."""
        if key not in self._functions:
            self._functions[key] = jax.jit(functools.partial(self._collect_unserved, f))
        result, unserved = self._functions[key](*arrays)
        self._mark_unserved(unserved)
        return result

    # Each of these is one function of the compiled program, which keeps the program short.
    def eye(self, n: int, like: Array) -> Array:
        return _eye(n, like.dtype.name)

    def exponent(self, x: Array) -> Array:
        return _exponent(x)

    def ldexp(self, x: Array, e: Array) -> Array:
        shape = xp.broadcast_shapes(x.shape, e.shape)
        return _ldexp(xp.broadcast_to(x, shape), xp.broadcast_to(e, shape))

    exact_ldexp = ldexp

    def largest(self, x: Array) -> Array:
        return _largest(x)

    def norm(self, x: Array) -> Array:
        return _norm(x)

    cholesky = staticmethod(functools.partial(xp.linalg.cholesky, symmetrize_input=False))

    def log_determinant(self, a: Array) -> Array:
        factors, _, _ = lax.linalg.lu(a)
        return xp.log(xp.abs(xp.diagonal(factors, axis1=-2, axis2=-1))).sum(-1)


_norm = jax.jit(jax_backend.norm)
_largest = jax.jit(lambda x: xp.max(xp.abs(x), axis=(-1, -2)))


def _bits(x: Array) -> tuple[Any, int, int]:
    """The integer dtype of the bits of a float, the number of fraction bits, and the biased exponent of 1."""
    return (xp.int32, 23, 127) if x.real.dtype == xp.float32 else (xp.int64, 52, 1023)


@jax.jit
def _exponent(x: Array) -> Array:
    """The exponent of numbers that are not denormal."""
    kind, fraction, one = _bits(x)
    e = (lax.bitcast_convert_type(xp.abs(x), kind) >> fraction).astype(xp.int32)
    return lax.select(x == 0, xp.zeros_like(e), e - (one - 1))


@jax.jit
def _ldexp(x: Array, e: Array) -> Array:
    """x 2^e; NaN where 2^e overflows or is denormal, so that the host solves this member."""
    kind, fraction, one = _bits(x)
    bits = (e.astype(kind) + one) << xp.full(e.shape, fraction, kind)
    factor = lax.bitcast_convert_type(bits, x.real.dtype)
    return x * lax.select(xp.abs(e) < one, factor, xp.full(e.shape, xp.nan, factor.dtype))


class _Namespace:
    """`jax.numpy` with an inlined `where`, because its own is a function for each combination of shapes, and a short `hypot`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(xp, name)

    def hypot(self, x: Array, y: Array) -> Array:
        return xp.sqrt(x * x + y * y)

    def where(self, mask: Array, yes: Any, no: Any) -> Array:
        dtype = xp.result_type(yes, no)
        shape = xp.broadcast_shapes(mask.shape, xp.shape(yes), xp.shape(no))
        return lax.select(*(xp.broadcast_to(x, shape) for x in (mask, xp.asarray(yes, dtype), xp.asarray(no, dtype))))


def _where(mask: Array, yes: Array, no: Array) -> Array:
    return lax.select(lax.broadcast_in_dim(mask, yes.shape, (0,)), yes, no)


_eye = jax.jit(lambda n, kind: xp.eye(n, dtype=kind), static_argnums=(0, 1))


def lowering(ctx: Any, *operands: Any, bound: Any) -> Any:
    """The lowering for an accelerator, and for fixed sequences of products on every platform."""
    # Types without shardings: XLA propagates them, and types with shardings would have to agree.
    avals = [jax.core.ShapedArray(x.shape, x.dtype) for x in ctx.avals_in]
    program = trace_products if bound.fixed else functools.partial(trace, call_host=_call_host)
    with jax_sharding.no_mesh():
        return mlir.lower_fun(program)(ctx.replace(avals_in=avals), *operands, bound=bound)


class _Branchless:
    """The backend `jax` for fixed sequences of products: a branch taken for any member would need all members to agree."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jax_backend, name)

    def masked_cond(self, mask: Array, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Array) -> Any:
        return self.masked_select(mask, yes(*arrays), no(*arrays))

    def masked_select(self, mask: Array, yes: Any, no: Any) -> Any:
        return tree_map(lambda x, y: jax_backend.where(mask, x, y), yes, no)


def trace_products(*arrays: Array, bound: Any) -> tuple[Array, ...]:
    """A fixed sequence of products, which XLA partitions over several leading axes without communication if none are merged.

    Members with denormal numbers are not left to the host.
    """
    return jax_sharding.on_stacks(lambda *xs: tuple(bound(_Branchless(), *xs)), leading_axes(bound, arrays))(*arrays)


def trace(*arrays: Array, bound: Any, call_host: Callable[..., Any]) -> tuple[Array, ...]:
    """The results for arrays with any number of leading axes, which count the members.

    ``call_host(solve, results, *arrays)`` is ``solve(results, arrays)`` by the host, `results` being shapes and dtypes.
    """
    leading = leading_axes(bound, arrays)
    stacks = (jax_sharding.merge_members(x, leading) for x in arrays)
    result = _trace_stacks(*stacks, bound=bound, call_host=call_host)
    shape = arrays[0].shape[:leading]
    return tuple(jax_sharding.split_members(x, shape) for x in result)


def _trace_stacks(*arrays: Array, bound: Any, call_host: Callable[..., Any]) -> tuple[Array, ...]:
    backend, nonfinite = Accelerator(call_host), ~_finite(arrays)
    result = tuple(bound(backend, *(_where(nonfinite, _identity_like(x), x) for x in arrays)))
    values = result if isinstance(bound, Derivative) else result[:-CODES]
    unserved = nonfinite | _holds_denormal(arrays)
    if bound.requires_finite:
        # The host solves members whose result is not finite.
        unserved = unserved | ~_finite(values)
    if backend.unserved_members() is not None:
        unserved = unserved | backend.unserved_members()
    results = tuple((x.shape, x.dtype) for x in result)

    def with_host_results(*arrays: Array) -> tuple[Array, ...]:
        by_host = call_host(functools.partial(jax_host.solve_some, bound), results, unserved, *arrays)
        return tuple(_where(unserved, x, y) for x, y in zip(by_host, result, strict=True))

    solved: tuple[Array, ...] = lax.cond(unserved.any(), with_host_results, lambda *_: result, *arrays)
    return solved


def _entries(arrays: tuple[Array, ...]) -> Array:
    """All floating-point numbers of each member."""
    floats = [x for x in arrays if xp.issubdtype(x.dtype, xp.inexact)]
    parts = [y for x in floats for y in ((x.real, x.imag) if xp.iscomplexobj(x) else (x,))]
    return xp.concat([x.reshape(len(x), -1) for x in parts], axis=1)


def _finite(arrays: tuple[Array, ...]) -> Array:
    return xp.isfinite(_entries(arrays)).all(-1)


def _holds_denormal(arrays: tuple[Array, ...]) -> Array:
    """The mask of the members with a denormal number, which accelerators flush to zero."""
    entries = _entries(arrays)
    kind, fraction, _ = _bits(entries)
    bits = lax.bitcast_convert_type(xp.abs(entries), kind)
    return ((bits > 0) & (bits < 1 << fraction)).any(-1)


def _identity_like(x: Array) -> Array:
    """The identity, or ones, as a replacement for nonfinite members."""
    if x.ndim < 3:
        return xp.ones_like(x)
    n, m = x.shape[-2:]
    return xp.broadcast_to(_eye(max(n, m), x.dtype.name)[:n, :m], x.shape)


def _eig(results: Any, arrays: Any) -> list[Any]:
    return [x.astype(like.dtype) for x, like in zip(numpy.eig(np.asarray(arrays[0])), results, strict=True)]


# A call of the host, if the program has one.
_host = Primitive("matsign_host")
_host.multiple_results = True


@_host.def_abstract_eval
def _abstract(*arrays: Any, solve: Any, results: Any) -> list[Any]:
    return [jax.core.ShapedArray(*x) for x in results]


def _call_host(solve: Callable[..., Any], results: Any, *arrays: Array) -> Any:
    return _host.bind(*arrays, solve=solve, results=results)


def _lower_host(ctx: Any, *operands: Any, solve: Any, results: Any) -> Any:
    if jax_host.reachable(ctx.module_context):
        return jax_host.call_on_host(ctx, operands, solve)
    return mlir.lower_fun(all_failed)(ctx, *operands, results=results)


def all_failed(*operands: Array, results: Any) -> list[Array]:
    """NaN, and nonzero codes."""
    return [xp.full(shape, xp.nan if xp.issubdtype(dtype, xp.inexact) else 1, dtype) for shape, dtype in results]


mlir.register_lowering(_host, _lower_host, cacheable=False)
